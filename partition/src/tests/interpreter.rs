//! A runtime of two dozen operations, with quirks that a real one may have.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use prost::Message;

use crate::{
    graph::{attribute, makes},
    proto::{tensor_proto::DataLocation, GraphProto, ModelProto, NodeProto, TensorProto},
    DType, Loaded, Runtime, RuntimeError, Tensor,
};

/// How a runtime may change bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Quirk {
    None,
    /// Another kernel where the whole model is in one graph.
    FusesTheWhole,
    /// Has never seen a second row.
    OneRowOnly,
    /// Another kernel for the second of these tensors where the first is made in the same graph: a pattern that nobody knows.
    FusesAcross(&'static str, &'static str),
    /// Another kernel for a batch of one.
    LonelyRows,
    /// Other sums where rows are padded.
    Padding,
}

#[derive(Debug)]
pub(super) struct Interpreter(pub(super) Quirk);

struct Program {
    graph: GraphProto,
    weights: BTreeMap<String, Array>,
    quirk: Quirk,
}

/// Numbers of any type, as float64.
#[derive(Clone, Debug)]
struct Array {
    dtype: DType,
    shape: Vec<usize>,
    data: Vec<f64>,
}

impl Runtime for Interpreter {
    fn engine_class(&self) -> String {
        "interpreter/f32".to_owned()
    }

    fn load(&self, path: &Path) -> Result<Box<dyn Loaded>, RuntimeError> {
        let model = ModelProto::decode(std::fs::read(path).unwrap().as_slice()).unwrap();
        let mut graph = model.graph.unwrap();
        let folder = path.parent().unwrap();
        let weights = graph
            .initializer
            .drain(..)
            .map(|tensor| (tensor.name().to_owned(), array(&tensor, folder)));
        let weights = weights.collect();
        Ok(Box::new(Program {
            graph,
            weights,
            quirk: self.0,
        }))
    }
}

fn array(tensor: &TensorProto, folder: &Path) -> Array {
    let bytes = if tensor.data_location() == DataLocation::External {
        let location = tensor
            .external_data
            .iter()
            .find(|entry| entry.key() == "location")
            .unwrap();
        std::fs::read(folder.join(location.value())).unwrap()
    } else {
        tensor.raw_data.as_ref().unwrap().to_vec()
    };
    let shape = tensor.dims.iter().map(|&dim| dim as u64).collect();
    from_tensor(&Tensor::new(DType::from_code(tensor.data_type()).unwrap(), shape, bytes).unwrap())
}

fn from_tensor(tensor: &Tensor) -> Array {
    let data = match tensor.dtype {
        DType::Float32 => tensor.to_f32().unwrap().into_iter().map(f64::from).collect(),
        DType::Int64 => tensor
            .data
            .as_chunks::<8>()
            .0
            .iter()
            .map(|bytes| i64::from_le_bytes(*bytes) as f64)
            .collect(),
        other => panic!("no {other:?} here"),
    };
    Array {
        dtype: tensor.dtype,
        shape: tensor.shape.iter().map(|&length| length as usize).collect(),
        data,
    }
}

fn to_tensor(array: &Array) -> Tensor {
    let shape = array.shape.iter().map(|&length| length as u64).collect();
    match array.dtype {
        DType::Float32 => Tensor::from_f32(shape, &array.data.iter().map(|&value| value as f32).collect::<Vec<_>>()),
        _ => Tensor::from_i64(shape, &array.data.iter().map(|&value| value as i64).collect::<Vec<_>>()),
    }
    .unwrap()
}

impl Loaded for Program {
    fn run(&mut self, inputs: Vec<(String, Tensor)>) -> Result<Vec<(String, Tensor)>, RuntimeError> {
        let declared: BTreeSet<_> = self.graph.input.iter().map(|input| input.name().to_owned()).collect();
        let given: BTreeSet<_> = inputs.iter().map(|(name, _)| name.clone()).collect();
        assert_eq!(declared, given, "a runtime wants exactly the graph's inputs");
        let rows = inputs[0].1.shape[0];
        assert!(self.quirk != Quirk::OneRowOnly || rows == 1, "{rows} rows");
        let padded = inputs.iter().any(|(name, tensor)| {
            name == "attention_mask" && tensor.data.contains(&0_u8) && { from_tensor(tensor).data.contains(&0.0) }
        });
        let mut values = self.weights.clone();
        values.extend(inputs.iter().map(|(name, tensor)| (name.clone(), from_tensor(tensor))));
        let made = |tensor: &str| self.graph.node.iter().flat_map(makes).any(|name| name == tensor);
        for node in &self.graph.node {
            let operands: Vec<&Array> = node.input.iter().map(|name| &values[name]).collect();
            let mut result = run(node, &operands);
            if matches!(self.quirk, Quirk::FusesAcross(first, second) if second == node.output[0] && made(first)) {
                result.data.iter_mut().for_each(|value| *value *= 1.001);
            }
            values.insert(node.output[0].clone(), result);
        }
        let nudge = match self.quirk {
            Quirk::None | Quirk::OneRowOnly | Quirk::FusesAcross(..) => false,
            Quirk::FusesTheWhole => made("x0") && made("sentence_embedding"),
            Quirk::LonelyRows => rows == 1,
            Quirk::Padding => padded,
        };
        let outputs = self.graph.output.iter().map(|output| {
            let name = output.name().to_owned();
            assert!(made(&name), "output {name} is made by no node");
            let mut array = values[&name].clone();
            if nudge && array.dtype == DType::Float32 {
                array.data.iter_mut().for_each(|value| *value *= 1.000_001);
            }
            (name, to_tensor(&array))
        });
        Ok(outputs.collect())
    }
}

fn run(node: &NodeProto, operands: &[&Array]) -> Array {
    let integer = |name: &str, default: i64| attribute(node, name).map_or(default, |attribute| attribute.i());
    match node.op_type() {
        "Identity" => operands[0].clone(),
        "Relu" => map(operands[0], |value| value.max(0.0)),
        "Sqrt" => map(operands[0], f64::sqrt),
        "Twice" => map(operands[0], |value| value * 2.0),
        "Shape" => Array {
            dtype: DType::Int64,
            shape: vec![operands[0].shape.len()],
            data: operands[0].shape.iter().map(|&length| length as f64).collect(),
        },
        "ConstantOfShape" => {
            let shape: Vec<usize> = operands[0].data.iter().map(|&length| length as usize).collect();
            let data = vec![0.25; shape.iter().product()];
            Array {
                dtype: DType::Float32,
                shape,
                data,
            }
        }
        "Cast" => Array {
            dtype: DType::Float32,
            ..operands[0].clone()
        },
        "Add" => zip(operands[0], operands[1], |a, b| a + b),
        "Sub" => zip(operands[0], operands[1], |a, b| a - b),
        "Mul" => zip(operands[0], operands[1], |a, b| a * b),
        "Div" => zip(operands[0], operands[1], |a, b| a / b),
        "Max" => zip(operands[0], operands[1], f64::max),
        "LayerNormalization" => normalize(operands[0]),
        "MatMul" => product(operands[0], operands[1]),
        "Unsqueeze" => {
            let mut array = operands[0].clone();
            array.shape.insert(operands[1].data[0] as usize, 1);
            array
        }
        "Concat" => concat(operands, integer("axis", 0) as usize),
        "Gather" => gather(operands[0], operands[1], integer("axis", 0) as usize),
        "ReduceSum" => sum(operands[0], operands[1].data[0], integer("keepdims", 1) == 1),
        other => panic!("no {other} here"),
    }
}

fn rounded(dtype: DType, value: f64) -> f64 {
    if dtype == DType::Float32 {
        f64::from(value as f32)
    } else {
        value
    }
}

fn map(array: &Array, function: impl Fn(f64) -> f64) -> Array {
    let data = array
        .data
        .iter()
        .map(|&value| rounded(array.dtype, function(value)))
        .collect();
    Array { data, ..array.clone() }
}

/// Row-major index of an element of `shape` in an array that is broadcast to it.
fn broadcast(flat: usize, shape: &[usize], array: &Array) -> usize {
    let (mut rest, mut index, mut stride) = (flat, 0, 1);
    for (back, &length) in shape.iter().rev().enumerate() {
        let here = rest % length;
        rest /= length;
        if back < array.shape.len() {
            let own = array.shape[array.shape.len() - 1 - back];
            index += if own == 1 { 0 } else { here * stride };
            stride *= own;
        }
    }
    index
}

fn zip(a: &Array, b: &Array, function: impl Fn(f64, f64) -> f64) -> Array {
    let rank = a.shape.len().max(b.shape.len());
    let length = |array: &Array, axis: usize| {
        (axis + array.shape.len())
            .checked_sub(rank)
            .map_or(1, |own| array.shape[own])
    };
    let shape: Vec<usize> = (0..rank).map(|axis| length(a, axis).max(length(b, axis))).collect();
    let element = |flat: usize| function(a.data[broadcast(flat, &shape, a)], b.data[broadcast(flat, &shape, b)]);
    let data = (0..shape.iter().product())
        .map(|flat| rounded(a.dtype, element(flat)))
        .collect();
    Array {
        dtype: a.dtype,
        shape,
        data,
    }
}

fn product(a: &Array, b: &Array) -> Array {
    let (m, k) = (a.shape[a.shape.len() - 2], a.shape[a.shape.len() - 1]);
    let n = b.shape[b.shape.len() - 1];
    let batches: usize = a.shape[..a.shape.len() - 2].iter().product();
    let shared = b.shape.len() == 2;
    let mut data = Vec::new();
    for batch in 0..batches {
        for row in 0..m {
            for column in 0..n {
                let right = if shared { 0 } else { batch * k * n };
                let terms = (0..k).map(|i| a.data[(batch * m + row) * k + i] * b.data[right + i * n + column]);
                data.push(terms.fold(0.0, |sum, term| rounded(DType::Float32, sum + term)));
            }
        }
    }
    let mut shape = a.shape.clone();
    *shape.last_mut().unwrap() = n;
    Array {
        dtype: a.dtype,
        shape,
        data,
    }
}

fn normalize(array: &Array) -> Array {
    let width = *array.shape.last().unwrap();
    let norm = |row: &[f64]| {
        let mean = row.iter().sum::<f64>() / width as f64;
        let variance = row.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / width as f64;
        row.iter()
            .map(|value| rounded(DType::Float32, (value - mean) / (variance + 1e-6).sqrt()))
            .collect::<Vec<_>>()
    };
    Array {
        data: array.data.chunks(width).flat_map(norm).collect(),
        ..array.clone()
    }
}

fn concat(operands: &[&Array], axis: usize) -> Array {
    let outer: usize = operands[0].shape[..axis].iter().product();
    let mut data = Vec::new();
    for block in 0..outer {
        for operand in operands {
            let size = operand.data.len() / outer;
            data.extend_from_slice(&operand.data[block * size..(block + 1) * size]);
        }
    }
    let mut shape = operands[0].shape.clone();
    shape[axis] = operands.iter().map(|operand| operand.shape[axis]).sum();
    Array {
        dtype: operands[0].dtype,
        shape,
        data,
    }
}

fn gather(table: &Array, indices: &Array, axis: usize) -> Array {
    let outer: usize = table.shape[..axis].iter().product();
    let inner: usize = table.shape[axis + 1..].iter().product();
    let mut data = Vec::new();
    for block in 0..outer {
        for index in &indices.data {
            let begin = (block * table.shape[axis] + *index as usize) * inner;
            data.extend_from_slice(&table.data[begin..begin + inner]);
        }
    }
    let shape = [&table.shape[..axis], &indices.shape, &table.shape[axis + 1..]].concat();
    Array {
        dtype: table.dtype,
        shape,
        data,
    }
}

fn sum(array: &Array, axis: f64, keep: bool) -> Array {
    let axis = if axis < 0.0 {
        array.shape.len() - 1
    } else {
        axis as usize
    };
    let outer: usize = array.shape[..axis].iter().product();
    let inner: usize = array.shape[axis + 1..].iter().product();
    let length = array.shape[axis];
    let element = |flat: usize| {
        let (block, column) = (flat / inner, flat % inner);
        let terms = (0..length).map(|i| array.data[(block * length + i) * inner + column]);
        terms.fold(0.0, |sum, term| rounded(array.dtype, sum + term))
    };
    let mut shape = array.shape.clone();
    if keep {
        shape[axis] = 1
    } else {
        let _ = shape.remove(axis);
    }
    Array {
        dtype: array.dtype,
        data: (0..outer * inner).map(element).collect(),
        shape,
    }
}
