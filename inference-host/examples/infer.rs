//! Runs a bundle in this process: `cargo run --example infer -- BUNDLE TEXT`.

use std::path::Path;

use anyhow::{Context, Result};
use inference_host::{
    onnx::{find_library, OnnxRuntime},
    tokenizer::TextTokenizer,
};
use partition::{run_stage, Bundle, Runtime};

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let folder = arguments.next().context("the folder of a bundle is needed")?;
    let text = arguments.next().context("a text is needed")?;
    let bundle = Bundle::open(Path::new(&folder))?;
    let manifest = bundle.manifest();
    let runtime = OnnxRuntime::load(&find_library(None)?)?;
    let blob = manifest.tokenizer.as_ref().context("the bundle has no tokenizer")?;
    let tokenizer = TextTokenizer::new(&bundle.read_blob(blob)?, manifest.max_positions)?;
    let tokens = tokenizer.encode(&text)?;
    let mut rows = vec![tokens.row(&manifest.inputs)?];
    for (index, stage) in manifest.stages.iter().enumerate() {
        let mut loaded = runtime.load(&bundle.verify_stage(index)?)?;
        rows = run_stage(stage, loaded.as_mut(), &rows, manifest.max_positions)?;
    }
    let output = rows
        .first()
        .and_then(|row| row.first())
        .context("the model has no output")?;
    println!(
        "{} tokens -> {:?}",
        tokens.count(),
        output.to_f32().context("the output is not float32")?
    );
    Ok(())
}
