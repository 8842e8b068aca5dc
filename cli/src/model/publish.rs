//! Publishing a bundle: claim the namespace if it is free, create the model if it is new, add the version, set the endpoint.

use std::{fmt, fs, path::Path, path::PathBuf, str::FromStr};

use anyhow::{bail, Context as _};
use clap::Args;
use client::{Account, Call, Client, ClientError};
use cosmwasm_std::Decimal;
use partition::{Bundle, Manifest};
use schema::{
    registry::{
        self, ConfigResponse, EndpointTerms, ExecuteMsg, Metadata, ModelResponse, NamespaceResponse, NewVersion,
        Parent, ReceiveMsg, Share, StageInfo, Task,
    },
    Digest, Event, ModelId, Namespace, BPS,
};
use serde::Serialize;

use super::manage::Terms;
use crate::{amount::Func, context::Context, market};

/// A manifest beyond this is no manifest that anybody would fetch.
pub(crate) const MANIFEST_BYTES_MAX: u64 = 16 << 20;

#[derive(Debug, Args)]
pub(crate) struct Publish {
    /// Folder that `fxn model split` made
    bundle: PathBuf,
    /// namespace/name
    #[arg(long)]
    model: ModelId,
    #[command(flatten)]
    terms: Terms,
    #[command(flatten)]
    about: About,
    /// Where the bundle may be fetched, at most 4 times
    #[arg(long = "uri", value_name = "URL")]
    uris: Vec<String>,
}

/// What is told about a new model. It is ignored for further versions of a model.
#[derive(Debug, Clone, Args)]
pub(crate) struct About {
    /// Title [default: the name]
    #[arg(long)]
    title: Option<String>,
    /// Description
    #[arg(long, default_value = "")]
    description: String,
    /// SPDX licence expression
    #[arg(long, default_value = "Apache-2.0")]
    licence: String,
    /// A tag, at most 8 times
    #[arg(long = "tag", value_name = "TAG")]
    tags: Vec<String>,
    /// Homepage
    #[arg(long, value_name = "URL")]
    homepage: Option<String>,
    /// Model card; its digest is published
    #[arg(long, value_name = "FILE")]
    card: Option<PathBuf>,
    /// Who gets the royalty, ADDRESS=BPS; all of them sum to 10000 [default: all to the key's account]
    #[arg(long = "payout", value_name = "ADDRESS=BPS")]
    payout: Vec<Part<String>>,
    /// A model that this one stands on and its part of the royalty, NAMESPACE/NAME=BPS
    #[arg(long = "parent", value_name = "MODEL=BPS")]
    parents: Vec<Part<ModelId>>,
}

/// `WHO=BPS`.
#[derive(Debug, Clone)]
pub(crate) struct Part<T> {
    who: T,
    bps: u16,
}

impl<T: FromStr> FromStr for Part<T>
where
    T::Err: fmt::Display,
{
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (who, bps) = text
            .rsplit_once('=')
            .ok_or("write WHO=BPS, for example wasm1...=2500")?;
        let bps = bps.parse().ok().filter(|bps| (1..=BPS).contains(bps));
        Ok(Self {
            who: who.parse().map_err(|error: T::Err| error.to_string())?,
            bps: bps.ok_or("the part is 1 to 10000 hundredths of a per cent")?,
        })
    }
}

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

pub(crate) async fn run(context: &Context, publish: Publish) -> anyhow::Result<()> {
    let (manifest, digest) = read_manifest(&publish.bundle)?;
    let account = context.account().await?;
    claim(context, &account, &publish.model.namespace()).await?;
    let publication = publication(&publish, &manifest, digest)?;
    let published = publication.publish(&account).await?;
    let sentence = format!(
        "Published {} version {} with manifest {digest}.",
        published.model, published.version
    );
    context.output.done(&published, sentence)
}

fn publication(publish: &Publish, manifest: &Manifest, digest: Digest) -> anyhow::Result<Publication> {
    let about = &publish.about;
    let card = about.card.as_ref().map(|path| {
        let text = fs::read(path).with_context(|| format!("failed to read the model card {}", path.display()));
        text.map(|text| Digest::of(&text))
    });
    let share = |part: &Part<String>| Share {
        address: part.who.clone(),
        bps: part.bps,
    };
    let parent = |part: &Part<ModelId>| Parent {
        model: part.who.clone(),
        bps: part.bps,
    };
    Ok(Publication {
        metadata: Metadata {
            title: about.title.clone().unwrap_or_else(|| publish.model.to_string()),
            description: about.description.clone(),
            task: task(&manifest.task),
            licence: about.licence.clone(),
            tags: about.tags.clone(),
            homepage: about.homepage.clone(),
            card: card.transpose()?,
        },
        payout: about.payout.iter().map(share).collect(),
        parents: about.parents.iter().map(parent).collect(),
        version: Some(version_of(manifest, digest, publish.uris.clone())?),
        endpoint: Some((publish.terms.endpoint.clone(), publish.terms.terms())),
        model: publish.model.clone(),
    })
}

fn task(name: &str) -> Task {
    match name {
        "text-generation" => Task::TextGeneration,
        "embeddings" => Task::Embeddings,
        "classification" => Task::Classification,
        "image" => Task::Image,
        "audio" => Task::Audio,
        _ => Task::Other,
    }
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

/// Makes sure that the account owns the namespace; claims it if nobody does, after asking.
async fn claim(context: &Context, account: &Account, namespace: &Namespace) -> anyhow::Result<()> {
    let client = account.client();
    let Some(fee) = claim_fee(account, namespace).await? else {
        return Ok(());
    };
    let question = format!("Nobody owns the namespace {namespace}. Claim it for {fee} FUNC, which are burnt?");
    if !context.confirm(&question)? {
        bail!("nothing was published: {namespace} belongs to nobody yet");
    }
    account.execute(&[claim_call(client, namespace, fee)?]).await?;
    Ok(())
}

/// What claiming the namespace costs; None if the account owns it already.
pub(crate) async fn claim_fee(account: &Account, namespace: &Namespace) -> anyhow::Result<Option<Func>> {
    let client = account.client();
    let query = registry::QueryMsg::Namespace {
        namespace: namespace.clone(),
    };
    let found: NamespaceResponse = market::registry(client, &query).await?;
    match found.owner {
        Some(owner) if owner == account.address() => Ok(None),
        Some(owner) => bail!("the namespace {namespace} belongs to {owner}"),
        None => {
            let config: ConfigResponse = market::registry(client, &registry::QueryMsg::Config {}).await?;
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
    match market::registry(client, &registry::QueryMsg::Model { model: model.clone() }).await {
        Ok(model) => Ok(Some(model)),
        Err(ClientError::QueryRefused { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_who_and_how_much() {
        let part: Part<ModelId> = "demo/parent=2000".parse().unwrap();
        assert_eq!((part.who.as_str(), part.bps), ("demo/parent", 2000));
        for bad in [
            "demo/parent",
            "demo/parent=",
            "demo/parent=0",
            "demo/parent=10001",
            "demo=5",
            "=5",
        ] {
            assert!(bad.parse::<Part<ModelId>>().is_err(), "{bad}");
        }
    }
}
