//! Vouchers: each rule, hostile holders of the session key, replays of every kind, and batches.

use schema::{
    escrow::VoucherRefusal::{self, *},
    session::{SignedVoucher, Voucher},
    Signature,
};

use super::{
    stubs::{key, price, public, put, sign, twin, voucher, UNITS_MAX},
    *,
};

type Change = fn(&mut Voucher);

#[test]
fn a_voucher_pays_everybody_what_it_adds_to_the_one_before() {
    let mut escrow = Escrow::with_session();
    // 100 rows: F = 2000, R = 200 + 30, G = 100; of F 40 for the protocol and 20 for the fire.
    let response = escrow.settles(vec![escrow.signed(voucher(1, 5, 100, 2_330))]).unwrap();
    let earned = ["paula", "treasury", "gateway", "alice", "bob"].map(|name| escrow.money_of(name).0);
    // A quarter of the royalty is the parent's; 70 and 30 percent of the rest, dust to alice.
    assert_eq!(earned, [1_940, 40, 100, 122, 51]);
    assert_eq!(escrow.money("model:demo/parent").0, 57);
    assert_eq!(escrow.money_of("dave"), (57_900, 42_100 - 2_330));
    let told = events(&response);
    assert!(told.contains(&Event::VoucherSettled {
        session: 1,
        deployment: 1,
        sequence: 5,
        requests: 100,
        units_in: 1_000,
        units_out: 0,
        paid: 2_330u128.into(),
        burnt: 20u128.into(),
    }));
    assert!(told.contains(&Event::Credited {
        holder: Holder::Address(addr("paula").into_string()),
        reason: Reason::Compute,
        amount: 1_940u128.into(),
        item: None,
        deployment: Some(1),
        model: Some(model("child")),
    }));
    let usage = serde_json::json!({ "record": { "usages": [{
        "model": "demo/child", "units": { "requests": 100, "units_in": 1_000, "units_out": 0 }, "paid": "2330", "sunk": "60",
    }] } });
    let burn = serde_json::json!({ "burn": { "amount": "20" } });
    let settled = serde_json::json!({ "record_settled": { "work": [{ "deployment": 1, "price": "2330" }] } });
    assert_eq!(
        messages(&response),
        [
            (addr("func").into_string(), burn),
            (addr("registry").into_string(), usage),
            (addr("staking").into_string(), settled)
        ]
    );

    let response = escrow
        .settles(vec![escrow.signed(voucher(1, 6, 150, price(1, 150)))])
        .unwrap();
    let paid = price(1, 150) - 2_330;
    assert!(matches!(
        events(&response)[0],
        Event::VoucherSettled { requests: 50, units_in: 500, paid: found, .. } if found.u128() == paid
    ));
    let allocation = escrow.allocation(1);
    assert_eq!((allocation.paid.u128(), allocation.sequence), (price(1, 150), 6));
    assert_eq!(allocation.units, voucher(1, 6, 150, 0).units());
}

#[test]
fn every_rule_of_a_voucher_has_its_name_and_a_refused_one_changes_nothing() {
    let mut escrow = Escrow::with_session();
    assert_eq!(escrow.settled(escrow.signed(voucher(1, 5, 100, 2_330))), Ok(2_330));
    let books = escrow.sums();
    let good = voucher(1, 6, 150, 2_500);
    let cases: [(Change, VoucherRefusal); 12] = [
        (|v| v.session = 2, Unknown),
        (|v| v.deployment = 3, Unknown),
        (|v| v.amount = 2_330u128.into(), Stale),
        (|v| v.amount = 1u128.into(), Stale),
        (|v| (v.amount, v.sequence) = (0u128.into(), u64::MAX), Stale),
        (|v| v.requests = 1_501, Counters),
        (|v| v.requests = 0, Counters),
        (|v| v.units_in = 150 * UNITS_MAX + 1, Counters),
        (|v| (v.units_in, v.units_out) = (u64::MAX, u64::MAX), Counters),
        (
            |v| (v.requests, v.units_in, v.units_out) = (u64::MAX, u64::MAX, u64::MAX),
            Counters,
        ),
        (|v| v.amount = 20_001u128.into(), Allocation),
        (|v| v.amount = (price(1, 150) + 1).into(), Price),
    ];
    for (index, (change, reason)) in cases.into_iter().enumerate() {
        let mut changed = good;
        change(&mut changed);
        assert_eq!(escrow.settled(escrow.signed(changed)), Err(reason), "case {index}");
        assert_eq!((escrow.sums(), escrow.allocation(1).sequence), (books, 5));
    }
    assert_eq!(escrow.settled(escrow.signed(good)), Ok(2_500 - 2_330));
}

/// What a developer could settle, with the key of its session, before its provider comes with the best voucher it has.
fn hostile_vouchers() -> Vec<Voucher> {
    // Each request as long as can be: the price is far above any amount here.
    let longest = |requests: u64| (requests, requests * UNITS_MAX, 0);
    let counters = [
        (1, 1, 0),
        longest(1),
        longest(1_000_000_000),
        (1, 0, 7),
        (u64::MAX, u64::MAX, 0),
        (u64::MAX / UNITS_MAX, u64::MAX / UNITS_MAX, u64::MAX / 2),
    ];
    let mut all = vec![];
    for (requests, units_in, units_out) in counters {
        for (sequence, amount) in [(0, 1), (6, 1), (7, 2_000), (u64::MAX, 1), (u64::MAX, 2_329)] {
            all.push(Voucher {
                requests,
                units_in,
                units_out,
                ..voucher(1, sequence, 0, amount)
            });
        }
    }
    all
}

#[test]
fn whatever_the_session_key_settles_first_the_best_voucher_is_paid_to_its_full_amount() {
    let mut settled_before = 0;
    let hostile = hostile_vouchers();
    for first in &hostile {
        for second in &hostile {
            let mut escrow = Escrow::with_session();
            let mut paid = 0;
            for one in [first, second] {
                if let Ok(part) = escrow.settled(escrow.signed(*one)) {
                    settled_before += 1;
                    paid += part;
                    assert_eq!(paid, one.amount.u128());
                }
            }
            let best = escrow.settled(escrow.signed(voucher(1, 5, 100, 2_330)));
            assert_eq!(best, Ok(2_330 - paid), "after {first:?} and {second:?}");
            let earned = ["paula", "treasury", "gateway", "alice", "bob"].map(|name| escrow.money_of(name).0);
            let parent = escrow.money("model:demo/parent").0;
            let (available, held) = escrow.sums();
            let burnt = 100_000 - available - held;
            assert_eq!(earned.iter().sum::<u128>() + parent + burnt, 2_330);
            let allocation = escrow.allocation(1);
            assert_eq!(allocation.paid.u128(), 2_330);
            assert_eq!(
                allocation.units,
                voucher(1, 5, 100, 0).units(),
                "paid and counters belong together"
            );
        }
    }
    assert!(settled_before > 500, "only {settled_before} hostile vouchers counted");
}

#[test]
fn a_later_voucher_for_one_ufunc_takes_nothing_from_the_provider() {
    let honest = {
        let mut escrow = Escrow::with_session();
        escrow.settled(escrow.signed(voucher(1, 5, 100, 2_330))).unwrap();
        ["paula", "treasury", "gateway", "alice", "bob"].map(|name| escrow.money_of(name).0)
    };
    for sequence in [6, u64::MAX] {
        let mut escrow = Escrow::with_session();
        assert_eq!(escrow.settled(escrow.signed(voucher(1, sequence, 100, 1))), Ok(1));
        assert_eq!(escrow.settled(escrow.signed(voucher(1, 5, 100, 2_330))), Ok(2_329));
        let earned = ["paula", "treasury", "gateway", "alice", "bob"].map(|name| escrow.money_of(name).0);
        assert_eq!(earned[..3], honest[..3], "nor can it be seen who was first");
        assert_eq!(
            escrow.allocation(1).sequence,
            sequence,
            "the highest that was ever settled"
        );
        let again = [voucher(1, sequence, 100, 1), voucher(1, 5, 100, 2_330)];
        for one in again {
            assert_eq!(escrow.settled(escrow.signed(one)), Err(Stale));
        }
    }
}

#[test]
fn counters_that_fall_are_announced_as_nothing_and_never_uncounted() {
    let mut escrow = Escrow::with_session();
    let mut first = voucher(1, 9, 100, 1_000);
    first.units_out = 7;
    escrow.settled(escrow.signed(first)).unwrap();
    let response = escrow.settles(vec![escrow.signed(voucher(1, 3, 90, 2_000))]).unwrap();
    assert!(matches!(
        events(&response)[0],
        Event::VoucherSettled {
            sequence: 3,
            requests: 0,
            units_in: 0,
            units_out: 0,
            paid,
            ..
        } if paid.u128() == 1_000
    ));
    let allocation = escrow.allocation(1);
    assert_eq!(
        (allocation.sequence, allocation.units),
        (9, voucher(1, 3, 90, 0).units())
    );
}

/// Signed for something else, by somebody else, or in another form: worth nothing here.
#[test]
fn a_voucher_counts_for_one_chain_contract_session_deployment_and_key() {
    let mut escrow = Escrow::with_session();
    escrow.open("dave", vec![put(1, 20_000)]).unwrap();
    let good = voucher(1, 1, 100, 2_330);
    let here = escrow.domain();
    let (mut chain, mut contract) = (here.clone(), here.clone());
    chain.chain_id.push('x');
    contract.contract = addr("another escrow").into_string();
    let (mut session, mut deployment) = (good, good);
    session.session = 2;
    deployment.deployment = 2;
    let foreign = [
        ("chain", sign("session", good.digest(&chain))),
        ("contract", sign("session", good.digest(&contract))),
        ("session", sign("session", session.digest(&here))),
        ("deployment", sign("session", deployment.digest(&here))),
        ("key", sign("dave", good.digest(&here))),
        ("host", sign("paula", good.digest(&here))),
        ("high s", twin(sign("session", good.digest(&here)))),
        ("no signature", Signature([0; 64])),
        ("all ones", Signature([255; 64])),
    ];
    for (name, signature) in foreign {
        let signed = SignedVoucher {
            voucher: good,
            signature,
        };
        assert_eq!(escrow.settled(signed), Err(VoucherRefusal::Signature), "{name}");
    }
    assert_eq!(escrow.settled(escrow.signed(good)), Ok(2_330));
    assert_eq!(escrow.settled(escrow.signed(good)), Err(Stale), "nor a second time");
}

#[test]
fn a_session_key_that_is_no_point_signs_nothing_and_hurts_nobody() {
    let mut escrow = Escrow::with_session();
    let mut session = escrow.new_session(vec![put(3, 1_000)]);
    session.session_key.0[1..].fill(0xff);
    escrow.by("dave", ExecuteMsg::OpenSession { session }).unwrap();
    let mut bad = escrow.signed(voucher(3, 1, 1, 10));
    bad.voucher.session = 2;
    let good = escrow.signed(voucher(1, 1, 100, 2_330));
    let response = escrow.settles(vec![bad, good]).unwrap();
    assert!(matches!(
        events(&response)[..2],
        [
            Event::VoucherRefused {
                reason: VoucherRefusal::Signature,
                ..
            },
            Event::VoucherSettled { session: 1, .. }
        ]
    ));
}

#[test]
fn lower_vouchers_are_worth_nothing_after_better_ones_in_any_order() {
    let mut escrow = Escrow::with_session();
    let all: Vec<_> = (1..=4)
        .map(|n| escrow.signed(voucher(1, 9 - n, n * 50, price(1, n * 50))))
        .collect();
    let shuffled = vec![all[1], all[3], all[0], all[2], all[3]];
    let response = escrow.settles(shuffled).unwrap();
    let paid = |n: u64| price(1, n * 50);
    let statuses: Vec<Option<u128>> = events(&response)
        .iter()
        .filter_map(|event| match event {
            Event::VoucherSettled { paid, .. } => Some(Some(paid.u128())),
            Event::VoucherRefused { reason: Stale, .. } => Some(None),
            _ => None,
        })
        .collect();
    assert_eq!(statuses, [Some(paid(2)), Some(paid(4) - paid(2)), None, None, None]);
    assert_eq!(escrow.allocation(1).paid.u128(), paid(4));
}

#[test]
fn of_32_vouchers_of_32_sessions_a_bad_one_stops_no_other() {
    let mut escrow = Escrow::new();
    escrow.deposit("dave", 1_000_000);
    for _ in 0..32 {
        escrow.open("dave", vec![put(1, 5_000)]).unwrap();
    }
    let mut vouchers: Vec<_> = (1..=32)
        .map(|session| {
            let mut one = voucher(1, 1, 100, 2_330);
            one.session = session;
            escrow.signed(one)
        })
        .collect();
    vouchers[16].voucher.amount = 2_331u128.into();
    let response = escrow.settles(vouchers.clone()).unwrap();
    for (index, event) in events(&response).into_iter().take(32).enumerate() {
        let session = index as u64 + 1;
        match event {
            Event::VoucherRefused {
                session: found, reason, ..
            } => {
                assert_eq!((found, session, reason), (17, 17, VoucherRefusal::Signature));
            }
            Event::VoucherSettled {
                session: found, paid, ..
            } => {
                assert_eq!((found, paid.u128()), (session, 2_330));
            }
            other => panic!("unexpected {other:?}"),
        }
    }
    // Credited once, burnt once, recorded once: 31 of each.
    assert_eq!(escrow.money_of("paula").0, 31 * 1_940);
    let credits = events(&response)
        .into_iter()
        .filter(|event| matches!(event, Event::Credited { .. }));
    assert_eq!(
        credits.count(),
        6,
        "paula, the treasury, the gateway, the parent, alice and bob"
    );
    let told = messages(&response);
    assert_eq!(told.len(), 3);
    assert_eq!(told[0].1["burn"]["amount"], "620");
    assert_eq!(told[1].1["record"]["usages"][0]["units"]["requests"], 3_100);
    let work = serde_json::json!([{ "deployment": 1, "price": (31 * 2_330).to_string() }]);
    assert_eq!(
        told[2].1["record_settled"]["work"], work,
        "all of a deployment's at once"
    );
    let told = response.messages.last().unwrap();
    assert_eq!(told.reply_on, cosmwasm_std::ReplyOn::Error, "staking stops no payment");
    escrow.sums();

    let mut crowd = vouchers.clone();
    crowd.push(vouchers[0]);
    let count = |count| ContractError::VoucherCount { count, max: 32 };
    assert_eq!(escrow.settles(crowd).unwrap_err(), count(33));
    assert_eq!(escrow.settles(vec![]).unwrap_err(), count(0));
    let response = escrow.settles(vouchers).unwrap();
    assert!(
        messages(&response).is_empty(),
        "nothing was settled: nothing is burnt or recorded"
    );
}

#[test]
fn a_voucher_of_a_million_requests_pays_what_a_million_vouchers_would() {
    let whole = {
        let mut escrow = Escrow::with_session();
        escrow
            .settled(escrow.signed(voucher(1, 1, 800, price(1, 800))))
            .unwrap();
        ["paula", "treasury", "gateway"].map(|name| escrow.money_of(name))
    };
    let mut escrow = Escrow::with_session();
    for n in 1..=800 {
        escrow.settled(escrow.signed(voucher(1, n, n, price(1, n)))).unwrap();
    }
    let parts = ["paula", "treasury", "gateway"].map(|name| escrow.money_of(name));
    assert_eq!(parts, whole);
}

#[test]
fn whoever_settles_the_money_goes_where_it_belongs() {
    for name in ["stranger", "dave", "paula", "mallory"] {
        let mut escrow = Escrow::with_session();
        let vouchers = vec![escrow.signed(voucher(1, 1, 100, 2_330))];
        escrow.by(name, ExecuteMsg::SettleVouchers { vouchers }).unwrap();
        assert_eq!(escrow.money_of("paula").0, 1_940);
    }
}

#[test]
fn the_keys_of_the_stubs_differ() {
    assert_ne!(public(&key("session")), public(&key("paula")));
}
