//! Stories and laws of the five contracts together.

#![allow(
    clippy::arithmetic_side_effects,
    clippy::unwrap_used,
    reason = "expected values are written as plain formulas, and what cannot be unwrapped fails its story"
)]

mod attestations;
mod conservation;
mod disputes;
mod failover;
mod first_light;
mod holds;
mod orders;
mod parameters;
mod permissions;
