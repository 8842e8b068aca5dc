//! The thread that owns the node, and the handle to it.
//!
//! cw-multi-test's `App` cannot leave its thread, so whoever wants something sends a closure and gets its result back.
//! Blocks are made on the same thread by a clock, so nothing ever runs beside anything else.

use std::{thread, time::Duration};

use tokio::{
    sync::{mpsc, oneshot},
    time::{interval, MissedTickBehavior},
};
use tokio_util::sync::CancellationToken;

use crate::{log::StateError, node::Node, DevnetError};

/// Requests that wait for the node; beyond that senders wait.
const JOBS: usize = 1_024;
/// Address space of the thread, touched as far as it is needed: contracts may call each other hundreds deep, and unoptimised
/// builds take up to a hundred kilobytes a level.
const STACK_BYTES: usize = 512 * 1024 * 1024;
/// Longest wait for an answer: a block of heavy transactions may take seconds.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);

type Job = Box<dyn FnOnce(&mut Node) + Send>;

/// The way to the node. Cloning it is cheap.
#[derive(Clone)]
pub(crate) struct Service {
    jobs: mpsc::Sender<Job>,
}

/// The node did not answer: it has stopped, or works on a very heavy block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the node does not answer")]
pub(crate) struct NoAnswer;

impl Service {
    /// Starts the thread; `make` builds the node on it. The thread ends when `stop` is cancelled.
    pub(crate) async fn start(
        make: impl FnOnce() -> anyhow::Result<Node> + Send + 'static,
        block_time: Duration,
        stop: CancellationToken,
    ) -> Result<(Service, oneshot::Receiver<Option<StateError>>), DevnetError> {
        let (jobs, received) = mpsc::channel(JOBS);
        let (ready, readiness) = oneshot::channel();
        let (ended, end) = oneshot::channel();
        let body = move || {
            let failure = match make() {
                Ok(node) => {
                    let _ = ready.send(Ok(()));
                    run(node, received, block_time, &stop)
                }
                Err(error) => {
                    let error = match error.downcast::<StateError>() {
                        Ok(error) => DevnetError::State(error),
                        Err(error) => DevnetError::Genesis(format!("{error:#}")),
                    };
                    let _ = ready.send(Err(error));
                    None
                }
            };
            let _ = ended.send(failure);
        };
        thread::Builder::new()
            .name("devnet".into())
            .stack_size(STACK_BYTES)
            .spawn(body)
            .map_err(DevnetError::Thread)?;
        let died = || DevnetError::Genesis("the node's thread died".into());
        readiness.await.map_err(|_| died())??;
        Ok((Service { jobs }, end))
    }

    /// Runs the closure on the node's thread.
    pub(crate) async fn call<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Node) -> T + Send + 'static,
    ) -> Result<T, NoAnswer> {
        let (answer, answered) = oneshot::channel();
        let job: Job = Box::new(move |node| {
            let _ = answer.send(job(node));
        });
        let asked = async {
            self.jobs.send(job).await.map_err(|_| NoAnswer)?;
            answered.await.map_err(|_| NoAnswer)
        };
        tokio::time::timeout(ANSWER_TIMEOUT, asked)
            .await
            .map_err(|_| NoAnswer)?
    }
}

/// Works until told to stop, or until a block cannot be kept: that is what it gives then.
fn run(
    mut node: Node,
    mut jobs: mpsc::Receiver<Job>,
    block_time: Duration,
    stop: &CancellationToken,
) -> Option<StateError> {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_time().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "the node has no clock");
            return None;
        }
    };
    runtime.block_on(async {
        let mut clock = interval(block_time);
        // After a heavy block the clock goes on from there; it does not catch up with a burst of empty blocks.
        clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
        clock.tick().await;
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => break None,
                _ = clock.tick() => if let Err(error) = node.make_block() {
                    tracing::error!(%error, "the block cannot be kept, so the chain stops");
                    break Some(error);
                },
                job = jobs.recv() => match job {
                    Some(job) => job(&mut node),
                    None => break None,
                },
            }
        }
    })
}
