//! The RPC methods: parameters in, JSON out. They are the same over POST, GET and the WebSocket.

use base64::{engine::general_purpose::STANDARD, Engine};
use serde_json::{Map, Value};

use crate::{
    comet,
    filter::{self, Filter},
    history::History,
    node::Node,
    query,
    service::Service,
    transaction,
};

/// Rows of a search page, at most; the node's limit.
const PAGE_MAX: usize = 100;
/// Rows of a search page when none are asked for; the node's default.
const PAGE: usize = 30;

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

    fn number(&self, key: &str) -> Result<Option<u64>, Failure> {
        let number = match self.values.get(key) {
            None | Some(Value::Null) => return Ok(None),
            Some(Value::String(text)) if text.is_empty() => return Ok(None),
            Some(Value::String(text)) => text.parse().ok(),
            Some(value) => value.as_u64(),
        };
        number.map(Some).ok_or_else(|| invalid(format!("{key} is no number")))
    }

    fn flag(&self, key: &str) -> bool {
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

/// Runs a method.
pub(crate) async fn call(service: &Service, rpc: &str, method: &str, params: Params) -> Result<Value, Failure> {
    let (method, rpc) = (method.to_owned(), rpc.to_owned());
    let answered = service.call(move |node| run(node, &rpc, &method, &params)).await;
    answered.map_err(internal)?
}

fn run(node: &mut Node, rpc: &str, method: &str, params: &Params) -> Result<Value, Failure> {
    match method {
        "health" => Ok(Value::Object(Map::new())),
        "status" => {
            let oldest = node.history.oldest().ok_or_else(|| internal("no block yet"))?;
            let latest = node.history.latest().ok_or_else(|| internal("no block yet"))?;
            Ok(comet::status(&node.rules.chain_id, rpc, oldest, latest))
        }
        "abci_info" => Ok(comet::abci_info(&*node.history.block(None).map_err(internal)?)),
        "abci_query" => abci_query(node, params),
        "broadcast_tx_sync" => broadcast(node, params),
        "broadcast_tx_async" => broadcast_async(node, params),
        "tx" => tx(&node.history, &params.bytes("hash")?),
        "tx_search" => tx_search(&node.history, params),
        "block" | "block_results" | "commit" | "validators" => at_height(node, method, params),
        _ => Err(Failure {
            code: -32601,
            message: "Method not found",
            data: format!("{method} is not a method of this node"),
        }),
    }
}

fn at_height(node: &Node, method: &str, params: &Params) -> Result<Value, Failure> {
    let block = node.history.block(params.number("height")?).map_err(internal)?;
    let chain_id = &node.rules.chain_id;
    Ok(match method {
        "block" => comet::block(chain_id, &block),
        "commit" => comet::commit(chain_id, &block),
        "validators" => comet::validators(block.height),
        _ => comet::block_results(&block),
    })
}

fn abci_query(node: &mut Node, params: &Params) -> Result<Value, Failure> {
    let path = params.text("path").unwrap_or_default();
    let (data, height) = (params.hex("data")?, params.number("height")?.unwrap_or(0));
    let answer = query::answer(node, path, &data, height);
    Ok(comet::abci_query(answer, node.machine.block().height))
}

fn broadcast(node: &mut Node, params: &Params) -> Result<Value, Failure> {
    let bytes = params.bytes("tx")?;
    let hash = transaction::hash_of(&bytes);
    let checked = node.check(bytes).map_err(internal)?;
    Ok(comet::broadcast(hash, checked))
}

/// Like the sync form, but it does not tell what the check said.
fn broadcast_async(node: &mut Node, params: &Params) -> Result<Value, Failure> {
    let bytes = params.bytes("tx")?;
    let hash = transaction::hash_of(&bytes);
    let _ = node.check(bytes).map_err(internal)?;
    Ok(comet::broadcast(hash, Ok(())))
}

fn tx(history: &History, hash: &[u8]) -> Result<Value, Failure> {
    let known: Result<[u8; 32], _> = hash.try_into();
    let place = known.ok().and_then(|hash| history.place(&hash));
    let found = place.as_ref().and_then(|(block, index)| {
        let tx = block.txs.get(usize::try_from(*index).ok()?)?;
        Some(comet::tx(block.height, *index, tx))
    });
    found.ok_or_else(|| internal(format!("tx ({}) not found", hex::encode_upper(hash))))
}

fn tx_search(history: &History, params: &Params) -> Result<Value, Failure> {
    let text = params.text("query").ok_or_else(|| invalid("query is missing"))?;
    let filter = Filter::parse(text).map_err(internal)?;
    let mut found = search(history, &filter);
    if params.text("order_by") == Some("desc") {
        found.reverse();
    }
    let per_page = params.number("per_page")?.and_then(|rows| usize::try_from(rows).ok());
    let per_page = per_page.filter(|rows| *rows > 0).unwrap_or(PAGE).min(PAGE_MAX);
    let page = params
        .number("page")?
        .and_then(|page| usize::try_from(page).ok())
        .unwrap_or(1)
        .max(1);
    let pages = found.len().div_ceil(per_page).max(1);
    if page > pages {
        return Err(internal(format!(
            "page should be within [1, {pages}] range, given {page}"
        )));
    }
    let skipped = page.saturating_sub(1).saturating_mul(per_page);
    let total = found.len();
    let rows = found.into_iter().skip(skipped).take(per_page).collect();
    // Proofs are not made here; a client that wants them must hear so.
    if params.flag("prove") {
        return Err(internal("this node makes no proofs"));
    }
    Ok(comet::tx_search(rows, total))
}

fn search(history: &History, filter: &Filter) -> Vec<Value> {
    let hash = filter.equals("tx.hash").map(str::to_uppercase);
    let height = filter.equals("tx.height");
    let blocks = history
        .with_txs()
        .filter(|block| height.is_none_or(|height| height == block.height.to_string()));
    let mut found = vec![];
    for block in blocks {
        for (index, tx) in (0u32..).zip(&block.txs) {
            if hash.as_ref().is_some_and(|hash| *hash != hex::encode_upper(tx.hash)) {
                continue;
            }
            if filter.matches(&filter::of_tx(tx, block.height)) {
                found.push(comet::tx(block.height, index, tx));
            }
        }
    }
    found
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
