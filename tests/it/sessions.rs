//! Sessions on the whole network: slots and bond in staking, records in the registry, FUNC that is really burnt.

use fxn_tests::{found, refused, Host, Protocol, DEVELOPER, FUNC, MODEL, PARENT};
use schema::{
    escrow::{AllocationState, ExecuteMsg, Gateway, Reason},
    price::Units,
    registry::{self, ModelResponse, ModelStatus},
    session::Voucher,
    staking::{self, DeploymentResponse},
    Event,
};

/// Dora has a session with anna, who serves stage 0, and bea, who serves stage 1.
fn begin() -> (Protocol, u64) {
    let mut protocol = Protocol::with_market();
    let session = protocol.new_session(&[(1, 40 * FUNC), (3, 30 * FUNC)]);
    let number = protocol.opens_session(DEVELOPER, session);
    (protocol, number)
}

fn busy(protocol: &Protocol, deployment: u64) -> u16 {
    let question = staking::QueryMsg::Deployment { deployment };
    let found: DeploymentResponse = protocol.ask(&protocol.contracts.provider_staking, &question);
    found.busy
}

fn model(protocol: &Protocol, name: &str) -> ModelResponse {
    let question = registry::QueryMsg::Model {
        model: name.parse().unwrap(),
    };
    protocol.ask(&protocol.contracts.model_registry, &question)
}

fn finalise(session: u64) -> ExecuteMsg {
    ExecuteMsg::FinaliseSession { session }
}

#[test]
fn a_million_requests_are_settled_at_once_and_everybody_has_his_part() {
    let mut protocol = Protocol::with_market();
    let mut session = protocol.new_session(&[(1, 40 * FUNC)]);
    let address = protocol.addr("gateway").into_string();
    session.gateway = Some(Gateway { address, bps: 500 });
    let number = protocol.opens_session(DEVELOPER, session);
    assert_eq!(busy(&protocol, 1), 1);
    let supply = protocol.supply();
    // As much of a million requests as the allocation pays for.
    let voucher = Voucher {
        session: number,
        deployment: 1,
        sequence: 1_000_000,
        requests: 1_000_000,
        units_in: 1_000_000,
        units_out: 0,
        amount: (40 * FUNC).into(),
    };
    let whole = protocol.session_price(number, 1, voucher.units());
    assert!(whole > 40 * FUNC);
    let events = protocol.settles(vec![protocol.signs(voucher)]);
    let burnt = found(&events, |event| match event {
        Event::VoucherSettled {
            requests, paid, burnt, ..
        } => {
            assert_eq!((*requests, paid.u128()), (1_000_000, 40 * FUNC));
            Some(burnt.u128())
        }
        _ => None,
    });
    assert_eq!(protocol.supply(), supply - burnt[0]);
    let earned = |name: &str, reason| protocol.earned(&protocol.addr(name), reason);
    let parts = [
        earned("anna", Reason::Compute),
        earned("treasury", Reason::Protocol),
        earned("gateway", Reason::Gateway),
        earned("clara", Reason::Royalty),
        earned("chloe", Reason::Royalty),
        protocol.earned_by(&format!("model:{PARENT}"), Reason::Lineage),
    ];
    assert!(parts.iter().all(|part| *part > 0), "{parts:?}");
    assert_eq!(parts.iter().sum::<u128>() + burnt[0], 40 * FUNC);
    let usage = model(&protocol, MODEL).usage;
    // Counted in the part in which it was paid.
    let counted = u128::from(usage.units.requests);
    assert_eq!(counted, 1_000_000 * 40 * FUNC / whole);
    assert_eq!((usage.paid.u128(), usage.sunk.u128()), (40 * FUNC, parts[1] + burnt[0]));
    protocol.assert_conserved();
}

#[test]
fn a_session_takes_slots_that_no_job_is_given_and_gives_them_back() {
    let mut protocol = Protocol::with_market();
    // Eight slots each: all of anna's and axel's, who are all there is for stage 0.
    let sessions: Vec<u64> = (0..8)
        .map(|_| {
            let session = protocol.new_session(&[(1, FUNC), (2, FUNC)]);
            protocol.opens_session(DEVELOPER, session)
        })
        .collect();
    let full = provider_staking::ContractError::NoFreeSlot {
        deployment: 1,
        slots: 8,
    };
    let session = protocol.new_session(&[(3, FUNC), (1, FUNC)]);
    refused(protocol.escrow(DEVELOPER, &ExecuteMsg::OpenSession { session }), full);
    assert_eq!(busy(&protocol, 3), 0, "all slots of a session or none");
    assert!(
        protocol.submits(DEVELOPER, Protocol::order(1, 1, 1)).is_err(),
        "no supply"
    );
    let leave = ExecuteMsg::LeaveSession {
        session: sessions[0],
        deployment: 1,
    };
    protocol.escrow("anna", &leave).unwrap();
    protocol.submits(DEVELOPER, Protocol::order(1, 1, 1)).unwrap();
    assert_eq!((busy(&protocol, 1), busy(&protocol, 2)), (8, 8));
    protocol.assert_conserved();
}

#[test]
fn when_a_provider_leaves_another_takes_over_in_one_transaction_whatever_became_of_the_model() {
    let (mut protocol, session) = begin();
    protocol.settles(vec![protocol.voucher(session, 1, 1, 100)]);
    let paused = registry::ExecuteMsg::SetStatus {
        model: MODEL.parse().unwrap(),
        status: ModelStatus::Paused,
    };
    protocol.registry("clara", &paused).unwrap();
    let new = protocol.new_session(&[(1, FUNC)]);
    assert!(protocol
        .escrow(DEVELOPER, &ExecuteMsg::OpenSession { session: new })
        .is_err());
    let leave = ExecuteMsg::LeaveSession { session, deployment: 1 };
    protocol.escrow("anna", &leave).unwrap();
    let allocations = Protocol::allocations(&[(2, 5 * FUNC)]);
    protocol
        .escrow(DEVELOPER, &ExecuteMsg::TopUp { session, allocations })
        .unwrap();
    assert_eq!((busy(&protocol, 1), busy(&protocol, 2)), (0, 1));
    let events = protocol.settles(vec![
        protocol.voucher(session, 2, 1, 100),
        protocol.voucher(session, 3, 1, 100),
    ]);
    let settled = found(&events, |event| {
        matches!(event, Event::VoucherSettled { .. }).then_some(())
    });
    assert_eq!(settled.len(), 2);
    protocol.assert_conserved();
}

#[test]
fn a_draining_deployment_serves_its_sessions_to_the_end_and_is_removed_afterwards() {
    let (mut protocol, session) = begin();
    let drain = staking::ExecuteMsg::Drain { deployment: 1 };
    protocol.staking("anna", &drain).unwrap();
    let remove = staking::ExecuteMsg::Remove { deployment: 1 };
    let serving = provider_staking::ContractError::Busy { deployment: 1, busy: 1 };
    refused(protocol.staking("anna", &remove), serving);
    protocol.settles(vec![protocol.voucher(session, 1, 1, 100)]);
    let allocations = Protocol::allocations(&[(1, FUNC)]);
    protocol.settles(vec![protocol.voucher(session, 1, 2, 200)]);
    // More money for a session that it has is no new work.
    protocol
        .escrow(DEVELOPER, &ExecuteMsg::TopUp { session, allocations })
        .unwrap();
    let leave = ExecuteMsg::LeaveSession { session, deployment: 1 };
    protocol.escrow("anna", &leave).unwrap();
    protocol.staking("anna", &remove).unwrap();
}

#[test]
fn whatever_the_session_key_settles_first_the_provider_has_its_best_voucher_paid_and_a_stranger_frees_the_rest() {
    let most = Units {
        requests: 1_000_000_000,
        units_in: 256_000_000_000,
        units_out: 0,
    };
    let stories = [
        // Later, for next to nothing.
        (6, None, false),
        // Other work: one row, as long as can be, all of it written.
        (
            6,
            Some(Units {
                requests: 1,
                units_in: 0,
                units_out: 256,
            }),
            false,
        ),
        // The last of all sequences, with counters that nothing exceeds, for almost everything.
        (u64::MAX, Some(most), true),
    ];
    for (sequence, counters, is_almost_all) in stories {
        let (mut protocol, session) = begin();
        let best = protocol.voucher(session, 1, 5, 100);
        let promised = best.voucher.amount.u128();
        let mut hostile = best.voucher;
        hostile.sequence = sequence;
        hostile.amount = if is_almost_all { promised - 1 } else { 1 }.into();
        if let Some(units) = counters {
            (hostile.requests, hostile.units_in, hostile.units_out) = (units.requests, units.units_in, units.units_out);
        }
        let before = protocol.settles(vec![protocol.signs(hostile)]);
        assert_eq!(settled(&before), [hostile.amount.u128()]);
        let after = protocol.settles(vec![best, protocol.signs(hostile)]);
        assert_eq!(settled(&after), [promised - hostile.amount.u128()]);
        let allocation = protocol.allocation(session, 1);
        assert_eq!((allocation.paid.u128(), allocation.sequence), (promised, sequence));
        protocol.seconds_pass(600 + protocol.params.escrow.close_notice_seconds + 1);
        protocol.escrow("stranger", &finalise(session)).unwrap();
        assert_eq!(protocol.money(DEVELOPER).1, 0);
        protocol.assert_conserved();
    }
}

fn settled(events: &[Event]) -> Vec<u128> {
    found(events, |event| match event {
        Event::VoucherSettled { paid, .. } => Some(paid.u128()),
        _ => None,
    })
}

#[test]
fn the_owner_and_the_provider_together_close_at_once_with_the_key_of_the_day() {
    let (mut protocol, session) = begin();
    protocol.settles(vec![protocol.voucher(session, 1, 5, 100)]);
    let mut profile = protocol.profile("anna");
    profile.host_key = Host::named("mallory").public_key();
    let rotate = staking::ExecuteMsg::UpdateProvider { profile };
    protocol.staking("anna", &rotate).unwrap();
    let close = |consents| ExecuteMsg::CloseSession { session, consents };
    let newer = vec![protocol.consent("mallory", session, 1, 5)];
    let not_signed = royalty_escrow::ContractError::NoConsent {
        deployment: 1,
        sequence: 5,
    };
    refused(protocol.escrow(DEVELOPER, &close(newer)), not_signed);
    let pinned = vec![
        protocol.consent("anna", session, 1, 5),
        protocol.consent("bea", session, 3, 0),
    ];
    protocol.escrow(DEVELOPER, &close(pinned)).unwrap();
    assert_eq!(protocol.money(DEVELOPER).1, 0);
    assert_eq!((busy(&protocol, 1), busy(&protocol, 3)), (0, 0));
    protocol.assert_conserved();
}

#[test]
fn a_client_that_vanishes_costs_its_provider_nothing_but_what_it_never_signed() {
    let (mut protocol, session) = begin();
    let voucher = protocol.voucher(session, 1, 1, 1_000);
    let expires_at = protocol.session(session).expires_at;
    let notice = protocol.params.escrow.close_notice_seconds;
    protocol.seconds_pass(expires_at + notice - protocol.now());
    let early = royalty_escrow::ContractError::NothingDue {
        session,
        next: expires_at + notice,
        now: expires_at + notice,
    };
    refused(protocol.escrow("stranger", &finalise(session)), early);
    // The chain stands still through the end of the notice.
    protocol.halts_for(100);
    let paid = voucher.voucher.amount.u128();
    protocol.settles(vec![voucher]);
    assert_eq!(protocol.allocation(session, 1).paid.u128(), paid);
    protocol.escrow("stranger", &finalise(session)).unwrap();
    let per_hour = 100_000u128;
    let reservation = (per_hour * u128::from(600 + notice)).div_ceil(3_600);
    for name in ["anna", "bea"] {
        assert_eq!(protocol.earned(&protocol.addr(name), Reason::Reservation), reservation);
    }
    assert_eq!(protocol.money(DEVELOPER), (100 * FUNC - paid - 2 * reservation, 0));
    assert_eq!((busy(&protocol, 1), busy(&protocol, 3)), (0, 0));
    protocol.assert_conserved();
}

#[test]
fn an_owner_that_closes_waits_for_the_notice_and_a_halt_delays_nothing_but_the_call() {
    let (mut protocol, session) = begin();
    let close = ExecuteMsg::CloseSession {
        session,
        consents: vec![],
    };
    protocol.escrow(DEVELOPER, &close).unwrap();
    let allocation = protocol.allocation(session, 1);
    let date = protocol.now() + protocol.params.escrow.close_notice_seconds;
    assert_eq!(
        (allocation.state, allocation.releasable_at),
        (AllocationState::Closing, date)
    );
    protocol.halts_for(1_000);
    protocol.escrow("stranger", &finalise(session)).unwrap();
    assert_eq!(protocol.money(DEVELOPER).1, 0);
    protocol.assert_conserved();
}

#[test]
fn of_32_sessions_settled_at_once_one_bad_voucher_costs_nobody_else_anything() {
    let mut protocol = Protocol::with_market();
    protocol.deposits(DEVELOPER, 100 * FUNC);
    let sessions: Vec<(u64, u64)> = (1..=4)
        .flat_map(|deployment| (0..8).map(move |_| deployment))
        .map(|deployment| {
            let session = protocol.new_session(&[(deployment, FUNC)]);
            (protocol.opens_session(DEVELOPER, session), deployment)
        })
        .collect();
    let mut vouchers: Vec<_> = sessions
        .iter()
        .map(|(session, deployment)| protocol.voucher(*session, *deployment, 1, 10))
        .collect();
    vouchers[15].signature = Host::twin(&vouchers[15].signature);
    let events = protocol.settles(vouchers);
    let statuses = found(&events, |event| match event {
        Event::VoucherSettled { session, .. } => Some((*session, true)),
        Event::VoucherRefused { session, .. } => Some((*session, false)),
        _ => None,
    });
    let expected: Vec<(u64, bool)> = sessions.iter().map(|(session, _)| (*session, *session != 16)).collect();
    assert_eq!(statuses, expected);
    let refreshed = model(&protocol, MODEL).usage.units.requests;
    assert_eq!(refreshed, 310);
    protocol.assert_conserved();
}
