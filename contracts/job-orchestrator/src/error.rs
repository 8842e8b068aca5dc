use cosmwasm_std::{OverflowError, StdError, Uint128};
use governed::GovernedError;
use schema::{price::PriceOverflow, text::TextError, ItemId, ModelId};
use thiserror::Error;

use crate::{chain::ChainError, proof::Refusal};

#[derive(Debug, PartialEq, Error)]
pub enum ContractError {
    #[error(transparent)]
    Governed(#[from] GovernedError),
    #[error(transparent)]
    Std(#[from] StdError),
    #[error(transparent)]
    Overflow(#[from] OverflowError),
    #[error(transparent)]
    Price(#[from] PriceOverflow),
    #[error(transparent)]
    Text(#[from] TextError),
    #[error(transparent)]
    Refusal(#[from] Refusal),
    #[error(transparent)]
    Chain(#[from] ChainError),

    #[error("no native coins are taken, found {kinds} kinds of them")]
    FundsAttached { kinds: usize },
    #[error("there is no job {job}")]
    NoJob { job: u64 },
    #[error("there is no item {item}")]
    NoItem { item: ItemId },
    #[error("there is no input of shard {shard} of job {job}, or no longer")]
    NoInput { job: u64, shard: u16 },

    #[error("a job has at least one shard")]
    NoShards,
    #[error("1 to {max} replicas of each shard, found {replicas}")]
    ReplicaCount { replicas: u8, max: u8 },
    #[error("{shards} shards x {replicas} replicas x {stages} stages are more than {max} runs at once")]
    TooManyRuns {
        shards: usize,
        replicas: u8,
        stages: usize,
        max: usize,
    },
    #[error("shard {shard} has no rows")]
    EmptyShard { shard: usize },
    #[error("shard {shard} has {rows} rows, at most {max} are allowed")]
    TooManyRows { shard: usize, rows: usize, max: usize },
    #[error("row {row} of shard {shard} has {bytes} bytes, at most {max} may ride along")]
    RowTooLarge {
        shard: usize,
        row: usize,
        bytes: usize,
        max: usize,
    },
    #[error("the rows of shard {shard} have {bytes} bytes together, at most {max} may ride along")]
    ShardTooLarge { shard: usize, bytes: usize, max: usize },
    #[error("row {row} of shard {shard} is not UTF-8 text")]
    RowNotText { shard: usize, row: usize },
    #[error("units of a shard are 1 to {max}, found {units_max}")]
    UnitsOutOfBounds { units_max: u64, max: u64 },
    #[error("{max_price} ufunc over {items} items leave nothing for each")]
    MaxPriceTooLow { max_price: Uint128, items: u128 },
    #[error("{deadline_seconds} seconds are not more than the {inclusion_seconds} that inclusion takes")]
    DeadlineTooShort {
        deadline_seconds: u64,
        inclusion_seconds: u64,
    },
    #[error("nothing is offered at endpoint {endpoint:?} of {model}: {reason}")]
    NoOffer {
        model: ModelId,
        endpoint: String,
        reason: String,
    },
    #[error(
        "no chain of deployments can do this inside the price and the time: {items} items at most {item_price_max} ufunc and \
         {seconds_max} seconds each"
    )]
    NoSupply {
        items: usize,
        item_price_max: Uint128,
        seconds_max: u64,
    },
    #[error("a chain names 1 to {max} deployments, found {named}")]
    ChainLength { named: usize, max: usize },
    #[error("a deployment cannot be part of a chain: {reason}")]
    NoDeployment { reason: String },
    #[error("no job lives long enough for the work and its evidence")]
    NoTime,
    #[error("{sender} is not the royalty escrow")]
    NotEscrow { sender: String },
    #[error("the draw answered with {found} chains where {expected} were asked for")]
    DrawMismatch { expected: usize, found: usize },
    #[error("the work could last until {evidence_until}, the hold only until {expires_at}")]
    TooSlow { evidence_until: u64, expires_at: u64 },

    #[error("1 to {max} attestations in one message, found {count}")]
    AttestationCount { count: usize, max: usize },
    #[error("item {item} is not being worked on")]
    NotAssigned { item: ItemId },
    #[error("item {item} is in attempt {current}, found {attempt}")]
    OtherAttempt { item: ItemId, attempt: u8, current: u8 },
    #[error("evidence is taken after the deadline {deadline}, now it is {now}")]
    EvidenceEarly { deadline: u64, now: u64 },
    #[error("evidence was taken until {evidence_until}, now it is {now}")]
    EvidenceLate { evidence_until: u64, now: u64 },
    #[error("{receipts} receipts prove nothing that is not known")]
    NothingNew { receipts: usize },
    #[error("item {item} is proven and waits for the other replicas of its shard")]
    Waiting { item: ItemId },
    #[error("the item has until {evidence_until}, now it is {now}")]
    NotOverdue { evidence_until: u64, now: u64 },
    #[error("{passed} blocks have passed since the assignment, {required} are required")]
    TooFewBlocks { passed: u64, required: u64 },

    #[error("1 to {max} jobs in one message, found {count}")]
    PruneCount { count: usize, max: usize },
    #[error("records of a job are kept for {min} to {max} seconds after its end, found {seconds}")]
    PruneAfterOutOfBounds { seconds: u64, min: u64, max: u64 },

    #[error("who expires has at most {max} bps of the penalty, found {bps}")]
    KeeperOutOfBounds { bps: u16, max: u16 },

    #[error("a block takes 1 to {max} seconds at most, found {seconds}")]
    BlockSecondsOutOfBounds { seconds: u64, max: u64 },

    #[error("item {item} is drawn anew with the beacon's round {round}, which is due at {due_at} and not known yet")]
    RoundMissing { item: ItemId, round: u64, due_at: u64 },

    #[error("a redraw waits at most {max} seconds for its round, found {seconds}")]
    BeaconDelay { seconds: u64, max: u64 },
    #[error("the beacon keeps rounds for {kept_seconds} seconds, jobs need them for {required}")]
    BeaconForgets { kept_seconds: u64, required: u64 },
    #[error("1 to {max} attempts, found {attempts}")]
    AttemptsOutOfBounds { attempts: u8, max: u8 },
    #[error("evidence is taken at least as long as attestations: {grace_seconds} seconds, found {evidence_seconds}")]
    EvidenceTooShort { evidence_seconds: u64, grace_seconds: u64 },
    #[error("a job lasts {min} to {max} seconds, found {seconds}")]
    JobSecondsOutOfBounds { seconds: u64, min: u64, max: u64 },
}
