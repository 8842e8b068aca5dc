//! Every invariant in a contract's README names its test, and the test is there.

use std::fs;

use crate::sources::{root, rust_files};

const HEADING: &str = "## We want the following to be true";

/// Numbered statements under [`HEADING`], each with its continuation lines.
fn invariants(readme: &str) -> Vec<String> {
    let section = readme.split(HEADING).nth(1).expect("the section is there");
    let mut found: Vec<String> = vec![];
    for line in section.lines().take_while(|line| !line.starts_with("## ")) {
        let is_new = line
            .split_once(". ")
            .is_some_and(|(number, _)| number.parse::<u32>().is_ok());
        match found.last_mut() {
            Some(last) if !is_new => last.push_str(line),
            _ if is_new => found.push(line.to_owned()),
            _ => {}
        }
    }
    found
}

#[test]
fn every_invariant_names_a_test_that_exists() {
    let sources: Vec<String> = ["contracts", "tests"]
        .iter()
        .flat_map(|folder| rust_files(&root().join(folder)))
        .map(|file| fs::read_to_string(file).expect("a source reads"))
        .collect();
    let exists = |name: &str| sources.iter().any(|text| text.contains(&format!("fn {name}(")));
    for contract in fs::read_dir(root().join("contracts")).expect("contracts are there") {
        let path = contract.expect("a folder reads").path().join("README.md");
        let readme = fs::read_to_string(&path).expect("every contract has a README");
        let invariants = invariants(&readme);
        assert!(invariants.len() >= 4, "{} states what has to be true", path.display());
        for invariant in invariants {
            let named = invariant.split('`').skip(1).step_by(2).any(exists);
            assert!(named, "{}: no test is named by: {invariant}", path.display());
        }
    }
}

#[test]
fn every_row_of_devnets_check_list_names_tests_that_exist() {
    let folder = root().join("devnet");
    let sources = ["devnet", "tests"].map(|folder| rust_files(&root().join(folder)));
    let sources: Vec<String> = sources
        .iter()
        .flatten()
        .map(|file| fs::read_to_string(file).expect("a source reads"))
        .collect();
    let exists = |name: &str| {
        let is_file = name.ends_with(".mjs") && root().join(name).exists();
        is_file || sources.iter().any(|text| text.contains(&format!("fn {name}(")))
    };
    let readme = fs::read_to_string(folder.join("README.md")).expect("devnet has a README");
    let lists = readme.split("\n## ").filter(|section| section.contains("| test |"));
    let rows = lists.flat_map(|section| section.lines().filter(|line| line.starts_with("| ")).skip(1));
    let mut count = 0usize;
    for row in rows {
        let tests = row.trim_end_matches('|').rsplit('|').next().unwrap_or_default();
        let mut named = tests.split('`').skip(1).step_by(2).peekable();
        assert!(named.peek().is_some(), "no test is named by: {row}");
        for name in named {
            assert!(exists(name), "{name} is named by the README and is not there");
        }
        count = count.saturating_add(1);
    }
    assert!(count >= 30, "{count} rows");
}
