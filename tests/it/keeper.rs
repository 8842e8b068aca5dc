//! Whoever expires a miss has a small part of the penalty, so that somebody always does.

use fxn_tests::{found, refused, Outcome, Protocol, Work, DEVELOPER, FUNC, PROVIDERS};
use job_orchestrator::ContractError;
use schema::{
    escrow::{Holder, Reason},
    orchestrator::{ExecuteMsg, ItemStatus},
    params::OrchestratorParams,
    Event, ItemId,
};

fn item(job: u64) -> ItemId {
    let (shard, replica) = (0, 0);
    ItemId { job, shard, replica }
}

/// A job whose first host has missed.
fn missed(protocol: &mut Protocol) -> ItemId {
    let item = item(protocol.starts(Protocol::order(1, 4, 1)));
    protocol.evidence_window_passes(item);
    item
}

fn expires(protocol: &mut Protocol, name: &str, item: ItemId) -> Outcome {
    protocol.orchestrator(name, &ExecuteMsg::Expire { item })
}

/// What left the culprit's bond.
fn penalty(events: &[Event]) -> u128 {
    let penalties = found(events, |event| match event {
        Event::BondPenalised { amount, .. } => Some(amount.u128()),
        _ => None,
    });
    assert_eq!(penalties.len(), 1);
    penalties[0]
}

fn update(protocol: &mut Protocol, bps: u16) -> Outcome {
    let params = OrchestratorParams {
        keeper_bps: bps,
        ..protocol.params.orchestrator.clone()
    };
    protocol.orchestrator("admin", &ExecuteMsg::UpdateParams { params })
}

#[test]
fn whoever_expires_a_miss_has_a_tenth_of_the_penalty_and_the_developer_the_rest() {
    let mut protocol = Protocol::with_market();
    let item = missed(&mut protocol);
    let before = protocol.money(DEVELOPER).0;
    let events = expires(&mut protocol, "stranger", item).unwrap();
    let whole = penalty(&events);
    let fee = whole / 10;
    assert!(fee > 0);
    assert_eq!(protocol.money("stranger"), (fee, 0));
    assert_eq!(protocol.money(DEVELOPER).0, before + whole - fee);
    assert_eq!(protocol.earned(&protocol.addr("stranger"), Reason::Keeper), fee);
    assert_eq!(protocol.earned(&protocol.addr(DEVELOPER), Reason::Penalty), whole - fee);
    let told = found(&events, |event| match event {
        Event::Credited {
            holder: Holder::Address(holder),
            reason: Reason::Keeper,
            amount,
            item,
            ..
        } => Some((holder.clone(), amount.u128(), *item)),
        _ => None,
    });
    assert_eq!(told, [(protocol.addr("stranger").into_string(), fee, Some(item))]);
    protocol.assert_conserved();
    // Money like any other.
    let withdraw = schema::escrow::ExecuteMsg::Withdraw { amount: None };
    protocol.escrow("stranger", &withdraw).unwrap();
    assert_eq!(protocol.balance(&protocol.addr("stranger")), fee);
    protocol.assert_conserved();
}

#[test]
fn who_expires_his_own_miss_gets_a_tenth_back_and_not_more() {
    let mut protocol = Protocol::with_market();
    let item = missed(&mut protocol);
    let culprit = protocol.item(item).spans.remove(0).provider;
    let name = PROVIDERS
        .into_iter()
        .find(|name| protocol.addr(name).as_str() == culprit)
        .unwrap();
    let (bond, money) = (protocol.provider(name).bond.u128(), protocol.money(name).0);
    let events = expires(&mut protocol, name, item).unwrap();
    let lost = bond - protocol.provider(name).bond.u128();
    assert_eq!(lost, penalty(&events));
    let back = protocol.money(name).0 - money;
    assert_eq!(back, lost / 10);
    protocol.assert_conserved();
}

#[test]
fn a_developer_who_expires_himself_has_the_whole_penalty_and_not_more() {
    let mut protocol = Protocol::with_market();
    let item = missed(&mut protocol);
    let before = protocol.money(DEVELOPER).0;
    let events = expires(&mut protocol, DEVELOPER, item).unwrap();
    assert_eq!(protocol.money(DEVELOPER).0, before + penalty(&events));
    protocol.assert_conserved();
}

#[test]
fn where_nobody_is_penalised_nobody_is_paid_for_it() {
    let mut protocol = Protocol::with_market();
    let item = item(protocol.starts(Protocol::order(1, 4, 1)));
    let mut links = protocol.links(item, Work::honest(100));
    links.truncate(1);
    links[0].acknowledgement = None;
    protocol.deadline_passes(item);
    protocol.posts_evidence(item, links).unwrap();
    protocol.evidence_window_passes(item);
    expires(&mut protocol, "stranger", item).unwrap();
    assert_eq!(protocol.item(item).attempt, 1, "a failed link is drawn anew");
    assert_eq!(protocol.money("stranger"), (0, 0));
    // Neither is there anything for who comes too late, nor for what nobody has missed.
    let late = ContractError::NotOverdue {
        evidence_until: protocol.item(item).evidence_until,
        now: protocol.now(),
    };
    refused(expires(&mut protocol, "stranger", item), late);
    protocol.proves(item, Work::honest(100));
    let settled = ContractError::NotAssigned { item };
    refused(expires(&mut protocol, "stranger", item), settled);
    assert!(matches!(protocol.item(item).status, ItemStatus::Settled { .. }));
    assert_eq!(protocol.money("stranger"), (0, 0));
    protocol.assert_conserved();
}

#[test]
fn silence_in_a_session_pays_its_keeper_too() {
    let mut protocol = Protocol::with_market();
    let session = protocol.new_session(&[(1, 10 * FUNC), (3, 10 * FUNC), (5, 10 * FUNC)]);
    let session = protocol.opens_session(DEVELOPER, session);
    protocol.forces(DEVELOPER, session, &[1, 3, 5], 4).unwrap();
    let forced = item(protocol.session(session).forced.unwrap().job);
    protocol.evidence_window_passes(forced);
    let events = expires(&mut protocol, "stranger", forced).unwrap();
    assert_eq!(protocol.money("stranger"), (penalty(&events) / 10, 0));
    protocol.assert_conserved();
}

#[test]
fn the_part_is_that_of_the_submission_and_at_most_a_tenth() {
    let mut protocol = Protocol::with_market();
    for bps in [1_001, 10_000, u16::MAX] {
        let bounds = ContractError::KeeperOutOfBounds { bps, max: 1_000 };
        refused(update(&mut protocol, bps), bounds);
    }
    update(&mut protocol, 0).unwrap();
    let without = item(protocol.starts(Protocol::order(1, 4, 1)));
    update(&mut protocol, 333).unwrap();
    let with = item(protocol.starts(Protocol::order(1, 4, 1)));
    update(&mut protocol, 1_000).unwrap();
    protocol.evidence_window_passes(without);
    protocol.evidence_window_passes(with);
    let events = expires(&mut protocol, "stranger", without).unwrap();
    assert!(penalty(&events) > 0);
    assert_eq!(protocol.money("stranger"), (0, 0));
    let events = expires(&mut protocol, "stranger", with).unwrap();
    assert_eq!(protocol.money("stranger"), (penalty(&events) * 333 / 10_000, 0));
    protocol.assert_conserved();
}
