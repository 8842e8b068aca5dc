//! The guarantees of `client::events`, each against a node that behaves and one that does not.

use std::time::Duration;

use client::{
    events::{follow, follow_with, Block, Follow, Options},
    Client, ClientError,
};
use futures::StreamExt;

use crate::{
    probe::{announce, network, start, start_with, Chain, PROBE},
    proxy::Proxy,
};

/// The next block of a stream that must not have ended, within a limit that only a hang exceeds.
async fn next(stream: &mut Follow) -> Result<Block, ClientError> {
    let next = tokio::time::timeout(Duration::from_secs(60), stream.next());
    next.await.expect("the stream hangs").expect("the stream has ended")
}

/// Reads on until `count` amounts were announced; every height in between must come once and in order.
async fn amounts(stream: &mut Follow, mut height: u64, count: usize) -> (Vec<u128>, u64) {
    let mut amounts = vec![];
    while amounts.len() < count {
        let block = next(stream).await.unwrap();
        assert_eq!(block.height, height, "heights must follow each other");
        height += 1;
        for emitted in block.txs.iter().flat_map(|tx| &tx.events) {
            match &emitted.event {
                schema::Event::Withdrawn { amount, .. } => amounts.push(amount.u128()),
                other => panic!("not announced: {other:?}"),
            }
        }
    }
    (amounts, height)
}

async fn announce_all(chain: &Chain, amounts: std::ops::Range<u64>) {
    let alice = chain.account("developer");
    for amount in amounts {
        alice.execute(&[announce(amount)]).await.unwrap();
    }
}

fn quick() -> Options {
    Options {
        poll: Duration::from_millis(50),
        give_up_after: Duration::from_secs(60),
        reset_grace: Duration::from_millis(500),
        buffer: 4,
    }
}

#[tokio::test]
async fn blocks_come_in_order_without_a_gap_from_the_first_one_on() {
    let chain = start().await;
    announce_all(&chain, 0..5).await;
    let mut stream = follow(chain.client.clone(), vec![PROBE.into()], 1);
    let (seen, _) = amounts(&mut stream, 1, 5).await;
    assert_eq!(seen, [0, 1, 2, 3, 4]);
}

#[tokio::test]
async fn a_stream_that_resumes_misses_nothing_and_repeats_nothing() {
    let chain = start().await;
    announce_all(&chain, 0..3).await;
    let mut stream = follow(chain.client.clone(), vec![PROBE.into()], 1);
    let (seen, next_height) = amounts(&mut stream, 1, 3).await;
    assert_eq!(seen, [0, 1, 2]);
    drop(stream);
    announce_all(&chain, 3..6).await;
    let mut stream = follow(chain.client.clone(), vec![PROBE.into()], next_height);
    let (seen, _) = amounts(&mut stream, next_height, 3).await;
    assert_eq!(seen, [3, 4, 5]);
}

#[tokio::test]
async fn cut_connections_and_a_node_that_is_away_leave_no_gap() {
    let chain = start().await;
    let proxy = Proxy::start(chain.running.address()).await;
    let client = Client::connect(network(&proxy.url)).await.unwrap();
    let mut stream = follow_with(client, vec![PROBE.into()], 1, quick());
    let (mut seen, mut height) = (vec![], 1);
    for round in 0..4 {
        announce_all(&chain, round * 2..round * 2 + 1).await;
        proxy.go_down();
        // The chain goes on while the reader cannot see it.
        announce_all(&chain, round * 2 + 1..round * 2 + 2).await;
        proxy.come_up();
        let (more, after) = amounts(&mut stream, height, 2).await;
        seen.extend(more);
        height = after;
    }
    assert_eq!(seen, [0, 1, 2, 3, 4, 5, 6, 7]);
}

#[tokio::test]
async fn a_slow_reader_holds_the_stream_up_and_loses_nothing() {
    let chain = start_with(Duration::from_millis(20)).await;
    let mut stream = follow_with(chain.client.clone(), vec![PROBE.into()], 1, quick());
    // Far more blocks than the buffer of four go by before anybody reads.
    announce_all(&chain, 0..20).await;
    let (seen, _) = amounts(&mut stream, 1, 20).await;
    assert_eq!(seen, (0..20).collect::<Vec<_>>());
}

#[tokio::test]
async fn without_a_subscription_it_polls() {
    let chain = start().await;
    // Requests pass, the upgrade to a WebSocket does not.
    let blind = blind_to_websockets(chain.running.rpc_url()).await;
    let client = Client::connect(network(&blind)).await.unwrap();
    let mut stream = follow_with(client, vec![PROBE.into()], 1, quick());
    announce_all(&chain, 0..3).await;
    let (seen, _) = amounts(&mut stream, 1, 3).await;
    assert_eq!(seen, [0, 1, 2]);
}

/// A server that passes POST requests on and knows no WebSocket.
async fn blind_to_websockets(node: String) -> String {
    use axum::{body::Bytes, routing::post, Router};
    let http = reqwest::Client::new();
    let pass = move |body: Bytes| async move {
        let answer = http.post(&node).body(body).send().await.unwrap();
        answer.bytes().await.unwrap()
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, Router::new().route("/", post(pass))).await });
    url
}

#[tokio::test]
async fn events_of_other_contracts_and_failed_transactions_are_left_out() {
    let chain = start().await;
    let made = chain
        .account("admin")
        .execute(&[crate::probe::instantiation()])
        .await
        .unwrap();
    let other = made.attribute("instantiate", "_contract_address").unwrap().to_owned();
    announce_all(&chain, 0..1).await;
    let elsewhere = client::Call::execute(&other, &crate::probe::Do::Announce { amount: 99 }).unwrap();
    chain.account("developer").execute(&[elsewhere]).await.unwrap();
    announce_all(&chain, 1..2).await;
    let mut stream = follow(chain.client.clone(), vec![PROBE.into()], 1);
    assert_eq!(amounts(&mut stream, 1, 2).await.0, [0, 1]);
    let mut stream = follow(chain.client.clone(), vec![other], 1);
    assert_eq!(amounts(&mut stream, 1, 1).await.0, [99]);
}

#[tokio::test]
async fn a_chain_that_was_reset_ends_the_stream_with_both_heights() {
    let chain = start().await;
    let mut stream = follow_with(chain.client.clone(), vec![], 1_000_000, quick());
    let error = next(&mut stream).await.unwrap_err();
    assert!(
        matches!(error, ClientError::ChainWentBack { next: 1_000_000, .. }),
        "{error}"
    );
    assert!(stream.next().await.is_none());
}

#[tokio::test]
async fn a_node_that_stays_away_ends_the_stream_with_the_last_error() {
    let chain = start().await;
    let options = Options {
        give_up_after: Duration::from_millis(300),
        ..quick()
    };
    let mut stream = follow_with(chain.client.clone(), vec![], 1, options);
    next(&mut stream).await.unwrap();
    chain.running.shutdown().await;
    let error = loop {
        if let Err(error) = next(&mut stream).await {
            break error;
        }
    };
    assert!(matches!(error, ClientError::Unreachable { .. }), "{error}");
}
