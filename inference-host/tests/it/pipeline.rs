//! Items flow through hosts: rows, receipts and acknowledgements.

use inference_host::decode_rows;
use reqwest::StatusCode;
use schema::{
    merkle,
    work::{WorkState, WorkStatus},
    Digest,
};

use crate::kit::{fetch_output, item, now, Market};

const TEXTS: [&str; 5] = [
    "hello world",
    "a",
    "b c a",
    "world nonsense c b a a",
    "hello hello hello hello",
];

fn output_of(status: &WorkStatus) -> Digest {
    status.links.last().unwrap().receipt.receipt.output_digest
}

#[tokio::test]
async fn three_hosts_answer_what_one_would_and_prove_every_step() {
    let market = Market::new();
    let all = market.three().await;
    let assignment = market.assign_three(1, &TEXTS, &all);
    let (status, body) = all[0].begin(item(1), 0).await;
    assert_eq!(status, StatusCode::ACCEPTED, "{body}");

    // The last host has everything that the contract asks for.
    all[2].begin_surely(item(1)).await;
    let last = all[2].done(item(1)).await;
    assert!(last.complete);
    assert_eq!(last.links.len(), 3);
    let mut previous = None;
    let mut digest = assignment.root;
    for (link, span) in last.links.iter().zip(&assignment.spans) {
        let receipt = &link.receipt.receipt;
        assert_eq!(
            (receipt.deployment, receipt.first, receipt.last),
            (span.deployment, span.first, span.last)
        );
        assert_eq!(
            (receipt.previous, receipt.input_digest, receipt.units_in),
            (previous, digest, 16)
        );
        assert!(client::verify_digest(
            &span.host_key.0,
            &receipt.digest().0,
            &link.receipt.signature.0
        ));
        previous = Some(receipt.digest());
        digest = receipt.output_digest;
    }
    let acknowledged: Vec<bool> = last.links.iter().map(|link| link.acknowledgement.is_some()).collect();
    assert_eq!(acknowledged, [true, true, false]);
    assert_eq!(output_of(&last), merkle::root(market.tiny.expected(&TEXTS, 2)));

    // The developer gets the very rows.
    let (status, body) = fetch_output(&all[2], &assignment, digest, &market.developer, now() + 60).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(decode_rows(&body).unwrap(), market.tiny.expected(&TEXTS, 2));

    // The others can prove their part, and that the next host took it.
    for (index, provider) in all.iter().take(2).enumerate() {
        let own = provider.done(item(1)).await;
        assert_eq!(own.links, last.links[..=index]);
        assert!(!own.complete);
    }
}

#[tokio::test]
async fn beginning_twice_computes_once() {
    let market = Market::new();
    let all = market.three().await;
    market.assign_three(1, &TEXTS, &all);
    for _ in 0..3 {
        assert_eq!(all[0].begin(item(1), 0).await.0, StatusCode::ACCEPTED);
    }
    let first = all[0].done(item(1)).await;
    assert_eq!(all[0].begin_surely(item(1)).await, first);
    assert_eq!(all[0].metric("rows_computed_total").await, 5);
}

#[tokio::test]
async fn several_spans_of_one_item_may_be_on_one_host() {
    let market = Market::new();
    let mut whole = market.provider("whole", 1, 0, 0);
    whole.deploy("demo/tiny", crate::tiny::CLASS, 2, 1, 2);
    whole.start().await;
    let assignment = market.assign(1, &TEXTS, &[(&whole, 1, 0, 0), (&whole, 2, 1, 2)]);
    whole.begin_surely(item(1)).await;
    let done = whole.done(item(1)).await;
    assert!(done.complete);
    assert_eq!(done.links.len(), assignment.spans.len());
    assert_eq!(output_of(&done), merkle::root(market.tiny.expected(&TEXTS, 2)));
}

#[tokio::test]
async fn rows_of_several_items_share_batches_without_changing_a_bit() {
    let market = Market::new();
    let mut host = market.provider("whole", 1, 0, 2);
    host.start().await;
    let before = host.controls.batches().len();
    host.controls.hold();
    for job in 1..=4 {
        market.assign(job, &TEXTS, &[(&host, 1, 0, 2)]);
        host.begin_surely(item(job)).await;
    }
    host.controls.release();
    for job in 1..=4 {
        let done = host.done(item(job)).await;
        assert_eq!(output_of(&done), merkle::root(market.tiny.expected(&TEXTS, 2)));
    }
    let batches = host.controls.batches()[before..].to_vec();
    assert!(batches.iter().any(|rows| *rows > TEXTS.len()), "{batches:?}");
    assert!(batches.len() < 4 * 3 * 2, "{batches:?}");
}

#[tokio::test]
async fn a_row_that_the_graph_refuses_fails_its_own_item_only() {
    let market = Market::new();
    let mut host = market.provider("whole", 1, 0, 2);
    host.start().await;
    host.controls.hold();
    // The first keeps the engine busy, so that the other two end up in one batch.
    for (job, texts) in [(1, ["a"]), (2, ["hello bad world"]), (3, ["hello big world"])] {
        market.assign(job, &texts, &[(&host, 1, 0, 2)]);
        host.begin_surely(item(job)).await;
    }
    host.controls.release();
    assert_eq!(host.ended(item(3)).await.state, WorkState::Done);
    let bad = host.ended(item(2)).await;
    assert_eq!(bad.state, WorkState::Failed);
    assert!(bad.error.unwrap().contains("row 0"), "the row is named");
}

#[tokio::test]
async fn a_graph_that_panics_stops_its_engine_and_is_loaded_again() {
    let market = Market::new();
    let mut host = market.provider("whole", 1, 0, 2);
    host.start().await;
    market.assign(1, &["panic"], &[(&host, 1, 0, 2)]);
    host.begin_surely(item(1)).await;
    let failed = host.ended(item(1)).await;
    assert_eq!(failed.state, WorkState::Failed);
    assert!(failed.error.unwrap().contains("the engine has stopped"));
    host.eventually("recovery", async |host| host.get("/ready").await.0 == StatusCode::OK)
        .await;
    market.assign(2, &["hello"], &[(&host, 1, 0, 2)]);
    host.begin_surely(item(2)).await;
    host.done(item(2)).await;
}

#[tokio::test]
async fn texts_are_cut_at_the_models_positions_and_bytes_that_are_no_text_are_replaced() {
    let market = Market::new();
    let mut host = market.provider("whole", 1, 0, 2);
    host.start().await;
    let long = ["a "; 40].concat();
    let mut assignment = market.assign(1, &[&long], &[(&host, 1, 0, 2)]);
    let rows = vec![long.into_bytes(), b"\xff\xfe hello".to_vec()];
    assignment.rows = 2;
    assignment.root = merkle::root(&rows);
    {
        let mut facts = market.chain.0.lock().unwrap();
        facts.inputs.insert((1, 0), rows);
        facts.assignments.insert(item(1).key(), assignment);
    }
    host.begin_surely(item(1)).await;
    let done = host.done(item(1)).await;
    assert_eq!(done.links[0].receipt.receipt.units_in, 16 + 2);
}
