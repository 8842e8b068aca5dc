//! The program as people run it: real processes, a real model, real clocks.
//!
//! Every story is told on two chains: on an embedded one of its own, or, where `FXN_E2E_RPC` names a node of a real chain with the development
//! accounts, on a deployment of its own there. `FXN_BIN` names the program; otherwise it is the newest `fxn` of this target folder. The demonstrations run one after the other, because
//! each of them uses the whole machine.

#![allow(
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    clippy::unwrap_used,
    reason = "sums of a test's own numbers, and what cannot be unwrapped fails its story"
)]

mod demo;
mod ending;
mod failover;
mod forced;
mod keep;
mod vision;

use std::{
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Output, Stdio},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use devnet::FAUCET;
use fxn_tests::program::{binary, fxn, root};
use serde_json::Value;
use tempfile::TempDir;

/// Longest run of a demonstration, on a machine that builds something at the same time.
const PATIENCE: Duration = Duration::from_secs(300);

static MACHINE: Mutex<()> = Mutex::new(());

/// The machine, for one demonstration at a time.
fn machine() -> MutexGuard<'static, ()> {
    MACHINE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn said(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The one JSON document of a command that succeeded.
fn document(output: &Output) -> Value {
    assert!(output.status.success(), "{}: {}", output.status, said(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("stdout is one JSON document")
}

/// The sentence of a command that was refused.
fn refusal(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(1), "{}", said(&output.stderr));
    assert!(output.stdout.is_empty(), "{}", said(&output.stdout));
    let said = said(&output.stderr);
    said.lines().last().unwrap_or_default().to_owned()
}

/// Processes of the report that still run. A number may have gone to somebody else: only processes with the home in their command count.
fn survivors(report: &Value) -> Vec<u64> {
    let processes = report["processes"].as_array().unwrap();
    let alive = processes.iter().filter(|process| {
        let path = format!("/proc/{}/cmdline", process["pid"]);
        let command = std::fs::read(path).unwrap_or_default();
        said(&command).contains(process["home"].as_str().unwrap())
    });
    alive.map(|process| process["pid"].as_u64().unwrap()).collect()
}

/// Waits until none of the processes runs any more.
fn wait_until_gone(report: &Value) {
    let since = Instant::now();
    while !survivors(report).is_empty() {
        assert!(
            since.elapsed() < Duration::from_secs(20),
            "left behind: {:?}",
            survivors(report)
        );
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// A home for the account that pays, and the chain that the story is told on.
struct Stage {
    home: TempDir,
    is_real: bool,
}

impl Stage {
    fn open() -> Self {
        let home = tempfile::tempdir().unwrap();
        let rpc = std::env::var("FXN_E2E_RPC").ok();
        if let Some(rpc) = &rpc {
            deploy(home.path(), rpc);
        }
        Self {
            home,
            is_real: rpc.is_some(),
        }
    }

    fn home(&self) -> &Path {
        self.home.path()
    }

    fn demo(&self, words: &[&str]) -> Command {
        let mut command = fxn(self.home());
        command.arg("demo").args(words);
        if self.is_real {
            command.arg("--network").arg(self.home().join("network.json"));
            command.args(["--key", FAUCET]);
        }
        command
    }
}

/// New contracts on the chain at `rpc`, and the key that everything is paid with.
fn deploy(home: &Path, rpc: &str) {
    let network = home.join("network.json").display().to_string();
    let artifacts = root().join("artifacts").display().to_string();
    document(
        &fxn(home)
            .args(["keys", "import", FAUCET, "--dev", "--output", "json"])
            .output()
            .unwrap(),
    );
    let deploy = [
        "deploy",
        "--rpc",
        rpc,
        "--profile",
        "local",
        "--artifacts",
        &artifacts,
        "--out",
        &network,
    ];
    document(&fxn(home).args(deploy).args(["--output", "json"]).output().unwrap());
}

/// `fxn demo --keep`, after it has told its report.
struct Kept {
    child: Child,
    report: Value,
    _stdout: BufReader<ChildStdout>,
}

impl Kept {
    fn start(stage: &Stage) -> Self {
        let mut command = stage.demo(&["--keep", "--output", "json"]);
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        let report =
            serde_json::from_str(&line).unwrap_or_else(|error| panic!("no report: {error}; {:?}", child.wait()));
        Self {
            child,
            report,
            _stdout: stdout,
        }
    }

    /// The home that a person in a second terminal uses: the stage's own, or the developer's where somebody's keys lie in the stage's.
    fn second_terminal(&self, stage: &Stage) -> PathBuf {
        let network = PathBuf::from(self.report["network"].as_str().unwrap());
        match stage.is_real {
            true => network.parent().unwrap().to_owned(),
            false => stage.home().to_owned(),
        }
    }

    /// Sends a signal and waits for the end.
    fn signal(mut self, signal: &str) -> (Option<i32>, Value) {
        let pid = self.child.id();
        let sent = Command::new("sh")
            .arg("-c")
            .arg(format!("kill -{signal} {pid}"))
            .status()
            .unwrap();
        assert!(sent.success());
        let since = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return (status.code(), std::mem::take(&mut self.report));
            }
            assert!(since.elapsed() < PATIENCE, "the demonstration does not stop");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        // After a failed test: its children see the end of their stdin and stop too.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
