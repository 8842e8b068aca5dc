//! How often and how soon something is tried again, and what an error means for whoever met it.

use std::time::Duration;

/// What to do about an error. The error decides, the loop obeys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// The same may work later.
    Retry,
    /// It will not work for this item; others are not affected.
    Skip,
    /// Nothing will work until a person changes something.
    Stop,
}

/// Growing pauses with an end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// Pause after the first failure; doubled after each further one.
    pub first: Duration,
    /// Longest pause.
    pub longest: Duration,
    /// Failures after which the matter is given up. At least 1.
    pub tries: u32,
}

impl Policy {
    /// Pause after so many failures in a row, 1 or more, for matters that end by the chain's clock instead of a count.
    pub fn pause(&self, failures: u32) -> Duration {
        let doublings = failures.saturating_sub(1).min(31);
        let factor = 1u32.checked_shl(doublings).unwrap_or(u32::MAX);
        self.first.saturating_mul(factor).min(self.longest)
    }

    /// The same, and None when it is time to give up.
    pub fn next(&self, failures: u32) -> Option<Duration> {
        (failures < self.tries).then(|| self.pause(failures))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest_and_end() {
        let policy = Policy {
            first: Duration::from_millis(100),
            longest: Duration::from_millis(500),
            tries: 5,
        };
        let pauses: Vec<Option<u128>> = (1..=5).map(|n| policy.next(n).map(|p| p.as_millis())).collect();
        assert_eq!(pauses, [Some(100), Some(200), Some(400), Some(500), None]);
        assert_eq!(policy.pause(u32::MAX), policy.longest);
    }
}
