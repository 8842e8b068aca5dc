//! Splitting all-MiniLM-L6-v2 changes no bit, and its embeddings are those of an independent implementation.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    time::Instant,
};

use inference_host::{
    onnx::{find_library, OnnxRuntime},
    tokenizer::{TextTokenizer, Tokens},
};
use partition::{
    row, run_stage, self_test, split, Batching, Bundle, BundleError, Loaded, Row, Runtime, SelfTestError, SplitError,
    SplitOptions, Stages, Standing,
};

const MAX_TOKENS: u64 = 256;
/// How far fp32 on ONNX Runtime may be from the float64 reference.
const TOLERANCE: f32 = 1e-5;

pub(crate) fn project() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn model_dir() -> PathBuf {
    let folder = project().join(".runtime/models/all-minilm-l6-v2");
    assert!(folder.join("model.onnx").is_file(), "run scripts/models.sh first");
    folder
}

pub(crate) fn runtime() -> OnnxRuntime {
    let library = find_library(None).expect("run scripts/models.sh first");
    OnnxRuntime::load(&library).expect("the library of scripts/models.sh loads")
}

fn sentences() -> Vec<Tokens> {
    let json = std::fs::read(model_dir().join("tokenizer.json")).unwrap();
    let tokenizer = TextTokenizer::new(&json, MAX_TOKENS).unwrap();
    let text = std::fs::read_to_string(project().join("tests/fixtures/sentences-64.txt")).unwrap();
    text.lines().map(|line| tokenizer.encode(line).unwrap()).collect()
}

/// Sample rows for the proof at publish time: short, middle, and cut at the limit.
fn samples(tokens: &[Tokens]) -> Vec<Vec<(String, partition::Tensor)>> {
    [22, 2, 0, 15, 26].map(|index| tokens[index].named().unwrap()).to_vec()
}

/// A split of the model and everything to run it with.
struct Chain {
    bundle: Bundle,
    loaded: Vec<Box<dyn Loaded>>,
    _folder: tempfile::TempDir,
}

impl Chain {
    fn new(stages: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let options = SplitOptions::embeddings(Stages::Count(stages), MAX_TOKENS);
        let begun = Instant::now();
        let target = folder.path().join("bundle");
        let bundle = split(&model_dir(), &target, &options, &runtime(), &samples(&sentences())).unwrap();
        eprintln!("split into {stages}: {:.2} s", begun.elapsed().as_secs_f64());
        let graphs = (0..stages).map(|stage| bundle.verify_stage(stage).unwrap());
        let loaded = graphs.map(|graph| runtime().load(&graph).unwrap()).collect();
        Self {
            bundle,
            loaded,
            _folder: folder,
        }
    }

    fn rows(&self) -> Vec<Row> {
        sentences()
            .iter()
            .map(|tokens| tokens.row(&self.bundle.manifest().inputs).unwrap())
            .collect()
    }

    /// Rows through all stages in groups, as bytes between them.
    fn run(&mut self, rows: &[Row], groups: &[Vec<usize>]) -> Vec<Vec<u8>> {
        let manifest = self.bundle.manifest();
        let mut answers = vec![Vec::new(); rows.len()];
        for group in groups {
            let mut wire: Vec<_> = group.iter().map(|&index| row::encode(&rows[index]).unwrap()).collect();
            for (stage, loaded) in manifest.stages.iter().zip(&mut self.loaded) {
                let decode = |bytes: &Vec<u8>| row::decode(bytes, &stage.receives, MAX_TOKENS).unwrap();
                let received: Vec<Row> = wire.iter().map(decode).collect();
                let sent = run_stage(stage, loaded.as_mut(), &received, MAX_TOKENS).unwrap();
                wire = sent.iter().map(|row| row::encode(row).unwrap()).collect();
            }
            group
                .iter()
                .zip(wire)
                .for_each(|(&index, bytes)| answers[index] = bytes);
        }
        answers
    }

    fn embedding(&self, bytes: &[u8]) -> Vec<f32> {
        row::decode(bytes, &self.bundle.manifest().outputs, MAX_TOKENS).unwrap()[0]
            .to_f32()
            .unwrap()
    }
}

fn alone(count: usize) -> Vec<Vec<usize>> {
    (0..count).map(|index| vec![index]).collect()
}

fn chunks(order: &[usize], size: usize) -> Vec<Vec<usize>> {
    order.chunks(size).map(<[usize]>::to_vec).collect()
}

/// Groupings that a host might come up with: ragged, sorted, mixed, odd.
fn groupings(rows: &[Row]) -> Vec<(&'static str, Vec<Vec<usize>>)> {
    let order: Vec<usize> = (0..rows.len()).collect();
    let mut by_length = order.clone();
    by_length.sort_by_key(|&index| rows[index][0].shape[0]);
    let mixed: Vec<usize> = (0..rows.len()).map(|index| index * 29 % rows.len()).collect();
    vec![
        ("sixteen, as they come", chunks(&order, 16)),
        ("sixteen, sorted by length", chunks(&by_length, 16)),
        ("sixteen, mixed", chunks(&mixed, 16)),
        ("seven, mixed", chunks(&mixed, 7)),
        (
            "two, backwards",
            chunks(&order.iter().rev().copied().collect::<Vec<_>>(), 2),
        ),
        ("all at once", chunks(&order, 64)),
    ]
}

#[test]
fn stages_answer_with_the_bits_of_the_whole_graph_however_rows_are_grouped() {
    let mut whole = Chain::new(1);
    let rows = whole.rows();
    let begun = Instant::now();
    let expected = whole.run(&rows, &alone(rows.len()));
    let tokens: u64 = rows.iter().map(|row| row[0].shape[0]).sum();
    eprintln!(
        "whole, one at a time: {:.0} tokens/s",
        tokens as f64 / begun.elapsed().as_secs_f64()
    );
    assert_eq!(whole.bundle.manifest().batching, Batching::Padded);
    for (name, groups) in groupings(&rows) {
        let begun = Instant::now();
        let answers = whole.run(&rows, &groups);
        eprintln!(
            "whole, {name}: {:.0} tokens/s",
            tokens as f64 / begun.elapsed().as_secs_f64()
        );
        let different: Vec<_> = (0..rows.len())
            .filter(|&index| answers[index] != expected[index])
            .collect();
        assert!(
            different.is_empty(),
            "{name}: rows {different:?} have other bits than alone"
        );
    }
    for stages in [2, 3, 6] {
        let mut chain = Chain::new(stages);
        let shares: Vec<_> = chain
            .bundle
            .manifest()
            .stages
            .iter()
            .map(|stage| stage.compute_share_bps)
            .collect();
        eprintln!("{stages} stages: shares {shares:?}");
        let begun = Instant::now();
        assert!(
            chain.run(&rows, &alone(rows.len())) == expected,
            "{stages} stages, one row at a time"
        );
        eprintln!(
            "{stages} stages, one at a time: {:.0} tokens/s",
            tokens as f64 / begun.elapsed().as_secs_f64()
        );
        // Padding to 256 again and again is what takes time here; these three have all its kinds.
        for (name, groups) in groupings(&rows).into_iter().skip(1).step_by(2) {
            assert!(chain.run(&rows, &groups) == expected, "{stages} stages, {name}");
        }
    }
}

#[test]
fn embeddings_and_token_counts_are_those_of_the_independent_implementation() {
    let mut chain = Chain::new(3);
    let rows = chain.rows();
    let answers = chain.run(&rows, &alone(rows.len()));
    let reference = std::fs::read(project().join("tests/fixtures/minilm-64.f32")).unwrap();
    let counts = std::fs::read(project().join("tests/fixtures/minilm-64.tokens.json")).unwrap();
    let counts: Vec<u64> = serde_json::from_slice(&counts).unwrap();
    let reference: Vec<f32> = reference
        .as_chunks::<4>()
        .0
        .iter()
        .map(|bytes| f32::from_le_bytes(*bytes))
        .collect();
    assert_eq!((rows.len(), reference.len()), (64, 64 * 384));
    let mut worst = 0_f32;
    for (index, expected) in reference.chunks(384).enumerate() {
        assert_eq!(rows[index][0].shape, [counts[index]], "tokens of sentence {index}");
        for (found, expected) in chain.embedding(&answers[index]).iter().zip(expected) {
            worst = worst.max((found - expected).abs());
        }
    }
    eprintln!("largest difference from the reference: {worst:e}");
    assert!(worst <= TOLERANCE, "{worst:e} from the reference");
}

#[test]
fn layers_are_shared_out_and_only_the_stream_and_the_mask_cross() {
    let chain = Chain::new(3);
    let manifest = chain.bundle.manifest();
    let shares: Vec<u32> = manifest.stages.iter().map(|stage| stage.compute_share_bps).collect();
    assert!(shares.iter().all(|share| (3_000..3_700).contains(share)), "{shares:?}");
    for stage in &manifest.stages[..2] {
        let sent: Vec<_> = stage
            .sends
            .iter()
            .map(|spec| (spec.name.as_str(), spec.row_shape().len()))
            .collect();
        let [(_, 2), ("attention_mask", 1)] = sent.as_slice() else {
            panic!("crosses: {sent:?}")
        };
    }
    assert_eq!(manifest.stages[2].sends[0].name, "sentence_embedding");
    // The embedding table belongs to the first stage alone, and no weight is stored twice.
    let weights: Vec<_> = manifest.stages.iter().flat_map(|stage| &stage.weights).collect();
    assert_eq!(weights.iter().collect::<BTreeSet<_>>().len(), weights.len());
    assert!(manifest.stages[0].weight_bytes > 3 * manifest.stages[1].weight_bytes);
}

#[test]
fn splitting_twice_gives_the_same_bundle() {
    let (first, second) = (Chain::new(3), Chain::new(3));
    assert_eq!(first.bundle.manifest(), second.bundle.manifest());
    assert_eq!(first.bundle.digest(), second.bundle.digest());
}

#[test]
fn one_flipped_byte_in_a_weight_is_refused_by_its_digest() {
    let chain = Chain::new(2);
    let weight = &chain.bundle.manifest().stages[1].weights[0];
    let path = chain.bundle.blob_path(weight);
    let mut bytes = std::fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let refused = chain.bundle.verify_stage(1).unwrap_err();
    assert!(matches!(refused, BundleError::Digest { expected, .. } if expected == weight.sha256));
    assert!(chain.bundle.verify_stage(0).is_ok());
}

#[test]
fn a_host_with_one_stage_proves_itself_and_another_engine_is_caught() {
    let mut chain = Chain::new(3);
    let manifest = chain.bundle.manifest().clone();
    let class = runtime().engine_class();
    eprintln!("engine class {class}");
    for stage in 0..3 {
        let calibration = chain.bundle.calibration(stage).unwrap();
        let loaded = &mut chain.loaded[stage];
        let standing = self_test(&manifest, stage, &calibration, &class, loaded.as_mut()).unwrap();
        assert_eq!(standing, Standing::Member);
        let standing = self_test(&manifest, stage, &calibration, "another/class", loaded.as_mut()).unwrap();
        assert_eq!(standing, Standing::Newcomer { error_ppb: 0 });
    }
    // Stage 1 in the place of stage 2 has the shapes but not the weights.
    let mut calibration = chain.bundle.calibration(1).unwrap();
    let (first, second) = chain.loaded.split_at_mut(2);
    calibration.received[0] = calibration.reference[0].clone();
    let refused = self_test(&manifest, 1, &calibration, &class, first[1].as_mut());
    assert!(matches!(refused, Err(SelfTestError::Bits { row: 0, .. })));
    let refused = self_test(&manifest, 1, &calibration, "another/class", first[1].as_mut());
    assert!(matches!(refused, Err(SelfTestError::Tolerance { row: 0, .. })));
    assert!(self_test(&manifest, 1, &calibration, &class, second[0].as_mut()).is_err());
}

#[test]
fn a_size_limit_finds_the_fewest_stages_and_an_impossible_one_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("bundle");
    let samples = samples(&sentences());
    let options = |bytes| SplitOptions::embeddings(Stages::MaxBytes(bytes), MAX_TOKENS);
    let bundle = split(&model_dir(), &target, &options(60 << 20), &runtime(), &samples).unwrap();
    assert_eq!(bundle.manifest().stages.len(), 2);
    assert!(bundle
        .manifest()
        .stages
        .iter()
        .all(|stage| stage.weight_bytes <= 60 << 20));
    let elsewhere = folder.path().join("elsewhere");
    let refused = split(&model_dir(), &elsewhere, &options(1 << 20), &runtime(), &samples);
    // The embedding table alone is larger.
    assert!(matches!(refused, Err(SplitError::StageTooLarge { bytes, .. }) if bytes > 40 << 20));
    assert_eq!(
        std::fs::read_dir(folder.path()).unwrap().count(),
        1,
        "a refused split leaves nothing"
    );
}
