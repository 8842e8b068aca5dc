//! A chain that does what a test says, and providers on it.

use std::{
    collections::HashMap,
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use client::Wallet;
use cosmwasm_std::Uint128;
use futures::future::BoxFuture;
use inference_host::{
    chain::{Assignment, BlockTime, Chain, ChainError, ModelVersion, OpenedSession},
    start, Config, Running, Source,
};
use partition::Runtime;
use reqwest::{Method, StatusCode};
use schema::{
    merkle,
    price::{Ask, SpanPrice},
    receipt::Domain,
    staking::{DeploymentResponse, DeploymentState, DeploymentTerms, Sla, Span},
    work::{WorkState, WorkStatus},
    Digest, ItemId, ModelId, PublicKey,
};

use crate::tiny::{Controls, Tiny, TinyRuntime, CLASS};

pub(crate) fn now() -> u64 {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap()
        .as_secs()
}

pub(crate) fn item(job: u64) -> ItemId {
    ItemId {
        job,
        shard: 0,
        replica: 0,
    }
}

/// What a test may change at any time.
#[derive(Debug, Default)]
pub(crate) struct Facts {
    pub(crate) assignments: HashMap<(u64, u16, u8), Assignment>,
    pub(crate) inputs: HashMap<(u64, u16), Vec<Vec<u8>>>,
    pub(crate) deployments: Vec<DeploymentResponse>,
    pub(crate) versions: HashMap<String, ModelVersion>,
    pub(crate) endpoints: HashMap<String, String>,
    pub(crate) sessions: HashMap<u64, OpenedSession>,
    pub(crate) down: bool,
    /// Chain time minus this machine's.
    pub(crate) ahead_seconds: i64,
    /// A new block with every look at the time.
    pub(crate) blocks: u64,
    pub(crate) questions: usize,
}

#[derive(Debug, Default)]
pub(crate) struct FakeChain(pub(crate) Mutex<Facts>);

impl FakeChain {
    fn ask<'a, R: Send + 'a>(&self, answer: impl FnOnce(&Facts) -> Option<R>) -> BoxFuture<'a, Result<R, ChainError>> {
        let mut facts = self.0.lock().unwrap();
        facts.questions += 1;
        let result = match facts.down {
            true => Err(ChainError::Unreachable {
                reason: "the node is down".to_owned(),
            }),
            false => answer(&facts).ok_or(ChainError::Refused {
                reason: "not found".to_owned(),
            }),
        };
        Box::pin(async move { result })
    }
}

impl Chain for FakeChain {
    fn assignment(&self, item: ItemId) -> BoxFuture<'_, Result<Assignment, ChainError>> {
        self.ask(|facts| facts.assignments.get(&item.key()).cloned())
    }

    fn input(&self, job: u64, shard: u16) -> BoxFuture<'_, Result<Vec<Vec<u8>>, ChainError>> {
        self.ask(|facts| facts.inputs.get(&(job, shard)).cloned())
    }

    fn deployments<'a>(&'a self, provider: &'a str) -> BoxFuture<'a, Result<Vec<DeploymentResponse>, ChainError>> {
        self.ask(|facts| {
            let theirs = facts
                .deployments
                .iter()
                .filter(|deployment| deployment.provider == provider);
            Some(theirs.cloned().collect())
        })
    }

    fn version<'a>(&'a self, model: &'a ModelId, _: u32) -> BoxFuture<'a, Result<ModelVersion, ChainError>> {
        self.ask(|facts| facts.versions.get(model.as_str()).cloned())
    }

    fn endpoint<'a>(&'a self, provider: &'a str) -> BoxFuture<'a, Result<String, ChainError>> {
        self.ask(|facts| facts.endpoints.get(provider).cloned())
    }

    fn time(&self) -> BoxFuture<'_, Result<BlockTime, ChainError>> {
        let mut facts = self.0.lock().unwrap();
        facts.blocks += 1;
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        let reason = "the node is down".to_owned();
        let block = BlockTime {
            height: facts.blocks,
            unix_millis: (since.as_millis() as i64 + facts.ahead_seconds * 1000) as u64,
        };
        let answer = if facts.down {
            Err(ChainError::Unreachable { reason })
        } else {
            Ok(block)
        };
        Box::pin(async move { answer })
    }

    fn session(&self, session: u64) -> BoxFuture<'_, Result<OpenedSession, ChainError>> {
        self.ask(|facts| facts.sessions.get(&session).cloned())
    }

    fn account_of(&self, public_key: &[u8]) -> Option<String> {
        client::address_of(public_key, "wasm").ok()
    }
}

/// A fake chain with the tiny model on it.
pub(crate) struct Market {
    pub(crate) chain: Arc<FakeChain>,
    pub(crate) tiny: Tiny,
    pub(crate) developer: Wallet,
}

impl Market {
    pub(crate) fn new() -> Self {
        let tiny = Tiny::new();
        let chain = Arc::new(FakeChain::default());
        let version = ModelVersion {
            manifest: tiny.digest(),
            stages: tiny.stage_digests(),
        };
        chain.0.lock().unwrap().versions.insert("demo/tiny".to_owned(), version);
        Self {
            chain,
            tiny,
            developer: Wallet::dev("developer"),
        }
    }

    /// A provider with one deployment, not running yet.
    pub(crate) fn provider(&self, name: &str, deployment: u64, first: u8, last: u8) -> Provider {
        let provider = Provider::new(
            name,
            Arc::clone(&self.chain),
            Source::Folder(self.tiny.folder.path().into()),
        );
        provider.deploy("demo/tiny", CLASS, deployment, first, last);
        provider
    }

    /// Three running providers, one a stage, deployments 1 to 3.
    pub(crate) async fn three(&self) -> [Provider; 3] {
        let mut all =
            [0, 1, 2].map(|stage| self.provider(&format!("provider-{stage}"), u64::from(stage) + 1, stage, stage));
        for provider in &mut all {
            provider.start().await;
        }
        all
    }

    /// Assigns a job of these texts to a chain of (provider, deployment, first, last), for a minute.
    pub(crate) fn assign(&self, job: u64, texts: &[&str], chain: &[(&Provider, u64, u8, u8)]) -> Assignment {
        let rows: Vec<Vec<u8>> = texts.iter().map(|text| text.as_bytes().to_vec()).collect();
        let assignment = Assignment {
            domain: Domain {
                chain_id: "fxn-test-1".into(),
                contract: "wasm1orchestrator".into(),
            },
            item: item(job),
            attempt: 0,
            open: true,
            developer: self.developer.address("wasm"),
            model: "demo/tiny".parse().unwrap(),
            version: 1,
            endpoint: "embeddings".to_owned(),
            manifest: self.tiny.digest(),
            rows: rows.len() as u32,
            root: merkle::root(&rows),
            units_max: 10_000,
            engine_class: CLASS.to_owned(),
            spans: chain
                .iter()
                .map(|(provider, deployment, first, last)| provider.span(*deployment, *first, *last))
                .collect(),
            deadline: now() + 60,
            evidence_until: now() + 70,
        };
        let mut facts = self.chain.0.lock().unwrap();
        facts.inputs.insert((job, 0), rows);
        facts.assignments.insert(assignment.item.key(), assignment.clone());
        assignment
    }

    pub(crate) fn evidence_until(&self, job: u64) -> u64 {
        self.chain.0.lock().unwrap().assignments[&item(job).key()].evidence_until
    }

    /// Assigns a job to three providers, one a stage.
    pub(crate) fn assign_three(&self, job: u64, texts: &[&str], all: &[Provider; 3]) -> Assignment {
        self.assign(
            job,
            texts,
            &[(&all[0], 1, 0, 0), (&all[1], 2, 1, 1), (&all[2], 3, 2, 2)],
        )
    }
}

/// A provider: its key, its home, and its host while it runs.
pub(crate) struct Provider {
    pub(crate) address: String,
    pub(crate) key: Wallet,
    pub(crate) home: tempfile::TempDir,
    pub(crate) config: Config,
    pub(crate) controls: Arc<Controls>,
    pub(crate) runtime: Arc<dyn Runtime>,
    pub(crate) chain: Arc<FakeChain>,
    pub(crate) running: Option<Running>,
}

impl Provider {
    pub(crate) fn new(name: &str, chain: Arc<FakeChain>, source: Source) -> Self {
        let home = tempfile::tempdir().unwrap();
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let key = Wallet::dev(name);
        let address = key.address("wasm");
        let controls = Arc::new(Controls::default());
        let config = Config {
            listen: any,
            status: any,
            sources: vec![source],
            allow_private_peers: true,
            io_timeout_seconds: 5,
            refresh_seconds: 1,
            ..Config::new(home.path(), address.clone())
        };
        Self {
            address,
            key,
            home,
            config,
            runtime: Arc::new(TinyRuntime {
                controls: Arc::clone(&controls),
                ..TinyRuntime::default()
            }),
            controls,
            chain,
            running: None,
        }
    }

    /// Lists a deployment on the chain.
    pub(crate) fn deploy(&self, model: &str, engine_class: &str, deployment: u64, first: u8, last: u8) {
        let response = DeploymentResponse {
            deployment,
            provider: self.address.clone(),
            terms: DeploymentTerms {
                model: model.parse().unwrap(),
                version: 1,
                first,
                last,
                engine_class: engine_class.to_owned(),
                ask: ask(),
                reservation_per_hour: 100_000u128.into(),
                slots: 8,
                sla: sla(),
            },
            state: DeploymentState::Active,
            link_faults: 0,
            busy: 0,
            slot_bond: Uint128::zero(),
        };
        self.chain.0.lock().unwrap().deployments.push(response);
    }

    /// Starts the host, waits until it serves, and registers where it listens.
    pub(crate) async fn start(&mut self) {
        self.start_unready().await;
        self.eventually("ready", async |provider| {
            provider.get("/ready").await.0 == StatusCode::OK
        })
        .await;
    }

    pub(crate) async fn start_unready(&mut self) {
        let chain: Arc<dyn Chain> = Arc::clone(&self.chain) as Arc<dyn Chain>;
        let running = start(self.config.clone(), self.key.clone(), chain, Arc::clone(&self.runtime))
            .await
            .unwrap();
        let endpoint = format!("http://{}", running.listen());
        self.chain
            .0
            .lock()
            .unwrap()
            .endpoints
            .insert(self.address.clone(), endpoint);
        self.running = Some(running);
    }

    /// The process is gone from one moment to the next; only what is on disk is left.
    pub(crate) fn kill(&mut self) {
        drop(self.running.take());
    }

    pub(crate) fn span(&self, deployment: u64, first: u8, last: u8) -> Span {
        Span {
            deployment,
            provider: self.address.clone(),
            host_key: PublicKey(self.key.public_key()),
            first,
            last,
            compute_share_bps: 3333,
            ask: ask(),
            sla: sla(),
            price_max: SpanPrice::default(),
        }
    }

    pub(crate) fn public(&self, path: &str) -> String {
        format!("http://{}{path}", self.running.as_ref().unwrap().listen())
    }

    fn private(&self, path: &str) -> String {
        format!("http://{}{path}", self.running.as_ref().unwrap().status())
    }

    pub(crate) async fn get(&self, path: &str) -> (StatusCode, String) {
        let answer = reqwest::get(self.private(path)).await.unwrap();
        (answer.status(), answer.text().await.unwrap())
    }

    pub(crate) async fn status(&self) -> serde_json::Value {
        serde_json::from_str(&self.get("/status").await.1).unwrap()
    }

    pub(crate) async fn metric(&self, name: &str) -> u64 {
        let text = self.get("/metrics").await.1;
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(&format!("fxn_host_{name} ")));
        line.unwrap_or_else(|| panic!("no {name} in {text}")).parse().unwrap()
    }

    pub(crate) async fn call(&self, method: Method, path: &str, token: &str) -> (StatusCode, String) {
        let request = reqwest::Client::new()
            .request(method, self.private(path))
            .bearer_auth(token);
        let answer = request.send().await.unwrap();
        (answer.status(), answer.text().await.unwrap())
    }

    /// What the relayer does: begins or learns an attempt.
    pub(crate) async fn begin(&self, item: ItemId, attempt: u8) -> (StatusCode, String) {
        let token = self.running.as_ref().unwrap().token().to_owned();
        self.call(Method::PUT, &format!("/v1/items/{item}/{attempt}"), &token)
            .await
    }

    /// As [`Self::begin`], tried again while the host asks for it.
    pub(crate) async fn begin_surely(&self, item: ItemId) -> WorkStatus {
        for _ in 0..100 {
            let (status, body) = self.begin(item, 0).await;
            match status {
                StatusCode::ACCEPTED => return serde_json::from_str(&body).unwrap(),
                StatusCode::SERVICE_UNAVAILABLE => tokio::time::sleep(Duration::from_millis(50)).await,
                other => panic!("{other}: {body}"),
            }
        }
        panic!("item {item} was never begun");
    }

    /// Waits until our part of an item has ended.
    pub(crate) async fn ended(&self, item: ItemId) -> WorkStatus {
        let token = self.running.as_ref().unwrap().token().to_owned();
        let path = format!("/v1/items/{item}/0?wait_seconds=20");
        let (status, body) = self.call(Method::GET, &path, &token).await;
        assert_eq!(status, StatusCode::OK, "{body}");
        serde_json::from_str(&body).unwrap()
    }

    /// As [`Self::ended`], and it must have ended well.
    pub(crate) async fn done(&self, item: ItemId) -> WorkStatus {
        let status = self.ended(item).await;
        assert_eq!(status.state, WorkState::Done, "{:?}", status.error);
        status
    }

    /// Waits for something that happens in the background.
    pub(crate) async fn eventually(&self, what: &str, check: impl AsyncFn(&Self) -> bool) {
        for _ in 0..400 {
            if check(self).await {
                return;
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        panic!("{what} never happened: {}", self.status().await);
    }

    pub(crate) fn work_folder(&self, item: ItemId, span: u8) -> PathBuf {
        self.home.path().join("work").join(format!("{item}-0-{span}"))
    }
}

pub(crate) fn ask() -> Ask {
    Ask {
        per_1k_in: Uint128::new(1000),
        per_1k_out: Uint128::zero(),
        per_request: Uint128::zero(),
    }
}

pub(crate) fn sla() -> Sla {
    Sla {
        base_seconds: 10,
        seconds_per_1k_units: 1,
        units_max: 10_000,
        penalty_bps: 1000,
    }
}

/// What the developer gets for an output.
pub(crate) async fn fetch_output(
    provider: &Provider,
    assignment: &Assignment,
    output: Digest,
    signer: &Wallet,
    valid_until: u64,
) -> (StatusCode, Vec<u8>) {
    let request = schema::receipt::OutputRequest {
        domain: assignment.domain.clone(),
        item: assignment.item,
        output_digest: output,
        valid_until,
    };
    let signature = signer.sign_digest(&request.digest().0);
    let answer = reqwest::Client::new()
        .get(provider.public(&format!("/outputs/{output}")))
        .header("x-fxn-item", assignment.item.to_string())
        .header("x-fxn-valid-until", valid_until.to_string())
        .header("x-fxn-public-key", hex::encode(signer.public_key()))
        .header("x-fxn-signature", hex::encode(signature))
        .send()
        .await
        .unwrap();
    (answer.status(), answer.bytes().await.unwrap().to_vec())
}
