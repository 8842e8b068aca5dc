//! Stories of provider staking on a simulated chain, with the real token and the real registry. The escrow is a stub that takes
//! penalties; the orchestrator is an account.
#![allow(
    clippy::arithmetic_side_effects,
    clippy::unwrap_used,
    reason = "small numbers, and a failed expectation is the message"
)]

mod bond;
mod conduct;
mod deployments;
mod money;
mod network;
mod roles;
mod slots;
