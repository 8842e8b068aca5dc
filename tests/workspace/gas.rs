//! docs/gas.md leaves out no message: every variant of every contract's messages, as the schemas name them, has its row there.

use std::{collections::BTreeSet, fs};

use serde_json::Value;

use crate::sources::root;

/// Words of a schema's variants, `submit_job` as `SubmitJob`.
fn variants(schema: &Value) -> Vec<String> {
    let messages = schema["oneOf"].as_array().expect("messages are variants");
    let words = messages.iter().flat_map(|variant| {
        let lists = ["required", "enum"].map(|list| variant[list].as_array().cloned().unwrap_or_default());
        lists.concat()
    });
    words
        .map(|word| {
            let parts = word.as_str().expect("a variant has a name").split('_');
            parts.map(|part| part[..1].to_uppercase() + &part[1..]).collect()
        })
        .collect()
}

/// Contract and message of every row, without what tells rows of one message apart.
fn rows(document: &str) -> BTreeSet<(String, String)> {
    let lines = document.lines().filter(|line| line.starts_with("| `"));
    lines
        .map(|line| {
            let cells: Vec<&str> = line.split('|').map(str::trim).collect();
            let message = cells[2].split(',').next().unwrap_or_default();
            (cells[1].trim_matches('`').to_owned(), message.to_owned())
        })
        .collect()
}

#[test]
fn every_message_of_every_contract_has_its_gas() {
    let document = fs::read_to_string(root().join("docs/gas.md")).expect("docs/gas.md is there");
    let mut told = rows(&document);
    // It has a table of its own, by spans and items.
    assert!(document.contains("\n## SubmitAttestations\n"));
    told.insert(("job-orchestrator".into(), "SubmitAttestations".into()));
    let mut count = 0usize;
    for contract in fs::read_dir(root().join("contracts")).expect("contracts are there") {
        let name = contract
            .expect("a folder reads")
            .file_name()
            .into_string()
            .expect("a name");
        for kind in ["", ".receive"] {
            let path = root().join(format!("schema/json/{name}{kind}.json"));
            // Not every contract takes FUNC.
            let Ok(text) = fs::read_to_string(&path) else {
                assert_eq!(kind, ".receive", "{} is missing", path.display());
                continue;
            };
            let schema: Value = serde_json::from_str(&text).expect("a schema is JSON");
            let messages = if kind.is_empty() { &schema["execute"] } else { &schema };
            for message in variants(messages) {
                assert!(
                    told.contains(&(name.clone(), message.clone())),
                    "docs/gas.md has no row for {name} {message}"
                );
                count = count.saturating_add(1);
            }
        }
    }
    assert!(count >= 70, "{count} messages");
}
