//! What is said after a missed deadline: the truth, once, and in time.

use relayer::tracker::proves_more;
use schema::work::WorkState;

use crate::{
    fake_chain::{item, link, ME, OTHER},
    scene::{Running, Scene},
};

/// Ours is the first span; the next host never acknowledged. The deadline is at 1101, the window ends at 1105.
async fn after_a_silent_neighbour() -> (Scene, Running) {
    let scene = Scene::new().await;
    let mut running = scene.start().await;
    let links = vec![link(item(1), 0, 0, false)];
    scene.host.says(item(1), 0, WorkState::Running, links, false);
    scene.chain.mine(1);
    scene.chain.assign(item(1), 0, [ME, OTHER], 100);
    scene.chain.mine(0);
    running.until("started", |s| s.items.started == 1).await;
    (scene, running)
}

/// So many blocks, each with a look at the evidence. A relayer that posts waits for its transaction instead of looking again.
async fn looks_again(scene: &Scene, blocks: u32) {
    for _ in 0..blocks {
        let looks = scene.chain.world().link_queries;
        scene.chain.mine(1);
        scene
            .chain
            .until("another look", |world| world.link_queries > looks)
            .await;
    }
}

#[tokio::test]
async fn evidence_of_a_link_fault_is_posted_once_and_only_after_the_deadline() {
    let (scene, mut running) = after_a_silent_neighbour().await;
    scene.chain.mine(100);
    let height = scene.chain.world().height;
    running.until_height(height).await;
    assert!(scene.chain.world().mempool.is_empty(), "the deadline itself is in time");
    scene.chain.mine(1);
    scene.chain.until_mempool(1).await;
    scene.chain.mine(1);
    running.until("posted", |s| s.totals.evidence_posted == 1).await;
    looks_again(&scene, 2).await;
    running.stop().await.unwrap();
    assert_eq!(scene.chain.world().evidences(), 1);
    assert_eq!(scene.chain.world().links[&(item(1), 0)], [link(item(1), 0, 0, false)]);
}

#[tokio::test]
async fn an_acknowledgement_that_comes_late_is_posted_too() {
    let (scene, mut running) = after_a_silent_neighbour().await;
    scene.chain.mine(101);
    scene.chain.until_mempool(1).await;
    scene.chain.mine(1);
    running.until("posted", |s| s.totals.evidence_posted == 1).await;
    scene
        .host
        .says(item(1), 0, WorkState::Done, vec![link(item(1), 0, 0, true)], false);
    scene.chain.mine(1);
    scene.chain.until_mempool(1).await;
    scene.chain.mine(0);
    running.until("posted again", |s| s.totals.evidence_posted == 2).await;
    assert!(scene.chain.world().links[&(item(1), 0)][0].acknowledgement.is_some());
}

#[tokio::test]
async fn nothing_is_posted_when_the_window_has_passed() {
    let (scene, running) = after_a_silent_neighbour().await;
    scene.chain.mine(200);
    scene.chain.mine_until("expired", |world| world.expiries() == 1).await;
    running.stop().await.unwrap();
    assert_eq!(scene.chain.world().evidences(), 0);
}

#[tokio::test]
async fn nothing_is_posted_that_the_chain_knows_already() {
    let (scene, running) = after_a_silent_neighbour().await;
    scene
        .chain
        .change(|world| world.links.insert((item(1), 0), vec![link(item(1), 0, 0, true)]));
    scene.chain.mine(100);
    looks_again(&scene, 2).await;
    running.stop().await.unwrap();
    assert_eq!(scene.chain.world().signatures, 0);
}

#[tokio::test]
async fn nothing_is_posted_once_the_item_is_settled() {
    let (scene, mut running) = after_a_silent_neighbour().await;
    scene.chain.change(|world| {
        let found = world.items.get_mut(&item(1)).unwrap();
        found.status = schema::orchestrator::ItemStatus::Failed {
            reason: schema::orchestrator::FailureReason::Covered,
        };
    });
    // Of two items only the open one is spoken of, in one breath.
    scene.chain.assign(item(2), 0, [ME, OTHER], 100);
    scene
        .host
        .says(item(2), 0, WorkState::Done, vec![link(item(2), 0, 0, true)], false);
    scene.chain.mine(0);
    running.until("both started", |s| s.items.started == 2).await;
    scene.chain.mine(101);
    scene.chain.until_mempool(1).await;
    scene.chain.mine(0);
    running.until("posted", |s| s.totals.evidence_posted == 1).await;
    running.stop().await.unwrap();
    assert_eq!(scene.chain.world().links.keys().collect::<Vec<_>>(), [&(item(2), 0)]);
}

#[tokio::test]
async fn a_proof_that_is_ready_in_the_grace_time_is_attested_and_not_testified() {
    let scene = Scene::new().await;
    let mut running = scene.start().await;
    scene.chain.assign(item(1), 0, [OTHER, ME], 100);
    scene.chain.mine(0);
    running.until("started", |s| s.items.started == 1).await;
    scene.chain.mine(101);
    scene.host.finishes(item(1), 0);
    scene.chain.until_mempool(1).await;
    scene.chain.mine(0);
    running.until("attested", |s| s.totals.attested == 1).await;
    assert_eq!(scene.chain.world().evidences(), 0);
}

#[test]
fn only_a_new_receipt_or_the_acknowledgement_of_the_last_one_proves_more() {
    let bare = |stage| link(item(1), 0, stage, false);
    let acknowledged = |stage| link(item(1), 0, stage, true);
    assert!(!proves_more(&[], &[]));
    assert!(!proves_more(&[], &[bare(0)]));
    assert!(proves_more(&[bare(0)], &[]));
    assert!(!proves_more(&[bare(0)], &[bare(0)]));
    assert!(proves_more(&[acknowledged(0)], &[bare(0)]));
    assert!(!proves_more(&[bare(0)], &[acknowledged(0)]));
    assert!(proves_more(&[acknowledged(0), bare(1)], &[acknowledged(0)]));
    assert!(!proves_more(&[acknowledged(0)], &[acknowledged(0), bare(1)]));
}
