//! Killed at random moments under load: new jobs all the time, items that are done at once, late, or never.

use std::{collections::BTreeSet, time::Duration};

use rand::{rngs::StdRng, Rng, SeedableRng};
use schema::{
    orchestrator::{ItemStatus, JobStatus},
    Event, ItemId, ModelId,
};

use super::{is_empty, state_in, Process};
use crate::market::{Market, Plan, EARNED};

/// Longest life: time enough to attest, short enough to be killed in the middle of everything.
const LIFE_MS: u64 = 500;
/// Items of a job.
const SHARDS: u16 = 2;

struct Load {
    market: Market,
    rng: StdRng,
    jobs: u64,
    /// Items that the host will have done, and those it will not.
    done: Vec<ItemId>,
    never: Vec<ItemId>,
    /// Those of the first that the host has not done yet.
    waiting: Vec<ItemId>,
    /// Lives that ended with a transaction under way, and what each life had done last.
    in_flight: u32,
    last_passed: BTreeSet<String>,
}

fn hopeless() -> ModelId {
    "late/model".parse().unwrap()
}

impl Load {
    async fn begin(seed: u64) -> Load {
        let market = Market::open(Plan::PATIENT).await;
        market.offer(&hopeless(), 1).await;
        Load {
            market,
            rng: StdRng::seed_from_u64(seed),
            jobs: 0,
            done: vec![],
            never: vec![],
            waiting: vec![],
            in_flight: 0,
            last_passed: BTreeSet::new(),
        }
    }

    async fn more(&mut self) {
        self.jobs += 1;
        let job = self.jobs;
        let items = (0..SHARDS).map(|shard| ItemId { job, shard, replica: 0 });
        if self.rng.gen_ratio(1, 6) {
            self.market.submit_job_for(&hopeless(), SHARDS.into()).await;
            self.never.extend(items);
        } else {
            self.market.submit_job(SHARDS.into()).await;
            self.done.extend(items.clone());
            self.waiting.extend(items);
        }
        // Some of what waits is done now, some later.
        let ready = self.rng.gen_range(0..=self.waiting.len());
        for item in self.waiting.drain(..ready).collect::<Vec<_>>() {
            self.market.host_finishes(item).await;
        }
    }

    async fn a_life_is_cut_short(&mut self) {
        let mut process = Process::start(&self.market, None);
        self.more().await;
        tokio::time::sleep(Duration::from_millis(self.rng.gen_range(0..LIFE_MS))).await;
        process.kill();
        let state = state_in(self.market.home.path());
        self.in_flight += u32::from(state.transaction().is_some());
        self.last_passed.extend(process.passed().pop());
    }

    async fn everything_ends(&mut self) {
        for item in std::mem::take(&mut self.waiting) {
            self.market.host_finishes(item).await;
        }
        let mut last = Process::start(&self.market, None);
        for job in 1..=self.jobs {
            assert_ne!(self.market.ended(job).await, JobStatus::Running, "job {job}");
        }
        let home = self.market.home.path();
        crate::until("the file is empty", || async { is_empty(&state_in(home)) }).await;
        assert_eq!(last.stops().await, Some(0));
        assert!(is_empty(&state_in(home)));
        self.market.all_is_read().await;
    }

    fn times(&self, is_so: impl Fn(&Event) -> Option<ItemId>, item: ItemId) -> usize {
        self.market.count(|event| is_so(event) == Some(item))
    }

    async fn the_law_holds(&self) {
        let attested = |event: &Event| match event {
            Event::Attested { item, .. } => Some(*item),
            _ => None,
        };
        let missed = |event: &Event| match event {
            Event::ItemMissed { item, .. } => Some(*item),
            _ => None,
        };
        for item in &self.done {
            assert_eq!(
                (self.times(attested, *item), self.times(missed, *item)),
                (1, 0),
                "{item}"
            );
            let found = self.market.client.orchestrator().item(*item).await.unwrap();
            assert!(
                matches!(found.status, ItemStatus::Settled { .. }),
                "{item}: {:?}",
                found.status
            );
        }
        for item in &self.never {
            assert_eq!(
                (self.times(attested, *item), self.times(missed, *item)),
                (0, 1),
                "{item}"
            );
        }
        let refused = self
            .market
            .count(|event| matches!(event, Event::AttestationRefused { .. }));
        assert_eq!(refused, 0, "nothing was handed in twice");
        assert_eq!(self.market.earned().await, self.done.len() as u128 * EARNED);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_random_moments_under_load() {
    let seed = std::env::var("FXN_SEED").map_or(1, |seed| seed.parse().unwrap());
    let moments = if std::env::var_os("FXN_SLOW").is_some() {
        500
    } else {
        100
    };
    println!("FXN_SEED={seed}, {moments} moments");
    let mut load = Load::begin(seed).await;
    for _ in 0..moments {
        load.a_life_is_cut_short().await;
    }
    load.everything_ends().await;
    load.the_law_holds().await;
    println!("{} items done, {} never", load.done.len(), load.never.len());
    println!(
        "{} killed in flight; last passed: {:?}",
        load.in_flight, load.last_passed
    );
    assert!(load.in_flight > 0, "none of the moments was an interesting one");
}
