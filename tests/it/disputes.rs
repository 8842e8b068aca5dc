//! Replicas that do not agree.

use fxn_tests::{found, Protocol, Serving, Work, DEVELOPER, FUNC};
use schema::{
    orchestrator::{Blame, FailureReason, ItemStatus, JobStatus, LinksResponse, QueryMsg},
    Event, ItemId,
};

/// Six providers are enough for two replicas; a redraw without two of them needs more.
fn crowded() -> Protocol {
    let mut protocol = Protocol::with_market();
    for (name, stage) in [("gina", 0), ("gus", 1), ("wanda", 2), ("walt", 1), ("omar", 2)] {
        protocol.provides(name, &Serving::stages(stage, stage));
    }
    protocol
}

fn pair(protocol: &mut Protocol) -> (u64, ItemId, ItemId) {
    let job = protocol.starts(Protocol::order(1, 4, 2));
    let items = protocol.items(job);
    (job, items[0].item, items[1].item)
}

fn differing(events: &[Event]) -> Vec<(ItemId, u64)> {
    found(events, |event| match event {
        Event::ItemDiffers { item, deployment, .. } => Some((*item, *deployment)),
        _ => None,
    })
}

#[test]
fn replicas_that_differ_are_drawn_once_more_and_never_a_third_time() {
    let mut protocol = crowded();
    let (job, first, second) = pair(&mut protocol);
    let (one, other) = (protocol.item(first), protocol.item(second));
    protocol.proves(first, Work::honest(100));
    let events = protocol.proves(second, Work::honest(100).lying_from(1, 7));
    let named = [(first, one.spans[1].deployment), (second, other.spans[1].deployment)];
    assert_eq!(differing(&events), named);
    assert_eq!(protocol.job(job).paid.u128(), 0);
    for item in [first, second] {
        let again = protocol.item(item);
        assert_eq!((again.attempt, &again.status), (1, &ItemStatus::Assigned {}));
        let excluded = again
            .spans
            .iter()
            .all(|span| named.iter().all(|(_, out)| span.deployment != *out));
        assert!(excluded, "neither of the two is drawn again");
        // Receipts of the first attempt are kept.
        let links: LinksResponse = protocol.ask(
            &protocol.contracts.job_orchestrator,
            &QueryMsg::Links { item, attempt: 0 },
        );
        assert_eq!(links.links.len(), 3);
    }
    assert!(matches!(
        protocol.item(first).history[0].blame,
        Blame::Differs { deployment } if deployment == one.spans[1].deployment
    ));
    protocol.assert_conserved();

    protocol.proves(first, Work::honest(100));
    protocol.proves(second, Work::honest(100).lying_from(2, 8));
    for item in [first, second] {
        assert!(matches!(protocol.item(item).status, ItemStatus::Disputed { .. }));
    }
    let ended = protocol.job(job);
    assert_eq!((ended.status, ended.paid.u128()), (JobStatus::Incomplete, 0));
    assert_eq!(protocol.money(DEVELOPER), (100 * FUNC, 0));
    assert_eq!(protocol.busy_slots(), 0);
    protocol.assert_conserved();
}

#[test]
fn after_a_difference_replicas_that_agree_are_paid() {
    let mut protocol = crowded();
    let (job, first, second) = pair(&mut protocol);
    protocol.proves(first, Work::honest(100));
    protocol.proves(second, Work::honest(99));
    protocol.proves_all(job, Work::honest(100));
    for item in [first, second] {
        assert!(matches!(protocol.item(item).status, ItemStatus::Settled { .. }));
    }
    assert_eq!(protocol.job(job).status, JobStatus::Completed);
    protocol.assert_conserved();
}

/// Whichever stage lies, with four providers of each stage: nobody of the first attempt is paid or punished, everything that was
/// signed stays readable, and the job completes with others in the place of the two.
#[test]
fn a_wrong_tensor_costs_one_redraw_and_the_job_completes() {
    for stage in 0..3u8 {
        let mut protocol = crowded();
        protocol.provides("mallory", &Serving::stages(0, 0));
        let bonds = |protocol: &Protocol| -> Vec<u128> {
            let names = ["anna", "axel", "bea", "bert", "cora", "carl"];
            names.map(|name| protocol.provider(name).bond.u128()).into()
        };
        let before = bonds(&protocol);
        let (job, first, second) = pair(&mut protocol);
        let span = usize::from(stage);
        let named = [first, second].map(|item| protocol.item(item).spans[span].deployment);
        protocol.proves(first, Work::honest(100));
        let events = protocol.proves(second, Work::honest(100).lying_from(stage, 7));
        assert_eq!(differing(&events), [(first, named[0]), (second, named[1])]);
        assert!(found(&events, |event| match event {
            Event::Settled { .. } | Event::BondPenalised { .. } => Some(()),
            _ => None,
        })
        .is_empty());

        protocol.proves_all(job, Work::honest(100));
        for (item, lie) in [(first, false), (second, true)] {
            let again = protocol.item(item);
            assert!(matches!(again.status, ItemStatus::Settled { .. }));
            assert!(again.spans.iter().all(|span| !named.contains(&span.deployment)));
            for attempt in [0, 1] {
                let question = QueryMsg::Links { item, attempt };
                let kept: LinksResponse = protocol.ask(&protocol.contracts.job_orchestrator, &question);
                assert_eq!(kept.links.len(), 3);
                let honest = protocol.links(first, Work::honest(100))[span]
                    .receipt
                    .receipt
                    .output_digest;
                let told = kept.links[span].receipt.receipt.output_digest;
                assert_eq!(told != honest, lie && attempt == 0, "{item} attempt {attempt}");
            }
        }
        let ended = protocol.job(job);
        assert_eq!(ended.status, JobStatus::Completed);
        assert_eq!(protocol.money(DEVELOPER), (100 * FUNC - ended.paid.u128(), 0));
        assert_eq!(bonds(&protocol), before);
        protocol.assert_conserved();
    }
}

#[test]
fn a_difference_without_supply_for_another_try_refunds() {
    let mut protocol = Protocol::with_market();
    let (job, first, second) = pair(&mut protocol);
    protocol.proves(first, Work::honest(100));
    protocol.proves(second, Work::honest(100).lying_from(0, 1));
    for item in [first, second] {
        let reason = FailureReason::NoSupply;
        assert_eq!(protocol.item(item).status, ItemStatus::Failed { reason });
    }
    assert_eq!(protocol.job(job).status, JobStatus::Incomplete);
    assert_eq!(protocol.money(DEVELOPER), (100 * FUNC, 0));
    protocol.assert_conserved();
}

#[test]
fn two_of_three_are_no_majority() {
    let mut protocol = crowded();
    // A third replica needs a third provider of each stage, which the crowd has.
    let job = protocol.starts(Protocol::order(1, 4, 3));
    let items: Vec<ItemId> = protocol.items(job).iter().map(|item| item.item).collect();
    protocol.proves(items[0], Work::honest(100));
    protocol.proves(items[1], Work::honest(100));
    let events = protocol.proves(items[2], Work::honest(100).lying_from(2, 1));
    assert_eq!(differing(&events).len(), 3);
    assert_eq!(protocol.job(job).paid.u128(), 0);
    protocol.assert_conserved();
}

#[test]
fn a_covered_replica_does_not_hide_that_the_others_differ() {
    let mut protocol = crowded();
    let job = protocol.starts(Protocol::order(1, 4, 3));
    let items: Vec<ItemId> = protocol.items(job).iter().map(|item| item.item).collect();
    protocol.proves(items[0], Work::honest(100));
    protocol.proves(items[1], Work::honest(100).lying_from(0, 1));
    protocol.evidence_window_passes(items[2]);
    let events = protocol.expires(items[2]).unwrap();
    assert_eq!(differing(&events).len(), 2);
    assert_eq!(protocol.job(job).paid.u128(), 0);
    protocol.assert_conserved();
}
