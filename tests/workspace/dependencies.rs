//! The dependency table of ARCHITECTURE.md is true, and the libraries that the project is built on are really used.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use cargo_metadata::{DependencyKind, Metadata, Package};

use crate::sources::{names, root, rust_files};

const CONTRACTS: [&str; 6] = [
    "func-token",
    "model-registry",
    "provider-staking",
    "royalty-escrow",
    "job-orchestrator",
    "randomness-beacon",
];

/// What users named: each has to be a dependency of code that ships, and be used there.
const NAMED: [&str; 10] = [
    "cosmwasm-std",
    "cw-storage-plus",
    "cw20",
    "cw-multi-test",
    "cosmrs",
    "tendermint-rpc",
    "ort",
    "tokio",
    "serde_json",
    "schemars",
];

pub(crate) fn metadata() -> Metadata {
    let mut command = cargo_metadata::MetadataCommand::new();
    command.current_dir(root()).other_options(vec!["--locked".to_owned()]);
    command.exec().expect("cargo describes the workspace")
}

fn shipped_dependencies(package: &Package) -> BTreeSet<String> {
    let normal = package
        .dependencies
        .iter()
        .filter(|it| it.kind == DependencyKind::Normal);
    normal.map(|it| it.name.clone()).collect()
}

fn folder(package: &Package) -> String {
    let manifest = package.manifest_path.parent().expect("a manifest lies in a folder");
    manifest
        .strip_prefix(root())
        .expect("members lie in the workspace")
        .to_string()
}

/// Rows `| crate | may use |` of the table in ARCHITECTURE.md; `contracts` stands for all of them.
fn table() -> BTreeMap<String, BTreeSet<String>> {
    let text = fs::read_to_string(root().join("ARCHITECTURE.md")).expect("ARCHITECTURE.md is there");
    let section = text
        .split("## Who may depend on whom")
        .nth(1)
        .expect("the section is there");
    let rows = section
        .lines()
        .skip_while(|line| !line.starts_with("|-"))
        .skip(1)
        .take_while(|line| line.starts_with('|'));
    let names = |cell: &str| -> BTreeSet<String> { cell.split('`').skip(1).step_by(2).flat_map(expand).collect() };
    rows.flat_map(|row| {
        let cells: Vec<&str> = row.split('|').collect();
        let allowed = names(cells[2]);
        names(cells[1]).into_iter().map(move |name| (name, allowed.clone()))
    })
    .collect()
}

fn expand(name: &str) -> Vec<String> {
    match name {
        "contracts" => CONTRACTS.map(|it| format!("contracts/{it}")).to_vec(),
        _ => vec![name.to_owned()],
    }
}

#[test]
fn members_depend_only_on_what_the_architecture_allows() {
    let metadata = metadata();
    let members = metadata.workspace_packages();
    let folders: BTreeMap<String, String> = members.iter().map(|it| (it.name.to_string(), folder(it))).collect();
    let table = table();
    assert_eq!(
        table.keys().collect::<Vec<_>>(),
        folders
            .values()
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect::<Vec<_>>()
    );
    for member in members {
        let here = folder(member);
        for dependency in shipped_dependencies(member).iter().filter_map(|name| folders.get(name)) {
            assert!(
                table[&here].contains(dependency),
                "{here} must not depend on {dependency}"
            );
        }
    }
}

#[test]
fn the_named_libraries_are_real_dependencies_of_shipped_code() {
    let metadata = metadata();
    for library in NAMED {
        let members = metadata.workspace_packages();
        let mut users = members
            .iter()
            .filter(|it| folder(it) != "tests" && shipped_dependencies(it).contains(library));
        let used = users.any(|user| {
            let sources = root().join(folder(user)).join("src");
            rust_files(&sources)
                .iter()
                .any(|file| fs::read_to_string(file).is_ok_and(|text| names(&text, library)))
        });
        assert!(used, "{library} is not used by any shipped crate");
    }
}

#[test]
fn versions_stand_in_one_place() {
    for member in metadata().workspace_packages() {
        let manifest = fs::read_to_string(&member.manifest_path).expect("a manifest reads");
        let dependencies = manifest.split("[dependencies]").nth(1).unwrap_or("");
        for line in dependencies
            .lines()
            .filter(|line| line.contains('=') && !line.starts_with('#'))
        {
            let own_table = ["name", "path", "harness", "test"]
                .iter()
                .any(|key| line.starts_with(key));
            assert!(
                own_table || line.contains("workspace = true"),
                "{}: {line}",
                member.name
            );
        }
    }
}
