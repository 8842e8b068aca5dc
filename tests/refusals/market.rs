//! A devnet with money on it, and mistakes that concern money, models, providers and jobs.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use serde_json::Value;

use crate::{
    bundle,
    programs::{document, fxn},
    table::{check, misused, refused},
};

pub(crate) const MODEL: &str = "demo/tiny";

/// An address that nobody uses.
pub(crate) fn stranger() -> String {
    client::Wallet::dev("stranger").address("wasm")
}

/// A service that runs beside a test; it stops with it, even if the test is killed.
#[derive(Debug)]
pub(crate) struct Service {
    child: Child,
    /// The first line of its stdout.
    pub(crate) told: String,
}

impl Service {
    /// Starts it and waits until it has told something.
    pub(crate) fn start(mut command: Command) -> Self {
        command.env("FXN_STOP_WITH_STDIN", "1");
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut told = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut told)
            .unwrap();
        assert!(!told.is_empty(), "the service has ended: {:?}", child.wait());
        Self { child, told }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A devnet, and alice who has 1000 FUNC and gas.
#[derive(Debug)]
pub(crate) struct Market {
    pub(crate) home: tempfile::TempDir,
    pub(crate) rpc: String,
    services: Vec<Service>,
}

impl Market {
    pub(crate) fn open() -> Self {
        let home = tempfile::tempdir().unwrap();
        let mut command = fxn(home.path());
        command.args([
            "devnet",
            "--rpc",
            "127.0.0.1:0",
            "--block-time",
            "100ms",
            "--output",
            "json",
        ]);
        let devnet = Service::start(command);
        let told: Value = serde_json::from_str(&devnet.told).unwrap();
        let market = Self {
            rpc: told["rpc"].as_str().unwrap().to_owned(),
            home,
            services: vec![devnet],
        };
        market.done(&["keys", "new", "alice"]);
        market.done(&["wallet", "faucet", "1000"]);
        market
    }

    /// The same with a model that alice serves, or says she does: no host is there.
    pub(crate) fn with_model() -> Self {
        let mut market = Self::open();
        let folder = market.bundle();
        let mut command = fxn(market.home.path());
        command
            .args(["model", "serve", "--listen", "127.0.0.1:0", "--output", "json"])
            .arg(&folder);
        let blobs = Service::start(command);
        let told: Value = serde_json::from_str(&blobs.told).unwrap();
        market.services.push(blobs);
        let publish = [
            "model",
            "publish",
            "--model",
            MODEL,
            "--royalty-bps",
            "500",
            "--yes",
            "--uri",
        ];
        let (folder, url) = (folder.display().to_string(), told["url"].as_str().unwrap().to_owned());
        market.done(&[&publish[..], &[&url, &folder]].concat());
        let register = [
            "provider",
            "register",
            "--name",
            "alice",
            "--endpoint",
            "http://127.0.0.1:1",
        ];
        market.done(&[&register[..], &["--host-key-name", "alice"]].concat());
        market.done(&["provider", "bond", "300"]);
        market.done(&[&deploy()[..], &["--slots", "4"]].concat());
        market.done(&["wallet", "deposit", "100"]);
        market
    }

    pub(crate) fn bundle(&self) -> PathBuf {
        let folder = self.home.path().join("bundle");
        if !folder.exists() {
            bundle::write(&folder);
        }
        folder
    }

    /// A command in alice's name.
    pub(crate) fn fxn(&self, arguments: &[&str]) -> Command {
        let mut command = fxn(self.home.path());
        command.args(arguments).env("FXN_KEY", "alice");
        command
    }

    /// A command that must succeed.
    pub(crate) fn done(&self, arguments: &[&str]) -> Value {
        document(self.fxn(arguments))
    }

    /// A file in the home.
    pub(crate) fn file(&self, name: &str, content: &[u8]) -> String {
        let path = self.home.path().join(name);
        fs::write(&path, content).unwrap();
        path.display().to_string()
    }

    /// The network file with a change, under another name.
    pub(crate) fn network(&self, name: &str, change: impl FnOnce(&mut Value)) -> String {
        let mut network = self.network_file();
        change(&mut network);
        self.file(name, network.to_string().as_bytes())
    }

    pub(crate) fn network_file(&self) -> Value {
        serde_json::from_slice(&fs::read(self.home.path().join("network.json")).unwrap()).unwrap()
    }

    pub(crate) fn money(&self) -> Value {
        self.done(&["wallet", "money"])
    }

    pub(crate) fn path(&self) -> &Path {
        self.home.path()
    }
}

/// Offers the model with an engine class that no machine has.
pub(crate) fn deploy() -> [&'static str; 12] {
    [
        "provider",
        "deploy",
        "--model",
        MODEL,
        "--stages",
        "0",
        "--ask",
        "per_1k_in=1",
        "--sla",
        "base=30,rate=10,units=8192,penalty=2000",
        "--engine-class",
        "nobody/1",
    ]
}

/// The words with one of them changed.
fn with<'a>(words: &[&'a str], old: &str, new: &'a str) -> Vec<&'a str> {
    assert!(words.contains(&old), "{old}");
    words
        .iter()
        .map(|word| if *word == old { new } else { *word })
        .collect()
}

#[test]
fn wrong_amounts_and_addresses_cost_nothing() {
    let market = Market::open();
    let fxn = |arguments: &[&str]| market.fxn(arguments);
    let before = market.money();
    let (digits, stranger) = ("1".repeat(40), stranger());
    let mut mistakes = vec![];
    for bad in ["1.0000001", "-1", "1e9", "∞", &digits, "", "1,5", "0x10", "NaN"] {
        mistakes.push(misused(
            fxn(&["wallet", "deposit", bad]),
            &["no amount of FUNC", "12.5FUNC"],
        ));
        mistakes.push(misused(fxn(&["provider", "bond", bad]), &["no amount of FUNC"]));
        mistakes.push(refused(
            fxn(&["wallet", "send", &stranger, bad]),
            &["no amount of FUNC"],
        ));
    }
    let other = if stranger.ends_with('q') { "p" } else { "q" };
    let typo = format!("{}{other}", &stranger[..stranger.len() - 1]);
    let foreign = stranger.replace("wasm1", "cosmos1");
    let long = "wasm1".repeat(1000);
    for (address, says) in [
        (typo.as_str(), "a letter is wrong"),
        (&foreign, "begin with wasm1"),
        ("", "begin with wasm1"),
        ("wasm1\u{1b}[31m\nx", "a letter is wrong"),
        (&long, "a letter is wrong"),
    ] {
        mistakes.push(refused(fxn(&["wallet", "send", address, "1"]), &[says]));
        mistakes.push(refused(fxn(&["wallet", "money", address]), &[says]));
        mistakes.push(refused(
            fxn(&["wallet", "deposit", "1", "--beneficiary", address]),
            &[says],
        ));
        mistakes.push(refused(fxn(&["provider", "show", address]), &[says]));
    }
    mistakes.extend([
        refused(fxn(&["wallet", "deposit", "0"]), &["the amount is zero"]),
        refused(fxn(&["wallet", "send", &stranger, "0"]), &["the amount is zero"]),
        refused(
            fxn(&["wallet", "send", &stranger, "0", "--gas"]),
            &["the amount is zero"],
        ),
        refused(
            fxn(&["wallet", "send", &stranger, "1.5", "--gas"]),
            &["no whole number of ustake"],
        ),
        refused(
            fxn(&["wallet", "send", &stranger, "2000"]),
            &["1000 FUNC", "2000 are needed", "faucet"],
        ),
        refused(
            fxn(&["wallet", "send", &stranger, &digits, "--gas"]),
            &["no whole number of ustake"],
        ),
        refused(
            fxn(&["wallet", "send", &stranger, "99999999999999", "--gas"]),
            &["spendable balance", "ustake"],
        ),
        refused(
            fxn(&["wallet", "deposit", "1000.000001"]),
            &["1000 FUNC", "1000.000001 are needed"],
        ),
        refused(
            fxn(&["wallet", "withdraw", "5"]),
            &["0 FUNC are available", "5 cannot be withdrawn"],
        ),
        refused(fxn(&["wallet", "withdraw"]), &["nothing is available"]),
        refused(fxn(&["wallet", "money", "model:nonsense"]), &["nonsense"]),
        refused(
            fxn(&["provider", "bond", "5"]),
            &["is not a provider", "`fxn provider register`"],
        ),
        refused(fxn(&["provider", "unbond", "5"]), &["is not a provider"]),
        refused(fxn(&["provider", "withdraw"]), &["is not a provider"]),
        refused(fxn(&["provider", "show"]), &["is not a provider"]),
        refused(fxn(&deploy()), &["is not a provider"]),
    ]);
    check(mistakes);
    assert_eq!(market.money(), before);
}

#[test]
fn an_account_without_gas_or_func_is_told_where_to_get_some() {
    let market = Market::open();
    market.done(&["keys", "new", "poor"]);
    let poor = |arguments: &[&str]| {
        let mut command = market.fxn(arguments);
        command.env("FXN_KEY", "poor");
        command
    };
    let address = market.done(&["keys", "show", "poor"])["address"]
        .as_str()
        .unwrap()
        .to_owned();
    check(vec![
        refused(
            poor(&["wallet", "send", &stranger(), "5", "--gas"]),
            &["must receive gas coin first", "faucet"],
        ),
        refused(poor(&["wallet", "deposit", "1"]), &["0 FUNC", "1 are needed", "faucet"]),
    ]);
    market.done(&["wallet", "send", &address, "10"]);
    check(vec![refused(
        poor(&["wallet", "deposit", "1"]),
        &["must receive gas coin first", "faucet"],
    )]);
    // The smallest coin there is: the account exists and cannot pay for anything.
    market.done(&["wallet", "send", &address, "1", "--gas"]);
    check(vec![refused(poor(&["wallet", "deposit", "1"]), &["ustake"])]);
}

#[test]
fn what_does_not_exist_or_cannot_be_is_refused_by_name() {
    let market = Market::with_model();
    let fxn = |arguments: &[&str]| market.fxn(arguments);
    let texts = market.file("texts.txt", b"hello world\nagain\n");
    let before = market.money();
    let embed = ["embed", "--model", MODEL, texts.as_str()];
    let submit = ["job", "submit", "--model", MODEL, "--input", texts.as_str()];
    let extended = |words: &[&str], more: &[&str]| fxn(&[words, more].concat());
    let offer = deploy();
    let register = [
        "provider",
        "register",
        "--endpoint",
        "http://127.0.0.1:1",
        "--host-key-name",
        "alice",
        "--name",
    ];
    let long = "a".repeat(5000);
    let mut mistakes = vec![];
    for order in [&embed[..], &submit[..]] {
        mistakes.extend([
            refused(
                fxn(&with(order, MODEL, "demo/none")),
                &["there is no model demo/none", "`fxn model list`"],
            ),
            refused(
                extended(order, &["--endpoint", "chat"]),
                &["no endpoint \"chat\"", "it has embeddings"],
            ),
            refused(
                extended(order, &["--model-version", "9"]),
                &["no version 9", "newest is 1"],
            ),
            refused(extended(order, &["--model-version", "0"]), &["no version 0"]),
            refused(
                extended(order, &["--max-price", "0.000001"]),
                &["--max-price allows 0.000001", "nothing was spent"],
            ),
            refused(
                extended(order, &["--deadline", "1"]),
                &["1 s", "--deadline", "nothing was spent"],
            ),
            refused(extended(order, &["--deadline", "0"]), &["0 s", "nothing was spent"]),
            refused(
                extended(order, &["--engine-class", "other/2"]),
                &["0 providers serve stage 0"],
            ),
            refused(
                extended(order, &["--replicas", "2"]),
                &["1 providers serve stage 0", "2 needed"],
            ),
            misused(extended(order, &["--replicas", "9"]), &["9"]),
            misused(extended(order, &["--deadline", "-1"]), &["-1"]),
            misused(fxn(&with(order, MODEL, "no-slash")), &["no-slash"]),
            misused(fxn(&with(order, MODEL, &long)), &["error"]),
        ]);
    }
    for number in ["99", "18446744073709551615"] {
        for verb in ["show", "watch", "result"] {
            mistakes.push(refused(
                fxn(&["job", verb, number]),
                &[&format!("there is no job {number}")],
            ));
        }
    }
    mistakes.extend([
        misused(fxn(&["job", "show", "seven"]), &["seven"]),
        refused(fxn(&["model", "show", "demo/none"]), &["there is no model demo/none"]),
        refused(fxn(&["provider", "drain", "99"]), &["there is no deployment 99"]),
        refused(fxn(&["provider", "unbond", "5000"]), &["5000000000 ufunc asked for"]),
        refused(fxn(&["provider", "bond", "5000"]), &["5000 are needed"]),
        refused(fxn(&with(&offer, "0", "0..9")), &["has 1 stages", "no stage 9"]),
        refused(fxn(&with(&offer, MODEL, "demo/none")), &["there is no model demo/none"]),
        refused(extended(&offer, &["--model-version", "7"]), &["no version 7"]),
        refused(
            fxn(&with(&offer, "nobody/1", "a\nb")),
            &["engine_class contains a control character"],
        ),
        refused(
            fxn(&with(&offer, "nobody/1", &long)),
            &["engine_class is 5000 bytes long"],
        ),
        refused(extended(&offer, &["--slots", "1000"]), &["ufunc of bond"]),
        refused(
            fxn(&with(&offer, offer[9], "base=9999999999,rate=1,units=8,penalty=2000")),
            &["base_seconds is 9999999999"],
        ),
        refused(
            fxn(&with(&offer, offer[9], "base=1,rate=1,units=0,penalty=2000")),
            &["units_max is 0"],
        ),
        misused(fxn(&with(&offer, offer[9], "base=1")), &["is missing"]),
        misused(fxn(&with(&offer, offer[7], "per_1k_in=-1")), &["no amount of FUNC"]),
        misused(fxn(&with(&offer, "0", "2..1")), &["FIRST..LAST"]),
        refused(extended(&register, &["a\nb"]), &["name contains a control character"]),
        refused(extended(&register, &[&long]), &["name is 5000 bytes long"]),
        refused(
            fxn(&[&with(&register, "http://127.0.0.1:1", "nonsense")[..], &["a"]].concat()),
            &["http:// or https:// URL"],
        ),
        refused(
            extended(&register, &["a", "--operator", "wasm1x"]),
            &["a letter is wrong"],
        ),
        refused(fxn(&["model", "retire", MODEL]), &["say --yes"]),
        refused(
            fxn(&[
                "model",
                "publish",
                "--model",
                MODEL,
                "--uri",
                "nonsense",
                &market.bundle().display().to_string(),
            ]),
            &["no place to fetch a bundle"],
        ),
        refused(
            fxn(&["model", "publish", "--model", MODEL, "/nonexistent"]),
            &["is no bundle"],
        ),
    ]);
    check(mistakes);
    assert_eq!(market.money(), before);
    assert_eq!(market.done(&["job", "list"]), Value::Array(vec![]));
}
