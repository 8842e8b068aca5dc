//! Entry points: who may, what is checked, which one call of the domain answers it, which events and messages follow.

use cosmwasm_std::{
    entry_point, from_json, to_json_binary, Addr, Api, Binary, CosmosMsg, Deps, DepsMut, Env, MessageInfo,
    QuerierWrapper, Response, StdResult, Storage, Uint128, WasmMsg,
};
use cw20::{Cw20ExecuteMsg, Cw20ReceiveMsg};
use cw_utils::nonpayable;
use governed::{admin, migration};
use schema::{
    escrow,
    msg::MigrateMsg,
    params::RegistryParams,
    registry::{ExecuteMsg, InstantiateMsg, Metadata, ModelStatus, Parent, QueryMsg, ReceiveMsg, Share, Usage},
    Event, ModelId, Namespace,
};

use crate::{
    model, query,
    state::{Config, Recipient, CONFIG, NAMESPACE_FEE_MAX},
    version, ContractError,
};

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
        royalty_escrow: None,
        params: msg.params,
    };
    CONFIG.save(deps.storage, &config)?;
    Ok(Response::new())
}

#[entry_point]
pub fn execute(deps: DepsMut, env: Env, info: MessageInfo, msg: ExecuteMsg) -> Result<Response, ContractError> {
    nonpayable(&info)?;
    let now = env.block.time.seconds();
    let sender = info.sender;
    let DepsMut { storage, api, querier } = deps;
    match msg {
        ExecuteMsg::Receive(hook) => receive(storage, api, &sender, hook),
        ExecuteMsg::PublishModel {
            model,
            metadata,
            payout,
            parents,
        } => publish_model(storage, api, sender, model, &metadata, payout, parents, now),
        ExecuteMsg::UpdateMetadata { model, metadata } => {
            model::update_metadata(storage, &model, &sender, &metadata)?;
            announce(Event::ModelUpdated { model })
        }
        ExecuteMsg::PublishVersion { model, version } => {
            let manifest = version.manifest;
            let version = version::publish(storage, &model, &sender, version, now)?;
            announce(Event::VersionPublished {
                model,
                version,
                manifest,
            })
        }
        ExecuteMsg::RetireVersion { model, version } => {
            version::retire(storage, &model, &sender, version)?;
            announce(Event::VersionRetired { model, version })
        }
        ExecuteMsg::SetEndpoint { model, endpoint, terms } => {
            model::change(storage, &model, &sender, |model| model.set_endpoint(&endpoint, terms))?;
            announce(Event::EndpointSet {
                model,
                endpoint,
                royalty_bps: terms.royalty.royalty_bps,
                royalty_per_1k_units: terms.royalty.royalty_per_1k_units,
            })
        }
        ExecuteMsg::SetPayout { model, payout } => set_payout(storage, api, &sender, model, payout),
        ExecuteMsg::SetStatus { model, status } => {
            model::change(storage, &model, &sender, |known| known.set_status(&model, status))?;
            let status = status_text(status).to_owned();
            announce(Event::ModelStatusChanged { model, status })
        }
        ExecuteMsg::ProposeOwner { model, owner } => propose_owner(storage, api, &sender, model, owner),
        ExecuteMsg::AcceptOwner { model } => {
            model::accept_owner(storage, &model, &sender)?;
            let owner = sender.into();
            announce(Event::ModelOwnerChanged { model, owner })
        }
        ExecuteMsg::Record { usages } => record(storage, &sender, &usages),
        ExecuteMsg::Wire { royalty_escrow } => wire(storage, api, &sender, &royalty_escrow),
        ExecuteMsg::UpdateParams { params } => update_params(storage, sender, params),
        ExecuteMsg::ProposeAdmin { admin } => {
            let admin = validate(api, admin.as_deref())?;
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

fn validate(api: &dyn Api, address: Option<&str>) -> StdResult<Option<Addr>> {
    address.map(|address| api.addr_validate(address)).transpose()
}

fn receive(
    storage: &mut dyn Storage,
    api: &dyn Api,
    sender: &Addr,
    hook: Cw20ReceiveMsg,
) -> Result<Response, ContractError> {
    let config = CONFIG.load(storage)?;
    if sender != config.func_token {
        let sender = sender.to_string();
        return Err(ContractError::NotFunc { sender });
    }
    let payer = api.addr_validate(&hook.sender)?;
    match from_json(&hook.msg)? {
        ReceiveMsg::ClaimNamespace { namespace } => claim_namespace(storage, &config, &payer, namespace, hook.amount),
    }
}

fn claim_namespace(
    storage: &mut dyn Storage,
    config: &Config,
    payer: &Addr,
    namespace: Namespace,
    sent: Uint128,
) -> Result<Response, ContractError> {
    let required = config.params.namespace_fee;
    if sent != required {
        return Err(ContractError::WrongFee { required, sent });
    }
    model::claim_namespace(storage, &namespace, payer)?;
    let response = announce(Event::NamespaceClaimed {
        namespace,
        owner: payer.to_string(),
        burnt: sent,
    })?;
    if sent.is_zero() {
        return Ok(response);
    }
    let burn = Cw20ExecuteMsg::Burn { amount: sent };
    Ok(response.add_message(call(&config.func_token, to_json_binary(&burn)?)))
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

#[allow(
    clippy::too_many_arguments,
    reason = "the fields of one message, checked here and passed on"
)]
fn publish_model(
    storage: &mut dyn Storage,
    api: &dyn Api,
    sender: Addr,
    model: ModelId,
    metadata: &Metadata,
    payout: Vec<Share>,
    parents: Vec<Parent>,
    now: u64,
) -> Result<Response, ContractError> {
    let owner = sender.to_string();
    let payout = into_checked(api, payout)?;
    model::publish(storage, &model, sender, metadata, payout, parents, now)?;
    announce(Event::ModelPublished { model, owner })
}

fn into_checked(api: &dyn Api, payout: Vec<Share>) -> StdResult<Vec<Recipient>> {
    let checked = |share: Share| {
        Ok(Recipient {
            address: api.addr_validate(&share.address)?,
            bps: share.bps,
        })
    };
    payout.into_iter().map(checked).collect()
}

/// What has accrued belongs to the old rule: the escrow distributes it in this same transaction.
fn set_payout(
    storage: &mut dyn Storage,
    api: &dyn Api,
    sender: &Addr,
    model: ModelId,
    payout: Vec<Share>,
) -> Result<Response, ContractError> {
    let old = model::load(storage, &model)?;
    let payout = into_checked(api, payout)?;
    model::change(storage, &model, sender, |known| known.set_payout(payout))?;
    let response = announce(Event::PayoutSet { model: model.clone() })?;
    let Some(escrow) = CONFIG.load(storage)?.royalty_escrow else {
        return Ok(response);
    };
    let distribute = escrow::ExecuteMsg::DistributeUnder {
        model,
        payout: query::shares(old.payout),
        parents: old.parents,
    };
    Ok(response.add_message(call(&escrow, to_json_binary(&distribute)?)))
}

fn status_text(status: ModelStatus) -> &'static str {
    match status {
        ModelStatus::Active => "active",
        ModelStatus::Paused => "paused",
        ModelStatus::Retired => "retired",
    }
}

fn propose_owner(
    storage: &mut dyn Storage,
    api: &dyn Api,
    sender: &Addr,
    model: ModelId,
    owner: Option<String>,
) -> Result<Response, ContractError> {
    let proposed = validate(api, owner.as_deref())?;
    model::change(storage, &model, sender, |known| {
        known.proposed_owner = proposed;
        Ok(())
    })?;
    announce(Event::ModelOwnerProposed { model, owner })
}

fn record(storage: &mut dyn Storage, sender: &Addr, usages: &[Usage]) -> Result<Response, ContractError> {
    if CONFIG.load(storage)?.royalty_escrow.as_ref() != Some(sender) {
        let sender = sender.to_string();
        return Err(ContractError::NotEscrow { sender });
    }
    for usage in usages {
        model::record(storage, usage)?;
    }
    Ok(Response::new())
}

fn wire(
    storage: &mut dyn Storage,
    api: &dyn Api,
    sender: &Addr,
    royalty_escrow: &str,
) -> Result<Response, ContractError> {
    admin::require(storage, sender)?;
    let mut config = CONFIG.load(storage)?;
    if config.royalty_escrow.is_some() {
        return Err(ContractError::AlreadyWired);
    }
    config.royalty_escrow = Some(api.addr_validate(royalty_escrow)?);
    CONFIG.save(storage, &config)?;
    announce(Event::Wired { by: sender.to_string() })
}

fn update_params(storage: &mut dyn Storage, sender: Addr, params: RegistryParams) -> Result<Response, ContractError> {
    admin::require(storage, &sender)?;
    check_params(&params)?;
    let mut config = CONFIG.load(storage)?;
    migration::check_notice_is_fixed(config.params.migration_notice_seconds, params.migration_notice_seconds)?;
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

fn check_params(params: &RegistryParams) -> Result<(), ContractError> {
    migration::check_notice(params.migration_notice_seconds, 1)?;
    if params.namespace_fee > NAMESPACE_FEE_MAX {
        return Err(ContractError::ParamOutOfBounds {
            name: "namespace_fee".to_owned(),
            value: params.namespace_fee,
            max: NAMESPACE_FEE_MAX,
        });
    }
    Ok(())
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
pub fn query(deps: Deps, _env: Env, msg: QueryMsg) -> Result<Binary, ContractError> {
    let answer = match msg {
        QueryMsg::Config {} => to_json_binary(&query::config(deps)?),
        QueryMsg::Migration {} => to_json_binary(&query::migration(deps.storage)?),
        QueryMsg::Namespace { namespace } => to_json_binary(&query::namespace(deps, &namespace)?),
        QueryMsg::Model { model } => to_json_binary(&query::model(deps, model)?),
        QueryMsg::Models {
            namespace,
            start_after,
            limit,
        } => to_json_binary(&query::models(deps, namespace.as_ref(), start_after.as_ref(), limit)?),
        QueryMsg::Version { model, version } => to_json_binary(&query::version(deps, &model, version)?),
        QueryMsg::Versions {
            model,
            start_after,
            limit,
        } => to_json_binary(&query::versions(deps, &model, start_after, limit)?),
        QueryMsg::Offer {
            model,
            version,
            endpoint,
        } => to_json_binary(&query::offer(deps, model, version, &endpoint)?),
        QueryMsg::Payout { model } => to_json_binary(&query::payout(deps, &model)?),
    };
    Ok(answer?)
}
