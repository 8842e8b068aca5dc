//! What the owner of a model may change, and how it changes hands.

use model_registry::ContractError;
use schema::{registry::*, Event};

use crate::network::{endpoint, events, id, metadata, publish_version, status, terms, Market};

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
