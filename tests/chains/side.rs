//! One of the two chains, and what was seen on it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    time::Duration,
};

use client::{Account, Call, Client, ClientError, Network, TxHash, TxOutcome, Wallet};
use devnet::{Config, Devnet, Running};
use fxn_tests::{
    localnet::Localnet,
    program::{fxn, root},
};
use schema::params::Params;
use serde::Serialize;
use serde_json::{json, Value};

/// Gas of a transaction that is meant to have enough.
pub(crate) const GAS: u64 = 3_000_000;
const CONFIRM: Duration = Duration::from_secs(60);
/// The embedded chain takes the real one's name, so that signatures and receipts can be the same.
const CHAIN_ID: &str = "fxn-localnet-1";
/// Everybody who pays for something in the stories.
pub(crate) const PAYERS: [&str; 8] = [
    "creator",
    "developer",
    "provider-1",
    "provider-2",
    "provider-3",
    "relayer",
    "gateway",
    "parent-creator",
];

/// Something that a chain said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Line {
    pub(crate) what: String,
    pub(crate) said: Value,
}

pub(crate) struct Side {
    pub(crate) client: Client,
    told: Vec<Line>,
    accounts: BTreeMap<String, Account>,
    before: BTreeMap<String, (u128, u128)>,
    _chain: Chain,
}

#[allow(dead_code, reason = "a chain runs as long as this is held")]
enum Chain {
    Embedded(Running),
    Real(Localnet, tempfile::TempDir),
}

impl Side {
    pub(crate) async fn embedded() -> Side {
        let params = fs::read_to_string(root().join("params/local.toml")).unwrap();
        let params: Params = toml::from_str(&slower(&params)).unwrap();
        let running = Devnet::start(Config {
            rpc: ([127, 0, 0, 1], 0).into(),
            chain_id: CHAIN_ID.into(),
            market: Some(params),
            ..Config::default()
        });
        let running = running.await.unwrap();
        let network: Network = serde_json::from_value(running.network().clone()).unwrap();
        Side::on(network, Chain::Embedded(running)).await
    }

    /// A chain of wasmd with the contracts that `fxn deploy` puts there.
    pub(crate) async fn real() -> Side {
        let (net, home) = tokio::task::spawn_blocking(|| {
            let net = Localnet::start(1);
            let home = tempfile::tempdir().unwrap();
            deploy(&net, home.path());
            (net, home)
        })
        .await
        .unwrap();
        let network = Network::load(&home.path().join("network.json")).unwrap();
        Side::on(network, Chain::Real(net, home)).await
    }

    async fn on(network: Network, chain: Chain) -> Side {
        Side {
            client: Client::connect(network).await.unwrap(),
            told: vec![],
            accounts: BTreeMap::new(),
            before: BTreeMap::new(),
            _chain: chain,
        }
    }

    pub(crate) fn told(&self) -> &[Line] {
        &self.told
    }

    /// The address of a development account.
    pub(crate) fn address(&self, name: &str) -> String {
        devnet::dev_address(name)
    }

    pub(crate) fn account(&mut self, name: &str) -> Account {
        let account = || Account::new(self.client.clone(), Wallet::dev(name));
        self.accounts.entry(name.to_owned()).or_insert_with(account).clone()
    }

    /// Notes something that was seen.
    pub(crate) fn tell(&mut self, what: &str, said: Value) {
        let what = format!("{:03} {what}", self.told.len());
        self.told.push(Line {
            what,
            said: masked(said),
        });
    }

    /// Sends a transaction that nobody tries first, and tells everything that became of it.
    pub(crate) async fn does(&mut self, what: &str, who: &str, calls: &[Call]) -> Option<TxOutcome> {
        self.does_with(what, who, calls, GAS).await
    }

    pub(crate) async fn does_with(&mut self, what: &str, who: &str, calls: &[Call], gas: u64) -> Option<TxOutcome> {
        let account = self.account(who);
        match sent(&account, calls, gas).await {
            Ok(outcome) => {
                self.tell(what, outcome_told(&outcome));
                Some(outcome)
            }
            Err(error) => {
                self.tell(what, json!({ "not taken": error.to_string() }));
                None
            }
        }
    }

    /// The same with nothing told: what it says is a matter of each chain's clock.
    pub(crate) async fn does_quietly(&mut self, who: &str, call: Call) {
        let account = self.account(who);
        let outcome = sent(&account, &[call], GAS).await.unwrap();
        outcome.into_result().unwrap();
    }

    /// What trying a transaction says, before anything is sent.
    pub(crate) async fn tries(&mut self, what: &str, who: &str, calls: &[Call]) {
        let said = match self.account(who).simulate(calls).await {
            Ok(_) => json!("would go through"),
            Err(error) => json!(error.to_string()),
        };
        self.tell(what, said);
    }

    /// Executes one message.
    pub(crate) async fn executes(&mut self, what: &str, who: &str, contract: &str, msg: Value) -> Option<TxOutcome> {
        let call = Call::execute(contract, &msg).unwrap();
        self.does(what, who, &[call]).await
    }

    /// Sends FUNC to a contract with a message.
    pub(crate) async fn sends(&mut self, what: &str, who: &str, contract: &str, amount: u128, hook: &Value) {
        let token = self.client.contracts().func_token.clone();
        let call = Call::cw20_send(token, contract, amount, hook).unwrap();
        self.does(what, who, &[call]).await;
    }

    /// Asks a contract.
    pub(crate) async fn asks(&mut self, contract: &str, question: impl Serialize) {
        let question = serde_json::to_value(question).unwrap();
        let said = match self.client.query::<Value, Value>(contract, &question).await {
            Ok(answer) => answer,
            Err(error) => json!({ "error": error.to_string() }),
        };
        self.tell(&format!("question {question}"), said);
    }

    pub(crate) async fn contracts_are_who_they_are(&mut self) {
        let contracts = self.client.contracts().clone();
        for (name, address) in contracts.by_name() {
            let address = address.to_owned();
            let info = self.client.contract_info(&address).await.unwrap();
            let version = self.client.cw2(&address).await.unwrap();
            let said = json!({
                "address": address,
                "code": info.code_id,
                "creator": info.creator,
                "admin": info.admin,
                "label": info.label,
                "is": version.contract,
            });
            self.tell(&format!("{name} is known"), said);
        }
        let nowhere = self.address("gateway");
        let error = self.client.contract_info(&nowhere).await.unwrap_err();
        self.tell("an address without a contract", json!(error.to_string()));
    }

    async fn money(&self, name: &str) -> (u128, u128) {
        let address = self.address(name);
        let func = self.client.token().balance(&address).await.unwrap();
        (self.client.balance(&address, "ustake").await.unwrap(), func)
    }

    pub(crate) async fn money_before(&mut self) {
        for name in PAYERS {
            let money = self.money(name).await;
            self.tell(
                &format!("what {name} has"),
                json!([money.0.to_string(), money.1.to_string()]),
            );
            self.before.insert(name.into(), money);
        }
    }

    /// Fees and all.
    pub(crate) async fn money_after(&mut self) {
        for name in PAYERS {
            let money = self.money(name).await;
            assert_ne!(Some(&money), self.before.get(name), "{name} did nothing");
            self.tell(
                &format!("what {name} has in the end"),
                json!([money.0.to_string(), money.1.to_string()]),
            );
        }
    }
}

/// Blocks may be late here, and evidence must not be. A slot may be kept for next to nothing, for what is paid by the second is no
/// more the same on both. Two misses jail, however long the story takes between them, and for longer than it takes to try to get out.
fn slower(params: &str) -> String {
    let with = |params: &str, name: &str, value: &str| {
        let line = params.lines().find(|line| line.starts_with(name)).unwrap();
        params.replace(line, &format!("{name} = {value}"))
    };
    let mut changed = with(params, "evidence_seconds", "8");
    for (name, value) in [
        ("reservation_per_hour_min", "\"1\""),
        ("jail_strikes", "2"),
        ("strike_window_seconds", "3600"),
        ("jail_seconds", "20"),
    ] {
        changed = with(&changed, name, value);
    }
    changed
}

fn deploy(net: &Localnet, home: &std::path::Path) {
    let run = |words: &[&str]| {
        let output = fxn(home).args(words).output().unwrap();
        assert!(
            output.status.success(),
            "{words:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    };
    let params = fs::read_to_string(root().join("params/local.toml")).unwrap();
    fs::write(home.join("params.toml"), slower(&params)).unwrap();
    let params = home.join("params.toml").display().to_string();
    run(&["keys", "import", "admin", "--dev"]);
    let out = home.join("network.json").display().to_string();
    let artifacts = root().join("artifacts").display().to_string();
    let rpc = net.rpc(0);
    let treasury = devnet::dev_address("treasury");
    run(&[
        "deploy",
        "--treasury",
        &treasury,
        "--rpc",
        &rpc,
        "--key",
        "admin",
        "--params",
        &params,
        "--profile",
        "local",
        "--artifacts",
        &artifacts,
        "--out",
        &out,
    ]);
}

async fn sent(account: &Account, calls: &[Call], gas: u64) -> Result<TxOutcome, ClientError> {
    let prepared = account.prepare_with_gas(calls, gas).await?;
    let hash: TxHash = account.broadcast(prepared).await?;
    // Not `Account::confirm`: a transaction that failed in a block is what we came for.
    account.client().confirm(hash, CONFIRM).await
}

fn outcome_told(outcome: &TxOutcome) -> Value {
    // What a node keeps of a failed transaction is its fee.
    let events: Vec<Value> = outcome
        .events
        .iter()
        .map(|event| {
            let attributes = event.attributes.iter().map(|attribute| {
                let value = match (event.ty.as_str(), attribute.key.as_str()) {
                    ("tx", "signature") => "<signature>",
                    _ => attribute.value.as_str(),
                };
                format!("{} = {value}", attribute.key)
            });
            json!([event.ty, attributes.collect::<Vec<_>>()])
        })
        .collect();
    json!({
        "code": outcome.code,
        "codespace": outcome.codespace,
        "log": outcome.log,
        "gas wanted": outcome.gas_wanted,
        "events": events,
        "data": hex::encode(&outcome.data),
    })
}

/// Fields of answers that are heights, or a round, which is a time in other words.
const HEIGHTS: [&str; 3] = ["height", "assigned_height", "redraw_round"];

/// Seconds and nanoseconds of our time, heights, rounds and seeds of draws, and gas that was used.
fn masked(said: Value) -> Value {
    match said {
        Value::Object(fields) => {
            let hidden: BTreeSet<&str> = HEIGHTS.into_iter().collect();
            let fields =
                fields.into_iter().map(
                    |(name, value)| match hidden.contains(name.as_str()) && !value.is_null() {
                        true => (name, json!("<height>")),
                        false => (name, masked(value)),
                    },
                );
            Value::Object(fields.collect())
        }
        Value::Array(values) => values.into_iter().map(masked).collect(),
        Value::Number(number) => match number.as_u64() {
            Some(number) if is_time(number) => json!("<time>"),
            _ => Value::Number(number),
        },
        Value::String(text) => Value::String(masked_text(&text)),
        other => other,
    }
}

/// From an hour ago to a month from now, in seconds or nanoseconds: amounts are not taken for times.
fn is_time(number: u64) -> bool {
    let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs();
    let near = now - 3_600..now + 30 * 86_400;
    near.contains(&number) || near.contains(&(number / 1_000_000_000))
}

fn masked_text(text: &str) -> String {
    // A round is a time in other words, and a seed is made of one or of a block.
    for name in ["round = ", "seed = "] {
        if text.starts_with(name) {
            return format!("{name}<by the clock>");
        }
    }
    // Only the real chain meters what it does; the embedded one estimates.
    if let Some((_, meter)) = text.split_once("out of gas in location: ") {
        let gas = meter.split_once("; ").map_or(meter, |(_, gas)| gas);
        return masked_text(&format!("out of gas: {gas}"));
    }
    let mut masked = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(|letter: char| letter.is_ascii_digit()) {
        let (before, from) = rest.split_at(at);
        let digits = from.len() - from.trim_start_matches(|letter: char| letter.is_ascii_digit()).len();
        let (number, after) = from.split_at(digits);
        let is_gas = ["gasUsed: ", "gas used: '", "gas_used="]
            .iter()
            .any(|words| before.ends_with(words));
        let is_word = before.ends_with(|letter: char| letter.is_ascii_alphanumeric())
            || after.starts_with(|letter: char| letter.is_ascii_alphanumeric());
        masked.push_str(before);
        match number.parse() {
            _ if is_gas => masked.push_str("<gas>"),
            Ok(number) if !is_word && is_time(number) => masked.push_str("<time>"),
            _ => masked.push_str(number),
        }
        rest = after;
    }
    masked + rest
}

#[test]
fn only_clocks_and_gas_are_masked() {
    let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs();
    let text = format!("hold until {now}, {now} of wasm{now}x, out of gas: gasUsed: 77, amount 5");
    let expected = format!("hold until <time>, <time> of wasm{now}x, out of gas: gasUsed: <gas>, amount 5");
    assert_eq!(masked_text(&text), expected);
    assert_eq!(masked_text("round = 45434545"), "round = <by the clock>");
    assert_eq!(masked_text("rounds = 45434545"), "rounds = 45434545");
    let expected = json!({ "height": "<height>", "redraw_round": null, "n": ["<time>", 7] });
    assert_eq!(
        masked(json!({ "height": 5, "redraw_round": null, "n": [now, 7] })),
        expected
    );
}
