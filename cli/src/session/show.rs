//! Where the money of sessions is, and who can release it when.

use std::fmt;

use schema::escrow::{AllocationResponse, AllocationState, SessionResponse};
use serde::Serialize;

use super::{chain_seconds, find, from_now, keys};
use crate::{amount::Func, context::Context, output::Table};

#[derive(Debug, Serialize)]
struct Shown {
    #[serde(flatten)]
    session: SessionResponse,
    /// Whether its key is in this home.
    has_key: bool,
    /// Held for everything that is not closed, in ufunc.
    held: Func,
    #[serde(skip)]
    now: u64,
}

impl Shown {
    fn new(context: &Context, session: SessionResponse, now: u64) -> Self {
        Self {
            has_key: keys::is_here(context, &session.session_key),
            held: held(&session),
            session,
            now,
        }
    }
}

/// Everything that a session holds.
pub(crate) fn held(session: &SessionResponse) -> Func {
    let open = session
        .allocations
        .iter()
        .filter(|it| it.state != AllocationState::Closed);
    let parts = open.map(|it| left(it).0.saturating_add(it.reservation.u128()));
    Func(parts.fold(0, u128::saturating_add))
}

/// The last date of those after which anyone may release a part of it.
pub(crate) fn releasable_at(session: &SessionResponse) -> u64 {
    let open = session
        .allocations
        .iter()
        .filter(|it| it.state != AllocationState::Closed);
    open.map(|it| it.releasable_at).max().unwrap_or(session.expires_at)
}

fn left(allocation: &AllocationResponse) -> Func {
    Func::from(allocation.amount.saturating_sub(allocation.paid))
}

fn state(allocation: &AllocationResponse, now: u64) -> &'static str {
    match allocation.state {
        AllocationState::Closed => "closed",
        _ if allocation.releasable_at < now => "due",
        AllocationState::Open => "open",
        AllocationState::Closing => "closing",
        AllocationState::Missed => "missed",
    }
}

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (session, now) = (&self.session, self.now);
        let number = session.session;
        writeln!(
            f,
            "session {number}: {} version {}, {}",
            session.model, session.version, session.endpoint
        )?;
        writeln!(f, "owner    {}", session.owner)?;
        let has_key = if self.has_key {
            "in this home"
        } else {
            "not in this home"
        };
        writeln!(
            f,
            "key      {} ({has_key})",
            hex::encode(session.session_key.as_bytes())
        )?;
        let (expires_at, expires) = (session.expires_at, from_now(session.expires_at, now));
        writeln!(
            f,
            "expires  {expires_at} ({expires}), then {} s to settle",
            session.close_notice_seconds
        )?;
        writeln!(f, "held     {} FUNC", self.held)?;
        if let Some(forced) = &session.forced {
            let asked: Vec<String> = forced.spans.iter().map(|span| span.deployment.to_string()).collect();
            let (job, until, when) = (forced.job, forced.until, from_now(forced.until, now));
            writeln!(
                f,
                "asked    {} on chain as job {job}, waited for until {until} ({when}): `fxn job watch {job}`",
                asked.join(", ")
            )?;
        }
        writeln!(f)?;
        let columns = [
            "deployment",
            "stages",
            "state",
            ">for requests",
            ">of it paid",
            ">left",
            ">texts",
            ">slot prepaid",
            ">of it earned",
        ];
        let mut table = Table::new(columns);
        for it in &session.allocations {
            let [amount, paid, prepaid, earned] =
                [it.amount, it.paid, it.reservation, it.accrued].map(|amount| Func::from(amount).column());
            table.row([
                it.deployment.to_string(),
                format!("{}..{}", it.first, it.last),
                state(it, now).to_owned(),
                amount,
                paid,
                left(it).column(),
                it.units.requests.to_string(),
                prepaid,
                earned,
            ]);
        }
        writeln!(f, "{table}")?;
        for it in session
            .allocations
            .iter()
            .filter(|it| it.state != AllocationState::Closed)
        {
            let back = Func(
                left(it)
                    .0
                    .saturating_add(it.reservation.saturating_sub(it.accrued).u128()),
            );
            let (deployment, date, when) = (it.deployment, it.releasable_at, from_now(it.releasable_at, now));
            match date < now {
                true => writeln!(
                    f,
                    "deployment {deployment}: anyone may release it now, up to {back} FUNC come back: `fxn session close {number}`"
                )?,
                false => writeln!(
                    f,
                    "deployment {deployment}: up to {back} FUNC come back; its provider may release it now, anyone after {date} ({when})"
                )?,
            }
        }
        Ok(())
    }
}

pub(super) async fn show(context: &Context, session: u64) -> anyhow::Result<()> {
    let client = context.client().await?;
    let found = find(&client, session).await?;
    let now = chain_seconds(&client).await?;
    context.output.print(&Shown::new(context, found, now))
}

#[derive(Debug, Serialize)]
#[serde(transparent)]
struct List(Vec<Shown>);

impl fmt::Display for List {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return write!(f, "There are no open sessions; `fxn session open` opens one.");
        }
        let columns = [
            ">session", "model", "endpoint", ">hosts", ">held", ">paid", ">texts", "expires", "key",
        ];
        let mut table = Table::new(columns);
        for shown in &self.0 {
            let session = &shown.session;
            let paid = session
                .allocations
                .iter()
                .fold(0_u128, |sum, it| sum.saturating_add(it.paid.u128()));
            let firsts = session.allocations.iter().filter(|it| it.first == 0);
            let texts = firsts.fold(0_u64, |sum, it| sum.saturating_add(it.units.requests));
            table.row([
                session.session.to_string(),
                session.model.to_string(),
                session.endpoint.clone(),
                session.allocations.len().to_string(),
                shown.held.column(),
                Func(paid).column(),
                texts.to_string(),
                from_now(session.expires_at, shown.now),
                if shown.has_key { "here" } else { "elsewhere" }.to_owned(),
            ]);
        }
        table.fmt(f)
    }
}

pub(super) async fn list(context: &Context) -> anyhow::Result<()> {
    let address = context.address()?;
    let client = context.client().await?;
    let now = chain_seconds(&client).await?;
    let found = client.escrow().all_sessions(&address).await?;
    let shown = found.into_iter().map(|session| Shown::new(context, session, now));
    context.output.print(&List(shown.collect()))
}
