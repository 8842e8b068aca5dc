//! Models that take tensors instead of texts: of several inputs and element types on a runtime of this file's own, and a real one.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use inference_host::{
    chain::{Assignment, ModelVersion},
    decode_rows,
    request::{decode_tensors, encode_tensors},
    Source,
};
use partition::{
    row, run_stage, split, Batching, BlobRef, Bundle, Calibration, DType, Dim, Loaded, Manifest, Row, Runtime,
    RuntimeError, Sha256Hex, SplitOptions, Stage, Stages, Tensor, TensorSpec, FORMAT,
};
use schema::{merkle, work::WorkState, Digest};

use crate::{
    kit::{fetch_output, item, now, Market, Provider},
    partition_proof::{project, runtime},
    tiny::{graph, CLASS},
};

const MODEL: &str = "demo/counter";
const MAX_POSITIONS: u64 = 16;
/// How far fp32 on ONNX Runtime may be from the reference implementation. Measured: 4e-7.
const TOLERANCE: f32 = 1e-5;

fn spec(name: &str, dtype: DType, rest: &[Dim]) -> TensorSpec {
    TensorSpec::new(name, dtype, [&[Dim::Batch], rest].concat())
}

/// Columns of bytes, a boolean for each column, and a factor: three element types, two ranks and a scalar.
fn inputs() -> Vec<TensorSpec> {
    let columns = || Dim::Positions("columns".to_owned());
    vec![
        spec("image", DType::Uint8, &[Dim::Fixed(2), columns()]),
        spec("mask", DType::Bool, &[columns()]),
        spec("factor", DType::Float32, &[]),
    ]
}

fn request(columns: &[[u8; 2]], mask: &[u8], factor: f32) -> Row {
    let length = columns.len() as u64;
    let bytes = [0, 1].map(|line| columns.iter().map(move |column| column[line]));
    vec![
        Tensor::new(DType::Uint8, vec![2, length], bytes.into_iter().flatten().collect()).unwrap(),
        Tensor::new(DType::Bool, vec![length], mask.to_vec()).unwrap(),
        Tensor::from_f32(vec![], &[factor]).unwrap(),
    ]
}

fn blob_of(row: &Row) -> Vec<u8> {
    encode_tensors(row, &inputs()).unwrap()
}

/// Adds up the bytes of the columns that count, and multiplies.
fn answer(row: &Row) -> Row {
    let columns = row[1].data.len();
    let counted = (0..columns).filter(|column| row[1].data[*column] == 1);
    let sum: f32 = counted
        .map(|column| f32::from(row[0].data[column]) + f32::from(row[0].data[columns + column]))
        .sum();
    vec![Tensor::from_f32(vec![1], &[sum * row[2].to_f32().unwrap()[0]]).unwrap()]
}

struct Counter;

impl Runtime for Counter {
    fn engine_class(&self) -> String {
        CLASS.to_owned()
    }

    fn load(&self, _: &Path) -> Result<Box<dyn Loaded>, RuntimeError> {
        Ok(Box::new(Counter))
    }
}

impl Loaded for Counter {
    fn run(&mut self, named: Vec<(String, Tensor)>) -> Result<Vec<(String, Tensor)>, RuntimeError> {
        let tensors: BTreeMap<String, Tensor> = named.into_iter().collect();
        let rows = tensors["factor"].shape[0] as usize;
        let part = |name: &str, index: usize| {
            let tensor = &tensors[name];
            let bytes = tensor.data.len() / rows;
            Tensor {
                dtype: tensor.dtype,
                shape: tensor.shape[1..].to_vec(),
                data: tensor.data[index * bytes..][..bytes].to_vec(),
            }
        };
        let sums = (0..rows).map(|index| answer(&["image", "mask", "factor"].map(|name| part(name, index)).to_vec()));
        let sums: Vec<f32> = sums.map(|row| row[0].to_f32().unwrap()[0]).collect();
        let sums = Tensor::from_f32(vec![rows as u64, 1], &sums).unwrap();
        Ok(vec![("sum".to_owned(), sums)])
    }
}

/// A bundle of one stage and without a tokenizer.
fn counter(folder: &Path) -> Manifest {
    fs::create_dir(folder.join("blobs")).unwrap();
    let blob = |content: &[u8]| {
        let sha256 = Sha256Hex::of(content);
        fs::write(folder.join("blobs").join(sha256.as_str()), content).unwrap();
        BlobRef {
            sha256,
            bytes: content.len() as u64,
        }
    };
    // A graph without a node; what it computes is written above.
    let graph = blob(&graph("counter", &["image", "mask", "factor"], &["sum"]));
    let sum = vec![spec("sum", DType::Float32, &[Dim::Fixed(1)])];
    let sample = request(&[[1, 2], [3, 4]], &[1, 0], 0.5);
    let expected = row::encode(&answer(&sample)).unwrap();
    let border = |bytes: &[u8]| blob(&[&(bytes.len() as u32).to_be_bytes()[..], bytes].concat());
    let stage = Stage {
        digest: Stage::digest_of(&graph, &[]),
        graph,
        weights: vec![],
        receives: inputs(),
        sends: sum.clone(),
        feeds: inputs().into_iter().map(|input| input.name).collect(),
        first_node: 0,
        weight_bytes: 0,
        compute_share_bps: 10_000,
    };
    let manifest = Manifest {
        format: FORMAT,
        task: "other".to_owned(),
        max_positions: MAX_POSITIONS,
        pooling: None,
        normalize: false,
        inputs: inputs(),
        outputs: sum,
        stages: vec![stage],
        tokenizer: None,
        config: None,
        batching: Batching::EqualLengths,
        tolerance_ppb: 1000,
        calibration: Calibration {
            rows: 1,
            borders: vec![border(&row::encode(&sample).unwrap()), border(&expected)],
            expected: BTreeMap::from([(CLASS.to_owned(), vec![vec![Sha256Hex::of(&expected)]])]),
        },
    };
    manifest.validate().unwrap();
    fs::write(folder.join("manifest.json"), manifest.to_bytes()).unwrap();
    manifest
}

fn version(manifest: &Manifest) -> ModelVersion {
    ModelVersion {
        manifest: Digest(manifest.digest().to_bytes()),
        stages: manifest
            .stages
            .iter()
            .map(|stage| Digest(stage.digest.to_bytes()))
            .collect(),
    }
}

/// One provider that serves all stages of a model.
async fn provider(
    market: &Market,
    model: &str,
    manifest: &Manifest,
    folder: &Path,
    engine: Arc<dyn Runtime>,
) -> Provider {
    let last = manifest.stages.len() as u8 - 1;
    let facts = Arc::clone(&market.chain);
    facts
        .0
        .lock()
        .unwrap()
        .versions
        .insert(model.to_owned(), version(manifest));
    let mut provider = Provider::new("provider", Arc::clone(&market.chain), Source::Folder(folder.to_owned()));
    provider.deploy(model, &engine.engine_class(), 1, 0, last);
    provider.runtime = engine;
    provider.start().await;
    provider
}

/// Assigns rows of any kind to a provider.
fn assign(
    market: &Market,
    job: u64,
    endpoint: &str,
    rows: Vec<Vec<u8>>,
    manifest: &Manifest,
    to: &Provider,
) -> Assignment {
    let last = manifest.stages.len() as u8 - 1;
    let mut assignment = market.assign(job, &[], &[(to, 1, 0, last)]);
    assignment.endpoint = endpoint.to_owned();
    assignment.manifest = Digest(manifest.digest().to_bytes());
    assignment.rows = rows.len() as u32;
    assignment.root = merkle::root(&rows);
    let mut facts = market.chain.0.lock().unwrap();
    facts.inputs.insert((job, 0), rows);
    facts.assignments.insert(item(job).key(), assignment.clone());
    assignment
}

/// The rows that a job came to, and the units of the receipt.
async fn outcome(market: &Market, provider: &Provider, assignment: &Assignment) -> (Vec<Vec<u8>>, u64) {
    let done = provider.done(assignment.item).await;
    assert!(done.complete);
    let receipt = &done.links[0].receipt.receipt;
    let digest = receipt.output_digest;
    let (_, body) = fetch_output(provider, assignment, digest, &market.developer, now() + 60).await;
    let rows = decode_rows(&body).unwrap();
    assert_eq!(merkle::root(&rows), digest);
    (rows, receipt.units_in)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_model_without_tokenizer_serves_tensors_and_counts_their_longest_axis() {
    let (market, folder) = (Market::new(), tempfile::tempdir().unwrap());
    let manifest = counter(folder.path());
    let host = provider(&market, MODEL, &manifest, folder.path(), Arc::new(Counter)).await;
    let requests = [
        request(&[[1, 2], [3, 4], [5, 6]], &[1, 0, 1], 2.0),
        request(&[[200, 255]], &[1], -1.0),
        request(&[[9, 9], [8, 8], [7, 7]], &[0, 0, 0], 3.0),
    ];
    let rows = requests.iter().map(blob_of).collect();
    let assignment = assign(&market, 1, "count", rows, &manifest, &host);
    host.begin_surely(item(1)).await;
    let (rows, units) = outcome(&market, &host, &assignment).await;
    let expected: Vec<_> = requests
        .iter()
        .map(|request| row::encode(&answer(request)).unwrap())
        .collect();
    assert_eq!((rows, units), (expected, 3 + 1 + 3));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn numbers_that_are_not_finite_are_refused_coming_in_and_signed_as_they_are_going_out() {
    let (market, folder) = (Market::new(), tempfile::tempdir().unwrap());
    let manifest = counter(folder.path());
    let host = provider(&market, MODEL, &manifest, folder.path(), Arc::new(Counter)).await;
    let with = |factor: f32| blob_of(&request(&[[200, 200], [1, 1]], &[1, 1], factor));
    for (job, factor, value) in [(1, f32::NAN, "NaN"), (2, f32::NEG_INFINITY, "-infinity")] {
        assign(&market, job, "count", vec![with(1.0), with(factor)], &manifest, &host);
        host.begin_surely(item(job)).await;
        let failed = host.ended(item(job)).await;
        let reason = failed.error.unwrap();
        let expected = format!("row 1 is not what the stage receives: tensor factor is {value} at index 0");
        assert!(reason.starts_with(&expected), "{reason}");
    }
    assert_eq!(host.metric("rows_not_finite_total").await, 0);
    // Finite numbers that a graph turns into something else are its answer, and the developer gets it.
    let assignment = assign(&market, 3, "count", vec![with(f32::MAX), with(2.0)], &manifest, &host);
    host.begin_surely(item(3)).await;
    let (rows, _) = outcome(&market, &host, &assignment).await;
    let sum = |sum: f32| row::encode(&[Tensor::from_f32(vec![1], &[sum]).unwrap()]).unwrap();
    assert_eq!(rows, [sum(f32::INFINITY), sum(804.0)]);
    assert_eq!(host.metric("rows_not_finite_total").await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_endpoint_does_not_take_fails_with_its_reason_and_the_host_goes_on() {
    let (market, folder) = (Market::new(), tempfile::tempdir().unwrap());
    let manifest = counter(folder.path());
    let host = provider(&market, MODEL, &manifest, folder.path(), Arc::new(Counter)).await;
    let good = blob_of(&request(&[[1, 2]], &[1], 2.0));
    let mut torn = good.clone();
    torn.truncate(good.len() - 1);
    let long = blob_of(&request(&[[0, 0]; 17], &[1; 17], 1.0));
    let cases = [
        (
            "count",
            b"hello world".to_vec(),
            "row 1 is not what the stage receives: it is not safetensors: its first 8 bytes",
        ),
        ("count", torn, "it is not safetensors"),
        ("count", long, "17 positions, 1 to 16 are allowed"),
        (
            "embeddings",
            good.clone(),
            "row 0 is not what the stage receives: the model has no tokenizer",
        ),
        ("chat", good.clone(), "endpoint chat is reserved"),
    ];
    for (job, (endpoint, bad, reason)) in (1..).zip(cases) {
        assign(&market, job, endpoint, vec![good.clone(), bad], &manifest, &host);
        host.begin_surely(item(job)).await;
        let failed = host.ended(item(job)).await;
        assert_eq!(failed.state, WorkState::Failed, "{endpoint}");
        let said = failed.error.unwrap();
        assert!(said.contains(reason), "{said}");
    }
    let assignment = assign(&market, 9, "count", vec![good], &manifest, &host);
    host.begin_surely(item(9)).await;
    assert_eq!(outcome(&market, &host, &assignment).await.1, 1);
}

/// The trained model of `scripts/models.sh`, its pages, and which way each of them is turned.
struct Pages {
    folder: tempfile::TempDir,
    rows: Vec<Vec<u8>>,
}

impl Pages {
    fn new() -> Self {
        let at = |turned: &str| project().join(format!("tests/fixtures/pages/page-{turned}.safetensors"));
        Self {
            folder: tempfile::tempdir().unwrap(),
            rows: ["000", "090", "180", "270"]
                .map(|turned| fs::read(at(turned)).unwrap())
                .to_vec(),
        }
    }

    fn split(&self, stages: usize) -> Bundle {
        let source = project().join(".runtime/models/page-rotation");
        assert!(source.join("model.onnx").is_file(), "run scripts/models.sh first");
        let page = [spec("page", DType::Uint8, &[Dim::Fixed(80), Dim::Fixed(80)])];
        let sample = |bytes: &Vec<u8>| {
            let row = decode_tensors(bytes, &page, 1).unwrap();
            vec![("page".to_owned(), row[0].clone())]
        };
        let samples: Vec<_> = self.rows.iter().map(sample).collect();
        let target = self.folder.path().join(stages.to_string());
        let options = SplitOptions::plain(Stages::Count(stages));
        split(&source, &target, &options, &runtime(), &samples).unwrap()
    }

    /// What the unsplit graph answers to every page alone.
    fn whole(&self) -> Vec<Vec<u8>> {
        let bundle = self.split(1);
        let stage = bundle.stage(0).unwrap();
        let mut loaded = runtime().load(&bundle.verify_stage(0).unwrap()).unwrap();
        let run = |bytes: &Vec<u8>| {
            let row = decode_tensors(bytes, &bundle.manifest().inputs, 1).unwrap();
            let rows = run_stage(stage, loaded.as_mut(), &[row], 1).unwrap();
            row::encode(&rows[0]).unwrap()
        };
        self.rows.iter().map(run).collect()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_vision_model_tells_how_pages_are_turned_with_the_bits_of_the_unsplit_graph() {
    let (pages, market) = (Pages::new(), Market::new());
    let (whole, bundle) = (pages.whole(), pages.split(3));
    let manifest = bundle.manifest();
    let folder = pages.folder.path().join("3");
    let host = provider(&market, "demo/page-rotation", manifest, &folder, Arc::new(runtime())).await;
    let assignment = assign(&market, 1, "classify", pages.rows.clone(), manifest, &host);
    host.begin_surely(item(1)).await;
    let (rows, units) = outcome(&market, &host, &assignment).await;
    assert_eq!(units, 4, "a row of fixed size counts one");
    assert!(rows == whole, "other bits than the unsplit graph");
    // By ONNX's own reference implementation (scripts/vision_reference.py).
    let reference = fs::read(project().join("tests/fixtures/pages/scores.json")).unwrap();
    let reference: Vec<Vec<f32>> = serde_json::from_slice(&reference).unwrap();
    for ((turned, bytes), reference) in rows.iter().enumerate().zip(reference) {
        let row = row::decode(bytes, &manifest.outputs, 1).unwrap();
        let scores = row[0].to_f32().unwrap();
        assert!(scores[turned] > 0.9, "page {turned}: {scores:?}");
        let far = |(found, expected): (&f32, &f32)| (found - expected).abs() > TOLERANCE;
        assert!(
            !scores.iter().zip(&reference).any(far),
            "page {turned}: {scores:?}, {reference:?}"
        );
    }
}

/// A model of ONNX's backend tests as it comes with the package: for one image of full size at a time.
fn light_model() -> PathBuf {
    let places = fs::read_dir(project().join(".runtime/venv/lib")).unwrap();
    let file = |place: fs::DirEntry| {
        place
            .path()
            .join("site-packages/onnx/backend/test/data/light/light_squeezenet.onnx")
    };
    let mut found = places.map(|place| file(place.unwrap())).filter(|path| path.is_file());
    found.next().expect("run scripts/models.sh first")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_light_model_as_it_is_answers_an_image_of_full_size() {
    let (market, folder) = (Market::new(), tempfile::tempdir().unwrap());
    fs::copy(light_model(), folder.path().join("light_squeezenet.onnx")).unwrap();
    let image = |seed: usize| {
        let value = |at: usize| ((at * (seed + 3)) % 255) as f32 / 255.0 - 0.5;
        Tensor::from_f32(vec![3, 224, 224], &(0..3 * 224 * 224).map(value).collect::<Vec<_>>()).unwrap()
    };
    let samples = [0, 1].map(|seed| vec![("data_0".to_owned(), image(seed))]);
    let cut = |stages: usize| {
        let (target, options) = (
            folder.path().join(stages.to_string()),
            SplitOptions::plain(Stages::Count(stages)),
        );
        split(folder.path(), &target, &options, &runtime(), &samples).unwrap()
    };
    let (whole, bundle) = (cut(1), cut(2));
    let manifest = bundle.manifest();
    let row = vec![image(2)];
    let sent = encode_tensors(&row, &manifest.inputs).unwrap();
    assert!(sent.len() > 3 * 224 * 224 * 4, "far beyond what rides in a job today");
    let mut loaded = runtime().load(&whole.verify_stage(0).unwrap()).unwrap();
    let expected = run_stage(whole.stage(0).unwrap(), loaded.as_mut(), &[row], 1).unwrap();

    let host = provider(
        &market,
        "demo/light",
        manifest,
        &folder.path().join("2"),
        Arc::new(runtime()),
    )
    .await;
    let assignment = assign(&market, 1, "classify", vec![sent], manifest, &host);
    host.begin_surely(item(1)).await;
    let (rows, units) = outcome(&market, &host, &assignment).await;
    assert_eq!((rows, units), (vec![row::encode(&expected[0]).unwrap()], 1));
}
