//! Offering stages, and taking the offer back.

use std::{collections::BTreeMap, str::FromStr};

use anyhow::{bail, ensure, Context as _};
use clap::Args;
use client::{Call, Client, ClientError};
use inference_host::onnx::Device;
use schema::{
    price::Ask,
    staking::{self, DeploymentTerms, ExecuteMsg, ReceiveMsg, Sla},
    Event, ModelId,
};
use serde::Serialize;

use super::{changed, check_registered, execute, staking_send};
use crate::{amount::Func, context::Context, engine::Library, wallet::check_balance};

#[derive(Debug, Args)]
pub(crate) struct Deploy {
    /// namespace/name
    #[arg(long)]
    model: ModelId,
    /// Version of the model [default: the newest]
    #[arg(long, value_name = "N")]
    model_version: Option<u32>,
    /// Stages served, FIRST..LAST with both ends included, or one number
    #[arg(long, value_name = "FIRST..LAST")]
    stages: Stages,
    /// Prices in FUNC: per_1k_in=..,per_1k_out=..,per_request=..; what is not named is 0
    #[arg(long, value_name = "PRICES", value_parser = parse_ask)]
    ask: Ask,
    /// Price in FUNC of a slot that a session keeps for an hour [default: the least that the network takes]
    #[arg(long, value_name = "FUNC")]
    reservation_per_hour: Option<Func>,
    /// Items and sessions served at the same time; each is backed by bond
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=1000))]
    slots: u16,
    /// The commitment: base=SECONDS,rate=SECONDS per 1000 units,units=most units of an item,penalty=BPS of its price
    #[arg(long, value_name = "TERMS", value_parser = parse_sla)]
    sla: Sla,
    /// What decides the bits [default: the class of this machine, asked of ONNX Runtime]
    #[arg(long, value_name = "CLASS")]
    engine_class: Option<String>,
    /// Device of this machine whose class is asked for: cpu, cuda or cuda:N
    #[arg(long, value_name = "DEVICE", default_value = "cpu", conflicts_with = "engine_class")]
    device: Device,
    #[command(flatten)]
    library: Library,
}

/// `FIRST..LAST`, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stages {
    first: u8,
    last: u8,
}

impl FromStr for Stages {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (first, last) = text.split_once("..").unwrap_or((text, text));
        let parse = |number: &str| number.parse::<u8>().ok();
        match (parse(first), parse(last)) {
            (Some(first), Some(last)) if first <= last => Ok(Self { first, last }),
            _ => Err("write FIRST..LAST, for example 0..1, or one number; stages count from 0".to_owned()),
        }
    }
}

/// `name=value,name=value`, every name known and at most once.
fn fields<'a>(text: &'a str, known: &[&str]) -> Result<BTreeMap<&'a str, &'a str>, String> {
    let mut found = BTreeMap::new();
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let (name, value) = part
            .split_once('=')
            .ok_or_else(|| format!("{part:?} is not name=value"))?;
        if !known.contains(&name) {
            return Err(format!("{name:?} is unknown; there are {}", known.join(", ")));
        }
        if found.insert(name, value).is_some() {
            return Err(format!("{name:?} stands there twice"));
        }
    }
    Ok(found)
}

fn parse_ask(text: &str) -> Result<Ask, String> {
    let fields = fields(text, &["per_1k_in", "per_1k_out", "per_request"])?;
    let price = |name: &str| -> Result<Func, String> {
        let value = fields.get(name).copied().unwrap_or("0");
        value.parse().map_err(|error| format!("{name}: {error}"))
    };
    Ok(Ask {
        per_1k_in: price("per_1k_in")?.into(),
        per_1k_out: price("per_1k_out")?.into(),
        per_request: price("per_request")?.into(),
    })
}

fn parse_sla(text: &str) -> Result<Sla, String> {
    let fields = fields(text, &["base", "rate", "units", "penalty"])?;
    let number = |name: &str| -> Result<u64, String> {
        let value = fields.get(name).ok_or_else(|| format!("{name} is missing"))?;
        value
            .parse()
            .map_err(|_| format!("{name} is {value:?}, not a whole number"))
    };
    let penalty = number("penalty")?;
    Ok(Sla {
        base_seconds: number("base")?,
        seconds_per_1k_units: number("rate")?,
        units_max: number("units")?,
        penalty_bps: u16::try_from(penalty).map_err(|_| format!("penalty is {penalty}, at most 10000 is possible"))?,
    })
}

#[derive(Debug, Serialize)]
struct Listed {
    deployment: u64,
    provider: String,
    engine_class: String,
    burnt: Func,
    tx_hash: String,
    height: u64,
}

pub(crate) async fn deploy(context: &Context, deploy: Deploy) -> anyhow::Result<()> {
    let engine_class = match &deploy.engine_class {
        Some(class) => class.clone(),
        None => deploy.library.engine_class(deploy.device)?,
    };
    let account = context.account().await?;
    let client = account.client();
    check_registered(client, account.address()).await?;
    let version = version(client, &deploy).await?;
    let stages = client.registry().version(&deploy.model, version).await?.stages.len();
    ensure!(
        usize::from(deploy.stages.last) < stages,
        "version {version} of {} has {stages} stages, counted from 0: there is no stage {}",
        deploy.model,
        deploy.stages.last
    );
    let dues = dues(client).await?;
    let terms = DeploymentTerms {
        version,
        model: deploy.model,
        first: deploy.stages.first,
        last: deploy.stages.last,
        engine_class: engine_class.clone(),
        ask: deploy.ask,
        reservation_per_hour: deploy
            .reservation_per_hour
            .unwrap_or(dues.reservation_per_hour_min)
            .into(),
        slots: deploy.slots,
        sla: deploy.sla,
    };
    let fee = dues.listing_fee;
    check_balance(&account, fee).await?;
    let outcome = account.execute(&[deploy_call(client, fee, terms)?]).await?;
    let mut events = outcome.events.iter().filter_map(|event| Event::from_wasm(event).ok()?);
    let listed = events.find_map(|event| match event {
        Event::DeploymentListed { deployment, burnt, .. } => Some((deployment, Func::from(burnt))),
        _ => None,
    });
    let (deployment, burnt) = listed.context("the chain told no deployment_listed event")?;
    let listed = Listed {
        deployment,
        provider: account.address().to_owned(),
        engine_class,
        burnt,
        tx_hash: outcome.hash.to_string(),
        height: outcome.height,
    };
    context.output.done(
        &listed,
        format!("Deployment {deployment} is listed; {burnt} FUNC were burnt for it."),
    )
}

async fn version(client: &Client, deploy: &Deploy) -> anyhow::Result<u32> {
    if let Some(version) = deploy.model_version {
        return Ok(version);
    }
    let model = client.registry().model(&deploy.model).await?;
    if model.versions == 0 {
        bail!("{} has no version to serve yet", deploy.model);
    }
    Ok(model.versions)
}

/// What the network wants of a deployment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Dues {
    /// Burnt when it is listed.
    pub(crate) listing_fee: Func,
    /// Least that it may ask for a slot reserved for an hour.
    pub(crate) reservation_per_hour_min: Func,
}

pub(crate) async fn dues(client: &Client) -> Result<Dues, ClientError> {
    let params = client.staking().config().await?.params;
    Ok(Dues {
        listing_fee: params.listing_fee.into(),
        reservation_per_hour_min: params.reservation_per_hour_min.into(),
    })
}

pub(crate) fn deploy_call(client: &Client, fee: Func, terms: DeploymentTerms) -> Result<Call, ClientError> {
    staking_send(client, fee, &ReceiveMsg::Deploy { terms })
}

#[derive(Debug, Args)]
pub(crate) struct Drain {
    /// Number of the deployment
    deployment: u64,
    /// Also forget it and free its bond, if it is idle
    #[arg(long)]
    remove: bool,
}

pub(crate) async fn drain(context: &Context, drain: Drain) -> anyhow::Result<()> {
    let Drain { deployment, remove } = drain;
    let account = context.account().await?;
    let found = account.client().staking().deployment(deployment).await?;
    let mut outcome = None;
    if found.state == staking::DeploymentState::Active {
        outcome = Some(execute(&account, &ExecuteMsg::Drain { deployment }).await?);
    }
    if remove {
        outcome = Some(execute(&account, &ExecuteMsg::Remove { deployment }).await?);
    }
    let done = if remove {
        "removed; its bond is free"
    } else {
        "taking no new work"
    };
    let outcome = outcome.with_context(|| format!("deployment {deployment} is draining already"))?;
    context.output.done(
        &changed(&account, None, &outcome),
        format!("Deployment {deployment} is {done}."),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stages_are_one_number_or_both_ends() {
        assert_eq!("0..2".parse(), Ok(Stages { first: 0, last: 2 }));
        assert_eq!("1".parse(), Ok(Stages { first: 1, last: 1 }));
        for bad in ["", "..", "2..1", "0-1", "a", "0..300", "-1"] {
            assert!(bad.parse::<Stages>().is_err(), "{bad}");
        }
    }

    #[test]
    fn an_ask_names_its_prices_in_func() {
        let ask = parse_ask("per_1k_in=0.002, per_request=5ufunc").unwrap();
        assert_eq!(
            (ask.per_1k_in.u128(), ask.per_1k_out.u128(), ask.per_request.u128()),
            (2000, 0, 5)
        );
        for bad in ["per_1k=1", "per_1k_in", "per_1k_in=x", "per_1k_in=1,per_1k_in=2"] {
            assert!(parse_ask(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_sla_is_complete() {
        let sla = parse_sla("base=2,rate=1,units=8192,penalty=2000").unwrap();
        assert_eq!(
            (
                sla.base_seconds,
                sla.seconds_per_1k_units,
                sla.units_max,
                sla.penalty_bps
            ),
            (2, 1, 8192, 2000)
        );
        assert_eq!(parse_sla("base=2,rate=1,units=8192").unwrap_err(), "penalty is missing");
        assert!(parse_sla("base=2,rate=1,units=1,penalty=70000").is_err());
    }
}
