//! Cuts an ONNX graph into stages and describes them in a manifest of content-addressed blobs.
//!
//! [`split`] turns an export directory into a [`Bundle`]; a host opens the bundle, verifies the stages that it serves and runs
//! them with [`run_stage`] on whatever implements [`Runtime`]. Nothing here knows ONNX Runtime, the chain or the network.

pub mod batch;
mod bundle;
mod calibration;
mod cost;
mod cut;
mod draft;
mod emit;
mod error;
mod fused;
mod graph;
mod inputs;
mod inspect;
mod layout;
mod manifest;
mod options;
mod plan;
mod pooling;
mod prove;
pub mod row;
mod runtime;
mod shapes;
mod source;
mod split;
mod tensor;

pub use bundle::{Bundle, BundleError};
pub use calibration::{self_test, SelfTestError, StageCalibration, Standing};
pub use cut::Obstacles;
pub use error::SplitError;
pub use inputs::{model_inputs, ModelInput};
pub use inspect::{inspect, ModelFacts};
pub use manifest::{
    Batching, BlobRef, Calibration, Dim, Manifest, ManifestError, Pooling, Sha256Hex, Stage, TensorSpec, FORMAT,
};
pub use options::{SplitOptions, Stages};
pub use runtime::{run_stage, Loaded, Runtime, RuntimeError, StageError};
pub use split::{split, split_and_report, FailedCut, Report};
pub use tensor::{DType, Row, Tensor, TensorError};

/// The ONNX schema, generated from `proto/onnx.proto`.
mod proto {
    #![allow(
        unreachable_pub,
        missing_debug_implementations,
        clippy::all,
        clippy::arithmetic_side_effects,
        clippy::allow_attributes_without_reason,
        reason = "generated code"
    )]
    include!(concat!(env!("OUT_DIR"), "/onnx.rs"));
}

#[cfg(test)]
mod tests;
