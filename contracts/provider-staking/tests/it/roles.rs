//! The admin, the token, and what is refused from everybody.

use cosmwasm_std::{coins, to_json_binary};
use cw20::Cw20ReceiveMsg;
use cw_multi_test::Executor;
use governed::GovernedError;
use provider_staking::ContractError;
use schema::{msg::AdminResponse, params::StakingParams, staking::*, Event, TOTAL_SUPPLY};

use crate::network::{events, params, terms, Network, AUDIT_WINDOW};

#[test]
fn only_the_token_may_say_that_func_came() {
    let mut network = Network::with_ann(0);
    let hook = |msg| {
        ExecuteMsg::Receive(Cw20ReceiveMsg {
            sender: network.who("ann").into(),
            amount: 1_000_000u128.into(),
            msg,
        })
    };
    let forged = hook(to_json_binary(&ReceiveMsg::Bond {}).unwrap());
    let sender = network.who("ann").into();
    assert_eq!(network.refusal("ann", &forged), ContractError::NotFunc { sender });
    assert_eq!(network.provider("ann").bond.u128(), 0);
}

#[test]
fn native_coins_are_refused_rather_than_lost() {
    let mut network = Network::with_ann(10);
    let (ann, staking) = (network.who("ann"), network.staking.clone());
    network
        .app
        .init_modules(|router, _, storage| router.bank.init_balance(storage, &ann, coins(5, "ustake")))
        .unwrap();
    for msg in [
        ExecuteMsg::Unbond { amount: 1u128.into() },
        ExecuteMsg::Withdraw {},
        ExecuteMsg::AcceptAdmin {},
    ] {
        let refused = network
            .app
            .execute_contract(ann.clone(), staking.clone(), &msg, &coins(5, "ustake"));
        let refused: ContractError = refused.unwrap_err().downcast().unwrap();
        assert_eq!(refused, ContractError::Payment(cw_utils::PaymentError::NonPayable {}));
    }
}

#[test]
fn the_admin_rules_parameters_only() {
    let mut network = Network::unwired();
    network.joins("ann", 5_000);
    network.deploys("ann", terms(0, 2, 1)).unwrap();
    let config = |network: &Network| network.query::<ConfigResponse>(&QueryMsg::Config {});
    let bob = network.who("bob").to_string();
    let wire = network.wire();
    let propose = ExecuteMsg::ProposeAdmin {
        admin: Some(bob.clone()),
    };
    let update = ExecuteMsg::UpdateParams {
        params: StakingParams {
            unbonding_seconds: AUDIT_WINDOW,
            ..params()
        },
    };
    for msg in [&wire, &propose, &update] {
        let sender = bob.clone();
        assert_eq!(network.refusal("bob", msg), GovernedError::NotAdmin { sender }.into());
    }
    assert_eq!(
        (config(&network).royalty_escrow, config(&network).job_orchestrator),
        (None, None)
    );
    let done = network.execute("adam", &wire).unwrap();
    let by = network.who("adam").to_string();
    assert_eq!(events(&done), [Event::Wired { by: by.clone() }]);
    assert_eq!(network.refusal("adam", &wire), ContractError::AlreadyWired);
    assert_eq!(config(&network).royalty_escrow, Some(network.escrow.to_string()));
    let done = network.execute("adam", &update).unwrap();
    assert_eq!(events(&done), [Event::ParamsUpdated { admin: by.clone() }]);
    assert_eq!(config(&network).params.unbonding_seconds, AUDIT_WINDOW);

    for deployment in [
        ExecuteMsg::Drain { deployment: 1 },
        ExecuteMsg::Remove { deployment: 1 },
    ] {
        assert!(
            matches!(network.refusal("adam", &deployment), ContractError::NotOwner { .. }),
            "not even the admin"
        );
    }
    assert!(matches!(
        network.refusal("adam", &ExecuteMsg::Withdraw {}),
        ContractError::NotRegistered { .. }
    ));

    let accept = ExecuteMsg::AcceptAdmin {};
    let sender = bob.clone();
    assert_eq!(
        network.refusal("bob", &accept),
        GovernedError::NotProposedAdmin { sender }.into()
    );
    let done = network.execute("adam", &propose).unwrap();
    assert_eq!(
        events(&done),
        [Event::AdminProposed {
            admin: Some(bob.clone())
        }]
    );
    let proposed = Some(bob.clone());
    assert_eq!(config(&network).admin, AdminResponse { admin: by, proposed });
    let done = network.execute("bob", &accept).unwrap();
    assert_eq!(events(&done), [Event::AdminChanged { admin: bob }]);
    assert!(matches!(
        network.refusal("adam", &update),
        ContractError::Governed(GovernedError::NotAdmin { .. })
    ));
}

#[test]
fn parameters_have_bounds_that_protect_the_bonded() {
    let mut network = Network::new();
    let mut refused = |change: fn(&mut StakingParams)| {
        let mut params = params();
        change(&mut params);
        network
            .refusal("adam", &ExecuteMsg::UpdateParams { params })
            .to_string()
    };
    assert_eq!(
        refused(|p| p.conduct.audit_unit = (TOTAL_SUPPLY + 1).into()),
        "audit_unit is 1000000000000001, 0 to 1000000000000000 are allowed"
    );
    for (seconds, found) in [(0, 0), (101, 101)] {
        assert_eq!(
            refused(match seconds {
                0 => |p| p.conduct.audit_window_seconds = 0,
                _ => |p| p.conduct.audit_window_seconds = 101,
            }),
            format!("audit_window_seconds is {found}, 1 to 100 are allowed"),
            "no longer than bond takes to get out"
        );
    }
    assert_eq!(
        refused(|p| p.conduct.strike_window_seconds = 604_801),
        "strike_window_seconds is 604801, 1 to 604800 are allowed"
    );
    assert_eq!(
        refused(|p| p.conduct.jail_strikes = 0),
        "jail_strikes is 0, 1 to 32 are allowed"
    );
    assert_eq!(
        refused(|p| p.conduct.jail_seconds = 604_801),
        "jail_seconds is 604801, 0 to 604800 are allowed"
    );
    assert_eq!(
        refused(|p| p.conduct.fault_window_seconds = 0),
        "fault_window_seconds is 0, 1 to 604800 are allowed"
    );
    assert_eq!(
        refused(|p| p.bond_per_slot = 0u128.into()),
        "bond_per_slot is 0, 1 to 1000000000000000 are allowed"
    );
    assert_eq!(
        refused(|p| p.listing_fee = (TOTAL_SUPPLY + 1).into()),
        "listing_fee is 1000000000000001, 0 to 1000000000000000 are allowed"
    );
    assert_eq!(
        refused(|p| p.miss_min = 1_001u128.into()),
        "miss_min is 1001, 0 to 1000 are allowed"
    );
    assert_eq!(
        refused(|p| p.unbonding_seconds = 7_776_001),
        "unbonding_seconds is 7776001, 1 to 7776000 are allowed"
    );
    assert_eq!(
        refused(|p| p.unbonding_seconds = 0),
        "unbonding_seconds is 0, 1 to 7776000 are allowed"
    );
    assert_eq!(
        refused(|p| p.unbonding_seconds = p.migration_notice_seconds + 1),
        "migration_notice_seconds is 10000, 10001 to 7776000 are allowed"
    );
    assert_eq!(
        refused(|p| p.migration_notice_seconds -= 1),
        "migration_notice_seconds is 10000 for ever, found 9999"
    );
    assert_eq!(
        refused(|p| p.penalty_bps_min = 10_001),
        "penalty_bps_min is 10001, 0 to 10000 are allowed"
    );
    assert_eq!(
        refused(|p| p.reservation_per_hour_min = 0u128.into()),
        "reservation_per_hour_min is 0, 1 to 1000000000000000 are allowed"
    );
    assert_eq!(
        refused(|p| p.sla_seconds_max = 604_801),
        "sla_seconds_max is 604801, 1 to 604800 are allowed"
    );
}
