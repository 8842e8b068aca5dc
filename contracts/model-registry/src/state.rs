//! What is stored. A model lies in three places, because usage is counted with every settlement and a description has 4 KiB: nobody
//! should pay for writing the one because the other changes.

use cosmwasm_schema::cw_serde;
use cosmwasm_std::{Addr, Decimal, Empty, Uint128};
use cw_storage_plus::{Item, Map};
use schema::{
    params::RegistryParams,
    registry::{Endpoint, Metadata, ModelStatus, Parent, StageInfo, UsageTotals},
    Digest, TOTAL_SUPPLY,
};

/// More than all FUNC can never be paid.
pub(crate) const NAMESPACE_FEE_MAX: Uint128 = Uint128::new(TOTAL_SUPPLY);

#[cw_serde]
pub(crate) struct Config {
    pub(crate) func_token: Addr,
    pub(crate) royalty_escrow: Option<Addr>,
    pub(crate) params: RegistryParams,
}

#[cw_serde]
pub(crate) struct Model {
    pub(crate) owner: Addr,
    pub(crate) proposed_owner: Option<Addr>,
    pub(crate) status: ModelStatus,
    pub(crate) payout: Vec<Recipient>,
    /// Fixed at publication.
    pub(crate) parents: Vec<Parent>,
    /// At most 8: read as a whole by everybody.
    pub(crate) endpoints: Vec<Endpoint>,
    /// Number of the newest version, 0 before the first.
    pub(crate) versions: u32,
    pub(crate) published_at: u64,
}

#[cw_serde]
pub(crate) struct Recipient {
    pub(crate) address: Addr,
    pub(crate) bps: u16,
}

/// Never written twice: whether it is retired stands in [`LIVE_VERSIONS`].
#[cw_serde]
pub(crate) struct Version {
    pub(crate) manifest: Digest,
    pub(crate) manifest_uris: Vec<String>,
    pub(crate) stages: Vec<StageInfo>,
    pub(crate) tolerance: Decimal,
    pub(crate) units_per_request_max: u64,
    pub(crate) published_at: u64,
}

pub(crate) const CONFIG: Item<Config> = Item::new("config");
/// Owner by namespace.
pub(crate) const NAMESPACES: Map<&str, Addr> = Map::new("namespaces");
/// By `namespace/name`, so that the models of a namespace lie together.
pub(crate) const MODELS: Map<&str, Model> = Map::new("models");
pub(crate) const METADATA: Map<&str, Metadata> = Map::new("metadata");
pub(crate) const USAGES: Map<&str, UsageTotals> = Map::new("usages");
pub(crate) const VERSIONS: Map<(&str, u32), Version> = Map::new("versions");
/// The versions that are not retired: the newest is the last key, found without a walk over those that are.
pub(crate) const LIVE_VERSIONS: Map<(&str, u32), Empty> = Map::new("live_versions");
