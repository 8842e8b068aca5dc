//! What stands in the way is told in a sentence, waited out, and over as soon as it is over.

use std::{
    sync::{
        atomic::{AtomicU8, Ordering},
        Arc,
    },
    time::{Duration, SystemTime},
};

use axum::{body::Bytes, extract::State, http::StatusCode, response::IntoResponse, Router};
use client::{Account, Call, Wallet};
use relayer::{status::Subject, Config, Relayer, RelayerError};
use schema::{orchestrator::JobStatus, Event};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::{
    fake_chain::{item, FakeChain, ME, OTHER, WINDOW},
    fake_host::FakeHost,
    market::{self, Market, Plan},
    scene::{self, Running, Scene},
};

/// A relayer on the real chain with a wallet of its own.
async fn relay(market: &Market, wallet: Wallet, config: Config) -> Running {
    let account = Account::new(market.client.clone(), wallet);
    let provider = config.provider.clone().unwrap();
    let relayer = Relayer::start(config, relayer::chain::live::LiveChain::new(account), &provider);
    Running::of(relayer.await.unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_account_without_gas_money_is_told_and_goes_on_as_soon_as_it_has_some() {
    let market = Market::open(Plan::PATIENT).await;
    market.submit_job(2).await;
    market.host_finishes(market::item(0)).await;
    market.host_finishes(market::item(1)).await;
    let wallet = Wallet::random();
    let address = wallet.address("wasm");
    let mut running = relay(&market, wallet, market.config()).await;
    running
        .until("told", |s| {
            let told = s.trouble.get(&Subject::Gas);
            told.is_some_and(|sentence| sentence.contains(&format!("account {address} does not exist on the chain")))
        })
        .await;
    assert_eq!(running.snapshots.borrow().balance, Some(0));

    // Too little is not enough.
    let faucet = market.account("developer");
    faucet.execute(&[Call::send(address.clone(), 10)]).await.unwrap();
    running
        .until("told again", |s| {
            let told = s.trouble.get(&Subject::Gas);
            s.balance == Some(10)
                && told.is_some_and(|sentence| sentence.contains("spendable balance 10ustake is smaller than"))
        })
        .await;

    faucet.execute(&[Call::send(address, 10_000_000)]).await.unwrap();
    assert_eq!(market.ended(1).await, JobStatus::Completed);
    running
        .until("over", |s| {
            s.totals.attested == 2 && !s.trouble.contains_key(&Subject::Gas)
        })
        .await;
    assert_eq!(
        running.snapshots.borrow().totals.transactions,
        1,
        "both went together all the same"
    );
    running.stop().await.unwrap();
}

const PASS: u8 = 0;
const NONSENSE: u8 = 1;
const HALF: u8 = 2;
const ERROR: u8 = 3;

/// A way to the node that garbles what it says.
async fn garbler(node: String) -> (String, Arc<AtomicU8>) {
    let manner = Arc::new(AtomicU8::new(PASS));
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let router = Router::new()
        .fallback(
            |State((http, node, manner)): State<(reqwest::Client, String, Arc<AtomicU8>)>, body: Bytes| async move {
                let asked = http.post(node).header("content-type", "application/json").body(body);
                let answer = asked.send().await.unwrap().bytes().await.unwrap();
                match manner.load(Ordering::SeqCst) {
                    NONSENSE => "<html>It works!</html>".into_response(),
                    HALF => answer.slice(..answer.len() / 2).into_response(),
                    ERROR => (StatusCode::BAD_GATEWAY, "no upstream").into_response(),
                    _ => answer.into_response(),
                }
            },
        )
        .with_state((http, node, manner.clone()));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    (format!("http://{address}"), manner)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_answers_nonsense_is_told_and_waited_out() {
    let market = Market::open(Plan::PATIENT).await;
    let (node, manner) = garbler(market.rpc_url()).await;
    let mut network = market.client.network().clone();
    network.rpc = node;
    let client = client::Client::connect(network).await.unwrap();
    let account = Account::new(client, Wallet::dev("relayer"));
    let config = market.config();
    let provider = config.provider.clone().unwrap();
    let relayer = Relayer::start(config, relayer::chain::live::LiveChain::new(account), &provider);
    let mut running = Running::of(relayer.await.unwrap());
    running.until("reading", |s| s.caught_up).await;
    for (job, kind) in (1..).zip([NONSENSE, HALF, ERROR]) {
        manner.store(kind, Ordering::SeqCst);
        market.submit_job(1).await;
        let id = schema::ItemId { job, ..market::item(0) };
        market.host_finishes(id).await;
        running.until("told", |s| s.trouble.contains_key(&Subject::Node)).await;
        let sentence = running.snapshots.borrow().trouble[&Subject::Node].clone();
        assert!(sentence.starts_with("the chain is not available: "), "{sentence}");
        assert!(!sentence.contains('\n'), "{sentence}");
        manner.store(PASS, Ordering::SeqCst);
        running.until("over", |s| !s.trouble.contains_key(&Subject::Node)).await;
        assert_eq!(market.ended(job).await, JobStatus::Completed, "after {kind}");
    }
    running.stop().await.unwrap();
    market.all_is_read().await;
    assert_eq!(market.count(|event| matches!(event, Event::Attested { .. })), 3);
    assert_eq!(
        market.count(|event| matches!(event, Event::AttestationRefused { .. })),
        0
    );
}

#[tokio::test]
async fn a_chain_that_never_answers_ends_the_start_with_what_it_said() {
    let chain = FakeChain::new();
    chain.change(|world| world.is_down = true);
    let home = tempfile::tempdir().unwrap();
    let config = Config {
        start_timeout: Duration::from_secs(1),
        ..scene::config(home.path().into())
    };
    let error = scene::start(config, chain).await.err().unwrap();
    assert!(matches!(error, RelayerError::NoChain { .. }));
    assert_eq!(
        error.to_string(),
        "the chain gave no answer that can be used within 1 s; the last one: the chain is not available: down"
    );
}

#[tokio::test]
async fn a_node_that_is_behind_what_was_read_is_told_and_waited_for() {
    let scene = Scene::new().await;
    scene.host.change(|desk| desk.finish_everything = true);
    scene.store().await.update(|state| state.height = Some(14)).unwrap();
    let mut running = scene.start().await;
    running.until("told", |s| s.trouble.contains_key(&Subject::Node)).await;
    let sentence = running.snapshots.borrow().trouble[&Subject::Node].clone();
    assert_eq!(sentence, "the node is at block 10, this relayer has read up to 14");
    assert!(!running.snapshots.borrow().is_ready());
    for _ in 0..4 {
        scene.chain.mine(0);
    }
    scene.chain.assign(item(1), 0, [OTHER, ME], 100);
    scene.chain.mine(0);
    scene.chain.until_mempool(1).await;
    scene.chain.mine(0);
    running
        .until("attested", |s| {
            s.totals.attested == 1 && !s.trouble.contains_key(&Subject::Node)
        })
        .await;
    running.stop().await.unwrap();
}

fn now() -> u64 {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap()
        .as_secs()
}

/// One item is attested in time and another is missed and expired, on a chain whose clock differs from ours by so much.
async fn a_chain_that_is_off_by(seconds: i64) -> String {
    let chain = FakeChain::new();
    chain.change(|world| world.seconds = now().checked_add_signed(seconds).unwrap());
    let home = tempfile::tempdir().unwrap();
    let host = FakeHost::start(home.path(), ME).await;
    let mut running = scene::start(scene::config(home.path().into()), chain.clone())
        .await
        .unwrap();
    chain.assign(item(1), 0, [OTHER, ME], 100);
    chain.assign(item(2), 0, [OTHER, ME], 100);
    chain.mine(0);
    host.finishes(item(1), 0);
    chain.until_mempool(1).await;
    chain.mine(0);
    running.until("attested", |s| s.totals.attested == 1).await;
    // The last second of the window is not over.
    chain.mine(100 + WINDOW);
    let height = chain.world().height;
    running.until_height(height).await;
    chain.mine(0);
    running.until_height(height + 1).await;
    assert_eq!(chain.world().expiries(), 0);
    chain.mine(1);
    chain.mine_until("expired", |world| world.expiries() == 1).await;
    running
        .until("over", |s| s.totals.expired == 1 && s.items == Default::default())
        .await;
    let sentence = running.snapshots.borrow().trouble[&Subject::Clock].clone();
    running.stop().await.unwrap();
    sentence
}

#[tokio::test]
async fn deadlines_go_by_the_chains_clock_an_hour_before_and_after_ours() {
    let sentence = a_chain_that_is_off_by(-3_600).await;
    assert!(sentence.contains("s old by this machine's clock"), "{sentence}");
    let sentence = a_chain_that_is_off_by(3_600).await;
    assert!(sentence.contains("s ahead of this machine's clock"), "{sentence}");
}

#[tokio::test]
async fn a_chain_on_our_time_is_no_trouble() {
    let chain = FakeChain::new();
    chain.change(|world| world.seconds = now());
    let home = tempfile::tempdir().unwrap();
    let _host = FakeHost::start(home.path(), ME).await;
    let mut running = scene::start(scene::config(home.path().into()), chain).await.unwrap();
    running.until("looked", |s| s.balance.is_some() && s.caught_up).await;
    assert_eq!(running.snapshots.borrow().trouble, Default::default());
    running.stop().await.unwrap();
}

#[tokio::test]
async fn a_wrong_network_file_stops_the_start() {
    let market = Market::open(Plan::PATIENT).await;
    let mut network = market.client.network().clone();
    network.chain_id = "fxn-other-1".into();
    network.save(&market.home.path().join("network.json")).unwrap();
    let stopped = relayer::run(market.config(), Wallet::dev("relayer"), CancellationToken::new()).await;
    let expected = "the node is on chain \"fxn-devnet-1\", the network file says \"fxn-other-1\"";
    assert_eq!(stopped.unwrap_err().to_string(), expected);
}
