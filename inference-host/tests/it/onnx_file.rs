//! As much of the ONNX format as the tests need to look into files that are not ours, read without the crate under test.

use std::{collections::BTreeSet, path::Path};

use partition::{DType, Tensor};

/// A field of a protobuf message.
enum Field<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

fn varint(bytes: &mut &[u8]) -> u64 {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first().unwrap();
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            break;
        }
    }
    value
}

fn fields(mut bytes: &[u8]) -> Vec<(u64, Field<'_>)> {
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let key = varint(&mut bytes);
        let length = match key & 7 {
            0 => {
                found.push((key >> 3, Field::Number(varint(&mut bytes))));
                continue;
            }
            1 => 8,
            2 => varint(&mut bytes) as usize,
            5 => 4,
            kind => panic!("wire type {kind}"),
        };
        let (field, rest) = bytes.split_at(length);
        found.push((key >> 3, Field::Bytes(field)));
        bytes = rest;
    }
    found
}

fn messages(bytes: &[u8], number: u64) -> impl Iterator<Item = &[u8]> {
    fields(bytes).into_iter().filter_map(move |field| match field {
        (found, Field::Bytes(bytes)) if found == number => Some(bytes),
        _ => None,
    })
}

fn text(bytes: &[u8], number: u64) -> String {
    let found = messages(bytes, number).next().unwrap_or_default();
    String::from_utf8(found.to_vec()).unwrap()
}

/// What a model file says about itself.
pub(crate) struct Facts {
    pub(crate) nodes: usize,
    /// Inputs that are no initialisers.
    pub(crate) inputs: Vec<String>,
}

pub(crate) fn read(path: &Path) -> Facts {
    let bytes = std::fs::read(path).unwrap();
    let graph = messages(&bytes, 7).next().unwrap();
    let weights: BTreeSet<String> = messages(graph, 5).map(|tensor| text(tensor, 8)).collect();
    let inputs = messages(graph, 11).map(|input| text(input, 1));
    Facts {
        nodes: messages(graph, 1).count(),
        inputs: inputs.filter(|input| !weights.contains(input)).collect(),
    }
}

/// A tensor of a test's data.
#[derive(Default)]
pub(crate) struct Value {
    pub(crate) dims: Vec<u64>,
    code: i32,
    pub(crate) data: Vec<u8>,
}

impl Value {
    /// Without its first axis; a scalar float where that is not possible.
    pub(crate) fn row(&self) -> Tensor {
        let dtype = DType::from_code(self.code).unwrap_or(DType::Float32);
        let shape = self.dims.get(1..).unwrap_or_default().to_vec();
        Tensor::new(dtype, shape, self.data.clone()).unwrap_or_else(|_| Tensor::from_f32(vec![], &[0.0]).unwrap())
    }
}

pub(crate) fn tensor(path: &Path) -> Value {
    let bytes = std::fs::read(path).unwrap();
    let mut value = Value::default();
    for (number, field) in fields(&bytes) {
        match (number, field) {
            (1, Field::Number(dim)) => value.dims.push(dim),
            (1, Field::Bytes(mut packed)) => {
                while !packed.is_empty() {
                    value.dims.push(varint(&mut packed));
                }
            }
            (2, Field::Number(code)) => value.code = code as i32,
            // Floats, packed or one by one, and raw bytes are little-endian alike.
            (4 | 9, Field::Bytes(data)) => value.data.extend_from_slice(data),
            _ => {}
        }
    }
    value
}
