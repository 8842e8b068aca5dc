//! Stories and laws of the contracts together.

#![allow(
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    clippy::unwrap_used,
    reason = "expected values are written as plain formulas over small dice, and what cannot be unwrapped fails its story"
)]

mod attestations;
mod bad_input;
mod batches;
mod conduct;
mod disputes;
mod failover;
mod first_light;
mod forced;
mod garbage;
mod holds;
mod keeper;
mod lane;
mod laws;
mod migration;
mod orders;
mod parameters;
mod permissions;
mod prune;
mod randomness;
mod sessions;
