//! What this host knows about every piece of work it was given, and the only place where that changes.
//!
//! A piece of work is one span of one attempt at an item: `Known -> Running -> Sending -> Done`, or `Failed` from anywhere.
//! Guarantees: whatever was promised to others (an acknowledgement, a receipt) is on disk before it is promised; every change reaches
//! whoever waits for it; the number of pieces and the bytes of their rows are bounded; a piece is forgotten only after its evidence window, or
//! once the chain has said that its attempt is over (`room`), and after the retention period unless its room is needed, so that what can be
//! asked for stays provable.

use std::{
    collections::HashMap,
    fmt,
    sync::{
        atomic::{AtomicU64, Ordering},
        Arc, Mutex, MutexGuard, PoisonError,
    },
};

use schema::{
    merkle,
    receipt::{Link, SignedAcknowledgement},
    staking::Span,
    work::{WorkState, WorkStatus},
    Digest, ItemId,
};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::{
    chain::Assignment,
    faults::{pass, Point},
    journal::{Journal, JournalError, RowFile},
    metrics::Metrics,
};

/// Pieces that give way at once when there is no room. Few, because whoever learns of new work waits for it.
const MAKE_ROOM: usize = 16;

/// Names a piece of work. Reads `job.shard.replica-attempt-span`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct WorkKey {
    pub item: ItemId,
    pub attempt: u8,
    /// Index of the span in the assignment.
    pub span: u8,
}

impl fmt::Display for WorkKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}-{}-{}", self.item, self.attempt, self.span)
    }
}

/// How far a piece of work is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Phase {
    /// Assigned; the input has not arrived.
    Known,
    /// The input is here and is being computed.
    Running,
    /// The receipt is signed; the next host has not acknowledged the rows yet.
    Sending,
    /// Acknowledged by the next host, or the last span.
    Done,
    Failed {
        reason: String,
    },
}

/// Everything about a piece of work that outlives the process.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Record {
    pub assignment: Assignment,
    pub span: u8,
    pub phase: Phase,
    /// Links up to this span: those that came with the push, with our acknowledgement in the last of them, then our own.
    pub links: Vec<Link>,
}

impl Record {
    pub(crate) fn key(&self) -> WorkKey {
        WorkKey {
            item: self.assignment.item,
            attempt: self.assignment.attempt,
            span: self.span,
        }
    }

    /// The span as the assignment pins it.
    pub(crate) fn pinned(&self) -> Option<&Span> {
        self.assignment.spans.get(usize::from(self.span))
    }

    /// Our own link, once the rows are computed.
    pub(crate) fn own(&self) -> Option<&Link> {
        self.links.get(usize::from(self.span))
    }

    /// The link of the span before, once its rows were acknowledged.
    pub(crate) fn received(&self) -> Option<&Link> {
        self.links.get(usize::from(self.span).checked_sub(1)?)
    }

    /// Digest of the rows that this span works on, as far as it is known.
    pub(crate) fn input_digest(&self) -> Option<Digest> {
        match self.span {
            0 => Some(self.assignment.root),
            _ => self.received().map(|link| link.receipt.receipt.output_digest),
        }
    }

    pub(crate) fn is_last(&self) -> bool {
        usize::from(self.span).saturating_add(1) == self.assignment.spans.len()
    }

    /// Whether a file of rows is still needed: the input until there is an output, the output until the next host has it.
    pub(crate) fn keeps(&self, file: RowFile) -> bool {
        match (file, self.own()) {
            (RowFile::Input, None) => self.received().is_some(),
            (RowFile::Output, Some(own)) => self.is_last() || own.acknowledgement.is_none(),
            _ => false,
        }
    }

    fn is_finished(&self) -> bool {
        matches!(self.phase, Phase::Done | Phase::Failed { .. })
    }

    /// Whether computing may begin, or begin again: nothing was signed about the output yet.
    pub(crate) fn may_start(&self) -> bool {
        let waiting = match self.phase {
            Phase::Known => self.span == 0,
            Phase::Failed { .. } => self.own().is_none() && self.input_digest().is_some(),
            _ => false,
        };
        waiting && self.assignment.open
    }

    fn state(&self) -> WorkState {
        match self.phase {
            Phase::Known => WorkState::Known,
            Phase::Running | Phase::Sending => WorkState::Running,
            Phase::Done => WorkState::Done,
            Phase::Failed { .. } => WorkState::Failed,
        }
    }
}

/// A piece of work in memory.
#[derive(Debug)]
pub(crate) struct Entry {
    record: watch::Sender<Record>,
    /// Held by whoever receives rows or starts the work, so that it happens once.
    pub(crate) gate: Arc<tokio::sync::Mutex<()>>,
    row_bytes: AtomicU64,
    /// When the chain last said that the attempt is open; 0 if it was never asked.
    open_at: AtomicU64,
}

impl Entry {
    fn new(record: Record, row_bytes: u64) -> Arc<Self> {
        Arc::new(Self {
            record: watch::Sender::new(record),
            gate: Arc::default(),
            row_bytes: AtomicU64::new(row_bytes),
            open_at: AtomicU64::new(0),
        })
    }

    pub(crate) fn record(&self) -> Record {
        self.record.borrow().clone()
    }

    /// The chain has just said that the attempt is open, so what is proven about it can be asked for.
    pub(crate) fn seen_open(&self, now: u64) {
        self.open_at.store(now, Ordering::Relaxed);
    }

    /// Waits until the work is finished one way or the other.
    pub(crate) async fn finished(&self) {
        // The sender lives in this very value, so the wait cannot be cut off.
        let _ = self.record.subscribe().wait_for(Record::is_finished).await;
    }
}

/// No room for more work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WorkFull {
    #[error("{items} pieces of work are remembered, at most {items_max} may be")]
    Items { items: usize, items_max: usize },
    #[error("{bytes} bytes of rows are kept, at most {bytes_max} may be")]
    Bytes { bytes: u64, bytes_max: u64 },
}

/// Bounds of what is remembered.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    pub items_max: usize,
    /// Bytes of rows on disk.
    pub row_bytes_max: u64,
    pub retention_seconds: u64,
}

/// All work of this host.
#[derive(Debug)]
pub(crate) struct Work {
    journal: Journal,
    bounds: Bounds,
    entries: Mutex<HashMap<WorkKey, Arc<Entry>>>,
    metrics: Arc<Metrics>,
    /// What the disk said to the last write, if it did not take it.
    disk_trouble: Mutex<Option<String>>,
}

impl Work {
    /// Reads back what was kept.
    pub(crate) fn open(journal: Journal, bounds: Bounds, metrics: Arc<Metrics>) -> Result<Self, JournalError> {
        let found = journal.read_all()?;
        let kept = |record: Record| {
            let key = record.key();
            (key, Entry::new(record, journal.row_bytes(key)))
        };
        let entries = found.records.into_iter().map(kept).collect();
        metrics.leftovers_removed(found.leftovers);
        Ok(Self {
            journal,
            bounds,
            entries: Mutex::new(entries),
            metrics,
            disk_trouble: Mutex::default(),
        })
    }

    pub(crate) fn find(&self, key: WorkKey) -> Option<Arc<Entry>> {
        self.lock().get(&key).cloned()
    }

    /// All our pieces of an attempt, first span first.
    pub(crate) fn of_attempt(&self, item: ItemId, attempt: u8) -> Vec<Arc<Entry>> {
        let entries = self.lock();
        let ours = entries
            .iter()
            .filter(|(key, _)| key.item == item && key.attempt == attempt);
        let mut ours: Vec<_> = ours.map(|(key, entry)| (key.span, Arc::clone(entry))).collect();
        ours.sort_by_key(|(span, _)| *span);
        ours.into_iter().map(|(_, entry)| entry).collect()
    }

    /// The piece of an item that made these rows as its last span.
    pub(crate) fn of_output(&self, item: ItemId, output: Digest) -> Option<Arc<Entry>> {
        let made = |entry: &&Arc<Entry>| {
            let record = entry.record.borrow();
            let own = record.own().map(|link| link.receipt.receipt.output_digest);
            record.assignment.item == item && record.is_last() && own == Some(output)
        };
        self.lock().values().find(made).cloned()
    }

    /// Pieces that are not finished: what a restarted host goes on with.
    pub(crate) fn unfinished(&self) -> Vec<Arc<Entry>> {
        let open = |entry: &&Arc<Entry>| matches!(entry.record.borrow().phase, Phase::Running | Phase::Sending);
        self.lock().values().filter(open).cloned().collect()
    }

    /// Pieces by state, for the status.
    pub(crate) fn count(&self, state: WorkState) -> usize {
        let same = |entry: &&Arc<Entry>| entry.record.borrow().state() == state;
        self.lock().values().filter(same).count()
    }

    /// Bytes of rows on disk.
    pub(crate) fn row_bytes(&self) -> u64 {
        sum_bytes(&self.lock())
    }

    /// Refuses rows for which there is no room on disk.
    pub(crate) fn room_for(&self, bytes: u64) -> Result<(), WorkFull> {
        let (kept, bytes_max) = (self.row_bytes(), self.bounds.row_bytes_max);
        match kept.saturating_add(bytes) > bytes_max {
            true => Err(WorkFull::Bytes { bytes: kept, bytes_max }),
            false => Ok(()),
        }
    }

    /// Why nothing can be kept, if so.
    pub(crate) fn disk_trouble(&self) -> Option<String> {
        self.trouble().clone()
    }

    /// After a failed write, sees whether the disk takes anything again. Not for an async thread.
    pub(crate) fn probe(&self) {
        if self.disk_trouble().is_some() {
            let found = self.journal.probe();
            *self.trouble() = found.err().map(|error| error.to_string());
        }
    }

    fn trouble(&self) -> MutexGuard<'_, Option<String>> {
        self.disk_trouble.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers an assignment. Whoever knows it already gets what is known.
    pub(crate) fn learn(&self, assignment: &Assignment, span: u8, now: u64) -> Result<Arc<Entry>, WorkFull> {
        let record = Record {
            assignment: assignment.clone(),
            span,
            phase: Phase::Known,
            links: Vec::new(),
        };
        if let Some(entry) = self.find(record.key()) {
            return Ok(entry);
        }
        self.make_room(now);
        let mut entries = self.lock();
        let (items, bytes) = (entries.len(), sum_bytes(&entries));
        let (items_max, bytes_max) = (self.bounds.items_max, self.bounds.row_bytes_max);
        if items >= items_max {
            return Err(WorkFull::Items { items, items_max });
        }
        if bytes >= bytes_max {
            return Err(WorkFull::Bytes { bytes, bytes_max });
        }
        let known = entries.entry(record.key());
        Ok(Arc::clone(known.or_insert_with(|| Entry::new(record, 0))))
    }

    /// Whether so many more pieces can be remembered.
    pub(crate) fn has_places(&self, pieces: usize) -> bool {
        self.lock().len().saturating_add(pieces) <= self.bounds.items_max
    }

    /// Pieces that nobody works on: those about which the chain was asked longest ago first, then the oldest.
    pub(crate) fn idle(&self) -> Vec<Arc<Entry>> {
        let facts = |(key, entry): (&WorkKey, &Arc<Entry>)| {
            let record = entry.record.borrow();
            let idle = !matches!(record.phase, Phase::Running | Phase::Sending);
            let order = (
                entry.open_at.load(Ordering::Relaxed),
                record.assignment.evidence_until,
                key.item.key(),
            );
            idle.then(|| (order, Arc::clone(entry)))
        };
        let mut idle: Vec<_> = self.lock().iter().filter_map(facts).collect();
        idle.sort_unstable_by_key(|(order, _)| *order);
        idle.into_iter().map(|(_, entry)| entry).collect()
    }

    /// Where there is no room, what is past its evidence window gives way before its retention ends, oldest first.
    pub(crate) fn make_room(&self, now: u64) {
        let full = |entries: &HashMap<_, _>| {
            entries.len() >= self.bounds.items_max || sum_bytes(entries) >= self.bounds.row_bytes_max
        };
        let window = |entry: &Entry| entry.record.borrow().assignment.evidence_until;
        let gone: Vec<WorkKey> = {
            let entries = self.lock();
            if !full(&entries) {
                return;
            }
            let windows = entries.iter().map(|(key, entry)| (window(entry), *key));
            let mut past: Vec<(u64, WorkKey)> = windows.filter(|(until, _)| now > *until).collect();
            past.sort_unstable_by_key(|(until, _)| *until);
            past.into_iter().take(MAKE_ROOM).map(|(_, key)| key).collect()
        };
        self.let_go(&gone);
    }

    /// Forgets pieces, in memory first. Waits for the disk.
    pub(crate) fn let_go(&self, keys: &[WorkKey]) {
        {
            let mut entries = self.lock();
            keys.iter().for_each(|key| drop(entries.remove(key)));
        }
        keys.iter().for_each(|key| self.journal.remove(*key));
    }

    /// The input of a first span is at hand.
    pub(crate) async fn start(&self, entry: &Arc<Entry>) -> Result<(), JournalError> {
        self.change(entry, None::<(RowFile, Vec<Vec<u8>>)>, |record| {
            record.phase = Phase::Running
        })
        .await
    }

    /// Rows have arrived. `links` carry our acknowledgement, which may be sent once this returns.
    pub(crate) async fn accept<T>(&self, entry: &Arc<Entry>, links: Vec<Link>, rows: Vec<T>) -> Result<(), JournalError>
    where
        T: AsRef<[u8]> + Send + 'static,
    {
        self.change(entry, Some((RowFile::Input, rows)), |record| {
            record.phase = Phase::Running;
            record.links = links;
        })
        .await
    }

    /// Rows are computed and receipted.
    pub(crate) async fn produce<T>(&self, entry: &Arc<Entry>, own: Link, rows: Vec<T>) -> Result<(), JournalError>
    where
        T: AsRef<[u8]> + Send + 'static,
    {
        self.change(entry, Some((RowFile::Output, rows)), |record| {
            record.phase = match record.is_last() {
                true => Phase::Done,
                false => Phase::Sending,
            };
            record.links.truncate(usize::from(record.span));
            record.links.push(own);
        })
        .await?;
        // With the output safe, only it is needed.
        self.forget_rows(entry, RowFile::Input);
        Ok(())
    }

    /// The next host has the rows: ours are not needed any more.
    pub(crate) async fn acknowledge(&self, entry: &Arc<Entry>, by: SignedAcknowledgement) -> Result<(), JournalError> {
        self.change(entry, None::<(RowFile, Vec<Vec<u8>>)>, |record| {
            record.phase = Phase::Done;
            if let Some(own) = record.links.get_mut(usize::from(record.span)) {
                own.acknowledgement = Some(by);
            }
        })
        .await?;
        self.forget_rows(entry, RowFile::Output);
        Ok(())
    }

    /// The work cannot be finished. What is proven so far stays.
    pub(crate) async fn fail(&self, entry: &Arc<Entry>, reason: String) {
        let phase = Phase::Failed { reason };
        let failed = phase.clone();
        let kept = self
            .change(entry, None::<(RowFile, Vec<Vec<u8>>)>, |record| record.phase = phase)
            .await;
        if let Err(error) = kept {
            tracing::error!(%error, "a failure could not be kept");
            entry.record.send_modify(|record| record.phase = failed);
        }
    }

    /// Rows that were kept, if they still are what their digest says; otherwise they are moved aside.
    pub(crate) fn rows(&self, entry: &Entry, file: RowFile) -> Result<Vec<Vec<u8>>, JournalError> {
        let record = entry.record();
        let expected = match file {
            RowFile::Input => record.input_digest(),
            RowFile::Output => record.own().map(|link| link.receipt.receipt.output_digest),
        };
        let rows = self.journal.read_rows(record.key(), file);
        match rows {
            Ok(rows) if Some(merkle::root(&rows)) == expected => Ok(rows),
            Ok(_) => {
                let reason = "they are not what their digest says; they were moved aside".to_owned();
                self.journal.set_rows_aside(record.key(), file, &reason);
                Err(JournalError::Corrupt {
                    path: format!("{file:?} rows of {}", record.key()).into(),
                    reason,
                })
            }
            Err(JournalError::Corrupt { path, reason }) => {
                self.journal.set_rows_aside(record.key(), file, &reason);
                Err(JournalError::Corrupt { path, reason })
            }
            Err(error) => Err(error),
        }
    }

    /// Forgets what is past its evidence window and its retention; what was never started right after its window.
    pub(crate) fn prune(&self, now: u64) -> usize {
        let past = |entry: &Entry| {
            let record = entry.record.borrow();
            let kept = match record.phase {
                Phase::Known => 0,
                _ => self.bounds.retention_seconds,
            };
            now > record.assignment.evidence_until.saturating_add(kept)
        };
        let gone: Vec<WorkKey> = {
            let entries = self.lock();
            let past = entries.iter().filter(|(_, entry)| past(entry));
            past.map(|(key, _)| *key).collect()
        };
        self.let_go(&gone);
        gone.len()
    }

    /// What the relayer may know of an attempt: the furthest of our pieces that can prove something decides.
    pub(crate) fn status(&self, item: ItemId, attempt: u8) -> Option<WorkStatus> {
        let records: Vec<Record> = self
            .of_attempt(item, attempt)
            .iter()
            .map(|entry| entry.record())
            .collect();
        let proven = records.iter().max_by_key(|record| record.links.len())?;
        let failed = records.iter().find_map(|record| match &record.phase {
            Phase::Failed { reason } => Some(reason.clone()),
            _ => None,
        });
        let states: Vec<WorkState> = records.iter().map(Record::state).collect();
        let complete = records.iter().any(|record| record.is_last() && record.own().is_some());
        let state = match () {
            () if complete => WorkState::Done,
            () if failed.is_some() => WorkState::Failed,
            () if states.iter().all(|state| *state == WorkState::Done) => WorkState::Done,
            () if states.iter().all(|state| *state == WorkState::Known) => WorkState::Known,
            () => WorkState::Running,
        };
        Some(WorkStatus {
            item,
            attempt,
            state,
            links: proven.links.clone(),
            complete,
            error: failed.filter(|_| state == WorkState::Failed),
        })
    }

    /// Changes a record: first on disk, rows before the record that speaks of them, then for everybody to see.
    async fn change<T>(
        &self,
        entry: &Arc<Entry>,
        rows: Option<(RowFile, Vec<T>)>,
        change: impl FnOnce(&mut Record),
    ) -> Result<(), JournalError>
    where
        T: AsRef<[u8]> + Send + 'static,
    {
        let mut record = entry.record();
        change(&mut record);
        let (journal, kept) = (self.journal.clone(), record.clone());
        let write = move || {
            if let Some((file, rows)) = rows {
                journal.write_rows(kept.key(), file, &rows)?;
            }
            journal.write(&kept)
        };
        let written = tokio::task::spawn_blocking(write)
            .await
            .map_err(|_| JournalError::Stopped)?;
        // A failed write may have left rows as well.
        self.count_rows(entry);
        *self.trouble() = written.as_ref().err().map(ToString::to_string);
        if written.is_ok() {
            entry.record.send_replace(record);
        } else {
            self.metrics.write_failures(1);
        }
        written
    }

    fn forget_rows(&self, entry: &Entry, file: RowFile) {
        let key = entry.record.borrow().key();
        self.journal.remove_rows(key, file);
        pass(Point::RowsForgotten);
        self.count_rows(entry);
    }

    fn count_rows(&self, entry: &Entry) {
        let key = entry.record.borrow().key();
        entry.row_bytes.store(self.journal.row_bytes(key), Ordering::Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<WorkKey, Arc<Entry>>> {
        // Entries are added and removed as a whole, so a panic elsewhere leaves nothing half done.
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn sum_bytes(entries: &HashMap<WorkKey, Arc<Entry>>) -> u64 {
    let bytes = |entry: &Arc<Entry>| entry.row_bytes.load(Ordering::Relaxed);
    entries.values().map(bytes).fold(0, u64::saturating_add)
}
