//! Sessions: what is pinned, what is refused, when money comes back and by whose hand.

use schema::{
    escrow::{AllocationState, NewAllocation, NewSession, SessionsResponse, VoucherRefusal},
    event::DeploymentList,
};

use super::{
    stubs::{offer_of, price, put, voucher, PER_HOUR, SLOT_BOND, UNITS_MAX},
    *,
};

fn close(consents: Vec<schema::escrow::Consent>) -> ExecuteMsg {
    ExecuteMsg::CloseSession { session: 1, consents }
}

fn leave(deployment: u64) -> ExecuteMsg {
    ExecuteMsg::LeaveSession { session: 1, deployment }
}

const FINALISE: ExecuteMsg = ExecuteMsg::FinaliseSession { session: 1 };

/// What staking is told.
fn slots(response: &Response) -> Vec<serde_json::Value> {
    let to_staking = |(to, msg)| (to == addr("staking").into_string()).then_some(msg);
    messages(response).into_iter().filter_map(to_staking).collect()
}

#[test]
fn an_opening_holds_the_money_takes_the_slots_and_pins_everything() {
    let mut escrow = Escrow::new();
    escrow.deposit("dave", 100_000);
    let response = escrow.open("dave", vec![put(1, 20_000), put(2, 30_000)]).unwrap();
    let expires_at = escrow.now() + 1_000;
    // A ufunc a second for each slot, up to the end of the notice.
    let held = 50_000 + 2 * 1_050;
    assert_eq!(escrow.money_of("dave"), (100_000 - held, held));
    assert_eq!(
        events(&response),
        [Event::SessionOpened {
            session: 1,
            owner: addr("dave").into_string(),
            model: model("child"),
            version: 1,
            endpoint: "embeddings".into(),
            deployments: DeploymentList(vec![1, 2]),
            held: held.into(),
            expires_at,
        }]
    );
    assert_eq!(
        slots(&response),
        [serde_json::json!({ "reserve": { "session": 1, "deployments": [1, 2] } })]
    );
    let session = escrow.session(1).unwrap();
    assert_eq!((session.version, session.units_per_request_max), (1, UNITS_MAX));
    assert_eq!((session.royalty, session.fees), (terms().royalty, params().fees));
    assert_eq!((session.expires_at, session.close_notice_seconds), (expires_at, 50));
    let paula = escrow.allocation(1);
    let offer = offer_of(1);
    assert_eq!((paula.provider, paula.host_key), (offer.provider, offer.host_key));
    assert_eq!((paula.compute_share_bps, paula.ask), (6_000, offer.terms.ask));
    assert_eq!((paula.reservation.u128(), paula.accrued.u128()), (1_050, 0));
    assert_eq!(
        (paula.state, paula.releasable_at),
        (AllocationState::Open, expires_at + 50)
    );
}

#[test]
fn fees_and_notice_are_those_of_the_day_a_session_was_opened() {
    let mut escrow = Escrow::with_session();
    let params = EscrowParams {
        fees: FeeBps {
            protocol_bps: 1_000,
            audit_bps: 0,
            burn_bps: 1_000,
        },
        close_notice_seconds: 600_000,
        ..params()
    };
    escrow.by("admin", ExecuteMsg::UpdateParams { params }).unwrap();
    escrow.settled(escrow.signed(voucher(1, 1, 100, 2_330))).unwrap();
    assert_eq!(escrow.money_of("treasury").0, 40);
    escrow.by("dave", close(vec![])).unwrap();
    assert_eq!(escrow.allocation(1).releasable_at, escrow.now() + 50);
}

#[test]
fn what_could_not_be_a_session_is_refused_with_its_numbers() {
    let mut escrow = Escrow::new();
    escrow.deposit("dave", 100_000);
    let now = escrow.now();
    let mut refused = |change: &dyn Fn(&mut NewSession)| {
        let mut session = escrow.new_session(vec![put(1, 20_000)]);
        change(&mut session);
        let outcome = escrow.by("dave", ExecuteMsg::OpenSession { session });
        outcome.unwrap_err().to_string()
    };
    let many = |count: u64| (1..=count).map(|deployment| put(deployment, 100)).collect::<Vec<_>>();
    assert_eq!(
        refused(&|s| s.allocations.clear()),
        "a session has 1 to 16 allocations, found 0"
    );
    assert_eq!(
        refused(&|s| s.allocations = many(17)),
        "a session has 1 to 16 allocations, found 17"
    );
    assert_eq!(
        refused(&|s| s.allocations = vec![put(1, 100), put(2, 100), put(1, 100)]),
        "deployment 1 is named twice"
    );
    assert_eq!(
        refused(&|s| s.allocations[0].amount = 99u128.into()),
        "99 ufunc for deployment 1, at least 100 are needed"
    );
    assert_eq!(
        refused(&|s| s.allocations[0].amount = (SLOT_BOND + 1).into()),
        "50001 ufunc would be unsettled with deployment 1, its slot is backed by 50000"
    );
    assert_eq!(
        refused(&|s| s.allocations[0].amount = u128::MAX.into()),
        format!(
            "{} ufunc would be unsettled with deployment 1, its slot is backed by 50000",
            u128::MAX
        )
    );
    assert_eq!(
        refused(&|s| s.allocations[0].deployment = 30),
        "deployment 30 serves version 2 of demo/child"
    );
    assert_eq!(
        refused(&|s| s.version = Some(2)),
        "deployment 1 serves version 1 of demo/child"
    );
    assert_eq!(
        refused(&|s| s.allocations[0].deployment = 40),
        "a deployment cannot join: Generic error: there is no deployment 40"
    );
    assert_eq!(
        refused(&|s| s.endpoint = "chat".into()),
        "nothing is offered at endpoint \"chat\" of demo/child: Generic error: model demo/none is unknown"
    );
    for expires_at in [0, now, now + 1_001, u64::MAX] {
        assert_eq!(
            refused(&|s| s.expires_at = expires_at),
            format!(
                "a session expires at {} at the latest and after {now}, found {expires_at}",
                now + 1_000
            )
        );
    }
    assert_eq!(
        refused(&|s| s.session_key.0[0] = 4),
        "a compressed secp256k1 key starts with 02 or 03, found 04"
    );
    for bps in [0, 2_001] {
        let gateway = |s: &mut NewSession| s.gateway.as_mut().unwrap().bps = bps;
        assert_eq!(refused(&gateway), format!("a gateway takes 1 to 2000 bps, found {bps}"));
    }
    assert!(refused(&|s| s.gateway.as_mut().unwrap().address = "nobody".into()).contains("bech32"));
    assert_eq!(
        refused(&|s| s.allocations = vec![put(1, 50_000), put(2, 50_000)]),
        "100000 ufunc are available, 102100 are required"
    );
    assert_eq!(
        (escrow.money_of("dave"), escrow.session(1).is_some()),
        ((100_000, 0), false)
    );
    let mut unwired = Escrow::bare();
    unwired.instantiate(params()).unwrap();
    assert_eq!(unwired.open("dave", vec![put(1, 100)]), Err(ContractError::NotWired));
}

#[test]
fn a_top_up_adds_money_and_deployments_and_stays_inside_the_slots_bond() {
    let mut escrow = Escrow::with_session();
    let top_up = |allocations: Vec<NewAllocation>| ExecuteMsg::TopUp {
        session: 1,
        allocations,
    };
    escrow.seconds_pass(400);
    let response = escrow.by("dave", top_up(vec![put(1, 30_000), put(3, 500)])).unwrap();
    let reservation = 650;
    assert_eq!(
        events(&response),
        [Event::SessionToppedUp {
            session: 1,
            deployments: DeploymentList(vec![1, 3]),
            held: (30_500 + reservation).into(),
        }]
    );
    assert_eq!(
        slots(&response),
        [serde_json::json!({ "reserve": { "session": 1, "deployments": [3] } })]
    );
    assert_eq!(escrow.allocation(3).reservation.u128(), reservation);
    assert_eq!(escrow.allocation(1).amount.u128(), 50_000);
    assert_eq!(escrow.money_of("dave").1, 42_100 + 30_500 + reservation);

    let refused =
        |escrow: &mut Escrow, name, allocations| escrow.by(name, top_up(allocations)).unwrap_err().to_string();
    assert_eq!(
        refused(&mut escrow, "dave", vec![put(1, 1)]),
        "50001 ufunc would be unsettled with deployment 1, its slot is backed by 50000"
    );
    escrow.settled(escrow.signed(voucher(1, 1, 100, 2_330))).unwrap();
    assert!(slots(&escrow.by("dave", top_up(vec![put(1, 2_330)])).unwrap()).is_empty());
    assert_eq!(refused(&mut escrow, "dave", vec![put(2, 0)]), "the amount is zero");
    assert_eq!(
        refused(&mut escrow, "dave", vec![]),
        "a session has 1 to 16 allocations, found 0"
    );
    let many = (4..=17).map(|deployment| put(deployment, 100)).collect();
    assert_eq!(
        refused(&mut escrow, "dave", many),
        "a session has 1 to 16 allocations, found 17"
    );
    assert_eq!(
        refused(&mut escrow, "dave", vec![put(4, 100), put(4, 100)]),
        "deployment 4 is named twice"
    );
    assert!(refused(&mut escrow, "mallory", vec![put(2, 1)]).starts_with("session 1 does not belong to"));
    escrow.by("paula", leave(1)).unwrap();
    assert_eq!(
        refused(&mut escrow, "dave", vec![put(1, 100)]),
        "the allocation of session 1 to deployment 1 is closed",
        "a voucher of it must never be new again"
    );
    escrow.by("dave", close(vec![])).unwrap();
    let date = escrow.now() + 50;
    assert_eq!(
        refused(&mut escrow, "dave", vec![put(2, 100)]),
        format!("the allocation of session 1 to deployment 2 closes at {date}")
    );
    escrow.seconds_pass(600);
    let (at, now) = (escrow.session(1).unwrap().expires_at, escrow.now());
    assert_eq!(
        refused(&mut escrow, "dave", vec![put(5, 100)]),
        format!("session 1 expired at {at}, now it is {now}")
    );
}

#[test]
fn a_provider_is_paid_for_the_time_its_slot_was_kept_and_the_rest_goes_back() {
    let mut escrow = Escrow::with_session();
    escrow.settled(escrow.signed(voucher(1, 1, 100, 2_330))).unwrap();
    escrow.seconds_pass(300);
    assert_eq!(escrow.allocation(1).accrued.u128(), 300);
    let response = escrow.by("paula", leave(1)).unwrap();
    let told = events(&response);
    assert!(told.contains(&Event::AllocationClosed {
        session: 1,
        deployment: 1,
        reservation: 300u128.into(),
        released: (20_000u128 - 2_330 + 750).into(),
    }));
    assert!(told.contains(&Event::Credited {
        holder: Holder::Address(addr("paula").into_string()),
        reason: Reason::Reservation,
        amount: 300u128.into(),
        item: None,
        deployment: Some(1),
        model: Some(model("child")),
    }));
    assert_eq!(
        slots(&response),
        [serde_json::json!({ "free": { "session": 1, "deployments": [1] } })]
    );
    assert_eq!(escrow.money_of("paula").0, 1_940 + 300);
    assert_eq!(escrow.money_of("dave").1, 21_050, "peter's part is held on");
    let closed = escrow.allocation(1);
    assert_eq!((closed.state, closed.accrued.u128()), (AllocationState::Closed, 300));
    let late = escrow.signed(voucher(1, 2, 101, 2_331));
    assert_eq!(escrow.settled(late), Err(VoucherRefusal::Closed));
    let again = ContractError::AllocationIsClosed {
        session: 1,
        deployment: 1,
    };
    assert_eq!(escrow.by("paula", leave(1)).unwrap_err(), again);
    escrow.by("operator", leave(2)).unwrap();
    assert_eq!(escrow.money_of("dave").1, 0);
    assert!(
        escrow.session(1).is_none(),
        "with its last allocation a session is forgotten"
    );
    assert_eq!(
        escrow.by("peter", leave(2)).unwrap_err(),
        ContractError::NoSession { session: 1 }
    );
    let old = escrow.signed(voucher(1, 9, 900, 9_000));
    assert_eq!(escrow.settled(old), Err(VoucherRefusal::Unknown));
    escrow.open("dave", vec![put(1, 20_000)]).unwrap();
    assert!(
        escrow.session(1).is_none() && escrow.session(2).is_some(),
        "numbers never return"
    );
}

#[test]
fn nobody_but_a_provider_leaves_for_it() {
    let mut escrow = Escrow::with_session();
    for name in ["dave", "mallory", "peter", "admin"] {
        let refused = ContractError::NotProvider {
            sender: addr(name).into_string(),
            deployment: 1,
        };
        assert_eq!(escrow.by(name, leave(1)).unwrap_err(), refused);
    }
    let unknown = ContractError::NoAllocation {
        session: 1,
        deployment: 3,
    };
    assert_eq!(escrow.by("paula", leave(3)).unwrap_err(), unknown);
}

#[test]
fn without_consent_vouchers_are_settled_until_the_notice_has_passed() {
    let mut escrow = Escrow::with_session();
    escrow.seconds_pass(100);
    let response = escrow.by("dave", close(vec![])).unwrap();
    let closes_at = escrow.now() + 50;
    let closing = |deployment| Event::AllocationClosing {
        session: 1,
        deployment,
        closes_at,
    };
    assert_eq!(events(&response), [closing(1), closing(2)]);
    assert!(slots(&response).is_empty());
    let nothing = ContractError::NothingToClose { session: 1 };
    assert_eq!(
        escrow.by("dave", close(vec![])).unwrap_err(),
        nothing,
        "a date never moves"
    );
    escrow.seconds_pass(50);
    let now = escrow.now();
    let early = ContractError::NothingDue {
        session: 1,
        next: closes_at,
        now,
    };
    assert_eq!(escrow.by("stranger", FINALISE).unwrap_err(), early);
    escrow.settled(escrow.signed(voucher(1, 1, 100, 2_330))).unwrap();
    escrow.seconds_pass(1);
    // Nobody has closed it yet: what is owed is still paid.
    escrow.settled(escrow.signed(voucher(1, 2, 150, 2_500))).unwrap();
    escrow.seconds_pass(5_000);
    let response = escrow.by("stranger", FINALISE).unwrap();
    assert_eq!(
        slots(&response),
        [serde_json::json!({ "free": { "session": 1, "deployments": [1, 2] } })]
    );
    let earned = |escrow: &Escrow, name| -> Vec<(Reason, u128)> {
        let earnings: EarningsResponse = escrow.ask(QueryMsg::Earnings {
            holder: addr(name).into_string(),
        });
        let credit = |credit: Credit| (credit.reason, credit.amount.u128());
        earnings.credits.into_iter().map(credit).collect()
    };
    // Up to the date, however late somebody came.
    assert_eq!(earned(&escrow, "peter"), [(Reason::Reservation, 150)]);
    assert_eq!(escrow.money_of("dave"), (100_000 - 2_500 - 300, 0));
    assert_eq!(
        escrow.by("stranger", FINALISE).unwrap_err(),
        ContractError::NoSession { session: 1 }
    );
}

#[test]
fn with_the_providers_consent_to_its_last_voucher_it_closes_at_once() {
    let mut escrow = Escrow::with_session();
    escrow.settled(escrow.signed(voucher(1, 7, 100, 2_330))).unwrap();
    let refused = |sequence| ContractError::NoConsent {
        deployment: 1,
        sequence,
    };
    for consent in [
        escrow.consent("paula", 1, 6),
        escrow.consent("paula", 1, 8),
        escrow.consent("peter", 1, 7),
        escrow.consent("session", 1, 7),
    ] {
        assert_eq!(escrow.by("dave", close(vec![consent])).unwrap_err(), refused(7));
    }
    let mut high = escrow.consent("paula", 1, 7);
    high.signature = super::stubs::twin(high.signature);
    assert_eq!(escrow.by("dave", close(vec![high])).unwrap_err(), refused(7));
    let consent = escrow.consent("paula", 1, 7);
    assert!(matches!(
        escrow.by("mallory", close(vec![consent])),
        Err(ContractError::NotSessionOwner { .. })
    ));
    let response = escrow.by("dave", close(vec![consent])).unwrap();
    let told = events(&response);
    assert!(told
        .iter()
        .any(|event| matches!(event, Event::AllocationClosed { deployment: 1, .. })));
    assert!(told
        .iter()
        .any(|event| matches!(event, Event::AllocationClosing { deployment: 2, .. })));
    assert_eq!(escrow.allocation(1).state, AllocationState::Closed);
    // A closing one may be closed at once too.
    let consent = escrow.consent("peter", 2, 0);
    let response = escrow.by("dave", close(vec![consent])).unwrap();
    assert_eq!(slots(&response).len(), 1);
    assert_eq!((escrow.session(1).is_none(), escrow.money_of("dave").1), (true, 0));
}

#[test]
fn a_consent_to_a_voucher_that_is_not_settled_cuts_off_nothing() {
    let mut escrow = Escrow::with_session();
    escrow.settled(escrow.signed(voucher(1, 1, 100, 2_330))).unwrap();
    let last = escrow.consent("paula", 1, 2);
    assert!(escrow.by("dave", close(vec![last])).is_err());
    escrow
        .settled(escrow.signed(voucher(1, 2, 150, price(1, 150))))
        .unwrap();
    escrow.by("dave", close(vec![last])).unwrap();
    let early = ContractError::AllocationIsClosed {
        session: 1,
        deployment: 1,
    };
    assert_eq!(escrow.by("dave", close(vec![last])).unwrap_err(), early);
    let crowd = ContractError::ConsentCount { count: 17, max: 16 };
    assert_eq!(escrow.by("dave", close(vec![last; 17])).unwrap_err(), crowd);
}

/// Whoever has the session key chooses sequences: a consent says nothing of amounts. So a provider signs one only once it is paid.
#[test]
fn a_consent_in_advance_trusts_the_session_key_and_one_of_a_paid_provider_trusts_nobody() {
    let best = voucher(1, 2, 150, price(1, 150));
    let mut escrow = Escrow::with_session();
    let in_advance = escrow.consent("paula", 1, 2);
    escrow.settled(escrow.signed(voucher(1, 2, 1, 1))).unwrap();
    escrow.by("dave", close(vec![in_advance])).unwrap();
    assert_eq!(escrow.settled(escrow.signed(best)), Err(VoucherRefusal::Closed));

    for sequence in [2, u64::MAX] {
        let mut escrow = Escrow::with_session();
        escrow.settled(escrow.signed(voucher(1, sequence, 1, 1))).unwrap();
        escrow.settled(escrow.signed(best)).unwrap();
        let of_a_paid_provider = escrow.consent("paula", 1, escrow.allocation(1).sequence);
        escrow.by("dave", close(vec![of_a_paid_provider])).unwrap();
        assert_eq!(escrow.allocation(1).paid, best.amount);
    }
}

#[test]
fn after_expiry_and_notice_a_stranger_releases_everything() {
    let mut escrow = Escrow::with_session();
    escrow.seconds_pass(1_050);
    assert!(matches!(
        escrow.by("stranger", FINALISE),
        Err(ContractError::NothingDue { .. })
    ));
    escrow.seconds_pass(1);
    escrow.by("stranger", FINALISE).unwrap();
    assert_eq!(escrow.money_of("dave"), (100_000 - 2_100, 0));
    assert_eq!((escrow.money_of("paula").0, escrow.money_of("peter").0), (1_050, 1_050));
}

#[test]
fn a_reservation_is_rounded_up_for_the_provider_and_never_more_than_was_prepaid() {
    let mut escrow = Escrow::with_session();
    assert_eq!(PER_HOUR, 3_600, "a ufunc a second");
    escrow.by("paula", leave(1)).unwrap();
    assert_eq!(escrow.money_of("paula").0, 0, "not a second");
    escrow.seconds_pass(1);
    escrow.by("peter", leave(2)).unwrap();
    assert_eq!(escrow.money_of("peter").0, 1);
}

#[test]
fn money_tells_of_sessions_when_and_by_whom_they_are_released() {
    let mut escrow = Escrow::with_session();
    for _ in 0..3 {
        escrow.open("dave", vec![put(1, 100)]).unwrap();
    }
    escrow.seconds_pass(10);
    let page = |sessions_after, limit| -> Vec<u64> {
        let money: MoneyResponse = escrow.ask(QueryMsg::Money {
            holder: addr("dave").into_string(),
            start_after: None,
            sessions_after,
            limit,
        });
        let open = money.sessions.iter().flat_map(|session| &session.allocations);
        let held: u128 = open
            .map(|part| (part.reservation + part.amount - part.paid).u128())
            .sum();
        if limit.is_none() && sessions_after.is_none() {
            assert_eq!(held, money.held.u128());
        }
        money.sessions.iter().map(|session| session.session).collect()
    };
    assert_eq!((page(None, None), page(Some(2), Some(1))), (vec![1, 2, 3, 4], vec![3]));
    let of = |msg: QueryMsg| -> Vec<u64> {
        let found: SessionsResponse = escrow.ask(msg);
        found.sessions.iter().map(|session| session.session).collect()
    };
    let account = addr("dave").into_string();
    let sessions = |start_after| QueryMsg::Sessions {
        account: account.clone(),
        start_after,
        limit: Some(2),
    };
    assert_eq!((of(sessions(None)), of(sessions(Some(3)))), (vec![1, 2], vec![4]));
    let of_deployment = |deployment, start_after| QueryMsg::SessionsOf {
        deployment,
        start_after,
        limit: None,
    };
    assert_eq!(
        (
            of(of_deployment(1, Some(1))),
            of(of_deployment(2, None)),
            of(of_deployment(9, None))
        ),
        (vec![2, 3, 4], vec![1], vec![])
    );
    escrow.by("peter", leave(2)).unwrap();
    let found: SessionsResponse = escrow.ask(of_deployment(2, None));
    assert!(found.sessions.is_empty(), "a host learns of what is open");
}

/// Staking may have new code one day; this contract never has.
#[test]
fn money_comes_back_even_if_staking_refuses_the_slot() {
    let mut escrow = Escrow::with_session();
    let response = escrow.by("paula", leave(1)).unwrap();
    let free = response.messages.last().unwrap();
    assert_eq!(free.reply_on, cosmwasm_std::ReplyOn::Error);
    let reply = |id| cosmwasm_std::Reply {
        id,
        payload: cosmwasm_std::Binary::default(),
        gas_used: 0,
        result: cosmwasm_std::SubMsgResult::Err("no".into()),
    };
    let env = escrow.env.clone();
    assert_eq!(
        contract::reply(escrow.deps.as_mut(), env.clone(), reply(free.id)),
        Ok(Response::new())
    );
    assert!(contract::reply(escrow.deps.as_mut(), env, reply(99)).is_err());
}
