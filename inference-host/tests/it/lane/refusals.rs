//! Clients that lie, flood, repeat themselves or say nothing.

use std::time::Duration;

use client::Wallet;
use cosmwasm_std::Uint128;
use lane::proto::{to_client::Content as Said, to_host::Content as Heard, Code, Hello, Request, Row};
use schema::{session::Voucher, Digest};

use super::{
    client::{opened, request, session_key, signed, units, voucher, Attendant, Stream},
    stories::alone,
};
use crate::{
    kit::now,
    tiny::{BAD_WORD, PANIC_WORD},
};

#[tokio::test]
async fn only_the_session_key_is_welcome_and_a_hello_is_good_for_one_stream() {
    let (market, provider) = alone().await;
    let opened = market.session(&[(&provider, 1, 0, 2)]);
    let url = provider.public("");
    let first = Stream::open(&url).await.unwrap();
    let nonce = first.nonce;
    let key = session_key();
    let cases = [
        (
            Wallet::dev("mallory"),
            1,
            1,
            None,
            Code::Session,
            "not signed by the session key",
        ),
        (
            key.clone(),
            1,
            1,
            Some(nonce),
            Code::Session,
            "not signed by the session key",
        ),
        (
            key.clone(),
            1,
            1,
            Some(Digest([0; 32])),
            Code::Session,
            "not signed by the session key",
        ),
        (key.clone(), 1, 2, None, Code::Session, "no allocation to deployment 2"),
        (key.clone(), 9, 1, None, Code::Session, "session 9 is not known"),
    ];
    for (key, session, deployment, nonce, code, words) in cases {
        let mut stream = Stream::open(&url).await.unwrap();
        assert_ne!(stream.nonce, first.nonce);
        let nonce = nonce.unwrap_or(stream.nonce);
        stream.hello(&key, &opened, session, deployment, nonce).await;
        stream.is_refused(code, words).await;
        assert_eq!(stream.next().await, None, "the stream ends");
    }
    let mut other_chain = opened.clone();
    other_chain.domain.chain_id = "other".into();
    let mut stream = Stream::open(&url).await.unwrap();
    let own = stream.nonce;
    stream.hello(&key, &other_chain, 1, 1, own).await;
    stream.is_refused(Code::Session, "not signed").await;
    for content in [
        Heard::Request(Request::default()),
        Heard::Row(Row::default()),
        Heard::Voucher(vec![]),
        Heard::Hello(Hello::default()),
    ] {
        let mut stream = Stream::open(&url).await.unwrap();
        stream.say(content).await;
        stream.is_refused(Code::Invalid, "").await;
        assert_eq!(stream.next().await, None);
    }
    assert_eq!(provider.metric("session_strangers_refused_total").await, 10);
}

#[tokio::test]
async fn a_session_of_another_host_or_of_an_older_key_is_not_served() {
    let (market, provider) = alone().await;
    let elsewhere = market.provider("elsewhere", 2, 0, 2);
    let mut opened = market.session(&[(&provider, 1, 0, 2), (&elsewhere, 2, 0, 2)]);
    let mut stream = Stream::open(&provider.public("")).await.unwrap();
    let nonce = stream.nonce;
    stream.hello(&session_key(), &opened, 1, 2, nonce).await;
    stream.is_refused(Code::Session, "is not of provider").await;
    opened.session.allocations[0].host_key = schema::PublicKey(Wallet::dev("rotated").public_key());
    market.put(&opened);
    let mut stream = Stream::open(&provider.public("")).await.unwrap();
    let nonce = stream.nonce;
    stream.hello(&session_key(), &opened, 1, 1, nonce).await;
    stream.is_refused(Code::Session, "this host signs with").await;
}

#[tokio::test]
async fn strangers_that_say_nothing_are_cut_off_and_cannot_keep_others_out() {
    let (market, provider) = alone().await;
    let opened = market.session(&[(&provider, 1, 0, 2)]);
    let url = provider.public("");
    let mut silent = vec![];
    // One place more than there are.
    let full = loop {
        let mut stream = Stream::open(&url).await.unwrap();
        if stream.nonce == Digest([0; 32]) {
            break stream.refusal().await;
        }
        silent.push(stream);
        assert!(silent.len() <= 128, "there is no end of places");
    };
    assert_eq!(full.code(), Code::Overloaded, "{full:?}");
    for mut stream in silent {
        assert_eq!(stream.next().await, None, "whoever says nothing is cut off");
    }
    Attendant::at(&provider, &opened, 1).await;
}

#[tokio::test]
async fn the_newest_stream_that_proves_the_key_takes_the_place_of_the_older() {
    let (market, provider) = alone().await;
    let opened = market.session(&[(&provider, 1, 0, 2)]);
    let mut older = Attendant::at(&provider, &opened, 1).await;
    let mut newer = Attendant::at(&provider, &opened, 1).await;
    assert_eq!(older.stream.next().await, None);
    newer.buys(1, &["a"], units(0, 0)).await;
    // A stranger takes nobody's place.
    let mut stranger = Stream::open(&provider.public("")).await.unwrap();
    let nonce = stranger.nonce;
    stranger.hello(&Wallet::dev("mallory"), &opened, 1, 1, nonce).await;
    stranger.refusal().await;
    newer.asks_for(2, &["a"]).await;
    newer.receipt(2).await;
}

#[tokio::test]
async fn vouchers_that_are_none_are_refused_with_their_reason_and_change_nothing() {
    let (market, provider) = alone().await;
    let spans = [(&provider, 1, 0, 2)];
    let first = market.session(&spans);
    let second = opened(2, &spans, 1_000_000_000);
    market.put(&second);
    let mut client = Attendant::at(&provider, &first, 1).await;
    let good = voucher(&first, 1, 1, units(1, 4));
    let mut forged = good;
    forged.signature.0[9] ^= 1;
    let less = Voucher {
        amount: good.voucher.amount - Uint128::one(),
        ..good.voucher
    };
    let beyond = voucher(&first, 1, 1, units(100_000_000, 1_600_000_000));
    let cases = [
        (voucher(&second, 1, 1, units(1, 4)), "session 2"),
        (forged, "not signed by the session key"),
        (signed(&first, less), "for work that costs"),
        (
            signed(
                &first,
                Voucher {
                    sequence: 0,
                    ..good.voucher
                },
            ),
            "its sequence is 0",
        ),
        (voucher(&first, 1, 1, units(2, 1)), "2 rows have 1 units"),
        (beyond, "are allocated"),
    ];
    for (bad, words) in &cases {
        client.sends(bad).await;
        client.stream.is_refused(Code::Voucher, words).await;
    }
    for bytes in [b"{}".to_vec(), vec![b' '; 4096], vec![0xff; 10]] {
        client.stream.say(Heard::Voucher(bytes)).await;
        client.stream.is_refused(Code::Voucher, "").await;
    }
    assert_eq!(provider.held_vouchers().await.vouchers, []);
    client.sends(&good).await;
    client.is_held(1).await;
    assert_eq!(provider.metric("session_vouchers_refused_total").await, 9);
}

#[tokio::test]
async fn requests_that_no_host_would_take_are_invalid_and_cost_nothing() {
    let (market, provider) = alone().await;
    let opened = market.session(&[(&provider, 1, 0, 2)]);
    let mut client = Attendant::at(&provider, &opened, 1).await;
    let good = || request(1, &[1], &["a"]);
    let cases = [
        (Request { number: 0, ..good() }, "its number is 0"),
        (
            Request {
                chain: vec![],
                ..good()
            },
            "its chain has 0 deployments",
        ),
        (
            Request {
                chain: vec![1; 17],
                ..good()
            },
            "its chain has 17 deployments",
        ),
        (
            Request {
                chain: vec![1, 1],
                ..good()
            },
            "is not once in its chain",
        ),
        (
            Request {
                chain: vec![2],
                ..good()
            },
            "is not once in its chain",
        ),
        (
            Request {
                chain: vec![1, 2],
                ..good()
            },
            "deployment 2 of its chain is not in the session",
        ),
        (Request { rows: 0, ..good() }, "it has no rows"),
        (Request { rows: 65, ..good() }, "65 rows came at once"),
        (
            Request {
                bytes: 1 << 30,
                ..good()
            },
            "bytes came at once",
        ),
        (
            Request {
                digest: vec![1; 31],
                ..good()
            },
            "a digest has 32 bytes",
        ),
        (
            Request {
                patience_ms: 0,
                ..good()
            },
            "no patience",
        ),
    ];
    for (bad, words) in cases {
        client.asks(bad).await;
        client.stream.is_refused(Code::Invalid, words).await;
    }
    // Rows that are not what was announced.
    let texts = ["a", "b"];
    let (mut longer, mut other) = (request(2, &[1], &texts), request(3, &[1], &texts));
    longer.bytes = 1;
    other.digest = vec![7; 32];
    client.gives(longer, &texts).await;
    client.stream.is_refused(Code::Invalid, "bytes").await;
    client.gives(other, &texts).await;
    client.stream.is_refused(Code::Invalid, "root").await;
    let wide = "a ".repeat(40);
    client.asks_for(4, &[&wide]).await;
    let refused_or_cut = client.stream.find(|said| match said {
        Said::Refused(refused) => Some(Some(refused.code())),
        Said::Receipt(_) => Some(None),
        _ => None,
    });
    // A long text is cut as the model's tokeniser cuts it, or it is refused; it never is more than the session allows.
    assert_ne!(refused_or_cut.await.unwrap(), Some(Code::Failed));
}

#[tokio::test]
async fn a_row_for_nothing_and_a_message_without_content_end_the_stream() {
    let (market, provider) = alone().await;
    let opened = market.session(&[(&provider, 1, 0, 2)]);
    let mut client = Attendant::at(&provider, &opened, 1).await;
    let row = Row {
        number: 5,
        bytes: "a".into(),
    };
    client.stream.say(Heard::Row(row)).await;
    client
        .stream
        .is_refused(Code::Invalid, "request 5, which was not made")
        .await;
    assert_eq!(client.stream.next().await, None);
    let mut client = Attendant::at(&provider, &opened, 1).await;
    client
        .stream
        .out
        .send(lane::proto::ToHost { content: None })
        .await
        .unwrap();
    client.stream.is_refused(Code::Invalid, "empty").await;
    let mut client = Attendant::at(&provider, &opened, 1).await;
    client.asks(request(1, &[1], &["a", "b"])).await;
    client.stream.is_refused(Code::Invalid, "its rows do not come").await;
    // What it had taken is free again.
    let mut client = Attendant::at(&provider, &opened, 1).await;
    client.buys(2, &["a"], units(0, 0)).await;
}

#[tokio::test]
async fn a_row_that_fails_in_the_model_is_not_counted_and_the_next_request_is_served() {
    let (market, provider) = alone().await;
    let opened = market.session(&[(&provider, 1, 0, 2)]);
    let mut client = Attendant::at(&provider, &opened, 1).await;
    client.asks_for(1, &[BAD_WORD]).await;
    client.stream.is_refused(Code::Failed, "failed to run the graph").await;
    client.buys(2, &["a"], units(0, 0)).await;
    client.is_held(2).await;
    client.asks_for(3, &[PANIC_WORD]).await;
    client.stream.is_refused(Code::Failed, "").await;
}

#[tokio::test]
async fn what_was_not_begun_is_cancelled_for_nothing_and_what_was_begun_is_paid() {
    let (market, provider) = alone().await;
    let opened = market.session(&[(&provider, 1, 0, 2)]);
    let assignment = market.assign(1, &["a"], &[(&provider, 1, 0, 2)]);
    let mut client = Attendant::at(&provider, &opened, 1).await;
    provider.controls.hold();
    provider.begin_surely(assignment.item).await;
    provider
        .eventually("the engine is busy", async |provider| {
            !provider.controls.batches().is_empty()
        })
        .await;
    client.asks_for(1, &["a"]).await;
    provider
        .eventually("it waits", async |provider| provider.metric("queued_rows").await == 1)
        .await;
    client.cancels(1).await;
    // The credit is free again.
    let mut number = 1;
    loop {
        number += 1;
        client.asks_for(number, &["b"]).await;
        let is_taken = provider.status().await["sessions"][0]["open_requests"] == 1;
        if is_taken && provider.metric("queued_rows").await >= 1 {
            break;
        }
        assert!(number < 50);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let batches = provider.controls.batches().len();
    provider.controls.release();
    client.receipt(number).await;
    client.cancels(number).await;
    assert!(provider.controls.batches().len() >= batches);
    let status = provider.status().await;
    assert_eq!(
        (&status["sessions"][0]["rows"], &status["sessions"][0]["paid"]),
        (&1.into(), &false.into())
    );
}

#[tokio::test]
async fn a_host_that_is_full_of_sessions_says_so() {
    let (market, mut provider) = alone().await;
    provider.kill();
    provider.config.sessions_max = 2;
    provider.start().await;
    let spans = [(&provider, 1, 0, 2)];
    for session in 1..=3 {
        market.put(&opened(session, &spans, 1_000));
    }
    let session = |number| opened(number, &spans, 1_000);
    let _first = Attendant::at(&provider, &session(1), 1).await;
    let _second = Attendant::at(&provider, &session(2), 1).await;
    let mut third = Stream::open(&provider.public("")).await.unwrap();
    let nonce = third.nonce;
    third.hello(&session_key(), &session(3), 3, 1, nonce).await;
    third.is_refused(Code::Overloaded, "at most 2").await;
    assert!(now() > 0);
}

#[tokio::test]
async fn nobody_hears_of_vouchers_without_the_token() {
    let (_market, provider) = alone().await;
    for method in [reqwest::Method::GET, reqwest::Method::POST] {
        let (status, _) = provider.call(method, "/v1/vouchers", "wrong").await;
        assert_eq!(status, reqwest::StatusCode::UNAUTHORIZED);
    }
}
