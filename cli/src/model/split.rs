//! `fxn model split`: from an ONNX export to a bundle that has proven itself.

use std::path::PathBuf;

use anyhow::{bail, Context as _};
use clap::{ArgGroup, Args, ValueEnum};
use partition::{model_inputs, Bundle, Dim, ModelInput, Pooling, Runtime, SplitOptions, Stages};
use serde::Serialize;

use super::samples::{self, Sample};
use crate::{context::Context, engine::Library, progress::Progress};

/// Sample texts with which a split proves itself and hosts prove themselves: of many lengths, scripts and kinds, because a mistake may
/// show in one of them only.
const SAMPLES: [&str; 16] = [
    "Hello",
    "A quick brown fox jumps over the lazy dog.",
    "Der Zug nach München fährt heute ausnahmsweise von Gleis sieben ab.",
    "今天的天气很好,我们一起去公园散步吧。",
    "Вчера вечером мы долго говорили о том, как устроены рынки вычислений.",
    "السوق المفتوحة تحتاج إلى قواعد واضحة يفهمها الجميع.",
    "😀🚀🔥🌍🤖 🎉",
    "fn main() { println!(\"{}\", (1..=10).map(|n| n * n).sum::<u64>()); }",
    "{\"model\": \"all-minilm-l6-v2\", \"input\": [\"one\", \"two\"], \"dimensions\": null}",
    "3.14159265358979323846 2.71828182845904523536 1.41421356237309504880",
    "https://example.org/path/to/page?query=embedding&lang=en#section-2",
    "    indentation and\ttabs   survive only as   whitespace",
    "!!! ??? ... --- ,,, ;;; ::: ((( )))",
    "The provider that delivers the compute is paid for the compute, and nobody else is.",
    "An open market for inference works when three things are true at once: whoever publishes a model is paid each time it is used, \
     whoever runs it is paid for what was computed and for nothing else, and whoever asks can check that the answer is the one the \
     model gives. None of the three follows from good intentions; each needs a rule that somebody can enforce.",
    "Once upon a time a small village by the river decided to share its only mill. Every family brought grain on its own day, and the \
     miller wrote each sack into a thick book with a leather cover. In the first year nobody read the book. In the second year a \
     stranger asked whose flour was whose, and from then on every page had two signatures: one of the miller, and one of the \
     neighbour who had carried the sack. When the mill stood still for a week because a stone had cracked, the book said exactly who \
     had to wait, who was owed a day, and who would pay for the new stone. The village grew, a second mill was built and then a \
     third, and the same book, copied page by page, was enough for all of them. People from other valleys came to see it and were \
     surprised to find nothing but numbers and names.",
];

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("size").required(true))]
pub(crate) struct Split {
    /// Folder of the ONNX export: model.onnx, and config.json and tokenizer.json where the model has them
    pub(crate) source: PathBuf,
    /// Folder of the bundle; it must not exist
    pub(crate) bundle: PathBuf,
    /// Number of stages
    #[arg(long, value_name = "N", group = "size")]
    pub(crate) stages: Option<usize>,
    /// As few stages as possible, none with more weights than this
    #[arg(long, value_name = "BYTES", group = "size")]
    pub(crate) max_stage_bytes: Option<u64>,
    /// What the model is for [default: as the export's own files say]
    #[arg(long)]
    pub(crate) task: Option<String>,
    /// Longest row along a symbolic axis; longer texts are truncated [default: as the export's own files say]
    #[arg(long, value_name = "N")]
    pub(crate) max_positions: Option<u64>,
    /// Pooling to append to the graph [default: as the export's own files say]
    #[arg(long, value_enum)]
    pub(crate) pooling: Option<PoolingName>,
    /// Whether to append an L2 normalisation [default: as the export's own files say]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    pub(crate) normalize: Option<bool>,
    /// Rows with which the split proves itself, at most 64: a file of texts, one a line, or safetensors files, one row each, or a folder of
    /// them. May be given several times [default: built-in texts; without tokenizer.json, random numbers from a fixed seed]
    #[arg(long, value_name = "FILE")]
    pub(crate) samples: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) library: Library,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum PoolingName {
    /// Mean over the real tokens
    Mean,
    /// As the graph ends
    None,
}

#[derive(Debug, Serialize)]
struct Made {
    bundle: PathBuf,
    manifest: String,
    stages: usize,
    engine_class: String,
}

pub(crate) fn run(context: &Context, split: &Split) -> anyhow::Result<()> {
    let progress = Progress::for_people();
    progress.step("loading ONNX Runtime");
    let runtime = split.library.load()?;
    progress.step(&format!(
        "splitting {} and proving the stages against the whole graph",
        split.source.display()
    ));
    let bundle = split_with(split, &runtime)?;
    progress.finish();
    let made = Made {
        bundle: split.bundle.clone(),
        manifest: bundle.digest().to_string(),
        stages: bundle.manifest().stages.len(),
        engine_class: runtime.engine_class(),
    };
    let sentence = format!(
        "{} stages in {}; manifest {}",
        made.stages,
        made.bundle.display(),
        made.manifest
    );
    context.output.done(&made, sentence)
}

/// Splits and proves.
pub(crate) fn split_with(split: &Split, runtime: &dyn Runtime) -> anyhow::Result<Bundle> {
    let stages = match (split.stages, split.max_stage_bytes) {
        (Some(count), _) => Stages::Count(count),
        (None, Some(bytes)) => Stages::MaxBytes(bytes),
        (None, None) => Stages::Count(1),
    };
    let inputs = match takes_text(split) {
        true => vec![],
        false => model_inputs(&split.source).with_context(|| cannot_be_split(split))?,
    };
    let options = options(split, stages, &inputs)?;
    let samples = samples(split, &options, &inputs)?;
    partition::split(&split.source, &split.bundle, &options, runtime, &samples).with_context(|| cannot_be_split(split))
}

fn cannot_be_split(split: &Split) -> String {
    format!("{} cannot be split", split.source.display())
}

/// What the export says about itself, and what the flags say instead.
fn options(split: &Split, stages: Stages, inputs: &[ModelInput]) -> anyhow::Result<SplitOptions> {
    let mut options = SplitOptions::for_export(&split.source, stages)?;
    if let Some(task) = &split.task {
        options.task.clone_from(task);
    }
    if let Some(pooling) = split.pooling {
        options.pooling = match pooling {
            PoolingName::Mean => Some(Pooling::Mean),
            PoolingName::None => None,
        };
    }
    // A model of tensors that says nothing has the default of 1, which is right only where no axis is symbolic.
    let symbolic = inputs.iter().find_map(|input| {
        let axes = input.spec.row_shape().iter();
        let mut symbols = axes.filter(|axis| matches!(axis, Dim::Positions(_)));
        symbols.next().map(|axis| (input, axis))
    });
    if let (Some((input, Dim::Positions(symbol))), None, 1) = (symbolic, split.max_positions, options.max_positions) {
        bail!(
            "input {} has an axis {symbol} of any length: --max-positions says how long it may be",
            input.spec.name
        );
    }
    options.max_positions = split.max_positions.unwrap_or(options.max_positions);
    options.normalize = split.normalize.unwrap_or(options.normalize);
    Ok(options)
}

/// Whether the samples are texts. What the inputs of such a model are, its tokenizer knows.
fn takes_text(split: &Split) -> bool {
    split.source.join("tokenizer.json").is_file() && !samples::are_rows(&split.samples)
}

fn samples(split: &Split, options: &SplitOptions, inputs: &[ModelInput]) -> anyhow::Result<Vec<Sample>> {
    let (most, files) = (options.max_positions, &split.samples);
    match (takes_text(split), files.as_slice()) {
        (true, files) => samples::of_texts(&split.source, most, files, &SAMPLES),
        (false, []) => samples::drawn(inputs, most),
        (false, files) if samples::are_rows(files) => samples::of_files(inputs, most, files),
        (false, _) => {
            bail!("the model has no tokenizer.json, so its samples are .safetensors files, or a folder of them")
        }
    }
}
