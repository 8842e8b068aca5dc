//! Attestations settled a second on one validator.
//!
//! Providers, jobs and signed receipts are prepared beforehand, so that what is measured is the settlement and nothing else: one account for
//! each provider, as a relayer has one, hands over its batches as fast as the node takes them. What counts is what the chain says: items with the
//! event `settled`, over the time that its blocks took, from the first of them that settles to the last, executions included.

use std::{collections::BTreeMap, time::Duration};

use client::{events::follow, Account, Call};
use futures::{StreamExt, TryStreamExt};
use fxn_tests::{
    goods::{claim, endpoint, job, model, profile, publish, terms, version},
    people::{send, People},
    proofs::{domain, proofs, Hosts},
    Host,
};
use schema::{escrow, orchestrator, receipt::Attestation, staking, Event, ModelId};
use serde::Serialize;
use tokio::time::{timeout, Instant};

use crate::{
    node::{Clocks, Node},
    stage::Stage,
};

/// Items in a message, and how many are settled that way: some ten seconds of each.
pub(crate) const LOADS: [(usize, usize); 3] = [(1, 1_536), (8, 3_072), (32, 6_144)];
/// As many relayers hand over at the same time.
const PROVIDERS: usize = 8;
const SLOTS: u16 = 1_000;
/// Shards of a job.
const SHARDS: usize = 32;
const DEVELOPERS: usize = 4;
/// Long enough for everything to be prepared, short enough for the life of a job.
const SLA_SECONDS: u64 = 1_500;
/// Of what a simulation used, as a relayer asks for.
const GAS_PERCENT: u64 = 130;
/// Jobs that are asked about at the same time.
const QUESTIONS: usize = 4;
/// Longest wait for everything to be settled.
const PATIENCE: Duration = Duration::from_secs(240);

/// What one size of batches came to.
#[derive(Debug, Serialize)]
pub(crate) struct Rate {
    pub(crate) items_a_transaction: usize,
    pub(crate) items: u64,
    pub(crate) transactions: u64,
    pub(crate) blocks: u64,
    /// By the chain's clock.
    pub(crate) seconds: f64,
    pub(crate) items_per_second: f64,
    /// Gas that a block may have.
    pub(crate) block_gas_max: u64,
    pub(crate) block_seconds: f64,
    /// Items of the fullest block.
    pub(crate) items_a_block_max: u64,
    pub(crate) bytes_per_item: f64,
    pub(crate) gas_used_per_item: f64,
    pub(crate) gas_wanted_per_item: f64,
    /// Gas that the transactions of the fullest block asked for, in per cent of what a block may have.
    pub(crate) block_gas_percent_max: f64,
    /// The same over all blocks.
    pub(crate) block_gas_percent: f64,
    /// Milliseconds of executing blocks.
    pub(crate) execution_ms_per_item: f64,
    /// Processor milliseconds of the validator, everything included.
    pub(crate) cpu_ms_per_item: f64,
    pub(crate) rechecks_per_transaction: f64,
    /// Mean time until the node had checked a transaction that was handed over.
    pub(crate) handover_ms: f64,
    /// Processors that were not idle, in per cent of all.
    pub(crate) machine_busy_percent: f64,
}

impl Rate {
    /// Items a second that the gas of blocks allows, one after the other every so many seconds. A transaction is in a block or it is not.
    pub(crate) fn gas_ceiling(&self, block_seconds: f64) -> f64 {
        let transaction = self.gas_wanted_per_item * self.items as f64 / self.transactions as f64;
        let items = self.items as f64 / self.transactions as f64;
        (self.block_gas_max as f64 / transaction).floor() * items / block_seconds
    }
}

/// Batches by the account that hands them over.
type Batches = Vec<(Account, Vec<Call>)>;

struct Market {
    people: People,
    model: ModelId,
    hosts: Hosts,
    /// By the address of their provider.
    relayers: BTreeMap<String, Account>,
    developers: Vec<Account>,
}

pub(crate) async fn measure(stage: &Stage) -> anyhow::Result<Vec<Rate>> {
    let market = Market::open(&stage.people).await?;
    let mut rates = vec![];
    for (batch, items) in LOADS {
        let prepared = Instant::now();
        let proofs = market.work(items).await?;
        let batches = market.batches(proofs, batch)?;
        eprintln!(
            "{items} items are signed after {:.1} s",
            prepared.elapsed().as_secs_f64()
        );
        let rate = load(&market.people, &stage.node, batch, batches).await?;
        eprintln!("{batch} items a transaction: {:.0} items/s", rate.items_per_second);
        rates.push(rate);
    }
    Ok(rates)
}

impl Market {
    async fn open(people: &People) -> anyhow::Result<Self> {
        let creator = people.actor("bench-creator", 100).await?;
        let model = model("bench", "one")?;
        let calls = [
            people.paying("model-registry", 10, &claim("bench")?)?,
            people.telling("model-registry", &publish(&creator, &model, vec![]))?,
            people.telling("model-registry", &version(&model, 1))?,
            people.telling("model-registry", &endpoint(&model))?,
        ];
        send(&creator, &calls).await?;
        let (mut hosts, mut relayers) = (Hosts::new(), BTreeMap::new());
        let names: Vec<String> = (0..PROVIDERS)
            .map(|number| format!("bench-provider-{number}"))
            .collect();
        // With the reserve.
        let bond = u128::from(SLOTS) * 50 + 75;
        let providers = people.actors(&names, bond + 100).await?;
        for (name, provider) in names.iter().zip(providers) {
            let register = staking::ExecuteMsg::RegisterProvider { profile: profile(name) };
            let calls = [
                people.telling("provider-staking", &register)?,
                people.paying("provider-staking", bond, &staking::ReceiveMsg::Bond {})?,
                people.paying("provider-staking", 1, &terms(&model, 0, SLOTS, SLA_SECONDS))?,
            ];
            send(&provider, &calls).await?;
            hosts.insert(provider.address().to_owned(), Host::named(name));
            relayers.insert(provider.address().to_owned(), provider);
        }
        let names: Vec<String> = (0..DEVELOPERS)
            .map(|number| format!("bench-developer-{number}"))
            .collect();
        let developers = people.actors(&names, 2_000).await?;
        for developer in &developers {
            let deposit = escrow::ReceiveMsg::Deposit { beneficiary: None };
            send(developer, &[people.paying("royalty-escrow", 2_000, &deposit)?]).await?;
        }
        Ok(Self {
            people: people.clone(),
            model,
            hosts,
            relayers,
            developers,
        })
    }

    /// Has so many items assigned, and what their hosts sign about them, by provider.
    async fn work(&self, items: usize) -> anyhow::Result<BTreeMap<String, Vec<Attestation>>> {
        let client = &self.people.client;
        let jobs = items / SHARDS;
        let from = client.status().await?.height + 1;
        let order = self.people.telling("job-orchestrator", &job(&self.model, SHARDS))?;
        let orders = self.developers.iter().map(|developer| {
            let share = vec![order.clone(); jobs / DEVELOPERS];
            (developer.clone(), share)
        });
        let orders: Batches = orders.collect();
        let handing = tokio::spawn(hand_over(orders));
        let mut numbers = vec![];
        let mut blocks = follow(client.clone(), vec![client.contracts().job_orchestrator.clone()], from);
        while numbers.len() < jobs / DEVELOPERS * DEVELOPERS {
            let block = timeout(PATIENCE, blocks.try_next()).await??;
            let events = block.into_iter().flat_map(|block| block.txs).flat_map(|tx| tx.events);
            numbers.extend(events.filter_map(|emitted| match emitted.event {
                Event::JobSubmitted { job, .. } => Some(job),
                _ => None,
            }));
        }
        handing.await??;
        let domain = domain(client).await?;
        let questions = futures::stream::iter(numbers).map(|job| proofs(client, &self.hosts, &domain, job));
        let answers: Vec<_> = questions.buffered(QUESTIONS).try_collect().await?;
        let mut by_provider: BTreeMap<String, Vec<Attestation>> = BTreeMap::new();
        for (provider, attestation) in answers.into_iter().flatten() {
            by_provider.entry(provider).or_default().push(attestation);
        }
        Ok(by_provider)
    }

    fn batches(&self, proofs: BTreeMap<String, Vec<Attestation>>, size: usize) -> anyhow::Result<Batches> {
        let mut batches = vec![];
        for (provider, attestations) in proofs {
            let mut calls = vec![];
            for some in attestations.chunks(size) {
                let attestations = some.to_vec();
                let msg = orchestrator::ExecuteMsg::SubmitAttestations { attestations };
                calls.push(self.people.telling("job-orchestrator", &msg)?);
            }
            batches.push((self.relayers[&provider].clone(), calls));
        }
        Ok(batches)
    }
}

/// What handing over came to.
#[derive(Debug, Default)]
struct Handed {
    transactions: u64,
    bytes: u64,
    waited: Duration,
}

/// Every account hands over its calls one after the other, without waiting for blocks, all accounts at the same time.
async fn hand_over(batches: Batches) -> anyhow::Result<Handed> {
    let mut tasks = tokio::task::JoinSet::new();
    for (account, calls) in batches {
        tasks.spawn(async move {
            let mut handed = Handed::default();
            let Some(first) = calls.first() else {
                return Ok(handed);
            };
            // The first of them is as large as any.
            let gas = account.simulate(std::slice::from_ref(first)).await? * GAS_PERCENT / 100;
            for call in calls {
                let prepared = account.prepare_with_gas(&[call], gas).await?;
                handed.transactions += 1;
                handed.bytes += u64::try_from(prepared.bytes.len())?;
                let began = Instant::now();
                account.broadcast(prepared).await?;
                handed.waited += began.elapsed();
            }
            anyhow::Ok(handed)
        });
    }
    let mut all = Handed::default();
    while let Some(handed) = tasks.join_next().await {
        let handed = handed??;
        all.transactions += handed.transactions;
        all.bytes += handed.bytes;
        all.waited += handed.waited;
    }
    Ok(all)
}

/// A block that settles something.
#[derive(Debug, Clone, Copy)]
struct Settling {
    height: u64,
    items: u64,
}

/// The chain from the first block that settles to two blocks after the last one.
#[derive(Debug, Default)]
struct Window {
    settling: Vec<Settling>,
    /// Of each block from the one after the first on, in nanoseconds: when the one before it was voted for.
    times: Vec<(u64, u64)>,
}

impl Window {
    fn items(&self) -> u64 {
        self.settling.iter().map(|block| block.items).sum()
    }

    fn first(&self) -> u64 {
        self.settling.first().map_or(0, |block| block.height)
    }

    fn last(&self) -> u64 {
        self.settling.last().map_or(0, |block| block.height)
    }

    /// A block's time is that of the votes for the one before it, so a block has been executed by the time of the second after it.
    fn seconds(&self) -> f64 {
        let time = |height: u64| {
            self.times
                .iter()
                .find(|(other, _)| *other == height)
                .map(|(_, time)| *time)
        };
        let (from, until) = (time(self.first() + 1), time(self.last() + 2));
        from.zip(until)
            .map_or(f64::NAN, |(from, until)| (until - from) as f64 / 1e9)
    }
}

async fn watch(people: &People, from: u64, items: u64) -> anyhow::Result<Window> {
    let client = people.client.clone();
    let contracts = vec![client.contracts().royalty_escrow.clone()];
    let mut blocks = follow(client, contracts, from);
    let mut window = Window::default();
    while let Some(block) = blocks.try_next().await? {
        window.times.push((block.height, block.time_nanos));
        let events = block.txs.iter().flat_map(|tx| &tx.events);
        let settled = events
            .filter(|emitted| matches!(emitted.event, Event::Settled { .. }))
            .count();
        if settled > 0 {
            window.settling.push(Settling {
                height: block.height,
                items: u64::try_from(settled)?,
            });
        }
        if window.items() >= items && block.height >= window.last() + 2 {
            break;
        }
    }
    Ok(window)
}

async fn load(people: &People, node: &Node, batch: usize, batches: Batches) -> anyhow::Result<Rate> {
    let calls: usize = batches.iter().map(|(_, calls)| calls.len()).sum();
    let items = count(&batches)?;
    let from = people.client.status().await?.height + 1;
    let before = node.clocks().await?;
    let handing = tokio::spawn(hand_over(batches));
    let window = timeout(PATIENCE, watch(people, from, items)).await??;
    let spent = node.clocks().await?.since(before);
    let handed = handing.await??;
    anyhow::ensure!(
        handed.transactions == u64::try_from(calls)?,
        "not everything was handed over"
    );
    rate(node, batch, &window, &handed, spent).await
}

/// Items of all batches, counted where they are: in the messages.
fn count(batches: &Batches) -> anyhow::Result<u64> {
    let mut items = 0;
    for (_, calls) in batches {
        for call in calls {
            let Call::Execute { msg, .. } = call else { continue };
            if let orchestrator::ExecuteMsg::SubmitAttestations { attestations } = serde_json::from_slice(msg)? {
                items += u64::try_from(attestations.len())?;
            }
        }
    }
    Ok(items)
}

async fn rate(node: &Node, batch: usize, window: &Window, handed: &Handed, spent: Clocks) -> anyhow::Result<Rate> {
    let block_gas_max = node.block_gas_max(window.last()).await?;
    let share = |gas: u64| gas as f64 * 100.0 / block_gas_max as f64;
    let (mut used, mut wanted, mut fullest, mut failed) = (0, 0, 0, 0);
    for height in window.first()..=window.last() {
        let gas = node.block_gas(height).await?;
        used += gas.used;
        wanted += gas.wanted;
        fullest = fullest.max(gas.wanted);
        failed += gas.failed;
    }
    anyhow::ensure!(failed == 0, "{failed} transactions failed");
    let blocks = window.last() - window.first() + 1;
    let (items, seconds) = (window.items(), window.seconds());
    let each = |sum: f64| sum / items as f64;
    Ok(Rate {
        items_a_transaction: batch,
        items,
        transactions: handed.transactions,
        blocks,
        seconds,
        items_per_second: items as f64 / seconds,
        block_gas_max,
        block_seconds: seconds / blocks as f64,
        items_a_block_max: window
            .settling
            .iter()
            .map(|block| block.items)
            .max()
            .unwrap_or_default(),
        bytes_per_item: each(handed.bytes as f64),
        gas_used_per_item: each(used as f64),
        gas_wanted_per_item: each(wanted as f64),
        block_gas_percent_max: share(fullest),
        block_gas_percent: share(wanted) / blocks as f64,
        execution_ms_per_item: each(spent.executing * 1_000.0),
        cpu_ms_per_item: each(spent.cpu * 1_000.0),
        rechecks_per_transaction: spent.rechecks / handed.transactions as f64,
        handover_ms: handed.waited.as_secs_f64() * 1_000.0 / handed.transactions as f64,
        machine_busy_percent: (1.0 - spent.idle / spent.machine) * 100.0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_a_window_holds_the_execution_of_its_last_block() {
        let times =
            [(9, 4), (10, 5), (11, 6), (12, 8), (13, 9)].map(|(height, seconds)| (height, seconds * 1_000_000_000));
        let settling = [(10, 3), (11, 4)].map(|(height, items)| Settling { height, items });
        let window = Window {
            settling: settling.to_vec(),
            times: times.to_vec(),
        };
        // Block 10 was voted for when block 11 is dated, and block 11 is executed when block 13 is.
        assert_eq!((window.items(), window.seconds()), (7, 3.0));
    }

    #[test]
    fn a_block_holds_whole_transactions() {
        let rate = Rate {
            items_a_transaction: 32,
            items: 320,
            transactions: 10,
            blocks: 2,
            seconds: 1.0,
            items_per_second: 320.0,
            block_gas_max: 100,
            block_seconds: 0.5,
            items_a_block_max: 160,
            bytes_per_item: 1.0,
            gas_used_per_item: 1.0,
            gas_wanted_per_item: 1.0,
            block_gas_percent_max: 96.0,
            block_gas_percent: 96.0,
            execution_ms_per_item: 1.0,
            cpu_ms_per_item: 1.0,
            rechecks_per_transaction: 1.0,
            handover_ms: 1.0,
            machine_busy_percent: 1.0,
        };
        assert_eq!(rate.gas_ceiling(0.5), 192.0);
    }
}
