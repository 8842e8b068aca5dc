//! `fxn job`: the on-chain lane, step by step.

use std::{fmt, path::PathBuf, time::Duration};

use anyhow::{bail, Context as _};
use clap::{Args, Subcommand};
use client::events;
use futures::StreamExt;
use schema::{
    orchestrator::{self, ItemResponse, ItemStatus, JobResponse, JobStatus, JobsResponse},
    Event, ModelId,
};
use serde::Serialize;

use crate::{
    amount::Func,
    context::Context,
    market,
    output::{Format, Table},
    work::{
        order::{self, Batch, Order},
        prepare::Reader,
        shards::{self, Limits},
        texts,
    },
};

/// Longest watch: no job lives longer on any profile.
const WATCH_SECONDS_MAX: u64 = 2 * 86_400;

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Submit a file of texts as one job
    #[command(
        after_help = "Example:\n  fxn job submit --model demo/all-minilm-l6-v2 --input sentences.txt --shards 4 --replicas 2"
    )]
    Submit(Submit),
    /// A job and its items
    #[command(after_help = "Example:\n  fxn job show 7")]
    Show(Number),
    /// Follow a job until it has ended
    #[command(after_help = "Example:\n  fxn job watch 7")]
    Watch(Number),
    /// Fetch the results from the hosts, verify them against the chain and print them
    #[command(after_help = "Example:\n  fxn job result 7 --output json")]
    Result(Number),
    /// Jobs, newest first
    #[command(after_help = "Example:\n  fxn job list --all")]
    List(List),
}

#[derive(Debug, Args)]
pub(crate) struct Number {
    /// Number of the job
    job: u64,
}

#[derive(Debug, Args)]
pub(crate) struct List {
    /// Jobs of everybody
    #[arg(long)]
    all: bool,
    /// How many, at most 30
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=30))]
    limit: u32,
}

#[derive(Debug, Args)]
pub(crate) struct Submit {
    #[command(flatten)]
    order: OrderFlags,
    /// File of texts: one a line or a JSON array of strings; - is stdin
    #[arg(long, value_name = "FILE")]
    input: PathBuf,
    /// Parallel parts [default: as few as the limits allow]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=64))]
    shards: Option<u16>,
}

/// What is ordered, as flags.
#[derive(Debug, Clone, Args)]
pub(crate) struct OrderFlags {
    /// namespace/name
    #[arg(long)]
    pub(crate) model: ModelId,
    /// Version of the model [default: the newest]
    #[arg(long, value_name = "N")]
    pub(crate) model_version: Option<u32>,
    /// Endpoint of the model
    #[arg(long, default_value = "embeddings")]
    pub(crate) endpoint: String,
    /// Independent runs of each part, 1 to 3
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=3))]
    pub(crate) replicas: u8,
    /// Most that may be held for it, in FUNC [default: twice what the market asks now]
    #[arg(long, value_name = "FUNC")]
    pub(crate) max_price: Option<Func>,
    /// Run everything in this engine class
    #[arg(long, value_name = "CLASS")]
    pub(crate) engine_class: Option<String>,
    /// Only providers whose terms promise to be done in this time
    #[arg(long, value_name = "SECONDS")]
    pub(crate) deadline: Option<u64>,
}

impl OrderFlags {
    pub(crate) fn order(&self) -> Order {
        Order {
            model: self.model.clone(),
            version: self.model_version,
            endpoint: self.endpoint.clone(),
            engine_class: self.engine_class.clone(),
            replicas: self.replicas,
            deadline_seconds: self.deadline,
            max_price: self.max_price,
        }
    }
}

pub(crate) async fn run(context: &Context, command: Command) -> anyhow::Result<()> {
    match command {
        Command::Submit(submit) => submit_job(context, &submit).await,
        Command::Show(Number { job }) => show(context, job).await,
        Command::Watch(Number { job }) => watch(context, job).await,
        Command::Result(Number { job }) => result(context, job).await,
        Command::List(list) => list_jobs(context, &list).await,
    }
}

#[derive(Debug, Serialize)]
struct SubmittedJob {
    job: u64,
    shards: usize,
    replicas: u8,
    /// Held at submission, in ufunc.
    held: Func,
    height: u64,
}

async fn submit_job(context: &Context, submit: &Submit) -> anyhow::Result<()> {
    let texts = texts::read(&submit.input)?;
    let order = submit.order.order();
    let account = context.account().await?;
    let client = account.client();
    let offer = order::offer(client, &order).await?;
    let weights = Reader::open(client, &order.model, &offer).await?.weights(&texts)?;
    let cut = match submit.shards {
        Some(count) => shards::cut_into(&weights, count.into(), Limits::CHAIN),
        None => shards::cut(&weights, Limits::CHAIN),
    };
    let most = shards::shards_per_job(order.replicas, offer.stages.len());
    if cut.len() > most {
        bail!(
            "{} shards of {} replicas over {} stages are more than the {} runs of one job; `fxn embed` cuts a file into several jobs",
            cut.len(),
            order.replicas,
            offer.stages.len(),
            shards::RUNS_MAX
        );
    }
    let batch = Batch::of(cut, &weights);
    let quote = order::patient_quote(client, &order, &offer, &batch).await?;
    order::check_funds(&account, quote.most).await?;
    let call = order::submit_call(client, &order, offer.version, &batch, quote.most, &texts)?;
    let submitted = order::submit(&account, call).await?;
    let answer = SubmittedJob {
        job: submitted.job,
        shards: batch.shards.len(),
        replicas: order.replicas,
        held: quote.most,
        height: submitted.height,
    };
    let job = submitted.job;
    let sentence = format!(
        "Job {job} is at work; up to {} FUNC are held. `fxn job watch {job}` follows it.",
        quote.most
    );
    context.output.done(&answer, sentence)
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
        ItemStatus::Settled { result, paid } => {
            ("settled".into(), Some(result.units.units_in), Some(Func::from(*paid)))
        }
        ItemStatus::Disputed { result } => ("disputed".into(), Some(result.units.units_in), None),
        ItemStatus::Failed { reason } => (format!("failed: {reason:?}"), None, None),
    }
}

async fn show(context: &Context, job: u64) -> anyhow::Result<()> {
    let client = context.client().await?;
    let shown = Shown {
        job: market::job(&client, job).await?,
        items: market::items(&client, job).await?,
    };
    context.output.print(&shown)
}

/// The job that an event is about.
pub(crate) fn job_of(event: &Event) -> Option<u64> {
    let value = serde_json::to_value(event).ok()?;
    let job = value.get("job").and_then(serde_json::Value::as_u64);
    job.or_else(|| value.get("item")?.get("job")?.as_u64())
}

async fn watch(context: &Context, job: u64) -> anyhow::Result<()> {
    let client = context.client().await?;
    let mut found = market::job(&client, job).await?;
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
                println!("{:>8}  {}", block.height, serde_json::to_string(event)?);
                ended |= matches!(event, Event::JobEnded { .. });
            }
            if ended || (block.txs.is_empty() && market::job(&client, job).await?.status != JobStatus::Running) {
                break;
            }
        }
        found = market::job(&client, job).await?;
    }
    if found.status == JobStatus::Running {
        found = order::wait(&client, job, Duration::from_secs(WATCH_SECONDS_MAX), |_| ()).await?;
    }
    let items = market::items(&client, job).await?;
    context.output.print(&Shown { job: found, items })
}

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
        crate::embed::write_vectors(f, &self.embeddings)
    }
}

async fn result(context: &Context, job: u64) -> anyhow::Result<()> {
    let account = context.account().await?;
    let client = account.client();
    let found = market::job(client, job).await?;
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

async fn list_jobs(context: &Context, list: &List) -> anyhow::Result<()> {
    let developer = if list.all { None } else { Some(context.address()?) };
    let client = context.client().await?;
    let query = orchestrator::QueryMsg::Jobs {
        developer,
        start_before: None,
        limit: Some(list.limit),
    };
    let jobs: JobsResponse = market::orchestrator(&client, &query).await?;
    context.output.print(&Jobs(jobs.jobs))
}
