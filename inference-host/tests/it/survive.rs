//! Hosts that die, neighbours that are away, files that rot.

use std::{fs, sync::Arc};

use reqwest::StatusCode;
use schema::{merkle, work::WorkState};

use crate::kit::{fetch_output, item, now, Market};

const TEXTS: [&str; 3] = ["hello world", "a", "b c a"];

#[tokio::test]
async fn a_killed_host_keeps_what_it_signed_and_what_the_developer_paid_for() {
    let market = Market::new();
    let mut all = market.three().await;
    let assignment = market.assign_three(1, &TEXTS, &all);
    all[0].begin_surely(item(1)).await;
    all[2].begin_surely(item(1)).await;
    let before = [
        all[0].done(item(1)).await,
        all[1].done(item(1)).await,
        all[2].done(item(1)).await,
    ];
    for provider in &mut all {
        provider.kill();
        provider.start().await;
    }
    for (provider, before) in all.iter().zip(before) {
        assert_eq!(provider.ended(item(1)).await, before);
        assert_eq!(provider.begin(item(1), 0).await.0, StatusCode::ACCEPTED);
    }
    let digest = merkle::root(market.tiny.expected(&TEXTS, 2));
    let (status, _) = fetch_output(&all[2], &assignment, digest, &market.developer, now() + 60).await;
    assert_eq!(status, StatusCode::OK);
}

#[tokio::test]
async fn a_host_killed_after_its_acknowledgement_goes_on_when_it_is_back() {
    let market = Market::new();
    let mut all = market.three().await;
    market.assign_three(1, &TEXTS, &all);
    all[1].controls.hold();
    all[0].begin_surely(item(1)).await;
    // The first host is done: the second has acknowledged, and computes.
    all[0].done(item(1)).await;
    all[1].kill();
    all[1].controls.release();
    assert!(all[1].work_folder(item(1), 1).join("input").exists());
    all[1].start().await;
    all[2].begin_surely(item(1)).await;
    assert!(all[2].done(item(1)).await.complete);
}

#[tokio::test]
async fn a_first_host_killed_while_it_computes_goes_on_when_it_is_back() {
    let market = Market::new();
    let mut all = market.three().await;
    market.assign_three(1, &TEXTS, &all);
    all[0].controls.hold();
    all[0].begin_surely(item(1)).await;
    all[0].kill();
    all[0].controls.release();
    all[0].start().await;
    all[0].done(item(1)).await;
}

#[tokio::test]
async fn a_next_host_that_is_away_is_tried_until_it_is_back() {
    let market = Market::new();
    let mut all = market.three().await;
    market.assign_three(1, &TEXTS, &all);
    all[1].kill();
    all[0].begin_surely(item(1)).await;
    all[0]
        .eventually("retries", async |host| host.metric("push_retries_total").await >= 2)
        .await;
    let waiting = all[0].begin_surely(item(1)).await;
    assert_eq!(
        (waiting.state, waiting.links.len()),
        (WorkState::Running, 1),
        "the receipt is evidence already"
    );
    // It comes back at another address, and the chain says so.
    all[1].start().await;
    all[2].begin_surely(item(1)).await;
    assert!(all[2].done(item(1)).await.complete);
    assert!(all[0].done(item(1)).await.links[0].acknowledgement.is_some());
}

#[tokio::test]
async fn a_sender_killed_before_it_was_acknowledged_pushes_again() {
    let market = Market::new();
    let mut all = market.three().await;
    market.assign_three(1, &TEXTS, &all);
    all[1].kill();
    all[0].begin_surely(item(1)).await;
    all[0]
        .eventually("retries", async |host| host.metric("push_retries_total").await >= 1)
        .await;
    let receipt = all[0].begin_surely(item(1)).await.links;
    all[0].kill();
    all[1].start().await;
    all[0].start().await;
    let done = all[0].done(item(1)).await;
    assert_eq!(
        done.links[0].receipt, receipt[0].receipt,
        "the same receipt, not a second one"
    );
}

#[tokio::test]
async fn a_next_host_that_never_comes_leaves_the_senders_receipt_as_evidence() {
    let market = Market::new();
    let mut all = market.three().await;
    let mut assignment = market.assign_three(1, &TEXTS, &all);
    assignment.deadline = now() + 2;
    market
        .chain
        .0
        .lock()
        .unwrap()
        .assignments
        .insert(item(1).key(), assignment);
    all[1].kill();
    all[0].begin_surely(item(1)).await;
    let failed = all[0].ended(item(1)).await;
    assert_eq!(failed.state, WorkState::Failed);
    assert!(failed.error.unwrap().contains("the deadline passed"));
    assert_eq!(failed.links.len(), 1);
    assert!(failed.links[0].acknowledgement.is_none());
}

#[tokio::test]
async fn corrupt_work_is_moved_aside_and_counted_and_the_rest_is_kept() {
    let market = Market::new();
    let mut host = market.provider("whole", 1, 0, 2);
    host.start().await;
    for job in 1..=3 {
        market.assign(job, &TEXTS, &[(&host, 1, 0, 2)]);
        host.begin_surely(item(job)).await;
        host.done(item(job)).await;
    }
    host.kill();
    let record = host.work_folder(item(1), 0).join("record");
    let mut bytes = fs::read(&record).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&record, bytes).unwrap();
    fs::write(host.work_folder(item(2), 0).join("record"), b"").unwrap();
    host.start().await;
    assert_eq!(host.metric("set_aside_total{kind=\"record\"}").await, 2);
    assert!(!host.work_folder(item(1), 0).exists());
    assert_eq!(fs::read_dir(host.home.path().join("work/corrupt")).unwrap().count(), 2);
    assert_eq!(host.ended(item(3)).await.state, WorkState::Done);
    // What was lost can be done again.
    host.begin_surely(item(1)).await;
    host.done(item(1)).await;
}

#[tokio::test]
async fn a_rotten_output_is_never_handed_out() {
    let market = Market::new();
    let mut host = market.provider("whole", 1, 0, 2);
    host.start().await;
    let assignment = market.assign(1, &TEXTS, &[(&host, 1, 0, 2)]);
    host.begin_surely(item(1)).await;
    let digest = host.done(item(1)).await.links[0].receipt.receipt.output_digest;
    let output = host.work_folder(item(1), 0).join("output");
    let mut bytes = fs::read(&output).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&output, bytes).unwrap();
    let (status, _) = fetch_output(&host, &assignment, digest, &market.developer, now() + 60).await;
    assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(host.metric("set_aside_total{kind=\"rows\"}").await, 1);
    assert_eq!(host.status().await["set_aside"][0]["path"], output.to_str().unwrap());
    assert_eq!(host.ended(item(1)).await.links.len(), 1, "the receipt stays provable");
}

#[tokio::test]
async fn acknowledged_rows_that_have_rotted_fail_their_item_at_once_and_are_kept_aside() {
    let spoil: [fn(&mut Vec<u8>); 3] = [|bytes| bytes[70] ^= 1, |bytes| bytes.truncate(9), |bytes| bytes.clear()];
    for spoil in spoil {
        let market = Market::new();
        let mut all = market.three().await;
        market.assign_three(1, &TEXTS, &all);
        all[1].controls.hold();
        all[0].begin_surely(item(1)).await;
        all[0].done(item(1)).await;
        all[1].kill();
        all[1].controls.release();
        let input = all[1].work_folder(item(1), 1).join("input");
        let mut bytes = fs::read(&input).unwrap();
        spoil(&mut bytes);
        fs::write(&input, &bytes).unwrap();
        all[1].start().await;
        let failed = all[1].ended(item(1)).await;
        assert_eq!(failed.state, WorkState::Failed);
        assert_eq!(failed.links.len(), 1, "that it was acknowledged stays true");
        let report = &all[1].status().await["set_aside"][0];
        assert_eq!(report["kind"], "rows");
        assert_eq!(fs::read(report["kept_at"].as_str().unwrap()).unwrap(), bytes);
    }
}

#[tokio::test]
async fn work_whose_deadline_passed_while_the_host_was_away_is_not_gone_on_with() {
    let market = Market::new();
    let mut host = market.provider("whole", 1, 0, 2);
    host.start().await;
    host.controls.hold();
    market.assign(1, &TEXTS, &[(&host, 1, 0, 2)]);
    host.begin_surely(item(1)).await;
    host.kill();
    host.controls.release();
    // The chain says so, not this machine.
    market.chain.0.lock().unwrap().ahead_seconds = 65;
    host.start().await;
    let failed = host.ended(item(1)).await;
    assert_eq!(failed.state, WorkState::Failed);
    assert!(failed.error.unwrap().contains("the deadline of item 1.0.0 was"));
    assert_eq!(host.metric("items_started_total").await, 0);
}

#[tokio::test]
async fn host_json_names_the_running_host_and_goes_with_it() {
    let market = Market::new();
    let mut host = market.provider("host", 1, 0, 0);
    host.start().await;
    let path = host.home.path().join("host.json");
    let file: schema::work::HostFile = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let running = host.running.as_ref().unwrap();
    assert_eq!((file.pid, file.provider), (std::process::id(), host.address.clone()));
    assert_eq!(
        (file.listen, file.status),
        (running.listen().to_string(), running.status().to_string())
    );
    host.running.take().unwrap().stop().await;
    assert!(!path.exists());
}

#[tokio::test]
async fn a_busy_port_is_an_error_that_names_it() {
    let market = Market::new();
    let mut first = market.provider("first", 1, 0, 0);
    first.start().await;
    let mut second = market.provider("second", 2, 1, 1);
    second.config.listen = first.running.as_ref().unwrap().listen();
    let chain = Arc::clone(&second.chain) as Arc<dyn inference_host::chain::Chain>;
    let started = inference_host::start(
        second.config.clone(),
        second.key.clone(),
        chain,
        Arc::clone(&second.runtime),
    );
    let error = started.await.unwrap_err().to_string();
    let port = format!("{} is in use", second.config.listen);
    assert!(error.contains(&port) && error.contains("--listen"), "{error}");
}

#[tokio::test]
async fn old_work_gives_way_to_new_work_but_never_inside_its_evidence_window() {
    let market = Market::new();
    let mut host = market.provider("whole", 1, 0, 2);
    host.config.items_max = 2;
    host.start().await;
    for job in 1..=2 {
        let mut assignment = market.assign(job, &TEXTS, &[(&host, 1, 0, 2)]);
        assignment.deadline = now() + 20;
        assignment.evidence_until = if job == 1 { now() } else { now() + 60 };
        market
            .chain
            .0
            .lock()
            .unwrap()
            .assignments
            .insert(item(job).key(), assignment);
        host.begin_surely(item(job)).await;
        host.done(item(job)).await;
    }
    host.eventually("the end of the first window", async |_| {
        now() > market.evidence_until(1)
    })
    .await;
    market.assign(3, &TEXTS, &[(&host, 1, 0, 2)]);
    host.begin_surely(item(3)).await;
    host.done(item(3)).await;
    assert!(!host.work_folder(item(1), 0).exists());
    assert_eq!(host.ended(item(2)).await.links.len(), 1);
    market.assign(4, &TEXTS, &[(&host, 1, 0, 2)]);
    let (status, body) = host.begin(item(4), 0).await;
    assert_eq!(status, StatusCode::TOO_MANY_REQUESTS, "{body}");
    assert!(
        body.contains("2 pieces of work are remembered, at most 2 may be"),
        "{body}"
    );
}
