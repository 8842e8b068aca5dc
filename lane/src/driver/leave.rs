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
    /// Asks these deployments to settle and to consent, all at once. A sentence says why one does not.
    pub async fn leave(&self, deployments: &[u64], patience: Duration) -> Vec<(u64, Result<Consent, String>)> {
        let now = Instant::now();
        let deadline = now.checked_add(patience).unwrap_or(now);
        let asked = deployments.iter().map(|deployment| async {
            let consent = self.inner.consent(*deployment, deadline).await;
            (*deployment, consent)
        });
        join_all(asked).await
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
        self.check_consent(place, consent)
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

    /// The escrow refuses all consents if one of them is none.
    fn check_consent(&self, place: usize, consent: Consent) -> Result<Consent, String> {
        let span = self.spans.get(place).ok_or("it has no part in the session")?;
        let sequence = self.lock().links.get(place).map_or(0, |link| link.issuer.sequence());
        let expected = CloseConsent {
            session: self.session,
            deployment: span.terms.deployment,
            sequence,
        };
        let digest = expected.digest(&self.domain);
        let is_signed = client::verify_digest(span.host_key.as_bytes(), &digest.0, consent.signature.as_bytes());
        match consent.deployment == expected.deployment && is_signed {
            true => Ok(consent),
            false => Err(format!("its consent is not signed for voucher {sequence}")),
        }
    }
}
