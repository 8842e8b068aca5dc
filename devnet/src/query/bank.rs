//! Who has how many coins. This chain has one coin.

use cosmrs::proto::{
    cosmos::{
        bank::v1beta1::{
            QueryAllBalancesRequest, QueryAllBalancesResponse, QueryBalanceRequest, QueryBalanceResponse,
            QuerySpendableBalancesRequest, QuerySpendableBalancesResponse, QuerySupplyOfRequest, QuerySupplyOfResponse,
            QueryTotalSupplyRequest, QueryTotalSupplyResponse,
        },
        base::{
            query::v1beta1::{PageRequest, PageResponse},
            v1beta1::Coin,
        },
    },
    traits::Message,
};

use super::{decode, page};
use crate::{
    code::{self, Refusal},
    node::Node,
};

pub(super) fn balance(node: &Node, data: &[u8]) -> Result<Vec<u8>, Refusal> {
    let QueryBalanceRequest { address, denom } = decode(data)?;
    check_address(node, &address)?;
    let amount = node.machine.balance(&address, &denom).to_string();
    let balance = Some(Coin { denom, amount });
    Ok(QueryBalanceResponse { balance }.encode_to_vec())
}

pub(super) fn all_balances(node: &Node, data: &[u8]) -> Result<Vec<u8>, Refusal> {
    let QueryAllBalancesRequest {
        address, pagination, ..
    } = decode(data)?;
    let (balances, pagination) = coins_of(node, &address, pagination)?;
    Ok(QueryAllBalancesResponse { balances, pagination }.encode_to_vec())
}

/// Nothing is ever locked here.
pub(super) fn spendable(node: &Node, data: &[u8]) -> Result<Vec<u8>, Refusal> {
    let QuerySpendableBalancesRequest { address, pagination } = decode(data)?;
    let (balances, pagination) = coins_of(node, &address, pagination)?;
    Ok(QuerySpendableBalancesResponse { balances, pagination }.encode_to_vec())
}

pub(super) fn supply_of(node: &Node, data: &[u8]) -> Result<Vec<u8>, Refusal> {
    let QuerySupplyOfRequest { denom } = decode(data)?;
    let amount = node.machine.supply(&denom).to_string();
    let amount = Some(Coin { denom, amount });
    Ok(QuerySupplyOfResponse { amount }.encode_to_vec())
}

pub(super) fn total_supply(node: &Node, data: &[u8]) -> Result<Vec<u8>, Refusal> {
    let QueryTotalSupplyRequest { pagination } = decode(data)?;
    let amount = node.machine.supply(&node.rules.denom);
    let (supply, pagination) = coins(node, amount, pagination)?;
    Ok(QueryTotalSupplyResponse { supply, pagination }.encode_to_vec())
}

type Page = (Vec<Coin>, Option<PageResponse>);

fn coins_of(node: &Node, address: &str, pagination: Option<PageRequest>) -> Result<Page, Refusal> {
    check_address(node, address)?;
    coins(node, node.machine.balance(address, &node.rules.denom), pagination)
}

fn coins(node: &Node, amount: u128, pagination: Option<PageRequest>) -> Result<Page, Refusal> {
    let coins = (amount > 0).then(|| Coin {
        amount: amount.to_string(),
        denom: node.rules.denom.clone(),
    });
    page(coins.into_iter().collect(), pagination, |coin| {
        coin.denom.clone().into()
    })
}

fn check_address(node: &Node, address: &str) -> Result<(), Refusal> {
    match node.machine.is_address(address) {
        true => Ok(()),
        false => Err(code::INVALID_ADDRESS.with(format!("invalid address: {address:?}"))),
    }
}
