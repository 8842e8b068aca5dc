//! A disk that is full, at every write: nothing is promised that is not kept, everybody is told, and when there is room it goes on.

use reqwest::{Method, StatusCode};
use schema::work::WorkState;

use crate::{
    crash::{Death, Story},
    kit::item,
};

/// The moments of one file at which the disk may say no.
fn moments(file: &str) -> [String; 4] {
    ["before", "written", "renamed", "kept"].map(|moment| format!("{file}/{moment}"))
}

async fn ready(story: &Story, role: usize) -> Option<(StatusCode, String)> {
    story.hosts[role].call(Method::GET, "/ready").await
}

async fn until_ready(story: &mut Story) {
    for role in [0, 1] {
        while ready(story, role)
            .await
            .is_none_or(|(status, _)| status != StatusCode::OK)
        {
            story.breathe("both are ready").await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_no_acknowledgement_and_passes() {
    let points = moments("input").into_iter().chain(moments("record"));
    let mut stories = tokio::task::JoinSet::new();
    for point in points {
        stories.spawn(async move {
            let mut story = Story::new(Death::Never).await;
            until_ready(&mut story).await;
            story.hosts[1].tell(&format!("fill {point}"));
            while ready(&story, 1)
                .await
                .is_none_or(|(status, _)| status == StatusCode::OK)
            {
                story.hosts[0].begin(item(1)).await;
                story.hosts[1].begin(item(1)).await;
                story.breathe("the last host says that its disk is full").await;
            }
            let (status, reason) = ready(&story, 1).await.unwrap();
            assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
            assert!(
                reason.contains("the disk of ") && reason.contains(" is full"),
                "{point}: {reason}"
            );
            let first = story.hosts[0].begin(item(1)).await.unwrap();
            assert_eq!(first.state, WorkState::Running, "{point}");
            assert!(
                first.links[0].acknowledgement.is_none(),
                "{point}: rows that are not safe are acknowledged"
            );
            let (_, metrics) = story.hosts[1].call(Method::GET, "/metrics").await.unwrap();
            assert!(metrics.contains("\nfxn_host_disk_full 1\n"), "{metrics}");
            story.hosts[1].tell(&format!("room {point}"));
            story.until_done().await;
            until_ready(&mut story).await;
        });
    }
    while let Some(told) = stories.join_next().await {
        told.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_under_an_output_is_waited_for_and_its_receipt_is_shown_to_nobody() {
    let mut stories = tokio::task::JoinSet::new();
    for point in moments("output") {
        stories.spawn(async move {
            let mut story = Story::new(Death::Never).await;
            until_ready(&mut story).await;
            story.hosts[0].tell(&format!("fill {point}"));
            while ready(&story, 0)
                .await
                .is_none_or(|(status, _)| status == StatusCode::OK)
            {
                story.hosts[0].begin(item(1)).await;
                story.breathe("the first host says that its disk is full").await;
            }
            let status = story.hosts[0].begin(item(1)).await.unwrap();
            assert_eq!((status.state, status.links.len()), (WorkState::Running, 0), "{point}");
            story.hosts[0].tell(&format!("room {point}"));
            story.until_done().await;
        });
    }
    while let Some(told) = stories.join_next().await {
        told.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relayer_is_told_that_the_disk_is_full_and_when_to_come_back() {
    let mut story = Story::new(Death::Never).await;
    until_ready(&mut story).await;
    story.hosts[0].tell("fill record/before");
    let refused = loop {
        match story.hosts[0].call(Method::PUT, "/v1/items/1.0.0/0").await {
            Some((StatusCode::SERVICE_UNAVAILABLE, body)) if body.contains("is full") => break body,
            Some((StatusCode::ACCEPTED, _)) => panic!("begun, though nothing can be kept"),
            _ => story.breathe("an answer").await,
        }
    };
    assert!(refused.contains("work/1.0.0-0-0/record"), "{refused}");
    story.hosts[0].tell("room record/before");
    story.until_done().await;
}
