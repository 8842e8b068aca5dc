//! The public duty: after the window, after a wait, after a second look.

use std::{sync::Arc, time::Duration};

use relayer::{
    chain::{Chain, Moment},
    checkpoint::Store,
    keeper::{Candidates, Keeper},
    retry::Policy,
    rounds::Rounds,
    status::Board,
    submitter::{Manner, Submitter},
    Config,
};
use schema::orchestrator::{FailureReason, ItemStatus};
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

use crate::{
    fake_chain::{item, FakeChain, World, ME, OTHER, WINDOW},
    scene::{self, Scene},
};

/// A keeper alone, without a host, on paused time.
pub struct Duty {
    pub chain: FakeChain,
    clock: watch::Sender<Moment>,
    board: Board,
    pub keeper: JoinHandle<Result<(), relayer::RelayerError>>,
    _overdue: mpsc::Sender<schema::ItemId>,
    _home: tempfile::TempDir,
}

impl Duty {
    async fn of(chain: FakeChain, candidates: Candidates) -> Duty {
        Duty::with(chain, candidates, None).await
    }

    pub async fn with(chain: FakeChain, candidates: Candidates, rounds: Option<Rounds>) -> Duty {
        let home = tempfile::tempdir().unwrap();
        let owner = relayer::checkpoint::Owner {
            chain_id: "fake-1".into(),
            orchestrator: "o".into(),
            provider: ME.into(),
        };
        let (store, _) = Store::open(home.path(), owner).unwrap();
        let board = Board::new("fake-1", ME);
        let manner = Manner {
            batch_wait: Duration::from_millis(10),
            confirm_timeout: Duration::from_secs(30),
            policy: Policy {
                first: Duration::from_millis(10),
                longest: Duration::from_secs(1),
                tries: 3,
            },
        };
        let (submitter, queue) = Submitter::new(chain.clone(), Arc::new(store), board.clone(), manner);
        tokio::spawn(submitter.run(CancellationToken::new()));
        let (clock, moments) = watch::channel(chain.head().await.unwrap().moment);
        let (_overdue, overdue) = mpsc::channel(4);
        let keeper = Keeper {
            chain: chain.clone(),
            board: board.clone(),
            queue,
            clock: moments,
            overdue,
            interval: Duration::from_secs(1),
            blocks_max: 0,
            candidates,
            rounds,
        };
        let keeper = tokio::spawn(keeper.run());
        Duty {
            chain,
            clock,
            board,
            keeper,
            _overdue,
            _home: home,
        }
    }

    /// A block, and all that follows from it.
    pub async fn block(&self, seconds: u64) {
        self.chain.mine(seconds);
        let world = self.chain.world().clone();
        self.clock.send_replace(Moment {
            height: world.height,
            seconds: world.seconds,
        });
        // Time is paused: this ends when every task waits for something else.
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_overdue_item_waits_its_blocks_and_is_then_expired() {
    let chain = FakeChain::new();
    chain.assign(item(1), 0, [OTHER, OTHER], 10);
    chain.mine(0);
    let mut candidates = Candidates::default();
    candidates.add(item(1), 12, 3);
    let duty = Duty::of(chain, candidates).await;
    duty.block(10 + WINDOW + 1).await;
    for _ in 0..2 {
        duty.block(1).await;
        assert!(
            duty.chain.world().mempool.is_empty(),
            "at {}",
            duty.chain.world().height
        );
    }
    duty.block(1).await;
    assert_eq!(duty.chain.world().height, 15);
    assert_eq!(duty.chain.world().mempool.len(), 1);
    duty.block(1).await;
    assert_eq!(duty.chain.world().expiries(), 1);
    assert_eq!(duty.board.subscribe().borrow().totals.expired, 1);
}

#[tokio::test(start_paused = true)]
async fn an_item_that_somebody_expired_meanwhile_costs_nothing() {
    let chain = FakeChain::new();
    chain.assign(item(1), 0, [OTHER, OTHER], 10);
    chain.mine(0);
    let mut candidates = Candidates::default();
    candidates.add(item(1), 12, 2);
    let duty = Duty::of(chain, candidates).await;
    duty.block(20).await;
    duty.chain.change(|world| {
        world.items.get_mut(&item(1)).unwrap().status = ItemStatus::Failed {
            reason: FailureReason::Attempts,
        };
    });
    for _ in 0..4 {
        duty.block(1).await;
    }
    assert_eq!(duty.chain.world().simulations, 0);
}

#[tokio::test(start_paused = true)]
async fn an_item_that_was_assigned_anew_is_left_alone() {
    let chain = FakeChain::new();
    chain.assign(item(1), 0, [OTHER, OTHER], 10);
    chain.mine(0);
    let mut candidates = Candidates::default();
    candidates.add(item(1), 12, 1);
    let duty = Duty::of(chain, candidates).await;
    duty.block(20).await;
    duty.chain.assign(item(1), 1, [OTHER, OTHER], 1000);
    duty.block(1).await;
    duty.block(1).await;
    assert_eq!(duty.chain.world().simulations, 0);
}

#[tokio::test(start_paused = true)]
async fn a_halted_chain_expires_nobody_and_is_left_in_peace() {
    let chain = FakeChain::new();
    chain.assign(item(1), 0, [OTHER, OTHER], 10);
    chain.mine(0);
    let duty = Duty::of(chain, Candidates::default()).await;
    duty.block(10 + WINDOW).await;
    let queries = duty.chain.world().item_queries;
    tokio::time::sleep(Duration::from_secs(24 * 3600)).await;
    assert_eq!(duty.chain.world().item_queries, queries);
    assert!(duty.chain.world().mempool.is_empty());
    assert!(!duty.keeper.is_finished());
}

fn open(world: &World) -> Vec<u64> {
    let open = world
        .items
        .values()
        .filter(|item| item.status == ItemStatus::Assigned {});
    open.map(|item| item.item.job).collect()
}

async fn twenty_overdue_items(chain: FakeChain) -> Duty {
    for job in 1..=20 {
        chain.assign(item(job), 0, [OTHER, OTHER], 10);
    }
    chain.mine(0);
    let duty = Duty::of(chain, Candidates::default()).await;
    duty.block(10 + WINDOW + 1).await;
    duty
}

#[tokio::test(start_paused = true)]
async fn overdue_items_share_transactions() {
    let duty = twenty_overdue_items(FakeChain::new()).await;
    for _ in 0..3 {
        duty.block(1).await;
    }
    assert!(open(&duty.chain.world()).is_empty());
    assert_eq!(duty.chain.world().transactions.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn one_item_that_cannot_be_expired_yet_holds_up_no_other() {
    let chain = FakeChain::new();
    chain.change(|world| world.broken.insert(item(3)));
    let duty = twenty_overdue_items(chain).await;
    for _ in 0..25 {
        duty.block(1).await;
    }
    assert_eq!(open(&duty.chain.world()), [3]);
    duty.chain.change(|world| world.broken.clear());
    for _ in 0..70 {
        duty.block(1).await;
    }
    assert!(open(&duty.chain.world()).is_empty());
    assert!(
        duty.chain.world().transactions.iter().all(|(_, done)| *done),
        "a refusal was paid for"
    );
}

#[tokio::test]
async fn anybodys_overdue_item_is_expired() {
    let scene = Scene::new().await;
    let mut running = scene.start().await;
    scene.chain.assign(item(1), 0, [OTHER, OTHER], 10);
    scene.chain.mine(1);
    running.until_height(11).await;
    scene.chain.mine(20);
    scene.chain.mine_until("expired", |world| world.expiries() == 1).await;
    running.until("counted", |s| s.totals.expired == 1).await;
}

#[tokio::test]
async fn being_second_is_normal() {
    let scene = Scene::new().await;
    let second_home = tempfile::tempdir().unwrap();
    let second_config = Config {
        host_home: scene.home.path().into(),
        ..scene::config(second_home.path().into())
    };
    let mut first = scene.start().await;
    let mut second = scene::start(second_config, scene.chain.as_account("wasm1second"))
        .await
        .unwrap();
    scene.chain.assign(item(1), 0, [OTHER, OTHER], 10);
    scene.chain.mine(1);
    first.until_height(11).await;
    second.until_height(11).await;
    scene.chain.mine(20);
    scene.chain.until_mempool(2).await;
    scene.chain.mine(1);
    scene.chain.mine(1);
    first.until_height(14).await;
    second.until_height(14).await;
    first.until("settled", |s| s.totals.transactions == 1).await;
    second.until("settled", |s| s.totals.transactions == 1).await;
    let expired = first.snapshots.borrow().totals.expired + second.snapshots.borrow().totals.expired;
    assert_eq!((expired, scene.chain.world().expiries()), (1, 1));
    first.stop().await.unwrap();
    second.stop().await.unwrap();
}

#[tokio::test]
async fn our_own_item_is_expired_and_forgotten_when_it_was_missed() {
    let scene = Scene::new().await;
    let mut running = scene.start().await;
    scene.chain.assign(item(1), 0, [OTHER, ME], 10);
    scene.chain.mine(0);
    running.until("started", |s| s.items.started == 1).await;
    scene.chain.mine(10 + WINDOW + 1);
    scene.chain.mine_until("expired", |world| world.expiries() == 1).await;
    running.until("forgotten", |s| s.items == Default::default()).await;
}
