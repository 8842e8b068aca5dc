//! Held money comes back, whoever does or does not move.

use fxn_tests::{refused, Protocol, Work, DEVELOPER, FUNC};
use schema::{
    escrow::{ExecuteMsg, MoneyResponse, QueryMsg, ReceiveMsg},
    orchestrator::{FailureReason, ItemStatus, JobStatus},
};

#[test]
fn anyone_releases_the_hold_of_a_job_that_nobody_finished() {
    let mut protocol = Protocol::with_market();
    let job = protocol.starts(Protocol::order(2, 4, 1));
    let money: MoneyResponse = protocol.ask(
        &protocol.contracts.royalty_escrow,
        &QueryMsg::Money {
            holder: protocol.addr(DEVELOPER).into_string(),
            start_after: None,
            sessions_after: None,
            limit: None,
        },
    );
    let expires_at = money.holds[0].expires_at;
    assert_eq!(
        expires_at,
        protocol.now() + protocol.params.orchestrator.job_seconds_max
    );
    protocol.seconds_pass(expires_at - protocol.now());
    let release = ExecuteMsg::ReleaseExpired { job };
    let early = royalty_escrow::ContractError::HoldNotExpired {
        job,
        expires_at,
        now: expires_at,
    };
    refused(protocol.escrow("stranger", &release), early);
    protocol.seconds_pass(1);
    protocol.escrow("stranger", &release).unwrap();
    assert_eq!(protocol.money(DEVELOPER), (100 * FUNC, 0));
    protocol.assert_conserved();

    // The job can still be ended: slots come free, culprits pay, and nothing is taken from anybody's hold.
    for item in protocol.items(job) {
        protocol.expires(item.item).unwrap();
        let reason = FailureReason::Time;
        assert_eq!(protocol.item(item.item).status, ItemStatus::Failed { reason });
    }
    assert_eq!(protocol.job(job).status, JobStatus::Incomplete);
    assert_eq!(protocol.busy_slots(), 0);
    assert!(protocol.money(DEVELOPER).0 > 100 * FUNC);
    protocol.assert_conserved();
}

#[test]
fn proven_work_that_waited_past_the_hold_is_not_paid_out_of_somebody_elses() {
    let mut protocol = Protocol::with_market();
    let job = protocol.starts(Protocol::order(1, 4, 2));
    let items = protocol.items(job);
    protocol.proves(items[0].item, Work::honest(100));
    let other = protocol.starts(Protocol::order(1, 4, 1));
    protocol.seconds_pass(protocol.params.orchestrator.job_seconds_max + 1);
    protocol
        .escrow("stranger", &ExecuteMsg::ReleaseExpired { job })
        .unwrap();
    protocol.expires(items[1].item).unwrap();
    let reason = FailureReason::Time;
    assert_eq!(protocol.item(items[0].item).status, ItemStatus::Failed { reason });
    assert_eq!(protocol.job(job).paid.u128(), 0);
    assert_eq!(protocol.money(DEVELOPER).1, protocol.job(other).held.u128());
    protocol.assert_conserved();
}

#[test]
fn money_that_is_not_held_can_be_taken_out_while_a_job_runs() {
    let mut protocol = Protocol::with_market();
    let job = protocol.starts(Protocol::order(1, 4, 1));
    protocol
        .escrow(DEVELOPER, &ExecuteMsg::Withdraw { amount: None })
        .unwrap();
    assert_eq!(protocol.money(DEVELOPER), (0, FUNC));
    assert_eq!(protocol.balance(&protocol.addr(DEVELOPER)), 99 * FUNC);
    protocol.proves_all(job, Work::honest(100));
    protocol
        .escrow(DEVELOPER, &ExecuteMsg::Withdraw { amount: None })
        .unwrap();
    let paid = protocol.job(job).paid.u128();
    assert_eq!(protocol.balance(&protocol.addr(DEVELOPER)), 100 * FUNC - paid);
    protocol.assert_conserved();
}

#[test]
fn a_deposit_for_somebody_else_is_his() {
    let mut protocol = Protocol::with_market();
    protocol.fund("sponsor", FUNC);
    let gift = ReceiveMsg::Deposit {
        beneficiary: Some(protocol.addr("erin").into_string()),
    };
    let escrow = protocol.contracts.royalty_escrow.clone();
    protocol.send("sponsor", &escrow, FUNC, &gift).unwrap();
    assert_eq!((protocol.money("sponsor"), protocol.money("erin")), ((0, 0), (FUNC, 0)));
    protocol.assert_conserved();
}
