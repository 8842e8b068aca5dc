//! Tensors as bytes, here, and as values of ONNX Runtime, there.

use half::{bf16, f16};
use ort::value::{DynTensor, DynValue, PrimitiveTensorElementType, TensorElementType, ValueType};
use partition::{DType, RuntimeError, Tensor};

pub(super) fn to_value(tensor: &Tensor) -> ort::Result<DynValue> {
    match tensor.dtype {
        DType::Float32 => value(tensor, f32::from_le_bytes),
        DType::Float64 => value(tensor, f64::from_le_bytes),
        DType::Float16 => value(tensor, f16::from_le_bytes),
        DType::Bfloat16 => value(tensor, bf16::from_le_bytes),
        DType::Int8 => value(tensor, i8::from_le_bytes),
        DType::Int16 => value(tensor, i16::from_le_bytes),
        DType::Int32 => value(tensor, i32::from_le_bytes),
        DType::Int64 => value(tensor, i64::from_le_bytes),
        DType::Uint8 => value(tensor, u8::from_le_bytes),
        DType::Uint16 => value(tensor, u16::from_le_bytes),
        DType::Uint32 => value(tensor, u32::from_le_bytes),
        DType::Uint64 => value(tensor, u64::from_le_bytes),
        DType::Bool => value(tensor, |[byte]| byte != 0),
    }
}

fn value<T, const WIDTH: usize>(tensor: &Tensor, read: fn([u8; WIDTH]) -> T) -> ort::Result<DynValue>
where
    T: PrimitiveTensorElementType + std::fmt::Debug + Clone + 'static,
{
    let shape: Vec<i64> = tensor
        .shape
        .iter()
        .map(|&length| i64::try_from(length).unwrap_or(i64::MAX))
        .collect();
    let (elements, _) = tensor.data.as_chunks::<WIDTH>();
    let elements: Vec<T> = elements.iter().map(|bytes| read(*bytes)).collect();
    Ok(ort::value::Tensor::from_array((shape, elements))?.into_dyn())
}

pub(super) fn from_value(name: &str, value: &DynValue) -> Result<Tensor, RuntimeError> {
    let failed = |source: ort::Error| RuntimeError::Run {
        source: Box::new(source),
    };
    let ValueType::Tensor { ty, .. } = value.dtype() else {
        return Err(RuntimeError::DType {
            tensor: name.to_owned(),
            code: 0,
        });
    };
    let bytes = match ty {
        TensorElementType::Float32 => tensor(value, DType::Float32, |v: f32| v.to_le_bytes()),
        TensorElementType::Float64 => tensor(value, DType::Float64, |v: f64| v.to_le_bytes()),
        TensorElementType::Float16 => tensor(value, DType::Float16, |v: f16| v.to_le_bytes()),
        TensorElementType::Bfloat16 => tensor(value, DType::Bfloat16, |v: bf16| v.to_le_bytes()),
        TensorElementType::Int8 => tensor(value, DType::Int8, |v: i8| v.to_le_bytes()),
        TensorElementType::Int16 => tensor(value, DType::Int16, |v: i16| v.to_le_bytes()),
        TensorElementType::Int32 => tensor(value, DType::Int32, |v: i32| v.to_le_bytes()),
        TensorElementType::Int64 => tensor(value, DType::Int64, |v: i64| v.to_le_bytes()),
        TensorElementType::Uint8 => tensor(value, DType::Uint8, |v: u8| v.to_le_bytes()),
        TensorElementType::Uint16 => tensor(value, DType::Uint16, |v: u16| v.to_le_bytes()),
        TensorElementType::Uint32 => tensor(value, DType::Uint32, |v: u32| v.to_le_bytes()),
        TensorElementType::Uint64 => tensor(value, DType::Uint64, |v: u64| v.to_le_bytes()),
        TensorElementType::Bool => tensor(value, DType::Bool, |v: bool| [u8::from(v)]),
        _ => {
            return Err(RuntimeError::DType {
                tensor: name.to_owned(),
                code: 0,
            })
        }
    };
    bytes.map_err(failed)
}

fn tensor<T, const WIDTH: usize>(
    value: &DynValue,
    dtype: DType,
    write: impl Fn(T) -> [u8; WIDTH],
) -> ort::Result<Tensor>
where
    T: PrimitiveTensorElementType + Copy,
{
    let (shape, elements) = value.try_extract_tensor::<T>()?;
    let shape = shape.iter().map(|length| length.unsigned_abs()).collect();
    let mut data = Vec::with_capacity(elements.len().saturating_mul(WIDTH));
    for element in elements {
        data.extend_from_slice(&write(*element));
    }
    Ok(Tensor { dtype, shape, data })
}

/// What ONNX Runtime calls an element type.
pub(super) fn element_type(dtype: DType) -> TensorElementType {
    match dtype {
        DType::Float32 => TensorElementType::Float32,
        DType::Float64 => TensorElementType::Float64,
        DType::Float16 => TensorElementType::Float16,
        DType::Bfloat16 => TensorElementType::Bfloat16,
        DType::Int8 => TensorElementType::Int8,
        DType::Int16 => TensorElementType::Int16,
        DType::Int32 => TensorElementType::Int32,
        DType::Int64 => TensorElementType::Int64,
        DType::Uint8 => TensorElementType::Uint8,
        DType::Uint16 => TensorElementType::Uint16,
        DType::Uint32 => TensorElementType::Uint32,
        DType::Uint64 => TensorElementType::Uint64,
        DType::Bool => TensorElementType::Bool,
    }
}

/// Writes a tensor into a value of the same element type and shape.
pub(super) fn fill(value: &mut DynTensor, tensor: &Tensor) -> ort::Result<()> {
    match tensor.dtype {
        DType::Float32 => write(value, tensor, f32::from_le_bytes),
        DType::Float64 => write(value, tensor, f64::from_le_bytes),
        DType::Float16 => write(value, tensor, f16::from_le_bytes),
        DType::Bfloat16 => write(value, tensor, bf16::from_le_bytes),
        DType::Int8 => write(value, tensor, i8::from_le_bytes),
        DType::Int16 => write(value, tensor, i16::from_le_bytes),
        DType::Int32 => write(value, tensor, i32::from_le_bytes),
        DType::Int64 => write(value, tensor, i64::from_le_bytes),
        DType::Uint8 => write(value, tensor, u8::from_le_bytes),
        DType::Uint16 => write(value, tensor, u16::from_le_bytes),
        DType::Uint32 => write(value, tensor, u32::from_le_bytes),
        DType::Uint64 => write(value, tensor, u64::from_le_bytes),
        DType::Bool => write(value, tensor, |[byte]| byte != 0),
    }
}

fn write<T, const WIDTH: usize>(value: &mut DynTensor, tensor: &Tensor, read: fn([u8; WIDTH]) -> T) -> ort::Result<()>
where
    T: PrimitiveTensorElementType,
{
    let (_, places) = value.try_extract_tensor_mut::<T>()?;
    let (elements, _) = tensor.data.as_chunks::<WIDTH>();
    for (place, bytes) in places.iter_mut().zip(elements) {
        *place = read(*bytes);
    }
    Ok(())
}
