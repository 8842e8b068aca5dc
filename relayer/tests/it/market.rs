//! A market on the real contracts for one relayer: devnet, a model, a provider with a deployment, a developer with money. Only the host is made
//! up; what it signs is not.

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    sync::{
        atomic::{AtomicU64, Ordering},
        Arc, Mutex,
    },
    time::Duration,
};

use client::{events, Account, Call, Client, ClientError, Network, TxHash, Wallet};
use devnet::{Config as DevnetConfig, Devnet, Running as RunningDevnet};
use futures::StreamExt;
use relayer::{Config, RelayerError};
use schema::{
    escrow,
    orchestrator::{self, JobStatus, NewJob, NewShard},
    price::{Ask, RoyaltyRate},
    receipt::{Domain, Link, Outcome, Receipt, SignedReceipt},
    registry,
    session::{SignedVoucher, Voucher},
    staking::{self, DeploymentTerms, Profile, Sla},
    work::{HeldVoucher, WorkState},
    Digest, Event, ItemId, ModelId, PublicKey, Signature, UFUNC,
};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::fake_host::FakeHost;

/// Ufunc that the provider gets for an item: 1 row and 5 units are 105, less 2 % for the protocol and 1 % burnt, each rounded down.
pub const EARNED: u128 = 105 - 2 - 1;
/// Ufunc for two rows of five units each in a session: the royalty comes on top.
pub const SESSION_PRICE: u128 = 2 * 105 + 21;
/// Items that the provider takes at a time.
const SLOTS: u16 = 64;
/// How often a job without a free slot is tried, five times a second.
const SLOT_TRIES: u32 = 300;
/// For the slots of two deployments, and half as much again: neither a penalty nor finished work costs a slot.
pub const BOND: u128 = 3 * 64 * 50 * UFUNC;

type Events = Arc<Mutex<Vec<(TxHash, Event)>>>;

/// How a market is to be.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    pub block_time: Duration,
    /// What the provider has promised: time for an item after a second for its inclusion.
    pub base_seconds: u64,
    /// How long after the deadline evidence is taken.
    pub evidence_seconds: u64,
}

impl Plan {
    /// A missed item is over in a few seconds.
    pub const QUICK: Plan = Plan {
        block_time: Duration::from_millis(50),
        base_seconds: 1,
        evidence_seconds: 2,
    };
    /// No machine is so slow that an item is missed.
    pub const PATIENT: Plan = Plan {
        block_time: Duration::from_millis(50),
        base_seconds: 900,
        evidence_seconds: 2,
    };
}

/// A network with a model of one stage, one provider with one deployment, and a developer with money.
pub struct Market {
    /// None: it is down at the moment, or the chain is somebody else's.
    running: Option<RunningDevnet>,
    /// None: somebody else's.
    chain: Option<DevnetConfig>,
    /// What sets its names apart from those of other markets on the same chain.
    suffix: String,
    pub client: Client,
    pub home: TempDir,
    pub host: FakeHost,
    host_key: Wallet,
    /// Everything that the orchestrator has announced so far, with the transaction.
    events: Events,
    /// The height up to which they were read.
    read: Arc<AtomicU64>,
    reader: JoinHandle<()>,
}

fn params(plan: Plan) -> schema::params::Params {
    let profile = Path::new(env!("CARGO_MANIFEST_DIR")).join("../params/local.toml");
    let mut params: schema::params::Params = toml::from_str(&fs::read_to_string(profile).unwrap()).unwrap();
    // A missed item is over in a few seconds.
    params.orchestrator.inclusion_seconds = 1;
    params.orchestrator.evidence_seconds = plan.evidence_seconds;
    params.orchestrator.attempts_max = 1;
    // The only provider of a market whose relayer is killed all the time is to stay in it.
    params.staking.conduct.strike_window_seconds = 1;
    params.staking.conduct.jail_strikes = 32;
    params
}

impl Market {
    pub async fn open(plan: Plan) -> Market {
        Market::open_in(plan, TempDir::new().unwrap(), None).await
    }

    /// The same in a home, on a chain that keeps its state in a folder of it and can be restarted.
    pub async fn open_in(plan: Plan, home: TempDir, state: Option<&str>) -> Market {
        let mut chain = DevnetConfig {
            rpc: ([127, 0, 0, 1], 0).into(),
            block_time: plan.block_time,
            market: Some(params(plan)),
            state: state.map(|folder| home.path().join(folder)),
            ..DevnetConfig::default()
        };
        let running = Devnet::start(chain.clone()).await.unwrap();
        chain.rpc = running.address();
        let network: Network = serde_json::from_value(running.network().clone()).unwrap();
        Market::open_on(plan, home, network, Some((chain, running)), "").await
    }

    /// The same on a chain of somebody else, with the local parameters. Its faucet pays.
    pub async fn open_elsewhere(plan: Plan, home: TempDir, network: Network, suffix: &str) -> Market {
        // Markets of one process share the faucet's account, and its transactions follow each other.
        static FAUCET: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
        let turn = FAUCET.lock().await;
        let client = Client::connect(network.clone()).await.unwrap();
        let faucet = Account::new(client, Wallet::dev("faucet"));
        let mut calls = vec![];
        for name in ["creator", "provider-1", "developer", "relayer"] {
            let address = Wallet::dev(&format!("{name}{suffix}")).address(&network.bech32_prefix);
            calls.push(Call::send(address.clone(), 50_000_000));
            calls.push(Call::cw20_transfer(&network.contracts.func_token, address, 2 * BOND).unwrap());
        }
        faucet.execute(&calls).await.unwrap();
        drop(turn);
        Market::open_on(plan, home, network, None, suffix).await
    }

    async fn open_on(
        plan: Plan,
        home: TempDir,
        network: Network,
        devnet: Option<(DevnetConfig, RunningDevnet)>,
        suffix: &str,
    ) -> Market {
        let (chain, running) = devnet.unzip();
        network.save(&home.path().join("network.json")).unwrap();
        let client = Client::connect(network).await.unwrap();
        let provider = Wallet::dev(&format!("provider-1{suffix}")).address("wasm");
        // On a chain of its own everything is its own from the beginning.
        let height = match &chain {
            Some(_) => 1,
            None => client.status().await.unwrap().height,
        };
        let events = Arc::new(Mutex::new(vec![]));
        let read = Arc::new(AtomicU64::new(0));
        let market = Market {
            reader: tokio::spawn(listen(client.clone(), height.max(1), events.clone(), read.clone())),
            events,
            read,
            running,
            chain,
            suffix: suffix.to_owned(),
            host: FakeHost::start(home.path(), &provider).await,
            host_key: Wallet::random(),
            client,
            home,
        };
        let model = market.model("demo");
        market.publish(&model).await;
        market.register().await;
        market.deploy(&model, plan.base_seconds).await;
        market
    }

    /// The model of this market in a namespace.
    pub fn model(&self, namespace: &str) -> ModelId {
        format!("{namespace}{}/model", self.suffix).parse().unwrap()
    }

    /// The name of an account of this market.
    pub fn key(&self, name: &str) -> String {
        format!("{name}{}", self.suffix)
    }

    fn address(&self, name: &str) -> String {
        Wallet::dev(&self.key(name)).address("wasm")
    }

    /// The chain's node stops dead, loses what is in its mempool, and comes back after a while. False: it is not ours.
    pub async fn restart_node(&mut self, pause: Duration) -> bool {
        let Some(chain) = &self.chain else { return false };
        drop(self.running.take());
        tokio::time::sleep(pause).await;
        let since = tokio::time::Instant::now();
        // The last node lets go of its port and its folder in its own time.
        while self.running.is_none() {
            match Devnet::start(chain.clone()).await {
                Ok(running) => self.running = Some(running),
                Err(error) => assert!(since.elapsed() < Duration::from_secs(60), "{error}"),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        true
    }

    pub fn rpc_url(&self) -> String {
        self.client.network().rpc.clone()
    }

    pub fn account(&self, name: &str) -> Account {
        Account::new(self.client.clone(), Wallet::dev(&self.key(name)))
    }

    pub fn func<M: serde::Serialize>(&self, contract: &str, amount: u128, msg: &M) -> Call {
        Call::cw20_send(&self.client.contracts().func_token, contract, amount, msg).unwrap()
    }

    /// A further model that is served with another promise.
    pub async fn offer(&self, model: &ModelId, base_seconds: u64) {
        self.publish(model).await;
        self.deploy(model, base_seconds).await;
    }

    async fn publish(&self, model: &ModelId) {
        let creator = self.account("creator");
        let contract = &self.client.contracts().model_registry;
        let namespace = model.namespace();
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
                model: model.clone(),
                metadata,
                payout: vec![share],
                parents: vec![],
            },
            registry::ExecuteMsg::PublishVersion {
                model: model.clone(),
                version,
            },
            registry::ExecuteMsg::SetEndpoint {
                model: model.clone(),
                endpoint: "embeddings".into(),
                terms,
            },
        ];
        let fee = self.client.registry().config().await.unwrap().params.namespace_fee;
        let mut calls = vec![self.func(contract, fee.u128(), &claim)];
        calls.extend(messages.iter().map(|message| Call::execute(contract, message).unwrap()));
        creator.execute(&calls).await.unwrap();
    }

    async fn register(&self) {
        let provider = self.account("provider-1");
        let contract = &self.client.contracts().provider_staking;
        let profile = Profile {
            name: "one".into(),
            endpoint: "http://127.0.0.1:7070".into(),
            host_key: PublicKey(self.host_key.public_key()),
            operator: Some(self.address("relayer")),
            hardware: String::new(),
        };
        let register = staking::ExecuteMsg::RegisterProvider { profile };
        let bond = self.func(contract, BOND, &staking::ReceiveMsg::Bond {});
        provider
            .execute(&[Call::execute(contract, &register).unwrap(), bond])
            .await
            .unwrap();
    }

    async fn deploy(&self, model: &ModelId, base_seconds: u64) {
        let contract = &self.client.contracts().provider_staking;
        let terms = DeploymentTerms {
            model: model.clone(),
            version: 1,
            first: 0,
            last: 0,
            engine_class: "fake/cpu".into(),
            ask: Ask {
                per_1k_in: 1_000u128.into(),
                per_1k_out: 0u128.into(),
                per_request: 100u128.into(),
            },
            reservation_per_hour: 100_000u128.into(),
            slots: SLOTS,
            sla: Sla {
                base_seconds,
                seconds_per_1k_units: 0,
                units_max: 10_000,
                penalty_bps: 2_000,
            },
        };
        let fee = self.client.staking().config().await.unwrap().params.listing_fee.u128();
        let deploy = self.func(contract, fee, &staking::ReceiveMsg::Deploy { terms });
        self.account("provider-1").execute(&[deploy]).await.unwrap();
    }

    pub async fn submit_job(&self, shards: usize) -> u64 {
        self.submit_job_for(&self.model("demo"), shards).await
    }

    /// Submits a job, and tells its number.
    pub async fn submit_job_for(&self, model: &ModelId, shards: usize) -> u64 {
        let developer = self.account("developer");
        let contracts = self.client.contracts();
        let deposit = escrow::ReceiveMsg::Deposit { beneficiary: None };
        let shard = NewShard {
            inline: vec![b"a sentence".into()],
        };
        let job = NewJob {
            model: model.clone(),
            version: None,
            endpoint: "embeddings".into(),
            engine_class: None,
            shards: vec![shard; shards],
            replicas: 1,
            units_max: 256,
            max_price: UFUNC.into(),
            deadline_seconds: None,
            chain: None,
            gateway: None,
        };
        let submit = orchestrator::ExecuteMsg::SubmitJob { job };
        let calls = [
            self.func(&contracts.royalty_escrow, 10 * UFUNC, &deposit),
            Call::execute(&contracts.job_orchestrator, &submit).unwrap(),
        ];
        // A machine with other things to do leaves all slots busy with what was ordered before.
        for _ in 0..SLOT_TRIES {
            match developer.execute(&calls).await {
                Err(ClientError::Refused { message, .. }) if message.contains("no chain of deployments") => {
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
                done => {
                    let done = done.unwrap();
                    return done.attribute("wasm-job_submitted", "job").unwrap().parse().unwrap();
                }
            }
        }
        panic!("no slot has become free");
    }

    /// The host has done an item: it says so, with a receipt that the contract believes.
    pub async fn host_finishes(&self, item: ItemId) {
        let links = vec![self.receipt(item).await];
        self.host.says(item, 0, WorkState::Done, links, true);
    }

    /// The host has a receipt, but no proof that is complete.
    pub async fn host_hangs(&self, item: ItemId) {
        let links = vec![self.receipt(item).await];
        self.host.says(item, 0, WorkState::Running, links, false);
    }

    /// The one link of an item on its first attempt.
    pub async fn receipt(&self, item: ItemId) -> Link {
        let assigned = self.client.orchestrator().item(item).await.unwrap();
        let job = self.client.orchestrator().job(item.job).await.unwrap();
        let receipt = Receipt {
            domain: self.client.orchestrator().config().await.unwrap().domain,
            item,
            attempt: 0,
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
        Link {
            receipt,
            acknowledgement,
        }
    }

    pub fn config(&self) -> Config {
        Config {
            network: self.home.path().join("network.json"),
            provider: Some(self.address("provider-1")),
            ..crate::scene::config(self.home.path().into())
        }
    }

    /// How often the orchestrator has announced something like this.
    pub fn count(&self, is_so: impl Fn(&Event) -> bool) -> usize {
        self.events
            .lock()
            .unwrap()
            .iter()
            .filter(|(_, event)| is_so(event))
            .count()
    }

    /// What the orchestrator has announced so far, transaction by transaction.
    pub fn by_transaction(&self) -> BTreeMap<TxHash, Vec<Event>> {
        let mut grouped: BTreeMap<TxHash, Vec<Event>> = BTreeMap::new();
        for (hash, event) in self.events.lock().unwrap().iter() {
            grouped.entry(*hash).or_default().push(event.clone());
        }
        grouped
    }

    /// Waits until the events of all blocks up to now have been read.
    pub async fn all_is_read(&self) {
        let height = self.client.status().await.unwrap().height;
        let is_read = || self.read.load(Ordering::SeqCst) >= height;
        crate::until("all events are read", || async { is_read() }).await;
    }

    /// What the provider has earned so far.
    pub async fn earned(&self) -> u128 {
        let provider = self.address("provider-1");
        self.client.escrow().money(&provider).await.unwrap().available.u128()
    }

    /// A session of the developer with the first deployment. Its number.
    pub async fn open_session(&self) -> u64 {
        let escrow = &self.client.contracts().royalty_escrow;
        let now = self.client.status().await.unwrap().time_nanos / 1_000_000_000;
        let session = escrow::NewSession {
            model: self.model("demo"),
            version: None,
            endpoint: "embeddings".into(),
            allocations: vec![escrow::NewAllocation {
                deployment: 1,
                amount: UFUNC.into(),
            }],
            session_key: PublicKey(Wallet::dev("session").public_key()),
            gateway: None,
            expires_at: now + 3_000,
        };
        let calls = [
            self.func(escrow, 10 * UFUNC, &escrow::ReceiveMsg::Deposit { beneficiary: None }),
            Call::execute(escrow, &escrow::ExecuteMsg::OpenSession { session }).unwrap(),
        ];
        let opened = self.account("developer").execute(&calls).await.unwrap();
        opened
            .attribute("wasm-session_opened", "session")
            .unwrap()
            .parse()
            .unwrap()
    }

    /// The host has a voucher for so many times two rows.
    pub async fn host_holds(&self, session: u64, sequence: u64) {
        let network = self.client.network();
        let domain = Domain {
            chain_id: network.chain_id.clone(),
            contract: network.contracts.royalty_escrow.clone(),
        };
        let voucher = Voucher {
            session,
            deployment: 1,
            sequence,
            requests: 2 * sequence,
            units_in: 10 * sequence,
            units_out: 0,
            amount: (SESSION_PRICE * u128::from(sequence)).into(),
        };
        let signature = Signature(Wallet::dev("session").sign_digest(&voucher.digest(&domain).0));
        let held = HeldVoucher {
            voucher: SignedVoucher { voucher, signature },
            worth: SESSION_PRICE.into(),
            since: 0,
            urgent: true,
            closes_at: 0,
        };
        self.host.change(|desk| desk.vouchers = vec![held]);
    }

    /// Sequence of the last settled voucher, and what is paid.
    pub async fn settled(&self, session: u64) -> (u64, u128) {
        let escrow = &self.client.contracts().royalty_escrow;
        let query = escrow::QueryMsg::Session { session };
        let found: escrow::SessionResponse = self.client.query(escrow, &query).await.unwrap();
        let own = &found.allocations[0];
        (own.sequence, own.paid.u128())
    }

    pub fn relay(&self) -> (JoinHandle<Result<(), RelayerError>>, CancellationToken) {
        let stop = CancellationToken::new();
        let task = tokio::spawn(relayer::run(self.config(), Wallet::dev("relayer"), stop.clone()));
        (task, stop)
    }

    pub async fn ended(&self, job: u64) -> JobStatus {
        let end = tokio::time::Instant::now() + Duration::from_secs(120);
        loop {
            let found = self.client.orchestrator().job(job).await.unwrap();
            if found.status != JobStatus::Running || tokio::time::Instant::now() > end {
                return found.status;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

impl Drop for Market {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

async fn listen(client: Client, from: u64, events: Events, read: Arc<AtomicU64>) {
    let contracts = vec![client.contracts().job_orchestrator.clone()];
    let mut blocks = events::follow(client, contracts, from);
    while let Some(Ok(block)) = blocks.next().await {
        for tx in block.txs {
            let announced = tx.events.into_iter().map(|emitted| (tx.hash, emitted.event));
            events.lock().unwrap().extend(announced);
        }
        read.store(block.height, Ordering::SeqCst);
    }
}

pub fn item(shard: u16) -> ItemId {
    ItemId {
        job: 1,
        shard,
        replica: 0,
    }
}
