//! Accounts on a running chain, and what they send: for measurements that go around the Protocol suite and its simulated chain.

use std::time::Duration;

use anyhow::Context as _;
use client::{Account, Call, Client, TxOutcome, Wallet};
use schema::UFUNC;
use serde::Serialize;

/// Has everything at first, on every chain with development accounts.
pub const FAUCET: &str = "faucet";
/// Longest wait for a block that holds a transaction: filling a market makes full ones.
const CONFIRM_TIMEOUT: Duration = Duration::from_secs(120);
/// What an actor gets to pay gas with.
const GAS_COIN: u128 = 100_000_000_000;
/// Actors that are paid in one transaction.
const PAID_TOGETHER: usize = 100;

/// Everybody on one network.
#[derive(Debug, Clone)]
pub struct People {
    pub client: Client,
}

impl People {
    /// The account of a name, whether it has anything or not.
    pub fn account(&self, name: &str) -> Account {
        Account::new(self.client.clone(), Wallet::dev(name))
    }

    /// Somebody new, with gas coin and FUNC.
    pub async fn actor(&self, name: &str, func: u128) -> anyhow::Result<Account> {
        let mut actors = self.actors(&[name.to_owned()], func).await?;
        actors.pop().context("one was asked for")
    }

    /// Several at once, each with as much.
    pub async fn actors(&self, names: &[String], func: u128) -> anyhow::Result<Vec<Account>> {
        let faucet = self.account(FAUCET);
        let actors: Vec<Account> = names.iter().map(|name| self.account(name)).collect();
        for some in actors.chunks(PAID_TOGETHER) {
            let mut calls = vec![];
            for actor in some {
                let token = &self.client.contracts().func_token;
                calls.push(Call::send(actor.address(), GAS_COIN));
                calls.push(Call::cw20_transfer(token, actor.address(), func * UFUNC)?);
            }
            send(&faucet, &calls).await?;
        }
        Ok(actors)
    }

    /// FUNC for a contract, with a message.
    pub fn paying<M: Serialize>(&self, contract: &str, func: u128, msg: &M) -> anyhow::Result<Call> {
        let token = &self.client.contracts().func_token;
        Ok(Call::cw20_send(token, self.address(contract)?, func * UFUNC, msg)?)
    }

    /// A message for a contract.
    pub fn telling<M: Serialize>(&self, contract: &str, msg: &M) -> anyhow::Result<Call> {
        Ok(Call::execute(self.address(contract)?, msg)?)
    }

    /// Where a contract is, by its package's name.
    pub fn address(&self, contract: &str) -> anyhow::Result<String> {
        let all = self.client.contracts().by_name();
        let found = all.iter().find(|(name, _)| *name == contract);
        Ok(found.context("a contract of ours")?.1.to_owned())
    }

    /// Waits until the chain's clock has passed a date, in seconds.
    pub async fn until(&self, seconds: u64) -> anyhow::Result<()> {
        while self.now().await? <= seconds {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Ok(())
    }

    /// The chain's clock, in seconds.
    pub async fn now(&self) -> anyhow::Result<u64> {
        Ok(self.client.status().await?.time_nanos / 1_000_000_000)
    }
}

/// Sends one transaction; its size and what became of it.
pub async fn send(account: &Account, calls: &[Call]) -> anyhow::Result<(usize, TxOutcome)> {
    let prepared = account.prepare(calls).await?;
    let bytes = prepared.bytes.len();
    let hash = account.broadcast(prepared).await?;
    let outcome = account.confirm(hash, CONFIRM_TIMEOUT).await?.into_result()?;
    Ok((bytes, outcome))
}
