//! Who governs a contract, and how slowly.
//!
//! - [`admin`]: the role that sets parameters, handed over in two steps.
//! - [`migration`]: new code for a contract that is its own wasm admin, after a notice that nobody can shorten.
//!
//! Rules and storage: no `Deps`, no `Env`, no `Response`. A contract adds the chain to it, in a few lines of its `contract.rs`.

pub mod admin;
mod error;
pub mod migration;

pub use error::GovernedError;
