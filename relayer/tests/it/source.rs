//! The guarantees of reading, one by one.

use std::time::Duration;

use relayer::{
    chain::{Chain, Moment},
    checkpoint::{Entry, Stage, State},
    retry::Policy,
    source::{patiently, Change, Source, Step},
};
use schema::Event;
use tokio::sync::mpsc;

use crate::fake_chain::{assigned_event, item, FakeChain, GRACE, ME, OTHER, WINDOW};

const POLICY: Policy = Policy {
    first: Duration::from_millis(1),
    longest: Duration::from_millis(1),
    tries: 3,
};

async fn read(chain: &FakeChain, state: State) -> mpsc::Receiver<Step> {
    let source = Source::new(chain.clone(), ME, POLICY).await.unwrap();
    let (sender, steps) = mpsc::channel(4);
    tokio::spawn(source.run(state, sender));
    steps
}

fn after(height: u64) -> State {
    let mut state = State::default();
    state.height = Some(height);
    state
}

fn entry(number: u64, attempt: u8) -> Entry {
    let deadline = 1_000 + 100;
    Entry {
        item: item(number),
        attempt,
        deadline,
        attest_until: deadline + GRACE,
        evidence_until: deadline + WINDOW,
        last_span: true,
        stage: Stage::Fresh {},
    }
}

#[tokio::test]
async fn blocks_come_in_order_from_the_one_after_the_checkpoint_and_none_is_left_out() {
    let chain = FakeChain::new();
    let mut steps = read(&chain, after(6)).await;
    let first = steps.recv().await.unwrap();
    chain.mine(1);
    chain.mine(1);
    let mut seen = vec![(first.moment.height, first.caught_up)];
    for _ in 0..5 {
        let step = steps.recv().await.unwrap();
        seen.push((step.moment.height, step.caught_up));
    }
    assert_eq!(
        seen,
        [(7, false), (8, false), (9, false), (10, true), (11, true), (12, true)]
    );
}

#[tokio::test]
async fn without_a_checkpoint_the_open_items_come_first() {
    let chain = FakeChain::new();
    chain.assign(item(1), 3, [OTHER, ME], 100);
    chain.assign(item(2), 0, [OTHER, OTHER], 100);
    chain.mine(0);
    let mut steps = read(&chain, State::default()).await;
    let step = steps.recv().await.unwrap();
    assert_eq!(step.changes, [Change::Assigned(entry(1, 3))]);
    let moment = Moment {
        height: 11,
        seconds: 1_000,
    };
    assert_eq!((step.moment, step.caught_up), (moment, true));
}

#[tokio::test]
async fn where_the_node_has_forgotten_blocks_the_items_are_read_instead() {
    let chain = FakeChain::new();
    chain.assign(item(1), 1, [OTHER, ME], 100);
    chain.mine(0);
    chain.change(|world| {
        world.earliest = 8;
        world.blocks.retain(|block| block.height >= 8);
    });
    let mut state = after(3);
    state.assigned(entry(1, 0));
    state.assigned(entry(9, 0));
    let step = read(&chain, state).await.recv().await.unwrap();
    let mut changes = step.changes;
    changes[..2].sort_by_key(|change| match change {
        Change::Ended { item, .. } | Change::Assigned(Entry { item, .. }) => *item,
    });
    let ended = |number| Change::Ended {
        item: item(number),
        attempt: 0,
    };
    assert_eq!(changes, [ended(1), ended(9), Change::Assigned(entry(1, 1))]);
}

#[tokio::test]
async fn where_blocks_disappear_while_they_are_read_the_items_are_read_instead() {
    let chain = FakeChain::new();
    let mut steps = read(&chain, after(10)).await;
    chain.assign(item(1), 0, [OTHER, ME], 100);
    chain.mine(0);
    assert_eq!(steps.recv().await.unwrap().changes, [Change::Assigned(entry(1, 0))]);
    // Nobody tells that the first item ended and another one began, nor that a deployment of ours was listed.
    chain.change(|world| {
        world.items.get_mut(&item(1)).unwrap().attempt = 1;
        world.earliest = 31;
        world.deployments.insert(55);
    });
    chain.assign(item(2), 0, [OTHER, ME], 100);
    for _ in 0..20 {
        chain.mine(0);
    }
    chain.change(|world| world.blocks.retain(|block| block.height >= 31));
    let step = steps.recv().await.unwrap();
    assert_eq!(step.moment.height, 31);
    assert_eq!(
        step.changes[0],
        Change::Ended {
            item: item(1),
            attempt: 0
        }
    );
    assert!(step.changes.contains(&Change::Assigned(entry(1, 1))), "{step:?}");
    assert!(step.changes.contains(&Change::Assigned(entry(2, 0))), "{step:?}");
    let found = chain.world().items[&item(2)].clone();
    chain.announce(assigned_event(&found, vec![55]));
    chain.mine(0);
    let step = steps.recv().await.unwrap();
    assert_eq!((step.moment.height, step.changes.len()), (32, 1));
}

#[tokio::test]
async fn an_assignment_that_the_chain_has_moved_past_is_no_work() {
    let chain = FakeChain::new();
    chain.assign(item(1), 0, [OTHER, ME], 100);
    chain.mine(0);
    chain.assign(item(1), 1, [OTHER, ME], 100);
    chain.mine(0);
    let mut steps = read(&chain, after(10)).await;
    assert_eq!(steps.recv().await.unwrap().changes, []);
    assert_eq!(steps.recv().await.unwrap().changes, [Change::Assigned(entry(1, 1))]);
}

#[tokio::test]
async fn a_deployment_that_is_listed_later_is_ours_too() {
    let chain = FakeChain::new();
    let mut steps = read(&chain, after(10)).await;
    chain.announce(Event::DeploymentListed {
        deployment: 55,
        provider: ME.into(),
        model: "demo/m".parse().unwrap(),
        version: 1,
        first: 0,
        last: 0,
        burnt: 0u128.into(),
    });
    chain.mine(0);
    chain.assign(item(1), 0, [OTHER, ME], 100);
    let found = chain.world().items[&item(1)].clone();
    chain.mine(0);
    // The event alone names the new deployment; before it was listed, this would have been somebody else's.
    chain.announce(assigned_event(&found, vec![55]));
    chain.mine(0);
    assert_eq!(steps.recv().await.unwrap().changes, []);
    assert_eq!(steps.recv().await.unwrap().changes, [Change::Assigned(entry(1, 0))]);
    assert_eq!(steps.recv().await.unwrap().changes, [Change::Assigned(entry(1, 0))]);
}

#[tokio::test]
async fn every_way_in_which_an_attempt_ends_is_noticed() {
    let chain = FakeChain::new();
    let mut steps = read(&chain, after(10)).await;
    let (missed, deployment) = (item(1), 7);
    let events = [
        Event::ItemMissed {
            item: missed,
            attempt: 0,
            deployment,
        },
        Event::ItemLinkFault {
            item: missed,
            attempt: 1,
            sender: 7,
            receiver: 8,
        },
        Event::ItemDiffers {
            item: missed,
            attempt: 2,
            deployment,
        },
        Event::ItemFailed {
            item: missed,
            reason: "attempts".into(),
        },
    ];
    events.into_iter().for_each(|event| chain.announce(event));
    chain.mine(0);
    let ended = |attempt| Change::Ended { item: missed, attempt };
    assert_eq!(
        steps.recv().await.unwrap().changes,
        [ended(0), ended(1), ended(2), ended(u8::MAX)]
    );
}

#[tokio::test]
async fn asking_ends_when_the_policy_does() {
    let asked = std::cell::Cell::new(0);
    let answer: Result<(), _> = patiently(POLICY, || {
        asked.set(asked.get() + 1);
        async { Err(relayer::chain::ChainError::Unavailable("down".into())) }
    })
    .await;
    assert!(answer.is_err());
    assert_eq!(asked.get(), 3);
    assert_eq!(FakeChain::new().grace_seconds().await, Ok(GRACE));
}
