//! The whole network on four validators, while some of them are killed: `fxn demo` with its hosts and relayers, then jobs of a second terminal.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Stdio},
    time::{Duration, Instant, UNIX_EPOCH},
};

use client::{events, Client};
use devnet::FAUCET;
use futures::StreamExt;
use fxn_tests::{
    deployer::Deployer,
    localnet::{wait_for, Localnet, PATIENCE},
    program::{fxn, root},
};
use schema::{orchestrator::JobStatus, Event, ItemId};
use serde_json::Value;
use tempfile::NamedTempFile;
use tokio::runtime::Runtime;

use crate::deploy::artifacts;

const MODEL: &str = "demo/all-minilm-l6-v2";
const SENTENCES: &str = "tests/fixtures/sentences-64.txt";
/// Blocks of an item's life before the halt: more than one in ten seconds of all that it has, far fewer than one a second.
const BLOCKS_BEFORE: u64 = 4;

/// `fxn demo --keep` on a deployment of its own, after its report.
struct Demo {
    child: Child,
    _stdout: BufReader<ChildStdout>,
    report: Value,
    runtime: Runtime,
    client: Client,
    /// Everybody's home lies in its own.
    _deployer: Deployer,
}

impl Demo {
    fn open(net: &Localnet) -> Demo {
        let deployer = Deployer::named(FAUCET);
        let mut further: Vec<String> = (1..4).flat_map(|node| ["--rpc".into(), net.rpc(node)]).collect();
        let params = deployer.home().join("params.toml");
        fs::write(&params, patient_params()).unwrap();
        further.extend(["--params".into(), params.display().to_string()]);
        let further: Vec<&str> = further.iter().map(String::as_str).collect();
        deployer.deploys(&net.rpc(0), &artifacts(), &further);
        let mut command = fxn(deployer.home());
        command
            .args(["demo", "--keep", "--output", "json", "--key", FAUCET])
            .arg("--network")
            .arg(deployer.out())
            .env("FXN_PASSPHRASE", fxn_tests::deployer::PASSPHRASE);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        let report: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("no report: {error}: {line}"));
        let runtime = Runtime::new().unwrap();
        let client = runtime.block_on(deployer.client());
        Demo {
            child,
            _stdout: stdout,
            report,
            runtime,
            client,
            _deployer: deployer,
        }
    }

    /// Where somebody in a second terminal works.
    fn developer(&self) -> PathBuf {
        let network = Path::new(self.report["network"].as_str().unwrap());
        network.parent().unwrap().to_owned()
    }

    fn height(&self) -> u64 {
        self.runtime.block_on(self.client.status()).unwrap().height
    }

    /// Everything that the contracts have announced from a block on, up to now.
    fn history(&self, from: u64) -> Vec<Event> {
        let to = self.height();
        let mut told = vec![];
        self.runtime.block_on(async {
            let mut blocks = events::follow(self.client.clone(), self.client.contracts().addresses(), from);
            let read = async {
                while let Some(block) = blocks.next().await {
                    let block = block.unwrap();
                    let announced = block.txs.into_iter().flat_map(|tx| tx.events);
                    told.extend(announced.map(|emitted| emitted.event));
                    if block.height >= to {
                        return;
                    }
                }
            };
            tokio::time::timeout(PATIENCE, read).await.expect("the blocks are read");
        });
        told
    }

    /// Starts to embed the sentences, and returns when the job is assigned.
    fn orders(&self) -> Order {
        let from = self.height() + 1;
        let mut command = fxn(&self.developer());
        command.args(["embed", "--model", MODEL, "--output", "json"]);
        // Not a pipe: the answer is longer than one holds.
        let answer = NamedTempFile::new().unwrap();
        command
            .arg(root().join(SENTENCES))
            .stdin(Stdio::null())
            .stdout(answer.reopen().unwrap());
        let child = command.spawn().unwrap();
        let assigned = self.runtime.block_on(async {
            let mut blocks = events::follow(self.client.clone(), self.client.contracts().addresses(), from);
            let read = async {
                loop {
                    let block = blocks.next().await.unwrap().unwrap();
                    let announced = block.txs.into_iter().flat_map(|tx| tx.events);
                    let dates: Vec<(ItemId, u64)> =
                        announced.filter_map(|emitted| assignment(&emitted.event)).collect();
                    if !dates.is_empty() {
                        return (block.height, dates);
                    }
                }
            };
            tokio::time::timeout(PATIENCE, read).await.expect("a job is assigned")
        });
        let (height, dates) = assigned;
        Order {
            child,
            answer,
            height,
            job: dates[0].0.job,
            items: dates.iter().map(|(item, _)| *item).collect(),
            over: dates.iter().map(|(_, over)| *over).max().unwrap(),
        }
    }

    /// The answer comes, it is the right one, and everything about the job happened once.
    fn gets(&self, mut order: Order) {
        let since = Instant::now();
        while order.child.try_wait().unwrap().is_none() {
            assert!(since.elapsed() < PATIENCE, "{} has no answer", order.job);
            std::thread::sleep(Duration::from_millis(100));
        }
        let answer: Value = serde_json::from_slice(&fs::read(order.answer.path()).unwrap()).expect("an answer");
        assert_eq!(
            answer["embeddings"], self.report["embeddings"],
            "whoever is killed, the answer is the same"
        );
        let job = self
            .runtime
            .block_on(self.client.orchestrator().job(order.job))
            .unwrap();
        assert_eq!(job.status, JobStatus::Completed);
        let history = self.history(order.height);
        let times = |is_so: &dyn Fn(&Event) -> bool| history.iter().filter(|event| is_so(event)).count();
        for id in &order.items {
            let attested = times(&|event| matches!(event, Event::Attested { item, .. } if item == id));
            let settled = times(&|event| matches!(event, Event::Settled { item, .. } if item == id));
            assert_eq!((attested, settled), (1, 1), "{id}");
        }
        let ended = times(&|event| matches!(event, Event::JobEnded { job, .. } if *job == order.job));
        assert_eq!(ended, 1);
    }

    /// Nobody was blamed for anything since a block, and nobody has paid.
    fn nobody_is_penalised(&self, since: u64, penalties: &BTreeMap<String, u128>) {
        for event in self.history(since) {
            let is_blame = matches!(
                event,
                Event::ItemMissed { .. }
                    | Event::ItemLinkFault { .. }
                    | Event::ItemDiffers { .. }
                    | Event::ItemFailed { .. }
                    | Event::ShardFailed { .. }
                    | Event::AttestationRefused { .. }
                    | Event::BondPenalised { .. }
            );
            assert!(!is_blame, "{event:?}");
        }
        assert_eq!(self.penalties(), *penalties);
    }

    /// What every provider has ever paid.
    fn penalties(&self) -> BTreeMap<String, u128> {
        let all = self.runtime.block_on(self.client.staking().all_providers()).unwrap();
        all.into_iter()
            .map(|provider| (provider.provider, provider.penalties.u128()))
            .collect()
    }

    /// Both contracts that hold money have what their ledgers say.
    fn is_conserved(&self) {
        self.runtime.block_on(async {
            let contracts = self.client.contracts();
            let ledger = self.client.escrow().all_ledger().await.unwrap();
            let owed: u128 = ledger
                .iter()
                .map(|entry| entry.available.u128() + entry.held.u128())
                .sum();
            assert_eq!(
                self.client.token().balance(&contracts.royalty_escrow).await.unwrap(),
                owed
            );
            let totals = self.client.staking().totals().await.unwrap();
            let owed = totals.bonded.u128() + totals.unbonding.u128();
            assert_eq!(
                self.client.token().balance(&contracts.provider_staking).await.unwrap(),
                owed
            );
        });
    }

    /// None of them is killed in the story.
    fn relayers(&self) -> impl Iterator<Item = &Value> {
        let all = self.report["processes"].as_array().unwrap().iter();
        all.filter(|process| process["role"].as_str().unwrap().ends_with("/relayer"))
    }

    fn signal_relayers(&self, signal: &str) {
        for relayer in self.relayers() {
            send(signal, relayer["pid"].as_u64().unwrap());
        }
    }

    /// Whether every relayer has told its host about what was assigned up to a block.
    fn hosts_know(&self, height: u64) -> bool {
        self.relayers().all(|relayer| {
            let status = format!("http://127.0.0.1:{}/status", relayer["ports"][0]);
            let Ok(answer) = reqwest::blocking::get(status) else {
                return false;
            };
            let told: Value = answer.json().unwrap();
            told["height"].as_u64().unwrap() >= height && told["items"]["fresh"] == 0
        })
    }

    /// Ctrl-C: it takes its providers out of the market and ends well.
    fn ends(mut self) {
        send("INT", self.child.id().into());
        let since = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return assert!(status.success(), "{status}");
            }
            assert!(since.elapsed() < PATIENCE, "the demonstration does not stop");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        // After a failed test: its children see the end of their stdin and stop too, those that were halted as soon as they go on.
        if std::thread::panicking() {
            self.signal_relayers("CONT");
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A job under way.
struct Order {
    child: Child,
    answer: NamedTempFile,
    job: u64,
    items: BTreeSet<ItemId>,
    /// Height of its assignment.
    height: u64,
    /// When the last of its items could be expired.
    over: u64,
}

impl Drop for Order {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The local ones, with time for what a busy machine does between two blocks.
fn patient_params() -> String {
    let local = fs::read_to_string(root().join("params/local.toml")).unwrap();
    let patient = local.replace("inclusion_seconds = 4", "inclusion_seconds = 12");
    assert_ne!(patient, local);
    patient
}

fn assignment(event: &Event) -> Option<(ItemId, u64)> {
    match event {
        Event::JobAssigned {
            item, evidence_until, ..
        } => Some((*item, *evidence_until)),
        _ => None,
    }
}

fn send(signal: &str, pid: u64) {
    let sent = Command::new("kill")
        .args([&format!("-{signal}"), &pid.to_string()])
        .status();
    // Whoever is gone already is told of by what is asserted.
    let _ = sent.unwrap();
}

fn seconds() -> u64 {
    UNIX_EPOCH.elapsed().unwrap().as_secs()
}

fn the_demonstration_is_what_it_is_on_one_node(report: &Value) {
    let reference = fs::read(root().join("tests/fixtures/minilm-64.f32")).unwrap();
    let (reference, _) = reference.as_chunks::<4>();
    let reference: Vec<f32> = reference.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
    let vectors: Vec<Vec<f32>> = serde_json::from_value(report["embeddings"].clone()).unwrap();
    let found: Vec<f32> = vectors.into_iter().flatten().collect();
    assert_eq!(found.len(), reference.len());
    let differences = found
        .iter()
        .zip(&reference)
        .map(|(found, expected)| (found - expected).abs());
    assert!(differences.fold(0.0, f32::max) <= 1e-5);
    assert_eq!(report["conserved"], true);

    let chain = &report["chain"];
    assert_eq!(
        (&chain["chain_id"], &chain["app_version"]),
        (&"fxn-localnet-1".into(), &"0.61.14".into())
    );
    let validators = chain["validators"].as_array().unwrap();
    let names: Vec<&str> = validators
        .iter()
        .map(|validator| validator["moniker"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["validator-0", "validator-1", "validator-2", "validator-3"]);
    let last = report["events"]
        .as_array()
        .unwrap()
        .iter()
        .map(|event| event["height"].as_u64().unwrap());
    let last = last.max().unwrap();
    for validator in validators {
        // A block that was just made may be on its way to some.
        assert!(
            validator["height"].as_u64().unwrap() + 1 >= last,
            "{validator} of {last}"
        );
        assert_eq!(validator["app_version"], chain["app_version"]);
    }
}

/// The first node of the network file, which everybody prefers, dies in the middle of a job.
fn one_validator_is_killed_and_nothing_is_lost(demo: &Demo, net: &Localnet) {
    let order = demo.orders();
    net.kill(0);
    demo.gets(order);
    assert_eq!(net.status()[0].up, None, "all of it was done without the first node");
    net.start_validator(0);
}

/// Half of the votes are gone for longer than the job has time. Hosts do their work meanwhile; relayers come back only with the chain.
fn two_validators_are_killed_and_the_chain_waits(demo: &Demo, net: &Localnet) {
    let order = demo.orders();
    wait_for("hosts to be told", || demo.hosts_know(order.height));
    demo.signal_relayers("STOP");
    wait_for("some blocks of the job's life", || {
        demo.height() >= order.height + BLOCKS_BEFORE
    });
    net.kill(0);
    net.kill(1);
    let halted_at = net.height(2).max(net.height(3));
    wait_for("all dates of the job to pass", || seconds() > order.over + 2);
    assert!(net.height(2) <= halted_at + 1, "blocks with two votes of four");
    std::thread::scope(|scope| {
        scope.spawn(|| net.succeed(&["start"]));
        // The first block after a halt may have a time from before it.
        wait_for("blocks after the halt", || demo.height() >= halted_at + 2);
        demo.signal_relayers("CONT");
    });
    demo.gets(order);
}

#[test]
fn the_network_on_four_validators_outlives_the_loss_of_one_and_waits_for_two_and_blames_nobody() {
    let net = Localnet::start(4);
    let demo = Demo::open(&net);
    the_demonstration_is_what_it_is_on_one_node(&demo.report);
    demo.is_conserved();
    // The demonstration itself tells of a host that was killed and paid for it; from here on nobody is to blame.
    let (since, penalties) = (demo.height() + 1, demo.penalties());
    assert_eq!(penalties.len(), 6);

    one_validator_is_killed_and_nothing_is_lost(&demo, &net);
    two_validators_are_killed_and_the_chain_waits(&demo, &net);
    // After a halt it is a market as before.
    let order = demo.orders();
    demo.gets(order);

    demo.nobody_is_penalised(since, &penalties);
    demo.is_conserved();
    for validator in net.status() {
        assert!(validator.up.is_some_and(|up| !up.catching_up && up.height >= since));
    }
    demo.ends();
}
