//! State files that are damaged, gone or somebody else's: kept, told in log, status and metrics, and nothing is done twice for it.

use std::{fs, time::Duration};

use client::Network;
use relayer::{checkpoint::FILE, crash::Point, status::Snapshot, Config};
use schema::Event;

use super::{is_empty, state_in, Process};
use crate::market::{item, Market, Plan, EARNED};

/// A market with one item, and a life that ended right after its attestation was sent.
async fn killed_after_sending() -> Market {
    let plan = Plan {
        block_time: Duration::from_millis(300),
        ..Plan::PATIENT
    };
    let market = Market::open(plan).await;
    market.submit_job(1).await;
    market.host_finishes(item(0)).await;
    let mut doomed = Process::start(&market, Some((Point::Sent.name(), 1)));
    assert!(doomed.dies().await);
    market
}

async fn is_attested_once(market: &Market, mut last: Process) {
    market.ended(1).await;
    crate::until("the file is empty", || async {
        is_empty(&state_in(market.home.path()))
    })
    .await;
    assert_eq!(last.stops().await, Some(0));
    market.all_is_read().await;
    assert_eq!(market.count(|event| matches!(event, Event::Attested { .. })), 1);
    assert_eq!(market.earned().await, EARNED);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_checkpoint_that_was_damaged_in_flight_costs_nothing_but_its_file() {
    let market = killed_after_sending().await;
    let path = market.home.path().join(FILE);
    let mut content = fs::read(&path).unwrap();
    let middle = content.len() / 2;
    content[middle] ^= 1;
    fs::write(&path, &content).unwrap();
    let next = Process::start(&market, None);
    let status: Snapshot = serde_json::from_str(&next.answer("/status").await).unwrap();
    let aside = status.set_aside.expect("the status tells where it is kept");
    assert_eq!(fs::read(&aside).unwrap(), content, "byte for byte");
    assert_eq!(status.kept_aside, [std::path::PathBuf::from(&aside)]);
    let metrics = next.answer("/metrics").await;
    assert!(metrics.contains("fxn_relayer_set_aside_files 1\n"), "{metrics}");
    let log = next.logged();
    assert!(
        log.contains("the checkpoint cannot be read") && log.contains(&aside),
        "{log}"
    );
    is_attested_once(&market, next).await;

    // It is told again by every further start, until a person has taken it away.
    let mut later = Process::start(&market, None);
    let metrics = later.answer("/metrics").await;
    assert!(metrics.contains("fxn_relayer_set_aside_files 1\n"), "{metrics}");
    assert_eq!(later.stops().await, Some(0));
    assert_eq!(fs::read(&aside).unwrap(), content);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_checkpoint_that_is_gone_leads_to_no_second_payment() {
    let market = killed_after_sending().await;
    fs::remove_file(market.home.path().join(FILE)).unwrap();
    let next = Process::start(&market, None);
    is_attested_once(&market, next).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_a_relayer_json_of_a_killed_life_is_kept_and_told() {
    let market = killed_after_sending().await;
    let path = market.home.path().join("relayer.json");
    assert!(path.exists(), "a killed process cannot remove it");
    fs::write(&path, "{\"pid\": 1").unwrap();
    let next = Process::start(&market, None);
    let status: Snapshot = serde_json::from_str(&next.answer("/status").await).unwrap();
    assert_eq!(status.kept_aside.len(), 1);
    assert_eq!(fs::read(&status.kept_aside[0]).unwrap(), b"{\"pid\": 1");
    is_attested_once(&market, next).await;
}

/// What a process says that does not start: one sentence on stderr, exit code 1.
async fn refusal(mut process: Process) -> String {
    assert_eq!(process.ends().await, Some(1));
    let log = process.logged();
    log.lines().last().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_relayer_cannot_start_with_is_one_sentence_and_exit_code_1() {
    let market = Market::open(Plan::PATIENT).await;
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let config = Config {
        status_listen: address,
        ..market.config()
    };
    let said = refusal(Process::start_with(config, None)).await;
    assert_eq!(
        said,
        format!("fxn: cannot offer the status: {address}: Address already in use (os error 98)")
    );

    let path = market.home.path().join("network.json");
    let network = Network::load(&path).unwrap();
    let other = Network {
        chain_id: "fxn-other-1".into(),
        ..network.clone()
    };
    other.save(&path).unwrap();
    let said = refusal(Process::start(&market, None)).await;
    let expected = format!(
        "fxn: the node is on chain {:?}, the network file says \"fxn-other-1\"",
        network.chain_id
    );
    assert_eq!(said, expected);

    fs::write(&path, "{\"chain_id\": \"half").unwrap();
    let said = refusal(Process::start(&market, None)).await;
    assert!(said.contains("network.json is no network file"), "{said}");
    network.save(&path).unwrap();

    let lock = market.home.path().join(format!("{FILE}.lock"));
    let _ = fs::remove_file(&lock);
    fs::create_dir(&lock).unwrap();
    let said = refusal(Process::start(&market, None)).await;
    assert!(said.contains("relayer.checkpoint.lock: Is a directory"), "{said}");
    fs::remove_dir(&lock).unwrap();

    // Whatever is in the lock file, it is only a lock.
    fs::write(&lock, [0xff; 100]).unwrap();
    let mut first = Process::start(&market, None);
    first.answer("/health").await;
    let said = refusal(Process::start(&market, None)).await;
    assert!(said.starts_with("fxn: another relayer works in this home: "), "{said}");
    assert_eq!(first.stops().await, Some(0));
}
