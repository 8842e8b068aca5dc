//! What the embeddings must be: those of the unsplit graph, bit by bit, and those of an implementation that is not ours, nearly.

use std::path::Path;

use anyhow::{ensure, Context as _};
use inference_host::tokenizer::TextTokenizer;
use partition::{run_stage, Bundle, Runtime};

use crate::{
    engine::Library,
    model::{split_with, Split},
    work::results::embedding,
};

/// 64 texts, one a line.
pub(crate) const SENTENCES: &str = include_str!("../../../tests/fixtures/sentences-64.txt");
/// Their vectors by `scripts/minilm_reference.py`, float32 little-endian.
const REFERENCE: &[u8] = include_bytes!("../../../tests/fixtures/minilm-64.f32");
/// Largest difference of one value.
pub(crate) const TOLERANCE: f32 = 1e-5;

/// How the model is cut for the demonstration; pooling, normalisation and longest text are what its own files say.
pub(crate) fn split_of(source: &Path, bundle: &Path, stages: usize) -> Split {
    Split {
        source: source.to_owned(),
        bundle: bundle.to_owned(),
        stages: Some(stages),
        max_stage_bytes: None,
        task: None,
        max_positions: None,
        pooling: None,
        normalize: None,
        samples: vec![],
        library: Library::default(),
    }
}

/// Vectors of the whole graph, run here, one text at a time.
pub(crate) fn unsplit(
    source: &Path,
    scratch: &Path,
    runtime: &dyn Runtime,
    texts: &[String],
) -> anyhow::Result<Vec<Vec<f32>>> {
    let bundle = split_with(&split_of(source, scratch, 1), runtime)?;
    let manifest = bundle.manifest();
    let stage = bundle.stage(0)?;
    let mut loaded = runtime.load(&bundle.verify_stage(0)?)?;
    let tokenizer = tokenizer(&bundle)?;
    let mut vectors = vec![];
    for text in texts {
        let row = tokenizer.encode(text)?.row(&manifest.inputs)?;
        let rows = run_stage(stage, loaded.as_mut(), &[row], manifest.max_positions)?;
        let row = rows.first().context("the graph gave no row")?;
        vectors.push(embedding(row)?);
    }
    Ok(vectors)
}

fn tokenizer(bundle: &Bundle) -> anyhow::Result<TextTokenizer> {
    let blob = bundle
        .manifest()
        .tokenizer
        .as_ref()
        .context("the model has no tokenizer")?;
    Ok(TextTokenizer::new(
        &bundle.read_blob(blob)?,
        bundle.manifest().max_positions,
    )?)
}

/// An error names the first vector that differs in a bit.
pub(crate) fn check_bits(found: &[Vec<f32>], expected: &[Vec<f32>]) -> anyhow::Result<()> {
    ensure!(
        found.len() == expected.len(),
        "{} vectors instead of {}",
        found.len(),
        expected.len()
    );
    for ((found, expected), number) in found.iter().zip(expected).zip(1_usize..) {
        let bits = |vector: &[f32]| vector.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
        ensure!(
            bits(found) == bits(expected),
            "vector {number} is not bit-equal to that of the unsplit graph"
        );
    }
    Ok(())
}

/// The largest difference from the independent implementation. An error if it is beyond the tolerance.
pub(crate) fn check_reference(found: &[Vec<f32>]) -> anyhow::Result<f32> {
    let reference: Vec<f32> = REFERENCE
        .as_chunks::<4>()
        .0
        .iter()
        .map(|bytes| f32::from_le_bytes(*bytes))
        .collect();
    let values: Vec<f32> = found.iter().flatten().copied().collect();
    ensure!(
        values.len() == reference.len(),
        "{} values instead of {}",
        values.len(),
        reference.len()
    );
    let mut largest = 0.0_f32;
    for (value, expected) in values.iter().zip(&reference) {
        let difference = (value - expected).abs();
        // Written so that a NaN is refused too.
        ensure!(
            difference <= TOLERANCE,
            "{value} instead of {expected}: more than {TOLERANCE} away from the independent implementation"
        );
        largest = largest.max(difference);
    }
    Ok(largest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reference() -> Vec<Vec<f32>> {
        let (values, _) = REFERENCE.as_chunks::<4>();
        let values: Vec<f32> = values.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
        values.chunks(384).map(<[f32]>::to_vec).collect()
    }

    #[test]
    fn there_is_one_vector_for_each_sentence() {
        assert_eq!(SENTENCES.lines().count(), 64);
        assert_eq!(reference().len(), 64);
    }

    #[test]
    fn a_flipped_bit_and_a_wrong_value_are_found() {
        let good = reference();
        let mut bad = good.clone();
        bad[7][3] = f32::from_bits(bad[7][3].to_bits() ^ 1);
        assert!(check_bits(&bad, &good).unwrap_err().to_string().contains("vector 8"));
        check_bits(&good, &good).unwrap();
        assert_eq!(check_reference(&good).unwrap(), 0.0);
        bad[7][3] = good[7][3] + 2.0 * TOLERANCE;
        assert!(check_reference(&bad).is_err());
        bad[7][3] = f32::NAN;
        assert!(check_reference(&bad).is_err());
        assert!(check_reference(&good[1..]).is_err());
    }
}
