#![allow(clippy::arithmetic_side_effects, reason = "numbers in tests are small")]

use client::Wallet;
use proptest::prelude::*;
use schema::{
    price::{Ask, RoyaltyRate},
    receipt::Domain,
    session::Voucher,
    PublicKey, Signature,
};

use super::*;

mod behind;

use behind::{pays, settle};

const ALLOCATED: u128 = 100_000;
const UNITS_MAX: u64 = 20;

fn key() -> Wallet {
    Wallet::dev("session")
}

fn terms() -> Terms {
    Terms {
        domain: Domain {
            chain_id: "fxn-local-1".into(),
            contract: "wasm1escrow".into(),
        },
        session: 3,
        deployment: 4,
        session_key: PublicKey(key().public_key()),
        ask: Ask {
            per_1k_in: 7_777u128.into(),
            per_1k_out: 1_000u128.into(),
            per_request: 5u128.into(),
        },
        royalty: RoyaltyRate {
            royalty_bps: 1_250,
            royalty_per_1k_units: 333u128.into(),
        },
        gateway_bps: 500,
        compute_share_bps: 3_333,
        units_per_request_max: UNITS_MAX,
    }
}

fn standing() -> Standing {
    Standing {
        state: AllocationState::Open,
        amount: ALLOCATED.into(),
        paid: Uint128::zero(),
        sequence: 0,
        units: Units::default(),
    }
}

fn acceptor(credit: u32) -> Acceptor {
    Acceptor::new(terms(), standing(), credit, None)
}

fn units(rows: u64, each: u64) -> Units {
    Units {
        requests: rows,
        units_in: rows * each,
        units_out: 0,
    }
}

fn sign(voucher: Voucher) -> SignedVoucher {
    let signature = Signature(key().sign_digest(&voucher.digest(&terms().domain).0));
    SignedVoucher { voucher, signature }
}

/// Pays for these counters in full.
fn voucher(sequence: u64, units: Units) -> Voucher {
    Voucher {
        session: 3,
        deployment: 4,
        sequence,
        requests: units.requests,
        units_in: units.units_in,
        units_out: units.units_out,
        amount: terms().price(units).unwrap(),
    }
}

fn serve(acceptor: &mut Acceptor, number: u64, work: Units) {
    acceptor.admit(number, u32::try_from(work.requests).unwrap()).unwrap();
    acceptor.measure(number, work).unwrap();
    acceptor.finish(number).unwrap();
}

#[test]
fn one_request_is_on_credit_and_the_next_comes_with_the_voucher_for_it() {
    let mut acceptor = acceptor(1);
    for number in 1..=20 {
        serve(&mut acceptor, number, units(2, 10));
        let refused = acceptor.admit(number + 1, 1).unwrap_err();
        assert_eq!(refused, RequestError::Credit { owed: 2, credit: 1 });
        assert!(!acceptor.is_paid());
        assert!(acceptor.accept(sign(voucher(number, units(2 * number, 10)))).unwrap());
        assert!(acceptor.is_paid());
    }
    assert_eq!(acceptor.worth(), terms().price(units(40, 10)).unwrap());
}

#[test]
fn what_waits_and_runs_is_on_credit_too_and_what_came_to_nothing_is_not() {
    let mut acceptor = acceptor(2);
    acceptor.admit(1, 1).unwrap();
    acceptor.admit(5, 1).unwrap();
    assert!(matches!(
        acceptor.admit(6, 1),
        Err(RequestError::Credit { owed: 3, .. })
    ));
    acceptor.drop(1);
    acceptor.admit(6, 1).unwrap();
    assert_eq!(acceptor.open(), 2);
}

#[test]
fn a_number_is_good_once_and_only_upwards() {
    let mut acceptor = acceptor(9);
    acceptor.admit(7, 1).unwrap();
    for old in [0, 1, 7] {
        let refused = acceptor.admit(old, 1).unwrap_err();
        assert_eq!(refused, RequestError::Number { found: old, highest: 7 });
    }
    acceptor.drop(7);
    assert!(acceptor.admit(7, 1).is_err(), "not even after it came to nothing");
    assert_eq!(acceptor.admit(8, 0), Err(RequestError::Empty));
}

#[test]
fn what_is_paid_ahead_is_not_on_credit() {
    let mut acceptor = acceptor(0);
    assert!(acceptor.admit(1, 1).is_err(), "nothing is on credit here");
    // Three rows of the longest.
    acceptor.accept(sign(voucher(1, units(3, UNITS_MAX)))).unwrap();
    for number in 1..=3 {
        acceptor.admit(number, 1).unwrap();
    }
    assert!(acceptor.admit(4, 1).is_err());
    for number in 1..=3 {
        acceptor.measure(number, units(1, UNITS_MAX)).unwrap();
        acceptor.finish(number).unwrap();
    }
    assert!(acceptor.is_paid());
}

#[test]
fn every_rule_of_a_voucher_has_its_name_and_a_refused_one_changes_nothing() {
    let mut acceptor = acceptor(1);
    let good = voucher(5, units(10, 10));
    acceptor.accept(sign(good)).unwrap();
    let next = voucher(6, units(11, 10));
    let price = next.amount;
    let mut forged = sign(next);
    forged.signature.0[7] ^= 1;
    let other_key = SignedVoucher {
        signature: Signature(Wallet::dev("mallory").sign_digest(&next.digest(&terms().domain).0)),
        voucher: next,
    };
    let elsewhere = Domain {
        chain_id: "other".into(),
        ..terms().domain
    };
    let foreign = SignedVoucher {
        signature: Signature(key().sign_digest(&next.digest(&elsewhere).0)),
        voucher: next,
    };
    let cases = [
        (
            sign(Voucher { session: 9, ..next }),
            VoucherError::Foreign {
                session: 9,
                deployment: 4,
            },
        ),
        (
            sign(Voucher { deployment: 9, ..next }),
            VoucherError::Foreign {
                session: 3,
                deployment: 9,
            },
        ),
        (
            sign(Voucher { sequence: 5, ..next }),
            VoucherError::Stale { found: 5, newest: 5 },
        ),
        (forged, VoucherError::Signature),
        (other_key, VoucherError::Signature),
        (foreign, VoucherError::Signature),
        (sign(voucher(6, units(9, 10))), VoucherError::Falls),
        (sign(Voucher { units_in: 99, ..next }), VoucherError::Falls),
        (
            sign(voucher(
                6,
                Units {
                    requests: 200,
                    units_in: 199,
                    units_out: 0,
                },
            )),
            VoucherError::Units {
                requests: 200,
                units: 199,
                max: 4_000,
            },
        ),
        (
            sign(voucher(
                6,
                Units {
                    requests: 11,
                    units_in: 100,
                    units_out: 121,
                },
            )),
            VoucherError::Units {
                requests: 11,
                units: 221,
                max: 220,
            },
        ),
        (
            sign(Voucher {
                amount: price - Uint128::one(),
                ..next
            }),
            VoucherError::Price {
                found: price - Uint128::one(),
                price,
            },
        ),
        (
            sign(Voucher {
                amount: price + Uint128::one(),
                ..next
            }),
            VoucherError::Price {
                found: price + Uint128::one(),
                price,
            },
        ),
    ];
    let before = format!("{acceptor:?}");
    for (bad, expected) in cases {
        assert_eq!(acceptor.accept(bad), Err(expected), "{bad:?}");
        assert_eq!(format!("{acceptor:?}"), before);
    }
    let large = voucher(6, units(900, UNITS_MAX));
    let (found, allocated) = (large.amount, ALLOCATED.into());
    assert_eq!(
        acceptor.accept(sign(large)),
        Err(VoucherError::Allocation { found, allocated })
    );
    assert_eq!(acceptor.accept(sign(good)), Ok(false), "what is known is no news");
    acceptor.accept(sign(next)).unwrap();
    let closed = Standing {
        state: AllocationState::Closed,
        ..standing()
    };
    acceptor.settled(closed);
    assert_eq!(
        acceptor.accept(sign(voucher(7, units(12, 10)))),
        Err(VoucherError::Closed)
    );
}

#[test]
fn what_the_allocation_cannot_pay_for_is_not_begun() {
    let mut acceptor = acceptor(1);
    let affordable = (1..)
        .take_while(|rows| terms().price(units(*rows, 10)).unwrap().u128() <= ALLOCATED)
        .last()
        .unwrap();
    acceptor.accept(sign(voucher(1, units(affordable - 1, 10)))).unwrap();
    serve(&mut acceptor, 1, units(affordable - 1, 10));
    acceptor.admit(2, 2).unwrap();
    let refused = acceptor.measure(2, units(2, 10)).unwrap_err();
    assert!(matches!(refused, RequestError::Allocation { .. }), "{refused}");
    acceptor.drop(2);
    acceptor.settled(Standing {
        amount: (2 * ALLOCATED).into(),
        ..standing()
    });
    acceptor.admit(3, 2).unwrap();
    acceptor.measure(3, units(2, 10)).unwrap();
    for wrong in [
        units(3, 10),
        units(2, UNITS_MAX + 1),
        Units {
            units_in: 1,
            ..units(2, 1)
        },
    ] {
        let mut acceptor = acceptor.clone();
        assert!(
            matches!(acceptor.measure(3, wrong), Err(RequestError::Units { .. })),
            "{wrong:?}"
        );
    }
}

#[test]
fn a_host_that_lost_its_disk_counts_what_is_settled_and_asks_for_more() {
    let paid = terms().price(units(5, 10)).unwrap();
    let settled = Standing {
        paid,
        sequence: 8,
        units: units(5, 10),
        ..standing()
    };
    let mut acceptor = Acceptor::new(terms(), settled, 1, None);
    assert_eq!(acceptor.kept().counted, units(5, 10));
    assert!(acceptor.is_paid());
    serve(&mut acceptor, 1, units(1, 10));
    assert!(acceptor.admit(2, 1).is_err());
    acceptor.accept(sign(voucher(9, units(6, 10)))).unwrap();
    acceptor.admit(2, 1).unwrap();
}

/// What a client may do, and what may happen to the host.
#[derive(Debug, Clone)]
enum Act {
    /// With so many rows of so many units.
    Ask {
        rows: u32,
        each: u64,
        skip: u64,
    },
    /// The open request of this index is done, or not.
    Finish {
        which: usize,
    },
    Drop {
        which: usize,
    },
    /// For everything that is done, and so many rows of the longest ahead.
    Pay {
        ahead: u64,
    },
    /// Something is wrong with it.
    PayBadly {
        less: u64,
        sequence_back: u64,
    },
    Settle,
    /// Somebody with the session key settles another voucher, for more than was paid and less than it counts.
    SettleBehind {
        sequence: u64,
        counters: Units,
        more: u128,
    },
    Restart,
}

fn behind() -> impl Strategy<Value = Act> {
    let sequence = prop_oneof![0..9u64, Just(u64::MAX)];
    let rows = prop_oneof![1..9u64, Just(1_000_000_000)];
    (sequence, rows, 1..=UNITS_MAX, any::<bool>(), 1..3_000u128).prop_map(|(sequence, rows, each, is_out, more)| {
        let total = rows * each;
        let counters = Units {
            requests: rows,
            units_in: if is_out { 0 } else { total },
            units_out: if is_out { total } else { 0 },
        };
        Act::SettleBehind {
            sequence,
            counters,
            more,
        }
    })
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![
        6 => (1..4u32, 1..=UNITS_MAX, 0..3u64).prop_map(|(rows, each, skip)| Act::Ask { rows, each, skip }),
        6 => (0..4usize).prop_map(|which| Act::Finish { which }),
        1 => (0..4usize).prop_map(|which| Act::Drop { which }),
        5 => prop_oneof![3 => Just(0u64), 1 => 1..6u64].prop_map(|ahead| Act::Pay { ahead }),
        1 => (0..3u64, 0..3u64).prop_map(|(less, sequence_back)| Act::PayBadly { less, sequence_back }),
        1 => Just(Act::Settle),
        1 => behind(),
        1 => Just(Act::Restart),
    ];
    prop::collection::vec(act, 1..80)
}

/// What is true, kept in the plainest way.
#[derive(Debug, Default)]
struct Model {
    number: u64,
    sequence: u64,
    /// Units of every request that was ever finished, in order.
    done: Vec<Units>,
    open: Vec<(u64, Units)>,
    /// Of the best voucher.
    paid: Units,
    numbers: Vec<u64>,
}

impl Model {
    fn counted(&self) -> Units {
        self.done.iter().fold(Units::default(), |sum, units| add(sum, *units))
    }

    /// Finished requests that are not paid for, however they are looked at.
    fn unpaid(&self) -> usize {
        let sums = (1..=self.done.len()).map(|to| {
            self.done[..to]
                .iter()
                .fold(Units::default(), |sum, units| add(sum, *units))
        });
        sums.filter(|sum| !reaches(self.paid, *sum)).count()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn whatever_a_client_does_it_never_has_more_than_the_credit_and_no_number_twice(credit in 0..4u32, acts in acts()) {
        let mut acceptor = acceptor(credit);
        let mut model = Model::default();
        // What an unlucky host finds on its disk: kept before every piece of work that relies on it.
        let mut disk = acceptor.kept();
        for act in acts {
            match act {
                Act::Ask { rows, each, skip } => {
                    let (number, work) = (model.number + skip, units(rows.into(), each));
                    if acceptor.admit(number, rows).is_ok() {
                        prop_assert!(!model.numbers.contains(&number));
                        model.numbers.push(number);
                        model.number = number;
                        disk = acceptor.kept();
                        if acceptor.measure(number, work).is_ok() {
                            model.open.push((number, work));
                            let on_credit = model.unpaid() + model.open.len();
                            // Nothing is paid ahead, so everything that is not paid is on credit.
                            if model.paid.requests <= model.counted().requests {
                                prop_assert!(on_credit <= credit as usize);
                            }
                        } else {
                            acceptor.drop(number);
                        }
                    }
                }
                Act::Finish { which } if which < model.open.len() => {
                    let (number, work) = model.open.remove(which);
                    acceptor.finish(number).unwrap();
                    model.done.push(work);
                    prop_assert_eq!(acceptor.kept().counted, model.counted());
                }
                Act::Drop { which } if which < model.open.len() => {
                    let (number, _) = model.open.remove(which);
                    acceptor.drop(number);
                    prop_assert!(acceptor.finish(number).is_err());
                }
                Act::Pay { ahead } => {
                    let all = add(highest(model.counted(), model.paid), units(ahead, UNITS_MAX));
                    let promised = voucher(model.sequence + 1, all);
                    let taken = acceptor.accept(sign(promised));
                    if promised.amount.u128() > ALLOCATED {
                        let refused = matches!(taken, Err(VoucherError::Allocation { .. }));
                        prop_assert!(refused);
                    } else {
                        prop_assert_eq!(taken, Ok(true));
                        model.sequence += 1;
                        model.paid = all;
                        disk = acceptor.kept();
                    }
                }
                Act::PayBadly { less, sequence_back } if less + sequence_back > 0 => {
                    let mut bad = voucher((model.sequence + 1).saturating_sub(sequence_back), highest(model.counted(), model.paid));
                    bad.amount = bad.amount.saturating_sub(less.into());
                    let unchanged = bad.amount == terms().price(bad.units()).unwrap() && sequence_back == 0;
                    let before = acceptor.kept();
                    let taken = acceptor.accept(sign(bad));
                    prop_assert!(unchanged || matches!(taken, Err(_) | Ok(false)));
                    if taken == Ok(true) { model.sequence += 1; model.paid = bad.units(); disk = acceptor.kept(); }
                    else { prop_assert_eq!(acceptor.kept(), before); }
                }
                Act::Settle => {
                    if let Some(SignedVoucher { voucher, .. }) = acceptor.best().copied() {
                        let before = acceptor.standing();
                        if pays(&before, &voucher) {
                            acceptor.settled(settle(before, &voucher));
                        }
                        prop_assert_eq!(acceptor.worth(), Uint128::zero());
                    }
                }
                Act::SettleBehind { sequence, counters, more } => {
                    let before = acceptor.standing();
                    let amount = before.paid + Uint128::new(more);
                    let hostile = Voucher { amount, ..voucher(sequence, counters) };
                    if amount < terms().price(counters).unwrap() && pays(&before, &hostile) {
                        acceptor.settled(settle(before, &hostile));
                        prop_assert!(acceptor.is_contradicted());
                    }
                }
                Act::Restart => {
                    let settled = acceptor.standing();
                    acceptor = Acceptor::new(terms(), settled, credit, Some(disk));
                    while model.counted() != disk.counted {
                        model.done.pop();
                    }
                    model.open.clear();
                    prop_assert!(acceptor.admit(disk.number, 1).is_err());
                }
                _ => {}
            }
            // Whatever was settled before it.
            if let Some(best) = acceptor.best().filter(|best| best.voucher.amount > acceptor.standing().paid) {
                prop_assert!(pays(&acceptor.standing(), &best.voucher));
                prop_assert_eq!(acceptor.worth(), best.voucher.amount - acceptor.standing().paid);
            }
            prop_assert_eq!(acceptor.open(), model.open.len());
            prop_assert_eq!(acceptor.is_paid(), model.unpaid() == 0);
        }
    }
}

#[test]
fn a_million_vouchers_pass() {
    let million = std::env::var("FXN_SLOW").is_ok_and(|slow| slow == "1");
    let count = if million { 1_000_000 } else { 2_000 };
    let rich = Standing {
        amount: Uint128::new(u128::MAX >> 64),
        ..standing()
    };
    let mut acceptor = Acceptor::new(terms(), rich, 1, None);
    for number in 1..=count {
        serve(&mut acceptor, number, units(1, 10));
        acceptor.accept(sign(voucher(number, units(number, 10)))).unwrap();
    }
    assert_eq!(acceptor.kept().counted, units(count, 10));
    assert!(acceptor.is_paid());
}
