//! One node's work: checking, ordering and running transactions, and remembering blocks.
//!
//! Guarantees:
//! - A transaction is in exactly one block or none; waiting ones run at the next block in order of arrival.
//! - A failed transaction leaves its fee, its sequence and nothing else; a simulation leaves nothing.
//! - Block times follow the wall clock and are strictly increasing, over restarts too.
//! - A block that can be seen is on the disk, where there is a log.

use std::{
    sync::Arc,
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use cosmwasm_std::{Coin, Decimal, Event, Timestamp, Uint128};
use tokio::sync::broadcast;

use crate::{
    accounts::{Accounts, State},
    code::{self, Refusal},
    events::Events,
    gas,
    history::{Block, History, Included, TxResult},
    log::{Log, Reader, Record, StateError},
    machine::{self, Machine},
    mempool::{Full, Mempool},
    metrics::{Metrics, Sizes},
    shape,
    transaction::{self, Tx},
};

/// The chain's default.
const TX_BYTES_MAX: usize = 1_048_576;
/// The chain's default; what does not fit waits for the next block.
pub(crate) const BLOCK_BYTES_MAX: usize = 22_020_096;
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
    #[error(transparent)]
    Full(#[from] Full),
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
    pub(crate) mempool: Mempool,
    metrics: Arc<Metrics>,
    /// `None` without a state folder, and while a log is replayed.
    log: Option<Log>,
    blocks: broadcast::Sender<Arc<Block>>,
    collector: String,
}

/// What running a transaction's messages gave, and how far they came.
struct Run {
    result: Result<(Vec<Event>, Vec<u8>), Refusal>,
    gas_used: u64,
}

impl Node {
    pub(crate) fn new(
        rules: Rules,
        machine: Machine,
        accounts: Accounts,
        blocks_kept: usize,
        metrics: Arc<Metrics>,
    ) -> anyhow::Result<Node> {
        Ok(Node {
            rules,
            machine,
            accounts,
            history: History::new(blocks_kept),
            mempool: Mempool::default(),
            metrics,
            log: None,
            blocks: broadcast::channel(BLOCKS_BEHIND).0,
            collector: machine::module_address(FEE_COLLECTOR)?.into_string(),
        })
    }

    /// Writes every block to this log from now on.
    pub(crate) fn keep_log(&mut self, log: Log) {
        self.log = Some(log);
    }

    /// Every block from now on.
    pub(crate) fn subscribe(&self) -> broadcast::Receiver<Arc<Block>> {
        self.blocks.subscribe()
    }

    /// Number and key that a transaction must be signed with, unless it would not be taken anyhow.
    pub(crate) fn signer(&self, tx: &Tx) -> Option<(u64, [u8; 33])> {
        let is_new = !self.mempool.contains(&tx.hash) && !self.history.contains(&tx.hash);
        let has_room = self.mempool.check_room(tx.bytes.len()).is_ok();
        let signer = (is_new && has_room).then(|| self.accounts.signer(tx));
        signer?.ok()
    }

    /// Checks a transaction and lets it wait for the next block. Its signature may be known to be good.
    pub(crate) fn check(&mut self, bytes: Vec<u8>, is_verified: bool) -> Result<Result<(), Refusal>, NotTaken> {
        if bytes.len() > TX_BYTES_MAX {
            return Err(NotTaken::TooLarge(bytes.len()));
        }
        self.mempool.check_room(bytes.len())?;
        let hash = transaction::hash_of(&bytes);
        if self.mempool.contains(&hash) || self.history.contains(&hash) {
            return Err(NotTaken::Known);
        }
        let accepted = self.accept(bytes, is_verified);
        let (codespace, code) = accepted
            .as_ref()
            .map_or_else(|refusal| (refusal.codespace, refusal.code), |()| ("", 0));
        self.metrics.checked(codespace, code);
        self.metrics.mempool(self.mempool.size());
        Ok(accepted)
    }

    fn accept(&mut self, bytes: Vec<u8>, is_verified: bool) -> Result<(), Refusal> {
        let mut tx = self.checked(bytes, is_verified)?;
        tx.is_verified = true;
        self.accounts.wait(&tx);
        self.mempool.push(tx);
        Ok(())
    }

    /// The transaction, if it would be taken; nothing is kept of it.
    pub(crate) fn checked(&self, bytes: Vec<u8>, is_verified: bool) -> Result<Tx, Refusal> {
        let mut tx = Tx::decode(bytes)?;
        tx.is_verified = is_verified;
        self.check_fee(&tx)?;
        self.check_ante(&tx, State::Check)?;
        Ok(tx)
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
        tx.check_mode()?;
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
        // A signature holds for ever: what was checked on arrival, or is read from the log, is not checked again.
        if !tx.is_verified && !tx.is_signed_by(&key, &self.rules.chain_id, number) {
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
        self.machine.set_place(None);
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

    /// Makes the next block of what waits. An error is the end of this node: the block is nowhere but in its memory.
    pub(crate) fn make_block(&mut self) -> Result<(), StateError> {
        let begun = Instant::now();
        let last = self.machine.block().time.nanos();
        let time_nanos = now_nanos().max(last.saturating_add(1_000_000));
        let txs = self.mempool.take(BLOCK_BYTES_MAX);
        let (block, outcome) = self.run_block(time_nanos, txs);
        if let Some(log) = &mut self.log {
            let txs = block.txs.iter().map(|tx| tx.bytes.as_slice());
            log.append(block.height, time_nanos, &outcome, txs)?;
        }
        let block = Arc::new(block);
        self.history.push(block.clone());
        self.recheck();
        self.metrics.block_made(begun.elapsed());
        self.count(&block);
        // Nobody listening is no error.
        let _ = self.blocks.send(block);
        Ok(())
    }

    /// Makes the blocks of a log again, each as it was. Gives how many transactions they hold.
    pub(crate) fn replay(&mut self, log: &mut Reader) -> Result<u64, StateError> {
        let mut count = 0u64;
        while let Some(Record {
            height,
            time_nanos,
            outcome,
            txs,
        }) = log.next()?
        {
            let differs = || StateError::Differs {
                path: log.path().to_owned(),
                height,
            };
            let mut decoded = vec![];
            for bytes in txs {
                let mut tx = Tx::decode(bytes).map_err(|_| differs())?;
                tx.is_verified = true;
                decoded.push(tx);
            }
            count = count.saturating_add(u64::try_from(decoded.len()).unwrap_or(u64::MAX));
            let (block, again) = self.run_block(time_nanos, decoded);
            if again != outcome || block.height != height {
                return Err(differs());
            }
            self.history.push(Arc::new(block));
        }
        Ok(count)
    }

    /// Runs a block. Nothing else than its time, its transactions and the state decides what comes out.
    fn run_block(&mut self, time_nanos: u64, txs: Vec<Tx>) -> (Block, [u8; 32]) {
        let mut block = self.machine.block();
        block.height = block.height.saturating_add(1);
        block.time = Timestamp::from_nanos(time_nanos);
        self.machine.set_block(block.clone());
        let txs = (0u32..).zip(txs).map(|(index, tx)| self.include(index, tx)).collect();
        let previous = self.history.latest().map(AsRef::as_ref);
        let block = Block::after(previous, block.height, time_nanos, txs);
        let outcome = block.outcome(&self.machine.digest());
        (block, outcome)
    }

    /// Every block starts the checks anew from what it committed; what waits on is checked again, in order.
    fn recheck(&mut self) {
        self.accounts.forget_waiting();
        for tx in self.mempool.take(usize::MAX) {
            if self.check_ante(&tx, State::Check).is_ok() {
                self.accounts.wait(&tx);
                self.mempool.push(tx);
            }
        }
    }

    fn count(&self, block: &Block) {
        for tx in &block.txs {
            self.metrics.transaction(tx.result.codespace, tx.result.code);
        }
        self.metrics.mempool(self.mempool.size());
        let (blocks_kept, history_bytes) = self.history.size();
        self.metrics.sizes(Sizes {
            height: block.height,
            blocks_kept,
            history_bytes,
            log_bytes: self.log.as_ref().map_or(0, Log::bytes),
        });
    }

    fn include(&mut self, index: u32, tx: Tx) -> Included {
        self.machine.set_place(Some(index));
        let result = self
            .deliver(&tx)
            .unwrap_or_else(|refusal| failure(&tx, refusal, gas::TX, vec![]));
        let mut bytes = tx.bytes;
        bytes.shrink_to_fit();
        Included {
            hash: tx.hash,
            bytes,
            result,
        }
    }

    /// `Err` when the transaction did not even pay its fee.
    fn deliver(&mut self, tx: &Tx) -> Result<TxResult, Refusal> {
        let key = self.check_ante(tx, State::Committed)?;
        if !tx.fee.is_empty() {
            self.machine.begin();
            let paid = self.machine.transfer(&tx.sender, &self.collector, &tx.fee);
            self.machine.keep();
            paid?;
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
                    events: Events::pack(&ante),
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
        codespace: refusal.codespace,
        log: refusal.log,
        data: vec![],
        gas_wanted: tx.gas_wanted,
        gas_used,
        events: Events::pack(&events),
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
