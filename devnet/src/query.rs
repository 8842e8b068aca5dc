//! ABCI queries: protobuf in, protobuf out, by the path of the gRPC service a real node routes them to.

use cosmrs::{
    proto::{
        cosmos::{
            auth::v1beta1::{BaseAccount, QueryAccountRequest, QueryAccountResponse},
            bank::v1beta1::{QueryBalanceRequest, QueryBalanceResponse},
            base::{
                abci::v1beta1::{GasInfo, Result as AbciResult},
                v1beta1::Coin,
            },
            crypto::secp256k1::PubKey,
            tx::v1beta1::{SimulateRequest, SimulateResponse},
        },
        cosmwasm::wasm::v1::{
            AbsoluteTxPosition, ContractInfo, QueryContractInfoRequest, QueryContractInfoResponse,
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
    node::Node,
};

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
