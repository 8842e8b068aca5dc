//! How a piece of work comes in: asked of the chain or pushed by the host before, checked, admitted. What happens next is in `advance`.
//!
//! Guarantees: nothing is computed that the chain has not assigned to this provider under this very host key; nothing is begun past its
//! deadline by the chain's clock; an acknowledgement is given only for rows that are safe on disk. Overload is answered at once and costs
//! nothing: whatever has a bound is looked at before the chain is asked for rows, and before rows are read.

use std::sync::Arc;

use client::Wallet;
use partition::Row;
use prost::bytes::Bytes;
use schema::{
    merkle,
    receipt::{Link, SignedAcknowledgement},
    work::WorkStatus,
    ItemId, PublicKey,
};
use tokio::{
    sync::{OwnedMutexGuard, OwnedSemaphorePermit, Semaphore},
    time::Instant,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    chain::{Assignment, Chain},
    clock::Clock,
    config::Config,
    faults::{pass, Point},
    journal::RowFile,
    lane::Lane,
    links::{sign_acknowledgement, verify},
    metrics::Metrics,
    model::Models,
    peers::Peers,
    queue::Ticket,
    refusal::Refusal,
    request::Format,
    room::Room,
    serving::Serving,
    span::Pushed,
    work::{Entry, Record, Work, WorkKey},
};

/// Rows in memory are accounted for in these units.
const KIB: u64 = 1024;
/// Pieces that are begun at the same time: the input of each is in memory before its size is known.
pub(crate) const BEGINS_MAX: usize = 64;

/// Everything that the interfaces of a host share.
#[derive(Debug)]
pub(crate) struct Host {
    pub(crate) config: Config,
    pub(crate) host_key: Wallet,
    pub(crate) chain: Arc<dyn Chain>,
    pub(crate) models: Arc<Models>,
    pub(crate) work: Work,
    pub(crate) peers: Peers,
    pub(crate) lane: Lane,
    /// Free memory for rows, in KiB.
    pub(crate) memory: Arc<Semaphore>,
    /// Places for pushes whose rows are being received.
    pub(crate) pushes: Semaphore,
    /// Room for inputs that are being fetched and tokenised.
    pub(crate) begins: Semaphore,
    pub(crate) room: Room,
    pub(crate) clock: Clock,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) stop: CancellationToken,
    pub(crate) tasks: TaskTracker,
}

/// Rows with their lengths, ready for the queue.
#[derive(Debug)]
pub(crate) struct Input {
    pub(crate) rows: Vec<(Row, u64)>,
    pub(crate) units: u64,
}

/// Work that the queue has taken.
#[derive(Debug)]
pub(crate) struct Admitted {
    pub(crate) ticket: Ticket,
    pub(crate) units: u64,
    pub(crate) rows: u64,
    pub(crate) memory: OwnedSemaphorePermit,
}

/// What is to be said to a push before its rows are read.
#[derive(Debug)]
pub(crate) enum Expected {
    /// The same rows were acknowledged before.
    Acknowledged(Box<SignedAcknowledgement>),
    Wanted(Box<Wanted>),
}

/// A push whose rows may come.
#[derive(Debug)]
pub(crate) struct Wanted {
    entry: Arc<Entry>,
    serving: Arc<Serving>,
    record: Record,
    pub(crate) pushed: Pushed,
    /// When there is no use in waiting for more rows.
    pub(crate) deadline: Instant,
    memory: OwnedSemaphorePermit,
    // Whoever pushes the same rows meanwhile waits, and then gets the same answer.
    gate: OwnedMutexGuard<()>,
}

pub(crate) fn count(rows: usize) -> u64 {
    u64::try_from(rows).unwrap_or(u64::MAX)
}

impl Host {
    /// Begins an attempt, or learns that rows for it will be pushed. Calling it again changes nothing.
    pub(crate) async fn begin(self: &Arc<Self>, item: ItemId, attempt: u8) -> Result<WorkStatus, Refusal> {
        if self.work.of_attempt(item, attempt).is_empty() {
            self.learn(item, attempt).await?;
        }
        for entry in self.work.of_attempt(item, attempt) {
            if entry.record().may_start() {
                self.start(&entry, Record::may_start).await?;
            }
        }
        self.work.status(item, attempt).ok_or_else(|| self.not_assigned(item))
    }

    fn not_assigned(&self, item: ItemId) -> Refusal {
        let provider = self.config.provider.clone();
        Refusal::NotAssigned { item, provider }
    }

    /// Asks the chain about an attempt and remembers our part of it.
    async fn learn(&self, item: ItemId, attempt: u8) -> Result<(), Refusal> {
        let assignment = self
            .chain
            .assignment(item)
            .await
            .map_err(|error| Refusal::chain(item, error))?;
        let (asked, current) = (attempt, assignment.attempt);
        match asked.cmp(&current) {
            std::cmp::Ordering::Less => return Err(Refusal::Past { item, asked, current }),
            std::cmp::Ordering::Greater => return Err(Refusal::NotYet { item, asked, current }),
            std::cmp::Ordering::Equal if !assignment.open => return Err(Refusal::Ended { item, attempt }),
            std::cmp::Ordering::Equal => {}
        }
        let ours = PublicKey(self.host_key.public_key());
        let mut spans = Vec::new();
        for (index, span) in assignment.spans.iter().enumerate() {
            if span.provider != self.config.provider {
                continue;
            }
            if span.host_key != ours {
                let (deployment, registered) = (span.deployment, span.host_key);
                return Err(Refusal::HostKey {
                    deployment,
                    registered,
                    ours,
                });
            }
            spans.push(u8::try_from(index).unwrap_or(u8::MAX));
        }
        if spans.is_empty() {
            return Err(self.not_assigned(item));
        }
        self.in_time(&assignment)?;
        self.make_places(spans.len()).await;
        for span in spans {
            self.work.learn(&assignment, span, self.clock.now())?;
        }
        Ok(())
    }

    /// Computes a piece of work whose input is at hand: on chain for a first span, on disk otherwise.
    pub(crate) async fn start(self: &Arc<Self>, entry: &Arc<Entry>, may: fn(&Record) -> bool) -> Result<(), Refusal> {
        let _gate = entry.gate.lock().await;
        let record = entry.record();
        if !may(&record) {
            return Ok(());
        }
        self.in_time(&record.assignment)?;
        let serving = self.serving(&record)?;
        serving.room_for(usize::try_from(record.assignment.rows).unwrap_or(usize::MAX))?;
        let _begin = self
            .begins
            .try_acquire()
            .map_err(|_| Refusal::Begins { max: BEGINS_MAX })?;
        let input = match record.span {
            0 => self.input_from_chain(&record.assignment, &serving).await,
            _ => self
                .work
                .rows(entry, RowFile::Input)
                .map_err(Refusal::from)
                .and_then(|rows| decode(&serving, &rows)),
        };
        let input = match input {
            Ok(input) => input,
            // Asking again would not change what is wrong with the rows themselves.
            Err(refusal) if refusal.is_final() => {
                self.fail(entry, refusal.to_string()).await;
                return Ok(());
            }
            Err(refusal) => return Err(refusal),
        };
        let memory = self.reserve(sent_bytes(&serving, count(input.rows.len()), input.units))?;
        let admitted = admit(&serving, input, memory)?;
        self.work.start(entry).await?;
        self.launch(entry, admitted);
        Ok(())
    }

    async fn input_from_chain(&self, assignment: &Assignment, serving: &Arc<Serving>) -> Result<Input, Refusal> {
        let item = assignment.item;
        let input = self.chain.input(item.job, item.shard).await;
        let rows = input.map_err(|error| Refusal::chain(item, error))?;
        let (found, expected) = (count(rows.len()), u64::from(assignment.rows));
        if found != expected {
            return Err(Refusal::RowCount { found, expected });
        }
        let (found, expected) = (merkle::root(&rows), assignment.root);
        if found != expected {
            return Err(Refusal::RowDigest { found, expected });
        }
        let (serving, endpoint) = (Arc::clone(serving), assignment.endpoint.clone());
        let read = tokio::task::spawn_blocking(move || read(&serving, &endpoint, &rows)).await;
        let input = read.map_err(|_| Refusal::Stopping)??;
        if input.units > assignment.units_max {
            let (found, max) = (input.units, assignment.units_max);
            return Err(crate::links::LinkError::TooManyUnits { span: 0, found, max }.into());
        }
        Ok(input)
    }

    /// What is to be said to a push, judged by its header alone.
    pub(crate) async fn expect(&self, pushed: Pushed) -> Result<Expected, Refusal> {
        let key = pushed.key;
        let entry = match self.work.find(key) {
            Some(entry) => entry,
            None => self.learn_span(key).await?,
        };
        let assignment = entry.record().assignment;
        verify(&assignment, &pushed.links, usize::from(key.span))?;
        let seconds = self.config.io_timeout_seconds;
        let gate = tokio::time::timeout(self.config.io_timeout(), Arc::clone(&entry.gate).lock_owned()).await;
        let gate = gate.map_err(|_| Refusal::Stalled { seconds })?;
        let record = entry.record();
        if let Some(acknowledgement) = acknowledged(&record, &pushed)? {
            return Ok(Expected::Acknowledged(Box::new(acknowledgement)));
        }
        self.in_time(&assignment)?;
        let (found, expected) = (u64::from(pushed.rows), u64::from(assignment.rows));
        if found != expected {
            return Err(Refusal::RowCount { found, expected });
        }
        let serving = self.serving(&record)?;
        serving.room_for(usize::try_from(pushed.rows).unwrap_or(usize::MAX))?;
        let units = pushed.links.last().map_or(0, |link| link.receipt.receipt.units_in);
        Refusal::check_size("bytes", pushed.bytes, self.config.work_bytes_max, "work_bytes_max")?;
        self.work.room_for(pushed.bytes)?;
        let memory = self.reserve(pushed.bytes.saturating_add(sent_bytes(&serving, expected, units)))?;
        Ok(Expected::Wanted(Box::new(Wanted {
            entry,
            serving,
            deadline: self.clock.instant_of(record.assignment.deadline),
            record,
            pushed,
            memory,
            gate,
        })))
    }

    async fn learn_span(&self, key: WorkKey) -> Result<Arc<Entry>, Refusal> {
        self.learn(key.item, key.attempt).await?;
        self.work.find(key).ok_or_else(|| Refusal::NotOurSpan {
            item: key.item,
            span: usize::from(key.span),
            provider: self.config.provider.clone(),
        })
    }

    /// Takes the rows of a push. When this returns they are safe on disk and in the queue, and our word may be given.
    pub(crate) async fn take(
        self: Arc<Self>,
        wanted: Wanted,
        rows: Vec<Bytes>,
    ) -> Result<SignedAcknowledgement, Refusal> {
        let (record, pushed) = (&wanted.record, wanted.pushed);
        let Some((last, receipt)) = pushed.links.last().map(|link| (link, &link.receipt.receipt)) else {
            return Err(crate::links::LinkError::Count { found: 0, span: 1 }.into());
        };
        let (found, expected) = (merkle::root(&rows), receipt.output_digest);
        if found != expected {
            return Err(Refusal::RowDigest { found, expected });
        }
        let input = decode(&wanted.serving, &rows)?;
        if input.units != receipt.units_in && input.units > 0 {
            let (found, expected) = (input.units, receipt.units_in);
            return Err(Refusal::Units { found, expected });
        }
        let input = Input {
            units: receipt.units_in,
            ..input
        };
        let Some(pinned) = record.pinned() else {
            return Err(self.not_assigned(record.assignment.item));
        };
        let acknowledgement = sign_acknowledgement(&self.host_key, &record.assignment, pinned, expected);
        pass(Point::AcknowledgementSigned);
        let acknowledged = Link {
            receipt: last.receipt.clone(),
            acknowledgement: Some(acknowledgement.clone()),
        };
        let mut links = pushed.links.clone();
        links.pop();
        links.push(acknowledged);
        let admitted = admit(&wanted.serving, input, wanted.memory)?;
        self.work.accept(&wanted.entry, links, rows).await?;
        pass(Point::AcknowledgementKept);
        self.metrics.pushes_received(1);
        self.metrics.push_received_bytes(pushed.bytes);
        self.launch(&wanted.entry, admitted);
        drop(wanted.gate);
        Ok(acknowledgement)
    }

    /// The deployment of a piece of work, if it is ready and serves what the job was opened with.
    fn serving(&self, record: &Record) -> Result<Arc<Serving>, Refusal> {
        let item = record.assignment.item;
        let deployment = record.pinned().ok_or_else(|| self.not_assigned(item))?.deployment;
        let serving = self.models.find(deployment)?;
        let (job, served) = (record.assignment.manifest, serving.manifest);
        if serving.is_short_of_memory() {
            return Err(Refusal::DeviceMemory { deployment });
        }
        match job == served {
            true => Ok(serving),
            false => Err(Refusal::OtherManifest {
                deployment,
                job,
                served,
            }),
        }
    }

    /// Why this host cannot take all the work it is registered for, if it cannot.
    pub(crate) fn trouble(&self) -> Option<String> {
        let clock = || self.clock.sure_now().err().map(|error| error.to_string());
        self.work
            .disk_trouble()
            .or_else(|| self.lane.store.trouble())
            .or_else(|| self.models.trouble())
            .or_else(clock)
    }

    pub(crate) fn count_refusal(&self, refusal: &Refusal) {
        self.metrics.refused(refusal.reason());
        if refusal.is_overload() {
            self.metrics.overloads(1);
        }
    }

    /// Whether the chain's clock leaves time for an item.
    fn in_time(&self, assignment: &Assignment) -> Result<(), Refusal> {
        let (item, deadline, now) = (assignment.item, assignment.deadline, self.clock.sure_now()?);
        match now < deadline {
            true => Ok(()),
            false => Err(Refusal::Late { item, deadline, now }),
        }
    }

    pub(crate) fn reserve(&self, bytes: u64) -> Result<OwnedSemaphorePermit, Refusal> {
        let free = count(self.memory.available_permits()).saturating_mul(KIB);
        let max = self.config.rows_bytes_max;
        Refusal::check_size("bytes", bytes, max, "rows_bytes_max")?;
        let refuse = || Refusal::Memory { bytes, free, max };
        let permits = u32::try_from(bytes.div_ceil(KIB)).map_err(|_| refuse())?;
        Arc::clone(&self.memory)
            .try_acquire_many_owned(permits)
            .map_err(|_| refuse())
    }

    /// Free memory at the start, in permits.
    pub(crate) fn memory_permits(rows_bytes_max: u64) -> usize {
        usize::try_from(rows_bytes_max / KIB)
            .unwrap_or(usize::MAX)
            .min(Semaphore::MAX_PERMITS)
    }
}

/// What was acknowledged before, if it was the same.
fn acknowledged(record: &Record, pushed: &Pushed) -> Result<Option<SignedAcknowledgement>, Refusal> {
    let (Some(known), Some(again)) = (record.received(), pushed.links.last()) else {
        return Ok(None);
    };
    if known.receipt.receipt.digest() != again.receipt.receipt.digest() {
        let (item, span) = (record.assignment.item, usize::from(record.span));
        return Err(Refusal::Conflict { item, span });
    }
    Ok(known.acknowledgement.clone())
}

fn admit(serving: &Serving, input: Input, memory: OwnedSemaphorePermit) -> Result<Admitted, Refusal> {
    let (units, rows) = (input.units, count(input.rows.len()));
    let ticket = serving.admit(input.rows)?;
    Ok(Admitted {
        ticket,
        units,
        rows,
        memory,
    })
}

/// Bytes of what so many rows with so many units together become. Rows of fixed size have no part in the units.
pub(crate) fn sent_bytes(serving: &Serving, rows: u64, units: u64) -> u64 {
    serving
        .sent_bytes(units)
        .saturating_add(serving.sent_bytes(0).saturating_mul(rows))
}

/// A developer's rows, as the endpoint of the job says.
pub(crate) fn read<T: AsRef<[u8]>>(serving: &Serving, endpoint: &str, rows: &[T]) -> Result<Input, Refusal> {
    let mut input = Input {
        rows: Vec::with_capacity(rows.len()),
        units: 0,
    };
    for (row, bytes) in rows.iter().enumerate() {
        let read = Format::of(endpoint).and_then(|format| serving.read(format, bytes.as_ref()));
        let (tensors, units) = read.map_err(|error| Refusal::Row {
            row,
            reason: error.to_string(),
        })?;
        input.units = input.units.saturating_add(units);
        input.rows.push((tensors, units));
    }
    Ok(input)
}

/// Boundary rows as tensors. Rows that do not tell their positions count no units.
pub(crate) fn decode<T: AsRef<[u8]>>(serving: &Serving, rows: &[T]) -> Result<Input, Refusal> {
    let mut input = Input {
        rows: Vec::with_capacity(rows.len()),
        units: 0,
    };
    for (row, bytes) in rows.iter().enumerate() {
        let (tensors, positions) = serving.decode(bytes.as_ref()).map_err(|error| Refusal::Row {
            row,
            reason: error.to_string(),
        })?;
        input.units = input.units.saturating_add(positions.unwrap_or(0));
        input.rows.push((tensors, positions.unwrap_or(1)));
    }
    Ok(input)
}
