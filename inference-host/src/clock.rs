//! What time it is on the chain. Deadlines are the chain's, so they are judged by its clock and not by this machine's.
//!
//! Guarantees: the machine's clock may be wrong, or be set while the host runs, without a deadline being misjudged by more than about a
//! block; between blocks time goes on; a difference beyond the configured bound is refused rather than corrected, because then either the clock
//! or the node is broken, and evidence must not be pruned nor paid work be done by such a clock.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use tokio::time::Instant;

use crate::chain::BlockTime;

/// The blocks by which the chain's time is told.
const BLOCKS: usize = 8;
/// Beyond this the operator is warned, though it is corrected for.
const WARN_SECONDS: u64 = 30;

/// A clock that cannot be relied on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ClockError {
    #[error("the chain's time is not known yet")]
    Unknown,
    #[error(
        "this machine's clock is {seconds} s behind the chain's, at most {max} s are corrected for: set the clock \
         (NTP), or clock_skew_seconds_max if it is the chain that is wrong"
    )]
    Behind { seconds: u64, max: u64 },
    #[error(
        "this machine's clock is {seconds} s ahead of the chain's, at most {max} s are corrected for: set the clock \
         (NTP), or clock_skew_seconds_max if it is the chain that is wrong"
    )]
    Ahead { seconds: u64, max: u64 },
}

/// The chain's clock, seen from here.
#[derive(Debug)]
pub(crate) struct Clock {
    started: Instant,
    /// Unix time at the start, in ms. Later changes of the machine's clock do not matter.
    started_millis: i64,
    skew_seconds_max: u64,
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    height: Option<u64>,
    /// Whether a block came while this host watched. The first answer may be about a block of yesterday, from a chain that stands still.
    fresh: bool,
    /// Chain time minus ours for the newest blocks, in ms.
    differences: VecDeque<i64>,
    warned: bool,
}

fn unix_millis() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    i64::try_from(since.unwrap_or_default().as_millis()).unwrap_or(i64::MAX)
}

impl Clock {
    pub(crate) fn new(skew_seconds_max: u64) -> Self {
        Self {
            started: Instant::now(),
            started_millis: unix_millis(),
            skew_seconds_max,
            seen: Mutex::default(),
        }
    }

    /// Takes a look at the newest block.
    pub(crate) fn observe(&self, block: BlockTime) {
        let difference = i64::try_from(block.unix_millis)
            .unwrap_or(i64::MAX)
            .saturating_sub(self.own_millis());
        let mut seen = self.lock();
        if seen.height.is_some_and(|height| block.height <= height) {
            // Nothing new: time goes on from the blocks before.
            return;
        }
        seen.fresh = seen.height.replace(block.height).is_some();
        if seen.differences.len() >= BLOCKS {
            seen.differences.pop_front();
        }
        // A block that is seen late makes the difference too small, never too large: the largest is the best.
        seen.differences.push_back(difference);
        drop(seen);
        self.warn();
    }

    fn warn(&self) {
        let skew = self.skew_seconds();
        let far = skew.unsigned_abs() > WARN_SECONDS;
        let mut seen = self.lock();
        if far && !seen.warned {
            tracing::warn!(skew_seconds = skew, "this machine's clock differs from the chain's");
        }
        seen.warned = far;
    }

    /// The chain's time now, in Unix seconds. Before the first answer of the chain, this machine's.
    pub(crate) fn now(&self) -> u64 {
        u64::try_from(self.chain_millis() / 1000).unwrap_or_default()
    }

    /// When a moment of the chain's time will be.
    pub(crate) fn instant_of(&self, unix_seconds: u64) -> Instant {
        let at = i64::try_from(unix_seconds).unwrap_or(i64::MAX).saturating_mul(1000);
        let left = u64::try_from(at.saturating_sub(self.chain_millis())).unwrap_or_default();
        let now = Instant::now();
        now.checked_add(Duration::from_millis(left)).unwrap_or(now)
    }

    /// Chain time minus this machine's, as it is set now.
    pub(crate) fn skew_seconds(&self) -> i64 {
        self.chain_millis().saturating_sub(unix_millis()) / 1000
    }

    /// The chain's time, if it is known well enough to decide by it.
    pub(crate) fn sure_now(&self) -> Result<u64, ClockError> {
        let (known, fresh) = {
            let seen = self.lock();
            (!seen.differences.is_empty(), seen.fresh)
        };
        let (skew, max) = (self.skew_seconds(), self.skew_seconds_max);
        let seconds = skew.unsigned_abs();
        match known {
            false => Err(ClockError::Unknown),
            true if seconds <= max => Ok(self.now()),
            true if skew > 0 => Err(ClockError::Behind { seconds, max }),
            // A chain that stands still looks like a clock that is ahead.
            true if fresh => Err(ClockError::Ahead { seconds, max }),
            true => Ok(self.now()),
        }
    }

    fn own_millis(&self) -> i64 {
        let passed = i64::try_from(self.started.elapsed().as_millis()).unwrap_or(i64::MAX);
        self.started_millis.saturating_add(passed)
    }

    fn chain_millis(&self) -> i64 {
        let difference = self.lock().differences.iter().copied().max();
        self.own_millis().saturating_add(difference.unwrap_or_default())
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::arithmetic_side_effects, reason = "numbers in tests are small")]

    use super::*;

    const HOUR: i64 = 3_600_000;

    fn block(clock: &Clock, height: u64, difference: i64) -> BlockTime {
        BlockTime {
            height,
            unix_millis: u64::try_from(clock.own_millis() + difference).unwrap(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn deadlines_follow_a_chain_that_is_an_hour_away() {
        for difference in [HOUR, -HOUR] {
            let clock = Clock::new(7200);
            assert_eq!(clock.sure_now(), Err(ClockError::Unknown));
            clock.observe(block(&clock, 1, difference));
            tokio::time::advance(Duration::from_secs(5)).await;
            clock.observe(block(&clock, 2, difference));
            let chain = u64::try_from((clock.own_millis() + difference) / 1000).unwrap();
            assert_eq!(clock.sure_now(), Ok(chain));
            let left = clock.instant_of(chain + 10) - Instant::now();
            assert!((9..=10).contains(&left.as_secs()), "{left:?}");
            assert_eq!(clock.instant_of(chain - 10), Instant::now(), "what is past is now");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn beyond_the_bound_the_sentence_says_which_way_and_what_to_do() {
        let clock = Clock::new(60);
        clock.observe(block(&clock, 1, HOUR));
        let behind = clock.sure_now().unwrap_err().to_string();
        assert!(
            behind.contains("is 3600 s behind the chain's, at most 60 s") && behind.contains("NTP"),
            "{behind}"
        );
        let clock = Clock::new(60);
        clock.observe(block(&clock, 1, -HOUR));
        clock
            .sure_now()
            .expect("a chain that stands still is not a clock that is wrong");
        clock.observe(block(&clock, 2, -HOUR));
        assert!(matches!(clock.sure_now(), Err(ClockError::Ahead { max: 60, .. })));
    }

    #[tokio::test(start_paused = true)]
    async fn late_blocks_and_a_chain_that_stands_still_do_not_stop_the_clock() {
        let clock = Clock::new(60);
        for (height, late) in [(1, -4000), (2, -100), (3, -5000), (4, -2000)] {
            clock.observe(block(&clock, height, late));
        }
        assert_eq!(clock.chain_millis() - clock.own_millis(), -100);
        let before = clock.now();
        for _ in 0..20 {
            tokio::time::advance(Duration::from_secs(5)).await;
            clock.observe(BlockTime {
                height: 4,
                unix_millis: 0,
            });
        }
        assert_eq!(clock.now() - before, 100);
    }
}
