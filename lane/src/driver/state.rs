//! Everything that changes while a session is at work, behind one lock that is never held across a wait.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use cosmwasm_std::Uint128;
use prost::bytes::Bytes;
use schema::{escrow::Consent, session::SignedSessionReceipt, session::SignedVoucher, Digest, Signature};
use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};

use super::{
    attempt::{Attempt, Effect, Fault},
    route::{self, Record},
    Answer, Inner, RequestError, Verdict, Waiter, Work,
};
use crate::{
    issuer::Issuer,
    proto::{to_host::Content, Cancel, Request, Row, ToHost},
    terms::Standing,
};

/// Least pause after a host had no room, whatever it asks for.
const BUSY_LEAST: Duration = Duration::from_millis(20);

/// The way to a host that has welcomed us. What waits in it is bounded by the requests on their way.
#[derive(Debug, Clone)]
pub(super) struct Port {
    pub(super) sender: mpsc::UnboundedSender<ToHost>,
    pub(super) credit: u32,
    pub(super) rows_max: u32,
    pub(super) bytes_max: u64,
}

impl Port {
    pub(super) fn send(&self, content: Content) {
        // A stream that has ended is told of by its reader.
        let _ = self.sender.send(ToHost { content: Some(content) });
    }
}

/// One deployment.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) issuer: Issuer,
    pub(super) port: Option<Port>,
    pub(super) record: Record,
    /// It takes nothing any more, unless it welcomes us again.
    pub(super) over: Option<String>,
    /// Greetings that it refused in a row.
    pub(super) refusals: u32,
    pub(super) trouble: Option<String>,
    /// Who waits for its consent.
    pub(super) leaving: Option<oneshot::Sender<Result<Consent, String>>>,
    /// Its stream has to begin anew.
    pub(super) is_stale: bool,
    /// Sequence of the newest voucher, as long as the host has not said that it is safe.
    pub(super) unheld: Option<u64>,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) links: Vec<Link>,
    pub(super) open: BTreeMap<u64, Open>,
    number: u64,
}

/// A request on its way, or one whose last receipts are still awaited.
#[derive(Debug)]
pub(super) struct Open {
    pub(super) attempt: Attempt,
    chain: Vec<usize>,
    waiter: Option<Waiter>,
    /// When the span before the next one was done.
    mark: Instant,
    over_since: Option<Instant>,
    price: Uint128,
}

#[derive(Debug)]
pub(super) struct Begun {
    pub(super) number: u64,
    pub(super) answer: oneshot::Receiver<Verdict>,
}

/// Why nothing could be begun.
#[derive(Debug)]
pub(super) enum Wait {
    Never(RequestError),
    /// Until something changes, or this moment.
    Until(Option<Instant>),
}

/// Why a host cannot take a request.
#[derive(Debug)]
enum Not {
    Over(String),
    Money(RequestError),
    TooLarge(String),
    Now(Option<Instant>),
}

impl State {
    pub(super) fn new(issuers: Vec<Issuer>) -> Self {
        let link = |issuer| Link {
            issuer,
            port: None,
            record: Record::default(),
            over: None,
            refusals: 0,
            trouble: None,
            leaving: None,
            is_stale: false,
            unheld: None,
        };
        Self {
            links: issuers.into_iter().map(link).collect(),
            open: BTreeMap::new(),
            number: 0,
        }
    }

    pub(super) fn settled(&mut self, place: usize, standing: &Standing) {
        if let Some(link) = self.links.get_mut(place) {
            link.issuer.settled(standing);
        }
    }

    /// Numbers rise over all processes that ever used the session: they begin with the clock.
    fn next_number(&mut self) -> u64 {
        let clock = SystemTime::now().duration_since(UNIX_EPOCH);
        let clock = clock.map_or(0, |since| u64::try_from(since.as_micros()).unwrap_or(u64::MAX));
        self.number = clock.max(self.number.saturating_add(1));
        self.number
    }
}

impl Link {
    fn check(&self, work: &Work, bytes: u64, now: Instant) -> Result<(), Not> {
        if let Some(reason) = &self.over {
            return Err(Not::Over(reason.clone()));
        }
        self.issuer
            .can_reserve(work.units)
            .map_err(|error| Not::Money(error.into()))?;
        let Some(port) = &self.port else {
            return Err(Not::Now(None));
        };
        let rows = work.rows.len();
        if rows > usize::try_from(port.rows_max).unwrap_or(usize::MAX) || bytes > port.bytes_max {
            let (rows_max, bytes_max) = (port.rows_max, port.bytes_max);
            return Err(Not::TooLarge(format!(
                "it has {rows} rows and {bytes} bytes, its hosts take {rows_max} and {bytes_max}"
            )));
        }
        if let Some(until) = self.record.resting(now) {
            return Err(Not::Now(Some(until)));
        }
        match self.record.open < port.credit.max(1) && !self.is_stale {
            true => Ok(()),
            false => Err(Not::Now(None)),
        }
    }
}

impl Inner {
    pub(super) fn place(&self, deployment: u64) -> Option<usize> {
        self.spans.iter().position(|span| span.terms.deployment == deployment)
    }

    fn sign(&self, digest: &Digest) -> Signature {
        Signature(self.key.sign_digest(&digest.0))
    }

    /// Begins a request on the better of two chains that can take it.
    pub(super) fn announce(&self, work: &Work, digest: Digest, deadline: Instant) -> Result<Begun, Wait> {
        let bytes = work.rows.iter().map(Bytes::len).fold(0_usize, usize::saturating_add);
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        let mut state = self.lock();
        let now = Instant::now();
        let standing: Vec<Result<(), Not>> = state.links.iter().map(|link| link.check(work, bytes, now)).collect();
        let can = |place: &usize| matches!(standing.get(*place), Some(Ok(())));
        let usable: Vec<&Vec<usize>> = self.chains.iter().filter(|chain| chain.iter().all(can)).collect();
        let records: Vec<Record> = state.links.iter().map(|link| link.record).collect();
        let Some(chain) = route::choose(&usable, &records) else {
            return Err(self.why_not(standing));
        };
        let number = state.next_number();
        for place in chain {
            let link = state.links.get_mut(*place);
            if let Some(link) = link {
                // Checked above, and every deployment is in a chain once.
                let _ = link.issuer.reserve(work.units);
                link.record.open = link.record.open.saturating_add(1);
            }
        }
        let members = chain.iter().filter_map(|place| self.spans.get(*place));
        let legs: Vec<_> = members.map(|span| (span.terms.deployment, span.host_key)).collect();
        let patience = deadline.saturating_duration_since(now).min(self.limits.attempt);
        let request = Request {
            number,
            chain: legs.iter().map(|(deployment, _)| *deployment).collect(),
            rows: u32::try_from(work.rows.len()).unwrap_or(u32::MAX),
            bytes,
            digest: digest.0.to_vec(),
            patience_ms: u32::try_from(patience.as_millis()).unwrap_or(u32::MAX),
        };
        for (position, place) in chain.iter().enumerate() {
            let Some(port) = state.links.get(*place).and_then(|link| link.port.as_ref()) else {
                continue;
            };
            port.send(Content::Request(request.clone()));
            if position == 0 {
                for bytes in &work.rows {
                    let bytes = bytes.clone();
                    port.send(Content::Row(Row { number, bytes }));
                }
            }
        }
        let domain = (self.domain.clone(), self.session);
        let attempt = Attempt::new(domain, number, legs, (digest, work.units), self.limits.bytes_max);
        let (waiter, answer) = oneshot::channel();
        let open = Open {
            attempt,
            chain: chain.clone(),
            waiter: Some(waiter),
            mark: now,
            over_since: None,
            price: Uint128::zero(),
        };
        state.open.insert(number, open);
        Ok(Begun { number, answer })
    }

    /// What stands in the way of every chain.
    fn why_not(&self, standing: Vec<Result<(), Not>>) -> Wait {
        let (mut until, mut last) = (None::<Instant>, None);
        let mut is_hopeful = false;
        for chain in &self.chains {
            let members = || {
                chain
                    .iter()
                    .filter_map(|place| standing.get(*place))
                    .filter_map(|it| it.as_ref().err())
            };
            let never = members().find_map(|not| match not {
                Not::Over(reason) => Some(RequestError::NoHosts(reason.clone())),
                Not::Money(error) => Some(error.clone()),
                Not::TooLarge(reason) => Some(RequestError::Refused(reason.clone())),
                Not::Now(_) => None,
            });
            if let Some(error) = never {
                // Money can be added: of several reasons it is the one to know.
                let is_better = last.is_none() || matches!(error, RequestError::Money(_));
                last = if is_better { Some(error) } else { last };
                continue;
            }
            is_hopeful = true;
            let rests = members().filter_map(|not| match not {
                Not::Now(until) => *until,
                _ => None,
            });
            until = [until, rests.max()].into_iter().flatten().min();
        }
        match last {
            _ if is_hopeful => Wait::Until(until),
            Some(error) => Wait::Never(error),
            None => Wait::Never(RequestError::NoHosts(
                "its deployments make no complete chain of one engine class".into(),
            )),
        }
    }

    /// What was said about a request on the stream of a place.
    pub(super) fn hear(&self, number: u64, say: impl FnOnce(&mut Attempt) -> Vec<Effect>) {
        let mut state = self.lock();
        if let Some(open) = state.open.get_mut(&number) {
            let effects = say(&mut open.attempt);
            self.apply(&mut state, number, effects);
        }
    }

    pub(super) fn receipt(&self, place: usize, signed: SignedSessionReceipt) {
        let Some(span) = self.spans.get(place) else { return };
        let deployment = span.terms.deployment;
        self.hear(signed.receipt.sequence, |attempt| attempt.receipt(deployment, signed));
    }

    pub(super) fn apply(&self, state: &mut State, number: u64, effects: Vec<Effect>) {
        let State { links, open, .. } = state;
        let Some(request) = open.get_mut(&number) else { return };
        let now = Instant::now();
        let units = request.attempt.units;
        for effect in effects {
            let link_of = |place: &usize| request.chain.get(*place).copied();
            match effect {
                Effect::Release(position) => {
                    if let Some(link) = link_of(&position).and_then(|place| links.get_mut(place)) {
                        link.issuer.release(units);
                        link.record.open = link.record.open.saturating_sub(1);
                    }
                }
                Effect::Pay(position) => {
                    let Some(link) = link_of(&position).and_then(|place| links.get_mut(place)) else {
                        continue;
                    };
                    let before = link.issuer.amount();
                    if let Err(error) = link.issuer.deliver(units) {
                        link.trouble = Some(error.to_string());
                        continue;
                    }
                    link.record.succeeded(now.saturating_duration_since(request.mark));
                    request.mark = now;
                    self.pay(link);
                    let more = link.issuer.amount().saturating_sub(before);
                    request.price = request.price.saturating_add(more);
                }
                Effect::Concede(position) => {
                    let Some(link) = link_of(&position).and_then(|place| links.get_mut(place)) else {
                        continue;
                    };
                    match link.issuer.concede(units) {
                        Ok(()) => self.pay(link),
                        Err(error) => link.trouble = Some(error.to_string()),
                    }
                }
                Effect::Done => {
                    request.over_since = Some(now);
                    let answer = Answer {
                        number,
                        rows: std::mem::take(&mut request.attempt.output),
                        receipts: request.attempt.receipts(),
                        price: request.price,
                        attempts: 0,
                    };
                    answer_to(request, Ok(answer));
                }
                Effect::Failed(fault) => {
                    request.over_since = Some(now);
                    self.blame(links, &fault, now);
                    cancel(links, request);
                    answer_to(request, Err(fault));
                }
            }
        }
        if open
            .get(&number)
            .is_some_and(|open| open.over_since.is_some() && open.attempt.is_done())
        {
            open.remove(&number);
        }
        self.changed.notify_waiters();
    }

    /// Promises what is owed, ahead of whatever is sent next.
    pub(super) fn pay(&self, link: &mut Link) {
        match link.issuer.voucher(|digest| self.sign(digest)) {
            Ok(Some(signed)) => {
                link.unheld = Some(signed.voucher.sequence);
                send_voucher(link, &signed);
            }
            Ok(None) => {}
            Err(error) => link.trouble = Some(error.to_string()),
        }
    }

    fn blame(&self, links: &mut [Link], fault: &Fault, now: Instant) {
        let deployments = match fault {
            Fault::Request(_) => return,
            Fault::Hosts { deployments, .. } => deployments.as_slice(),
            Fault::Busy { deployment, .. } | Fault::Credit { deployment, .. } | Fault::Over { deployment, .. } => {
                std::slice::from_ref(deployment)
            }
        };
        let places: Vec<usize> = deployments
            .iter()
            .filter_map(|deployment| self.place(*deployment))
            .collect();
        for place in places {
            let Some(link) = links.get_mut(place) else { continue };
            link.trouble = Some(fault.reason().to_owned());
            match fault {
                Fault::Request(_) => {}
                Fault::Hosts { is_lie, .. } => link.record.failed(*is_lie, self.limits.rest, now),
                Fault::Busy { retry_after_ms, .. } => {
                    let asked = Duration::from_millis((*retry_after_ms).into());
                    link.record.rests(asked.clamp(BUSY_LEAST, self.limits.attempt), now);
                }
                Fault::Credit { .. } => {
                    // It has counted what we do not know of: a new welcome tells what.
                    link.record.failed(false, self.limits.rest, now);
                    link.is_stale = true;
                }
                Fault::Over { reason, .. } => link.over = Some(reason.clone()),
            }
        }
    }

    /// Nobody waits any more.
    pub(super) fn give_up(&self, number: u64) {
        let mut state = self.lock();
        let State { links, open, .. } = &mut *state;
        let Some(request) = open.get_mut(&number).filter(|open| open.over_since.is_none()) else {
            return;
        };
        request.attempt.over();
        request.over_since = Some(Instant::now());
        request.waiter = None;
        cancel(links, request);
    }

    /// An attempt has taken too long. Returns a sentence about who kept everybody waiting.
    pub(super) fn too_slow(&self, number: u64) -> String {
        let mut state = self.lock();
        let Some(open) = state.open.get(&number) else {
            return "an answer that came too late".into();
        };
        let deployment = open.attempt.slow();
        let reason = format!(
            "deployment {deployment}: no answer in {} s",
            self.limits.attempt.as_secs()
        );
        let fault = Fault::Hosts {
            deployments: vec![deployment],
            is_lie: false,
            reason: reason.clone(),
        };
        self.blame(&mut state.links, &fault, Instant::now());
        reason
    }

    /// Clears away what is over.
    pub(super) fn sweep(&self, now: Instant) {
        let mut state = self.lock();
        let grace = self.limits.grace;
        let is_old = |open: &Open| {
            open.over_since
                .is_some_and(|since| now.saturating_duration_since(since) >= grace)
        };
        let is_ripe = |open: &Open| open.over_since.is_some() && (open.attempt.is_silent() || is_old(open));
        let ripe: Vec<u64> = state
            .open
            .iter()
            .filter(|(_, open)| is_ripe(open))
            .map(|(number, _)| *number)
            .collect();
        for number in ripe {
            let Some(open) = state.open.get_mut(&number) else {
                continue;
            };
            let effects = open.attempt.finish();
            self.apply(&mut state, number, effects);
            state.open.remove(&number);
        }
    }
}

pub(super) fn send_voucher(link: &Link, signed: &SignedVoucher) {
    // Numbers and a signature always serialise.
    if let (Some(port), Ok(json)) = (&link.port, serde_json::to_vec(signed)) {
        port.send(Content::Voucher(json));
    }
}

/// Whoever is still at it may stop.
fn cancel(links: &[Link], request: &Open) {
    for (place, leg) in request.chain.iter().zip(&request.attempt.legs) {
        let port = links.get(*place).and_then(|link| link.port.as_ref());
        if let (true, Some(port)) = (leg.is_awaited(), port) {
            let number = request.attempt.number;
            port.send(Content::Cancel(Cancel { number }));
        }
    }
}

fn answer_to(request: &mut Open, verdict: Verdict) {
    if let Some(waiter) = request.waiter.take() {
        // Who has gone away does not wait.
        let _ = waiter.send(verdict);
    }
}
