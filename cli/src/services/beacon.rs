//! `fxn beacon`: rounds of randomness signed with a key of one's own, for networks that do not use drand's.

use std::{net::SocketAddr, path::PathBuf};

use anyhow::{ensure, Context as _};
use beacon::{server::wall_clock, Secret, Server};
use clap::Args;
use client::Network;
use schema::{BeaconKey, Schedule};
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;

use super::{devnet::params, layers::Layers, stop};
use crate::context::Context;

/// Tells where it answers, while it does.
pub(crate) const FILE: &str = "beacon.json";

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  fxn beacon --development\n  fxn beacon --key dice --period 3\n\nThe paths are drand's: /info, /public/latest, /public/ROUND. Relayers bring the rounds to the chain: fxn relayer --beacon URL.\nWhoever has the key knows every round in advance: it is for development, and everybody has the development key.\n`fxn devnet` answers the same under /beacon of its RPC, so beside it this is not needed."
)]
pub(crate) struct Options {
    /// TOML file with any of: listen, genesis_seconds, period_seconds
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Sign with the key of development networks instead of --key
    #[arg(long)]
    development: bool,
    /// Where it listens; port 0 takes a free one [default: 127.0.0.1:7073]
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<SocketAddr>,
    /// Unix time of round 1 [default: the network file's, else the local profile's]
    #[arg(long, value_name = "SECONDS")]
    genesis: Option<u64>,
    /// Seconds between two rounds [default: the network file's, else the local profile's]
    #[arg(long, value_name = "SECONDS")]
    period: Option<u64>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    listen: SocketAddr,
    genesis_seconds: u64,
    period_seconds: u64,
}

/// What a running beacon tells about itself.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Started {
    pub(crate) url: String,
    pub(crate) public_key: BeaconKey,
    genesis_seconds: u64,
    period_seconds: u64,
    pid: u32,
}

/// The schedule of the network, if its beacon has this key, else of the local profile.
fn usual(context: &Context, key: &BeaconKey) -> anyhow::Result<Schedule> {
    let path = context.network_path();
    let network = path.exists().then(|| Network::load(&path)).transpose()?;
    if let Some(beacon) = network.and_then(|network| network.beacon) {
        ensure!(
            beacon.public_key == *key,
            "the network of {} trusts the beacon {}, this key is {key}",
            path.display(),
            beacon.public_key
        );
        return Ok(beacon.schedule());
    }
    let profile = params(None)?.beacon.context("the local profile has no beacon")?;
    Ok(profile.schedule())
}

fn configure(options: &Options, usual: Schedule) -> anyhow::Result<Config> {
    let seconds = |seconds: u64| i64::try_from(seconds).context("these seconds are none that a clock has");
    let mut layers = Layers::new("beacon", &[], options.config.as_deref())?;
    layers.default("listen", "127.0.0.1:7073");
    layers.default("genesis_seconds", seconds(usual.genesis_seconds)?);
    layers.default("period_seconds", seconds(usual.period_seconds)?);
    layers.flag("listen", options.listen.map(|listen| listen.to_string()));
    layers.flag("genesis_seconds", options.genesis.map(seconds).transpose()?);
    layers.flag("period_seconds", options.period.map(seconds).transpose()?);
    layers.environment(std::env::vars());
    let config: Config = layers.finish()?;
    ensure!(config.period_seconds > 0, "a period lasts at least a second");
    Ok(config)
}

pub(crate) async fn run(context: &Context, options: &Options) -> anyhow::Result<()> {
    let secret = match options.development {
        true => Secret::development(),
        false => Secret::from_secret(context.wallet(&context.key_name()?)?.secret().as_slice())?,
    };
    // After the prompt, where Ctrl-C has to end the program by itself.
    let stop = stop::stop_signal()?;
    let public_key = secret.public_key();
    let config = configure(options, usual(context, &public_key)?)?;
    let listener = TcpListener::bind(config.listen).await;
    let listener = listener.with_context(|| format!("cannot listen on {}", config.listen))?;
    let address = listener.local_addr().context("failed to read the own address")?;
    let schedule = Schedule {
        genesis_seconds: config.genesis_seconds,
        period_seconds: config.period_seconds,
    };
    let started = Started {
        url: format!("http://{address}"),
        public_key,
        genesis_seconds: config.genesis_seconds,
        period_seconds: config.period_seconds,
        pid: std::process::id(),
    };
    stop::announce(&context.home, FILE, &started)?;
    let sentence = format!("The beacon {public_key} answers at {}. Ctrl-C stops it.", started.url);
    context.output.done(&started, sentence)?;
    Server::new(secret, schedule, wall_clock).serve(listener, stop).await;
    // Whether or not it is gone, it says nothing any more.
    let _ = std::fs::remove_file(context.home.join(FILE));
    Ok(())
}
