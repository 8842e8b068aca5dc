//! What the chain does not take, in its own codes and words, and that nothing breaks by it.

use std::time::Duration;

use client::{Account, Call, Client, ClientError, Network, TxHash, Wallet};
use serde_json::json;

use crate::probe::{announce, call, network, start, Ask, Chain, Do, PROBE};

/// The code and sentence of a refusal that never got into a block.
fn refused(error: ClientError) -> (u32, String, String) {
    match error {
        ClientError::Refused {
            message,
            code,
            codespace,
            hash: None,
        } => (code, codespace, message),
        other => panic!("not a refusal: {other:?}"),
    }
}

async fn prepared(chain: &Chain, name: &str) -> Vec<u8> {
    chain.account(name).prepare(&[announce(1)]).await.unwrap().bytes
}

#[tokio::test]
async fn a_contracts_refusal_reaches_the_caller_in_its_own_words() {
    let chain = start().await;
    let alice = chain.account("developer");
    let inner = Box::new(Do::Refuse {});
    for msg in [Do::Refuse {}, Do::Nested { inner }] {
        let (_, _, message) = refused(alice.execute(&[call(msg)]).await.unwrap_err());
        assert_eq!(message, "the probe refuses");
    }
    assert_eq!(chain.count().await, 0);
}

#[tokio::test]
async fn a_panic_in_a_contract_is_a_refusal_and_the_chain_goes_on() {
    let chain = start().await;
    let alice = chain.account("developer");
    let (_, _, message) = refused(alice.execute(&[call(Do::Panic {})]).await.unwrap_err());
    assert!(
        message.contains("panicked") && message.contains("the probe panics"),
        "{message}"
    );
    let asked = chain.client.query::<_, u64>(PROBE, &Ask::Panic {}).await.unwrap_err();
    assert!(asked.to_string().contains("the probe panics when asked"), "{asked}");
    alice.execute(&[announce(1)]).await.unwrap();
    assert_eq!(chain.count().await, 1);
}

#[tokio::test]
async fn a_changed_signature_or_message_is_refused() {
    let chain = start().await;
    let bytes = prepared(&chain, "developer").await;
    // The signature is the end of the transaction; the amount of the message stands in its middle.
    let middle = bytes.windows(8).position(|window| window == br#"amount":"#).unwrap() + 8;
    for place in [bytes.len() - 1, middle] {
        let mut changed = bytes.clone();
        changed[place] ^= 1;
        let (code, codespace, message) = refused(chain.client.broadcast_bytes(&changed).await.unwrap_err());
        assert_eq!((code, codespace.as_str()), (4, "sdk"), "{message}");
        assert!(message.contains("signature verification failed"), "{message}");
    }
    chain.client.broadcast_bytes(&bytes).await.unwrap();
}

#[tokio::test]
async fn a_signature_for_another_chain_is_refused() {
    let chain = start().await;
    let elsewhere = Network {
        chain_id: "another-chain".into(),
        ..network(&chain.running.rpc_url())
    };
    let error = Client::connect(elsewhere).await.unwrap_err();
    assert!(
        matches!(&error, ClientError::ChainIdMismatch { expected, found }
            if expected == "another-chain" && found == "fxn-devnet-1"),
        "{error}"
    );
}

#[tokio::test]
async fn an_account_that_never_received_anything_is_unknown() {
    let chain = start().await;
    let nobody = Account::new(chain.client.clone(), Wallet::random());
    let error = nobody.execute(&[announce(1)]).await.unwrap_err();
    assert!(matches!(error, ClientError::UnknownAccount { address } if address == nobody.address()));
}

#[tokio::test]
async fn a_used_sequence_is_refused_with_the_one_that_is_next() {
    let chain = start().await;
    let (stale, fresh) = (chain.account("developer"), chain.account("developer"));
    let prepared = stale.prepare(&[announce(1)]).await.unwrap();
    fresh.execute(&[announce(2)]).await.unwrap();
    let error = stale.broadcast(prepared).await.unwrap_err();
    assert!(
        matches!(error, ClientError::SequenceMismatch { expected: Some(1), .. }),
        "{error}"
    );
    // The account has learnt it.
    stale.execute(&[announce(3)]).await.unwrap();
    assert_eq!(chain.count().await, 2);
}

#[tokio::test]
async fn handing_the_same_transaction_over_again_changes_nothing() {
    let chain = start().await;
    let bytes = prepared(&chain, "developer").await;
    let hash = chain.client.broadcast_bytes(&bytes).await.unwrap();
    assert_eq!(chain.client.broadcast_bytes(&bytes).await.unwrap(), hash);
    chain.client.confirm(hash, Duration::from_secs(60)).await.unwrap();
    assert_eq!(chain.client.broadcast_bytes(&bytes).await.unwrap(), hash);
    assert_eq!(chain.count().await, 1);
}

#[tokio::test]
async fn spending_more_than_there_is_is_refused_with_both_amounts() {
    let chain = start().await;
    let alice = chain.account("developer");
    let balance = chain.gas_coin(alice.address()).await;
    let (_, _, message) = refused(alice.execute(&[Call::send(PROBE, balance + 1)]).await.unwrap_err());
    let expected = format!(
        "spendable balance {balance}ustake is smaller than {}ustake: insufficient funds",
        balance + 1
    );
    assert!(message.contains(&expected), "{message}");
}

#[tokio::test]
async fn a_fee_that_nobody_has_or_that_is_too_small_is_refused() {
    let chain = start().await;
    let newcomer = Account::new(chain.client.clone(), Wallet::random());
    let faucet = chain.account("faucet");
    faucet.execute(&[Call::send(newcomer.address(), 10)]).await.unwrap();
    let (code, codespace, message) = refused(newcomer.execute(&[announce(1)]).await.unwrap_err());
    assert_eq!((code, codespace.as_str()), (5, "sdk"), "{message}");

    let cheap = Network {
        gas_price: "0.001".parse().unwrap(),
        ..network(&chain.running.rpc_url())
    };
    let cheap = Account::new(Client::connect(cheap).await.unwrap(), Wallet::dev("developer"));
    let (code, _, message) = refused(cheap.execute(&[announce(1)]).await.unwrap_err());
    assert_eq!(code, 13, "{message}");
    assert!(message.contains("insufficient fees; got: "), "{message}");
}

#[tokio::test]
async fn addresses_without_a_contract_are_named() {
    let chain = start().await;
    let alice = chain.account("developer");
    let nowhere = Wallet::dev("nowhere").address("wasm");
    let error = chain
        .client
        .query::<_, u64>(&nowhere, &Ask::Count {})
        .await
        .unwrap_err();
    assert!(matches!(error, ClientError::UnknownContract { address } if address == nowhere));
    let call = Call::execute(nowhere.clone(), &json!({})).unwrap();
    let error = alice.execute(&[call]).await.unwrap_err();
    assert!(
        error
            .to_string()
            .contains(&format!("address {nowhere}: no such contract")),
        "{error}"
    );
}

#[tokio::test]
async fn a_message_that_the_contract_does_not_know_is_refused() {
    let chain = start().await;
    let call = Call::execute(PROBE, &json!({ "dance": {} })).unwrap();
    let error = chain.account("developer").execute(&[call]).await.unwrap_err();
    assert!(error.to_string().contains("unknown variant `dance`"), "{error}");
    let error = chain
        .client
        .query::<_, u64>(PROBE, &json!({ "dance": {} }))
        .await
        .unwrap_err();
    assert!(matches!(error, ClientError::QueryRefused { .. }), "{error}");
}

#[tokio::test]
async fn a_transaction_nobody_sent_is_not_confirmed_and_says_for_how_long() {
    let chain = start().await;
    let hash = TxHash::of(b"never sent");
    assert!(chain.client.tx(hash).await.unwrap().is_none());
    let error = chain.client.confirm(hash, Duration::from_secs(1)).await.unwrap_err();
    assert!(matches!(error, ClientError::NotConfirmed { seconds: 1, .. }), "{error}");
}

#[tokio::test]
async fn a_node_that_is_not_there_is_unreachable() {
    let error = Client::connect(network("http://127.0.0.1:1")).await.unwrap_err();
    assert!(error.is_transient(), "{error}");
    assert_eq!(error.to_string().lines().count(), 1);
}

#[tokio::test]
async fn bytes_that_are_no_transaction_are_a_parse_error() {
    let chain = start().await;
    let (code, codespace, _) = refused(chain.client.broadcast_bytes(b"no transaction").await.unwrap_err());
    assert_eq!((code, codespace.as_str()), (2, "sdk"));
}
