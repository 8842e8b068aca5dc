//! The escrow.

use cosmwasm_std::Uint128;
use fxn_tests::{Serving, FUNC};
use schema::{
    escrow::{ExecuteMsg as Escrow, ForcedOutcome, KeeperFee, ReceiveMsg, SettledSpan, Settlement, WorkTerms},
    price::{RoyaltyRate, Units},
};

use super::{item, model, payout, person, send, Act, Msg};
use crate::laws::{
    dice::Dice,
    world::{World, DEVELOPERS, PEOPLE},
};

pub(super) fn deposit(world: &World, dice: &mut Dice) -> Act {
    let name = if dice.rarely(4) {
        person(dice)
    } else {
        *dice.pick(&DEVELOPERS)
    };
    let beneficiary = dice.rarely(5).then(|| world.addr(person(dice)).into_string());
    let amount = dice.around(5 * FUNC);
    let contract = &world.oracle.contracts.royalty_escrow;
    send(
        world,
        dice,
        name,
        contract,
        amount,
        &ReceiveMsg::Deposit { beneficiary },
    )
}

/// Mallory says that staking had sent her.
pub(super) fn penalty(world: &World, dice: &mut Dice) -> Act {
    let penalty = ReceiveMsg::Penalty {
        beneficiary: world.addr("mallory").into_string(),
        item: item(world, dice),
        keeper: dice.rarely(2).then(|| KeeperFee {
            account: world.addr("mallory").into_string(),
            amount: dice.near(9).into(),
        }),
    };
    let contract = &world.oracle.contracts.royalty_escrow;
    send(world, dice, "mallory", contract, FUNC, &penalty)
}

pub(super) fn withdraw(world: &World, dice: &mut Dice) -> Act {
    let rich: Vec<&str> = PEOPLE
        .into_iter()
        .filter(|name| world.oracle.available(world.addr(name).as_str()) > 0)
        .collect();
    let name = if dice.rarely(6) {
        person(dice)
    } else {
        dice.maybe(&rich).unwrap_or("mallory")
    };
    let available = world.oracle.available(world.addr(name).as_str());
    let part = [available / 7, available, FUNC][dice.roll(3)];
    let amount = (!dice.rarely(4)).then(|| Uint128::new(dice.around(part)));
    world.act(name, Msg::Escrow(Escrow::Withdraw { amount }))
}

pub(super) fn release_expired(world: &World, dice: &mut Dice) -> Act {
    let jobs: Vec<u64> = world.oracle.jobs.keys().copied().collect();
    let held: Vec<u64> = world.oracle.holds.keys().copied().collect();
    let known = dice.maybe(&held).or_else(|| dice.maybe(&jobs));
    let job = if dice.rarely(8) {
        dice.near(u64::MAX)
    } else {
        known.unwrap_or(1)
    };
    world.act(person(dice), Msg::Escrow(Escrow::ReleaseExpired { job }))
}

pub(super) fn distribute_royalties(world: &World, dice: &mut Dice) -> Act {
    let model = model(world, dice);
    world.act(person(dice), Msg::Escrow(Escrow::DistributeRoyalties { model }))
}

/// What only siblings may, sent by others.
pub(super) fn of_siblings(world: &World, dice: &mut Dice) -> Act {
    let job = dice.maybe(&world.hosts.open()).map_or(1, |item| item.job);
    let name = person(dice);
    let msg = match dice.roll(6) {
        0 => Escrow::Settle {
            settlements: vec![settlement(world, dice, name)],
        },
        1 => Escrow::Release { job },
        2 => Escrow::DistributeUnder {
            model: model(world, dice),
            payout: payout(world, dice),
            parents: vec![],
        },
        3 => Escrow::HoldForced {
            job: job + 1,
            session: 1,
            spans: vec![],
            expires_at: world.clock().0 + 10,
        },
        4 => Escrow::EndForced {
            job,
            session: 1,
            outcome: ForcedOutcome::Missed { deployment: 1 },
        },
        _ => Escrow::Hold {
            job: job + 1,
            account: world.addr("dora").into_string(),
            amount: dice.around(FUNC).into(),
            terms: WorkTerms {
                model: model(world, dice),
                royalty: RoyaltyRate {
                    royalty_bps: 0,
                    royalty_per_1k_units: 0u128.into(),
                },
                gateway: None,
            },
            expires_at: dice.near(world.clock().0 + 10),
        },
    };
    world.act(name, Msg::Escrow(msg))
}

fn settlement(world: &World, dice: &mut Dice, name: &str) -> Settlement {
    let span = SettledSpan {
        provider: world.addr(name).into_string(),
        deployment: 1,
        compute_share_bps: 10_000,
        ask: Serving::stages(0, 2).ask(),
    };
    Settlement {
        item: item(world, dice),
        units: Units {
            requests: 1,
            units_in: 1,
            units_out: 0,
        },
        spans: vec![span],
    }
}
