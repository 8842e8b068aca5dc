//! Queries and look-ups. Each request has a time-out; none is repeated here, callers know whether that makes sense.

use std::{sync::Arc, time::Duration};

use serde::{de::DeserializeOwned, Deserialize, Serialize};
use tokio::time::Instant;

use crate::{
    cosmos,
    endpoints::{Endpoint, Endpoints},
    error::ClientError,
    network::{Contracts, Network},
    outcome::{own_sentence, refusal, TxHash, TxOutcome},
    rpc::{Answer, NewBlocks, Rpc},
    wallet::WalletError,
};

/// Longest wait for one answer of a node.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// How often a transaction is looked up until it is in a block: a fifth of the devnet's block time.
const CONFIRM_POLL: Duration = Duration::from_millis(100);

/// Where the chain stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// The node's chain.
    pub chain_id: String,
    /// Latest block.
    pub height: u64,
    /// Oldest block that the node still has.
    pub earliest_height: u64,
    /// Time of the latest block, Unix nanoseconds.
    pub time_nanos: u64,
    /// Whether the node is still fetching blocks from others.
    pub catching_up: bool,
}

/// What the chain knows of an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AccountInfo {
    /// Its number, fixed for life.
    pub number: u64,
    /// Sequence of its next transaction, by the latest block.
    pub sequence: u64,
}

/// What the chain knows of a contract.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContractInfo {
    /// The stored code.
    pub code_id: u64,
    /// Who instantiated it.
    pub creator: String,
    /// Who may migrate it.
    pub admin: Option<String>,
    /// Its name for people.
    pub label: String,
}

/// A contract's name and version as it recorded them itself (cw2).
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct ContractVersion {
    /// The contract's name.
    pub contract: String,
    /// Its version.
    pub version: String,
}

/// Where the chain of a node stands, whichever chain it is.
pub async fn node_status(rpc: &str, timeout: Duration) -> Result<Status, ClientError> {
    Rpc::new(rpc, timeout)?.status().await
}

/// A validator as it tells of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Validator {
    /// Its node's name.
    pub moniker: String,
    /// Version of its application.
    pub app_version: String,
    /// Its latest block.
    pub height: u64,
}

/// Most neighbours of a node that are asked for themselves.
const NEIGHBOURS_MAX: usize = 32;

/// The node at an RPC and those that it is connected to, of which the ones that vote, by name. A neighbour whose RPC does not answer is left
/// out: nobody has to offer one.
pub async fn validators(rpc: &str, timeout: Duration) -> Result<Vec<Validator>, ClientError> {
    let node = Rpc::new(rpc, timeout)?;
    let (own, neighbours) = futures::try_join!(node.introduction(), node.peers())?;
    let others = neighbours.iter().take(NEIGHBOURS_MAX).map(|url| async move {
        let neighbour = Rpc::new(url, timeout).ok()?;
        neighbour.introduction().await.ok()
    });
    let others = futures::future::join_all(others).await;
    let all = std::iter::once(own).chain(others.into_iter().flatten());
    let mut voting: Vec<Validator> = all
        .filter(|node| node.is_validator)
        .map(|node| Validator {
            moniker: node.moniker,
            app_version: node.app_version,
            height: node.height,
        })
        .collect();
    voting.sort_by(|left, right| left.moniker.cmp(&right.moniker));
    Ok(voting)
}

/// A connection to one network. Cloning it is cheap.
#[derive(Clone, Debug)]
pub struct Client {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    network: Network,
    nodes: Arc<Endpoints>,
}

impl Client {
    /// Connects to the network's nodes and makes sure that they are on its chain.
    pub async fn connect(network: Network) -> Result<Client, ClientError> {
        Client::connect_with(network, REQUEST_TIMEOUT).await
    }

    /// The same with another limit for every single request.
    pub async fn connect_with(network: Network, request_timeout: Duration) -> Result<Client, ClientError> {
        Client::connect_to(network, &[], request_timeout).await
    }

    /// The same with these nodes in place of those in the network file, if there are any. At least one has to be there, on the network's
    /// chain; of the others whichever is, and comes to be, is used as its health allows, and one on another chain never.
    pub async fn connect_to(
        network: Network,
        nodes: &[String],
        request_timeout: Duration,
    ) -> Result<Client, ClientError> {
        let prefix = &network.bech32_prefix;
        if let Some(address) = network
            .contracts
            .addresses()
            .iter()
            .find(|address| !cosmos::is_address(address, prefix))
        {
            return Err(ClientError::Wallet(WalletError::Address {
                address: address.clone(),
                prefix: prefix.clone(),
            }));
        }
        let network = network.with_nodes(nodes);
        let nodes = Endpoints::connect(&network.chain_id, &network.nodes(), request_timeout).await?;
        Ok(Client {
            inner: Arc::new(Inner { network, nodes }),
        })
    }

    /// The network this client speaks to.
    pub fn network(&self) -> &Network {
        &self.inner.network
    }

    /// The addresses of its contracts.
    pub fn contracts(&self) -> &Contracts {
        &self.inner.network.contracts
    }

    /// What is known of each of its nodes.
    pub fn endpoints(&self) -> Vec<Endpoint> {
        self.inner.nodes.report()
    }

    /// Height of the newest state that it was told of. Whatever it is told from now on is as new.
    pub fn height(&self) -> u64 {
        self.inner.nodes.seen()
    }

    /// Where the chain stands.
    pub async fn status(&self) -> Result<Status, ClientError> {
        self.inner.nodes.status().await
    }

    /// Asks a contract.
    pub async fn query<Q: Serialize + ?Sized, R: DeserializeOwned>(
        &self,
        contract: &str,
        query: &Q,
    ) -> Result<R, ClientError> {
        let query = serde_json::to_vec(query).map_err(|error| ClientError::BadCall(error.to_string()))?;
        let answer = self
            .inner
            .nodes
            .abci_query(cosmos::smart_query(contract, query))
            .await?;
        let data = cosmos::smart_answer(&contract_value(contract, answer)?)?;
        serde_json::from_slice(&data).map_err(|error| ClientError::BadAnswer {
            what: "smart query",
            reason: error.to_string(),
        })
    }

    /// The bytes a contract stored under a key.
    pub async fn raw(&self, contract: &str, key: &[u8]) -> Result<Option<Vec<u8>>, ClientError> {
        let answer = self.inner.nodes.abci_query(cosmos::raw_query(contract, key)).await?;
        cosmos::raw_answer(&contract_value(contract, answer)?)
    }

    /// The name and version that a contract recorded of itself.
    pub async fn cw2(&self, contract: &str) -> Result<ContractVersion, ClientError> {
        let missing = |reason: String| ClientError::BadAnswer { what: "cw2", reason };
        let stored = self.raw(contract, b"contract_info").await?;
        let stored = stored.ok_or_else(|| missing(format!("{contract} recorded no version")))?;
        serde_json::from_slice(&stored).map_err(|error| missing(error.to_string()))
    }

    /// Makes sure that every contract is the one that the network file says it is. Their names and versions, by address.
    pub async fn check_contracts(&self) -> Result<Vec<(String, ContractVersion)>, ClientError> {
        let checks = self
            .contracts()
            .by_name()
            .into_iter()
            .map(|(expected, address)| async move {
                let recorded = self.cw2(address).await?;
                match recorded.contract == expected {
                    true => Ok((address.to_owned(), recorded)),
                    false => Err(ClientError::WrongContract {
                        address: address.to_owned(),
                        expected,
                        found: recorded.contract,
                    }),
                }
            });
        futures::future::try_join_all(checks).await
    }

    /// Code, creator and admin of a contract.
    pub async fn contract_info(&self, contract: &str) -> Result<ContractInfo, ClientError> {
        let answer = self.inner.nodes.abci_query(cosmos::contract_query(contract)).await?;
        cosmos::contract_answer(&contract_value(contract, answer)?)
    }

    /// Asks the chain itself.
    pub(crate) async fn ask_chain(&self, query: (&'static str, Vec<u8>)) -> Result<Vec<u8>, ClientError> {
        let answer = self.inner.nodes.abci_query(query).await?;
        match answer.code {
            0 => Ok(answer.value),
            code => Err(refusal(code, answer.codespace, &answer.log, None)),
        }
    }

    /// Number and sequence of an account.
    pub async fn account(&self, address: &str) -> Result<AccountInfo, ClientError> {
        let answer = self.inner.nodes.abci_query(cosmos::account_query(address)).await?;
        match answer.code {
            0 => cosmos::account_answer(&answer.value),
            _ if answer.log.contains("not found") => Err(ClientError::UnknownAccount {
                address: address.to_owned(),
            }),
            code => Err(refusal(code, answer.codespace, &answer.log, None)),
        }
    }

    /// Balance of one native coin.
    pub async fn balance(&self, address: &str, denom: &str) -> Result<u128, ClientError> {
        let answer = self
            .inner
            .nodes
            .abci_query(cosmos::balance_query(address, denom))
            .await?;
        match answer.code {
            0 => cosmos::balance_answer(&answer.value),
            code => Err(refusal(code, answer.codespace, &answer.log, None)),
        }
    }

    /// The transaction, whatever its result; `None` while it is in no block.
    pub async fn tx(&self, hash: TxHash) -> Result<Option<TxOutcome>, ClientError> {
        self.inner.nodes.tx(hash).await
    }

    /// Hands signed bytes to the best node. Harmless when it already has them, in its mempool or in a block.
    pub async fn broadcast_bytes(&self, bytes: &[u8]) -> Result<TxHash, ClientError> {
        self.handed_over(bytes, self.inner.nodes.broadcast(bytes).await?).await
    }

    /// The same with every node: what one of them keeps to itself gets into no block.
    pub async fn spread_bytes(&self, bytes: &[u8]) -> Result<TxHash, ClientError> {
        self.handed_over(bytes, self.inner.nodes.spread(bytes).await?).await
    }

    async fn handed_over(
        &self,
        bytes: &[u8],
        (code, codespace, log): (u32, String, String),
    ) -> Result<TxHash, ClientError> {
        let hash = TxHash::of(bytes);
        match code {
            0 => Ok(hash),
            code => {
                // Bytes that are in a block already are refused for their sequence.
                if self.tx(hash).await?.is_some() {
                    return Ok(hash);
                }
                Err(refusal(code, codespace, &log, None))
            }
        }
    }

    /// Waits until the transaction is in a block, whatever its result. Rides out a node that is away for a while.
    pub async fn confirm(&self, hash: TxHash, timeout: Duration) -> Result<TxOutcome, ClientError> {
        let started = Instant::now();
        loop {
            let found = self.tx(hash).await;
            let late = started.elapsed() >= timeout;
            match found {
                Ok(Some(outcome)) => return Ok(outcome),
                Ok(None) if late => {
                    return Err(ClientError::NotConfirmed {
                        hash,
                        seconds: timeout.as_secs(),
                    })
                }
                Err(error) if late || !error.is_transient() => return Err(error),
                Ok(None) | Err(_) => tokio::time::sleep(CONFIRM_POLL).await,
            }
        }
    }

    pub(crate) async fn simulate(&self, query: (&'static str, Vec<u8>)) -> Result<u64, ClientError> {
        let answer = self.inner.nodes.abci_query(query).await?;
        match answer.code {
            0 => cosmos::simulated_gas(&answer.value),
            code => Err(refusal(code, answer.codespace, &answer.log, None)),
        }
    }

    pub(crate) async fn block(&self, height: u64) -> Result<Option<crate::rpc::BlockResults>, ClientError> {
        self.inner.nodes.block(height).await
    }

    pub(crate) async fn new_blocks(&self) -> Result<NewBlocks, ClientError> {
        self.inner.nodes.new_blocks().await
    }
}

fn contract_value(contract: &str, answer: Answer) -> Result<Vec<u8>, ClientError> {
    match answer.code {
        0 => Ok(answer.value),
        _ if answer.log.contains("no such contract") => Err(ClientError::UnknownContract {
            address: contract.to_owned(),
        }),
        _ => Err(ClientError::QueryRefused {
            contract: contract.to_owned(),
            message: own_sentence(&answer.log),
        }),
    }
}
