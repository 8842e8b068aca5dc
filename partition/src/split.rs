//! From an export directory to a bundle: parse, pool, probe, plan, write, prove, and only then put it in place.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use crate::{
    bundle::{layout, Bundle},
    calibration::write_rows,
    draft::{Draft, Planner},
    emit::{typed, write_blob, Emitter},
    error::SplitError,
    graph::Graph,
    manifest::{BlobRef, Calibration, Manifest, Sha256Hex, Stage, TensorSpec, FORMAT, STAGES_MAX},
    options::{SplitOptions, Stages},
    plan, pooling,
    prove::{self, Difference, Passage, Prover},
    runtime::Runtime,
    shapes::{self, Shapes},
    source,
    tensor::{Row, Tensor},
};

/// Splits the model of an export directory into a bundle at `out_dir`, which must not exist. `samples` are inputs of the graph, one row
/// each, without batch axis; at least two of different lengths where the graph has symbolic axes. On any error nothing is left.
pub fn split(
    source_dir: &Path,
    out_dir: &Path,
    options: &SplitOptions,
    runtime: &dyn Runtime,
    samples: &[Vec<(String, Tensor)>],
) -> Result<Bundle, SplitError> {
    split_and_report(source_dir, out_dir, options, runtime, samples).map(|(bundle, _)| bundle)
}

/// [`split`], and how it came about.
pub fn split_and_report(
    source_dir: &Path,
    out_dir: &Path,
    options: &SplitOptions,
    runtime: &dyn Runtime,
    samples: &[Vec<(String, Tensor)>],
) -> Result<(Bundle, Report), SplitError> {
    check_options(options, samples.len())?;
    if out_dir.exists() {
        return Err(SplitError::TargetExists {
            path: out_dir.to_owned(),
        });
    }
    let path = source::model_path(source_dir)?;
    let mut graph = Graph::new(source::read_model(&path)?, &path, Some(source_dir))?;
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
    let (manifest, report) = splitter.run()?;
    manifest.validate()?;
    std::fs::write(&manifest_path, manifest.to_bytes()).map_err(write(&manifest_path))?;
    std::fs::rename(work.path(), out_dir).map_err(write(out_dir))?;
    // The folder has its place now; there is nothing left to clean up.
    let _ = work.keep();
    Ok((Bundle::open(out_dir)?, report))
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

/// How a split came about: what no bundle says, because nobody who serves it needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Nodes of the graph, after constants were lifted out and dead nodes dropped.
    pub nodes: usize,
    /// Bytes per row of the activations that cross each border, at the samples' length.
    pub crossing_bytes: Vec<u64>,
    /// Cuts that were tried and changed bits, in order: one plan each.
    pub replanned: Vec<FailedCut>,
}

/// A cut that did not keep the bits of the whole graph.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailedCut {
    /// Index of the node before which the cut was.
    pub node: usize,
    /// What crossed there.
    pub tensors: Vec<String>,
    pub why: String,
}

/// Largest tokenizer or configuration; real ones stay below a quarter of it.
const COPY_BYTES_MAX: u64 = 64 << 20;

/// Plans before a split is given up: each costs a load of every stage.
const PLANS_MAX: usize = 16;

struct Splitter<'a> {
    graph: &'a Graph,
    options: &'a SplitOptions,
    runtime: &'a dyn Runtime,
    rows: &'a [Row],
    source_dir: &'a Path,
    blobs: PathBuf,
}

/// Stages that answer like the whole graph, and the samples at all their borders.
struct Proven {
    stages: Vec<Stage>,
    borders: Vec<Passage>,
    report: Report,
}

impl Splitter<'_> {
    fn run(&self) -> Result<(Manifest, Report), SplitError> {
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
        let planner = Planner::new(self.graph, &shapes, self.options, &outputs);
        let whole = self.emit(&mut emitter, &Draft::whole(self.graph, &outputs), 1)?;
        let prover = self.prover();
        let (inputs, expected, batching) = prover.reference(&whole, self.rows, self.graph.batch)?;
        let proven = self.search(&mut emitter, &planner, &inputs, &expected)?;
        self.drop_graphs(&emitter, &proven.stages)?;
        let manifest = Manifest {
            format: FORMAT,
            task: self.options.task.clone(),
            max_positions: self.options.max_positions,
            pooling: self.options.pooling,
            normalize: self.options.normalize,
            inputs: self.graph.inputs.clone(),
            outputs: outputs.clone(),
            tokenizer: self.copy("tokenizer.json")?,
            config: self.copy("config.json")?,
            batching,
            tolerance_ppb: self.options.tolerance_ppb,
            calibration: self.calibrate(&proven.borders)?,
            stages: proven.stages,
        };
        Ok((manifest, proven.report))
    }

    /// The best plan that keeps every bit: where one does not, the cut that changed them is forbidden and the next best is tried.
    fn search(
        &self,
        emitter: &mut Emitter<'_>,
        planner: &Planner<'_>,
        inputs: &Passage,
        expected: &Passage,
    ) -> Result<Proven, SplitError> {
        let (mut forbidden, mut failed) = (BTreeSet::new(), Vec::new());
        for _ in 0..PLANS_MAX {
            let drafts = match planner.plan(&forbidden) {
                Ok(drafts) => drafts,
                Err(error) if failed.is_empty() => return Err(error),
                Err(_) => break,
            };
            let shares = plan::shares_bps(&drafts.iter().map(|draft| draft.cost).collect::<Vec<_>>());
            let mut stages = Vec::with_capacity(drafts.len());
            for (draft, share) in drafts.iter().zip(shares) {
                stages.push(self.emit(emitter, draft, share)?);
            }
            let (cut, why) = match self.prove(&stages, inputs, expected)? {
                Trial::Proven(borders) => {
                    let crossing = drafts.iter().skip(1).map(|draft| draft.crossing_bytes);
                    let report = Report {
                        nodes: self.graph.nodes.len(),
                        crossing_bytes: crossing.collect(),
                        replanned: failed,
                    };
                    return Ok(Proven {
                        stages,
                        borders,
                        report,
                    });
                }
                Trial::NoRow { cut, error } => (cut, error.to_string()),
                Trial::Differs(borders, difference) => {
                    let Some(last) = drafts.len().checked_sub(1).filter(|last| *last > 0) else {
                        return Err(SplitError::NotRepeatable {
                            sample: difference.sample,
                            how: difference.how,
                        });
                    };
                    let cut = self
                        .culprit(emitter, planner, &drafts, &borders, expected)?
                        .unwrap_or(last);
                    let Difference { sample, how } = difference;
                    (cut, format!("sample {sample} gets other bits when {how}"))
                }
            };
            let node = drafts[cut].first_node;
            let carried = |spec: &&TensorSpec| self.graph.input(&spec.name).is_none();
            let tensors = drafts[cut].receives.iter().filter(carried);
            let tensors = tensors.map(|spec| spec.name.clone()).collect();
            forbidden.insert(node);
            failed.push(FailedCut { node, tensors, why });
        }
        Err(SplitError::NotIdentical { tried: failed })
    }

    /// Passes the samples through the stages.
    fn prove(&self, stages: &[Stage], inputs: &Passage, expected: &Passage) -> Result<Trial, SplitError> {
        let (prover, mut borders) = (self.prover(), vec![inputs.clone()]);
        for (index, stage) in stages.iter().enumerate() {
            let before = borders.last().unwrap_or(inputs);
            match prover.pass(stage, before) {
                Ok(after) => borders.push(after),
                // A row that cannot be made of what this stage sends.
                Err(error) if prove::blames_the_border(&error) && index.saturating_add(1) < stages.len() => {
                    let cut = index.saturating_add(1);
                    return Ok(Trial::NoRow { cut, error });
                }
                Err(error) => return Err(error),
            }
        }
        let difference = borders.last().unwrap_or(inputs).difference(expected);
        Ok(match difference {
            None => Trial::Proven(borders),
            Some(difference) => Trial::Differs(borders, difference),
        })
    }

    /// The first cut after which all the rest, as one stage, does not answer like the whole graph; nothing if it is the last one.
    fn culprit(
        &self,
        emitter: &mut Emitter<'_>,
        planner: &Planner<'_>,
        drafts: &[Draft],
        borders: &[Passage],
        expected: &Passage,
    ) -> Result<Option<usize>, SplitError> {
        let last = drafts.len().saturating_sub(1);
        for (cut, (draft, border)) in drafts.iter().zip(borders).enumerate().take(last).skip(1) {
            let rest = self.emit(emitter, &planner.rest(draft), 1)?;
            if self.prover().pass(&rest, border)?.difference(expected).is_some() {
                return Ok(Some(cut));
            }
        }
        Ok(None)
    }

    fn prover(&self) -> Prover<'_> {
        Prover {
            runtime: self.runtime,
            blobs: &self.blobs,
            max_positions: self.options.max_positions,
        }
    }

    /// Removes the graphs that were written for the proof and belong to no stage.
    fn drop_graphs(&self, emitter: &Emitter<'_>, stages: &[Stage]) -> Result<(), SplitError> {
        let left = |graph: &&Sha256Hex| stages.iter().all(|stage| stage.graph.sha256 != **graph);
        for graph in emitter.graphs().filter(left) {
            let path = self.blobs.join(graph.as_str());
            std::fs::remove_file(&path).map_err(|source| SplitError::Write { path, source })?;
        }
        Ok(())
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
            .map(|spec| typed(spec, self.graph.batch))
            .collect();
        let carried = |spec: &&TensorSpec| draft.receives.iter().any(|received| received.name == spec.name);
        let computed = draft.sends.iter().filter(|spec| !carried(spec));
        let outputs = computed.map(|spec| typed(spec, self.graph.batch)).collect();
        let emitted = emitter.model(&draft.nodes, inputs, outputs)?;
        let graph = emitter.write_graph(&emitted.bytes)?;
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

    fn calibrate(&self, borders: &[Passage]) -> Result<Calibration, SplitError> {
        let blob = |border: &Passage| write_blob(&self.blobs, &write_rows(&border.alone));
        let digests = |border: &Passage| border.alone.iter().map(|row| Sha256Hex::of(row)).collect();
        Ok(Calibration {
            rows: u32::try_from(self.rows.len()).unwrap_or(u32::MAX),
            borders: borders.iter().map(blob).collect::<Result<_, _>>()?,
            expected: BTreeMap::from([(
                self.runtime.engine_class(),
                borders.iter().skip(1).map(digests).collect(),
            )]),
        })
    }

    /// A file of the export as a blob, where there is one.
    fn copy(&self, name: &str) -> Result<Option<BlobRef>, SplitError> {
        let path = self.source_dir.join(name);
        match std::fs::metadata(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(SplitError::Read { path, source }),
            Ok(facts) if !facts.is_file() => return Err(SplitError::NotAFile { path }),
            Ok(facts) if facts.len() > COPY_BYTES_MAX => {
                let (bytes, limit) = (facts.len(), COPY_BYTES_MAX);
                return Err(SplitError::FileTooLarge { path, bytes, limit });
            }
            Ok(_) => {}
        }
        let path = source::inside(self.source_dir, path)?;
        let bytes = std::fs::read(&path).map_err(|source| SplitError::Read { path, source })?;
        write_blob(&self.blobs, &bytes).map(Some)
    }
}

/// What came of a plan.
enum Trial {
    Proven(Vec<Passage>),
    Differs(Vec<Passage>, Difference),
    /// The cut at which something crosses that makes no row.
    NoRow {
        cut: usize,
        error: SplitError,
    },
}
