//! What the owner of a model changes after publication.

use std::fmt;

use anyhow::bail;
use clap::{Args, ValueEnum};
use client::{Account, Call, TxOutcome};
use schema::{
    escrow,
    price::RoyaltyRate,
    registry::{EndpointTerms, ExecuteMsg, ModelStatus, Parent, Share, Unit},
    Event, ModelId,
};
use serde::Serialize;

use crate::{amount::Func, context::Context, output::Table};

/// What one unit of an endpoint is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum UnitName {
    Token,
    Request,
    Image,
    Second,
}

impl From<UnitName> for Unit {
    fn from(name: UnitName) -> Self {
        match name {
            UnitName::Token => Self::Token,
            UnitName::Request => Self::Request,
            UnitName::Image => Self::Image,
            UnitName::Second => Self::Second,
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct Price {
    /// namespace/name
    model: ModelId,
    #[command(flatten)]
    terms: Terms,
}

/// An endpoint and what its creator asks.
#[derive(Debug, Clone, Args)]
pub(crate) struct Terms {
    /// Name of the endpoint
    #[arg(long, default_value = "embeddings")]
    pub(crate) endpoint: String,
    /// What is counted
    #[arg(long, value_enum, default_value = "token")]
    pub(crate) unit: UnitName,
    /// Royalty on the compute fee, in hundredths of a per cent
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u16).range(0..=10_000))]
    pub(crate) royalty_bps: u16,
    /// Royalty for 1000 units, in FUNC
    #[arg(long, default_value = "0", value_name = "FUNC")]
    pub(crate) royalty_per_1k: Func,
}

impl Terms {
    pub(crate) fn terms(&self) -> EndpointTerms {
        EndpointTerms {
            unit: self.unit.into(),
            royalty: RoyaltyRate {
                royalty_bps: self.royalty_bps,
                royalty_per_1k_units: self.royalty_per_1k.into(),
            },
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct Retire {
    /// namespace/name
    model: ModelId,
    /// Only this version; the whole model if absent
    #[arg(long, value_name = "N")]
    version_number: Option<u32>,
}

#[derive(Debug, Args)]
pub(crate) struct Royalties {
    /// namespace/name
    model: ModelId,
    /// Pass it on; anyone may
    #[arg(long)]
    distribute: bool,
}

#[derive(Debug, Serialize)]
struct Changed {
    model: ModelId,
    tx_hash: String,
    height: u64,
}

async fn execute(account: &Account, message: &ExecuteMsg) -> anyhow::Result<TxOutcome> {
    let call = Call::execute(&account.client().contracts().model_registry, message)?;
    Ok(account.execute(&[call]).await?)
}

fn changed(model: ModelId, outcome: &TxOutcome) -> Changed {
    Changed {
        model,
        tx_hash: outcome.hash.to_string(),
        height: outcome.height,
    }
}

pub(crate) async fn price(context: &Context, price: Price) -> anyhow::Result<()> {
    let account = context.account().await?;
    let message = ExecuteMsg::SetEndpoint {
        model: price.model.clone(),
        endpoint: price.terms.endpoint.clone(),
        terms: price.terms.terms(),
    };
    let outcome = execute(&account, &message).await?;
    let sentence = format!(
        "Endpoint {} of {} has its new royalty.",
        price.terms.endpoint, price.model
    );
    context.output.done(&changed(price.model, &outcome), sentence)
}

pub(crate) async fn retire(context: &Context, retire: Retire) -> anyhow::Result<()> {
    let Retire { model, version_number } = retire;
    let what = match version_number {
        Some(version) => format!("version {version} of {model}"),
        None => format!("{model}, with all its versions and for ever"),
    };
    if !context.confirm(&format!("Retire {what}?"))? {
        bail!("nothing was retired");
    }
    let message = match version_number {
        Some(version) => ExecuteMsg::RetireVersion {
            model: model.clone(),
            version,
        },
        None => ExecuteMsg::SetStatus {
            model: model.clone(),
            status: ModelStatus::Retired,
        },
    };
    let outcome = execute(&context.account().await?, &message).await?;
    context
        .output
        .done(&changed(model, &outcome), format!("Retired {what}."))
}

/// What has come to a model as a parent.
#[derive(Debug, Serialize)]
struct Accrued {
    model: ModelId,
    /// Not yet passed on, in ufunc.
    available: Func,
    /// Passed on by this command, in ufunc.
    #[serde(skip_serializing_if = "Option::is_none")]
    distributed: Option<Func>,
    payout: Vec<Share>,
    parents: Vec<Parent>,
}

impl fmt::Display for Accrued {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(distributed) = self.distributed {
            writeln!(f, "{distributed} FUNC were passed on.")?;
        }
        writeln!(f, "{} FUNC have accrued to {} as a parent.", self.available, self.model)?;
        let mut table = Table::new(["goes to", ">bps"]);
        for parent in &self.parents {
            table.row([
                format!("parent {}, before all others", parent.model),
                parent.bps.to_string(),
            ]);
        }
        for share in &self.payout {
            table.row([share.address.clone(), share.bps.to_string()]);
        }
        table.fmt(f)
    }
}

pub(crate) async fn royalties(context: &Context, royalties: Royalties) -> anyhow::Result<()> {
    let Royalties { model, distribute } = royalties;
    let mut distributed = None;
    let client = if distribute {
        let account = context.account().await?;
        distributed = Some(pass_on(&account, &model).await?);
        account.client().clone()
    } else {
        context.client().await?
    };
    let rule = client.registry().payout(&model).await?;
    let holder = escrow::Holder::Model(model.clone()).to_string();
    let money = client.escrow().money(&holder).await?;
    context.output.print(&Accrued {
        model,
        available: money.available.into(),
        distributed,
        payout: rule.payout,
        parents: rule.parents,
    })
}

/// Distributes what has accrued to a model; returns how much.
pub(crate) async fn pass_on(account: &Account, model: &ModelId) -> anyhow::Result<Func> {
    let message = escrow::ExecuteMsg::DistributeRoyalties { model: model.clone() };
    let call = Call::execute(&account.client().contracts().royalty_escrow, &message)?;
    let outcome = account.execute(&[call]).await?;
    let mut events = outcome.events.iter().filter_map(|event| Event::from_wasm(event).ok()?);
    let amount = events.find_map(|event| match event {
        Event::RoyaltiesDistributed { amount, .. } => Some(Func::from(amount)),
        _ => None,
    });
    Ok(amount.unwrap_or_default())
}
