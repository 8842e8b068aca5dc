//! Sessions as people open, look at and end them, and the mistakes that they make with them. No host is there: that is a mistake of hosts.

use std::{fs, os::unix::fs::PermissionsExt, process::Command};

use serde_json::Value;

use crate::{
    market::{Market, MODEL},
    programs::{document, until},
    table::{check, misused, refused},
};

const OPEN: [&str; 4] = ["session", "open", "--model", MODEL];

fn open(market: &Market, more: &[&str]) -> Value {
    market.done(&[&OPEN[..], more].concat())
}

/// What of alice's money is in the escrow: available and held.
fn escrowed(market: &Market) -> (u64, u64) {
    let money = market.money();
    (money["available"].as_u64().unwrap(), money["held"].as_u64().unwrap())
}

#[test]
fn a_session_is_opened_shown_and_ended_by_notice_and_every_unit_comes_back() {
    let market = Market::with_model();
    let before = escrowed(&market);
    let opened = open(&market, &["--requests", "100", "--tokens", "8", "--for", "10m"]);
    assert_eq!((&opened["session"], &opened["model"]), (&1.into(), &MODEL.into()));
    let held = opened["held"].as_u64().unwrap();
    let allocation = &opened["allocations"][0];
    // 800 tokens at a thousandth of a FUNC, a twentieth more for the creator, and the slot until the end of the notice.
    assert_eq!(
        (&allocation["deployment"], &allocation["amount"]),
        (&1.into(), &840_000.into())
    );
    assert_eq!(held, 840_000 + allocation["reservation"].as_u64().unwrap());
    assert_eq!(escrowed(&market), (before.0 - held, held));

    let folder = market.path().join("sessions");
    let keys: Vec<_> = fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    assert_eq!(keys.len(), 1);
    let mode = |path: &std::path::Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&folder), mode(&keys[0])), (0o700, 0o600));
    assert!(fs::read_to_string(&keys[0]).unwrap().contains("argon2id"));

    let list = market.done(&["session", "list"]);
    assert_eq!((list.as_array().unwrap().len(), &list[0]["has_key"]), (1, &true.into()));
    let shown = market.done(&["session", "show", "1"]);
    assert_eq!(
        (&shown["held"], &shown["allocations"][0]["state"]),
        (&held.into(), &"open".into())
    );
    assert_eq!(market.money()["sessions"][0]["amount"], held);
    for words in [
        &["session", "show", "1"][..],
        &["session", "list"],
        &["wallet", "money"],
    ] {
        let output = market.fxn(&[words, &["--output", "text"]].concat()).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(
            output.status.success() && text.contains("anyone") || words[1] == "list",
            "{text}"
        );
    }

    market.done(&["session", "topup", "1", "--allocate", "1=0.5"]);
    let shown = market.done(&["session", "show", "1"]);
    assert_eq!(shown["held"], held + 500_000);

    let closing = market.done(&["session", "close", "1", "--patience", "1s"]);
    assert_eq!(closing["closed"], Value::Array(vec![]));
    let why = closing["closing"][0]["why"].as_str().unwrap();
    assert!(why.contains("does not answer"), "{why}");
    check(vec![refused(
        market.fxn(&["session", "close", "1", "--no-consent"]),
        &["closing already", "in "],
    )]);
    let ended = until("the notice has passed", || {
        let close = ["session", "close", "1", "--no-consent", "--output", "json"];
        let output = market.fxn(&close).output().unwrap();
        output
            .status
            .success()
            .then(|| serde_json::from_slice::<Value>(&output.stdout).unwrap())
    });
    let reservation = ended["closed"][0]["reservation"].as_u64().unwrap();
    // Alice is the provider, too: what the slot has cost is hers again.
    assert!(reservation > 0);
    assert_eq!(escrowed(&market), before);
    assert_eq!(market.done(&["session", "list"]), Value::Array(vec![]));
    check(vec![refused(
        market.fxn(&["session", "show", "1"]),
        &["no session 1", "has ended"],
    )]);
}

#[test]
fn mistakes_with_sessions_cost_nothing() {
    let market = Market::with_model();
    let texts = market.file("texts.txt", b"hello world\n");
    market.done(&["keys", "new", "bob"]);
    open(&market, &["--requests", "10", "--tokens", "8"]);
    let before = market.money();
    let fxn = |arguments: &[&str]| market.fxn(arguments);
    let opening = |more: &[&str]| fxn(&[&OPEN[..], more].concat());
    let as_bob = |arguments: &[&str]| -> Command {
        let mut command = fxn(arguments);
        command.env("FXN_KEY", "bob");
        command
    };
    let embed = ["embed", "--model", MODEL, texts.as_str(), "--session"];
    let embedding = |more: &[&str]| fxn(&[&embed[..], more].concat());
    check(vec![
        misused(opening(&["--requests", "0"]), &["0", "--requests"]),
        misused(opening(&["--for", "soon"]), &["30m"]),
        misused(opening(&["--allocate", "3"]), &["DEPLOYMENT=FUNC"]),
        misused(opening(&["--allocate", "1=1", "--spares", "2"]), &["--spares"]),
        misused(fxn(&["session", "show", "x"]), &["x"]),
        misused(embedding(&["1", "--replicas", "2"]), &["--replicas"]),
        refused(
            fxn(&["session", "open", "--model", "demo/none"]),
            &["demo/none", "`fxn model list`"],
        ),
        refused(
            opening(&["--endpoint", "chat"]),
            &["no endpoint \"chat\"", "embeddings"],
        ),
        refused(opening(&["--for", "400d"]), &["lives at most 3600 s"]),
        refused(
            opening(&["--engine-class", "somebody/2"]),
            &["no supply", "stage 0", "nothing was spent"],
        ),
        refused(
            opening(&["--requests", "1000000000", "--tokens", "256"]),
            &["FUNC at deployment 1", "backed with 50", "fewer --requests"],
        ),
        refused(opening(&["--allocate", "9=1"]), &["9"]),
        refused(opening(&["--allocate", "1=0.00001"]), &["deployment 1", "100000"]),
        refused(opening(&["--allocate", "1=200"]), &["200 FUNC", "`fxn wallet deposit"]),
        refused(as_bob(&OPEN), &["0 are available", "`fxn wallet deposit"]),
        refused(
            fxn(&["session", "show", "99"]),
            &["no session 99", "`fxn session list`"],
        ),
        refused(fxn(&["session", "topup", "99"]), &["no session 99"]),
        refused(fxn(&["session", "close", "99"]), &["no session 99"]),
        refused(as_bob(&["session", "topup", "1"]), &["session 1 belongs to wasm1"]),
        refused(
            as_bob(&["session", "close", "1"]),
            &["session 1 belongs to wasm1", "after "],
        ),
        refused(
            fxn(&["session", "topup", "1", "--requests", "1000000000", "--tokens", "256"]),
            &["more at deployment 1", "fewer --requests"],
        ),
        refused(embedding(&["99"]), &["no session 99"]),
        refused(
            embedding(&["1", "--model-version", "7"]),
            &["version 1, not for version 7"],
        ),
        refused(
            fxn(&["embed", "--model", "demo/other", &texts, "--session", "1"]),
            &["session 1 is for demo/tiny", "demo/other"],
        ),
        refused(
            embedding(&["1"]),
            &["cannot be reached", "nothing was spent", "`fxn session force 1 TEXT`"],
        ),
    ]);
    assert_eq!(market.money(), before);
    // Only where the key is can a session be used.
    fs::rename(market.path().join("sessions"), market.path().join("elsewhere")).unwrap();
    check(vec![refused(embedding(&["1"]), &["the key of session 1 is not in"])]);
    let closing = market.done(&["session", "close", "1"]);
    let why = closing["closing"][0]["why"].as_str().unwrap();
    assert!(why.contains("key is not in this home"), "{why}");
}

#[test]
fn one_request_is_forced_at_a_time_with_money_beside_the_allocation_and_the_owner_is_told_where_it_is() {
    let market = Market::with_model();
    market.done(&["keys", "new", "bob"]);
    open(&market, &["--requests", "10", "--tokens", "8"]);
    let many = market.file("many.txt", "\n".repeat(600).as_bytes());
    let none = market.file("none.txt", b"");
    let binary = market.file("binary.txt", b"a\n\xff\n");
    let long = "x".repeat(8_193);
    let fxn = |arguments: &[&str]| market.fxn(arguments);
    let force = |more: &[&str]| fxn(&[&["session", "force"], more].concat());
    let mut as_bob = force(&["1", "hello world"]);
    as_bob.env("FXN_KEY", "bob");
    let before = escrowed(&market);
    check(vec![
        misused(force(&[]), &["SESSION", "TEXT|FILE"]),
        misused(force(&["1"]), &["TEXT|FILE"]),
        misused(force(&["x", "hello"]), &["x"]),
        misused(force(&["1", "hello", "--chain", "1,two"]), &["two"]),
        refused(force(&["99", "hello"]), &["no session 99", "`fxn session list`"]),
        refused(as_bob, &["session 1 belongs to wasm1"]),
        refused(
            force(&["1", "hello", "--chain", "9"]),
            &["deployment 9 is not in session 1", "deployment 1"],
        ),
        refused(force(&["1", "hello", "--chain", "1,1"]), &["deployment 1", "stage"]),
        refused(
            force(&["1", &long]),
            &["1 text", "8193 bytes", "at most 8192", "nothing was spent"],
        ),
        refused(force(&["1", &none]), &["the input is empty"]),
        refused(force(&["1", &binary]), &["line 2 is not valid UTF-8"]),
        refused(
            force(&["1", &many]),
            &[
                "deployment 1 takes 8192 units",
                "9600",
                "ask fewer",
                "nothing was spent",
            ],
        ),
    ]);
    assert_eq!(escrowed(&market), before);

    let all = format!("{}.{:06}", before.0 / 1_000_000, before.0 % 1_000_000);
    market.done(&["wallet", "withdraw", &all]);
    check(vec![refused(
        force(&["1", "hello"]),
        &["beside what the session has", "`fxn wallet deposit", "FUNC are held"],
    )]);
    market.done(&["wallet", "deposit", &all]);

    let forced = market.done(&["session", "force", "1", "hello world", "--no-wait"]);
    assert_eq!(
        (&forced["session"], &forced["job"], &forced["deployments"]),
        (&1.into(), &1.into(), &serde_json::json!([1]))
    );
    assert!(forced.get("outcome").is_none(), "{forced}");
    // Sixteen tokens at a thousandth of a FUNC, a twentieth more for the creator, and the gas of an answer.
    let held = 16_800 + 50_000;
    assert_eq!(forced["held"], held);
    assert_eq!(escrowed(&market), (before.0 - held, before.1 + held));
    let shown = market.done(&["session", "show", "1"]);
    assert_eq!(
        (&shown["forced"]["job"], &shown["forced"]["until"]),
        (&1.into(), &forced["until"])
    );
    let output = market
        .fxn(&["session", "show", "1", "--output", "text"])
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("asked    1 on chain as job 1"), "{text}");
    check(vec![
        refused(
            force(&["1", "hello"]),
            &["job 1 of session 1 is waited for", "`fxn job watch 1`"],
        ),
        refused(fxn(&["job", "result", "1"]), &["still at work"]),
    ]);
}

#[test]
fn a_chain_that_cannot_be_named_costs_nothing() {
    let market = Market::with_model();
    let texts = market.file("texts.txt", b"hello world\n");
    let before = market.money();
    let submit = |more: &[&str]| {
        let words = ["job", "submit", "--model", MODEL, "--input", texts.as_str(), "--chain"];
        market.fxn(&[&words[..], more].concat())
    };
    let embed = |more: &[&str]| {
        let words = ["embed", "--model", MODEL, texts.as_str(), "--chain"];
        market.fxn(&[&words[..], more].concat())
    };
    let unknown = ["there is no deployment 77", "`fxn provider list`", "nothing was spent"];
    check(vec![
        misused(submit(&["one"]), &["one"]),
        misused(submit(&["1", "--replicas", "2"]), &["--replicas"]),
        misused(embed(&["1", "--replicas", "2"]), &["--replicas"]),
        misused(embed(&["1", "--session"]), &["--session"]),
        refused(submit(&["77"]), &unknown),
        refused(embed(&["1,77"]), &unknown),
        refused(submit(&["1,1"]), &["a chain names 1 to 1 deployments, found 2"]),
        refused(
            submit(&["1", "--max-price", "0.001"]),
            &["the chain asks", "0.001 may be spent", "nothing was spent"],
        ),
        refused(submit(&["1", "--engine-class", "other/1"]), &["nobody/1", "other/1"]),
        refused(embed(&["1", "--engine-class", "other/1"]), &["no supply", "stage 0"]),
        refused(submit(&["1", "--deadline", "5"]), &["seconds, at most"]),
    ]);
    assert_eq!(market.money(), before);
    assert_eq!(market.done(&["job", "list"]), Value::Array(vec![]));
    // One that can be is taken.
    let job = document(submit(&["1"]))["job"].to_string();
    let shown = market.done(&["job", "show", &job]);
    assert_eq!(shown["items"][0]["spans"][0]["deployment"], 1);
}

#[test]
fn a_stranger_releases_what_is_due() {
    let market = Market::with_model();
    market.done(&["keys", "new", "bob"]);
    let address = market.done(&["keys", "show", "bob"])["address"]
        .as_str()
        .unwrap()
        .to_owned();
    market.done(&["wallet", "send", &address, "1000000", "--gas"]);
    let before = escrowed(&market);
    open(&market, &["--for", "5s"]);
    until("the date has passed", || {
        let mut command = market.fxn(&["session", "close", "1"]);
        command.env("FXN_KEY", "bob");
        command.output().unwrap().status.success().then_some(())
    });
    assert_eq!(escrowed(&market), before);
    let list = document(market.fxn(&["session", "list"]));
    assert_eq!(list, Value::Array(vec![]));
}
