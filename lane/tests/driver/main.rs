//! The driver against hosts that follow the rules of the lane, and against hosts that do not.

#![allow(
    clippy::unwrap_used,
    clippy::arithmetic_side_effects,
    reason = "a test fails by panicking, and its numbers are small"
)]

mod host;

use std::{
    sync::{atomic::Ordering, Arc},
    time::Duration,
};

use futures::future::join_all;
use lane::{
    driver::{Answer, Driver, Limits, RequestError, Setup, Work},
    issuer::IssueError,
    proto::Code,
};
use rand::{Rng, SeedableRng};
use schema::{escrow::Consent, price::Units};

use self::host::{domain, session_key, Host, Lie, World, SESSION};

const PLENTY: u128 = 100_000_000;
/// Longest wait for something that has to happen.
const PATIENCE: Duration = Duration::from_secs(60);

/// Two stages, each on two hosts.
const PAIRS: [(u64, (u8, u8)); 4] = [(1, (0, 0)), (2, (1, 1)), (3, (0, 0)), (4, (1, 1))];
const CHAIN: [(u64, (u8, u8)); 2] = [(1, (0, 0)), (2, (1, 1))];

fn limits() -> Limits {
    Limits {
        attempt: Duration::from_millis(1_500),
        patience: PATIENCE,
        grace: Duration::from_millis(300),
        attempts_max: 20,
        ..Limits::default()
    }
}

fn driver_with(world: &World, allocated: u128, limits: Limits) -> Driver {
    Driver::start(Setup {
        domain: domain(),
        session: SESSION,
        key: session_key(),
        stages: 2,
        spans: world.spans(allocated),
        limits,
    })
}

fn driver(world: &World) -> Driver {
    driver_with(world, PLENTY, limits())
}

fn work(rows: &[&str]) -> Work {
    let units = rows.iter().map(|row| u64::try_from(row.len()).unwrap()).sum();
    Work {
        rows: rows.iter().map(|row| row.as_bytes().to_vec().into()).collect(),
        units: Units {
            requests: u64::try_from(rows.len()).unwrap(),
            units_in: units,
            units_out: 0,
        },
    }
}

/// Deployments that did it; each appends its number.
fn check(work: &Work, answer: &Answer) -> Vec<u64> {
    let chain: Vec<u64> = answer.receipts.iter().map(|signed| signed.receipt.deployment).collect();
    let tail: String = chain.iter().map(u64::to_string).collect();
    let expected: Vec<Vec<u8>> = work.rows.iter().map(|row| [row, tail.as_bytes()].concat()).collect();
    let found: Vec<Vec<u8>> = answer.rows.iter().map(|row| row.to_vec()).collect();
    assert_eq!(found, expected);
    chain
}

async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let waited = tokio::time::timeout(PATIENCE, async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    assert!(waited.await.is_ok(), "{what}");
}

fn hosts(world: &World) -> Vec<Arc<Host>> {
    world.hosts.values().cloned().collect()
}

/// Nobody has more than the price of what he did, and no voucher was a bad one.
fn check_money(world: &World) {
    for host in hosts(world) {
        assert!(
            host.promised() <= host.price(host.kept().counted),
            "deployment {}",
            host.deployment
        );
        assert_eq!(
            host.bad_vouchers.load(Ordering::SeqCst),
            0,
            "deployment {}",
            host.deployment
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_goes_through_its_chain_and_everybody_is_paid_exactly() {
    let world = World::of(&CHAIN, PLENTY, 1).await;
    let driver = driver(&world);
    let mut paid = 0;
    for rows in [&["a", "bc"][..], &["def"]] {
        let work = work(rows);
        let answer = driver.request(&work).await.unwrap();
        assert_eq!((check(&work, &answer), answer.attempts), (vec![1, 2], 1));
        paid += answer.price.u128();
    }
    let all = Units {
        requests: 3,
        units_in: 6,
        units_out: 0,
    };
    for host in hosts(&world) {
        until("the last voucher arrives", || host.is_paid()).await;
        assert_eq!((host.kept().counted, host.promised()), (all, host.price(all)));
    }
    assert_eq!(paid, world.host(1).price(all) + world.host(2).price(all));
    check_money(&world);
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_pays_up_before_he_goes_leaves_nothing_unpaid() {
    for _ in 0..20 {
        let world = World::of(&CHAIN, PLENTY, 4).await;
        let driver = driver(&world);
        let works: Vec<Work> = (0..8).map(|_| work(&["a row"])).collect();
        for answer in join_all(works.iter().map(|work| driver.request(work))).await {
            answer.unwrap();
        }
        assert!(driver.pay_up(PATIENCE).await);
        // Not later: there is nobody left who could pay.
        assert!(hosts(&world).iter().all(|host| host.is_paid()));
        drop(driver);
        check_money(&world);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_keeps_its_vouchers_to_itself_is_not_waited_for_longer_than_asked() {
    let world = World::of(&CHAIN, PLENTY, 1).await;
    world.host(2).lies(Some(Lie::Forgetful));
    let driver = driver(&world);
    assert!(driver.pay_up(Duration::ZERO).await, "nothing is on its way yet");
    driver.request(&work(&["a row"])).await.unwrap();
    assert!(!driver.pay_up(Duration::from_millis(300)).await);
    // Its next welcome shows that it has the voucher.
    world.host(2).dies();
    world.host(2).comes_back();
    assert!(driver.pay_up(PATIENCE).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_lies_or_fails_is_not_paid_for_it_and_another_chain_answers() {
    let lies = [
        Lie::Forged,
        Lie::Units,
        Lie::Input,
        Lie::Output,
        Lie::Overlong,
        Lie::Withholds,
        Lie::Silent,
        Lie::Dies,
        Lie::Refuses(Code::Failed),
        Lie::Refuses(Code::Overloaded),
        Lie::Refuses(Code::Neighbour),
        Lie::Refuses(Code::Session),
        Lie::Refuses(Code::Credit),
    ];
    let told = lies.map(|lie| async move {
        let world = World::of(&PAIRS, PLENTY, 1).await;
        let driver = driver(&world);
        let liar = Arc::clone(world.host(2));
        liar.lies(Some(lie));
        for number in 0..6 {
            let work = work(&["some", "rows"]);
            let answer = driver.request(&work).await;
            let answer = answer.unwrap_or_else(|error| panic!("{lie:?}, request {number}: {error}"));
            assert!(!check(&work, &answer).contains(&2), "{lie:?}");
        }
        assert!(liar.announced.load(Ordering::SeqCst) > 0, "{lie:?} was never asked");
        assert_eq!(liar.promised(), 0, "{lie:?}");
        check_money(&world);
    });
    join_all(told).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_host_says_twice_is_worth_it_once() {
    let world = World::of(&CHAIN, PLENTY, 1).await;
    world.host(1).lies(Some(Lie::Twice));
    let driver = driver(&world);
    for _ in 0..3 {
        let work = work(&["twice"]);
        check(&work, &driver.request(&work).await.unwrap());
    }
    let all = Units {
        requests: 3,
        units_in: 15,
        units_out: 0,
    };
    until("the last voucher arrives", || world.host(1).is_paid()).await;
    assert_eq!(world.host(1).promised(), world.host(1).price(all));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_is_at_fault_is_tried_once_and_nobody_rests_for_it() {
    let world = World::of(&PAIRS, PLENTY, 1).await;
    let driver = driver(&world);
    for host in hosts(&world) {
        host.lies(Some(Lie::Refuses(Code::Invalid)));
    }
    let refused = driver.request(&work(&["bad"])).await.unwrap_err();
    assert!(
        matches!(&refused, RequestError::Refused(reason) if reason.contains("told to")),
        "{refused}"
    );
    let asked: usize = hosts(&world)
        .iter()
        .map(|host| host.announced.load(Ordering::SeqCst))
        .sum();
    assert!((1..=2).contains(&asked), "{asked}: one chain was asked");
    for host in hosts(&world) {
        host.lies(None);
    }
    let work = work(&["good"]);
    assert_eq!(driver.request(&work).await.unwrap().attempts, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_no_host_takes_or_the_allocation_cannot_pay_are_never_begun() {
    let world = World::of(&CHAIN, 20, 1).await;
    let driver = driver_with(&world, 20, limits());
    let large: Vec<&str> = vec!["x"; 17];
    let refused = driver.request(&work(&large)).await.unwrap_err();
    assert!(
        matches!(refused, RequestError::Money(IssueError::Allocation { .. })),
        "{refused}"
    );
    driver.request(&work(&["cheap"])).await.unwrap();
    let world_of_plenty = World::of(&CHAIN, PLENTY, 1).await;
    let driver = self::driver(&world_of_plenty);
    driver.request(&work(&["first"])).await.unwrap();
    let refused = driver.request(&work(&large)).await.unwrap_err().to_string();
    assert!(refused.contains("17 rows") && refused.contains("16"), "{refused}");
    check_money(&world);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_dies_and_comes_back_goes_on_where_it_was() {
    let world = World::of(&CHAIN, PLENTY, 1).await;
    let driver = driver(&world);
    let one = work(&["one"]);
    check(&one, &driver.request(&one).await.unwrap());
    until("paid", || world.host(2).is_paid()).await;
    world.host(2).dies();
    let asked = driver.request(&one);
    let revived = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        world.host(2).comes_back();
    };
    let (answer, ()) = tokio::join!(asked, revived);
    check(&one, &answer.unwrap());
    check_money(&world);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_without_memory_goes_on_from_the_vouchers_that_its_hosts_show() {
    let world = World::of(&CHAIN, PLENTY, 1).await;
    for round in 1..=3_u64 {
        let driver = driver(&world);
        let work = work(&["again"]);
        check(&work, &driver.request(&work).await.unwrap());
        for host in hosts(&world) {
            until("the voucher arrives", || host.is_paid()).await;
            assert_eq!(host.kept().best.unwrap().voucher.sequence, round);
        }
    }
    check_money(&world);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_claims_what_it_has_not_shown_gets_no_more_than_is_conceded() {
    let conceded = 30;
    let limits = Limits {
        conceded_max: conceded.into(),
        ..limits()
    };
    let world = World::of(&PAIRS, PLENTY, 1).await;
    world.host(2).lies(Some(Lie::Claims(4)));
    let greedy = driver_with(&world, PLENTY, limits);
    until("the claim is conceded", || world.host(2).promised() > 0).await;
    assert!(world.host(2).promised() <= conceded);
    drop(greedy);

    let world = World::of(&PAIRS, PLENTY, 1).await;
    world.host(2).lies(Some(Lie::Claims(1_000)));
    let driver = driver_with(&world, PLENTY, limits);
    for _ in 0..4 {
        let work = work(&["work"]);
        let answer = driver.request(&work).await.unwrap();
        assert!(!check(&work, &answer).contains(&2));
    }
    assert_eq!(world.host(2).promised(), 0);
    let seen = driver.seen();
    let trouble = seen[1].trouble.clone().unwrap();
    assert!(trouble.contains("shown nothing"), "{trouble}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_voucher_that_we_have_not_signed_ends_the_conversation() {
    let world = World::of(&PAIRS, PLENTY, 1).await;
    let first = driver(&world);
    let work = work(&["work"]);
    while world.host(2).promised() == 0 {
        check(&work, &first.request(&work).await.unwrap());
    }
    drop(first);
    world.host(2).lies(Some(Lie::Shows));
    let driver = driver(&world);
    for _ in 0..4 {
        assert!(!check(&work, &driver.request(&work).await.unwrap()).contains(&2));
    }
    // What the first one has promised may arrive at any time; this one promises nothing.
    let mut seen = driver.seen().into_iter();
    let liar = seen.find(|seen| seen.deployment == 2).unwrap();
    assert_eq!((liar.promised.u128(), liar.is_welcome), (0, false));
}

#[tokio::test(flavor = "multi_thread")]
async fn as_many_requests_are_on_their_way_as_the_credit_allows_and_no_more() {
    for credit in [1, 4] {
        let world = World::of(&CHAIN, PLENTY, credit).await;
        hosts(&world)
            .iter()
            .for_each(|host| host.takes(Duration::from_millis(20)));
        let driver = driver(&world);
        let one = work(&["one"]);
        let answers = join_all((0..24).map(|_| driver.request(&one))).await;
        for answer in answers {
            let answer = answer.unwrap();
            assert_eq!(
                (check(&one, &answer), answer.attempts),
                (vec![1, 2], 1),
                "no request is refused for credit"
            );
        }
        let most = world.host(1).at_once_max.load(Ordering::SeqCst);
        assert!(
            most <= usize::try_from(credit).unwrap() && (credit == 1 || most > 1),
            "{most} of {credit}"
        );
        check_money(&world);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_faster_chain_does_more() {
    let world = World::of(&[(1, (0, 1)), (2, (0, 1))], PLENTY, 4).await;
    world.host(1).takes(Duration::from_millis(60));
    world.host(2).takes(Duration::from_millis(2));
    let driver = driver(&world);
    let one = work(&["one"]);
    for _ in 0..60 {
        driver.request(&one).await.unwrap();
    }
    let done = |deployment| world.host(deployment).done.load(Ordering::SeqCst);
    assert!(done(2) > done(1), "{} against {}", done(2), done(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_goes_away_cancels_and_what_was_not_begun_costs_nothing() {
    let world = World::of(&CHAIN, PLENTY, 1).await;
    world.host(2).takes(Duration::from_secs(600));
    let driver = driver(&world);
    let one = work(&["one"]);
    let waited = tokio::time::timeout(Duration::from_millis(700), driver.request(&one)).await;
    assert!(waited.is_err());
    until("the hosts are told", || {
        world.host(2).cancelled.load(Ordering::SeqCst) == 1
    })
    .await;
    // The first host has done its part.
    until("who has worked is paid", || {
        world.host(1).is_paid() && world.host(1).promised() > 0
    })
    .await;
    assert_eq!(world.host(2).promised(), 0);
    check_money(&world);
}

#[tokio::test(flavor = "multi_thread")]
async fn consents_count_for_exactly_what_is_settled() {
    let world = World::of(&PAIRS, PLENTY, 1).await;
    let driver = driver(&world);
    let one = work(&["one"]);
    for _ in 0..4 {
        driver.request(&one).await.unwrap();
    }
    for host in hosts(&world) {
        until("paid", || host.is_paid()).await;
    }
    world.host(3).lies(Some(Lie::Consents));
    world.host(4).dies();
    let answers = driver.leave(&[1, 2, 3, 4], Duration::from_secs(2)).await;
    let counts = |(deployment, answer): &(u64, Result<Consent, String>)| {
        let sequence = world.host(*deployment).settled();
        let consent = answer.as_ref().ok()?;
        assert!(!driver.counts(consent, sequence + 7) && consent.deployment == *deployment);
        Some(driver.counts(consent, sequence))
    };
    let counts: Vec<Option<bool>> = answers.iter().map(counts).collect();
    assert_eq!(counts, [Some(true), Some(true), Some(false), None], "{answers:?}");
}

/// Hosts that die, come back and lie at random: answers stay right and nobody is paid for what he did not do.
#[tokio::test(flavor = "multi_thread")]
async fn whatever_hosts_do_answers_are_right_and_nobody_is_paid_too_much() {
    let seed = std::env::var("FXN_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
        .unwrap_or(1_u64);
    let rounds = if std::env::var_os("FXN_SLOW").is_some() {
        400
    } else {
        40
    };
    println!("FXN_SEED={seed}");
    let mut random = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
    let lies = [
        Lie::Forged,
        Lie::Units,
        Lie::Output,
        Lie::Withholds,
        Lie::Twice,
        Lie::Dies,
        Lie::Refuses(Code::Failed),
    ];
    let world = World::of(&PAIRS, PLENTY, 2).await;
    let limits = Limits {
        attempt: Duration::from_millis(400),
        attempts_max: 200,
        conceded_max: PLENTY.into(),
        rest: (Duration::from_millis(5), Duration::from_millis(50)),
        ..limits()
    };
    let driver = driver_with(&world, PLENTY, limits);
    for _ in 0..rounds {
        // One pair misbehaves, the other one may still be resting.
        let (bad, lie) = (random.gen_range(1..=4_u64), lies[random.gen_range(0..lies.len())]);
        for host in hosts(&world) {
            host.comes_back();
            host.lies((host.deployment == bad).then_some(lie));
        }
        let one = work(&["one", "two"]);
        let answers = join_all((0..4).map(|_| driver.request(&one))).await;
        for answer in answers {
            check(&one, &answer.unwrap());
        }
    }
    check_money(&world);
}
