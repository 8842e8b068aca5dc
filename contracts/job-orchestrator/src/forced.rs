//! Requests that the owner of a session forces: work of one item for deployments that keep a slot for the session already.
//!
//! From here on it is an item like any other. What is different: its slots are the session's, so none is taken and only that of a culprit
//! is given back, with its penalty; it has one attempt; and the escrow learns how it has ended, because the deployments wait for that.
//!
//! Nothing about it is for the owner to make impossible: the prices, keys and SLA are those that the session has pinned, the time is what
//! these terms promise, the rows are text, and as many units are allowed as the version allows for so many rows.

use cosmwasm_std::{to_json_binary, Addr, Deps, DepsMut, Env, Response, SubMsg, Uint128};
use schema::{
    escrow::{self, ForcedOutcome, ForcedSpan},
    orchestrator::{Blame, ForcedRequest, ItemStatus},
    registry::{QueryMsg, VersionResponse},
    staking::Chain,
    Digest, ItemId,
};

use crate::{
    chain,
    contract::{message, respond},
    course::Course,
    order, redraw,
    state::{load_item, total, Config, Job, CONFIG, LAST_JOB},
    ContractError,
};

/// The only item of a forced request.
fn item_of(job: u64) -> ItemId {
    ItemId {
        job,
        shard: 0,
        replica: 0,
    }
}

pub(crate) fn open(
    deps: DepsMut<'_>,
    env: &Env,
    sender: &Addr,
    request: ForcedRequest,
) -> Result<Response, ContractError> {
    let config = CONFIG.load(deps.storage)?;
    if config.royalty_escrow != *sender {
        let sender = sender.to_string();
        return Err(ContractError::NotEscrow { sender });
    }
    let shard = order::shard(0, &request.rows, true)?;
    let session = request.session;
    let version = ask_version(deps.as_ref(), &config, &request)?;
    let (mut job, chain) = agreed(env, &config, &request, &version, shard.rows)?;
    let price = total(chain.spans.iter().map(|span| &span.price_max))?;
    (job.item_price_max, job.held) = (price, price);
    let id = LAST_JOB.load(deps.storage)?.saturating_add(1);
    LAST_JOB.save(deps.storage, &id)?;
    let hold = escrow::ExecuteMsg::HoldForced {
        job: id,
        session,
        spans: priced(&chain)?,
        expires_at: job.expires_at,
    };
    let mut course = Course::at(deps.storage, &env.block);
    course.open(id, &job, vec![(shard, request.rows)], vec![chain])?;
    let effects = course.finish();
    let mut response = respond(deps.as_ref(), effects)?;
    let hold = SubMsg::new(message(&config.royalty_escrow, to_json_binary(&hold)?));
    response.messages.insert(0, hold);
    Ok(response)
}

/// Running work goes on whatever has become of the model or the version.
fn ask_version(deps: Deps<'_>, config: &Config, request: &ForcedRequest) -> Result<VersionResponse, ContractError> {
    let question = QueryMsg::Version {
        model: request.model.clone(),
        version: request.version,
    };
    Ok(deps.querier.query_wasm_smart(&config.model_registry, &question)?)
}

fn agreed(
    env: &Env,
    config: &Config,
    request: &ForcedRequest,
    version: &VersionResponse,
    rows: u32,
) -> Result<(Job, Chain), ContractError> {
    let now = env.block.time.seconds();
    let mut params = config.params.clone();
    // Who has not answered is not asked again, and nobody else is in the session's stead.
    params.attempts_max = 1;
    let job = Job {
        // As the escrow has checked it.
        developer: Addr::unchecked(&request.owner),
        model: request.model.clone(),
        version: request.version,
        manifest: version.manifest,
        endpoint: request.endpoint.clone(),
        royalty: request.royalty,
        gateway: request.gateway.clone(),
        compute_shares: version.stages.iter().map(|stage| stage.compute_share_bps).collect(),
        engine_class: None,
        shards: 1,
        replicas: 1,
        units_max: u64::from(rows).saturating_mul(request.units_per_request_max),
        // Text is read and nothing is generated.
        units_out_max: 0,
        item_price_max: Uint128::MAX,
        held: Uint128::zero(),
        seconds_max: None,
        expires_at: now.saturating_add(params.job_seconds_max),
        params,
        submitted_at: now,
        is_named: true,
        session: Some(request.session),
    };
    // No draw is made of it.
    let seed = Digest([0; 32]);
    let terms = redraw::request(&job, now, seed, vec![]).ok_or(ContractError::NoTime)?;
    let chain = chain::named(&request.offers, &terms, job.units(rows))?;
    Ok((job, chain))
}

fn priced(chain: &Chain) -> Result<Vec<ForcedSpan>, ContractError> {
    let priced = |span: &schema::staking::Span| {
        Ok(ForcedSpan {
            deployment: span.deployment,
            price: span.price_max.total()?,
        })
    };
    chain.spans.iter().map(priced).collect()
}

impl Course<'_> {
    /// True if it is too late to blame anybody: the escrow waits no longer, and the slot may be another's.
    pub(crate) fn is_forgotten(&self, job: &Job) -> bool {
        job.session.is_some() && self.now >= job.expires_at
    }

    /// What the escrow is told of a forced request that has ended.
    pub(crate) fn forced_outcome(&self, job: u64) -> Result<ForcedOutcome, ContractError> {
        let item = load_item(self.storage, item_of(job))?;
        if matches!(item.status, ItemStatus::Settled { .. }) {
            return Ok(ForcedOutcome::Answered {});
        }
        Ok(match item.history.last().map(|past| past.blame) {
            Some(Blame::Miss { deployment, .. }) => ForcedOutcome::Missed { deployment },
            _ => ForcedOutcome::Failed {},
        })
    }
}
