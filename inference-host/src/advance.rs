//! How a piece of work goes on, from admitted rows to an acknowledgement or an output: computes, signs, keeps, hands over.
//!
//! Guarantees: whatever was started goes on after a restart; a receipt is shown to nobody before it is safe on disk, and once it is, no
//! other is ever signed for that span; every wait ends at the item's deadline at the latest; a disk that takes nothing is waited for, because
//! work that is done should not be done again.

use std::{future::Future, sync::Arc, time::Duration};

use partition::{row, Row};
use prost::bytes::Bytes;
use schema::{merkle, receipt::Link};

use crate::{
    faults::{pass, Point},
    host::{Admitted, Host},
    journal::{JournalError, RowFile},
    links::{sign_receipt, Done},
    peers::Push,
    refusal::Refusal,
    request::first_not_finite,
    work::{Entry, Phase, Record},
};

/// First and longest pause before something that did not work is tried again.
const PAUSE_FIRST: Duration = Duration::from_millis(100);
const PAUSE_LONGEST: Duration = Duration::from_secs(2);

impl Host {
    /// Goes on with what an earlier process left unfinished.
    pub(crate) fn resume(self: &Arc<Self>) {
        for entry in self.work.unfinished() {
            let host = Arc::clone(self);
            self.tasks.spawn(async move {
                let stop = host.stop.clone();
                tokio::select! {
                    () = host.resume_one(entry) => {}
                    () = stop.cancelled() => {}
                }
            });
        }
    }

    async fn resume_one(self: Arc<Self>, entry: Arc<Entry>) {
        let record = entry.record();
        let key = record.key();
        // Whether there is any use in it depends on the chain's time, which may not be known yet.
        while self.clock.sure_now().is_err() {
            tokio::time::sleep(PAUSE_FIRST).await;
        }
        tracing::info!(item = %key.item, attempt = key.attempt, span = key.span, "an interrupted piece of work goes on");
        if record.phase == Phase::Sending {
            match self.work.rows(&entry, RowFile::Output) {
                Ok(rows) => return self.send(&entry, rows.into_iter().map(Bytes::from).collect()).await,
                Err(error) => return self.fail(&entry, error.to_string()).await,
            }
        }
        let interrupted = |record: &Record| record.phase == Phase::Running && record.own().is_none();
        let mut pause = PAUSE_FIRST;
        // The models may still be loading; the deadline ends the wait.
        while let Err(refusal) = self.start(&entry, interrupted).await {
            if matches!(refusal, Refusal::Late { .. }) || refusal.is_final() {
                return self.fail(&entry, refusal.to_string()).await;
            }
            tracing::debug!(item = %key.item, attempt = key.attempt, span = key.span, %refusal, "not yet");
            tokio::time::sleep(pause).await;
            pause = pause.saturating_mul(2).min(PAUSE_LONGEST);
        }
    }

    /// Computes in the background. A stopping host leaves the work as it is on disk, for the next start.
    pub(crate) fn launch(self: &Arc<Self>, entry: &Arc<Entry>, admitted: Admitted) {
        self.metrics.items_started(1);
        let (host, entry) = (Arc::clone(self), Arc::clone(entry));
        self.tasks.spawn(async move {
            let stop = host.stop.clone();
            tokio::select! {
                () = host.compute(&entry, admitted) => {}
                () = stop.cancelled() => {}
            }
        });
    }

    async fn compute(&self, entry: &Arc<Entry>, admitted: Admitted) {
        let record = entry.record();
        let deadline = record.assignment.deadline;
        let Admitted {
            ticket,
            units,
            rows: inputs,
            memory,
        } = admitted;
        let computed = match tokio::time::timeout_at(self.clock.instant_of(deadline), ticket.finish()).await {
            Ok(Ok(rows)) => {
                if record.is_last() {
                    self.metrics.rows_not_finite(not_finite(&rows));
                }
                encode(&rows)
            }
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err(format!("the deadline {deadline} passed before all rows were computed")),
        };
        let produced = match computed {
            Ok(rows) => self.produce(entry, &record, units, rows).await,
            Err(reason) => Err(reason),
        };
        match produced {
            Ok(rows) if !record.is_last() => {
                self.count(inputs, units);
                self.send(entry, rows).await;
            }
            Ok(_) => {
                self.count(inputs, units);
                self.metrics.items_done(1);
            }
            Err(reason) => self.fail(entry, reason).await,
        }
        drop(memory);
    }

    pub(crate) fn count(&self, rows: u64, units: u64) {
        self.metrics.rows_computed(rows);
        self.metrics.units_computed(units);
    }

    /// Signs what was computed and keeps it.
    async fn produce(
        &self,
        entry: &Arc<Entry>,
        record: &Record,
        units_in: u64,
        rows: Vec<Bytes>,
    ) -> Result<Vec<Bytes>, String> {
        let (Some(pinned), Some(input_digest)) = (record.pinned(), record.input_digest()) else {
            return Err("the assignment does not have this span".to_owned());
        };
        let done = Done {
            input_digest,
            output_digest: merkle::root(&rows),
            units_in,
        };
        let receipt = sign_receipt(&self.host_key, &record.assignment, pinned, &record.links, done);
        let own = Link {
            receipt,
            acknowledgement: None,
        };
        pass(Point::ReceiptSigned);
        let kept = self.keep(record, || self.work.produce(entry, own.clone(), rows.clone()));
        kept.await.map(|()| rows).map_err(|error| error.to_string())
    }

    /// Keeps something until the disk takes it or the deadline has passed.
    async fn keep<F>(&self, record: &Record, write: impl Fn() -> F) -> Result<(), JournalError>
    where
        F: Future<Output = Result<(), JournalError>>,
    {
        let mut pause = PAUSE_FIRST;
        loop {
            match write().await {
                Err(error @ (JournalError::Full { .. } | JournalError::File { .. }))
                    if self.clock.now() < record.assignment.deadline =>
                {
                    let key = record.key();
                    tracing::error!(item = %key.item, attempt = key.attempt, span = key.span, %error, "not kept yet");
                    tokio::time::sleep(pause).await;
                    pause = pause.saturating_mul(2).min(PAUSE_LONGEST);
                }
                other => return other,
            }
        }
    }

    /// Hands the rows to the next host.
    async fn send(&self, entry: &Arc<Entry>, rows: Vec<Bytes>) {
        let record = entry.record();
        let Some(own) = record.own() else { return };
        let push = Push {
            assignment: &record.assignment,
            span: usize::from(record.span).saturating_add(1),
            links: &record.links,
            digest: own.receipt.receipt.output_digest,
            rows: &rows,
        };
        let deadline = self.clock.instant_of(record.assignment.deadline);
        match self.peers.push(&push, deadline, &self.metrics).await {
            Ok(acknowledgement) => {
                pass(Point::PushAnswered);
                let kept = self.keep(&record, || self.work.acknowledge(entry, acknowledgement.clone()));
                match kept.await {
                    Ok(()) => self.metrics.items_done(1),
                    Err(error) => self.fail(entry, error.to_string()).await,
                }
            }
            Err(error) => {
                self.fail(entry, format!("the next host has not acknowledged: {error}"))
                    .await
            }
        }
    }

    pub(crate) async fn fail(&self, entry: &Arc<Entry>, reason: String) {
        let key = entry.record().key();
        tracing::warn!(item = %key.item, attempt = key.attempt, span = key.span, reason, "a piece of work has failed");
        self.metrics.items_failed(1);
        self.work.fail(entry, reason).await;
    }
}

pub(crate) fn encode(rows: &[Row]) -> Result<Vec<Bytes>, String> {
    let encode = |row: &Row| row::encode(row).map(Bytes::from).map_err(|error| error.to_string());
    rows.iter().map(encode).collect()
}

/// Rows with a number that is not finite. They are answers like others; who serves the model may want to know.
pub(crate) fn not_finite(rows: &[Row]) -> u64 {
    let has_one = |row: &&Row| {
        let mut tensors = row.iter();
        tensors.any(|tensor| first_not_finite(tensor.dtype, &tensor.data).is_some())
    };
    u64::try_from(rows.iter().filter(has_one).count()).unwrap_or(u64::MAX)
}
