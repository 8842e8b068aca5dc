//! The embedded chain's doors: requests of its RPC and bytes of transactions. Whatever is sent, it answers in JSON and goes on making blocks.

use std::time::Duration;

use client::{Account, Call, Client, Network, Wallet};
use devnet::{Config, Devnet, Running};
use reqwest::{blocking, StatusCode};
use schema::{params::Params, token};
use serde_json::{json, Value};
use tokio::runtime::Runtime;

use crate::target::Target;

const MIB: usize = 1 << 20;
const BLOCK_TIME: Duration = Duration::from_millis(20);

/// A chain, with what is needed to see that it lives.
struct Chain {
    runtime: Runtime,
    running: Option<Running>,
    client: Client,
    http: blocking::Client,
    url: String,
}

impl Chain {
    fn start() -> Self {
        let runtime = Runtime::new().unwrap();
        let params: Params = toml::from_str(include_str!("../../params/local.toml")).unwrap();
        let config = Config {
            rpc: "127.0.0.1:0".parse().unwrap(),
            block_time: BLOCK_TIME,
            market: Some(params),
            blocks_kept: 200,
            ..Config::default()
        };
        let running = runtime.block_on(Devnet::start(config)).unwrap();
        let network: Network = serde_json::from_value(running.network().clone()).unwrap();
        Self {
            client: runtime.block_on(Client::connect(network)).unwrap(),
            url: running.rpc_url(),
            running: Some(running),
            http: blocking::Client::builder()
                .timeout(Duration::from_secs(15))
                .build()
                .unwrap(),
            runtime,
        }
    }

    /// Posts a body and asserts that the answer is one.
    fn post(&self, body: &[u8]) -> Value {
        let answer = self.http.post(&self.url).body(body.to_vec()).send().unwrap();
        let status = answer.status();
        assert!(
            status.is_success()
                || [
                    StatusCode::BAD_REQUEST,
                    StatusCode::PAYLOAD_TOO_LARGE,
                    StatusCode::INTERNAL_SERVER_ERROR
                ]
                .contains(&status),
            "{status}"
        );
        let text = answer.text().unwrap();
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{status}, {error}: {text}"))
    }

    /// Another block is made, and no FUNC has come or gone.
    fn assert_alive(&self) {
        self.runtime.block_on(async {
            let before = self.client.status().await.unwrap().height;
            let next = async {
                while self.client.status().await.unwrap().height <= before {
                    tokio::time::sleep(BLOCK_TIME).await;
                }
            };
            tokio::time::timeout(Duration::from_secs(15), next)
                .await
                .expect("blocks are made");
            let info: cw20::TokenInfoResponse = self.client.token().ask(&token::QueryMsg::TokenInfo {}).await.unwrap();
            assert_eq!(info.total_supply.u128(), schema::TOTAL_SUPPLY);
        });
    }
}

impl Drop for Chain {
    fn drop(&mut self) {
        if let Some(running) = self.running.take() {
            self.runtime.block_on(running.shutdown());
        }
    }
}

fn request(method: &str, params: Value) -> Vec<u8> {
    serde_json::to_vec(&json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params})).unwrap()
}

#[test]
fn the_rpc_answers_whatever_it_is_asked() {
    let chain = Chain::start();
    let escrow = chain.client.contracts().royalty_escrow.clone();
    let smart = prost_smart_query(&escrow, br#"{"ledger":{"start_after":null,"limit":5}}"#);
    let samples = vec![
        request("status", json!({})),
        request("block", json!({"height": "1"})),
        request("block_results", json!({"height": "1"})),
        request("tx", json!({"hash": "ab", "prove": false})),
        request(
            "tx_search",
            json!({"query": "tx.height=1", "page": "1", "per_page": "5", "order_by": "asc"}),
        ),
        request(
            "abci_query",
            json!({"path": "/cosmwasm.wasm.v1.Query/SmartContractState", "data": hex::encode(smart), "height": "0", "prove": false}),
        ),
        request(
            "abci_query",
            json!({"path": "/cosmos.auth.v1beta1.Query/Account", "data": "0a01", "height": "0", "prove": false}),
        ),
        request("broadcast_tx_sync", json!({"tx": "AAAA"})),
        request("subscribe", json!({"query": "tm.event='NewBlock'"})),
        serde_json::to_vec(&json!([{"jsonrpc": "2.0", "id": 1, "method": "health"}])).unwrap(),
    ];
    let target = Target {
        name: "rpc",
        samples,
        memory: 64 * MIB,
    };
    let mut asked = 0;
    target.attack(|bytes| {
        chain.post(bytes);
        asked += 1;
        if asked % 200 == 0 {
            chain.assert_alive();
        }
    });
    chain.assert_alive();
}

/// `QuerySmartContractStateRequest { address, query_data }`.
fn prost_smart_query(address: &str, query: &[u8]) -> Vec<u8> {
    let field =
        |number: u8, content: &[u8]| [&[number << 3 | 2, u8::try_from(content.len()).unwrap()], content].concat();
    [field(1, address.as_bytes()), field(2, query)].concat()
}

#[test]
fn any_bytes_of_a_transaction_are_taken_or_refused() {
    let chain = Chain::start();
    let samples = chain.runtime.block_on(async {
        let account = Account::new(chain.client.clone(), Wallet::dev("developer"));
        let contracts = chain.client.contracts();
        let deposit = schema::escrow::ReceiveMsg::Deposit { beneficiary: None };
        let deposit = Call::cw20_send(&contracts.func_token, &contracts.royalty_escrow, 5, &deposit).unwrap();
        let send = Call::send(account.address(), 1);
        let mut samples = vec![];
        for calls in [vec![deposit.clone()], vec![send.clone()], vec![send, deposit]] {
            samples.push(account.prepare(&calls).await.unwrap().bytes);
        }
        samples
    });
    let target = Target {
        name: "transaction",
        samples,
        memory: 64 * MIB,
    };
    let mut sent = 0;
    target.attack(|bytes| {
        let tx = cosmwasm_std::Binary::from(bytes).to_base64();
        let answer = chain.post(&request("broadcast_tx_sync", json!({ "tx": tx })));
        assert!(answer["result"]["code"].is_u64() || answer["error"]["code"].is_i64(), "{answer}");
        // A simulation goes deeper: signatures are not looked at.
        let simulate = [&[0x12_u8][..], &length(bytes.len()), bytes].concat();
        let params = json!({"path": "/cosmos.tx.v1beta1.Service/Simulate", "data": hex::encode(simulate), "height": "0", "prove": false});
        let answer = chain.post(&request("abci_query", params));
        assert!(answer["result"]["response"]["code"].is_u64() || answer["error"]["code"].is_i64(), "{answer}");
        sent += 1;
        if sent % 200 == 0 {
            chain.assert_alive();
        }
    });
    chain.assert_alive();
}

/// A protobuf length.
fn length(mut number: usize) -> Vec<u8> {
    let mut bytes = vec![];
    while number > 0x7f {
        bytes.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
    bytes
}
