//! What was counted lately, in two buckets that roll.
//!
//! Guarantees: whatever is added counts for at least a window and at most two. A change of the window touches only what is added
//! after the next turn. Time passes without a write: [`Rolling::at`] answers for any moment from the last addition on, and falls with
//! time at two moments only, [`Rolling::turns`].

use cosmwasm_schema::cw_serde;
use cosmwasm_std::Uint128;

#[cw_serde]
#[derive(Default, Copy, Eq)]
pub(crate) struct Rolling {
    current: Uint128,
    previous: Uint128,
    /// From here on `previous` is forgotten and `current` in its place.
    turns_at: u64,
    /// How long `current` counts after that.
    window: u64,
}

impl Rolling {
    /// What counts at this moment.
    pub(crate) fn at(&self, now: u64) -> Uint128 {
        let [first, second] = self.turns();
        if now < first {
            self.sum()
        } else if now < second {
            self.current
        } else {
            Uint128::zero()
        }
    }

    /// Most that will ever count, if nothing is added.
    pub(crate) fn sum(&self) -> Uint128 {
        self.current.saturating_add(self.previous)
    }

    /// The moments at which something is forgotten, in order.
    pub(crate) fn turns(&self) -> [u64; 2] {
        [self.turns_at, self.turns_at.saturating_add(self.window)]
    }

    pub(crate) fn add(&mut self, amount: Uint128, now: u64, window: u64) {
        self.roll(now, window);
        self.current = self.current.saturating_add(amount);
    }

    fn roll(&mut self, now: u64, window: u64) {
        let [first, second] = self.turns();
        if now >= second {
            *self = Self {
                turns_at: now.saturating_add(window),
                window,
                ..Self::default()
            };
        } else if now >= first {
            // What is in the bucket that was current was promised the old window, what comes next is promised the new one.
            self.turns_at = first.saturating_add(self.window.max(window));
            self.window = window;
            self.previous = self.current;
            self.current = Uint128::zero();
        }
    }
}

#[cfg(test)]
#[allow(
    clippy::arithmetic_side_effects,
    reason = "small numbers, and a failed expectation is the message"
)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_added_counts_for_one_window_at_least_and_for_two_at_most(
            additions in prop::collection::vec((0..25u64, 1..100u128, 1..20u64), 1..20), look in 0..60u64,
        ) {
            let (mut rolling, mut now) = (Rolling::default(), 1_000);
            let mut added: Vec<(u64, u128, u64)> = vec![];
            let mut longest = 0;
            for (pause, amount, window) in additions {
                now += pause;
                rolling.add(amount.into(), now, window);
                // The windows that were ever in force bound for how long anything counts.
                longest = longest.max(window);
                added.push((now, amount, window));
                let least: u128 = added.iter().filter(|(at, _, window)| now < at + window.min(&shortest(&added))).map(|(_, amount, _)| amount).sum();
                prop_assert!(rolling.at(now).u128() >= least);
            }
            let now = now + look;
            let least: u128 = added.iter().filter(|(at, ..)| now < at + shortest(&added)).map(|(_, amount, _)| amount).sum();
            let most: u128 = added.iter().filter(|(at, ..)| now < at + 2 * longest).map(|(_, amount, _)| amount).sum();
            let found = rolling.at(now).u128();
            prop_assert!((least..=most).contains(&found), "{found} of {least} to {most}");
            prop_assert!(rolling.at(now + 1) <= rolling.at(now), "it only falls");
        }

        #[test]
        fn with_one_window_it_is_what_was_added_in_this_bucket_and_the_one_before(
            additions in prop::collection::vec((0..25u64, 1..100u128), 1..20), look in 0..60u64,
        ) {
            let (mut rolling, mut now) = (Rolling::default(), 1_000);
            // Buckets begin with the first addition after everything was forgotten.
            let (mut begun, mut added) = (0, Vec::<(u64, u128)>::new());
            for (pause, amount) in additions {
                now += pause;
                if added.iter().all(|(at, _)| (now - begun) / 10 > (at - begun) / 10 + 1) {
                    (begun, added) = (now, vec![]);
                }
                rolling.add(amount.into(), now, 10);
                added.push((now, amount));
            }
            let now = now + look;
            let kept = added.iter().filter(|(at, _)| (now - begun) / 10 <= (at - begun) / 10 + 1);
            prop_assert_eq!(rolling.at(now).u128(), kept.map(|(_, amount)| amount).sum::<u128>());
        }
    }

    fn shortest(added: &[(u64, u128, u64)]) -> u64 {
        added.iter().map(|(_, _, window)| *window).min().unwrap()
    }

    #[test]
    fn a_longer_window_reaches_only_what_is_added_after_the_turn_and_a_shorter_one_takes_nothing_back() {
        let mut rolling = Rolling::default();
        rolling.add(5u128.into(), 100, 10);
        rolling.add(7u128.into(), 111, 50);
        assert_eq!(rolling.turns(), [160, 210]);
        assert_eq!([159, 160, 209, 210].map(|now| rolling.at(now).u128()), [12, 7, 7, 0]);
        rolling.add(1u128.into(), 165, 2);
        assert_eq!([209, 210, 211, 212].map(|now| rolling.at(now).u128()), [8, 1, 1, 0]);
    }
}
