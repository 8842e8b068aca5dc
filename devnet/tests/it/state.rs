//! The chain after a restart is the chain before it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use client::Wallet;
use cosmrs::proto::{
    cosmos::base::query::v1beta1::PageRequest,
    cosmwasm::wasm::v1::{QueryAllContractStateRequest, QueryContractsByCodeRequest},
    traits::Message,
};
use devnet::{Config, DevnetError, StateError};
use rand::{rngs::StdRng, Rng, SeedableRng};
use serde_json::{json, Value};

use crate::{
    probe::{announce, instantiation, resume_as, start_as, Chain, Do, PROBE},
    raw::{broadcast, rpc, Raw},
};

const MINUTE: Duration = Duration::from_secs(60);
const ACCOUNTS: [&str; 3] = ["developer", "creator", "provider-1"];

pub(crate) fn config(state: &Path) -> Config {
    Config {
        block_time: Duration::from_millis(30),
        state: Some(state.to_owned()),
        ..Config::default()
    }
}

/// Starts again; the process before may need a moment to let go of the folder.
async fn resume(state: &Path) -> Chain {
    let begun = std::time::Instant::now();
    loop {
        match resume_as(config(state)).await {
            Ok(chain) => return chain,
            Err(DevnetError::State(StateError::Locked(_))) if begun.elapsed() < MINUTE => {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            Err(error) => panic!("{error}"),
        }
    }
}

async fn abci(chain: &Chain, path: &str, data: Vec<u8>) -> Value {
    let answer = rpc(
        &chain.url(),
        "abci_query",
        json!({ "path": path, "data": hex::encode(data) }),
    )
    .await;
    let mut response = answer["result"]["response"].clone();
    // The height of the answer is that of the moment.
    response["height"] = Value::Null;
    response
}

/// Of so many blocks at each end and so many between them everything is asked: asking for all would take longer than they took to make.
const BLOCKS_ASKED: u64 = 30;

/// Everything that can be asked about the blocks up to a height.
async fn blocks(chain: &Chain, height: u64) -> BTreeMap<String, Value> {
    let mut seen = BTreeMap::new();
    let step = usize::try_from(height / BLOCKS_ASKED).unwrap().max(1);
    let between = (1..=height).step_by(step);
    let ends = (1..=height.min(BLOCKS_ASKED)).chain(height.saturating_sub(BLOCKS_ASKED).max(1)..=height);
    for height in ends.chain(between).collect::<BTreeSet<_>>() {
        let params = json!({ "height": height.to_string() });
        for method in ["block", "block_results", "header", "commit", "validators"] {
            let answer = rpc(&chain.url(), method, params.clone()).await;
            assert!(answer.get("error").is_none(), "{answer}");
            seen.insert(format!("{method} {height}"), answer);
        }
    }
    let query = format!("tx.height<={height}");
    for page in 1.. {
        let params = json!({ "query": query, "page": page.to_string(), "per_page": "100" });
        let answer = rpc(&chain.url(), "tx_search", params).await;
        if answer.get("error").is_some() {
            break;
        }
        for tx in answer["result"]["txs"].as_array().unwrap() {
            let hash = hex::decode(tx["hash"].as_str().unwrap()).unwrap();
            let params = json!({ "hash": base64::Engine::encode(&base64::engine::general_purpose::STANDARD, hash) });
            seen.insert(format!("tx {}", tx["hash"]), rpc(&chain.url(), "tx", params).await);
        }
        seen.insert(format!("search {page}"), answer);
    }
    seen
}

/// Everything that can be asked about the latest state.
async fn state(chain: &Chain) -> BTreeMap<String, Value> {
    let mut seen = BTreeMap::new();
    let mut network = chain.running.network().clone();
    network["rpc"] = Value::Null;
    seen.insert("network".into(), network);
    let page = Some(PageRequest {
        limit: 1000,
        ..PageRequest::default()
    });
    let query = QueryContractsByCodeRequest {
        code_id: 1,
        pagination: page.clone(),
    };
    let path = "/cosmwasm.wasm.v1.Query/ContractsByCode";
    seen.insert(path.into(), abci(chain, path, query.encode_to_vec()).await);
    seen.insert(
        "codes".into(),
        abci(chain, "/cosmwasm.wasm.v1.Query/Codes", vec![]).await,
    );
    let query = QueryAllContractStateRequest {
        address: PROBE.into(),
        pagination: page,
    };
    let path = "/cosmwasm.wasm.v1.Query/AllContractState";
    seen.insert(path.into(), abci(chain, path, query.encode_to_vec()).await);
    let mut addresses: Vec<String> = ACCOUNTS.iter().map(|name| Wallet::dev(name).address("wasm")).collect();
    addresses.extend((0..4).map(newcomer));
    addresses.push(PROBE.into());
    for address in addresses {
        let account = cosmrs::proto::cosmos::auth::v1beta1::QueryAccountRequest {
            address: address.clone(),
        };
        let answer = abci(chain, "/cosmos.auth.v1beta1.Query/Account", account.encode_to_vec()).await;
        seen.insert(format!("account {address}"), answer);
        seen.insert(
            format!("coins {address}"),
            json!(chain.gas_coin(&address).await.to_string()),
        );
    }
    seen
}

fn newcomer(number: u32) -> String {
    Wallet::dev(&format!("newcomer-{number}")).address("wasm")
}

fn same(left: &BTreeMap<String, Value>, right: &BTreeMap<String, Value>, seed: u64) {
    assert_eq!(left.keys().collect::<Vec<_>>(), right.keys().collect::<Vec<_>>());
    for (what, value) in left {
        assert_eq!(value, &right[what], "{what}, FXN_SEED={seed}");
    }
}

async fn height(chain: &Chain) -> u64 {
    chain.client.status().await.unwrap().height
}

/// Some message, good, refused or panicking.
fn anything(random: &mut StdRng, raw: &Raw) -> cosmrs::Any {
    let amount = random.gen_range(1..1000);
    let me = raw.address().to_string();
    let inner = |msg| Box::new(msg);
    match random.gen_range(0..12) {
        0 => raw.send(&newcomer(random.gen_range(0..4)), u128::from(amount)),
        1 => raw.call(&Do::Refuse {}, 0),
        2 => raw.call(&Do::Panic {}, 0),
        3 => raw.call(&Do::Expect { count: amount }, 0),
        4 => raw.call(&Do::Pay { to: me, amount }, u128::from(amount)),
        5 => raw.call(
            &Do::Store {
                bytes: random.gen_range(0..5_000),
            },
            0,
        ),
        6 => raw.call(&Do::Place {}, 0),
        7 => {
            let inner = inner(Do::Panic {});
            raw.call(&Do::Catch { inner, funds: 0 }, 0)
        }
        8 => {
            let inner = inner(Do::Announce { amount });
            raw.call(&Do::Nested { inner }, 0)
        }
        _ => raw.call(&Do::Announce { amount }, 0),
    }
}

/// Hands over a burst of random transactions of several accounts; gives their hashes.
async fn burst(chain: &Chain, random: &mut StdRng) -> Vec<client::TxHash> {
    let mut hashes = vec![];
    let mut raws = vec![];
    for name in ACCOUNTS {
        raws.push(Raw::new(&chain.client, name).await);
    }
    for _ in 0..random.gen_range(1..15) {
        let raw = &mut raws[random.gen_range(0..ACCOUNTS.len())];
        let messages = (0..random.gen_range(1..4)).map(|_| anything(random, raw)).collect();
        // Now and then too little gas, or a sequence that nobody waits for.
        raw.gas = if random.gen_bool(0.1) { 90_000 } else { crate::raw::GAS };
        let tx = raw.sign(messages);
        let checked = broadcast(&chain.url(), &tx).await;
        match checked["code"].as_u64().unwrap() {
            0 => hashes.push(client::TxHash::of(&tx)),
            _ => raw.sequence -= 1,
        }
    }
    hashes
}

async fn confirm(chain: &Chain, hashes: &[client::TxHash]) {
    let begun = std::time::Instant::now();
    for hash in hashes {
        while chain.client.tx_any(*hash).await.is_none() {
            assert!(begun.elapsed() < MINUTE, "{hash} is in no block");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

trait AnyOutcome {
    /// Its height, whatever its code.
    async fn tx_any(&self, hash: client::TxHash) -> Option<u64>;
}

impl AnyOutcome for client::Client {
    async fn tx_any(&self, hash: client::TxHash) -> Option<u64> {
        self.tx(hash).await.unwrap().map(|outcome| outcome.height)
    }
}

#[tokio::test]
async fn after_any_stop_everything_that_can_be_asked_is_as_it_was() {
    let slow = std::env::var("FXN_SLOW").is_ok_and(|slow| slow == "1");
    let seed = std::env::var("FXN_SEED").map_or(7, |seed| seed.parse().unwrap());
    let folder = tempfile::tempdir().unwrap();
    let mut random = StdRng::seed_from_u64(seed);
    let mut chain = start_as(config(folder.path())).await;
    let mut confirmed = vec![];
    for round in 0..if slow { 60 } else { 4 } {
        let hashes = burst(&chain, &mut random).await;
        confirm(&chain, &hashes).await;
        confirmed.extend(hashes);
        if random.gen_bool(0.3) {
            chain.account("admin").execute(&[instantiation()]).await.unwrap();
        }
        // Nothing waits now: the state stands still while blocks go on.
        let stands = random.gen_bool(0.5);
        if !stands {
            // These may be in a block or in none when it stops.
            burst(&chain, &mut random).await;
        }
        let (seen_height, before) = (height(&chain).await, state(&chain).await);
        let seen = blocks(&chain, seen_height).await;
        if random.gen_bool(0.5) {
            chain.running.shutdown().await;
        } else {
            drop(chain);
        }
        chain = resume(folder.path()).await;
        let (now, notice) = (height(&chain).await, chain.running.notice());
        assert!(
            now >= seen_height,
            "block {seen_height} was told, {now} is the latest after round {round}; {notice:?}, FXN_SEED={seed}"
        );
        same(&seen, &blocks(&chain, seen_height).await, seed);
        if stands {
            same(&before, &state(&chain).await, seed);
        }
        for hash in &confirmed {
            assert!(
                chain.client.tx_any(*hash).await.is_some(),
                "{hash} is lost, FXN_SEED={seed}"
            );
        }
    }
}

#[tokio::test]
async fn the_chain_goes_on_from_its_log_and_time_only_runs_forward() {
    let folder = tempfile::tempdir().unwrap();
    let chain = start_as(config(folder.path())).await;
    let alice = chain.account("developer");
    alice.execute(&[announce(1)]).await.unwrap();
    let before = chain.client.status().await.unwrap();
    chain.running.shutdown().await;
    tokio::time::sleep(Duration::from_millis(700)).await;
    let chain = resume(folder.path()).await;
    let alice = chain.account("developer");
    let outcome = alice.execute(&[announce(2)]).await.unwrap();
    assert!(outcome.height > before.height);
    assert_eq!(chain.count().await, 2);
    assert_eq!(chain.sequence(alice.address()).await, 2);
    // Every time is later than the one before, and the stop is a jump, as a halted chain's is.
    let mut last = 0;
    let mut jump = 0;
    for height in 1..=outcome.height {
        let answer = rpc(&chain.url(), "header", json!({ "height": height.to_string() })).await;
        let time = answer["result"]["header"]["time"].as_str().unwrap().to_owned();
        let time: cosmrs::tendermint::Time = time.parse().unwrap();
        let nanos = time.unix_timestamp_nanos();
        assert!(nanos > last, "height {height}");
        if last > 0 {
            jump = jump.max(nanos - last);
        }
        last = nanos;
    }
    assert!(jump >= 600_000_000, "{jump} ns");
    // A transaction of the first life is known in the second.
    let found = rpc(
        &chain.url(),
        "tx_search",
        json!({ "query": format!("wasm._contract_address='{PROBE}'") }),
    )
    .await;
    assert_eq!(found["result"]["total_count"], "2");
}

/// The log's files with their contents.
fn files(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = entries.map(|path| (path.clone(), fs::read(path).unwrap())).collect();
    files.sort();
    files
}

/// A log with some transactions, of a devnet that has stopped.
async fn stopped() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let chain = start_as(config(folder.path())).await;
    chain.account("developer").execute(&[announce(1)]).await.unwrap();
    chain.running.shutdown().await;
    folder
}

async fn refusal(config: Config) -> String {
    match resume_as(config).await {
        Err(error @ DevnetError::State(_)) => error.to_string(),
        Err(error) => panic!("{error:?}"),
        Ok(_) => panic!("it starts"),
    }
}

#[tokio::test]
async fn a_log_of_another_genesis_is_refused_with_the_reason_and_not_touched() {
    let folder = stopped().await;
    let before = files(folder.path());
    let ours = || config(folder.path());
    let chain_id = Config {
        chain_id: "fxn-other-1".into(),
        ..ours()
    };
    assert!(refusal(chain_id)
        .await
        .contains("chain id \"fxn-devnet-1\", and this one has \"fxn-other-1\""));
    let mut accounts = ours();
    accounts.accounts[0].gas += 1;
    assert!(refusal(accounts).await.contains("accounts"));
    let profile = include_str!("../../../params/local.toml");
    let market = Config {
        market: Some(toml::from_str(profile).unwrap()),
        ..ours()
    };
    assert!(refusal(market).await.contains("parameters"));
    assert_eq!(files(folder.path()), before);
    resume(folder.path()).await;
}

#[tokio::test]
async fn damage_is_told_by_place_and_a_torn_tail_by_name() {
    let folder = stopped().await;
    let log = folder.path().join("chain.log");
    let whole = fs::read(&log).unwrap();
    let mut flipped = whole.clone();
    flipped[whole.len() / 2] ^= 1;
    fs::write(&log, &flipped).unwrap();
    let text = refusal(config(folder.path())).await;
    assert!(
        text.contains("is damaged at byte") && text.contains("Nothing was changed"),
        "{text}"
    );
    assert_eq!(fs::read(&log).unwrap(), flipped);
    fs::write(&log, &whole[..whole.len() - 3]).unwrap();
    let chain = resume(folder.path()).await;
    let notice = chain.running.notice().unwrap().to_owned();
    assert!(notice.contains("chain.log.torn-1"), "{notice}");
    chain.running.shutdown().await;
    let chain = resume(folder.path()).await;
    assert_eq!(chain.running.notice(), None);
}

#[tokio::test]
async fn a_second_devnet_on_the_same_folder_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let _chain = start_as(config(folder.path())).await;
    let text = refusal(config(folder.path())).await;
    assert!(text.contains("in use by another process"), "{text}");
}
