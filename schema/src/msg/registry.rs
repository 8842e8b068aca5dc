//! model-registry: models, immutable versions, endpoints with their royalty, payout rules and lineage.

use cosmwasm_schema::{cw_serde, QueryResponses};
use cosmwasm_std::{Binary, Decimal, Uint128};
use cw20::Cw20ReceiveMsg;

use super::AdminResponse;
use crate::{
    params::RegistryParams,
    price::{RoyaltyRate, Units},
    Digest, ModelId, Namespace,
};

#[cw_serde]
pub struct InstantiateMsg {
    pub admin: String,
    pub func_token: String,
    pub params: RegistryParams,
}

#[cw_serde]
pub enum ExecuteMsg {
    /// Admin, once: makes the escrow known.
    Wire { royalty_escrow: String },
    /// FUNC arrives with a [`ReceiveMsg`].
    Receive(Cw20ReceiveMsg),
    /// Owner of the namespace: creates a model. Its parents are fixed for ever.
    PublishModel {
        model: ModelId,
        metadata: Metadata,
        payout: Vec<Share>,
        parents: Vec<Parent>,
    },
    /// Owner of the model.
    UpdateMetadata { model: ModelId, metadata: Metadata },
    /// Owner of the model: adds the next version, which never changes.
    PublishVersion { model: ModelId, version: NewVersion },
    /// Owner of the model: no new work on this version. Running work goes on.
    RetireVersion { model: ModelId, version: u32 },
    /// Owner of the model: adds an endpoint or changes its royalty for work opened from now on.
    SetEndpoint {
        model: ModelId,
        endpoint: String,
        terms: EndpointTerms,
    },
    /// Owner of the model: distributes what has accrued by the old rule, then sets the new one.
    SetPayout { model: ModelId, payout: Vec<Share> },
    /// Owner of the model.
    SetStatus { model: ModelId, status: ModelStatus },
    /// Owner of the model: offers it to another account, or withdraws the offer.
    ProposeOwner { model: ModelId, owner: Option<String> },
    /// The account to which the model was offered.
    AcceptOwner { model: ModelId },
    /// Royalty escrow: counts settled work.
    Record { usages: Vec<Usage> },
    /// Admin: bounded parameters, for what is opened from now on.
    UpdateParams { params: RegistryParams },
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

/// What FUNC sent to the registry is for.
#[cw_serde]
pub enum ReceiveMsg {
    /// Takes a free namespace for the sender. The amount must be exactly the fee, and is burnt.
    ClaimNamespace { namespace: Namespace },
}

#[cw_serde]
pub struct Metadata {
    /// 1 to 128 bytes.
    pub title: String,
    /// At most 4096 bytes.
    pub description: String,
    pub task: Task,
    /// SPDX licence expression, 1 to 64 bytes.
    pub licence: String,
    /// At most 8, each 1 to 32 bytes.
    pub tags: Vec<String>,
    /// At most 256 bytes.
    pub homepage: Option<String>,
    /// sha256 of the model card.
    pub card: Option<Digest>,
}

#[cw_serde]
#[derive(Copy, Eq)]
pub enum Task {
    TextGeneration,
    Embeddings,
    Classification,
    Image,
    Audio,
    Other,
}

/// A recipient of royalties.
#[cw_serde]
pub struct Share {
    pub address: String,
    /// At least 1. The shares of a rule sum to 10000.
    pub bps: u16,
}

/// A model that this one stands on.
#[cw_serde]
pub struct Parent {
    pub model: ModelId,
    /// Part of this model's royalty that goes to the parent model. At least 1; the parents together at most 10000.
    pub bps: u16,
}

#[cw_serde]
pub struct NewVersion {
    /// sha256 of the manifest.
    pub manifest: Digest,
    /// Where the bundle may be fetched: at most 4, each 1 to 256 bytes.
    pub manifest_uris: Vec<String>,
    /// 1 to 32, in order.
    pub stages: Vec<StageInfo>,
    /// Relative error inside which an answer of another engine class counts as the same. Above 0, at most 0.01.
    pub tolerance: Decimal,
    /// Most units that one request may have, 1 to 10^9.
    pub units_per_request_max: u64,
}

#[cw_serde]
#[derive(Copy, Eq)]
pub struct StageInfo {
    pub digest: Digest,
    pub weight_bytes: u64,
    /// At least 1. The stages sum to 10000.
    pub compute_share_bps: u16,
}

#[cw_serde]
#[derive(Copy, Eq)]
pub struct EndpointTerms {
    pub unit: Unit,
    pub royalty: RoyaltyRate,
}

#[cw_serde]
#[derive(Copy, Eq)]
pub enum Unit {
    Token,
    Request,
    Image,
    Second,
}

#[cw_serde]
#[derive(Copy, Eq)]
pub enum ModelStatus {
    Active,
    /// No new work for now.
    Paused,
    /// No new work ever again.
    Retired,
}

/// Settled work on one model.
#[cw_serde]
pub struct Usage {
    pub model: ModelId,
    pub units: Units,
    /// F + R + G paid, in ufunc.
    pub paid: Uint128,
    /// Protocol fee and burn: what nobody who deals with himself gets back, in ufunc.
    pub sunk: Uint128,
}

#[cw_serde]
#[derive(QueryResponses)]
pub enum QueryMsg {
    #[returns(ConfigResponse)]
    Config {},
    /// The new code that is proposed, from when on it may run, and who may do what about it.
    #[returns(super::MigrationResponse)]
    Migration {},
    /// Owner of a namespace, if it is claimed.
    #[returns(NamespaceResponse)]
    Namespace { namespace: Namespace },
    #[returns(ModelResponse)]
    Model { model: ModelId },
    /// Models by name. `limit` has default 10 and maximum 30, here and below.
    #[returns(ModelsResponse)]
    Models {
        namespace: Option<Namespace>,
        start_after: Option<ModelId>,
        limit: Option<u32>,
    },
    #[returns(VersionResponse)]
    Version { model: ModelId, version: u32 },
    /// Versions of a model, oldest first.
    #[returns(VersionsResponse)]
    Versions {
        model: ModelId,
        start_after: Option<u32>,
        limit: Option<u32>,
    },
    /// Everything that work on an endpoint pins when it is opened. An error says why there can be no new work.
    #[returns(OfferResponse)]
    Offer {
        model: ModelId,
        version: Option<u32>,
        endpoint: String,
    },
    /// Who gets a model's royalty.
    #[returns(PayoutResponse)]
    Payout { model: ModelId },
}

#[cw_serde]
pub struct ConfigResponse {
    pub admin: AdminResponse,
    pub func_token: String,
    pub royalty_escrow: Option<String>,
    pub params: RegistryParams,
}

#[cw_serde]
pub struct NamespaceResponse {
    pub owner: Option<String>,
}

#[cw_serde]
pub struct ModelResponse {
    pub model: ModelId,
    pub owner: String,
    pub proposed_owner: Option<String>,
    pub metadata: Metadata,
    pub status: ModelStatus,
    pub payout: Vec<Share>,
    pub parents: Vec<Parent>,
    /// At most 8.
    pub endpoints: Vec<Endpoint>,
    /// Number of the newest version, 0 before the first.
    pub versions: u32,
    pub usage: UsageTotals,
    /// Block time of publication, in seconds.
    pub published_at: u64,
}

#[cw_serde]
pub struct Endpoint {
    pub name: String,
    pub terms: EndpointTerms,
}

/// All work ever settled on a model.
#[cw_serde]
#[derive(Eq, Default)]
pub struct UsageTotals {
    pub units: Units,
    pub paid: Uint128,
    pub sunk: Uint128,
}

#[cw_serde]
pub struct ModelsResponse {
    pub models: Vec<ModelResponse>,
}

#[cw_serde]
pub struct VersionResponse {
    pub version: u32,
    pub manifest: Digest,
    pub manifest_uris: Vec<String>,
    pub stages: Vec<StageInfo>,
    pub tolerance: Decimal,
    pub units_per_request_max: u64,
    pub retired: bool,
    pub published_at: u64,
}

#[cw_serde]
pub struct VersionsResponse {
    pub versions: Vec<VersionResponse>,
}

#[cw_serde]
pub struct OfferResponse {
    pub model: ModelId,
    pub version: u32,
    pub manifest: Digest,
    pub task: Task,
    pub stages: Vec<StageInfo>,
    pub units_per_request_max: u64,
    pub terms: EndpointTerms,
}

#[cw_serde]
pub struct PayoutResponse {
    pub payout: Vec<Share>,
    pub parents: Vec<Parent>,
}
