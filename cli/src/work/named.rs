//! A chain that the developer names instead of having it drawn: what it costs, and whether it has room.
//!
//! Whether it is a chain at all is for the contract to say, which costs nothing: a transaction that would be refused is not sent.

use anyhow::{bail, Context as _};
use client::{Client, ClientError};
use schema::{
    price::SpanPrice,
    staking::{DeploymentOffer, DrawRequest},
};

use super::order::Batch;
use crate::amount::Func;

/// What each item costs at most. None: it has not enough free slots now.
pub(super) async fn prices(client: &Client, chain: &[u64], request: &DrawRequest) -> anyhow::Result<Option<Vec<u128>>> {
    let offers = client.staking().offers(chain).await.map_err(|refused| match refused {
        ClientError::QueryRefused { message, .. } => {
            anyhow::anyhow!(
                "the chain cannot be asked: {message}; `fxn provider list` shows who serves what; nothing was spent"
            )
        }
        other => other.into(),
    })?;
    let mut prices = vec![];
    for shard in &request.shards {
        let mut sum = 0_u128;
        for offer in &offers {
            sum = sum.saturating_add(price(offer, request, shard.units)?);
        }
        prices.push(sum);
    }
    if let Some(highest) = prices
        .iter()
        .copied()
        .max()
        .filter(|price| *price > request.item_price_max.u128())
    {
        bail!(
            "the chain asks {} FUNC for a shard, {} may be spent for each; nothing was spent",
            Func(highest),
            Func::from(request.item_price_max)
        );
    }
    for deployment in chain {
        let found = client.staking().deployment(*deployment).await?;
        if usize::from(found.terms.slots.saturating_sub(found.busy)) < prices.len() {
            return Ok(None);
        }
    }
    Ok(Some(prices))
}

fn price(offer: &DeploymentOffer, request: &DrawRequest, units: schema::price::Units) -> anyhow::Result<u128> {
    let stages = usize::from(offer.terms.first)..=usize::from(offer.terms.last);
    let shares = request.compute_shares.get(stages).unwrap_or_default();
    let share = shares.iter().copied().fold(0, u16::saturating_add);
    let price = SpanPrice::of(&offer.terms.ask, &request.royalty, request.gateway_bps, share, units)?;
    Ok(price.total()?.u128())
}

/// An error if waiting for free slots would be in vain.
pub(super) async fn check_slots(client: &Client, chain: &[u64], batch: &Batch) -> anyhow::Result<()> {
    for deployment in chain {
        let slots = client.staking().deployment(*deployment).await?.terms.slots;
        let shards = u16::try_from(batch.shards.len()).context("there are too many shards")?;
        if slots < shards {
            bail!(
                "deployment {deployment} has {slots} slots, and each of {shards} shards takes one: give fewer --shards, or no --chain; \
                 nothing was spent"
            );
        }
    }
    Ok(())
}
