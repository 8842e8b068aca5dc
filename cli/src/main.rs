//! `fxn`: every service and every command of Function Network in one program.
//!
//! Exit codes are promises: 0 done, 1 refused (one sentence on stderr), 2 wrong usage. With `--output json` stdout carries one
//! document and nothing else; logs, questions and progress go to stderr.

mod amount;
mod completions;
mod context;
mod demo;
mod deploy;
mod doctor;
mod embed;
mod engine;
mod home;
mod job;
mod keys;
mod logs;
mod model;
mod output;
mod progress;
mod provider;
mod refusal;
mod services;
mod session;
mod wallet;
mod work;

use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Parser, Subcommand};

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
    /// Put the contracts onto a chain, and write its network file
    Deploy(deploy::Deploy),
    /// Encrypted key files
    #[command(subcommand, after_help = "Examples:\n  fxn keys new alice\n  fxn keys list")]
    Keys(keys::Command),
    /// Balances, escrow deposits, transfers
    #[command(subcommand, after_help = "Examples:\n  fxn wallet money\n  fxn wallet deposit 12.5")]
    Wallet(wallet::Command),
    /// Split, publish and find models
    #[command(
        subcommand,
        after_help = "Examples:\n  fxn model list\n  fxn model show demo/all-minilm-l6-v2"
    )]
    Model(model::Command),
    /// Register, bond, deploy, and run a provider's services
    #[command(
        subcommand,
        after_help = "Examples:\n  fxn provider list\n  fxn provider run --host-key-name host"
    )]
    Provider(provider::Command),
    /// Work on the on-chain lane, step by step
    #[command(subcommand, after_help = "Examples:\n  fxn job list\n  fxn job watch 7")]
    Job(job::Command),
    /// Prepaid work off the chain: open, top up, use, close
    #[command(
        subcommand,
        after_help = "Examples:\n  fxn session open --model demo/all-minilm-l6-v2\n  fxn session show 7"
    )]
    Session(session::Command),
    /// Texts to vectors, verified against the chain
    Embed(embed::Embed),
    /// The embedded chain with the market's contracts
    Devnet(services::devnet::Options),
    /// The service that runs a provider's stages
    Host(services::host::Options),
    /// The service that carries facts between chain and host
    Relayer(services::relayer::Options),
    /// Randomness signed with a key of one's own, for networks without drand
    Beacon(services::beacon::Options),
    /// Look at this machine and the network, and say how to fix what is wrong
    Doctor(doctor::Doctor),
    /// Completions for a shell
    Completions(completions::Completions),
}

impl Command {
    /// Services tell what they do, commands only what went wrong.
    fn is_service(&self) -> bool {
        matches!(
            self,
            Self::Devnet(_)
                | Self::Host(_)
                | Self::Relayer(_)
                | Self::Beacon(_)
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
            refusal::note(format_args!("fxn: {}", refusal::sentence(&error)));
            ExitCode::FAILURE
        }
    }
}

fn start(cli: Cli) -> anyhow::Result<()> {
    // A command's failure is told once, as its sentence.
    let usual = if cli.command.is_service() { "info" } else { "off" };
    logs::start(cli.globals.log_format, usual)?;
    let runtime = tokio::runtime::Runtime::new().context("failed to start the runtime")?;
    let result = runtime.block_on(run(cli.globals, cli.command));
    // A thread that waits for stdin would keep the runtime from ending.
    runtime.shutdown_background();
    result
}

async fn run(globals: Globals, command: Command) -> anyhow::Result<()> {
    // These two make nothing, not even the home.
    let command = match command {
        Command::Doctor(doctor) => return doctor::run(globals, &doctor).await,
        Command::Completions(completions) => return completions::print(&completions),
        other => other,
    };
    let context = &Context::new(globals)?;
    match command {
        Command::Doctor(_) | Command::Completions(_) => Ok(()),
        Command::Demo(demo) => demo::run(context, demo).await,
        Command::Deploy(deploy) => deploy::run(context, deploy).await,
        Command::Keys(command) => keys::run(context, command),
        Command::Wallet(command) => wallet::run(context, command).await,
        Command::Model(command) => model::run(context, command).await,
        Command::Provider(command) => provider::run(context, command).await,
        Command::Job(command) => job::run(context, command).await,
        Command::Session(command) => session::run(context, command).await,
        Command::Embed(embed) => embed::run(context, embed).await,
        Command::Devnet(options) => services::devnet::run(context, &options).await,
        Command::Host(options) => services::host::run(context, &options).await,
        Command::Relayer(options) => services::relayer::run(context, &options).await,
        Command::Beacon(options) => services::beacon::run(context, &options).await,
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
            (vec!["fxn", "wallet", "deposit", "-5"], ErrorKind::ValueValidation),
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

    /// All commands with the words that lead to them.
    fn commands(command: &clap::Command, words: &str, found: &mut Vec<(String, clap::Command)>) {
        let words = format!("{words} {}", command.get_name()).trim().to_owned();
        found.push((words.clone(), command.clone()));
        for inner in command.get_subcommands().filter(|inner| inner.get_name() != "help") {
            commands(inner, &words, found);
        }
    }

    /// The command lines of a help text: what a person would type, without pipes, redirections and remarks.
    fn examples(help: &str) -> Vec<Vec<String>> {
        let joined = help.replace("\\\n      ", "");
        let indented = joined.lines().filter(|line| line.starts_with("  "));
        let typed = indented.filter_map(|line| {
            let start = line.find("fxn ")?;
            let mut words = shell_words(line.get(start..)?);
            if let Some(end) = words
                .iter()
                .position(|word| matches!(word.as_str(), "|" | "<" | ">" | ">>" | ""))
            {
                words.truncate(end);
            }
            Some(words)
        });
        typed.collect()
    }

    /// Words as a shell reads them; an empty one stands where several spaces begin a remark.
    fn shell_words(line: &str) -> Vec<String> {
        let (mut words, mut word, mut quote) = (vec![], String::new(), None);
        for letter in line.split("  ").next().unwrap_or_default().chars().chain([' ']) {
            match (quote, letter) {
                (None, '\'' | '"') => quote = Some(letter),
                (Some(open), close) if open == close => quote = None,
                (None, ' ') => words.extend((!word.is_empty()).then(|| std::mem::take(&mut word))),
                _ => word.push(letter),
            }
        }
        words
    }

    #[test]
    fn every_help_text_has_an_example_of_its_own_and_every_example_parses() {
        let mut found = vec![];
        commands(&Cli::command(), "", &mut found);
        assert!(found.len() > 40, "{}", found.len());
        for (words, command) in found {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            let examples = examples(&help);
            assert!(
                examples.iter().any(|example| example.join(" ").starts_with(&words)),
                "{words} has no example: {help}"
            );
            for example in examples {
                let parsed = Cli::try_parse_from(&example);
                assert!(parsed.is_ok(), "{example:?} of {words}: {}", parsed.unwrap_err());
            }
        }
    }

    #[test]
    fn no_option_takes_a_secret() {
        let mut found = vec![];
        commands(&Cli::command(), "", &mut found);
        for (words, command) in found {
            let longs: Vec<_> = command.get_arguments().filter_map(clap::Arg::get_long).collect();
            for secret in ["passphrase", "password", "mnemonic", "secret", "token"] {
                assert!(!longs.contains(&secret), "{words} --{secret}");
            }
        }
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
