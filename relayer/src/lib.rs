//! A relayer is one process of a provider: it carries facts between the chain and the provider's host, and keeps the public promises that
//! need somebody to keep them.
//!
//! ```text
//!  chain --blocks--> source --steps--> relayer --+--> checkpoint (file)
//!                                                +--> tracker: one task an item <--> host
//!                                                |        | attestations, evidence
//!                                                |        v
//!  chain <--transactions-- submitter <-----------+---- keeper: overdue items of anybody
//! ```
//!
//! - [`source`]: blocks become "this item is ours" and "this one is over".
//! - [`tracker`]: tells the host about an item, follows it, hands its proof in, testifies after a missed deadline.
//! - [`keeper`], with [`rounds`]: what any relayer does for everybody: expires what is overdue and brings rounds that are needed, after a random
//!   wait and a second look.
//! - [`settler`]: vouchers of sessions that the host holds, on a schedule.
//! - [`submitter`], behind [`queue`]: the only way on chain; batches, and writes down what it sends before it sends it.
//! - [`checkpoint`]: what survives a crash, on a [`disk`]; [`book`]: how the tasks change it. [`chain`] and [`host`]: the two ends. [`status`]: what it says about itself.
//! - [`pulse`]: height, clock, nodes and gas money, for the status. [`crash`]: where tests kill the process, and nothing in any other build.
//! - [`relayer`]: owns the tasks. [`config`], [`retry`]: what an operator sets; how often and how soon.
//!
//! The chain may be behind several nodes (`rpc` in the configuration). The client asks the healthiest, never one of another chain, and takes no
//! answer that is older than one before; the relayer sees one chain that sometimes is slow. How a transaction that gets stuck, a fee that is too
//! high and two relayers of one provider are dealt with: docs/adr/0016.
//!
//! Nothing is trusted because a relayer says it: whatever it carries is signed by hosts and checked by contracts. Losing one loses nothing.

pub mod book;
pub mod chain;
pub mod checkpoint;
pub mod config;
pub mod crash;
pub mod disk;
pub mod host;
pub mod keeper;
pub mod pulse;
pub mod queue;
pub mod relayer;
pub mod retry;
pub mod rounds;
pub mod settler;
pub mod source;
pub mod status;
pub mod submitter;
pub mod tracker;

use std::{path::PathBuf, sync::Arc};

use client::{Account, Client, ClientError, Limits, Network, NetworkError, Wallet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::{
    chain::{live::LiveChain, ChainError},
    checkpoint::CheckpointError,
    disk::{Disk, SystemDisk},
    host::HostError,
};
pub use crate::{
    config::{Config, ConfigError},
    relayer::{Relayer, RelayerFile},
};

/// Why a relayer does not start, or has stopped. Nothing here mends itself.
#[derive(Debug, thiserror::Error)]
pub enum RelayerError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Network(#[from] NetworkError),
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error(transparent)]
    Chain(#[from] ChainError),
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    #[error(transparent)]
    Host(#[from] HostError),
    #[error("the chain gave no answer that can be used within {seconds} s; the last one: {last}")]
    NoChain { seconds: u64, last: String },
    #[error("the node is at block {latest}, but this relayer has read up to {height}: it is far behind, or the chain was reset and the home belongs to the old one")]
    NodeBehind { latest: u64, height: u64 },
    #[error("the network is not the one of the network file: {what} is {found:?}, expected {expected:?}")]
    Mismatch {
        what: String,
        expected: String,
        found: String,
    },
    #[error("cannot offer the status: {0}")]
    Status(#[source] std::io::Error),
    #[error("{path}: {source}", path = path.display())]
    File { path: PathBuf, source: std::io::Error },
    #[error("the {task} task is gone: {reason}")]
    Task { task: &'static str, reason: String },
}

/// Relays for the provider of the configuration, signing with `wallet`, until `shutdown`. Everything else is the caller's: arguments,
/// logs, signals, exit codes.
pub async fn run(config: Config, wallet: Wallet, shutdown: CancellationToken) -> Result<(), RelayerError> {
    run_on(Arc::new(SystemDisk), config, wallet, shutdown).await
}

/// The same with its files on another disk.
pub async fn run_on(
    disk: Arc<dyn Disk>,
    config: Config,
    wallet: Wallet,
    shutdown: CancellationToken,
) -> Result<(), RelayerError> {
    config.check()?;
    let network = Network::load(&config.network)?;
    let mut config = config;
    if let (true, Some(beacon)) = (config.beacon.is_empty(), &network.beacon) {
        config.beacon.clone_from(&beacon.urls);
    }
    let limits = Limits {
        gas_percent: config.gas_percent,
        fee_max: Some(config.fee_max.into()),
        blocks_max: Some(config.stuck_blocks),
    };
    let starting = async {
        let account = Account::new(connect(&config, network).await?, wallet).with_limits(limits);
        let provider = config.provider.clone().unwrap_or_else(|| account.address().to_owned());
        Relayer::start_on(disk, config, LiveChain::new(account), &provider).await
    };
    match shutdown.run_until_cancelled(starting).await {
        Some(relayer) => relayer?.run(shutdown).await,
        None => Ok(()),
    }
}

/// A node that answers nonsense can be mended while we wait.
fn may_pass(error: &ClientError) -> bool {
    error.is_transient() || matches!(error, ClientError::BadAnswer { .. })
}

async fn connect(config: &Config, network: Network) -> Result<Client, ClientError> {
    let since = Instant::now();
    loop {
        match Client::connect_to(network.clone(), &config.rpc, config.rpc_timeout).await {
            Err(error) if may_pass(&error) && since.elapsed() < config.start_timeout => {
                tracing::debug!(%error, "waiting for the node");
                tokio::time::sleep(config.retry_pause).await;
            }
            result => return result,
        }
    }
}
