//! Records of work are anybody's to remove once nobody needs them. Ledgers are nobody's.

use std::collections::BTreeMap;

use fxn_tests::{found, refused, Protocol, Serving, Work, DEVELOPER, FUNC};
use job_orchestrator::{ContractError, PruneRefusal};
use schema::{
    orchestrator::{
        ExecuteMsg, InputResponse, ItemResponse, ItemStatus, JobResponse, JobStatus, JobsResponse, LinksResponse,
        QueryMsg,
    },
    params::OrchestratorParams,
    Event, ItemId,
};

/// Of the local profile.
const KEPT_SECONDS: u64 = 1_800;

fn prune(protocol: &mut Protocol, jobs: &[u64]) -> Vec<Event> {
    let jobs = jobs.to_vec();
    protocol.orchestrator("stranger", &ExecuteMsg::Prune { jobs }).unwrap()
}

/// By job: pruned, or why not.
fn told(events: &[Event]) -> Vec<(u64, Option<String>)> {
    found(events, |event| match event {
        Event::JobPruned { job } => Some((*job, None)),
        Event::PruneRefused { job, reason } => Some((*job, Some(reason.clone()))),
        _ => None,
    })
}

fn refusal(job: u64, refusal: PruneRefusal) -> (u64, Option<String>) {
    (job, Some(refusal.to_string()))
}

/// Everything that the orchestrator has stored, but for the number of the newest job.
fn stored(protocol: &Protocol) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let records = protocol.state_of(&protocol.contracts.job_orchestrator).into_iter();
    records.filter(|(key, _)| key != b"last_job").collect()
}

fn item(job: u64) -> ItemId {
    let (shard, replica) = (0, 0);
    ItemId { job, shard, replica }
}

/// A job of which nobody does anything, until its attempts are used up. A receipt is known of each.
fn fails(protocol: &mut Protocol) -> u64 {
    let job = protocol.starts(Protocol::order(1, 4, 1));
    while protocol.item(item(job)).status == (ItemStatus::Assigned {}) {
        protocol.deadline_passes(item(job));
        let mut links = protocol.links(item(job), Work::honest(10));
        links.truncate(1);
        protocol.posts_evidence(item(job), links).unwrap();
        protocol.evidence_window_passes(item(job));
        protocol.expires(item(job)).unwrap();
    }
    job
}

/// Replicas that differ until they are given up.
fn disputes(protocol: &mut Protocol) -> u64 {
    let job = protocol.starts(Protocol::order(1, 4, 2));
    for lie in [7, 8] {
        let items = protocol.items(job);
        protocol.proves(items[0].item, Work::honest(100));
        protocol.proves(items[1].item, Work::honest(100).lying_from(1, lie));
    }
    assert_eq!(protocol.job(job).status, JobStatus::Incomplete);
    job
}

#[test]
fn nothing_of_a_pruned_job_is_left_however_it_ended() {
    let mut protocol = Protocol::with_market();
    for (name, stage) in [("gina", 0), ("gus", 1), ("wanda", 2), ("walt", 1), ("omar", 2)] {
        protocol.provides(name, &Serving::stages(stage, stage));
    }
    let before = stored(&protocol);
    let session = protocol.new_session(&[(1, 10 * FUNC), (3, 10 * FUNC), (5, 10 * FUNC)]);
    let session = protocol.opens_session(DEVELOPER, session);
    let done = protocol.starts(Protocol::order(3, 4, 2));
    protocol.proves_all(done, Work::honest(100));
    let disputed = disputes(&mut protocol);
    let failed = fails(&mut protocol);
    assert!(protocol.item(item(failed)).attempt > 0, "it was drawn more than once");
    protocol.forces(DEVELOPER, session, &[1, 3, 5], 4).unwrap();
    let forced = protocol.session(session).forced.unwrap().job;
    protocol.proves_all(forced, Work::honest(100));
    let jobs = [done, disputed, failed, forced];
    let found = stored(&protocol);
    assert!(found.len() > before.len() + 20, "records of four jobs: {}", found.len());

    protocol.seconds_pass(KEPT_SECONDS);
    let running = protocol.starts(Protocol::order(1, 4, 1));
    let events = prune(&mut protocol, &jobs);
    assert_eq!(told(&events), jobs.map(|job| (job, None)));
    protocol.proves_all(running, Work::honest(100));
    let books = protocol.books();
    assert_eq!(protocol.job(running).status, JobStatus::Completed);
    protocol.seconds_pass(KEPT_SECONDS);
    prune(&mut protocol, &[running]);
    assert_eq!(stored(&protocol), before, "no record is left, and none is changed");
    assert_eq!(protocol.records_of_jobs(), [""; 0]);
    assert_eq!(protocol.books(), books, "ledgers never");
    protocol.assert_conserved();
}

fn refused_question<T: serde::de::DeserializeOwned + std::fmt::Debug>(
    protocol: &Protocol,
    question: &QueryMsg,
) -> String {
    let answer = protocol.try_ask::<T>(&protocol.contracts.job_orchestrator, question);
    answer.expect_err("it is unknown").to_string()
}

#[test]
fn a_job_is_kept_until_its_date_and_unknown_from_then_on() {
    let mut protocol = Protocol::with_market();
    let job = protocol.starts(Protocol::order(1, 4, 1));
    assert_eq!(protocol.job(job).prunable_at, None);
    let attestation = protocol.attestation(item(job), Work::honest(100));
    protocol.seconds_pass(3);
    protocol.proves_all(job, Work::honest(100));
    let prunable_at = protocol.now() + KEPT_SECONDS;
    assert_eq!(protocol.job(job).prunable_at, Some(prunable_at));
    protocol.seconds_pass(KEPT_SECONDS - 1);
    let now = protocol.now();
    let known = protocol.job(job);
    let events = prune(&mut protocol, &[job]);
    assert_eq!(
        told(&events),
        [refusal(job, PruneRefusal::TooEarly { prunable_at, now })]
    );
    assert_eq!(protocol.job(job), known);

    protocol.seconds_pass(1);
    let events = prune(&mut protocol, &[job]);
    assert_eq!(told(&events), [(job, None)]);
    let events = prune(&mut protocol, &[job]);
    assert_eq!(told(&events), [refusal(job, PruneRefusal::NoJob)]);

    let no_job = ContractError::NoJob { job }.to_string();
    let no_item = ContractError::NoItem { item: item(job) };
    let no_input = ContractError::NoInput { job, shard: 0 }.to_string();
    assert!(refused_question::<JobResponse>(&protocol, &QueryMsg::Job { job }).contains(&no_job));
    let question = QueryMsg::Item { item: item(job) };
    assert!(refused_question::<ItemResponse>(&protocol, &question).contains(&no_item.to_string()));
    let question = QueryMsg::Links {
        item: item(job),
        attempt: 0,
    };
    assert!(refused_question::<LinksResponse>(&protocol, &question).contains(&no_item.to_string()));
    let question = QueryMsg::Input { job, shard: 0 };
    assert!(refused_question::<InputResponse>(&protocol, &question).contains(&no_input));
    assert!(protocol.items(job).is_empty());

    let events = protocol.attests(vec![attestation.clone()]).unwrap();
    let reason = found(&events, |event| match event {
        Event::AttestationRefused { reason, .. } => Some(reason.clone()),
        _ => None,
    });
    assert_eq!(reason, ["there is no such item"]);
    refused(protocol.expires(item(job)), no_item);
    let evidence = ExecuteMsg::PostEvidence {
        item: item(job),
        attempt: 0,
        links: attestation.links,
    };
    let no_item = ContractError::NoItem { item: item(job) };
    refused(protocol.orchestrator("relayer", &evidence), no_item);
}

#[test]
fn lists_leave_pruned_jobs_out_and_their_numbers_never_come_back() {
    let mut protocol = Protocol::with_market();
    let jobs: Vec<u64> = (0..4).map(|_| protocol.starts(Protocol::order(1, 1, 1))).collect();
    for job in &jobs {
        protocol.proves_all(*job, Work::honest(10));
    }
    protocol.seconds_pass(KEPT_SECONDS);
    prune(&mut protocol, &[jobs[1], jobs[3]]);
    let listed = |protocol: &Protocol, developer: Option<String>, start_before| -> Vec<u64> {
        let question = QueryMsg::Jobs {
            developer,
            start_before,
            limit: Some(2),
        };
        let found: JobsResponse = protocol.ask(&protocol.contracts.job_orchestrator, &question);
        found.jobs.iter().map(|job| job.job).collect()
    };
    let developer = Some(protocol.addr(DEVELOPER).into_string());
    for developer in [None, developer] {
        assert_eq!(listed(&protocol, developer.clone(), None), [jobs[2], jobs[0]]);
        // A page may begin at a number that is gone.
        assert_eq!(listed(&protocol, developer, Some(jobs[1])), [jobs[0]]);
    }
    let next = protocol.starts(Protocol::order(1, 1, 1));
    assert_eq!(next, jobs[3] + 1, "although the newest number is free");
}

#[test]
fn a_job_that_runs_is_never_pruned_however_old_it_is() {
    let mut protocol = Protocol::with_market();
    let job = protocol.starts(Protocol::order(2, 4, 1));
    protocol.proves(item(job), Work::honest(10));
    protocol.seconds_pass(100 * KEPT_SECONDS);
    let events = prune(&mut protocol, &[job]);
    assert_eq!(told(&events), [refusal(job, PruneRefusal::Running)]);
    assert_eq!(protocol.busy_slots(), 3, "its slots can still be given back");
    // Whoever ends it begins its time.
    let open = ItemId { shard: 1, ..item(job) };
    protocol.expires(open).unwrap();
    let now = protocol.now();
    let prunable_at = now + KEPT_SECONDS;
    let events = prune(&mut protocol, &[job]);
    assert_eq!(
        told(&events),
        [refusal(job, PruneRefusal::TooEarly { prunable_at, now })]
    );
    assert_eq!(protocol.busy_slots(), 0);
}

#[test]
fn replicas_that_await_their_round_are_not_pruned_under_it() {
    let mut protocol = Protocol::with_beacon();
    let job = protocol.starts(Protocol::order(1, 4, 2));
    let items = protocol.items(job);
    protocol.proves(items[0].item, Work::honest(100));
    protocol.proves(items[1].item, Work::honest(100).lying_from(1, 7));
    let waits = protocol.item(items[0].item).status;
    assert!(matches!(waits, ItemStatus::AwaitingRound { .. }));
    protocol.seconds_pass(2 * KEPT_SECONDS);
    let events = prune(&mut protocol, &[job]);
    assert_eq!(told(&events), [refusal(job, PruneRefusal::Running)]);
    protocol.expires(items[0].item).unwrap();
    protocol.seconds_pass(KEPT_SECONDS);
    prune(&mut protocol, &[job]);
    assert_eq!(protocol.records_of_jobs(), [""; 0], "of due items too");
}

#[test]
fn one_that_cannot_be_pruned_stops_no_other_and_a_message_prunes_64_items() {
    let mut protocol = Protocol::with_market();
    let mut jobs = vec![];
    // As many as three stages allow at once, and one.
    for shards in [8, 8, 8, 8, 8, 8, 8, 8, 1] {
        let job = protocol.starts(Protocol::order(shards, 1, 1));
        protocol.proves_all(job, Work::honest(10));
        jobs.push(job);
    }
    protocol.seconds_pass(KEPT_SECONDS);
    let running = protocol.starts(Protocol::order(1, 1, 1));
    let mut named = vec![u64::MAX, running, jobs[0]];
    named.extend(&jobs);
    let events = prune(&mut protocol, &named);
    let mut expected = vec![
        refusal(u64::MAX, PruneRefusal::NoJob),
        refusal(running, PruneRefusal::Running),
        (jobs[0], None),
        refusal(jobs[0], PruneRefusal::NoJob),
    ];
    expected.extend(jobs[1..8].iter().map(|job| (*job, None)));
    let (items, pruned, max) = (1, 64, 64);
    expected.push(refusal(jobs[8], PruneRefusal::Full { items, pruned, max }));
    assert_eq!(told(&events), expected);
    prune(&mut protocol, &jobs[8..]);
    for count in [0, 33] {
        let jobs = vec![1; count];
        let outcome = protocol.orchestrator("stranger", &ExecuteMsg::Prune { jobs });
        refused(outcome, ContractError::PruneCount { count, max: 32 });
    }
}

#[test]
fn records_are_kept_for_as_long_as_was_said_when_the_job_was_submitted() {
    let mut protocol = Protocol::with_market();
    let old = protocol.starts(Protocol::order(1, 1, 1));
    let params = OrchestratorParams {
        prune_after_seconds: 2 * KEPT_SECONDS,
        ..protocol.params.orchestrator.clone()
    };
    protocol
        .orchestrator("admin", &ExecuteMsg::UpdateParams { params })
        .unwrap();
    let new = protocol.starts(Protocol::order(1, 1, 1));
    for job in [old, new] {
        protocol.proves_all(job, Work::honest(10));
    }
    protocol.seconds_pass(KEPT_SECONDS);
    let now = protocol.now();
    let prunable_at = now + KEPT_SECONDS;
    let events = prune(&mut protocol, &[old, new]);
    let early = PruneRefusal::TooEarly { prunable_at, now };
    assert_eq!(told(&events), [(old, None), refusal(new, early)]);
}
