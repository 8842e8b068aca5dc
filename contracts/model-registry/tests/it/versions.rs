//! Versions and offers.

use model_registry::ContractError;
use schema::{registry::*, Digest, Event};

use crate::network::{endpoint, events, id, offer, publish_version, retire, status, terms, version, Market};

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
