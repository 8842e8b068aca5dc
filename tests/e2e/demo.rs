//! `fxn demo --output json`: what the story must show, recomputed from its report.

use std::collections::{BTreeMap, BTreeSet};

use schema::{
    orchestrator::{Blame, ItemResponse, ItemStatus},
    price::{Ask, FeeBps, Units},
    staking::Span,
};
use serde_json::Value;

use crate::{binary, document, machine, root, survivors, Stage};

const DIMENSIONS: usize = 384;

fn array<'a>(value: &'a Value, field: &str) -> &'a Vec<Value> {
    value[field]
        .as_array()
        .unwrap_or_else(|| panic!("{field} is not a list"))
}

fn items(job: &Value) -> Vec<ItemResponse> {
    serde_json::from_value(job["items"].clone()).unwrap()
}

fn vectors(value: &Value) -> Vec<Vec<f32>> {
    serde_json::from_value(value.clone()).unwrap()
}

fn events<'a>(report: &'a Value, name: &'a str) -> impl Iterator<Item = &'a Value> {
    array(report, "events")
        .iter()
        .filter(move |event| event["type"] == name)
}

#[test]
fn the_demonstration_shows_what_it_promises() {
    let _machine = machine();
    let stage = Stage::open();
    let report = document(&stage.demo(&["--output", "json"]).output().unwrap());
    assert_eq!(survivors(&report), Vec::<u64>::new());
    if binary().ends_with("release/fxn") {
        assert!(report["seconds"].as_f64().unwrap() < 120.0, "{}", report["seconds"]);
    }
    every_provider_has_a_host_and_a_relayer_of_its_own(&report);
    job_one_is_settled_in_four_shards_and_two_replicas(&report);
    the_embeddings_are_the_models(&report);
    the_killed_host_paid_and_another_took_over(&report);
    the_session_was_settled_by_one_voucher_a_host(&report);
    earnings_are_ask_times_units(&report);
    books_match_the_token(&report);
    the_chain_is_named(&report, &stage);
    for event in array(&report, "events") {
        assert!(event["height"].as_u64().unwrap() >= 1);
        assert_eq!(event["tx_hash"].as_str().unwrap().len(), 64);
    }
}

/// Which chain it was, and where each of its validators stands.
fn the_chain_is_named(report: &Value, stage: &Stage) {
    let chain = &report["chain"];
    let version = chain["app_version"].as_str().unwrap();
    assert!(version.chars().next().unwrap().is_ascii_digit(), "{version}");
    let id = if stage.is_real {
        "fxn-localnet-1"
    } else {
        "fxn-devnet-1"
    };
    assert_eq!(chain["chain_id"], id);
    let last = array(report, "events")
        .iter()
        .map(|event| event["height"].as_u64().unwrap());
    let last = last.max().unwrap();
    let validators = array(chain, "validators");
    assert!(!validators.is_empty());
    for validator in validators {
        assert!(validator["height"].as_u64().unwrap() >= last, "{validator}");
        assert_eq!(validator["app_version"], version);
    }
}

fn every_provider_has_a_host_and_a_relayer_of_its_own(report: &Value) {
    let running: Vec<&Value> = array(report, "processes")
        .iter()
        .filter(|process| process["killed"] == false)
        .collect();
    for kind in ["host", "relayer"] {
        let of_kind = |process: &&&Value| process["role"].as_str().unwrap().ends_with(&format!("/{kind}"));
        let homes: BTreeSet<&str> = running
            .iter()
            .filter(of_kind)
            .map(|process| process["home"].as_str().unwrap())
            .collect();
        assert_eq!(homes.len(), 6, "{kind}");
    }
    let pids: BTreeSet<u64> = running.iter().map(|process| process["pid"].as_u64().unwrap()).collect();
    assert_eq!(pids.len(), running.len());
    assert!(running.iter().all(|process| !array(process, "ports").is_empty()));
    assert_eq!(events(report, "provider_registered").count(), 6);
}

fn job_one_is_settled_in_four_shards_and_two_replicas(report: &Value) {
    let job = &report["jobs"][0];
    assert_eq!(
        (&job["status"], &job["shards"], &job["replicas"]),
        (&"completed".into(), &4.into(), &2.into())
    );
    let items = items(job);
    assert_eq!(items.len(), 8);
    let mut asks: BTreeMap<u8, BTreeSet<u128>> = BTreeMap::new();
    for item in &items {
        assert_eq!(item.spans.len(), 3, "three stages, three hosts");
        for span in &item.spans {
            asks.entry(span.first).or_default().insert(span.ask.per_1k_in.u128());
        }
        let other = items
            .iter()
            .find(|other| other.item.shard == item.item.shard && other.item.replica != item.item.replica);
        let owners = |item: &ItemResponse| {
            item.spans
                .iter()
                .map(|span| span.provider.clone())
                .collect::<BTreeSet<_>>()
        };
        assert!(
            owners(item).is_disjoint(&owners(other.unwrap())),
            "one owner never fills two replicas"
        );
    }
    let all: BTreeSet<u128> = asks.values().flatten().copied().collect();
    assert_eq!(
        all.len(),
        asks.values().map(BTreeSet::len).sum::<usize>(),
        "stages have different asks"
    );
    assert!(events(report, "attested").count() >= 8, "receipts are on chain");
    let royalty = events(report, "endpoint_set").next().unwrap();
    assert!(royalty["royalty_bps"].as_u64().unwrap() > 0);
    let reasons: BTreeSet<&str> = array(report, "ledger")
        .iter()
        .map(|line| line["reason"].as_str().unwrap())
        .collect();
    for reason in ["compute", "royalty", "lineage", "protocol", "deposit", "penalty"] {
        assert!(reasons.contains(reason), "{reason} is not in the ledger");
    }
}

fn the_embeddings_are_the_models(report: &Value) {
    let vectors = vectors(&report["embeddings"]);
    let reference = std::fs::read(root().join("tests/fixtures/minilm-64.f32")).unwrap();
    let (reference, _) = reference.as_chunks::<4>();
    let reference: Vec<f32> = reference.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
    assert_eq!(vectors.len(), 64);
    for (vector, expected) in vectors.iter().zip(reference.chunks(DIMENSIONS)) {
        assert_eq!(vector.len(), DIMENSIONS);
        let worst = vector
            .iter()
            .zip(expected)
            .map(|(found, expected)| (found - expected).abs())
            .fold(0.0, f32::max);
        assert!(worst <= 1e-5, "{worst}");
    }
}

fn the_killed_host_paid_and_another_took_over(report: &Value) {
    let job = array(report, "jobs").last().unwrap();
    assert_eq!((&job["status"], &job["replicas"]), (&"completed".into(), &1.into()));
    let missed: Vec<(ItemResponse, u64)> = items(job)
        .into_iter()
        .filter_map(|item| {
            let culprit = item.history.iter().find_map(|past| match past.blame {
                Blame::Miss { deployment, .. } => Some(deployment),
                _ => None,
            });
            culprit.map(|culprit| (item, culprit))
        })
        .collect();
    assert!(!missed.is_empty(), "somebody missed");
    for (item, culprit) in &missed {
        assert!(matches!(item.status, ItemStatus::Settled { .. }), "{:?}", item.status);
        assert!(item.attempt >= 1);
        assert_ne!(item.spans[0].deployment, *culprit, "somebody else took over");
        assert!(events(report, "bond_penalised").any(|event| event["deployment"] == *culprit));
    }
    assert!(array(report, "processes")
        .iter()
        .any(|process| process["killed"] == true));
    let penalty: u64 = lines(report, "penalty")
        .chain(lines(report, "keeper"))
        .map(|line| line["amount"].as_u64().unwrap())
        .sum();
    let paid: u64 = events(report, "bond_penalised")
        .map(|event| event["amount"].as_str().unwrap().parse::<u64>().unwrap())
        .sum();
    assert_eq!(penalty, paid);
    assert!(lines(report, "penalty").all(|line| line["account"] == "developer"));
}

fn lines<'a>(report: &'a Value, reason: &'a str) -> impl Iterator<Item = &'a Value> {
    array(report, "ledger")
        .iter()
        .filter(move |line| line["reason"] == reason)
}

fn earnings_are_ask_times_units(report: &Value) {
    // The local profile's parts of a compute fee.
    let fees = FeeBps {
        protocol_bps: 200,
        audit_bps: 0,
        burn_bps: 100,
    };
    let mut expected: BTreeMap<String, u128> = BTreeMap::new();
    for item in array(report, "jobs").iter().flat_map(items) {
        if let ItemStatus::Settled { result, .. } = &item.status {
            for span in &item.spans {
                let fee = span.ask.compute_fee(result.units).unwrap();
                *expected.entry(span.provider.clone()).or_default() += fees.split(fee).unwrap().provider.u128();
            }
        }
    }
    for (provider, ask, units) in in_sessions(report) {
        let fee = ask.compute_fee(units).unwrap();
        *expected.entry(provider).or_default() += fees.split(fee).unwrap().provider.u128();
    }
    let told: BTreeMap<String, u128> = lines(report, "compute")
        .map(|line| {
            (
                line["holder"].as_str().unwrap().to_owned(),
                u128::from(line["amount"].as_u64().unwrap()),
            )
        })
        .collect();
    assert_eq!(told, expected);
}

/// What vouchers have counted at each deployment, with its price: every deployment has a span in the jobs.
fn in_sessions(report: &Value) -> Vec<(String, Ask, Units)> {
    let spans = array(report, "jobs").iter().flat_map(items).flat_map(|item| item.spans);
    let spans: BTreeMap<u64, Span> = spans.map(|span| (span.deployment, span)).collect();
    let mut counted: BTreeMap<u64, Units> = BTreeMap::new();
    for event in events(report, "voucher_settled") {
        let units = counted.entry(event["deployment"].as_u64().unwrap()).or_default();
        units.requests += event["requests"].as_u64().unwrap();
        units.units_in += event["units_in"].as_u64().unwrap();
    }
    let priced = counted.into_iter().map(|(deployment, units)| {
        let span = &spans[&deployment];
        (span.provider.clone(), span.ask, units)
    });
    priced.collect()
}

fn the_session_was_settled_by_one_voucher_a_host(report: &Value) {
    let session = &array(report, "sessions")[0];
    assert_eq!((&session["requests"], &session["texts"]), (&64.into(), &64.into()));
    let settled: Vec<&Value> = events(report, "voucher_settled").collect();
    let hosts: BTreeSet<u64> = settled
        .iter()
        .map(|event| event["deployment"].as_u64().unwrap())
        .collect();
    // Three stages, and whoever else was fast.
    assert!(
        hosts.len() >= 3 && settled.len() < 64,
        "{} vouchers of {hosts:?}",
        settled.len()
    );
    assert_eq!(session["settlements"], settled.len());
    let paid: u64 = settled.iter().map(|event| event["paid"].as_u64().unwrap()).sum();
    assert_eq!((&session["paid"], paid > 0), (&paid.into(), true));
    let texts: u64 = settled.iter().map(|event| event["requests"].as_u64().unwrap()).sum();
    assert_eq!(texts, 64 * 3, "each text was counted once on every stage");
    assert_eq!(events(report, "allocation_closed").count(), 6);
}

fn books_match_the_token(report: &Value) {
    assert_eq!(report["conserved"], true);
    for contract in ["royalty_escrow", "provider_staking"] {
        let balance = &report["balances"][contract];
        assert!(balance["cw20_balance"].as_u64().unwrap() > 0);
        assert_eq!(balance["cw20_balance"], balance["ledger_sum"], "{contract}");
    }
}
