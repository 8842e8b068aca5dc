//! A bundle of one stage that can be published and ordered from. Nothing ever runs its graph.

use std::{collections::BTreeMap, fs, path::Path};

use partition::{Batching, BlobRef, Bundle, Calibration, DType, Dim, Manifest, Sha256Hex, Stage, TensorSpec, FORMAT};

const WORDS: [&str; 4] = ["[UNK]", "hello", "world", "again"];

pub(crate) fn write(folder: &Path) {
    fs::create_dir_all(folder.join("blobs")).unwrap();
    let blob = |content: &[u8]| {
        let sha256 = Sha256Hex::of(content);
        fs::write(folder.join("blobs").join(sha256.as_str()), content).unwrap();
        BlobRef {
            sha256,
            bytes: u64::try_from(content.len()).unwrap(),
        }
    };
    let of_words = |name: &str| {
        let shape = vec![Dim::Batch, Dim::Positions("sequence".to_owned())];
        TensorSpec::new(name, DType::Int64, shape)
    };
    let inputs = vec![of_words("input_ids"), of_words("attention_mask")];
    let outputs = vec![TensorSpec::new(
        "embedding",
        DType::Float32,
        vec![Dim::Batch, Dim::Fixed(4)],
    )];
    let (graph, weights) = (blob(b"a graph that nobody runs"), vec![blob(b"weights")]);
    let stage = Stage {
        digest: Stage::digest_of(&graph, &weights),
        weight_bytes: weights[0].bytes,
        graph,
        weights,
        receives: inputs.clone(),
        sends: outputs.clone(),
        feeds: vec!["input_ids".to_owned(), "attention_mask".to_owned()],
        first_node: 0,
        compute_share_bps: 10_000,
    };
    let row = Sha256Hex::of(b"row");
    let manifest = Manifest {
        format: FORMAT,
        task: "embeddings".to_owned(),
        max_positions: 16,
        pooling: None,
        normalize: false,
        inputs,
        outputs,
        stages: vec![stage],
        tokenizer: Some(blob(tokenizer().as_bytes())),
        config: None,
        batching: Batching::Padded,
        tolerance_ppb: 1000,
        calibration: Calibration {
            rows: 1,
            borders: vec![blob(b"border 0"), blob(b"border 1")],
            expected: BTreeMap::from([("nobody/1".to_owned(), vec![vec![row]])]),
        },
    };
    fs::write(folder.join("manifest.json"), manifest.to_bytes()).unwrap();
    Bundle::open(folder).unwrap();
}

fn tokenizer() -> String {
    let numbered = WORDS.iter().zip(0..);
    let vocabulary: serde_json::Map<String, serde_json::Value> = numbered
        .map(|(word, id): (_, i32)| ((*word).to_owned(), id.into()))
        .collect();
    serde_json::json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
        "pre_tokenizer": { "type": "WhitespaceSplit" }, "post_processor": null, "decoder": null,
        "model": { "type": "WordLevel", "vocab": vocabulary, "unk_token": "[UNK]" },
    })
    .to_string()
}
