//! The program that compares a GPU with the CPU, here on the CPU itself: that it computes, judges and refuses as it should.

use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
};

use inference_host::tokenizer::TextTokenizer;
use partition::{split, SplitOptions, Stages};

use crate::partition_proof::{project, runtime};

fn program() -> PathBuf {
    let own = std::env::current_exe().unwrap();
    own.ancestors().nth(2).unwrap().join("examples/gpu_check")
}

fn run(bundle: &Path, arguments: &[&str]) -> (Output, String) {
    let output = Command::new(program())
        .arg(bundle)
        .args(arguments)
        .current_dir(project())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    (output, said)
}

/// all-MiniLM-L6-v2 in two stages.
fn bundle(folder: &Path) -> PathBuf {
    let model = project().join(".runtime/models/all-minilm-l6-v2");
    let json = std::fs::read(model.join("tokenizer.json")).unwrap();
    let tokenizer = TextTokenizer::new(&json, 128).unwrap();
    let texts = ["a", "two words", "and a longer one of a few more words"];
    let samples = texts.map(|text| tokenizer.encode(text).unwrap().named().unwrap());
    let options = SplitOptions::embeddings(Stages::Count(2), 128);
    let target = folder.join("minilm");
    split(&model, &target, &options, &runtime(), &samples).unwrap();
    target
}

#[test]
fn the_check_compares_every_stage_and_batch_and_tells_what_it_found() {
    let folder = tempfile::tempdir().unwrap();
    let (bundle, table) = (bundle(folder.path()), folder.path().join("table.md"));
    let arguments = [
        "--device",
        "cpu",
        "--seconds",
        "0.01",
        "--markdown",
        table.to_str().unwrap(),
    ];
    let (output, said) = run(&bundle, &arguments);
    assert!(output.status.success(), "{said}");
    let text = std::fs::read_to_string(&table).unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim_end(), text.trim_end());
    let lines: Vec<&str> = text
        .lines()
        .filter(|line| line.ends_with(" |") && !line.starts_with("| stage"))
        .collect();
    assert_eq!(lines.len(), 6, "{text}");
    for (line, start) in lines.iter().zip([
        "| 0 | 1 |",
        "| 0 | 8 |",
        "| 0 | 32 |",
        "| 1 | 1 |",
        "| 1 | 8 |",
        "| 1 | 32 |",
    ]) {
        // The same engine twice: no difference at all, and the ratio of its speeds is a number.
        assert!(
            line.starts_with(&format!("{start} 0.00e0 | 0.00e0 | 1 | same bits | ")),
            "{line}"
        );
    }
}

#[test]
fn a_machine_without_a_gpu_is_told_so_and_told_apart_from_one_that_computes_wrongly() {
    let folder = tempfile::tempdir().unwrap();
    let (output, said) = run(&bundle(folder.path()), &["--device", "cuda:0"]);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.starts_with("gpu_check: cuda:0 cannot be compared: "), "{said}");
    assert!(said.contains("computes on the CPU only"), "{said}");
    for (arguments, words) in [
        (&["--device", "tpu"][..], "\"tpu\" is no device"),
        (&["--device"], "--device needs a value"),
        (&["--fast"], "--fast is unknown"),
    ] {
        let (output, said) = run(folder.path(), arguments);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(words), "{said}");
    }
}
