//! Models, providers and deposits, as wire messages.

use client::Call;
use cosmwasm_std::to_json_binary;
use fxn_tests::{Host, Serving};
use schema::Digest;
use serde_json::{json, Value};

use crate::side::Side;

pub(crate) const MODEL: &str = "demo/minilm";
pub(crate) const PARENT: &str = "demo/bert";
pub(crate) const FUNC: u128 = 1_000_000;
/// One for each stage, so that the draw has no choice. With the name of the host, whose key follows from it.
pub(crate) const PROVIDERS: [(&str, &str); 3] = [("provider-1", "anna"), ("provider-2", "bea"), ("provider-3", "cora")];

pub(crate) fn metadata(title: &str) -> Value {
    json!({
        "title": title, "description": "", "task": "embeddings", "licence": "Apache-2.0", "tags": ["a", "b"],
        "homepage": null, "card": null,
    })
}

pub(crate) fn version(shares: &[u16]) -> Value {
    let stages = shares.iter().enumerate().map(|(index, share)| {
        let digest = Digest::of(format!("stage {index}").as_bytes());
        json!({ "digest": digest, "weight_bytes": 1_000, "compute_share_bps": share })
    });
    json!({
        "manifest": Digest::of(b"manifest"), "manifest_uris": ["http://127.0.0.1:1/"], "stages": stages.collect::<Vec<_>>(),
        "tolerance": "0.0001", "units_per_request_max": 256,
    })
}

pub(crate) fn profile(host: &str) -> Value {
    json!({
        "name": host, "endpoint": "http://127.0.0.1:1", "host_key": Host::named(host).public_key(), "operator": null, "hardware": "",
    })
}

fn terms(stage: u8) -> Value {
    let mut terms = Serving::stages(stage, stage).terms();
    terms.sla.base_seconds = 1;
    terms.sla.seconds_per_1k_units = 0;
    terms.slots = 4;
    // So little that it is the same however many seconds the chains differ by.
    terms.reservation_per_hour = 1u128.into();
    serde_json::to_value(terms).unwrap()
}

pub(crate) async fn opens(side: &mut Side) {
    let contracts = side.client.contracts().clone();
    let (registry, staking, escrow) = (
        contracts.model_registry.as_str(),
        contracts.provider_staking.as_str(),
        contracts.royalty_escrow.as_str(),
    );
    let config = side.client.registry().config().await.unwrap();
    let claim = json!({ "claim_namespace": { "namespace": "demo" } });
    side.sends(
        "a namespace is claimed",
        "creator",
        registry,
        config.params.namespace_fee.u128(),
        &claim,
    )
    .await;
    side.sends(
        "a namespace is claimed twice",
        "creator",
        registry,
        config.params.namespace_fee.u128(),
        &claim,
    )
    .await;
    let creator = side.address("creator");
    let other = side.address("parent-creator");
    for (model, parents) in [(PARENT, json!([])), (MODEL, json!([{ "model": PARENT, "bps": 2_500 }]))] {
        let payout = json!([{ "address": creator, "bps": 6_667 }, { "address": other, "bps": 3_333 }]);
        let publish = json!({ "publish_model": {
            "model": model, "metadata": metadata(model), "payout": payout, "parents": parents,
        } });
        side.executes("a model is published", "creator", registry, publish)
            .await;
        let shares = version(&[3_000, 4_000, 3_000]);
        let publish = json!({ "publish_version": { "model": model, "version": shares } });
        let endpoint = json!({ "set_endpoint": {
            "model": model, "endpoint": "embeddings",
            "terms": { "unit": "token", "royalty": { "royalty_bps": 1_000, "royalty_per_1k_units": "333" } },
        } });
        let calls = [publish, endpoint].map(|msg| Call::execute(registry, &msg).unwrap());
        side.does("a version and its price in one transaction", "creator", &calls)
            .await;
    }
    let fee = side.client.staking().config().await.unwrap().params.listing_fee.u128();
    for (stage, (provider, host)) in (0u8..).zip(PROVIDERS) {
        let register = json!({ "register_provider": { "profile": profile(host) } });
        side.executes("a provider registers", provider, staking, register).await;
        side.sends("a bond", provider, staking, 400 * FUNC, &json!({ "bond": {} }))
            .await;
        side.sends(
            "a deployment",
            provider,
            staking,
            fee,
            &json!({ "deploy": { "terms": terms(stage) } }),
        )
        .await;
    }
    side.sends(
        "a deposit",
        "developer",
        escrow,
        100 * FUNC,
        &json!({ "deposit": { "beneficiary": null } }),
    )
    .await;
    let gift = json!({ "deposit": { "beneficiary": side.address("gateway") } });
    side.sends("a deposit for somebody else", "developer", escrow, FUNC, &gift)
        .await;
    side.executes(
        "some of it back",
        "gateway",
        escrow,
        json!({ "withdraw": { "amount": "400000" } }),
    )
    .await;
    side.executes(
        "a provider takes bond out",
        "provider-1",
        staking,
        json!({ "unbond": { "amount": "1000000" } }),
    )
    .await;
}

/// Every question of every contract, of what is there and of what is not.
pub(crate) async fn is_looked_at(side: &mut Side) {
    let contracts = side.client.contracts().clone();
    let developer = side.address("developer");
    let provider = side.address("provider-1");
    let nobody = side.address("faucet");
    let token = [
        json!({ "balance": { "address": developer } }),
        json!({ "balance": { "address": "nobody" } }),
        json!({ "token_info": {} }),
        json!({ "minter": {} }),
        json!({ "marketing_info": {} }),
        json!({ "download_logo": {} }),
        json!({ "allowance": { "owner": developer, "spender": provider } }),
        json!({ "all_allowances": { "owner": developer } }),
        json!({ "all_accounts": { "limit": 2 } }),
    ];
    let registry = [
        json!({ "config": {} }),
        json!({ "namespace": { "namespace": "demo" } }),
        json!({ "namespace": { "namespace": "free" } }),
        json!({ "model": { "model": MODEL } }),
        json!({ "model": { "model": "demo/none" } }),
        json!({ "model": { "model": "no name" } }),
        json!({ "models": { "namespace": null, "start_after": null, "limit": 1 } }),
        json!({ "version": { "model": MODEL, "version": 1 } }),
        json!({ "version": { "model": MODEL, "version": 2 } }),
        json!({ "versions": { "model": MODEL } }),
        json!({ "offer": { "model": MODEL, "version": null, "endpoint": "embeddings" } }),
        json!({ "offer": { "model": MODEL, "version": null, "endpoint": "chat" } }),
        json!({ "payout": { "model": MODEL } }),
    ];
    let staking = [
        json!({ "config": {} }),
        json!({ "provider": { "provider": provider } }),
        json!({ "provider": { "provider": nobody } }),
        json!({ "providers": { "limit": 2 } }),
        json!({ "deployment": { "deployment": 1 } }),
        json!({ "deployment": { "deployment": 77 } }),
        json!({ "deployments": { "provider": provider } }),
        json!({ "deployments_of": { "model": MODEL, "version": 1 } }),
        json!({ "totals": {} }),
    ];
    let escrow = [
        json!({ "config": {} }),
        json!({ "money": { "holder": developer } }),
        json!({ "money": { "holder": nobody } }),
        json!({ "earnings": { "holder": provider } }),
        json!({ "earnings": { "holder": format!("model:{PARENT}") } }),
        json!({ "hold": { "job": 1 } }),
        json!({ "ledger": {} }),
        json!({ "totals": {} }),
    ];
    let work = [
        json!({ "config": {} }),
        json!({ "job": { "job": 1 } }),
        json!({ "job": { "job": 99 } }),
        json!({ "jobs": { "developer": developer } }),
        json!({ "item": { "item": { "job": 1, "shard": 0, "replica": 0 } } }),
        json!({ "items": { "job": 2 } }),
        json!({ "input": { "job": 1, "shard": 0 } }),
        json!({ "links": { "item": { "job": 2, "shard": 0, "replica": 0 }, "attempt": 0 } }),
        json!({ "overdue": {} }),
    ];
    for (contract, questions) in [
        (&contracts.func_token, token.as_slice()),
        (&contracts.model_registry, &registry),
        (&contracts.provider_staking, &staking),
        (&contracts.royalty_escrow, &escrow),
        (&contracts.job_orchestrator, &work),
    ] {
        for question in questions {
            side.asks(contract, question).await;
        }
        side.asks(contract, json!({ "nonsense": {} })).await;
        side.asks(contract, json!({})).await;
        side.asks(contract, json!("config")).await;
        side.asks(contract, json!({ "config": { "more": 1 } })).await;
    }
    side.asks(&developer, json!({ "config": {} })).await;
    for key in ["contract_info", "nothing"] {
        let raw = side
            .client
            .raw(&contracts.royalty_escrow, key.as_bytes())
            .await
            .unwrap();
        side.tell(
            &format!("raw state {key}"),
            json!(raw.map(|bytes| to_json_binary(&bytes).unwrap())),
        );
    }
}
