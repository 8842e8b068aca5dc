//! What a validator and its machine tell of themselves: processor time, blocks with their gas, and CometBFT's own clocks.

use std::fs;

use anyhow::Context as _;
use serde_json::Value;

/// Of Linux, whatever the machine: what a tick in /proc is.
const TICKS_PER_SECOND: f64 = 100.0;

/// One validator.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    http: reqwest::Client,
    rpc: String,
    metrics: String,
    pid: u32,
}

/// Clocks that only go forward; a measurement is the difference of two readings.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Clocks {
    /// Processor seconds of the validator.
    pub(crate) cpu: f64,
    /// Processor seconds of the whole machine, and of these idle.
    pub(crate) machine: f64,
    pub(crate) idle: f64,
    /// Seconds in which blocks were executed, with their commits.
    pub(crate) executing: f64,
    /// Transactions that were checked once more after a block.
    pub(crate) rechecks: f64,
}

impl Clocks {
    pub(crate) fn since(self, before: Clocks) -> Clocks {
        Clocks {
            cpu: self.cpu - before.cpu,
            machine: self.machine - before.machine,
            idle: self.idle - before.idle,
            executing: self.executing - before.executing,
            rechecks: self.rechecks - before.rechecks,
        }
    }
}

/// Gas of a block's transactions.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct BlockGas {
    pub(crate) wanted: u64,
    pub(crate) used: u64,
    pub(crate) txs: u64,
    pub(crate) failed: u64,
}

impl Node {
    /// By its RPC; its metrics are two ports above (chain/README.md).
    pub(crate) fn new(rpc: &str, pid: u32) -> anyhow::Result<Self> {
        let (host, port) = rpc.rsplit_once(':').context("an RPC has a port")?;
        let port: u16 = port.parse()?;
        Ok(Self {
            http: reqwest::Client::new(),
            rpc: rpc.to_owned(),
            metrics: format!("{host}:{}/metrics", port + 2),
            pid,
        })
    }

    async fn ask(&self, path: &str) -> anyhow::Result<Value> {
        let answer: Value = self
            .http
            .get(format!("{}/{path}", self.rpc))
            .send()
            .await?
            .json()
            .await?;
        answer
            .get("result")
            .cloned()
            .with_context(|| format!("{path}: {answer}"))
    }

    /// Most gas that the transactions of a block may ask for.
    pub(crate) async fn block_gas_max(&self, height: u64) -> anyhow::Result<u64> {
        let answer = self.ask(&format!("consensus_params?height={height}")).await?;
        number(&answer["consensus_params"]["block"]["max_gas"])
    }

    pub(crate) async fn block_gas(&self, height: u64) -> anyhow::Result<BlockGas> {
        let answer = self.ask(&format!("block_results?height={height}")).await?;
        let mut gas = BlockGas::default();
        for tx in answer["txs_results"].as_array().into_iter().flatten() {
            gas.wanted += number(&tx["gas_wanted"])?;
            gas.used += number(&tx["gas_used"])?;
            gas.txs += 1;
            gas.failed += u64::from(tx["code"] != 0);
        }
        Ok(gas)
    }

    pub(crate) async fn clocks(&self) -> anyhow::Result<Clocks> {
        let metrics = self.http.get(&self.metrics).send().await?.text().await?;
        let metric = |name: &str| -> f64 {
            let lines = metrics.lines().filter(|line| line.starts_with(name));
            let values = lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
            values.sum()
        };
        let (machine, idle) = machine()?;
        Ok(Clocks {
            cpu: cpu(self.pid)?,
            machine,
            idle,
            executing: metric("cometbft_state_block_processing_time_sum") / 1_000.0,
            rechecks: metric("cometbft_mempool_recheck_times"),
        })
    }
}

fn number(value: &Value) -> anyhow::Result<u64> {
    let text = value
        .as_str()
        .with_context(|| format!("{value} is no number of the RPC"))?;
    Ok(text.parse()?)
}

/// Processor seconds of a process, its own and the system's for it.
fn cpu(pid: u32) -> anyhow::Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name may contain anything, its closing bracket is the last one.
    let (_, rest) = stat.rsplit_once(')').context("a stat line has a name")?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let ticks = |index: usize| fields.get(index).and_then(|text| text.parse::<f64>().ok());
    let (user, system) = ticks(11).zip(ticks(12)).context("a stat line has times")?;
    Ok((user + system) / TICKS_PER_SECOND)
}

/// Processor seconds of all cores together, and of these idle.
fn machine() -> anyhow::Result<(f64, f64)> {
    let stat = fs::read_to_string("/proc/stat")?;
    let line = stat.lines().next().context("/proc/stat has lines")?;
    let ticks: Vec<f64> = line
        .split_whitespace()
        .skip(1)
        .filter_map(|text| text.parse().ok())
        .collect();
    // user, nice, system, idle, iowait, irq, softirq, steal; guests are in user already.
    let idle: f64 = ticks.iter().skip(3).take(2).sum();
    Ok((
        ticks.iter().take(8).sum::<f64>() / TICKS_PER_SECOND,
        idle / TICKS_PER_SECOND,
    ))
}
