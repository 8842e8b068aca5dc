//! Jobs: one that is proven, one that nobody does.

use std::time::Duration;

use beacon::Secret;
use client::Call;
use fxn_tests::{links_of, Protocol, Work};
use schema::{
    orchestrator::JobStatus,
    randomness::{ConfigResponse, ExecuteMsg, QueryMsg},
    receipt::Attestation,
    ItemId,
};
use serde_json::{json, Value};

use crate::side::Side;

/// How long a deadline and the window for evidence may take by a busy chain's clock.
const PATIENCE: Duration = Duration::from_secs(90);

fn order(shards: usize) -> Value {
    let mut order = Protocol::order(shards, 2, 1);
    // A row beside plain text: how bytes travel is a matter of the chain too.
    order.shards[0].inline[1] = "zwölf Boxkämpfer 🥊".as_bytes().into();
    serde_json::to_value(order).unwrap()
}

pub(crate) fn item(job: u64, shard: u16) -> ItemId {
    let (job, shard, replica) = (job, shard, 0);
    ItemId { job, shard, replica }
}

pub(crate) async fn attestation(side: &Side, item: ItemId, work: Work) -> Attestation {
    let orchestrator = side.client.orchestrator();
    let domain = orchestrator.config().await.unwrap().domain;
    let job = orchestrator.job(item.job).await.unwrap();
    let found = orchestrator.item(item).await.unwrap();
    let links = links_of(&domain, &job, &found, work, |_, _, _| {});
    let attempt = found.attempt;
    Attestation { item, attempt, links }
}

pub(crate) async fn is_done_and_paid(side: &mut Side) {
    let contracts = side.client.contracts().clone();
    let orchestrator = contracts.job_orchestrator.as_str();
    side.executes(
        "a job",
        "developer",
        orchestrator,
        json!({ "submit_job": { "job": order(2) } }),
    )
    .await;
    let first = attestation(side, item(1, 0), Work::honest(37)).await;
    let second = attestation(side, item(1, 1), Work::honest(41)).await;
    let mut cut = second.clone();
    cut.links.pop();
    side.executes(
        "one attestation that proves and one that does not",
        "relayer",
        orchestrator,
        json!({ "submit_attestations": { "attestations": [first, cut] } }),
    )
    .await;
    let again = json!({ "submit_attestations": { "attestations": [first] } });
    side.executes("the same once more", "relayer", orchestrator, again)
        .await;
    let none = json!({ "submit_attestations": { "attestations": [] } });
    side.executes("no attestation at all", "relayer", orchestrator, none)
        .await;
    let early = json!({ "expire": { "item": item(1, 1) } });
    side.executes("an item is expired too early", "gateway", orchestrator, early)
        .await;
    let rest = json!({ "submit_attestations": { "attestations": [second] } });
    side.executes("the rest", "relayer", orchestrator, rest).await;
    let pass = json!({ "distribute_royalties": { "model": crate::market::PARENT } });
    side.executes("royalties are passed on", "gateway", &contracts.royalty_escrow, pass)
        .await;
    let all = json!({ "withdraw": { "amount": null } });
    side.executes("and paid out", "parent-creator", &contracts.royalty_escrow, all)
        .await;
}

/// Until the chain's own clock has passed a date, and the blocks that have to come with it.
pub(crate) async fn passes(side: &Side, date: u64) {
    let since = std::time::Instant::now();
    loop {
        let now = side.client.status().await.unwrap().time_nanos / 1_000_000_000;
        if now > date + 1 {
            return;
        }
        assert!(since.elapsed() < PATIENCE, "the chain's clock stands still");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Until so many blocks were made: a date counts as passed only with the blocks that have to come with it.
async fn grows(side: &Side, height: u64) {
    let since = std::time::Instant::now();
    while side.client.status().await.unwrap().height < height {
        assert!(since.elapsed() < PATIENCE, "the chain makes no blocks");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Numbers of rounds are a matter of each chain's clock, so nothing is told of this one.
async fn posts_round(side: &mut Side, round: u64) {
    let beacon = side.client.contracts().randomness_beacon.clone().unwrap();
    let config: ConfigResponse = side.client.query(&beacon, &QueryMsg::Config {}).await.unwrap();
    passes(side, config.schedule.time_of(round)).await;
    let signature = Secret::development().sign(round);
    let post = Call::execute(&beacon, &ExecuteMsg::PostRound { round, signature }).unwrap();
    side.does_quietly("relayer", post).await;
}

/// Until anyone may expire an item, which was assigned at this height or before.
pub(crate) async fn is_overdue(side: &mut Side, item: ItemId, assigned: u64) {
    let known = side.client.orchestrator().item(item).await.unwrap();
    passes(side, known.evidence_until).await;
    grows(side, assigned + known.evidence_until - known.assigned_at).await;
    if let Some(round) = known.redraw_round {
        posts_round(side, round).await;
    }
}

pub(crate) async fn is_missed_and_refunded(side: &mut Side) {
    let contracts = side.client.contracts().clone();
    let orchestrator = contracts.job_orchestrator.as_str();
    side.executes(
        "a job that nobody will do",
        "developer",
        orchestrator,
        json!({ "submit_job": { "job": order(1) } }),
    )
    .await;
    let missed = item(2, 0);
    let known = side.client.orchestrator().item(missed).await.unwrap();
    let assigned = side.client.status().await.unwrap().height;
    let proof = attestation(side, missed, Work::honest(20)).await;
    let evidence = |links: usize| json!({ "post_evidence": { "item": missed, "attempt": proof.attempt, "links": proof.links[..links] } });
    side.executes("evidence before its time", "relayer", orchestrator, evidence(1))
        .await;
    passes(side, known.deadline).await;
    side.executes("evidence", "relayer", orchestrator, evidence(1)).await;
    side.executes("the same evidence", "gateway", orchestrator, evidence(1))
        .await;
    is_overdue(side, missed, assigned).await;
    side.executes(
        "it is expired",
        "gateway",
        orchestrator,
        json!({ "expire": { "item": missed } }),
    )
    .await;
    side.executes(
        "and once more",
        "gateway",
        orchestrator,
        json!({ "expire": { "item": missed } }),
    )
    .await;
    let prune = json!({ "prune": { "jobs": [1, 2, 9] } });
    side.executes("jobs are pruned too early", "gateway", orchestrator, prune)
        .await;
    let none = json!({ "prune": { "jobs": [] } });
    side.executes("no job is pruned", "gateway", orchestrator, none).await;
    let job = side.client.orchestrator().job(2).await.unwrap();
    assert_ne!(job.status, JobStatus::Running, "there is nobody else to do it");
}
