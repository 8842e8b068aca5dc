//! The rules of a session: what it pins, how much may be put at stake, what a slot costs that is kept for it, and when it is over.
//!
//! A session has one owner and an allocation for each of its deployments. An allocation pins the deployment's terms of the day on which
//! it joined; the session pins royalty, gateway, fees and notice of the day on which it was opened. An allocation is open, closing or
//! closed, and its date is fixed: the end of the notice after `expires_at`, or of the notice after the owner's wish to close, whichever is
//! first. Up to that date its slot is paid for, and vouchers are settled until somebody closes it.

use cosmwasm_schema::cw_serde;
use cosmwasm_std::{Addr, Uint128};
use schema::{
    escrow::{AllocationResponse, AllocationState, ForcedResponse, NewSession, SessionResponse, WorkTerms},
    params::EscrowParams,
    price::{FeeBps, SpanPrice, Units},
    registry::OfferResponse,
    staking::DeploymentOffer,
    PublicKey,
};

use crate::{
    forced::{self, Forced},
    split::Taken,
    ContractError,
};

#[cw_serde]
pub(crate) struct Session {
    pub(crate) owner: Addr,
    pub(crate) terms: WorkTerms,
    pub(crate) version: u32,
    pub(crate) endpoint: String,
    pub(crate) units_per_request_max: u64,
    pub(crate) fees: FeeBps,
    pub(crate) session_key: PublicKey,
    pub(crate) opened_at: u64,
    pub(crate) expires_at: u64,
    pub(crate) close_notice_seconds: u64,
    /// Allocations that are not closed. With the last of them the session is forgotten.
    pub(crate) open: u16,
}

/// Money of a session set apart for a deployment.
#[derive(Debug)]
pub(crate) struct Allocation {
    pub(crate) pins: Pins,
    pub(crate) standing: Standing,
}

/// What never changes, and is written once.
#[cw_serde]
pub(crate) struct Pins {
    pub(crate) provider: Addr,
    pub(crate) offer: DeploymentOffer,
    pub(crate) compute_share_bps: u16,
    pub(crate) joined_at: u64,
    /// Prepaid for the slot.
    pub(crate) reservation: Uint128,
}

/// What every settlement writes: as little as possible, for bytes cost gas.
#[cw_serde]
pub(crate) struct Standing {
    /// Everything ever put in for vouchers.
    pub(crate) amount: Uint128,
    /// Highest of all settled vouchers.
    pub(crate) sequence: u64,
    /// Of the last settled voucher, which is the one of the highest amount.
    pub(crate) units: Units,
    pub(crate) taken: Taken,
    pub(crate) course: Course,
}

#[cw_serde]
pub(crate) enum Course {
    Open,
    /// The owner's wish.
    Closing {
        closes_at: u64,
    },
    /// A forced request was not answered. The slot is free and has been paid for up to the request.
    Missed {
        since: u64,
        closes_at: u64,
    },
    /// With what the provider got for the slot.
    Closed {
        accrued: Uint128,
    },
}

/// Price of keeping a slot, rounded up for the provider.
fn reservation(per_hour: Uint128, seconds: u64) -> Result<Uint128, ContractError> {
    let product = per_hour.checked_mul(seconds.into())?;
    Ok(Uint128::new(product.u128().div_ceil(3_600)))
}

impl Session {
    /// Terms that were checked and an offer that was asked for, as a session that has no allocations yet.
    pub(crate) fn new(
        owner: Addr,
        new: &NewSession,
        offer: &OfferResponse,
        terms: WorkTerms,
        params: &EscrowParams,
        now: u64,
    ) -> Result<Self, ContractError> {
        let expires_at = new.expires_at;
        let latest = now.saturating_add(params.session_seconds_max);
        if expires_at <= now || expires_at > latest {
            return Err(ContractError::SessionDate {
                expires_at,
                now,
                latest,
            });
        }
        if !matches!(new.session_key.0[0], 2 | 3) {
            let found = new.session_key.0[0];
            return Err(ContractError::WrongSessionKey { found });
        }
        Ok(Self {
            owner,
            terms,
            version: offer.version,
            endpoint: new.endpoint.clone(),
            units_per_request_max: offer.units_per_request_max,
            fees: params.fees,
            session_key: new.session_key,
            opened_at: now,
            expires_at,
            close_notice_seconds: params.close_notice_seconds,
            open: 0,
        })
    }

    /// After this everything that is still held may be released by anyone.
    pub(crate) fn ends_at(&self) -> u64 {
        self.expires_at.saturating_add(self.close_notice_seconds)
    }

    pub(crate) fn require_owner(&self, session: u64, sender: &Addr) -> Result<(), ContractError> {
        if self.owner != *sender {
            let sender = sender.to_string();
            return Err(ContractError::NotSessionOwner { session, sender });
        }
        Ok(())
    }

    pub(crate) fn require_unexpired(&self, session: u64, now: u64) -> Result<(), ContractError> {
        let expires_at = self.expires_at;
        if now >= expires_at {
            return Err(ContractError::SessionExpired {
                session,
                expires_at,
                now,
            });
        }
        Ok(())
    }

    pub(crate) fn into_response(
        self,
        session: u64,
        allocations: Vec<AllocationResponse>,
        forced: Option<ForcedResponse>,
    ) -> SessionResponse {
        SessionResponse {
            session,
            owner: self.owner.into_string(),
            model: self.terms.model,
            version: self.version,
            endpoint: self.endpoint,
            session_key: self.session_key,
            royalty: self.terms.royalty,
            gateway: self.terms.gateway,
            fees: self.fees,
            units_per_request_max: self.units_per_request_max,
            opened_at: self.opened_at,
            expires_at: self.expires_at,
            close_notice_seconds: self.close_notice_seconds,
            allocations,
            forced,
        }
    }
}

impl Allocation {
    /// A deployment joins a session; nothing is put in yet but the reservation is known.
    pub(crate) fn new(
        session: &Session,
        offer: DeploymentOffer,
        compute_share_bps: u16,
        now: u64,
    ) -> Result<Self, ContractError> {
        let served = &offer.terms;
        if (&served.model, served.version) != (&session.terms.model, session.version) {
            return Err(ContractError::OtherVersionServed {
                deployment: offer.deployment,
                model: served.model.clone(),
                version: served.version,
            });
        }
        let seconds = session.ends_at().saturating_sub(now);
        let pins = Pins {
            // As staking has registered it.
            provider: Addr::unchecked(&offer.provider),
            reservation: reservation(served.reservation_per_hour, seconds)?,
            offer,
            compute_share_bps,
            joined_at: now,
        };
        let standing = Standing {
            amount: Uint128::zero(),
            sequence: 0,
            units: Units::default(),
            taken: Taken::default(),
            course: Course::Open,
        };
        Ok(Self { pins, standing })
    }

    /// More money for vouchers, beside what a forced request asks.
    pub(crate) fn put_in(&mut self, amount: Uint128, asked: Uint128) -> Result<(), ContractError> {
        self.standing.amount = self.standing.amount.checked_add(amount)?;
        self.check_bond(asked)
    }

    /// What is unsettled never exceeds the bond behind the slot, together with what a forced request asks.
    pub(crate) fn check_bond(&self, asked: Uint128) -> Result<(), ContractError> {
        let Standing { amount, taken, .. } = &self.standing;
        let unsettled = amount.checked_sub(taken.amount)?.checked_add(asked)?;
        let (deployment, slot_bond) = (self.deployment(), self.pins.offer.slot_bond);
        if unsettled > slot_bond {
            return Err(ContractError::AboveSlotBond {
                deployment,
                unsettled,
                slot_bond,
            });
        }
        Ok(())
    }

    pub(crate) fn deployment(&self) -> u64 {
        self.pins.offer.deployment
    }

    pub(crate) fn is_closed(&self) -> bool {
        matches!(self.standing.course, Course::Closed { .. })
    }

    /// Refuses one that is on its way out.
    pub(crate) fn require_open(&self, session: u64) -> Result<(), ContractError> {
        match self.standing.course {
            Course::Open => Ok(()),
            Course::Closing { closes_at } | Course::Missed { closes_at, .. } => {
                Err(ContractError::AllocationIsClosing {
                    session,
                    deployment: self.deployment(),
                    closes_at,
                })
            }
            Course::Closed { .. } => Err(ContractError::AllocationIsClosed {
                session,
                deployment: self.deployment(),
            }),
        }
    }

    /// The date that its course gives it.
    pub(crate) fn closing_date(&self, session: &Session) -> u64 {
        match self.standing.course {
            Course::Closing { closes_at } | Course::Missed { closes_at, .. } => closes_at.min(session.ends_at()),
            Course::Open | Course::Closed { .. } => session.ends_at(),
        }
    }

    /// After this anyone may close it: its date, or that of a forced request that it waits for.
    pub(crate) fn releasable_at(&self, session: &Session, forced: Option<&Forced>) -> u64 {
        let date = self.closing_date(session);
        forced::wait(forced, self.deployment()).map_or(date, |until| until.max(date))
    }

    /// What has not been given back with a penalty is for whoever closes it to free.
    pub(crate) fn has_slot(&self) -> bool {
        matches!(self.standing.course, Course::Open | Course::Closing { .. })
    }

    /// How long its slot is paid for.
    fn paid_until(&self, session: &Session) -> u64 {
        match self.standing.course {
            Course::Missed { since, .. } => since,
            _ => self.closing_date(session),
        }
    }

    /// What the provider has earned for the slot by now. Never more than was prepaid: both are rounded alike, and the date is the last.
    pub(crate) fn accrued(&self, session: &Session, now: u64) -> Result<Uint128, ContractError> {
        if let Course::Closed { accrued } = self.standing.course {
            return Ok(accrued);
        }
        let until = now.min(self.paid_until(session));
        let seconds = until.saturating_sub(self.pins.joined_at);
        Ok(reservation(self.pins.offer.terms.reservation_per_hour, seconds)?.min(self.pins.reservation))
    }

    /// F, R and G of counted work by the pinned terms.
    pub(crate) fn price(&self, session: &Session, units: Units) -> Result<SpanPrice, ContractError> {
        let gateway_bps = session.terms.gateway.as_ref().map_or(0, |gateway| gateway.bps);
        let price = SpanPrice::of(
            &self.pins.offer.terms.ask,
            &session.terms.royalty,
            gateway_bps,
            self.pins.compute_share_bps,
            units,
        )?;
        Ok(price)
    }

    pub(crate) fn into_response(
        self,
        session: &Session,
        forced: Option<&Forced>,
        now: u64,
    ) -> Result<AllocationResponse, ContractError> {
        let accrued = self.accrued(session, now)?;
        let releasable_at = self.releasable_at(session, forced);
        let state = match self.standing.course {
            Course::Open => AllocationState::Open,
            Course::Closing { .. } => AllocationState::Closing,
            Course::Missed { .. } => AllocationState::Missed,
            Course::Closed { .. } => AllocationState::Closed,
        };
        let DeploymentOffer {
            deployment,
            provider,
            host_key,
            terms,
            slot_bond,
        } = self.pins.offer;
        Ok(AllocationResponse {
            deployment,
            provider,
            host_key,
            first: terms.first,
            last: terms.last,
            compute_share_bps: self.pins.compute_share_bps,
            ask: terms.ask,
            slot_bond,
            reservation_per_hour: terms.reservation_per_hour,
            state,
            amount: self.standing.amount,
            paid: self.standing.taken.amount,
            sequence: self.standing.sequence,
            units: self.standing.units,
            reservation: self.pins.reservation,
            accrued,
            joined_at: self.pins.joined_at,
            releasable_at,
        })
    }
}
