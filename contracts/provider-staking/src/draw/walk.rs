//! The forward choice of one chain: at random in proportion to weights, with a step back where the prices did not foretell a dead end.

use std::collections::BTreeMap;

use cosmwasm_std::{Addr, Uint128};
use schema::Digest;

use super::{Choice, Task, ATTEMPTS_MAX};

/// Choices of one walk, those taken back included. A walk without dead ends makes at most 32.
const CHOICES_MAX: usize = 512;

/// The forward choice of one chain.
pub(super) struct Walk<'a> {
    task: &'a Task<'a>,
    stages: &'a [Vec<Choice>],
    spare: &'a BTreeMap<Addr, Uint128>,
    replica: u8,
    attempt: u8,
    choices_left: usize,
    path: Vec<&'a Choice>,
}

impl<'a> Walk<'a> {
    pub(super) fn new(
        task: &'a Task<'a>,
        stages: &'a [Vec<Choice>],
        spare: &'a BTreeMap<Addr, Uint128>,
        (replica, attempt): (u8, u8),
    ) -> Self {
        Self {
            task,
            stages,
            spare,
            replica,
            attempt,
            choices_left: CHOICES_MAX,
            path: vec![],
        }
    }

    /// The chain, once it is finished.
    pub(super) fn path(&self) -> &[&'a Choice] {
        &self.path
    }

    /// Completes the path from `stage` on for at most `limit` in all, of which `spent` is spent.
    pub(super) fn finish(&mut self, stage: usize, spent: u128, limit: u128) -> bool {
        if stage == self.task.stages() {
            return true;
        }
        let mut open = self.feasible(stage, spent, limit);
        let mut stream = Stream::new(self, stage);
        while let Some(choice) = self.take_one(&mut open, &mut stream) {
            let Some(choices_left) = self.choices_left.checked_sub(1) else {
                return false;
            };
            self.choices_left = choices_left;
            self.path.push(choice);
            let spent = spent.saturating_add(choice.price);
            if self.finish(choice.next_stage(), spent, limit.min(choice.slot_bond())) {
                return true;
            }
            self.path.pop();
        }
        false
    }

    fn feasible(&self, stage: usize, spent: u128, limit: u128) -> Vec<&'a Choice> {
        let choices: &'a [Choice] = self.stages.get(stage).map(Vec::as_slice).unwrap_or_default();
        let fits = |choice: &&'a Choice| {
            let previous = self.path.last();
            spent.saturating_add(choice.through) <= limit.min(choice.slot_bond())
                && previous.is_none_or(|previous| self.task.may_pair(previous, choice))
                && self.has_spare_bond(choice)
        };
        choices.iter().filter(fits).collect()
    }

    fn has_spare_bond(&self, choice: &Choice) -> bool {
        let owner = &choice.span.listing.owner;
        let Some(spare) = self.spare.get(owner) else {
            return true;
        };
        let own = self.path.iter().filter(|before| before.span.listing.owner == *owner);
        let bond = own
            .map(|before| before.slot_bond())
            .fold(choice.slot_bond(), u128::saturating_add);
        bond <= spare.u128()
    }

    /// Takes a choice out of the open ones, in proportion to their weights.
    fn take_one(&self, open: &mut Vec<&'a Choice>, stream: &mut Stream) -> Option<&'a Choice> {
        let own = |choice: &Choice| {
            self.path
                .iter()
                .any(|before| before.span.listing.owner == choice.span.listing.owner)
        };
        let frugal = self.attempt >= ATTEMPTS_MAX / 2 && open.iter().any(|choice| own(choice));
        let weight = |choice: &Choice| {
            if frugal && !own(choice) {
                0
            } else {
                choice.weight
            }
        };
        let sum = open.iter().map(|choice| weight(choice)).fold(0, u128::saturating_add);
        let mut ticket = stream.below(sum)?;
        let position = open
            .iter()
            .position(|choice| match ticket.checked_sub(weight(choice)) {
                Some(rest) => {
                    ticket = rest;
                    false
                }
                None => true,
            })?;
        Some(open.remove(position))
    }
}

/// Random numbers of one decision.
struct Stream {
    place: Vec<u8>,
    counter: u32,
}

impl Stream {
    fn new(walk: &Walk<'_>, stage: usize) -> Self {
        let mut place = walk.task.request.seed.as_bytes().to_vec();
        // At most 64 shards and 32 stages.
        place.extend(u32::try_from(walk.task.number).unwrap_or(u32::MAX).to_be_bytes());
        place.extend([walk.replica, walk.attempt, u8::try_from(stage).unwrap_or(u8::MAX)]);
        Self { place, counter: 0 }
    }

    /// A number below `bound`, None if there is none. 2^128 is so far above any sum of slots that the remainder favours nobody.
    fn below(&mut self, bound: u128) -> Option<u128> {
        let counter = self.counter.to_be_bytes();
        self.counter = self.counter.saturating_add(1);
        let digest = Digest::of(&[self.place.as_slice(), &counter].concat());
        let (head, _) = digest.0.split_first_chunk::<16>()?;
        u128::from_be_bytes(*head).checked_rem(bound)
    }
}
