//! The messages of forced requests. The escrow knows the session, the orchestrator how an item is run.

use cosmwasm_std::{to_json_binary, Addr, Binary, DepsMut, Env, Response, Uint128};
use schema::{
    escrow::{ForcedOutcome, ForcedSpan},
    orchestrator::{self, ForcedRequest},
};

use super::{announce, message, on_ledger, open_hold, sessions::check_count};
use crate::{
    forced::{self, Forced},
    lane,
    ledger::Ledger,
    state::{CONFIG, SIBLINGS},
    ContractError,
};

/// Hands a request over to the orchestrator, with what the session has pinned.
pub(super) fn ask(
    deps: DepsMut<'_>,
    env: &Env,
    sender: &Addr,
    number: u64,
    (deployments, rows): (Vec<u64>, Vec<Binary>),
) -> Result<Response, ContractError> {
    let session = lane::load(deps.storage, number)?;
    session.require_owner(number, sender)?;
    check_count(deployments.len(), deployments.len())?;
    forced::check(deps.storage, number, &session, &deployments, env.block.time.seconds())?;
    let offers = deployments.iter().map(|deployment| {
        let allocation = lane::find_open(deps.storage, number, *deployment)?;
        Ok(allocation.pins.offer)
    });
    let offers = offers.collect::<Result<_, ContractError>>()?;
    let request = ForcedRequest {
        session: number,
        owner: session.owner.into_string(),
        model: session.terms.model,
        version: session.version,
        endpoint: session.endpoint,
        royalty: session.terms.royalty,
        gateway: session.terms.gateway,
        units_per_request_max: session.units_per_request_max,
        offers,
        rows,
    };
    let siblings = SIBLINGS.may_load(deps.storage)?.ok_or(ContractError::NotWired)?;
    let open = to_json_binary(&orchestrator::ExecuteMsg::OpenForced { request })?;
    Ok(Response::new().add_message(message(&siblings.job_orchestrator, open)))
}

/// By the terms and fees of the session.
pub(super) fn hold(
    deps: DepsMut<'_>,
    env: &Env,
    (job, number): (u64, u64),
    spans: Vec<ForcedSpan>,
    expires_at: u64,
) -> Result<Response, ContractError> {
    let session = lane::load(deps.storage, number)?;
    let fee = CONFIG.load(deps.storage)?.params.force_fee;
    let prices = spans.iter().map(|span| span.price);
    let amount = prices.fold(fee, Uint128::saturating_add);
    let mut hold = open_hold(deps.storage, env, (session.owner, amount), session.terms, expires_at)?;
    hold.fees = session.fees;
    let forced = Forced {
        job,
        opened_at: env.block.time.seconds(),
        until: expires_at,
        fee,
        spans,
    };
    on_ledger(deps.storage, |ledger| forced::begin(ledger, number, job, forced, &hold))
}

pub(super) fn end(
    deps: DepsMut<'_>,
    env: &Env,
    (job, number): (u64, u64),
    outcome: ForcedOutcome,
) -> Result<Response, ContractError> {
    let mut ledger = Ledger::open(deps.storage)?;
    forced::end(&mut ledger, number, job, outcome, env.block.time.seconds())?;
    Ok(announce(ledger.close()?))
}
