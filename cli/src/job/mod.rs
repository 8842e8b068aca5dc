//! `fxn job`: the on-chain lane, step by step.

mod result;
mod show;
mod submit;
mod tensors;

use clap::{Args, Subcommand};
use schema::ModelId;

pub(crate) use self::show::status;
use crate::{amount::Func, context::Context, work::order::Order};

const SUBMIT_HELP: &str = r#"Examples:
  fxn job submit --model demo/all-minilm-l6-v2 --input sentences.txt --shards 4 --replicas 2
  fxn job submit --model demo/all-minilm-l6-v2 --input sentences.txt --chain 3,5,9
  fxn job submit --model demo/page-rotation --endpoint classify --input a.safetensors --input b.safetensors

A row of tensors is one safetensors file that holds exactly the inputs of the graph, without batch axis. With numpy, for an input `page`:
  import json, struct
  page = scan[:80, :80].astype("uint8")
  about = {"dtype": "U8", "shape": page.shape, "data_offsets": [0, page.nbytes]}
  header = json.dumps({"page": about}).encode()
  with open("a.safetensors", "wb") as file:
      file.write(struct.pack("<Q", len(header)) + header + page.tobytes())"#;

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Submit texts or tensors as one job
    #[command(after_help = SUBMIT_HELP)]
    Submit(submit::Submit),
    /// A job and its items
    #[command(after_help = "Example:\n  fxn job show 7")]
    Show(Number),
    /// Follow a job until it has ended
    #[command(after_help = "Example:\n  fxn job watch 7")]
    Watch(Number),
    /// Fetch the results from the hosts, verify them against the chain and print them
    #[command(after_help = "Examples:\n  fxn job result 7 --output json\n  fxn job result 7 --out answers/")]
    Result(result::Wanted),
    /// Jobs, newest first
    #[command(after_help = "Example:\n  fxn job list --all")]
    List(show::List),
}

#[derive(Debug, Args)]
pub(crate) struct Number {
    /// Number of the job
    job: u64,
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
    /// These deployments, one after the other from the first stage to the last, instead of whoever is drawn
    #[arg(
        long,
        value_name = "DEPLOYMENT,...",
        value_delimiter = ',',
        conflicts_with = "replicas"
    )]
    pub(crate) chain: Option<Vec<u64>>,
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
            chain: self.chain.clone(),
        }
    }
}

pub(crate) async fn run(context: &Context, command: Command) -> anyhow::Result<()> {
    match command {
        Command::Submit(submit) => submit::submit(context, &submit).await,
        Command::Show(Number { job }) => show::show(context, job).await,
        Command::Watch(Number { job }) => show::watch(context, job).await,
        Command::Result(wanted) => result::result(context, &wanted).await,
        Command::List(list) => show::list(context, &list).await,
    }
}
