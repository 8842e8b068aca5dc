//! Messages and queries that no program of ours would send: every known one with its JSON disturbed.
//!
//! Nothing may panic, overflow or run away: a contract answers or refuses. What is refused changes nothing, and the books stay right.
//! `FXN_SLOW=1` tries twenty times as many.

use cosmwasm_std::{Addr, Uint128};
use cw20::Cw20QueryMsg;
use fxn_tests::{Protocol, MODEL};
use proptest::{
    prelude::*,
    test_runner::{RngSeed, TestRunner},
};
use schema::{
    escrow, orchestrator,
    price::{RoyaltyRate, Units},
    registry,
    staking::{self, DrawRequest, DrawShard},
    Digest, ItemId,
};
use serde_json::{json, Value};

use crate::permissions::{table::table, world};

fn config(cases: u32) -> ProptestConfig {
    let number = |name: &str| std::env::var(name).ok()?.parse::<u64>().ok();
    let slow = number("FXN_SLOW") == Some(1);
    ProptestConfig {
        cases: if slow { cases * 20 } else { cases },
        rng_seed: RngSeed::Fixed(number("FXN_SEED").unwrap_or(11)),
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

/// What a value is replaced by.
fn strange(old: &Value, how: usize) -> Value {
    match how % 22 {
        0 => Value::Null,
        1 => json!(0),
        2 => json!("0"),
        3 => json!(u64::MAX),
        4 => json!(u128::MAX.to_string()),
        5 => json!(-1),
        6 => json!(1.5),
        7 => json!(""),
        8 => json!("x".repeat(100_000)),
        9 => json!("\u{7}\u{0}\u{202e}"),
        10 => json!([]),
        11 => json!({}),
        12 => json!(true),
        13 => json!(u64::from(u32::MAX)),
        14 => json!("340282366920938463463374607431768211456"),
        // More than any list may have, and still a message when it is done three times.
        15 => json!(vec![old.clone(); 70]),
        16 => json!([old.clone(), old.clone()]),
        17 => json!(65_535),
        18 => json!("demo/../demo"),
        19 => json!("00".repeat(64)),
        20 => json!(255),
        _ => json!({ "unknown": old }),
    }
}

/// Disturbs the value at the `place`-th leaf, counted round and round, or an inner value above it.
fn disturb(value: &mut Value, place: usize, how: usize) {
    let inner = match value {
        Value::Object(fields) if !fields.is_empty() => {
            let count = fields.len();
            fields.values_mut().nth(place % count).map(|next| (next, count))
        }
        Value::Array(elements) if !elements.is_empty() => {
            let count = elements.len();
            elements.get_mut(place % count).map(|next| (next, count))
        }
        _ => None,
    };
    match inner {
        Some((next, count)) if !how.is_multiple_of(9) => disturb(next, place / count, how / 2),
        _ => *value = strange(value, how),
    }
}

/// As bytes, which may be cut off, repeated, or be brackets without an end.
fn garbled(value: &Value, how: u32) -> Vec<u8> {
    let mut bytes = serde_json::to_vec(value).unwrap();
    match how % 24 {
        21 => bytes.truncate(how as usize % bytes.len()),
        22 => bytes = [b"{\"a\":".repeat(20_000), bytes].concat(),
        23 => bytes = [vec![b'['; 100_000], vec![0xff]].concat(),
        _ => {}
    }
    bytes
}

type Disturbance = Vec<(usize, usize)>;

fn disturbances() -> impl Strategy<Value = Disturbance> {
    prop::collection::vec((any::<usize>(), any::<usize>()), 1..4)
}

#[test]
fn disturbed_messages_are_refused_or_harmless() {
    let mut protocol = world();
    let rows = table(&protocol);
    let senders: Vec<Addr> = ["dora", "clara", "anna", "admin", "heir"]
        .map(|name| protocol.addr(name))
        .into();
    let story = (any::<u32>(), any::<u32>(), any::<u32>(), disturbances());
    let cell = std::cell::RefCell::new(&mut protocol);
    let outcome = TestRunner::new(config(1_500)).run(&story, |(row, sender, hook, changes)| {
        let mut protocol = cell.borrow_mut();
        let row = &rows[row as usize % rows.len()];
        let mut msg = row.msg.clone();
        for (place, how) in changes {
            // Mostly what is inside a `Send`, which is base64 of JSON.
            let inside = msg["send"]["msg"].as_str().filter(|_| hook % 4 != 0);
            let inside = inside.and_then(|text| cosmwasm_std::Binary::from_base64(text).ok());
            match inside.and_then(|bytes| serde_json::from_slice::<Value>(&bytes).ok()) {
                Some(mut inner) => {
                    disturb(&mut inner, place, how);
                    let bytes = serde_json::to_vec(&inner).unwrap();
                    msg["send"]["msg"] = json!(cosmwasm_std::Binary::from(bytes).to_base64());
                }
                None => disturb(&mut msg, place, how),
            }
        }
        // Contracts of ours send what their code says and nothing else.
        let is_ours = protocol.contracts.all().contains(&row.right);
        let somebody = &senders[sender as usize % senders.len()];
        let sender = if is_ours || sender % 3 == 0 {
            somebody
        } else {
            &row.right
        };
        let before = (protocol.books(), protocol.supply());
        match protocol.execute_bytes(sender, &row.to, &garbled(&msg, hook)) {
            Ok(_) => protocol.assert_conserved(),
            Err(error) => {
                prop_assert!(!error.root_cause().to_string().is_empty());
                prop_assert_eq!((protocol.books(), protocol.supply()), before);
            }
        }
        Ok(())
    });
    outcome.unwrap_or_else(|failure| panic!("{failure}"));
}

/// Every query of every contract, as a program of ours would ask it.
fn queries(protocol: &Protocol) -> Vec<(Addr, Value)> {
    let contracts = &protocol.contracts;
    let dora = protocol.addr("dora").into_string();
    let model = || MODEL.parse().unwrap();
    let item = ItemId {
        job: 1,
        shard: 0,
        replica: 0,
    };
    let limit = Some(30);
    let request = DrawRequest {
        model: model(),
        version: 1,
        engine_class: None,
        compute_shares: vec![3_000, 4_000, 3_000],
        royalty: RoyaltyRate {
            royalty_bps: 1_000,
            royalty_per_1k_units: 333u128.into(),
        },
        gateway_bps: 0,
        seed: Digest([7; 32]),
        item_price_max: Uint128::MAX,
        seconds_max: Some(60),
        shards: vec![DrawShard {
            units: Units {
                requests: 1,
                units_in: 9,
                units_out: 0,
            },
            replicas: 2,
            exclude: vec![1],
            avoid: vec![2],
            prefer_one_owner: true,
            taken_owners: vec![dora.clone()],
            engine_class: None,
        }],
    };
    let mut all: Vec<(Addr, Value)> = vec![];
    let mut ask = |contract: &Addr, question: Value| all.push((contract.clone(), question));
    let token = [
        json!(Cw20QueryMsg::Balance { address: dora.clone() }),
        json!({ "all_allowances": { "owner": dora, "start_after": null, "limit": 5 } }),
        json!({ "all_accounts": { "start_after": null, "limit": 5 } }),
    ];
    token
        .into_iter()
        .for_each(|question| ask(&contracts.func_token, question));
    use registry::QueryMsg as Registry;
    for question in [
        json!(Registry::Models {
            namespace: Some("demo".parse().unwrap()),
            start_after: Some(model()),
            limit,
        }),
        json!(Registry::Versions {
            model: model(),
            start_after: Some(0),
            limit,
        }),
        json!(Registry::Offer {
            model: model(),
            version: Some(1),
            endpoint: "embeddings".into(),
        }),
    ] {
        ask(&contracts.model_registry, question);
    }
    use staking::QueryMsg as Staking;
    for question in [
        json!(Staking::Draw { request }),
        json!(Staking::Providers {
            start_after: Some(dora.clone()),
            limit,
        }),
        json!(Staking::DeploymentsOf {
            model: model(),
            version: 1,
            start_after: Some(1),
            limit,
        }),
        json!(Staking::Offers {
            deployments: vec![1, 2]
        }),
        json!(Staking::Deployments {
            provider: Some(protocol.addr("anna").into_string()),
            start_after: Some(0),
            limit,
        }),
    ] {
        ask(&contracts.provider_staking, question);
    }
    use escrow::QueryMsg as Escrow;
    for question in [
        json!(Escrow::Money {
            holder: dora.clone(),
            start_after: Some(0),
            sessions_after: Some(0),
            limit,
        }),
        json!(Escrow::Ledger {
            start_after: Some(dora.clone()),
            limit,
        }),
        json!(Escrow::Hold { job: 1 }),
        json!(Escrow::Session { session: 1 }),
        json!(Escrow::Sessions {
            account: dora.clone(),
            start_after: Some(0),
            limit,
        }),
        json!(Escrow::SessionsOf {
            deployment: 1,
            start_after: Some(0),
            limit,
        }),
    ] {
        ask(&contracts.royalty_escrow, question);
    }
    use orchestrator::QueryMsg as Orchestrator;
    for question in [
        json!(Orchestrator::Jobs {
            developer: Some(dora),
            start_before: Some(9),
            limit,
        }),
        json!(Orchestrator::Items {
            job: 1,
            start_after: Some(item),
            limit,
        }),
        json!(Orchestrator::Input { job: 1, shard: 0 }),
        json!(Orchestrator::Links { item, attempt: 0 }),
        json!(Orchestrator::Overdue { limit }),
    ] {
        ask(&contracts.job_orchestrator, question);
    }
    all
}

#[test]
fn disturbed_queries_are_answered_or_refused() {
    let protocol = world();
    let queries = queries(&protocol);
    for (contract, question) in &queries {
        protocol.ask::<Value>(contract, question);
    }
    let story = (any::<u32>(), any::<u32>(), disturbances());
    let outcome = TestRunner::new(config(3_000)).run(&story, |(query, cut, changes)| {
        let (contract, question) = &queries[query as usize % queries.len()];
        let mut question = question.clone();
        for (place, how) in changes {
            disturb(&mut question, place, how);
        }
        if let Err(error) = protocol.ask_bytes(contract, &garbled(&question, cut)) {
            prop_assert!(!error.to_string().is_empty());
        }
        Ok(())
    });
    outcome.unwrap_or_else(|failure| panic!("{failure}"));
}
