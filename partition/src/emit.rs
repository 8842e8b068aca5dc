//! Writes graphs and weights as blobs.
//!
//! Large initialisers become blobs of their own, named by their content, that the graph refers to as external data in the same folder;
//! so stages, versions and replicas share them, and a runtime loads a graph from where the blobs lie. Everything written is a function
//! of the graph's content alone: the same input gives the same digests on any machine.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use prost::Message;

use crate::{
    error::SplitError,
    graph::{makes, uses, BatchAxis, Graph},
    manifest::{BlobRef, Dim, Sha256Hex, TensorSpec},
    proto::{
        tensor_proto::DataLocation, tensor_shape_proto::dimension, tensor_shape_proto::Dimension, type_proto,
        GraphProto, ModelProto, NodeProto, StringStringEntryProto, TensorProto, TensorShapeProto, TypeProto,
        ValueInfoProto,
    },
    shapes::{Seen, Shapes},
    source::Weight,
};

/// Before the name of a tensor, in the probe: its shape.
pub(crate) const SHAPE_OF: &str = "/fxn/shape of ";

/// Writes blobs of one graph into one folder.
#[derive(Debug)]
pub(crate) struct Emitter<'a> {
    graph: &'a Graph,
    blobs: PathBuf,
    external_bytes_min: u64,
    written: BTreeMap<String, BlobRef>,
    declared: BTreeMap<String, ValueInfoProto>,
    graphs: BTreeSet<Sha256Hex>,
}

/// A graph as bytes, and the blobs that it refers to, sorted.
#[derive(Debug)]
pub(crate) struct Emitted {
    pub(crate) bytes: Vec<u8>,
    pub(crate) weights: Vec<BlobRef>,
}

/// Writes bytes under the name of their digest.
pub(crate) fn write_blob(blobs: &Path, bytes: &[u8]) -> Result<BlobRef, SplitError> {
    let sha256 = Sha256Hex::of(bytes);
    let path = blobs.join(sha256.as_str());
    if !path.exists() {
        std::fs::write(&path, bytes).map_err(|source| SplitError::Write { path, source })?;
    }
    Ok(BlobRef {
        sha256,
        bytes: u64::try_from(bytes.len()).unwrap_or(u64::MAX),
    })
}

/// A named tensor without a type: the runtime infers it.
pub(crate) fn untyped(name: &str) -> ValueInfoProto {
    ValueInfoProto {
        name: Some(name.to_owned()),
        ..ValueInfoProto::default()
    }
}

/// A named tensor with its symbolic shape.
pub(crate) fn typed(spec: &TensorSpec, batch: BatchAxis) -> ValueInfoProto {
    let dim = |dim: &Dim| {
        let value = match dim {
            Dim::Batch if batch == BatchAxis::One => dimension::Value::DimValue(1),
            Dim::Batch => dimension::Value::DimParam("batch_size".to_owned()),
            Dim::Positions(symbol) => dimension::Value::DimParam(symbol.clone()),
            Dim::Fixed(length) => dimension::Value::DimValue(i64::try_from(*length).unwrap_or(i64::MAX)),
        };
        Dimension {
            value: Some(value),
            ..Dimension::default()
        }
    };
    let tensor = type_proto::Tensor {
        elem_type: Some(i32::from(spec.dtype.code())),
        shape: Some(TensorShapeProto {
            dim: spec.shape.iter().map(dim).collect(),
        }),
    };
    let kind = TypeProto {
        value: Some(type_proto::Value::TensorType(tensor)),
        ..TypeProto::default()
    };
    ValueInfoProto {
        r#type: Some(kind),
        ..untyped(&spec.name)
    }
}

impl<'a> Emitter<'a> {
    pub(crate) fn new(graph: &'a Graph, blobs: PathBuf, external_bytes_min: u64) -> Self {
        Self {
            graph,
            blobs,
            external_bytes_min,
            written: BTreeMap::new(),
            declared: BTreeMap::new(),
            graphs: BTreeSet::new(),
        }
    }

    pub(crate) fn blobs(&self) -> &Path {
        &self.blobs
    }

    /// Writes a graph and remembers it.
    pub(crate) fn write_graph(&mut self, bytes: &[u8]) -> Result<BlobRef, SplitError> {
        let blob = write_blob(&self.blobs, bytes)?;
        self.graphs.insert(blob.sha256.clone());
        Ok(blob)
    }

    /// Every graph that was written.
    pub(crate) fn graphs(&self) -> impl Iterator<Item = &Sha256Hex> {
        self.graphs.iter()
    }

    /// Declares these shapes in every graph from now on. A runtime fuses less where it cannot infer a shape, and it can infer other
    /// shapes in a stage than in the whole graph: without this, the two differ in their kernels and so in their bits.
    pub(crate) fn declare(&mut self, shapes: &Shapes) {
        let batch = self.graph.batch;
        let spec = |(name, seen): (&String, &Seen)| Some((name.clone(), typed(&seen.spec(name)?, batch)));
        self.declared = shapes.iter().filter_map(spec).collect();
    }

    /// The whole graph with every intermediate exposed; of what depends on no input only the shape, as it may be as large as all weights.
    pub(crate) fn probe(&mut self) -> Result<Vec<u8>, SplitError> {
        let graph = self.graph;
        let all: Vec<usize> = (0..graph.nodes.len()).collect();
        let (mut shapes, mut outputs) = (Vec::new(), Vec::new());
        for (node, constant) in graph.nodes.iter().zip(graph.constant_nodes()) {
            for name in makes(node) {
                if !constant {
                    outputs.push(untyped(name));
                    continue;
                }
                let shape = format!("{SHAPE_OF}{name}");
                outputs.push(untyped(&shape));
                shapes.push(NodeProto {
                    input: vec![name.to_owned()],
                    output: vec![shape],
                    op_type: Some("Shape".to_owned()),
                    ..NodeProto::default()
                });
            }
        }
        let inputs = graph.inputs.iter().map(|input| typed(input, graph.batch)).collect();
        let (mut model, _) = self.assemble(&all, inputs, outputs)?;
        if let Some(body) = &mut model.graph {
            body.node.append(&mut shapes);
        }
        Ok(model.encode_to_vec())
    }

    /// The model made of these nodes, in ascending order of index, with the weights that they use.
    pub(crate) fn model(
        &mut self,
        nodes: &[usize],
        inputs: Vec<ValueInfoProto>,
        outputs: Vec<ValueInfoProto>,
    ) -> Result<Emitted, SplitError> {
        let (model, weights) = self.assemble(nodes, inputs, outputs)?;
        Ok(Emitted {
            bytes: model.encode_to_vec(),
            weights: weights.into_iter().collect(),
        })
    }

    fn assemble(
        &mut self,
        nodes: &[usize],
        inputs: Vec<ValueInfoProto>,
        outputs: Vec<ValueInfoProto>,
    ) -> Result<(ModelProto, BTreeSet<BlobRef>), SplitError> {
        let (graph, mut weights, mut initializer) = (self.graph, BTreeSet::new(), Vec::new());
        let node: Vec<_> = nodes.iter().map(|&index| graph.nodes[index].clone()).collect();
        let used: BTreeSet<&str> = node.iter().flat_map(uses).collect();
        for (name, weight) in graph.weights.iter().filter(|(name, _)| used.contains(name.as_str())) {
            let (tensor, blob) = self.initializer(name, weight)?;
            initializer.push(tensor);
            weights.extend(blob);
        }
        let inner = |name: &&str| outputs.iter().all(|output| output.name() != *name);
        let made = node.iter().flat_map(makes).filter(inner);
        let value_info = made.filter_map(|name| self.declared.get(name).cloned()).collect();
        let body = GraphProto {
            node,
            name: Some("stage".to_owned()),
            initializer,
            input: inputs,
            value_info,
            output: outputs,
            ..GraphProto::default()
        };
        let model = ModelProto {
            // Before version 4 every initialiser had to be an input as well.
            ir_version: Some(graph.ir_version.max(4)),
            opset_import: graph.opsets.clone(),
            producer_name: Some("fxn-partition".to_owned()),
            graph: Some(body),
            ..ModelProto::default()
        };
        Ok((model, weights))
    }

    fn initializer(&mut self, name: &str, weight: &Weight) -> Result<(TensorProto, Option<BlobRef>), SplitError> {
        let tensor = TensorProto {
            dims: weight.dims.clone(),
            data_type: Some(weight.data_type),
            name: Some(name.to_owned()),
            ..TensorProto::default()
        };
        if weight.bytes < self.external_bytes_min {
            return Ok((
                TensorProto {
                    raw_data: Some(weight.read()?),
                    ..tensor
                },
                None,
            ));
        }
        let blob = match self.written.get(name) {
            Some(blob) => blob.clone(),
            None => write_blob(&self.blobs, &weight.read()?)?,
        };
        self.written.insert(name.to_owned(), blob.clone());
        let entry = |key: &str, value: String| StringStringEntryProto {
            key: Some(key.to_owned()),
            value: Some(value),
        };
        let external_data = vec![
            entry("location", blob.sha256.to_string()),
            entry("offset", "0".to_owned()),
            entry("length", blob.bytes.to_string()),
        ];
        let data_location = Some(DataLocation::External as i32);
        Ok((
            TensorProto {
                external_data,
                data_location,
                ..tensor
            },
            Some(blob),
        ))
    }
}
