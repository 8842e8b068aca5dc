//! The draw: which deployments get which items.
//!
//! A chain covers all stages of a version, one deployment for each run of stages. For every chain:
//! 1. From each start stage the 16 cheapest that could do it are taken. Those that cannot are stepped over (at most 96 are looked
//!    at), so that a crowd of unfit cheap deployments does not hide the fit.
//! 2. Backwards over the stages, the cheapest way from each to the end is found; what cannot be completed inside the price is dropped.
//! 3. Forwards, the seed chooses among those with which the chain can still be completed, in proportion to free slots and reliability:
//!    a deployment with n link faults inside their window weighs free slots / (1 + n).
//! 4. Neighbours whose link has failed lately are not paired: that is looked up for the chosen chain only, and where there are such,
//!    it is drawn again without those pairs, at most 4 times. Then there is none.
//!
//! Guarantees:
//! - Every chain is feasible: slots, bond, price, time, units, exclusions, owners and class, chains drawn before in the same request
//!   included. No deployment of a chain carries an item that costs more than its slot is backed with, and none whose provider's bond
//!   is full with what was settled lately.
//! - A request for one chain is answered whenever there is one among the candidates, as long as no more than 4 pairs are cooling: where
//!   the forward choice meets a dead end that the prices did not foretell, it steps back.
//! - After a link fault a chain of one provider is drawn wherever there is one among the candidates, if the request prefers it.
//! - Replicas of a shard share a class and no owner. They are drawn one after the other, with up to 8 seeds before there is "none";
//!   the later seeds keep to one owner where they can, which leaves most owners to the other replicas.
//! - Cost: a request has at most 64 spans. Each start stage of each class is read once, at most 96 listings; each chain compares at
//!   most 16 x 16 pairs for each start stage and is drawn at most 5 times; there are at most 8 seeds, 8 classes and three rounds (of one
//!   owner, without and with what should be avoided) for a shard.
//!
//! Random numbers are sha256(seed, shard, replica, attempt, stage, counter): whoever knows the seed can check the draw, and whoever
//! chooses it chooses the outcome.

use std::collections::{BTreeMap, BTreeSet};

use cosmwasm_schema::cw_serde;
use cosmwasm_std::{Addr, Uint128};
use schema::{
    price::{Ask, SpanPrice},
    staking::{DrawRequest, DrawShard, Sla},
    BPS, STAGES_MAX,
};
use thiserror::Error;

use self::walk::Walk;
use crate::{deployment::CLASS_BYTES_MAX, rolling::Rolling};

/// Candidates of one start stage.
pub(crate) const CANDIDATES_MAX: usize = 16;
/// Listings looked at for them: those of a provider with all its deployments at one stage, three times.
pub(crate) const SCANNED_MAX: usize = 96;
pub(crate) const CLASSES_MAX: usize = 8;
/// As many spans as a job may have at once.
const SPANS_MAX: usize = 64;
const REPLICAS_MAX: u8 = 3;
/// Seeds tried for the replicas of a shard.
const ATTEMPTS_MAX: u8 = 8;
/// Draws of a chain after one with neighbours that must not be paired.
const RETRIES_MAX: usize = 4;
/// Weight of a free slot of a deployment without a link fault: divisible by one more than any number of them that matters.
const WEIGHT: u128 = 720_720;

/// A deployment that can take an item now.
#[cw_serde]
pub(crate) struct Listing {
    pub(crate) deployment: u64,
    pub(crate) owner: Addr,
    pub(crate) first: u8,
    pub(crate) last: u8,
    pub(crate) free_slots: u16,
    pub(crate) ask: Ask,
    pub(crate) sla: Sla,
    pub(crate) slot_bond: Uint128,
    /// Before this moment the bond is full with what was settled lately.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(crate) ready_at: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) faults: Option<Rolling>,
}

fn is_zero(moment: &u64) -> bool {
    *moment == 0
}

impl Listing {
    /// What a free slot weighs at this moment.
    fn reliability(&self, now: u64) -> u128 {
        let faults = self.faults.map(|faults| faults.at(now).u128()).unwrap_or_default();
        WEIGHT.checked_div(faults.saturating_add(1)).unwrap_or(WEIGHT).max(1)
    }
}

/// The market as the draw sees it.
pub(crate) trait Market {
    type Error;
    /// The moment of the draw.
    fn now(&self) -> u64;
    /// Classes with any listing, those with most first.
    fn classes(&mut self) -> Result<Vec<String>, Self::Error>;
    /// The `nth` cheapest listing that starts at `first`, counted from 0.
    fn nth(&mut self, class: &str, first: u8, nth: usize) -> Result<Option<Listing>, Self::Error>;
    /// Bond of an owner that further work may be taken on.
    fn headroom(&mut self, owner: &Addr) -> Result<Uint128, Self::Error>;
    /// Whether the link between these two has failed lately.
    fn is_cooling(&mut self, sender: u64, receiver: u64) -> Result<bool, Self::Error>;
}

/// A request that no answer can be right for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum DrawError {
    #[error("a version has 1 to {max} stages, found {found}")]
    WrongStages { found: usize, max: usize },
    #[error("compute shares sum to {sum} bps, not 10000")]
    WrongShares { sum: u32 },
    #[error("a shard has 1 to {max} replicas, found {found}")]
    WrongReplicas { found: u8, max: u8 },
    #[error("an engine class has 1 to {max} bytes, found {found}")]
    WrongClass { found: usize, max: usize },
    #[error("{found} spans asked for, at most {max} are drawn at once")]
    TooManySpans { found: usize, max: usize },
}

#[derive(Debug, Clone)]
pub(crate) struct DrawnChain {
    pub(crate) engine_class: String,
    pub(crate) spans: Vec<DrawnSpan>,
}

#[derive(Debug, Clone)]
pub(crate) struct DrawnSpan {
    pub(crate) listing: Listing,
    pub(crate) compute_share_bps: u16,
    pub(crate) price: SpanPrice,
}

pub(crate) fn check(request: &DrawRequest) -> Result<(), DrawError> {
    let stages = request.compute_shares.len();
    if !(1..=STAGES_MAX).contains(&stages) {
        let max = STAGES_MAX;
        return Err(DrawError::WrongStages { found: stages, max });
    }
    let sum = request.compute_shares.iter().map(|share| u32::from(*share)).sum();
    if sum != u32::from(BPS) {
        return Err(DrawError::WrongShares { sum });
    }
    check_class(request.engine_class.as_deref())?;
    let mut spans = 0usize;
    for shard in &request.shards {
        check_class(shard.engine_class.as_deref())?;
        let (found, max) = (shard.replicas, REPLICAS_MAX);
        if !(1..=max).contains(&found) {
            return Err(DrawError::WrongReplicas { found, max });
        }
        spans = spans.saturating_add(stages.saturating_mul(found.into()));
    }
    if spans > SPANS_MAX {
        let max = SPANS_MAX;
        return Err(DrawError::TooManySpans { found: spans, max });
    }
    Ok(())
}

/// A longer class cannot even be looked up: it is part of a key.
fn check_class(class: Option<&str>) -> Result<(), DrawError> {
    let (found, max) = (class.map_or(1, str::len), CLASS_BYTES_MAX);
    if (1..=max).contains(&found) {
        return Ok(());
    }
    Err(DrawError::WrongClass { found, max })
}

/// Chains for all replicas of all shards, or None where there is no supply for one of them. The request has passed [`check`].
pub(crate) fn draw<M: Market>(market: &mut M, request: &DrawRequest) -> Result<Option<Vec<DrawnChain>>, M::Error> {
    let mut used = Used::default();
    let mut drawn = vec![];
    for (number, shard) in request.shards.iter().enumerate() {
        match draw_shard(market, request, number, shard, &mut used)? {
            Some(chains) => drawn.extend(chains),
            None => return Ok(None),
        }
    }
    Ok(Some(drawn))
}

/// What chains drawn before in this request have taken.
#[derive(Debug, Clone, Default)]
struct Used {
    slots: BTreeMap<u64, u16>,
    bond: BTreeMap<Addr, Uint128>,
}

impl Used {
    fn slots(&self, deployment: u64) -> u16 {
        self.slots.get(&deployment).copied().unwrap_or_default()
    }

    fn bond(&self, owner: &Addr) -> Uint128 {
        self.bond.get(owner).copied().unwrap_or_default()
    }

    fn add(&mut self, chain: &DrawnChain) {
        for DrawnSpan { listing, .. } in &chain.spans {
            let slots = self.slots.entry(listing.deployment).or_default();
            *slots = slots.saturating_add(1);
            let bond = self.bond.entry(listing.owner.clone()).or_default();
            *bond = bond.saturating_add(listing.slot_bond);
        }
    }
}

fn draw_shard<M: Market>(
    market: &mut M,
    request: &DrawRequest,
    number: usize,
    shard: &DrawShard,
    used: &mut Used,
) -> Result<Option<Vec<DrawnChain>>, M::Error> {
    let classes = classes(market, request, number, shard)?;
    for round in Round::of(shard) {
        for class in &classes {
            let mut task = Task::new(request, number, shard, class, round);
            for attempt in 0..ATTEMPTS_MAX {
                let mut drawn = vec![];
                let mut used_then = used.clone();
                draw_replicas(market, &mut task, attempt, &mut used_then, &mut drawn)?;
                if drawn.len() == usize::from(shard.replicas) {
                    *used = used_then;
                    return Ok(Some(drawn));
                }
                if drawn.is_empty() {
                    // There is not even a first chain, and that does not depend on the seed.
                    break;
                }
            }
        }
    }
    Ok(None)
}

/// How much is asked of the chains of a shard: most first.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Round {
    OneOwner,
    WithoutAvoided,
    WithAvoided,
}

impl Round {
    fn of(shard: &DrawShard) -> impl Iterator<Item = Self> {
        let one_owner = shard.prefer_one_owner.then_some(Self::OneOwner);
        let with_avoided = (!shard.avoid.is_empty()).then_some(Self::WithAvoided);
        one_owner.into_iter().chain([Self::WithoutAvoided]).chain(with_avoided)
    }
}

/// The classes to try for a shard. Each shard begins with another one, so that unlike hardware shares a job.
fn classes<M: Market>(
    market: &mut M,
    request: &DrawRequest,
    number: usize,
    shard: &DrawShard,
) -> Result<Vec<String>, M::Error> {
    if let Some(class) = shard.engine_class.as_ref().or(request.engine_class.as_ref()) {
        return Ok(vec![class.clone()]);
    }
    let mut classes = market.classes()?;
    classes.truncate(CLASSES_MAX);
    let turn = number.checked_rem(classes.len()).unwrap_or_default();
    classes.rotate_left(turn);
    Ok(classes)
}

/// Draws replica after replica into `drawn`, and stops at the first for which there is no chain.
fn draw_replicas<M: Market>(
    market: &mut M,
    task: &mut Task<'_>,
    attempt: u8,
    used: &mut Used,
    drawn: &mut Vec<DrawnChain>,
) -> Result<(), M::Error> {
    let mut owners: BTreeSet<String> = task.shard.taken_owners.iter().cloned().collect();
    for replica in 0..task.shard.replicas {
        let open = candidates(market, task, used, &owners)?;
        let Some(chain) = draw_chain(market, task, (replica, attempt), used, open)? else {
            break;
        };
        used.add(&chain);
        owners.extend(chain.spans.iter().map(|span| span.listing.owner.to_string()));
        drawn.push(chain);
    }
    Ok(())
}

/// One chain. Where neighbours of it must not be paired, it is drawn again without them.
// Not a part of its caller: a chain allows a function 100 variables.
#[inline(never)]
fn draw_chain<M: Market>(
    market: &mut M,
    task: &mut Task<'_>,
    (replica, attempt): (u8, u8),
    used: &Used,
    open: Vec<Vec<Choice>>,
) -> Result<Option<DrawnChain>, M::Error> {
    for _ in 0..=RETRIES_MAX {
        let stages = complete(task, open.clone());
        let spare = spare_bond(market, &stages, used)?;
        let mut walk = Walk::new(task, &stages, &spare, (replica, attempt));
        if !walk.finish(0, 0, task.request.item_price_max.u128()) {
            return Ok(None);
        }
        let spans: Vec<DrawnSpan> = walk.path().iter().map(|choice| choice.span.clone()).collect();
        if !exclude_cooling(market, task, &spans)? {
            return Ok(Some(DrawnChain {
                engine_class: task.class.to_owned(),
                spans,
            }));
        }
    }
    Ok(None)
}

/// Whether there are neighbours whose link has failed lately. They are not paired again in this draw of a shard.
fn exclude_cooling<M: Market>(market: &mut M, task: &mut Task<'_>, spans: &[DrawnSpan]) -> Result<bool, M::Error> {
    let mut found = false;
    for (sender, receiver) in spans.iter().zip(spans.iter().skip(1)) {
        let pair = (sender.listing.deployment, receiver.listing.deployment);
        if market.is_cooling(pair.0, pair.1)? {
            task.excluded_pairs.insert(pair);
            found = true;
        }
    }
    Ok(found)
}

/// What is asked of every chain of a shard.
struct Task<'a> {
    request: &'a DrawRequest,
    number: usize,
    shard: &'a DrawShard,
    class: &'a str,
    round: Round,
    excluded: BTreeSet<u64>,
    /// Neighbours, sender first, that were found to be cooling.
    excluded_pairs: BTreeSet<(u64, u64)>,
}

impl<'a> Task<'a> {
    fn new(request: &'a DrawRequest, number: usize, shard: &'a DrawShard, class: &'a str, round: Round) -> Self {
        let avoided: &[u64] = match round {
            Round::WithAvoided => &[],
            Round::OneOwner | Round::WithoutAvoided => &shard.avoid,
        };
        Self {
            request,
            number,
            shard,
            class,
            round,
            excluded: shard.exclude.iter().chain(avoided).copied().collect(),
            excluded_pairs: BTreeSet::new(),
        }
    }

    fn stages(&self) -> usize {
        self.request.compute_shares.len()
    }

    fn may_pair(&self, sender: &Choice, receiver: &Choice) -> bool {
        let (sender, receiver) = (&sender.span.listing, &receiver.span.listing);
        let pair = (sender.deployment, receiver.deployment);
        let fits = self.round != Round::OneOwner || sender.owner == receiver.owner;
        fits && !self.excluded_pairs.contains(&pair)
    }

    /// The span that a listing would be, if it can do it at all.
    fn span(&self, listing: Listing) -> Option<DrawnSpan> {
        let stages = usize::from(listing.first)..=usize::from(listing.last);
        let shares = self.request.compute_shares.get(stages)?;
        let compute_share_bps = shares.iter().copied().fold(0, u16::saturating_add);
        let units = self.shard.units;
        let total = units.total().ok()?;
        if total > listing.sla.units_max {
            return None;
        }
        if let Some(seconds_max) = self.request.seconds_max {
            let part = u128::from(seconds_max)
                .saturating_mul(compute_share_bps.into())
                .div_ceil(BPS.into());
            if u128::from(listing.sla.seconds(total)) > part {
                return None;
            }
        }
        let (royalty, gateway_bps) = (&self.request.royalty, self.request.gateway_bps);
        let price = SpanPrice::of(&listing.ask, royalty, gateway_bps, compute_share_bps, units).ok()?;
        Some(DrawnSpan {
            listing,
            compute_share_bps,
            price,
        })
    }
}

/// A span that a chain may have.
#[derive(Debug, Clone)]
struct Choice {
    span: DrawnSpan,
    price: u128,
    /// Price of the cheapest way to the end that begins with this span. Its own price at first.
    through: u128,
    /// Free slots, less for each link fault.
    weight: u128,
}

impl Choice {
    fn next_stage(&self) -> usize {
        usize::from(self.span.listing.last).saturating_add(1)
    }

    fn slot_bond(&self) -> u128 {
        self.span.listing.slot_bond.u128()
    }
}

/// The cheapest listings of each start stage that could be part of a chain.
fn candidates<M: Market>(
    market: &mut M,
    task: &Task<'_>,
    used: &Used,
    owners: &BTreeSet<String>,
) -> Result<Vec<Vec<Choice>>, M::Error> {
    let mut stages = vec![];
    for stage in 0..task.stages() {
        // There are at most 32 stages.
        let first = u8::try_from(stage).unwrap_or(u8::MAX);
        let mut choices = vec![];
        for nth in 0..SCANNED_MAX {
            let Some(listing) = market.nth(task.class, first, nth)? else {
                break;
            };
            choices.extend(candidate(market, task, used, owners, listing)?);
            if choices.len() == CANDIDATES_MAX {
                break;
            }
        }
        stages.push(choices);
    }
    Ok(stages)
}

fn candidate<M: Market>(
    market: &mut M,
    task: &Task<'_>,
    used: &Used,
    owners: &BTreeSet<String>,
    listing: Listing,
) -> Result<Option<Choice>, M::Error> {
    let free_slots = listing.free_slots.saturating_sub(used.slots(listing.deployment));
    if free_slots == 0
        || listing.ready_at > market.now()
        || task.excluded.contains(&listing.deployment)
        || owners.contains(listing.owner.as_str())
    {
        return Ok(None);
    }
    let weight = u128::from(free_slots).saturating_mul(listing.reliability(market.now()));
    // Whoever is listed and ready has headroom for one slot; more than that matters only after a first.
    let bond = used.bond(&listing.owner);
    if !bond.is_zero() && market.headroom(&listing.owner)? < bond.saturating_add(listing.slot_bond) {
        return Ok(None);
    }
    let limit = task.request.item_price_max.min(listing.slot_bond);
    let Some(span) = task.span(listing) else {
        return Ok(None);
    };
    let Ok(price) = span.price.total() else {
        return Ok(None);
    };
    let price = price.u128();
    Ok((price <= limit.u128()).then_some(Choice {
        span,
        price,
        through: price,
        weight,
    }))
}

/// Walks the stages backwards, and keeps what can be completed inside the price and inside its own slot's bond.
fn complete(task: &Task<'_>, mut stages: Vec<Vec<Choice>>) -> Vec<Vec<Choice>> {
    let limit = task.request.item_price_max.u128();
    let mut done: Vec<Vec<Choice>> = vec![vec![]; stages.len()];
    while let Some(choices) = stages.pop() {
        let mut kept = vec![];
        for mut choice in choices {
            let next = choice.next_stage();
            let rest = if next == task.stages() {
                Some(0)
            } else {
                let followers = done.get(next).into_iter().flatten();
                let followers = followers.filter(|follower| task.may_pair(&choice, follower));
                followers.map(|follower| follower.through).min()
            };
            choice.through = match rest {
                Some(rest) => choice.price.saturating_add(rest),
                None => continue,
            };
            if choice.through <= limit.min(choice.slot_bond()) {
                kept.push(choice);
            }
        }
        if let Some(place) = done.get_mut(stages.len()) {
            *place = kept;
        }
    }
    done
}

/// Headroom of the owners that could be twice in a chain. The others need no more than the listing promises.
fn spare_bond<M: Market>(
    market: &mut M,
    stages: &[Vec<Choice>],
    used: &Used,
) -> Result<BTreeMap<Addr, Uint128>, M::Error> {
    let mut seen = BTreeSet::new();
    let mut spare = BTreeMap::new();
    for choice in stages.iter().flatten() {
        let owner = &choice.span.listing.owner;
        if !seen.insert(owner) && !spare.contains_key(owner) {
            let headroom = market.headroom(owner)?.saturating_sub(used.bond(owner));
            spare.insert(owner.clone(), headroom);
        }
    }
    Ok(spare)
}

#[cfg(test)]
mod stalls;
#[cfg(test)]
mod tests;
mod walk;
