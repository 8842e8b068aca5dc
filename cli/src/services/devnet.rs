//! `fxn devnet`: the embedded chain with the market's contracts.

use std::{net::SocketAddr, path::Path, path::PathBuf, time::Duration};

use anyhow::{bail, Context as _};
use clap::Args;
use client::Network;
use cosmwasm_std::Decimal;
use devnet::Devnet;
use schema::params::Params;
use serde::{Deserialize, Serialize};

use super::{layers::Layers, stop};
use crate::context::Context;

/// The parameters of devnet and localnet.
const LOCAL: &str = include_str!("../../../params/local.toml");

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  fxn devnet\n  fxn devnet --rpc 127.0.0.1:0 --block-time 250ms\n  fxn devnet --state ~/.fxn/devnet --metrics 127.0.0.1:26660\n\nThe development accounts are worthless: everybody knows their keys. Without --state nothing is kept after a stop."
)]
pub(crate) struct Options {
    /// TOML file with any of: rpc, block_time, chain_id, gas_price, params, state, metrics
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where the RPC listens; port 0 takes a free one [default: 127.0.0.1:26657]
    #[arg(long, value_name = "ADDRESS")]
    rpc: Option<SocketAddr>,
    /// Time between blocks [default: 500ms]
    #[arg(long, value_name = "TIME")]
    block_time: Option<String>,
    /// Parameters of the contracts, a TOML file [default: the local profile]
    #[arg(long, value_name = "FILE")]
    params: Option<PathBuf>,
    /// Folder of the transaction log, from which the chain goes on after a stop or a crash [default: nothing is kept]
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    /// Where Prometheus reads /metrics; port 0 takes a free one [default: nowhere]
    #[arg(long, value_name = "ADDRESS")]
    metrics: Option<SocketAddr>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    rpc: SocketAddr,
    #[serde(with = "humantime_serde")]
    block_time: Duration,
    chain_id: String,
    gas_price: Decimal,
    params: Option<PathBuf>,
    state: Option<PathBuf>,
    metrics: Option<SocketAddr>,
}

/// What a running devnet tells about itself.
#[derive(Debug, Serialize)]
struct Started {
    rpc: String,
    network: PathBuf,
    chain_id: String,
    pid: u32,
    /// Where Prometheus reads, if it may.
    #[serde(skip_serializing_if = "Option::is_none")]
    metrics: Option<SocketAddr>,
    /// What a crash had left in the state folder and was put aside.
    #[serde(skip_serializing_if = "Option::is_none")]
    notice: Option<String>,
}

fn configure(args: &Options) -> anyhow::Result<Config> {
    let mut layers = Layers::new("devnet", &[], args.config.as_deref())?;
    let usual = devnet::Config::default();
    layers.default("rpc", usual.rpc.to_string());
    layers.default("block_time", "500ms");
    layers.default("chain_id", usual.chain_id);
    layers.default("gas_price", usual.gas_price.to_string());
    layers.flag("rpc", args.rpc.map(|rpc| rpc.to_string()));
    layers.flag("block_time", args.block_time.clone());
    layers.flag("params", args.params.as_ref().map(|path| path.display().to_string()));
    layers.flag("state", args.state.as_ref().map(|path| path.display().to_string()));
    layers.flag("metrics", args.metrics.map(|address| address.to_string()));
    layers.environment(std::env::vars());
    layers.finish()
}

/// Parameters of a file, else the local profile.
pub(crate) fn params(path: Option<&Path>) -> anyhow::Result<Params> {
    let Some(path) = path else {
        return toml::from_str(LOCAL).context("the local profile cannot be read");
    };
    let text = std::fs::read_to_string(path).with_context(|| format!("failed to read {}", path.display()))?;
    toml::from_str(&text).with_context(|| format!("{} is no parameter file", path.display()))
}

pub(crate) async fn run(context: &Context, args: &Options) -> anyhow::Result<()> {
    let stop = stop::stop_signal()?;
    let config = configure(args)?;
    let path = context.network_path();
    check_replaceable(&path, &config.chain_id)?;
    let chain_id = config.chain_id.clone();
    let mut running = Devnet::start(devnet::Config {
        rpc: config.rpc,
        block_time: config.block_time,
        chain_id: config.chain_id,
        gas_price: config.gas_price,
        market: Some(params(config.params.as_deref())?),
        state: config.state,
        metrics: config.metrics,
        ..devnet::Config::default()
    })
    .await?;
    let network: Network =
        serde_json::from_value(running.network().clone()).context("the devnet has no full network")?;
    network.save(&path)?;
    let started = Started {
        rpc: running.rpc_url(),
        network: path.clone(),
        chain_id,
        pid: std::process::id(),
        metrics: running.metrics_address(),
        notice: running.notice().map(str::to_owned),
    };
    let notice = started.notice.as_ref().map(|notice| format!("Note: {notice}.\n"));
    let metrics = started
        .metrics
        .map(|address| format!(" Metrics: http://{address}/metrics."));
    let sentence = format!(
        "{}{} answers at {}; its network file is {}.{} Ctrl-C stops it.",
        notice.unwrap_or_default(),
        started.chain_id,
        started.rpc,
        path.display(),
        metrics.unwrap_or_default(),
    );
    context.output.done(&started, sentence)?;
    tokio::select! {
        () = stop.cancelled() => {}
        failure = running.wait() => match failure {
            Some(error) => return Err(error).context("the devnet has stopped: the block that it made is not kept"),
            None => bail!("the node has failed; its log says why"),
        },
    }
    running.shutdown().await;
    Ok(())
}

/// A network file of another chain is somebody's; one of this chain is what the last run left.
fn check_replaceable(path: &Path, chain_id: &str) -> anyhow::Result<()> {
    if !path.exists() {
        return Ok(());
    }
    match Network::load(path) {
        Ok(network) if network.chain_id == chain_id => Ok(()),
        _ => bail!(
            "{} belongs to another network and is not overwritten: give another --network FILE or --home DIR",
            path.display()
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_local_profile_is_read() {
        let params = params(None).unwrap();
        assert_eq!(params.staking.unbonding_seconds, 30);
    }

    #[test]
    fn a_network_file_of_another_chain_is_not_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("network.json");
        assert!(check_replaceable(&path, "fxn-devnet-1").is_ok());
        std::fs::write(&path, "{}").unwrap();
        assert!(check_replaceable(&path, "fxn-devnet-1").is_err());
    }
}
