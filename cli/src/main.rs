//! `fxn`: every service and every command of Function Network in one program.
//!
//! Exit codes are promises: 0 done, 1 refused (one sentence on stderr), 2 wrong usage. With `--output json` stdout carries one
//! document and nothing else; logs, questions and progress go to stderr.

mod amount;
mod context;
mod demo;
mod embed;
mod engine;
mod home;
mod job;
mod keys;
mod model;
mod output;
mod progress;
mod provider;
mod services;
mod wallet;
mod work;

use std::{io::IsTerminal, process::ExitCode};

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use client::ClientError;
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
    /// The whole network on this machine, with a real model
    Demo(demo::Demo),
    /// Encrypted key files
    #[command(subcommand)]
    Keys(keys::Command),
    /// Balances, escrow deposits, transfers
    #[command(subcommand)]
    Wallet(wallet::Command),
    /// Split, publish and find models
    #[command(subcommand)]
    Model(model::Command),
    /// Register, bond, deploy, and run a provider's services
    #[command(subcommand)]
    Provider(provider::Command),
    /// Work on the on-chain lane, step by step
    #[command(subcommand)]
    Job(job::Command),
    /// Texts to vectors, verified against the chain
    Embed(embed::Embed),
    /// The embedded chain with the market's contracts
    Devnet(services::devnet::Options),
    /// The service that runs a provider's stages
    Host(services::host::Options),
    /// The service that carries facts between chain and host
    Relayer(services::relayer::Options),
}

impl Command {
    /// Services tell what they do, commands only what went wrong.
    fn is_service(&self) -> bool {
        matches!(
            self,
            Self::Devnet(_)
                | Self::Host(_)
                | Self::Relayer(_)
                | Self::Model(model::Command::Serve(_))
                | Self::Provider(provider::Command::Run(_))
        )
    }
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match start(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("fxn: {}", sentence(&error));
            ExitCode::FAILURE
        }
    }
}

/// The error with its causes. A contract's refusal is its own sentence; which contract said it helps nobody.
fn sentence(error: &anyhow::Error) -> String {
    let own = |cause: &(dyn std::error::Error + 'static)| match cause.downcast_ref() {
        Some(ClientError::QueryRefused { message, .. }) => message.clone(),
        _ => cause.to_string(),
    };
    let mut parts: Vec<String> = error.chain().map(own).collect();
    // Transparent errors say the same as their cause.
    parts.dedup();
    parts.join(": ")
}

fn start(cli: Cli) -> anyhow::Result<()> {
    logs(&cli.command)?;
    let context = Context::new(cli.globals)?;
    let runtime = tokio::runtime::Runtime::new().context("failed to start the runtime")?;
    let result = runtime.block_on(run(&context, cli.command));
    // A thread that waits for stdin would keep the runtime from ending.
    runtime.shutdown_background();
    result
}

/// Logs go to stderr; `RUST_LOG` overrides what they tell.
fn logs(command: &Command) -> anyhow::Result<()> {
    // A command's failure is told once, as its sentence.
    let default = if command.is_service() { "info" } else { "off" };
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
        Command::Demo(demo) => demo::run(context, demo).await,
        Command::Keys(command) => keys::run(context, command),
        Command::Wallet(command) => wallet::run(context, command).await,
        Command::Model(command) => model::run(context, command).await,
        Command::Provider(command) => provider::run(context, command).await,
        Command::Job(command) => job::run(context, command).await,
        Command::Embed(embed) => embed::run(context, embed).await,
        Command::Devnet(options) => services::devnet::run(context, &options).await,
        Command::Host(options) => services::host::run(context, &options).await,
        Command::Relayer(options) => services::relayer::run(context, &options).await,
    }
}

#[cfg(test)]
mod tests {
    use clap::{error::ErrorKind, CommandFactory};

    use super::*;

    #[test]
    fn the_argument_tree_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn wrong_arguments_are_told_and_end_with_two() {
        for (arguments, kind) in [
            (vec!["fxn", "dmeo"], ErrorKind::InvalidSubcommand),
            (vec!["fxn", "embed"], ErrorKind::MissingRequiredArgument),
            (vec!["fxn", "embed", "--model", "no-slash"], ErrorKind::ValueValidation),
            (vec!["fxn", "keys", "show", "../evil"], ErrorKind::ValueValidation),
            (vec!["fxn", "wallet", "deposit", "-5"], ErrorKind::UnknownArgument),
            (
                vec!["fxn", "wallet", "money", "--output", "xml"],
                ErrorKind::InvalidValue,
            ),
            (
                vec!["fxn", "provider", "register", "--name", "a", "--endpoint", "b"],
                ErrorKind::MissingRequiredArgument,
            ),
        ] {
            let error = Cli::try_parse_from(&arguments).unwrap_err();
            assert_eq!((error.kind(), error.exit_code()), (kind, 2), "{arguments:?}");
        }
    }

    #[test]
    fn a_refusal_is_the_contracts_own_sentence() {
        let refused = ClientError::QueryRefused {
            contract: "wasm1x".into(),
            message: "there is no job 2".into(),
        };
        let error = anyhow::Error::new(refused).context("failed to look");
        assert_eq!(sentence(&error), "failed to look: there is no job 2");
    }

    #[test]
    fn options_of_every_command_may_stand_anywhere() {
        let cli = Cli::try_parse_from([
            "fxn", "job", "list", "--home", "/h", "--key", "alice", "--output", "json", "-y",
        ]);
        let globals = cli.unwrap().globals;
        assert_eq!((globals.home, globals.yes), (Some("/h".into()), true));
    }
}
