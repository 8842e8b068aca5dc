//! New code for contracts: announced, waited for, executed by anyone, and nothing is lost.

use cosmwasm_std::{Addr, WasmMsg};
use fxn_tests::{refused, Protocol, Work, NEXT_VERSION};
use governed::GovernedError;
use schema::{orchestrator::JobStatus, params::StakingParams, staking, Digest, Event};

fn notice(protocol: &Protocol) -> u64 {
    protocol.params.staking.migration_notice_seconds
}

/// What a contract has stored, but for its own version and the proposal.
fn state(protocol: &Protocol, contract: &Addr) -> Vec<(Vec<u8>, Vec<u8>)> {
    let own = |key: &[u8]| key == b"contract_info" || key == b"migration";
    let stored = protocol.state_of(contract);
    stored.into_iter().filter(|(key, _)| !own(key)).collect()
}

fn told(outcome: fxn_tests::Outcome) -> String {
    outcome.expect_err("it is refused").root_cause().to_string()
}

#[test]
fn new_code_runs_after_its_notice_by_anyones_hand_and_finds_all_state() {
    let mut protocol = Protocol::with_market();
    let contracts = protocol.migratable();
    for contract in &contracts {
        let next = protocol.next_codes[contract];
        let events = protocol.proposes_code("admin", contract, next).unwrap();
        let executable_at = protocol.now() + notice(&protocol);
        let pending = protocol.migration_of(contract).pending.unwrap();
        assert_eq!((pending.code_id, pending.executable_at), (next, executable_at));
        assert_ne!(pending.checksum, Digest([0; 32]));
        let checksum = pending.checksum;
        let announced = Event::MigrationProposed {
            code_id: next,
            checksum,
            executable_at,
        };
        assert_eq!(events, [announced]);
    }
    protocol.seconds_pass(notice(&protocol) - 1);
    let job = protocol.starts(Protocol::order(2, 2, 1));
    for contract in &contracts {
        for name in ["admin", "stranger"] {
            let now = protocol.now();
            let executable_at = now + 1;
            let text = GovernedError::MigrationEarly { executable_at, now }.to_string();
            assert_eq!(told(protocol.migrates(name, contract)), text);
        }
    }
    protocol.seconds_pass(1);
    for contract in &contracts {
        let before = state(&protocol, contract);
        let from = protocol.version_of(contract);
        let by = protocol.addr("stranger").into_string();
        let events = protocol.migrates("stranger", contract).unwrap();
        let code_id = protocol.next_codes[contract];
        let to = NEXT_VERSION.to_owned();
        assert_eq!(
            events,
            [Event::MigrationExecuted { code_id, by }, Event::Migrated { from, to }]
        );
        assert_eq!(state(&protocol, contract), before);
        assert_eq!(protocol.code_of(contract), code_id);
        assert_eq!(protocol.version_of(contract), NEXT_VERSION);
        assert_eq!(protocol.migration_of(contract).pending, None);
        assert_eq!(protocol.wasm_admin_of(contract).as_ref(), Some(contract));
    }
    protocol.proves_all(job, Work::honest(100));
    assert_eq!(protocol.job(job).status, JobStatus::Completed);
    protocol.assert_conserved();
}

#[test]
fn nobody_but_the_contract_itself_can_have_it_migrated_and_two_never_are() {
    let mut protocol = Protocol::with_market();
    let code = protocol.next_codes[&protocol.contracts.provider_staking];
    for contract in protocol.contracts.all() {
        let own = protocol.migratable().contains(&contract);
        let expected = own.then(|| contract.clone());
        assert_eq!(protocol.wasm_admin_of(&contract), expected);
        for name in ["admin", "deployer", "treasury", "stranger"] {
            let sender = protocol.addr(name);
            let contract_addr = contract.to_string();
            for msg in [
                WasmMsg::Migrate {
                    contract_addr: contract_addr.clone(),
                    new_code_id: code,
                    msg: b"{}".into(),
                },
                WasmMsg::UpdateAdmin {
                    contract_addr: contract_addr.clone(),
                    admin: sender.to_string(),
                },
                WasmMsg::ClearAdmin { contract_addr },
            ] {
                assert!(protocol.asks_the_chain(&sender, msg.clone()).is_err(), "{name} {msg:?}");
            }
        }
    }
    for contract in [
        protocol.contracts.func_token.clone(),
        protocol.contracts.royalty_escrow.clone(),
    ] {
        assert!(told(protocol.proposes_code("admin", &contract, code)).contains("unknown variant"));
    }
}

#[test]
fn a_code_that_is_no_newer_version_of_the_contract_is_refused_and_can_be_cancelled() {
    let mut protocol = Protocol::with_market();
    let staking = protocol.contracts.provider_staking.clone();
    let version = protocol.version_of(&staking);
    let own = protocol.code_of(&staking);
    let token = protocol.code_of(&protocol.contracts.func_token);
    let registry = protocol.next_codes[&protocol.contracts.model_registry];
    let not_newer = GovernedError::NotNewer {
        from: version.clone(),
        to: version.clone(),
    };
    let other = GovernedError::OtherContract {
        contract: "provider-staking".into(),
        code: "model-registry".into(),
    };
    let codes = [
        (own, not_newer.to_string()),
        (registry, other.to_string()),
        (token, "migrate is not implemented".into()),
    ];
    for (code, sentence) in codes {
        protocol.proposes_code("admin", &staking, code).unwrap();
        protocol.seconds_pass(notice(&protocol));
        let before = protocol.state_of(&staking);
        assert!(
            told(protocol.migrates("stranger", &staking)).contains(&sentence),
            "{sentence}"
        );
        assert_eq!(protocol.state_of(&staking), before);
        assert_ne!(protocol.migration_of(&staking).pending, None);
        protocol.cancels_migration("admin", &staking).unwrap();
    }
    assert_eq!(protocol.code_of(&staking), own);
    // Nor does a version ever go back.
    let next = protocol.next_codes[&staking];
    protocol.proposes_code("admin", &staking, next).unwrap();
    protocol.seconds_pass(notice(&protocol));
    protocol.migrates("stranger", &staking).unwrap();
    protocol.proposes_code("admin", &staking, own).unwrap();
    protocol.seconds_pass(notice(&protocol));
    let back = GovernedError::NotNewer {
        from: NEXT_VERSION.into(),
        to: version,
    };
    assert_eq!(told(protocol.migrates("admin", &staking)), back.to_string());
}

#[test]
fn who_starts_to_unbond_when_new_code_is_proposed_is_out_before_it_runs() {
    let mut protocol = Protocol::with_market();
    let staking = protocol.contracts.provider_staking.clone();
    let amount = protocol.params.staking.bond_per_slot;
    let unbond = staking::ExecuteMsg::Unbond { amount };
    protocol.registers("gina").unwrap();
    protocol.fund("gina", amount.u128());
    protocol
        .send("gina", &staking, amount.u128(), &staking::ReceiveMsg::Bond {})
        .unwrap();
    let next = protocol.next_codes[&staking];
    protocol.proposes_code("admin", &staking, next).unwrap();
    // The admin tries to hold everybody: by a longer unbonding, by a shorter notice.
    let StakingParams {
        unbonding_seconds,
        migration_notice_seconds,
        ..
    } = protocol.params.staking;
    let update = |protocol: &mut Protocol, change: fn(&mut StakingParams)| {
        let mut params = protocol.params.staking.clone();
        change(&mut params);
        protocol.staking("admin", &staking::ExecuteMsg::UpdateParams { params })
    };
    let longer = provider_staking::ContractError::UnbondingRaised {
        from: unbonding_seconds,
        to: unbonding_seconds + 1,
    };
    refused(update(&mut protocol, |params| params.unbonding_seconds += 1), longer);
    let hastier = GovernedError::NoticeChanged {
        fixed: migration_notice_seconds,
        found: migration_notice_seconds - 1,
    };
    refused(
        update(&mut protocol, |params| params.migration_notice_seconds -= 1),
        provider_staking::ContractError::from(hastier),
    );
    let reaction = migration_notice_seconds - unbonding_seconds;
    protocol.seconds_pass(reaction);
    protocol.staking("gina", &unbond).unwrap();
    protocol.seconds_pass(unbonding_seconds - 1);
    assert!(protocol.migrates("admin", &staking).is_err());
    protocol.seconds_pass(1);
    protocol.staking("gina", &staking::ExecuteMsg::Withdraw {}).unwrap();
    assert_eq!(protocol.balance(&protocol.addr("gina")), amount.u128());
    protocol.migrates("admin", &staking).unwrap();
    // Afterwards the parameter is free again, up to the notice.
    protocol.cancels_migration("admin", &staking).unwrap_err();
    update(&mut protocol, |params| params.unbonding_seconds += 1).unwrap();
}

#[test]
fn a_hand_over_takes_the_proposal_with_it() {
    let mut protocol = Protocol::with_market();
    let registry = protocol.contracts.model_registry.clone();
    let next = protocol.next_codes[&registry];
    protocol.proposes_code("admin", &registry, next).unwrap();
    let heir = protocol.addr("heir").into_string();
    let offer = schema::registry::ExecuteMsg::ProposeAdmin {
        admin: Some(heir.clone()),
    };
    protocol.registry("admin", &offer).unwrap();
    protocol
        .registry("heir", &schema::registry::ExecuteMsg::AcceptAdmin {})
        .unwrap();
    assert_eq!(protocol.migration_of(&registry).admin, heir);
    assert!(protocol.cancels_migration("admin", &registry).is_err());
    let events = protocol.cancels_migration("heir", &registry).unwrap();
    assert_eq!(events, [Event::MigrationCancelled { code_id: next }]);
    protocol.seconds_pass(10 * notice(&protocol));
    let refusal = model_registry::ContractError::from(GovernedError::NoMigration);
    refused(protocol.migrates("heir", &registry), refusal);
}

#[test]
fn a_sibling_that_could_change_sooner_is_refused_at_the_start() {
    let mut protocol = Protocol::with_market();
    let mut params = protocol.params.clone();
    params.staking.migration_notice_seconds += 1;
    let error = protocol.starts_another_staking(&params.staking).unwrap_err();
    let registry = protocol.contracts.model_registry.to_string();
    let refusal = GovernedError::SiblingNotice {
        sibling: registry,
        notice_seconds: params.registry.migration_notice_seconds,
        min: params.staking.migration_notice_seconds,
    };
    assert_eq!(error.root_cause().to_string(), refusal.to_string());
    params.orchestrator.migration_notice_seconds -= 1;
    let error = protocol.starts_another_orchestrator(&params.orchestrator).unwrap_err();
    assert_eq!(
        error.root_cause().to_string(),
        "migration_notice_seconds is 34, 35 to 7776000 are allowed"
    );
}
