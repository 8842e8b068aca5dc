//! What only a real chain shows of `fxn deploy` and of migrations: code that is stored, wasm that is migrated, and gas that is paid.

use std::{
    fs,
    path::PathBuf,
    process::Stdio,
    time::{Duration, Instant},
};

use client::{Account, Call, Client, ClientError, Wallet};
use cosmwasm_std::{Binary, Decimal};
use fxn_tests::{
    deployer::Deployer,
    localnet::{Localnet, PATIENCE},
    program::root,
};
use schema::{
    escrow,
    msg::{MigrationResponse, PendingMigration},
    orchestrator,
    price::{Ask, RoyaltyRate},
    registry, staking, Digest, ModelId, PublicKey, UFUNC,
};
use serde_json::{json, Value};

const MODEL: &str = "demo/words";
/// What the contracts say of themselves, and what a release after it would say.
const VERSIONS: [&str; 2] = [env!("CARGO_PKG_VERSION"), "0.1.1"];

pub(crate) fn artifacts() -> PathBuf {
    let folder = root().join("artifacts");
    let there = folder.join("checksums.txt").exists();
    assert!(there, "scripts/build-wasm.sh builds what this deploys");
    folder
}

/// The module of a contract as its next release would be, were nothing else changed: the version stands in its data once.
fn next_version(contract: &str) -> Vec<u8> {
    let file = format!("{}.wasm", contract.replace('-', "_"));
    let mut module = fs::read(artifacts().join(file)).unwrap();
    let [old, new] = VERSIONS.map(str::as_bytes);
    assert_eq!(old.len(), new.len(), "the next version is as long as this one");
    let found = |module: &[u8]| module.windows(old.len()).position(|window| window == old);
    let place = found(&module).expect("the module has its version");
    module[place..place + new.len()].copy_from_slice(new);
    assert_eq!(found(&module), None, "the version stands in one place");
    module
}

fn usual_addresses() -> Vec<String> {
    let market = toml::from_str(include_str!("../../params/local.toml")).unwrap();
    let config = devnet::Config {
        rpc: ([127, 0, 0, 1], 0).into(),
        market: Some(market),
        ..devnet::Config::default()
    };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let running = runtime.block_on(devnet::Devnet::start(config)).unwrap();
    let contracts = running.network()["contracts"].clone();
    runtime.block_on(running.shutdown());
    serde_json::from_value::<client::Contracts>(contracts)
        .unwrap()
        .addresses()
}

fn account(client: &Client, name: &str) -> Account {
    Account::new(client.clone(), Wallet::dev(name))
}

/// A model of one stage, a provider that serves it, and a job that waits for its proof.
async fn put_state(client: &Client) {
    let contracts = client.contracts().clone();
    let model: ModelId = MODEL.parse().unwrap();
    let creator = account(client, "creator");
    let claim = registry::ReceiveMsg::ClaimNamespace {
        namespace: "demo".parse().unwrap(),
    };
    let metadata = registry::Metadata {
        title: "Words".into(),
        description: String::new(),
        task: registry::Task::Embeddings,
        licence: "MIT".into(),
        tags: vec![],
        homepage: None,
        card: None,
    };
    let publish = registry::ExecuteMsg::PublishModel {
        model: model.clone(),
        metadata,
        payout: vec![registry::Share {
            address: creator.address().to_owned(),
            bps: 10_000,
        }],
        parents: vec![],
    };
    let version = registry::ExecuteMsg::PublishVersion {
        model: model.clone(),
        version: registry::NewVersion {
            manifest: Digest([1; 32]),
            manifest_uris: vec![],
            stages: vec![registry::StageInfo {
                digest: Digest([2; 32]),
                weight_bytes: 1,
                compute_share_bps: 10_000,
            }],
            tolerance: Decimal::permille(1),
            units_per_request_max: 256,
        },
    };
    let endpoint = registry::ExecuteMsg::SetEndpoint {
        model: model.clone(),
        endpoint: "embeddings".into(),
        terms: registry::EndpointTerms {
            unit: registry::Unit::Token,
            royalty: RoyaltyRate {
                royalty_bps: 0,
                royalty_per_1k_units: 0u128.into(),
            },
        },
    };
    let send = |contract: &str, amount, hook: &Value| Call::cw20_send(&contracts.func_token, contract, amount, hook);
    let to_registry = |msg| Call::execute(&contracts.model_registry, &msg).unwrap();
    let calls = [
        send(&contracts.model_registry, 10 * UFUNC, &json!(claim)).unwrap(),
        to_registry(publish),
        to_registry(version),
        to_registry(endpoint),
    ];
    creator.execute(&calls).await.unwrap();
    serve(client, &model).await;
    let developer = account(client, "developer");
    let deposit = escrow::ReceiveMsg::Deposit { beneficiary: None };
    let job = orchestrator::NewJob {
        model,
        version: None,
        endpoint: "embeddings".into(),
        engine_class: None,
        shards: vec![orchestrator::NewShard {
            inline: vec![Binary::from(b"a sentence")],
        }],
        replicas: 1,
        units_max: 256,
        max_price: UFUNC.into(),
        deadline_seconds: None,
        chain: None,
        gateway: None,
    };
    let submit = orchestrator::ExecuteMsg::SubmitJob { job };
    let calls = [
        send(&contracts.royalty_escrow, 5 * UFUNC, &json!(deposit)).unwrap(),
        Call::execute(&contracts.job_orchestrator, &submit).unwrap(),
    ];
    developer.execute(&calls).await.unwrap();
}

async fn serve(client: &Client, model: &ModelId) {
    let contracts = client.contracts().clone();
    let provider = account(client, "provider-1");
    let register = staking::ExecuteMsg::RegisterProvider {
        profile: staking::Profile {
            name: "one".into(),
            endpoint: "http://one.example:7000".into(),
            host_key: PublicKey(provider.wallet().public_key()),
            operator: None,
            hardware: String::new(),
        },
    };
    let price = 1_000u128.into();
    let deploy = staking::ReceiveMsg::Deploy {
        terms: staking::DeploymentTerms {
            model: model.clone(),
            version: 1,
            first: 0,
            last: 0,
            engine_class: "any".into(),
            ask: Ask {
                per_1k_in: price,
                per_1k_out: price,
                per_request: price,
            },
            reservation_per_hour: 100_000u128.into(),
            slots: 2,
            sla: staking::Sla {
                base_seconds: 600,
                seconds_per_1k_units: 0,
                units_max: 1_000,
                penalty_bps: 1_000,
            },
        },
    };
    let send = |amount, hook: &Value| Call::cw20_send(&contracts.func_token, &contracts.provider_staking, amount, hook);
    let calls = [
        Call::execute(&contracts.provider_staking, &register).unwrap(),
        send(200 * UFUNC, &json!(staking::ReceiveMsg::Bond {})).unwrap(),
        send(UFUNC, &json!(deploy)).unwrap(),
    ];
    provider.execute(&calls).await.unwrap();
}

/// What everybody can read of the three contracts.
async fn readings(client: &Client) -> Vec<Value> {
    let provider = Wallet::dev("provider-1").address("wasm");
    let questions = [
        (&client.contracts().model_registry, json!({ "config": {} })),
        (
            &client.contracts().model_registry,
            json!({ "model": { "model": MODEL } }),
        ),
        (
            &client.contracts().model_registry,
            json!({ "versions": { "model": MODEL } }),
        ),
        (&client.contracts().provider_staking, json!({ "config": {} })),
        (
            &client.contracts().provider_staking,
            json!({ "provider": { "provider": provider } }),
        ),
        (&client.contracts().provider_staking, json!({ "deployments": {} })),
        (&client.contracts().provider_staking, json!({ "totals": {} })),
        (&client.contracts().job_orchestrator, json!({ "config": {} })),
        (&client.contracts().job_orchestrator, json!({ "job": { "job": 1 } })),
        (&client.contracts().job_orchestrator, json!({ "items": { "job": 1 } })),
        (
            &client.contracts().job_orchestrator,
            json!({ "input": { "job": 1, "shard": 0 } }),
        ),
    ];
    let mut all = vec![];
    for (contract, question) in questions {
        all.push(client.query(contract, &question).await.unwrap());
    }
    all
}

fn refused(outcome: Result<client::TxOutcome, ClientError>, words: &str) {
    let told = outcome.unwrap_err().to_string();
    assert!(told.contains(words), "{told}");
}

fn to(contract: &str, msg: Value) -> Call {
    Call::execute(contract, &msg).unwrap()
}

fn propose(contract: &str, code_id: u64) -> Call {
    let msg = json!({ "propose_migration": { "code_id": code_id, "msg": Binary::from(b"{}") } });
    to(contract, msg)
}

fn execute(contract: &str) -> Call {
    to(contract, json!({ "execute_migration": {} }))
}

/// Stores the next version and announces it. What nobody may do now is tried.
async fn announce(client: &Client, contract: &str) -> PendingMigration {
    let name = client.cw2(contract).await.unwrap().contract;
    let (admin, stranger) = (account(client, "faucet"), account(client, "gateway"));
    let module = next_version(&name);
    let checksum = Digest::of(&module);
    let stored = admin.execute(&[Call::StoreCode { wasm: module }]).await.unwrap();
    let code_id: u64 = stored.attribute("store_code", "code_id").unwrap().parse().unwrap();
    refused(
        stranger.execute(&[propose(contract, code_id)]).await,
        "is not the admin",
    );
    refused(
        admin.execute(&[propose(contract, code_id + 1)]).await,
        "there is no code",
    );
    admin.execute(&[propose(contract, code_id)]).await.unwrap();
    let answer: MigrationResponse = client.query(contract, &json!({ "migration": {} })).await.unwrap();
    let pending = answer.pending.unwrap();
    assert_eq!((pending.code_id, pending.checksum), (code_id, checksum));
    refused(
        admin.execute(&[execute(contract)]).await,
        "the migration can be executed from",
    );
    let seize = Call::UpdateAdmin {
        contract: contract.to_owned(),
        admin: stranger.address().to_owned(),
    };
    refused(admin.execute(&[seize]).await, "can not modify contract");
    pending
}

/// A stranger executes it once its time has come.
async fn migrate(client: &Client, contract: &str, pending: &PendingMigration) {
    let (admin, stranger) = (account(client, "faucet"), account(client, "gateway"));
    let old = client.contract_info(contract).await.unwrap();
    assert_eq!(old.admin.as_deref(), Some(contract));
    let begun = Instant::now();
    while client.status().await.unwrap().time_nanos / 1_000_000_000 < pending.executable_at {
        assert!(begun.elapsed() < PATIENCE, "the notice does not end");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let outcome = stranger.execute(&[execute(contract)]).await.unwrap();
    assert_eq!(outcome.attribute("wasm-migrated", "to"), Some(VERSIONS[1]));
    let new = client.contract_info(contract).await.unwrap();
    assert_eq!((new.code_id, new.admin), (pending.code_id, old.admin));
    assert_eq!(client.cw2(contract).await.unwrap().version, VERSIONS[1]);
    // The new code is governed as the old one was.
    admin.execute(&[propose(contract, old.code_id)]).await.unwrap();
    let cancel = to(contract, json!({ "cancel_migration": {} }));
    admin.execute(&[cancel]).await.unwrap();
}

#[test]
fn contracts_are_deployed_filled_and_migrated_and_nothing_is_lost() {
    let net = Localnet::start(1);
    let deployer = Deployer::named("faucet");
    let told = deployer.deploys(&net.rpc(0), &artifacts(), &[]);
    assert_eq!(told["transactions"], 13, "{told}");
    let again = deployer.deploys(&net.rpc(0), &artifacts(), &[]);
    assert_eq!(
        (&again["transactions"], &again["contracts"]),
        (&0.into(), &told["contracts"])
    );
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let usual = usual_addresses();
    runtime.block_on(async {
        let client = deployer.client().await;
        assert_eq!(
            client.contracts().addresses(),
            usual,
            "both chains have the same addresses"
        );
        put_state(&client).await;
        let before = readings(&client).await;
        let contracts = client.contracts().clone();
        let all = [
            &contracts.model_registry,
            &contracts.provider_staking,
            &contracts.job_orchestrator,
        ];
        let mut proposed = vec![];
        for contract in all {
            proposed.push((contract, announce(&client, contract).await));
        }
        assert_eq!(readings(&client).await, before);
        for (contract, pending) in &proposed {
            migrate(&client, contract, pending).await;
        }
        assert_eq!(readings(&client).await, before);
        // And it goes on: the provider may still change its mind, and the developer order again.
        let drain = staking::ExecuteMsg::Drain { deployment: 1 };
        let call = Call::execute(&contracts.provider_staking, &drain).unwrap();
        account(&client, "provider-1").execute(&[call]).await.unwrap();
    });
    // What was deployed is not what runs now, and that is told.
    let told = deployer.refusal(&net.rpc(0), &artifacts(), &[]);
    assert!(told.contains("the checksum of provider-staking's code is"), "{told}");
}

#[test]
fn a_deployment_that_is_killed_again_and_again_makes_each_contract_once() {
    let net = Localnet::start(1);
    let deployer = Deployer::named("faucet");
    let begun = Instant::now();
    let mut kills = 0u64;
    while !deployer.out().exists() {
        assert!(begun.elapsed() < 3 * PATIENCE);
        let mut command = deployer.command(&net.rpc(0), &artifacts(), &[]);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let patience = Duration::from_millis(700 + 370 * kills);
        let spawned = Instant::now();
        while spawned.elapsed() < patience && child.try_wait().unwrap().is_none() {
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = child.kill();
        let ended = child.wait().unwrap();
        assert_ne!(ended.code(), Some(2), "the command is understood");
        kills += 1;
    }
    deployer.deploys(&net.rpc(0), &artifacts(), &[]);
    let network = client::Network::load(&deployer.out()).unwrap();
    assert_eq!(network.contracts.addresses(), usual_addresses());
}
