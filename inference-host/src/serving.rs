//! A deployment that is ready: its proven stages behind one queue.
//!
//! Guarantees: batches go through the stages in order, one at a time; a row that a graph refuses fails alone, not its batch mates; the
//! lane ends when nobody holds the deployment any more, so work in progress outlives a deployment that is taken off the list.

use std::{
    sync::{
        atomic::{AtomicBool, Ordering},
        Arc,
    },
    time::Duration,
};

use partition::{
    row::{self, RowError},
    Bundle, Dim, Manifest, Row, Standing, TensorSpec,
};
use schema::Digest;
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::{
    blobs::Pinned,
    engine::{Engine, EngineError, Health},
    metrics::{Histogram, Metrics},
    queue::{Limits, Overloaded, Pending, Queue, Ticket, Waiting},
    request::{symbols, Format, RequestError, RowReader},
};

/// Most rows of fixed size in a batch. How large they become inside a graph is in no length, and an image easily becomes megabytes.
const FIXED_ROWS_MAX: u64 = 16;

/// How long a row waits for memory of the device before it is tried again, and in the end given up.
const MEMORY_PAUSES: [Duration; 5] = [
    Duration::from_millis(100),
    Duration::from_millis(300),
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(4),
];

/// The length at which a row of fixed size counts in a batch.
fn fixed_length(positions_max: u64) -> u64 {
    positions_max.div_ceil(FIXED_ROWS_MAX)
}

/// A deployment that is served: its stages, loaded and proven, and its queue.
#[derive(Debug)]
pub(crate) struct Serving {
    /// Digest of the manifest.
    pub manifest: Digest,
    bundle: Bundle,
    first: usize,
    last: usize,
    /// Only where the span begins with the first stage.
    reader: Option<RowReader>,
    lane: Arc<Lane>,
    // Ends the lane when nobody holds this value any more.
    _lane_guard: DropGuard,
    _pins: Vec<Pinned>,
}

/// What a deployment is made of.
#[derive(Debug)]
pub(crate) struct Parts {
    /// Digest of the manifest.
    pub(crate) manifest: Digest,
    pub(crate) bundle: Bundle,
    /// First and last stage.
    pub(crate) span: (usize, usize),
    /// Only where the span begins with the first stage.
    pub(crate) reader: Option<RowReader>,
    /// One per stage of the span.
    pub(crate) stages: Vec<Arc<Proven>>,
    /// Keeps the blobs in the store.
    pub(crate) pins: Vec<Pinned>,
    pub(crate) deployment: u64,
    pub(crate) metrics: Arc<Metrics>,
}

/// The queue of a deployment and the engines that its batches go through.
#[derive(Debug)]
struct Lane {
    queue: Queue,
    limits: Limits,
    /// Each with where its runs are counted.
    stages: Vec<(Arc<Proven>, Arc<Histogram>)>,
    /// A row waits for memory of the device.
    short_of_memory: AtomicBool,
    metrics: Arc<Metrics>,
}

/// An engine and how it stands.
#[derive(Debug)]
pub(crate) struct Proven {
    pub(crate) engine: Engine,
    pub(crate) standing: Standing,
}

impl Serving {
    /// Starts the lane of a deployment.
    pub(crate) fn start(parts: Parts, queue: Queue, limits: Limits) -> Self {
        let counted = |(stage, proven)| (proven, parts.metrics.compute(parts.deployment, stage));
        let lane = Arc::new(Lane {
            queue,
            limits,
            stages: (parts.span.0..).zip(parts.stages).map(counted).collect(),
            short_of_memory: AtomicBool::new(false),
            metrics: Arc::clone(&parts.metrics),
        });
        Self {
            manifest: parts.manifest,
            bundle: parts.bundle,
            first: parts.span.0,
            last: parts.span.1,
            reader: parts.reader,
            _lane_guard: spawn_lane(&lane),
            lane,
            _pins: parts.pins,
        }
    }

    fn facts(&self) -> &Manifest {
        self.bundle.manifest()
    }

    /// The row that comes in.
    fn receives(&self) -> &[TensorSpec] {
        self.facts().stages.get(self.first).map_or(&[], |stage| &stage.receives)
    }

    /// A received row and its positions; None where its axes do not tell them, because the model has no symbolic ones or the stages before
    /// did not keep them all.
    pub(crate) fn decode(&self, bytes: &[u8]) -> Result<(Row, Option<u64>), RowError> {
        let max_positions = self.facts().max_positions;
        let row = row::decode(bytes, self.receives(), max_positions)?;
        let lengths = row::check(&row, self.receives(), max_positions)?;
        let complete = symbols(&self.facts().inputs).len() == lengths.len();
        let positions = lengths.values().max().copied().filter(|_| complete);
        Ok((row, positions))
    }

    /// The model's input for a developer's row, and its units. Slow for long texts: not for an async thread.
    pub(crate) fn read(&self, format: Format, bytes: &[u8]) -> Result<(Row, u64), RequestError> {
        // Deployments that begin with the first stage are never loaded without one.
        let reader = self.reader.as_ref().ok_or(RequestError::NoTokenizer)?;
        reader.read(format, bytes)
    }

    /// Bytes of the row that a row of so many positions becomes.
    pub(crate) fn sent_bytes(&self, positions: u64) -> u64 {
        let length = |dim: &Dim| match dim {
            Dim::Batch => 1,
            Dim::Positions(_) => positions,
            Dim::Fixed(length) => *length,
        };
        let bytes = |spec: &TensorSpec| {
            let width = u64::try_from(spec.dtype.size()).unwrap_or(u64::MAX);
            spec.row_shape().iter().map(length).fold(width, u64::saturating_mul)
        };
        let sends = self.facts().stages.get(self.last).map_or(&[][..], |stage| &stage.sends);
        sends.iter().map(bytes).fold(0, u64::saturating_add)
    }

    /// Puts rows with their lengths into the queue, all or none.
    pub(crate) fn admit(&self, mut rows: Vec<(Row, u64)>) -> Result<Ticket, Overloaded> {
        if symbols(&self.facts().inputs).is_empty() {
            let length = fixed_length(self.lane.limits.positions_max);
            rows.iter_mut().for_each(|(_, positions)| *positions = length);
        }
        self.lane.queue.admit(rows)
    }

    /// Refuses rows that would not fit, before anybody sends them.
    pub(crate) fn room_for(&self, rows: usize) -> Result<(), Overloaded> {
        self.lane.queue.room_for(rows)
    }

    /// Whether a row waits for memory of the device: until it has it, more work would only wait too.
    pub(crate) fn is_short_of_memory(&self) -> bool {
        self.lane.short_of_memory.load(Ordering::Relaxed)
    }

    /// Rows waiting now.
    pub(crate) fn queued(&self) -> usize {
        self.lane.queue.rows()
    }

    /// The first engine that has stopped, if any has.
    pub(crate) fn health(&self) -> Health {
        let stopped =
            |(stage, _): &(Arc<Proven>, _)| Some(stage.engine.health()).filter(|health| *health != Health::Ready);
        self.lane.stages.iter().find_map(stopped).unwrap_or(Health::Ready)
    }

    /// Relative error of the stage that is furthest from the reference, if the manifest does not know this engine class.
    pub(crate) fn newcomer_error_ppb(&self) -> Option<u64> {
        let error = |(stage, _): &(Arc<Proven>, _)| match stage.standing {
            Standing::Member => None,
            Standing::Newcomer { error_ppb } => Some(error_ppb),
        };
        self.lane.stages.iter().filter_map(error).max()
    }
}

impl Lane {
    async fn serve(&self) {
        loop {
            let batch = self.queue.next(self.limits).await;
            self.count(&batch);
            let rows: Vec<Row> = batch.iter().map(|pending| pending.row.clone()).collect();
            match self.run(rows).await {
                Ok(rows) => finish(batch, rows),
                // One bad row must not fail its batch mates: each runs alone and answers for itself.
                Err(error @ EngineError::Rows(_)) if batch.len() > 1 || error.is_out_of_memory() => {
                    self.serve_alone(batch).await;
                }
                Err(error) => {
                    let reason = error.to_string();
                    batch
                        .into_iter()
                        .for_each(|pending| pending.finish(Err(reason.clone())));
                }
            }
        }
    }

    async fn serve_alone(&self, batch: Vec<Pending>) {
        for pending in batch {
            let result = self.run_one(&pending).await;
            let row = result.map_err(|error| error.to_string());
            pending.finish(row.map(|rows| rows.into_iter().next().unwrap_or_default()));
        }
        self.short_of_memory.store(false, Ordering::Relaxed);
    }

    /// A row alone needs the least memory that anything can. Where even that is not there, others have it, and are waited for.
    async fn run_one(&self, pending: &Pending) -> Result<Vec<Row>, EngineError> {
        let mut pauses = MEMORY_PAUSES.iter();
        loop {
            match self.run(vec![pending.row.clone()]).await {
                Err(error) if error.is_out_of_memory() && !pending.cancelled() => {
                    self.metrics.device_memory_exhausted(1);
                    self.short_of_memory.store(true, Ordering::Relaxed);
                    let Some(pause) = pauses.next() else {
                        return Err(error);
                    };
                    tracing::warn!(%error, "the device has no memory left; a row waits for it");
                    tokio::time::sleep(*pause).await;
                }
                other => return other,
            }
        }
    }

    async fn run(&self, mut rows: Vec<Row>) -> Result<Vec<Row>, EngineError> {
        for (stage, compute) in &self.stages {
            let begun = Instant::now();
            rows = stage.engine.run(rows).await?;
            compute.observe_time(begun.elapsed());
        }
        Ok(rows)
    }

    fn count(&self, batch: &[Pending]) {
        let longest = batch.iter().map(Waiting::positions).max().unwrap_or(0);
        let rows = u64::try_from(batch.len()).unwrap_or(u64::MAX);
        self.metrics.batched(rows, rows.saturating_mul(longest));
        batch.iter().for_each(|row| self.metrics.waited(row.waited()));
    }
}

fn finish(batch: Vec<Pending>, rows: Vec<Row>) {
    for (pending, row) in batch.into_iter().zip(rows) {
        pending.finish(Ok(row));
    }
}

fn spawn_lane(lane: &Arc<Lane>) -> DropGuard {
    let token = CancellationToken::new();
    let (lane, ended) = (Arc::clone(lane), token.clone());
    tokio::spawn(async move {
        tokio::select! {
            () = lane.serve() => {}
            () = ended.cancelled() => {}
        }
    });
    token.drop_guard()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sixteen_rows_of_fixed_size_fill_a_batch_however_small_it_is() {
        for positions_max in [1, 15, 16, 512, 16_384] {
            let rows = positions_max / fixed_length(positions_max);
            assert!((1..=FIXED_ROWS_MAX).contains(&rows), "{positions_max}");
        }
        assert_eq!(512 / fixed_length(512), FIXED_ROWS_MAX);
    }
}
