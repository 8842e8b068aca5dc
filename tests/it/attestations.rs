//! What proves work and what does not, with real keys on the real contract.

use fxn_tests::{found, refused, Host, Protocol, Serving, Work};
use job_orchestrator::{ContractError, Refusal};
use schema::{
    orchestrator::{ItemStatus, JobStatus},
    receipt::{Acknowledgement, Attestation, Receipt},
    Digest, Event, ItemId,
};

fn single(protocol: &mut Protocol) -> (u64, ItemId) {
    let job = protocol.starts(Protocol::order(1, 4, 1));
    (job, protocol.items(job)[0].item)
}

fn reasons(events: &[Event]) -> Vec<String> {
    found(events, |event| match event {
        Event::AttestationRefused { reason, .. } => Some(reason.clone()),
        _ => None,
    })
}

/// The attestation is refused for this reason alone, and the item is as open as before.
#[track_caller]
fn refuses(protocol: &mut Protocol, attestation: Attestation, refusal: &Refusal) {
    let item = attestation.item;
    let events = protocol.attests(vec![attestation]).unwrap();
    assert_eq!(reasons(&events), [refusal.to_string()]);
    assert_eq!(events.len(), 1);
    assert_eq!(protocol.item(item).status, ItemStatus::Assigned {});
}

#[test]
fn an_attestation_is_worth_something_once() {
    let mut protocol = Protocol::with_market();
    let (job, item) = single(&mut protocol);
    let attestation = protocol.attestation(item, Work::honest(100));
    let events = protocol
        .attests(vec![attestation.clone(), attestation.clone()])
        .unwrap();
    assert_eq!(reasons(&events), [Refusal::NotAssigned.to_string()]);
    let paid = protocol.job(job).paid;
    assert!(paid.u128() > 0);
    let events = protocol.attests(vec![attestation]).unwrap();
    assert_eq!(reasons(&events), [Refusal::NotAssigned.to_string()]);
    assert_eq!(protocol.job(job).paid, paid);
    protocol.assert_conserved();
}

#[test]
fn a_bad_attestation_never_stops_a_good_one() {
    let mut protocol = Protocol::with_market();
    let job = protocol.starts(Protocol::order(3, 4, 1));
    let items: Vec<ItemId> = protocol.items(job).iter().map(|item| item.item).collect();
    let mut bad = protocol.attestation(items[1], Work::honest(100));
    bad.links[2].receipt.signature = bad.links[1].receipt.signature;
    let unknown = Attestation {
        item: ItemId { job: 99, ..items[0] },
        attempt: 0,
        links: vec![],
    };
    let batch = vec![
        unknown,
        bad,
        protocol.attestation(items[0], Work::honest(100)),
        protocol.attestation(items[2], Work::honest(100)),
    ];
    let events = protocol.attests(batch).unwrap();
    assert_eq!(
        reasons(&events),
        [
            Refusal::NoItem.to_string(),
            Refusal::ReceiptSignature { span: 2 }.to_string()
        ]
    );
    for settled in [items[0], items[2]] {
        assert!(matches!(protocol.item(settled).status, ItemStatus::Settled { .. }));
    }
    assert_eq!(protocol.item(items[1]).status, ItemStatus::Assigned {});
    assert_eq!(protocol.job(job).status, JobStatus::Running);
    protocol.assert_conserved();
}

#[test]
fn a_batch_has_1_to_32_attestations() {
    let mut protocol = Protocol::with_market();
    let (_, item) = single(&mut protocol);
    let attestation = protocol.attestation(item, Work::honest(100));
    for count in [0, 33] {
        let batch = vec![attestation.clone(); count];
        refused(
            protocol.attests(batch),
            ContractError::AttestationCount { count, max: 32 },
        );
    }
    protocol.attests(vec![attestation; 32]).unwrap();
}

#[test]
fn attestations_are_taken_until_the_deadline_and_the_grace_have_passed() {
    let mut protocol = Protocol::with_market();
    let (job, item) = single(&mut protocol);
    let latest = protocol.item(item).deadline + 1;
    protocol.seconds_pass(latest - protocol.now());
    let attestation = protocol.attestation(item, Work::honest(100));
    let now = latest + 1;
    let mut late = Protocol::with_market();
    let (_, same) = single(&mut late);
    late.seconds_pass(now - late.now());
    refuses(&mut late, attestation.clone(), &Refusal::TooLate { latest, now });
    assert_eq!(same, item);
    protocol.attests(vec![attestation]).unwrap();
    assert_eq!(protocol.job(job).status, JobStatus::Completed);
}

#[test]
fn receipts_of_a_past_attempt_are_worth_nothing() {
    let mut protocol = Protocol::with_market();
    let (_, item) = single(&mut protocol);
    let old = protocol.attestation(item, Work::honest(100));
    protocol.evidence_window_passes(item);
    protocol.expires(item).unwrap();
    refuses(&mut protocol, old.clone(), &Refusal::OtherAttempt { current: 1 });
    let relabelled = Attestation { attempt: 1, ..old };
    refuses(
        &mut protocol,
        relabelled,
        &Refusal::SignedForAttempt { span: 0, found: 0 },
    );
}

#[test]
fn receipts_of_another_item_are_worth_nothing() {
    let mut protocol = Protocol::new();
    protocol.claims("clara", "demo");
    protocol
        .publishes(&fxn_tests::Creation::of("clara", fxn_tests::MODEL))
        .unwrap();
    protocol.provides("anna", &Serving::stages(0, 2));
    protocol.deposits(fxn_tests::DEVELOPER, 10 * fxn_tests::FUNC);
    let job = protocol.starts(Protocol::order(2, 4, 1));
    let items = protocol.items(job);
    let borrowed = Attestation {
        item: items[1].item,
        ..protocol.attestation(items[0].item, Work::honest(100))
    };
    let refusal = Refusal::OtherItem {
        span: 0,
        found: items[0].item,
    };
    refuses(&mut protocol, borrowed, &refusal);
}

type Change = fn(usize, &mut Receipt, &mut Option<Acknowledgement>);

/// Signed for something else: by which change, refused by which rule.
fn misnamed(deployment: u64, contract: &str) -> Vec<(Change, Refusal)> {
    vec![
        (
            |_, r, _| r.domain.chain_id = "fxn-test-2".into(),
            Refusal::OtherChain {
                span: 0,
                found: "fxn-test-2".into(),
            },
        ),
        (
            |_, r, _| r.domain.contract.push('x'),
            Refusal::OtherContract {
                span: 0,
                found: format!("{contract}x"),
            },
        ),
        (
            |_, r, _| r.deployment += 1_000,
            Refusal::OtherDeployment {
                span: 0,
                found: deployment + 1_000,
                expected: deployment,
            },
        ),
    ]
}

/// Joined in the wrong place.
fn misjoined() -> Vec<(Change, Refusal)> {
    vec![
        (
            |index, r, _| {
                if index == 0 {
                    r.input_digest = Digest([7; 32]);
                }
            },
            Refusal::OtherInput,
        ),
        (
            |index, r, _| {
                if index == 2 {
                    r.input_digest = Digest([7; 32]);
                }
            },
            Refusal::BrokenChain { span: 2 },
        ),
        (
            |index, r, _| {
                if index == 1 {
                    r.previous = None;
                }
            },
            Refusal::OtherPrevious { span: 1 },
        ),
        (
            |_, r, _| r.units_in = 1_001,
            Refusal::TooManyUnits {
                span: 0,
                units_in: 1_001,
                units_out: 0,
                in_max: 1_000,
                out_max: 0,
            },
        ),
        (
            |index, r, _| {
                if index == 2 {
                    r.units_in += 1;
                }
            },
            Refusal::OtherUnits { span: 2 },
        ),
        (
            |index, _, a| {
                if index == 1 {
                    a.as_mut().unwrap().input_digest = Digest([7; 32]);
                }
            },
            Refusal::OtherAcknowledgement { span: 1 },
        ),
    ]
}

#[test]
fn what_is_signed_for_something_else_is_refused_by_its_rule() {
    let mut protocol = Protocol::with_market();
    let (_, item) = single(&mut protocol);
    let deployment = protocol.item(item).spans[0].deployment;
    let contract = protocol.domain().contract;
    for (change, refusal) in misnamed(deployment, &contract).into_iter().chain(misjoined()) {
        let attestation = Attestation {
            item,
            attempt: 0,
            links: protocol.links_with(item, Work::honest(100), change),
        };
        refuses(&mut protocol, attestation, &refusal);
    }
    let short = {
        let mut short = protocol.attestation(item, Work::honest(100));
        short.links.pop();
        short
    };
    let refusal = Refusal::SpanCount { found: 2, expected: 3 };
    refuses(&mut protocol, short, &refusal);
}

#[test]
fn strangers_and_damaged_signatures_sign_nothing() {
    let mut protocol = Protocol::with_market();
    let (job, item) = single(&mut protocol);
    let honest = protocol.attestation(item, Work::honest(100));
    let mallory = Host::named("mallory");

    let mut forged = honest.clone();
    let digest = forged.links[1].receipt.receipt.digest();
    forged.links[1].receipt.signature = mallory.sign(&digest);
    refuses(&mut protocol, forged, &Refusal::ReceiptSignature { span: 1 });

    let mut forged = honest.clone();
    let acknowledgement = forged.links[0].acknowledgement.as_mut().unwrap();
    acknowledgement.signature = mallory.sign(&acknowledgement.acknowledgement.digest());
    refuses(&mut protocol, forged, &Refusal::AcknowledgementSignature { span: 0 });

    // Bytes that are no signature at all are refused, they do not abort the message.
    for byte in [0x00, 0xff] {
        let mut damaged = honest.clone();
        damaged.links[0].receipt.signature.0 = [byte; 64];
        refuses(&mut protocol, damaged, &Refusal::ReceiptSignature { span: 0 });
    }
    protocol.attests(vec![honest]).unwrap();
    assert_eq!(protocol.job(job).status, JobStatus::Completed);
}

#[test]
fn the_key_of_the_day_of_assignment_counts() {
    let mut protocol = Protocol::with_market();
    let (job, item) = single(&mut protocol);
    let old = protocol.attestation(item, Work::honest(100));
    for name in fxn_tests::PROVIDERS {
        let mut profile = protocol.profile(name);
        profile.host_key = Host::named("gina").public_key();
        protocol
            .staking(name, &schema::staking::ExecuteMsg::UpdateProvider { profile })
            .unwrap();
    }
    protocol.attests(vec![old]).unwrap();
    assert_eq!(protocol.job(job).status, JobStatus::Completed);
    let next = protocol.starts(Protocol::order(1, 1, 1));
    let key = protocol.items(next)[0].spans[0].host_key;
    assert_eq!(key, Host::named("gina").public_key());
}
