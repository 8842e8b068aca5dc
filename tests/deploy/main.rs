//! `fxn deploy` against the embedded chain: the real program, real signatures, and contracts that the chain knows by the checksums of the
//! artifacts. What only wasmd can show (storing code, migrating it) stands in `tests/localnet`.

#![allow(clippy::unwrap_used, reason = "what cannot be unwrapped fails its story")]
#![allow(clippy::arithmetic_side_effects, reason = "sums of a test's own numbers")]

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use client::{Contracts, Wallet};
use cosmwasm_std::Checksum;
use cw_multi_test::ContractWrapper;
use devnet::{Code, Config, Devnet, Running};
use fxn_tests::deployer::Deployer;
use schema::{Digest, UFUNC};
use tempfile::TempDir;
use tokio::runtime::Runtime;

const NAMES: [&str; 6] = [
    "func_token",
    "model_registry",
    "provider_staking",
    "royalty_escrow",
    "randomness_beacon",
    "job_orchestrator",
];

/// Stands for the module of a contract.
fn module(name: &str) -> Vec<u8> {
    format!("\0asm {name}").into_bytes()
}

macro_rules! code {
    ($name:ident $(.$with:ident($entry:ident))*) => {
        || {
            use $name::contract::*;
            let code = ContractWrapper::new(execute, instantiate, query)$(.$with($entry))*;
            Box::new(code.with_checksum(Checksum::generate(&module(stringify!($name)))))
        }
    };
}

fn codes() -> Vec<Code> {
    vec![
        code!(func_token),
        code!(model_registry.with_migrate(migrate)),
        code!(provider_staking.with_migrate(migrate)),
        code!(royalty_escrow.with_reply(reply)),
        code!(randomness_beacon),
        code!(job_orchestrator.with_reply(reply).with_migrate(migrate)),
    ]
}

/// A chain without contracts, and the artifacts of what it can run.
struct Place {
    runtime: Runtime,
    running: Option<Running>,
    artifacts: TempDir,
}

impl Place {
    fn with(codes: Vec<Code>) -> Self {
        let runtime = Runtime::new().unwrap();
        let config = Config {
            rpc: ([127, 0, 0, 1], 0).into(),
            block_time: Duration::from_millis(40),
            codes,
            ..Config::default()
        };
        let running = runtime.block_on(Devnet::start(config)).unwrap();
        let artifacts = tempfile::tempdir().unwrap();
        let mut list = String::new();
        for name in NAMES {
            let module = module(name);
            fs::write(artifacts.path().join(format!("{name}.wasm")), &module).unwrap();
            list.push_str(&format!("{}  {name}.wasm\n", Digest::of(&module)));
        }
        fs::write(artifacts.path().join("checksums.txt"), list).unwrap();
        Self {
            runtime,
            running: Some(running),
            artifacts,
        }
    }

    fn new() -> Self {
        Self::with(codes())
    }

    fn rpc(&self) -> String {
        self.running.as_ref().unwrap().rpc_url()
    }

    fn artifacts(&self) -> &Path {
        self.artifacts.path()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(running) = self.running.take() {
            self.runtime.block_on(running.shutdown());
        }
    }
}

/// Where a devnet that deploys by itself has them.
fn usual_contracts(runtime: &Runtime) -> Contracts {
    let market = toml::from_str(include_str!("../../params/local.toml")).unwrap();
    let config = Config {
        rpc: ([127, 0, 0, 1], 0).into(),
        market: Some(market),
        ..Config::default()
    };
    let running = runtime.block_on(Devnet::start(config)).unwrap();
    let contracts = running.network()["contracts"].clone();
    runtime.block_on(running.shutdown());
    serde_json::from_value(contracts).unwrap()
}

#[test]
fn everything_is_deployed_verified_and_where_the_embedded_chain_has_it_and_a_second_run_sends_nothing() {
    let place = Place::new();
    let deployer = Deployer::named("faucet");
    let told = deployer.deploys(&place.rpc(), place.artifacts(), &["--chain-id", "fxn-devnet-1"]);
    assert_eq!(
        (&told["transactions"], told["contracts"].as_array().unwrap().len()),
        (&7.into(), 6)
    );
    assert!(!deployer.journal().exists());
    let expected = usual_contracts(&place.runtime);
    place.runtime.block_on(async {
        let client = deployer.client().await;
        assert_eq!(*client.contracts(), expected);
        client.check_contracts().await.unwrap();
        for address in client.contracts().addresses() {
            let info = client.contract_info(&address).await.unwrap();
            let own = ["model-registry", "provider-staking", "job-orchestrator"].contains(&info.label.as_str());
            assert_eq!(info.admin, own.then(|| address.clone()), "{}", info.label);
        }
        let developer = Wallet::dev("developer").address("wasm");
        let balance = client.token().balance(&developer).await.unwrap();
        assert_eq!(balance, 1_000_000 * UFUNC);
        let staking = client.staking().config().await.unwrap();
        assert_eq!(staking.admin.admin, Wallet::dev("faucet").address("wasm"));
    });
    let before = fs::read(deployer.out()).unwrap();
    let again = deployer.deploys(&place.rpc(), place.artifacts(), &[]);
    assert_eq!(
        (&again["transactions"], &again["contracts"]),
        (&0.into(), &told["contracts"])
    );
    assert_eq!(fs::read(deployer.out()).unwrap(), before);
    // A devnet's commands find their way with the file.
    let output = fxn_tests::program::fxn(deployer.home())
        .args(["model", "list"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", fxn_tests::deployer::said(&output));
}

#[test]
fn the_roles_and_the_supply_go_to_whom_they_are_for() {
    let place = Place::new();
    let deployer = Deployer::named("creator");
    let [admin, treasury, owner] = ["admin", "treasury", "relayer"].map(|name| Wallet::dev(name).address("wasm"));
    let mut command = deployer.command(&place.rpc(), place.artifacts(), &["--admin", &admin]);
    command.args(["--treasury", &treasury, "--supply-to", &owner]);
    let output = command.output().unwrap();
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{}", fxn_tests::deployer::said(&output));
    assert!(
        told.contains(&format!("The role of admin is offered to {admin}")),
        "{told}"
    );
    place.runtime.block_on(async {
        let client = deployer.client().await;
        let escrow = client.escrow().config().await.unwrap();
        assert_eq!(
            (escrow.admin.proposed, escrow.treasury),
            (Some(admin.clone()), treasury)
        );
        let rest = schema::TOTAL_SUPPLY - 12 * 1_000_000 * UFUNC;
        assert_eq!(client.token().balance(&owner).await.unwrap(), rest);
        let account = client::Account::new(client.clone(), Wallet::dev("admin"));
        // Neither the token nor the beacon has an admin.
        for contract in &client.contracts().addresses()[1..5] {
            let accept = schema::registry::ExecuteMsg::AcceptAdmin {};
            let call = client::Call::execute(contract, &accept).unwrap();
            account.execute(&[call]).await.unwrap();
        }
    });
    let told = deployer.refusal(
        &place.rpc(),
        place.artifacts(),
        &["--treasury", &owner, "--admin", &admin],
    );
    assert!(told.contains("the treasury of royalty-escrow is"), "{told}");
    let further = [
        "--admin",
        &admin,
        "--treasury",
        &Wallet::dev("treasury").address("wasm"),
    ];
    let told = deployer.deploys(&place.rpc(), place.artifacts(), &further);
    assert_eq!(told["admin_offered"].as_array().unwrap().len(), 0);
}

#[test]
fn killed_again_and_again_it_makes_each_contract_once() {
    let place = Place::new();
    let deployer = Deployer::named("faucet");
    let begun = Instant::now();
    let mut kills = 0u64;
    while !deployer.out().exists() {
        assert!(begun.elapsed() < Duration::from_secs(300));
        let mut command = deployer.command(&place.rpc(), place.artifacts(), &[]);
        let null = std::process::Stdio::null;
        let mut child = command.stdout(null()).stderr(null()).spawn().unwrap();
        // It takes some time to open the key; then a step takes a block or two.
        let patience = Duration::from_millis(300 + 130 * kills);
        let spawned = Instant::now();
        while spawned.elapsed() < patience && child.try_wait().unwrap().is_none() {
            std::thread::sleep(Duration::from_millis(5));
        }
        let _ = child.kill();
        let ended = child.wait().unwrap();
        assert_ne!(ended.code(), Some(2), "the command is understood");
        kills += 1;
    }
    let told = deployer.deploys(&place.rpc(), place.artifacts(), &[]);
    assert_eq!(told["contracts"].as_array().unwrap().len(), 6);
    // Addresses count instances: one contract too many, and those after it would be elsewhere.
    let network = client::Network::load(&deployer.out()).unwrap();
    assert_eq!(network.contracts, usual_contracts(&place.runtime));
}

#[test]
fn whatever_is_wrong_is_told_in_a_sentence_and_nothing_is_deployed() {
    let place = Place::new();
    let deployer = Deployer::named("faucet");
    let (rpc, artifacts) = (place.rpc(), place.artifacts().to_owned());
    let refused = |rpc: &str, artifacts: &Path, further: &[&str], words: &[&str]| {
        let told = deployer.refusal(rpc, artifacts, further);
        assert!(words.iter().all(|word| told.contains(word)), "{further:?}: {told}");
        assert!(!deployer.out().exists() && !deployer.journal().exists(), "{told}");
    };
    refused(
        "http://127.0.0.1:1",
        &artifacts,
        &[],
        &["cannot be reached", "127.0.0.1:1"],
    );
    refused(
        &rpc,
        &artifacts,
        &["--chain-id", "other-1"],
        &["fxn-devnet-1", "other-1"],
    );
    refused(&rpc, Path::new("/nowhere"), &[], &["/nowhere", "scripts/build-wasm.sh"]);
    refused(
        &rpc,
        &artifacts,
        &["--admin", "cosmos1abc"],
        &["cosmos1abc", "no address"],
    );
    refused(
        &rpc,
        &artifacts,
        &["--out", "/nowhere/network.json"],
        &["/nowhere", "--out"],
    );
    let hasty = deployer.home().join("hasty.toml");
    let profile = include_str!("../../params/local.toml");
    fs::write(
        &hasty,
        profile.replace("migration_notice_seconds = 35", "migration_notice_seconds = 29"),
    )
    .unwrap();
    let words = ["staking.migration_notice_seconds is 29", "unbonding_seconds = 30"];
    refused(&rpc, &artifacts, &["--params", hasty.to_str().unwrap()], &words);
    let wrong = deployer.home().join("wrong.toml");
    fs::write(&wrong, "[staking]").unwrap();
    refused(
        &rpc,
        &artifacts,
        &["--params", wrong.to_str().unwrap()],
        &["wrong.toml", "no parameter file"],
    );
    let poor = Deployer::named("nobody");
    let told = poor.refusal(&rpc, &artifacts, &[]);
    assert!(told.contains("has no ustake on fxn-devnet-1"), "{told}");
    // Another chain's file, and the list of another build.
    let foreign = fs::read_to_string(place.artifacts().join("checksums.txt")).unwrap();
    fs::write(artifacts.join("job_orchestrator.wasm"), "\0asm changed").unwrap();
    refused(
        &rpc,
        &artifacts,
        &[],
        &["job_orchestrator.wasm has the checksum", "build the contracts anew"],
    );
    fs::remove_file(artifacts.join("job_orchestrator.wasm")).unwrap();
    refused(&rpc, &artifacts, &[], &["job_orchestrator.wasm", "No such file"]);
    fs::write(artifacts.join("job_orchestrator.wasm"), module("job_orchestrator")).unwrap();
    assert!(foreign.contains("job_orchestrator.wasm"));
    let told = deployer.deploys(&rpc, &artifacts, &[]);
    assert_eq!(told["transactions"], 7);
}

#[test]
fn a_network_file_of_another_chain_or_of_an_earlier_one_is_not_overwritten() {
    let place = Place::new();
    let deployer = Deployer::named("faucet");
    deployer.deploys(&place.rpc(), place.artifacts(), &[]);
    let known = fs::read_to_string(deployer.out()).unwrap();
    let anew = Place::new();
    let told = deployer.refusal(&anew.rpc(), anew.artifacts(), &[]);
    assert!(told.contains("it is of an earlier fxn-devnet-1"), "{told}");
    fs::write(deployer.out(), known.replace("fxn-devnet-1", "fxn-other-1")).unwrap();
    let told = deployer.refusal(&place.rpc(), place.artifacts(), &[]);
    assert!(
        told.contains("belongs to fxn-other-1, the node is on fxn-devnet-1"),
        "{told}"
    );
    assert!(fs::read_to_string(deployer.out()).unwrap().contains("fxn-other-1"));
}

#[test]
fn a_chain_that_takes_no_code_is_told_with_the_step_and_its_own_words() {
    let place = Place::with(codes().drain(..2).collect());
    let deployer = Deployer::named("faucet");
    let told = deployer.refusal(&place.rpc(), place.artifacts(), &[]);
    assert!(told.contains("storing provider-staking failed"), "{told}");
    assert!(told.contains("no other code can be stored"), "{told}");
}
