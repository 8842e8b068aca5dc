//! Entry points: who may send what, what is asked of the siblings, and in which order they are told.

use std::collections::BTreeSet;

use cosmwasm_std::{
    entry_point, from_json, to_json_binary, Addr, Api, Binary, CosmosMsg, Deps, DepsMut, Env, MessageInfo,
    QuerierWrapper, Reply, Response, StdError, StdResult, SubMsg, WasmMsg,
};
use governed::{admin, migration};
use schema::{
    escrow::{self, WorkTerms},
    msg::MigrateMsg,
    orchestrator::{ExecuteMsg, InstantiateMsg, NewJob, QueryMsg},
    params::OrchestratorParams,
    receipt::Attestation,
    registry::{self, OfferResponse},
    staking::{self, Chain, DrawRequest, DrawResponse, DrawShard, OffersResponse},
    Digest, Event, ItemId, PublicKey, Signature, BATCH_MAX,
};

use crate::{
    chain,
    course::Course,
    effects::{Effects, EndedJob, Redraw},
    forced,
    order::Order,
    prune,
    query::{self, domain},
    randomness::{Beacon, Source},
    redraw,
    state::{check_params, Config, Job, CONFIG, LAST_JOB},
    ContractError,
};

/// Replies come from staking, after slots were given back whose items are to be drawn anew.
const REDRAW: u64 = 1;

#[entry_point]
pub fn instantiate(
    deps: DepsMut<'_>,
    _env: Env,
    info: MessageInfo,
    msg: InstantiateMsg,
) -> Result<Response, ContractError> {
    refuse_funds(&info)?;
    let beacon = match &msg.randomness_beacon {
        Some(beacon) => Some(Beacon::ask(deps.querier, deps.api.addr_validate(beacon)?)?),
        None => None,
    };
    check_params(&msg.params, beacon.as_ref())?;
    cw2::set_contract_version(deps.storage, env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION"))?;
    admin::appoint(deps.storage, deps.api.addr_validate(&msg.admin)?)?;
    let config = Config {
        model_registry: deps.api.addr_validate(&msg.model_registry)?,
        provider_staking: deps.api.addr_validate(&msg.provider_staking)?,
        royalty_escrow: deps.api.addr_validate(&msg.royalty_escrow)?,
        randomness_beacon: beacon,
        params: msg.params,
    };
    let staking = ask_staking(deps.querier, &config)?;
    migration::check_notice(
        config.params.migration_notice_seconds,
        staking.params.migration_notice_seconds,
    )?;
    prune::check_params(&config.params, staking.params.conduct.audit_window_seconds)?;
    CONFIG.save(deps.storage, &config)?;
    LAST_JOB.save(deps.storage, &0)?;
    Ok(Response::new())
}

#[entry_point]
pub fn execute(deps: DepsMut<'_>, env: Env, info: MessageInfo, msg: ExecuteMsg) -> Result<Response, ContractError> {
    refuse_funds(&info)?;
    match msg {
        ExecuteMsg::SubmitJob { job } => submit_job(deps, &env, info.sender, job),
        ExecuteMsg::SubmitAttestations { attestations } => submit_attestations(deps, &env, &attestations),
        ExecuteMsg::PostEvidence { item, attempt, links } => {
            let mut course = Course::at(deps.storage, &env.block);
            course.post_evidence(item, attempt, &links, &domain(&env), &verifier(deps.api))?;
            let effects = course.finish();
            respond(deps.as_ref(), effects)
        }
        ExecuteMsg::Expire { item } => expire(deps, &env, &info.sender, item),
        ExecuteMsg::Prune { jobs } => {
            let mut course = Course::at(deps.storage, &env.block);
            course.prune(&jobs)?;
            let effects = course.finish();
            respond(deps.as_ref(), effects)
        }
        ExecuteMsg::OpenForced { request } => forced::open(deps, &env, &info.sender, request),
        ExecuteMsg::UpdateParams { params } => update_params(deps, info.sender, params),
        ExecuteMsg::ProposeAdmin { admin } => {
            let admin = admin.map(|admin| deps.api.addr_validate(&admin)).transpose()?;
            Ok(announce([admin::propose(deps.storage, &info.sender, admin)?]))
        }
        ExecuteMsg::AcceptAdmin {} => Ok(announce([admin::accept(deps.storage, &info.sender)?])),
        ExecuteMsg::ProposeMigration { code_id, msg } => {
            let notice = CONFIG.load(deps.storage)?.params.migration_notice_seconds;
            let clock = (env.block.time.seconds(), notice);
            let event = migration::propose(deps.storage, deps.querier, &info.sender, code_id, msg, clock)?;
            Ok(announce([event]))
        }
        ExecuteMsg::CancelMigration {} => Ok(announce([migration::cancel(deps.storage, &info.sender)?])),
        ExecuteMsg::ExecuteMigration {} => {
            let now = env.block.time.seconds();
            let (proposal, event) = migration::execute(deps.storage, &info.sender, now)?;
            Ok(announce([event]).add_message(proposal.into_message(&env.contract.address)))
        }
    }
}

fn ask_staking(querier: QuerierWrapper<'_>, config: &Config) -> StdResult<staking::ConfigResponse> {
    querier.query_wasm_smart(&config.provider_staking, &staking::QueryMsg::Config {})
}

fn update_params(deps: DepsMut<'_>, sender: Addr, params: OrchestratorParams) -> Result<Response, ContractError> {
    admin::require(deps.storage, &sender)?;
    let mut config = CONFIG.load(deps.storage)?;
    check_params(&params, config.randomness_beacon.as_ref())?;
    migration::check_notice_is_fixed(config.params.migration_notice_seconds, params.migration_notice_seconds)?;
    let staking = ask_staking(deps.querier, &config)?;
    prune::check_params(&params, staking.params.conduct.audit_window_seconds)?;
    config.params = params;
    CONFIG.save(deps.storage, &config)?;
    Ok(announce([Event::ParamsUpdated { admin: sender.into() }]))
}

/// Only the contract itself can have it migrated, and does so for a proposal whose notice has passed.
#[entry_point]
pub fn migrate(deps: DepsMut<'_>, _env: Env, _msg: MigrateMsg) -> Result<Response, ContractError> {
    let event = migration::complete(deps.storage, env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION"))?;
    Ok(announce([event]))
}

/// The slots of a failed attempt are free: now its item can be drawn anew, and they count.
#[entry_point]
pub fn reply(deps: DepsMut<'_>, env: Env, reply: Reply) -> Result<Response, ContractError> {
    let plan: Redraw = from_json(&reply.payload)?;
    draw_anew(deps, &env, &plan)
}

fn draw_anew(deps: DepsMut<'_>, env: &Env, plan: &Redraw) -> Result<Response, ContractError> {
    let attempt = redraw::attempt(deps.storage, plan)?;
    let seed = plan.source.seed(&domain(env), plan.job, (plan.shard, attempt));
    let request = redraw::request_anew(deps.storage, plan, env.block.time.seconds(), seed)?;
    let chains = match request {
        Some(request) => draw(deps.as_ref(), request)?.chains,
        None => None,
    };
    let mut course = Course::at(deps.storage, &env.block);
    course.announce(Event::Drawn {
        job: plan.job,
        shard: Some(plan.shard),
        attempt,
        seed,
        round: plan.source.round(),
    });
    course.redrawn(plan, chains)?;
    let effects = course.finish();
    respond(deps.as_ref(), effects)
}

#[entry_point]
pub fn query(deps: Deps<'_>, env: Env, msg: QueryMsg) -> Result<Binary, ContractError> {
    let answer = match msg {
        QueryMsg::Config {} => to_json_binary(&query::config(deps, &env)?),
        QueryMsg::Migration {} => to_json_binary(&query::migration(deps.storage)?),
        QueryMsg::Job { job } => to_json_binary(&query::job(deps, job)?),
        QueryMsg::Jobs {
            developer,
            start_before,
            limit,
        } => to_json_binary(&query::jobs(deps, developer, start_before, limit)?),
        QueryMsg::Item { item } => to_json_binary(&query::item(deps, item)?),
        QueryMsg::Items {
            job,
            start_after,
            limit,
        } => to_json_binary(&query::items(deps, job, start_after, limit)?),
        QueryMsg::Input { job, shard } => to_json_binary(&query::input(deps, job, shard)?),
        QueryMsg::Links { item, attempt } => to_json_binary(&query::links(deps, item, attempt)?),
        QueryMsg::Overdue { limit } => to_json_binary(&query::overdue(deps.storage, env.block.time.seconds(), limit)?),
    };
    Ok(answer?)
}

fn refuse_funds(info: &MessageInfo) -> Result<(), ContractError> {
    match info.funds.len() {
        0 => Ok(()),
        kinds => Err(ContractError::FundsAttached { kinds }),
    }
}

fn announce(events: impl IntoIterator<Item = Event>) -> Response {
    Response::new().add_events(events.into_iter().map(|event| event.encode()))
}

/// A signature that cannot even be read is no signature; it never stops the others.
fn verifier(api: &dyn Api) -> impl Fn(&Digest, &Signature, &PublicKey) -> bool + '_ {
    |digest, signature, key| {
        signature.is_low_s() && api.secp256k1_verify(&digest.0, &signature.0, &key.0).unwrap_or(false)
    }
}

fn expire(deps: DepsMut<'_>, env: &Env, sender: &Addr, item: ItemId) -> Result<Response, ContractError> {
    let querier = deps.querier;
    let find = |beacon: &Beacon, round: u64| beacon.find(querier, round);
    let mut course = Course::at(deps.storage, &env.block);
    course.expire(item, sender, &find)?;
    let mut effects = course.finish();
    match effects.draw.take() {
        Some(plan) => draw_anew(deps, env, &plan),
        None => respond(deps.as_ref(), effects),
    }
}

fn submit_job(deps: DepsMut<'_>, env: &Env, developer: Addr, new: NewJob) -> Result<Response, ContractError> {
    let config = CONFIG.load(deps.storage)?;
    let question = registry::QueryMsg::Offer {
        model: new.model.clone(),
        version: new.version,
        endpoint: new.endpoint.clone(),
    };
    let answer = deps.querier.query_wasm_smart(&config.model_registry, &question);
    // A chain may hide why a query failed; what was asked for is said here.
    let offer: OfferResponse = answer.map_err(|err| ContractError::NoOffer {
        model: new.model.clone(),
        endpoint: new.endpoint.chars().take(64).collect(),
        reason: reason(err),
    })?;
    let order = Order::of(&new, &offer)?;
    let id = LAST_JOB.load(deps.storage)?.saturating_add(1);
    LAST_JOB.save(deps.storage, &id)?;
    let named = new.chain.clone();
    let (job, inputs) = agreed(env, developer, new, offer, &order, &config)?;

    let shards: Vec<DrawShard> = order
        .shards
        .iter()
        .map(|shard| DrawShard {
            units: job.units(shard.rows),
            replicas: job.replicas,
            ..DrawShard::default()
        })
        .collect();
    let request = |seed| redraw::request(&job, job.submitted_at, seed, shards).ok_or_else(|| no_supply(&job, &order));
    let (chains, drawn) = match named {
        Some(deployments) => {
            // Nothing is drawn, and nothing is random.
            let request = request(Digest([0; 32]))?;
            (named_chains(deps.as_ref(), &config, &request, deployments)?, None)
        }
        None => {
            let source = first_source(deps.querier, env, &config)?;
            let seed = source.seed(&domain(env), id, (0, 0));
            let drawn = draw(deps.as_ref(), request(seed)?)?;
            let chains = drawn.chains.ok_or_else(|| no_supply(&job, &order))?;
            (chains, Some((seed, source)))
        }
    };
    if chains.len() != order.items {
        return Err(ContractError::DrawMismatch {
            expected: order.items,
            found: chains.len(),
        });
    }
    let mut course = Course::at(deps.storage, &env.block);
    course.open(id, &job, order.shards.into_iter().zip(inputs).collect(), chains)?;
    if let Some((seed, source)) = drawn {
        course.announce(Event::Drawn {
            job: id,
            shard: None,
            attempt: 0,
            seed,
            round: source.round(),
        });
    }
    let effects = course.finish();

    let hold = escrow::ExecuteMsg::Hold {
        job: id,
        account: job.developer.into_string(),
        amount: job.held,
        terms: WorkTerms {
            model: job.model,
            royalty: job.royalty,
            gateway: job.gateway,
        },
        expires_at: job.expires_at,
    };
    let mut response = respond(deps.as_ref(), effects)?;
    let hold = SubMsg::new(message(&config.royalty_escrow, to_json_binary(&hold)?));
    response.messages.insert(0, hold);
    Ok(response)
}

/// The chain that a developer has named, for every shard. Staking refuses it if a slot is not free when it is taken.
fn named_chains(
    deps: Deps<'_>,
    config: &Config,
    request: &DrawRequest,
    deployments: Vec<u64>,
) -> Result<Vec<Chain>, ContractError> {
    let question = staking::QueryMsg::Offers { deployments };
    let answer = deps.querier.query_wasm_smart(&config.provider_staking, &question);
    let answer: OffersResponse = answer.map_err(|err| ContractError::NoDeployment { reason: reason(err) })?;
    let shards = request.shards.iter();
    shards
        .map(|shard| chain::named(&answer.offers, request, shard.units))
        .collect()
}

/// The newest round; a beacon that has none yet stops nobody.
fn first_source(querier: QuerierWrapper<'_>, env: &Env, config: &Config) -> StdResult<Source> {
    let latest = match &config.randomness_beacon {
        Some(beacon) => beacon.latest(querier)?,
        None => None,
    };
    Ok(latest.map_or_else(|| Source::block(&env.block), Source::Beacon))
}

/// What a query that failed has said, without the layers around it.
fn reason(err: StdError) -> String {
    match err {
        StdError::GenericErr { msg, .. } => {
            let said = msg.trim_start_matches("Querier contract error: ");
            said.trim_end_matches(": query wasm contract failed").to_owned()
        }
        other => other.to_string(),
    }
}

fn no_supply(job: &Job, order: &Order) -> ContractError {
    ContractError::NoSupply {
        items: order.items,
        item_price_max: job.item_price_max,
        seconds_max: job.seconds_left(job.submitted_at).unwrap_or_default(),
    }
}

/// What the new job pins, and its rows by shard.
fn agreed(
    env: &Env,
    developer: Addr,
    new: NewJob,
    offer: OfferResponse,
    order: &Order,
    config: &Config,
) -> Result<(Job, Vec<Vec<Binary>>), ContractError> {
    let now = env.block.time.seconds();
    let inclusion_seconds = config.params.inclusion_seconds;
    let seconds_max = match new.deadline_seconds {
        Some(deadline_seconds) => {
            let short = ContractError::DeadlineTooShort {
                deadline_seconds,
                inclusion_seconds,
            };
            let seconds = deadline_seconds.checked_sub(inclusion_seconds);
            Some(seconds.filter(|seconds| *seconds > 0).ok_or(short)?)
        }
        None => None,
    };
    let job = Job {
        developer,
        model: offer.model,
        version: offer.version,
        manifest: offer.manifest,
        endpoint: new.endpoint,
        royalty: offer.terms.royalty,
        gateway: new.gateway,
        compute_shares: offer.stages.iter().map(|stage| stage.compute_share_bps).collect(),
        engine_class: new.engine_class,
        // At most 64.
        shards: u16::try_from(order.shards.len()).unwrap_or(u16::MAX),
        replicas: new.replicas,
        units_max: new.units_max,
        units_out_max: order.units_out_max,
        item_price_max: order.item_price_max,
        held: order.held,
        seconds_max,
        params: config.params.clone(),
        submitted_at: now,
        expires_at: now.saturating_add(config.params.job_seconds_max),
        is_named: new.chain.is_some(),
        session: None,
    };
    Ok((job, new.shards.into_iter().map(|shard| shard.inline).collect()))
}

fn submit_attestations(deps: DepsMut<'_>, env: &Env, attestations: &[Attestation]) -> Result<Response, ContractError> {
    if attestations.is_empty() || attestations.len() > BATCH_MAX {
        return Err(ContractError::AttestationCount {
            count: attestations.len(),
            max: BATCH_MAX,
        });
    }
    let domain = domain(env);
    let verify = verifier(deps.api);
    let mut course = Course::at(deps.storage, &env.block);
    let mut shards = BTreeSet::new();
    for attestation in attestations {
        if course.attest(attestation, &domain, &verify)? {
            shards.insert((attestation.item.job, attestation.item.shard));
        }
    }
    for (job, shard) in shards {
        course.conclude(job, shard)?;
    }
    let effects = course.finish();
    respond(deps.as_ref(), effects)
}

fn draw(deps: Deps<'_>, request: DrawRequest) -> Result<DrawResponse, ContractError> {
    let staking = CONFIG.load(deps.storage)?.provider_staking;
    let question = staking::QueryMsg::Draw { request };
    Ok(deps.querier.query_wasm_smart(staking, &question)?)
}

pub(crate) fn message(contract: &Addr, msg: Binary) -> CosmosMsg {
    WasmMsg::Execute {
        contract_addr: contract.to_string(),
        msg,
        funds: vec![],
    }
    .into()
}

/// Events, then what the siblings have to do: pay, give slots back, take slots, draw anew one shard after the other so that each
/// draw sees what the one before it has taken, and release what is left of jobs that have ended.
pub(crate) fn respond(deps: Deps<'_>, effects: Effects) -> Result<Response, ContractError> {
    let config = CONFIG.load(deps.storage)?;
    let (escrow, staking) = (&config.royalty_escrow, &config.provider_staking);
    let mut response = announce(effects.events);
    for settlements in effects.settlements.chunks(BATCH_MAX) {
        let settlements = settlements.to_vec();
        let msg = to_json_binary(&escrow::ExecuteMsg::Settle { settlements })?;
        response = response.add_message(message(escrow, msg));
    }
    for items in effects.vacancies.chunks(BATCH_MAX) {
        let items = items.to_vec();
        let msg = to_json_binary(&staking::ExecuteMsg::Vacate { items })?;
        response = response.add_message(message(staking, msg));
    }
    for work in effects.settled.chunks(BATCH_MAX) {
        let work = work.to_vec();
        let msg = to_json_binary(&staking::ExecuteMsg::RecordSettled { work })?;
        response = response.add_message(message(staking, msg));
    }
    if !effects.occupations.is_empty() {
        let items = effects.occupations;
        let msg = to_json_binary(&staking::ExecuteMsg::Occupy { items })?;
        response = response.add_message(message(staking, msg));
    }
    for (items, plan) in effects.redraws {
        let msg = to_json_binary(&staking::ExecuteMsg::Vacate { items })?;
        let vacate = SubMsg::reply_on_success(message(staking, msg), REDRAW);
        response = response.add_submessage(vacate.with_payload(to_json_binary(&plan)?));
    }
    for EndedJob { job, forced } in effects.ended {
        let end = match forced {
            None => escrow::ExecuteMsg::Release { job },
            Some((session, outcome)) => escrow::ExecuteMsg::EndForced { job, session, outcome },
        };
        let msg = to_json_binary(&end)?;
        response = response.add_message(message(escrow, msg));
    }
    Ok(response)
}
