//! `fxn demo --keep` and the commands of a second terminal.

use std::{fs, io::Write, path::Path, process::Output};

use serde_json::Value;

use crate::{
    document, failover::a_dead_middle_host_is_nobodys_proven_fault, fxn, machine, refusal, root, wait_until_gone, Kept,
    Stage,
};

const MODEL: &str = "demo/all-minilm-l6-v2";

fn embed(home: &Path, content: &[u8]) -> Output {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(content).unwrap();
    fxn(home)
        .args(["embed", "--model", MODEL, "--output", "json"])
        .arg(file.path())
        .output()
        .unwrap()
}

/// The sentences of the demonstration, as a person would send them.
pub(crate) fn embed_sentences(home: &Path) -> Value {
    let sentences = fs::read(root().join("tests/fixtures/sentences-64.txt")).unwrap();
    document(&embed(home, &sentences))
}

fn vectors(answer: &Value) -> Vec<Vec<f32>> {
    serde_json::from_value(answer["embeddings"].clone()).unwrap()
}

fn available(home: &Path) -> u64 {
    let output = fxn(home)
        .args(["wallet", "money", "--output", "json"])
        .output()
        .unwrap();
    document(&output)["available"].as_u64().unwrap()
}

#[test]
fn a_second_terminal_needs_no_further_flags() {
    let _machine = machine();
    let stage = Stage::open();
    let kept = Kept::start(&stage);
    let home = kept.second_terminal(&stage);
    any_file_of_lines_is_embedded(&home, &kept.report);
    what_cannot_be_embedded_is_refused_and_costs_nothing(&home);
    the_market_can_be_looked_at(&home);
    a_session_gives_the_same_vectors_and_leaves_nothing_behind(&home, &kept.report);
    a_dead_middle_host_is_nobodys_proven_fault(&home, &kept.report);

    let (code, report) = kept.signal("INT");
    assert_eq!(code, Some(0), "Ctrl-C ends it well");
    wait_until_gone(&report);
    let keys = fs::read_dir(stage.home().join("keys")).map_or(0, Iterator::count);
    let has_network = stage.home().join("network.json").exists();
    // What it has put there is gone with it; what was somebody's is left alone: a key and its passphrase.
    assert_eq!((has_network, keys), if stage.is_real { (true, 2) } else { (false, 0) });
}

fn any_file_of_lines_is_embedded(home: &Path, report: &Value) {
    // 127 lines: the sentences without the first one, twice, and odd ones between them.
    let sentences = fs::read_to_string(root().join("tests/fixtures/sentences-64.txt")).unwrap();
    let sentences: Vec<&str> = sentences.lines().collect();
    let mut lines: Vec<&str> = sentences[1..].to_vec();
    lines.push("");
    lines.extend(&sentences[1..]);
    assert_eq!(lines.len(), 127);
    let answer = document(&embed(home, lines.join("\n").as_bytes()));
    let (found, expected) = (vectors(&answer), vectors(report));
    assert_eq!((found.len(), answer["tokens"].as_array().unwrap().len()), (127, 127));
    assert_eq!(
        &found[..63],
        &expected[1..],
        "the same vectors, whatever they were sent with"
    );
    assert_eq!(&found[64..], &expected[1..]);
    assert_eq!(answer["tokens"][63], 2, "an empty line is a text of two special tokens");
    assert_eq!(answer["model"], MODEL);
    assert!(answer["price"].as_u64().unwrap() > 0);
    assert!(answer["providers"].as_array().unwrap().len() >= 3);

    let long = "word ".repeat(1_600);
    let odd = serde_json::json!(["🤷🏽‍♀️ emoji\nwith a line break", long, "a"]);
    let answer = document(&embed(home, odd.to_string().as_bytes()));
    assert_eq!(vectors(&answer).len(), 3);
    assert_eq!(
        answer["tokens"][1], 256,
        "truncated as the model's own configuration says"
    );
}

fn a_session_gives_the_same_vectors_and_leaves_nothing_behind(home: &Path, report: &Value) {
    let run = |arguments: &[&str]| {
        let output = fxn(home).args(arguments).args(["--output", "json"]).output().unwrap();
        document(&output)
    };
    let sentences = root().join("tests/fixtures/sentences-64.txt").display().to_string();
    let held = |money: &Value| money["held"].as_u64().unwrap();
    let before = held(&run(&["wallet", "money"]));
    let embed = ["embed", "--model", MODEL, &sentences, "--session"];
    let answer = run(&embed);
    assert_eq!(
        vectors(&answer),
        vectors(report),
        "bit by bit what the chain's own lane gives"
    );
    assert_eq!(
        (&answer["jobs"], answer["tokens"].as_array().unwrap().len()),
        (&Value::Array(vec![]), 64)
    );
    assert!(answer["price"].as_u64().unwrap() > 0 && answer["providers"].as_array().unwrap().len() >= 3);
    let session = answer["session"].as_u64().unwrap().to_string();
    // A second one goes on in the same session, by its number or without.
    for words in [&embed[..], &[&embed[..], &[&session]].concat()] {
        let again = run(words);
        assert_eq!(again["session"], answer["session"]);
        assert_eq!(vectors(&again), vectors(report));
    }
    let shown = run(&["session", "show", &session]);
    assert_eq!(held(&shown), held(&run(&["wallet", "money"])) - before);
    let closed = run(&["session", "close", &session]);
    assert_eq!(closed["closing"], Value::Array(vec![]), "every host consents");
    assert_eq!(held(&run(&["wallet", "money"])), before);
    assert_eq!(run(&["session", "list"]), Value::Array(vec![]));
}

fn what_cannot_be_embedded_is_refused_and_costs_nothing(home: &Path) {
    let before = available(home);
    let long = format!("short\n{}\n", "x".repeat(8_193));
    let refused = refusal(&embed(home, long.as_bytes()));
    assert!(refused.contains("text 2 has 8193 bytes"), "{refused}");
    assert!(refusal(&embed(home, b"")).contains("the input is empty"));
    assert!(refusal(&embed(home, b"a\n\xff\n")).contains("line 2 is not valid UTF-8"));
    for (model, endpoint) in [("demo/none", "embeddings"), (MODEL, "chat")] {
        let output = fxn(home)
            .args(["embed", "--model", model, "--endpoint", endpoint])
            .arg(root().join("tests/fixtures/sentences-64.txt"))
            .output()
            .unwrap();
        assert!(!refusal(&output).is_empty());
    }
    assert_eq!(available(home), before);
}

fn the_market_can_be_looked_at(home: &Path) {
    for arguments in [
        vec!["model", "list"],
        vec!["model", "show", MODEL],
        vec!["provider", "list"],
        vec!["job", "list"],
        vec!["keys", "list"],
    ] {
        let text = fxn(home).args(&arguments).output().unwrap();
        assert!(text.status.success() && !text.stdout.is_empty(), "{arguments:?}");
        document(&fxn(home).args(&arguments).args(["--output", "json"]).output().unwrap());
    }
    let answer = document(
        &fxn(home)
            .args(["job", "result", "1", "--output", "json"])
            .output()
            .unwrap(),
    );
    assert_eq!(vectors(&answer).len(), 64);
}
