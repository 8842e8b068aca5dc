//! The port to the chain: the few facts a host asks for. No type of the client or of a transaction leaks past it.
//!
//! A host only reads. Every call has a time-out; an answer that contradicts itself is an error, not a guess.

use std::{future::Future, time::Duration};

use client::{Client, ClientError};
use futures::future::BoxFuture;
use schema::{
    escrow::{self, SessionResponse},
    orchestrator::{self, ItemStatus},
    receipt::Domain,
    registry,
    staking::{self, DeploymentResponse, Span},
    Digest, ItemId, ModelId,
};
use serde::{de::DeserializeOwned, Deserialize, Serialize};
use tokio::sync::OnceCell;

/// One attempt at an item, as the chain pins it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Assignment {
    /// What every signature starts with.
    pub domain: Domain,
    pub item: ItemId,
    pub attempt: u8,
    /// Whether the chain still waits for this attempt.
    pub open: bool,
    /// Account of whoever pays, and may fetch the output.
    pub developer: String,
    pub model: ModelId,
    pub version: u32,
    /// Says what the rows are.
    pub endpoint: String,
    /// Digest of the manifest that the job was opened with.
    pub manifest: Digest,
    /// Rows of the shard.
    pub rows: u32,
    /// Merkle root over them.
    pub root: Digest,
    /// Most units that the shard may have.
    pub units_max: u64,
    pub engine_class: String,
    /// First stage first.
    pub spans: Vec<Span>,
    /// Unix seconds until which the work should be done.
    pub deadline: u64,
    /// Unix seconds until which receipts are evidence.
    pub evidence_until: u64,
}

/// What the chain promises about a model version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelVersion {
    /// Digest of the manifest.
    pub manifest: Digest,
    /// Digests of the stages, in order.
    pub stages: Vec<Digest>,
}

/// The newest block that a node knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockTime {
    pub height: u64,
    /// The chain's own time.
    pub unix_millis: u64,
}

/// A session as the escrow pins it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OpenedSession {
    /// What vouchers, receipts and consents are signed for: that of the escrow.
    pub domain: Domain,
    pub session: SessionResponse,
}

/// Why the chain gave no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChainError {
    /// Asking again may help.
    #[error("the chain cannot be reached: {reason}")]
    Unreachable { reason: String },
    /// The chain has no such thing, or refuses to say.
    #[error("{reason}")]
    Refused { reason: String },
}

/// What a host asks the chain.
pub trait Chain: Send + Sync + std::fmt::Debug {
    /// The current attempt at an item.
    fn assignment(&self, item: ItemId) -> BoxFuture<'_, Result<Assignment, ChainError>>;

    /// Rows of a shard of a running job.
    fn input(&self, job: u64, shard: u16) -> BoxFuture<'_, Result<Vec<Vec<u8>>, ChainError>>;

    /// All deployments of a provider. At most 32.
    fn deployments<'a>(&'a self, provider: &'a str) -> BoxFuture<'a, Result<Vec<DeploymentResponse>, ChainError>>;

    /// A version of a model.
    fn version<'a>(&'a self, model: &'a ModelId, version: u32) -> BoxFuture<'a, Result<ModelVersion, ChainError>>;

    /// Base URL at which a provider's host is reached.
    fn endpoint<'a>(&'a self, provider: &'a str) -> BoxFuture<'a, Result<String, ChainError>>;

    /// The newest block, by which deadlines are judged.
    fn time(&self) -> BoxFuture<'_, Result<BlockTime, ChainError>>;

    /// A session as it is now.
    fn session(&self, session: u64) -> BoxFuture<'_, Result<OpenedSession, ChainError>>;

    /// The account that a public key belongs to, if it is one.
    fn account_of(&self, public_key: &[u8]) -> Option<String>;
}

/// The chain behind a node's RPC.
#[derive(Debug)]
pub struct NodeChain {
    client: Client,
    timeout: Duration,
    /// What signatures start with never changes.
    domain: OnceCell<Domain>,
}

/// A provider has at most 32 deployments; a page has at most 30.
const DEPLOYMENT_PAGES_MAX: usize = 2;
const PAGE: u32 = 30;

impl NodeChain {
    /// `timeout` bounds each question.
    pub fn new(client: Client, timeout: Duration) -> Self {
        Self {
            client,
            timeout,
            domain: OnceCell::new(),
        }
    }

    async fn ask<Q: Serialize + Sync, R: DeserializeOwned>(&self, contract: &str, query: &Q) -> Result<R, ChainError> {
        self.in_time(self.client.query(contract, query)).await
    }

    async fn in_time<R>(&self, answer: impl Future<Output = Result<R, ClientError>>) -> Result<R, ChainError> {
        match tokio::time::timeout(self.timeout, answer).await {
            Ok(answer) => answer.map_err(ChainError::from),
            Err(_) => Err(ChainError::Unreachable {
                reason: format!("no answer after {} s", self.timeout.as_secs()),
            }),
        }
    }

    async fn orchestrator<R: DeserializeOwned>(&self, query: &orchestrator::QueryMsg) -> Result<R, ChainError> {
        self.ask(&self.client.contracts().job_orchestrator, query).await
    }

    async fn ask_domain(&self) -> Result<Domain, ChainError> {
        let config: orchestrator::ConfigResponse = self.orchestrator(&orchestrator::QueryMsg::Config {}).await?;
        Ok(config.domain)
    }

    async fn staking<R: DeserializeOwned>(&self, query: &staking::QueryMsg) -> Result<R, ChainError> {
        self.ask(&self.client.contracts().provider_staking, query).await
    }
}

impl From<ClientError> for ChainError {
    fn from(error: ClientError) -> Self {
        let reason = error.to_string();
        match error.is_transient() {
            true => Self::Unreachable { reason },
            false => Self::Refused { reason },
        }
    }
}

impl Chain for NodeChain {
    fn assignment(&self, item: ItemId) -> BoxFuture<'_, Result<Assignment, ChainError>> {
        Box::pin(async move {
            let found: orchestrator::ItemResponse = self.orchestrator(&orchestrator::QueryMsg::Item { item }).await?;
            let job: orchestrator::JobResponse = self
                .orchestrator(&orchestrator::QueryMsg::Job { job: item.job })
                .await?;
            let domain = self.domain.get_or_try_init(|| self.ask_domain()).await?;
            let Some(shard) = job.shards.get(usize::from(item.shard)) else {
                return Err(ChainError::Refused {
                    reason: format!("job {} has no shard {}", item.job, item.shard),
                });
            };
            Ok(Assignment {
                domain: domain.clone(),
                item,
                attempt: found.attempt,
                open: matches!(found.status, ItemStatus::Assigned {}),
                developer: job.developer,
                model: job.model,
                version: job.version,
                endpoint: job.endpoint,
                manifest: job.manifest,
                rows: shard.rows,
                root: shard.root,
                units_max: job.units_max,
                engine_class: found.engine_class,
                spans: found.spans,
                deadline: found.deadline,
                evidence_until: found.evidence_until,
            })
        })
    }

    fn input(&self, job: u64, shard: u16) -> BoxFuture<'_, Result<Vec<Vec<u8>>, ChainError>> {
        Box::pin(async move {
            let input: orchestrator::InputResponse =
                self.orchestrator(&orchestrator::QueryMsg::Input { job, shard }).await?;
            Ok(input.rows.into_iter().map(|row| row.to_vec()).collect())
        })
    }

    fn deployments<'a>(&'a self, provider: &'a str) -> BoxFuture<'a, Result<Vec<DeploymentResponse>, ChainError>> {
        Box::pin(async move {
            let mut all: Vec<DeploymentResponse> = Vec::new();
            for _ in 0..DEPLOYMENT_PAGES_MAX {
                let query = staking::QueryMsg::Deployments {
                    provider: Some(provider.to_owned()),
                    start_after: all.last().map(|last| last.deployment),
                    limit: Some(PAGE),
                };
                let page: staking::DeploymentsResponse = self.staking(&query).await?;
                let full = page.deployments.len() >= 30;
                all.extend(page.deployments);
                if !full {
                    break;
                }
            }
            Ok(all)
        })
    }

    fn version<'a>(&'a self, model: &'a ModelId, version: u32) -> BoxFuture<'a, Result<ModelVersion, ChainError>> {
        Box::pin(async move {
            let query = registry::QueryMsg::Version {
                model: model.clone(),
                version,
            };
            let found: registry::VersionResponse = self.ask(&self.client.contracts().model_registry, &query).await?;
            Ok(ModelVersion {
                manifest: found.manifest,
                stages: found.stages.into_iter().map(|stage| stage.digest).collect(),
            })
        })
    }

    fn endpoint<'a>(&'a self, provider: &'a str) -> BoxFuture<'a, Result<String, ChainError>> {
        Box::pin(async move {
            let query = staking::QueryMsg::Provider {
                provider: provider.to_owned(),
            };
            let found: staking::ProviderResponse = self.staking(&query).await?;
            Ok(found.profile.endpoint)
        })
    }

    fn time(&self) -> BoxFuture<'_, Result<BlockTime, ChainError>> {
        Box::pin(async move {
            let status = self.in_time(self.client.status()).await?;
            Ok(BlockTime {
                height: status.height,
                unix_millis: status.time_nanos / 1_000_000,
            })
        })
    }

    fn session(&self, session: u64) -> BoxFuture<'_, Result<OpenedSession, ChainError>> {
        Box::pin(async move {
            let (network, query) = (self.client.network(), escrow::QueryMsg::Session { session });
            let session = self.ask(&network.contracts.royalty_escrow, &query).await?;
            let domain = Domain {
                chain_id: network.chain_id.clone(),
                contract: network.contracts.royalty_escrow.clone(),
            };
            Ok(OpenedSession { domain, session })
        })
    }

    fn account_of(&self, public_key: &[u8]) -> Option<String> {
        client::address_of(public_key, &self.client.network().bech32_prefix).ok()
    }
}
