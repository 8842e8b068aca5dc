//! Looks into a model without files, folders or a runtime.

use std::path::Path;

use crate::{
    error::SplitError,
    graph::{BatchAxis, Graph},
    manifest::TensorSpec,
    source,
};

/// What a model says about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelFacts {
    /// Nodes, after constants were lifted out and dead nodes dropped.
    pub nodes: usize,
    /// Inputs that are no initialisers.
    pub inputs: Vec<TensorSpec>,
    pub outputs: Vec<String>,
    /// Version of the standard operator set.
    pub opset: i64,
    /// Bytes of all initialisers.
    pub weight_bytes: u64,
    /// Whether the graph takes one row at a time: its batch is a fixed 1.
    pub single: bool,
}

/// Checks an ONNX protobuf as [`split`](crate::split) does before it runs anything. A model with external data is refused, for want of a
/// folder. Never panics, whatever the bytes.
pub fn inspect(bytes: &[u8]) -> Result<ModelFacts, SplitError> {
    let path = Path::new("the model");
    let graph = Graph::new(source::decode(bytes.to_vec(), path)?, path, None)?;
    let add = |sum: u64, weight: &source::Weight| sum.saturating_add(weight.bytes);
    Ok(ModelFacts {
        nodes: graph.nodes.len(),
        opset: graph.opset(),
        weight_bytes: graph.weights.values().fold(0, add),
        single: graph.batch == BatchAxis::One,
        inputs: graph.inputs,
        outputs: graph.outputs,
    })
}
