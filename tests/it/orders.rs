//! What can be ordered, and what is refused before anything is held.

use fxn_tests::{refused, Protocol, Serving, DEVELOPER, FUNC, MODEL};
use job_orchestrator::ContractError;
use schema::{
    escrow, orchestrator,
    orchestrator::{InputResponse, NewJob},
    registry, Event,
};

fn order() -> NewJob {
    Protocol::order(2, 4, 1)
}

/// Nobody could do `items` items at this price each, in all the time that the hold leaves.
fn no_supply(items: usize, item_price_max: u128) -> ContractError {
    // 1800 s of hold less 4 of inclusion, 2 of evidence and 3 for rounding.
    ContractError::NoSupply {
        items,
        item_price_max: item_price_max.into(),
        seconds_max: 1_791,
    }
}

/// Refused, and nothing has moved.
#[track_caller]
fn refused_whole<E>(protocol: &mut Protocol, job: NewJob, error: E)
where
    E: std::error::Error + PartialEq + Send + Sync + 'static,
{
    let before = protocol.books();
    refused(protocol.submits(DEVELOPER, job), error);
    assert_eq!(protocol.books(), before);
    assert_eq!(protocol.busy_slots(), 0);
}

#[test]
fn a_job_is_held_and_assigned_and_its_input_can_be_read_until_it_ends() {
    let mut protocol = Protocol::with_market();
    let events = protocol.submits(DEVELOPER, order()).unwrap();
    let job = protocol.job(1);
    assert!(matches!(&events[0], Event::JobSubmitted { job: 1, held, .. } if held.u128() == 2 * FUNC));
    let assigned = events.iter().filter(|event| matches!(event, Event::JobAssigned { .. }));
    assert_eq!(assigned.count(), 2);
    assert_eq!((job.held.u128(), job.shards[1].rows), (2 * FUNC, 4));
    let question = orchestrator::QueryMsg::Input { job: 1, shard: 1 };
    let input: InputResponse = protocol.ask(&protocol.contracts.job_orchestrator, &question);
    assert_eq!(schema::merkle::root(&input.rows), job.shards[1].root);
    protocol.proves_all(1, fxn_tests::Work::honest(10));
    let gone = protocol.try_ask::<InputResponse>(&protocol.contracts.job_orchestrator, &question);
    assert!(gone.unwrap_err().to_string().contains("no input"));
}

#[test]
fn deadlines_are_inclusion_and_the_sum_of_the_slas() {
    let mut protocol = Protocol::with_market();
    let job = protocol.starts(order());
    let item = &protocol.items(job)[0];
    // Inclusion 4 s; each span 5 s and 2 s for 1000 units; evidence 2 s.
    assert_eq!(item.deadline - item.assigned_at, 4 + 3 * (5 + 2));
    assert_eq!(item.evidence_until - item.deadline, 2);
}

#[test]
fn a_developer_without_money_is_refused_with_what_is_missing() {
    let mut protocol = Protocol::with_market();
    let short = royalty_escrow::ContractError::InsufficientFunds {
        available: 0u128.into(),
        required: (2 * FUNC).into(),
    };
    refused(protocol.submits("poor", order()), short);
    protocol.deposits("poor", FUNC);
    let short = royalty_escrow::ContractError::InsufficientFunds {
        available: FUNC.into(),
        required: (2 * FUNC).into(),
    };
    refused(protocol.submits("poor", order()), short);
    assert_eq!(protocol.busy_slots(), 0);
    protocol.assert_conserved();
}

#[test]
fn there_is_no_supply_at_a_price_that_nobody_asks() {
    let mut protocol = Protocol::with_market();
    let mut cheap = order();
    cheap.max_price = 2_000u128.into();
    refused_whole(&mut protocol, cheap.clone(), no_supply(2, 1_000));
    let told = protocol.submits(DEVELOPER, cheap).unwrap_err().root_cause().to_string();
    assert!(
        told.ends_with("2 items at most 1000 ufunc and 1791 seconds each"),
        "{told}"
    );
}

#[test]
fn there_is_no_supply_for_a_class_a_time_or_a_number_that_nobody_offers() {
    let mut protocol = Protocol::with_market();
    let mut foreign = order();
    foreign.engine_class = Some("abacus".into());
    refused_whole(&mut protocol, foreign, no_supply(2, FUNC));
    let mut hasty = order();
    hasty.deadline_seconds = Some(5);
    let in_one_second = ContractError::NoSupply {
        items: 2,
        item_price_max: FUNC.into(),
        seconds_max: 1,
    };
    refused_whole(&mut protocol, hasty, in_one_second);
    // Two providers a stage cannot make three replicas.
    refused_whole(&mut protocol, Protocol::order(1, 4, 3), no_supply(3, FUNC));
    let mut patient = order();
    patient.deadline_seconds = Some(120);
    protocol.submits(DEVELOPER, patient).unwrap();
}

#[test]
fn slots_that_are_busy_are_no_supply() {
    let mut protocol = Protocol::new();
    protocol.claims("clara", "demo");
    protocol.publishes(&fxn_tests::Creation::of("clara", MODEL)).unwrap();
    let narrow = Serving {
        slots: 2,
        ..Serving::stages(0, 2)
    };
    protocol.provides("anna", &narrow);
    protocol.deposits(DEVELOPER, 100 * FUNC);
    refused_whole(&mut protocol, Protocol::order(3, 1, 1), no_supply(3, FUNC));
    let job = protocol.starts(order());
    refused(
        protocol.submits(DEVELOPER, Protocol::order(1, 1, 1)),
        no_supply(1, FUNC),
    );
    protocol.proves_all(job, fxn_tests::Work::honest(10));
    protocol.submits(DEVELOPER, Protocol::order(1, 1, 1)).unwrap();
}

#[test]
fn a_deadline_has_to_leave_time_for_inclusion() {
    let mut protocol = Protocol::with_market();
    let mut hasty = order();
    hasty.deadline_seconds = Some(4);
    let short = ContractError::DeadlineTooShort {
        deadline_seconds: 4,
        inclusion_seconds: 4,
    };
    refused_whole(&mut protocol, hasty, short);
}

#[test]
fn paused_retired_and_unknown_models_take_no_new_work() {
    let mut protocol = Protocol::with_market();
    let status = |status| registry::ExecuteMsg::SetStatus {
        model: MODEL.parse().unwrap(),
        status,
    };
    let retire = registry::ExecuteMsg::RetireVersion {
        model: MODEL.parse().unwrap(),
        version: 1,
    };
    let refusal = |protocol: &mut Protocol, job: NewJob, reason: &str| {
        let error = protocol.submits(DEVELOPER, job).unwrap_err();
        assert!(error.root_cause().to_string().contains(reason), "{error:?}");
        assert_eq!(protocol.money(DEVELOPER), (100 * FUNC, 0));
    };
    protocol
        .registry("clara", &status(registry::ModelStatus::Paused))
        .unwrap();
    refusal(&mut protocol, order(), "is paused");
    protocol
        .registry("clara", &status(registry::ModelStatus::Active))
        .unwrap();
    let mut elsewhere = order();
    elsewhere.endpoint = "chat".into();
    refusal(&mut protocol, elsewhere, "no endpoint chat");
    let mut newer = order();
    newer.version = Some(2);
    refusal(&mut protocol, newer, "no version 2");
    let mut unknown = order();
    unknown.model = "demo/unknown".parse().unwrap();
    refusal(&mut protocol, unknown, "no model demo/unknown");
    protocol.registry("clara", &retire).unwrap();
    let mut retired = order();
    retired.version = Some(1);
    refusal(&mut protocol, retired, "version 1 of demo/minilm is retired");
    refusal(&mut protocol, order(), "no version");
    protocol
        .registry("clara", &status(registry::ModelStatus::Retired))
        .unwrap();
    refusal(&mut protocol, order(), "is retired");
}

#[test]
fn a_greedy_gateway_is_refused() {
    let mut protocol = Protocol::with_market();
    let mut greedy = order();
    greedy.gateway = Some(escrow::Gateway {
        address: protocol.addr("gateway").into_string(),
        bps: 2_001,
    });
    let refusal = royalty_escrow::ContractError::GatewayOutOfBounds { bps: 2_001, max: 2_000 };
    refused_whole(&mut protocol, greedy, refusal);
}

#[test]
fn jobs_are_listed_newest_first_for_all_and_for_one_developer() {
    let mut protocol = Protocol::with_market();
    protocol.deposits("dirk", 10 * FUNC);
    for name in [DEVELOPER, "dirk", DEVELOPER] {
        protocol.submits(name, Protocol::order(1, 1, 1)).unwrap();
    }
    let list = |developer: Option<&str>, start_before| -> Vec<u64> {
        let question = orchestrator::QueryMsg::Jobs {
            developer: developer.map(|name| protocol.addr(name).into_string()),
            start_before,
            limit: Some(2),
        };
        let jobs: orchestrator::JobsResponse = protocol.ask(&protocol.contracts.job_orchestrator, &question);
        jobs.jobs.iter().map(|job| job.job).collect()
    };
    assert_eq!(list(None, None), [3, 2]);
    assert_eq!(list(None, Some(2)), [1]);
    assert_eq!(list(Some(DEVELOPER), None), [3, 1]);
    assert_eq!(list(Some("dirk"), Some(2)), [0u64; 0]);
}
