//! One node's work: checking, ordering and running transactions, and remembering blocks.
//!
//! Guarantees:
//! - A transaction is in exactly one block or none; waiting ones run at the next block in order of arrival.
//! - A failed transaction leaves its fee, its sequence and nothing else; a simulation leaves nothing.
//! - Block times follow the wall clock and are strictly increasing.
//! - At most [`MEMPOOL_TXS`] transactions wait.

use std::{
    collections::HashSet,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use cosmwasm_std::{Coin, Decimal, Event, Timestamp, Uint128};
use tokio::sync::broadcast;

use crate::{
    accounts::{Accounts, State},
    code::{self, Refusal},
    gas,
    history::{Block, History, Included, TxResult},
    machine::{self, Machine},
    shape,
    transaction::{self, Tx},
};

/// The chain's default.
const MEMPOOL_TXS: usize = 5_000;
/// The chain's default.
const TX_BYTES_MAX: usize = 1_048_576;
/// Blocks that a slow subscriber may fall behind before it is cut off.
const BLOCKS_BEHIND: usize = 256;
/// Where fees go.
const FEE_COLLECTOR: &str = "fee_collector";

/// What a transaction is held against beside the state.
#[derive(Clone, Debug)]
pub(crate) struct Rules {
    pub(crate) chain_id: String,
    pub(crate) denom: String,
    pub(crate) gas_price: Decimal,
}

/// A broadcast that the node refuses as a request, before the transaction is even checked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotTaken {
    #[error("tx already exists in cache")]
    Known,
    #[error("mempool is full: number of txs {MEMPOOL_TXS} (max: {MEMPOOL_TXS})")]
    Full,
    #[error("tx too large. Max size is {TX_BYTES_MAX}, but got {0}")]
    TooLarge(usize),
}

/// The answer to a simulation.
#[derive(Debug)]
pub(crate) struct Simulated {
    pub(crate) gas_used: u64,
    pub(crate) data: Vec<u8>,
    pub(crate) events: Vec<Event>,
}

/// The chain as one node holds it.
pub(crate) struct Node {
    pub(crate) rules: Rules,
    pub(crate) machine: Machine,
    pub(crate) accounts: Accounts,
    pub(crate) history: History,
    waiting: Vec<Tx>,
    waiting_hashes: HashSet<[u8; 32]>,
    blocks: broadcast::Sender<Arc<Block>>,
    collector: String,
}

/// What running a transaction's messages gave, and how far they came.
struct Run {
    result: Result<(Vec<Event>, Vec<u8>), Refusal>,
    gas_used: u64,
}

impl Node {
    pub(crate) fn new(rules: Rules, machine: Machine, accounts: Accounts) -> anyhow::Result<Node> {
        Ok(Node {
            rules,
            machine,
            accounts,
            history: History::default(),
            waiting: vec![],
            waiting_hashes: HashSet::new(),
            blocks: broadcast::channel(BLOCKS_BEHIND).0,
            collector: machine::module_address(FEE_COLLECTOR)?.into_string(),
        })
    }

    /// Every block from now on.
    pub(crate) fn subscribe(&self) -> broadcast::Receiver<Arc<Block>> {
        self.blocks.subscribe()
    }

    /// Checks a transaction and lets it wait for the next block.
    pub(crate) fn check(&mut self, bytes: Vec<u8>) -> Result<Result<(), Refusal>, NotTaken> {
        if bytes.len() > TX_BYTES_MAX {
            return Err(NotTaken::TooLarge(bytes.len()));
        }
        if self.waiting.len() >= MEMPOOL_TXS {
            return Err(NotTaken::Full);
        }
        let hash = transaction::hash_of(&bytes);
        if self.waiting_hashes.contains(&hash) || self.history.contains(&hash) {
            return Err(NotTaken::Known);
        }
        Ok(self.accept(bytes))
    }

    fn accept(&mut self, bytes: Vec<u8>) -> Result<(), Refusal> {
        let tx = Tx::decode(bytes)?;
        self.check_fee(&tx)?;
        self.check_ante(&tx, State::Check)?;
        self.accounts.wait(&tx);
        self.waiting_hashes.insert(tx.hash);
        self.waiting.push(tx);
        Ok(())
    }

    /// The node's own minimum; only asked of transactions that come in.
    fn check_fee(&self, tx: &Tx) -> Result<(), Refusal> {
        let required = Uint128::from(tx.gas_wanted).checked_mul_ceil(self.rules.gas_price);
        let required = required.map_err(|error| code::INSUFFICIENT_FEE.with(error))?;
        let paid = tx.fee.iter().find(|coin| coin.denom == self.rules.denom);
        if paid.map_or(Uint128::zero(), |coin| coin.amount) < required {
            let log = format!(
                "insufficient fees; got: {} required: {required}{}",
                shape::text(&tx.fee),
                self.rules.denom
            );
            return Err(code::INSUFFICIENT_FEE.with(log));
        }
        Ok(())
    }

    /// Everything that is checked before a message runs. Gives the key that signed.
    fn check_ante(&self, tx: &Tx, state: State) -> Result<[u8; 33], Refusal> {
        tx.check_timeout(self.machine.block().height)?;
        let least = gas::of(tx.bytes.len(), &[], Default::default());
        if tx.gas_wanted < least {
            return Err(out_of_gas("txSize", tx.gas_wanted, least));
        }
        let (number, key) = self.accounts.signer(tx)?;
        for Coin { denom, amount } in &tx.fee {
            let balance = self.machine.balance(&tx.sender, denom);
            if balance < amount.u128() {
                let log = format!("spendable balance {balance}{denom} is smaller than {amount}{denom}");
                return Err(code::INSUFFICIENT_FUNDS.with(log));
            }
        }
        self.accounts.check_sequence(tx, state)?;
        if !tx.is_signed_by(&key, &self.rules.chain_id, number) {
            let log = format!(
                "signature verification failed; please verify account number ({number}), sequence ({}) and chain-id ({})",
                tx.sequence, self.rules.chain_id
            );
            return Err(code::UNAUTHORIZED.with(log));
        }
        Ok(key)
    }

    /// Runs a transaction on the latest state and takes everything back. No signature is needed.
    pub(crate) fn simulate(&mut self, bytes: Vec<u8>) -> Result<Simulated, Refusal> {
        let tx = Tx::decode(bytes)?;
        self.accounts.signer(&tx)?;
        self.accounts.check_sequence(&tx, State::Check)?;
        self.machine.begin();
        let run = self.run(&tx);
        self.machine.roll_back();
        let gas_used = run.gas_used;
        let (events, data) = run.result.map_err(|mut refusal| {
            refusal.log = format!(
                "rpc error: code = Unknown desc = {} with gas used: '{gas_used}'",
                refusal.log
            );
            refusal
        })?;
        Ok(Simulated { gas_used, data, events })
    }

    /// Makes the next block of everything that waits.
    pub(crate) fn make_block(&mut self) {
        let mut block = self.machine.block();
        block.height = block.height.saturating_add(1);
        block.time = Timestamp::from_nanos(now_nanos().max(block.time.nanos().saturating_add(1_000_000)));
        self.machine.set_block(block.clone());
        let waiting = std::mem::take(&mut self.waiting);
        self.waiting_hashes.clear();
        self.accounts.forget_waiting();
        let txs = waiting.into_iter().map(|tx| self.include(tx)).collect();
        let previous = self.history.latest().map(AsRef::as_ref);
        let block = Arc::new(Block::after(previous, block.height, block.time.nanos(), txs));
        self.history.push(block.clone());
        // Nobody listening is no error.
        let _ = self.blocks.send(block);
    }

    fn include(&mut self, tx: Tx) -> Included {
        let result = self
            .deliver(&tx)
            .unwrap_or_else(|refusal| failure(&tx, refusal, gas::TX, vec![]));
        Included {
            hash: tx.hash,
            bytes: tx.bytes,
            result,
        }
    }

    /// `Err` when the transaction did not even pay its fee.
    fn deliver(&mut self, tx: &Tx) -> Result<TxResult, Refusal> {
        let key = self.check_ante(tx, State::Committed)?;
        if !tx.fee.is_empty() {
            self.machine.transfer(&tx.sender, &self.collector, &tx.fee)?;
        }
        self.accounts.commit(tx, key);
        let signature = base64_text(&tx.signature);
        let mut ante = shape::ante(tx, &self.collector, &signature);
        self.machine.begin();
        let Run { mut result, gas_used } = self.run(tx);
        if result.is_ok() && gas_used > tx.gas_wanted {
            result = Err(out_of_gas("WriteFlat", tx.gas_wanted, gas_used));
        }
        match result {
            Ok((events, data)) => {
                self.machine.keep();
                self.open_receivers(&events);
                ante.extend(events);
                Ok(TxResult {
                    data,
                    gas_wanted: tx.gas_wanted,
                    gas_used,
                    events: ante,
                    ..TxResult::default()
                })
            }
            Err(refusal) => {
                self.machine.roll_back();
                Ok(failure(tx, refusal, gas_used, ante))
            }
        }
    }

    fn run(&mut self, tx: &Tx) -> Run {
        let (mut events, mut data) = (vec![], vec![]);
        for (index, message) in tx.messages.iter().enumerate() {
            match self.machine.execute(&tx.sender, message) {
                Ok(effect) => {
                    events.extend(shape::message(index, &tx.sender, message, effect.events));
                    data.push(effect.data);
                }
                Err(refusal) => {
                    return Run {
                        result: Err(refusal.of_message(index)),
                        gas_used: self.gas(tx),
                    }
                }
            }
        }
        Run {
            result: Ok((events, transaction::responses(&tx.messages, data))),
            gas_used: self.gas(tx),
        }
    }

    fn gas(&self, tx: &Tx) -> u64 {
        gas::of(tx.bytes.len(), &tx.messages, self.machine.written())
    }

    /// An address becomes an account when it first receives coins.
    fn open_receivers(&mut self, events: &[Event]) {
        let received = events.iter().filter(|event| event.ty == "coin_received");
        for receiver in received.filter_map(|event| shape::attribute(event, "receiver")) {
            self.accounts.open(receiver);
        }
    }
}

fn failure(tx: &Tx, refusal: Refusal, gas_used: u64, events: Vec<Event>) -> TxResult {
    TxResult {
        code: refusal.code,
        codespace: refusal.codespace.to_owned(),
        log: refusal.log,
        data: vec![],
        gas_wanted: tx.gas_wanted,
        gas_used,
        events,
    }
}

fn out_of_gas(place: &str, wanted: u64, used: u64) -> Refusal {
    code::OUT_OF_GAS.with(format!(
        "out of gas in location: {place}; gasWanted: {wanted}, gasUsed: {used}"
    ))
}

fn base64_text(bytes: &[u8]) -> String {
    use base64::{engine::general_purpose::STANDARD, Engine};
    STANDARD.encode(bytes)
}

/// The wall clock in Unix nanoseconds.
pub(crate) fn now_nanos() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
