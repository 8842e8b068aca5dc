//! When services stop, and how they tell where they are.

use std::{io::Write, path::Path};

use anyhow::Context as _;
use serde::Serialize;
use tokio::{
    io::AsyncReadExt,
    signal::unix::{signal, SignalKind},
};
use tokio_util::sync::CancellationToken;

/// Set by `fxn demo` for its children: they stop when their stdin ends, so that none outlives a parent that was killed.
pub(crate) const STOP_WITH_STDIN: &str = "FXN_STOP_WITH_STDIN";

/// Is cancelled by SIGTERM, by Ctrl-C, and with [`STOP_WITH_STDIN`] when stdin ends.
pub(crate) fn stop_signal() -> anyhow::Result<CancellationToken> {
    let mut terminate = signal(SignalKind::terminate()).context("failed to listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("failed to listen for Ctrl-C")?;
    let stop = CancellationToken::new();
    let token = stop.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        token.cancel();
    });
    if std::env::var_os(STOP_WITH_STDIN).is_some() {
        let token = stop.clone();
        tokio::spawn(async move {
            let mut buffer = [0; 64];
            let mut stdin = tokio::io::stdin();
            while matches!(stdin.read(&mut buffer).await, Ok(read) if read > 0) {}
            token.cancel();
        });
    }
    Ok(stop)
}

/// Writes a file that tells where a service is, as a whole or not at all.
pub(crate) fn announce<T: Serialize>(home: &Path, name: &str, value: &T) -> anyhow::Result<()> {
    let path = home.join(name);
    let failed = || format!("failed to write {}", path.display());
    let text = serde_json::to_vec_pretty(value).with_context(failed)?;
    let mut file = tempfile::NamedTempFile::new_in(home).with_context(failed)?;
    file.write_all(&text).with_context(failed)?;
    file.persist(&path).with_context(failed)?;
    Ok(())
}
