//! Whole networks of real processes, with somebody who lies in them, or with more work than they have room for.
//!
//! The model is tiny, so that what is tested is the network and not the machine; ONNX Runtime, keys, ports, files and clocks are real. The
//! networks run one after the other, because each of them uses the whole machine.

#![allow(
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    clippy::unwrap_used,
    reason = "sums of a test's own numbers, and what cannot be unwrapped fails its story"
)]

mod accountant;
mod differing;
mod load;
mod market;
mod model;
mod observability;
mod processes;
mod watch;

use tokio::sync::{Mutex, MutexGuard};

static MACHINE: Mutex<()> = Mutex::const_new(());

/// The machine, for one network at a time.
async fn machine() -> MutexGuard<'static, ()> {
    MACHINE.lock().await
}
