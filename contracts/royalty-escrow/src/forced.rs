//! Requests that an owner forces: what of a session waits for them, and what they leave behind.
//!
//! Guarantees:
//! - A session has one open request at most. Its deployments can neither leave nor be closed meanwhile: a miss finds their slots.
//! - Nothing waits longer than the hold of the request, which has a date like any other. After it a request is as good as gone.
//! - Its money is not the allocations': a voucher that a provider has in its hands is worth the same before, meanwhile and after. Both
//!   together never exceed the bond behind the slot.

use cosmwasm_schema::cw_serde;
use cosmwasm_std::{Addr, StdResult, Storage, Uint128};
use schema::{
    escrow::{ForcedOutcome, ForcedResponse, ForcedSpan, Holder, Reason},
    event::DeploymentList,
    Event,
};

use crate::{
    lane,
    ledger::{About, Ledger},
    session::{Course, Session},
    state::{Hold, FORCED, PINS},
    ContractError,
};

/// The only endpoint whose rows cannot be garbage: any text can be read, and no proof of garbage exists yet.
const ENDPOINT: &str = "embeddings";

#[cw_serde]
pub(crate) struct Forced {
    pub(crate) job: u64,
    pub(crate) opened_at: u64,
    /// Date of its hold.
    pub(crate) until: u64,
    pub(crate) fee: Uint128,
    /// In the order of the chain.
    pub(crate) spans: Vec<ForcedSpan>,
}

impl Forced {
    /// What it asks of a deployment. None: nothing.
    fn price(&self, deployment: u64) -> Option<Uint128> {
        let mut spans = self.spans.iter();
        let span = spans.find(|span| span.deployment == deployment);
        span.map(|span| span.price)
    }

    pub(crate) fn into_response(self) -> ForcedResponse {
        let Self {
            job,
            opened_at,
            until,
            fee,
            spans,
        } = self;
        ForcedResponse {
            job,
            opened_at,
            until,
            fee,
            spans,
        }
    }
}

/// The request of a session that is waited for.
pub(crate) fn find(storage: &dyn Storage, session: u64, now: u64) -> StdResult<Option<Forced>> {
    let found = FORCED.may_load(storage, session)?;
    Ok(found.filter(|forced| now <= forced.until))
}

/// Until when an allocation waits, if it does.
pub(crate) fn wait(forced: Option<&Forced>, deployment: u64) -> Option<u64> {
    let forced = forced?;
    forced.price(deployment).map(|_| forced.until)
}

/// Of an open request, what the slot of a deployment backs beside the allocation.
pub(crate) fn asked(forced: Option<&Forced>, deployment: u64) -> Uint128 {
    let price = forced.and_then(|forced| forced.price(deployment));
    price.unwrap_or_default()
}

pub(crate) fn require_free(
    storage: &dyn Storage,
    session: u64,
    deployment: u64,
    now: u64,
) -> Result<(), ContractError> {
    let forced = find(storage, session, now)?;
    match wait(forced.as_ref(), deployment) {
        Some(until) => Err(ContractError::Asked {
            session,
            deployment,
            until,
        }),
        None => Ok(()),
    }
}

/// Whether the owner may ask these deployments now.
pub(crate) fn check(
    storage: &dyn Storage,
    number: u64,
    session: &Session,
    deployments: &[u64],
    now: u64,
) -> Result<(), ContractError> {
    session.require_unexpired(number, now)?;
    if session.endpoint != ENDPOINT {
        let endpoint = session.endpoint.clone();
        return Err(ContractError::NotForcible { endpoint });
    }
    if let Some(Forced { job, until, .. }) = find(storage, number, now)? {
        return Err(ContractError::AlreadyForced {
            session: number,
            job,
            until,
        });
    }
    for deployment in deployments {
        lane::find_open(storage, number, *deployment)?.require_open(number)?;
    }
    Ok(())
}

/// The request is at work as this job: its money is held, and its deployments wait.
pub(crate) fn begin(
    ledger: &mut Ledger<'_>,
    number: u64,
    job: u64,
    forced: Forced,
    hold: &Hold,
) -> Result<(), ContractError> {
    for ForcedSpan { deployment, price } in &forced.spans {
        lane::find_open(ledger.storage(), number, *deployment)?.check_bond(*price)?;
    }
    ledger.hold(job, hold)?;
    FORCED.save(ledger.storage_mut(), number, &forced)?;
    ledger.announce(Event::RequestForced {
        session: number,
        job,
        deployments: DeploymentList(forced.spans.iter().map(|span| span.deployment).collect()),
        until: forced.until,
    });
    Ok(())
}

/// The request has ended. Nothing of it is waited for any more, and what is left of its hold goes back.
pub(crate) fn end(
    ledger: &mut Ledger<'_>,
    number: u64,
    job: u64,
    outcome: ForcedOutcome,
    now: u64,
) -> Result<(), ContractError> {
    let found = FORCED.may_load(ledger.storage(), number)?;
    // A later request may have taken the place of one whose date had passed.
    if let Some(forced) = found.filter(|forced| forced.job == job) {
        FORCED.remove(ledger.storage_mut(), number);
        let missed = match outcome {
            ForcedOutcome::Answered {} => {
                pay_answer(ledger, number, &forced)?;
                None
            }
            ForcedOutcome::Missed { deployment } => {
                miss(ledger, number, deployment, forced.opened_at, now)?;
                Some(deployment)
            }
            ForcedOutcome::Failed {} => None,
        };
        ledger.announce(Event::ForcedEnded {
            session: number,
            job,
            missed,
        });
    }
    ledger.release(job)
}

/// The last span attests, and pays the gas.
fn pay_answer(ledger: &mut Ledger<'_>, number: u64, forced: &Forced) -> Result<(), ContractError> {
    let Some(ForcedSpan { deployment, .. }) = forced.spans.last() else {
        return Ok(());
    };
    let provider: Addr = PINS.load(ledger.storage(), (number, *deployment))?.provider;
    ledger.spend(forced.job, forced.fee)?;
    let about = About {
        item: None,
        deployment: Some(*deployment),
        model: None,
    };
    ledger.credit(
        Holder::Address(provider.into_string()),
        Reason::Answer,
        forced.fee,
        about,
    )
}

/// The slot is gone with its penalty; the allocation stays for vouchers until the notice is over.
fn miss(ledger: &mut Ledger<'_>, number: u64, deployment: u64, asked_at: u64, now: u64) -> Result<(), ContractError> {
    let session = lane::load(ledger.storage(), number)?;
    let mut allocation = lane::find_open(ledger.storage(), number, deployment)?;
    let notice = now.saturating_add(session.close_notice_seconds);
    let closes_at = allocation.closing_date(&session).min(notice);
    allocation.standing.course = Course::Missed {
        since: asked_at,
        closes_at,
    };
    lane::save_standing(ledger.storage_mut(), number, &allocation)?;
    ledger.announce(Event::AllocationClosing {
        session: number,
        deployment,
        closes_at,
    });
    Ok(())
}
