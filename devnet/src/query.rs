//! ABCI queries: protobuf in, protobuf out, by the path of the gRPC service a real node routes them to.

mod auth;
mod bank;
mod wasm;

use cosmrs::{
    proto::{
        cosmos::{
            base::{
                abci::v1beta1::{GasInfo, Result as AbciResult},
                query::v1beta1::{PageRequest, PageResponse},
            },
            tx::v1beta1::{SimulateRequest, SimulateResponse},
        },
        tendermint::{
            abci,
            google::protobuf::Duration,
            types::{AbciParams, BlockParams, ConsensusParams, EvidenceParams, ValidatorParams, VersionParams},
        },
        traits::{Message, Name},
    },
    Any,
};
use cosmwasm_std::Event;

use crate::{
    code::{self, Refusal},
    comet,
    node::{Node, BLOCK_BYTES_MAX},
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
        "/cosmos.auth.v1beta1.Query/Account" => auth::account(node, data),
        "/cosmos.auth.v1beta1.Query/AccountInfo" => auth::account_info(node, data),
        "/cosmos.auth.v1beta1.Query/AccountAddressByID" => auth::address_by_number(node, data),
        "/cosmos.auth.v1beta1.Query/Params" => Ok(auth::params()),
        "/cosmos.bank.v1beta1.Query/Balance" => bank::balance(node, data),
        "/cosmos.bank.v1beta1.Query/AllBalances" => bank::all_balances(node, data),
        "/cosmos.bank.v1beta1.Query/SpendableBalances" => bank::spendable(node, data),
        "/cosmos.bank.v1beta1.Query/SupplyOf" => bank::supply_of(node, data),
        "/cosmos.bank.v1beta1.Query/TotalSupply" => bank::total_supply(node, data),
        "/cosmos.consensus.v1.Query/Params" => Ok(consensus_params()),
        "/cosmwasm.wasm.v1.Query/Code" => wasm::code_details(node, data),
        "/cosmwasm.wasm.v1.Query/CodeInfo" => wasm::code_info(node, data),
        "/cosmwasm.wasm.v1.Query/Codes" => wasm::codes(node, data),
        "/cosmwasm.wasm.v1.Query/Params" => Ok(wasm::params()),
        "/cosmwasm.wasm.v1.Query/PinnedCodes" => Ok(wasm::pinned_codes()),
        "/cosmwasm.wasm.v1.Query/ContractsByCode" => wasm::contracts_by_code(node, data),
        "/cosmwasm.wasm.v1.Query/ContractsByCreator" => wasm::contracts_by_creator(node, data),
        "/cosmwasm.wasm.v1.Query/AllContractState" => wasm::all_contract_state(node, data),
        "/cosmwasm.wasm.v1.Query/SmartContractState" => wasm::smart(node, data),
        "/cosmwasm.wasm.v1.Query/RawContractState" => wasm::raw(node, data),
        "/cosmwasm.wasm.v1.Query/ContractInfo" => wasm::contract_info(node, data),
        "/cosmos.tx.v1beta1.Service/Simulate" => simulate(node, data),
        _ => return Err(code::UNKNOWN_REQUEST.with("unknown query path")),
    };
    answered.map_err(Refusal::of_query)
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

/// What the module of consensus answers.
#[derive(Clone, PartialEq, prost::Message)]
struct ConsensusParamsResponse {
    #[prost(message, tag = "1")]
    params: Option<ConsensusParams>,
}

/// The same as `consensus_params` of the RPC.
fn consensus_params() -> Vec<u8> {
    let params = ConsensusParams {
        block: Some(BlockParams {
            max_bytes: i64::try_from(BLOCK_BYTES_MAX).unwrap_or(i64::MAX),
            max_gas: -1,
        }),
        evidence: Some(EvidenceParams {
            max_age_num_blocks: comet::EVIDENCE_BLOCKS,
            max_age_duration: Some(Duration {
                seconds: comet::EVIDENCE_SECONDS,
                nanos: 0,
            }),
            max_bytes: comet::EVIDENCE_BYTES,
        }),
        validator: Some(ValidatorParams {
            pub_key_types: vec!["ed25519".to_owned()],
        }),
        version: Some(VersionParams::default()),
        abci: Some(AbciParams::default()),
    };
    let params = Some(params);
    ConsensusParamsResponse { params }.encode_to_vec()
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
