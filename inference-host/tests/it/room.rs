//! What a host remembers gives way to new work in time, and never while somebody may ask for it.

use std::time::Duration;

use reqwest::StatusCode;
use schema::work::WorkState;

use crate::{
    kit::{item, now, Market, Provider},
    refusals::TEXTS,
};

/// An evidence window that no test sees the end of.
const WINDOW: u64 = 3600;

/// Assigns a job whose evidence is needed for an hour, unless the chain closes it before.
fn assign(market: &Market, host: &Provider, job: u64) {
    let mut assignment = market.assign(job, &TEXTS, &[(host, 1, 0, 2)]);
    assignment.deadline = now() + WINDOW;
    assignment.evidence_until = assignment.deadline + WINDOW;
    let mut facts = market.chain.0.lock().unwrap();
    facts.assignments.insert(item(job).key(), assignment);
}

/// The chain has settled the job, or expired it: it takes no evidence any more.
fn close(market: &Market, job: u64) {
    let mut facts = market.chain.0.lock().unwrap();
    facts.assignments.get_mut(&item(job).key()).unwrap().open = false;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_with_free_slots_never_runs_out_of_memory_for_work_however_long_it_runs_at_full_speed() {
    const SLOTS: u64 = 8;
    const JOBS: u64 = 100;
    let market = Market::new();
    let mut host = market.provider("whole", 1, 0, 2);
    // As many as there are slots: not a single place is to spare.
    host.config.items_max = SLOTS as usize;
    host.start().await;
    // One that is never settled keeps its slot and its evidence all the time.
    assign(&market, &host, 1);
    host.begin_surely(item(1)).await;
    let receipt = host.done(item(1)).await.links;
    let mut open = std::collections::VecDeque::new();
    for job in 2..=JOBS {
        assign(&market, &host, job);
        let (status, body) = host.begin(item(job), 0).await;
        assert_eq!(status, StatusCode::ACCEPTED, "job {job}: {body}");
        open.push_back(job);
        if open.len() as u64 == SLOTS - 1 {
            let oldest = open.pop_front().unwrap();
            assert!(host.done(item(oldest)).await.complete);
            close(&market, oldest);
        }
    }
    assert_eq!(host.ended(item(1)).await.links, receipt, "open work stays provable");
    assert_eq!(host.metric("refusals_total{reason=\"work\"}").await, 0);
    assert!(host.metric("items_let_go_total").await >= JOBS - 2 * SLOTS);
    let folders = std::fs::read_dir(host.home.path().join("work")).unwrap().count();
    assert!(folders as u64 <= SLOTS, "{folders} pieces of work are on disk");
}

#[tokio::test]
async fn work_that_the_chain_keeps_open_or_says_nothing_about_is_not_let_go_of() {
    let market = Market::new();
    let mut host = market.provider("whole", 1, 0, 2);
    host.config.items_max = 2;
    host.start().await;
    for job in 1..=2 {
        assign(&market, &host, job);
        host.begin_surely(item(job)).await;
        host.done(item(job)).await;
    }
    assign(&market, &host, 3);
    let refused = "2 pieces of work are remembered, at most 2 may be";
    let (status, body) = host.begin(item(3), 0).await;
    assert_eq!(status, StatusCode::TOO_MANY_REQUESTS, "{body}");
    assert!(body.contains(refused), "{body}");
    // A node that knows nothing of a job is no reason to forget what was signed about it.
    let forgotten = market.chain.0.lock().unwrap().assignments.remove(&item(1).key());
    // After an answer in vain the chain is left alone for a second.
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let questions = market.chain.0.lock().unwrap().questions;
    let (status, body) = host.begin(item(3), 0).await;
    assert_eq!(status, StatusCode::TOO_MANY_REQUESTS, "{body}");
    assert!(
        market.chain.0.lock().unwrap().questions >= questions + 3,
        "it was not asked"
    );
    assert_eq!(host.metric("items_let_go_total").await, 0);
    // Given to somebody else: over for us.
    let mut given = forgotten.unwrap();
    given.attempt = 1;
    let insert = |assignment| {
        let mut facts = market.chain.0.lock().unwrap();
        facts.assignments.insert(item(1).key(), assignment)
    };
    insert(given);
    host.eventually("room", async |host| {
        host.begin(item(3), 0).await.0 == StatusCode::ACCEPTED
    })
    .await;
    assert_eq!(host.done(item(3)).await.state, WorkState::Done);
    assert!(!host.work_folder(item(1), 0).exists());
    assert_eq!(
        host.ended(item(2)).await.links.len(),
        1,
        "the open one is still provable"
    );
}

#[tokio::test]
async fn work_that_is_being_computed_is_never_let_go_of() {
    let market = Market::new();
    let mut host = market.provider("whole", 1, 0, 2);
    host.config.items_max = 1;
    host.start().await;
    host.controls.hold();
    assign(&market, &host, 1);
    host.begin_surely(item(1)).await;
    close(&market, 1);
    assign(&market, &host, 2);
    assert_eq!(host.begin(item(2), 0).await.0, StatusCode::TOO_MANY_REQUESTS);
    host.controls.release();
    assert!(host.done(item(1)).await.complete);
    host.begin_surely(item(2)).await;
    host.done(item(2)).await;
}
