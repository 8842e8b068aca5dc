//! How vouchers become money, and how a session ends before its time.
//!
//! Guarantees: the relayer hears of every voucher that is worth something, urgent ones first, also after a restart; what it says was settled is
//! looked up on chain before anything depends on it; a consent is given only once nothing is open or unpaid and the chain has paid our best voucher, and
//! it is on the disk before it is sent, because after it we claim no more.

use std::{sync::Arc, time::Duration};

use futures::{stream, StreamExt};
use lane::proto::{to_client::Content as Said, Code};
use schema::{
    escrow::{AllocationState, Consent, VoucherRefusal},
    session::CloseConsent,
    work::{HeldVoucher, HeldVouchers, SettlementNews, VoucherNews, VOUCHERS_PAGE_MAX},
    Signature,
};
use tokio::time::Instant;

use super::{Denied, Key, Lane, Member};
use crate::{
    chain::ChainError,
    faults::{pass, Point},
    host::Host,
};

/// How long a client that leaves may wait for its relayer and the chain.
const LEAVE_PATIENCE: Duration = Duration::from_secs(60);
/// Sessions that are looked at in one round, and at the same time.
const LOOKS: usize = 64;
const LOOKS_AT_ONCE: usize = 8;
/// How often a session is looked at whose client is away and that has nothing to settle.
const IDLE_LOOK: Duration = Duration::from_secs(60);

impl Lane {
    /// What the relayer may have settled.
    pub(crate) fn held(&self, now: u64) -> HeldVouchers {
        let mut vouchers: Vec<HeldVoucher> = self.all().iter().filter_map(|member| member.held(now)).collect();
        vouchers.sort_by_key(|held| (!held.urgent, std::cmp::Reverse(held.worth)));
        vouchers.truncate(VOUCHERS_PAGE_MAX);
        HeldVouchers { vouchers }
    }
}

impl Member {
    fn held(&self, now: u64) -> Option<HeldVoucher> {
        let state = self.lock();
        let (worth, voucher) = (state.acceptor.worth(), *state.acceptor.best()?);
        let own = state.allocation(self.key.1)?;
        let is_ending = own.state != AllocationState::Open || now >= state.opened.session.expires_at;
        (!worth.is_zero()).then_some(HeldVoucher {
            voucher,
            worth,
            since: state.since.unwrap_or(now),
            urgent: state.is_leaving || is_ending || state.is_gone || state.acceptor.is_contradicted(),
            closes_at: own.releasable_at,
        })
    }

    fn is_settled(&self) -> bool {
        self.lock().acceptor.worth().is_zero()
    }

    /// How long what is known of it may be old.
    fn look_due(&self, refresh: Duration) -> Option<Instant> {
        let state = self.lock();
        let is_busy = state.attached.is_some() || !state.acceptor.worth().is_zero();
        let pause = if is_busy { refresh } else { refresh.max(IDLE_LOOK) };
        state.looked_at.checked_add(pause)
    }
}

impl Host {
    /// The relayer tells what the chain has said.
    pub(crate) async fn settlement_heard(self: &Arc<Self>, news: SettlementNews) {
        pass(Point::SettlementHeard);
        for VoucherNews {
            session,
            deployment,
            sequence,
            refusal,
        } in news.vouchers.into_iter().take(VOUCHERS_PAGE_MAX)
        {
            let Some(member) = self.lane.find((session, deployment)) else {
                continue;
            };
            match refusal {
                None => tracing::info!(session, deployment, sequence, "a voucher is settled"),
                Some(reason @ (VoucherRefusal::Stale | VoucherRefusal::Closed | VoucherRefusal::Unknown)) => {
                    tracing::info!(session, deployment, sequence, %reason, "a voucher was not needed any more");
                }
                Some(reason) => {
                    tracing::error!(session, deployment, sequence, %reason, "the chain refuses a voucher that was accepted here");
                }
            }
            if let Err(error) = self.look(&member).await {
                tracing::debug!(%error, session, "the session could not be looked up");
            }
        }
    }

    /// Looks after sessions: what an earlier process has left is asked of the chain, what is known is looked at again.
    pub(crate) async fn look_after_sessions(self: &Arc<Self>) {
        let left: Vec<Key> = self.lane.left().keys().take(LOOKS).copied().collect();
        let asked = stream::iter(left).map(|key| self.take_up(key));
        asked.buffer_unordered(LOOKS_AT_ONCE).collect::<()>().await;
        let (now, refresh) = (Instant::now(), Duration::from_secs(self.config.refresh_seconds));
        let due = |member: Arc<Member>| Some((member.look_due(refresh)?, member));
        let mut due: Vec<(Instant, Arc<Member>)> = self.lane.all().into_iter().filter_map(due).collect();
        due.retain(|(at, _)| *at <= now);
        due.sort_by_key(|(at, _)| *at);
        due.truncate(LOOKS);
        let looks = stream::iter(due).map(|(_, member)| async move {
            if let Err(error) = self.look(&member).await {
                tracing::debug!(%error, session = member.key.0, "the session could not be looked up");
            }
        });
        looks.buffer_unordered(LOOKS_AT_ONCE).collect::<()>().await;
    }

    /// Goes on with a session of an earlier process.
    async fn take_up(&self, key: Key) {
        match self.chain.session(key.0).await {
            Ok(opened) => {
                if let Err(denied) = self.lane.learn(self, key, opened) {
                    tracing::warn!(
                        session = key.0,
                        deployment = key.1,
                        reason = denied.reason,
                        "a session that was kept is not with this host"
                    );
                    self.lane.left().remove(&key);
                }
            }
            Err(ChainError::Refused { .. }) => {
                let mut left = self.lane.left();
                let is_past = |until: u64| self.clock.sure_now().is_ok_and(|now| now > until);
                if let Some(line) = left.get(&key).copied().filter(|line| is_past(line.until)) {
                    left.remove(&key);
                    self.lane.store.keep(super::Line { kept: None, ..line });
                }
            }
            Err(error) => tracing::debug!(%error, session = key.0, "the session could not be looked up"),
        }
    }

    /// The client asks for the consent to an early end.
    pub(super) fn begin_to_leave(self: &Arc<Self>, member: &Arc<Member>) {
        if std::mem::replace(&mut member.lock().is_leaving, true) {
            return;
        }
        let (host, member) = (Arc::clone(self), Arc::clone(member));
        self.tasks.spawn(async move {
            let stop = host.stop.clone();
            let left = tokio::select! {
                left = tokio::time::timeout(LEAVE_PATIENCE, host.leave(&member)) => left,
                () = stop.cancelled() => return,
            };
            let late = |_| Err(Denied::session("what was promised could not be settled in time"));
            member.lock().is_leaving = false;
            let content = match left.unwrap_or_else(late) {
                Ok(consent) => Said::Consent(consent),
                Err(denied) => denied.told(None),
            };
            member.tell(content, host.config.io_timeout()).await;
        });
    }

    async fn leave(&self, member: &Arc<Member>) -> Result<Vec<u8>, Denied> {
        let mut changes = member.changes.subscribe();
        let idle = changes.wait_for(|_| member.lock().acceptor.open() == 0);
        idle.await
            .map(drop)
            .map_err(|_| Denied::failed("the session is gone"))?;
        if !member.lock().acceptor.is_paid() {
            return Err(Denied::new(Code::Credit, "something that was done is not paid for"));
        }
        while !member.is_settled() {
            changes
                .wait_for(|_| member.is_settled())
                .await
                .map(drop)
                .map_err(|_| Denied::failed("the session is gone"))?;
        }
        // What the consent is worth hangs on what the chain says now.
        self.look(member).await.map_err(Denied::failed)?;
        let (sequence, version) = {
            let mut state = member.lock();
            if !state.acceptor.worth().is_zero() || !state.acceptor.is_paid() || state.acceptor.open() > 0 {
                return Err(Denied::session("something came in between"));
            }
            state.is_consented = true;
            let line = state.line(member.key);
            (state.acceptor.standing().sequence, self.lane.store.keep(line))
        };
        self.lane.store.kept(version).await.map_err(Denied::failed)?;
        pass(Point::ConsentSigned);
        let (session, deployment) = member.key;
        let consent = CloseConsent {
            session,
            deployment,
            sequence,
        };
        let digest = consent.digest(&member.lock().opened.domain);
        let signature = Signature(self.host_key.sign_digest(&digest.0));
        serde_json::to_vec(&Consent { deployment, signature }).map_err(Denied::failed)
    }
}
