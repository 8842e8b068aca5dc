//! What becomes of a deployment's stream: welcomed, turned away, told off, ended; and what stands in the way of a request because of it.

use schema::{price::Units, session::SignedVoucher};
use tokio::{sync::mpsc, time::Instant};

use super::{
    state::{send_voucher, Port},
    Inner, Seen,
};
use crate::proto::{Code, ToHost, Welcome};

/// Refused greetings after which a session is believed to be over: a host may hear of a new one later than its client.
const REFUSALS_MAX: u32 = 6;

impl Inner {
    /// A host has welcomed us. An error is a sentence: it claims what it must not.
    pub(super) fn welcomed(
        &self,
        place: usize,
        welcome: &Welcome,
        sender: mpsc::UnboundedSender<ToHost>,
    ) -> Result<(), String> {
        let shown: Option<SignedVoucher> = match welcome.voucher.as_slice() {
            [] => None,
            json => Some(serde_json::from_slice(json).map_err(|error| format!("it shows no voucher: {error}"))?),
        };
        let counted = Units {
            requests: welcome.requests,
            units_in: welcome.units_in,
            units_out: welcome.units_out,
        };
        let mut state = self.lock();
        let now = Instant::now();
        let deployment = self.spans.get(place).map_or(0, |span| span.terms.deployment);
        for open in state.open.values_mut() {
            open.attempt.forget(deployment);
        }
        let Some(link) = state.links.get_mut(place) else {
            return Err("it has no part in the session".into());
        };
        if let Err(error) = link.issuer.welcomed(shown.as_ref(), counted) {
            link.record.failed(true, self.limits.rest, now);
            return Err(error.to_string());
        }
        let requests_max = u32::try_from(self.limits.requests_max).unwrap_or(u32::MAX);
        link.port = Some(Port {
            sender,
            credit: welcome.credit_requests.min(requests_max),
            rows_max: welcome.rows_max,
            bytes_max: welcome.bytes_max,
        });
        link.is_stale = false;
        link.trouble = None;
        link.over = None;
        link.refusals = 0;
        let before = link.issuer.sequence();
        self.pay(link);
        if link.issuer.sequence() == before {
            let best = link.issuer.best().copied();
            match best.filter(|best| Some(best) != shown.as_ref()) {
                Some(best) => {
                    link.unheld = Some(best.voucher.sequence);
                    send_voucher(link, &best);
                }
                None => link.unheld = None,
            }
        }
        drop(state);
        self.changed.notify_waiters();
        Ok(())
    }

    /// The stream of a place has ended, or never begun.
    pub(super) fn ended(&self, place: usize, reason: &str) {
        let mut state = self.lock();
        let deployment = self.spans.get(place).map_or(0, |span| span.terms.deployment);
        if let Some(link) = state.links.get_mut(place) {
            link.port = None;
            link.trouble = Some(reason.to_owned());
            if let Some(leaving) = link.leaving.take() {
                let _ = leaving.send(Err(reason.to_owned()));
            }
        }
        let numbers: Vec<u64> = state.open.keys().copied().collect();
        for number in numbers {
            let Some(open) = state.open.get_mut(&number) else {
                continue;
            };
            let effects = open.attempt.lost(deployment);
            self.apply(&mut state, number, effects);
        }
    }

    /// What stands in the way at all places, for people.
    pub(super) fn trouble(&self) -> String {
        let state = self.lock();
        let troubles: Vec<String> = state.links.iter().filter_map(|link| link.trouble.clone()).collect();
        match troubles.is_empty() {
            true => "all hosts are busy".into(),
            false => troubles.join("; "),
        }
    }

    pub(super) fn is_ready(&self) -> bool {
        let state = self.lock();
        let is_welcome = |place: &usize| state.links.get(*place).is_some_and(|link| link.port.is_some());
        self.chains.iter().any(|chain| chain.iter().all(is_welcome))
    }

    pub(super) fn payable(&self, units: Units) -> Option<Vec<u64>> {
        let state = self.lock();
        let can = |place: &usize| {
            let link = state.links.get(*place);
            link.is_some_and(|link| link.issuer.can_reserve(units).is_ok())
        };
        let chain = self.chains.iter().find(|chain| chain.iter().all(can))?;
        let members = chain.iter().filter_map(|place| self.spans.get(*place));
        Some(members.map(|span| span.terms.deployment).collect())
    }

    pub(super) fn seen(&self) -> Vec<Seen> {
        let state = self.lock();
        let pairs = state.links.iter().zip(&self.spans);
        let seen = pairs.map(|(link, span)| Seen {
            deployment: span.terms.deployment,
            is_welcome: link.port.is_some(),
            owed: link.issuer.owed(),
            promised: link.issuer.amount(),
            sequence: link.issuer.sequence(),
            conceded: link.issuer.conceded(),
            left: link.issuer.left(),
            trouble: link.over.clone().or_else(|| link.trouble.clone()),
        });
        seen.collect()
    }

    /// A host has this voucher on its disk, and with it all before.
    pub(super) fn held(&self, place: usize, sequence: u64) {
        if let Some(link) = self.lock().links.get_mut(place) {
            link.unheld.take_if(|unheld| *unheld <= sequence);
        }
        self.changed.notify_waiters();
    }

    /// Whether nothing is on its way, neither work nor a voucher.
    pub(super) fn is_paid_up(&self) -> bool {
        let state = self.lock();
        state.open.is_empty() && state.links.iter().all(|link| link.unheld.is_none())
    }

    /// A host does not welcome us.
    pub(super) fn turned_away(&self, place: usize, code: Code, reason: &str) {
        let mut state = self.lock();
        let Some(link) = state.links.get_mut(place) else { return };
        link.refusals = link.refusals.saturating_add(1);
        if code == Code::Session && link.refusals >= REFUSALS_MAX {
            link.over = Some(reason.to_owned());
        }
    }

    /// What a host says without naming a request: about the stream or a voucher. True: the stream is worth nothing any more.
    pub(super) fn told_off(&self, place: usize, code: Code, reason: &str) -> bool {
        let mut state = self.lock();
        let Some(link) = state.links.get_mut(place) else {
            return true;
        };
        if let Some(leaving) = link.leaving.take() {
            let _ = leaving.send(Err(reason.to_owned()));
            return false;
        }
        link.trouble = Some(reason.to_owned());
        if code == Code::Session {
            link.over = Some(reason.to_owned());
        }
        link.record.failed(false, self.limits.rest, Instant::now());
        true
    }
}
