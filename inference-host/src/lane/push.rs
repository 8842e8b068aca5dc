//! Boundaries between the spans of a session: taken from the host before, handed to the host behind.
//!
//! Guarantees: rows are read only for a request that the client has announced here, from the deployment before ours in its chain, with a receipt
//! that the host key pinned for it has signed; each is taken once; a push that is early waits a moment in one of few places, and only after its
//! sender has proven who it is; only the endpoint that the chain names for the next deployment's provider is dialled.

#![allow(
    clippy::result_large_err,
    reason = "a gRPC status goes straight to whoever has called"
)]

use std::{sync::Arc, time::Duration};

use lane::proto::{boundary::Content, lane_client::LaneClient, Boundary, BoundaryHeader, Code};
use prost::bytes::Bytes;
use rand::Rng;
use schema::{
    escrow::AllocationResponse,
    merkle,
    session::{SessionReceipt, SignedSessionReceipt},
};
use tokio::time::Instant;
use tonic::{Code as Grpc, Status, Streaming};

use super::{
    request::{Asked, Rows, Task, FRAME_BYTES_MAX},
    Denied, Member,
};
use crate::{
    faults::{pass, Point},
    host::{count, decode, sent_bytes, Host},
    refusal::Refusal,
};

/// A header follows right after the request.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a push may be ahead of its announcement.
const EARLY: Duration = Duration::from_secs(1);
/// A receipt is less than a kilobyte of JSON.
const RECEIPT_BYTES_MAX: usize = 8 << 10;
/// First and longest pause before a push is tried again.
const PAUSE_FIRST: Duration = Duration::from_millis(20);
const PAUSE_LONGEST: Duration = Duration::from_millis(500);

/// A push that may send its rows.
struct Wanted {
    member: Arc<Member>,
    asked: Asked,
    receipt: SessionReceipt,
    bytes: u64,
}

/// Gives the announcement back to others unless the rows were right.
struct Claim<'a> {
    member: &'a Arc<Member>,
    number: u64,
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        if let Some(waiting) = self.member.lock().waiting.get_mut(&self.number) {
            waiting.is_claimed = false;
        }
    }
}

impl Host {
    pub(super) async fn receive_boundary(self: &Arc<Self>, mut frames: Streaming<Boundary>) -> Result<(), Status> {
        let wanted = self.receive_header(&mut frames).await.inspect_err(|_| {
            self.metrics.session_strangers_refused(1);
        })?;
        let Wanted {
            member,
            asked,
            receipt,
            bytes,
        } = wanted;
        let max = self.config.pushes_max;
        let _place = self
            .pushes
            .try_acquire()
            .map_err(|_| Status::from(Refusal::Pushes { max }))?;
        let serving = self.models.find(member.key.1).map_err(Refusal::from)?;
        let sent = sent_bytes(&serving, asked.rows.into(), receipt.units_in);
        let memory = self.reserve(bytes.saturating_add(sent))?;
        let claim = self.claim(&member, asked.number)?;
        let rows = self.read_boundary(&mut frames, asked.rows, bytes);
        let late = |_| Status::deadline_exceeded("the client's patience is over");
        let rows = tokio::time::timeout_at(asked.until, rows).await.map_err(late)??;
        let (found, expected) = (merkle::root(&rows), receipt.output_digest);
        if found != expected {
            return Err(Refusal::RowDigest { found, expected }.into());
        }
        let mut input = decode(&serving, &rows)?;
        if input.units != receipt.units_in && input.units > 0 {
            let (found, expected) = (input.units, receipt.units_in);
            return Err(Refusal::Units { found, expected }.into());
        }
        input.units = receipt.units_in;
        let open = member.claimed(asked.number);
        drop(claim);
        let open = open.ok_or_else(|| Status::deadline_exceeded("the client has lost interest"))?;
        self.metrics.pushes_received(1);
        self.metrics.push_received_bytes(bytes);
        pass(Point::BoundaryTaken);
        let task = Task {
            open,
            asked,
            serving,
            rows: Rows::Read(input),
            received: expected,
            memory,
        };
        self.launch_request(&member, task);
        Ok(())
    }

    /// One push at a time has an announcement.
    fn claim<'a>(&self, member: &'a Arc<Member>, number: u64) -> Result<Claim<'a>, Status> {
        let mut state = member.lock();
        match state.waiting.get_mut(&number) {
            Some(waiting) if !waiting.is_claimed => {
                waiting.is_claimed = true;
                Ok(Claim { member, number })
            }
            Some(_) => Err(Status::aborted(format!(
                "the rows of request {number} are coming already"
            ))),
            None => Err(Status::not_found(format!("request {number} does not wait for rows"))),
        }
    }

    /// Reads and judges the header.
    async fn receive_header(&self, frames: &mut Streaming<Boundary>) -> Result<Wanted, Status> {
        let _place = self
            .lane
            .strangers
            .try_acquire()
            .map_err(|_| Status::resource_exhausted("too many hosts are proving who they are"))?;
        let first = tokio::time::timeout(HEADER_TIMEOUT, frames.message()).await;
        let header = match first
            .map_err(|_| Status::deadline_exceeded("no header came"))??
            .and_then(|frame| frame.content)
        {
            Some(Content::Header(header)) => header,
            _ => return Err(Status::invalid_argument("it does not begin with a header")),
        };
        let signed = parse(&header)?;
        let member = self
            .lane
            .find((header.session, header.to))
            // The client may be about to attend: the sender tries again.
            .ok_or_else(|| Status::unavailable(format!("session {} is not attended here", header.session)))?;
        verify(&member, &header, &signed)?;
        let asked = self.announced(&member, header.number).await?;
        let receipt = signed.receipt;
        check(&asked, &header, &receipt, self.request_bytes_max_boundary())?;
        let bytes = header.bytes;
        Ok(Wanted {
            member,
            asked,
            receipt,
            bytes,
        })
    }

    /// Boundaries are larger than texts; the memory that all rows share is their bound.
    fn request_bytes_max_boundary(&self) -> u64 {
        self.config.rows_bytes_max
    }

    /// The request that the client has announced, or is about to.
    async fn announced(&self, member: &Arc<Member>, number: u64) -> Result<Asked, Status> {
        let find = || member.lock().waiting.get(&number).map(|waiting| waiting.asked.clone());
        if let Some(asked) = find() {
            return Ok(asked);
        }
        let _place = self
            .lane
            .early
            .try_acquire()
            .map_err(|_| Status::resource_exhausted("too many pushes are ahead of their announcements"))?;
        let mut changes = member.changes.subscribe();
        let wait = changes.wait_for(|_| member.lock().waiting.contains_key(&number));
        let _ = tokio::time::timeout(EARLY, wait).await.map(drop);
        find().ok_or_else(|| Status::not_found(format!("the client has not announced request {number} here")))
    }

    async fn read_boundary(
        &self,
        frames: &mut Streaming<Boundary>,
        rows: u32,
        bytes: u64,
    ) -> Result<Vec<Bytes>, Status> {
        let (mut read, mut length) = (Vec::new(), 0_u64);
        while count(read.len()) < u64::from(rows) {
            let seconds = self.config.io_timeout_seconds;
            let frame = tokio::time::timeout(self.config.io_timeout(), frames.message()).await;
            let frame = frame.map_err(|_| Status::from(Refusal::Stalled { seconds }))??;
            let row = match frame.and_then(|frame| frame.content) {
                Some(Content::Row(row)) => row,
                Some(Content::Header(_)) => return Err(Status::invalid_argument("it has two headers")),
                None => {
                    let (found, expected) = (count(read.len()), rows.into());
                    return Err(Refusal::RowCount { found, expected }.into());
                }
            };
            length = length.saturating_add(count(row.len()));
            if length > bytes {
                break;
            }
            read.push(row);
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

    /// Hands rows to the next span until it has them, or the client's patience is over.
    pub(super) async fn send_boundary(
        &self,
        member: &Arc<Member>,
        asked: &Asked,
        next: u64,
        receipt: Vec<u8>,
        rows: &[Bytes],
    ) -> Result<(), Denied> {
        let neighbour = |reason: String| Denied::new(Code::Neighbour, reason);
        let provider = member.lock().allocation(next).map(|own| own.provider.clone());
        let provider = provider.ok_or_else(|| neighbour(format!("deployment {next} is not in the session")))?;
        let header = BoundaryHeader {
            session: member.key.0,
            number: asked.number,
            from: member.key.1,
            to: next,
            rows: asked.rows,
            bytes: rows.iter().map(|row| count(row.len())).fold(0, u64::saturating_add),
            receipt,
        };
        let mut pause = PAUSE_FIRST;
        let mut last = "none was finished".to_owned();
        while Instant::now() < asked.until {
            match tokio::time::timeout_at(asked.until, self.send_once(&provider, &header, rows)).await {
                Ok(Ok(())) => {
                    pass(Point::BoundaryAnswered);
                    self.metrics.pushes_sent(1);
                    self.metrics.push_sent_bytes(header.bytes);
                    return Ok(());
                }
                Ok(Err((reason, true))) => return Err(neighbour(format!("deployment {next}: {reason}"))),
                Ok(Err((reason, false))) => last = reason,
                Err(_) => break,
            }
            self.metrics.push_retries(1);
            let drawn = pause.mul_f64(rand::thread_rng().gen_range(0.5..1.0));
            let _ = tokio::time::timeout_at(asked.until, tokio::time::sleep(drawn)).await;
            pause = pause.saturating_mul(2).min(PAUSE_LONGEST);
        }
        Err(neighbour(format!(
            "deployment {next} has not taken the rows in time; the last try: {last}"
        )))
    }

    /// One try. Of an error, whether there is no use in another.
    async fn send_once(&self, provider: &str, header: &BoundaryHeader, rows: &[Bytes]) -> Result<(), (String, bool)> {
        let found = self.peers.channel(provider).await;
        let (channel, is_fresh) = found.map_err(|error| (error.to_string(), !error.may_pass()))?;
        let mut client = LaneClient::new(channel).max_encoding_message_size(FRAME_BYTES_MAX);
        let frame = |content| Boundary { content: Some(content) };
        let frames: Vec<Boundary> = std::iter::once(frame(Content::Header(header.clone())))
            .chain(rows.iter().map(|row| frame(Content::Row(row.clone()))))
            .collect();
        let frames = frames.into_iter().inspect(|_| pass(Point::BoundaryFrame));
        client
            .push(tokio_stream::iter(frames))
            .await
            .map(drop)
            .map_err(|status| {
                self.peers.forget(provider);
                let is_final = matches!(
                    status.code(),
                    Grpc::InvalidArgument
                        | Grpc::PermissionDenied
                        | Grpc::OutOfRange
                        | Grpc::Unimplemented
                        | Grpc::NotFound
                );
                // A provider that has moved leaves somebody else behind: only what a fresh look-up led to is believed.
                (status.message().to_owned(), is_final && is_fresh)
            })
    }
}

fn parse(header: &BoundaryHeader) -> Result<SignedSessionReceipt, Status> {
    let found = header.receipt.len();
    if found > RECEIPT_BYTES_MAX {
        let reason = format!("its receipt has {found} bytes, at most {RECEIPT_BYTES_MAX} are allowed");
        return Err(Status::invalid_argument(reason));
    }
    serde_json::from_slice(&header.receipt).map_err(|error| Status::invalid_argument(format!("its receipt: {error}")))
}

/// Whether the sender is who it says, and speaks of this request.
fn verify(member: &Member, header: &BoundaryHeader, signed: &SignedSessionReceipt) -> Result<(), Status> {
    let receipt = &signed.receipt;
    let state = member.lock();
    let about = (receipt.session, receipt.deployment, receipt.sequence);
    if receipt.domain != state.opened.domain || about != (header.session, header.from, header.number) {
        return Err(Status::permission_denied("its receipt is about something else"));
    }
    let Some(AllocationResponse { host_key, .. }) = state.allocation(header.from) else {
        let reason = format!("deployment {} is not in the session", header.from);
        return Err(Status::permission_denied(reason));
    };
    match client::verify_digest(host_key.as_bytes(), &receipt.digest().0, signed.signature.as_bytes()) {
        true => Ok(()),
        false => Err(Status::permission_denied(format!(
            "its receipt is not signed by host key {host_key}"
        ))),
    }
}

/// Whether the announcement wants this.
fn check(asked: &Asked, header: &BoundaryHeader, receipt: &SessionReceipt, bytes_max: u64) -> Result<(), Status> {
    if asked.before() != Some(header.from) {
        let reason = format!(
            "deployment {} is not before {} in the chain of the request",
            header.from, header.to
        );
        return Err(Status::permission_denied(reason));
    }
    if header.rows != asked.rows {
        let (found, expected) = (header.rows.into(), asked.rows.into());
        return Err(Refusal::RowCount { found, expected }.into());
    }
    // The first span has worked on the client's own rows.
    if asked.position == 1 && receipt.request_digest != asked.digest {
        let (found, expected) = (receipt.request_digest, asked.digest);
        return Err(Refusal::RowDigest { found, expected }.into());
    }
    Refusal::check_size("bytes", header.bytes, bytes_max, "rows_bytes_max")?;
    Ok(())
}
