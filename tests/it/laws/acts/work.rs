//! Jobs: ordered, and expired.

use cosmwasm_std::Binary;
use fxn_tests::{Protocol, FUNC};
use schema::{
    escrow::Gateway,
    orchestrator::{ExecuteMsg as Orchestrator, ForcedRequest, NewJob, NewShard},
    price::RoyaltyRate,
};

use super::{item, person, sessions, Act, Msg};
use crate::laws::{
    dice::Dice,
    world::{World, DEVELOPERS, GENERATOR},
};

pub(super) fn submit_job(world: &World, dice: &mut Dice) -> Act {
    let (shards, replicas) = [(1, 1), (1, 2), (2, 1), (2, 2), (3, 1), (1, 3), (5, 2)][dice.roll(7)];
    let mut job = Protocol::order(shards, 2, replicas);
    if dice.rarely(4) {
        job.model = GENERATOR.parse().unwrap();
        job.units_max = 300;
    }
    let items = (shards as u128) * u128::from(replicas);
    let each = [FUNC, 7 * FUNC / 10, FUNC, FUNC / 100][dice.roll(4)];
    job.max_price = dice.around(items * each).into();
    job.units_max = [job.units_max, 1, 77][dice.roll(3)];
    if dice.rarely(4) {
        let bps = [250, 1, 2_000, 2_001, 0][dice.roll(5)];
        let address = world.addr("gateway").into_string();
        job.gateway = Some(Gateway { address, bps });
    }
    if dice.rarely(5) {
        job.deadline_seconds = Some(dice.near(60));
    }
    if dice.rarely(5) {
        job.chain = Some(sessions::chain(world, dice, None));
    }
    if dice.rarely(8) {
        careless(&mut job, dice);
    }
    let name = if dice.rarely(9) {
        person(dice)
    } else {
        *dice.pick(&DEVELOPERS)
    };
    world.act(name, Msg::Orchestrator(Orchestrator::SubmitJob { job }))
}

/// An order with one thing wrong.
fn careless(job: &mut NewJob, dice: &mut Dice) {
    match dice.roll(9) {
        0 => job.shards.clear(),
        1 => job.shards[0].inline.clear(),
        2 => job.shards[0].inline = vec![Binary::from(vec![b'x'; 8_193])],
        3 => job.shards[0].inline = vec![Binary::from(vec![0xff, 0xfe])],
        4 => job.replicas = [0, 4, u8::MAX][dice.roll(3)],
        5 => job.units_max = dice.near(u64::MAX),
        6 => {
            job.shards = vec![
                NewShard {
                    inline: vec![Binary::from(b"row")]
                };
                65
            ]
        }
        7 => job.version = Some(u32::try_from(dice.near(2)).unwrap_or(u32::MAX)),
        _ => job.engine_class = Some(["ort-cpu-avx512", "", "\u{7}"][dice.roll(3)].to_owned()),
    }
}

pub(super) fn expire(world: &World, dice: &mut Dice) -> Act {
    let clock = world.clock();
    let overdue: Vec<_> = world
        .hosts
        .open()
        .into_iter()
        .filter(|item| world.hosts.expires(*item, clock))
        .collect();
    let chosen = item(world, dice);
    let item = if dice.rarely(3) {
        chosen
    } else {
        dice.maybe(&overdue).unwrap_or(chosen)
    };
    world.act(person(dice), Msg::Orchestrator(Orchestrator::Expire { item }))
}

/// Jobs that are over and kept for long enough, and some that are not.
pub(super) fn prune(world: &World, dice: &mut Dice) -> Act {
    let now = world.clock().0;
    let mut jobs: Vec<u64> = world.oracle.prunable(now).take(32).collect();
    if jobs.is_empty() || dice.rarely(3) {
        let known: Vec<u64> = world.oracle.jobs.keys().copied().collect();
        jobs.extend(dice.maybe(&known));
        jobs.push(dice.near(3));
    }
    match dice.roll(12) {
        10 => jobs.clear(),
        11 => jobs = vec![1; 33],
        _ => {}
    }
    world.act(person(dice), Msg::Orchestrator(Orchestrator::Prune { jobs }))
}

/// What only the escrow may.
pub(super) fn open_forced(world: &World, dice: &mut Dice) -> Act {
    let order = Protocol::order(1, 1, 1);
    let request = ForcedRequest {
        session: 1,
        owner: world.addr("dora").into_string(),
        model: order.model,
        version: 1,
        endpoint: order.endpoint,
        royalty: RoyaltyRate {
            royalty_bps: 0,
            royalty_per_1k_units: 0u128.into(),
        },
        gateway: None,
        units_per_request_max: 256,
        offers: vec![],
        rows: vec![Binary::from(b"row")],
    };
    world.act(person(dice), Msg::Orchestrator(Orchestrator::OpenForced { request }))
}
