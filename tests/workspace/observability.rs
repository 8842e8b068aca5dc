//! The table of log events in `docs/observability.md` quotes the sources.

use std::fs;

use crate::sources::{root, rust_files};

fn sources(service: &str) -> String {
    let folder = match service {
        "host" => "inference-host/src",
        "relayer" => "relayer/src",
        "devnet" => "devnet/src",
        "client" => "client/src",
        "beacon" => "beacon/src",
        other => panic!("no service {other}"),
    };
    let files = rust_files(&root().join(folder));
    files
        .iter()
        .map(|file| fs::read_to_string(file).expect("a source reads"))
        .collect()
}

#[test]
fn every_log_event_of_the_documentation_is_one_that_its_service_tells() {
    let document = fs::read_to_string(root().join("docs/observability.md")).expect("the document is there");
    let section = document.split("## Log events").nth(1).expect("the section is there");
    let rows: Vec<Vec<&str>> = section
        .lines()
        .filter(|line| line.starts_with("| ") && line.contains('`'))
        .map(|line| line.split('|').map(str::trim).collect())
        .collect();
    assert!(rows.len() >= 10);
    for row in rows {
        let (service, event) = (row[1], row[3].trim_matches('`'));
        assert!(sources(service).contains(event), "{service} never says {event:?}");
    }
}
