//! One task an open item: tells the host, waits for the proof, hands it in, and testifies when the deadline has passed without settlement.
//!
//! Guarantees:
//! - At most `items_max` items are worked on at the same time; more wait for their turn.
//! - Deadlines are the chain's: a halted chain lets no deadline pass, and nothing turns in circles meanwhile. Where a halt has swallowed all dates
//!   of an item, what there is is handed in when the chain goes on: the contract takes it late.
//! - An item that ended on chain is dropped at once, whatever its task is waiting for.
//! - Evidence is posted only inside the window, only while the attempt is open, and only if it proves more than the chain knows already.
//! - Every answer of the host may be lost or late: a host that has forgotten an item is told again.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use schema::{
    orchestrator::ItemStatus,
    receipt::{Attestation, Link},
    work::WorkState,
    ItemId,
};
use tokio::{
    sync::{mpsc, watch, Semaphore},
    task::{JoinError, JoinSet},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use crate::{
    book::Book,
    chain::{Chain, ChainError, Evidence, Moment},
    checkpoint::{Entry, Stage},
    crash::{self, Point},
    host::{Host, HostError},
    queue::{Queue, Request, Verdict},
    retry::{Decision, Policy},
    RelayerError,
};

/// Posts for one attempt: the first, one more when a late acknowledgement comes, and one in reserve.
const EVIDENCE_POSTS_MAX: u32 = 3;
/// Blocks after a halt of the chain within which is handed in what it could not take before.
const LATE_BLOCKS: u64 = 20;
/// A long-poll that comes back at once has nothing new; without a pause two well-meaning processes would spin.
const POLL_PAUSE: Duration = Duration::from_millis(200);

/// What every item's task works with.
#[derive(Debug)]
pub struct Tools<C> {
    pub chain: C,
    pub host: Host,
    pub book: Book,
    pub queue: Queue,
    /// Items whose evidence window has ended go here.
    pub overdue: mpsc::Sender<ItemId>,
    /// The chain's time. It never goes back.
    pub clock: watch::Receiver<Moment>,
    pub policy: Policy,
    /// Longest wait of one long-poll.
    pub host_wait: Duration,
}

/// The tasks of all open items.
#[derive(Debug)]
pub struct Tracker<C> {
    tools: Arc<Tools<C>>,
    places: Arc<Semaphore>,
    tasks: JoinSet<Result<(), RelayerError>>,
    watched: BTreeMap<ItemId, (u8, CancellationToken)>,
}

impl<C: Chain> Tracker<C> {
    /// No items yet.
    pub fn new(tools: Tools<C>, items_max: usize) -> Tracker<C> {
        Tracker {
            tools: Arc::new(tools),
            places: Arc::new(Semaphore::new(items_max)),
            tasks: JoinSet::new(),
            watched: BTreeMap::new(),
        }
    }

    /// Starts to work on an attempt, in place of any earlier attempt at the item.
    pub fn watch(&mut self, entry: Entry) {
        let token = CancellationToken::new();
        let life = Life {
            tools: self.tools.clone(),
            clock: self.tools.clock.clone(),
            entry,
        };
        let places = self.places.clone();
        let stop = token.clone();
        if let Some((_, earlier)) = self.watched.insert(entry.item, (entry.attempt, token)) {
            earlier.cancel();
        }
        self.tasks.spawn(async move {
            let work = async move {
                // The semaphore is never closed.
                let _place = places.acquire_owned().await;
                life.run().await
            };
            stop.run_until_cancelled_owned(work).await.unwrap_or(Ok(()))
        });
    }

    /// Drops an attempt and all before it.
    pub fn forget(&mut self, item: ItemId, attempt: u8) {
        let is_over = self.watched.get(&item).is_some_and(|(watched, _)| *watched <= attempt);
        if let Some((_, token)) = is_over.then(|| self.watched.remove(&item)).flatten() {
            token.cancel();
        }
    }

    /// The next task that ended. An error is none of an item alone.
    pub async fn join_next(&mut self) -> Option<Result<Result<(), RelayerError>, JoinError>> {
        self.tasks.join_next().await
    }

    /// Ends all tasks.
    pub async fn shutdown(&mut self) {
        self.tasks.shutdown().await;
    }
}

/// How the work on an item came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Worked {
    /// It is attested.
    Proven,
    /// Nothing more will come of it. What can be proven may still be needed.
    Nothing,
}

/// One attempt at one item, from assignment to its end.
struct Life<C> {
    tools: Arc<Tools<C>>,
    clock: watch::Receiver<Moment>,
    entry: Entry,
}

impl<C: Chain> Life<C> {
    async fn run(mut self) -> Result<(), RelayerError> {
        let worked = match self.entry.stage {
            Stage::Confirmed { .. } => Worked::Proven,
            Stage::Refused { .. } => Worked::Nothing,
            Stage::Fresh {} | Stage::Started {} | Stage::Prepared { .. } => {
                // Only the last span can still earn something in the grace time; the others should testify early.
                let until = match self.entry.last_span {
                    true => self.entry.attest_until,
                    false => self.entry.deadline,
                };
                let mut clock = self.clock.clone();
                tokio::select! {
                    worked = self.work() => worked?,
                    () = past(&mut clock, until) => Worked::Nothing,
                }
            }
        };
        if worked == Worked::Proven {
            return Ok(());
        }
        past(&mut self.clock, self.entry.deadline).await;
        if self.clock.borrow().seconds > self.entry.evidence_until {
            self.hand_in_late().await?;
        }
        self.testify().await?;
        past(&mut self.clock, self.entry.evidence_until).await;
        // The keeper takes it from here; if it has stopped, so do we.
        let _ = self.tools.overdue.send(self.entry.item).await;
        Ok(())
    }

    /// Until the proof is on chain, or will not come.
    async fn work(&self) -> Result<Worked, RelayerError> {
        let mut failures: u32 = 0;
        loop {
            let error = match self.work_once().await? {
                Ok(worked) => return Ok(worked),
                Err(error) => error,
            };
            match error.decision() {
                Decision::Stop => return Err(error.into()),
                Decision::Skip => {
                    tracing::info!(item = %self.entry.item, attempt = self.entry.attempt, %error, "the host will not do it");
                    return Ok(Worked::Nothing);
                }
                Decision::Retry => {}
            }
            failures = failures.saturating_add(1);
            let pause = error.retry_after().unwrap_or_else(|| self.tools.policy.pause(failures));
            if failures == 1 {
                tracing::info!(item = %self.entry.item, attempt = self.entry.attempt, %error, "waiting for the host");
            }
            tokio::time::sleep(pause).await;
        }
    }

    /// Tells the host and follows it, until it is done or something fails.
    async fn work_once(&self) -> Result<Result<Worked, HostError>, RelayerError> {
        let (item, attempt) = (self.entry.item, self.entry.attempt);
        let mut status = match self.noted(self.tools.host.start(item, attempt).await) {
            Ok(status) => status,
            Err(error) => return Ok(Err(error)),
        };
        crash::pass(Point::HostTold);
        self.tools.book.change(|state| state.started(item, attempt)).await?;
        crash::pass(Point::HostNoted);
        loop {
            if status.complete && self.entry.last_span {
                crash::pass(Point::ProofFetched);
                return Ok(Ok(self.attest(status.links).await));
            }
            match status.state {
                WorkState::Known | WorkState::Running => {}
                WorkState::Done => return Ok(Ok(Worked::Nothing)),
                WorkState::Failed => {
                    let reason = status.error.unwrap_or_default();
                    tracing::warn!(%item, attempt, %reason, "the host has given up");
                    return Ok(Ok(Worked::Nothing));
                }
            }
            let asked = Instant::now();
            status = match self.noted(self.tools.host.status(item, attempt, self.tools.host_wait).await) {
                Ok(status) => status,
                Err(error) => return Ok(Err(error)),
            };
            if asked.elapsed() < POLL_PAUSE {
                tokio::time::sleep(POLL_PAUSE).await;
            }
        }
    }

    /// Hands the proof in, again and again if it gets no answer; the caller's clock ends that.
    async fn attest(&self, links: Vec<Link>) -> Worked {
        let Entry { item, attempt, .. } = self.entry;
        let attestation = Attestation { item, attempt, links };
        let mut failures: u32 = 0;
        loop {
            match self.tools.queue.submit(Request::Attest(attestation.clone())).await {
                Verdict::Done => return Worked::Proven,
                Verdict::Refused(reason) => {
                    // Somebody else may have been first, which is just as good.
                    tracing::info!(%item, attempt, %reason, "not attested by us");
                    return Worked::Nothing;
                }
                Verdict::Failed(reason) => {
                    failures = failures.saturating_add(1);
                    tracing::warn!(%item, attempt, %reason, failures, "not attested yet");
                    tokio::time::sleep(self.tools.policy.pause(failures)).await;
                }
            }
        }
    }

    /// No block was made in the whole window for evidence: the chain stood still, and takes late what it could not take then.
    async fn hand_in_late(&self) -> Result<(), RelayerError> {
        let mut clock = self.clock.clone();
        let until = clock.borrow().height.saturating_add(LATE_BLOCKS);
        tokio::select! {
            handed_in = self.prove_or_testify() => handed_in,
            // An error means that nobody tells the time any more, because the program ends.
            _ = clock.wait_for(|moment| moment.height > until) => Ok(()),
        }
    }

    async fn prove_or_testify(&self) -> Result<(), RelayerError> {
        let (item, attempt) = (self.entry.item, self.entry.attempt);
        if self.entry.last_span {
            let status = self.noted(self.tools.host.status(item, attempt, Duration::ZERO).await);
            if let Ok(status) = status {
                if status.complete && self.attest(status.links).await == Worked::Proven {
                    return Ok(());
                }
            }
        }
        if let Some(Finding::More(links)) = self.evidence().await? {
            self.post(links).await;
        }
        Ok(())
    }

    /// Looks once a block, until the window ends or the attempt does.
    async fn testify(&mut self) -> Result<(), RelayerError> {
        let mut posts: u32 = 0;
        while posts < EVIDENCE_POSTS_MAX && self.clock.borrow_and_update().seconds <= self.entry.evidence_until {
            match self.evidence().await? {
                Some(Finding::Over) => return Ok(()),
                Some(Finding::More(links)) => posts = posts.saturating_add(self.post(links).await.into()),
                None => {}
            }
            if self.clock.changed().await.is_err() {
                return Ok(());
            }
        }
        Ok(())
    }

    async fn evidence(&self) -> Result<Option<Finding>, RelayerError> {
        let Entry { item, attempt, .. } = self.entry;
        match self.tools.chain.item(item).await {
            Ok(now) if now.attempt != attempt || !matches!(now.status, ItemStatus::Assigned {}) => {
                return Ok(Some(Finding::Over));
            }
            Ok(_) => {}
            Err(error) => return self.chain_failed(error).map(|()| None),
        }
        let ours = match self.noted(self.tools.host.status(item, attempt, Duration::ZERO).await) {
            Ok(status) => status.links,
            Err(error) if error.decision() == Decision::Stop => return Err(error.into()),
            Err(_) => return Ok(None),
        };
        let posted = match self.tools.chain.links(item, attempt).await {
            Ok(links) => links,
            Err(error) => return self.chain_failed(error).map(|()| None),
        };
        Ok(proves_more(&ours, &posted).then_some(Finding::More(ours)))
    }

    async fn post(&self, links: Vec<Link>) -> bool {
        let Entry { item, attempt, .. } = self.entry;
        let evidence = Evidence { item, attempt, links };
        crash::pass(Point::EvidenceFound);
        match self.tools.queue.submit(Request::Evidence(evidence)).await {
            Verdict::Done => {
                crash::pass(Point::EvidencePosted);
                true
            }
            Verdict::Refused(reason) | Verdict::Failed(reason) => {
                tracing::info!(%item, attempt, %reason, "evidence not posted");
                false
            }
        }
    }

    fn noted<T>(&self, result: Result<T, HostError>) -> Result<T, HostError> {
        match &result {
            Ok(_) => self.tools.book.board.host_answered(),
            Err(HostError::Past(_) | HostError::Never(_) | HostError::UnknownItem(_) | HostError::Busy { .. }) => {
                self.tools.book.board.host_answered()
            }
            Err(error) => self.tools.book.board.host_failed(error),
        }
        result
    }

    fn chain_failed(&self, error: ChainError) -> Result<(), RelayerError> {
        self.tools.book.board.chain_failed(&error);
        match error.decision() {
            Decision::Stop => Err(error.into()),
            Decision::Retry | Decision::Skip => Ok(()),
        }
    }
}

/// What a look at chain and host in the evidence window has shown.
enum Finding {
    /// The attempt is no longer open.
    Over,
    /// The host can prove more than the chain knows.
    More(Vec<Link>),
}

/// Returns when the chain's time is later than this; never if the chain is no longer followed.
async fn past(clock: &mut watch::Receiver<Moment>, seconds: u64) {
    if clock.wait_for(|moment| moment.seconds > seconds).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Whether `ours` shows more of the chain of spans than `posted`: more receipts, or the acknowledgement of the last one. The contract takes
/// nothing else.
pub fn proves_more(ours: &[Link], posted: &[Link]) -> bool {
    let weight = |links: &[Link]| {
        (
            links.len(),
            links.last().is_some_and(|link| link.acknowledgement.is_some()),
        )
    };
    weight(ours) > weight(posted)
}
