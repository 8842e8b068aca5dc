//! The rounds that are known.
//!
//! Guarantees:
//! - A round that is known never changes.
//! - From its time on, a round can be posted and stays known for `rounds_kept` periods (less the tolerance), whatever anybody posts meanwhile: what
//!   is kept goes by the number of the round and not by how many there are, and none is taken before its time. So nobody can push a
//!   round out.
//! - A post forgets at most two rounds, so its work is bounded and what is stored is too.

use cosmwasm_schema::cw_serde;
use cosmwasm_std::{Order, StdResult, Storage};
use cw_storage_plus::{Bound, Item, Map};
use schema::{BeaconKey, Digest, Round, Schedule};

use crate::ContractError;

/// Most rounds that may be kept: ten years of quicknet's.
pub(crate) const ROUNDS_KEPT_MAX: u64 = 100_000_000;
/// The chain's clock is the one of its last block, and validators' clocks differ: a round may come by as much before its time.
const TOLERANCE_SECONDS: u64 = 10;
/// Old rounds that a new one takes away. More than one, so that a backlog vanishes.
const FORGOTTEN_MAX: usize = 2;

pub(crate) const CONFIG: Item<Config> = Item::new("config");
const LATEST: Item<u64> = Item::new("latest");
const ROUNDS: Map<u64, Digest> = Map::new("rounds");

#[cw_serde]
pub(crate) struct Config {
    pub(crate) public_key: BeaconKey,
    pub(crate) schedule: Schedule,
    pub(crate) rounds_kept: u64,
}

impl Config {
    /// Refuses numbers that cannot work.
    pub(crate) fn check(&self) -> Result<(), ContractError> {
        if self.schedule.period_seconds == 0 {
            return Err(ContractError::NoPeriod);
        }
        let (found, max) = (self.rounds_kept, ROUNDS_KEPT_MAX);
        if found == 0 || found > max {
            return Err(ContractError::RoundsKept { found, max });
        }
        Ok(())
    }

    /// Refuses a round that is not due or that nobody can need any more. `latest` is the newest known.
    pub(crate) fn check_round(&self, round: u64, latest: Option<u64>, now: u64) -> Result<(), ContractError> {
        if round == 0 {
            return Err(ContractError::NoRound);
        }
        let due_at = self.schedule.time_of(round);
        if due_at > now.saturating_add(TOLERANCE_SECONDS) {
            return Err(ContractError::RoundEarly { round, due_at, now });
        }
        let oldest = latest.map_or(1, |latest| self.oldest(latest));
        if round < oldest {
            return Err(ContractError::RoundOld { round, oldest });
        }
        Ok(())
    }

    /// The oldest round that is taken and kept beside this one.
    fn oldest(&self, latest: u64) -> u64 {
        latest.saturating_sub(self.rounds_kept).saturating_add(1)
    }
}

/// Number of the newest known round.
pub(crate) fn latest(storage: &dyn Storage) -> StdResult<Option<u64>> {
    LATEST.may_load(storage)
}

/// A round, if it is known.
pub(crate) fn find(storage: &dyn Storage, round: u64) -> StdResult<Option<Round>> {
    let randomness = ROUNDS.may_load(storage, round)?;
    Ok(randomness.map(|randomness| Round { round, randomness }))
}

/// The oldest known round of those from `at_least` on.
pub(crate) fn first(storage: &dyn Storage, at_least: u64) -> StdResult<Option<Round>> {
    let min = Some(Bound::inclusive(at_least));
    let found = ROUNDS.range(storage, min, None, Order::Ascending).next();
    let found = found.transpose()?;
    Ok(found.map(|(round, randomness)| Round { round, randomness }))
}

/// Keeps a round that was verified, and forgets what has become too old.
pub(crate) fn keep(storage: &mut dyn Storage, config: &Config, new: Round) -> StdResult<()> {
    ROUNDS.save(storage, new.round, &new.randomness)?;
    let latest = latest(storage)?.unwrap_or_default().max(new.round);
    LATEST.save(storage, &latest)?;
    let max = Some(Bound::exclusive(config.oldest(latest)));
    let old: Vec<u64> = ROUNDS
        .keys(storage, None, max, Order::Ascending)
        .take(FORGOTTEN_MAX)
        .collect::<StdResult<_>>()?;
    for round in old {
        ROUNDS.remove(storage, round);
    }
    Ok(())
}
