//! The RPC's answers, read with tendermint-rpc's types, and the forms of requests other than its own.

use client::TxHash;
use serde_json::{json, Value};
use tendermint_rpc::{query::Query, Client, HttpClient, Order, Paging};

use crate::probe::{announce, start, Chain, PROBE};

fn http(chain: &Chain) -> HttpClient {
    HttpClient::new(chain.running.rpc_url().as_str()).unwrap()
}

async fn get(chain: &Chain, path: &str) -> Value {
    let url = format!("{}/{path}", chain.running.rpc_url());
    reqwest::get(url).await.unwrap().json().await.unwrap()
}

async fn post(chain: &Chain, body: Value) -> Value {
    let request = reqwest::Client::new().post(chain.running.rpc_url()).json(&body);
    request.send().await.unwrap().json().await.unwrap()
}

/// A chain with one announcement, the block that holds it, and its hash.
async fn announced() -> (Chain, u32, TxHash) {
    let chain = start().await;
    let outcome = chain.account("developer").execute(&[announce(5)]).await.unwrap();
    (chain, outcome.height as u32, outcome.hash)
}

#[tokio::test]
async fn every_answer_is_read_by_the_types_of_tendermint_rpc() {
    let (chain, height, hash) = announced().await;
    let http = http(&chain);
    http.health().await.unwrap();
    let status = http.status().await.unwrap();
    assert_eq!(status.node_info.version.to_string(), "0.38.19");
    assert!(status.sync_info.latest_block_height.value() >= u64::from(height));
    http.abci_info().await.unwrap();
    let block = http.block(height).await.unwrap();
    assert_eq!(TxHash::of(&block.block.data[0]), hash);
    assert_eq!(block.block.header.height.value(), u64::from(height));
    let before = http.block(height - 1).await.unwrap();
    assert_eq!(block.block.header.last_block_id.unwrap(), before.block_id);
    http.block(1u32).await.unwrap();
    let results = http.block_results(height).await.unwrap();
    let txs = results.txs_results.unwrap();
    assert!(txs[0].code.is_ok() && txs[0].events.iter().any(|event| event.kind == "wasm-withdrawn"));
    let empty = http.block_results(1u32).await.unwrap();
    assert!(empty.txs_results.is_none());
    let validators = http.validators(height, Paging::Default).await.unwrap();
    assert_eq!(validators.validators[0].address, status.validator_info.address);
    let commit = http.commit(height).await.unwrap();
    assert_eq!(commit.signed_header.header.height.value(), u64::from(height));
    let latest = http.latest_block().await.unwrap();
    assert!(latest.block.header.height.value() >= u64::from(height));
}

#[tokio::test]
async fn transactions_are_found_by_hash_height_and_contract() {
    let (chain, height, hash) = announced().await;
    let http = http(&chain);
    let queries = [
        Query::eq("tx.hash", hash.to_string()),
        Query::eq("tx.height", u64::from(height)),
        Query::eq("wasm._contract_address", PROBE),
        Query::eq("wasm-withdrawn.amount", "5").and_gt("tx.height", 1u64),
    ];
    for query in queries {
        let found = http
            .tx_search(query.clone(), false, 1, 30, Order::Ascending)
            .await
            .unwrap();
        assert_eq!(found.total_count, 1, "{query}");
        assert_eq!(found.txs[0].hash.as_bytes(), hash.as_bytes());
    }
    let none = http
        .tx_search(Query::eq("tx.hash", "AB"), false, 1, 30, Order::Ascending)
        .await
        .unwrap();
    assert_eq!((none.total_count, none.txs.len()), (0, 0));
    let beyond = http
        .tx_search(Query::eq("tx.hash", "AB"), false, 2, 30, Order::Ascending)
        .await;
    assert!(beyond
        .unwrap_err()
        .to_string()
        .contains("page should be within [1, 1] range, given 2"));
}

#[tokio::test]
async fn what_is_not_there_is_an_error_in_the_words_of_a_node() {
    let chain = start().await;
    let http = http(&chain);
    let error = http.block(9_999_999u32).await.unwrap_err().to_string();
    assert!(
        error.contains("must be less than or equal to the current blockchain height"),
        "{error}"
    );
    let hash = "AB".repeat(32);
    let error = http.tx(hash.parse().unwrap(), false).await.unwrap_err().to_string();
    assert!(error.contains(&format!("tx ({hash}) not found")), "{error}");
    let old = http.abci_query(
        Some("/cosmos.bank.v1beta1.Query/Balance".into()),
        vec![],
        Some(1u32.into()),
        false,
    );
    assert_eq!(old.await.unwrap().code.value(), 26);
    let path = http.abci_query(Some("/no.such.Query/Path".into()), vec![], None, false);
    assert_eq!(path.await.unwrap().log, "unknown query path: unknown request");
}

#[tokio::test]
async fn a_known_transaction_is_an_error_and_not_a_code() {
    let chain = start().await;
    let prepared = chain.account("developer").prepare(&[announce(1)]).await.unwrap();
    let http = http(&chain);
    let answer = http.broadcast_tx_sync(prepared.bytes.clone()).await.unwrap();
    assert!(answer.code.is_ok() && answer.hash.as_bytes() == prepared.hash.as_bytes());
    let error = http
        .broadcast_tx_sync(prepared.bytes.clone())
        .await
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("tx already exists in cache") && error.contains("-32603"),
        "{error}"
    );
}

#[tokio::test]
async fn requests_by_url_take_quoted_text_and_hex() {
    let (chain, height, hash) = announced().await;
    let block = get(&chain, &format!("block?height={height}")).await;
    assert_eq!(block["result"]["block"]["header"]["height"], height.to_string());
    let tx = get(&chain, &format!("tx?hash=0x{hash}")).await;
    assert_eq!(tx["result"]["hash"], hash.to_string());
    let found = get(&chain, &format!("tx_search?query=%22tx.hash='{hash}'%22&per_page=5")).await;
    assert_eq!(found["result"]["total_count"], "1");
    let wrong = get(&chain, "block?height=abc").await;
    assert_eq!(wrong["error"]["code"], -32602);
    let unknown = get(&chain, "dance").await;
    assert_eq!(unknown["error"]["code"], -32601);
}

#[tokio::test]
async fn a_batch_is_answered_in_order_each_with_its_id() {
    let chain = start().await;
    let batch = json!([
        { "jsonrpc": "2.0", "id": "a", "method": "health", "params": {} },
        { "jsonrpc": "2.0", "id": 7, "method": "dance", "params": {} },
        { "jsonrpc": "2.0", "id": null, "method": "status" },
    ]);
    let answers = post(&chain, batch).await;
    assert_eq!((&answers[0]["id"], &answers[0]["result"]), (&json!("a"), &json!({})));
    assert_eq!(
        (&answers[1]["id"], &answers[1]["error"]["code"]),
        (&json!(7), &json!(-32601))
    );
    assert_eq!(answers[2]["result"]["node_info"]["network"], "fxn-devnet-1");
}

#[tokio::test]
async fn what_is_no_request_is_told_so() {
    let chain = start().await;
    assert_eq!(post(&chain, json!({ "id": 1 })).await["error"]["code"], -32600);
    assert_eq!(
        post(&chain, json!({ "id": 1, "method": "status", "params": [1] })).await["error"]["code"],
        -32602
    );
    let url = chain.running.rpc_url();
    let request = reqwest::Client::new().post(&url).body("{");
    let answer: Value = request.send().await.unwrap().json().await.unwrap();
    assert_eq!(answer["error"]["code"], -32700);
    let long = reqwest::Client::new().post(&url).body(vec![b' '; 1_100_000]);
    assert_eq!(long.send().await.unwrap().status(), 400);
}

#[tokio::test]
async fn the_json_is_a_nodes_where_types_read_it_more_loosely() {
    let (chain, height, _) = announced().await;
    let status = get(&chain, "status").await["result"].clone();
    assert_eq!(status["validator_info"]["voting_power"], "1");
    let block = get(&chain, &format!("block?height={height}")).await["result"]["block"].clone();
    assert_eq!(block["evidence"], json!({ "evidence": [] }));
    assert!(block["header"]["time"].as_str().unwrap().ends_with('Z'));
    let first = get(&chain, "block?height=1").await["result"]["block"].clone();
    assert_eq!(first["last_commit"]["signatures"], json!([]));
    let results = get(&chain, &format!("block_results?height={height}")).await["result"].clone();
    let result = &results["txs_results"][0];
    assert_eq!((&result["code"], &result["codespace"]), (&json!(0), &json!("")));
    assert!(result["gas_used"].is_string() && result["data"].is_string());
    assert_eq!(result["events"][0]["attributes"][0]["index"], json!(true));
    assert_eq!(results["validator_updates"], Value::Null);
    assert_eq!(
        get(&chain, "block_results?height=1").await["result"]["txs_results"],
        Value::Null
    );
    let query = post(
        &chain,
        json!({ "id": 1, "method": "abci_query", "params": { "path": "/x", "data": "" } }),
    )
    .await;
    let answer = &query["result"]["response"];
    assert_eq!(
        (&answer["key"], &answer["value"], &answer["proofOps"]),
        (&Value::Null, &Value::Null, &Value::Null)
    );
    assert_eq!(answer["index"], "0");
}

#[tokio::test]
async fn cw2_contract_info_and_raw_state_are_readable() {
    let chain = start().await;
    let version = chain.client.cw2(PROBE).await.unwrap();
    assert_eq!(
        (version.contract.as_str(), version.version.as_str()),
        ("probe", "1.2.3")
    );
    let info = chain.client.contract_info(PROBE).await.unwrap();
    assert_eq!((info.code_id, info.label.as_str(), info.admin), (1, "probe", None));
    assert_eq!(info.creator, chain.account("admin").address());
    assert_eq!(chain.client.raw(PROBE, b"nothing").await.unwrap(), None);
}

#[tokio::test]
async fn two_devnets_run_side_by_side_and_a_taken_port_is_named() {
    let (left, right) = (start().await, start().await);
    assert_ne!(left.running.address(), right.running.address());
    let config = devnet::Config {
        rpc: left.running.address(),
        ..devnet::Config::default()
    };
    let error = devnet::Devnet::start(config).await.unwrap_err().to_string();
    assert!(error.contains(&left.running.address().to_string()), "{error}");
}
