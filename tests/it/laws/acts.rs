//! Every message that anybody can send, by honest, careless and hostile people.
//!
//! A kind of act builds one message from the world and some dice. The plainest dice give the message that its rightful sender would
//! send; others give it to somebody else, twice, too early, to the wrong contract, with a wrong amount, or with numbers from the ends
//! of their range.

use cosmwasm_std::{to_json_binary, Addr, Decimal};
use cw20::{Cw20ExecuteMsg, Cw20ReceiveMsg};
use fxn_tests::Contracts;
use schema::{
    escrow, orchestrator,
    registry::{self, Metadata, NewVersion, Share, StageInfo, Task},
    staking, Digest, ItemId, ModelId,
};
use serde::Serialize;

use super::{
    dice::Dice,
    world::{World, PEOPLE},
};

pub(crate) use proofs::front_run;
pub(crate) use roles::UNKNOWN_CODE;

mod ledger;
mod market;
mod proofs;
mod roles;
mod sessions;
mod token;
mod work;

/// A message of one of the contracts.
#[derive(Debug, Clone, Serialize)]
#[serde(untagged)]
pub(crate) enum Msg {
    Token(Cw20ExecuteMsg),
    Registry(registry::ExecuteMsg),
    Staking(staking::ExecuteMsg),
    Escrow(escrow::ExecuteMsg),
    Orchestrator(orchestrator::ExecuteMsg),
}

/// Somebody sends a message.
#[derive(Debug, Clone)]
pub(crate) struct Act {
    pub(crate) sender: Addr,
    /// Not always the contract that the message is for.
    pub(crate) to: Addr,
    pub(crate) msg: Msg,
}

impl Msg {
    pub(crate) fn contract(&self, contracts: &Contracts) -> Addr {
        match self {
            Self::Token(_) => &contracts.func_token,
            Self::Registry(_) => &contracts.model_registry,
            Self::Staking(_) => &contracts.provider_staking,
            Self::Escrow(_) => &contracts.royalty_escrow,
            Self::Orchestrator(_) => &contracts.job_orchestrator,
        }
        .clone()
    }

    /// Contract and name as in the permission table, and those of what is inside a `Send`.
    pub(crate) fn names(&self, contracts: &Contracts) -> Vec<(String, String)> {
        let contract = match self {
            Self::Token(_) => "func-token",
            Self::Registry(_) => "model-registry",
            Self::Staking(_) => "provider-staking",
            Self::Escrow(_) => "royalty-escrow",
            Self::Orchestrator(_) => "job-orchestrator",
        };
        let json = serde_json::to_value(self).unwrap();
        let name = json.as_object().unwrap().keys().next().unwrap().clone();
        let mut names = vec![(contract.to_owned(), name)];
        if let Self::Token(Cw20ExecuteMsg::Send { contract, msg, .. }) = self {
            names.extend(hook_name(contracts, contract, msg));
        }
        names
    }
}

fn hook_name(contracts: &Contracts, to: &str, msg: &[u8]) -> Option<(String, String)> {
    let contract = [
        (&contracts.model_registry, "model-registry"),
        (&contracts.provider_staking, "provider-staking"),
        (&contracts.royalty_escrow, "royalty-escrow"),
    ];
    let (_, contract) = contract.into_iter().find(|(address, _)| address.as_str() == to)?;
    let json: serde_json::Value = serde_json::from_slice(msg).ok()?;
    let name = json.as_object()?.keys().next()?;
    Some((contract.to_owned(), format!("receive/{name}")))
}

type Build = fn(&World, &mut Dice) -> Act;

/// All kinds of acts with their weights and the statements that they try most.
const KINDS: &[(u32, &str, Build)] = &[
    (2, "12", token::transfer),
    (1, "1", token::burn),
    (3, "12", token::send),
    (2, "2", token::increase_allowance),
    (1, "2", token::decrease_allowance),
    (2, "2", token::transfer_from),
    (3, "2", token::send_from),
    (3, "2", token::burn_from),
    (4, "1", token::forbidden),
    (4, "12", ledger::deposit),
    (1, "5", ledger::penalty),
    (5, "128", ledger::withdraw),
    (4, "3", ledger::release_expired),
    (4, "6", ledger::distribute_royalties),
    (3, "5", ledger::of_siblings),
    (10, "2347", sessions::open_session),
    (4, "247", sessions::top_up),
    (14, "456", sessions::settle_vouchers),
    (3, "25", sessions::close_session),
    (2, "8", sessions::leave_session),
    (5, "3", sessions::finalise_session),
    (14, "23457X", sessions::force_request),
    (2, "1", market::claim_namespace),
    (2, "6", market::publish_model),
    (1, "", market::update_metadata),
    (2, "", market::publish_version),
    (1, "8", market::retire_version),
    (2, "4", market::set_endpoint),
    (4, "6", market::set_payout),
    (2, "8", market::set_status),
    (3, "", market::propose_owner),
    (5, "", market::accept_owner),
    (1, "5", market::of_escrow),
    (2, "", market::register_provider),
    (2, "5", market::update_provider),
    (3, "17", market::bond),
    (5, "17", market::deploy),
    (5, "378", market::unbond),
    (3, "38", market::withdraw),
    (1, "8", market::drain),
    (2, "7", market::remove),
    (6, "78", market::unjail),
    (2, "57", market::of_orchestrator),
    (5, "48", roles::update_params),
    (4, "", roles::propose_admin),
    (8, "", roles::accept_admin),
    (5, "", roles::propose_migration),
    (2, "", roles::cancel_migration),
    (4, "", roles::execute_migration),
    (1, "5", roles::wire),
    (2, "15", roles::receive),
    (30, "23467X", work::submit_job),
    (12, "5X", proofs::submit_attestations),
    (8, "5X", proofs::post_evidence),
    (14, "37X", work::expire),
    (6, "25", work::prune),
    (1, "5", work::open_forced),
];

/// How many times as often an act is chosen in a story about one of its statements.
const EMPHASIS: u32 = 6;

fn weight((weight, statements, _): &(u32, &str, Build), about: Option<char>) -> u32 {
    match about {
        Some(statement) if statements.contains(statement) => weight * EMPHASIS,
        _ => *weight,
    }
}

/// Sum of all weights in a story about one statement, or about nothing.
pub(crate) fn weights(about: Option<char>) -> u32 {
    KINDS.iter().map(|kind| weight(kind, about)).sum()
}

pub(crate) fn kinds() -> impl Iterator<Item = Build> {
    KINDS.iter().map(|(_, _, build)| *build)
}

/// Number of the kind at this place among the weights.
pub(crate) fn kind_at(mut place: u32, about: Option<char>) -> usize {
    for (number, kind) in KINDS.iter().enumerate() {
        match place.checked_sub(weight(kind, about)) {
            Some(rest) => place = rest,
            None => return number,
        }
    }
    unreachable!("a place is below the sum of the weights")
}

pub(crate) fn build(world: &World, kind: usize, dice: &mut Dice) -> Act {
    KINDS[kind].2(world, dice)
}

/// The rightful sender, now and then somebody else.
fn sender<'a>(dice: &mut Dice, right: &'a str) -> &'a str {
    if dice.rarely(7) {
        person(dice)
    } else {
        right
    }
}

fn person(dice: &mut Dice) -> &'static str {
    PEOPLE[dice.roll(PEOPLE.len())]
}

/// One of the known models, else one that nobody has published.
fn model(world: &World, dice: &mut Dice) -> ModelId {
    if dice.rarely(12) {
        return "demo/unknown".parse().unwrap();
    }
    let known: Vec<ModelId> = world.oracle.owners.keys().cloned().collect();
    dice.pick(&known).clone()
}

/// Name of an account of the cast.
fn name_of(world: &World, address: &Addr) -> &'static str {
    let found = PEOPLE.into_iter().find(|name| world.addr(name) == *address);
    found.unwrap_or("mallory")
}

/// An item that is being worked on, else one that is or was not.
fn item(world: &World, dice: &mut Dice) -> ItemId {
    let unknown = ItemId {
        job: dice.near(u64::MAX),
        shard: 0,
        replica: 0,
    };
    if dice.rarely(6) {
        let past: Vec<ItemId> = world.oracle.chains.keys().copied().collect();
        return dice.maybe(&past).unwrap_or(unknown);
    }
    dice.maybe(&world.hosts.open()).unwrap_or(unknown)
}

fn payout(world: &World, dice: &mut Dice) -> Vec<Share> {
    let first = [5_000, 6_667, 1, 9_999, 10_000, 0][dice.roll(6)];
    let takers = [person(dice), person(dice)];
    let mut payout = vec![(takers[0].to_owned(), first)];
    if first < 10_000 {
        payout.push((takers[1].to_owned(), 10_000 - first));
    }
    if dice.rarely(10) {
        payout.push(("mallory".to_owned(), u16::try_from(dice.near(1)).unwrap_or(u16::MAX)));
    }
    world.protocol.shares(&payout)
}

pub(crate) fn metadata(title: &str, task: Task) -> Metadata {
    Metadata {
        title: title.to_owned(),
        description: "A model of a story.".to_owned(),
        task,
        licence: "Apache-2.0".to_owned(),
        tags: vec!["story".to_owned()],
        homepage: None,
        card: None,
    }
}

pub(crate) fn version(shares: &[u16]) -> NewVersion {
    let stage = |share: &u16| StageInfo {
        digest: Digest::of(&share.to_be_bytes()),
        weight_bytes: u64::MAX,
        compute_share_bps: *share,
    };
    NewVersion {
        manifest: Digest::of(b"manifest"),
        manifest_uris: vec![],
        stages: shares.iter().map(stage).collect(),
        tolerance: Decimal::permille(1),
        units_per_request_max: 256,
    }
}

/// FUNC for a contract, or Mallory's coins that call themselves FUNC, or FUNC for another contract.
fn send(world: &World, dice: &mut Dice, name: &str, contract: &Addr, amount: u128, hook: &impl Serialize) -> Act {
    let contracts = &world.oracle.contracts;
    let fake = dice.rarely(12);
    let contract = if dice.rarely(15) {
        dice.pick(&contracts.all()).clone()
    } else {
        contract.clone()
    };
    let msg = Cw20ExecuteMsg::Send {
        contract: contract.into_string(),
        amount: amount.into(),
        msg: to_json_binary(hook).unwrap(),
    };
    Act {
        sender: world.addr(if fake { "mallory" } else { name }),
        to: if fake {
            world.fake.clone()
        } else {
            contracts.func_token.clone()
        },
        msg: Msg::Token(msg),
    }
}

fn hook_of(sender: &Addr, amount: u128, msg: &impl Serialize) -> Cw20ReceiveMsg {
    Cw20ReceiveMsg {
        sender: sender.to_string(),
        amount: amount.into(),
        msg: to_json_binary(msg).unwrap(),
    }
}
