//! The RPC methods: parameters in, JSON out. They are the same over POST, GET and the WebSocket.

use std::{sync::Arc, time::Duration};

use base64::{engine::general_purpose::STANDARD, Engine};
use serde_json::{Map, Value};
use tokio::sync::broadcast::error::RecvError;

use crate::{
    code::Refusal,
    comet,
    history::{Block, NoBlock},
    node::Node,
    query,
    rpc::Context,
    search::Search,
    transaction::{self, Tx},
};

/// Longest wait for a transaction to be in a block; the node's default.
const COMMIT_TIMEOUT: Duration = Duration::from_secs(10);
/// Block headers in one answer, the node's limit.
const HEADERS_MAX: u64 = 20;

/// Why a request has no result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) code: i64,
    pub(crate) message: &'static str,
    pub(crate) data: String,
}

pub(crate) fn internal(data: impl ToString) -> Failure {
    Failure {
        code: -32603,
        message: "Internal error",
        data: data.to_string(),
    }
}

pub(crate) fn invalid(data: impl ToString) -> Failure {
    Failure {
        code: -32602,
        message: "Invalid params",
        data: data.to_string(),
    }
}

/// Named parameters. What differs between POST and GET is told apart here.
#[derive(Clone, Debug, Default)]
pub(crate) struct Params {
    values: Map<String, Value>,
    /// A URL writes bytes as `0x…` hex, JSON as base64. Guessing would be wrong once in 4096: base64 may begin with `0x`.
    by_url: bool,
}

impl Params {
    /// From the `params` of a JSON-RPC request.
    pub(crate) fn from_json(params: Value) -> Result<Params, Failure> {
        match params {
            Value::Null => Ok(Params::default()),
            Value::Object(values) => Ok(Params { values, by_url: false }),
            // Some clients write "no parameters" so. A list of values would need each method's order.
            Value::Array(values) if values.is_empty() => Ok(Params::default()),
            _ => Err(invalid("params must be an object")),
        }
    }

    /// From the query part of a URL: numbers, `"quoted text"`, `0x…` hex.
    pub(crate) fn from_url(pairs: Vec<(String, String)>) -> Params {
        let pairs = pairs.into_iter().map(|(key, value)| {
            let text = value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
            let value = text.map(str::to_owned).unwrap_or(value);
            (key, Value::String(value))
        });
        Params {
            values: pairs.collect(),
            by_url: true,
        }
    }

    pub(crate) fn text(&self, key: &str) -> Option<&str> {
        self.values.get(key).and_then(Value::as_str)
    }

    pub(crate) fn number(&self, key: &str) -> Result<Option<u64>, Failure> {
        let number = match self.values.get(key) {
            None | Some(Value::Null) => return Ok(None),
            Some(Value::String(text)) if text.is_empty() => return Ok(None),
            Some(Value::String(text)) => text.parse().ok(),
            Some(value) => value.as_u64(),
        };
        number.map(Some).ok_or_else(|| invalid(format!("{key} is no number")))
    }

    pub(crate) fn flag(&self, key: &str) -> bool {
        matches!(self.values.get(key), Some(Value::Bool(true))) || self.text(key) == Some("true")
    }

    /// Bytes in the form of the request's kind.
    fn bytes(&self, key: &str) -> Result<Vec<u8>, Failure> {
        let text = self.text(key).ok_or_else(|| invalid(format!("{key} is missing")))?;
        if self.by_url {
            let decoded = text.strip_prefix("0x").and_then(|digits| hex::decode(digits).ok());
            return decoded.ok_or_else(|| invalid(format!("{key} is no 0x hex")));
        }
        STANDARD
            .decode(text)
            .map_err(|_| invalid(format!("{key} is no base64")))
    }

    /// Bytes as hex, with or without `0x`.
    fn hex(&self, key: &str) -> Result<Vec<u8>, Failure> {
        let text = self.text(key).unwrap_or_default();
        let digits = text.strip_prefix("0x").unwrap_or(text);
        hex::decode(digits).map_err(|_| invalid(format!("{key} is no hex")))
    }
}

/// Runs a method. What is large is made into JSON here and not on the node's thread, which has blocks to make.
pub(crate) async fn call(context: &Context, method: &str, params: Params) -> Result<Value, Failure> {
    let chain_id = &context.chain_id;
    match method {
        "block" => Ok(comet::block(chain_id, &*at_height(context, &params).await?)),
        "header" => Ok(comet::header_of(chain_id, Some(&*at_height(context, &params).await?))),
        "commit" => Ok(comet::commit(chain_id, &*at_height(context, &params).await?)),
        "validators" => Ok(comet::validators(at_height(context, &params).await?.height)),
        "consensus_params" => Ok(comet::consensus_params(at_height(context, &params).await?.height)),
        "block_results" => Ok(comet::block_results(&*at_height(context, &params).await?)),
        "block_by_hash" | "header_by_hash" => {
            let hash = params.bytes("hash")?;
            let block = ask(context, move |node| node.history.by_hash(&hash).cloned()).await?;
            Ok(match method {
                "block_by_hash" => comet::block_or_none(chain_id, block.as_deref()),
                _ => comet::header_of(chain_id, block.as_deref()),
            })
        }
        "blockchain" => blockchain(context, &params).await,
        "tx" => tx(context, params.bytes("hash")?).await,
        "tx_search" | "block_search" => search(context, method, &params).await,
        "broadcast_tx_sync" | "broadcast_tx_async" => {
            let (hash, checked) = broadcast(context, params.bytes("tx")?).await?;
            // The second form does not tell what the check said.
            let told = if method == "broadcast_tx_sync" { checked } else { Ok(()) };
            Ok(comet::broadcast(hash, told))
        }
        "broadcast_tx_commit" => broadcast_commit(context, params.bytes("tx")?).await,
        _ => {
            let (method, rpc) = (method.to_owned(), context.rpc.clone());
            ask(context, move |node| run(node, &rpc, &method, &params)).await?
        }
    }
}

/// Something from the node's thread.
async fn ask<T: Send + 'static>(
    context: &Context,
    question: impl FnOnce(&mut Node) -> T + Send + 'static,
) -> Result<T, Failure> {
    context.service.call(question).await.map_err(internal)
}

fn run(node: &mut Node, rpc: &str, method: &str, params: &Params) -> Result<Value, Failure> {
    match method {
        "health" => Ok(Value::Object(Map::new())),
        "status" => {
            let oldest = node.history.oldest().ok_or_else(|| internal("no block yet"))?;
            let latest = node.history.latest().ok_or_else(|| internal("no block yet"))?;
            Ok(comet::status(&node.rules.chain_id, rpc, oldest, latest))
        }
        "net_info" => Ok(comet::net_info()),
        "abci_info" => Ok(comet::abci_info(&*node.history.block(None).map_err(internal)?)),
        "abci_query" => abci_query(node, params),
        "check_tx" => {
            let checked = node.checked(params.bytes("tx")?, false);
            Ok(comet::check_result(checked.map(|tx| tx.gas_wanted)))
        }
        "num_unconfirmed_txs" => Ok(comet::unconfirmed(node.mempool.size(), None)),
        "unconfirmed_txs" => {
            let limit = params.number("limit")?.unwrap_or(30).clamp(1, 100);
            let limit = usize::try_from(limit).unwrap_or(usize::MAX);
            let txs = node.mempool.iter().take(limit).map(|tx| tx.bytes.as_slice());
            Ok(comet::unconfirmed(node.mempool.size(), Some(txs.collect())))
        }
        _ => Err(Failure {
            code: -32601,
            message: "Method not found",
            data: format!("{method} is not a method of this node"),
        }),
    }
}

async fn at_height(context: &Context, params: &Params) -> Result<Arc<Block>, Failure> {
    let height = params.number("height")?;
    let block: Result<Arc<Block>, NoBlock> = ask(context, move |node| node.history.block(height)).await?;
    block.map_err(internal)
}

/// Headers of a range of heights, the latest first.
async fn blockchain(context: &Context, params: &Params) -> Result<Value, Failure> {
    let bound = |key| params.number(key).map(|height| height.filter(|height| *height > 0));
    let (least, most) = (bound("minHeight")?, bound("maxHeight")?);
    let (latest, blocks) = ask(context, move |node| {
        let latest = node.history.latest().map_or(0, |block| block.height);
        let most = most.unwrap_or(latest).min(latest);
        let least = least
            .unwrap_or(1)
            .max(most.saturating_sub(HEADERS_MAX.saturating_sub(1)));
        let blocks: Vec<Arc<Block>> = node.history.range(least, most).cloned().collect();
        (latest, blocks)
    })
    .await?;
    if let (Some(least), Some(most)) = (least, most) {
        if least > most.min(latest) {
            return Err(internal(format!(
                "min height {least} can't be greater than max height {}",
                most.min(latest)
            )));
        }
    }
    Ok(comet::blockchain(&context.chain_id, latest, blocks.iter().rev()))
}

fn abci_query(node: &mut Node, params: &Params) -> Result<Value, Failure> {
    let path = params.text("path").unwrap_or_default();
    let (data, height) = (params.hex("data")?, params.number("height")?.unwrap_or(0));
    let answer = query::answer(node, path, &data, height);
    Ok(comet::abci_query(answer, node.machine.block().height))
}

/// Hands a transaction over; gives its hash and what the check says.
async fn broadcast(context: &Context, bytes: Vec<u8>) -> Result<([u8; 32], Result<(), Refusal>), Failure> {
    let hash = transaction::hash_of(&bytes);
    let is_verified = is_verified(context, &bytes).await?;
    let taken = ask(context, move |node| node.check(bytes, is_verified)).await?;
    Ok((hash, taken.map_err(internal)?))
}

/// Whether the signature is good. That takes longer than everything else about a transaction, so it is found out here and not on
/// the node's thread. `false` may also mean that the node should say what is wrong.
async fn is_verified(context: &Context, bytes: &[u8]) -> Result<bool, Failure> {
    let Ok(tx) = Tx::decode(bytes.to_vec()) else {
        return Ok(false);
    };
    let (tx, signer) = ask(context, move |node| {
        let signer = node.signer(&tx);
        (tx, signer)
    })
    .await?;
    // Neither the number nor the key of an account ever changes.
    Ok(signer.is_some_and(|(number, key)| tx.is_signed_by(&key, &context.chain_id, number)))
}

/// Like the sync form, but it waits for the block. Not for programs that send much: it holds a connection each.
async fn broadcast_commit(context: &Context, bytes: Vec<u8>) -> Result<Value, Failure> {
    let mut blocks = ask(context, |node| node.subscribe()).await?;
    let (hash, checked) = broadcast(context, bytes).await?;
    if checked.is_err() {
        return Ok(comet::broadcast_commit(hash, checked, None));
    }
    let included = async {
        loop {
            let block = match blocks.recv().await {
                Ok(block) => block,
                Err(RecvError::Lagged(_)) => continue,
                Err(RecvError::Closed) => return None,
            };
            if let Some(tx) = block.txs.iter().find(|tx| tx.hash == hash) {
                return Some(comet::broadcast_commit(hash, checked, Some((block.height, &tx.result))));
            }
        }
    };
    let answer = tokio::time::timeout(COMMIT_TIMEOUT, included).await;
    let answer = answer.map_err(|_| internal("timed out waiting for tx to be included in a block"))?;
    answer.ok_or_else(|| internal("the node has stopped"))
}

async fn tx(context: &Context, hash: Vec<u8>) -> Result<Value, Failure> {
    let known = <[u8; 32]>::try_from(hash.as_slice()).ok();
    let place = ask(context, move |node| known.and_then(|hash| node.history.place(&hash))).await?;
    let found = place.as_ref().and_then(|(block, index)| {
        let tx = block.txs.get(usize::try_from(*index).ok()?)?;
        Some(comet::tx(block.height, *index, tx))
    });
    found.ok_or_else(|| internal(format!("tx ({}) not found", hex::encode_upper(hash))))
}

async fn search(context: &Context, method: &str, params: &Params) -> Result<Value, Failure> {
    let search = Search::read(params)?;
    let is_tx = method == "tx_search";
    let height_key = if is_tx { "tx.height" } else { "block.height" };
    let (search, blocks) = ask(context, move |node| {
        let blocks = search.candidates(&node.history, height_key);
        (search, blocks)
    })
    .await?;
    let chain_id = context.chain_id.clone();
    let searched = tokio::task::spawn_blocking(move || match is_tx {
        true => search.txs(&blocks),
        false => search.blocks(&chain_id, &blocks),
    });
    searched.await.map_err(internal)?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_that_begins_like_hex_is_base64() {
        let bytes = [0xd3, 0x1a, 0x00];
        let text = STANDARD.encode(bytes);
        assert!(text.starts_with("0x"));
        let params = Params::from_json(serde_json::json!({ "tx": text })).unwrap();
        assert_eq!(params.bytes("tx").unwrap(), bytes);
        let params = Params::from_url(vec![("tx".into(), "0xd31a00".into())]);
        assert_eq!(params.bytes("tx").unwrap(), bytes);
    }

    #[test]
    fn numbers_come_as_numbers_and_as_text() {
        let params = Params::from_json(serde_json::json!({ "a": 7, "b": "7", "c": "", "d": null, "e": "x" })).unwrap();
        assert_eq!((params.number("a"), params.number("b")), (Ok(Some(7)), Ok(Some(7))));
        assert_eq!(
            (params.number("c"), params.number("d"), params.number("f")),
            (Ok(None), Ok(None), Ok(None))
        );
        assert_eq!(params.number("e").unwrap_err().code, -32602);
    }
}
