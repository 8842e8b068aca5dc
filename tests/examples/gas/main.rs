//! Measures what everything costs on wasmd and writes docs/gas.md: `scripts/gas.sh` runs it.

#![allow(
    clippy::arithmetic_side_effects,
    reason = "a measurement that overflows is a measurement that fails"
)]

mod deployment;
mod document;
mod market;
mod meter;
mod proof;
mod sessions;
mod story;

use std::path::PathBuf;

use anyhow::Context as _;
use fxn_tests::localnet::Localnet;

use crate::meter::Meter;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let out: PathBuf = std::env::args_os()
        .nth(1)
        .context("the file to write is the one argument")?
        .into();
    let net = Localnet::start(1);
    let (client, made) = deployment::deploy(net.rpc(0)).await?;
    let mut small = Meter::new(client.clone());
    story::tell(&mut small, "small", "0.1.1").await?;
    sessions::tell(&mut small, "small").await?;
    market::fill(&small).await?;
    sessions::fill(&small).await?;
    let mut large = Meter::new(client);
    story::tell(&mut large, "large", "0.1.2").await?;
    sessions::tell(&mut large, "large").await?;
    let version = net.status()[0]
        .up
        .as_ref()
        .context("the node has stopped")?
        .app_version
        .clone();
    std::fs::write(&out, document::write(&version, &made, &small.rows, &large.rows)?)?;
    Ok(())
}
