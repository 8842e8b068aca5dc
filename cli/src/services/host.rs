//! `fxn host`: runs the stages that a provider has deployed.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use clap::Args;
use inference_host::{onnx::Device, Config};

use super::{layers::Layers, stop};
use crate::{context::Context, engine::Library, wallet::check_address};

#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  fxn host --key host --provider wasm1... --source http://127.0.0.1:7080\n\n--key is the host's own key, which signs receipts. Every field of the configuration may stand in the file, and in FXN_HOST_<FIELD> of the\nenvironment, which wins over flags."
)]
pub(crate) struct Options {
    /// TOML file with any field of the configuration
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    flags: HostFlags,
}

#[derive(Debug, Args)]
pub(crate) struct HostFlags {
    /// Account of the provider whose deployments are served [default: the key's own]
    #[arg(long, value_name = "ADDRESS")]
    provider: Option<String>,
    /// Public address: pushes, blobs, outputs; port 0 takes a free one [default: 127.0.0.1:7070]
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<SocketAddr>,
    /// Private address: work, status, metrics [default: 127.0.0.1:7071]
    #[arg(long, value_name = "ADDRESS")]
    status: Option<SocketAddr>,
    /// Where weights may be fetched, a URL or a folder; may be given several times
    #[arg(long = "source", value_name = "URL|DIR")]
    sources: Vec<String>,
    /// What computes: cpu, cuda or cuda:N [default: cpu]
    #[arg(long, value_name = "DEVICE")]
    device: Option<Device>,
    /// Threads of the engine [default: one per core]
    #[arg(long, value_name = "N")]
    threads: Option<u16>,
    /// Dial next hosts in private address ranges too
    #[arg(long)]
    allow_private_peers: bool,
    #[command(flatten)]
    library: Library,
}

pub(crate) fn configure(
    context: &Context,
    file: Option<&Path>,
    flags: &HostFlags,
    own_address: &str,
) -> anyhow::Result<Config> {
    let mut layers = Layers::new("host", &["sources"], file)?;
    layers.default("home", context.home.display().to_string());
    layers.default("provider", own_address.to_owned());
    layers.flag("provider", flags.provider.clone());
    layers.flag("listen", flags.listen.map(|listen| listen.to_string()));
    layers.flag("status", flags.status.map(|status| status.to_string()));
    layers.flag("sources", (!flags.sources.is_empty()).then(|| flags.sources.clone()));
    layers.flag("device", flags.device.map(|device| device.to_string()));
    layers.flag("threads", flags.threads.map(i64::from));
    layers.flag("allow_private_peers", flags.allow_private_peers.then_some(true));
    layers.flag(
        "onnxruntime",
        flags
            .library
            .onnxruntime
            .as_ref()
            .map(|path| path.display().to_string()),
    );
    layers.environment(std::env::vars());
    let config: Config = layers.finish()?;
    config.check()?;
    Ok(config)
}

pub(crate) async fn run(context: &Context, options: &Options) -> anyhow::Result<()> {
    let network = context.network()?;
    let host_key = context.wallet(&context.key_name()?)?;
    // After the prompt, where Ctrl-C has to end the program by itself.
    let stop = stop::stop_signal()?;
    let own_address = host_key.address(&network.bech32_prefix);
    let config = configure(context, options.config.as_deref(), &options.flags, &own_address)?;
    check_address(&config.provider, &network.bech32_prefix)?;
    inference_host::run(config, network, host_key, stop.cancelled_owned()).await
}
