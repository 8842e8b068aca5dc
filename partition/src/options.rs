//! What a creator decides about a split, and what the export already says.

use std::{
    fs::File,
    io::Read,
    path::{Component, Path},
};

use serde_json::Value;

use crate::{error::SplitError, manifest::Pooling, source};

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

    /// Options for a model of any other kind: nothing is appended to the graph, and no axis but the batch is symbolic.
    pub fn plain(stages: Stages) -> Self {
        Self {
            task: "other".to_owned(),
            pooling: None,
            normalize: false,
            ..Self::embeddings(stages, 1)
        }
    }

    /// Options as the files of an export tell them: a sentence-embedding model by its `modules.json`, `sentence_bert_config.json` and pooling
    /// configuration; another model of texts by `config.json`, without pooling. A model without `tokenizer.json` takes no texts: it is a plain
    /// one, and its `config.json`, if there is any, may tell the longest row.
    pub fn for_export(source_dir: &Path, stages: Stages) -> Result<Self, SplitError> {
        let tokenizer = source_dir.join("tokenizer.json");
        if tokenizer.is_file() {
            source::inside(source_dir, tokenizer.clone())?;
        }
        if !tokenizer.is_file() && !source_dir.join("modules.json").is_file() {
            let config = read_json(source_dir, "config.json")?.unwrap_or_default();
            let max_positions = match config.get(POSITIONS) {
                Some(_) => number(source_dir, "config.json", &config, POSITIONS)?,
                None => 1,
            };
            return Ok(Self {
                max_positions,
                ..Self::plain(stages)
            });
        }
        let Some(modules) = read_json(source_dir, "modules.json")? else {
            let config = require(source_dir, "config.json")?;
            let max_positions = number(source_dir, "config.json", &config, POSITIONS)?;
            let task = "feature-extraction".to_owned();
            return Ok(Self {
                task,
                pooling: None,
                normalize: false,
                ..Self::embeddings(stages, max_positions)
            });
        };
        let config = require(source_dir, "sentence_bert_config.json")?;
        let mut options = Self::embeddings(
            stages,
            number(source_dir, "sentence_bert_config.json", &config, "max_seq_length")?,
        );
        (options.pooling, options.normalize) = (None, false);
        for module in modules.as_array().into_iter().flatten() {
            let kind = module["type"].as_str().unwrap_or_default();
            match kind.rsplit('.').next().unwrap_or_default() {
                "Transformer" => {}
                "Pooling" => options.pooling = Some(pooling(source_dir, module["path"].as_str().unwrap_or_default())?),
                "Normalize" => options.normalize = true,
                _ => {
                    return Err(invalid(
                        source_dir,
                        "modules.json",
                        format!("module {kind:?} is not known"),
                    ))
                }
            }
        }
        Ok(options)
    }
}

/// Key of the longest row in a configuration.
const POSITIONS: &str = "max_position_embeddings";
/// Largest configuration file that is read; real ones have a few KiB.
const CONFIG_BYTES_MAX: u64 = 1 << 20;

fn invalid(source_dir: &Path, name: &str, problem: String) -> SplitError {
    SplitError::Config {
        path: source_dir.join(name),
        problem,
    }
}

fn read_json(source_dir: &Path, name: &str) -> Result<Option<Value>, SplitError> {
    let path = source_dir.join(name);
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(SplitError::Read { path, source }),
    };
    source::inside(source_dir, path)?;
    let parsed = serde_json::from_reader(file.take(CONFIG_BYTES_MAX));
    parsed
        .map(Some)
        .map_err(|error| invalid(source_dir, name, error.to_string()))
}

fn require(source_dir: &Path, name: &str) -> Result<Value, SplitError> {
    read_json(source_dir, name)?.ok_or_else(|| invalid(source_dir, name, "the file is missing".to_owned()))
}

fn number(source_dir: &Path, name: &str, config: &Value, key: &str) -> Result<u64, SplitError> {
    config[key]
        .as_u64()
        .ok_or_else(|| invalid(source_dir, name, format!("{key} is not a whole number of 0 or more")))
}

fn pooling(source_dir: &Path, folder: &str) -> Result<Pooling, SplitError> {
    if !matches!(
        Path::new(folder).components().collect::<Vec<_>>().as_slice(),
        [Component::Normal(_)]
    ) {
        return Err(invalid(
            source_dir,
            "modules.json",
            format!("{folder:?} is not a folder beside it"),
        ));
    }
    let name = format!("{folder}/config.json");
    let config = require(source_dir, &name)?;
    let modes = config
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(key, value)| key.starts_with("pooling_mode_") && **value == true);
    match modes.map(|(key, _)| key.as_str()).collect::<Vec<_>>().as_slice() {
        ["pooling_mode_mean_tokens"] => Ok(Pooling::Mean),
        others => Err(invalid(
            source_dir,
            &name,
            format!("pooling {others:?} is not known, only the mean is"),
        )),
    }
}
