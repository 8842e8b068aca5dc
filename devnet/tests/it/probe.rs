//! A small contract that announces, refuses, panics and calls itself, and a devnet that runs it.

use std::time::Duration;

use client::{Account, Call, Client, Contracts, Network, Wallet};
use cosmwasm_std::{
    coins, to_json_binary, AnyMsg, BankMsg, Binary, CosmosMsg, Deps, DepsMut, Empty, Env, GrpcQuery, MessageInfo,
    Reply, Response, StdError, StdResult, SubMsg, SubMsgResult, Uint128, WasmMsg,
};
use cw_multi_test::{Contract, ContractWrapper};
use devnet::{Config, Devnet, Running};
use schema::Event;
use serde::{Deserialize, Serialize};

/// Where wasmd puts the first instance of the first code.
pub(crate) const PROBE: &str = "wasm14hj2tavq8fpesdwxxcu44rty3hh90vhujrvcmstl4zr3txmfvw9s0phg4d";

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Do {
    /// Counts and announces `withdrawn` with this amount.
    Announce { amount: u64 },
    /// Counts; refused when the count is not the given one.
    Expect { count: u64 },
    /// Writes, then refuses.
    Refuse {},
    /// Writes, then panics.
    Panic {},
    /// Does it through a message to itself, with a reply.
    Nested { inner: Box<Do> },
    /// Sends gas coin it was given.
    Pay { to: String, amount: u64 },
    /// Adds two numbers that do not fit.
    Overflow {},
    /// Calls itself without end.
    Forever {},
    /// Asks itself, so many times inside each other.
    AskItself { depth: u32 },
    /// Sends a message that this chain does not have.
    Unsupported { what: Unsupported },
    /// Does it through a message to itself and, if it fails, writes down what it was told.
    Catch { inner: Box<Do>, funds: u64 },
    /// Destroys gas coin.
    Burn { amount: u64 },
    /// Writes a value of so many bytes.
    Store { bytes: u32 },
    /// Writes down where in its block it runs.
    Place {},
    /// Announces an event without attributes and one with an empty value.
    Odd {},
}

/// Messages and queries of modules that this chain does not have.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Unsupported {
    /// A message of another module, as protobuf: governance here.
    Any,
    /// A query, in the middle of a message.
    Query,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Ask {
    Count {},
    Panic {},
    /// Asks itself, so many times inside each other.
    Itself {
        depth: u32,
    },
    /// What it wrote down.
    Note {},
    Unsupported {},
}

fn count(deps: Deps) -> u64 {
    let stored = deps.storage.get(b"count").unwrap_or_else(|| vec![0; 8]);
    u64::from_be_bytes(stored.try_into().unwrap())
}

fn instantiate(deps: DepsMut, _: Env, _: MessageInfo, _: Empty) -> StdResult<Response> {
    let version = br#"{"contract":"probe","version":"1.2.3"}"#;
    deps.storage.set(b"contract_info", version);
    Ok(Response::new())
}

fn execute(deps: DepsMut, env: Env, info: MessageInfo, msg: Do) -> StdResult<Response> {
    let before = count(deps.as_ref());
    deps.storage.set(b"count", &(before + 1).to_be_bytes());
    match msg {
        Do::Announce { amount } => {
            let event = Event::Withdrawn {
                account: info.sender.into(),
                amount: Uint128::from(amount),
            };
            Ok(Response::new().add_attribute("did", "announce").add_event(event))
        }
        Do::Expect { count } if count == before => Ok(Response::new()),
        Do::Expect { count } => Err(StdError::generic_err(format!("count is {before}, not {count}"))),
        Do::Refuse {} => Err(StdError::generic_err("the probe refuses")),
        Do::Panic {} => panic!("the probe panics"),
        Do::Nested { inner } => {
            let call = WasmMsg::Execute {
                contract_addr: env.contract.address.into(),
                msg: to_json_binary(&inner)?,
                funds: vec![],
            };
            Ok(Response::new().add_submessage(SubMsg::reply_on_success(call, 1)))
        }
        Do::Overflow {} => {
            let most = std::hint::black_box(u64::MAX);
            Ok(Response::new().add_attribute("sum", (most + before + 1).to_string()))
        }
        Do::Forever {} => Ok(Response::new().add_message(itself(&env, &Do::Forever {}, 0)?)),
        Do::AskItself { depth } => {
            let asked: u64 = deps
                .querier
                .query_wasm_smart(env.contract.address, &Ask::Itself { depth })?;
            Ok(Response::new().add_attribute("asked", asked.to_string()))
        }
        Do::Unsupported { what } => unsupported(deps, what),
        Do::Catch { inner, funds } => {
            let call = itself(&env, &inner, funds)?;
            Ok(Response::new().add_submessage(SubMsg::reply_always(call, 2)))
        }
        Do::Burn { amount } => Ok(Response::new().add_message(BankMsg::Burn {
            amount: coins(amount.into(), "ustake"),
        })),
        Do::Store { bytes } => {
            deps.storage.set(b"blob", &vec![7; bytes as usize]);
            Ok(Response::new())
        }
        Do::Place {} => {
            let place = env.transaction.map(|transaction| transaction.index);
            deps.storage.set(b"note", format!("{place:?}").as_bytes());
            Ok(Response::new())
        }
        Do::Odd {} => Ok(Response::new()
            .add_event(cosmwasm_std::Event::new("bare"))
            .add_event(cosmwasm_std::Event::new("empty").add_attribute("key", ""))),
        Do::Pay { to, amount } => Ok(Response::new().add_message(BankMsg::Send {
            to_address: to,
            amount: coins(amount.into(), "ustake"),
        })),
    }
}

fn itself(env: &Env, msg: &Do, funds: u64) -> StdResult<WasmMsg> {
    Ok(WasmMsg::Execute {
        contract_addr: env.contract.address.to_string(),
        msg: to_json_binary(msg)?,
        funds: if funds == 0 {
            vec![]
        } else {
            coins(funds.into(), "ustake")
        },
    })
}

fn unsupported(deps: DepsMut, what: Unsupported) -> StdResult<Response> {
    let message: CosmosMsg = match what {
        Unsupported::Any => CosmosMsg::Any(AnyMsg {
            type_url: "/cosmos.gov.v1.MsgVote".into(),
            value: Binary::default(),
        }),
        Unsupported::Query => {
            grpc(deps.as_ref())?;
            return Ok(Response::new());
        }
    };
    Ok(Response::new().add_message(message))
}

fn grpc(deps: Deps) -> StdResult<Binary> {
    let query = GrpcQuery {
        path: "/cosmos.gov.v1.Query/Proposal".into(),
        data: Binary::default(),
    };
    deps.querier.query_grpc(query.path, query.data)
}

fn reply(deps: DepsMut, _: Env, reply: Reply) -> StdResult<Response> {
    if reply.id == 2 {
        let note = match reply.result {
            SubMsgResult::Ok(_) => "it went well".to_owned(),
            SubMsgResult::Err(text) => text,
        };
        deps.storage.set(b"note", note.as_bytes());
    }
    Ok(Response::new())
}

fn query(deps: Deps, env: Env, msg: Ask) -> StdResult<Binary> {
    match msg {
        Ask::Itself { depth: 0 } => to_json_binary(&0u64),
        Ask::Itself { depth } => {
            let ask = Ask::Itself { depth: depth - 1 };
            let below: u64 = deps.querier.query_wasm_smart(env.contract.address, &ask)?;
            to_json_binary(&(below + 1))
        }
        Ask::Note {} => {
            let note = deps.storage.get(b"note").unwrap_or_default();
            to_json_binary(&String::from_utf8(note).unwrap())
        }
        Ask::Unsupported {} => grpc(deps),
        Ask::Count {} => to_json_binary(&count(deps)),
        Ask::Panic {} => panic!("the probe panics when asked"),
    }
}

fn code() -> Box<dyn Contract<Empty>> {
    Box::new(ContractWrapper::new(execute, instantiate, query).with_reply(reply))
}

pub(crate) struct Chain {
    pub(crate) running: Running,
    pub(crate) client: Client,
}

/// A devnet with fast blocks and the probe.
pub(crate) async fn start() -> Chain {
    start_with(Duration::from_millis(40)).await
}

pub(crate) async fn start_with(block_time: Duration) -> Chain {
    let config = Config {
        block_time,
        ..Config::default()
    };
    start_as(config).await
}

/// The configuration on a port of its own, with the probe's code.
pub(crate) fn with_probe(config: Config) -> Config {
    Config {
        rpc: ([127, 0, 0, 1], 0).into(),
        codes: vec![code],
        ..config
    }
}

/// A devnet with the probe's code, and whatever its state folder holds.
pub(crate) async fn resume_as(config: Config) -> Result<Chain, devnet::DevnetError> {
    let running = Devnet::start(with_probe(config)).await?;
    let client = Client::connect(network(&running.rpc_url())).await.unwrap();
    Ok(Chain { running, client })
}

/// A devnet of this configuration on a port of its own, with the probe.
pub(crate) async fn start_as(config: Config) -> Chain {
    let chain = resume_as(config).await.unwrap();
    let made = chain.account("admin").execute(&[instantiation()]).await.unwrap();
    assert_eq!(made.attribute("instantiate", "_contract_address"), Some(PROBE));
    chain
}

pub(crate) fn instantiation() -> Call {
    Call::Instantiate {
        code_id: 1,
        msg: b"{}".to_vec(),
        label: "probe".into(),
        admin: None,
    }
}

pub(crate) fn network(rpc: &str) -> Network {
    let probe = || PROBE.to_owned();
    Network {
        chain_id: "fxn-devnet-1".into(),
        rpc: rpc.into(),
        further_rpc: vec![],
        denom: "ustake".into(),
        gas_price: "0.025".parse().unwrap(),
        bech32_prefix: "wasm".into(),
        contracts: Contracts {
            func_token: probe(),
            model_registry: probe(),
            provider_staking: probe(),
            royalty_escrow: probe(),
            job_orchestrator: probe(),
            randomness_beacon: None,
            audit_court: None,
        },
        beacon: None,
    }
}

impl Chain {
    /// A development account on its own connection state.
    pub(crate) fn account(&self, name: &str) -> Account {
        Account::new(self.client.clone(), Wallet::dev(name))
    }

    pub(crate) async fn count(&self) -> u64 {
        self.client.query(PROBE, &Ask::Count {}).await.unwrap()
    }

    pub(crate) fn url(&self) -> String {
        self.running.rpc_url()
    }

    pub(crate) async fn note(&self) -> String {
        self.client.query(PROBE, &Ask::Note {}).await.unwrap()
    }

    pub(crate) async fn gas_coin(&self, address: &str) -> u128 {
        self.client.balance(address, "ustake").await.unwrap()
    }

    pub(crate) async fn sequence(&self, address: &str) -> u64 {
        self.client.account(address).await.unwrap().sequence
    }
}

pub(crate) fn call(msg: Do) -> Call {
    Call::execute(PROBE, &msg).unwrap()
}

pub(crate) fn announce(amount: u64) -> Call {
    call(Do::Announce { amount })
}
