//! The devnet as its clients see it: the `client` crate and tendermint-rpc's own clients, unchanged, against a running one.
#![allow(
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    clippy::unwrap_used,
    reason = "small numbers of a test, and a failed expectation is its message"
)]

mod market;
mod probe;
mod proxy;
mod refusals;
mod rpc;
mod stream;
mod subscriptions;
mod transactions;
