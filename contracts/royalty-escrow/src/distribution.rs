//! Who gets a model's royalty.
//!
//! Each parent model has its floor share of the whole; the recipients divide the rest, rounded down each; dust goes to the first
//! recipient. The parts sum to the whole, and a parent's part waits in the parent's own account, so that paying for work costs the
//! same however deep the family is.

use cosmwasm_std::Uint128;
use schema::{
    escrow::{Holder, Reason},
    price,
    registry::PayoutResponse,
    ItemId, ModelId,
};

use crate::{
    ledger::{About, Ledger},
    ContractError,
};

/// Parts of `amount` by their takers, parents first.
pub(crate) fn parts(
    model: &ModelId,
    amount: Uint128,
    rule: &PayoutResponse,
) -> Result<Vec<(Holder, Reason, Uint128)>, ContractError> {
    let (lineage, rest) = price::divide(amount, rule.parents.iter().map(|parent| parent.bps))?;
    let (mut royalties, dust) = price::divide(rest, rule.payout.iter().map(|share| share.bps))?;
    let first = royalties
        .first_mut()
        .ok_or_else(|| ContractError::NoRecipients { model: model.clone() })?;
    *first = first.checked_add(dust)?;
    let parents = rule
        .parents
        .iter()
        .zip(lineage)
        .map(|(parent, part)| (Holder::Model(parent.model.clone()), Reason::Lineage, part));
    let recipients = rule
        .payout
        .iter()
        .zip(royalties)
        .map(|(share, part)| (Holder::Address(share.address.clone()), Reason::Royalty, part));
    Ok(parents.chain(recipients).collect())
}

/// Credits all parts of `amount`, which has been taken from somewhere else before.
pub(crate) fn distribute(
    ledger: &mut Ledger<'_>,
    model: &ModelId,
    amount: Uint128,
    rule: &PayoutResponse,
    item: Option<ItemId>,
) -> Result<(), ContractError> {
    for (holder, reason, part) in parts(model, amount, rule)? {
        let about = About {
            item,
            deployment: None,
            model: Some(model.clone()),
        };
        ledger.credit(holder, reason, part, about)?;
    }
    Ok(())
}

#[cfg(test)]
#[allow(
    clippy::arithmetic_side_effects,
    reason = "expected values are written as plain formulas"
)]
mod tests {
    use proptest::prelude::*;
    use schema::registry::{Parent, Share};

    use super::*;

    fn model() -> ModelId {
        "demo/child".parse().unwrap()
    }

    fn rule(parents: &[u16], shares: &[u16]) -> PayoutResponse {
        PayoutResponse {
            payout: shares
                .iter()
                .enumerate()
                .map(|(index, bps)| Share {
                    address: format!("recipient{index}"),
                    bps: *bps,
                })
                .collect(),
            parents: parents
                .iter()
                .enumerate()
                .map(|(index, bps)| Parent {
                    model: format!("demo/parent{index}").parse().unwrap(),
                    bps: *bps,
                })
                .collect(),
        }
    }

    #[test]
    fn parents_come_first_and_dust_goes_to_the_first_recipient() {
        let parts = parts(&model(), 1_001u128.into(), &rule(&[2_500], &[3_333, 6_667])).unwrap();
        let amounts: Vec<u128> = parts.iter().map(|(_, _, part)| part.u128()).collect();
        // 1001 x 25% = 250; of the rest, 751: floor(250.3), floor(500.7), and 1 of dust.
        assert_eq!(amounts, [250, 251, 500]);
        assert_eq!(parts[0].0.to_string(), "model:demo/parent0");
        assert_eq!((parts[0].1, parts[1].1), (Reason::Lineage, Reason::Royalty));
    }

    #[test]
    fn a_rule_without_recipients_is_refused_rather_than_losing_money() {
        let refused = parts(&model(), 5u128.into(), &rule(&[], &[]));
        assert_eq!(refused.unwrap_err(), ContractError::NoRecipients { model: model() });
    }

    proptest! {
        #[test]
        fn parts_of_a_royalty_sum_to_the_whole(
            amount in 0..=schema::TOTAL_SUPPLY, parents in prop::collection::vec(1..=2_500u16, 0..=4), first in 1..10_000u16,
        ) {
            let parts = parts(&model(), amount.into(), &rule(&parents, &[first, 10_000 - first])).unwrap();
            prop_assert_eq!(parts.iter().map(|(_, _, part)| part.u128()).sum::<u128>(), amount);
        }
    }
}
