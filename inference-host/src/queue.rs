//! Rows wait here, and leave in batches.
//!
//! Guarantees: the queue never grows beyond its bound (one row too many is refused at once, all or nothing for an item); the row that has
//! waited longest is in the next batch, so none starves; rows that nobody waits for any more leave without costing a run. Where batch
//! mates do not change a bit, rows of several items share batches freely (on a GPU they may, and each runs alone: ADR 0017); which may be padded to
//! one length is the manifest's to say.

use std::{
    collections::VecDeque,
    sync::{
        atomic::{AtomicBool, AtomicU64, Ordering},
        Arc, Mutex, MutexGuard, PoisonError,
    },
    time::Duration,
};

use partition::{Batching, Row};
use tokio::{
    sync::{mpsc, Notify},
    time::Instant,
};

/// How far behind the oldest row its batch mates are looked for. Bounds the work of choosing a batch.
const WINDOW: usize = 1024;
/// Longest time for which somebody is sent away.
const RETRY_AFTER_MAX: u64 = 30;

/// What a batch may be.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Rows times longest row. A single longer row is a batch all the same.
    pub positions_max: u64,
    pub batching: Batching,
}

/// What the choice of a batch needs to know of a row.
pub(crate) trait Waiting {
    /// Its length.
    fn positions(&self) -> u64;
    /// Whether nobody waits for it any more.
    fn cancelled(&self) -> bool;
}

/// Takes the next batch out of the queue: the row that has waited longest, and the rows closest to it in length that fit the limits.
pub(crate) fn next_batch<T: Waiting>(queue: &mut VecDeque<T>, limits: Limits) -> Vec<T> {
    queue.retain(|row| !row.cancelled());
    let Some(first) = queue.pop_front() else {
        return Vec::new();
    };
    let chosen = mates(first.positions(), queue, limits);
    let mut batch = vec![first];
    if chosen.iter().any(|chosen| *chosen) {
        let rest = std::mem::take(queue);
        for (index, row) in rest.into_iter().enumerate() {
            match chosen.get(index) {
                Some(true) => batch.push(row),
                _ => queue.push_back(row),
            }
        }
    }
    batch
}

/// Which rows of the window go with a row of `first` positions. Closest lengths first: padding costs as much as work.
fn mates<T: Waiting>(first: u64, queue: &VecDeque<T>, limits: Limits) -> Vec<bool> {
    let window = queue.len().min(WINDOW);
    let mut chosen = vec![false; window];
    if limits.batching == Batching::Single {
        return chosen;
    }
    let lengths = queue.iter().take(window).map(Waiting::positions).enumerate();
    let mut candidates: Vec<(u64, usize, u64)> = lengths
        .map(|(index, length)| (length.abs_diff(first), index, length))
        .collect();
    candidates.sort_unstable();
    let (mut rows, mut longest) = (1_u64, first);
    for (difference, index, length) in candidates {
        if limits.batching == Batching::EqualLengths && difference > 0 {
            break;
        }
        let (more, longer) = (rows.saturating_add(1), longest.max(length));
        if more.saturating_mul(longer.max(1)) <= limits.positions_max {
            (rows, longest) = (more, longer);
            chosen[index] = true;
        }
    }
    chosen
}

/// Too much work at once.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{waiting} rows are waiting and {rows} more came; at most {rows_max} may wait; try again in {retry_after_seconds} s")]
pub struct Overloaded {
    pub waiting: usize,
    pub rows: usize,
    pub rows_max: usize,
    /// How long rows wait at the moment: after that time those that are waiting now have left.
    pub retry_after_seconds: u64,
}

/// Why a ticket gave no rows.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RowsError {
    #[error("row {row}: {reason}")]
    Row { row: usize, reason: String },
    #[error("the engine went away")]
    Gone,
}

/// One row on its way.
#[derive(Debug)]
pub(crate) struct Pending {
    pub row: Row,
    positions: u64,
    index: usize,
    since: Instant,
    given_up: Arc<AtomicBool>,
    begun: Arc<AtomicBool>,
    reply: mpsc::UnboundedSender<(usize, Result<Row, String>)>,
}

impl Pending {
    /// How long it has been waiting.
    pub(crate) fn waited(&self) -> Duration {
        self.since.elapsed()
    }

    /// Hands the result to whoever waits for it.
    pub(crate) fn finish(self, result: Result<Row, String>) {
        // Nobody may be waiting any more.
        let _ = self.reply.send((self.index, result));
    }
}

impl Waiting for Pending {
    fn positions(&self) -> u64 {
        self.positions
    }

    fn cancelled(&self) -> bool {
        self.given_up.load(Ordering::Relaxed)
    }
}

/// The claim to the results of admitted rows. Dropping it takes them out of the queue.
#[derive(Debug)]
pub(crate) struct Ticket {
    // Bounded by the rows of the item: each sends once.
    results: mpsc::UnboundedReceiver<(usize, Result<Row, String>)>,
    rows: usize,
    given_up: Arc<AtomicBool>,
    begun: Arc<AtomicBool>,
}

impl Ticket {
    /// Says whether any of the rows has left the queue.
    pub(crate) fn begun(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.begun)
    }

    /// All rows, in the order in which they came, or the first failure.
    pub(crate) async fn finish(mut self) -> Result<Vec<Row>, RowsError> {
        let mut done: Vec<Option<Row>> = vec![None; self.rows];
        for _ in 0..self.rows {
            let Some((index, result)) = self.results.recv().await else {
                return Err(RowsError::Gone);
            };
            let row = result.map_err(|reason| RowsError::Row { row: index, reason })?;
            if let Some(slot) = done.get_mut(index) {
                *slot = Some(row);
            }
        }
        done.into_iter().collect::<Option<Vec<Row>>>().ok_or(RowsError::Gone)
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.given_up.store(true, Ordering::Relaxed);
    }
}

/// A bounded queue of rows.
#[derive(Debug)]
pub(crate) struct Queue {
    rows_max: usize,
    waiting: Mutex<VecDeque<Pending>>,
    filled: Notify,
    /// How long the oldest row of the last batch had waited, in ms.
    last_wait_millis: AtomicU64,
}

impl Queue {
    pub(crate) fn new(rows_max: usize) -> Self {
        Self {
            rows_max,
            waiting: Mutex::new(VecDeque::new()),
            filled: Notify::new(),
            last_wait_millis: AtomicU64::new(0),
        }
    }

    /// Rows waiting now.
    pub(crate) fn rows(&self) -> usize {
        self.lock().len()
    }

    /// Refuses rows that would not fit.
    pub(crate) fn room_for(&self, rows: usize) -> Result<(), Overloaded> {
        self.check_room(&mut self.lock(), rows)
    }

    /// Takes rows with their lengths in, all or none.
    pub(crate) fn admit(&self, rows: Vec<(Row, u64)>) -> Result<Ticket, Overloaded> {
        let (reply, results) = mpsc::unbounded_channel();
        let given_up = Arc::new(AtomicBool::new(false));
        let begun = Arc::new(AtomicBool::new(false));
        let count = rows.len();
        {
            let mut waiting = self.lock();
            self.check_room(&mut waiting, count)?;
            let since = Instant::now();
            waiting.extend(rows.into_iter().enumerate().map(|(index, (row, positions))| Pending {
                row,
                positions,
                index,
                since,
                given_up: Arc::clone(&given_up),
                begun: Arc::clone(&begun),
                reply: reply.clone(),
            }));
        }
        self.filled.notify_one();
        Ok(Ticket {
            results,
            rows: count,
            given_up,
            begun,
        })
    }

    /// Waits for rows and takes the next batch out.
    pub(crate) async fn next(&self, limits: Limits) -> Vec<Pending> {
        loop {
            let filled = self.filled.notified();
            let batch = next_batch(&mut self.lock(), limits);
            batch.iter().for_each(|row| row.begun.store(true, Ordering::Relaxed));
            if let Some(oldest) = batch.first() {
                let waited = u64::try_from(oldest.waited().as_millis()).unwrap_or(u64::MAX);
                self.last_wait_millis.store(waited, Ordering::Relaxed);
                return batch;
            }
            filled.await;
        }
    }

    fn check_room(&self, waiting: &mut VecDeque<Pending>, rows: usize) -> Result<(), Overloaded> {
        if waiting.len().saturating_add(rows) > self.rows_max {
            waiting.retain(|row| !row.cancelled());
        }
        if waiting.len().saturating_add(rows) <= self.rows_max {
            return Ok(());
        }
        let oldest = waiting.front().map_or(0, |oldest| oldest.waited().as_millis());
        let last = u128::from(self.last_wait_millis.load(Ordering::Relaxed));
        let seconds = u64::try_from(oldest.max(last).div_ceil(1000)).unwrap_or(u64::MAX);
        Err(Overloaded {
            waiting: waiting.len(),
            rows,
            rows_max: self.rows_max,
            retry_after_seconds: seconds.clamp(1, RETRY_AFTER_MAX),
        })
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Pending>> {
        // Rows are added and removed as a whole, so a panic elsewhere leaves nothing half done.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::arithmetic_side_effects, reason = "numbers in tests are small")]

    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Clone, PartialEq)]
    struct Fake {
        id: usize,
        positions: u64,
        cancelled: bool,
    }

    impl Waiting for Fake {
        fn positions(&self) -> u64 {
            self.positions
        }

        fn cancelled(&self) -> bool {
            self.cancelled
        }
    }

    fn queue(lengths: &[u64]) -> VecDeque<Fake> {
        let fake = |(id, &positions)| Fake {
            id,
            positions,
            cancelled: false,
        };
        lengths.iter().enumerate().map(fake).collect()
    }

    fn limits(positions_max: u64, batching: Batching) -> Limits {
        Limits {
            positions_max,
            batching,
        }
    }

    fn ids(batch: &[Fake]) -> Vec<usize> {
        batch.iter().map(|row| row.id).collect()
    }

    #[test]
    fn the_oldest_row_goes_first_with_the_rows_closest_to_its_length() {
        let mut waiting = queue(&[10, 200, 12, 9, 190]);
        let batch = next_batch(&mut waiting, limits(48, Batching::Padded));
        assert_eq!(ids(&batch), [0, 2, 3]);
        let batch = next_batch(&mut waiting, limits(400, Batching::Padded));
        assert_eq!(ids(&batch), [1, 4]);
        assert!(waiting.is_empty());
    }

    #[test]
    fn a_row_longer_than_the_budget_still_runs_alone() {
        let mut waiting = queue(&[900, 900]);
        assert_eq!(ids(&next_batch(&mut waiting, limits(512, Batching::Padded))), [0]);
    }

    #[test]
    fn equal_lengths_and_single_rows_are_kept_apart_where_the_manifest_says_so() {
        let mut waiting = queue(&[5, 6, 5, 5]);
        assert_eq!(
            ids(&next_batch(&mut waiting, limits(512, Batching::EqualLengths))),
            [0, 2, 3]
        );
        let mut waiting = queue(&[5, 5]);
        assert_eq!(ids(&next_batch(&mut waiting, limits(512, Batching::Single))), [0]);
    }

    proptest! {
        #[test]
        fn every_row_leaves_once_within_the_budget_and_cancelled_ones_never_run(
            rows in prop::collection::vec((0_u64..300, prop::bool::weighted(0.2)), 0..200),
            budget in 1_u64..1000,
            batching in prop::sample::select(vec![Batching::Padded, Batching::EqualLengths, Batching::Single]),
        ) {
            let fake = |(id, &(positions, cancelled))| Fake { id, positions, cancelled };
            let mut waiting: VecDeque<Fake> = rows.iter().enumerate().map(fake).collect();
            let mut seen = Vec::new();
            loop {
                let oldest = waiting.iter().find(|row| !row.cancelled).map(|row| row.id);
                let batch = next_batch(&mut waiting, limits(budget, batching));
                prop_assert_eq!(batch.first().map(|row| row.id), oldest);
                if batch.is_empty() {
                    break;
                }
                let longest = batch.iter().map(|row| row.positions).max().unwrap_or(0);
                prop_assert!(batch.len() == 1 || longest * batch.len() as u64 <= budget);
                if batching != Batching::Padded {
                    prop_assert!(batch.iter().all(|row| row.positions == batch[0].positions));
                }
                seen.extend(ids(&batch));
            }
            prop_assert!(waiting.is_empty());
            seen.sort();
            let alive: Vec<usize> = rows.iter().enumerate().filter(|(_, row)| !row.1).map(|(id, _)| id).collect();
            prop_assert_eq!(seen, alive);
        }
    }

    #[tokio::test]
    async fn overload_is_an_answer_and_takes_nothing_in() {
        let queue = Queue::new(3);
        let rows = |count| vec![(Row::new(), 1); count];
        let ticket = queue.admit(rows(2)).unwrap();
        let refused = queue.admit(rows(2)).unwrap_err();
        assert_eq!(
            refused,
            Overloaded {
                waiting: 2,
                rows: 2,
                rows_max: 3,
                retry_after_seconds: 1
            }
        );
        assert_eq!(queue.rows(), 2);
        // Whoever gives up makes room for others.
        drop(ticket);
        queue.admit(rows(3)).unwrap();
        assert_eq!(queue.rows(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_is_refused_is_told_how_long_rows_wait_now() {
        let queue = Queue::new(2);
        let rows = |count| vec![(Row::new(), 1); count];
        let _ticket = queue.admit(rows(2)).unwrap();
        for (passed, told) in [(0, 1), (4, 4), (3, 7), (100, RETRY_AFTER_MAX)] {
            tokio::time::advance(Duration::from_secs(passed)).await;
            assert_eq!(queue.admit(rows(1)).unwrap_err().retry_after_seconds, told);
        }
    }

    #[tokio::test]
    async fn results_come_back_in_the_order_of_the_rows() {
        let queue = Queue::new(10);
        let row = |value: i64| vec![partition::Tensor::from_i64(vec![1], &[value]).unwrap()];
        let ticket = queue.admit(vec![(row(1), 5), (row(2), 9), (row(3), 5)]).unwrap();
        for _ in 0..2 {
            for pending in queue.next(limits(10, Batching::Padded)).await {
                let row = pending.row.clone();
                pending.finish(Ok(row));
            }
        }
        assert_eq!(ticket.finish().await, Ok(vec![row(1), row(2), row(3)]));
    }
}
