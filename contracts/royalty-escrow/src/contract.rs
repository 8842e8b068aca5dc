//! Entry points: who may send what. The rules are in the ledger, the settlement and the session.

mod forced;
mod sessions;

use std::collections::BTreeMap;

use cosmwasm_std::{
    entry_point, from_json, to_json_binary, Addr, Api, Binary, CosmosMsg, Deps, DepsMut, Env, MessageInfo,
    QuerierWrapper, Reply, Response, StdError, StdResult, Storage, Uint128, WasmMsg,
};
use cw20::{Cw20ExecuteMsg, Cw20ReceiveMsg};
use governed::admin;
use schema::{
    escrow::{ExecuteMsg, Holder, InstantiateMsg, QueryMsg, Reason, ReceiveMsg, Settlement, WorkTerms},
    price::GATEWAY_BPS_MAX,
    registry::{self, PayoutResponse},
    Event, ModelId, BATCH_MAX,
};

use crate::{
    distribution::distribute,
    ledger::{About, Ledger},
    query,
    settlement::{aggregate, settle},
    state::{check_params, Config, Hold, Siblings, CONFIG, SIBLINGS},
    ContractError,
};

#[entry_point]
pub fn instantiate(
    deps: DepsMut<'_>,
    _env: Env,
    info: MessageInfo,
    msg: InstantiateMsg,
) -> Result<Response, ContractError> {
    refuse_funds(&info)?;
    check_params(&msg.params)?;
    cw2::set_contract_version(deps.storage, env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION"))?;
    admin::appoint(deps.storage, deps.api.addr_validate(&msg.admin)?)?;
    let config = Config {
        func_token: deps.api.addr_validate(&msg.func_token)?,
        model_registry: deps.api.addr_validate(&msg.model_registry)?,
        treasury: deps.api.addr_validate(&msg.treasury)?,
        params: msg.params,
    };
    CONFIG.save(deps.storage, &config)?;
    Ok(Response::new())
}

#[entry_point]
pub fn execute(deps: DepsMut<'_>, env: Env, info: MessageInfo, msg: ExecuteMsg) -> Result<Response, ContractError> {
    refuse_funds(&info)?;
    let sender = &info.sender;
    match msg {
        ExecuteMsg::Wire {
            job_orchestrator,
            provider_staking,
        } => {
            admin::require(deps.storage, sender)?;
            let siblings = Siblings {
                job_orchestrator: deps.api.addr_validate(&job_orchestrator)?,
                provider_staking: deps.api.addr_validate(&provider_staking)?,
            };
            wire(deps.storage, sender, &siblings)
        }
        ExecuteMsg::Receive(receive) => take_in(deps, sender, receive),
        ExecuteMsg::Withdraw { amount } => withdraw(deps.storage, sender, amount),
        ExecuteMsg::Hold {
            job,
            account,
            amount,
            terms,
            expires_at,
        } => {
            only_orchestrator(deps.storage, sender)?;
            let account = deps.api.addr_validate(&account)?;
            let terms = checked_terms(deps.api, terms)?;
            let hold = open_hold(deps.storage, &env, (account, amount), terms, expires_at)?;
            on_ledger(deps.storage, |ledger| ledger.hold(job, &hold))
        }
        ExecuteMsg::Settle { settlements } => {
            only_orchestrator(deps.storage, sender)?;
            settle_all(deps, &settlements)
        }
        ExecuteMsg::Release { job } => {
            only_orchestrator(deps.storage, sender)?;
            on_ledger(deps.storage, |ledger| ledger.release(job))
        }
        ExecuteMsg::ReleaseExpired { job } => on_ledger(deps.storage, |ledger| {
            ledger.release_expired(job, env.block.time.seconds())
        }),
        ExecuteMsg::OpenSession { session } => sessions::open(deps, &env, info.sender, session),
        ExecuteMsg::TopUp { session, allocations } => sessions::top_up(deps, &env, sender, session, allocations),
        ExecuteMsg::SettleVouchers { vouchers } => sessions::settle(deps, &env, &vouchers),
        ExecuteMsg::CloseSession { session, consents } => sessions::close(deps, &env, sender, session, &consents),
        ExecuteMsg::LeaveSession { session, deployment } => sessions::leave(deps, &env, sender, session, deployment),
        ExecuteMsg::FinaliseSession { session } => sessions::finalise(deps, &env, session),
        ExecuteMsg::ForceRequest {
            session,
            deployments,
            rows,
        } => forced::ask(deps, &env, sender, session, (deployments, rows)),
        ExecuteMsg::HoldForced {
            job,
            session,
            spans,
            expires_at,
        } => {
            only_orchestrator(deps.storage, sender)?;
            forced::hold(deps, &env, (job, session), spans, expires_at)
        }
        ExecuteMsg::EndForced { job, session, outcome } => {
            only_orchestrator(deps.storage, sender)?;
            forced::end(deps, &env, (job, session), outcome)
        }
        ExecuteMsg::DistributeRoyalties { model } => {
            let rule = payout_rule(deps.as_ref(), &model)?;
            pass_on(deps.storage, &model, &rule)?.ok_or(ContractError::NothingAccrued { model })
        }
        ExecuteMsg::DistributeUnder { model, payout, parents } => {
            let registry = CONFIG.load(deps.storage)?.model_registry;
            permit(registry == *sender, sender, "model registry")?;
            let rule = PayoutResponse { payout, parents };
            Ok(pass_on(deps.storage, &model, &rule)?.unwrap_or_default())
        }
        ExecuteMsg::UpdateParams { params } => {
            admin::require(deps.storage, sender)?;
            check_params(&params)?;
            let mut config = CONFIG.load(deps.storage)?;
            config.params = params;
            CONFIG.save(deps.storage, &config)?;
            Ok(announce([Event::ParamsUpdated {
                admin: sender.to_string(),
            }]))
        }
        ExecuteMsg::ProposeAdmin { admin } => {
            let admin = admin.map(|admin| deps.api.addr_validate(&admin)).transpose()?;
            Ok(announce([admin::propose(deps.storage, sender, admin)?]))
        }
        ExecuteMsg::AcceptAdmin {} => Ok(announce([admin::accept(deps.storage, sender)?])),
    }
}

/// Staking has refused to take a slot back or to count what was paid: the money has moved all the same.
#[entry_point]
pub fn reply(_deps: DepsMut<'_>, _env: Env, reply: Reply) -> Result<Response, ContractError> {
    match reply.id {
        sessions::TOLD_STAKING => Ok(Response::new()),
        id => Err(StdError::generic_err(format!("no reply was asked for under {id}")).into()),
    }
}

#[entry_point]
pub fn query(deps: Deps<'_>, env: Env, msg: QueryMsg) -> Result<Binary, ContractError> {
    let answer = match msg {
        QueryMsg::Config {} => to_json_binary(&query::config(deps)?),
        QueryMsg::Money {
            holder,
            start_after,
            sessions_after,
            limit,
        } => to_json_binary(&query::money(
            deps,
            &env,
            &holder,
            (start_after, sessions_after),
            limit,
        )?),
        QueryMsg::Earnings { holder } => to_json_binary(&query::earnings(deps, &holder)?),
        QueryMsg::Hold { job } => to_json_binary(&query::hold(deps, job)?),
        QueryMsg::Session { session } => to_json_binary(&query::session(deps, &env, session)?),
        QueryMsg::Sessions {
            account,
            start_after,
            limit,
        } => to_json_binary(&query::sessions(deps, &env, &account, start_after, limit)?),
        QueryMsg::SessionsOf {
            deployment,
            start_after,
            limit,
        } => to_json_binary(&query::sessions_of(deps, &env, deployment, start_after, limit)?),
        QueryMsg::Ledger { start_after, limit } => to_json_binary(&query::ledger(deps, start_after.as_deref(), limit)?),
        QueryMsg::Totals {} => to_json_binary(&query::totals(deps)?),
    };
    Ok(answer?)
}

fn refuse_funds(info: &MessageInfo) -> Result<(), ContractError> {
    match info.funds.len() {
        0 => Ok(()),
        kinds => Err(ContractError::FundsAttached { kinds }),
    }
}

fn only_orchestrator(storage: &dyn Storage, sender: &Addr) -> Result<(), ContractError> {
    let siblings = SIBLINGS.may_load(storage)?;
    let is_orchestrator = siblings.is_some_and(|siblings| siblings.job_orchestrator == *sender);
    permit(is_orchestrator, sender, "job orchestrator")
}

fn permit(is_sibling: bool, sender: &Addr, sibling: &str) -> Result<(), ContractError> {
    if is_sibling {
        return Ok(());
    }
    Err(ContractError::NotSibling {
        sender: sender.to_string(),
        sibling: sibling.to_owned(),
    })
}

fn announce(events: impl IntoIterator<Item = Event>) -> Response {
    Response::new().add_events(events.into_iter().map(|event| event.encode()))
}

/// A change of the ledger that moves no token.
fn on_ledger(
    storage: &mut dyn Storage,
    change: impl FnOnce(&mut Ledger<'_>) -> Result<(), ContractError>,
) -> Result<Response, ContractError> {
    let mut ledger = Ledger::open(storage)?;
    change(&mut ledger)?;
    Ok(announce(ledger.close()?))
}

fn message(contract: &Addr, msg: Binary) -> CosmosMsg {
    WasmMsg::Execute {
        contract_addr: contract.to_string(),
        msg,
        funds: vec![],
    }
    .into()
}

fn wire(storage: &mut dyn Storage, sender: &Addr, siblings: &Siblings) -> Result<Response, ContractError> {
    if SIBLINGS.exists(storage) {
        return Err(ContractError::AlreadyWired);
    }
    SIBLINGS.save(storage, siblings)?;
    Ok(announce([Event::Wired { by: sender.to_string() }]))
}

/// FUNC has come in: whose it is, and why.
fn take_in(deps: DepsMut<'_>, token: &Addr, receive: Cw20ReceiveMsg) -> Result<Response, ContractError> {
    let config = CONFIG.load(deps.storage)?;
    if config.func_token != *token {
        return Err(ContractError::WrongToken {
            token: token.to_string(),
            func_token: config.func_token.into_string(),
        });
    }
    if receive.amount.is_zero() {
        return Err(ContractError::ZeroAmount);
    }
    let sender = deps.api.addr_validate(&receive.sender)?;
    let amount = receive.amount;
    match from_json(&receive.msg)? {
        ReceiveMsg::Deposit { beneficiary } => {
            let holder = checked_holder(deps.api, &beneficiary.unwrap_or_else(|| sender.to_string()))?;
            on_ledger(deps.storage, |ledger| {
                ledger.credit(holder, Reason::Deposit, amount, About::default())
            })
        }
        ReceiveMsg::Penalty {
            beneficiary,
            item,
            keeper,
        } => {
            let siblings = SIBLINGS.may_load(deps.storage)?;
            let by_staking = siblings.is_some_and(|siblings| siblings.provider_staking == sender);
            permit(by_staking, &sender, "provider staking")?;
            let holder = checked_holder(deps.api, &beneficiary)?;
            let keeper =
                keeper.map(|keeper| Ok::<_, StdError>((checked_holder(deps.api, &keeper.account)?, keeper.amount)));
            let keeper = keeper.transpose()?;
            let about = About {
                item: Some(item),
                ..About::default()
            };
            on_ledger(deps.storage, |ledger| {
                let mut rest = amount;
                if let Some((keeper, fee)) = keeper {
                    rest = amount.checked_sub(fee)?;
                    ledger.credit(keeper, Reason::Keeper, fee, about.clone())?;
                }
                ledger.credit(holder, Reason::Penalty, rest, about)
            })
        }
    }
}

fn checked_holder(api: &dyn Api, address: &str) -> StdResult<Holder> {
    Ok(Holder::Address(api.addr_validate(address)?.into_string()))
}

fn withdraw(storage: &mut dyn Storage, account: &Addr, amount: Option<Uint128>) -> Result<Response, ContractError> {
    let mut ledger = Ledger::open(storage)?;
    let amount = ledger.withdraw(account, amount)?;
    let events = ledger.close()?;
    let transfer = Cw20ExecuteMsg::Transfer {
        recipient: account.to_string(),
        amount,
    };
    let token = CONFIG.load(storage)?.func_token;
    Ok(announce(events).add_message(message(&token, to_json_binary(&transfer)?)))
}

/// Refuses terms by which a settlement could not be paid.
fn checked_terms(api: &dyn Api, terms: WorkTerms) -> Result<WorkTerms, ContractError> {
    if !terms.royalty.is_bounded() {
        return Err(ContractError::RoyaltyOutOfBounds {
            royalty_bps: terms.royalty.royalty_bps,
            royalty_per_1k_units: terms.royalty.royalty_per_1k_units,
        });
    }
    if let Some(gateway) = &terms.gateway {
        if gateway.bps == 0 || gateway.bps > GATEWAY_BPS_MAX {
            return Err(ContractError::GatewayOutOfBounds {
                bps: gateway.bps,
                max: GATEWAY_BPS_MAX,
            });
        }
        api.addr_validate(&gateway.address)?;
    }
    Ok(terms)
}

/// A hold by the fees of today, inside the bounds of its date.
fn open_hold(
    storage: &dyn Storage,
    env: &Env,
    (account, amount): (Addr, Uint128),
    terms: WorkTerms,
    expires_at: u64,
) -> Result<Hold, ContractError> {
    let params = CONFIG.load(storage)?.params;
    let now = env.block.time.seconds();
    let latest = now.saturating_add(params.hold_seconds_max);
    if expires_at <= now || expires_at > latest {
        return Err(ContractError::HoldDate {
            expires_at,
            now,
            latest,
        });
    }
    Ok(Hold {
        account,
        amount,
        terms,
        fees: params.fees,
        expires_at,
    })
}

fn settle_all(deps: DepsMut<'_>, settlements: &[Settlement]) -> Result<Response, ContractError> {
    if settlements.is_empty() || settlements.len() > BATCH_MAX {
        return Err(ContractError::SettlementCount {
            count: settlements.len(),
            max: BATCH_MAX,
        });
    }
    let config = CONFIG.load(deps.storage)?;
    // Each model is asked for once, however many of its items are paid.
    let mut rules: BTreeMap<ModelId, PayoutResponse> = BTreeMap::new();
    let mut usages = vec![];
    let mut burnt = Uint128::zero();
    let mut ledger = Ledger::open(deps.storage)?;
    for settlement in settlements {
        let model = ledger.terms(settlement.item.job)?.0.model;
        if !rules.contains_key(&model) {
            let rule = ask_payout(&deps.querier, &config.model_registry, &model)?;
            rules.insert(model.clone(), rule);
        }
        let (usage, burn) = settle(&mut ledger, settlement, &rules[&model], &config.treasury)?;
        usages.push(usage);
        burnt = burnt.checked_add(burn)?;
    }
    let mut response = announce(ledger.close()?);
    if !burnt.is_zero() {
        let burn = Cw20ExecuteMsg::Burn { amount: burnt };
        response = response.add_message(message(&config.func_token, to_json_binary(&burn)?));
    }
    let record = registry::ExecuteMsg::Record {
        usages: aggregate(usages)?,
    };
    Ok(response.add_message(message(&config.model_registry, to_json_binary(&record)?)))
}

fn payout_rule(deps: Deps<'_>, model: &ModelId) -> Result<PayoutResponse, ContractError> {
    let registry = CONFIG.load(deps.storage)?.model_registry;
    ask_payout(&deps.querier, &registry, model)
}

fn ask_payout(querier: &QuerierWrapper<'_>, registry: &Addr, model: &ModelId) -> Result<PayoutResponse, ContractError> {
    let question = registry::QueryMsg::Payout { model: model.clone() };
    let answer = querier.query_wasm_smart(registry, &question);
    answer.map_err(|_| ContractError::NoPayoutRule { model: model.clone() })
}

/// Divides what a model has earned as a parent. None: nothing has accrued.
fn pass_on(
    storage: &mut dyn Storage,
    model: &ModelId,
    rule: &PayoutResponse,
) -> Result<Option<Response>, ContractError> {
    let mut ledger = Ledger::open(storage)?;
    let amount = ledger.take_accrued(model)?;
    if amount.is_zero() {
        return Ok(None);
    }
    distribute(&mut ledger, model, amount, rule, None)?;
    ledger.announce(Event::RoyaltiesDistributed {
        model: model.clone(),
        amount,
    });
    Ok(Some(announce(ledger.close()?)))
}
