use cosmwasm_schema::cw_serde;
use cosmwasm_std::{Addr, Binary, StdResult, Storage, Uint128};
use cw_storage_plus::{Item as Single, Map};
use schema::{
    escrow::Gateway,
    orchestrator::{ItemResponse, ItemStatus, PastAttempt, ShardInfo},
    params::OrchestratorParams,
    price::{RoyaltyRate, SpanPrice, Units},
    receipt::Link,
    staking::Span,
    Digest, ItemId, ModelId,
};

use crate::{randomness::Beacon, ContractError};

/// Assignments of one item that the admin may allow: each one adds a line to the item's history.
const ATTEMPTS_MAX: u8 = 10;
/// Longest life of a job that the admin may allow: 30 days, as the escrow's longest hold.
/// Longest `block_seconds_max`: no chain that works is slower.
const BLOCK_SECONDS_MAX: u64 = 60;
const JOB_SECONDS_MAX: u64 = 30 * 24 * 3600;
/// Largest part of a penalty that the admin may give to who expires: what a provider gets back at most by expiring its own miss.
const KEEPER_BPS_MAX: u16 = 1_000;
/// Longest delay of a redraw that the admin may set.
const BEACON_DELAY_SECONDS_MAX: u64 = 3_600;

pub(crate) const CONFIG: Single<Config> = Single::new("config");
/// Number of the newest job, from 1.
pub(crate) const LAST_JOB: Single<u64> = Single::new("last_job");
/// What was agreed at submission. Never changes.
pub(crate) const JOBS: Map<u64, Job> = Map::new("jobs");
pub(crate) const PROGRESS: Map<u64, Progress> = Map::new("progress");
pub(crate) const DEVELOPER_JOBS: Map<(&Addr, u64), ()> = Map::new("developer_jobs");
pub(crate) const SHARDS: Map<(u64, u16), ShardInfo> = Map::new("shards");
/// Rows, until their job has ended.
pub(crate) const INPUTS: Map<(u64, u16), Vec<Binary>> = Map::new("inputs");
pub(crate) const ITEMS: Map<ItemKey, Item> = Map::new("items");
/// Links that were attested or posted, by attempt.
pub(crate) const LINKS: Map<(ItemKey, u8), Vec<Link>> = Map::new("links");
/// Assigned items by the end of their evidence window.
pub(crate) const DUE: Map<(u64, ItemKey), ()> = Map::new("due");

pub(crate) type ItemKey = (u64, u16, u8);

#[cw_serde]
pub(crate) struct Config {
    pub(crate) model_registry: Addr,
    pub(crate) provider_staking: Addr,
    pub(crate) royalty_escrow: Addr,
    #[serde(default)]
    pub(crate) randomness_beacon: Option<Beacon>,
    pub(crate) params: OrchestratorParams,
}

#[cw_serde]
pub(crate) struct Job {
    pub(crate) developer: Addr,
    pub(crate) model: ModelId,
    pub(crate) version: u32,
    pub(crate) manifest: Digest,
    pub(crate) endpoint: String,
    pub(crate) royalty: RoyaltyRate,
    pub(crate) gateway: Option<Gateway>,
    /// By stage.
    pub(crate) compute_shares: Vec<u16>,
    pub(crate) engine_class: Option<String>,
    pub(crate) shards: u16,
    pub(crate) replicas: u8,
    pub(crate) units_max: u64,
    /// Zero where the model generates nothing.
    pub(crate) units_out_max: u64,
    pub(crate) item_price_max: Uint128,
    pub(crate) held: Uint128,
    /// Most that the SLA terms of an item may sum to, if the developer set a deadline.
    pub(crate) seconds_max: Option<u64>,
    /// As they were at submission.
    pub(crate) params: OrchestratorParams,
    pub(crate) submitted_at: u64,
    pub(crate) expires_at: u64,
    /// The developer has named the chains that it begins with.
    #[serde(default)]
    pub(crate) is_named: bool,
    /// Whose owner has forced it. Its slots are the session's.
    #[serde(default)]
    pub(crate) session: Option<u64>,
}

impl Job {
    /// Most units of an item with `rows` rows. How they fall on reading and generating is known only afterwards, so a model that
    /// generates is bounded in each.
    pub(crate) fn units(&self, rows: u32) -> Units {
        Units {
            requests: rows.into(),
            units_in: self.units_max,
            units_out: self.units_out_max,
        }
    }

    pub(crate) fn gateway_bps(&self) -> u16 {
        self.gateway.as_ref().map_or(0, |gateway| gateway.bps)
    }

    /// Most seconds that the SLA terms of a chain assigned `now` may sum to. None: the hold ends before any chain could be judged.
    pub(crate) fn seconds_left(&self, now: u64) -> Option<u64> {
        let window = self.params.window();
        let left = self
            .expires_at
            .checked_sub(now)?
            .checked_sub(self.params.inclusion_seconds.saturating_add(window))?;
        // The draw gives each span its part rounded up, and evidence must end before the hold does.
        let stages = u64::try_from(self.compute_shares.len()).ok()?;
        let left = left.checked_sub(stages)?;
        Some(self.seconds_max.map_or(left, |seconds| seconds.min(left)))
    }

    pub(crate) fn item_ids(&self, job: u64, shard: u16) -> impl Iterator<Item = ItemId> {
        (0..self.replicas).map(move |replica| ItemId { job, shard, replica })
    }
}

pub(crate) trait Window {
    /// Seconds after a deadline until an item may be expired.
    fn window(&self) -> u64;
}

impl Window for OrchestratorParams {
    fn window(&self) -> u64 {
        self.evidence_seconds.max(self.grace_seconds)
    }
}

#[cw_serde]
#[derive(Default)]
pub(crate) struct Progress {
    pub(crate) paid: Uint128,
    pub(crate) shards_open: u16,
    pub(crate) shards_failed: u16,
    /// When the last shard ended.
    #[serde(default)]
    pub(crate) ended_at: Option<u64>,
}

/// One shard-replica with the chain of its current attempt.
#[cw_serde]
pub(crate) struct Item {
    /// Counts assignments from 0.
    pub(crate) attempt: u8,
    pub(crate) status: ItemStatus,
    pub(crate) engine_class: String,
    pub(crate) spans: Vec<Span>,
    pub(crate) assigned_at: u64,
    pub(crate) assigned_height: u64,
    pub(crate) deadline: u64,
    pub(crate) evidence_until: u64,
    pub(crate) history: Vec<PastAttempt>,
}

impl Item {
    pub(crate) fn is_assigned(&self) -> bool {
        matches!(self.status, ItemStatus::Assigned {})
    }

    pub(crate) fn is_live(&self) -> bool {
        matches!(self.status, ItemStatus::Assigned {} | ItemStatus::Attested { .. })
    }

    pub(crate) fn deployments(&self) -> Vec<u64> {
        self.spans.iter().map(|span| span.deployment).collect()
    }

    /// Price of the most units that this attempt may have.
    pub(crate) fn price_max(&self) -> Result<Uint128, ContractError> {
        total(self.spans.iter().map(|span| &span.price_max))
    }

    pub(crate) fn into_response(self, item: ItemId, redraw_round: Option<u64>) -> ItemResponse {
        ItemResponse {
            item,
            attempt: self.attempt,
            status: self.status,
            engine_class: self.engine_class,
            spans: self.spans,
            assigned_at: self.assigned_at,
            deadline: self.deadline,
            evidence_until: self.evidence_until,
            redraw_round,
            history: self.history,
        }
    }
}

pub(crate) fn total<'a>(prices: impl IntoIterator<Item = &'a SpanPrice>) -> Result<Uint128, ContractError> {
    let mut sum = Uint128::zero();
    for price in prices {
        sum = sum.checked_add(price.total()?)?;
    }
    Ok(sum)
}

pub(crate) fn load_item(storage: &dyn Storage, item: ItemId) -> Result<Item, ContractError> {
    ITEMS
        .may_load(storage, item.key())?
        .ok_or(ContractError::NoItem { item })
}

pub(crate) fn load_links(storage: &dyn Storage, item: ItemId, attempt: u8) -> StdResult<Vec<Link>> {
    Ok(LINKS.may_load(storage, (item.key(), attempt))?.unwrap_or_default())
}

/// Refuses parameters outside their bounds, but for what `prune` checks, and those under which a job outlives the rounds that its redraws need.
pub(crate) fn check_params(params: &OrchestratorParams, beacon: Option<&Beacon>) -> Result<(), ContractError> {
    let OrchestratorParams {
        inclusion_seconds,
        grace_seconds,
        evidence_seconds,
        attempts_max,
        job_seconds_max,
        beacon_delay_seconds,
        migration_notice_seconds,
        block_seconds_max,
        prune_after_seconds: _,
        keeper_bps,
    } = *params;
    governed::migration::check_notice(migration_notice_seconds, 1)?;
    if block_seconds_max == 0 || block_seconds_max > BLOCK_SECONDS_MAX {
        return Err(ContractError::BlockSecondsOutOfBounds {
            seconds: block_seconds_max,
            max: BLOCK_SECONDS_MAX,
        });
    }
    if keeper_bps > KEEPER_BPS_MAX {
        return Err(ContractError::KeeperOutOfBounds {
            bps: keeper_bps,
            max: KEEPER_BPS_MAX,
        });
    }
    if attempts_max == 0 || attempts_max > ATTEMPTS_MAX {
        return Err(ContractError::AttemptsOutOfBounds {
            attempts: attempts_max,
            max: ATTEMPTS_MAX,
        });
    }
    if evidence_seconds < grace_seconds {
        return Err(ContractError::EvidenceTooShort {
            evidence_seconds,
            grace_seconds,
        });
    }
    // One second of work and one second between the end of evidence and the end of the hold.
    let min = inclusion_seconds.saturating_add(evidence_seconds).saturating_add(2);
    if job_seconds_max < min || job_seconds_max > JOB_SECONDS_MAX {
        return Err(ContractError::JobSecondsOutOfBounds {
            seconds: job_seconds_max,
            min,
            max: JOB_SECONDS_MAX,
        });
    }
    if beacon_delay_seconds > BEACON_DELAY_SECONDS_MAX {
        return Err(ContractError::BeaconDelay {
            seconds: beacon_delay_seconds,
            max: BEACON_DELAY_SECONDS_MAX,
        });
    }
    match beacon {
        Some(beacon) => beacon.check_keeps(job_seconds_max.saturating_add(beacon_delay_seconds)),
        None => Ok(()),
    }
}
