//! What runs a graph, seen from here: a seam, so that nothing in this crate names ONNX Runtime.

use std::path::{Path, PathBuf};

use crate::{
    batch::{self, BatchError},
    manifest::Stage,
    tensor::{Row, Tensor},
};

/// Loads graphs.
pub trait Runtime: Send + Sync {
    /// Names everything that decides bits: library and version, device, instruction set, precision, optimisation level.
    fn engine_class(&self) -> String;

    /// Whether a row has the same bits whatever rows share its batch, as far as the manifest allows sharing. Kernels of a CPU are known to
    /// keep them; libraries of a GPU choose another kernel for another size.
    fn batches_keep_bits(&self) -> bool {
        true
    }

    /// Loads an ONNX file; external data lies beside it.
    fn load(&self, graph: &Path) -> Result<Box<dyn Loaded>, RuntimeError>;
}

/// A graph ready to run. One owner at a time; it may move between threads.
pub trait Loaded: Send {
    /// Runs the graph on named inputs; returns all outputs, in the graph's order.
    fn run(&mut self, inputs: Vec<(String, Tensor)>) -> Result<Vec<(String, Tensor)>, RuntimeError>;
}

/// What went wrong inside the runtime.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    #[error("failed to load {graph}")]
    Load {
        graph: PathBuf,
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error("failed to run the graph")]
    Run {
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The same may go through when others have given memory back.
    #[error("the device has no memory left: {reason}")]
    OutOfMemory { reason: String },
    #[error("tensor {tensor} has element type {code}, which a row cannot carry")]
    DType { tensor: String, code: i32 },
}

/// Why a stage gave no rows.
#[derive(Debug, thiserror::Error)]
pub enum StageError {
    #[error(transparent)]
    Batch(#[from] BatchError),
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    #[error("the graph has no output {name}")]
    MissingOutput { name: String },
}

/// Runs a stage on rows: pads them into one batch, runs the graph, cuts the answer, carries along what the stage only passes on.
/// Whether rows may share a batch is the caller's to decide, by the manifest's `batching`.
pub fn run_stage(
    stage: &Stage,
    loaded: &mut dyn Loaded,
    rows: &[Row],
    max_positions: u64,
) -> Result<Vec<Row>, StageError> {
    let batch = batch::stack(rows, &stage.receives, max_positions)?;
    let named = stage.receives.iter().zip(batch.tensors);
    let feeds = named.filter(|(spec, _)| stage.feeds.contains(&spec.name));
    let mut outputs = loaded.run(feeds.map(|(spec, tensor)| (spec.name.clone(), tensor)).collect())?;
    let mut computed = Vec::new();
    for spec in stage.computes() {
        let Some(index) = outputs.iter().position(|(name, _)| *name == spec.name) else {
            return Err(StageError::MissingOutput {
                name: spec.name.clone(),
            });
        };
        computed.push(outputs.swap_remove(index).1);
    }
    let specs: Vec<_> = stage.computes().cloned().collect();
    let answers = batch::cut(&computed, &specs, &batch.lengths)?;
    Ok(rows
        .iter()
        .zip(answers)
        .map(|(received, answer)| sent_row(stage, received, answer))
        .collect())
}

/// The row to send: computed tensors and carried ones, in the order of `sends`.
fn sent_row(stage: &Stage, received: &Row, computed: Row) -> Row {
    let mut computed = computed.into_iter();
    let carried = |name: &str| stage.receives.iter().position(|spec| spec.name == name);
    let mut tensor = |name: &str| match carried(name) {
        Some(index) => received.get(index).cloned(),
        None => computed.next(),
    };
    stage.sends.iter().filter_map(|spec| tensor(&spec.name)).collect()
}
