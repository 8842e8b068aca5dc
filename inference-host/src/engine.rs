//! One thread owns one ONNX session. Everybody else sends it rows and waits.
//!
//! Guarantees: sessions never run on two threads at once; a graph that panics ends its own thread and nothing else; whether the thread
//! is alive is known without asking it; nobody waits longer than the limit for a graph that hangs. A thread that hangs cannot be ended, so
//! its engine is given up, and [`Hung`] counts such threads until they come back.

use std::{
    panic::{catch_unwind, AssertUnwindSafe},
    sync::{
        atomic::{AtomicUsize, Ordering},
        Arc,
    },
    thread,
    time::Duration,
};

use partition::{run_stage, Loaded, Row, RuntimeError, Stage, StageError};
use tokio::sync::{mpsc, oneshot, watch};

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

/// Threads of this process that were given up because their graph hangs. Clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Hung(Arc<AtomicUsize>);

impl Hung {
    /// Threads that hang now.
    pub(crate) fn threads(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    /// Runs something on a thread of its own and waits so long for it.
    pub(crate) async fn on_thread<R: Send + 'static>(
        &self,
        name: &str,
        patience: Duration,
        work: impl FnOnce() -> R + Send + 'static,
    ) -> Result<R, Given> {
        let (reply, mut answer) = oneshot::channel();
        // Not a blocking task of the runtime: the runtime would wait for it when the host stops.
        let spawned = thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || reply.send(work()));
        spawned.map_err(Given::NoThread)?;
        match tokio::time::timeout(patience, &mut answer).await {
            Ok(Ok(result)) => Ok(result),
            Ok(Err(_)) => Err(Given::Panicked),
            Err(_) => {
                self.given_up();
                let hung = self.clone();
                tokio::spawn(async move {
                    drop(answer.await);
                    hung.came_back();
                });
                Err(Given::Up)
            }
        }
    }

    fn given_up(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn came_back(&self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Why there is no result from a thread.
#[derive(Debug)]
pub(crate) enum Given {
    NoThread(std::io::Error),
    Panicked,
    /// It took too long.
    Up,
}

impl EngineError {
    /// Whether the device had no memory left, which passes.
    pub(crate) fn is_out_of_memory(&self) -> bool {
        matches!(self, Self::Rows(StageError::Runtime(RuntimeError::OutOfMemory { .. })))
    }
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
    patience: Duration,
    hung: Hung,
}

impl Engine {
    /// Starts the thread. It ends when the engine is dropped. A batch that takes longer than `patience` hangs.
    pub(crate) fn start(
        stage: Stage,
        loaded: Box<dyn Loaded>,
        max_positions: u64,
        patience: Duration,
        hung: Hung,
    ) -> std::io::Result<Self> {
        let (jobs, queue) = mpsc::channel(BATCHES_MAX);
        let (health, _) = watch::channel(Health::Ready);
        let short: String = stage.digest.as_str().chars().take(8).collect();
        let (reporter, returned) = (health.clone(), hung.clone());
        thread::Builder::new()
            .name(format!("stage-{short}"))
            .spawn(move || own(&stage, loaded, max_positions, queue, &reporter, &returned))?;
        Ok(Self {
            jobs,
            health,
            patience,
            hung,
        })
    }

    pub(crate) fn health(&self) -> Health {
        self.health.borrow().clone()
    }

    /// Runs rows as one batch. Ends within the engine's patience: a run, and as long again behind the batch of another lane.
    pub(crate) async fn run(&self, rows: Vec<Row>) -> Result<Vec<Row>, EngineError> {
        if self.health() != Health::Ready {
            return Err(self.stopped());
        }
        let (reply, answer) = oneshot::channel();
        match tokio::time::timeout(self.patience, self.jobs.send(Job { rows, reply })).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return Err(self.stopped()),
            Err(_) => return Err(self.give_up()),
        }
        match tokio::time::timeout(self.patience, answer).await {
            Ok(Ok(result)) => Ok(result?),
            Ok(Err(_)) => Err(self.stopped()),
            Err(_) => Err(self.give_up()),
        }
    }

    /// Nobody waits for the thread any more.
    fn give_up(&self) -> EngineError {
        let reason = format!("a batch took longer than {} s", self.patience.as_secs());
        if stop(&self.health, reason) {
            self.hung.given_up();
        }
        self.stopped()
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

/// Makes an engine useless, for the first reason that somebody has. Whether this was the first.
fn stop(health: &watch::Sender<Health>, reason: String) -> bool {
    health.send_if_modified(|health| {
        let first = *health == Health::Ready;
        if first {
            *health = Health::Stopped { reason };
        }
        first
    })
}

fn own(
    stage: &Stage,
    mut loaded: Box<dyn Loaded>,
    max_positions: u64,
    mut queue: mpsc::Receiver<Job>,
    health: &watch::Sender<Health>,
    hung: &Hung,
) {
    let mut panicked = false;
    while let Some(job) = queue.blocking_recv() {
        if job.reply.is_closed() {
            continue;
        }
        let rows = job.rows;
        // The session is not used again after a panic, so nothing half changed is ever seen.
        let run = AssertUnwindSafe(|| run_stage(stage, loaded.as_mut(), &rows, max_positions));
        match catch_unwind(run) {
            // Whoever asked may have given up meanwhile.
            Ok(result) => drop(job.reply.send(result)),
            Err(_) => panicked = stop(health, "the graph panicked".to_owned()),
        }
        if *health.borrow() != Health::Ready {
            break;
        }
    }
    if *health.borrow() != Health::Ready && !panicked {
        hung.came_back();
    }
}
