//! One node: its RPC and what it has shown of itself.

use std::{
    future::Future,
    sync::{
        atomic::{AtomicBool, Ordering},
        Arc, Mutex, MutexGuard, PoisonError,
    },
    time::Duration,
};

use tokio::time::Instant;

use super::{Endpoint, Standing, COOL_DOWN, COOL_DOWN_MAX, LAG_BLOCKS, PROBE_EVERY};
use crate::{error::ClientError, rpc::Rpc};

/// A failure in a thousand weighs so much in the record, and every call makes the record forget an eighth.
const ALWAYS: u32 = 1_000;

#[derive(Debug)]
pub(super) struct Node {
    rpc: Rpc,
    name: String,
    health: Mutex<Health>,
    is_probed: AtomicBool,
}

/// What a node has shown.
#[derive(Debug, Default)]
struct Health {
    /// Whether it was on the right chain since it was last reached anew.
    is_verified: bool,
    chain_id: Option<String>,
    other_chain: Option<String>,
    height: u64,
    /// Blocks that it was behind the others when it told its height.
    lag: u64,
    latency: Duration,
    /// Share of calls that failed, recent ones weighing most, in thousandths.
    unreliable: u32,
    failures_in_a_row: u32,
    failures: u64,
    last_error: Option<String>,
    cool_until: Option<Instant>,
    answered_at: Option<Instant>,
}

impl Node {
    pub(super) fn new(url: &str, timeout: Duration) -> Result<Node, ClientError> {
        let rpc = Rpc::new(url, timeout)?;
        Ok(Node {
            name: rpc.name(),
            rpc,
            health: Mutex::default(),
            is_probed: AtomicBool::new(false),
        })
    }

    /// The same with a number in its name.
    pub(super) fn numbered(self, number: usize) -> Node {
        let name = format!("{}#{number}", self.name);
        Node { name, ..self }
    }

    pub(super) fn rpc(&self) -> Rpc {
        self.rpc.clone()
    }

    pub(super) fn name(&self) -> String {
        self.name.clone()
    }

    fn health(&self) -> MutexGuard<'_, Health> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn height(&self) -> u64 {
        self.health().height
    }

    pub(super) fn other_chain(&self) -> Option<String> {
        self.health().other_chain.clone()
    }

    pub(super) fn is_refused(&self) -> bool {
        self.health().other_chain.is_some()
    }

    /// Whether it did not answer when it was last asked.
    pub(super) fn is_away(&self) -> bool {
        self.health().failures_in_a_row > 0
    }

    /// Lower is better.
    pub(super) fn rank(&self, now: Instant) -> (bool, u64, u32, u32) {
        let health = self.health();
        let lag = if health.lag <= LAG_BLOCKS { 0 } else { health.lag };
        // Wide steps: two nodes that are about as good must not take turns.
        let slowness = health.latency.as_millis().max(30).ilog(4);
        let failing = health.unreliable.checked_div(ALWAYS / 4).unwrap_or_default();
        (health.is_cooling(now), lag, failing, slowness)
    }

    pub(super) fn report(&self, now: Instant) -> Endpoint {
        let health = self.health();
        let standing = match &*health {
            health if health.other_chain.is_some() => Standing::OtherChain,
            health if health.is_cooling(now) || health.failures_in_a_row > 0 => Standing::Away,
            health if health.answered_at.is_none() => Standing::Unknown,
            health if health.lag > LAG_BLOCKS => Standing::Behind,
            _ => Standing::Good,
        };
        Endpoint {
            name: self.name.clone(),
            standing,
            chain_id: health.chain_id.clone(),
            height: health.height,
            latency_micros: u64::try_from(health.latency.as_micros()).unwrap_or(u64::MAX),
            failures: health.failures,
            last_error: health.last_error.clone(),
        }
    }

    /// Makes sure that it is on the chain, unless that is known and it was reached ever since.
    pub(super) async fn verified(&self, chain_id: &str, limit: Duration) -> Result<(), ClientError> {
        if self.health().is_verified {
            return Ok(());
        }
        self.verify(chain_id, limit).await
    }

    /// Asks it for its chain.
    pub(super) async fn verify(&self, chain_id: &str, limit: Duration) -> Result<(), ClientError> {
        let status = self.call(limit, self.rpc.status()).await?;
        let (found, height) = (status.chain_id, status.height);
        let mut health = self.health();
        health.chain_id = Some(found.clone());
        health.is_verified = found == chain_id;
        if health.is_verified {
            health.height = height;
            return Ok(());
        }
        let expected = chain_id.to_owned();
        if health.other_chain.replace(found.clone()).is_none() {
            tracing::error!(node = %self.name, %expected, %found, "a node is on another chain and will not be used");
        }
        Err(ClientError::ChainIdMismatch { expected, found })
    }

    /// A call of it, with what it says of the node.
    pub(super) async fn call<T>(
        &self,
        limit: Duration,
        call: impl Future<Output = Result<T, ClientError>>,
    ) -> Result<T, ClientError> {
        let began = Instant::now();
        let answered = tokio::time::timeout(limit, call).await;
        let result = answered.unwrap_or_else(|_| Err(self.rpc.silent(limit)));
        match &result {
            Err(error @ (ClientError::Unreachable { .. } | ClientError::BadAnswer { .. })) => self.failed(error),
            // Whatever it says, it says something.
            Ok(_) | Err(_) => self.answered(began.elapsed()),
        }
        result
    }

    fn answered(&self, latency: Duration) {
        let mut health = self.health();
        let before = if health.latency.is_zero() {
            latency
        } else {
            health.latency
        };
        health.latency = before
            .saturating_mul(7)
            .saturating_add(latency)
            .checked_div(8)
            .unwrap_or(latency);
        health.unreliable = health.unreliable.saturating_mul(7) / 8;
        health.failures_in_a_row = 0;
        health.cool_until = None;
        health.answered_at = Some(Instant::now());
    }

    fn failed(&self, error: &ClientError) {
        let mut health = self.health();
        let now = Instant::now();
        health.unreliable = health.unreliable.saturating_mul(7).saturating_add(ALWAYS) / 8;
        health.failures = health.failures.saturating_add(1);
        health.last_error = Some(error.to_string());
        let doublings = health.failures_in_a_row.min(16);
        let pause = COOL_DOWN.saturating_mul(1u32 << doublings).min(COOL_DOWN_MAX);
        health.failures_in_a_row = health.failures_in_a_row.saturating_add(1);
        health.cool_until = now.checked_add(pause);
        // Whoever answers at this address next may be another node.
        health.is_verified &= !matches!(error, ClientError::Unreachable { .. });
    }

    /// Notes the height of the state that it has answered from.
    pub(super) fn is_at(&self, height: u64, seen: u64) {
        let mut health = self.health();
        health.height = height;
        health.lag = seen.saturating_sub(height);
    }

    pub(super) fn behind(&self, height: u64, seen: u64) -> ClientError {
        ClientError::Behind {
            node: self.name.clone(),
            height,
            seen,
        }
    }

    /// A look at it, if its record is old and nobody looks at the moment.
    pub(super) fn probe(
        self: Arc<Node>,
        now: Instant,
        chain_id: String,
        limit: Duration,
        seen: u64,
    ) -> Option<impl Future<Output = ()> + Send + 'static> {
        let is_due = {
            let health = self.health();
            let is_old = health
                .answered_at
                .is_none_or(|at| now.saturating_duration_since(at) >= PROBE_EVERY);
            health.other_chain.is_none() && is_old && !health.is_cooling(now)
        };
        if !is_due || self.is_probed.swap(true, Ordering::SeqCst) {
            return None;
        }
        Some(async move {
            // What comes of it is in the record.
            if self.verify(&chain_id, limit).await.is_ok() {
                self.is_at(self.height(), seen);
            }
            self.is_probed.store(false, Ordering::SeqCst);
        })
    }
}

impl Health {
    fn is_cooling(&self, now: Instant) -> bool {
        self.cool_until.is_some_and(|until| now < until)
    }
}
