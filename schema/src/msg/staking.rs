//! provider-staking: providers, their bond, their deployments with SLA terms, and the draw.

use cosmwasm_schema::{cw_serde, QueryResponses};
use cosmwasm_std::{Binary, Uint128};
use cw20::Cw20ReceiveMsg;

use super::AdminResponse;
use crate::{
    params::StakingParams,
    price::{Ask, RoyaltyRate, SpanPrice, Units},
    Digest, ItemId, ModelId, PublicKey,
};

#[cw_serde]
pub struct InstantiateMsg {
    pub admin: String,
    pub func_token: String,
    pub model_registry: String,
    pub params: StakingParams,
}

#[cw_serde]
pub enum ExecuteMsg {
    /// Admin, once: makes the siblings known.
    Wire {
        royalty_escrow: String,
        job_orchestrator: String,
    },
    /// FUNC arrives with a [`ReceiveMsg`].
    Receive(Cw20ReceiveMsg),
    /// Anyone, once an account.
    RegisterProvider { profile: Profile },
    /// The provider. A new host key counts for what is assigned from now on.
    UpdateProvider { profile: Profile },
    /// The provider: starts to take out free bond. At most 7 entries at a time.
    Unbond { amount: Uint128 },
    /// The provider: pays out every entry whose time has come.
    Withdraw {},
    /// The provider: no new work for this deployment.
    Drain { deployment: u64 },
    /// The provider: forgets an idle deployment and frees its bond.
    Remove { deployment: u64 },
    /// The provider or its operator, once the time in jail is over: its deployments are in the draw again.
    Unjail { provider: String },
    /// Job orchestrator: takes a slot of every deployment named.
    Occupy { items: Vec<Occupation> },
    /// Job orchestrator: gives the slots back, and says how it ended: what counts against bonds, who pays, whose link failed.
    Vacate { items: Vec<Vacancy> },
    /// Royalty escrow or job orchestrator: work that was paid for without giving a slot back, at most 32. Never refused: what is not
    /// known is passed over.
    RecordSettled { work: Vec<SettledWork> },
    /// Royalty escrow: takes a slot of every deployment named, at most 16, for a session.
    Reserve { session: u64, deployments: Vec<u64> },
    /// Royalty escrow: gives slots of a session back. Never refused for known deployments.
    Free { session: u64, deployments: Vec<u64> },
    /// Admin: bounded parameters, for what is opened from now on.
    UpdateParams { params: StakingParams },
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

/// What FUNC sent to staking is for.
#[cw_serde]
pub enum ReceiveMsg {
    /// Adds to the sender's own bond. The sender must be registered.
    Bond {},
    /// Lists a deployment of the sender. The amount must be exactly the listing fee, and is burnt.
    Deploy { terms: DeploymentTerms },
}

#[cw_serde]
pub struct Profile {
    /// 1 to 64 bytes.
    pub name: String,
    /// Base URL at which hosts of other spans and developers reach this provider's host, 1 to 256 bytes.
    pub endpoint: String,
    /// Key of the host: signs receipts and acknowledgements.
    pub host_key: PublicKey,
    /// Hot account of the relayer, if it is not the owner: may submit, never withdraw.
    pub operator: Option<String>,
    /// Free text about the machine, at most 256 bytes.
    pub hardware: String,
}

#[cw_serde]
pub struct DeploymentTerms {
    pub model: ModelId,
    pub version: u32,
    /// First stage served, from 0.
    pub first: u8,
    /// Last stage served.
    pub last: u8,
    /// What decides the bits: library, device, precision, options, CPU features. 1 to 128 bytes.
    pub engine_class: String,
    pub ask: Ask,
    /// For a slot that a session keeps for an hour, in ufunc: from `reservation_per_hour_min` on, and at most all FUNC.
    pub reservation_per_hour: Uint128,
    /// Items and sessions served at the same time, 1 to 1000. Each is backed by `bond_per_slot`.
    pub slots: u16,
    pub sla: Sla,
}

/// A provider's own commitment, inside governed bounds.
#[cw_serde]
#[derive(Copy, Eq)]
pub struct Sla {
    pub base_seconds: u64,
    pub seconds_per_1k_units: u64,
    /// Most units (in and out) of one item.
    pub units_max: u64,
    /// Of the item's price, paid to the developer for a miss. At most 10000.
    pub penalty_bps: u16,
}

impl Sla {
    /// Seconds for an item of at most `units`: base + rate x units, rounded up.
    pub fn seconds(&self, units: u64) -> u64 {
        let rated = u128::from(self.seconds_per_1k_units)
            .saturating_mul(units.into())
            .div_ceil(1000);
        self.base_seconds
            .saturating_add(u64::try_from(rated).unwrap_or(u64::MAX))
    }
}

#[cw_serde]
pub struct Occupation {
    pub item: ItemId,
    pub deployments: Vec<u64>,
}

#[cw_serde]
pub struct Vacancy {
    pub item: ItemId,
    pub deployments: Vec<u64>,
    pub ended: Ended,
}

/// How an attempt has ended for those who were in it.
#[cw_serde]
pub enum Ended {
    /// Neither paid nor anybody's known fault.
    Unpaid {},
    /// Paid. The price of the whole item counts against the bond of every span, for whichever is found guilty owes all of it.
    Settled { price: Uint128 },
    /// The sole culprit pays and takes a strike.
    Missed(Penalty),
    /// A receipt without the acknowledgement that follows it: one of the two, nobody knows which. Both are drawn less often for a
    /// while, and not next to each other.
    LinkFault { sender: u64, receiver: u64 },
}

/// Price of work that a deployment was paid for, F + R + G in ufunc.
#[cw_serde]
pub struct SettledWork {
    pub deployment: u64,
    pub price: Uint128,
}

#[cw_serde]
pub struct Penalty {
    /// The sole culprit, one of the vacated deployments.
    pub deployment: u64,
    /// Price of the item, in ufunc. The SLA's bps are taken of it.
    pub price: Uint128,
    /// The developer.
    pub beneficiary: String,
    /// Who has found it, with a part of what the culprit pays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keeper: Option<Keeper>,
}

#[cw_serde]
pub struct Keeper {
    pub account: String,
    /// Of the penalty.
    pub bps: u16,
}

#[cw_serde]
#[derive(QueryResponses)]
pub enum QueryMsg {
    #[returns(ConfigResponse)]
    Config {},
    /// The new code that is proposed, from when on it may run, and who may do what about it.
    #[returns(super::MigrationResponse)]
    Migration {},
    #[returns(ProviderResponse)]
    Provider { provider: String },
    /// Providers by address. `limit` has default 10 and maximum 30, here and below.
    #[returns(ProvidersResponse)]
    Providers {
        start_after: Option<String>,
        limit: Option<u32>,
    },
    #[returns(DeploymentResponse)]
    Deployment { deployment: u64 },
    /// Deployments of one provider, or of all, by number.
    #[returns(DeploymentsResponse)]
    Deployments {
        provider: Option<String>,
        start_after: Option<u64>,
        limit: Option<u32>,
    },
    /// Deployments that serve a version, by number, busy and draining ones too: who may have its blobs, and who could take work.
    #[returns(DeploymentsResponse)]
    DeploymentsOf {
        model: ModelId,
        version: u32,
        start_after: Option<u64>,
        limit: Option<u32>,
    },
    /// What sessions pin of deployments, in the order asked for: at most 16.
    #[returns(OffersResponse)]
    Offers { deployments: Vec<u64> },
    /// Chooses chains of deployments for all replicas of all shards, or says that there is no supply.
    #[returns(DrawResponse)]
    Draw { request: DrawRequest },
    /// What the contract's FUNC balance is made of.
    #[returns(TotalsResponse)]
    Totals {},
}

#[cw_serde]
pub struct ConfigResponse {
    pub admin: AdminResponse,
    pub func_token: String,
    pub model_registry: String,
    pub royalty_escrow: Option<String>,
    pub job_orchestrator: Option<String>,
    pub params: StakingParams,
}

#[cw_serde]
pub struct ProviderResponse {
    pub provider: String,
    pub profile: Profile,
    /// Bonded and not unbonding, in ufunc.
    pub bond: Uint128,
    /// Part of the bond behind slots, busy or not.
    pub committed: Uint128,
    /// Part of the bond behind busy slots: open exposure.
    pub backing: Uint128,
    /// Price of the work settled inside the audit window: the rest of the exposure.
    pub settled: Uint128,
    /// What has to be free of all exposure: 1.5 x the larger of audit unit and slot bond.
    pub reserve: Uint128,
    /// What may be unbonded now.
    pub free: Uint128,
    /// Block times in seconds of the misses inside the strike window, oldest first.
    pub strikes: Vec<u64>,
    /// Jailed: no new work until `Unjail`, which is taken from this block time in seconds on.
    pub jailed_until: Option<u64>,
    pub unbonding: Vec<UnbondingEntry>,
    /// At most 32.
    pub deployments: u32,
    /// Penalties ever paid, in ufunc.
    pub penalties: Uint128,
}

#[cw_serde]
pub struct UnbondingEntry {
    pub amount: Uint128,
    /// Block time in seconds from which it may be withdrawn.
    pub release_at: u64,
}

#[cw_serde]
pub struct ProvidersResponse {
    pub providers: Vec<ProviderResponse>,
}

#[cw_serde]
pub struct DeploymentResponse {
    pub deployment: u64,
    pub provider: String,
    pub terms: DeploymentTerms,
    pub state: DeploymentState,
    /// Slots that hold an item or a session now.
    pub busy: u16,
    /// Bond behind each slot, pinned when it was listed.
    pub slot_bond: Uint128,
    /// Link faults inside their window: its chance in the draw is divided by one more than this.
    pub link_faults: u32,
}

#[cw_serde]
#[derive(Copy, Eq)]
pub enum DeploymentState {
    Active,
    /// Finishes what it has and takes nothing new.
    Draining,
}

#[cw_serde]
pub struct DeploymentsResponse {
    pub deployments: Vec<DeploymentResponse>,
}

#[cw_serde]
pub struct OffersResponse {
    pub offers: Vec<DeploymentOffer>,
}

/// A deployment with what of its provider concerns a session.
#[cw_serde]
pub struct DeploymentOffer {
    pub deployment: u64,
    pub provider: String,
    pub host_key: PublicKey,
    pub terms: DeploymentTerms,
    /// Bond behind each slot, pinned when it was listed.
    pub slot_bond: Uint128,
}

/// What the orchestrator asks of a draw. Anyone may ask the same to learn what a job would get.
#[cw_serde]
pub struct DrawRequest {
    pub model: ModelId,
    pub version: u32,
    /// Only this class; otherwise up to 8 classes are tried for each shard.
    pub engine_class: Option<String>,
    /// Share of the compute of each stage, in order.
    pub compute_shares: Vec<u16>,
    pub royalty: RoyaltyRate,
    pub gateway_bps: u16,
    pub seed: Digest,
    /// Most that one item may cost, F + R + G over its spans.
    pub item_price_max: Uint128,
    /// Most that the SLA terms of an item may sum to, split over spans by compute share.
    pub seconds_max: Option<u64>,
    pub shards: Vec<DrawShard>,
}

#[cw_serde]
#[derive(Default)]
pub struct DrawShard {
    pub units: Units,
    /// Chains to draw, 1 to 3, no two with an owner in common.
    pub replicas: u8,
    /// Owners that hold other replicas of this shard already.
    pub taken_owners: Vec<String>,
    /// Only this class, because other replicas of this shard run in it already.
    pub engine_class: Option<String>,
    /// Deployments that must not be drawn.
    pub exclude: Vec<u64>,
    /// Deployments that are drawn only if there is no supply without them.
    pub avoid: Vec<u64>,
    /// Rather a chain of one provider than one with links between providers.
    pub prefer_one_owner: bool,
}

#[cw_serde]
pub struct DrawResponse {
    /// Shard by shard, replica by replica. None: no supply.
    pub chains: Option<Vec<Chain>>,
}

/// One way through all stages of a model.
#[cw_serde]
pub struct Chain {
    pub engine_class: String,
    pub spans: Vec<Span>,
}

/// Contiguous stages on one deployment, with everything about it that an assignment pins.
#[cw_serde]
pub struct Span {
    pub deployment: u64,
    pub provider: String,
    pub host_key: PublicKey,
    pub first: u8,
    pub last: u8,
    pub compute_share_bps: u16,
    pub ask: Ask,
    pub sla: Sla,
    /// Price for the most units.
    pub price_max: SpanPrice,
}

#[cw_serde]
pub struct TotalsResponse {
    /// Sum of all bonds, in ufunc.
    pub bonded: Uint128,
    /// Sum of all unbonding entries.
    pub unbonding: Uint128,
}
