//! The program as people run it: real processes, a real model, real clocks.
//!
//! `FXN_BIN` names the program; otherwise it is the newest `fxn` of this target folder. The demonstrations run one after the other, because
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
mod keep;
mod vision;

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, ChildStdout, Command, Output, Stdio},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use fxn_tests::program::{binary, fxn, root};
use serde_json::Value;

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

/// `fxn demo --keep`, after it has told its report.
struct Kept {
    child: Child,
    report: Value,
    _stdout: BufReader<ChildStdout>,
}

impl Kept {
    fn start(home: &Path) -> Self {
        let mut command = fxn(home);
        command
            .args(["demo", "--keep", "--output", "json"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
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
