//! Killed at every line, and started again from every state of the checkpoint.

use relayer::{
    chain::{Batch, TxHash},
    checkpoint::{Entry, Stage, Transaction},
};
use schema::receipt::Attestation;

use crate::{
    fake_chain::{item, link, Point, ME, OTHER},
    scene::Scene,
};

fn attestation_txs(scene: &Scene) -> usize {
    let world = scene.chain.world();
    world
        .transactions
        .iter()
        .filter(|(batch, _)| matches!(batch, Batch::Attest(_)))
        .count()
}

async fn killed_at(point: Point) -> Scene {
    let scene = Scene::new().await;
    scene.host.change(|desk| desk.finish_everything = true);
    scene.chain.change(|world| world.hold = Some(point));
    let running = scene.start().await;
    scene.chain.assign(item(1), 0, [OTHER, ME], 100);
    scene.chain.mine(1);
    scene.chain.until("held", |world| world.held == 1).await;
    running.kill().await;
    scene.chain.change(|world| world.hold = None);
    scene
}

async fn is_attested_once_after(scene: Scene) {
    let mut running = scene.start().await;
    scene
        .chain
        .mine_until("attested", |world| {
            world.items[&item(1)].status != schema::orchestrator::ItemStatus::Assigned {}
        })
        .await;
    scene.chain.mine(1);
    running
        .until("nothing open", |s| {
            s.items == Default::default() && s.transaction.is_none()
        })
        .await;
    running.stop().await.unwrap();
    assert_eq!((scene.chain.attested(item(1)), attestation_txs(&scene)), (1, 1));
    assert!(scene.chain.world().mempool.is_empty());
}

#[tokio::test]
async fn killed_with_a_signed_transaction_that_nobody_knows() {
    let scene = killed_at(Point::Signed).await;
    assert_eq!(scene.store().await.state().transaction(), None);
    is_attested_once_after(scene).await;
}

#[tokio::test]
async fn killed_between_writing_it_down_and_sending_it() {
    let scene = killed_at(Point::BeforeBroadcast).await;
    let state = scene.store().await.state();
    let hash = state.transaction().unwrap().tx_hash;
    assert_eq!(state.entry(item(1)).unwrap().stage, Stage::Prepared { tx_hash: hash });
    assert!(scene.chain.world().mempool.is_empty());
    let chain = scene.chain.clone();
    is_attested_once_after(scene).await;
    // The very bytes that were written down.
    assert!(chain.world().included.contains_key(&hash));
    assert_eq!(chain.world().signatures, 1);
}

#[tokio::test]
async fn killed_when_the_node_had_it_and_we_did_not_know() {
    let scene = killed_at(Point::AfterBroadcast).await;
    assert_eq!(scene.chain.world().mempool.len(), 1);
    let chain = scene.chain.clone();
    is_attested_once_after(scene).await;
    assert_eq!(chain.world().signatures, 1);
}

#[tokio::test]
async fn killed_while_waiting_and_included_while_it_was_down() {
    let scene = killed_at(Point::Confirm).await;
    scene.chain.mine(1);
    assert_eq!(scene.chain.attested(item(1)), 1);
    let chain = scene.chain.clone();
    is_attested_once_after(scene).await;
    assert_eq!(chain.world().signatures, 1);
}

#[tokio::test]
async fn killed_while_waiting_and_dropped_by_the_node() {
    let scene = killed_at(Point::Confirm).await;
    scene.chain.change(|world| world.mempool.clear());
    let chain = scene.chain.clone();
    is_attested_once_after(scene).await;
    assert_eq!(chain.world().signatures, 1);
}

#[tokio::test]
async fn killed_while_waiting_and_the_sequence_was_used_by_another_transaction() {
    let scene = killed_at(Point::Confirm).await;
    scene.chain.change(|world| {
        world.mempool.clear();
        world.sequences.insert(ME.into(), 5);
    });
    let chain = scene.chain.clone();
    is_attested_once_after(scene).await;
    assert_eq!(chain.world().signatures, 2);
}

#[tokio::test]
async fn a_node_whose_index_lags_behind_its_state_is_not_believed_at_once() {
    let scene = killed_at(Point::Confirm).await;
    scene.chain.mine(1);
    assert_eq!(scene.chain.attested(item(1)), 1);
    // The sequence is used up, by this very transaction, and until the next block the index does not say so.
    scene.chain.change(|world| world.index_lag = true);
    let mut running = scene.start().await;
    scene.chain.until("refused", |world| world.refusals == 1).await;
    // Time for whoever believes it at once.
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    scene.chain.mine(1);
    running
        .until("settled", |s| {
            s.totals.transactions == 1 && s.items == Default::default() && s.transaction.is_none()
        })
        .await;
    assert_eq!(running.snapshots.borrow().totals.transactions_dropped, 0);
    running.stop().await.unwrap();
    assert_eq!(scene.chain.world().signatures, 1);
}

#[tokio::test]
async fn a_transaction_that_a_halted_chain_drops_is_sent_again_as_it_was() {
    let scene = Scene::new().await;
    scene.host.change(|desk| desk.finish_everything = true);
    let mut running = scene.start().await;
    scene.chain.assign(item(1), 0, [OTHER, ME], 100);
    scene.chain.mine(1);
    scene.chain.until_mempool(1).await;
    let bytes = scene.chain.change(|world| world.mempool.pop().unwrap());
    scene.chain.until_mempool(1).await;
    assert_eq!(scene.chain.world().mempool, [bytes]);
    scene.chain.mine(1);
    running.until("attested", |s| s.totals.attested == 1).await;
}

fn entry(stage: Stage) -> Entry {
    Entry {
        item: item(1),
        attempt: 0,
        deadline: 1_100,
        attest_until: 1_101,
        evidence_until: 1_104,
        last_span: true,
        stage,
    }
}

async fn with_checkpoint(stage: Stage, transaction: Option<Transaction>) -> Scene {
    let scene = Scene::new().await;
    scene.host.change(|desk| desk.finish_everything = true);
    scene.chain.assign(item(1), 0, [OTHER, ME], 100);
    scene.chain.mine(0);
    let store = scene.store().await;
    store
        .update(|state| {
            state.assigned(entry(stage));
            state.height = Some(11);
            if let Some(transaction) = transaction {
                state.prepared(transaction, &[(item(1), 0)]);
            }
        })
        .unwrap();
    drop(store);
    scene
}

fn transaction() -> Transaction {
    let attestation = Attestation {
        item: item(1),
        attempt: 0,
        links: vec![link(item(1), 0, 1, false)],
    };
    let bytes = serde_json::to_vec(&(ME, 0, Batch::Attest(vec![attestation]), 0)).unwrap();
    Transaction {
        tx_hash: TxHash::of(&bytes),
        bytes,
    }
}

#[tokio::test]
async fn from_fresh_and_from_started_the_item_is_attested_once() {
    for stage in [Stage::Fresh {}, Stage::Started {}] {
        is_attested_once_after(with_checkpoint(stage, None).await).await;
    }
}

#[tokio::test]
async fn from_prepared_and_never_sent_the_item_is_attested_once() {
    let scene = with_checkpoint(Stage::Started {}, Some(transaction())).await;
    let chain = scene.chain.clone();
    is_attested_once_after(scene).await;
    assert_eq!(chain.world().signatures, 0);
}

#[tokio::test]
async fn from_prepared_and_already_in_the_mempool_the_item_is_attested_once() {
    let scene = with_checkpoint(Stage::Started {}, Some(transaction())).await;
    scene.chain.change(|world| world.mempool.push(transaction().bytes));
    let chain = scene.chain.clone();
    is_attested_once_after(scene).await;
    assert_eq!(chain.world().signatures, 0);
}

#[tokio::test]
async fn from_confirmed_nothing_is_sent_and_the_event_ends_it() {
    let scene = with_checkpoint(
        Stage::Confirmed {
            tx_hash: transaction().tx_hash,
        },
        None,
    )
    .await;
    scene.chain.change(|world| world.mempool.push(transaction().bytes));
    let chain = scene.chain.clone();
    is_attested_once_after(scene).await;
    assert_eq!(chain.world().signatures, 0);
}

/// Another item comes and goes its way; whatever would have been done for the first one is done by then.
async fn only_another_item_is_attested(scene: Scene) {
    let running = scene.start().await;
    scene.chain.assign(item(2), 0, [OTHER, ME], 100);
    scene.chain.mine(1);
    scene.chain.until_mempool(1).await;
    scene.chain.mine(1);
    running.stop().await.unwrap();
    assert_eq!((scene.chain.attested(item(1)), scene.chain.attested(item(2))), (0, 1));
    assert_eq!(scene.chain.world().signatures, 1);
    assert_eq!(scene.host.desk().puts, [(item(2), 0)]);
}

#[tokio::test]
async fn from_confirmed_nothing_is_sent_even_if_the_chain_seems_to_wait() {
    let tx_hash = transaction().tx_hash;
    only_another_item_is_attested(with_checkpoint(Stage::Confirmed { tx_hash }, None).await).await;
}

#[tokio::test]
async fn from_refused_the_attestation_is_not_paid_for_again() {
    let tx_hash = transaction().tx_hash;
    only_another_item_is_attested(with_checkpoint(Stage::Refused { tx_hash }, None).await).await;
}
