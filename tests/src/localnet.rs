//! A chain of wasmd validators, for suites that need the real node: `scripts/localnet.sh` with a home and ports of its own.

use std::{
    net::TcpListener,
    path::Path,
    process::{Command, Output},
    sync::atomic::{AtomicU16, Ordering},
    time::{Duration, Instant},
};

use tempfile::TempDir;

use crate::program::{clean, root};

/// Ports of one validator, as the script numbers them.
const PORTS_EACH: u16 = 10;
/// Ports of the largest chain.
const PLACE: u16 = 4 * PORTS_EACH;
/// Ports below those that systems give to clients.
const PORTS: std::ops::Range<u16> = 20_000..32_000;
/// How long anything may take that the chain does by itself.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// Validators that stop when it is dropped.
#[derive(Debug)]
pub struct Localnet {
    home: TempDir,
    base_port: u16,
    validators: u16,
}

/// A line of `scripts/localnet.sh status`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Validator {
    /// Its process; `None` if there is none.
    pub pid: Option<u32>,
    /// Its RPC.
    pub rpc: String,
    /// What it says, if it answers.
    pub up: Option<Up>,
}

/// What a validator says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Up {
    /// Latest block.
    pub height: u64,
    /// Whether it still fetches blocks from others.
    pub catching_up: bool,
    /// Version of the node's application.
    pub app_version: String,
}

impl Localnet {
    /// A new chain with blocks on every validator.
    pub fn start(validators: u16) -> Localnet {
        let net = Localnet {
            home: tempfile::tempdir().expect("a temporary folder"),
            base_port: free_place(),
            validators,
        };
        net.succeed(&[
            "start",
            "--validators",
            &validators.to_string(),
            "--base-port",
            &net.base_port.to_string(),
        ]);
        net
    }

    /// The folder with a folder for each validator.
    pub fn home(&self) -> &Path {
        self.home.path()
    }

    /// The RPC of a validator.
    pub fn rpc(&self, validator: u16) -> String {
        format!("http://127.0.0.1:{}", self.base_port + PORTS_EACH * validator)
    }

    /// Runs the script on this chain.
    pub fn run(&self, words: &[&str]) -> Output {
        let mut command = clean(Command::new(root().join("scripts/localnet.sh")));
        let output = command.args(words).arg("--home").arg(self.home.path()).output();
        output.expect("scripts/localnet.sh runs")
    }

    /// Runs the script, which has to succeed, and returns what it said.
    pub fn succeed(&self, words: &[&str]) -> String {
        let output = self.run(words);
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "localnet.sh {words:?} failed: {said}{error}");
        said
    }

    /// Every validator, whether it is up or not.
    pub fn status(&self) -> Vec<Validator> {
        let output = self.run(&["status"]);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let lines: Vec<Validator> = text.lines().skip(1).map(parse).collect();
        assert_eq!(lines.len(), usize::from(self.validators), "{text}");
        let all_up = lines.iter().all(|line| line.up.is_some());
        assert_eq!(
            output.status.success(),
            all_up,
            "the exit code tells whether all are up: {text}"
        );
        lines
    }

    /// Kills a validator as a power cut does.
    pub fn kill(&self, validator: u16) {
        let pid = self.status()[usize::from(validator)].pid.expect("it runs");
        let killed = Command::new("kill").args(["-KILL", &pid.to_string()]).status();
        assert!(killed.expect("kill runs").success());
        wait_for("the process to be gone", || {
            self.status()[usize::from(validator)].pid.is_none()
        });
    }

    /// Starts a validator again that was killed or stopped.
    pub fn start_validator(&self, validator: u16) {
        self.succeed(&["start", "--validator", &validator.to_string()]);
    }

    /// The latest block of a validator that is up.
    pub fn height(&self, validator: u16) -> u64 {
        let up = self.status()[usize::from(validator)].up.clone();
        up.expect("it answers").height
    }

    /// Waits until a validator has this many blocks more than now.
    pub fn await_blocks(&self, validator: u16, count: u64) {
        let now = self.height(validator);
        wait_for("blocks", || self.height(validator) >= now + count);
    }
}

impl Drop for Localnet {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for validator in 0..self.validators {
                let log = self.run(&["logs", "--validator", &validator.to_string()]).stdout;
                eprintln!("validator {validator}: {}", String::from_utf8_lossy(&log));
            }
        }
        let _ = self.run(&["stop"]);
    }
}

/// Waits for a fact.
pub fn wait_for(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < PATIENCE, "waited {PATIENCE:?} for {what}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn parse(line: &str) -> Validator {
    let cells: Vec<&str> = line.split_whitespace().collect();
    let up = (cells.len() == 6).then(|| Up {
        height: cells[3].parse().expect("a height"),
        catching_up: cells[4] == "true",
        app_version: cells[5].to_owned(),
    });
    assert!(up.is_some() || cells[3] == "down", "{line}");
    Validator {
        pid: cells[1].parse().ok(),
        rpc: cells[2].to_owned(),
        up,
    }
}

/// The first port of a place for a chain, all of it free now. A chain takes seconds to listen, so each is given a place of its own: chains of
/// one process neighbouring ones, processes with neighbouring ids distant ones.
pub fn free_place() -> u16 {
    static GIVEN: AtomicU16 = AtomicU16::new(0);
    let places = (PORTS.end - PORTS.start) / PLACE;
    let own =
        u16::try_from(std::process::id().wrapping_mul(17) % u32::from(places)).expect("below the number of places");
    for _ in 0..places {
        let number = own.wrapping_add(GIVEN.fetch_add(1, Ordering::Relaxed)) % places;
        let base = PORTS.start + number * PLACE;
        if (base..base + PLACE).all(|port| TcpListener::bind(("127.0.0.1", port)).is_ok()) {
            return base;
        }
    }
    panic!("no place among {PORTS:?} is free");
}
