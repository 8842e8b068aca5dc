//! Requests that are asked on chain, chains that are named, and the jail: answers, misses, and what cannot be asked.

use cosmwasm_std::Binary;
use fxn_tests::{Protocol, Work};
use schema::{escrow::AllocationState, orchestrator::ItemStatus};
use serde_json::{json, Value};

use crate::{
    market::FUNC,
    sessions::{new_session, now, voucher},
    side::Side,
    work::{attestation, is_overdue, item, passes},
};

/// The session of these stories, and the jobs that they come to.
const SESSION: u64 = 2;
const ANSWERED: u64 = 3;
const MISSED: u64 = 4;
const NAMED: u64 = 5;
const UNDONE: u64 = 6;

fn force(session: u64, deployments: &[u64], rows: &[&[u8]]) -> Value {
    let rows: Vec<Binary> = rows.iter().map(|row| Binary::from(*row)).collect();
    json!({ "force_request": { "session": session, "deployments": deployments, "rows": rows } })
}

async fn height(side: &Side) -> u64 {
    side.client.status().await.unwrap().height
}

async fn is_settled(side: &Side, job: u64) -> bool {
    let found = side.client.orchestrator().item(item(job, 0)).await.unwrap();
    matches!(found.status, ItemStatus::Settled { .. })
}

/// Of the first provider in the session.
async fn state(side: &Side) -> AllocationState {
    let session = side.client.escrow().session(SESSION).await.unwrap();
    let mut allocations = session.allocations.into_iter();
    allocations.find(|part| part.deployment == 1).unwrap().state
}

/// Everything that a request may have changed.
async fn are_looked_at(side: &mut Side, job: u64) {
    let contracts = side.client.contracts().clone();
    let (developer, provider) = (side.address("developer"), side.address("provider-1"));
    for (contract, question) in [
        (&contracts.royalty_escrow, json!({ "session": { "session": SESSION } })),
        (&contracts.royalty_escrow, json!({ "money": { "holder": developer } })),
        (&contracts.royalty_escrow, json!({ "earnings": { "holder": provider } })),
        (&contracts.royalty_escrow, json!({ "hold": { "job": job } })),
        (
            &contracts.provider_staking,
            json!({ "provider": { "provider": provider } }),
        ),
        (
            &contracts.provider_staking,
            json!({ "deployment": { "deployment": 1 } }),
        ),
        (&contracts.job_orchestrator, json!({ "job": { "job": job } })),
        (&contracts.job_orchestrator, json!({ "item": { "item": item(job, 0) } })),
        (
            &contracts.job_orchestrator,
            json!({ "input": { "job": job, "shard": 0 } }),
        ),
    ] {
        side.asks(contract, question).await;
    }
}

pub(crate) async fn requests(side: &mut Side) {
    let escrow = side.client.contracts().royalty_escrow.clone();
    let open = new_session(side, &[(1, 10 * FUNC), (2, 10 * FUNC), (3, 10 * FUNC)]).await;
    side.executes("a session that will be silent", "developer", &escrow, open)
        .await;
    let opened = now(side).await;
    passes(side, opened + 1).await;
    cannot_be_asked(side, &escrow).await;
    is_answered(side, &escrow).await;
    is_missed(side, &escrow).await;
}

async fn cannot_be_asked(side: &mut Side, escrow: &str) {
    let row: &[&[u8]] = &[b"a"];
    let long = vec![b'a'; 8_193];
    let many: Vec<&[u8]> = vec![b"a"; 400];
    for (what, who, msg) in [
        ("by somebody else", "gateway", force(SESSION, &[1, 2, 3], row)),
        ("of no session", "developer", force(99, &[1, 2, 3], row)),
        ("of nobody", "developer", force(SESSION, &[], row)),
        ("of too few", "developer", force(SESSION, &[1, 2], row)),
        ("in no order", "developer", force(SESSION, &[2, 1, 3], row)),
        ("of one twice", "developer", force(SESSION, &[1, 1, 3], row)),
        ("of a stranger", "developer", force(SESSION, &[1, 2, 77], row)),
        ("for nothing", "developer", force(SESSION, &[1, 2, 3], &[])),
        ("for no text", "developer", force(SESSION, &[1, 2, 3], &[b"\xff"])),
        ("for a long text", "developer", force(SESSION, &[1, 2, 3], &[&long])),
        ("for many texts", "developer", force(SESSION, &[1, 2, 3], &many)),
    ] {
        side.executes(&format!("a request is forced {what}"), who, escrow, msg)
            .await;
    }
}

async fn is_answered(side: &mut Side, escrow: &str) {
    let orchestrator = side.client.contracts().job_orchestrator.clone();
    let rows: &[&[u8]] = &[b"one text", "zwölf Boxkämpfer".as_bytes()];
    let ask = force(SESSION, &[1, 2, 3], rows);
    side.executes("a request is forced", "developer", escrow, ask.clone())
        .await;
    are_looked_at(side, ANSWERED).await;
    side.executes("another beside it", "developer", escrow, ask).await;
    let leave = json!({ "leave_session": { "session": SESSION, "deployment": 1 } });
    side.executes("who is asked leaves", "provider-1", escrow, leave).await;
    let early = json!({ "expire": { "item": item(ANSWERED, 0) } });
    side.executes("it is expired too early", "gateway", &orchestrator, early)
        .await;
    let proof = attestation(side, item(ANSWERED, 0), Work::honest(37)).await;
    let attest = json!({ "submit_attestations": { "attestations": [proof] } });
    side.executes("it is answered", "relayer", &orchestrator, attest).await;
    assert!(is_settled(side, ANSWERED).await);
    assert_eq!(state(side).await, AllocationState::Open);
    are_looked_at(side, ANSWERED).await;
}

async fn is_missed(side: &mut Side, escrow: &str) {
    let orchestrator = side.client.contracts().job_orchestrator.clone();
    let ask = force(SESSION, &[1, 2, 3], &[b"is anybody there?"]);
    side.executes("a request that nobody answers", "developer", escrow, ask.clone())
        .await;
    let assigned = height(side).await;
    is_overdue(side, item(MISSED, 0), assigned).await;
    let expire = json!({ "expire": { "item": item(MISSED, 0) } });
    side.executes("a stranger expires it", "gateway", &orchestrator, expire.clone())
        .await;
    side.executes("and once more", "gateway", &orchestrator, expire).await;
    are_looked_at(side, MISSED).await;
    assert_eq!(state(side).await, AllocationState::Missed);
    side.executes("who has missed is asked again", "developer", escrow, ask)
        .await;
    let settle = json!({ "settle_vouchers": { "vouchers": [voucher(side, SESSION, 1, 1, FUNC / 10)] } });
    side.executes("what it was promised before", "relayer", escrow, settle)
        .await;
    let finalise = json!({ "finalise_session": { "session": SESSION } });
    side.executes("its notice is not over", "gateway", escrow, finalise.clone())
        .await;
    let session = side.client.escrow().session(SESSION).await.unwrap();
    let dates = session.allocations.iter().map(|part| part.releasable_at);
    passes(side, dates.min().unwrap()).await;
    side.executes("a stranger gives the allocation back", "gateway", escrow, finalise)
        .await;
    assert_eq!(state(side).await, AllocationState::Closed);
    are_looked_at(side, MISSED).await;
    side.executes(
        "nobody is left for the first stage",
        "developer",
        escrow,
        force(SESSION, &[1, 2, 3], &[b"a"]),
    )
    .await;
}

fn named(chain: &[u64], change: impl Fn(&mut schema::orchestrator::NewJob)) -> Value {
    let mut job = Protocol::order(1, 2, 1);
    job.chain = Some(chain.to_vec());
    change(&mut job);
    json!({ "submit_job": { "job": job } })
}

pub(crate) async fn chains_of_jobs(side: &mut Side) {
    let orchestrator = side.client.contracts().job_orchestrator.clone();
    let plain = |chain: &[u64]| named(chain, |_| ());
    for (what, msg) in [
        ("nobody", plain(&[])),
        ("too few", plain(&[1, 2])),
        ("too many", plain(&[1, 2, 3, 3])),
        ("no order", plain(&[2, 1, 3])),
        ("a stranger", plain(&[1, 2, 77])),
        ("two replicas", named(&[1, 2, 3], |job| job.replicas = 2)),
        (
            "another class",
            named(&[1, 2, 3], |job| job.engine_class = Some("abacus".into())),
        ),
        (
            "little money",
            named(&[1, 2, 3], |job| job.max_price = 1_000u128.into()),
        ),
        ("no time", named(&[1, 2, 3], |job| job.deadline_seconds = Some(1))),
        ("many units", named(&[1, 2, 3], |job| job.units_max = 1_000_000)),
    ] {
        side.executes(&format!("a chain of {what}"), "developer", &orchestrator, msg)
            .await;
    }
    side.executes("a chain is named", "developer", &orchestrator, plain(&[1, 2, 3]))
        .await;
    let proof = attestation(side, item(NAMED, 0), Work::honest(37)).await;
    let attest = json!({ "submit_attestations": { "attestations": [proof] } });
    side.executes("it does the job", "relayer", &orchestrator, attest).await;
    assert!(is_settled(side, NAMED).await);
    are_looked_at(side, NAMED).await;
}

/// The second miss of a provider.
pub(crate) async fn jail(side: &mut Side) {
    let contracts = side.client.contracts().clone();
    let (orchestrator, staking) = (contracts.job_orchestrator.as_str(), contracts.provider_staking.as_str());
    let provider = side.address("provider-1");
    let unjail = json!({ "unjail": { "provider": provider } });
    side.executes("nobody is jailed", "provider-1", staking, unjail.clone())
        .await;
    let undone = named(&[1, 2, 3], |_| ());
    side.executes(
        "a named chain that does nothing",
        "developer",
        orchestrator,
        undone.clone(),
    )
    .await;
    let assigned = height(side).await;
    is_overdue(side, item(UNDONE, 0), assigned).await;
    let expire = json!({ "expire": { "item": item(UNDONE, 0) } });
    side.executes("it is expired", "gateway", orchestrator, expire).await;
    side.executes("it leaves jail too early", "provider-1", staking, unjail.clone())
        .await;
    let jailed = side.client.staking().provider(&provider).await.unwrap().jailed_until;
    are_looked_at(side, UNDONE).await;
    side.executes("a chain with somebody in jail", "developer", orchestrator, undone)
        .await;
    passes(side, jailed.expect("two misses are enough")).await;
    side.executes("somebody else fetches it", "gateway", staking, unjail.clone())
        .await;
    side.executes("it leaves jail", "provider-1", staking, unjail.clone())
        .await;
    side.executes("and once more", "provider-1", staking, unjail).await;
    are_looked_at(side, UNDONE).await;
}
