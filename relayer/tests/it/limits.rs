//! What a relayer may spend, how long it waits for a transaction, and how it tells that money runs out.

use std::time::{Duration, Instant};

use relayer::{status::Subject, Config};

use crate::{
    fake_chain::{item, ME, OTHER},
    scene::{Running, Scene},
};

#[tokio::test]
async fn what_would_cost_too_much_together_is_sent_in_parts() {
    let scene = Scene::new().await;
    scene.host.change(|desk| desk.finish_everything = true);
    scene.chain.change(|world| world.entries_max = Some(2));
    let mut running = scene.start().await;
    for number in 1..=5 {
        scene.chain.assign(item(number), 0, [OTHER, ME], 100);
    }
    scene.chain.mine(1);
    scene
        .chain
        .mine_until("all are attested", |world| {
            world
                .transactions
                .iter()
                .map(|(batch, _)| batch_len(batch))
                .sum::<usize>()
                == 5
        })
        .await;
    running.until("counted", |s| s.totals.attested == 5).await;
    let snapshot = running.snapshots.borrow().clone();
    assert!(!snapshot.trouble.contains_key(&Subject::Fee));
    assert_eq!(snapshot.totals.transactions_too_dear, 0);
    assert!(scene
        .chain
        .world()
        .transactions
        .iter()
        .all(|(batch, _)| batch_len(batch) <= 2));
}

fn batch_len(batch: &relayer::chain::Batch) -> usize {
    match batch {
        relayer::chain::Batch::Attest(attestations) => attestations.len(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn one_that_alone_costs_too_much_is_not_sent_and_raises_an_alarm_until_it_is_cheaper() {
    let scene = Scene::new().await;
    scene.host.change(|desk| desk.finish_everything = true);
    scene.chain.change(|world| world.entries_max = Some(0));
    let mut running = scene.start().await;
    scene.chain.assign(item(1), 0, [OTHER, ME], 100);
    scene.chain.mine(1);
    running.until("told", |s| s.trouble.contains_key(&Subject::Fee)).await;
    let sentence = running.snapshots.borrow().trouble[&Subject::Fee].clone();
    assert_eq!(sentence, "too dear: 1 entries");
    assert!(running
        .snapshots
        .borrow()
        .metrics()
        .contains("fxn_relayer_transactions_total{outcome=\"too_dear\"} 1\n"));
    assert_eq!(scene.chain.world().signatures, 0);
    scene.chain.change(|world| world.entries_max = None);
    scene.chain.until_mempool(1).await;
    scene.chain.mine(1);
    running
        .until("over", |s| {
            s.totals.attested == 1 && !s.trouble.contains_key(&Subject::Fee)
        })
        .await;
}

/// A relayer whose only transaction is in the mempool of a node that never puts it into a block.
async fn stuck() -> (Scene, Running) {
    let scene = Scene::new().await;
    scene.host.change(|desk| desk.finish_everything = true);
    scene.chain.change(|world| {
        world.is_stuck = true;
        world.blocks_max = Some(5);
    });
    let running = scene.start().await;
    scene.chain.assign(item(1), 0, [OTHER, ME], 100);
    scene.chain.mine(1);
    scene.chain.until_mempool(1).await;
    (scene, running)
}

#[tokio::test]
async fn a_transaction_that_is_stuck_is_made_anew_when_the_chain_says_that_it_is_too_late_for_it() {
    let (scene, mut running) = stuck().await;
    // The node says all the time that it has it; for these blocks that may be true.
    for _ in 0..5 {
        scene.chain.mine(1);
    }
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    assert_eq!(scene.chain.world().signatures, 1);
    scene.chain.mine(1);
    scene.chain.change(|world| world.is_stuck = false);
    scene
        .chain
        .mine_until("attested", |world| world.included.len() == 1)
        .await;
    running.until("told", |s| s.totals.attested == 1).await;
    let totals = running.snapshots.borrow().totals;
    assert_eq!((totals.transactions, totals.transactions_dropped), (1, 1));
    assert_eq!(scene.chain.world().signatures, 2);
    assert_eq!(scene.chain.attested(item(1)), 1);
}

#[tokio::test]
async fn a_transaction_that_is_stuck_is_left_in_the_checkpoint_when_the_time_to_stop_is_over() {
    let (scene, running) = stuck().await;
    running.stop().await.unwrap();
    let state = scene.store().await.state();
    let left = state.transaction().unwrap().clone();
    // The next run settles it: the very same bytes.
    scene.chain.change(|world| world.is_stuck = false);
    let config = Config {
        shutdown_timeout: Duration::from_secs(1),
        ..scene.config()
    };
    let mut next = scene.start_with(config).await.unwrap();
    scene.chain.mine(1);
    next.until("settled", |s| s.transaction.is_none() && s.totals.transactions == 1)
        .await;
    assert!(scene.chain.world().included.contains_key(&left.tx_hash));
    next.stop().await.unwrap();
}

#[tokio::test]
async fn an_end_waits_for_a_transaction_no_longer_than_it_may() {
    let scene = Scene::new().await;
    scene.host.change(|desk| desk.finish_everything = true);
    scene.chain.change(|world| world.is_stuck = true);
    let config = Config {
        shutdown_timeout: Duration::from_secs(1),
        ..scene.config()
    };
    let running = scene.start_with(config).await.unwrap();
    scene.chain.assign(item(1), 0, [OTHER, ME], 100);
    scene.chain.mine(1);
    scene.chain.until_mempool(1).await;
    let began = Instant::now();
    running.stop().await.unwrap();
    let took = began.elapsed();
    assert!(
        Duration::from_millis(900) <= took && took < Duration::from_secs(15),
        "{took:?}"
    );
}

#[tokio::test]
async fn a_low_balance_is_told_before_it_is_used_up_and_until_it_is_mended() {
    let scene = Scene::new().await;
    scene.chain.change(|world| world.balance = 499);
    let config = Config {
        balance_low: 500,
        ..scene.config()
    };
    let mut running = scene.start_with(config).await.unwrap();
    running
        .until("told", |s| s.trouble.contains_key(&Subject::Balance))
        .await;
    let snapshot = running.snapshots.borrow().clone();
    let expected = "the account that pays has 499 of the gas coin left, the alarm is set at 500";
    assert_eq!(snapshot.trouble[&Subject::Balance], expected);
    assert!(!snapshot.trouble.contains_key(&Subject::Gas));
    let metrics = snapshot.metrics();
    assert!(
        metrics.contains("fxn_relayer_trouble{subject=\"balance\"} 1\n"),
        "{metrics}"
    );
    assert!(metrics.contains("fxn_relayer_balance 499\n"), "{metrics}");
    scene.chain.change(|world| world.balance = 500);
    running
        .until("over", |s| !s.trouble.contains_key(&Subject::Balance))
        .await;
}
