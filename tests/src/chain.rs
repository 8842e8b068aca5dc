//! The simulated chain with the contracts on it.

use std::{
    collections::BTreeMap,
    fmt::{Debug, Display},
};

use cosmwasm_std::{to_json_binary, Addr, BlockInfo, Empty, Timestamp, Uint128, WasmMsg, WasmQuery};
use cw20::{BalanceResponse, Cw20Coin, Cw20ExecuteMsg, Cw20QueryMsg, TokenInfoResponse};
use cw_multi_test::{App, AppBuilder, AppResponse, BankKeeper, Contract, Executor, MockApiBech32};
use schema::{
    escrow, orchestrator,
    params::{ConductParams, Params},
    randomness,
    receipt::Domain,
    registry, staking, token, Event, TOTAL_SUPPLY,
};
use serde::{de::DeserializeOwned, Serialize};

use crate::code;

/// Ufunc of one FUNC.
pub const FUNC: u128 = schema::UFUNC;
const CHAIN_ID: &str = "fxn-test-1";
pub(crate) const GENESIS_SECONDS: u64 = 1_800_000_000;

/// What a message led to: all events of ours in order, or why it was refused.
pub type Outcome = anyhow::Result<Vec<Event>>;

pub(crate) type Chain = App<BankKeeper, MockApiBech32>;

macro_rules! contract {
    ($name:ident) => {
        cw_multi_test::ContractWrapper::new(
            $name::contract::execute,
            $name::contract::instantiate,
            $name::contract::query,
        )
    };
}
pub(crate) use contract;

/// Where everything is.
#[derive(Debug, Clone)]
pub struct Contracts {
    pub func_token: Addr,
    pub model_registry: Addr,
    pub provider_staking: Addr,
    pub royalty_escrow: Addr,
    pub job_orchestrator: Addr,
    /// Only on a network that has one.
    pub randomness_beacon: Option<Addr>,
}

impl Contracts {
    /// The five that every network has.
    pub fn all(&self) -> [Addr; 5] {
        let Self {
            func_token,
            model_registry,
            provider_staking,
            royalty_escrow,
            job_orchestrator,
            ..
        } = self.clone();
        [
            royalty_escrow,
            provider_staking,
            model_registry,
            job_orchestrator,
            func_token,
        ]
    }
}

/// A network of its own.
pub struct Protocol {
    app: Chain,
    pub contracts: Contracts,
    pub params: Params,
    /// Code of a newer version, by the contract that could have it.
    pub next_codes: BTreeMap<Addr, u64>,
}

impl Debug for Protocol {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Protocol")
            .field("contracts", &self.contracts)
            .finish_non_exhaustive()
    }
}

impl Default for Protocol {
    fn default() -> Self {
        Self::new()
    }
}

/// The checked-in profile for devnet and tests.
pub(crate) fn local_params() -> Params {
    let params: Params =
        toml::from_str(include_str!("../../params/local.toml")).expect("the checked-in profile is valid");
    // Most stories have no beacon: what they tell does not depend on it.
    Params { beacon: None, ..params }
}

impl Protocol {
    /// The contracts with local parameters, wired, and all FUNC at the `faucet`.
    pub fn new() -> Self {
        Self::with_params(local_params())
    }

    /// The same with other consequences of misses and settled work.
    pub fn with_conduct(change: impl FnOnce(&mut ConductParams)) -> Self {
        let mut params = local_params();
        change(&mut params.staking.conduct);
        Self::with_params(params)
    }

    /// The same with parameters of its own.
    pub(crate) fn with_params(params: Params) -> Self {
        let mut app = AppBuilder::new()
            .with_api(MockApiBech32::new("wasm"))
            .with_block(BlockInfo {
                height: 1,
                time: Timestamp::from_seconds(GENESIS_SECONDS),
                chain_id: CHAIN_ID.to_owned(),
            })
            .build(|_, _, _| {});
        let contracts = deploy(&mut app, &params);
        let next_codes = code::store_next(&mut app, &contracts);
        let mut protocol = Self {
            app,
            contracts,
            params,
            next_codes,
        };
        protocol.wire();
        protocol
    }

    fn wire(&mut self) {
        let admin = self.addr("admin");
        let contracts = self.contracts.clone();
        let escrow = contracts.royalty_escrow.to_string();
        let orchestrator = contracts.job_orchestrator.to_string();
        let staking = contracts.provider_staking.to_string();
        let wire = registry::ExecuteMsg::Wire {
            royalty_escrow: escrow.clone(),
        };
        self.execute(&admin, &contracts.model_registry, &wire)
            .expect("the registry is wired once");
        let wire = staking::ExecuteMsg::Wire {
            royalty_escrow: escrow,
            job_orchestrator: orchestrator.clone(),
        };
        self.execute(&admin, &contracts.provider_staking, &wire)
            .expect("staking is wired once");
        let wire = escrow::ExecuteMsg::Wire {
            job_orchestrator: orchestrator,
            provider_staking: staking,
        };
        self.execute(&admin, &contracts.royalty_escrow, &wire)
            .expect("the escrow is wired once");
    }

    /// The account of somebody.
    pub fn addr(&self, name: &str) -> Addr {
        self.app.api().addr_make(name)
    }

    /// Where hosts' signatures are valid.
    pub fn domain(&self) -> Domain {
        Domain {
            chain_id: CHAIN_ID.to_owned(),
            contract: self.contracts.job_orchestrator.to_string(),
        }
    }

    /// Block time in seconds.
    pub fn now(&self) -> u64 {
        self.app.block_info().time.seconds()
    }

    /// Height of the block.
    pub fn height(&self) -> u64 {
        self.app.block_info().height
    }

    /// A second token with the code of ours, all of which somebody has.
    pub fn starts_another_token(&mut self, name: &str) -> Addr {
        let msg = token::InstantiateMsg {
            initial_balances: vec![Cw20Coin {
                address: self.addr(name).into_string(),
                amount: Uint128::new(TOTAL_SUPPLY),
            }],
            marketing: None,
        };
        start(&mut self.app, contract!(func_token), &msg, None)
    }

    /// Time passes, with a block every second.
    pub fn seconds_pass(&mut self, seconds: u64) {
        self.pass(seconds, seconds);
    }

    /// Time passes in which the chain stands still: the next block is only one higher.
    pub fn halts_for(&mut self, seconds: u64) {
        self.pass(seconds, 1);
    }

    fn pass(&mut self, seconds: u64, blocks: u64) {
        self.app.update_block(|block| {
            block.time = block.time.plus_seconds(seconds);
            block.height = block.height.saturating_add(blocks);
        });
    }

    /// Sends a message; a refused one leaves no trace.
    pub fn execute(&mut self, sender: &Addr, contract: &Addr, msg: &(impl Serialize + Debug)) -> Outcome {
        let response = self.app.execute_contract(sender.clone(), contract.clone(), msg, &[])?;
        Ok(events(&response))
    }

    /// Sends bytes that may be no message at all.
    pub fn execute_bytes(&mut self, sender: &Addr, contract: &Addr, bytes: &[u8]) -> Outcome {
        let msg = WasmMsg::Execute {
            contract_addr: contract.to_string(),
            msg: bytes.into(),
            funds: vec![],
        };
        let response = self.app.execute(sender.clone(), msg.into())?;
        Ok(events(&response))
    }

    /// Asks a contract in bytes that may be no question at all.
    pub fn ask_bytes(&self, contract: &Addr, bytes: &[u8]) -> anyhow::Result<serde_json::Value> {
        let question = WasmQuery::Smart {
            contract_addr: contract.to_string(),
            msg: bytes.into(),
        };
        Ok(self.app.wrap().query(&question.into())?)
    }

    /// Sends FUNC to a contract with a message.
    pub fn send(&mut self, name: &str, contract: &Addr, amount: u128, msg: &impl Serialize) -> Outcome {
        let send = Cw20ExecuteMsg::Send {
            contract: contract.to_string(),
            amount: amount.into(),
            msg: to_json_binary(msg)?,
        };
        let (sender, token) = (self.addr(name), self.contracts.func_token.clone());
        self.execute(&sender, &token, &send)
    }

    /// Gives somebody FUNC out of the faucet.
    pub fn fund(&mut self, name: &str, amount: u128) {
        let transfer = Cw20ExecuteMsg::Transfer {
            recipient: self.addr(name).into_string(),
            amount: amount.into(),
        };
        let (faucet, token) = (self.addr("faucet"), self.contracts.func_token.clone());
        self.execute(&faucet, &token, &transfer)
            .expect("the faucet has enough for every story");
    }

    /// Asks a contract something that it must be able to answer.
    pub fn ask<T: DeserializeOwned>(&self, contract: &Addr, question: &impl Serialize) -> T {
        self.try_ask(contract, question).expect("the contract knows the answer")
    }

    /// Asks a contract something that it may refuse to answer.
    pub fn try_ask<T: DeserializeOwned>(&self, contract: &Addr, question: &impl Serialize) -> anyhow::Result<T> {
        Ok(self.app.wrap().query_wasm_smart(contract, question)?)
    }

    /// FUNC that an account owns outside all contracts of ours.
    pub fn balance(&self, address: &Addr) -> u128 {
        let question = Cw20QueryMsg::Balance {
            address: address.to_string(),
        };
        let answer: BalanceResponse = self.ask(&self.contracts.func_token, &question);
        answer.balance.u128()
    }

    /// All FUNC that has not been burnt.
    pub fn supply(&self) -> u128 {
        let info: TokenInfoResponse = self.ask(&self.contracts.func_token, &Cw20QueryMsg::TokenInfo {});
        info.total_supply.u128()
    }

    pub(crate) fn chain(&self) -> &Chain {
        &self.app
    }

    pub(crate) fn instantiates(&mut self, code: u64, msg: &impl Serialize) -> anyhow::Result<Addr> {
        let deployer = self.addr("deployer");
        self.app.instantiate_contract(code, deployer, msg, &[], "suite", None)
    }

    /// Anything that an account may ask of the chain itself.
    pub fn asks_the_chain(&mut self, sender: &Addr, msg: WasmMsg) -> Outcome {
        let response = self.app.execute(sender.clone(), msg.into())?;
        Ok(events(&response))
    }

    /// Sends a message with native coins, which nothing of ours takes.
    pub fn execute_with_coins(&mut self, sender: &Addr, contract: &Addr, msg: &(impl Serialize + Debug)) -> Outcome {
        let coins = cosmwasm_std::coins(1, "ustake");
        let owner = sender.clone();
        self.app
            .init_modules(|router, _, storage| router.bank.init_balance(storage, &owner, coins.clone()))?;
        let response = self
            .app
            .execute_contract(sender.clone(), contract.clone(), msg, &coins)?;
        Ok(events(&response))
    }
}

/// All events of ours in a response. One that cannot be read is a bug of the contract.
fn events(response: &AppResponse) -> Vec<Event> {
    let decoded = response.events.iter().map(Event::from_wasm);
    decoded
        .filter_map(|event| event.expect("events of ours can be read"))
        .collect()
}

/// Asserts that a message was refused with exactly this error of a contract, however deep below it was raised.
#[track_caller]
pub fn refused<E>(outcome: Outcome, expected: E)
where
    E: Display + Debug + PartialEq + Send + Sync + 'static,
{
    let error = outcome.expect_err("the message is refused");
    assert_eq!(error.downcast_ref::<E>(), Some(&expected), "{error:?}");
}

fn deploy(app: &mut Chain, params: &Params) -> Contracts {
    let name = |app: &Chain, name: &str| app.api().addr_make(name).into_string();
    let (admin, faucet, treasury) = (name(app, "admin"), name(app, "faucet"), name(app, "treasury"));
    let initial_balances = vec![Cw20Coin {
        address: faucet,
        amount: Uint128::new(TOTAL_SUPPLY),
    }];
    let msg = token::InstantiateMsg {
        initial_balances,
        marketing: None,
    };
    let func_token = start(app, contract!(func_token), &msg, None);
    let msg = registry::InstantiateMsg {
        admin: admin.clone(),
        func_token: func_token.to_string(),
        params: params.registry.clone(),
    };
    let code = contract!(model_registry).with_migrate(model_registry::contract::migrate);
    let model_registry = start_own(app, code, &msg);
    let msg = staking::InstantiateMsg {
        admin: admin.clone(),
        func_token: func_token.to_string(),
        model_registry: model_registry.to_string(),
        params: params.staking.clone(),
    };
    let code = contract!(provider_staking).with_migrate(provider_staking::contract::migrate);
    let provider_staking = start_own(app, code, &msg);
    let msg = escrow::InstantiateMsg {
        admin: admin.clone(),
        func_token: func_token.to_string(),
        model_registry: model_registry.to_string(),
        treasury,
        params: params.escrow.clone(),
    };
    let replying = contract!(royalty_escrow).with_reply(royalty_escrow::contract::reply);
    let royalty_escrow = start(app, replying, &msg, None);
    let randomness_beacon = params.beacon.as_ref().map(|beacon| {
        let msg = randomness::InstantiateMsg {
            public_key: beacon.public_key,
            schedule: beacon.schedule(),
            rounds_kept: beacon.rounds_kept,
        };
        start(app, contract!(randomness_beacon), &msg, None)
    });
    let msg = orchestrator::InstantiateMsg {
        admin,
        model_registry: model_registry.to_string(),
        provider_staking: provider_staking.to_string(),
        royalty_escrow: royalty_escrow.to_string(),
        randomness_beacon: randomness_beacon.as_ref().map(ToString::to_string),
        params: params.orchestrator.clone(),
    };
    let replying = contract!(job_orchestrator).with_reply(job_orchestrator::contract::reply);
    let code = replying.with_migrate(job_orchestrator::contract::migrate);
    let job_orchestrator = start_own(app, code, &msg);
    Contracts {
        func_token,
        model_registry,
        provider_staking,
        royalty_escrow,
        job_orchestrator,
        randomness_beacon,
    }
}

fn start(
    app: &mut Chain,
    contract: impl Contract<Empty> + 'static,
    msg: &impl Serialize,
    wasm_admin: Option<String>,
) -> Addr {
    let deployer = app.api().addr_make("deployer");
    let code = app.store_code_with_creator(deployer.clone(), Box::new(contract));
    app.instantiate_contract(code, deployer, msg, &[], "suite", wasm_admin)
        .expect("local parameters are inside all bounds")
}

/// A contract that nobody but itself can migrate.
fn start_own(app: &mut Chain, contract: impl Contract<Empty> + 'static, msg: &impl Serialize) -> Addr {
    let deployer = app.api().addr_make("deployer");
    let address = start(app, contract, msg, Some(deployer.to_string()));
    let own = WasmMsg::UpdateAdmin {
        contract_addr: address.to_string(),
        admin: address.to_string(),
    };
    app.execute(deployer, own.into()).expect("the deployer gives it away");
    address
}
