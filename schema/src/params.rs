//! Parameters of the contracts. The checked-in profiles `params/local.toml` and `params/public.toml` are values of [`Params`].

use cosmwasm_schema::cw_serde;
use cosmwasm_std::Uint128;

use crate::price::FeeBps;

/// All parameters of a network, one table a contract.
#[cw_serde]
#[derive(Eq)]
pub struct Params {
    pub registry: RegistryParams,
    pub staking: StakingParams,
    pub escrow: EscrowParams,
    pub orchestrator: OrchestratorParams,
}

#[cw_serde]
#[derive(Eq)]
pub struct RegistryParams {
    /// Ufunc burnt by the first publisher of a namespace.
    pub namespace_fee: Uint128,
}

#[cw_serde]
#[derive(Eq)]
pub struct StakingParams {
    /// Ufunc of bond behind each slot, and the most that one item on it may cost.
    pub bond_per_slot: Uint128,
    /// Ufunc burnt for each deployment.
    pub listing_fee: Uint128,
    /// From `Unbond` to `Withdraw`; the amount stays slashable meanwhile.
    pub unbonding_seconds: u64,
    /// Least penalty of a miss, in ufunc. At most `bond_per_slot`.
    pub miss_min: Uint128,
    /// Least penalty that an SLA may commit to, in bps of the item's price.
    pub penalty_bps_min: u16,
    /// Longest `base_seconds` and `seconds_per_1k_units` of an SLA.
    pub sla_seconds_max: u64,
}

#[cw_serde]
#[derive(Eq)]
pub struct EscrowParams {
    /// Parts of every compute fee, pinned when work is opened.
    pub fees: FeeBps,
    /// Longest time for which money may be held.
    pub hold_seconds_max: u64,
}

#[cw_serde]
#[derive(Eq)]
pub struct OrchestratorParams {
    /// Time for transactions to be included, part of every deadline.
    pub inclusion_seconds: u64,
    /// An attestation is taken until deadline + grace.
    pub grace_seconds: u64,
    /// Receipts and acknowledgements are taken until deadline + evidence; an item expires afterwards. At least `grace_seconds`.
    pub evidence_seconds: u64,
    /// Assignments of one item before it fails, 1 to 10.
    pub attempts_max: u8,
    /// From `SubmitJob` to the date at which whatever is still held may be released by anyone.
    pub job_seconds_max: u64,
}
