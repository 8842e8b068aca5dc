//! Slots, penalties and the draw.

use provider_staking::ContractError;
use schema::{params::StakingParams, staking::*, Event, PublicKey};

use crate::network::{draw_request, events, item, params, profile, terms, Network, MISS_MIN, RESERVE, SLOT_BOND};

#[test]
fn only_the_orchestrator_takes_and_gives_slots() {
    let mut network = Network::unwired();
    let deployments = vec![1];
    let occupy = ExecuteMsg::Occupy {
        items: vec![Occupation {
            item: item(),
            deployments: deployments.clone(),
        }],
    };
    let vacate = ExecuteMsg::Vacate {
        items: vec![Vacancy {
            item: item(),
            deployments,
            ended: Ended::Unpaid {},
        }],
    };
    let refused = |network: &Network, name: &str| ContractError::NotOrchestrator {
        sender: network.who(name).into(),
    };
    for msg in [&occupy, &vacate] {
        assert_eq!(
            network.refusal("orchestrator", msg),
            refused(&network, "orchestrator"),
            "before the wiring"
        );
    }
    let wire = network.wire();
    network.execute("adam", &wire).unwrap();
    for name in ["adam", "ann", "dev"] {
        for msg in [&occupy, &vacate] {
            assert_eq!(network.refusal(name, msg), refused(&network, name));
        }
    }
    let unknown = ContractError::UnknownDeployment { deployment: 1 };
    assert_eq!(network.refusal("orchestrator", &occupy), unknown);
}

#[test]
fn only_the_escrow_takes_and_gives_slots_of_sessions() {
    let mut network = Network::with_ann(2_000);
    network.deploys("ann", terms(0, 2, 2)).unwrap();
    let msgs = |deployments: Vec<u64>| {
        let session = 1;
        let reserve = ExecuteMsg::Reserve {
            session,
            deployments: deployments.clone(),
        };
        [reserve, ExecuteMsg::Free { session, deployments }]
    };
    for name in ["orchestrator", "adam", "ann", "dev"] {
        for msg in msgs(vec![1]) {
            let refused = ContractError::NotEscrow {
                sender: network.who(name).into(),
            };
            assert_eq!(network.refusal(name, &msg), refused);
        }
    }
    let unknown = ContractError::UnknownDeployment { deployment: 7 };
    let crowd = ContractError::TooManyNamed { count: 17, max: 16 };
    assert_eq!(network.reserves(&[1, 7]).unwrap_err(), unknown);
    assert_eq!(network.reserves(&[1; 17]).unwrap_err(), crowd);
    assert_eq!(network.frees(&[1; 17]).unwrap_err(), crowd);
    assert_eq!(network.deployment(1).busy, 0, "all slots of a session or none");
}

#[test]
fn sessions_and_items_share_the_slots_and_the_bond_behind_them() {
    let mut network = Network::with_ann(3_000);
    network.deploys("ann", terms(0, 2, 2)).unwrap();
    network.reserves(&[1]).unwrap();
    network.occupies(&[1]).unwrap();
    let full = ContractError::NoFreeSlot {
        deployment: 1,
        slots: 2,
    };
    assert_eq!(network.reserves(&[1]).unwrap_err(), full);
    assert_eq!(network.draw(0), None);
    let committed = ContractError::BondCommitted {
        free: 1_000u128.into(),
        requested: 1_001u128.into(),
    };
    assert_eq!(network.unbonds("ann", 1_001).unwrap_err(), committed);
    network.execute("ann", &ExecuteMsg::Drain { deployment: 1 }).unwrap();
    let busy = |busy| ContractError::Busy { deployment: 1, busy };
    let remove = ExecuteMsg::Remove { deployment: 1 };
    assert_eq!(network.refusal("ann", &remove), busy(2));
    network.vacates(&[1], None).unwrap();
    assert_eq!(network.refusal("ann", &remove), busy(1), "a session is on it");
    let draining = ContractError::Draining { deployment: 1 };
    assert_eq!(network.reserves(&[1]).unwrap_err(), draining);
    network.frees(&[1, 1]).unwrap();
    assert_eq!(network.deployment(1).busy, 0, "a slot is given back once");
    network.execute("ann", &remove).unwrap();
}

#[test]
fn an_offer_is_everything_that_a_session_pins() {
    let mut network = Network::with_ann(3_000);
    network.joins("bob", 1_000);
    network.deploys("ann", terms(0, 2, 2)).unwrap();
    network.deploys("bob", terms(1, 2, 1)).unwrap();
    let asked = |deployments: Vec<u64>| QueryMsg::Offers { deployments };
    let answer: OffersResponse = network.query(&asked(vec![2, 1]));
    let found = |name: &str, deployment, terms: DeploymentTerms| DeploymentOffer {
        deployment,
        provider: network.who(name).into(),
        host_key: profile(name).host_key,
        terms,
        slot_bond: SLOT_BOND.into(),
    };
    assert_eq!(
        answer.offers,
        [found("bob", 2, terms(1, 2, 1)), found("ann", 1, terms(0, 2, 2))]
    );
    assert!(network
        .query_refusal(&asked(vec![1, 3]))
        .contains("there is no deployment 3"));
    assert!(network
        .query_refusal(&asked(vec![1; 17]))
        .contains("at most 16 deployments at a time, found 17"));
}

#[test]
fn a_deployment_holds_as_many_items_as_it_has_slots() {
    let mut network = Network::with_ann(2_000);
    network.deploys("ann", terms(0, 2, 2)).unwrap();
    for _ in 0..2 {
        assert!(network.draw(0).is_some());
        network.occupies(&[1]).unwrap();
    }
    assert_eq!(network.draw(0), None);
    let refused = ContractError::NoFreeSlot {
        deployment: 1,
        slots: 2,
    };
    assert_eq!(network.occupies(&[1]).unwrap_err(), refused);
    network.vacates(&[1], None).unwrap();
    assert_eq!(
        (network.deployment(1).busy, network.provider("ann").bond.u128()),
        (1, 2_000 + RESERVE)
    );
    assert!(network.draw(0).is_some());
    assert_eq!(
        network.vacates(&[7], None).unwrap_err(),
        ContractError::UnknownDeployment { deployment: 7 }
    );
}

#[test]
fn one_item_that_cannot_be_placed_places_none() {
    let mut network = Network::with_ann(2_000);
    network.deploys("ann", terms(0, 0, 1)).unwrap();
    network.deploys("ann", terms(1, 2, 1)).unwrap();
    network.occupies(&[2]).unwrap();
    assert!(network.occupies(&[1, 2]).is_err());
    assert_eq!(network.deployment(1).busy, 0);
}

#[test]
fn a_culprit_pays_the_developer_through_the_escrow() {
    let mut network = Network::with_ann(1_000);
    network.joins("bob", 1_000);
    network.deploys("ann", terms(0, 0, 1)).unwrap();
    network.deploys("bob", terms(1, 2, 1)).unwrap();
    for (price, penalty) in [(0, MISS_MIN), (801, 201), (1_000, 250)] {
        let bonds = |network: &Network| (network.provider("ann").bond.u128(), network.provider("bob").bond.u128());
        let before = (
            bonds(&network),
            network.escrow_balance(),
            network.provider("bob").penalties.u128(),
        );
        network.occupies(&[1, 2]).unwrap();
        let done = network.vacates(&[1, 2], Some((2, price))).unwrap();
        let event = Event::BondPenalised {
            provider: network.who("bob").into(),
            deployment: 2,
            item: item(),
            amount: penalty.into(),
            beneficiary: network.who("dev").into(),
        };
        let struck = Event::ProviderStruck {
            provider: network.who("bob").into(),
            deployment: 2,
            item: item(),
            strikes: 1,
        };
        assert_eq!(events(&done), [event, struck]);
        assert_eq!(
            bonds(&network),
            (before.0 .0, before.0 .1 - penalty),
            "the other span pays nothing"
        );
        assert_eq!(network.escrow_balance() - before.1, penalty);
        assert_eq!(network.provider("bob").penalties.u128() - before.2, penalty);
        let told = |key: &str, value: &str| {
            let mut attributes = done.events.iter().flat_map(|event| &event.attributes);
            attributes.any(|attribute| attribute.key == key && attribute.value == value)
        };
        let dev = network.who("dev").to_string();
        assert!(told("item", "1.0.0") && told("beneficiary", &dev) && told("paid", &penalty.to_string()));
        network.check_money();
        network.bonds("bob", penalty).unwrap();
        network.passes(60);
    }
}

#[test]
fn a_penalty_never_takes_more_than_the_slots_bond() {
    let mut network = Network::with_ann(5_000);
    network.deploys("ann", terms(0, 2, 1)).unwrap();
    network.occupies(&[1]).unwrap();
    network.vacates(&[1], Some((1, u128::MAX))).unwrap();
    assert_eq!(
        (network.provider("ann").bond.u128(), network.escrow_balance()),
        (5_000 + RESERVE - SLOT_BOND, SLOT_BOND)
    );
    // The slot is given back already: there is nothing at stake any more.
    let again = network.vacates(&[1], Some((1, u128::MAX))).unwrap();
    assert_eq!((events(&again).len(), network.escrow_balance()), (0, SLOT_BOND));
    network.check_money();
}

#[test]
fn a_culprit_named_twice_pays_once() {
    let mut network = Network::with_ann(5_000);
    network.deploys("ann", terms(0, 2, 2)).unwrap();
    network.occupies(&[1, 1]).unwrap();
    network.vacates(&[1, 1], Some((1, 1_000))).unwrap();
    assert_eq!((network.deployment(1).busy, network.escrow_balance()), (0, 250));
    network.check_money();
}

#[test]
fn terms_of_a_listing_outlast_the_parameters() {
    let mut network = Network::with_ann(1_000);
    network.deploys("ann", terms(0, 2, 1)).unwrap();
    let params = StakingParams {
        bond_per_slot: 5_000u128.into(),
        miss_min: 4_000u128.into(),
        penalty_bps_min: 10_000,
        ..params()
    };
    network.execute("adam", &ExecuteMsg::UpdateParams { params }).unwrap();
    network.occupies(&[1]).unwrap();
    network.vacates(&[1], Some((1, 400))).unwrap();
    assert_eq!(network.escrow_balance(), 100, "25 % of the price, as it was listed");
    assert_eq!(network.deployment(1).slot_bond.u128(), SLOT_BOND);
}

#[test]
fn a_slot_without_bond_behind_it_takes_nothing_until_there_is_bond() {
    let mut network = Network::with_ann(2_000);
    network.deploys("ann", terms(0, 2, 2)).unwrap();
    network.occupies(&[1]).unwrap();
    network.occupies(&[1]).unwrap();
    network.vacates(&[1], Some((1, 1_000))).unwrap();
    assert_eq!(network.draw(0), None);
    let refused = ContractError::NoHeadroom {
        deployment: 1,
        required: (2_000 + RESERVE).into(),
        bond: (1_750 + RESERVE).into(),
    };
    assert_eq!(network.occupies(&[1]).unwrap_err(), refused);
    network.bonds("ann", 250).unwrap();
    assert!(network.draw(0).is_some());
    network.occupies(&[1]).unwrap();
}

#[test]
fn a_draw_pins_everything_that_an_assignment_needs() {
    let mut network = Network::with_ann(10_000);
    network.joins("bob", 10_000);
    network.deploys("ann", terms(0, 0, 1)).unwrap();
    network.deploys("bob", terms(1, 2, 1)).unwrap();
    let key = |byte| PublicKey([byte; 33]);
    let rotated = Profile {
        host_key: key(3),
        ..profile("bob")
    };
    network
        .execute("bob", &ExecuteMsg::UpdateProvider { profile: rotated })
        .unwrap();
    let chain = network.draw(0).unwrap();
    assert_eq!((chain.engine_class.as_str(), chain.spans.len()), ("cpu", 2));
    let [first, last] = [&chain.spans[0], &chain.spans[1]];
    assert_eq!(
        (
            first.deployment,
            first.first,
            first.last,
            first.compute_share_bps,
            first.host_key
        ),
        (1, 0, 0, 2_000, key(2))
    );
    assert_eq!(
        (
            last.deployment,
            last.first,
            last.last,
            last.compute_share_bps,
            last.host_key
        ),
        (2, 1, 2, 8_000, key(3))
    );
    assert_eq!(
        (&last.provider, last.ask, last.sla),
        (&network.who("bob").to_string(), terms(1, 2, 1).ask, terms(1, 2, 1).sla)
    );
    // 100 a row, and 10 % royalty on it.
    assert_eq!(
        (
            last.price_max.compute.u128(),
            last.price_max.royalty.u128(),
            last.price_max.gateway.u128()
        ),
        (100, 10, 0)
    );
    network.occupies(&[1, 2]).unwrap();
}

#[test]
fn replicas_go_to_the_cheapest_of_different_owners() {
    let mut network = Network::with_ann(20_000);
    network.joins("bob", 5_000);
    for per_request in [1u128, 2, 3] {
        let mut cheap = terms(0, 2, 5);
        cheap.ask.per_request = per_request.into();
        network.deploys("ann", cheap).unwrap();
    }
    network.deploys("bob", terms(0, 2, 1)).unwrap();
    let mut request = draw_request(1);
    request.shards[0].replicas = 2;
    let drawn: DrawResponse = network.query(&QueryMsg::Draw {
        request: request.clone(),
    });
    let chains = drawn.chains.unwrap();
    let mut owners: Vec<_> = chains.iter().map(|chain| chain.spans[0].provider.clone()).collect();
    owners.sort();
    let mut expected = vec![network.who("ann").to_string(), network.who("bob").to_string()];
    expected.sort();
    assert_eq!(owners, expected);
    request.shards[0].replicas = 3;
    let drawn: DrawResponse = network.query(&QueryMsg::Draw {
        request: request.clone(),
    });
    assert_eq!(drawn.chains, None, "none is an answer, not an error");
    request.shards[0].replicas = 4;
    assert!(network
        .query_refusal(&QueryMsg::Draw { request })
        .contains("1 to 3 replicas, found 4"));
}
