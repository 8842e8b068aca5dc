//! A host's acceptor and the contract believe the same of a client: what the one accepts, the other pays.

use fxn_tests::{found, Host, Protocol, Serving, DEVELOPER, FUNC, SESSION_KEY};
use lane::{
    acceptor::Acceptor,
    terms::{Standing, Terms},
};
use proptest::prelude::*;
use schema::{
    escrow::ExecuteMsg,
    price::Units,
    session::{SignedVoucher, Voucher},
    Event,
};

fn terms(protocol: &Protocol, session: u64, deployment: u64) -> (Terms, Standing) {
    let pinned = protocol.session(session);
    Terms::of(protocol.escrow_domain(), &pinned, deployment).unwrap()
}

/// What a client may sign, honest or not.
#[derive(Debug, Clone, Copy)]
struct Offer {
    /// Rows more than the best voucher has, and units of each.
    rows: u64,
    each: u64,
    out: u64,
    /// Counters may fall.
    fewer: u64,
    sequence: u64,
    /// Beside the exact price.
    more: i64,
    other_session: bool,
    forged: bool,
}

/// A voucher of a dishonest client.
#[derive(Debug, Clone, Copy)]
struct Behind {
    sequence: u64,
    rows: u64,
    each: u64,
    is_out: bool,
    /// Than what is paid.
    more: u128,
}

#[derive(Debug, Clone, Copy)]
enum Act {
    Offer(Offer),
    /// Somebody settles the best voucher.
    Settle,
    /// Who has the session key settles another one, that its host never had.
    Behind(Behind),
    /// The same once more.
    Repeat,
    TopUp(u128),
    Pass(u64),
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let rare = |one: BoxedStrategy<u64>| prop_oneof![5 => Just(0u64), 1 => one];
    let offer = (
        (0..40u64, 0..300u64),
        rare((0..3u64).boxed()),
        rare((0..30u64).boxed()),
        prop_oneof![6 => Just(1u64), 1 => 0..4u64, 1 => Just(u64::MAX)],
        prop_oneof![6 => Just(0i64), 1 => -2..3i64],
        prop::bool::weighted(0.05),
        prop::bool::weighted(0.05),
    )
        .prop_map(
            |((rows, each), out, fewer, sequence, more, other_session, forged)| Offer {
                rows,
                each,
                out,
                fewer,
                sequence,
                more,
                other_session,
                forged,
            },
        );
    let behind = (
        prop_oneof![0..9u64, Just(u64::MAX)],
        prop_oneof![1..9u64, Just(1_000_000_000)],
        1..=256u64,
        any::<bool>(),
        prop_oneof![3 => 1..3_000u128, 1 => 1..4_000_000u128],
    )
        .prop_map(|(sequence, rows, each, is_out, more)| Behind {
            sequence,
            rows,
            each,
            is_out,
            more,
        });
    let act = prop_oneof![
        8 => offer.prop_map(Act::Offer),
        3 => Just(Act::Settle),
        2 => behind.prop_map(Act::Behind),
        1 => Just(Act::Repeat),
        1 => (1..2_000_000u128).prop_map(Act::TopUp),
        1 => (1..20u64).prop_map(Act::Pass),
    ];
    prop::collection::vec(act, 1..60)
}

fn signed(protocol: &Protocol, acceptor: &Acceptor, offer: Offer) -> SignedVoucher {
    let best = acceptor.best().map(|best| best.voucher);
    let before = best.map_or(Units::default(), |best| best.units());
    let units = Units {
        requests: (before.requests + offer.rows).saturating_sub(offer.fewer),
        units_in: (before.units_in + offer.rows * offer.each).saturating_sub(offer.fewer),
        units_out: (before.units_out + offer.rows * offer.out).saturating_sub(offer.fewer),
    };
    let price = acceptor.terms().price(units).unwrap_or_default().u128();
    let voucher = Voucher {
        session: acceptor.terms().session + u64::from(offer.other_session),
        deployment: acceptor.terms().deployment,
        sequence: best.map_or(0, |best| best.sequence).saturating_add(offer.sequence),
        requests: units.requests,
        units_in: units.units_in,
        units_out: units.units_out,
        amount: price.saturating_add_signed(offer.more.into()).into(),
    };
    let mut signed = protocol.signs(voucher);
    if offer.forged {
        signed.signature = Host::named("mallory").sign(&voucher.digest(&protocol.escrow_domain()));
    }
    signed
}

fn hostile(protocol: &Protocol, terms: &Terms, behind: Behind, paid: u128) -> SignedVoucher {
    let units = behind.rows * behind.each;
    protocol.signs(Voucher {
        session: terms.session,
        deployment: terms.deployment,
        sequence: behind.sequence,
        requests: behind.rows,
        units_in: if behind.is_out { 0 } else { units },
        units_out: if behind.is_out { units } else { 0 },
        amount: (paid + behind.more).into(),
    })
}

fn paid(events: &[Event]) -> Vec<u64> {
    found(events, |event| match event {
        Event::VoucherSettled { sequence, .. } => Some(*sequence),
        _ => None,
    })
}

fn cases() -> u32 {
    let slow = std::env::var("FXN_SLOW").is_ok_and(|slow| slow == "1");
    if slow {
        2_000
    } else {
        40
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(cases()))]

    #[test]
    fn what_a_host_accepts_the_chain_pays_whatever_was_settled_before_it(acts in acts()) {
        let mut protocol = Protocol::with_market();
        let session = protocol.new_session(&[(1, 4 * FUNC)]);
        let session = protocol.opens_session(DEVELOPER, session);
        let (terms_of, standing) = terms(&protocol, session, 1);
        let mut acceptor = Acceptor::new(terms_of, standing, 1, None);
        for act in acts {
            match act {
                Act::Offer(offer) => {
                    let offered = signed(&protocol, &acceptor, offer);
                    let before = acceptor.best().copied();
                    match acceptor.accept(offered) {
                        Ok(_) => prop_assert_eq!(acceptor.best(), Some(&offered)),
                        Err(_) => prop_assert_eq!(acceptor.best().copied(), before),
                    }
                }
                Act::Settle | Act::Repeat => {
                    let Some(best) = acceptor.best().copied() else { continue };
                    let before = acceptor.standing().paid;
                    let is_better = best.voucher.amount > before;
                    let expected = if is_better { vec![best.voucher.sequence] } else { vec![] };
                    prop_assert_eq!(paid(&protocol.settles(vec![best])), expected);
                    let (_, standing) = terms(&protocol, session, 1);
                    prop_assert_eq!(standing.paid, best.voucher.amount.max(before));
                    acceptor.settled(standing);
                    prop_assert!(acceptor.worth().is_zero());
                    if matches!(act, Act::Repeat) {
                        prop_assert_eq!(paid(&protocol.settles(vec![best])), Vec::<u64>::new(), "nothing is paid twice");
                    }
                }
                Act::Behind(behind) => {
                    let before = acceptor.worth();
                    let signed = hostile(&protocol, acceptor.terms(), behind, acceptor.standing().paid.u128());
                    protocol.settles(vec![signed]);
                    acceptor.settled(terms(&protocol, session, 1).1);
                    let best = acceptor.best().map_or(0u128, |best| best.voucher.amount.u128());
                    let rest = best.saturating_sub(acceptor.standing().paid.u128());
                    prop_assert!(acceptor.worth().u128() == rest && acceptor.worth() <= before);
                }
                Act::TopUp(amount) => {
                    let allocations = Protocol::allocations(&[(1, amount)]);
                    if protocol.escrow(DEVELOPER, &ExecuteMsg::TopUp { session, allocations }).is_ok() {
                        acceptor.settled(terms(&protocol, session, 1).1);
                    }
                }
                Act::Pass(seconds) => protocol.seconds_pass(seconds),
            }
        }
        // Client, host and relayer are gone. What the host had is settled by a stranger in the notice, and the rest goes back.
        let (expires_at, notice) = (protocol.session(session).expires_at, protocol.params.escrow.close_notice_seconds);
        protocol.seconds_pass(expires_at.saturating_sub(protocol.now()) + 1);
        let best = acceptor.best().copied();
        let before = protocol.allocation(session, 1).paid.u128();
        if let Some(best) = best {
            protocol.settles(vec![best]);
        }
        let owed = best.map_or(0, |best| best.voucher.amount.u128());
        prop_assert_eq!(protocol.allocation(session, 1).paid.u128(), owed.max(before));
        protocol.seconds_pass(notice + 1);
        protocol.escrow("stranger", &ExecuteMsg::FinaliseSession { session }).unwrap();
        prop_assert_eq!(protocol.money(DEVELOPER).1, 0, "nothing is held any more");
        protocol.assert_conserved();
    }
}

#[test]
fn a_million_vouchers_pass_the_host_and_one_settlement_pays_them_all() {
    let slow = std::env::var("FXN_SLOW").is_ok_and(|slow| slow == "1");
    let count: u64 = if slow { 1_000_000 } else { 3_000 };
    let mut protocol = Protocol::with_market();
    let cheap = Serving {
        per_1k_in: 100,
        ..Serving::stages(0, 0)
    };
    let deployment = protocol.provides("cara", &cheap);
    let session = protocol.new_session(&[(deployment, 45 * FUNC)]);
    let session = protocol.opens_session(DEVELOPER, session);
    let (pinned, standing) = terms(&protocol, session, deployment);
    let key = Host::named(SESSION_KEY);
    let mut acceptor = Acceptor::new(pinned.clone(), standing, 1, None);
    for number in 1..=count {
        acceptor.admit(number, 1).unwrap();
        let one = Units {
            requests: 1,
            units_in: 12,
            units_out: 0,
        };
        acceptor.measure(number, one).unwrap();
        acceptor.finish(number).unwrap();
        let units = acceptor.kept().counted;
        let voucher = Voucher {
            session,
            deployment,
            sequence: number,
            requests: units.requests,
            units_in: units.units_in,
            units_out: units.units_out,
            amount: pinned.price(units).unwrap(),
        };
        let signature = key.sign(&voucher.digest(&pinned.domain));
        acceptor.accept(SignedVoucher { voucher, signature }).unwrap();
    }
    let best = *acceptor.best().unwrap();
    assert_eq!((best.voucher.requests, best.voucher.units_in), (count, 12 * count));
    assert_eq!(paid(&protocol.settles(vec![best])), [count]);
    assert_eq!(protocol.allocation(session, deployment).paid, best.voucher.amount);
    protocol.assert_conserved();
}
