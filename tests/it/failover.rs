//! Hosts die: who is blamed, who pays, and how the work is done all the same.

use fxn_tests::{found, refused, Protocol, Serving, Work, DEVELOPER, FUNC, PROVIDERS};
use job_orchestrator::ContractError;
use schema::{
    escrow::Reason,
    orchestrator::{Blame, FailureReason, ItemResponse, ItemStatus, JobStatus, ShardStatus},
    Event, ItemId,
};

/// A job of one item, assigned.
fn single(protocol: &mut Protocol) -> (u64, ItemResponse) {
    let job = protocol.starts(Protocol::order(1, 4, 1));
    (job, protocol.items(job).remove(0))
}

fn price_max(item: &ItemResponse) -> u128 {
    item.spans
        .iter()
        .map(|span| span.price_max.total().unwrap().u128())
        .sum()
}

/// The penalty that follows from the SLA: 20 % of the price, rounded up, at least `miss_min`.
fn penalty(protocol: &Protocol, item: &ItemResponse) -> u128 {
    (price_max(item) * 2_000)
        .div_ceil(10_000)
        .max(protocol.params.staking.miss_min.u128())
}

/// What the developer has of it: `stranger` expires, and has a tenth, rounded down.
fn compensation(penalty: u128) -> u128 {
    penalty - penalty / 10
}

fn name_of(protocol: &Protocol, address: &str) -> &'static str {
    let mut names = PROVIDERS.into_iter();
    names
        .find(|name| protocol.addr(name).as_str() == address)
        .expect("one of the six")
}

#[test]
fn a_first_host_that_never_answers_pays_the_developer_and_another_takes_over() {
    let mut protocol = Protocol::with_market();
    let (job, item) = single(&mut protocol);
    let culprit = &item.spans[0];
    let name = name_of(&protocol, &culprit.provider);
    let bond = protocol.provider(name).bond.u128();
    let owed = penalty(&protocol, &item);

    protocol.evidence_window_passes(item.item);
    let events = protocol.expires(item.item).unwrap();
    assert!(events.contains(&Event::ItemMissed {
        item: item.item,
        attempt: 0,
        deployment: culprit.deployment
    }));
    assert_eq!(protocol.provider(name).bond.u128(), bond - owed);
    assert_eq!(
        protocol.earned(&protocol.addr(DEVELOPER), Reason::Penalty),
        compensation(owed)
    );
    protocol.assert_conserved();

    let again = protocol.item(item.item);
    assert_eq!((again.attempt, &again.status), (1, &ItemStatus::Assigned {}));
    assert_ne!(again.spans[0].provider, culprit.provider);
    assert_eq!(
        again.history[0].blame,
        Blame::Miss {
            deployment: culprit.deployment,
            penalty_price: price_max(&item).into()
        }
    );
    protocol.proves_all(job, Work::honest(100));
    assert_eq!(protocol.job(job).status, JobStatus::Completed);
    assert_eq!(protocol.busy_slots(), 0);
    protocol.assert_conserved();
}

#[test]
fn a_middle_host_that_dies_after_its_acknowledgement_has_missed() {
    let mut protocol = Protocol::with_market();
    let (job, item) = single(&mut protocol);
    let culprit = &item.spans[1];
    let name = name_of(&protocol, &culprit.provider);
    let bond = protocol.provider(name).bond.u128();
    let owed = penalty(&protocol, &item);
    let links = protocol.links(item.item, Work::honest(100));

    protocol.deadline_passes(item.item);
    let events = protocol.posts_evidence(item.item, links[..1].to_vec()).unwrap();
    assert_eq!(
        events,
        [Event::EvidencePosted {
            item: item.item,
            attempt: 0,
            spans: 1
        }]
    );
    protocol.evidence_window_passes(item.item);
    let events = protocol.expires(item.item).unwrap();
    assert!(events.contains(&Event::ItemMissed {
        item: item.item,
        attempt: 0,
        deployment: culprit.deployment
    }));
    assert_eq!(protocol.provider(name).bond.u128(), bond - owed);
    assert_eq!(
        protocol.earned(&protocol.addr(DEVELOPER), Reason::Penalty),
        compensation(owed)
    );
    assert_ne!(protocol.item(item.item).spans[1].provider, culprit.provider);
    protocol.proves_all(job, Work::honest(100));
    assert_eq!(protocol.job(job).status, JobStatus::Completed);
    protocol.assert_conserved();
}

#[test]
fn a_middle_host_that_dies_before_its_acknowledgement_is_a_link_fault_and_nobody_pays() {
    let mut protocol = Protocol::with_market();
    let (job, item) = single(&mut protocol);
    let bonds: Vec<u128> = PROVIDERS
        .iter()
        .map(|name| protocol.provider(name).bond.u128())
        .collect();
    let mut links = protocol.links(item.item, Work::honest(100));
    links[0].acknowledgement = None;

    protocol.deadline_passes(item.item);
    protocol.posts_evidence(item.item, links[..1].to_vec()).unwrap();
    protocol.evidence_window_passes(item.item);
    let (sender, receiver) = (item.spans[0].deployment, item.spans[1].deployment);
    let events = protocol.expires(item.item).unwrap();
    assert!(events.contains(&Event::ItemLinkFault {
        item: item.item,
        attempt: 0,
        sender,
        receiver
    }));
    let after: Vec<u128> = PROVIDERS
        .iter()
        .map(|name| protocol.provider(name).bond.u128())
        .collect();
    assert_eq!(after, bonds);
    assert_eq!(protocol.earned(&protocol.addr(DEVELOPER), Reason::Penalty), 0);
    let again = protocol.item(item.item);
    assert_eq!(again.history[0].blame, Blame::LinkFault { sender, receiver });
    assert_ne!(
        (again.spans[0].deployment, again.spans[1].deployment),
        (sender, receiver)
    );
    protocol.proves_all(job, Work::honest(100));
    assert_eq!(protocol.job(job).status, JobStatus::Completed);
    protocol.assert_conserved();
}

#[test]
fn a_complete_chain_that_nobody_attested_is_the_last_spans_miss() {
    let mut protocol = Protocol::with_market();
    let (_, item) = single(&mut protocol);
    let links = protocol.links(item.item, Work::honest(100));
    protocol.deadline_passes(item.item);
    protocol.posts_evidence(item.item, links).unwrap();
    protocol.evidence_window_passes(item.item);
    let events = protocol.expires(item.item).unwrap();
    assert!(events.contains(&Event::ItemMissed {
        item: item.item,
        attempt: 0,
        deployment: item.spans[2].deployment
    }));
}

#[test]
fn evidence_is_taken_in_its_window_and_only_if_it_proves_more() {
    let mut protocol = Protocol::with_market();
    let (_, item) = single(&mut protocol);
    let links = protocol.links(item.item, Work::honest(100));
    let mut silent = links.clone();
    silent[0].acknowledgement = None;
    let (deadline, evidence_until) = (item.deadline, item.evidence_until);

    let early = protocol.posts_evidence(item.item, links[..1].to_vec());
    let now = protocol.now();
    refused(early, ContractError::EvidenceEarly { deadline, now });
    protocol.deadline_passes(item.item);
    protocol.posts_evidence(item.item, silent[..1].to_vec()).unwrap();
    let nothing = ContractError::NothingNew { receipts: 1 };
    refused(protocol.posts_evidence(item.item, silent[..1].to_vec()), nothing);
    protocol.posts_evidence(item.item, links[..1].to_vec()).unwrap();
    let nothing = ContractError::NothingNew { receipts: 1 };
    refused(protocol.posts_evidence(item.item, silent[..1].to_vec()), nothing);
    protocol.posts_evidence(item.item, links[..2].to_vec()).unwrap();
    let nothing = ContractError::NothingNew { receipts: 1 };
    refused(protocol.posts_evidence(item.item, links[..1].to_vec()), nothing);
    protocol.evidence_window_passes(item.item);
    let late = protocol.posts_evidence(item.item, links);
    let now = protocol.now();
    refused(late, ContractError::EvidenceLate { evidence_until, now });
}

#[test]
fn evidence_that_is_forged_or_of_another_attempt_is_refused() {
    let mut protocol = Protocol::with_market();
    let (_, item) = single(&mut protocol);
    protocol.deadline_passes(item.item);
    let mut forged = protocol.links(item.item, Work::honest(100));
    forged[0].receipt.signature = forged[1].receipt.signature;
    refused(
        protocol.posts_evidence(item.item, forged),
        ContractError::Refusal(job_orchestrator::Refusal::ReceiptSignature { span: 0 }),
    );
    let links = protocol.links(item.item, Work::honest(100));
    let other = schema::orchestrator::ExecuteMsg::PostEvidence {
        item: item.item,
        attempt: 1,
        links,
    };
    let refusal = ContractError::OtherAttempt {
        item: item.item,
        attempt: 1,
        current: 0,
    };
    refused(protocol.orchestrator("relayer", &other), refusal);
}

#[test]
fn an_item_is_not_expired_early() {
    let mut protocol = Protocol::with_market();
    let (_, item) = single(&mut protocol);
    let evidence_until = item.evidence_until;
    protocol.seconds_pass(evidence_until - protocol.now());
    let now = protocol.now();
    refused(
        protocol.expires(item.item),
        ContractError::NotOverdue { evidence_until, now },
    );
    assert!(overdue(&protocol).is_empty());
    protocol.seconds_pass(1);
    assert_eq!(overdue(&protocol), [item.item]);
    protocol.expires(item.item).unwrap();
    assert!(overdue(&protocol).is_empty());
}

fn overdue(protocol: &Protocol) -> Vec<ItemId> {
    let question = schema::orchestrator::QueryMsg::Overdue { limit: None };
    let answer: schema::orchestrator::OverdueResponse = protocol.ask(&protocol.contracts.job_orchestrator, &question);
    answer.items
}

#[test]
fn a_halted_chain_expires_nobody() {
    let mut protocol = Protocol::with_market();
    let (_, item) = single(&mut protocol);
    protocol.halts_for(600);
    let required = item.evidence_until - item.assigned_at;
    refused(
        protocol.expires(item.item),
        ContractError::TooFewBlocks { passed: 1, required },
    );
    protocol.seconds_pass(required - 1);
    protocol.expires(item.item).unwrap();
}

/// The host was done in time; the chain was not there to hear it.
#[test]
fn what_a_halted_chain_could_not_take_in_is_taken_when_it_goes_on() {
    let mut protocol = Protocol::with_market();
    let (job, item) = single(&mut protocol);
    let attestation = protocol.attestation(item.item, Work::honest(100));
    protocol.halts_for(600);
    protocol.attests(vec![attestation]).unwrap();
    assert_eq!(protocol.job(job).status, JobStatus::Completed);

    // Evidence too: the first span delivered, and the second took it.
    let (_, item) = single(&mut protocol);
    let links = protocol.links(item.item, Work::honest(100));
    protocol.halts_for(600);
    protocol.posts_evidence(item.item, links[..1].to_vec()).unwrap();
    protocol.seconds_pass(item.evidence_until - item.assigned_at - 1);
    let events = protocol.expires(item.item).unwrap();
    let missed = found(&events, |event| match event {
        Event::ItemMissed { deployment, .. } => Some(*deployment),
        _ => None,
    });
    assert_eq!(missed, [item.spans[1].deployment]);

    // Also if the halt began in the middle of its time.
    let (job, item) = single(&mut protocol);
    let attestation = protocol.attestation(item.item, Work::honest(100));
    protocol.seconds_pass((item.deadline - item.assigned_at) / 2);
    protocol.halts_for(600);
    protocol.attests(vec![attestation]).unwrap();
    assert_eq!(protocol.job(job).status, JobStatus::Completed);

    // Once blocks enough were made, late is late.
    let (_, item) = single(&mut protocol);
    let attestation = protocol.attestation(item.item, Work::honest(100));
    protocol.seconds_pass(item.deadline - item.assigned_at);
    protocol.halts_for(600);
    protocol.attests(vec![attestation]).unwrap();
    assert_eq!(protocol.item(item.item).status, ItemStatus::Assigned {});
    protocol.seconds_pass(2);
    protocol.expires(item.item).unwrap();
}

/// How slow a chain may be is a parameter of it, and a job goes by the one that it was submitted with.
#[test]
fn a_chain_with_slow_blocks_needs_fewer_of_them() {
    let mut protocol = Protocol::with_market();
    let (_, before) = single(&mut protocol);
    let mut params = protocol.params.orchestrator.clone();
    params.block_seconds_max = 10;
    let update = schema::orchestrator::ExecuteMsg::UpdateParams { params };
    protocol.orchestrator("admin", &update).unwrap();
    let (_, after) = single(&mut protocol);
    protocol.halts_for(600);
    for (item, seconds) in [(before, 1), (after, 10)] {
        let required = (item.evidence_until - item.assigned_at).div_ceil(seconds);
        let passed = 1;
        refused(
            protocol.expires(item.item),
            ContractError::TooFewBlocks { passed, required },
        );
    }
}

#[test]
fn a_missing_replica_is_covered_by_the_other() {
    let mut protocol = Protocol::with_market();
    let job = protocol.starts(Protocol::order(1, 4, 2));
    let [first, second] = &protocol.items(job)[..] else {
        panic!("two replicas")
    };
    let before = protocol.money(DEVELOPER);
    protocol.proves(first.item, Work::honest(100));
    assert!(matches!(protocol.item(first.item).status, ItemStatus::Attested { .. }));
    assert_eq!(protocol.job(job).paid.u128(), 0);
    refused(
        protocol.expires(first.item),
        ContractError::Waiting { item: first.item },
    );
    protocol.evidence_window_passes(second.item);
    let events = protocol.expires(second.item).unwrap();
    assert!(events.contains(&Event::ItemFailed {
        item: second.item,
        reason: "covered".into()
    }));
    assert!(matches!(protocol.item(first.item).status, ItemStatus::Settled { .. }));
    assert_eq!(
        protocol.item(second.item).status,
        ItemStatus::Failed {
            reason: FailureReason::Covered
        }
    );
    let ended = protocol.job(job);
    assert_eq!(ended.status, JobStatus::Completed);
    assert_eq!(ended.shards[0].status, ShardStatus::Done);
    // One replica was paid for; the other's part is back, with its penalty.
    let owed = penalty(&protocol, second);
    assert_eq!(
        protocol.money(DEVELOPER).0,
        before.0 + before.1 - ended.paid.u128() + compensation(owed)
    );
    assert_eq!(protocol.busy_slots(), 0);
    protocol.assert_conserved();
}

#[test]
fn a_shard_is_drawn_anew_only_when_no_replica_of_it_is_left() {
    let mut protocol = Protocol::with_market();
    let job = protocol.starts(Protocol::order(1, 4, 2));
    let [first, second] = &protocol.items(job)[..] else {
        panic!("two replicas")
    };
    protocol.evidence_window_passes(second.item);
    protocol.expires(second.item).unwrap();
    assert_eq!(
        protocol.item(second.item).status,
        ItemStatus::Failed {
            reason: FailureReason::Covered
        }
    );
    assert_eq!(protocol.item(first.item).attempt, 0);
    protocol.expires(first.item).unwrap();
    assert_eq!(protocol.item(first.item).attempt, 1);
    protocol.proves(first.item, Work::honest(100));
    assert_eq!(protocol.job(job).status, JobStatus::Completed);
    protocol.assert_conserved();
}

#[test]
fn a_redraw_that_finds_nobody_refunds_the_developer() {
    let mut protocol = Protocol::with_market();
    let (job, item) = single(&mut protocol);
    let first = item.spans[0].provider.clone();
    protocol.evidence_window_passes(item.item);
    protocol.expires(item.item).unwrap();
    let second = protocol.item(item.item);
    assert_ne!(second.spans[0].provider, first);
    // Both providers of stage 0 have missed now.
    protocol.evidence_window_passes(item.item);
    let events = protocol.expires(item.item).unwrap();
    assert!(events.contains(&Event::ItemFailed {
        item: item.item,
        reason: "no_supply".into()
    }));
    assert_eq!(
        protocol.item(item.item).status,
        ItemStatus::Failed {
            reason: FailureReason::NoSupply
        }
    );
    let ended = protocol.job(job);
    assert_eq!((ended.status, ended.paid.u128()), (JobStatus::Incomplete, 0));
    let penalties = compensation(penalty(&protocol, &item)) + compensation(penalty(&protocol, &second));
    assert_eq!(protocol.money(DEVELOPER), (100 * FUNC + penalties, 0));
    protocol.assert_conserved();
}

#[test]
fn a_job_whose_attempts_are_used_up_is_refunded() {
    let mut protocol = Protocol::with_market();
    for name in ["gina", "gus", "wanda", "walt", "omar"] {
        protocol.provides(name, &Serving::stages(0, 0));
    }
    let (job, item) = single(&mut protocol);
    let mut culprits = vec![];
    for attempt in 0..protocol.params.orchestrator.attempts_max {
        let current = protocol.item(item.item);
        assert_eq!(current.attempt, attempt);
        culprits.push(current.spans[0].deployment);
        protocol.evidence_window_passes(item.item);
        protocol.expires(item.item).unwrap();
        protocol.assert_conserved();
    }
    culprits.sort_unstable();
    culprits.dedup();
    assert_eq!(culprits.len(), 5, "nobody is drawn again after a miss");
    let failed = protocol.item(item.item);
    assert_eq!(
        failed.status,
        ItemStatus::Failed {
            reason: FailureReason::Attempts
        }
    );
    assert_eq!(failed.history.len(), 5);
    assert_eq!(protocol.job(job).status, JobStatus::Incomplete);
    assert_eq!(protocol.money(DEVELOPER).1, 0);
    assert_eq!(protocol.busy_slots(), 0);
    refused(
        protocol.expires(item.item),
        ContractError::NotAssigned { item: item.item },
    );
}

#[test]
fn the_others_of_a_job_go_on_when_one_shard_fails() {
    let mut protocol = Protocol::with_market();
    let job = protocol.starts(Protocol::order(2, 4, 1));
    let [lost, good] = &protocol.items(job)[..] else {
        panic!("two shards")
    };
    for _ in 0..2 {
        protocol.evidence_window_passes(lost.item);
        protocol.expires(lost.item).unwrap();
    }
    assert_eq!(protocol.job(job).shards[0].status, ShardStatus::Failed);
    assert_eq!(protocol.job(job).status, JobStatus::Running);
    // Its time is over as well, so it gets a new chain and finishes on that.
    protocol.expires(good.item).unwrap();
    let events = protocol.proves(good.item, Work::honest(100));
    let ended = found(&events, |event| match event {
        Event::JobEnded { status, .. } => Some(status.clone()),
        _ => None,
    });
    assert_eq!(ended, ["incomplete"]);
    protocol.assert_conserved();
}
