//! A provider that does not answer its session is asked on chain. Silence costs it, an answer costs it nothing, and nobody waits for
//! ever.

use cosmwasm_std::Binary;
use fxn_tests::{found, refused, Host, Protocol, Work, DEVELOPER, FUNC};
use job_orchestrator::ChainError;
use royalty_escrow::ContractError;
use schema::{
    escrow::{AllocationState, ExecuteMsg, ForcedResponse, Gateway, Reason},
    orchestrator::{FailureReason, ItemStatus, NewJob},
    price::Units,
    staking, Event, ItemId,
};

const CHAIN: [u64; 3] = [1, 3, 5];

/// Dora has a session with anna, bea and cora, one for each stage, and a spare one with axel.
fn begin() -> (Protocol, u64) {
    let mut protocol = Protocol::with_market();
    let mut session = protocol.new_session(&[(1, 10 * FUNC), (2, FUNC), (3, 10 * FUNC), (5, 10 * FUNC)]);
    let address = protocol.addr("gateway").into_string();
    session.gateway = Some(Gateway { address, bps: 500 });
    let number = protocol.opens_session(DEVELOPER, session);
    protocol.seconds_pass(60);
    (protocol, number)
}

fn asked() -> (Protocol, u64, ForcedResponse) {
    let (mut protocol, session) = begin();
    protocol.forces(DEVELOPER, session, &CHAIN, 4).unwrap();
    let forced = protocol.session(session).forced.unwrap();
    (protocol, session, forced)
}

fn item(job: u64) -> ItemId {
    ItemId {
        job,
        shard: 0,
        replica: 0,
    }
}

fn busy(protocol: &Protocol, deployment: u64) -> u16 {
    let question = staking::QueryMsg::Deployment { deployment };
    let found: staking::DeploymentResponse = protocol.ask(&protocol.contracts.provider_staking, &question);
    found.busy
}

fn finalise(session: u64) -> ExecuteMsg {
    ExecuteMsg::FinaliseSession { session }
}

fn leave(session: u64, deployment: u64) -> ExecuteMsg {
    ExecuteMsg::LeaveSession { session, deployment }
}

fn total(forced: &ForcedResponse) -> u128 {
    forced.spans.iter().map(|span| span.price.u128()).sum()
}

#[test]
fn who_answers_in_time_loses_nothing_and_is_paid_by_the_terms_of_the_session() {
    let (mut protocol, session) = begin();
    let (available, held) = protocol.money(DEVELOPER);
    let bonds = ["anna", "bea", "cora"].map(|name| protocol.provider(name).bond);
    let events = protocol.forces(DEVELOPER, session, &CHAIN, 4).unwrap();
    let forced = protocol.session(session).forced.unwrap();
    let (job, item) = (forced.job, item(forced.job));
    assert!(events.contains(&Event::RequestForced {
        session,
        job,
        deployments: schema::event::DeploymentList(CHAIN.to_vec()),
        until: forced.until,
    }));
    let most = Units {
        requests: 4,
        units_in: 4 * 256,
        units_out: 0,
    };
    let price: u128 = CHAIN
        .iter()
        .map(|deployment| protocol.session_price(session, *deployment, most))
        .sum();
    let fee = protocol.params.escrow.force_fee.u128();
    assert_eq!((total(&forced), forced.fee.u128()), (price, fee));
    assert_eq!(protocol.money(DEVELOPER), (available - price - fee, held + price + fee));
    assert_eq!(busy(&protocol, 1), 1, "the slot is the session's");
    assert_eq!(protocol.job(job).session, Some(session));

    protocol.proves(item, Work::honest(40));
    let units = Units { units_in: 40, ..most };
    let paid: u128 = CHAIN
        .iter()
        .map(|deployment| protocol.session_price(session, *deployment, units))
        .sum();
    assert_eq!(protocol.money(DEVELOPER), (available - paid - fee, held));
    assert_eq!(protocol.earned(&protocol.addr("cora"), Reason::Answer), fee);
    assert!(protocol.earned(&protocol.addr("anna"), Reason::Compute) > 0);
    assert!(protocol.earned(&protocol.addr("gateway"), Reason::Gateway) > 0);
    assert_eq!(bonds, ["anna", "bea", "cora"].map(|name| protocol.provider(name).bond));
    let after = protocol.session(session);
    assert_eq!(after.forced, None);
    assert!(after
        .allocations
        .iter()
        .all(|allocation| allocation.state == AllocationState::Open));
    assert_eq!(busy(&protocol, 1), 1);
    protocol.escrow("anna", &leave(session, 1)).unwrap();
    assert_eq!(busy(&protocol, 1), 0);
    protocol.assert_conserved();
}

#[test]
fn silence_costs_the_penalty_the_reservation_since_and_the_session_without_its_cooperation() {
    let (mut protocol, session, forced) = asked();
    let before = protocol.money(DEVELOPER).0;
    let bond = protocol.provider("anna").bond.u128();
    let voucher = protocol.voucher(session, 1, 1, 100);
    protocol.evidence_window_passes(item(forced.job));
    let events = protocol.expires(item(forced.job)).unwrap();
    let missed = found(&events, |event| match event {
        Event::ForcedEnded { missed, .. } => Some(*missed),
        _ => None,
    });
    assert_eq!(missed, [Some(1)]);
    // 20 % of the price of the most units, at least the least.
    let least = protocol.params.staking.miss_min.u128();
    let penalty = (total(&forced) * 2_000).div_ceil(10_000).max(least);
    assert_eq!(protocol.provider("anna").bond.u128(), bond - penalty);
    assert_eq!(
        protocol.money(DEVELOPER).0,
        before + total(&forced) + forced.fee.u128() + penalty - penalty / 10
    );
    assert_eq!(
        (busy(&protocol, 1), busy(&protocol, 3)),
        (0, 1),
        "its slot is free, and no other's"
    );

    let anna = protocol.allocation(session, 1);
    let date = protocol.now() + protocol.params.escrow.close_notice_seconds;
    assert_eq!((anna.state, anna.releasable_at), (AllocationState::Missed, date));
    let earned = (100_000u128 * u128::from(forced.opened_at - anna.joined_at)).div_ceil(3_600);
    assert_eq!(anna.accrued.u128(), earned, "nothing since it was asked");
    assert_eq!(protocol.allocation(session, 3).state, AllocationState::Open);
    // What it was promised before is still its own.
    protocol.settles(vec![voucher]);
    assert!(protocol.allocation(session, 1).paid.u128() > 0);
    protocol.seconds_pass(protocol.params.escrow.close_notice_seconds + 1);
    protocol.escrow("stranger", &finalise(session)).unwrap();
    assert_eq!(protocol.earned(&protocol.addr("anna"), Reason::Reservation), earned);
    assert_eq!(protocol.allocation(session, 1).state, AllocationState::Closed);
    assert_eq!(busy(&protocol, 1), 0);
    protocol.assert_conserved();
    // Nor is a slot of somebody else's given back with the rest.
    let other = protocol.new_session(&[(1, FUNC)]);
    protocol.opens_session(DEVELOPER, other);
    protocol.seconds_pass(700);
    protocol.escrow("stranger", &finalise(session)).unwrap();
    assert_eq!(busy(&protocol, 1), 1);
    protocol.assert_conserved();
}

#[test]
fn a_slot_given_back_with_its_penalty_is_not_given_back_again_by_leaving_or_by_consent() {
    for by_consent in [false, true] {
        let (mut protocol, session, forced) = asked();
        protocol.evidence_window_passes(item(forced.job));
        protocol.expires(item(forced.job)).unwrap();
        let other = protocol.new_session(&[(1, FUNC)]);
        protocol.opens_session(DEVELOPER, other);
        if by_consent {
            let consents = vec![protocol.consent("anna", session, 1, 0)];
            let close = ExecuteMsg::CloseSession { session, consents };
            protocol.escrow(DEVELOPER, &close).unwrap();
        } else {
            protocol.escrow("anna", &leave(session, 1)).unwrap();
        }
        assert_eq!(busy(&protocol, 1), 1, "the slot of the other session");
        protocol.assert_conserved();
    }
}

#[test]
fn a_later_span_that_stalls_is_the_one_that_pays() {
    let (mut protocol, session, forced) = asked();
    let links = protocol.links(item(forced.job), Work::honest(40));
    let bonds = ["anna", "cora"].map(|name| protocol.provider(name).bond);
    protocol.deadline_passes(item(forced.job));
    protocol.posts_evidence(item(forced.job), links[..1].to_vec()).unwrap();
    protocol.evidence_window_passes(item(forced.job));
    protocol.expires(item(forced.job)).unwrap();
    let states = CHAIN.map(|deployment| protocol.allocation(session, deployment).state);
    assert_eq!(
        states,
        [AllocationState::Open, AllocationState::Missed, AllocationState::Open]
    );
    assert_eq!(bonds, ["anna", "cora"].map(|name| protocol.provider(name).bond));
    protocol.assert_conserved();
}

#[test]
fn where_nobody_knows_who_failed_nobody_pays_and_the_session_goes_on() {
    let (mut protocol, session, forced) = asked();
    let (available, _) = protocol.money(DEVELOPER);
    let mut links = protocol.links(item(forced.job), Work::honest(40));
    links[0].acknowledgement = None;
    protocol.deadline_passes(item(forced.job));
    protocol.posts_evidence(item(forced.job), links[..1].to_vec()).unwrap();
    protocol.evidence_window_passes(item(forced.job));
    protocol.expires(item(forced.job)).unwrap();
    let back = total(&forced) + forced.fee.u128();
    assert_eq!(protocol.money(DEVELOPER).0, available + back);
    assert!(CHAIN
        .iter()
        .all(|deployment| protocol.allocation(session, *deployment).state == AllocationState::Open));
    protocol.forces(DEVELOPER, session, &CHAIN, 1).unwrap();
    protocol.assert_conserved();
}

#[test]
fn vouchers_in_the_hands_of_a_provider_are_worth_the_same_whatever_is_forced() {
    let (mut protocol, session) = begin();
    // All of the allocation, promised and not yet settled.
    let mut promise = protocol.voucher(session, 1, 1, 1_000_000).voucher;
    promise.amount = (10 * FUNC).into();
    let voucher = protocol.signs(promise);
    protocol.forces(DEVELOPER, session, &CHAIN, 4).unwrap();
    let paid = |protocol: &Protocol| protocol.allocation(session, 1).paid.u128();
    protocol.settles(vec![voucher]);
    assert_eq!(paid(&protocol), 10 * FUNC);
    let job = protocol.session(session).forced.unwrap().job;
    protocol.proves(item(job), Work::honest(40));
    protocol.assert_conserved();
}

#[test]
fn nobody_leaves_and_nothing_is_closed_while_an_answer_is_waited_for() {
    let (mut protocol, session, forced) = asked();
    let until = forced.until;
    let waits = |deployment| ContractError::Asked {
        session,
        deployment,
        until,
    };
    refused(protocol.escrow("anna", &leave(session, 1)), waits(1));
    let consents = vec![protocol.consent("bea", session, 3, 0)];
    let close = ExecuteMsg::CloseSession { session, consents };
    refused(protocol.escrow(DEVELOPER, &close), waits(3));
    let again = ContractError::AlreadyForced {
        session,
        job: forced.job,
        until,
    };
    refused(protocol.forces(DEVELOPER, session, &CHAIN, 1), again);
    // Who was not asked is free to go, and the owner may wish to close.
    protocol.escrow("axel", &leave(session, 2)).unwrap();
    let close = ExecuteMsg::CloseSession {
        session,
        consents: vec![],
    };
    protocol.escrow(DEVELOPER, &close).unwrap();
    assert_eq!(protocol.allocation(session, 1).releasable_at, until);
    protocol.seconds_pass(protocol.params.escrow.close_notice_seconds + 1);
    assert!(protocol.escrow("stranger", &finalise(session)).is_err());
    protocol.proves(item(forced.job), Work::honest(40));
    protocol.escrow("stranger", &finalise(session)).unwrap();
    assert_eq!((protocol.busy_slots(), protocol.money(DEVELOPER).1), (0, 0));
    protocol.assert_conserved();
}

#[test]
fn a_miss_after_the_session_has_expired_is_a_miss_all_the_same() {
    let (mut protocol, session) = begin();
    let expires_at = protocol.session(session).expires_at;
    protocol.seconds_pass(expires_at - protocol.now() - 1);
    protocol.forces(DEVELOPER, session, &CHAIN, 1).unwrap();
    let job = protocol.session(session).forced.unwrap().job;
    protocol.seconds_pass(1);
    let late = ContractError::SessionExpired {
        session,
        expires_at,
        now: expires_at,
    };
    refused(protocol.forces(DEVELOPER, session, &CHAIN, 1), late);
    protocol.seconds_pass(protocol.params.escrow.close_notice_seconds + 1);
    // The spare is over; the others wait.
    protocol.escrow("stranger", &finalise(session)).unwrap();
    assert_eq!(protocol.allocation(session, 2).state, AllocationState::Closed);
    assert_eq!(protocol.allocation(session, 1).state, AllocationState::Open);
    protocol.evidence_window_passes(item(job));
    protocol.expires(item(job)).unwrap();
    protocol.escrow("stranger", &finalise(session)).unwrap();
    assert!(protocol.earned(&protocol.addr(DEVELOPER), Reason::Penalty) > 0);
    assert_eq!((protocol.busy_slots(), protocol.money(DEVELOPER).1), (0, 0));
    protocol.assert_conserved();
}

#[test]
fn a_request_that_nobody_ends_is_waited_for_until_its_date_and_blames_nobody_afterwards() {
    let (mut protocol, session, forced) = asked();
    let bond = protocol.provider("anna").bond;
    assert_eq!(protocol.allocation(session, 1).releasable_at, forced.until);
    protocol.seconds_pass(forced.until - protocol.now());
    assert!(
        protocol.escrow("anna", &leave(session, 1)).is_err(),
        "at the date itself"
    );
    protocol.seconds_pass(1);
    protocol.escrow("stranger", &finalise(session)).unwrap();
    let release = ExecuteMsg::ReleaseExpired { job: forced.job };
    protocol.escrow("stranger", &release).unwrap();
    assert_eq!((protocol.busy_slots(), protocol.money(DEVELOPER).1), (0, 0));
    // The slot is another's by now.
    let other = protocol.new_session(&[(1, FUNC)]);
    protocol.opens_session(DEVELOPER, other);
    protocol.expires(item(forced.job)).unwrap();
    assert_eq!(
        protocol.item(item(forced.job)).status,
        ItemStatus::Failed {
            reason: FailureReason::Time
        }
    );
    assert_eq!((protocol.provider("anna").bond, busy(&protocol, 1)), (bond, 1));
    protocol.assert_conserved();
}

#[test]
fn a_later_request_is_not_ended_by_the_end_of_one_whose_date_had_passed() {
    let mut protocol = Protocol::with_market();
    let mut session = protocol.new_session(&[(1, FUNC), (3, FUNC), (5, FUNC)]);
    session.expires_at = protocol.now() + 3_600;
    let session = protocol.opens_session(DEVELOPER, session);
    protocol.forces(DEVELOPER, session, &CHAIN, 1).unwrap();
    let first = protocol.session(session).forced.unwrap();
    protocol.seconds_pass(first.until - protocol.now() + 1);
    protocol.forces(DEVELOPER, session, &CHAIN, 1).unwrap();
    let second = protocol.session(session).forced.unwrap();
    protocol.expires(item(first.job)).unwrap();
    assert_eq!(protocol.session(session).forced, Some(second.clone()));
    protocol.proves(item(second.job), Work::honest(40));
    assert_eq!(protocol.session(session).forced, None);
    assert_eq!(
        protocol.earned(&protocol.addr("cora"), Reason::Answer),
        second.fee.u128()
    );
    protocol.assert_conserved();
}

#[test]
fn a_drained_deployment_with_another_key_and_hardly_any_bond_still_answers_or_pays() {
    let (mut protocol, session) = begin();
    let drain = staking::ExecuteMsg::Drain { deployment: 1 };
    protocol.staking("anna", &drain).unwrap();
    let mut profile = protocol.profile("anna");
    profile.host_key = Host::named("mallory").public_key();
    protocol
        .staking("anna", &staking::ExecuteMsg::UpdateProvider { profile })
        .unwrap();
    // Its key is the one of the day on which it joined.
    protocol.forces(DEVELOPER, session, &CHAIN, 1).unwrap();
    let job = protocol.session(session).forced.unwrap().job;
    protocol.proves(item(job), Work::honest(40));
    assert!(protocol.earned(&protocol.addr("anna"), Reason::Compute) > 0);
    let mut missed = 0;
    while missed < 3 {
        let chain = [1, 3, 5];
        let Ok(_) = protocol.forces(DEVELOPER, session, &chain, 1) else {
            break;
        };
        let job = protocol.session(session).forced.unwrap().job;
        protocol.evidence_window_passes(item(job));
        protocol.expires(item(job)).unwrap();
        missed += 1;
    }
    assert_eq!(missed, 1, "a deployment that missed is on its way out");
    protocol.assert_conserved();
}

#[test]
fn what_cannot_be_answered_cannot_be_forced() {
    let (mut protocol, session) = begin();
    let chain = |error: ChainError| job_orchestrator::ContractError::from(error);
    let gap = |deployment, found, expected| {
        chain(ChainError::Gap {
            deployment,
            found,
            expected,
        })
    };
    refused(protocol.forces(DEVELOPER, session, &[1, 5], 1), gap(5, 2, 1));
    refused(protocol.forces(DEVELOPER, session, &[3, 1, 5], 1), gap(3, 1, 0));
    refused(protocol.forces(DEVELOPER, session, &[1, 2, 3, 5], 1), gap(2, 0, 1));
    let short = chain(ChainError::Short { next: 2, stages: 3 });
    refused(protocol.forces(DEVELOPER, session, &[1, 3], 1), short);
    let stranger = ContractError::NoAllocation { session, deployment: 4 };
    refused(protocol.forces(DEVELOPER, session, &[1, 4, 5], 1), stranger);
    let empty = job_orchestrator::ContractError::EmptyShard { shard: 0 };
    refused(protocol.forces(DEVELOPER, session, &CHAIN, 0), empty);
    // As many units as the version allows for these rows: more than the SLA of the deployments takes.
    let units = chain(ChainError::TooManyUnits {
        deployment: 1,
        units: 400 * 256,
        max: 10_000,
    });
    refused(protocol.forces(DEVELOPER, session, &CHAIN, 400), units);
    let garbage = ExecuteMsg::ForceRequest {
        session,
        deployments: CHAIN.to_vec(),
        rows: vec![Binary::from(vec![0xff])],
    };
    let no_text = job_orchestrator::ContractError::RowNotText { shard: 0, row: 0 };
    refused(protocol.escrow(DEVELOPER, &garbage), no_text);
    let long = ExecuteMsg::ForceRequest {
        session,
        deployments: CHAIN.to_vec(),
        rows: vec![Binary::from(vec![b'a'; 8_193])],
    };
    assert!(protocol.escrow(DEVELOPER, &long).is_err());
    protocol.assert_conserved();
}

#[test]
fn a_slot_backs_what_is_unsettled_and_what_is_forced_together() {
    let mut protocol = Protocol::with_market();
    let session = protocol.new_session(&[(1, 50 * FUNC), (3, FUNC), (5, FUNC)]);
    let session = protocol.opens_session(DEVELOPER, session);
    let most = Units {
        requests: 1,
        units_in: 256,
        units_out: 0,
    };
    let price = protocol.session_price(session, 1, most);
    let above = |unsettled: u128| ContractError::AboveSlotBond {
        deployment: 1,
        unsettled: unsettled.into(),
        slot_bond: (50 * FUNC).into(),
    };
    refused(protocol.forces(DEVELOPER, session, &CHAIN, 1), above(50 * FUNC + price));
    // Something is settled: there is room again, for one of the two.
    protocol.settles(vec![protocol.voucher(session, 1, 1, 1_000)]);
    let paid = protocol.allocation(session, 1).paid.u128();
    assert!(paid > price);
    protocol.forces(DEVELOPER, session, &CHAIN, 1).unwrap();
    let top_up = |amount| ExecuteMsg::TopUp {
        session,
        allocations: Protocol::allocations(&[(1, amount)]),
    };
    refused(protocol.escrow(DEVELOPER, &top_up(paid)), above(50 * FUNC + price));
    protocol.escrow(DEVELOPER, &top_up(paid - price)).unwrap();
    protocol.assert_conserved();
}

#[test]
fn a_developer_names_the_chain_of_a_job_and_after_a_miss_it_is_drawn() {
    let mut protocol = Protocol::with_market();
    let named = |chain: &[u64]| NewJob {
        chain: Some(chain.to_vec()),
        ..Protocol::order(2, 2, 1)
    };
    let job = protocol.starts(named(&[2, 4, 5]));
    for item in protocol.items(job) {
        let chain: Vec<u64> = item.spans.iter().map(|span| span.deployment).collect();
        assert_eq!(chain, [2, 4, 5]);
    }
    assert_eq!((busy(&protocol, 2), busy(&protocol, 1)), (2, 0));
    let item = protocol.items(job)[0].item;
    protocol.evidence_window_passes(item);
    protocol.expires(item).unwrap();
    assert_eq!(protocol.item(item).spans[0].deployment, 1, "never the one that missed");
    protocol.assert_conserved();
}

#[test]
fn a_chain_that_a_draw_would_not_give_is_not_taken_from_a_developer_either() {
    let mut protocol = Protocol::with_market();
    let tries = |protocol: &mut Protocol, change: &dyn Fn(&mut NewJob)| {
        let mut job = Protocol::order(1, 2, 1);
        job.chain = Some(vec![1, 3, 5]);
        change(&mut job);
        let told = protocol.submits(DEVELOPER, job).unwrap_err();
        told.root_cause().to_string()
    };
    assert_eq!(
        tries(&mut protocol, &|job| job.chain = Some(vec![])),
        "a chain names 1 to 3 deployments, found 0"
    );
    assert_eq!(
        tries(&mut protocol, &|job| job.chain = Some(vec![1; 4])),
        "a chain names 1 to 3 deployments, found 4"
    );
    assert_eq!(
        tries(&mut protocol, &|job| job.replicas = 2),
        "1 to 1 replicas of each shard, found 2"
    );
    assert_eq!(
        tries(&mut protocol, &|job| job.chain = Some(vec![1, 3, 77])),
        "a deployment cannot be part of a chain: there is no deployment 77"
    );
    let dear = tries(&mut protocol, &|job| job.max_price = 1_000u128.into());
    assert!(dear.ends_with("at most 1000 may be spent"), "{dear}");
    let other = tries(&mut protocol, &|job| job.engine_class = Some("abacus".into()));
    assert_eq!(other, "deployment 1 runs in class ort-cpu-avx2, the chain in abacus");
    let slow = tries(&mut protocol, &|job| job.deadline_seconds = Some(5));
    assert!(slow.ends_with("seconds, at most 1 are left"), "{slow}");
    // A slot that is not there is refused by staking.
    protocol
        .staking("anna", &staking::ExecuteMsg::Drain { deployment: 1 })
        .unwrap();
    let drained = tries(&mut protocol, &|_| {});
    assert_eq!(drained, "deployment 1 is draining");
    assert_eq!(protocol.busy_slots(), 0);
    protocol.assert_conserved();
}
