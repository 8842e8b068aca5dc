//! One request of a session, from its announcement to its receipt.
//!
//! Guarantees: nothing is computed before the voucher that allows it is on the disk; a request that comes to nothing costs nothing and takes no
//! credit; one that was computed is counted, whether or not anybody still listens; every wait ends with the client's patience, which is bounded.

use std::{
    sync::{atomic::Ordering, Arc},
    time::Duration,
};

use lane::{
    acceptor::RequestError,
    proto::{self, to_client::Content as Said, Code, Row},
};
use partition::row::ROW_BYTES_MAX;
use prost::bytes::Bytes;
use schema::{
    escrow::ALLOCATIONS_MAX,
    merkle,
    price::Units,
    receipt::Outcome,
    session::{SessionReceipt, SignedSessionReceipt},
    Digest, Signature,
};
use tokio::{sync::OwnedSemaphorePermit, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{attend::Talk, store::Store, Denied, Member, Running, State, Waiting};
use crate::{
    advance::{encode, not_finite},
    faults::{pass, Point},
    host::{count, read, sent_bytes, Host, Input},
    refusal::Refusal,
    serving::Serving,
};

/// Longest patience that is believed.
const PATIENCE_MAX: Duration = Duration::from_secs(300);

/// A request that was understood.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    pub(super) number: u64,
    /// Deployments from the first stage to the last.
    pub(super) chain: Vec<u64>,
    /// Ours in it.
    pub(super) position: usize,
    pub(super) rows: u32,
    pub(super) bytes: u64,
    /// Root over the client's rows.
    pub(super) digest: Digest,
    /// When the client's patience ends.
    pub(super) until: Instant,
}

impl Asked {
    fn parse(request: proto::Request, deployment: u64) -> Result<Self, Denied> {
        let proto::Request {
            number,
            chain,
            rows,
            bytes,
            digest,
            patience_ms,
        } = request;
        let digest: [u8; 32] = digest
            .try_into()
            .map_err(|_| Denied::invalid("a digest has 32 bytes"))?;
        if chain.is_empty() || chain.len() > ALLOCATIONS_MAX {
            let found = chain.len();
            let reason = format!("its chain has {found} deployments, 1 to {ALLOCATIONS_MAX} are allowed");
            return Err(Denied::invalid(reason));
        }
        let mut ours = chain.iter().enumerate().filter(|(_, named)| **named == deployment);
        let position = match (ours.next(), ours.next()) {
            (Some((position, _)), None) => position,
            _ => {
                return Err(Denied::invalid(format!(
                    "deployment {deployment} is not once in its chain"
                )))
            }
        };
        if patience_ms == 0 {
            return Err(Denied::invalid("it has no patience"));
        }
        let patience = Duration::from_millis(patience_ms.into()).min(PATIENCE_MAX);
        let now = Instant::now();
        Ok(Self {
            number,
            chain,
            position,
            rows,
            bytes,
            digest: Digest(digest),
            until: now.checked_add(patience).unwrap_or(now),
        })
    }

    /// Whether the spans of the chain follow each other, each in the session.
    fn check_chain(&self, state: &State) -> Result<(), Denied> {
        let mut next: u8 = 0;
        for deployment in &self.chain {
            let Some(own) = state.allocation(*deployment) else {
                let reason = format!("deployment {deployment} of its chain is not in the session");
                return Err(Denied::invalid(reason));
            };
            if own.first != next {
                let first = own.first;
                let reason = format!("deployment {deployment} begins with stage {first}, stage {next} comes next");
                return Err(Denied::invalid(reason));
            }
            next = own.last.saturating_add(1);
        }
        Ok(())
    }

    pub(super) fn is_last(&self) -> bool {
        self.position.saturating_add(1) == self.chain.len()
    }

    /// The deployment that comes after ours.
    pub(super) fn next(&self) -> Option<u64> {
        self.chain.get(self.position.saturating_add(1)).copied()
    }

    /// The deployment that comes before ours.
    pub(super) fn before(&self) -> Option<u64> {
        self.chain.get(self.position.checked_sub(1)?).copied()
    }
}

/// A request that takes credit. Dropped before it was counted, it costs nothing.
#[derive(Debug)]
pub(super) struct Open {
    pub(super) member: Arc<Member>,
    number: u64,
}

impl Drop for Open {
    fn drop(&mut self) {
        {
            let mut state = self.member.lock();
            // What was counted is not open any more.
            state.acceptor.drop(self.number);
            state.running.remove(&self.number);
        }
        self.member.changed();
    }
}

/// A request of a first span, while its rows come.
#[derive(Debug)]
pub(super) struct Gathering {
    open: Open,
    asked: Asked,
    serving: Arc<Serving>,
    memory: OwnedSemaphorePermit,
    rows: Vec<Bytes>,
    length: u64,
}

impl Gathering {
    pub(super) fn number(&self) -> u64 {
        self.asked.number
    }

    pub(super) fn is_complete(&self) -> bool {
        count(self.rows.len()) == u64::from(self.asked.rows)
    }

    /// One more row. An error ends the request.
    pub(super) fn take(mut self, row: Bytes) -> Result<Self, Denied> {
        self.length = self.length.saturating_add(count(row.len()));
        self.rows.push(row);
        let (found, expected) = (self.length, self.asked.bytes);
        if found > expected || (self.is_complete() && found != expected) {
            return Err(Refusal::RowBytes { found, expected }.into());
        }
        if !self.is_complete() {
            return Ok(self);
        }
        let (found, expected) = (merkle::root(&self.rows), self.asked.digest);
        match found == expected {
            true => Ok(self),
            false => Err(Denied::invalid(format!(
                "the rows have the root {found}, {expected} was announced"
            ))),
        }
    }
}

/// A request whose rows are here.
#[derive(Debug)]
pub(super) struct Task {
    pub(super) open: Open,
    pub(super) asked: Asked,
    pub(super) serving: Arc<Serving>,
    pub(super) rows: Rows,
    /// Root over the rows that came in.
    pub(super) received: Digest,
    pub(super) memory: OwnedSemaphorePermit,
}

#[derive(Debug)]
pub(super) enum Rows {
    /// As the client gave them.
    Given(Vec<Bytes>),
    /// A boundary.
    Read(Input),
}

/// What is signed, and what goes on.
struct Done {
    receipt: SignedSessionReceipt,
    rows: Vec<Bytes>,
    _memory: OwnedSemaphorePermit,
}

impl Member {
    /// Hands what is known to the disk, and answers the version to wait for.
    pub(super) fn keep(&self, store: &Store) -> u64 {
        // Under the lock, so that an older state never takes the place of a newer one.
        let state = self.lock();
        store.keep(state.line(self.key))
    }

    /// The client has lost interest. What has begun goes on, and is paid for.
    pub(super) fn cancel(&self, number: u64) {
        let mut state = self.lock();
        if state.waiting.get(&number).is_some_and(|waiting| !waiting.is_claimed) {
            state.waiting.remove(&number);
            state.acceptor.drop(number);
        }
        if let Some(running) = state.running.get(&number) {
            let has_begun = running
                .begun
                .as_ref()
                .is_some_and(|begun| begun.load(Ordering::Relaxed));
            if !has_begun {
                running.cancel.cancel();
            }
        }
        drop(state);
        self.changed();
    }

    /// Takes an announced request out of those that wait for their boundary.
    pub(super) fn claimed(self: &Arc<Self>, number: u64) -> Option<Open> {
        self.lock().waiting.remove(&number)?;
        let member = Arc::clone(self);
        Some(Open { member, number })
    }
}

impl Host {
    /// Rows that one request may have.
    pub(super) fn request_rows_max(&self) -> u32 {
        let queue = u32::try_from(self.config.queue_rows_max).unwrap_or(u32::MAX);
        self.config.request_rows_max.min(queue)
    }

    /// Bytes that the rows of one request may have.
    pub(super) fn request_bytes_max(&self) -> u64 {
        self.config.request_bytes_max.min(self.config.rows_bytes_max)
    }

    /// Takes a request, or says why not.
    pub(super) async fn ask(
        self: &Arc<Self>,
        member: &Arc<Member>,
        talk: &mut Talk,
        request: proto::Request,
    ) -> Result<(), Denied> {
        if let Some(gathering) = &talk.gathering {
            let number = gathering.number();
            return Err(Denied::invalid(format!(
                "the rows of request {number} are still coming"
            )));
        }
        let asked = Asked::parse(request, member.key.1)?;
        Refusal::check_size(
            "rows",
            asked.rows.into(),
            self.request_rows_max().into(),
            "request_rows_max",
        )?;
        Refusal::check_size("bytes", asked.bytes, self.request_bytes_max(), "request_bytes_max")?;
        let now = self.clock.sure_now().map_err(Refusal::from)?;
        {
            let state = member.lock();
            if let Some(reason) = state.closed_to_requests(now) {
                return Err(Denied::session(reason));
            }
            asked.check_chain(&state)?;
        }
        let serving = self.models.find(member.key.1).map_err(Refusal::from)?;
        let rows = usize::try_from(asked.rows).unwrap_or(usize::MAX);
        serving.room_for(rows).map_err(Refusal::from)?;
        if serving.is_short_of_memory() {
            let deployment = member.key.1;
            return Err(Refusal::DeviceMemory { deployment }.into());
        }
        if asked.position > 0 {
            return self.await_boundary(member, talk.stream, asked);
        }
        // Most of a request's memory is its boundary, whose size is known once the rows are read.
        let memory = self.reserve(asked.bytes)?;
        let open = self.open(member, &asked)?;
        talk.gathering = Some(Gathering {
            open,
            asked,
            serving,
            memory,
            rows: Vec::new(),
            length: 0,
        });
        Ok(())
    }

    fn open(&self, member: &Arc<Member>, asked: &Asked) -> Result<Open, Denied> {
        let number = asked.number;
        member.lock().acceptor.admit(number, asked.rows)?;
        member.keep(&self.lane.store);
        let member = Arc::clone(member);
        Ok(Open { member, number })
    }

    /// The rows come from the span before, or not in time.
    fn await_boundary(self: &Arc<Self>, member: &Arc<Member>, stream: u64, asked: Asked) -> Result<(), Denied> {
        let open = self.open(member, &asked)?;
        let (number, until) = (asked.number, asked.until);
        let is_claimed = false;
        member.lock().waiting.insert(
            number,
            Waiting {
                asked,
                stream,
                is_claimed,
            },
        );
        member.changed();
        // From here on the list has it; whoever takes it from there has it again.
        std::mem::forget(open);
        let (host, member) = (Arc::clone(self), Arc::clone(member));
        self.tasks.spawn(async move {
            let mut changes = member.changes.subscribe();
            let is_gone = changes.wait_for(|_| !member.lock().waiting.contains_key(&number));
            let waited = tokio::select! {
                waited = tokio::time::timeout_at(until, is_gone) => waited.is_ok(),
                () = host.stop.cancelled() => true,
            };
            if !waited && member.claimed(number).is_some() {
                host.refuse(
                    &member,
                    number,
                    Denied::new(Code::Late, "the rows of the span before did not come"),
                )
                .await;
            }
        });
        Ok(())
    }

    pub(super) fn compute_given(self: &Arc<Self>, member: &Arc<Member>, gathering: Gathering) {
        let Gathering {
            open,
            asked,
            serving,
            memory,
            rows,
            ..
        } = gathering;
        let task = Task {
            received: asked.digest,
            rows: Rows::Given(rows),
            open,
            asked,
            serving,
            memory,
        };
        self.launch_request(member, task);
    }

    /// Computes in the background.
    pub(super) fn launch_request(self: &Arc<Self>, member: &Arc<Member>, task: Task) {
        let cancel = CancellationToken::new();
        let running = Running {
            cancel: cancel.clone(),
            begun: None,
        };
        member.lock().running.insert(task.asked.number, running);
        let (host, member) = (Arc::clone(self), Arc::clone(member));
        self.tasks.spawn(async move {
            let stop = host.stop.clone();
            tokio::select! {
                () = host.serve_request(&member, task, cancel) => {}
                () = stop.cancelled() => {}
            }
        });
    }

    async fn serve_request(self: &Arc<Self>, member: &Arc<Member>, task: Task, cancel: CancellationToken) {
        let asked = task.asked.clone();
        let performed = tokio::select! {
            performed = tokio::time::timeout_at(asked.until, self.perform(member, task)) => performed,
            () = cancel.cancelled() => return,
        };
        let late = |_| {
            Err(Denied::new(
                Code::Late,
                "the client's patience ended before all rows were computed",
            ))
        };
        match performed.unwrap_or_else(late) {
            Ok(done) => self.deliver(member, &asked, done).await,
            Err(denied) => self.refuse(member, asked.number, denied).await,
        }
    }

    pub(super) async fn refuse(&self, member: &Member, number: u64, denied: Denied) {
        self.metrics.session_requests_refused(1);
        tracing::debug!(
            session = member.key.0,
            number,
            reason = denied.reason,
            "a request is refused"
        );
        member.tell(denied.told(Some(number)), self.config.io_timeout()).await;
    }

    async fn perform(&self, member: &Arc<Member>, task: Task) -> Result<Done, Denied> {
        let Task {
            open,
            asked,
            serving,
            rows,
            received,
            memory,
        } = task;
        let input = match rows {
            Rows::Read(input) => input,
            Rows::Given(rows) => self.read_given(member, &serving, rows).await?,
        };
        let units = Units {
            requests: asked.rows.into(),
            units_in: input.units,
            units_out: 0,
        };
        self.measure(member, asked.number, units).await?;
        let _boundary = self.reserve(sent_bytes(&serving, asked.rows.into(), input.units))?;
        let version = member.needed();
        self.lane.store.kept(version).await.map_err(Denied::failed)?;
        pass(Point::RequestAdmitted);
        let ticket = serving.admit(input.rows).map_err(Refusal::from)?;
        if let Some(running) = member.lock().running.get_mut(&asked.number) {
            running.begun = Some(ticket.begun());
        }
        let computed = ticket.finish().await.map_err(Denied::failed)?;
        if asked.is_last() {
            self.metrics.rows_not_finite(not_finite(&computed));
        }
        let rows = encode(&computed).map_err(Denied::failed)?;
        pass(Point::RequestComputed);
        let receipt = self.sign(member, &asked, received, merkle::root(&rows), units);
        // From here on it is owed.
        member.lock().acceptor.finish(asked.number)?;
        drop(open);
        pass(Point::SessionReceiptSigned);
        self.count(units.requests, units.units_in);
        self.metrics.session_requests_done(1);
        Ok(Done {
            receipt,
            rows,
            _memory: memory,
        })
    }

    async fn read_given(&self, member: &Member, serving: &Arc<Serving>, rows: Vec<Bytes>) -> Result<Input, Denied> {
        let endpoint = member.lock().opened.session.endpoint.clone();
        let serving = Arc::clone(serving);
        let read = tokio::task::spawn_blocking(move || read(&serving, &endpoint, &rows)).await;
        Ok(read.map_err(|_| Refusal::Stopping)??)
    }

    /// What it comes to, and whether the allocation pays for it.
    async fn measure(&self, member: &Arc<Member>, number: u64, units: Units) -> Result<(), Denied> {
        let mut measured = member.lock().acceptor.measure(number, units);
        if matches!(measured, Err(RequestError::Allocation { .. })) && self.look_again(member).await {
            // It may have been topped up.
            measured = member.lock().acceptor.measure(number, units);
        }
        Ok(measured?)
    }

    fn sign(
        &self,
        member: &Member,
        asked: &Asked,
        request_digest: Digest,
        output_digest: Digest,
        units: Units,
    ) -> SignedSessionReceipt {
        let (session, deployment) = member.key;
        let receipt = SessionReceipt {
            domain: member.lock().opened.domain.clone(),
            session,
            deployment,
            sequence: asked.number,
            request_digest,
            output_digest,
            tokens_digest: None,
            seed: None,
            units_in: units.units_in,
            units_out: units.units_out,
            outcome: Outcome::Done,
        };
        let signature = Signature(self.host_key.sign_digest(&receipt.digest().0));
        SignedSessionReceipt { receipt, signature }
    }

    /// The receipt to the client, the rows to it or to the next span.
    async fn deliver(self: &Arc<Self>, member: &Arc<Member>, asked: &Asked, done: Done) {
        let patience = self.config.io_timeout();
        let (number, Done { receipt, rows, .. }) = (asked.number, &done);
        // Receipts are structs of numbers and texts: they always serialise.
        let signed = serde_json::to_vec(receipt).unwrap_or_default();
        match asked.next() {
            None => {
                member.tell(Said::Receipt(signed), patience).await;
                pass(Point::SessionReceiptSent);
                for bytes in rows {
                    let bytes = bytes.clone();
                    member.tell(Said::Row(Row { number, bytes }), patience).await;
                }
            }
            Some(next) => {
                let told = async {
                    member.tell(Said::Receipt(signed.clone()), patience).await;
                    pass(Point::SessionReceiptSent);
                };
                let sent = self.send_boundary(member, asked, next, signed.clone(), rows);
                if let ((), Err(denied)) = tokio::join!(told, sent) {
                    self.refuse(member, number, denied).await;
                }
            }
        }
    }
}

/// Frames of a lane are as large as a row may be.
pub(super) const FRAME_BYTES_MAX: usize = ROW_BYTES_MAX + (1 << 16);
