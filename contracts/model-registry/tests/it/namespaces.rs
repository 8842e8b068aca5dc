//! Namespaces and what is published in them.

use cosmwasm_std::{coins, to_json_binary, Binary};
use cw20::Cw20ExecuteMsg;
use cw_multi_test::Executor;
use model_registry::ContractError;
use schema::{registry::*, Event, TOTAL_SUPPLY};

use crate::network::{events, fee, id, metadata, Market, FEE};

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
