//! Models that nobody made for us: what the PyPI package `onnx` ships for its backend tests, split on the real ONNX Runtime.
//!
//! The table in `docs/partition.md` is this test's expectation; `UPDATE_EXPECT=1` writes it anew. `FXN_SLOW=1` adds the vision models
//! with real numbers for weights, all of them into 2, 3 and 4 stages.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

use partition::{
    row, run_stage, split_and_report, Batching, Bundle, Report, Row, Runtime, SplitError, SplitOptions, Stages, Tensor,
};

use crate::{
    onnx_file::{self, Value},
    partition_proof::{project, runtime},
};

/// What onnx's own runner allows its backends.
const RELATIVE: f32 = 1e-3;
const ABSOLUTE: f32 = 1e-7;

const BEGIN: &str = "<!-- table: written by inference-host/tests/it/foreign_models.rs -->\n";
const END: &str = "<!-- end of table -->";

const LIGHT: [&str; 9] = [
    "bvlc_alexnet",
    "densenet121",
    "inception_v1",
    "inception_v2",
    "resnet50",
    "shufflenet",
    "squeezenet",
    "vgg19",
    "zfnet512",
];

fn data() -> PathBuf {
    let libraries = std::fs::read_dir(project().join(".runtime/venv/lib")).expect("run scripts/models.sh first");
    let found = libraries
        .map(|entry| entry.unwrap().path().join("site-packages/onnx/backend/test/data"))
        .find(|folder| folder.is_dir());
    found.expect("run scripts/models.sh first")
}

fn options(stages: usize) -> SplitOptions {
    SplitOptions {
        task: "image-classification".to_owned(),
        pooling: None,
        normalize: false,
        ..SplitOptions::embeddings(Stages::Count(stages), 1)
    }
}

/// The input that onnx's runner makes for these models: a ramp from 0 to 1.
fn ramp() -> Tensor {
    let count = 3 * 224 * 224;
    let values: Vec<f32> = (0..count)
        .map(|index| (f64::from(index) / f64::from(count)) as f32)
        .collect();
    Tensor::from_f32(vec![3, 224, 224], &values).unwrap()
}

/// Something less regular, between -1 and 1.
fn noise() -> Tensor {
    let mut state = 0x9e37_79b9_u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / 8_388_608.0 - 1.0
    };
    let values: Vec<f32> = (0..3 * 224 * 224).map(|_| next()).collect();
    Tensor::from_f32(vec![3, 224, 224], &values).unwrap()
}

fn with_row_axis(tensor: &Tensor) -> Tensor {
    let shape = [&[1], tensor.shape.as_slice()].concat();
    Tensor {
        shape,
        ..tensor.clone()
    }
}

/// An export folder with this model, whose one input is fed these rows.
struct Foreign {
    folder: tempfile::TempDir,
    input: String,
    rows: Vec<Tensor>,
    /// What the file as it came gives for each row.
    expected: Vec<Vec<u8>>,
}

impl Foreign {
    fn new(model: &Path, input: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("export")).unwrap();
        std::fs::copy(model, folder.path().join("export/model.onnx")).unwrap();
        let rows = vec![ramp(), noise()];
        let mut loaded = runtime().load(model).unwrap();
        let mut answer = |row: &Tensor| {
            loaded.run(vec![(input.to_owned(), with_row_axis(row))]).unwrap()[0]
                .1
                .data
                .clone()
        };
        let expected = rows.iter().map(&mut answer).collect();
        Self {
            folder,
            input: input.to_owned(),
            rows,
            expected,
        }
    }

    fn split(&self, stages: usize) -> Result<(Bundle, Report), SplitError> {
        let samples: Vec<_> = self
            .rows
            .iter()
            .map(|row| vec![(self.input.clone(), row.clone())])
            .collect();
        let target = self.folder.path().join(format!("bundle-{stages}"));
        let begun = Instant::now();
        let made = split_and_report(
            &self.folder.path().join("export"),
            &target,
            &options(stages),
            &runtime(),
            &samples,
        );
        eprintln!("  {stages} stages: {:.1} s", begun.elapsed().as_secs_f64());
        made
    }

    /// Runs the bundle stage by stage, rows as bytes in between, and compares with the file as it came.
    fn check(&self, bundle: &Bundle) {
        let manifest = bundle.manifest();
        assert_eq!(manifest.batching, Batching::Single, "the graph takes one row");
        let mut wire: Vec<Vec<u8>> = self
            .rows
            .iter()
            .map(|row| row::encode(std::slice::from_ref(row)).unwrap())
            .collect();
        for (index, stage) in manifest.stages.iter().enumerate() {
            let mut loaded = runtime().load(&bundle.verify_stage(index).unwrap()).unwrap();
            for bytes in &mut wire {
                let received: Row = row::decode(bytes, &stage.receives, 1).unwrap();
                let sent = run_stage(stage, loaded.as_mut(), &[received], 1).unwrap();
                *bytes = row::encode(&sent[0]).unwrap();
            }
        }
        for (bytes, expected) in wire.iter().zip(&self.expected) {
            let answer = row::decode(bytes, &manifest.outputs, 1).unwrap();
            assert!(answer[0].data == *expected, "other bits than the file as it came");
        }
    }
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes
        .as_chunks::<4>()
        .0
        .iter()
        .map(|bytes| f32::from_le_bytes(*bytes))
        .collect()
}

/// Bytes for people, exact enough to notice a change.
fn size(bytes: u64) -> String {
    match bytes {
        0..1024 => format!("{bytes} B"),
        1024..1_048_576 => format!("{:.1} KiB", bytes as f64 / 1024.0),
        _ => format!("{:.1} MiB", bytes as f64 / 1_048_576.0),
    }
}

fn list(values: impl Iterator<Item = String>) -> String {
    values.collect::<Vec<_>>().join(", ")
}

fn line(model: &str, nodes: usize, stages: usize, outcome: &Result<(Bundle, Report), SplitError>) -> String {
    match outcome {
        Ok((bundle, report)) => {
            let made = &bundle.manifest().stages;
            format!(
                "| {model} | {} | {stages} | {} | {} | {} | {} | bit-equal |\n",
                report.nodes,
                list(
                    made.iter()
                        .map(|stage| format!("{:.0} %", f64::from(stage.compute_share_bps) / 100.0))
                ),
                list(made.iter().map(|stage| size(stage.weight_bytes))),
                list(report.crossing_bytes.iter().map(|&bytes| size(bytes))),
                report.replanned.len(),
            )
        }
        Err(error) => format!("| {model} | {nodes} | {stages} | | | | | refused: {error} |\n"),
    }
}

/// Compares the table in the document, or writes it.
fn check_table(found: &str) {
    let path = project().join("docs/partition.md");
    let text = std::fs::read_to_string(&path).unwrap();
    let (head, rest) = text.split_once(BEGIN).expect("the table has a begin");
    let (table, tail) = rest.split_once(END).expect("the table has an end");
    if std::env::var_os("UPDATE_EXPECT").is_some_and(|value| value == "1") {
        std::fs::write(&path, format!("{head}{BEGIN}{found}{END}{tail}")).unwrap();
    } else {
        assert_eq!(
            table, found,
            "docs/partition.md is out of date: UPDATE_EXPECT=1 writes it anew"
        );
    }
}

#[test]
fn every_light_model_is_split_bit_equal_or_refused_as_the_table_says() {
    let mut table = "| model | nodes | stages | arithmetic | weights | crossing | replans | verdict |\n".to_owned();
    table.push_str("|---|---|---|---|---|---|---|---|\n");
    for name in LIGHT {
        let begun = Instant::now();
        let file = data().join(format!("light/light_{name}.onnx"));
        let facts = onnx_file::read(&file);
        let foreign = Foreign::new(&file, &facts.inputs[0]);
        let published = onnx_file::tensor(&data().join(format!("light/light_{name}_output_0.pb")));
        for (found, expected) in floats(&foreign.expected[0]).iter().zip(floats(&published.data)) {
            let allowed = ABSOLUTE + RELATIVE * expected.abs();
            assert!((found - expected).abs() <= allowed, "{name}: {found} is not {expected}");
        }
        assert_eq!(foreign.expected[0].len(), published.data.len());
        for stages in 2..=4 {
            let outcome = foreign.split(stages);
            if let Ok((bundle, _)) = &outcome {
                foreign.check(bundle);
            }
            table.push_str(&line(name, facts.nodes, stages, &outcome));
        }
        eprintln!("{name}: {:.1} s", begun.elapsed().as_secs_f64());
    }
    check_table(&table);
}

/// The light models have the same number in every place of a weight, which hides many differences: these have numbers of all kinds.
#[test]
fn vision_models_with_real_numbers_for_weights_keep_their_bits() {
    let slow = std::env::var_os("FXN_SLOW").is_some();
    let names: &[&str] = if slow { &LIGHT } else { &["densenet121", "resnet50"] };
    let python = project().join(".runtime/venv/bin/python");
    let script = project().join("scripts/real_weights.py");
    for name in names {
        let begun = Instant::now();
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (
            data().join(format!("light/light_{name}.onnx")),
            folder.path().join("real.onnx"),
        );
        let made = Command::new(&python).arg(&script).arg(&from).arg(&to).status();
        assert!(made.unwrap().success(), "scripts/real_weights.py failed");
        let foreign = Foreign::new(&to, &onnx_file::read(&to).inputs[0]);
        assert_ne!(
            foreign.expected[0], foreign.expected[1],
            "{name} tells two images apart"
        );
        for stages in if slow { 2..=4 } else { 3..=3 } {
            let (bundle, report) = foreign.split(stages).unwrap_or_else(|error| panic!("{name}: {error}"));
            foreign.check(&bundle);
            for cut in &report.replanned {
                eprintln!("  {name}, {stages} stages: {cut}");
            }
            assert!(
                report.replanned.is_empty(),
                "a pattern is missing: {:?}",
                report.replanned
            );
        }
        eprintln!("{name}: {:.1} s", begun.elapsed().as_secs_f64());
    }
}

#[test]
fn a_foreign_model_gives_the_same_manifest_every_time() {
    let file = data().join("light/light_squeezenet.onnx");
    let digest = || {
        let foreign = Foreign::new(&file, "data_0");
        foreign.split(3).unwrap().0.digest().clone()
    };
    assert_eq!(digest(), digest());
}

#[test]
fn two_rows_never_fit_a_stage_with_a_fixed_batch() {
    let foreign = Foreign::new(&data().join("light/light_squeezenet.onnx"), "data_0");
    let (bundle, _) = foreign.split(2).unwrap();
    let stage = &bundle.manifest().stages[0];
    let mut loaded = runtime().load(&bundle.verify_stage(0).unwrap()).unwrap();
    let rows: Vec<Row> = foreign.rows.iter().map(|row| vec![row.clone()]).collect();
    assert!(
        run_stage(stage, loaded.as_mut(), &rows, 1).is_err(),
        "ONNX Runtime knows that the batch is 1"
    );
    assert!(run_stage(stage, loaded.as_mut(), &rows[..1], 1).is_ok());
}

/// What became of a small graph: its class, by the sentence of the refusal.
fn class(error: &SplitError) -> &'static str {
    match error {
        SplitError::FixedBatch { .. } => "fixed batch of several rows",
        SplitError::NoBatchAxis { .. } => "no common batch axis",
        SplitError::Input { .. } => "input that rows cannot carry",
        SplitError::TooManyStages { .. } => "nothing to cut",
        SplitError::NotATensor { .. } => "sequences",
        SplitError::NotRunnable { .. } => "refused by the runtime as a whole",
        SplitError::OutputShape { .. } => "output that is no row",
        SplitError::MissingOutput { .. } | SplitError::ConstantOutput { .. } => "output without input",
        _ => "unexpected",
    }
}

/// All graphs of the package's other folders, most of a node or two.
#[test]
fn every_small_graph_is_split_bit_equal_or_refused_with_its_reason() {
    let mut classes: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for kind in ["simple", "pytorch-converted", "pytorch-operator"] {
        for entry in std::fs::read_dir(data().join(kind)).unwrap() {
            let folder = entry.unwrap().path();
            let name = folder.file_name().unwrap().to_string_lossy().into_owned();
            let facts = onnx_file::read(&folder.join("model.onnx"));
            let work = tempfile::tempdir().unwrap();
            std::fs::create_dir(work.path().join("export")).unwrap();
            std::fs::copy(folder.join("model.onnx"), work.path().join("export/model.onnx")).unwrap();
            let set = folder.join("test_data_set_0");
            let feeds: Vec<(String, Value)> = facts
                .inputs
                .iter()
                .enumerate()
                .map(|(index, input)| (input.clone(), onnx_file::tensor(&set.join(format!("input_{index}.pb")))))
                .collect();
            let sample = feeds.iter().map(|(name, value)| (name.clone(), value.row())).collect();
            let target = work.path().join("bundle");
            let attempt = split_and_report(&work.path().join("export"), &target, &options(2), &runtime(), &[sample]);
            let class = match &attempt {
                Ok((bundle, _)) => {
                    assert_eq!(bundle.manifest().stages.len(), 2, "{name}");
                    "split"
                }
                Err(error) => {
                    let text = error.to_string();
                    assert!(text.len() > 20 && !text.contains('\n'), "{name}: {text:?}");
                    assert!(
                        !target.exists() && std::fs::read_dir(work.path()).unwrap().count() == 1,
                        "{name}"
                    );
                    eprintln!("{name}: {text}");
                    class(error)
                }
            };
            classes.entry(class).or_default().push(name);
        }
    }
    let mut text = String::new();
    for (class, names) in &classes {
        writeln!(text, "{class}: {}", names.len()).unwrap();
    }
    assert!(!classes.contains_key("unexpected"), "{:?}", classes["unexpected"]);
    expect_test::expect![[r#"
        fixed batch of several rows: 98
        input that rows cannot carry: 6
        no common batch axis: 2
        nothing to cut: 24
        refused by the runtime as a whole: 2
        sequences: 8
    "#]]
    .assert_eq(&text);
}
