//! Who makes room where as many pieces of work are remembered as may be: those that nobody can ask about any more.
//!
//! Receipts are evidence until the end of their window, and nobody can tell a host earlier than the chain does: an attempt that was settled,
//! expired or given to others takes no evidence any more. So a full host asks the chain about what it has finished, oldest first, and lets go of
//! what is over. An attempt that is open holds a slot, so a host that may remember as many pieces as its deployments have slots always finds
//! room for work that it has a slot for. Nothing is let go of on a guess: no answer, or an answer that is not clear, means that it is kept.

use std::{sync::Arc, time::Duration};

use futures::{stream, StreamExt};
use tokio::time::Instant;

use crate::{
    host::Host,
    work::{Entry, WorkKey},
};

/// Attempts that the chain is asked about before another look at the room.
const ASKED: usize = 64;
/// Questions at the same time.
const ASKED_AT_ONCE: usize = 8;
/// Pause after the chain was asked about everything and has closed nothing: more slots are promised than pieces can be remembered.
const PAUSE: Duration = Duration::from_secs(1);

/// Makes room, one at a time.
#[derive(Debug, Default)]
pub(crate) struct Room {
    /// When all was asked about in vain.
    in_vain: tokio::sync::Mutex<Option<Instant>>,
}

impl Host {
    /// Makes places for so many pieces, if the chain lets it. Whoever comes meanwhile waits, and finds what is left of the room.
    pub(crate) async fn make_places(&self, pieces: usize) {
        if self.work.has_places(pieces) {
            return;
        }
        let mut in_vain = self.room.in_vain.lock().await;
        self.work.make_room(self.clock.now());
        if self.work.has_places(pieces) || in_vain.is_some_and(|at| at.elapsed() < PAUSE) {
            return;
        }
        *in_vain = None;
        for asked in self.work.idle().chunks(ASKED) {
            let found = self.let_go_of_closed(asked).await;
            *in_vain = (!found).then(Instant::now);
            if self.work.has_places(pieces) {
                return;
            }
        }
    }

    /// Whether any of these is over, and gone.
    async fn let_go_of_closed(&self, entries: &[Arc<Entry>]) -> bool {
        let asked = stream::iter(entries.to_vec()).map(|entry| async move { (self.is_over(&entry).await, entry) });
        let answers: Vec<(Option<bool>, Arc<Entry>)> = asked.buffer_unordered(ASKED_AT_ONCE).collect().await;
        let mut gone: Vec<WorkKey> = Vec::new();
        for (over, entry) in answers {
            match over {
                Some(true) => gone.push(entry.record().key()),
                Some(false) | None => entry.seen_open(self.clock.now()),
            }
        }
        self.metrics.items_let_go(u64::try_from(gone.len()).unwrap_or(u64::MAX));
        self.work.let_go(&gone);
        !gone.is_empty()
    }

    /// Whether an attempt is over for good. None where the chain does not say.
    async fn is_over(&self, entry: &Entry) -> Option<bool> {
        let ours = entry.record().assignment;
        let found = self.chain.assignment(ours.item).await.ok()?;
        Some(found.attempt > ours.attempt || (found.attempt == ours.attempt && !found.open))
    }
}
