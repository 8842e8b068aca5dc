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
            backing,
            settled,
            reserve,
            free,
            penalties,
            ..
        } = &self.provider;
        writeln!(f, "{}  {}", bold(&profile.name), provider)?;
        writeln!(f, "endpoint {}, host key {}", profile.endpoint, profile.host_key)?;
        writeln!(f, "{}\n", standing(&self.provider))?;
        let mut money = Table::new(["bond", ">FUNC", "what it is for"]);
        for (name, amount, meaning) in [
            ("bond", bond, "all that is not unbonding"),
            ("behind slots", committed, "of all deployments, busy or not"),
            ("behind busy slots", backing, "open exposure"),
            (
                "settled lately",
                settled,
                "price of work inside the audit window: the rest of the exposure",
            ),
            (
                "reserve",
                reserve,
                "exposure and reserve together are at most the bond, else no new work",
            ),
            ("free", free, "may be unbonded now"),
            ("penalties", penalties, "ever paid for misses"),
        ] {
            money.row([name.to_owned(), Func::from(*amount).to_string(), meaning.to_owned()]);
        }
        money.fmt(f)?;
        writeln!(f)?;
        let mut table = Table::new([
            ">deployment",
            "model",
            "stages",
            ">busy",
            ">slots",
            "state",
            ">link faults",
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
                deployment.link_faults.to_string(),
                per_1k_in,
                per_1k_out,
                per_request,
                terms.engine_class.clone(),
            ]);
        }
        table.fmt(f)
    }
}

/// What misses have led to.
fn standing(provider: &ProviderResponse) -> String {
    let strikes = provider.strikes.len();
    match provider.jailed_until {
        Some(until) => format!("jailed: no new work; `fxn provider unjail` is taken from {until} on (block time)"),
        None => format!("not jailed, {strikes} strikes inside the window"),
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
            "jailed until",
            "endpoint",
        ]);
        for provider in &self.0 {
            table.row([
                provider.provider.clone(),
                provider.profile.name.clone(),
                provider.deployments.to_string(),
                Func::from(provider.bond).to_string(),
                Func::from(provider.penalties).to_string(),
                provider
                    .jailed_until
                    .map_or_else(|| "-".to_owned(), |until| until.to_string()),
                provider.profile.endpoint.clone(),
            ]);
        }
        table.fmt(f)
    }
}
