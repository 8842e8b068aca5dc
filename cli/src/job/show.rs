//! Jobs and their items as anybody sees them.

use std::{fmt, time::Duration};

use anyhow::{bail, Context as _};
use clap::Args;
use client::events;
use futures::StreamExt;
use schema::{
    orchestrator::{ItemResponse, ItemStatus, JobResponse, JobStatus},
    Event,
};
use serde::Serialize;

use crate::{
    amount::Func,
    context::Context,
    output::{write_out, Format, Table},
    refusal::unless_interrupted,
    work::order,
};

/// Longest watch: no job lives longer on any profile.
const WATCH_SECONDS_MAX: u64 = 2 * 86_400;

#[derive(Debug, Args)]
pub(crate) struct List {
    /// Jobs of everybody
    #[arg(long)]
    all: bool,
    /// How many, at most 30
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=30))]
    limit: u32,
}

#[derive(Debug, Serialize)]
struct Shown {
    #[serde(flatten)]
    job: JobResponse,
    items: Vec<ItemResponse>,
}

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let job = &self.job;
        let [held, paid] = [job.held, job.paid].map(Func::from);
        writeln!(
            f,
            "job {}, {}: {} version {}, {}",
            job.job,
            status(job.status),
            job.model,
            job.version,
            job.endpoint
        )?;
        writeln!(
            f,
            "{} shards, {} replicas; {held} FUNC were held, {paid} are paid\n",
            job.shards.len(),
            job.replicas
        )?;
        let mut table = Table::new(["item", ">attempt", "status", ">units", ">paid FUNC", "providers"]);
        for item in &self.items {
            let (name, units, paid) = item_status(&item.status);
            let providers: Vec<_> = item
                .spans
                .iter()
                .map(|span| format!("{} ({}..{})", span.provider, span.first, span.last))
                .collect();
            table.row([
                item.item.to_string(),
                item.attempt.to_string(),
                name,
                units.map_or_else(String::new, |units| units.to_string()),
                paid.map_or_else(String::new, |paid| paid.to_string()),
                providers.join(" > "),
            ]);
            for past in &item.history {
                let told = format!("attempt {} failed: {:?}", past.attempt, past.blame);
                table.row([
                    String::new(),
                    past.attempt.to_string(),
                    told,
                    String::new(),
                    String::new(),
                    String::new(),
                ]);
            }
        }
        table.fmt(f)
    }
}

pub(crate) fn status(status: JobStatus) -> &'static str {
    match status {
        JobStatus::Running => "running",
        JobStatus::Completed => "completed",
        JobStatus::Incomplete => "incomplete",
    }
}

fn item_status(status: &ItemStatus) -> (String, Option<u64>, Option<Func>) {
    match status {
        ItemStatus::Assigned {} => ("at work".into(), None, None),
        ItemStatus::Attested { result } => ("attested".into(), Some(result.units.units_in), None),
        ItemStatus::AwaitingRound { round } => (format!("awaits round {round}"), None, None),
        ItemStatus::Settled { result, paid } => {
            ("settled".into(), Some(result.units.units_in), Some(Func::from(*paid)))
        }
        ItemStatus::Disputed { result } => ("disputed".into(), Some(result.units.units_in), None),
        ItemStatus::Failed { reason } => (format!("failed: {reason:?}"), None, None),
    }
}

pub(super) async fn show(context: &Context, job: u64) -> anyhow::Result<()> {
    let client = context.client().await?;
    let shown = Shown {
        job: client.orchestrator().job(job).await?,
        items: client.orchestrator().all_items(job).await?,
    };
    context.output.print(&shown)
}

/// The job that an event is about.
fn job_of(event: &Event) -> Option<u64> {
    let value = serde_json::to_value(event).ok()?;
    let job = value.get("job").and_then(serde_json::Value::as_u64);
    job.or_else(|| value.get("item")?.get("job")?.as_u64())
}

pub(super) async fn watch(context: &Context, job: u64) -> anyhow::Result<()> {
    let goes_on =
        || format!("job {job} goes on without being watched; `fxn job result {job}` fetches what it comes to");
    unless_interrupted(follow(context, job), goes_on).await
}

async fn follow(context: &Context, job: u64) -> anyhow::Result<()> {
    let client = context.client().await?;
    let mut found = client.orchestrator().job(job).await?;
    if context.output == Format::Text && found.status == JobStatus::Running {
        let from = client.status().await?.height;
        let told = client.contracts().addresses();
        let mut blocks = events::follow(client.clone(), told, from.max(1));
        let patience = tokio::time::sleep(Duration::from_secs(WATCH_SECONDS_MAX));
        tokio::pin!(patience);
        loop {
            let block = tokio::select! {
                () = &mut patience => bail!("job {job} has not ended after {WATCH_SECONDS_MAX} s"),
                block = blocks.next() => block.context("the stream of blocks has ended")??,
            };
            let events = block.txs.iter().flat_map(|tx| &tx.events).map(|emitted| &emitted.event);
            let mut ended = false;
            for event in events.filter(|event| job_of(event) == Some(job)) {
                write_out(format!("{:>8}  {}\n", block.height, serde_json::to_string(event)?).as_bytes())?;
                ended |= matches!(event, Event::JobEnded { .. });
            }
            if ended || (block.txs.is_empty() && client.orchestrator().job(job).await?.status != JobStatus::Running) {
                break;
            }
        }
        found = client.orchestrator().job(job).await?;
    }
    if found.status == JobStatus::Running {
        found = order::wait(&client, job, Duration::from_secs(WATCH_SECONDS_MAX), |_| ()).await?;
    }
    let items = client.orchestrator().all_items(job).await?;
    context.output.print(&Shown { job: found, items })
}

#[derive(Debug, Serialize)]
#[serde(transparent)]
struct Jobs(Vec<JobResponse>);

impl fmt::Display for Jobs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return write!(f, "There are no jobs.");
        }
        let mut table = Table::new([
            ">job",
            "model",
            "status",
            ">shards",
            ">replicas",
            ">paid FUNC",
            "developer",
        ]);
        for job in &self.0 {
            table.row([
                job.job.to_string(),
                format!("{}@{}", job.model, job.version),
                status(job.status).to_owned(),
                job.shards.len().to_string(),
                job.replicas.to_string(),
                Func::from(job.paid).to_string(),
                job.developer.clone(),
            ]);
        }
        table.fmt(f)
    }
}

pub(super) async fn list(context: &Context, list: &List) -> anyhow::Result<()> {
    let developer = if list.all { None } else { Some(context.address()?) };
    let client = context.client().await?;
    let jobs = client
        .orchestrator()
        .jobs(developer.as_deref(), None, Some(list.limit))
        .await?;
    context.output.print(&Jobs(jobs))
}
