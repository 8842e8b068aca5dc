use cosmwasm_std::{StdError, Uint128};
use cw_utils::PaymentError;
use schema::text::TextError;
use thiserror::Error;

#[derive(Debug, PartialEq, Error)]
pub enum ContractError {
    #[error("initial balances sum to {sum} ufunc, all FUNC is {supply}")]
    WrongSupply { sum: Uint128, supply: Uint128 },
    #[error("{account} has {balance} ufunc, {required} are required")]
    InsufficientFunds {
        account: String,
        balance: Uint128,
        required: Uint128,
    },
    #[error("{spender} may spend {allowed} ufunc of {owner}, {required} are required")]
    InsufficientAllowance {
        owner: String,
        spender: String,
        allowed: Uint128,
        required: Uint128,
    },
    #[error("an allowance of {allowed} ufunc and {added} more are beyond what can be counted")]
    AllowanceOverflow { allowed: Uint128, added: Uint128 },
    #[error(transparent)]
    Token(#[from] cw20_base::ContractError),
    #[error(transparent)]
    Text(#[from] TextError),
    #[error(transparent)]
    Payment(#[from] PaymentError),
    #[error(transparent)]
    Std(#[from] StdError),
}
