//! The end of a forced request, as blocks tell it: an answer that is fetched and verified, or what silence has cost.

use std::time::Duration;

use anyhow::{bail, Context as _};
use client::{events, Account};
use futures::StreamExt;
use schema::{
    escrow::{Reason, SessionResponse},
    orchestrator::JobStatus,
    Event,
};
use serde::Serialize;

use crate::{amount::Func, work::prepare::Reader};

/// Beyond the date after which nobody waits for an answer any more.
const PATIENCE_SECONDS: u64 = 60;

/// What a request has come to.
#[derive(Debug, Serialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub(super) enum Outcome {
    Answered {
        /// One vector a text, in the order of the input.
        embeddings: Vec<Vec<f32>>,
        /// Tokens of all texts together.
        tokens: u64,
        /// For the work and for the gas of an answer, in ufunc.
        price: Func,
        /// Accounts that did the work.
        providers: Vec<String>,
    },
    Missed {
        /// Who had its input and did not deliver.
        deployment: u64,
        provider: String,
        /// To the owner, in ufunc.
        penalty: Func,
        /// Of what was held, in ufunc.
        refunded: Func,
    },
    /// Nobody is known to be guilty.
    Failed {
        /// Of what was held, in ufunc.
        refunded: Func,
    },
}

/// What the blocks have told of it so far.
#[derive(Debug, Default)]
struct Told {
    missed: Option<u64>,
    penalty: u128,
    refunded: u128,
    fee: u128,
    has_ended: bool,
}

impl Told {
    fn hear(&mut self, job: u64, event: Event) {
        match event {
            // What of it is the owner's: who has expired the request has a part.
            Event::Credited {
                reason: Reason::Penalty,
                item: Some(item),
                amount,
                ..
            } if item.job == job => self.penalty = amount.u128(),
            Event::HoldReleased { job: ended, amount, .. } if ended == job => {
                self.refunded = self.refunded.saturating_add(amount.u128());
            }
            Event::ForcedEnded { job: ended, missed, .. } if ended == job => self.missed = missed,
            // Of the transaction that ends it: one request of a session at a time.
            Event::Credited {
                reason: Reason::Answer,
                amount,
                ..
            } => self.fee = amount.u128(),
            Event::JobEnded { job: ended, .. } if ended == job => self.has_ended = true,
            _ => {}
        }
    }
}

/// Follows the job from the block that it stands in. `life`: seconds after which nobody is blamed any more.
pub(super) async fn end(
    account: &Account,
    session: &SessionResponse,
    job: u64,
    height: u64,
    life: u64,
) -> anyhow::Result<Outcome> {
    let patience = life.saturating_add(PATIENCE_SECONDS);
    let told = tokio::time::timeout(Duration::from_secs(patience), listen(account, job, height)).await;
    let Ok(told) = told else {
        bail!("job {job} has not ended after {patience} s; `fxn job watch {job}` follows it");
    };
    let told = told?;
    let refunded = Func(told.refunded);
    if let Some(deployment) = told.missed {
        let mut allocations = session.allocations.iter();
        let found = allocations.find(|it| it.deployment == deployment);
        return Ok(Outcome::Missed {
            deployment,
            provider: found.map_or_else(String::new, |it| it.provider.clone()),
            penalty: Func(told.penalty),
            refunded,
        });
    }
    match account.client().orchestrator().job(job).await?.status {
        JobStatus::Completed => fetch(account, job, told.fee).await,
        _ => Ok(Outcome::Failed { refunded }),
    }
}

async fn listen(account: &Account, job: u64, height: u64) -> anyhow::Result<Told> {
    let client = account.client();
    let mut blocks = events::follow(client.clone(), client.contracts().addresses(), height);
    loop {
        let block = blocks.next().await.context("the stream of blocks has ended")??;
        for tx in block.txs {
            let mut told = Told::default();
            for emitted in tx.events {
                told.hear(job, emitted.event);
            }
            if told.has_ended {
                return Ok(told);
            }
        }
    }
}

async fn fetch(account: &Account, job: u64, fee: u128) -> anyhow::Result<Outcome> {
    let client = account.client();
    let found = client.orchestrator().job(job).await?;
    let items = client.orchestrator().all_items(job).await?;
    let results = Reader::of_job(client, &found).await?.results(account, &found).await;
    let results = results.with_context(|| {
        format!("job {job} is answered, but its output cannot be fetched now; `fxn job result {job}` tries again")
    })?;
    let units = items.iter().filter_map(crate::work::results::result_of);
    Ok(Outcome::Answered {
        embeddings: results.embeddings()?,
        tokens: units.fold(0, |sum, result| sum.saturating_add(result.units.units_in)),
        price: Func(found.paid.u128().saturating_add(fee)),
        providers: results.providers.into_iter().collect(),
    })
}
