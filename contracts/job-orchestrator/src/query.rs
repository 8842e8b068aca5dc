use cosmwasm_std::{Deps, Env, Order, StdResult, Storage};
use cw_storage_plus::Bound;
use governed::admin;
use schema::{
    msg::MigrationResponse,
    orchestrator::{
        ConfigResponse, InputResponse, ItemResponse, ItemsResponse, JobResponse, JobStatus, JobsResponse,
        LinksResponse, OverdueResponse, ShardInfo,
    },
    receipt::Domain,
    ItemId,
};

use crate::{
    state::{
        load_item, load_links, Item, ItemKey, Progress, CONFIG, DEVELOPER_JOBS, DUE, INPUTS, ITEMS, JOBS, PROGRESS,
        SHARDS,
    },
    ContractError,
};

const LIMIT_DEFAULT: u32 = 10;
/// As in cw20-base.
const LIMIT_MAX: u32 = 30;

fn page(limit: Option<u32>) -> usize {
    limit.unwrap_or(LIMIT_DEFAULT).min(LIMIT_MAX) as usize
}

/// Where signatures for this contract are valid.
pub(crate) fn domain(env: &Env) -> Domain {
    Domain {
        chain_id: env.block.chain_id.clone(),
        contract: env.contract.address.to_string(),
    }
}

pub(crate) fn config(deps: Deps<'_>, env: &Env) -> Result<ConfigResponse, ContractError> {
    let config = CONFIG.load(deps.storage)?;
    Ok(ConfigResponse {
        admin: admin::response(deps.storage)?,
        model_registry: config.model_registry.into_string(),
        provider_staking: config.provider_staking.into_string(),
        royalty_escrow: config.royalty_escrow.into_string(),
        randomness_beacon: config.randomness_beacon.map(|beacon| beacon.contract.into_string()),
        params: config.params,
        domain: domain(env),
    })
}

pub(crate) fn migration(storage: &dyn Storage) -> StdResult<MigrationResponse> {
    let notice_seconds = CONFIG.load(storage)?.params.migration_notice_seconds;
    governed::migration::response(storage, notice_seconds)
}

pub(crate) fn job(deps: Deps<'_>, id: u64) -> Result<JobResponse, ContractError> {
    let storage = deps.storage;
    let job = JOBS.may_load(storage, id)?.ok_or(ContractError::NoJob { job: id })?;
    let progress = PROGRESS.load(storage, id)?;
    let prunable_at = job.prunable_at(&progress);
    // At most 64.
    let shards = SHARDS
        .prefix(id)
        .range(storage, None, None, Order::Ascending)
        .map(|shard| Ok(shard?.1))
        .collect::<StdResult<Vec<ShardInfo>>>()?;
    Ok(JobResponse {
        job: id,
        developer: job.developer.into_string(),
        model: job.model,
        version: job.version,
        manifest: job.manifest,
        endpoint: job.endpoint,
        royalty: job.royalty,
        gateway: job.gateway,
        shards,
        replicas: job.replicas,
        units_max: job.units_max,
        held: job.held,
        paid: progress.paid,
        status: status(&progress),
        submitted_at: job.submitted_at,
        expires_at: job.expires_at,
        prunable_at,
        session: job.session,
    })
}

fn status(progress: &Progress) -> JobStatus {
    match (progress.shards_open, progress.shards_failed) {
        (0, 0) => JobStatus::Completed,
        (0, _) => JobStatus::Incomplete,
        _ => JobStatus::Running,
    }
}

pub(crate) fn jobs(
    deps: Deps<'_>,
    developer: Option<String>,
    start_before: Option<u64>,
    limit: Option<u32>,
) -> Result<JobsResponse, ContractError> {
    let max = start_before.map(Bound::exclusive);
    let ids: Vec<u64> = match developer {
        Some(developer) => {
            let developer = deps.api.addr_validate(&developer)?;
            DEVELOPER_JOBS
                .prefix(&developer)
                .keys(deps.storage, None, max, Order::Descending)
                .take(page(limit))
                .collect::<StdResult<_>>()?
        }
        None => JOBS
            .keys(deps.storage, None, max, Order::Descending)
            .take(page(limit))
            .collect::<StdResult<_>>()?,
    };
    let jobs = ids.into_iter().map(|id| job(deps, id)).collect::<Result<_, _>>()?;
    Ok(JobsResponse { jobs })
}

pub(crate) fn item(deps: Deps<'_>, item: ItemId) -> Result<ItemResponse, ContractError> {
    let found = load_item(deps.storage, item)?;
    let round = redraw_round(deps.storage, item.job, &found)?;
    Ok(found.into_response(item, round))
}

pub(crate) fn items(
    deps: Deps<'_>,
    job: u64,
    start_after: Option<ItemId>,
    limit: Option<u32>,
) -> Result<ItemsResponse, ContractError> {
    let min = start_after.map(|item| Bound::exclusive((item.shard, item.replica)));
    let items = ITEMS
        .sub_prefix(job)
        .range(deps.storage, min, None, Order::Ascending)
        .take(page(limit))
        .map(|entry| {
            let ((shard, replica), item) = entry?;
            let round = redraw_round(deps.storage, job, &item)?;
            Ok(item.into_response(item_id((job, shard, replica)), round))
        })
        .collect::<StdResult<_>>()?;
    Ok(ItemsResponse { items })
}

fn redraw_round(storage: &dyn Storage, job: u64, item: &Item) -> StdResult<Option<u64>> {
    match CONFIG.load(storage)?.randomness_beacon {
        Some(beacon) => Ok(beacon.redraw_round(item, &JOBS.load(storage, job)?)),
        None => Ok(None),
    }
}

fn item_id((job, shard, replica): ItemKey) -> ItemId {
    ItemId { job, shard, replica }
}

pub(crate) fn input(deps: Deps<'_>, job: u64, shard: u16) -> Result<InputResponse, ContractError> {
    let rows = INPUTS
        .may_load(deps.storage, (job, shard))?
        .ok_or(ContractError::NoInput { job, shard })?;
    Ok(InputResponse { rows })
}

pub(crate) fn links(deps: Deps<'_>, item: ItemId, attempt: u8) -> Result<LinksResponse, ContractError> {
    load_item(deps.storage, item)?;
    Ok(LinksResponse {
        links: load_links(deps.storage, item, attempt)?,
    })
}

/// Right after a halt of the chain, `Expire` may still want a few more blocks for what is listed here.
pub(crate) fn overdue(storage: &dyn Storage, now: u64, limit: Option<u32>) -> Result<OverdueResponse, ContractError> {
    let items = DUE
        .keys(storage, None, None, Order::Ascending)
        .take(page(limit))
        .take_while(|key| !matches!(key, Ok((evidence_until, _)) if *evidence_until >= now))
        .map(|key| Ok(item_id(key?.1)))
        .collect::<StdResult<_>>()?;
    Ok(OverdueResponse { items })
}
