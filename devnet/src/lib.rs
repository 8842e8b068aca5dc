//! Function Network's contracts in one process, behind the RPC of a CometBFT node.
//!
//! Clients written for a real chain (`client`, cosmrs, tendermint-rpc, CosmJS) work unchanged: signatures, sequences, fees,
//! simulation, events, subscriptions and error texts are those of wasmd 0.61. What is different: one validator that signs
//! nothing, gas that is estimated, only the latest state, hashes that light clients cannot verify, and nothing kept after a stop.
//!
//! - `rpc`, `websocket`, `methods`, `filter`: the RPC; `comet` alone knows its JSON.
//! - `service`: the thread that owns the node and the clock that makes blocks.
//! - `node`: checking, ordering and running transactions; `history`: blocks, bounded.
//! - `machine`: cw-multi-test, over `store`; `shape`: its events made wasmd's.
//! - `genesis`: the first state; `market`: the five contracts, deployed and wired in it.

mod accounts;
mod code;
mod comet;
mod filter;
mod gas;
mod genesis;
mod history;
mod machine;
mod market;
mod methods;
mod node;
mod query;
mod rpc;
mod service;
mod shape;
mod store;
mod transaction;
mod websocket;

use std::{io, net::SocketAddr, time::Duration};

use cosmwasm_std::Decimal;
use tokio::{net::TcpListener, sync::oneshot, task::JoinHandle};
use tokio_util::sync::CancellationToken;

pub use crate::{
    genesis::{dev_address, Account, DEV_ACCOUNTS, FAUCET},
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
    network: serde_json::Value,
    stop: CancellationToken,
    server: JoinHandle<io::Result<()>>,
    node: Option<oneshot::Receiver<()>>,
}

impl Devnet {
    /// Makes the first block and serves the RPC.
    pub async fn start(config: Config) -> Result<Running, DevnetError> {
        if config.block_time < Duration::from_millis(10) {
            return Err(DevnetError::BlockTime(config.block_time));
        }
        // The port is ours before anything else happens, so a taken one is told at once.
        let listening = async {
            let listener = TcpListener::bind(config.rpc).await?;
            let address = listener.local_addr()?;
            Ok((listener, address))
        };
        let (listener, address) = listening.await.map_err(|source| DevnetError::Listen {
            rpc: config.rpc,
            source,
        })?;
        let stop = CancellationToken::new();
        let guard = stop.clone().drop_guard();
        let chain_id = config.chain_id.clone();
        let block_time = config.block_time;
        let rpc = format!("http://{address}");
        let (node, network) = genesis::prepare(config, rpc.clone());
        let (service, ended) = service::Service::start(node, block_time, stop.clone()).await?;
        let router = rpc::router(rpc::Context {
            service,
            chain_id,
            rpc: format!("tcp://{address}"),
            stop: stop.clone(),
        });
        let serving = axum::serve(listener, router).with_graceful_shutdown(stop.clone().cancelled_owned());
        let network = network.await.map_err(|_| DevnetError::Genesis("no network".into()))?;
        guard.disarm();
        Ok(Running {
            address,
            network,
            stop,
            server: tokio::spawn(async move { serving.await }),
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

    /// The content of `network.json`.
    pub fn network(&self) -> &serde_json::Value {
        &self.network
    }

    /// Stops making blocks and answering, and waits until it has stopped.
    pub async fn shutdown(mut self) {
        self.stop.cancel();
        self.wait_for_node().await;
        // Connections that are kept open by their clients do not hold us up.
        let _ = tokio::time::timeout(SHUTDOWN_TIMEOUT, &mut self.server).await;
    }

    /// Waits until the node has stopped by itself, which it only does when it fails.
    pub async fn wait(&mut self) {
        self.wait_for_node().await;
        self.stop.cancel();
    }

    async fn wait_for_node(&mut self) {
        if let Some(node) = &mut self.node {
            let _ = node.await;
            self.node = None;
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.cancel();
        self.server.abort();
    }
}
