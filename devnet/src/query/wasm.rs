//! Codes and contracts, and what they answer.

use cosmrs::proto::{
    cosmos::base::query::v1beta1::PageResponse,
    cosmwasm::wasm::v1::{
        AbsoluteTxPosition, AccessConfig, AccessType, CodeInfoResponse, ContractInfo, Model, Params,
        QueryAllContractStateRequest, QueryAllContractStateResponse, QueryCodeRequest, QueryCodeResponse,
        QueryCodesRequest, QueryCodesResponse, QueryContractInfoRequest, QueryContractInfoResponse,
        QueryContractsByCodeRequest, QueryContractsByCodeResponse, QueryContractsByCreatorRequest,
        QueryContractsByCreatorResponse, QueryParamsResponse, QueryPinnedCodesResponse, QueryRawContractStateRequest,
        QueryRawContractStateResponse, QuerySmartContractStateRequest, QuerySmartContractStateResponse,
    },
    traits::Message,
};

use super::{decode, page};
use crate::{
    code::{self, Refusal},
    machine::CodeInfo,
    node::Node,
};

fn info(code: &CodeInfo) -> CodeInfoResponse {
    CodeInfoResponse {
        code_id: code.id,
        creator: code.creator.clone(),
        data_hash: code.checksum.clone(),
        instantiate_permission: Some(everybody()),
    }
}

/// The code's bytes are not there: contracts are compiled into this chain.
pub(super) fn code_details(node: &Node, data: &[u8]) -> Result<Vec<u8>, Refusal> {
    let QueryCodeRequest { code_id } = decode(data)?;
    let code = code_of(node, code_id)?;
    let response = QueryCodeResponse {
        code_info: Some(info(code)),
        data: vec![],
    };
    Ok(response.encode_to_vec())
}

pub(super) fn codes(node: &Node, data: &[u8]) -> Result<Vec<u8>, Refusal> {
    let QueryCodesRequest { pagination } = decode(data)?;
    let infos = node.machine.codes().iter().map(info).collect();
    let (code_infos, pagination) = page(infos, pagination, |info| info.code_id.to_be_bytes().into())?;
    Ok(QueryCodesResponse { code_infos, pagination }.encode_to_vec())
}

pub(super) fn contracts_by_code(node: &Node, data: &[u8]) -> Result<Vec<u8>, Refusal> {
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

pub(super) fn contracts_by_creator(node: &Node, data: &[u8]) -> Result<Vec<u8>, Refusal> {
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

pub(super) fn all_contract_state(node: &Node, data: &[u8]) -> Result<Vec<u8>, Refusal> {
    let QueryAllContractStateRequest { address, pagination } = decode(data)?;
    let models = node.machine.dump(&address)?;
    let models = models.into_iter().map(|(key, value)| Model { key, value }).collect();
    let (models, pagination) = page(models, pagination, |model| model.key.clone())?;
    Ok(QueryAllContractStateResponse { models, pagination }.encode_to_vec())
}

pub(super) fn smart(node: &Node, data: &[u8]) -> Result<Vec<u8>, Refusal> {
    let QuerySmartContractStateRequest { address, query_data } = decode(data)?;
    let data = node.machine.smart(&address, &query_data)?;
    Ok(QuerySmartContractStateResponse { data }.encode_to_vec())
}

pub(super) fn raw(node: &Node, data: &[u8]) -> Result<Vec<u8>, Refusal> {
    let QueryRawContractStateRequest { address, query_data } = decode(data)?;
    let data = node.machine.raw(&address, &query_data)?;
    Ok(QueryRawContractStateResponse { data }.encode_to_vec())
}

pub(super) fn contract_info(node: &Node, data: &[u8]) -> Result<Vec<u8>, Refusal> {
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

/// What newer nodes tell of a code without its bytes.
#[derive(Clone, PartialEq, prost::Message)]
struct QueryCodeInfoResponse {
    #[prost(uint64, tag = "1")]
    code_id: u64,
    #[prost(string, tag = "2")]
    creator: String,
    #[prost(bytes, tag = "3")]
    checksum: Vec<u8>,
    #[prost(message, tag = "4")]
    instantiate_permission: Option<AccessConfig>,
}

pub(super) fn code_info(node: &Node, data: &[u8]) -> Result<Vec<u8>, Refusal> {
    // The request for the bytes has the same one field.
    let QueryCodeRequest { code_id } = decode(data)?;
    let code = code_of(node, code_id)?;
    let response = QueryCodeInfoResponse {
        code_id: code.id,
        creator: code.creator.clone(),
        checksum: code.checksum.clone(),
        instantiate_permission: Some(everybody()),
    };
    Ok(response.encode_to_vec())
}

fn code_of(node: &Node, code_id: u64) -> Result<&CodeInfo, Refusal> {
    let code = node.machine.codes().iter().find(|code| code.id == code_id);
    code.ok_or_else(|| code::NO_SUCH_CODE.with(format!("code id {code_id}")))
}

fn everybody() -> AccessConfig {
    AccessConfig {
        permission: AccessType::Everybody.into(),
        addresses: vec![],
    }
}

pub(super) fn params() -> Vec<u8> {
    let params = Params {
        code_upload_access: Some(everybody()),
        instantiate_default_permission: AccessType::Everybody.into(),
    };
    let params = Some(params);
    QueryParamsResponse { params }.encode_to_vec()
}

/// None: nothing is loaded from anywhere here.
pub(super) fn pinned_codes() -> Vec<u8> {
    let response = QueryPinnedCodesResponse {
        code_ids: vec![],
        pagination: Some(PageResponse::default()),
    };
    response.encode_to_vec()
}
