//! The relayer in this process against the real contracts and the real client: a job is paid, and a missed one is expired.

use client::Wallet;
use relayer::RelayerError;
use schema::orchestrator::{Blame, ItemStatus, JobStatus};

use crate::market::{item, Market, Plan, BOND, EARNED};

#[tokio::test]
async fn a_job_on_the_real_contracts_is_attested_and_paid_across_a_restart() {
    let market = Market::open(Plan::PATIENT).await;
    let (task, stop) = market.relay();
    market.submit_job(2).await;
    market.host.until("told of both", |desk| desk.known.len() == 2).await;
    stop.cancel();
    task.await.unwrap().unwrap();
    market.host_finishes(item(0)).await;
    market.host_finishes(item(1)).await;
    let (task, stop) = market.relay();
    assert_eq!(market.ended(1).await, JobStatus::Completed);
    stop.cancel();
    task.await.unwrap().unwrap();
    assert_eq!(market.earned().await, 2 * EARNED);
}

#[tokio::test]
async fn a_missed_item_on_the_real_contracts_is_expired_and_the_culprit_pays() {
    let market = Market::open(Plan::QUICK).await;
    let (task, stop) = market.relay();
    market.submit_job(1).await;
    assert_eq!(market.ended(1).await, JobStatus::Incomplete);
    stop.cancel();
    task.await.unwrap().unwrap();
    let found = market.client.orchestrator().item(item(0)).await.unwrap();
    assert!(matches!(found.status, ItemStatus::Failed { .. }), "{found:?}");
    assert!(
        matches!(&found.history[..], [past] if matches!(past.blame, Blame::Miss { .. })),
        "{found:?}"
    );
    let provider = Wallet::dev("provider-1").address("wasm");
    let bond = market.client.staking().provider(&provider).await.unwrap().bond.u128();
    assert!(bond < BOND, "{bond}");
}

#[tokio::test]
async fn a_network_file_with_another_contract_in_it_is_refused() {
    let market = Market::open(Plan::QUICK).await;
    let mut network = market.client.network().clone();
    network
        .contracts
        .provider_staking
        .clone_from(&network.contracts.royalty_escrow);
    network.save(&market.home.path().join("network.json")).unwrap();
    let error = market.relay().0.await.unwrap().unwrap_err();
    let RelayerError::Mismatch { expected, found, .. } = error else {
        panic!("{error}")
    };
    assert_eq!(
        (expected.as_str(), found.as_str()),
        ("provider-staking", "royalty-escrow")
    );
}
