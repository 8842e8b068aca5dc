//! Cuts texts into shards, and shards into jobs.
//!
//! Guarantees: every text is in exactly one shard, in order; no shard is longer than the limits; shards are balanced by their units,
//! because the slowest one decides when the job is done.

use std::ops::Range;

use schema::INLINE_BYTES_MAX;

/// Shards x replicas x stages of one job.
pub(crate) const RUNS_MAX: usize = 64;
/// Rows of one shard: more would wait for each other without being any faster.
pub(crate) const ROWS_MAX: usize = 64;
/// Units that a shard should have: enough to fill a batch, few enough to share the work out.
pub(crate) const UNITS_WANTED: u64 = 1024;

/// What a text weighs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Weight {
    pub(crate) bytes: usize,
    /// Tokens after truncation.
    pub(crate) units: u64,
}

/// Most that one shard may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limits {
    pub(crate) rows: usize,
    pub(crate) bytes: usize,
    pub(crate) units: u64,
}

impl Limits {
    /// What the chain takes and hosts like.
    pub(crate) const USUAL: Self = Self {
        rows: ROWS_MAX,
        bytes: INLINE_BYTES_MAX,
        units: UNITS_WANTED,
    };
    /// What the chain takes.
    pub(crate) const CHAIN: Self = Self {
        rows: usize::MAX,
        bytes: INLINE_BYTES_MAX,
        units: u64::MAX,
    };
}

/// Balanced shards, as few as the limits allow.
pub(crate) fn cut(weights: &[Weight], limits: Limits) -> Vec<Range<usize>> {
    let fewest = greedy(weights, limits).len();
    balanced(weights, limits, fewest)
}

/// Balanced shards of this number; more if the limits ask for more, fewer if there are fewer texts.
pub(crate) fn cut_into(weights: &[Weight], count: usize, limits: Limits) -> Vec<Range<usize>> {
    let fewest = greedy(weights, limits).len();
    let mut shards = balanced(weights, limits, fewest.max(count));
    // Few large texts can leave fewer shards than wanted: cut those with the most rows.
    while shards.len() < count {
        let longest = shards.iter().enumerate().max_by_key(|(_, shard)| shard.len());
        let Some((index, shard)) = longest.filter(|(_, shard)| shard.len() > 1) else {
            break;
        };
        let middle = shard.start.saturating_add(shard.len() / 2);
        let halves = [shard.start..middle, middle..shard.end];
        shards.splice(index..=index, halves);
    }
    shards
}

/// The smallest unit limit with which at most `count` shards come out, found by halving.
fn balanced(weights: &[Weight], limits: Limits, count: usize) -> Vec<Range<usize>> {
    let total = weights
        .iter()
        .fold(0_u64, |sum, weight| sum.saturating_add(weight.units));
    let (mut low, mut high) = (0, limits.units.min(total));
    while low < high {
        let units = low.midpoint(high);
        if greedy(weights, Limits { units, ..limits }).len() <= count {
            high = units;
        } else {
            low = units.saturating_add(1);
        }
    }
    greedy(weights, Limits { units: high, ..limits })
}

/// Fills one shard after the other. A text that alone exceeds the units has a shard of its own.
fn greedy(weights: &[Weight], limits: Limits) -> Vec<Range<usize>> {
    let mut shards: Vec<Range<usize>> = vec![];
    let (mut bytes, mut units) = (0_usize, 0_u64);
    for (index, weight) in weights.iter().enumerate() {
        bytes = bytes.saturating_add(weight.bytes);
        units = units.saturating_add(weight.units);
        let end = index.saturating_add(1);
        match shards.last_mut() {
            Some(shard) if shard.len() < limits.rows && bytes <= limits.bytes && units <= limits.units => {
                shard.end = end
            }
            _ => {
                shards.push(index..end);
                (bytes, units) = (weight.bytes, weight.units);
            }
        }
    }
    shards
}

/// How many shards one job may have. At least one: a model has at most 32 stages and a job at most 3 replicas only for fewer.
pub(crate) fn shards_per_job(replicas: u8, stages: usize) -> usize {
    let runs = usize::from(replicas).saturating_mul(stages);
    RUNS_MAX.checked_div(runs).unwrap_or(RUNS_MAX).max(1)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::arithmetic_side_effects, reason = "sizes in tests are small")]

    use proptest::prelude::*;

    use super::*;

    fn weights() -> impl Strategy<Value = Vec<Weight>> {
        let weight = (0..=INLINE_BYTES_MAX, 2..=256_u64).prop_map(|(bytes, units)| Weight { bytes, units });
        prop::collection::vec(weight, 1..200)
    }

    fn check(weights: &[Weight], shards: &[Range<usize>], limits: Limits) {
        let texts: Vec<usize> = shards.iter().cloned().flatten().collect();
        assert_eq!(
            texts,
            (0..weights.len()).collect::<Vec<_>>(),
            "each text once and in order"
        );
        for shard in shards {
            let inside = &weights[shard.clone()];
            assert!(!inside.is_empty() && inside.len() <= limits.rows);
            assert!(inside.iter().map(|weight| weight.bytes).sum::<usize>() <= limits.bytes);
            assert!(inside.iter().map(|weight| weight.units).sum::<u64>() <= limits.units);
        }
    }

    #[test]
    fn equal_texts_make_equal_shards() {
        let weights = vec![Weight { bytes: 100, units: 30 }; 64];
        let shards = cut_into(&weights, 4, Limits::USUAL);
        assert_eq!(shards, [0..16, 16..32, 32..48, 48..64]);
    }

    #[test]
    fn one_heavy_text_does_not_keep_the_others_together() {
        let mut weights = vec![Weight { bytes: 10, units: 5 }; 8];
        weights[0].units = 256;
        assert_eq!(cut_into(&weights, 4, Limits::USUAL).len(), 4);
        assert_eq!(cut_into(&weights[..2], 4, Limits::USUAL), [0..1, 1..2]);
    }

    #[test]
    fn a_job_never_has_more_runs_than_the_chain_takes() {
        assert_eq!(shards_per_job(1, 3), 21);
        assert_eq!(shards_per_job(2, 3), 10);
        assert_eq!(shards_per_job(2, 32), 1);
    }

    proptest! {
        #[test]
        fn shards_keep_the_order_and_the_limits(weights in weights()) {
            let shards = cut(&weights, Limits::USUAL);
            check(&weights, &shards, Limits::USUAL);
            prop_assert_eq!(shards.len(), greedy(&weights, Limits::USUAL).len());
        }

        #[test]
        fn a_wanted_number_of_shards_is_kept_where_it_can_be(weights in weights(), count in 1..20_usize) {
            let shards = cut_into(&weights, count, Limits::USUAL);
            check(&weights, &shards, Limits::USUAL);
            let fewest = greedy(&weights, Limits::USUAL).len();
            prop_assert_eq!(shards.len(), count.min(weights.len()).max(fewest));
        }

        #[test]
        fn jobs_stay_within_the_runs(replicas in 1..=3_u8, stages in 1..=21_usize) {
            let shards = shards_per_job(replicas, stages);
            prop_assert!(shards * usize::from(replicas) * stages <= RUNS_MAX);
        }
    }
}
