//! The graph to be cut: checked, constants lifted out, dead nodes dropped.
//!
//! Guarantees after [`Graph::new`]: nodes are in topological order; every name that a node uses is an input, an initialiser or made by an
//! earlier node, and made once; every node is a plain tensor operation whose result depends on its inputs alone.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use crate::{
    error::SplitError,
    manifest::{Dim, TensorSpec},
    proto::{
        tensor_shape_proto::dimension, type_proto, AttributeProto, GraphProto, ModelProto, NodeProto,
        OperatorSetIdProto, ValueInfoProto,
    },
    source::Weight,
    tensor::DType,
};

#[derive(Clone, Debug)]
pub(crate) struct Graph {
    pub(crate) nodes: Vec<NodeProto>,
    pub(crate) weights: BTreeMap<String, Weight>,
    pub(crate) inputs: Vec<TensorSpec>,
    pub(crate) outputs: Vec<String>,
    pub(crate) opsets: Vec<OperatorSetIdProto>,
    pub(crate) ir_version: i64,
}

/// Whether a domain is ONNX's own.
pub(crate) fn is_onnx(domain: &str) -> bool {
    domain.is_empty() || domain == "ai.onnx"
}

impl Graph {
    /// Checks a model and takes it apart; external data is looked for in `directory`.
    pub(crate) fn new(model: ModelProto, path: &Path, directory: &Path) -> Result<Self, SplitError> {
        refuse_model(&model)?;
        let (ir_version, opsets) = (model.ir_version(), model.opset_import);
        let graph = model
            .graph
            .ok_or_else(|| SplitError::NoGraph { path: path.to_owned() })?;
        refuse_graph(&graph)?;
        graph.node.iter().try_for_each(refuse_node)?;
        let mut weights = BTreeMap::new();
        for tensor in graph.initializer {
            let name = tensor.name().to_owned();
            if weights
                .insert(name.clone(), Weight::from_proto(tensor, directory)?)
                .is_some()
            {
                return Err(SplitError::DuplicateTensor { tensor: name });
            }
        }
        // Old exports list initialisers among the inputs, as defaults; nobody overrides them here.
        let inputs = graph.input.iter().filter(|input| !weights.contains_key(input.name()));
        let inputs = input_specs(&inputs.collect::<Vec<_>>())?;
        let outputs = graph.output.iter().map(|output| output.name().to_owned()).collect();
        let nodes = lift_constants(graph.node, &mut weights, directory)?;
        let mut graph = Self {
            nodes,
            weights,
            inputs,
            outputs,
            opsets,
            ir_version,
        };
        graph.check_order()?;
        graph.prune();
        if graph.nodes.is_empty() {
            return Err(SplitError::Empty);
        }
        Ok(graph)
    }

    /// Version of the standard operator set.
    pub(crate) fn opset(&self) -> i64 {
        self.opsets
            .iter()
            .find(|opset| is_onnx(opset.domain()))
            .map_or(1, OperatorSetIdProto::version)
    }

    pub(crate) fn input(&self, name: &str) -> Option<&TensorSpec> {
        self.inputs.iter().find(|input| input.name == name)
    }

    fn check_order(&self) -> Result<(), SplitError> {
        let mut known: BTreeSet<&str> = self.inputs.iter().map(|input| input.name.as_str()).collect();
        known.extend(self.weights.keys().map(String::as_str));
        for node in &self.nodes {
            if let Some(tensor) = uses(node).find(|tensor| !known.contains(tensor)) {
                return Err(SplitError::NotTopological {
                    node: label(node),
                    tensor: tensor.to_owned(),
                });
            }
            if let Some(tensor) = makes(node).find(|tensor| !known.insert(tensor)) {
                return Err(SplitError::DuplicateTensor {
                    tensor: tensor.to_owned(),
                });
            }
        }
        let made: BTreeSet<_> = self.nodes.iter().flat_map(makes).collect();
        match self.outputs.iter().find(|output| !made.contains(output.as_str())) {
            Some(output) => Err(SplitError::MissingOutput { output: output.clone() }),
            None if self.outputs.is_empty() => Err(SplitError::Empty),
            None => Ok(()),
        }
    }

    /// Drops what no output depends on.
    pub(crate) fn prune(&mut self) {
        let mut needed: BTreeSet<String> = self.outputs.iter().cloned().collect();
        let mut kept = Vec::new();
        for node in self.nodes.drain(..).rev() {
            if makes(&node).any(|tensor| needed.contains(tensor)) {
                needed.extend(uses(&node).map(str::to_owned));
                kept.push(node);
            }
        }
        kept.reverse();
        self.nodes = kept;
        self.weights.retain(|name, _| needed.contains(name));
    }
}

/// Names of the tensors that a node consumes; optional inputs that are absent have an empty name.
pub(crate) fn uses(node: &NodeProto) -> impl Iterator<Item = &str> {
    node.input.iter().map(String::as_str).filter(|name| !name.is_empty())
}

/// Names of the tensors that a node makes.
pub(crate) fn makes(node: &NodeProto) -> impl Iterator<Item = &str> {
    node.output.iter().map(String::as_str).filter(|name| !name.is_empty())
}

pub(crate) fn attribute<'a>(node: &'a NodeProto, name: &str) -> Option<&'a AttributeProto> {
    node.attribute.iter().find(|attribute| attribute.name() == name)
}

fn label(node: &NodeProto) -> String {
    match node.name() {
        "" => format!("making {}", node.output.first().map_or("nothing", String::as_str)),
        name => name.to_owned(),
    }
}

fn refuse_model(model: &ModelProto) -> Result<(), SplitError> {
    if let Some(first) = model.functions.first() {
        return Err(SplitError::LocalFunctions {
            name: first.name().to_owned(),
            count: model.functions.len(),
        });
    }
    if !model
        .opset_import
        .iter()
        .any(|opset| is_onnx(opset.domain()) && opset.version() > 0)
    {
        return Err(SplitError::NoOperatorSet);
    }
    match model.training_info.is_empty() {
        true => Ok(()),
        false => Err(SplitError::Training),
    }
}

fn refuse_graph(graph: &GraphProto) -> Result<(), SplitError> {
    match graph.sparse_initializer.first() {
        Some(sparse) => Err(SplitError::SparseInitializer {
            name: sparse
                .values
                .as_ref()
                .map(|values| values.name().to_owned())
                .unwrap_or_default(),
        }),
        None => Ok(()),
    }
}

fn refuse_node(node: &NodeProto) -> Result<(), SplitError> {
    let (name, op) = (label(node), node.op_type().to_owned());
    let has_graph = |attribute: &AttributeProto| attribute.g.is_some() || !attribute.graphs.is_empty();
    if node.attribute.iter().any(has_graph) || matches!(op.as_str(), "If" | "Loop" | "Scan") {
        return Err(SplitError::Subgraph { node: name, op });
    }
    let sparse = |attribute: &&AttributeProto| attribute.sparse_tensor.is_some();
    if node.attribute.iter().find(sparse).is_some() {
        return Err(SplitError::SparseInitializer { name });
    }
    match op.as_str() {
        _ if op.starts_with("DynamicQuantize") => Err(SplitError::DynamicQuantisation { node: name, op }),
        "RandomNormal" | "RandomUniform" | "RandomNormalLike" | "RandomUniformLike" | "Multinomial" | "Bernoulli" => {
            Err(SplitError::Random { node: name, op })
        }
        "SplitToSequence" | "ConcatFromSequence" => Err(SplitError::NotATensor { node: name, op }),
        _ if op.starts_with("Sequence") || op.starts_with("Optional") => Err(SplitError::NotATensor { node: name, op }),
        _ => Ok(()),
    }
}

/// Constants become initialisers, which stages share and store like weights.
fn lift_constants(
    nodes: Vec<NodeProto>,
    weights: &mut BTreeMap<String, Weight>,
    directory: &Path,
) -> Result<Vec<NodeProto>, SplitError> {
    let mut kept = Vec::with_capacity(nodes.len());
    for mut node in nodes {
        // Exporters put stack traces there; they would only make equal graphs different.
        node.doc_string = None;
        let value = attribute(&node, "value").and_then(|attribute| attribute.t.clone());
        match (value, node.output.as_slice()) {
            (Some(mut tensor), [output]) if node.op_type() == "Constant" && is_onnx(node.domain()) => {
                tensor.name = Some(output.clone());
                if weights
                    .insert(output.clone(), Weight::from_proto(tensor, directory)?)
                    .is_some()
                {
                    return Err(SplitError::DuplicateTensor { tensor: output.clone() });
                }
            }
            _ => kept.push(node),
        }
    }
    Ok(kept)
}

fn input_specs(inputs: &[&ValueInfoProto]) -> Result<Vec<TensorSpec>, SplitError> {
    let mut batch_symbol = None;
    let mut specs = Vec::with_capacity(inputs.len());
    for input in inputs {
        let name = input.name().to_owned();
        if name.starts_with("past_") {
            return Err(SplitError::KeyValueCache { input: name });
        }
        let refuse = |problem| SplitError::Input {
            input: name.clone(),
            problem,
        };
        let Some(type_proto::Value::TensorType(tensor)) = input.r#type.as_ref().and_then(|kind| kind.value.as_ref())
        else {
            return Err(refuse("is not a tensor"));
        };
        let dtype =
            DType::from_code(tensor.elem_type()).ok_or_else(|| refuse("has an element type that rows cannot carry"))?;
        let dims = tensor
            .shape
            .as_ref()
            .map(|shape| shape.dim.as_slice())
            .unwrap_or_default();
        let mut shape = Vec::with_capacity(dims.len());
        for (axis, dim) in dims.iter().enumerate() {
            let dim = match (&dim.value, axis) {
                (Some(dimension::Value::DimParam(symbol)), 0) if !symbol.is_empty() => {
                    if *batch_symbol.get_or_insert_with(|| symbol.clone()) != *symbol {
                        return Err(SplitError::NoBatchAxis { input: name });
                    }
                    Dim::Batch
                }
                (_, 0) => return Err(SplitError::NoBatchAxis { input: name }),
                (Some(dimension::Value::DimParam(symbol)), _) if batch_symbol.as_ref() == Some(symbol) => {
                    return Err(refuse("has a second batch axis"));
                }
                (Some(dimension::Value::DimParam(symbol)), _) if !symbol.is_empty() => Dim::Positions(symbol.clone()),
                (Some(dimension::Value::DimValue(length)), _) if *length > 0 => Dim::Fixed(length.unsigned_abs()),
                _ => return Err(refuse("has an axis with neither length nor name")),
            };
            shape.push(dim);
        }
        if shape.is_empty() {
            return Err(SplitError::NoBatchAxis { input: name });
        }
        specs.push(TensorSpec { name, dtype, shape });
    }
    match specs.is_empty() {
        true => Err(SplitError::Input {
            input: String::new(),
            problem: "the graph has no inputs",
        }),
        false => Ok(specs),
    }
}
