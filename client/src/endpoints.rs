//! The nodes of one network, and which of them is asked.
//!
//! Guarantees:
//! - Only nodes of the right chain: a node is asked for its chain id before its first use and again after every time that it was not
//!   reached. One of another chain is told once, in the log and in [`Endpoint`], and never used again.
//! - What is told never goes back: a query is answered from a state at least as new as everything that was told before, whichever node
//!   answered it. A node that is behind is asked again, or another in its place; if none has come as far in time, that is an error.
//! - A node that fails is replaced inside the time-out of the call: each further node gets its share of the time that is left.
//! - Bounded: one call asks each node, one after the other; a probe of a node that is not in use goes on in one task a node at most.
//!
//! The order is by health: nodes that have failed wait longer and longer, and come last meanwhile; then those that are behind, those that often
//! fail, those that are slow; of equals the one named first. What makes a node healthy is learned from the calls themselves.

mod node;

use std::{
    future::Future,
    sync::{
        atomic::{AtomicU64, Ordering},
        Arc, Mutex, PoisonError,
    },
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use self::node::Node;
use crate::{
    client::Status,
    error::ClientError,
    outcome::{TxHash, TxOutcome},
    rpc::{Answer, BlockResults, NewBlocks, Rpc},
};

/// Blocks that a node may be behind the others without coming after them: what two nodes of one network differ by at any moment.
const LAG_BLOCKS: u64 = 3;
/// Longest first look at each of several nodes: one that says nothing must not hold up the others.
const FIRST_LOOK: Duration = Duration::from_secs(3);
/// Longest wait for a further node where one has said that there is nothing.
const SECOND_OPINION: Duration = Duration::from_secs(1);
/// How old the record of a node may be before it is looked at again.
const PROBE_EVERY: Duration = Duration::from_secs(5);
/// Cool-down after the first failure in a row; doubled with each further one.
const COOL_DOWN: Duration = Duration::from_millis(500);
/// Longest cool-down.
const COOL_DOWN_MAX: Duration = Duration::from_secs(30);
/// Pause before nodes that are behind are asked again; a node stores a block before it has run it.
const BEHIND_PAUSE: Duration = Duration::from_millis(25);
/// How long all nodes may be behind what was told before. After that what was told was wrong, or the chain was reset.
const BEHIND_MAX: Duration = Duration::from_secs(60);

/// How a node stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// It has not answered so far.
    Unknown,
    /// It answers, and has come as far as the others.
    Good,
    /// It answers, and has fewer blocks than the others.
    Behind,
    /// It was not reached, and is tried again after a while.
    Away,
    /// It is on another chain, and never used.
    OtherChain,
}

/// What is known of a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// Its host and port.
    pub name: String,
    /// How it stands.
    pub standing: Standing,
    /// The chain that it says it is on, where it has said so.
    pub chain_id: Option<String>,
    /// The last height that it told.
    pub height: u64,
    /// How long it usually takes to answer, in microseconds.
    pub latency_micros: u64,
    /// Calls that it did not answer well.
    pub failures: u64,
    /// The last of them.
    pub last_error: Option<String>,
}

/// What a node has said.
pub(crate) enum Told<T> {
    /// A value that is true for good, or that the caller judges.
    Fact(T),
    /// A value of the state after the block of this height.
    At(T, u64),
    /// That there is no such thing, as far as it knows.
    Nothing,
}

/// The nodes of a network, healthiest first.
#[derive(Debug)]
pub(crate) struct Endpoints {
    chain_id: String,
    timeout: Duration,
    nodes: Vec<Arc<Node>>,
    /// Height of the newest state that was told.
    seen: AtomicU64,
    /// Since when every node has been behind that.
    behind_since: Mutex<Option<Instant>>,
}

impl Endpoints {
    /// Looks at every node once. At least one has to be on the chain.
    pub(crate) async fn connect(
        chain_id: &str,
        urls: &[String],
        timeout: Duration,
    ) -> Result<Arc<Endpoints>, ClientError> {
        let mut nodes: Vec<Arc<Node>> = vec![];
        for (place, url) in urls.iter().enumerate() {
            // Twice the same is one.
            if !urls.iter().take(place).any(|earlier| earlier == url) {
                let node = Node::new(url, timeout)?;
                let is_taken = nodes.iter().any(|other| other.name() == node.name());
                // Several may be behind one address, told apart by what is nobody's business.
                let node = if is_taken { node.numbered(place) } else { node };
                nodes.push(Arc::new(node));
            }
        }
        let endpoints = Endpoints {
            chain_id: chain_id.to_owned(),
            timeout,
            nodes,
            seen: AtomicU64::new(0),
            behind_since: Mutex::default(),
        };
        let limit = match endpoints.nodes.len() {
            1 => timeout,
            _ => timeout.min(FIRST_LOOK),
        };
        let looks = endpoints.nodes.iter().map(|node| node.verify(chain_id, limit));
        let mut failure = None;
        let mut is_any_good = false;
        for look in futures::future::join_all(looks).await {
            match look {
                Ok(()) => is_any_good = true,
                Err(ClientError::ChainIdMismatch { .. }) => {}
                Err(error) => drop(failure.get_or_insert(error)),
            }
        }
        match (is_any_good, failure) {
            (true, _) => Ok(Arc::new(endpoints)),
            (false, Some(error)) => Err(error),
            (false, None) => Err(endpoints.all_refused()),
        }
    }

    /// What is known of each node, in the order in which they were named.
    pub(crate) fn report(&self) -> Vec<Endpoint> {
        let now = Instant::now();
        self.nodes.iter().map(|node| node.report(now)).collect()
    }

    /// Height of the newest state that was told.
    pub(crate) fn seen(&self) -> u64 {
        self.seen.load(Ordering::SeqCst)
    }

    /// Where the chain stands. If all nodes have fewer blocks than they had before, that is what is told: callers know what it means.
    pub(crate) async fn status(&self) -> Result<Status, ClientError> {
        self.probe();
        let highest: Mutex<Option<Status>> = Mutex::default();
        let seen = &highest;
        let ask = |rpc: Rpc| async move {
            let status = rpc.status().await?;
            let height = status.height;
            let mut highest = seen.lock().unwrap_or_else(PoisonError::into_inner);
            if highest.as_ref().is_none_or(|highest| highest.height < height) {
                *highest = Some(status.clone());
            }
            Ok(Told::At(status, height))
        };
        let told = self.round(self.until(), &ask).await;
        match (told, highest.into_inner().unwrap_or_else(PoisonError::into_inner)) {
            (Err(ClientError::Behind { .. }), Some(highest)) => Ok(highest),
            (told, _) => self.something(told?),
        }
    }

    pub(crate) async fn abci_query(&self, (path, data): (&'static str, Vec<u8>)) -> Result<Answer, ClientError> {
        let told = self.ask(|rpc: Rpc| {
            let query = (path, data.clone());
            async move {
                let answer = rpc.abci_query(query).await?;
                Ok(match answer.height {
                    0 => Told::Fact(answer),
                    height => Told::At(answer, height),
                })
            }
        });
        self.something(told.await?)
    }

    /// The transaction, if any node has it in a block. `None` counts only from a node that is not behind.
    pub(crate) async fn tx(&self, hash: TxHash) -> Result<Option<TxOutcome>, ClientError> {
        let found = self.ask(|rpc: Rpc| async move {
            let found = rpc.tx(hash).await?;
            Ok(found.map_or(Told::Nothing, Told::Fact))
        });
        let found = found.await?;
        if let Some(outcome) = &found {
            // What it changed can be asked for from now on.
            self.seen.fetch_max(outcome.height, Ordering::SeqCst);
        }
        Ok(found)
    }

    /// A block with its results, from any node that has both. `None` when the chain has not come that far.
    pub(crate) async fn block(&self, height: u64) -> Result<Option<BlockResults>, ClientError> {
        let found = self.ask(|rpc: Rpc| async move {
            let found = rpc.block(height).await?;
            Ok(found.map_or(Told::Nothing, Told::Fact))
        });
        let found = found.await?;
        if found.is_some() {
            self.seen.fetch_max(height, Ordering::SeqCst);
        }
        Ok(found)
    }

    /// Hands a transaction to the best node that can be reached.
    pub(crate) async fn broadcast(&self, bytes: &[u8]) -> Result<(u32, String, String), ClientError> {
        let told = self.ask(|rpc: Rpc| async move { rpc.broadcast(bytes).await.map(Told::Fact) });
        self.something(told.await?)
    }

    /// Hands a transaction to every node that is there. The best answer: taken by one, else refused, else the failure.
    pub(crate) async fn spread(&self, bytes: &[u8]) -> Result<(u32, String, String), ClientError> {
        let mut nodes = self.ranked(Instant::now());
        if nodes.iter().any(|node| !node.is_away()) {
            nodes.retain(|node| !node.is_away());
        }
        let hand_over = |rpc: Rpc| async move { rpc.broadcast(bytes).await.map(Told::Fact) };
        let handed = nodes.iter().map(|node| self.attempt(node, self.timeout, &hand_over));
        let mut worst = None;
        let mut refusal = None;
        for answer in futures::future::join_all(handed).await {
            match answer {
                Ok(Some((0, codespace, log))) => return Ok((0, codespace, log)),
                Ok(Some(refused)) => drop(refusal.get_or_insert(refused)),
                Ok(None) => {}
                Err(error) => drop(worst.get_or_insert(error)),
            }
        }
        match (refusal, worst) {
            (Some(refused), _) => Ok(refused),
            (None, Some(error)) => Err(error),
            (None, None) => Err(self.all_refused()),
        }
    }

    /// Opens a subscription to new blocks at the first node that offers one.
    pub(crate) async fn new_blocks(&self) -> Result<NewBlocks, ClientError> {
        let mut failure = None;
        for node in self.ranked(Instant::now()) {
            if let Err(error) = node.verified(&self.chain_id, self.timeout).await {
                failure = Some(error);
                continue;
            }
            match node.rpc().new_blocks().await {
                Ok(blocks) => return Ok(blocks),
                // Polling does without it: no reason to think badly of the node.
                Err(error) => failure = Some(error),
            }
        }
        Err(failure.unwrap_or_else(|| self.all_refused()))
    }

    fn until(&self) -> Instant {
        let now = Instant::now();
        now.checked_add(self.timeout).unwrap_or(now)
    }

    /// Asks node after node. If the best that could be had is behind, asks again until the time-out.
    async fn ask<T, F>(&self, call: impl Fn(Rpc) -> F) -> Result<Option<T>, ClientError>
    where
        F: Future<Output = Result<Told<T>, ClientError>>,
    {
        let until = self.until();
        loop {
            match self.round(until, &call).await {
                Err(ClientError::Behind { .. }) if Instant::now() < until => tokio::time::sleep(BEHIND_PAUSE).await,
                told => return told,
            }
        }
    }

    /// Asks every node once at most, the healthiest first, until one has an answer.
    async fn round<T, F>(&self, until: Instant, call: &impl Fn(Rpc) -> F) -> Result<Option<T>, ClientError>
    where
        F: Future<Output = Result<Told<T>, ClientError>>,
    {
        let nodes = self.ranked(Instant::now());
        let mut failures = vec![];
        let mut is_nothing = false;
        for (place, node) in nodes.iter().enumerate() {
            // The last one may use up what the others have left.
            let waiting = u32::try_from(nodes.len().saturating_sub(place)).unwrap_or(u32::MAX);
            let left = until.saturating_duration_since(Instant::now());
            let share = match is_nothing {
                false => left.checked_div(waiting).unwrap_or(left),
                // There is an answer; a second opinion must not cost much.
                true if node.is_away() => continue,
                true => left.min(SECOND_OPINION),
            };
            match self.attempt(node, share, call).await {
                Ok(Some(told)) => return Ok(Some(told)),
                Ok(None) => is_nothing = true,
                Err(error) if is_of_the_node(&error) => failures.push(error),
                Err(error) => return Err(error),
            }
        }
        if is_nothing {
            *self.behind_since.lock().unwrap_or_else(PoisonError::into_inner) = None;
            return Ok(None);
        }
        self.doubt(&failures);
        let worst = failures.into_iter().min_by_key(order);
        Err(worst.unwrap_or_else(|| self.all_refused()))
    }

    /// One call to one node, within its share of the time.
    async fn attempt<T, F>(
        &self,
        node: &Node,
        share: Duration,
        call: &impl Fn(Rpc) -> F,
    ) -> Result<Option<T>, ClientError>
    where
        F: Future<Output = Result<Told<T>, ClientError>>,
    {
        let began = Instant::now();
        node.verified(&self.chain_id, share).await?;
        // Before the call: whatever is told meanwhile was not known when this was asked.
        let seen = self.seen();
        let left = share.saturating_sub(began.elapsed());
        match node.call(left, call(node.rpc())).await? {
            Told::Fact(value) => Ok(Some(value)),
            Told::At(value, height) => {
                node.is_at(height, seen);
                if height < seen {
                    return Err(node.behind(height, seen));
                }
                self.seen.fetch_max(height, Ordering::SeqCst);
                *self.behind_since.lock().unwrap_or_else(PoisonError::into_inner) = None;
                Ok(Some(value))
            }
            Told::Nothing if node.height() >= seen => Ok(None),
            Told::Nothing => {
                // Perhaps it has come as far in the meantime: then it is believed when it says so again.
                let left = share.saturating_sub(began.elapsed());
                node.verify(&self.chain_id, left).await?;
                Err(node.behind(node.height(), seen))
            }
        }
    }

    /// Nodes that may be asked, the healthiest first.
    fn ranked(&self, now: Instant) -> Vec<Arc<Node>> {
        let mut nodes: Vec<_> = self.nodes.iter().filter(|node| !node.is_refused()).cloned().collect();
        // Stable: of equals the one named first.
        nodes.sort_by_cached_key(|node| node.rank(now));
        nodes
    }

    /// Looks at nodes that nobody has asked for a while, so that their record is worth something when one of them is needed.
    fn probe(&self) {
        let now = Instant::now();
        for node in self.nodes.iter().filter(|_| self.nodes.len() > 1) {
            if let Some(probe) = node
                .clone()
                .probe(now, self.chain_id.clone(), self.timeout, self.seen())
            {
                tokio::spawn(probe);
            }
        }
    }

    /// A height that no node confirms for long was wrong, or the chain was reset: it must not make every answer unusable for ever.
    fn doubt(&self, failures: &[ClientError]) {
        let mut since = self.behind_since.lock().unwrap_or_else(PoisonError::into_inner);
        let highest = failures.iter().filter_map(|failure| match failure {
            ClientError::Behind { height, .. } => Some(*height),
            _ => None,
        });
        let Some(highest) = highest.max() else { return };
        if since.get_or_insert_with(Instant::now).elapsed() >= BEHIND_MAX {
            let seen = self.seen.swap(highest, Ordering::SeqCst);
            tracing::warn!(
                seen,
                highest,
                "no node has come as far as was told before; it is forgotten"
            );
            *since = None;
        }
    }

    fn all_refused(&self) -> ClientError {
        let found = self
            .nodes
            .iter()
            .filter_map(|node| Some((node.name(), node.other_chain()?)));
        let found: Vec<(String, String)> = found.collect();
        match found.as_slice() {
            [(_, found)] => ClientError::ChainIdMismatch {
                expected: self.chain_id.clone(),
                found: found.clone(),
            },
            all => ClientError::WrongChains {
                expected: self.chain_id.clone(),
                found: all
                    .iter()
                    .map(|(name, chain)| format!("{name} on {chain:?}"))
                    .collect::<Vec<_>>()
                    .join(", "),
            },
        }
    }

    fn something<T>(&self, told: Option<T>) -> Result<T, ClientError> {
        told.ok_or_else(|| ClientError::BadAnswer {
            what: "the call",
            reason: "no node has an answer".into(),
        })
    }
}

/// Whether another node may do better.
fn is_of_the_node(error: &ClientError) -> bool {
    matches!(
        error,
        ClientError::Unreachable { .. }
            | ClientError::BadAnswer { .. }
            | ClientError::Behind { .. }
            | ClientError::Pruned { .. }
            | ClientError::ChainIdMismatch { .. }
    )
}

/// Which of several failures is told: what can be acted on first, and of pruned blocks the one that has the most left.
fn order(error: &ClientError) -> (u8, u64) {
    match error {
        ClientError::Pruned { earliest, .. } => (0, *earliest),
        ClientError::Behind { .. } => (1, 0),
        ClientError::BadAnswer { .. } => (2, 0),
        ClientError::Unreachable { .. } => (3, 0),
        _ => (4, 0),
    }
}
