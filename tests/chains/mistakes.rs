//! What is refused, and in which words.

use client::Call;
use cosmwasm_std::coins;
use serde_json::{json, Value};

use crate::{
    market::{metadata, profile, version, FUNC, MODEL},
    side::Side,
};

fn bytes(contract: &str, msg: &[u8]) -> Call {
    Call::Execute {
        contract: contract.into(),
        msg: msg.into(),
        funds: vec![],
    }
}

async fn refuses(side: &mut Side, contract: &str, who: &str, messages: &[Value]) {
    for msg in messages {
        let call = Call::execute(contract, msg).unwrap();
        side.tries(&format!("{who} tries {msg}"), who, &[call]).await;
        side.executes(&format!("{who} sends {msg}"), who, contract, msg.clone())
            .await;
    }
}

pub(crate) async fn of_the_token(side: &mut Side) {
    let token = side.client.contracts().func_token.clone();
    let (creator, relayer) = (side.address("creator"), side.address("relayer"));
    side.executes(
        "FUNC is sent",
        "developer",
        &token,
        json!({ "transfer": { "recipient": relayer, "amount": "5" } }),
    )
    .await;
    let allow = json!({ "increase_allowance": { "spender": creator, "amount": "70" } });
    side.executes("an allowance", "developer", &token, allow).await;
    let owner = side.address("developer");
    let take = json!({ "transfer_from": { "owner": owner, "recipient": relayer, "amount": "30" } });
    side.executes("it is used", "creator", &token, take).await;
    side.executes("some is burnt", "relayer", &token, json!({ "burn": { "amount": "1" } }))
        .await;
    let messages = [
        json!({ "transfer": { "recipient": relayer, "amount": "999999999999999999" } }),
        json!({ "transfer": { "recipient": "nobody", "amount": "1" } }),
        json!({ "transfer": { "recipient": relayer, "amount": "0" } }),
        json!({ "transfer": { "recipient": relayer, "amount": "-1" } }),
        json!({ "transfer": { "recipient": relayer } }),
        json!({ "transfer_from": { "owner": owner, "recipient": relayer, "amount": "41" } }),
        json!({ "mint": { "recipient": relayer, "amount": "1" } }),
        json!({ "nonsense": {} }),
        json!({}),
        json!([]),
        json!("burn"),
    ];
    refuses(side, &token, "creator", &messages).await;
    for (what, msg) in [
        ("nothing", &b""[..]),
        ("no JSON", b"nope"),
        ("bytes", b"\xff\xfe"),
        ("half a message", b"{\"burn\":"),
    ] {
        side.does(&format!("{what} as a message"), "creator", &[bytes(&token, msg)])
            .await;
    }
}

pub(crate) async fn of_the_market(side: &mut Side) {
    let contracts = side.client.contracts().clone();
    let creator = side.address("creator");
    let all = json!([{ "address": creator, "bps": 10_000 }]);
    let publish = |model: &str, payout: &Value| json!({ "publish_model": { "model": model, "metadata": metadata("x"), "payout": payout, "parents": [] } });
    let registry = [
        publish(MODEL, &all),
        publish("other/model", &all),
        publish("demo/new", &json!([])),
        publish("demo/new", &json!([{ "address": "nobody", "bps": 10_000 }])),
        publish("Demo/New", &all),
        json!({ "publish_version": { "model": MODEL, "version": version(&[1, 2]) } }),
        json!({ "publish_version": { "model": "demo/none", "version": version(&[10_000]) } }),
        json!({ "record": { "usages": [] } }),
        json!({ "wire": { "royalty_escrow": creator } }),
        json!({ "accept_owner": { "model": MODEL } }),
        json!({ "accept_admin": {} }),
        json!({ "propose_admin": { "admin": null } }),
    ];
    refuses(side, &contracts.model_registry, "creator", &registry).await;
    refuses(
        side,
        &contracts.model_registry,
        "gateway",
        &[json!({ "set_status": { "model": MODEL, "status": "paused" } })],
    )
    .await;
    let staking = [
        json!({ "register_provider": { "profile": profile("anna") } }),
        json!({ "unbond": { "amount": "0" } }),
        json!({ "unbond": { "amount": "400000000" } }),
        json!({ "withdraw": {} }),
        json!({ "drain": { "deployment": 2 } }),
        json!({ "drain": { "deployment": 99 } }),
        json!({ "occupy": { "items": [] } }),
        json!({ "vacate": { "items": [] } }),
    ];
    refuses(side, &contracts.provider_staking, "provider-1", &staking).await;
    let escrow = [
        json!({ "withdraw": { "amount": "999999999999" } }),
        json!({ "withdraw": { "amount": "0" } }),
        json!({ "release": { "job": 1 } }),
        json!({ "release_expired": { "job": 1 } }),
        json!({ "settle": { "settlements": [] } }),
    ];
    refuses(side, &contracts.royalty_escrow, "developer", &escrow).await;
    let job = |model: &str, price: &str| {
        json!({ "submit_job": { "job": {
            "model": model, "version": null, "endpoint": "embeddings", "engine_class": null, "shards": [{ "inline": ["YQ=="] }],
            "replicas": 1, "units_max": 100, "max_price": price, "deadline_seconds": null, "gateway": null,
        } } })
    };
    let work = [
        job("demo/none", "1000000"),
        job(MODEL, "1"),
        job(MODEL, "900000000000"),
        json!({ "expire": { "item": { "job": 9, "shard": 0, "replica": 0 } } }),
    ];
    refuses(side, &contracts.job_orchestrator, "developer", &work).await;
    side.sends(
        "FUNC with a message for nobody",
        "developer",
        &contracts.royalty_escrow,
        FUNC,
        &json!({ "give": {} }),
    )
    .await;
    side.sends(
        "FUNC for a contract that takes none",
        "developer",
        &contracts.job_orchestrator,
        FUNC,
        &json!({}),
    )
    .await;
}

/// What only a sibling, or an admin, may say: anybody else gets the same words on both chains.
pub(crate) async fn of_strangers(side: &mut Side) {
    let contracts = side.client.contracts().clone();
    let item = json!({ "job": 1, "shard": 0, "replica": 0 });
    let (creator, royalty) = (
        side.address("creator"),
        json!({ "royalty_bps": 0, "royalty_per_1k_units": "0" }),
    );
    let staking = [
        json!({ "wire": { "royalty_escrow": creator, "job_orchestrator": creator } }),
        json!({ "occupy": { "items": [{ "item": item, "deployments": [1] }] } }),
        json!({ "record_settled": { "work": [] } }),
        json!({ "record_settled": { "work": [{ "deployment": 1, "price": "1" }] } }),
        json!({ "reserve": { "session": 1, "deployments": [1] } }),
        json!({ "free": { "session": 1, "deployments": [1] } }),
        json!({ "unjail": { "provider": side.address("provider-1") } }),
        json!({ "unjail": { "provider": "nobody" } }),
        json!({ "propose_admin": { "admin": creator } }),
        json!({ "accept_admin": {} }),
        json!({ "propose_migration": { "code_id": 1, "msg": "e30=" } }),
        json!({ "cancel_migration": {} }),
        json!({ "execute_migration": {} }),
    ];
    refuses(side, &contracts.provider_staking, "creator", &staking).await;
    let hold = json!({ "job": 1, "session": 1, "spans": [{ "deployment": 1, "price": "1" }], "expires_at": 1 });
    let escrow = [
        json!({ "wire": { "provider_staking": creator, "job_orchestrator": creator } }),
        json!({ "hold_forced": hold }),
        json!({ "end_forced": { "job": 1, "session": 1, "outcome": { "answered": {} } } }),
        json!({ "end_forced": { "job": 1, "session": 1, "outcome": { "missed": { "deployment": 1 } } } }),
        json!({ "end_forced": { "job": 1, "session": 1, "outcome": "answered" } }),
        json!({ "distribute_under": { "model": MODEL, "payout": [], "parents": [] } }),
        json!({ "propose_admin": { "admin": null } }),
        json!({ "accept_admin": {} }),
    ];
    refuses(side, &contracts.royalty_escrow, "creator", &escrow).await;
    let request = json!({
        "session": 1, "owner": creator, "model": MODEL, "version": 1, "endpoint": "embeddings", "royalty": royalty,
        "gateway": null, "units_per_request_max": 256, "offers": [], "rows": ["YQ=="],
    });
    let work = [
        json!({ "open_forced": { "request": request } }),
        json!({ "propose_admin": { "admin": null } }),
        json!({ "execute_migration": {} }),
    ];
    refuses(side, &contracts.job_orchestrator, "creator", &work).await;
}

/// Of whole transactions, whatever they are about.
pub(crate) async fn of_transactions(side: &mut Side) {
    let token = side.client.contracts().func_token.clone();
    let relayer = side.address("relayer");
    let good = Call::cw20_transfer(&token, &relayer, 1).unwrap();
    let bad = Call::cw20_transfer(&token, &relayer, u128::MAX / 2).unwrap();
    side.does(
        "three messages",
        "developer",
        &[good.clone(), good.clone(), good.clone()],
    )
    .await;
    side.does("the second of two fails", "developer", &[good.clone(), bad.clone()])
        .await;
    side.tries("that is tried", "developer", &[good.clone(), bad]).await;
    side.does("coins are sent", "developer", &[Call::send(&relayer, 12_345)])
        .await;
    side.does(
        "coins and FUNC are sent",
        "developer",
        &[Call::send(&relayer, 1), good.clone()],
    )
    .await;
    side.does(
        "more coins than there are",
        "developer",
        &[Call::send(&relayer, u128::from(u64::MAX))],
    )
    .await;
    side.does("coins for no address", "developer", &[Call::send("nobody", 1)])
        .await;
    side.does("no coins", "developer", &[Call::send(&relayer, 0)]).await;
    side.does(
        "coins that no contract takes",
        "developer",
        &[good.clone().with_funds(coins(5, "ustake"))],
    )
    .await;
    side.does(
        "coins that nobody has",
        "developer",
        &[good.clone().with_funds(coins(5, "uother"))],
    )
    .await;
    side.does("a contract that is not there", "developer", &[bytes(&relayer, b"{}")])
        .await;
    side.does("a contract that could not be", "developer", &[bytes("nobody", b"{}")])
        .await;
    side.does_with("gas for nothing", "developer", std::slice::from_ref(&good), 1)
        .await;
    side.does_with(
        "gas for the signature",
        "developer",
        std::slice::from_ref(&good),
        20_000,
    )
    .await;
    second_token(side).await;
}

async fn second_token(side: &mut Side) {
    let developer = side.address("developer");
    let code = side
        .client
        .contract_info(&side.client.contracts().func_token.clone())
        .await
        .unwrap()
        .code_id;
    let instantiate = |code_id: u64, label: &str, msg: Value| Call::Instantiate {
        code_id,
        msg: serde_json::to_vec(&msg).unwrap(),
        label: label.into(),
        admin: None,
    };
    let supply =
        json!({ "initial_balances": [{ "address": developer, "amount": "1000000000000000" }], "marketing": null });
    let little = json!({ "initial_balances": [{ "address": developer, "amount": "1" }], "marketing": null });
    side.does(
        "another token",
        "developer",
        &[instantiate(code, "another", supply.clone())],
    )
    .await;
    side.does("a token of one", "developer", &[instantiate(code, "one", little)])
        .await;
    side.does(
        "code that is not there",
        "developer",
        &[instantiate(77, "x", json!({}))],
    )
    .await;
    side.does("code zero", "developer", &[instantiate(0, "x", json!({}))])
        .await;
    side.does(
        "a contract without a name",
        "developer",
        &[instantiate(code, "", supply)],
    )
    .await;
}
