//! What a publication puts on chain, whoever asks for it.

use std::path::Path;

use anyhow::{bail, Context as _};
use client::{Account, Call, Client, ClientError};
use cosmwasm_std::Decimal;
use partition::{Bundle, Manifest};
use schema::{
    registry::{EndpointTerms, ExecuteMsg, Metadata, ModelResponse, NewVersion, Parent, ReceiveMsg, Share, StageInfo},
    Digest, Event, ModelId, Namespace, BPS,
};
use serde::Serialize;

use crate::amount::Func;

/// A manifest beyond this is no manifest that anybody would fetch.
pub(crate) const MANIFEST_BYTES_MAX: u64 = 16 << 20;

/// Everything that a publication puts on chain.
#[derive(Debug, Clone)]
pub(crate) struct Publication {
    pub(crate) model: ModelId,
    pub(crate) metadata: Metadata,
    /// Empty: all to the publisher.
    pub(crate) payout: Vec<Share>,
    pub(crate) parents: Vec<Parent>,
    /// None for a model that is only a parent.
    pub(crate) version: Option<NewVersion>,
    pub(crate) endpoint: Option<(String, EndpointTerms)>,
}

#[derive(Debug, Serialize)]
pub(crate) struct Published {
    pub(crate) model: ModelId,
    pub(crate) version: u32,
    pub(crate) created: bool,
    pub(crate) manifest: Option<Digest>,
    pub(crate) tx_hash: String,
    pub(crate) height: u64,
}

/// The manifest of a bundle and its digest.
pub(crate) fn read_manifest(bundle: &Path) -> anyhow::Result<(Manifest, Digest)> {
    let opened = Bundle::open(bundle).with_context(|| format!("{} is no bundle", bundle.display()))?;
    Ok((opened.manifest().clone(), Digest(opened.digest().to_bytes())))
}

/// What the chain keeps of a manifest.
pub(crate) fn version_of(
    manifest: &Manifest,
    digest: Digest,
    manifest_uris: Vec<String>,
) -> anyhow::Result<NewVersion> {
    let stage = |stage: &partition::Stage| -> anyhow::Result<StageInfo> {
        Ok(StageInfo {
            digest: Digest(stage.digest.to_bytes()),
            weight_bytes: stage.weight_bytes,
            compute_share_bps: u16::try_from(stage.compute_share_bps).context("a compute share above 10000")?,
        })
    };
    Ok(NewVersion {
        manifest: digest,
        manifest_uris,
        stages: manifest.stages.iter().map(stage).collect::<anyhow::Result<_>>()?,
        // Parts per billion: nine digits after the point.
        tolerance: Decimal::from_atomics(manifest.tolerance_ppb, 9).context("the tolerance is out of range")?,
        units_per_request_max: manifest.max_positions,
    })
}

/// What claiming the namespace costs; None if the account owns it already.
pub(crate) async fn claim_fee(account: &Account, namespace: &Namespace) -> anyhow::Result<Option<Func>> {
    let client = account.client();
    let found = client.registry().namespace(namespace).await?;
    match found.owner {
        Some(owner) if owner == account.address() => Ok(None),
        Some(owner) => bail!("the namespace {namespace} belongs to {owner}"),
        None => {
            let config = client.registry().config().await?;
            Ok(Some(config.params.namespace_fee.into()))
        }
    }
}

pub(crate) fn claim_call(client: &Client, namespace: &Namespace, fee: Func) -> Result<Call, ClientError> {
    let message = ReceiveMsg::ClaimNamespace {
        namespace: namespace.clone(),
    };
    let contracts = client.contracts();
    Call::cw20_send(&contracts.func_token, &contracts.model_registry, fee.0, &message)
}

impl Publication {
    /// Creates the model if it is new, then adds the version and sets the endpoint, all in one transaction.
    pub(crate) async fn publish(self, account: &Account) -> anyhow::Result<Published> {
        let client = account.client();
        let known = known(client, &self.model).await?;
        let created = known.is_none();
        let mut messages = vec![];
        if created {
            let to_publisher = || {
                vec![Share {
                    address: account.address().to_owned(),
                    bps: BPS,
                }]
            };
            messages.push(ExecuteMsg::PublishModel {
                model: self.model.clone(),
                metadata: self.metadata,
                payout: if self.payout.is_empty() {
                    to_publisher()
                } else {
                    self.payout
                },
                parents: self.parents,
            });
        }
        let manifest = self.version.as_ref().map(|version| version.manifest);
        messages.extend(self.version.map(|version| ExecuteMsg::PublishVersion {
            model: self.model.clone(),
            version,
        }));
        messages.extend(self.endpoint.map(|(endpoint, terms)| ExecuteMsg::SetEndpoint {
            model: self.model.clone(),
            endpoint,
            terms,
        }));
        let calls = messages
            .iter()
            .map(|message| Call::execute(&client.contracts().model_registry, message));
        let outcome = account.execute(&calls.collect::<Result<Vec<_>, _>>()?).await?;
        let mut events = outcome.events.iter().filter_map(|event| Event::from_wasm(event).ok()?);
        let version = events.find_map(|event| match event {
            Event::VersionPublished { version, .. } => Some(version),
            _ => None,
        });
        Ok(Published {
            model: self.model,
            version: version.unwrap_or_else(|| known.map_or(0, |model| model.versions)),
            created,
            manifest,
            tx_hash: outcome.hash.to_string(),
            height: outcome.height,
        })
    }
}

async fn known(client: &Client, model: &ModelId) -> anyhow::Result<Option<ModelResponse>> {
    match client.registry().model(model).await {
        Ok(model) => Ok(Some(model)),
        Err(ClientError::QueryRefused { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}
