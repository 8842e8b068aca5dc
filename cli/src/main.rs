//! `fxn`: every service and every command of Function Network in one program.
//!
//! Exit codes are promises: 0 done, 1 refused (one sentence on stderr), 2 wrong usage. With `--output json` stdout carries one
//! document and nothing else; logs, questions and progress go to stderr.

mod amount;
mod context;
mod home;
mod keys;
mod market;
mod output;
mod wallet;

use std::{io::IsTerminal, process::ExitCode};

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use tracing_subscriber::EnvFilter;

use crate::context::{Context, Globals};

#[derive(Debug, Parser)]
#[command(
    name = "fxn",
    version,
    about = "An open market for AI inference: publish models, serve them, use them",
    after_help = "Examples:\n  fxn demo                     the whole network on this machine\n  fxn demo --keep              ... and leave it running for the other commands\n  fxn embed --model demo/all-minilm-l6-v2 sentences.txt --output json",
    propagate_version = true
)]
struct Cli {
    #[command(flatten)]
    globals: Globals,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Encrypted key files
    #[command(subcommand)]
    Keys(keys::Command),
    /// Balances, escrow deposits, transfers
    #[command(subcommand)]
    Wallet(wallet::Command),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match start(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("fxn: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn start(cli: Cli) -> anyhow::Result<()> {
    logs(&cli.command)?;
    let context = Context::new(cli.globals)?;
    let runtime = tokio::runtime::Runtime::new().context("failed to start the runtime")?;
    runtime.block_on(run(&context, cli.command))
}

/// Logs go to stderr. Services tell what they do, commands only what went wrong; `RUST_LOG` overrides both.
fn logs(command: &Command) -> anyhow::Result<()> {
    let default = match command {
        _ => "error",
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .try_init()
        .map_err(|error| anyhow::anyhow!("failed to start the logs: {error}"))
}

async fn run(context: &Context, command: Command) -> anyhow::Result<()> {
    match command {
        Command::Keys(command) => keys::run(context, command),
        Command::Wallet(command) => wallet::run(context, command).await,
    }
}
