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
    #[error("money is held 1 to {max} seconds, found {seconds}")]
    HoldSecondsOutOfBounds { seconds: u64, max: u64 },
}
