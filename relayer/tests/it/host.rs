//! A host that is down, busy, forgetful or somebody else's.

use std::time::Duration;

use axum::http::StatusCode;
use relayer::{status::Subject, Config, RelayerError};

use crate::{
    fake_chain::{item, FakeChain, ME, OTHER},
    fake_host::FakeHost,
    scene::{self, Scene},
};

async fn one_item(scene: &Scene) {
    scene.chain.assign(item(1), 0, [OTHER, ME], 100);
    scene.chain.mine(1);
}

#[tokio::test]
async fn a_host_that_starts_later_is_found() {
    let home = tempfile::tempdir().unwrap();
    let chain = FakeChain::new();
    let mut running = scene::start(scene::config(home.path().into()), chain.clone())
        .await
        .unwrap();
    chain.assign(item(1), 0, [OTHER, ME], 100);
    chain.mine(1);
    running.until("no host", |s| s.host_answers == Some(false)).await;
    assert!(!running.snapshots.borrow().is_ready());
    let host = FakeHost::start(home.path(), ME).await;
    host.change(|desk| desk.finish_everything = true);
    chain.until_mempool(1).await;
    chain.mine(1);
    running
        .until("attested", |s| s.totals.attested == 1 && s.is_ready())
        .await;
}

#[tokio::test]
async fn a_host_that_was_restarted_at_another_port_is_told_again() {
    let mut scene = Scene::new().await;
    let mut running = scene.start().await;
    one_item(&scene).await;
    running.until("started", |s| s.items.started == 1).await;
    scene.host = FakeHost::start(scene.home.path(), ME).await;
    scene.host.change(|desk| desk.finish_everything = true);
    scene.chain.until_mempool(1).await;
    assert_eq!(scene.host.desk().puts, [(item(1), 0)]);
}

#[tokio::test]
async fn a_host_that_has_forgotten_is_told_again() {
    let scene = Scene::new().await;
    let _running = scene.start().await;
    one_item(&scene).await;
    scene.host.until("polled", |desk| desk.puts.len() == 1).await;
    scene.host.change(|desk| desk.known.clear());
    scene.host.until("told again", |desk| desk.puts.len() == 2).await;
    scene.host.finishes(item(1), 0);
    scene.chain.until_mempool(1).await;
}

#[tokio::test]
async fn a_busy_host_is_asked_again_when_it_said_and_not_before() {
    let scene = Scene::new().await;
    scene.host.change(|desk| {
        desk.finish_everything = true;
        desk.script = [(StatusCode::TOO_MANY_REQUESTS, Some("1"))].into();
    });
    let _running = scene.start().await;
    let asked = tokio::time::Instant::now();
    one_item(&scene).await;
    scene.chain.until_mempool(1).await;
    assert!(asked.elapsed() >= Duration::from_secs(1), "{:?}", asked.elapsed());
    assert_eq!(scene.host.desk().puts.len(), 2);
}

#[tokio::test]
async fn a_host_that_is_not_ready_or_does_not_know_yet_is_asked_again() {
    let scene = Scene::new().await;
    scene.host.change(|desk| {
        desk.finish_everything = true;
        desk.script = [(StatusCode::SERVICE_UNAVAILABLE, None), (StatusCode::NOT_FOUND, None)].into();
    });
    let _running = scene.start().await;
    one_item(&scene).await;
    scene.chain.until_mempool(1).await;
    assert_eq!(scene.host.desk().puts.len(), 3);
}

#[tokio::test]
async fn an_attempt_that_is_over_for_the_host_is_not_asked_for_again() {
    is_told_once(StatusCode::CONFLICT).await;
}

#[tokio::test]
async fn work_that_the_host_can_never_take_is_not_asked_for_again() {
    is_told_once(StatusCode::PAYLOAD_TOO_LARGE).await;
    is_told_once(StatusCode::UNPROCESSABLE_ENTITY).await;
}

/// The host says this of the first item, which then is left alone; the second goes its way.
async fn is_told_once(says: StatusCode) {
    let scene = Scene::new().await;
    scene.host.change(|desk| desk.script = [(says, None)].into());
    let mut running = scene.start().await;
    one_item(&scene).await;
    scene.host.until("told", |desk| desk.puts.len() == 1).await;
    scene.host.finishes(item(2), 0);
    scene.chain.assign(item(2), 0, [OTHER, ME], 100);
    scene.chain.mine(1);
    scene.chain.until_mempool(1).await;
    scene.chain.mine(1);
    running.until("the other", |s| s.totals.attested == 1).await;
    running.stop().await.unwrap();
    assert_eq!(scene.host.desk().puts, [(item(1), 0), (item(2), 0)]);
}

#[tokio::test]
async fn the_host_of_another_provider_stops_the_relayer_with_both_names() {
    let mut scene = Scene::new().await;
    scene.host = FakeHost::start(scene.home.path(), OTHER).await;
    let running = scene.start().await;
    one_item(&scene).await;
    let error = running.end().await.unwrap_err();
    let RelayerError::Host(error) = error else {
        panic!("{error}")
    };
    assert_eq!(
        error.to_string(),
        "the host serves provider wasm1other, this relayer wasm1me"
    );
}

#[tokio::test]
async fn a_wrong_token_is_waited_out() {
    let scene = Scene::new().await;
    scene.host.change(|desk| desk.finish_everything = true);
    std::fs::write(scene.home.path().join("host.token"), "another").unwrap();
    let mut running = scene.start().await;
    one_item(&scene).await;
    running
        .until("refused", |s| {
            s.last_error.as_ref().is_some_and(|error| error.contains("token"))
        })
        .await;
    std::fs::write(scene.home.path().join("host.token"), crate::fake_host::TOKEN).unwrap();
    scene.chain.until_mempool(1).await;
}

#[tokio::test]
async fn the_configured_address_goes_before_the_hosts_own_file() {
    let scene = Scene::new().await;
    scene.host.change(|desk| desk.finish_everything = true);
    let file = std::fs::read(scene.home.path().join("host.json")).unwrap();
    let file: schema::work::HostFile = serde_json::from_slice(&file).unwrap();
    std::fs::remove_file(scene.home.path().join("host.json")).unwrap();
    let config = Config {
        host: Some(format!("http://{}/", file.status)),
        ..scene.config()
    };
    let _running = scene.start_with(config).await.unwrap();
    one_item(&scene).await;
    scene.chain.until_mempool(1).await;
}

/// Writes a host's file, waits for the sentence about it, and puts it right.
async fn is_waited_out(file: &str, content: &[u8], words: &str) {
    let scene = Scene::new().await;
    scene.host.change(|desk| desk.finish_everything = true);
    let path = scene.home.path().join(file);
    let right = std::fs::read(&path).unwrap();
    std::fs::write(&path, content).unwrap();
    let mut running = scene.start().await;
    one_item(&scene).await;
    running
        .until("told", |s| {
            s.trouble
                .get(&Subject::Host)
                .is_some_and(|sentence| sentence.contains(words))
        })
        .await;
    let sentence = running.snapshots.borrow().trouble[&Subject::Host].clone();
    let secret = String::from_utf8_lossy(content);
    assert!(
        file != "host.token" || secret.is_empty() || !sentence.contains(&*secret),
        "{sentence}"
    );
    assert!(!running.snapshots.borrow().is_ready());
    std::fs::write(&path, right).unwrap();
    scene.chain.until_mempool(1).await;
    scene.chain.mine(1);
    running
        .until("over", |s| {
            s.totals.attested == 1 && !s.trouble.contains_key(&Subject::Host)
        })
        .await;
    running.stop().await.unwrap();
}

#[tokio::test]
async fn the_hosts_files_half_written_are_told_and_read_again() {
    is_waited_out(
        "host.json",
        b"{\"pid\": 1, \"listen\": \"127.0",
        "host.json: EOF while parsing",
    )
    .await;
    is_waited_out("host.json", b"", "host.json: EOF while parsing").await;
    is_waited_out("host.json", &[b' '; 20_000], "host.json: 20000 bytes are too many").await;
    is_waited_out("host.json", b"[]", "host.json: invalid length").await;
    is_waited_out("host.token", b"", "host.token holds no token").await;
    is_waited_out("host.token", b"01234\x0056789", "host.token holds no token").await;
    is_waited_out(
        "host.token",
        &[0xff, 0xfe],
        "host.token: stream did not contain valid UTF-8",
    )
    .await;
    is_waited_out("host.token", b"01234567", "the host does not accept the token of").await;
}

#[tokio::test]
async fn the_hosts_files_that_are_not_there_are_told_by_name() {
    let home = tempfile::tempdir().unwrap();
    let chain = FakeChain::new();
    let mut running = scene::start(scene::config(home.path().into()), chain.clone())
        .await
        .unwrap();
    chain.assign(item(1), 0, [OTHER, ME], 100);
    chain.mine(1);
    running.until("told", |s| s.trouble.contains_key(&Subject::Host)).await;
    let sentence = running.snapshots.borrow().trouble[&Subject::Host].clone();
    assert!(sentence.starts_with("the host cannot be found: "), "{sentence}");
    assert!(sentence.contains("host.json: No such file or directory"), "{sentence}");
    running.stop().await.unwrap();
}
