//! royalty-escrow: the ledger. Deposits, holds for work, sessions, settlement with the full split, royalties, withdrawals.

use std::{fmt, str::FromStr};

use cosmwasm_schema::{cw_serde, QueryResponses};
use cosmwasm_std::{Binary, Uint128};
use cw20::Cw20ReceiveMsg;

pub use super::session::{
    AllocationResponse, AllocationState, Consent, ForcedOutcome, ForcedResponse, ForcedSpan, NewAllocation, NewSession,
    SessionResponse, SessionsResponse, VoucherRefusal, ALLOCATIONS_MAX, SESSIONS_PAGE_MAX,
};
use super::{
    registry::{Parent, Share},
    AdminResponse,
};
use crate::{
    params::EscrowParams,
    price::{Ask, FeeBps, RoyaltyRate, Units},
    session::SignedVoucher,
    ItemId, ModelId,
};

#[cw_serde]
pub struct InstantiateMsg {
    pub admin: String,
    pub func_token: String,
    pub model_registry: String,
    /// Account that is credited with the protocol's part.
    pub treasury: String,
    pub params: EscrowParams,
}

#[cw_serde]
pub enum ExecuteMsg {
    /// Admin, once: makes the siblings known.
    Wire {
        job_orchestrator: String,
        provider_staking: String,
    },
    /// FUNC arrives with a [`ReceiveMsg`].
    Receive(Cw20ReceiveMsg),
    /// Anyone, of his own: available money, all of it if no amount is named.
    Withdraw { amount: Option<Uint128> },
    /// Job orchestrator: moves available money of `account` into a hold.
    Hold {
        job: u64,
        account: String,
        amount: Uint128,
        terms: WorkTerms,
        expires_at: u64,
    },
    /// Job orchestrator: pays for proven work out of its job's hold. At most 32.
    Settle { settlements: Vec<Settlement> },
    /// Job orchestrator: the job has ended, what is left goes back.
    Release { job: u64 },
    /// Anyone, after the hold's date: what is left goes back.
    ReleaseExpired { job: u64 },
    /// Anyone, with his own available money: takes a slot of every deployment named, prepays its reservation and sets money apart for
    /// it, by the prices and terms of this moment.
    OpenSession { session: NewSession },
    /// Owner of the session: more money for its deployments, or further deployments by the prices of this moment.
    TopUp {
        session: u64,
        allocations: Vec<NewAllocation>,
    },
    /// Anyone: pays what vouchers promise, at most 32, of as many sessions. Each has a status of its own, told by an event; a bad one
    /// never stops the others.
    SettleVouchers { vouchers: Vec<SignedVoucher> },
    /// Owner of the session: its allocations close `close_notice_seconds` from now, or at once where the provider consents.
    CloseSession { session: u64, consents: Vec<Consent> },
    /// Provider of the deployment, or its operator: the allocation closes at once.
    LeaveSession { session: u64, deployment: u64 },
    /// Anyone: closes every allocation of a session whose date has passed. Providers get the reservation up to that date, the owner
    /// the rest.
    FinaliseSession { session: u64 },
    /// Owner of the session, before it expires, one at a time: asks on chain what was not answered off chain. The request becomes a
    /// job of one item for these deployments, at the prices and host keys of the session, with as many units as its version allows for
    /// so many rows. Its price and the `force_fee` are held out of the owner's available money.
    ForceRequest {
        session: u64,
        /// Of the session, in the order of their stages, covering all of them.
        deployments: Vec<u64>,
        /// UTF-8 text for the endpoint `embeddings`, at least one, together at most 8 KiB.
        rows: Vec<Binary>,
    },
    /// Job orchestrator: a forced request is at work. Holds its price and the `force_fee` by the terms of the session.
    HoldForced {
        job: u64,
        session: u64,
        /// In the order of the chain.
        spans: Vec<ForcedSpan>,
        expires_at: u64,
    },
    /// Job orchestrator: a forced request has ended. An answer earns the `force_fee`; a deployment that missed gets no reservation
    /// since it was asked and its allocation closes, its slot having been given back with the penalty. What is left goes back.
    EndForced {
        job: u64,
        session: u64,
        outcome: ForcedOutcome,
    },
    /// Anyone: passes on what a model has been credited with as a parent, by its own rule.
    DistributeRoyalties { model: ModelId },
    /// Model registry, before a rule changes: as `DistributeRoyalties`, by the rule given.
    DistributeUnder {
        model: ModelId,
        payout: Vec<Share>,
        parents: Vec<Parent>,
    },
    /// Admin: bounded parameters, for what is opened from now on.
    UpdateParams { params: EscrowParams },
    /// Admin: offers the role, or withdraws the offer.
    ProposeAdmin { admin: Option<String> },
    /// The account to which the role was offered.
    AcceptAdmin {},
}

/// What FUNC sent to the escrow is for.
#[cw_serde]
pub enum ReceiveMsg {
    /// Adds to the available money of the sender, or of somebody else.
    Deposit { beneficiary: Option<String> },
    /// Provider staking: a culprit pays the developer of an item, and who has expired it a part.
    Penalty {
        beneficiary: String,
        item: ItemId,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        keeper: Option<KeeperFee>,
    },
}

/// A part of a penalty, for whoever has had it paid.
#[cw_serde]
pub struct KeeperFee {
    pub account: String,
    pub amount: Uint128,
}

/// What a hold pins.
#[cw_serde]
pub struct WorkTerms {
    pub model: ModelId,
    pub royalty: RoyaltyRate,
    pub gateway: Option<Gateway>,
}

/// Who brought the work, and what it takes of the compute fee.
#[cw_serde]
pub struct Gateway {
    pub address: String,
    /// 1 to 2000.
    pub bps: u16,
}

#[cw_serde]
pub struct Settlement {
    pub item: ItemId,
    pub units: Units,
    pub spans: Vec<SettledSpan>,
}

#[cw_serde]
pub struct SettledSpan {
    pub provider: String,
    pub deployment: u64,
    pub compute_share_bps: u16,
    pub ask: Ask,
}

/// Why money came to an account. Reads and sorts as its text.
#[cw_serde]
#[derive(Copy, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// From outside.
    Deposit,
    /// For stages computed.
    Compute,
    /// By a model's payout rule.
    Royalty,
    /// To a parent model, from a child's royalty.
    Lineage,
    /// For work that a gateway brought.
    Gateway,
    /// The protocol's part.
    Protocol,
    /// A culprit's bond, to the developer.
    Penalty,
    /// A part of that, to whoever has expired the item.
    Keeper,
    /// For a slot kept for a session.
    Reservation,
    /// For the gas of answering a forced request.
    Answer,
}

impl Reason {
    pub const ALL: [Self; 10] = [
        Self::Deposit,
        Self::Compute,
        Self::Royalty,
        Self::Lineage,
        Self::Gateway,
        Self::Protocol,
        Self::Penalty,
        Self::Keeper,
        Self::Reservation,
        Self::Answer,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Deposit => "deposit",
            Self::Compute => "compute",
            Self::Royalty => "royalty",
            Self::Lineage => "lineage",
            Self::Gateway => "gateway",
            Self::Protocol => "protocol",
            Self::Penalty => "penalty",
            Self::Keeper => "keeper",
            Self::Reservation => "reservation",
            Self::Answer => "answer",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Reason {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|reason| reason.as_str() == text)
            .ok_or_else(|| format!("no reason {text:?}"))
    }
}

/// Whose money: an account of the chain, or a model that earns as a parent. Reads `wasm1...` or `model:namespace/name`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Holder {
    Address(String),
    Model(ModelId),
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => f.write_str(address),
            Self::Model(model) => write!(f, "model:{model}"),
        }
    }
}

impl FromStr for Holder {
    type Err = crate::id::IdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.strip_prefix("model:") {
            Some(model) => Ok(Self::Model(model.parse()?)),
            None => Ok(Self::Address(text.to_owned())),
        }
    }
}

#[cw_serde]
#[derive(QueryResponses)]
pub enum QueryMsg {
    #[returns(ConfigResponse)]
    Config {},
    /// Where is my money: `holder` is an address or `model:namespace/name`. Holds by job, sessions by number; `limit` has default 10
    /// and maximum 30, here and below, and maximum 10 for sessions.
    #[returns(MoneyResponse)]
    Money {
        holder: String,
        /// Holds of jobs after this one.
        start_after: Option<u64>,
        /// Sessions after this one.
        sessions_after: Option<u64>,
        limit: Option<u32>,
    },
    /// Everything ever credited to a holder, by reason.
    #[returns(EarningsResponse)]
    Earnings { holder: String },
    #[returns(HoldResponse)]
    Hold { job: u64 },
    /// A session that has not ended. What has ended is forgotten: its events tell.
    #[returns(SessionResponse)]
    Session { session: u64 },
    /// Open sessions of an account, by number.
    #[returns(SessionsResponse)]
    Sessions {
        account: String,
        start_after: Option<u64>,
        limit: Option<u32>,
    },
    /// Sessions that have an allocation to a deployment which is not closed, by number.
    #[returns(SessionsResponse)]
    SessionsOf {
        deployment: u64,
        start_after: Option<u64>,
        limit: Option<u32>,
    },
    /// All holders with what they have, by text.
    #[returns(LedgerResponse)]
    Ledger {
        start_after: Option<String>,
        limit: Option<u32>,
    },
    /// Sums of the whole ledger.
    #[returns(TotalsResponse)]
    Totals {},
}

#[cw_serde]
pub struct ConfigResponse {
    pub admin: AdminResponse,
    pub func_token: String,
    pub model_registry: String,
    pub treasury: String,
    pub job_orchestrator: Option<String>,
    pub provider_staking: Option<String>,
    pub params: EscrowParams,
}

#[cw_serde]
pub struct MoneyResponse {
    pub available: Uint128,
    /// Sum of all holds and of what sessions hold, also of those that this page does not list.
    pub held: Uint128,
    pub holds: Vec<HoldResponse>,
    /// Each holds, for every allocation that is not closed, `reservation + amount - paid`.
    pub sessions: Vec<SessionResponse>,
}

#[cw_serde]
pub struct HoldResponse {
    pub job: u64,
    pub account: String,
    /// Not yet paid or released.
    pub amount: Uint128,
    pub terms: WorkTerms,
    pub fees: FeeBps,
    /// Block time in seconds after which anyone may release it.
    pub expires_at: u64,
}

#[cw_serde]
pub struct EarningsResponse {
    /// Reasons without any credit are left out.
    pub credits: Vec<Credit>,
}

#[cw_serde]
pub struct Credit {
    pub reason: Reason,
    pub amount: Uint128,
}

#[cw_serde]
pub struct LedgerResponse {
    pub entries: Vec<LedgerEntry>,
}

#[cw_serde]
pub struct LedgerEntry {
    pub holder: String,
    pub available: Uint128,
    pub held: Uint128,
}

#[cw_serde]
pub struct TotalsResponse {
    pub available: Uint128,
    pub held: Uint128,
}
