//! Several attestations in one transaction: each has its own status, and none depends on another.

use fxn_tests::{found, refused, Creation, Protocol, Serving, Work, DEVELOPER, FUNC, MODEL};
use job_orchestrator::{ContractError, Refusal};
use schema::{
    orchestrator::{ItemStatus, JobStatus, NewJob},
    receipt::Attestation,
    Digest, Event, ItemId, BATCH_MAX,
};

/// One provider does everything, so that a job may have as many items as a batch.
fn wide() -> Protocol {
    let mut protocol = Protocol::new();
    protocol.claims("clara", "demo");
    let mut creation = Creation::of("clara", MODEL);
    creation.shares = vec![10_000];
    protocol.publishes(&creation).unwrap();
    let slots = 40;
    protocol.provides(
        "anna",
        &Serving {
            slots,
            ..Serving::stages(0, 0)
        },
    );
    protocol.deposits(DEVELOPER, 10_000 * FUNC);
    protocol
}

fn order(shards: usize) -> NewJob {
    Protocol::order(shards, 1, 1)
}

/// True for each attestation of a batch that was taken, in order.
fn statuses(events: &[Event]) -> Vec<bool> {
    found(events, |event| match event {
        Event::Attested { .. } => Some(true),
        Event::AttestationRefused { .. } => Some(false),
        _ => None,
    })
}

/// Four ways to be wrong.
fn spoil(protocol: &Protocol, good: &Attestation, way: usize) -> Attestation {
    let mut bad = good.clone();
    match way % 4 {
        0 => bad.links[0].receipt.receipt.units_in += 1,
        1 => bad.links.clear(),
        2 => bad.attempt += 1,
        _ => bad.links = protocol.attestation(bad.item, Work::honest(1_001)).links,
    }
    bad
}

#[test]
fn one_bad_attestation_at_any_place_of_32_from_two_jobs_stops_none_of_the_others() {
    let mut protocol = wide();
    for place in 0..BATCH_MAX {
        let jobs = [protocol.starts(order(15)), protocol.starts(order(17))];
        let items: Vec<ItemId> = jobs
            .iter()
            .flat_map(|job| protocol.items(*job))
            .map(|item| item.item)
            .collect();
        let mut batch: Vec<Attestation> = items
            .iter()
            .map(|item| protocol.attestation(*item, Work::honest(10)))
            .collect();
        let good = batch[place].clone();
        batch[place] = spoil(&protocol, &good, place);
        let events = protocol.attests(batch).unwrap();
        let expected: Vec<bool> = (0..BATCH_MAX).map(|index| index != place).collect();
        assert_eq!(statuses(&events), expected);
        for (index, item) in items.iter().enumerate() {
            let status = protocol.item(*item).status;
            let settled = matches!(status, ItemStatus::Settled { .. });
            assert_eq!(
                (settled, status == ItemStatus::Assigned {}),
                (index != place, index == place)
            );
        }
        let running = jobs.map(|job| protocol.job(job).status);
        let hit = usize::from(place >= 15);
        assert_eq!(
            (running[hit], running[1 - hit]),
            (JobStatus::Running, JobStatus::Completed)
        );
        protocol.attests(vec![good]).unwrap();
        assert_eq!(protocol.busy_slots(), 0);
    }
    protocol.assert_conserved();
}

#[test]
fn thirty_three_are_refused_whole_and_nothing_has_changed() {
    let mut protocol = wide();
    let job = protocol.starts(order(33));
    let items = protocol.items(job);
    let batch: Vec<Attestation> = items
        .iter()
        .map(|item| protocol.attestation(item.item, Work::honest(10)))
        .collect();
    let before = protocol.books();
    let refusal = ContractError::AttestationCount { count: 33, max: 32 };
    refused(protocol.attests(batch.clone()), refusal);
    assert_eq!((protocol.items(job), protocol.books()), (items, before));
    protocol.attests(batch[..32].to_vec()).unwrap();
    protocol.attests(batch[32..].to_vec()).unwrap();
    assert_eq!(protocol.job(job).status, JobStatus::Completed);
}

#[test]
fn an_item_that_is_twice_in_a_batch_is_taken_once_and_paid_once() {
    let mut protocol = wide();
    let job = protocol.starts(order(2));
    let items: Vec<ItemId> = protocol.items(job).iter().map(|item| item.item).collect();
    let (good, other) = (
        protocol.attestation(items[0], Work::honest(10)),
        protocol.attestation(items[1], Work::honest(10)),
    );
    // The same bytes, the same item with other work, and the bad one first.
    let more = protocol.attestation(items[0], Work::honest(1_000));
    let bad = spoil(&protocol, &other, 0);
    let batch = vec![good.clone(), good, more, bad, other.clone(), other];
    let events = protocol.attests(batch).unwrap();
    assert_eq!(statuses(&events), [true, false, false, false, true, false]);
    let reasons = found(&events, |event| match event {
        Event::AttestationRefused { reason, .. } => Some(reason.clone()),
        _ => None,
    });
    let again = Refusal::NotAssigned.to_string();
    let forged = Refusal::ReceiptSignature { span: 0 }.to_string();
    assert_eq!(reasons, [again.clone(), again.clone(), forged, again]);
    let paid: Vec<u128> = found(&events, |event| match event {
        Event::Settled { paid, .. } => Some(paid.u128()),
        _ => None,
    });
    assert_eq!(paid.len(), 2);
    assert_eq!(protocol.job(job).paid.u128(), paid.iter().sum::<u128>());
    protocol.assert_conserved();
}

/// Whoever writes megabytes into a receipt pays for them once, and not for an event that repeats them.
#[test]
fn a_refusal_repeats_only_the_beginning_of_what_a_stranger_wrote() {
    let mut protocol = wide();
    let job = protocol.starts(order(1));
    let item = protocol.items(job)[0].item;
    let links = protocol.links_with(item, Work::honest(10), |_, receipt, _| {
        receipt.domain.chain_id = "\u{1b}[2J".repeat(100_000);
        receipt.output_digest = Digest([7; 32]);
    });
    let events = protocol
        .attests(vec![Attestation {
            item,
            attempt: 0,
            links,
        }])
        .unwrap();
    let [Event::AttestationRefused { reason, .. }] = &events[..] else {
        panic!("{events:?}");
    };
    assert!(reason.len() < 1_000 && !reason.contains('\u{1b}'), "{reason}");
}
