//! Element types and symbolic shapes of all tensors, found by running the graph.
//!
//! Declared shapes (`value_info`) are optional, often missing, and nobody checks them. So the whole graph runs twice with every intermediate
//! exposed, with two batch sizes and two lengths along every symbolic axis: an axis that follows the batch is the batch axis, one that
//! follows a length is that symbol, one that stays is fixed, and anything else is nothing that a row can carry.

use std::collections::BTreeMap;

use crate::{
    batch,
    emit::{typed, untyped, Emitter},
    error::SplitError,
    graph::{makes, Graph},
    manifest::{Dim, TensorSpec},
    row,
    runtime::{Runtime, StageError},
    tensor::{DType, Row, Tensor},
};

/// Different from each other, so that the batch axis shows; more than 1, so that it is not taken for a broadcast axis.
const BATCHES: [usize; 2] = [2, 3];

/// A tensor as it was seen.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) dtype: DType,
    /// Shape in the larger of the two runs.
    pub(crate) shape: Vec<u64>,
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
            / 3
    }

    pub(crate) fn elements(&self) -> u64 {
        self.shape
            .iter()
            .fold(1, |total: u64, &length| total.saturating_mul(length))
    }
}

pub(crate) type Shapes = BTreeMap<String, Seen>;

/// Runs the graph on the samples and looks at every tensor that it makes.
pub(crate) fn probe(
    graph: &Graph,
    emitter: &mut Emitter<'_>,
    runtime: &dyn Runtime,
    samples: &[Row],
    max_positions: u64,
) -> Result<Shapes, SplitError> {
    let pair = choose(graph, samples, max_positions)?;
    let all: Vec<usize> = (0..graph.nodes.len()).collect();
    let outputs = graph.nodes.iter().flat_map(makes).map(untyped).collect();
    let model = emitter.model(&all, graph.inputs.iter().map(typed).collect(), outputs)?;
    let path = emitter.blobs().join("probe.onnx");
    std::fs::write(&path, model.bytes).map_err(|source| SplitError::Write {
        path: path.clone(),
        source,
    })?;
    let mut loaded = runtime.load(&path)?;
    let mut seen = Vec::new();
    for (sample, rows) in pair.iter().zip(BATCHES) {
        let batch =
            batch::stack(&vec![(*sample).clone(); rows], &graph.inputs, max_positions).map_err(StageError::from)?;
        let inputs = graph
            .inputs
            .iter()
            .map(|input| input.name.clone())
            .zip(batch.tensors)
            .collect();
        seen.push(loaded.run(inputs)?.into_iter().collect::<BTreeMap<_, _>>());
    }
    std::fs::remove_file(&path).map_err(|source| SplitError::Write { path, source })?;
    let lengths = [
        row::check(pair[0], &graph.inputs, max_positions)?,
        row::check(pair[1], &graph.inputs, max_positions)?,
    ];
    let [small, large] = seen.as_slice() else {
        return Ok(Shapes::new());
    };
    let explained = large.iter().map(|(name, tensor)| {
        let symbolic = small
            .get(name)
            .and_then(|other| explain(&other.shape, &tensor.shape, &lengths));
        (
            name.clone(),
            Seen {
                dtype: tensor.dtype,
                shape: tensor.shape.clone(),
                symbolic,
            },
        )
    });
    Ok(explained.collect())
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
            let distinct =
                |(symbol, &length): (&String, &u64)| large[symbol] > length && (length, large[symbol]) != (2, 3);
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

fn explain(small: &[u64], large: &[u64], lengths: &[BTreeMap<String, u64>; 2]) -> Option<Vec<Dim>> {
    if small.len() != large.len() {
        return None;
    }
    let batches = BATCHES.map(|rows| u64::try_from(rows).unwrap_or_default());
    let axis = |(&small, &large): (&u64, &u64)| {
        if small == large {
            return Some(Dim::Fixed(small));
        }
        if [small, large] == batches {
            return Some(Dim::Batch);
        }
        let follows = |symbol: &&String| (lengths[0][*symbol], lengths[1][*symbol]) == (small, large);
        lengths[0]
            .keys()
            .find(follows)
            .map(|symbol| Dim::Positions(symbol.clone()))
    };
    small.iter().zip(large).map(axis).collect()
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
