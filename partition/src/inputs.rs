//! What a graph wants to be fed, read before it is split: whoever makes samples for it has to know.

use std::{collections::BTreeSet, path::Path};

use crate::{
    error::SplitError,
    graph::{attribute, is_onnx, label, makes, uses, Graph},
    manifest::TensorSpec,
    proto::NodeProto,
    source,
    tensor::DType,
};

/// An input of a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelInput {
    pub spec: TensorSpec,
    /// The first node that looks something up at the places that the input names, if one does: such values have a bound that no shape tells.
    pub looked_up_by: Option<String>,
}

/// The inputs of the model in an export directory, in the graph's order.
pub fn model_inputs(source_dir: &Path) -> Result<Vec<ModelInput>, SplitError> {
    let path = source::model_path(source_dir)?;
    let graph = Graph::new(source::read_model(&path)?, &path, Some(source_dir))?;
    let input = |spec: &TensorSpec| ModelInput {
        spec: spec.clone(),
        looked_up_by: lookup(&graph.nodes, &spec.name),
    };
    Ok(graph.inputs.iter().map(input).collect())
}

/// The first node for which values of this input, however rearranged or calculated with, are places to look at.
fn lookup(nodes: &[NodeProto], input: &str) -> Option<String> {
    let mut places = BTreeSet::from([input]);
    for node in nodes {
        if !uses(node).any(|tensor| places.contains(tensor)) {
            continue;
        }
        let operand = place_operand(node).and_then(|operand| node.input.get(operand));
        if operand.is_some_and(|tensor| places.contains(tensor.as_str())) {
            return Some(label(node));
        }
        if keeps_values(node) {
            places.extend(makes(node));
        }
    }
    None
}

/// Which operand of a node names places in another one.
fn place_operand(node: &NodeProto) -> Option<usize> {
    let indexed = [
        "Gather",
        "GatherElements",
        "GatherND",
        "Scatter",
        "ScatterElements",
        "ScatterND",
    ];
    (is_onnx(node.domain()) && indexed.contains(&node.op_type())).then_some(1)
}

/// Whether what a node makes is still made of its operands' own numbers. Fractions, truths and places that the graph found itself are not.
fn keeps_values(node: &NodeProto) -> bool {
    match node.op_type() {
        "Shape" | "Size" | "NonZero" | "ArgMax" | "ArgMin" | "TopK" => false,
        "Equal" | "Less" | "LessOrEqual" | "Greater" | "GreaterOrEqual" | "Not" | "And" | "Or" => false,
        "Cast" => {
            let to = attribute(node, "to").and_then(|to| i32::try_from(to.i()).ok());
            !matches!(
                to.and_then(DType::from_code),
                Some(DType::Float16 | DType::Bfloat16 | DType::Float32 | DType::Float64 | DType::Bool)
            )
        }
        _ => true,
    }
}
