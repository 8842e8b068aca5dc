//! The market of the stories: who there is, and the verbs that they tell their stories with.

use cosmwasm_std::{to_json_binary, Addr, Binary, Decimal, Empty, Response, StdError};
use cw20::{BalanceResponse, Cw20Coin, Cw20ExecuteMsg, Cw20QueryMsg, TokenInfoResponse};
use cw_multi_test::{App, AppResponse, ContractWrapper, Executor};
use model_registry::{contract, ContractError};
use schema::{escrow, params::RegistryParams, price::RoyaltyRate, registry::*, Digest, Event, ModelId, TOTAL_SUPPLY};
use serde::de::DeserializeOwned;

pub(crate) const FEE: u128 = 10_000_000;

pub(crate) struct Market {
    pub(crate) app: App,
    pub(crate) func: Addr,
    pub(crate) registry: Addr,
    pub(crate) escrow: Addr,
}

pub(crate) type Outcome = Result<AppResponse, ContractError>;

/// Stands for the escrow: announces what it is asked to distribute.
pub(crate) fn escrow_stub() -> ContractWrapper<escrow::ExecuteMsg, Empty, Empty, StdError, StdError, StdError> {
    ContractWrapper::new(
        |_, _, _, msg: escrow::ExecuteMsg| match msg {
            escrow::ExecuteMsg::DistributeUnder { model, payout, parents } => Ok(Response::new()
                .add_attribute("model", model.to_string())
                .add_attribute("payout", serde_json::to_string(&(payout, parents)).unwrap())),
            _ => Err(StdError::generic_err("not expected here")),
        },
        |_, _, _, _: Empty| Ok(Response::new()),
        |_, _, _: Empty| Ok(Binary::default()),
    )
}

impl Market {
    /// Ann holds all FUNC, Adam is the admin, nothing is wired.
    pub(crate) fn new() -> Self {
        let mut app = App::default();
        let who = |name: &str, app: &App| app.api().addr_make(name);
        let (ann, adam) = (who("ann", &app), who("adam", &app));
        let token_code = app.store_code(Box::new(ContractWrapper::new(
            func_token::contract::execute,
            func_token::contract::instantiate,
            func_token::contract::query,
        )));
        let token = schema::token::InstantiateMsg {
            initial_balances: vec![Cw20Coin {
                address: ann.into(),
                amount: TOTAL_SUPPLY.into(),
            }],
            marketing: None,
        };
        let func = app
            .instantiate_contract(token_code, adam.clone(), &token, &[], "func", None)
            .unwrap();
        let code = app.store_code(Box::new(ContractWrapper::new(
            contract::execute,
            contract::instantiate,
            contract::query,
        )));
        let msg = InstantiateMsg {
            admin: adam.to_string(),
            func_token: func.to_string(),
            params: fee(FEE),
        };
        let registry = app
            .instantiate_contract(code, adam.clone(), &msg, &[], "registry", None)
            .unwrap();
        let escrow_code = app.store_code(Box::new(escrow_stub()));
        let escrow = app
            .instantiate_contract(escrow_code, adam, &Empty {}, &[], "escrow", None)
            .unwrap();
        Self {
            app,
            func,
            registry,
            escrow,
        }
    }

    /// As above, with the namespace `demo` and the model `demo/base` of Ann's.
    pub(crate) fn with_model() -> Self {
        let mut market = Self::new();
        market.claim("ann", "demo", FEE).unwrap();
        market.publish("ann", "demo/base", &[]).unwrap();
        market
    }

    pub(crate) fn who(&self, name: &str) -> Addr {
        match name {
            "escrow" => self.escrow.clone(),
            "token" => self.func.clone(),
            name => self.app.api().addr_make(name),
        }
    }

    pub(crate) fn execute(&mut self, sender: &str, msg: &ExecuteMsg) -> Outcome {
        let sender = self.who(sender);
        let result = self.app.execute_contract(sender, self.registry.clone(), msg, &[]);
        result.map_err(|error| error.downcast().unwrap())
    }

    pub(crate) fn refusal(&mut self, sender: &str, msg: &ExecuteMsg) -> ContractError {
        self.execute(sender, msg).unwrap_err()
    }

    pub(crate) fn claim(&mut self, sender: &str, namespace: &str, amount: u128) -> Outcome {
        let hook = ReceiveMsg::ClaimNamespace {
            namespace: namespace.parse().unwrap(),
        };
        let send = Cw20ExecuteMsg::Send {
            contract: self.registry.to_string(),
            amount: amount.into(),
            msg: to_json_binary(&hook).unwrap(),
        };
        let sender = self.who(sender);
        let result = self.app.execute_contract(sender, self.func.clone(), &send, &[]);
        result.map_err(|error| error.downcast().unwrap())
    }

    pub(crate) fn publish(&mut self, sender: &str, model: &str, parents: &[(&str, u16)]) -> Outcome {
        let msg = ExecuteMsg::PublishModel {
            model: id(model),
            metadata: metadata(),
            payout: self.payout(&[("ann", 10_000)]),
            parents: parents
                .iter()
                .map(|(model, bps)| Parent {
                    model: id(model),
                    bps: *bps,
                })
                .collect(),
        };
        self.execute(sender, &msg)
    }

    pub(crate) fn payout(&self, shares: &[(&str, u16)]) -> Vec<Share> {
        let share = |(name, bps): &(&str, u16)| Share {
            address: self.who(name).into(),
            bps: *bps,
        };
        shares.iter().map(share).collect()
    }

    pub(crate) fn wire(&mut self) {
        let royalty_escrow = self.escrow.to_string();
        self.execute("adam", &ExecuteMsg::Wire { royalty_escrow }).unwrap();
    }

    pub(crate) fn query<T: DeserializeOwned>(&self, msg: &QueryMsg) -> T {
        self.app.wrap().query_wasm_smart(&self.registry, msg).unwrap()
    }

    pub(crate) fn query_refusal(&self, msg: &QueryMsg) -> String {
        let answer = self
            .app
            .wrap()
            .query_wasm_smart::<serde_json::Value>(&self.registry, msg);
        answer.unwrap_err().to_string()
    }

    pub(crate) fn model(&self, model: &str) -> ModelResponse {
        self.query(&QueryMsg::Model { model: id(model) })
    }

    pub(crate) fn supply(&self) -> u128 {
        let info: TokenInfoResponse = self
            .app
            .wrap()
            .query_wasm_smart(&self.func, &Cw20QueryMsg::TokenInfo {})
            .unwrap();
        info.total_supply.u128()
    }

    pub(crate) fn held(&self) -> u128 {
        let address = self.registry.to_string();
        let balance: BalanceResponse = self
            .app
            .wrap()
            .query_wasm_smart(&self.func, &Cw20QueryMsg::Balance { address })
            .unwrap();
        balance.balance.u128()
    }
}

pub(crate) fn id(model: &str) -> ModelId {
    model.parse().unwrap()
}

pub(crate) fn fee(fee: u128) -> RegistryParams {
    RegistryParams {
        namespace_fee: fee.into(),
        migration_notice_seconds: 1,
    }
}

pub(crate) fn metadata() -> Metadata {
    Metadata {
        title: "Base".into(),
        description: "words into vectors".into(),
        task: Task::Embeddings,
        licence: "Apache-2.0".into(),
        tags: vec!["small".into()],
        homepage: None,
        card: None,
    }
}

pub(crate) fn version(manifest: u8) -> NewVersion {
    let stage = |bps| StageInfo {
        digest: Digest::of(&u16::to_be_bytes(bps)),
        weight_bytes: 10,
        compute_share_bps: bps,
    };
    NewVersion {
        manifest: Digest([manifest; 32]),
        manifest_uris: vec![],
        stages: vec![stage(4_000), stage(6_000)],
        tolerance: Decimal::permille(1),
        units_per_request_max: 256,
    }
}

pub(crate) fn publish_version(manifest: u8) -> ExecuteMsg {
    ExecuteMsg::PublishVersion {
        model: id("demo/base"),
        version: version(manifest),
    }
}

pub(crate) fn retire(version: u32) -> ExecuteMsg {
    ExecuteMsg::RetireVersion {
        model: id("demo/base"),
        version,
    }
}

pub(crate) fn endpoint(name: &str, royalty_bps: u16) -> ExecuteMsg {
    ExecuteMsg::SetEndpoint {
        model: id("demo/base"),
        endpoint: name.into(),
        terms: terms(royalty_bps),
    }
}

pub(crate) fn terms(royalty_bps: u16) -> EndpointTerms {
    EndpointTerms {
        unit: Unit::Token,
        royalty: RoyaltyRate {
            royalty_bps,
            royalty_per_1k_units: 7u128.into(),
        },
    }
}

pub(crate) fn status(status: ModelStatus) -> ExecuteMsg {
    ExecuteMsg::SetStatus {
        model: id("demo/base"),
        status,
    }
}

pub(crate) fn offer(version: Option<u32>, endpoint: &str) -> QueryMsg {
    QueryMsg::Offer {
        model: id("demo/base"),
        version,
        endpoint: endpoint.into(),
    }
}

pub(crate) fn events(response: &AppResponse) -> Vec<Event> {
    let decoded = response.events.iter().map(|event| Event::from_wasm(event).unwrap());
    decoded.flatten().collect()
}
