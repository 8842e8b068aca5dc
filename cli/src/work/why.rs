//! Why an order cannot be had: what a refused offer or an empty draw does not tell by itself.

use anyhow::{anyhow, bail};
use client::{Client, ClientError};
use cosmwasm_std::Uint128;
use schema::{registry::OfferResponse, staking::DrawRequest};

use super::order::{self, Batch, Order};
use crate::amount::Func;

/// The registry's refusal of an order, with what there is instead.
pub(super) async fn no_offer(client: &Client, order: &Order, refused: ClientError) -> anyhow::Error {
    let model = match client.registry().model(&order.model).await {
        Ok(model) => model,
        Err(ClientError::QueryRefused { message, .. }) => {
            return anyhow!("{message}: `fxn model list` shows those that are")
        }
        Err(_) => return refused.into(),
    };
    let names: Vec<&str> = model.endpoints.iter().map(|endpoint| endpoint.name.as_str()).collect();
    if !names.contains(&order.endpoint.as_str()) {
        let there_is = if names.is_empty() {
            "it has none".to_owned()
        } else {
            format!("it has {}", names.join(", "))
        };
        return anyhow!("{} has no endpoint {:?}: {there_is}", order.model, order.endpoint);
    }
    match order.version {
        Some(version) if version == 0 || version > model.versions => {
            anyhow!(
                "{} has no version {version}: its newest is {}",
                order.model,
                model.versions
            )
        }
        _ => refused.into(),
    }
}

/// An error if waiting for a free slot would be in vain: nobody asks as little or is as fast as the order wants.
pub(super) async fn no_chains(
    client: &Client,
    order: &Order,
    offer: &OfferResponse,
    batch: &Batch,
    most: Uint128,
) -> anyhow::Result<()> {
    let request = order::draw_request(order, offer, batch, most.u128());
    let dearer = client.staking().draw(request.clone()).await?;
    if let (Some(wanted), Some(chains)) = (order.max_price, dearer.chains) {
        let prices = chains.iter().map(order::price).collect::<anyhow::Result<Vec<u128>>>()?;
        let asked = Func(prices.into_iter().fold(0, u128::saturating_add));
        bail!("those who are free ask about {asked} FUNC for this, --max-price allows {wanted}; nothing was spent");
    }
    let slower = DrawRequest {
        seconds_max: None,
        ..request
    };
    if let (Some(seconds), Some(_)) = (order.deadline_seconds, client.staking().draw(slower).await?.chains) {
        bail!("no provider promises to be done in {seconds} s: give a longer --deadline; nothing was spent");
    }
    Ok(())
}
