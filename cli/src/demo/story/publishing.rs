//! The story's models: a parent with its own payout rule, and its child with a bundle and a price.

use std::path::Path;

use anyhow::bail;
use client::Account;
use schema::{
    registry::{Parent, Share, Task},
    ModelId,
};

use super::Family;
use crate::{
    demo::{cast::Cast, plan},
    model::{claim_call, claim_fee, read_manifest, version_of, Publication},
};

/// Namespaces, the parent with its own payout rule, then the model with its bundle and price.
pub(super) async fn publish(cast: &Cast, bundle: &Path, uri: String) -> anyhow::Result<Family> {
    let (creator, research) = (&cast.creator.account, &cast.research.account);
    let parent: ModelId = format!(
        "{}/{}",
        own_namespace(research, plan::PARENT_NAMESPACE).await?,
        plan::PARENT
    )
    .parse()?;
    let share = |address: &str, bps| Share {
        address: address.to_owned(),
        bps,
    };
    let publication = Publication {
        model: parent.clone(),
        metadata: plan::metadata(
            "MiniLM base",
            "What the demonstration's model was distilled from.",
            Task::Other,
        ),
        payout: vec![
            share(research.address(), plan::RESEARCH_BPS),
            share(&cast.archive, plan::ARCHIVE_BPS),
        ],
        parents: vec![],
        version: None,
        endpoint: None,
    };
    publication.publish(research).await?;

    let (manifest, digest) = read_manifest(bundle)?;
    let model: ModelId = format!("{}/{}", own_namespace(creator, plan::NAMESPACE).await?, plan::MODEL).parse()?;
    let publication = Publication {
        model: model.clone(),
        metadata: plan::metadata(
            "all-MiniLM-L6-v2",
            "Sentences to 384 numbers; mean pooling, normalised.",
            Task::Embeddings,
        ),
        payout: vec![
            share(creator.address(), plan::CREATOR_BPS),
            share(&cast.designer, plan::DESIGNER_BPS),
        ],
        parents: vec![Parent {
            model: parent.clone(),
            bps: plan::LINEAGE_BPS,
        }],
        version: Some(version_of(&manifest, digest, vec![uri])?),
        endpoint: Some((plan::ENDPOINT.to_owned(), plan::endpoint())),
    };
    publication.publish(creator).await?;
    Ok(Family { model, parent })
}

/// Claims the namespace, or one like it where an earlier demonstration on the same network holds it.
async fn own_namespace(account: &Account, preferred: &str) -> anyhow::Result<String> {
    let suffix: String = account.address().chars().rev().take(6).collect();
    for name in [preferred.to_owned(), format!("{preferred}-{suffix}")] {
        let namespace = name.parse()?;
        if let Ok(Some(fee)) = claim_fee(account, &namespace).await {
            account
                .execute(&[claim_call(account.client(), &namespace, fee)?])
                .await?;
            return Ok(name);
        }
    }
    bail!("the namespace {preferred} is taken, and so is {preferred}-{suffix}")
}
