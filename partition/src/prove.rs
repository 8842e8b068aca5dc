//! The split proves itself before it is offered.
//!
//! Stages chained through row bytes must answer every sample with the bits of the whole graph: one row at a time and, where the graph takes
//! more than one, all of them as one padded batch. On the way it finds out which rows may share a batch, and collects the calibration.
//! Where bits differ it finds the cut that changed them, so that the planner can do without it. Only one graph is loaded at a time.

use std::{collections::BTreeMap, path::Path};

use crate::{
    error::SplitError,
    graph::BatchAxis,
    manifest::{Batching, Stage},
    row,
    runtime::{run_stage, Loaded, Runtime, StageError},
    tensor::Row,
};

/// Canonical bytes of one row each.
pub(crate) type Rows = Vec<Vec<u8>>;

/// The samples at one border, as they get there one at a time and all in one batch.
#[derive(Clone, Debug)]
pub(crate) struct Passage {
    pub(crate) alone: Rows,
    /// Nothing where the graph takes one row only.
    together: Option<Rows>,
}

/// A sample whose bits differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Difference {
    pub(crate) sample: usize,
    pub(crate) how: &'static str,
}

/// Runs stages as a host does: rows in, rows out, as bytes.
pub(crate) struct Prover<'a> {
    pub(crate) runtime: &'a dyn Runtime,
    pub(crate) blobs: &'a Path,
    pub(crate) max_positions: u64,
}

impl Prover<'_> {
    /// What a stage makes of the samples.
    pub(crate) fn pass(&self, stage: &Stage, before: &Passage) -> Result<Passage, SplitError> {
        self.load(stage)?.pass(before)
    }

    /// What the whole graph makes of the samples, and the widest grouping in which a row keeps the bits that it has alone.
    pub(crate) fn reference(
        &self,
        whole: &Stage,
        samples: &[Row],
        batch: BatchAxis,
    ) -> Result<(Passage, Passage, Batching), SplitError> {
        let alone: Rows = samples
            .iter()
            .map(|sample| row::encode(sample))
            .collect::<Result<_, _>>()?;
        let together = (batch == BatchAxis::Symbolic).then(|| alone.clone());
        let inputs = Passage { alone, together };
        let mut running = self.load(whole)?;
        let outputs = running.pass(&inputs)?;
        let batching = running.batching(&inputs, &outputs)?;
        Ok((inputs, outputs, batching))
    }

    fn load<'s>(&self, stage: &'s Stage) -> Result<Running<'s>, SplitError> {
        let path = self.blobs.join(stage.graph.sha256.as_str());
        Ok(Running {
            stage,
            loaded: self.runtime.load(&path)?,
            max_positions: self.max_positions,
        })
    }
}

/// A stage and the graph that was loaded for it.
struct Running<'a> {
    stage: &'a Stage,
    loaded: Box<dyn Loaded>,
    max_positions: u64,
}

impl Running<'_> {
    fn pass(&mut self, before: &Passage) -> Result<Passage, SplitError> {
        let mut alone = Vec::with_capacity(before.alone.len());
        for row in &before.alone {
            alone.extend(self.run(std::slice::from_ref(row))?);
        }
        let together = before.together.as_ref().map(|rows| self.run(rows)).transpose()?;
        Ok(Passage { alone, together })
    }

    fn run(&mut self, rows: &[Vec<u8>]) -> Result<Rows, SplitError> {
        let decode = |bytes: &Vec<u8>| row::decode(bytes, &self.stage.receives, self.max_positions);
        let rows: Vec<Row> = rows.iter().map(decode).collect::<Result<_, _>>()?;
        let answers = run_stage(self.stage, self.loaded.as_mut(), &rows, self.max_positions)?;
        Ok(answers
            .iter()
            .map(|answer| row::encode(answer))
            .collect::<Result<_, _>>()?)
    }

    fn batching(&mut self, inputs: &Passage, outputs: &Passage) -> Result<Batching, SplitError> {
        let Some(together) = &outputs.together else {
            return Ok(Batching::Single);
        };
        let mut by_length: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for (index, input) in inputs.alone.iter().enumerate() {
            by_length.entry(input.len()).or_default().push(index);
        }
        // Each length three times over, so that there is a batch even where no two samples are equally long.
        for indices in by_length.into_values() {
            let mates: Vec<usize> = indices.iter().copied().cycle().take(indices.len().max(3)).collect();
            let rows: Rows = mates.iter().map(|&index| inputs.alone[index].clone()).collect();
            let answers = self.run(&rows)?;
            let differs = |(&index, answer): (&usize, &Vec<u8>)| *answer != outputs.alone[index];
            if mates.iter().zip(&answers).any(differs) {
                return Ok(Batching::Single);
            }
        }
        Ok(match outputs.alone == *together {
            true => Batching::Padded,
            false => Batching::EqualLengths,
        })
    }
}

impl Passage {
    /// The first sample that is not as expected.
    pub(crate) fn difference(&self, expected: &Self) -> Option<Difference> {
        let first = |found: &Rows, expected: &Rows, how| {
            let sample = found
                .iter()
                .zip(expected)
                .position(|(found, expected)| found != expected);
            sample.map(|sample| Difference { sample, how })
        };
        first(&self.alone, &expected.alone, "run one row at a time").or_else(|| {
            let (found, expected) = (self.together.as_ref()?, expected.together.as_ref()?);
            first(found, expected, "run as one padded batch")
        })
    }
}

/// Whether an error says that what a stage sends is not what rows can carry: another cut may do better.
pub(crate) fn blames_the_border(error: &SplitError) -> bool {
    matches!(
        error,
        SplitError::Row(_) | SplitError::Tensor(_) | SplitError::Stage(StageError::Batch(_))
    )
}
