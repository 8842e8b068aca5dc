//! Any sequence of messages: the contract's FUNC is what it owes, and nothing comes from nowhere.

use proptest::prelude::*;
use schema::staking::ExecuteMsg;

use crate::network::{terms, Network, PEOPLE, PURSE};

#[derive(Debug, Clone)]
enum Step {
    Bond(usize, u128),
    Unbond(usize, u128),
    Withdraw(usize),
    Wait(u64),
    Deploy(usize, u8, u16),
    Drain(usize, u64),
    Remove(usize, u64),
    /// Occupy what a draw gives for this seed.
    Assign(u8),
    Vacate(Vec<u64>, Option<(u64, u128)>),
    Reserve(Vec<u64>),
    Free(Vec<u64>),
}

fn step() -> impl Strategy<Value = Step> {
    let number = || 1..9u64;
    prop_oneof![
        2 => (0..3usize, 0..4_000u128).prop_map(|(name, amount)| Step::Bond(name, amount)),
        2 => (0..3usize, 0..3_000u128).prop_map(|(name, amount)| Step::Unbond(name, amount)),
        1 => (0..3usize).prop_map(Step::Withdraw),
        1 => (1..120u64).prop_map(Step::Wait),
        4 => (0..3usize, 0..3u8, 1..4u16).prop_map(|(name, stage, slots)| Step::Deploy(name, stage, slots)),
        1 => (0..3usize, number()).prop_map(|(name, number)| Step::Drain(name, number)),
        1 => (0..3usize, number()).prop_map(|(name, number)| Step::Remove(name, number)),
        8 => any::<u8>().prop_map(Step::Assign),
        6 => (prop::collection::vec(number(), 1..4), prop::option::of((number(), 0..6_000u128)))
            .prop_map(|(numbers, culprit)| Step::Vacate(numbers, culprit)),
        3 => prop::collection::vec(number(), 0..4).prop_map(Step::Reserve),
        2 => prop::collection::vec(number(), 0..4).prop_map(Step::Free),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn the_balance_is_bonds_and_unbonding_whatever_happens(steps in prop::collection::vec(step(), 1..50)) {
        let mut network = Network::new();
        for (name, bond) in PEOPLE.into_iter().zip([9_000, 5_000, 2_000]) {
            network.joins(name, bond);
        }
        for (name, stage) in [("ann", 0), ("ann", 1), ("bob", 2), ("cat", 2)] {
            network.deploys(name, terms(stage, stage, 1)).unwrap();
        }
        let world = network.supply();
        for step in steps {
            // Allowed or refused: what matters is what is true afterwards.
            match step {
                Step::Bond(name, amount) => drop(network.bonds(PEOPLE[name], amount)),
                Step::Unbond(name, amount) => drop(network.unbonds(PEOPLE[name], amount)),
                Step::Withdraw(name) => drop(network.withdraws(PEOPLE[name])),
                Step::Wait(seconds) => network.passes(seconds),
                Step::Deploy(name, stage, slots) => drop(network.deploys(PEOPLE[name], terms(stage, 2, slots))),
                Step::Drain(name, deployment) => drop(network.execute(PEOPLE[name], &ExecuteMsg::Drain { deployment })),
                Step::Remove(name, deployment) => drop(network.execute(PEOPLE[name], &ExecuteMsg::Remove { deployment })),
                Step::Assign(seed) => if let Some(chain) = network.draw(seed) {
                    let numbers: Vec<u64> = chain.spans.iter().map(|span| span.deployment).collect();
                    prop_assert!(network.occupies(&numbers).is_ok(), "what is drawn can be occupied");
                },
                Step::Reserve(numbers) => drop(network.reserves(&numbers)),
                Step::Free(numbers) => drop(network.frees(&numbers)),
                Step::Vacate(numbers, culprit) => drop(network.vacates(&numbers, culprit)),
            }
            network.check_money();
            // Nothing leaves for anywhere but the escrow and its owners' purses, and no purse gains.
            let purses: u128 = PEOPLE.iter().map(|name| network.balance(name)).sum();
            prop_assert!(purses <= PURSE * PEOPLE.len() as u128);
            prop_assert!(network.supply() <= world);
        }
        let held: u128 = PEOPLE.iter().map(|name| {
            let provider = network.provider(name);
            let unbonding: u128 = provider.unbonding.iter().map(|entry| entry.amount.u128()).sum();
            provider.bond.u128() + unbonding + network.balance(name)
        }).sum();
        let burnt = schema::TOTAL_SUPPLY - network.supply();
        prop_assert_eq!(held + network.escrow_balance() + burnt, PURSE * PEOPLE.len() as u128);
    }
}
