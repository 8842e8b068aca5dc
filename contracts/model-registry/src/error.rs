use cosmwasm_std::{StdError, Uint128};
use cw_utils::PaymentError;
use governed::GovernedError;
use schema::{id::IdError, text::TextError, ModelId, Namespace};
use thiserror::Error;

#[derive(Debug, PartialEq, Error)]
pub enum ContractError {
    // Who.
    #[error("the siblings are wired already")]
    AlreadyWired,
    #[error("{sender} is not the FUNC token")]
    NotFunc { sender: String },
    #[error("{sender} is not the royalty escrow")]
    NotEscrow { sender: String },
    #[error("{sender} does not own the namespace {namespace}")]
    NotNamespaceOwner { namespace: Namespace, sender: String },
    #[error("{sender} does not own {model}")]
    NotOwner { model: ModelId, sender: String },
    #[error("{model} was not offered to {sender}")]
    NotProposedOwner { model: ModelId, sender: String },

    // What.
    #[error("namespace {namespace} belongs to {owner}")]
    NamespaceTaken { namespace: Namespace, owner: String },
    #[error("a namespace costs {required} ufunc, {sent} was sent")]
    WrongFee { required: Uint128, sent: Uint128 },
    #[error("parameter {name} is {value}, at most {max} is allowed")]
    ParamOutOfBounds { name: String, value: Uint128, max: Uint128 },
    #[error("{model} exists already")]
    ModelExists { model: ModelId },
    #[error("there is no model {model}")]
    UnknownModel { model: ModelId },
    #[error("{model} is retired for ever")]
    ModelRetired { model: ModelId },
    #[error("{model} is paused")]
    ModelPaused { model: ModelId },
    #[error("{model} has no version {version}")]
    UnknownVersion { model: ModelId, version: u32 },
    #[error("version {version} of {model} is retired")]
    VersionRetired { model: ModelId, version: u32 },
    #[error("{model} has no version for new work")]
    NoVersion { model: ModelId },
    #[error("versions are counted in 32 bits, and all are used")]
    TooManyVersions,
    #[error("{model} has no endpoint {endpoint}")]
    UnknownEndpoint { model: ModelId, endpoint: String },

    // How much and how many.
    #[error("{found} {field}, {min} to {max} are allowed")]
    WrongCount {
        field: String,
        found: usize,
        min: usize,
        max: usize,
    },
    #[error("{value} is twice among the {field}")]
    Duplicate { field: String, value: String },
    #[error("each of the {field} has at least 1 bps")]
    ZeroShare { field: String },
    #[error("{field} sum to {sum} bps, not 10000")]
    WrongSum { field: String, sum: u32 },
    #[error("parents take {sum} bps, at most 10000 are there")]
    ParentsTakeTooMuch { sum: u32 },
    #[error("tolerance is above 0 and at most {max}, found {found}")]
    WrongTolerance { found: String, max: String },
    #[error("a request has 1 to {max} units at most, found {found}")]
    WrongUnitsMax { found: u64, max: u64 },
    #[error("royalty of {royalty_bps} bps and {royalty_per_1k_units} ufunc for 1000 units is out of bounds")]
    RoyaltyTooHigh {
        royalty_bps: u16,
        royalty_per_1k_units: Uint128,
    },

    #[error(transparent)]
    Id(#[from] IdError),
    #[error(transparent)]
    Text(#[from] TextError),
    #[error(transparent)]
    Payment(#[from] PaymentError),
    #[error(transparent)]
    Governed(#[from] GovernedError),
    #[error(transparent)]
    Std(#[from] StdError),
}
