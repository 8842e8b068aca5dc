//! The book: stakes, deployments, totals and index, changed together so that none can say what another does not.
//!
//! Guarantees: totals are the sums over all stakes; the index holds exactly the deployments that can take an item. A provider whose
//! bond covers all its slots has headroom wherever it has a free slot, so a change touches one listing; only when the bond is or was
//! short of that are all listings of the provider written anew, at most 32.

use cosmwasm_std::{Addr, Empty, Storage, Uint128};
use schema::{
    staking::{Penalty, Vacancy},
    ItemId,
};

use crate::{
    deployment::Deployment,
    index, provider,
    stake::Stake,
    state::{DEPLOYMENTS, NEWEST_DEPLOYMENT, SERVING, STAKES, TOTALS},
    ContractError,
};

/// A penalty that has left a stake.
#[derive(Debug, PartialEq)]
pub(crate) struct Penalised {
    pub(crate) provider: Addr,
    pub(crate) deployment: u64,
    pub(crate) item: ItemId,
    pub(crate) amount: Uint128,
    pub(crate) beneficiary: String,
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
    if before.is_short() || after.is_short() {
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
pub(crate) fn deploy(storage: &mut dyn Storage, deployment: &Deployment) -> Result<u64, ContractError> {
    // Numbers of deployments outlast any chain.
    let number = NEWEST_DEPLOYMENT.load(storage)?.saturating_add(1);
    NEWEST_DEPLOYMENT.save(storage, &number)?;
    DEPLOYMENTS.save(storage, number, deployment)?;
    SERVING.save(storage, (&deployment.market(), number), &Empty {})?;
    change_stake(storage, &deployment.owner, |stake| {
        stake.commit(number, deployment.committed())
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
pub(crate) fn remove(storage: &mut dyn Storage, number: u64, sender: &Addr) -> Result<(), ContractError> {
    let deployment = load_own(storage, number, sender)?;
    deployment.require_idle(number)?;
    index::delist(storage, number, &deployment)?;
    DEPLOYMENTS.remove(storage, number);
    SERVING.remove(storage, (&deployment.market(), number));
    change_stake(storage, sender, |stake| {
        stake.uncommit(number, deployment.committed());
        Ok(())
    })
}

/// Takes a slot of every deployment, for an item or a session.
pub(crate) fn occupy(storage: &mut dyn Storage, deployments: &[u64]) -> Result<(), ContractError> {
    for number in deployments {
        let mut deployment = load(storage, *number)?;
        deployment.occupy(*number)?;
        DEPLOYMENTS.save(storage, *number, &deployment)?;
        change_stake(storage, &deployment.owner, |stake| {
            stake.occupy(*number, deployment.slot_bond)
        })?;
        relist(storage, *number, &deployment)?;
    }
    Ok(())
}

/// Gives the slots of an item back and takes the penalty of its culprit. Never fails for known deployments: whatever the item has
/// come to, its slots are free again.
pub(crate) fn vacate(storage: &mut dyn Storage, mut vacancy: Vacancy) -> Result<Option<Penalised>, ContractError> {
    let mut penalised = None;
    for number in &vacancy.deployments {
        let mut deployment = load(storage, *number)?;
        // Without a slot there is nothing at stake: a penalty takes the bond of the slot that it comes with, never another's.
        if !deployment.vacate() {
            continue;
        }
        DEPLOYMENTS.save(storage, *number, &deployment)?;
        // Taken out: whoever names a culprit twice makes it pay once.
        let culprit = vacancy.penalty.take_if(|penalty| penalty.deployment == *number);
        let amount = change_stake(storage, &deployment.owner, |stake| {
            stake.vacate(deployment.slot_bond);
            let amount = culprit
                .as_ref()
                .map(|penalty| stake.penalise(deployment.penalty(penalty.price)));
            Ok(amount.unwrap_or_default())
        })?;
        relist(storage, *number, &deployment)?;
        if let Some(Penalty { beneficiary, .. }) = culprit.filter(|_| !amount.is_zero()) {
            penalised = Some(Penalised {
                provider: deployment.owner,
                deployment: *number,
                item: vacancy.item,
                amount,
                beneficiary,
            });
        }
    }
    Ok(penalised)
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
