//! The file as bytes: a line with version and sha256, then JSON. Whatever the bytes are, the answer is a state or what is wrong with them.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::{Entry, Owner, Stage, State, Transaction, FILE_BYTES_MAX};
use crate::chain::TxHash;

const MAGIC: &str = "fxn-relayer-checkpoint";
pub(super) const VERSION: u32 = 1;

/// Why a file is no checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    #[error("it has more than {FILE_BYTES_MAX} bytes")]
    TooLong,
    #[error("its first line is none of a checkpoint")]
    Header,
    #[error("it is not what was written: its sha256 is {found}, it should be {expected}")]
    Sum { found: String, expected: String },
    #[error("{0}")]
    Content(String),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    owner: Owner,
    height: Option<u64>,
    entries: Vec<Entry>,
    transaction: Option<Transaction>,
}

pub(super) fn encode(owner: &Owner, state: &State) -> Vec<u8> {
    let document = Document {
        owner: owner.clone(),
        height: state.height,
        entries: state.entries.values().copied().collect(),
        transaction: state.transaction.clone(),
    };
    let body = serde_json::to_vec(&document).expect("plain structs with text keys always have a JSON form");
    let mut content = format!("{MAGIC} {VERSION} {}\n", TxHash::of(&body)).into_bytes();
    content.extend(body);
    content
}

/// What a checkpoint's bytes say. Any bytes are either that or damaged.
///
/// The version comes first: a newer file may look like anything after it.
pub fn decode(content: &[u8]) -> Result<(Owner, State), DecodeError> {
    let damaged = |damage| Err(DecodeError::Damaged(damage));
    let Some(at) = content.iter().take(256).position(|byte| *byte == b'\n') else {
        return damaged(Damage::Header);
    };
    let (header, body) = content.split_at(at);
    let body = body.get(1..).unwrap_or_default();
    let words: Vec<&str> = std::str::from_utf8(header).unwrap_or_default().split(' ').collect();
    let (version, expected) = match words.as_slice() {
        [MAGIC, version, sum] => match version.parse::<u32>() {
            Ok(version) => (version, *sum),
            Err(_) => return damaged(Damage::Header),
        },
        _ => return damaged(Damage::Header),
    };
    if version != VERSION {
        return Err(DecodeError::Version(version));
    }
    let found = TxHash::of(body).to_string();
    if found != expected {
        let expected = expected.to_owned();
        return damaged(Damage::Sum { found, expected });
    }
    let document: Document = match serde_json::from_slice(body) {
        Ok(document) => document,
        Err(error) => return damaged(Damage::Content(error.to_string())),
    };
    check(document).or_else(|reason| damaged(Damage::Content(reason)))
}

/// Why bytes are no state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DecodeError {
    Damaged(Damage),
    /// A version that this program does not know.
    Version(u32),
}

fn check(document: Document) -> Result<(Owner, State), String> {
    let Document {
        owner,
        height,
        entries,
        transaction,
    } = document;
    let at_hand = transaction.as_ref().map(|transaction| transaction.tx_hash);
    if let Some(transaction) = &transaction {
        let found = TxHash::of(&transaction.bytes);
        if found != transaction.tx_hash {
            return Err(format!(
                "the bytes of transaction {} have the hash {found}",
                transaction.tx_hash
            ));
        }
    }
    let mut seen = BTreeSet::new();
    for entry in &entries {
        if !seen.insert(entry.item) {
            return Err(format!("item {} is there twice", entry.item));
        }
        if entry.evidence_until < entry.deadline {
            return Err(format!(
                "the evidence window of item {} ends before its deadline",
                entry.item
            ));
        }
        if matches!(entry.stage, Stage::Prepared { tx_hash } if Some(tx_hash) != at_hand) {
            return Err(format!("item {} is in a transaction that is not there", entry.item));
        }
    }
    let entries = entries.into_iter().map(|entry| (entry.item, entry)).collect();
    Ok((
        owner,
        State {
            height,
            entries,
            transaction,
        },
    ))
}

/// Bytes as base64, a third longer than they are; as a list of numbers they would be three times as long.
pub(super) mod base64_text {
    use base64::{engine::general_purpose::STANDARD as BASE64, Engine};
    use serde::{de::Error as _, Deserialize, Deserializer, Serializer};

    pub(in crate::checkpoint) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&BASE64.encode(bytes))
    }

    pub(in crate::checkpoint) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        BASE64
            .decode(String::deserialize(deserializer)?)
            .map_err(D::Error::custom)
    }
}
