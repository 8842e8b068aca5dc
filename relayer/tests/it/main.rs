//! The relayer between a chain and a host that do what the stories want. Blocks come when a story makes them; the HTTP is real.
#![allow(clippy::arithmetic_side_effects, reason = "small numbers in tests")]
#![allow(clippy::unwrap_used, reason = "a failed expectation is the message")]
#![allow(unreachable_pub, reason = "modules of one binary")]

mod attestation;
mod checkpoint;
mod crash;
mod devnet;
mod evidence;
mod expiry;
mod fake_chain;
mod fake_host;
mod host;
mod scene;
mod source;
mod status;
