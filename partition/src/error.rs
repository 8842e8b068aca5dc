//! Why an export could not be split: every reason with its facts.

use std::path::PathBuf;

use crate::{
    bundle::BundleError, manifest::ManifestError, row::RowError, runtime::RuntimeError, runtime::StageError,
    tensor::TensorError,
};

/// A refusal to split. Nothing is left at the target when it is returned.
#[derive(Debug, thiserror::Error)]
pub enum SplitError {
    // The files.
    #[error("failed to read {path}")]
    Read { path: PathBuf, source: std::io::Error },
    #[error("failed to write {path}")]
    Write { path: PathBuf, source: std::io::Error },
    #[error("{path} already exists")]
    TargetExists { path: PathBuf },
    #[error("{directory} has {found} .onnx files and none is named model.onnx")]
    NoModel { directory: PathBuf, found: usize },
    #[error("{path} has {bytes} bytes; a protobuf has at most {limit}")]
    ModelTooLarge { path: PathBuf, bytes: u64, limit: u64 },
    #[error("{path} is not an ONNX model: {source}")]
    NotOnnx { path: PathBuf, source: prost::DecodeError },
    #[error("{path} has no graph")]
    NoGraph { path: PathBuf },
    #[error("initialiser {name}: external data at {location:?} would lie outside the model's folder")]
    ExternalLocation { name: String, location: String },
    #[error("initialiser {name}: external data field {key} is {value:?}, not a number")]
    ExternalNumber { name: String, key: String, value: String },
    #[error("initialiser {name}: {location} has {bytes} bytes, {end} needed")]
    ExternalTruncated {
        name: String,
        location: String,
        bytes: u64,
        end: u64,
    },
    #[error("initialiser {name} of shape {shape:?} has {bytes} bytes, {expected} expected")]
    InitializerSize {
        name: String,
        shape: Vec<i64>,
        bytes: u64,
        expected: u64,
    },
    #[error("initialiser {name} has element type {code}, which cannot be stored as bytes")]
    InitializerType { name: String, code: i32 },

    // What is in the graph.
    #[error("the graph has no nodes")]
    Empty,
    #[error("node {node} ({op}) has a subgraph; models with If, Loop or Scan cannot be split")]
    Subgraph { node: String, op: String },
    #[error("the model defines {count} local functions, the first is {name}; inline them first")]
    LocalFunctions { name: String, count: usize },
    #[error("the model has sparse initialisers ({name}); make them dense first")]
    SparseInitializer { name: String },
    #[error("node {node} ({op}) is dynamic quantisation, whose results depend on batch mates and cannot be attested")]
    DynamicQuantisation { node: String, op: String },
    #[error("node {node} ({op}) draws random numbers and cannot be attested")]
    Random { node: String, op: String },
    #[error("node {node} ({op}) handles sequences or optional values, which rows cannot carry")]
    NotATensor { node: String, op: String },
    #[error("the model imports no version of the standard operator set")]
    NoOperatorSet,
    #[error("the model carries training information")]
    Training,
    #[error("input {input} is a key/value cache; models that generate are not split by this version")]
    KeyValueCache { input: String },
    #[error("tensor {tensor} is used by node {node} before any node makes it")]
    NotTopological { node: String, tensor: String },
    #[error("tensor {tensor} is made twice")]
    DuplicateTensor { tensor: String },
    #[error("output {output} is made by no node")]
    MissingOutput { output: String },
    #[error("input {input} has no batch axis: its first axis must be symbolic, and the same for all inputs")]
    NoBatchAxis { input: String },
    #[error("input {input}: {problem}")]
    Input { input: String, problem: &'static str },

    // What is asked of it.
    #[error("{value} {what} were asked for, {min} to {max} are possible")]
    Option {
        what: &'static str,
        value: u64,
        min: u64,
        max: u64,
    },
    #[error("mean pooling needs {missing}")]
    Pooling { missing: &'static str },
    #[error("the samples have no two rows whose lengths differ along {symbol}, so shapes cannot be told apart")]
    SampleLengths { symbol: String },
    #[error("sample {sample} has no tensor {input}")]
    SampleInput { sample: usize, input: String },
    #[error("sample {sample} does not fit the model's inputs")]
    Sample { sample: usize, source: RowError },
    #[error("output {output} has axes that neither batch nor positions explain")]
    OutputShape { output: String },
    #[error("{stages} stages were asked for; the graph can be cut at {positions} positions, so into at most {possible}", possible = positions.saturating_add(1))]
    TooManyStages { stages: usize, positions: usize },
    #[error("no stage can be smaller than {bytes} bytes of weights; at most {limit} were asked for")]
    StageTooLarge { bytes: u64, limit: u64 },

    // The proof.
    #[error("stage {stage} answers sample {sample} with other bits than the whole graph when {how}")]
    NotIdentical {
        stage: usize,
        sample: usize,
        how: &'static str,
    },
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    #[error(transparent)]
    Stage(#[from] StageError),
    #[error(transparent)]
    Row(#[from] RowError),
    #[error(transparent)]
    Tensor(#[from] TensorError),
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    #[error(transparent)]
    Bundle(#[from] BundleError),
}
