//! The formulas of the protocol once more, from its document and not from the contracts' code.

use schema::{
    price::{Ask, FeeBps, RoyaltyRate},
    staking::DeploymentTerms,
};

/// Counted work of an item.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Count {
    pub(crate) rows: u64,
    pub(crate) units_in: u64,
    pub(crate) units_out: u64,
}

/// What the price of an item follows from, besides the work.
#[derive(Debug, Clone)]
pub(crate) struct Terms {
    pub(crate) royalty: RoyaltyRate,
    pub(crate) gateway_bps: u16,
    pub(crate) fees: FeeBps,
}

/// The price of a span by its takers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Parts {
    pub(crate) provider: u128,
    pub(crate) protocol: u128,
    pub(crate) burn: u128,
    pub(crate) royalty: u128,
    pub(crate) gateway: u128,
}

impl Parts {
    pub(crate) fn total(&self) -> u128 {
        self.provider + self.protocol + self.burn + self.royalty + self.gateway
    }
}

fn down(amount: u128, bps: u16) -> u128 {
    amount * u128::from(bps) / 10_000
}

fn up(amount: u128, by: u128) -> u128 {
    amount.div_ceil(by)
}

/// F + R + G of one span that does `share` bps of the model's work.
pub(crate) fn span(ask: &Ask, share: u16, count: Count, terms: &Terms) -> Parts {
    let (units_in, units_out) = (u128::from(count.units_in), u128::from(count.units_out));
    let rated = ask.per_1k_in.u128() * units_in + ask.per_1k_out.u128() * units_out;
    let compute = up(rated, 1_000) + ask.per_request.u128() * u128::from(count.rows);
    let per_1k = terms.royalty.royalty_per_1k_units.u128();
    let fixed = up(per_1k * (units_in + units_out) * u128::from(share), 10_000_000);
    let (protocol, burn) = (
        down(compute, terms.fees.protocol_bps),
        down(compute, terms.fees.burn_bps),
    );
    Parts {
        provider: compute - protocol - burn,
        protocol,
        burn,
        royalty: down(compute, terms.royalty.royalty_bps) + fixed,
        gateway: down(compute, terms.gateway_bps),
    }
}

/// What a miss of an item of this price costs.
pub(crate) fn penalty(price: u128, terms: &DeploymentTerms, miss_min: u128, slot_bond: u128) -> u128 {
    up(price * u128::from(terms.sla.penalty_bps), 10_000)
        .max(miss_min)
        .min(slot_bond)
}

/// Parts of an amount by bps, rounded down, and what is left.
pub(crate) fn divide(amount: u128, bps: impl Iterator<Item = u16>) -> (Vec<u128>, u128) {
    let parts: Vec<u128> = bps.map(|bps| down(amount, bps)).collect();
    let rest = amount - parts.iter().sum::<u128>();
    (parts, rest)
}
