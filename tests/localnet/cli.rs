//! The chain's own command line, `wasmd query` and `wasmd tx`, against both chains with the same expectations: whatever the embedded chain does
//! not answer as it wants it would be found here.

use std::{
    path::PathBuf,
    process::{Command, Output},
};

use client::{Contracts, Wallet};
use cosmwasm_std::Binary;
use devnet::{dev_address, FAUCET};
use fxn_tests::{
    deployer::Deployer,
    localnet::Localnet,
    program::{clean, root},
};
use serde_json::{json, Value};
use tempfile::TempDir;

use crate::deploy::artifacts;

/// Who acts; has done nothing on a new chain.
const ACTOR: &str = "gateway";
/// Coins of every development account, and FUNC in ufunc.
const MONEY: &str = "1000000000000";
const NOBODYS_HASH: &str = "AB12000000000000000000000000000000000000000000000000000000000000";

/// `wasmd` with a home of its own and a node to ask.
struct Cli {
    wasmd: PathBuf,
    home: TempDir,
    node: String,
    chain_id: String,
}

impl Cli {
    fn of(rpc: &str, chain_id: &str) -> Cli {
        let told = clean(Command::new(root().join("scripts/wasmd.sh"))).output().unwrap();
        let path = String::from_utf8(told.stdout).unwrap();
        let cli = Cli {
            wasmd: path.trim().into(),
            home: TempDir::new().unwrap(),
            node: rpc.replace("http://", "tcp://"),
            chain_id: chain_id.to_owned(),
        };
        let secret = hex::encode(Wallet::dev(ACTOR).secret().as_slice());
        let imported = cli.command(&["keys", "import-hex", ACTOR, &secret, "--keyring-backend", "test"]);
        assert!(imported.status.success(), "{imported:?}");
        cli
    }

    fn command(&self, words: &[&str]) -> Output {
        let mut command = Command::new(&self.wasmd);
        command
            .args(words)
            .arg("--home")
            .arg(self.home.path())
            .output()
            .unwrap()
    }

    fn asked(&self, words: &[&str]) -> Output {
        self.command(&[words, &["--node", &self.node, "--output", "json"]].concat())
    }

    /// The one JSON document of a command that succeeds.
    fn says(&self, words: &[&str]) -> Value {
        let output = self.asked(words);
        let refused = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success(),
            "{} on {}: {refused}",
            words.join(" "),
            self.chain_id
        );
        serde_json::from_slice(&output.stdout).expect("stdout is one JSON document")
    }

    /// A command that has to be refused in these words.
    fn refuses(&self, words: &[&str], expected: &str) {
        let output = self.asked(words);
        let refused = String::from_utf8_lossy(&output.stderr);
        let is_refused = !output.status.success() && refused.contains(expected);
        assert!(
            is_refused,
            "{} on {}: {refused}, not {expected:?}",
            words.join(" "),
            self.chain_id
        );
    }

    fn smart(&self, contract: &str, question: &Value) -> Value {
        let question = question.to_string();
        self.says(&["query", "wasm", "contract-state", "smart", contract, &question])["data"].take()
    }

    fn signed<'a>(&'a self, words: &[&'a str]) -> Vec<&'a str> {
        let signing = [
            "--from",
            ACTOR,
            "--keyring-backend",
            "test",
            "--chain-id",
            &self.chain_id,
            "--gas",
            "auto",
            "--gas-adjustment",
            "1.4",
            "--gas-prices",
            "0.025ustake",
            "--yes",
        ];
        [words, &signing].concat()
    }

    /// Signs, sends, waits for the block; the transaction as it is found afterwards by its hash.
    fn does(&self, words: &[&str]) -> Value {
        let sent = self.says(&self.signed(words));
        assert_eq!(sent["code"], 0, "{sent}");
        let hash = sent["txhash"].as_str().unwrap();
        let waited = self.says(&["query", "wait-tx", hash, "--timeout", "60s"]);
        assert_eq!((&waited["txhash"], &waited["code"]), (&sent["txhash"], &0.into()));
        let found = self.says(&["query", "tx", hash]);
        assert_eq!(
            (&found["code"], &found["height"], &found["events"]),
            (&0.into(), &waited["height"], &waited["events"])
        );
        found
    }
}

/// Values of an attribute in the events of a type, in order.
fn told<'a>(tx: &'a Value, event: &str, key: &str) -> Vec<&'a str> {
    let events = tx["events"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|found| found["type"] == event);
    let attributes = events.flat_map(|found| found["attributes"].as_array().unwrap());
    let values = attributes.filter(|attribute| attribute["key"] == key);
    values.map(|attribute| attribute["value"].as_str().unwrap()).collect()
}

fn the_chain_is_read(cli: &Cli) {
    let status = cli.says(&["status"]);
    assert_eq!(status["node_info"]["network"], cli.chain_id.as_str());
    let height: u64 = status["sync_info"]["latest_block_height"]
        .as_str()
        .unwrap()
        .parse()
        .unwrap();
    assert!(height >= 1);
    let block = cli.says(&["query", "block", "--type=height", "1"]);
    assert_eq!(
        (&block["header"]["chain_id"], &block["header"]["height"]),
        (&cli.chain_id.as_str().into(), &"1".into())
    );
    let results = cli.says(&["query", "block-results", "1"]);
    assert_eq!(results["height"], 1);
    let params = cli.says(&["query", "consensus", "params"]);
    assert_eq!(params["params"]["validator"]["pub_key_types"], json!(["ed25519"]));
    assert!(params["params"]["block"]["max_gas"].is_string());
    let params = cli.says(&["query", "auth", "params"]);
    assert_eq!(params["params"]["max_memo_characters"], "256");
    cli.refuses(&["query", "tx", NOBODYS_HASH], "not found");
}

fn accounts_are_read(cli: &Cli) {
    let address = dev_address(ACTOR);
    let coins = json!([{ "denom": "ustake", "amount": MONEY }]);
    assert_eq!(cli.says(&["query", "bank", "balances", &address])["balances"], coins);
    assert_eq!(
        cli.says(&["query", "bank", "spendable-balances", &address])["balances"],
        coins
    );
    let balance = cli.says(&["query", "bank", "balance", &address, "ustake"]);
    assert_eq!(balance["balance"], coins[0]);
    let none = cli.says(&["query", "bank", "balance", &address, "unothing"]);
    assert_eq!(none["balance"]["amount"], "0");
    let supply = cli.says(&["query", "bank", "total-supply-of", "ustake"])["amount"]["amount"].take();
    assert!(supply.as_str().unwrap().parse::<u128>().unwrap() > 10 * MONEY.parse::<u128>().unwrap());
    assert_eq!(cli.says(&["query", "bank", "total"])["supply"][0]["denom"], "ustake");
    let account = cli.says(&["query", "auth", "account", &address])["account"].take();
    assert_eq!(account["value"], json!({ "address": address, "account_number": "6" }));
    assert_eq!(
        cli.says(&["query", "auth", "account-info", &address])["info"]["account_number"],
        "6"
    );
    assert_eq!(
        cli.says(&["query", "auth", "address-by-acc-num", "6"])["account_address"],
        address
    );
    cli.refuses(
        &["query", "auth", "account", &Wallet::random().address("wasm")],
        "not found",
    );
    cli.refuses(&["query", "auth", "address-by-acc-num", "99999"], "not found");
}

fn contracts_are_read(cli: &Cli, contracts: &Contracts) {
    let codes = cli.says(&["query", "wasm", "list-code"])["code_infos"].take();
    let codes = codes.as_array().unwrap();
    for ((number, code), (name, address)) in (1..).zip(codes).zip(contracts.by_name()) {
        let number = number.to_string();
        let info = cli.says(&["query", "wasm", "code-info", &number]);
        assert_eq!(
            (&info["code_id"], &info["checksum"]),
            (&code["code_id"], &code["data_hash"])
        );
        assert_eq!(info["instantiate_permission"]["permission"], "Everybody");
        let listed = cli.says(&["query", "wasm", "list-contract-by-code", &number]);
        assert_eq!(listed["contracts"], json!([address]));
        let contract = cli.says(&["query", "wasm", "contract", address])["contract_info"].take();
        assert_eq!(
            (&contract["code_id"], &contract["label"]),
            (&number.as_str().into(), &name.into())
        );
        let created = cli.says(&[
            "query",
            "wasm",
            "list-contracts-by-creator",
            contract["creator"].as_str().unwrap(),
        ]);
        assert!(created["contract_addresses"]
            .as_array()
            .unwrap()
            .contains(&address.into()));
        let raw = cli.says(&[
            "query",
            "wasm",
            "contract-state",
            "raw",
            address,
            &hex::encode("contract_info"),
        ]);
        let recorded = Binary::from_base64(raw["data"].as_str().unwrap()).unwrap();
        let recorded: Value = serde_json::from_slice(&recorded).unwrap();
        assert_eq!(recorded["contract"], name);
        let question = if name == "func-token" { "token_info" } else { "config" };
        assert!(cli.smart(address, &json!({ question: {} })).is_object());
    }
    let token = &contracts.func_token;
    assert_eq!(codes.len(), contracts.by_name().len());
    assert_eq!(cli.smart(token, &json!({ "token_info": {} }))["symbol"], "FUNC");
    let all = cli.says(&["query", "wasm", "contract-state", "all", token, "--limit", "1"]);
    assert_eq!(all["models"].as_array().unwrap().len(), 1);
    assert!(all["pagination"]["next_key"].is_string());
    assert_eq!(cli.says(&["query", "wasm", "pinned"])["code_ids"], json!([]));
    let params = cli.says(&["query", "wasm", "params"]);
    assert_eq!(params["instantiate_default_permission"], "Everybody");
    let smart = ["query", "wasm", "contract-state", "smart", token, r#"{"dance":{}}"#];
    cli.refuses(&smart, "unknown variant `dance`, expected one of `balance`");
    cli.refuses(&["query", "wasm", "contract", &dev_address(ACTOR)], "no such contract");
    cli.refuses(&["query", "wasm", "code-info", "99"], "code id 99: no such code");
}

fn transactions_are_sent_and_found(cli: &Cli, contracts: &Contracts) {
    let (token, escrow, actor) = (&contracts.func_token, &contracts.royalty_escrow, dev_address(ACTOR));
    let friend = Wallet::random().address("wasm");
    let execute = |msg: Value| {
        [
            "tx".to_owned(),
            "wasm".into(),
            "execute".into(),
            token.clone(),
            msg.to_string(),
        ]
    };
    let transfer = execute(json!({ "transfer": { "recipient": friend, "amount": "5" } }));
    let tx = cli.does(&transfer.each_ref().map(String::as_str));
    assert_eq!(told(&tx, "wasm", "action"), ["transfer"]);
    assert_eq!(told(&tx, "wasm", "amount"), ["5"]);
    assert_eq!(tx["tx"]["body"]["messages"][0]["msg"]["transfer"]["recipient"], friend);
    assert_eq!(
        cli.smart(token, &json!({ "balance": { "address": friend } }))["balance"],
        "5"
    );

    let deposit = Binary::from(br#"{"deposit":{"beneficiary":null}}"#);
    let deposit = execute(json!({ "send": { "contract": escrow, "amount": "7", "msg": deposit } }));
    let tx = cli.does(&deposit.each_ref().map(String::as_str));
    assert_eq!(told(&tx, "wasm", "action"), ["send"]);
    assert_eq!(told(&tx, "wasm-credited", "reason"), ["deposit"]);
    assert_eq!(told(&tx, "wasm-credited", "holder"), [actor.as_str()]);
    let money = cli.smart(escrow, &json!({ "money": { "holder": actor } }));
    assert_eq!(money["available"], "7");

    let query = format!("wasm-credited.holder='{actor}' AND tx.height>1");
    let found = cli.says(&["query", "txs", "--query", &query]);
    assert_eq!(
        (&found["total_count"], &found["txs"][0]["txhash"]),
        (&"1".into(), &tx["txhash"])
    );

    let tx = cli.does(&["tx", "bank", "send", &actor, &friend, "3ustake"]);
    assert!(told(&tx, "transfer", "recipient").contains(&friend.as_str()));
    assert_eq!(
        cli.says(&["query", "bank", "balance", &friend, "ustake"])["balance"]["amount"],
        "3"
    );

    let much = execute(json!({ "transfer": { "recipient": friend, "amount": "9999999999999999" } }));
    let much = much.each_ref().map(String::as_str);
    cli.refuses(&cli.signed(&much), "has 999999999988 ufunc, 9999999999999999 are");
    let account = cli.says(&["query", "auth", "account-info", &actor])["info"].take();
    assert_eq!(account["sequence"], "3", "what was refused was not sent");
}

fn both_expectations(cli: &Cli, contracts: &Contracts) {
    the_chain_is_read(cli);
    accounts_are_read(cli);
    contracts_are_read(cli, contracts);
    transactions_are_sent_and_found(cli, contracts);
}

fn real() {
    let net = Localnet::start(1);
    let deployer = Deployer::named(FAUCET);
    deployer.deploys(&net.rpc(0), &artifacts(), &[]);
    let network = client::Network::load(&deployer.out()).unwrap();
    let cli = Cli::of(&net.rpc(0), &network.chain_id);
    both_expectations(&cli, &network.contracts);
}

fn embedded() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let market = toml::from_str(include_str!("../../params/local.toml")).unwrap();
    let config = devnet::Config {
        rpc: ([127, 0, 0, 1], 0).into(),
        market: Some(market),
        ..devnet::Config::default()
    };
    let running = runtime.block_on(devnet::Devnet::start(config)).unwrap();
    let network: client::Network = serde_json::from_value(running.network().clone()).unwrap();
    let cli = Cli::of(&network.rpc, &network.chain_id);
    both_expectations(&cli, &network.contracts);
    // Contracts are compiled into it, and it says so.
    let module = artifacts().join("func_token.wasm").display().to_string();
    let store = ["tx", "wasm", "store", &module];
    cli.refuses(&cli.signed(&store), "contracts are compiled into this chain");
    runtime.block_on(running.shutdown());
}

#[test]
fn the_chains_own_command_line_serves_both_chains() {
    // A scope waits for both, however one ends: a chain is stopped by whoever started it.
    std::thread::scope(|scope| {
        scope.spawn(real);
        embedded();
    });
}
