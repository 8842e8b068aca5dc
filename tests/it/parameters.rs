//! What the admin may change, within which bounds, and for whom.

use fxn_tests::{refused, Outcome, Protocol, Work, DEVELOPER};
use governed::GovernedError;
use job_orchestrator::ContractError;
use schema::{
    orchestrator::{ConfigResponse, ExecuteMsg, JobStatus, QueryMsg},
    params::OrchestratorParams,
    ItemId,
};

fn update(protocol: &mut Protocol, change: impl Fn(&mut OrchestratorParams)) -> Outcome {
    let mut params = protocol.params.orchestrator.clone();
    change(&mut params);
    protocol.orchestrator("admin", &ExecuteMsg::UpdateParams { params })
}

#[test]
fn parameters_of_jobs_have_bounds() {
    let mut protocol = Protocol::with_market();
    for attempts in [0, 11] {
        let outcome = update(&mut protocol, |params| params.attempts_max = attempts);
        refused(outcome, ContractError::AttemptsOutOfBounds { attempts, max: 10 });
    }
    let short = ContractError::EvidenceTooShort {
        evidence_seconds: 2,
        grace_seconds: 3,
    };
    refused(update(&mut protocol, |params| params.grace_seconds = 3), short);
    for seconds in [7, 2_592_001] {
        let outcome = update(&mut protocol, |params| params.job_seconds_max = seconds);
        let bounds = ContractError::JobSecondsOutOfBounds {
            seconds,
            min: 4 + 2 + 2,
            max: 2_592_000,
        };
        refused(outcome, bounds);
    }
    for seconds in [0, 61] {
        let outcome = update(&mut protocol, |params| params.block_seconds_max = seconds);
        refused(outcome, ContractError::BlockSecondsOutOfBounds { seconds, max: 60 });
    }
    let (year, hold) = (365 * 24 * 3_600, protocol.params.orchestrator.job_seconds_max);
    for seconds in [0, hold - 1, year + 1, u64::MAX] {
        let outcome = update(&mut protocol, |params| params.prune_after_seconds = seconds);
        let bounds = ContractError::PruneAfterOutOfBounds {
            seconds,
            min: hold,
            max: year,
        };
        refused(outcome, bounds);
    }
    update(&mut protocol, |params| {
        (params.attempts_max, params.prune_after_seconds) = (10, year);
    })
    .unwrap();
}

#[test]
fn records_outlast_the_time_in_which_providers_answer_for_the_work() {
    let mut protocol = Protocol::with_market_and_conduct(|conduct| conduct.audit_window_seconds = 30);
    let short = |params: &mut OrchestratorParams| (params.job_seconds_max, params.prune_after_seconds) = (30, 59);
    let bounds = ContractError::PruneAfterOutOfBounds {
        seconds: 59,
        min: 60,
        max: 31_536_000,
    };
    let mut params = protocol.params.orchestrator.clone();
    short(&mut params);
    let error = protocol.starts_another_orchestrator(&params).unwrap_err();
    assert!(format!("{error:#}").contains(&bounds.to_string()), "{error:#}");
    refused(update(&mut protocol, short), bounds);
    params.prune_after_seconds = 60;
    protocol.starts_another_orchestrator(&params).unwrap();
    protocol
        .orchestrator("admin", &ExecuteMsg::UpdateParams { params })
        .unwrap();
}

#[test]
fn new_parameters_are_for_jobs_submitted_from_then_on() {
    let mut protocol = Protocol::with_market();
    let old = protocol.starts(Protocol::order(1, 4, 1));
    update(&mut protocol, |params| params.attempts_max = 1).unwrap();
    let new = protocol.starts(Protocol::order(1, 4, 1));
    let item = |job| ItemId {
        job,
        shard: 0,
        replica: 0,
    };
    protocol.evidence_window_passes(item(old));
    protocol.expires(item(old)).unwrap();
    protocol.expires(item(new)).unwrap();
    assert_eq!(protocol.item(item(old)).attempt, 1);
    assert_eq!(protocol.job(new).status, JobStatus::Incomplete);
    protocol.proves_all(old, Work::honest(100));
    assert_eq!(protocol.job(old).status, JobStatus::Completed);
}

#[test]
fn a_job_that_could_be_held_too_long_is_refused_by_the_escrow() {
    let mut protocol = Protocol::with_market();
    update(&mut protocol, |params| {
        (params.job_seconds_max, params.prune_after_seconds) = (3_601, 3_601);
    })
    .unwrap();
    let now = protocol.now();
    let refusal = royalty_escrow::ContractError::HoldDate {
        expires_at: now + 3_601,
        now,
        latest: now + 3_600,
    };
    refused(protocol.submits(DEVELOPER, Protocol::order(1, 1, 1)), refusal);
}

#[test]
fn a_chain_that_the_hold_would_not_outlive_is_no_supply() {
    let mut protocol = Protocol::with_market();
    // 4 s of inclusion, 2 s of evidence and 3 s of rounding leave 24 s; the outer stages get 8 s each of them and promise 7.
    update(&mut protocol, |params| params.job_seconds_max = 33).unwrap();
    let job = protocol.starts(Protocol::order(1, 4, 1));
    let item = protocol.items(job).remove(0);
    assert!(item.evidence_until < protocol.job(job).expires_at);
    update(&mut protocol, |params| params.job_seconds_max = 26).unwrap();
    let outcome = protocol.submits(DEVELOPER, Protocol::order(1, 4, 1));
    let refusal = ContractError::NoSupply {
        items: 1,
        item_price_max: fxn_tests::FUNC.into(),
        seconds_max: 17,
    };
    refused(outcome, refusal);
}

#[test]
fn the_admin_is_handed_over_in_two_steps() {
    let mut protocol = Protocol::with_market();
    let heir = protocol.addr("heir").into_string();
    let offer = ExecuteMsg::ProposeAdmin {
        admin: Some(heir.clone()),
    };
    let sender = |protocol: &Protocol, name| protocol.addr(name).into_string();
    let not_admin = |sender| ContractError::from(GovernedError::NotAdmin { sender });
    let refusal = not_admin(sender(&protocol, "heir"));
    refused(protocol.orchestrator("heir", &offer), refusal);
    protocol.orchestrator("admin", &offer).unwrap();
    let refusal = GovernedError::NotProposedAdmin {
        sender: sender(&protocol, "stranger"),
    };
    let outcome = protocol.orchestrator("stranger", &ExecuteMsg::AcceptAdmin {});
    refused(outcome, ContractError::from(refusal));
    protocol.orchestrator("heir", &ExecuteMsg::AcceptAdmin {}).unwrap();
    let refusal = not_admin(sender(&protocol, "admin"));
    refused(update(&mut protocol, |_| {}), refusal);
    let config: ConfigResponse = protocol.ask(&protocol.contracts.job_orchestrator, &QueryMsg::Config {});
    assert_eq!((config.admin.admin, config.admin.proposed), (heir, None));
    assert_eq!(config.domain, protocol.domain());
}
