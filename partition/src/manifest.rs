//! The manifest: everything that a bundle promises, as canonical JSON whose sha256 goes on chain.
//!
//! It carries neither a model id nor a version number: the chain binds names to content. Guarantees of a manifest that passed
//! [`Manifest::validate`]: stages follow one another without gap or overlap, what one sends the next one receives, shares sum to
//! 10 000, every digest of a stage is the digest of its blobs, and every number is within the bounds given here.

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{row::RANK_MAX, tensor::DType};

/// The version of this format.
pub const FORMAT: u32 = 1;

/// More stages than any placement needs; bounds every loop over them.
pub(crate) const STAGES_MAX: usize = 64;
const WEIGHTS_MAX: usize = 65_536;
const TENSORS_MAX: usize = 256;
const NAME_BYTES_MAX: usize = 512;
const POSITIONS_MAX: u64 = 1 << 24;
/// 4 TiB: beyond any weight file, and far below overflow when all are added.
const BLOB_BYTES_MAX: u64 = 1 << 42;
const CALIBRATION_ROWS_MAX: usize = 64;
const CLASSES_MAX: usize = 64;
const SHARE_TOTAL_BPS: u32 = 10_000;

/// A sha256, 64 lower-case hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String")]
pub struct Sha256Hex(String);

impl Sha256Hex {
    /// The digest of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self::from_bytes(Sha256::digest(bytes).into())
    }

    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(hex::encode(bytes))
    }

    pub fn to_bytes(&self) -> [u8; 32] {
        let mut bytes = [0; 32];
        // The constructor let 64 hexadecimal digits through and nothing else.
        let _ = hex::decode_to_slice(&self.0, &mut bytes);
        bytes
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for Sha256Hex {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl TryFrom<String> for Sha256Hex {
    type Error = ManifestError;

    fn try_from(text: String) -> Result<Self, ManifestError> {
        let digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        if text.len() == 64 && text.bytes().all(digit) {
            return Ok(Self(text));
        }
        Err(ManifestError::NotADigest {
            text: text.chars().take(80).collect(),
        })
    }
}

impl std::str::FromStr for Sha256Hex {
    type Err = ManifestError;

    fn from_str(text: &str) -> Result<Self, ManifestError> {
        Self::try_from(text.to_owned())
    }
}

/// A blob by content: `blobs/<sha256>` of the bundle.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BlobRef {
    pub sha256: Sha256Hex,
    /// Exact size.
    pub bytes: u64,
}

/// One axis of a tensor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Dim {
    /// The axis that rows are stacked along; first, or nowhere.
    Batch,
    /// A length that differs from row to row, by its symbolic name. The same name has the same length in every tensor of a row.
    Positions(String),
    /// A length fixed by the model.
    Fixed(u64),
}

/// Name, element type and symbolic shape of a tensor at a stage's border.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TensorSpec {
    /// Name in the graph, at most 512 bytes.
    pub name: String,
    pub dtype: DType,
    /// At most 9 axes, the batch axis first.
    pub shape: Vec<Dim>,
}

impl TensorSpec {
    pub fn new(name: &str, dtype: DType, shape: Vec<Dim>) -> Self {
        Self {
            name: name.to_owned(),
            dtype,
            shape,
        }
    }

    /// The axes of one row: all but the batch axis.
    pub fn row_shape(&self) -> &[Dim] {
        match self.shape.split_first() {
            Some((Dim::Batch, row)) => row,
            _ => &self.shape,
        }
    }
}

/// What is done with the positions of an embedding, by nodes of the graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Pooling {
    /// Mean over the positions whose attention mask is 1.
    Mean,
}

/// Which rows may run in one batch without changing a bit of each other, as measured at publish time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Batching {
    /// Rows of any lengths, padded on the right.
    Padded,
    /// Rows of equal lengths only.
    EqualLengths,
    /// One row at a time: a row changes bits among others, or the graph has a fixed batch of 1.
    Single,
}

/// A stage: a graph of its own over its own weights.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Stage {
    /// sha256 over `fxn/stage/v1`, graph digest and size, number of weights (u32), and every weight's digest and size (u64), sorted; integers
    /// big-endian. What providers deploy and the chain pays for.
    pub digest: Sha256Hex,
    /// The ONNX graph. Its large initialisers are external data whose location is the digest of a weight.
    pub graph: BlobRef,
    /// The large initialisers, sorted by digest, without duplicates.
    pub weights: Vec<BlobRef>,
    /// The row that comes in. For the first stage: the inputs of the model.
    pub receives: Vec<TensorSpec>,
    /// The row that goes out: activations, and inputs of the model that a later stage needs, carried along. For the last stage: the outputs.
    pub sends: Vec<TensorSpec>,
    /// Names of the received tensors that the graph itself consumes; the others are only carried.
    pub feeds: Vec<String>,
    /// Index of its first node in the model's own order; the first stage has 0.
    pub first_node: u32,
    /// Sum of the weights' sizes.
    pub weight_bytes: u64,
    /// Its part of the model's arithmetic, in basis points, at least 1; all stages sum to 10 000.
    pub compute_share_bps: u32,
}

/// Sample rows with which a host proves itself before it serves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Calibration {
    /// Number of sample rows, 1 to 64.
    pub rows: u32,
    /// For every border, from the model's input to its output (stages + 1): the sample rows as they pass it. Each row is its length (u32
    /// big-endian) and its canonical bytes. Stage k is fed rows of border k; border k + 1 is the reference for its answer.
    pub borders: Vec<BlobRef>,
    /// By engine class, stage and row: sha256 of the row that the stage sends when fed from `borders`.
    pub expected: BTreeMap<String, Vec<Vec<Sha256Hex>>>,
}

/// Everything that a bundle promises. Serialised without white space, fields in this order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Version of this format: 1.
    pub format: u32,
    /// What the model is for, e.g. `embeddings`; at most 64 bytes.
    pub task: String,
    /// Longest row along a symbolic axis (tokens, special tokens included), 1 to 2^24. Longer texts are truncated to it.
    pub max_positions: u64,
    /// Pooling that the last stage ends with.
    pub pooling: Option<Pooling>,
    /// Whether the last stage ends with an L2 normalisation.
    pub normalize: bool,
    /// Inputs of the model.
    pub inputs: Vec<TensorSpec>,
    /// Outputs of the model.
    pub outputs: Vec<TensorSpec>,
    /// 1 to 64 stages, in order.
    pub stages: Vec<Stage>,
    /// `tokenizer.json`.
    pub tokenizer: Option<BlobRef>,
    /// `config.json`.
    pub config: Option<BlobRef>,
    /// Which rows may share a batch.
    pub batching: Batching,
    /// Largest relative error (L2 norm of the difference over L2 norm of the reference), in parts per billion, of an honest answer
    /// from another engine class.
    pub tolerance_ppb: u64,
    /// Sample rows and what they become; its keys are the engine classes that the split was verified with.
    pub calibration: Calibration,
}

/// A manifest that promises what cannot be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    #[error("{text:?} is not 64 lower-case hexadecimal digits")]
    NotADigest { text: String },
    #[error("the manifest has format {found}, this program reads {expected}")]
    Format { found: u32, expected: u32 },
    #[error("{what} is {found}, {min} to {max} are allowed")]
    OutOfBounds {
        what: &'static str,
        found: u64,
        min: u64,
        max: u64,
    },
    #[error("stage {stage}: its digest is {computed}, the manifest says {stated}")]
    StageDigest {
        stage: usize,
        stated: Sha256Hex,
        computed: Sha256Hex,
    },
    #[error("stage {stage} begins at node {first_node}, which is not after the begin of the one before")]
    Overlap { stage: usize, first_node: u32 },
    #[error("stage {stage} does not receive what comes before it")]
    Border { stage: usize },
    #[error("the last stage does not send the outputs of the model")]
    Outputs,
    #[error("compute shares sum to {sum}, 10000 expected")]
    Shares { sum: u64 },
    #[error("stage {stage}: the weights have {found} bytes, the manifest says {stated}")]
    WeightBytes { stage: usize, stated: u64, found: u64 },
    #[error("stage {stage}: the weights are not sorted by digest or repeat one")]
    WeightOrder { stage: usize },
    #[error("stage {stage}: {name} is fed to the graph but not received")]
    UnknownFeed { stage: usize, name: String },
    #[error("tensor {name}: {problem}")]
    Tensor { name: String, problem: &'static str },
    #[error("calibration has {found} borders for {stages} stages")]
    Borders { found: usize, stages: usize },
    #[error("calibration of engine class {class} has not one digest per stage and row")]
    Expected { class: String },
}

fn within(what: &'static str, found: u64, min: u64, max: u64) -> Result<(), ManifestError> {
    if (min..=max).contains(&found) {
        return Ok(());
    }
    Err(ManifestError::OutOfBounds { what, found, min, max })
}

fn count(what: &'static str, found: usize, min: usize, max: usize) -> Result<(), ManifestError> {
    let wide = |value| u64::try_from(value).unwrap_or(u64::MAX);
    within(what, wide(found), wide(min), wide(max))
}

impl BlobRef {
    fn validate(&self) -> Result<(), ManifestError> {
        within("a blob's size", self.bytes, 0, BLOB_BYTES_MAX)
    }
}

impl Stage {
    /// The digest that belongs to these blobs.
    pub fn digest_of(graph: &BlobRef, weights: &[BlobRef]) -> Sha256Hex {
        let mut hasher = Sha256::new();
        hasher.update(b"fxn/stage/v1");
        hasher.update(graph.sha256.to_bytes());
        hasher.update(graph.bytes.to_be_bytes());
        hasher.update(u32::try_from(weights.len()).unwrap_or(u32::MAX).to_be_bytes());
        let mut sorted: Vec<_> = weights.iter().collect();
        sorted.sort();
        for weight in sorted {
            hasher.update(weight.sha256.to_bytes());
            hasher.update(weight.bytes.to_be_bytes());
        }
        Sha256Hex::from_bytes(hasher.finalize().into())
    }

    /// The sent tensors that the graph computes; the others are carried.
    pub fn computes(&self) -> impl Iterator<Item = &TensorSpec> {
        self.sends
            .iter()
            .filter(|sent| self.receives.iter().all(|received| received.name != sent.name))
    }

    fn validate(&self, stage: usize) -> Result<(), ManifestError> {
        count("a stage's number of weights", self.weights.len(), 0, WEIGHTS_MAX)?;
        self.graph.validate()?;
        self.weights.iter().try_for_each(BlobRef::validate)?;
        if !self.weights.windows(2).all(|pair| pair[0].sha256 < pair[1].sha256) {
            return Err(ManifestError::WeightOrder { stage });
        }
        let found = self
            .weights
            .iter()
            .fold(0, |sum: u64, weight| sum.saturating_add(weight.bytes));
        if found != self.weight_bytes {
            return Err(ManifestError::WeightBytes {
                stage,
                stated: self.weight_bytes,
                found,
            });
        }
        let computed = Self::digest_of(&self.graph, &self.weights);
        if computed != self.digest {
            return Err(ManifestError::StageDigest {
                stage,
                stated: self.digest.clone(),
                computed,
            });
        }
        within(
            "a stage's compute share",
            u64::from(self.compute_share_bps),
            1,
            u64::from(SHARE_TOTAL_BPS),
        )?;
        validate_specs(&self.receives)?;
        validate_specs(&self.sends)?;
        self.validate_names(stage)
    }

    fn validate_names(&self, stage: usize) -> Result<(), ManifestError> {
        count("a stage's number of feeds", self.feeds.len(), 1, TENSORS_MAX)?;
        for name in &self.feeds {
            if self.receives.iter().all(|spec| spec.name != *name) {
                return Err(ManifestError::UnknownFeed {
                    stage,
                    name: name.clone(),
                });
            }
        }
        for sent in &self.sends {
            if self
                .receives
                .iter()
                .any(|received| received.name == sent.name && received != sent)
            {
                return Err(ManifestError::Tensor {
                    name: sent.name.clone(),
                    problem: "is carried but changes its shape",
                });
            }
        }
        match self.computes().next() {
            Some(_) => Ok(()),
            None => Err(ManifestError::Border { stage }),
        }
    }
}

fn validate_specs(specs: &[TensorSpec]) -> Result<(), ManifestError> {
    count("a border's number of tensors", specs.len(), 1, TENSORS_MAX)?;
    let mut names = BTreeSet::new();
    for spec in specs {
        let tensor = |problem| {
            Err(ManifestError::Tensor {
                name: spec.name.chars().take(80).collect(),
                problem,
            })
        };
        if spec.name.is_empty() || spec.name.len() > NAME_BYTES_MAX || spec.name.chars().any(char::is_control) {
            return tensor("has an empty, overlong or unprintable name");
        }
        if !names.insert(&spec.name) {
            return tensor("is named twice");
        }
        if !matches!(spec.shape.split_first(), Some((Dim::Batch, row)) if !row.contains(&Dim::Batch)) {
            return tensor("does not have the batch axis first and only there");
        }
        if spec.row_shape().len() > RANK_MAX {
            return tensor("has too many axes");
        }
        let fine = |dim: &Dim| match dim {
            Dim::Batch => true,
            Dim::Fixed(length) => (1..=POSITIONS_MAX).contains(length),
            Dim::Positions(symbol) => (1..=NAME_BYTES_MAX).contains(&symbol.len()),
        };
        if !spec.shape.iter().all(fine) {
            return tensor("has an axis of impossible length");
        }
    }
    Ok(())
}

impl Manifest {
    /// The bytes that are stored and hashed.
    pub fn to_bytes(&self) -> Vec<u8> {
        // A struct of strings, numbers, lists and string-keyed maps always serialises.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// sha256 of [`Manifest::to_bytes`]: what goes on chain.
    pub fn digest(&self) -> Sha256Hex {
        Sha256Hex::of(&self.to_bytes())
    }

    /// Checks every promise that can be checked without the blobs.
    pub fn validate(&self) -> Result<(), ManifestError> {
        if self.format != FORMAT {
            return Err(ManifestError::Format {
                found: self.format,
                expected: FORMAT,
            });
        }
        count("the task's length", self.task.len(), 1, 64)?;
        within("max_positions", self.max_positions, 1, POSITIONS_MAX)?;
        within("tolerance_ppb", self.tolerance_ppb, 1, 1_000_000_000)?;
        count("the number of stages", self.stages.len(), 1, STAGES_MAX)?;
        validate_specs(&self.inputs)?;
        validate_specs(&self.outputs)?;
        for (index, stage) in self.stages.iter().enumerate() {
            stage.validate(index)?;
        }
        self.tokenizer
            .iter()
            .chain(&self.config)
            .try_for_each(BlobRef::validate)?;
        self.validate_order()?;
        self.validate_calibration()
    }

    fn validate_order(&self) -> Result<(), ManifestError> {
        let mut before = &self.inputs;
        let mut next_node = 0;
        for (index, stage) in self.stages.iter().enumerate() {
            if stage.first_node < next_node || (index == 0 && stage.first_node != 0) {
                return Err(ManifestError::Overlap {
                    stage: index,
                    first_node: stage.first_node,
                });
            }
            if stage.receives != *before {
                return Err(ManifestError::Border { stage: index });
            }
            next_node = stage.first_node.saturating_add(1);
            before = &stage.sends;
        }
        if *before != self.outputs {
            return Err(ManifestError::Outputs);
        }
        let sum = self
            .stages
            .iter()
            .fold(0, |sum: u64, stage| sum.saturating_add(stage.compute_share_bps.into()));
        match sum == u64::from(SHARE_TOTAL_BPS) {
            true => Ok(()),
            false => Err(ManifestError::Shares { sum }),
        }
    }

    fn validate_calibration(&self) -> Result<(), ManifestError> {
        let calibration = &self.calibration;
        let rows = usize::try_from(calibration.rows).unwrap_or(usize::MAX);
        count("the number of calibration rows", rows, 1, CALIBRATION_ROWS_MAX)?;
        let (found, stages) = (calibration.borders.len(), self.stages.len());
        if found != stages.saturating_add(1) {
            return Err(ManifestError::Borders { found, stages });
        }
        calibration.borders.iter().try_for_each(BlobRef::validate)?;
        count(
            "the number of engine classes",
            calibration.expected.len(),
            1,
            CLASSES_MAX,
        )?;
        for (class, expected) in &calibration.expected {
            let complete = expected.len() == stages && expected.iter().all(|digests| digests.len() == rows);
            if !complete || class.is_empty() || class.len() > NAME_BYTES_MAX || class.chars().any(char::is_control) {
                return Err(ManifestError::Expected {
                    class: class.chars().take(80).collect(),
                });
            }
        }
        Ok(())
    }
}
