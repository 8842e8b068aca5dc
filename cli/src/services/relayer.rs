//! `fxn relayer`: carries facts between the chain and the provider's host.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use clap::Args;
use relayer::Config;

use super::{layers::Layers, stop};
use crate::context::Context;

#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  fxn relayer --key relayer --provider wasm1... --host-home ~/.fxn\n\n--key pays the gas. Every field of the configuration may stand in the file, and in FXN_RELAYER_<FIELD> of the environment, which wins\nover flags."
)]
pub(crate) struct Options {
    /// TOML file with any field of the configuration
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Account of the provider that is relayed for [default: the key's own]
    #[arg(long, value_name = "ADDRESS")]
    provider: Option<String>,
    #[command(flatten)]
    flags: RelayerFlags,
}

#[derive(Debug, Args)]
pub(crate) struct RelayerFlags {
    /// Folder in which the host leaves host.json and host.token [default: HOME]
    #[arg(long, value_name = "DIR")]
    host_home: Option<PathBuf>,
    /// Where the relayer answers about itself; port 0 takes a free one [default: 127.0.0.1:7072]
    #[arg(long, value_name = "ADDRESS")]
    relayer_status: Option<SocketAddr>,
    /// Server with drand's HTTP paths from which rounds of the beacon are brought to the chain; may be repeated [default: the network file's]
    #[arg(long, value_name = "URL")]
    beacon: Vec<String>,
}

pub(crate) fn configure(
    context: &Context,
    file: Option<&Path>,
    flags: &RelayerFlags,
    provider: Option<&str>,
) -> anyhow::Result<Config> {
    let mut layers = Layers::new("relayer", &["rpc", "beacon"], file)?;
    layers.default("home", context.home.display().to_string());
    layers.default("host_home", context.home.display().to_string());
    layers.default("network", context.network_path().display().to_string());
    layers.flag("rpc", (!context.nodes().is_empty()).then(|| context.nodes().to_vec()));
    layers.flag("provider", provider);
    layers.flag(
        "host_home",
        flags.host_home.as_ref().map(|path| path.display().to_string()),
    );
    layers.flag("beacon", (!flags.beacon.is_empty()).then(|| flags.beacon.clone()));
    layers.flag("status_listen", flags.relayer_status.map(|status| status.to_string()));
    layers.environment(std::env::vars());
    let config: Config = layers.finish()?;
    config.check()?;
    Ok(config)
}

pub(crate) async fn run(context: &Context, options: &Options) -> anyhow::Result<()> {
    let wallet = context.wallet(&context.key_name()?)?;
    // After the prompt, where Ctrl-C has to end the program by itself.
    let stop = stop::stop_signal()?;
    let config = configure(
        context,
        options.config.as_deref(),
        &options.flags,
        options.provider.as_deref(),
    )?;
    Ok(::relayer::run(config, wallet, stop).await?)
}
