//! What happens to one relayer, from one seed.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant, SystemTime},
};

use client::{Network, Wallet};
use rand::{rngs::StdRng, Rng, SeedableRng};
use relayer::{checkpoint::FILE, Config};
use schema::{
    orchestrator::{ItemStatus, JobStatus},
    Event, ItemId,
};
use tempfile::TempDir;

use super::elsewhere;
use crate::{
    market::{Market, Plan, EARNED},
    power,
    processes::{is_empty, state_in, Process},
    proxy::{Faults, Proxy},
};

/// Items of a job.
const SHARDS: u16 = 2;
/// Longest wait for a life to come as far as it is to come.
const LIFE_MAX: Duration = Duration::from_millis(2_500);
/// Points passed in a life that does an item from its start to its end, roughly.
const POINTS: usize = 60;
/// Transactions beyond one an item that a story may pay for: a transaction may run out of gas because of what came before it in its block, and
/// nodes that tell of the past may hide for once that an item is done.
const SPARE_TRANSACTIONS: u64 = 2;

pub struct Story {
    seed: u64,
    rng: StdRng,
    market: Market,
    ways: Vec<Proxy>,
    /// A way to a node of another chain.
    wrong: Proxy,
    config: Config,
    platter: PathBuf,
    jobs: Vec<u64>,
    done: Vec<ItemId>,
    never: Vec<ItemId>,
    waiting: Vec<ItemId>,
    logs: Vec<String>,
    cuts: u32,
    restarts: u32,
}

async fn open_market(seed: u64) -> Market {
    let home = TempDir::new().unwrap();
    let plan = Plan {
        block_time: Duration::from_millis(100),
        ..Plan::PATIENT
    };
    let Some(file) = elsewhere() else {
        return Market::open_in(plan, home, Some("chain")).await;
    };
    let network = Network::load(&file).unwrap();
    // One seed may be run on it again and again.
    let since_1970 = SystemTime::UNIX_EPOCH.elapsed().unwrap();
    let suffix = format!("-{seed}-{}", since_1970.as_millis());
    Market::open_elsewhere(plan, home, network, &suffix).await
}

impl Story {
    /// The whole of it. What was met on the way.
    pub async fn is_told(seed: u64) -> String {
        let began = Instant::now();
        let mut story = Story::begins(seed).await;
        for _ in 0..story.rng.gen_range(4..=6) {
            story.a_life_is_cut_short().await;
        }
        story.everything_ends().await;
        story.the_law_holds().await;
        let mut met: Vec<String> = vec![];
        for way in &story.ways {
            met.extend(
                way.counts()
                    .iter()
                    .filter(|(what, _)| what.starts_with(char::is_uppercase))
                    .map(|(what, count)| format!("{what} {count}")),
            );
        }
        format!(
            "{} items done, {} never, {} power cuts, {} restarts of the node, {:.1} s; {}",
            story.done.len(),
            story.never.len(),
            story.cuts,
            story.restarts,
            began.elapsed().as_secs_f64(),
            met.join(", ")
        )
    }

    async fn begins(seed: u64) -> Story {
        let mut rng = StdRng::seed_from_u64(seed);
        let market = open_market(seed).await;
        market.offer(&market.model("late"), 1).await;
        let node = market.rpc_url();
        let mut ways = vec![];
        for _ in 0..2 {
            ways.push(Proxy::start(&node, rng.gen()).await);
        }
        let wrong = Proxy::start(&node, 0).await;
        wrong.set(Faults {
            chain_id: Some("fxn-other-1".into()),
            ..Faults::default()
        });
        let home = market.home.path().join("relayer");
        fs::create_dir_all(&home).unwrap();
        let config = Config {
            home,
            rpc: ways.iter().chain([&wrong]).map(|way| way.url.clone()).collect(),
            rpc_timeout: Duration::from_millis(1_000),
            // Some get stuck for so long that they count for nothing, others never do.
            stuck_blocks: if rng.gen() { 30 } else { 10_000 },
            ..market.config()
        };
        let platter = market.home.path().join("platter");
        for way in &ways {
            way.set(Faults::all());
        }
        Story {
            seed,
            rng,
            market,
            ways,
            wrong,
            config,
            platter,
            jobs: vec![],
            done: vec![],
            never: vec![],
            waiting: vec![],
            logs: vec![],
            cuts: 0,
            restarts: 0,
        }
    }

    fn home(&self) -> &Path {
        &self.config.home
    }

    fn a_process(&self) -> Process {
        Process::launch(
            self.config.clone(),
            None,
            &self.market.key("relayer"),
            Some(&self.platter),
        )
    }

    async fn more(&mut self) {
        let is_hopeless = self.rng.gen_ratio(1, 5);
        let model = self.market.model(if is_hopeless { "late" } else { "demo" });
        let job = self.market.submit_job_for(&model, SHARDS.into()).await;
        self.jobs.push(job);
        let items = (0..SHARDS).map(|shard| ItemId { job, shard, replica: 0 });
        if is_hopeless {
            self.never.extend(items);
        } else {
            self.done.extend(items.clone());
            self.waiting.extend(items);
        }
        let ready = self.rng.gen_range(0..=self.waiting.len());
        for item in self.waiting.drain(..ready).collect::<Vec<_>>() {
            self.market.host_finishes(item).await;
        }
    }

    async fn a_life_is_cut_short(&mut self) {
        let mut process = self.a_process();
        self.more().await;
        if self.rng.gen_ratio(1, 4) {
            let pause = Duration::from_millis(self.rng.gen_range(0..800));
            self.restarts += u32::from(self.market.restart_node(pause).await);
        }
        // So far, or so long: a slow machine must not mean that nothing ever happens in a life.
        let points = self.rng.gen_range(0..POINTS);
        let since = Instant::now();
        while process.passed().len() < points && since.elapsed() < LIFE_MAX {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        tokio::time::sleep(Duration::from_micros(self.rng.gen_range(0..20_000))).await;
        process.kill();
        self.logs.push(process.logged());
        if self.rng.gen() {
            self.the_power_fails(&process.passed());
        }
    }

    /// What was made safe is there, and nothing else.
    fn the_power_fails(&mut self, passed: &[String]) {
        let before = fs::read(self.home().join(FILE)).ok();
        power::cut(self.home(), &self.platter);
        let after = fs::read(self.home().join(FILE)).ok();
        let last = passed.iter().rev().find(|point| point.starts_with("File"));
        if last.is_some_and(|point| point == "FileSafe") {
            assert!(
                before == after,
                "{}what was safe is not there after a power cut",
                self.told()
            );
        }
        if let Some(after) = after {
            let decoded = relayer::checkpoint::decode(&after);
            assert!(decoded.is_ok(), "{}half a checkpoint: {decoded:?}", self.told());
        }
        self.cuts += 1;
    }

    async fn everything_ends(&mut self) {
        for way in &self.ways {
            way.set(Faults::default());
        }
        for item in std::mem::take(&mut self.waiting) {
            self.market.host_finishes(item).await;
        }
        let mut last = self.a_process();
        for job in self.jobs.clone() {
            let ended = self.market.ended(job).await;
            self.logs.push(last.logged());
            assert_ne!(ended, JobStatus::Running, "{}job {job}", self.told());
            self.logs.pop();
        }
        crate::until("the file is empty", || async { is_empty(&state_in(self.home())) }).await;
        assert_eq!(last.stops().await, Some(0), "{}", self.told());
        self.logs.push(last.logged());
        assert!(is_empty(&state_in(self.home())), "{}", self.told());
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
        let mut needed = 0;
        for item in self.done.iter().chain(&self.never) {
            let found = self.market.client.orchestrator().item(*item).await.unwrap();
            // Elsewhere an attempt may be followed by another.
            let attempts = found.history.len();
            needed += attempts.max(1) as u64;
            let expected = match self.done.contains(item) {
                true => (1, 0, matches!(found.status, ItemStatus::Settled { .. })),
                false => (0, attempts, matches!(found.status, ItemStatus::Failed { .. })),
            };
            let times = (self.times(attested, *item), self.times(missed, *item), true);
            assert_eq!(times, expected, "{}{item}: {found:?}", self.told());
        }
        assert_eq!(
            self.market.earned().await,
            self.done.len() as u128 * EARNED,
            "{}",
            self.told()
        );
        let payer = Wallet::dev(&self.market.key("relayer")).address("wasm");
        let paid_for = self
            .market
            .client
            .account(&payer)
            .await
            .map_or(0, |account| account.sequence);
        assert!(
            paid_for <= needed + SPARE_TRANSACTIONS,
            "{}{paid_for} transactions for {needed} items",
            self.told()
        );
        let names = fs::read_dir(self.home())
            .unwrap()
            .map(|entry| entry.unwrap().file_name());
        let kept: Vec<_> = names
            .filter(|name| name.to_string_lossy().contains("damaged"))
            .collect();
        assert!(kept.is_empty(), "{}{kept:?}", self.told());
        let asked = self.wrong.counts();
        let others = asked
            .keys()
            .filter(|what| !what.starts_with(char::is_uppercase) && *what != "status");
        assert_eq!(others.count(), 0, "{}the other chain was asked: {asked:?}", self.told());
    }

    /// What its lives have said, for a failure.
    fn told(&self) -> String {
        let mut told = format!("seed {}: ", self.seed);
        let lives = self.logs.iter().enumerate();
        for (life, log) in lives.filter(|_| std::env::var_os("FXN_SEED").is_some()) {
            told += &format!("\n-- life {life}\n{log}");
        }
        told
    }
}
