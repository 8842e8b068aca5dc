//! What people do wrong, done to the real program: every mistake ends with the promised exit code and one clear sentence, costs nothing,
//! and no secret shows up where it does not belong.
//!
//! Each file has a devnet of its own; nothing here needs the whole machine. `FXN_BIN` names the program; otherwise it is the newest `fxn`
//! of this target folder.

#![allow(clippy::unwrap_used, reason = "what cannot be unwrapped fails its story")]
#![allow(clippy::arithmetic_side_effects, reason = "sums of a test's own numbers")]

mod bundle;
mod doctor;
mod files;
mod market;
mod network;
mod programs;
mod secrets;
mod session;
mod table;
mod waiting;
