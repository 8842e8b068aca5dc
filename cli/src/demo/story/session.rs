//! The session of the story: opened, used request by request without a transaction, settled once for each host, and closed by consent.

use anyhow::{ensure, Context as _};
use client::Wallet;
use schema::{escrow::SessionResponse, Event};
use tokio::time::{sleep, timeout};

use super::super::{jobs::Desk, plan, report};
use crate::{
    amount::Func,
    output::counted,
    progress::Progress,
    session::{close, open},
    work::{
        lane::{self, Lane, Load},
        order,
    },
};

/// What is left of it.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) embeddings: Vec<Vec<f32>>,
    /// As it was before it ended.
    pub(super) as_used: SessionResponse,
    pub(super) told: report::Session,
}

pub(super) async fn play(desk: &Desk<'_>, progress: &Progress) -> anyhow::Result<Session> {
    let account = desk.developer;
    let client = account.client();
    let request = crate::work::shards::Limits {
        rows: plan::TEXTS_A_REQUEST,
        ..lane::REQUEST
    };
    let load = Load::of_texts(&desk.reader, &desk.rows, request)?;
    let order = Desk::order_of(desk.model, 1);
    let offer = order::offer(client, &order).await?;
    let wanted = open::choose(client, order, offer, load.units(), plan::SPARES, None).await?;
    let key = Wallet::random();
    let opened = open::carry_out(account, &key, &wanted).await?;
    let number = opened.session;
    progress.step(&format!(
        "session {number}: {} at work",
        counted(load.requests(), "request")
    ));
    let as_used = client.escrow().session(number).await?;
    let lane = Lane::open(client, &as_used, key.clone(), &load).await?;
    let worked = lane.embed(&desk.reader, &load).await?;
    drop(lane);
    progress.done(&format!(
        "session {number}: {} answered without a transaction, {} FUNC promised",
        counted(load.requests(), "request"),
        worked.price
    ));

    progress.step(&format!("session {number}: hosts settle and let go"));
    let ended = close::end(account, &as_used, Some((key, plan::CONSENT_PATIENCE))).await?;
    let (consents, notices) = (ended.closed.len(), ended.closing.len());
    if notices > 0 {
        timeout(plan::NOTICE_PATIENCE, finalised(desk, number))
            .await
            .with_context(|| format!("session {number} could not be finalised after its notice"))??;
    }
    progress.done(&format!(
        "session {number}: {} closed by consent, {notices} after the notice",
        counted(consents, "allocation")
    ));
    Ok(Session {
        embeddings: worked.embeddings,
        told: report::Session {
            session: number,
            requests: load.requests(),
            texts: desk.rows.len(),
            paid: worked.price,
            settlements: 0,
            consents,
            notices,
        },
        as_used,
    })
}

/// Tries until the notice has passed and nothing is held any more.
async fn finalised(desk: &Desk<'_>, number: u64) -> anyhow::Result<()> {
    let client = desk.developer.client();
    loop {
        let left = client.escrow().all_sessions(desk.developer.address()).await?;
        let Some(session) = left.into_iter().find(|session| session.session == number) else {
            return Ok(());
        };
        // Before the date there is nothing to end.
        let _ = close::end(desk.developer, &session, None).await;
        sleep(std::time::Duration::from_millis(500)).await;
    }
}

impl Session {
    /// What the chain tells of it: hosts were paid what they were promised.
    pub(super) fn check(&mut self, events: &[Event]) -> anyhow::Result<()> {
        let number = self.told.session;
        let settled = events.iter().filter_map(|event| match event {
            Event::VoucherSettled { session, paid, .. } if *session == number => Some(paid.u128()),
            _ => None,
        });
        let settled: Vec<u128> = settled.collect();
        let paid = Func(settled.iter().fold(0, |sum, paid| sum.saturating_add(*paid)));
        let promised = self.told.paid;
        ensure!(
            paid == promised,
            "the hosts of session {number} were promised {promised} FUNC and paid {paid}"
        );
        self.told.settlements = settled.len();
        Ok(())
    }
}
