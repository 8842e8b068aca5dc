//! A node of another chain, and addresses under which something else lives: refused at the start, before anything is signed.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{routing::post, Json, Router};
use client::{Network, Wallet};
use inference_host::{onnx::find_library, Config};
use prost::Message;
use serde_json::{json, Value};

const CHAIN: &str = "fxn-1";
const NAMES: [&str; 5] = [
    "func-token",
    "model-registry",
    "provider-staking",
    "royalty-escrow",
    "job-orchestrator",
];

/// The answer to a question for a raw value of a contract.
#[derive(Clone, PartialEq, Message)]
struct Raw {
    #[prost(bytes = "vec", tag = "1")]
    data: Vec<u8>,
}

/// A question for a raw value of a contract.
#[derive(Clone, PartialEq, Message)]
struct Asked {
    #[prost(string, tag = "1")]
    address: String,
}

fn status() -> Value {
    let (zeros, time) = ("0".repeat(64), "2026-01-01T00:00:00Z");
    json!({
        "node_info": {
            "protocol_version": { "p2p": "8", "block": "11", "app": "0" }, "id": "0".repeat(40), "listen_addr": "tcp://0.0.0.0:1",
            "network": CHAIN, "version": "0.38.0", "channels": "40", "moniker": "n",
            "other": { "tx_index": "on", "rpc_address": "tcp://127.0.0.1:1" },
        },
        "sync_info": {
            "latest_block_hash": zeros, "latest_app_hash": zeros, "latest_block_height": "9", "latest_block_time": time,
            "earliest_block_hash": zeros, "earliest_app_hash": zeros, "earliest_block_height": "1", "earliest_block_time": time,
            "catching_up": false,
        },
        "validator_info": {
            "address": "0".repeat(40), "voting_power": "1",
            "pub_key": { "type": "tendermint/PubKeyEd25519", "value": format!("{}=", "A".repeat(43)) },
        },
    })
}

/// A node whose contracts have recorded these names, by address. What it was asked is noted.
async fn node(names: Vec<(String, String)>, asked: Arc<Mutex<Vec<String>>>) -> String {
    let answer = move |Json(question): Json<Value>| async move {
        let method = question["method"].as_str().unwrap().to_owned();
        asked.lock().unwrap().push(method.clone());
        let result = match method.as_str() {
            "status" => status(),
            _ => {
                let data = hex::decode(question["params"]["data"].as_str().unwrap()).unwrap();
                let address = Asked::decode(data.as_slice()).unwrap().address;
                let (_, name) = names.iter().find(|(known, _)| *known == address).unwrap();
                let recorded = json!({ "contract": name, "version": "1.0.0" }).to_string();
                let value = Raw { data: recorded.into() }.encode_to_vec();
                json!({ "response": {
                    "code": 0, "log": "", "info": "", "index": "0", "key": null, "value": base64(&value), "proofOps": null,
                    "height": "9", "codespace": "",
                }})
            }
        };
        Json(json!({ "jsonrpc": "2.0", "id": question["id"], "result": result }))
    };
    let router = Router::new().route("/", post(answer));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    url
}

fn base64(bytes: &[u8]) -> String {
    cosmwasm_std::Binary::from(bytes).to_base64()
}

fn address(name: &str) -> String {
    Wallet::dev(name).address("wasm")
}

async fn refusal(chain_id: &str, names: Vec<(String, String)>) -> (String, Vec<String>) {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let network = json!({
        "chain_id": chain_id, "rpc": node(names, Arc::clone(&asked)).await, "denom": "ustake", "gas_price": "0.025",
        "bech32_prefix": "wasm", "contracts": {
            "func_token": address(NAMES[0]), "model_registry": address(NAMES[1]), "provider_staking": address(NAMES[2]),
            "royalty_escrow": address(NAMES[3]), "job_orchestrator": address(NAMES[4]),
        },
    });
    let network: Network = serde_json::from_value(network).unwrap();
    let home = tempfile::tempdir().unwrap();
    let key = Wallet::dev("host");
    let config = Config {
        onnxruntime: Some(find_library(None).unwrap()),
        ..Config::new(home.path().join("home"), key.address("wasm"))
    };
    // One that is not refused would serve for ever.
    let started = inference_host::run(config, network, key, std::future::pending());
    let error = tokio::time::timeout(Duration::from_secs(60), started).await.unwrap();
    assert!(!home.path().join("home").exists(), "nothing is made for a wrong chain");
    let asked = asked.lock().unwrap().clone();
    (format!("{:#}", error.unwrap_err()), asked)
}

fn true_names() -> Vec<(String, String)> {
    NAMES.map(|name| (address(name), name.to_owned())).to_vec()
}

#[tokio::test]
async fn a_node_of_another_chain_is_refused_with_both_names() {
    let (sentence, asked) = refusal("fxn-2", true_names()).await;
    assert!(
        sentence.ends_with("the node is on chain \"fxn-1\", the network file says \"fxn-2\""),
        "{sentence}"
    );
    assert_eq!(asked, ["status"]);
}

#[tokio::test]
async fn a_contract_that_is_another_kind_than_the_file_says_is_refused_with_its_address_and_both_kinds() {
    for (index, expected) in NAMES.iter().enumerate() {
        let mut names = true_names();
        names[index].1 = "cw20-base".to_owned();
        let (sentence, _) = refusal(CHAIN, names).await;
        let expected = format!(
            "the contract at {} is cw20-base, the network file says that it is {expected}",
            address(expected)
        );
        assert!(sentence.ends_with(&expected), "{sentence}");
    }
}
