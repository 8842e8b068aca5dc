//! A model of three stages that needs no library: a row of tokens becomes four numbers.
//!
//! Stage 0 turns tokens into positions of four numbers, stage 1 changes them, stage 2 adds them up where the mask is 1. Its graphs
//! are valid ONNX with the right inputs and outputs and no nodes; what they compute is written in their name.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::{
        atomic::{AtomicUsize, Ordering},
        Arc, Condvar, Mutex,
    },
    time::Duration,
};

use partition::{
    row, run_stage, Batching, BlobRef, Bundle, Calibration, DType, Dim, Loaded, Manifest, Row, Runtime, RuntimeError,
    Sha256Hex, Stage, Tensor, TensorSpec, FORMAT,
};
use schema::Digest;

pub(crate) const CLASS: &str = "tiny-1/cpu";
/// The token on which stage 1 fails.
pub(crate) const BAD_WORD: &str = "bad";
/// The token on which stage 1 panics.
pub(crate) const PANIC_WORD: &str = "panic";
const WORDS: [&str; 8] = ["[UNK]", "a", "b", "c", "hello", "world", BAD_WORD, PANIC_WORD];
const WIDTH: usize = 4;
pub(crate) const MAX_POSITIONS: u64 = 16;

/// What a test may do to a running engine, and see of it.
#[derive(Debug, Default)]
pub(crate) struct Controls {
    held: Mutex<bool>,
    released: Condvar,
    /// Runs that find no memory on the device.
    starved: AtomicUsize,
    batches: Mutex<Vec<usize>>,
}

impl Controls {
    /// Lets no batch through until `release`.
    pub(crate) fn hold(&self) {
        *self.held.lock().unwrap() = true;
    }

    pub(crate) fn release(&self) {
        *self.held.lock().unwrap() = false;
        self.released.notify_all();
    }

    /// So many runs from now on find no memory on the device.
    pub(crate) fn starve(&self, runs: usize) {
        self.starved.store(runs, Ordering::SeqCst);
    }

    /// Rows of every batch so far.
    pub(crate) fn batches(&self) -> Vec<usize> {
        self.batches.lock().unwrap().clone()
    }

    fn enter(&self, rows: usize) {
        self.batches.lock().unwrap().push(rows);
        let held = self.held.lock().unwrap();
        let limit = Duration::from_secs(30);
        drop(self.released.wait_timeout_while(held, limit, |held| *held).unwrap());
    }
}

/// Runs the graphs of this file.
#[derive(Debug)]
pub(crate) struct TinyRuntime {
    pub(crate) class: String,
    pub(crate) controls: Arc<Controls>,
    /// Added to every result: a machine that computes something else.
    pub(crate) error: f32,
}

impl Default for TinyRuntime {
    fn default() -> Self {
        Self {
            class: CLASS.to_owned(),
            controls: Arc::default(),
            error: 0.0,
        }
    }
}

#[derive(Debug)]
struct TinyGraph {
    stage: usize,
    controls: Arc<Controls>,
    error: f32,
}

impl Runtime for TinyRuntime {
    fn engine_class(&self) -> String {
        self.class.clone()
    }

    fn load(&self, graph: &Path) -> Result<Box<dyn Loaded>, RuntimeError> {
        let bytes = fs::read(graph).map_err(|error| RuntimeError::Load {
            graph: graph.to_owned(),
            source: error.into(),
        })?;
        let named = |stage: &usize| {
            bytes
                .windows(6)
                .any(|window| window == format!("tiny-{stage}").as_bytes())
        };
        let stage = (0..3).find(named).unwrap();
        Ok(Box::new(TinyGraph {
            stage,
            controls: Arc::clone(&self.controls),
            error: self.error,
        }))
    }
}

fn i64s(tensor: &Tensor) -> Vec<i64> {
    let eight = |bytes: &[u8]| i64::from_le_bytes(bytes.try_into().unwrap());
    tensor.data.chunks_exact(8).map(eight).collect()
}

impl Loaded for TinyGraph {
    fn run(&mut self, inputs: Vec<(String, Tensor)>) -> Result<Vec<(String, Tensor)>, RuntimeError> {
        let input = |name: &str| {
            inputs
                .iter()
                .find(|(found, _)| found == name)
                .map(|(_, tensor)| tensor)
                .unwrap()
        };
        let (rows, positions) = (inputs[0].1.shape[0], inputs[0].1.shape[1]);
        self.controls.enter(rows as usize);
        let starved = &self.controls.starved;
        let fewer = |runs: usize| runs.checked_sub(1);
        if starved.fetch_update(Ordering::SeqCst, Ordering::SeqCst, fewer).is_ok() {
            let reason = "Failed to allocate memory for requested buffer of size 4294967296".to_owned();
            return Err(RuntimeError::OutOfMemory { reason });
        }
        let spread = |value: f32| (0..WIDTH).map(move |lane| value * 0.37 + lane as f32);
        let (name, shape, values): (&str, Vec<u64>, Vec<f32>) = match self.stage {
            0 => {
                let ids = i64s(input("input_ids"));
                let values = ids.into_iter().flat_map(|id| spread(id as f32)).collect();
                ("first", vec![rows, positions, WIDTH as u64], values)
            }
            1 => {
                let values = input("first").to_f32().unwrap();
                let token = |word: &str| WORDS.iter().position(|known| *known == word).unwrap() as f32 * 0.37;
                if values
                    .chunks_exact(WIDTH)
                    .any(|position| position[0] == token(BAD_WORD))
                {
                    let source = "a row is beyond what the graph can do".into();
                    return Err(RuntimeError::Run { source });
                }
                let panics = values
                    .chunks_exact(WIDTH)
                    .any(|position| position[0] == token(PANIC_WORD));
                assert!(!panics, "this graph panics");
                let values = values.into_iter().map(|value| value * 1.5 + 0.25).collect();
                ("second", vec![rows, positions, WIDTH as u64], values)
            }
            _ => {
                let (values, mask) = (input("second").to_f32().unwrap(), i64s(input("attention_mask")));
                let mut sums = vec![0.0; rows as usize * WIDTH];
                for (index, value) in values.into_iter().enumerate() {
                    let position = index / WIDTH;
                    let row = position / positions as usize;
                    sums[row * WIDTH + index % WIDTH] += value * mask[position] as f32;
                }
                ("embedding", vec![rows, WIDTH as u64], sums)
            }
        };
        let values: Vec<f32> = values.into_iter().map(|value| value + self.error).collect();
        Ok(vec![(name.to_owned(), Tensor::from_f32(shape, &values).unwrap())])
    }
}

/// A protobuf field with a length before it.
fn field(number: u8, content: &[u8]) -> Vec<u8> {
    let mut length = content.len();
    let mut bytes = vec![number << 3 | 2];
    while length > 0x7f {
        bytes.push((length & 0x7f) as u8 | 0x80);
        length >>= 7;
    }
    bytes.push(length as u8);
    bytes.extend(content);
    bytes
}

/// An ONNX model with this name, these inputs and these outputs.
pub(crate) fn graph(name: &str, inputs: &[&str], outputs: &[&str]) -> Vec<u8> {
    let mut graph = field(2, name.as_bytes());
    for input in inputs {
        graph.extend(field(11, &field(1, input.as_bytes())));
    }
    for output in outputs {
        graph.extend(field(12, &field(1, output.as_bytes())));
    }
    field(7, &graph)
}

fn positions() -> Dim {
    Dim::Positions("sequence".to_owned())
}

fn spec(name: &str, dtype: DType, rest: Vec<Dim>) -> TensorSpec {
    let shape = std::iter::once(Dim::Batch).chain(rest).collect();
    TensorSpec::new(name, dtype, shape)
}

/// The bundle of the model.
pub(crate) struct Tiny {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) manifest: Manifest,
}

impl Tiny {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("blobs")).unwrap();
        let blob = |content: &[u8]| {
            let sha256 = Sha256Hex::of(content);
            fs::write(folder.path().join("blobs").join(sha256.as_str()), content).unwrap();
            BlobRef {
                sha256,
                bytes: content.len() as u64,
            }
        };
        let hidden = |name: &str| spec(name, DType::Float32, vec![positions(), Dim::Fixed(WIDTH as u64)]);
        let ids = spec("input_ids", DType::Int64, vec![positions()]);
        let mask = spec("attention_mask", DType::Int64, vec![positions()]);
        let embedding = spec("embedding", DType::Float32, vec![Dim::Fixed(WIDTH as u64)]);
        let borders = [
            vec![ids, mask.clone()],
            vec![hidden("first"), mask.clone()],
            vec![hidden("second"), mask],
            vec![embedding],
        ];
        let feeds: [&[&str]; 3] = [&["input_ids"], &["first"], &["second", "attention_mask"]];
        let makes = ["first", "second", "embedding"];
        let stages: Vec<Stage> = (0..3)
            .map(|stage| {
                let graph = blob(&graph(&format!("tiny-{stage}"), feeds[stage], &[makes[stage]]));
                let weights = vec![blob(format!("weights of stage {stage}").as_bytes())];
                Stage {
                    digest: Stage::digest_of(&graph, &weights),
                    weight_bytes: weights[0].bytes,
                    graph,
                    weights,
                    receives: borders[stage].clone(),
                    sends: borders[stage + 1].clone(),
                    feeds: feeds[stage].iter().map(|name| (*name).to_owned()).collect(),
                    first_node: stage as u32,
                    compute_share_bps: if stage == 0 { 3334 } else { 3333 },
                }
            })
            .collect();
        let (calibration, tokenizer) = (calibrate(&stages, &blob), blob(tokenizer().as_bytes()));
        let manifest = Manifest {
            format: FORMAT,
            task: "embeddings".to_owned(),
            max_positions: MAX_POSITIONS,
            pooling: None,
            normalize: false,
            inputs: borders[0].clone(),
            outputs: borders[3].clone(),
            stages,
            tokenizer: Some(tokenizer),
            config: None,
            batching: Batching::Padded,
            tolerance_ppb: 1000,
            calibration,
        };
        manifest.validate().unwrap();
        fs::write(folder.path().join("manifest.json"), manifest.to_bytes()).unwrap();
        Bundle::open(folder.path()).unwrap();
        Self { folder, manifest }
    }

    pub(crate) fn digest(&self) -> Digest {
        Digest(self.manifest.digest().to_bytes())
    }

    pub(crate) fn stage_digests(&self) -> Vec<Digest> {
        self.manifest
            .stages
            .iter()
            .map(|stage| Digest(stage.digest.to_bytes()))
            .collect()
    }

    pub(crate) fn weight(&self, stage: usize) -> Digest {
        Digest(self.manifest.stages[stage].weights[0].sha256.to_bytes())
    }

    pub(crate) fn blob_in(&self, folder: &Path, digest: Digest) -> PathBuf {
        folder.join("blobs").join(digest.to_string())
    }

    /// Canonical bytes of what stages `0..=last` make of texts, one row at a time.
    pub(crate) fn expected(&self, texts: &[&str], last: usize) -> Vec<Vec<u8>> {
        let runtime = TinyRuntime::default();
        let rows = texts.iter().map(|text| {
            let mut row = words(text);
            for stage in &self.manifest.stages[..=last] {
                row = run_one(&runtime, stage, row);
            }
            row::encode(&row).unwrap()
        });
        rows.collect()
    }
}

fn words(text: &str) -> Row {
    let id = |word: &str| WORDS.iter().position(|known| *known == word).unwrap_or(0) as i64;
    let ids: Vec<i64> = text.split_whitespace().map(id).take(MAX_POSITIONS as usize).collect();
    let length = vec![ids.len() as u64];
    let mask = vec![1; ids.len()];
    vec![
        Tensor::from_i64(length.clone(), &ids).unwrap(),
        Tensor::from_i64(length, &mask).unwrap(),
    ]
}

fn run_one(runtime: &TinyRuntime, stage: &Stage, row: Row) -> Row {
    let index = stage.first_node as usize;
    let mut loaded = TinyGraph {
        stage: index,
        controls: Arc::clone(&runtime.controls),
        error: runtime.error,
    };
    run_stage(stage, &mut loaded, &[row], MAX_POSITIONS).unwrap().remove(0)
}

fn calibrate(stages: &[Stage], blob: &dyn Fn(&[u8]) -> BlobRef) -> Calibration {
    let runtime = TinyRuntime::default();
    let mut rows: Vec<Row> = ["hello world", "a b c a b"].map(words).to_vec();
    let border = |rows: &[Row]| {
        let mut bytes = Vec::new();
        for row in rows {
            let row = row::encode(row).unwrap();
            bytes.extend((row.len() as u32).to_be_bytes());
            bytes.extend(row);
        }
        blob(&bytes)
    };
    let mut borders = vec![border(&rows)];
    let mut expected = Vec::new();
    for stage in stages {
        rows = rows.into_iter().map(|row| run_one(&runtime, stage, row)).collect();
        borders.push(border(&rows));
        expected.push(
            rows.iter()
                .map(|row| Sha256Hex::of(&row::encode(row).unwrap()))
                .collect(),
        );
    }
    Calibration {
        rows: 2,
        borders,
        expected: BTreeMap::from([(CLASS.to_owned(), expected)]),
    }
}

fn tokenizer() -> String {
    let vocabulary: serde_json::Map<String, serde_json::Value> = WORDS
        .iter()
        .enumerate()
        .map(|(id, word)| ((*word).to_owned(), id.into()))
        .collect();
    serde_json::json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
        "pre_tokenizer": { "type": "WhitespaceSplit" }, "post_processor": null, "decoder": null,
        "model": { "type": "WordLevel", "vocab": vocabulary, "unk_token": "[UNK]" },
    })
    .to_string()
}
