//! Many items at once: few transactions, bounded memory, and a bad one that hurts nobody else.

use std::{process::Command, time::Duration};

use relayer::{chain::Batch, Config};
use schema::{work::WorkState, Event, Signature, BATCH_MAX};
use tokio_util::sync::CancellationToken;

use crate::{
    fake_chain::{item, link, World, ME, OTHER},
    market::{self, Market, Plan, EARNED},
    scene::Scene,
};

/// Set in the process that is measured.
const ALONE: &str = "FXN_TEST_ALONE";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forty_items_are_two_transactions_and_the_bad_one_is_refused_alone() {
    let market = Market::open(Plan::PATIENT).await;
    // All of them are done before the relayer starts.
    market.submit_job(40).await;
    for shard in 0..40 {
        market.host_finishes(market::item(shard)).await;
    }
    let bad = market::item(17);
    let mut forged = market.receipt(bad).await;
    forged.receipt.signature = Signature([1; 64]);
    market.host.says(bad, 0, WorkState::Done, vec![forged], true);
    let config = Config {
        // However slow the machine is, the first one waits for a full batch.
        batch_wait: Duration::from_secs(5),
        ..market.config()
    };
    let stop = CancellationToken::new();
    let relaying = relayer::run(config, client::Wallet::dev("relayer"), stop.clone());
    let relaying = tokio::spawn(relaying);
    let answered = |event: &Event| matches!(event, Event::Attested { .. } | Event::AttestationRefused { .. });
    crate::until("all are answered", || async { market.count(answered) == 40 }).await;
    market.all_is_read().await;
    stop.cancel();
    relaying.await.unwrap().unwrap();

    let mut sizes = vec![];
    for events in market.by_transaction().into_values() {
        let answers: Vec<&Event> = events.iter().filter(|event| answered(event)).collect();
        let refusals: Vec<&&Event> = answers
            .iter()
            .filter(|event| !matches!(event, Event::Attested { .. }))
            .collect();
        if let [Event::AttestationRefused { item, reason, .. }] = refusals[..] {
            assert_eq!(*item, bad);
            assert!(reason.contains("is not signed by its host"), "{reason}");
            assert!(answers.len() > 1, "it has company, which is settled");
        }
        sizes.push(answers.len());
    }
    sizes.retain(|size| *size > 0);
    sizes.sort_unstable();
    assert_eq!(sizes, [8, 32]);
    assert_eq!(
        market.count(|event| matches!(event, Event::AttestationRefused { .. })),
        1
    );
    assert_eq!(market.earned().await, 39 * EARNED);
}

fn attested(world: &World) -> usize {
    let batches = world.transactions.iter().filter_map(|(batch, _)| match batch {
        Batch::Attest(all) => Some(all.len()),
        _ => None,
    });
    batches.sum()
}

#[tokio::test]
async fn batches_are_cut_by_their_bytes_and_what_is_too_large_alone_is_refused_with_its_size() {
    let scene = Scene::new().await;
    let config = Config {
        batch_wait: Duration::from_secs(2),
        ..scene.config()
    };
    let mut running = scene.start_with(config).await.unwrap();
    let weight = serde_json::to_vec(&link(item(1), 0, 0, true)).unwrap().len();
    let links = |bytes: usize, job| vec![link(item(job), 0, 0, true); bytes / weight];
    for job in 1..=10 {
        scene
            .host
            .says(item(job), 0, WorkState::Done, links(100_000, job), true);
        scene.chain.assign(item(job), 0, [OTHER, ME], 100);
    }
    scene.host.says(item(11), 0, WorkState::Done, links(500_000, 11), true);
    scene.chain.assign(item(11), 0, [OTHER, ME], 100);
    scene.chain.mine(1);
    scene
        .chain
        .mine_until("the ten are attested", |world| attested(world) == 10)
        .await;
    running.until("counted", |s| s.totals.attested == 10).await;
    running.stop().await.unwrap();
    let world = scene.chain.world();
    let batches = world
        .transactions
        .iter()
        .map(|(batch, _)| serde_json::to_vec(batch).unwrap().len());
    let bytes: Vec<usize> = batches.collect();
    assert!(bytes.iter().all(|bytes| *bytes < 410_000), "{bytes:?}");
    assert!(bytes.len() <= 4, "{bytes:?}");
}

/// Kilobytes of this process, at their highest.
fn memory_peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn a_thousand_items_at_once_are_bounded_in_memory_and_none_is_lost() {
    let name = "batching::a_thousand_items_at_once_are_bounded_in_memory_and_none_is_lost";
    if std::env::var_os(ALONE).is_none() {
        // Memory can only be counted in a process of its own.
        let run = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", name, "--nocapture", "--test-threads", "1"])
            .env(ALONE, "1")
            .output()
            .unwrap();
        assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stdout));
        return;
    }
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let scene = Scene::new().await;
        scene.host.change(|desk| desk.finish_everything = true);
        let mut running = scene.start().await;
        running.until("reading", |s| s.caught_up).await;
        let before = memory_peak();
        for job in 1..=1_000 {
            scene.chain.assign(item(job), 0, [OTHER, ME], 10_000);
        }
        scene.chain.mine(1);
        let mut longest = 0;
        let since = tokio::time::Instant::now();
        while scene.chain.change(|world| attested(world)) < 1_000 {
            assert!(
                since.elapsed() < Duration::from_secs(300),
                "{:?}",
                *running.snapshots.borrow()
            );
            longest = longest.max(running.snapshots.borrow().queued);
            scene.chain.mine(0);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        scene.chain.mine(0);
        running
            .until("all are over", |s| {
                s.totals.attested == 1_000 && s.items == Default::default()
            })
            .await;
        let grown = memory_peak() - before;
        println!(
            "1000 items: {grown} kB more, queue at most {longest}, in {:?}",
            since.elapsed()
        );
        running.stop().await.unwrap();
        let world = scene.chain.world();
        assert!((1..=1_000).all(|job| scene_attested(&world, job)), "one is lost");
        assert!(world.transactions.len() >= 1_000 / BATCH_MAX);
        assert!(longest <= 128, "{longest} requests waited");
        assert!(grown < 100_000, "{grown} kB");
    });
}

fn scene_attested(world: &World, job: u64) -> bool {
    let status = &world.items[&item(job)].status;
    matches!(status, schema::orchestrator::ItemStatus::Settled { .. })
}
