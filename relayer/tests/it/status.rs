//! What is compared at the start, and what it says about itself.

use std::collections::{BTreeMap, BTreeSet};

use relayer::{
    status::{Snapshot, Subject},
    Config, RelayerError, RelayerFile,
};

use crate::{
    fake_chain::{item, ME, OTHER},
    scene::Scene,
};

#[tokio::test]
async fn it_tells_where_it_answers_and_answers_there() {
    let scene = Scene::new().await;
    let mut running = scene.start().await;
    scene.chain.assign(item(1), 0, [OTHER, ME], 100);
    scene.chain.mine(1);
    running.until("started", |s| s.items.started == 1 && s.caught_up).await;
    let file = std::fs::read(scene.home.path().join("relayer.json")).unwrap();
    let file: RelayerFile = serde_json::from_slice(&file).unwrap();
    assert_eq!((file.pid, file.provider.as_str()), (std::process::id(), ME));
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let get = |path: &str| http.get(format!("http://{}{path}", file.status)).send();
    assert_eq!(get("/health").await.unwrap().status(), 200);
    assert_eq!(get("/ready").await.unwrap().status(), 200);
    let snapshot: Snapshot = get("/status").await.unwrap().json().await.unwrap();
    assert_eq!(
        (snapshot.height, snapshot.items.started, snapshot.provider.as_str()),
        (11, 1, ME)
    );
    let metrics = get("/metrics").await.unwrap().text().await.unwrap();
    assert!(
        metrics.contains("fxn_relayer_items{stage=\"started\"} 1\n"),
        "{metrics}"
    );
    assert!(metrics.contains("fxn_relayer_height 11\n"), "{metrics}");
}

#[tokio::test]
async fn it_is_not_ready_before_it_has_caught_up() {
    assert!(!Snapshot::default().is_ready());
    let caught_up = Snapshot {
        caught_up: true,
        ..Snapshot::default()
    };
    assert!(caught_up.is_ready());
}

#[tokio::test]
async fn a_busy_port_is_an_error_that_names_it() {
    let scene = Scene::new().await;
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let config = Config {
        status_listen: address,
        ..scene.config()
    };
    let error = scene.start_with(config).await.err().unwrap().to_string();
    assert!(error.contains(&address.to_string()), "{error}");
}

#[tokio::test]
async fn a_contract_that_is_another_one_is_refused_by_both_names() {
    let scene = Scene::new().await;
    scene.chain.change(|world| world.wrong_name = true);
    let error = scene.start_with(scene.config()).await.err().unwrap();
    let RelayerError::Mismatch { expected, found, .. } = error else {
        panic!("{error}")
    };
    assert_eq!((expected.as_str(), found.as_str()), ("job-orchestrator", "cw20-base"));
}

#[tokio::test]
async fn every_metric_has_its_help_its_type_and_a_name_of_ours() {
    let mut snapshot = Snapshot {
        balance: Some(7),
        chain_height: 5,
        height: 3,
        ..Snapshot::default()
    };
    snapshot.trouble.insert(Subject::Gas, "no money".into());
    let text = snapshot.metrics();
    let mut kinds = BTreeMap::new();
    let mut samples = BTreeSet::new();
    let mut help = None;
    for line in text.lines() {
        match line.split(' ').collect::<Vec<&str>>()[..] {
            ["#", "HELP", name, _, ..] => help = Some(name),
            ["#", "TYPE", name, kind] => {
                assert_eq!(help.take(), Some(name), "HELP comes right before TYPE");
                assert!(kinds.insert(name.to_owned(), kind).is_none(), "{name} is there twice");
                assert!(name.starts_with("fxn_relayer_"), "{name}");
                assert_eq!(name.ends_with("_total"), kind == "counter", "{name} is a {kind}");
            }
            [sample, value] => {
                assert!(samples.insert(sample.to_owned()), "{sample} is there twice");
                assert!(value.parse::<f64>().is_ok(), "{line}");
                let name = sample.split('{').next().unwrap();
                let family = ["_bucket", "_sum", "_count"]
                    .iter()
                    .find_map(|end| name.strip_suffix(end));
                let family = family
                    .filter(|family| kinds.get(*family) == Some(&"histogram"))
                    .unwrap_or(name);
                assert!(kinds.contains_key(family), "{line}");
            }
            _ => panic!("{line}"),
        }
    }
    for line in [
        "fxn_relayer_lag_blocks 2",
        "fxn_relayer_balance 7",
        "fxn_relayer_trouble{subject=\"gas\"} 1",
        "fxn_relayer_trouble{subject=\"disk\"} 0",
        "fxn_relayer_transactions_total{outcome=\"dropped\"} 0",
        "fxn_relayer_confirm_latency_seconds_count 0",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
    }
}

#[tokio::test]
async fn transactions_are_counted_by_their_outcome_and_timed() {
    let scene = Scene::new().await;
    scene.host.change(|desk| desk.finish_everything = true);
    let mut running = scene.start().await;
    scene.chain.assign(item(1), 0, [OTHER, ME], 100);
    scene.chain.mine(1);
    scene.chain.until_mempool(1).await;
    scene.chain.mine(1);
    running.until("attested", |s| s.totals.attested == 1).await;
    let metrics = running.snapshots.borrow().metrics();
    assert!(
        metrics.contains("fxn_relayer_transactions_total{outcome=\"executed\"} 1\n"),
        "{metrics}"
    );
    assert!(
        metrics.contains("fxn_relayer_confirm_latency_seconds_count 1\n"),
        "{metrics}"
    );
    running.stop().await.unwrap();
}
