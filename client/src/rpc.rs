//! CometBFT's RPC, narrowed to the calls we make. The only file that names `tendermint-rpc`.
//!
//! Guarantees: every call ends within the request time-out; every failure is one of our own errors, one line long.

use std::{net::SocketAddr, time::Duration};

use base64::{engine::general_purpose::STANDARD, Engine};
use cosmrs::tendermint::{abci::types::ExecTxResult, block::Height, Hash};
use cosmwasm_std::{Attribute, Event};
use futures::StreamExt;
use tendermint_rpc::{
    client::CompatMode,
    endpoint::net_info::PeerInfo,
    error::ErrorDetail,
    query::{EventType, Query},
    Client as _, HttpClient, HttpClientUrl, SubscriptionClient, Url, WebSocketClient, WebSocketClientUrl,
};
use tokio::task::JoinHandle;

use crate::{
    client::Status,
    error::ClientError,
    outcome::{TxHash, TxOutcome},
};

/// A node's RPC.
#[derive(Clone, Debug)]
pub(crate) struct Rpc {
    http: HttpClient,
    url: String,
    timeout: Duration,
}

/// What a node says of itself.
#[derive(Debug)]
pub(crate) struct Introduction {
    pub(crate) moniker: String,
    pub(crate) app_version: String,
    pub(crate) height: u64,
    pub(crate) is_validator: bool,
}

/// The answer to an ABCI query.
#[derive(Debug)]
pub(crate) struct Answer {
    /// Height of the state that was asked. 0: the node does not say.
    pub(crate) height: u64,
    pub(crate) code: u32,
    pub(crate) codespace: String,
    pub(crate) log: String,
    pub(crate) value: Vec<u8>,
}

/// The transactions of one block with their results.
#[derive(Debug)]
pub(crate) struct BlockResults {
    pub(crate) time_nanos: u64,
    pub(crate) txs: Vec<TxOutcome>,
}

impl Rpc {
    pub(crate) fn new(url: &str, timeout: Duration) -> Result<Rpc, ClientError> {
        let unreachable = |error: tendermint_rpc::Error| ClientError::Unreachable {
            rpc: url.to_owned(),
            reason: first_line(&error),
        };
        let parsed: HttpClientUrl = url.parse().map_err(unreachable)?;
        let http = HttpClient::builder(parsed)
            .compat_mode(CompatMode::V0_38)
            .timeout(timeout)
            .build()
            .map_err(unreachable)?;
        Ok(Rpc {
            http,
            url: url.to_owned(),
            timeout,
        })
    }

    /// Its host and port: an URL may hold what is nobody's business.
    pub(crate) fn name(&self) -> String {
        let url: Result<Url, _> = self.url.parse();
        url.map_or_else(|_| "?".into(), |url| format!("{}:{}", url.host(), url.port()))
    }

    /// It has said nothing for so long.
    pub(crate) fn silent(&self, limit: Duration) -> ClientError {
        self.unreachable(format!("no answer within {} ms", limit.as_millis()))
    }

    pub(crate) async fn status(&self) -> Result<Status, ClientError> {
        let status = self
            .http
            .status()
            .await
            .map_err(|error| self.failed("status", &error))?;
        let sync = status.sync_info;
        Ok(Status {
            chain_id: status.node_info.network.to_string(),
            height: sync.latest_block_height.value(),
            earliest_height: sync.earliest_block_height.value(),
            time_nanos: nanos(sync.latest_block_time)?,
            catching_up: sync.catching_up,
        })
    }

    /// What the node is: its name, the version of its application, where it stands, and whether it votes.
    pub(crate) async fn introduction(&self) -> Result<Introduction, ClientError> {
        let (status, application) = futures::join!(self.http.status(), self.http.abci_info());
        let status = status.map_err(|error| self.failed("status", &error))?;
        let application = application.map_err(|error| self.failed("abci_info", &error))?;
        Ok(Introduction {
            moniker: status.node_info.moniker.to_string(),
            app_version: application.version,
            height: status.sync_info.latest_block_height.value(),
            is_validator: status.validator_info.power.value() > 0,
        })
    }

    /// RPC URLs of the nodes that this one is connected to: where it met them, with the port that they announce. Of what they say only the
    /// port is used, so nobody sends us elsewhere.
    pub(crate) async fn peers(&self) -> Result<Vec<String>, ClientError> {
        let told = self.http.net_info().await;
        let told = told.map_err(|error| self.failed("net_info", &error))?;
        let url = |peer: &PeerInfo| {
            let (_, port) = peer.node_info.other.rpc_address.rsplit_once(':')?;
            let address = SocketAddr::new(peer.remote_ip, port.parse().ok()?);
            Some(format!("http://{address}"))
        };
        Ok(told.peers.iter().filter_map(url).collect())
    }

    pub(crate) async fn abci_query(&self, (path, data): (&'static str, Vec<u8>)) -> Result<Answer, ClientError> {
        let asked = self.http.abci_query(Some(path.to_owned()), data, None, false);
        let answer = asked.await.map_err(|error| self.failed("abci_query", &error))?;
        Ok(Answer {
            height: answer.height.value(),
            code: answer.code.value(),
            codespace: answer.codespace,
            log: answer.log,
            value: answer.value,
        })
    }

    /// Hands a transaction to the node. One that the node already has is no error: it has it.
    pub(crate) async fn broadcast(&self, bytes: &[u8]) -> Result<(u32, String, String), ClientError> {
        match self.http.broadcast_tx_sync(bytes).await {
            Ok(answer) => Ok((answer.code.value(), answer.codespace, answer.log)),
            Err(error) if said(&error, "tx already exists in cache") => Ok((0, String::new(), String::new())),
            Err(error) => Err(self.failed("broadcast_tx_sync", &error)),
        }
    }

    /// The transaction with its result; `None` when it is in no block that the node knows.
    pub(crate) async fn tx(&self, hash: TxHash) -> Result<Option<TxOutcome>, ClientError> {
        match self.http.tx(Hash::Sha256(*hash.as_bytes()), false).await {
            Ok(found) => outcome(hash, found.height.value(), found.tx_result).map(Some),
            Err(error) if said(&error, "not found") => Ok(None),
            Err(error) => Err(self.failed("tx", &error)),
        }
    }

    /// Every transaction of a block, in order. `None` when the chain has not come that far.
    pub(crate) async fn block(&self, height: u64) -> Result<Option<BlockResults>, ClientError> {
        let at = Height::try_from(height).map_err(|error| bad("block", error))?;
        let (block, results) = futures::join!(self.http.block(at), self.http.block_results(at));
        let (block, results) = match (block, results) {
            (Ok(block), Ok(results)) => (block.block, results),
            (Err(error), _) | (_, Err(error)) => return self.no_block(height, &error),
        };
        let results = results.txs_results.unwrap_or_default();
        if results.len() != block.data.len() {
            let reason = format!("{} transactions with {} results", block.data.len(), results.len());
            return Err(bad("block_results", reason));
        }
        let pairs = block.data.iter().zip(results);
        let txs: Result<_, _> = pairs
            .map(|(tx, result)| outcome(TxHash::of(tx), height, result))
            .collect();
        Ok(Some(BlockResults {
            time_nanos: nanos(block.header.time)?,
            txs: txs?,
        }))
    }

    fn no_block(&self, height: u64, error: &tendermint_rpc::Error) -> Result<Option<BlockResults>, ClientError> {
        // The node's words: "height 7 must be less than or equal to the current blockchain height 6",
        // "could not find results for height #7", "height 7 is not available, lowest height is 9".
        if said(error, "must be less than or equal") || said(error, "could not find results") {
            return Ok(None);
        }
        let data = response_data(error).unwrap_or_default();
        if let Some((_, lowest)) = data.split_once("lowest height is ") {
            return Err(ClientError::Pruned {
                height,
                earliest: lowest.trim().parse().unwrap_or(0),
            });
        }
        Err(self.failed("block", error))
    }

    /// Opens a subscription to new blocks on a connection of its own.
    pub(crate) async fn new_blocks(&self) -> Result<NewBlocks, ClientError> {
        let opening = async {
            let (client, driver) = WebSocketClient::builder(self.websocket_url()?)
                .compat_mode(CompatMode::V0_38)
                .build()
                .await?;
            let driver = Driver(tokio::spawn(async move { driver.run().await }));
            let subscription = client.subscribe(Query::from(EventType::NewBlock)).await?;
            Ok::<_, tendermint_rpc::Error>(NewBlocks {
                subscription,
                _client: client,
                _driver: driver,
            })
        };
        match tokio::time::timeout(self.timeout, opening).await {
            Ok(opened) => opened.map_err(|error| self.failed("subscribe", &error)),
            Err(_) => Err(self.unreachable(format!("no subscription after {} s", self.timeout.as_secs()))),
        }
    }

    fn websocket_url(&self) -> Result<WebSocketClientUrl, tendermint_rpc::Error> {
        let url: Url = self.url.parse()?;
        let scheme = if url.is_secure() { "wss" } else { "ws" };
        format!("{scheme}://{}:{}/websocket", url.host(), url.port()).parse()
    }

    fn failed(&self, what: &'static str, error: &tendermint_rpc::Error) -> ClientError {
        match error.detail() {
            ErrorDetail::Parse(_) | ErrorDetail::Serde(_) | ErrorDetail::MalformedJson(_) => {
                bad(what, first_line(error))
            }
            _ => match response_data(error) {
                Some(data) => bad(what, data),
                None => self.unreachable(first_line(error)),
            },
        }
    }

    fn unreachable(&self, reason: String) -> ClientError {
        ClientError::Unreachable {
            rpc: self.url.clone(),
            reason,
        }
    }
}

/// A stream of wake-ups, one a block. What it says is not trusted: only that it says something.
pub(crate) struct NewBlocks {
    subscription: tendermint_rpc::Subscription,
    // The subscription lives as long as its connection.
    _client: WebSocketClient,
    _driver: Driver,
}

impl NewBlocks {
    /// Waits for the next block; `false` when the subscription has ended.
    pub(crate) async fn next(&mut self) -> bool {
        matches!(self.subscription.next().await, Some(Ok(_)))
    }
}

/// The connection's task, ended with it.
struct Driver(JoinHandle<Result<(), tendermint_rpc::Error>>);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn outcome(hash: TxHash, height: u64, result: ExecTxResult) -> Result<TxOutcome, ClientError> {
    // The field holds the base64 text as it came: the type does not decode it.
    let data = STANDARD.decode(&result.data).map_err(|error| bad("tx", error))?;
    Ok(TxOutcome {
        hash,
        height,
        code: result.code.value(),
        codespace: result.codespace,
        log: result.log,
        gas_wanted: u64::try_from(result.gas_wanted).unwrap_or(0),
        gas_used: u64::try_from(result.gas_used).unwrap_or(0),
        events: result.events.into_iter().map(event).collect(),
        data,
    })
}

fn event(event: cosmrs::tendermint::abci::Event) -> Event {
    let attributes = event.attributes.iter().map(|attribute| Attribute {
        key: String::from_utf8_lossy(attribute.key_bytes()).into_owned(),
        value: String::from_utf8_lossy(attribute.value_bytes()).into_owned(),
    });
    Event::new(event.kind.clone()).add_attributes(attributes)
}

fn nanos(time: cosmrs::tendermint::Time) -> Result<u64, ClientError> {
    u64::try_from(time.unix_timestamp_nanos()).map_err(|error| bad("block time", error))
}

fn said(error: &tendermint_rpc::Error, words: &str) -> bool {
    response_data(error).is_some_and(|data| data.contains(words))
}

/// What the node itself said, in the field where it says it.
fn response_data(error: &tendermint_rpc::Error) -> Option<String> {
    match error.detail() {
        ErrorDetail::Response(response) => {
            let source = &response.source;
            Some(source.data().unwrap_or(source.message()).to_owned())
        }
        _ => None,
    }
}

/// The cause in one line: these errors print a title, then `Caused by:` with the cause, then a backtrace.
fn first_line(error: &tendermint_rpc::Error) -> String {
    cause(&error.to_string()).to_owned()
}

fn cause(text: &str) -> &str {
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let title = lines.next().unwrap_or("unknown error");
    let cause = lines.skip_while(|line| *line != "Caused by:").nth(1).unwrap_or(title);
    // The URL stands in our own sentence already.
    match cause.strip_prefix("error sending request for url (") {
        Some(rest) => rest.split_once("): ").map_or(cause, |(_, cause)| cause),
        None => cause,
    }
}

fn bad(what: &'static str, reason: impl std::fmt::Display) -> ClientError {
    ClientError::BadAnswer {
        what,
        reason: reason.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_is_told_without_its_backtrace() {
        let refused =
            "HTTP error\n\nCaused by:\n    error sending request for url (http://127.0.0.1:1/): error trying to \
                       connect: Connection refused\n\nLocation:\n    a.rs:10:9";
        assert_eq!(cause(refused), "error trying to connect: Connection refused");
        assert_eq!(cause("parse error: x\n\nLocation:\n    a.rs:10:9"), "parse error: x");
        assert_eq!(cause(""), "unknown error");
    }
}
