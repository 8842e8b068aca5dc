//! Why a host does not take a piece of work: one list for the relayer's interface and for pushes, so that both say the same.

use axum::http::StatusCode;
use schema::{Digest, ItemId, PublicKey};
use tonic::{Code, Status};

use crate::{
    chain::ChainError, journal::JournalError, links::LinkError, model::NotServing, queue::Overloaded, work::WorkFull,
};

/// A piece of work that is not taken, with the facts.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    // What the chain says.
    #[error("item {item} is not assigned to provider {provider}")]
    NotAssigned { item: ItemId, provider: String },
    #[error("span {span} of item {item} is not assigned to provider {provider}")]
    NotOurSpan {
        item: ItemId,
        span: usize,
        provider: String,
    },
    #[error(
        "deployment {deployment} was assigned with host key {registered}, this host signs with {ours}: \
         register this key or start the host with the other one"
    )]
    HostKey {
        deployment: u64,
        registered: PublicKey,
        ours: PublicKey,
    },
    #[error("attempt {asked} at item {item} is past: the chain is at attempt {current}")]
    Past { item: ItemId, asked: u8, current: u8 },
    #[error("attempt {asked} at item {item} is not known yet: the chain is at attempt {current}")]
    NotYet { item: ItemId, asked: u8, current: u8 },
    #[error("attempt {attempt} at item {item} has ended")]
    Ended { item: ItemId, attempt: u8 },
    #[error("the deadline of item {item} was {deadline}, now it is {now}")]
    Late { item: ItemId, deadline: u64, now: u64 },
    #[error("the job wants manifest {job}, deployment {deployment} serves {served}")]
    OtherManifest {
        deployment: u64,
        job: Digest,
        served: Digest,
    },
    #[error("item {item} is not known: {source}")]
    Unknown { item: ItemId, source: ChainError },
    #[error("{0}")]
    ChainUnreachable(ChainError),

    // What this host can do now.
    #[error(transparent)]
    NotServing(#[from] NotServing),
    #[error(transparent)]
    Queue(#[from] Overloaded),
    #[error(transparent)]
    Work(#[from] WorkFull),
    #[error("{bytes} bytes of rows came, {free} of {max} are free")]
    Memory { bytes: u64, free: u64, max: u64 },
    #[error("{max} pushes are being received already")]
    Pushes { max: usize },
    #[error(transparent)]
    Journal(#[from] JournalError),
    #[error("the host is stopping")]
    Stopping,

    // What came in.
    #[error("{reason}")]
    Address { reason: String },
    #[error("attempt {attempt} at item {item} was not begun here")]
    NotBegun { item: ItemId, attempt: u8 },
    #[error("the push is malformed: {reason}")]
    Malformed { reason: String },
    #[error(transparent)]
    Links(#[from] LinkError),
    #[error("{found} rows came, {expected} expected")]
    RowCount { found: u64, expected: u64 },
    #[error("the rows have {found} bytes, {expected} were announced")]
    RowBytes { found: u64, expected: u64 },
    #[error("the rows have the root {found}, the receipt says {expected}")]
    RowDigest { found: Digest, expected: Digest },
    #[error("row {row} is not what the stage receives: {reason}")]
    Row { row: usize, reason: String },
    #[error("the rows have {found} positions, the receipt says {expected} units")]
    Units { found: u64, expected: u64 },
    #[error("other rows were acknowledged for span {span} of item {item} already")]
    Conflict { item: ItemId, span: usize },
    #[error("no bytes came for {seconds} s")]
    Stalled { seconds: u64 },
}

impl Refusal {
    pub(crate) fn chain(item: ItemId, error: ChainError) -> Self {
        match error {
            ChainError::Unreachable { .. } => Self::ChainUnreachable(error),
            ChainError::Refused { .. } => Self::Unknown { item, source: error },
        }
    }

    /// For the relayer.
    pub(crate) fn http(&self) -> StatusCode {
        match self {
            Self::NotAssigned { .. }
            | Self::NotOurSpan { .. }
            | Self::HostKey { .. }
            | Self::Unknown { .. }
            | Self::NotBegun { .. } => StatusCode::NOT_FOUND,
            Self::Address { .. } => StatusCode::BAD_REQUEST,
            Self::Past { .. } | Self::Ended { .. } | Self::Late { .. } => StatusCode::CONFLICT,
            Self::Queue(_) | Self::Work(_) | Self::Memory { .. } | Self::Pushes { .. } => StatusCode::TOO_MANY_REQUESTS,
            Self::NotYet { .. }
            | Self::ChainUnreachable(_)
            | Self::NotServing(_)
            | Self::Journal(_)
            | Self::Stopping
            | Self::OtherManifest { .. } => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::UNPROCESSABLE_ENTITY,
        }
    }

    fn code(&self) -> Code {
        match self {
            // The sender tries these again until the deadline.
            Self::Unknown { .. }
            | Self::NotYet { .. }
            | Self::ChainUnreachable(_)
            | Self::NotServing(_)
            | Self::Journal(_)
            | Self::Stopping => Code::Unavailable,
            Self::Queue(_) | Self::Work(_) | Self::Memory { .. } | Self::Pushes { .. } => Code::ResourceExhausted,
            Self::NotAssigned { .. } | Self::NotOurSpan { .. } | Self::Links(_) => Code::PermissionDenied,
            Self::HostKey { .. } | Self::OtherManifest { .. } => Code::FailedPrecondition,
            Self::Past { .. } | Self::Ended { .. } | Self::Conflict { .. } => Code::Aborted,
            Self::Late { .. } | Self::Stalled { .. } => Code::DeadlineExceeded,
            Self::Malformed { .. }
            | Self::Address { .. }
            | Self::NotBegun { .. }
            | Self::RowCount { .. }
            | Self::RowBytes { .. }
            | Self::RowDigest { .. }
            | Self::Row { .. }
            | Self::Units { .. } => Code::InvalidArgument,
        }
    }
}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        Status::new(refusal.code(), refusal.to_string())
    }
}
