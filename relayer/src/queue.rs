//! What waits to go on chain, in which order, and how much of it fits into one transaction.

use std::collections::VecDeque;

use beacon::SignedRound;
use schema::{receipt::Attestation, session::SignedVoucher, ItemId, BATCH_MAX};
use tokio::sync::{mpsc, oneshot};

use crate::chain::Evidence;

/// Requests that wait for their transaction. Each comes from a task that waits for its answer, so the tasks are the real bound.
const LENGTH: usize = 64;
/// Nodes refuse transactions above 700 kB; base64 in JSON and the other messages want room too.
pub(crate) const BATCH_BYTES_MAX: usize = 400_000;
/// Evidence and expiries are all or none in a transaction: enough to save gas, few enough to fall back on one by one.
const PLAIN_BATCH_MAX: usize = 16;

/// What somebody wants on chain.
#[derive(Debug, Clone, PartialEq)]
pub enum Request {
    Attest(Attestation),
    Evidence(Evidence),
    Expire(ItemId),
    Round(SignedRound),
    Settle(SignedVoucher),
}

/// What became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It is on chain.
    Done,
    /// The contract said no. Asking again will not help.
    Refused(String),
    /// It did not come to an answer. It may be asked again.
    Failed(String),
}

/// The way to the submitter.
#[derive(Debug, Clone)]
pub struct Queue(mpsc::Sender<Job>);

/// A request and whoever waits for its end.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) request: Request,
    pub(crate) reply: oneshot::Sender<Verdict>,
}

impl Queue {
    /// A way, and its other end.
    pub(crate) fn new() -> (Queue, mpsc::Receiver<Job>) {
        let (sender, jobs) = mpsc::channel(LENGTH);
        (Queue(sender), jobs)
    }

    /// Waits for a place, for the transaction, and for its block.
    pub async fn submit(&self, request: Request) -> Verdict {
        let (reply, verdict) = oneshot::channel();
        let closed = || Verdict::Failed("the relayer is stopping".into());
        match self.0.send(Job { request, reply }).await {
            Ok(()) => verdict.await.unwrap_or_else(|_| closed()),
            Err(_) => closed(),
        }
    }
}

/// Requests by kind. Kinds take turns, so that none starves another.
#[derive(Debug, Default)]
pub(crate) struct Pending {
    attests: VecDeque<Job>,
    evidence: VecDeque<Job>,
    expiries: VecDeque<Job>,
    rounds: VecDeque<Job>,
    vouchers: VecDeque<Job>,
    turn: u8,
}

impl Pending {
    pub(crate) fn len(&self) -> usize {
        let queues = [
            &self.attests,
            &self.evidence,
            &self.expiries,
            &self.rounds,
            &self.vouchers,
        ];
        let lengths = queues.map(VecDeque::len);
        lengths.into_iter().fold(0, usize::saturating_add)
    }

    /// Whether there is room for one more, and a reason to wait for it.
    pub(crate) fn has_room(&self) -> bool {
        self.len() < LENGTH && self.attests.len() < BATCH_MAX && self.vouchers.len() < BATCH_MAX
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(crate) fn push(&mut self, job: Job) {
        let queue = match job.request {
            Request::Attest(_) => &mut self.attests,
            Request::Evidence(_) => &mut self.evidence,
            Request::Expire(_) => &mut self.expiries,
            Request::Round(_) => &mut self.rounds,
            Request::Settle(_) => &mut self.vouchers,
        };
        queue.push_back(job);
    }

    /// The oldest of the kind whose turn it is, up to the limits of a transaction. Empty only if nothing is pending.
    pub(crate) fn next_batch(&mut self) -> Vec<Job> {
        for _ in 0..5u8 {
            self.turn = self.turn.wrapping_add(1) % 5;
            let (queue, max) = match self.turn {
                0 => (&mut self.expiries, PLAIN_BATCH_MAX),
                1 => (&mut self.attests, BATCH_MAX),
                2 => (&mut self.evidence, PLAIN_BATCH_MAX),
                3 => (&mut self.rounds, PLAIN_BATCH_MAX),
                _ => (&mut self.vouchers, BATCH_MAX),
            };
            let batch = take(queue, max);
            if !batch.is_empty() {
                return batch;
            }
        }
        vec![]
    }
}

fn take(queue: &mut VecDeque<Job>, max: usize) -> Vec<Job> {
    let mut batch = vec![];
    let mut bytes: usize = 0;
    while let Some(job) = queue.front() {
        bytes = bytes.saturating_add(size(&job.request));
        // What is too large even alone comes out alone; the submitter refuses it.
        let is_full = batch.len() >= max || (bytes > BATCH_BYTES_MAX && !batch.is_empty());
        if is_full {
            break;
        }
        batch.extend(queue.pop_front());
    }
    batch
}

/// Its bytes in a transaction.
pub(crate) fn size(request: &Request) -> usize {
    let json = match request {
        Request::Attest(attestation) => serde_json::to_vec(attestation),
        Request::Evidence(evidence) => serde_json::to_vec(evidence),
        Request::Expire(item) => serde_json::to_vec(item),
        Request::Round(round) => serde_json::to_vec(round),
        Request::Settle(voucher) => serde_json::to_vec(voucher),
    };
    json.map_or(usize::MAX, |json| json.len())
}
