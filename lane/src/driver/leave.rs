//! The end of a session in good terms: each host settles what it was promised and signs that it claims nothing more.

use std::time::Duration;

use futures::future::join_all;
use schema::{escrow::Consent, session::CloseConsent};
use tokio::{
    sync::oneshot,
    time::{timeout_at, Instant},
};

use super::{Driver, Inner};
use crate::proto::{to_host::Content, Leave};

/// How often it is looked whether a host has welcomed us.
const LOOK: Duration = Duration::from_millis(50);

impl Driver {
    /// Asks these deployments to settle and to consent, all at once. A sentence says why one does not. Whether a consent counts depends on
    /// what the escrow has settled when it is shown: ask [`Driver::counts`] first.
    pub async fn leave(&self, deployments: &[u64], patience: Duration) -> Vec<(u64, Result<Consent, String>)> {
        let now = Instant::now();
        let deadline = now.checked_add(patience).unwrap_or(now);
        let asked = deployments.iter().map(|deployment| async {
            let consent = self.inner.consent(*deployment, deadline).await;
            (*deployment, consent)
        });
        join_all(asked).await
    }

    /// Whether the escrow takes a consent while this is the highest sequence that it has settled for the deployment. If one of several does
    /// not count, it refuses them all.
    pub fn counts(&self, consent: &Consent, sequence: u64) -> bool {
        self.inner.counts(consent, sequence)
    }
}

impl Inner {
    async fn consent(&self, deployment: u64, deadline: Instant) -> Result<Consent, String> {
        let place = self.place(deployment).ok_or("it has no part in the session")?;
        let answer = loop {
            if let Some(answer) = self.ask_to_leave(place) {
                break answer;
            }
            if Instant::now() >= deadline {
                let trouble = self.lock().links.get(place).and_then(|link| link.trouble.clone());
                return Err(trouble.unwrap_or_else(|| "its host does not answer".into()));
            }
            tokio::time::sleep(LOOK).await;
        };
        let answer = timeout_at(deadline, answer).await;
        let heard = answer.map_err(|_| "its host has not consented in time".to_owned())?;
        let consent = heard.map_err(|_| "its stream has ended".to_owned())??;
        match consent.deployment == deployment {
            true => Ok(consent),
            false => Err(format!("its consent is for deployment {}", consent.deployment)),
        }
    }

    fn ask_to_leave(&self, place: usize) -> Option<oneshot::Receiver<Result<Consent, String>>> {
        let mut state = self.lock();
        let link = state.links.get_mut(place)?;
        let port = link.port.as_ref()?;
        port.send(Content::Leave(Leave {}));
        let (sender, receiver) = oneshot::channel();
        link.leaving = Some(sender);
        Some(receiver)
    }

    /// The host has answered.
    pub(super) fn consented(&self, place: usize, consent: Result<Consent, String>) {
        let leaving = self.lock().links.get_mut(place).and_then(|link| link.leaving.take());
        if let Some(leaving) = leaving {
            // Who has gone away does not wait.
            let _ = leaving.send(consent);
        }
    }

    fn counts(&self, consent: &Consent, sequence: u64) -> bool {
        let span = self.place(consent.deployment).and_then(|place| self.spans.get(place));
        let said = CloseConsent {
            session: self.session,
            deployment: consent.deployment,
            sequence,
        };
        let digest = said.digest(&self.domain);
        span.is_some_and(|span| {
            client::verify_digest(span.host_key.as_bytes(), &digest.0, consent.signature.as_bytes())
        })
    }
}
