//! The relayer between a chain and a host that do what the stories want. Blocks come when a story makes them; the HTTP is real.
#![allow(clippy::arithmetic_side_effects, reason = "small numbers in tests")]

mod attestation;
mod checkpoint;
mod crash;
mod evidence;
mod expiry;
mod fake_chain;
mod fake_host;
mod host;
mod scene;
mod source;
mod status;
