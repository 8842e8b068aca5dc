//! A bundle on disk: `manifest.json` and `blobs/<sha256>`.
//!
//! Guarantees: a manifest that opens is canonical and valid; a stage that verifies has every blob with the digest and size that the manifest
//! states, and a graph that refers to nothing but those blobs and consumes and makes exactly what the manifest says. Verifying and loading are two
//! reads: who does not trust the disk in between has lost anyway.

use std::{
    collections::BTreeSet,
    fs::File,
    io::Read,
    path::{Path, PathBuf},
};

use prost::Message;
use sha2::{Digest, Sha256};

use crate::{
    calibration::{read_rows, StageCalibration},
    manifest::{BlobRef, Manifest, ManifestError, Sha256Hex, Stage},
    proto::{tensor_proto::DataLocation, GraphProto, ModelProto, TensorProto},
};

/// Largest manifest: 64 stages of thousands of weights stay far below.
const MANIFEST_BYTES_MAX: u64 = 16 << 20;
/// Largest blob that is read into memory whole: graphs, calibration rows, tokenisers. Weights are only hashed.
const READ_BYTES_MAX: u64 = 512 << 20;
const MANIFEST: &str = "manifest.json";
const BLOBS: &str = "blobs";

/// Content that is not what the manifest promises.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    #[error("failed to read {path}")]
    Read { path: PathBuf, source: std::io::Error },
    #[error("the manifest has {bytes} bytes, at most {limit} are allowed")]
    ManifestTooLarge { bytes: u64, limit: u64 },
    #[error("the manifest is not valid JSON of this format: {source}")]
    Json { source: serde_json::Error },
    #[error("the manifest is not in canonical form, so its digest would be ambiguous")]
    NotCanonical,
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    #[error("blob {expected} is missing")]
    Missing { expected: Sha256Hex },
    #[error("blob {expected} has {found} bytes, {stated} expected")]
    Size {
        expected: Sha256Hex,
        found: u64,
        stated: u64,
    },
    #[error("blob {expected} has the digest {found}: its bytes were changed")]
    Digest { expected: Sha256Hex, found: Sha256Hex },
    #[error("blob {blob} has {bytes} bytes, at most {limit} are read")]
    BlobTooLarge { blob: Sha256Hex, bytes: u64, limit: u64 },
    #[error("there is no stage {stage}; the model has {stages}")]
    NoStage { stage: usize, stages: usize },
    #[error("the graph of stage {stage} is not ONNX: {source}")]
    NotOnnx { stage: usize, source: prost::DecodeError },
    #[error("the graph of stage {stage}: {problem} {name:?}")]
    Graph {
        stage: usize,
        problem: &'static str,
        name: String,
    },
    #[error("calibration blob {blob} is not a list of {rows} rows")]
    Calibration { blob: Sha256Hex, rows: u32 },
}

impl Manifest {
    /// The manifest that these bytes are, if they are one in canonical form and it passes [`Manifest::validate`].
    pub fn from_bytes(text: &[u8]) -> Result<Self, BundleError> {
        let bytes = u64::try_from(text.len()).unwrap_or(u64::MAX);
        if bytes > MANIFEST_BYTES_MAX {
            let limit = MANIFEST_BYTES_MAX;
            return Err(BundleError::ManifestTooLarge { bytes, limit });
        }
        let parsed: Self = serde_json::from_slice(text).map_err(|source| BundleError::Json { source })?;
        parsed.validate()?;
        match parsed.to_bytes() == text {
            true => Ok(parsed),
            false => Err(BundleError::NotCanonical),
        }
    }
}

/// A manifest and the folder where its blobs lie.
#[derive(Clone, Debug)]
pub struct Bundle {
    manifest: Manifest,
    digest: Sha256Hex,
    blobs: PathBuf,
}

impl Bundle {
    /// Opens a bundle directory. Reads the manifest only.
    pub fn open(directory: &Path) -> Result<Self, BundleError> {
        let path = directory.join(MANIFEST);
        let read = |source| BundleError::Read {
            path: path.clone(),
            source,
        };
        let mut bytes = Vec::new();
        let limit = MANIFEST_BYTES_MAX.saturating_add(1);
        File::open(&path)
            .map_err(read)?
            .take(limit)
            .read_to_end(&mut bytes)
            .map_err(read)?;
        Self::with_store(&bytes, &directory.join(BLOBS))
    }

    /// A manifest that came from elsewhere, over a folder of blobs named by their digests. Blobs of stages that nobody asks for may be missing.
    pub fn with_store(manifest: &[u8], blobs: &Path) -> Result<Self, BundleError> {
        Ok(Self {
            digest: Sha256Hex::of(manifest),
            manifest: Manifest::from_bytes(manifest)?,
            blobs: blobs.to_owned(),
        })
    }

    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// sha256 of the manifest's bytes: the model version's identity on chain.
    pub fn digest(&self) -> &Sha256Hex {
        &self.digest
    }

    /// Where a blob lies, or would lie.
    pub fn blob_path(&self, blob: &BlobRef) -> PathBuf {
        self.blobs.join(blob.sha256.as_str())
    }

    /// A stage, by its place in the chain.
    pub fn stage(&self, stage: usize) -> Result<&Stage, BundleError> {
        let stages = self.manifest.stages.len();
        self.manifest
            .stages
            .get(stage)
            .ok_or(BundleError::NoStage { stage, stages })
    }

    /// Every blob that serving this stage takes: graph, weights, and the calibration rows at its two borders.
    pub fn stage_blobs(&self, stage: usize) -> Result<Vec<&BlobRef>, BundleError> {
        let found = self.stage(stage)?;
        let borders = self.manifest.calibration.borders.iter().skip(stage).take(2);
        Ok(std::iter::once(&found.graph)
            .chain(&found.weights)
            .chain(borders)
            .collect())
    }

    /// Reads a blob (not a weight) after checking its size and digest.
    pub fn read_blob(&self, blob: &BlobRef) -> Result<Vec<u8>, BundleError> {
        if blob.bytes > READ_BYTES_MAX {
            let (blob, bytes) = (blob.sha256.clone(), blob.bytes);
            return Err(BundleError::BlobTooLarge {
                blob,
                bytes,
                limit: READ_BYTES_MAX,
            });
        }
        let mut file = self.open_blob(blob)?;
        let mut bytes = Vec::with_capacity(usize::try_from(blob.bytes).unwrap_or_default());
        let path = self.blob_path(blob);
        file.read_to_end(&mut bytes)
            .map_err(|source| BundleError::Read { path, source })?;
        check_digest(blob, Sha256Hex::of(&bytes))?;
        Ok(bytes)
    }

    /// Checks size and digest of a blob of any size, without holding it in memory.
    pub fn verify_blob(&self, blob: &BlobRef) -> Result<(), BundleError> {
        let mut file = self.open_blob(blob)?;
        let mut hasher = Sha256::new();
        let copied = std::io::copy(&mut file, &mut hasher);
        copied.map_err(|source| BundleError::Read {
            path: self.blob_path(blob),
            source,
        })?;
        check_digest(blob, Sha256Hex::from_bytes(hasher.finalize().into()))
    }

    /// Checks every blob of a stage and that its graph keeps to them; returns where the graph lies, for a runtime to load.
    pub fn verify_stage(&self, stage: usize) -> Result<PathBuf, BundleError> {
        let found = self.stage(stage)?;
        found.weights.iter().try_for_each(|weight| self.verify_blob(weight))?;
        let bytes = self.read_blob(&found.graph)?;
        let model = ModelProto::decode(bytes.as_slice()).map_err(|source| BundleError::NotOnnx { stage, source })?;
        check_graph(stage, found, &model)?;
        Ok(self.blob_path(&found.graph))
    }

    /// The sample rows at the borders of a stage, read and verified.
    pub fn calibration(&self, stage: usize) -> Result<StageCalibration, BundleError> {
        self.stage(stage)?;
        let calibration = &self.manifest.calibration;
        let rows = |border: usize| {
            let blob = &calibration.borders[border];
            let malformed = || BundleError::Calibration {
                blob: blob.sha256.clone(),
                rows: calibration.rows,
            };
            read_rows(&self.read_blob(blob)?, calibration.rows).ok_or_else(malformed)
        };
        let expected = calibration
            .expected
            .iter()
            .map(|(class, stages)| (class.clone(), stages[stage].clone()));
        Ok(StageCalibration {
            received: rows(stage)?,
            reference: rows(stage.saturating_add(1))?,
            expected: expected.collect(),
        })
    }

    fn open_blob(&self, blob: &BlobRef) -> Result<File, BundleError> {
        let path = self.blob_path(blob);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(BundleError::Missing {
                    expected: blob.sha256.clone(),
                });
            }
            Err(source) => return Err(BundleError::Read { path, source }),
        };
        let found = file
            .metadata()
            .map_err(|source| BundleError::Read { path, source })?
            .len();
        match found == blob.bytes {
            true => Ok(file),
            false => Err(BundleError::Size {
                expected: blob.sha256.clone(),
                found,
                stated: blob.bytes,
            }),
        }
    }
}

fn check_digest(blob: &BlobRef, found: Sha256Hex) -> Result<(), BundleError> {
    match blob.sha256 == found {
        true => Ok(()),
        false => Err(BundleError::Digest {
            expected: blob.sha256.clone(),
            found,
        }),
    }
}

/// A graph made by a stranger may try to read files through external data, or hide some in a subgraph or function.
fn check_graph(stage: usize, facts: &Stage, model: &ModelProto) -> Result<(), BundleError> {
    let refuse = |problem, name: &str| {
        Err(BundleError::Graph {
            stage,
            problem,
            name: name.chars().take(80).collect(),
        })
    };
    let Some(graph) = &model.graph else {
        return refuse("has no graph", "");
    };
    if let Some(function) = model.functions.first() {
        return refuse("defines a local function", function.name());
    }
    if let Some(sparse) = graph.sparse_initializer.first() {
        return refuse(
            "has a sparse initialiser",
            sparse.values.as_ref().map_or("", TensorProto::name),
        );
    }
    for node in &graph.node {
        for attribute in &node.attribute {
            let external = |tensor: &TensorProto| tensor.data_location() == DataLocation::External;
            let tensors = attribute.t.iter().chain(&attribute.tensors);
            if attribute.g.is_some() || !attribute.graphs.is_empty() || attribute.sparse_tensor.is_some() {
                return refuse("has a subgraph or sparse tensor in node", node.name());
            }
            if tensors.into_iter().any(external) {
                return refuse("refers to a file from node", node.name());
            }
        }
    }
    check_weights(stage, facts, graph)?;
    let names = |values: &[crate::proto::ValueInfoProto]| -> BTreeSet<String> {
        values.iter().map(|value| value.name().to_owned()).collect()
    };
    if names(&graph.input) != facts.feeds.iter().cloned().collect() {
        return refuse(
            "does not consume what the manifest feeds it, from",
            facts.feeds.first().map_or("", String::as_str),
        );
    }
    if names(&graph.output) != facts.computes().map(|spec| spec.name.clone()).collect() {
        return refuse("does not make what the manifest says it sends", "");
    }
    Ok(())
}

fn check_weights(stage: usize, facts: &Stage, graph: &GraphProto) -> Result<(), BundleError> {
    for tensor in &graph.initializer {
        let refuse = |problem| {
            Err(BundleError::Graph {
                stage,
                problem,
                name: tensor.name().chars().take(80).collect(),
            })
        };
        if tensor.data_location() != DataLocation::External {
            continue;
        }
        let field = |key: &str| {
            tensor
                .external_data
                .iter()
                .find(|entry| entry.key() == key)
                .map(|entry| entry.value())
        };
        let location = field("location").unwrap_or_default();
        let Some(weight) = facts.weights.iter().find(|weight| weight.sha256.as_str() == location) else {
            return refuse("refers to a file that is none of its weights, for initialiser");
        };
        let whole = field("offset") == Some("0") && field("length") == Some(weight.bytes.to_string().as_str());
        if !whole || tensor.external_data.len() != 3 {
            return refuse("does not use the whole weight for initialiser");
        }
    }
    Ok(())
}

/// Names of the two things in a bundle directory, for the splitter that makes one.
pub(crate) fn layout(directory: &Path) -> (PathBuf, PathBuf) {
    (directory.join(MANIFEST), directory.join(BLOBS))
}
