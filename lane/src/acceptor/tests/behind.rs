//! What others settle behind a host's back, with the key of its session.

use super::*;

/// The rule of the escrow, in the plainest way; signature and price were checked by whoever took the voucher.
pub(super) fn pays(standing: &Standing, voucher: &Voucher) -> bool {
    let open = standing.state != AllocationState::Closed;
    let total = u128::from(voucher.units_in) + u128::from(voucher.units_out);
    let (least, most) = (
        u128::from(voucher.requests),
        u128::from(voucher.requests) * u128::from(UNITS_MAX),
    );
    open && voucher.amount > standing.paid
        && voucher.amount <= standing.amount
        && voucher.amount <= terms().price(voucher.units()).unwrap()
        && least <= total
        && total <= most
}

pub(super) fn settle(standing: Standing, voucher: &Voucher) -> Standing {
    Standing {
        paid: voucher.amount,
        sequence: standing.sequence.max(voucher.sequence),
        units: voucher.units(),
        ..standing
    }
}

#[test]
fn what_somebody_settles_behind_our_back_takes_nothing_from_our_best_voucher() {
    let best = voucher(1, units(5, 10));
    let long = |rows| units(rows, UNITS_MAX);
    let in_full = |counters| terms().price(counters).unwrap().u128();
    // Whether an honest client could not have signed it beside the best one.
    for (sequence, counters, amount, contradicts) in [
        (2, best.units(), 1, true),
        (u64::MAX, best.units(), 1, true),
        (0, long(1), in_full(long(1)), false),
        (9, long(3), in_full(long(3)) - 100, true),
        (u64::MAX, long(4_000_000_000), best.amount.u128() - 1, true),
    ] {
        let mut acceptor = acceptor(1);
        serve(&mut acceptor, 1, best.units());
        acceptor.accept(sign(best)).unwrap();
        let hostile = Voucher {
            amount: amount.into(),
            ..voucher(sequence, counters)
        };
        assert!(pays(&acceptor.standing(), &hostile), "{hostile:?}");
        let after = settle(acceptor.standing(), &hostile);
        acceptor.settled(after);
        assert_eq!(acceptor.best(), Some(&sign(best)));
        assert_eq!(acceptor.worth(), best.amount - Uint128::new(amount));
        assert!(pays(&after, &best));
        assert_eq!((acceptor.is_paid(), acceptor.is_contradicted()), (true, contradicts));
        acceptor.settled(settle(after, &best));
        // What was seen is not forgotten.
        assert_eq!((acceptor.worth().u128(), acceptor.is_contradicted()), (0, contradicts));
        // Its own order is that of the vouchers that it was given.
        acceptor.accept(sign(voucher(2, units(6, 10)))).unwrap();
    }
    // In full, and of another story.
    let mut acceptor = acceptor(1);
    acceptor.accept(sign(best)).unwrap();
    acceptor.settled(settle(standing(), &voucher(2, long(4))));
    assert!(acceptor.is_contradicted());
}

#[test]
fn an_honest_client_is_never_found_out_whatever_is_settled_when() {
    for settled in 0..=6 {
        for known in 0..=6 {
            let mut acceptor = acceptor(9);
            let mut chain = standing();
            for number in 1..=6 {
                let next = voucher(number, units(number, 10));
                if number <= known {
                    acceptor.accept(sign(next)).unwrap();
                }
                if number <= settled {
                    chain = settle(chain, &next);
                }
            }
            acceptor.settled(chain);
            assert!(!acceptor.is_contradicted(), "{settled} of 6 are settled, {known} known");
        }
    }
}
