//! Machines whose clock is not the chain's.

use reqwest::StatusCode;
use schema::work::WorkState;

use crate::kit::{item, now, Market};

#[tokio::test]
async fn deadlines_follow_a_chain_that_is_an_hour_ahead_or_behind() {
    for ahead in [3600_i64, -3600] {
        let market = Market::new();
        market.chain.0.lock().unwrap().ahead_seconds = ahead;
        let mut host = market.provider("whole", 1, 0, 2);
        host.start().await;
        let chain_now = (now() as i64 + ahead) as u64;
        let assign = |job: u64, deadline: u64| {
            let mut assignment = market.assign(job, &["hello"], &[(&host, 1, 0, 2)]);
            assignment.deadline = deadline;
            assignment.evidence_until = deadline + 10;
            market
                .chain
                .0
                .lock()
                .unwrap()
                .assignments
                .insert(item(job).key(), assignment);
        };
        assign(1, chain_now + 60);
        host.begin_surely(item(1)).await;
        assert_eq!(host.done(item(1)).await.state, WorkState::Done);
        // It is past for the chain, whatever this machine believes.
        assign(2, chain_now - 5);
        let (status, body) = host.begin(item(2), 0).await;
        assert_eq!(status, StatusCode::CONFLICT, "{body}");
        assert!(
            body.contains(&format!("the deadline of item 2.0.0 was {}", chain_now - 5)),
            "{body}"
        );
        // And its end is the chain's.
        host.controls.hold();
        assign(3, (now() as i64 + ahead + 8) as u64);
        host.begin_surely(item(3)).await;
        let failed = host.ended(item(3)).await;
        assert!(failed.error.unwrap().contains("passed before all rows were computed"));
        host.controls.release();
        let skew = host.status().await["clock_skew_seconds"].as_i64().unwrap();
        assert!((skew - ahead).abs() <= 2, "{skew}");
        let text = host.get("/metrics").await.1;
        let told = text
            .lines()
            .find_map(|line| line.strip_prefix("fxn_host_clock_skew_seconds "));
        assert!((told.unwrap().parse::<i64>().unwrap() - ahead).abs() <= 2, "{text}");
    }
}

#[tokio::test]
async fn a_clock_that_is_too_far_away_takes_no_work_until_it_is_set() {
    for (ahead, way) in [(100_000_i64, "behind"), (-100_000, "ahead of")] {
        let market = Market::new();
        let mut host = market.provider("whole", 1, 0, 2);
        host.start().await;
        market.assign(1, &["hello"], &[(&host, 1, 0, 2)]);
        host.begin_surely(item(1)).await;
        host.done(item(1)).await;
        host.kill();
        market.chain.0.lock().unwrap().ahead_seconds = ahead;
        host.start_unready().await;
        let sentence = format!("s {way} the chain's, at most 7200 s are corrected for: set the clock");
        host.eventually("refusal", async |host| {
            let (status, body) = host.get("/ready").await;
            status == StatusCode::SERVICE_UNAVAILABLE && body.contains(&sentence)
        })
        .await;
        market.assign(2, &["hello"], &[(&host, 1, 0, 2)]);
        let (status, body) = host.begin(item(2), 0).await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{body}");
        assert!(body.contains(&sentence), "{body}");
        assert_eq!(host.metric("refusals_total{reason=\"clock\"}").await, 1);
        assert!(
            host.work_folder(item(1), 0).exists(),
            "evidence is not thrown away by a wrong clock"
        );
        market.chain.0.lock().unwrap().ahead_seconds = 0;
        host.kill();
        host.start().await;
        host.begin_surely(item(2)).await;
        host.done(item(2)).await;
    }
}
