//! `fxn session`: money set apart for hosts, requests paid one by one off the chain, and an end that leaves nothing behind.

pub(crate) mod close;
mod flags;
mod force;
pub(crate) mod keys;
pub(crate) mod open;
mod show;
mod topup;

pub(crate) use self::show::{held, releasable_at};
use anyhow::anyhow;
use clap::{Args, Subcommand};
use client::{Client, ClientError};
use schema::escrow::SessionResponse;

use crate::context::Context;

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Set money apart for hosts of a model, and keep a slot at each
    #[command(
        after_help = "Examples:\n  fxn session open --model demo/all-minilm-l6-v2 --requests 10000 --tokens 64\n  fxn session open --model demo/all-minilm-l6-v2 --for 30m --spares 0\n  fxn session open --model demo/all-minilm-l6-v2 --allocate 3=2.5 --allocate 5=2.5\n\nThe cheapest complete chain of one engine class is taken, and spares beside it that take over when a host fails. What is not used\ncomes back when the session ends."
    )]
    Open(open::Open),
    /// Put more money into a session, or further deployments
    #[command(
        after_help = "Examples:\n  fxn session topup 7 --requests 10000 --tokens 64\n  fxn session topup 7 --allocate 9=2.5"
    )]
    Topup(topup::Topup),
    /// End a session: at once where a host consents, after the notice elsewhere; after its date, for whoever's it is
    #[command(
        after_help = "Examples:\n  fxn session close 7\n  fxn session close 7 --no-consent\n\nRun again after the date that it tells, it fetches what was still held. Anyone may do that, with any key."
    )]
    Close(close::Close),
    /// Ask on chain what the hosts do not answer: an answer costs them nothing, silence a part of their bond
    #[command(
        after_help = "Examples:\n  fxn session force 7 'is anybody there?'\n  fxn session force 7 sentences.txt --chain 3,5,9\n  fxn session force 7 - --no-wait\n\nIt is held for beside what the session has: `fxn wallet money` shows what is available. Of a file, all texts together have 8 KiB at\nmost. Who does not answer in the time of its terms pays you, loses its slot in the session, and gets nothing for it since."
    )]
    Force(force::Force),
    /// Where the money of a session is, and when it comes back
    #[command(after_help = "Example:\n  fxn session show 7")]
    Show(Number),
    /// Your open sessions
    #[command(after_help = "Example:\n  fxn session list --output json")]
    List,
}

#[derive(Debug, Args)]
pub(crate) struct Number {
    /// Number of the session
    session: u64,
}

pub(crate) async fn run(context: &Context, command: Command) -> anyhow::Result<()> {
    match command {
        Command::Open(open) => open::run(context, &open).await,
        Command::Topup(topup) => topup::run(context, &topup).await,
        Command::Close(close) => close::run(context, &close).await,
        Command::Force(force) => force::run(context, &force).await,
        Command::Show(Number { session }) => show::show(context, session).await,
        Command::List => show::list(context).await,
    }
}

/// A session; what has ended is forgotten by the chain.
pub(crate) async fn find(client: &Client, session: u64) -> anyhow::Result<SessionResponse> {
    match client.escrow().session(session).await {
        Err(ClientError::QueryRefused { .. }) => Err(anyhow!(
            "there is no session {session}, or it has ended and everything was paid out: `fxn session list` shows yours"
        )),
        found => Ok(found?),
    }
}

/// The chain's clock, in seconds.
pub(crate) async fn chain_seconds(client: &Client) -> anyhow::Result<u64> {
    let nanos = client.status().await?.time_nanos;
    Ok(nanos.checked_div(1_000_000_000).unwrap_or(0))
}

/// A date by the chain's clock, as people think of it.
pub(crate) fn from_now(date: u64, now: u64) -> String {
    let (seconds, past) = match date.checked_sub(now) {
        Some(left) => (left, false),
        None => (now.saturating_sub(date), true),
    };
    let parts = [(86_400, "d"), (3_600, "h"), (60, "min"), (1, "s")];
    let (unit, name) = parts.into_iter().find(|(unit, _)| seconds >= *unit).unwrap_or((1, "s"));
    let count = seconds.checked_div(unit).unwrap_or(0);
    match past {
        true => format!("{count} {name} ago"),
        false => format!("in {count} {name}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_date_is_told_as_people_think_of_it() {
        let told = [
            (100, "in 0 s"),
            (159, "in 59 s"),
            (160, "in 1 min"),
            (100 + 7_300, "in 2 h"),
            (100 + 200_000, "in 2 d"),
            (40, "1 min ago"),
        ];
        for (date, text) in told {
            assert_eq!(from_now(date, 100), text);
        }
    }
}
