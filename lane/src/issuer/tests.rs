#![allow(clippy::arithmetic_side_effects, reason = "small numbers of a test")]

use client::Wallet;
use proptest::prelude::*;
use schema::{
    escrow::AllocationState,
    price::{Ask, RoyaltyRate},
    receipt::Domain,
    PublicKey,
};

use super::*;

const UNITS_MAX: u64 = 8;

fn key() -> Wallet {
    Wallet::dev("session")
}

fn terms() -> Terms {
    Terms {
        domain: Domain {
            chain_id: "fxn-local-1".into(),
            contract: "wasm1escrow".into(),
        },
        session: 7,
        deployment: 3,
        session_key: PublicKey(key().public_key()),
        ask: Ask {
            per_1k_in: 1_500u128.into(),
            per_1k_out: 0u128.into(),
            per_request: 3u128.into(),
        },
        royalty: RoyaltyRate {
            royalty_bps: 1_250,
            royalty_per_1k_units: 70u128.into(),
        },
        gateway_bps: 100,
        compute_share_bps: 4_000,
        units_per_request_max: UNITS_MAX,
    }
}

fn standing(amount: u128) -> Standing {
    Standing {
        state: AllocationState::Open,
        amount: amount.into(),
        paid: Uint128::zero(),
        sequence: 0,
        units: Units::default(),
    }
}

fn rows(requests: u64, units_in: u64) -> Units {
    Units {
        requests,
        units_in,
        units_out: 0,
    }
}

fn sign(digest: &Digest) -> Signature {
    Signature(key().sign_digest(&digest.0))
}

fn issuer(amount: u128, conceded_max: u128) -> Issuer {
    Issuer::new(terms(), standing(amount), conceded_max.into())
}

fn paid(issuer: &mut Issuer, units: Units) -> SignedVoucher {
    issuer.reserve(units).unwrap();
    issuer.release(units);
    issuer.deliver(units).unwrap();
    issuer.voucher(sign).unwrap().unwrap()
}

#[test]
fn a_voucher_promises_the_exact_price_of_what_was_delivered_and_nothing_twice() {
    let mut issuer = issuer(1_000_000, 0);
    assert_eq!(issuer.voucher(sign), Ok(None));
    let first = paid(&mut issuer, rows(2, 9));
    assert_eq!(first.voucher.amount, terms().price(rows(2, 9)).unwrap());
    assert!(terms().is_signed(&first.voucher.digest(&terms().domain), &first.signature));
    assert_eq!(issuer.voucher(sign), Ok(None));
    let second = paid(&mut issuer, rows(1, 1));
    assert_eq!((second.voucher.sequence, second.voucher.units()), (2, rows(3, 10)));
    assert_eq!(second.voucher.amount, terms().price(rows(3, 10)).unwrap());
}

#[test]
fn requests_that_could_not_all_be_paid_for_are_not_begun() {
    let one = rows(1, 4);
    let two = terms().price(rows(2, 8)).unwrap().u128();
    let mut issuer = issuer(two, 0);
    issuer.reserve(one).unwrap();
    issuer.reserve(one).unwrap();
    assert!(matches!(issuer.reserve(one), Err(IssueError::Allocation { .. })));
    issuer.release(one);
    issuer.reserve(one).unwrap();
    // More money makes room.
    issuer.settled(&standing(two * 2));
    issuer.reserve(one).unwrap();
}

#[test]
fn units_that_the_escrow_would_refuse_are_never_owed() {
    let mut issuer = issuer(1_000_000, 1_000_000);
    for wrong in [rows(0, 0), rows(0, 1), rows(2, 1), rows(1, UNITS_MAX + 1)] {
        assert!(
            matches!(issuer.reserve(wrong), Err(IssueError::Units { .. })),
            "{wrong:?}"
        );
        assert!(
            matches!(issuer.deliver(wrong), Err(IssueError::Units { .. })),
            "{wrong:?}"
        );
        assert!(
            matches!(issuer.concede(wrong), Err(IssueError::Units { .. })),
            "{wrong:?}"
        );
    }
    assert_eq!(issuer.owed(), Units::default());
}

#[test]
fn a_client_without_memory_goes_on_from_its_own_signature_and_believes_no_other() {
    let mut before = issuer(1_000_000, 0);
    let newest = paid(&mut before, rows(5, 20));
    let mut after = issuer(1_000_000, 0);
    after.welcomed(Some(&newest), rows(5, 20)).unwrap();
    assert_eq!((after.owed(), after.best()), (rows(5, 20), Some(&newest)));
    assert_eq!(paid(&mut after, rows(1, 2)).voucher.sequence, 2);

    let changes: [fn(&mut SignedVoucher); 4] = [
        |it| it.voucher.requests += 1,
        |it| it.voucher.session += 1,
        |it| it.voucher.deployment += 1,
        |it| it.signature = Signature([7; 64]),
    ];
    for change in changes {
        let mut forged = newest;
        change(&mut forged);
        let mut after = issuer(1_000_000, 1_000_000);
        assert_eq!(
            after.welcomed(Some(&forged), rows(6, 21)),
            Err(IssueError::NotOurs { deployment: 3 })
        );
        assert_eq!(after.owed(), Units::default());
    }
}

#[test]
fn what_a_host_only_claims_is_conceded_up_to_the_limit_and_never_again() {
    let limit = terms().price(rows(1, UNITS_MAX)).unwrap().u128();
    let mut issuer = issuer(1_000_000, limit);
    issuer.welcomed(None, rows(1, UNITS_MAX)).unwrap();
    assert_eq!(issuer.conceded().u128(), limit);
    assert!(issuer.voucher(sign).unwrap().is_some());
    let refused = issuer.welcomed(None, rows(2, UNITS_MAX + 1));
    assert!(matches!(refused, Err(IssueError::Unproven { .. })), "{refused:?}");
    assert_eq!(issuer.owed(), rows(1, UNITS_MAX));
    // What it is known to have done is no concession.
    issuer.deliver(rows(1, 1)).unwrap();
    issuer.welcomed(None, rows(2, UNITS_MAX + 1)).unwrap();
}

#[test]
fn what_the_chain_has_settled_was_promised() {
    let mut before = issuer(1_000_000, 0);
    let settled = paid(&mut before, rows(4, 10)).voucher;
    let on_chain = Standing {
        paid: settled.amount,
        sequence: settled.sequence,
        units: settled.units(),
        ..standing(1_000_000)
    };
    let mut after = Issuer::new(terms(), on_chain, Uint128::zero());
    assert_eq!(after.voucher(sign), Ok(None));
    assert_eq!(paid(&mut after, rows(1, 1)).voucher.sequence, 2);
}

#[test]
fn the_next_sequence_is_above_every_one_that_is_known_and_money_follows_the_amount() {
    let mut issuer = issuer(1_000_000, 0);
    let first = paid(&mut issuer, rows(4, 10)).voucher;
    // Somebody with our key has settled another one, for less.
    let strange = Standing {
        paid: Uint128::one(),
        sequence: 40,
        units: rows(1, 1),
        ..standing(1_000_000)
    };
    issuer.settled(&strange);
    assert_eq!((issuer.amount(), issuer.owed()), (first.amount, rows(4, 10)));
    assert_eq!(issuer.voucher(sign), Ok(None), "what was promised is promised");
    let next = paid(&mut issuer, rows(1, 1)).voucher;
    assert_eq!((next.sequence, next.units()), (41, rows(5, 11)));
    // The last of all sequences is harm that the key's holder does to itself.
    issuer.settled(&Standing {
        sequence: u64::MAX,
        ..strange
    });
    issuer.deliver(rows(1, 1)).unwrap();
    assert!(matches!(issuer.voucher(sign), Err(IssueError::Overflow(_))));
}

#[derive(Debug, Clone)]
enum Step {
    /// Delivered and checked.
    Deliver(Units),
    /// Begun and come to nothing.
    Fail(Units),
    /// The client loses its memory; the host shows one of the vouchers that it has and claims something.
    Restart {
        shown: prop::sample::Index,
        claim: Units,
    },
    /// The host cashes one of the vouchers that it has.
    Cash(prop::sample::Index),
    TopUp(u128),
}

fn step() -> impl Strategy<Value = Step> {
    let units = || (1..4_u64).prop_flat_map(|n| (Just(n), n..=n * UNITS_MAX).prop_map(|(n, u)| rows(n, u)));
    let claim = (0..6_u64, 0..40_u64).prop_map(|(n, u)| rows(n, u));
    prop_oneof![
        4 => units().prop_map(Step::Deliver),
        1 => units().prop_map(Step::Fail),
        2 => (any::<prop::sample::Index>(), claim).prop_map(|(shown, claim)| Step::Restart { shown, claim }),
        2 => any::<prop::sample::Index>().prop_map(Step::Cash),
        1 => (0..200_u128).prop_map(Step::TopUp),
    ]
}

/// A host that hides vouchers, claims what it likes and cashes in any order; and the chain, with the rules of the escrow: an amount is paid
/// that is more than what was paid before.
#[derive(Debug)]
struct World {
    standing: Standing,
    vouchers: Vec<SignedVoucher>,
    /// Really delivered, and conceded, over all lives of the client.
    earned: Units,
}

impl World {
    fn took(&mut self, voucher: Option<SignedVoucher>) -> Result<(), TestCaseError> {
        let Some(signed) = voucher else { return Ok(()) };
        let (units, amount) = (signed.voucher.units(), signed.voucher.amount);
        prop_assert_eq!(amount, terms().price(units).unwrap());
        prop_assert!(amount <= self.standing.amount);
        prop_assert!(reaches(self.earned, units), "{:?} for {:?}", units, self.earned);
        self.vouchers.push(signed);
        Ok(())
    }

    fn cash(&mut self, voucher: &Voucher) {
        let before = self.standing;
        if voucher.amount > before.paid && voucher.amount <= before.amount {
            self.standing.sequence = before.sequence.max(voucher.sequence);
            self.standing.units = voucher.units();
            self.standing.paid = voucher.amount;
        }
    }
}

proptest! {
    #[test]
    fn no_host_ever_cashes_more_than_it_delivered_and_was_conceded(
        steps in prop::collection::vec(step(), 1..60), first in 0..2_000_u128, conceded_max in 0..60_u128,
    ) {
        let mut world = World { standing: standing(first), vouchers: vec![], earned: Units::default() };
        let mut issuer = Issuer::new(terms(), world.standing, conceded_max.into());
        for step in steps {
            match step {
                Step::Deliver(units) => {
                    if issuer.reserve(units).is_ok() {
                        issuer.release(units);
                        issuer.deliver(units).unwrap();
                        world.earned = add(world.earned, units);
                        let voucher = issuer.voucher(sign).unwrap();
                        prop_assert!(voucher.is_some());
                        world.took(voucher)?;
                    }
                }
                Step::Fail(units) => {
                    let before = (issuer.owed(), issuer.left());
                    if issuer.reserve(units).is_ok() {
                        issuer.release(units);
                    }
                    prop_assert_eq!(before, (issuer.owed(), issuer.left()));
                }
                Step::Restart { shown, claim } => {
                    issuer = Issuer::new(terms(), world.standing, conceded_max.into());
                    let shown = (!world.vouchers.is_empty()).then(|| *shown.get(&world.vouchers));
                    let known = highest(issuer.owed(), shown.map_or(Units::default(), |it| it.voucher.units()));
                    prop_assert!(reaches(world.earned, known));
                    let taken = issuer.welcomed(shown.as_ref(), add(known, claim));
                    let given = terms().price(issuer.owed()).unwrap() - terms().price(known).unwrap();
                    prop_assert!(given.u128() <= conceded_max);
                    prop_assert_eq!(given, issuer.conceded());
                    if taken.is_err() {
                        prop_assert_eq!(issuer.owed(), known);
                    }
                    world.earned = highest(world.earned, issuer.owed());
                    world.took(issuer.voucher(sign).unwrap())?;
                }
                Step::Cash(index) if !world.vouchers.is_empty() => {
                    let voucher = index.get(&world.vouchers).voucher;
                    world.cash(&voucher);
                    issuer.settled(&world.standing);
                }
                Step::Cash(_) => {}
                Step::TopUp(more) => {
                    world.standing.amount += Uint128::new(more);
                    issuer.settled(&world.standing);
                }
            }
            prop_assert!(world.standing.paid <= terms().price(world.earned).unwrap());
            let best = world.vouchers.iter().map(|it| it.voucher.amount).max().unwrap_or_default();
            prop_assert!(best <= terms().price(world.earned).unwrap());
        }
    }
}
