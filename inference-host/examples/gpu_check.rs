//! Compares a GPU with the CPU, stage by stage, and times both: `gpu_check BUNDLE [--device cuda:0] [--markdown FILE]`.
//!
//! Needs nothing but itself, a bundle and the library: it runs on a machine that has none of our sources. `scripts/gpu-check.sh` calls it. It ends
//! with 1 where a stage on the GPU is further from the CPU than the bundle's tolerance, and with 2 where there is no GPU to compare.

use std::{
    collections::BTreeSet,
    fmt::Write as _,
    path::PathBuf,
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{bail, ensure, Context, Result};
use inference_host::onnx::{find_library, Device, OnnxRuntime, DEVICE_MEMORY_BYTES_MAX};
use partition::{row, run_stage, Batching, Bundle, Loaded, Manifest, Row, Runtime, Stage};

const BATCHES: [usize; 3] = [1, 8, 32];
/// Runs whose bits are compared.
const REPEATS: usize = 20;
const USAGE: &str = "gpu_check BUNDLE [--device cuda:0] [--onnxruntime FILE|DIR] [--seconds N] [--markdown FILE]";

struct Options {
    bundle: PathBuf,
    device: Device,
    onnxruntime: Option<PathBuf>,
    /// How long each side is timed, per stage and batch.
    time: Duration,
    markdown: Option<PathBuf>,
}

impl Options {
    fn read(mut arguments: impl Iterator<Item = String>) -> Result<Self> {
        let mut options = Self {
            bundle: PathBuf::new(),
            device: Device::Cuda(0),
            onnxruntime: None,
            time: Duration::from_secs(2),
            markdown: None,
        };
        while let Some(argument) = arguments.next() {
            let mut value = || {
                arguments
                    .next()
                    .with_context(|| format!("{argument} needs a value: {USAGE}"))
            };
            match argument.as_str() {
                "--device" => options.device = value()?.parse()?,
                "--onnxruntime" => options.onnxruntime = Some(value()?.into()),
                "--seconds" => options.time = Duration::try_from_secs_f64(value()?.parse()?)?,
                "--markdown" => options.markdown = Some(value()?.into()),
                flag if flag.starts_with('-') => bail!("{flag} is unknown: {USAGE}"),
                bundle if options.bundle.as_os_str().is_empty() => options.bundle = bundle.into(),
                more => bail!("{more} is one argument too many: {USAGE}"),
            }
        }
        ensure!(
            !options.bundle.as_os_str().is_empty(),
            "the folder of a bundle is needed: {USAGE}"
        );
        Ok(options)
    }
}

/// A stage on both sides.
struct Pair<'a> {
    stage: &'a Stage,
    max_positions: u64,
    cpu: Box<dyn Loaded>,
    other: Box<dyn Loaded>,
}

/// What came of one stage and batch.
struct Line {
    stage: usize,
    batch: usize,
    largest: f64,
    relative: f64,
    /// Distinct answers to the same rows.
    answers: usize,
    /// Whether the first row has the bits that it has alone.
    as_alone: bool,
    rows_per_second: [f64; 2],
}

impl Pair<'_> {
    fn run(&mut self, on_cpu: bool, rows: &[Row]) -> Result<Vec<Row>> {
        let loaded = if on_cpu { self.cpu.as_mut() } else { self.other.as_mut() };
        Ok(run_stage(self.stage, loaded, rows, self.max_positions)?)
    }

    fn compare(&mut self, number: usize, rows: &[Row], time: Duration) -> Result<Line> {
        let (ours, theirs) = (self.run(true, rows)?, self.run(false, rows)?);
        let (mut largest, mut relative) = (0.0_f64, 0.0_f64);
        for (ours, theirs) in ours.iter().zip(&theirs) {
            let (most, norm) = difference(ours, theirs);
            (largest, relative) = (largest.max(most), relative.max(norm));
        }
        let mut answers = BTreeSet::new();
        for _ in 0..REPEATS {
            answers.insert(bytes(&self.run(false, rows)?)?);
        }
        let first = rows.get(..1).unwrap_or_default();
        let alone = bytes(&self.run(false, first)?)?;
        let as_alone = bytes(theirs.get(..1).unwrap_or_default())? == alone;
        let rows_per_second = [self.speed(true, rows, time)?, self.speed(false, rows, time)?];
        Ok(Line {
            stage: number,
            batch: rows.len(),
            largest,
            relative,
            answers: answers.len(),
            as_alone,
            rows_per_second,
        })
    }

    fn speed(&mut self, on_cpu: bool, rows: &[Row], time: Duration) -> Result<f64> {
        for _ in 0..3 {
            self.run(on_cpu, rows)?;
        }
        let (begun, mut runs) = (Instant::now(), 0_u32);
        while begun.elapsed() < time || runs == 0 {
            self.run(on_cpu, rows)?;
            runs = runs.saturating_add(1);
        }
        let rows = u32::try_from(rows.len()).unwrap_or(u32::MAX);
        Ok(f64::from(runs) * f64::from(rows) / begun.elapsed().as_secs_f64())
    }
}

fn bytes(rows: &[Row]) -> Result<Vec<u8>> {
    let mut all = Vec::new();
    for row in rows {
        all.extend(row::encode(row)?);
    }
    Ok(all)
}

/// The largest difference between numbers of two rows, and the norm of the difference over the first's norm. Infinite where they cannot be compared.
fn difference(ours: &Row, theirs: &Row) -> (f64, f64) {
    let (mut largest, mut relative) = (0.0_f64, 0.0_f64);
    for (ours, theirs) in ours.iter().zip(theirs) {
        let (Some(one), Some(other)) = (ours.to_f32(), theirs.to_f32()) else {
            // Only bits can be compared.
            let worst = if ours == theirs { 0.0 } else { f64::INFINITY };
            (largest, relative) = (largest.max(worst), relative.max(worst));
            continue;
        };
        if one.len() != other.len() {
            return (f64::INFINITY, f64::INFINITY);
        }
        let (mut apart, mut norm) = (0.0_f64, 0.0_f64);
        for (one, other) in one.iter().zip(&other) {
            let gap = f64::from(*one) - f64::from(*other);
            if !gap.is_finite() {
                return (f64::INFINITY, f64::INFINITY);
            }
            largest = largest.max(gap.abs());
            apart += gap * gap;
            norm += f64::from(*one) * f64::from(*one);
        }
        if apart > 0.0 {
            relative = relative.max((apart / norm).sqrt());
        }
    }
    (largest, relative)
}

/// So many sample rows, in the order of the bundle. Where rows of different lengths may not share a batch, one of them many times.
fn batch(rows: &[Row], size: usize, batching: Batching) -> Vec<Row> {
    let longest = rows
        .iter()
        .max_by_key(|row| row.iter().map(|tensor| tensor.data.len()).sum::<usize>());
    match batching {
        Batching::Padded => rows.iter().cycle().take(size).cloned().collect(),
        _ => longest.into_iter().cycle().take(size).cloned().collect(),
    }
}

fn check(bundle: &Bundle, cpu: &OnnxRuntime, other: &OnnxRuntime, time: Duration) -> Result<Vec<Line>> {
    let manifest: &Manifest = bundle.manifest();
    let mut lines = Vec::new();
    for (number, stage) in manifest.stages.iter().enumerate() {
        let graph = bundle.verify_stage(number)?;
        let mut pair = Pair {
            stage,
            max_positions: manifest.max_positions,
            cpu: cpu.load(&graph)?,
            other: other.load(&graph)?,
        };
        let samples = bundle.calibration(number)?.received;
        let decode = |bytes: &Vec<u8>| row::decode(bytes, &stage.receives, manifest.max_positions);
        let samples: Vec<Row> = samples.iter().map(decode).collect::<Result<_, _>>()?;
        let sizes = match manifest.batching {
            Batching::Single => &BATCHES[..1],
            _ => &BATCHES[..],
        };
        for size in sizes {
            let rows = batch(&samples, *size, manifest.batching);
            lines.push(pair.compare(number, &rows, time)?);
            eprint!(".");
        }
    }
    eprintln!();
    Ok(lines)
}

fn table(options: &Options, cpu: &str, other: &str, tolerance: f64, lines: &[Line]) -> String {
    let name = options
        .bundle
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    let mut text = format!(
        "### {name}\n\n- CPU: `{cpu}`\n- device: `{other}`\n- tolerance of the bundle: {tolerance:.1e} (relative), {REPEATS} repeats, \
         {} s a measurement\n\n| stage | rows | largest difference | relative | answers to the same rows | first row as alone | CPU rows/s | \
         device rows/s | ratio |\n|---|---|---|---|---|---|---|---|---|\n",
        options.time.as_secs_f64()
    );
    for line in lines {
        let [on_cpu, on_device] = line.rows_per_second;
        let alone = if line.as_alone { "same bits" } else { "other bits" };
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "| {} | {} | {:.2e} | {:.2e} | {} | {alone} | {on_cpu:.1} | {on_device:.1} | {:.2} |",
            line.stage,
            line.batch,
            line.largest,
            line.relative,
            line.answers,
            on_device / on_cpu
        );
    }
    text
}

fn run(options: &Options) -> Result<ExitCode> {
    let bundle = Bundle::open(&options.bundle)?;
    let cpu = OnnxRuntime::load(&find_library(options.onnxruntime.as_deref())?)?;
    let other = match cpu.on(options.device, DEVICE_MEMORY_BYTES_MAX) {
        Ok(other) => other,
        Err(error) => {
            eprintln!("gpu_check: {} cannot be compared: {error}", options.device);
            return Ok(ExitCode::from(2));
        }
    };
    let lines = check(&bundle, &cpu, &other, options.time)?;
    let ppb = u32::try_from(bundle.manifest().tolerance_ppb).unwrap_or(u32::MAX);
    let tolerance = f64::from(ppb) / 1e9;
    let text = table(options, &cpu.engine_class(), &other.engine_class(), tolerance, &lines);
    println!("{text}");
    if let Some(path) = &options.markdown {
        std::fs::write(path, &text).with_context(|| format!("failed to write {}", path.display()))?;
    }
    let beyond: Vec<String> = lines
        .iter()
        .filter(|line| line.relative > tolerance)
        .map(|line| {
            format!(
                "stage {} with {} rows is {:.2e} from the CPU",
                line.stage, line.batch, line.relative
            )
        })
        .collect();
    if beyond.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    eprintln!(
        "gpu_check: beyond the tolerance of {tolerance:.1e}: {}",
        beyond.join("; ")
    );
    Ok(ExitCode::from(1))
}

fn main() -> ExitCode {
    let result = Options::read(std::env::args().skip(1)).and_then(|options| run(&options));
    result.unwrap_or_else(|error| {
        eprintln!("gpu_check: {error:#}");
        ExitCode::from(1)
    })
}
