//! Ten times more than fits, peers that do nothing, peers that do not read: answers come at once and say when to come back, what was taken is
//! finished, and afterwards everything is as before.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use inference_host::proto::{frame::Content, span_client::SpanClient, Frame};
use reqwest::StatusCode;
use schema::{work::WorkState, Digest};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tonic::Code;

use crate::{
    kit::{item, Market, Provider},
    refusals::{Crafted, TEXTS},
};

/// An answer is at once when it comes within this, on a machine that has much else to do.
const AT_ONCE: Duration = Duration::from_secs(20);

/// Two spans on two providers, of which the second runs.
async fn two(market: &Market, configure: impl FnOnce(&mut Provider)) -> [Provider; 2] {
    let first = market.provider("first", 1, 0, 0);
    let mut last = market.provider("last", 2, 1, 2);
    configure(&mut last);
    last.start().await;
    [first, last]
}

async fn as_before(host: &Provider) {
    for (metric, expected) in [
        ("queued_rows", 0),
        ("pushes_receiving", 0),
        ("row_memory_free_bytes", host.config.rows_bytes_max),
        ("work{state=\"running\"}", 0),
        ("disk_full", 0),
    ] {
        let settled = async |host: &Provider| host.metric(metric).await == expected;
        host.eventually(metric, settled).await;
    }
    let few = async |host: &Provider| host.metric("connections{address=\"public\"}").await <= 2;
    host.eventually("connections to be closed", few).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_times_more_pushes_than_fit_are_taken_or_refused_at_once_and_all_are_done_in_the_end() {
    const PUSHES: u64 = 120;
    let market = Market::new();
    let [first, last] = two(&market, |host| {
        host.config.queue_rows_max = 16;
        host.config.pushes_max = 4;
    })
    .await;
    let (market, hosts) = (Arc::new(market), Arc::new([first, last]));
    hosts[1].controls.hold();
    let mut storm = tokio::task::JoinSet::new();
    for job in 1..=PUSHES {
        let assignment = market.assign(job, &TEXTS, &[(&hosts[0], 1, 0, 0), (&hosts[1], 2, 1, 2)]);
        let (market, hosts) = (Arc::clone(&market), Arc::clone(&hosts));
        storm.spawn(async move {
            let began = Instant::now();
            let answer = Crafted::new(&market, &assignment, &hosts[0]).send(&hosts[1]).await;
            (job, answer, began.elapsed())
        });
    }
    let mut refused = Vec::new();
    while let Some(told) = storm.join_next().await {
        let (job, answer, time) = told.unwrap();
        assert!(time < AT_ONCE, "{time:?}");
        if let Err(status) = answer {
            assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
            let after = status.metadata().get("retry-after").unwrap().to_str().unwrap();
            assert!((1..=30).contains(&after.parse::<u64>().unwrap()), "{after}");
            refused.push(job);
        }
    }
    // Sixteen rows wait and some are with the engine.
    assert!(
        refused.len() >= PUSHES as usize - 16,
        "only {} of {PUSHES} refused",
        refused.len()
    );
    assert!(hosts[1].metric("queued_rows").await <= 16);
    assert_eq!(hosts[1].metric("overloads_total").await, refused.len() as u64);
    hosts[1].controls.release();
    while let Some(job) = refused.pop() {
        let assignment = market.chain.0.lock().unwrap().assignments[&item(job).key()].clone();
        match Crafted::new(&market, &assignment, &hosts[0]).send(&hosts[1]).await {
            Ok(_) => {}
            Err(status) => {
                assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
                refused.push(job);
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }
    for job in 1..=PUSHES {
        assert!(hosts[1].done(item(job)).await.complete);
    }
    as_before(&hosts[1]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_times_more_begins_than_fit_are_answered_at_once() {
    let market = Market::new();
    let mut host = market.provider("whole", 1, 0, 2);
    host.config.queue_rows_max = 10;
    host.start().await;
    host.controls.hold();
    let (market, host) = (Arc::new(market), Arc::new(host));
    let mut storm = tokio::task::JoinSet::new();
    for job in 1..=100 {
        market.assign(job, &["a"], &[(&host, 1, 0, 2)]);
        let host = Arc::clone(&host);
        storm.spawn(async move {
            let began = Instant::now();
            let (status, body) = host.begin(item(job), 0).await;
            assert!(began.elapsed() < AT_ONCE, "{:?}", began.elapsed());
            assert!(
                [StatusCode::ACCEPTED, StatusCode::TOO_MANY_REQUESTS].contains(&status),
                "{status}: {body}"
            );
            status == StatusCode::ACCEPTED
        });
    }
    let mut taken = 0;
    while let Some(told) = storm.join_next().await {
        taken += u64::from(told.unwrap());
    }
    assert!((10..=40).contains(&taken), "{taken}");
    assert!(host.metric("queued_rows").await <= 10);
    host.controls.release();
    for job in 1..=100 {
        while host.begin(item(job), 0).await.0 == StatusCode::TOO_MANY_REQUESTS {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert_eq!(host.done(item(job)).await.state, WorkState::Done);
    }
    as_before(&host).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn work_that_could_never_fit_is_refused_for_good_with_the_limit_that_it_is_beyond() {
    let market = Market::new();
    let mut host = market.provider("whole", 1, 0, 2);
    host.config.queue_rows_max = 3;
    host.start().await;
    let promised = &host.status().await["deployments"][0]["shortage"];
    assert_eq!(promised, "an item may have 8192 rows, queue_rows_max is 3");
    market.assign(1, &["a"; 4], &[(&host, 1, 0, 2)]);
    for _ in 0..2 {
        let (status, body) = host.begin(item(1), 0).await;
        assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE, "{body}");
        let sentence =
            "4 rows came at once, and this host never takes more than 3: queue_rows_max of its configuration";
        assert_eq!(body, sentence);
    }
    assert_eq!(host.metric("refusals_total{reason=\"too_large\"}").await, 2);
    assert_eq!(host.metric("overloads_total").await, 0, "nobody is told to come back");
    // One that fits an empty queue is only too early.
    host.controls.hold();
    for job in 2..=5 {
        market.assign(job, &["a"; 3], &[(&host, 1, 0, 2)]);
        host.begin(item(job), 0).await;
    }
    let (status, body) = host.begin(item(5), 0).await;
    assert_eq!(status, StatusCode::TOO_MANY_REQUESTS, "{body}");
    host.controls.release();
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_pushes_what_could_never_fit_is_told_so_and_does_not_try_until_the_deadline() {
    type Limit = fn(&mut Provider);
    let limits: [(Limit, &str); 3] = [
        (
            |host| host.config.queue_rows_max = 1,
            "2 rows came at once, and this host never takes more than 1: queue_rows_max",
        ),
        (
            |host| host.config.work_bytes_max = 100,
            "never takes more than 100: work_bytes_max",
        ),
        (
            |host| host.config.rows_bytes_max = 1 << 16,
            "never takes more than 65536: rows_bytes_max",
        ),
    ];
    for (limit, words) in limits {
        let market = Market::new();
        let mut first = market.provider("first", 1, 0, 0);
        first.start().await;
        let mut last = market.provider("last", 2, 1, 2);
        limit(&mut last);
        last.start().await;
        let texts = if words.contains("rows_bytes_max") {
            vec!["a"; 3000]
        } else {
            TEXTS.to_vec()
        };
        let assignment = market.assign(1, &texts, &[(&first, 1, 0, 0), (&last, 2, 1, 2)]);
        first.begin_surely(item(1)).await;
        let failed = first.ended(item(1)).await;
        assert_eq!(failed.state, WorkState::Failed);
        let reason = failed.error.unwrap();
        assert!(reason.contains(words), "{reason}");
        assert!(
            crate::kit::now() < assignment.deadline,
            "it was tried until the deadline"
        );
        assert_eq!(failed.links.len(), 1, "the sender's receipt stays");
        assert_eq!(first.metric("push_retries_total").await, 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_who_open_pushes_and_say_nothing_are_cut_off_and_honest_senders_get_through() {
    let market = Market::new();
    let [first, last] = two(&market, |host| {
        host.config.pushes_max = 2;
        host.config.io_timeout_seconds = 2;
    })
    .await;
    let assignment = market.assign(1, &TEXTS, &[(&first, 1, 0, 0), (&last, 2, 1, 2)]);
    let mut silent = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let mut client = SpanClient::connect(last.public("")).await.unwrap();
        silent.spawn(async move { client.push(tokio_stream::pending::<Frame>()).await.unwrap_err().code() });
    }
    let began = Instant::now();
    let acknowledged = loop {
        match Crafted::new(&market, &assignment, &first).send(&last).await {
            Ok(acknowledged) => break acknowledged,
            Err(status) => assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}"),
        }
        assert!(began.elapsed() < AT_ONCE, "an honest sender is kept out");
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert_eq!(acknowledged.acknowledgement.deployment, 2);
    while let Some(code) = silent.join_next().await {
        assert_eq!(code.unwrap(), Code::DeadlineExceeded);
    }
    // One that has proven itself and then says nothing loses its place as well, and nothing of it is kept.
    let half = market.assign(2, &TEXTS, &[(&first, 1, 0, 0), (&last, 2, 1, 2)]);
    let header = Crafted::new(&market, &half, &first).signed_header();
    let frames = tokio_stream::iter([Frame {
        content: Some(Content::Header(header)),
    }]);
    let frames = tokio_stream::StreamExt::chain(frames, tokio_stream::pending());
    let mut client = SpanClient::connect(last.public("")).await.unwrap();
    let status = client.push(frames).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status:?}");
    drop(client);
    assert!(!last.work_folder(item(2), 1).exists());
    Crafted::new(&market, &half, &first).send(&last).await.unwrap();
    last.done(item(1)).await;
    last.done(item(2)).await;
    as_before(&last).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_that_do_not_read_lose_their_place() {
    let market = Market::new();
    let mut host = market.provider("host", 1, 1, 1);
    host.config.io_timeout_seconds = 1;
    // Larger than what the system buffers for both ends.
    let blob = vec![7_u8; 32 << 20];
    let digest = Digest::of(&blob);
    let blobs = host.home.path().join("blobs");
    std::fs::create_dir_all(&blobs).unwrap();
    std::fs::write(blobs.join(digest.to_string()), blob).unwrap();
    host.start().await;
    let address = host.running.as_ref().unwrap().listen();
    let request = format!("GET /blobs/{digest} HTTP/1.1\r\nhost: a\r\n\r\n");
    let mut lazy = Vec::new();
    for _ in 0..32 {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut head = [0; 12];
        stream.read_exact(&mut head).await.unwrap();
        assert_eq!(&head, b"HTTP/1.1 200");
        lazy.push(stream);
    }
    let url = host.public(&format!("/blobs/{digest}"));
    let ask = || async {
        reqwest::Client::new()
            .get(&url)
            .header("range", "bytes=0-9")
            .send()
            .await
            .unwrap()
    };
    let began = Instant::now();
    loop {
        let answer = ask().await;
        match answer.status() {
            StatusCode::PARTIAL_CONTENT => break,
            status => {
                assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
                assert!(answer.headers().contains_key("retry-after"));
            }
        }
        assert!(began.elapsed() < AT_ONCE, "the places are never free");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    drop(lazy);
    as_before(&host).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_connection_too_many_is_told_so_and_an_unended_one_is_not_in_anybodys_way() {
    let market = Market::new();
    let mut host = market.provider("host", 1, 1, 1);
    host.config.connections_max = 8;
    host.start().await;
    let address = host.running.as_ref().unwrap().listen();
    let mut idle = Vec::new();
    while host.metric("connections{address=\"public\"}").await < 8 {
        idle.push(TcpStream::connect(address).await.unwrap());
    }
    for _ in 0..30 {
        let answer = reqwest::Client::new().get(host.public("/health")).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(answer.headers()["retry-after"], "1");
    }
    assert!(host.metric("connections_refused_total").await >= 30);
    drop(idle);
    as_before(&host).await;
    assert_eq!(
        reqwest::get(host.public("/health")).await.unwrap().status(),
        StatusCode::OK
    );
}
