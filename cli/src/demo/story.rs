//! The story, step by step. Every step ends or says in one sentence what did not happen.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Instant,
};

use anyhow::{bail, Context as _};
use beacon::Secret;
use client::{Account, Client, Network, Wallet};
use futures::future::try_join_all;
use partition::Runtime;
use schema::{ModelId, TOTAL_SUPPLY};
use tokio_util::task::TaskTracker;

use super::{
    cast::Cast,
    checker, facts,
    facts::Question,
    folder::Folder,
    jobs::{Desk, Done, Killed},
    plan,
    processes::Crew,
    reference,
    report::{self, Report},
    Demo,
};
use crate::{
    context::Context,
    model::{pass_on, split_with},
    progress::Progress,
    provider::drain,
    services,
    wallet::{deposit_call, FAUCET},
};

mod providers;
mod publishing;
mod session;

/// What is left of a story that went well.
#[derive(Debug)]
pub(crate) struct Played {
    pub(crate) report: Report,
    pub(crate) network: Network,
    pub(crate) developer: Wallet,
    pub(crate) model: ModelId,
    /// Owners and their deployments.
    listed: Vec<(Account, u64)>,
}

impl Played {
    /// Takes the providers out of the market before they stop, where it lives on without them.
    pub(crate) async fn leave(&self) -> anyhow::Result<()> {
        let drains = self
            .listed
            .iter()
            .map(async |(owner, deployment)| drain(owner, *deployment).await);
        try_join_all(drains).await?;
        Ok(())
    }
}

/// Where the story plays.
#[derive(Debug)]
struct Scene<'a> {
    folder: &'a Path,
    crew: &'a mut Crew,
    progress: &'a Progress,
}

/// The two models.
#[derive(Debug)]
struct Family {
    model: ModelId,
    parent: ModelId,
}

pub(crate) async fn play(
    context: &Context,
    demo: &Demo,
    folder: &Folder,
    crew: &mut Crew,
    compute: &TaskTracker,
    progress: &Progress,
) -> anyhow::Result<Played> {
    let began = Instant::now();
    let source = source(demo)?;
    let runtime = {
        let library = demo.library.clone();
        compute
            .spawn_blocking(move || library.load())
            .await
            .context("loading was interrupted")??
    };
    let mut scene = Scene {
        folder: folder.path(),
        crew,
        progress,
    };

    progress.step("starting the chain and splitting the model");
    let bundle = folder.path().join("bundle");
    let split = compute.spawn_blocking({
        let (split, runtime) = (
            reference::split_of(&source, &bundle, plan::STAGES.into()),
            runtime.clone(),
        );
        move || split_with(&split, &runtime)
    });
    let faucet = scene.open_network(context).await?;
    let client = faucet.client().clone();
    let from_height = client.status().await?.height;
    // A chain of our own is told from its first block on; there the story's supply begins with all there is.
    let from_genesis = context.named_network().is_none();
    let supply_before = match from_genesis {
        true => TOTAL_SUPPLY,
        false => facts::supply(&client).await?,
    };
    let cast = Cast::assemble(&client, folder.path()).await?;
    faucet
        .execute(&cast.funding(&client)?)
        .await
        .context("the faucet could not fund the accounts")?;
    split.await.context("splitting was interrupted")??;
    progress.done(&format!(
        "all-MiniLM-L6-v2 is split into {} stages and proven against the whole graph",
        plan::STAGES
    ));

    let uri = scene.serve_bundle(&cast, &bundle).await?;
    let family = publishing::publish(&cast, &bundle, uri.clone()).await?;
    progress.done(&format!(
        "{} is published; a part of its royalty goes to {}",
        family.model, family.parent
    ));
    let hosts = scene
        .start_providers(&cast, &family.model, &uri, &runtime.engine_class(), demo)
        .await?;
    progress.done(&format!(
        "{} providers serve, each with a host and a relayer",
        plan::PROVIDERS
    ));

    let developer = &cast.developer.account;
    developer
        .execute(&[deposit_call(&client, plan::DEPOSIT, None)?])
        .await?;
    let texts: Vec<String> = reference::SENTENCES.lines().map(str::to_owned).collect();
    let desk = Desk::open(developer, &family.model, &texts).await?;
    let first = desk.all_goes_well(progress).await?;
    let largest_difference = reference::check_reference(&first.results.embeddings()?)?;
    progress.done(&format!(
        "job {}: {} sentences embedded, settled and verified",
        first.job.job,
        texts.len()
    ));

    let whole = compute.spawn_blocking({
        let (source, scratch, runtime, texts) = (
            source.clone(),
            folder.path().join("whole"),
            runtime.clone(),
            texts.clone(),
        );
        move || reference::unsplit(&source, &scratch, &runtime, &texts)
    });
    let (second, mut jobs) = scene.second_job(&desk, &hosts, demo, &uri, &cast).await?;
    let mut session = session::play(&desk, progress).await?;
    let whole = whole.await.context("running the whole graph was interrupted")??;
    reference::check_bits(&first.results.embeddings()?, &whole).context("job 1")?;
    reference::check_bits(&second.results.embeddings()?, &whole).context("job 2")?;
    reference::check_bits(&session.embeddings, &whole).context("the session")?;
    progress.done("both jobs and the session gave the embeddings of the unsplit graph, bit by bit");

    pass_on(&cast.research.account, &family.parent).await?;
    progress.step("recomputing every amount from chain data");
    jobs.insert(0, first.job.job);
    let question = Question {
        from_height: if from_genesis { 1 } else { from_height },
        supply_before,
        jobs,
        sessions: vec![session.as_used.clone()],
        holders: holders(&cast, &family),
    };
    let (facts, placed) = facts::gather(&client, &question).await?;
    session.check(&facts.events)?;
    let wrong = checker::check(&facts);
    if !wrong.is_empty() {
        bail!("the chain does not add up: {}", wrong.join("; "));
    }
    let mut names = cast.names();
    names.insert(facts.treasury.clone(), "treasury".to_owned());
    let report = Report {
        embeddings: first.results.embeddings()?,
        jobs: report::jobs(&facts),
        sessions: vec![session.told],
        ledger: report::ledger(&facts, &names),
        conserved: true,
        chain: facts::chain(&client).await?,
        balances: BTreeMap::from([
            ("royalty_escrow", facts.escrow.into()),
            ("provider_staking", facts.staking.into()),
        ]),
        processes: scene.crew.told(),
        events: placed.iter().map(report::event).collect(),
        seconds: began.elapsed().as_secs_f64(),
        largest_difference,
        network: cast.developer.home.join("network.json").display().to_string(),
    };
    Ok(Played {
        report,
        network: client.network().clone(),
        developer: cast.developer.account.wallet().clone(),
        model: family.model,
        listed: cast.listed(&hosts),
    })
}

/// Everybody who is new, and both models.
fn holders(cast: &Cast, family: &Family) -> Vec<String> {
    let models = [&family.model, &family.parent].map(report::model_holder);
    cast.names().into_keys().chain(models).collect()
}

/// The ONNX export: the one given, else the project's.
fn source(demo: &Demo) -> anyhow::Result<PathBuf> {
    const OWN: &str = ".runtime/models/all-minilm-l6-v2";
    if let Some(source) = &demo.source {
        return Ok(source.clone());
    }
    let roots = [std::env::current_dir().ok(), std::env::current_exe().ok()];
    let folders = roots.iter().flatten().flat_map(|root| root.ancestors());
    let found = folders
        .map(|folder| folder.join(OWN))
        .find(|folder| folder.join("model.onnx").is_file());
    found.with_context(|| {
        format!("the model is not there: run scripts/models.sh, which fills {OWN}, or give --source DIR")
    })
}

impl Scene<'_> {
    /// The network named on the command line, or one of our own. Returns the account that pays for the story.
    async fn open_network(&mut self, context: &Context) -> anyhow::Result<Account> {
        if context.named_network().is_some() {
            return self.join(context).await;
        }
        let home = self.folder.join("devnet");
        crate::home::create_private(&home).context("failed to create the home of the chain")?;
        let arguments = ["devnet", "--rpc", "127.0.0.1:0", "--block-time", plan::BLOCK_TIME];
        self.crew.start(plan::DEVNET, &home, &arguments.map(str::to_owned))?;
        let path = home.join("network.json");
        let connect = async || Client::connect(Network::load(&path).ok()?).await.ok();
        let client = self
            .crew
            .until(plan::DEVNET, "did not answer", plan::START_PATIENCE, connect)
            .await?;
        let rpc = client.network().rpc.clone();
        self.crew.listens(plan::DEVNET, &[&rpc])?;
        self.progress
            .done(&format!("a chain with the contracts answers at {rpc}"));
        Ok(Account::new(client, Wallet::dev(FAUCET)))
    }

    /// The network named on the command line. If its beacon has the development key and nobody is known to run it, it runs here.
    async fn join(&mut self, context: &Context) -> anyhow::Result<Account> {
        let mut network = context.network()?;
        let development = Secret::development().public_key();
        let Some(beacon) = network.beacon.as_mut().filter(|beacon| beacon.urls.is_empty()) else {
            return context.account().await;
        };
        if beacon.public_key != development {
            return context.account().await;
        }
        let home = self.folder.join(plan::BEACON);
        crate::home::create_private(&home).context("failed to create the home of the beacon")?;
        let (genesis, period) = (beacon.genesis_seconds.to_string(), beacon.period_seconds.to_string());
        let arguments = ["beacon", "--development", "--listen", "127.0.0.1:0"];
        let schedule = ["--genesis", &genesis, "--period", &period];
        let arguments = [&arguments[..], &schedule[..]].concat();
        let arguments: Vec<String> = arguments.into_iter().map(str::to_owned).collect();
        self.crew.start(plan::BEACON, &home, &arguments)?;
        let url = async || -> Option<String> {
            let told = std::fs::read(home.join(services::beacon::FILE)).ok()?;
            let told: services::beacon::Started = serde_json::from_slice(&told).ok()?;
            Some(told.url)
        };
        let url = self
            .crew
            .until(plan::BEACON, "did not answer", plan::START_PATIENCE, url)
            .await?;
        self.crew.listens(plan::BEACON, &[&url])?;
        beacon.urls.push(url);
        let client = Client::connect(network).await?;
        client.check_contracts().await?;
        let wallet = context.wallet(&context.key_name()?)?;
        Ok(Account::new(client, wallet))
    }

    /// `fxn model serve` in the creator's home; returns its URL.
    async fn serve_bundle(&mut self, cast: &Cast, bundle: &Path) -> anyhow::Result<String> {
        let home = &cast.creator.home;
        let bundle = bundle.display().to_string();
        let arguments = ["model", "serve", &bundle, "--listen", "127.0.0.1:0"].map(str::to_owned);
        self.crew.start("creator/serve", home, &arguments)?;
        let url = async || -> Option<String> {
            let told = std::fs::read(home.join("serve.json")).ok()?;
            let told: serde_json::Value = serde_json::from_slice(&told).ok()?;
            Some(told.get("url")?.as_str()?.to_owned())
        };
        let url = self
            .crew
            .until("creator/serve", "did not start", plan::START_PATIENCE, url)
            .await?;
        self.crew.listens("creator/serve", &[&url])?;
        Ok(url)
    }

    /// Job 2, until a kill came early enough to be a miss. Returns all jobs that this took.
    async fn second_job(
        &mut self,
        desk: &Desk<'_>,
        hosts: &BTreeMap<u64, String>,
        demo: &Demo,
        uri: &str,
        cast: &Cast,
    ) -> anyhow::Result<(Done, Vec<u64>)> {
        let client = desk.developer.client();
        let mut jobs = vec![];
        for attempt in 1..=plan::KILLS_MAX {
            let (done, killed) = desk.a_host_dies(self.crew, hosts, self.progress).await?;
            jobs.push(done.job.job);
            let missed = killed.missed(client, done.job.job).await?;
            self.bring_back(cast, &killed, uri, demo).await?;
            if let Some(first) = missed.first() {
                let Killed { role, .. } = &killed;
                let [job, items, redone] = [
                    done.job.job.to_string(),
                    missed.len().to_string(),
                    first.item.to_string(),
                ];
                self.progress.done(&format!(
                    "job {job}: {role} missed {items} items and paid from its bond; others took over ({redone} in attempt {})",
                    first.attempt
                ));
                return Ok((done, jobs));
            }
            self.progress.done(&format!(
                "{} had done its part before it died; once more ({attempt})",
                killed.role
            ));
        }
        bail!(
            "no host could be killed before it had done its part, in {} jobs",
            plan::KILLS_MAX
        )
    }
}
