//! The checkpoint as the tasks use it: a change is on disk and on the board when it returns, and a full disk is waited for.
//!
//! Waiting is safe because nobody acts on a change before it is written, and better than stopping: room that somebody makes is found
//! without a restart, and the status says meanwhile what is missing. Any other failure of the disk stops the program.

use std::sync::Arc;

use crate::{
    checkpoint::{CheckpointError, State, Store},
    retry::Policy,
    status::{Board, Subject},
};

/// The checkpoint and the board.
#[derive(Debug, Clone)]
pub struct Book {
    pub store: Arc<Store>,
    pub board: Board,
    /// How often a full disk is tried again. It has no end of its own; the process has one.
    pub policy: Policy,
}

impl Book {
    /// Changes the state. Dropping this while it waits leaves everything as it was.
    pub async fn change<R>(&self, change: impl Fn(&mut State) -> R) -> Result<R, CheckpointError> {
        let result = self.patiently(|| self.store.update(&change)).await?;
        self.store.read(|state| self.board.state(state));
        Ok(result)
    }

    /// Notes a block in which nothing happened for us.
    pub async fn quiet_block(&self, height: u64) -> Result<(), CheckpointError> {
        self.patiently(|| self.store.quiet_block(height)).await
    }

    async fn patiently<R>(&self, write: impl Fn() -> Result<R, CheckpointError>) -> Result<R, CheckpointError> {
        let mut failures: u32 = 0;
        loop {
            match write() {
                Err(error) if error.is_full() => {
                    let sentence =
                        format!("the checkpoint cannot be written, nothing is sent until it can be: {error}");
                    self.board.trouble(Subject::Disk, &sentence);
                    failures = failures.saturating_add(1);
                    tokio::time::sleep(self.policy.pause(failures)).await;
                }
                result => {
                    if result.is_ok() {
                        self.board.well(Subject::Disk);
                    }
                    return result;
                }
            }
        }
    }
}
