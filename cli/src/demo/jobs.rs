//! The two jobs of the story: one that everybody does well, and one whose first host is killed.

use std::collections::BTreeMap;

use anyhow::{bail, ensure, Context as _};
use client::{events, Account, Client};
use futures::StreamExt;
use inference_host::request::Format;
use schema::{
    orchestrator::{Blame, ItemResponse, JobResponse, JobStatus},
    Event, ModelId,
};
use tokio::time::timeout;

use super::{plan, processes::Crew};
use crate::{
    progress::Progress,
    work::{
        order::{self, Batch, Order},
        prepare::{Reader, Results},
        rows::{self, Row},
        shards::{self, Limits},
    },
};

/// A job that has ended, and its verified results.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) job: JobResponse,
    pub(crate) results: Results,
}

/// Who is on stage 0 of which item.
type FirstHosts = BTreeMap<u64, Vec<String>>;

/// The developer's order for the sentences.
#[derive(Debug)]
pub(crate) struct Desk<'a> {
    pub(crate) developer: &'a Account,
    pub(crate) model: &'a ModelId,
    pub(crate) rows: Vec<Row>,
    pub(crate) reader: Reader,
}

impl<'a> Desk<'a> {
    pub(crate) async fn open(developer: &'a Account, model: &'a ModelId, texts: &[String]) -> anyhow::Result<Self> {
        let offer = order::offer(developer.client(), &Self::order_of(model, 1)).await?;
        let reader = Reader::open(developer.client(), model, &offer).await?;
        Ok(Self {
            developer,
            model,
            rows: rows::of_texts(texts),
            reader,
        })
    }

    pub(crate) fn order_of(model: &ModelId, replicas: u8) -> Order {
        Order {
            model: model.clone(),
            version: None,
            endpoint: plan::ENDPOINT.to_owned(),
            engine_class: None,
            replicas,
            deadline_seconds: None,
            max_price: None,
            chain: None,
        }
    }

    /// Submits the sentences in parallel parts.
    async fn submit(&self, replicas: u8) -> anyhow::Result<u64> {
        let client = self.developer.client();
        let order = Self::order_of(self.model, replicas);
        let offer = order::offer(client, &order).await?;
        let weights = self.reader.weights(Format::Text, &self.rows)?;
        let batch = Batch::of(shards::cut_into(&weights, plan::SHARDS, Limits::USUAL), &weights);
        let quote = order::patient_quote(client, &order, &offer, &batch).await?;
        let call = order::submit_call(client, &order, offer.version, &batch, quote.most, &self.rows)?;
        Ok(order::submit(self.developer, call).await?.job)
    }

    async fn finish(&self, job: u64) -> anyhow::Result<Done> {
        let client = self.developer.client();
        let job = order::wait(client, job, plan::JOB_PATIENCE, |_| ()).await?;
        ensure!(
            job.status == JobStatus::Completed,
            "job {} has ended incomplete: {}",
            job.job,
            fates(client, job.job).await?
        );
        let results = self.reader.results(self.developer, &job).await?;
        Ok(Done { job, results })
    }

    /// Job 1.
    pub(crate) async fn all_goes_well(&self, progress: &Progress) -> anyhow::Result<Done> {
        let job = self.submit(plan::REPLICAS).await?;
        progress.step(&format!(
            "job {job}: {} shards x {} replicas at work",
            plan::SHARDS,
            plan::REPLICAS
        ));
        self.finish(job).await
    }

    /// Job 2: as soon as the block with the assignments is there, the host with the most first spans dies. `hosts` names the process of
    /// each deployment's host.
    pub(crate) async fn a_host_dies(
        &self,
        crew: &mut Crew,
        hosts: &BTreeMap<u64, String>,
        progress: &Progress,
    ) -> anyhow::Result<(Done, Killed)> {
        let client = self.developer.client();
        let from = client.status().await?.height.saturating_add(1);
        // Both at once: the block must be seen when it comes, not after its transaction was confirmed.
        let (job, killed) = tokio::try_join!(self.submit(1), self.kill_first_host(from, crew, hosts, progress))?;
        progress.step(&format!(
            "job {job}: {} is dead; its deadline passes, then another provider takes over",
            killed.role
        ));
        let done = self.finish(job).await?;
        Ok((done, killed))
    }

    async fn kill_first_host(
        &self,
        from: u64,
        crew: &mut Crew,
        hosts: &BTreeMap<u64, String>,
        progress: &Progress,
    ) -> anyhow::Result<Killed> {
        let client = self.developer.client();
        let mut blocks = events::follow(client.clone(), client.contracts().addresses(), from.max(1));
        let assigned = async {
            while let Some(block) = blocks.next().await {
                let found = first_hosts(&block?, self.developer.address());
                if !found.is_empty() {
                    return Ok(found);
                }
            }
            bail!("the stream of blocks has ended")
        };
        let assigned = timeout(plan::JOB_PATIENCE, assigned)
            .await
            .context("no block brought the job's assignments")??;
        let busiest = assigned.iter().max_by_key(|(_, items)| items.len());
        let (deployment, items) = busiest.context("the job has no assignments")?;
        let role = hosts
            .get(deployment)
            .with_context(|| format!("deployment {deployment} is not one of this demonstration"))?;
        crew.kill(role).await?;
        progress.done(&format!("killed {role} (SIGKILL), first on {}", items.join(", ")));
        Ok(Killed {
            deployment: *deployment,
            role: role.clone(),
        })
    }
}

/// Who was killed.
#[derive(Debug, Clone)]
pub(crate) struct Killed {
    pub(crate) deployment: u64,
    pub(crate) role: String,
}

impl Killed {
    /// Items that the dead host was blamed for. None: it had done its part before it died.
    pub(crate) async fn missed(&self, client: &Client, job: u64) -> anyhow::Result<Vec<ItemResponse>> {
        let mut items = client.orchestrator().all_items(job).await?;
        items.retain(|item| {
            let mut attempts = item.history.iter();
            attempts.any(|past| matches!(past.blame, Blame::Miss { deployment, .. } if deployment == self.deployment))
        });
        Ok(items)
    }
}

/// Assignments of the developer's job in this block, by the deployment of their first span.
fn first_hosts(block: &events::Block, developer: &str) -> FirstHosts {
    let mut found = FirstHosts::new();
    for tx in &block.txs {
        let submitted = tx
            .events
            .iter()
            .any(|emitted| matches!(&emitted.event, Event::JobSubmitted { developer: by, .. } if by == developer));
        for emitted in tx.events.iter().filter(|_| submitted) {
            if let Event::JobAssigned { item, deployments, .. } = &emitted.event {
                if let Some(first) = deployments.0.first() {
                    found.entry(*first).or_default().push(item.to_string());
                }
            }
        }
    }
    found
}

/// How each item of a job ended, for an error.
async fn fates(client: &Client, job: u64) -> anyhow::Result<String> {
    let items = client.orchestrator().all_items(job).await?;
    let fates: Vec<_> = items
        .iter()
        .map(|item| format!("{} {:?} after {:?}", item.item, item.status, item.history))
        .collect();
    Ok(fates.join("; "))
}
