//! What hosts sign about the items of a job.

use std::collections::BTreeMap;

use anyhow::Context as _;
use client::Client;
use fxn_tests::Host;
use schema::{
    orchestrator::{self, ConfigResponse, ItemResponse, ItemsResponse, JobResponse, QueryMsg},
    receipt::{Acknowledgement, Attestation, Domain, Link, Outcome, Receipt, SignedAcknowledgement, SignedReceipt},
    Digest, ItemId,
};

/// Hosts by the address of their provider.
pub(crate) type Hosts = BTreeMap<String, Host>;

/// The items of a job, all of them.
pub(crate) async fn items(client: &Client, job: u64) -> anyhow::Result<Vec<ItemResponse>> {
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

/// Proofs of every item of a job, as honest hosts sign them.
pub(crate) async fn attestations(client: &Client, hosts: &Hosts, job: u64) -> anyhow::Result<Vec<Attestation>> {
    let orchestrator = &client.contracts().job_orchestrator;
    let config: ConfigResponse = client.query(orchestrator, &QueryMsg::Config {}).await?;
    let told: JobResponse = client.query(orchestrator, &QueryMsg::Job { job }).await?;
    let mut all = vec![];
    for item in items(client, job).await? {
        let root = told.shards[usize::from(item.item.shard)].root;
        all.push(Attestation {
            item: item.item,
            attempt: item.attempt,
            links: links(hosts, &config.domain, &item, root)?,
        });
    }
    Ok(all)
}

fn boundary(item: ItemId, stage: u8) -> Digest {
    Digest::of(format!("{item:?} after {stage}").as_bytes())
}

fn links(hosts: &Hosts, domain: &Domain, item: &ItemResponse, root: Digest) -> anyhow::Result<Vec<Link>> {
    let host = |span: &schema::staking::Span| hosts.get(&span.provider).context("a host of the story");
    let mut links: Vec<Link> = vec![];
    for (index, span) in item.spans.iter().enumerate() {
        let previous = links.last().map(|link| &link.receipt.receipt);
        let receipt = Receipt {
            domain: domain.clone(),
            item: item.item,
            attempt: item.attempt,
            deployment: span.deployment,
            first: span.first,
            last: span.last,
            input_digest: previous.map_or(root, |previous| previous.output_digest),
            output_digest: boundary(item.item, span.last),
            tokens_digest: None,
            seed: None,
            units_in: 12,
            units_out: 0,
            outcome: Outcome::Done,
            previous: previous.map(Receipt::digest),
        };
        let acknowledgement = match item.spans.get(index + 1) {
            None => None,
            Some(next) => {
                let acknowledgement = Acknowledgement {
                    domain: domain.clone(),
                    item: item.item,
                    attempt: item.attempt,
                    deployment: next.deployment,
                    input_digest: receipt.output_digest,
                };
                Some(SignedAcknowledgement {
                    signature: host(next)?.sign(&acknowledgement.digest()),
                    acknowledgement,
                })
            }
        };
        links.push(Link {
            receipt: SignedReceipt {
                signature: host(span)?.sign(&receipt.digest()),
                receipt,
            },
            acknowledgement,
        });
    }
    Ok(links)
}

/// The number of the job that a transaction has submitted.
pub(crate) fn job_of(outcome: &client::TxOutcome) -> anyhow::Result<u64> {
    let job = outcome
        .attribute("wasm-job_submitted", "job")
        .context("a job was submitted")?;
    Ok(job.parse()?)
}

/// Evidence is what an attestation is made of.
pub(crate) fn evidence(attestation: Attestation) -> orchestrator::ExecuteMsg {
    orchestrator::ExecuteMsg::PostEvidence {
        item: attestation.item,
        attempt: attestation.attempt,
        links: attestation.links,
    }
}
