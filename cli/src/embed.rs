//! `fxn embed`: a file of texts to vectors, over as many jobs as it takes.

mod in_session;

use std::{collections::BTreeSet, fmt, path::PathBuf, time::Duration};

use anyhow::ensure;
use clap::Args;
use client::Account;
use inference_host::request::Format;
use schema::{orchestrator::JobResponse, registry::OfferResponse, ModelId};
use serde::Serialize;

use crate::{
    amount::Func,
    context::Context,
    job::OrderFlags,
    output::{counted, Table},
    progress::Progress,
    refusal::unless_interrupted,
    work::{
        order::{self, Batch, Order, Quote},
        prepare::Reader,
        rows::{self, Row},
        shards,
        supply::Supply,
        texts,
    },
};

/// Beyond the date at which the chain itself gives a job up.
const PATIENCE_SECONDS: u64 = 60;
/// Values of each vector that people are shown.
const SHOWN: usize = 4;

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  fxn embed --model demo/all-minilm-l6-v2 sentences.txt --output json\n  echo 'one sentence' | fxn embed --model demo/all-minilm-l6-v2 -\n  fxn embed --model demo/all-minilm-l6-v2 sentences.txt --session\n  fxn embed --model demo/all-minilm-l6-v2 --session 7 sentences.txt\n\nOne text a line, or a JSON array of strings. Nothing is deposited: `fxn wallet deposit` does that."
)]
pub(crate) struct Embed {
    #[command(flatten)]
    order: OrderFlags,
    /// Off the chain, in this session; without a number in one of yours that fits, or a new one
    #[arg(long, value_name = "ID", num_args = 0..=1, conflicts_with_all = ["replicas", "deadline", "chain"])]
    session: Option<Option<u64>>,
    /// File of texts; - is stdin
    #[arg(default_value = "-")]
    file: PathBuf,
}

/// The answer. Its JSON is a promise.
#[derive(Debug, Serialize)]
pub(crate) struct Embedded {
    pub(crate) model: ModelId,
    /// One vector a text, in the order of the input.
    pub(crate) embeddings: Vec<Vec<f32>>,
    /// Tokens of each text after truncation, special tokens included.
    pub(crate) tokens: Vec<u64>,
    /// Paid for everything, in ufunc.
    pub(crate) price: Func,
    /// Accounts that did the work.
    pub(crate) providers: Vec<String>,
    /// The jobs on chain.
    pub(crate) jobs: Vec<u64>,
    /// The session, if it was done in one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) session: Option<u64>,
}

impl fmt::Display for Embedded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_vectors(f, &self.embeddings)?;
        let tokens = self
            .tokens
            .iter()
            .fold(0_u64, |sum, tokens| sum.saturating_add(*tokens));
        let texts = counted(self.embeddings.len(), "text");
        let providers = counted(self.providers.len(), "provider");
        let place = match self.session {
            Some(session) => format!("session {session}"),
            None => counted(self.jobs.len(), "job"),
        };
        let price = self.price;
        write!(
            f,
            "\n{texts}, {tokens} tokens, {price} FUNC to {providers} and the creators, {place}"
        )
    }
}

/// Vectors as people want to see them: the beginning of each.
pub(crate) fn write_vectors(f: &mut fmt::Formatter<'_>, vectors: &[Vec<f32>]) -> fmt::Result {
    let mut table = Table::new([">text", ">values", "begins with"]);
    for (vector, number) in vectors.iter().zip(1_u64..) {
        let first: Vec<_> = vector.iter().take(SHOWN).map(|value| format!("{value:+.6}")).collect();
        table.row([number.to_string(), vector.len().to_string(), first.join(" ")]);
    }
    write!(f, "{table}")
}

pub(crate) async fn run(context: &Context, embed: Embed) -> anyhow::Result<()> {
    let texts = texts::read(&embed.file)?;
    let progress = Progress::for_people();
    let order = embed.order.order();
    if let Some(wanted) = embed.session {
        let work = in_session::embedded(context, &order, wanted, &texts, &progress);
        let embedded =
            unless_interrupted(work, || "what was delivered is paid, what was not is not".to_owned()).await?;
        progress.finish();
        return context.output.print(&embedded);
    }
    let account = context.account().await?;
    let work = embedded(&account, &order, &texts, &progress);
    let embedded = unless_interrupted(work, || progress.goes_on()).await?;
    progress.finish();
    context.output.print(&embedded)
}

/// A job to be, and what it may cost.
#[derive(Debug)]
struct Planned {
    batch: Batch,
    quote: Quote,
}

async fn embedded(account: &Account, order: &Order, texts: &[String], progress: &Progress) -> anyhow::Result<Embedded> {
    let client = account.client();
    progress.step("asking the market");
    let offer = order::offer(client, order).await?;
    let endpoint = &order.endpoint;
    ensure!(
        Format::of(endpoint)? == Format::Text,
        "endpoint {endpoint} takes tensors, not texts: `fxn job submit --endpoint {endpoint} --input FILE.safetensors`"
    );
    let rows = &rows::of_texts(texts);
    let reader = Reader::open(client, &order.model, &offer).await?;
    let weights = reader.weights(Format::Text, rows)?;
    let supply = Supply::of(client, order, &offer).await?;
    let limits = supply.limits(order, &offer, &weights)?;
    let mut planned = plan(account, order, &offer, shards::cut(&weights, limits), &weights).await?;
    let sum = |part: fn(&Quote) -> Func| {
        let parts = planned.iter().map(|planned| part(&planned.quote).0);
        Func(parts.fold(0, u128::saturating_add))
    };
    let (likely, most) = (sum(|quote| quote.likely), sum(|quote| quote.most));
    let (number, jobs) = (counted(texts.len(), "text"), counted(planned.len(), "job"));
    progress.step(&format!("{number} in {jobs}: about {likely} FUNC, at most {most}"));
    order::check_funds(account, most).await?;

    let mut answer = Embedded {
        model: order.model.clone(),
        embeddings: vec![],
        tokens: weights.iter().map(|weight| weight.units).collect(),
        price: Func(0),
        providers: vec![],
        jobs: vec![],
        session: None,
    };
    let mut providers = BTreeSet::new();
    let count = planned.len();
    for (planned, number) in planned.drain(..).zip(1_usize..) {
        let shards = counted(planned.batch.shards.len(), "shard");
        progress.step(&format!("job {number} of {count}: {shards} at work"));
        let job = carry_out(account, order, &offer, &planned, rows, progress).await?;
        let results = reader.results(account, &job).await?;
        answer.embeddings.extend(results.embeddings()?);
        answer.price = Func(answer.price.0.saturating_add(job.paid.u128()));
        answer.jobs.push(job.job);
        providers.extend(results.providers);
    }
    answer.providers = providers.into_iter().collect();
    ensure!(
        answer.embeddings.len() == texts.len(),
        "{} texts became {} vectors",
        texts.len(),
        answer.embeddings.len()
    );
    Ok(answer)
}

/// Cuts the shards into jobs that find supply. Where slots are few, jobs are small and follow one another.
async fn plan(
    account: &Account,
    order: &Order,
    offer: &OfferResponse,
    shards: Vec<std::ops::Range<usize>>,
    weights: &[shards::Weight],
) -> anyhow::Result<Vec<Planned>> {
    let client = account.client();
    let mut size = shards::shards_per_job(order.replicas, offer.stages.len());
    let mut rest = shards.as_slice();
    let mut planned = vec![];
    while !rest.is_empty() {
        let (first, others) = rest.split_at(size.min(rest.len()));
        let batch = Batch::of(first.to_vec(), weights);
        let quote = match order::quote(client, order, offer, &batch).await? {
            None if first.len() > 1 => {
                size = first.len() / 2;
                continue;
            }
            None => order::patient_quote(client, order, offer, &batch).await?,
            Some(quote) => quote,
        };
        planned.push(Planned { batch, quote });
        rest = others;
    }
    Ok(planned)
}

async fn carry_out(
    account: &Account,
    order: &Order,
    offer: &OfferResponse,
    planned: &Planned,
    rows: &[Row],
    progress: &Progress,
) -> anyhow::Result<JobResponse> {
    let client = account.client();
    let Planned { batch, quote } = planned;
    // Others may have taken the slots since the quote.
    order::patient_quote(client, order, offer, batch).await?;
    let call = order::submit_call(client, order, offer.version, batch, quote.most, rows)?;
    let submitted = order::submit(account, call).await?;
    progress.at_work(submitted.job);
    let found = client.orchestrator().job(submitted.job).await?;
    let life = found.expires_at.saturating_sub(found.submitted_at);
    let patience = Duration::from_secs(life.saturating_add(PATIENCE_SECONDS));
    order::wait(client, submitted.job, patience, |_| ()).await
}
