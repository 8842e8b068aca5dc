//! Reading a model's rows and results as its manifest says.

use std::collections::BTreeSet;

use anyhow::{ensure, Context as _};
use client::{Account, Client};
use inference_host::request::{Format, RowReader};
use partition::{row, Manifest, TensorSpec};
use schema::{
    orchestrator::{ConfigResponse, ItemResponse, JobResponse},
    registry::OfferResponse,
    ModelId,
};

use super::{
    results::{self, Fetch},
    rows::Row,
    shards::Weight,
};

/// A model version's manifest and tokeniser, verified by digest.
#[derive(Debug)]
pub(crate) struct Reader {
    fetch: Fetch,
    /// Where the model's blobs may be had.
    places: Vec<String>,
    manifest: Manifest,
    rows: RowReader,
}

/// What a job came to.
#[derive(Debug)]
pub(crate) struct Results {
    /// The model's outputs for each row, shard by shard.
    pub(crate) rows: Vec<partition::Row>,
    /// Accounts whose work was settled.
    pub(crate) providers: BTreeSet<String>,
}

impl Results {
    /// One vector a row, of a model of embeddings.
    pub(crate) fn embeddings(&self) -> anyhow::Result<Vec<Vec<f32>>> {
        self.rows.iter().map(results::embedding).collect()
    }
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
        let rows = RowReader::new(&manifest, json.as_deref())?;
        Ok(Self {
            fetch,
            places,
            manifest,
            rows,
        })
    }

    /// What the model answers with.
    pub(crate) fn outputs(&self) -> &[TensorSpec] {
        &self.manifest.outputs
    }

    /// One row of the model's output.
    pub(crate) fn decode(&self, bytes: &[u8]) -> anyhow::Result<partition::Row> {
        Ok(row::decode(bytes, self.outputs(), self.manifest.max_positions)?)
    }

    /// Names of the model's classes by index, if it tells them.
    pub(crate) async fn labels(&self) -> Vec<String> {
        results::labels(&self.fetch, &self.places, &self.manifest).await
    }

    /// Bytes and units of each row, as a host will count them. An error names the first one that the model cannot take.
    pub(crate) fn weights(&self, format: Format, rows: &[Row]) -> anyhow::Result<Vec<Weight>> {
        let weight = |row: &Row| {
            let read = self.rows.read(format, &row.bytes);
            let (_, units) = read.with_context(|| format!("{} is no row for this model", row.name))?;
            Ok(Weight {
                bytes: row.bytes.len(),
                units,
            })
        };
        rows.iter().map(weight).collect()
    }

    /// Fetches and verifies what a job came to. An error names the first shard without a result.
    pub(crate) async fn results(&self, account: &Account, job: &JobResponse) -> anyhow::Result<Results> {
        let client = account.client();
        let config = client.orchestrator().config().await?;
        let items = client.orchestrator().all_items(job.job).await?;
        let mut answer = Results {
            rows: vec![],
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
            for bytes in &rows {
                answer.rows.push(self.decode(bytes)?);
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
