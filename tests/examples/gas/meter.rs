//! Sends transactions and writes down what they cost.

use anyhow::Context as _;
use client::{Account, Call, Client, TxOutcome};
use fxn_tests::people::{send, People};
use serde::Serialize;

/// What one message, alone in its transaction, costs.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    pub(crate) contract: &'static str,
    pub(crate) message: String,
    /// Of the signed transaction.
    pub(crate) bytes: usize,
    pub(crate) gas: u64,
}

#[derive(Debug)]
pub(crate) struct Meter {
    pub(crate) people: People,
    pub(crate) rows: Vec<Row>,
}

impl Meter {
    pub(crate) fn new(client: Client) -> Self {
        Self {
            people: People { client },
            rows: vec![],
        }
    }

    /// Sends one call and writes down its cost.
    pub(crate) async fn measure(
        &mut self,
        contract: &'static str,
        message: impl Into<String>,
        account: &Account,
        call: Call,
    ) -> anyhow::Result<TxOutcome> {
        let message = message.into();
        let (bytes, outcome) = send(account, &[call]).await.with_context(|| message.clone())?;
        let gas = outcome.gas_used;
        eprintln!("{contract:<18} {message:<40} {bytes:>7} bytes {gas:>9} gas");
        self.rows.push(Row {
            contract,
            message,
            bytes,
            gas,
        });
        Ok(outcome)
    }

    /// The same for a message of a contract.
    pub(crate) async fn execute<M: Serialize>(
        &mut self,
        contract: &'static str,
        message: impl Into<String>,
        account: &Account,
        msg: &M,
    ) -> anyhow::Result<TxOutcome> {
        let call = self.people.telling(contract, msg)?;
        self.measure(contract, message, account, call).await
    }

    /// The same for FUNC that is sent to a contract with a message.
    pub(crate) async fn pay<M: Serialize>(
        &mut self,
        contract: &'static str,
        message: impl Into<String>,
        account: &Account,
        (func, msg): (u128, &M),
    ) -> anyhow::Result<TxOutcome> {
        let call = self.people.paying(contract, func, msg)?;
        self.measure(contract, message, account, call).await
    }
}
