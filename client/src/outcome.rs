//! What became of a transaction, and the contract's own sentence out of the chain's log.

use std::{fmt, str::FromStr};

use cosmwasm_std::Event;
use serde::{de::Error as _, Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest, Sha256};

use crate::error::ClientError;

/// The sha256 of a transaction's bytes: its name on the chain.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TxHash([u8; 32]);

impl TxHash {
    /// The hash of a signed transaction.
    pub fn of(bytes: &[u8]) -> TxHash {
        TxHash(Sha256::digest(bytes).into())
    }

    /// The raw hash.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl From<[u8; 32]> for TxHash {
    fn from(bytes: [u8; 32]) -> Self {
        TxHash(bytes)
    }
}

impl fmt::Display for TxHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode_upper(self.0))
    }
}

impl fmt::Debug for TxHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TxHash({self})")
    }
}

/// The text is no transaction hash.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no transaction hash: 64 hex digits are needed")]
pub struct ParseTxHashError {
    /// What was given.
    text: String,
}

impl FromStr for TxHash {
    type Err = ParseTxHashError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut bytes = [0u8; 32];
        hex::decode_to_slice(text, &mut bytes).map_err(|_| ParseTxHashError { text: text.to_owned() })?;
        Ok(TxHash(bytes))
    }
}

impl Serialize for TxHash {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for TxHash {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

/// A transaction that is in a block, whatever its result.
#[derive(Clone, Debug)]
pub struct TxOutcome {
    /// The transaction.
    pub hash: TxHash,
    /// The block that holds it.
    pub height: u64,
    /// 0 for success.
    pub code: u32,
    /// Who defines the code: `wasm` for contracts, `sdk` for the chain; empty on success.
    pub codespace: String,
    /// The chain's log; empty on success.
    pub log: String,
    /// Gas limit of the transaction.
    pub gas_wanted: u64,
    /// Gas it used.
    pub gas_used: u64,
    /// All events, those of the chain itself included.
    pub events: Vec<Event>,
    /// The protobuf `TxMsgData` with one response a message.
    pub data: Vec<u8>,
}

impl TxOutcome {
    /// The contract's own sentence; the whole log where the failure is not a contract's.
    pub fn message(&self) -> String {
        own_sentence(&self.log)
    }

    /// The outcome if it is a success, and the refusal with its sentence otherwise.
    pub fn into_result(self) -> Result<TxOutcome, ClientError> {
        match self.code {
            0 => Ok(self),
            code => Err(refusal(code, self.codespace, &self.log, Some(self.hash))),
        }
    }

    /// The first value of an attribute of an event, by the full event type.
    pub fn attribute(&self, event: &str, key: &str) -> Option<&str> {
        let events = self.events.iter().filter(|candidate| candidate.ty == event);
        let mut attributes = events.flat_map(|event| &event.attributes);
        attributes
            .find(|attribute| attribute.key == key)
            .map(|attribute| attribute.value.as_str())
    }
}

/// Code of the SDK for a wrong account sequence.
const WRONG_SEQUENCE: u32 = 32;

/// The typed error for a result code that is not 0.
pub(crate) fn refusal(code: u32, codespace: String, log: &str, hash: Option<TxHash>) -> ClientError {
    // A simulation reports the mismatch inside another code, hence the look at the text.
    if (code == WRONG_SEQUENCE && codespace == "sdk") || log.contains("account sequence mismatch") {
        return ClientError::SequenceMismatch {
            expected: number_after(log, "expected "),
            message: own_sentence(log),
        };
    }
    ClientError::Refused {
        message: own_sentence(log),
        code,
        codespace,
        hash,
    }
}

/// Takes wasmd's wrapping off a log: `failed to execute message; message index: 0: dispatch: submessages: SENTENCE: execute wasm contract failed`.
pub(crate) fn own_sentence(log: &str) -> String {
    let mut text = log;
    text = text.strip_prefix("rpc error: code = Unknown desc = ").unwrap_or(text);
    if let Some(rest) = text.strip_prefix("failed to execute message; message index: ") {
        let digits = rest.trim_start_matches(|letter: char| letter.is_ascii_digit());
        text = digits.strip_prefix(": ").unwrap_or(digits);
    }
    let wrappings = ["dispatch: ", "submessages: ", "reply: "];
    while let Some(rest) = wrappings.iter().find_map(|wrapping| text.strip_prefix(wrapping)) {
        text = rest;
    }
    let ends = ["execute", "instantiate", "migrate", "query"].map(|entry| format!(": {entry} wasm contract failed"));
    if let Some(at) = ends.iter().filter_map(|end| text.rfind(end.as_str())).max() {
        text = text.get(..at).unwrap_or(text);
    }
    // What the SDK adds to its own refusals, and cosmwasm-std to errors that have no type.
    text = text.strip_suffix(": unknown request").unwrap_or(text);
    if let Some((before, gas)) = text.rsplit_once(" with gas used: '") {
        let is_gas = gas.strip_suffix('\'').is_some_and(|gas| gas.parse::<u64>().is_ok());
        text = if is_gas { before } else { text };
    }
    let wrappings = ["Generic error: ", "Querier contract error: "];
    while let Some(rest) = wrappings.iter().find_map(|wrapping| text.strip_prefix(wrapping)) {
        text = rest;
    }
    text.to_owned()
}

fn number_after(text: &str, marker: &str) -> Option<u64> {
    let (_, rest) = text.split_once(marker)?;
    let digits = rest.split(|letter: char| !letter.is_ascii_digit()).next()?;
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_contracts_sentence_is_found_in_every_wrapping() {
        let logs = [
            "failed to execute message; message index: 0: no such model: execute wasm contract failed",
            "failed to execute message; message index: 12: dispatch: submessages: no such model: execute wasm contract failed",
            "failed to execute message; message index: 0: dispatch: submessages: dispatch: submessages: reply: no such model: execute wasm contract failed",
            "rpc error: code = Unknown desc = failed to execute message; message index: 0: no such model: execute wasm contract failed [wasm/keeper.go:437] with gas used: '99': unknown request",
            "no such model: query wasm contract failed: unknown request",
            "Generic error: Querier contract error: no such model: execute wasm contract failed",
            "no such model with gas used: '67460': unknown request",
            "failed to execute message; message index: 0: no such model: instantiate wasm contract failed",
        ];
        for log in logs {
            assert_eq!(own_sentence(log), "no such model", "{log}");
        }
    }

    #[test]
    fn a_refusal_of_the_chain_itself_keeps_its_words() {
        let log = "spendable balance 0ustake is smaller than 5000ustake: insufficient funds";
        assert_eq!(own_sentence(log), log);
    }

    #[test]
    fn a_sequence_mismatch_tells_the_sequence_that_the_node_wants() {
        let log = "account sequence mismatch, expected 17, got 4: incorrect account sequence";
        let error = refusal(32, "sdk".into(), log, None);
        assert!(matches!(
            error,
            ClientError::SequenceMismatch { expected: Some(17), .. }
        ));
        let simulated = format!("rpc error: code = Unknown desc = {log} with gas used: '9'");
        let error = refusal(6, "sdk".into(), &simulated, None);
        assert!(matches!(
            error,
            ClientError::SequenceMismatch { expected: Some(17), .. }
        ));
    }

    #[test]
    fn a_contracts_own_code_32_is_a_refusal() {
        let error = refusal(32, "wasm".into(), "failed", None);
        assert!(matches!(error, ClientError::Refused { code: 32, .. }));
    }

    #[test]
    fn a_hash_survives_text_and_json_and_refuses_anything_else() {
        let hash = TxHash::of(b"transaction");
        assert_eq!(hash.to_string().parse(), Ok(hash));
        assert_eq!(hash.to_string().to_lowercase().parse(), Ok(hash));
        let json = serde_json::to_string(&hash).unwrap();
        assert_eq!(serde_json::from_str::<TxHash>(&json).unwrap(), hash);
        assert!("ABC".parse::<TxHash>().is_err());
    }
}
