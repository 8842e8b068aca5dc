//! The host against the real thing: ONNX Runtime and all-MiniLM-L6-v2 out of `.runtime/`.

#![allow(clippy::arithmetic_side_effects, reason = "sizes in tests are small and known")]
#![allow(clippy::cast_possible_truncation, reason = "sizes in tests are small and known")]
#![allow(clippy::unwrap_used, reason = "a failed expectation is the message")]

mod onnx_session;
mod partition_proof;
