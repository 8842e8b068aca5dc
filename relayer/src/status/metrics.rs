//! The snapshot as Prometheus reads it: every number with its HELP and TYPE, times in seconds, counters ending in `_total`.

use std::{fmt::Write, time::Duration};

use serde::{Deserialize, Serialize};

use super::{Items, Snapshot, Subject, Totals};
use crate::chain::{Endpoint, Standing};

/// Upper bounds of the histogram in milliseconds: from one block of a devnet to the longest wait before bytes are sent again.
const BOUNDS_MS: [u64; 8] = [100, 250, 500, 1_000, 2_500, 5_000, 10_000, 30_000];

/// How long something took, how often.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Latency {
    /// How often it took at most as long as the bound of the same place; each contains those before it.
    within: [u64; BOUNDS_MS.len()],
    count: u64,
    sum_micros: u64,
}

impl Latency {
    pub(crate) fn observe(&mut self, latency: Duration) {
        for (count, bound) in self.within.iter_mut().zip(BOUNDS_MS) {
            *count = count.saturating_add(u64::from(latency <= Duration::from_millis(bound)));
        }
        self.count = self.count.saturating_add(1);
        let micros = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        self.sum_micros = self.sum_micros.saturating_add(micros);
    }

    fn render(&self, page: &mut Page, name: &str, help: &str) {
        page.head(name, "histogram", help);
        for (count, bound) in self.within.iter().zip(BOUNDS_MS) {
            let bound = seconds(bound.saturating_mul(1_000));
            page.line(&format!("{name}_bucket"), &format!("{{le=\"{bound}\"}}"), count);
        }
        page.line(&format!("{name}_bucket"), "{le=\"+Inf\"}", self.count);
        page.line(&format!("{name}_sum"), "", seconds(self.sum_micros));
        page.line(&format!("{name}_count"), "", self.count);
    }
}

/// Microseconds as seconds, exactly, without the zeros at the end.
fn seconds(micros: u64) -> String {
    let text = format!("{}.{:06}", micros / 1_000_000, micros % 1_000_000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// Lines of the text format.
#[derive(Default)]
struct Page(String);

impl Page {
    fn head(&mut self, name: &str, kind: &str, help: &str) {
        // Writing into a String cannot fail, here and below.
        let _ = writeln!(
            self.0,
            "# HELP fxn_relayer_{name} {help}\n# TYPE fxn_relayer_{name} {kind}"
        );
    }

    fn line(&mut self, name: &str, labels: &str, value: impl std::fmt::Display) {
        let _ = writeln!(self.0, "fxn_relayer_{name}{labels} {value}");
    }

    fn number(&mut self, kind: &str, name: &str, help: &str, value: u64) {
        self.head(name, kind, help);
        self.line(name, "", value);
    }

    fn family<'a>(
        &mut self,
        kind: &str,
        name: &str,
        help: &str,
        label: &str,
        values: impl IntoIterator<Item = (&'a str, u64)>,
    ) {
        self.head(name, kind, help);
        for (text, value) in values {
            self.line(name, &format!("{{{label}=\"{text}\"}}"), value);
        }
    }
}

impl Snapshot {
    /// The text that Prometheus reads.
    pub fn metrics(&self) -> String {
        let mut page = Page::default();
        self.gauges(&mut page);
        self.families(&mut page);
        self.nodes(&mut page);
        self.counters(&mut page);
        self.confirm_latency.render(
            &mut page,
            "confirm_latency_seconds",
            "From handing a transaction over to reading it in a block.",
        );
        page.0
    }

    fn gauges(&self, page: &mut Page) {
        let gauges = [
            ("height", "Last block taken in.", self.height),
            (
                "block_timestamp_seconds",
                "Time of that block, Unix seconds.",
                self.block_seconds,
            ),
            (
                "lag_blocks",
                "Blocks of the chain that were not taken in when it was last asked.",
                self.chain_height.saturating_sub(self.height),
            ),
            (
                "ready",
                "1 when it has caught up, its host answers and its disk has room.",
                self.is_ready().into(),
            ),
            (
                "host_reachable",
                "1 when the host answered when it was last asked.",
                (self.host_answers == Some(true)).into(),
            ),
            ("queue_length", "Requests that wait for a transaction.", self.queued),
            (
                "transactions_pending",
                "1 while a transaction is under way.",
                self.transaction.is_some().into(),
            ),
            (
                "set_aside_files",
                "Damaged state files kept in the home, to be looked at by a person.",
                u64::try_from(self.kept_aside.len()).unwrap_or(u64::MAX),
            ),
        ];
        for (name, help, value) in gauges {
            page.number("gauge", name, help, value);
        }
        // Absent until it is known: zero would ring a bell.
        if let Some(balance) = self.balance {
            page.number(
                "gauge",
                "balance",
                "Gas coin of the account that pays, in its smallest unit.",
                balance,
            );
        }
    }

    fn families(&self, page: &mut Page) {
        let Items {
            fresh,
            started,
            prepared,
            confirmed,
            refused,
        } = self.items;
        let items = [
            ("fresh", fresh),
            ("started", started),
            ("prepared", prepared),
            ("confirmed", confirmed),
            ("refused", refused),
        ];
        page.family("gauge", "items", "Open items by how far they are.", "stage", items);
        let troubles = Subject::ALL.map(|(subject, name)| (name, u64::from(self.trouble.contains_key(&subject))));
        page.family(
            "gauge",
            "trouble",
            "1 while something stands in the way; /status has the sentence.",
            "subject",
            troubles,
        );
    }

    fn nodes(&self, page: &mut Page) {
        let family = |page: &mut Page, kind, name, help, value: fn(&Endpoint) -> String| {
            page.head(name, kind, help);
            for node in &self.endpoints {
                page.line(name, &format!("{{node=\"{}\"}}", node.name), value(node));
            }
        };
        // Before the first look there is nothing to tell, and a family without a value is none.
        if self.endpoints.is_empty() {
            return;
        }
        family(
            page,
            "gauge",
            "node_usable",
            "1 when the node answers and is not behind the others.",
            |node| u8::from(node.standing == Standing::Good).to_string(),
        );
        family(
            page,
            "gauge",
            "node_other_chain",
            "1 when the node is on another chain and never used.",
            |node| u8::from(node.standing == Standing::OtherChain).to_string(),
        );
        family(
            page,
            "gauge",
            "node_height",
            "Last height that the node told.",
            |node| node.height.to_string(),
        );
        family(
            page,
            "gauge",
            "node_latency_seconds",
            "How long the node usually takes to answer.",
            |node| seconds(node.latency_micros),
        );
        family(
            page,
            "counter",
            "node_errors_total",
            "Calls that the node did not answer well.",
            |node| node.failures.to_string(),
        );
    }

    fn counters(&self, page: &mut Page) {
        let Totals {
            attested,
            attestations_refused,
            evidence_posted,
            expired,
            rounds_posted,
            vouchers_settled,
            vouchers_refused,
            transactions,
            transactions_failed,
            transactions_refused,
            transactions_dropped,
            transactions_too_dear,
            host_errors,
            chain_errors,
        } = self.totals;
        let outcomes = [
            ("executed", transactions.saturating_sub(transactions_failed)),
            ("failed", transactions_failed),
            ("refused", transactions_refused),
            ("dropped", transactions_dropped),
            ("too_dear", transactions_too_dear),
        ];
        page.family(
            "counter",
            "transactions_total",
            "Transactions by outcome: in a block and executed or failed there, refused before any block, dropped after they were sent, or too dear to be sent.",
            "outcome",
            outcomes,
        );
        let counters = [
            ("attested_total", "Items attested on chain by this relayer.", attested),
            (
                "attestations_refused_total",
                "Attestations that the contract refused.",
                attestations_refused,
            ),
            (
                "evidence_posted_total",
                "Evidence posted after a deadline.",
                evidence_posted,
            ),
            ("expired_total", "Overdue items expired, of any provider.", expired),
            (
                "rounds_posted_total",
                "Rounds of the beacon brought to the chain.",
                rounds_posted,
            ),
            (
                "vouchers_settled_total",
                "Vouchers of sessions that the contract paid.",
                vouchers_settled,
            ),
            (
                "vouchers_refused_total",
                "Vouchers of sessions that the contract refused.",
                vouchers_refused,
            ),
            (
                "host_errors_total",
                "Requests that the host did not answer well.",
                host_errors,
            ),
            (
                "chain_errors_total",
                "Requests and transactions that the chain did not answer well.",
                chain_errors,
            ),
        ];
        for (name, help, value) in counters {
            page.number("counter", name, help, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_histogram_counts_into_every_bucket_that_holds_it() {
        let mut latency = Latency::default();
        latency.observe(Duration::from_millis(250));
        latency.observe(Duration::from_secs(3));
        latency.observe(Duration::from_secs(60));
        let mut page = Page::default();
        latency.render(&mut page, "wait_seconds", "A wait.");
        let lines: Vec<&str> = page.0.lines().skip(2).collect();
        let expected = [
            "fxn_relayer_wait_seconds_bucket{le=\"0.1\"} 0",
            "fxn_relayer_wait_seconds_bucket{le=\"0.25\"} 1",
            "fxn_relayer_wait_seconds_bucket{le=\"0.5\"} 1",
            "fxn_relayer_wait_seconds_bucket{le=\"1\"} 1",
            "fxn_relayer_wait_seconds_bucket{le=\"2.5\"} 1",
            "fxn_relayer_wait_seconds_bucket{le=\"5\"} 2",
            "fxn_relayer_wait_seconds_bucket{le=\"10\"} 2",
            "fxn_relayer_wait_seconds_bucket{le=\"30\"} 2",
            "fxn_relayer_wait_seconds_bucket{le=\"+Inf\"} 3",
            "fxn_relayer_wait_seconds_sum 63.25",
            "fxn_relayer_wait_seconds_count 3",
        ];
        assert_eq!(lines, expected);
    }
}
