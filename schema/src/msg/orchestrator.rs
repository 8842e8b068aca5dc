//! job-orchestrator: jobs, shards, assignment, attestation, blame and failover.

use cosmwasm_schema::{cw_serde, QueryResponses};
use cosmwasm_std::{Binary, Uint128};

use super::{
    escrow::Gateway,
    staking::{DeploymentOffer, Span},
    AdminResponse,
};
use crate::{
    params::OrchestratorParams,
    price::{RoyaltyRate, Units},
    receipt::{Attestation, Domain, Link},
    Digest, ItemId, ModelId,
};

#[cw_serde]
pub struct InstantiateMsg {
    pub admin: String,
    pub model_registry: String,
    pub provider_staking: String,
    pub royalty_escrow: String,
    /// Whose rounds seed draws. Without one seeds are taken from blocks, and whoever makes blocks can choose.
    #[serde(default)]
    pub randomness_beacon: Option<String>,
    pub params: OrchestratorParams,
}

#[cw_serde]
pub enum ExecuteMsg {
    /// Anyone with enough available money in the escrow.
    SubmitJob { job: NewJob },
    /// Anyone: proves and settles work. At most 32; each has its own status in an `attested` or `attestation_refused` event, and a
    /// bad one never reverts the others.
    SubmitAttestations { attestations: Vec<Attestation> },
    /// Anyone, between the deadline of an item and the end of its evidence window: which spans did their part.
    PostEvidence {
        item: ItemId,
        attempt: u8,
        links: Vec<Link>,
    },
    /// Anyone, after the evidence window of an item: blames, penalises and assigns anew, or refunds. The sender has `keeper_bps` of the
    /// penalty, if anybody pays one. Also draws anew what replicas differed about. Either draw needs the item's `redraw_round` to be known at the beacon.
    Expire { item: ItemId },
    /// Anyone: forgets jobs that ended `prune_after_seconds` ago. At most 32, and of 64 items together; each has its own status in a
    /// `job_pruned` or `prune_refused` event. From then on they are unknown, and their numbers are never used again.
    Prune { jobs: Vec<u64> },
    /// Royalty escrow: a request of a session that its owner asks on chain, as a job of one item.
    OpenForced { request: ForcedRequest },
    /// Admin: bounded parameters, for what is opened from now on.
    UpdateParams { params: OrchestratorParams },
    /// Admin: offers the role, or withdraws the offer.
    ProposeAdmin { admin: Option<String> },
    /// The account to which the role was offered.
    AcceptAdmin {},
    /// Admin: announces new code, which is on the chain already. Its date comes after `migration_notice_seconds`. One at a time.
    ProposeMigration {
        code_id: u64,
        /// To the new code, at most 4 KiB.
        msg: Binary,
    },
    /// Admin: takes the proposal back.
    CancelMigration {},
    /// Anyone, from the date of the proposal on: the contract goes over to the new code.
    ExecuteMigration {},
}

#[cw_serde]
pub struct NewJob {
    pub model: ModelId,
    /// The newest that is not retired, if absent.
    pub version: Option<u32>,
    pub endpoint: String,
    /// Run all shards in this class. Otherwise each shard has one class of its own.
    pub engine_class: Option<String>,
    /// At least one. Shards x replicas x stages is at most 64.
    pub shards: Vec<NewShard>,
    /// Independent runs of each shard, 1 to 3.
    pub replicas: u8,
    /// Most units that one shard may have.
    pub units_max: u64,
    /// Most that the whole job may cost, in ufunc; each item may cost its equal part. What is not used comes back.
    pub max_price: Uint128,
    /// Draw only chains whose SLA terms promise to be done in this time.
    pub deadline_seconds: Option<u64>,
    /// These deployments, in the order of their stages, instead of a draw: for one replica, at the prices and terms of this moment.
    /// Every shard takes a slot of each. After a miss the shard is drawn like any other.
    #[serde(default)]
    pub chain: Option<Vec<u64>>,
    pub gateway: Option<Gateway>,
}

/// What an owner forces, with what its session has pinned.
#[cw_serde]
pub struct ForcedRequest {
    pub session: u64,
    pub owner: String,
    pub model: ModelId,
    pub version: u32,
    pub endpoint: String,
    pub royalty: RoyaltyRate,
    pub gateway: Option<Gateway>,
    pub units_per_request_max: u64,
    /// In the order of the chain.
    pub offers: Vec<DeploymentOffer>,
    pub rows: Vec<Binary>,
}

#[cw_serde]
pub struct NewShard {
    /// The rows themselves, together at most 8 KiB. At least one.
    pub inline: Vec<Binary>,
}

#[cw_serde]
#[derive(QueryResponses)]
pub enum QueryMsg {
    #[returns(ConfigResponse)]
    Config {},
    /// The new code that is proposed, from when on it may run, and who may do what about it.
    #[returns(super::MigrationResponse)]
    Migration {},
    /// A job that was pruned is unknown like one that never was, here and below; lists leave it out.
    #[returns(JobResponse)]
    Job { job: u64 },
    /// Jobs by number, newest first. `limit` has default 10 and maximum 30, here and below.
    #[returns(JobsResponse)]
    Jobs {
        developer: Option<String>,
        start_before: Option<u64>,
        limit: Option<u32>,
    },
    #[returns(ItemResponse)]
    Item { item: ItemId },
    /// Items of a job, shard by shard, replica by replica.
    #[returns(ItemsResponse)]
    Items {
        job: u64,
        start_after: Option<ItemId>,
        limit: Option<u32>,
    },
    /// Rows of a shard, until its job has ended.
    #[returns(InputResponse)]
    Input { job: u64, shard: u16 },
    /// Links that were attested or posted as evidence for an attempt.
    #[returns(LinksResponse)]
    Links { item: ItemId, attempt: u8 },
    /// Items whose evidence window has ended, or whose awaited round is due, and that nobody has expired, oldest first.
    #[returns(OverdueResponse)]
    Overdue { limit: Option<u32> },
}

#[cw_serde]
pub struct ConfigResponse {
    pub admin: AdminResponse,
    pub model_registry: String,
    pub provider_staking: String,
    pub royalty_escrow: String,
    pub randomness_beacon: Option<String>,
    pub params: OrchestratorParams,
    /// What every signature starts with.
    pub domain: Domain,
}

#[cw_serde]
pub struct JobResponse {
    pub job: u64,
    pub developer: String,
    pub model: ModelId,
    pub version: u32,
    pub manifest: Digest,
    pub endpoint: String,
    pub royalty: RoyaltyRate,
    pub gateway: Option<Gateway>,
    pub shards: Vec<ShardInfo>,
    pub replicas: u8,
    pub units_max: u64,
    /// Held at submission, in ufunc.
    pub held: Uint128,
    /// Paid so far.
    pub paid: Uint128,
    pub status: JobStatus,
    /// Block time in seconds.
    pub submitted_at: u64,
    /// Until when the hold can pay.
    pub expires_at: u64,
    /// From when on anyone may `Prune` it. None: it is running.
    #[serde(default)]
    pub prunable_at: Option<u64>,
    /// The session whose owner has forced this. Its slots are the session's.
    #[serde(default)]
    pub session: Option<u64>,
}

#[cw_serde]
#[derive(Copy, Eq)]
pub struct ShardInfo {
    pub rows: u32,
    /// Merkle root over the rows.
    pub root: Digest,
    pub status: ShardStatus,
}

#[cw_serde]
#[derive(Copy, Eq)]
pub enum ShardStatus {
    Running,
    /// At least one replica is settled and none is open.
    Done,
    /// No replica could be completed; nothing was paid for it.
    Failed,
}

#[cw_serde]
#[derive(Copy, Eq)]
pub enum JobStatus {
    Running,
    /// Every shard is done.
    Completed,
    /// Every shard has ended and at least one has failed.
    Incomplete,
}

#[cw_serde]
pub struct JobsResponse {
    pub jobs: Vec<JobResponse>,
}

#[cw_serde]
pub struct ItemResponse {
    pub item: ItemId,
    /// Counts assignments from 0.
    pub attempt: u8,
    pub status: ItemStatus,
    pub engine_class: String,
    pub spans: Vec<Span>,
    /// Block time in seconds at which this attempt was assigned.
    pub assigned_at: u64,
    /// Attestations are taken until `deadline + grace`, evidence until `evidence_until`.
    pub deadline: u64,
    pub evidence_until: u64,
    /// The beacon's round that a redraw after this attempt is seeded with; fixed now and signed only then. None: the network has no
    /// beacon, or the item has ended.
    #[serde(default)]
    pub redraw_round: Option<u64>,
    /// How earlier attempts ended, oldest first.
    pub history: Vec<PastAttempt>,
}

#[cw_serde]
pub enum ItemStatus {
    /// A chain is at work.
    Assigned {},
    /// Proven, waiting for the other replicas of its shard.
    Attested {
        result: ItemResult,
    },
    /// Proven, but another replica says otherwise: drawn anew once this round of the beacon is known. It has no slots meanwhile.
    AwaitingRound {
        round: u64,
    },
    Settled {
        result: ItemResult,
        paid: Uint128,
    },
    /// Proven, but another replica says otherwise: nobody is paid.
    Disputed {
        result: ItemResult,
    },
    /// Given up; its part of the hold goes back.
    Failed {
        reason: FailureReason,
    },
}

#[cw_serde]
#[derive(Copy, Eq)]
pub struct ItemResult {
    pub output_digest: Digest,
    pub tokens_digest: Option<Digest>,
    pub units: Units,
}

#[cw_serde]
#[derive(Copy, Eq)]
pub enum FailureReason {
    /// No chain is left that could do it.
    NoSupply,
    /// As many attempts as the parameters allow have failed.
    Attempts,
    /// The hold would expire before another attempt could end.
    Time,
    /// Missed, and another replica of the shard is there.
    Covered,
}

#[cw_serde]
pub struct PastAttempt {
    pub attempt: u8,
    pub deployments: Vec<u64>,
    pub blame: Blame,
}

/// Who failed in an attempt.
#[cw_serde]
#[derive(Copy, Eq)]
pub enum Blame {
    /// The sole culprit: it had its input and did not deliver. It pays.
    Miss { deployment: u64, penalty_price: Uint128 },
    /// The sender has done its work and the receiver never acknowledged: one of the two, nobody knows which. Nobody pays.
    LinkFault { sender: u64, receiver: u64 },
    /// Proven, but it differed from another replica first at this deployment. Nobody is paid.
    Differs { deployment: u64 },
}

#[cw_serde]
pub struct ItemsResponse {
    pub items: Vec<ItemResponse>,
}

#[cw_serde]
pub struct InputResponse {
    pub rows: Vec<Binary>,
}

#[cw_serde]
pub struct LinksResponse {
    pub links: Vec<Link>,
}

#[cw_serde]
pub struct OverdueResponse {
    pub items: Vec<ItemId>,
}
