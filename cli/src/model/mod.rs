//! `fxn model`: what creators do, and what there is to use.

mod manage;
mod publication;
mod publish;
mod samples;
mod serve;
mod show;
mod split;

use clap::Subcommand;

pub(crate) use self::{
    manage::pass_on,
    publication::{claim_call, claim_fee, read_manifest, version_of, Publication, MANIFEST_BYTES_MAX},
    split::{split_with, Split},
};
use crate::context::Context;

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Cut an ONNX export into stages: a bundle of manifest.json and blobs
    #[command(
        after_help = "Examples:\n  fxn model split ./all-MiniLM-L6-v2-onnx ./bundle --stages 3\n  fxn model split ./page-rotation ./bundle --stages 2 --task classification --samples ./pages"
    )]
    Split(split::Split),
    /// Publish a bundle as a model, or as the next version of one
    #[command(
        after_help = "Example:\n  fxn model publish ./bundle --model demo/all-minilm-l6-v2 --endpoint embeddings \\\n      --royalty-bps 1000 --royalty-per-1k 0.0001 --parent demo-research/minilm-base=2000 --uri http://127.0.0.1:7080\n  fxn model publish ./bundle --model demo/page-rotation --endpoint classify --unit image --royalty-bps 500"
    )]
    Publish(publish::Publish),
    /// Offer a bundle's blobs over HTTP
    #[command(after_help = "Example:\n  fxn model serve ./bundle --listen 127.0.0.1:7080")]
    Serve(serve::Serve),
    /// All models
    #[command(after_help = "Example:\n  fxn model list --namespace demo")]
    List(show::List),
    /// One model with its stages, prices, payout rule and parents
    #[command(after_help = "Example:\n  fxn model show demo/all-minilm-l6-v2")]
    Show(show::Show),
    /// Set the royalty of an endpoint, for work opened from now on
    #[command(
        after_help = "Example:\n  fxn model price demo/all-minilm-l6-v2 --endpoint embeddings --royalty-bps 500"
    )]
    Price(manage::Price),
    /// Retire a version, or the whole model for ever; running work goes on
    #[command(after_help = "Example:\n  fxn model retire demo/all-minilm-l6-v2 --version-number 1")]
    Retire(manage::Retire),
    /// What a model has earned as a parent, and passing it on by its payout rule
    #[command(after_help = "Example:\n  fxn model royalties demo-research/minilm-base --distribute")]
    Royalties(manage::Royalties),
}

pub(crate) async fn run(context: &Context, command: Command) -> anyhow::Result<()> {
    match command {
        Command::Split(split) => split::run(context, &split),
        Command::Publish(publish) => publish::run(context, publish).await,
        Command::Serve(serve) => serve::run(context, &serve).await,
        Command::List(list) => show::list(context, list).await,
        Command::Show(show) => show::show(context, show).await,
        Command::Price(price) => manage::price(context, price).await,
        Command::Retire(retire) => manage::retire(context, retire).await,
        Command::Royalties(royalties) => manage::royalties(context, royalties).await,
    }
}
