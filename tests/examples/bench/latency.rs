//! From `job_assigned` to the settlement, with one real host and one real relayer.
//!
//! The model is the tiny one of the fixtures in a single stage, so that what is timed is the way of an item and not its arithmetic: a block is
//! read, the host runs and signs, the relayer gathers and sends, a block takes it in. Both ends are seen by the same reader of blocks: its own
//! delay is in both and falls out of the difference.

use std::{
    collections::BTreeMap,
    fs,
    process::{Child, ChildStdin, Command, Stdio},
    time::Duration,
};

use anyhow::Context as _;
use client::{events::follow, Account};
use futures::TryStreamExt;
use fxn_tests::{
    deployer::Deployer,
    goods::{job, model},
    people::{send, People},
    program::root,
};
use schema::{escrow, orchestrator, Event, ItemId, ModelId};
use serde::Serialize;
use serde_json::Value;
use tokio::time::{interval, sleep, timeout, Instant, MissedTickBehavior};

use crate::stage::Stage;

/// Shards of each job, and how many jobs there are: an item now and then, and as many as a batch takes every half second.
const LOADS: [(usize, usize); 2] = [(1, 40), (16, 40)];
const EVERY: Duration = Duration::from_millis(500);
/// Enough for all that is open at once on a machine that has fallen behind.
const SLOTS: u16 = 640;
const PROVIDER: &str = "bench-pair";
const CREATOR: &str = "bench-pair-creator";
const PATIENCE: Duration = Duration::from_secs(120);

/// Milliseconds of half, of nearly all, and of the slowest.
#[derive(Debug, Serialize)]
pub(crate) struct Spread {
    pub(crate) p50: u64,
    pub(crate) p95: u64,
    pub(crate) max: u64,
}

/// What one load came to.
#[derive(Debug, Serialize)]
pub(crate) struct Times {
    pub(crate) items_a_job: usize,
    pub(crate) items: usize,
    pub(crate) jobs_per_second: f64,
    /// By a clock on the wall: until the block with the settlement could be read.
    pub(crate) wall_ms: Spread,
    /// By the times of the two blocks.
    pub(crate) chain_ms: Spread,
    /// Blocks from the one that assigns to the one that settles, by how many items it were so many.
    pub(crate) blocks: BTreeMap<u64, usize>,
    /// Mean time from handing a transaction over to reading it in a block, as the relayer tells it.
    pub(crate) confirm_ms: f64,
    /// Transactions that carried these items.
    pub(crate) transactions: u64,
    pub(crate) block_ms: f64,
}

/// A host and a relayer that end with it.
struct Pair {
    services: Vec<(Child, Option<ChildStdin>)>,
    relayer: String,
    model: ModelId,
    developer: Account,
}

impl Drop for Pair {
    fn drop(&mut self) {
        for (child, stdin) in self.services.iter_mut().rev() {
            // They stop with it; what does not is ended.
            stdin.take();
            let until = std::time::Instant::now() + Duration::from_secs(10);
            while matches!(child.try_wait(), Ok(None)) && std::time::Instant::now() < until {
                std::thread::sleep(Duration::from_millis(50));
            }
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

pub(crate) async fn measure(stage: &Stage) -> anyhow::Result<Vec<Times>> {
    let pair = Pair::open(stage).await?;
    let mut all = vec![];
    for (shards, jobs) in LOADS {
        let times = pair.work(&stage.people, shards, jobs).await?;
        eprintln!("{shards} items a job: {:?}", times.wall_ms);
        all.push(times);
    }
    Ok(all)
}

impl Pair {
    async fn open(stage: &Stage) -> anyhow::Result<Self> {
        let Stage { deployer, people, .. } = stage;
        let names = [PROVIDER, CREATOR, "bench-pair-developer"].map(str::to_owned);
        let [provider, _, developer]: [Account; 3] = people
            .actors(&names, 50_000)
            .await?
            .try_into()
            .map_err(|_| anyhow::anyhow!("three were asked for"))?;
        let deposit = escrow::ReceiveMsg::Deposit { beneficiary: None };
        send(&developer, &[people.paying("royalty-escrow", 2_000, &deposit)?]).await?;
        deployer.takes_in(PROVIDER);
        deployer.takes_in(CREATOR);
        let bundle = deployer.home().join("bundle").display().to_string();
        let source = root().join("tests/fixtures/tiny").display().to_string();
        deployer.runs(&["model", "split", &source, &bundle, "--stages", "1"]);
        let publish = [
            "model",
            "publish",
            &bundle,
            "--key",
            CREATOR,
            "--model",
            "pair/tiny",
            "--royalty-bps",
            "1000",
            "--yes",
        ];
        deployer.runs(&publish);

        let mut host = deployer.fxn(&[
            "host",
            "--key",
            PROVIDER,
            "--source",
            &bundle,
            "--threads",
            "1",
            "--allow-private-peers",
        ]);
        host.args(["--listen", "127.0.0.1:0", "--status", "127.0.0.1:0"]);
        host.env("FXN_HOST_REFRESH_SECONDS", "1");
        let mut services = vec![start(deployer, "host", host)?];
        let told = told(deployer, "host.json").await?;
        let endpoint = format!("http://{}", told["listen"].as_str().context("a host listens")?);
        enlist(deployer, &endpoint);
        let mut relayer = deployer.fxn(&["relayer", "--key", PROVIDER, "--relayer-status", "127.0.0.1:0"]);
        relayer.args(["--provider", provider.address()]);
        services.push(start(deployer, "relayer", relayer)?);
        let relayer = address(deployer, "relayer.json").await?;
        for service in [address(deployer, "host.json").await?, relayer.clone()] {
            ready(&service).await?;
        }
        Ok(Self {
            services,
            relayer,
            model: model("pair", "tiny")?,
            developer,
        })
    }

    async fn work(&self, people: &People, shards: usize, jobs: usize) -> anyhow::Result<Times> {
        let call = people.telling("job-orchestrator", &order(&self.model, shards))?;
        let gas = self.developer.simulate(std::slice::from_ref(&call)).await? * 2;
        let before = self.confirmed().await?;
        let from = people.client.status().await?.height + 1;
        let developer = self.developer.clone();
        let ordering = tokio::spawn(async move {
            let mut ticks = interval(EVERY);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            for _ in 0..jobs {
                ticks.tick().await;
                let prepared = developer.prepare_with_gas(std::slice::from_ref(&call), gas).await?;
                developer.broadcast(prepared).await?;
            }
            anyhow::Ok(())
        });
        let seen = timeout(PATIENCE, watch(people, from, shards * jobs)).await??;
        ordering.await??;
        let after = self.confirmed().await?;
        let transactions = after.1 - before.1;
        Ok(Times {
            items_a_job: shards,
            items: seen.ways.len(),
            jobs_per_second: 1.0 / EVERY.as_secs_f64(),
            wall_ms: spread(seen.ways.iter().map(|way| way.wall.as_nanos())),
            chain_ms: spread(seen.ways.iter().map(|way| way.chain_nanos.into())),
            blocks: seen.ways.iter().fold(BTreeMap::new(), |mut counts, way| {
                *counts.entry(way.blocks).or_default() += 1;
                counts
            }),
            confirm_ms: (after.0 - before.0) * 1_000.0 / transactions as f64,
            transactions,
            block_ms: seen.block_ms,
        })
    }

    /// Seconds of the relayer's waits for a block, and how many there were.
    async fn confirmed(&self) -> anyhow::Result<(f64, u64)> {
        let url = format!("http://{}/metrics", self.relayer);
        let metrics = reqwest::get(url).await?.text().await?;
        let metric = |name: &str| {
            let line = metrics.lines().find(|line| line.starts_with(name));
            line.and_then(|line| line.rsplit(' ').next()).unwrap_or("0")
        };
        let sum = metric("fxn_relayer_confirm_latency_seconds_sum").parse()?;
        Ok((sum, metric("fxn_relayer_confirm_latency_seconds_count").parse()?))
    }
}

/// A job of sentences that the tiny model can take: it knows 64 positions.
fn order(model: &ModelId, shards: usize) -> orchestrator::ExecuteMsg {
    let mut order = job(model, shards);
    if let orchestrator::ExecuteMsg::SubmitJob { job } = &mut order {
        job.units_max = 64;
    }
    order
}

/// Registers, bonds and lists, as an operator does it.
fn enlist(deployer: &Deployer, endpoint: &str) {
    let bond = (u64::from(SLOTS) * 50 + 75).to_string();
    let slots = SLOTS.to_string();
    let words: [&[&str]; 3] = [
        &[
            "register",
            "--name",
            PROVIDER,
            "--endpoint",
            endpoint,
            "--host-key-name",
            PROVIDER,
        ],
        &["bond", &bond],
        &[
            "deploy",
            "--model",
            "pair/tiny",
            "--stages",
            "0..0",
            "--slots",
            &slots,
            "--ask",
            "per_1k_in=0.2",
            "--sla",
            "base=300,rate=1,units=4096,penalty=2000",
        ],
    ];
    for words in words {
        let command = [&["provider", "--key", PROVIDER, "--yes"], words].concat();
        deployer.runs(&command);
    }
}

fn start(deployer: &Deployer, name: &str, mut command: Command) -> anyhow::Result<(Child, Option<ChildStdin>)> {
    let log = fs::File::create(deployer.home().join(format!("{name}.log")))?;
    command
        .env("FXN_STOP_WITH_STDIN", "1")
        .stdin(Stdio::piped())
        .stdout(log.try_clone()?)
        .stderr(log);
    let mut child = command.spawn().with_context(|| format!("failed to start the {name}"))?;
    let stdin = child.stdin.take();
    Ok((child, stdin))
}

/// What a service leaves in its home once it listens.
async fn told(deployer: &Deployer, file: &str) -> anyhow::Result<Value> {
    let path = deployer.home().join(file);
    let read = async {
        loop {
            let told = fs::read(&path)
                .ok()
                .and_then(|bytes| serde_json::from_slice(&bytes).ok());
            match told {
                Some(told) => return told,
                None => sleep(Duration::from_millis(50)).await,
            }
        }
    };
    timeout(PATIENCE, read)
        .await
        .with_context(|| format!("nobody has written {file}"))
}

async fn address(deployer: &Deployer, file: &str) -> anyhow::Result<String> {
    let told = told(deployer, file).await?;
    Ok(told["status"]
        .as_str()
        .context("a service has a private address")?
        .to_owned())
}

async fn ready(service: &str) -> anyhow::Result<()> {
    let url = format!("http://{service}/ready");
    let answered = async {
        while !reqwest::get(&url)
            .await
            .is_ok_and(|answer| answer.status().is_success())
        {
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(PATIENCE, answered)
        .await
        .with_context(|| format!("{url} says no"))
}

/// The way of one item.
struct Way {
    wall: Duration,
    chain_nanos: u64,
    blocks: u64,
}

struct Seen {
    ways: Vec<Way>,
    block_ms: f64,
}

async fn watch(people: &People, from: u64, items: usize) -> anyhow::Result<Seen> {
    let client = people.client.clone();
    let contracts = client.contracts();
    let contracts = vec![contracts.job_orchestrator.clone(), contracts.royalty_escrow.clone()];
    let mut blocks = follow(client, contracts, from);
    let mut assigned: BTreeMap<ItemId, (Instant, u64, u64)> = BTreeMap::new();
    let (mut ways, mut first, mut last) = (vec![], None, (0, 0));
    while ways.len() < items {
        let Some(block) = blocks.try_next().await? else {
            anyhow::bail!("the chain's story ended");
        };
        let now = Instant::now();
        last = (block.height, block.time_nanos);
        first.get_or_insert(last);
        for emitted in block.txs.into_iter().flat_map(|tx| tx.events) {
            match emitted.event {
                Event::JobAssigned { item, .. } => {
                    assigned.insert(item, (now, block.height, block.time_nanos));
                }
                Event::Settled { item, .. } => {
                    let (since, height, nanos) = assigned.remove(&item).context("it was assigned before")?;
                    ways.push(Way {
                        wall: now - since,
                        chain_nanos: block.time_nanos - nanos,
                        blocks: block.height - height,
                    });
                }
                Event::ItemMissed { item, .. } => anyhow::bail!("{item} was missed"),
                _ => {}
            }
        }
    }
    let first = first.context("there were blocks")?;
    let block_ms = (last.1 - first.1) as f64 / 1e6 / (last.0 - first.0).max(1) as f64;
    Ok(Seen { ways, block_ms })
}

/// Of nanoseconds.
fn spread(values: impl Iterator<Item = u128>) -> Spread {
    let mut sorted: Vec<u128> = values.collect();
    sorted.sort_unstable();
    // The smallest value that so many per cent do not exceed.
    let at = |percent: usize| {
        let place = (sorted.len() * percent).div_ceil(100).max(1) - 1;
        let nanos = sorted.get(place).copied().unwrap_or_default();
        u64::try_from((nanos + 500_000) / 1_000_000).unwrap_or(u64::MAX)
    };
    Spread {
        p50: at(50),
        p95: at(95),
        max: at(100),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_names_values_that_were_measured() {
        let of = |values: std::ops::RangeInclusive<u32>| spread(values.map(|ms| u128::from(ms) * 1_000_000));
        let Spread { p50, p95, max } = of(1..=40);
        assert_eq!((p50, p95, max), (20, 38, 40));
        let Spread { p50, p95, max } = of(7..=7);
        assert_eq!((p50, p95, max), (7, 7, 7));
    }
}
