//! A market in memory for the tests, and what an answer of the draw must be, said without the machinery that draws it.
#![allow(
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    reason = "small numbers, and a failed expectation is the message"
)]

use std::convert::Infallible;

use schema::{
    price::{RoyaltyRate, Units},
    Digest,
};

use super::*;

/// A market in memory, that counts what is read of it.
#[derive(Debug, Clone, Default)]
pub(super) struct Stalls {
    pub(super) listings: Vec<(String, Listing)>,
    pub(super) headroom: BTreeMap<String, u128>,
    pub(super) reads: BTreeMap<(String, u8), usize>,
    pub(super) now: u64,
    pub(super) cooling: BTreeSet<(u64, u64)>,
}

impl Stalls {
    pub(super) fn add(
        &mut self,
        class: &str,
        owner: &str,
        first: u8,
        last: u8,
        price: u128,
        slots: u16,
    ) -> &mut Listing {
        let deployment = self.listings.len() as u64 + 1;
        let listing = Listing {
            deployment,
            owner: Addr::unchecked(owner),
            first,
            last,
            free_slots: slots,
            ask: Ask {
                per_1k_in: 0u128.into(),
                per_1k_out: 0u128.into(),
                per_request: price.into(),
            },
            sla: Sla {
                base_seconds: 1,
                seconds_per_1k_units: 0,
                units_max: 100,
                penalty_bps: 1_000,
            },
            slot_bond: 1_000u128.into(),
            ready_at: 0,
            faults: None,
        };
        self.listings.push((class.to_owned(), listing));
        &mut self.listings.last_mut().unwrap().1
    }

    pub(super) fn get(&self, deployment: u64) -> &(String, Listing) {
        &self.listings[deployment as usize - 1]
    }

    pub(super) fn headroom(&self, owner: &str) -> u128 {
        self.headroom.get(owner).copied().unwrap_or(u128::MAX)
    }

    pub(super) fn draw(&mut self, request: &DrawRequest) -> Option<Vec<DrawnChain>> {
        check(request).unwrap();
        draw(self, request).unwrap()
    }

    /// Deployments of the chains drawn.
    pub(super) fn numbers(&mut self, request: &DrawRequest) -> Option<Vec<Vec<u64>>> {
        let chains = self.draw(request)?;
        Some(chains.iter().map(numbers_of).collect())
    }
}

pub(super) fn numbers_of(chain: &DrawnChain) -> Vec<u64> {
    chain.spans.iter().map(|span| span.listing.deployment).collect()
}

impl Market for Stalls {
    type Error = Infallible;

    fn now(&self) -> u64 {
        self.now
    }

    fn classes(&mut self) -> Result<Vec<String>, Infallible> {
        let mut counts = BTreeMap::<String, usize>::new();
        for (class, _) in &self.listings {
            *counts.entry(class.clone()).or_default() += 1;
        }
        let mut classes: Vec<_> = counts.into_iter().collect();
        classes.sort_by_key(|(class, count)| (usize::MAX - count, class.clone()));
        Ok(classes.into_iter().map(|(class, _)| class).collect())
    }

    fn nth(&mut self, class: &str, first: u8, nth: usize) -> Result<Option<Listing>, Infallible> {
        let reads = self.reads.entry((class.to_owned(), first)).or_default();
        *reads = (*reads).max(nth + 1);
        let here = self
            .listings
            .iter()
            .filter(|(found, listing)| found == class && listing.first == first);
        let mut here: Vec<_> = here.map(|(_, listing)| listing.clone()).collect();
        here.sort_by_key(|listing| (listing.ask.per_request, listing.deployment));
        Ok(here.get(nth).cloned())
    }

    fn headroom(&mut self, owner: &Addr) -> Result<Uint128, Infallible> {
        Ok(Stalls::headroom(self, owner.as_str()).into())
    }

    fn is_cooling(&mut self, sender: u64, receiver: u64) -> Result<bool, Infallible> {
        Ok(self.cooling.contains(&(sender, receiver)))
    }
}

pub(super) fn shard(replicas: u8) -> DrawShard {
    DrawShard {
        units: Units {
            requests: 1,
            units_in: 10,
            units_out: 0,
        },
        replicas,
        ..DrawShard::default()
    }
}

pub(super) fn request(stages: usize, seed: u64, shards: Vec<DrawShard>) -> DrawRequest {
    let mut compute_shares = vec![1_000; stages];
    compute_shares[0] = 10_000 - 1_000 * (stages as u16 - 1);
    DrawRequest {
        model: "demo/base".parse().unwrap(),
        version: 1,
        engine_class: None,
        compute_shares,
        royalty: RoyaltyRate {
            royalty_bps: 0,
            royalty_per_1k_units: 0u128.into(),
        },
        gateway_bps: 0,
        seed: Digest::of(&seed.to_be_bytes()),
        item_price_max: 1_000u128.into(),
        seconds_max: None,
        shards,
    }
}

/// Everything that a drawn answer must be, said without the machinery that draws it.
pub(super) fn check_answer(market: &Stalls, request: &DrawRequest, chains: &[DrawnChain]) -> Result<(), String> {
    let replicas: usize = request.shards.iter().map(|shard| usize::from(shard.replicas)).sum();
    ensure(chains.len() == replicas, "as many chains as replicas")?;
    let mut slots = BTreeMap::<u64, u16>::new();
    let mut bonds = BTreeMap::<String, u128>::new();
    let mut rest = chains;
    for shard in &request.shards {
        let (own, others) = rest.split_at(shard.replicas.into());
        rest = others;
        let mut owners: BTreeSet<String> = shard.taken_owners.iter().cloned().collect();
        for chain in own {
            check_chain(market, request, shard, chain)?;
            ensure(chain.engine_class == own[0].engine_class, "replicas share a class")?;
            let mine: BTreeSet<String> = chain.spans.iter().map(|span| span.listing.owner.to_string()).collect();
            ensure(owners.is_disjoint(&mine), "no owner in two replicas")?;
            owners.extend(mine);
            for span in &chain.spans {
                *slots.entry(span.listing.deployment).or_default() += 1;
                *bonds.entry(span.listing.owner.to_string()).or_default() += span.listing.slot_bond.u128();
            }
        }
    }
    for (deployment, taken) in slots {
        ensure(taken <= market.get(deployment).1.free_slots, "no more slots than free")?;
    }
    for (owner, bond) in bonds {
        ensure(bond <= market.headroom(&owner), "no more bond than free")?;
    }
    Ok(())
}

pub(super) fn check_chain(
    market: &Stalls,
    request: &DrawRequest,
    shard: &DrawShard,
    chain: &DrawnChain,
) -> Result<(), String> {
    let numbers = numbers_of(chain);
    let mut stage = 0usize;
    let mut price = 0;
    for span in &chain.spans {
        let (class, listing) = market.get(span.listing.deployment);
        ensure(
            *listing == span.listing && *class == chain.engine_class,
            "what is listed",
        )?;
        ensure(listing.ready_at <= market.now, "its bond is not full")?;
        ensure(usize::from(listing.first) == stage, "contiguous")?;
        stage = usize::from(listing.last) + 1;
        let share: u16 = request.compute_shares[listing.first.into()..stage].iter().sum();
        ensure(share == span.compute_share_bps, "its share")?;
        let units = shard.units;
        ensure(units.units_in + units.units_out <= listing.sla.units_max, "units")?;
        if let Some(seconds) = request.seconds_max {
            let part = (u128::from(seconds) * u128::from(share)).div_ceil(10_000);
            ensure(
                u128::from(listing.sla.seconds(units.units_in + units.units_out)) <= part,
                "time",
            )?;
        }
        let found = SpanPrice::of(&listing.ask, &request.royalty, request.gateway_bps, share, units).unwrap();
        ensure(found == span.price, "its price")?;
        price += found.total().unwrap().u128();
    }
    ensure(stage == request.compute_shares.len(), "all stages")?;
    ensure(price <= request.item_price_max.u128(), "price")?;
    let backed = |span: &DrawnSpan| price <= span.listing.slot_bond.u128();
    ensure(chain.spans.iter().all(backed), "backed by every slot")?;
    ensure(numbers.iter().all(|number| !shard.exclude.contains(number)), "excluded")?;
    let pairs = numbers
        .windows(2)
        .all(|pair| !market.cooling.contains(&(pair[0], pair[1])));
    ensure(pairs, "pairs that are cooling")?;
    let class = shard.engine_class.as_ref().or(request.engine_class.as_ref());
    ensure(class.is_none_or(|class| *class == chain.engine_class), "class")
}

pub(super) fn ensure(holds: bool, what: &str) -> Result<(), String> {
    holds.then_some(()).ok_or_else(|| what.to_owned())
}

/// Whether there is any chain for the one replica of the one shard, found by trying all.
pub(super) fn has_chain(market: &Stalls, request: &DrawRequest) -> bool {
    let classes: BTreeSet<&String> = market.listings.iter().map(|(class, _)| class).collect();
    classes
        .into_iter()
        .any(|class| extends(market, request, class, &mut vec![]))
}

pub(super) fn extends(market: &Stalls, request: &DrawRequest, class: &str, path: &mut Vec<Listing>) -> bool {
    let stage = path.last().map_or(0, |listing| usize::from(listing.last) + 1);
    if stage >= request.compute_shares.len() {
        return stage == request.compute_shares.len() && is_answer(market, request, class, path);
    }
    market.listings.iter().any(|(found, listing)| {
        if found != class || usize::from(listing.first) != stage {
            return false;
        }
        path.push(listing.clone());
        let found = extends(market, request, class, path);
        path.pop();
        found
    })
}

pub(super) fn is_answer(market: &Stalls, request: &DrawRequest, class: &str, path: &[Listing]) -> bool {
    let units = request.shards[0].units;
    let spans = path.iter().map(|listing| {
        let stages = usize::from(listing.first)..=usize::from(listing.last);
        let compute_share_bps = request.compute_shares[stages].iter().sum();
        let (royalty, gateway) = (&request.royalty, request.gateway_bps);
        DrawnSpan {
            price: SpanPrice::of(&listing.ask, royalty, gateway, compute_share_bps, units).unwrap(),
            listing: listing.clone(),
            compute_share_bps,
        }
    });
    let chain = DrawnChain {
        engine_class: class.to_owned(),
        spans: spans.collect(),
    };
    check_answer(market, request, &[chain]).is_ok()
}
