//! Rounds of the beacon: brought when an expiry needs one, from servers that nobody believes.

use std::{collections::BTreeSet, time::Duration};

use axum::{extract::Path, routing::get, Json, Router};
use beacon::{Secret, Server};
use relayer::{
    chain::{Batch, Trusted},
    keeper::Candidates,
    rounds::Rounds,
};
use schema::Schedule;
use serde_json::json;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::{
    expiry::Duty,
    fake_chain::{item, FakeChain, OTHER, WINDOW},
};

const SCHEDULE: Schedule = Schedule {
    genesis_seconds: 1,
    period_seconds: 1,
};

async fn listener() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    (listener, url)
}

/// Nobody listens there any more.
async fn dead() -> String {
    listener().await.1
}

async fn honest() -> String {
    let (listener, url) = listener().await;
    let server = Server::new(Secret::development(), SCHEDULE, || u64::MAX / 2);
    tokio::spawn(server.serve(listener, CancellationToken::new()));
    url
}

/// Signs every round with a key of its own.
async fn lying() -> String {
    let (listener, url) = listener().await;
    let answer = |Path(round): Path<u64>| async move {
        let signature = Secret::from_secret(&[1; 32]).unwrap().sign(round);
        Json(json!({ "round": round, "signature": signature }))
    };
    let router = Router::new().route("/public/{round}", get(answer));
    tokio::spawn(async move { axum::serve(listener, router).await });
    url
}

/// Takes the question and never answers.
async fn silent() -> String {
    let (listener, url) = listener().await;
    tokio::spawn(async move {
        let mut taken = vec![];
        while let Ok(connection) = listener.accept().await {
            taken.push(connection);
        }
    });
    url
}

/// A keeper with these servers, and an overdue item whose redraw needs a round.
async fn duty(servers: &[String], is_known: bool) -> (Duty, u64) {
    let chain = FakeChain::new();
    chain.assign(item(1), 0, [OTHER, OTHER], 10);
    let round = chain.world().seconds + 10 + WINDOW + 2;
    chain.change(|world| {
        world.items.get_mut(&item(1)).unwrap().redraw_round = Some(round);
        // Young enough not to be renewed.
        let newest = if is_known { round } else { world.seconds };
        world.rounds = Some(BTreeSet::from([newest]));
    });
    chain.mine(0);
    let trusted = Trusted {
        key: Secret::development().public_key(),
        schedule: SCHEDULE,
    };
    let timeout = Duration::from_millis(500);
    let rounds = Rounds::new(servers, trusted, timeout, Duration::from_secs(86_400)).unwrap();
    let mut candidates = Candidates::default();
    candidates.add(item(1), 0, 0);
    let duty = Duty::with(chain, candidates, rounds).await;
    duty.block(10 + WINDOW + 5).await;
    (duty, round)
}

async fn blocks_until_expired(duty: &Duty) {
    for _ in 0..60 {
        if duty.chain.world().expiries() == 1 {
            return;
        }
        duty.block(1).await;
    }
    panic!("never expired");
}

fn posts(duty: &Duty) -> Vec<u64> {
    let world = duty.chain.world();
    let rounds = world.transactions.iter().filter_map(|(batch, _)| match batch {
        Batch::Rounds(rounds) => Some(rounds.iter().map(|round| round.round).collect::<Vec<_>>()),
        _ => None,
    });
    rounds.flatten().collect()
}

#[tokio::test]
async fn the_round_that_an_expiry_needs_is_brought_before_it_by_whichever_server_has_it() {
    let (duty, round) = duty(&[dead().await, lying().await, silent().await, honest().await], false).await;
    blocks_until_expired(&duty).await;
    assert_eq!(posts(&duty), [round]);
    assert!(
        matches!(duty.chain.world().transactions[0].0, Batch::Rounds(_)),
        "the round first"
    );
}

#[tokio::test]
async fn servers_that_lie_are_dead_or_never_answer_cost_nothing_but_a_line_in_the_log() {
    let (duty, round) = duty(&[dead().await, lying().await, silent().await], false).await;
    for _ in 0..4 {
        duty.block(1).await;
    }
    assert_eq!(
        duty.chain.world().signatures,
        0,
        "nothing was signed, so nothing was paid"
    );
    assert!(!duty.keeper.is_finished());
    // Another relayer brings it.
    duty.chain.change(|world| {
        world.rounds.as_mut().unwrap().insert(round);
    });
    blocks_until_expired(&duty).await;
    assert!(posts(&duty).is_empty());
}

#[tokio::test]
async fn a_round_that_somebody_was_quicker_with_is_not_posted_again() {
    let (duty, _) = duty(&[honest().await], true).await;
    blocks_until_expired(&duty).await;
    assert!(posts(&duty).is_empty());
}
