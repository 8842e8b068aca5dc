//! Questions to the contracts, each typed by its query, and pages read to their end within a bound.

use anyhow::bail;
use client::{Client, ClientError};
use cosmwasm_std::Uint128;
use schema::{escrow, orchestrator, registry, staking};
use serde::de::DeserializeOwned;

/// Largest page that the contracts give.
pub(crate) const PAGE: u32 = 30;
/// Pages read of any list: 3000 entries are more than a person reads, and a bound for everybody else.
const PAGES_MAX: usize = 100;

pub(crate) async fn registry<R: DeserializeOwned>(
    client: &Client,
    query: &registry::QueryMsg,
) -> Result<R, ClientError> {
    client.query(&client.contracts().model_registry, query).await
}

pub(crate) async fn staking<R: DeserializeOwned>(client: &Client, query: &staking::QueryMsg) -> Result<R, ClientError> {
    client.query(&client.contracts().provider_staking, query).await
}

pub(crate) async fn escrow<R: DeserializeOwned>(client: &Client, query: &escrow::QueryMsg) -> Result<R, ClientError> {
    client.query(&client.contracts().royalty_escrow, query).await
}

pub(crate) async fn orchestrator<R: DeserializeOwned>(
    client: &Client,
    query: &orchestrator::QueryMsg,
) -> Result<R, ClientError> {
    client.query(&client.contracts().job_orchestrator, query).await
}

/// FUNC that the token contract holds for an account.
pub(crate) async fn func_balance(client: &Client, address: &str) -> Result<Uint128, ClientError> {
    let query = schema::token::QueryMsg::Balance {
        address: address.to_owned(),
    };
    let answer: cw20::BalanceResponse = client.query(&client.contracts().func_token, &query).await?;
    Ok(answer.balance)
}

/// FUNC in existence.
pub(crate) async fn func_supply(client: &Client) -> Result<Uint128, ClientError> {
    let query = schema::token::QueryMsg::TokenInfo {};
    let answer: cw20::TokenInfoResponse = client.query(&client.contracts().func_token, &query).await?;
    Ok(answer.total_supply)
}

pub(crate) async fn job(client: &Client, job: u64) -> Result<orchestrator::JobResponse, ClientError> {
    orchestrator(client, &orchestrator::QueryMsg::Job { job }).await
}

/// All items of a job: at most 64, so three pages.
pub(crate) async fn items(client: &Client, job: u64) -> anyhow::Result<Vec<orchestrator::ItemResponse>> {
    let mut items: Vec<orchestrator::ItemResponse> = vec![];
    for _ in 0..PAGES_MAX {
        let query = orchestrator::QueryMsg::Items {
            job,
            start_after: items.last().map(|last| last.item),
            limit: Some(PAGE),
        };
        let page: orchestrator::ItemsResponse = orchestrator(client, &query).await?;
        let full = is_full(page.items.len());
        items.extend(page.items);
        if !full {
            return Ok(items);
        }
    }
    too_long("items")
}

/// Every holder of the escrow's ledger.
pub(crate) async fn ledger(client: &Client) -> anyhow::Result<Vec<escrow::LedgerEntry>> {
    let mut entries: Vec<escrow::LedgerEntry> = vec![];
    for _ in 0..PAGES_MAX {
        let query = escrow::QueryMsg::Ledger {
            start_after: entries.last().map(|entry| entry.holder.clone()),
            limit: Some(PAGE),
        };
        let page: escrow::LedgerResponse = escrow(client, &query).await?;
        let full = is_full(page.entries.len());
        entries.extend(page.entries);
        if !full {
            return Ok(entries);
        }
    }
    too_long("ledger entries")
}

/// Deployments of a provider, or of all.
pub(crate) async fn deployments(
    client: &Client,
    provider: Option<String>,
) -> anyhow::Result<Vec<staking::DeploymentResponse>> {
    let mut all: Vec<staking::DeploymentResponse> = vec![];
    for _ in 0..PAGES_MAX {
        let query = staking::QueryMsg::Deployments {
            provider: provider.clone(),
            start_after: all.last().map(|last| last.deployment),
            limit: Some(PAGE),
        };
        let page: staking::DeploymentsResponse = staking(client, &query).await?;
        let full = is_full(page.deployments.len());
        all.extend(page.deployments);
        if !full {
            return Ok(all);
        }
    }
    too_long("deployments")
}

pub(crate) async fn providers(client: &Client) -> anyhow::Result<Vec<staking::ProviderResponse>> {
    let mut all: Vec<staking::ProviderResponse> = vec![];
    for _ in 0..PAGES_MAX {
        let query = staking::QueryMsg::Providers {
            start_after: all.last().map(|last| last.provider.clone()),
            limit: Some(PAGE),
        };
        let page: staking::ProvidersResponse = staking(client, &query).await?;
        let full = is_full(page.providers.len());
        all.extend(page.providers);
        if !full {
            return Ok(all);
        }
    }
    too_long("providers")
}

pub(crate) async fn models(
    client: &Client,
    namespace: Option<schema::Namespace>,
) -> anyhow::Result<Vec<registry::ModelResponse>> {
    let mut all: Vec<registry::ModelResponse> = vec![];
    for _ in 0..PAGES_MAX {
        let query = registry::QueryMsg::Models {
            namespace: namespace.clone(),
            start_after: all.last().map(|last| last.model.clone()),
            limit: Some(PAGE),
        };
        let page: registry::ModelsResponse = registry(client, &query).await?;
        let full = is_full(page.models.len());
        all.extend(page.models);
        if !full {
            return Ok(all);
        }
    }
    too_long("models")
}

fn is_full(entries: usize) -> bool {
    u32::try_from(entries) == Ok(PAGE)
}

fn too_long<T>(what: &str) -> anyhow::Result<T> {
    let most = u32::try_from(PAGES_MAX).unwrap_or(u32::MAX).saturating_mul(PAGE);
    bail!("there are more than {most} {what}; narrow the question")
}
