#![doc = include_str!("../README.md")]

mod accounts;
mod addresses;
mod beacon;
mod code;
mod comet;
mod events;
mod filter;
mod gas;
mod genesis;
mod history;
mod keepers;
mod log;
mod machine;
mod market;
mod mempool;
mod methods;
mod metrics;
mod node;
mod query;
mod rpc;
mod search;
mod service;
mod shape;
mod store;
mod transaction;
mod websocket;

use std::{io, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use cosmwasm_std::Decimal;
use tokio::{net::TcpListener, sync::oneshot, task::JoinHandle};
use tokio_util::sync::CancellationToken;

pub use crate::{
    genesis::{dev_address, Account, DEV_ACCOUNTS, FAUCET, FAUCET_GAS},
    log::StateError,
    machine::Code,
};

/// Prefix of every address, wasmd's.
pub const PREFIX: &str = "wasm";
/// Longest wait at shutdown for connections to finish.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(5);

/// How a devnet is to be.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where the RPC listens. Port 0 takes a free one.
    pub rpc: SocketAddr,
    /// Time between blocks, at least 10 ms.
    pub block_time: Duration,
    /// Name of the chain.
    pub chain_id: String,
    /// The gas coin.
    pub denom: String,
    /// Least price of gas that the node takes, in `denom`.
    pub gas_price: Decimal,
    /// Who has what at the beginning. Whatever FUNC is left belongs to the account [`FAUCET`].
    pub accounts: Vec<Account>,
    /// The market's contracts, deployed and wired with these parameters; `None` leaves the chain bare.
    pub market: Option<schema::params::Params>,
    /// Blocks that can be asked for, the latest included; older ones are answered as by a pruned node.
    pub blocks_kept: usize,
    /// Folder with the transaction log, from which the chain goes on after a restart; `None` keeps nothing. A log is only
    /// replayed on the accounts, parameters and contracts that it was made with.
    pub state: Option<PathBuf>,
    /// Where Prometheus reads `/metrics`; `None` serves none.
    pub metrics: Option<SocketAddr>,
    /// Further contract codes, numbered after those of the market. Anybody may instantiate them.
    pub codes: Vec<Code>,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            rpc: SocketAddr::from(([127, 0, 0, 1], 26657)),
            block_time: Duration::from_millis(500),
            chain_id: "fxn-devnet-1".into(),
            denom: "ustake".into(),
            gas_price: Decimal::permille(25),
            accounts: genesis::dev_accounts(),
            market: None,
            // Nearly fourteen hours of blocks of half a second.
            blocks_kept: 100_000,
            state: None,
            metrics: None,
            codes: vec![],
        }
    }
}

/// Why a devnet does not start.
#[derive(Debug, thiserror::Error)]
pub enum DevnetError {
    /// The address is taken or not ours.
    #[error("cannot listen on {rpc}: {source}")]
    Listen {
        /// The address asked for.
        rpc: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The state folder cannot be used.
    #[error(transparent)]
    State(#[from] StateError),
    /// The first state cannot be made.
    #[error("cannot make the first block: {0}")]
    Genesis(String),
    /// The system gives no further thread.
    #[error("cannot start the node's thread: {0}")]
    Thread(io::Error),
    /// Blocks would come faster than a node can make them.
    #[error("a block time of {} ms is too short, at least 10 ms are needed", .0.as_millis())]
    BlockTime(Duration),
}

/// The embedded chain.
#[derive(Debug)]
pub struct Devnet;

/// A devnet at work. It stops when this is dropped.
#[derive(Debug)]
pub struct Running {
    address: SocketAddr,
    metrics: Option<SocketAddr>,
    network: serde_json::Value,
    notice: Option<String>,
    stop: CancellationToken,
    servers: Vec<JoinHandle<io::Result<()>>>,
    node: Option<oneshot::Receiver<Option<StateError>>>,
}

/// A port of ours. It is taken before anything else happens, so a taken one is told at once.
async fn listen(rpc: SocketAddr) -> Result<(TcpListener, SocketAddr), DevnetError> {
    let listening = async {
        let listener = TcpListener::bind(rpc).await?;
        let address = listener.local_addr()?;
        Ok((listener, address))
    };
    listening.await.map_err(|source| DevnetError::Listen { rpc, source })
}

impl Devnet {
    /// Makes the first block, or goes on from the log, and serves the RPC.
    pub async fn start(config: Config) -> Result<Running, DevnetError> {
        if config.block_time < Duration::from_millis(10) {
            return Err(DevnetError::BlockTime(config.block_time));
        }
        let (listener, address) = listen(config.rpc).await?;
        let metrics_listener = match config.metrics {
            Some(address) => Some(listen(address).await?),
            None => None,
        };
        let stop = CancellationToken::new();
        let guard = stop.clone().drop_guard();
        let chain_id = config.chain_id.clone();
        let block_time = config.block_time;
        let metrics = Arc::new(metrics::Metrics::default());
        let rounds = config.market.as_ref().and_then(beacon::routes);
        let (node, ready) = genesis::prepare(config, format!("http://{address}"), metrics.clone());
        let (service, ended) = service::Service::start(node, block_time, stop.clone()).await?;
        let router = rpc::router(rpc::Context {
            service,
            chain_id,
            rpc: format!("tcp://{address}"),
            metrics: metrics.clone(),
            stop: stop.clone(),
        });
        let router = match rounds {
            Some(rounds) => router.nest(beacon::PATH, rounds),
            None => router,
        };
        let serving = axum::serve(listener, router).with_graceful_shutdown(stop.clone().cancelled_owned());
        let ready = ready.await.map_err(|_| DevnetError::Genesis("no network".into()))?;
        let mut servers = vec![tokio::spawn(async move { serving.await })];
        let mut metrics_address = None;
        if let Some((listener, address)) = metrics_listener {
            metrics_address = Some(address);
            let serving = axum::serve(listener, metrics::router(metrics));
            let serving = serving.with_graceful_shutdown(stop.clone().cancelled_owned());
            servers.push(tokio::spawn(async move { serving.await }));
        }
        guard.disarm();
        Ok(Running {
            address,
            metrics: metrics_address,
            network: ready.network,
            notice: ready.notice,
            stop,
            servers,
            node: Some(ended),
        })
    }
}

impl Running {
    /// Where the RPC listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The RPC's base URL.
    pub fn rpc_url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Where Prometheus reads `/metrics`, if it may.
    pub fn metrics_address(&self) -> Option<SocketAddr> {
        self.metrics
    }

    /// What a crash of the last process had left and was put aside, in a sentence for the operator.
    pub fn notice(&self) -> Option<&str> {
        self.notice.as_deref()
    }

    /// The content of `network.json`.
    pub fn network(&self) -> &serde_json::Value {
        &self.network
    }

    /// Stops making blocks and answering, and waits until it has stopped.
    pub async fn shutdown(mut self) {
        self.stop.cancel();
        let _ = self.wait_for_node().await;
        // Connections that are kept open by their clients do not hold us up.
        let servers = futures::future::join_all(&mut self.servers);
        let _ = tokio::time::timeout(SHUTDOWN_TIMEOUT, servers).await;
    }

    /// Waits until the node has stopped by itself, which it only does when it fails: with the reason if the state can no longer
    /// be kept, without one after a bug.
    pub async fn wait(&mut self) -> Option<StateError> {
        let failure = self.wait_for_node().await;
        self.stop.cancel();
        failure
    }

    async fn wait_for_node(&mut self) -> Option<StateError> {
        let node = self.node.as_mut()?;
        let failure = node.await.unwrap_or_default();
        self.node = None;
        failure
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.cancel();
        self.servers.iter().for_each(JoinHandle::abort);
    }
}
