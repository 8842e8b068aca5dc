//! Why a host does not take a piece of work: one list for the relayer's interface and for pushes, so that both say the same.

use axum::http::StatusCode;
use schema::{Digest, ItemId, PublicKey};
use tonic::{Code, Status};

use crate::{
    chain::ChainError, clock::ClockError, journal::JournalError, links::LinkError, metrics::Reason, model::NotServing,
    queue::Overloaded, work::WorkFull,
};

/// Remembered work gives way when evidence windows end, which takes minutes.
const RETRY_WORK_SECONDS: u64 = 10;
/// What an operator or a download has to mend.
const RETRY_TROUBLE_SECONDS: u64 = 2;

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
    #[error("{found} {what} came at once, and this host never takes more than {max}: {limit} of its configuration")]
    TooLarge {
        what: &'static str,
        found: u64,
        max: u64,
        limit: &'static str,
    },
    #[error(transparent)]
    Queue(Overloaded),
    #[error(transparent)]
    Work(#[from] WorkFull),
    #[error("{bytes} bytes of rows came, {free} of {max} are free")]
    Memory { bytes: u64, free: u64, max: u64 },
    #[error("deployment {deployment} waits for memory of its device")]
    DeviceMemory { deployment: u64 },
    #[error("{max} pushes are being received already")]
    Pushes { max: usize },
    #[error(transparent)]
    Journal(#[from] JournalError),
    #[error(transparent)]
    Clock(#[from] ClockError),
    #[error("{max} pieces of work are being begun already")]
    Begins { max: usize },
    #[error("{max} headers of pushes are being read already")]
    Headers { max: usize },
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

    /// Refuses what would not fit into an empty host either: to come back later is of no use.
    pub(crate) fn check_size(what: &'static str, found: u64, max: u64, limit: &'static str) -> Result<(), Self> {
        let refuse = || Self::TooLarge {
            what,
            found,
            max,
            limit,
        };
        (found <= max).then_some(()).ok_or_else(refuse)
    }

    /// Whether there is only too much of it: the same is taken a moment later.
    pub(crate) fn is_overload(&self) -> bool {
        matches!(
            self,
            Self::Queue(_)
                | Self::Work(_)
                | Self::Memory { .. }
                | Self::DeviceMemory { .. }
                | Self::Pushes { .. }
                | Self::Begins { .. }
                | Self::Headers { .. }
        )
    }

    /// Whether asking again would not change what is wrong: it is in the rows themselves, or what was kept is lost.
    pub(crate) fn is_final(&self) -> bool {
        matches!(
            self,
            Self::TooLarge { .. } | Self::Journal(JournalError::Corrupt { .. })
        ) || self.http() == StatusCode::UNPROCESSABLE_ENTITY
    }

    /// When it is worth another try, where it is: the queue knows how fast it empties, work gives way when its window ends.
    pub(crate) fn retry_after_seconds(&self) -> Option<u64> {
        match self {
            Self::Queue(overloaded) => Some(overloaded.retry_after_seconds),
            Self::Work(_) => Some(RETRY_WORK_SECONDS),
            Self::Journal(_) | Self::Clock(_) | Self::NotServing(_) | Self::OtherManifest { .. } => {
                Some(RETRY_TROUBLE_SECONDS)
            }
            Self::NotYet { .. } | Self::ChainUnreachable(_) | Self::Unknown { .. } | Self::Stopping => Some(1),
            _ => self.is_overload().then_some(1),
        }
    }

    /// One word for the metrics.
    pub(crate) fn reason(&self) -> Reason {
        match self {
            Self::TooLarge { .. } => Reason::TooLarge,
            Self::Queue(_) => Reason::Queue,
            Self::Work(_) => Reason::Work,
            Self::Memory { .. } => Reason::Memory,
            Self::DeviceMemory { .. } => Reason::DeviceMemory,
            Self::Pushes { .. } | Self::Begins { .. } | Self::Headers { .. } => Reason::Busy,
            Self::Journal(_) => Reason::Disk,
            Self::Clock(_) => Reason::Clock,
            Self::NotServing(_) | Self::OtherManifest { .. } | Self::Stopping => Reason::NotServing,
            Self::NotAssigned { .. }
            | Self::NotOurSpan { .. }
            | Self::HostKey { .. }
            | Self::Past { .. }
            | Self::NotYet { .. }
            | Self::Ended { .. }
            | Self::Unknown { .. } => Reason::Assignment,
            Self::ChainUnreachable(_) => Reason::Chain,
            Self::Late { .. } => Reason::Late,
            Self::Stalled { .. } => Reason::Stalled,
            Self::Links(_) | Self::Conflict { .. } => Reason::Proof,
            Self::Address { .. }
            | Self::NotBegun { .. }
            | Self::Malformed { .. }
            | Self::RowCount { .. }
            | Self::RowBytes { .. }
            | Self::RowDigest { .. }
            | Self::Row { .. }
            | Self::Units { .. } => Reason::Malformed,
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
            Self::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Past { .. } | Self::Ended { .. } | Self::Late { .. } => StatusCode::CONFLICT,
            _ if self.is_overload() => StatusCode::TOO_MANY_REQUESTS,
            Self::NotYet { .. }
            | Self::ChainUnreachable(_)
            | Self::NotServing(_)
            | Self::Journal(_)
            | Self::Clock(_)
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
            | Self::Clock(_)
            | Self::Stopping => Code::Unavailable,
            Self::Queue(_)
            | Self::Work(_)
            | Self::Memory { .. }
            | Self::DeviceMemory { .. }
            | Self::Pushes { .. }
            | Self::Begins { .. }
            | Self::Headers { .. } => Code::ResourceExhausted,
            Self::TooLarge { .. } => Code::OutOfRange,
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

/// Metadata of a refused push, and header of a refused request: whole seconds.
pub(crate) const RETRY_AFTER: &str = "retry-after";

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        let mut status = Status::new(refusal.code(), refusal.to_string());
        if let Some(seconds) = refusal.retry_after_seconds() {
            status.metadata_mut().insert(RETRY_AFTER, seconds.into());
        }
        status
    }
}

impl From<Overloaded> for Refusal {
    fn from(overloaded: Overloaded) -> Self {
        let count = |rows: usize| u64::try_from(rows).unwrap_or(u64::MAX);
        let (rows, rows_max) = (count(overloaded.rows), count(overloaded.rows_max));
        match Self::check_size("rows", rows, rows_max, "queue_rows_max") {
            Err(refusal) => refusal,
            Ok(()) => Self::Queue(overloaded),
        }
    }
}
