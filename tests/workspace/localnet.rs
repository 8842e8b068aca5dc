//! The local chain of wasmd validators is what devnet is, and its documentation says how it is set.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use expect_test::expect_file;
use serde_json::json;

use crate::sources::root;

#[test]
fn localnet_funds_the_accounts_that_devnet_has() {
    let config = devnet::Config::default();
    let faucet = devnet::Account {
        address: devnet::dev_address(devnet::FAUCET),
        gas: devnet::FAUCET_GAS,
        func: 0,
    };
    let accounts: Vec<String> = [&faucet]
        .into_iter()
        .chain(&config.accounts)
        .map(|account| {
            let coins = json!([{ "denom": config.denom, "amount": account.gas.to_string() }]);
            json!({ "address": account.address, "coins": coins }).to_string()
        })
        .collect();
    let path = root().join("chain/dev-accounts.json");
    expect_file![path].assert_eq(&format!("[\n{}\n]\n", accounts.join(",\n")));
}

/// Lines `file path value` of `chain/parameters`.
fn parameters() -> BTreeMap<String, String> {
    let text = fs::read_to_string(root().join("chain/parameters")).expect("the parameters are there");
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let pairs = lines.map(|line| {
        let (key, value) = line.rsplit_once(' ').expect("a line has a value");
        (key.replace(" .", " "), value.trim_matches('"').to_owned())
    });
    pairs.collect()
}

#[test]
fn every_parameter_of_localnet_is_explained_with_its_value() {
    let readme = fs::read_to_string(root().join("chain/README.md")).expect("chain has a README");
    let section = readme
        .split("## Parameters")
        .nth(1)
        .and_then(|rest| rest.split("\n## ").next())
        .expect("the section is there");
    let rows = section.lines().filter(|line| line.starts_with("| `"));
    let explained: BTreeMap<String, String> = rows
        .map(|row| {
            let cells: Vec<&str> = row.split('|').map(|cell| cell.trim().trim_matches('`')).collect();
            assert!(cells[4].len() > 20, "no reason: {row}");
            (cells[1].to_owned(), cells[2].trim_matches('"').to_owned())
        })
        .collect();
    let set = parameters();
    assert!(set.len() >= 20);
    assert_eq!(
        explained.iter().collect::<BTreeSet<_>>(),
        set.iter().collect::<BTreeSet<_>>()
    );
}
