//! Reads everything that the checker needs from the chain, all of one height.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{anyhow, bail, Context as _};
use client::{events, Client, TxHash};
use futures::StreamExt;
use schema::{
    escrow::{Reason, SessionResponse},
    token, Event,
};
use tokio::time::timeout;

use super::{
    checker::{Books, Facts},
    report::ChainTold,
};

/// Times that everything is read anew because a transaction came in between.
const TRIES: u32 = 20;
/// Longest wait for the blocks of the story.
const PATIENCE: Duration = Duration::from_secs(30);

/// An event with where it stands.
#[derive(Debug, Clone)]
pub(crate) struct Placed {
    pub(crate) height: u64,
    pub(crate) hash: TxHash,
    pub(crate) event: Event,
}

/// What is to be read.
#[derive(Debug, Clone)]
pub(crate) struct Question {
    /// First block of the story.
    pub(crate) from_height: u64,
    pub(crate) supply_before: u128,
    pub(crate) jobs: Vec<u64>,
    /// As they were before they ended.
    pub(crate) sessions: Vec<SessionResponse>,
    /// Holders that are new since then.
    pub(crate) holders: Vec<String>,
}

/// All events of a range of blocks.
pub(crate) async fn events(client: &Client, from: u64, to: u64) -> anyhow::Result<Vec<Placed>> {
    let mut blocks = events::follow(client.clone(), client.contracts().addresses(), from.max(1));
    let mut placed = vec![];
    loop {
        let block = timeout(PATIENCE, blocks.next()).await;
        let block = block.with_context(|| format!("no block came within {} s", PATIENCE.as_secs()))?;
        let block = block.context("the stream of blocks has ended")??;
        for tx in block.txs {
            let hash = tx.hash;
            placed.extend(tx.events.into_iter().map(|emitted| Placed {
                height: block.height,
                hash,
                event: emitted.event,
            }));
        }
        if block.height >= to {
            return Ok(placed);
        }
    }
}

/// Reads until nothing of ours happened while it was read.
pub(crate) async fn gather(client: &Client, question: &Question) -> anyhow::Result<(Facts, Vec<Placed>)> {
    for _ in 0..TRIES {
        let before = client.status().await?.height;
        let mut facts = read(client, question).await?;
        let after = client.status().await?.height;
        let placed = events(client, question.from_height, after).await?;
        // Queries see the state after the latest block, so a change after `before` may be seen by some of them only.
        if placed.iter().any(|placed| placed.height > before) {
            continue;
        }
        facts.events = placed.iter().map(|placed| placed.event.clone()).collect();
        return Ok((facts, placed));
    }
    bail!("the chain never was quiet enough to be read as a whole, in {TRIES} tries")
}

async fn read(client: &Client, question: &Question) -> anyhow::Result<Facts> {
    let contracts = client.contracts();
    let config = client.escrow().config().await?;
    let totals = client.escrow().totals().await?;
    let bonds = client.staking().totals().await?;
    let orchestrator = client.orchestrator().config().await?;
    let mut facts = Facts {
        beacon_for: orchestrator.randomness_beacon.map(|_| orchestrator.domain),
        fees: config.params.fees,
        treasury: config.treasury,
        supply_before: question.supply_before,
        sessions: question.sessions.clone(),
        supply: supply(client).await?,
        ledger: client.escrow().all_ledger().await?,
        ..Facts::default()
    };
    let sum = |amounts: Vec<u128>| amounts.into_iter().fold(0_u128, u128::saturating_add);
    facts.escrow = Books {
        cw20_balance: client.token().balance(&contracts.royalty_escrow).await?,
        ledger_sum: sum(facts
            .ledger
            .iter()
            .flat_map(|entry| [entry.available.u128(), entry.held.u128()])
            .collect()),
        told_sum: sum(vec![totals.available.u128(), totals.held.u128()]),
    };
    facts.staking = Books {
        cw20_balance: client.token().balance(&contracts.provider_staking).await?,
        ledger_sum: sum(providers_bonds(client).await?),
        told_sum: sum(vec![bonds.bonded.u128(), bonds.unbonding.u128()]),
    };
    for job in &question.jobs {
        facts.jobs.push(client.orchestrator().job(*job).await?);
        facts.items.extend(client.orchestrator().all_items(*job).await?);
    }
    for holder in &question.holders {
        facts.earnings.insert(holder.clone(), earnings(client, holder).await?);
    }
    Ok(facts)
}

async fn providers_bonds(client: &Client) -> anyhow::Result<Vec<u128>> {
    let providers = client.staking().all_providers().await?;
    let unbonding = providers
        .iter()
        .flat_map(|provider| &provider.unbonding)
        .map(|entry| entry.amount.u128());
    Ok(providers
        .iter()
        .map(|provider| provider.bond.u128())
        .chain(unbonding)
        .collect())
}

async fn earnings(client: &Client, holder: &str) -> anyhow::Result<BTreeMap<Reason, u128>> {
    let credits = client.escrow().earnings(holder).await?;
    Ok(credits
        .into_iter()
        .map(|credit| (credit.reason, credit.amount.u128()))
        .collect())
}

/// Which chain it is and where its validators stand.
pub(crate) async fn chain(client: &Client) -> anyhow::Result<ChainTold> {
    let network = client.network();
    let mut told = Err(anyhow!("the network has no node"));
    for rpc in network.nodes() {
        told = client::validators(&rpc, PATIENCE).await.map_err(Into::into);
        if told.is_ok() {
            break;
        }
    }
    let validators = told?;
    let app_version = validators.first().map(|validator| validator.app_version.clone());
    Ok(ChainTold {
        chain_id: network.chain_id.clone(),
        app_version: app_version.context("no validator tells of itself")?,
        validators,
    })
}

/// FUNC in existence.
pub(crate) async fn supply(client: &Client) -> anyhow::Result<u128> {
    let answer: cw20::TokenInfoResponse = client.token().ask(&token::QueryMsg::TokenInfo {}).await?;
    Ok(answer.total_supply.u128())
}
