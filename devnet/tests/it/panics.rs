//! A contract that panics, recurses, overflows or asks for what is not there fails its call and nothing else.

use serde_json::{json, Value};

use crate::{
    probe::{announce, call, start, Ask, Chain, Do, Unsupported, PROBE},
    raw::{broadcast, commit, rpc, Raw},
};

/// Runs it in a block without asking a simulation first; gives the result.
async fn run(chain: &Chain, raw: &mut Raw, msg: Do) -> Value {
    let message = raw.call(&msg, 0);
    let tx = raw.sign(vec![message]);
    commit(&chain.url(), &tx).await["tx_result"].clone()
}

#[tokio::test]
async fn whatever_a_contract_does_in_a_block_the_next_transaction_is_fine() {
    let chain = start().await;
    let mut raw = Raw::new(&chain.client, "developer").await;
    let nested = |inner| Do::Nested { inner: Box::new(inner) };
    let mut cases = vec![
        (Do::Panic {}, 29, "panicked at 'the probe panics'"),
        (nested(Do::Panic {}), 29, "message index: 0: Error calling the VM"),
        (Do::Overflow {}, 29, "attempt to add with overflow"),
        (Do::Forever {}, 30, "max call depth exceeded"),
        (Do::AskItself { depth: 50 }, 5, "max query stack size exceeded"),
        (Do::Refuse {}, 5, "the probe refuses: execute wasm contract failed"),
    ];
    let what = Unsupported::Any;
    cases.push((Do::Unsupported { what }, 5, "execute wasm contract failed"));
    let what = Unsupported::Query;
    cases.push((Do::Unsupported { what }, 5, "Unexpected grpc query"));
    for (count, (msg, code, words)) in (0..).zip(cases) {
        let result = run(&chain, &mut raw, msg.clone()).await;
        assert_eq!(result["code"], code, "{msg:?}: {result}");
        assert_eq!(result["codespace"], "wasm");
        assert!(result["log"].as_str().unwrap().contains(words), "{msg:?}: {result}");
        // State untouched, next call fine.
        assert_eq!(chain.count().await, count);
        let fine = run(&chain, &mut raw, Do::Announce { amount: 1 }).await;
        assert_eq!(fine["code"], 0, "after {msg:?}: {fine}");
    }
}

#[tokio::test]
async fn a_panic_between_two_good_messages_takes_both_back() {
    let chain = start().await;
    let mut raw = Raw::new(&chain.client, "developer").await;
    let messages = [Do::Announce { amount: 1 }, Do::Panic {}, Do::Announce { amount: 2 }];
    let messages = messages.iter().map(|msg| raw.call(msg, 0)).collect();
    let tx = raw.sign(messages);
    let result = commit(&chain.url(), &tx).await["tx_result"].clone();
    assert!(result["log"].as_str().unwrap().contains("message index: 1"), "{result}");
    assert_eq!(chain.count().await, 0);
}

#[tokio::test]
async fn a_contract_may_catch_what_it_calls_and_reads_only_what_is_deterministic() {
    let chain = start().await;
    let mut raw = Raw::new(&chain.client, "developer").await;
    let cases = [
        (Do::Announce { amount: 1 }, "it went well"),
        (
            Do::Refuse {},
            "Generic error: the probe refuses: execute wasm contract failed",
        ),
        (Do::Panic {}, "codespace: wasm, code: 29"),
        (
            Do::Nested {
                inner: Box::new(Do::Refuse {}),
            },
            "codespace: wasm, code: 5",
        ),
    ];
    for (msg, note) in cases {
        let caught = Do::Catch {
            inner: Box::new(msg.clone()),
            funds: 0,
        };
        let result = run(&chain, &mut raw, caught).await;
        assert_eq!(result["code"], 0, "{msg:?}: {result}");
        assert_eq!(chain.note().await, note, "{msg:?}");
    }
    // Coins that are not there.
    let inner = Box::new(Do::Announce { amount: 1 });
    let result = run(&chain, &mut raw, Do::Catch { inner, funds: 5 }).await;
    assert_eq!(result["code"], 0, "{result}");
    assert_eq!(chain.note().await, "codespace: sdk, code: 5");
}

#[tokio::test]
async fn a_query_that_panics_recurses_or_is_unsupported_is_an_answer() {
    let chain = start().await;
    for (ask, words) in [
        (Ask::Panic {}, "the probe panics when asked"),
        (Ask::Itself { depth: 30 }, "max query stack size exceeded"),
        (Ask::Unsupported {}, "Unexpected grpc query"),
    ] {
        let error = chain
            .client
            .query::<_, Value>(PROBE, &ask)
            .await
            .unwrap_err()
            .to_string();
        assert!(error.contains(words), "{ask:?}: {error}");
    }
    let depth = chain.client.query::<_, u64>(PROBE, &Ask::Itself { depth: 9 }).await;
    assert_eq!(depth.unwrap(), 9);
    assert_eq!(chain.count().await, 0);
}

#[tokio::test]
async fn a_simulation_that_panics_leaves_nothing_and_the_account_goes_on() {
    let chain = start().await;
    let alice = chain.account("developer");
    for msg in [Do::Panic {}, Do::Overflow {}, Do::Forever {}] {
        alice.simulate(&[announce(1), call(msg)]).await.unwrap_err();
    }
    assert_eq!(chain.count().await, 0);
    alice.execute(&[announce(1)]).await.unwrap();
    assert_eq!(chain.count().await, 1);
}

#[tokio::test]
async fn json_a_million_levels_deep_and_huge_messages_are_refused_or_run() {
    let chain = start().await;
    let mut raw = Raw::new(&chain.client, "developer").await;
    for deep in ["[".repeat(300_000), "{\"nested\":".repeat(30_000)] {
        let message = raw.execute(PROBE, deep.as_bytes(), 0);
        let tx = raw.sign(vec![message]);
        let result = commit(&chain.url(), &tx).await["check_tx"].clone();
        assert_eq!(result["log"], "payload msg: invalid", "{result}");
        // What is not taken counts for nothing.
        raw.sequence -= 1;
        let asked = format!("{{\"q\":{deep}");
        let error = chain.client.query::<_, Value>(PROBE, &asked).await;
        assert!(error.is_err());
    }
    // A request that is nothing but depth.
    let body = "[".repeat(900_000);
    let request = reqwest::Client::new().post(chain.running.rpc_url()).body(body);
    let answer: Value = request.send().await.unwrap().json().await.unwrap();
    assert_eq!(answer["error"]["code"], -32700);
    // Nearly all that a request may hold.
    let long = json!({ "refuse": {}, "padding": "x".repeat(700_000) });
    let message = raw.execute(PROBE, long.to_string().as_bytes(), 0);
    let tx = raw.sign(vec![message]);
    assert_eq!(broadcast(&chain.url(), &tx).await["code"], 0);
    let over = rpc(&chain.url(), "broadcast_tx_sync", json!({ "tx": "A".repeat(999_800) })).await;
    assert!(over["result"]["code"].as_u64().is_some_and(|code| code > 0), "{over}");
    let fine = run(&chain, &mut raw, Do::Store { bytes: 200_000 }).await;
    assert_eq!(fine["code"], 0, "{fine}");
}
