//! Providers as anybody sees them.

use std::fmt;

use clap::Args;
use schema::staking::{DeploymentResponse, DeploymentState, ProviderResponse};
use serde::Serialize;

use crate::{
    amount::Func,
    context::Context,
    output::{bold, Table},
    wallet::check_address,
};

#[derive(Debug, Args)]
pub(crate) struct Show {
    /// Address of the provider; the key's own if absent
    provider: Option<String>,
}

#[derive(Debug, Serialize)]
struct Shown {
    #[serde(flatten)]
    provider: ProviderResponse,
    listed: Vec<DeploymentResponse>,
}

pub(crate) async fn show(context: &Context, show: Show) -> anyhow::Result<()> {
    let provider = show.provider.map_or_else(|| context.address(), Ok)?;
    let client = context.client().await?;
    check_address(&provider, &client.network().bech32_prefix)?;
    let shown = Shown {
        provider: client.staking().provider(&provider).await?,
        listed: client.staking().all_deployments(Some(&provider)).await?,
    };
    context.output.print(&shown)
}

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ProviderResponse {
            provider,
            profile,
            bond,
            committed,
            penalties,
            ..
        } = &self.provider;
        writeln!(f, "{}  {}", bold(&profile.name), provider)?;
        writeln!(f, "endpoint {}, host key {}", profile.endpoint, profile.host_key)?;
        let [bond, committed, penalties] = [*bond, *committed, *penalties].map(Func::from);
        writeln!(
            f,
            "bond {bond} FUNC, {committed} behind slots, {penalties} paid in penalties\n"
        )?;
        let mut table = Table::new([
            ">deployment",
            "model",
            "stages",
            ">busy",
            ">slots",
            "state",
            ">FUNC/1k in",
            ">FUNC/1k out",
            ">FUNC/request",
            "engine class",
        ]);
        for deployment in &self.listed {
            let terms = &deployment.terms;
            let prices = [terms.ask.per_1k_in, terms.ask.per_1k_out, terms.ask.per_request];
            let [per_1k_in, per_1k_out, per_request] = prices.map(|price| Func::from(price).to_string());
            table.row([
                deployment.deployment.to_string(),
                format!("{}@{}", terms.model, terms.version),
                format!("{}..{}", terms.first, terms.last),
                deployment.busy.to_string(),
                terms.slots.to_string(),
                state(deployment.state).to_owned(),
                per_1k_in,
                per_1k_out,
                per_request,
                terms.engine_class.clone(),
            ]);
        }
        table.fmt(f)
    }
}

fn state(state: DeploymentState) -> &'static str {
    match state {
        DeploymentState::Active => "active",
        DeploymentState::Draining => "draining",
    }
}

#[derive(Debug, Serialize)]
#[serde(transparent)]
struct Providers(Vec<ProviderResponse>);

pub(crate) async fn list(context: &Context) -> anyhow::Result<()> {
    let client = context.client().await?;
    context
        .output
        .print(&Providers(client.staking().all_providers().await?))
}

impl fmt::Display for Providers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return write!(f, "No provider has registered yet.");
        }
        let mut table = Table::new([
            "provider",
            "name",
            ">deployments",
            ">bond FUNC",
            ">penalties FUNC",
            "endpoint",
        ]);
        for provider in &self.0 {
            table.row([
                provider.provider.clone(),
                provider.profile.name.clone(),
                provider.deployments.to_string(),
                Func::from(provider.bond).to_string(),
                Func::from(provider.penalties).to_string(),
                provider.profile.endpoint.clone(),
            ]);
        }
        table.fmt(f)
    }
}
