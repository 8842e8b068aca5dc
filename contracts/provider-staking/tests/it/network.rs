//! The network of the stories: who there is, and the verbs that they tell their stories with.

use cosmwasm_std::{from_json, to_json_binary, Addr, Binary, Decimal, Empty, Response, StdError, Uint128};
use cw20::{BalanceResponse, Cw20Coin, Cw20ExecuteMsg, Cw20QueryMsg, Cw20ReceiveMsg, TokenInfoResponse};
use cw_multi_test::{App, AppResponse, ContractWrapper, Executor};
use provider_staking::{contract, ContractError};
use schema::{
    escrow,
    params::{ConductParams, RegistryParams, StakingParams},
    price::{Ask, RoyaltyRate, Units},
    registry::{self, Metadata, NewVersion, Share, StageInfo, Task},
    staking::*,
    Digest, Event, ItemId, PublicKey, TOTAL_SUPPLY,
};
use serde::de::DeserializeOwned;

pub(crate) const SLOT_BOND: u128 = 1_000;
pub(crate) const LISTING_FEE: u128 = 7;
pub(crate) const UNBONDING: u64 = 100;
pub(crate) const MISS_MIN: u128 = 50;
/// 1.5 x the slot bond, which is more than the audit unit.
pub(crate) const RESERVE: u128 = 1_500;
pub(crate) const AUDIT_WINDOW: u64 = 50;
pub(crate) const FAULT_WINDOW: u64 = 30;
pub(crate) const JAIL: u64 = 40;
/// What everybody starts with.
pub(crate) const PURSE: u128 = 1_000_000;
pub(crate) const PEOPLE: [&str; 3] = ["ann", "bob", "cat"];

pub(crate) struct Network {
    pub(crate) app: App,
    pub(crate) func: Addr,
    pub(crate) registry: Addr,
    pub(crate) staking: Addr,
    pub(crate) escrow: Addr,
}

pub(crate) type Outcome = Result<AppResponse, ContractError>;

#[derive(Debug, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
enum StubMsg {
    Receive(Cw20ReceiveMsg),
}

/// Takes penalties as the escrow does, and nothing else.
fn escrow_stub() -> ContractWrapper<StubMsg, Empty, Empty, StdError, StdError, StdError> {
    ContractWrapper::new(
        |_, _, _, StubMsg::Receive(hook): StubMsg| match from_json(&hook.msg)? {
            escrow::ReceiveMsg::Penalty { beneficiary, item, .. } => Ok(Response::new()
                .add_attribute("beneficiary", beneficiary)
                .add_attribute("item", item.to_string())
                .add_attribute("paid", hook.amount)),
            escrow::ReceiveMsg::Deposit { .. } => Err(StdError::generic_err("staking deposits nothing")),
        },
        |_, _, _, _: Empty| Ok(Response::new()),
        |_, _, _: Empty| Ok(Binary::default()),
    )
}

impl Network {
    /// Everything instantiated, nothing wired, nobody registered. Adam is the admin; `demo/base` has version 1 with three stages.
    pub(crate) fn unwired() -> Self {
        let mut app = App::default();
        let adam = app.api().addr_make("adam");
        let func = instantiate_token(&mut app);
        let registry = instantiate_registry(&mut app, &func);
        let escrow_code = app.store_code(Box::new(escrow_stub()));
        let escrow = app
            .instantiate_contract(escrow_code, adam.clone(), &Empty {}, &[], "escrow", None)
            .unwrap();
        let code = app.store_code(Box::new(ContractWrapper::new(
            contract::execute,
            contract::instantiate,
            contract::query,
        )));
        let msg = InstantiateMsg {
            admin: adam.to_string(),
            func_token: func.to_string(),
            model_registry: registry.to_string(),
            params: params(),
        };
        let staking = app
            .instantiate_contract(code, adam, &msg, &[], "staking", None)
            .unwrap();
        Self {
            app,
            func,
            registry,
            staking,
            escrow,
        }
    }

    pub(crate) fn new() -> Self {
        let mut network = Self::unwired();
        let wire = network.wire();
        network.execute("adam", &wire).unwrap();
        network
    }

    /// Ann is a provider with `bond` and the reserve.
    pub(crate) fn with_ann(bond: u128) -> Self {
        let mut network = Self::new();
        network.joins("ann", bond);
        network
    }

    pub(crate) fn wire(&self) -> ExecuteMsg {
        ExecuteMsg::Wire {
            royalty_escrow: self.escrow.to_string(),
            job_orchestrator: self.who("orchestrator").into(),
        }
    }

    pub(crate) fn who(&self, name: &str) -> Addr {
        self.app.api().addr_make(name)
    }

    pub(crate) fn execute(&mut self, sender: &str, msg: &ExecuteMsg) -> Outcome {
        let sender = self.who(sender);
        let result = self.app.execute_contract(sender, self.staking.clone(), msg, &[]);
        result.map_err(|error| error.downcast().unwrap())
    }

    pub(crate) fn refusal(&mut self, sender: &str, msg: &ExecuteMsg) -> ContractError {
        self.execute(sender, msg).unwrap_err()
    }

    pub(crate) fn send(&mut self, sender: &str, amount: u128, hook: &ReceiveMsg) -> Outcome {
        let send = Cw20ExecuteMsg::Send {
            contract: self.staking.to_string(),
            amount: amount.into(),
            msg: to_json_binary(hook).unwrap(),
        };
        let sender = self.who(sender);
        let result = self.app.execute_contract(sender, self.func.clone(), &send, &[]);
        result.map_err(|error| match error.downcast() {
            Ok(refused) => refused,
            Err(other) => panic!("the token refused: {other}"),
        })
    }

    /// Bonds as much, and the reserve.
    pub(crate) fn joins(&mut self, name: &str, bond: u128) {
        self.execute(name, &ExecuteMsg::RegisterProvider { profile: profile(name) })
            .unwrap();
        if bond > 0 {
            self.bonds(name, bond + RESERVE).unwrap();
        }
    }

    pub(crate) fn bonds(&mut self, name: &str, amount: u128) -> Outcome {
        self.send(name, amount, &ReceiveMsg::Bond {})
    }

    pub(crate) fn unbonds(&mut self, name: &str, amount: u128) -> Outcome {
        self.execute(name, &ExecuteMsg::Unbond { amount: amount.into() })
    }

    pub(crate) fn withdraws(&mut self, name: &str) -> Outcome {
        self.execute(name, &ExecuteMsg::Withdraw {})
    }

    pub(crate) fn deploys(&mut self, name: &str, terms: DeploymentTerms) -> Outcome {
        self.send(name, LISTING_FEE, &ReceiveMsg::Deploy { terms })
    }

    pub(crate) fn occupies(&mut self, deployments: &[u64]) -> Outcome {
        let deployments = deployments.to_vec();
        let items = vec![Occupation {
            item: item(),
            deployments,
        }];
        self.execute("orchestrator", &ExecuteMsg::Occupy { items })
    }

    pub(crate) fn vacates(&mut self, deployments: &[u64], culprit: Option<(u64, u128)>) -> Outcome {
        let beneficiary = self.who("dev").into();
        let ended = culprit.map_or(Ended::Unpaid {}, |(deployment, price)| {
            Ended::Missed(Penalty {
                deployment,
                price: price.into(),
                beneficiary,
                keeper: None,
            })
        });
        self.ends(deployments, ended)
    }

    pub(crate) fn ends(&mut self, deployments: &[u64], ended: Ended) -> Outcome {
        let items = vec![Vacancy {
            item: item(),
            deployments: deployments.to_vec(),
            ended,
        }];
        self.execute("orchestrator", &ExecuteMsg::Vacate { items })
    }

    pub(crate) fn reserves(&mut self, deployments: &[u64]) -> Outcome {
        let deployments = deployments.to_vec();
        self.by_escrow(&ExecuteMsg::Reserve {
            session: 1,
            deployments,
        })
    }

    pub(crate) fn frees(&mut self, deployments: &[u64]) -> Outcome {
        let deployments = deployments.to_vec();
        self.by_escrow(&ExecuteMsg::Free {
            session: 1,
            deployments,
        })
    }

    pub(crate) fn by_escrow(&mut self, msg: &ExecuteMsg) -> Outcome {
        let (escrow, staking) = (self.escrow.clone(), self.staking.clone());
        let result = self.app.execute_contract(escrow, staking, msg, &[]);
        result.map_err(|error| error.downcast().unwrap())
    }

    pub(crate) fn passes(&mut self, seconds: u64) {
        self.app.update_block(|block| {
            block.time = block.time.plus_seconds(seconds);
            block.height += 1;
        });
    }

    pub(crate) fn now(&self) -> u64 {
        self.app.block_info().time.seconds()
    }

    pub(crate) fn query<T: DeserializeOwned>(&self, msg: &QueryMsg) -> T {
        self.app.wrap().query_wasm_smart(&self.staking, msg).unwrap()
    }

    pub(crate) fn query_refusal(&self, msg: &QueryMsg) -> String {
        let answer = self
            .app
            .wrap()
            .query_wasm_smart::<serde_json::Value>(&self.staking, msg);
        answer.unwrap_err().to_string()
    }

    pub(crate) fn provider(&self, name: &str) -> ProviderResponse {
        let provider = self.who(name).into();
        self.query(&QueryMsg::Provider { provider })
    }

    pub(crate) fn deployment(&self, deployment: u64) -> DeploymentResponse {
        self.query(&QueryMsg::Deployment { deployment })
    }

    /// What one item with one replica over all stages would be given.
    pub(crate) fn draw(&self, seed: u8) -> Option<Chain> {
        let request = draw_request(seed);
        let drawn: DrawResponse = self.query(&QueryMsg::Draw { request });
        drawn.chains.map(|mut chains| chains.remove(0))
    }

    fn balance_of(&self, address: &Addr) -> u128 {
        let address = address.to_string();
        let balance: BalanceResponse = self
            .app
            .wrap()
            .query_wasm_smart(&self.func, &Cw20QueryMsg::Balance { address })
            .unwrap();
        balance.balance.u128()
    }

    pub(crate) fn balance(&self, name: &str) -> u128 {
        self.balance_of(&self.who(name))
    }

    pub(crate) fn escrow_balance(&self) -> u128 {
        self.balance_of(&self.escrow)
    }

    pub(crate) fn supply(&self) -> u128 {
        let info: TokenInfoResponse = self
            .app
            .wrap()
            .query_wasm_smart(&self.func, &Cw20QueryMsg::TokenInfo {})
            .unwrap();
        info.total_supply.u128()
    }

    /// Statement: the contract's FUNC is exactly what it owes to providers.
    pub(crate) fn check_money(&self) {
        let totals: TotalsResponse = self.query(&QueryMsg::Totals {});
        assert_eq!(
            self.balance_of(&self.staking),
            (totals.bonded + totals.unbonding).u128()
        );
        let all: ProvidersResponse = self.query(&QueryMsg::Providers {
            start_after: None,
            limit: Some(30),
        });
        let bonded: Uint128 = all.providers.iter().map(|provider| provider.bond).sum();
        let entries = all.providers.iter().flat_map(|provider| &provider.unbonding);
        let unbonding: Uint128 = entries.map(|entry| entry.amount).sum();
        assert_eq!((totals.bonded, totals.unbonding), (bonded, unbonding));
    }
}

fn instantiate_token(app: &mut App) -> Addr {
    let code = app.store_code(Box::new(ContractWrapper::new(
        func_token::contract::execute,
        func_token::contract::instantiate,
        func_token::contract::query,
    )));
    let coin = |name: &str, amount: u128| Cw20Coin {
        address: app.api().addr_make(name).into(),
        amount: amount.into(),
    };
    let mut initial_balances: Vec<_> = PEOPLE.iter().map(|name| coin(name, PURSE)).collect();
    initial_balances.push(coin("bank", TOTAL_SUPPLY - PURSE * PEOPLE.len() as u128));
    let msg = schema::token::InstantiateMsg {
        initial_balances,
        marketing: None,
    };
    let adam = app.api().addr_make("adam");
    app.instantiate_contract(code, adam, &msg, &[], "func", None).unwrap()
}

/// Claims `demo` for the bank, and publishes version 1 of `demo/base`.
fn instantiate_registry(app: &mut App, func: &Addr) -> Addr {
    let code = app.store_code(Box::new(ContractWrapper::new(
        model_registry::contract::execute,
        model_registry::contract::instantiate,
        model_registry::contract::query,
    )));
    let (adam, bank) = (app.api().addr_make("adam"), app.api().addr_make("bank"));
    let msg = registry::InstantiateMsg {
        admin: adam.to_string(),
        func_token: func.to_string(),
        params: RegistryParams {
            namespace_fee: 0u128.into(),
            migration_notice_seconds: 100 * UNBONDING,
        },
    };
    let registry = app
        .instantiate_contract(code, adam, &msg, &[], "registry", None)
        .unwrap();
    let hook = registry::ReceiveMsg::ClaimNamespace {
        namespace: "demo".parse().unwrap(),
    };
    let claim = Cw20ExecuteMsg::Send {
        contract: registry.to_string(),
        amount: Uint128::zero(),
        msg: to_json_binary(&hook).unwrap(),
    };
    app.execute_contract(bank.clone(), func.clone(), &claim, &[]).unwrap();
    let publish = registry::ExecuteMsg::PublishModel {
        model: "demo/base".parse().unwrap(),
        metadata: Metadata {
            title: "Base".into(),
            description: String::new(),
            task: Task::Embeddings,
            licence: "MIT".into(),
            tags: vec![],
            homepage: None,
            card: None,
        },
        payout: vec![Share {
            address: bank.to_string(),
            bps: 10_000,
        }],
        parents: vec![],
    };
    app.execute_contract(bank.clone(), registry.clone(), &publish, &[])
        .unwrap();
    app.execute_contract(bank, registry.clone(), &publish_version(), &[])
        .unwrap();
    registry
}

pub(crate) fn publish_version() -> registry::ExecuteMsg {
    let stage = |compute_share_bps| StageInfo {
        digest: Digest([0; 32]),
        weight_bytes: 1,
        compute_share_bps,
    };
    registry::ExecuteMsg::PublishVersion {
        model: "demo/base".parse().unwrap(),
        version: NewVersion {
            manifest: Digest([1; 32]),
            manifest_uris: vec![],
            stages: vec![stage(2_000), stage(3_000), stage(5_000)],
            tolerance: Decimal::permille(1),
            units_per_request_max: 256,
        },
    }
}

pub(crate) fn conduct() -> ConductParams {
    ConductParams {
        audit_unit: 700u128.into(),
        audit_window_seconds: AUDIT_WINDOW,
        strike_window_seconds: 60,
        jail_strikes: 3,
        jail_seconds: JAIL,
        fault_window_seconds: FAULT_WINDOW,
    }
}

pub(crate) fn params() -> StakingParams {
    StakingParams {
        bond_per_slot: SLOT_BOND.into(),
        listing_fee: LISTING_FEE.into(),
        unbonding_seconds: UNBONDING,
        miss_min: MISS_MIN.into(),
        penalty_bps_min: 1_000,
        sla_seconds_max: 600,
        reservation_per_hour_min: 40u128.into(),
        conduct: conduct(),
        migration_notice_seconds: 100 * UNBONDING,
    }
}

pub(crate) fn profile(name: &str) -> Profile {
    Profile {
        name: name.to_owned(),
        endpoint: format!("http://{name}.example:7000"),
        host_key: PublicKey([2; 33]),
        operator: None,
        hardware: "2 cores".into(),
    }
}

/// `slots` slots for these stages at 100 ufunc a row, with 25 % of the price for a miss.
pub(crate) fn terms(first: u8, last: u8, slots: u16) -> DeploymentTerms {
    DeploymentTerms {
        model: "demo/base".parse().unwrap(),
        version: 1,
        first,
        last,
        engine_class: "cpu".into(),
        ask: Ask {
            per_1k_in: 0u128.into(),
            per_1k_out: 0u128.into(),
            per_request: 100u128.into(),
        },
        reservation_per_hour: 40u128.into(),
        slots,
        sla: Sla {
            base_seconds: 2,
            seconds_per_1k_units: 10,
            units_max: 10_000,
            penalty_bps: 2_500,
        },
    }
}

pub(crate) fn item() -> ItemId {
    ItemId {
        job: 1,
        shard: 0,
        replica: 0,
    }
}

pub(crate) fn draw_request(seed: u8) -> DrawRequest {
    DrawRequest {
        model: "demo/base".parse().unwrap(),
        version: 1,
        engine_class: None,
        compute_shares: vec![2_000, 3_000, 5_000],
        royalty: RoyaltyRate {
            royalty_bps: 1_000,
            royalty_per_1k_units: 0u128.into(),
        },
        gateway_bps: 0,
        seed: Digest([seed; 32]),
        item_price_max: SLOT_BOND.into(),
        seconds_max: None,
        shards: vec![DrawShard {
            units: Units {
                requests: 1,
                units_in: 10,
                units_out: 0,
            },
            replicas: 1,
            ..DrawShard::default()
        }],
    }
}

pub(crate) fn events(response: &AppResponse) -> Vec<Event> {
    let decoded = response.events.iter().map(|event| Event::from_wasm(event).unwrap());
    decoded.flatten().collect()
}
