//! Models that are not what they say: each lie is found before the first paid row, and named in the status.

use std::{fs, path::Path, sync::Arc};

use inference_host::chain::ModelVersion;
use partition::{BlobRef, Dim, Loaded, Manifest, Runtime, RuntimeError, Sha256Hex, Stage};
use reqwest::StatusCode;
use schema::Digest;

use crate::{
    kit::{item, Market, Provider},
    tiny::{TinyRuntime, CLASS},
};

/// Why a provider of all three stages does not serve.
async fn refusal(host: &mut Provider) -> String {
    host.start_unready().await;
    let refused = async |host: &Provider| host.status().await["deployments"][0]["state"] == "refused";
    host.eventually("refusal", refused).await;
    let (code, body) = host.get("/ready").await;
    assert_eq!(code, StatusCode::SERVICE_UNAVAILABLE);
    let reason = host.status().await["deployments"][0]["reason"]
        .as_str()
        .unwrap()
        .to_owned();
    assert!(body.contains(&reason), "{body}");
    reason
}

/// Publishes the manifest as somebody would who means it: with every digest that follows from it.
fn publish(market: &Market, manifest: &Manifest) {
    let bytes = manifest.to_bytes();
    fs::write(market.tiny.folder.path().join("manifest.json"), &bytes).unwrap();
    let version = ModelVersion {
        manifest: Digest::of(&bytes),
        stages: manifest
            .stages
            .iter()
            .map(|stage| Digest(stage.digest.to_bytes()))
            .collect(),
    };
    market
        .chain
        .0
        .lock()
        .unwrap()
        .versions
        .insert("demo/tiny".to_owned(), version);
}

fn redigest(stage: &mut Stage) {
    stage.digest = Stage::digest_of(&stage.graph, &stage.weights);
}

fn blob(folder: &Path, content: &[u8]) -> BlobRef {
    let sha256 = Sha256Hex::of(content);
    fs::write(folder.join("blobs").join(sha256.as_str()), content).unwrap();
    BlobRef {
        sha256,
        bytes: content.len() as u64,
    }
}

/// What is wrong, and what is said about it.
type Lie = (&'static str, fn(&mut Manifest, &Path));

#[tokio::test]
async fn every_lie_of_a_manifest_is_found_and_named() {
    let lies: Vec<Lie> = vec![
        ("stage 1: its digest is ", |manifest, _| {
            manifest.stages[1].digest = Sha256Hex::of(b"another stage");
        }),
        ("compute shares sum to 9999, 10000 expected", |manifest, _| {
            manifest.stages[0].compute_share_bps -= 1;
        }),
        ("the weights have 18 bytes, the manifest says 19", |manifest, _| {
            manifest.stages[2].weight_bytes += 1;
        }),
        ("has 18 bytes, 19 expected", |manifest, _| {
            let stage = &mut manifest.stages[1];
            (stage.weights[0].bytes, stage.weight_bytes) = (19, 19);
            redigest(stage);
        }),
        ("more than 17 bytes", |manifest, _| {
            let stage = &mut manifest.stages[1];
            (stage.weights[0].bytes, stage.weight_bytes) = (17, 17);
            redigest(stage);
        }),
        ("is held by none of the sources", |manifest, _| {
            let stage = &mut manifest.stages[1];
            stage.weights[0].sha256 = Sha256Hex::of(b"weights that nobody has");
            redigest(stage);
        }),
        // Shapes that the graph does not have are found by running it.
        ("self-test", |manifest, _| {
            let narrow = |dims: &mut Vec<Dim>| *dims.last_mut().unwrap() = Dim::Fixed(3);
            narrow(&mut manifest.stages[0].sends[0].shape);
            narrow(&mut manifest.stages[1].receives[0].shape);
        }),
        ("stage 1 does not receive what comes before it", |manifest, _| {
            *manifest.stages[1].receives[0].shape.last_mut().unwrap() = Dim::Fixed(3);
        }),
        ("the graph of stage 2", |manifest, _| {
            manifest.stages[2].feeds.pop();
        }),
        ("is fed to the graph but not received", |manifest, _| {
            manifest.stages[2].feeds.push("pixels".to_owned());
        }),
        ("stage 1 fails its self-test", |manifest, _| {
            manifest.calibration.expected.get_mut(CLASS).unwrap()[1][0] = Sha256Hex::of(b"another row");
        }),
        ("has not one digest per stage and row", |manifest, _| {
            manifest.calibration.expected.get_mut(CLASS).unwrap()[1].pop();
        }),
        ("calibration has 3 borders for 3 stages", |manifest, _| {
            manifest.calibration.borders.pop();
        }),
        ("is not a list of 2 rows", |manifest, folder| {
            manifest.calibration.borders[1] = blob(folder, b"no rows");
        }),
        ("is held by none of the sources", |manifest, _| {
            manifest.tokenizer.as_mut().unwrap().sha256 = Sha256Hex::of(b"another tokenizer");
        }),
        ("tokenizer.json cannot be used", |manifest, folder| {
            manifest.tokenizer = Some(blob(folder, b"{\"version\":\"1.0\"}"));
        }),
        ("is not ONNX", |manifest, folder| {
            let stage = &mut manifest.stages[0];
            stage.graph = blob(folder, b"\xff\xff\xff no protobuf");
            redigest(stage);
        }),
        ("the manifest has format 99", |manifest, _| manifest.format = 99),
    ];
    for (index, (said, lie)) in lies.into_iter().enumerate() {
        let market = Market::new();
        let mut manifest = market.tiny.manifest.clone();
        lie(&mut manifest, market.tiny.folder.path());
        publish(&market, &manifest);
        let mut host = market.provider("whole", 1, 0, 2);
        let reason = refusal(&mut host).await;
        assert!(reason.contains(said), "lie {index}: {reason}");
        market.assign(1, &["hello"], &[(&host, 1, 0, 2)]);
        assert_eq!(host.begin(item(1), 0).await.0, StatusCode::SERVICE_UNAVAILABLE);
    }
}

#[tokio::test]
async fn a_manifest_that_is_not_what_the_chain_names_is_never_read() {
    let market = Market::new();
    let path = market.tiny.folder.path().join("manifest.json");
    let honest = fs::read(&path).unwrap();
    for bytes in [&honest[..honest.len() - 1], b"", b"{}"] {
        fs::write(&path, bytes).unwrap();
        let mut host = market.provider("whole", 1, 0, 2);
        let reason = refusal(&mut host).await;
        assert!(reason.contains(&market.tiny.digest().to_string()), "{reason}");
        market.chain.0.lock().unwrap().deployments.clear();
    }
    // One that the chain names and that is no manifest is told from one that is spelt differently.
    let spaced = [b" ".as_slice(), &honest].concat();
    let endless = vec![b' '; 17 << 20];
    let cases: [(&[u8], &str); 3] = [
        (b"{}", "the manifest is not valid JSON of this format"),
        (&spaced, "not in canonical form"),
        (&endless, "is held by none of the sources"),
    ];
    for (bytes, said) in cases {
        fs::write(&path, bytes).unwrap();
        let manifest = Digest::of(bytes);
        let stages = market.tiny.stage_digests();
        let version = ModelVersion { manifest, stages };
        market
            .chain
            .0
            .lock()
            .unwrap()
            .versions
            .insert("demo/tiny".to_owned(), version);
        let mut host = market.provider("whole", 1, 0, 2);
        let reason = refusal(&mut host).await;
        assert!(reason.contains(said), "{reason}");
        market.chain.0.lock().unwrap().deployments.clear();
    }
}

#[tokio::test]
async fn other_stages_than_the_chain_names_are_refused_with_both_digests() {
    let market = Market::new();
    let other = Digest([9; 32]);
    market
        .chain
        .0
        .lock()
        .unwrap()
        .versions
        .get_mut("demo/tiny")
        .unwrap()
        .stages[2] = other;
    let mut host = market.provider("whole", 1, 0, 2);
    let reason = refusal(&mut host).await;
    let ours = market.tiny.stage_digests()[2];
    assert!(
        reason.contains(&other.to_string()) && reason.contains(&ours.to_string()),
        "{reason}"
    );
}

/// A runtime that does not do what it should.
#[derive(Debug)]
struct Broken {
    panics: bool,
}

impl Runtime for Broken {
    fn engine_class(&self) -> String {
        CLASS.to_owned()
    }

    fn load(&self, graph: &Path) -> Result<Box<dyn Loaded>, RuntimeError> {
        assert!(!self.panics, "a runtime that panics");
        Err(RuntimeError::Load {
            graph: graph.to_owned(),
            source: "Unknown operator Frobnicate".into(),
        })
    }
}

#[tokio::test]
async fn a_graph_that_does_not_load_panics_or_gives_no_numbers_is_refused_with_the_reason() {
    let nan = |class: &str| -> Arc<dyn Runtime> {
        Arc::new(TinyRuntime {
            class: class.to_owned(),
            error: f32::NAN,
            ..TinyRuntime::default()
        })
    };
    let cases: [(Arc<dyn Runtime>, &str, &str); 4] = [
        (Arc::new(Broken { panics: false }), CLASS, "Unknown operator Frobnicate"),
        (
            Arc::new(Broken { panics: true }),
            CLASS,
            "stage 0: the runtime panicked",
        ),
        (nan(CLASS), CLASS, "stage 0 fails its self-test"),
        // A class that nobody has seen yet is judged by its distance from the reference, and this is infinitely far away.
        (
            nan("tiny-2/cpu"),
            "tiny-2/cpu",
            "18446744073709551615 parts per billion",
        ),
    ];
    for (runtime, class, said) in cases {
        let market = Market::new();
        let source = inference_host::Source::Folder(market.tiny.folder.path().into());
        let mut host = Provider::new("host", Arc::clone(&market.chain), source);
        host.deploy("demo/tiny", class, 1, 0, 2);
        host.runtime = runtime;
        let reason = refusal(&mut host).await;
        assert!(reason.contains(said), "{reason}");
        assert_eq!(
            host.get("/health").await.0,
            StatusCode::OK,
            "it may be mended without a restart"
        );
    }
}
