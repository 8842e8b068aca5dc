//! What is published and what is served.

use fxn_tests::{Host, Serving, FUNC, MODEL, PARENT, PROVIDERS};
use schema::{
    price::{RoyaltyRate, Units, RATE_MAX},
    registry::{EndpointTerms, ExecuteMsg as Registry, ModelStatus, Parent, ReceiveMsg as Claim, Task, Unit, Usage},
    staking::{
        DeploymentTerms, Ended, ExecuteMsg as Staking, Occupation, Penalty, ReceiveMsg as Bond, SettledWork, Vacancy,
    },
    ItemId, ModelId,
};

use super::{item, metadata, model, name_of, payout, person, send, sender, version, Act, Msg};
use crate::laws::{
    dice::Dice,
    world::{World, GENERATOR, LATECOMERS, PEOPLE},
};

pub(super) fn claim_namespace(world: &World, dice: &mut Dice) -> Act {
    let names = ["fresh", "other", "demo", "third"];
    let claim = Claim::ClaimNamespace {
        namespace: dice.pick(&names).parse().unwrap(),
    };
    let amount = dice.around(world.oracle.params.registry.namespace_fee.u128());
    let contract = &world.oracle.contracts.model_registry;
    send(world, dice, person(&mut dice.clone()), contract, amount, &claim)
}

pub(super) fn publish_model(world: &World, dice: &mut Dice) -> Act {
    let model: ModelId = format!("demo/extra{}", dice.roll(5)).parse().unwrap();
    let known: Vec<ModelId> = world.oracle.owners.keys().cloned().collect();
    let parents = (0..dice.roll(4)).map(|_| Parent {
        model: dice.pick(&known).clone(),
        bps: [2_500, 1, 3_334, 5_001][dice.roll(4)],
    });
    let msg = Registry::PublishModel {
        model,
        parents: parents.collect(),
        metadata: metadata("extra", Task::Embeddings),
        payout: payout(world, dice),
    };
    world.act(sender(dice, "clara"), Msg::Registry(msg))
}

/// A message about a model, mostly by its owner.
fn by_owner(world: &World, dice: &mut Dice, model: &ModelId, msg: Registry) -> Act {
    let owner = world.oracle.owners.get(model).map(|(owner, _)| name_of(world, owner));
    world.act(sender(dice, owner.unwrap_or("clara")), Msg::Registry(msg))
}

pub(super) fn update_metadata(world: &World, dice: &mut Dice) -> Act {
    let model = model(world, dice);
    let task = if model.as_str() == GENERATOR {
        Task::TextGeneration
    } else {
        Task::Embeddings
    };
    let title = ["better", "", "bell\u{7}"][dice.roll(3)];
    let msg = Registry::UpdateMetadata {
        model: model.clone(),
        metadata: metadata(title, task),
    };
    by_owner(world, dice, &model, msg)
}

pub(super) fn publish_version(world: &World, dice: &mut Dice) -> Act {
    // A new version of what is served would take the work from everybody who serves it.
    let model: ModelId = format!("demo/extra{}", dice.roll(5)).parse().unwrap();
    let shares: &[u16] = [&[10_000][..], &[1, 9_999], &[5_000, 5_001], &[]][dice.roll(4)];
    let msg = Registry::PublishVersion {
        model: model.clone(),
        version: version(shares),
    };
    by_owner(world, dice, &model, msg)
}

pub(super) fn retire_version(world: &World, dice: &mut Dice) -> Act {
    let known: Vec<(ModelId, u32)> = world
        .oracle
        .shares
        .keys()
        .filter(|(model, _)| model.as_str() != MODEL && model.as_str() != GENERATOR)
        .cloned()
        .collect();
    let (model, number) = dice.pick(&known).clone();
    let msg = Registry::RetireVersion {
        model: model.clone(),
        version: u32::try_from(dice.near(number.into())).unwrap_or(u32::MAX),
    };
    by_owner(world, dice, &model, msg)
}

pub(super) fn set_endpoint(world: &World, dice: &mut Dice) -> Act {
    let model = model(world, dice);
    let absurd = dice.rarely(12);
    let per_1k: u128 = if absurd {
        [RATE_MAX, u128::MAX][dice.roll(2)]
    } else {
        [333, 0, 100_003][dice.roll(3)]
    };
    let royalty = RoyaltyRate {
        royalty_bps: [1_000, 0, 10_000, 10_001][dice.roll(4)],
        royalty_per_1k_units: per_1k.into(),
    };
    let msg = Registry::SetEndpoint {
        model: model.clone(),
        endpoint: ["embeddings", "chat", "Not a name"][dice.roll(3)].to_owned(),
        terms: EndpointTerms {
            unit: Unit::Token,
            royalty,
        },
    };
    by_owner(world, dice, &model, msg)
}

pub(super) fn set_payout(world: &World, dice: &mut Dice) -> Act {
    let chosen = model(world, dice);
    let model = if dice.rarely(2) {
        PARENT.parse().unwrap()
    } else {
        chosen
    };
    let msg = Registry::SetPayout {
        model: model.clone(),
        payout: payout(world, dice),
    };
    by_owner(world, dice, &model, msg)
}

pub(super) fn set_status(world: &World, dice: &mut Dice) -> Act {
    use ModelStatus::{Active, Paused, Retired};
    let model = model(world, dice);
    let served = [MODEL, GENERATOR].contains(&model.as_str());
    let status = [Active, Active, Paused, if served { Active } else { Retired }][dice.roll(4)];
    let msg = Registry::SetStatus {
        model: model.clone(),
        status,
    };
    by_owner(world, dice, &model, msg)
}

pub(super) fn propose_owner(world: &World, dice: &mut Dice) -> Act {
    let model = model(world, dice);
    let heir = (!dice.rarely(4)).then(|| world.addr(["heir", "clara"][dice.roll(2)]).into_string());
    let msg = Registry::ProposeOwner {
        model: model.clone(),
        owner: heir,
    };
    by_owner(world, dice, &model, msg)
}

pub(super) fn accept_owner(world: &World, dice: &mut Dice) -> Act {
    let offered: Vec<_> = world
        .oracle
        .owners
        .iter()
        .filter_map(|(model, (_, heir))| heir.clone().map(|heir| (model.clone(), heir)))
        .collect();
    let (model, heir) = match dice.maybe(&offered) {
        Some((model, heir)) => (model, name_of(world, &heir)),
        None => (model(world, dice), "mallory"),
    };
    world.act(sender(dice, heir), Msg::Registry(Registry::AcceptOwner { model }))
}

/// Work that was never done is to be counted.
pub(super) fn of_escrow(world: &World, dice: &mut Dice) -> Act {
    let usage = Usage {
        model: model(world, dice),
        units: Units::default(),
        paid: dice.around(FUNC).into(),
        sunk: FUNC.into(),
    };
    world.act(person(dice), Msg::Registry(Registry::Record { usages: vec![usage] }))
}

pub(super) fn register_provider(world: &World, dice: &mut Dice) -> Act {
    let name = person(dice);
    let mut profile = world.protocol.profile("mallory");
    match dice.roll(6) {
        4 => profile.name = "n".repeat(65),
        5 => profile.endpoint = "ftp://nowhere".to_owned(),
        _ => {}
    }
    world.act(name, Msg::Staking(Staking::RegisterProvider { profile }))
}

fn provider(world: &World, dice: &mut Dice) -> &'static str {
    let known: Vec<&'static str> = PEOPLE
        .into_iter()
        .filter(|name| world.oracle.stakes.contains_key(world.addr(name).as_str()))
        .collect();
    if dice.rarely(9) {
        return person(dice);
    }
    known[dice.roll(known.len())]
}

pub(super) fn update_provider(world: &World, dice: &mut Dice) -> Act {
    let name = provider(world, dice);
    let mut profile = world.protocol.profile(name);
    profile.host_key = Host::named(["walt", "mallory", "anna"][dice.roll(3)]).public_key();
    if dice.rarely(5) {
        profile.host_key.0[0] = 4;
    }
    world.act(name, Msg::Staking(Staking::UpdateProvider { profile }))
}

pub(super) fn bond(world: &World, dice: &mut Dice) -> Act {
    let name = provider(world, dice);
    let amount = dice.around(60 * FUNC);
    let contract = &world.oracle.contracts.provider_staking;
    send(world, dice, name, contract, amount, &Bond::Bond {})
}

pub(super) fn deploy(world: &World, dice: &mut Dice) -> Act {
    let name = if dice.rarely(3) {
        provider(world, dice)
    } else {
        *dice.pick(&PROVIDERS)
    };
    let stage = [0u8, 1, 2][dice.roll(3)];
    let serving = Serving {
        slots: [1, 2, 1_000, 0][dice.roll(4)],
        class: ["ort-cpu-avx2", "ort-cpu-avx512", ""][dice.roll(3)].to_owned(),
        ..Serving::stages(stage, stage)
    };
    let mut terms: DeploymentTerms = serving.terms();
    match dice.roll(8) {
        3 => terms.last = 2,
        4 => terms.ask.per_1k_in = dice.around(RATE_MAX).into(),
        5 => terms.sla.base_seconds = dice.near(3_600),
        6 => terms.model = GENERATOR.parse().unwrap(),
        7 => terms.version = 7,
        _ => {}
    }
    terms.sla.penalty_bps = [2_000, 10_000, 1_000, 999][dice.roll(4)];
    terms.reservation_per_hour = [100_000u128, 123_457, 1][dice.roll(3)].into();
    let amount = dice.around(world.oracle.params.staking.listing_fee.u128());
    let contract = &world.oracle.contracts.provider_staking;
    send(world, dice, name, contract, amount, &Bond::Deploy { terms })
}

pub(super) fn unbond(world: &World, dice: &mut Dice) -> Act {
    let name = provider(world, dice);
    let free = world.free_bond(world.addr(name).as_str());
    let part = [free / 9, free, 1][dice.roll(3)];
    let amount = dice.around(part).into();
    world.act(name, Msg::Staking(Staking::Unbond { amount }))
}

pub(super) fn withdraw(world: &World, dice: &mut Dice) -> Act {
    let (now, _) = world.clock();
    let due = |name: &&str| {
        let stake = world.oracle.stakes.get(world.addr(name).as_str());
        stake.is_some_and(|stake| stake.unbonding.iter().any(|entry| entry.1 <= now))
    };
    let due: Vec<&str> = PROVIDERS.into_iter().chain(LATECOMERS).filter(due).collect();
    let name = if dice.rarely(4) {
        provider(world, dice)
    } else {
        dice.maybe(&due).unwrap_or("anna")
    };
    world.act(name, Msg::Staking(Staking::Withdraw {}))
}

/// A deployment and its owner.
fn deployment(world: &World, dice: &mut Dice) -> (u64, &'static str) {
    let listed: Vec<u64> = world
        .oracle
        .deployments
        .iter()
        .filter(|(_, listed)| !listed.removed)
        .map(|(number, _)| *number)
        .rev()
        .collect();
    let number = *dice.pick(&listed);
    let owner = cosmwasm_std::Addr::unchecked(&world.oracle.deployments[&number].owner);
    (dice.near(number), name_of(world, &owner))
}

pub(super) fn drain(world: &World, dice: &mut Dice) -> Act {
    let (deployment, owner) = deployment(world, dice);
    world.act(sender(dice, owner), Msg::Staking(Staking::Drain { deployment }))
}

pub(super) fn remove(world: &World, dice: &mut Dice) -> Act {
    let (deployment, owner) = deployment(world, dice);
    world.act(sender(dice, owner), Msg::Staking(Staking::Remove { deployment }))
}

/// The one who may come back, else one who may not yet or was never jailed.
pub(super) fn unjail(world: &World, dice: &mut Dice) -> Act {
    let (now, _) = world.clock();
    let owners = world.oracle.stakes.keys().map(String::as_str);
    let mut jailed: Vec<(u64, &str)> = owners
        .filter_map(|owner| Some((world.oracle.jailed_until(owner)?, owner)))
        .collect();
    jailed.sort_by_key(|(until, _)| *until > now);
    let owner = match jailed.first() {
        Some((_, owner)) if !dice.rarely(4) => (*owner).to_owned(),
        _ => world.addr(provider(world, dice)).into_string(),
    };
    let right = name_of(world, &cosmwasm_std::Addr::unchecked(&owner));
    let msg = Staking::Unjail { provider: owner };
    world.act(sender(dice, right), Msg::Staking(msg))
}

/// Slots are to be taken or given back, or a competitor punished, by somebody who is neither the orchestrator nor the escrow.
pub(super) fn of_orchestrator(world: &World, dice: &mut Dice) -> Act {
    let item = item(world, dice);
    let deployments = vec![deployment(world, dice).0];
    let session = 1;
    let msg = match dice.roll(5) {
        4 => {
            let (deployment, price) = (deployments[0], dice.around(FUNC).into());
            Staking::RecordSettled {
                work: vec![SettledWork { deployment, price }],
            }
        }
        0 => Staking::Reserve { session, deployments },
        1 => Staking::Free { session, deployments },
        2 => {
            let items = vec![Occupation { item, deployments }];
            Staking::Occupy { items }
        }
        _ => vacate(world, dice, item, deployments),
    };
    world.act(person(dice), Msg::Staking(msg))
}

fn vacate(world: &World, dice: &mut Dice, item: ItemId, deployments: Vec<u64>) -> Staking {
    let named = deployments[0];
    let price = dice.around(FUNC).into();
    let ended = match dice.roll(3) {
        0 => Ended::Settled { price },
        1 => Ended::LinkFault {
            sender: named,
            receiver: named,
        },
        _ => Ended::Missed(Penalty {
            deployment: named,
            price,
            beneficiary: world.addr("mallory").into_string(),
            keeper: None,
        }),
    };
    let items = vec![Vacancy {
        item,
        deployments,
        ended,
    }];
    Staking::Vacate { items }
}
