//! Subscriptions through tendermint-rpc's own WebSocket client.

use std::time::Duration;

use futures::{future::join_all, FutureExt, StreamExt};
use tendermint_rpc::{
    event::EventData,
    query::{EventType, Query},
    Client as _, SubscriptionClient, WebSocketClient,
};

use crate::probe::{announce, start, Chain, PROBE};

const LIMIT: Duration = Duration::from_secs(30);

async fn connect(chain: &Chain) -> WebSocketClient {
    let url = format!("ws://{}/websocket", chain.running.address());
    let (client, driver) = WebSocketClient::new(url.as_str()).await.unwrap();
    tokio::spawn(driver.run());
    client
}

#[tokio::test]
async fn new_blocks_are_pushed_one_after_the_other() {
    let chain = start().await;
    let client = connect(&chain).await;
    let subscription = client.subscribe(EventType::NewBlock.into()).await.unwrap();
    let events = tokio::time::timeout(LIMIT, subscription.take(4).collect::<Vec<_>>())
        .await
        .unwrap();
    let heights: Vec<u64> = events
        .into_iter()
        .map(|event| match event.unwrap().data {
            EventData::NewBlock { block, .. } => block.unwrap().header.height.value(),
            other => panic!("not a block: {other:?}"),
        })
        .collect();
    assert!(heights.windows(2).all(|pair| pair[1] == pair[0] + 1), "{heights:?}");
}

#[tokio::test]
async fn transactions_of_a_contract_are_pushed_with_their_events() {
    let chain = start().await;
    let client = connect(&chain).await;
    let query = Query::from(EventType::Tx).and_eq("wasm._contract_address", PROBE);
    let mut subscription = client.subscribe(query.clone()).await.unwrap();
    let outcome = chain.account("developer").execute(&[announce(5)]).await.unwrap();
    let event = tokio::time::timeout(LIMIT, subscription.next())
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    assert_eq!(event.query, query.to_string());
    let attributes = event.events.unwrap();
    assert_eq!(attributes["tx.hash"], [outcome.hash.to_string()]);
    assert_eq!(attributes["wasm-withdrawn.amount"], ["5"]);
    let EventData::Tx { tx_result } = event.data else {
        panic!("not a transaction")
    };
    assert_eq!(tx_result.height, outcome.height as i64);
    assert!(tx_result
        .result
        .events
        .iter()
        .any(|event| event.kind == "wasm-withdrawn"));
}

#[tokio::test]
async fn a_sixth_subscription_is_refused_until_one_is_given_back() {
    let chain = start().await;
    let client = connect(&chain).await;
    let query = |number: u64| Query::from(EventType::Tx).and_eq("tx.height", number);
    let open = join_all((0..5).map(|number| client.subscribe(query(number)))).await;
    assert!(open.iter().all(Result::is_ok));
    // This client does not tell a refused subscription from a quiet one: the refusal is that nothing comes.
    let mut sixth = client.subscribe(EventType::NewBlock.into()).await.unwrap();
    wait_for_blocks(&chain, 3).await;
    client.health().await.unwrap();
    assert!(sixth.next().now_or_never().is_none());
    client.unsubscribe(query(0)).await.unwrap();
    let again = Query::from(EventType::NewBlock).and_gt("block.height", 0u64);
    let mut again = client.subscribe(again).await.unwrap();
    tokio::time::timeout(LIMIT, again.next())
        .await
        .unwrap()
        .unwrap()
        .unwrap();
}

/// Returns once the chain has grown by so many blocks.
async fn wait_for_blocks(chain: &Chain, count: usize) {
    let height = chain.client.status().await.unwrap().height;
    let blocks = client::events::follow(chain.client.clone(), vec![], height + 1);
    let blocks: Vec<_> = blocks.take(count).collect().await;
    assert!(blocks.iter().all(Result::is_ok));
}

#[tokio::test]
async fn the_websocket_answers_ordinary_requests_too() {
    let chain = start().await;
    let client = connect(&chain).await;
    let status = client.status().await.unwrap();
    assert_eq!(status.node_info.network.as_str(), "fxn-devnet-1");
}
