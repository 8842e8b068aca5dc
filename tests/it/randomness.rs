//! What draws are seeded with, and that nobody who calls can choose or delay it.

use fxn_tests::{found, refused, Outcome, Protocol, Serving, Work, DEVELOPER, FUNC};
use job_orchestrator::ContractError;
use schema::{
    beacon::draw_seed,
    orchestrator::{ExecuteMsg, FailureReason, ItemResponse, ItemStatus, JobStatus, NewJob},
    Digest, Event, ItemId, Round,
};

/// Enough providers that draws differ, most of them at one price.
fn crowded() -> Protocol {
    let mut protocol = Protocol::with_beacon();
    for (name, stage) in [("gina", 0), ("gus", 1), ("wanda", 2), ("walt", 1), ("omar", 2)] {
        protocol.provides(name, &Serving::stages(stage, stage));
    }
    protocol
}

/// A job of one item whose first host does nothing.
fn abandoned(protocol: &mut Protocol) -> ItemResponse {
    let job = protocol.starts(Protocol::order(1, 4, 1));
    protocol.items(job).remove(0)
}

fn round_of(protocol: &Protocol, item: ItemId) -> u64 {
    protocol.item(item).redraw_round.expect("the network has a beacon")
}

fn due_at(protocol: &Protocol, round: u64) -> u64 {
    protocol.params.beacon.as_ref().unwrap().schedule().time_of(round)
}

fn missing(protocol: &Protocol, item: ItemId) -> ContractError {
    let round = round_of(protocol, item);
    let due_at = due_at(protocol, round);
    ContractError::RoundMissing { item, round, due_at }
}

fn round_becomes_due(protocol: &mut Protocol, round: u64) {
    let seconds = due_at(protocol, round).saturating_sub(protocol.now());
    protocol.seconds_pass(seconds + 1);
}

fn drawn(events: &[Event]) -> Vec<(Option<u16>, u8, Digest, Option<u64>)> {
    found(events, |event| match *event {
        Event::Drawn {
            shard,
            attempt,
            seed,
            round,
            ..
        } => Some((shard, attempt, seed, round)),
        _ => None,
    })
}

fn chain_of(item: &ItemResponse) -> Vec<u64> {
    item.spans.iter().map(|span| span.deployment).collect()
}

#[test]
fn a_redraw_takes_its_own_round_and_no_other() {
    let mut protocol = Protocol::with_beacon();
    let item = abandoned(&mut protocol).item;
    let round = round_of(&protocol, item);
    protocol.evidence_window_passes(item);
    refused(protocol.expires(item), missing(&protocol, item));
    round_becomes_due(&mut protocol, round + 5);
    for other in [round - 1, round + 1, round + 5] {
        protocol.posts_round(other).unwrap();
        refused(protocol.expires(item), missing(&protocol, item));
    }
    assert_eq!(protocol.item(item).attempt, 0, "a refused call leaves no trace");
    protocol.posts_round(round).unwrap();
    let events = protocol.expires(item).unwrap();
    // Anyone computes the seed out of what is on chain.
    let known: Round = protocol.round(round).unwrap();
    let seed = draw_seed(&protocol.domain(), item.job, (0, 1), &known);
    assert_eq!(drawn(&events), [(Some(0), 1, seed, Some(round))]);
    assert_eq!(protocol.item(item).attempt, 1);
    protocol.assert_conserved();
}

/// What somebody does between the end of an item's evidence window and its expiry.
type Caller = fn(&mut Protocol, ItemId);

#[test]
fn whoever_calls_whenever_and_after_whatever_the_redraw_is_the_same() {
    let callers: [(&str, Caller); 6] = [
        ("at once", |protocol, item| {
            let round = round_of(protocol, item);
            round_becomes_due(protocol, round);
            protocol.posts_round(round).unwrap();
        }),
        ("much later", |protocol, item| {
            let round = round_of(protocol, item);
            round_becomes_due(protocol, round);
            protocol.posts_round(round).unwrap();
            protocol.seconds_pass(500);
        }),
        ("with a round that was withheld for long", |protocol, item| {
            protocol.seconds_pass(800);
            let round = round_of(protocol, item);
            protocol.posts_round(round).unwrap();
        }),
        ("with every other round posted before", |protocol, item| {
            let round = round_of(protocol, item);
            round_becomes_due(protocol, round + 12);
            for other in (round - 5..round).chain(round + 1..round + 12) {
                protocol.posts_round(other).unwrap();
                refused(protocol.expires(item), missing(protocol, item));
            }
            protocol.posts_round(round).unwrap();
        }),
        ("after a halt", |protocol, item| {
            protocol.halts_for(700);
            let round = round_of(protocol, item);
            protocol.posts_round(round).unwrap();
        }),
        ("in any of the blocks after", |protocol, item| {
            let round = round_of(protocol, item);
            round_becomes_due(protocol, round);
            for _ in 0..7 {
                refused(protocol.expires(item), missing(protocol, item));
                protocol.seconds_pass(1);
            }
            protocol.posts_round(round).unwrap();
        }),
    ];
    let mut redraws = vec![];
    for (how, act) in callers {
        let mut protocol = crowded();
        let item = abandoned(&mut protocol).item;
        protocol.evidence_window_passes(item);
        act(&mut protocol, item);
        let events = protocol.expires(item).unwrap();
        let again = protocol.item(item);
        assert_eq!(again.attempt, 1, "{how}");
        redraws.push((drawn(&events), chain_of(&again)));
    }
    assert!(redraws.iter().all(|redraw| *redraw == redraws[0]), "{redraws:?}");
}

#[test]
fn a_halt_before_the_deadline_moves_neither_the_round_nor_what_is_drawn() {
    let redraw = |halt: u64| {
        let mut protocol = crowded();
        let item = abandoned(&mut protocol).item;
        let round = round_of(&protocol, item);
        if halt > 0 {
            protocol.halts_for(halt);
            assert!(matches!(
                protocol.expires(item).unwrap_err().downcast::<ContractError>().unwrap(),
                ContractError::TooFewBlocks { .. }
            ));
            // A block a second: more than the item's whole time takes without a halt.
            protocol.seconds_pass(30);
        } else {
            protocol.evidence_window_passes(item);
            round_becomes_due(&mut protocol, round);
        }
        assert_eq!(round_of(&protocol, item), round);
        protocol.posts_round(round).unwrap();
        (drawn(&protocol.expires(item).unwrap()), chain_of(&protocol.item(item)))
    };
    assert_eq!(redraw(0), redraw(900));
}

#[test]
fn different_rounds_draw_differently() {
    let mut chains = std::collections::BTreeSet::new();
    for wait in 0..12 {
        let mut protocol = crowded();
        protocol.seconds_pass(3 * wait);
        let item = abandoned(&mut protocol).item;
        let round = round_of(&protocol, item);
        protocol.evidence_window_passes(item);
        round_becomes_due(&mut protocol, round);
        protocol.posts_round(round).unwrap();
        protocol.expires(item).unwrap();
        chains.insert(chain_of(&protocol.item(item)));
    }
    assert!(chains.len() > 1, "the seed decides: {chains:?}");
}

#[test]
fn nobody_can_know_the_round_while_it_can_still_be_changed_what_it_is_for() {
    let mut protocol = Protocol::with_beacon();
    let item = abandoned(&mut protocol);
    let round = item.redraw_round.unwrap();
    let delay = protocol.params.orchestrator.beacon_delay_seconds;
    let due = due_at(&protocol, round);
    assert!(due >= item.evidence_until + delay && due < item.evidence_until + delay + 3);
    // Neither does the chain take it before, but for the seconds by which its clock may be behind.
    protocol.seconds_pass(due - 11 - protocol.now());
    assert!(protocol.posts_round(round).is_err());
}

#[test]
fn a_round_that_never_comes_holds_the_work_up_until_its_job_has_no_time_left_and_no_longer() {
    let mut protocol = Protocol::with_beacon();
    let item = abandoned(&mut protocol).item;
    protocol.evidence_window_passes(item);
    let job = protocol.job(item.job);
    while let Err(error) = protocol.expires(item) {
        let expected = missing(&protocol, item);
        assert_eq!(error.downcast_ref::<ContractError>(), Some(&expected));
        assert!(protocol.now() < job.expires_at, "the hold's date is kept");
        protocol.seconds_pass(60);
    }
    let reason = FailureReason::Time;
    assert_eq!(protocol.item(item).status, ItemStatus::Failed { reason });
    assert_eq!(protocol.job(item.job).status, JobStatus::Incomplete);
    assert_eq!(protocol.busy_slots(), 0);
    let (available, held) = protocol.money(DEVELOPER);
    assert!(
        available > 100 * FUNC && held == 0,
        "refunded, with the culprit's penalty"
    );
    protocol.assert_conserved();
}

#[test]
fn what_needs_no_redraw_waits_for_no_round() {
    // Another replica covers it.
    let mut protocol = Protocol::with_beacon();
    let job = protocol.starts(Protocol::order(1, 4, 2));
    let items = protocol.items(job);
    protocol.proves(items[1].item, Work::honest(100));
    protocol.evidence_window_passes(items[0].item);
    protocol.expires(items[0].item).unwrap();
    assert_eq!(protocol.job(job).status, JobStatus::Completed);
    protocol.assert_conserved();
}

fn differ(protocol: &mut Protocol) -> (u64, [ItemId; 2], Vec<Event>) {
    let job = protocol.starts(Protocol::order(1, 4, 2));
    let items = protocol.items(job);
    let pair = [items[0].item, items[1].item];
    protocol.proves(pair[0], Work::honest(100));
    let events = protocol.proves(pair[1], Work::honest(100).lying_from(1, 7));
    (job, pair, events)
}

#[test]
fn replicas_that_differ_are_drawn_anew_with_a_round_that_is_signed_after_the_last_proof() {
    let mut protocol = crowded();
    let (job, pair, events) = differ(&mut protocol);
    let differed_at = protocol.now();
    let round = round_of(&protocol, pair[0]);
    let due_at = due_at(&protocol, round);
    assert!(due_at > differed_at);
    for item in pair {
        assert!(events.contains(&Event::RoundAwaited { item, round, due_at }));
        assert_eq!(protocol.item(item).status, ItemStatus::AwaitingRound { round });
    }
    assert_eq!(drawn(&events), [], "whoever brought the proof has chosen nothing");
    assert_eq!(protocol.busy_slots(), 0, "nobody waits with a slot");
    refused(protocol.expires(pair[1]), missing(&protocol, pair[1]));
    round_becomes_due(&mut protocol, round + 1);
    protocol.posts_round(round + 1).unwrap();
    refused(protocol.expires(pair[1]), missing(&protocol, pair[1]));
    let overdue: schema::orchestrator::OverdueResponse = protocol.ask(
        &protocol.contracts.job_orchestrator,
        &schema::orchestrator::QueryMsg::Overdue { limit: None },
    );
    assert_eq!(overdue.items, pair, "relayers find it");

    protocol.posts_round(round).unwrap();
    let events = protocol.expires(pair[1]).unwrap();
    let seed = draw_seed(&protocol.domain(), job, (0, 1), &protocol.round(round).unwrap());
    assert_eq!(drawn(&events), [(Some(0), 1, seed, Some(round))]);
    for item in pair {
        let again = protocol.item(item);
        assert_eq!((again.attempt, &again.status), (1, &ItemStatus::Assigned {}));
    }
    let owners = |item| -> Vec<String> {
        let spans = protocol.item(item).spans.into_iter();
        spans.map(|span| span.provider).collect()
    };
    assert!(owners(pair[0]).iter().all(|owner| !owners(pair[1]).contains(owner)));
    assert!(protocol.expires(pair[0]).is_err(), "both were drawn at once");
    protocol.proves_all(job, Work::honest(100));
    assert_eq!(protocol.job(job).status, JobStatus::Completed);
    assert_eq!(protocol.busy_slots(), 0);
    protocol.assert_conserved();
}

#[test]
fn replicas_that_differ_end_with_their_job_if_their_round_never_comes() {
    let mut protocol = crowded();
    let (job, pair, _) = differ(&mut protocol);
    let until = protocol.job(job).expires_at;
    protocol.seconds_pass(until - protocol.now() - 3);
    protocol.expires(pair[0]).unwrap();
    for item in pair {
        let reason = FailureReason::Time;
        assert_eq!(protocol.item(item).status, ItemStatus::Failed { reason });
    }
    assert_eq!(protocol.job(job).status, JobStatus::Incomplete);
    assert_eq!(protocol.money(DEVELOPER), (100 * FUNC, 0));
    refused(protocol.expires(pair[1]), ContractError::NotAssigned { item: pair[1] });
    protocol.assert_conserved();
}

#[test]
fn a_market_starts_before_its_beacon_and_takes_the_newest_round_afterwards() {
    let mut protocol = Protocol::with_beacon();
    let submit = |protocol: &mut Protocol| -> Vec<Event> {
        let job: NewJob = Protocol::order(1, 4, 1);
        let outcome: Outcome = protocol.submits(DEVELOPER, job);
        outcome.unwrap()
    };
    let events = submit(&mut protocol);
    let [(None, 0, _, None)] = drawn(&events)[..] else {
        panic!("{events:?}")
    };
    let newest = protocol.newest_round();
    protocol.posts_round(newest).unwrap();
    protocol.posts_round(newest - 7).unwrap();
    let events = submit(&mut protocol);
    let seed = draw_seed(&protocol.domain(), 2, (0, 0), &protocol.round(newest).unwrap());
    assert_eq!(drawn(&events), [(None, 0, seed, Some(newest))]);
}

#[test]
fn a_network_without_a_beacon_draws_at_once_and_says_so() {
    let mut protocol = Protocol::with_market();
    let item = abandoned(&mut protocol).item;
    assert_eq!(protocol.item(item).redraw_round, None);
    protocol.evidence_window_passes(item);
    let events = protocol.expires(item).unwrap();
    assert!(matches!(drawn(&events)[..], [(Some(0), 1, _, None)]));
}

#[test]
fn jobs_never_outlive_the_rounds_that_their_redraws_need() {
    let mut protocol = Protocol::with_beacon();
    let kept_seconds = 10_000 * 3;
    let mut params = protocol.params.orchestrator.clone();
    params.prune_after_seconds = kept_seconds;
    params.job_seconds_max = kept_seconds - params.beacon_delay_seconds - 60;
    let update = |params| ExecuteMsg::UpdateParams { params };
    protocol.orchestrator("admin", &update(params.clone())).unwrap();
    params.job_seconds_max += 1;
    let forgets = ContractError::BeaconForgets {
        kept_seconds,
        required: kept_seconds + 1,
    };
    refused(protocol.orchestrator("admin", &update(params.clone())), forgets);
    let error = protocol.starts_another_orchestrator(&params).unwrap_err();
    assert!(
        format!("{error:#}").contains("the beacon keeps rounds for 30000 seconds"),
        "{error:#}"
    );
    params.job_seconds_max = 1_800;
    params.beacon_delay_seconds = 3_601;
    let slow = ContractError::BeaconDelay {
        seconds: 3_601,
        max: 3_600,
    };
    refused(protocol.orchestrator("admin", &update(params)), slow);
}

#[test]
fn another_rounds_signature_and_another_keys_are_refused() {
    let mut protocol = Protocol::with_beacon();
    let round = protocol.newest_round();
    let development = beacon::Secret::development();
    let foreign = beacon::Secret::from_secret(&[9; 32]).unwrap();
    for signature in [development.sign(round - 1), foreign.sign(round)] {
        let wrong = randomness_beacon::ContractError::WrongSignature { round };
        refused(protocol.posts_signature(round, signature), wrong);
    }
    protocol.posts_round(round).unwrap();
    let again = protocol.posts_round(round).unwrap();
    assert_eq!(again, [Event::RoundKnown { round }]);
}
