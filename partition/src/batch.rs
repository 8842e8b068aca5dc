//! Stacks rows into one padded batch, and cuts a batch back into rows.
//!
//! Rows are padded on the right, along their symbolic axes, with zero bytes. A graph that keeps padding apart by an attention mask
//! therefore sees mask 0 there. Cutting gives every row its own length back, so that padding is never hashed, pushed or attested.

use std::collections::BTreeMap;

use crate::{
    manifest::{Dim, TensorSpec},
    row::{self, RowError},
    tensor::{elements, DType, Row, Tensor, TensorError},
};

/// Rows that cannot be one batch, or a batch that cannot be cut.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    #[error("a batch needs at least one row")]
    Empty,
    #[error("row {row}: {error}")]
    Row { row: usize, error: RowError },
    #[error("tensor {tensor} of the batch has element type {found:?}, {expected:?} expected")]
    DType {
        tensor: String,
        found: DType,
        expected: DType,
    },
    #[error("tensor {tensor} of the batch has shape {found:?}, {expected:?} expected")]
    Shape {
        tensor: String,
        found: Vec<u64>,
        expected: Vec<u64>,
    },
    #[error("axis {symbol} of tensor {tensor} is in no tensor that came in")]
    UnknownSymbol { tensor: String, symbol: String },
    #[error(transparent)]
    Tensor(#[from] TensorError),
}

/// Rows as one batch: tensors with the batch axis first, and what is needed to cut them apart again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// One tensor a specification, in order.
    pub tensors: Vec<Tensor>,
    /// Lengths of the symbolic axes.
    pub lengths: Lengths,
}

/// Length of every symbolic axis, row by row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lengths {
    rows: Vec<BTreeMap<String, u64>>,
    longest: BTreeMap<String, u64>,
}

impl Lengths {
    fn new(rows: Vec<BTreeMap<String, u64>>) -> Self {
        let mut longest = BTreeMap::new();
        for (symbol, &length) in rows.iter().flatten() {
            let entry = longest.entry(symbol.clone()).or_insert(length);
            *entry = length.max(*entry);
        }
        Self { rows, longest }
    }

    /// Rows in the batch.
    pub fn rows(&self) -> usize {
        self.rows.len()
    }

    fn shape(lengths: &BTreeMap<String, u64>, spec: &TensorSpec) -> Result<Vec<u64>, BatchError> {
        let length = |dim: &Dim| match dim {
            Dim::Fixed(length) => Ok(*length),
            Dim::Batch => Ok(1),
            Dim::Positions(symbol) => lengths.get(symbol).copied().ok_or_else(|| BatchError::UnknownSymbol {
                tensor: spec.name.clone(),
                symbol: symbol.clone(),
            }),
        };
        spec.row_shape().iter().map(length).collect()
    }
}

/// One padded batch of these rows, each of which fits the specification.
pub fn stack(rows: &[Row], specs: &[TensorSpec], max_positions: u64) -> Result<Batch, BatchError> {
    if rows.is_empty() {
        return Err(BatchError::Empty);
    }
    let check = |(index, row): (usize, &Row)| {
        row::check(row, specs, max_positions).map_err(|error| BatchError::Row { row: index, error })
    };
    let lengths = Lengths::new(rows.iter().enumerate().map(check).collect::<Result<_, _>>()?);
    let mut tensors = Vec::with_capacity(specs.len());
    for (index, spec) in specs.iter().enumerate() {
        let padded = Lengths::shape(&lengths.longest, spec)?;
        let size = bytes_of(&padded, spec.dtype)?;
        let mut data = vec![0; size.checked_mul(rows.len()).ok_or_else(|| too_large(&padded))?];
        for (row, slot) in rows.iter().zip(data.chunks_exact_mut(size.max(1))) {
            copy_block(
                &row[index].data,
                &row[index].shape,
                slot,
                &padded,
                spec.dtype.size(),
                Direction::Pad,
            );
        }
        tensors.push(Tensor {
            dtype: spec.dtype,
            shape: with_batch(rows.len(), padded),
            data,
        });
    }
    Ok(Batch { tensors, lengths })
}

/// The rows of a batch that came out of a graph, every row with the lengths that it went in with.
pub fn cut(tensors: &[Tensor], specs: &[TensorSpec], lengths: &Lengths) -> Result<Vec<Row>, BatchError> {
    let mut rows: Vec<Row> = lengths.rows.iter().map(|_| Vec::with_capacity(specs.len())).collect();
    for (tensor, spec) in tensors.iter().zip(specs) {
        if tensor.dtype != spec.dtype {
            let (tensor, found, expected) = (spec.name.clone(), tensor.dtype, spec.dtype);
            return Err(BatchError::DType {
                tensor,
                found,
                expected,
            });
        }
        let padded = Lengths::shape(&lengths.longest, spec)?;
        let expected = with_batch(lengths.rows(), padded.clone());
        if tensor.shape != expected {
            return Err(BatchError::Shape {
                tensor: spec.name.clone(),
                found: tensor.shape.clone(),
                expected,
            });
        }
        tensor.check()?;
        let size = bytes_of(&padded, spec.dtype)?;
        for (index, row) in rows.iter_mut().enumerate() {
            let shape = Lengths::shape(&lengths.rows[index], spec)?;
            let begin = index.saturating_mul(size);
            let mut slot = vec![0; bytes_of(&shape, spec.dtype)?];
            let block = &tensor.data[begin..begin.saturating_add(size)];
            copy_block(block, &padded, &mut slot, &shape, spec.dtype.size(), Direction::Cut);
            row.push(Tensor {
                dtype: spec.dtype,
                shape,
                data: slot,
            });
        }
    }
    Ok(rows)
}

#[derive(Clone, Copy)]
enum Direction {
    /// The source is the smaller block.
    Pad,
    /// The target is the smaller block.
    Cut,
}

/// Copies the block that two arrays of equal rank have in common at their origin.
fn copy_block(source: &[u8], from: &[u64], target: &mut [u8], to: &[u64], width: usize, direction: Direction) {
    let small = match direction {
        Direction::Pad => from,
        Direction::Cut => to,
    };
    // Everything after the last axis that differs is contiguous in both.
    let split = from.iter().zip(to).rposition(|(from, to)| from != to).unwrap_or(0);
    let run = bytes(small.get(split..).unwrap_or_default(), width);
    if run == 0 {
        return;
    }
    let outer = small.get(..split).unwrap_or_default();
    let (from_stride, to_stride) = (strides(from, width), strides(to, width));
    let mut index = vec![0_usize; outer.len()];
    loop {
        let (source_at, target_at) = (offset(&index, &from_stride), offset(&index, &to_stride));
        let source_end = source_at.saturating_add(run);
        target[target_at..target_at.saturating_add(run)].copy_from_slice(&source[source_at..source_end]);
        if !advance(&mut index, outer) {
            return;
        }
    }
}

/// The next index in row-major order; false after the last one.
fn advance(index: &mut [usize], shape: &[u64]) -> bool {
    for axis in (0..index.len()).rev() {
        index[axis] = index[axis].saturating_add(1);
        if u64::try_from(index[axis]).unwrap_or(u64::MAX) < shape[axis] {
            return true;
        }
        index[axis] = 0;
    }
    false
}

fn bytes(shape: &[u64], width: usize) -> usize {
    let length = |&length: &u64| usize::try_from(length).unwrap_or(usize::MAX);
    shape.iter().map(length).fold(width, usize::saturating_mul)
}

fn strides(shape: &[u64], width: usize) -> Vec<usize> {
    (0..shape.len())
        .map(|axis| bytes(&shape[axis.saturating_add(1)..], width))
        .collect()
}

fn offset(index: &[usize], strides: &[usize]) -> usize {
    index
        .iter()
        .zip(strides)
        .map(|(index, stride)| index.saturating_mul(*stride))
        .fold(0, usize::saturating_add)
}

fn bytes_of(shape: &[u64], dtype: DType) -> Result<usize, BatchError> {
    elements(shape)?;
    Ok(bytes(shape, dtype.size()))
}

fn too_large(shape: &[u64]) -> TensorError {
    TensorError::ShapeOverflow { shape: shape.to_vec() }
}

fn with_batch(rows: usize, shape: Vec<u64>) -> Vec<u64> {
    let mut all = vec![u64::try_from(rows).unwrap_or(u64::MAX)];
    all.extend(shape);
    all
}

#[cfg(test)]
mod tests {
    #![allow(clippy::arithmetic_side_effects, reason = "sizes in tests are small")]

    use proptest::prelude::*;

    use super::*;

    fn specs() -> Vec<TensorSpec> {
        let positions = || Dim::Positions("s".to_owned());
        vec![
            TensorSpec::new("hidden", DType::Float32, vec![Dim::Batch, positions(), Dim::Fixed(3)]),
            TensorSpec::new(
                "scores",
                DType::Float32,
                vec![Dim::Batch, Dim::Fixed(2), positions(), positions()],
            ),
            TensorSpec::new("whole", DType::Int64, vec![Dim::Batch, Dim::Fixed(2)]),
        ]
    }

    fn row(positions: u64, seed: f32) -> Row {
        let floats = |count: u64| (0..count).map(|index| seed + index as f32).collect::<Vec<_>>();
        vec![
            Tensor::from_f32(vec![positions, 3], &floats(positions * 3)).unwrap(),
            Tensor::from_f32(vec![2, positions, positions], &floats(2 * positions * positions)).unwrap(),
            Tensor::from_i64(vec![2], &[7, 8]).unwrap(),
        ]
    }

    #[test]
    fn padding_is_zero_and_on_the_right() {
        let spec = [TensorSpec::new(
            "x",
            DType::Int64,
            vec![Dim::Batch, Dim::Positions("s".to_owned())],
        )];
        let rows = [vec![1_i64], vec![2, 3]].map(|ids| vec![Tensor::from_i64(vec![ids.len() as u64], &ids).unwrap()]);
        let batch = stack(&rows, &spec, 8).unwrap();
        assert_eq!(batch.tensors, [Tensor::from_i64(vec![2, 2], &[1, 0, 2, 3]).unwrap()]);
    }

    #[test]
    fn a_graph_that_changed_the_shape_is_caught() {
        let batch = stack(&[row(2, 0.0)], &specs(), 8).unwrap();
        let mut tensors = batch.tensors.clone();
        tensors[0].shape = vec![1, 3, 2];
        assert!(matches!(
            cut(&tensors, &specs(), &batch.lengths),
            Err(BatchError::Shape { .. })
        ));
        assert_eq!(stack(&[], &specs(), 8), Err(BatchError::Empty));
    }

    proptest! {
        #[test]
        fn a_stacked_batch_cuts_into_the_same_rows(lengths in proptest::collection::vec(1_u64..7, 1..6), seed in -9_f32..9.0) {
            let rows: Vec<Row> = lengths.iter().zip(0_u8..).map(|(&n, index)| row(n, seed + f32::from(index))).collect();
            let batch = stack(&rows, &specs(), 7).unwrap();
            prop_assert_eq!(cut(&batch.tensors, &specs(), &batch.lengths).unwrap(), rows);
        }
    }
}
