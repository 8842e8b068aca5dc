//! One thread owns one ONNX session. Everybody else sends it rows and waits.
//!
//! Guarantees: sessions never run on two threads at once; a graph that panics ends its own thread and nothing else; whether the thread
//! is alive is known without asking it.

use std::{
    panic::{catch_unwind, AssertUnwindSafe},
    thread,
    time::Duration,
};

use partition::{run_stage, Loaded, Row, Stage, StageError};
use tokio::sync::{mpsc, oneshot, watch};

/// Longest run of one batch. A session that takes longer hangs, and is reported as stopped.
const RUN_TIMEOUT: Duration = Duration::from_secs(300);
/// Batches in flight to one session: one runs, one waits for each of two lanes.
const BATCHES_MAX: usize = 2;

/// Whether an engine can be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Health {
    Ready,
    Stopped { reason: String },
}

/// Why a batch gave no rows.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EngineError {
    /// The rows did not go through; others may.
    #[error(transparent)]
    Rows(#[from] StageError),
    /// Nothing will go through any more.
    #[error("the engine has stopped: {reason}")]
    Stopped { reason: String },
}

#[derive(Debug)]
struct Job {
    rows: Vec<Row>,
    reply: oneshot::Sender<Result<Vec<Row>, StageError>>,
}

/// A stage that runs on its own thread.
#[derive(Debug)]
pub(crate) struct Engine {
    jobs: mpsc::Sender<Job>,
    health: watch::Sender<Health>,
}

impl Engine {
    /// Starts the thread. It ends when the engine is dropped.
    pub(crate) fn start(stage: Stage, loaded: Box<dyn Loaded>, max_positions: u64) -> std::io::Result<Self> {
        let (jobs, queue) = mpsc::channel(BATCHES_MAX);
        let (health, _) = watch::channel(Health::Ready);
        let short: String = stage.digest.as_str().chars().take(8).collect();
        let reporter = health.clone();
        thread::Builder::new()
            .name(format!("stage-{short}"))
            .spawn(move || own(stage, loaded, max_positions, queue, &reporter))?;
        Ok(Self { jobs, health })
    }

    pub(crate) fn health(&self) -> Health {
        self.health.borrow().clone()
    }

    /// Runs rows as one batch.
    pub(crate) async fn run(&self, rows: Vec<Row>) -> Result<Vec<Row>, EngineError> {
        let (reply, answer) = oneshot::channel();
        if self.jobs.send(Job { rows, reply }).await.is_err() {
            return Err(self.stopped());
        }
        match tokio::time::timeout(RUN_TIMEOUT, answer).await {
            Ok(Ok(result)) => Ok(result?),
            Ok(Err(_)) => Err(self.stopped()),
            Err(_) => {
                let reason = format!("a batch took longer than {} s", RUN_TIMEOUT.as_secs());
                self.health.send_replace(Health::Stopped { reason });
                Err(self.stopped())
            }
        }
    }

    fn stopped(&self) -> EngineError {
        match self.health() {
            Health::Stopped { reason } => EngineError::Stopped { reason },
            Health::Ready => EngineError::Stopped {
                reason: "its thread has ended".to_owned(),
            },
        }
    }
}

fn own(
    stage: Stage,
    mut loaded: Box<dyn Loaded>,
    max_positions: u64,
    mut queue: mpsc::Receiver<Job>,
    health: &watch::Sender<Health>,
) {
    while let Some(job) = queue.blocking_recv() {
        if job.reply.is_closed() {
            continue;
        }
        let rows = job.rows;
        // The session is not used again after a panic, so nothing half changed is ever seen.
        let run = AssertUnwindSafe(|| run_stage(&stage, loaded.as_mut(), &rows, max_positions));
        match catch_unwind(run) {
            // Whoever asked may have given up meanwhile.
            Ok(result) => drop(job.reply.send(result)),
            Err(_) => {
                let reason = "the graph panicked".to_owned();
                health.send_replace(Health::Stopped { reason });
                return;
            }
        }
    }
}
