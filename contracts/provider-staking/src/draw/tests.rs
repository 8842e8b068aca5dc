#![allow(
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    reason = "small numbers, and a failed expectation is the message"
)]

use super::{stalls::*, *};
use proptest::prelude::*;

#[derive(Debug, Clone)]
struct Stall {
    class: bool,
    owner: usize,
    first: u8,
    length: u8,
    price: u128,
    slots: u16,
    bond: u128,
    slow: bool,
    small: bool,
    full: bool,
}

fn stall() -> impl Strategy<Value = Stall> {
    let place = (any::<bool>(), 0..5usize, 0..3u8, 0..3u8);
    let terms = (1..12u128, 1..4u16, prop_oneof![3 => Just(40u128), 1 => Just(15u128)]);
    let rare = || prop::bool::weighted(0.1);
    (place, terms, rare(), rare(), rare()).prop_map(
        |((class, owner, first, length), (price, slots, bond), slow, small, full)| Stall {
            class,
            owner,
            first,
            length,
            price,
            slots,
            bond,
            slow,
            small,
            full,
        },
    )
}

const OWNERS: [&str; 5] = ["ann", "bob", "cat", "dan", "eve"];

/// A market of three stages; some owners have bond for few slots only.
fn market() -> impl Strategy<Value = Stalls> {
    (
        prop::collection::vec(stall(), 1..14),
        prop::collection::vec(40..130u128, 5),
        prop::collection::btree_set((1..14u64, 1..14u64), 0..=RETRIES_MAX),
    )
        .prop_map(|(stalls, bonds, cooling)| {
            let mut market = Stalls {
                now: 100,
                cooling,
                ..Stalls::default()
            };
            for stall in stalls {
                let last = (stall.first + stall.length).min(2);
                let class = if stall.class { "cpu" } else { "gpu" };
                let listing = market.add(class, OWNERS[stall.owner], stall.first, last, stall.price, stall.slots);
                listing.slot_bond = stall.bond.into();
                listing.sla.base_seconds = if stall.slow { 9 } else { 1 };
                listing.sla.units_max = if stall.small { 9 } else { 10 };
                listing.ready_at = if stall.full { 101 } else { 100 };
            }
            market.headroom = OWNERS.into_iter().map(str::to_owned).zip(bonds).collect();
            market
        })
}

fn shards(
    replicas: std::ops::RangeInclusive<u8>,
    count: std::ops::Range<usize>,
) -> impl Strategy<Value = Vec<DrawShard>> {
    let lists = (
        prop::collection::vec(1..14u64, 0..3),
        prop::collection::vec(1..14u64, 0..3),
        any::<bool>(),
        prop::collection::vec(0..5usize, 0..2),
    );
    let one = (replicas, lists, prop::option::weighted(0.2, Just("cpu".to_owned())));
    let one = one.prop_map(
        |(replicas, (exclude, avoid, prefer_one_owner, taken), engine_class)| DrawShard {
            exclude,
            avoid,
            prefer_one_owner,
            engine_class,
            taken_owners: taken.into_iter().map(|owner| OWNERS[owner].to_owned()).collect(),
            ..shard(replicas)
        },
    );
    prop::collection::vec(one, count)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn every_chain_drawn_is_feasible(
        mut market in market(), shards in shards(1..=3, 1..4), seed: u64, limit in 8..45u128, seconds in prop::option::of(10..30u64),
    ) {
        let mut request = request(3, seed, shards);
        request.item_price_max = limit.into();
        request.seconds_max = seconds;
        if let Some(chains) = market.draw(&request) {
            prop_assert_eq!(check_answer(&market, &request, &chains), Ok(()));
        }
    }

    #[test]
    fn one_chain_is_found_wherever_there_is_one(
        mut market in market(), shards in shards(1..=1, 1..2), seed: u64, limit in 8..45u128,
    ) {
        let mut request = request(3, seed, shards);
        request.item_price_max = limit.into();
        let found = market.draw(&request);
        prop_assert_eq!(found.is_some(), has_chain(&market, &request));
    }
}

/// Chi-square of what 6000 seeds chose against what they should have.
fn deviation(counts: &BTreeMap<u64, u32>, weights: &[(u64, f64)]) -> f64 {
    let total: f64 = weights.iter().map(|(_, weight)| weight).sum();
    let drawn: u32 = counts.values().sum();
    let terms = weights.iter().map(|(number, weight)| {
        let expected = f64::from(drawn) * weight / total;
        let found = f64::from(counts.get(number).copied().unwrap_or_default());
        (found - expected).powi(2) / expected
    });
    terms.sum()
}

#[test]
fn choices_follow_the_free_slots() {
    let mut market = Stalls::default();
    for (owner, price, slots) in [("ann", 5, 1), ("bob", 5, 2), ("cat", 9, 5), ("dan", 7, 12)] {
        market.add("cpu", owner, 0, 0, price, slots);
        market.add("cpu", owner, 1, 1, price, 21 - slots);
    }
    let (mut first, mut last) = (BTreeMap::new(), BTreeMap::new());
    for seed in 0..6_000 {
        let chains = market.numbers(&request(2, seed, vec![shard(1)])).unwrap();
        *first.entry(chains[0][0]).or_default() += 1;
        *last.entry(chains[0][1]).or_default() += 1;
    }
    // 16.3 is exceeded once in a thousand by chance; the seeds are fixed.
    let found = deviation(&first, &[(1, 1.0), (3, 2.0), (5, 5.0), (7, 12.0)]);
    assert!(found < 16.3, "{found}: {first:?}");
    let found = deviation(&last, &[(2, 20.0), (4, 19.0), (6, 16.0), (8, 9.0)]);
    assert!(found < 16.3, "{found}: {last:?}");
}

#[test]
fn choices_follow_reliability_and_recover_when_faults_are_forgotten() {
    let mut market = Stalls::default();
    // Free slots, and link faults of which one each is older than the others.
    for (owner, slots, faults) in [("ann", 6, 0), ("bob", 6, 1), ("cat", 12, 3), ("dan", 2, 0)] {
        let listing = market.add("cpu", owner, 0, 0, 5, slots);
        for fault in 0..faults {
            let at = if fault == 0 { 100 } else { 111 };
            listing.faults.get_or_insert_default().add(Uint128::one(), at, 10);
        }
    }
    let mut deviates = |now: u64, weights: &[(u64, f64)]| {
        market.now = now;
        let mut counts = BTreeMap::new();
        for seed in 0..6_000 {
            *counts
                .entry(market.numbers(&request(1, seed, vec![shard(1)])).unwrap()[0][0])
                .or_default() += 1;
        }
        // 16.3 is exceeded once in a thousand by chance; the seeds are fixed.
        let found = deviation(&counts, weights);
        assert!(found < 16.3, "{found} at {now}: {counts:?}");
    };
    deviates(112, &[(1, 6.0), (2, 3.0), (3, 3.0), (4, 2.0)]);
    deviates(120, &[(1, 6.0), (2, 6.0), (3, 4.0), (4, 2.0)]);
    deviates(130, &[(1, 6.0), (2, 6.0), (3, 12.0), (4, 2.0)]);
}

#[test]
fn the_same_seed_draws_the_same_and_another_another() {
    let mut market = Stalls::default();
    for _ in 0..10 {
        market.add("cpu", "ann", 0, 0, 5, 3);
    }
    let mut draw = |seed| market.numbers(&request(1, seed, vec![shard(1), shard(1)])).unwrap();
    assert_eq!(draw(1), draw(1));
    let outcomes: BTreeSet<_> = (0..50).map(draw).collect();
    assert!(outcomes.len() > 20, "{outcomes:?}");
    assert!(
        outcomes.iter().any(|chains| chains[0] != chains[1]),
        "shards have seeds of their own"
    );
}

#[test]
fn no_more_than_16_candidates_of_a_start_stage_are_considered() {
    let mut market = Stalls::default();
    for price in 1..200 {
        market.add("cpu", "ann", 0, 0, price, 1);
        market.add("cpu", "ann", 1, 1, price, 1);
    }
    for seed in 0..200 {
        for number in &market.numbers(&request(2, seed, vec![shard(1)])).unwrap()[0] {
            assert!(
                market.get(*number).1.ask.per_request.u128() <= 16,
                "only the 16 cheapest"
            );
        }
    }
    assert_eq!(market.reads.values().copied().collect::<Vec<_>>(), [16, 16]);

    // Unfit ones are stepped over, but not for ever.
    for (_, listing) in &mut market.listings {
        listing.sla.units_max = 1;
    }
    assert!(market.draw(&request(2, 0, vec![shard(1)])).is_none());
    assert_eq!(market.reads.values().copied().collect::<Vec<_>>(), [96, 96]);
}

#[test]
fn a_crowd_of_unfit_cheap_deployments_does_not_hide_the_fit() {
    let mut market = Stalls::default();
    for _ in 0..32 {
        market.add("cpu", "eve", 0, 0, 0, 1).sla.units_max = 1;
        market.add("cpu", "mal", 0, 0, 1, 1);
    }
    market.add("cpu", "ann", 0, 0, 9, 1);
    let mut asked = shard(1);
    asked.taken_owners = vec!["mal".into()];
    assert_eq!(market.numbers(&request(1, 0, vec![asked])), Some(vec![vec![65]]));
}

#[test]
fn the_price_of_the_rest_limits_the_choice_now() {
    let mut market = Stalls::default();
    market.add("cpu", "ann", 0, 0, 10, 1);
    market.add("cpu", "bob", 0, 0, 60, 50);
    market.add("cpu", "cat", 1, 1, 50, 1);
    market.add("cpu", "dan", 0, 1, 101, 50);
    for seed in 0..50 {
        let mut request = request(2, seed, vec![shard(1)]);
        request.item_price_max = 100u128.into();
        assert_eq!(market.numbers(&request), Some(vec![vec![1, 3]]));
        request.item_price_max = 59u128.into();
        assert_eq!(market.numbers(&request), None);
    }
}

#[test]
fn no_item_costs_more_than_the_slots_of_its_chain_are_backed_with() {
    let mut market = Stalls::default();
    market.add("cpu", "ann", 0, 0, 30, 1);
    market.add("cpu", "bob", 1, 1, 30, 9).slot_bond = 59u128.into();
    assert_eq!(market.numbers(&request(2, 0, vec![shard(1)])), None);
    market.add("cpu", "cat", 1, 1, 31, 1).slot_bond = 61u128.into();
    for seed in 0..50 {
        assert_eq!(
            market.numbers(&request(2, seed, vec![shard(1)])),
            Some(vec![vec![1, 3]])
        );
    }
}

#[test]
fn neighbours_that_must_not_pair_do_not_and_do_not_block_each_other() {
    let mut market = Stalls::default();
    for owner in ["ann", "bob"] {
        market.add("cpu", owner, 0, 0, 1, 1);
        market.add("cpu", owner, 1, 1, 1, 1);
    }
    market.cooling = [(1, 2), (1, 4), (3, 4)].into();
    for seed in 0..50 {
        assert_eq!(
            market.numbers(&request(2, seed, vec![shard(1)])),
            Some(vec![vec![3, 2]])
        );
    }
    market.cooling.insert((3, 2));
    assert_eq!(market.numbers(&request(2, 0, vec![shard(1)])), None);
}

#[test]
fn a_chain_is_drawn_four_times_again_for_pairs_that_are_cooling_and_then_there_is_none() {
    let mut market = Stalls::default();
    market.add("cpu", "ann", 0, 0, 1, 1);
    for _ in 0..6 {
        market.add("cpu", "bob", 1, 1, 1, 1);
    }
    market.cooling = (2..=5).map(|receiver| (1, receiver)).collect();
    let drawn = |market: &mut Stalls, seed| market.numbers(&request(2, seed, vec![shard(1)]));
    for seed in 0..50 {
        let last = drawn(&mut market, seed).unwrap()[0][1];
        assert!((6..=7).contains(&last), "four bad pairs are stepped over, {last}");
    }
    market.cooling.insert((1, 6));
    let found: BTreeSet<_> = (0..50).map(|seed| drawn(&mut market, seed)).collect();
    let expected: BTreeSet<_> = [None, Some(vec![vec![1, 7]])].into();
    assert_eq!(found, expected, "a fifth is what the bound is for");
}

#[test]
fn a_chain_of_one_owner_is_preferred_where_that_is_asked_and_there_is_one() {
    let mut market = Stalls::default();
    for owner in ["ann", "bob"] {
        market.add("cpu", owner, 0, 0, 1, 100);
    }
    market.add("cpu", "cat", 1, 1, 1, 100);
    market.add("cpu", "bob", 1, 1, 9, 1);
    let mut asked = shard(1);
    asked.prefer_one_owner = true;
    for seed in 0..50 {
        let chains = market.numbers(&request(2, seed, vec![asked.clone()])).unwrap();
        assert_eq!(chains, [[2, 4]], "dear and rare, but one owner's");
    }
    asked.exclude = vec![4];
    assert!(market.draw(&request(2, 0, vec![asked.clone()])).is_some());
    // What should be avoided is worse than a link between two.
    (asked.exclude, asked.avoid) = (vec![], vec![4]);
    let chains = market.numbers(&request(2, 0, vec![asked])).unwrap();
    assert_eq!(chains[0][1], 3);
}

#[test]
fn a_bond_that_is_full_with_settled_work_takes_nothing_before_its_moment() {
    let mut market = Stalls::default();
    market.add("cpu", "ann", 0, 0, 1, 1).ready_at = 100;
    for (now, found) in [(99, None), (100, Some(vec![vec![1]]))] {
        market.now = now;
        assert_eq!(market.numbers(&request(1, 0, vec![shard(1)])), found);
    }
}

#[test]
fn what_should_be_avoided_is_drawn_only_where_nothing_else_is() {
    let mut market = Stalls::default();
    market.add("cpu", "ann", 0, 0, 1, 100);
    market.add("cpu", "bob", 0, 0, 1, 1);
    let mut asked = shard(1);
    asked.avoid = vec![1];
    for seed in 0..50 {
        assert_eq!(
            market.numbers(&request(1, seed, vec![asked.clone()])),
            Some(vec![vec![2]])
        );
    }
    asked.exclude = vec![2];
    assert_eq!(market.numbers(&request(1, 0, vec![asked.clone()])), Some(vec![vec![1]]));
    asked.exclude = vec![1, 2];
    assert_eq!(market.numbers(&request(1, 0, vec![asked])), None);
}

#[test]
fn shards_take_turns_with_the_classes() {
    let mut market = Stalls::default();
    for (class, count) in [("a", 1), ("b", 3), ("c", 2)] {
        for _ in 0..count {
            market.add(class, "ann", 0, 0, 1, 9);
        }
    }
    let classes = |market: &mut Stalls, request: &DrawRequest| {
        let chains = market.draw(request).unwrap();
        chains.into_iter().map(|chain| chain.engine_class).collect::<Vec<_>>()
    };
    let mut asked = request(1, 0, vec![shard(1); 4]);
    assert_eq!(classes(&mut market, &asked), ["b", "c", "a", "b"]);
    asked.shards[2].engine_class = Some("c".into());
    assert_eq!(classes(&mut market, &asked), ["b", "c", "c", "b"]);
    asked.engine_class = Some("a".into());
    assert_eq!(classes(&mut market, &asked), ["a", "a", "c", "a"]);
    asked.engine_class = Some("none".into());
    assert!(market.draw(&asked).is_none());
}

#[test]
fn a_class_without_a_whole_chain_gives_way_to_the_next() {
    let mut market = Stalls::default();
    market.add("a", "ann", 0, 0, 1, 9);
    market.add("a", "bob", 0, 0, 1, 9);
    market.add("b", "cat", 0, 1, 1, 1);
    assert_eq!(market.numbers(&request(2, 0, vec![shard(1)])), Some(vec![vec![3]]));
}

#[test]
fn slots_and_bond_taken_by_earlier_chains_count() {
    let mut market = Stalls::default();
    market.add("cpu", "ann", 0, 0, 1, 2);
    market.add("cpu", "bob", 0, 0, 1, 1);
    for seed in 0..20 {
        let mut drawn = market.numbers(&request(1, seed, vec![shard(1); 3])).unwrap().concat();
        drawn.sort_unstable();
        assert_eq!(drawn, [1, 1, 2]);
        assert_eq!(market.numbers(&request(1, seed, vec![shard(1); 4])), None);
    }
    // Ann has two slots, but bond for one item only.
    market.headroom.insert("ann".into(), 1_999);
    assert!(market.draw(&request(1, 0, vec![shard(1); 2])).is_some());
    assert_eq!(market.numbers(&request(1, 0, vec![shard(1); 3])), None);
}

#[test]
fn a_dead_end_is_stepped_back_from() {
    // Ann has bond for one span only, and nobody else has the last stage.
    let mut market = Stalls::default();
    market.add("cpu", "ann", 0, 0, 1, 500);
    market.add("cpu", "bob", 0, 0, 1, 1);
    market.add("cpu", "ann", 1, 1, 1, 1);
    market.headroom.insert("ann".into(), 1_000);
    for seed in 0..50 {
        assert_eq!(
            market.numbers(&request(2, seed, vec![shard(1)])),
            Some(vec![vec![2, 3]])
        );
    }
}

#[test]
fn replicas_are_found_where_each_needs_an_owner_of_its_own() {
    let mut market = Stalls::default();
    for owner in ["ann", "bob", "cat"] {
        for stage in 0..3 {
            market.add("cpu", owner, stage, stage, 1, 1);
        }
    }
    for seed in 0..300 {
        let asked = request(3, seed, vec![shard(3)]);
        let chains = market.draw(&asked).expect("three owners, three replicas");
        assert_eq!(check_answer(&market, &asked, &chains), Ok(()));
    }
    let mut asked = shard(3);
    asked.taken_owners = vec!["bob".into()];
    assert!(market.draw(&request(3, 0, vec![asked])).is_none());
}

#[test]
fn time_is_split_over_the_spans_by_their_compute() {
    let mut market = Stalls::default();
    market.add("cpu", "ann", 0, 0, 1, 1).sla.base_seconds = 9;
    market.add("cpu", "bob", 1, 1, 1, 1).sla.base_seconds = 1;
    let mut asked = request(2, 0, vec![shard(1)]);
    assert_eq!(asked.compute_shares, [9_000, 1_000]);
    for (seconds_max, is_possible) in [(10, true), (9, true), (8, false)] {
        asked.seconds_max = Some(seconds_max);
        assert_eq!(market.draw(&asked).is_some(), is_possible, "{seconds_max}");
    }
}

#[test]
fn requests_that_no_answer_is_right_for_are_refused_with_their_numbers() {
    let refused = |change: fn(&mut DrawRequest)| {
        let mut request = request(2, 0, vec![shard(1)]);
        change(&mut request);
        check(&request).unwrap_err().to_string()
    };
    assert_eq!(
        refused(|r| r.compute_shares.clear()),
        "a version has 1 to 32 stages, found 0"
    );
    assert_eq!(
        refused(|r| r.compute_shares = vec![1; 33]),
        "a version has 1 to 32 stages, found 33"
    );
    assert_eq!(
        refused(|r| r.compute_shares[0] += 1),
        "compute shares sum to 10001 bps, not 10000"
    );
    assert_eq!(
        refused(|r| r.shards[0].replicas = 0),
        "a shard has 1 to 3 replicas, found 0"
    );
    assert_eq!(
        refused(|r| r.shards[0].replicas = 4),
        "a shard has 1 to 3 replicas, found 4"
    );
    assert_eq!(
        refused(|r| r.shards = vec![shard(3); 11]),
        "66 spans asked for, at most 64 are drawn at once"
    );
    // A longer class would have aborted the look-up.
    assert_eq!(
        refused(|r| r.engine_class = Some("c".repeat(70_000))),
        "an engine class has 1 to 128 bytes, found 70000"
    );
    assert_eq!(
        refused(|r| r.shards[0].engine_class = Some(String::new())),
        "an engine class has 1 to 128 bytes, found 0"
    );
}

#[test]
fn a_needle_is_found_without_trying_the_whole_haystack() {
    // Eve has 15 deployments at each of the first three stages and none at the last, Ann has one at each: 3375 ways are tried by
    // whoever does not look ahead, and a walk gives up after 512.
    let mut market = Stalls::default();
    for stage in 0..4 {
        for _ in 0..15 {
            market.add("cpu", if stage < 3 { "eve" } else { "dan" }, stage, stage, 1, 9);
        }
        market.add("cpu", "ann", stage, stage, 1, 1);
    }
    let mut asked = shard(1);
    asked.prefer_one_owner = true;
    for seed in 0..50 {
        let chain = market.numbers(&request(4, seed, vec![asked.clone()])).unwrap().concat();
        assert_eq!(chain, [16, 32, 48, 64]);
    }
}
