//! Each rule alone, kept and broken.

use super::*;

#[test]
fn a_complete_chain_of_links_proves_the_output_and_the_units() {
    let result = check(&honest()).unwrap();
    assert_eq!(result.output_digest, Digest::of(&[2]));
    assert_eq!(
        result.units,
        Units {
            requests: 4,
            units_in: 70,
            units_out: 0
        }
    );
}

#[test]
fn a_link_counts_for_one_chain_contract_item_attempt_and_deployment() {
    type Change = fn(&mut Receipt);
    let other = ItemId { replica: 1, ..ITEM };
    let cases: [(Change, Refusal); 7] = [
        (
            |r| r.domain.chain_id.push('x'),
            Refusal::OtherChain {
                span: 1,
                found: "fxn-testx".into(),
            },
        ),
        (
            |r| r.domain.contract.push('x'),
            Refusal::OtherContract {
                span: 1,
                found: "orchestratorx".into(),
            },
        ),
        (|r| r.item.replica = 1, Refusal::OtherItem { span: 1, found: other }),
        (|r| r.attempt = 0, Refusal::SignedForAttempt { span: 1, found: 0 }),
        (
            |r| r.deployment = 99,
            Refusal::OtherDeployment {
                span: 1,
                found: 99,
                expected: 11,
            },
        ),
        (
            |r| r.last = 2,
            Refusal::OtherStages {
                span: 1,
                first: 1,
                last: 2,
                expected_first: 1,
                expected_last: 1,
            },
        ),
        (|r| r.previous = None, Refusal::OtherPrevious { span: 1 }),
    ];
    for (change, refusal) in cases {
        let links = links_of(&spans(), |span, receipt, _| {
            if span == 1 {
                change(receipt);
            }
        });
        assert_eq!(check(&links), Err(refusal));
    }
}

#[test]
fn digests_join_from_the_shard_to_the_output() {
    let changed = |at: usize| {
        links_of(&spans(), move |span, receipt, _| {
            if span == at {
                receipt.input_digest = Digest::of(b"other");
            }
        })
    };
    assert_eq!(check(&changed(0)), Err(Refusal::OtherInput));
    assert_eq!(check(&changed(1)), Err(Refusal::BrokenChain { span: 1 }));
    assert_eq!(check(&changed(2)), Err(Refusal::BrokenChain { span: 2 }));
}

#[test]
fn units_are_equal_in_all_links_and_inside_the_order() {
    let counting = |units: [(u64, u64); 3]| {
        links_of(&spans(), move |span, receipt, _| {
            (receipt.units_in, receipt.units_out) = units[span];
        })
    };
    assert!(check(&counting([(100, 0); 3])).is_ok());
    let too_many = |units_in, units_out| Refusal::TooManyUnits {
        span: 0,
        units_in,
        units_out,
        in_max: 100,
        out_max: 0,
    };
    assert_eq!(check(&counting([(101, 0); 3])), Err(too_many(101, 0)));
    assert_eq!(check(&counting([(70, 1); 3])), Err(too_many(70, 1)));
    assert_eq!(
        check(&counting([(70, 0), (71, 0), (71, 0)])),
        Err(Refusal::OtherUnits { span: 1 })
    );
}

#[test]
fn only_the_keys_of_the_assignment_sign() {
    let mut links = honest();
    links[1].receipt.signature = links[0].receipt.signature;
    assert_eq!(check(&links), Err(Refusal::ReceiptSignature { span: 1 }));
    let mut links = honest();
    let acknowledgement = links[0].acknowledgement.as_mut().unwrap();
    acknowledgement.signature = sign(&spans()[0].host_key, &acknowledgement.acknowledgement.digest());
    assert_eq!(check(&links), Err(Refusal::AcknowledgementSignature { span: 0 }));
}

#[test]
fn every_output_is_acknowledged_by_the_next_host_and_the_last_by_nobody() {
    let without = |at: usize| {
        links_of(&spans(), move |span, _, acknowledgement| {
            if span == at {
                *acknowledgement = None;
            }
        })
    };
    assert_eq!(check(&without(0)), Err(Refusal::Unacknowledged { span: 0 }));
    assert_eq!(check(&without(1)), Err(Refusal::Unacknowledged { span: 1 }));
    let mut links = honest();
    links[2].acknowledgement = links[1].acknowledgement.clone();
    assert_eq!(check(&links), Err(Refusal::StrayAcknowledgement { span: 2 }));
    type Change = fn(&mut Acknowledgement);
    let changes: [Change; 6] = [
        |a| a.domain.chain_id.push('x'),
        |a| a.domain.contract.push('x'),
        |a| a.item.job = 9,
        |a| a.attempt = 0,
        |a| a.deployment = 12,
        |a| a.input_digest = Digest::of(b"other"),
    ];
    for change in changes {
        let links = links_of(&spans(), |span, _, acknowledgement| {
            if span == 0 {
                change(acknowledgement.as_mut().unwrap());
            }
        });
        assert_eq!(check(&links), Err(Refusal::OtherAcknowledgement { span: 0 }));
    }
}

#[test]
fn an_attestation_has_as_many_links_as_the_chain_has_spans() {
    for found in [0, 2, 4] {
        let mut links = honest();
        links.resize(found, honest()[2].clone());
        assert_eq!(check(&links), Err(Refusal::SpanCount { found, expected: 3 }));
    }
}

#[test]
fn evidence_is_the_beginning_of_the_chain_and_its_last_link_may_lack_the_acknowledgement() {
    let mut links = honest();
    assert_eq!(check_prefix(&links[..1]), Ok(()));
    assert_eq!(check_prefix(&links), Ok(()));
    links[1].acknowledgement = None;
    assert_eq!(check_prefix(&links[..2]), Ok(()));
    assert_eq!(check_prefix(&links), Err(Refusal::Unacknowledged { span: 1 }));
    let count = |found| Err(Refusal::SpanCount { found, expected: 3 });
    assert_eq!(check_prefix(&[]), count(0));
    assert_eq!(check_prefix(&[honest(), honest()].concat()), count(6));
    assert!(check_prefix(&links[1..2]).is_err());
}

#[test]
fn blame_goes_to_the_first_span_without_an_acknowledged_receipt() {
    let spans = spans();
    let price = Uint128::new(9);
    let links = honest();
    let mut silent = honest();
    silent[0].acknowledgement = None;
    silent[1].acknowledgement = None;
    let fault = |sender, receiver| Some(Blame::LinkFault { sender, receiver });
    assert_eq!(blame(&spans, &[], price), miss(10));
    assert_eq!(blame(&spans, &links[..1], price), miss(11));
    assert_eq!(blame(&spans, &silent[..1], price), fault(10, 11));
    assert_eq!(blame(&spans, &links[..2], price), miss(12));
    assert_eq!(blame(&spans, &silent[..2], price), fault(11, 12));
    assert_eq!(blame(&spans, &links, price), miss(12));
}

fn outputs(spans: &[Span], outputs: &[u8]) -> Run {
    let outputs = outputs.to_vec();
    run(links_of(spans, move |span, receipt, _| {
        receipt.output_digest = Digest::of(&[outputs[span]]);
    }))
}

/// One span over the first two stages, deployment 20, and one over the last, 21.
fn wide_spans() -> Vec<Span> {
    let mut spans = spans();
    spans.remove(1);
    (spans[0].deployment, spans[0].last, spans[1].deployment) = (20, 1, 21);
    spans
}

#[test]
fn replicas_agree_or_each_is_named_where_it_first_differs() {
    let (spans, wide) = (spans(), wide_spans());
    let same = || outputs(&spans, &[0, 1, 2]);
    assert_eq!(first_differences(&[same()]), None);
    assert_eq!(first_differences(&[same(), outputs(&wide, &[1, 2])]), None);
    assert_eq!(
        first_differences(&[same(), outputs(&spans, &[0, 7, 8])]),
        Some(vec![11, 11])
    );
    // Cut differently: the first common boundary is after stage 1.
    assert_eq!(
        first_differences(&[outputs(&spans, &[5, 7, 8]), outputs(&wide, &[1, 2])]),
        Some(vec![11, 20])
    );
    // Three replicas: those that agree are named where the third left them.
    assert_eq!(
        first_differences(&[same(), same(), outputs(&wide, &[1, 9])]),
        Some(vec![12, 12, 21])
    );
}

#[test]
fn equal_outputs_with_other_counts_are_the_last_spans_difference() {
    let counted = run(links_of(&spans(), |_, receipt, _| receipt.units_in = 71));
    assert_eq!(first_differences(&[run(honest()), counted]), Some(vec![12, 12]));
}
