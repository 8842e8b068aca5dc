//! The network on which the laws are tried, and what is looked at after every message.

use std::collections::{BTreeMap, BTreeSet};

use cosmwasm_std::{to_json_binary, Addr, Uint128};
use cw20::Cw20ExecuteMsg;
use fxn_tests::{Protocol, Serving, DEVELOPER, FUNC, MODEL, PARENT, PROVIDERS};
use proptest::prelude::*;
use schema::{
    escrow, orchestrator,
    price::RoyaltyRate,
    registry::{self, Parent, Task},
    staking, Event, ItemId, ModelId,
};
use serde::Serialize;

use super::{
    acts::{self, Act, Msg},
    checks::Picture,
    dice::Dice,
    hosts::Hosts,
    oracle::Oracle,
};

/// A model that generates, in two stages, without parents.
pub(crate) const GENERATOR: &str = "demo/gpt";
pub(crate) const DEVELOPERS: [&str; 2] = [DEVELOPER, "dirk"];
/// Two of each stage in a class of their own, and one for all of the generator.
pub(crate) const LATECOMERS: [&str; 5] = ["gina", "gus", "wanda", "walt", "omar"];
/// Everybody who acts.
pub(crate) const PEOPLE: [&str; 25] = [
    "mallory", "dora", "dirk", "clara", "anna", "axel", "bea", "bert", "cora", "carl", "gina", "gus", "wanda", "walt",
    "omar", "chloe", "pavel", "petra", "gateway", "stranger", "heir", "relayer", "admin", "treasury", "faucet",
];

/// One thing that happens.
#[derive(Debug, Clone)]
pub(crate) enum Step {
    /// A message of one kind.
    Act {
        kind: usize,
        dice: [u32; 8],
    },
    Pass {
        seconds: u64,
    },
    /// Until this long after a date of an item or of some money; one second before to two after it.
    PassTo {
        date: u32,
        offset: u64,
    },
    Halt {
        seconds: u64,
    },
}

/// Steps of a story about one statement, or about nothing.
pub(crate) fn steps(about: Option<char>) -> impl Strategy<Value = Step> {
    let kinds = (0..acts::weights(about)).prop_map(move |place| acts::kind_at(place, about));
    prop_oneof![
        20 => (kinds, any::<[u32; 8]>()).prop_map(|(kind, dice)| Step::Act { kind, dice }),
        2 => (1..20u64).prop_map(|seconds| Step::Pass { seconds }),
        1 => (1..1_000u64).prop_map(|seconds| Step::Pass { seconds }),
        3 => (any::<u32>(), 0..4u64).prop_map(|(date, offset)| Step::PassTo { date, offset }),
        1 => (1..400u64).prop_map(|seconds| Step::Halt { seconds }),
    ]
}

/// How often a message was sent and taken, by contract and name.
pub(crate) type Census = BTreeMap<(String, String), (u64, u64)>;

pub(crate) struct World {
    pub(crate) protocol: Protocol,
    pub(crate) oracle: Oracle,
    pub(crate) hosts: Hosts,
    /// A token of Mallory's that calls itself FUNC.
    pub(crate) fake: Addr,
    pub(crate) census: Census,
    /// None while the market is being set up.
    before: Option<Picture>,
}

impl World {
    pub(crate) fn begin() -> Self {
        let mut protocol = Protocol::with_conduct(|conduct| conduct.jail_strikes = 2);
        let fake = protocol.starts_another_token("mallory");
        let oracle = Oracle::of(&protocol);
        let hosts = Hosts::new();
        let census = Census::new();
        let mut world = Self {
            protocol,
            oracle,
            hosts,
            fake,
            census,
            before: None,
        };
        world.opens_the_market();
        world.looks();
        world
    }

    fn opens_the_market(&mut self) {
        for name in PEOPLE {
            if name != "faucet" {
                let transfer = Cw20ExecuteMsg::Transfer {
                    recipient: self.addr(name).into_string(),
                    amount: Uint128::new(2_000 * FUNC),
                };
                self.must("faucet", Msg::Token(transfer));
            }
        }
        let fee = self.oracle.params.registry.namespace_fee.u128();
        let namespace = "demo".parse().unwrap();
        self.sends(
            "clara",
            &self.oracle.contracts.model_registry.clone(),
            fee,
            &registry::ReceiveMsg::ClaimNamespace { namespace },
        );
        self.publishes(
            PARENT,
            &[3_000, 7_000],
            &[("pavel", 6_000), ("petra", 4_000)],
            None,
            333,
        );
        self.publishes(
            MODEL,
            &[3_000, 4_000, 3_000],
            &[("clara", 6_667), ("chloe", 3_333)],
            Some((PARENT, 2_500)),
            333,
        );
        self.publishes(GENERATOR, &[4_999, 5_001], &[("clara", 10_000)], None, 0);
        for (name, stage) in PROVIDERS.into_iter().zip([0, 0, 1, 1, 2, 2]) {
            self.serves(name, MODEL, &Serving::stages(stage, stage));
        }
        for (name, stages) in LATECOMERS.into_iter().zip([(0, 0), (1, 2), (1, 1), (2, 2), (0, 1)]) {
            let class = "ort-cpu-avx512".to_owned();
            let serving = Serving {
                class,
                slots: 3,
                ..Serving::stages(stages.0, stages.1)
            };
            let model = if name == "omar" { GENERATOR } else { MODEL };
            self.serves(name, model, &serving);
        }
        self.serves("axel", GENERATOR, &Serving::stages(0, 0));
        self.serves("bert", GENERATOR, &Serving::stages(1, 1));
        for name in DEVELOPERS {
            let deposit = escrow::ReceiveMsg::Deposit { beneficiary: None };
            let escrow = self.oracle.contracts.royalty_escrow.clone();
            self.sends(name, &escrow, 60 * FUNC, &deposit);
        }
        // One session each from the start, so that every story has some.
        for (name, allocations) in DEVELOPERS.into_iter().zip([
            [(1, 6 * FUNC), (3, 3 * FUNC), (6, FUNC)],
            [(2, FUNC), (4, FUNC), (5, 8 * FUNC)],
        ]) {
            let session = self.protocol.new_session(&allocations);
            self.must(name, Msg::Escrow(escrow::ExecuteMsg::OpenSession { session }));
        }
    }

    fn publishes(
        &mut self,
        name: &str,
        shares: &[u16],
        payout: &[(&str, u16)],
        parent: Option<(&str, u16)>,
        royalty_per_1k_units: u128,
    ) {
        let model: ModelId = name.parse().unwrap();
        let payout: Vec<(String, u16)> = payout.iter().map(|(name, bps)| ((*name).to_owned(), *bps)).collect();
        let task = if name == GENERATOR {
            Task::TextGeneration
        } else {
            Task::Embeddings
        };
        let parents = parent.into_iter().map(|(model, bps)| Parent {
            model: model.parse().unwrap(),
            bps,
        });
        let parents = parents.collect();
        for msg in [
            registry::ExecuteMsg::PublishModel {
                model: model.clone(),
                metadata: acts::metadata(name, task),
                payout: self.protocol.shares(&payout),
                parents,
            },
            registry::ExecuteMsg::PublishVersion {
                model: model.clone(),
                version: acts::version(shares),
            },
            registry::ExecuteMsg::SetEndpoint {
                model,
                endpoint: "embeddings".to_owned(),
                terms: registry::EndpointTerms {
                    unit: registry::Unit::Token,
                    royalty: RoyaltyRate {
                        royalty_bps: 1_000,
                        royalty_per_1k_units: royalty_per_1k_units.into(),
                    },
                },
            },
        ] {
            self.must("clara", Msg::Registry(msg));
        }
    }

    fn serves(&mut self, name: &str, model: &str, serving: &Serving) {
        let profile = self.protocol.profile(name);
        if !self.oracle.stakes.contains_key(self.addr(name).as_str()) {
            let register = staking::ExecuteMsg::RegisterProvider { profile };
            self.must(name, Msg::Staking(register));
        }
        let staking = self.oracle.contracts.provider_staking.clone();
        let params = self.oracle.params.staking.clone();
        // For the slots, for the reserve, and to play with.
        let bond = params.bond_per_slot.u128() * u128::from(serving.slots) + 100 * FUNC;
        self.sends(name, &staking, bond, &staking::ReceiveMsg::Bond {});
        let mut terms = staking::DeploymentTerms {
            model: model.parse().unwrap(),
            ..serving.terms()
        };
        // More than the least penalty, and no round number.
        terms.sla.penalty_bps = 7_777;
        self.sends(
            name,
            &staking,
            params.listing_fee.u128(),
            &staking::ReceiveMsg::Deploy { terms },
        );
    }

    fn sends(&mut self, name: &str, contract: &Addr, amount: u128, hook: &impl Serialize) {
        let send = Cw20ExecuteMsg::Send {
            contract: contract.to_string(),
            amount: amount.into(),
            msg: to_json_binary(hook).unwrap(),
        };
        self.must(name, Msg::Token(send));
    }

    pub(crate) fn addr(&self, name: &str) -> Addr {
        self.protocol.addr(name)
    }

    /// Time in seconds and height.
    pub(crate) fn clock(&self) -> (u64, u64) {
        (self.protocol.now(), self.protocol.height())
    }

    /// Bond behind slots with an item or a session. A forced request has the slots of its session, but for one that was missed.
    fn backing(&self, owner: &str) -> u128 {
        let oracle = &self.oracle;
        let items = self.hosts.live.iter();
        let items = items.filter(|(item, _)| oracle.jobs[&item.job].session.is_none());
        let items = items.flat_map(|(_, live)| live.spans.iter().map(|span| span.deployment));
        let sessions = oracle.sessions.values().flat_map(|session| session.open());
        let sessions = sessions.filter(|(_, part)| part.missed.is_none());
        let at_work = items.chain(sessions.map(|(deployment, _)| *deployment));
        let own = at_work.map(|deployment| &oracle.deployments[&deployment]);
        own.filter(|listed| listed.owner == owner)
            .map(|listed| listed.slot_bond)
            .sum()
    }

    /// What a provider may unbond now.
    pub(crate) fn free_bond(&self, owner: &str) -> u128 {
        self.oracle.free_bond(owner, self.backing(owner), self.protocol.now())
    }

    /// A message to the contract that it is for.
    pub(crate) fn act(&self, name: &str, msg: Msg) -> Act {
        Act {
            sender: self.addr(name),
            to: msg.contract(&self.oracle.contracts),
            msg,
        }
    }

    /// Performs a message that has to go through.
    pub(crate) fn must(&mut self, name: &str, msg: Msg) -> Vec<Event> {
        let act = self.act(name, msg);
        self.perform(&act).unwrap_or_else(|| panic!("{act:?} was refused"))
    }

    pub(crate) fn take(&mut self, step: &Step) {
        match step {
            Step::Act { kind, dice } => {
                let act = acts::build(self, *kind, &mut Dice::of(*dice));
                self.perform(&act);
            }
            Step::Pass { seconds } => self.passes(*seconds),
            Step::PassTo { date, offset } => {
                let dates = self.dates();
                if let Some(date) = dates.get(*date as usize % dates.len().max(1)) {
                    let until = (date + offset).saturating_sub(1);
                    self.passes(until.saturating_sub(self.protocol.now()));
                }
            }
            Step::Halt { seconds } => {
                let from = self.protocol.now();
                self.protocol.halts_for(*seconds);
                self.hosts.halted(from, self.protocol.now());
            }
        }
        self.the_awake_act();
    }

    /// Dates of items and of money that are still to come.
    fn dates(&self) -> Vec<u64> {
        let items = self.hosts.live.values();
        let items = items.flat_map(|live| [live.deadline, live.evidence_until]);
        let holds = self.oracle.holds.values().map(|hold| hold.expires_at);
        let sessions = self.oracle.sessions.values();
        let sessions = sessions.flat_map(|session| session.open().map(|(_, part)| session.date(part)));
        let bonds = self.oracle.stakes.values().flat_map(|stake| &stake.unbonding);
        let jails = self.oracle.conduct.values().filter_map(|conduct| conduct.jailed_until);
        let all = items
            .chain(holds)
            .chain(jails)
            .chain(sessions)
            .chain(bonds.map(|entry| entry.1));
        let kept = self.oracle.jobs.values().filter(|job| !job.pruned);
        let all = all.chain(kept.filter_map(|job| job.prunable_at()));
        let all = all.chain(self.oracle.codes.dates());
        let mut dates: Vec<u64> = all.filter(|date| *date >= self.protocol.now()).collect();
        dates.sort_unstable();
        dates
    }

    /// Time passes, and nobody who is awake sleeps through the moment at which he has to speak.
    pub(crate) fn passes(&mut self, seconds: u64) {
        let until = self.protocol.now() + seconds;
        while let Some(call) = self
            .hosts
            .next_call(&self.oracle, self.protocol.now())
            .filter(|call| *call <= until)
        {
            self.protocol.seconds_pass(call - self.protocol.now());
            self.the_awake_act();
        }
        self.protocol.seconds_pass(until - self.protocol.now());
    }

    /// Honest hosts and everybody's relayers do what they would do at once.
    fn the_awake_act(&mut self) {
        let attestations = self.hosts.attestations();
        if !attestations.is_empty() {
            // Somebody is always quicker, and lies.
            let attack = acts::front_run(self, &attestations);
            self.perform(&attack);
            let msg = orchestrator::ExecuteMsg::SubmitAttestations { attestations };
            self.must("relayer", Msg::Orchestrator(msg));
        }
        let attestations = self.hosts.a_second_too_late(&self.oracle, self.protocol.now());
        if !attestations.is_empty() {
            let msg = orchestrator::ExecuteMsg::SubmitAttestations { attestations };
            self.must("mallory", Msg::Orchestrator(msg));
        }
        for (item, attempt, links) in self.hosts.testimonies(self.clock()) {
            let msg = Msg::Orchestrator(orchestrator::ExecuteMsg::PostEvidence { item, attempt, links });
            self.must("relayer", msg.clone());
            // And once more, by somebody who has heard it.
            let echo = self.act("mallory", msg);
            self.perform(&echo);
        }
    }

    /// Sends a message and holds everything that it has led to against the laws. None: it was refused.
    pub(crate) fn perform(&mut self, act: &Act) -> Option<Vec<Event>> {
        let clock = self.clock();
        let free = self.free_bond(act.sender.as_str());
        let forecast = self.oracle.forecast(act, free, clock.0);
        let forecast = forecast.or_else(|| self.of_work(act));
        let items = self.items_of(act);
        let outcome = self.protocol.execute(&act.sender, &act.to, &act.msg);
        for name in act.msg.names(&self.oracle.contracts) {
            let count = self.census.entry(name).or_default();
            count.0 += 1;
            count.1 += u64::from(outcome.is_ok());
        }
        if let Some(forecast) = forecast {
            assert_eq!(
                outcome.is_ok(),
                forecast,
                "statements 3, 5 and 8: whether {act:?} goes through at {clock:?}: {outcome:?}"
            );
        }
        let events = outcome.ok();
        if let Some(events) = &events {
            self.judge_proofs(act, events, &items);
            self.oracle.follow(act, events, clock.0);
            self.hosts.follow(&self.protocol, events);
            if let Msg::Orchestrator(orchestrator::ExecuteMsg::PostEvidence { item, links, .. }) = &act.msg {
                self.hosts.told(*item, links);
            }
        }
        if let Some(before) = self.before.take() {
            let after = self.looks();
            before.assert_nobody_lost(after, act);
            before.assert_there_was_room(after);
            assert!(
                events.is_some() || before.timeless() == after.timeless(),
                "a refused message left a trace: {act:?}"
            );
        }
        events
    }

    /// Everything that there is, held against the laws.
    fn looks(&mut self) -> &Picture {
        let picture = Picture::of(&self.protocol);
        picture.assert_laws(self);
        self.before.insert(picture)
    }

    fn of_work(&self, act: &Act) -> Option<bool> {
        let Msg::Orchestrator(msg) = &act.msg else {
            return None;
        };
        match msg {
            orchestrator::ExecuteMsg::SubmitAttestations { attestations } => {
                Some((1..=schema::BATCH_MAX).contains(&attestations.len()))
            }
            orchestrator::ExecuteMsg::PostEvidence { item, attempt, links } => {
                Some(self.hosts.tells(*item, *attempt, links, self.clock()))
            }
            orchestrator::ExecuteMsg::Expire { item } => Some(self.hosts.expires(*item, self.clock())),
            _ => None,
        }
    }

    /// The items that attestations name, as they are.
    fn items_of(&self, act: &Act) -> BTreeMap<ItemId, orchestrator::ItemResponse> {
        let Msg::Orchestrator(orchestrator::ExecuteMsg::SubmitAttestations { attestations }) = &act.msg else {
            return BTreeMap::new();
        };
        let contract = &self.oracle.contracts.job_orchestrator;
        let mut items = BTreeMap::new();
        for attestation in attestations {
            let question = orchestrator::QueryMsg::Item { item: attestation.item };
            if let Ok(item) = self.protocol.try_ask(contract, &question) {
                items.insert(attestation.item, item);
            }
        }
        items
    }

    /// Each attestation is taken if and only if it is what the hosts of this attempt have signed, once and in time.
    fn judge_proofs(&mut self, act: &Act, events: &[Event], before: &BTreeMap<ItemId, orchestrator::ItemResponse>) {
        let Msg::Orchestrator(orchestrator::ExecuteMsg::SubmitAttestations { attestations }) = &act.msg else {
            return;
        };
        let told: Vec<bool> = fxn_tests::found(events, |event| match event {
            Event::Attested { .. } => Some(true),
            Event::AttestationRefused { .. } => Some(false),
            _ => None,
        });
        let mut proven = BTreeSet::new();
        let mut touched = BTreeSet::new();
        let mut expected = vec![];
        for attestation in attestations {
            let item = attestation.item;
            let taken = self.hosts.proves(&self.oracle, attestation, self.clock()) && proven.insert(item);
            if taken {
                touched.insert((item.job, item.shard));
                self.hosts.accepted.push(attestation.clone());
            }
            expected.push(taken);
        }
        assert_eq!(told, expected, "statement 5: what is proven, one by one: {act:?}");
        let untouched = before
            .iter()
            .filter(|(item, _)| !touched.contains(&(item.job, item.shard)));
        for (item, before) in untouched {
            assert_eq!(
                self.protocol.item(*item),
                *before,
                "statement 5: a refused attestation changed {item}"
            );
        }
    }
}
