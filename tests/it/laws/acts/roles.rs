//! What every contract has: an admin with bounded parameters, and siblings that are wired once.

use cosmwasm_std::Addr;
use fxn_tests::FUNC;
use schema::{
    escrow::{self, ExecuteMsg as Escrow},
    orchestrator::ExecuteMsg as Orchestrator,
    params::Params,
    price::FeeBps,
    registry::{self, ExecuteMsg as Registry},
    staking::{self, ExecuteMsg as Staking},
};

use super::{hook_of, name_of, person, sender, Act, Msg};
use crate::laws::{dice::Dice, world::World};

/// On no chain of ours.
pub(crate) const UNKNOWN_CODE: u64 = 999;

/// The same role in one of the four contracts that have it.
fn of_one(dice: &mut Dice, msgs: [Msg; 4]) -> Msg {
    dice.pick(&msgs).clone()
}

fn admin(world: &World, dice: &mut Dice, msg: &Msg) -> &'static str {
    let contract = msg.contract(&world.oracle.contracts);
    let (admin, heir) = &world.oracle.admins[&contract];
    match heir {
        Some(heir) if dice.rarely(2) => name_of(world, heir),
        _ => name_of(world, admin),
    }
}

pub(super) fn update_params(world: &World, dice: &mut Dice) -> Act {
    let Params {
        mut registry,
        mut staking,
        mut escrow,
        mut orchestrator,
        ..
    } = world.protocol.params.clone();
    registry.namespace_fee = dice.around(registry.namespace_fee.u128()).into();
    let bond = [50, 40, 60][dice.roll(3)] * FUNC;
    staking.bond_per_slot = dice.around(bond).into();
    staking.listing_fee = dice.around(FUNC).into();
    let unbonding = [30, 7, 35][dice.roll(3)];
    staking.unbonding_seconds = dice.near(unbonding);
    if dice.rarely(15) {
        let notice = staking.migration_notice_seconds;
        staking.migration_notice_seconds = dice.near(notice);
        registry.migration_notice_seconds = dice.near(notice);
        orchestrator.migration_notice_seconds = dice.near(notice);
    }
    staking.miss_min = dice.around(100_000).into();
    staking.conduct.audit_unit = ([1, 90][dice.roll(2)] * FUNC).into();
    staking.conduct.jail_strikes = [2, 1, 0][dice.roll(3)];
    staking.conduct.strike_window_seconds = [120, 5][dice.roll(2)];
    staking.conduct.jail_seconds = [10, 0, 300][dice.roll(3)];
    staking.conduct.fault_window_seconds = [60, 1][dice.roll(2)];
    escrow.fees = FeeBps {
        protocol_bps: [200, 0, 1_500][dice.roll(3)],
        audit_bps: u16::from(dice.rarely(12)),
        burn_bps: [100, 500, 501][dice.roll(3)],
    };
    escrow.hold_seconds_max = dice.near(3_600);
    escrow.session_seconds_max = dice.near(3_600);
    escrow.close_notice_seconds = [5, 1, 100][dice.roll(3)];
    staking.reservation_per_hour_min = [100_000u128, 1, 0, 250_001][dice.roll(4)].into();
    orchestrator.grace_seconds = [1, 2][dice.roll(2)];
    orchestrator.evidence_seconds = [2, 9, 1][dice.roll(3)];
    orchestrator.attempts_max = [5, 2, 10, 11][dice.roll(4)];
    let lasting = [1_800, 90][dice.roll(2)];
    orchestrator.job_seconds_max = dice.near(lasting);
    orchestrator.keeper_bps = [1_000, 0, 333, 1_001][dice.roll(4)];
    orchestrator.prune_after_seconds = lasting + [0, 60][dice.roll(2)];
    let msg = of_one(
        dice,
        [
            Msg::Registry(Registry::UpdateParams { params: registry }),
            Msg::Staking(Staking::UpdateParams { params: staking }),
            Msg::Escrow(Escrow::UpdateParams { params: escrow }),
            Msg::Orchestrator(Orchestrator::UpdateParams { params: orchestrator }),
        ],
    );
    let right = admin(world, dice, &msg);
    world.act(sender(dice, right), msg)
}

pub(super) fn propose_admin(world: &World, dice: &mut Dice) -> Act {
    let admin_to_be = (!dice.rarely(4)).then(|| world.addr(["heir", "admin"][dice.roll(2)]).into_string());
    let heir = || admin_to_be.clone();
    let msg = of_one(
        dice,
        [
            Msg::Registry(Registry::ProposeAdmin { admin: heir() }),
            Msg::Staking(Staking::ProposeAdmin { admin: heir() }),
            Msg::Escrow(Escrow::ProposeAdmin { admin: heir() }),
            Msg::Orchestrator(Orchestrator::ProposeAdmin { admin: heir() }),
        ],
    );
    let right = admin(world, dice, &msg);
    world.act(sender(dice, right), msg)
}

pub(super) fn accept_admin(world: &World, dice: &mut Dice) -> Act {
    let msgs = [
        Msg::Registry(Registry::AcceptAdmin {}),
        Msg::Staking(Staking::AcceptAdmin {}),
        Msg::Escrow(Escrow::AcceptAdmin {}),
        Msg::Orchestrator(Orchestrator::AcceptAdmin {}),
    ];
    let offered = msgs.iter().find_map(|msg| {
        let contract = msg.contract(&world.oracle.contracts);
        let heir = world.oracle.admins[&contract].1.as_ref();
        heir.map(|heir| (msg.clone(), name_of(world, heir)))
    });
    let (msg, heir) = match offered {
        Some(offered) if !dice.rarely(4) => offered,
        _ => (of_one(dice, msgs), "mallory"),
    };
    world.act(sender(dice, heir), msg)
}

/// Mostly the next version of a contract; else its own code, another contract's, one that cannot migrate, or one that is not there.
pub(super) fn propose_migration(world: &World, dice: &mut Dice) -> Act {
    let contracts = world.protocol.migratable();
    let contract = dice.pick(&contracts).clone();
    let code_id = match dice.roll(8) {
        4 => world.oracle.codes.next[dice.pick(&contracts)],
        5 => 1,
        6 => UNKNOWN_CODE,
        7 => world.protocol.code_of(&contract),
        _ => world.oracle.codes.next[&contract],
    };
    let msg = if dice.rarely(12) { &b"[]"[..] } else { &b"{}"[..] };
    let msg = cosmwasm_std::Binary::from(msg);
    let msg = to_contract(
        world,
        &contract,
        Registry::ProposeMigration {
            code_id,
            msg: msg.clone(),
        },
        Staking::ProposeMigration {
            code_id,
            msg: msg.clone(),
        },
        Orchestrator::ProposeMigration { code_id, msg },
    );
    let right = admin(world, dice, &msg);
    world.act(sender(dice, right), msg)
}

fn to_contract(
    world: &World,
    contract: &Addr,
    registry: Registry,
    staking: Staking,
    orchestrator: Orchestrator,
) -> Msg {
    let contracts = &world.oracle.contracts;
    if *contract == contracts.model_registry {
        return Msg::Registry(registry);
    }
    if *contract == contracts.provider_staking {
        return Msg::Staking(staking);
    }
    Msg::Orchestrator(orchestrator)
}

/// A contract to which something is proposed, if there is any.
fn with_proposal(world: &World, dice: &mut Dice) -> Addr {
    let any = dice.pick(&world.protocol.migratable()).clone();
    let proposed: Vec<Addr> = world.oracle.codes.pending.keys().cloned().collect();
    dice.maybe(&proposed).unwrap_or(any)
}

pub(super) fn cancel_migration(world: &World, dice: &mut Dice) -> Act {
    let contract = with_proposal(world, dice);
    let msg = to_contract(
        world,
        &contract,
        Registry::CancelMigration {},
        Staking::CancelMigration {},
        Orchestrator::CancelMigration {},
    );
    let right = admin(world, dice, &msg);
    world.act(sender(dice, right), msg)
}

pub(super) fn execute_migration(world: &World, dice: &mut Dice) -> Act {
    let contract = with_proposal(world, dice);
    let msg = to_contract(
        world,
        &contract,
        Registry::ExecuteMigration {},
        Staking::ExecuteMigration {},
        Orchestrator::ExecuteMigration {},
    );
    world.act(person(dice), msg)
}

/// Other siblings are to be put in place of ours.
pub(super) fn wire(world: &World, dice: &mut Dice) -> Act {
    let mine = world.addr("mallory").into_string();
    let msgs = [
        Msg::Registry(Registry::Wire {
            royalty_escrow: mine.clone(),
        }),
        Msg::Staking(Staking::Wire {
            royalty_escrow: mine.clone(),
            job_orchestrator: mine.clone(),
        }),
        Msg::Escrow(Escrow::Wire {
            job_orchestrator: mine.clone(),
            provider_staking: mine,
        }),
    ];
    let msg = dice.pick(&msgs).clone();
    world.act(["admin", "mallory"][dice.roll(2)], msg)
}

/// FUNC is said to have come that never came.
pub(super) fn receive(world: &World, dice: &mut Dice) -> Act {
    let sender = world.addr("mallory");
    let amount = dice.around(100 * FUNC);
    let namespace = "mallory".parse().unwrap();
    let msgs = [
        Msg::Escrow(Escrow::Receive(hook_of(
            &sender,
            amount,
            &escrow::ReceiveMsg::Deposit { beneficiary: None },
        ))),
        Msg::Staking(Staking::Receive(hook_of(
            &sender,
            amount,
            &staking::ReceiveMsg::Bond {},
        ))),
        Msg::Registry(Registry::Receive(hook_of(
            &sender,
            amount,
            &registry::ReceiveMsg::ClaimNamespace { namespace },
        ))),
    ];
    let msg = dice.pick(&msgs).clone();
    let mut act = world.act(person(dice), msg);
    if dice.rarely(4) {
        act.to = dice.pick(&world.oracle.contracts.all()).clone();
    }
    act
}
