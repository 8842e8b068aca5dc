//! Loads what the provider's deployments promise, and says what is served and what is refused.
//!
//! Guarantees: a deployment is served only in the engine class it is registered for; its manifest, graphs and weights are what the chain
//! names, by digest; every stage has proven itself on the manifest's sample rows before the first paid row. What fails is refused with the
//! reason, tried again with growing pauses, and never keeps the other deployments from being served.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        atomic::{AtomicUsize, Ordering},
        Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak,
    },
    time::{Duration, Instant},
};

use partition::{self_test, Batching, Bundle, BundleError, Manifest, Runtime, RuntimeError, SelfTestError, Standing};
use schema::{
    staking::{DeploymentResponse, DeploymentTerms},
    Digest, INLINE_BYTES_MAX,
};
use serde::Serialize;
use tokio::{sync::Notify, task::JoinSet};

use crate::{
    blobs::Pinned,
    chain::{Chain, ChainError},
    engine::{Engine, Given, Health, Hung},
    metrics::Metrics,
    queue::{Limits, Queue},
    request::RowReader,
    serving::{Parts, Proven, Serving},
    sources::{Length, SourceError, Sources},
    tokenizer::TokenizerError,
};

/// Largest `config.json` that is kept for others.
const CONFIG_BYTES_MAX: u64 = 4 << 20;
/// Largest manifest.
pub(crate) const MANIFEST_BYTES_MAX: u64 = 16 << 20;
/// First and longest pause before a refused deployment is tried again.
const RETRY_FIRST: Duration = Duration::from_secs(5);
const RETRY_LONGEST: Duration = Duration::from_secs(300);
/// Threads that may hang before nothing is loaded any more: each keeps its session in memory.
const HUNG_MAX: usize = 2;

/// Why a deployment is not served.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LoadError {
    #[error("it is registered for engine class {registered}, this host is of class {ours}")]
    EngineClass { registered: String, ours: String },
    #[error("it is registered for stages {first} to {last}, the model has {stages}")]
    Stages { first: u8, last: u8, stages: usize },
    #[error("the manifest's stage {stage} is {found}, the chain says {expected}")]
    StageDigest {
        stage: usize,
        found: Digest,
        expected: Digest,
    },
    #[error(transparent)]
    Chain(#[from] ChainError),
    #[error(transparent)]
    Source(#[from] SourceError),
    #[error(transparent)]
    Bundle(#[from] BundleError),
    #[error("stage {stage}: {}", with_cause(source))]
    Runtime { stage: usize, source: RuntimeError },
    #[error("stage {stage} fails its self-test: {source}")]
    SelfTest { stage: usize, source: SelfTestError },
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    #[error("no thread for stage {stage}: {source}")]
    Thread { stage: usize, source: std::io::Error },
    #[error("stage {stage}: the runtime panicked while it loaded or tested the graph")]
    Panicked { stage: usize },
    #[error("stage {stage}: the runtime took longer than {seconds} s to load and test the graph")]
    Slow { stage: usize, seconds: u64 },
    #[error("{threads} threads of this host hang in graphs, so it loads no more: restart it")]
    Hung { threads: usize },
}

/// The sentence of an error that keeps the interesting part in its source.
fn with_cause(error: &RuntimeError) -> String {
    match std::error::Error::source(error) {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}

/// How a host treats all its deployments.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Policy {
    /// Most rows waiting, per deployment.
    pub queue_rows_max: usize,
    /// Most positions in a batch.
    pub batch_positions_max: u64,
    /// Whether rows share batches where that may change their bits.
    pub device_batches: bool,
    /// Longest run of a batch, and longest load of a stage.
    pub patience: Duration,
    /// Most pieces of work that are remembered.
    pub items_max: usize,
    /// Most bytes of rows in memory.
    pub rows_bytes_max: u64,
}

impl Policy {
    /// Which limit of this host refuses work that the terms allow for, if any does. A row counts one unit at least.
    pub(crate) fn shortage(&self, terms: &DeploymentTerms, serving: &Serving) -> Option<String> {
        let units = terms.sla.units_max;
        let rows = units.min(u64::try_from(INLINE_BYTES_MAX).unwrap_or(u64::MAX));
        let (queue, memory) = (self.queue_rows_max, self.rows_bytes_max);
        let bytes = serving.sent_bytes(units);
        if rows > u64::try_from(queue).unwrap_or(u64::MAX) {
            return Some(format!("an item may have {rows} rows, queue_rows_max is {queue}"));
        }
        (bytes > memory)
            .then(|| format!("an item of {units} units becomes {bytes} bytes of rows, rows_bytes_max is {memory}"))
    }
}

/// All deployments of the provider.
pub(crate) struct Models {
    provider: String,
    policy: Policy,
    chain: Arc<dyn Chain>,
    sources: Sources,
    runtime: Arc<dyn Runtime>,
    metrics: Arc<Metrics>,
    slots: RwLock<HashMap<u64, Slot>>,
    /// Stages that several deployments share are loaded once.
    loaded: Mutex<HashMap<Digest, Weak<Proven>>>,
    /// Held while a stage is loaded: they take turns, so that two deployments of one stage share it.
    proving: tokio::sync::Mutex<()>,
    hung: Hung,
    /// Deployments that a task is loading.
    loading: Mutex<HashSet<u64>>,
    /// As they were when somebody was last told that they are too many.
    slots_promised: AtomicUsize,
    changed: Notify,
    chain_trouble: Mutex<Option<String>>,
}

impl std::fmt::Debug for Models {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Models")
            .field("provider", &self.provider)
            .finish_non_exhaustive()
    }
}

#[derive(Debug)]
struct Slot {
    response: DeploymentResponse,
    state: State,
}

#[derive(Debug)]
enum State {
    Loading,
    Ready(Arc<Serving>),
    Refused {
        reason: String,
        failures: u32,
        retry_at: Instant,
    },
}

/// A deployment that cannot take work now.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("deployment {deployment} is not served: {reason}")]
pub struct NotServing {
    pub deployment: u64,
    pub reason: String,
}

/// One line of the status.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct DeploymentStatus {
    pub deployment: u64,
    pub model: String,
    pub version: u32,
    pub first: u8,
    pub last: u8,
    pub engine_class: String,
    /// `loading`, `ready`, `refused`, or `stopped` where an engine has ended.
    pub state: &'static str,
    /// Why it is refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Which limit of this host refuses work that the terms allow for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shortage: Option<String>,
    /// Relative error against the reference, where the manifest does not list the engine class.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub newcomer_error_ppb: Option<u64>,
    /// Rows waiting now.
    pub queued_rows: usize,
}

impl Models {
    pub(crate) fn new(
        provider: String,
        policy: Policy,
        chain: Arc<dyn Chain>,
        sources: Sources,
        runtime: Arc<dyn Runtime>,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            provider,
            policy,
            chain,
            sources,
            runtime,
            metrics,
            slots: RwLock::default(),
            loaded: Mutex::default(),
            proving: tokio::sync::Mutex::default(),
            hung: Hung::default(),
            loading: Mutex::default(),
            slots_promised: AtomicUsize::new(0),
            changed: Notify::new(),
            chain_trouble: Mutex::new(Some("the chain has not answered yet".to_owned())),
        }
    }

    pub(crate) fn engine_class(&self) -> String {
        self.runtime.engine_class()
    }

    /// The deployment, if it is ready. If it is not known at all, the chain is asked soon.
    pub(crate) fn find(&self, deployment: u64) -> Result<Arc<Serving>, NotServing> {
        let reason = match self.slots().get(&deployment).map(|slot| &slot.state) {
            Some(State::Ready(serving)) => match serving.health() {
                Health::Ready => return Ok(Arc::clone(serving)),
                Health::Stopped { reason } => reason,
            },
            Some(State::Loading) => "it is still loading".to_owned(),
            Some(State::Refused { reason, .. }) => reason.clone(),
            None => {
                self.changed.notify_one();
                "it has not been looked up yet".to_owned()
            }
        };
        Err(NotServing { deployment, reason })
    }

    /// Threads that hang in a graph.
    pub(crate) fn hung_threads(&self) -> usize {
        self.hung.threads()
    }

    /// Every deployment, by number.
    pub(crate) fn status(&self) -> Vec<DeploymentStatus> {
        let slots = self.slots();
        let mut all: Vec<DeploymentStatus> = slots.values().map(|slot| slot.status(&self.policy)).collect();
        all.sort_by_key(|status| status.deployment);
        all
    }

    /// Why this host cannot take all the work it is registered for, if it cannot.
    pub(crate) fn trouble(&self) -> Option<String> {
        let unready = |status: DeploymentStatus| {
            let reason = status.reason.unwrap_or_else(|| "it is still loading".to_owned());
            (status.state != "ready").then(|| format!("deployment {}: {reason}", status.deployment))
        };
        lock(&self.chain_trouble)
            .clone()
            .or_else(|| self.status().into_iter().find_map(unready))
    }

    /// Looks the deployments up and loads what is new, each on a task of its own, until this one is dropped.
    pub(crate) async fn keep(self: &Arc<Self>, every: Duration) {
        let mut loads = JoinSet::new();
        loop {
            match self.chain.deployments(&self.provider).await {
                Ok(found) => {
                    *lock(&self.chain_trouble) = None;
                    self.refresh(found, &mut loads);
                }
                Err(error) => {
                    tracing::warn!(%error, "the deployments could not be looked up");
                    *lock(&self.chain_trouble) = Some(error.to_string());
                }
            }
            let _ = tokio::time::timeout(every, self.changed.notified()).await;
            while loads.try_join_next().is_some() {}
            // A flood of questions about unknown deployments must not become a flood of queries.
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    fn refresh(self: &Arc<Self>, found: Vec<DeploymentResponse>, loads: &mut JoinSet<()>) {
        let listed: Vec<u64> = found.iter().map(|deployment| deployment.deployment).collect();
        self.slots_mut().retain(|deployment, _| listed.contains(deployment));
        let slots = found.iter().map(|deployment| usize::from(deployment.terms.slots));
        let slots = slots.fold(0, usize::saturating_add);
        let items_max = self.policy.items_max;
        if slots > items_max && self.slots_promised.swap(slots, Ordering::Relaxed) != slots {
            tracing::warn!(
                slots,
                items_max,
                "the deployments have more slots than this host remembers pieces of work"
            );
        }
        for response in found {
            let deployment = response.deployment;
            let Some(failures) = self.due(&response) else { continue };
            if !lock(&self.loading).insert(deployment) {
                continue;
            }
            let models = Arc::clone(self);
            loads.spawn(async move {
                let state = match models.load(&response).await {
                    Ok(serving) => {
                        tracing::info!(deployment, model = %response.terms.model, "deployment is served");
                        if let Some(shortage) = models.policy.shortage(&response.terms, &serving) {
                            tracing::warn!(
                                deployment,
                                shortage,
                                "the deployment promises more than this host takes"
                            );
                        }
                        State::Ready(Arc::new(serving))
                    }
                    Err(error) => refused(deployment, error.to_string(), failures),
                };
                models.slots_mut().insert(deployment, Slot { response, state });
                lock(&models.loading).remove(&deployment);
            });
        }
    }

    /// Whether a deployment is to be loaded now, and how often that has failed.
    fn due(&self, response: &DeploymentResponse) -> Option<u32> {
        let mut slots = self.slots_mut();
        let failures = match slots.get(&response.deployment).map(|slot| &slot.state) {
            None => 0,
            // Loading already; `loading` would say the same.
            Some(State::Loading) => return None,
            Some(State::Ready(serving)) => match serving.health() {
                Health::Ready => return None,
                Health::Stopped { reason } => {
                    tracing::error!(deployment = response.deployment, reason, "an engine has stopped");
                    1
                }
            },
            Some(State::Refused { retry_at, .. }) if *retry_at > Instant::now() => return None,
            Some(State::Refused { failures, .. }) => *failures,
        };
        if failures == 0 {
            let state = State::Loading;
            let response = response.clone();
            slots.insert(response.deployment, Slot { response, state });
        }
        Some(failures)
    }

    async fn load(&self, response: &DeploymentResponse) -> Result<Serving, LoadError> {
        let terms = &response.terms;
        let ours = self.runtime.engine_class();
        if terms.engine_class != ours {
            let registered = terms.engine_class.clone();
            return Err(LoadError::EngineClass { registered, ours });
        }
        let version = self.chain.version(&terms.model, terms.version).await?;
        let length = Length::AtMost(MANIFEST_BYTES_MAX);
        let (manifest_pin, manifest) = self.sources.read(version.manifest, length).await?;
        let bundle = Bundle::with_store(&manifest, self.sources.folder())?;
        check_stages(bundle.manifest(), &version.stages, terms.first, terms.last)?;
        let (first, last) = (usize::from(terms.first), usize::from(terms.last));
        let mut pins = vec![manifest_pin];
        for stage in first..=last {
            for blob in bundle.stage_blobs(stage)? {
                let digest = Digest(blob.sha256.to_bytes());
                pins.push(self.sources.get(digest, Length::Exactly(blob.bytes)).await?);
            }
        }
        let reader = match first {
            0 => Some(self.reader(bundle.manifest(), &mut pins).await?),
            _ => None,
        };
        let mut stages = Vec::new();
        for stage in first..=last {
            stages.push(self.prove(&bundle, stage).await?);
        }
        let parts = Parts {
            manifest: version.manifest,
            bundle,
            span: (first, last),
            reader,
            stages,
            pins,
            deployment: response.deployment,
            metrics: Arc::clone(&self.metrics),
        };
        let queue = Queue::new(self.policy.queue_rows_max);
        let share = self.policy.device_batches || self.runtime.batches_keep_bits();
        let limits = Limits {
            positions_max: self.policy.batch_positions_max,
            batching: match share {
                true => parts.bundle.manifest().batching,
                false => Batching::Single,
            },
        };
        Ok(Serving::start(parts, queue, limits))
    }

    /// What reads a developer's rows. A model without a tokenizer is served like any other, but takes no texts.
    async fn reader(&self, manifest: &Manifest, pins: &mut Vec<Pinned>) -> Result<RowReader, LoadError> {
        // What people call the classes of a model. Nothing is computed with it, so it may as well be missing.
        if let Some(blob) = manifest.config.as_ref().filter(|blob| blob.bytes <= CONFIG_BYTES_MAX) {
            let config = self
                .sources
                .get(Digest(blob.sha256.to_bytes()), Length::Exactly(blob.bytes));
            pins.extend(config.await.ok());
        }
        let Some(blob) = &manifest.tokenizer else {
            return Ok(RowReader::new(manifest, None)?);
        };
        let digest = Digest(blob.sha256.to_bytes());
        let (pin, bytes) = self.sources.read(digest, Length::Exactly(blob.bytes)).await?;
        pins.push(pin);
        Ok(RowReader::new(manifest, Some(&bytes))?)
    }

    /// Loads a stage on a thread of its own and lets it prove itself, unless another deployment has it already.
    async fn prove(&self, bundle: &Bundle, stage: usize) -> Result<Arc<Proven>, LoadError> {
        let digest = Digest(bundle.stage(stage)?.digest.to_bytes());
        let _turn = self.proving.lock().await;
        let shared = lock(&self.loaded).get(&digest).and_then(Weak::upgrade);
        if let Some(proven) = shared.filter(|proven| proven.engine.health() == Health::Ready) {
            return Ok(proven);
        }
        let threads = self.hung.threads();
        if threads >= HUNG_MAX {
            return Err(LoadError::Hung { threads });
        }
        let (bundle, runtime) = (bundle.clone(), Arc::clone(&self.runtime));
        let (patience, hung) = (self.policy.patience, self.hung.clone());
        let work = move || load_and_test(&bundle, stage, runtime.as_ref(), patience, hung);
        let given = |given| match given {
            Given::NoThread(source) => LoadError::Thread { stage, source },
            Given::Panicked => LoadError::Panicked { stage },
            Given::Up => LoadError::Slow {
                stage,
                seconds: patience.as_secs(),
            },
        };
        let proven = self.hung.on_thread("load-stage", patience, work).await;
        let proven = Arc::new(proven.map_err(given)??);
        let mut loaded = lock(&self.loaded);
        loaded.retain(|_, proven| proven.strong_count() > 0);
        loaded.insert(digest, Arc::downgrade(&proven));
        Ok(proven)
    }

    fn slots(&self) -> std::sync::RwLockReadGuard<'_, HashMap<u64, Slot>> {
        self.slots.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn slots_mut(&self) -> std::sync::RwLockWriteGuard<'_, HashMap<u64, Slot>> {
        self.slots.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Slot {
    fn status(&self, policy: &Policy) -> DeploymentStatus {
        let terms = &self.response.terms;
        let (state, reason, serving) = match &self.state {
            State::Loading => ("loading", None, None),
            State::Refused { reason, .. } => ("refused", Some(reason.clone()), None),
            State::Ready(serving) => match serving.health() {
                Health::Ready => ("ready", None, Some(serving)),
                Health::Stopped { reason } => ("stopped", Some(reason), Some(serving)),
            },
        };
        DeploymentStatus {
            deployment: self.response.deployment,
            model: terms.model.to_string(),
            version: terms.version,
            first: terms.first,
            last: terms.last,
            engine_class: terms.engine_class.clone(),
            state,
            reason,
            shortage: serving.and_then(|serving| policy.shortage(terms, serving)),
            newcomer_error_ppb: serving.and_then(|serving| serving.newcomer_error_ppb()),
            queued_rows: serving.map_or(0, |serving| serving.queued()),
        }
    }
}

fn refused(deployment: u64, reason: String, failures: u32) -> State {
    tracing::error!(deployment, reason, "deployment is refused");
    let pause = RETRY_FIRST
        .saturating_mul(2_u32.saturating_pow(failures))
        .min(RETRY_LONGEST);
    let now = Instant::now();
    State::Refused {
        reason,
        failures: failures.saturating_add(1),
        retry_at: now.checked_add(pause).unwrap_or(now),
    }
}

fn check_stages(manifest: &Manifest, chain: &[Digest], first: u8, last: u8) -> Result<(), LoadError> {
    let stages = manifest.stages.len();
    if first > last || usize::from(last) >= stages || chain.len() != stages {
        return Err(LoadError::Stages { first, last, stages });
    }
    for (stage, (ours, expected)) in manifest.stages.iter().zip(chain).enumerate() {
        let (found, expected) = (Digest(ours.digest.to_bytes()), *expected);
        if found != expected {
            return Err(LoadError::StageDigest { stage, found, expected });
        }
    }
    Ok(())
}

fn load_and_test(
    bundle: &Bundle,
    stage: usize,
    runtime: &dyn Runtime,
    patience: Duration,
    hung: Hung,
) -> Result<Proven, LoadError> {
    let graph = bundle.verify_stage(stage)?;
    let mut loaded = runtime
        .load(&graph)
        .map_err(|source| LoadError::Runtime { stage, source })?;
    let (manifest, class) = (bundle.manifest(), runtime.engine_class());
    let calibration = bundle.calibration(stage)?;
    let standing = self_test(manifest, stage, &calibration, &class, loaded.as_mut())
        .map_err(|source| LoadError::SelfTest { stage, source })?;
    if let Standing::Newcomer { error_ppb } = standing {
        tracing::warn!(
            stage,
            class,
            error_ppb,
            "the manifest does not list this engine class; it is within the tolerance"
        );
    }
    let engine = Engine::start(
        bundle.stage(stage)?.clone(),
        loaded,
        manifest.max_positions,
        patience,
        hung,
    )
    .map_err(|source| LoadError::Thread { stage, source })?;
    Ok(Proven { engine, standing })
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Values under these locks are replaced as a whole, so a panic elsewhere leaves nothing half done.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
