//! What is compared at the start, and what it says about itself.

use relayer::{status::Snapshot, Config, RelayerError, RelayerFile};

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
