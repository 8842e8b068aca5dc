//! What a split is: proven, deterministic, shared, balanced.

use std::{collections::BTreeSet, path::Path};

use prost::Message;

use super::{
    interpreter::{Interpreter, Quirk},
    models::{axis, encoder, export, floats, graph, node, options, positions, sample, samples, value},
};
use crate::{
    proto::ModelProto, row, run_stage, self_test, split, split_and_report, Batching, Bundle, DType, Dim, Runtime,
    SplitError, SplitOptions, Stage, Stages, Standing,
};

fn split_with(
    model: &ModelProto,
    options: &SplitOptions,
    quirk: Quirk,
) -> (tempfile::TempDir, Result<Bundle, SplitError>) {
    let folder = tempfile::tempdir().unwrap();
    export(model, &folder.path().join("export"));
    let bundle = split(
        &folder.path().join("export"),
        &folder.path().join("bundle"),
        options,
        &Interpreter(quirk),
        &samples(),
    );
    (folder, bundle)
}

fn files(folder: &Path) -> BTreeSet<String> {
    std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect()
}

#[test]
fn the_stream_and_the_mask_cross_and_the_mask_is_worked_out_again() {
    let (_folder, bundle) = split_with(&encoder(), &options(2), Quirk::None);
    let bundle = bundle.unwrap();
    let [first, second] = bundle.manifest().stages.as_slice() else {
        panic!("two stages were asked for")
    };
    let names: Vec<_> = first.sends.iter().map(|spec| spec.name.as_str()).collect();
    assert_eq!(names, ["x2", "attention_mask"]);
    assert_eq!(second.receives, first.sends);
    assert_eq!((first.weights.len(), second.weights.len()), (3, 2));
    assert_eq!(second.sends[0].name, "sentence_embedding");
    assert_eq!(first.compute_share_bps + second.compute_share_bps, 10_000);
    assert_eq!(bundle.manifest().batching, Batching::Padded);
    assert!(bundle.manifest().config.is_some() && bundle.manifest().tokenizer.is_none());
}

#[test]
fn a_stage_runs_from_its_blobs_alone_and_proves_itself() {
    let (_folder, bundle) = split_with(&encoder(), &options(3), Quirk::None);
    let bundle = bundle.unwrap();
    let runtime = Interpreter(Quirk::None);
    let mut rows = vec![sample(&[6, 6, 1])
        .into_iter()
        .map(|(_, tensor)| tensor)
        .collect::<Vec<_>>()];
    for (index, stage) in bundle.manifest().stages.iter().enumerate() {
        let graph = bundle.verify_stage(index).unwrap();
        let mut loaded = runtime.load(&graph).unwrap();
        let calibration = bundle.calibration(index).unwrap();
        let standing = self_test(
            bundle.manifest(),
            index,
            &calibration,
            &runtime.engine_class(),
            loaded.as_mut(),
        );
        assert_eq!(standing.unwrap(), Standing::Member);
        let bytes = row::encode(&rows[0]).unwrap();
        rows = run_stage(
            stage,
            loaded.as_mut(),
            &[row::decode(&bytes, &stage.receives, 16).unwrap()],
            16,
        )
        .unwrap();
    }
    let embedding = rows[0][0].to_f32().unwrap();
    let norm: f32 = embedding.iter().map(|value| value * value).sum();
    assert!((norm - 1.0).abs() < 1e-5, "{embedding:?}");
}

#[test]
fn the_same_input_gives_the_same_bytes_and_a_changed_weight_changes_one_stage() {
    let (first_folder, first) = split_with(&encoder(), &options(2), Quirk::None);
    let (second_folder, second) = split_with(&encoder(), &options(2), Quirk::None);
    let (first, second) = (first.unwrap(), second.unwrap());
    assert_eq!(first.digest(), second.digest());
    let blobs = |folder: &tempfile::TempDir| files(&folder.path().join("bundle/blobs"));
    assert_eq!(blobs(&first_folder), blobs(&second_folder));

    let mut tuned = encoder();
    graph(&mut tuned).initializer[2] = floats("w0", &[4, 4], 77.0);
    let (_folder, tuned) = split_with(&tuned, &options(2), Quirk::None);
    let (before, after) = (&first.manifest().stages, &tuned.unwrap().manifest().stages.clone());
    assert_ne!(before[0].digest, after[0].digest);
    assert_eq!(before[1].digest, after[1].digest);
    let shared = before[0]
        .weights
        .iter()
        .filter(|weight| after[0].weights.contains(weight))
        .count();
    assert_eq!(shared, 2, "the other weights of the stage are the same blobs");
}

#[test]
fn a_weight_that_two_stages_share_is_stored_once() {
    let mut tied = encoder();
    for node in &mut graph(&mut tied).node {
        node.input
            .iter_mut()
            .filter(|name| *name == "w3")
            .for_each(|name| *name = "w0".to_owned());
    }
    let (_folder, bundle) = split_with(&tied, &options(2), Quirk::None);
    let stages = bundle.unwrap().manifest().stages.clone();
    let shared: Vec<_> = stages[0]
        .weights
        .iter()
        .filter(|weight| stages[1].weights.contains(weight))
        .collect();
    assert_eq!(shared.len(), 1);
}

#[test]
fn external_data_is_read_in_and_the_digests_are_those_of_the_same_weights_inside() {
    let (_folder, inside) = split_with(&encoder(), &options(2), Quirk::None);
    let mut outside = encoder();
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("export");
    super::hostile::externalise(&mut graph(&mut outside).initializer[2], "weights.bin", 8, Some(64));
    export(&outside, &source);
    let raw = [
        vec![0; 8],
        floats("w0", &[4, 4], 0.0).raw_data.unwrap().to_vec(),
        vec![9; 3],
    ]
    .concat();
    std::fs::write(source.join("weights.bin"), raw).unwrap();
    let target = folder.path().join("bundle");
    let bundle = split(&source, &target, &options(2), &Interpreter(Quirk::None), &samples()).unwrap();
    assert_eq!(bundle.digest(), inside.unwrap().digest());
}

#[test]
fn a_runtime_that_gives_other_bits_to_stages_is_caught_and_nothing_is_left() {
    let (folder, refused) = split_with(&encoder(), &options(2), Quirk::FusesTheWhole);
    let Err(SplitError::NotIdentical { tried }) = refused else {
        panic!("another kernel for the whole graph was not noticed")
    };
    assert!(tried.len() > 2, "every cut was tried: {tried:?}");
    assert!(tried[0].why.contains("sample 0"), "{tried:?}");
    assert_eq!(files(folder.path()), BTreeSet::from(["export".to_owned()]));
}

#[test]
fn a_cut_inside_an_unknown_pattern_is_found_and_the_next_best_plan_is_taken() {
    let crossing = |stages: usize, quirk| {
        let folder = tempfile::tempdir().unwrap();
        export(&encoder(), &folder.path().join("export"));
        let (source, target) = (folder.path().join("export"), folder.path().join("bundle"));
        let (bundle, report) =
            split_and_report(&source, &target, &options(stages), &Interpreter(quirk), &samples()).unwrap();
        let stages = &bundle.manifest().stages;
        let graphs: BTreeSet<_> = stages.iter().map(|stage| stage.graph.sha256.to_string()).collect();
        let onnx = |name: &String| {
            std::fs::read(target.join("blobs").join(name))
                .unwrap()
                .windows(13)
                .any(|w| w == b"fxn-partition")
        };
        let left: BTreeSet<_> = files(&target.join("blobs")).into_iter().filter(onnx).collect();
        assert_eq!(left, graphs, "graphs of plans that failed are gone");
        let first = |stage: &Stage| stage.sends[0].name.clone();
        let sent: Vec<String> = stages.iter().rev().skip(1).rev().map(first).collect();
        (sent, report.replanned)
    };
    assert_eq!(crossing(2, Quirk::None), (vec!["x2".to_owned()], vec![]));
    let (sent, replanned) = crossing(2, Quirk::FusesAcross("x2", "product2"));
    assert_ne!(sent, ["x2"]);
    assert_eq!(replanned.len(), 1);
    assert_eq!(replanned[0].tensors, ["x2"]);
    // The culprit is the second of three cuts, and it alone is given up.
    let (sent, _) = crossing(4, Quirk::None);
    assert_eq!(sent, ["x1", "x2", "x3"]);
    let (sent, replanned) = crossing(4, Quirk::FusesAcross("x2", "product2"));
    assert!(!sent.contains(&"x2".to_owned()), "{sent:?}");
    assert_eq!(
        replanned.iter().map(|cut| cut.tensors.join(" ")).collect::<Vec<_>>(),
        ["x2"]
    );
}

/// The encoder as vision models are exported: a fixed batch of 1.
fn one_row() -> ModelProto {
    let mut model = encoder();
    for input in &mut graph(&mut model).input {
        *input = value(input.name(), DType::Int64, &[Dim::Fixed(1), positions()]);
    }
    model
}

#[test]
fn a_fixed_batch_of_one_row_is_a_batch_that_admits_one_row() {
    let (_folder, bundle) = split_with(&one_row(), &options(3), Quirk::OneRowOnly);
    let bundle = bundle.unwrap();
    assert_eq!(bundle.manifest().batching, Batching::Single);
    for (index, stage) in bundle.manifest().stages.iter().enumerate() {
        assert!(stage.receives.iter().all(|spec| spec.shape[0] == Dim::Batch));
        let bytes = std::fs::read(bundle.verify_stage(index).unwrap()).unwrap();
        let body = ModelProto::decode(bytes.as_slice()).unwrap().graph.unwrap();
        for declared in body.input.iter().chain(&body.output).chain(&body.value_info) {
            let text = format!("{declared:?}");
            assert!(
                !text.contains("batch_size"),
                "a symbolic batch that the graph does not have: {text}"
            );
        }
    }
    // The same rows go through as through the graph with a symbolic batch.
    let (_folder, free) = split_with(&encoder(), &options(3), Quirk::None);
    let rows = |bundle: &Bundle| bundle.calibration(2).unwrap().reference;
    assert_eq!(rows(&bundle), rows(&free.unwrap()));
}

#[test]
fn constants_that_nodes_make_are_made_by_every_stage_that_needs_them_and_never_cross() {
    let mut model = encoder();
    let body = graph(&mut model);
    // One is filled in, one is a product of weights; layers 1 and 3 use the first, 0 and 2 the second.
    body.node
        .insert(0, node("ConstantOfShape", &["four by four"], "filled"));
    body.node.insert(1, node("Mul", &["w0", "w2"], "folded"));
    let shape = crate::proto::TensorProto {
        dims: vec![2],
        int64_data: vec![4, 4],
        ..axis("four by four", 0)
    };
    body.initializer.push(shape);
    for (index, name) in [(0, "folded"), (1, "filled"), (2, "folded"), (3, "filled")] {
        let user = body
            .node
            .iter_mut()
            .find(|node| node.output[0] == format!("product{index}"))
            .unwrap();
        user.input[1] = name.to_owned();
    }
    let (_folder, bundle) = split_with(&model, &options(2), Quirk::None);
    let bundle = bundle.unwrap();
    let sent: Vec<_> = bundle.manifest().stages[0]
        .sends
        .iter()
        .map(|spec| spec.name.as_str())
        .collect();
    assert_eq!(sent, ["x2", "attention_mask"]);
    for stage in 0..2 {
        let bytes = std::fs::read(bundle.verify_stage(stage).unwrap()).unwrap();
        let body = ModelProto::decode(bytes.as_slice()).unwrap().graph.unwrap();
        let made: Vec<_> = body.node.iter().map(|node| node.output[0].as_str()).collect();
        assert!(made.contains(&"filled") && made.contains(&"folded"), "{made:?}");
    }
}

#[test]
fn an_initialiser_that_is_also_an_input_is_a_constant() {
    let mut old = encoder();
    let listed = value("w1", DType::Float32, &[Dim::Fixed(4), Dim::Fixed(4)]);
    graph(&mut old).input.push(listed);
    old.ir_version = Some(3);
    let (_folder, bundle) = split_with(&old, &options(2), Quirk::None);
    let bundle = bundle.unwrap();
    let names: Vec<_> = bundle.manifest().inputs.iter().map(|spec| spec.name.as_str()).collect();
    assert_eq!(names, ["input_ids", "attention_mask"]);
}

#[test]
fn what_may_share_a_batch_is_found_out() {
    let batching = |quirk| {
        split_with(&encoder(), &options(1), quirk)
            .1
            .unwrap()
            .manifest()
            .batching
    };
    assert_eq!(batching(Quirk::LonelyRows), Batching::Single);
    assert_eq!(batching(Quirk::Padding), Batching::EqualLengths);
    assert_eq!(batching(Quirk::None), Batching::Padded);
}

#[test]
fn no_cut_comes_between_an_addition_and_its_norm() {
    let mut model = encoder();
    let nodes = &mut graph(&mut model).node;
    let adds: Vec<usize> = (0..nodes.len())
        .filter(|&index| nodes[index].op_type() == "Add")
        .collect();
    for index in adds.into_iter().rev() {
        let made = nodes[index].output[0].clone();
        let sum = format!("sum of {made}");
        nodes[index].output[0] = sum.clone();
        nodes.insert(index + 1, node("LayerNormalization", &[&sum, "ones", "zeros"], &made));
    }
    let weights = &mut graph(&mut model).initializer;
    weights.extend([floats("ones", &[4], 1.0), floats("zeros", &[4], 0.0)]);
    for stages in 2..=4 {
        let (_folder, bundle) = split_with(&model, &options(stages), Quirk::None);
        let stages = bundle.unwrap().manifest().stages.clone();
        let crossing = stages
            .iter()
            .flat_map(|stage| &stage.sends)
            .map(|spec| spec.name.as_str());
        assert!(
            crossing.clone().all(|name| !name.starts_with("sum of")),
            "{:?}",
            crossing.collect::<Vec<_>>()
        );
    }
}

/// The encoder with two more nodes in a row, of this domain.
fn doubled(domain: &str) -> ModelProto {
    let mut model = encoder();
    let nodes = &mut graph(&mut model).node;
    let first = nodes.iter().position(|node| node.output[0] == "product2").unwrap();
    let twice = |input: &str, output: &str| {
        let mut node = node("Twice", &[input], output);
        node.domain = Some(domain.to_owned());
        node
    };
    nodes[first].input[0] = "fourfold".to_owned();
    nodes.splice(first..first, [twice("x2", "twofold"), twice("twofold", "fourfold")]);
    if !domain.is_empty() {
        model.opset_import.push(crate::proto::OperatorSetIdProto {
            domain: Some(domain.to_owned()),
            version: Some(1),
        });
    }
    model
}

/// What crosses when a model is cut wherever it can be.
fn crossing_everywhere(model: &ModelProto) -> BTreeSet<String> {
    let refused = split_with(model, &options(64), Quirk::None).1;
    let Err(SplitError::TooManyStages { positions, .. }) = refused else {
        panic!("64 stages of a tiny model")
    };
    let stages = split_with(model, &options(positions + 1), Quirk::None)
        .1
        .unwrap()
        .manifest()
        .stages
        .clone();
    assert_eq!(stages.len(), positions + 1);
    stages
        .into_iter()
        .flat_map(|stage| stage.sends)
        .map(|spec| spec.name)
        .collect()
}

#[test]
fn neighbours_of_a_vendors_domain_stay_together() {
    assert!(crossing_everywhere(&doubled("")).contains("twofold"));
    let crossing = crossing_everywhere(&doubled("com.example"));
    assert!(
        crossing.contains("x2") && crossing.contains("fourfold") && !crossing.contains("twofold"),
        "{crossing:?}"
    );
}

#[test]
fn the_fewest_stages_within_a_size_are_made() {
    let sized = |bytes| SplitOptions {
        stages: Stages::MaxBytes(bytes),
        ..options(1)
    };
    let (_folder, bundle) = split_with(&encoder(), &sized(320), Quirk::None);
    assert_eq!(bundle.unwrap().manifest().stages.len(), 2);
    let (_folder, refused) = split_with(&encoder(), &sized(100), Quirk::None);
    assert!(matches!(
        refused,
        Err(SplitError::StageTooLarge { bytes: 256, limit: 100 })
    ));
}
