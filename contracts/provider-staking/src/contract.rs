//! Entry points: who may, what is checked, which one call of the domain answers it, which events and messages follow.

use cosmwasm_std::{
    entry_point, from_json, to_json_binary, Addr, Api, Binary, CosmosMsg, Deps, DepsMut, Env, MessageInfo,
    QuerierWrapper, Response, StdError, StdResult, Storage, Uint128, WasmMsg,
};
use cw20::{Cw20ExecuteMsg, Cw20ReceiveMsg};
use cw_utils::nonpayable;
use governed::{admin, migration};
use schema::{
    escrow::{self, ALLOCATIONS_MAX},
    msg::MigrateMsg,
    params::{ConductParams, StakingParams},
    price::RATE_MAX,
    registry::{ConfigResponse as RegistryConfig, QueryMsg as RegistryQuery, VersionResponse},
    staking::{
        DeploymentTerms, Ended, ExecuteMsg, InstantiateMsg, Occupation, Profile, QueryMsg, ReceiveMsg, SettledWork,
        TotalsResponse, Vacancy,
    },
    Event, BATCH_MAX, BPS, TOTAL_SUPPLY,
};

use crate::{
    book::{self, Miss, Moment},
    deployment::{check_bounds, Deployment},
    provider, query,
    state::{Config, Siblings, CONFIG, NEWEST_DEPLOYMENT, TOTALS},
    ContractError,
};

/// Nobody may be made to wait longer for his own bond: 90 days.
const UNBONDING_SECONDS_MAX: u64 = 90 * 24 * 3_600;
/// Nobody may be made to wait longer for one span: a week.
const SLA_SECONDS_MAX: u64 = 7 * 24 * 3_600;
/// Nobody's misses and link faults count against him for longer, nor is anybody jailed for longer: a week.
const WINDOW_SECONDS_MAX: u64 = 7 * 24 * 3_600;
/// Strikes are read and written with every change of a stake.
const JAIL_STRIKES_MAX: u8 = 32;

#[entry_point]
pub fn instantiate(
    deps: DepsMut,
    _env: Env,
    info: MessageInfo,
    msg: InstantiateMsg,
) -> Result<Response, ContractError> {
    nonpayable(&info)?;
    cw2::set_contract_version(deps.storage, env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION"))?;
    check_params(&msg.params)?;
    admin::appoint(deps.storage, deps.api.addr_validate(&msg.admin)?)?;
    let config = Config {
        func_token: deps.api.addr_validate(&msg.func_token)?,
        model_registry: deps.api.addr_validate(&msg.model_registry)?,
        siblings: None,
        params: msg.params,
    };
    let registry: RegistryConfig = deps
        .querier
        .query_wasm_smart(&config.model_registry, &RegistryQuery::Config {})?;
    migration::check_sibling_notice(
        &config.model_registry,
        registry.params.migration_notice_seconds,
        config.params.migration_notice_seconds,
    )?;
    CONFIG.save(deps.storage, &config)?;
    NEWEST_DEPLOYMENT.save(deps.storage, &0)?;
    let totals = TotalsResponse {
        bonded: Uint128::zero(),
        unbonding: Uint128::zero(),
    };
    TOTALS.save(deps.storage, &totals)?;
    Ok(Response::new())
}

#[entry_point]
pub fn execute(deps: DepsMut, env: Env, info: MessageInfo, msg: ExecuteMsg) -> Result<Response, ContractError> {
    nonpayable(&info)?;
    let now = env.block.time.seconds();
    let sender = info.sender;
    let DepsMut { storage, api, querier } = deps;
    match msg {
        ExecuteMsg::Receive(hook) => receive(storage, api, querier, &sender, hook, now),
        ExecuteMsg::RegisterProvider { profile } => {
            let endpoint = profile.endpoint.clone();
            provider::register(storage, &sender, &into_checked(api, profile)?)?;
            let provider = sender.into();
            announce(Event::ProviderRegistered { provider, endpoint })
        }
        ExecuteMsg::UpdateProvider { profile } => {
            let endpoint = profile.endpoint.clone();
            provider::update(storage, &sender, &into_checked(api, profile)?)?;
            let provider = sender.into();
            announce(Event::ProviderUpdated { provider, endpoint })
        }
        ExecuteMsg::Unbond { amount } => unbond(storage, sender, amount, now),
        ExecuteMsg::Withdraw {} => withdraw(storage, sender, now),
        ExecuteMsg::Drain { deployment } => {
            book::drain(storage, deployment, &sender)?;
            let provider = sender.into();
            announce(Event::DeploymentDraining { deployment, provider })
        }
        ExecuteMsg::Remove { deployment } => {
            book::remove(storage, deployment, &sender, now)?;
            let provider = sender.into();
            announce(Event::DeploymentRemoved { deployment, provider })
        }
        ExecuteMsg::Unjail { provider } => {
            let owner = api.addr_validate(&provider)?;
            book::unjail(storage, &owner, &sender, now)?;
            let by = sender.into();
            announce(Event::ProviderUnjailed { provider, by })
        }
        ExecuteMsg::Occupy { items } => occupy(storage, &sender, &items, now),
        ExecuteMsg::Vacate { items } => vacate(storage, api, &sender, items, now),
        ExecuteMsg::RecordSettled { work } => record_settled(storage, &sender, &work, now),
        ExecuteMsg::Reserve { deployments, .. } => {
            require_escrow(storage, &sender)?;
            check_count(&deployments)?;
            book::occupy(storage, &deployments, now)?;
            Ok(Response::new())
        }
        ExecuteMsg::Free { deployments, .. } => {
            require_escrow(storage, &sender)?;
            check_count(&deployments)?;
            book::free(storage, &deployments)?;
            Ok(Response::new())
        }
        ExecuteMsg::Wire {
            royalty_escrow,
            job_orchestrator,
        } => wire(storage, api, &sender, &royalty_escrow, &job_orchestrator),
        ExecuteMsg::UpdateParams { params } => update_params(storage, sender, params),
        ExecuteMsg::ProposeAdmin { admin } => {
            let admin = admin.as_deref().map(|address| api.addr_validate(address)).transpose()?;
            announce(admin::propose(storage, &sender, admin)?)
        }
        ExecuteMsg::AcceptAdmin {} => announce(admin::accept(storage, &sender)?),
        ExecuteMsg::ProposeMigration { code_id, msg } => {
            propose_migration(storage, querier, &sender, code_id, msg, now)
        }
        ExecuteMsg::CancelMigration {} => announce(migration::cancel(storage, &sender)?),
        ExecuteMsg::ExecuteMigration {} => {
            let (proposal, event) = migration::execute(storage, &sender, now)?;
            Ok(announce(event)?.add_message(proposal.into_message(&env.contract.address)))
        }
    }
}

fn announce(event: Event) -> Result<Response, ContractError> {
    Ok(Response::new().add_event(event.encode()))
}

fn call(contract: &Addr, msg: Binary) -> CosmosMsg {
    let contract_addr = contract.to_string();
    let funds = vec![];
    WasmMsg::Execute {
        contract_addr,
        msg,
        funds,
    }
    .into()
}

/// The operator is an account of this chain.
fn into_checked(api: &dyn Api, profile: Profile) -> StdResult<Profile> {
    if let Some(operator) = &profile.operator {
        api.addr_validate(operator)?;
    }
    Ok(profile)
}

// Put into its only caller, the variables of both would pass the 100 that a chain allows a function.
#[inline(never)]
fn receive(
    storage: &mut dyn Storage,
    api: &dyn Api,
    querier: QuerierWrapper,
    sender: &Addr,
    hook: Cw20ReceiveMsg,
    now: u64,
) -> Result<Response, ContractError> {
    let config = CONFIG.load(storage)?;
    if sender != config.func_token {
        let sender = sender.to_string();
        return Err(ContractError::NotFunc { sender });
    }
    let payer = api.addr_validate(&hook.sender)?;
    match from_json(&hook.msg)? {
        ReceiveMsg::Bond {} => bond(storage, payer, hook.amount),
        ReceiveMsg::Deploy { terms } => deploy(storage, querier, &config, payer, (terms, hook.amount), now),
    }
}

fn bond(storage: &mut dyn Storage, owner: Addr, amount: Uint128) -> Result<Response, ContractError> {
    let bond = book::change_stake(storage, &owner, |stake| {
        stake.add(amount)?;
        Ok(stake.bond)
    })?;
    let provider = owner.into();
    announce(Event::Bonded { provider, amount, bond })
}

fn deploy(
    storage: &mut dyn Storage,
    querier: QuerierWrapper,
    config: &Config,
    owner: Addr,
    (terms, sent): (DeploymentTerms, Uint128),
    now: u64,
) -> Result<Response, ContractError> {
    provider::stake(storage, &owner)?;
    let required = config.params.listing_fee;
    if sent != required {
        return Err(ContractError::WrongFee { required, sent });
    }
    let ask = RegistryQuery::Version {
        model: terms.model.clone(),
        version: terms.version,
    };
    let answer = querier.query_wasm_smart(&config.model_registry, &ask);
    // A chain may hide why a query failed; what was asked for is said here.
    let version: VersionResponse = answer.map_err(|err| ContractError::NoVersion {
        model: terms.model.clone(),
        version: terms.version,
        reason: reason(err),
    })?;
    let deployment = Deployment::new(owner, terms, &version, &config.params)?;
    let number = book::deploy(storage, &deployment, now)?;
    let Deployment { owner, terms, .. } = deployment;
    let response = announce(Event::DeploymentListed {
        deployment: number,
        provider: owner.into(),
        model: terms.model,
        version: terms.version,
        first: terms.first,
        last: terms.last,
        burnt: sent,
    })?;
    if sent.is_zero() {
        return Ok(response);
    }
    let burn = Cw20ExecuteMsg::Burn { amount: sent };
    Ok(response.add_message(call(&config.func_token, to_json_binary(&burn)?)))
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

fn unbond(storage: &mut dyn Storage, owner: Addr, amount: Uint128, now: u64) -> Result<Response, ContractError> {
    let release_at = now.saturating_add(CONFIG.load(storage)?.params.unbonding_seconds);
    book::change_stake(storage, &owner, |stake| stake.unbond(amount, now, release_at))?;
    announce(Event::UnbondingStarted {
        provider: owner.into(),
        amount,
        release_at,
    })
}

fn withdraw(storage: &mut dyn Storage, owner: Addr, now: u64) -> Result<Response, ContractError> {
    let amount = book::change_stake(storage, &owner, |stake| stake.withdraw(now))?;
    let transfer = Cw20ExecuteMsg::Transfer {
        recipient: owner.to_string(),
        amount,
    };
    let message = call(&CONFIG.load(storage)?.func_token, to_json_binary(&transfer)?);
    let provider = owner.into();
    Ok(announce(Event::BondWithdrawn { provider, amount })?.add_message(message))
}

fn require_orchestrator(storage: &dyn Storage, sender: &Addr) -> Result<(Config, Siblings), ContractError> {
    let config = CONFIG.load(storage)?;
    match config.siblings.clone() {
        Some(siblings) if siblings.job_orchestrator == sender => Ok((config, siblings)),
        _ => Err(ContractError::NotOrchestrator {
            sender: sender.to_string(),
        }),
    }
}

fn require_escrow(storage: &dyn Storage, sender: &Addr) -> Result<(), ContractError> {
    match CONFIG.load(storage)?.siblings {
        Some(siblings) if siblings.royalty_escrow == sender => Ok(()),
        _ => Err(ContractError::NotEscrow {
            sender: sender.to_string(),
        }),
    }
}

/// As many deployments as one session has.
fn check_count(deployments: &[u64]) -> Result<(), ContractError> {
    let (count, max) = (deployments.len(), ALLOCATIONS_MAX);
    if count > max {
        return Err(ContractError::TooManyNamed { count, max });
    }
    Ok(())
}

fn occupy(storage: &mut dyn Storage, sender: &Addr, items: &[Occupation], now: u64) -> Result<Response, ContractError> {
    require_orchestrator(storage, sender)?;
    for item in items {
        book::occupy(storage, &item.deployments, now)?;
    }
    Ok(Response::new())
}

// Put into its only caller, the variables of both would pass the 100 that a chain allows a function.
#[inline(never)]
fn vacate(
    storage: &mut dyn Storage,
    api: &dyn Api,
    sender: &Addr,
    items: Vec<Vacancy>,
    now: u64,
) -> Result<Response, ContractError> {
    let (config, siblings) = require_orchestrator(storage, sender)?;
    let conduct = &config.params.conduct;
    let mut response = Response::new();
    for vacancy in items {
        if let Ended::Missed(penalty) = &vacancy.ended {
            api.addr_validate(&penalty.beneficiary)?;
            if let Some(keeper) = &penalty.keeper {
                api.addr_validate(&keeper.account)?;
            }
        }
        if let Some(miss) = book::vacate(storage, vacancy, Moment { now, conduct })? {
            if !miss.penalty.is_zero() {
                response = response.add_message(penalty_message(&config, &siblings, &miss)?);
            }
            response = response.add_events(miss_events(miss).into_iter().map(|event| event.encode()));
        }
    }
    Ok(response)
}

/// The money goes to the escrow, where the developer's money is.
fn penalty_message(config: &Config, siblings: &Siblings, miss: &Miss) -> StdResult<CosmosMsg> {
    let hook = escrow::ReceiveMsg::Penalty {
        beneficiary: miss.beneficiary.clone(),
        item: miss.item,
        keeper: miss.keeper.clone(),
    };
    let send = Cw20ExecuteMsg::Send {
        contract: siblings.royalty_escrow.to_string(),
        amount: miss.penalty,
        msg: to_json_binary(&hook)?,
    };
    Ok(call(&config.func_token, to_json_binary(&send)?))
}

fn miss_events(miss: Miss) -> Vec<Event> {
    let provider = miss.provider.into_string();
    let mut events = vec![];
    if !miss.penalty.is_zero() {
        events.push(Event::BondPenalised {
            provider: provider.clone(),
            deployment: miss.deployment,
            item: miss.item,
            amount: miss.penalty,
            beneficiary: miss.beneficiary,
        });
    }
    events.push(Event::ProviderStruck {
        provider: provider.clone(),
        deployment: miss.deployment,
        item: miss.item,
        strikes: u32::try_from(miss.strikes).unwrap_or(u32::MAX),
    });
    if let Some(until) = miss.jailed_until {
        events.push(Event::ProviderJailed { provider, until });
    }
    events
}

fn record_settled(
    storage: &mut dyn Storage,
    sender: &Addr,
    work: &[SettledWork],
    now: u64,
) -> Result<Response, ContractError> {
    let config = CONFIG.load(storage)?;
    let is_sibling = |siblings: &Siblings| [&siblings.royalty_escrow, &siblings.job_orchestrator].contains(&sender);
    if !config.siblings.as_ref().is_some_and(is_sibling) {
        return Err(ContractError::NotSibling {
            sender: sender.to_string(),
        });
    }
    let (count, max) = (work.len(), BATCH_MAX);
    if count > max {
        return Err(ContractError::TooManyNamed { count, max });
    }
    let conduct = &config.params.conduct;
    book::record_settled(storage, work, Moment { now, conduct })?;
    Ok(Response::new())
}

fn wire(
    storage: &mut dyn Storage,
    api: &dyn Api,
    sender: &Addr,
    royalty_escrow: &str,
    job_orchestrator: &str,
) -> Result<Response, ContractError> {
    admin::require(storage, sender)?;
    let mut config = CONFIG.load(storage)?;
    if config.siblings.is_some() {
        return Err(ContractError::AlreadyWired);
    }
    config.siblings = Some(Siblings {
        royalty_escrow: api.addr_validate(royalty_escrow)?,
        job_orchestrator: api.addr_validate(job_orchestrator)?,
    });
    CONFIG.save(storage, &config)?;
    announce(Event::Wired { by: sender.to_string() })
}

fn update_params(storage: &mut dyn Storage, sender: Addr, params: StakingParams) -> Result<Response, ContractError> {
    admin::require(storage, &sender)?;
    check_params(&params)?;
    let mut config = CONFIG.load(storage)?;
    migration::check_notice_is_fixed(config.params.migration_notice_seconds, params.migration_notice_seconds)?;
    let (from, to) = (config.params.unbonding_seconds, params.unbonding_seconds);
    if to > from && migration::is_pending(storage) {
        return Err(ContractError::UnbondingRaised { from, to });
    }
    config.params = params;
    CONFIG.save(storage, &config)?;
    announce(Event::ParamsUpdated { admin: sender.into() })
}

fn propose_migration(
    storage: &mut dyn Storage,
    querier: QuerierWrapper,
    sender: &Addr,
    code_id: u64,
    msg: Binary,
    now: u64,
) -> Result<Response, ContractError> {
    let notice = CONFIG.load(storage)?.params.migration_notice_seconds;
    announce(migration::propose(
        storage,
        querier,
        sender,
        code_id,
        msg,
        (now, notice),
    )?)
}

/// No parameter can make a bond unreachable or a penalty larger than what backs a slot.
fn check_params(params: &StakingParams) -> Result<(), ContractError> {
    check_bounds("bond_per_slot", params.bond_per_slot.u128(), 1, TOTAL_SUPPLY)?;
    check_bounds("listing_fee", params.listing_fee.u128(), 0, TOTAL_SUPPLY)?;
    check_bounds("miss_min", params.miss_min.u128(), 0, params.bond_per_slot.u128())?;
    check_bounds("unbonding_seconds", params.unbonding_seconds, 1, UNBONDING_SECONDS_MAX)?;
    check_bounds("penalty_bps_min", params.penalty_bps_min, 0, BPS)?;
    check_bounds("sla_seconds_max", params.sla_seconds_max, 1, SLA_SECONDS_MAX)?;
    // At least 1: who keeps a slot from others without using it pays for it.
    check_bounds(
        "reservation_per_hour_min",
        params.reservation_per_hour_min.u128(),
        1,
        RATE_MAX,
    )?;
    check_conduct(&params.conduct, params.unbonding_seconds)?;
    // Who starts to unbond when new code is proposed must be out before it runs.
    Ok(migration::check_notice(
        params.migration_notice_seconds,
        params.unbonding_seconds,
    )?)
}

/// Nobody is jailed for life, and nothing counts for longer than bond takes to get out.
fn check_conduct(conduct: &ConductParams, unbonding_seconds: u64) -> Result<(), ContractError> {
    check_bounds("audit_unit", conduct.audit_unit.u128(), 0, TOTAL_SUPPLY)?;
    check_bounds(
        "audit_window_seconds",
        conduct.audit_window_seconds,
        1,
        unbonding_seconds,
    )?;
    check_bounds(
        "strike_window_seconds",
        conduct.strike_window_seconds,
        1,
        WINDOW_SECONDS_MAX,
    )?;
    check_bounds("jail_strikes", conduct.jail_strikes, 1u8, JAIL_STRIKES_MAX)?;
    check_bounds("jail_seconds", conduct.jail_seconds, 0, WINDOW_SECONDS_MAX)?;
    check_bounds(
        "fault_window_seconds",
        conduct.fault_window_seconds,
        1,
        WINDOW_SECONDS_MAX,
    )
}

/// Only the contract itself can have it migrated, and does so for a proposal whose notice has passed.
#[entry_point]
pub fn migrate(deps: DepsMut, _env: Env, _msg: MigrateMsg) -> Result<Response, ContractError> {
    announce(migration::complete(
        deps.storage,
        env!("CARGO_PKG_NAME"),
        env!("CARGO_PKG_VERSION"),
    )?)
}

#[entry_point]
pub fn query(deps: Deps, env: Env, msg: QueryMsg) -> Result<Binary, ContractError> {
    let now = env.block.time.seconds();
    let answer = match msg {
        QueryMsg::Config {} => to_json_binary(&query::config(deps)?),
        QueryMsg::Migration {} => to_json_binary(&query::migration(deps.storage)?),
        QueryMsg::Provider { provider } => to_json_binary(&query::provider(deps, &provider, now)?),
        QueryMsg::Providers { start_after, limit } => {
            to_json_binary(&query::providers(deps, start_after.as_deref(), limit, now)?)
        }
        QueryMsg::Deployment { deployment } => to_json_binary(&query::deployment(deps, deployment, now)?),
        QueryMsg::Deployments {
            provider,
            start_after,
            limit,
        } => to_json_binary(&query::deployments(
            deps,
            provider.as_deref(),
            (start_after, limit),
            now,
        )?),
        QueryMsg::DeploymentsOf {
            model,
            version,
            start_after,
            limit,
        } => to_json_binary(&query::deployments_of(
            deps,
            (&model, version),
            (start_after, limit),
            now,
        )?),
        QueryMsg::Offers { deployments } => {
            check_count(&deployments)?;
            to_json_binary(&query::offers(deps, deployments)?)
        }
        QueryMsg::Draw { request } => to_json_binary(&query::draw(deps, &request, now)?),
        QueryMsg::Totals {} => to_json_binary(&TOTALS.load(deps.storage)?),
    };
    Ok(answer?)
}
