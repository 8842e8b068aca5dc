//! What is stored, and the bounds that have no better place.

use cosmwasm_schema::cw_serde;
use cosmwasm_std::{Addr, Empty};
use cw_storage_plus::{Item, Map};
use schema::{
    params::StakingParams,
    staking::{Profile, TotalsResponse},
};

use crate::{deployment::Deployment, draw::Listing, stake::Stake};

#[cw_serde]
pub(crate) struct Config {
    pub(crate) func_token: Addr,
    pub(crate) model_registry: Addr,
    /// None until they are wired.
    pub(crate) siblings: Option<Siblings>,
    pub(crate) params: StakingParams,
}

#[cw_serde]
pub(crate) struct Siblings {
    pub(crate) royalty_escrow: Addr,
    pub(crate) job_orchestrator: Addr,
}

pub(crate) const CONFIG: Item<Config> = Item::new("config");
/// By owner; apart from [`STAKES`], which change with every item.
pub(crate) const PROFILES: Map<&Addr, Profile> = Map::new("profiles");
/// By owner.
pub(crate) const STAKES: Map<&Addr, Stake> = Map::new("stakes");
/// Sums over all stakes.
pub(crate) const TOTALS: Item<TotalsResponse> = Item::new("totals");
pub(crate) const DEPLOYMENTS: Map<u64, Deployment> = Map::new("deployments");
/// Numbers of deployments by model with version, whatever state they are in.
pub(crate) const SERVING: Map<(&[u8], u64), Empty> = Map::new("serving");
/// Until when two neighbours, sender first, are not paired because their link has failed.
pub(crate) const COOLING: Map<(u64, u64), u64> = Map::new("cooling");
/// Number of the newest deployment.
pub(crate) const NEWEST_DEPLOYMENT: Item<u64> = Item::new("newest_deployment");

/// Model, version and class as one part; first stage; rank and number.
pub(crate) type ListingKey<'a> = (&'a [u8], u8, (u128, u64));

/// What the draw reads. Kept by `index.rs` alone, as are the two below.
pub(crate) const LISTINGS: Map<ListingKey<'_>, Listing> = Map::new("listings");
/// Listings by model with version and by class, where there are any.
pub(crate) const CLASSES: Map<(&[u8], &str), u32> = Map::new("classes");
/// The same, the class with most listings first: the second part counts down from the highest number.
pub(crate) const RANKED_CLASSES: Map<(&[u8], u32, &str), Empty> = Map::new("ranked_classes");
