//! Tensors as bytes: the only form in which they are stored, hashed and pushed.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Element types that a row can carry. The discriminant is ONNX's own code and goes into the row encoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum DType {
    Float32 = 1,
    Uint8 = 2,
    Int8 = 3,
    Uint16 = 4,
    Int16 = 5,
    Int32 = 6,
    Int64 = 7,
    Bool = 9,
    Float16 = 10,
    Float64 = 11,
    Uint32 = 12,
    Uint64 = 13,
    Bfloat16 = 16,
}

impl DType {
    pub const ALL: [DType; 13] = [
        DType::Float32,
        DType::Uint8,
        DType::Int8,
        DType::Uint16,
        DType::Int16,
        DType::Int32,
        DType::Int64,
        DType::Bool,
        DType::Float16,
        DType::Float64,
        DType::Uint32,
        DType::Uint64,
        DType::Bfloat16,
    ];

    /// ONNX's code for the type (`TensorProto.DataType`).
    pub fn code(self) -> u8 {
        self as u8
    }

    /// The type with this ONNX code, if a row can carry it. Strings, complex and sub-byte types cannot be carried.
    pub fn from_code(code: i32) -> Option<Self> {
        Self::ALL.into_iter().find(|dtype| i32::from(dtype.code()) == code)
    }

    /// Bytes of one element.
    pub fn size(self) -> usize {
        match self {
            DType::Uint8 | DType::Int8 | DType::Bool => 1,
            DType::Uint16 | DType::Int16 | DType::Float16 | DType::Bfloat16 => 2,
            DType::Float32 | DType::Int32 | DType::Uint32 => 4,
            DType::Int64 | DType::Float64 | DType::Uint64 => 8,
        }
    }
}

/// A dense tensor, little-endian, last axis contiguous.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tensor {
    pub dtype: DType,
    /// Lengths of the axes; empty for a scalar.
    pub shape: Vec<u64>,
    /// `product(shape) * dtype.size()` bytes.
    pub data: Vec<u8>,
}

/// The tensors of one request, in the order of a stage's `receives` or `sends`: no batch axis, no padding.
pub type Row = Vec<Tensor>;

/// A tensor whose bytes and shape do not belong together.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TensorError {
    #[error("a tensor of shape {shape:?} has {bytes} bytes, {expected} expected")]
    DataLength {
        shape: Vec<u64>,
        bytes: usize,
        expected: u64,
    },
    #[error("shape {shape:?} is too large to address")]
    ShapeOverflow { shape: Vec<u64> },
}

impl Tensor {
    /// A tensor whose data fits its shape.
    pub fn new(dtype: DType, shape: Vec<u64>, data: Vec<u8>) -> Result<Self, TensorError> {
        let expected = byte_length(dtype, &shape)?;
        if u64::try_from(data.len()) != Ok(expected) {
            return Err(TensorError::DataLength {
                bytes: data.len(),
                expected,
                shape,
            });
        }
        Ok(Self { dtype, shape, data })
    }

    /// Int64 elements, as token ids and masks are.
    pub fn from_i64(shape: Vec<u64>, values: &[i64]) -> Result<Self, TensorError> {
        Self::new(
            DType::Int64,
            shape,
            values.iter().flat_map(|value| value.to_le_bytes()).collect(),
        )
    }

    /// Float32 elements.
    pub fn from_f32(shape: Vec<u64>, values: &[f32]) -> Result<Self, TensorError> {
        Self::new(
            DType::Float32,
            shape,
            values.iter().flat_map(|value| value.to_le_bytes()).collect(),
        )
    }

    /// The elements, if they are float32.
    pub fn to_f32(&self) -> Option<Vec<f32>> {
        (self.dtype == DType::Float32).then(|| {
            self.data
                .chunks_exact(4)
                .map(|bytes| f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
                .collect()
        })
    }

    /// Checks that the data fits the shape; every boundary of this crate does.
    pub fn check(&self) -> Result<(), TensorError> {
        let expected = byte_length(self.dtype, &self.shape)?;
        if u64::try_from(self.data.len()) != Ok(expected) {
            let (shape, bytes) = (self.shape.clone(), self.data.len());
            return Err(TensorError::DataLength { shape, bytes, expected });
        }
        Ok(())
    }
}

/// Number of elements of a shape.
pub(crate) fn elements(shape: &[u64]) -> Result<u64, TensorError> {
    shape
        .iter()
        .try_fold(1_u64, |total, &length| total.checked_mul(length))
        .ok_or_else(|| TensorError::ShapeOverflow { shape: shape.to_vec() })
}

/// Bytes of a tensor of this type and shape.
pub(crate) fn byte_length(dtype: DType, shape: &[u64]) -> Result<u64, TensorError> {
    let width = u64::try_from(dtype.size()).unwrap_or(u64::MAX);
    elements(shape)?
        .checked_mul(width)
        .ok_or_else(|| TensorError::ShapeOverflow { shape: shape.to_vec() })
}
