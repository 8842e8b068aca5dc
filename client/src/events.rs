//! The chain's story as it concerns us: every block from a height on, with the events of our contracts.
//!
//! Guarantees:
//! - Ordered and gap-free: heights come one after the other from the one asked for, empty blocks included.
//! - Once: no height comes twice within a stream.
//! - Resumable: a stream that starts at the height after the last one handled misses nothing.
//! - Survives: dropped connections, a dead subscription and a node that restarts are ridden out, with growing pauses, for
//!   [`Options::give_up_after`]. What cannot be ridden out is the last item, an error: pruned blocks, a chain that was reset, an
//!   event of ours that this version cannot read.
//! - Bounded: at most [`Options::buffer`] blocks wait for a slow reader; the chain is not read any further meanwhile.
//!
//! How: the truth is read height by height from `block` and `block_results`. The subscription over the WebSocket is a hint that
//! it is time to look: nodes cancel subscriptions under load without closing the connection, so nothing depends on it.

use std::{
    collections::BTreeSet,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures::{Stream, StreamExt};
use tokio::{
    sync::{mpsc, Notify},
    task::JoinHandle,
    time::Instant,
};

use crate::{
    client::Client,
    error::ClientError,
    outcome::{TxHash, TxOutcome},
    rpc::BlockResults,
};

/// Heights fetched at the same time while catching up: enough to hide a round trip, few enough for a small node.
const FETCHES: usize = 8;
/// First pause after a failure; doubled up to the longest.
const PAUSE: Duration = Duration::from_millis(100);
/// Pause after every wake-up: a node that rings without end must not be asked without end.
const WAKE_PAUSE: Duration = Duration::from_millis(5);
/// Longest pause after a failure.
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// One block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// Its height.
    pub height: u64,
    /// Its time, Unix nanoseconds.
    pub time_nanos: u64,
    /// Successful transactions that have events of our contracts, in order.
    pub txs: Vec<TxEvents>,
}

/// The events of one transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TxEvents {
    /// The transaction.
    pub hash: TxHash,
    /// Its place in the block.
    pub index: u32,
    /// Its events of our contracts, in order.
    pub events: Vec<Emitted>,
}

/// An event and the contract it comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Emitted {
    /// The contract.
    pub contract: String,
    /// What it announced.
    pub event: schema::Event,
}

/// How patient the stream is.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// How often the chain is looked at when no wake-up comes.
    pub poll: Duration,
    /// How long the node may be away before the stream ends with the last error.
    pub give_up_after: Duration,
    /// How long the chain may be shorter than what comes next before it counts as reset.
    pub reset_grace: Duration,
    /// Most blocks that wait for the reader. At least 1.
    pub buffer: usize,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            poll: Duration::from_millis(500),
            give_up_after: Duration::from_secs(600),
            reset_grace: Duration::from_secs(30),
            buffer: 64,
        }
    }
}

/// The stream; its tasks end with it.
#[derive(Debug)]
pub struct Follow {
    blocks: mpsc::Receiver<Result<Block, ClientError>>,
    tasks: [JoinHandle<()>; 2],
}

impl Stream for Follow {
    type Item = Result<Block, ClientError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.blocks.poll_recv(context)
    }
}

impl Drop for Follow {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

/// Every block from `from_height` (at least 1) on, with the events of these contracts. See the guarantees of this module.
pub fn follow(client: Client, contracts: Vec<String>, from_height: u64) -> Follow {
    follow_with(client, contracts, from_height, Options::default())
}

/// The same with other limits.
pub fn follow_with(client: Client, contracts: Vec<String>, from_height: u64, options: Options) -> Follow {
    let (sender, blocks) = mpsc::channel(options.buffer.max(1));
    let wake = Arc::new(Notify::new());
    let reader = Reader {
        client: client.clone(),
        contracts: contracts.into_iter().collect(),
        next: from_height.max(1),
        options,
        wake: wake.clone(),
        sender,
    };
    let tasks = [tokio::spawn(reader.run()), tokio::spawn(wake_up(client, wake))];
    Follow { blocks, tasks }
}

/// Rings at every new block, and opens the subscription again whenever it ends.
async fn wake_up(client: Client, wake: Arc<Notify>) {
    let mut pause = PAUSE;
    loop {
        match client.new_blocks().await {
            Ok(mut blocks) => {
                while blocks.next().await {
                    pause = PAUSE;
                    wake.notify_one();
                }
            }
            Err(error) => tracing::debug!(%error, "no subscription, polling"),
        }
        tokio::time::sleep(pause).await;
        pause = pause.saturating_mul(2).min(PAUSE_MAX);
    }
}

struct Reader {
    client: Client,
    contracts: BTreeSet<String>,
    next: u64,
    options: Options,
    wake: Arc<Notify>,
    sender: mpsc::Sender<Result<Block, ClientError>>,
}

/// Why reading stopped.
enum Stop {
    /// Nobody listens any more.
    Unheard,
    /// Trying again may help.
    Retry(ClientError),
    /// Trying again would not help.
    End(ClientError),
}

impl Reader {
    async fn run(mut self) {
        let mut pause = PAUSE;
        let mut last_good = Instant::now();
        loop {
            let next_before = self.next;
            let (error, patience) = match self.catch_up().await {
                Ok(()) => {
                    (pause, last_good) = (PAUSE, Instant::now());
                    let _ = tokio::time::timeout(self.options.poll, self.wake.notified()).await;
                    tokio::time::sleep(WAKE_PAUSE).await;
                    continue;
                }
                Err(Stop::Unheard) => return,
                Err(Stop::End(error)) => return self.end(error).await,
                Err(Stop::Retry(error @ ClientError::ChainWentBack { .. })) => (error, self.options.reset_grace),
                Err(Stop::Retry(error)) => (error, self.options.give_up_after),
            };
            if self.next > next_before {
                (pause, last_good) = (PAUSE, Instant::now());
            }
            if last_good.elapsed() >= patience {
                return self.end(error).await;
            }
            tracing::debug!(next = self.next, %error, "reading the chain failed");
            tokio::time::sleep(pause).await;
            pause = pause.saturating_mul(2).min(PAUSE_MAX);
        }
    }

    /// Reads everything there is now.
    async fn catch_up(&mut self) -> Result<(), Stop> {
        let status = self.client.status().await.map_err(Stop::Retry)?;
        if status.height.saturating_add(1) < self.next {
            return Err(Stop::Retry(ClientError::ChainWentBack {
                next: self.next,
                latest: status.height,
            }));
        }
        let client = self.client.clone();
        let fetches = (self.next..=status.height).map(move |height| {
            let client = client.clone();
            async move { (height, client.block(height).await) }
        });
        let mut fetched = futures::stream::iter(fetches).buffered(FETCHES);
        while let Some((height, results)) = fetched.next().await {
            match results {
                Ok(Some(results)) => self.deliver(height, results).await?,
                // The node counts the block but has not stored its results yet.
                Ok(None) if height == status.height => return Ok(()),
                Ok(None) => {
                    return Err(Stop::Retry(ClientError::BadAnswer {
                        what: "block_results",
                        reason: format!("nothing of block {height}, although the chain is at {}", status.height),
                    }))
                }
                Err(error @ ClientError::Pruned { .. }) => return Err(Stop::End(error)),
                Err(error) => return Err(Stop::Retry(error)),
            }
        }
        Ok(())
    }

    async fn deliver(&mut self, height: u64, results: BlockResults) -> Result<(), Stop> {
        let block = self.block(height, results).map_err(Stop::End)?;
        self.sender.send(Ok(block)).await.map_err(|_| Stop::Unheard)?;
        self.next = height.saturating_add(1);
        Ok(())
    }

    fn block(&self, height: u64, results: BlockResults) -> Result<Block, ClientError> {
        let mut txs = vec![];
        for (index, tx) in (0u32..).zip(results.txs) {
            let events = ours(&tx, &self.contracts)?;
            if !events.is_empty() {
                let hash = tx.hash;
                txs.push(TxEvents { hash, index, events });
            }
        }
        Ok(Block {
            height,
            time_nanos: results.time_nanos,
            txs,
        })
    }

    async fn end(&self, error: ClientError) {
        let _ = self.sender.send(Err(error)).await;
    }
}

impl TxOutcome {
    /// The events of these contracts, in order. Events of other contracts and unknown types are left out; nothing of a failed
    /// transaction counts.
    pub fn decoded(&self, contracts: &[String]) -> Result<Vec<Emitted>, ClientError> {
        ours(self, &contracts.iter().cloned().collect())
    }
}

fn ours(tx: &TxOutcome, contracts: &BTreeSet<String>) -> Result<Vec<Emitted>, ClientError> {
    let mut events = vec![];
    if tx.code != 0 {
        return Ok(events);
    }
    for event in tx.events.iter().filter(|event| event.ty.starts_with("wasm-")) {
        let mut attributes = event.attributes.iter();
        let address = attributes.find(|attribute| attribute.key == "_contract_address");
        let Some(contract) = address.and_then(|attribute| contracts.get(&attribute.value)) else {
            continue;
        };
        let decoded = schema::Event::from_wasm(event).map_err(|error| ClientError::BadAnswer {
            what: "block_results",
            reason: format!("{contract} in transaction {}: {error}", tx.hash),
        })?;
        events.extend(decoded.map(|event| Emitted {
            contract: contract.clone(),
            event,
        }));
    }
    Ok(events)
}

#[cfg(test)]
mod tests {
    use cosmwasm_std::{Attribute, Event};

    use super::*;

    const CONTRACT: &str = "wasm1contract";

    fn tx(code: u32, events: Vec<Event>) -> TxOutcome {
        TxOutcome {
            hash: TxHash::of(b"transaction"),
            height: 1,
            code,
            codespace: String::new(),
            log: String::new(),
            gas_wanted: 0,
            gas_used: 0,
            events,
            data: vec![],
        }
    }

    /// An event as the chain has it: with the contract first and the message's index last.
    fn on_chain(mut event: Event, contract: &str) -> Event {
        let attribute = |key: &str, value: &str| Attribute {
            key: key.into(),
            value: value.into(),
        };
        event.ty = format!("wasm-{}", event.ty);
        event.attributes.insert(0, attribute("_contract_address", contract));
        event.attributes.push(attribute("msg_index", "0"));
        event
    }

    fn withdrawn() -> schema::Event {
        schema::Event::Withdrawn {
            account: "wasm1account".into(),
            amount: 5u128.into(),
        }
    }

    fn decoded(tx: &TxOutcome) -> Result<Vec<Emitted>, ClientError> {
        tx.decoded(&[CONTRACT.to_owned()])
    }

    #[test]
    fn our_events_are_read_and_all_others_left_out() {
        let events = vec![
            Event::new("transfer").add_attribute("amount", "5"),
            on_chain(withdrawn().encode(), "wasm1other"),
            on_chain(Event::new("something_new"), CONTRACT),
            on_chain(withdrawn().encode(), CONTRACT),
        ];
        let emitted = Emitted {
            contract: CONTRACT.into(),
            event: withdrawn(),
        };
        assert_eq!(decoded(&tx(0, events)).unwrap(), [emitted]);
    }

    #[test]
    fn nothing_of_a_failed_transaction_counts() {
        let events = vec![on_chain(withdrawn().encode(), CONTRACT)];
        assert!(decoded(&tx(5, events)).unwrap().is_empty());
    }

    #[test]
    fn an_event_of_ours_that_cannot_be_read_is_an_error_and_not_a_gap() {
        let broken = Event::new("withdrawn").add_attribute("account", "a");
        let error = decoded(&tx(0, vec![on_chain(broken, CONTRACT)])).unwrap_err();
        assert!(error.to_string().contains("lacks the attribute amount"), "{error}");
    }
}
