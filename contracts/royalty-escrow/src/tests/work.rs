//! Holds, settlements, royalties.

use super::*;

#[test]
fn a_hold_needs_available_money_a_free_number_and_a_near_date() {
    let mut escrow = Escrow::new();
    escrow.deposit("dave", 70);
    let now = escrow.now();
    let held = escrow.hold(1, 50).unwrap();
    assert!(matches!(events(&held)[..], [Event::Held { job: 1, amount, .. }] if amount.u128() == 50));
    assert_eq!(escrow.money_of("dave"), (20, 50));
    assert_eq!(escrow.hold(1, 5), Err(ContractError::HoldExists { job: 1 }));
    assert_eq!(escrow.hold(2, 0), Err(ContractError::ZeroAmount));
    let short = ContractError::InsufficientFunds {
        available: 20u128.into(),
        required: 21u128.into(),
    };
    assert_eq!(escrow.hold(2, 21), Err(short));
    for expires_at in [now, now + 3601] {
        let refused = escrow.by("orchestrator", hold_of("dave", 2, 5, terms(), expires_at));
        let latest = now + 3600;
        assert_eq!(
            refused,
            Err(ContractError::HoldDate {
                expires_at,
                now,
                latest
            })
        );
    }
    let last_date = hold_of("dave", 2, 5, terms(), now + 3600);
    assert_eq!(
        escrow.by("dave", last_date.clone()),
        Err(not_sibling("dave", "job orchestrator"))
    );
    escrow.by("orchestrator", last_date).unwrap();
}

#[test]
fn terms_that_could_not_be_paid_are_refused_when_the_hold_is_opened() {
    let mut escrow = Escrow::new();
    escrow.deposit("dave", 70);
    let expires_at = escrow.now() + 100;
    let mut open = |terms| escrow.by("orchestrator", hold_of("dave", 1, 5, terms, expires_at));
    let mut dear = terms();
    dear.royalty.royalty_bps = 10_001;
    let refused = ContractError::RoyaltyOutOfBounds {
        royalty_bps: 10_001,
        royalty_per_1k_units: 50u128.into(),
    };
    assert_eq!(open(dear), Err(refused));
    for bps in [0, 2_001] {
        let mut greedy = terms();
        greedy.gateway.as_mut().unwrap().bps = bps;
        assert_eq!(open(greedy), Err(ContractError::GatewayOutOfBounds { bps, max: 2_000 }));
    }
    let mut lost = terms();
    lost.gateway.as_mut().unwrap().address = "nowhere".into();
    assert!(matches!(open(lost), Err(ContractError::Std(_))));
}

#[test]
fn a_settlement_credits_everybody_at_once_burns_once_and_records_once() {
    let mut escrow = Escrow::new();
    escrow.deposit("dave", 100_000);
    escrow.hold(1, 90_000).unwrap();
    let response = escrow
        .settle(vec![settlement(1, 0, 5_000), settlement(1, 1, 5_000)])
        .unwrap();

    // Per item: F = 5 x 1000 + 20 and 5 x 3000 + 20; 2 % protocol and 1 % burn of each, rounded down.
    let paula = 5_020 - 100 - 50;
    let peter = 15_020 - 300 - 150;
    let royalty = (502 + 150) + (1_502 + 100);
    let gateway = 251 + 751;
    let paid = 5_020 + 15_020 + royalty + gateway;
    // Parent: a quarter. Alice and bob: 70 and 30 % of the rest, alice has the dust.
    let parent = royalty / 4;
    let bob = (royalty - parent) * 3 / 10;
    let alice = royalty - parent - bob;
    assert_eq!(escrow.money_of("paula"), (2 * paula, 0));
    assert_eq!(escrow.money_of("peter"), (2 * peter, 0));
    assert_eq!(escrow.money_of("treasury"), (2 * 400, 0));
    assert_eq!(escrow.money_of("gateway"), (2 * gateway, 0));
    assert_eq!(escrow.money("model:demo/parent"), (2 * parent, 0));
    assert_eq!(escrow.money_of("alice"), (2 * alice, 0));
    assert_eq!(escrow.money_of("bob"), (2 * bob, 0));
    assert_eq!(escrow.money_of("dave"), (10_000, 90_000 - 2 * paid));
    assert_eq!(escrow.sums().0 + escrow.sums().1, 100_000 - 2 * 200);

    let record = registry::ExecuteMsg::Record {
        usages: vec![registry::Usage {
            model: model("child"),
            units: Units {
                requests: 4,
                units_in: 10_000,
                units_out: 0,
            },
            paid: (2 * paid).into(),
            sunk: (2u128 * 600).into(),
        }],
    };
    let burn = Cw20ExecuteMsg::Burn {
        amount: (2u128 * 200).into(),
    };
    assert_eq!(
        messages(&response),
        [
            (addr("func").into_string(), serde_json::to_value(burn).unwrap()),
            (addr("registry").into_string(), serde_json::to_value(record).unwrap())
        ]
    );
}

#[test]
fn a_settlement_says_what_was_paid_and_why_everybody_was_credited() {
    let mut escrow = Escrow::new();
    escrow.deposit("dave", 100_000);
    escrow.hold(1, 90_000).unwrap();
    let response = escrow
        .settle(vec![settlement(1, 0, 5_000), settlement(1, 1, 5_000)])
        .unwrap();
    let peter = 15_020 - 300 - 150u128;
    let paid = 5_020 + 15_020 + 652 + 1_602 + 251 + 751u128;
    let settled: Vec<Event> = events(&response)
        .into_iter()
        .filter(|event| matches!(event, Event::Settled { .. }))
        .collect();
    let event = |shard| Event::Settled {
        item: item(1, shard),
        paid: paid.into(),
        burnt: 200u128.into(),
    };
    assert_eq!(settled, [event(0), event(1)]);
    assert!(events(&response).contains(&Event::Credited {
        holder: Holder::Address(addr("peter").into_string()),
        reason: Reason::Compute,
        amount: peter.into(),
        item: Some(item(1, 1)),
        deployment: Some(2),
        model: Some(model("child")),
    }));
    let earnings: EarningsResponse = escrow.ask(QueryMsg::Earnings {
        holder: addr("peter").into_string(),
    });
    let compute = Credit {
        reason: Reason::Compute,
        amount: (2 * peter).into(),
    };
    assert_eq!(earnings.credits, [compute]);
}

#[test]
fn a_hold_never_pays_more_than_it_has() {
    let mut escrow = Escrow::new();
    escrow.deposit("dave", 100_000);
    escrow.hold(1, 24_000).unwrap();
    escrow.hold(2, 50_000).unwrap();
    let refused = escrow.settle(vec![settlement(1, 0, 5_000), settlement(1, 1, 5_000)]);
    let paid = 5_020 + 15_020 + 652 + 1_602 + 251 + 751u128;
    assert_eq!(
        refused,
        Err(ContractError::HoldExceeded {
            held: (24_000 - paid).into(),
            required: paid.into()
        })
    );
}

#[test]
fn settlements_are_the_orchestrators_bounded_and_need_a_hold() {
    let mut escrow = Escrow::new();
    escrow.deposit("dave", 100_000);
    escrow.hold(1, 90_000).unwrap();
    let msg = ExecuteMsg::Settle {
        settlements: vec![settlement(1, 0, 1)],
    };
    assert_eq!(
        escrow.by("mallory", msg),
        Err(not_sibling("mallory", "job orchestrator"))
    );
    for count in [0, 33] {
        let many = vec![settlement(1, 0, 1); count];
        assert_eq!(
            escrow.settle(many),
            Err(ContractError::SettlementCount { count, max: 32 })
        );
    }
    escrow.settle(vec![settlement(1, 0, 1); 32]).unwrap();
    assert_eq!(
        escrow.settle(vec![settlement(9, 0, 1)]),
        Err(ContractError::NoHold { job: 9 })
    );
}

#[test]
fn fees_are_those_of_the_day_the_work_was_opened() {
    let mut escrow = Escrow::new();
    escrow.deposit("dave", 100_000);
    escrow.hold(1, 90_000).unwrap();
    let mut dearer = params();
    dearer.fees.protocol_bps = 1_900;
    escrow.by("admin", ExecuteMsg::UpdateParams { params: dearer }).unwrap();
    escrow.settle(vec![settlement(1, 0, 5_000)]).unwrap();
    assert_eq!(escrow.money_of("treasury"), (400, 0));
}

#[test]
fn a_release_gives_back_the_rest_and_a_second_one_does_nothing() {
    let mut escrow = Escrow::new();
    escrow.deposit("dave", 50_000);
    escrow.hold(1, 40_000).unwrap();
    let release = ExecuteMsg::Release { job: 1 };
    assert_eq!(
        escrow.by("dave", release.clone()),
        Err(not_sibling("dave", "job orchestrator"))
    );
    let response = escrow.by("orchestrator", release.clone()).unwrap();
    assert!(matches!(events(&response)[..], [Event::HoldReleased { job: 1, amount, .. }] if amount.u128() == 40_000));
    assert_eq!(escrow.money_of("dave"), (50_000, 0));
    assert_eq!(escrow.by("orchestrator", release).unwrap(), Response::new());
    assert_eq!(
        escrow.settle(vec![settlement(1, 0, 1)]),
        Err(ContractError::NoHold { job: 1 })
    );
}

#[test]
fn anyone_releases_a_hold_after_its_date_and_nobody_before() {
    let mut escrow = Escrow::new();
    escrow.deposit("dave", 50);
    escrow.hold(1, 40).unwrap();
    let expires_at = escrow.now() + 100;
    escrow.seconds_pass(100);
    let release = ExecuteMsg::ReleaseExpired { job: 1 };
    let early = ContractError::HoldNotExpired {
        job: 1,
        expires_at,
        now: expires_at,
    };
    assert_eq!(escrow.by("stranger", release.clone()), Err(early));
    escrow.seconds_pass(1);
    escrow.by("stranger", release.clone()).unwrap();
    assert_eq!(escrow.money_of("dave"), (50, 0));
    assert_eq!(escrow.by("stranger", release), Err(ContractError::NoHold { job: 1 }));
}

#[test]
fn what_a_parent_has_earned_is_passed_on_by_anyone() {
    let mut escrow = Escrow::new();
    escrow.deposit("dave", 100_000);
    escrow.hold(1, 90_000).unwrap();
    escrow.settle(vec![settlement(1, 0, 5_000)]).unwrap();
    let (accrued, _) = escrow.money("model:demo/parent");
    let distribute = ExecuteMsg::DistributeRoyalties { model: model("parent") };
    let response = escrow.by("stranger", distribute.clone()).unwrap();
    assert_eq!(escrow.money_of("carol"), (accrued, 0));
    assert_eq!(escrow.money("model:demo/parent"), (0, 0));
    assert!(events(&response).contains(&Event::RoyaltiesDistributed {
        model: model("parent"),
        amount: accrued.into()
    }));
    let nothing = ContractError::NothingAccrued { model: model("parent") };
    assert_eq!(escrow.by("stranger", distribute), Err(nothing));
    escrow.sums();
}

#[test]
fn the_registry_distributes_by_the_old_rule_and_is_never_stopped_by_an_empty_account() {
    let mut escrow = Escrow::new();
    let under = |model: &ModelId| ExecuteMsg::DistributeUnder {
        model: model.clone(),
        payout: payout_of(&self::model("child")).payout,
        parents: vec![],
    };
    assert_eq!(
        escrow.by("mallory", under(&model("parent"))),
        Err(not_sibling("mallory", "model registry"))
    );
    assert_eq!(escrow.by("registry", under(&model("parent"))).unwrap(), Response::new());
    escrow.deposit("dave", 100_000);
    escrow.hold(1, 90_000).unwrap();
    escrow.settle(vec![settlement(1, 0, 5_000)]).unwrap();
    let (accrued, _) = escrow.money("model:demo/parent");
    let (before, _) = escrow.money_of("bob");
    escrow.by("registry", under(&model("parent"))).unwrap();
    assert_eq!(escrow.money_of("bob"), (before + accrued * 3 / 10, 0));
}
