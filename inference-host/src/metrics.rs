//! What a host counts, one method per number, and how it reads in Prometheus' text format.
//!
//! Guarantees: every name begins with `fxn_host_`, says its unit and has its HELP and TYPE; counters only grow and end in `_total`; label
//! values come from short lists or from the provider's own deployments, never from a stranger.

use std::{
    collections::BTreeMap,
    fmt::Write,
    sync::{
        atomic::{AtomicU64, Ordering},
        Arc, Mutex, PoisonError,
    },
    time::Duration,
};

use crate::aside::{Aside, Kind};

/// Stages with numbers of their own. A provider has at most 32 deployments; beyond this the oldest deployment's numbers are dropped.
const STAGES_MAX: usize = 256;

/// Why work or a push was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reason {
    TooLarge,
    Queue,
    Work,
    Memory,
    DeviceMemory,
    Busy,
    Disk,
    Clock,
    NotServing,
    Assignment,
    Chain,
    Late,
    Stalled,
    Proof,
    Malformed,
    Transport,
}

impl Reason {
    const ALL: [(Self, &'static str); 16] = [
        (Self::TooLarge, "too_large"),
        (Self::Queue, "queue"),
        (Self::Work, "work"),
        (Self::Memory, "memory"),
        (Self::DeviceMemory, "device_memory"),
        (Self::Busy, "busy"),
        (Self::Disk, "disk"),
        (Self::Clock, "clock"),
        (Self::NotServing, "not_serving"),
        (Self::Assignment, "assignment"),
        (Self::Chain, "chain"),
        (Self::Late, "late"),
        (Self::Stalled, "stalled"),
        (Self::Proof, "proof"),
        (Self::Malformed, "malformed"),
        (Self::Transport, "transport"),
    ];
}

macro_rules! counters {
    ($($method:ident($name:literal, $help:literal);)+) => {
        /// Numbers that only grow, since the start of the process.
        #[derive(Debug, Default)]
        struct Counters { $($method: AtomicU64,)+ }

        impl Metrics {
            $(
                #[doc = $help]
                pub(crate) fn $method(&self, amount: u64) {
                    self.counters.$method.fetch_add(amount, Ordering::Relaxed);
                }
            )+
        }

        impl Counters {
            fn all(&self) -> Vec<(&'static str, &'static str, u64)> {
                vec![$(($name, $help, self.$method.load(Ordering::Relaxed)),)+]
            }
        }
    };
}

counters! {
    items_started("items_started", "Pieces of work whose computation was begun.");
    items_done("items_done", "Pieces of work finished: acknowledged by the next host, or kept as output.");
    items_failed("items_failed", "Pieces of work given up.");
    items_let_go("items_let_go", "Finished pieces of work that gave way to new ones because the chain had closed their attempt.");
    device_memory_exhausted("device_memory_exhausted", "Runs of a row alone for which the device had no memory.");
    rows_computed("rows_computed", "Rows that went through all stages of their span.");
    rows_not_finite("rows_not_finite", "Rows of the last stage that have a NaN or an infinity among their numbers.");
    units_computed("units_computed", "Positions (units) of those rows.");
    pushes_sent("pushes_sent", "Pushes that the next host acknowledged.");
    push_retries("push_retries", "Pushes tried again.");
    push_sent_bytes("push_sent_bytes", "Bytes of rows in acknowledged pushes to next hosts.");
    pushes_received("pushes_received", "Pushes acknowledged to hosts before.");
    push_received_bytes("push_received_bytes", "Bytes of rows in pushes acknowledged to hosts before.");
    pushes_refused("pushes_refused", "Pushes refused, for whatever reason.");
    overloads("overloads", "Work and pushes refused for want of room, with a time to try again.");
    session_requests_done("session_requests_done", "Requests of sessions that were computed, receipted and counted.");
    session_requests_refused("session_requests_refused", "Requests of sessions that came to nothing, for whatever reason.");
    session_vouchers("session_vouchers", "Vouchers of sessions that were accepted.");
    session_vouchers_refused("session_vouchers_refused", "Vouchers of sessions that were refused.");
    session_strangers_refused("session_strangers_refused", "Streams and pushes of sessions whose peer did not prove that it belongs there.");
    outputs_served("outputs_served", "Outputs handed to developers.");
    blob_hits("blob_hits", "Blobs that were in the store and sound when they were needed.");
    blob_fetches("blob_fetches", "Blobs fetched from a source.");
    blob_fetched_bytes("blob_fetched_bytes", "Bytes of blobs that arrived from sources.");
    blob_sent_bytes("blob_sent_bytes", "Bytes of blobs and outputs sent to others.");
    connections_refused("connections_refused", "Connections closed at once because there were too many.");
    leftovers_removed("leftovers_removed", "Unfinished files of a killed process that were removed at the start.");
    write_failures("write_failures", "Writes of receipts, acknowledgements or rows that the disk did not take.");
}

/// Everything that is counted.
#[derive(Debug)]
pub(crate) struct Metrics {
    counters: Counters,
    refusals: [AtomicU64; Reason::ALL.len()],
    queue_wait: Histogram,
    batch_rows: Histogram,
    batch_positions: Histogram,
    voucher_sync: Histogram,
    /// By deployment and stage.
    compute: Mutex<BTreeMap<(u64, usize), Arc<Histogram>>>,
    aside: Aside,
}

/// A number that is looked up when it is asked for.
#[derive(Debug, Clone)]
pub(crate) struct Gauge {
    pub(crate) name: &'static str,
    pub(crate) help: &'static str,
    /// Each with its label, as in `port="public"`; an empty label stands alone.
    pub(crate) values: Vec<(String, i64)>,
}

const SECONDS: Scale = Scale {
    bounds: &[
        100,
        500,
        1_000,
        2_500,
        5_000,
        10_000,
        25_000,
        50_000,
        100_000,
        250_000,
        500_000,
        1_000_000,
        2_500_000,
        5_000_000,
        10_000_000,
        30_000_000,
        60_000_000,
        300_000_000,
    ],
    decimals: 6,
};
const COUNTS: Scale = Scale {
    bounds: &[1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 4096, 16_384],
    decimals: 0,
};

/// Upper bounds of buckets, in units of the last decimal.
#[derive(Debug, Clone, Copy)]
struct Scale {
    bounds: &'static [u64],
    decimals: u32,
}

impl Scale {
    fn show(self, value: u64) -> String {
        let unit = 10_u64.saturating_pow(self.decimals);
        let (whole, rest) = (
            value.checked_div(unit).unwrap_or(0),
            value.checked_rem(unit).unwrap_or(0),
        );
        match rest {
            0 => whole.to_string(),
            rest => {
                let width = usize::try_from(self.decimals).unwrap_or(0);
                format!("{whole}.{rest:0width$}").trim_end_matches('0').to_owned()
            }
        }
    }
}

/// How often which size was seen.
#[derive(Debug)]
pub(crate) struct Histogram {
    scale: Scale,
    /// One per bound and one beyond.
    buckets: Vec<AtomicU64>,
    sum: AtomicU64,
}

impl Histogram {
    fn new(scale: Scale) -> Self {
        let buckets = scale.bounds.iter().map(|_| AtomicU64::new(0));
        Self {
            scale,
            buckets: buckets.chain([AtomicU64::new(0)]).collect(),
            sum: AtomicU64::new(0),
        }
    }

    fn observe(&self, value: u64) {
        let bucket = self.scale.bounds.partition_point(|bound| *bound < value);
        if let Some(bucket) = self.buckets.get(bucket) {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
        self.sum.fetch_add(value, Ordering::Relaxed);
    }

    /// Takes a duration, in seconds.
    pub(crate) fn observe_time(&self, time: Duration) {
        self.observe(u64::try_from(time.as_micros()).unwrap_or(u64::MAX));
    }

    /// `labels` is empty, or pairs with a comma after each.
    fn render(&self, text: &mut String, name: &str, labels: &str) {
        let mut count = 0_u64;
        for (index, bucket) in self.buckets.iter().enumerate() {
            count = count.saturating_add(bucket.load(Ordering::Relaxed));
            let bound = self.scale.bounds.get(index).map(|bound| self.scale.show(*bound));
            let bound = bound.unwrap_or_else(|| "+Inf".to_owned());
            put(text, format_args!("{name}_bucket{{{labels}le=\"{bound}\"}} {count}"));
        }
        let own = match labels.strip_suffix(',') {
            Some(labels) => format!("{{{labels}}}"),
            None => String::new(),
        };
        let sum = self.scale.show(self.sum.load(Ordering::Relaxed));
        put(text, format_args!("{name}_sum{own} {sum}\n{name}_count{own} {count}"));
    }
}

impl Metrics {
    /// `aside` counts the files that were set aside.
    pub(crate) fn new(aside: Aside) -> Self {
        Self {
            counters: Counters::default(),
            refusals: Default::default(),
            queue_wait: Histogram::new(SECONDS),
            batch_rows: Histogram::new(COUNTS),
            batch_positions: Histogram::new(COUNTS),
            voucher_sync: Histogram::new(SECONDS),
            compute: Mutex::default(),
            aside,
        }
    }

    pub(crate) fn refused(&self, reason: Reason) {
        let counter = self.refusals.get(reason as usize);
        counter.map(|counter| counter.fetch_add(1, Ordering::Relaxed));
    }

    /// A row left the queue.
    pub(crate) fn waited(&self, time: Duration) {
        self.queue_wait.observe_time(time);
    }

    /// A batch left the queue.
    pub(crate) fn batched(&self, rows: u64, positions: u64) {
        self.batch_rows.observe(rows);
        self.batch_positions.observe(positions);
    }

    /// Vouchers were put on the disk together.
    pub(crate) fn vouchers_synced(&self, time: Duration) {
        self.voucher_sync.observe_time(time);
    }

    /// Where the runs of a stage are counted.
    pub(crate) fn compute(&self, deployment: u64, stage: usize) -> Arc<Histogram> {
        let mut compute = self.compute.lock().unwrap_or_else(PoisonError::into_inner);
        let known = compute.entry((deployment, stage));
        let histogram = Arc::clone(known.or_insert_with(|| Arc::new(Histogram::new(SECONDS))));
        while compute.len() > STAGES_MAX {
            compute.pop_first();
        }
        histogram
    }

    /// All numbers as Prometheus reads them.
    pub(crate) fn render(&self, gauges: &[Gauge]) -> String {
        let mut text = String::new();
        for (name, help, value) in self.counters.all() {
            head(&mut text, &format!("{name}_total"), help, "counter");
            put(&mut text, format_args!("fxn_host_{name}_total {value}"));
        }
        head(
            &mut text,
            "refusals_total",
            "Work and pushes refused, by reason.",
            "counter",
        );
        for ((_, reason), count) in Reason::ALL.iter().zip(&self.refusals) {
            let count = count.load(Ordering::Relaxed);
            put(
                &mut text,
                format_args!("fxn_host_refusals_total{{reason=\"{reason}\"}} {count}"),
            );
        }
        let help = "State files that were not what they should be and were moved aside, by kind.";
        head(&mut text, "set_aside_total", help, "counter");
        for kind in Kind::ALL {
            let (name, count) = (kind.name(), self.aside.count(kind));
            put(
                &mut text,
                format_args!("fxn_host_set_aside_total{{kind=\"{name}\"}} {count}"),
            );
        }
        self.render_histograms(&mut text);
        for Gauge { name, help, values } in gauges {
            head(&mut text, name, help, "gauge");
            for (label, value) in values {
                let label = match label.as_str() {
                    "" => String::new(),
                    label => format!("{{{label}}}"),
                };
                put(&mut text, format_args!("fxn_host_{name}{label} {value}"));
            }
        }
        text
    }

    fn render_histograms(&self, text: &mut String) {
        let histograms = [
            (
                "queue_wait_seconds",
                "How long rows waited for an engine.",
                &self.queue_wait,
            ),
            ("batch_rows", "Rows in a batch.", &self.batch_rows),
            (
                "batch_positions",
                "Positions in a batch: its rows times its longest row.",
                &self.batch_positions,
            ),
            (
                "voucher_sync_seconds",
                "How long it took to put vouchers on the disk, all that waited together.",
                &self.voucher_sync,
            ),
        ];
        for (name, help, histogram) in histograms {
            head(text, name, help, "histogram");
            histogram.render(text, &format!("fxn_host_{name}"), "");
        }
        head(
            text,
            "compute_seconds",
            "How long a batch took in a stage, waiting for its thread included.",
            "histogram",
        );
        let compute = self.compute.lock().unwrap_or_else(PoisonError::into_inner);
        for ((deployment, stage), histogram) in compute.iter() {
            let labels = format!("deployment=\"{deployment}\",stage=\"{stage}\",");
            histogram.render(text, "fxn_host_compute_seconds", &labels);
        }
    }
}

fn head(text: &mut String, name: &str, help: &str, kind: &str) {
    put(
        text,
        format_args!("# HELP fxn_host_{name} {help}\n# TYPE fxn_host_{name} {kind}"),
    );
}

fn put(text: &mut String, line: std::fmt::Arguments<'_>) {
    // Writing to a String cannot fail.
    let _ = writeln!(text, "{line}");
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn numbers_read_as_prometheus_wants_them() {
        let metrics = Metrics::new(Aside::default());
        metrics.units_computed(40);
        metrics.refused(Reason::Clock);
        metrics.waited(Duration::from_micros(1500));
        metrics.waited(Duration::from_secs(301));
        metrics.compute(7, 2).observe_time(Duration::from_millis(3));
        let queued = Gauge {
            name: "queued_rows",
            help: "Rows waiting.",
            values: vec![("deployment=\"7\"".to_owned(), 3), (String::new(), -2)],
        };
        let text = metrics.render(&[queued]);
        for expected in [
            "# TYPE fxn_host_units_computed_total counter\nfxn_host_units_computed_total 40\n",
            "\nfxn_host_refusals_total{reason=\"clock\"} 1\n",
            "\nfxn_host_queue_wait_seconds_bucket{le=\"0.001\"} 0\nfxn_host_queue_wait_seconds_bucket{le=\"0.0025\"} 1\n",
            "\nfxn_host_queue_wait_seconds_bucket{le=\"+Inf\"} 2\n\
             fxn_host_queue_wait_seconds_sum 301.0015\nfxn_host_queue_wait_seconds_count 2\n",
            "\nfxn_host_compute_seconds_bucket{deployment=\"7\",stage=\"2\",le=\"0.005\"} 1\n",
            "\nfxn_host_compute_seconds_count{deployment=\"7\",stage=\"2\"} 1\n",
            "\nfxn_host_queued_rows{deployment=\"7\"} 3\nfxn_host_queued_rows -2\n",
        ] {
            assert!(text.contains(expected), "{expected} in {text}");
        }
    }

    #[test]
    fn every_number_is_explained_once_and_reasons_are_counted_as_themselves() {
        let metrics = Metrics::new(Aside::default());
        for (reason, name) in Reason::ALL {
            metrics.refused(reason);
            let line = format!("fxn_host_refusals_total{{reason=\"{name}\"}} 1");
            assert!(metrics.render(&[]).contains(&line), "{line}");
        }
        let text = metrics.render(&[]);
        let explained: Vec<&str> = text
            .lines()
            .filter_map(|line| line.strip_prefix("# HELP "))
            .filter_map(|rest| rest.split(' ').next())
            .collect();
        assert_eq!(explained.iter().collect::<HashSet<_>>().len(), explained.len());
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let name = line.split(['{', ' ']).next().unwrap();
            let known = |explained: &&str| name == *explained || name.starts_with(&format!("{explained}_"));
            assert!(explained.iter().any(known), "{line}");
        }
    }

    #[test]
    fn stages_of_deployments_that_come_and_go_are_bounded() {
        let metrics = Metrics::new(Aside::default());
        for deployment in 0..1000 {
            metrics.compute(deployment, 0);
        }
        assert_eq!(metrics.compute.lock().unwrap().len(), STAGES_MAX);
    }
}
