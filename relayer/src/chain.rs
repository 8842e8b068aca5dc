//! The port to the chain: the few calls that a relayer needs. No type of a transaction library comes through it.
//!
//! [`live::LiveChain`] is the real one, over the `client` crate; tests bring their own.
//! An error says what to do about it ([`ChainError::decision`]), so that no caller has to know the chain's codes.

pub mod live;

use std::{future::Future, time::Duration};

use beacon::SignedRound;
use client::events::Block;
pub use client::{Endpoint, Standing, TxHash};
use futures::Stream;
use schema::{
    orchestrator::{ExecuteMsg, ItemResponse},
    receipt::{Attestation, Link},
    session::SignedVoucher,
    BeaconKey, Event, ItemId, Schedule,
};
use serde::{Deserialize, Serialize};

use crate::retry::Decision;

/// A point in the chain's own time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Moment {
    pub height: u64,
    /// Block time, whole Unix seconds. Deadlines are compared with this and never with the clock of the machine.
    pub seconds: u64,
}

impl Moment {
    /// The moment of a block.
    pub fn of(height: u64, time_nanos: u64) -> Moment {
        let seconds = Duration::from_nanos(time_nanos).as_secs();
        Moment { height, seconds }
    }
}

/// Where the chain stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    pub moment: Moment,
    /// Oldest block that the node still has.
    pub earliest: u64,
}

/// What the node says about the network: compared with the network file before anything is done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    pub chain_id: String,
    /// What each contract calls itself: (name in the network file, name recorded on chain).
    pub names: Vec<(&'static str, String)>,
    /// Sibling addresses, (name, in the network file, in the orchestrator's own configuration).
    pub siblings: Vec<(&'static str, String, String)>,
    /// Chain id and contract that signatures are bound to.
    pub domain: schema::receipt::Domain,
    /// Address of the orchestrator in the network file.
    pub orchestrator: String,
}

/// What one transaction asks for. All entries of a transaction are of one kind.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Batch {
    /// One message: each attestation gets its own answer.
    Attest(Vec<Attestation>),
    /// One message each: all or none.
    Evidence(Vec<Evidence>),
    /// One message each: all or none.
    Expire(Vec<ItemId>),
    /// One message each, for the beacon: all or none.
    Rounds(Vec<SignedRound>),
    /// One message, for the escrow: each voucher gets its own answer.
    Settle(Vec<SignedVoucher>),
}

/// The network's beacon: whose rounds count, and when they are due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trusted {
    pub key: BeaconKey,
    pub schedule: Schedule,
}

/// What a host can prove about an attempt that missed its deadline.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Evidence {
    pub item: ItemId,
    pub attempt: u8,
    pub links: Vec<Link>,
}

impl Batch {
    /// The messages for the orchestrator; rounds and vouchers are none of its.
    pub fn messages(&self) -> Vec<ExecuteMsg> {
        match self {
            Batch::Attest(attestations) => vec![ExecuteMsg::SubmitAttestations {
                attestations: attestations.clone(),
            }],
            Batch::Evidence(evidence) => evidence.iter().cloned().map(post).collect(),
            Batch::Rounds(_) | Batch::Settle(_) => vec![],
            Batch::Expire(items) => items.iter().map(|item| ExecuteMsg::Expire { item: *item }).collect(),
        }
    }

    /// One word for the log.
    pub fn kind(&self) -> &'static str {
        match self {
            Batch::Attest(_) => "attestations",
            Batch::Evidence(_) => "evidence",
            Batch::Expire(_) => "expiries",
            Batch::Rounds(_) => "rounds",
            Batch::Settle(_) => "vouchers",
        }
    }
}

fn post(evidence: Evidence) -> ExecuteMsg {
    let Evidence { item, attempt, links } = evidence;
    ExecuteMsg::PostEvidence { item, attempt, links }
}

/// A signed transaction that was not sent yet. Dropping it is free.
#[derive(Debug)]
pub struct Signed {
    pub hash: TxHash,
    /// What will be broadcast.
    pub bytes: Vec<u8>,
    /// The account's turn, where there is one.
    permit: Option<client::Prepared>,
}

impl Signed {
    /// Signed bytes without an account behind them, as a test's chain makes them.
    pub fn new(bytes: Vec<u8>) -> Signed {
        Signed {
            hash: TxHash::of(&bytes),
            bytes,
            permit: None,
        }
    }
}

/// A transaction that is in a block.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    pub height: u64,
    /// Its events of the orchestrator, or why it changed nothing.
    pub result: Result<Vec<Event>, Failure>,
}

/// Why a transaction that is in a block changed nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// What came before it in the block made the same messages dearer than they were when simulated: a settlement that completes a shard
    /// costs a multiple of one that does not. Simulated anew it may pass.
    #[error("out of gas: {0}")]
    OutOfGas(String),
    /// It came too late, or another transaction with its sequence was first. Signed anew it may pass.
    #[error("it can be in no further block: {0}")]
    Outdated(String),
    /// A contract or the chain said no.
    #[error("{0}")]
    Refused(String),
}

/// Why the chain did not do what was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChainError {
    /// No answer, or none that makes sense.
    #[error("the chain is not available: {0}")]
    Unavailable(String),
    /// Signed for another sequence than the account's next one, or for blocks that have gone by: these bytes can be in no further block.
    #[error("wrong sequence or too late: {0}")]
    Sequence(String),
    /// In no block so far. It may still get into one.
    #[error("{0}")]
    NotConfirmed(String),
    /// The account does not exist, has too little gas coin, or offers too low a price. Somebody may mend that while we wait.
    #[error("gas cannot be paid: {0}")]
    Gas(String),
    /// It would cost more than may be paid. Nothing was signed.
    #[error("too dear: {0}")]
    TooDear(String),
    /// The nodes no longer have the blocks that come next.
    #[error("the nodes have forgotten blocks: {0}")]
    Pruned(String),
    /// The contract or the chain said no, in these words.
    #[error("{0}")]
    Refused(String),
    /// This cannot go on without a person.
    #[error("{0}")]
    Fatal(String),
}

impl ChainError {
    /// What to do about it.
    pub fn decision(&self) -> Decision {
        match self {
            Self::Unavailable(_) | Self::Sequence(_) | Self::NotConfirmed(_) | Self::Gas(_) => Decision::Retry,
            Self::Refused(_) | Self::TooDear(_) | Self::Pruned(_) => Decision::Skip,
            Self::Fatal(_) => Decision::Stop,
        }
    }
}

/// Shorthand for the answers below.
pub type ChainResult<T> = Result<T, ChainError>;

/// What a relayer asks of the chain. Every call has a time-out of its own.
pub trait Chain: Clone + Send + Sync + 'static {
    /// Everything that is compared at the start.
    fn identity(&self) -> impl Future<Output = ChainResult<Identity>> + Send;
    /// Where the chain stands.
    fn head(&self) -> impl Future<Output = ChainResult<Head>> + Send;
    /// Every block from a height on, in order, once, with the events of the orchestrator and of staking.
    fn blocks(&self, from: u64) -> impl Stream<Item = ChainResult<Block>> + Send + Unpin + 'static;
    /// How long after its deadline an item may still be attested.
    fn grace_seconds(&self) -> impl Future<Output = ChainResult<u64>> + Send;
    /// Numbers of all deployments of a provider.
    fn deployments(&self, provider: &str) -> impl Future<Output = ChainResult<Vec<u64>>> + Send;
    /// One item as it is now.
    fn item(&self, item: ItemId) -> impl Future<Output = ChainResult<ItemResponse>> + Send;
    /// All items of running jobs whose hold has not expired by now, in block time, newest jobs first.
    fn running(&self, now_seconds: u64, jobs_max: u32) -> impl Future<Output = ChainResult<Vec<ItemResponse>>> + Send;
    /// What was proven about an attempt so far.
    fn links(&self, item: ItemId, attempt: u8) -> impl Future<Output = ChainResult<Vec<Link>>> + Send;
    /// Items that anybody may expire now, oldest first.
    fn overdue(&self, limit: u32) -> impl Future<Output = ChainResult<Vec<ItemId>>> + Send;
    /// The network's beacon, if it has one.
    fn beacon(&self) -> impl Future<Output = ChainResult<Option<Trusted>>> + Send;
    /// Number of the newest round that the beacon knows.
    fn newest_round(&self) -> impl Future<Output = ChainResult<Option<u64>>> + Send;
    /// Whether the beacon knows a round.
    fn knows_round(&self, round: u64) -> impl Future<Output = ChainResult<bool>> + Send;
    /// What vouchers were paid of a deployment's part of a session, in ufunc. None: there is no such thing any more.
    fn paid(&self, session: u64, deployment: u64) -> impl Future<Output = ChainResult<Option<u128>>> + Send;
    /// Gas coin of the account that pays.
    fn balance(&self) -> impl Future<Output = ChainResult<u128>> + Send;
    /// Simulates and signs. Nothing is sent. At most one signed transaction may exist at a time.
    fn prepare(&self, batch: &Batch) -> impl Future<Output = ChainResult<Signed>> + Send;
    /// Sends. `Unavailable` leaves open whether the node has it.
    fn broadcast(&self, signed: Signed) -> impl Future<Output = ChainResult<()>> + Send;
    /// Sends bytes again, to every node. Harmless where a node already has them.
    fn rebroadcast(&self, bytes: &[u8]) -> impl Future<Output = ChainResult<()>> + Send;
    /// Height of the last block that may hold these bytes; None: any may.
    fn last_height(&self, bytes: &[u8]) -> Option<u64>;
    /// What is known of each node.
    fn endpoints(&self) -> Vec<Endpoint>;
    /// Waits until the transaction is in a block.
    fn confirm(&self, hash: TxHash, timeout: Duration) -> impl Future<Output = ChainResult<Outcome>> + Send;
    /// The transaction, if it is in a block.
    fn find(&self, hash: TxHash) -> impl Future<Output = ChainResult<Option<Outcome>>> + Send;
}
