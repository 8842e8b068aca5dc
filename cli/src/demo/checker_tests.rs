#![allow(
    clippy::arithmetic_side_effects,
    reason = "expected values are written as plain formulas"
)]

use cosmwasm_std::Uint128;
use schema::{
    orchestrator::{ItemResult, JobStatus},
    price::{Ask, RoyaltyRate, Units},
    staking::{Sla, Span},
    Digest, PublicKey,
};

use super::*;

const UNITS: Units = Units {
    requests: 2,
    units_in: 1_500,
    units_out: 0,
};

fn item_id() -> ItemId {
    ItemId {
        job: 1,
        shard: 0,
        replica: 0,
    }
}

fn span(provider: &str, per_1k_in: u128, compute_share_bps: u16) -> Span {
    Span {
        deployment: 1,
        provider: provider.into(),
        host_key: PublicKey([2; 33]),
        first: 0,
        last: 0,
        compute_share_bps,
        ask: Ask {
            per_1k_in: per_1k_in.into(),
            per_1k_out: Uint128::zero(),
            per_request: 10u128.into(),
        },
        sla: Sla {
            base_seconds: 1,
            seconds_per_1k_units: 1,
            units_max: 4_096,
            penalty_bps: 5_000,
        },
        price_max: SpanPrice::default(),
    }
}

fn job() -> JobResponse {
    JobResponse {
        job: 1,
        developer: "developer".into(),
        model: "demo/m".parse().unwrap(),
        version: 1,
        manifest: Digest([0; 32]),
        endpoint: "embeddings".into(),
        royalty: RoyaltyRate {
            royalty_bps: 1_000,
            royalty_per_1k_units: 40u128.into(),
        },
        gateway: None,
        shards: vec![],
        replicas: 1,
        units_max: 4_096,
        held: 10_000u128.into(),
        paid: 0u128.into(),
        status: JobStatus::Completed,
        submitted_at: 0,
        expires_at: 1,
        prunable_at: None,
        session: None,
    }
}

fn credited(holder: Holder, reason: Reason, amount: u128, item: Option<ItemId>) -> Event {
    Event::Credited {
        holder,
        reason,
        amount: amount.into(),
        item,
        deployment: None,
        model: None,
    }
}

fn address(name: &str) -> Holder {
    Holder::Address(name.into())
}

/// Two spans at 1000 and 2000 per 1k: F = 1520 and 3020, R = 152 + 36 and 302 + 24, protocol 2 %, burn 1 %.
fn story() -> Facts {
    let (f1, f2) = (1_500 + 20, 3_000 + 20);
    let royalty = 152 + 36 + 302 + 24;
    let (protocol, burnt) = (30 + 60, 15 + 30);
    let paid = f1 + f2 + royalty;
    let (first, second) = (f1 - 30 - 15, f2 - 60 - 30);
    let item = Some(item_id());
    let events = vec![
        credited(address("developer"), Reason::Deposit, 20_000, None),
        credited(address("alice"), Reason::Compute, first, item),
        credited(address("bob"), Reason::Compute, second, item),
        credited(address("treasury"), Reason::Protocol, protocol, item),
        credited(address("creator"), Reason::Royalty, royalty, item),
        Event::Settled {
            item: item_id(),
            paid: paid.into(),
            burnt: burnt.into(),
        },
    ];
    let entries = [
        ("developer", 20_000 - paid),
        ("alice", first),
        ("bob", second),
        ("treasury", protocol),
        ("creator", royalty),
    ];
    let reasons = [
        Reason::Deposit,
        Reason::Compute,
        Reason::Compute,
        Reason::Protocol,
        Reason::Royalty,
    ];
    let came = [20_000, first, second, protocol, royalty];
    let ledger_sum = entries.iter().map(|(_, has)| has).sum();
    let books = |sum| Books {
        cw20_balance: sum,
        ledger_sum: sum,
        told_sum: sum,
    };
    Facts {
        beacon_for: None,
        events,
        jobs: vec![job()],
        sessions: vec![],
        items: vec![ItemResponse {
            item: item_id(),
            attempt: 0,
            status: ItemStatus::Settled {
                result: ItemResult {
                    output_digest: Digest([1; 32]),
                    tokens_digest: None,
                    units: UNITS,
                },
                paid: paid.into(),
            },
            engine_class: "class".into(),
            spans: vec![span("alice", 1_000, 6_000), span("bob", 2_000, 4_000)],
            assigned_at: 0,
            deadline: 1,
            evidence_until: 2,
            redraw_round: None,
            history: vec![],
        }],
        fees: FeeBps {
            protocol_bps: 200,
            audit_bps: 0,
            burn_bps: 100,
        },
        treasury: "treasury".to_owned(),
        earnings: entries
            .iter()
            .zip(reasons.iter().zip(came))
            .map(|((holder, _), (reason, amount))| ((*holder).to_owned(), BTreeMap::from([(*reason, amount)])))
            .collect(),
        ledger: entries
            .iter()
            .map(|(holder, has)| LedgerEntry {
                holder: (*holder).to_owned(),
                available: (*has).into(),
                held: 0u128.into(),
            })
            .collect(),
        escrow: books(ledger_sum),
        staking: books(500),
        supply_before: 1_000_000,
        supply: 1_000_000 - burnt,
    }
}

fn found(change: impl FnOnce(&mut Facts)) -> String {
    let mut facts = story();
    change(&mut facts);
    check(&facts).join("; ")
}

#[test]
fn a_story_that_adds_up_has_no_complaints() {
    assert_eq!(check(&story()), Vec::<String>::new());
}

#[test]
fn a_wrong_earning_is_found() {
    let wrong = found(|facts| {
        *facts
            .earnings
            .get_mut("alice")
            .unwrap()
            .get_mut(&Reason::Compute)
            .unwrap() += 1;
    });
    assert!(
        wrong.contains("alice earned 1476 for compute; ask x receipt units makes 1475"),
        "{wrong}"
    );
}

#[test]
fn an_earning_without_work_is_found() {
    let wrong = found(|facts| {
        facts
            .events
            .push(credited(address("mallory"), Reason::Compute, 7, None));
        facts
            .earnings
            .insert("mallory".into(), BTreeMap::from([(Reason::Compute, 7)]));
    });
    assert!(
        wrong.contains("mallory earned 7 for compute; ask x receipt units makes 0"),
        "{wrong}"
    );
}

#[test]
fn units_that_do_not_make_the_price_are_found() {
    let wrong = found(|facts| {
        let ItemStatus::Settled { result, .. } = &mut facts.items[0].status else {
            panic!("settled");
        };
        result.units.units_in += 1_000;
    });
    assert!(wrong.contains("item 1.0.0 cost"), "{wrong}");
}

#[test]
fn parts_that_do_not_sum_to_the_price_are_found() {
    let wrong = found(|facts| {
        let Event::Credited { amount, .. } = &mut facts.events[4] else {
            panic!("credited");
        };
        *amount -= Uint128::new(1);
    });
    assert!(wrong.contains("its parts sum to"), "{wrong}");
    assert!(wrong.contains("creator was credited"), "{wrong}");
}

#[test]
fn money_that_left_a_ledger_entry_is_found() {
    let wrong = found(|facts| facts.ledger[0].available -= Uint128::new(5));
    assert!(
        wrong.contains("developer got 20000 and spent 5054, but has 14941"),
        "{wrong}"
    );
}

#[test]
fn a_payment_made_twice_is_found() {
    let wrong = found(|facts| {
        let settled = facts.events[5].clone();
        facts.events.push(settled);
    });
    assert!(wrong.contains("item 1.0.0 was settled twice"), "{wrong}");
}

#[test]
fn books_and_supply_must_match_the_token() {
    assert!(found(|facts| facts.escrow.cw20_balance += 1).contains("royalty_escrow has"));
    assert!(found(|facts| facts.staking.told_sum += 1).contains("provider_staking has"));
    assert!(found(|facts| facts.supply -= 1).contains("were burnt, but there are"));
}

#[test]
fn a_redraw_that_is_not_seeded_with_a_posted_round_is_found() {
    let domain = Domain {
        chain_id: "chain-1".into(),
        contract: "orchestrator".into(),
    };
    let round = Round {
        round: 7,
        randomness: Digest([7; 32]),
    };
    let drawn = |seed, round| Event::Drawn {
        job: 1,
        shard: Some(0),
        attempt: 1,
        seed,
        round,
    };
    let seed = draw_seed(&domain, 1, (0, 1), &round);
    let posted = Event::RoundPosted {
        round: 7,
        randomness: round.randomness,
    };
    let wrong = |events: Vec<Event>| {
        found(|facts| {
            facts.beacon_for = Some(domain.clone());
            facts.events.extend(events);
        })
    };
    assert_eq!(wrong(vec![posted.clone(), drawn(seed, Some(7))]), "");
    for events in [
        vec![drawn(seed, Some(7))],
        vec![posted.clone(), drawn(seed, None)],
        vec![posted.clone(), drawn(Digest([0; 32]), Some(7))],
        vec![posted, drawn(seed, Some(8))],
    ] {
        let wrong = wrong(events);
        assert!(
            wrong.contains("the redraw of shard 1.0 for attempt 1 is not seeded"),
            "{wrong}"
        );
    }
}
