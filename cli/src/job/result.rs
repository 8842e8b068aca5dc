//! Results of a job, verified.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use anyhow::{bail, ensure, Context as _};
use clap::Args;
use inference_host::request::{encode_tensors, Format};
use schema::{orchestrator::JobStatus, ModelId};
use serde::Serialize;

use super::{
    status,
    tensors::{write_rows, NamedTensors},
};
use crate::{amount::Func, context::Context, embed, work::prepare::Reader};

#[derive(Debug, Args)]
pub(crate) struct Wanted {
    /// Number of the job
    job: u64,
    /// Also write the outputs of each row into this folder, as row-1.safetensors and so on
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

/// Verified results of a job.
#[derive(Debug, Serialize)]
struct Results {
    job: u64,
    model: ModelId,
    endpoint: String,
    status: &'static str,
    price: Func,
    #[serde(flatten)]
    answers: Answers,
    /// Names of the classes, for people.
    #[serde(skip)]
    labels: Vec<String>,
}

/// One answer a row, in the order of the input.
#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
enum Answers {
    /// Of texts.
    Embeddings(Vec<Vec<f32>>),
    /// Of tensors: all outputs of the graph, by name.
    Rows(Vec<NamedTensors>),
}

impl fmt::Display for Results {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (count, what) = match &self.answers {
            Answers::Embeddings(vectors) => (vectors.len(), "embeddings"),
            Answers::Rows(rows) => (rows.len(), "rows"),
        };
        writeln!(
            f,
            "job {} of {}, {}: {count} {what}, verified against the chain; {} FUNC",
            self.job, self.model, self.status, self.price
        )?;
        match &self.answers {
            Answers::Embeddings(vectors) => embed::write_vectors(f, vectors),
            Answers::Rows(rows) => write_rows(f, rows, &self.labels),
        }
    }
}

pub(super) async fn result(context: &Context, wanted: &Wanted) -> anyhow::Result<()> {
    let job = wanted.job;
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
    let reader = Reader::of_job(client, &found).await?;
    let results = reader.results(&account, &found).await?;
    if let Some(folder) = &wanted.out {
        write_files(folder, &reader, &results.rows)?;
    }
    let (answers, labels) = match Format::of(&found.endpoint)? {
        Format::Text => (Answers::Embeddings(results.embeddings()?), vec![]),
        Format::Tensors => {
            let named = |row| NamedTensors::new(reader.outputs(), row);
            (
                Answers::Rows(results.rows.into_iter().map(named).collect()),
                reader.labels().await,
            )
        }
    };
    context.output.print(&Results {
        job,
        model: found.model,
        endpoint: found.endpoint,
        status: status(found.status),
        price: found.paid.into(),
        answers,
        labels,
    })
}

/// One safetensors file a row. Nothing that is there already is touched.
fn write_files(folder: &Path, reader: &Reader, rows: &[partition::Row]) -> anyhow::Result<()> {
    std::fs::create_dir_all(folder).with_context(|| format!("failed to make the folder {}", folder.display()))?;
    let paths: Vec<PathBuf> = (1..=rows.len())
        .map(|number| folder.join(format!("row-{number}.safetensors")))
        .collect();
    if let Some(there) = paths.iter().find(|path| path.exists()) {
        bail!("{} is there already; nothing was written", there.display());
    }
    for (row, path) in rows.iter().zip(&paths) {
        let bytes = encode_tensors(row, reader.outputs())?;
        std::fs::write(path, bytes).with_context(|| format!("failed to write {}", path.display()))?;
    }
    ensure!(!rows.is_empty(), "the job has no rows");
    Ok(())
}
