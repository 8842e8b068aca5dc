//! The book: stakes, deployments, totals and index, changed together so that none can say what another does not.
//!
//! Guarantees: totals are the sums over all stakes; the index holds exactly the deployments that can take an item, now or once settled
//! work is forgotten. A provider whose bond covers all its slots, what was settled lately and its reserve has headroom wherever it has
//! a free slot, so a change touches one listing; only when the bond is or was short of that, or a jail opens or closes, are all
//! listings of the provider written anew, at most 32.

use cosmwasm_std::{Addr, Empty, Storage, Uint128};
use schema::{
    escrow::KeeperFee,
    params::ConductParams,
    staking::{Ended, Keeper, Penalty, SettledWork, Vacancy},
    ItemId, BPS,
};

use crate::{
    deployment::Deployment,
    index, provider,
    stake::Stake,
    state::{COOLING, DEPLOYMENTS, NEWEST_DEPLOYMENT, PROFILES, SERVING, STAKES, TOTALS},
    ContractError,
};

/// When something happens, and by which parameters.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moment<'a> {
    pub(crate) now: u64,
    pub(crate) conduct: &'a ConductParams,
}

/// A miss that was counted.
#[derive(Debug, PartialEq)]
pub(crate) struct Miss {
    pub(crate) provider: Addr,
    pub(crate) deployment: u64,
    pub(crate) item: ItemId,
    /// Has left the stake.
    pub(crate) penalty: Uint128,
    pub(crate) beneficiary: String,
    /// Out of the penalty.
    pub(crate) keeper: Option<KeeperFee>,
    /// Inside the window, this one included.
    pub(crate) strikes: usize,
    /// It was this one that jailed.
    pub(crate) jailed_until: Option<u64>,
}

/// Changes a stake, and with it the totals and the listings that depend on it.
pub(crate) fn change_stake<T>(
    storage: &mut dyn Storage,
    owner: &Addr,
    change: impl FnOnce(&mut Stake) -> Result<T, ContractError>,
) -> Result<T, ContractError> {
    let before = provider::stake(storage, owner)?;
    let mut after = before.clone();
    let answer = change(&mut after)?;
    STAKES.save(storage, owner, &after)?;
    change_totals(storage, &before, &after)?;
    if before.is_short() || after.is_short() || before.is_jailed() != after.is_jailed() {
        for number in &after.deployments {
            let deployment = load(storage, *number)?;
            index::refresh(storage, *number, &deployment, &after)?;
        }
    }
    Ok(answer)
}

fn change_totals(storage: &mut dyn Storage, before: &Stake, after: &Stake) -> Result<(), ContractError> {
    let (left, entered) = (before.unbonding_sum(), after.unbonding_sum());
    if before.bond == after.bond && left == entered {
        return Ok(());
    }
    let mut totals = TOTALS.load(storage)?;
    totals.bonded = totals.bonded.saturating_add(after.bond).saturating_sub(before.bond);
    totals.unbonding = totals.unbonding.saturating_add(entered).saturating_sub(left);
    Ok(TOTALS.save(storage, &totals)?)
}

pub(crate) fn load(storage: &dyn Storage, deployment: u64) -> Result<Deployment, ContractError> {
    DEPLOYMENTS
        .may_load(storage, deployment)?
        .ok_or(ContractError::UnknownDeployment { deployment })
}

fn load_own(storage: &dyn Storage, deployment: u64, sender: &Addr) -> Result<Deployment, ContractError> {
    let found = load(storage, deployment)?;
    if found.owner != sender {
        let sender = sender.to_string();
        return Err(ContractError::NotOwner { deployment, sender });
    }
    Ok(found)
}

/// Stores a changed deployment, and its listing as its owner's stake is now.
fn save(storage: &mut dyn Storage, number: u64, deployment: &Deployment) -> Result<(), ContractError> {
    DEPLOYMENTS.save(storage, number, deployment)?;
    relist(storage, number, deployment)
}

/// The listing of a stored deployment, as its owner's stake is now.
fn relist(storage: &mut dyn Storage, number: u64, deployment: &Deployment) -> Result<(), ContractError> {
    let stake = provider::stake(storage, &deployment.owner)?;
    Ok(index::refresh(storage, number, deployment, &stake)?)
}

/// Lists a deployment and answers its number.
pub(crate) fn deploy(storage: &mut dyn Storage, deployment: &Deployment, now: u64) -> Result<u64, ContractError> {
    // Numbers of deployments outlast any chain.
    let number = NEWEST_DEPLOYMENT.load(storage)?.saturating_add(1);
    NEWEST_DEPLOYMENT.save(storage, &number)?;
    DEPLOYMENTS.save(storage, number, deployment)?;
    SERVING.save(storage, (&deployment.market(), number), &Empty {})?;
    change_stake(storage, &deployment.owner, |stake| {
        stake.commit(number, deployment.committed(), deployment.reserve, now)
    })?;
    relist(storage, number, deployment)?;
    Ok(number)
}

pub(crate) fn drain(storage: &mut dyn Storage, number: u64, sender: &Addr) -> Result<(), ContractError> {
    let mut deployment = load_own(storage, number, sender)?;
    deployment.drain(number)?;
    save(storage, number, &deployment)
}

/// Forgets an idle deployment.
pub(crate) fn remove(storage: &mut dyn Storage, number: u64, sender: &Addr, now: u64) -> Result<(), ContractError> {
    let deployment = load_own(storage, number, sender)?;
    deployment.require_idle(number)?;
    index::delist(storage, number, &deployment)?;
    DEPLOYMENTS.remove(storage, number);
    SERVING.remove(storage, (&deployment.market(), number));
    let mut reserve = Uint128::zero();
    for other in provider::stake(storage, sender)?.deployments {
        if other != number {
            reserve = reserve.max(load(storage, other)?.reserve);
        }
    }
    change_stake(storage, sender, |stake| {
        stake.uncommit(number, deployment.committed(), reserve, now);
        Ok(())
    })
}

/// Ends the time in jail. Every deployment that is not draining is in the draw again.
pub(crate) fn unjail(storage: &mut dyn Storage, owner: &Addr, sender: &Addr, now: u64) -> Result<(), ContractError> {
    // The stake first: it is what tells a stranger from a provider.
    provider::stake(storage, owner)?;
    let operator = PROFILES.load(storage, owner)?.operator;
    if sender != owner && operator.as_deref() != Some(sender.as_str()) {
        return Err(ContractError::NotProvider {
            sender: sender.to_string(),
            provider: owner.to_string(),
        });
    }
    change_stake(storage, owner, |stake| stake.unjail(now))
}

/// Takes a slot of every deployment, for an item or a session.
pub(crate) fn occupy(storage: &mut dyn Storage, deployments: &[u64], now: u64) -> Result<(), ContractError> {
    for number in deployments {
        let mut deployment = load(storage, *number)?;
        deployment.occupy(*number)?;
        DEPLOYMENTS.save(storage, *number, &deployment)?;
        change_stake(storage, &deployment.owner, |stake| {
            stake.occupy(*number, deployment.slot_bond, now)
        })?;
        relist(storage, *number, &deployment)?;
    }
    Ok(())
}

/// Gives the slots of an item back, and counts how it ended: settled work and misses against stakes, link faults against deployments.
/// Never fails for known deployments: whatever the item has come to, its slots are free again.
// Not a part of its caller: a chain allows a function 100 variables.
#[inline(never)]
pub(crate) fn vacate(
    storage: &mut dyn Storage,
    vacancy: Vacancy,
    moment: Moment<'_>,
) -> Result<Option<Miss>, ContractError> {
    let Vacancy {
        item,
        deployments,
        mut ended,
    } = vacancy;
    let mut miss = None;
    for number in deployments {
        let mut deployment = load(storage, number)?;
        // Without a slot there is nothing at stake: a penalty takes the bond of the slot that it comes with, never another's.
        if !deployment.vacate() {
            continue;
        }
        if is_part_of_fault(&ended, number) {
            deployment.fail_link(moment.now, moment.conduct.fault_window_seconds);
        }
        DEPLOYMENTS.save(storage, number, &deployment)?;
        // Taken out: whoever names a culprit twice makes it pay once.
        let culprit = take_culprit(&mut ended, number);
        let counted = change_stake(storage, &deployment.owner, |stake| {
            stake.vacate(deployment.slot_bond);
            if let Ended::Settled { price } = ended {
                stake
                    .settled
                    .add(price, moment.now, moment.conduct.audit_window_seconds);
            }
            Ok(culprit.map(|penalty| blame(stake, &deployment, (number, item), penalty, moment)))
        })?;
        relist(storage, number, &deployment)?;
        miss = counted.or(miss);
    }
    if let Ended::LinkFault { sender, receiver } = ended {
        let until = moment.now.saturating_add(moment.conduct.fault_window_seconds);
        COOLING.save(storage, (sender, receiver), &until)?;
    }
    Ok(miss)
}

fn is_part_of_fault(ended: &Ended, number: u64) -> bool {
    matches!(ended, Ended::LinkFault { sender, receiver } if [*sender, *receiver].contains(&number))
}

fn take_culprit(ended: &mut Ended, number: u64) -> Option<Penalty> {
    match ended {
        Ended::Missed(penalty) if penalty.deployment == number => match std::mem::replace(ended, Ended::Unpaid {}) {
            Ended::Missed(penalty) => Some(penalty),
            _ => None,
        },
        _ => None,
    }
}

/// Takes the penalty of a miss and counts the strike.
fn blame(
    stake: &mut Stake,
    deployment: &Deployment,
    (number, item): (u64, ItemId),
    penalty: Penalty,
    moment: Moment<'_>,
) -> Miss {
    let strikes = stake.strike(moment.now, moment.conduct);
    let paid = stake.penalise(deployment.penalty(penalty.price));
    Miss {
        provider: deployment.owner.clone(),
        deployment: number,
        item,
        penalty: paid,
        keeper: penalty.keeper.and_then(|keeper| keeper_fee(keeper, paid)),
        beneficiary: penalty.beneficiary,
        strikes,
        jailed_until: stake
            .jailed_until
            .filter(|_| strikes >= moment.conduct.jail_strikes.into()),
    }
}

/// The keeper's part, rounded down. None: it is nothing.
fn keeper_fee(keeper: Keeper, paid: Uint128) -> Option<KeeperFee> {
    let amount = paid.multiply_ratio(keeper.bps.min(BPS), BPS);
    let account = keeper.account;
    (!amount.is_zero()).then_some(KeeperFee { account, amount })
}

/// Counts work that was paid for without giving a slot back. Never fails: what is not known is passed over.
pub(crate) fn record_settled(
    storage: &mut dyn Storage,
    work: &[SettledWork],
    moment: Moment<'_>,
) -> Result<(), ContractError> {
    for SettledWork { deployment, price } in work {
        if let Some(deployment) = DEPLOYMENTS.may_load(storage, *deployment)? {
            change_stake(storage, &deployment.owner, |stake| {
                stake
                    .settled
                    .add(*price, moment.now, moment.conduct.audit_window_seconds);
                Ok(())
            })?;
        }
    }
    Ok(())
}

/// Gives slots of a session back. Never fails for known deployments, and a deployment is known while a slot of it is taken.
pub(crate) fn free(storage: &mut dyn Storage, deployments: &[u64]) -> Result<(), ContractError> {
    for number in deployments {
        let mut deployment = load(storage, *number)?;
        if !deployment.vacate() {
            continue;
        }
        DEPLOYMENTS.save(storage, *number, &deployment)?;
        change_stake(storage, &deployment.owner, |stake| {
            stake.vacate(deployment.slot_bond);
            Ok(())
        })?;
        save(storage, *number, &deployment)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
