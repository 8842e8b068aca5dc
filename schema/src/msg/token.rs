//! func-token: FUNC, a cw20 token of fixed supply. It takes the cw20 standard's messages and queries as they are.

use cosmwasm_schema::cw_serde;
pub use cw20::{Cw20ExecuteMsg as ExecuteMsg, Cw20QueryMsg as QueryMsg};

#[cw_serde]
pub struct InstantiateMsg {
    /// Who gets how much in the beginning. The sum must be all FUNC, 10^15 ufunc.
    pub initial_balances: Vec<cw20::Cw20Coin>,
    /// May change the marketing information; nobody may, if absent.
    pub marketing: Option<String>,
}
