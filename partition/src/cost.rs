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
    // What depends on no input is computed once, when a runtime loads the graph.
    let node = |(node, constant)| if constant { 1 } else { of(shapes, node).max(1) };
    graph.nodes.iter().zip(graph.constant_nodes()).map(node).collect()
}

fn of(shapes: &Shapes, node: &NodeProto) -> u64 {
    let made = makes(node).filter_map(|name| shapes.get(name));
    let outputs = made.fold(0, |total: u64, seen| total.saturating_add(seen.elements()));
    let multiply = |inner: u64| outputs.saturating_mul(inner).saturating_mul(2);
    match node.op_type() {
        "MatMul" | "Gemm" if is_onnx(node.domain()) => {
            let transposed = attribute(node, "transA").is_some_and(|attribute| attribute.i() != 0);
            let shape = node.input.first().and_then(|name| shapes.of(name)).unwrap_or_default();
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
            let matrices = uses(node).filter(|name| shapes.is_matrix(name));
            let inner = matrices
                .filter_map(|name| shapes.constant(name))
                .fold(0, |total: u64, shape| {
                    let elements = shape.iter().fold(1, |total: u64, &length| total.saturating_mul(length));
                    let first = shape.first().copied().unwrap_or(1).max(1);
                    let columns = if node.op_type() == "Conv" { first } else { last };
                    total.saturating_add(elements.checked_div(columns).unwrap_or_default())
                });
            multiply(inner).max(outputs)
        }
    }
}
