//! What a host holds becomes money: when it is due, many at once, never paid for twice.

use std::time::Duration;

use relayer::{chain::Batch, Config};
use schema::{
    escrow::VoucherRefusal,
    session::{SignedVoucher, Voucher},
    work::{HeldVoucher, VoucherNews},
    Signature,
};

use crate::{
    fake_chain::{FakeChain, Point},
    scene::Scene,
};

/// What a voucher of this sequence promises.
fn promised(sequence: u64) -> u128 {
    u128::from(sequence) * 1_000_000
}

fn held(session: u64, sequence: u64, worth: u128) -> HeldVoucher {
    let voucher = Voucher {
        session,
        deployment: 7,
        sequence,
        requests: 1,
        units_in: 1,
        units_out: 0,
        amount: promised(sequence).into(),
    };
    HeldVoucher {
        voucher: SignedVoucher {
            voucher,
            signature: Signature([0; 64]),
        },
        worth: worth.into(),
        since: 1_000,
        urgent: false,
        closes_at: 9_999,
    }
}

fn news(session: u64, sequence: u64, refusal: Option<VoucherRefusal>) -> VoucherNews {
    VoucherNews {
        session,
        deployment: 7,
        sequence,
        refusal,
    }
}

/// So many sessions on chain, each with a voucher that is worth a transaction.
async fn scene(sessions: u64) -> Scene {
    let scene = Scene::new().await;
    scene.chain.change(|world| {
        world.paid.extend((1..=sessions).map(|session| ((session, 7), 0)));
    });
    scene
        .host
        .change(|desk| desk.vouchers = (1..=sessions).map(|session| held(session, 3, 2_000_000)).collect());
    scene
}

fn settlements(chain: &FakeChain) -> Vec<usize> {
    let world = chain.world();
    let vouchers = |(batch, _): &(Batch, bool)| match batch {
        Batch::Settle(vouchers) => Some(vouchers.len()),
        _ => None,
    };
    world.transactions.iter().filter_map(vouchers).collect()
}

#[tokio::test]
async fn vouchers_of_forty_sessions_go_in_two_transactions_and_the_host_hears_of_each() {
    let scene = scene(40).await;
    let mut running = scene.start().await;
    scene
        .chain
        .mine_until("all are settled", |world| {
            world.paid.values().all(|paid| *paid == promised(3))
        })
        .await;
    scene
        .host
        .until("the host has heard", |desk| desk.news.len() == 40)
        .await;
    assert_eq!(settlements(&scene.chain), [32, 8]);
    assert!(scene.host.desk().news.iter().all(|news| news.refusal.is_none()));
    running
        .until("it is counted", |snapshot| snapshot.totals.vouchers_settled == 40)
        .await;
    running.stop().await.unwrap();
}

#[tokio::test]
async fn a_bad_one_in_the_middle_is_named_paid_for_once_and_stops_no_other() {
    let scene = scene(3).await;
    scene.chain.change(|world| world.broken_sessions.insert(2));
    let running = scene.start().await;
    scene
        .chain
        .mine_until("the others are settled", |world| world.paid[&(3, 7)] == promised(3))
        .await;
    scene
        .host
        .until("the host has heard", |desk| desk.news.len() == 3)
        .await;
    let heard = scene.host.desk().news.clone();
    assert_eq!(
        heard,
        [
            news(1, 3, None),
            news(2, 3, Some(VoucherRefusal::Signature)),
            news(3, 3, None)
        ]
    );
    // A later voucher of the same session is another one.
    scene.chain.change(|world| world.broken_sessions.clear());
    scene.host.change(|desk| desk.vouchers = vec![held(2, 4, 2_000_000)]);
    scene
        .chain
        .mine_until("it is settled", |world| world.paid[&(2, 7)] == promised(4))
        .await;
    assert_eq!(settlements(&scene.chain), [3, 1]);
    running.stop().await.unwrap();
}

#[tokio::test]
async fn what_is_worth_little_waits_for_its_time_or_until_it_is_urgent() {
    let scene = scene(1).await;
    let small = held(1, 3, 5);
    scene.host.change(|desk| desk.vouchers = vec![small]);
    let config = Config {
        settle_after: Duration::from_secs(60),
        ..scene.config()
    };
    let running = scene.start_with(config).await.unwrap();
    scene.chain.mine(59);
    // Time for whoever is in a hurry.
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(scene.chain.world().mempool.is_empty());
    scene.chain.mine(1);
    scene
        .chain
        .mine_until("it is settled", |world| world.paid[&(1, 7)] == promised(3))
        .await;
    let urgent = HeldVoucher {
        urgent: true,
        since: 9_000,
        ..held(1, 4, 1)
    };
    scene.host.change(|desk| desk.vouchers = vec![urgent]);
    scene
        .chain
        .mine_until("it is settled", |world| world.paid[&(1, 7)] == promised(4))
        .await;
    running.stop().await.unwrap();
}

#[tokio::test]
async fn what_is_settled_already_is_told_and_not_paid_for() {
    let scene = scene(2).await;
    scene.chain.change(|world| world.paid.insert((1, 7), promised(3)));
    scene.chain.change(|world| world.paid.insert((2, 7), promised(9)));
    let running = scene.start().await;
    scene
        .host
        .until("the host has heard", |desk| desk.news.len() == 2)
        .await;
    let heard = scene.host.desk().news.clone();
    assert_eq!(heard, [news(1, 3, None), news(2, 3, Some(VoucherRefusal::Stale))]);
    assert_eq!(scene.chain.world().signatures, 0);
    running.stop().await.unwrap();
}

#[tokio::test]
async fn a_later_voucher_for_less_that_somebody_has_settled_keeps_ours_back_from_nothing() {
    let scene = scene(1).await;
    // Whatever its sequence was.
    scene.chain.change(|world| world.paid.insert((1, 7), 1));
    let running = scene.start().await;
    scene
        .chain
        .mine_until("ours is settled", |world| world.paid[&(1, 7)] == promised(3))
        .await;
    scene
        .host
        .until("the host has heard", |desk| desk.news.len() == 1)
        .await;
    assert_eq!(scene.host.desk().news, [news(1, 3, None)]);
    running.stop().await.unwrap();
}

#[tokio::test]
async fn killed_anywhere_on_the_way_it_settles_once() {
    for point in [
        Point::Signed,
        Point::BeforeBroadcast,
        Point::AfterBroadcast,
        Point::Confirm,
    ] {
        let scene = scene(1).await;
        scene.chain.change(|world| world.hold = Some(point));
        let running = scene.start().await;
        scene.chain.until("it hangs there", |world| world.held == 1).await;
        running.kill().await;
        scene.chain.change(|world| world.hold = None);
        let running = scene.start().await;
        scene
            .chain
            .mine_until("it is settled", |world| world.paid[&(1, 7)] == promised(3))
            .await;
        scene
            .host
            .until("the host has heard", |desk| desk.news.len() == 1)
            .await;
        assert_eq!(settlements(&scene.chain), [1], "{point:?}");
        running.stop().await.unwrap();
    }
}

#[tokio::test]
async fn a_host_that_hears_nothing_is_told_again_and_costs_nothing_more() {
    let scene = scene(1).await;
    scene.host.change(|desk| desk.is_deaf = true);
    let running = scene.start().await;
    scene
        .chain
        .mine_until("it is settled", |world| world.paid[&(1, 7)] == promised(3))
        .await;
    scene
        .host
        .until("it is told three times", |desk| desk.news.len() >= 3)
        .await;
    assert_eq!(settlements(&scene.chain), [1]);
    running.stop().await.unwrap();
}
