//! Assigned, done, attested: once, together, and whatever the others do.

use std::time::Duration;

use relayer::{chain::Batch, checkpoint::Stage, Config};
use schema::{work::WorkState, Event};

use crate::{
    fake_chain::{assigned_event, item, link, World, ME, OTHER},
    scene::{self, Scene},
};

fn attest_sizes(world: &World) -> Vec<usize> {
    let sizes = world.transactions.iter().filter_map(|(batch, _)| match batch {
        Batch::Attest(all) => Some(all.len()),
        _ => None,
    });
    sizes.collect()
}

#[tokio::test]
async fn an_assigned_item_is_attested_once() {
    let scene = Scene::new().await;
    let mut running = scene.start().await;
    scene.chain.assign(item(1), 0, [OTHER, ME], 100);
    scene.chain.mine(1);
    scene.host.until("told", |desk| desk.puts == [(item(1), 0)]).await;
    scene.host.finishes(item(1), 0);
    scene.chain.until_mempool(1).await;
    scene.chain.mine(1);
    running
        .until("attested", |s| s.totals.attested == 1 && s.items == Default::default())
        .await;
    for _ in 0..5 {
        scene.chain.mine(1);
    }
    running.until_height(17).await;
    running.stop().await.unwrap();
    assert_eq!(attest_sizes(&scene.chain.world()), [1]);
    assert_eq!(scene.host.desk().puts.len(), 1);
    assert_eq!(scene.store().await.state().height, Some(17));
}

#[tokio::test]
async fn the_host_of_an_earlier_span_is_told_but_attests_nothing() {
    let scene = Scene::new().await;
    let mut running = scene.start().await;
    let links = vec![link(item(1), 0, 0, true)];
    // Even if it claims to have it all.
    scene.host.says(item(1), 0, WorkState::Done, links, true);
    scene.host.finishes(item(2), 0);
    scene.chain.assign(item(1), 0, [ME, OTHER], 100);
    scene.chain.assign(item(2), 0, [OTHER, ME], 100);
    scene.chain.mine(1);
    scene.chain.until_mempool(1).await;
    scene.chain.mine(1);
    running.until("attested", |s| s.totals.attested == 1).await;
    running.stop().await.unwrap();
    assert_eq!(attest_sizes(&scene.chain.world()), [1]);
    assert_eq!(scene.host.desk().puts.len(), 2);
}

#[tokio::test]
async fn items_of_others_are_none_of_our_business() {
    let scene = Scene::new().await;
    let mut running = scene.start().await;
    scene.chain.assign(item(1), 0, [OTHER, OTHER], 100);
    scene.chain.assign(item(2), 0, [ME, ME], 100);
    scene.chain.mine(1);
    running.until("one started", |s| s.items.started == 1).await;
    assert_eq!(scene.host.desk().puts, [(item(2), 0)]);
}

#[tokio::test]
async fn what_was_assigned_before_the_first_start_is_found() {
    let scene = Scene::new().await;
    scene.host.change(|desk| desk.finish_everything = true);
    scene.chain.assign(item(1), 2, [OTHER, ME], 100);
    scene.chain.mine(1);
    let _running = scene.start().await;
    scene
        .chain
        .mine_until("attested", |world| attest_sizes(world) == [1])
        .await;
}

#[tokio::test]
async fn what_was_assigned_while_it_was_down_is_found() {
    let scene = Scene::new().await;
    scene.host.change(|desk| desk.finish_everything = true);
    let mut running = scene.start().await;
    running.until("reading", |s| s.caught_up).await;
    running.stop().await.unwrap();
    scene.chain.assign(item(1), 0, [OTHER, ME], 100);
    scene.chain.mine(1);
    scene.chain.assign(item(2), 0, [OTHER, OTHER], 100);
    scene.chain.mine(1);
    let _running = scene.start().await;
    scene
        .chain
        .mine_until("attested", |world| attest_sizes(world) == [1])
        .await;
    assert_eq!(scene.chain.attested(item(1)), 1);
}

#[tokio::test]
async fn forty_items_go_out_in_two_transactions() {
    let scene = Scene::new().await;
    scene.host.change(|desk| desk.finish_everything = true);
    let config = Config {
        batch_wait: Duration::from_secs(2),
        ..scene.config()
    };
    let mut running = scene.start_with(config).await.unwrap();
    for job in 1..=40 {
        scene.chain.assign(item(job), 0, [OTHER, ME], 100);
    }
    scene.chain.mine(1);
    scene
        .chain
        .mine_until("all attested", |world| attest_sizes(world).iter().sum::<usize>() == 40)
        .await;
    assert_eq!(attest_sizes(&scene.chain.world()), [32, 8]);
    running.until("counted", |s| s.totals.attested == 40).await;
}

#[tokio::test]
async fn a_refused_attestation_holds_up_nobody_and_is_not_sent_again() {
    let scene = Scene::new().await;
    scene.host.change(|desk| desk.finish_everything = true);
    scene.chain.change(|world| world.broken.insert(item(1)));
    let mut running = scene.start().await;
    scene.chain.assign(item(1), 0, [OTHER, ME], 100);
    scene.chain.assign(item(2), 0, [OTHER, ME], 100);
    scene.chain.mine(1);
    let all = |world: &World| attest_sizes(world).iter().sum::<usize>() >= 2;
    scene.chain.mine_until("both tried", all).await;
    running
        .until("answers", |s| s.totals.attested == 1 && s.items.refused == 1)
        .await;
    running.stop().await.unwrap();
    let mut running = scene.start().await;
    scene.chain.assign(item(3), 0, [OTHER, ME], 100);
    scene.chain.mine(1);
    scene.chain.until_mempool(1).await;
    scene.chain.mine(1);
    running.until("the third", |s| s.totals.attested == 1).await;
    running.stop().await.unwrap();
    assert_eq!(attest_sizes(&scene.chain.world()).iter().sum::<usize>(), 3);
    let stage = scene.store().await.state().entry(item(1)).unwrap().stage;
    assert!(matches!(stage, Stage::Refused { .. }), "{stage:?}");
}

#[tokio::test]
async fn a_transaction_whose_gas_was_not_enough_is_made_anew_and_whole() {
    let scene = Scene::new().await;
    scene.host.change(|desk| desk.finish_everything = true);
    scene.chain.change(|world| world.out_of_gas = 1);
    let config = Config {
        batch_wait: Duration::from_secs(2),
        ..scene.config()
    };
    let mut running = scene.start_with(config).await.unwrap();
    (1..=4).for_each(|job| scene.chain.assign(item(job), 0, [OTHER, ME], 100));
    scene.chain.mine(1);
    let attested = |world: &World| world.transactions.iter().any(|(_, is_done)| *is_done);
    scene.chain.mine_until("attested", attested).await;
    running.until("counted", |s| s.totals.attested == 4).await;
    assert_eq!(attest_sizes(&scene.chain.world()), [4, 4], "neither cut nor given up");
}

#[tokio::test]
async fn an_event_that_comes_twice_does_nothing_twice() {
    let scene = Scene::new().await;
    let mut running = scene.start().await;
    scene.chain.assign(item(1), 0, [OTHER, ME], 100);
    let again = |scene: &Scene| {
        let found = scene.chain.world().items[&item(1)].clone();
        scene.chain.announce(assigned_event(&found, vec![100, 7]));
        scene.chain.mine(1);
    };
    again(&scene);
    again(&scene);
    running
        .until("started", |s| s.items.started == 1 && s.height == 12)
        .await;
    scene.host.finishes(item(1), 0);
    scene.chain.until_mempool(1).await;
    scene.chain.mine(1);
    running.until("attested", |s| s.totals.attested == 1).await;
    // The item is forgotten by now, and the assignment is announced once more.
    scene.chain.assign(item(2), 0, [OTHER, ME], 100);
    again(&scene);
    scene
        .host
        .until("told of the other", |desk| desk.puts.last() == Some(&(item(2), 0)))
        .await;
    running.stop().await.unwrap();
    assert_eq!(attest_sizes(&scene.chain.world()), [1]);
    assert_eq!(scene.host.desk().puts.len(), 2);
}

#[tokio::test]
async fn two_relayers_of_one_provider_do_no_harm() {
    let scene = Scene::new().await;
    scene.host.change(|desk| desk.finish_everything = true);
    let second_home = tempfile::tempdir().unwrap();
    let second_config = Config {
        host_home: scene.home.path().into(),
        ..scene::config(second_home.path().into())
    };
    let mut first = scene.start().await;
    let mut second = scene::start(second_config, scene.chain.as_account("wasm1second"))
        .await
        .unwrap();
    scene.chain.assign(item(1), 0, [OTHER, ME], 100);
    scene.chain.mine(1);
    // Both have sent before either knew of the other.
    scene.chain.until_mempool(2).await;
    scene.chain.mine(1);
    scene.chain.mine(1);
    first.until_height(13).await;
    second.until_height(13).await;
    first.until("nothing open", |s| s.items == Default::default()).await;
    second.until("nothing open", |s| s.items == Default::default()).await;
    first.stop().await.unwrap();
    second.stop().await.unwrap();
    assert_eq!(scene.chain.attested(item(1)), 1);
    assert!(scene.chain.world().mempool.is_empty());
}

#[tokio::test]
async fn a_new_attempt_takes_the_place_of_the_old_one() {
    let scene = Scene::new().await;
    let mut running = scene.start().await;
    scene.chain.assign(item(1), 0, [ME, OTHER], 100);
    scene.chain.mine(1);
    running.until("started", |s| s.items.started == 1).await;
    scene.chain.announce(Event::ItemMissed {
        item: item(1),
        attempt: 0,
        deployment: 101,
    });
    scene.chain.assign(item(1), 1, [OTHER, ME], 100);
    scene.chain.mine(1);
    scene
        .host
        .until("told again", |desk| desk.puts == [(item(1), 0), (item(1), 1)])
        .await;
    scene.host.finishes(item(1), 1);
    scene.chain.until_mempool(1).await;
    scene.chain.mine(1);
    running.until("attested", |s| s.totals.attested == 1).await;
}

#[tokio::test]
async fn a_relayer_without_gas_money_goes_on_when_it_gets_some() {
    let scene = Scene::new().await;
    scene.host.change(|desk| desk.finish_everything = true);
    scene.chain.change(|world| world.fee_money = false);
    let mut running = scene.start().await;
    scene.chain.assign(item(1), 0, [OTHER, ME], 100);
    scene.chain.mine(1);
    running.until("told", |s| s.items.started == 1).await;
    scene.chain.change(|world| world.fee_money = true);
    scene.chain.until_mempool(1).await;
    scene.chain.mine(1);
    running.until("attested", |s| s.totals.attested == 1).await;
}

#[tokio::test]
async fn a_transaction_under_way_is_seen_through_before_the_end() {
    let scene = Scene::new().await;
    scene.host.change(|desk| desk.finish_everything = true);
    let running = scene.start().await;
    scene.chain.assign(item(1), 0, [OTHER, ME], 100);
    scene.chain.mine(1);
    scene.chain.until_mempool(1).await;
    let stopping = tokio::spawn(running.stop());
    tokio::task::yield_now().await;
    scene.chain.mine(1);
    stopping.await.unwrap().unwrap();
    let state = scene.store().await.state();
    assert_eq!(state.transaction(), None);
    assert!(matches!(state.entry(item(1)).unwrap().stage, Stage::Confirmed { .. }));
    assert!(!scene.home.path().join("relayer.json").exists());
}
