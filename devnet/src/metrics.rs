//! What a devnet counts, in Prometheus' text format. Off unless an address is given: a node serves its metrics apart from its RPC.

use std::{
    collections::BTreeMap,
    fmt::Write,
    sync::{
        atomic::{AtomicU64, Ordering},
        Arc, Mutex, PoisonError,
    },
    time::Duration,
};

use axum::{http::header::CONTENT_TYPE, response::IntoResponse, routing::get, Router};

/// Upper bounds of the buckets for a block's duration, in milliseconds.
const BUCKETS: [u64; 9] = [1, 5, 10, 50, 100, 250, 500, 1_000, 5_000];

/// Numbers by codespace and code. Codes are constants of this program, so there are few.
type ByCode = Mutex<BTreeMap<(&'static str, u32), u64>>;

/// Counters since the start of the process, and the present sizes of what is bounded.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    height: AtomicU64,
    transactions: ByCode,
    checks: ByCode,
    mempool_txs: AtomicU64,
    mempool_bytes: AtomicU64,
    blocks_kept: AtomicU64,
    history_bytes: AtomicU64,
    log_bytes: AtomicU64,
    websocket_clients: AtomicU64,
    subscribed_clients: AtomicU64,
    subscriptions: AtomicU64,
    subscriptions_canceled: AtomicU64,
    blocks: [AtomicU64; BUCKETS.len()],
    blocks_made: AtomicU64,
    blocks_nanos: AtomicU64,
}

/// The sizes that are looked up at each block.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sizes {
    pub(crate) height: u64,
    pub(crate) blocks_kept: usize,
    pub(crate) history_bytes: usize,
    pub(crate) log_bytes: u64,
}

fn set(gauge: &AtomicU64, value: usize) {
    gauge.store(u64::try_from(value).unwrap_or(u64::MAX), Ordering::Relaxed);
}

fn count(numbers: &ByCode, codespace: &'static str, code: u32) {
    let mut numbers = numbers.lock().unwrap_or_else(PoisonError::into_inner);
    let number = numbers.entry((codespace, code)).or_default();
    *number = number.saturating_add(1);
}

impl Metrics {
    pub(crate) fn transaction(&self, codespace: &'static str, code: u32) {
        count(&self.transactions, codespace, code);
    }

    pub(crate) fn checked(&self, codespace: &'static str, code: u32) {
        count(&self.checks, codespace, code);
    }

    pub(crate) fn mempool(&self, (txs, bytes): (usize, usize)) {
        set(&self.mempool_txs, txs);
        set(&self.mempool_bytes, bytes);
    }

    pub(crate) fn sizes(&self, sizes: Sizes) {
        self.height.store(sizes.height, Ordering::Relaxed);
        set(&self.blocks_kept, sizes.blocks_kept);
        set(&self.history_bytes, sizes.history_bytes);
        self.log_bytes.store(sizes.log_bytes, Ordering::Relaxed);
    }

    pub(crate) fn block_made(&self, took: Duration) {
        for (bucket, bound) in self.blocks.iter().zip(BUCKETS) {
            if took <= Duration::from_millis(bound) {
                bucket.fetch_add(1, Ordering::Relaxed);
            }
        }
        self.blocks_made.fetch_add(1, Ordering::Relaxed);
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.blocks_nanos.fetch_add(nanos, Ordering::Relaxed);
    }

    pub(crate) fn subscription_canceled(&self) {
        self.subscriptions_canceled.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn client_came(&self) {
        self.websocket_clients.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn client_went(&self) {
        self.websocket_clients.fetch_sub(1, Ordering::Relaxed);
    }

    /// Counts a client that subscribes for the first time, unless so many do already.
    pub(crate) fn may_subscribe(&self, max: u64) -> bool {
        let more = |clients: u64| clients.checked_add(1).filter(|clients| *clients <= max);
        let counted = self
            .subscribed_clients
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        counted.is_ok()
    }

    /// A client has another number of subscriptions. With its last one it is no longer counted among those who subscribe.
    pub(crate) fn subscriptions_changed(&self, from: usize, to: usize) {
        if from > 0 && to == 0 {
            self.subscribed_clients.fetch_sub(1, Ordering::Relaxed);
        }
        let [from, to] = [from, to].map(|number| u64::try_from(number).unwrap_or(u64::MAX));
        // Adding the difference and wrapping around is subtracting.
        self.subscriptions.fetch_add(to.wrapping_sub(from), Ordering::Relaxed);
    }

    /// The text that Prometheus reads.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        let gauges = [
            ("height", "Height of the latest block.", &self.height),
            (
                "mempool_transactions",
                "Transactions that wait for a block.",
                &self.mempool_txs,
            ),
            (
                "mempool_bytes",
                "Bytes of the transactions that wait.",
                &self.mempool_bytes,
            ),
            ("blocks_kept", "Blocks that can be asked for.", &self.blocks_kept),
            (
                "history_bytes",
                "Memory of the kept blocks, roughly.",
                &self.history_bytes,
            ),
            (
                "log_bytes",
                "Length of the transaction log, 0 without a state folder.",
                &self.log_bytes,
            ),
            (
                "websocket_clients",
                "Open WebSocket connections.",
                &self.websocket_clients,
            ),
            (
                "subscribed_clients",
                "WebSocket clients with subscriptions, 100 at most.",
                &self.subscribed_clients,
            ),
            (
                "subscriptions",
                "Subscriptions of all WebSocket clients.",
                &self.subscriptions,
            ),
        ];
        for (name, help, value) in gauges {
            head(&mut text, name, help, "gauge");
            line(&mut text, name, "", value.load(Ordering::Relaxed));
        }
        let name = "subscriptions_canceled_total";
        head(
            &mut text,
            name,
            "Subscriptions of clients that were too slow.",
            "counter",
        );
        line(&mut text, name, "", self.subscriptions_canceled.load(Ordering::Relaxed));
        let by_code = [
            (
                "transactions_total",
                "Transactions in blocks, by result.",
                &self.transactions,
            ),
            (
                "checks_total",
                "Transactions handed over, by the result of their check.",
                &self.checks,
            ),
        ];
        for (name, help, numbers) in by_code {
            head(&mut text, name, help, "counter");
            for ((codespace, code), number) in numbers.lock().unwrap_or_else(PoisonError::into_inner).iter() {
                let labels = format!("{{codespace=\"{codespace}\",code=\"{code}\"}}");
                line(&mut text, name, &labels, *number);
            }
        }
        self.durations(&mut text);
        text
    }

    fn durations(&self, text: &mut String) {
        let name = "block_duration_seconds";
        let help = "Time to run a block and put it on the disk.";
        head(text, name, help, "histogram");
        let made = self.blocks_made.load(Ordering::Relaxed);
        for (bucket, bound) in self.blocks.iter().zip(BUCKETS) {
            let bound = Duration::from_millis(bound).as_secs_f64();
            let labels = format!("_bucket{{le=\"{bound}\"}}");
            line(text, name, &labels, bucket.load(Ordering::Relaxed));
        }
        line(text, name, "_bucket{le=\"+Inf\"}", made);
        let seconds = Duration::from_nanos(self.blocks_nanos.load(Ordering::Relaxed)).as_secs_f64();
        line(text, name, "_sum", seconds);
        line(text, name, "_count", made);
    }
}

fn head(text: &mut String, name: &str, help: &str, kind: &str) {
    // Writing to a string cannot fail.
    let _ = writeln!(text, "# HELP fxn_devnet_{name} {help}\n# TYPE fxn_devnet_{name} {kind}");
}

fn line(text: &mut String, name: &str, rest: &str, value: impl std::fmt::Display) {
    let _ = writeln!(text, "fxn_devnet_{name}{rest} {value}");
}

/// Serves `/metrics`.
pub(crate) fn router(metrics: Arc<Metrics>) -> Router {
    let answer = move || async move { ([(CONTENT_TYPE, "text/plain; version=0.0.4")], metrics.text()).into_response() };
    Router::new().route("/metrics", get(answer))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_has_a_help_line_and_reads_as_prometheus_wants_it() {
        let metrics = Metrics::default();
        metrics.transaction("", 0);
        metrics.transaction("wasm", 5);
        metrics.transaction("wasm", 5);
        metrics.checked("sdk", 32);
        metrics.block_made(Duration::from_millis(7));
        assert!(metrics.may_subscribe(1) && !metrics.may_subscribe(1));
        metrics.subscriptions_changed(0, 3);
        metrics.subscriptions_changed(3, 1);
        let text = metrics.text();
        for expected in [
            "fxn_devnet_transactions_total{codespace=\"wasm\",code=\"5\"} 2\n",
            "fxn_devnet_checks_total{codespace=\"sdk\",code=\"32\"} 1\n",
            "fxn_devnet_block_duration_seconds_bucket{le=\"0.005\"} 0\n",
            "fxn_devnet_block_duration_seconds_bucket{le=\"0.01\"} 1\n",
            "fxn_devnet_block_duration_seconds_count 1\n",
            "fxn_devnet_subscriptions 1\n",
        ] {
            assert!(text.contains(expected), "{expected} is not in {text}");
        }
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let name = line.split(['{', ' ']).next().unwrap();
            let name = ["_bucket", "_sum", "_count"]
                .into_iter()
                .find_map(|end| name.strip_suffix(end))
                .unwrap_or(name);
            assert!(text.contains(&format!("# HELP {name} ")), "{name}");
            assert!(line.rsplit(' ').next().unwrap().parse::<f64>().is_ok(), "{line}");
        }
    }
}
