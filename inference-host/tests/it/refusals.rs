//! What hosts say no to, and how.

use std::time::Duration;

use client::Wallet;
use inference_host::{
    chain::Assignment,
    proto::{frame::Content, span_client::SpanClient, Acknowledged, Frame, Header},
};
use reqwest::{Method, StatusCode};
use schema::{
    merkle,
    receipt::{Link, Outcome, Receipt, SignedAcknowledgement, SignedReceipt},
    work::WorkState,
    Signature,
};
use tonic::{Code, Status};

use crate::{
    kit::{item, now, Market, Provider},
    tiny::CLASS,
};

pub(crate) const TEXTS: [&str; 2] = ["hello world", "a b c"];
const UNITS: u64 = 5;

/// A push from the first to the second of three hosts, made by hand.
pub(crate) struct Crafted {
    header: Header,
    receipt: Receipt,
    rows: Vec<Vec<u8>>,
    signer: Wallet,
}

/// What is wrong with a push.
type Change = fn(&mut Crafted);

impl Crafted {
    pub(crate) fn new(market: &Market, assignment: &Assignment, sender: &Provider) -> Self {
        let rows = market.tiny.expected(&TEXTS, 0);
        let receipt = Receipt {
            domain: assignment.domain.clone(),
            item: assignment.item,
            attempt: assignment.attempt,
            deployment: 1,
            first: 0,
            last: 0,
            input_digest: assignment.root,
            output_digest: merkle::root(&rows),
            tokens_digest: None,
            seed: None,
            units_in: UNITS,
            units_out: 0,
            outcome: Outcome::Done,
            previous: None,
        };
        let header = Header {
            job: assignment.item.job,
            attempt: assignment.attempt.into(),
            span: 1,
            rows: rows.len() as u32,
            bytes: rows.iter().map(|row| row.len() as u64).sum(),
            ..Header::default()
        };
        Self {
            header,
            receipt,
            rows,
            signer: sender.key.clone(),
        }
    }

    pub(crate) fn signed_header(&self) -> Header {
        let mut header = self.header.clone();
        if header.links.is_empty() {
            let signature = Signature(self.signer.sign_digest(&self.receipt.digest().0));
            let link = Link {
                receipt: SignedReceipt {
                    receipt: self.receipt.clone(),
                    signature,
                },
                acknowledgement: None,
            };
            header.links = serde_json::to_vec(&[link]).unwrap();
        }
        header
    }

    pub(crate) async fn send(self, to: &Provider) -> Result<SignedAcknowledgement, Status> {
        let header = self.signed_header();
        let rows = self.rows.into_iter().map(|row| Content::Row(row.into()));
        send(to, std::iter::once(Content::Header(header)).chain(rows).collect()).await
    }
}

async fn send(to: &Provider, contents: Vec<Content>) -> Result<SignedAcknowledgement, Status> {
    let frames = contents.into_iter().map(|content| Frame { content: Some(content) });
    let mut client = SpanClient::connect(to.public(""))
        .await
        .unwrap()
        .max_encoding_message_size(64 << 20);
    let answer = client.push(tokio_stream::iter(frames.collect::<Vec<_>>())).await?;
    let Acknowledged { acknowledgement } = answer.into_inner();
    Ok(serde_json::from_slice(&acknowledgement).unwrap())
}

async fn market_with_push() -> (Market, [Provider; 3], Assignment) {
    let market = Market::new();
    let mut all =
        [0, 1, 2].map(|stage| market.provider(&format!("provider-{stage}"), u64::from(stage) + 1, stage, stage));
    all[1].start().await;
    let assignment = market.assign_three(1, &TEXTS, &all);
    (market, all, assignment)
}

#[tokio::test]
async fn an_honest_push_is_acknowledged_and_the_same_rows_get_the_same_answer() {
    let (market, all, assignment) = market_with_push().await;
    let craft = || Crafted::new(&market, &assignment, &all[0]);
    let first = craft().send(&all[1]).await.unwrap();
    assert_eq!(first.acknowledgement.deployment, 2);
    assert_eq!(first.acknowledgement.input_digest, craft().receipt.output_digest);
    let key = all[1].key.public_key();
    assert!(client::verify_digest(
        &key,
        &first.acknowledgement.digest().0,
        &first.signature.0
    ));
    for _ in 0..3 {
        assert_eq!(craft().send(&all[1]).await.unwrap(), first);
    }
    assert_eq!(all[1].metric("pushes_received_total").await, 1);

    // Other rows for the same work are another matter, even from the right sender.
    let mut other = craft();
    other.rows = market.tiny.expected(&["b", "b c"], 0);
    other.receipt.output_digest = merkle::root(&other.rows);
    other.receipt.units_in = 3;
    assert_eq!(other.send(&all[1]).await.unwrap_err().code(), Code::Aborted);
}

#[tokio::test]
async fn receipts_that_prove_nothing_are_refused_before_any_row_is_read() {
    let (market, all, assignment) = market_with_push().await;
    let cases: [(&str, Change); 10] = [
        ("not signed by its host key", |push| {
            push.signer = Wallet::dev("somebody else")
        }),
        ("domain differs", |push| push.receipt.domain.chain_id = "other".into()),
        ("item differs", |push| push.receipt.item.job = 9),
        ("attempt differs", |push| push.receipt.attempt = 1),
        ("deployment differs", |push| push.receipt.deployment = 3),
        ("last stage differs", |push| push.receipt.last = 1),
        ("does not name the receipt before it", |push| {
            push.receipt.previous = Some(push.receipt.input_digest)
        }),
        ("but", |push| push.receipt.input_digest = push.receipt.output_digest),
        ("the job allows 10000", |push| push.receipt.units_in = 10_001),
        ("span 2 of item 1.0.0 is not assigned", |push| push.header.span = 2),
    ];
    for (reason, change) in cases {
        let mut push = Crafted::new(&market, &assignment, &all[0]);
        change(&mut push);
        // No row follows: the refusal must not wait for one.
        push.rows.clear();
        let status = push.send(&all[1]).await.unwrap_err();
        assert_eq!(status.code(), Code::PermissionDenied, "{reason}: {status:?}");
        assert!(status.message().contains(reason), "{reason}: {}", status.message());
    }
    assert_eq!(all[1].metric("pushes_received_total").await, 0);
    assert!(!all[1].work_folder(item(1), 1).exists());
}

#[tokio::test]
async fn rows_that_are_not_what_the_receipt_says_are_refused() {
    let (market, all, assignment) = market_with_push().await;
    let cases: [(&str, Change); 8] = [
        ("the receipt says", |push| push.rows[1][60] ^= 1),
        ("1 rows came, 2 expected", |push| drop(push.rows.pop())),
        ("3 rows came, 2 expected", |push| {
            push.rows.push(Vec::new());
        }),
        ("announced", |push| push.header.bytes -= 1),
        ("announced", |push| push.header.bytes += 1),
        ("5 positions, the receipt says 6 units", |push| {
            push.receipt.units_in = 6
        }),
        ("2 expected", |push| push.header.rows = 3),
        ("row 1 is not what the stage receives", |push| {
            push.header.bytes -= 8;
            let length = push.rows[1].len();
            push.rows[1].truncate(length - 8);
            push.receipt.output_digest = merkle::root(&push.rows);
        }),
    ];
    for (reason, change) in cases {
        let mut push = Crafted::new(&market, &assignment, &all[0]);
        change(&mut push);
        let status = push.send(&all[1]).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{reason}: {status:?}");
        assert!(status.message().contains(reason), "{reason}: {}", status.message());
    }
    // None of it spoilt the work: the honest push is still taken.
    Crafted::new(&market, &assignment, &all[0]).send(&all[1]).await.unwrap();
}

#[tokio::test]
async fn frames_out_of_order_or_malformed_are_refused() {
    let (market, all, assignment) = market_with_push().await;
    let honest = Crafted::new(&market, &assignment, &all[0]);
    let header = honest.header.clone();
    let cases = [
        vec![],
        vec![Content::Row(honest.rows[0].clone().into())],
        vec![Content::Header(header.clone())],
        vec![Content::Header(Header { replica: 300, ..header })],
    ];
    for contents in cases {
        assert_eq!(send(&all[1], contents).await.unwrap_err().code(), Code::InvalidArgument);
    }
}

#[tokio::test]
async fn a_frame_beyond_the_limit_is_cut_off() {
    let market = Market::new();
    let mut host = market.provider("small", 1, 1, 1);
    host.config.frame_bytes_max = 64 << 10;
    host.start().await;
    let status = send(&host, vec![Content::Row(vec![0; 65 << 10].into())])
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::OutOfRange, "{status:?}");
    assert_eq!(host.get("/health").await.0, StatusCode::OK);
}

#[tokio::test]
async fn an_unknown_item_is_asked_about_once_and_answered_with_unavailable() {
    let (market, all, assignment) = market_with_push().await;
    let mut push = Crafted::new(&market, &assignment, &all[0]);
    push.header.job = 77;
    let before = market.chain.0.lock().unwrap().questions;
    let status = push.send(&all[1]).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "{status:?}");
    // The host looks its deployments up meanwhile.
    assert!(market.chain.0.lock().unwrap().questions <= before + 2);
}

#[tokio::test]
async fn a_relayer_is_told_why_an_item_is_not_taken() {
    let (market, all, assignment) = market_with_push().await;
    let change = |job: u64, change: fn(&mut Assignment)| {
        let mut changed = assignment.clone();
        changed.item = item(job);
        change(&mut changed);
        market
            .chain
            .0
            .lock()
            .unwrap()
            .assignments
            .insert(item(job).key(), changed);
    };
    change(2, |assignment| assignment.attempt = 3);
    change(3, |assignment| assignment.open = false);
    change(4, |assignment| assignment.deadline = now() - 1);
    change(5, |assignment| assignment.spans.retain(|span| span.deployment != 2));
    change(6, |assignment| {
        assignment.spans[1].host_key = assignment.spans[0].host_key
    });
    let expectations = [
        (2, StatusCode::CONFLICT, "the chain is at attempt 3"),
        (3, StatusCode::CONFLICT, "has ended"),
        (4, StatusCode::CONFLICT, "the deadline of item 4.0.0 was"),
        (5, StatusCode::NOT_FOUND, "item 5.0.0 is not assigned to provider wasm1"),
        (6, StatusCode::NOT_FOUND, "this host signs with"),
        (7, StatusCode::NOT_FOUND, "item 7.0.0 is not known"),
    ];
    for (job, status, reason) in expectations {
        let (found, body) = all[1].begin(item(job), 0).await;
        assert_eq!(found, status, "{body}");
        assert!(body.contains(reason), "{body}");
    }
    // Both keys are named where the wrong one is registered.
    let (_, body) = all[1].begin(item(6), 0).await;
    assert!(
        body.contains(&hex::encode(all[0].key.public_key())) && body.contains(&hex::encode(all[1].key.public_key()))
    );
    assert_eq!(
        all[1].begin(item(1), 1).await.0,
        StatusCode::SERVICE_UNAVAILABLE,
        "the node may lag behind"
    );
    market.chain.0.lock().unwrap().down = true;
    let (status, body) = all[1].begin(item(8), 0).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{body}");
}

#[tokio::test]
async fn the_work_interface_answers_to_its_token_only() {
    let (_market, all, _) = market_with_push().await;
    let path = "/v1/items/1.0.0/0";
    for token in ["", "wrong", &"0".repeat(64)] {
        assert_eq!(all[1].call(Method::PUT, path, token).await.0, StatusCode::UNAUTHORIZED);
        assert_eq!(all[1].call(Method::GET, path, token).await.0, StatusCode::UNAUTHORIZED);
    }
    let kept = std::fs::read_to_string(all[1].home.path().join("host.token")).unwrap();
    assert_eq!(
        all[1].call(Method::GET, path, &kept).await.0,
        StatusCode::NOT_FOUND,
        "not begun yet"
    );
    for bad in [
        "/v1/items/1.0/0",
        "/v1/items/1.0.0/256",
        "/v1/items/1.0.0/0?wait_seconds=21",
        "/v1/items/1.0.0/0?x=1",
    ] {
        assert_eq!(
            all[1].call(Method::GET, bad, &kept).await.0,
            StatusCode::BAD_REQUEST,
            "{bad}"
        );
    }
    use std::os::unix::fs::PermissionsExt;
    let mode = std::fs::metadata(all[1].home.path().join("host.token"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[tokio::test]
async fn overload_is_answered_at_once_and_passes() {
    let market = Market::new();
    let mut host = market.provider("whole", 1, 0, 2);
    host.config.queue_rows_max = 4;
    host.start().await;
    host.controls.hold();
    market.assign(1, &["a"], &[(&host, 1, 0, 2)]);
    host.begin_surely(item(1)).await;
    // The first row is with the engine now; four more fill the queue.
    host.eventually("the engine to be busy", async |host| {
        host.metric("queued_rows").await == 0
    })
    .await;
    market.assign(2, &["a", "b", "c", "a"], &[(&host, 1, 0, 2)]);
    host.begin_surely(item(2)).await;
    for job in 3..40 {
        market.assign(job, &["a"], &[(&host, 1, 0, 2)]);
        let began = std::time::Instant::now();
        let (status, body) = host.begin(item(job), 0).await;
        assert_eq!(status, StatusCode::TOO_MANY_REQUESTS, "{body}");
        assert!(
            body.contains("4 rows are waiting and 1 more came; at most 4 may wait"),
            "{body}"
        );
        assert!(began.elapsed() < Duration::from_secs(2));
    }
    assert_eq!(host.metric("queued_rows").await, 4);
    assert_eq!(host.metric("overloads_total").await, 37);
    host.controls.release();
    host.done(item(2)).await;
    host.begin_surely(item(3)).await;
    host.done(item(3)).await;
    assert_eq!(
        host.metric("row_memory_free_bytes").await,
        host.config.rows_bytes_max,
        "all of it is given back"
    );
}

#[tokio::test]
async fn memory_for_rows_is_bounded_and_given_back() {
    let market = Market::new();
    let mut all =
        [0, 1, 2].map(|stage| market.provider(&format!("provider-{stage}"), u64::from(stage) + 1, stage, stage));
    all[1].config.rows_bytes_max = 64 << 10;
    all[1].start().await;
    let assignment = market.assign_three(1, &TEXTS, &all);
    let free = all[1].metric("row_memory_free_bytes").await;
    let mut greedy = Crafted::new(&market, &assignment, &all[0]);
    greedy.header.bytes = 1 << 30;
    let status = greedy.send(&all[1]).await.unwrap_err();
    // More than there is at all: for good.
    assert_eq!(status.code(), Code::OutOfRange, "{status:?}");
    assert!(
        status.message().contains("never takes more than 65536: rows_bytes_max"),
        "{}",
        status.message()
    );
    assert_eq!(all[1].metric("row_memory_free_bytes").await, free);
    // As much as there is, while another piece has some of it: for now.
    all[1].controls.hold();
    Crafted::new(&market, &assignment, &all[0]).send(&all[1]).await.unwrap();
    let second = market.assign_three(2, &TEXTS, &all);
    let mut patient = Crafted::new(&market, &second, &all[0]);
    patient.header.bytes = 65_000;
    let status = patient.send(&all[1]).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
    assert!(status.message().contains(" of 65536 are free"), "{}", status.message());
    all[1].controls.release();
}

#[tokio::test]
async fn work_that_is_not_done_by_its_deadline_is_dropped() {
    let market = Market::new();
    let mut host = market.provider("whole", 1, 0, 2);
    host.start().await;
    host.controls.hold();
    let mut assignment = market.assign(1, &["a", "b"], &[(&host, 1, 0, 2)]);
    assignment.deadline = now() + 1;
    market
        .chain
        .0
        .lock()
        .unwrap()
        .assignments
        .insert(item(1).key(), assignment);
    host.begin_surely(item(1)).await;
    let failed = host.ended(item(1)).await;
    assert_eq!(failed.state, WorkState::Failed);
    assert!(failed.error.unwrap().contains("passed before all rows were computed"));
    host.controls.release();
    host.eventually("room", async |host| host.metric("queued_rows").await == 0)
        .await;
}

#[tokio::test]
async fn a_deployment_of_another_engine_class_is_not_served_and_both_classes_are_named() {
    let market = Market::new();
    let mut host = market.provider("host", 1, 0, 0);
    host.deploy("demo/tiny", "ort-9/gpu", 2, 1, 1);
    host.start_unready().await;
    host.eventually("refusal", async |host| {
        host.status().await["deployments"][1]["state"] == "refused"
    })
    .await;
    let status = host.status().await;
    let reason = status["deployments"][1]["reason"].as_str().unwrap();
    assert!(reason.contains("ort-9/gpu") && reason.contains(CLASS), "{reason}");
    host.eventually("the other one", async |host| {
        host.status().await["deployments"][0]["state"] == "ready"
    })
    .await;
    assert_eq!(host.get("/ready").await.0, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(host.get("/health").await.0, StatusCode::OK);
}

#[tokio::test]
async fn next_hosts_at_private_addresses_are_not_dialled_unless_allowed() {
    let market = Market::new();
    let mut all = market.three().await;
    all[0].kill();
    all[0].config.allow_private_peers = false;
    all[0].start().await;
    market.assign_three(1, &TEXTS, &all);
    all[0].begin_surely(item(1)).await;
    let failed = all[0].ended(item(1)).await;
    assert_eq!(failed.state, WorkState::Failed);
    let error = failed.error.unwrap();
    assert!(error.contains("at the private address 127.0.0.1"), "{error}");
    assert_eq!(failed.links.len(), 1, "its own receipt stays provable");
}
