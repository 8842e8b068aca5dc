//! Results of a job, verified.

use std::fmt;

use anyhow::bail;
use schema::{orchestrator::JobStatus, ModelId};
use serde::Serialize;

use super::status;
use crate::{amount::Func, context::Context, embed, work::prepare::Reader};

/// Verified results of a job.
#[derive(Debug, Serialize)]
struct Results {
    job: u64,
    model: ModelId,
    status: &'static str,
    price: Func,
    embeddings: Vec<Vec<f32>>,
}

impl fmt::Display for Results {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "job {} of {}, {}: {} embeddings, verified against the chain; {} FUNC",
            self.job,
            self.model,
            self.status,
            self.embeddings.len(),
            self.price
        )?;
        embed::write_vectors(f, &self.embeddings)
    }
}

pub(super) async fn result(context: &Context, job: u64) -> anyhow::Result<()> {
    let account = context.account().await?;
    let client = account.client();
    let found = client.orchestrator().job(job).await?;
    if found.status == JobStatus::Running {
        bail!("job {job} is still at work; `fxn job watch {job}` follows it");
    }
    if found.developer != account.address() {
        bail!(
            "job {job} belongs to {}, and its hosts give its results to nobody else",
            found.developer
        );
    }
    let results = Reader::of_job(client, &found).await?.results(&account, &found).await?;
    context.output.print(&Results {
        job,
        model: found.model,
        status: status(found.status),
        price: found.paid.into(),
        embeddings: results.embeddings,
    })
}
