use cosmwasm_std::{StdError, Uint128};
use cw_utils::PaymentError;
use governed::GovernedError;
use schema::{text::TextError, ModelId};
use thiserror::Error;

use crate::draw::DrawError;

#[derive(Debug, PartialEq, Error)]
pub enum ContractError {
    // Who.
    #[error("the siblings are wired already")]
    AlreadyWired,
    #[error("{sender} is not the FUNC token")]
    NotFunc { sender: String },
    #[error("{sender} is not the job orchestrator")]
    NotOrchestrator { sender: String },
    #[error("{sender} is not the royalty escrow")]
    NotEscrow { sender: String },
    #[error("{account} is not a provider")]
    NotRegistered { account: String },
    #[error("{account} is a provider already")]
    AlreadyRegistered { account: String },
    #[error("deployment {deployment} does not belong to {sender}")]
    NotOwner { deployment: u64, sender: String },
    #[error("{sender} is neither {provider} nor its operator")]
    NotProvider { sender: String, provider: String },
    #[error("{sender} is neither the royalty escrow nor the job orchestrator")]
    NotSibling { sender: String },
    #[error("there is no deployment {deployment}")]
    UnknownDeployment { deployment: u64 },

    // A provider and its money.
    #[error("an endpoint is a http:// or https:// URL, found {found:?}")]
    WrongEndpoint { found: String },
    #[error("a compressed secp256k1 key starts with 02 or 03, found {found:02x}")]
    WrongHostKey { found: u8 },
    #[error("the amount is zero")]
    ZeroAmount,
    #[error("{requested} ufunc asked for, {free} are free of slots, settled work and reserve")]
    BondCommitted { free: Uint128, requested: Uint128 },
    #[error("at most {max} amounts may be unbonding at a time")]
    TooManyUnbonding { max: usize },
    #[error("nothing can be withdrawn, {}", upcoming(*next_release))]
    NothingToWithdraw { next_release: Option<u64> },

    #[error("the provider is not jailed")]
    NotJailed,
    #[error("jailed until {until}, it is {now}")]
    StillJailed { until: u64, now: u64 },

    // A deployment.
    #[error("a deployment costs {required} ufunc, {sent} was sent")]
    WrongFee { required: Uint128, sent: Uint128 },
    #[error("there is no version {version} of {model} to serve: {reason}")]
    NoVersion {
        model: ModelId,
        version: u32,
        reason: String,
    },
    #[error("version {version} of {model} is retired")]
    VersionRetired { model: ModelId, version: u32 },
    #[error("stages {first} to {last} of a version with {stages}")]
    WrongStages { first: u8, last: u8, stages: usize },
    #[error("a rate of the ask is above {max} ufunc")]
    AskTooHigh { max: Uint128 },
    #[error("{field} is {found}, {min} to {max} are allowed")]
    OutOfBounds {
        field: String,
        found: u128,
        min: u128,
        max: u128,
    },
    #[error("a provider has at most {max} deployments")]
    TooManyDeployments { max: usize },
    #[error("all slots together with the reserve need {required} ufunc of bond, {posted} are posted")]
    BondTooSmall { required: Uint128, posted: Uint128 },
    #[error("deployment {deployment} is draining")]
    Draining { deployment: u64 },
    #[error("at most {max} deployments at a time, found {count}")]
    TooManyNamed { count: usize, max: usize },
    #[error("deployment {deployment} is busy with {busy} items or sessions")]
    Busy { deployment: u64, busy: u16 },
    #[error("all {slots} slots of deployment {deployment} are busy")]
    NoFreeSlot { deployment: u64, slots: u16 },
    #[error("the provider of deployment {deployment} is jailed until {until}")]
    InJail { deployment: u64, until: u64 },
    #[error("with deployment {deployment} busy slots, settled work and reserve would need {required} ufunc, the bond is {bond}")]
    NoHeadroom {
        deployment: u64,
        required: Uint128,
        bond: Uint128,
    },

    #[error(transparent)]
    Draw(#[from] DrawError),
    #[error(transparent)]
    Text(#[from] TextError),
    #[error(transparent)]
    Payment(#[from] PaymentError),
    #[error("while new code is proposed, unbonding never takes longer: {from} seconds, found {to}")]
    UnbondingRaised { from: u64, to: u64 },

    #[error(transparent)]
    Governed(#[from] GovernedError),
    #[error(transparent)]
    Std(#[from] StdError),
}

fn upcoming(next_release: Option<u64>) -> String {
    next_release.map_or_else(
        || "nothing is unbonding".to_owned(),
        |at| format!("the next release is at {at}"),
    )
}
