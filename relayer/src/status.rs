//! What the relayer says about itself, on a private port: /health, /ready, /status, /metrics.
//!
//! Tasks write into one snapshot behind a `watch` channel and never wait for readers. What stands in the way is told as long as it does:
//! on the board, and in the log once when it comes and once when it goes.

mod metrics;

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use axum::{
    extract::State as AxumState,
    http::{header::CONTENT_TYPE, StatusCode},
    response::IntoResponse,
    routing::get,
    Json, Router,
};
use serde::{Deserialize, Serialize};
use tokio::{net::TcpListener, sync::watch};
use tokio_util::sync::CancellationToken;

pub use self::metrics::Latency;
use crate::{
    chain::{Endpoint, Head, Moment},
    checkpoint::{Stage, State},
};

/// Everything that is told about a running relayer.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Snapshot {
    pub chain_id: String,
    /// Whose deployments are served.
    pub provider: String,
    /// Last block taken in.
    pub height: u64,
    /// Its block time in seconds.
    pub block_seconds: u64,
    /// The chain's own height, the highest that was told.
    pub chain_height: u64,
    /// Blocks of the chain that were not taken in yet.
    pub blocks_behind: u64,
    /// What is known of each node.
    pub endpoints: Vec<Endpoint>,
    /// Whether the chain has been read up to where it was at the start.
    pub caught_up: bool,
    /// Whether the host answered when it was last asked. None: it was not asked yet.
    pub host_answers: Option<bool>,
    /// Gas coin of the account that pays, when it was last asked for.
    pub balance: Option<u64>,
    /// Open items by stage.
    pub items: Items,
    /// Requests that wait for a transaction.
    pub queued: u64,
    /// Since the start of the process.
    pub totals: Totals,
    /// From handing a transaction over to its block.
    pub confirm_latency: Latency,
    /// The transaction under way.
    pub transaction: Option<String>,
    /// The file that could not be read at this start, and was kept here.
    pub set_aside: Option<String>,
    /// All files that this start and earlier ones have kept aside. They are never overwritten; a person may remove them.
    pub kept_aside: Vec<PathBuf>,
    /// What stands in the way now, in a sentence each. Empty: nothing.
    pub trouble: BTreeMap<Subject, String>,
    /// The last thing that went wrong.
    pub last_error: Option<String>,
}

/// What trouble may be about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Subject {
    /// The node does not answer, answers nonsense, or is behind.
    Node,
    /// A node belongs to another chain and is not used.
    Endpoint,
    /// The account cannot pay for transactions.
    Gas,
    /// The account that pays has less than the operator wants it to have.
    Balance,
    /// A transaction would cost more than the operator allows.
    Fee,
    /// The host does not answer, cannot be found, or does not know us.
    Host,
    /// There is no room to write the checkpoint.
    Disk,
    /// Chain and machine do not agree on the time of day.
    Clock,
}

impl Subject {
    /// All of them, with their names in labels.
    pub const ALL: [(Subject, &'static str); 8] = [
        (Subject::Node, "node"),
        (Subject::Endpoint, "endpoint"),
        (Subject::Gas, "gas"),
        (Subject::Balance, "balance"),
        (Subject::Fee, "fee"),
        (Subject::Host, "host"),
        (Subject::Disk, "disk"),
        (Subject::Clock, "clock"),
    ];
}

/// Open items by stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Items {
    pub fresh: u64,
    pub started: u64,
    pub prepared: u64,
    pub confirmed: u64,
    pub refused: u64,
}

/// Counters since the start of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Totals {
    pub attested: u64,
    pub attestations_refused: u64,
    pub evidence_posted: u64,
    pub expired: u64,
    #[serde(default)]
    pub rounds_posted: u64,
    #[serde(default)]
    pub vouchers_settled: u64,
    #[serde(default)]
    pub vouchers_refused: u64,
    /// In a block, whatever their result.
    pub transactions: u64,
    /// Those of them that failed there.
    pub transactions_failed: u64,
    /// Refused before they got into any block.
    pub transactions_refused: u64,
    /// Sent, and given up because they can be in no block any more.
    pub transactions_dropped: u64,
    /// Not sent, because they would cost too much.
    pub transactions_too_dear: u64,
    pub host_errors: u64,
    pub chain_errors: u64,
}

/// The board on which all tasks write.
#[derive(Debug, Clone)]
pub struct Board(Arc<watch::Sender<Snapshot>>);

impl Board {
    /// An empty board of this relayer.
    pub fn new(chain_id: &str, provider: &str) -> Board {
        Board(Arc::new(watch::Sender::new(Snapshot {
            chain_id: chain_id.to_owned(),
            provider: provider.to_owned(),
            ..Snapshot::default()
        })))
    }

    /// To read, or to wait for a change.
    pub fn subscribe(&self) -> watch::Receiver<Snapshot> {
        self.0.subscribe()
    }

    /// Changes the snapshot.
    pub fn note(&self, change: impl FnOnce(&mut Snapshot)) {
        self.0.send_modify(change);
    }

    pub(crate) fn count(&self, counter: impl FnOnce(&mut Totals) -> &mut u64, by: usize) {
        self.note(|snapshot| {
            let counter = counter(&mut snapshot.totals);
            *counter = counter.saturating_add(u64::try_from(by).unwrap_or(u64::MAX));
        });
    }

    pub(crate) fn moment(&self, moment: Moment, caught_up: bool) {
        self.note(|snapshot| {
            snapshot.height = moment.height;
            snapshot.block_seconds = moment.seconds;
            snapshot.sees(moment.height);
            snapshot.caught_up |= caught_up;
        });
    }

    pub(crate) fn chain(&self, head: Head) {
        self.note(|snapshot| snapshot.sees(head.moment.height));
        self.well(Subject::Node);
    }

    /// Where the last run has come to.
    pub(crate) fn begin_at(&self, height: u64) {
        self.note(|snapshot| {
            snapshot.height = height;
            snapshot.sees(height);
        });
    }

    pub(crate) fn state(&self, state: &State) {
        let mut items = Items::default();
        for entry in state.entries() {
            let counter = match entry.stage {
                Stage::Fresh {} => &mut items.fresh,
                Stage::Started {} => &mut items.started,
                Stage::Prepared { .. } => &mut items.prepared,
                Stage::Confirmed { .. } => &mut items.confirmed,
                Stage::Refused { .. } => &mut items.refused,
            };
            *counter = counter.saturating_add(1);
        }
        let transaction = state.transaction().map(|transaction| transaction.tx_hash.to_string());
        self.note(|snapshot| {
            snapshot.items = items;
            snapshot.transaction = transaction;
        });
    }

    pub(crate) fn queued(&self, requests: usize) {
        self.note(|snapshot| snapshot.queued = u64::try_from(requests).unwrap_or(u64::MAX));
    }

    pub(crate) fn confirmed_after(&self, latency: Duration) {
        self.note(|snapshot| snapshot.confirm_latency.observe(latency));
    }

    /// Something stands in the way. It is told until [`Board::well`].
    pub(crate) fn trouble(&self, subject: Subject, sentence: &impl ToString) {
        let sentence = sentence.to_string();
        self.0.send_if_modified(|snapshot| {
            let before = snapshot.trouble.insert(subject, sentence.clone());
            if before.is_none() {
                tracing::warn!(?subject, trouble = %sentence, "something stands in the way");
            }
            before.as_ref() != Some(&sentence)
        });
    }

    /// It does not any more.
    pub(crate) fn well(&self, subject: Subject) {
        self.0.send_if_modified(|snapshot| {
            let before = snapshot.trouble.remove(&subject);
            if let Some(trouble) = &before {
                tracing::info!(?subject, %trouble, "it is over");
            }
            before.is_some()
        });
    }

    pub(crate) fn host_failed(&self, error: &impl ToString) {
        self.note(|snapshot| {
            snapshot.host_answers = Some(false);
            snapshot.totals.host_errors = snapshot.totals.host_errors.saturating_add(1);
            snapshot.last_error = Some(error.to_string());
        });
        self.trouble(Subject::Host, error);
    }

    pub(crate) fn host_answered(&self) {
        self.0.send_if_modified(|snapshot| {
            let before = snapshot.host_answers.replace(true);
            before != Some(true)
        });
        self.well(Subject::Host);
    }

    pub(crate) fn chain_failed(&self, error: &impl ToString) {
        self.note(|snapshot| {
            snapshot.totals.chain_errors = snapshot.totals.chain_errors.saturating_add(1);
            snapshot.last_error = Some(error.to_string());
        });
    }
}

impl Snapshot {
    /// The chain has come as far as this, at least.
    fn sees(&mut self, height: u64) {
        self.chain_height = self.chain_height.max(height);
        self.blocks_behind = self.chain_height.saturating_sub(self.height);
    }

    /// Ready: it has caught up with the chain, the host answers if it was asked, and what must be written can be.
    pub fn is_ready(&self) -> bool {
        self.caught_up && self.host_answers != Some(false) && !self.trouble.contains_key(&Subject::Disk)
    }
}

/// Binds the port; a busy one is an error that names it.
pub async fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    let named = |error: std::io::Error| std::io::Error::new(error.kind(), format!("{address}: {error}"));
    TcpListener::bind(address).await.map_err(named)
}

/// Answers until it is told to stop.
pub async fn serve(listener: TcpListener, board: Board, stop: CancellationToken) -> std::io::Result<()> {
    let router = Router::new()
        .route("/health", get(|| async { "ok\n" }))
        .route("/ready", get(ready))
        .route("/status", get(status))
        .route("/metrics", get(metrics))
        .with_state(board.subscribe());
    axum::serve(listener, router)
        .with_graceful_shutdown(stop.cancelled_owned())
        .await
}

type Snapshots = AxumState<watch::Receiver<Snapshot>>;

async fn ready(AxumState(snapshots): Snapshots) -> (StatusCode, &'static str) {
    match snapshots.borrow().is_ready() {
        true => (StatusCode::OK, "ready\n"),
        false => (StatusCode::SERVICE_UNAVAILABLE, "not ready\n"),
    }
}

async fn status(AxumState(snapshots): Snapshots) -> Json<Snapshot> {
    Json(snapshots.borrow().clone())
}

async fn metrics(AxumState(snapshots): Snapshots) -> impl IntoResponse {
    let text = snapshots.borrow().metrics();
    ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text)
}
