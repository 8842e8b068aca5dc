//! Where a graph may be cut.
//!
//! A position lies before a node. What crosses it are the activations made before and used after; it may be cut when all of them can be
//! carried by rows, when they are at most three times the least that crosses anywhere in the middle (this alone finds the residual
//! stream), and when no pattern that a runtime fuses into one kernel spans it. The bit proof afterwards is the safety net.
//!
//! What derives only from the model's inputs (attention bias, position arithmetic, shapes, rotary angles) never crosses: each stage
//! computes it again.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    cost::is_matrix,
    graph::{is_onnx, makes, uses, Graph},
    manifest::TensorSpec,
    proto::NodeProto,
    shapes::Shapes,
};

/// More bytes than this times the minimum never cross.
const CROSSING_FACTOR: u64 = 3;
/// The minimum is taken where at least a twentieth of the cost lies on both sides: pooling and heads make tensors so small that they say nothing.
const MIDDLE_PARTS: u64 = 20;

/// A position at which the graph may be cut.
#[derive(Clone, Debug)]
pub(crate) struct Position {
    /// Index of the first node after it.
    pub(crate) node: usize,
    /// What crosses, in the order in which it is made.
    pub(crate) crossing: Vec<TensorSpec>,
    /// Bytes per row of what crosses, at the probe's length.
    pub(crate) bytes: u64,
}

/// The nodes that each stage computes again for itself.
pub(crate) fn rematerialised(graph: &Graph, shapes: &Shapes) -> Vec<bool> {
    let mut free: BTreeSet<&str> = graph.inputs.iter().map(|input| input.name.as_str()).collect();
    let mut derived: BTreeSet<&str> = free.clone();
    let mut again = Vec::with_capacity(graph.nodes.len());
    for node in &graph.nodes {
        let weight = |name: &str| graph.weights.get(name);
        let light = |name: &str| free.contains(name) || weight(name).is_some_and(|weight| !is_matrix(&weight.dims));
        let known = |name: &str| derived.contains(name) || weight(name).is_some();
        // A table of positions or angles has weights, but what it gives has no batch axis, so no row could carry it.
        let rowless = || makes(node).all(|name| shapes.get(name).is_some_and(|seen| !seen.has_batch_axis()));
        let cheap = uses(node).all(light);
        let repeat = cheap || (uses(node).all(known) && rowless());
        if repeat {
            free.extend(makes(node));
            derived.extend(makes(node));
        }
        again.push(repeat);
    }
    again
}

/// All positions at which the graph may be cut, in order.
pub(crate) fn positions(graph: &Graph, shapes: &Shapes, again: &[bool], costs: &[u64]) -> Vec<Position> {
    let links = Links::new(graph, again);
    let total = sum(costs);
    let mut before = 0_u64;
    let (mut carried, mut least_middle, mut least) = (Vec::new(), None, None);
    for node in 1..graph.nodes.len() {
        before = before.saturating_add(costs[node.saturating_sub(1)]);
        let Some(position) = (!again[node]).then(|| links.position(node, shapes)).flatten() else {
            continue;
        };
        let parts = total / MIDDLE_PARTS;
        if before >= parts && total.saturating_sub(before) >= parts {
            least_middle = Some(least_middle.unwrap_or(position.bytes).min(position.bytes));
        }
        least = Some(least.unwrap_or(position.bytes).min(position.bytes));
        carried.push(position);
    }
    let limit = least_middle.or(least).unwrap_or(0).saturating_mul(CROSSING_FACTOR);
    let spans = fused_spans(graph, again);
    let whole = |position: &Position| {
        !spans
            .iter()
            .any(|(first, last)| (first.saturating_add(1)..=*last).contains(&position.node))
    };
    carried.retain(|position| position.bytes <= limit && whole(position) && !links.parts_custom(position.node));
    carried
}

pub(crate) fn sum(costs: &[u64]) -> u64 {
    costs.iter().fold(0, |total, &cost| total.saturating_add(cost))
}

/// Who makes and who last uses each activation.
struct Links<'a> {
    /// Name, maker, last user (one past the end for outputs of the graph), in order of making.
    activations: Vec<(&'a str, usize, usize)>,
    /// Edges between nodes of a vendor's domain: a runtime may treat neighbours as one.
    custom: Vec<(usize, usize)>,
    nodes: usize,
}

impl<'a> Links<'a> {
    fn new(graph: &'a Graph, again: &[bool]) -> Self {
        let mut last_use = BTreeMap::new();
        let makers = makers(graph);
        let mut custom = Vec::new();
        let is_custom = |index: usize| !is_onnx(graph.nodes[index].domain());
        for (index, node) in graph.nodes.iter().enumerate().filter(|(index, _)| !again[*index]) {
            for name in uses(node) {
                last_use.insert(name, index);
                custom.extend(
                    makers
                        .get(name)
                        .filter(|&&maker| is_custom(maker) && is_custom(index))
                        .map(|&maker| (maker, index)),
                );
            }
        }
        for output in &graph.outputs {
            last_use.insert(output, graph.nodes.len());
        }
        let mut activations = Vec::new();
        for (index, node) in graph.nodes.iter().enumerate().filter(|(index, _)| !again[*index]) {
            activations.extend(makes(node).filter_map(|name| Some((name, index, *last_use.get(name)?))));
        }
        Self {
            activations,
            custom,
            nodes: graph.nodes.len(),
        }
    }

    /// What crosses before this node, if rows can carry it.
    fn position(&self, node: usize, shapes: &Shapes) -> Option<Position> {
        let crosses = |(_, maker, last): &&(&str, usize, usize)| *maker < node && node <= *last;
        let (mut crossing, mut bytes) = (Vec::new(), 0_u64);
        for (name, _, last) in self.activations.iter().filter(crosses) {
            // An output that is finished before the last stage would have to be carried by stages that have nothing to do with it.
            if *last >= self.nodes {
                return None;
            }
            let seen = shapes.get(*name)?;
            crossing.push(seen.spec(name)?);
            bytes = bytes.saturating_add(seen.row_bytes());
        }
        (!crossing.is_empty()).then_some(Position { node, crossing, bytes })
    }

    fn parts_custom(&self, node: usize) -> bool {
        self.custom.iter().any(|(maker, user)| *maker < node && node <= *user)
    }
}

fn makers(graph: &Graph) -> BTreeMap<&str, usize> {
    graph
        .nodes
        .iter()
        .enumerate()
        .flat_map(|(index, node)| makes(node).map(move |name| (name, index)))
        .collect()
}

/// A pattern that runtimes fuse, seen from a node in its middle: operations before it and after it, level by level. A level that is
/// not there is skipped.
struct Pattern {
    anchor: &'static str,
    before: &'static [&'static [&'static str]],
    after: &'static [&'static [&'static str]],
}

/// In a pattern: an addition of an initialiser, not of another activation.
const BIAS: &str = "Add of a bias";

const PATTERNS: [Pattern; 9] = [
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

/// First and last node of every fused pattern.
fn fused_spans(graph: &Graph, again: &[bool]) -> Vec<(usize, usize)> {
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
            let biased = |node: &NodeProto| uses(node).any(|name| graph.weights.contains_key(name));
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
