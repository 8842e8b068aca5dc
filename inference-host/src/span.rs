//! Receives boundaries from the host of the span before.
//!
//! Guarantees: nothing but a header is read from a stranger, and strangers cannot keep honest senders out by opening pushes and saying
//! nothing; rows are read only after the header's receipts proved that the sender is the one the chain assigned; no frame, list or push is larger than its limit; a peer that says nothing is cut off; the acknowledgement
//! is sent only after the rows are safe on disk, and is the same for whoever pushes the same rows again.

use std::{sync::Arc, time::Duration};

use prost::bytes::Bytes;
use schema::{
    receipt::{Link, SignedAcknowledgement},
    ItemId, STAGES_MAX,
};
use tokio::sync::Semaphore;
use tonic::{Request, Response, Status, Streaming};

use crate::{
    host::{Expected, Host},
    metrics::Reason,
    proto::{frame::Content, span_server::Span, Acknowledged, Frame, Header},
    refusal::Refusal,
    work::WorkKey,
};

/// Largest list of links: 32 of about 1.5 KB.
const LINKS_BYTES_MAX: usize = 128 << 10;
/// A header follows right after the request; whoever opens a push and says nothing is cut off long before one that sends rows slowly.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
/// Strangers who are being listened to, for every push that may be received. Their frames are in memory before they have proven anything.
const HEADERS_PER_PUSH: usize = 4;

/// A header that was understood.
#[derive(Debug)]
pub(crate) struct Pushed {
    pub(crate) key: WorkKey,
    pub(crate) rows: u32,
    pub(crate) bytes: u64,
    /// At least one.
    pub(crate) links: Vec<Link>,
}

impl Pushed {
    /// Reads a header. Every number is a stranger's word.
    pub(crate) fn parse(header: &Header) -> Result<Self, Refusal> {
        let malformed = |what: &str| Refusal::Malformed {
            reason: what.to_owned(),
        };
        let key = WorkKey {
            item: ItemId {
                job: header.job,
                shard: u16::try_from(header.shard).map_err(|_| malformed("its shard is no 16-bit number"))?,
                replica: u8::try_from(header.replica).map_err(|_| malformed("its replica is no 8-bit number"))?,
            },
            attempt: u8::try_from(header.attempt).map_err(|_| malformed("its attempt is no 8-bit number"))?,
            span: u8::try_from(header.span).map_err(|_| malformed("its span is no 8-bit number"))?,
        };
        if header.links.len() > LINKS_BYTES_MAX {
            let found = header.links.len();
            return Err(malformed(&format!(
                "its links have {found} bytes, at most {LINKS_BYTES_MAX} are allowed"
            )));
        }
        let links: Vec<Link> =
            serde_json::from_slice(&header.links).map_err(|error| malformed(&format!("its links: {error}")))?;
        if links.is_empty() || links.len() > STAGES_MAX {
            return Err(malformed(&format!(
                "it has {} links, 1 to {STAGES_MAX} are allowed",
                links.len()
            )));
        }
        Ok(Self {
            key,
            rows: header.rows,
            bytes: header.bytes,
            links,
        })
    }
}

/// The push service.
#[derive(Debug)]
pub(crate) struct SpanService {
    host: Arc<Host>,
    /// Headers that are being read and judged.
    headers: Semaphore,
    headers_max: usize,
}

impl SpanService {
    pub(crate) fn new(host: Arc<Host>) -> Self {
        let headers_max = host.config.pushes_max.saturating_mul(HEADERS_PER_PUSH);
        Self {
            host,
            headers: Semaphore::new(headers_max),
            headers_max,
        }
    }

    /// Reads and judges the header. Only whoever has proven to be the assigned sender gets one of the places for receiving rows.
    async fn receive_header(&self, frames: &mut Streaming<Frame>) -> Result<Expected, Failure> {
        let max = self.headers_max;
        let _permit = self.headers.try_acquire().map_err(|_| Refusal::Headers { max })?;
        let patience = HEADER_TIMEOUT.min(self.host.config.io_timeout());
        let header = match self.next(frames, patience).await? {
            Some(Content::Header(header)) => header,
            _ => return Err(malformed("it does not begin with a header").into()),
        };
        Ok(self.host.expect(Pushed::parse(&header)?).await?)
    }

    async fn receive(&self, mut frames: Streaming<Frame>) -> Result<SignedAcknowledgement, Failure> {
        let wanted = match self.receive_header(&mut frames).await? {
            Expected::Acknowledged(acknowledgement) => return Ok(*acknowledgement),
            Expected::Wanted(wanted) => wanted,
        };
        let max = self.host.config.pushes_max;
        let _permit = self.host.pushes.try_acquire().map_err(|_| Refusal::Pushes { max })?;
        let rows = self.read_rows(&mut frames, wanted.pushed.rows, wanted.pushed.bytes);
        let in_time = tokio::time::timeout_at(wanted.deadline, rows).await;
        let rows = in_time.map_err(|_| Refusal::Stalled {
            seconds: self.host.config.io_timeout_seconds,
        })??;
        // On a task of its own: a sender that hangs up now must not leave accepted rows without somebody who computes them.
        let taken = self.host.tasks.spawn(Arc::clone(&self.host).take(*wanted, rows));
        Ok(taken.await.map_err(|_| Refusal::Stopping)??)
    }

    async fn read_rows(&self, frames: &mut Streaming<Frame>, rows: u32, bytes: u64) -> Result<Vec<Bytes>, Failure> {
        let (mut read, mut length) = (Vec::new(), 0_u64);
        while let Some(content) = self.next(frames, self.host.config.io_timeout()).await? {
            let Content::Row(row) = content else {
                return Err(malformed("it has two headers").into());
            };
            length = length.saturating_add(u64::try_from(row.len()).unwrap_or(u64::MAX));
            if length > bytes {
                let (found, expected) = (length, bytes);
                return Err(Refusal::RowBytes { found, expected }.into());
            }
            read.push(row);
            if read.len() > usize::try_from(rows).unwrap_or(usize::MAX) {
                break;
            }
        }
        let found = u64::try_from(read.len()).unwrap_or(u64::MAX);
        if found != u64::from(rows) {
            let expected = u64::from(rows);
            return Err(Refusal::RowCount { found, expected }.into());
        }
        match length == bytes {
            true => Ok(read),
            false => Err(Refusal::RowBytes {
                found: length,
                expected: bytes,
            }
            .into()),
        }
    }

    async fn next(&self, frames: &mut Streaming<Frame>, patience: Duration) -> Result<Option<Content>, Failure> {
        let seconds = patience.as_secs();
        let frame = tokio::time::timeout(patience, frames.message()).await;
        match frame.map_err(|_| Refusal::Stalled { seconds })?? {
            Some(frame) => frame
                .content
                .map(Some)
                .ok_or_else(|| malformed("a frame is empty").into()),
            None => Ok(None),
        }
    }
}

fn malformed(reason: &str) -> Refusal {
    Refusal::Malformed {
        reason: reason.to_owned(),
    }
}

/// Our refusal, or what the transport says about the peer's frames.
#[derive(Debug)]
enum Failure {
    Refused(Refusal),
    Transport(Box<Status>),
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        Self::Transport(Box::new(status))
    }
}

#[tonic::async_trait]
impl Span for SpanService {
    async fn push(&self, request: Request<Streaming<Frame>>) -> Result<Response<Acknowledged>, Status> {
        let failure = match self.receive(request.into_inner()).await {
            Ok(signed) => {
                let acknowledgement =
                    serde_json::to_vec(&signed).map_err(|error| Status::internal(error.to_string()))?;
                return Ok(Response::new(Acknowledged { acknowledgement }));
            }
            Err(failure) => failure,
        };
        self.host.metrics.pushes_refused(1);
        let status = match failure {
            Failure::Refused(refusal) => {
                self.host.count_refusal(&refusal);
                Status::from(refusal)
            }
            Failure::Transport(status) => {
                self.host.metrics.refused(Reason::Transport);
                *status
            }
        };
        tracing::debug!(code = ?status.code(), reason = status.message(), "a push is refused");
        Err(status)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use prost::Message;

    use super::*;

    proptest! {
        #[test]
        fn arbitrary_bytes_are_no_frame_or_a_refused_header_and_never_a_panic(
            bytes in prop::collection::vec(any::<u8>(), 0..300),
        ) {
            if let Ok(Frame { content: Some(Content::Header(header)) }) = Frame::decode(bytes.as_slice()) {
                prop_assert!(Pushed::parse(&header).is_err(), "no signature, no links, no push");
            }
        }

        #[test]
        fn arbitrary_numbers_and_links_are_refused(
            job in any::<u64>(), small in prop::array::uniform5(any::<u32>()), bytes in any::<u64>(), links in "\\PC{0,60}",
        ) {
            let [shard, replica, attempt, span, rows] = small;
            let header = Header { job, shard, replica, attempt, span, rows, bytes, links: links.into_bytes() };
            prop_assert!(Pushed::parse(&header).is_err());
        }
    }

    #[test]
    fn too_many_links_are_refused_before_they_are_read() {
        let header = Header {
            links: vec![b' '; LINKS_BYTES_MAX + 1],
            ..Header::default()
        };
        let refusal = Pushed::parse(&header).unwrap_err().to_string();
        assert!(refusal.contains("131073 bytes, at most 131072"), "{refusal}");
    }
}
