//! What a transaction costs here: an estimate from what wasmd was measured to charge, not a meter.
//!
//! It depends on the transaction alone and on what it writes, so a simulation and the real run on the same state agree. Contracts
//! run natively, so their computation is free here; a limit that must hold on a real chain is tested on a real chain.

use crate::{store::Written, transaction::Message};

/// Signature, account and fee of a transaction. Less gas than this is refused before anything runs.
pub(crate) const TX: u64 = 52_000;
/// A byte of the transaction.
const TX_BYTE: u64 = 10;
/// The first call of a contract in a transaction; the chain loads the contract for it.
const FIRST_CALL: u64 = 57_000;
/// Each further call.
const FURTHER_CALL: u64 = 8_000;
/// A native transfer.
const SEND: u64 = 13_000;
/// A new wasm admin of a contract.
const UPDATE_ADMIN: u64 = 15_000;
/// Making a contract out of stored code.
const INSTANTIATE: u64 = 90_000;
/// A key written.
const WRITE: u64 = 2_000;
/// A byte written.
const WRITE_BYTE: u64 = 30;

/// Gas of a whole transaction.
pub(crate) fn of(bytes: usize, messages: &[Message], written: Written) -> u64 {
    let mut called = false;
    let mut total = TX.saturating_add(TX_BYTE.saturating_mul(u64::try_from(bytes).unwrap_or(u64::MAX)));
    for message in messages {
        let cost = match message {
            Message::Send { .. } => SEND,
            Message::Instantiate { .. } => INSTANTIATE,
            Message::Migrate { .. } => FIRST_CALL,
            Message::UpdateAdmin { .. } => UPDATE_ADMIN,
            Message::Execute { .. } if std::mem::replace(&mut called, true) => FURTHER_CALL,
            Message::Execute { .. } => FIRST_CALL,
        };
        total = total.saturating_add(cost);
    }
    total
        .saturating_add(WRITE.saturating_mul(written.keys))
        .saturating_add(WRITE_BYTE.saturating_mul(written.bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn execute() -> Message {
        Message::Execute {
            contract: "wasm1".into(),
            msg: vec![],
            funds: vec![],
        }
    }

    #[test]
    fn an_empty_call_costs_what_wasmd_was_measured_to_charge() {
        let one = of(333, &[execute()], Written::default());
        assert!(one.abs_diff(113_152) < 2_000, "{one}");
        let two = of(483, &[execute(), execute()], Written::default());
        assert!((two - one).abs_diff(9_700) < 1_000, "{two}");
    }

    #[test]
    fn a_write_costs_what_wasmd_was_measured_to_charge() {
        // 256 bytes under a key of 40.
        let written = Written { keys: 1, bytes: 296 };
        let cost = of(0, &[], written) - of(0, &[], Written::default());
        assert!(cost.abs_diff(11_000) < 500, "{cost}");
    }
}
