//! Listing, draining and removing.

use cw_multi_test::Executor;
use provider_staking::ContractError;
use schema::{params::StakingParams, registry, staking::*, Event, TOTAL_SUPPLY};

use crate::network::{events, params, publish_version, terms, Network, LISTING_FEE, RESERVE, SLOT_BOND};

#[test]
fn a_listing_burns_exactly_the_fee() {
    let mut network = Network::with_ann(2_000);
    let hook = |slots| ReceiveMsg::Deploy {
        terms: terms(0, 2, slots),
    };
    for sent in [0, LISTING_FEE - 1, LISTING_FEE + 1] {
        let refused = ContractError::WrongFee {
            required: LISTING_FEE.into(),
            sent: sent.into(),
        };
        assert_eq!(network.send("ann", sent, &hook(1)).unwrap_err(), refused);
    }
    assert_eq!(network.supply(), TOTAL_SUPPLY);
    let done = network.deploys("ann", terms(0, 1, 2)).unwrap();
    let event = Event::DeploymentListed {
        deployment: 1,
        provider: network.who("ann").into(),
        model: "demo/base".parse().unwrap(),
        version: 1,
        first: 0,
        last: 1,
        burnt: LISTING_FEE.into(),
    };
    assert_eq!(
        (events(&done), network.supply()),
        (vec![event], TOTAL_SUPPLY - LISTING_FEE)
    );
    let found = network.deployment(1);
    assert_eq!(
        (found.provider, found.terms),
        (network.who("ann").to_string(), terms(0, 1, 2))
    );
    assert_eq!(
        (found.state, found.busy, found.slot_bond.u128()),
        (DeploymentState::Active, 0, SLOT_BOND)
    );
    assert_eq!(network.provider("ann").committed.u128(), 2 * SLOT_BOND);
    network.check_money();

    let free = StakingParams {
        listing_fee: 0u128.into(),
        ..params()
    };
    network
        .execute("adam", &ExecuteMsg::UpdateParams { params: free })
        .unwrap();
    network.bonds("ann", SLOT_BOND).unwrap();
    network.send("ann", 0, &hook(1)).unwrap();
    assert_eq!(network.supply(), TOTAL_SUPPLY - LISTING_FEE);
}

#[test]
fn every_slot_is_backed_by_bond() {
    let mut network = Network::with_ann(2_999);
    let refused = |required: u128| ContractError::BondTooSmall {
        required: (required + RESERVE).into(),
        posted: (2_999 + RESERVE).into(),
    };
    assert_eq!(network.deploys("ann", terms(0, 0, 3)).unwrap_err(), refused(3_000));
    network.deploys("ann", terms(0, 0, 2)).unwrap();
    assert_eq!(network.deploys("ann", terms(1, 1, 1)).unwrap_err(), refused(3_000));
    network.bonds("ann", 1).unwrap();
    network.deploys("ann", terms(1, 1, 1)).unwrap();
    let free = ContractError::BondCommitted {
        free: 0u128.into(),
        requested: 1u128.into(),
    };
    assert_eq!(network.unbonds("ann", 1).unwrap_err(), free);
}

#[test]
fn only_providers_list_and_only_what_exists() {
    let mut network = Network::with_ann(10_000);
    let account = network.who("bob").into();
    assert_eq!(
        network.deploys("bob", terms(0, 0, 1)).unwrap_err(),
        ContractError::NotRegistered { account }
    );
    let wrong = |change: fn(&mut DeploymentTerms)| {
        let mut terms = terms(0, 2, 1);
        change(&mut terms);
        terms
    };
    let refused = network.deploys("ann", wrong(|terms| terms.version = 2)).unwrap_err();
    assert!(refused.to_string().contains("demo/base has no version 2"), "{refused}");
    let refused = network.deploys("ann", wrong(|terms| terms.last = 3)).unwrap_err();
    assert_eq!(
        refused,
        ContractError::WrongStages {
            first: 0,
            last: 3,
            stages: 3
        }
    );
    let refused = network
        .deploys("ann", wrong(|terms| terms.ask.per_1k_in = u128::MAX.into()))
        .unwrap_err();
    assert!(matches!(refused, ContractError::AskTooHigh { .. }));
    let refused = network
        .deploys("ann", wrong(|terms| terms.sla.penalty_bps = 1))
        .unwrap_err();
    assert!(matches!(refused, ContractError::OutOfBounds { field, found: 1, .. } if field == "penalty_bps"));
    let refused = network
        .deploys("ann", wrong(|terms| terms.engine_class = "\t".into()))
        .unwrap_err();
    assert!(matches!(refused, ContractError::Text(_)));
    assert_eq!(
        (network.provider("ann").deployments, network.supply()),
        (0, TOTAL_SUPPLY)
    );
}

#[test]
fn a_retired_version_gets_no_new_deployment_and_keeps_the_old() {
    let mut network = Network::with_ann(10_000);
    network.deploys("ann", terms(0, 2, 1)).unwrap();
    let (bank, registry) = (network.who("bank"), network.registry.clone());
    let model = || "demo/base".parse().unwrap();
    let retire = registry::ExecuteMsg::RetireVersion {
        model: model(),
        version: 1,
    };
    network
        .app
        .execute_contract(bank.clone(), registry.clone(), &retire, &[])
        .unwrap();
    let refused = ContractError::VersionRetired {
        model: model(),
        version: 1,
    };
    assert_eq!(network.deploys("ann", terms(0, 2, 1)).unwrap_err(), refused);
    network.occupies(&[1]).unwrap();
    network
        .app
        .execute_contract(bank, registry, &publish_version(), &[])
        .unwrap();
    let next = DeploymentTerms {
        version: 2,
        ..terms(0, 2, 1)
    };
    network.deploys("ann", next).unwrap();
}

#[test]
fn a_provider_has_32_deployments_at_most() {
    let mut network = Network::with_ann(100_000);
    for _ in 0..32 {
        network.deploys("ann", terms(0, 0, 1)).unwrap();
    }
    let refused = ContractError::TooManyDeployments { max: 32 };
    assert_eq!(network.deploys("ann", terms(0, 0, 1)).unwrap_err(), refused);
    network.execute("ann", &ExecuteMsg::Remove { deployment: 5 }).unwrap();
    network.deploys("ann", terms(0, 0, 1)).unwrap();

    network.joins("bob", 1_000);
    network.deploys("bob", terms(0, 0, 1)).unwrap();
    let list = |provider: Option<&str>, start_after, limit| {
        let provider = provider.map(|name| network.who(name).into());
        let found: DeploymentsResponse = network.query(&QueryMsg::Deployments {
            provider,
            start_after,
            limit,
        });
        found
            .deployments
            .iter()
            .map(|found| found.deployment)
            .collect::<Vec<_>>()
    };
    assert_eq!(list(None, None, Some(5)), [1, 2, 3, 4, 6]);
    assert_eq!(list(Some("ann"), Some(31), None), [32, 33]);
    assert_eq!(list(Some("bob"), None, None), [34]);
    assert_eq!(list(None, Some(31), None), [32, 33, 34]);
    assert_eq!(list(Some("ann"), None, Some(100)).len(), 30);
}

#[test]
fn deployments_of_a_version_are_listed_whatever_state_they_are_in_and_no_others() {
    let mut network = Network::with_ann(100_000);
    network.joins("bob", 3_000);
    network.deploys("ann", terms(0, 0, 1)).unwrap();
    network.deploys("bob", terms(0, 2, 1)).unwrap();
    for _ in 0..31 {
        network.deploys("ann", terms(1, 2, 1)).unwrap();
    }
    let list = |network: &Network, version, start_after, limit| {
        let found: DeploymentsResponse = network.query(&QueryMsg::DeploymentsOf {
            model: "demo/base".parse().unwrap(),
            version,
            start_after,
            limit,
        });
        let numbers = found.deployments.iter().map(|found| found.deployment);
        numbers.collect::<Vec<_>>()
    };
    assert_eq!(list(&network, 1, None, Some(3)), [1, 2, 3]);
    assert_eq!(list(&network, 1, Some(31), None), [32, 33]);
    assert_eq!(list(&network, 1, None, Some(100)).len(), 30);
    assert_eq!(list(&network, 2, None, None), [0u64; 0]);
    // Busy and draining ones keep their blobs; those removed are gone.
    network.occupies(&[1, 2]).unwrap();
    network.execute("bob", &ExecuteMsg::Drain { deployment: 2 }).unwrap();
    network.execute("ann", &ExecuteMsg::Remove { deployment: 3 }).unwrap();
    assert_eq!(list(&network, 1, None, Some(3)), [1, 2, 4]);
}

#[test]
fn a_draining_deployment_finishes_what_it_has_and_takes_nothing_new() {
    let mut network = Network::with_ann(2_000);
    network.deploys("ann", terms(0, 2, 2)).unwrap();
    network.occupies(&[1]).unwrap();
    let drain = ExecuteMsg::Drain { deployment: 1 };
    let sender = network.who("bob").into();
    assert_eq!(
        network.refusal("bob", &drain),
        ContractError::NotOwner { deployment: 1, sender }
    );
    let unknown = ExecuteMsg::Drain { deployment: 9 };
    assert_eq!(
        network.refusal("ann", &unknown),
        ContractError::UnknownDeployment { deployment: 9 }
    );
    assert!(network.draw(0).is_some());
    let done = network.execute("ann", &drain).unwrap();
    let provider = network.who("ann").into();
    assert_eq!(
        events(&done),
        [Event::DeploymentDraining {
            deployment: 1,
            provider
        }]
    );
    assert_eq!(network.draw(0), None);
    let draining = ContractError::Draining { deployment: 1 };
    assert_eq!(network.occupies(&[1]).unwrap_err(), draining);
    assert_eq!(network.refusal("ann", &drain), draining);
    assert_eq!(
        (network.deployment(1).state, network.deployment(1).busy),
        (DeploymentState::Draining, 1)
    );
    network.vacates(&[1], None).unwrap();
    assert_eq!(network.draw(0), None);
}

#[test]
fn only_an_idle_deployment_is_removed_and_its_bond_is_free_again() {
    let mut network = Network::with_ann(2_000);
    network.deploys("ann", terms(0, 2, 2)).unwrap();
    network.occupies(&[1]).unwrap();
    let remove = ExecuteMsg::Remove { deployment: 1 };
    assert_eq!(
        network.refusal("ann", &remove),
        ContractError::Busy { deployment: 1, busy: 1 }
    );
    network.vacates(&[1], None).unwrap();
    let sender = network.who("bob").into();
    assert_eq!(
        network.refusal("bob", &remove),
        ContractError::NotOwner { deployment: 1, sender }
    );
    let done = network.execute("ann", &remove).unwrap();
    let provider = network.who("ann").into();
    assert_eq!(
        events(&done),
        [Event::DeploymentRemoved {
            deployment: 1,
            provider
        }]
    );
    let unknown = ContractError::UnknownDeployment { deployment: 1 };
    assert_eq!(network.refusal("ann", &remove), unknown);
    assert_eq!(network.draw(0), None);
    assert_eq!(network.provider("ann").committed.u128(), 0);
    network.unbonds("ann", 2_000).unwrap();
    let gone = QueryMsg::Deployment { deployment: 1 };
    assert!(network.query_refusal(&gone).contains("there is no deployment 1"));
}
