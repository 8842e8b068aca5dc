//! Runs stages of partitioned models on ONNX Runtime: one process of a provider.
//!
//! How a piece of work flows, and where to read about it:
//! - `status`: the relayer says that an item was assigned. `host` asks the chain itself (`chain`), reads the input of a first span and
//!   puts its rows into the `queue` of the deployment (`model`, `serving`), whose batches go through the stages' threads (`engine`, `onnx`).
//! - The output is hashed, receipted (`advance`, `links`) and kept (`work`, `journal`, `disk`) before it is pushed to the next host (`peers`),
//!   which checks all of that, keeps the rows, acknowledges them (`span`) and goes on.
//! - The last host keeps the output for the developer (`server`) and the complete chain of links for its relayer.
//! - Deadlines are the chain's, and so is the clock that they are judged by (`clock`). Files that are not what they should be are kept
//!   `aside` and reported. `faults` names the places at which tests kill a host or fill its disk.
//! - `lane`: sessions, whose clients pay by voucher and ask without a transaction.
//! - Weights come by digest from the sources that the operator allows (`blobs`, `sources`).
//!
//! [`run`] is the service; [`start`] takes a chain and a runtime of the caller's choice, as tests do.

mod advance;
mod aside;
mod blobs;
pub mod chain;
mod clock;
mod config;
mod disk;
mod engine;
mod faults;
mod home;
mod host;
mod journal;
mod lane;
mod links;
mod listener;
mod metrics;
mod model;
pub mod onnx;
mod peers;
mod queue;
mod refusal;
pub mod request;
mod room;
mod rows;
mod running;
mod server;
mod serving;
mod sources;
mod span;
mod status;
pub mod tokenizer;
pub mod untrusted;
mod work;

pub use config::{Config, ConfigError, Source};
pub use faults::POINTS;
pub use rows::{decode_rows, encode_rows, RowsFormatError};
pub use running::{run, start, Running};

/// The push service, generated from `proto/span.proto`.
pub mod proto {
    #![allow(
        unreachable_pub,
        missing_debug_implementations,
        clippy::all,
        clippy::arithmetic_side_effects,
        clippy::allow_attributes_without_reason,
        reason = "generated code"
    )]
    tonic::include_proto!("fxn.span.v1");
}
