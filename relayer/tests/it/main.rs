//! The relayer between a chain and a host that do what the stories want. Blocks come when a story makes them; the HTTP is real.
#![allow(clippy::arithmetic_side_effects, reason = "small numbers in tests")]
#![allow(clippy::unwrap_used, reason = "a failed expectation is the message")]
#![allow(unreachable_pub, reason = "modules of one binary")]

mod attestation;
mod batching;
mod chaos;
mod checkpoint;
mod crash;
mod devnet;
mod disk;
mod endpoints;
mod evidence;
mod expiry;
mod fake_chain;
mod fake_host;
mod host;
mod limits;
mod market;
mod power;
mod processes;
mod proxy;
mod rounds;
mod scene;
mod settler;
mod source;
mod status;
mod trouble;

use std::{future::Future, time::Duration};

/// Waits until something is so, on the slowest machine.
pub async fn until<F: Future<Output = bool>>(what: &str, is_so: impl Fn() -> F) {
    let since = tokio::time::Instant::now();
    while !is_so().await {
        assert!(since.elapsed() < Duration::from_secs(120), "never: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
