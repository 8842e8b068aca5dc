//! Who has an account, with which number, sequence and key.

use cosmrs::proto::cosmos::{
    auth::v1beta1::{
        BaseAccount, Params, QueryAccountAddressByIdRequest, QueryAccountAddressByIdResponse, QueryAccountInfoRequest,
        QueryAccountInfoResponse, QueryAccountRequest, QueryAccountResponse, QueryParamsResponse,
    },
    crypto::secp256k1::PubKey,
};
use cosmrs::proto::traits::Message;

use super::{any, decode};
use crate::{
    code::{self, Refusal},
    node::Node,
};

/// An account as the SDK tells it.
fn base_account(node: &Node, address: String) -> Result<BaseAccount, Refusal> {
    let entry = node.accounts.get(&address).ok_or_else(|| {
        code::NOT_FOUND.with(format!("rpc error: code = NotFound desc = account {address} not found"))
    })?;
    Ok(BaseAccount {
        address,
        pub_key: entry.public_key.map(|key| any(&PubKey { key: key.to_vec() })),
        account_number: entry.number,
        sequence: entry.sequence,
    })
}

pub(super) fn account(node: &Node, data: &[u8]) -> Result<Vec<u8>, Refusal> {
    let QueryAccountRequest { address } = decode(data)?;
    let account = Some(any(&base_account(node, address)?));
    Ok(QueryAccountResponse { account }.encode_to_vec())
}

pub(super) fn account_info(node: &Node, data: &[u8]) -> Result<Vec<u8>, Refusal> {
    let QueryAccountInfoRequest { address } = decode(data)?;
    let info = Some(base_account(node, address)?);
    Ok(QueryAccountInfoResponse { info }.encode_to_vec())
}

pub(super) fn address_by_number(node: &Node, data: &[u8]) -> Result<Vec<u8>, Refusal> {
    let QueryAccountAddressByIdRequest { account_id, .. } = decode(data)?;
    let account_address = node.accounts.with_number(account_id).ok_or_else(|| {
        let log =
            format!("rpc error: code = NotFound desc = account address not found with account number {account_id}");
        code::NOT_FOUND.with(log)
    })?;
    Ok(QueryAccountAddressByIdResponse { account_address }.encode_to_vec())
}

/// What a new wasmd chain has, and what the fees here go by.
pub(super) fn params() -> Vec<u8> {
    let params = Params {
        max_memo_characters: 256,
        tx_sig_limit: 7,
        tx_size_cost_per_byte: 10,
        sig_verify_cost_ed25519: 590,
        sig_verify_cost_secp256k1: 1_000,
    };
    let params = Some(params);
    QueryParamsResponse { params }.encode_to_vec()
}
