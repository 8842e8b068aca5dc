//! The real contracts and the real client: a job is paid, and a missed one is expired. Only the host is made up; what it signs is not.

use std::{fs, path::Path, time::Duration};

use client::{Account, Call, Client, Network, Wallet};
use devnet::{Config as DevnetConfig, Devnet, Running as RunningDevnet};
use relayer::{Config, RelayerError};
use schema::{
    escrow,
    orchestrator::{self, Blame, ItemStatus, JobStatus, NewJob, NewShard},
    price::{Ask, RoyaltyRate},
    receipt::{Link, Outcome, Receipt, SignedReceipt},
    registry,
    staking::{self, DeploymentTerms, Profile, Sla},
    work::WorkState,
    Digest, ItemId, ModelId, PublicKey, Signature, UFUNC,
};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::fake_host::FakeHost;

/// A network with a model of one stage, one provider with one deployment, and a developer with money.
struct Market {
    _running: RunningDevnet,
    client: Client,
    home: TempDir,
    host: FakeHost,
    host_key: Wallet,
}

fn params() -> schema::params::Params {
    let profile = Path::new(env!("CARGO_MANIFEST_DIR")).join("../params/local.toml");
    let mut params: schema::params::Params = toml::from_str(&fs::read_to_string(profile).unwrap()).unwrap();
    // A missed item is over in a few seconds.
    params.orchestrator.inclusion_seconds = 1;
    params.orchestrator.attempts_max = 1;
    params
}

impl Market {
    async fn open() -> Market {
        let config = DevnetConfig {
            rpc: ([127, 0, 0, 1], 0).into(),
            block_time: Duration::from_millis(50),
            market: Some(params()),
            ..DevnetConfig::default()
        };
        let running = Devnet::start(config).await.unwrap();
        let network: Network = serde_json::from_value(running.network().clone()).unwrap();
        let home = TempDir::new().unwrap();
        network.save(&home.path().join("network.json")).unwrap();
        let client = Client::connect(network).await.unwrap();
        let provider = Wallet::dev("provider-1").address("wasm");
        let market = Market {
            _running: running,
            host: FakeHost::start(home.path(), &provider).await,
            host_key: Wallet::random(),
            client,
            home,
        };
        market.publish().await;
        market.deploy().await;
        market
    }

    fn account(&self, name: &str) -> Account {
        Account::new(self.client.clone(), Wallet::dev(name))
    }

    fn func<M: serde::Serialize>(&self, contract: &str, amount: u128, msg: &M) -> Call {
        Call::cw20_send(&self.client.contracts().func_token, contract, amount, msg).unwrap()
    }

    async fn publish(&self) {
        let creator = self.account("creator");
        let contract = &self.client.contracts().model_registry;
        let namespace = model().namespace();
        let claim = registry::ReceiveMsg::ClaimNamespace { namespace };
        let metadata = registry::Metadata {
            title: "A model".into(),
            description: String::new(),
            task: registry::Task::Embeddings,
            licence: "Apache-2.0".into(),
            tags: vec![],
            homepage: None,
            card: None,
        };
        let share = registry::Share {
            address: creator.address().into(),
            bps: 10_000,
        };
        let stage = registry::StageInfo {
            digest: Digest([1; 32]),
            weight_bytes: 1,
            compute_share_bps: 10_000,
        };
        let version = registry::NewVersion {
            manifest: Digest([2; 32]),
            manifest_uris: vec![],
            stages: vec![stage],
            tolerance: "0.0001".parse().unwrap(),
            units_per_request_max: 256,
        };
        let royalty = RoyaltyRate {
            royalty_bps: 1_000,
            royalty_per_1k_units: 0u128.into(),
        };
        let terms = registry::EndpointTerms {
            unit: registry::Unit::Token,
            royalty,
        };
        let messages = [
            registry::ExecuteMsg::PublishModel {
                model: model(),
                metadata,
                payout: vec![share],
                parents: vec![],
            },
            registry::ExecuteMsg::PublishVersion {
                model: model(),
                version,
            },
            registry::ExecuteMsg::SetEndpoint {
                model: model(),
                endpoint: "embeddings".into(),
                terms,
            },
        ];
        let mut calls = vec![self.func(contract, params().registry.namespace_fee.u128(), &claim)];
        calls.extend(messages.iter().map(|message| Call::execute(contract, message).unwrap()));
        creator.execute(&calls).await.unwrap();
    }

    async fn deploy(&self) {
        let provider = self.account("provider-1");
        let contract = &self.client.contracts().provider_staking;
        let profile = Profile {
            name: "one".into(),
            endpoint: "http://127.0.0.1:7070".into(),
            host_key: PublicKey(self.host_key.public_key()),
            operator: Some(Wallet::dev("relayer").address("wasm")),
            hardware: String::new(),
        };
        let register = staking::ExecuteMsg::RegisterProvider { profile };
        let terms = DeploymentTerms {
            model: model(),
            version: 1,
            first: 0,
            last: 0,
            engine_class: "fake/cpu".into(),
            ask: Ask {
                per_1k_in: 1_000u128.into(),
                per_1k_out: 0u128.into(),
                per_request: 100u128.into(),
            },
            slots: 2,
            sla: Sla {
                base_seconds: 1,
                seconds_per_1k_units: 0,
                units_max: 10_000,
                penalty_bps: 2_000,
            },
        };
        let calls = [
            Call::execute(contract, &register).unwrap(),
            self.func(contract, 200 * UFUNC, &staking::ReceiveMsg::Bond {}),
            self.func(
                contract,
                params().staking.listing_fee.u128(),
                &staking::ReceiveMsg::Deploy { terms },
            ),
        ];
        provider.execute(&calls).await.unwrap();
    }

    async fn submit_job(&self, shards: usize) {
        let developer = self.account("developer");
        let contracts = self.client.contracts();
        let deposit = escrow::ReceiveMsg::Deposit { beneficiary: None };
        let shard = NewShard {
            inline: vec![b"a sentence".into()],
        };
        let job = NewJob {
            model: model(),
            version: None,
            endpoint: "embeddings".into(),
            engine_class: None,
            shards: vec![shard; shards],
            replicas: 1,
            units_max: 256,
            max_price: UFUNC.into(),
            deadline_seconds: None,
            gateway: None,
        };
        let submit = orchestrator::ExecuteMsg::SubmitJob { job };
        let calls = [
            self.func(&contracts.royalty_escrow, 10 * UFUNC, &deposit),
            Call::execute(&contracts.job_orchestrator, &submit).unwrap(),
        ];
        developer.execute(&calls).await.unwrap();
    }

    /// The host has done an item: it says so, with a receipt that the contract believes.
    async fn host_finishes(&self, item: ItemId) {
        let assigned = self.client.orchestrator().item(item).await.unwrap();
        let job = self.client.orchestrator().job(item.job).await.unwrap();
        let receipt = Receipt {
            domain: self.client.orchestrator().config().await.unwrap().domain,
            item,
            attempt: assigned.attempt,
            deployment: assigned.spans[0].deployment,
            first: 0,
            last: 0,
            input_digest: job.shards[usize::from(item.shard)].root,
            output_digest: Digest([3; 32]),
            tokens_digest: None,
            seed: None,
            units_in: 5,
            units_out: 0,
            outcome: Outcome::Done,
            previous: None,
        };
        let signature = Signature(self.host_key.sign_digest(&receipt.digest().0));
        let receipt = SignedReceipt { receipt, signature };
        let acknowledgement = None;
        let links = vec![Link {
            receipt,
            acknowledgement,
        }];
        self.host.says(item, assigned.attempt, WorkState::Done, links, true);
    }

    fn relay(&self) -> (JoinHandle<Result<(), RelayerError>>, CancellationToken) {
        let config = Config {
            network: self.home.path().join("network.json"),
            provider: Some(Wallet::dev("provider-1").address("wasm")),
            ..crate::scene::config(self.home.path().into())
        };
        let stop = CancellationToken::new();
        let task = tokio::spawn(relayer::run(config, Wallet::dev("relayer"), stop.clone()));
        (task, stop)
    }

    async fn ended(&self, job: u64) -> JobStatus {
        let end = tokio::time::Instant::now() + Duration::from_secs(30);
        loop {
            let found = self.client.orchestrator().job(job).await.unwrap();
            if found.status != JobStatus::Running || tokio::time::Instant::now() > end {
                return found.status;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

fn model() -> ModelId {
    "demo/model".parse().unwrap()
}

fn item(shard: u16) -> ItemId {
    ItemId {
        job: 1,
        shard,
        replica: 0,
    }
}

#[tokio::test]
async fn a_job_on_the_real_contracts_is_attested_and_paid_across_a_restart() {
    let market = Market::open().await;
    let (task, stop) = market.relay();
    market.submit_job(2).await;
    market.host.until("told of both", |desk| desk.known.len() == 2).await;
    stop.cancel();
    task.await.unwrap().unwrap();
    market.host_finishes(item(0)).await;
    market.host_finishes(item(1)).await;
    let (task, stop) = market.relay();
    assert_eq!(market.ended(1).await, JobStatus::Completed);
    stop.cancel();
    task.await.unwrap().unwrap();
    let provider = Wallet::dev("provider-1").address("wasm");
    let earned = market.client.escrow().money(&provider).await.unwrap().available.u128();
    // Two items of 1 row and 5 units: 105 each, less 2 % for the protocol and 1 % burnt, each rounded down.
    assert_eq!(earned, 2 * (105 - 2 - 1));
}

#[tokio::test]
async fn a_missed_item_on_the_real_contracts_is_expired_and_the_culprit_pays() {
    let market = Market::open().await;
    let (task, stop) = market.relay();
    market.submit_job(1).await;
    assert_eq!(market.ended(1).await, JobStatus::Incomplete);
    stop.cancel();
    task.await.unwrap().unwrap();
    let found = market.client.orchestrator().item(item(0)).await.unwrap();
    assert!(matches!(found.status, ItemStatus::Failed { .. }), "{found:?}");
    assert!(
        matches!(&found.history[..], [past] if matches!(past.blame, Blame::Miss { .. })),
        "{found:?}"
    );
    let provider = Wallet::dev("provider-1").address("wasm");
    let bond = market.client.staking().provider(&provider).await.unwrap().bond.u128();
    assert!(bond < 200 * UFUNC, "{bond}");
}

#[tokio::test]
async fn a_network_file_with_another_contract_in_it_is_refused() {
    let market = Market::open().await;
    let mut network = market.client.network().clone();
    network
        .contracts
        .provider_staking
        .clone_from(&network.contracts.royalty_escrow);
    network.save(&market.home.path().join("network.json")).unwrap();
    let error = market.relay().0.await.unwrap().unwrap_err();
    let RelayerError::Mismatch { expected, found, .. } = error else {
        panic!("{error}")
    };
    assert_eq!(
        (expected.as_str(), found.as_str()),
        ("provider-staking", "royalty-escrow")
    );
}
