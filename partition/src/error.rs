//! Why an export could not be split: every reason with its facts.

use std::path::PathBuf;

use crate::{
    bundle::BundleError,
    cut::Obstacles,
    manifest::ManifestError,
    row::RowError,
    runtime::{RuntimeError, StageError},
    split::FailedCut,
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
    #[error("{path}: {problem}")]
    Config { path: PathBuf, problem: String },
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
    #[error("initialiser {name} has the impossible shape {shape:?}")]
    InitializerShape { name: String, shape: Vec<i64> },
    #[error("initialiser {name} has element type {code}, which cannot be stored as bytes")]
    InitializerType { name: String, code: i32 },

    // What is in the graph.
    #[error("the graph has no nodes")]
    Empty,
    #[error("the graph has no outputs")]
    NoOutputs,
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
    #[error("node {node} ({op}) is of the domain {domain}, of which the model imports no version")]
    NoDomain { node: String, op: String, domain: String },
    #[error("the model has IR version {found}; {min} to {max} are read")]
    IrVersion { found: i64, min: i64, max: i64 },
    #[error("output {output} depends on no input")]
    ConstantOutput { output: String },
    #[error("the runtime refuses the whole graph: {reason}")]
    NotRunnable { reason: String },
    #[error("node {node} uses tensor {tensor}, which no input, initialiser or node gives")]
    MissingTensor { node: String, tensor: String },
    #[error("node {node} refers to a file from an attribute")]
    ExternalAttribute { node: String },
    #[error("initialiser {name} lies in a file of its own, and there is no folder to look in")]
    ExternalData { name: String },
    #[error("initialiser {name}: {location} is a link that leads out of the model's folder; copy the file there")]
    ExternalLink { name: String, location: String },
    #[error("{path} is a link that leads out of the model's folder; copy the file there")]
    Link { path: PathBuf },
    #[error("initialiser {name} has {axes} axes, at most {limit} are read")]
    InitializerRank { name: String, axes: usize, limit: usize },
    #[error("{path} has {bytes} bytes, at most {limit} are read")]
    FileTooLarge { path: PathBuf, bytes: u64, limit: u64 },
    #[error("{path} is not a file")]
    NotAFile { path: PathBuf },
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
    #[error("input {input} has no batch axis: its first axis must be symbolic or 1, and the same for all inputs")]
    NoBatchAxis { input: String },
    #[error("input {input} takes a fixed batch of {rows} rows; only a symbolic batch or a batch of 1 can be served")]
    FixedBatch { input: String, rows: i64 },
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
    #[error("{stages} stages were asked for; the graph can be cut at {positions} positions, so into at most {possible}: {obstacles}", possible = positions.saturating_add(1))]
    TooManyStages {
        stages: usize,
        positions: usize,
        obstacles: Obstacles,
    },
    #[error("no stage can be smaller than {bytes} bytes of weights; at most {limit} were asked for")]
    StageTooLarge { bytes: u64, limit: u64 },

    // The proof.
    #[error("the whole graph does not give sample {sample} the same bits twice when {how}")]
    NotRepeatable { sample: usize, how: &'static str },
    #[error("no plan keeps the bits of the whole graph; tried and changed: {}", list(tried))]
    NotIdentical { tried: Vec<FailedCut> },
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

/// Names in a message.
const NAMED_MAX: usize = 3;

impl std::fmt::Display for Obstacles {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            places,
            no_row,
            fused,
            layout,
            bytes,
        } = self;
        if *places == 0 {
            return formatter.write_str("every stage would compute all of it again, as it is no more than a function of the inputs without weights");
        }
        write!(
            formatter,
            "of {places} places between nodes, {no_row} have something to carry that is no row, {fused} lie inside a pattern that runtimes \
             fuse, {layout} would change the layout of what comes after, and at {bytes} more than three times the least would cross"
        )
    }
}

impl std::fmt::Display for FailedCut {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let shown: Vec<&str> = self.tensors.iter().take(NAMED_MAX).map(String::as_str).collect();
        let others = self.tensors.len().saturating_sub(shown.len());
        write!(
            formatter,
            "a cut before node {}, where {} ",
            self.node,
            shown.join(", ")
        )?;
        if others > 0 {
            write!(formatter, "and {others} more ")?;
        }
        write!(formatter, "crossed ({})", self.why)
    }
}

fn list(tried: &[FailedCut]) -> String {
    let shown: Vec<String> = tried.iter().take(NAMED_MAX).map(FailedCut::to_string).collect();
    match tried.len().saturating_sub(shown.len()) {
        0 => shown.join("; "),
        others => format!("{}; and {others} more", shown.join("; ")),
    }
}
