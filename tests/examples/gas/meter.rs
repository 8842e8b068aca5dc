//! Sends transactions and writes down what they cost.

use std::time::Duration;

use anyhow::Context as _;
use client::{Account, Call, Client, TxOutcome, Wallet};
use schema::UFUNC;
use serde::Serialize;

/// Longest wait for a block that holds a transaction: filling the market makes full ones.
const CONFIRM_TIMEOUT: Duration = Duration::from_secs(120);
/// What an actor gets to pay gas with.
const GAS_COIN: u128 = 100_000_000_000;

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
    pub(crate) client: Client,
    pub(crate) rows: Vec<Row>,
}

impl Meter {
    pub(crate) fn new(client: Client) -> Self {
        Self { client, rows: vec![] }
    }

    pub(crate) fn account(&self, name: &str) -> Account {
        Account::new(self.client.clone(), Wallet::dev(name))
    }

    /// Somebody new, with gas coin and FUNC.
    pub(crate) async fn actor(&self, name: &str, func: u128) -> anyhow::Result<Account> {
        let actor = self.account(name);
        let calls = [
            Call::send(actor.address(), GAS_COIN),
            Call::cw20_transfer(&self.client.contracts().func_token, actor.address(), func * UFUNC)?,
        ];
        send(&self.account(devnet::FAUCET), &calls).await?;
        Ok(actor)
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
        let call = Call::execute(self.address(contract)?, msg)?;
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
        let call = self.paying(contract, func, msg)?;
        self.measure(contract, message, account, call).await
    }

    pub(crate) fn paying<M: Serialize>(&self, contract: &str, func: u128, msg: &M) -> anyhow::Result<Call> {
        let token = &self.client.contracts().func_token;
        Ok(Call::cw20_send(token, self.address(contract)?, func * UFUNC, msg)?)
    }

    pub(crate) fn address(&self, contract: &str) -> anyhow::Result<String> {
        let all = self.client.contracts().by_name();
        let found = all.iter().find(|(name, _)| *name == contract);
        Ok(found.context("a contract of ours")?.1.to_owned())
    }

    /// Waits until the chain's clock has passed a date, in seconds.
    pub(crate) async fn until(&self, seconds: u64) -> anyhow::Result<()> {
        while self.client.status().await?.time_nanos / 1_000_000_000 <= seconds {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Ok(())
    }
}

/// Sends one transaction; its size and what became of it.
pub(crate) async fn send(account: &Account, calls: &[Call]) -> anyhow::Result<(usize, TxOutcome)> {
    let prepared = account.prepare(calls).await?;
    let bytes = prepared.bytes.len();
    let hash = account.broadcast(prepared).await?;
    let outcome = account.confirm(hash, CONFIRM_TIMEOUT).await?.into_result()?;
    Ok((bytes, outcome))
}
