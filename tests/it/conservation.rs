//! Random messages by honest, careless and hostile people, with time jumping about.
//!
//! After every single message: every contract has what it owes; nobody's available money has fallen but by his own doing; each
//! settlement's parts sum to what was paid, in the same transaction; no job has been paid more than was held for it. In the end a
//! stranger can release every hold and free every slot.

use cosmwasm_std::Uint128;
use fxn_tests::{found, Books, Outcome, Protocol, Serving, Work, DEVELOPER, FUNC, MODEL, PARENT, PROVIDERS};
use proptest::prelude::*;
use schema::{
    escrow::{self, HoldResponse, Reason},
    orchestrator::{self, ItemStatus, JobStatus},
    receipt::Attestation,
    registry, staking, Event, ItemId,
};

const DEVELOPERS: [&str; 2] = [DEVELOPER, "dirk"];

mod hostile;
mod steps;

use steps::{steps, Proof, Step};

struct Story {
    protocol: Protocol,
    jobs: Vec<u64>,
}

/// What a step did, and who might have less available money by his own doing.
type Done = (Outcome, Option<String>);

impl Story {
    fn begin() -> Self {
        let mut protocol = Protocol::with_market();
        // Two more of each stage, in a class of their own.
        for (name, stage) in [("gina", 0), ("gus", 1), ("wanda", 2), ("walt", 0)] {
            let class = "ort-cpu-avx512".to_owned();
            let wide = (stage, if name == "walt" { 2 } else { stage });
            protocol.provides(
                name,
                &Serving {
                    stages: wide,
                    class,
                    slots: 3,
                    ..Serving::stages(stage, stage)
                },
            );
        }
        // Bond that no slot needs can be taken out.
        let staking = protocol.contracts.provider_staking.clone();
        for name in PROVIDERS {
            protocol.fund(name, 400 * FUNC);
            protocol
                .send(name, &staking, 400 * FUNC, &staking::ReceiveMsg::Bond {})
                .unwrap();
        }
        protocol.deposits("dirk", 20 * FUNC);
        Self { protocol, jobs: vec![] }
    }

    /// Items that a chain is at work on, newest job first.
    fn open(&self) -> Vec<ItemId> {
        let mut open = vec![];
        for job in self.jobs.iter().rev() {
            if self.protocol.job(*job).status != JobStatus::Running {
                continue;
            }
            let items = self.protocol.items(*job).into_iter();
            open.extend(
                items
                    .filter(|item| item.status == ItemStatus::Assigned {})
                    .map(|item| item.item),
            );
        }
        open
    }

    fn pick(&self, nth: usize) -> Option<ItemId> {
        let open = self.open();
        open.get(nth.checked_rem(open.len())?).copied()
    }

    fn take(&mut self, step: &Step) -> Option<Done> {
        let nobody = |outcome| Some((outcome, None));
        match *step {
            Step::Submit { .. } => self.submit(step),
            Step::Attest { nth, proof } => {
                let attestation = self.proof(self.pick(nth)?, proof);
                nobody(self.protocol.attests(vec![attestation]))
            }
            Step::AttestEverything { lie } => {
                let open = self.open().into_iter().take(32);
                let work = |item: ItemId| match lie {
                    Some(stage) if item.replica == 0 => Work::honest(400).lying_from(stage, 1),
                    _ => Work::honest(400),
                };
                let all: Vec<Attestation> = open.map(|item| self.protocol.attestation(item, work(item))).collect();
                nobody(self.protocol.attests(all))
            }
            Step::Evidence {
                nth,
                links,
                acknowledged,
                punctual,
            } => {
                let item = self.pick(nth)?;
                if punctual && self.protocol.now() <= self.protocol.item(item).deadline {
                    self.protocol.deadline_passes(item);
                }
                let mut all = self.protocol.links(item, Work::honest(400));
                all.truncate(links);
                if let (Some(last), false) = (all.last_mut(), acknowledged) {
                    last.acknowledgement = None;
                }
                nobody(self.protocol.posts_evidence(item, all))
            }
            Step::Expire { nth } => {
                let item = self.pick(nth)?;
                nobody(self.protocol.expires(item))
            }
            Step::ExpireOverdue => {
                let item = *self.overdue().first()?;
                nobody(self.protocol.expires(item))
            }
            Step::Pass { .. } | Step::PassWindow { .. } | Step::Halt { .. } => {
                self.wait(step);
                None
            }
            Step::ReleaseExpired { nth } => {
                let job = *self.jobs.get(nth.checked_rem(self.jobs.len())?)?;
                nobody(
                    self.protocol
                        .escrow("stranger", &escrow::ExecuteMsg::ReleaseExpired { job }),
                )
            }
            Step::Hostile { nth } => {
                let outcome = hostile::attack(&mut self.protocol, self.jobs.last().copied().unwrap_or(1), nth);
                assert!(outcome.is_err(), "a hostile message went through: {outcome:?}");
                nobody(outcome)
            }
            Step::Deposit { .. } | Step::Withdraw { .. } => self.bank(step),
            Step::Distribute { .. } | Step::ChangePayout { .. } | Step::Pause { .. } => self.create(step),
            Step::Unbond { .. } | Step::TakeBond { .. } | Step::Drain { .. } | Step::Deploy { .. } => {
                self.provide(step)
            }
        }
    }

    fn wait(&mut self, step: &Step) {
        match *step {
            Step::Pass { seconds } => self.protocol.seconds_pass(seconds),
            Step::Halt { seconds } => self.protocol.halts_for(seconds),
            Step::PassWindow { nth, evidence } => match self.pick(nth) {
                Some(item) if evidence => self.protocol.deadline_passes(item),
                Some(item) => self.protocol.evidence_window_passes(item),
                None => {}
            },
            _ => {}
        }
    }

    fn submit(&mut self, step: &Step) -> Option<Done> {
        let Step::Submit {
            developer,
            shards,
            replicas,
            millis,
        } = *step
        else {
            return None;
        };
        let name = DEVELOPERS[developer];
        let mut order = Protocol::order(shards, 2, replicas);
        order.max_price = Uint128::new(millis * FUNC / 1_000 * shards as u128 * u128::from(replicas));
        let outcome = self.protocol.submits(name, order);
        self.jobs
            .extend(found(outcome.as_deref().unwrap_or_default(), |event| match event {
                Event::JobSubmitted { job, .. } => Some(*job),
                _ => None,
            }));
        Some((outcome, Some(self.protocol.addr(name).into_string())))
    }

    fn bank(&mut self, step: &Step) -> Option<Done> {
        match *step {
            Step::Deposit { developer, amount } => {
                let name = DEVELOPERS[developer];
                self.protocol.fund(name, amount);
                let escrow = self.protocol.contracts.royalty_escrow.clone();
                let deposit = escrow::ReceiveMsg::Deposit { beneficiary: None };
                Some((self.protocol.send(name, &escrow, amount, &deposit), None))
            }
            Step::Withdraw { developer, amount } => {
                let name = DEVELOPERS[developer];
                let amount = amount.map(Uint128::new);
                let outcome = self.protocol.escrow(name, &escrow::ExecuteMsg::Withdraw { amount });
                Some((outcome, Some(self.protocol.addr(name).into_string())))
            }
            _ => None,
        }
    }

    fn create(&mut self, step: &Step) -> Option<Done> {
        let model = |parent: bool| if parent { PARENT } else { MODEL };
        match *step {
            Step::Distribute { parent } => {
                let model = model(parent);
                let distribute = escrow::ExecuteMsg::DistributeRoyalties {
                    model: model.parse().unwrap(),
                };
                let outcome = self.protocol.escrow("stranger", &distribute);
                Some((outcome, Some(format!("model:{model}"))))
            }
            Step::ChangePayout { parent, bps } => {
                let model = model(parent);
                let rule = [("pavel".to_owned(), bps), ("chloe".to_owned(), 10_000 - bps)];
                let change = registry::ExecuteMsg::SetPayout {
                    model: model.parse().unwrap(),
                    payout: self.protocol.shares(&rule),
                };
                let outcome = self.protocol.registry("clara", &change);
                assert!(outcome.is_ok(), "the owner may always change the rule: {outcome:?}");
                Some((outcome, Some(format!("model:{model}"))))
            }
            Step::Pause { paused } => {
                use registry::ModelStatus::{Active, Paused};
                let status = registry::ExecuteMsg::SetStatus {
                    model: MODEL.parse().unwrap(),
                    status: if paused { Paused } else { Active },
                };
                Some((self.protocol.registry("clara", &status), None))
            }
            _ => None,
        }
    }

    fn provide(&mut self, step: &Step) -> Option<Done> {
        let outcome = match *step {
            Step::Unbond { provider, amount } => {
                let amount = Uint128::new(amount);
                self.protocol
                    .staking(PROVIDERS[provider], &staking::ExecuteMsg::Unbond { amount })
            }
            Step::TakeBond { provider } => self
                .protocol
                .staking(PROVIDERS[provider], &staking::ExecuteMsg::Withdraw {}),
            Step::Drain { provider } => {
                let deployment = self.protocol.deployment_of(PROVIDERS[provider]);
                self.protocol
                    .staking(PROVIDERS[provider], &staking::ExecuteMsg::Drain { deployment })
            }
            Step::Deploy { provider } => {
                let stage = [0, 0, 1, 1, 2, 2][provider];
                self.protocol
                    .deploys(PROVIDERS[provider], &Serving::stages(stage, stage))
            }
            _ => return None,
        };
        Some((outcome, None))
    }

    fn proof(&self, item: ItemId, proof: Proof) -> Attestation {
        let protocol = &self.protocol;
        let honest = || protocol.attestation(item, Work::honest(400));
        match proof {
            Proof::Honest => honest(),
            Proof::Lie { stage } => {
                protocol.attestation(item, Work::honest(400).lying_from(stage, u64::from(item.replica)))
            }
            Proof::Greedy => protocol.attestation(item, Work::honest(1_001)),
            Proof::Forged => {
                let mut forged = honest();
                forged.links[0].receipt.receipt.units_in += 1;
                forged
            }
            Proof::Incomplete => {
                let mut short = honest();
                short.links.pop();
                short
            }
            Proof::OldAttempt => Attestation {
                attempt: honest().attempt.wrapping_sub(1),
                ..honest()
            },
        }
    }

    fn overdue(&self) -> Vec<ItemId> {
        let question = orchestrator::QueryMsg::Overdue { limit: Some(30) };
        let answer: orchestrator::OverdueResponse =
            self.protocol.ask(&self.protocol.contracts.job_orchestrator, &question);
        answer.items
    }

    /// A job's hold is what was held less what was paid, for as long as it is there.
    fn assert_jobs_stay_within_their_holds(&self) {
        for job in &self.jobs {
            let told = self.protocol.job(*job);
            assert!(told.paid <= told.held, "job {job}");
            let question = escrow::QueryMsg::Hold { job: *job };
            let hold = self
                .protocol
                .try_ask::<HoldResponse>(&self.protocol.contracts.royalty_escrow, &question);
            match hold {
                Ok(hold) => assert_eq!(hold.amount, told.held - told.paid, "job {job}"),
                Err(_) => assert!(
                    told.status != JobStatus::Running || self.protocol.now() > told.expires_at,
                    "a running job lost its hold"
                ),
            }
        }
    }
}

fn assert_nobody_lost(before: &Books, after: &Books, own_doing: Option<&str>) {
    for (holder, (available, _)) in &before.0 {
        let (left, _) = after.0.get(holder).expect("holders are never forgotten");
        assert!(left >= available || Some(holder.as_str()) == own_doing, "{holder}");
    }
}

/// Everybody's parts and what was burnt are what left the hold, in this very transaction.
fn assert_settlements_are_whole(events: &[Event]) {
    for (item, paid, burnt) in found(events, |event| match event {
        Event::Settled { item, paid, burnt } => Some((*item, paid.u128(), burnt.u128())),
        _ => None,
    }) {
        let parts: u128 = found(events, |event| match event {
            Event::Credited {
                item: Some(of),
                amount,
                reason,
                ..
            } if *of == item && *reason != Reason::Penalty => Some(amount.u128()),
            _ => None,
        })
        .into_iter()
        .sum();
        assert_eq!(parts + burnt, paid, "{item}");
    }
}

/// 64 cases, unless `PROPTEST_CASES` says otherwise.
fn config() -> ProptestConfig {
    let cases = std::env::var("PROPTEST_CASES")
        .ok()
        .and_then(|cases| cases.parse().ok());
    ProptestConfig {
        cases: cases.unwrap_or(64),
        max_shrink_iters: 200,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn random_messages_never_create_lose_or_strand_money(steps in prop::collection::vec(steps(), 10..70)) {
        let mut story = Story::begin();
        for step in &steps {
            let before = story.protocol.books();
            let Some((outcome, own_doing)) = story.take(step) else {
                continue;
            };
            story.protocol.assert_conserved();
            let after = story.protocol.books();
            assert_nobody_lost(&before, &after, own_doing.as_deref());
            match outcome {
                Ok(events) => assert_settlements_are_whole(&events),
                Err(_) => prop_assert_eq!(before, after, "a refused message left a trace"),
            }
            story.assert_jobs_stay_within_their_holds();
        }

        // Everything stops, and strangers clean up.
        let wait = story.protocol.params.orchestrator.job_seconds_max + 1;
        story.protocol.seconds_pass(wait);
        for job in story.jobs.clone() {
            let release = escrow::ExecuteMsg::ReleaseExpired { job };
            // A hold that is gone already is fine; one that stays is not.
            let _gone = story.protocol.escrow("stranger", &release);
        }
        prop_assert_eq!(story.protocol.books().totals().1, 0);
        while let Some(item) = story.overdue().first().copied() {
            story.protocol.expires(item).unwrap();
        }
        prop_assert_eq!(story.protocol.busy_slots(), 0);
        story.protocol.assert_conserved();
    }
}
