//! The first state: accounts with gas coin, and the market's contracts deployed and wired.

use std::{collections::BTreeSet, sync::Arc};

use cosmwasm_std::{BlockInfo, Coin, Timestamp};
use k256::ecdsa::SigningKey;
use serde_json::{json, Value};
use sha2::{Digest, Sha256};
use tokio::sync::oneshot;

use crate::{
    accounts::Accounts,
    beacon,
    log::{Folder, Header, Identity, Recovered},
    machine::{Code, Machine},
    market,
    metrics::Metrics,
    node::{now_nanos, Node, Rules},
    transaction, Config, PREFIX,
};

/// Development account with all FUNC that nobody else was given, and gas coin to give away.
pub const FAUCET: &str = "faucet";

/// Names of the development accounts that have FUNC and gas coin from the beginning, [`FAUCET`] apart.
pub const DEV_ACCOUNTS: [&str; 13] = [
    "admin",
    "treasury",
    "creator",
    "parent-creator",
    "developer",
    "gateway",
    "provider-1",
    "provider-2",
    "provider-3",
    "provider-4",
    "provider-5",
    "provider-6",
    "relayer",
];

/// Gas coin of each development account: enough for millions of transactions.
const DEV_GAS: u128 = 1_000_000_000_000;
/// Gas coin of the faucet.
pub const FAUCET_GAS: u128 = 1_000_000_000_000_000;
/// FUNC of each development account: a million.
const DEV_FUNC: u128 = 1_000_000 * schema::UFUNC;

/// Longest chain id that clients take.
const CHAIN_ID_MAX: usize = 50;

/// What an account has at the beginning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// Its address.
    pub address: String,
    /// Gas coin.
    pub gas: u128,
    /// FUNC, in ufunc.
    pub func: u128,
}

/// The address of a development account: the key's secret is the digest of a known text, so it is everybody's.
pub fn dev_address(name: &str) -> String {
    let mut seed = Sha256::new();
    seed.update(b"function network development account");
    seed.update(name.as_bytes());
    let mut secret = seed.finalize();
    loop {
        if let Ok(key) = SigningKey::from_bytes(&secret) {
            let point = key.verifying_key().to_encoded_point(true);
            let address = <[u8; 33]>::try_from(point.as_bytes())
                .ok()
                .and_then(|key| transaction::address_of(&key, PREFIX));
            if let Some(address) = address {
                return address;
            }
        }
        // One digest in 2^128 is no valid secret; its own digest takes its place.
        secret = Sha256::digest(secret);
    }
}

/// The accounts of the default configuration.
pub(crate) fn dev_accounts() -> Vec<Account> {
    let account = |name: &&str| Account {
        address: dev_address(name),
        gas: DEV_GAS,
        func: DEV_FUNC,
    };
    DEV_ACCOUNTS.iter().map(account).collect()
}

/// What a node knows once it stands.
#[derive(Debug)]
pub(crate) struct Ready {
    /// The content of the network file.
    pub(crate) network: Value,
    /// What a crash had left and was put aside, in a sentence.
    pub(crate) notice: Option<String>,
}

/// What builds the node on its thread, and what it knows, which comes once that is done.
pub(crate) fn prepare(
    config: Config,
    rpc: String,
    metrics: Arc<Metrics>,
) -> (
    impl FnOnce() -> anyhow::Result<Node> + Send + 'static,
    oneshot::Receiver<Ready>,
) {
    let (sender, network) = oneshot::channel();
    let make = move || {
        let (node, ready) = make(config, &rpc, metrics)?;
        let _ = sender.send(ready);
        Ok(node)
    };
    (make, network)
}

fn make(config: Config, rpc: &str, metrics: Arc<Metrics>) -> anyhow::Result<(Node, Ready)> {
    check(&config)?;
    let folder = config.state.as_deref().map(Folder::open).transpose()?;
    let identity = identity(&config)?;
    let log = match &folder {
        Some(folder) => folder.read(&identity)?,
        None => None,
    };
    let genesis_nanos = log.as_ref().map_or_else(now_nanos, |log| log.genesis_nanos());
    let (mut node, network) = begin(config, rpc, genesis_nanos, metrics)?;
    let genesis = hex::encode(node.machine.state_digest());
    let mut notice = None;
    match (folder, log) {
        (Some(folder), Some(mut log)) => {
            log.check_genesis(&genesis)?;
            let begun = std::time::Instant::now();
            let txs = node.replay(&mut log)?;
            let Recovered { log, notice: cut } = log.resume(folder)?;
            let (height, seconds) = (node.machine.block().height, begun.elapsed().as_secs_f64());
            tracing::info!(height, txs, seconds, "the chain goes on from its log");
            node.keep_log(log);
            if let Some(notice) = &cut {
                tracing::warn!("{notice}");
            }
            notice = cut;
        }
        (Some(folder), None) => {
            let header = Header {
                identity,
                genesis_nanos,
                genesis,
            };
            node.keep_log(folder.create(&header)?);
        }
        (None, _) => {}
    }
    if node.history.latest().is_none() {
        node.make_block()?;
    }
    Ok((node, Ready { network, notice }))
}

/// What decides the state before the first block, so that a log is only replayed on it.
fn identity(config: &Config) -> anyhow::Result<Identity> {
    let mut accounts = Sha256::new();
    for Account { address, gas, func } in &config.accounts {
        accounts.update(format!("{address} {gas} {func}\n"));
    }
    let parameters = match &config.market {
        Some(params) => hex::encode(Sha256::digest(serde_json::to_vec(params)?)),
        None => String::new(),
    };
    let mut codes: Vec<String> = match config.market {
        Some(_) => market::VERSIONS.map(str::to_owned).into(),
        None => vec![],
    };
    for code in &config.codes {
        let checksum = code().checksum().map(|checksum| checksum.to_hex());
        codes.push(checksum.unwrap_or_else(|| "a code without a checksum".into()));
    }
    Ok(Identity {
        format: Identity::FORMAT,
        chain_id: config.chain_id.clone(),
        denom: config.denom.clone(),
        accounts: hex::encode(accounts.finalize()),
        parameters,
        codes,
    })
}

/// The node before its first block, and the content of the network file.
fn begin(config: Config, rpc: &str, genesis_nanos: u64, metrics: Arc<Metrics>) -> anyhow::Result<(Node, Value)> {
    let mut accounts = Accounts::default();
    let faucet = dev_address(FAUCET);
    let mut balances = vec![(faucet.clone(), Coin::new(FAUCET_GAS, config.denom.clone()))];
    for account in &config.accounts {
        balances.push((account.address.clone(), Coin::new(account.gas, config.denom.clone())));
    }
    balances.iter().for_each(|(address, _)| accounts.open(address));
    let block = BlockInfo {
        height: 0,
        time: Timestamp::from_nanos(genesis_nanos),
        chain_id: config.chain_id.clone(),
    };
    let mut codes: Vec<Code> = if config.market.is_some() {
        market::codes()
    } else {
        vec![]
    };
    codes.extend(&config.codes);
    let mut machine = Machine::new(&codes, &balances, block)?;
    let beacon = config.market.as_ref().and_then(|params| beacon::told(params, rpc));
    let contracts = match config.market {
        Some(params) => market::deploy(&mut machine, params, &config.accounts)?,
        None => json!({}),
    };
    let mut network = json!({
        "chain_id": config.chain_id,
        "rpc": rpc,
        "denom": config.denom,
        "gas_price": config.gas_price,
        "bech32_prefix": PREFIX,
        "contracts": contracts,
    });
    if let Some(beacon) = beacon {
        network["beacon"] = beacon;
    }
    let rules = Rules {
        chain_id: config.chain_id,
        denom: config.denom,
        gas_price: config.gas_price,
    };
    let node = Node::new(rules, machine, accounts, config.blocks_kept, metrics)?;
    Ok((node, network))
}

/// Refuses a configuration that clients could not use.
fn check(config: &Config) -> anyhow::Result<()> {
    let length = config.chain_id.len();
    anyhow::ensure!(
        (1..=CHAIN_ID_MAX).contains(&length),
        "a chain id of {length} bytes, 1 to {CHAIN_ID_MAX} are allowed"
    );
    let denom = &config.denom;
    let plain = denom.len() >= 3 && denom.chars().all(|letter| letter.is_ascii_lowercase());
    anyhow::ensure!(
        plain,
        "{denom:?} is no gas coin: 3 or more lower-case letters are needed"
    );
    let mut known = BTreeSet::from([dev_address(FAUCET)]);
    for account in &config.accounts {
        let address = &account.address;
        anyhow::ensure!(
            transaction::is_address(address, PREFIX),
            "{address:?} is no address with the prefix {PREFIX:?}"
        );
        anyhow::ensure!(
            known.insert(address.clone()),
            "{address} is named twice, or is the faucet's"
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(config: Config) -> String {
        check(&config).unwrap_err().to_string()
    }

    #[test]
    fn the_default_configuration_is_taken() {
        check(&Config::default()).unwrap();
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_block_that_cannot_be_written_is_shown_to_nobody() {
        let (mut node, _) = begin(Config::default(), "", 1, Arc::default()).unwrap();
        node.make_block().unwrap();
        let mut blocks = node.subscribe();
        node.keep_log(crate::log::on_a_full_disk());
        let error = node.make_block().unwrap_err().to_string();
        assert!(
            error.contains("cannot write /dev/full: No space left on device"),
            "{error}"
        );
        assert_eq!(node.history.latest().unwrap().height, 1);
        assert!(blocks.try_recv().is_err());
    }

    #[test]
    fn accounts_that_nobody_can_use_are_refused_by_name() {
        let account = |address: &str| Account {
            address: address.to_owned(),
            gas: 1,
            func: 1,
        };
        let with = |accounts: Vec<Account>| Config {
            accounts,
            ..Config::default()
        };
        assert!(refusal(with(vec![account("wasm1nobody")])).contains("wasm1nobody"));
        let twice = account(&dev_address("creator"));
        assert!(refusal(with(vec![twice.clone(), twice])).contains("named twice"));
        assert!(refusal(with(vec![account(&dev_address(FAUCET))])).contains("the faucet's"));
    }

    #[test]
    fn a_chain_id_or_coin_that_clients_refuse_is_refused_here() {
        let chain_id = "x".repeat(51);
        assert!(refusal(Config {
            chain_id,
            ..Config::default()
        })
        .contains("51 bytes"));
        let denom = "GAS".to_owned();
        assert!(refusal(Config {
            denom,
            ..Config::default()
        })
        .contains("\"GAS\""));
    }
}
