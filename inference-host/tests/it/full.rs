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

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_under_a_download_is_told_leaves_no_half_blob_and_passes() {
    let mut stories = tokio::task::JoinSet::new();
    for point in ["blob/partial", "blob/complete"] {
        stories.spawn(async move {
            let mut story = Story::new(Death::Never).await;
            story.hosts[1].orders.full = Some(point.to_owned());
            while ready(&story, 1)
                .await
                .is_none_or(|(_, reason)| !reason.contains("no storage space"))
            {
                story.breathe("the last host says that its disk is full").await;
            }
            let blobs = story.hosts[1].orders.home.join("blobs");
            for entry in std::fs::read_dir(blobs).unwrap().flatten() {
                let name = entry.file_name().into_string().unwrap();
                assert!(
                    name.ends_with(".part"),
                    "{point}: {name} is there, and nobody has seen all of it"
                );
            }
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
async fn a_full_disk_under_token_or_announcement_stops_the_start_with_a_sentence_and_leaves_nothing_half() {
    let mut story = Story::new(Death::Never).await;
    let home = story.hosts[0].orders.home.clone();
    for point in moments("state") {
        for first in [true, false] {
            if first {
                // The token is written before the announcement, and only where there is none.
                let _ = std::fs::remove_file(home.join("host.token"));
            }
            story.hosts[0].orders.full = Some(point.clone());
            story.hosts[0].start();
            let words = story.hosts[0].last_words();
            let file = if first {
                "failed to make the token"
            } else {
                "failed to write host.json"
            };
            assert!(
                words.contains(file) && words.contains("no storage space"),
                "{point}: {words}"
            );
            let token = std::fs::read_to_string(home.join("host.token")).unwrap_or_default();
            assert!([0, 64].contains(&token.len()), "{point}: half a token: {token:?}");
            if let Ok(announcement) = std::fs::read(home.join("host.json")) {
                serde_json::from_slice::<schema::work::HostFile>(&announcement).unwrap();
            }
            let names = std::fs::read_dir(&home)
                .unwrap()
                .flatten()
                .map(|entry| entry.file_name());
            let left: Vec<_> = names
                .filter(|name| name.to_string_lossy().starts_with(".fxn-host-"))
                .collect();
            assert!(left.is_empty(), "{point}: {left:?}");
            if first {
                // A token for the second half, made where there is room.
                story.hosts[0].orders.full = None;
                story.hosts[0].start();
                while ready(&story, 0).await.is_none() {
                    story.breathe("the first host runs").await;
                }
                story.hosts[0].kill();
            }
        }
    }
    story.hosts[0].orders.full = None;
    story.until_done().await;
}
