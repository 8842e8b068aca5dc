//! Two relayers of one provider at once: by mistake, or so that one is left when the other dies. They do each other no harm.

use std::time::Duration;

use client::Wallet;
use relayer::Config;
use schema::{orchestrator::JobStatus, Event, ItemId};

use super::{is_empty, state_in, Process};
use crate::market::{Market, Plan, EARNED};

/// Jobs and their items.
const JOBS: u16 = 6;
const SHARDS: u16 = 3;

/// Two relayers with these keys work on the same items, one after the other half of them is killed and comes back. How often an attestation
/// was handed in and refused.
async fn twins(keys: [&str; 2]) -> u16 {
    let market = Market::open(Plan::PATIENT).await;
    let config = |number: u32| Config {
        home: market.home.path().join(format!("twin-{number}")),
        ..market.config()
    };
    let mut first = Process::launch(config(1), None, keys[0], None);
    let mut second = Process::launch(config(2), None, keys[1], None);
    for job in 1..=JOBS {
        market.submit_job(SHARDS.into()).await;
        for shard in 0..SHARDS {
            let item = ItemId {
                job: job.into(),
                shard,
                replica: 0,
            };
            market.host_finishes(item).await;
        }
        if job == JOBS / 2 {
            first.kill();
            first = Process::launch(config(1), None, keys[0], None);
        }
    }
    for job in 1..=JOBS {
        assert_eq!(market.ended(job.into()).await, JobStatus::Completed, "job {job}");
    }
    for number in [1, 2] {
        let home = config(number).home;
        crate::until("nothing is open any more", || async { is_empty(&state_in(&home)) }).await;
    }
    // Whoever still has something to say says it now.
    let sequences = || async {
        let mut sequences = vec![];
        for key in keys {
            let account = market.client.account(&Wallet::dev(key).address("wasm")).await.unwrap();
            sequences.push(account.sequence);
        }
        sequences
    };
    let before = sequences().await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(sequences().await, before, "they do not come to rest");
    assert_eq!((first.stops().await, second.stops().await), (Some(0), Some(0)));
    market.all_is_read().await;
    let items = JOBS * SHARDS;
    let attested = market.count(|event| matches!(event, Event::Attested { .. }));
    assert_eq!(attested, usize::from(items));
    assert_eq!(market.earned().await, u128::from(items) * EARNED);
    let refused = market.count(|event| matches!(event, Event::AttestationRefused { .. }));
    u16::try_from(refused).unwrap()
}

/// Two that hand the same item in for the same block cannot know of each other: the second pays for gas, once an item, and for nothing else.
const IN_VAIN_MAX: u16 = JOBS * SHARDS;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_relayers_with_the_same_key_take_turns_and_come_to_rest() {
    let refused = twins(["relayer", "relayer"]).await;
    assert!(refused <= IN_VAIN_MAX, "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_relayers_with_keys_of_their_own_attest_each_item_once() {
    let refused = twins(["relayer", "gateway"]).await;
    assert!(refused <= IN_VAIN_MAX, "{refused}");
}
