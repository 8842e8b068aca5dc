//! The services, each as a command: `fxn devnet`, `fxn host`, `fxn relayer`, `fxn beacon`, and `fxn provider run` for both of a provider's at once.

pub(crate) mod beacon;
pub(crate) mod devnet;
pub(crate) mod host;
mod layers;
pub(crate) mod relayer;
pub(crate) mod stop;

use anyhow::Context as _;
use clap::Args;

use crate::{context::Context, keys::KeyName, provider::check_registered, wallet::check_address};

#[derive(Debug, Args)]
pub(crate) struct Run {
    /// Key of the host in HOME/keys; it signs receipts [default: the key that signs transactions]
    #[arg(long, value_name = "NAME")]
    host_key_name: Option<KeyName>,
    #[command(flatten)]
    host: host::HostFlags,
    #[command(flatten)]
    relayer: relayer::RelayerFlags,
}

/// Host and relayer in one process. Whichever ends first ends the other.
pub(crate) async fn run_both(context: &Context, run: Run) -> anyhow::Result<()> {
    let network = context.network()?;
    let wallet = context.wallet(&context.key_name()?)?;
    let host_key = run
        .host_key_name
        .as_ref()
        .map_or_else(|| Ok(wallet.clone()), |name| context.wallet(name))?;
    // After the last prompt, where Ctrl-C has to end the program by itself.
    let stop = stop::stop_signal()?;
    let own_address = wallet.address(&network.bech32_prefix);
    let host_config = host::configure(context, None, &run.host, &own_address)?;
    // The key that signs transactions may be an operator's; host and relayer serve the same provider.
    let provider = host_config.provider.clone();
    check_address(&provider, &network.bech32_prefix)?;
    let registered = async { check_registered(&context.client().await?, &provider).await };
    match stop.run_until_cancelled(registered).await {
        Some(registered) => registered?,
        None => return Ok(()),
    }
    let relayer_config = relayer::configure(context, None, &run.relayer, Some(&provider))?;
    let host = async {
        let until = stop.clone();
        let result = inference_host::run(host_config, network.clone(), host_key, until.cancelled_owned()).await;
        stop.cancel();
        result.context("the host has stopped")
    };
    let relaying = async {
        let result = ::relayer::run(relayer_config, wallet, stop.clone()).await;
        stop.cancel();
        result.context("the relayer has stopped")
    };
    let (host, relaying) = tokio::join!(host, relaying);
    host.and(relaying)
}
