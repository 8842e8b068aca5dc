//! What happens between hosts, off the chain, and what can therefore be proven.
//!
//! Honest hosts run what they are given and acknowledge what they get; the others do so when it suits them: they say nothing, take
//! the input and stall, make outputs up, or finish and keep it to themselves. What an item's hosts do follows from its attempt alone,
//! so everything that may be proven of it is known when it is assigned, and so is whom the contract has to blame.

use std::collections::BTreeMap;

use fxn_tests::{Protocol, Work};
use schema::{
    orchestrator::Blame,
    receipt::{Attestation, Link},
    staking::Span,
    Digest, Event, ItemId, BATCH_MAX,
};

use super::oracle::Oracle;

/// Owners whose hosts always answer and whose relayers are always awake.
pub(crate) const HONEST: [&str; 4] = ["anna", "bert", "cora", "gus"];
/// `block_seconds_max` of the local profile.
const SECONDS_PER_BLOCK: u64 = 1;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mood {
    Works,
    /// Never takes the input.
    Silent,
    /// Takes the input and does nothing.
    Stalls,
    /// Works, and makes the output up.
    Lies,
    /// Works, and tells nobody on the chain.
    Withholds,
}

/// The current attempt of an item that holds slots.
#[derive(Debug)]
pub(crate) struct Live {
    pub(crate) attempt: u8,
    pub(crate) spans: Vec<Span>,
    pub(crate) deadline: u64,
    pub(crate) evidence_until: u64,
    assigned: (u64, u64),
    /// Proven, waiting for the other replicas.
    pub(crate) attested: bool,
    /// Everything that was ever signed about it, in order.
    pub(crate) run: Vec<Link>,
    /// By span: an honest owner.
    honest: Vec<bool>,
    withheld: bool,
    /// What the contract knows: links and whether the last is acknowledged.
    known: (usize, bool),
}

impl Live {
    fn is_complete(&self) -> bool {
        self.run.len() == self.spans.len()
    }

    fn is_past(&self, date: u64, (now, height): (u64, u64)) -> bool {
        let required = date.saturating_sub(self.assigned.0).div_ceil(SECONDS_PER_BLOCK);
        now > date && height - self.assigned.1 >= required
    }

    /// What the honest host with most to tell would post.
    fn testimony(&self) -> &[Link] {
        let told = (0..self.run.len()).rev().find(|span| self.honest[*span]);
        &self.run[..told.map_or(0, |span| span + 1)]
    }
}

fn weight(links: &[Link]) -> (usize, bool) {
    let acknowledged = links.last().is_some_and(|link| link.acknowledgement.is_some());
    (links.len(), acknowledged)
}

#[derive(Debug)]
pub(crate) struct Hosts {
    pub(crate) live: BTreeMap<ItemId, Live>,
    /// Attestations that were accepted, to be sent again.
    pub(crate) accepted: Vec<Attestation>,
    /// Times in which the chain stood still.
    halts: Vec<(u64, u64)>,
}

impl Hosts {
    pub(crate) fn new() -> Self {
        Self {
            live: BTreeMap::new(),
            accepted: vec![],
            halts: vec![],
        }
    }

    pub(crate) fn halted(&mut self, from: u64, until: u64) {
        self.halts.push((from, until));
    }

    /// Items that a chain is at work on, newest first.
    pub(crate) fn open(&self) -> Vec<ItemId> {
        let open = self.live.iter().rev().filter(|(_, live)| !live.attested);
        open.map(|(item, _)| *item).collect()
    }

    /// Replicas that are paid say the same, and none of their shard is still at work.
    fn assert_agreement(&self, events: &[Event], now_proven: &[ItemId]) {
        let paid: Vec<ItemId> = fxn_tests::found(events, |event| match event {
            Event::Settled { item, .. } => Some(*item),
            _ => None,
        });
        let missed = fxn_tests::found(events, |event| match event {
            Event::ItemMissed { item, .. } | Event::ItemLinkFault { item, .. } => Some(*item),
            _ => None,
        });
        let siblings = |item: &ItemId| (item.job, item.shard);
        let said = |item: &ItemId| {
            let last = &self.live[item]
                .run
                .last()
                .expect("what is proven was signed")
                .receipt
                .receipt;
            (last.output_digest, last.units_in, last.units_out)
        };
        for item in &paid {
            for (other, live) in self.live.iter().filter(|(other, _)| siblings(other) == siblings(item)) {
                let at_work = !live.attested && !now_proven.contains(other) && !missed.contains(other);
                assert!(!at_work, "statement 5: {item} was paid while {other} is at work");
                assert!(
                    missed.contains(other) || said(other) == said(item),
                    "statement 5: {item} was paid although {other} says otherwise"
                );
            }
        }
    }

    /// Follows what a message has led to, and holds the contract's judgement against what really happened.
    pub(crate) fn follow(&mut self, protocol: &Protocol, events: &[Event]) {
        let now_proven = fxn_tests::found(events, |event| match event {
            Event::Attested { item, .. } => Some(*item),
            _ => None,
        });
        self.assert_agreement(events, &now_proven);
        for event in events {
            match event {
                Event::JobAssigned { item, .. } => {
                    self.live.insert(*item, live(protocol, *item));
                }
                Event::Attested { item, .. } => {
                    self.live.get_mut(item).expect("only live items are proven").attested = true;
                }
                Event::ItemMissed { item, deployment, .. } => {
                    let blamed = Blame::Miss {
                        deployment: *deployment,
                        penalty_price: Default::default(),
                    };
                    self.judge(*item, blamed);
                }
                Event::ItemLinkFault {
                    item, sender, receiver, ..
                } => {
                    let blamed = Blame::LinkFault {
                        sender: *sender,
                        receiver: *receiver,
                    };
                    self.judge(*item, blamed);
                }
                Event::ItemDiffers { item, .. } | Event::ItemFailed { item, .. } | Event::Settled { item, .. } => {
                    self.live.remove(item);
                }
                _ => {}
            }
        }
    }

    fn judge(&mut self, item: ItemId, blamed: Blame) {
        let live = self.live.remove(&item).expect("only live items are blamed");
        let expected = live.blame();
        assert_eq!(
            blamed, expected,
            "statement 5: {item} is blamed by the evidence that was taken"
        );
        let Blame::Miss { deployment, .. } = expected else {
            return;
        };
        let culprit = live
            .spans
            .iter()
            .position(|span| span.deployment == deployment)
            .unwrap();
        let swallowed = |halt: &(u64, u64)| halt.0 <= live.evidence_until && halt.1 > live.deadline;
        // A halt may swallow a whole evidence window after enough blocks: the README of the orchestrator says so.
        assert!(
            !live.honest[culprit] || self.halts.iter().any(swallowed),
            "statement 10: {} did its part of {item} and was blamed",
            live.spans[culprit].provider
        );
    }

    /// Whether this attestation proves its item now.
    pub(crate) fn proves(&self, oracle: &Oracle, attestation: &Attestation, clock: (u64, u64)) -> bool {
        let Some(live) = self.live.get(&attestation.item) else {
            return false;
        };
        let latest = latest(oracle, attestation.item, live);
        !live.attested
            && live.attempt == attestation.attempt
            && live.is_complete()
            && live.run == attestation.links
            && !live.is_past(latest, clock)
    }

    /// Whether links say something new and true about an item, at a time when evidence is taken.
    pub(crate) fn tells(&self, item: ItemId, attempt: u8, links: &[Link], clock: (u64, u64)) -> bool {
        let Some(live) = self.live.get(&item) else {
            return false;
        };
        let in_time = clock.0 > live.deadline && !live.is_past(live.evidence_until, clock);
        let is_prefix = !links.is_empty() && links.len() <= live.run.len();
        let same = |(index, (told, signed)): (usize, (&Link, &Link))| {
            let unacknowledged = index + 1 == links.len() && told.acknowledgement.is_none();
            told.receipt == signed.receipt && (unacknowledged || told.acknowledgement == signed.acknowledgement)
        };
        let true_ones = links.iter().zip(&live.run).enumerate().all(same);
        let new = weight(links) > live.known;
        !live.attested && live.attempt == attempt && in_time && is_prefix && true_ones && new
    }

    pub(crate) fn told(&mut self, item: ItemId, links: &[Link]) {
        self.live.get_mut(&item).unwrap().known = weight(links);
    }

    pub(crate) fn expires(&self, item: ItemId, clock: (u64, u64)) -> bool {
        let live = self.live.get(&item);
        live.is_some_and(|live| !live.attested && live.is_past(live.evidence_until, clock))
    }

    /// What awake relayers send now: complete chains, unless their last host keeps them.
    pub(crate) fn attestations(&self) -> Vec<Attestation> {
        let ready = self
            .live
            .iter()
            .filter(|(_, live)| !live.attested && live.is_complete() && !live.withheld);
        ready.map(attestation).take(BATCH_MAX).collect()
    }

    /// What honest hosts can prove of overdue items, and have not.
    pub(crate) fn testimonies(&self, clock: (u64, u64)) -> Vec<(ItemId, u8, Vec<Link>)> {
        let mut told = vec![];
        for (item, live) in &self.live {
            let links = live.testimony();
            if self.tells(*item, live.attempt, links, clock) {
                told.push((*item, live.attempt, links.to_vec()));
            }
        }
        told
    }

    /// What was kept back until it is worth nothing: the second after the last one in which it would have been taken.
    pub(crate) fn a_second_too_late(&self, oracle: &Oracle, now: u64) -> Vec<Attestation> {
        let late = |(item, live): &(&ItemId, &Live)| {
            live.withheld && !live.attested && now == latest(oracle, **item, live) + 1
        };
        let late = self.live.iter().filter(late);
        late.map(attestation).take(BATCH_MAX).collect()
    }

    /// The next time at which somebody has something to say.
    pub(crate) fn next_call(&self, oracle: &Oracle, now: u64) -> Option<u64> {
        let waiting = self.live.iter().filter(|(_, live)| !live.attested);
        let calls = waiting.flat_map(|(item, live)| [live.deadline + 1, latest(oracle, *item, live) + 1]);
        calls.filter(|call| *call > now).min()
    }
}

/// The last second in which an attestation is taken.
fn latest(oracle: &Oracle, item: ItemId, live: &Live) -> u64 {
    live.deadline + oracle.jobs[&item.job].grace_seconds
}

fn attestation((item, live): (&ItemId, &Live)) -> Attestation {
    Attestation {
        item: *item,
        attempt: live.attempt,
        links: live.run.clone(),
    }
}

impl Live {
    /// By the table of the protocol.
    fn blame(&self) -> Blame {
        let miss = |span: &Span| Blame::Miss {
            deployment: span.deployment,
            penalty_price: Default::default(),
        };
        match self.known {
            (0, _) => miss(&self.spans[0]),
            (links, _) if links == self.spans.len() => miss(&self.spans[links - 1]),
            (links, true) => miss(&self.spans[links]),
            (links, false) => Blame::LinkFault {
                sender: self.spans[links - 1].deployment,
                receiver: self.spans[links].deployment,
            },
        }
    }
}

fn live(protocol: &Protocol, id: ItemId) -> Live {
    let item = protocol.item(id);
    let job = protocol.job(id.job);
    let honest: Vec<bool> = item
        .spans
        .iter()
        .map(|span| HONEST.iter().any(|name| protocol.addr(name).as_str() == span.provider))
        .collect();
    let moods: Vec<Mood> = item
        .spans
        .iter()
        .zip(&honest)
        .map(|(span, honest)| {
            if *honest {
                Mood::Works
            } else {
                mood(id, item.attempt, span)
            }
        })
        .collect();
    let draw = dice(&format!("units {} {}", id.job, id.shard));
    let liar = moods.iter().position(|mood| *mood == Mood::Lies);
    let is_text = job.model.as_str() == super::world::GENERATOR && job.session.is_none();
    let work = Work {
        units_in: draw % (job.units_max + 1),
        units_out: if is_text { (draw >> 20) % (job.units_max + 1) } else { 0 },
        lie: liar.map(|span| (item.spans[span].first, item.spans[span].deployment)),
    };
    let mut run = protocol.links(id, work);
    if let Some(dead) = moods
        .iter()
        .position(|mood| matches!(mood, Mood::Silent | Mood::Stalls))
    {
        run.truncate(dead);
        if let (Some(last), Mood::Silent) = (run.last_mut(), moods[dead]) {
            last.acknowledgement = None;
        }
    }
    let assigned = (item.assigned_at, protocol.height());
    Live {
        attempt: item.attempt,
        deadline: item.deadline,
        evidence_until: item.evidence_until,
        assigned,
        attested: false,
        run,
        withheld: moods.last() == Some(&Mood::Withholds),
        honest,
        spans: item.spans,
        known: (0, false),
    }
}

fn mood(item: ItemId, attempt: u8, span: &Span) -> Mood {
    match dice(&format!("mood {item} {attempt} {}", span.deployment)) % 10 {
        0 => Mood::Silent,
        1 => Mood::Stalls,
        2 => Mood::Lies,
        3 => Mood::Withholds,
        _ => Mood::Works,
    }
}

fn dice(of: &str) -> u64 {
    let digest = Digest::of(of.as_bytes());
    u64::from_be_bytes(digest.0[..8].try_into().unwrap())
}
