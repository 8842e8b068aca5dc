use cosmwasm_std::{Deps, Env, Order, StdResult};
use cw_storage_plus::Bound;
use governed::admin;
use schema::escrow::{
    ConfigResponse, Credit, EarningsResponse, HoldResponse, Holder, LedgerEntry, LedgerResponse, MoneyResponse, Reason,
    SessionResponse, SessionsResponse, TotalsResponse, SESSIONS_PAGE_MAX,
};

use crate::{
    forced::Forced,
    lane,
    state::{ACCOUNTS, ACCOUNT_HOLDS, CONFIG, CREDITS, FORCED, HOLDS, SIBLINGS, TOTALS},
    ContractError,
};

const LIMIT_DEFAULT: u32 = 10;
/// As in cw20-base.
const LIMIT_MAX: u32 = 30;

fn page(limit: Option<u32>) -> usize {
    limit.unwrap_or(LIMIT_DEFAULT).min(LIMIT_MAX) as usize
}

fn session_page(limit: Option<u32>) -> usize {
    limit.unwrap_or(LIMIT_DEFAULT).min(SESSIONS_PAGE_MAX) as usize
}

pub(crate) fn config(deps: Deps<'_>) -> Result<ConfigResponse, ContractError> {
    let config = CONFIG.load(deps.storage)?;
    let siblings = SIBLINGS.may_load(deps.storage)?;
    Ok(ConfigResponse {
        admin: admin::response(deps.storage)?,
        func_token: config.func_token.into_string(),
        model_registry: config.model_registry.into_string(),
        treasury: config.treasury.into_string(),
        job_orchestrator: siblings.as_ref().map(|siblings| siblings.job_orchestrator.to_string()),
        provider_staking: siblings.map(|siblings| siblings.provider_staking.into_string()),
        params: config.params,
    })
}

/// Key of a holder. Only what could be one is looked up: a key is part of others, which have a longest length.
fn key_of(deps: Deps<'_>, holder: &str) -> Result<String, ContractError> {
    let holder = holder.parse()?;
    if let Holder::Address(address) = &holder {
        deps.api.addr_validate(address)?;
    }
    Ok(holder.to_string())
}

pub(crate) fn money(
    deps: Deps<'_>,
    env: &Env,
    holder: &str,
    (start_after, sessions_after): (Option<u64>, Option<u64>),
    limit: Option<u32>,
) -> Result<MoneyResponse, ContractError> {
    let key = key_of(deps, holder)?;
    let account = ACCOUNTS.may_load(deps.storage, &key)?.unwrap_or_default();
    let holds = ACCOUNT_HOLDS
        .prefix(&key)
        .keys(deps.storage, start_after.map(Bound::exclusive), None, Order::Ascending)
        .take(page(limit))
        .map(|job| {
            let job = job?;
            Ok(HOLDS.load(deps.storage, job)?.into_response(job))
        })
        .collect::<StdResult<_>>()?;
    Ok(MoneyResponse {
        available: account.available,
        held: account.held,
        holds,
        sessions: account_sessions(deps, env, &key, sessions_after, limit)?,
    })
}

fn account_sessions(
    deps: Deps<'_>,
    env: &Env,
    account: &str,
    start_after: Option<u64>,
    limit: Option<u32>,
) -> Result<Vec<SessionResponse>, ContractError> {
    let numbers = lane::of_account(deps.storage, account, start_after, session_page(limit))?;
    numbers.into_iter().map(|number| session(deps, env, number)).collect()
}

pub(crate) fn session(deps: Deps<'_>, env: &Env, number: u64) -> Result<SessionResponse, ContractError> {
    let session = lane::load(deps.storage, number)?;
    let now = env.block.time.seconds();
    let forced = FORCED.may_load(deps.storage, number)?;
    let mut allocations = vec![];
    for deployment in lane::deployments(deps.storage, number)? {
        if let Some(allocation) = lane::find(deps.storage, number, deployment)? {
            allocations.push(allocation.into_response(&session, forced.as_ref(), now)?);
        }
    }
    Ok(session.into_response(number, allocations, forced.map(Forced::into_response)))
}

pub(crate) fn sessions(
    deps: Deps<'_>,
    env: &Env,
    account: &str,
    start_after: Option<u64>,
    limit: Option<u32>,
) -> Result<SessionsResponse, ContractError> {
    let account = deps.api.addr_validate(account)?;
    Ok(SessionsResponse {
        sessions: account_sessions(deps, env, account.as_str(), start_after, limit)?,
    })
}

pub(crate) fn sessions_of(
    deps: Deps<'_>,
    env: &Env,
    deployment: u64,
    start_after: Option<u64>,
    limit: Option<u32>,
) -> Result<SessionsResponse, ContractError> {
    let numbers = lane::of_deployment(deps.storage, deployment, start_after, session_page(limit))?;
    let sessions = numbers.into_iter().map(|number| session(deps, env, number));
    Ok(SessionsResponse {
        sessions: sessions.collect::<Result<_, _>>()?,
    })
}

pub(crate) fn earnings(deps: Deps<'_>, holder: &str) -> Result<EarningsResponse, ContractError> {
    let key = key_of(deps, holder)?;
    let mut credits = vec![];
    for reason in Reason::ALL {
        if let Some(amount) = CREDITS.may_load(deps.storage, (&key, reason.as_str()))? {
            credits.push(Credit { reason, amount });
        }
    }
    Ok(EarningsResponse { credits })
}

pub(crate) fn hold(deps: Deps<'_>, job: u64) -> Result<HoldResponse, ContractError> {
    let hold = HOLDS
        .may_load(deps.storage, job)?
        .ok_or(ContractError::NoHold { job })?;
    Ok(hold.into_response(job))
}

pub(crate) fn ledger(
    deps: Deps<'_>,
    start_after: Option<&str>,
    limit: Option<u32>,
) -> Result<LedgerResponse, ContractError> {
    let entries = ACCOUNTS
        .range(deps.storage, start_after.map(Bound::exclusive), None, Order::Ascending)
        .take(page(limit))
        .map(|entry| {
            let (holder, account) = entry?;
            Ok(LedgerEntry {
                holder,
                available: account.available,
                held: account.held,
            })
        })
        .collect::<StdResult<_>>()?;
    Ok(LedgerResponse { entries })
}

pub(crate) fn totals(deps: Deps<'_>) -> Result<TotalsResponse, ContractError> {
    let totals = TOTALS.may_load(deps.storage)?.unwrap_or_default();
    Ok(TotalsResponse {
        available: totals.available,
        held: totals.held,
    })
}
