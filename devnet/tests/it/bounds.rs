//! Under load everything that holds memory stays at its bound.

use std::time::Duration;

use base64::{engine::general_purpose::STANDARD, Engine};
use serde_json::{json, Value};

use crate::{
    probe::{resume_as, start_as, Do},
    raw::{broadcast, rpc, Raw},
};

async fn metric(address: std::net::SocketAddr, name: &str) -> f64 {
    let text = reqwest::get(format!("http://{address}/metrics")).await.unwrap();
    let text = text.text().await.unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("{name} is not in {text}"))
        .parse()
        .unwrap()
}

#[tokio::test]
async fn history_index_mempool_and_clients_stay_bounded_while_transactions_go_through() {
    let chain = start_as(devnet::Config {
        block_time: Duration::from_millis(20),
        blocks_kept: 20,
        metrics: Some(([127, 0, 0, 1], 0).into()),
        ..devnet::Config::default()
    })
    .await;
    let address = chain.running.metrics_address().unwrap();
    let mut raw = Raw::new(&chain.client, "developer").await;
    let (mut first, mut most_bytes) = (None, vec![]);
    for round in 0..40 {
        for amount in 0..25 {
            let message = raw.call(&Do::Announce { amount }, 0);
            let tx = raw.sign(vec![message]);
            assert_eq!(broadcast(&chain.url(), &tx).await["code"], 0);
            first.get_or_insert_with(|| hex::encode(client::TxHash::of(&tx).as_bytes()));
        }
        assert!(metric(address, "fxn_devnet_blocks_kept").await <= 20.0, "round {round}");
        most_bytes.push(metric(address, "fxn_devnet_history_bytes").await);
    }
    let begun = std::time::Instant::now();
    while metric(address, "fxn_devnet_transactions_total{codespace=\"\",code=\"0\"}").await < 1_001.0 {
        assert!(begun.elapsed() < Duration::from_secs(60), "they do not get through");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(metric(address, "fxn_devnet_mempool_transactions").await, 0.0);
    // A thousand transactions of over 1.5 kB went through a history of twenty blocks.
    assert!(most_bytes.iter().all(|bytes| *bytes < 1_000_000.0), "{most_bytes:?}");
    // With its block a transaction leaves the index too.
    let height = chain.client.status().await.unwrap().height;
    let begun = std::time::Instant::now();
    while chain.client.status().await.unwrap().height < height + 25 {
        assert!(begun.elapsed() < Duration::from_secs(60), "no blocks are made");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let found = rpc(
        &chain.url(),
        "tx_search",
        json!({ "query": format!("tx.hash='{}'", first.unwrap()) }),
    )
    .await;
    assert_eq!(found["result"]["total_count"], "0", "{found}");
    assert_eq!(metric(address, "fxn_devnet_websocket_clients").await, 0.0);
    assert_eq!(metric(address, "fxn_devnet_subscriptions").await, 0.0);
}

#[tokio::test]
async fn a_full_mempool_says_so_and_takes_nothing_more() {
    // The next block comes when the test is long over.
    let config = devnet::Config {
        block_time: Duration::from_secs(3_600),
        ..devnet::Config::default()
    };
    let chain = resume_as(config).await.unwrap();
    let mut raw = Raw::new(&chain.client, "developer").await;
    let http = reqwest::Client::new();
    let me = raw.address().to_string();
    let mut answers: Vec<Value> = vec![];
    while answers.len() < 5_050 {
        let requests = (0..50).map(|id| {
            let send = raw.send(&me, 1);
            let tx = STANDARD.encode(raw.sign(vec![send]));
            json!({ "jsonrpc": "2.0", "id": id, "method": "broadcast_tx_sync", "params": { "tx": tx } })
        });
        let requests: Vec<Value> = requests.collect();
        let sent = http.post(chain.url()).json(&requests).send().await.unwrap();
        answers.extend(sent.json::<Vec<Value>>().await.unwrap());
    }
    let (taken, refused) = answers.split_at(5_000);
    assert!(taken.iter().all(|answer| answer["result"]["code"] == 0));
    for answer in refused {
        assert_eq!(answer["error"]["code"], -32603);
        let data = answer["error"]["data"].as_str().unwrap();
        let words = "mempool is full: number of txs 5000 (max: 5000), total txs bytes ";
        assert!(data.starts_with(words), "{data}");
    }
    let waiting = rpc(&chain.url(), "num_unconfirmed_txs", json!({})).await;
    assert_eq!(waiting["result"]["total"], "5000");
}
