//! The demonstration's processes: this same program as its own children.
//!
//! Guarantees: every child has its own home and log; only own children are ever stopped; whatever ends the demonstration ends them, in the
//! order in which they depend on each other; and if the demonstration itself is killed, their stdin ends and they stop by themselves.

use std::{
    fs::{File, OpenOptions},
    io::{BufRead, BufReader},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{bail, Context as _};
use serde::Serialize;
use tokio::{
    process::{Child, ChildStdin, Command},
    time::{sleep, timeout, Instant},
};

use crate::services::stop::STOP_WITH_STDIN;

/// How long a child may take to stop by itself.
const STOP_PATIENCE: Duration = Duration::from_secs(5);
/// How often something awaited is looked at.
const POLL: Duration = Duration::from_millis(50);

/// Variables of the caller that the children see too.
const KEPT: [&str; 2] = ["FXN_ONNXRUNTIME", "FXN_LOG_FORMAT"];

/// One child.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) role: String,
    pub(crate) home: PathBuf,
    pub(crate) log: PathBuf,
    pub(crate) pid: u32,
    pub(crate) ports: Vec<u16>,
    child: Child,
    /// Dropping it asks the child to stop.
    stdin: Option<ChildStdin>,
}

/// What the report tells of a child.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Told {
    pub(crate) role: String,
    pub(crate) pid: u32,
    pub(crate) home: PathBuf,
    pub(crate) ports: Vec<u16>,
    /// Gone before the end: killed as part of the story, or ended while the network was left running.
    pub(crate) killed: bool,
}

/// All children, in the order in which they were started.
#[derive(Debug)]
pub(crate) struct Crew {
    binary: PathBuf,
    running: Vec<Process>,
    killed: Vec<Told>,
}

impl Crew {
    pub(crate) fn new() -> anyhow::Result<Self> {
        Ok(Self {
            binary: std::env::current_exe().context("failed to find this program's own file")?,
            running: vec![],
            killed: vec![],
        })
    }

    /// Starts a child with its own home; stdout and stderr go to a log there.
    pub(crate) fn start(&mut self, role: &str, home: &Path, arguments: &[String]) -> anyhow::Result<()> {
        let (_, name) = role.rsplit_once('/').unwrap_or(("", role));
        let log = home.join(format!("{name}.log"));
        let open = |path: &Path| OpenOptions::new().create(true).append(true).open(path);
        let file = open(&log).with_context(|| format!("failed to open {}", log.display()))?;
        let errors = file
            .try_clone()
            .with_context(|| format!("failed to open {}", log.display()))?;
        let mut command = Command::new(&self.binary);
        // The caller's settings are not the children's, his passphrase least of all.
        for (variable, _) in std::env::vars_os() {
            if variable.to_string_lossy().starts_with("FXN_") && !KEPT.iter().any(|kept| variable == *kept) {
                command.env_remove(variable);
            }
        }
        command
            .arg("--home")
            .arg(home)
            .args(arguments)
            .env(STOP_WITH_STDIN, "1")
            .env("FXN_HOST_REFRESH_SECONDS", "1");
        command
            .stdin(Stdio::piped())
            .stdout(file)
            .stderr(errors)
            .kill_on_drop(true);
        // A Ctrl-C on the terminal is for the demonstration, which then stops its children in order.
        command.process_group(0);
        let mut child = command.spawn().with_context(|| format!("failed to start {role}"))?;
        self.running.push(Process {
            role: role.to_owned(),
            home: home.to_owned(),
            log,
            pid: child.id().context("a child has ended at once")?,
            ports: vec![],
            stdin: child.stdin.take(),
            child,
        });
        Ok(())
    }

    fn find(&mut self, role: &str) -> anyhow::Result<&mut Process> {
        let found = self.running.iter_mut().find(|process| process.role == role);
        found.with_context(|| format!("{role} is not running"))
    }

    pub(crate) fn pid(&mut self, role: &str) -> anyhow::Result<u32> {
        Ok(self.find(role)?.pid)
    }

    /// Notes where a child listens.
    pub(crate) fn listens(&mut self, role: &str, addresses: &[&str]) -> anyhow::Result<()> {
        let ports = addresses.iter().map(|address| {
            let address = address.trim_start_matches("http://");
            let parsed: SocketAddr = address
                .parse()
                .with_context(|| format!("{role} listens on {address:?}"))?;
            Ok(parsed.port())
        });
        self.find(role)?.ports = ports.collect::<anyhow::Result<_>>()?;
        Ok(())
    }

    /// Waits until `probe` gives something. An error says what did not happen and where the log is.
    pub(crate) async fn until<T>(
        &mut self,
        role: &str,
        what: &str,
        patience: Duration,
        mut probe: impl AsyncFnMut() -> Option<T>,
    ) -> anyhow::Result<T> {
        let give_up = Instant::now()
            .checked_add(patience)
            .context("the clock is out of range")?;
        loop {
            if let Some(found) = probe().await {
                return Ok(found);
            }
            let process = self.find(role)?;
            let log = process.log.display().to_string();
            if let Some(status) = process.child.try_wait().context("failed to look after a child")? {
                bail!(
                    "{role} has stopped with {status}: {}; its log is {log}",
                    last_line(&process.log)
                );
            }
            if Instant::now() >= give_up {
                bail!(
                    "{role} {what} not within {} s: {}; its log is {log}",
                    patience.as_secs(),
                    last_line(&process.log)
                );
            }
            sleep(POLL).await;
        }
    }

    /// SIGKILL, now. Returns once the process is gone.
    pub(crate) async fn kill(&mut self, role: &str) -> anyhow::Result<()> {
        let index = self.running.iter().position(|process| process.role == role);
        let index = index.with_context(|| format!("{role} is not running"))?;
        let mut process = self.running.remove(index);
        process
            .child
            .kill()
            .await
            .with_context(|| format!("failed to kill {role}"))?;
        self.killed.push(Told {
            killed: true,
            ..process.told()
        });
        Ok(())
    }

    /// Everybody who ran or runs.
    pub(crate) fn told(&self) -> Vec<Told> {
        self.running
            .iter()
            .map(Process::told)
            .chain(self.killed.iter().cloned())
            .collect()
    }

    /// Waits until a child ends by itself, strikes it off and returns its role. Cancelling it loses nothing.
    pub(crate) async fn next_to_end(&mut self) -> String {
        if self.running.is_empty() {
            return std::future::pending().await;
        }
        let ends = self.running.iter_mut().map(|process| {
            // An error means that it cannot be waited for, which is an end too.
            Box::pin(process.child.wait())
        });
        let (_, index, _) = futures::future::select_all(ends).await;
        let process = self.running.remove(index);
        self.killed.push(Told {
            killed: true,
            ..process.told()
        });
        process.role
    }

    /// Stops all, the last one started first, so that nobody misses whom it depends on.
    pub(crate) async fn stop(mut self) {
        while let Some(kind) = self.running.last().map(|process| process.kind().to_owned()) {
            let mut group = vec![];
            while self.running.last().is_some_and(|process| process.kind() == kind) {
                group.extend(self.running.pop());
            }
            // All of a kind at once: they do not depend on each other.
            futures::future::join_all(group.into_iter().map(Process::stop)).await;
        }
    }
}

impl Process {
    /// `host` of `provider-3/host`.
    fn kind(&self) -> &str {
        self.role.rsplit_once('/').map_or(self.role.as_str(), |(_, kind)| kind)
    }

    fn told(&self) -> Told {
        Told {
            role: self.role.clone(),
            pid: self.pid,
            home: self.home.clone(),
            ports: self.ports.clone(),
            killed: false,
        }
    }

    async fn stop(mut self) {
        drop(self.stdin.take());
        if timeout(STOP_PATIENCE, self.child.wait()).await.is_err() {
            // It had its time. If even this fails, it is gone already.
            let _ = self.child.kill().await;
        }
    }
}

/// The last line of a log, for an error about its process.
fn last_line(log: &Path) -> String {
    let Ok(file) = File::open(log) else {
        return "no log".to_owned();
    };
    let lines = BufReader::new(file)
        .lines()
        .map_while(Result::ok)
        .filter(|line| !line.trim().is_empty());
    let last: Option<String> = lines.last();
    last.map_or_else(
        || "it has logged nothing".to_owned(),
        |line| line.chars().take(300).collect(),
    )
}
