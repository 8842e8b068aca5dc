//! Several nodes: which of them is asked, which never, and that nothing goes back when they take turns.

use std::time::Duration;

use client::{events, Account, Call, Client, ClientError, Network, Standing, Wallet};
use futures::StreamExt;
use relayer::{status::Snapshot, Config, RelayerError};
use schema::orchestrator::JobStatus;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::{
    market::{item, Market, Plan},
    processes::Process,
    proxy::{Faults, Proxy},
};

const TIMEOUT: Duration = Duration::from_secs(8);

struct Ways {
    market: Market,
    proxies: [Proxy; 2],
}

impl Ways {
    async fn open() -> Ways {
        let market = Market::open(Plan::PATIENT).await;
        let node = market.rpc_url();
        let proxies = [Proxy::start(&node, 1).await, Proxy::start(&node, 2).await];
        Ways { market, proxies }
    }

    fn urls(&self) -> Vec<String> {
        self.proxies.iter().map(|proxy| proxy.url.clone()).collect()
    }

    fn network(&self) -> Network {
        self.market.client.network().clone()
    }

    async fn client(&self) -> Client {
        Client::connect_to(self.network(), &self.urls(), TIMEOUT).await.unwrap()
    }
}

fn standings(client: &Client) -> Vec<Standing> {
    client.endpoints().into_iter().map(|node| node.standing).collect()
}

fn on_another_chain() -> Faults {
    Faults {
        chain_id: Some("fxn-other-1".into()),
        ..Faults::default()
    }
}

fn down() -> Faults {
    Faults {
        is_down: true,
        ..Faults::default()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_says_nothing_is_replaced_inside_the_time_out_of_the_call() {
    let ways = Ways::open().await;
    let client = ways.client().await;
    ways.proxies[0].falls_silent(Duration::from_secs(600));
    let began = Instant::now();
    client.status().await.unwrap();
    assert!(began.elapsed() < TIMEOUT, "{:?}", began.elapsed());
    assert_eq!(standings(&client), [Standing::Away, Standing::Good]);
    // It is not waited for again.
    let began = Instant::now();
    client.status().await.unwrap();
    assert!(began.elapsed() < TIMEOUT / 4, "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_says_nothing_does_not_hold_up_the_wait_for_a_transaction() {
    let ways = Ways::open().await;
    let client = ways.client().await;
    ways.proxies[1].falls_silent(Duration::from_secs(600));
    let began = Instant::now();
    let developer = Account::new(client, Wallet::dev("developer"));
    for amount in 1..=5 {
        let to = Wallet::dev("gateway").address("wasm");
        developer.execute(&[Call::send(to, amount)]).await.unwrap();
    }
    // It is found out once; each further look at it would cost its time-out, and each wait for a block takes several looks.
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_away_is_used_again_when_it_is_back() {
    let ways = Ways::open().await;
    let client = ways.client().await;
    ways.proxies[0].set(down());
    client.status().await.unwrap();
    ways.proxies[1].set(down());
    assert!(matches!(client.status().await, Err(ClientError::Unreachable { .. })));
    ways.proxies[0].set(Faults::default());
    crate::until("it is used again", || async { client.status().await.is_ok() }).await;
    crate::until("it stands well", || async {
        let _ = client.status().await;
        standings(&client)[0] == Standing::Good
    })
    .await;
    assert!(client.endpoints()[0].failures > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_on_another_chain_is_asked_for_its_chain_and_for_nothing_else() {
    let ways = Ways::open().await;
    ways.proxies[0].set(on_another_chain());
    let client = ways.client().await;
    ways.proxies[0].set(Faults::default());
    for _ in 0..5 {
        client.status().await.unwrap();
        client.orchestrator().config().await.unwrap();
    }
    let asked = ways.proxies[0].counts();
    assert_eq!(asked.get("status"), Some(&1), "{asked:?}");
    assert!(!asked.contains_key("abci_query"), "{asked:?}");
    assert_eq!(standings(&client), [Standing::OtherChain, Standing::Good]);
    assert_eq!(client.endpoints()[0].chain_id.as_deref(), Some("fxn-other-1"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_comes_back_as_one_of_another_chain_is_found_out() {
    let ways = Ways::open().await;
    let client = ways.client().await;
    ways.proxies[0].set(down());
    client.status().await.unwrap();
    let before = ways.proxies[0].counts();
    ways.proxies[0].set(on_another_chain());
    ways.proxies[1].set(down());
    crate::until("both are of no use", || async {
        matches!(
            client.orchestrator().config().await,
            Err(ClientError::Unreachable { .. })
        ) && standings(&client)[0] == Standing::OtherChain
    })
    .await;
    assert_eq!(before.get("abci_query"), ways.proxies[0].counts().get("abci_query"));
    ways.proxies[1].set(on_another_chain());
    crate::until("told", || async {
        let error = client.orchestrator().config().await.unwrap_err();
        matches!(error, ClientError::WrongChains { .. })
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_that_are_all_on_another_chain_end_the_start_with_one_sentence() {
    let ways = Ways::open().await;
    ways.proxies.iter().for_each(|proxy| proxy.set(on_another_chain()));
    let config = Config {
        rpc: ways.urls(),
        ..ways.market.config()
    };
    let ended = relayer::run(config, Wallet::dev("relayer"), CancellationToken::new()).await;
    let Err(error @ RelayerError::Client(_)) = ended else {
        panic!("{ended:?}")
    };
    let names = ways
        .proxies
        .each_ref()
        .map(|proxy| proxy.url.trim_start_matches("http://"));
    let expected = format!(
        "no node is on chain \"fxn-devnet-1\" of the network file: {} on \"fxn-other-1\", {} on \"fxn-other-1\"",
        names[0], names[1]
    );
    assert_eq!(error.to_string(), expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_answer_is_older_than_what_was_told_before() {
    let ways = Ways::open().await;
    let client = ways.client().await;
    let address = Wallet::random().address("wasm");
    // The first node learns answers that it will repeat.
    assert_eq!(client.balance(&address, "ustake").await.unwrap(), 0);
    client.status().await.unwrap();
    let developer = ways.market.account("developer");
    let sent = developer.execute(&[Call::send(address.clone(), 7)]).await.unwrap();
    crate::until("the client knows of the block", || async {
        client.status().await.unwrap().height >= sent.height
    })
    .await;
    ways.proxies[0].goes_stale(Duration::from_secs(600));
    assert_eq!(client.balance(&address, "ustake").await.unwrap(), 7);
    let mut height = client.height();
    for _ in 0..20 {
        let told = client.status().await.unwrap().height;
        assert!(told >= height, "{told} after {height}");
        height = told;
    }
    // Nobody is left who has come as far: no answer is better than an old one.
    ways.proxies[1].set(down());
    let impatient = tokio::time::timeout(Duration::from_secs(1), client.balance(&address, "ustake")).await;
    assert!(!matches!(impatient, Ok(Ok(0))), "{impatient:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_stream_of_blocks_has_no_gap_and_no_repetition_when_nodes_take_turns() {
    let ways = Ways::open().await;
    let client = ways.client().await;
    let contract = client.contracts().job_orchestrator.clone();
    let mut blocks = events::follow(client, vec![contract], 1);
    let mut next = 1;
    for round in 0..6 {
        let (bad, good) = (round % 2, (round + 1) % 2);
        ways.proxies[good].set(Faults::default());
        match round {
            0 | 3 => ways.proxies[bad].set(down()),
            1 | 4 => ways.proxies[bad].goes_stale(Duration::from_secs(600)),
            _ => ways.proxies[bad].set(Faults {
                truncate: 500,
                error: 300,
                lost: 1_000,
                ..Faults::default()
            }),
        }
        for _ in 0..20 {
            let block = tokio::time::timeout(Duration::from_secs(60), blocks.next()).await;
            assert_eq!(block.unwrap().unwrap().unwrap().height, next);
            next += 1;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_socket_that_tells_nothing_costs_time_and_no_block() {
    let ways = Ways::open().await;
    for proxy in &ways.proxies {
        proxy.set(Faults {
            lost: 1_000,
            ..Faults::default()
        });
    }
    let client = ways.client().await;
    let contract = client.contracts().job_orchestrator.clone();
    let mut blocks = events::follow(client.clone(), vec![contract], 1);
    let height = client.status().await.unwrap().height + 10;
    for next in 1..=height {
        assert_eq!(blocks.next().await.unwrap().unwrap().height, next);
    }
}

/// Blocks that are fetched at the same time, each in two parts, and a look at the status beside them.
const REQUESTS_MAX: usize = 2 * 8 + 4;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relayer_that_was_away_catches_up_a_few_blocks_at_a_time_and_tells_how_far_it_is() {
    let ways = Ways::open().await;
    ways.market.submit_job(1).await;
    ways.market.host_finishes(item(0)).await;
    let mut config = ways.market.config();
    config.rpc = vec![ways.proxies[0].url.clone()];
    // It has seen the first block only, and nothing of what came after it.
    let mut first = Process::launch(config.clone(), None, "relayer", None);
    first.answer("/health").await;
    first.kill();
    let owner = relayer::checkpoint::Owner {
        chain_id: ways.network().chain_id,
        orchestrator: ways.network().contracts.job_orchestrator,
        provider: config.provider.clone().unwrap(),
    };
    {
        let (store, _) = relayer::checkpoint::Store::open(&config.home, owner).unwrap();
        store
            .update(|state| *state = relayer::checkpoint::State::default())
            .unwrap();
        store.update(|state| state.height = Some(1)).unwrap();
    }
    let height = ways.market.client.status().await.unwrap().height;
    ways.proxies[0].set(Faults {
        stall: 200,
        stall_ms: 50,
        ..Faults::default()
    });
    let mut second = Process::launch(config, None, "relayer", None);
    let mut most_behind = 0;
    loop {
        let snapshot: Snapshot = serde_json::from_str(&second.answer("/status").await).unwrap();
        assert_eq!(snapshot.blocks_behind, snapshot.chain_height - snapshot.height);
        most_behind = most_behind.max(snapshot.blocks_behind);
        if snapshot.height >= height {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(ways.market.ended(1).await, JobStatus::Completed);
    assert_eq!(second.stops().await, Some(0));
    assert!(most_behind > height / 2, "{most_behind} of {height}");
    let most = ways.proxies[0].most_under_way();
    assert!((4..=REQUESTS_MAX).contains(&most), "{most}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relayer_tells_of_its_nodes_in_log_status_and_metrics() {
    let ways = Ways::open().await;
    let wrong = Proxy::start(&ways.market.rpc_url(), 3).await;
    wrong.set(on_another_chain());
    let mut config = ways.market.config();
    config.rpc = [&wrong.url, &ways.proxies[0].url, &ways.proxies[1].url]
        .map(String::clone)
        .to_vec();
    config.rpc_timeout = Duration::from_secs(2);
    let mut process = Process::launch(config, None, "relayer", None);
    ways.market.submit_job(2).await;
    ways.market.host_finishes(item(0)).await;
    let mut snapshot = Snapshot::default();
    while snapshot.endpoints.is_empty() || snapshot.totals.attested == 0 {
        snapshot = serde_json::from_str(&process.answer("/status").await).unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // The one that it uses goes away in the middle of the work.
    ways.proxies[0].set(down());
    ways.market.host_finishes(item(1)).await;
    assert_eq!(ways.market.ended(1).await, JobStatus::Completed);
    let name = wrong.url.trim_start_matches("http://").to_owned();
    let found = &snapshot.endpoints[0];
    assert_eq!(
        (found.name.as_str(), &found.standing),
        (name.as_str(), &Standing::OtherChain)
    );
    let trouble = snapshot.trouble[&relayer::status::Subject::Endpoint].clone();
    assert_eq!(
        trouble,
        format!("nodes of another chain are not used: {name} is on fxn-other-1")
    );
    let metrics = process.answer("/metrics").await;
    assert!(
        metrics.contains(&format!("fxn_relayer_node_other_chain{{node=\"{name}\"}} 1\n")),
        "{metrics}"
    );
    assert_eq!(process.stops().await, Some(0));
    let log = process.logged();
    assert!(
        log.contains("a node is on another chain and will not be used") && log.contains(&name),
        "{log}"
    );
    assert_eq!(wrong.counts().get("status"), Some(&1));
}
