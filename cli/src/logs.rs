//! Logs: always on stderr, as lines for people or as one JSON object a line.

use std::io::IsTerminal;

use anyhow::{anyhow, Context as _};
use clap::ValueEnum;
use tracing_subscriber::EnvFilter;

/// Overrides what the logs tell.
const FILTER: &str = "RUST_LOG";

/// Form of the logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum LogFormat {
    /// Lines for people
    #[default]
    Text,
    /// One JSON object a line: timestamp, level, target, fields
    Json,
}

/// Starts the logs. `usual` is what they tell without `RUST_LOG`.
pub(crate) fn start(format: LogFormat, usual: &str) -> anyhow::Result<()> {
    let filter = match std::env::var(FILTER) {
        Ok(text) if !text.is_empty() => EnvFilter::try_new(&text).with_context(|| {
            format!("{FILTER} is {text:?}, which filters nothing: write for example info,relayer=debug")
        })?,
        _ => EnvFilter::new(usual),
    };
    let logs = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    match format {
        LogFormat::Text => logs.with_ansi(std::io::stderr().is_terminal()).try_init(),
        LogFormat::Json => logs.json().with_current_span(false).with_span_list(false).try_init(),
    }
    .map_err(|error| anyhow!("failed to start the logs: {error}"))
}
