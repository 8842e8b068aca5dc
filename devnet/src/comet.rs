//! CometBFT 0.38's JSON, written by hand. The one file that names its shapes.
//!
//! tendermint-rpc's own types read this JSON but write another one, so they are not used to write it; the tests read every
//! answer back with them. Numbers that are strings, hashes in upper-case hex, `null` where a node says `null`: all of it matters
//! to some client.

use base64::{engine::general_purpose::STANDARD, Engine};
use serde_json::{json, Map, Value};
use sha2::{Digest, Sha256};

use crate::{
    code::Refusal,
    events::{Events, Kept},
    filter::Attributes,
    history::{Block, Included, TxResult},
    node::BLOCK_BYTES_MAX,
};

/// The version whose dialect this is; clients choose theirs by it.
const VERSION: &str = "0.38.19";
/// The validator's Ed25519 key: the curve's base point, whose secret signs nothing here.
const VALIDATOR_KEY: [u8; 32] = {
    let mut key = [0x66; 32];
    key[0] = 0x58;
    key
};

/// What a node says of itself.
pub(crate) fn status(chain_id: &str, rpc: &str, oldest: &Block, latest: &Block) -> Value {
    json!({
        "node_info": {
            "protocol_version": { "p2p": "8", "block": "11", "app": "0" },
            "id": hex::encode(digest20(chain_id.as_bytes())),
            "listen_addr": "tcp://127.0.0.1:26656",
            "network": chain_id,
            "version": VERSION,
            "channels": "40202122233038606100",
            "moniker": "devnet",
            "other": { "tx_index": "on", "rpc_address": rpc },
        },
        "sync_info": {
            "latest_block_hash": hex::encode_upper(latest.hash),
            "latest_app_hash": hex::encode_upper(app_hash(latest)),
            "latest_block_height": latest.height.to_string(),
            "latest_block_time": time(latest.time_nanos),
            "earliest_block_hash": hex::encode_upper(oldest.hash),
            "earliest_app_hash": hex::encode_upper(app_hash(oldest)),
            "earliest_block_height": oldest.height.to_string(),
            "earliest_block_time": time(oldest.time_nanos),
            "catching_up": false,
        },
        "validator_info": { "address": validator_address(), "pub_key": validator_key(), "voting_power": "1" },
    })
}

pub(crate) fn abci_info(latest: &Block) -> Value {
    json!({ "response": {
        "data": "devnet",
        "version": env!("CARGO_PKG_VERSION"),
        "app_version": "0",
        "last_block_height": latest.height.to_string(),
        "last_block_app_hash": STANDARD.encode(app_hash(latest)),
    } })
}

pub(crate) fn abci_query(answer: Result<Vec<u8>, Refusal>, height: u64) -> Value {
    let (code, codespace, log, value) = match answer {
        Ok(value) => (0, "", String::new(), json!(STANDARD.encode(value))),
        Err(refusal) => (refusal.code, refusal.codespace, refusal.log, Value::Null),
    };
    json!({ "response": {
        "code": code, "log": log, "info": "", "index": "0", "key": null, "value": value, "proofOps": null,
        "height": height.to_string(), "codespace": codespace,
    } })
}

pub(crate) fn broadcast(hash: [u8; 32], checked: Result<(), Refusal>) -> Value {
    let (code, codespace, log) = match checked {
        Ok(()) => (0, "", String::new()),
        Err(refusal) => (refusal.code, refusal.codespace, refusal.log),
    };
    json!({ "code": code, "data": "", "log": log, "codespace": codespace, "hash": hex::encode_upper(hash) })
}

pub(crate) fn validators(height: u64) -> Value {
    let validator = json!({
        "address": validator_address(), "pub_key": validator_key(), "voting_power": "1", "proposer_priority": "0",
    });
    json!({ "block_height": height.to_string(), "validators": [validator], "count": "1", "total": "1" })
}

pub(crate) fn block(chain_id: &str, block: &Block) -> Value {
    json!({ "block_id": block_id(&block.hash), "block": content(chain_id, block) })
}

pub(crate) fn commit(chain_id: &str, block: &Block) -> Value {
    let commit = signatures(block.height, &block.hash, block.time_nanos);
    json!({ "signed_header": { "header": header(chain_id, block), "commit": commit }, "canonical": true })
}

pub(crate) fn block_results(block: &Block) -> Value {
    let results: Vec<Value> = block.txs.iter().map(|tx| tx_result(&tx.result)).collect();
    json!({
        "height": block.height.to_string(),
        "txs_results": if results.is_empty() { Value::Null } else { Value::Array(results) },
        "finalize_block_events": [],
        "validator_updates": null,
        "consensus_param_updates": null,
        "app_hash": STANDARD.encode(app_hash(block)),
    })
}

pub(crate) fn tx(height: u64, index: u32, tx: &Included) -> Value {
    json!({
        "hash": hex::encode_upper(tx.hash),
        "height": height.to_string(),
        "index": index,
        "tx_result": tx_result(&tx.result),
        "tx": STANDARD.encode(&tx.bytes),
    })
}

/// What a transaction's check alone says.
pub(crate) fn check_result(checked: Result<u64, Refusal>) -> Value {
    let (gas_wanted, code, codespace, log) = match checked {
        Ok(gas_wanted) => (gas_wanted, 0, "", String::new()),
        Err(refusal) => (0, refusal.code, refusal.codespace, refusal.log),
    };
    json!({
        "code": code, "data": null, "log": log, "info": "", "gas_wanted": gas_wanted.to_string(), "gas_used": "0",
        "events": [], "codespace": codespace,
    })
}

/// The check and, once it is in a block, the result.
pub(crate) fn broadcast_commit(
    hash: [u8; 32],
    checked: Result<(), Refusal>,
    included: Option<(u64, &TxResult)>,
) -> Value {
    let (height, result) = match included {
        Some((height, result)) => (height, tx_result(result)),
        None => (0, tx_result(&TxResult::default())),
    };
    json!({
        "check_tx": check_result(checked.map(|()| 0)),
        "tx_result": result,
        "hash": hex::encode_upper(hash),
        "height": height.to_string(),
    })
}

pub(crate) fn block_search(blocks: Vec<Value>, total: usize) -> Value {
    json!({ "blocks": blocks, "total_count": total.to_string() })
}

/// A block that was asked for by its hash: one that is not there is no error.
pub(crate) fn block_or_none(chain_id: &str, found: Option<&Block>) -> Value {
    match found {
        Some(found) => block(chain_id, found),
        None => json!({ "block_id": no_block_id(), "block": null }),
    }
}

pub(crate) fn header_of(chain_id: &str, block: Option<&Block>) -> Value {
    json!({ "header": block.map(|block| header(chain_id, block)) })
}

pub(crate) fn blockchain<'a>(
    chain_id: &str,
    latest: u64,
    blocks: impl Iterator<Item = &'a std::sync::Arc<Block>>,
) -> Value {
    let meta = |block: &'a std::sync::Arc<Block>| {
        let bytes = block.txs.iter().map(|tx| tx.bytes.len());
        json!({
            "block_id": block_id(&block.hash),
            "block_size": bytes.fold(0, usize::saturating_add).to_string(),
            "header": header(chain_id, block),
            "num_txs": block.txs.len().to_string(),
        })
    };
    json!({ "last_height": latest.to_string(), "block_metas": blocks.map(meta).collect::<Vec<_>>() })
}

/// How long evidence against a validator counts; nobody here can misbehave.
pub(crate) const EVIDENCE_BLOCKS: i64 = 100_000;
pub(crate) const EVIDENCE_SECONDS: i64 = 172_800;
pub(crate) const EVIDENCE_BYTES: i64 = 1_048_576;

pub(crate) fn consensus_params(height: u64) -> Value {
    json!({ "block_height": height.to_string(), "consensus_params": {
        "block": { "max_bytes": BLOCK_BYTES_MAX.to_string(), "max_gas": "-1" },
        "evidence": {
            "max_age_num_blocks": EVIDENCE_BLOCKS.to_string(),
            "max_age_duration": format!("{EVIDENCE_SECONDS}000000000"),
            "max_bytes": EVIDENCE_BYTES.to_string(),
        },
        "validator": { "pub_key_types": ["ed25519"] },
        "version": { "app": "0" },
        "abci": { "vote_extensions_enable_height": "0" },
    } })
}

/// Nobody else is there.
pub(crate) fn net_info() -> Value {
    json!({ "listening": true, "listeners": [], "n_peers": "0", "peers": [] })
}

/// What waits for a block: how much, and the transactions where they are wanted.
pub(crate) fn unconfirmed((count, bytes): (usize, usize), txs: Option<Vec<&[u8]>>) -> Value {
    let shown = txs.as_ref().map_or(count, Vec::len);
    let txs = txs.map(|txs| txs.into_iter().map(|tx| STANDARD.encode(tx)).collect::<Vec<_>>());
    json!({ "n_txs": shown.to_string(), "total": count.to_string(), "total_bytes": bytes.to_string(), "txs": txs })
}

pub(crate) fn tx_search(txs: Vec<Value>, total: usize) -> Value {
    json!({ "txs": txs, "total_count": total.to_string() })
}

/// A pushed transaction. Unlike everywhere else, zero values are left out.
pub(crate) fn tx_event(query: &str, height: u64, index: u32, tx: &Included, attributes: &Attributes) -> Value {
    let mut result = Map::new();
    let TxResult {
        code,
        codespace,
        log,
        data,
        ..
    } = &tx.result;
    let mut put = |key: &str, present: bool, value: Value| {
        if present {
            result.insert(key.to_owned(), value);
        }
    };
    put("code", *code != 0, json!(code));
    put("codespace", !codespace.is_empty(), json!(codespace));
    put("log", !log.is_empty(), json!(log));
    put("data", !data.is_empty(), json!(STANDARD.encode(data)));
    put("gas_wanted", true, json!(tx.result.gas_wanted.to_string()));
    put("gas_used", true, json!(tx.result.gas_used.to_string()));
    put("events", true, events(&tx.result.events));
    let mut value = json!({ "height": height.to_string(), "tx": STANDARD.encode(&tx.bytes), "result": result });
    if index != 0 {
        value["index"] = json!(index);
    }
    let data = json!({ "type": "tendermint/event/Tx", "value": { "TxResult": value } });
    json!({ "query": query, "data": data, "events": attributes })
}

pub(crate) fn block_event(query: &str, chain_id: &str, block: &Block, attributes: &Attributes) -> Value {
    let results: Vec<Value> = block.txs.iter().map(|tx| tx_result(&tx.result)).collect();
    let value = json!({
        "block": content(chain_id, block),
        "block_id": block_id(&block.hash),
        "result_finalize_block": {
            "events": [],
            "tx_results": results,
            "validator_updates": [],
            "app_hash": STANDARD.encode(app_hash(block)),
        },
    });
    let data = json!({ "type": "tendermint/event/NewBlock", "value": value });
    json!({ "query": query, "data": data, "events": attributes })
}

/// A successful JSON-RPC answer.
pub(crate) fn response(id: &Value, result: Value) -> Value {
    json!({ "jsonrpc": "2.0", "id": id, "result": result })
}

/// A failed one. Clients match on the text of `data`.
pub(crate) fn error(id: &Value, code: i64, message: &str, data: &str) -> Value {
    json!({ "jsonrpc": "2.0", "id": id, "error": { "code": code, "message": message, "data": data } })
}

fn tx_result(result: &TxResult) -> Value {
    let data = if result.data.is_empty() {
        Value::Null
    } else {
        json!(STANDARD.encode(&result.data))
    };
    json!({
        "code": result.code,
        "data": data,
        "log": result.log,
        "info": "",
        "gas_wanted": result.gas_wanted.to_string(),
        "gas_used": result.gas_used.to_string(),
        "events": events(&result.events),
        "codespace": result.codespace,
    })
}

fn events(events: &Events) -> Value {
    events.iter().map(event).collect()
}

fn event(event: Kept<'_>) -> Value {
    let attributes = event.attributes();
    let attributes: Vec<Value> = attributes
        .map(|(key, value)| json!({ "key": key, "value": value, "index": true }))
        .collect();
    json!({ "type": event.ty, "attributes": attributes })
}

fn content(chain_id: &str, block: &Block) -> Value {
    let txs: Vec<String> = block.txs.iter().map(|tx| STANDARD.encode(&tx.bytes)).collect();
    let last_commit = match block.height {
        1 => json!({ "height": "0", "round": 0, "block_id": no_block_id(), "signatures": [] }),
        height => signatures(height.saturating_sub(1), &block.previous, block.previous_time_nanos),
    };
    json!({
        "header": header(chain_id, block),
        "data": { "txs": txs },
        "evidence": { "evidence": [] },
        "last_commit": last_commit,
    })
}

fn header(chain_id: &str, block: &Block) -> Value {
    let hashes: Vec<[u8; 32]> = block.txs.iter().map(|tx| tx.hash).collect();
    let last_block_id = if block.height == 1 {
        no_block_id()
    } else {
        block_id(&block.previous)
    };
    json!({
        "version": { "block": "11" },
        "chain_id": chain_id,
        "height": block.height.to_string(),
        "time": time(block.time_nanos),
        "last_block_id": last_block_id,
        "last_commit_hash": digest(&block.previous),
        "data_hash": digest(&hashes.concat()),
        "validators_hash": digest(&VALIDATOR_KEY),
        "next_validators_hash": digest(&VALIDATOR_KEY),
        "consensus_hash": digest(b""),
        "app_hash": hex::encode_upper(app_hash(block)),
        "last_results_hash": digest(b""),
        "evidence_hash": digest(b""),
        "proposer_address": validator_address(),
    })
}

fn signatures(height: u64, hash: &[u8; 32], time_nanos: u64) -> Value {
    let signature = json!({
        "block_id_flag": 2,
        "validator_address": validator_address(),
        "timestamp": time(time_nanos),
        // Nobody signs blocks here; the field must hold 64 bytes.
        "signature": STANDARD.encode([1u8; 64]),
    });
    json!({ "height": height.to_string(), "round": 0, "block_id": block_id(hash), "signatures": [signature] })
}

fn block_id(hash: &[u8; 32]) -> Value {
    json!({ "hash": hex::encode_upper(hash), "parts": { "total": 1, "hash": digest(hash) } })
}

fn no_block_id() -> Value {
    json!({ "hash": "", "parts": { "total": 0, "hash": "" } })
}

fn validator_key() -> Value {
    json!({ "type": "tendermint/PubKeyEd25519", "value": STANDARD.encode(VALIDATOR_KEY) })
}

fn validator_address() -> String {
    hex::encode_upper(digest20(&VALIDATOR_KEY))
}

fn app_hash(block: &Block) -> [u8; 32] {
    Sha256::digest(block.hash).into()
}

fn digest(bytes: &[u8]) -> String {
    hex::encode_upper(Sha256::digest(bytes))
}

fn digest20(bytes: &[u8]) -> Vec<u8> {
    Sha256::digest(bytes).iter().take(20).copied().collect()
}

/// RFC 3339 with nanoseconds and `Z`.
fn time(nanos: u64) -> String {
    const SECOND: u64 = 1_000_000_000;
    let seconds = i64::try_from(nanos.checked_div(SECOND).unwrap_or(0)).unwrap_or(i64::MAX);
    let rest = u32::try_from(nanos.checked_rem(SECOND).unwrap_or(0)).unwrap_or(0);
    let time = cosmrs::tendermint::Time::from_unix_timestamp(seconds, rest);
    time.unwrap_or_else(|_| cosmrs::tendermint::Time::unix_epoch())
        .to_rfc3339()
}
