//! Publishing a bundle: claim the namespace if it is free, create the model if it is new, add the version, set the endpoint.

use std::{fmt, fs, path::PathBuf, str::FromStr};

use anyhow::{bail, ensure, Context as _};
use clap::Args;
use client::Account;
use inference_host::request::Format;
use partition::Manifest;
use schema::{
    registry::{Metadata, Parent, Share, Task},
    Digest, ModelId, Namespace, BPS,
};

use super::{
    manage::Terms,
    publication::{claim_call, claim_fee, read_manifest, version_of, Publication},
};
use crate::{
    context::Context,
    wallet::{check_address, check_balance},
};

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

pub(crate) async fn run(context: &Context, publish: Publish) -> anyhow::Result<()> {
    let (manifest, digest) = read_manifest(&publish.bundle)?;
    check_endpoint(&manifest, &publish.terms.endpoint)?;
    for uri in &publish.uris {
        ensure!(
            uri.starts_with("http://") || uri.starts_with("https://"),
            "{uri:?} is no place to fetch a bundle: --uri takes http:// or https:// URLs"
        );
    }
    let account = context.account().await?;
    for part in &publish.about.payout {
        check_address(&part.who, &account.client().network().bech32_prefix)?;
    }
    claim(context, &account, &publish.model.namespace()).await?;
    let publication = publication(&publish, &manifest, digest)?;
    let published = publication.publish(&account).await?;
    let sentence = format!(
        "Published {} version {} with manifest {digest}.",
        published.model, published.version
    );
    context.output.done(&published, sentence)
}

/// Refuses an endpoint at which nobody could ever be served: its name says what its rows are.
fn check_endpoint(manifest: &Manifest, endpoint: &str) -> anyhow::Result<()> {
    let format = Format::of(endpoint)?;
    if format == Format::Text && manifest.tokenizer.is_none() {
        bail!(
            "endpoint {endpoint} takes texts, and the bundle has no tokenizer: name another one, \
             for example --endpoint classify --unit request"
        );
    }
    if format == Format::Tensors && manifest.task == "embeddings" {
        bail!(
            "endpoint {endpoint} takes tensors, and the chain takes nothing but texts for a model whose task is embeddings: \
             split it with another --task"
        );
    }
    Ok(())
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
    check_balance(account, fee).await?;
    account.execute(&[claim_call(client, namespace, fee)?]).await?;
    Ok(())
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
