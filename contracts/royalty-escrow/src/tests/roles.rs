//! Who may do what, and bounds of parameters.

use super::*;

#[test]
fn native_coins_are_refused_with_every_message() {
    let mut escrow = Escrow::new();
    let info = message_info(&addr("dave"), &[Coin::new(1u128, "ustake")]);
    let refused = contract::execute(
        escrow.deps.as_mut(),
        mock_env(),
        info,
        ExecuteMsg::Withdraw { amount: None },
    );
    assert_eq!(refused, Err(ContractError::FundsAttached { kinds: 1 }));
}

#[test]
fn the_siblings_are_made_known_once_by_the_admin() {
    let mut escrow = Escrow::bare();
    escrow.instantiate(params()).unwrap();
    escrow.deposit("dave", 5);
    assert_eq!(escrow.hold(1, 5), Err(not_sibling("orchestrator", "job orchestrator")));
    assert_eq!(escrow.by("mallory", wire()), Err(not_admin("mallory")));
    let response = escrow.by("admin", wire()).unwrap();
    assert!(matches!(events(&response)[..], [Event::Wired { .. }]));
    assert_eq!(escrow.by("admin", wire()), Err(ContractError::AlreadyWired));
    escrow.hold(1, 5).unwrap();
}

#[test]
fn the_admin_is_handed_over_in_two_steps() {
    let mut escrow = Escrow::new();
    let offer = |name: Option<&str>| ExecuteMsg::ProposeAdmin {
        admin: name.map(|name| addr(name).into_string()),
    };
    assert_eq!(escrow.by("mallory", offer(Some("mallory"))), Err(not_admin("mallory")));
    escrow.by("admin", offer(Some("heir"))).unwrap();
    escrow.by("admin", offer(None)).unwrap();
    assert_eq!(escrow.by("heir", ExecuteMsg::AcceptAdmin {}), Err(not_heir("heir")));
    escrow.by("admin", offer(Some("heir"))).unwrap();
    assert_eq!(
        escrow.by("mallory", ExecuteMsg::AcceptAdmin {}),
        Err(not_heir("mallory"))
    );
    escrow.by("heir", ExecuteMsg::AcceptAdmin {}).unwrap();
    let update = ExecuteMsg::UpdateParams { params: params() };
    assert_eq!(escrow.by("admin", update.clone()), Err(not_admin("admin")));
    escrow.by("heir", update).unwrap();
    let config: ConfigResponse = escrow.ask(QueryMsg::Config {});
    assert_eq!(
        (config.admin.admin, config.admin.proposed),
        (addr("heir").into_string(), None)
    );
}

#[test]
fn parameters_have_bounds() {
    let with = |change: fn(&mut EscrowParams)| {
        let mut params = params();
        change(&mut params);
        Escrow::bare().instantiate(params).map(|_| ())
    };
    assert_eq!(with(|p| p.fees.burn_bps = 1_800), Ok(()));
    assert_eq!(
        with(|p| p.fees.burn_bps = 1_801),
        Err(ContractError::FeesTooHigh { sum: 2_001, max: 2_000 })
    );
    assert_eq!(
        with(|p| p.fees.audit_bps = 1),
        Err(ContractError::AuditNotOpen { audit_bps: 1 })
    );
    for seconds in [0, 2_592_001] {
        let mut params = params();
        params.hold_seconds_max = seconds;
        assert_eq!(
            Escrow::bare().instantiate(params),
            Err(ContractError::HoldSecondsOutOfBounds {
                seconds,
                max: 2_592_000
            })
        );
    }
}
