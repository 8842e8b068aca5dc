//! What is never cut: patterns that a runtime makes one kernel of, or computes differently when it does not see what comes before.
//!
//! Each was found by its bits, on ONNX Runtime with all optimisations, and stands here with its reason. The bit proof finds the others.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    cut::makers,
    graph::{makes, uses, Graph},
    proto::NodeProto,
    shapes::Shapes,
};

/// A pattern that runtimes fuse, seen from a node in its middle: operations before it and after it, level by level. A level that is
/// not there is skipped.
struct Pattern {
    anchor: &'static str,
    before: &'static [&'static [&'static str]],
    after: &'static [&'static [&'static str]],
}

/// In a pattern: an addition of an initialiser, not of another activation.
const BIAS: &str = "Add of a bias";

const PATTERNS: [Pattern; 11] = [
    // A convolution and what is folded into its weights or run before it stores its result.
    Pattern {
        anchor: "Conv",
        before: &[&["Pad"]],
        after: &[
            &["BatchNormalization"],
            &["Mul"],
            &["Add"],
            &["Sum", "Add"],
            &[
                "Relu",
                "Clip",
                "LeakyRelu",
                "HardSigmoid",
                "Sigmoid",
                "Tanh",
                "HardSwish",
            ],
        ],
    },
    // A matrix product, its bias and its activation.
    Pattern {
        anchor: "Gemm",
        before: &[&["Transpose"]],
        after: &[&["Relu", "LeakyRelu", "Sigmoid", "Tanh"]],
    },
    // Residual addition and norm: one kernel, whose bits differ from the two.
    Pattern {
        anchor: "LayerNormalization",
        before: &[&["Add"], &[BIAS]],
        after: &[],
    },
    Pattern {
        anchor: "RMSNormalization",
        before: &[&["Add"], &[BIAS]],
        after: &[],
    },
    Pattern {
        anchor: "SimplifiedLayerNormalization",
        before: &[&["Add"], &[BIAS]],
        after: &[],
    },
    // GELU, exact.
    Pattern {
        anchor: "Erf",
        before: &[&["Div", "Mul"], &[BIAS]],
        after: &[&["Add"], &["Mul"], &["Mul"]],
    },
    // GELU, by tanh.
    Pattern {
        anchor: "Tanh",
        before: &[&["Mul"], &["Add"], &["Mul"], &["Pow", "Mul"]],
        after: &[&["Add"], &["Mul"], &["Mul"]],
    },
    // SiLU and QuickGELU.
    Pattern {
        anchor: "Sigmoid",
        before: &[&["Mul"]],
        after: &[&["Mul"]],
    },
    // Attention, from the scores to the weighted values.
    Pattern {
        anchor: "Softmax",
        before: &[
            &["Cast"],
            &["Add", "Where", "Sub"],
            &["Div", "Mul"],
            &["MatMul"],
            &["Transpose", "Mul", "Div"],
        ],
        after: &[&["Cast"], &["Where"], &["MatMul"], &["Transpose"], &["Reshape"]],
    },
    // LayerNorm and RMSNorm, decomposed.
    Pattern {
        anchor: "Sqrt",
        before: &[
            &["Add"],
            &["ReduceMean"],
            &["Pow", "Mul"],
            &["Cast"],
            &["Sub"],
            &["ReduceMean"],
        ],
        after: &[&["Div", "Reciprocal"], &["Mul"], &["Cast"], &["Mul"], &["Add"]],
    },
    // Rotary positions: the rotated half.
    Pattern {
        anchor: "Neg",
        before: &[&["Slice", "Split"]],
        after: &[&["Concat"], &["Mul"], &["Add"]],
    },
];

/// First and last node of every pattern.
pub(crate) fn spans(graph: &Graph, shapes: &Shapes, again: &[bool]) -> Vec<(usize, usize)> {
    let makers = makers(graph);
    let mut users: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (index, node) in graph.nodes.iter().enumerate() {
        uses(node).for_each(|name| users.entry(name).or_default().push(index));
    }
    let previous = |index: usize| {
        uses(&graph.nodes[index])
            .filter_map(|name| makers.get(name).copied())
            .collect::<Vec<_>>()
    };
    let next = |index: usize| {
        makes(&graph.nodes[index])
            .filter_map(|name| users.get(name))
            .flatten()
            .copied()
            .collect::<Vec<_>>()
    };
    let mut spans = Vec::new();
    for (index, node) in graph.nodes.iter().enumerate().filter(|(index, _)| !again[*index]) {
        for pattern in PATTERNS.iter().filter(|pattern| pattern.anchor == node.op_type()) {
            let biased = |node: &NodeProto| uses(node).any(|name| shapes.constant(name).is_some());
            let known = |node: usize| (!again[node]).then(|| (&graph.nodes[node], biased(&graph.nodes[node])));
            let mut members = walk(index, pattern.before, &previous, &known);
            members.extend(walk(index, pattern.after, &next, &known));
            let first = members.iter().copied().min().unwrap_or(index).min(index);
            let last = members.iter().copied().max().unwrap_or(index).max(index);
            spans.push((first, last));
        }
    }
    spans
}

fn walk<'a>(
    anchor: usize,
    levels: &[&[&str]],
    step: &dyn Fn(usize) -> Vec<usize>,
    node: &dyn Fn(usize) -> Option<(&'a NodeProto, bool)>,
) -> Vec<usize> {
    let (mut frontier, mut members) = (vec![anchor], Vec::new());
    for level in levels {
        let fits = |index: &usize| {
            let fits = |(node, biased): (&NodeProto, bool)| {
                level.contains(&node.op_type()) || (biased && node.op_type() == "Add" && level.contains(&BIAS))
            };
            node(*index).is_some_and(fits)
        };
        let found: BTreeSet<usize> = frontier.iter().flat_map(|&index| step(index)).filter(fits).collect();
        if !found.is_empty() {
            members.extend(&found);
            frontier = found.into_iter().collect();
        }
    }
    members
}
