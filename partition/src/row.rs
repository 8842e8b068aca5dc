//! Canonical row bytes: what is hashed, pushed from span to span, and attested.
//!
//! Per tensor, in the order of the specification: element type (u8, ONNX code), rank (u32 big-endian), axis lengths (u64 big-endian
//! each), then the elements, little-endian.
//!
//! Guarantees: a row has exactly one encoding; bytes that decode are that encoding; decoding reads no further than it was given, allocates no
//! more than it was given, and accepts nothing that the specification does not describe.

use std::collections::BTreeMap;

use crate::{
    manifest::{Dim, TensorSpec},
    tensor::{byte_length, DType, Row, Tensor, TensorError},
};

/// Largest encoded row. A boundary of 8 192 positions of 2 048 float32 fits exactly; anything larger is not a request but an attack.
pub const ROW_BYTES_MAX: usize = 64 << 20;

/// Largest number of axes; ONNX models in use stay below it.
pub const RANK_MAX: usize = 8;

/// Bytes that are not a row of the expected shape.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RowError {
    #[error("the row has {bytes} bytes, at most {limit} are allowed")]
    TooLarge { bytes: usize, limit: usize },
    #[error("the row ends at byte {bytes} inside tensor {tensor}")]
    Truncated { tensor: String, bytes: usize },
    #[error("{bytes} bytes are left after the last tensor")]
    TrailingBytes { bytes: usize },
    #[error("the row has {found} tensors, {expected} expected")]
    TensorCount { found: usize, expected: usize },
    #[error("tensor {tensor} has element type {found}, {expected} expected")]
    DType { tensor: String, found: u8, expected: u8 },
    #[error("tensor {tensor} has rank {found}, {expected} expected")]
    Rank {
        tensor: String,
        found: u64,
        expected: usize,
    },
    #[error("axis {axis} of tensor {tensor} has length {found}, {expected} expected")]
    Axis {
        tensor: String,
        axis: usize,
        found: u64,
        expected: u64,
    },
    #[error("axis {axis} of tensor {tensor} has {found} positions, 1 to {limit} are allowed")]
    Positions {
        tensor: String,
        axis: usize,
        found: u64,
        limit: u64,
    },
    #[error(transparent)]
    Tensor(#[from] TensorError),
}

/// The bytes of a row. Fails only for tensors whose data does not fit their shape, and for rows beyond [`ROW_BYTES_MAX`].
pub fn encode(row: &[Tensor]) -> Result<Vec<u8>, RowError> {
    let mut bytes = Vec::new();
    for tensor in row {
        tensor.check()?;
        bytes.push(tensor.dtype.code());
        bytes.extend_from_slice(&u32::try_from(tensor.shape.len()).unwrap_or(u32::MAX).to_be_bytes());
        for length in &tensor.shape {
            bytes.extend_from_slice(&length.to_be_bytes());
        }
        bytes.extend_from_slice(&tensor.data);
    }
    if bytes.len() > ROW_BYTES_MAX {
        return Err(RowError::TooLarge {
            bytes: bytes.len(),
            limit: ROW_BYTES_MAX,
        });
    }
    Ok(bytes)
}

/// The row that these bytes encode, if it fits the specification and no symbolic axis is longer than `max_positions`.
pub fn decode(bytes: &[u8], specs: &[TensorSpec], max_positions: u64) -> Result<Row, RowError> {
    if bytes.len() > ROW_BYTES_MAX {
        return Err(RowError::TooLarge {
            bytes: bytes.len(),
            limit: ROW_BYTES_MAX,
        });
    }
    let mut reader = Reader {
        total: bytes.len(),
        rest: bytes,
    };
    let mut lengths = BTreeMap::new();
    let mut row = Vec::with_capacity(specs.len());
    for spec in specs {
        let (dtype, shape) = reader.header(spec)?;
        check_shape(spec, &shape, &mut lengths, max_positions)?;
        let length = usize::try_from(byte_length(dtype, &shape)?).unwrap_or(usize::MAX);
        let data = reader.take(length, &spec.name)?.to_vec();
        row.push(Tensor { dtype, shape, data });
    }
    match reader.rest.len() {
        0 => Ok(row),
        bytes => Err(RowError::TrailingBytes { bytes }),
    }
}

/// Checks a row against its specification and returns the length of every symbolic axis.
pub fn check(row: &[Tensor], specs: &[TensorSpec], max_positions: u64) -> Result<BTreeMap<String, u64>, RowError> {
    if row.len() != specs.len() {
        return Err(RowError::TensorCount {
            found: row.len(),
            expected: specs.len(),
        });
    }
    let mut lengths = BTreeMap::new();
    for (tensor, spec) in row.iter().zip(specs) {
        check_dtype(spec, tensor.dtype.code())?;
        check_rank(spec, u64::try_from(tensor.shape.len()).unwrap_or(u64::MAX))?;
        check_shape(spec, &tensor.shape, &mut lengths, max_positions)?;
        tensor.check()?;
    }
    Ok(lengths)
}

struct Reader<'a> {
    total: usize,
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize, tensor: &str) -> Result<&'a [u8], RowError> {
        let Some((taken, rest)) = self.rest.split_at_checked(count) else {
            return Err(RowError::Truncated {
                tensor: tensor.to_owned(),
                bytes: self.total,
            });
        };
        self.rest = rest;
        Ok(taken)
    }

    fn number<const WIDTH: usize>(&mut self, tensor: &str) -> Result<[u8; WIDTH], RowError> {
        let mut number = [0; WIDTH];
        number.copy_from_slice(self.take(WIDTH, tensor)?);
        Ok(number)
    }

    fn header(&mut self, spec: &TensorSpec) -> Result<(DType, Vec<u64>), RowError> {
        let [code] = self.number(&spec.name)?;
        check_dtype(spec, code)?;
        let rank = u32::from_be_bytes(self.number(&spec.name)?);
        check_rank(spec, u64::from(rank))?;
        let axes = spec.row_shape().len();
        let shape = (0..axes)
            .map(|_| Ok(u64::from_be_bytes(self.number(&spec.name)?)))
            .collect::<Result<_, RowError>>()?;
        Ok((spec.dtype, shape))
    }
}

fn check_dtype(spec: &TensorSpec, found: u8) -> Result<(), RowError> {
    let expected = spec.dtype.code();
    if found == expected {
        return Ok(());
    }
    Err(RowError::DType {
        tensor: spec.name.clone(),
        found,
        expected,
    })
}

fn check_rank(spec: &TensorSpec, found: u64) -> Result<(), RowError> {
    let expected = spec.row_shape().len();
    if u64::try_from(expected) == Ok(found) {
        return Ok(());
    }
    Err(RowError::Rank {
        tensor: spec.name.clone(),
        found,
        expected,
    })
}

fn check_shape(
    spec: &TensorSpec,
    shape: &[u64],
    lengths: &mut BTreeMap<String, u64>,
    max_positions: u64,
) -> Result<(), RowError> {
    for (axis, (&found, dim)) in shape.iter().zip(spec.row_shape()).enumerate() {
        let expected = match dim {
            Dim::Fixed(expected) => *expected,
            // A batch axis stands first or nowhere; the manifest is checked for it.
            Dim::Batch => 1,
            Dim::Positions(_) if found == 0 || found > max_positions => {
                return Err(RowError::Positions {
                    tensor: spec.name.clone(),
                    axis,
                    found,
                    limit: max_positions,
                });
            }
            Dim::Positions(symbol) => *lengths.entry(symbol.clone()).or_insert(found),
        };
        if found != expected {
            return Err(RowError::Axis {
                tensor: spec.name.clone(),
                axis,
                found,
                expected,
            });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::arithmetic_side_effects, reason = "sizes in tests are small")]

    use proptest::prelude::*;

    use super::*;

    fn specs(width: u64) -> Vec<TensorSpec> {
        let positions = || Dim::Positions("sequence_length".to_owned());
        vec![
            TensorSpec::new(
                "hidden",
                DType::Float32,
                vec![Dim::Batch, positions(), Dim::Fixed(width)],
            ),
            TensorSpec::new("mask", DType::Int64, vec![Dim::Batch, positions()]),
        ]
    }

    fn row(positions: u64, width: u64, seed: f32) -> Row {
        let hidden: Vec<f32> = (0..positions * width).map(|index| seed + index as f32).collect();
        let mask: Vec<i64> = (0..positions).map(|_| 1).collect();
        vec![
            Tensor::from_f32(vec![positions, width], &hidden).unwrap(),
            Tensor::from_i64(vec![positions], &mask).unwrap(),
        ]
    }

    #[test]
    fn the_encoding_is_the_documented_one() {
        let bytes = encode(&[Tensor::from_i64(vec![2], &[1, -2]).unwrap()]).unwrap();
        let expected = "07 00000001 0000000000000002 0100000000000000 feffffffffffffff";
        assert_eq!(hex::encode(bytes), expected.replace(' ', ""));
    }

    #[test]
    fn a_row_that_says_two_lengths_for_one_symbol_is_refused() {
        let mut torn = row(3, 2, 0.0);
        torn[1] = Tensor::from_i64(vec![2], &[1, 1]).unwrap();
        let bytes = encode(&torn).unwrap();
        let error = RowError::Axis {
            tensor: "mask".to_owned(),
            axis: 0,
            found: 2,
            expected: 3,
        };
        assert_eq!(decode(&bytes, &specs(2), 256), Err(error.clone()));
        assert_eq!(check(&torn, &specs(2), 256), Err(error));
    }

    #[test]
    fn more_positions_than_the_model_has_are_refused() {
        let bytes = encode(&row(5, 2, 0.0)).unwrap();
        let error = RowError::Positions {
            tensor: "hidden".to_owned(),
            axis: 0,
            found: 5,
            limit: 4,
        };
        assert_eq!(decode(&bytes, &specs(2), 4), Err(error));
        let empty = encode(&row(0, 2, 0.0)).unwrap();
        assert!(matches!(
            decode(&empty, &specs(2), 4),
            Err(RowError::Positions { found: 0, .. })
        ));
    }

    #[test]
    fn a_shape_of_impossible_size_is_refused_without_allocating() {
        let spec = [TensorSpec::new(
            "x",
            DType::Float32,
            vec![Dim::Batch, Dim::Positions("n".to_owned())],
        )];
        let mut bytes = vec![1, 0, 0, 0, 1];
        bytes.extend_from_slice(&u64::MAX.to_be_bytes());
        assert!(matches!(
            decode(&bytes, &spec, u64::MAX),
            Err(RowError::Tensor(TensorError::ShapeOverflow { .. }))
        ));
        bytes.splice(5.., (u64::MAX >> 3).to_be_bytes());
        assert!(matches!(
            decode(&bytes, &spec, u64::MAX),
            Err(RowError::Truncated { .. })
        ));
    }

    proptest! {
        #[test]
        fn what_is_encoded_decodes_to_itself(positions in 1_u64..40, width in 1_u64..9, seed in -1e6_f32..1e6) {
            let row = row(positions, width, seed);
            let bytes = encode(&row).unwrap();
            prop_assert_eq!(decode(&bytes, &specs(width), 40).unwrap(), row);
        }

        #[test]
        fn a_shorter_or_longer_row_is_refused(positions in 1_u64..9, cut in 1_usize..40, extra in 1_usize..9) {
            let bytes = encode(&row(positions, 3, 1.0)).unwrap();
            let short = &bytes[..bytes.len().saturating_sub(cut)];
            prop_assert!(decode(short, &specs(3), 9).is_err());
            let long = [bytes.as_slice(), &vec![0; extra]].concat();
            prop_assert_eq!(decode(&long, &specs(3), 9), Err(RowError::TrailingBytes { bytes: extra }));
        }

        #[test]
        fn bytes_that_decode_are_the_only_encoding(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(row) = decode(&bytes, &specs(1), 256) {
                prop_assert_eq!(encode(&row).unwrap(), bytes);
            }
        }
    }
}
