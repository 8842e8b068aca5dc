//! Entry points. Everything is cw20-base's; ours are the fixed supply, no minter, no native funds, and bounds on the texts that the
//! marketing account may store.

use cosmwasm_std::{
    entry_point, to_json_binary, Addr, Binary, Deps, DepsMut, Env, MessageInfo, Response, StdResult, Uint128,
};
use cw20::{Cw20Coin, Logo};
use cw20_base::{
    allowances, contract as base, enumerable,
    msg::{InstantiateMarketingInfo, InstantiateMsg as BaseInstantiateMsg},
    state::{ALLOWANCES, BALANCES},
    ContractError as BaseError,
};
use cw_utils::nonpayable;
use schema::{
    text,
    token::{ExecuteMsg, InstantiateMsg, QueryMsg},
    TOTAL_SUPPLY,
};

use crate::ContractError;

const NAME: &str = "Function";
const SYMBOL: &str = "FUNC";
const DECIMALS: u8 = 6;
/// Longest project link and logo link, in bytes.
const LINK_BYTES_MAX: usize = 256;
/// Longest description, in bytes.
const DESCRIPTION_BYTES_MAX: usize = 4096;

#[entry_point]
pub fn instantiate(deps: DepsMut, env: Env, info: MessageInfo, msg: InstantiateMsg) -> Result<Response, ContractError> {
    nonpayable(&info)?;
    check_supply(&msg.initial_balances)?;
    let token = BaseInstantiateMsg {
        name: NAME.to_owned(),
        symbol: SYMBOL.to_owned(),
        decimals: DECIMALS,
        initial_balances: msg.initial_balances,
        mint: None,
        marketing: msg.marketing.map(|marketing| InstantiateMarketingInfo {
            project: None,
            description: None,
            marketing: Some(marketing),
            logo: None,
        }),
    };
    let storage_and_api = DepsMut {
        storage: &mut *deps.storage,
        api: deps.api,
        querier: deps.querier,
    };
    let response = base::instantiate(storage_and_api, env, info, token)?;
    cw2::set_contract_version(deps.storage, env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION"))?;
    Ok(response)
}

/// The balances must be all FUNC, no more and no less. cw20-base refuses duplicate accounts.
fn check_supply(balances: &[Cw20Coin]) -> Result<(), ContractError> {
    let supply = Uint128::new(TOTAL_SUPPLY);
    let sum = balances
        .iter()
        .fold(Uint128::zero(), |sum, coin| sum.saturating_add(coin.amount));
    if sum != supply {
        return Err(ContractError::WrongSupply { sum, supply });
    }
    Ok(())
}

#[entry_point]
pub fn execute(deps: DepsMut, env: Env, info: MessageInfo, msg: ExecuteMsg) -> Result<Response, ContractError> {
    nonpayable(&info)?;
    check_texts(&msg)?;
    check_amounts(deps.as_ref(), &env, &info.sender, &msg)?;
    let response = match msg {
        ExecuteMsg::Transfer { recipient, amount } => base::execute_transfer(deps, env, info, recipient, amount),
        ExecuteMsg::Burn { amount } => base::execute_burn(deps, env, info, amount),
        ExecuteMsg::Send { contract, amount, msg } => base::execute_send(deps, env, info, contract, amount, msg),
        ExecuteMsg::IncreaseAllowance {
            spender,
            amount,
            expires,
        } => allowances::execute_increase_allowance(deps, env, info, spender, amount, expires),
        ExecuteMsg::DecreaseAllowance {
            spender,
            amount,
            expires,
        } => allowances::execute_decrease_allowance(deps, env, info, spender, amount, expires),
        ExecuteMsg::TransferFrom {
            owner,
            recipient,
            amount,
        } => allowances::execute_transfer_from(deps, env, info, owner, recipient, amount),
        ExecuteMsg::SendFrom {
            owner,
            contract,
            amount,
            msg,
        } => allowances::execute_send_from(deps, env, info, owner, contract, amount, msg),
        ExecuteMsg::BurnFrom { owner, amount } => allowances::execute_burn_from(deps, env, info, owner, amount),
        ExecuteMsg::Mint { recipient, amount } => base::execute_mint(deps, env, info, recipient, amount),
        ExecuteMsg::UpdateMinter { new_minter } => base::execute_update_minter(deps, env, info, new_minter),
        ExecuteMsg::UpdateMarketing {
            project,
            description,
            marketing,
        } => base::execute_update_marketing(deps, env, info, project, description, marketing),
        ExecuteMsg::UploadLogo(logo) => base::execute_upload_logo(deps, env, info, logo),
    };
    Ok(response?)
}

/// cw20-base would refuse these as "Cannot Sub with given operands", or abort where an allowance overflows.
fn check_amounts(deps: Deps, env: &Env, sender: &Addr, msg: &ExecuteMsg) -> Result<(), ContractError> {
    let allowed = |owner: &Addr, spender: &Addr| ALLOWANCES.may_load(deps.storage, (owner, spender));
    match msg {
        ExecuteMsg::Transfer { amount, .. } | ExecuteMsg::Burn { amount } | ExecuteMsg::Send { amount, .. } => {
            require_balance(deps, sender, *amount)
        }
        ExecuteMsg::TransferFrom { owner, amount, .. }
        | ExecuteMsg::SendFrom { owner, amount, .. }
        | ExecuteMsg::BurnFrom { owner, amount } => {
            let owner = deps.api.addr_validate(owner)?;
            let allowance = allowed(&owner, sender)?.ok_or(BaseError::NoAllowance {})?;
            if allowance.expires.is_expired(&env.block) {
                return Err(BaseError::Expired {}.into());
            }
            if allowance.allowance < *amount {
                return Err(ContractError::InsufficientAllowance {
                    owner: owner.into(),
                    spender: sender.to_string(),
                    allowed: allowance.allowance,
                    required: *amount,
                });
            }
            require_balance(deps, &owner, *amount)
        }
        ExecuteMsg::IncreaseAllowance { spender, amount, .. } => {
            let spender = deps.api.addr_validate(spender)?;
            let allowed = allowed(sender, &spender)?.unwrap_or_default().allowance;
            let overflow = ContractError::AllowanceOverflow {
                allowed,
                added: *amount,
            };
            allowed.checked_add(*amount).map(|_| ()).map_err(|_| overflow)
        }
        ExecuteMsg::DecreaseAllowance { spender, .. } => {
            let spender = deps.api.addr_validate(spender)?;
            let known = spender == *sender || allowed(sender, &spender)?.is_some();
            known.then_some(()).ok_or(BaseError::NoAllowance {}.into())
        }
        _ => Ok(()),
    }
}

fn require_balance(deps: Deps, account: &Addr, required: Uint128) -> Result<(), ContractError> {
    let balance = BALANCES.may_load(deps.storage, account)?.unwrap_or_default();
    if balance < required {
        return Err(ContractError::InsufficientFunds {
            account: account.to_string(),
            balance,
            required,
        });
    }
    Ok(())
}

/// cw20-base bounds embedded logos and nothing else.
fn check_texts(msg: &ExecuteMsg) -> Result<(), ContractError> {
    match msg {
        ExecuteMsg::UpdateMarketing {
            project, description, ..
        } => {
            text::check("project", project.as_deref().unwrap_or_default(), LINK_BYTES_MAX)?;
            let description = description.as_deref().unwrap_or_default();
            text::check("description", description, DESCRIPTION_BYTES_MAX)?;
        }
        ExecuteMsg::UploadLogo(Logo::Url(url)) => text::check("logo", url, LINK_BYTES_MAX)?,
        _ => (),
    }
    Ok(())
}

#[entry_point]
pub fn query(deps: Deps, _env: Env, msg: QueryMsg) -> StdResult<Binary> {
    match msg {
        QueryMsg::Balance { address } => to_json_binary(&base::query_balance(deps, address)?),
        QueryMsg::TokenInfo {} => to_json_binary(&base::query_token_info(deps)?),
        QueryMsg::Minter {} => to_json_binary(&base::query_minter(deps)?),
        QueryMsg::Allowance { owner, spender } => to_json_binary(&allowances::query_allowance(deps, owner, spender)?),
        QueryMsg::AllAllowances {
            owner,
            start_after,
            limit,
        } => to_json_binary(&enumerable::query_owner_allowances(deps, owner, start_after, limit)?),
        QueryMsg::AllAccounts { start_after, limit } => {
            to_json_binary(&enumerable::query_all_accounts(deps, start_after, limit)?)
        }
        QueryMsg::MarketingInfo {} => to_json_binary(&base::query_marketing_info(deps)?),
        QueryMsg::DownloadLogo {} => to_json_binary(&base::query_download_logo(deps)?),
    }
}
