//! What a host counts, one method per number, and how it reads in Prometheus' text format.

use std::{
    fmt::Write,
    sync::atomic::{AtomicU64, Ordering},
};

/// Counters since the start of the process.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    items_started: AtomicU64,
    items_done: AtomicU64,
    items_failed: AtomicU64,
    rows_computed: AtomicU64,
    units_computed: AtomicU64,
    pushes_sent: AtomicU64,
    push_retries: AtomicU64,
    pushes_received: AtomicU64,
    pushes_refused: AtomicU64,
    overloads: AtomicU64,
    corrupt_records: AtomicU64,
    outputs_served: AtomicU64,
}

/// A number that is looked up when it is asked for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Gauge {
    pub(crate) name: &'static str,
    pub(crate) help: &'static str,
    pub(crate) value: u64,
}

fn add(counter: &AtomicU64, amount: u64) {
    counter.fetch_add(amount, Ordering::Relaxed);
}

impl Metrics {
    pub(crate) fn item_started(&self) {
        add(&self.items_started, 1);
    }

    pub(crate) fn item_done(&self) {
        add(&self.items_done, 1);
    }

    pub(crate) fn item_failed(&self) {
        add(&self.items_failed, 1);
    }

    pub(crate) fn computed(&self, rows: u64, units: u64) {
        add(&self.rows_computed, rows);
        add(&self.units_computed, units);
    }

    pub(crate) fn push_sent(&self) {
        add(&self.pushes_sent, 1);
    }

    pub(crate) fn push_retried(&self) {
        add(&self.push_retries, 1);
    }

    pub(crate) fn push_received(&self) {
        add(&self.pushes_received, 1);
    }

    pub(crate) fn push_refused(&self) {
        add(&self.pushes_refused, 1);
    }

    pub(crate) fn overloaded(&self) {
        add(&self.overloads, 1);
    }

    pub(crate) fn corrupt_record(&self) {
        add(&self.corrupt_records, 1);
    }

    pub(crate) fn output_served(&self) {
        add(&self.outputs_served, 1);
    }

    /// All numbers as Prometheus reads them.
    pub(crate) fn render(&self, gauges: &[Gauge]) -> String {
        let counters = [
            ("items_started", "Pieces of work begun.", &self.items_started),
            ("items_done", "Pieces of work finished.", &self.items_done),
            ("items_failed", "Pieces of work given up.", &self.items_failed),
            (
                "rows_computed",
                "Rows that went through the stages.",
                &self.rows_computed,
            ),
            ("units_computed", "Units of those rows.", &self.units_computed),
            ("pushes_sent", "Pushes acknowledged by next hosts.", &self.pushes_sent),
            ("push_retries", "Pushes tried again.", &self.push_retries),
            ("pushes_received", "Pushes acknowledged.", &self.pushes_received),
            ("pushes_refused", "Pushes refused.", &self.pushes_refused),
            ("overloads", "Work refused for want of room.", &self.overloads),
            (
                "corrupt_records",
                "Pieces of work found corrupt on disk.",
                &self.corrupt_records,
            ),
            ("outputs_served", "Outputs handed to developers.", &self.outputs_served),
        ];
        let mut text = String::new();
        for (name, help, counter) in counters {
            let value = counter.load(Ordering::Relaxed);
            // Writing to a String cannot fail.
            let _ = writeln!(
                text,
                "# HELP fxn_host_{name}_total {help}\n# TYPE fxn_host_{name}_total counter"
            );
            let _ = writeln!(text, "fxn_host_{name}_total {value}");
        }
        for Gauge { name, help, value } in gauges {
            let _ = writeln!(text, "# HELP fxn_host_{name} {help}\n# TYPE fxn_host_{name} gauge");
            let _ = writeln!(text, "fxn_host_{name} {value}");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_as_prometheus_wants_them() {
        let metrics = Metrics::default();
        metrics.computed(3, 40);
        let queued = Gauge {
            name: "queued_rows",
            help: "Rows waiting.",
            value: 7,
        };
        let text = metrics.render(&[queued]);
        assert!(text.contains("# TYPE fxn_host_units_computed_total counter\nfxn_host_units_computed_total 40\n"));
        assert!(text.ends_with("# TYPE fxn_host_queued_rows gauge\nfxn_host_queued_rows 7\n"));
    }
}
