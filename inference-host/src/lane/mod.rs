//! Sessions: clients that pay by voucher, request by request, without a transaction. `lane/README.md` tells the conversation.
//!
//! - `attend`: the control stream of a client, from the challenge to the last voucher.
//! - `request`: one request, from its announcement to the receipt; `push`: what comes from the span before and goes to the next.
//! - `store`: the best voucher of every session, on the disk before work relies on it.
//! - `safety`: which vouchers have to be on the disk before a request is computed.
//! - `settle`: what the relayer is told and tells, the consent to an early end, and what the chain says meanwhile.
//! - `denied`: refusals in the words of the lane. What is believed of a client is `lane::acceptor`.
//!
//! Guarantees: nothing is computed but requests that whoever has the session's key has announced, inside the credit; before anything is computed
//! the vouchers that allow it are on the disk; what is known of a session is forgotten only once the chain has closed it, or its last date has
//! passed; streams, sessions, rows, bytes, announcements and waits are bounded.

mod attend;
mod denied;
mod push;
mod request;
mod safety;
mod settle;
pub(crate) mod store;

use std::{
    collections::HashMap,
    io,
    path::PathBuf,
    sync::{
        atomic::{AtomicBool, AtomicU64, Ordering},
        Arc, Mutex, MutexGuard, PoisonError,
    },
    time::Duration,
};

use cosmwasm_std::Uint128;
use lane::{
    acceptor::{Acceptor, Kept},
    proto::{to_client::Content, ToClient},
    terms::Terms,
};
use schema::{
    escrow::{AllocationResponse, AllocationState},
    PublicKey,
};
use serde::Serialize;
use tokio::{
    sync::{mpsc, watch, Semaphore},
    time::Instant,
};
use tokio_util::sync::CancellationToken;
use tonic::Status;

pub(crate) use self::{attend::LaneService, denied::Denied};
use self::{
    request::Asked,
    safety::Unsafe,
    store::{Line, Store},
};
use crate::{
    aside::Aside,
    chain::{ChainError, OpenedSession},
    host::Host,
    metrics::Metrics,
};

/// A session and a deployment of ours in it.
pub(crate) type Key = (u64, u64);
/// Streams and pushes of whoever has not proven anything yet.
const STRANGERS_MAX: usize = 128;
/// How old what we know of a session may be where it is asked for because something has changed.
const LOOK_PAUSE: Duration = Duration::from_secs(1);
/// Sessions that the status shows.
const SHOWN_MAX: usize = 64;

type Out = mpsc::Sender<Result<ToClient, Status>>;

/// All sessions of this host.
#[derive(Debug)]
pub(crate) struct Lane {
    members: Mutex<HashMap<Key, Arc<Member>>>,
    /// What an earlier process has left, until the chain was asked about it.
    left: Mutex<HashMap<Key, Line>>,
    pub(crate) store: Store,
    strangers: Semaphore,
    /// Pushes that wait for their announcement.
    early: Semaphore,
    streams: AtomicU64,
}

/// A deployment of ours in a session.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) key: Key,
    state: Mutex<State>,
    /// Changes whenever something does that somebody may wait for.
    changes: watch::Sender<u64>,
}

#[derive(Debug)]
struct State {
    opened: OpenedSession,
    looked_at: Instant,
    /// The chain does not know it any more.
    is_gone: bool,
    acceptor: Acceptor,
    /// Vouchers that may not be on the disk yet.
    unsafe_vouchers: Unsafe,
    /// Chain time since when there is something to settle.
    since: Option<u64>,
    attached: Option<Attached>,
    /// Announced requests whose rows come from the span before.
    waiting: HashMap<u64, Waiting>,
    /// Requests whose rows are here.
    running: HashMap<u64, Running>,
    /// The client wants to leave: no more requests.
    is_leaving: bool,
    /// We claim no more.
    is_consented: bool,
}

/// The stream on which the client hears of it.
#[derive(Debug, Clone)]
struct Attached {
    stream: u64,
    out: Out,
    cut: CancellationToken,
}

#[derive(Debug, Clone)]
struct Waiting {
    asked: Asked,
    stream: u64,
    is_claimed: bool,
}

#[derive(Debug, Clone)]
struct Running {
    cancel: CancellationToken,
    /// Set once the rows are in the queue, and true once any has left it.
    begun: Option<Arc<AtomicBool>>,
}

/// What the status says of a session.
#[derive(Debug, Serialize)]
pub(crate) struct SessionStatus {
    session: u64,
    deployment: u64,
    state: AllocationState,
    attended: bool,
    /// Waiting or running.
    open_requests: usize,
    /// Rows of finished requests.
    rows: u64,
    units: u64,
    /// Whether vouchers cover all of it.
    paid: bool,
    /// Of the best voucher, 0 for none.
    sequence: u64,
    settled_sequence: u64,
    /// Ufunc that the best voucher promises and the chain has not paid.
    unsettled: Uint128,
    /// The session's key has settled what an honest client would not have signed beside our vouchers.
    contradicted: bool,
}

impl Lane {
    /// Reads back what was kept in this folder.
    pub(crate) fn open(folder: PathBuf, aside: &Aside, metrics: Arc<Metrics>, pushes_max: usize) -> io::Result<Self> {
        let (store, lines) = Store::open(folder, aside, metrics)?;
        let left = lines.into_iter().map(|line| ((line.session, line.deployment), line));
        Ok(Self {
            members: Mutex::default(),
            left: Mutex::new(left.collect()),
            store,
            strangers: Semaphore::new(STRANGERS_MAX),
            early: Semaphore::new(pushes_max),
            streams: AtomicU64::new(0),
        })
    }

    fn members(&self) -> MutexGuard<'_, HashMap<Key, Arc<Member>>> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn left(&self) -> MutexGuard<'_, HashMap<Key, Line>> {
        self.left.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn find(&self, key: Key) -> Option<Arc<Member>> {
        self.members().get(&key).cloned()
    }

    fn all(&self) -> Vec<Arc<Member>> {
        self.members().values().cloned().collect()
    }

    /// Sessions that are remembered.
    pub(crate) fn sessions(&self) -> usize {
        self.members().len().saturating_add(self.left().len())
    }

    /// Sessions whose client is here.
    pub(crate) fn attended(&self) -> usize {
        let attended = |member: &&Arc<Member>| member.lock().attached.is_some();
        self.all().iter().filter(attended).count()
    }

    /// Ufunc that vouchers promise and the chain has not paid yet.
    pub(crate) fn unsettled(&self) -> Uint128 {
        let worth = |member: &Arc<Member>| member.lock().acceptor.worth();
        self.all()
            .iter()
            .map(worth)
            .fold(Uint128::zero(), Uint128::saturating_add)
    }

    /// The sessions that are worth most.
    pub(crate) fn status(&self) -> Vec<SessionStatus> {
        let mut all: Vec<SessionStatus> = self.all().iter().map(|member| member.status()).collect();
        all.sort_by_key(|status| (std::cmp::Reverse((status.unsettled, status.attended)), status.session));
        all.truncate(SHOWN_MAX);
        all
    }

    fn next_stream(&self) -> u64 {
        self.streams.fetch_add(1, Ordering::Relaxed)
    }

    /// Remembers a session of which the chain has just told. Whoever knows it already gets what is known.
    fn learn(&self, host: &Host, key: Key, opened: OpenedSession) -> Result<Arc<Member>, Denied> {
        host.own(&opened, key.1)?;
        let mut members = self.members();
        if let Some(member) = members.get(&key) {
            member.look(opened);
            return Ok(Arc::clone(member));
        }
        let line = self.left().remove(&key);
        let (sessions, max) = (members.len(), host.config.sessions_max);
        if line.is_none() && sessions >= max {
            let reason = format!("{sessions} sessions are remembered, at most {max} may be");
            return Err(Denied::new(lane::proto::Code::Overloaded, reason));
        }
        let member = Member::new(key, opened, host.config.credit_requests, line);
        let member = Arc::new(member.ok_or_else(|| Denied::session("it has no such allocation"))?);
        member.date(host.clock.now());
        members.insert(key, Arc::clone(&member));
        Ok(member)
    }

    /// Forgets a session that is over.
    fn forget(&self, member: &Member) {
        self.members().remove(&member.key);
        self.store.keep(Line {
            kept: None,
            ..member.lock().line(member.key)
        });
        member.cut();
    }
}

impl Host {
    /// Whether a session is with us, under the key that we sign with.
    fn own(&self, opened: &OpenedSession, deployment: u64) -> Result<(), Denied> {
        let mut allocations = opened.session.allocations.iter();
        let Some(own) = allocations.find(|allocation| allocation.deployment == deployment) else {
            let session = opened.session.session;
            let reason = format!("session {session} has no allocation to deployment {deployment}");
            return Err(Denied::session(reason));
        };
        let ours = PublicKey(self.host_key.public_key());
        if own.provider != self.config.provider {
            let provider = &self.config.provider;
            return Err(Denied::session(format!(
                "deployment {deployment} is not of provider {provider}"
            )));
        }
        match own.host_key == ours {
            true => Ok(()),
            false => Err(Denied::session(format!(
                "the session has pinned host key {} for deployment {deployment}, this host signs with {ours}",
                own.host_key
            ))),
        }
    }

    /// Asks the chain about a session that is known here.
    async fn look(&self, member: &Arc<Member>) -> Result<(), ChainError> {
        let answer = self.chain.session(member.key.0).await;
        match answer {
            Ok(opened) => member.look(opened),
            Err(ChainError::Refused { .. }) => {
                let mut state = member.lock();
                state.is_gone = true;
                state.looked_at = Instant::now();
            }
            Err(error) => return Err(error),
        }
        member.date(self.clock.now());
        let is_over = {
            let state = member.lock();
            let is_closed = state.acceptor.standing().state == AllocationState::Closed;
            let is_past = self.clock.sure_now().is_ok_and(|now| now > state.until());
            is_closed || (state.is_gone && is_past)
        };
        if is_over {
            tracing::info!(session = member.key.0, deployment = member.key.1, "a session is over");
            self.lane.forget(member);
        }
        Ok(())
    }

    /// The same because something seems to have changed; not more often than it is worth.
    async fn look_again(&self, member: &Arc<Member>) -> bool {
        let is_fresh = member.lock().looked_at.elapsed() < LOOK_PAUSE;
        !is_fresh && self.look(member).await.is_ok()
    }
}

impl Member {
    fn new(key: Key, opened: OpenedSession, credit: u32, line: Option<Line>) -> Option<Self> {
        let (terms, standing) = Terms::of(opened.domain.clone(), &opened.session, key.1)?;
        let acceptor = Acceptor::new(terms, standing, credit, line.and_then(|line| line.kept));
        let state = State {
            opened,
            looked_at: Instant::now(),
            is_gone: false,
            acceptor,
            unsafe_vouchers: Unsafe::default(),
            since: None,
            attached: None,
            waiting: HashMap::new(),
            running: HashMap::new(),
            is_leaving: false,
            is_consented: line.is_some_and(|line| line.consented),
        };
        Some(Self {
            key,
            state: Mutex::new(state),
            changes: watch::Sender::new(0),
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Every change of the state is one call of the acceptor or one assignment.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn changed(&self) {
        self.changes.send_modify(|version| *version = version.wrapping_add(1));
    }

    /// What the chain says now.
    fn look(&self, opened: OpenedSession) {
        let standing = Terms::of(opened.domain.clone(), &opened.session, self.key.1);
        {
            let mut state = self.lock();
            let was_contradicted = state.acceptor.is_contradicted();
            if let Some((_, standing)) = standing {
                state.acceptor.settled(standing);
            }
            state.opened = opened;
            state.looked_at = Instant::now();
            state.is_gone = false;
            if state.acceptor.is_contradicted() && !was_contradicted {
                let (session, deployment) = self.key;
                tracing::warn!(session, deployment, "a voucher was settled that contradicts ours");
            }
        }
        self.changed();
    }

    /// Notes since when there is something to settle.
    fn date(&self, now: u64) {
        let mut state = self.lock();
        state.since = match state.acceptor.worth().is_zero() {
            true => None,
            false => state.since.or(Some(now)),
        };
    }

    /// Ends the stream, if there is one.
    fn cut(&self) {
        if let Some(attached) = self.lock().attached.take() {
            attached.cut.cancel();
        }
        self.changed();
    }

    /// Takes the place of an older stream of the same client.
    fn attach(&self, stream: u64, out: Out) -> CancellationToken {
        let cut = CancellationToken::new();
        let attached = Attached {
            stream,
            out,
            cut: cut.clone(),
        };
        let older = self.lock().attached.replace(attached);
        if let Some(older) = older {
            older.cut.cancel();
            self.detach(older.stream);
        }
        cut
    }

    /// The stream has ended: what it has announced and nobody has begun is of no use to anybody.
    fn detach(&self, stream: u64) {
        let mut state = self.lock();
        if state
            .attached
            .as_ref()
            .is_some_and(|attached| attached.stream == stream)
        {
            state.attached = None;
        }
        let State { waiting, acceptor, .. } = &mut *state;
        waiting.retain(|number, announced| {
            let stays = announced.stream != stream;
            if !stays {
                acceptor.drop(*number);
            }
            stays
        });
        drop(state);
        self.changed();
    }

    /// Says something to the client, if it is here and listens.
    async fn tell(&self, content: Content, patience: Duration) {
        let Some(attached) = self.lock().attached.clone() else {
            return;
        };
        let content = Some(content);
        let told = tokio::time::timeout(patience, attached.out.send(Ok(ToClient { content }))).await;
        if !matches!(told, Ok(Ok(()))) {
            attached.cut.cancel();
        }
    }

    fn status(&self) -> SessionStatus {
        let state = self.lock();
        let (kept, standing) = (state.acceptor.kept(), state.acceptor.standing());
        SessionStatus {
            session: self.key.0,
            deployment: self.key.1,
            state: standing.state,
            attended: state.attached.is_some(),
            open_requests: state.acceptor.open(),
            rows: kept.counted.requests,
            units: kept.counted.units_in.saturating_add(kept.counted.units_out),
            paid: state.acceptor.is_paid(),
            sequence: state.acceptor.best().map_or(0, |best| best.voucher.sequence),
            settled_sequence: standing.sequence,
            unsettled: state.acceptor.worth(),
            contradicted: state.acceptor.is_contradicted(),
        }
    }
}

impl State {
    fn kept(&self) -> Kept {
        self.acceptor.kept()
    }

    /// What is kept of it on the disk.
    fn line(&self, key: Key) -> Line {
        Line {
            session: key.0,
            deployment: key.1,
            until: self.until(),
            consented: self.is_consented,
            kept: Some(self.kept()),
        }
    }

    /// After this the allocation may be closed in any case.
    fn until(&self) -> u64 {
        let session = &self.opened.session;
        session.expires_at.saturating_add(session.close_notice_seconds)
    }

    fn allocation(&self, deployment: u64) -> Option<&AllocationResponse> {
        let mut allocations = self.opened.session.allocations.iter();
        allocations.find(|allocation| allocation.deployment == deployment)
    }

    /// Why no further request is taken, if so.
    fn closed_to_requests(&self, now: u64) -> Option<String> {
        let expires_at = self.opened.session.expires_at;
        if self.is_gone {
            return Some("the chain does not know the session any more".to_owned());
        }
        if self.is_leaving || self.is_consented {
            return Some("the client has asked to leave".to_owned());
        }
        if self.acceptor.is_contradicted() {
            return Some("a voucher was settled that contradicts those that this host was given".to_owned());
        }
        if self.acceptor.standing().state != AllocationState::Open {
            return Some("the allocation is closing".to_owned());
        }
        (now >= expires_at).then(|| format!("the session has expired at {expires_at}, now it is {now}"))
    }
}
