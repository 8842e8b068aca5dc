//! What a transaction does, and what it leaves.

use std::{collections::BTreeSet, time::Duration};

use client::{Account, Call, Client, ClientError, TxOutcome, Wallet};
use cosmwasm_std::coins;
use futures::future::join_all;

use crate::{
    probe::{announce, call, network, start, Chain, Do, PROBE},
    proxy::Proxy,
};

const MINUTE: Duration = Duration::from_secs(60);

/// Prepares and sends without looking at the result.
async fn send(account: &Account, calls: &[Call]) -> client::TxHash {
    let prepared = account.prepare(calls).await.unwrap();
    account.broadcast(prepared).await.unwrap()
}

fn lines(outcome: &TxOutcome) -> Vec<String> {
    let line = |event: &cosmwasm_std::Event| {
        let attributes = event.attributes.iter().map(|it| format!(" {}={}", it.key, it.value));
        format!("{}{}", event.ty, attributes.collect::<String>())
    };
    outcome.events.iter().map(line).collect()
}

#[tokio::test]
async fn a_transaction_is_found_by_its_hash_with_its_events_and_data() {
    let chain = start().await;
    let alice = chain.account("developer");
    let outcome = alice.execute(&[announce(7), announce(8)]).await.unwrap();
    let found = chain.client.tx(outcome.hash).await.unwrap().unwrap();
    assert_eq!((found.height, found.code, found.log.as_str()), (outcome.height, 0, ""));
    let addresses = [PROBE.to_owned()];
    let amounts: Vec<_> = found
        .decoded(&addresses)
        .unwrap()
        .into_iter()
        .map(|emitted| (emitted.contract, emitted.event))
        .collect();
    let expected = |amount: u64| {
        let (account, amount) = (alice.address().to_owned(), amount.into());
        (PROBE.to_owned(), schema::Event::Withdrawn { account, amount })
    };
    assert_eq!(amounts, [expected(7), expected(8)]);
    // Two answers of MsgExecuteContract.
    assert_eq!(
        String::from_utf8_lossy(&found.data)
            .matches("MsgExecuteContractResponse")
            .count(),
        2
    );
    assert!(found.gas_used > 100_000 && found.gas_used <= found.gas_wanted);
}

#[tokio::test]
async fn events_are_those_of_wasmd_in_its_order() {
    let chain = start().await;
    let alice = chain.account("developer");
    let nested = call(Do::Nested {
        inner: Box::new(Do::Announce { amount: 5 }),
    });
    let paid = call(Do::Pay {
        to: alice.address().into(),
        amount: 3,
    });
    let outcome = alice
        .execute(&[nested, paid.with_funds(coins(10, "ustake"))])
        .await
        .unwrap();
    let fee = chain.client.tx(outcome.hash).await.unwrap().unwrap();
    let all = lines(&fee);
    let kinds: Vec<&str> = all.iter().take(7).map(|line| line.split(' ').next().unwrap()).collect();
    assert_eq!(
        kinds,
        ["coin_spent", "coin_received", "transfer", "message", "tx", "tx", "tx"]
    );
    assert!(
        all[5].ends_with(&format!("acc_seq={}/0", alice.address())),
        "{}",
        all[5]
    );
    let me = alice.address();
    let action = |index| {
        format!("message action=/cosmwasm.wasm.v1.MsgExecuteContract sender={me} module=wasm msg_index={index}")
    };
    let expected = [
        action(0),
        format!("execute _contract_address={PROBE} msg_index=0"),
        format!("execute _contract_address={PROBE} msg_index=0"),
        format!("wasm _contract_address={PROBE} did=announce msg_index=0"),
        format!("wasm-withdrawn _contract_address={PROBE} account={PROBE} amount=5 msg_index=0"),
        format!("reply _contract_address={PROBE} msg_index=0"),
        action(1),
        format!("coin_spent spender={me} amount=10ustake msg_index=1"),
        format!("coin_received receiver={PROBE} amount=10ustake msg_index=1"),
        format!("transfer recipient={PROBE} sender={me} amount=10ustake msg_index=1"),
        format!("execute _contract_address={PROBE} msg_index=1"),
        format!("coin_spent spender={PROBE} amount=3ustake msg_index=1"),
        format!("coin_received receiver={me} amount=3ustake msg_index=1"),
        format!("transfer recipient={me} sender={PROBE} amount=3ustake msg_index=1"),
    ];
    assert_eq!(all[7..], expected);
}

#[tokio::test]
async fn a_simulation_leaves_no_trace() {
    let chain = start().await;
    let alice = chain.account("developer");
    let (count, coins) = (chain.count().await, chain.gas_coin(alice.address()).await);
    let gas = alice.simulate(&[announce(1), Call::send(PROBE, 5)]).await.unwrap();
    assert!(gas > 100_000);
    assert_eq!(chain.count().await, count);
    assert_eq!(chain.gas_coin(alice.address()).await, coins);
    assert_eq!(chain.sequence(alice.address()).await, 0);
}

#[tokio::test]
async fn the_fee_is_gas_times_price_and_goes_to_the_collector() {
    let chain = start().await;
    let alice = chain.account("developer");
    let before = chain.gas_coin(alice.address()).await;
    let prepared = alice.prepare(&[announce(1)]).await.unwrap();
    let (fee, gas) = (prepared.fee, prepared.gas_limit);
    assert_eq!(fee, u128::from(gas).div_ceil(40));
    let hash = alice.broadcast(prepared).await.unwrap();
    alice.confirm(hash, MINUTE).await.unwrap();
    assert_eq!(before - chain.gas_coin(alice.address()).await, fee);
}

#[tokio::test]
async fn a_transaction_that_fails_in_its_block_pays_its_fee_and_writes_nothing() {
    let chain = start().await;
    let (alice, bob) = (chain.account("developer"), chain.account("creator"));
    let expect = [announce(1), call(Do::Expect { count: 1 })];
    // Both would succeed alone; both were simulated before either ran.
    let (first, second) = (
        alice.prepare(&expect).await.unwrap(),
        bob.prepare(&expect).await.unwrap(),
    );
    let (fee, before) = (second.fee, chain.gas_coin(bob.address()).await);
    let first = alice.broadcast(first).await.unwrap();
    alice.confirm(first, MINUTE).await.unwrap();
    let second = bob.broadcast(second).await.unwrap();
    let error = bob.confirm(second, MINUTE).await.unwrap_err();
    let ClientError::Refused {
        message,
        code,
        codespace,
        hash,
    } = error
    else {
        panic!("{error}")
    };
    assert_eq!(message, "count is 3, not 1");
    assert_eq!((code, codespace.as_str(), hash), (5, "wasm", Some(second)));
    assert_eq!(chain.count().await, 2);
    assert_eq!(before - chain.gas_coin(bob.address()).await, fee);
    assert_eq!(chain.sequence(bob.address()).await, 1);
    let log = chain.client.tx(second).await.unwrap().unwrap().log;
    assert_eq!(
        log,
        "failed to execute message; message index: 1: Generic error: count is 3, not 1: execute wasm contract failed"
    );
}

#[tokio::test]
async fn native_transfers_open_accounts() {
    let chain = start().await;
    let newcomer = Account::new(chain.client.clone(), Wallet::random());
    let faucet = chain.account("faucet");
    faucet
        .execute(&[Call::send(newcomer.address(), 10_000_000)])
        .await
        .unwrap();
    newcomer.execute(&[announce(1)]).await.unwrap();
    assert_eq!(chain.sequence(newcomer.address()).await, 1);
}

#[tokio::test]
async fn twenty_tasks_on_one_account_each_get_through_once() {
    let chain = start().await;
    let alice = chain.account("developer");
    let outcomes = join_all((0..20).map(|amount| {
        let alice = alice.clone();
        async move { alice.execute(&[announce(amount)]).await.unwrap().hash }
    }));
    let hashes: BTreeSet<_> = outcomes.await.into_iter().collect();
    assert_eq!(hashes.len(), 20);
    assert_eq!(chain.count().await, 20);
    assert_eq!(chain.sequence(alice.address()).await, 20);
}

#[tokio::test]
async fn two_processes_on_one_key_recover_from_each_others_sequences() {
    let chain = start().await;
    // Two accounts that do not know of each other, as two processes would be.
    let (left, right) = (chain.account("developer"), chain.account("developer"));
    for round in 0..5 {
        left.execute(&[announce(round)]).await.unwrap();
        right.execute(&[announce(round)]).await.unwrap();
    }
    assert_eq!(chain.count().await, 10);
    assert_eq!(chain.sequence(left.address()).await, 10);
}

#[tokio::test]
async fn a_transaction_gets_through_once_although_the_node_is_away_for_a_while() {
    let chain = start().await;
    let proxy = Proxy::start(chain.running.address()).await;
    let client = Client::connect(network(&proxy.url)).await.unwrap();
    let alice = Account::new(client, Wallet::dev("developer"));
    let prepared = alice.prepare(&[announce(1)]).await.unwrap();
    let hash = prepared.hash;
    proxy.go_down();
    let sending = tokio::spawn({
        let alice = alice.clone();
        async move { alice.broadcast(prepared).await }
    });
    proxy.refused().await;
    proxy.come_up();
    assert_eq!(sending.await.unwrap().unwrap(), hash);
    proxy.go_down();
    let confirming = tokio::spawn(async move { alice.confirm(hash, MINUTE).await });
    proxy.refused().await;
    proxy.come_up();
    confirming.await.unwrap().unwrap();
    assert_eq!(chain.count().await, 1);
}

#[tokio::test]
async fn a_prepared_transaction_that_is_dropped_gives_its_turn_and_sequence_back() {
    let chain = start().await;
    let alice = chain.account("developer");
    let dropped = alice.prepare(&[announce(1)]).await.unwrap();
    assert_eq!(dropped.sequence, 0);
    drop(dropped);
    let sent = alice.prepare(&[announce(2)]).await.unwrap();
    assert_eq!(sent.sequence, 0);
    alice.broadcast(sent).await.unwrap();
}

#[tokio::test]
async fn waiting_transactions_run_in_one_block_in_order_of_arrival() {
    let chain = crate::probe::start_with(Duration::from_millis(400)).await;
    let (alice, bob) = (chain.account("developer"), chain.account("creator"));
    let mut hashes = vec![];
    for amount in 0..4 {
        let sender = if amount % 2 == 0 { &alice } else { &bob };
        hashes.push(send(sender, &[announce(amount)]).await);
    }
    let mut places = vec![];
    for hash in &hashes {
        let outcome = chain.client.confirm(*hash, MINUTE).await.unwrap();
        places.push((outcome.height, *hash));
    }
    let stream = client::events::follow(chain.client.clone(), vec![PROBE.into()], places[0].0);
    let seen = told(stream, 4).await;
    assert_eq!(seen, hashes);
}

/// Hashes of the first transactions with events.
async fn told(mut stream: client::events::Follow, count: usize) -> Vec<client::TxHash> {
    use futures::StreamExt;
    let mut hashes = vec![];
    while hashes.len() < count {
        let block = stream.next().await.unwrap().unwrap();
        hashes.extend(block.txs.iter().map(|tx| tx.hash));
    }
    hashes
}

#[tokio::test]
async fn the_chain_moves_on_when_nothing_happens() {
    let chain: Chain = start().await;
    let before = chain.client.status().await.unwrap();
    let mut stream = client::events::follow(chain.client.clone(), vec![], before.height + 3);
    let block = futures::StreamExt::next(&mut stream).await.unwrap().unwrap();
    assert_eq!(block.height, before.height + 3);
    assert!(block.time_nanos > before.time_nanos && block.txs.is_empty());
}
