//! Files as one job.

use std::path::PathBuf;

use anyhow::bail;
use clap::Args;
use inference_host::request::Format;
use serde::Serialize;

use super::OrderFlags;
use crate::{
    amount::Func,
    context::Context,
    work::{
        order::{self, Batch},
        prepare::Reader,
        rows,
        shards::{self, Limits},
    },
};

#[derive(Debug, Args)]
pub(crate) struct Submit {
    #[command(flatten)]
    order: OrderFlags,
    /// Endpoint embeddings: a file of texts, one a line or a JSON array of strings. Any other endpoint: a safetensors file with one row, or
    /// a folder of them. May be given several times; - is stdin
    #[arg(long = "input", value_name = "FILE", required = true)]
    inputs: Vec<PathBuf>,
    /// Parallel parts [default: as few as the limits allow]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=64))]
    shards: Option<u16>,
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

pub(super) async fn submit(context: &Context, submit: &Submit) -> anyhow::Result<()> {
    let order = submit.order.order();
    let account = context.account().await?;
    let client = account.client();
    let offer = order::offer(client, &order).await?;
    let format = Format::of(&order.endpoint)?;
    let rows = rows::read(format, &submit.inputs)?;
    let reader = Reader::open(client, &order.model, &offer).await?;
    let weights = reader.weights(format, &rows)?;
    let cut = match submit.shards {
        Some(count) => shards::cut_into(&weights, count.into(), Limits::CHAIN),
        None => shards::cut(&weights, Limits::CHAIN),
    };
    let most = shards::shards_per_job(order.replicas, offer.stages.len());
    if cut.len() > most {
        bail!(
            "{} shards of {} replicas over {} stages are more than the {} runs of one job; several jobs can carry them, as `fxn embed` does with texts",
            cut.len(),
            order.replicas,
            offer.stages.len(),
            shards::RUNS_MAX
        );
    }
    let batch = Batch::of(cut, &weights);
    let quote = order::patient_quote(client, &order, &offer, &batch).await?;
    order::check_funds(&account, quote.most).await?;
    let call = order::submit_call(client, &order, offer.version, &batch, quote.most, &rows)?;
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
