//! The client's side of a session: requests go to whichever hosts do them best, and whoever delivers is paid at once.
//!
//! Guarantees:
//! - What was not checked is not paid: signature, digests, units and output of every request (`attempt.rs`), and what is owed is
//!   promised exactly, within the allocation (`issuer.rs`).
//! - A request ends: with an answer, with the sentence why no host would take it, or when its patience is over. A host that dies, lies or
//!   is silent costs a repetition elsewhere under a new number, never a wrong answer.
//! - A host that failed rests, longer with every failure after another; one that lied rests longest.
//! - Nothing is begun that the allocation could not pay for, and no host has more unpaid requests than the credit that it gives.
//! - Dropping the future of a request cancels it.

mod attempt;
mod hosts;
mod leave;
mod link;
mod route;
mod state;

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use client::Wallet;
use cosmwasm_std::Uint128;
use prost::bytes::Bytes;
use schema::{merkle, price::Units, receipt::Domain, session::SignedSessionReceipt, PublicKey};
use tokio::{
    sync::{oneshot, Notify, Semaphore},
    task::JoinSet,
    time::{timeout_at, Instant},
};

use self::{
    attempt::Fault,
    state::{Begun, State, Wait},
};
use crate::{
    issuer::{IssueError, Issuer},
    terms::{Standing, Terms},
};

/// Longest wait before the driver looks again whether a host has become free: everything that makes one free wakes it anyway.
const LOOK_AGAIN: Duration = Duration::from_millis(250);
/// How often what is over is cleared away.
const SWEEP: Duration = Duration::from_millis(250);

/// A deployment that the session has an allocation to.
#[derive(Debug, Clone)]
pub struct Span {
    pub terms: Terms,
    pub standing: Standing,
    /// Signs receipts and consents, as the session has pinned it.
    pub host_key: PublicKey,
    /// Stages that it serves.
    pub first: u8,
    pub last: u8,
    /// What decides the bits: chains stay inside one class.
    pub engine_class: String,
    /// Base URL of its host.
    pub endpoint: String,
}

/// What the driver allows itself and others.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// For a connection.
    pub connect: Duration,
    /// For challenge and welcome.
    pub welcome: Duration,
    /// For one attempt on one chain.
    pub attempt: Duration,
    /// For a request with all its attempts.
    pub patience: Duration,
    /// For receipts of what is over.
    pub grace: Duration,
    pub attempts_max: u32,
    /// First and longest pause of a host that failed; it doubles with every failure after another.
    pub rest: (Duration, Duration),
    /// Requests on their way at once.
    pub requests_max: usize,
    /// Of one message, and of one output.
    pub bytes_max: usize,
    /// Ufunc that each host may have for work that it only says it has done: when a connection breaks, receipts get lost.
    pub conceded_max: Uint128,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(5),
            welcome: Duration::from_secs(5),
            attempt: Duration::from_secs(30),
            patience: Duration::from_secs(120),
            grace: Duration::from_secs(5),
            attempts_max: 8,
            rest: (Duration::from_millis(200), Duration::from_secs(60)),
            requests_max: 64,
            bytes_max: 64 << 20,
            conceded_max: Uint128::zero(),
        }
    }
}

/// A session as its client knows it.
#[derive(Debug)]
pub struct Setup {
    /// That of the escrow.
    pub domain: Domain,
    pub session: u64,
    /// Whose vouchers count.
    pub key: Wallet,
    /// Stages of the model.
    pub stages: u8,
    pub spans: Vec<Span>,
    pub limits: Limits,
}

/// A request.
#[derive(Debug, Clone)]
pub struct Work {
    pub rows: Vec<Bytes>,
    /// What the rows come to, as the client counts them: receipts have to say the same.
    pub units: Units,
}

/// What a request came to.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The number under which it was answered.
    pub number: u64,
    /// Rows of the output.
    pub rows: Vec<Bytes>,
    /// From the first stage to the last: who did it, and what he has signed.
    pub receipts: Vec<SignedSessionReceipt>,
    /// Promised for it, in ufunc.
    pub price: Uint128,
    /// How often it was begun.
    pub attempts: u32,
}

/// Why a request was not answered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// It is its own fault: no host would take it.
    #[error("the request is refused: {0}")]
    Refused(String),
    /// It cannot be paid for.
    #[error(transparent)]
    Money(#[from] IssueError),
    /// Nobody is left who could do it.
    #[error("no host of the session can do it: {0}")]
    NoHosts(String),
    /// Everything that was tried has failed.
    #[error("{attempts} attempts have failed, the last one because of {last}")]
    Failed {
        /// How many.
        attempts: u32,
        /// Why the last one did.
        last: String,
    },
    /// The patience is over.
    #[error("no answer after {seconds} s: {last}")]
    Late {
        /// How long it was waited.
        seconds: u64,
        /// What stood in the way.
        last: String,
    },
}

/// One deployment as the driver sees it.
#[derive(Debug, Clone)]
pub struct Seen {
    pub deployment: u64,
    /// Whether its host has welcomed us.
    pub is_welcome: bool,
    /// What it has delivered and was conceded.
    pub owed: Units,
    /// Promised since the session was opened, in ufunc.
    pub promised: Uint128,
    /// Of the newest voucher.
    pub sequence: u64,
    /// Of it, without proof.
    pub conceded: Uint128,
    /// Not promised yet, in ufunc.
    pub left: Uint128,
    /// What went wrong last.
    pub trouble: Option<String>,
}

struct Inner {
    domain: Domain,
    session: u64,
    key: Wallet,
    limits: Limits,
    spans: Vec<Span>,
    chains: Vec<Vec<usize>>,
    state: Mutex<State>,
    /// Something has become possible.
    changed: Notify,
    room: Semaphore,
}

/// A session at work. Dropping it ends its streams.
pub struct Driver {
    inner: Arc<Inner>,
    _tasks: JoinSet<()>,
}

impl fmt::Debug for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Driver")
            .field("session", &self.inner.session)
            .finish_non_exhaustive()
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Every change is made in one go, so a panic elsewhere leaves nothing half done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Driver {
    /// Dials every host of the session and keeps the connections warm. Must be called inside a runtime.
    pub fn start(setup: Setup) -> Self {
        let Setup {
            domain,
            session,
            key,
            stages,
            spans,
            limits,
        } = setup;
        let issuers = spans
            .iter()
            .map(|span| Issuer::new(span.terms.clone(), span.standing, limits.conceded_max));
        let state = State::new(issuers.collect());
        let inner = Arc::new(Inner {
            chains: route::chains(&spans, stages),
            domain,
            session,
            key,
            limits,
            spans,
            state: Mutex::new(state),
            changed: Notify::new(),
            room: Semaphore::new(limits.requests_max),
        });
        let mut tasks = JoinSet::new();
        for place in 0..inner.spans.len() {
            tasks.spawn(link::attend(Arc::clone(&inner), place));
        }
        let swept = Arc::clone(&inner);
        tasks.spawn(async move {
            loop {
                tokio::time::sleep(SWEEP).await;
                swept.sweep(Instant::now());
            }
        });
        Self { inner, _tasks: tasks }
    }

    /// One request, over whichever hosts can do it. Dropping the future cancels it.
    pub async fn request(&self, work: &Work) -> Result<Answer, RequestError> {
        let limits = &self.inner.limits;
        let begun = Instant::now();
        let deadline = begun.checked_add(limits.patience).unwrap_or(begun);
        let late = |last: &str| RequestError::Late {
            seconds: limits.patience.as_secs(),
            last: last.to_owned(),
        };
        let mut last = "all places were taken".to_owned();
        let Ok(Ok(_room)) = timeout_at(deadline, self.inner.room.acquire()).await else {
            return Err(late(&last));
        };
        let digest = merkle::root(&work.rows);
        for attempts in 1..=limits.attempts_max {
            let begun = match self.begin(work, digest, deadline).await {
                Ok(begun) => begun,
                Err(Some(error)) => return Err(error),
                Err(None) if attempts == 1 => return Err(late(&self.inner.trouble())),
                Err(None) => return Err(late(&last)),
            };
            let mut guard = Guard {
                inner: &self.inner,
                number: begun.number,
                is_open: true,
            };
            let until = Instant::now()
                .checked_add(limits.attempt)
                .unwrap_or(deadline)
                .min(deadline);
            let heard = timeout_at(until, begun.answer).await;
            match heard {
                Ok(Ok(Ok(mut answer))) => {
                    guard.is_open = false;
                    answer.attempts = attempts;
                    return Ok(answer);
                }
                Ok(Ok(Err(Fault::Request(reason)))) => return Err(RequestError::Refused(reason)),
                Ok(Ok(Err(fault))) => last = fault.reason().to_owned(),
                // The state forgets a request only with its answer.
                Ok(Err(_)) => last = "the request was forgotten".to_owned(),
                Err(_) => last = self.inner.too_slow(begun.number),
            }
            tracing::debug!(number = begun.number, last, "a request is repeated elsewhere");
        }
        Err(RequestError::Failed {
            attempts: limits.attempts_max,
            last,
        })
    }

    /// Waits until a chain can take it. `Err(None)`: the deadline has passed.
    async fn begin(
        &self,
        work: &Work,
        digest: schema::Digest,
        deadline: Instant,
    ) -> Result<Begun, Option<RequestError>> {
        loop {
            let changed = self.inner.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let now = Instant::now();
            let until = match self.inner.announce(work, digest, deadline) {
                Ok(begun) => return Ok(begun),
                Err(Wait::Never(error)) => return Err(Some(error)),
                Err(Wait::Until(until)) => until,
            };
            if now >= deadline {
                return Err(None);
            }
            let look = now.checked_add(LOOK_AGAIN).unwrap_or(deadline).min(deadline);
            let _ = timeout_at(until.map_or(look, |until| until.min(look)), changed).await;
        }
    }

    /// What the chain says now: money that was added, vouchers that were settled.
    pub fn settled(&self, standings: &[(u64, Standing)]) {
        let mut state = self.inner.lock();
        for (deployment, standing) in standings {
            if let Some(place) = self.inner.place(*deployment) {
                state.settled(place, standing);
            }
        }
        drop(state);
        self.inner.changed.notify_waiters();
    }

    /// Waits until a whole chain has welcomed us. An error says what stands in the way.
    pub async fn ready(&self, patience: Duration) -> Result<(), String> {
        let deadline = Instant::now().checked_add(patience);
        loop {
            if self.inner.is_ready() {
                return Ok(());
            }
            if deadline.is_none_or(|deadline| Instant::now() >= deadline) {
                return Err(self.inner.trouble());
            }
            let changed = self.inner.changed.notified();
            // A change before this line is seen a moment later.
            let _ = tokio::time::timeout(LOOK_AGAIN, changed).await;
        }
    }

    /// Waits until nothing is on its way any more and every host has its newest voucher on the disk. Whoever drops a driver without it may
    /// leave work behind that was delivered and is not paid. False: not in time.
    pub async fn pay_up(&self, patience: Duration) -> bool {
        let deadline = Instant::now().checked_add(patience);
        loop {
            let changed = self.inner.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if self.inner.is_paid_up() {
                return true;
            }
            if deadline.is_none_or(|deadline| Instant::now() >= deadline) {
                return false;
            }
            let _ = tokio::time::timeout(LOOK_AGAIN, changed).await;
        }
    }

    /// The first chain of the session that could be paid for so much more work; None: no chain alone could.
    pub fn payable(&self, units: Units) -> Option<Vec<u64>> {
        self.inner.payable(units)
    }

    /// How every deployment of the session stands, in the order of the setup.
    pub fn seen(&self) -> Vec<Seen> {
        self.inner.seen()
    }
}

/// Tells the hosts that nobody waits any more.
struct Guard<'a> {
    inner: &'a Inner,
    number: u64,
    is_open: bool,
}

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        if self.is_open {
            self.inner.give_up(self.number);
        }
    }
}

type Verdict = Result<Answer, Fault>;
type Waiter = oneshot::Sender<Verdict>;
