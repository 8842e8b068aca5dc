//! From an export directory to a bundle: parse, pool, probe, plan, write, prove, and only then put it in place.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use crate::{
    bundle::{layout, Bundle},
    calibration::write_rows,
    draft::{self, Draft},
    emit::{typed, write_blob, Emitter},
    error::SplitError,
    graph::Graph,
    manifest::{BlobRef, Calibration, Manifest, Pooling, Sha256Hex, Stage, TensorSpec, FORMAT, STAGES_MAX},
    plan, pooling,
    prove::{self, Proof, Running},
    runtime::Runtime,
    shapes::{self, Shapes},
    source,
    tensor::{Row, Tensor},
};

/// How many stages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stages {
    /// Exactly this many, 1 to 64.
    Count(usize),
    /// As few as possible, none with more weights than this many bytes.
    MaxBytes(u64),
}

/// What a creator decides about a split.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SplitOptions {
    pub stages: Stages,
    /// What the model is for, e.g. `embeddings`; at most 64 bytes.
    pub task: String,
    /// Longest row along a symbolic axis; longer texts are truncated to it.
    pub max_positions: u64,
    /// Pooling to append; none where the graph ends with it already.
    pub pooling: Option<Pooling>,
    /// Whether to append an L2 normalisation.
    pub normalize: bool,
    /// Initialisers of at least this many bytes become blobs of their own, which stages and versions share.
    pub external_bytes_min: u64,
    /// Largest honest relative error across engine classes, in parts per billion. Measured for float32: honest up to 1 200,
    /// the mildest cheat (weights rounded to float16) 450 000.
    pub tolerance_ppb: u64,
}

impl SplitOptions {
    /// Options for a model of sentence embeddings: mean pooling, normalised.
    pub fn embeddings(stages: Stages, max_positions: u64) -> Self {
        Self {
            stages,
            task: "embeddings".to_owned(),
            max_positions,
            pooling: Some(Pooling::Mean),
            normalize: true,
            external_bytes_min: 64 << 10,
            tolerance_ppb: 20_000,
        }
    }
}

/// Splits the model of an export directory into a bundle at `out_dir`, which must not exist. `samples` are inputs of the graph, one row
/// each, without batch axis; at least two of different lengths where the graph has symbolic axes. On any error nothing is left.
pub fn split(
    source_dir: &Path,
    out_dir: &Path,
    options: &SplitOptions,
    runtime: &dyn Runtime,
    samples: &[Vec<(String, Tensor)>],
) -> Result<Bundle, SplitError> {
    check_options(options, samples.len())?;
    if out_dir.exists() {
        return Err(SplitError::TargetExists {
            path: out_dir.to_owned(),
        });
    }
    let path = source::model_path(source_dir)?;
    let mut graph = Graph::new(source::read_model(&path)?, &path, source_dir)?;
    pooling::append(&mut graph, options.pooling, options.normalize)?;
    let rows = shapes::sample_rows(&graph, samples, options.max_positions)?;

    let parent = match out_dir.parent() {
        Some(parent) if parent != Path::new("") => parent.to_owned(),
        _ => PathBuf::from("."),
    };
    let write = |path: &Path| {
        let path = path.to_owned();
        move |source| SplitError::Write { path, source }
    };
    std::fs::create_dir_all(&parent).map_err(write(&parent))?;
    let work = tempfile::Builder::new()
        .prefix(".fxn-split-")
        .tempdir_in(&parent)
        .map_err(write(&parent))?;
    let (manifest_path, blobs) = layout(work.path());
    std::fs::create_dir(&blobs).map_err(write(&blobs))?;
    let splitter = Splitter {
        graph: &graph,
        options,
        runtime,
        rows: &rows,
        source_dir,
        blobs,
    };
    let manifest = splitter.run()?;
    manifest.validate()?;
    std::fs::write(&manifest_path, manifest.to_bytes()).map_err(write(&manifest_path))?;
    std::fs::rename(work.path(), out_dir).map_err(write(out_dir))?;
    // The folder has its place now; there is nothing left to clean up.
    let _ = work.keep();
    Ok(Bundle::open(out_dir)?)
}

fn check_options(options: &SplitOptions, samples: usize) -> Result<(), SplitError> {
    let wide = |value: usize| u64::try_from(value).unwrap_or(u64::MAX);
    let within = |what, value, min, max| match (min..=max).contains(&value) {
        true => Ok(()),
        false => Err(SplitError::Option { what, value, min, max }),
    };
    if let Stages::Count(stages) = options.stages {
        within("stages", wide(stages), 1, wide(STAGES_MAX))?;
    }
    within("bytes of the task's name", wide(options.task.len()), 1, 64)?;
    within("positions", options.max_positions, 1, 1 << 24)?;
    within(
        "parts per billion of tolerance",
        options.tolerance_ppb,
        1,
        1_000_000_000,
    )?;
    within("sample rows", wide(samples), 1, 64)
}

struct Splitter<'a> {
    graph: &'a Graph,
    options: &'a SplitOptions,
    runtime: &'a dyn Runtime,
    rows: &'a [Row],
    source_dir: &'a Path,
    blobs: PathBuf,
}

impl Splitter<'_> {
    fn run(&self) -> Result<Manifest, SplitError> {
        let mut emitter = Emitter::new(self.graph, self.blobs.clone(), self.options.external_bytes_min);
        let shapes = shapes::probe(
            self.graph,
            &mut emitter,
            self.runtime,
            self.rows,
            self.options.max_positions,
        )?;
        emitter.declare(&shapes);
        let outputs = self.outputs(&shapes)?;
        let drafts = draft::drafts(self.graph, &shapes, self.options, &outputs)?;
        let shares = plan::shares_bps(&drafts.iter().map(|draft| draft.cost).collect::<Vec<_>>());
        let mut stages = Vec::with_capacity(drafts.len());
        for (draft, share) in drafts.iter().zip(shares) {
            stages.push(self.emit(&mut emitter, draft, share)?);
        }
        let proof = self.prove(&mut emitter, &stages, &outputs)?;
        Ok(Manifest {
            format: FORMAT,
            task: self.options.task.clone(),
            max_positions: self.options.max_positions,
            pooling: self.options.pooling,
            normalize: self.options.normalize,
            inputs: self.graph.inputs.clone(),
            outputs,
            stages,
            tokenizer: self.copy("tokenizer.json")?,
            config: self.copy("config.json")?,
            batching: proof.batching,
            tolerance_ppb: self.options.tolerance_ppb,
            calibration: self.calibrate(&proof)?,
        })
    }

    fn outputs(&self, shapes: &Shapes) -> Result<Vec<TensorSpec>, SplitError> {
        let spec = |output: &String| {
            let found = shapes.get(output).and_then(|seen| seen.spec(output));
            found.ok_or_else(|| SplitError::OutputShape { output: output.clone() })
        };
        self.graph.outputs.iter().map(spec).collect()
    }

    fn emit(&self, emitter: &mut Emitter<'_>, draft: &Draft, share: u32) -> Result<Stage, SplitError> {
        let inputs = draft
            .receives
            .iter()
            .filter(|spec| draft.feeds.contains(&spec.name))
            .map(typed)
            .collect();
        let carried = |spec: &&TensorSpec| draft.receives.iter().any(|received| received.name == spec.name);
        let outputs = draft.sends.iter().filter(|spec| !carried(spec)).map(typed).collect();
        let emitted = emitter.model(&draft.nodes, inputs, outputs)?;
        let graph = write_blob(&self.blobs, &emitted.bytes)?;
        Ok(Stage {
            digest: Stage::digest_of(&graph, &emitted.weights),
            weight_bytes: emitted
                .weights
                .iter()
                .fold(0, |sum: u64, weight| sum.saturating_add(weight.bytes)),
            graph,
            weights: emitted.weights,
            receives: draft.receives.clone(),
            sends: draft.sends.clone(),
            feeds: draft.feeds.clone(),
            first_node: u32::try_from(draft.first_node).unwrap_or(u32::MAX),
            compute_share_bps: share,
        })
    }

    fn prove(&self, emitter: &mut Emitter<'_>, stages: &[Stage], outputs: &[TensorSpec]) -> Result<Proof, SplitError> {
        let draft = Draft::whole(self.graph, outputs);
        let whole = self.emit(emitter, &draft, 1)?;
        let mut chain = stages
            .iter()
            .map(|stage| self.load(stage))
            .collect::<Result<Vec<_>, _>>()?;
        let proof = prove::prove(
            &mut self.load(&whole)?,
            &mut chain,
            self.rows,
            self.options.max_positions,
        )?;
        if stages.iter().all(|stage| stage.graph != whole.graph) {
            let path = self.blobs.join(whole.graph.sha256.as_str());
            std::fs::remove_file(&path).map_err(|source| SplitError::Write { path, source })?;
        }
        Ok(proof)
    }

    fn load<'s>(&self, stage: &'s Stage) -> Result<Running<'s>, SplitError> {
        let loaded = self.runtime.load(&self.blobs.join(stage.graph.sha256.as_str()))?;
        Ok(Running { stage, loaded })
    }

    fn calibrate(&self, proof: &Proof) -> Result<Calibration, SplitError> {
        let border = |rows: &Vec<Vec<u8>>| write_blob(&self.blobs, &write_rows(rows));
        let digests = |rows: &Vec<Vec<u8>>| rows.iter().map(|row| Sha256Hex::of(row)).collect();
        Ok(Calibration {
            rows: u32::try_from(self.rows.len()).unwrap_or(u32::MAX),
            borders: proof.borders.iter().map(border).collect::<Result<_, _>>()?,
            expected: BTreeMap::from([(
                self.runtime.engine_class(),
                proof.borders.iter().skip(1).map(digests).collect(),
            )]),
        })
    }

    /// A file of the export as a blob, where there is one.
    fn copy(&self, name: &str) -> Result<Option<BlobRef>, SplitError> {
        let path = self.source_dir.join(name);
        if !path.is_file() {
            return Ok(None);
        }
        let bytes = std::fs::read(&path).map_err(|source| SplitError::Read { path, source })?;
        write_blob(&self.blobs, &bytes).map(Some)
    }
}
