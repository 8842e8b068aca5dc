//! The public duties: items that are overdue are expired, whoever they belong to, and the rounds that this needs are brought to the chain.
//!
//! Guarantees:
//! - An item is expired only after a second look: some blocks after it became overdue, a number that each relayer draws for itself, so that
//!   usually one of them pays for the gas and the others see that it is done.
//! - Being second is normal: a refusal is a line in the log at most, and the item is looked at again later, more and more rarely.
//! - The round of a redraw is posted after the second look, and only if the beacon does not know it by then.
//! - Everything goes by blocks: a halted chain expires nobody.
//! - At most [`CANDIDATES_MAX`] items are in mind; the chain has the others, oldest first, for the next look.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use futures::future::join_all;
use rand::Rng;
use schema::{
    orchestrator::{ItemResponse, ItemStatus},
    ItemId,
};
use tokio::sync::{mpsc, watch};

use crate::{
    chain::{Chain, ChainError, Moment},
    crash::{self, Point},
    queue::{Queue, Request, Verdict},
    retry::Decision,
    rounds::Rounds,
    status::Board,
    RelayerError,
};

/// Overdue items in mind: eight full pages.
const CANDIDATES_MAX: usize = 240;
/// Overdue items asked for at a time: the contract's largest page.
const PAGE: u32 = 30;
/// Blocks after which a refused item is looked at again, at most.
const PAUSE_BLOCKS_MAX: u64 = 128;

/// Expires what is overdue.
#[derive(Debug)]
pub struct Keeper<C> {
    pub chain: C,
    pub board: Board,
    pub queue: Queue,
    /// The chain's time.
    pub clock: watch::Receiver<Moment>,
    /// Our own items, the moment their evidence window ends.
    pub overdue: mpsc::Receiver<ItemId>,
    /// How often, by block time, the chain is asked for others.
    pub interval: Duration,
    /// Most blocks to wait before the second look.
    pub blocks_max: u8,
    /// What is in mind.
    pub candidates: Candidates,
    /// Where rounds are had. None: the network has no beacon, or nobody who could be asked is known.
    pub rounds: Option<Rounds>,
}

/// Overdue items, and from which height on each may be looked at again.
#[derive(Debug, Default)]
pub struct Candidates(BTreeMap<ItemId, Candidate>);

#[derive(Debug, Clone, Copy)]
struct Candidate {
    due_height: u64,
    refusals: u32,
}

impl Candidates {
    /// Keeps an item in mind until so many blocks have passed. One that is in mind already stays as it is.
    pub fn add(&mut self, item: ItemId, height: u64, blocks: u8) {
        if self.0.len() < CANDIDATES_MAX {
            let due_height = height.saturating_add(blocks.into());
            self.0.entry(item).or_insert(Candidate {
                due_height,
                refusals: 0,
            });
        }
    }

    /// Items whose second look is due.
    pub fn due(&self, height: u64) -> Vec<ItemId> {
        let due = self.0.iter().filter(|(_, candidate)| candidate.due_height <= height);
        due.map(|(item, _)| *item).collect()
    }

    /// It is done, by us or by anybody.
    pub fn remove(&mut self, item: ItemId) {
        self.0.remove(&item);
    }

    /// Its time has not quite come: in the next block.
    pub fn wait(&mut self, item: ItemId, height: u64) {
        if let Some(candidate) = self.0.get_mut(&item) {
            candidate.due_height = height.saturating_add(1);
        }
    }

    /// It was refused: later, and later each time.
    pub fn refused(&mut self, item: ItemId, height: u64, blocks: u8) {
        if let Some(candidate) = self.0.get_mut(&item) {
            candidate.refusals = candidate.refusals.saturating_add(1);
            let pause = 1u64.checked_shl(candidate.refusals.min(7)).unwrap_or(PAUSE_BLOCKS_MAX);
            candidate.due_height = height.saturating_add(pause).saturating_add(blocks.into());
        }
    }
}

impl<C: Chain> Keeper<C> {
    /// Watches the blocks for as long as there are any.
    pub async fn run(mut self) -> Result<(), RelayerError> {
        let mut ask_from: u64 = 0;
        loop {
            tokio::select! {
                Some(item) = self.overdue.recv() => self.add(item),
                changed = self.clock.changed() => if changed.is_err() { return Ok(()) },
            }
            let now = *self.clock.borrow();
            if now.seconds >= ask_from {
                ask_from = now.seconds.saturating_add(self.interval.as_secs());
                self.ask().await?;
            }
            self.renew(now).await?;
            self.look_again(now).await?;
        }
    }

    fn add(&mut self, item: ItemId) {
        let height = self.clock.borrow().height;
        let blocks = rand::thread_rng().gen_range(0..=self.blocks_max);
        self.candidates.add(item, height, blocks);
    }

    async fn ask(&mut self) -> Result<(), RelayerError> {
        match self.chain.overdue(PAGE).await {
            Ok(items) => items.into_iter().for_each(|item| self.add(item)),
            Err(error) => self.chain_failed(error)?,
        }
        Ok(())
    }

    async fn look_again(&mut self, now: Moment) -> Result<(), RelayerError> {
        let mut still = vec![];
        let mut rounds = BTreeSet::new();
        for item in self.candidates.due(now.height) {
            match self.chain.item(item).await {
                Ok(found) if is_overdue(&found, now) && self.is_early(&found, now) => {
                    self.candidates.wait(item, now.height);
                }
                Ok(found) if is_overdue(&found, now) => {
                    still.push(item);
                    rounds.extend(found.redraw_round);
                }
                Ok(_) | Err(ChainError::Refused(_)) => self.candidates.remove(item),
                Err(error) => return self.chain_failed(error),
            }
        }
        if !still.is_empty() {
            crash::pass(Point::OverdueFound);
        }
        self.bring(rounds).await?;
        let verdicts = join_all(still.iter().map(|item| self.queue.submit(Request::Expire(*item)))).await;
        for (item, verdict) in still.into_iter().zip(verdicts) {
            match verdict {
                Verdict::Done => {
                    crash::pass(Point::Expired);
                    self.candidates.remove(item);
                }
                Verdict::Refused(reason) | Verdict::Failed(reason) => {
                    tracing::info!(%item, %reason, "not expired by us");
                    let blocks = rand::thread_rng().gen_range(0..=self.blocks_max);
                    self.candidates.refused(item, now.height, blocks);
                }
            }
        }
        Ok(())
    }

    /// Whether the round that a redraw takes cannot be had yet.
    fn is_early(&self, item: &ItemResponse, now: Moment) -> bool {
        let rounds = self.rounds.as_ref().zip(item.redraw_round);
        rounds.is_some_and(|(rounds, round)| rounds.due_at(round) > now.seconds)
    }

    /// Makes rounds known that are not. Without one an expiry that needs it is refused, and costs nothing.
    async fn bring(&self, wanted: BTreeSet<u64>) -> Result<(), RelayerError> {
        let Some(rounds) = &self.rounds else {
            return Ok(());
        };
        let mut requests = vec![];
        for round in wanted {
            match self.chain.knows_round(round).await {
                Ok(true) => {}
                Ok(false) => requests.extend(rounds.fetch(round).await.map(Request::Round)),
                Err(error) => return self.chain_failed(error),
            }
        }
        for verdict in join_all(requests.into_iter().map(|request| self.queue.submit(request))).await {
            if let Verdict::Refused(reason) | Verdict::Failed(reason) = verdict {
                tracing::info!(%reason, "a round was not posted by us");
            }
        }
        Ok(())
    }

    /// Keeps the newest round young enough for first draws.
    async fn renew(&mut self, now: Moment) -> Result<(), RelayerError> {
        let Some(rounds) = &mut self.rounds else {
            return Ok(());
        };
        let blocks = rand::thread_rng().gen_range(0..=self.blocks_max);
        match rounds.renew(&self.chain, now, blocks).await {
            Ok(Some(round)) => self.bring(BTreeSet::from([round])).await,
            Ok(None) => Ok(()),
            Err(error) => self.chain_failed(error),
        }
    }

    fn chain_failed(&self, error: ChainError) -> Result<(), RelayerError> {
        self.board.chain_failed(&error);
        match error.decision() {
            Decision::Stop => Err(error.into()),
            Decision::Retry | Decision::Skip => Ok(()),
        }
    }
}

fn is_overdue(item: &ItemResponse, now: Moment) -> bool {
    match item.status {
        ItemStatus::Assigned {} => item.evidence_until < now.seconds,
        ItemStatus::AwaitingRound { .. } => true,
        _ => false,
    }
}

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects, reason = "small numbers in tests")]
mod tests {
    use super::*;

    const ITEM: ItemId = ItemId {
        job: 1,
        shard: 0,
        replica: 0,
    };

    #[test]
    fn a_candidate_is_due_after_its_blocks_and_keeps_its_first_number() {
        let mut candidates = Candidates::default();
        candidates.add(ITEM, 10, 3);
        candidates.add(ITEM, 11, 0);
        assert_eq!(candidates.due(12), []);
        assert_eq!(candidates.due(13), [ITEM]);
    }

    #[test]
    fn a_refused_candidate_is_looked_at_more_and_more_rarely_but_never_dropped() {
        let mut candidates = Candidates::default();
        candidates.add(ITEM, 0, 0);
        let mut height = 0;
        let mut pauses = vec![];
        for _ in 0..9 {
            candidates.refused(ITEM, height, 0);
            let due = (height..).find(|height| !candidates.due(*height).is_empty()).unwrap();
            pauses.push(due - height);
            height = due;
        }
        assert_eq!(pauses, [2, 4, 8, 16, 32, 64, 128, 128, 128]);
    }

    #[test]
    fn what_is_in_mind_is_bounded() {
        let mut candidates = Candidates::default();
        for job in 0..10_000 {
            candidates.add(ItemId { job, ..ITEM }, 0, 0);
        }
        assert_eq!(candidates.due(0).len(), CANDIDATES_MAX);
    }
}
