//! Blocks become work: which items are ours from now on, and which no longer are.
//!
//! Guarantees:
//! - Every block after the checkpoint's height comes once, in order, none left out.
//! - Resumable: what was assigned while the relayer was down is found by reading those blocks, however many, a few at a time. Where there is no
//!   checkpoint, or no node has the blocks after it any more, the open items of all jobs that can still pay are read from the contract, up to
//!   [`JOBS_MAX`] jobs, and reading goes on after the block whose state they were read from. The same when blocks disappear later on.
//! - Only what still counts: an assignment that the chain has moved past is no work, so a block may be read twice without harm.
//! - Ours is what has a span on a deployment of our provider; deployments listed later are noticed.
//!
//! It does not decide what to do about an item, and nothing of it outlives the process: the checkpoint does.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    time::Duration,
};

use client::events::Block;
use futures::StreamExt;
use schema::{
    orchestrator::{ItemResponse, ItemStatus},
    Event, ItemId,
};
use tokio::{sync::mpsc, time::Instant};

use crate::{
    chain::{Chain, ChainError, ChainResult, Head, Moment},
    checkpoint::{Entry, Stage, State},
    retry::{Decision, Policy},
};

/// Jobs read at most when there is no checkpoint to go on from; usually it ends earlier, at jobs whose hold has expired. With fewer pages a
/// busy market would hide open items behind newer jobs.
pub const JOBS_MAX: u32 = 9_000;

/// How often a long way is reported.
const PROGRESS_EVERY: Duration = Duration::from_secs(10);

/// Something that happened to an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// An attempt is ours to do.
    Assigned(Entry),
    /// This attempt and all before it are over.
    Ended { item: ItemId, attempt: u8 },
}

/// One block, as it concerns items.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    pub moment: Moment,
    /// In the order in which it happened.
    pub changes: Vec<Change>,
    /// Whether this is at least as new as what the chain had at the start.
    pub caught_up: bool,
}

/// Reads the chain for one provider.
#[derive(Debug)]
pub struct Source<C> {
    chain: C,
    provider: String,
    policy: Policy,
    deployments: BTreeSet<u64>,
    grace_seconds: u64,
    /// Where the chain was at the start, or when blocks were found to be missing.
    head: Head,
    /// Attempts that are ours and open, for when the blocks that end them are missing.
    open: BTreeMap<ItemId, u8>,
}

impl<C: Chain> Source<C> {
    /// Reads what blocks alone do not tell.
    pub async fn new(chain: C, provider: &str, policy: Policy) -> ChainResult<Source<C>> {
        // First: what is listed after this height is told by the blocks that follow it.
        let head = chain.head().await?;
        let deployments = chain.deployments(provider).await?;
        let grace_seconds = chain.grace_seconds().await?;
        Ok(Source {
            chain,
            provider: provider.to_owned(),
            policy,
            deployments: deployments.into_iter().collect(),
            grace_seconds,
            head,
            open: BTreeMap::new(),
        })
    }

    /// Where the chain was at the start.
    pub fn head(&self) -> Head {
        self.head
    }

    /// Sends step after step until nobody listens, or until reading cannot go on.
    pub async fn run(mut self, state: State, steps: mpsc::Sender<Step>) -> ChainResult<()> {
        self.open = state.entries().map(|entry| (entry.item, entry.attempt)).collect();
        let mut next = state.height.map(|height| height.saturating_add(1));
        loop {
            let from = match next {
                Some(next) => next,
                None => {
                    let changes = self.survey().await?;
                    let step = self.step(self.head.moment, changes);
                    if steps.send(step).await.is_err() {
                        return Ok(());
                    }
                    self.head.moment.height.saturating_add(1)
                }
            };
            let Some(reason) = self.follow(from, &steps).await? else {
                return Ok(());
            };
            self.look_around().await?;
            tracing::warn!(%reason, earliest = self.head.earliest, "the node has forgotten blocks, reading the open items instead");
            tokio::time::sleep(self.policy.first).await;
            next = None;
        }
    }

    /// Reads block after block. None: nobody listens any more. Otherwise why the next block cannot be had from anybody.
    async fn follow(&mut self, from: u64, steps: &mpsc::Sender<Step>) -> ChainResult<Option<String>> {
        let mut blocks = self.chain.blocks(from);
        let mut told = Instant::now();
        while let Some(block) = blocks.next().await {
            let block = match block {
                Err(ChainError::Pruned(reason)) => return Ok(Some(reason)),
                block => block?,
            };
            let step = self.read(block).await?;
            if !step.caught_up && told.elapsed() >= PROGRESS_EVERY {
                let behind = self.head.moment.height.saturating_sub(step.moment.height);
                tracing::info!(height = step.moment.height, behind, "catching up");
                told = Instant::now();
            }
            if steps.send(step).await.is_err() {
                return Ok(None);
            }
        }
        Err(ChainError::Unavailable("the stream of blocks has ended".into()))
    }

    /// Reads anew what blocks alone do not tell: those that told of changes may be among the forgotten ones.
    async fn look_around(&mut self) -> ChainResult<()> {
        let (chain, policy) = (self.chain.clone(), self.policy);
        self.head = patiently(policy, || chain.head()).await?;
        let deployments = patiently(policy, || chain.deployments(&self.provider)).await?;
        self.deployments = deployments.into_iter().collect();
        self.grace_seconds = patiently(policy, || chain.grace_seconds()).await?;
        Ok(())
    }

    fn step(&mut self, moment: Moment, changes: Vec<Change>) -> Step {
        for change in &changes {
            match change {
                Change::Assigned(entry) => drop(self.open.insert(entry.item, entry.attempt)),
                Change::Ended { item, attempt } if self.open.get(item).is_some_and(|open| open <= attempt) => {
                    self.open.remove(item);
                }
                Change::Ended { .. } => {}
            }
        }
        Step {
            moment,
            changes,
            caught_up: moment.height >= self.head.moment.height,
        }
    }

    async fn read(&mut self, block: Block) -> ChainResult<Step> {
        let mut changes = vec![];
        for emitted in block.txs.into_iter().flat_map(|tx| tx.events) {
            changes.extend(self.take(emitted.event).await?);
        }
        Ok(self.step(Moment::of(block.height, block.time_nanos), changes))
    }

    async fn take(&mut self, event: Event) -> ChainResult<Option<Change>> {
        let ended = |item, attempt| Ok(Some(Change::Ended { item, attempt }));
        match event {
            Event::JobAssigned {
                item,
                attempt,
                deployments,
                ..
            } if deployments
                .0
                .iter()
                .any(|deployment| self.deployments.contains(deployment)) =>
            {
                self.assigned(item, attempt).await
            }
            Event::Attested { item, attempt, .. }
            | Event::ItemMissed { item, attempt, .. }
            | Event::ItemLinkFault { item, attempt, .. }
            | Event::ItemDiffers { item, attempt, .. } => ended(item, attempt),
            Event::ItemFailed { item, .. } => ended(item, u8::MAX),
            Event::DeploymentListed {
                deployment, provider, ..
            } if provider == self.provider => {
                self.deployments.insert(deployment);
                Ok(None)
            }
            Event::ParamsUpdated { .. } => {
                let chain = self.chain.clone();
                self.grace_seconds = patiently(self.policy, || chain.grace_seconds()).await?;
                Ok(None)
            }
            _ => Ok(None),
        }
    }

    /// The event says what was; the item says what is.
    async fn assigned(&self, item: ItemId, attempt: u8) -> ChainResult<Option<Change>> {
        match patiently(self.policy, || self.chain.item(item)).await {
            Ok(now) if now.attempt == attempt => Ok(self.entry(&now).map(Change::Assigned)),
            Ok(_) => Ok(None),
            Err(ChainError::Refused(reason)) => {
                tracing::warn!(%item, attempt, %reason, "an assigned item cannot be read");
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    fn entry(&self, item: &ItemResponse) -> Option<Entry> {
        let is_mine = |span: &schema::staking::Span| span.provider == self.provider;
        let is_open = matches!(item.status, ItemStatus::Assigned {});
        (is_open && item.spans.iter().any(is_mine)).then(|| Entry {
            item: item.item,
            attempt: item.attempt,
            deadline: item.deadline,
            attest_until: item.deadline.saturating_add(self.grace_seconds),
            evidence_until: item.evidence_until,
            last_span: item.spans.last().is_some_and(is_mine),
            stage: Stage::Fresh {},
        })
    }

    /// What is ours now, and what was ours and is over.
    async fn survey(&self) -> ChainResult<Vec<Change>> {
        let items = patiently(self.policy, || self.chain.running(self.head.moment.seconds, JOBS_MAX)).await?;
        let mut changes: Vec<Change> = items
            .iter()
            .filter_map(|item| self.entry(item))
            .map(Change::Assigned)
            .collect();
        for (item, attempt) in self.open.clone() {
            let is_over = match patiently(self.policy, || self.chain.item(item)).await {
                Ok(now) => now.attempt > attempt || !matches!(now.status, ItemStatus::Assigned {}),
                Err(ChainError::Refused(_)) => true,
                Err(error) => return Err(error),
            };
            if is_over {
                // First: a later attempt of the same item may be among the assigned.
                changes.insert(0, Change::Ended { item, attempt });
            }
        }
        Ok(changes)
    }
}

/// Asks until there is an answer, as long as the policy allows.
pub async fn patiently<T, F: Future<Output = ChainResult<T>>>(policy: Policy, ask: impl Fn() -> F) -> ChainResult<T> {
    let mut failures: u32 = 0;
    loop {
        let error = match ask().await {
            Err(error) if error.decision() == Decision::Retry => error,
            result => return result,
        };
        failures = failures.saturating_add(1);
        let Some(pause) = policy.next(failures) else {
            return Err(error);
        };
        tracing::debug!(%error, failures, "asking the chain again");
        tokio::time::sleep(pause).await;
    }
}
