//! A small contract that announces, refuses, panics and calls itself, and a devnet that runs it.

use std::time::Duration;

use client::{Account, Call, Client, Contracts, Network, Wallet};
use cosmwasm_std::{
    coins, to_json_binary, BankMsg, Binary, Deps, DepsMut, Empty, Env, MessageInfo, Reply, Response, StdError,
    StdResult, SubMsg, Uint128, WasmMsg,
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
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Ask {
    Count {},
    Panic {},
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
        Do::Pay { to, amount } => Ok(Response::new().add_message(BankMsg::Send {
            to_address: to,
            amount: coins(amount.into(), "ustake"),
        })),
    }
}

fn reply(_: DepsMut, _: Env, _: Reply) -> StdResult<Response> {
    Ok(Response::new())
}

fn query(deps: Deps, _: Env, msg: Ask) -> StdResult<Binary> {
    match msg {
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

/// A devnet of this configuration on a port of its own, with the probe.
pub(crate) async fn start_as(config: Config) -> Chain {
    let config = Config {
        rpc: ([127, 0, 0, 1], 0).into(),
        codes: vec![code],
        ..config
    };
    let running = Devnet::start(config).await.unwrap();
    let client = Client::connect(network(&running.rpc_url())).await.unwrap();
    let chain = Chain { running, client };
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
