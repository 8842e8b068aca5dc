//! The demonstration's own accountant: recomputes who must have what from the chain's events and holds it against the contracts' answers.
//!
//! It shares one thing with the contracts, the price formula of `schema::price`, and trusts nothing else. What it checks:
//! 1. every settled item cost F + R + G of its spans, and the parts that were credited and burnt sum to what was paid;
//! 2. every provider's compute earning is ask x receipt units of its settled spans, less protocol, audit and burn parts;
//! 3. every holder's credits, by reason, are what the escrow answers, and its ledger entry is what came in less what went out;
//! 4. the escrow's ledger sums to its FUNC, staking's bonds and unbonding entries to its own;
//! 5. FUNC in existence is what there was less everything burnt;
//! 6. every settled session cost F + R + G of all that its vouchers count, and its providers have their parts of that;
//! 7. where there is a beacon, every redraw was seeded with a round of it that is on the chain.

use std::collections::{BTreeMap, BTreeSet};

use schema::{
    beacon::draw_seed,
    escrow::{AllocationResponse, Holder, LedgerEntry, Reason, SessionResponse},
    orchestrator::{ItemResponse, ItemStatus, JobResponse},
    price::{ComputeSplit, FeeBps, SpanPrice, Units},
    receipt::Domain,
    Digest, Event, ItemId, Round,
};

/// A contract's FUNC by the token, and by its own books. In ufunc.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Books {
    pub(crate) cw20_balance: u128,
    pub(crate) ledger_sum: u128,
    /// The sum that the contract itself tells.
    pub(crate) told_sum: u128,
}

/// Everything read from the chain.
#[derive(Debug, Clone, Default)]
pub(crate) struct Facts {
    /// All events since the story began, in order.
    pub(crate) events: Vec<Event>,
    /// The story's jobs and all of their items.
    pub(crate) jobs: Vec<JobResponse>,
    pub(crate) items: Vec<ItemResponse>,
    /// The story's sessions, as they were before they ended.
    pub(crate) sessions: Vec<SessionResponse>,
    pub(crate) fees: FeeBps,
    /// Who has the protocol's part.
    pub(crate) treasury: String,
    /// Credits by reason, as the escrow tells them, of every holder that is new since the story began.
    pub(crate) earnings: BTreeMap<String, BTreeMap<Reason, u128>>,
    pub(crate) ledger: Vec<LedgerEntry>,
    pub(crate) escrow: Books,
    pub(crate) staking: Books,
    pub(crate) supply_before: u128,
    pub(crate) supply: u128,
    /// Where draws are made, if their randomness comes from a beacon.
    pub(crate) beacon_for: Option<Domain>,
}

/// What does not add up, one sentence each. Empty: everything does.
pub(crate) fn check(facts: &Facts) -> Vec<String> {
    let mut wrong = vec![];
    check_items(facts, &mut wrong);
    check_sessions(facts, &mut wrong);
    check_providers(facts, &mut wrong);
    check_holders(facts, &mut wrong);
    check_books("royalty_escrow", facts.escrow, &mut wrong);
    check_books("provider_staking", facts.staking, &mut wrong);
    check_supply(facts, &mut wrong);
    check_redraws(facts, &mut wrong);
    wrong
}

fn check_redraws(facts: &Facts, wrong: &mut Vec<String>) {
    let Some(domain) = &facts.beacon_for else {
        return;
    };
    let posted = facts.events.iter().filter_map(|event| match event {
        Event::RoundPosted { round, randomness } => Some((*round, *randomness)),
        _ => None,
    });
    let posted: BTreeMap<u64, Digest> = posted.collect();
    for event in &facts.events {
        let Event::Drawn {
            job,
            shard: Some(shard),
            attempt,
            seed,
            round,
        } = *event
        else {
            continue;
        };
        let known = round.and_then(|round| {
            let randomness = *posted.get(&round)?;
            Some(Round { round, randomness })
        });
        let expected = known.map(|round| draw_seed(domain, job, (shard, attempt), &round));
        if expected != Some(seed) {
            wrong.push(format!(
                "the redraw of shard {job}.{shard} for attempt {attempt} is not seeded with a round of the beacon ({round:?})"
            ));
        }
    }
}

/// Providers' parts of one item, what was burnt of it and what it cost, by the formula.
#[derive(Debug, Default)]
struct Bill {
    providers: BTreeMap<String, u128>,
    burnt: u128,
    total: u128,
}

fn bill(facts: &Facts, item: &ItemResponse) -> Option<Bill> {
    let ItemStatus::Settled { result, .. } = &item.status else {
        return None;
    };
    let job = facts.jobs.iter().find(|job| job.job == item.item.job)?;
    let gateway_bps = job.gateway.as_ref().map_or(0, |gateway| gateway.bps);
    let mut bill = Bill::default();
    for span in &item.spans {
        let price = SpanPrice::of(
            &span.ask,
            &job.royalty,
            gateway_bps,
            span.compute_share_bps,
            result.units,
        )
        .ok()?;
        let split = facts.fees.split(price.compute).ok()?;
        add(
            bill.providers.entry(span.provider.clone()).or_default(),
            split.provider.u128(),
        );
        add(&mut bill.burnt, split.burn.u128());
        add(&mut bill.total, price.total().ok()?.u128());
    }
    Some(bill)
}

fn add(sum: &mut u128, amount: u128) {
    *sum = sum.saturating_add(amount);
}

fn check_items(facts: &Facts, wrong: &mut Vec<String>) {
    let mut credited: BTreeMap<ItemId, u128> = BTreeMap::new();
    let mut settled: BTreeMap<ItemId, (u128, u128)> = BTreeMap::new();
    for event in &facts.events {
        match event {
            // A penalty comes out of a bond, not out of the price.
            Event::Credited {
                reason,
                amount,
                item: Some(item),
                ..
            } if !matches!(reason, Reason::Penalty | Reason::Keeper) => {
                add(credited.entry(*item).or_default(), amount.u128());
            }
            Event::Settled { item, paid, burnt } => {
                let before = settled.insert(*item, (paid.u128(), burnt.u128()));
                wrong.extend(before.map(|_| format!("item {item} was settled twice")));
            }
            _ => {}
        }
    }
    for item in &facts.items {
        let id = item.item;
        let Some(expected) = bill(facts, item) else {
            if settled.contains_key(&id) {
                wrong.push(format!("item {id} was paid for but is not settled"));
            }
            continue;
        };
        let Some((paid, burnt)) = settled.get(&id) else {
            wrong.push(format!("item {id} is settled but no event says what was paid"));
            continue;
        };
        if (*paid, *burnt) != (expected.total, expected.burnt) {
            let Bill { total, burnt: burn, .. } = &expected;
            wrong.push(format!(
                "item {id} cost {paid} of which {burnt} were burnt; by the formula {total} and {burn}"
            ));
        }
        let parts = credited.get(&id).copied().unwrap_or(0).saturating_add(*burnt);
        if parts != *paid {
            wrong.push(format!("item {id} cost {paid}, its parts sum to {parts}"));
        }
    }
}

/// What vouchers of each allocation have counted and paid, with what they cost by the formula and how compute is divided.
fn session_bills(facts: &Facts) -> Vec<(&AllocationResponse, Settled, SpanPrice, ComputeSplit)> {
    let mut bills = vec![];
    for session in &facts.sessions {
        let gateway_bps = session.gateway.as_ref().map_or(0, |gateway| gateway.bps);
        for allocation in &session.allocations {
            let settled = Settled::of(facts, session.session, allocation.deployment);
            let (ask, share) = (&allocation.ask, allocation.compute_share_bps);
            let price = SpanPrice::of(ask, &session.royalty, gateway_bps, share, settled.units).unwrap_or_default();
            if let Ok(split) = session.fees.split(price.compute) {
                bills.push((allocation, settled, price, split));
            }
        }
    }
    bills
}

/// Sums over all settlements of one allocation.
#[derive(Debug, Default)]
struct Settled {
    units: Units,
    paid: u128,
    burnt: u128,
}

impl Settled {
    fn of(facts: &Facts, session: u64, deployment: u64) -> Self {
        let mut sum = Self::default();
        for event in &facts.events {
            match *event {
                Event::VoucherSettled {
                    session: of,
                    deployment: by,
                    requests,
                    units_in,
                    units_out,
                    paid,
                    burnt,
                    ..
                } if (of, by) == (session, deployment) => {
                    sum.units.requests = sum.units.requests.saturating_add(requests);
                    sum.units.units_in = sum.units.units_in.saturating_add(units_in);
                    sum.units.units_out = sum.units.units_out.saturating_add(units_out);
                    add(&mut sum.paid, paid.u128());
                    add(&mut sum.burnt, burnt.u128());
                }
                _ => {}
            }
        }
        sum
    }
}

fn check_sessions(facts: &Facts, wrong: &mut Vec<String>) {
    for (allocation, settled, price, split) in session_bills(facts) {
        let total = price.total().map_or(0, |total| total.u128());
        if (settled.paid, settled.burnt) != (total, split.burn.u128()) {
            wrong.push(format!(
                "deployment {} was paid {} in a session of which {} were burnt; by the formula {total} and {}",
                allocation.deployment, settled.paid, settled.burnt, split.burn
            ));
        }
    }
}

fn check_providers(facts: &Facts, wrong: &mut Vec<String>) {
    let mut expected: BTreeMap<String, u128> = BTreeMap::new();
    for bill in facts.items.iter().filter_map(|item| bill(facts, item)) {
        for (provider, amount) in bill.providers {
            add(expected.entry(provider).or_default(), amount);
        }
    }
    for (allocation, _, _, split) in session_bills(facts) {
        add(
            expected.entry(allocation.provider.clone()).or_default(),
            split.provider.u128(),
        );
    }
    let told = |holder: &String| {
        let credits = facts
            .earnings
            .get(holder)
            .and_then(|credits| credits.get(&Reason::Compute));
        credits.copied().unwrap_or(0)
    };
    let earners = facts
        .earnings
        .iter()
        .filter(|(_, credits)| credits.contains_key(&Reason::Compute));
    let providers: BTreeSet<&String> = expected.keys().chain(earners.map(|(holder, _)| holder)).collect();
    for provider in providers {
        let (told, expected) = (told(provider), expected.get(provider).copied().unwrap_or(0));
        if told != expected {
            wrong.push(format!(
                "{provider} earned {told} for compute; ask x receipt units makes {expected}"
            ));
        }
    }
}

fn check_holders(facts: &Facts, wrong: &mut Vec<String>) {
    let developer_of: BTreeMap<u64, &String> = facts.jobs.iter().map(|job| (job.job, &job.developer)).collect();
    let owner_of: BTreeMap<u64, &String> = facts.sessions.iter().map(|it| (it.session, &it.owner)).collect();
    let mut credited: BTreeMap<String, BTreeMap<Reason, u128>> = BTreeMap::new();
    let mut spent: BTreeMap<String, u128> = BTreeMap::new();
    for event in &facts.events {
        match event {
            Event::Credited {
                holder, reason, amount, ..
            } => {
                add(
                    credited
                        .entry(holder.to_string())
                        .or_default()
                        .entry(*reason)
                        .or_default(),
                    amount.u128(),
                );
            }
            Event::Withdrawn { account, amount } => add(spent.entry(account.clone()).or_default(), amount.u128()),
            Event::Settled { item, paid, .. } => {
                if let Some(developer) = developer_of.get(&item.job) {
                    add(spent.entry((*developer).clone()).or_default(), paid.u128());
                }
            }
            Event::VoucherSettled {
                session, paid: amount, ..
            }
            | Event::AllocationClosed {
                session,
                reservation: amount,
                ..
            } => {
                if let Some(owner) = owner_of.get(session) {
                    add(spent.entry((*owner).clone()).or_default(), amount.u128());
                }
            }
            Event::RoyaltiesDistributed { model, amount } => {
                let holder = Holder::Model(model.clone()).to_string();
                add(spent.entry(holder).or_default(), amount.u128());
            }
            _ => {}
        }
    }
    for (holder, told) in &facts.earnings {
        let found = credited.remove(holder).unwrap_or_default();
        if found != *told {
            wrong.push(format!(
                "{holder} was credited {found:?} by the events, {told:?} by the escrow"
            ));
        }
        let came = found.values().fold(0_u128, |sum, amount| sum.saturating_add(*amount));
        let went = spent.get(holder).copied().unwrap_or(0);
        let entry = facts.ledger.iter().find(|entry| entry.holder == *holder);
        let has = entry.map_or(0, |entry| entry.available.u128().saturating_add(entry.held.u128()));
        if came.checked_sub(went) != Some(has) {
            wrong.push(format!("{holder} got {came} and spent {went}, but has {has}"));
        }
    }
}

fn check_books(contract: &str, books: Books, wrong: &mut Vec<String>) {
    let Books {
        cw20_balance,
        ledger_sum,
        told_sum,
    } = books;
    if cw20_balance != ledger_sum || ledger_sum != told_sum {
        wrong.push(format!(
            "{contract} has {cw20_balance} ufunc, its books sum to {ledger_sum}, it says {told_sum}"
        ));
    }
}

fn check_supply(facts: &Facts, wrong: &mut Vec<String>) {
    let burnt = facts.events.iter().fold(0_u128, |sum, event| {
        let burnt = match event {
            Event::Settled { burnt, .. }
            | Event::VoucherSettled { burnt, .. }
            | Event::NamespaceClaimed { burnt, .. }
            | Event::DeploymentListed { burnt, .. } => burnt.u128(),
            _ => 0,
        };
        sum.saturating_add(burnt)
    });
    let Facts {
        supply_before, supply, ..
    } = facts;
    if supply_before.checked_sub(burnt) != Some(*supply) {
        wrong.push(format!(
            "there were {supply_before} ufunc and {burnt} were burnt, but there are {supply}"
        ));
    }
}

#[cfg(test)]
#[path = "checker_tests.rs"]
mod tests;
