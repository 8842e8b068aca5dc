//! Who could serve an order: what a quote that found nobody is explained by.

use std::collections::BTreeMap;

use anyhow::{bail, Context as _};
use client::Client;
use schema::{registry::OfferResponse, staking};

use super::{
    order::Order,
    shards::{Limits, Weight},
};

/// The active deployments that could serve an order.
#[derive(Debug)]
pub(crate) struct Supply {
    deployments: Vec<staking::DeploymentResponse>,
}

impl Supply {
    pub(crate) async fn of(client: &Client, order: &Order, offer: &OfferResponse) -> anyhow::Result<Self> {
        let mut deployments = client.staking().deployments_of(&order.model, offer.version).await?;
        deployments.retain(|deployment| {
            let class = order
                .engine_class
                .as_ref()
                .is_none_or(|class| *class == deployment.terms.engine_class);
            let named = order
                .chain
                .as_ref()
                .is_none_or(|chain| chain.contains(&deployment.deployment));
            let active = deployment.state == staking::DeploymentState::Active;
            class && named && active
        });
        Ok(Self { deployments })
    }

    /// Most units that as many different providers as replicas are wanted take on every stage. An error names the stage that lacks them.
    pub(crate) fn units_max(&self, order: &Order, offer: &OfferResponse) -> anyhow::Result<u64> {
        let mut most = u64::MAX;
        for stage in 0..offer.stages.len() {
            let covers = |terms: &staking::DeploymentTerms| {
                (usize::from(terms.first)..=usize::from(terms.last)).contains(&stage)
            };
            let mut of_provider = BTreeMap::<&str, u64>::new();
            for deployment in self.deployments.iter().filter(|deployment| covers(&deployment.terms)) {
                let units = of_provider.entry(&deployment.provider).or_default();
                *units = deployment.terms.sla.units_max.max(*units);
            }
            let mut units: Vec<u64> = of_provider.into_values().collect();
            units.sort_unstable_by(|a, b| b.cmp(a));
            let wanted = usize::from(order.replicas).saturating_sub(1);
            most = most.min(*units.get(wanted).with_context(|| {
                let Order { model, replicas, .. } = order;
                format!(
                    "there is no supply: {} providers serve stage {stage} of {model}, {replicas} needed",
                    units.len()
                )
            })?);
        }
        Ok(most)
    }

    /// Limits of a shard. An error names the first text that no provider would take.
    pub(crate) fn limits(&self, order: &Order, offer: &OfferResponse, weights: &[Weight]) -> anyhow::Result<Limits> {
        let units_max = self.units_max(order, offer)?;
        let mut numbered = weights.iter().zip(1_usize..);
        if let Some((weight, number)) = numbered.find(|(weight, _)| weight.units > units_max) {
            bail!(
                "text {number} has {} tokens, the providers take {units_max} at once; nothing was spent",
                weight.units
            );
        }
        Ok(Limits {
            units: Limits::USUAL.units.min(units_max),
            ..Limits::USUAL
        })
    }
}
