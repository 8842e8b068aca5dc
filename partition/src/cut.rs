//! Where a graph may be cut.
//!
//! A position lies before a node. What crosses it are the activations made before and used after; it may be cut when all of them can be
//! carried by rows, when no pattern that a runtime fuses into one kernel spans it, when what comes after keeps its layout, and when at most
//! three times the bytes cross that must cross somewhere in the middle (this alone finds the residual stream). The bit proof afterwards is
//! the safety net.
//!
//! What derives only from the model's inputs (attention bias, position arithmetic, shapes, rotary angles) never crosses: each stage
//! computes it again.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    fused,
    graph::{is_onnx, makes, uses, BatchAxis, Graph},
    layout::Layouts,
    manifest::TensorSpec,
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

/// The nodes that each stage computes again for itself: what depends on no input or on nothing but the inputs' shapes (however heavy: a
/// runtime does it once), and what derives from the inputs without a product by a matrix.
pub(crate) fn rematerialised(graph: &Graph, shapes: &Shapes) -> Vec<bool> {
    let mut dataless: BTreeSet<&str> = graph.weights.keys().map(String::as_str).collect();
    let mut free: BTreeSet<&str> = graph.inputs.iter().map(|input| input.name.as_str()).collect();
    let mut derived: BTreeSet<&str> = free.clone();
    let mut again = Vec::with_capacity(graph.nodes.len());
    for node in &graph.nodes {
        let of_shapes = matches!(node.op_type(), "Shape" | "Size") && is_onnx(node.domain());
        let constant = uses(node).all(|name| dataless.contains(name) || (of_shapes && free.contains(name)));
        let light = |name: &str| free.contains(name) || (dataless.contains(name) && !shapes.is_matrix(name));
        let known = |name: &str| derived.contains(name) || dataless.contains(name);
        // A table of positions or angles has weights, but what it gives has no batch axis, so no row could carry it.
        let rowless = || makes(node).all(|name| shapes.get(name).is_some_and(|seen| !seen.has_batch_axis()));
        let follows_rows = graph.batch == BatchAxis::Symbolic;
        let cheap = uses(node).all(light);
        let repeat = constant || cheap || (follows_rows && uses(node).all(known) && rowless());
        if constant {
            dataless.extend(makes(node));
        } else if repeat {
            free.extend(makes(node));
            derived.extend(makes(node));
        }
        again.push(repeat);
    }
    again
}

/// Where a graph may be cut, and why nowhere else.
#[derive(Debug)]
pub(crate) struct Ground {
    pub(crate) positions: Vec<Position>,
    pub(crate) obstacles: Obstacles,
}

/// Why there is no cut at the other places between nodes: how many of them each reason rules out, the first that holds counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Obstacles {
    /// Places between nodes, without those that every stage computes again for itself.
    pub places: usize,
    /// Something crosses that a row cannot carry: an unknown shape, no batch axis, an output that is finished already, or nothing at all.
    pub no_row: usize,
    /// A pattern that a runtime fuses, or neighbours of a vendor's domain, lie on both sides.
    pub fused: usize,
    /// What comes after would be computed in another layout.
    pub layout: usize,
    /// More than three times the least bytes would cross.
    pub bytes: usize,
}

/// All positions at which the graph may be cut, in order.
pub(crate) fn survey(graph: &Graph, shapes: &Shapes, again: &[bool], costs: &[u64]) -> Ground {
    let links = Links::new(graph, again);
    let layouts = Layouts::new(graph, shapes, again);
    let spans = fused::spans(graph, shapes, again);
    let total = sum(costs);
    let (mut before, mut obstacles) = (0_u64, Obstacles::default());
    let (mut positions, mut least_middle, mut least) = (Vec::new(), None, None);
    // A cut before the first node that is not computed again would leave a stage with nothing to do.
    let first = again.iter().position(|again| !again).unwrap_or(again.len());
    for (node, (again, cost)) in again.iter().zip(costs).enumerate() {
        let here = before;
        before = before.saturating_add(*cost);
        if *again || node <= first {
            continue;
        }
        let parts = |(first, last): &(usize, usize)| *first < node && node <= *last;
        let found = links.position(node, shapes);
        let (count, reason) = match &found {
            None => (&mut obstacles.no_row, true),
            Some(_) if spans.iter().any(parts) || links.parts_custom(node) => (&mut obstacles.fused, true),
            Some(_) => (&mut obstacles.layout, layouts.change_at(node)),
        };
        obstacles.places = obstacles.places.saturating_add(1);
        if reason {
            *count = count.saturating_add(1);
            continue;
        }
        let Some(position) = found else { continue };
        if here >= total / MIDDLE_PARTS && total.saturating_sub(here) >= total / MIDDLE_PARTS {
            least_middle = Some(least_middle.unwrap_or(position.bytes).min(position.bytes));
        }
        least = Some(least.unwrap_or(position.bytes).min(position.bytes));
        positions.push(position);
    }
    let limit = least_middle.or(least).unwrap_or(0).saturating_mul(CROSSING_FACTOR);
    let possible = positions.len();
    positions.retain(|position| position.bytes <= limit);
    obstacles.bytes = possible.saturating_sub(positions.len());
    Ground { positions, obstacles }
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
            let seen = shapes.get(name)?;
            crossing.push(seen.spec(name)?);
            bytes = bytes.saturating_add(seen.row_bytes());
        }
        (!crossing.is_empty()).then_some(Position { node, crossing, bytes })
    }

    fn parts_custom(&self, node: usize) -> bool {
        self.custom.iter().any(|(maker, user)| *maker < node && node <= *user)
    }
}

pub(crate) fn makers(graph: &Graph) -> BTreeMap<&str, usize> {
    graph
        .nodes
        .iter()
        .enumerate()
        .flat_map(|(index, node)| makes(node).map(move |name| (name, index)))
        .collect()
}
