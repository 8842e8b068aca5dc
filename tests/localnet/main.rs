//! wasmd validators of `scripts/localnet.sh`: what everything else that runs on a real chain relies on.

#![allow(clippy::unwrap_used, reason = "what cannot be unwrapped fails its story")]
#![allow(clippy::arithmetic_side_effects, reason = "sums of a test's own numbers")]

mod beacon;
mod cli;
mod deploy;
mod validators;

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use client::{Account, Call, Client, Contracts, Network, Wallet};
use fxn_tests::localnet::Localnet;

const CHAIN_ID: &str = "fxn-localnet-1";

/// A network file for a chain on which nothing is deployed yet.
fn network(rpc: String) -> Network {
    let nowhere = devnet::dev_address(devnet::FAUCET);
    Network {
        chain_id: CHAIN_ID.into(),
        rpc,
        further_rpc: vec![],
        denom: "ustake".into(),
        gas_price: "0.025".parse().unwrap(),
        bech32_prefix: devnet::PREFIX.into(),
        contracts: Contracts {
            func_token: nowhere.clone(),
            model_registry: nowhere.clone(),
            provider_staking: nowhere.clone(),
            royalty_escrow: nowhere.clone(),
            job_orchestrator: nowhere,
            randomness_beacon: None,
            audit_court: None,
        },
        beacon: None,
    }
}

async fn send_one_coin(rpc: String) {
    let client = Client::connect(network(rpc)).await.unwrap();
    let faucet = Account::new(client.clone(), Wallet::dev(devnet::FAUCET));
    let receiver = Wallet::random().address(devnet::PREFIX);
    let outcome = faucet.execute(&[Call::send(receiver.clone(), 7)]).await.unwrap();
    assert_eq!(outcome.code, 0, "{}", outcome.log);
    assert_eq!(client.balance(&receiver, "ustake").await.unwrap(), 7);
}

/// The time between two neighbouring blocks by the chain's own clock: the shortest of a few, for a busy machine delays some.
async fn a_block_took(client: &Client) -> Duration {
    let mut blocks = BTreeMap::new();
    while blocks.len() < 8 {
        let status = client.status().await.unwrap();
        blocks.insert(status.height, status.time_nanos);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let neighbours = blocks.iter().zip(blocks.iter().skip(1));
    let took = neighbours
        .filter(|((height, _), (next, _))| *height + 1 == **next)
        .map(|((_, time), (_, next))| Duration::from_nanos(next - time));
    took.min().expect("neighbouring blocks")
}

#[tokio::test]
async fn one_validator_serves_our_client_and_goes_on_after_a_kill() {
    let net = Localnet::start(1);
    let client = Client::connect(network(net.rpc(0))).await.unwrap();
    for (number, account) in (1..).zip(devnet::Config::default().accounts) {
        // A transaction signed for the one chain has the account's number of the other.
        assert_eq!(client.account(&account.address).await.unwrap().number, number);
        assert_eq!(client.balance(&account.address, "ustake").await.unwrap(), account.gas);
    }
    send_one_coin(net.rpc(0)).await;

    let before = net.status()[0].clone();
    let up = before.up.unwrap();
    assert_eq!((up.app_version.as_str(), up.catching_up), ("0.61.14", false));
    assert_eq!(before.rpc, net.rpc(0));
    assert!(a_block_took(&client).await < Duration::from_secs(1));
    // A second start finds everything as it should be and touches nothing.
    net.succeed(&["start"]);
    assert_eq!(net.status()[0].pid, before.pid);

    net.kill(0);
    assert_eq!(net.status()[0].up, None);
    net.succeed(&["start"]);
    assert!(net.height(0) > up.height);
    send_one_coin(net.rpc(0)).await;

    net.succeed(&["stop"]);
    assert_eq!(net.status()[0].pid, None);
    assert!(client.status().await.is_err());
}

#[tokio::test]
async fn four_validators_lose_one_and_go_on_lose_two_and_wait() {
    let net = Localnet::start(4);
    send_one_coin(net.rpc(3)).await;

    net.kill(2);
    net.await_blocks(0, 4);
    send_one_coin(net.rpc(1)).await;

    net.kill(3);
    // A block that was agreed on before may still come; then there is none.
    let height = || net.height(0).max(net.height(1));
    let mut last = height();
    let mut quiet_since = Instant::now();
    while quiet_since.elapsed() < Duration::from_secs(5) {
        tokio::time::sleep(Duration::from_millis(200)).await;
        let now = height();
        if now > last {
            assert!(now <= last + 2, "blocks with two votes of four");
            (last, quiet_since) = (now, Instant::now());
        }
    }

    net.succeed(&["start"]);
    for validator in 0..4 {
        assert!(net.height(validator) > last, "validator {validator}");
    }
    send_one_coin(net.rpc(2)).await;
}

#[test]
fn only_what_was_started_here_is_ended() {
    let net = Localnet::start(1);
    let other = Localnet::start(1);
    let (own, foreign) = (net.status()[0].pid.unwrap(), other.status()[0].pid.unwrap());
    // A pid file that tells of somebody else's process, as after a restart of the machine.
    let file = net.home().join("validator-0/pid");
    std::fs::write(&file, foreign.to_string()).unwrap();
    let shown = net.status()[0].pid;
    net.succeed(&["stop"]);
    std::fs::write(&file, own.to_string()).unwrap();
    assert_eq!(shown, None);
    let unharmed = &other.status()[0];
    assert_eq!(unharmed.pid, Some(foreign));
    assert!(unharmed.up.is_some());
}
