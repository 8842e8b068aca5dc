//! Hosts as the chain, their relayers, their neighbours and developers see them: over real sockets, on a fake chain; and the real thing:
//! ONNX Runtime and all-MiniLM-L6-v2 out of `.runtime/`.
#![allow(
    clippy::unwrap_used,
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    reason = "a failed expectation is the message, and numbers in tests are small"
)]

mod blobs;
mod clock;
mod crash;
mod device;
mod foreign_models;
mod full;
mod gpu_check;
mod hang;
mod kit;
mod lane;
mod library;
mod lies;
mod minilm;
mod onnx_file;
mod onnx_session;
mod outputs;
mod overload;
mod partition_proof;
mod pipeline;
mod process;
mod refusals;
mod room;
mod survive;
mod tensors;
mod tiny;
mod wrong_chain;
