use cosmwasm_schema::cw_serde;
use cosmwasm_std::{Addr, Uint128};
use cw_storage_plus::{Item, Map};
use schema::{
    escrow::{HoldResponse, WorkTerms},
    params::EscrowParams,
    price::{FeeBps, FEE_BPS_MAX},
    TOTAL_SUPPLY,
};

use crate::{
    forced::Forced,
    session::{Pins, Session, Standing},
    ContractError,
};

/// Longest time for which the admin may let money be held: 30 days, well above any job and any session.
const HOLD_SECONDS_MAX: u64 = 30 * 24 * 3600;
/// Longest session that the admin may allow: 30 days.
const SESSION_SECONDS_MAX: u64 = 30 * 24 * 3600;
/// Longest notice that the admin may make owners of sessions wait: a week.
const CLOSE_NOTICE_SECONDS_MAX: u64 = 7 * 24 * 3600;

pub(crate) const CONFIG: Item<Config> = Item::new("config");
/// Absent until `Wire`.
pub(crate) const SIBLINGS: Item<Siblings> = Item::new("siblings");
/// By the text of the holder.
pub(crate) const ACCOUNTS: Map<&str, Account> = Map::new("accounts");
pub(crate) const TOTALS: Item<Account> = Item::new("totals");
/// Everything ever credited, by holder and reason.
pub(crate) const CREDITS: Map<(&str, &str), Uint128> = Map::new("credits");
/// By job.
pub(crate) const HOLDS: Map<u64, Hold> = Map::new("holds");
/// Jobs of an account that have a hold.
pub(crate) const ACCOUNT_HOLDS: Map<(&str, u64), ()> = Map::new("account_holds");
/// Number of the newest session. Numbers never return.
pub(crate) const NEWEST_SESSION: Item<u64> = Item::new("newest_session");
/// Sessions that are not over. Kept by `lane.rs` alone, as are the four below.
pub(crate) const SESSIONS: Map<u64, Session> = Map::new("sessions");
/// Allocations by session and deployment: what never changes, and what every settlement writes.
pub(crate) const PINS: Map<(u64, u64), Pins> = Map::new("pins");
pub(crate) const STANDINGS: Map<(u64, u64), Standing> = Map::new("standings");
/// Requests that owners have forced, by session, until they have ended. Kept by `forced.rs` alone.
pub(crate) const FORCED: Map<u64, Forced> = Map::new("forced");
/// Sessions of an account.
pub(crate) const ACCOUNT_SESSIONS: Map<(&str, u64), ()> = Map::new("account_sessions");
/// Sessions by deployment, as long as its allocation is not closed.
pub(crate) const DEPLOYMENT_SESSIONS: Map<(u64, u64), ()> = Map::new("deployment_sessions");

#[cw_serde]
pub(crate) struct Config {
    pub(crate) func_token: Addr,
    pub(crate) model_registry: Addr,
    pub(crate) treasury: Addr,
    pub(crate) params: EscrowParams,
}

#[cw_serde]
pub(crate) struct Siblings {
    pub(crate) job_orchestrator: Addr,
    pub(crate) provider_staking: Addr,
}

/// What a holder has, in ufunc. Also the sum over all holders.
#[cw_serde]
#[derive(Copy, Default)]
pub(crate) struct Account {
    pub(crate) available: Uint128,
    pub(crate) held: Uint128,
}

#[cw_serde]
pub(crate) struct Hold {
    pub(crate) account: Addr,
    pub(crate) amount: Uint128,
    pub(crate) terms: WorkTerms,
    /// As they were when the work was opened.
    pub(crate) fees: FeeBps,
    pub(crate) expires_at: u64,
}

impl Hold {
    pub(crate) fn into_response(self, job: u64) -> HoldResponse {
        HoldResponse {
            job,
            account: self.account.into_string(),
            amount: self.amount,
            terms: self.terms,
            fees: self.fees,
            expires_at: self.expires_at,
        }
    }
}

/// Refuses parameters outside their bounds.
pub(crate) fn check_params(params: &EscrowParams) -> Result<(), ContractError> {
    let FeeBps {
        protocol_bps,
        audit_bps,
        burn_bps,
    } = params.fees;
    if !params.fees.is_bounded() {
        return Err(ContractError::FeesTooHigh {
            sum: [protocol_bps, audit_bps, burn_bps]
                .into_iter()
                .map(u32::from)
                .fold(0, u32::saturating_add),
            max: FEE_BPS_MAX,
        });
    }
    if audit_bps > 0 {
        return Err(ContractError::AuditNotOpen { audit_bps });
    }
    let seconds = params.hold_seconds_max;
    if seconds == 0 || seconds > HOLD_SECONDS_MAX {
        return Err(ContractError::HoldSecondsOutOfBounds {
            seconds,
            max: HOLD_SECONDS_MAX,
        });
    }
    check_bounds(
        "session_seconds_max",
        params.session_seconds_max.into(),
        SESSION_SECONDS_MAX.into(),
    )?;
    check_bounds(
        "close_notice_seconds",
        params.close_notice_seconds.into(),
        CLOSE_NOTICE_SECONDS_MAX.into(),
    )?;
    check_bounds("allocation_min", params.allocation_min.u128(), TOTAL_SUPPLY)?;
    check_bounds("force_fee", params.force_fee.u128(), TOTAL_SUPPLY)
}

fn check_bounds(field: &str, found: u128, max: u128) -> Result<(), ContractError> {
    if (1..=max).contains(&found) {
        return Ok(());
    }
    let field = field.to_owned();
    Err(ContractError::OutOfBounds { field, found, max })
}
