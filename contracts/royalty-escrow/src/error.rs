use cosmwasm_std::{OverflowError, StdError, Uint128};
use governed::GovernedError;
use schema::{id::IdError, price::PriceOverflow, ModelId};
use thiserror::Error;

#[derive(Debug, PartialEq, Error)]
pub enum ContractError {
    #[error(transparent)]
    Governed(#[from] GovernedError),
    #[error(transparent)]
    Std(#[from] StdError),
    #[error(transparent)]
    Overflow(#[from] OverflowError),
    #[error(transparent)]
    Price(#[from] PriceOverflow),
    #[error(transparent)]
    Id(#[from] IdError),

    #[error("no native coins are taken, found {kinds} kinds of them")]
    FundsAttached { kinds: usize },
    #[error("{sender} is not the {sibling}")]
    NotSibling { sender: String, sibling: String },
    #[error("the siblings are known already")]
    AlreadyWired,
    #[error("only {func_token} is FUNC, found {token}")]
    WrongToken { token: String, func_token: String },
    #[error("the amount is zero")]
    ZeroAmount,
    #[error("{available} ufunc are available, {required} are required")]
    InsufficientFunds { available: Uint128, required: Uint128 },

    #[error("job {job} has a hold already")]
    HoldExists { job: u64 },
    #[error("job {job} has no hold")]
    NoHold { job: u64 },
    #[error("a hold ends at {latest} at the latest and after {now}, found {expires_at}")]
    HoldDate { expires_at: u64, now: u64, latest: u64 },
    #[error("the hold of job {job} ends after {expires_at}, now it is {now}")]
    HoldNotExpired { job: u64, expires_at: u64, now: u64 },
    #[error("{held} ufunc are held, {required} are required")]
    HoldExceeded { held: Uint128, required: Uint128 },
    #[error("the royalty is out of bounds: {royalty_bps} bps and {royalty_per_1k_units} ufunc for 1000 units")]
    RoyaltyOutOfBounds {
        royalty_bps: u16,
        royalty_per_1k_units: Uint128,
    },
    #[error("a gateway takes 1 to {max} bps, found {bps}")]
    GatewayOutOfBounds { bps: u16, max: u16 },
    #[error("1 to {max} settlements in one message, found {count}")]
    SettlementCount { count: usize, max: usize },

    #[error("the siblings are not known yet")]
    NotWired,
    #[error("nothing is offered at endpoint {endpoint:?} of {model}: {reason}")]
    NoOffer {
        model: ModelId,
        endpoint: String,
        reason: String,
    },
    #[error("a deployment cannot join: {reason}")]
    NoDeployment { reason: String },
    #[error("a session has 1 to {max} allocations, found {count}")]
    AllocationCount { count: usize, max: usize },
    #[error("deployment {deployment} is named twice")]
    DuplicateDeployment { deployment: u64 },
    #[error("deployment {deployment} serves version {version} of {model}")]
    OtherVersionServed {
        deployment: u64,
        model: ModelId,
        version: u32,
    },
    #[error("{amount} ufunc for deployment {deployment}, at least {least} are needed")]
    AllocationTooSmall {
        deployment: u64,
        amount: Uint128,
        least: Uint128,
    },
    #[error("{unsettled} ufunc would be unsettled with deployment {deployment}, its slot is backed by {slot_bond}")]
    AboveSlotBond {
        deployment: u64,
        unsettled: Uint128,
        slot_bond: Uint128,
    },
    #[error("a session expires at {latest} at the latest and after {now}, found {expires_at}")]
    SessionDate { expires_at: u64, now: u64, latest: u64 },
    #[error("a compressed secp256k1 key starts with 02 or 03, found {found:02x}")]
    WrongSessionKey { found: u8 },
    #[error("there is no session {session}")]
    NoSession { session: u64 },
    #[error("session {session} has no allocation to deployment {deployment}")]
    NoAllocation { session: u64, deployment: u64 },
    #[error("session {session} does not belong to {sender}")]
    NotSessionOwner { session: u64, sender: String },
    #[error("{sender} is neither the provider of deployment {deployment} nor its operator")]
    NotProvider { sender: String, deployment: u64 },
    #[error("session {session} expired at {expires_at}, now it is {now}")]
    SessionExpired { session: u64, expires_at: u64, now: u64 },
    #[error("the allocation of session {session} to deployment {deployment} is closed")]
    AllocationIsClosed { session: u64, deployment: u64 },
    #[error("the allocation of session {session} to deployment {deployment} closes at {closes_at}")]
    AllocationIsClosing {
        session: u64,
        deployment: u64,
        closes_at: u64,
    },
    #[error("every allocation of session {session} is closing or closed already")]
    NothingToClose { session: u64 },
    #[error("at most {max} consents, found {count}")]
    ConsentCount { count: usize, max: usize },
    #[error("the host of deployment {deployment} has not signed that it claims nothing after voucher {sequence}")]
    NoConsent { deployment: u64, sequence: u64 },
    #[error("nothing of session {session} is due before {next} has passed, now it is {now}")]
    NothingDue { session: u64, next: u64, now: u64 },
    #[error("deployment {deployment} was asked on chain and cannot be closed in session {session} before it has answered, or {until}")]
    Asked { session: u64, deployment: u64, until: u64 },
    #[error("job {job} of session {session} is waited for until {until}: one request is forced at a time")]
    AlreadyForced { session: u64, job: u64, until: u64 },
    #[error("only text for the endpoint embeddings can be forced, this session is for {endpoint:?}")]
    NotForcible { endpoint: String },
    #[error("1 to {max} vouchers in one message, found {count}")]
    VoucherCount { count: usize, max: usize },

    #[error("nothing has accrued to model {model}")]
    NothingAccrued { model: ModelId },
    #[error("there is no payout rule of model {model}")]
    NoPayoutRule { model: ModelId },
    #[error("model {model} has no recipients")]
    NoRecipients { model: ModelId },

    #[error("protocol, audit and burn parts are {sum} bps together, at most {max} are allowed")]
    FeesTooHigh { sum: u32, max: u16 },
    #[error("there is no audit to pay for yet, found {audit_bps} bps")]
    AuditNotOpen { audit_bps: u16 },
    #[error("{field} is {found}, 1 to {max} are allowed")]
    OutOfBounds { field: String, found: u128, max: u128 },
    #[error("money is held 1 to {max} seconds, found {seconds}")]
    HoldSecondsOutOfBounds { seconds: u64, max: u64 },
}
