//! What proven work costs by the terms that its hold has pinned, and who gets which part of it.
//!
//! The price of an item is F + R + G of [`schema::price`] over its spans. Provider, protocol and burn share F; the gateway has G;
//! R is distributed by the model's rule. The sum of the parts is what leaves the hold.

use cosmwasm_std::{Addr, Uint128};
use schema::{
    escrow::{Holder, Reason, Settlement, WorkTerms},
    price::{FeeBps, SpanPrice},
    registry::{PayoutResponse, Usage},
    Event,
};

use crate::{
    distribution::distribute,
    ledger::{About, Ledger},
    ContractError,
};

/// An item's price by its takers, in ufunc.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Bill {
    /// Part of each span's provider, in the order of the spans.
    pub(crate) providers: Vec<Uint128>,
    pub(crate) protocol: Uint128,
    pub(crate) burn: Uint128,
    pub(crate) royalty: Uint128,
    pub(crate) gateway: Uint128,
    /// Sum of all of these.
    pub(crate) total: Uint128,
}

impl Bill {
    pub(crate) fn of(settlement: &Settlement, terms: &WorkTerms, fees: FeeBps) -> Result<Self, ContractError> {
        let gateway_bps = terms.gateway.as_ref().map_or(0, |gateway| gateway.bps);
        let mut bill = Self::default();
        for span in &settlement.spans {
            let price = SpanPrice::of(
                &span.ask,
                &terms.royalty,
                gateway_bps,
                span.compute_share_bps,
                settlement.units,
            )?;
            let split = fees.split(price.compute)?;
            bill.providers.push(split.provider);
            // There is no audit pot yet and no audit fee: `check_params` sees to it. Were there one, the protocol would keep it.
            bill.protocol = bill.protocol.checked_add(split.protocol)?.checked_add(split.audit)?;
            bill.burn = bill.burn.checked_add(split.burn)?;
            bill.royalty = bill.royalty.checked_add(price.royalty)?;
            bill.gateway = bill.gateway.checked_add(price.gateway)?;
            bill.total = bill.total.checked_add(price.total()?)?;
        }
        Ok(bill)
    }
}

/// Pays for one item. `burnt` of the answer has left the ledger and is to be burnt.
pub(crate) fn settle(
    ledger: &mut Ledger<'_>,
    settlement: &Settlement,
    rule: &PayoutResponse,
    treasury: &Addr,
) -> Result<(Usage, Uint128), ContractError> {
    let item = settlement.item;
    let (terms, fees) = ledger.terms(item.job)?;
    let bill = Bill::of(settlement, &terms, fees)?;
    ledger.spend(item.job, bill.total)?;
    let about = About {
        item: Some(item),
        deployment: None,
        model: Some(terms.model.clone()),
    };
    for (span, part) in settlement.spans.iter().zip(&bill.providers) {
        let about = About {
            deployment: Some(span.deployment),
            ..about.clone()
        };
        ledger.credit(Holder::Address(span.provider.clone()), Reason::Compute, *part, about)?;
    }
    ledger.credit(
        Holder::Address(treasury.to_string()),
        Reason::Protocol,
        bill.protocol,
        about.clone(),
    )?;
    if let Some(gateway) = terms.gateway {
        ledger.credit(Holder::Address(gateway.address), Reason::Gateway, bill.gateway, about)?;
    }
    distribute(ledger, &terms.model, bill.royalty, rule, Some(item))?;
    ledger.announce(Event::Settled {
        item,
        paid: bill.total,
        burnt: bill.burn,
    });
    let usage = Usage {
        model: terms.model,
        units: settlement.units,
        paid: bill.total,
        sunk: bill.protocol.checked_add(bill.burn)?,
    };
    Ok((usage, bill.burn))
}

/// Adds up the usages of each model, in the order in which models first appear.
pub(crate) fn aggregate(usages: Vec<Usage>) -> Result<Vec<Usage>, ContractError> {
    let mut sums: Vec<Usage> = vec![];
    for usage in usages {
        let Some(sum) = sums.iter_mut().find(|sum| sum.model == usage.model) else {
            sums.push(usage);
            continue;
        };
        sum.units.requests = sum.units.requests.saturating_add(usage.units.requests);
        sum.units.units_in = sum.units.units_in.saturating_add(usage.units.units_in);
        sum.units.units_out = sum.units.units_out.saturating_add(usage.units.units_out);
        sum.paid = sum.paid.checked_add(usage.paid)?;
        sum.sunk = sum.sunk.checked_add(usage.sunk)?;
    }
    Ok(sums)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use schema::{
        escrow::{Gateway, SettledSpan},
        price::{Ask, RoyaltyRate, Units},
        ItemId,
    };

    use super::*;

    fn settlement(rates: &[(u128, u16)], units_in: u64) -> Settlement {
        let spans = rates.iter().map(|(rate, share)| SettledSpan {
            provider: "provider".into(),
            deployment: 1,
            compute_share_bps: *share,
            ask: Ask {
                per_1k_in: (*rate).into(),
                per_1k_out: (*rate).into(),
                per_request: (rate % 7).into(),
            },
        });
        Settlement {
            item: ItemId {
                job: 1,
                shard: 0,
                replica: 0,
            },
            units: Units {
                requests: 3,
                units_in,
                units_out: 5,
            },
            spans: spans.collect(),
        }
    }

    proptest! {
        #[test]
        fn parts_of_a_bill_sum_to_the_whole(
            rates in prop::collection::vec((0..1_000_000u128, 1..=2_000u16), 1..=5),
            units_in in 0..1_000_000u64, royalty_bps in 0..=10_000u16, per_1k in 0..1_000_000u128,
            gateway_bps in 1..=2_000u16, protocol_bps in 0..=1_000u16, burn_bps in 0..=1_000u16,
        ) {
            let terms = WorkTerms {
                model: "demo/m".parse().unwrap(),
                royalty: RoyaltyRate { royalty_bps, royalty_per_1k_units: per_1k.into() },
                gateway: Some(Gateway { address: "gateway".into(), bps: gateway_bps }),
            };
            let bill = Bill::of(&settlement(&rates, units_in), &terms, FeeBps { protocol_bps, audit_bps: 0, burn_bps }).unwrap();
            let parts = bill.providers.iter().chain([&bill.protocol, &bill.burn, &bill.royalty, &bill.gateway]);
            prop_assert_eq!(parts.sum::<Uint128>(), bill.total);
        }
    }
}
