//! Stories of the registry on a simulated chain, with the real token.
#![allow(
    clippy::arithmetic_side_effects,
    clippy::unwrap_used,
    reason = "a failed expectation is the message"
)]

mod namespaces;
mod network;
mod owners;
mod records;
mod versions;
