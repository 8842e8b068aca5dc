//! The tiny model of `tests/fixtures/tiny`, split in three, and what it makes of texts.

use std::path::{Path, PathBuf};

use fxn_tests::program::root;
use inference_host::{
    onnx::{find_library, OnnxRuntime, Threads},
    tokenizer::TextTokenizer,
};
use partition::{row, run_stage, split, Bundle, Loaded, Runtime, SplitOptions, Stages, Tensor};
use schema::{
    merkle,
    registry::{NewVersion, StageInfo},
    Digest,
};

pub(crate) const STAGES: u8 = 3;
/// Longest text.
pub(crate) const POSITIONS: u64 = 16;
/// What the bundle costs per text at most is no matter; how its matrices are stored is: as blobs of their own, like those of real models.
const BLOB_BYTES_MIN: u64 = 32;

pub(crate) struct Tiny {
    pub(crate) bundle: PathBuf,
    pub(crate) class: String,
    pub(crate) version: NewVersion,
    opened: Bundle,
    tokenizer: TextTokenizer,
    stages: Vec<Box<dyn Loaded>>,
}

/// A text of this many words that no other number makes.
pub(crate) fn text(number: usize, words: usize) -> String {
    let word = |index: usize| format!("w{}", 1 + (number * 7 + index * index * 3 + number / 63 * index) % 63);
    (0..words).map(word).collect::<Vec<_>>().join(" ")
}

impl Tiny {
    /// Splits the model into `folder/bundle`.
    pub(crate) fn split(folder: &Path) -> Self {
        let threads = Threads { count: 1, spin: false };
        let runtime = OnnxRuntime::load_with(&find_library(None).unwrap(), threads).unwrap();
        let source = root().join("tests/fixtures/tiny");
        let tokenizer = TextTokenizer::new(&std::fs::read(source.join("tokenizer.json")).unwrap(), POSITIONS).unwrap();
        let options = SplitOptions {
            external_bytes_min: BLOB_BYTES_MIN,
            ..SplitOptions::embeddings(Stages::Count(STAGES.into()), POSITIONS)
        };
        let sample = |words| tokenizer.encode(&text(words, words)).unwrap().named().unwrap();
        let samples: Vec<Vec<(String, Tensor)>> = [2, 5, 9, 16].map(sample).into_iter().collect();
        let samples: Vec<_> = samples
            .into_iter()
            .map(|row| row.into_iter().filter(|(name, _)| name != "token_type_ids").collect())
            .collect();
        let bundle = folder.join("bundle");
        let opened = split(&source, &bundle, &options, &runtime, &samples).unwrap();
        let stages = (0..usize::from(STAGES)).map(|stage| runtime.load(&opened.verify_stage(stage).unwrap()).unwrap());
        Self {
            stages: stages.collect(),
            version: version(&opened),
            class: runtime.engine_class(),
            bundle,
            opened,
            tokenizer,
        }
    }

    /// Units of a text.
    pub(crate) fn units(&self, text: &str) -> u64 {
        u64::try_from(self.tokenizer.encode(text).unwrap().count()).unwrap()
    }

    /// The output row of a text, run alone.
    pub(crate) fn row(&mut self, text: &str) -> Vec<u8> {
        let manifest = self.opened.manifest();
        let mut rows = vec![self.tokenizer.encode(text).unwrap().row(&manifest.inputs).unwrap()];
        for (stage, loaded) in manifest.stages.iter().zip(&mut self.stages) {
            rows = run_stage(stage, loaded.as_mut(), &rows, manifest.max_positions).unwrap();
        }
        row::encode(&rows[0]).unwrap()
    }

    /// What an item over these texts must attest.
    pub(crate) fn output(&mut self, texts: &[String]) -> Digest {
        let rows: Vec<Vec<u8>> = texts.iter().map(|text| self.row(text)).collect();
        merkle::root(&rows)
    }
}

fn version(bundle: &Bundle) -> NewVersion {
    let manifest = bundle.manifest();
    let stage = |stage: &partition::Stage| StageInfo {
        digest: Digest(stage.digest.to_bytes()),
        weight_bytes: stage.weight_bytes,
        compute_share_bps: stage.compute_share_bps.try_into().unwrap(),
    };
    NewVersion {
        manifest: Digest(bundle.digest().to_bytes()),
        manifest_uris: vec![],
        stages: manifest.stages.iter().map(stage).collect(),
        tolerance: cosmwasm_std::Decimal::from_atomics(manifest.tolerance_ppb, 9).unwrap(),
        units_per_request_max: manifest.max_positions,
    }
}
