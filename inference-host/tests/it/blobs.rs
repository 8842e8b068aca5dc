//! Weights: where they come from, and what is never used.

use std::{fs, sync::Arc};

use inference_host::Source;
use reqwest::{header, StatusCode};
use schema::Digest;

use crate::{
    kit::{item, Market, Provider},
    tiny::{TinyRuntime, CLASS},
};

fn flip_last_byte(path: &std::path::Path) {
    let mut bytes = fs::read(path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(path, bytes).unwrap();
}

#[tokio::test]
async fn a_flipped_byte_in_a_weight_is_refused_by_its_digest_and_named() {
    let market = Market::new();
    let mut host = market.provider("host", 1, 1, 1);
    host.start().await;
    host.kill();
    // The same byte is wrong at home and at the source.
    let weight = market.tiny.weight(1);
    flip_last_byte(&market.tiny.blob_in(host.home.path(), weight));
    flip_last_byte(&market.tiny.blob_in(market.tiny.folder.path(), weight));
    host.start_unready().await;
    host.eventually("refusal", async |host| {
        host.status().await["deployments"][0]["state"] == "refused"
    })
    .await;
    let status = host.status().await;
    let reason = status["deployments"][0]["reason"].as_str().unwrap();
    assert!(
        reason.contains(&weight.to_string()) && reason.contains("moved aside"),
        "{reason}"
    );
    let (code, body) = host.get("/ready").await;
    assert_eq!(code, StatusCode::SERVICE_UNAVAILABLE);
    assert!(body.contains(&weight.to_string()), "{body}");
    assert!(!market.tiny.blob_in(host.home.path(), weight).exists());

    // Work for it is not taken.
    market.assign(1, &["a"], &[(&host, 1, 1, 1)]);
    let (code, body) = host.begin(item(1), 0).await;
    assert_eq!(code, StatusCode::SERVICE_UNAVAILABLE, "{body}");
}

#[tokio::test]
async fn a_blob_that_has_rotted_is_fetched_anew_and_the_bad_one_is_kept_aside_and_reported() {
    let market = Market::new();
    let mut host = market.provider("host", 1, 1, 1);
    host.start().await;
    host.kill();
    let weight = market.tiny.weight(1);
    let path = market.tiny.blob_in(host.home.path(), weight);
    let whole = fs::read(&path).unwrap();
    for spoil in [flip_last_byte as fn(&std::path::Path), |path| {
        fs::write(path, b"").unwrap()
    }] {
        spoil(&path);
        let spoilt = fs::read(&path).unwrap();
        host.start().await;
        assert_eq!(fs::read(&path).unwrap(), whole);
        let status = host.status().await;
        let report = &status["set_aside"][0];
        assert_eq!(
            (&report["kind"], &report["path"]),
            (&"blob".into(), &path.to_str().unwrap().into())
        );
        assert_eq!(fs::read(report["kept_at"].as_str().unwrap()).unwrap(), spoilt);
        assert_eq!(host.metric("set_aside_total{kind=\"blob\"}").await, 1);
        assert_eq!(host.metric("blob_fetches_total").await, 1);
        host.kill();
    }
}

#[tokio::test]
async fn a_download_of_another_time_that_turns_out_wrong_is_begun_anew() {
    let market = Market::new();
    let mut holder = market.provider("holder", 1, 0, 2);
    holder.start().await;
    let mut host = Provider::new("host", Arc::clone(&market.chain), Source::Url(holder.public("")));
    host.deploy("demo/tiny", CLASS, 2, 1, 1);
    let weight = market.tiny.weight(1);
    let part = host.home.path().join("blobs").join(format!("{weight}.part"));
    fs::create_dir_all(part.parent().unwrap()).unwrap();
    for wrong in [b"xxxxx".to_vec(), vec![b'x'; 100]] {
        fs::write(&part, &wrong).unwrap();
        host.start().await;
        assert_eq!(host.metric("set_aside_total{kind=\"download\"}").await, 1);
        assert!(!part.exists());
        host.kill();
        fs::remove_file(market.tiny.blob_in(host.home.path(), weight)).unwrap();
    }
}

#[tokio::test]
async fn weights_come_from_another_host_and_a_cut_download_goes_on_where_it_stopped() {
    let market = Market::new();
    let mut holder = market.provider("holder", 1, 0, 2);
    holder.start().await;
    let source = Source::Url(holder.public(""));
    let mut host = Provider::new("host", Arc::clone(&market.chain), source);
    host.deploy("demo/tiny", CLASS, 2, 1, 1);
    let weight = market.tiny.weight(1);
    let whole = fs::read(market.tiny.blob_in(market.tiny.folder.path(), weight)).unwrap();
    let part = host.home.path().join("blobs").join(format!("{weight}.part"));
    fs::create_dir_all(part.parent().unwrap()).unwrap();
    fs::write(&part, &whole[..5]).unwrap();
    host.start().await;
    assert_eq!(fs::read(market.tiny.blob_in(host.home.path(), weight)).unwrap(), whole);
    assert!(!part.exists());
}

#[tokio::test]
async fn blobs_are_served_whole_and_by_range() {
    let market = Market::new();
    let mut host = market.provider("host", 1, 1, 1);
    host.start().await;
    let weight = market.tiny.weight(1);
    let whole = fs::read(market.tiny.blob_in(market.tiny.folder.path(), weight)).unwrap();
    let client = reqwest::Client::new();
    let url = host.public(&format!("/blobs/{weight}"));
    let answer = client.get(&url).send().await.unwrap();
    assert_eq!(answer.bytes().await.unwrap(), whole);
    let answer = client
        .get(&url)
        .header(header::RANGE, "bytes=3-6")
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), StatusCode::PARTIAL_CONTENT);
    let range = format!("bytes 3-6/{}", whole.len());
    assert_eq!(answer.headers()[header::CONTENT_RANGE], range.as_str());
    assert_eq!(answer.bytes().await.unwrap(), whole[3..=6]);
    let answer = client
        .get(&url)
        .header(header::RANGE, "bytes=999-")
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), StatusCode::RANGE_NOT_SATISFIABLE);
    let absent = host.public(&format!("/blobs/{}", Digest([7; 32])));
    assert_eq!(client.get(absent).send().await.unwrap().status(), StatusCode::NOT_FOUND);
    let sneaky = host.public("/blobs/..%2Fhost.token");
    assert_eq!(
        client.get(sneaky).send().await.unwrap().status(),
        StatusCode::BAD_REQUEST
    );
}

#[tokio::test]
async fn blobs_are_kept_private_where_the_operator_says_so() {
    let market = Market::new();
    let mut host = market.provider("host", 1, 1, 1);
    host.config.serve_blobs = false;
    host.start().await;
    let url = host.public(&format!("/blobs/{}", market.tiny.weight(1)));
    assert_eq!(reqwest::get(url).await.unwrap().status(), StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn a_machine_that_computes_other_bits_than_its_class_does_not_serve() {
    let market = Market::new();
    let mut host = market.provider("host", 1, 1, 1);
    host.runtime = Arc::new(TinyRuntime {
        error: 1e-7,
        ..TinyRuntime::default()
    });
    host.start_unready().await;
    host.eventually("refusal", async |host| {
        host.status().await["deployments"][0]["state"] == "refused"
    })
    .await;
    let status = host.status().await;
    let reason = status["deployments"][0]["reason"].as_str().unwrap();
    assert!(
        reason.contains("fails its self-test") && reason.contains(CLASS),
        "{reason}"
    );
}

#[tokio::test]
async fn a_class_that_the_manifest_does_not_list_serves_within_the_tolerance_and_says_so() {
    let market = Market::new();
    let newcomer = |name: &str, deployment: u64, error: f32| {
        let source = Source::Folder(market.tiny.folder.path().into());
        let mut host = Provider::new(name, Arc::clone(&market.chain), source);
        host.deploy("demo/tiny", "tiny-2/cpu", deployment, 1, 1);
        host.runtime = Arc::new(TinyRuntime {
            class: "tiny-2/cpu".to_owned(),
            error,
            ..TinyRuntime::default()
        });
        host
    };
    let mut near = newcomer("near", 1, 1e-6);
    near.start().await;
    let error = near.status().await["deployments"][0]["newcomer_error_ppb"]
        .as_u64()
        .unwrap();
    assert!((1..=1000).contains(&error), "{error}");
    let mut far = newcomer("far", 2, 1e-3);
    far.start_unready().await;
    far.eventually("refusal", async |host| {
        host.status().await["deployments"][0]["state"] == "refused"
    })
    .await;
}
