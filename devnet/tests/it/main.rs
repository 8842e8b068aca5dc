//! The devnet as its clients see it: the `client` crate and tendermint-rpc's own clients, unchanged, against a running one.
#![allow(
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    clippy::unwrap_used,
    reason = "small numbers of a test, and a failed expectation is its message"
)]

mod answers;
mod bounds;
mod kill;
mod market;
mod panics;
mod probe;
mod proxy;
mod raw;
mod refusals;
mod rpc;
mod shapes;
mod state;
mod stream;
mod subscriptions;
mod transactions;
