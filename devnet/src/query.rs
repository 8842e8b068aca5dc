//! ABCI queries: protobuf in, protobuf out, by the path of the gRPC service a real node routes them to.

use cosmrs::{
    proto::{
        cosmos::{
            auth::v1beta1::{BaseAccount, QueryAccountRequest, QueryAccountResponse},
            bank::v1beta1::{
                QueryAllBalancesRequest, QueryAllBalancesResponse, QueryBalanceRequest, QueryBalanceResponse,
            },
            base::{
                abci::v1beta1::{GasInfo, Result as AbciResult},
                query::v1beta1::{PageRequest, PageResponse},
                v1beta1::Coin,
            },
            crypto::secp256k1::PubKey,
            tx::v1beta1::{SimulateRequest, SimulateResponse},
        },
        cosmwasm::wasm::v1::{
            AbsoluteTxPosition, AccessConfig, CodeInfoResponse, ContractInfo, Model, QueryAllContractStateRequest,
            QueryAllContractStateResponse, QueryCodeRequest, QueryCodeResponse, QueryCodesRequest, QueryCodesResponse,
            QueryContractInfoRequest, QueryContractInfoResponse, QueryContractsByCodeRequest,
            QueryContractsByCodeResponse, QueryContractsByCreatorRequest, QueryContractsByCreatorResponse,
            QueryRawContractStateRequest, QueryRawContractStateResponse, QuerySmartContractStateRequest,
            QuerySmartContractStateResponse,
        },
        tendermint::abci,
        traits::{Message, Name},
    },
    Any,
};
use cosmwasm_std::Event;

use crate::{
    code::{self, Refusal},
    machine::CodeInfo,
    node::Node,
};

/// Rows of an answer when none are asked for, the chain's default.
const ROWS: u64 = 100;
/// Rows of an answer at most.
const ROWS_MAX: u64 = 1_000;

/// Answers a query on the latest state.
pub(crate) fn answer(node: &mut Node, path: &str, data: &[u8], height: u64) -> Result<Vec<u8>, Refusal> {
    let latest = node.machine.block().height;
    if height != 0 && height != latest {
        let log =
            format!("failed to load state at height {height}; only the latest state is kept (latest height: {latest})");
        return Err(code::INVALID_HEIGHT.with(log));
    }
    let answered = match path {
        "/cosmos.auth.v1beta1.Query/Account" => account(node, data),
        "/cosmos.bank.v1beta1.Query/Balance" => balance(node, data),
        "/cosmos.bank.v1beta1.Query/AllBalances" => all_balances(node, data),
        "/cosmwasm.wasm.v1.Query/Code" => code_details(node, data),
        "/cosmwasm.wasm.v1.Query/Codes" => codes(node, data),
        "/cosmwasm.wasm.v1.Query/ContractsByCode" => contracts_by_code(node, data),
        "/cosmwasm.wasm.v1.Query/ContractsByCreator" => contracts_by_creator(node, data),
        "/cosmwasm.wasm.v1.Query/AllContractState" => all_contract_state(node, data),
        "/cosmwasm.wasm.v1.Query/SmartContractState" => smart(node, data),
        "/cosmwasm.wasm.v1.Query/RawContractState" => raw(node, data),
        "/cosmwasm.wasm.v1.Query/ContractInfo" => contract_info(node, data),
        "/cosmos.tx.v1beta1.Service/Simulate" => simulate(node, data),
        _ => return Err(code::UNKNOWN_REQUEST.with("unknown query path")),
    };
    answered.map_err(Refusal::of_query)
}

fn account(node: &Node, data: &[u8]) -> Result<Vec<u8>, Refusal> {
    let QueryAccountRequest { address } = decode(data)?;
    let entry = node.accounts.get(&address).ok_or_else(|| {
        code::NOT_FOUND.with(format!("rpc error: code = NotFound desc = account {address} not found"))
    })?;
    let account = BaseAccount {
        address,
        pub_key: entry.public_key.map(|key| any(&PubKey { key: key.to_vec() })),
        account_number: entry.number,
        sequence: entry.sequence,
    };
    let account = Some(any(&account));
    Ok(QueryAccountResponse { account }.encode_to_vec())
}

fn balance(node: &Node, data: &[u8]) -> Result<Vec<u8>, Refusal> {
    let QueryBalanceRequest { address, denom } = decode(data)?;
    if !node.machine.is_address(&address) {
        return Err(code::INVALID_ADDRESS.with(format!("invalid address: {address:?}")));
    }
    let amount = node.machine.balance(&address, &denom).to_string();
    let balance = Some(Coin { denom, amount });
    Ok(QueryBalanceResponse { balance }.encode_to_vec())
}

fn all_balances(node: &Node, data: &[u8]) -> Result<Vec<u8>, Refusal> {
    let QueryAllBalancesRequest {
        address, pagination, ..
    } = decode(data)?;
    if !node.machine.is_address(&address) {
        return Err(code::INVALID_ADDRESS.with(format!("invalid address: {address:?}")));
    }
    // This chain has one coin.
    let denom = node.rules.denom.clone();
    let amount = node.machine.balance(&address, &denom);
    let coins = (amount > 0).then(|| Coin {
        amount: amount.to_string(),
        denom,
    });
    let (balances, pagination) = page(coins.into_iter().collect(), pagination, |coin| {
        coin.denom.clone().into()
    })?;
    Ok(QueryAllBalancesResponse { balances, pagination }.encode_to_vec())
}

fn info(code: &CodeInfo) -> CodeInfoResponse {
    let everybody = AccessConfig {
        permission: 3,
        addresses: vec![],
    };
    CodeInfoResponse {
        code_id: code.id,
        creator: code.creator.clone(),
        data_hash: code.checksum.clone(),
        instantiate_permission: Some(everybody),
    }
}

/// The code's bytes are not there: contracts are compiled into this chain.
fn code_details(node: &Node, data: &[u8]) -> Result<Vec<u8>, Refusal> {
    let QueryCodeRequest { code_id } = decode(data)?;
    let code = node.machine.codes().iter().find(|code| code.id == code_id);
    let code = code.ok_or_else(|| code::NO_SUCH_CODE.with(format!("code id {code_id}")))?;
    let response = QueryCodeResponse {
        code_info: Some(info(code)),
        data: vec![],
    };
    Ok(response.encode_to_vec())
}

fn codes(node: &Node, data: &[u8]) -> Result<Vec<u8>, Refusal> {
    let QueryCodesRequest { pagination } = decode(data)?;
    let infos = node.machine.codes().iter().map(info).collect();
    let (code_infos, pagination) = page(infos, pagination, |info| info.code_id.to_be_bytes().into())?;
    Ok(QueryCodesResponse { code_infos, pagination }.encode_to_vec())
}

fn contracts_by_code(node: &Node, data: &[u8]) -> Result<Vec<u8>, Refusal> {
    let QueryContractsByCodeRequest { code_id, pagination } = decode(data)?;
    if code_id == 0 {
        return Err(code::INVALID_REQUEST.with("code id is 0"));
    }
    let instances = node.machine.instances().into_iter();
    let contracts = instances.filter(|(_, instance)| instance.code_id == code_id);
    let contracts = contracts.map(|(address, _)| address).collect();
    let (contracts, pagination) = page(contracts, pagination, |address: &String| address.clone().into())?;
    Ok(QueryContractsByCodeResponse { contracts, pagination }.encode_to_vec())
}

fn contracts_by_creator(node: &Node, data: &[u8]) -> Result<Vec<u8>, Refusal> {
    let QueryContractsByCreatorRequest {
        creator_address,
        pagination,
    } = decode(data)?;
    let instances = node.machine.instances().into_iter();
    let contracts = instances.filter(|(_, instance)| instance.creator == creator_address);
    let contracts = contracts.map(|(address, _)| address).collect();
    let (contract_addresses, pagination) = page(contracts, pagination, |address: &String| address.clone().into())?;
    let response = QueryContractsByCreatorResponse {
        contract_addresses,
        pagination,
    };
    Ok(response.encode_to_vec())
}

fn all_contract_state(node: &Node, data: &[u8]) -> Result<Vec<u8>, Refusal> {
    let QueryAllContractStateRequest { address, pagination } = decode(data)?;
    let models = node.machine.dump(&address)?;
    let models = models.into_iter().map(|(key, value)| Model { key, value }).collect();
    let (models, pagination) = page(models, pagination, |model| model.key.clone())?;
    Ok(QueryAllContractStateResponse { models, pagination }.encode_to_vec())
}

/// One page of rows, by key or by offset, and where the next begins.
fn page<T>(
    mut rows: Vec<T>,
    wanted: Option<PageRequest>,
    key: impl Fn(&T) -> Vec<u8>,
) -> Result<(Vec<T>, Option<PageResponse>), Refusal> {
    let wanted = wanted.unwrap_or_default();
    if wanted.offset > 0 && !wanted.key.is_empty() {
        return Err(code::INVALID_REQUEST.with("invalid request, either offset or key is expected, got both"));
    }
    if wanted.reverse {
        rows.reverse();
    }
    let total = u64::try_from(rows.len()).unwrap_or(u64::MAX);
    let skipped = if wanted.key.is_empty() {
        usize::try_from(wanted.offset).unwrap_or(usize::MAX)
    } else {
        let place = rows.iter().position(|row| key(row) == wanted.key);
        place.ok_or_else(|| code::INVALID_REQUEST.with("the key of the page is not there any more"))?
    };
    let limit = match wanted.limit {
        0 => ROWS,
        limit => limit.min(ROWS_MAX),
    };
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let next_key = rows.get(skipped.saturating_add(limit)).map(&key);
    let rows: Vec<T> = rows.into_iter().skip(skipped).take(limit).collect();
    let counted = wanted.key.is_empty() && (wanted.count_total || wanted.limit == 0);
    let response = PageResponse {
        next_key: next_key.unwrap_or_default(),
        total: if counted { total } else { 0 },
    };
    Ok((rows, Some(response)))
}

fn smart(node: &Node, data: &[u8]) -> Result<Vec<u8>, Refusal> {
    let QuerySmartContractStateRequest { address, query_data } = decode(data)?;
    let data = node.machine.smart(&address, &query_data)?;
    Ok(QuerySmartContractStateResponse { data }.encode_to_vec())
}

fn raw(node: &Node, data: &[u8]) -> Result<Vec<u8>, Refusal> {
    let QueryRawContractStateRequest { address, query_data } = decode(data)?;
    let data = node.machine.raw(&address, &query_data)?;
    Ok(QueryRawContractStateResponse { data }.encode_to_vec())
}

fn contract_info(node: &Node, data: &[u8]) -> Result<Vec<u8>, Refusal> {
    let QueryContractInfoRequest { address } = decode(data)?;
    let instance = node.machine.instance(&address)?;
    let info = ContractInfo {
        code_id: instance.code_id,
        creator: instance.creator,
        admin: instance.admin.unwrap_or_default(),
        label: instance.label,
        created: Some(AbsoluteTxPosition {
            block_height: instance.created,
            tx_index: 0,
        }),
        ibc_port_id: String::new(),
        extension: None,
    };
    let response = QueryContractInfoResponse {
        address,
        contract_info: Some(info),
    };
    Ok(response.encode_to_vec())
}

fn simulate(node: &mut Node, data: &[u8]) -> Result<Vec<u8>, Refusal> {
    let SimulateRequest { tx_bytes, .. } = decode(data)?;
    let simulated = node.simulate(tx_bytes)?;
    #[allow(
        deprecated,
        reason = "the deprecated field stays empty, but a struct literal must name it"
    )]
    let result = AbciResult {
        data: simulated.data,
        log: String::new(),
        events: simulated.events.iter().map(event).collect(),
        msg_responses: vec![],
    };
    let response = SimulateResponse {
        gas_info: Some(GasInfo {
            gas_wanted: 0,
            gas_used: simulated.gas_used,
        }),
        result: Some(result),
    };
    Ok(response.encode_to_vec())
}

fn event(event: &Event) -> abci::Event {
    let attributes = event.attributes.iter().map(|attribute| abci::EventAttribute {
        key: attribute.key.clone(),
        value: attribute.value.clone(),
        index: true,
    });
    abci::Event {
        r#type: event.ty.clone(),
        attributes: attributes.collect(),
    }
}

fn decode<M: Message + Default>(data: &[u8]) -> Result<M, Refusal> {
    M::decode(data).map_err(|error| code::INVALID_REQUEST.with(error))
}

fn any<M: Message + Name>(message: &M) -> Any {
    Any {
        type_url: M::type_url(),
        value: message.encode_to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(limit: u64) -> PageRequest {
        PageRequest {
            limit,
            ..PageRequest::default()
        }
    }

    #[test]
    fn pages_follow_each_other_by_their_keys() {
        let rows: Vec<u8> = (0..5).collect();
        let mut seen = vec![];
        let mut wanted = request(2);
        loop {
            let (rows, response) = page(rows.clone(), Some(wanted.clone()), |row| vec![*row]).unwrap();
            seen.extend(rows);
            wanted.key = response.unwrap().next_key;
            if wanted.key.is_empty() {
                break;
            }
        }
        assert_eq!(seen, rows);
    }

    #[test]
    fn a_page_can_be_counted_turned_round_and_begun_anywhere() {
        let rows: Vec<u8> = (0..5).collect();
        let all = page(rows.clone(), None, |row| vec![*row]).unwrap();
        assert_eq!((all.0.len(), all.1.unwrap().total), (5, 5));
        let wanted = PageRequest {
            reverse: true,
            offset: 1,
            ..request(2)
        };
        assert_eq!(page(rows.clone(), Some(wanted), |row| vec![*row]).unwrap().0, [3, 2]);
        let both = PageRequest {
            key: vec![1],
            offset: 1,
            ..request(2)
        };
        assert_eq!(page(rows, Some(both), |row| vec![*row]).unwrap_err().code, 18);
    }
}
