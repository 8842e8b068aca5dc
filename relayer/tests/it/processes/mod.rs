//! The relayer as an operating system process of its own, which is killed and started again: the real checkpoint on the real disk, the real
//! HTTP to a host, the real RPC of a chain with the real contracts.
//!
//! The process is this very test binary, told by its environment what it is. At a point where it is to die it stops dead, on its only thread, and the
//! test sends SIGKILL.

mod files;
mod moments;
mod points;
mod twins;

use std::{
    fs::{self, OpenOptions},
    io::{Read, Write},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    sync::{
        atomic::{AtomicU32, Ordering},
        Arc,
    },
    time::{Duration, Instant},
};

use client::Wallet;
use relayer::{
    checkpoint::{decode, State, FILE},
    crash,
    disk::{Disk, SystemDisk},
    Config, RelayerFile,
};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::{market::Market, power::PowerDisk};

/// Names the file with the [`Order`]; without it this is no relayer process.
const ORDER: &str = "FXN_TEST_RELAYER_ORDER";
/// Longest wait for anything that a process is to do.
const PATIENCE: Duration = Duration::from_secs(120);

/// What a relayer process is told.
#[derive(Debug, Serialize, Deserialize)]
struct Order {
    config: Config,
    /// Where it dies: the name of a point, and at which pass.
    dies_at: Option<(String, u32)>,
    /// Gets the name of every point that is passed.
    trace: PathBuf,
    /// Is there as soon as it has stopped dead.
    marker: PathBuf,
    /// Whose account pays.
    key: String,
    /// What is safe from a power cut is kept here.
    platter: Option<PathBuf>,
}

#[test]
fn a_relayer_process() {
    let Some(path) = std::env::var_os(ORDER) else {
        // An ordinary run of the tests: the stories below start the processes.
        return;
    };
    let order: Order = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    let config = order.config.clone();
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .init();
    let wallet = Wallet::dev(&order.key);
    let disk: Arc<dyn Disk> = match &order.platter {
        Some(platter) => Arc::new(PowerDisk::install(&config.home, platter)),
        None => Arc::new(SystemDisk),
    };
    crash::arm(hook(order));
    let stop = CancellationToken::new();
    let end_of_input = stop.clone();
    std::thread::spawn(move || {
        let _ = std::io::stdin().read_to_end(&mut vec![]);
        end_of_input.cancel();
    });
    // One thread: whoever stops dead stops everything.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let ended = runtime.block_on(relayer::run_on(disk, config, wallet, stop));
    let code = match ended {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("fxn: {error}");
            1
        }
    };
    std::process::exit(code);
}

fn hook(order: Order) -> impl Fn(crash::Point) + Send + Sync {
    let passes = AtomicU32::new(0);
    let trace = OpenOptions::new().create(true).append(true).open(&order.trace).unwrap();
    move |point| {
        writeln!(&trace, "{}", point.name()).unwrap();
        if order.dies_at.as_ref().is_none_or(|(name, _)| name != point.name()) {
            return;
        }
        let pass = passes.fetch_add(1, Ordering::SeqCst) + 1;
        if order.dies_at.as_ref().is_some_and(|(_, wanted)| *wanted == pass) {
            fs::write(&order.marker, "").unwrap();
            std::thread::sleep(PATIENCE);
            std::process::abort();
        }
    }
}

/// A relayer process. It ends with this.
pub struct Process {
    child: Child,
    stdin: Option<ChildStdin>,
    home: PathBuf,
    log: PathBuf,
    trace: PathBuf,
    marker: PathBuf,
}

impl Process {
    /// Starts one in the market's home.
    fn start(market: &Market, dies_at: Option<(&str, u32)>) -> Process {
        Process::start_with(market.config(), dies_at)
    }

    fn start_with(config: Config, dies_at: Option<(&str, u32)>) -> Process {
        Process::launch(config, dies_at, "relayer", None)
    }

    /// One that pays with this key, and whose home is under a power supply that may fail.
    pub fn launch(config: Config, dies_at: Option<(&str, u32)>, key: &str, platter: Option<&Path>) -> Process {
        static LIVES: AtomicU32 = AtomicU32::new(0);
        let life = LIVES.fetch_add(1, Ordering::SeqCst);
        let folder = config.home.join("lives");
        fs::create_dir_all(&folder).unwrap();
        let beside = |ending: &str| folder.join(format!("{life}.{ending}"));
        let (order_path, log) = (beside("order"), beside("log"));
        let order = Order {
            dies_at: dies_at.map(|(name, pass)| (name.to_owned(), pass)),
            trace: beside("trace"),
            marker: beside("marker"),
            config: config.clone(),
            key: key.to_owned(),
            platter: platter.map(Path::to_owned),
        };
        fs::write(&order_path, serde_json::to_vec(&order).unwrap()).unwrap();
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "processes::a_relayer_process",
                "--nocapture",
                "--test-threads",
                "1",
            ])
            .env(ORDER, order_path)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(fs::File::create(&log).unwrap())
            .spawn()
            .unwrap();
        Process {
            log,
            home: config.home,
            stdin: child.stdin.take(),
            child,
            trace: order.trace,
            marker: order.marker,
        }
    }

    /// Points that were passed so far, in order.
    pub fn passed(&self) -> Vec<String> {
        let text = fs::read_to_string(&self.trace).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// What it has logged so far.
    pub fn logged(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    /// The answer at a path of its private port, as soon as it answers.
    pub async fn answer(&self, path: &str) -> String {
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        let since = Instant::now();
        loop {
            assert!(since.elapsed() < PATIENCE, "no answer to {path}; {}", self.logged());
            let file = fs::read(self.home.join("relayer.json")).unwrap_or_default();
            // The file of a life before this one names another process.
            let file = serde_json::from_slice::<RelayerFile>(&file)
                .ok()
                .filter(|file| file.pid == self.child.id());
            if let Some(file) = file {
                if let Ok(answer) = http.get(format!("http://{}{path}", file.status)).send().await {
                    return answer.text().await.unwrap();
                }
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Waits until it has ended by itself; gives its exit code.
    pub async fn ends(&mut self) -> Option<i32> {
        let since = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            assert!(
                since.elapsed() < PATIENCE,
                "it does not end; it passed {:?}",
                self.passed()
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Waits until it has stopped dead where it was told to, then kills it. False: it ended before that.
    async fn dies(&mut self) -> bool {
        let since = Instant::now();
        while !self.marker.exists() {
            if self.child.try_wait().unwrap().is_some() {
                return false;
            }
            assert!(
                since.elapsed() < PATIENCE,
                "it does not come there; it passed {:?}",
                self.passed()
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        self.kill();
        true
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Tells it to stop, as a signal would.
    fn is_told_to_stop(&mut self) {
        drop(self.stdin.take());
    }

    /// Tells it to stop, and waits for its exit code.
    pub async fn stops(&mut self) -> Option<i32> {
        self.is_told_to_stop();
        self.ends().await
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The checkpoint of a relayer that does not run, as its bytes tell it.
pub fn state_in(home: &Path) -> State {
    match fs::read(home.join(FILE)) {
        Ok(content) => decode(&content).unwrap().1,
        Err(_) => State::default(),
    }
}

pub fn is_empty(state: &State) -> bool {
    state.entries().count() == 0 && state.transaction().is_none()
}
