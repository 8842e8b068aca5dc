//! Why a client does not get what it asked for, in the words of the lane.

use lane::{
    acceptor::{RequestError, VoucherError},
    proto::{to_client::Content, Code, Refused},
};

use crate::refusal::Refusal;

/// Characters of a reason.
const REASON_MAX: usize = 300;

/// What a client is told instead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Denied {
    pub(crate) code: Code,
    pub(crate) reason: String,
    pub(crate) retry_after_ms: u32,
}

impl Denied {
    pub(crate) fn new(code: Code, reason: impl ToString) -> Self {
        Self {
            code,
            reason: reason.to_string(),
            retry_after_ms: 0,
        }
    }

    pub(crate) fn invalid(reason: impl ToString) -> Self {
        Self::new(Code::Invalid, reason)
    }

    pub(crate) fn session(reason: impl ToString) -> Self {
        Self::new(Code::Session, reason)
    }

    pub(crate) fn failed(reason: impl ToString) -> Self {
        Self::new(Code::Failed, reason)
    }

    pub(crate) fn told(self, number: Option<u64>) -> Content {
        Content::Refused(Refused {
            number,
            code: self.code.into(),
            reason: self.reason.chars().take(REASON_MAX).collect(),
            retry_after_ms: self.retry_after_ms,
        })
    }
}

impl From<RequestError> for Denied {
    fn from(error: RequestError) -> Self {
        let code = match error {
            RequestError::Credit { .. } => Code::Credit,
            // Money helps.
            RequestError::Allocation { .. } => Code::Credit,
            _ => Code::Invalid,
        };
        Self::new(code, error)
    }
}

impl From<VoucherError> for Denied {
    fn from(error: VoucherError) -> Self {
        Self::new(Code::Voucher, error)
    }
}

impl From<Refusal> for Denied {
    fn from(refusal: Refusal) -> Self {
        let seconds = refusal.retry_after_seconds().unwrap_or(0);
        let code = match &refusal {
            refusal if refusal.is_overload() => Code::Overloaded,
            Refusal::TooLarge { .. }
            | Refusal::Malformed { .. }
            | Refusal::Row { .. }
            | Refusal::RowCount { .. }
            | Refusal::RowBytes { .. }
            | Refusal::RowDigest { .. }
            | Refusal::Units { .. } => Code::Invalid,
            Refusal::Late { .. } => Code::Late,
            _ => Code::Failed,
        };
        Self {
            code,
            reason: refusal.to_string(),
            retry_after_ms: u32::try_from(seconds.saturating_mul(1000)).unwrap_or(u32::MAX),
        }
    }
}
