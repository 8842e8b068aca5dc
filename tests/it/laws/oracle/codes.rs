//! Which code contracts have, and which they are going to have. The document: a proposal waits for its notice, then anyone executes it,
//! and new code is a newer version of the same contract.

use std::collections::{BTreeMap, BTreeSet};

use cosmwasm_std::{Addr, Binary};
use fxn_tests::Protocol;

use super::Role;
use crate::laws::acts::{Act, UNKNOWN_CODE};

/// What a contract is told about its code.
pub(crate) enum Word<'a> {
    Propose(u64, &'a Binary),
    Cancel,
    Execute,
}

#[derive(Debug)]
pub(crate) struct Codes {
    /// The newer version, by contract.
    pub(crate) next: BTreeMap<Addr, u64>,
    /// Code, whether its message can be read, and its date, by contract.
    pub(crate) pending: BTreeMap<Addr, (u64, bool, u64)>,
    migrated: BTreeSet<Addr>,
    notice_seconds: u64,
}

impl Codes {
    pub(super) fn of(protocol: &Protocol) -> Self {
        Self {
            next: protocol.next_codes.clone(),
            pending: BTreeMap::new(),
            migrated: BTreeSet::new(),
            notice_seconds: protocol.params.staking.migration_notice_seconds,
        }
    }

    /// Whether it must go through.
    pub(super) fn forecast(&self, act: &Act, contract: &Addr, admin: Option<&Role>, word: &Word<'_>, now: u64) -> bool {
        let is_admin = admin.is_some_and(|(holder, _)| *holder == act.sender);
        let pending = self.pending.get(contract);
        match word {
            Word::Propose(code_id, _) => is_admin && pending.is_none() && *code_id != UNKNOWN_CODE,
            Word::Cancel => is_admin && pending.is_some(),
            Word::Execute => pending.is_some_and(|(code_id, is_readable, date)| {
                let is_newer = self.next[contract] == *code_id && !self.migrated.contains(contract);
                *date <= now && *is_readable && is_newer
            }),
        }
    }

    pub(super) fn follow(&mut self, contract: &Addr, word: &Word<'_>, now: u64) {
        match word {
            Word::Propose(code_id, msg) => {
                let proposal = (*code_id, msg.as_slice() == b"{}", now + self.notice_seconds);
                self.pending.insert(contract.clone(), proposal);
            }
            Word::Cancel => {
                self.pending.remove(contract);
            }
            Word::Execute => {
                self.pending.remove(contract);
                self.migrated.insert(contract.clone());
            }
        }
    }

    /// Dates at which code may change.
    pub(crate) fn dates(&self) -> impl Iterator<Item = u64> + '_ {
        self.pending.values().map(|proposal| proposal.2)
    }
}
