//! A chain that somebody has named instead of having it drawn: the developer of a job, or the owner of a session who forces a request.
//!
//! What the draw promises of a chain is checked here, by the same numbers: it covers all stages without a gap, serves this version in
//! one engine class, promises to be done in time with as many units, and costs no more than was asked for, nor than any of its slots is
//! backed with. Whether a slot is free is staking's to say, when it is taken.

use schema::{
    price::{SpanPrice, Units},
    staking::{Chain, DeploymentOffer, DrawRequest, Span},
};
use thiserror::Error;

use crate::{state::total, ContractError};

/// Why deployments are not the chain that was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ChainError {
    #[error("deployment {deployment} serves version {version} of {model}")]
    OtherVersion {
        deployment: u64,
        model: schema::ModelId,
        version: u32,
    },
    #[error("deployment {deployment} begins with stage {found}, stage {expected} comes next")]
    Gap {
        deployment: u64,
        found: u8,
        expected: usize,
    },
    #[error("the chain ends before stage {next} of {stages}")]
    Short { next: usize, stages: usize },
    #[error("deployment {deployment} runs in class {found}, the chain in {expected}")]
    OtherClass {
        deployment: u64,
        found: String,
        expected: String,
    },
    #[error("deployment {deployment} takes at most {max} units, found {units}")]
    TooManyUnits { deployment: u64, units: u64, max: u64 },
    #[error("the terms of the chain sum to {seconds} seconds, at most {max} are left")]
    TooSlow { seconds: u64, max: u64 },
    #[error("the chain costs {price} ufunc, at most {max} may be spent")]
    TooDear {
        price: cosmwasm_std::Uint128,
        max: cosmwasm_std::Uint128,
    },
    #[error("the chain costs {price} ufunc, a slot of deployment {deployment} is backed by {slot_bond}")]
    AboveSlotBond {
        deployment: u64,
        price: cosmwasm_std::Uint128,
        slot_bond: cosmwasm_std::Uint128,
    },
}

/// These deployments, in this order, as a chain for one item of so many units.
pub(crate) fn named(offers: &[DeploymentOffer], request: &DrawRequest, units: Units) -> Result<Chain, ContractError> {
    let stages = request.compute_shares.len();
    let first_class = offers.first().map(|offer| offer.terms.engine_class.clone());
    let engine_class = request.engine_class.clone().or(first_class).unwrap_or_default();
    let mut next = 0;
    let mut spans = vec![];
    for offer in offers {
        check_offer(offer, request, &engine_class, units.total()?)?;
        let (deployment, first) = (offer.deployment, offer.terms.first);
        if usize::from(first) != next {
            let expected = next;
            let found = first;
            return Err(ChainError::Gap {
                deployment,
                found,
                expected,
            }
            .into());
        }
        spans.push(span(offer, request, units)?);
        next = usize::from(offer.terms.last).saturating_add(1);
    }
    if next != stages {
        return Err(ChainError::Short { next, stages }.into());
    }
    check_whole(offers, &spans, request, units.total()?)?;
    Ok(Chain { engine_class, spans })
}

fn check_offer(offer: &DeploymentOffer, request: &DrawRequest, class: &str, units: u64) -> Result<(), ChainError> {
    let (deployment, terms) = (offer.deployment, &offer.terms);
    if (&terms.model, terms.version) != (&request.model, request.version) {
        return Err(ChainError::OtherVersion {
            deployment,
            model: terms.model.clone(),
            version: terms.version,
        });
    }
    if terms.engine_class != class {
        return Err(ChainError::OtherClass {
            deployment,
            found: terms.engine_class.clone(),
            expected: class.to_owned(),
        });
    }
    let max = terms.sla.units_max;
    if units > max {
        return Err(ChainError::TooManyUnits { deployment, units, max });
    }
    Ok(())
}

fn span(offer: &DeploymentOffer, request: &DrawRequest, units: Units) -> Result<Span, ContractError> {
    let DeploymentOffer {
        deployment,
        provider,
        host_key,
        terms,
        ..
    } = offer;
    let stages = usize::from(terms.first)..=usize::from(terms.last);
    let shares = request.compute_shares.get(stages).unwrap_or_default();
    let compute_share_bps = shares.iter().copied().fold(0, u16::saturating_add);
    Ok(Span {
        deployment: *deployment,
        provider: provider.clone(),
        host_key: *host_key,
        first: terms.first,
        last: terms.last,
        compute_share_bps,
        ask: terms.ask,
        sla: terms.sla,
        price_max: SpanPrice::of(
            &terms.ask,
            &request.royalty,
            request.gateway_bps,
            compute_share_bps,
            units,
        )?,
    })
}

/// What only the whole chain can be held to.
fn check_whole(
    offers: &[DeploymentOffer],
    spans: &[Span],
    request: &DrawRequest,
    units: u64,
) -> Result<(), ContractError> {
    let promised = spans.iter().map(|span| span.sla.seconds(units));
    let seconds = promised.fold(0, u64::saturating_add);
    let max = request.seconds_max.unwrap_or(u64::MAX);
    if seconds > max {
        return Err(ChainError::TooSlow { seconds, max }.into());
    }
    let price = total(spans.iter().map(|span| &span.price_max))?;
    let max = request.item_price_max;
    if price > max {
        return Err(ChainError::TooDear { price, max }.into());
    }
    // Any of them may be the culprit, and pays out of the bond of its slot.
    if let Some(offer) = offers.iter().find(|offer| price > offer.slot_bond) {
        return Err(ChainError::AboveSlotBond {
            deployment: offer.deployment,
            price,
            slot_bond: offer.slot_bond,
        }
        .into());
    }
    Ok(())
}
