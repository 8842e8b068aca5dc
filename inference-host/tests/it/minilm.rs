//! The demonstration as three hosts see it: all-MiniLM-L6-v2 in three stages, 64 sentences in four items.

use std::{fs, sync::Arc};

use inference_host::{
    chain::ModelVersion,
    decode_rows,
    tokenizer::{TextTokenizer, Tokens},
    Source,
};
use partition::{row, run_stage, split, Bundle, Runtime, SplitOptions, Stages};
use schema::{merkle, Digest};

use crate::{
    kit::{fetch_output, item, now, Market, Provider},
    partition_proof::{project, runtime},
};

const MAX_TOKENS: u64 = 256;

pub(crate) struct MiniLm {
    pub(crate) sentences: Vec<String>,
    tokens: Vec<Tokens>,
    pub(crate) folder: tempfile::TempDir,
}

impl MiniLm {
    pub(crate) fn new() -> Self {
        let text = fs::read_to_string(project().join("tests/fixtures/sentences-64.txt")).unwrap();
        let json = fs::read(project().join(".runtime/models/all-minilm-l6-v2/tokenizer.json")).unwrap();
        let tokenizer = TextTokenizer::new(&json, MAX_TOKENS).unwrap();
        let sentences: Vec<String> = text.lines().map(str::to_owned).collect();
        Self {
            tokens: sentences
                .iter()
                .map(|sentence| tokenizer.encode(sentence).unwrap())
                .collect(),
            sentences,
            folder: tempfile::tempdir().unwrap(),
        }
    }

    pub(crate) fn split(&self, stages: usize) -> Bundle {
        let model = project().join(".runtime/models/all-minilm-l6-v2");
        let samples = [22, 2, 0].map(|index| self.tokens[index].named().unwrap());
        let options = SplitOptions::embeddings(Stages::Count(stages), MAX_TOKENS);
        let target = self.folder.path().join(stages.to_string());
        split(&model, &target, &options, &runtime(), &samples).unwrap()
    }

    /// What the unsplit graph answers to every sentence alone.
    fn whole(&self) -> Vec<Vec<u8>> {
        let bundle = self.split(1);
        let stage = bundle.stage(0).unwrap();
        let mut loaded = runtime().load(&bundle.verify_stage(0).unwrap()).unwrap();
        let run = |tokens: &Tokens| {
            let row = tokens.row(&bundle.manifest().inputs).unwrap();
            let rows = run_stage(stage, loaded.as_mut(), &[row], MAX_TOKENS).unwrap();
            row::encode(&rows[0]).unwrap()
        };
        self.tokens.iter().map(run).collect()
    }
}

/// Three hosts, one a stage, that fetch what they serve.
async fn three(market: &Market, bundle: &Bundle, folder: &std::path::Path) -> [Provider; 3] {
    let version = ModelVersion {
        manifest: Digest(bundle.digest().to_bytes()),
        stages: bundle
            .manifest()
            .stages
            .iter()
            .map(|stage| Digest(stage.digest.to_bytes()))
            .collect(),
    };
    market
        .chain
        .0
        .lock()
        .unwrap()
        .versions
        .insert("demo/minilm".to_owned(), version);
    let class = runtime().engine_class();
    let mut all = [0, 1, 2].map(|stage: u8| {
        let name = format!("provider-{stage}");
        let mut provider = Provider::new(&name, Arc::clone(&market.chain), Source::Folder(folder.to_owned()));
        provider.runtime = Arc::new(runtime());
        provider.deploy("demo/minilm", &class, u64::from(stage) + 1, stage, stage);
        provider
    });
    for provider in &mut all {
        provider.start().await;
    }
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixty_four_sentences_through_three_hosts_are_the_unsplit_graphs_bit_for_bit() {
    let minilm = MiniLm::new();
    let (whole, bundle) = (minilm.whole(), minilm.split(3));
    let market = Market::new();
    let all = three(&market, &bundle, &minilm.folder.path().join("3")).await;
    let begun = std::time::Instant::now();
    let mut assignments = Vec::new();
    for (job, sentences) in (1..).zip(minilm.sentences.chunks(16)) {
        let texts: Vec<&str> = sentences.iter().map(String::as_str).collect();
        let mut assignment = market.assign_three(job, &texts, &all);
        assignment.manifest = Digest(bundle.digest().to_bytes());
        market
            .chain
            .0
            .lock()
            .unwrap()
            .assignments
            .insert(item(job).key(), assignment.clone());
        all[0].begin_surely(item(job)).await;
        all[2].begin_surely(item(job)).await;
        assignments.push(assignment);
    }
    let mut rows = Vec::new();
    let mut units = 0;
    for (job, assignment) in (1..).zip(&assignments) {
        let done = all[2].done(item(job)).await;
        assert!(done.complete);
        let receipt = &done.links[2].receipt.receipt;
        units += receipt.units_in;
        let digest = receipt.output_digest;
        let (_, body) = fetch_output(&all[2], assignment, digest, &market.developer, now() + 60).await;
        let part = decode_rows(&body).unwrap();
        assert_eq!(merkle::root(&part), digest);
        rows.extend(part);
    }
    eprintln!(
        "64 sentences, {units} tokens, through three hosts: {:.2} s",
        begun.elapsed().as_secs_f64()
    );
    let counted: usize = minilm.tokens.iter().map(Tokens::count).sum();
    assert_eq!(units, counted as u64);
    let different: Vec<usize> = (0..64).filter(|&index| rows[index] != whole[index]).collect();
    assert!(different.is_empty(), "sentences {different:?} have other bits");
}
