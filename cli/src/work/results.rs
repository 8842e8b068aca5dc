//! Results of a job: fetched from the hosts that hold them, and believed only if the chain says the same.
//!
//! Guarantees: rows are returned only if their Merkle root is the one that was attested and settled; blobs only if they are what their
//! digest says; no answer is read beyond its limit, and no host is waited for beyond its time.

use std::{
    collections::BTreeSet,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{anyhow, bail, ensure, Context as _};
use client::{Account, Client};
use partition::{Manifest, Row};
use reqwest::redirect::Policy;
use schema::{
    merkle,
    orchestrator::{ItemResponse, ItemResult, ItemStatus, JobResponse},
    receipt::{Domain, OutputRequest},
    registry::VersionResponse,
    Digest,
};

use crate::model::MANIFEST_BYTES_MAX;

/// Longest wait for one answer.
const TIMEOUT: Duration = Duration::from_secs(20);
/// How long a signed request for an output may be answered.
const VALID_SECONDS: u64 = 60;
/// Longest answer with outputs: 64 rows of long boundary tensors are far below it.
const OUTPUT_BYTES_MAX: usize = 256 << 20;
/// Longest tokenizer.
const TOKENIZER_BYTES_MAX: u64 = 64 << 20;
/// Longest configuration that is looked into for names of classes, and most of them.
const CONFIG_BYTES_MAX: u64 = 4 << 20;
const LABELS_MAX: usize = 65_536;

/// Fetches with limits.
#[derive(Debug, Clone)]
pub(crate) struct Fetch {
    http: reqwest::Client,
}

impl Fetch {
    pub(crate) fn new() -> anyhow::Result<Self> {
        let http = reqwest::Client::builder()
            .redirect(Policy::none())
            .connect_timeout(Duration::from_secs(5))
            .timeout(TIMEOUT)
            .build()
            .context("failed to set up HTTP")?;
        Ok(Self { http })
    }

    /// The body of an answer, no longer than `limit`.
    async fn body(&self, request: reqwest::RequestBuilder, limit: usize) -> anyhow::Result<Vec<u8>> {
        let mut answer = request.send().await?;
        let status = answer.status();
        let mut body = vec![];
        while let Some(chunk) = answer.chunk().await? {
            ensure!(
                body.len().saturating_add(chunk.len()) <= limit,
                "the answer has more than {limit} bytes"
            );
            body.extend_from_slice(&chunk);
        }
        if !status.is_success() {
            let said: String = String::from_utf8_lossy(&body).chars().take(300).collect();
            bail!("the answer is {status}: {}", said.trim());
        }
        Ok(body)
    }

    /// A blob from the first place that has it, verified by its digest.
    pub(crate) async fn blob(&self, places: &[String], digest: Digest, bytes_max: u64) -> anyhow::Result<Vec<u8>> {
        let limit = usize::try_from(bytes_max).unwrap_or(usize::MAX);
        let mut tried = vec![];
        for place in places {
            let url = format!("{}/blobs/{digest}", place.trim_end_matches('/'));
            match self.body(self.http.get(&url), limit).await {
                Ok(body) if Digest::of(&body) == digest => return Ok(body),
                Ok(_) => tried.push(format!("{place}: other content than its digest says")),
                Err(error) => tried.push(format!("{place}: {error:#}")),
            }
        }
        if tried.is_empty() {
            bail!("nobody is known who offers blob {digest}");
        }
        bail!("blob {digest} could not be had: {}", tried.join("; "))
    }

    /// The rows that an item came to, from the host that holds them, verified against the chain.
    pub(crate) async fn rows(
        &self,
        account: &Account,
        domain: &Domain,
        item: &ItemResponse,
        host: &str,
    ) -> anyhow::Result<Vec<Vec<u8>>> {
        let result = result_of(item).with_context(|| format!("item {} has no result", item.item))?;
        let request = OutputRequest {
            domain: domain.clone(),
            item: item.item,
            output_digest: result.output_digest,
            valid_until: now_seconds().saturating_add(VALID_SECONDS),
        };
        let url = format!("{}/outputs/{}", host.trim_end_matches('/'), request.output_digest);
        let get = self
            .http
            .get(url)
            .header("x-fxn-item", request.item.to_string())
            .header("x-fxn-valid-until", request.valid_until.to_string())
            .header("x-fxn-public-key", hex::encode(account.wallet().public_key()))
            .header(
                "x-fxn-signature",
                hex::encode(account.wallet().sign_digest(&request.digest().0)),
            );
        let body = self.body(get, OUTPUT_BYTES_MAX).await;
        let body = body.with_context(|| format!("{host} did not give the output of item {}", item.item))?;
        let rows = inference_host::decode_rows(&body).with_context(|| format!("{host} answered with no rows"))?;
        let root = merkle::root(&rows);
        ensure!(
            root == result.output_digest,
            "{host} gave another output than it attested: {root} instead of {} on chain",
            result.output_digest
        );
        Ok(rows)
    }
}

fn now_seconds() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

/// What an item was settled with.
pub(crate) fn result_of(item: &ItemResponse) -> Option<&ItemResult> {
    match &item.status {
        ItemStatus::Settled { result, .. } => Some(result),
        _ => None,
    }
}

/// The settled item of each shard, its first replica that has one. An error names the first shard without.
pub(crate) fn settled(job: &JobResponse, items: &[ItemResponse]) -> anyhow::Result<Vec<ItemResponse>> {
    let shards = (0..job.shards.len()).map(|shard| {
        let mut replicas = items.iter().filter(|item| usize::from(item.item.shard) == shard);
        let found = replicas.find(|item| result_of(item).is_some());
        found.cloned().ok_or_else(|| {
            let last = items.iter().rfind(|item| usize::from(item.item.shard) == shard);
            let status = last.map_or_else(|| "it has no item".to_owned(), |item| format!("{:?}", item.status));
            anyhow!("shard {shard} of job {} has no result: {status}", job.job)
        })
    });
    shards.collect()
}

/// Base URL of a provider's host.
pub(crate) async fn endpoint(client: &Client, provider: &str) -> anyhow::Result<String> {
    Ok(client.staking().provider(provider).await?.profile.endpoint)
}

/// Where the blobs of a version may be had: its own URIs, then hosts that serve it.
pub(crate) async fn places(
    client: &Client,
    version: &VersionResponse,
    hosts: &BTreeSet<String>,
) -> anyhow::Result<Vec<String>> {
    let mut places = version.manifest_uris.clone();
    for provider in hosts {
        places.push(endpoint(client, provider).await?);
    }
    Ok(places)
}

/// The manifest that a version is pinned to.
pub(crate) async fn manifest(fetch: &Fetch, places: &[String], digest: Digest) -> anyhow::Result<Manifest> {
    let bytes = fetch
        .blob(places, digest, MANIFEST_BYTES_MAX)
        .await
        .context("the manifest is not to be had")?;
    let manifest: Manifest = serde_json::from_slice(&bytes).context("the manifest cannot be read")?;
    manifest.validate().context("the manifest promises what cannot be")?;
    Ok(manifest)
}

/// The tokenizer that a manifest names, if it names one.
pub(crate) async fn tokenizer(
    fetch: &Fetch,
    places: &[String],
    manifest: &Manifest,
) -> anyhow::Result<Option<Vec<u8>>> {
    let Some(blob) = &manifest.tokenizer else {
        return Ok(None);
    };
    ensure!(
        blob.bytes <= TOKENIZER_BYTES_MAX,
        "the tokenizer has {} bytes, which is absurd",
        blob.bytes
    );
    let digest = Digest(blob.sha256.to_bytes());
    let json = fetch.blob(places, digest, blob.bytes).await;
    json.map(Some).context("the tokenizer is not to be had")
}

/// Names of the classes of a model, as its `config.json` tells them, by index; empty where it does not, or cannot be had.
pub(crate) async fn labels(fetch: &Fetch, places: &[String], manifest: &Manifest) -> Vec<String> {
    let Some(blob) = manifest.config.as_ref().filter(|blob| blob.bytes <= CONFIG_BYTES_MAX) else {
        return vec![];
    };
    let json = fetch.blob(places, Digest(blob.sha256.to_bytes()), blob.bytes).await;
    let config: serde_json::Value = serde_json::from_slice(&json.unwrap_or_default()).unwrap_or_default();
    let label = |index: usize| config["id2label"][index.to_string()].as_str().map(str::to_owned);
    (0..LABELS_MAX).map_while(label).collect()
}

/// The vector in an output row of a model of embeddings.
pub(crate) fn embedding(row: &Row) -> anyhow::Result<Vec<f32>> {
    let vector = row
        .iter()
        .find(|tensor| tensor.shape.len() == 1)
        .and_then(partition::Tensor::to_f32);
    vector.context("the model's output holds no vector of float32")
}
