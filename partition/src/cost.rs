//! What a node costs: its multiplications and additions at the probe's lengths.
//!
//! Counted, not timed, so that a split is the same on any machine; and counted as arithmetic, not as weight bytes, because an embedding
//! table is looked up, not multiplied, and providers are paid by their share of the arithmetic.

use crate::{
    graph::{attribute, is_onnx, makes, uses, Graph},
    proto::NodeProto,
    shapes::Shapes,
};

/// Cost of every node, at least 1.
pub(crate) fn of_nodes(graph: &Graph, shapes: &Shapes) -> Vec<u64> {
    graph.nodes.iter().map(|node| of(graph, shapes, node).max(1)).collect()
}

fn of(graph: &Graph, shapes: &Shapes, node: &NodeProto) -> u64 {
    let made = makes(node).filter_map(|name| shapes.get(name));
    let outputs = made.fold(0, |total: u64, seen| total.saturating_add(seen.elements()));
    let multiply = |inner: u64| outputs.saturating_mul(inner).saturating_mul(2);
    match node.op_type() {
        "MatMul" | "Gemm" if is_onnx(node.domain()) => {
            let transposed = attribute(node, "transA").is_some_and(|attribute| attribute.i() != 0);
            let shape = node
                .input
                .first()
                .map(|name| shape_of(graph, shapes, name))
                .unwrap_or_default();
            multiply(
                if transposed { shape.first() } else { shape.last() }
                    .copied()
                    .unwrap_or(1),
            )
        }
        "Gather" | "GatherElements" | "GatherND" => outputs,
        // Everything else that multiplies by a matrix: convolutions, recurrences, block-quantised products.
        _ => {
            let last = makes(node)
                .find_map(|name| shapes.get(name)?.shape.last().copied())
                .unwrap_or(1)
                .max(1);
            let matrices = uses(node)
                .filter_map(|name| graph.weights.get(name))
                .filter(|weight| is_matrix(&weight.dims));
            let inner = matrices.fold(0, |total: u64, weight| {
                let elements = product(&weight.dims);
                let first = weight.dims.first().map_or(1, |dim| dim.unsigned_abs()).max(1);
                let columns = if node.op_type() == "Conv" { first } else { last };
                total.saturating_add(elements.checked_div(columns).unwrap_or_default())
            });
            multiply(inner).max(outputs)
        }
    }
}

/// Whether an initialiser has at least two axes longer than 1.
pub(crate) fn is_matrix(dims: &[i64]) -> bool {
    dims.iter().filter(|&&dim| dim > 1).count() >= 2
}

fn product(dims: &[i64]) -> u64 {
    dims.iter()
        .fold(1, |total: u64, dim| total.saturating_mul(dim.unsigned_abs()))
}

fn shape_of(graph: &Graph, shapes: &Shapes, name: &str) -> Vec<u64> {
    if let Some(seen) = shapes.get(name) {
        return seen.shape.clone();
    }
    graph
        .weights
        .get(name)
        .map(|weight| weight.dims.iter().map(|dim| dim.unsigned_abs()).collect())
        .unwrap_or_default()
}
