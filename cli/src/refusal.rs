//! What the program says when it does not do what was asked: one line that names the fact, and what to do about it where we know.
//!
//! Guarantees: one line, whatever the cause said; no control character reaches the terminal; nothing is said twice.

use std::{
    fmt,
    future::Future,
    io::{self, Write},
};

use anyhow::{anyhow, Context as _};
use client::{ClientError, NetworkError};
use relayer::RelayerError;
use tokio::signal::unix::{signal, SignalKind};

/// Longest sentence: causes may quote what strangers said.
const CHARACTERS_MAX: usize = 2000;

/// The error with its causes. A contract's refusal is its own sentence; which contract said it helps nobody.
pub(crate) fn sentence(error: &anyhow::Error) -> String {
    let own = |cause: &(dyn std::error::Error + 'static)| match cause.downcast_ref() {
        Some(ClientError::QueryRefused { message, .. }) => message.clone(),
        _ => cause.to_string(),
    };
    let mut text = String::new();
    for part in error.chain().map(own) {
        // Many errors say what their cause says.
        if !text.contains(&part) {
            let colon = if text.is_empty() { "" } else { ": " };
            text.push_str(colon);
            text.push_str(&part);
        }
    }
    if let Some(advice) = error.chain().find_map(advice) {
        text.push_str("; ");
        text.push_str(advice);
    }
    one_line(&text)
}

/// What helps against an error of which only its kind is known.
fn advice(cause: &(dyn std::error::Error + 'static)) -> Option<&'static str> {
    match cause.downcast_ref() {
        Some(RelayerError::Client(error)) => return against_client(error),
        Some(RelayerError::Network(error)) => return against_network(error),
        _ => {}
    }
    if let Some(error) = cause.downcast_ref() {
        return against_client(error);
    }
    if let Some(error) = cause.downcast_ref() {
        return against_network(error);
    }
    match cause.downcast_ref::<io::Error>()?.kind() {
        io::ErrorKind::AddrInUse => {
            Some("stop the program that listens there, or give another address (port 0 takes a free one)")
        }
        _ => None,
    }
}

fn against_client(error: &ClientError) -> Option<&'static str> {
    match error {
        ClientError::Unreachable { .. } => Some("`fxn doctor` looks into it, --node names another"),
        ClientError::BadAnswer { .. } => Some("is it a CometBFT node of this network? `fxn doctor` looks into it"),
        ClientError::ChainIdMismatch { .. } => Some("give the network file of that chain, or another --node"),
        ClientError::UnknownAccount { .. } => Some("`fxn wallet faucet` gives some on a devnet"),
        ClientError::UnknownContract { .. } | ClientError::WrongContract { .. } => {
            Some("the network file is wrong or old: get it anew")
        }
        ClientError::Network(error) => against_network(error),
        _ => None,
    }
}

fn against_network(error: &NetworkError) -> Option<&'static str> {
    match error {
        NetworkError::Content { .. } | NetworkError::TooLong { .. } => {
            Some("get it anew, or give another --network FILE")
        }
        NetworkError::File { .. } => None,
    }
}

fn one_line(text: &str) -> String {
    // `Permission denied (os error 13)`: the number helps nobody.
    // What cosmwasm-std says before errors that have no type.
    let words = without_numbers(&text.replace("Generic error: ", ""));
    let words = words
        .split(|letter: char| letter.is_control() || letter == ' ')
        .filter(|word| !word.is_empty());
    let line = words.collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(CHARACTERS_MAX) {
        Some((end, _)) => format!("{}...", line.get(..end).unwrap_or_default()),
        None => line,
    }
}

fn without_numbers(text: &str) -> String {
    let mut pieces = text.split(" (os error ");
    let mut plain = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        match piece.split_once(')') {
            Some((number, rest)) if number.bytes().all(|byte| byte.is_ascii_digit()) => plain.push_str(rest),
            _ => {
                plain.push_str(" (os error ");
                plain.push_str(piece);
            }
        }
    }
    plain
}

/// Tells people something on stderr. If nobody can hear it, nothing else changes.
pub(crate) fn note(text: impl fmt::Display) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// Does something that takes its time, until Ctrl-C; then `what_goes_on` says what nobody stops by leaving.
pub(crate) async fn unless_interrupted<T>(
    work: impl Future<Output = anyhow::Result<T>>,
    what_goes_on: impl FnOnce() -> String,
) -> anyhow::Result<T> {
    let mut interrupt = signal(SignalKind::interrupt()).context("failed to listen for Ctrl-C")?;
    let mut terminate = signal(SignalKind::terminate()).context("failed to listen for SIGTERM")?;
    tokio::select! {
        result = work => return result,
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    Err(anyhow!("interrupted: {}", what_goes_on()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_the_contracts_own_sentence() {
        let refused = ClientError::QueryRefused {
            contract: "wasm1x".into(),
            message: "there is no job 2".into(),
        };
        let error = anyhow::Error::new(refused).context("failed to look");
        assert_eq!(sentence(&error), "failed to look: there is no job 2");
    }

    #[test]
    fn nothing_is_said_twice_and_advice_comes_last() {
        let broken = serde_json::from_str::<u8>("x").unwrap_err();
        let error = NetworkError::Content {
            path: "n.json".into(),
            source: broken,
        };
        assert_eq!(
            sentence(&ClientError::from(error).into()),
            "n.json is no network file: expected value at line 1 column 1; get it anew, or give another --network FILE"
        );
    }

    #[test]
    fn what_a_cause_says_stays_on_one_line_and_does_not_speak_to_the_terminal() {
        let error = anyhow!("a\n  b\u{1b}[31m\r\nc");
        assert_eq!(sentence(&error), "a b [31m c");
        let error = anyhow!("x: Permission denied (os error 13), y (os error z)");
        assert_eq!(sentence(&error), "x: Permission denied, y (os error z)");
        assert_eq!(
            sentence(&anyhow!("{}", "é".repeat(5000))).chars().count(),
            CHARACTERS_MAX + 3
        );
    }
}
