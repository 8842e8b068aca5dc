//! `fxn doctor`: is this machine fit, is the network there, and what mends what is not.
//!
//! Guarantees: nothing is made or changed, not even the home; every look ends within its time; every failure comes with what mends it.
//! - `facts`: looking. `checks`: what the facts mean.

mod checks;
mod facts;

use std::{
    fmt,
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::bail;
use clap::Args;
use client::{node_status, Client, Network};
use inference_host::onnx::{find_library, instruction_set, Device};
use serde::Serialize;
use tokio::time::{sleep, timeout, Instant};

use self::{
    checks::{Finding, Status},
    facts::{Head, Probed},
};
use crate::{
    context::Globals,
    engine::Library,
    home,
    output::{green, red, write_out, yellow},
};

/// Longest wait for one answer of the node.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest wait for a new block: two of a chain of slow ones.
const BLOCK_PATIENCE: Duration = Duration::from_secs(12);
const BLOCK_POLL: Duration = Duration::from_millis(200);
/// Longest look at the contracts.
const CONTRACTS_TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  fxn doctor\n  fxn doctor --device cuda\n  fxn doctor --node http://127.0.0.1:26657 --output json\n\nNothing is made or changed. Exit code 0 if nothing fails, 1 otherwise."
)]
pub(crate) struct Doctor {
    #[command(flatten)]
    library: Library,
    /// Also look whether stages can run on this device: cuda or cuda:N
    #[arg(long, value_name = "DEVICE", default_value = "cpu")]
    device: Device,
    /// Only load this library and tell its engine class: the process may not survive it
    #[arg(long, value_name = "FILE", hide = true)]
    probe_library: Option<PathBuf>,
}

/// Everything that was found.
#[derive(Debug, Serialize)]
struct Report {
    ok: bool,
    checks: Vec<Finding>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for finding in &self.checks {
            let status = match finding.status {
                Status::Ok => green("ok  "),
                Status::Warn => yellow("warn"),
                Status::Fail => red("fail"),
            };
            writeln!(f, "{status}  {:<12} {}", finding.check, finding.told)?;
            if let Some(fix) = &finding.fix {
                writeln!(f, "      {:<12} {fix}", "")?;
            }
        }
        Ok(())
    }
}

pub(crate) async fn run(globals: Globals, doctor: &Doctor) -> anyhow::Result<()> {
    if let Some(library) = &doctor.probe_library {
        let class = Library {
            onnxruntime: Some(library.clone()),
        };
        return write_out(format!("{}\n", class.engine_class(doctor.device)?).as_bytes());
    }
    let (library, network) = tokio::join!(library(doctor), network(&globals));
    let mut checks = library;
    checks.extend(network);
    checks.extend(this_machine(&globals));
    let failed: Vec<&str> = checks
        .iter()
        .filter(|finding| finding.status == Status::Fail)
        .map(|finding| finding.check)
        .collect();
    let sentence = format!(
        "{} of {} checks fail: {}",
        failed.len(),
        checks.len(),
        failed.join(", ")
    );
    let ok = failed.is_empty();
    globals.output.print(&Report { ok, checks })?;
    if !ok {
        bail!("{sentence}");
    }
    Ok(())
}

async fn library(doctor: &Doctor) -> Vec<Finding> {
    let found = find_library(doctor.library.onnxruntime.as_deref());
    let probe = async |device: Device| match &found {
        Ok(path) => facts::probe(path, device).await,
        Err(_) => Probed::NotTried,
    };
    let probed = probe(Device::Cpu).await;
    let on_device = match doctor.device {
        Device::Cpu => None,
        device => Some(checks::device(device, &probe(device).await)),
    };
    let found = found
        .map(|path| path.display().to_string())
        .map_err(|error| error.to_string());
    let mut findings = vec![
        checks::library(&found, &probed),
        checks::processor(&instruction_set(), &probed),
    ];
    findings.extend(on_device);
    findings
}

async fn network(globals: &Globals) -> Vec<Finding> {
    const CHECK: &str = "network";
    let path = match (&globals.network, home_of(globals)) {
        (Some(path), _) => path.clone(),
        (None, Ok(home)) => home.join("network.json"),
        (None, Err(_)) => PathBuf::from("network.json"),
    };
    let mut findings = vec![];
    let network = match (path.exists(), Network::load(&path)) {
        (false, _) => {
            findings.push(Finding::warn(
                CHECK,
                format!("no network is known: {} does not exist", path.display()),
                "give --network FILE, or start one with `fxn demo --keep` or `fxn devnet`",
            ));
            None
        }
        (true, Err(error)) => {
            findings.push(Finding::fail(
                CHECK,
                error.to_string(),
                "get the file anew, or give another --network FILE",
            ));
            None
        }
        (true, Ok(network)) => {
            findings.push(Finding::ok(
                CHECK,
                format!("{} is chain {}", path.display(), network.chain_id),
            ));
            Some(network)
        }
    };
    let nodes = match (&globals.nodes, &network) {
        (named, Some(network)) if named.is_empty() => network.nodes(),
        (named, _) => named.clone(),
    };
    for rpc in &nodes {
        findings.extend(node(rpc, network.clone()).await);
    }
    findings
}

async fn node(rpc: &str, network: Option<Network>) -> Vec<Finding> {
    let first = match node_status(rpc, ANSWER_TIMEOUT).await {
        Ok(status) => Head::from(status),
        Err(error) => {
            let fix = "start it (`fxn devnet`, `fxn demo --keep`), or give one that runs with --node URL";
            return vec![Finding::fail("node", error.to_string(), fix)];
        }
    };
    let expected = network.as_ref().map(|network| network.chain_id.as_str());
    let mut findings = vec![checks::chain(rpc, expected, &first)];
    if let Some(network) = network.filter(|network| network.chain_id == first.chain_id) {
        findings.push(
            contracts(Network {
                rpc: rpc.to_owned(),
                further_rpc: vec![],
                ..network
            })
            .await,
        );
    }
    let since = Instant::now();
    let mut later = first.clone();
    while later.height == first.height && since.elapsed() < BLOCK_PATIENCE {
        sleep(BLOCK_POLL).await;
        // A node that stops to answer shows no new block either.
        if let Ok(status) = node_status(rpc, ANSWER_TIMEOUT).await {
            later = status.into();
        }
    }
    let now = now_nanos();
    findings.push(checks::head(&first, &later, since.elapsed(), now));
    findings.push(checks::clock(later.time_nanos, now, later.height > first.height));
    findings
}

async fn contracts(network: Network) -> Finding {
    const CHECK: &str = "contracts";
    const FIX: &str = "the network file is wrong or old: get it anew";
    let looked = timeout(CONTRACTS_TIMEOUT, async {
        Client::connect_with(network, ANSWER_TIMEOUT)
            .await?
            .check_contracts()
            .await
    });
    match looked.await {
        Err(_) => Finding::fail(
            CHECK,
            format!("no answer within {} s", CONTRACTS_TIMEOUT.as_secs()),
            "try again, or give another node with --node",
        ),
        Ok(Err(error)) => Finding::fail(CHECK, error.to_string(), FIX),
        Ok(Ok(found)) => {
            let told: Vec<String> = found
                .iter()
                .map(|(_, recorded)| format!("{} {}", recorded.contract, recorded.version))
                .collect();
            Finding::ok(CHECK, told.join(", "))
        }
    }
}

fn this_machine(globals: &Globals) -> Vec<Finding> {
    let mut findings = match home_of(globals) {
        Ok(home) => in_home(&home),
        Err(error) => vec![Finding::fail("home", error.to_string(), "give --home DIR")],
    };
    findings.extend(facts::PORTS.map(|(number, service)| checks::port(&facts::port(number, service))));
    findings.extend(checks::machine(&facts::limits()));
    findings
}

fn in_home(home: &Path) -> Vec<Finding> {
    let mut findings = match facts::disk(home) {
        Ok(disk) => checks::home(home, &disk),
        Err(error) => vec![Finding::fail("disk", format!("{error:#}"), "give another --home DIR")],
    };
    match facts::keys(home) {
        Ok(keys) if keys.is_empty() => {
            findings.push(Finding::ok("key", "there is none yet; `fxn keys new NAME` makes one"));
        }
        Ok(keys) => findings.extend(keys.iter().map(checks::key)),
        Err(reason) => findings.push(Finding::fail(
            "key",
            reason,
            "make the folder readable for its owner: chmod 700",
        )),
    }
    findings
}

fn home_of(globals: &Globals) -> anyhow::Result<PathBuf> {
    globals.home.clone().map_or_else(home::default, Ok)
}

fn now_nanos() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
