//! What a creator publishes: manifests, graphs, tokenisers; and the tensors that go from stage to stage.

use std::{fs, path::Path};

use fxn_tests::program::root;
use inference_host::{
    decode_rows, encode_rows,
    request::{decode_tensors, encode_tensors},
    tokenizer::TextTokenizer,
};
use partition::{
    row, split, Batching, BlobRef, Bundle, Calibration, DType, Dim, Loaded, Manifest, Runtime, RuntimeError, Sha256Hex,
    SplitError, SplitOptions, Stage, Stages, Tensor, TensorSpec, FORMAT,
};

use crate::target::Target;

const MIB: usize = 1 << 20;

fn specs() -> Vec<TensorSpec> {
    border(0)
}

/// What goes over the border before a stage.
fn border(stage: u32) -> Vec<TensorSpec> {
    let positions = || Dim::Positions("sequence".to_owned());
    vec![
        TensorSpec::new(
            &format!("hidden-{stage}"),
            DType::Float32,
            vec![Dim::Batch, positions(), Dim::Fixed(4)],
        ),
        TensorSpec::new("mask", DType::Int64, vec![Dim::Batch, positions()]),
    ]
}

fn manifest() -> Manifest {
    let blob = |content: &str| BlobRef {
        sha256: Sha256Hex::of(content.as_bytes()),
        bytes: content.len() as u64,
    };
    let stage = |number: u32| {
        let (graph, weights) = (
            blob(&format!("graph {number}")),
            vec![blob(&format!("weights {number}"))],
        );
        Stage {
            digest: Stage::digest_of(&graph, &weights),
            weight_bytes: weights[0].bytes,
            graph,
            weights,
            receives: border(number),
            sends: border(number + 1),
            feeds: vec![format!("hidden-{number}")],
            first_node: number,
            compute_share_bps: 5_000,
        }
    };
    let manifest = Manifest {
        format: FORMAT,
        task: "embeddings".to_owned(),
        max_positions: 16,
        pooling: None,
        normalize: true,
        inputs: specs(),
        outputs: border(2),
        stages: vec![stage(0), stage(1)],
        tokenizer: Some(blob("tokenizer")),
        config: None,
        batching: Batching::Padded,
        tolerance_ppb: 1_000,
        calibration: Calibration {
            rows: 1,
            borders: vec![blob("a"), blob("b"), blob("c")],
            expected: [("class".to_owned(), vec![vec![Sha256Hex::of(b"row")]; 2])].into(),
        },
    };
    manifest.validate().unwrap();
    manifest
}

#[test]
fn a_manifest_is_canonical_and_valid_or_refused() {
    let target = Target {
        name: "manifest",
        samples: vec![manifest().to_bytes()],
        memory: 64 * MIB,
    };
    target.attack(|bytes| {
        if let Ok(parsed) = serde_json::from_slice::<Manifest>(bytes) {
            let again = serde_json::from_slice::<Manifest>(&parsed.to_bytes()).unwrap();
            assert_eq!(again, parsed);
            let valid = parsed.validate().is_ok();
            let opened = Bundle::with_store(&parsed.to_bytes(), Path::new("nowhere"));
            assert_eq!(opened.is_ok(), valid);
        }
        if let Ok(bundle) = Bundle::with_store(bytes, Path::new("nowhere")) {
            assert_eq!(bundle.manifest().to_bytes(), bytes, "one manifest, one digest");
            assert_eq!(*bundle.digest(), Sha256Hex::of(bytes));
            bundle
                .manifest()
                .stages
                .iter()
                .for_each(|stage| assert!(stage.computes().count() <= stage.sends.len()));
        }
    });
}

/// Says no to every graph: what is tested is everything before.
struct NoRuntime;

impl Runtime for NoRuntime {
    fn engine_class(&self) -> String {
        "none".to_owned()
    }

    fn load(&self, graph: &Path) -> Result<Box<dyn Loaded>, RuntimeError> {
        Err(RuntimeError::Load {
            graph: graph.to_owned(),
            source: "there is none".into(),
        })
    }
}

#[test]
fn an_onnx_file_is_taken_apart_or_refused_and_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("export");
    fs::create_dir(&source).unwrap();
    let fixture = root().join("tests/fixtures/tiny");
    fs::copy(fixture.join("tokenizer.json"), source.join("tokenizer.json")).unwrap();
    let tensor = |values: &[i64]| Tensor::from_i64(vec![values.len() as u64], values).unwrap();
    let sample = |length: usize| {
        vec![
            ("input_ids".to_owned(), tensor(&vec![3; length])),
            ("attention_mask".to_owned(), tensor(&vec![1; length])),
        ]
    };
    let target = Target {
        name: "onnx",
        samples: vec![fs::read(fixture.join("model.onnx")).unwrap()],
        memory: 64 * MIB,
    };
    target.attack(|bytes| {
        fs::write(source.join("model.onnx"), bytes).unwrap();
        for stages in [Stages::Count(3), Stages::MaxBytes(600)] {
            let options = SplitOptions {
                external_bytes_min: 32,
                ..SplitOptions::embeddings(stages, 16)
            };
            let refused = split(
                &source,
                &folder.path().join("bundle"),
                &options,
                &NoRuntime,
                &[sample(3), sample(5)],
            );
            let error: SplitError = refused.unwrap_err();
            assert!(!error.to_string().is_empty());
            assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "{error}");
        }
    });
}

#[test]
fn a_row_that_decodes_is_the_encoding_of_what_it_says() {
    let row = |length: u64| {
        let hidden: Vec<f32> = (0..length * 4).map(|value| value as f32).collect();
        let row = [
            Tensor::from_f32(vec![length, 4], &hidden).unwrap(),
            Tensor::from_i64(vec![length], &vec![1; length as usize]).unwrap(),
        ];
        row::encode(&row).unwrap()
    };
    let target = Target {
        name: "row",
        samples: vec![row(1), row(3), row(16)],
        memory: 4 * MIB,
    };
    target.attack(|bytes| {
        if let Ok(decoded) = row::decode(bytes, &specs(), 16) {
            assert_eq!(row::encode(&decoded).unwrap(), bytes);
            row::check(&decoded, &specs(), 16).unwrap();
        }
    });
}

#[test]
fn rows_that_decode_are_the_encoding_of_what_they_say() {
    let target = Target {
        name: "rows",
        samples: vec![
            encode_rows(&["one", "", "three"]),
            encode_rows::<&str>(&[]),
            encode_rows(&[vec![7; 300]]),
        ],
        // The rows once more, and their list.
        memory: 16 * MIB,
    };
    target.attack(|bytes| {
        if let Ok(rows) = decode_rows(bytes) {
            assert_eq!(encode_rows(&rows), bytes);
        }
    });
}

#[test]
fn a_tokenizer_reads_any_text_or_is_refused() {
    let fixture = root().join("tests/fixtures/tiny/tokenizer.json");
    let target = Target {
        name: "tokenizer",
        samples: vec![fs::read(fixture).unwrap()],
        memory: 64 * MIB,
    };
    target.attack(|bytes| {
        let Ok(tokenizer) = TextTokenizer::new(bytes, 16) else {
            return;
        };
        for text in ["", "w1 w2 nothing", "\u{0}\u{202e}🤷🏽‍♀️ é", &"w3 ".repeat(500)] {
            if let Ok(tokens) = tokenizer.encode(text) {
                assert!(tokens.count() <= 16);
                assert!(tokens.named().is_err() || tokens.ids.len() == tokens.attention_mask.len());
            }
        }
    });
}

/// What a stranger sends to any endpoint but `embeddings`.
#[test]
fn a_safetensors_row_fits_the_model_or_is_refused() {
    let hidden = Tensor::from_f32(vec![2, 4], &[0.5; 8]).unwrap();
    let row = vec![hidden, Tensor::from_i64(vec![2], &[1, 1]).unwrap()];
    let target = Target {
        name: "safetensors",
        samples: vec![encode_tensors(&row, &specs()).unwrap()],
        memory: 64 * MIB,
    };
    target.attack(|bytes| match decode_tensors(bytes, &specs(), 16) {
        Ok(row) => {
            row::check(&row, &specs(), 16).unwrap();
            let again = encode_tensors(&row, &specs()).unwrap();
            assert_eq!(decode_tensors(&again, &specs(), 16).unwrap(), row);
        }
        Err(error) => assert!(error.to_string().len() < 2_000),
    });
}
