//! Stories and laws of the five contracts together.

#![allow(
    clippy::arithmetic_side_effects,
    reason = "expected values are written as plain formulas"
)]

mod attestations;
mod conservation;
mod disputes;
mod failover;
mod first_light;
mod holds;
mod orders;
mod permissions;
