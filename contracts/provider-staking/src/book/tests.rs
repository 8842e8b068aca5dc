#![allow(
    clippy::arithmetic_side_effects,
    reason = "small numbers, and a failed expectation is the message"
)]

use std::collections::BTreeMap;

use cosmwasm_std::{testing::MockStorage, Order};
use proptest::prelude::*;
use schema::{
    params::{ConductParams, StakingParams},
    staking::TotalsResponse,
};

use super::*;
use crate::{
    deployment::tests::{conduct, params, terms, version},
    draw::{Listing, Market},
    index::StoredMarket,
    state::{CLASSES, LISTINGS, RANKED_CLASSES},
};

const NOW: u64 = 1_000;
/// 1.5 x the slot bond.
const RESERVE: u128 = 1_500;

fn item() -> ItemId {
    ItemId {
        job: 1,
        shard: 0,
        replica: 0,
    }
}

fn empty() -> MockStorage {
    let mut storage = MockStorage::new();
    NEWEST_DEPLOYMENT.save(&mut storage, &0).unwrap();
    let totals = TotalsResponse {
        bonded: Uint128::zero(),
        unbonding: Uint128::zero(),
    };
    TOTALS.save(&mut storage, &totals).unwrap();
    storage
}

fn owner(name: usize) -> Addr {
    Addr::unchecked(["ann", "bob", "cat"][name])
}

fn join(storage: &mut MockStorage, name: usize, bond: u128) {
    STAKES.save(storage, &owner(name), &Stake::default()).unwrap();
    change_stake(storage, &owner(name), |stake| stake.add((bond + RESERVE).into())).unwrap();
}

fn moment(conduct: &ConductParams, now: u64) -> Moment<'_> {
    Moment { now, conduct }
}

fn list(
    storage: &mut MockStorage,
    name: usize,
    class: usize,
    slots: u16,
    params: &StakingParams,
) -> Result<u64, ContractError> {
    list_at(storage, (name, class, slots), params, NOW)
}

fn list_at(
    storage: &mut MockStorage,
    (name, class, slots): (usize, usize, u16),
    params: &StakingParams,
    now: u64,
) -> Result<u64, ContractError> {
    let mut terms = terms(0, 0, 10 + u128::from(slots), slots);
    terms.engine_class = ["cpu", "gpu"][class].into();
    deploy(
        storage,
        &Deployment::new(owner(name), terms, &version(&[10_000]), params)?,
        now,
    )
}

fn take(storage: &mut MockStorage, number: u64) -> Result<(), ContractError> {
    occupy(storage, &[number], NOW)
}

fn give(storage: &mut MockStorage, number: u64, price: Option<u128>) -> Option<Miss> {
    end(
        storage,
        number,
        price.map_or(Ended::Unpaid {}, |price| missed(number, price)),
        NOW,
    )
}

fn missed(deployment: u64, price: u128) -> Ended {
    Ended::Missed(Penalty {
        deployment,
        price: price.into(),
        beneficiary: "dev".into(),
        keeper: None,
    })
}

fn end(storage: &mut MockStorage, number: u64, ended: Ended, now: u64) -> Option<Miss> {
    let vacancy = Vacancy {
        item: item(),
        deployments: vec![number],
        ended,
    };
    vacate(storage, vacancy, moment(&conduct(), now)).unwrap()
}

fn all(storage: &MockStorage) -> Vec<(u64, Deployment)> {
    let found = DEPLOYMENTS.range(storage, None, None, Order::Ascending);
    found.collect::<Result<_, _>>().unwrap()
}

/// Everything that must hold between messages, said by scanning all there is.
fn check_book(storage: &MockStorage) -> Result<(), TestCaseError> {
    let (mut bonded, mut unbonding) = (0, 0);
    for entry in STAKES.range(storage, None, None, Order::Ascending) {
        let (owner, stake) = entry.unwrap();
        let own: Vec<_> = all(storage)
            .into_iter()
            .filter(|(_, deployment)| deployment.owner == owner)
            .collect();
        let committed: u128 = own.iter().map(|(_, deployment)| deployment.committed().u128()).sum();
        let busy = |deployment: &Deployment| u128::from(deployment.busy) * deployment.slot_bond.u128();
        let backing: u128 = own.iter().map(|(_, deployment)| busy(deployment)).sum();
        prop_assert_eq!((stake.committed.u128(), stake.backing.u128()), (committed, backing));
        prop_assert!(stake.backing <= stake.bond, "every busy slot has its bond");
        let reserve = own
            .iter()
            .map(|(_, deployment)| deployment.reserve)
            .max()
            .unwrap_or_default();
        prop_assert!(stake.reserve >= reserve, "the largest of its deployments'");
        prop_assert!(stake.strikes.len() < conduct().jail_strikes.into());
        prop_assert_eq!(
            &stake.deployments,
            &own.iter().map(|(number, _)| *number).collect::<Vec<_>>()
        );
        bonded += stake.bond.u128();
        unbonding += stake.unbonding_sum().u128();
    }
    let totals = TOTALS.load(storage).unwrap();
    prop_assert_eq!((totals.bonded.u128(), totals.unbonding.u128()), (bonded, unbonding));
    check_index(storage)
}

fn check_index(storage: &MockStorage) -> Result<(), TestCaseError> {
    let mut expected = BTreeMap::<u64, Listing>::new();
    let mut classes = BTreeMap::<String, u32>::new();
    for (number, deployment) in all(storage) {
        let stake = provider::stake(storage, &deployment.owner).unwrap();
        let free = deployment.terms.slots - deployment.busy;
        let active = deployment.state == schema::staking::DeploymentState::Active && stake.jailed_until.is_none();
        let fits = |now: u64| stake.exposure(now) + deployment.slot_bond + stake.reserve <= stake.bond;
        let ready_at = deployment.listing(number, &stake).map(|listing| listing.ready_at);
        prop_assert_eq!(
            ready_at.is_some(),
            active && free > 0 && fits(u64::MAX),
            "there is room when all is forgotten"
        );
        if let Some(ready_at) = ready_at {
            prop_assert!(
                fits(ready_at) && (ready_at == 0 || !fits(ready_at - 1)),
                "from then on, not before"
            );
            expected.insert(number, deployment.listing(number, &stake).unwrap());
            *classes.entry(deployment.terms.engine_class).or_default() += 1;
        }
    }
    let listed = LISTINGS
        .range(storage, None, None, Order::Ascending)
        .map(|entry| entry.unwrap().1);
    let listed: BTreeMap<u64, Listing> = listed.map(|listing| (listing.deployment, listing)).collect();
    prop_assert_eq!(&listed, &expected);
    let counted = CLASSES
        .range(storage, None, None, Order::Ascending)
        .map(|entry| entry.unwrap());
    prop_assert_eq!(
        &counted
            .map(|((_, class), count)| (class, count))
            .collect::<BTreeMap<_, _>>(),
        &classes
    );
    prop_assert_eq!(
        RANKED_CLASSES.keys(storage, None, None, Order::Ascending).count(),
        classes.len()
    );

    let model = "demo/base".parse().unwrap();
    let mut market = StoredMarket::new(storage, (&model, 1), NOW);
    let ranked: Vec<u32> = market.classes().unwrap().iter().map(|class| classes[class]).collect();
    prop_assert!(ranked.windows(2).all(|pair| pair[0] >= pair[1]), "most listings first");
    for class in classes.keys() {
        let read: Vec<_> = (0..).map_while(|nth| market.nth(class, 0, nth).unwrap()).collect();
        prop_assert_eq!(read.len(), classes[class] as usize);
        let rank = |listing: &Listing| (load(storage, listing.deployment).unwrap().rank, listing.deployment);
        prop_assert!(
            read.windows(2).all(|pair| rank(&pair[0]) < rank(&pair[1])),
            "cheapest first"
        );
    }
    Ok(())
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Ending {
    Unpaid,
    Settled,
    Missed,
    LinkFault,
}

#[derive(Debug, Clone)]
enum Step {
    Bond(usize, u128),
    Unbond(usize, u128),
    Withdraw(usize),
    Wait(u64),
    Deploy(usize, usize, u16),
    Drain(usize, u64),
    Remove(usize, u64),
    Occupy(u64),
    Vacate(u64, Ending, u128),
    Record(u64, u128),
    Unjail(usize),
    Free(u64),
    BondPerSlot(u128),
}

fn ending() -> impl Strategy<Value = Ending> {
    prop_oneof![
        Just(Ending::Unpaid),
        Just(Ending::Settled),
        Just(Ending::Missed),
        Just(Ending::LinkFault),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let number = || 1..12u64;
    prop_oneof![
        2 => (0..3usize, 0..4_000u128).prop_map(|(name, amount)| Step::Bond(name, amount)),
        2 => (0..3usize, 0..3_000u128).prop_map(|(name, amount)| Step::Unbond(name, amount)),
        1 => (0..3usize).prop_map(Step::Withdraw),
        1 => (1..120u64).prop_map(Step::Wait),
        4 => (0..3usize, 0..2usize, 1..4u16).prop_map(|(name, class, slots)| Step::Deploy(name, class, slots)),
        1 => (0..3usize, number()).prop_map(|(name, number)| Step::Drain(name, number)),
        1 => (0..3usize, number()).prop_map(|(name, number)| Step::Remove(name, number)),
        10 => number().prop_map(Step::Occupy),
        8 => (number(), ending(), 0..6_000u128).prop_map(|(number, ending, price)| Step::Vacate(number, ending, price)),
        2 => (number(), 0..2_000u128).prop_map(|(number, price)| Step::Record(number, price)),
        2 => (0..3usize).prop_map(Step::Unjail),
        4 => number().prop_map(Step::Free),
        1 => prop_oneof![Just(500u128), Just(1_000), Just(2_000)].prop_map(Step::BondPerSlot),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn the_index_is_what_a_scan_would_find(steps in prop::collection::vec(step(), 1..80)) {
        let mut storage = empty();
        let (mut params, mut now) = (params(), NOW);
        let (mut paid_in, mut paid_out) = (0, 0);
        for name in 0..3 {
            join(&mut storage, name, 3_000);
            paid_in += 3_000 + RESERVE;
        }
        for step in steps {
            let before = storage_copy(&storage);
            let result = match step {
                Step::Bond(name, amount) => {
                    let done = change_stake(&mut storage, &owner(name), |stake| stake.add(amount.into()));
                    done.map(|()| paid_in += amount)
                }
                Step::Unbond(name, amount) => {
                    let release_at = now + params.unbonding_seconds;
                    change_stake(&mut storage, &owner(name), |stake| stake.unbond(amount.into(), now, release_at))
                }
                Step::Withdraw(name) => {
                    let done = change_stake(&mut storage, &owner(name), |stake| stake.withdraw(now));
                    done.map(|amount| paid_out += amount.u128())
                }
                Step::Wait(seconds) => { now += seconds; Ok(()) }
                Step::Deploy(name, class, slots) => list_at(&mut storage, (name, class, slots), &params, now).map(drop),
                Step::Drain(name, number) => drain(&mut storage, number, &owner(name)),
                Step::Remove(name, number) => remove(&mut storage, number, &owner(name), now),
                Step::Occupy(number) => {
                    let done = occupy(&mut storage, &[number], now);
                    if done.is_ok() {
                        let stake = provider::stake(&storage, &load(&storage, number).unwrap().owner).unwrap();
                        prop_assert!(stake.exposure(now) + stake.reserve(now) <= stake.bond, "exposure has its limit");
                    }
                    done
                }
                Step::Record(deployment, price) => {
                    let work = [SettledWork { deployment, price: price.into() }];
                    record_settled(&mut storage, &work, moment(&conduct(), now))
                }
                Step::Unjail(name) => {
                    let jailed = provider::stake(&storage, &owner(name)).unwrap().jailed_until;
                    let done = unjail(&mut storage, &owner(name), &owner(name), now);
                    prop_assert_eq!(done.is_ok(), jailed.is_some_and(|until| now >= until));
                    done
                }
                Step::Vacate(number, ending, price) => if let Ok(deployment) = load(&storage, number) {
                    let ended = match ending {
                        Ending::Unpaid => Ended::Unpaid {},
                        Ending::Settled => Ended::Settled { price: price.into() },
                        Ending::Missed => missed(number, price),
                        Ending::LinkFault => Ended::LinkFault { sender: number, receiver: 1 },
                    };
                    let miss = end(&mut storage, number, ended, now);
                    let is_miss = ending == Ending::Missed && deployment.busy > 0;
                    let due = is_miss.then(|| deployment.penalty(price.into()).u128());
                    let found = miss.map(|miss| miss.penalty.u128());
                    prop_assert_eq!(found, due, "every penalty finds its money, and nobody else pays");
                    paid_out += found.unwrap_or_default();
                    Ok(())
                } else {
                    Ok(())
                },
                Step::Free(number) => free(&mut storage, &[number]),
                Step::BondPerSlot(bond) => { params.bond_per_slot = bond.into(); Ok(()) }
            };
            // As the chain does with a message that fails.
            if result.is_err() {
                storage = before;
            }
            check_book(&storage)?;
            let totals = TOTALS.load(&storage).unwrap();
            prop_assert_eq!((totals.bonded + totals.unbonding).u128(), paid_in - paid_out);
        }
    }
}

fn storage_copy(storage: &MockStorage) -> MockStorage {
    let mut copy = MockStorage::new();
    for (key, value) in storage.range(None, None, Order::Ascending) {
        copy.set(&key, &value);
    }
    copy
}

#[test]
fn a_penalty_that_leaves_the_bond_short_takes_all_deployments_out_of_the_draw() {
    let mut storage = empty();
    join(&mut storage, 0, 3_000);
    let first = list(&mut storage, 0, 0, 2, &params()).unwrap();
    let second = list(&mut storage, 0, 1, 1, &params()).unwrap();
    for number in [first, second] {
        take(&mut storage, number).unwrap();
    }
    assert_eq!(give(&mut storage, second, Some(1_000)).unwrap().penalty.u128(), 250);
    // 2750 left, 1000 busy: each could take one more, but not both.
    let listed = |storage: &MockStorage| {
        let entries = LISTINGS.range(storage, None, None, Order::Ascending);
        entries.map(|entry| entry.unwrap().1.deployment).collect::<Vec<_>>()
    };
    assert_eq!(listed(&storage), [first, second]);
    take(&mut storage, second).unwrap();
    assert_eq!(
        listed(&storage),
        [0; 0],
        "a free slot of the first has nothing behind it"
    );
    assert!(matches!(
        take(&mut storage_copy(&storage), first),
        Err(ContractError::NoHeadroom { .. })
    ));
    change_stake(&mut storage, &owner(0), |stake| stake.add(250u128.into())).unwrap();
    assert_eq!(listed(&storage), [first]);
    check_book(&storage).unwrap();
}

#[test]
fn a_penalty_without_a_busy_slot_takes_nothing() {
    let mut storage = empty();
    join(&mut storage, 0, 1_000);
    let number = list(&mut storage, 0, 0, 1, &params()).unwrap();
    assert_eq!(give(&mut storage, number, Some(1_000)), None);
    take(&mut storage, number).unwrap();
    assert!(give(&mut storage, number, Some(1_000)).is_some());
    assert_eq!(give(&mut storage, number, Some(1_000)), None, "nor a second time");
    check_book(&storage).unwrap();
}

#[test]
fn a_penalty_of_nothing_is_none() {
    let mut storage = empty();
    join(&mut storage, 0, 1_000);
    let params = StakingParams {
        miss_min: Uint128::zero(),
        ..params()
    };
    let number = list(&mut storage, 0, 0, 1, &params).unwrap();
    take(&mut storage, number).unwrap();
    let miss = give(&mut storage, number, Some(0)).unwrap();
    assert_eq!((miss.penalty.u128(), miss.strikes), (0, 1), "a strike all the same");
    assert_eq!(load(&storage, number).unwrap().busy, 0, "its slot is free all the same");
}

#[test]
fn the_draw_reads_a_long_market_page_by_page_without_gaps_or_repeats() {
    let mut storage = empty();
    let mut expected = vec![];
    for name in 0..3 {
        join(&mut storage, name, 120_000);
        for slots in 1..=15 {
            let number = list(&mut storage, name, 0, slots, &params()).unwrap();
            expected.push((load(&storage, number).unwrap().rank, number));
        }
    }
    expected.sort_unstable();
    let model = "demo/base".parse().unwrap();
    let mut market = StoredMarket::new(&storage, (&model, 1), NOW);
    let read = (0..).map_while(|nth| market.nth("cpu", 0, nth).unwrap());
    let read: Vec<u64> = read.map(|listing| listing.deployment).collect();
    assert_eq!(read, expected.iter().map(|(_, number)| *number).collect::<Vec<_>>());
    let mut next = StoredMarket::new(&storage, (&model, 2), NOW);
    assert_eq!(
        (next.classes().unwrap().len(), next.nth("cpu", 0, 0).unwrap()),
        (0, None),
        "another version"
    );
}
