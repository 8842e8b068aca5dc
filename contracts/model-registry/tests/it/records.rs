//! Usage, lists and the admin.

use cosmwasm_std::Uint128;
use governed::GovernedError;
use model_registry::ContractError;
use schema::{msg::AdminResponse, params::RegistryParams, price::Units, registry::*, Event, TOTAL_SUPPLY};

use crate::network::{endpoint, events, fee, id, publish_version, retire, status, Market, FEE};

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
        assert_eq!(market.refusal("bob", msg), GovernedError::NotAdmin { sender }.into());
    }
    let hasty = ExecuteMsg::UpdateParams {
        params: RegistryParams {
            migration_notice_seconds: fee(3).migration_notice_seconds - 1,
            ..fee(3)
        },
    };
    let refusal = market.refusal("adam", &hasty).to_string();
    assert_eq!(refusal, "migration_notice_seconds is 0, 1 to 7776000 are allowed");
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
        GovernedError::NotProposedAdmin { sender }.into()
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
        ContractError::Governed(GovernedError::NotAdmin { .. })
    ));
    let retract = ExecuteMsg::ProposeAdmin { admin: None };
    market.execute("bob", &retract).unwrap();
    assert!(matches!(
        market.refusal("bob", &accept),
        ContractError::Governed(GovernedError::NotProposedAdmin { .. })
    ));
}
