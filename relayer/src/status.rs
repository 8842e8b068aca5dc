//! What the relayer says about itself, on a private port: /health, /ready, /status, /metrics.
//!
//! Tasks write into one snapshot behind a `watch` channel and never wait for readers.

use std::{fmt::Write, net::SocketAddr, sync::Arc};

use axum::{extract::State as AxumState, http::StatusCode, routing::get, Json, Router};
use serde::{Deserialize, Serialize};
use tokio::{net::TcpListener, sync::watch};
use tokio_util::sync::CancellationToken;

use crate::{
    chain::Moment,
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
    /// Whether the chain has been read up to where it was at the start.
    pub caught_up: bool,
    /// Whether the host answered when it was last asked. None: it was not asked yet.
    pub host_answers: Option<bool>,
    /// Open items by stage.
    pub items: Items,
    /// Since the start of the process.
    pub totals: Totals,
    /// The transaction under way.
    pub transaction: Option<String>,
    /// A checkpoint that could not be read and was kept here.
    pub set_aside: Option<String>,
    /// The last thing that went wrong.
    pub last_error: Option<String>,
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
    pub transactions: u64,
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
            snapshot.caught_up |= caught_up;
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

    pub(crate) fn host_failed(&self, error: &impl ToString) {
        self.note(|snapshot| {
            snapshot.host_answers = Some(false);
            snapshot.totals.host_errors = snapshot.totals.host_errors.saturating_add(1);
            snapshot.last_error = Some(error.to_string());
        });
    }

    pub(crate) fn host_answered(&self) {
        self.0.send_if_modified(|snapshot| {
            let before = snapshot.host_answers.replace(true);
            before != Some(true)
        });
    }

    pub(crate) fn chain_failed(&self, error: &impl ToString) {
        self.note(|snapshot| {
            snapshot.totals.chain_errors = snapshot.totals.chain_errors.saturating_add(1);
            snapshot.last_error = Some(error.to_string());
        });
    }
}

impl Snapshot {
    /// Ready: it has caught up with the chain, and the host answers if it was asked.
    pub fn is_ready(&self) -> bool {
        self.caught_up && self.host_answers != Some(false)
    }

    /// The text that Prometheus reads.
    pub fn metrics(&self) -> String {
        let mut text = String::new();
        let gauges = [
            ("height", self.height),
            ("block_seconds", self.block_seconds),
            ("ready", u64::from(self.is_ready())),
            ("host_answers", u64::from(self.host_answers == Some(true))),
            ("transaction_under_way", u64::from(self.transaction.is_some())),
        ];
        for (name, value) in gauges {
            metric(&mut text, "gauge", name, value);
        }
        let Totals {
            attested,
            attestations_refused,
            evidence_posted,
            expired,
            transactions,
            host_errors,
            chain_errors,
        } = self.totals;
        let counters = [
            ("attested_total", attested),
            ("attestations_refused_total", attestations_refused),
            ("evidence_posted_total", evidence_posted),
            ("expired_total", expired),
            ("transactions_total", transactions),
            ("host_errors_total", host_errors),
            ("chain_errors_total", chain_errors),
        ];
        for (name, value) in counters {
            metric(&mut text, "counter", name, value);
        }
        text.push_str("# TYPE fxn_relayer_items gauge\n");
        let Items {
            fresh,
            started,
            prepared,
            confirmed,
            refused,
        } = self.items;
        let stages = [
            ("fresh", fresh),
            ("started", started),
            ("prepared", prepared),
            ("confirmed", confirmed),
            ("refused", refused),
        ];
        for (stage, value) in stages {
            // Writing into a String cannot fail.
            let _ = writeln!(text, "fxn_relayer_items{{stage=\"{stage}\"}} {value}");
        }
        text
    }
}

fn metric(text: &mut String, kind: &str, name: &str, value: u64) {
    let _ = write!(text, "# TYPE fxn_relayer_{name} {kind}\nfxn_relayer_{name} {value}\n");
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

async fn metrics(AxumState(snapshots): Snapshots) -> String {
    snapshots.borrow().metrics()
}
