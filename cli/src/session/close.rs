//! The end of a session: hosts settle and consent where they can be reached, the notice does it where not, and after the date anybody.

use std::{collections::BTreeMap, fmt, time::Duration};

use anyhow::{bail, ensure};
use clap::Args;
use client::{Account, Call, Client, Wallet};
use schema::{
    escrow::{AllocationState, Consent, SessionResponse},
    Event,
};
use serde::Serialize;
use tokio::time::{sleep, Instant};

use super::{chain_seconds, find, flags::duration, from_now, keys};
use crate::{amount::Func, context::Context, output::Table, progress::Progress, work::lane};

/// How often the chain is asked whether a host has settled.
const POLL: Duration = Duration::from_millis(300);

#[derive(Debug, Args)]
pub(crate) struct Close {
    /// Number of the session
    session: u64,
    /// Do not ask the hosts: everything waits for the notice
    #[arg(long)]
    no_consent: bool,
    /// How long hosts may take to settle and consent
    #[arg(long, value_name = "TIME", default_value = "20s", value_parser = duration)]
    patience: Duration,
}

/// The answer. Its JSON is a promise.
#[derive(Debug, Serialize)]
pub(crate) struct Ended {
    session: u64,
    /// Back with the owner.
    pub(crate) closed: Vec<Closed>,
    /// Still held.
    pub(crate) closing: Vec<Closing>,
    tx_hash: String,
    height: u64,
    #[serde(skip)]
    now: u64,
}

#[derive(Debug, Serialize)]
pub(crate) struct Closed {
    deployment: u64,
    /// To the provider, for the slot, in ufunc.
    reservation: Func,
    /// To the owner, in ufunc.
    released: Func,
}

#[derive(Debug, Serialize)]
pub(crate) struct Closing {
    deployment: u64,
    /// Block time in seconds after which anyone may close it.
    closes_at: u64,
    /// Why it does not close at once.
    why: Option<String>,
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = self.session;
        if !self.closed.is_empty() {
            let mut table = Table::new(["deployment", ">came back", ">for the slot"]);
            for it in &self.closed {
                table.row([it.deployment.to_string(), it.released.column(), it.reservation.column()]);
            }
            writeln!(f, "{table}")?;
        }
        for it in &self.closing {
            let (deployment, date, when) = (it.deployment, it.closes_at, from_now(it.closes_at, self.now));
            let why = it.why.as_ref().map_or_else(String::new, |why| format!(": {why}"));
            writeln!(f, "deployment {deployment} closes after {date} ({when}){why}")?;
        }
        match self.closing.is_empty() {
            true => write!(f, "Session {number} holds nothing for these any more."),
            false => write!(f, "`fxn session close {number}` fetches the rest then."),
        }
    }
}

pub(super) async fn run(context: &Context, close: &Close) -> anyhow::Result<()> {
    let progress = Progress::for_people();
    let account = context.account().await?;
    let found = find(account.client(), close.session).await?;
    let has_key = keys::is_here(context, &found.session_key);
    let key = match has_key && !close.no_consent && found.owner == account.address() {
        true => Some(keys::open(context, found.session, &found.session_key)?),
        false => None,
    };
    progress.step("asking the hosts to settle and to let go");
    let mut ended = end(&account, &found, key.map(|key| (key, close.patience))).await?;
    if !close.no_consent && !has_key {
        let unsaid = ended.closing.iter_mut().filter(|it| it.why.is_none());
        unsaid.for_each(|it| it.why = Some("the session's key is not in this home".to_owned()));
    }
    progress.finish();
    context.output.print(&ended)
}

/// Ends what can be ended. `asking`: the session's key, and how long hosts may take to consent; None: they are not asked.
pub(crate) async fn end(
    account: &Account,
    session: &SessionResponse,
    asking: Option<(Wallet, Duration)>,
) -> anyhow::Result<Ended> {
    let client = account.client();
    let (number, now) = (session.session, chain_seconds(client).await?);
    let not_closed = || {
        session
            .allocations
            .iter()
            .filter(|it| it.state != AllocationState::Closed)
    };
    if not_closed().any(|it| it.releasable_at < now) {
        let call = client.escrow().finalise_session(number)?;
        return carry_out(account, session, call, &BTreeMap::new(), now).await;
    }
    let date = not_closed()
        .map(|it| it.releasable_at)
        .min()
        .unwrap_or(session.expires_at);
    let when = from_now(date, now);
    ensure!(
        session.owner == account.address(),
        "session {number} belongs to {}: anybody else may close it after {date} ({when})",
        session.owner
    );
    let open: Vec<u64> = not_closed().map(|it| it.deployment).collect();
    let mut reasons = BTreeMap::new();
    let mut consents = vec![];
    if let Some((key, patience)) = asking {
        consents = ask(client, session, key, &open, patience, &mut reasons).await?;
    }
    let is_closing = not_closed().all(|it| it.state != AllocationState::Open);
    if is_closing && consents.is_empty() {
        bail!("session {number} is closing already: nothing of it is due before {date} ({when})");
    }
    let call = client.escrow().close_session(number, consents)?;
    carry_out(account, session, call, &reasons, now).await
}

async fn carry_out(
    account: &Account,
    session: &SessionResponse,
    call: Call,
    reasons: &BTreeMap<u64, String>,
    now: u64,
) -> anyhow::Result<Ended> {
    let outcome = account.execute(&[call]).await?;
    let mut ended = Ended {
        session: session.session,
        closed: vec![],
        closing: vec![],
        tx_hash: outcome.hash.to_string(),
        height: outcome.height,
        now,
    };
    for event in outcome.contract_events() {
        match event {
            Event::AllocationClosed {
                deployment,
                reservation,
                released,
                ..
            } => ended.closed.push(Closed {
                deployment,
                reservation: reservation.into(),
                released: released.into(),
            }),
            Event::AllocationClosing {
                deployment, closes_at, ..
            } => ended.closing.push(Closing {
                deployment,
                closes_at,
                why: reasons.get(&deployment).cloned(),
            }),
            _ => {}
        }
    }
    Ok(ended)
}

/// Consents that the escrow will take: it refuses all of them if one is not for what it has settled.
async fn ask(
    client: &Client,
    session: &SessionResponse,
    key: Wallet,
    open: &[u64],
    patience: Duration,
    reasons: &mut BTreeMap<u64, String>,
) -> anyhow::Result<Vec<Consent>> {
    let deadline = Instant::now().checked_add(patience);
    let driver = lane::driver(client, session, key, None).await?;
    let mut consents = vec![];
    for (deployment, answer) in driver.leave(open, patience).await {
        match answer {
            Ok(consent) => consents.push(consent),
            Err(why) => drop(reasons.insert(deployment, why)),
        }
    }
    loop {
        // The node that is asked may be behind the one that the host has asked.
        let settled = client.escrow().session(session.session).await?.allocations;
        let counts = |consent: &Consent| {
            let mut found = settled.iter().filter(|it| it.deployment == consent.deployment);
            found.any(|it| driver.counts(consent, it.sequence))
        };
        if consents.iter().all(counts) {
            return Ok(consents);
        }
        if deadline.is_none_or(|deadline| Instant::now() >= deadline) {
            for late in consents.iter().filter(|consent| !counts(consent)) {
                reasons.insert(late.deployment, "its consent is not for what is settled".to_owned());
            }
            consents.retain(counts);
            return Ok(consents);
        }
        sleep(POLL).await;
    }
}
