//! What hosts sign about the items of a job on a running chain.

use std::collections::BTreeMap;

use anyhow::Context as _;
use client::{Client, TxOutcome};
use schema::{
    orchestrator::{self, ConfigResponse, ItemResponse, ItemsResponse, JobResponse, QueryMsg},
    receipt::{Attestation, Domain},
};

use crate::{work::links_by, Host, Work};

/// Hosts by the address of their provider.
pub type Hosts = BTreeMap<String, Host>;

/// Units that every item is said to have had.
const UNITS_IN: u64 = 12;

/// Where hosts' signatures are valid.
pub async fn domain(client: &Client) -> anyhow::Result<Domain> {
    let orchestrator = &client.contracts().job_orchestrator;
    let config: ConfigResponse = client.query(orchestrator, &QueryMsg::Config {}).await?;
    Ok(config.domain)
}

/// The items of a job, all of them.
pub async fn items(client: &Client, job: u64) -> anyhow::Result<Vec<ItemResponse>> {
    let orchestrator = &client.contracts().job_orchestrator;
    let mut all: Vec<ItemResponse> = vec![];
    loop {
        let question = QueryMsg::Items {
            job,
            start_after: all.last().map(|item| item.item),
            limit: Some(30),
        };
        let page: ItemsResponse = client.query(orchestrator, &question).await?;
        if page.items.is_empty() {
            return Ok(all);
        }
        all.extend(page.items);
    }
}

/// Proofs of every item of a job, as honest hosts sign them, each with the provider of its last span.
pub async fn proofs(
    client: &Client,
    hosts: &Hosts,
    domain: &Domain,
    job: u64,
) -> anyhow::Result<Vec<(String, Attestation)>> {
    let orchestrator = &client.contracts().job_orchestrator;
    let told: JobResponse = client.query(orchestrator, &QueryMsg::Job { job }).await?;
    let mut all = vec![];
    for item in items(client, job).await? {
        let signers = item.spans.iter().map(|span| hosts.get(&span.provider).cloned());
        let signers: Option<Vec<Host>> = signers.collect();
        let signers = signers.context("a job of providers whose hosts are known")?;
        let last = item.spans.last().context("an item has spans")?;
        let links = links_by(&signers, domain, &told, &item, Work::honest(UNITS_IN), |_, _, _| {});
        all.push((
            last.provider.clone(),
            Attestation {
                item: item.item,
                attempt: item.attempt,
                links,
            },
        ));
    }
    Ok(all)
}

/// The number of the job that a transaction has submitted.
pub fn job_of(outcome: &TxOutcome) -> anyhow::Result<u64> {
    let job = outcome
        .attribute("wasm-job_submitted", "job")
        .context("a job was submitted")?;
    Ok(job.parse()?)
}

/// Evidence is what an attestation is made of.
pub fn evidence(attestation: Attestation) -> orchestrator::ExecuteMsg {
    orchestrator::ExecuteMsg::PostEvidence {
        item: attestation.item,
        attempt: attestation.attempt,
        links: attestation.links,
    }
}
