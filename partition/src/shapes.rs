//! Element types and symbolic shapes of all tensors, found by running the graph.
//!
//! Declared shapes (`value_info`) are optional, often missing, and nobody checks them. So the whole graph runs twice with every intermediate
//! exposed, with two batch sizes and two lengths along every symbolic axis: an axis that follows the batch is the batch axis, one that
//! follows a length is that symbol, one that stays is fixed, and anything else is nothing that a row can carry.
//! A graph with a fixed batch of 1 runs on one row both times, and a first axis of 1 is the batch axis.

use std::collections::BTreeMap;

use crate::{
    batch,
    emit::{Emitter, SHAPE_OF},
    error::SplitError,
    graph::{BatchAxis, Graph},
    manifest::{Dim, TensorSpec},
    row,
    runtime::{Runtime, RuntimeError, StageError},
    tensor::{DType, Row, Tensor},
};

/// Different from each other, so that the batch axis shows; more than 1, so that it is not taken for a broadcast axis.
const BATCHES: [usize; 2] = [2, 3];

/// Of what a runtime says about a graph that it refuses.
const REASON_CHARS_MAX: usize = 400;

/// A tensor as it was seen.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) dtype: DType,
    /// Shape in the larger of the two runs.
    pub(crate) shape: Vec<u64>,
    /// Rows in that run.
    rows: u64,
    /// What its axes follow, if all are explained.
    pub(crate) symbolic: Option<Vec<Dim>>,
}

impl Seen {
    /// The specification of a tensor that rows can carry: every axis explained, batch axis first and only there.
    pub(crate) fn spec(&self, name: &str) -> Option<TensorSpec> {
        let shape = self.symbolic.clone()?;
        let (first, rest) = shape.split_first()?;
        let carried = *first == Dim::Batch && !rest.contains(&Dim::Batch) && rest.len() <= row::RANK_MAX;
        carried.then(|| TensorSpec {
            name: name.to_owned(),
            dtype: self.dtype,
            shape,
        })
    }

    /// Whether it is made per row at all.
    pub(crate) fn has_batch_axis(&self) -> bool {
        self.symbolic.as_ref().is_none_or(|shape| shape.contains(&Dim::Batch))
    }

    /// Bytes per row, at the length of the probe.
    pub(crate) fn row_bytes(&self) -> u64 {
        self.elements()
            .saturating_mul(u64::try_from(self.dtype.size()).unwrap_or(1))
            .checked_div(self.rows)
            .unwrap_or_default()
    }

    pub(crate) fn elements(&self) -> u64 {
        self.shape
            .iter()
            .fold(1, |total: u64, &length| total.saturating_mul(length))
    }
}

/// What was seen.
#[derive(Debug, Default)]
pub(crate) struct Shapes {
    made: BTreeMap<String, Seen>,
    /// Shapes of the initialisers and of what derives from them alone.
    constants: BTreeMap<String, Vec<u64>>,
}

impl Shapes {
    /// A tensor that depends on the inputs.
    pub(crate) fn get(&self, name: &str) -> Option<&Seen> {
        self.made.get(name)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&String, &Seen)> {
        self.made.iter()
    }

    /// Shape of a tensor that depends on no input.
    pub(crate) fn constant(&self, name: &str) -> Option<&[u64]> {
        self.constants.get(name).map(Vec::as_slice)
    }

    /// Shape of any tensor.
    pub(crate) fn of(&self, name: &str) -> Option<&[u64]> {
        let made = self.made.get(name).map(|seen| seen.shape.as_slice());
        made.or_else(|| self.constant(name))
    }

    /// Whether a tensor depends on no input and has at least two axes longer than 1.
    pub(crate) fn is_matrix(&self, name: &str) -> bool {
        self.constant(name)
            .is_some_and(|shape| shape.iter().filter(|&&length| length > 1).count() >= 2)
    }
}

/// Runs the graph on the samples and looks at every tensor that it makes.
pub(crate) fn probe(
    graph: &Graph,
    emitter: &mut Emitter<'_>,
    runtime: &dyn Runtime,
    samples: &[Row],
    max_positions: u64,
) -> Result<Shapes, SplitError> {
    let pair = choose(graph, samples, max_positions)?;
    let path = emitter.blobs().join("probe.onnx");
    let write = |source| SplitError::Write {
        path: path.clone(),
        source,
    };
    std::fs::write(&path, emitter.probe()?).map_err(write)?;
    let refused = |error: RuntimeError| SplitError::NotRunnable { reason: reason(&error) };
    let mut loaded = runtime.load(&path).map_err(refused)?;
    let batches = match graph.batch {
        BatchAxis::Symbolic => BATCHES,
        BatchAxis::One => [1, 1],
    };
    let mut run = |sample: &Row, rows: usize| -> Result<BTreeMap<String, Tensor>, SplitError> {
        let rows = vec![sample.clone(); rows];
        let batch = batch::stack(&rows, &graph.inputs, max_positions).map_err(StageError::from)?;
        let names = graph.inputs.iter().map(|input| input.name.clone());
        let answer = loaded.run(names.zip(batch.tensors).collect()).map_err(refused)?;
        Ok(answer.into_iter().collect())
    };
    let small: BTreeMap<_, _> = run(pair[0], batches[0])?
        .into_iter()
        .map(|(name, tensor)| (name, tensor.shape))
        .collect();
    let large = run(pair[1], batches[1])?;
    std::fs::remove_file(&path).map_err(write)?;
    let lengths = [
        row::check(pair[0], &graph.inputs, max_positions)?,
        row::check(pair[1], &graph.inputs, max_positions)?,
    ];
    let mut shapes = Shapes::default();
    for (name, weight) in &graph.weights {
        let dims = weight.dims.iter().map(|dim| dim.unsigned_abs()).collect();
        shapes.constants.insert(name.clone(), dims);
    }
    for (name, tensor) in large {
        if let Some(constant) = name.strip_prefix(SHAPE_OF) {
            shapes.constants.insert(constant.to_owned(), integers(&tensor));
            continue;
        }
        let other = small.get(&name);
        let symbolic = other.and_then(|other| explain(other, &tensor.shape, &lengths, graph.batch));
        let seen = Seen {
            dtype: tensor.dtype,
            shape: tensor.shape,
            rows: u64::try_from(batches[1]).unwrap_or(1),
            symbolic,
        };
        shapes.made.insert(name, seen);
    }
    Ok(shapes)
}

/// What the runtime itself says, in one line; the file that it names is ours and gone soon.
fn reason(error: &RuntimeError) -> String {
    let text = match error {
        RuntimeError::Load { source, .. } | RuntimeError::Run { source } => source.to_string(),
        RuntimeError::OutOfMemory { .. } | RuntimeError::DType { .. } => error.to_string(),
    };
    let words: Vec<&str> = text.split_whitespace().collect();
    words.join(" ").chars().take(REASON_CHARS_MAX).collect()
}

fn integers(tensor: &Tensor) -> Vec<u64> {
    tensor
        .data
        .chunks_exact(8)
        .map(|bytes| u64::from_le_bytes(bytes.try_into().unwrap_or_default()))
        .collect()
}

/// Two samples that differ in length along every symbolic axis, the shortest that do, as every intermediate is kept.
fn choose<'a>(graph: &Graph, samples: &'a [Row], max_positions: u64) -> Result<[&'a Row; 2], SplitError> {
    let lengths: Vec<_> = samples
        .iter()
        .map(|sample| row::check(sample, &graph.inputs, max_positions))
        .collect::<Result<_, _>>()?;
    let mut best: Option<(u64, [&Row; 2])> = None;
    for (a, small) in lengths.iter().enumerate() {
        for (b, large) in lengths.iter().enumerate() {
            // 2 and 3 positions could not be told from 2 and 3 rows.
            let rows_too = |lengths| graph.batch == BatchAxis::Symbolic && lengths == (2, 3);
            let distinct =
                |(symbol, &length): (&String, &u64)| large[symbol] > length && !rows_too((length, large[symbol]));
            let total = large.values().fold(0, |sum: u64, &length| sum.saturating_add(length));
            if small.iter().all(distinct) && best.as_ref().is_none_or(|(least, _)| total < *least) {
                best = Some((total, [&samples[a], &samples[b]]));
            }
        }
    }
    let symbol = || {
        lengths
            .first()
            .and_then(|lengths| lengths.keys().next())
            .cloned()
            .unwrap_or_default()
    };
    best.map(|(_, pair)| pair)
        .ok_or_else(|| SplitError::SampleLengths { symbol: symbol() })
}

fn explain(small: &[u64], large: &[u64], lengths: &[BTreeMap<String, u64>; 2], batch: BatchAxis) -> Option<Vec<Dim>> {
    if small.len() != large.len() {
        return None;
    }
    let batches = BATCHES.map(|rows| u64::try_from(rows).unwrap_or_default());
    let axis = |(axis, (&small, &large)): (usize, (&u64, &u64))| {
        if batch == BatchAxis::One && axis == 0 && (small, large) == (1, 1) {
            return Some(Dim::Batch);
        }
        if small == large {
            return Some(Dim::Fixed(small));
        }
        if batch == BatchAxis::Symbolic && [small, large] == batches {
            return Some(Dim::Batch);
        }
        let follows = |symbol: &&String| (lengths[0][*symbol], lengths[1][*symbol]) == (small, large);
        lengths[0]
            .keys()
            .find(follows)
            .map(|symbol| Dim::Positions(symbol.clone()))
    };
    small.iter().zip(large).enumerate().map(axis).collect()
}

/// The samples as rows in the order of the graph's inputs.
pub(crate) fn sample_rows(
    graph: &Graph,
    samples: &[Vec<(String, Tensor)>],
    max_positions: u64,
) -> Result<Vec<Row>, SplitError> {
    let tensor = |sample: usize, named: &[(String, Tensor)], input: &TensorSpec| {
        let found = named
            .iter()
            .find(|(name, _)| *name == input.name)
            .map(|(_, tensor)| tensor.clone());
        found.ok_or_else(|| SplitError::SampleInput {
            sample,
            input: input.name.clone(),
        })
    };
    let mut rows = Vec::with_capacity(samples.len());
    for (sample, named) in samples.iter().enumerate() {
        let row: Row = graph
            .inputs
            .iter()
            .map(|input| tensor(sample, named, input))
            .collect::<Result<_, _>>()?;
        row::check(&row, &graph.inputs, max_positions).map_err(|source| SplitError::Sample { sample, source })?;
        rows.push(row);
    }
    Ok(rows)
}
