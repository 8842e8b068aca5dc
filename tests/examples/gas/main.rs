//! Measures what everything costs on wasmd and writes docs/gas.md: `scripts/gas.sh` runs it.

#![allow(
    clippy::arithmetic_side_effects,
    reason = "a measurement that overflows is a measurement that fails"
)]

mod crowd;
mod deployment;
mod document;
mod meter;
mod sessions;
mod story;

use std::path::PathBuf;

use anyhow::Context as _;
use fxn_tests::localnet::Localnet;

use crate::{document::Measured, meter::Meter};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let out: PathBuf = std::env::args_os()
        .nth(1)
        .context("the file to write is the one argument")?
        .into();
    let net = Localnet::start(1);
    let (client, made, wired) = deployment::deploy(net.rpc(0)).await?;
    let mut small = Meter::new(client.clone());
    story::tell(&mut small, "small", "0.1.1").await?;
    sessions::tell(&mut small, "small").await?;
    let drawn = crowd::draws(&small.people).await?;
    crowd::fill(&small.people).await?;
    sessions::fill(&small.people).await?;
    let mut large = Meter::new(client);
    story::tell(&mut large, "large", "0.1.2").await?;
    sessions::tell(&mut large, "large").await?;
    let version = net.status()[0]
        .up
        .as_ref()
        .context("the node has stopped")?
        .app_version
        .clone();
    let measured = Measured {
        made,
        wired,
        drawn,
        small: small.rows,
        large: large.rows,
    };
    std::fs::write(&out, document::write(&version, &measured)?)?;
    Ok(())
}
