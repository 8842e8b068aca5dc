//! Sample rows at every border, so that a host that holds one stage can prove itself before it serves.
//!
//! A host belongs to an engine class by reproducing its bits, not by its own word. A host of a class that the bundle does not know must
//! come within the manifest's tolerance of the reference rows.

use std::collections::BTreeMap;

use crate::{
    manifest::{Manifest, Sha256Hex, TensorSpec},
    row::{self, RowError},
    runtime::{run_stage, Loaded, StageError},
    tensor::{DType, Row, Tensor},
};

/// What a stage is fed, what it should answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StageCalibration {
    /// Canonical bytes of the rows that the stage is fed.
    pub received: Vec<Vec<u8>>,
    /// Canonical bytes of the rows that the publisher's engine answered.
    pub reference: Vec<Vec<u8>>,
    /// By engine class: sha256 of each answered row.
    pub expected: BTreeMap<String, Vec<Sha256Hex>>,
}

/// How a host stands after its self-test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Every bit as its engine class is known to give it.
    Member,
    /// The bundle does not know the class; the largest relative error against the reference, in parts per billion.
    Newcomer { error_ppb: u64 },
}

/// A host that must not serve the stage.
#[derive(Debug, thiserror::Error)]
pub enum SelfTestError {
    #[error("sample row {row} has the digest {found}, engine class {class} gives {expected}: instruction set, library or options differ from what the class says")]
    Bits {
        class: String,
        row: usize,
        found: Sha256Hex,
        expected: Sha256Hex,
    },
    #[error(
        "sample row {row} is {error_ppb} parts per billion from the reference, at most {tolerance_ppb} are allowed"
    )]
    Tolerance {
        row: usize,
        error_ppb: u64,
        tolerance_ppb: u64,
    },
    #[error("sample row {row} differs from the reference in tensor {tensor}, which must be equal")]
    Carried { row: usize, tensor: String },
    #[error(transparent)]
    Row(#[from] RowError),
    #[error(transparent)]
    Stage(#[from] StageError),
}

/// Runs a stage on its sample rows, one at a time, and judges the answers.
pub fn self_test(
    manifest: &Manifest,
    stage: usize,
    calibration: &StageCalibration,
    class: &str,
    loaded: &mut dyn Loaded,
) -> Result<Standing, SelfTestError> {
    let Some(facts) = manifest.stages.get(stage) else {
        return Ok(Standing::Newcomer { error_ppb: u64::MAX });
    };
    let mut worst = 0;
    for (index, (received, reference)) in calibration.received.iter().zip(&calibration.reference).enumerate() {
        let received = row::decode(received, &facts.receives, manifest.max_positions)?;
        let answers = run_stage(facts, loaded, &[received], manifest.max_positions)?;
        let answer = answers.into_iter().next().unwrap_or_default();
        if let Some(expected) = calibration.expected.get(class).and_then(|digests| digests.get(index)) {
            let found = Sha256Hex::of(&row::encode(&answer)?);
            if found != *expected {
                let (class, expected) = (class.to_owned(), expected.clone());
                return Err(SelfTestError::Bits {
                    class,
                    row: index,
                    found,
                    expected,
                });
            }
            continue;
        }
        let reference = row::decode(reference, &facts.sends, manifest.max_positions)?;
        let error_ppb = compare(index, &answer, &reference, &facts.sends)?;
        let tolerance_ppb = manifest.tolerance_ppb;
        if error_ppb > tolerance_ppb {
            return Err(SelfTestError::Tolerance {
                row: index,
                error_ppb,
                tolerance_ppb,
            });
        }
        worst = error_ppb.max(worst);
    }
    Ok(match calibration.expected.contains_key(class) {
        true => Standing::Member,
        false => Standing::Newcomer { error_ppb: worst },
    })
}

/// Largest relative error of the floating-point tensors; all others must be equal.
fn compare(index: usize, answer: &Row, reference: &Row, specs: &[TensorSpec]) -> Result<u64, SelfTestError> {
    let mut worst = 0;
    for ((answer, reference), spec) in answer.iter().zip(reference).zip(specs) {
        match (floats(answer), floats(reference)) {
            (Some(answer), Some(reference)) => worst = relative_error_ppb(&answer, &reference).max(worst),
            _ if answer == reference => {}
            _ => {
                return Err(SelfTestError::Carried {
                    row: index,
                    tensor: spec.name.clone(),
                })
            }
        }
    }
    Ok(worst)
}

/// L2 norm of the difference over L2 norm of the reference. Anything that is not a number is infinitely wrong.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "float to integer casts saturate, and the value is positive"
)]
fn relative_error_ppb(answer: &[f64], reference: &[f64]) -> u64 {
    let norm = |sum: f64, value: f64| sum + value * value;
    let difference = answer.iter().zip(reference).map(|(a, b)| a - b).fold(0.0, norm).sqrt();
    let scale = reference.iter().copied().fold(0.0, norm).sqrt();
    if difference == 0.0 {
        return 0;
    }
    let error = (difference / scale * 1e9).ceil();
    if error.is_finite() {
        error as u64
    } else {
        u64::MAX
    }
}

fn floats(tensor: &Tensor) -> Option<Vec<f64>> {
    let pairs = || {
        tensor
            .data
            .chunks_exact(2)
            .map(|bytes| u16::from_le_bytes([bytes[0], bytes[1]]))
    };
    let eights = || {
        tensor
            .data
            .chunks_exact(8)
            .map(|bytes| bytes.try_into().unwrap_or_default())
    };
    Some(match tensor.dtype {
        DType::Float32 => tensor.to_f32()?.into_iter().map(f64::from).collect(),
        DType::Float64 => eights().map(f64::from_le_bytes).collect(),
        DType::Float16 => pairs().map(|bits| half::f16::from_bits(bits).to_f64()).collect(),
        DType::Bfloat16 => pairs().map(|bits| half::bf16::from_bits(bits).to_f64()).collect(),
        _ => return None,
    })
}

/// The blob of a border: each row with its length (u32 big-endian) before it.
pub(crate) fn write_rows(rows: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for row in rows {
        bytes.extend_from_slice(&u32::try_from(row.len()).unwrap_or(u32::MAX).to_be_bytes());
        bytes.extend_from_slice(row);
    }
    bytes
}

/// The rows of a border's blob, if it holds exactly this many.
pub(crate) fn read_rows(mut bytes: &[u8], rows: u32) -> Option<Vec<Vec<u8>>> {
    let mut found = Vec::new();
    for _ in 0..rows {
        let (length, rest) = bytes.split_first_chunk::<4>()?;
        let (row, rest) = rest.split_at_checked(usize::try_from(u32::from_be_bytes(*length)).ok()?)?;
        found.push(row.to_vec());
        bytes = rest;
    }
    bytes.is_empty().then_some(found)
}
