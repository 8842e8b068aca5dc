//! The contract alone: every message allowed and refused, with stubs of its siblings that answer what it asks.

#![allow(
    clippy::arithmetic_side_effects,
    reason = "expected values are written as plain formulas"
)]

use cosmwasm_std::{
    from_json,
    testing::{message_info, mock_dependencies, mock_env, MockApi, MockQuerier, MockStorage},
    to_json_binary, Addr, Coin, CosmosMsg, Env, Order, OwnedDeps, Response, Storage, SystemResult, Uint128, WasmMsg,
    WasmQuery,
};
use cw20::{Cw20ExecuteMsg, Cw20ReceiveMsg};
use governed::GovernedError;
use schema::{
    escrow::{
        ConfigResponse, Credit, EarningsResponse, ExecuteMsg, Gateway, Holder, InstantiateMsg, LedgerResponse,
        MoneyResponse, QueryMsg, Reason, ReceiveMsg, SettledSpan, Settlement, TotalsResponse, WorkTerms,
    },
    params::EscrowParams,
    price::{Ask, FeeBps, RoyaltyRate, Units},
    registry::{self, Parent, PayoutResponse, Share},
    Event, ItemId, ModelId,
};

use crate::{contract, ContractError};

mod conservation;
mod money;
mod roles;
mod sessions;
mod stubs;
mod vouchers;
mod work;

struct Escrow {
    deps: OwnedDeps<MockStorage, MockApi, MockQuerier>,
    env: Env,
}

type Outcome = Result<Response, ContractError>;

fn addr(name: &str) -> Addr {
    MockApi::default().addr_make(name)
}

fn model(name: &str) -> ModelId {
    format!("demo/{name}").parse().unwrap()
}

fn item(job: u64, shard: u16) -> ItemId {
    ItemId { job, shard, replica: 0 }
}

fn params() -> EscrowParams {
    EscrowParams {
        fees: FeeBps {
            protocol_bps: 200,
            audit_bps: 0,
            burn_bps: 100,
        },
        hold_seconds_max: 3600,
        session_seconds_max: 1_000,
        close_notice_seconds: 50,
        allocation_min: 100u128.into(),
        force_fee: 7u128.into(),
    }
}

/// `child` pays a quarter to `parent` and the rest to alice and bob; `parent` pays carol.
fn payout_of(model: &ModelId) -> PayoutResponse {
    let share = |name, bps| Share {
        address: addr(name).into_string(),
        bps,
    };
    match model.as_str() {
        "demo/child" => PayoutResponse {
            payout: vec![share("alice", 7_000), share("bob", 3_000)],
            parents: vec![Parent {
                model: self::model("parent"),
                bps: 2_500,
            }],
        },
        _ => PayoutResponse {
            payout: vec![share("carol", 10_000)],
            parents: vec![],
        },
    }
}

fn terms() -> WorkTerms {
    WorkTerms {
        model: model("child"),
        royalty: RoyaltyRate {
            royalty_bps: 1_000,
            royalty_per_1k_units: 50u128.into(),
        },
        gateway: Some(Gateway {
            address: addr("gateway").into_string(),
            bps: 500,
        }),
    }
}

fn settlement(job: u64, shard: u16, units_in: u64) -> Settlement {
    let span = |name: &str, deployment, compute_share_bps, per_1k_in: u128| SettledSpan {
        provider: addr(name).into_string(),
        deployment,
        compute_share_bps,
        ask: Ask {
            per_1k_in: per_1k_in.into(),
            per_1k_out: 0u128.into(),
            per_request: 10u128.into(),
        },
    };
    Settlement {
        item: item(job, shard),
        units: Units {
            requests: 2,
            units_in,
            units_out: 0,
        },
        spans: vec![span("paula", 1, 6_000, 1_000), span("peter", 2, 4_000, 3_000)],
    }
}

impl Escrow {
    fn bare() -> Self {
        let mut deps = mock_dependencies();
        deps.querier.update_wasm(|query| match query {
            WasmQuery::Smart { contract_addr, msg } if *contract_addr == addr("registry").into_string() => {
                SystemResult::Ok(stubs::registry(&from_json(msg).unwrap()).into())
            }
            WasmQuery::Smart { contract_addr, msg } if *contract_addr == addr("staking").into_string() => {
                SystemResult::Ok(stubs::staking(from_json(msg).unwrap()).into())
            }
            other => panic!("unexpected query {other:?}"),
        });
        Self { deps, env: mock_env() }
    }

    fn instantiate(&mut self, params: EscrowParams) -> Outcome {
        let msg = InstantiateMsg {
            admin: addr("admin").into_string(),
            func_token: addr("func").into_string(),
            model_registry: addr("registry").into_string(),
            treasury: addr("treasury").into_string(),
            params,
        };
        contract::instantiate(
            self.deps.as_mut(),
            self.env.clone(),
            message_info(&addr("anyone"), &[]),
            msg,
        )
    }

    fn new() -> Self {
        let mut escrow = Self::bare();
        escrow.instantiate(params()).unwrap();
        escrow.by("admin", wire()).unwrap();
        escrow
    }

    /// As a chain does it: what a failed message has written is undone.
    fn by(&mut self, sender: &str, msg: ExecuteMsg) -> Outcome {
        let before = self
            .deps
            .storage
            .range(None, None, Order::Ascending)
            .collect::<Vec<_>>();
        let outcome = contract::execute(
            self.deps.as_mut(),
            self.env.clone(),
            message_info(&addr(sender), &[]),
            msg,
        );
        if outcome.is_err() {
            self.deps.storage = MockStorage::default();
            for (key, value) in before {
                self.deps.storage.set(&key, &value);
            }
        }
        outcome
    }

    fn send_from(&mut self, token: &str, sender: &str, amount: u128, msg: &ReceiveMsg) -> Outcome {
        let receive = Cw20ReceiveMsg {
            sender: addr(sender).into_string(),
            amount: amount.into(),
            msg: to_json_binary(msg).unwrap(),
        };
        self.by(token, ExecuteMsg::Receive(receive))
    }

    fn deposit(&mut self, name: &str, amount: u128) {
        self.send_from("func", name, amount, &ReceiveMsg::Deposit { beneficiary: None })
            .unwrap();
    }

    fn hold(&mut self, job: u64, amount: u128) -> Outcome {
        let expires_at = self.now() + 100;
        self.by("orchestrator", hold_of("dave", job, amount, terms(), expires_at))
    }

    fn settle(&mut self, settlements: Vec<Settlement>) -> Outcome {
        self.by("orchestrator", ExecuteMsg::Settle { settlements })
    }

    fn now(&self) -> u64 {
        self.env.block.time.seconds()
    }

    fn seconds_pass(&mut self, seconds: u64) {
        self.env.block.time = self.env.block.time.plus_seconds(seconds);
    }

    fn ask<T: serde::de::DeserializeOwned>(&self, msg: QueryMsg) -> T {
        from_json(contract::query(self.deps.as_ref(), self.env.clone(), msg).unwrap()).unwrap()
    }

    fn money(&self, holder: &str) -> (u128, u128) {
        let money: MoneyResponse = self.ask(QueryMsg::Money {
            holder: holder.to_owned(),
            start_after: None,
            sessions_after: None,
            limit: None,
        });
        (money.available.u128(), money.held.u128())
    }

    fn money_of(&self, name: &str) -> (u128, u128) {
        self.money(addr(name).as_str())
    }

    fn sums(&self) -> (u128, u128) {
        let totals: TotalsResponse = self.ask(QueryMsg::Totals {});
        let mut sums = (0, 0);
        let mut start_after = None;
        loop {
            let page: LedgerResponse = self.ask(QueryMsg::Ledger {
                start_after,
                limit: Some(2),
            });
            let Some(last) = page.entries.last() else { break };
            start_after = Some(last.holder.clone());
            for entry in &page.entries {
                sums = (sums.0 + entry.available.u128(), sums.1 + entry.held.u128());
            }
        }
        assert_eq!(sums, (totals.available.u128(), totals.held.u128()));
        sums
    }
}

fn wire() -> ExecuteMsg {
    ExecuteMsg::Wire {
        job_orchestrator: addr("orchestrator").into_string(),
        provider_staking: addr("staking").into_string(),
    }
}

fn hold_of(name: &str, job: u64, amount: u128, terms: WorkTerms, expires_at: u64) -> ExecuteMsg {
    ExecuteMsg::Hold {
        job,
        account: addr(name).into_string(),
        amount: amount.into(),
        terms,
        expires_at,
    }
}

fn not_admin(name: &str) -> ContractError {
    let sender = addr(name).into_string();
    GovernedError::NotAdmin { sender }.into()
}

fn not_heir(name: &str) -> ContractError {
    let sender = addr(name).into_string();
    GovernedError::NotProposedAdmin { sender }.into()
}

fn not_sibling(name: &str, sibling: &str) -> ContractError {
    ContractError::NotSibling {
        sender: addr(name).into_string(),
        sibling: sibling.to_owned(),
    }
}

fn events(response: &Response) -> Vec<Event> {
    let decoded = response.events.iter().map(|event| Event::from_wasm(event).unwrap());
    decoded.map(|event| event.expect("an event of ours")).collect()
}

fn messages(response: &Response) -> Vec<(String, serde_json::Value)> {
    let of = |message: &cosmwasm_std::SubMsg| match &message.msg {
        CosmosMsg::Wasm(WasmMsg::Execute {
            contract_addr,
            msg,
            funds,
        }) => {
            assert!(funds.is_empty());
            (contract_addr.clone(), serde_json::from_slice(msg).unwrap())
        }
        other => panic!("unexpected message {other:?}"),
    };
    response.messages.iter().map(of).collect()
}
