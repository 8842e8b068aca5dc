//! A wallet on a client: turns calls into transactions and sees them through.
//!
//! Guarantees:
//! - Clones share one account: however many tasks use it, each transaction gets a sequence of its own, in order.
//! - Between [`Account::prepare`] and [`Account::broadcast`] nothing is sent, so the caller can write the hash down first.
//! - [`Account::execute`] repeats a transaction only where the chain said that it did not take it (wrong sequence); a refusal is never repeated.
//! - Every wait ends: preparation, broadcast and confirmation each have a limit.

use std::{sync::Arc, time::Duration};

use cosmwasm_std::{Decimal, Uint128};
use tokio::sync::{Mutex, OwnedMutexGuard};

use crate::{
    call::Call,
    client::Client,
    cosmos::{self, Terms},
    error::ClientError,
    outcome::{TxHash, TxOutcome},
    wallet::Wallet,
};

/// Longest wait for another task's transaction of the same account to be sent.
const TURN_TIMEOUT: Duration = Duration::from_secs(60);
/// Longest wait of [`Account::execute`] for a block that holds the transaction.
const CONFIRM_TIMEOUT: Duration = Duration::from_secs(30);
/// How often [`Account::execute`] signs anew after a wrong sequence. Each try uses the sequence that the node asked for.
const TRIES: u32 = 5;
/// How often the same bytes are handed over again when the node does not answer.
const BROADCAST_TRIES: u32 = 4;
/// Pause before that; doubled each time.
const BROADCAST_PAUSE: Duration = Duration::from_millis(250);

/// What its transactions may cost and how long they count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The gas limit as a share of the simulated gas, in percent: simulated is what the transaction cost on the state of a moment ago, and
    /// the state moves on.
    pub gas_percent: u64,
    /// The highest fee of one transaction, in the network's gas coin.
    pub fee_max: Option<u128>,
    /// After so many blocks a transaction that is in none can be in no further one: the chain sees to it.
    pub blocks_max: Option<u64>,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            gas_percent: 130,
            fee_max: None,
            blocks_max: None,
        }
    }
}

/// A wallet on a client.
#[derive(Clone, Debug)]
pub struct Account {
    client: Client,
    limits: Limits,
    wallet: Arc<Wallet>,
    address: Arc<str>,
    turn: Arc<Mutex<Turn>>,
}

/// What the next transaction is signed with.
#[derive(Debug, Default)]
struct Turn {
    number: Option<u64>,
    /// `None`: ask the chain.
    sequence: Option<u64>,
}

/// A signed transaction that was not sent yet. It holds the account's turn until it is sent or dropped.
#[derive(Debug)]
pub struct Prepared {
    /// Its name on the chain.
    pub hash: TxHash,
    /// What will be broadcast.
    pub bytes: Vec<u8>,
    /// The sequence it is signed for.
    pub sequence: u64,
    /// Its gas limit.
    pub gas_limit: u64,
    /// Its fee in the network's gas coin.
    pub fee: u128,
    turn: OwnedMutexGuard<Turn>,
}

impl Account {
    /// The wallet's account on this client's network.
    pub fn new(client: Client, wallet: Wallet) -> Account {
        let address = wallet.address(&client.network().bech32_prefix).into();
        Account {
            client,
            limits: Limits::default(),
            wallet: Arc::new(wallet),
            address,
            turn: Arc::default(),
        }
    }

    /// The same with other limits.
    pub fn with_limits(self, limits: Limits) -> Account {
        Account { limits, ..self }
    }

    /// The client it is on.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// The key it signs with.
    pub fn wallet(&self) -> &Wallet {
        &self.wallet
    }

    /// Its address.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The gas these calls would use now. A call that the contract refuses is refused here, with the contract's sentence.
    pub async fn simulate(&self, calls: &[Call]) -> Result<u64, ClientError> {
        let mut turn = self.take_turn().await?;
        self.simulate_in(&mut turn, calls).await
    }

    /// Simulates, sets gas and fee, signs. Nothing is sent.
    ///
    /// The result holds the account's turn: a second `prepare` waits until the first is sent or dropped.
    pub async fn prepare(&self, calls: &[Call]) -> Result<Prepared, ClientError> {
        let mut turn = self.take_turn().await?;
        let gas_used = self.simulate_in(&mut turn, calls).await?;
        let gas_limit = scaled(gas_used.into(), Decimal::percent(self.limits.gas_percent))?;
        let gas_limit = u64::try_from(gas_limit).map_err(|_| ClientError::BadCall(format!("gas limit {gas_limit}")))?;
        self.sign_in(turn, calls, gas_limit).await
    }

    async fn sign_in(
        &self,
        mut turn: OwnedMutexGuard<Turn>,
        calls: &[Call],
        gas_limit: u64,
    ) -> Result<Prepared, ClientError> {
        let fee = self.fee(gas_limit)?;
        let (account_number, sequence) = self.identity(&mut turn).await?;
        let last_height = self
            .limits
            .blocks_max
            .map(|blocks| self.client.height().saturating_add(blocks));
        let terms = Terms {
            last_height: last_height.unwrap_or_default(),
            ..self.terms(account_number, sequence, gas_limit, fee)
        };
        let bytes = cosmos::sign(&self.wallet, calls, &self.address, terms)?;
        Ok(Prepared {
            hash: TxHash::of(&bytes),
            bytes,
            sequence,
            gas_limit,
            fee,
            turn,
        })
    }

    /// Signs with a gas limit of the caller's choice, without trying it first: also what the chain is going to refuse.
    pub async fn prepare_with_gas(&self, calls: &[Call], gas_limit: u64) -> Result<Prepared, ClientError> {
        let turn = self.take_turn().await?;
        self.sign_in(turn, calls, gas_limit).await
    }

    /// Sends a prepared transaction. `Ok` means that the node checked it and has it in its mempool.
    ///
    /// After an error the next `prepare` asks the chain for the sequence again.
    pub async fn broadcast(&self, prepared: Prepared) -> Result<TxHash, ClientError> {
        let Prepared {
            bytes,
            sequence,
            mut turn,
            ..
        } = prepared;
        // If this task is cancelled half-way, nobody knows whether the node took it: ask it then.
        turn.sequence = None;
        match self.hand_over(&bytes).await {
            Ok(hash) => {
                turn.sequence = sequence.checked_add(1);
                Ok(hash)
            }
            Err(error) => {
                if let ClientError::SequenceMismatch { expected, .. } = &error {
                    turn.sequence = *expected;
                }
                Err(error)
            }
        }
    }

    /// Height of the last block that may hold a signed transaction; `None` for any.
    pub fn last_height(bytes: &[u8]) -> Option<u64> {
        cosmos::last_height(bytes)
    }

    /// Waits until the transaction is in a block. A transaction that failed there is `Refused`.
    pub async fn confirm(&self, hash: TxHash, timeout: Duration) -> Result<TxOutcome, ClientError> {
        self.client.confirm(hash, timeout).await?.into_result()
    }

    /// Asks the chain for the sequence before the next transaction: the last one may never get into a block.
    pub async fn ask_anew(&self) -> Result<(), ClientError> {
        self.take_turn().await?.sequence = None;
        Ok(())
    }

    /// Prepares, sends and confirms; signs anew where the chain asked for another sequence.
    pub async fn execute(&self, calls: &[Call]) -> Result<TxOutcome, ClientError> {
        let mut tries: u32 = 1;
        loop {
            let error = match self.execute_once(calls).await {
                Err(error @ ClientError::SequenceMismatch { .. }) if tries < TRIES => error,
                result => return result,
            };
            tracing::debug!(address = %self.address, tries, %error, "signing anew");
            tries = tries.saturating_add(1);
        }
    }

    async fn execute_once(&self, calls: &[Call]) -> Result<TxOutcome, ClientError> {
        let prepared = self.prepare(calls).await?;
        let hash = self.broadcast(prepared).await?;
        let result = self.confirm(hash, CONFIRM_TIMEOUT).await;
        if matches!(
            result,
            Err(ClientError::NotConfirmed { .. } | ClientError::SequenceMismatch { .. })
        ) {
            // The chain forgot it or never ran it: later sequences built on it are wrong too.
            self.ask_anew().await?;
        }
        result
    }

    async fn simulate_in(&self, turn: &mut Turn, calls: &[Call]) -> Result<u64, ClientError> {
        let (account_number, sequence) = self.identity(turn).await?;
        // With no fee at all wasmd leaves out the transfer of the fee, which costs as much gas as a transfer that is asked for.
        let terms = self.terms(account_number, sequence, 0, 1);
        let result = self
            .client
            .simulate(cosmos::simulate(&self.wallet, calls, &self.address, terms)?)
            .await;
        if let Err(ClientError::SequenceMismatch { expected, .. }) = &result {
            turn.sequence = *expected;
        }
        result
    }

    async fn hand_over(&self, bytes: &[u8]) -> Result<TxHash, ClientError> {
        let mut pause = BROADCAST_PAUSE;
        for _ in 1..BROADCAST_TRIES {
            match self.client.broadcast_bytes(bytes).await {
                // The same bytes can be handed over twice, so a lost answer costs nothing.
                Err(ClientError::Unreachable { .. }) => tokio::time::sleep(pause).await,
                result => return result,
            }
            pause = pause.saturating_mul(2);
        }
        self.client.broadcast_bytes(bytes).await
    }

    fn fee(&self, gas: u64) -> Result<u128, ClientError> {
        let network = self.client.network();
        let fee = scaled(gas.into(), network.gas_price)?;
        match self.limits.fee_max {
            Some(fee_max) if fee > fee_max => Err(ClientError::FeeTooHigh {
                gas,
                fee,
                fee_max,
                denom: network.denom.clone(),
            }),
            _ => Ok(fee),
        }
    }

    async fn identity(&self, turn: &mut Turn) -> Result<(u64, u64), ClientError> {
        if let Turn {
            number: Some(number),
            sequence: Some(sequence),
        } = *turn
        {
            return Ok((number, sequence));
        }
        let info = self.client.account(&self.address).await?;
        turn.number = Some(info.number);
        turn.sequence = Some(info.sequence);
        Ok((info.number, info.sequence))
    }

    async fn take_turn(&self) -> Result<OwnedMutexGuard<Turn>, ClientError> {
        let turn = tokio::time::timeout(TURN_TIMEOUT, self.turn.clone().lock_owned());
        turn.await.map_err(|_| ClientError::Busy {
            address: self.address.to_string(),
            seconds: TURN_TIMEOUT.as_secs(),
        })
    }

    fn terms(&self, account_number: u64, sequence: u64, gas: u64, fee: u128) -> Terms<'_> {
        let network = self.client.network();
        Terms {
            chain_id: &network.chain_id,
            account_number,
            sequence,
            gas,
            fee,
            denom: &network.denom,
            last_height: 0,
        }
    }
}

/// Multiplies and rounds up: the chain refuses a fee that is a fraction too small.
fn scaled(amount: u128, factor: Decimal) -> Result<u128, ClientError> {
    let scaled = Uint128::new(amount).checked_mul_ceil(factor);
    scaled
        .map(|scaled| scaled.u128())
        .map_err(|error| ClientError::BadCall(format!("{amount} x {factor}: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fees_round_up() {
        let price: Decimal = "0.025".parse().unwrap();
        assert_eq!(scaled(100_000, price).unwrap(), 2_500);
        assert_eq!(scaled(100_001, price).unwrap(), 2_501);
        assert_eq!(scaled(0, price).unwrap(), 0);
        assert!(scaled(u128::MAX, Decimal::percent(130)).is_err());
    }
}
