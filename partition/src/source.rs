//! Reads an export directory: the protobuf, and where each initialiser's bytes lie.
//!
//! Guarantees: nothing outside the directory is opened (absolute locations, `..` and links that lead out of it are refused: whoever packed the
//! export may have linked to somebody's secrets, and a bundle is published), every initialiser has exactly the bytes that its shape asks for, and no file however truncated or hostile makes it panic.

use std::{
    fs::File,
    io::{Read, Seek, SeekFrom},
    path::{Component, Path, PathBuf},
};

use prost::{bytes::Bytes, Message};

use crate::{
    error::SplitError,
    proto::{tensor_proto::DataLocation, tensor_proto::DataType, ModelProto, StringStringEntryProto, TensorProto},
};

/// A protobuf cannot be larger; weights beyond it have to be external data.
const MODEL_BYTES_MAX: u64 = (2 << 30) - 1;

/// Axes of an initialiser: several times more than any operation takes.
const RANK_MAX: usize = 64;

/// An initialiser: facts and bytes, wherever they lie.
#[derive(Clone, Debug)]
pub(crate) struct Weight {
    /// ONNX code of the element type.
    pub(crate) data_type: i32,
    pub(crate) dims: Vec<i64>,
    pub(crate) bytes: u64,
    place: Place,
}

#[derive(Clone, Debug)]
enum Place {
    Memory(Bytes),
    File { path: PathBuf, offset: u64 },
}

/// The model file of an export directory.
pub(crate) fn model_path(directory: &Path) -> Result<PathBuf, SplitError> {
    let named = directory.join("model.onnx");
    if named.is_file() {
        return inside(directory, named);
    }
    let read = |source| SplitError::Read {
        path: directory.to_owned(),
        source,
    };
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(read)? {
        let path = entry.map_err(read)?.path();
        if path.extension().is_some_and(|extension| extension == "onnx") {
            found.push(path);
        }
    }
    match (found.pop(), found.len()) {
        (Some(path), 0) => inside(directory, path),
        (last, others) => {
            let found = others.saturating_add(usize::from(last.is_some()));
            Err(SplitError::NoModel {
                directory: directory.to_owned(),
                found,
            })
        }
    }
}

/// The path of a file that is there, unless it is a link that leads out of the directory.
pub(crate) fn inside(directory: &Path, path: PathBuf) -> Result<PathBuf, SplitError> {
    match is_inside(directory, &path)? {
        true => Ok(path),
        false => Err(SplitError::Link { path }),
    }
}

fn is_inside(directory: &Path, path: &Path) -> Result<bool, SplitError> {
    let resolved = |path: &Path| {
        path.canonicalize().map_err(|source| SplitError::Read {
            path: path.to_owned(),
            source,
        })
    };
    Ok(resolved(path)?.starts_with(resolved(directory)?))
}

/// Reads and decodes the protobuf; weights inside it stay slices of one buffer.
pub(crate) fn read_model(path: &Path) -> Result<ModelProto, SplitError> {
    let read = |source| SplitError::Read {
        path: path.to_owned(),
        source,
    };
    let mut file = File::open(path).map_err(read)?;
    let bytes = file.metadata().map_err(read)?.len();
    if bytes > MODEL_BYTES_MAX {
        return Err(SplitError::ModelTooLarge {
            path: path.to_owned(),
            bytes,
            limit: MODEL_BYTES_MAX,
        });
    }
    let mut buffer = Vec::with_capacity(usize::try_from(bytes).unwrap_or_default());
    file.read_to_end(&mut buffer).map_err(read)?;
    decode(buffer, path)
}

/// Decodes a protobuf that is called `path` in errors.
pub(crate) fn decode(bytes: Vec<u8>, path: &Path) -> Result<ModelProto, SplitError> {
    ModelProto::decode(Bytes::from(bytes)).map_err(|source| SplitError::NotOnnx {
        path: path.to_owned(),
        source,
    })
}

impl Weight {
    /// The weight that an initialiser describes; external data is looked for in `directory`.
    pub(crate) fn from_proto(tensor: TensorProto, directory: Option<&Path>) -> Result<Self, SplitError> {
        let name = tensor.name().to_owned();
        let code = tensor.data_type();
        let axes = tensor.dims.len();
        if axes > RANK_MAX {
            let limit = RANK_MAX;
            return Err(SplitError::InitializerRank { name, axes, limit });
        }
        let expected = stored_bytes(&name, code, &tensor.dims)?;
        let (place, bytes) = if tensor.data_location() == DataLocation::External {
            let directory = directory.ok_or_else(|| SplitError::ExternalData { name: name.clone() })?;
            external(&name, &tensor.external_data, directory, expected)?
        } else {
            let data = inline(&tensor)?;
            let bytes = u64::try_from(data.len()).unwrap_or(u64::MAX);
            (Place::Memory(data), bytes)
        };
        if bytes != expected {
            return Err(SplitError::InitializerSize {
                name,
                shape: tensor.dims,
                bytes,
                expected,
            });
        }
        Ok(Self {
            data_type: code,
            dims: tensor.dims,
            bytes,
            place,
        })
    }

    /// A small constant that the splitter itself adds.
    pub(crate) fn constant(data_type: DataType, dims: Vec<i64>, data: Vec<u8>) -> Self {
        let bytes = u64::try_from(data.len()).unwrap_or(u64::MAX);
        Self {
            data_type: data_type as i32,
            dims,
            bytes,
            place: Place::Memory(data.into()),
        }
    }

    /// All bytes, little-endian.
    pub(crate) fn read(&self) -> Result<Bytes, SplitError> {
        let (path, offset) = match &self.place {
            Place::Memory(data) => return Ok(data.clone()),
            Place::File { path, offset } => (path, *offset),
        };
        let read = |source| SplitError::Read {
            path: path.clone(),
            source,
        };
        let mut file = File::open(path).map_err(read)?;
        file.seek(SeekFrom::Start(offset)).map_err(read)?;
        let mut data = vec![0; usize::try_from(self.bytes).unwrap_or(usize::MAX)];
        file.read_exact(&mut data).map_err(read)?;
        Ok(data.into())
    }
}

/// Bytes that a tensor of this type and shape is stored in.
fn stored_bytes(name: &str, code: i32, dims: &[i64]) -> Result<u64, SplitError> {
    let impossible = || SplitError::InitializerShape {
        name: name.to_owned(),
        shape: dims.to_vec(),
    };
    let elements = dims
        .iter()
        .try_fold(1_u64, |total, &dim| total.checked_mul(u64::try_from(dim).ok()?))
        .ok_or_else(impossible)?;
    let bits = match DataType::try_from(code) {
        Ok(DataType::Int4 | DataType::Uint4 | DataType::Float4e2m1) => 4,
        Ok(DataType::Uint8 | DataType::Int8 | DataType::Bool) => 8,
        Ok(DataType::Float8e4m3fn | DataType::Float8e4m3fnuz | DataType::Float8e5m2 | DataType::Float8e5m2fnuz) => 8,
        Ok(DataType::Uint16 | DataType::Int16 | DataType::Float16 | DataType::Bfloat16) => 16,
        Ok(DataType::Float | DataType::Int32 | DataType::Uint32) => 32,
        Ok(DataType::Double | DataType::Int64 | DataType::Uint64 | DataType::Complex64) => 64,
        Ok(DataType::Complex128) => 128,
        _ => {
            return Err(SplitError::InitializerType {
                name: name.to_owned(),
                code,
            })
        }
    };
    Ok(elements.checked_mul(bits).ok_or_else(impossible)?.div_ceil(8))
}

/// The bytes of an initialiser inside the protobuf, from whichever of its fields holds them.
fn inline(tensor: &TensorProto) -> Result<Bytes, SplitError> {
    if let Some(raw) = &tensor.raw_data {
        return Ok(raw.clone());
    }
    // `int32_data` also holds everything narrower, one element a number.
    let narrow = |width: usize| {
        tensor
            .int32_data
            .iter()
            .flat_map(move |v| v.to_le_bytes().into_iter().take(width))
    };
    let bytes: Vec<u8> = match DataType::try_from(tensor.data_type()) {
        Ok(DataType::Float | DataType::Complex64) => tensor.float_data.iter().flat_map(|v| v.to_le_bytes()).collect(),
        Ok(DataType::Double | DataType::Complex128) => {
            tensor.double_data.iter().flat_map(|v| v.to_le_bytes()).collect()
        }
        Ok(DataType::Int64) => tensor.int64_data.iter().flat_map(|v| v.to_le_bytes()).collect(),
        Ok(DataType::Uint64) => tensor.uint64_data.iter().flat_map(|v| v.to_le_bytes()).collect(),
        Ok(DataType::Uint32) => tensor
            .uint64_data
            .iter()
            .flat_map(|v| v.to_le_bytes().into_iter().take(4))
            .collect(),
        Ok(DataType::Int32) => narrow(4).collect(),
        Ok(DataType::Uint16 | DataType::Int16 | DataType::Float16 | DataType::Bfloat16) => narrow(2).collect(),
        _ => narrow(1).collect(),
    };
    Ok(bytes.into())
}

fn external(
    name: &str,
    entries: &[StringStringEntryProto],
    directory: &Path,
    expected: u64,
) -> Result<(Place, u64), SplitError> {
    let field = |key: &str| {
        entries
            .iter()
            .find(|entry| entry.key() == key)
            .map(StringStringEntryProto::value)
    };
    let number = |key: &str| match field(key) {
        None => Ok(None),
        Some(value) => value.parse::<u64>().map(Some).map_err(|_| SplitError::ExternalNumber {
            name: name.to_owned(),
            key: key.to_owned(),
            value: value.to_owned(),
        }),
    };
    let location = field("location").unwrap_or_default().to_owned();
    let inside = |component| matches!(component, Component::Normal(_));
    // A backslash or a drive letter would leave the folder on another system.
    if location.is_empty() || location.contains(['\\', ':']) || !Path::new(&location).components().all(inside) {
        return Err(SplitError::ExternalLocation {
            name: name.to_owned(),
            location,
        });
    }
    let path = directory.join(&location);
    let offset = number("offset")?.unwrap_or_default();
    let length = number("length")?.unwrap_or(expected);
    let metadata = std::fs::metadata(&path).map_err(|source| SplitError::Read {
        path: path.clone(),
        source,
    })?;
    if !is_inside(directory, &path)? {
        return Err(SplitError::ExternalLink {
            name: name.to_owned(),
            location,
        });
    }
    let (bytes, end) = (metadata.len(), offset.saturating_add(length));
    if !metadata.is_file() {
        return Err(SplitError::NotAFile { path });
    }
    if end > bytes {
        return Err(SplitError::ExternalTruncated {
            name: name.to_owned(),
            location,
            bytes,
            end,
        });
    }
    Ok((Place::File { path, offset }, length))
}
