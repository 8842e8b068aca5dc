//! Files and manifests made to do harm.

use std::{
    fs,
    path::{Path, PathBuf},
};

use proptest::prelude::*;
use prost::Message;

use super::{
    interpreter::{Interpreter, Quirk},
    models::{encoder, export, graph, options, samples},
};
use crate::{
    graph::Graph,
    inspect,
    proto::{tensor_proto::DataLocation, ModelProto, StringStringEntryProto, TensorProto},
    split, Bundle, BundleError, Manifest, ManifestError, Sha256Hex, SplitError, Stage,
};

/// Makes an initialiser point into a file.
pub(super) fn externalise(tensor: &mut TensorProto, location: &str, offset: u64, length: Option<u64>) {
    let entry = |key: &str, value: String| StringStringEntryProto {
        key: Some(key.to_owned()),
        value: Some(value),
    };
    tensor.raw_data = None;
    tensor.data_location = Some(DataLocation::External as i32);
    tensor.external_data = vec![
        entry("location", location.to_owned()),
        entry("offset", offset.to_string()),
    ];
    tensor
        .external_data
        .extend(length.map(|length| entry("length", length.to_string())));
}

fn bundle() -> (tempfile::TempDir, Bundle) {
    let folder = tempfile::tempdir().unwrap();
    export(&encoder(), &folder.path().join("export"));
    let target = folder.path().join("bundle");
    let bundle = split(
        &folder.path().join("export"),
        &target,
        &options(2),
        &Interpreter(Quirk::None),
        &samples(),
    );
    (folder, bundle.unwrap())
}

#[test]
fn external_data_outside_the_folder_or_beyond_its_file_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("short.bin"), [0; 100]).unwrap();
    let load = |location: &str, offset, length| {
        let mut model = encoder();
        externalise(&mut graph(&mut model).initializer[0], location, offset, length);
        Graph::new(model, Path::new("model.onnx"), Some(folder.path()))
    };
    for location in [
        "",
        "/etc/passwd",
        "../short.bin",
        "a/../../short.bin",
        "./../x",
        "..\\short.bin",
        "C:x",
        ".",
    ] {
        let refused = load(location, 0, None);
        assert!(
            matches!(refused, Err(SplitError::ExternalLocation { .. })),
            "{location:?}"
        );
    }
    assert!(matches!(
        load("short.bin", 0, None),
        Err(SplitError::ExternalTruncated {
            bytes: 100,
            end: 256,
            ..
        })
    ));
    assert!(matches!(
        load("short.bin", u64::MAX, None),
        Err(SplitError::ExternalTruncated { .. })
    ));
    assert!(matches!(
        load("short.bin", 0, Some(64)),
        Err(SplitError::InitializerSize {
            bytes: 64,
            expected: 256,
            ..
        })
    ));
    assert!(matches!(load("missing.bin", 0, None), Err(SplitError::Read { .. })));
}

#[test]
fn a_folder_without_one_model_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let attempt = || {
        split(
            folder.path(),
            &folder.path().join("x"),
            &options(1),
            &Interpreter(Quirk::None),
            &samples(),
        )
    };
    assert!(matches!(attempt(), Err(SplitError::NoModel { found: 0, .. })));
    fs::write(folder.path().join("a.onnx"), "").unwrap();
    fs::write(folder.path().join("b.onnx"), "").unwrap();
    assert!(matches!(attempt(), Err(SplitError::NoModel { found: 2, .. })));
    // Two GiB on paper; on disk it is a hole.
    fs::File::create(folder.path().join("model.onnx"))
        .unwrap()
        .set_len(1 << 31)
        .unwrap();
    assert!(matches!(attempt(), Err(SplitError::ModelTooLarge { .. })));
}

fn tampered(change: impl Fn(&mut Manifest)) -> BundleError {
    let (_folder, bundle) = bundle();
    let mut manifest = bundle.manifest().clone();
    change(&mut manifest);
    Bundle::with_store(&manifest.to_bytes(), Path::new("nowhere")).unwrap_err()
}

macro_rules! refused {
    ($change:expr, $pattern:pat) => {
        let error = tampered($change);
        assert!(matches!(error, BundleError::Manifest($pattern)), "{error}");
    };
}

#[test]
fn a_manifest_that_contradicts_itself_is_refused() {
    use ManifestError as Error;
    refused!(|manifest| manifest.format = 2, Error::Format { found: 2, expected: 1 });
    refused!(
        |manifest| manifest.max_positions = 0,
        Error::OutOfBounds {
            what: "max_positions",
            ..
        }
    );
    refused!(|manifest| manifest.stages.clear(), Error::OutOfBounds { found: 0, .. });
    refused!(
        |manifest| manifest.stages[1].first_node = 0,
        Error::Overlap {
            stage: 1,
            first_node: 0
        }
    );
    refused!(
        |manifest| manifest.stages[0].first_node = 1,
        Error::Overlap { stage: 0, .. }
    );
    refused!(
        |manifest| manifest.stages[1].compute_share_bps += 1,
        Error::Shares { sum: 10_001 }
    );
    refused!(
        |manifest| manifest.stages[1].compute_share_bps = 0,
        Error::OutOfBounds { .. }
    );
    refused!(
        |manifest| manifest.stages[0].weights.reverse(),
        Error::WeightOrder { stage: 0 }
    );
    refused!(
        |manifest| drop(manifest.stages[0].weights.pop()),
        Error::WeightBytes { stage: 0, .. }
    );
    refused!(
        |manifest| manifest.stages[0].graph.bytes += 1,
        Error::StageDigest { stage: 0, .. }
    );
    refused!(
        |manifest| manifest.stages[0].digest = Sha256Hex::of(b"x"),
        Error::StageDigest { stage: 0, .. }
    );
    refused!(|manifest| manifest.stages.swap(0, 1), Error::Overlap { .. });
    refused!(
        |manifest| drop(manifest.stages[1].receives.pop()),
        Error::UnknownFeed { stage: 1, .. }
    );
    refused!(
        |manifest| manifest.stages[1].receives.reverse(),
        Error::Border { stage: 1 }
    );
    refused!(|manifest| manifest.outputs[0].name.push('x'), Error::Outputs);
    refused!(
        |manifest| manifest.inputs[0].name = "a\nb".to_owned(),
        Error::Tensor { .. }
    );
    refused!(|manifest| manifest.inputs[0].shape.reverse(), Error::Tensor { .. });
    refused!(
        |manifest| drop(manifest.calibration.borders.pop()),
        Error::Borders { found: 2, stages: 2 }
    );
    refused!(
        |manifest| manifest
            .calibration
            .expected
            .values_mut()
            .for_each(|stages| stages[1].clear()),
        Error::Expected { .. }
    );
    refused!(|manifest| manifest.calibration.rows = 0, Error::OutOfBounds { .. });
}

#[test]
fn only_the_canonical_text_of_a_manifest_is_accepted() {
    let (_folder, bundle) = bundle();
    let open = |text: &str| Bundle::with_store(text.as_bytes(), Path::new("nowhere"));
    let text = String::from_utf8(bundle.manifest().to_bytes()).unwrap();
    assert_eq!(open(&text).unwrap().digest(), &bundle.manifest().digest());
    assert!(matches!(open(&format!("{text}\n")), Err(BundleError::NotCanonical)));
    assert!(matches!(
        open(&text.replacen('{', "{\"surprise\":1,", 1)),
        Err(BundleError::Json { .. })
    ));
    let name = bundle.manifest().stages[0].graph.sha256.as_str();
    for other in ["../../etc/passwd", &name.to_uppercase(), &name[1..]] {
        assert!(
            matches!(open(&text.replace(name, other)), Err(BundleError::Json { .. })),
            "{other}"
        );
    }
}

#[test]
fn a_blob_that_is_missing_cut_or_changed_is_refused() {
    let (_folder, bundle) = bundle();
    let weight = bundle.manifest().stages[0].weights[0].clone();
    let path = bundle.blob_path(&weight);
    let bytes = fs::read(&path).unwrap();
    let mut changed = bytes.clone();
    changed[7] ^= 1;
    fs::write(&path, changed).unwrap();
    assert!(matches!(bundle.verify_stage(0), Err(BundleError::Digest { expected, .. }) if expected == weight.sha256));
    fs::write(&path, &bytes[1..]).unwrap();
    assert!(matches!(bundle.verify_stage(0), Err(BundleError::Size { .. })));
    fs::remove_file(&path).unwrap();
    assert!(matches!(bundle.verify_stage(0), Err(BundleError::Missing { .. })));
    assert!(bundle.verify_stage(1).is_ok());
    assert!(matches!(
        bundle.verify_stage(2),
        Err(BundleError::NoStage { stage: 2, stages: 2 })
    ));
}

/// A bundle whose second stage has a graph changed by a publisher who kept all digests right.
fn republished(change: impl Fn(&mut ModelProto)) -> BundleError {
    let (_folder, bundle) = bundle();
    let mut manifest = bundle.manifest().clone();
    let stage = &mut manifest.stages[1];
    let mut model = ModelProto::decode(fs::read(bundle.blob_path(&stage.graph)).unwrap().as_slice()).unwrap();
    change(&mut model);
    let blobs: PathBuf = bundle.blob_path(&stage.graph).parent().unwrap().to_owned();
    stage.graph = crate::emit::write_blob(&blobs, &model.encode_to_vec()).unwrap();
    stage.digest = Stage::digest_of(&stage.graph, &stage.weights);
    Bundle::with_store(&manifest.to_bytes(), &blobs)
        .unwrap()
        .verify_stage(1)
        .unwrap_err()
}

#[test]
fn a_published_graph_that_reaches_for_other_files_is_refused() {
    let first = |model: &mut ModelProto| {
        graph(model)
            .initializer
            .iter()
            .position(|tensor| tensor.data_location() == DataLocation::External)
            .unwrap()
    };
    let reach = |location: &'static str| {
        move |model: &mut ModelProto| {
            let index = first(model);
            externalise(&mut graph(model).initializer[index], location, 0, Some(64));
        }
    };
    for location in ["../../../etc/passwd", "/etc/passwd", "manifest.json"] {
        let error = republished(reach(location));
        let BundleError::Graph { problem, .. } = error else {
            panic!("{location}: {error}")
        };
        assert_eq!(problem, "refers to a file that is none of its weights, for initialiser");
    }
    let partial = |model: &mut ModelProto| {
        let index = first(model);
        let location = graph(model).initializer[index].external_data[0].value().to_owned();
        externalise(&mut graph(model).initializer[index], &location, 4, Some(60));
    };
    assert!(matches!(republished(partial), BundleError::Graph { stage: 1, .. }));
    let renamed = |model: &mut ModelProto| graph(model).output[0].name = Some("other".to_owned());
    assert!(matches!(republished(renamed), BundleError::Graph { stage: 1, .. }));
    let hungry = |model: &mut ModelProto| {
        let input = graph(model).input[0].clone();
        graph(model)
            .input
            .push(crate::emit::untyped(&format!("{} too", input.name())));
    };
    assert!(matches!(republished(hungry), BundleError::Graph { stage: 1, .. }));
}

proptest! {
    #[test]
    fn bytes_that_are_no_model_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        prop_assert!(inspect(&bytes).is_err());
        prop_assert!(Bundle::with_store(&bytes, Path::new("nowhere")).is_err());
    }

    #[test]
    fn a_truncated_or_damaged_model_never_panics(at in any::<prop::sample::Index>(), bit in 0_u8..8, cut in any::<bool>()) {
        let mut bytes = encoder().encode_to_vec();
        let at = at.index(bytes.len());
        if cut {
            bytes.truncate(at);
            prop_assert!(inspect(&bytes).is_err());
        } else {
            bytes[at] ^= 1 << bit;
            let _ = inspect(&bytes);
        }
    }

    #[test]
    fn a_damaged_manifest_is_never_taken_for_the_same_model(at in any::<prop::sample::Index>(), bit in 0_u8..8) {
        thread_local!(static MANIFEST: Vec<u8> = bundle().1.manifest().to_bytes());
        let mut bytes = MANIFEST.with(Clone::clone);
        let digest = Sha256Hex::of(&bytes);
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        if let Ok(other) = Bundle::with_store(&bytes, Path::new("nowhere")) {
            prop_assert_ne!(other.digest(), &digest);
        }
    }
}
