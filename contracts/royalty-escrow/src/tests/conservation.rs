//! Random messages, well meant and not: the ledger is what came in less what went out, and everything held is held for something.

use std::collections::BTreeMap;

use proptest::prelude::*;
use schema::{
    escrow::{SessionResponse, VoucherRefusal},
    session::Voucher,
};

use super::{
    stubs::{offer_of, put, sign},
    *,
};

const NAMES: [&str; 3] = ["dave", "alice", "paula"];

#[derive(Debug, Clone)]
enum Step {
    Deposit(usize, u128),
    Withdraw(usize, Option<u128>),
    Hold(usize, u64, u128),
    Settle(u64, u64),
    Release(u64),
    ReleaseExpired(u64),
    Distribute(bool),
    Pass(u64),
    Open(usize, Vec<(u64, u128)>),
    TopUp(usize, u64, Vec<(u64, u128)>),
    Vouchers(Vec<Promise>),
    Close(usize, u64, Option<(u64, u64)>),
    Leave(usize, u64, u64),
    Finalise(u64),
}

/// A voucher with more or less work than before, of any sequence.
#[derive(Debug, Clone)]
struct Promise {
    session: u64,
    deployment: u64,
    sequence: u64,
    requests: u64,
    /// Of the price.
    percent: u128,
    by: usize,
}

impl Promise {
    fn amount(&self) -> u128 {
        super::stubs::price(self.deployment, self.requests) * self.percent / 100
    }
}

fn promises() -> impl Strategy<Value = Vec<Promise>> {
    let one = (1..6u64, 1..4u64, 0..12u64, 0..900u64, 0..120u128, 0..8usize);
    let promise = one.prop_map(|(session, deployment, sequence, requests, percent, by)| Promise {
        session,
        deployment,
        sequence,
        requests,
        percent,
        by,
    });
    prop::collection::vec(promise, 1..6)
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let amount = || 0..60_000u128;
    let who = || 0..3usize;
    let allocations = || prop::collection::vec((1..5u64, 0..52_000u128), 0..3);
    let step = prop_oneof![
        2 => (who(), amount()).prop_map(|(who, amount)| Step::Deposit(who, amount)),
        1 => (who(), prop::option::of(amount())).prop_map(|(who, amount)| Step::Withdraw(who, amount)),
        1 => (who(), 0..6u64, amount()).prop_map(|(who, job, amount)| Step::Hold(who, job, amount)),
        1 => (0..6u64, 0..6_000u64).prop_map(|(job, units)| Step::Settle(job, units)),
        1 => (0..6u64).prop_map(Step::Release),
        1 => (0..6u64).prop_map(Step::ReleaseExpired),
        1 => any::<bool>().prop_map(Step::Distribute),
        2 => (0..90u64).prop_map(Step::Pass),
        3 => (who(), allocations()).prop_map(|(who, allocations)| Step::Open(who, allocations)),
        1 => (who(), 1..6u64, allocations()).prop_map(|(who, session, more)| Step::TopUp(who, session, more)),
        5 => promises().prop_map(Step::Vouchers),
        1 => (who(), 1..6u64, prop::option::of((1..4u64, 0..12u64)))
            .prop_map(|(who, session, consent)| Step::Close(who, session, consent)),
        1 => (who(), 1..6u64, 1..4u64).prop_map(|(who, session, deployment)| Step::Leave(who, session, deployment)),
        2 => (1..6u64).prop_map(Step::Finalise),
    ];
    prop::collection::vec(step, 1..60)
}

impl Escrow {
    fn promised(&self, promise: &Promise) -> schema::session::SignedVoucher {
        let voucher = Voucher {
            session: promise.session,
            ..super::stubs::voucher(promise.deployment, promise.sequence, promise.requests, promise.amount())
        };
        let signer = if promise.by == 0 { "mallory" } else { "session" };
        let signature = sign(signer, voucher.digest(&self.domain()));
        schema::session::SignedVoucher { voucher, signature }
    }

    fn takes(&mut self, step: &Step) -> Option<Outcome> {
        let allocations = |all: &[(u64, u128)]| all.iter().map(|(number, amount)| put(*number, *amount)).collect();
        Some(match step {
            Step::Deposit(who, amount) => {
                self.send_from("func", NAMES[*who], *amount, &ReceiveMsg::Deposit { beneficiary: None })
            }
            Step::Withdraw(who, amount) => {
                let amount = amount.map(Uint128::new);
                self.by(NAMES[*who], ExecuteMsg::Withdraw { amount })
            }
            Step::Hold(who, job, amount) => {
                let hold = hold_of(NAMES[*who], *job, *amount, terms(), self.now() + 100);
                self.by("orchestrator", hold)
            }
            Step::Settle(job, units) => self.settle(vec![settlement(*job, 0, *units)]),
            Step::Release(job) => self.by("orchestrator", ExecuteMsg::Release { job: *job }),
            Step::ReleaseExpired(job) => self.by("stranger", ExecuteMsg::ReleaseExpired { job: *job }),
            Step::Distribute(parent) => {
                let model = model(if *parent { "parent" } else { "child" });
                self.by("stranger", ExecuteMsg::DistributeRoyalties { model })
            }
            Step::Open(who, all) => self.open(NAMES[*who], allocations(all)),
            Step::TopUp(who, session, all) => {
                let allocations = allocations(all);
                let session = *session;
                self.by(NAMES[*who], ExecuteMsg::TopUp { session, allocations })
            }
            Step::Vouchers(promises) => {
                let vouchers = promises.iter().map(|promise| self.promised(promise)).collect();
                self.settles(vouchers)
            }
            Step::Close(who, session, consent) => {
                let sign_off = |(deployment, sequence): &(u64, u64)| {
                    let name = if *deployment == 1 { "paula" } else { "peter" };
                    let mut consent = self.consent(name, *deployment, *sequence);
                    if *session > 1 {
                        // For another session than the one that it is shown for.
                        consent.deployment = 1;
                    }
                    consent
                };
                let consents = consent.iter().map(sign_off).collect();
                let session = *session;
                self.by(NAMES[*who], ExecuteMsg::CloseSession { session, consents })
            }
            Step::Leave(who, session, deployment) => {
                let (session, deployment) = (*session, *deployment);
                self.by(NAMES[*who], ExecuteMsg::LeaveSession { session, deployment })
            }
            Step::Finalise(session) => self.by("stranger", ExecuteMsg::FinaliseSession { session: *session }),
            Step::Pass(seconds) => {
                self.seconds_pass(*seconds);
                return None;
            }
        })
    }

    fn held_by_sessions(&self, session: &SessionResponse) -> u128 {
        let open = session
            .allocations
            .iter()
            .filter(|allocation| allocation.state != schema::escrow::AllocationState::Closed);
        open.map(|open| (open.reservation + open.amount - open.paid).u128())
            .sum()
    }

    /// Everything held is held for a job or a session, within its bounds.
    fn check_held(&self, best: &BTreeMap<(u64, u64), u128>) -> Result<(), TestCaseError> {
        for name in NAMES {
            let money: MoneyResponse = self.ask(QueryMsg::Money {
                holder: addr(name).into_string(),
                start_after: None,
                sessions_after: None,
                limit: Some(30),
            });
            let holds: u128 = money.holds.iter().map(|hold| hold.amount.u128()).sum();
            let sessions: u128 = money
                .sessions
                .iter()
                .map(|session| self.held_by_sessions(session))
                .sum();
            if money.sessions.len() < 10 {
                prop_assert_eq!(holds + sessions, money.held.u128());
            }
            for session in &money.sessions {
                for part in &session.allocations {
                    prop_assert!(part.paid <= part.amount && part.accrued <= part.reservation);
                    prop_assert!(part.amount - part.paid <= offer_of(part.deployment).slot_bond);
                    prop_assert!(part.releasable_at <= session.expires_at + session.close_notice_seconds);
                    let paid = best
                        .get(&(session.session, part.deployment))
                        .copied()
                        .unwrap_or_default();
                    prop_assert_eq!(part.paid.u128(), paid, "what was settled last is what was paid");
                }
            }
        }
        Ok(())
    }
}

/// Amount of the best settled voucher of every allocation. Whatever its sequence, one that is settled promises more than all before it, and
/// pays the difference.
fn note(step: &Step, outcome: &Outcome, best: &mut BTreeMap<(u64, u64), u128>) -> Result<(), TestCaseError> {
    let (Step::Vouchers(promises), Ok(response)) = (step, outcome) else {
        return Ok(());
    };
    let told = events(response);
    for (promise, event) in promises.iter().zip(&told) {
        match event {
            Event::VoucherSettled { paid, sequence, .. } => {
                prop_assert!(promise.by != 0 && promise.percent <= 100, "a lie was paid");
                prop_assert_eq!(*sequence, promise.sequence);
                let before = best.entry((promise.session, promise.deployment)).or_default();
                prop_assert!(promise.amount() > *before);
                prop_assert_eq!(paid.u128(), promise.amount() - *before);
                *before = promise.amount();
            }
            Event::VoucherRefused { reason, .. } => {
                let before = best
                    .get(&(promise.session, promise.deployment))
                    .copied()
                    .unwrap_or_default();
                prop_assert!(*reason != VoucherRefusal::Stale || promise.amount() <= before);
                let forged = promise.by == 0;
                prop_assert!(
                    !forged
                        || matches!(
                            reason,
                            VoucherRefusal::Signature
                                | VoucherRefusal::Stale
                                | VoucherRefusal::Unknown
                                | VoucherRefusal::Closed
                        )
                );
            }
            other => panic!("unexpected {other:?}"),
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    /// The cw20 balance is what came in less what the messages of successful calls take out. In the end a stranger releases all that
    /// is held.
    #[test]
    fn the_ledger_is_what_came_in_less_what_went_out(steps in steps()) {
        let mut escrow = Escrow::new();
        let (mut balance, mut opened) = (0u128, 0u64);
        let mut best = BTreeMap::new();
        for step in steps {
            let Some(outcome) = escrow.takes(&step) else { continue };
            if let (Step::Deposit(_, amount), Ok(_)) = (&step, &outcome) {
                balance += amount;
            }
            if let (Step::Open(..), Ok(_)) = (&step, &outcome) {
                opened += 1;
            }
            for (to, msg) in outcome.iter().flat_map(messages) {
                if to == addr("func").as_str() {
                    let out = msg.as_object().unwrap().values().next().unwrap()["amount"].as_str().unwrap();
                    balance -= out.parse::<u128>().unwrap();
                }
            }
            note(&step, &outcome, &mut best)?;
            let (available, held) = escrow.sums();
            prop_assert_eq!(available + held, balance);
            escrow.check_held(&best)?;
        }
        escrow.seconds_pass(2_000);
        for number in 0..=opened.max(6) {
            let open = escrow.session(number).is_some();
            let release = escrow.by("stranger", ExecuteMsg::FinaliseSession { session: number });
            prop_assert_eq!(release.is_ok(), open);
            let _ = escrow.by("stranger", ExecuteMsg::ReleaseExpired { job: number });
        }
        prop_assert_eq!(escrow.sums(), (balance, 0));
    }
}
