//! Chooses among the positions: a dynamic programme over (stages, position).
//!
//! First the smallest possible cost of the largest stage; then, among all plans within a twentieth of it, the one over whose borders the
//! fewest bytes cross, and of those the most balanced, without stages that do next to nothing. Without the second step, a plan would move into the middle of a layer to win half a per cent.

use crate::{cut::Position, error::SplitError};

/// How far from the best balance a plan may be to save bytes on the wire: a twentieth.
const SLACK_PARTS: u64 = 20;

/// The least that a stage has to do, in parts of an even share; the first that any plan meets. Where one stage cannot be made smaller, the
/// others would otherwise go to where the fewest bytes cross, and do nothing.
const FLOOR_PARTS: [u64; 4] = [2, 4, 8, 16];

/// The graph as the planner sees it: points 0 (its begin), 1..=positions, and its end.
#[derive(Debug)]
pub(crate) struct Terrain {
    /// Cost of all nodes before each point.
    cost_before: Vec<u64>,
    /// Bytes that cross at each point; 0 at begin and end.
    crossing: Vec<u64>,
    /// Weight bytes of the stage from one point to another, `[from][to]`.
    weights: Vec<Vec<u64>>,
}

impl Terrain {
    /// `weight_bytes(from, to)` gives the bytes of a stage of the nodes `from..to`.
    pub(crate) fn new(
        positions: &[&Position],
        costs: &[u64],
        weight_bytes: impl Fn(usize, &[usize]) -> Vec<u64>,
    ) -> Self {
        let mut points = vec![0];
        points.extend(positions.iter().map(|position| position.node));
        points.push(costs.len());
        let cost_before = points.iter().map(|&point| crate::cut::sum(&costs[..point])).collect();
        let mut crossing = vec![0];
        crossing.extend(positions.iter().map(|position| position.bytes));
        crossing.push(0);
        let weights = points.iter().map(|&from| weight_bytes(from, &points)).collect();
        Self {
            cost_before,
            crossing,
            weights,
        }
    }

    fn end(&self) -> usize {
        self.crossing.len().saturating_sub(1)
    }

    fn cost(&self, from: usize, to: usize) -> u64 {
        self.cost_before[to].saturating_sub(self.cost_before[from])
    }

    /// The smallest weight that the largest of any number of stages can have.
    fn least_stage_bytes(&self) -> u64 {
        (0..self.end())
            .map(|from| self.weights[from][from.saturating_add(1)])
            .max()
            .unwrap_or_default()
    }
}

/// Points between the stages, ascending, for exactly this many stages; nothing where there are too few points.
pub(crate) fn stages(terrain: &Terrain, stages: usize) -> Option<Vec<usize>> {
    plan(terrain, stages, u64::MAX)
}

/// Points between the fewest stages of which none has more weights than this.
pub(crate) fn within_bytes(terrain: &Terrain, limit: u64, stages_max: usize) -> Result<Vec<usize>, SplitError> {
    let found = (1..=terrain.end().min(stages_max)).find_map(|stages| plan(terrain, stages, limit));
    found.ok_or_else(|| SplitError::StageTooLarge {
        bytes: terrain.least_stage_bytes(),
        limit,
    })
}

fn plan(terrain: &Terrain, stages: usize, bytes_max: u64) -> Option<Vec<usize>> {
    let fits = |from: usize, to: usize| terrain.weights[from][to] <= bytes_max;
    let balance =
        |value: (u64, u64), from: usize, to: usize| fits(from, to).then(|| (value.0.max(terrain.cost(from, to)), 0));
    let (best, _) = best_path(terrain.end(), stages, balance)?;
    let limit = best.0.saturating_add(best.0 / SLACK_PARTS);
    let even = terrain
        .cost(0, terrain.end())
        .checked_div(u64::try_from(stages).unwrap_or(u64::MAX));
    let floors = FLOOR_PARTS
        .iter()
        .filter_map(|parts| even?.checked_div(*parts))
        .chain([0]);
    floors.into_iter().find_map(|floor| {
        let bytes = |value: (u64, u64), from: usize, to: usize| {
            let cost = terrain.cost(from, to);
            let sum = value.0.saturating_add(terrain.crossing[to]);
            (fits(from, to) && (floor..=limit).contains(&cost)).then(|| (sum, value.1.max(cost)))
        };
        best_path(terrain.end(), stages, bytes).map(|(_, path)| path)
    })
}

type Value = (u64, u64);

/// The path from point 0 to the end in this many steps with the smallest value; the earliest points among equals.
fn best_path(
    end: usize,
    steps: usize,
    extend: impl Fn(Value, usize, usize) -> Option<Value>,
) -> Option<(Value, Vec<usize>)> {
    let mut reached: Vec<Option<Value>> = vec![None; end.saturating_add(1)];
    reached[0] = Some((0, 0));
    let mut came_from = Vec::with_capacity(steps);
    for _ in 0..steps {
        let mut next = vec![None; reached.len()];
        let mut from_of = vec![0; reached.len()];
        for to in 1..=end {
            for (from, value) in reached.iter().enumerate().take(to) {
                let Some(value) = value.and_then(|value| extend(value, from, to)) else {
                    continue;
                };
                if next[to].is_none_or(|known| value < known) {
                    next[to] = Some(value);
                    from_of[to] = from;
                }
            }
        }
        reached = next;
        came_from.push(from_of);
    }
    let value = reached[end]?;
    let mut path = Vec::with_capacity(steps);
    let mut point = end;
    for from_of in came_from.iter().rev() {
        point = from_of[point];
        path.push(point);
    }
    // The last one is the begin itself.
    path.pop();
    path.reverse();
    Some((value, path))
}

/// Costs as basis points: each at least 1, together exactly 10 000, rounded to the largest remainders.
pub(crate) fn shares_bps(costs: &[u64]) -> Vec<u32> {
    let total = u128::from(crate::cut::sum(costs).max(1));
    let spread = 10_000_u128.saturating_sub(costs.len() as u128);
    let scaled = |cost: u64| u128::from(cost).saturating_mul(spread);
    let mut shares: Vec<u32> = costs
        .iter()
        .map(|&cost| {
            u32::try_from(scaled(cost).checked_div(total).unwrap_or_default())
                .unwrap_or_default()
                .saturating_add(1)
        })
        .collect();
    let given = shares.iter().fold(0, |sum: u32, share| sum.saturating_add(*share));
    let mut order: Vec<usize> = (0..costs.len()).collect();
    order.sort_by_key(|&index| (std::cmp::Reverse(scaled(costs[index]).checked_rem(total)), index));
    let rest = usize::try_from(10_000_u32.saturating_sub(given)).unwrap_or_default();
    for &index in order.iter().cycle().take(rest) {
        shares[index] = shares[index].saturating_add(1);
    }
    shares
}

#[cfg(test)]
mod tests {
    #![allow(clippy::arithmetic_side_effects, reason = "numbers in tests are small")]

    use proptest::prelude::*;

    use super::*;

    fn terrain(costs: &[u64], crossing: &[u64]) -> Terrain {
        let position = |(index, &bytes): (usize, &u64)| Position {
            node: index + 1,
            crossing: vec![],
            bytes,
        };
        let positions: Vec<_> = crossing.iter().enumerate().map(position).collect();
        let weight = |from: usize, to: &[usize]| {
            to.iter()
                .map(|&to| costs.get(from..to).map_or(0, crate::cut::sum))
                .collect()
        };
        Terrain::new(&positions.iter().collect::<Vec<_>>(), costs, weight)
    }

    #[test]
    fn equal_layers_are_shared_equally() {
        let terrain = terrain(&[10; 6], &[1; 5]);
        assert_eq!(stages(&terrain, 3).unwrap(), [2, 4]);
        assert_eq!(stages(&terrain, 6).unwrap(), [1, 2, 3, 4, 5]);
        assert!(stages(&terrain, 1).unwrap().is_empty());
    }

    #[test]
    fn a_little_balance_is_given_up_for_fewer_bytes() {
        let terrain = terrain(&[99, 1, 1, 99], &[100, 300, 300]);
        assert_eq!(stages(&terrain, 2).unwrap(), [1]);
    }

    #[test]
    fn no_stage_is_left_with_nothing_to_do_because_few_bytes_cross_there() {
        // The first node cannot be divided; the cheapest borders lie around the last two.
        let terrain = terrain(&[100, 30, 30, 1, 1], &[50, 50, 1, 1]);
        assert_eq!(stages(&terrain, 3).unwrap(), [1, 2]);
        // Where there is nothing else, it is done all the same.
        let terrain = super::tests::terrain(&[100, 1, 1], &[50, 1]);
        assert_eq!(stages(&terrain, 3).unwrap(), [1, 2]);
    }

    #[test]
    fn more_stages_than_positions_allow_are_refused() {
        let terrain = terrain(&[1, 1, 1], &[1, 1]);
        assert_eq!(stages(&terrain, 4), None);
    }

    #[test]
    fn the_fewest_stages_within_a_size_are_found() {
        let terrain = terrain(&[5, 5, 5, 5], &[1; 3]);
        assert_eq!(within_bytes(&terrain, 10, 64).unwrap(), [2]);
        assert!(matches!(
            within_bytes(&terrain, 4, 64),
            Err(SplitError::StageTooLarge { bytes: 5, limit: 4 })
        ));
    }

    proptest! {
        #[test]
        fn shares_are_positive_and_sum_to_ten_thousand(costs in proptest::collection::vec(any::<u32>(), 1..64)) {
            let costs: Vec<u64> = costs.into_iter().map(u64::from).collect();
            let shares = shares_bps(&costs);
            prop_assert!(shares.iter().all(|share| *share >= 1));
            prop_assert_eq!(shares.iter().sum::<u32>(), 10_000);
        }

        #[test]
        fn no_plan_is_more_than_a_twentieth_from_the_best(costs in proptest::collection::vec(1_u64..100, 2..9), k in 1_usize..5) {
            let crossing: Vec<u64> = costs.iter().skip(1).map(|cost| cost * 7 % 13 + 1).collect();
            let terrain = terrain(&costs, &crossing);
            let k = k.min(costs.len());
            let largest = |cuts: &[usize]| {
                let mut points = vec![0];
                points.extend(cuts);
                points.push(costs.len());
                points.windows(2).map(|pair| costs[pair[0]..pair[1]].iter().sum::<u64>()).max().unwrap()
            };
            let mut best = u64::MAX;
            for mask in 0_u32..1 << (costs.len() - 1) {
                let cuts: Vec<usize> = (1..costs.len()).filter(|cut| mask >> (cut - 1) & 1 == 1).collect();
                if cuts.len() + 1 == k {
                    best = best.min(largest(&cuts));
                }
            }
            prop_assert!(largest(&stages(&terrain, k).unwrap()) <= best + best / 20);
        }
    }
}
