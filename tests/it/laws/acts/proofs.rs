//! What is said to prove work: the truth, parts of it, and forgeries. `hosts.rs` knows which is which.

use fxn_tests::{Host, Work};
use schema::{
    orchestrator::ExecuteMsg as Orchestrator,
    receipt::{Acknowledgement, Attestation, Link, Receipt},
    Digest, ItemId,
};

use super::{item, person, Act, Msg};
use crate::laws::{dice::Dice, world::World};

/// True links of an item's hosts, as far as there are any.
fn truth(world: &World, item: ItemId) -> (u8, Vec<Link>) {
    let live = world.hosts.live.get(&item);
    live.map_or((0, vec![]), |live| (live.attempt, live.run.clone()))
}

pub(super) fn submit_attestations(world: &World, dice: &mut Dice) -> Act {
    let count = [1, 2, 5, 32, 33, 0][dice.roll(6)];
    let mut attestations = vec![];
    while attestations.len() < count.min(6) {
        attestations.push(attestation(world, dice));
    }
    // Large batches repeat themselves.
    while let (true, Some(first)) = (attestations.len() < count, attestations.first().cloned()) {
        attestations.push(first);
    }
    let msg = Orchestrator::SubmitAttestations { attestations };
    world.act(person(dice), Msg::Orchestrator(msg))
}

fn attestation(world: &World, dice: &mut Dice) -> Attestation {
    let item = item(world, dice);
    let (attempt, links) = truth(world, item);
    let honest = Attestation { item, attempt, links };
    match dice.roll(10) {
        // Once more what was accepted before, as it was or for another item or attempt.
        7 => {
            let again = dice.maybe(&world.hosts.accepted).unwrap_or(honest.clone());
            match dice.roll(3) {
                0 => again,
                1 => Attestation { item, ..again },
                _ => Attestation {
                    attempt: again.attempt.wrapping_add(1),
                    ..again
                },
            }
        }
        8 => Attestation {
            attempt: attempt.wrapping_add(1),
            ..honest
        },
        9 => Attestation {
            links: elsewhere(world, item, dice),
            ..honest
        },
        0..=2 => honest,
        _ => Attestation {
            links: forged(honest.links, dice),
            ..honest
        },
    }
}

type Change = fn(&mut Receipt, &mut Option<Acknowledgement>);

/// Signed by the right hosts, for something else. All links, as if nobody had been silent.
fn elsewhere(world: &World, item: ItemId, dice: &mut Dice) -> Vec<Link> {
    if !world.hosts.live.contains_key(&item) {
        return vec![];
    }
    let changes: [Change; 7] = [
        |receipt, _| receipt.domain.chain_id = "fxn-other-1".repeat(40),
        |receipt, _| receipt.domain.contract.push('x'),
        |receipt, _| receipt.attempt = receipt.attempt.wrapping_sub(1),
        |receipt, _| receipt.item.replica ^= 1,
        |receipt, _| receipt.deployment += 1,
        |receipt, _| receipt.units_in = u64::MAX,
        |_, acknowledgement| {
            if let Some(acknowledgement) = acknowledgement {
                acknowledgement.input_digest = Digest::of(b"other");
            }
        },
    ];
    // The last change needs a chain with a joint.
    let joints = world.hosts.live[&item].spans.len() > 1;
    let change = changes[dice.roll(if joints { 7 } else { 6 })];
    world
        .protocol
        .links_with(item, Work::honest(5), |_, receipt, acknowledgement| {
            change(receipt, acknowledgement);
        })
}

/// The truth with one thing changed by somebody without the keys.
fn forged(mut links: Vec<Link>, dice: &mut Dice) -> Vec<Link> {
    if links.is_empty() {
        return links;
    }
    let at = dice.roll(links.len());
    // A key that no provider has registered: some have Mallory's.
    let forger = Host::named("forger");
    match dice.roll(8) {
        0 => {
            links.pop();
        }
        1 => links[at].receipt.receipt.units_in = links[at].receipt.receipt.units_in.wrapping_add(1),
        2 => {
            links[at].receipt.receipt.output_digest = Digest::of(b"other");
            links[at].receipt.signature = forger.sign(&links[at].receipt.receipt.digest());
        }
        3 => links[at].acknowledgement = None,
        4 => links.reverse(),
        5 => links[at].receipt.signature.0 = [[0; 64], [0xff; 64]][dice.roll(2)],
        6 => links[at].receipt.signature = Host::twin(&links[at].receipt.signature),
        _ => {
            let extra = links[at].clone();
            links.push(extra);
        }
    }
    links
}

/// Mallory has seen these on their way, and sends them first with something changed in each.
pub(crate) fn front_run(world: &World, attestations: &[Attestation]) -> Act {
    let spoil = |attestation: &Attestation| {
        let Attestation { item, attempt, links } = attestation.clone();
        let seed = Digest::of(format!("front run {item} {attempt}").as_bytes());
        let number = |place: usize| u32::from_be_bytes(seed.0[place * 4..][..4].try_into().unwrap());
        let mut dice = Dice::of(std::array::from_fn(number));
        let links = if dice.rarely(2) {
            elsewhere(world, item, &mut dice)
        } else {
            forged(links, &mut dice)
        };
        Attestation { item, attempt, links }
    };
    let attestations = attestations.iter().map(spoil).collect();
    let msg = Orchestrator::SubmitAttestations { attestations };
    world.act("mallory", Msg::Orchestrator(msg))
}

pub(super) fn post_evidence(world: &World, dice: &mut Dice) -> Act {
    let late: Vec<ItemId> = {
        let now = world.clock().0;
        let open = world.hosts.open().into_iter();
        open.filter(|item| world.hosts.live[item].deadline < now).collect()
    };
    let chosen = item(world, dice);
    let item = dice.maybe(&late).unwrap_or(chosen);
    let (attempt, mut links) = truth(world, item);
    match dice.roll(6) {
        0 => {}
        1 | 2 => links.truncate(dice.roll(4)),
        3 => {
            if let Some(last) = links.last_mut() {
                last.acknowledgement = None;
            }
        }
        4 => links = forged(links, dice),
        _ => links = elsewhere(world, item, dice),
    }
    let attempt = if dice.rarely(8) {
        attempt.wrapping_add(1)
    } else {
        attempt
    };
    let msg = Orchestrator::PostEvidence { item, attempt, links };
    world.act(person(dice), Msg::Orchestrator(msg))
}
