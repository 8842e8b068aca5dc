//! Sessions: opened, paid by vouchers, topped up, closed with and without consent, left, finalised.

use fxn_tests::{Host, SESSION_KEY};
use schema::{
    receipt::Domain,
    session::{CloseConsent, SignedVoucher, Voucher},
};
use serde_json::{json, Value};

use crate::{
    market::{FUNC, MODEL},
    side::Side,
    work::passes,
};

fn domain(side: &Side) -> Domain {
    let network = side.client.network();
    Domain {
        chain_id: network.chain_id.clone(),
        contract: network.contracts.royalty_escrow.clone(),
    }
}

pub(crate) fn voucher(side: &Side, session: u64, deployment: u64, sequence: u64, amount: u128) -> Value {
    let rows = sequence * 100;
    let voucher = Voucher {
        session,
        deployment,
        sequence,
        requests: rows,
        units_in: rows * 10,
        units_out: 0,
        amount: amount.into(),
    };
    let signature = Host::named(SESSION_KEY).sign(&voucher.digest(&domain(side)));
    serde_json::to_value(SignedVoucher { voucher, signature }).unwrap()
}

fn consent(side: &Side, host: &str, session: u64, deployment: u64, sequence: u64) -> Value {
    let consent = CloseConsent {
        session,
        deployment,
        sequence,
    };
    let signature = Host::named(host).sign(&consent.digest(&domain(side)));
    json!({ "deployment": deployment, "signature": signature })
}

pub(crate) async fn now(side: &Side) -> u64 {
    side.client.status().await.unwrap().time_nanos / 1_000_000_000
}

pub(crate) async fn new_session(side: &Side, allocations: &[(u64, u128)]) -> Value {
    let put = |(deployment, amount): &(u64, u128)| json!({ "deployment": deployment, "amount": amount.to_string() });
    json!({ "open_session": { "session": {
        "model": MODEL, "version": null, "endpoint": "embeddings",
        "allocations": allocations.iter().map(put).collect::<Vec<_>>(),
        "session_key": Host::named(SESSION_KEY).public_key(),
        "gateway": { "address": side.address("gateway"), "bps": 250 },
        "expires_at": now(side).await + 600,
    } } })
}

pub(crate) async fn are_paid(side: &mut Side) {
    let escrow = side.client.contracts().royalty_escrow.clone();
    let open = new_session(side, &[(1, 20 * FUNC), (2, 20 * FUNC)]).await;
    side.executes("a session", "developer", &escrow, open).await;
    // Whoever is paid by the second is paid for one at least.
    let opened = now(side).await;
    passes(side, opened + 1).await;
    let mut forged = voucher(side, 1, 2, 1, FUNC);
    forged["voucher"]["amount"] = json!((2 * FUNC).to_string());
    let stray = voucher(side, 9, 1, 1, FUNC);
    let vouchers = json!([
        voucher(side, 1, 1, 1, FUNC / 10),
        forged,
        stray,
        voucher(side, 1, 2, 2, FUNC / 5)
    ]);
    let settle = |vouchers: Value| json!({ "settle_vouchers": { "vouchers": vouchers } });
    side.executes(
        "two vouchers that count and two that do not",
        "relayer",
        &escrow,
        settle(vouchers),
    )
    .await;
    let again = json!([voucher(side, 1, 1, 1, FUNC / 10)]);
    side.executes("one of them once more", "gateway", &escrow, settle(again))
        .await;
    side.executes("no voucher", "gateway", &escrow, settle(json!([]))).await;
    let more = |deployment: u64, amount: u128| json!({ "top_up": { "session": 1, "allocations": [{ "deployment": deployment, "amount": amount.to_string() }] } });
    side.executes("more money", "developer", &escrow, more(1, FUNC)).await;
    side.executes("a further deployment", "developer", &escrow, more(3, FUNC))
        .await;
    side.executes(
        "more than the slot is backed with",
        "developer",
        &escrow,
        more(1, 49 * FUNC),
    )
    .await;
    side.executes("somebody else's session", "gateway", &escrow, more(1, FUNC))
        .await;
    let joined = now(side).await;
    passes(side, joined + 1).await;
    are_looked_at(side).await;
    end(side, &escrow).await;
}

async fn are_looked_at(side: &mut Side) {
    let contracts = side.client.contracts().clone();
    let developer = side.address("developer");
    for question in [
        json!({ "session": { "session": 1 } }),
        json!({ "session": { "session": 2 } }),
        json!({ "sessions": { "account": developer } }),
        json!({ "sessions_of": { "deployment": 2 } }),
        json!({ "money": { "holder": developer } }),
    ] {
        side.asks(&contracts.royalty_escrow, question).await;
    }
    for deployments in [json!([2, 1]), json!([77])] {
        let question = json!({ "offers": { "deployments": deployments } });
        side.asks(&contracts.provider_staking, question).await;
    }
}

async fn end(side: &mut Side, escrow: &str) {
    let close = |consents: Value| json!({ "close_session": { "session": 1, "consents": consents } });
    let leave = |deployment: u64| json!({ "leave_session": { "session": 1, "deployment": deployment } });
    let finalise = json!({ "finalise_session": { "session": 1 } });
    side.executes("somebody leaves for a provider", "gateway", escrow, leave(3))
        .await;
    side.executes("a provider leaves", "provider-3", escrow, leave(3)).await;
    let stale = json!([consent(side, "anna", 1, 1, 7)]);
    side.executes("consent to another voucher", "developer", escrow, close(stale))
        .await;
    let last = json!([consent(side, "anna", 1, 1, 1)]);
    side.executes("closed with one consent", "developer", escrow, close(last))
        .await;
    side.executes("nothing more to close", "developer", escrow, close(json!([])))
        .await;
    let settle = json!({ "settle_vouchers": { "vouchers": [voucher(side, 1, 1, 3, FUNC / 2), voucher(side, 1, 2, 3, FUNC / 2)] } });
    side.executes("a closed one and one in its notice", "relayer", escrow, settle)
        .await;
    side.executes("finalised too early", "gateway", escrow, finalise.clone())
        .await;
    let session = json!({ "session": { "session": 1 } });
    let answer: Value = side.client.query(escrow, &session).await.unwrap();
    let dates = answer["allocations"].as_array().unwrap().iter();
    let date = dates.filter_map(|part| part["releasable_at"].as_u64()).min().unwrap();
    passes(side, date).await;
    side.executes("finalised by a stranger", "gateway", escrow, finalise.clone())
        .await;
    side.executes("and once more", "gateway", escrow, finalise).await;
    side.asks(escrow, session).await;
}
