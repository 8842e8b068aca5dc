//! The one file that knows cosmrs: signed transactions and the protobuf of queries.
//!
//! Everything else in this crate speaks bytes, addresses as text, and our own types.

use cosmrs::{
    crypto::PublicKey,
    proto::{
        cosmos::{
            auth::v1beta1::{BaseAccount, QueryAccountRequest, QueryAccountResponse},
            bank::v1beta1::{QueryBalanceRequest, QueryBalanceResponse},
            base::{query::v1beta1::PageRequest, v1beta1::Coin as ProtoCoin},
            tx::v1beta1::{SimulateRequest, SimulateResponse, TxBody, TxRaw},
        },
        cosmwasm::wasm::v1::{
            AccessType, CodeInfoResponse, MsgExecuteContract, MsgInstantiateContract, MsgStoreCode, MsgUpdateAdmin,
            QueryCodesRequest, QueryCodesResponse, QueryContractInfoRequest, QueryContractInfoResponse,
            QueryRawContractStateRequest, QueryRawContractStateResponse, QuerySmartContractStateRequest,
            QuerySmartContractStateResponse,
        },
        traits::{Message, Name},
    },
    tendermint::block::Height,
    tx::{AuthInfo, Body, Fee, SignDoc, SignerInfo},
    AccountId, Any, Coin, Denom,
};
use k256::ecdsa::VerifyingKey;
use sha2::{Digest, Sha256};

use crate::{
    call::Call,
    client::{AccountInfo, ContractInfo},
    codes::CodeInfo,
    error::ClientError,
    wallet::Wallet,
};

/// Everything a signature covers beside the messages.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terms<'a> {
    /// The chain the transaction is for.
    pub(crate) chain_id: &'a str,
    /// The account's number on it.
    pub(crate) account_number: u64,
    /// The account's next sequence.
    pub(crate) sequence: u64,
    /// Gas limit.
    pub(crate) gas: u64,
    /// Fee in `denom`.
    pub(crate) fee: u128,
    /// The gas coin.
    pub(crate) denom: &'a str,
    /// Height of the last block that may hold it; 0 for any.
    pub(crate) last_height: u64,
}

/// The address of a key; `None` when the prefix begins no address.
pub(crate) fn address(key: &VerifyingKey, prefix: &str) -> Option<String> {
    if prefix.is_empty() {
        return None;
    }
    let id = PublicKey::from(key).account_id(prefix).ok()?;
    Some(id.to_string())
}

/// Whether the text is an address with this prefix.
pub(crate) fn is_address(text: &str, prefix: &str) -> bool {
    text.parse::<AccountId>().is_ok_and(|id| id.prefix() == prefix)
}

/// A signed transaction, ready to broadcast.
pub(crate) fn sign(wallet: &Wallet, calls: &[Call], sender: &str, terms: Terms<'_>) -> Result<Vec<u8>, ClientError> {
    let unsigned = unsigned(wallet, calls, sender, terms)?;
    let document = unsigned.clone().into_bytes().map_err(bad)?;
    let signature = wallet.sign_digest(&Sha256::digest(document).into());
    Ok(raw(unsigned, signature.to_vec()))
}

/// Height of the last block that may hold a signed transaction; `None` for any, and for bytes that are none.
pub(crate) fn last_height(bytes: &[u8]) -> Option<u64> {
    let raw = TxRaw::decode(bytes).ok()?;
    let body = TxBody::decode(raw.body_bytes.as_slice()).ok()?;
    (body.timeout_height > 0).then_some(body.timeout_height)
}

/// The query that tells the gas of these calls: path and data. Simulation needs no signature.
pub(crate) fn simulate(
    wallet: &Wallet,
    calls: &[Call],
    sender: &str,
    terms: Terms<'_>,
) -> Result<(&'static str, Vec<u8>), ClientError> {
    let tx_bytes = raw(unsigned(wallet, calls, sender, terms)?, vec![]);
    #[allow(
        deprecated,
        reason = "the deprecated field is left empty, but a struct literal must name it"
    )]
    let request = SimulateRequest { tx: None, tx_bytes };
    Ok(("/cosmos.tx.v1beta1.Service/Simulate", request.encode_to_vec()))
}

/// The gas that a simulation used.
pub(crate) fn simulated_gas(value: &[u8]) -> Result<u64, ClientError> {
    let response: SimulateResponse = decode("simulate", value)?;
    let gas = response.gas_info.map(|info| info.gas_used);
    gas.ok_or_else(|| answer("simulate", "no gas info"))
}

fn unsigned(wallet: &Wallet, calls: &[Call], sender: &str, terms: Terms<'_>) -> Result<SignDoc, ClientError> {
    let denom: Denom = terms.denom.parse().map_err(bad)?;
    let messages: Result<Vec<Any>, ClientError> = calls.iter().map(|call| message(call, sender, terms.denom)).collect();
    let key = VerifyingKey::from_sec1_bytes(&wallet.public_key()).map_err(bad)?;
    // No fee is no coin, not a coin of zero.
    let amount = (terms.fee > 0).then_some(Coin {
        denom,
        amount: terms.fee,
    });
    let fee = Fee {
        amount: amount.into_iter().collect(),
        gas_limit: terms.gas,
        payer: None,
        granter: None,
    };
    let auth: AuthInfo = SignerInfo::single_direct(Some(PublicKey::from(key)), terms.sequence).auth_info(fee);
    let last_height = Height::try_from(terms.last_height).map_err(bad)?;
    Ok(SignDoc {
        body_bytes: Body::new(messages?, "", last_height).into_bytes().map_err(bad)?,
        auth_info_bytes: auth.into_bytes().map_err(bad)?,
        chain_id: terms.chain_id.to_owned(),
        account_number: terms.account_number,
    })
}

fn raw(document: SignDoc, signature: Vec<u8>) -> Vec<u8> {
    let raw = TxRaw {
        body_bytes: document.body_bytes,
        auth_info_bytes: document.auth_info_bytes,
        signatures: vec![signature],
    };
    raw.encode_to_vec()
}

fn message(call: &Call, sender: &str, denom: &str) -> Result<Any, ClientError> {
    let sender = sender.to_owned();
    Ok(match call {
        Call::Execute { contract, msg, funds } => any(&MsgExecuteContract {
            sender,
            contract: contract.clone(),
            msg: msg.clone(),
            funds: coins(funds)?,
        }),
        Call::Send { to, amount } => any(&cosmrs::proto::cosmos::bank::v1beta1::MsgSend {
            from_address: sender,
            to_address: to.clone(),
            amount: vec![coin(denom, *amount)],
        }),
        Call::StoreCode { wasm } => any(&MsgStoreCode {
            sender,
            wasm_byte_code: wasm.clone(),
            instantiate_permission: None,
        }),
        Call::Instantiate {
            code_id,
            msg,
            label,
            admin,
        } => any(&MsgInstantiateContract {
            sender,
            admin: admin.clone().unwrap_or_default(),
            code_id: *code_id,
            label: label.clone(),
            msg: msg.clone(),
            funds: vec![],
        }),
        Call::UpdateAdmin { contract, admin } => any(&MsgUpdateAdmin {
            sender,
            new_admin: admin.clone(),
            contract: contract.clone(),
        }),
    })
}

/// Coins as the chain wants them: sorted by denomination, none twice, none zero.
fn coins(funds: &[cosmwasm_std::Coin]) -> Result<Vec<ProtoCoin>, ClientError> {
    let mut sorted: Vec<ProtoCoin> = funds.iter().map(|fund| coin(&fund.denom, fund.amount.u128())).collect();
    sorted.sort_by(|left, right| left.denom.cmp(&right.denom));
    let twice = sorted
        .windows(2)
        .any(|pair| pair.first().map(|coin| &coin.denom) == pair.last().map(|coin| &coin.denom));
    if twice || sorted.iter().any(|coin| coin.amount == "0") {
        return Err(ClientError::BadCall(
            "coins sent along must differ and not be zero".into(),
        ));
    }
    Ok(sorted)
}

fn coin(denom: &str, amount: u128) -> ProtoCoin {
    ProtoCoin {
        denom: denom.to_owned(),
        amount: amount.to_string(),
    }
}

fn any<M: Message + Name>(message: &M) -> Any {
    Any {
        type_url: M::type_url(),
        value: message.encode_to_vec(),
    }
}

pub(crate) fn account_query(address: &str) -> (&'static str, Vec<u8>) {
    let request = QueryAccountRequest {
        address: address.to_owned(),
    };
    ("/cosmos.auth.v1beta1.Query/Account", request.encode_to_vec())
}

pub(crate) fn account_answer(value: &[u8]) -> Result<AccountInfo, ClientError> {
    let response: QueryAccountResponse = decode("account", value)?;
    let account = response.account.ok_or_else(|| answer("account", "empty"))?;
    if account.type_url != BaseAccount::type_url() {
        return Err(answer("account", &format!("unsupported kind {}", account.type_url)));
    }
    let account: BaseAccount = decode("account", &account.value)?;
    Ok(AccountInfo {
        number: account.account_number,
        sequence: account.sequence,
    })
}

pub(crate) fn balance_query(address: &str, denom: &str) -> (&'static str, Vec<u8>) {
    let request = QueryBalanceRequest {
        address: address.to_owned(),
        denom: denom.to_owned(),
    };
    ("/cosmos.bank.v1beta1.Query/Balance", request.encode_to_vec())
}

pub(crate) fn balance_answer(value: &[u8]) -> Result<u128, ClientError> {
    let response: QueryBalanceResponse = decode("balance", value)?;
    match response.balance {
        None => Ok(0),
        Some(coin) => coin.amount.parse().map_err(|_| answer("balance", &coin.amount)),
    }
}

pub(crate) fn smart_query(contract: &str, query: Vec<u8>) -> (&'static str, Vec<u8>) {
    let request = QuerySmartContractStateRequest {
        address: contract.to_owned(),
        query_data: query,
    };
    ("/cosmwasm.wasm.v1.Query/SmartContractState", request.encode_to_vec())
}

pub(crate) fn smart_answer(value: &[u8]) -> Result<Vec<u8>, ClientError> {
    let response: QuerySmartContractStateResponse = decode("smart query", value)?;
    Ok(response.data)
}

pub(crate) fn raw_query(contract: &str, key: &[u8]) -> (&'static str, Vec<u8>) {
    let request = QueryRawContractStateRequest {
        address: contract.to_owned(),
        query_data: key.to_vec(),
    };
    ("/cosmwasm.wasm.v1.Query/RawContractState", request.encode_to_vec())
}

pub(crate) fn raw_answer(value: &[u8]) -> Result<Option<Vec<u8>>, ClientError> {
    let response: QueryRawContractStateResponse = decode("raw query", value)?;
    // The chain does not tell an absent key from an empty value; contracts never store empty values.
    Ok(Some(response.data).filter(|data| !data.is_empty()))
}

pub(crate) fn contract_query(contract: &str) -> (&'static str, Vec<u8>) {
    let request = QueryContractInfoRequest {
        address: contract.to_owned(),
    };
    ("/cosmwasm.wasm.v1.Query/ContractInfo", request.encode_to_vec())
}

pub(crate) fn contract_answer(value: &[u8]) -> Result<ContractInfo, ClientError> {
    let response: QueryContractInfoResponse = decode("contract info", value)?;
    let info = response.contract_info.ok_or_else(|| answer("contract info", "empty"))?;
    Ok(ContractInfo {
        code_id: info.code_id,
        creator: info.creator,
        admin: Some(info.admin).filter(|admin| !admin.is_empty()),
        label: info.label,
    })
}

/// A page of codes: from a key of an earlier page on, or the newest first.
pub(crate) fn codes_query(key: Vec<u8>, limit: u64, newest_first: bool) -> (&'static str, Vec<u8>) {
    let pagination = PageRequest {
        key,
        limit,
        reverse: newest_first,
        ..PageRequest::default()
    };
    let pagination = Some(pagination);
    (
        "/cosmwasm.wasm.v1.Query/Codes",
        QueryCodesRequest { pagination }.encode_to_vec(),
    )
}

/// The key of a code among the pages.
pub(crate) fn code_key(code_id: u64) -> Vec<u8> {
    code_id.to_be_bytes().to_vec()
}

/// A page of codes, and the key of the next if there is one.
pub(crate) fn codes_answer(value: &[u8]) -> Result<(Vec<CodeInfo>, Option<Vec<u8>>), ClientError> {
    let response: QueryCodesResponse = decode("codes", value)?;
    let next = response.pagination.map(|page| page.next_key);
    let next = next.filter(|key| !key.is_empty());
    let codes: Result<_, _> = response.code_infos.into_iter().map(code).collect();
    Ok((codes?, next))
}

fn code(info: CodeInfoResponse) -> Result<CodeInfo, ClientError> {
    let checksum = <[u8; 32]>::try_from(info.data_hash.as_slice());
    let everybody = info.instantiate_permission.map(|access| access.permission);
    Ok(CodeInfo {
        code_id: info.code_id,
        creator: info.creator,
        checksum: checksum.map_err(|_| answer("codes", "a checksum that has not 32 bytes"))?,
        is_for_everybody: everybody == Some(AccessType::Everybody.into()),
    })
}

fn decode<M: Message + Default>(what: &'static str, value: &[u8]) -> Result<M, ClientError> {
    M::decode(value).map_err(|error| answer(what, &error.to_string()))
}

fn answer(what: &'static str, reason: &str) -> ClientError {
    ClientError::BadAnswer {
        what,
        reason: reason.to_owned(),
    }
}

fn bad(error: impl std::fmt::Display) -> ClientError {
    ClientError::BadCall(error.to_string())
}
