//! Outputs belong to whoever paid for them.

use client::Wallet;
use reqwest::StatusCode;
use schema::Digest;

use crate::kit::{fetch_output, item, now, Market};

#[tokio::test]
async fn only_the_developer_gets_the_output_and_only_for_a_short_while() {
    let market = Market::new();
    let mut host = market.provider("whole", 1, 0, 2);
    host.start().await;
    let assignment = market.assign(1, &["hello"], &[(&host, 1, 0, 2)]);
    host.begin_surely(item(1)).await;
    let digest = host.done(item(1)).await.links[0].receipt.receipt.output_digest;
    let (developer, stranger) = (&market.developer, Wallet::dev("stranger"));
    let mut elsewhere = assignment.clone();
    elsewhere.domain.chain_id = "other".into();
    let mut other_item = assignment.clone();
    other_item.item = item(2);
    let expectations = [
        (&assignment, digest, developer, now() + 200, StatusCode::OK),
        (&assignment, digest, &stranger, now() + 200, StatusCode::FORBIDDEN),
        (&assignment, digest, developer, now() - 2, StatusCode::UNAUTHORIZED),
        (&assignment, digest, developer, now() + 400, StatusCode::UNAUTHORIZED),
        (&elsewhere, digest, developer, now() + 200, StatusCode::UNAUTHORIZED),
        (&other_item, digest, developer, now() + 200, StatusCode::NOT_FOUND),
        (
            &assignment,
            Digest([1; 32]),
            developer,
            now() + 200,
            StatusCode::NOT_FOUND,
        ),
    ];
    for (assignment, digest, signer, valid_until, expected) in expectations {
        let (status, body) = fetch_output(&host, assignment, digest, signer, valid_until).await;
        assert_eq!(status, expected, "{}", String::from_utf8_lossy(&body));
    }
    assert_eq!(host.metric("outputs_served_total").await, 1);
}

#[tokio::test]
async fn a_request_without_headers_or_with_malformed_ones_is_told_which() {
    let market = Market::new();
    let mut host = market.provider("whole", 1, 0, 2);
    host.start().await;
    let url = host.public(&format!("/outputs/{}", Digest([1; 32])));
    let answer = reqwest::get(&url).await.unwrap();
    assert_eq!(answer.status(), StatusCode::BAD_REQUEST);
    assert!(answer.text().await.unwrap().contains("x-fxn-item"));
    let answer = reqwest::Client::new()
        .get(&url)
        .header("x-fxn-item", "1.0.0")
        .header("x-fxn-valid-until", "soon");
    assert!(answer
        .send()
        .await
        .unwrap()
        .text()
        .await
        .unwrap()
        .contains("x-fxn-valid-until"));
    assert_eq!(
        reqwest::get(host.public("/outputs/zz")).await.unwrap().status(),
        StatusCode::BAD_REQUEST
    );
}
