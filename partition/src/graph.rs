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
        tensor_proto::DataLocation,
        tensor_shape_proto::{dimension, Dimension},
        type_proto, AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, ValueInfoProto, Version,
    },
    row,
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
    pub(crate) batch: BatchAxis,
}

/// The first axis of the graph's inputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BatchAxis {
    /// Symbolic: rows can be stacked.
    Symbolic,
    /// A fixed 1: one row at a time, and no tensor tells which of its axes would grow with more.
    One,
}

/// Whether a domain is ONNX's own.
pub(crate) fn is_onnx(domain: &str) -> bool {
    domain.is_empty() || domain == "ai.onnx"
}

impl Graph {
    /// Checks a model that is called `path` in errors and takes it apart; external data is looked for in `directory`, if there is one.
    pub(crate) fn new(mut model: ModelProto, path: &Path, directory: Option<&Path>) -> Result<Self, SplitError> {
        let no_graph = || SplitError::NoGraph { path: path.to_owned() };
        let graph = model.graph.take().ok_or_else(no_graph)?;
        refuse_model(&model)?;
        let (ir_version, opsets) = (model.ir_version(), model.opset_import);
        refuse_graph(&graph)?;
        graph.node.iter().try_for_each(|node| refuse_node(node, &opsets))?;
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
        let (inputs, batch) = input_specs(&inputs.collect::<Vec<_>>())?;
        let outputs = graph.output.iter().map(|output| output.name().to_owned()).collect();
        let nodes = lift_constants(graph.node, &mut weights, directory)?;
        let mut graph = Self {
            nodes,
            weights,
            inputs,
            outputs,
            opsets,
            ir_version,
            batch,
        };
        graph.check_order()?;
        graph.prune();
        if graph.nodes.is_empty() {
            return Err(SplitError::Empty);
        }
        graph.check_outputs()?;
        Ok(graph)
    }

    /// Version of the standard operator set.
    pub(crate) fn opset(&self) -> i64 {
        self.opsets
            .iter()
            .find(|opset| is_onnx(opset.domain()))
            .map_or(1, OperatorSetIdProto::version)
    }

    /// For every node whether it depends on no input: all that it uses are initialisers or made by such nodes.
    pub(crate) fn constant_nodes(&self) -> Vec<bool> {
        let mut made: BTreeSet<&str> = BTreeSet::new();
        let mut constant = Vec::with_capacity(self.nodes.len());
        for node in &self.nodes {
            let all = uses(node).all(|name| made.contains(name) || self.weights.contains_key(name));
            if all {
                made.extend(makes(node));
            }
            constant.push(all);
        }
        constant
    }

    pub(crate) fn input(&self, name: &str) -> Option<&TensorSpec> {
        self.inputs.iter().find(|input| input.name == name)
    }

    fn check_order(&self) -> Result<(), SplitError> {
        let mut known: BTreeSet<&str> = self.weights.keys().map(String::as_str).collect();
        let twice = |tensor: &str| SplitError::DuplicateTensor {
            tensor: tensor.to_owned(),
        };
        if let Some(input) = self.inputs.iter().find(|input| !known.insert(&input.name)) {
            return Err(twice(&input.name));
        }
        let mut outputs = BTreeSet::new();
        if let Some(output) = self.outputs.iter().find(|output| !outputs.insert(*output)) {
            return Err(twice(output));
        }
        for node in &self.nodes {
            if let Some(tensor) = uses(node).find(|tensor| !known.contains(tensor)) {
                let made = self.nodes.iter().flat_map(makes).any(|made| made == tensor);
                let (node, tensor) = (label(node), tensor.to_owned());
                return Err(match made {
                    true => SplitError::NotTopological { node, tensor },
                    false => SplitError::MissingTensor { node, tensor },
                });
            }
            if let Some(tensor) = makes(node).find(|tensor| !known.insert(tensor)) {
                return Err(twice(tensor));
            }
        }
        let made: BTreeSet<_> = self.nodes.iter().flat_map(makes).collect();
        match self.outputs.iter().find(|output| !made.contains(output.as_str())) {
            Some(output) => Err(SplitError::MissingOutput { output: output.clone() }),
            None if self.outputs.is_empty() => Err(SplitError::NoOutputs),
            None => Ok(()),
        }
    }

    /// An output that no input changes is no answer to anything.
    fn check_outputs(&self) -> Result<(), SplitError> {
        let constant = self.constant_nodes();
        let nodes = self.nodes.iter().zip(constant).filter(|(_, constant)| *constant);
        let made: BTreeSet<&str> = nodes.flat_map(|(node, _)| makes(node)).collect();
        match self.outputs.iter().find(|output| made.contains(output.as_str())) {
            Some(output) => Err(SplitError::ConstantOutput { output: output.clone() }),
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

pub(crate) fn label(node: &NodeProto) -> String {
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
    let newest = i64::from(Version::IrVersion as i32);
    if !(1..=newest).contains(&model.ir_version()) {
        return Err(SplitError::IrVersion {
            found: model.ir_version(),
            min: 1,
            max: newest,
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

fn refuse_node(node: &NodeProto, opsets: &[OperatorSetIdProto]) -> Result<(), SplitError> {
    let (name, op) = (label(node), node.op_type().to_owned());
    let has_graph = |attribute: &AttributeProto| attribute.g.is_some() || !attribute.graphs.is_empty();
    if node.attribute.iter().any(has_graph) || matches!(op.as_str(), "If" | "Loop" | "Scan") {
        return Err(SplitError::Subgraph { node: name, op });
    }
    if node.attribute.iter().any(|attribute| attribute.sparse_tensor.is_some()) {
        return Err(SplitError::SparseInitializer { name });
    }
    let tensors = node
        .attribute
        .iter()
        .flat_map(|attribute| attribute.t.iter().chain(&attribute.tensors));
    // A constant becomes an initialiser, and is checked as one.
    if op != "Constant"
        && tensors
            .into_iter()
            .any(|tensor| tensor.data_location() == DataLocation::External)
    {
        return Err(SplitError::ExternalAttribute { node: name });
    }
    let imported = |opset: &OperatorSetIdProto| opset.domain() == node.domain();
    if !is_onnx(node.domain()) && !opsets.iter().any(imported) {
        let domain = node.domain().to_owned();
        return Err(SplitError::NoDomain { node: name, op, domain });
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
    directory: Option<&Path>,
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

fn input_specs(inputs: &[&ValueInfoProto]) -> Result<(Vec<TensorSpec>, BatchAxis), SplitError> {
    let first = inputs.first().ok_or_else(|| SplitError::Input {
        input: String::new(),
        problem: "the graph has no inputs",
    })?;
    // Before anything is said about axes: that rows can carry it at all.
    inputs.iter().try_for_each(|input| dtype_of(input).map(drop))?;
    let batch = first_axis(first)?;
    let axis = if batch.is_some() {
        BatchAxis::Symbolic
    } else {
        BatchAxis::One
    };
    let specs = inputs.iter().map(|input| input_spec(input, batch));
    Ok((specs.collect::<Result<_, _>>()?, axis))
}

/// Symbol of the first axis; none where it is a fixed 1.
fn first_axis(input: &ValueInfoProto) -> Result<Option<&str>, SplitError> {
    match dims(tensor_of(input)?).first().and_then(|dim| dim.value.as_ref()) {
        Some(dimension::Value::DimParam(symbol)) if !symbol.is_empty() => Ok(Some(symbol)),
        Some(dimension::Value::DimValue(1)) => Ok(None),
        Some(dimension::Value::DimValue(rows)) => Err(SplitError::FixedBatch {
            input: input.name().to_owned(),
            rows: *rows,
        }),
        _ => Err(SplitError::NoBatchAxis {
            input: input.name().to_owned(),
        }),
    }
}

fn tensor_of(input: &ValueInfoProto) -> Result<&type_proto::Tensor, SplitError> {
    match input.r#type.as_ref().and_then(|kind| kind.value.as_ref()) {
        Some(type_proto::Value::TensorType(tensor)) => Ok(tensor),
        _ => Err(SplitError::Input {
            input: input.name().to_owned(),
            problem: "is not a tensor",
        }),
    }
}

fn dtype_of(input: &ValueInfoProto) -> Result<DType, SplitError> {
    DType::from_code(tensor_of(input)?.elem_type()).ok_or_else(|| SplitError::Input {
        input: input.name().to_owned(),
        problem: "has an element type that rows cannot carry",
    })
}

fn dims(tensor: &type_proto::Tensor) -> &[Dimension] {
    tensor
        .shape
        .as_ref()
        .map(|shape| shape.dim.as_slice())
        .unwrap_or_default()
}

fn input_spec(input: &ValueInfoProto, batch: Option<&str>) -> Result<TensorSpec, SplitError> {
    let name = input.name().to_owned();
    if name.starts_with("past_") {
        return Err(SplitError::KeyValueCache { input: name });
    }
    let refuse = |problem| SplitError::Input {
        input: name.clone(),
        problem,
    };
    let (tensor, dtype) = (tensor_of(input)?, dtype_of(input)?);
    if first_axis(input)? != batch {
        return Err(SplitError::NoBatchAxis { input: name });
    }
    if dims(tensor).len() > row::RANK_MAX.saturating_add(1) {
        return Err(refuse("has more axes than a row can have"));
    }
    let mut shape = vec![Dim::Batch];
    for dim in dims(tensor).iter().skip(1) {
        shape.push(match &dim.value {
            Some(dimension::Value::DimParam(symbol)) if batch == Some(symbol.as_str()) => {
                return Err(refuse("has a second batch axis"));
            }
            Some(dimension::Value::DimParam(symbol)) if !symbol.is_empty() => Dim::Positions(symbol.clone()),
            Some(dimension::Value::DimValue(length)) if *length > 0 => Dim::Fixed(length.unsigned_abs()),
            Some(dimension::Value::DimValue(_)) => return Err(refuse("has an axis of length 0 or less")),
            _ => return Err(refuse("has an axis with neither length nor name")),
        });
    }
    Ok(TensorSpec { name, dtype, shape })
}
