//! Everything that goes on chain goes through here, one transaction after the other.
//!
//! Guarantees:
//! - Nothing is sent before its hash and bytes are in the checkpoint.
//! - What was written before a crash is settled first: looked up, sent again as the same bytes, or given up only when the chain says that
//!   these bytes can be in no block any more, and still says so a block later. Every transaction is signed for a limited number of
//!   blocks, so the chain comes to say so of each that gets stuck.
//! - An attestation that is confirmed is never sent again, and one that the contract refused is not either.
//! - A bad entry does not hold up the others: a refused batch is sent again in halves, down to the one.
//! - An account that cannot pay is no fault of any entry: nothing is cut up or refused for it, and it is tried again.
//! - No transaction costs more than the operator allows: one that would is cut up, down to the one, and that one is not sent.
//! - Bounded: the queue, the batch by number and by bytes, the tries, and the life of a transaction by blocks. A chain that stands still is
//!   waited for; that costs one look-up per `confirm_timeout` and ends with the process.

use std::{sync::Arc, time::Duration};

use schema::{
    escrow::VoucherRefusal,
    orchestrator::ItemStatus,
    receipt::Attestation,
    session::{SignedVoucher, Voucher},
    Event, ItemId,
};
use tokio::{sync::mpsc, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::{
    book::Book,
    chain::{Batch, Chain, ChainError, Failure, Outcome, TxHash},
    checkpoint::{Stage, Store, Transaction},
    crash::{self, Point},
    queue::{self, Job, Pending, Queue, Request, Verdict, BATCH_BYTES_MAX},
    retry::{Decision, Policy},
    status::{Board, Subject},
    RelayerError,
};

/// How the submitter works.
#[derive(Debug, Clone, Copy)]
pub struct Manner {
    /// How long the first of a batch waits for company.
    pub batch_wait: Duration,
    /// How long a transaction may be in no block before it is looked for and sent again.
    pub confirm_timeout: Duration,
    /// How often a transaction is made anew that the chain did not take.
    pub policy: Policy,
}

/// Sends what the others ask for.
#[derive(Debug)]
pub struct Submitter<C> {
    chain: C,
    book: Book,
    manner: Manner,
    jobs: mpsc::Receiver<Job>,
    pending: Pending,
}

/// How one attempt at a transaction ended.
enum Attempt {
    InBlock(TxHash, Vec<Event>),
    /// With the sentence of the contract or the chain.
    Refused(String),
    /// Not in a block, and it never will be.
    Again(String),
    /// Not sent: it would cost too much.
    TooDear(String),
}

impl<C: Chain> Submitter<C> {
    /// A submitter and the way to it.
    pub fn new(chain: C, store: Arc<Store>, board: Board, manner: Manner) -> (Submitter<C>, Queue) {
        let (queue, jobs) = Queue::new();
        let policy = manner.policy;
        let submitter = Submitter {
            chain,
            book: Book { store, board, policy },
            manner,
            jobs,
            pending: Pending::default(),
        };
        (submitter, queue)
    }

    /// Settles what was left over, then serves the queue. Told to stop, it finishes the transaction at hand.
    pub async fn run(mut self, stop: CancellationToken) -> Result<(), RelayerError> {
        self.recover().await?;
        while !stop.is_cancelled() {
            if self.pending.is_empty() {
                let job = tokio::select! {
                    biased;
                    () = stop.cancelled() => return Ok(()),
                    job = self.jobs.recv() => job,
                };
                let Some(job) = job else { return Ok(()) };
                self.pending.push(job);
            }
            self.gather().await;
            self.book
                .board
                .queued(self.pending.len().saturating_add(self.jobs.len()));
            crash::pass(Point::Gathered);
            let mut work = vec![self.pending.next_batch()];
            while let Some(batch) = work.pop() {
                work.extend(self.process(batch).await?);
            }
            self.book
                .board
                .queued(self.pending.len().saturating_add(self.jobs.len()));
        }
        Ok(())
    }

    /// The transaction that the last run left in an unknown state.
    async fn recover(&mut self) -> Result<(), RelayerError> {
        let left_over = self.book.store.read(|state| state.transaction().cloned());
        let Some(Transaction { tx_hash, bytes }) = left_over else {
            return Ok(());
        };
        crash::pass(Point::Recovering);
        tracing::info!(%tx_hash, "settling the transaction of the last run");
        match self.settle(tx_hash, &bytes, false).await? {
            Attempt::InBlock(..) => tracing::info!(%tx_hash, "it is in a block"),
            Attempt::Refused(reason) | Attempt::Again(reason) | Attempt::TooDear(reason) => {
                tracing::info!(%tx_hash, %reason, "it counts for nothing")
            }
        }
        crash::pass(Point::Recovered);
        Ok(())
    }

    /// Takes in what comes within the waiting time, as much as there is room for.
    async fn gather(&mut self) {
        let end = Instant::now()
            .checked_add(self.manner.batch_wait)
            .unwrap_or_else(Instant::now);
        while self.pending.has_room() {
            match tokio::time::timeout_at(end, self.jobs.recv()).await {
                Ok(Some(job)) => self.pending.push(job),
                Ok(None) | Err(_) => return,
            }
        }
    }

    /// One transaction, and its answers. Gives back what has to be tried in smaller parts.
    async fn process(&mut self, mut batch: Vec<Job>) -> Result<Vec<Vec<Job>>, RelayerError> {
        let mut failures: u32 = 0;
        let verdict = loop {
            // Each time: whatever kept us may have settled some of it.
            batch = self.still_wanted(batch).await;
            let Some(content) = content(&batch) else {
                return Ok(vec![]);
            };
            let reason = match self.attempt(&content).await? {
                Attempt::InBlock(hash, events) => {
                    self.answer(batch, hash, &events);
                    return Ok(vec![]);
                }
                Attempt::Refused(_) | Attempt::TooDear(_) if batch.len() > 1 => {
                    let second = batch.split_off(batch.len() / 2);
                    return Ok(vec![second, batch]);
                }
                Attempt::Refused(reason) if matches!(content, Batch::Attest(_)) => break Verdict::Failed(reason),
                Attempt::Refused(reason) => break Verdict::Refused(reason),
                Attempt::TooDear(reason) => {
                    self.book.board.count(|totals| &mut totals.transactions_too_dear, 1);
                    self.book.board.trouble(Subject::Fee, &reason);
                    break Verdict::Failed(reason);
                }
                Attempt::Again(reason) => reason,
            };
            self.book.board.chain_failed(&reason);
            failures = failures.saturating_add(1);
            let Some(pause) = self.manner.policy.next(failures) else {
                tracing::warn!(%reason, failures, kind = content.kind(), entries = batch.len(), "giving up on a transaction");
                break Verdict::Failed(reason);
            };
            tracing::debug!(%reason, failures, "making the transaction anew");
            tokio::time::sleep(pause).await;
        };
        for job in batch {
            // Whoever asked may have gone; the verdict is in the checkpoint.
            let _ = job.reply.send(verdict.clone());
        }
        Ok(vec![])
    }

    /// A last look before money is spent: nothing that is settled, here or on chain, is sent.
    async fn still_wanted(&self, batch: Vec<Job>) -> Vec<Job> {
        let mut wanted = vec![];
        for job in batch {
            match self.known_verdict(&job.request).await {
                Some(verdict) => drop(job.reply.send(verdict)),
                None if job.reply.is_closed() => tracing::debug!("nobody waits for this any more"),
                None => wanted.push(job),
            }
        }
        wanted
    }

    async fn known_verdict(&self, request: &Request) -> Option<Verdict> {
        let bytes = queue::size(request);
        if bytes > BATCH_BYTES_MAX {
            let reason = format!("it has {bytes} bytes, a transaction takes at most {BATCH_BYTES_MAX}");
            return Some(Verdict::Refused(reason));
        }
        if let Request::Settle(signed) = request {
            return self.is_settled(signed).await;
        }
        let Request::Attest(Attestation { item, attempt, .. }) = request else {
            return None;
        };
        let entry = self.book.store.read(|state| state.entry(*item).copied());
        match entry.filter(|entry| entry.attempt == *attempt).map(|entry| entry.stage) {
            Some(Stage::Confirmed { .. }) => return Some(Verdict::Done),
            Some(Stage::Refused { tx_hash }) => return Some(Verdict::Refused(format!("refused before, in {tx_hash}"))),
            _ => {}
        }
        match self.chain.item(*item).await {
            Ok(now) if now.attempt != *attempt => Some(Verdict::Refused(format!("attempt {} runs", now.attempt))),
            Ok(now) if !matches!(now.status, ItemStatus::Assigned {}) => {
                Some(Verdict::Refused("it is no longer open".into()))
            }
            // Without an answer the simulation will tell.
            Ok(_) | Err(_) => None,
        }
    }

    /// What the chain says of a voucher before anything is paid for it: a relayer that was killed asks a second time.
    async fn is_settled(&self, signed: &SignedVoucher) -> Option<Verdict> {
        let Voucher {
            session,
            deployment,
            amount,
            ..
        } = signed.voucher;
        let refused = |refusal: VoucherRefusal| Some(Verdict::Refused(refusal.to_string()));
        match self.chain.paid(session, deployment).await {
            Ok(Some(paid)) if paid == amount.u128() => Some(Verdict::Done),
            Ok(Some(paid)) if paid > amount.u128() => refused(VoucherRefusal::Stale),
            Ok(None) => refused(VoucherRefusal::Unknown),
            // Without an answer the simulation will tell.
            Ok(Some(_)) | Err(_) => None,
        }
    }

    async fn attempt(&self, content: &Batch) -> Result<Attempt, RelayerError> {
        let signed = match self.chain.prepare(content).await {
            Ok(signed) => signed,
            Err(error) => return self.not_taken(error),
        };
        crash::pass(Point::Signed);
        let (tx_hash, bytes) = (signed.hash, signed.bytes.clone());
        let attested = claims(content);
        let transaction = Transaction {
            tx_hash,
            bytes: bytes.clone(),
        };
        self.book
            .change(|state| state.prepared(transaction.clone(), &attested))
            .await?;
        crash::pass(Point::Prepared);
        tracing::debug!(%tx_hash, kind = content.kind(), "sending");
        match self.chain.broadcast(signed).await {
            Ok(()) => {
                crash::pass(Point::Sent);
                self.book.board.well(Subject::Gas);
                self.book.board.well(Subject::Fee);
                self.settle(tx_hash, &bytes, true).await
            }
            // It may have arrived all the same; a sequence may be used up by this very transaction.
            Err(ChainError::Unavailable(reason) | ChainError::Sequence(reason)) => {
                tracing::debug!(%tx_hash, %reason, "sent into the dark");
                self.settle(tx_hash, &bytes, false).await
            }
            Err(error) => {
                self.book.change(|state| state.concluded(|_, _| None)).await?;
                self.not_taken(error)
            }
        }
    }

    /// Waits for the block, sending the same bytes again, until the transaction is in one or can be in none.
    ///
    /// `sent`: the node has just taken it. Otherwise nobody knows, so look, then send, then wait.
    async fn settle(&self, tx_hash: TxHash, bytes: &[u8], sent: bool) -> Result<Attempt, RelayerError> {
        let since = Instant::now();
        let mut is_sent = sent;
        let mut failures: u32 = 0;
        loop {
            if !is_sent {
                if let Some(ended) = self.send_again(tx_hash, bytes).await? {
                    return Ok(ended);
                }
            }
            match self.chain.confirm(tx_hash, self.manner.confirm_timeout).await {
                Ok(outcome) => {
                    self.book.board.confirmed_after(since.elapsed());
                    return self.conclude(tx_hash, outcome).await;
                }
                Err(error) if error.decision() == Decision::Stop => return Err(error.into()),
                Err(error) => self.book.board.chain_failed(&error),
            }
            is_sent = false;
            failures = failures.saturating_add(1);
            tokio::time::sleep(self.manner.policy.pause(failures)).await;
        }
    }

    /// None: the node has it, or does not answer.
    async fn send_again(&self, tx_hash: TxHash, bytes: &[u8]) -> Result<Option<Attempt>, RelayerError> {
        match self.chain.find(tx_hash).await {
            Ok(Some(outcome)) => return self.conclude(tx_hash, outcome).await.map(Some),
            Ok(None) => {}
            Err(error) if error.decision() == Decision::Stop => return Err(error.into()),
            Err(_) => return Ok(None),
        }
        let refusal = match self.is_outdated(bytes).await? {
            Some(outdated) => outdated,
            None => {
                let handed_over = self.chain.rebroadcast(bytes).await;
                crash::pass(Point::SentAgain);
                match handed_over {
                    Ok(()) | Err(ChainError::Unavailable(_)) => return Ok(None),
                    Err(error) if error.decision() == Decision::Stop => return Err(error.into()),
                    Err(error) => error,
                }
            }
        };
        // A node's index lags behind its state, and its mempool may hold what its cache has forgotten: only a look after the next block
        // tells that these bytes are in none and never will be.
        self.another_block().await?;
        match self.chain.find(tx_hash).await {
            Ok(Some(outcome)) => self.conclude(tx_hash, outcome).await.map(Some),
            Ok(None) => {
                crash::pass(Point::GivenUp);
                self.book.change(|state| state.concluded(|_, _| None)).await?;
                self.book.board.count(|totals| &mut totals.transactions_dropped, 1);
                tracing::warn!(%tx_hash, reason = %refusal, "given up: it can be in no block any more");
                Ok(Some(Attempt::Again(refusal.to_string())))
            }
            Err(_) => Ok(None),
        }
    }

    /// Whether the blocks that may hold these bytes have gone by, whatever any mempool says.
    async fn is_outdated(&self, bytes: &[u8]) -> Result<Option<ChainError>, RelayerError> {
        let Some(last) = self.chain.last_height(bytes) else {
            return Ok(None);
        };
        match self.chain.head().await {
            Ok(head) if head.moment.height > last => Ok(Some(ChainError::Sequence(format!(
                "it was in no block up to {last}, the last that could hold it"
            )))),
            Err(error) if error.decision() == Decision::Stop => Err(error.into()),
            Ok(_) | Err(_) => Ok(None),
        }
    }

    /// Waits until the chain is at least one block further. A halted chain is waited for: nothing could be done on it anyway.
    async fn another_block(&self) -> Result<(), RelayerError> {
        let mut first = None;
        let mut looks: u32 = 0;
        loop {
            match self.chain.head().await {
                Ok(head) if *first.get_or_insert(head.moment.height) < head.moment.height => return Ok(()),
                Err(error) if error.decision() == Decision::Stop => return Err(error.into()),
                Ok(_) | Err(_) => {}
            }
            looks = looks.saturating_add(1);
            tokio::time::sleep(self.manner.policy.pause(looks)).await;
        }
    }

    /// The transaction is in a block: what it says of each item goes into the checkpoint.
    async fn conclude(&self, tx_hash: TxHash, outcome: Outcome) -> Result<Attempt, RelayerError> {
        crash::pass(Point::InBlock);
        let events = outcome.result.as_deref().unwrap_or_default();
        let stage_of = |item, attempt| match word_on(events, item, attempt)? {
            Ok(()) => Some(Stage::Confirmed { tx_hash }),
            Err(_) => Some(Stage::Refused { tx_hash }),
        };
        self.book.change(|state| state.concluded(stage_of)).await?;
        let board = &self.book.board;
        board.count(|totals| &mut totals.transactions, 1);
        board.count(|totals| &mut totals.transactions_failed, outcome.result.is_err().into());
        let is_attested = |event: &&Event| matches!(event, Event::Attested { .. });
        let is_refused = |event: &&Event| matches!(event, Event::AttestationRefused { .. });
        board.count(|totals| &mut totals.attested, events.iter().filter(is_attested).count());
        let refused = events.iter().filter(is_refused).count();
        board.count(|totals| &mut totals.attestations_refused, refused);
        let is_settled = |event: &&Event| matches!(event, Event::VoucherSettled { .. });
        let is_refused = |event: &&Event| matches!(event, Event::VoucherRefused { .. });
        board.count(
            |totals| &mut totals.vouchers_settled,
            events.iter().filter(is_settled).count(),
        );
        let refused = events.iter().filter(is_refused).count();
        board.count(|totals| &mut totals.vouchers_refused, refused);
        crash::pass(Point::Concluded);
        Ok(match outcome.result {
            Ok(events) => Attempt::InBlock(tx_hash, events),
            Err(failure @ (Failure::OutOfGas(_) | Failure::Outdated(_))) => Attempt::Again(failure.to_string()),
            Err(Failure::Refused(reason)) => Attempt::Refused(reason),
        })
    }

    /// It never got as far as a block, and leaves no trace on chain.
    fn not_taken(&self, error: ChainError) -> Result<Attempt, RelayerError> {
        if let ChainError::Gas(_) = &error {
            self.book.board.trouble(Subject::Gas, &error);
        }
        match error.decision() {
            Decision::Retry => Ok(Attempt::Again(error.to_string())),
            Decision::Skip if matches!(error, ChainError::TooDear(_)) => Ok(Attempt::TooDear(error.to_string())),
            Decision::Skip => {
                self.book.board.count(|totals| &mut totals.transactions_refused, 1);
                Ok(Attempt::Refused(error.to_string()))
            }
            Decision::Stop => Err(error.into()),
        }
    }

    fn answer(&self, batch: Vec<Job>, tx_hash: TxHash, events: &[Event]) {
        for job in batch {
            let verdict = match &job.request {
                Request::Attest(Attestation { item, attempt, .. }) => match word_on(events, *item, *attempt) {
                    Some(Ok(())) => Verdict::Done,
                    Some(Err(reason)) => Verdict::Refused(reason.to_owned()),
                    None => Verdict::Failed(format!("transaction {tx_hash} says nothing about it")),
                },
                Request::Settle(signed) => match word_on_voucher(events, &signed.voucher) {
                    Some(Ok(())) => Verdict::Done,
                    Some(Err(refusal)) => Verdict::Refused(refusal.to_string()),
                    None => Verdict::Failed(format!("transaction {tx_hash} says nothing about it")),
                },
                Request::Evidence(_) | Request::Expire(_) | Request::Round(_) => Verdict::Done,
            };
            self.tell(&job.request, &verdict, tx_hash);
            let _ = job.reply.send(verdict);
        }
    }

    fn tell(&self, request: &Request, verdict: &Verdict, tx_hash: TxHash) {
        match (request, verdict) {
            (Request::Attest(attestation), Verdict::Done) => {
                tracing::info!(item = %attestation.item, attempt = attestation.attempt, %tx_hash, "attested");
            }
            (Request::Attest(attestation), Verdict::Refused(reason)) => {
                tracing::warn!(item = %attestation.item, attempt = attestation.attempt, %tx_hash, %reason, "attestation refused");
            }
            (Request::Attest(attestation), Verdict::Failed(reason)) => {
                tracing::warn!(item = %attestation.item, attempt = attestation.attempt, %tx_hash, %reason, "attestation without an answer");
            }
            (Request::Evidence(evidence), _) => {
                tracing::info!(item = %evidence.item, attempt = evidence.attempt, links = evidence.links.len(), %tx_hash, "evidence posted");
                self.book.board.count(|totals| &mut totals.evidence_posted, 1);
            }
            (Request::Expire(item), _) => {
                tracing::info!(%item, %tx_hash, "expired");
                self.book.board.count(|totals| &mut totals.expired, 1);
            }
            (Request::Settle(signed), verdict) => {
                let Voucher {
                    session,
                    deployment,
                    sequence,
                    ..
                } = signed.voucher;
                match verdict {
                    Verdict::Done => tracing::info!(session, deployment, sequence, %tx_hash, "voucher settled"),
                    Verdict::Refused(reason) | Verdict::Failed(reason) => {
                        tracing::warn!(session, deployment, sequence, %tx_hash, %reason, "voucher refused");
                    }
                }
            }
            (Request::Round(round), _) => {
                tracing::info!(round = round.round, %tx_hash, "round posted");
                self.book.board.count(|totals| &mut totals.rounds_posted, 1);
            }
        }
    }
}

/// What the contract said of one attestation of a batch.
fn word_on(events: &[Event], item: ItemId, attempt: u8) -> Option<Result<(), &str>> {
    events.iter().find_map(|event| match event {
        Event::Attested {
            item: i, attempt: a, ..
        } if (*i, *a) == (item, attempt) => Some(Ok(())),
        Event::AttestationRefused {
            item: i,
            attempt: a,
            reason,
        } if (*i, *a) == (item, attempt) => Some(Err(reason.as_str())),
        _ => None,
    })
}

/// What the contract said of one voucher of a batch.
fn word_on_voucher(events: &[Event], voucher: &Voucher) -> Option<Result<(), VoucherRefusal>> {
    let about = (voucher.session, voucher.deployment, voucher.sequence);
    events.iter().find_map(|event| match event {
        Event::VoucherSettled {
            session,
            deployment,
            sequence,
            ..
        } if (*session, *deployment, *sequence) == about => Some(Ok(())),
        Event::VoucherRefused {
            session,
            deployment,
            sequence,
            reason,
        } if (*session, *deployment, *sequence) == about => Some(Err(*reason)),
        _ => None,
    })
}

fn claims(content: &Batch) -> Vec<(ItemId, u8)> {
    match content {
        Batch::Attest(attestations) => attestations.iter().map(|one| (one.item, one.attempt)).collect(),
        Batch::Evidence(_) | Batch::Expire(_) | Batch::Rounds(_) | Batch::Settle(_) => vec![],
    }
}

/// The content of a batch, all of one kind. None: there is nothing in it.
fn content(batch: &[Job]) -> Option<Batch> {
    let mut content: Option<Batch> = None;
    for job in batch {
        match (&mut content, &job.request) {
            (None, Request::Attest(attestation)) => content = Some(Batch::Attest(vec![attestation.clone()])),
            (None, Request::Evidence(evidence)) => content = Some(Batch::Evidence(vec![evidence.clone()])),
            (None, Request::Expire(item)) => content = Some(Batch::Expire(vec![*item])),
            (None, Request::Settle(voucher)) => content = Some(Batch::Settle(vec![*voucher])),
            (Some(Batch::Settle(all)), Request::Settle(voucher)) => all.push(*voucher),
            (None, Request::Round(round)) => content = Some(Batch::Rounds(vec![round.clone()])),
            (Some(Batch::Rounds(all)), Request::Round(round)) => all.push(round.clone()),
            (Some(Batch::Attest(all)), Request::Attest(attestation)) => all.push(attestation.clone()),
            (Some(Batch::Evidence(all)), Request::Evidence(evidence)) => all.push(evidence.clone()),
            (Some(Batch::Expire(all)), Request::Expire(item)) => all.push(*item),
            _ => debug_assert!(false, "a batch is of one kind"),
        }
    }
    content
}
