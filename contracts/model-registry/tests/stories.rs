//! Stories of the registry on a simulated chain, with the real token.
#![allow(
    clippy::arithmetic_side_effects,
    clippy::unwrap_used,
    reason = "a failed expectation is the message"
)]

use cosmwasm_std::{coins, to_json_binary, Addr, Binary, Decimal, Empty, Response, StdError, Uint128};
use cw20::{BalanceResponse, Cw20Coin, Cw20ExecuteMsg, Cw20QueryMsg, TokenInfoResponse};
use cw_multi_test::{App, AppResponse, ContractWrapper, Executor};
use model_registry::{contract, ContractError};
use schema::{
    escrow,
    msg::AdminResponse,
    params::RegistryParams,
    price::{RoyaltyRate, Units},
    registry::*,
    Digest, Event, ModelId, TOTAL_SUPPLY,
};
use serde::de::DeserializeOwned;

const FEE: u128 = 10_000_000;

struct Market {
    app: App,
    func: Addr,
    registry: Addr,
    escrow: Addr,
}

type Outcome = Result<AppResponse, ContractError>;

/// Stands for the escrow: announces what it is asked to distribute.
fn escrow_stub() -> ContractWrapper<escrow::ExecuteMsg, Empty, Empty, StdError, StdError, StdError> {
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
    fn new() -> Self {
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
    fn with_model() -> Self {
        let mut market = Self::new();
        market.claim("ann", "demo", FEE).unwrap();
        market.publish("ann", "demo/base", &[]).unwrap();
        market
    }

    fn who(&self, name: &str) -> Addr {
        match name {
            "escrow" => self.escrow.clone(),
            "token" => self.func.clone(),
            name => self.app.api().addr_make(name),
        }
    }

    fn execute(&mut self, sender: &str, msg: &ExecuteMsg) -> Outcome {
        let sender = self.who(sender);
        let result = self.app.execute_contract(sender, self.registry.clone(), msg, &[]);
        result.map_err(|error| error.downcast().unwrap())
    }

    fn refusal(&mut self, sender: &str, msg: &ExecuteMsg) -> ContractError {
        self.execute(sender, msg).unwrap_err()
    }

    fn claim(&mut self, sender: &str, namespace: &str, amount: u128) -> Outcome {
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

    fn publish(&mut self, sender: &str, model: &str, parents: &[(&str, u16)]) -> Outcome {
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

    fn payout(&self, shares: &[(&str, u16)]) -> Vec<Share> {
        let share = |(name, bps): &(&str, u16)| Share {
            address: self.who(name).into(),
            bps: *bps,
        };
        shares.iter().map(share).collect()
    }

    fn wire(&mut self) {
        let royalty_escrow = self.escrow.to_string();
        self.execute("adam", &ExecuteMsg::Wire { royalty_escrow }).unwrap();
    }

    fn query<T: DeserializeOwned>(&self, msg: &QueryMsg) -> T {
        self.app.wrap().query_wasm_smart(&self.registry, msg).unwrap()
    }

    fn query_refusal(&self, msg: &QueryMsg) -> String {
        let answer = self
            .app
            .wrap()
            .query_wasm_smart::<serde_json::Value>(&self.registry, msg);
        answer.unwrap_err().to_string()
    }

    fn model(&self, model: &str) -> ModelResponse {
        self.query(&QueryMsg::Model { model: id(model) })
    }

    fn supply(&self) -> u128 {
        let info: TokenInfoResponse = self
            .app
            .wrap()
            .query_wasm_smart(&self.func, &Cw20QueryMsg::TokenInfo {})
            .unwrap();
        info.total_supply.u128()
    }

    fn held(&self) -> u128 {
        let address = self.registry.to_string();
        let balance: BalanceResponse = self
            .app
            .wrap()
            .query_wasm_smart(&self.func, &Cw20QueryMsg::Balance { address })
            .unwrap();
        balance.balance.u128()
    }
}

fn id(model: &str) -> ModelId {
    model.parse().unwrap()
}

fn fee(fee: u128) -> RegistryParams {
    RegistryParams {
        namespace_fee: fee.into(),
    }
}

fn metadata() -> Metadata {
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

fn version(manifest: u8) -> NewVersion {
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

fn publish_version(manifest: u8) -> ExecuteMsg {
    ExecuteMsg::PublishVersion {
        model: id("demo/base"),
        version: version(manifest),
    }
}

fn retire(version: u32) -> ExecuteMsg {
    ExecuteMsg::RetireVersion {
        model: id("demo/base"),
        version,
    }
}

fn endpoint(name: &str, royalty_bps: u16) -> ExecuteMsg {
    ExecuteMsg::SetEndpoint {
        model: id("demo/base"),
        endpoint: name.into(),
        terms: terms(royalty_bps),
    }
}

fn terms(royalty_bps: u16) -> EndpointTerms {
    EndpointTerms {
        unit: Unit::Token,
        royalty: RoyaltyRate {
            royalty_bps,
            royalty_per_1k_units: 7u128.into(),
        },
    }
}

fn status(status: ModelStatus) -> ExecuteMsg {
    ExecuteMsg::SetStatus {
        model: id("demo/base"),
        status,
    }
}

fn offer(version: Option<u32>, endpoint: &str) -> QueryMsg {
    QueryMsg::Offer {
        model: id("demo/base"),
        version,
        endpoint: endpoint.into(),
    }
}

fn events(response: &AppResponse) -> Vec<Event> {
    let decoded = response.events.iter().map(|event| Event::from_wasm(event).unwrap());
    decoded.flatten().collect()
}

#[test]
fn a_namespace_is_claimed_once_for_a_burnt_fee() {
    let mut market = Market::new();
    let done = market.claim("ann", "demo", FEE).unwrap();
    let claimed = Event::NamespaceClaimed {
        namespace: "demo".parse().unwrap(),
        owner: market.who("ann").into(),
        burnt: FEE.into(),
    };
    assert_eq!(events(&done), [claimed]);
    assert_eq!((market.supply(), market.held()), (TOTAL_SUPPLY - FEE, 0));

    let taken = market.claim("ann", "demo", FEE).unwrap_err();
    assert!(matches!(taken, ContractError::NamespaceTaken { owner, .. } if owner == market.who("ann").as_str()));
    for wrong in [0, FEE - 1, FEE + 1] {
        let refused = ContractError::WrongFee {
            required: FEE.into(),
            sent: wrong.into(),
        };
        assert_eq!(market.claim("ann", "other", wrong).unwrap_err(), refused);
    }
    assert_eq!(
        (market.supply(), market.held()),
        (TOTAL_SUPPLY - FEE, 0),
        "a refusal moves nothing"
    );

    market
        .execute("adam", &ExecuteMsg::UpdateParams { params: fee(0) })
        .unwrap();
    market.claim("ann", "free", 0).unwrap();
    let owner: NamespaceResponse = market.query(&QueryMsg::Namespace {
        namespace: "free".parse().unwrap(),
    });
    assert_eq!(owner.owner, Some(market.who("ann").into()));
    let nobody: NamespaceResponse = market.query(&QueryMsg::Namespace {
        namespace: "other".parse().unwrap(),
    });
    assert_eq!(nobody.owner, None);
}

#[test]
fn only_the_token_may_say_that_func_came() {
    let mut market = Market::new();
    let hook = ReceiveMsg::ClaimNamespace {
        namespace: "demo".parse().unwrap(),
    };
    let forged = ExecuteMsg::Receive(cw20::Cw20ReceiveMsg {
        sender: market.who("bob").into(),
        amount: FEE.into(),
        msg: to_json_binary(&hook).unwrap(),
    });
    let sender = market.who("bob").into();
    assert_eq!(market.refusal("bob", &forged), ContractError::NotFunc { sender });
    let nonsense = Cw20ExecuteMsg::Send {
        contract: market.registry.to_string(),
        amount: FEE.into(),
        msg: Binary::from(b"{\"claim\":1}"),
    };
    let (ann, func) = (market.who("ann"), market.func.clone());
    let refused = market.app.execute_contract(ann, func, &nonsense, &[]).unwrap_err();
    assert!(matches!(refused.downcast().unwrap(), ContractError::Std(_)));
    assert_eq!(market.held(), 0);
}

#[test]
fn native_coins_are_refused_rather_than_lost() {
    let mut market = Market::new();
    let adam = market.who("adam");
    market
        .app
        .init_modules(|router, _, storage| router.bank.init_balance(storage, &adam, coins(5, "ustake")))
        .unwrap();
    let params = ExecuteMsg::UpdateParams { params: fee(1) };
    let registry = market.registry.clone();
    let refused = market
        .app
        .execute_contract(adam, registry, &params, &coins(5, "ustake"));
    let refused: ContractError = refused.unwrap_err().downcast().unwrap();
    assert_eq!(refused, ContractError::Payment(cw_utils::PaymentError::NonPayable {}));
}

#[test]
fn only_the_namespace_owner_publishes() {
    let mut market = Market::with_model();
    let found = market.model("demo/base");
    assert_eq!(found.owner, market.who("ann").as_str());
    assert_eq!(
        (found.status, found.versions, found.metadata.clone()),
        (ModelStatus::Active, 0, metadata())
    );
    assert_eq!(found.published_at, market.app.block_info().time.seconds());

    let refused = |market: &Market, namespace: &str, sender: &str| ContractError::NotNamespaceOwner {
        namespace: namespace.parse().unwrap(),
        sender: market.who(sender).into(),
    };
    assert_eq!(
        market.publish("bob", "demo/mine", &[]).unwrap_err(),
        refused(&market, "demo", "bob")
    );
    assert_eq!(
        market.publish("ann", "nobody/mine", &[]).unwrap_err(),
        refused(&market, "nobody", "ann")
    );
    let model = id("demo/base");
    assert_eq!(
        market.publish("ann", "demo/base", &[]).unwrap_err(),
        ContractError::ModelExists { model }
    );
}

#[test]
fn parents_exist_before_their_children() {
    let mut market = Market::with_model();
    let unknown = |model: &str| ContractError::UnknownModel { model: id(model) };
    assert_eq!(
        market.publish("ann", "demo/x", &[("demo/x", 1)]).unwrap_err(),
        unknown("demo/x")
    );
    assert_eq!(
        market.publish("ann", "demo/x", &[("demo/y", 1)]).unwrap_err(),
        unknown("demo/y")
    );
    market.publish("ann", "demo/x", &[("demo/base", 2_500)]).unwrap();
    let payout: PayoutResponse = market.query(&QueryMsg::Payout { model: id("demo/x") });
    let parent = Parent {
        model: id("demo/base"),
        bps: 2_500,
    };
    assert_eq!(
        (payout.parents, payout.payout),
        (vec![parent], market.payout(&[("ann", 10_000)]))
    );
}

#[test]
fn versions_are_numbered_and_never_change() {
    let mut market = Market::with_model();
    let sender = market.who("bob").to_string();
    let model = id("demo/base");
    let stranger = ContractError::NotOwner {
        model: model.clone(),
        sender,
    };
    assert_eq!(market.refusal("bob", &publish_version(1)), stranger);
    for number in 1..=3u8 {
        let done = market.execute("ann", &publish_version(number)).unwrap();
        let event = Event::VersionPublished {
            model: model.clone(),
            version: number.into(),
            manifest: Digest([number; 32]),
        };
        assert_eq!(events(&done), [event]);
    }
    let ask = |market: &Market, version| {
        let model = id("demo/base");
        market.query::<VersionResponse>(&QueryMsg::Version { model, version })
    };
    let before = ask(&market, 2);
    assert_eq!(market.refusal("bob", &retire(2)), stranger);
    let done = market.execute("ann", &retire(2)).unwrap();
    assert_eq!(
        events(&done),
        [Event::VersionRetired {
            model: model.clone(),
            version: 2
        }]
    );
    assert_eq!(
        ask(&market, 2),
        VersionResponse {
            retired: true,
            ..before
        }
    );
    let again = ContractError::VersionRetired {
        model: model.clone(),
        version: 2,
    };
    assert_eq!(market.refusal("ann", &retire(2)), again);
    let unknown = ContractError::UnknownVersion {
        model: model.clone(),
        version: 4,
    };
    assert_eq!(market.refusal("ann", &retire(4)), unknown);

    let list = |start_after, limit| {
        let model = id("demo/base");
        let query = QueryMsg::Versions {
            model,
            start_after,
            limit,
        };
        let found: VersionsResponse = market.query(&query);
        found
            .versions
            .iter()
            .map(|version| (version.version, version.retired))
            .collect::<Vec<_>>()
    };
    assert_eq!(list(None, None), [(1, false), (2, true), (3, false)]);
    assert_eq!(list(Some(1), Some(1)), [(2, true)]);
    let stages: u16 = ask(&market, 1).stages.iter().map(|stage| stage.compute_share_bps).sum();
    assert_eq!(stages, 10_000);
}

#[test]
fn the_newest_live_version_is_offered() {
    let mut market = Market::with_model();
    market.execute("ann", &endpoint("embeddings", 500)).unwrap();
    let newest = |market: &Market| market.query::<OfferResponse>(&offer(None, "embeddings")).version;
    for number in 1..=40 {
        market.execute("ann", &publish_version(number)).unwrap();
    }
    for number in 2..40 {
        market.execute("ann", &retire(number)).unwrap();
    }
    assert_eq!(newest(&market), 40);
    market.execute("ann", &retire(40)).unwrap();
    assert_eq!(newest(&market), 1);
    market.execute("ann", &publish_version(41)).unwrap();
    let found: OfferResponse = market.query(&offer(None, "embeddings"));
    assert_eq!(
        (found.version, found.manifest, found.task),
        (41, Digest([41; 32]), Task::Embeddings)
    );
    assert_eq!(
        (found.stages, found.units_per_request_max, found.terms),
        (version(41).stages, 256, terms(500))
    );
    assert_eq!(market.query::<OfferResponse>(&offer(Some(1), "embeddings")).version, 1);
}

#[test]
fn an_offer_says_why_there_is_none() {
    let mut market = Market::with_model();
    let refused = |market: &Market, query: &QueryMsg, why: &str| {
        let found = market.query_refusal(query);
        assert!(found.contains(why), "{found}");
    };
    let nowhere = QueryMsg::Offer {
        model: id("demo/none"),
        version: None,
        endpoint: "embeddings".into(),
    };
    refused(&market, &nowhere, "there is no model demo/none");
    refused(
        &market,
        &offer(None, "embeddings"),
        "demo/base has no version for new work",
    );
    market.execute("ann", &publish_version(1)).unwrap();
    refused(&market, &offer(Some(2), "embeddings"), "demo/base has no version 2");
    refused(
        &market,
        &offer(None, "embeddings"),
        "demo/base has no endpoint embeddings",
    );
    market.execute("ann", &endpoint("embeddings", 0)).unwrap();
    market.execute("ann", &retire(1)).unwrap();
    refused(
        &market,
        &offer(Some(1), "embeddings"),
        "version 1 of demo/base is retired",
    );
    market.execute("ann", &publish_version(2)).unwrap();
    market.execute("ann", &status(ModelStatus::Paused)).unwrap();
    refused(&market, &offer(None, "embeddings"), "demo/base is paused");
    market.execute("ann", &status(ModelStatus::Active)).unwrap();
    assert_eq!(market.query::<OfferResponse>(&offer(None, "embeddings")).version, 2);
    market.execute("ann", &status(ModelStatus::Retired)).unwrap();
    refused(&market, &offer(None, "embeddings"), "demo/base is retired for ever");
}

#[test]
fn a_retired_model_stays_retired() {
    let mut market = Market::with_model();
    let done = market.execute("ann", &status(ModelStatus::Retired)).unwrap();
    let model = id("demo/base");
    let event = Event::ModelStatusChanged {
        model: model.clone(),
        status: "retired".into(),
    };
    assert_eq!(events(&done), [event]);
    let retired = ContractError::ModelRetired { model };
    for next in [ModelStatus::Active, ModelStatus::Paused, ModelStatus::Retired] {
        assert_eq!(market.refusal("ann", &status(next)), retired);
    }
    assert_eq!(market.refusal("ann", &publish_version(1)), retired);
    let payout = market.payout(&[("bob", 10_000)]);
    let model = id("demo/base");
    market.execute("ann", &ExecuteMsg::SetPayout { model, payout }).unwrap();
}

#[test]
fn endpoints_are_few_named_and_bounded() {
    let mut market = Market::with_model();
    let sender = market.who("bob").into();
    let model = id("demo/base");
    assert_eq!(
        market.refusal("bob", &endpoint("chat", 1)),
        ContractError::NotOwner { model, sender }
    );
    assert!(matches!(
        market.refusal("ann", &endpoint("Chat now", 1)),
        ContractError::Id(_)
    ));
    assert!(matches!(
        market.refusal("ann", &endpoint("chat", 10_001)),
        ContractError::RoyaltyTooHigh {
            royalty_bps: 10_001,
            ..
        }
    ));
    for number in 0..8 {
        market.execute("ann", &endpoint(&format!("e{number}"), number)).unwrap();
    }
    let ninth = market.refusal("ann", &endpoint("e8", 8));
    assert_eq!(ninth.to_string(), "9 endpoints, 1 to 8 are allowed");
    let done = market.execute("ann", &endpoint("e3", 300)).unwrap();
    let event = Event::EndpointSet {
        model: id("demo/base"),
        endpoint: "e3".into(),
        royalty_bps: 300,
        royalty_per_1k_units: 7u128.into(),
    };
    assert_eq!(events(&done), [event]);
    let endpoints = market.model("demo/base").endpoints;
    assert_eq!((endpoints.len(), endpoints[3].terms), (8, terms(300)));
}

#[test]
fn metadata_is_the_owners_and_checked() {
    let mut market = Market::with_model();
    let update = |title: &str| ExecuteMsg::UpdateMetadata {
        model: id("demo/base"),
        metadata: Metadata {
            title: title.into(),
            ..metadata()
        },
    };
    assert!(matches!(
        market.refusal("bob", &update("New")),
        ContractError::NotOwner { .. }
    ));
    assert!(matches!(market.refusal("ann", &update("")), ContractError::Text(_)));
    let done = market.execute("ann", &update("New")).unwrap();
    assert_eq!(events(&done), [Event::ModelUpdated { model: id("demo/base") }]);
    assert_eq!(market.model("demo/base").metadata.title, "New");
}

#[test]
fn a_rule_change_first_distributes_by_the_old_rule() {
    let mut market = Market::with_model();
    market.publish("ann", "demo/child", &[("demo/base", 1_000)]).unwrap();
    let set = |market: &Market, shares: &[(&str, u16)]| ExecuteMsg::SetPayout {
        model: id("demo/child"),
        payout: market.payout(shares),
    };
    // Not wired yet: nothing can have accrued.
    let to_bob = set(&market, &[("bob", 10_000)]);
    market.execute("ann", &to_bob).unwrap();
    market.wire();
    let to_both = set(&market, &[("bob", 5_000), ("cat", 5_000)]);
    assert!(matches!(
        market.refusal("bob", &to_both),
        ContractError::NotOwner { .. }
    ));
    let done = market.execute("ann", &to_both).unwrap();
    let asked = done.events.iter().flat_map(|event| &event.attributes);
    let asked = asked
        .filter(|attribute| attribute.key == "payout")
        .map(|attribute| attribute.value.clone());
    let parent = Parent {
        model: id("demo/base"),
        bps: 1_000,
    };
    let old = serde_json::to_string(&(market.payout(&[("bob", 10_000)]), [parent])).unwrap();
    assert_eq!(asked.collect::<Vec<_>>(), [old]);
    assert_eq!(
        events(&done),
        [Event::PayoutSet {
            model: id("demo/child")
        }]
    );
    let now: PayoutResponse = market.query(&QueryMsg::Payout {
        model: id("demo/child"),
    });
    assert_eq!(now.payout, market.payout(&[("bob", 5_000), ("cat", 5_000)]));

    let short = set(&market, &[("bob", 9_999)]);
    assert!(matches!(
        market.refusal("ann", &short),
        ContractError::WrongSum { sum: 9_999, .. }
    ));
    let nobody = ExecuteMsg::SetPayout {
        model: id("demo/child"),
        payout: vec![Share {
            address: "nobody".into(),
            bps: 10_000,
        }],
    };
    assert!(matches!(market.refusal("ann", &nobody), ContractError::Std(_)));
}

#[test]
fn a_model_is_handed_over_in_two_steps() {
    let mut market = Market::with_model();
    let model = || id("demo/base");
    let offer_to = |market: &Market, name: Option<&str>| ExecuteMsg::ProposeOwner {
        model: model(),
        owner: name.map(|name| market.who(name).into()),
    };
    let accept = ExecuteMsg::AcceptOwner { model: model() };
    let to_bob = offer_to(&market, Some("bob"));
    assert!(matches!(market.refusal("bob", &to_bob), ContractError::NotOwner { .. }));
    assert!(matches!(
        market.refusal("bob", &accept),
        ContractError::NotProposedOwner { .. }
    ));
    market.execute("ann", &to_bob).unwrap();
    assert_eq!(market.model("demo/base").proposed_owner, Some(market.who("bob").into()));
    let to_nobody = offer_to(&market, None);
    market.execute("ann", &to_nobody).unwrap();
    assert!(matches!(
        market.refusal("bob", &accept),
        ContractError::NotProposedOwner { .. }
    ));

    market.execute("ann", &to_bob).unwrap();
    assert!(matches!(
        market.refusal("cat", &accept),
        ContractError::NotProposedOwner { .. }
    ));
    assert!(matches!(
        market.refusal("ann", &accept),
        ContractError::NotProposedOwner { .. }
    ));
    let done = market.execute("bob", &accept).unwrap();
    let event = Event::ModelOwnerChanged {
        model: model(),
        owner: market.who("bob").into(),
    };
    assert_eq!(events(&done), [event]);
    assert!(matches!(
        market.refusal("bob", &accept),
        ContractError::NotProposedOwner { .. }
    ));
    assert!(matches!(
        market.refusal("ann", &publish_version(1)),
        ContractError::NotOwner { .. }
    ));
    market.execute("bob", &publish_version(1)).unwrap();
}

#[test]
fn usage_is_counted_by_the_escrow_alone() {
    let mut market = Market::with_model();
    let usage = |model: &str, count: u64, paid: u128| Usage {
        model: id(model),
        units: Units {
            requests: count,
            units_in: count,
            units_out: 0,
        },
        paid: paid.into(),
        sunk: Uint128::one(),
    };
    let record = |usages: Vec<Usage>| ExecuteMsg::Record { usages };
    let one = record(vec![usage("demo/base", 5, 70)]);
    // Before and after the wiring.
    assert!(matches!(
        market.refusal("escrow", &one),
        ContractError::NotEscrow { .. }
    ));
    market.wire();
    assert!(matches!(market.refusal("adam", &one), ContractError::NotEscrow { .. }));
    market.execute("escrow", &one).unwrap();
    market
        .execute(
            "escrow",
            &record(vec![usage("demo/base", 1, 2), usage("demo/base", 1, 3)]),
        )
        .unwrap();
    let total = market.model("demo/base").usage;
    assert_eq!(
        (total.units.requests, total.units.units_in, total.units.units_out),
        (7, 7, 0)
    );
    assert_eq!((total.paid.u128(), total.sunk.u128()), (75, 3));

    market
        .execute("escrow", &record(vec![usage("demo/base", u64::MAX, u128::MAX)]))
        .unwrap();
    let total = market.model("demo/base").usage;
    assert_eq!(
        (total.units.requests, total.paid),
        (u64::MAX, Uint128::MAX),
        "counters stop rather than fail"
    );
    let unknown = record(vec![usage("demo/none", 1, 1)]);
    let model = id("demo/none");
    assert_eq!(
        market.refusal("escrow", &unknown),
        ContractError::UnknownModel { model }
    );
}

#[test]
fn models_are_listed_by_name_page_by_page() {
    let mut market = Market::new();
    for namespace in ["a", "a-b", "a.b", "a0", "b"] {
        market.claim("ann", namespace, FEE).unwrap();
        for name in ["x", "y", "z"] {
            market.publish("ann", &format!("{namespace}/{name}"), &[]).unwrap();
        }
    }
    let list = |namespace: Option<&str>, start_after: Option<&str>, limit: Option<u32>| {
        let query = QueryMsg::Models {
            namespace: namespace.map(|namespace| namespace.parse().unwrap()),
            start_after: start_after.map(id),
            limit,
        };
        let found: ModelsResponse = market.query(&query);
        found
            .models
            .into_iter()
            .map(|model| model.model.to_string())
            .collect::<Vec<_>>()
    };
    assert_eq!(list(Some("a"), None, None), ["a/x", "a/y", "a/z"]);
    assert_eq!(list(Some("a"), Some("a/x"), Some(1)), ["a/y"]);
    assert_eq!(
        list(Some("a"), Some("a-b/z"), None),
        ["a/x", "a/y", "a/z"],
        "a cursor before the namespace"
    );
    assert_eq!(
        list(Some("a"), Some("b/x"), None),
        [""; 0],
        "a cursor behind the namespace"
    );
    assert_eq!(list(Some("c"), None, None), [""; 0]);
    assert_eq!(list(None, None, None).len(), 10);
    assert_eq!(list(None, None, Some(100)).len(), 15);
    let mut paged = vec![];
    loop {
        let page = list(None, paged.last().map(String::as_str), Some(4));
        if page.is_empty() {
            break;
        }
        paged.extend(page);
    }
    assert_eq!(paged, list(None, None, Some(30)));
    assert!(paged.windows(2).all(|pair| pair[0] < pair[1]));
}

#[test]
fn the_admin_rules_parameters_only() {
    let mut market = Market::with_model();
    let config = |market: &Market| market.query::<ConfigResponse>(&QueryMsg::Config {});
    let bob = market.who("bob").to_string();
    let wire = ExecuteMsg::Wire {
        royalty_escrow: market.escrow.to_string(),
    };
    let propose = ExecuteMsg::ProposeAdmin {
        admin: Some(bob.clone()),
    };
    let update = ExecuteMsg::UpdateParams { params: fee(3) };
    for msg in [&wire, &propose, &update] {
        let sender = bob.clone();
        assert_eq!(market.refusal("bob", msg), ContractError::NotAdmin { sender });
    }
    let dear = ExecuteMsg::UpdateParams {
        params: fee(TOTAL_SUPPLY + 1),
    };
    assert!(matches!(
        market.refusal("adam", &dear),
        ContractError::ParamOutOfBounds { .. }
    ));
    assert_eq!(config(&market).royalty_escrow, None);
    let done = market.execute("adam", &wire).unwrap();
    let by = market.who("adam").to_string();
    assert_eq!(events(&done), [Event::Wired { by }]);
    assert_eq!(market.refusal("adam", &wire), ContractError::AlreadyWired);
    market.execute("adam", &update).unwrap();
    assert_eq!(
        (config(&market).params, config(&market).royalty_escrow),
        (fee(3), Some(market.escrow.to_string()))
    );

    for msg in [
        publish_version(1),
        retire(1),
        status(ModelStatus::Retired),
        endpoint("chat", 1),
    ] {
        assert!(
            matches!(market.refusal("adam", &msg), ContractError::NotOwner { .. }),
            "not even the admin"
        );
    }

    let accept = ExecuteMsg::AcceptAdmin {};
    let sender = bob.clone();
    assert_eq!(
        market.refusal("bob", &accept),
        ContractError::NotProposedAdmin { sender }
    );
    market.execute("adam", &propose).unwrap();
    let admin = AdminResponse {
        admin: market.who("adam").into(),
        proposed: Some(bob.clone()),
    };
    assert_eq!(config(&market).admin, admin);
    let done = market.execute("bob", &accept).unwrap();
    assert_eq!(events(&done), [Event::AdminChanged { admin: bob.clone() }]);
    assert!(matches!(
        market.refusal("adam", &update),
        ContractError::NotAdmin { .. }
    ));
    let retract = ExecuteMsg::ProposeAdmin { admin: None };
    market.execute("bob", &retract).unwrap();
    assert!(matches!(
        market.refusal("bob", &accept),
        ContractError::NotProposedAdmin { .. }
    ));
}
