//! The Protocol suite: all contracts, wired, on a simulated chain, with people, hosts and verbs to tell stories with.
//!
//! Nothing is stubbed: the contracts are the real ones with the checked-in local parameters, hosts sign with real keys, and
//! addresses are real bech32. Time is moved, never waited for. After any story `protocol.assert_conserved()` compares every
//! contract's FUNC balance with what it owes.

#![allow(
    clippy::arithmetic_side_effects,
    reason = "only tests run this, and an overflow there is a failed test"
)]

mod books;
mod chain;
mod code;
pub mod deployer;
pub mod goods;
mod host;
pub mod localnet;
mod market;
pub mod people;
pub mod program;
pub mod proofs;
mod randomness;
mod session;
mod work;

pub use crate::{
    books::Books,
    chain::{refused, Contracts, Outcome, Protocol, FUNC},
    code::NEXT_VERSION,
    host::Host,
    market::{Creation, Serving, DEVELOPER, MODEL, PARENT, PROVIDERS},
    session::SESSION_KEY,
    work::{found, host_of, links_of, Work},
};
