//! The split proves itself before it is offered.
//!
//! Stages chained through row bytes must answer every sample with the bits of the whole graph: one row at a time, and all of them as one
//! padded batch. On the way it finds out which rows may share a batch, and collects the calibration.

use std::collections::BTreeMap;

use crate::{
    error::SplitError,
    manifest::{Batching, Stage},
    row,
    runtime::{run_stage, Loaded},
    tensor::Row,
};

/// A stage and the graph that was loaded for it.
pub(crate) struct Running<'a> {
    pub(crate) stage: &'a Stage,
    pub(crate) loaded: Box<dyn Loaded>,
}

/// What the proof found out.
#[derive(Debug)]
pub(crate) struct Proof {
    pub(crate) batching: Batching,
    /// For every border, the canonical bytes of every sample row, run one at a time.
    pub(crate) borders: Vec<Vec<Vec<u8>>>,
}

impl Running<'_> {
    /// Rows in, rows out, as bytes: exactly what a host does.
    fn pass(&mut self, rows: &[Vec<u8>], max_positions: u64) -> Result<Vec<Vec<u8>>, SplitError> {
        let decode = |bytes: &Vec<u8>| row::decode(bytes, &self.stage.receives, max_positions);
        let rows: Vec<Row> = rows.iter().map(decode).collect::<Result<_, _>>()?;
        let answers = run_stage(self.stage, self.loaded.as_mut(), &rows, max_positions)?;
        Ok(answers
            .iter()
            .map(|answer| row::encode(answer))
            .collect::<Result<_, _>>()?)
    }
}

/// Proves that the chain of stages is the whole graph.
pub(crate) fn prove(
    whole: &mut Running<'_>,
    stages: &mut [Running<'_>],
    samples: &[Row],
    max_positions: u64,
) -> Result<Proof, SplitError> {
    let inputs: Vec<Vec<u8>> = samples
        .iter()
        .map(|sample| row::encode(sample))
        .collect::<Result<_, _>>()?;
    let alone = |running: &mut Running<'_>, rows: &[Vec<u8>]| -> Result<Vec<Vec<u8>>, SplitError> {
        let mut answers = Vec::with_capacity(rows.len());
        for row in rows {
            answers.extend(running.pass(std::slice::from_ref(row), max_positions)?);
        }
        Ok(answers)
    };
    let expected = alone(whole, &inputs)?;
    let mut borders = vec![inputs.clone()];
    for stage in stages.iter_mut() {
        let before = borders.last().map(Vec::as_slice).unwrap_or_default();
        let after = alone(stage, before)?;
        borders.push(after);
    }
    let last = stages.len().saturating_sub(1);
    same(borders.last(), &expected, last, "run one row at a time")?;

    let together = whole.pass(&inputs, max_positions)?;
    let mut rows = inputs.clone();
    for stage in stages.iter_mut() {
        rows = stage.pass(&rows, max_positions)?;
    }
    same(Some(&rows), &together, last, "run as one padded batch")?;
    let batching = batching(whole, &inputs, &expected, &together, max_positions)?;
    Ok(Proof { batching, borders })
}

fn same(found: Option<&Vec<Vec<u8>>>, expected: &[Vec<u8>], stage: usize, how: &'static str) -> Result<(), SplitError> {
    let found = found.map(Vec::as_slice).unwrap_or_default();
    match found
        .iter()
        .zip(expected)
        .position(|(found, expected)| found != expected)
    {
        Some(sample) => Err(SplitError::NotIdentical { stage, sample, how }),
        None => Ok(()),
    }
}

/// The widest grouping in which a row keeps the bits that it has alone.
fn batching(
    whole: &mut Running<'_>,
    inputs: &[Vec<u8>],
    alone: &[Vec<u8>],
    together: &[Vec<u8>],
    max_positions: u64,
) -> Result<Batching, SplitError> {
    let mut by_length: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for (index, input) in inputs.iter().enumerate() {
        by_length.entry(input.len()).or_default().push(index);
    }
    // Each length three times over, so that there is a batch even where no two samples are equally long.
    for indices in by_length.into_values() {
        let mates: Vec<usize> = indices.iter().copied().cycle().take(indices.len().max(3)).collect();
        let rows: Vec<_> = mates.iter().map(|&index| inputs[index].clone()).collect();
        let answers = whole.pass(&rows, max_positions)?;
        if mates
            .iter()
            .zip(&answers)
            .any(|(&index, answer)| *answer != alone[index])
        {
            return Ok(Batching::Single);
        }
    }
    Ok(if alone == together {
        Batching::Padded
    } else {
        Batching::EqualLengths
    })
}
