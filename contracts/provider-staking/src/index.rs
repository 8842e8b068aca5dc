//! The index that the draw reads: every deployment that can take an item, now or once settled work is forgotten, cheapest first, and
//! no other.
//!
//! Guarantees: after every message, the listings are exactly what `Deployment::listing` says of every deployment
//! (`the_index_is_what_a_scan_would_find`), and the classes are those of the listings, with their numbers.

use std::collections::BTreeMap;

use cosmwasm_std::{Addr, Empty, Order, StdError, StdResult, Storage, Uint128};
use cw_storage_plus::Bound;
use schema::ModelId;

use crate::{
    deployment::Deployment,
    draw::{Listing, Market, CANDIDATES_MAX, CLASSES_MAX},
    stake::Stake,
    state::{CLASSES, COOLING, LISTINGS, RANKED_CLASSES, STAKES},
};

/// Model and version as one key part. A model's name has no zero byte.
pub(crate) fn market_key(model: &ModelId, version: u32) -> Vec<u8> {
    [model.as_str().as_bytes(), &[0], &version.to_be_bytes()].concat()
}

/// Model, version and class as one key part; the version has a fixed length.
fn class_key(model: &ModelId, version: u32, class: &str) -> Vec<u8> {
    [&market_key(model, version), class.as_bytes()].concat()
}

/// Lists, updates or delists a deployment as it and its owner's stake are now.
pub(crate) fn refresh(storage: &mut dyn Storage, number: u64, deployment: &Deployment, stake: &Stake) -> StdResult<()> {
    store(storage, number, deployment, deployment.listing(number, stake))
}

/// Takes a deployment out of the draw.
pub(crate) fn delist(storage: &mut dyn Storage, number: u64, deployment: &Deployment) -> StdResult<()> {
    store(storage, number, deployment, None)
}

fn store(storage: &mut dyn Storage, number: u64, deployment: &Deployment, listing: Option<Listing>) -> StdResult<()> {
    let terms = &deployment.terms;
    let class = class_key(&terms.model, terms.version, &terms.engine_class);
    let key = (class.as_slice(), terms.first, (deployment.rank.u128(), number));
    let was_listed = LISTINGS.has(storage, key);
    match &listing {
        Some(listing) => LISTINGS.save(storage, key, listing)?,
        None => LISTINGS.remove(storage, key),
    }
    match (was_listed, listing.is_some()) {
        (false, true) => count(storage, deployment, |listed| listed.saturating_add(1)),
        (true, false) => count(storage, deployment, |listed| listed.saturating_sub(1)),
        _ => Ok(()),
    }
}

/// Changes the number of listings of a class and its place among the others.
fn count(storage: &mut dyn Storage, deployment: &Deployment, change: impl FnOnce(u32) -> u32) -> StdResult<()> {
    let class = deployment.terms.engine_class.as_str();
    let market = market_key(&deployment.terms.model, deployment.terms.version);
    let before = CLASSES.may_load(storage, (&market, class))?.unwrap_or_default();
    let after = change(before);
    let place = |listed: u32| u32::MAX.saturating_sub(listed);
    RANKED_CLASSES.remove(storage, (&market, place(before), class));
    if after == 0 {
        CLASSES.remove(storage, (&market, class));
        return Ok(());
    }
    CLASSES.save(storage, (&market, class), &after)?;
    RANKED_CLASSES.save(storage, (&market, place(after), class), &Empty {})
}

/// The stored market of one version. Everything is read at most once, and only as far as the draw asks.
pub(crate) struct StoredMarket<'a> {
    storage: &'a dyn Storage,
    model: &'a ModelId,
    version: u32,
    now: u64,
    pages: BTreeMap<(String, u8), Pages>,
    headrooms: BTreeMap<Addr, Uint128>,
}

#[derive(Default)]
struct Pages {
    listings: Vec<Listing>,
    /// Where the next page begins.
    last: Option<(u128, u64)>,
    is_complete: bool,
}

impl<'a> StoredMarket<'a> {
    pub(crate) fn new(storage: &'a dyn Storage, (model, version): (&'a ModelId, u32), now: u64) -> Self {
        Self {
            storage,
            model,
            version,
            now,
            pages: BTreeMap::new(),
            headrooms: BTreeMap::new(),
        }
    }
}

impl Market for StoredMarket<'_> {
    type Error = StdError;

    fn now(&self) -> u64 {
        self.now
    }

    fn classes(&mut self) -> StdResult<Vec<String>> {
        let market = market_key(self.model, self.version);
        let ranked = RANKED_CLASSES
            .sub_prefix(&market)
            .keys(self.storage, None, None, Order::Ascending);
        ranked
            .take(CLASSES_MAX)
            .map(|key| key.map(|(_, class)| class))
            .collect()
    }

    fn nth(&mut self, class: &str, first: u8, nth: usize) -> StdResult<Option<Listing>> {
        let pages = self.pages.entry((class.to_owned(), first)).or_default();
        while nth >= pages.listings.len() && !pages.is_complete {
            let key = class_key(self.model, self.version, class);
            let page: Vec<_> = LISTINGS
                .prefix((&key, first))
                .range(self.storage, pages.last.map(Bound::exclusive), None, Order::Ascending)
                .take(CANDIDATES_MAX)
                .collect::<StdResult<_>>()?;
            pages.is_complete = page.len() < CANDIDATES_MAX;
            pages.last = page.last().map(|(key, _)| *key).or(pages.last);
            pages.listings.extend(page.into_iter().map(|(_, listing)| listing));
        }
        Ok(pages.listings.get(nth).cloned())
    }

    fn headroom(&mut self, owner: &Addr) -> StdResult<Uint128> {
        if let Some(headroom) = self.headrooms.get(owner) {
            return Ok(*headroom);
        }
        let headroom = STAKES.load(self.storage, owner)?.headroom(self.now);
        self.headrooms.insert(owner.clone(), headroom);
        Ok(headroom)
    }

    fn is_cooling(&mut self, sender: u64, receiver: u64) -> StdResult<bool> {
        let until = COOLING.may_load(self.storage, (sender, receiver))?;
        Ok(until.is_some_and(|until| self.now < until))
    }
}
