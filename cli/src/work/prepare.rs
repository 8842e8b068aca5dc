//! Reading a model's texts and results as its manifest says.

use std::collections::BTreeSet;

use anyhow::{ensure, Context as _};
use client::{Account, Client};
use inference_host::tokenizer::TextTokenizer;
use partition::Manifest;
use schema::{
    orchestrator::{ConfigResponse, ItemResponse, JobResponse},
    registry::OfferResponse,
    ModelId,
};

use super::{
    results::{self, Fetch},
    shards::Weight,
};

/// A model version's manifest and tokeniser, verified by digest.
#[derive(Debug)]
pub(crate) struct Reader {
    fetch: Fetch,
    manifest: Manifest,
    tokenizer: TextTokenizer,
}

/// What a job came to.
#[derive(Debug)]
pub(crate) struct Results {
    /// One vector a row, shard by shard.
    pub(crate) embeddings: Vec<Vec<f32>>,
    /// Accounts whose work was settled.
    pub(crate) providers: BTreeSet<String>,
}

impl Reader {
    /// For new work.
    pub(crate) async fn open(client: &Client, model: &ModelId, offer: &OfferResponse) -> anyhow::Result<Self> {
        Self::of_version(client, model, offer.version).await
    }

    /// For the results of a job.
    pub(crate) async fn of_job(client: &Client, job: &JobResponse) -> anyhow::Result<Self> {
        Self::of_version(client, &job.model, job.version).await
    }

    async fn of_version(client: &Client, model: &ModelId, version: u32) -> anyhow::Result<Self> {
        let fetch = Fetch::new()?;
        let found = client.registry().version(model, version).await?;
        let deployments = client.staking().deployments_of(model, version).await?;
        let hosts = deployments.into_iter().map(|deployment| deployment.provider).collect();
        let places = results::places(client, &found, &hosts).await?;
        let manifest = results::manifest(&fetch, &places, found.manifest).await?;
        let json = results::tokenizer(&fetch, &places, &manifest).await?;
        let tokenizer = TextTokenizer::new(&json, manifest.max_positions)?;
        Ok(Self {
            fetch,
            manifest,
            tokenizer,
        })
    }

    /// Bytes and tokens of each text.
    pub(crate) fn weights(&self, texts: &[String]) -> anyhow::Result<Vec<Weight>> {
        let weight = |(text, number): (&String, usize)| {
            let tokens = self
                .tokenizer
                .encode(text)
                .with_context(|| format!("text {number} cannot be read"))?;
            Ok(Weight {
                bytes: text.len(),
                units: u64::try_from(tokens.count()).unwrap_or(u64::MAX),
            })
        };
        texts.iter().zip(1..).map(weight).collect()
    }

    /// Fetches and verifies what a job came to. An error names the first shard without a result.
    pub(crate) async fn results(&self, account: &Account, job: &JobResponse) -> anyhow::Result<Results> {
        let client = account.client();
        let config = client.orchestrator().config().await?;
        let items = client.orchestrator().all_items(job.job).await?;
        let mut answer = Results {
            embeddings: vec![],
            providers: BTreeSet::new(),
        };
        for (item, shard) in results::settled(job, &items)?.iter().zip(&job.shards) {
            let rows = self.rows(account, &config, item).await?;
            let expected = usize::try_from(shard.rows).unwrap_or(usize::MAX);
            ensure!(
                rows.len() == expected,
                "item {} has {} rows, {expected} were sent",
                item.item,
                rows.len()
            );
            for row in &rows {
                answer.embeddings.push(results::embedding(&self.manifest, row)?);
            }
        }
        let paid = items.iter().filter(|item| results::result_of(item).is_some());
        answer
            .providers
            .extend(paid.flat_map(|item| &item.spans).map(|span| span.provider.clone()));
        Ok(answer)
    }

    /// From the host of the last span, which keeps the output.
    async fn rows(
        &self,
        account: &Account,
        config: &ConfigResponse,
        item: &ItemResponse,
    ) -> anyhow::Result<Vec<Vec<u8>>> {
        let last = item
            .spans
            .last()
            .with_context(|| format!("item {} has no spans", item.item))?;
        let host = results::endpoint(account.client(), &last.provider).await?;
        self.fetch.rows(account, &config.domain, item, &host).await
    }
}
