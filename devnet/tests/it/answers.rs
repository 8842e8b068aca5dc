//! Every answer, by POST, in a batch and by GET, is read back by the types of tendermint-rpc; so is every refusal.

use base64::{engine::general_purpose::STANDARD, Engine};
use serde_json::{json, Value};
use tendermint_rpc::{endpoint, Client, HttpClient, Response};

use crate::{
    probe::{announce, start, Do},
    raw::Raw,
};

type Parse = fn(&str) -> Result<(), tendermint_rpc::Error>;

/// A method, its parameters by POST and by GET, and the type that reads its answer.
struct Case {
    method: &'static str,
    params: Value,
    url: String,
    parse: Parse,
}

fn case(method: &'static str, params: Value, url: impl Into<String>, parse: Parse) -> Case {
    let url = url.into();
    Case {
        method,
        params,
        url,
        parse,
    }
}

macro_rules! reads {
    ($($path:tt)+) => {
        |text| <endpoint::$($path)+ as Response>::from_string(text).map(drop)
    };
}

/// Methods that answer, at a height and with the hashes of a transaction and its block.
fn answered(height: u64, hash: &[u8], block: &[u8]) -> Vec<Case> {
    let (at, by_height) = (json!({ "height": height.to_string() }), format!("height={height}"));
    let base64 = |bytes: &[u8]| json!({ "hash": STANDARD.encode(bytes) });
    let hex = |bytes: &[u8]| format!("hash=0x{}", hex::encode(bytes));
    let balance = json!({ "path": "/cosmwasm.wasm.v1.Query/Codes", "data": "", "height": "0", "prove": false });
    let query = json!({ "query": "tx.height>0", "prove": false, "page": "1", "per_page": "3", "order_by": "desc" });
    let blocks = json!({ "query": "block.height>0", "page": "1", "per_page": "3", "order_by": "desc" });
    vec![
        case("health", json!({}), "", reads!(health::Response)),
        case("status", json!({}), "", reads!(status::Response)),
        case("net_info", json!({}), "", reads!(net_info::Response)),
        case("abci_info", json!({}), "", reads!(abci_info::Response)),
        case(
            "abci_query",
            balance,
            "path=%22/cosmwasm.wasm.v1.Query/Codes%22&data=0x",
            reads!(abci_query::Response),
        ),
        case("block", at.clone(), &by_height, reads!(block::Response)),
        case("block", json!({}), "", reads!(block::Response)),
        case("block", json!({ "height": "1" }), "height=1", reads!(block::Response)),
        case("header", at.clone(), &by_height, reads!(header::Response)),
        case("commit", at.clone(), &by_height, reads!(commit::Response)),
        case("validators", at.clone(), &by_height, reads!(validators::Response)),
        case(
            "consensus_params",
            at.clone(),
            &by_height,
            reads!(consensus_params::Response),
        ),
        case("block_results", at, &by_height, reads!(block_results::Response)),
        case(
            "block_results",
            json!({ "height": "1" }),
            "height=1",
            reads!(block_results::Response),
        ),
        case(
            "block_by_hash",
            base64(block),
            hex(block),
            reads!(block_by_hash::Response),
        ),
        case(
            "block_by_hash",
            base64(&[0; 32]),
            hex(&[0; 32]),
            reads!(block_by_hash::Response),
        ),
        case(
            "header_by_hash",
            base64(block),
            hex(block),
            reads!(header_by_hash::Response),
        ),
        case(
            "blockchain",
            json!({ "minHeight": "1", "maxHeight": "5" }),
            "minHeight=1&maxHeight=5",
            reads!(blockchain::Response),
        ),
        case("tx", base64(hash), hex(hash), reads!(tx::Response)),
        case(
            "tx_search",
            query,
            "query=%22tx.height%3E0%22&per_page=3&order_by=%22desc%22",
            reads!(tx_search::Response),
        ),
        case(
            "block_search",
            blocks,
            "query=%22block.height%3E0%22&per_page=3",
            reads!(block_search::Response),
        ),
    ]
}

/// Requests that are refused, with a part of what is said.
fn refused() -> Vec<(Case, &'static str)> {
    let high = json!({ "height": "99999999" });
    let nothing = json!({ "hash": STANDARD.encode([1; 32]) });
    let words = "must be less than or equal to the current blockchain height";
    vec![
        (
            case("block", high.clone(), "height=99999999", reads!(block::Response)),
            words,
        ),
        (
            case(
                "block_results",
                high.clone(),
                "height=99999999",
                reads!(block_results::Response),
            ),
            words,
        ),
        (
            case("commit", high.clone(), "height=99999999", reads!(commit::Response)),
            words,
        ),
        (
            case("validators", high, "height=99999999", reads!(validators::Response)),
            words,
        ),
        (
            case("block", json!({ "height": "x" }), "height=x", reads!(block::Response)),
            "height is no number",
        ),
        (
            case("header", json!({ "height": "0" }), "height=0", reads!(header::Response)),
            "must be greater than 0",
        ),
        (
            case(
                "tx",
                nothing,
                format!("hash=0x{}", "01".repeat(32)),
                reads!(tx::Response),
            ),
            ") not found",
        ),
        (
            case("tx", json!({ "hash": "#" }), "hash=7", reads!(tx::Response)),
            "hash is no",
        ),
        (
            case(
                "tx_search",
                json!({ "query": "?" }),
                "query=%22?%22",
                reads!(tx_search::Response),
            ),
            "failed to parse query",
        ),
        (
            case("tx_search", json!({}), "", reads!(tx_search::Response)),
            "query is missing",
        ),
        (
            case(
                "abci_query",
                json!({ "path": "/x", "data": "g" }),
                "path=%22/x%22&data=g",
                reads!(abci_query::Response),
            ),
            "data is no hex",
        ),
        (
            case("broadcast_tx_sync", json!({}), "", reads!(broadcast::tx_sync::Response)),
            "tx is missing",
        ),
        (
            case("dance", json!({}), "", reads!(health::Response)),
            "not a method of this node",
        ),
    ]
}

async fn post(url: &str, body: &Value) -> String {
    let request = reqwest::Client::new().post(url).json(body);
    request.send().await.unwrap().text().await.unwrap()
}

#[tokio::test]
async fn every_method_is_read_back_by_post_in_a_batch_and_by_get() {
    let chain = start().await;
    let url = chain.url();
    let outcome = chain.account("developer").execute(&[announce(5)]).await.unwrap();
    let http = HttpClient::new(url.as_str()).unwrap();
    let block = http.block(outcome.height as u32).await.unwrap().block_id.hash;
    let cases = answered(outcome.height, outcome.hash.as_bytes(), block.as_bytes());
    let requests = cases
        .iter()
        .enumerate()
        .map(|(id, case)| json!({ "jsonrpc": "2.0", "id": id, "method": case.method, "params": case.params }));
    let requests: Vec<Value> = requests.collect();
    for (request, case) in requests.iter().zip(&cases) {
        let text = post(&url, request).await;
        (case.parse)(&text).unwrap_or_else(|error| panic!("{}: {error} in {text}", case.method));
        let text = reqwest::get(format!("{url}/{}?{}", case.method, case.url))
            .await
            .unwrap();
        let text = text.text().await.unwrap();
        (case.parse)(&text).unwrap_or_else(|error| panic!("GET {}: {error} in {text}", case.method));
    }
    let answers: Vec<Value> = serde_json::from_str(&post(&url, &Value::Array(requests)).await).unwrap();
    assert_eq!(answers.len(), cases.len());
    for (id, (answer, case)) in answers.iter().zip(&cases).enumerate() {
        assert_eq!(answer["id"], id);
        (case.parse)(&answer.to_string()).unwrap_or_else(|error| panic!("batched {}: {error}", case.method));
    }
}

#[tokio::test]
async fn every_refusal_is_read_back_with_its_words() {
    let chain = start().await;
    let url = chain.url();
    let mut requests = vec![];
    let cases = refused();
    for (case, words) in &cases {
        let request = json!({ "jsonrpc": "2.0", "id": 1, "method": case.method, "params": case.params });
        let by_url = reqwest::get(format!("{url}/{}?{}", case.method, case.url))
            .await
            .unwrap();
        for text in [post(&url, &request).await, by_url.text().await.unwrap()] {
            let error = (case.parse)(&text).expect_err(case.method).to_string();
            assert!(error.contains(words), "{}: {error}", case.method);
        }
        requests.push(request);
    }
    let answers: Vec<Value> = serde_json::from_str(&post(&url, &Value::Array(requests)).await).unwrap();
    for (answer, (case, words)) in answers.iter().zip(&cases) {
        let error = (case.parse)(&answer.to_string()).expect_err(case.method).to_string();
        assert!(error.contains(words), "{}: {error}", case.method);
    }
}

#[tokio::test]
async fn broadcasts_of_all_kinds_are_read_back_taken_and_refused() {
    let chain = start().await;
    let http = HttpClient::new(chain.url().as_str()).unwrap();
    let mut raw = Raw::new(&chain.client, "developer").await;
    let mut next = |msg: &Do| {
        let message = raw.call(msg, 0);
        raw.sign(vec![message])
    };
    let good = Do::Announce { amount: 1 };
    assert!(http.broadcast_tx_sync(next(&good)).await.unwrap().code.is_ok());
    assert!(http.broadcast_tx_async(next(&good)).await.unwrap().code.is_ok());
    let committed = http.broadcast_tx_commit(next(&good)).await.unwrap();
    assert!(committed.check_tx.code.is_ok() && committed.tx_result.code.is_ok());
    assert!(committed.height.value() > 1 && !committed.tx_result.events.is_empty());
    let failed = http.broadcast_tx_commit(next(&Do::Refuse {})).await.unwrap();
    assert_eq!((failed.check_tx.code.value(), failed.tx_result.code.value()), (0, 5));
    let junk = b"no transaction".to_vec();
    assert_eq!(http.broadcast_tx_sync(junk.clone()).await.unwrap().code.value(), 2);
    assert!(http.broadcast_tx_async(junk.clone()).await.unwrap().code.is_ok());
    let refused = http.broadcast_tx_commit(junk).await.unwrap();
    assert_eq!((refused.check_tx.code.value(), refused.height.value()), (2, 0));
    // By URL, as hex.
    let tx = hex::encode(next(&good));
    let answer = reqwest::get(format!("{}/broadcast_tx_sync?tx=0x{tx}", chain.url()))
        .await
        .unwrap();
    let answer = endpoint::broadcast::tx_sync::Response::from_string(answer.text().await.unwrap()).unwrap();
    assert!(answer.code.is_ok());
}

#[tokio::test]
async fn what_waits_and_what_a_check_says_has_a_nodes_form() {
    let chain = crate::probe::start_with(std::time::Duration::from_millis(400)).await;
    let mut raw = Raw::new(&chain.client, "developer").await;
    let message = raw.call(&Do::Announce { amount: 1 }, 0);
    let tx = STANDARD.encode(raw.sign(vec![message]));
    let checked = crate::raw::rpc(&chain.url(), "check_tx", json!({ "tx": tx })).await["result"].clone();
    assert_eq!(
        (&checked["code"], &checked["gas_wanted"]),
        (&json!(0), &json!("10000000"))
    );
    let pool = crate::raw::rpc(&chain.url(), "unconfirmed_txs", json!({})).await["result"].clone();
    assert!(pool["n_txs"].is_string() && pool["total_bytes"].is_string() && pool["txs"].is_array());
    let pool = crate::raw::rpc(&chain.url(), "num_unconfirmed_txs", json!([])).await["result"].clone();
    assert_eq!(pool["txs"], Value::Null);
}
