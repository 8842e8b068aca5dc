//! Codes, events and pushes item by item, where the stories do not show them already.

use client::Wallet;
use cosmrs::proto::{
    cosmos::{auth::v1beta1::QueryAccountRequest, base::abci::v1beta1::TxMsgData},
    cosmwasm::wasm::v1::{
        MsgExecuteContractResponse, MsgStoreCode, QueryAllContractStateRequest, QueryAllContractStateResponse,
        QueryCodeRequest, QueryCodeResponse, QueryCodesRequest, QueryCodesResponse, QueryContractsByCodeRequest,
        QueryContractsByCodeResponse,
    },
    traits::{Message, Name},
};
use futures::{SinkExt, StreamExt};
use serde_json::{json, Value};
use tokio_tungstenite::{connect_async, tungstenite, MaybeTlsStream, WebSocketStream};

use crate::{
    probe::{start, start_as, start_with, Chain, Do, PROBE},
    raw::{broadcast, commit, rpc, Raw},
};

const LIMIT: std::time::Duration = std::time::Duration::from_secs(60);

async fn abci(chain: &Chain, path: &str, data: Vec<u8>) -> Value {
    let params = json!({ "path": path, "data": hex::encode(data) });
    rpc(&chain.url(), "abci_query", params).await["result"]["response"].clone()
}

async fn decoded<M: Message + Default>(chain: &Chain, path: &str, data: Vec<u8>) -> M {
    let answer = abci(chain, path, data).await;
    let value = answer["value"].as_str().unwrap_or_else(|| panic!("{path}: {answer}"));
    let bytes = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, value);
    M::decode(bytes.unwrap().as_slice()).unwrap()
}

/// Events as lines.
fn lines(result: &Value) -> Vec<String> {
    let events = result["events"].as_array().unwrap().iter();
    let line = |event: &Value| {
        let attributes = event["attributes"].as_array().unwrap().iter();
        let attributes =
            attributes.map(|it| format!(" {}={}", it["key"].as_str().unwrap(), it["value"].as_str().unwrap()));
        format!("{}{}", event["type"].as_str().unwrap(), attributes.collect::<String>())
    };
    events.map(line).collect()
}

#[tokio::test]
async fn checks_refuse_with_the_codes_of_the_chain() {
    let chain = start().await;
    let mut raw = Raw::new(&chain.client, "developer").await;
    let sign = |raw: &mut Raw| {
        let message = raw.call(&Do::Announce { amount: 1 }, 0);
        raw.sign(vec![message])
    };
    // 9: an account that never received anything.
    let mut nobody = Raw {
        wallet: Wallet::random(),
        number: 0,
        sequence: 0,
        gas: crate::raw::GAS,
    };
    let answer = broadcast(&chain.url(), &sign(&mut nobody)).await;
    assert_eq!((&answer["code"], &answer["codespace"]), (&json!(9), &json!("sdk")));
    assert!(
        answer["log"]
            .as_str()
            .unwrap()
            .ends_with("does not exist: unknown address"),
        "{answer}"
    );
    // 11, already in the check.
    raw.gas = 40_000;
    let answer = broadcast(&chain.url(), &sign(&mut raw)).await;
    assert_eq!(answer["code"], 11);
    assert!(
        answer["log"].as_str().unwrap().contains("out of gas in location"),
        "{answer}"
    );
    raw.gas = crate::raw::GAS;
    // The refused one used its sequence up here, but not there: all later ones are 32.
    for got in [1, 2] {
        let answer = broadcast(&chain.url(), &sign(&mut raw)).await;
        assert_eq!(answer["code"], 32);
        let words = format!("account sequence mismatch, expected 0, got {got}: incorrect account sequence");
        assert_eq!(answer["log"], words);
    }
    // Sequences count up without waiting for a block.
    raw.sequence = 0;
    for _ in 0..10 {
        assert_eq!(broadcast(&chain.url(), &sign(&mut raw)).await["code"], 0);
    }
    // 11 in a block, when running takes more than was bought.
    raw.gas = 100_000;
    let result = commit(&chain.url(), &sign(&mut raw)).await["tx_result"].clone();
    assert_eq!((&result["code"], &result["codespace"]), (&json!(11), &json!("sdk")));
}

#[tokio::test]
async fn an_unknown_account_is_code_22_and_not_an_error() {
    let chain = start().await;
    let address = Wallet::random().address("wasm");
    let data = QueryAccountRequest { address }.encode_to_vec();
    let answer = abci(&chain, "/cosmos.auth.v1beta1.Query/Account", data).await;
    assert_eq!((&answer["code"], &answer["codespace"]), (&json!(22), &json!("sdk")));
    assert_eq!(answer["value"], Value::Null);
    assert!(
        answer["log"].as_str().unwrap().ends_with("not found: key not found"),
        "{answer}"
    );
}

#[tokio::test]
async fn a_failed_transaction_has_the_ante_events_and_no_others() {
    let chain = start().await;
    let mut raw = Raw::new(&chain.client, "developer").await;
    let me = raw.address().to_string();
    let messages = vec![raw.call(&Do::Announce { amount: 1 }, 0), raw.call(&Do::Refuse {}, 0)];
    let tx = raw.sign(messages);
    let result = commit(&chain.url(), &tx).await["tx_result"].clone();
    assert_eq!(
        result["log"],
        "failed to execute message; message index: 1: Generic error: the probe refuses: execute wasm contract failed"
    );
    assert_eq!(
        (&result["code"], &result["codespace"], &result["data"]),
        (&json!(5), &json!("wasm"), &Value::Null)
    );
    let seen = lines(&result);
    let collector = "wasm17xpfvakm2amg962yls6f84z3kell8c5l69j4zk";
    assert_eq!(
        seen[..6],
        [
            format!("coin_spent spender={me} amount=250000ustake"),
            format!("coin_received receiver={collector} amount=250000ustake"),
            format!("transfer recipient={collector} sender={me} amount=250000ustake"),
            format!("message sender={me}"),
            format!("tx fee=250000ustake fee_payer={me}"),
            format!("tx acc_seq={me}/0"),
        ]
    );
    assert!(seen[6].starts_with("tx signature=") && seen.len() == 7, "{seen:?}");
    // A good one has the same seven first.
    let message = raw.call(&Do::Announce { amount: 1 }, 0);
    let tx = raw.sign(vec![message]);
    let good = lines(&commit(&chain.url(), &tx).await["tx_result"]);
    assert_eq!(good[..5], seen[..5]);
    assert!(good[..7].iter().all(|line| !line.contains("msg_index")));
    assert!(good[7..].iter().all(|line| line.ends_with(" msg_index=0")), "{good:?}");
}

#[tokio::test]
async fn coins_that_a_contract_passes_on_or_burns_leave_their_events() {
    let chain = start().await;
    let mut raw = Raw::new(&chain.client, "developer").await;
    let inner = Box::new(Do::Odd {});
    let message = raw.call(&Do::Catch { inner, funds: 4 }, 9);
    let tx = raw.sign(vec![message]);
    let result = commit(&chain.url(), &tx).await["tx_result"].clone();
    let me = raw.address();
    let expected = [
        format!("message action=/cosmwasm.wasm.v1.MsgExecuteContract sender={me} module=wasm msg_index=0"),
        format!("coin_spent spender={me} amount=9ustake msg_index=0"),
        format!("coin_received receiver={PROBE} amount=9ustake msg_index=0"),
        format!("transfer recipient={PROBE} sender={me} amount=9ustake msg_index=0"),
        format!("execute _contract_address={PROBE} msg_index=0"),
        // What a contract's message leads to has its attributes in order.
        format!("coin_spent amount=4ustake spender={PROBE} msg_index=0"),
        format!("coin_received amount=4ustake receiver={PROBE} msg_index=0"),
        format!("transfer amount=4ustake recipient={PROBE} sender={PROBE} msg_index=0"),
        format!("execute _contract_address={PROBE} msg_index=0"),
        // No attributes of the response, so no `wasm` event; an event without attributes, and one with an empty value.
        format!("wasm-bare _contract_address={PROBE} msg_index=0"),
        format!("wasm-empty _contract_address={PROBE} key= msg_index=0"),
        format!("reply _contract_address={PROBE} msg_index=0"),
    ];
    assert_eq!(lines(&result)[7..], expected);
    let message = raw.call(&Do::Burn { amount: 2 }, 0);
    let tx = raw.sign(vec![message]);
    let result = lines(&commit(&chain.url(), &tx).await["tx_result"]);
    assert!(
        result.iter().any(|line| line.starts_with("burn burner=wasm1")),
        "{result:?}"
    );
    assert_eq!(chain.gas_coin(PROBE).await, 7);
}

#[tokio::test]
async fn the_data_of_a_transaction_is_one_response_a_message() {
    let chain = start().await;
    let mut raw = Raw::new(&chain.client, "developer").await;
    let me = raw.address().to_string();
    let messages = vec![raw.call(&Do::Announce { amount: 1 }, 0), raw.send(&me, 1)];
    let tx = raw.sign(messages);
    let result = commit(&chain.url(), &tx).await["tx_result"].clone();
    let data = base64::Engine::decode(
        &base64::engine::general_purpose::STANDARD,
        result["data"].as_str().unwrap(),
    );
    let data = TxMsgData::decode(data.unwrap().as_slice()).unwrap();
    let urls: Vec<&str> = data.msg_responses.iter().map(|any| any.type_url.as_str()).collect();
    assert_eq!(
        urls,
        [
            "/cosmwasm.wasm.v1.MsgExecuteContractResponse",
            "/cosmos.bank.v1beta1.MsgSendResponse"
        ]
    );
    MsgExecuteContractResponse::decode(data.msg_responses[0].value.as_slice()).unwrap();
}

#[tokio::test]
async fn a_contract_sees_its_real_place_in_the_block() {
    let chain = start_with(std::time::Duration::from_millis(500)).await;
    let mut places = std::collections::BTreeSet::new();
    // Two in a row are in one block unless the block falls between them.
    for _ in 0..20 {
        let mut raw = Raw::new(&chain.client, "developer").await;
        let mut last = None;
        for _ in 0..2 {
            let message = raw.call(&Do::Place {}, 0);
            let tx = raw.sign(vec![message]);
            assert_eq!(broadcast(&chain.url(), &tx).await["code"], 0);
            last = Some(client::TxHash::of(&tx));
        }
        chain.client.confirm(last.unwrap(), LIMIT).await.unwrap();
        places.insert(chain.note().await);
        if places.contains("Some(1)") {
            return;
        }
    }
    panic!("{places:?}");
}

#[tokio::test]
async fn codes_contracts_and_their_whole_state_are_listed() {
    let chain = start().await;
    let path = |name| format!("/cosmwasm.wasm.v1.Query/{name}");
    let codes: QueryCodesResponse = decoded(
        &chain,
        &path("Codes"),
        QueryCodesRequest { pagination: None }.encode_to_vec(),
    )
    .await;
    assert_eq!((codes.code_infos.len(), codes.code_infos[0].code_id), (1, 1));
    assert_eq!(codes.code_infos[0].data_hash.len(), 32);
    let code: QueryCodeResponse = decoded(&chain, &path("Code"), QueryCodeRequest { code_id: 1 }.encode_to_vec()).await;
    assert_eq!(code.code_info.unwrap().data_hash, codes.code_infos[0].data_hash);
    let unknown = abci(&chain, &path("Code"), QueryCodeRequest { code_id: 9 }.encode_to_vec()).await;
    assert!(
        unknown["log"].as_str().unwrap().contains("code id 9: no such code"),
        "{unknown}"
    );
    let query = QueryContractsByCodeRequest {
        code_id: 1,
        pagination: None,
    };
    let contracts: QueryContractsByCodeResponse =
        decoded(&chain, &path("ContractsByCode"), query.encode_to_vec()).await;
    assert_eq!(contracts.contracts, [PROBE]);
    let query = QueryAllContractStateRequest {
        address: PROBE.into(),
        pagination: None,
    };
    let state: QueryAllContractStateResponse = decoded(&chain, &path("AllContractState"), query.encode_to_vec()).await;
    assert_eq!(state.models[0].key, b"contract_info");
}

#[tokio::test]
async fn code_is_compiled_in_and_cannot_be_stored() {
    let chain = start().await;
    let mut raw = Raw::new(&chain.client, "developer").await;
    let store = MsgStoreCode {
        sender: raw.address().to_string(),
        wasm_byte_code: b"\0asm".to_vec(),
        instantiate_permission: None,
    };
    let any = cosmrs::Any {
        type_url: MsgStoreCode::type_url(),
        value: store.encode_to_vec(),
    };
    let tx = raw.sign(vec![any]);
    let answer = broadcast(&chain.url(), &tx).await;
    assert_eq!(answer["code"], 6);
    let log = answer["log"].as_str().unwrap();
    assert!(log.contains("contracts are compiled into this chain"), "{log}");
}

type Socket = WebSocketStream<MaybeTlsStream<tokio::net::TcpStream>>;

async fn socket(chain: &Chain) -> Socket {
    let url = format!("ws://{}/websocket", chain.running.address());
    connect_async(url).await.unwrap().0
}

async fn say(socket: &mut Socket, id: Value, method: &str, query: &str) {
    let request = json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": { "query": query } });
    socket
        .send(tungstenite::Message::text(request.to_string()))
        .await
        .unwrap();
}

async fn hear(socket: &mut Socket) -> Value {
    let message = tokio::time::timeout(LIMIT, socket.next())
        .await
        .expect("nothing is pushed");
    serde_json::from_str(message.unwrap().unwrap().to_text().unwrap()).unwrap()
}

#[tokio::test]
async fn a_push_carries_the_requests_id_and_its_query_byte_by_byte_and_no_zero_values() {
    let chain = start().await;
    let mut socket = socket(&chain).await;
    // The spelling of JavaScript clients, with a space too many.
    let query = "tm.event='Tx'  AND  message.module = 'wasm'";
    say(&mut socket, json!("my-id"), "subscribe", query).await;
    assert_eq!(
        hear(&mut socket).await,
        json!({ "jsonrpc": "2.0", "id": "my-id", "result": {} })
    );
    let mut raw = Raw::new(&chain.client, "developer").await;
    let message = raw.call(&Do::Announce { amount: 1 }, 0);
    let tx = raw.sign(vec![message]);
    broadcast(&chain.url(), &tx).await;
    let pushed = hear(&mut socket).await;
    assert_eq!(
        (&pushed["id"], &pushed["result"]["query"]),
        (&json!("my-id"), &json!(query))
    );
    assert_eq!(pushed["result"]["data"]["type"], "tendermint/event/Tx");
    let value = &pushed["result"]["data"]["value"]["TxResult"];
    assert!(value.get("index").is_none() && value["height"].is_string());
    for absent in ["code", "codespace", "log", "info"] {
        assert!(value["result"].get(absent).is_none(), "{absent} in {value}");
    }
    let events = &pushed["result"]["events"];
    assert_eq!(events["tm.event"], json!(["Tx"]));
    assert_eq!(
        events["tx.hash"],
        json!([hex::encode_upper(client::TxHash::of(&tx).as_bytes())])
    );
    // It can be asked for as soon as it is pushed.
    let query = format!("tx.hash='{}'", events["tx.hash"][0].as_str().unwrap());
    let found = rpc(&chain.url(), "tx_search", json!({ "query": query })).await;
    assert_eq!(found["result"]["total_count"], "1");
}

#[tokio::test]
async fn a_failed_transaction_is_pushed_with_its_code_but_not_by_a_contracts_filter() {
    let chain = start().await;
    let mut socket = socket(&chain).await;
    let filtered = format!("tm.event='Tx' AND wasm._contract_address='{PROBE}'");
    for (id, query) in [(1, "tm.event='Tx'"), (2, filtered.as_str())] {
        say(&mut socket, json!(id), "subscribe", query).await;
        assert_eq!(hear(&mut socket).await["id"], id);
    }
    let mut raw = Raw::new(&chain.client, "developer").await;
    for msg in [Do::Refuse {}, Do::Announce { amount: 1 }] {
        let message = raw.call(&msg, 0);
        let tx = raw.sign(vec![message]);
        commit(&chain.url(), &tx).await;
    }
    let failed = hear(&mut socket).await;
    let result = &failed["result"]["data"]["value"]["TxResult"]["result"];
    assert_eq!(
        (&failed["id"], &result["code"], &result["codespace"]),
        (&json!(1), &json!(5), &json!("wasm"))
    );
    assert!(result["log"].as_str().unwrap().contains("the probe refuses"));
    let mut next = [hear(&mut socket).await, hear(&mut socket).await].map(|pushed| pushed["id"].as_u64().unwrap());
    next.sort_unstable();
    assert_eq!(next, [1, 2]);
}

#[tokio::test]
async fn subscriptions_are_counted_and_refused_in_the_words_of_a_node() {
    let chain = start().await;
    let mut socket = socket(&chain).await;
    let query = |number: u32| format!("tx.height={number}");
    for number in 0..5 {
        say(&mut socket, json!(number), "subscribe", &query(number)).await;
        assert_eq!(hear(&mut socket).await["result"], json!({}));
    }
    say(&mut socket, json!(9), "subscribe", &query(9)).await;
    let refused = hear(&mut socket).await;
    assert_eq!((&refused["id"], &refused["error"]["code"]), (&json!(9), &json!(-32603)));
    assert_eq!(refused["error"]["data"], "max_subscriptions_per_client 5 reached");
    say(&mut socket, json!(10), "subscribe", &query(0)).await;
    assert_eq!(hear(&mut socket).await["error"]["data"], "already subscribed");
    say(&mut socket, json!(11), "unsubscribe", &query(0)).await;
    assert_eq!(hear(&mut socket).await["result"], json!({}));
    say(&mut socket, json!(12), "unsubscribe", &query(0)).await;
    assert_eq!(hear(&mut socket).await["error"]["data"], "subscription not found");
    say(&mut socket, json!(13), "unsubscribe_all", "").await;
    assert_eq!(hear(&mut socket).await["result"], json!({}));
    say(&mut socket, json!(14), "subscribe", "tm.event=").await;
    assert!(hear(&mut socket).await["error"]["data"]
        .as_str()
        .unwrap()
        .contains("failed to parse query"));
}

#[tokio::test]
async fn the_hundred_and_first_client_may_ask_but_not_subscribe() {
    let chain = start().await;
    let mut sockets = vec![];
    // One that only asks is not counted.
    for number in 0..101 {
        let mut socket = socket(&chain).await;
        if number > 0 {
            say(&mut socket, json!(1), "subscribe", "tm.event='Tx'").await;
            assert_eq!(hear(&mut socket).await["result"], json!({}), "client {number}");
        }
        sockets.push(socket);
    }
    let mut first = sockets.remove(0);
    say(&mut first, json!(1), "health", "").await;
    assert_eq!(hear(&mut first).await["result"], json!({}));
    say(&mut first, json!(2), "subscribe", "tm.event='Tx'").await;
    assert_eq!(
        hear(&mut first).await["error"]["data"],
        "max_subscription_clients 100 reached"
    );
    let mut last = sockets.pop().unwrap();
    say(&mut last, json!(3), "unsubscribe_all", "").await;
    assert_eq!(hear(&mut last).await["result"], json!({}));
    say(&mut first, json!(4), "subscribe", "tm.event='Tx'").await;
    assert_eq!(hear(&mut first).await["result"], json!({}));
}

#[tokio::test]
async fn a_client_that_does_not_read_is_told_that_it_was_cut_off() {
    let chain = start_as(devnet::Config {
        block_time: std::time::Duration::from_millis(10),
        ..devnet::Config::default()
    })
    .await;
    let mut socket = socket(&chain).await;
    for number in 0..5 {
        let query = format!("tm.event='Tx' AND tx.height>{number}");
        say(&mut socket, json!(number), "subscribe", &query).await;
        assert_eq!(hear(&mut socket).await["result"], json!({}));
    }
    // Far more than the buffers between the two hold, then more blocks than the node keeps for it.
    let mut raw = Raw::new(&chain.client, "developer").await;
    let mut last = None;
    for _ in 0..12 {
        let padded = json!({ "refuse": {}, "padding": "x".repeat(600_000) }).to_string();
        let message = raw.execute(PROBE, padded.as_bytes(), 0);
        let tx = raw.sign(vec![message]);
        assert_eq!(broadcast(&chain.url(), &tx).await["code"], 0);
        last = Some(tx);
    }
    let begun = std::time::Instant::now();
    let height = chain.client.status().await.unwrap().height;
    while chain.client.status().await.unwrap().height < height + 400 {
        assert!(begun.elapsed() < LIMIT, "no blocks are made");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    drop(last);
    let mut canceled = vec![];
    while let Some(Ok(message)) = tokio::time::timeout(LIMIT, socket.next()).await.expect("it hangs") {
        let Ok(text) = message.to_text() else { break };
        let Ok(pushed) = serde_json::from_str::<Value>(text) else {
            break;
        };
        if pushed.get("error").is_some() {
            assert_eq!(pushed["error"]["code"], -32000);
            let reason = "subscription was canceled (reason: client is not pulling messages fast enough)";
            assert_eq!(pushed["error"]["data"], reason);
            canceled.push(pushed["id"].as_u64().unwrap());
        }
    }
    canceled.sort_unstable();
    assert_eq!(canceled, [0, 1, 2, 3, 4]);
}
