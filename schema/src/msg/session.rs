//! Sessions of the royalty-escrow: prepaid allocations to providers, paid out against vouchers that are signed off chain.

use std::{fmt, str::FromStr};

use cosmwasm_schema::cw_serde;
use cosmwasm_std::Uint128;

use super::escrow::Gateway;
use crate::{
    price::{Ask, FeeBps, RoyaltyRate, Units},
    ModelId, PublicKey, Signature,
};

/// Allocations of one session, closed ones included; slots that one message takes or gives back.
pub const ALLOCATIONS_MAX: usize = 16;
/// Sessions on one page of an answer: each carries all its allocations.
pub const SESSIONS_PAGE_MAX: u32 = 10;

#[cw_serde]
pub struct NewSession {
    pub model: ModelId,
    /// None: the newest.
    pub version: Option<u32>,
    pub endpoint: String,
    /// 1 to 16, each of another deployment that serves the version. They need not cover all stages, and may be spares.
    pub allocations: Vec<NewAllocation>,
    /// Signs the vouchers: a key of its own, so that the account's key need not be where the requests are made.
    pub session_key: PublicKey,
    pub gateway: Option<Gateway>,
    /// Block time in seconds, at most `session_seconds_max` away. Providers take no request afterwards and have until
    /// `close_notice_seconds` later to settle.
    pub expires_at: u64,
}

/// Money of a session set apart for one deployment.
#[cw_serde]
#[derive(Copy, Eq)]
pub struct NewAllocation {
    pub deployment: u64,
    /// Ufunc for vouchers, at least `allocation_min` for a deployment that is new to the session. What of an allocation is not yet
    /// settled never exceeds the bond behind the slot. The reservation comes on top.
    pub amount: Uint128,
}

/// A provider's signature of a `CloseConsent`.
#[cw_serde]
#[derive(Copy, Eq)]
pub struct Consent {
    pub deployment: u64,
    /// By the host key pinned in the allocation, over the highest sequence of all settled vouchers.
    pub signature: Signature,
}

/// Why a voucher was not settled. Reads as its text.
#[cw_serde]
#[derive(Copy, Eq, PartialOrd, Ord)]
pub enum VoucherRefusal {
    /// There is no such session, or it has no allocation to this deployment. A session that has ended is forgotten.
    Unknown,
    /// The allocation is closed and paid out.
    Closed,
    /// It promises no more than was paid already.
    Stale,
    /// Not signed by the session key for this chain and contract, or not in the one form that a signature has.
    Signature,
    /// A request has less than one unit or more than the version allows.
    Counters,
    /// The amount is more than was allocated.
    Allocation,
    /// The amount is more than the counters cost by the pinned terms.
    Price,
}

impl VoucherRefusal {
    pub const ALL: [Self; 7] = [
        Self::Unknown,
        Self::Closed,
        Self::Stale,
        Self::Signature,
        Self::Counters,
        Self::Allocation,
        Self::Price,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Closed => "closed",
            Self::Stale => "stale",
            Self::Signature => "signature",
            Self::Counters => "counters",
            Self::Allocation => "allocation",
            Self::Price => "price",
        }
    }
}

impl fmt::Display for VoucherRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for VoucherRefusal {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|refusal| refusal.as_str() == text)
            .ok_or_else(|| format!("no refusal {text:?}"))
    }
}

/// What a forced request asks of one deployment.
#[cw_serde]
#[derive(Copy, Eq)]
pub struct ForcedSpan {
    pub deployment: u64,
    /// Of the most units that the request may have, in ufunc.
    pub price: Uint128,
}

/// How a forced request has ended.
#[cw_serde]
#[derive(Copy, Eq)]
pub enum ForcedOutcome {
    /// Proven and paid.
    Answered {},
    /// This deployment had its input and did not deliver.
    Missed { deployment: u64 },
    /// Nobody is known to be guilty, or the time of the hold was over.
    Failed {},
}

/// A forced request that has not ended.
#[cw_serde]
pub struct ForcedResponse {
    /// The item that is to be proven is this job's only one.
    pub job: u64,
    pub opened_at: u64,
    /// None of the deployments below can leave, nor is its allocation closed, until the request has ended or this date has passed.
    /// Anyone may end it once the item is overdue.
    pub until: u64,
    /// To the provider of the last span, for the gas of an answer.
    pub fee: Uint128,
    pub spans: Vec<ForcedSpan>,
}

#[cw_serde]
pub struct SessionResponse {
    pub session: u64,
    pub owner: String,
    pub model: ModelId,
    pub version: u32,
    pub endpoint: String,
    pub session_key: PublicKey,
    /// As they were when the session was opened, as are the next three.
    pub royalty: RoyaltyRate,
    pub gateway: Option<Gateway>,
    pub fees: FeeBps,
    /// Most units that one request may have.
    pub units_per_request_max: u64,
    /// Block times in seconds.
    pub opened_at: u64,
    pub expires_at: u64,
    /// From `CloseSession`, or from `expires_at`, to the date at which anyone may finalise.
    pub close_notice_seconds: u64,
    /// By deployment, closed ones included.
    pub allocations: Vec<AllocationResponse>,
    /// The request that the owner has forced, if it has not ended.
    #[serde(default)]
    pub forced: Option<ForcedResponse>,
}

#[cw_serde]
pub struct AllocationResponse {
    pub deployment: u64,
    pub provider: String,
    /// As it was when the deployment joined the session, as is everything else about it.
    pub host_key: PublicKey,
    pub first: u8,
    pub last: u8,
    pub compute_share_bps: u16,
    pub ask: Ask,
    /// Most that may be unsettled after money was put in.
    pub slot_bond: Uint128,
    pub reservation_per_hour: Uint128,
    pub state: AllocationState,
    /// Everything ever put in for vouchers.
    pub amount: Uint128,
    /// Of `amount`, what vouchers have taken.
    pub paid: Uint128,
    /// Highest of all settled vouchers, 0 before the first: a consent names it.
    pub sequence: u64,
    /// Counters of the last settled voucher, which `paid` is the amount of. They may be lower than those of one settled before it.
    pub units: Units,
    /// Prepaid for the slot, from `joined_at` to `expires_at` and the notice.
    pub reservation: Uint128,
    /// Of `reservation`, what the provider gets if the allocation is closed now, or got when it was.
    pub accrued: Uint128,
    pub joined_at: u64,
    /// Block time in seconds after which anyone may close it with `FinaliseSession`: then `reservation - accrued` and
    /// `amount - paid` go back to the owner. The provider may let it go earlier. A forced request that has not ended is waited for.
    pub releasable_at: u64,
}

#[cw_serde]
#[derive(Copy, Eq)]
pub enum AllocationState {
    Open,
    /// The owner wants its money back. Vouchers are still settled.
    Closing,
    /// A forced request was not answered: as `closing`, but the slot is free already and has earned nothing since the request.
    Missed,
    /// Paid out. Nothing is held any more.
    Closed,
}

#[cw_serde]
pub struct SessionsResponse {
    pub sessions: Vec<SessionResponse>,
}
