//! Account numbers, keys and sequences, in two states as on a real chain: the committed one, and the one that checks new
//! transactions and counts those still waiting for a block.

use std::collections::BTreeMap;

use crate::{
    code::{self, Refusal},
    transaction::{self, Tx},
    PREFIX,
};

/// One account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) number: u64,
    pub(crate) sequence: u64,
    /// Known from the first transaction on.
    pub(crate) public_key: Option<[u8; 33]>,
}

/// Which of the two states a transaction is held against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Committed,
    Check,
}

/// All accounts.
#[derive(Debug, Default)]
pub(crate) struct Accounts {
    entries: BTreeMap<String, Entry>,
    /// Next sequence of accounts with waiting transactions.
    waiting: BTreeMap<String, u64>,
}

impl Accounts {
    /// Makes the account if it is new; the first to receive coins gets the lowest number.
    pub(crate) fn open(&mut self, address: &str) {
        if self.entries.contains_key(address) {
            return;
        }
        let number = u64::try_from(self.entries.len()).unwrap_or(u64::MAX);
        let entry = Entry {
            number,
            sequence: 0,
            public_key: None,
        };
        self.entries.insert(address.to_owned(), entry);
    }

    /// The account by the latest block.
    pub(crate) fn get(&self, address: &str) -> Option<Entry> {
        self.entries.get(address).copied()
    }

    /// The address of an account, by its number.
    pub(crate) fn with_number(&self, number: u64) -> Option<String> {
        let found = self.entries.iter().find(|(_, entry)| entry.number == number);
        found.map(|(address, _)| address.clone())
    }

    /// Number of the account and key that the transaction must be signed with.
    pub(crate) fn signer(&self, tx: &Tx) -> Result<(u64, [u8; 33]), Refusal> {
        let entry = self.get(&tx.sender);
        let entry = entry.ok_or_else(|| code::UNKNOWN_ADDRESS.with(format!("account {} does not exist", tx.sender)))?;
        let key = tx.public_key.or(entry.public_key);
        let key = key.ok_or_else(|| code::INVALID_PUBKEY.with("the account's public key is not known yet"))?;
        let known = entry.public_key == Some(key);
        if !known && transaction::address_of(&key, PREFIX).as_deref() != Some(tx.sender.as_str()) {
            let log = format!(
                "pubKey does not match signer address {} with signer index: 0",
                tx.sender
            );
            return Err(code::INVALID_PUBKEY.with(log));
        }
        Ok((entry.number, key))
    }

    /// Refuses a sequence that is not the next one.
    pub(crate) fn check_sequence(&self, tx: &Tx, state: State) -> Result<(), Refusal> {
        let committed = self.get(&tx.sender).map_or(0, |entry| entry.sequence);
        let expected = match state {
            State::Committed => committed,
            State::Check => self.waiting.get(&tx.sender).copied().unwrap_or(committed),
        };
        if tx.sequence != expected {
            let log = format!("account sequence mismatch, expected {expected}, got {}", tx.sequence);
            return Err(code::WRONG_SEQUENCE.with(log));
        }
        Ok(())
    }

    /// Counts a transaction that waits for a block.
    pub(crate) fn wait(&mut self, tx: &Tx) {
        self.waiting.insert(tx.sender.clone(), tx.sequence.saturating_add(1));
    }

    /// Counts a transaction that ran.
    pub(crate) fn commit(&mut self, tx: &Tx, public_key: [u8; 33]) {
        if let Some(entry) = self.entries.get_mut(&tx.sender) {
            entry.sequence = tx.sequence.saturating_add(1);
            entry.public_key = Some(public_key);
        }
    }

    /// Forgets the counts of waiting transactions: every block starts the checks anew from what it committed.
    pub(crate) fn forget_waiting(&mut self) {
        self.waiting.clear();
    }
}
