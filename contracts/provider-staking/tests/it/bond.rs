//! Registering, bonding and taking the bond out again.

use provider_staking::ContractError;
use schema::{staking::*, Event, PublicKey};

use crate::network::{events, profile, terms, Network, PEOPLE, PURSE, RESERVE, UNBONDING};

#[test]
fn an_account_is_a_provider_once() {
    let mut network = Network::new();
    let register = ExecuteMsg::RegisterProvider {
        profile: profile("ann"),
    };
    let update = ExecuteMsg::UpdateProvider {
        profile: profile("new"),
    };
    let account = network.who("ann").to_string();
    let unknown = ContractError::NotRegistered {
        account: account.clone(),
    };
    assert_eq!(network.refusal("ann", &update), unknown);
    let done = network.execute("ann", &register).unwrap();
    let event = Event::ProviderRegistered {
        provider: account.clone(),
        endpoint: profile("ann").endpoint,
    };
    assert_eq!(events(&done), [event]);
    assert_eq!(
        network.refusal("ann", &register),
        ContractError::AlreadyRegistered { account }
    );
    let found = network.provider("ann");
    assert_eq!(
        (found.profile, found.bond.u128(), found.deployments),
        (profile("ann"), 0, 0)
    );

    network.execute("ann", &update).unwrap();
    assert_eq!(network.provider("ann").profile, profile("new"));
    let stranger = QueryMsg::Provider {
        provider: network.who("bob").into(),
    };
    assert!(network.query_refusal(&stranger).contains("is not a provider"));
}

#[test]
fn a_profile_is_checked_whenever_it_is_written() {
    let mut network = Network::with_ann(0);
    let broken = |change: fn(&mut Profile)| {
        let mut profile = profile("ann");
        change(&mut profile);
        profile
    };
    let update = |profile: Profile| ExecuteMsg::UpdateProvider { profile };
    let refused = network.refusal(
        "ann",
        &update(broken(|profile| profile.endpoint = "file:///etc".into())),
    );
    assert!(matches!(refused, ContractError::WrongEndpoint { found } if found == "file:///etc"));
    let refused = network.refusal("ann", &update(broken(|profile| profile.host_key = PublicKey([5; 33]))));
    assert_eq!(refused, ContractError::WrongHostKey { found: 5 });
    let refused = network.refusal("ann", &update(broken(|profile| profile.name.clear())));
    assert!(matches!(refused, ContractError::Text(_)));
    let refused = network.refusal(
        "ann",
        &update(broken(|profile| profile.operator = Some("nobody".into()))),
    );
    assert!(matches!(refused, ContractError::Std(_)));
    let register = ExecuteMsg::RegisterProvider {
        profile: broken(|profile| profile.endpoint.clear()),
    };
    assert!(matches!(network.refusal("bob", &register), ContractError::Text(_)));
    assert_eq!(network.provider("ann").profile, profile("ann"));
}

#[test]
fn bond_is_the_senders_own() {
    let mut network = Network::with_ann(0);
    let account = network.who("bob").into();
    assert_eq!(
        network.bonds("bob", 5).unwrap_err(),
        ContractError::NotRegistered { account }
    );
    assert_eq!(network.bonds("ann", 0).unwrap_err(), ContractError::ZeroAmount);
    network.bonds("ann", 300).unwrap();
    let done = network.bonds("ann", 200).unwrap();
    let event = Event::Bonded {
        provider: network.who("ann").into(),
        amount: 200u128.into(),
        bond: 500u128.into(),
    };
    assert_eq!(events(&done), [event]);
    assert_eq!(
        (
            network.provider("ann").bond.u128(),
            network.balance("ann"),
            network.balance("bob")
        ),
        (500, PURSE - 500, PURSE)
    );
    network.check_money();
}

#[test]
fn bond_comes_back_at_its_time_and_once() {
    let mut network = Network::with_ann(3_000);
    network.deploys("ann", terms(0, 2, 2)).unwrap();
    let refused = ContractError::BondCommitted {
        free: 1_000u128.into(),
        requested: 1_001u128.into(),
    };
    assert_eq!(network.unbonds("ann", 1_001).unwrap_err(), refused);
    assert_eq!(network.unbonds("ann", 0).unwrap_err(), ContractError::ZeroAmount);
    let account = network.who("bob").to_string();
    let unknown = ContractError::NotRegistered { account };
    assert_eq!(network.unbonds("bob", 1).unwrap_err(), unknown);
    assert_eq!(network.withdraws("bob").unwrap_err(), unknown);
    let next_release = None;
    assert_eq!(
        network.withdraws("ann").unwrap_err(),
        ContractError::NothingToWithdraw { next_release }
    );

    let done = network.unbonds("ann", 400).unwrap();
    let release_at = network.now() + UNBONDING;
    let event = Event::UnbondingStarted {
        provider: network.who("ann").into(),
        amount: 400u128.into(),
        release_at,
    };
    assert_eq!(events(&done), [event]);
    network.passes(UNBONDING - 1);
    network.unbonds("ann", 100).unwrap();
    let next_release = Some(release_at);
    assert_eq!(
        network.withdraws("ann").unwrap_err(),
        ContractError::NothingToWithdraw { next_release }
    );
    network.check_money();

    network.passes(1);
    let before = network.balance("ann");
    let done = network.withdraws("ann").unwrap();
    let event = Event::BondWithdrawn {
        provider: network.who("ann").into(),
        amount: 400u128.into(),
    };
    assert_eq!((events(&done), network.balance("ann") - before), (vec![event], 400));
    let next_release = Some(release_at + UNBONDING - 1);
    assert_eq!(
        network.withdraws("ann").unwrap_err(),
        ContractError::NothingToWithdraw { next_release }
    );
    network.check_money();
}

#[test]
fn a_longer_wait_does_not_reach_bond_that_is_on_its_way_out() {
    let mut network = Network::with_ann(100);
    network.unbonds("ann", 60).unwrap();
    let params = schema::params::StakingParams {
        unbonding_seconds: 50 * UNBONDING,
        ..crate::network::params()
    };
    network.execute("adam", &ExecuteMsg::UpdateParams { params }).unwrap();
    network.passes(UNBONDING);
    network.withdraws("ann").unwrap();
    assert_eq!(network.balance("ann"), PURSE - 40 - RESERVE);
}

#[test]
fn seven_entries_unbond_at_a_time() {
    let mut network = Network::with_ann(100);
    for _ in 0..7 {
        network.unbonds("ann", 1).unwrap();
        network.passes(1);
    }
    assert_eq!(
        network.unbonds("ann", 1).unwrap_err(),
        ContractError::TooManyUnbonding { max: 7 }
    );
    assert_eq!(network.provider("ann").unbonding.len(), 7);
    network.passes(UNBONDING);
    network.withdraws("ann").unwrap();
    network.unbonds("ann", 1).unwrap();
    network.check_money();
}

#[test]
fn providers_are_listed_page_by_page() {
    let mut network = Network::new();
    for name in PEOPLE {
        network.joins(name, 10);
    }
    let list = |start_after: Option<String>, limit: u32| {
        let limit = Some(limit);
        let found: ProvidersResponse = network.query(&QueryMsg::Providers { start_after, limit });
        found
            .providers
            .into_iter()
            .map(|provider| provider.provider)
            .collect::<Vec<_>>()
    };
    let all = list(None, 30);
    let mut expected: Vec<String> = PEOPLE.iter().map(|name| network.who(name).into()).collect();
    expected.sort();
    assert_eq!(all, expected);
    assert_eq!(list(Some(all[0].clone()), 1), all[1..2]);
    assert_eq!(list(Some(all[2].clone()), 1), [""; 0]);
}
