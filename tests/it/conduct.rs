//! What work leads to for those who did it: strikes and jail, exposure that rolls, links that failed.

use fxn_tests::{refused, Protocol, Serving, Work, DEVELOPER, FUNC, PROVIDERS};
use provider_staking::ContractError;
use schema::{
    escrow,
    orchestrator::ItemStatus,
    staking::{ExecuteMsg, ProviderResponse},
    Event, ItemId,
};

/// What Anna may withdraw of the escrow.
fn available(protocol: &Protocol) -> u128 {
    let anna = protocol.addr("anna");
    protocol.books().0.get(anna.as_str()).map_or(0, |entry| entry.0)
}

fn item(job: u64, shard: u16) -> ItemId {
    ItemId { job, shard, replica: 0 }
}

/// One provider for each stage, so that everybody knows who is drawn.
fn three_providers(jail_strikes: u8) -> Protocol {
    let mut protocol = Protocol::with_market_and_conduct(|conduct| conduct.jail_strikes = jail_strikes);
    for name in ["axel", "bert", "carl"] {
        drains(&mut protocol, name);
    }
    protocol
}

fn drains(protocol: &mut Protocol, name: &str) {
    let deployment = protocol.deployment_of(name);
    protocol.staking(name, &ExecuteMsg::Drain { deployment }).unwrap();
}

fn unjails(protocol: &mut Protocol, sender: &str, name: &str) -> fxn_tests::Outcome {
    let provider = protocol.addr(name).into_string();
    protocol.staking(sender, &ExecuteMsg::Unjail { provider })
}

fn unbonds(protocol: &mut Protocol, name: &str, amount: u128) -> fxn_tests::Outcome {
    protocol.staking(name, &ExecuteMsg::Unbond { amount: amount.into() })
}

/// Nobody does anything: the first span has missed.
fn misses(protocol: &mut Protocol, id: ItemId) -> Vec<Event> {
    protocol.evidence_window_passes(id);
    protocol.expires(id).unwrap()
}

#[test]
fn misses_jail_a_provider_and_it_comes_back_with_what_it_has_not_drained() {
    let mut protocol = three_providers(2);
    protocol.deploys("anna", &Serving::stages(0, 0)).unwrap();
    let (drained, kept) = (1, protocol.deployment_of("anna"));
    let job = protocol.starts(Protocol::order(2, 1, 1));
    let anna = protocol.addr("anna").into_string();
    misses(&mut protocol, item(job, 0));
    assert_eq!(protocol.provider("anna").strikes.len(), 1);
    let events = misses(&mut protocol, item(job, 1));
    let until = protocol.now() + protocol.params.staking.conduct.jail_seconds;
    let provider = anna.clone();
    assert!(events.contains(&Event::ProviderJailed { provider, until }));

    // Nobody else has the first stage: what was to be drawn anew has failed, and a new job is refused.
    let status = |protocol: &Protocol| protocol.item(item(job, 1)).status;
    assert!(matches!(status(&protocol), ItemStatus::Failed { .. }));
    assert!(protocol.submits(DEVELOPER, Protocol::order(1, 1, 1)).is_err());
    let session = protocol.new_session(&[(kept, FUNC)]);
    let open = escrow::ExecuteMsg::OpenSession { session };
    let in_jail = ContractError::InJail {
        deployment: kept,
        until,
    };
    refused(protocol.escrow(DEVELOPER, &open), in_jail);
    protocol
        .staking("anna", &ExecuteMsg::Drain { deployment: drained })
        .unwrap();

    protocol.seconds_pass(until - protocol.now() - 1);
    let now = protocol.now();
    refused(
        unjails(&mut protocol, "anna", "anna"),
        ContractError::StillJailed { until, now },
    );
    protocol.seconds_pass(1);
    let sender = protocol.addr("bea").into_string();
    let provider = anna.clone();
    refused(
        unjails(&mut protocol, "bea", "anna"),
        ContractError::NotProvider { sender, provider },
    );
    unjails(&mut protocol, "anna", "anna").unwrap();
    for _ in 0..4 {
        let job = protocol.starts(Protocol::order(1, 1, 1));
        assert_eq!(protocol.item(item(job, 0)).spans[0].deployment, kept);
        protocol.proves_all(job, Work::honest(10));
    }
    assert!(protocol.provider("anna").strikes.is_empty(), "a new beginning");
    protocol.escrow(DEVELOPER, &open).unwrap();
    protocol.assert_conserved();
}

#[test]
fn work_that_runs_in_jail_is_done_and_paid_and_the_bond_comes_home() {
    let mut protocol = three_providers(1);
    let running = protocol.starts(Protocol::order(1, 1, 1));
    let session = protocol.new_session(&[(1, 2 * FUNC)]);
    let session = protocol.opens_session(DEVELOPER, session);
    protocol.jails("anna");
    let before = available(&protocol);
    protocol.proves_all(running, Work::honest(10));
    let earned = available(&protocol);
    assert!(earned > before, "a job is paid");
    let voucher = protocol.voucher(session, 1, 1, 3);
    protocol.settles(vec![voucher]);
    assert!(available(&protocol) > earned, "and vouchers");
    assert!(protocol.provider("anna").jailed_until.is_some());

    // It leaves without ever coming back.
    let leave = escrow::ExecuteMsg::LeaveSession { session, deployment: 1 };
    protocol.escrow("anna", &leave).unwrap();
    drains(&mut protocol, "anna");
    protocol.staking("anna", &ExecuteMsg::Remove { deployment: 1 }).unwrap();
    let found = protocol.provider("anna");
    assert!(
        found.free < found.bond,
        "what was settled just now may still be found wrong"
    );
    let window = protocol.params.staking.conduct.audit_window_seconds;
    protocol.seconds_pass(2 * window);
    let bond = protocol.provider("anna").bond.u128();
    unbonds(&mut protocol, "anna", bond).unwrap();
    protocol.seconds_pass(protocol.params.staking.unbonding_seconds);
    let anna = protocol.addr("anna");
    let purse = protocol.balance(&anna);
    protocol.staking("anna", &ExecuteMsg::Withdraw {}).unwrap();
    assert_eq!(protocol.balance(&anna) - purse, bond);
    protocol.assert_conserved();
}

#[test]
fn a_bond_full_of_settled_work_takes_nothing_until_the_buckets_roll_and_all_lanes_fill_it() {
    let mut protocol = three_providers(10);
    let slot_bond = protocol.params.staking.bond_per_slot.u128();
    let found = |protocol: &Protocol| protocol.provider("anna");
    let exposure = |provider: &ProviderResponse| (provider.backing + provider.settled + provider.reserve).u128();
    // A job counts with the whole price of its items, a session with what its vouchers pay.
    let job = protocol.starts(Protocol::order(1, 1, 1));
    assert_eq!(found(&protocol).backing.u128(), slot_bond);
    protocol.proves_all(job, Work::honest(10));
    let paid = protocol.job(job).paid;
    assert_eq!((found(&protocol).settled, found(&protocol).backing.u128()), (paid, 0));
    let session = protocol.new_session(&[(1, 2 * FUNC)]);
    let session = protocol.opens_session(DEVELOPER, session);
    let voucher = protocol.voucher(session, 1, 1, 3);
    let amount = voucher.voucher.amount;
    protocol.settles(vec![voucher]);
    assert_eq!(found(&protocol).settled, paid + amount);

    // Fill what is left: sessions are worth nearly a whole slot each, and leave no slot busy.
    protocol.deposits(DEVELOPER, 1_000 * FUNC);
    let most = 45 * FUNC;
    let rows = u64::try_from(most * 1_000 / protocol.session_price(session, 1, units(1_000))).unwrap();
    let mut number = session;
    loop {
        let session = protocol.new_session(&[(1, most)]);
        if protocol
            .escrow(DEVELOPER, &escrow::ExecuteMsg::OpenSession { session })
            .is_err()
        {
            break;
        }
        number += 1;
        assert!(number < 20, "the bond is never full");
        let voucher = protocol.voucher(number, 1, 1, rows);
        protocol.settles(vec![voucher]);
        let leave = escrow::ExecuteMsg::LeaveSession {
            session: number,
            deployment: 1,
        };
        protocol.escrow("anna", &leave).unwrap();
    }
    let full = found(&protocol);
    assert!(exposure(&full) + slot_bond > full.bond.u128(), "{full:?}");
    assert!(protocol.submits(DEVELOPER, Protocol::order(1, 1, 1)).is_err());
    assert_eq!(protocol.provider("bea").settled, paid, "nobody else's exposure");
    let window = protocol.params.staking.conduct.audit_window_seconds;
    protocol.seconds_pass(2 * window);
    protocol.submits(DEVELOPER, Protocol::order(1, 1, 1)).unwrap();
    assert_eq!(found(&protocol).settled.u128(), 0);
    protocol.assert_conserved();
}

#[test]
fn whoever_does_its_part_is_never_struck_whatever_link_or_chain_fails() {
    let mut protocol = Protocol::with_market();
    let unstruck = |protocol: &Protocol| {
        PROVIDERS.iter().all(|name| {
            let found = protocol.provider(name);
            found.strikes.is_empty() && found.penalties.is_zero()
        })
    };
    // The first is done, the second never acknowledges: nobody knows whose fault that is.
    let job = protocol.starts(Protocol::order(1, 1, 1));
    let id = item(job, 0);
    let mut links = protocol.links(id, Work::honest(10));
    links.truncate(1);
    links[0].acknowledgement = None;
    let pair: Vec<u64> = protocol.item(id).spans[..2]
        .iter()
        .map(|span| span.deployment)
        .collect();
    protocol.deadline_passes(id);
    protocol.posts_evidence(id, links).unwrap();
    protocol.evidence_window_passes(id);
    protocol.expires(id).unwrap();
    assert!(unstruck(&protocol));
    let again: Vec<u64> = protocol.item(id).spans.iter().map(|span| span.deployment).collect();
    assert!(again.windows(2).all(|two| *two != pair), "{again:?} after {pair:?}");
    protocol.proves_all(job, Work::honest(10));

    // A chain that stands still over everybody's deadline.
    let job = protocol.starts(Protocol::order(2, 1, 1));
    protocol.halts_for(300);
    assert!(protocol.expires(item(job, 0)).is_err());
    protocol.proves_all(job, Work::honest(10));
    assert!(unstruck(&protocol));

    // A developer who opens a session and never comes, and one who closes in a hurry.
    let session = protocol.new_session(&[(1, FUNC), (3, FUNC)]);
    let session = protocol.opens_session(DEVELOPER, session);
    protocol.seconds_pass(700);
    protocol
        .escrow("stranger", &escrow::ExecuteMsg::FinaliseSession { session })
        .unwrap();
    assert!(unstruck(&protocol));
    protocol.assert_conserved();
}

#[test]
fn a_pair_whose_link_failed_is_not_paired_by_any_job_until_the_window_is_over() {
    let mut protocol = three_providers(10);
    let job = protocol.starts(Protocol::order(1, 1, 1));
    let id = item(job, 0);
    let mut links = protocol.links(id, Work::honest(10));
    links.truncate(1);
    links[0].acknowledgement = None;
    protocol.deadline_passes(id);
    protocol.posts_evidence(id, links).unwrap();
    protocol.evidence_window_passes(id);
    protocol.expires(id).unwrap();
    let refused = protocol.submits(DEVELOPER, Protocol::order(1, 1, 1)).unwrap_err();
    let refused = refused.downcast::<job_orchestrator::ContractError>().unwrap();
    assert!(
        matches!(refused, job_orchestrator::ContractError::NoSupply { .. }),
        "{refused}"
    );

    // A provider of all stages has no link that could fail.
    protocol.registers("gina").unwrap();
    protocol.deploys("gina", &Serving::stages(0, 2)).unwrap();
    let next = protocol.starts(Protocol::order(1, 1, 1));
    assert_eq!(protocol.item(item(next, 0)).spans.len(), 1);
    drains(&mut protocol, "gina");
    let window = protocol.params.staking.conduct.fault_window_seconds;
    protocol.seconds_pass(window);
    let job = protocol.starts(Protocol::order(1, 1, 1));
    assert_eq!(protocol.item(item(job, 0)).spans.len(), 3, "they may try again");
}

fn units(rows: u64) -> schema::price::Units {
    schema::price::Units {
        requests: rows,
        units_in: rows * 10,
        units_out: 0,
    }
}
