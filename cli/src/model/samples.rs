//! The rows with which a split proves itself: the creator's own, the built-in texts, or numbers drawn from a fixed seed.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{bail, Context as _};
use half::{bf16, f16};
use inference_host::{request::decode_tensors, tokenizer::TextTokenizer};
use partition::{DType, Dim, ModelInput, Tensor, TensorSpec};
use rand::{Rng, RngCore, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::work::{
    rows::{is_row_file, read_file, row_files},
    texts,
};

/// Rows that are drawn where the creator gives none.
const DRAWN: u64 = 8;
/// Drawn rows are of different lengths, from the first to the second of these where the model allows it.
const LENGTHS: (u64, u64) = (4, 64);

/// A sample row: tensors by the names of the graph's inputs.
pub(super) type Sample = Vec<(String, Tensor)>;

/// Sample rows for a model that takes texts: those of files, or the built-in ones.
pub(super) fn of_texts(
    source: &Path,
    max_positions: u64,
    files: &[PathBuf],
    own: &[&str],
) -> anyhow::Result<Vec<Sample>> {
    let path = source.join("tokenizer.json");
    let json = fs::read(&path).with_context(|| format!("failed to read {}", path.display()))?;
    let tokenizer = TextTokenizer::new(&json, max_positions)?;
    let mut all = vec![];
    for file in files {
        all.extend(texts::read(file).with_context(|| file.display().to_string())?);
    }
    if files.is_empty() {
        all = own.iter().map(|text| (*text).to_owned()).collect();
    }
    all.iter().map(|text| Ok(tokenizer.encode(text)?.named()?)).collect()
}

/// Whether these are files of rows rather than of texts.
pub(super) fn are_rows(files: &[PathBuf]) -> bool {
    files.iter().any(|file| file.is_dir() || is_row_file(file))
}

/// Sample rows out of safetensors files, one row each.
pub(super) fn of_files(inputs: &[ModelInput], max_positions: u64, files: &[PathBuf]) -> anyhow::Result<Vec<Sample>> {
    let specs: Vec<TensorSpec> = inputs.iter().map(|input| input.spec.clone()).collect();
    let sample = |path: &PathBuf| {
        let bytes = read_file(path, partition::row::ROW_BYTES_MAX, "is the most that a row may have")?;
        let row = decode_tensors(&bytes, &specs, max_positions);
        let row = row.with_context(|| format!("{} is no row for this model", path.display()))?;
        Ok(specs.iter().map(|spec| spec.name.clone()).zip(row).collect())
    };
    row_files(files)?.iter().map(sample).collect()
}

/// Sample rows of random numbers, the same on every machine. Refused where an input names places to look at: how many there are is in no
/// shape, and a place that is not there would be an error and no sample.
pub(super) fn drawn(inputs: &[ModelInput], max_positions: u64) -> anyhow::Result<Vec<Sample>> {
    for input in inputs {
        if let (Some(node), true) = (&input.looked_up_by, is_integer(input.spec.dtype)) {
            bail!(
                "sample rows are needed: node {node} looks up what input {} names, and nothing says how many there are to look up; \
                 --samples takes safetensors files",
                input.spec.name
            );
        }
    }
    let mut random = ChaCha8Rng::seed_from_u64(0);
    let mut samples = vec![];
    for number in 0..DRAWN {
        let lengths = lengths(inputs, max_positions, number);
        let sample = inputs.iter().map(|input| {
            let tensor = draw(&mut random, &input.spec, &lengths)?;
            Ok((input.spec.name.clone(), tensor))
        });
        samples.push(sample.collect::<anyhow::Result<Sample>>()?);
    }
    Ok(samples)
}

fn is_integer(dtype: DType) -> bool {
    let others = [
        DType::Bool,
        DType::Float16,
        DType::Bfloat16,
        DType::Float32,
        DType::Float64,
    ];
    !others.contains(&dtype)
}

/// Lengths of the symbolic axes of a drawn row: they grow from row to row, and no two axes of a row are equally long where that can be.
fn lengths(inputs: &[ModelInput], max_positions: u64, number: u64) -> BTreeMap<&str, u64> {
    let axes = inputs.iter().flat_map(|input| input.spec.row_shape());
    let symbols = axes.filter_map(|axis| match axis {
        Dim::Positions(symbol) => Some((symbol.as_str(), 0)),
        _ => None,
    });
    let mut lengths: BTreeMap<&str, u64> = symbols.collect();
    let most = LENGTHS.1.min(max_positions).max(1);
    let least = LENGTHS.0.min(most.div_ceil(2));
    let step = most.saturating_sub(least).div_ceil(DRAWN);
    for ((_, length), shift) in lengths.iter_mut().zip(0_u64..) {
        let grown = number
            .saturating_mul(step.max(1))
            .saturating_add(least)
            .saturating_add(shift);
        *length = grown.min(most);
    }
    lengths
}

fn draw(random: &mut ChaCha8Rng, spec: &TensorSpec, lengths: &BTreeMap<&str, u64>) -> anyhow::Result<Tensor> {
    let axis = |axis: &Dim| match axis {
        Dim::Fixed(length) => *length,
        Dim::Positions(symbol) => lengths.get(symbol.as_str()).copied().unwrap_or(1),
        Dim::Batch => 1,
    };
    let shape: Vec<u64> = spec.row_shape().iter().map(axis).collect();
    let elements = shape.iter().try_fold(1_u64, |total, length| total.checked_mul(*length));
    let size = u64::try_from(spec.dtype.size()).unwrap_or(u64::MAX);
    let most = u64::try_from(partition::row::ROW_BYTES_MAX).unwrap_or(u64::MAX);
    let Some(elements) = elements.filter(|elements| elements.saturating_mul(size) <= most) else {
        bail!(
            "a row of input {} with shape {shape:?} is larger than a row may be",
            spec.name
        );
    };
    let mut data = vec![];
    for _ in 0..elements {
        element(random, spec.dtype, &mut data);
    }
    Ok(Tensor::new(spec.dtype, shape, data)?)
}

/// Floating-point numbers as normalised inputs are, bytes as images are, and of other integers 0 and 1: what counts or switches.
fn element(random: &mut ChaCha8Rng, dtype: DType, data: &mut Vec<u8>) {
    let bit = u8::from(random.gen_bool(0.5));
    match dtype {
        DType::Uint8 | DType::Int8 => data.push(random.gen()),
        DType::Float32 => data.extend(normal(random).to_le_bytes()),
        DType::Float64 => data.extend(f64::from(normal(random)).to_le_bytes()),
        DType::Float16 => data.extend(f16::from_f32(normal(random)).to_le_bytes()),
        DType::Bfloat16 => data.extend(bf16::from_f32(normal(random)).to_le_bytes()),
        _ => {
            data.push(bit);
            data.resize(data.len().saturating_add(dtype.size().saturating_sub(1)), 0);
        }
    }
}

/// Nearly normal: the sum of twelve even ones. Logarithms and cosines differ from one C library to the next, sums do not.
fn normal(random: &mut ChaCha8Rng) -> f32 {
    let even = |word: u32| (word >> 8) as f32 / (1_u32 << 24) as f32;
    (0..12).map(|_| even(random.next_u32())).sum::<f32>() - 6.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn input(name: &str, dtype: DType, rest: &[Dim]) -> ModelInput {
        ModelInput {
            spec: TensorSpec::new(name, dtype, [&[Dim::Batch], rest].concat()),
            looked_up_by: None,
        }
    }

    fn symbol(name: &str) -> Dim {
        Dim::Positions(name.to_owned())
    }

    #[test]
    fn drawn_rows_are_the_same_each_time_fit_and_tell_axes_apart() {
        let inputs = [
            input("image", DType::Float32, &[symbol("h"), symbol("w")]),
            input("mask", DType::Int64, &[symbol("w")]),
            input("gray", DType::Uint8, &[Dim::Fixed(9)]),
        ];
        let samples = drawn(&inputs, 32).unwrap();
        assert_eq!(samples, drawn(&inputs, 32).unwrap());
        let lengths: Vec<&[u64]> = samples.iter().map(|sample| sample[0].1.shape.as_slice()).collect();
        assert_eq!(lengths[0], [4, 5]);
        assert_eq!(lengths[1], [8, 9]);
        assert!(lengths.iter().all(|shape| shape[0] <= 32 && shape[1] <= 32));
        let mean = samples[7][0].1.to_f32().unwrap().iter().sum::<f32>() / 1024.0;
        assert!(mean.abs() < 0.2, "{mean}");
        assert!(samples[0][1]
            .1
            .data
            .chunks(8)
            .all(|word| word[0] <= 1 && word[1..] == [0; 7]));
        let shortest = drawn(&inputs, 2).unwrap();
        assert!(shortest.iter().any(|sample| sample[0].1.shape == [1, 2]));
    }

    #[test]
    fn places_to_look_at_are_not_guessed() {
        let mut ids = input("ids", DType::Int64, &[symbol("n")]);
        ids.looked_up_by = Some("/embed/Gather".to_owned());
        let refused = drawn(&[ids], 16).unwrap_err().to_string();
        assert!(
            refused.contains("node /embed/Gather looks up what input ids names"),
            "{refused}"
        );
    }
}
