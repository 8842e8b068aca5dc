//! Hostile bytes at every door: whatever comes in is an answer or a typed error, in bounded memory and time, and never a panic.
//!
//! Every target starts from valid samples and from the corpus of inputs that once failed (`corpus/<target>/`, replayed first), and changes
//! them: bits, lengths, pieces of other samples, values of JSON trees; now and then the input is nothing but noise. What decodes
//! must encode back to what it was. `FXN_FUZZ_SECONDS` is the time of each target (1 if absent), `FXN_SEED` where the choices begin.
//! A failing input is made smaller, written into the corpus and shown.

#![allow(
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    clippy::unwrap_used,
    reason = "sums of a test's own numbers, and what cannot be unwrapped is a finding"
)]

mod chain;
mod mutate;
mod network;
mod program;
mod services;
mod stages;
mod target;

use peak_alloc::PeakAlloc;

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;
