//! Who may send what, found out by sending it.
//!
//! Every message of every contract is sent by a stranger, by the admin and by the one who may, each on a network of its own. The
//! golden table lists what the stranger is told; a message that the table lacks fails the test.

use std::collections::BTreeSet;

use cosmwasm_std::{Addr, Uint128};
use cw20::Cw20ExecuteMsg;
use expect_test::expect_file;
use fxn_tests::{Protocol, DEVELOPER, FUNC};
use schema::{escrow, registry};
use serde_json::Value;

pub(crate) mod table;

use table::{model, table, Row};

/// The world in which everything is tried: one job is at work, one session is open, Carl may come back from jail, and every role has
/// been offered to an heir.
pub(crate) fn world() -> Protocol {
    let mut protocol = Protocol::with_market_and_conduct(|conduct| {
        conduct.jail_strikes = 1;
        conduct.jail_seconds = 0;
    });
    protocol.jails("carl");
    protocol.starts(Protocol::order(1, 1, 1));
    let session = protocol.new_session(&[(1, FUNC), (3, FUNC), (5, FUNC)]);
    protocol.opens_session(DEVELOPER, session);
    protocol.fund("stranger", 1_000 * FUNC);
    protocol.fund("admin", 1_000 * FUNC);
    let heir = Some(protocol.addr("heir").into_string());
    let offer = registry::ExecuteMsg::ProposeOwner {
        model: model(),
        owner: heir.clone(),
    };
    protocol.registry("clara", &offer).unwrap();
    let (admin, contracts) = (protocol.addr("admin"), protocol.contracts.clone());
    let offer = escrow::ExecuteMsg::ProposeAdmin { admin: heir };
    for contract in [
        &contracts.model_registry,
        &contracts.provider_staking,
        &contracts.royalty_escrow,
        &contracts.job_orchestrator,
    ] {
        protocol.execute(&admin, contract, &offer).unwrap();
    }
    for contract in protocol.migratable() {
        let next = protocol.next_codes[&contract];
        protocol.proposes_code("admin", &contract, next).unwrap();
    }
    let allow = Cw20ExecuteMsg::IncreaseAllowance {
        spender: protocol.addr("heir").into_string(),
        amount: Uint128::new(2_000 * FUNC),
        expires: None,
    };
    for owner in ["faucet", "stranger"] {
        let owner = protocol.addr(owner);
        protocol.execute(&owner, &contracts.func_token, &allow).unwrap();
    }
    protocol
}

/// What a sender is told, with names in place of addresses.
fn answer(sender: &Addr, row: &Row) -> String {
    let mut protocol = world();
    let text = match protocol.execute(sender, &row.to, &row.msg) {
        Ok(_) => "ok".to_owned(),
        Err(error) => error.root_cause().to_string(),
    };
    let contracts = protocol.contracts.clone();
    let mut text = text.replace(sender.as_str(), "SENDER");
    for (address, name) in [
        (contracts.func_token, "func-token"),
        (contracts.model_registry, "model-registry"),
        (contracts.provider_staking, "provider-staking"),
        (contracts.royalty_escrow, "royalty-escrow"),
        (contracts.job_orchestrator, "job-orchestrator"),
    ] {
        text = text.replace(address.as_str(), name);
    }
    text
}

fn is_restricted(row: &Row) -> bool {
    !row.who.starts_with("anyone") && !row.who.ends_with("of its own") || row.who == "a provider, of its own"
}

#[test]
fn every_message_is_refused_from_whoever_may_not_send_it() {
    let protocol = world();
    let (stranger, admin) = (protocol.addr("stranger"), protocol.addr("admin"));
    let mut golden = String::new();
    for row in table(&protocol) {
        let told = answer(&stranger, &row);
        let line = [row.contract, row.message, row.who, &told].join(" | ");
        golden.push_str(&line);
        golden.push('\n');
        if !is_restricted(&row) {
            continue;
        }
        assert_ne!(told, "ok", "{line}");
        if row.who != "nobody" {
            assert_ne!(answer(&row.right, &row), told, "{line}: refused from the one who may");
        }
        if !row.who.starts_with("admin") {
            assert_eq!(answer(&admin, &row), told, "{line}: the admin may no more than anybody");
        }
    }
    expect_file!["permissions.txt"].assert_eq(&golden);
}

#[test]
fn the_table_has_every_message_of_every_contract() {
    let rows = table(&world());
    let listed: BTreeSet<(String, String)> = rows
        .iter()
        .map(|row| (row.contract.to_owned(), row.message.to_owned()))
        .collect();
    let mut known = BTreeSet::new();
    for (contract, json) in [
        ("func-token", include_str!("../../schema/json/func-token.json")),
        ("model-registry", include_str!("../../schema/json/model-registry.json")),
        (
            "provider-staking",
            include_str!("../../schema/json/provider-staking.json"),
        ),
        ("royalty-escrow", include_str!("../../schema/json/royalty-escrow.json")),
        (
            "job-orchestrator",
            include_str!("../../schema/json/job-orchestrator.json"),
        ),
    ] {
        let api: Value = serde_json::from_str(json).unwrap();
        known.extend(variants(&api["execute"]).map(|name| (contract.to_owned(), name)));
    }
    for (contract, json) in [
        (
            "model-registry",
            include_str!("../../schema/json/model-registry.receive.json"),
        ),
        (
            "provider-staking",
            include_str!("../../schema/json/provider-staking.receive.json"),
        ),
        (
            "royalty-escrow",
            include_str!("../../schema/json/royalty-escrow.receive.json"),
        ),
    ] {
        let hooks: Value = serde_json::from_str(json).unwrap();
        known.extend(variants(&hooks).map(|name| (contract.to_owned(), format!("receive/{name}"))));
    }
    assert_eq!(listed, known);
}

fn variants(schema: &Value) -> impl Iterator<Item = String> + '_ {
    let all = schema["oneOf"].as_array().expect("messages are enums").iter();
    all.map(|variant| {
        variant["required"][0]
            .as_str()
            .expect("a variant has a name")
            .to_owned()
    })
}

#[test]
fn native_coins_are_refused_by_every_message() {
    for row in table(&world()) {
        let mut protocol = world();
        let error = protocol
            .execute_with_coins(&row.right, &row.to, &row.msg)
            .expect_err("nothing of ours takes native coins");
        let text = error.root_cause().to_string();
        assert!(
            text.contains("no native coins") || text.contains("does no accept funds"),
            "{} {}: {text}",
            row.contract,
            row.message
        );
    }
}
