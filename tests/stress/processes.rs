//! The processes of a network: each with its home and its log, all of them gone when their owner is.

use std::{
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    time::{Duration, Instant},
};

/// How long anything may take that happens in the background, on a machine that does other things too.
pub(crate) const PATIENCE: Duration = Duration::from_secs(180);
/// How long a process may take to stop by itself.
const STOP_PATIENCE: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(100);
/// Lines of each log that are shown after a failure.
const TAIL: usize = 5;

#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) role: String,
    log: PathBuf,
    child: Child,
    /// When it ends, the process stops.
    stdin: Option<ChildStdin>,
}

/// All processes of a network, in the order in which they were started.
#[derive(Debug, Default)]
pub(crate) struct Crew(Vec<Process>);

impl Crew {
    /// Starts a process with what it reads from stdin before it is left alone; what it says goes into `home`.
    pub(crate) fn start(&mut self, role: &str, home: &Path, mut command: Command, stdin: &str) {
        let log = home.join(format!("{}.log", role.rsplit('/').next().unwrap()));
        let file = File::create(&log).unwrap();
        command
            .stdin(Stdio::piped())
            .stdout(file.try_clone().unwrap())
            .stderr(file)
            .env("FXN_STOP_WITH_STDIN", "1");
        let mut child = command.spawn().unwrap();
        let mut pipe = child.stdin.take().unwrap();
        pipe.write_all(stdin.as_bytes()).unwrap();
        self.0.push(Process {
            role: role.to_owned(),
            log,
            stdin: Some(pipe),
            child,
        });
    }

    /// Roles and process ids.
    pub(crate) fn pids(&self) -> impl Iterator<Item = (&str, u32)> {
        self.0.iter().map(|process| (process.role.as_str(), process.child.id()))
    }

    /// Asserts that nobody has stopped.
    pub(crate) fn assert_alive(&mut self) {
        for process in &mut self.0 {
            let ended = process.child.try_wait().unwrap();
            assert!(ended.is_none(), "{} has stopped: {ended:?}", process.role);
        }
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.iter().for_each(Process::show);
        }
        // The chain was started first and is stopped last: relayers finish their transactions.
        let chain = self.0.drain(..1.min(self.0.len())).collect();
        stop(std::mem::take(&mut self.0));
        stop(chain);
    }
}

fn stop(mut processes: Vec<Process>) {
    for process in &mut processes {
        process.stdin.take();
    }
    let until = Instant::now() + STOP_PATIENCE;
    for mut process in processes {
        while process.child.try_wait().is_ok_and(|ended| ended.is_none()) && Instant::now() < until {
            std::thread::sleep(POLL);
        }
        let _ = process.child.kill();
        let _ = process.child.wait();
    }
}

impl Process {
    fn show(&self) {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        let tail = lines[lines.len().saturating_sub(TAIL)..].join("\n    ");
        eprintln!("  {}: {} lines, the last:\n    {tail}", self.role, lines.len());
    }
}

/// Waits for something that happens in the background.
pub(crate) async fn eventually<T>(what: &str, mut probe: impl AsyncFnMut() -> Option<T>) -> T {
    let until = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = probe().await {
            return found;
        }
        assert!(Instant::now() < until, "{what}: not within {PATIENCE:?}");
        tokio::time::sleep(POLL).await;
    }
}

/// What a service answers on its private port; None while it does not.
pub(crate) async fn page(address: &str, path: &str) -> Option<String> {
    let client = reqwest::Client::builder()
        .timeout(Duration::from_secs(10))
        .build()
        .unwrap();
    let answer = client.get(format!("http://{address}{path}")).send().await.ok()?;
    match answer.status().is_success() {
        true => answer.text().await.ok(),
        false => None,
    }
}
