//! Entry points: what is checked, and which one call of the rounds answers it.

use cosmwasm_std::{entry_point, to_json_binary, Binary, Deps, DepsMut, Env, MessageInfo, Response};
use cw_utils::nonpayable;
use schema::{
    beacon::randomness,
    randomness::{ConfigResponse, ExecuteMsg, InstantiateMsg, QueryMsg},
    BeaconSignature, Event, Round,
};

use crate::{
    rounds::{self, Config, CONFIG},
    verify::{check_key, check_signature},
    ContractError,
};

#[entry_point]
pub fn instantiate(
    deps: DepsMut<'_>,
    _env: Env,
    info: MessageInfo,
    msg: InstantiateMsg,
) -> Result<Response, ContractError> {
    nonpayable(&info)?;
    let config = Config {
        public_key: msg.public_key,
        schedule: msg.schedule,
        rounds_kept: msg.rounds_kept,
    };
    config.check()?;
    check_key(deps.api, &config.public_key)?;
    cw2::set_contract_version(deps.storage, env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION"))?;
    CONFIG.save(deps.storage, &config)?;
    Ok(Response::new())
}

#[entry_point]
pub fn execute(deps: DepsMut<'_>, env: Env, info: MessageInfo, msg: ExecuteMsg) -> Result<Response, ContractError> {
    nonpayable(&info)?;
    let event = match msg {
        ExecuteMsg::PostRound { round, signature } => post_round(deps, &env, round, &signature)?,
    };
    Ok(Response::new().add_event(event.encode()))
}

#[entry_point]
pub fn query(deps: Deps<'_>, _env: Env, msg: QueryMsg) -> Result<Binary, ContractError> {
    let storage = deps.storage;
    let answer = match msg {
        QueryMsg::Config {} => to_json_binary(&config(deps)?),
        QueryMsg::Latest {} => {
            let latest = rounds::latest(storage)?.unwrap_or_default();
            to_json_binary(&rounds::find(storage, latest)?)
        }
        QueryMsg::Round { round } => to_json_binary(&rounds::find(storage, round)?),
        QueryMsg::First { at_least } => to_json_binary(&rounds::first(storage, at_least)?),
    };
    Ok(answer?)
}

fn config(deps: Deps<'_>) -> Result<ConfigResponse, ContractError> {
    let Config {
        public_key,
        schedule,
        rounds_kept,
    } = CONFIG.load(deps.storage)?;
    Ok(ConfigResponse {
        public_key,
        schedule,
        rounds_kept,
    })
}

/// Of two relayers with the same round the second has nothing to do, and has not failed. What it brings is still the round's signature:
/// there is only one, so its digest tells.
fn post_round(deps: DepsMut<'_>, env: &Env, round: u64, signature: &BeaconSignature) -> Result<Event, ContractError> {
    let config = CONFIG.load(deps.storage)?;
    let randomness = randomness(signature);
    if let Some(known) = rounds::find(deps.storage, round)? {
        return match known.randomness == randomness {
            true => Ok(Event::RoundKnown { round }),
            false => Err(ContractError::WrongSignature { round }),
        };
    }
    let latest = rounds::latest(deps.storage)?;
    config.check_round(round, latest, env.block.time.seconds())?;
    check_signature(deps.api, &config.public_key, round, signature)?;
    rounds::keep(deps.storage, &config, Round { round, randomness })?;
    Ok(Event::RoundPosted { round, randomness })
}
