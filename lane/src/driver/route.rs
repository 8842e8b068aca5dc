//! Which hosts a request goes to: chains that are complete, the faster of two drawn ones, and nobody who has just failed.

use std::time::Duration;

use rand::Rng;
use tokio::time::Instant;

use super::Span;

/// Chains that are looked at; sessions with their 16 allocations have fewer where it matters.
const CHAINS_MAX: usize = 256;
/// A host that lied rests as long as one that has failed so many times.
const LIE_WEIGHT: u32 = 8;
/// Part of a new measurement in the learned time.
const LEARN: f64 = 0.2;

/// Every complete chain of one engine class, as places in `spans`.
pub(super) fn chains(spans: &[Span], stages: u8) -> Vec<Vec<usize>> {
    let mut found = vec![];
    for (place, span) in spans.iter().enumerate().filter(|(_, span)| span.first == 0) {
        extend(spans, stages, vec![place], span.last, &mut found);
    }
    found
}

fn extend(spans: &[Span], stages: u8, chain: Vec<usize>, last: u8, found: &mut Vec<Vec<usize>>) {
    if found.len() >= CHAINS_MAX {
        return;
    }
    let next = last.saturating_add(1);
    if next >= stages {
        found.push(chain);
        return;
    }
    let class = chain
        .first()
        .and_then(|first| spans.get(*first))
        .map(|span| &span.engine_class);
    for (place, span) in spans.iter().enumerate() {
        if span.first == next && Some(&span.engine_class) == class && span.last >= span.first {
            let longer = chain.iter().copied().chain([place]).collect();
            extend(spans, stages, longer, span.last, found);
        }
    }
}

/// What is known of a host's reliability and speed.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Record {
    /// Failures since the last success.
    failures: u32,
    /// Nothing is sent there before.
    rests_until: Option<Instant>,
    /// Seconds that one request takes here; None: not known.
    seconds: Option<f64>,
    /// Requests that are on their way.
    pub(super) open: u32,
}

impl Record {
    pub(super) fn succeeded(&mut self, took: Duration) {
        self.failures = 0;
        self.rests_until = None;
        let took = took.as_secs_f64();
        self.seconds = Some(
            self.seconds
                .map_or(took, |known| known.mul_add(1.0 - LEARN, took * LEARN)),
        );
    }

    /// `rest`: the first pause, and the longest.
    pub(super) fn failed(&mut self, is_lie: bool, rest: (Duration, Duration), now: Instant) {
        let weight = if is_lie { LIE_WEIGHT } else { 1 };
        self.failures = self.failures.saturating_add(weight);
        let doublings = self.failures.saturating_sub(1).min(16);
        let pause = rest.0.saturating_mul(1_u32.checked_shl(doublings).unwrap_or(u32::MAX));
        // Half of it is drawn, so that clients do not return all at once.
        let drawn = pause.min(rest.1).mul_f64(rand::thread_rng().gen_range(0.5..1.0));
        self.rests(drawn, now);
    }

    /// No failure, but nothing is sent there for so long.
    pub(super) fn rests(&mut self, pause: Duration, now: Instant) {
        let until = now.checked_add(pause);
        self.rests_until = self.rests_until.max(until);
    }

    /// When it may be asked again; None: now.
    pub(super) fn resting(&self, now: Instant) -> Option<Instant> {
        self.rests_until.filter(|until| *until > now)
    }

    /// Seconds that one more request would take. What is not known yet is worth a try.
    fn estimate(&self) -> f64 {
        self.seconds.unwrap_or(0.0) * f64::from(self.open.saturating_add(1))
    }
}

/// The better of two chains that are drawn from those that could be used.
pub(super) fn choose<'a>(usable: &[&'a Vec<usize>], records: &[Record]) -> Option<&'a Vec<usize>> {
    let mut random = rand::thread_rng();
    let mut draw = || usable.get(random.gen_range(0..usable.len().max(1))).copied();
    let estimate = |chain: &Vec<usize>| -> f64 {
        let members = chain.iter().filter_map(|place| records.get(*place));
        members.map(Record::estimate).sum()
    };
    let (one, other) = (draw()?, draw()?);
    Some(if estimate(other) < estimate(one) { other } else { one })
}
