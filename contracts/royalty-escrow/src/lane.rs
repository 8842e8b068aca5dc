//! Sessions as they are kept: opened, topped up, closed and forgotten, with their money in the ledger.
//!
//! Guarantees:
//! - Held by a session is, for every allocation that is not closed, its reservation and what of its amount is not paid.
//! - A closed allocation holds nothing and stays known until its session is forgotten, so that no voucher of it is ever new again;
//!   numbers of sessions never return.
//! - Nothing walks over more than the 16 allocations of one session.

use cosmwasm_std::{Order, StdResult, Storage, Uint128};
use cw_storage_plus::Bound;
use schema::{
    escrow::{Holder, NewAllocation, Reason, ALLOCATIONS_MAX},
    event::DeploymentList,
    Event,
};

use crate::{
    forced,
    ledger::{About, Ledger},
    session::{Allocation, Course, Session},
    state::{ACCOUNT_SESSIONS, DEPLOYMENT_SESSIONS, FORCED, NEWEST_SESSION, PINS, SESSIONS, STANDINGS},
    ContractError,
};

pub(crate) fn load(storage: &dyn Storage, session: u64) -> Result<Session, ContractError> {
    let found = SESSIONS.may_load(storage, session)?;
    found.ok_or(ContractError::NoSession { session })
}

/// None: this deployment has never joined the session.
pub(crate) fn find(storage: &dyn Storage, session: u64, deployment: u64) -> StdResult<Option<Allocation>> {
    let Some(standing) = STANDINGS.may_load(storage, (session, deployment))? else {
        return Ok(None);
    };
    let pins = PINS.load(storage, (session, deployment))?;
    Ok(Some(Allocation { pins, standing }))
}

fn find_own(storage: &dyn Storage, session: u64, deployment: u64) -> Result<Allocation, ContractError> {
    find(storage, session, deployment)?.ok_or(ContractError::NoAllocation { session, deployment })
}

/// An allocation that is not closed.
pub(crate) fn find_open(storage: &dyn Storage, session: u64, deployment: u64) -> Result<Allocation, ContractError> {
    let found = find_own(storage, session, deployment)?;
    if found.is_closed() {
        return Err(ContractError::AllocationIsClosed { session, deployment });
    }
    Ok(found)
}

/// All deployments that ever joined, at most 16.
pub(crate) fn deployments(storage: &dyn Storage, session: u64) -> StdResult<Vec<u64>> {
    let keys = STANDINGS.prefix(session).keys(storage, None, None, Order::Ascending);
    keys.take(ALLOCATIONS_MAX).collect()
}

fn all(storage: &dyn Storage, session: u64) -> Result<Vec<Allocation>, ContractError> {
    let numbers = deployments(storage, session)?.into_iter();
    numbers
        .map(|deployment| find_own(storage, session, deployment))
        .collect()
}

pub(crate) fn save_standing(storage: &mut dyn Storage, session: u64, allocation: &Allocation) -> StdResult<()> {
    STANDINGS.save(storage, (session, allocation.deployment()), &allocation.standing)
}

/// Opens a session with its first allocations and answers its number.
pub(crate) fn open(
    ledger: &mut Ledger<'_>,
    session: &mut Session,
    joining: Vec<Allocation>,
) -> Result<u64, ContractError> {
    let storage = ledger.storage_mut();
    // Numbers of sessions outlast any chain.
    let number = NEWEST_SESSION.may_load(storage)?.unwrap_or_default().saturating_add(1);
    NEWEST_SESSION.save(storage, &number)?;
    ACCOUNT_SESSIONS.save(storage, (session.owner.as_str(), number), &())?;
    let numbers = DeploymentList(joining.iter().map(Allocation::deployment).collect());
    let held = join(ledger, number, session, joining)?;
    ledger.announce(Event::SessionOpened {
        session: number,
        owner: session.owner.to_string(),
        model: session.terms.model.clone(),
        version: session.version,
        endpoint: session.endpoint.clone(),
        deployments: numbers,
        held,
        expires_at: session.expires_at,
    });
    Ok(number)
}

/// New allocations with their money. Answers how much that is.
fn join(
    ledger: &mut Ledger<'_>,
    number: u64,
    session: &mut Session,
    joining: Vec<Allocation>,
) -> Result<Uint128, ContractError> {
    let mut held = Uint128::zero();
    for allocation in joining {
        let deployment = allocation.deployment();
        let storage = ledger.storage_mut();
        if STANDINGS.has(storage, (number, deployment)) {
            return Err(ContractError::DuplicateDeployment { deployment });
        }
        PINS.save(storage, (number, deployment), &allocation.pins)?;
        save_standing(storage, number, &allocation)?;
        DEPLOYMENT_SESSIONS.save(storage, (deployment, number), &())?;
        session.open = session.open.saturating_add(1);
        held = held
            .checked_add(allocation.standing.amount)?
            .checked_add(allocation.pins.reservation)?;
    }
    ledger.lock(session.owner.as_str(), held)?;
    SESSIONS.save(ledger.storage_mut(), number, session)?;
    Ok(held)
}

/// More money for deployments that are in the session, and further deployments.
pub(crate) fn top_up(
    ledger: &mut Ledger<'_>,
    number: u64,
    session: &mut Session,
    (known, joining): (&[NewAllocation], Vec<Allocation>),
    now: u64,
) -> Result<(), ContractError> {
    let forced = forced::find(ledger.storage(), number, now)?;
    let named = known.iter().map(|known| known.deployment);
    let numbers = DeploymentList(named.chain(joining.iter().map(Allocation::deployment)).collect());
    let mut more = Uint128::zero();
    for NewAllocation { deployment, amount } in known {
        let mut allocation = find_open(ledger.storage(), number, *deployment)?;
        allocation.require_open(number)?;
        allocation.put_in(*amount, forced::asked(forced.as_ref(), *deployment))?;
        save_standing(ledger.storage_mut(), number, &allocation)?;
        more = more.checked_add(*amount)?;
    }
    ledger.lock(session.owner.as_str(), more)?;
    let held = join(ledger, number, session, joining)?.checked_add(more)?;
    ledger.announce(Event::SessionToppedUp {
        session: number,
        deployments: numbers,
        held,
    });
    Ok(())
}

/// The owner's wish: every open allocation gets its date. Answers how many did.
pub(crate) fn start_closing(
    ledger: &mut Ledger<'_>,
    number: u64,
    session: &Session,
    now: u64,
) -> Result<usize, ContractError> {
    let closes_at = now.saturating_add(session.close_notice_seconds).min(session.ends_at());
    let mut changed = 0usize;
    for mut allocation in all(ledger.storage(), number)? {
        if !matches!(allocation.standing.course, Course::Open) {
            continue;
        }
        allocation.standing.course = Course::Closing { closes_at };
        save_standing(ledger.storage_mut(), number, &allocation)?;
        ledger.announce(Event::AllocationClosing {
            session: number,
            deployment: allocation.deployment(),
            closes_at,
        });
        changed = changed.saturating_add(1);
    }
    Ok(changed)
}

/// Closes every allocation whose date has passed, and answers the deployments whose slots are to be freed.
pub(crate) fn finalise(
    ledger: &mut Ledger<'_>,
    number: u64,
    session: &mut Session,
    now: u64,
) -> Result<Vec<u64>, ContractError> {
    let forced = forced::find(ledger.storage(), number, now)?;
    let mut slots = vec![];
    let mut is_due = false;
    let mut next: Option<u64> = None;
    for allocation in all(ledger.storage(), number)? {
        let date = allocation.releasable_at(session, forced.as_ref());
        if allocation.is_closed() {
            continue;
        }
        if now <= date {
            next = Some(next.map_or(date, |next| next.min(date)));
            continue;
        }
        is_due = true;
        slots.extend(close(ledger, number, session, allocation, now)?);
    }
    if let (false, Some(next)) = (is_due, next) {
        return Err(ContractError::NothingDue {
            session: number,
            next,
            now,
        });
    }
    Ok(slots)
}

/// Pays the slot, gives the rest back, and forgets the session with its last allocation. Answers the deployment if its slot is the
/// caller's to free.
pub(crate) fn close(
    ledger: &mut Ledger<'_>,
    number: u64,
    session: &mut Session,
    mut allocation: Allocation,
    now: u64,
) -> Result<Option<u64>, ContractError> {
    let deployment = allocation.deployment();
    let slot = allocation.has_slot().then_some(deployment);
    let accrued = allocation.accrued(session, now)?;
    let unsettled = allocation
        .standing
        .amount
        .checked_sub(allocation.standing.taken.amount)?;
    let released = unsettled.checked_add(allocation.pins.reservation.checked_sub(accrued)?)?;
    ledger.spend_held(session.owner.as_str(), accrued)?;
    let about = About {
        item: None,
        deployment: Some(deployment),
        model: Some(session.terms.model.clone()),
    };
    let provider = Holder::Address(allocation.pins.provider.to_string());
    ledger.credit(provider, Reason::Reservation, accrued, about)?;
    ledger.unlock(session.owner.as_str(), released)?;
    ledger.announce(Event::AllocationClosed {
        session: number,
        deployment,
        reservation: accrued,
        released,
    });
    allocation.standing.course = Course::Closed { accrued };
    let storage = ledger.storage_mut();
    save_standing(storage, number, &allocation)?;
    DEPLOYMENT_SESSIONS.remove(storage, (deployment, number));
    session.open = session.open.saturating_sub(1);
    if session.open > 0 {
        SESSIONS.save(storage, number, session)?;
    } else {
        forget(storage, number, session)?;
    }
    Ok(slot)
}

fn forget(storage: &mut dyn Storage, number: u64, session: &Session) -> Result<(), ContractError> {
    for deployment in deployments(storage, number)? {
        PINS.remove(storage, (number, deployment));
        STANDINGS.remove(storage, (number, deployment));
    }
    SESSIONS.remove(storage, number);
    FORCED.remove(storage, number);
    ACCOUNT_SESSIONS.remove(storage, (session.owner.as_str(), number));
    Ok(())
}

/// Numbers of an account's sessions.
pub(crate) fn of_account(
    storage: &dyn Storage,
    account: &str,
    start_after: Option<u64>,
    limit: usize,
) -> StdResult<Vec<u64>> {
    let min = start_after.map(Bound::exclusive);
    let keys = ACCOUNT_SESSIONS
        .prefix(account)
        .keys(storage, min, None, Order::Ascending);
    keys.take(limit).collect()
}

/// Numbers of the sessions in which a deployment is and is not closed.
pub(crate) fn of_deployment(
    storage: &dyn Storage,
    deployment: u64,
    start_after: Option<u64>,
    limit: usize,
) -> StdResult<Vec<u64>> {
    let min = start_after.map(Bound::exclusive);
    let keys = DEPLOYMENT_SESSIONS
        .prefix(deployment)
        .keys(storage, min, None, Order::Ascending);
    keys.take(limit).collect()
}
