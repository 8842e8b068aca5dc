//! Killed at every named point, and at every write of the checkpoint separately. The law after each: an item is attested exactly once, or expired
//! by rule; it is paid once; a transaction that was written down is never replaced by another; the file ends empty.

use std::{collections::BTreeSet, time::Duration};

use client::{Call, Wallet};
use relayer::{checkpoint::FILE, crash::Point};
use schema::{orchestrator::JobStatus, Event, ItemId};

use super::{is_empty, state_in, Process};
use crate::market::{item, Market, Plan, EARNED, SESSION_PRICE};

/// Writes that an ordinary item needs, `relayer.json` included: announced, assigned, started, prepared, concluded, ended.
const WRITES: u32 = 6;
/// Blocks long enough that a process can be started again before a transaction of the last one is in a block.
const BLOCK_TIME: Duration = Duration::from_millis(300);

/// What has to happen for a point to be passed at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Road {
    /// An item is done and attested.
    Work,
    /// The same, and the first life ended with a transaction that nobody else knew.
    Recovery,
    /// The same, and meanwhile somebody else used the account.
    Replacement,
    /// The same after the checkpoint was damaged.
    Damage,
    /// The host has a receipt and never finishes: evidence, then expiry.
    Late,
    /// The host holds a voucher of a session.
    Session,
    /// All is done, and the process is told to stop.
    End,
}

/// Every point has to be placed here, or this does not compile.
fn road(point: Point) -> Road {
    match point {
        Point::Locked
        | Point::Opened
        | Point::Announced
        | Point::FileUntouched
        | Point::FileWritten
        | Point::FileSynced
        | Point::FileRenamed
        | Point::FileSafe
        | Point::BlockRead
        | Point::BlockTaken
        | Point::HostTold
        | Point::HostNoted
        | Point::ProofFetched
        | Point::Gathered
        | Point::Signed
        | Point::Prepared
        | Point::Sent
        | Point::InBlock
        | Point::Concluded => Road::Work,
        Point::Recovering | Point::SentAgain | Point::Recovered => Road::Recovery,
        Point::GivenUp => Road::Replacement,
        Point::DamagedRenamed => Road::Damage,
        Point::EvidenceFound | Point::EvidencePosted | Point::OverdueFound | Point::Expired => Road::Late,
        Point::VouchersDue | Point::VouchersSettled | Point::HostHeard => Road::Session,
        Point::Stopping | Point::Stopped | Point::Unannounced | Point::Ended => Road::End,
    }
}

fn is_a_write(point: Point) -> bool {
    (Point::FileUntouched..=Point::FileSafe).contains(&point)
}

/// A market with one item after the other.
struct Story {
    market: Market,
    jobs: u64,
}

impl Story {
    async fn begin(plan: Plan) -> Story {
        let market = Market::open(plan).await;
        Story { market, jobs: 0 }
    }

    async fn new_item(&mut self) -> ItemId {
        self.market.submit_job(1).await;
        self.jobs += 1;
        ItemId {
            job: self.jobs,
            ..item(0)
        }
    }

    /// One life that ends at a point, and further ones until everything is over. Gives the number of signed attestations, and the passes of
    /// the life that was ended.
    async fn is_killed_at(&mut self, point: Point, pass: u32) -> (usize, Vec<String>) {
        let earned = self.market.earned().await;
        let id = self.new_item().await;
        let road = road(point);
        match road {
            Road::Late => self.market.host_hangs(id).await,
            _ => self.market.host_finishes(id).await,
        }
        let mut signed = self.prepare_the_road(road).await;
        let mut doomed = Process::start(&self.market, Some((point.name(), pass)));
        if road == Road::End {
            self.market.ended(id.job).await;
            crate::until("the file is empty", || async {
                is_empty(&state_in(self.market.home.path()))
            })
            .await;
            doomed.is_told_to_stop();
        }
        assert!(
            doomed.dies().await,
            "{} is not passed for the {pass}th time",
            point.name()
        );
        let passed = doomed.passed();
        signed += count(&passed, Point::Signed);
        let mut last = Process::start(&self.market, None);
        let expected = match road {
            Road::Late => JobStatus::Incomplete,
            _ => JobStatus::Completed,
        };
        assert_eq!(self.market.ended(id.job).await, expected, "{}", point.name());
        crate::until("the file is empty", || async {
            is_empty(&state_in(self.market.home.path()))
        })
        .await;
        // One that is told to stop before it has begun leaves what it has found.
        last.answer("/health").await;
        assert_eq!(last.stops().await, Some(0), "{}", point.name());
        signed += count(&last.passed(), Point::Signed);
        self.market.all_is_read().await;
        self.the_law_holds(id, road, earned).await;
        (signed, passed)
    }

    async fn prepare_the_road(&self, road: Road) -> usize {
        match road {
            Road::Work | Road::Late | Road::End | Road::Session => 0,
            Road::Damage => {
                std::fs::write(self.market.home.path().join(FILE), "fxn-relayer-checkpoint 1 ab").unwrap();
                0
            }
            Road::Recovery | Road::Replacement => {
                let mut first = Process::start(&self.market, Some((Point::Prepared.name(), 1)));
                assert!(first.dies().await);
                if road == Road::Replacement {
                    let account = self.market.account("relayer");
                    let call = Call::send(Wallet::dev("relayer").address("wasm"), 1);
                    account.execute(&[call]).await.unwrap();
                }
                1
            }
        }
    }

    async fn the_law_holds(&self, id: ItemId, road: Road, earned: u128) {
        let market = &self.market;
        let attested = market.count(|event| matches!(event, Event::Attested { item, .. } if *item == id));
        let refused = market.count(|event| matches!(event, Event::AttestationRefused { item, .. } if *item == id));
        let missed = market.count(|event| matches!(event, Event::ItemMissed { item, .. } if *item == id));
        let posted = market.count(|event| matches!(event, Event::EvidencePosted { item, .. } if *item == id));
        let earned = market.earned().await - earned;
        let home = market.home.path();
        let state = state_in(home);
        assert!(is_empty(&state), "{state:?}");
        assert!(!home.join("relayer.json").exists());
        assert!(
            !home.join("relayer.checkpoint.tmp").exists(),
            "nothing half-written is left"
        );
        match road {
            Road::Late => assert_eq!((attested, refused, missed, posted.min(1), earned), (0, 0, 1, posted, 0)),
            _ => assert_eq!((attested, refused, missed, posted, earned), (1, 0, 0, 0, EARNED)),
        }
    }
}

fn count(passed: &[String], point: Point) -> usize {
    passed.iter().filter(|name| *name == point.name()).count()
}

fn on(roads: &[Road]) -> Vec<Point> {
    let points = Point::ALL.iter().copied();
    points.filter(|point| roads.contains(&road(*point))).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_every_point_of_an_items_way() {
    let mut story = Story::begin(Plan {
        block_time: BLOCK_TIME,
        ..Plan::PATIENT
    })
    .await;
    for point in on(&[Road::Work]).into_iter().filter(|point| !is_a_write(*point)) {
        let (signed, _) = story.is_killed_at(point, 1).await;
        // Only what nobody has written down is signed anew; what was sent was written down before.
        let expected = if point == Point::Signed { 2 } else { 1 };
        assert_eq!(signed, expected, "killed at {}", point.name());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_every_line_of_every_write() {
    let mut story = Story::begin(Plan {
        block_time: Duration::from_millis(100),
        ..Plan::PATIENT
    })
    .await;
    let mut kinds = BTreeSet::new();
    for point in on(&[Road::Work]).into_iter().filter(|point| is_a_write(*point)) {
        for pass in 1..=WRITES {
            let (signed, passed) = story.is_killed_at(point, pass).await;
            // What was being written is told by what happened just before.
            let before = passed.into_iter().rfind(|name| !name.starts_with("File")).unwrap();
            let is_lost = before == Point::Signed.name() && point < Point::FileRenamed;
            assert_eq!(signed, 1 + usize::from(is_lost), "killed at {} {pass}", point.name());
            kinds.insert(before);
        }
    }
    // The writes were really those of every step, and not six of the same.
    for before in [
        Point::Opened,
        Point::BlockRead,
        Point::HostTold,
        Point::Signed,
        Point::InBlock,
    ] {
        assert!(
            kinds.contains(before.name()),
            "no write after {} in {kinds:?}",
            before.name()
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_while_it_settles_what_the_last_life_left() {
    let mut story = Story::begin(Plan {
        block_time: BLOCK_TIME,
        ..Plan::PATIENT
    })
    .await;
    for point in on(&[Road::Recovery]) {
        let (signed, _) = story.is_killed_at(point, 1).await;
        assert_eq!(
            signed,
            1,
            "killed at {}: the very bytes that were written down",
            point.name()
        );
    }
    for point in on(&[Road::Replacement]) {
        let (signed, _) = story.is_killed_at(point, 1).await;
        assert_eq!(
            signed,
            2,
            "killed at {}: those bytes could be in no block",
            point.name()
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_while_it_keeps_a_damaged_file_aside() {
    let mut story = Story::begin(Plan::PATIENT).await;
    for point in on(&[Road::Damage]) {
        story.is_killed_at(point, 1).await;
    }
    let names = std::fs::read_dir(story.market.home.path()).unwrap();
    let names = names.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned());
    assert_eq!(
        names.filter(|name| name.contains(".damaged-")).count(),
        on(&[Road::Damage]).len()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_while_it_testifies_and_expires() {
    let points = on(&[Road::Late]).into_iter().map(|point| {
        tokio::spawn(async move {
            let plan = Plan {
                // The window in which evidence is taken must be there on a slow machine too.
                evidence_seconds: 10,
                ..Plan::QUICK
            };
            let mut story = Story::begin(plan).await;
            story.is_killed_at(point, 1).await;
        })
    });
    // Side by side: they wait for deadlines.
    for told in points.collect::<Vec<_>>() {
        told.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_while_it_stops() {
    let mut story = Story::begin(Plan::PATIENT).await;
    for point in on(&[Road::End]) {
        story.is_killed_at(point, 1).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_while_it_settles_a_voucher() {
    let market = Market::open(Plan::PATIENT).await;
    let session = market.open_session().await;
    // Without a beacon: a round that it brought would be a second signature.
    let config = relayer::Config {
        beacon: vec!["http://127.0.0.1:1".into()],
        ..market.config()
    };
    for (sequence, point) in (1..).zip(on(&[Road::Session])) {
        let before = market.settled(session).await;
        market.host_holds(session, sequence).await;
        let mut doomed = Process::start_with(config.clone(), Some((point.name(), 1)));
        assert!(doomed.dies().await, "{} is not passed", point.name());
        let mut signed = count(&doomed.passed(), Point::Signed);
        let mut last = Process::start_with(config.clone(), None);
        crate::until("the host has heard", || async {
            market.host.desk().vouchers.is_empty()
        })
        .await;
        last.answer("/health").await;
        assert_eq!(last.stops().await, Some(0), "{}", point.name());
        signed += count(&last.passed(), Point::Signed);
        let after = market.settled(session).await;
        // Paid once, and paid for once, wherever it has died.
        assert_eq!(
            (after.0, after.1 - before.1),
            (sequence, SESSION_PRICE),
            "{}",
            point.name()
        );
        assert_eq!(signed, 1, "{}: {:?}; {}", point.name(), last.passed(), last.logged());
        assert!(is_empty(&state_in(market.home.path())));
    }
}

#[test]
fn no_point_is_left_out() {
    let roads = [
        Road::Work,
        Road::Recovery,
        Road::Replacement,
        Road::Damage,
        Road::Late,
        Road::Session,
        Road::End,
    ];
    assert_eq!(on(&roads), Point::ALL, "the stories above are told of all of them");
    let names: BTreeSet<&str> = Point::ALL.iter().map(|point| point.name()).collect();
    assert_eq!(names.len(), Point::ALL.len());
    // Each has its one line in the code; whether it is passed there, the stories tell.
    let sources = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let files = std::fs::read_dir(sources).unwrap().map(|entry| entry.unwrap().path());
    let code: String = files
        .filter(|path| path.is_file())
        .map(|path| std::fs::read_to_string(path).unwrap())
        .collect();
    for name in names {
        let lines = code.matches(&format!("crash::pass(Point::{name})")).count();
        assert_eq!(lines, 1, "{name}");
    }
}

#[test]
fn nothing_that_ships_has_these_points() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    for folder in [
        "",
        "cli",
        "relayer",
        "tests",
        "devnet",
        "client",
        "inference-host",
        "partition",
    ] {
        let manifest = std::fs::read_to_string(root.join(folder).join("Cargo.toml")).unwrap();
        let shipped = manifest.split("[dev-dependencies]").next().unwrap();
        let turned_on = shipped
            .lines()
            .any(|line| line.contains("crash-points") && !line.starts_with("crash-points = []"));
        assert!(!turned_on, "{folder}/Cargo.toml");
    }
}
