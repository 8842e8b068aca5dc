//! More work than the market has room for: many developers at once, six providers, every job settled or refunded, every ufunc accounted for,
//! and nobody grows.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        atomic::{AtomicUsize, Ordering},
        Arc,
    },
    time::{Duration, Instant},
};

use client::{Account, Call, ClientError};
use cosmwasm_std::Binary;
use rand::{rngs::StdRng, Rng, SeedableRng};
use schema::{
    orchestrator::{ExecuteMsg, ItemStatus, JobStatus, NewJob, NewShard},
    Digest, Event, UFUNC,
};

use crate::{
    accountant::{Books, Transaction},
    machine,
    market::{Market, Plan, ENDPOINT, MODEL},
    model::text,
    observability,
    processes::PATIENCE,
    watch::{self, everybody, Use, Watch},
};

/// In `scripts/slow.sh`.
const JOBS_SLOW: usize = 1_000;
const JOBS: usize = 120;
const DEVELOPERS: usize = 8;
/// Jobs of one transaction at most.
const TOGETHER: usize = 4;
/// Fewer than the developers ask for at once: some of what they ask must wait.
const SLOTS: u16 = 12;
const DEPOSIT: u128 = 40_000 * UFUNC;
/// Different texts.
const TEXTS: usize = 64;
/// Rows of a job.
const ROWS_MAX: usize = 6;
/// What a service tells of work that waits, and the most of it: what its slots carry, and as many items again that have just ended.
const WAITING: [(&str, usize); 3] = [
    ("fxn_host_queued_rows", SLOTS as usize * ROWS_MAX),
    ("fxn_host_work{state=\"running\"}", SLOTS as usize * 2),
    ("fxn_relayer_items", SLOTS as usize * 2),
];
/// How long a job may take from its submission to its end, with everybody before it.
const JOB_PATIENCE: Duration = Duration::from_secs(600);

/// How much a process may grow between the first fifth of the work and its end. A host and a relayer keep nothing of what has ended but
/// what is bounded by their settings; allocators keep some of what was free.
const GROWTH_KIB: u64 = 16 * 1024;
/// The chain keeps every job for ever, as chains do: this much more for each.
const CHAIN_KIB_PER_JOB: u64 = 128;
/// Connections come and go.
const GROWTH_FILES: usize = 48;
/// What a host keeps on disk of an item until its evidence window has ended: its assignment, its rows, what was signed.
const JOURNAL_BYTES_PER_ITEM: f64 = 8.0 * 1024.0;
/// A checkpoint holds what is open.
const CHECKPOINT_BYTES_MAX: f64 = 256.0 * 1024.0;

fn seed() -> u64 {
    std::env::var("FXN_SEED").map_or(7, |seed| seed.parse().unwrap())
}

fn jobs() -> usize {
    match std::env::var_os("FXN_SLOW") {
        Some(_) => JOBS_SLOW,
        None => JOBS,
    }
}

/// Texts with what they weigh and what they must come to.
struct Texts {
    texts: Vec<String>,
    units: Vec<u64>,
    rows: Vec<Vec<u8>>,
}

impl Texts {
    fn of(market: &mut Market) -> Self {
        let texts: Vec<String> = (0..TEXTS).map(|number| text(number, 1 + number % 16)).collect();
        Self {
            units: texts.iter().map(|text| market.tiny.units(text)).collect(),
            rows: texts.iter().map(|text| market.tiny.row(text)).collect(),
            texts,
        }
    }

    /// Which texts a job sends is told by its developer and its number among theirs.
    fn chosen(&self, developer: usize, number: usize) -> Vec<usize> {
        let mut random = StdRng::seed_from_u64(seed() ^ ((developer as u64) << 32) ^ number as u64);
        let count = random.gen_range(1..=ROWS_MAX);
        (0..count).map(|_| random.gen_range(0..TEXTS)).collect()
    }

    fn output(&self, chosen: &[usize]) -> Digest {
        schema::merkle::root(chosen.iter().map(|index| &self.rows[*index]))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn more_jobs_than_there_is_room_for_are_all_done_and_nobody_grows() {
    let _machine = machine().await;
    let total = jobs();
    eprintln!("{total} jobs, FXN_SEED={}", seed());
    let mut market = Market::open(Plan {
        block_time: "250ms",
        providers: 6,
        liars: 0,
        slots: SLOTS,
        host_settings: &[("FXN_HOST_RETENTION_SECONDS", "0")],
    })
    .await;
    observability::check(&market).await;
    let texts = Arc::new(Texts::of(&mut market));
    let mut developers = vec![];
    for _ in 0..DEVELOPERS {
        developers.push(market.developer(DEPOSIT).await);
    }

    let watch = Watch::start(&market);
    let (began, asked) = (Instant::now(), Arc::new(Asked::default()));
    let work = developers.iter().enumerate().map(|(index, account)| {
        let share = (total + index) / DEVELOPERS;
        tokio::spawn(orders(
            Arc::clone(&texts),
            account.clone(),
            index,
            share,
            Arc::clone(&asked),
        ))
    });
    let work: Vec<_> = work.collect();
    until_ended(&market, total / 5).await;
    let warm = everybody(&market);
    let mut submitted = BTreeMap::new();
    for task in work {
        submitted.extend(task.await.unwrap());
    }
    assert_eq!(submitted.len(), total);
    until_ended(&market, total).await;
    let took = began.elapsed();
    let highest = watch.end().await;
    let end = everybody(&market);

    market.crew.assert_alive();
    let books = Books::read(&market.client).await;
    every_job_came_to_what_the_model_says_or_was_refunded(&books, &submitted, &texts);
    let deposits: Vec<(Account, u128)> = developers.into_iter().map(|account| (account, DEPOSIT)).collect();
    books.check(&market, &deposits).await;
    let batch = attestations_travel_together(&books.transactions);
    let waited = asked.refused.load(Ordering::Relaxed);
    assert!(waited > 0, "there was always room: this is no load");
    report(total, took, batch, waited, &books.transactions, &warm, &end, &highest);
    nobody_has_grown(total, &warm, &end);
    what_waits_is_bounded_and_gone_at_the_end(&market, books.items.len(), &highest).await;
}

/// One shard of these texts; two replicas where their number is odd.
fn job(texts: &Texts, chosen: &[usize]) -> NewJob {
    let inline = chosen.iter().map(|index| Binary::from(texts.texts[*index].as_bytes()));
    NewJob {
        model: MODEL.parse().unwrap(),
        version: None,
        endpoint: ENDPOINT.to_owned(),
        engine_class: None,
        shards: vec![NewShard {
            inline: inline.collect(),
        }],
        replicas: 1 + u8::try_from(chosen.len() % 2).unwrap(),
        units_max: chosen.iter().map(|index| texts.units[*index]).sum(),
        max_price: (20 * UFUNC).into(),
        deadline_seconds: None,
        chain: None,
        gateway: None,
    }
}

#[derive(Debug, Default)]
struct Asked {
    refused: AtomicUsize,
}

/// One developer: transactions with some jobs each, as fast as the market takes them. Returns which texts each job has sent.
async fn orders(
    texts: Arc<Texts>,
    account: Account,
    developer: usize,
    share: usize,
    asked: Arc<Asked>,
) -> Vec<(u64, Vec<usize>)> {
    let orchestrator = &account.client().contracts().job_orchestrator;
    let mut submitted = vec![];
    let mut give_up = Instant::now() + JOB_PATIENCE;
    while submitted.len() < share {
        let numbers = submitted.len()..share.min(submitted.len() + TOGETHER);
        let chosen: Vec<Vec<usize>> = numbers.map(|number| texts.chosen(developer, number)).collect();
        let calls: Vec<Call> = chosen
            .iter()
            .map(|chosen| {
                let job = job(&texts, chosen);
                Call::execute(orchestrator, &ExecuteMsg::SubmitJob { job }).unwrap()
            })
            .collect();
        match account.execute(&calls).await {
            Ok(outcome) => {
                let events = outcome
                    .events
                    .iter()
                    .filter_map(|event| Event::from_wasm(event).unwrap());
                let jobs = events.filter_map(|event| match event {
                    Event::JobSubmitted { job, .. } => Some(job),
                    _ => None,
                });
                submitted.extend(jobs.zip(chosen));
                give_up = Instant::now() + JOB_PATIENCE;
            }
            Err(ClientError::Refused { message, .. }) => {
                assert!(message.contains("no chain of deployments can do this"), "{message}");
                asked.refused.fetch_add(1, Ordering::Relaxed);
                assert!(Instant::now() < give_up, "developer {developer}: {message}");
                tokio::time::sleep(Duration::from_millis(300)).await;
            }
            Err(error) => panic!("developer {developer}: {error}"),
        }
    }
    submitted
}

/// Waits until so many jobs have ended.
async fn until_ended(market: &Market, wanted: usize) {
    let (mut ended, mut last, mut progress) = (BTreeSet::new(), 0, Instant::now());
    while ended.len() < wanted {
        let jobs = market.client.orchestrator();
        let newest = jobs
            .jobs(None, None, Some(1))
            .await
            .unwrap()
            .first()
            .map_or(0, |job| job.job);
        for number in 1..=newest {
            if !ended.contains(&number) && jobs.job(number).await.unwrap().status != JobStatus::Running {
                ended.insert(number);
            }
        }
        if ended.len() > last {
            (last, progress) = (ended.len(), Instant::now());
        }
        assert!(
            progress.elapsed() < PATIENCE,
            "no job has ended for {PATIENCE:?}; {last} of {wanted} have"
        );
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

fn every_job_came_to_what_the_model_says_or_was_refunded(
    books: &Books,
    submitted: &BTreeMap<u64, Vec<usize>>,
    texts: &Texts,
) {
    assert_eq!(books.jobs.len(), submitted.len());
    for job in &books.jobs {
        let expected = texts.output(&submitted[&job.job]);
        let items = books.items.iter().filter(|item| item.item.job == job.job);
        let mut settled = 0;
        for item in items {
            match &item.status {
                ItemStatus::Settled { result, .. } => {
                    assert_eq!(result.output_digest, expected, "{}", item.item);
                    settled += 1;
                }
                ItemStatus::Failed { .. } => {}
                other => panic!("{}: {other:?}", item.item),
            }
        }
        assert_eq!(job.status == JobStatus::Completed, settled > 0, "job {}", job.job);
    }
    let completed = books
        .jobs
        .iter()
        .filter(|job| job.status == JobStatus::Completed)
        .count();
    assert!(
        completed * 100 >= books.jobs.len() * 99,
        "only {completed} of {}",
        books.jobs.len()
    );
}

/// Attestations per transaction that has any, on average.
fn attestations_travel_together(transactions: &[Transaction]) -> f64 {
    let attested = |tx: &Transaction| {
        tx.events
            .iter()
            .filter(|event| matches!(event, Event::Attested { .. }))
            .count()
    };
    let sizes: Vec<usize> = transactions.iter().map(attested).filter(|count| *count > 0).collect();
    let average = sizes.iter().sum::<usize>() as f64 / sizes.len() as f64;
    assert!(average > 1.0, "{average} attestations a transaction");
    average
}

fn nobody_has_grown(total: usize, warm: &BTreeMap<String, Use>, end: &BTreeMap<String, Use>) {
    for (role, end) in end {
        let warm = &warm[role];
        let allowed = GROWTH_KIB
            + match role.as_str() {
                "devnet" => CHAIN_KIB_PER_JOB * total as u64,
                _ => 0,
            };
        assert!(
            end.resident_kib <= warm.resident_kib + allowed,
            "{role} had {} KiB after a fifth of the work and has {} KiB now",
            warm.resident_kib,
            end.resident_kib
        );
        assert!(
            end.files <= warm.files + GROWTH_FILES,
            "{role}: {} files, then {}",
            warm.files,
            end.files
        );
    }
}

async fn what_waits_is_bounded_and_gone_at_the_end(market: &Market, items: usize, highest: &BTreeMap<String, f64>) {
    assert!(highest["journal bytes"] <= JOURNAL_BYTES_PER_ITEM * items as f64);
    assert!(highest["checkpoint bytes"] <= CHECKPOINT_BYTES_MAX);
    for (waiting, bound) in WAITING {
        let most = highest.get(waiting).unwrap_or_else(|| panic!("nobody tells {waiting}"));
        assert!(
            *most <= bound as f64,
            "{waiting} was {most}, at most {bound} is what there can be"
        );
    }
    for (service, address) in market.services() {
        let empty = async || {
            let numbers = watch::numbers(&crate::processes::page(&address, "/metrics").await?);
            let idle = WAITING
                .iter()
                .all(|(name, _)| numbers.get(*name).is_none_or(|value| *value == 0.0));
            idle.then_some(())
        };
        if service != "devnet" {
            crate::processes::eventually(&format!("{service} at {address} is idle"), empty).await;
        }
    }
    for provider in &market.providers {
        let checkpoint = std::fs::metadata(provider.home.join("relayer.checkpoint"))
            .unwrap()
            .len();
        assert!(
            checkpoint <= 4096,
            "nothing is open, and the checkpoint has {checkpoint} bytes"
        );
    }
}

#[allow(clippy::too_many_arguments, reason = "everything that was measured, for people")]
fn report(
    total: usize,
    took: Duration,
    batch: f64,
    waited: usize,
    transactions: &[Transaction],
    warm: &BTreeMap<String, Use>,
    end: &BTreeMap<String, Use>,
    highest: &BTreeMap<String, f64>,
) {
    let seconds = took.as_secs_f64();
    eprintln!(
        "{total} jobs in {seconds:.1} s: {:.1} jobs/s, {:.1} transactions/s, {batch:.1} attestations a transaction, {waited} orders told to wait",
        total as f64 / seconds,
        transactions.len() as f64 / seconds,
    );
    eprintln!("{:<14} {:>9} {:>9}  files", "process", "KiB warm", "KiB end");
    for (role, end) in end {
        let warm = &warm[role];
        eprintln!(
            "{role:<14} {:>9} {:>9}  {} {}",
            warm.resident_kib, end.resident_kib, warm.files, end.files
        );
    }
    for (name, value) in highest.iter().filter(|(name, _)| !name.ends_with("_total")) {
        eprintln!("highest {name}: {value}");
    }
}
