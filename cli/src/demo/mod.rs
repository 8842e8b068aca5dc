//! `fxn demo`: the whole network on this machine, with a real model, as a story that checks itself.
//!
//! - `plan`: prices, terms, amounts. `cast`: who plays. `processes`: the children.
//! - `story`: the steps. `work`: the two jobs. `reference`: what the embeddings must be.
//! - `facts` and `checker`: what the chain says, and whether it adds up. `report`: what is told at the end.
//! - `folder`: where it plays. `keep`: leaving it running.

mod cast;
mod checker;
mod facts;
mod folder;
mod jobs;
mod keep;
mod plan;
mod processes;
mod reference;
mod report;
mod story;

use std::{path::PathBuf, time::Duration};

use anyhow::{bail, Context as _};
use clap::Args;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::{folder::Folder, keep::Kept, processes::Crew};
use crate::{context::Context, engine::Library, progress::Progress, refusal::note, services::stop};

/// Longest wait for a split or a run of the whole graph that nobody needs any more.
const COMPUTE_PATIENCE: Duration = Duration::from_secs(30);

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  fxn demo\n  fxn demo --keep            then, in a second terminal: fxn embed --model demo/all-minilm-l6-v2 FILE\n  fxn demo --output json\n\nscripts/models.sh fetches ONNX Runtime and the model. With --network FILE and --key K the story plays on that network, and K pays for it."
)]
pub(crate) struct Demo {
    /// Leave everything running until Ctrl-C
    #[arg(long)]
    keep: bool,
    /// Folder of the ONNX export [default: .runtime/models/all-minilm-l6-v2 of the project]
    #[arg(long, value_name = "DIR")]
    source: Option<PathBuf>,
    #[command(flatten)]
    library: Library,
}

pub(crate) async fn run(context: &Context, demo: Demo) -> anyhow::Result<()> {
    let stop = stop::stop_signal()?;
    let folder = Folder::prepare(&context.home)?;
    let progress = Progress::new();
    let mut crew = Crew::new()?;
    let compute = TaskTracker::new();
    let played = tokio::select! {
        played = story::play(context, &demo, &folder, &mut crew, &compute, &progress) => Some(played),
        () = stop.cancelled() => None,
    };
    progress.finish();
    let result = match played {
        None => Err(anyhow::anyhow!(
            "interrupted: the demonstration was stopped before its end"
        )),
        Some(Err(error)) => Err(error),
        Some(Ok(played)) => tell(context, &demo, &folder, &mut crew, played, &stop).await,
    };
    crew.stop().await;
    // ONNX Runtime must not be at work on another thread when the process ends.
    compute.close();
    if tokio::time::timeout(COMPUTE_PATIENCE, compute.wait()).await.is_err() {
        tracing::warn!("a graph is still running at the end");
    }
    result
}

async fn tell(
    context: &Context,
    demo: &Demo,
    folder: &Folder,
    crew: &mut Crew,
    played: story::Played,
    stop: &CancellationToken,
) -> anyhow::Result<()> {
    let kept = demo.keep.then(|| Kept::lay_out(context, folder, &played)).transpose()?;
    context.output.print(&played.report)?;
    let mut failed = None;
    if let Some(kept) = &kept {
        note(format_args!("\n{}", kept.told(&crew.told())));
        failed = keep_running(crew, stop).await;
        folder.take_away();
    }
    if context.named_network().is_some() {
        played
            .leave()
            .await
            .context("the providers could not be taken out of the market")?;
    }
    match failed {
        Some(role) => bail!("{role} has stopped by itself"),
        None => Ok(()),
    }
}

/// Until Ctrl-C, or until there is no chain any more. Whoever else ends is missed by the market, as anywhere: people may kill hosts and
/// relayers and watch.
async fn keep_running(crew: &mut Crew, stop: &CancellationToken) -> Option<String> {
    loop {
        tokio::select! {
            () = stop.cancelled() => return None,
            role = crew.next_to_end() => match role.as_str() {
                plan::DEVNET => return Some(role),
                _ => note(format_args!("{role} has ended; the others go on")),
            },
        }
    }
}
