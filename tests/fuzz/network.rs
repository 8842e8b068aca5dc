//! What comes from chains and people: names, events, messages, the network file, 24 words.

use std::{fmt::Display, fs, str::FromStr};

use client::{Network, Wallet};
use schema::{
    escrow::{self, Holder, Reason},
    event::EVENT_NAMES,
    orchestrator, registry, staking, token, Digest, Event, ItemId, ModelId, Namespace, PublicKey, Signature,
};
use serde_json::{json, Value};

use crate::{services::survives_json, target::Target};

const MIB: usize = 1 << 20;

fn survives_text<T: FromStr + Display + PartialEq + std::fmt::Debug>(text: &str) {
    if let Ok(parsed) = text.parse::<T>() {
        assert_eq!(parsed.to_string().parse::<T>().ok(), Some(parsed));
    }
}

#[test]
fn names_and_digests_read_back() {
    let samples = [
        "7.2.1",
        "demo/all-minilm-l6-v2",
        "model:demo/m",
        "penalty",
        &"0a".repeat(32),
        &"0A".repeat(33),
    ];
    let target = Target {
        name: "text",
        samples: samples.map(|sample| sample.as_bytes().to_vec()).to_vec(),
        memory: MIB,
    };
    target.attack(|bytes| {
        let text = String::from_utf8_lossy(bytes);
        survives_text::<ItemId>(&text);
        survives_text::<ModelId>(&text);
        survives_text::<Namespace>(&text);
        survives_text::<Holder>(&text);
        survives_text::<Reason>(&text);
        survives_text::<Digest>(&text);
        survives_text::<PublicKey>(&text);
        survives_text::<Signature>(&text);
        drop(text.parse::<client::TxHash>());
        drop(text.parse::<inference_host::Source>());
        drop(Wallet::from_mnemonic(&text));
        if let Ok(model) = text.parse::<ModelId>() {
            assert!(model.as_str().starts_with(model.namespace().as_str()));
        }
    });
}

/// An event with its attributes as JSON: `["wasm-settled", [["item", "1.0.0"], ...]]`.
fn written(event: &Event) -> Vec<u8> {
    let wasm = event.encode();
    let attributes: Vec<[&str; 2]> = wasm
        .attributes
        .iter()
        .map(|it| [it.key.as_str(), it.value.as_str()])
        .collect();
    serde_json::to_vec(&json!([format!("wasm-{}", wasm.ty), attributes])).unwrap()
}

#[test]
fn events_are_ours_foreign_or_broken_and_read_back() {
    let item: ItemId = "7.2.1".parse().unwrap();
    let events = [
        Event::JobAssigned {
            item,
            attempt: 1,
            model: "a/b".parse().unwrap(),
            version: 3,
            deployments: schema::event::DeploymentList(vec![4, 9, 2]),
            deadline: 10,
            evidence_until: 12,
        },
        Event::Credited {
            holder: Holder::Model("a/b".parse().unwrap()),
            reason: Reason::Lineage,
            amount: u128::MAX.into(),
            item: Some(item),
            deployment: None,
            model: None,
        },
        Event::Attested {
            item,
            attempt: 0,
            output_digest: Digest([1; 32]),
            units_in: u64::MAX,
            units_out: 0,
        },
        Event::AdminProposed { admin: None },
    ];
    let mut samples: Vec<Vec<u8>> = events.iter().map(written).collect();
    samples.extend(
        EVENT_NAMES
            .iter()
            .map(|name| serde_json::to_vec(&json!([name, []])).unwrap()),
    );
    samples.push(serde_json::to_vec(&events[0]).unwrap());
    let target = Target {
        name: "event",
        samples,
        memory: 16 * MIB,
    };
    target.attack(|bytes| {
        if let Ok(event) = serde_json::from_slice::<Event>(bytes) {
            assert_eq!(Event::from_wasm(&event.encode()), Ok(Some(event)));
        }
        let Ok((name, attributes)) = serde_json::from_slice::<(String, Vec<(String, String)>)>(bytes) else {
            return;
        };
        let pairs = attributes.iter().map(|(key, value)| (key.as_str(), value.as_str()));
        if let Ok(Some(event)) = Event::decode(&name, pairs) {
            assert_eq!(Event::from_wasm(&event.encode()), Ok(Some(event.clone())));
            let json: Value = serde_json::to_value(&event).unwrap();
            assert_eq!(serde_json::from_value::<Event>(json).unwrap(), event);
        }
    });
}

#[test]
fn messages_of_every_contract_survive_json() {
    let model = "a/b";
    let samples = [
        json!({"submit_job": {"job": {"model": model, "version": 1, "endpoint": "e", "engine_class": null,
            "shards": [{"inline": ["AAAA"]}], "replicas": 2, "units_max": 10, "max_price": "5",
            "deadline_seconds": null, "gateway": {"address": "w", "bps": 3}}}}),
        json!({"post_evidence": {"item": {"job": 1, "shard": 0, "replica": 0}, "attempt": 0, "links": []}}),
        json!({"receive": {"sender": "w", "amount": "5", "msg": "e30="}}),
        json!({"publish_model": {"model": model, "metadata": {"title": "t", "description": "", "task": "other",
            "licence": "MIT", "tags": [], "homepage": null, "card": null}, "payout": [{"address": "w", "bps": 10000}], "parents": []}}),
        json!({"draw": {"request": {"model": model, "version": 1, "engine_class": null, "compute_shares": [10000],
            "royalty": {"royalty_bps": 0, "royalty_per_1k_units": "0"}, "gateway_bps": 0, "seed": "00".repeat(32),
            "item_price_max": "9", "seconds_max": 1, "shards": []}}}),
        json!({"send": {"contract": "w", "amount": "5", "msg": "e30="}}),
        json!({"bond": {}}),
    ];
    let target = Target {
        name: "message",
        samples: samples
            .iter()
            .map(|sample| serde_json::to_vec(sample).unwrap())
            .collect(),
        memory: 16 * MIB,
    };
    target.attack(|bytes| {
        survives_json::<orchestrator::ExecuteMsg>(bytes);
        survives_json::<orchestrator::QueryMsg>(bytes);
        survives_json::<registry::ExecuteMsg>(bytes);
        survives_json::<registry::ReceiveMsg>(bytes);
        survives_json::<registry::QueryMsg>(bytes);
        survives_json::<staking::ExecuteMsg>(bytes);
        survives_json::<staking::ReceiveMsg>(bytes);
        survives_json::<staking::QueryMsg>(bytes);
        survives_json::<escrow::ExecuteMsg>(bytes);
        survives_json::<escrow::ReceiveMsg>(bytes);
        survives_json::<escrow::QueryMsg>(bytes);
        survives_json::<cw20::Cw20ExecuteMsg>(bytes);
        drop(serde_json::from_slice::<token::QueryMsg>(bytes));
    });
}

#[test]
fn a_network_file_is_read_or_refused() {
    let network = json!({
        "chain_id": "fxn-test-1", "rpc": "http://127.0.0.1:1", "denom": "ustake", "gas_price": "0.025", "bech32_prefix": "wasm",
        "contracts": {"func_token": "a", "model_registry": "b", "provider_staking": "c", "royalty_escrow": "d", "job_orchestrator": "e"},
    });
    let folder = tempfile::tempdir().unwrap();
    let (path, again) = (folder.path().join("network.json"), folder.path().join("again.json"));
    let target = Target {
        name: "network-file",
        samples: vec![serde_json::to_vec(&network).unwrap()],
        memory: 4 * MIB,
    };
    let mut saved = 0;
    target.attack(|bytes| {
        fs::write(&path, bytes).unwrap();
        let Ok(network) = Network::load(&path) else {
            return;
        };
        assert_eq!(
            serde_json::from_slice::<Network>(&serde_json::to_vec(&network).unwrap()).unwrap(),
            network
        );
        // Saving syncs, which is slow: a few are enough.
        saved += 1;
        if saved % 64 == 1 {
            network.save(&again).unwrap();
            assert_eq!(Network::load(&again).unwrap(), network);
        }
    });
}
