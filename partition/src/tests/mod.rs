//! Stories about splitting, on graphs of a few dozen numbers and an interpreter in place of ONNX Runtime.

#![allow(clippy::arithmetic_side_effects, reason = "sizes in tests are small")]
#![allow(clippy::cast_possible_truncation, reason = "numbers in tests are small")]

mod hostile;
mod inputs;
mod interpreter;
mod models;
mod refusals;
mod sentences;
mod splitting;
