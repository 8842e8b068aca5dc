//! A host as an operating system process of its own, which can be killed as the system kills, and a chain in a file that all of them read.
//!
//! The process is this very test binary, told by a variable of its environment to be a host instead. It dies by its own SIGKILL at the named
//! place that it is told, or by its parent's whenever that wants.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, Write},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    time::Duration,
};

use client::Wallet;
use futures::future::BoxFuture;
use inference_host::{
    chain::{Assignment, BlockTime, Chain, ChainError, ModelVersion, OpenedSession},
    start, Config, POINTS,
};
use reqwest::{Method, StatusCode};
use schema::{
    staking::DeploymentResponse,
    work::{HostFile, WorkStatus},
    Digest, ItemId, ModelId,
};
use serde::{Deserialize, Serialize};

use crate::{kit::now, tiny::TinyRuntime};

const ORDERS: &str = "FXN_TEST_HOST";
/// The manifest of the model does not list it: machines of this class may differ in their last bits.
pub(crate) const CLASS: &str = "tiny-2/cpu";

/// What a process is to do.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Orders {
    /// Name of the key; the provider is its account.
    pub(crate) key: String,
    pub(crate) home: PathBuf,
    pub(crate) chain: PathBuf,
    pub(crate) source: String,
    /// Added to every result, as another machine of the same class would.
    pub(crate) error: f32,
    /// Where to die, and at which of the visits.
    pub(crate) die: Option<(String, u32)>,
    /// Where the disk is full from the beginning.
    pub(crate) full: Option<String>,
}

/// Everything that a host asks the chain.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct ChainFile {
    pub(crate) assignments: Vec<Assignment>,
    pub(crate) input: Vec<Vec<u8>>,
    pub(crate) deployments: Vec<DeploymentResponse>,
    pub(crate) sessions: Vec<OpenedSession>,
    pub(crate) manifest: Option<Digest>,
    pub(crate) stages: Vec<Digest>,
    /// By provider.
    pub(crate) homes: BTreeMap<String, PathBuf>,
    /// Chain time minus this machine's.
    pub(crate) ahead_seconds: u64,
}

impl ChainFile {
    pub(crate) fn write(&self, path: &Path) {
        let temporary = path.with_extension("new");
        fs::write(&temporary, serde_json::to_vec(self).unwrap()).unwrap();
        fs::rename(temporary, path).unwrap();
    }
}

#[derive(Debug)]
struct ReadChain(PathBuf);

impl ReadChain {
    fn ask<'a, R: Send + 'a>(
        &self,
        answer: impl FnOnce(ChainFile) -> Option<R>,
    ) -> BoxFuture<'a, Result<R, ChainError>> {
        let facts = serde_json::from_slice(&fs::read(&self.0).unwrap()).unwrap();
        let reason = "not found".to_owned();
        let result = answer(facts).ok_or(ChainError::Refused { reason });
        Box::pin(async move { result })
    }
}

impl Chain for ReadChain {
    fn assignment(&self, item: ItemId) -> BoxFuture<'_, Result<Assignment, ChainError>> {
        self.ask(|facts| facts.assignments.into_iter().find(|assignment| assignment.item == item))
    }

    fn input(&self, _: u64, _: u16) -> BoxFuture<'_, Result<Vec<Vec<u8>>, ChainError>> {
        self.ask(|facts| Some(facts.input))
    }

    fn deployments<'a>(&'a self, provider: &'a str) -> BoxFuture<'a, Result<Vec<DeploymentResponse>, ChainError>> {
        self.ask(|mut facts| {
            facts.deployments.retain(|deployment| deployment.provider == provider);
            Some(facts.deployments)
        })
    }

    fn version<'a>(&'a self, _: &'a ModelId, _: u32) -> BoxFuture<'a, Result<ModelVersion, ChainError>> {
        self.ask(|facts| {
            Some(ModelVersion {
                manifest: facts.manifest?,
                stages: facts.stages,
            })
        })
    }

    fn endpoint<'a>(&'a self, provider: &'a str) -> BoxFuture<'a, Result<String, ChainError>> {
        self.ask(|facts| {
            let file = host_file(facts.homes.get(provider)?)?;
            Some(format!("http://{}", file.listen))
        })
    }

    fn time(&self) -> BoxFuture<'_, Result<BlockTime, ChainError>> {
        self.ask(|facts| {
            let since = std::time::SystemTime::now()
                .duration_since(std::time::UNIX_EPOCH)
                .unwrap();
            let unix_millis = since.as_millis() as u64 + facts.ahead_seconds * 1000;
            Some(BlockTime {
                height: unix_millis,
                unix_millis,
            })
        })
    }

    fn session(&self, session: u64) -> BoxFuture<'_, Result<OpenedSession, ChainError>> {
        self.ask(|facts| {
            facts
                .sessions
                .into_iter()
                .find(|opened| opened.session.session == session)
        })
    }

    fn account_of(&self, public_key: &[u8]) -> Option<String> {
        client::address_of(public_key, "wasm").ok()
    }
}

fn host_file(home: &Path) -> Option<HostFile> {
    serde_json::from_slice(&fs::read(home.join("host.json")).ok()?).ok()
}

#[test]
fn this_test_is_the_host_when_its_environment_says_so() {
    let Ok(orders) = std::env::var(ORDERS) else { return };
    be_a_host(serde_json::from_str(&orders).unwrap());
}

fn be_a_host(orders: Orders) {
    // Visits are counted over all processes of a home.
    let visits = fs::read_to_string(visits_path(&orders.home)).unwrap_or_default();
    let count = |mut visits: BTreeMap<String, u32>, point: &str| {
        *visits.entry(point.to_owned()).or_insert(0) += 1;
        visits
    };
    let visits = Arc::new(Mutex::new(visits.lines().fold(BTreeMap::new(), count)));
    for point in POINTS {
        watch(point, &orders, &visits);
    }
    if let Some(point) = &orders.full {
        fail::cfg(point, "return").unwrap();
    }
    let key = Wallet::dev(&orders.key);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let any = "127.0.0.1:0".parse().unwrap();
    let config = Config {
        listen: any,
        status: any,
        sources: vec![orders.source.parse().unwrap()],
        allow_private_peers: true,
        io_timeout_seconds: 5,
        refresh_seconds: 1,
        retention_seconds: 0,
        ..Config::new(&orders.home, key.address("wasm"))
    };
    let engine = TinyRuntime {
        class: CLASS.to_owned(),
        error: orders.error,
        ..TinyRuntime::default()
    };
    let chain = Arc::new(ReadChain(orders.chain.clone()));
    let running = match runtime.block_on(start(config, key, chain, Arc::new(engine))) {
        Ok(running) => running,
        Err(error) => return fs::write(last_words_path(&orders.home), format!("{error:#}")).unwrap(),
    };
    // The parent says which places have a full disk, and by hanging up, that it is over.
    for line in std::io::stdin().lock().lines() {
        let line = line.unwrap();
        let (order, point) = line.split_once(' ').unwrap();
        match order {
            "fill" => fail::cfg(point, "return").unwrap(),
            _ => watch(point, &orders, &visits),
        }
        fs::write(heard_path(&orders.home), &line).unwrap();
    }
    runtime.block_on(running.stop());
}

fn watch(point: &str, orders: &Orders, visits: &Arc<Mutex<BTreeMap<String, u32>>>) {
    let (name, die, visits) = (point.to_owned(), orders.die.clone(), Arc::clone(visits));
    let path = visits_path(&orders.home);
    let visit = move || {
        let mut visits = visits.lock().unwrap();
        let count = visits.entry(name.clone()).or_insert(0_u32);
        *count += 1;
        let mut file = fs::File::options().create(true).append(true).open(&path).unwrap();
        writeln!(file, "{name}").unwrap();
        if die == Some((name.clone(), *count)) {
            let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
            std::thread::sleep(Duration::from_secs(60));
        }
    };
    fail::cfg_callback(point, visit).unwrap();
}

fn heard_path(home: &Path) -> PathBuf {
    home.with_extension("heard")
}

fn last_words_path(home: &Path) -> PathBuf {
    home.with_extension("words")
}

fn visits_path(home: &Path) -> PathBuf {
    home.with_extension("visits")
}

/// A host that is its own process, and what its relayer and its developer see of it.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) orders: Orders,
    child: Option<Child>,
    /// How often it was found dead.
    pub(crate) deaths: u32,
}

impl Process {
    pub(crate) fn new(orders: Orders) -> Self {
        Self {
            orders,
            child: None,
            deaths: 0,
        }
    }

    pub(crate) fn address(&self) -> String {
        Wallet::dev(&self.orders.key).address("wasm")
    }

    pub(crate) fn start(&mut self) {
        let child = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "process::this_test_is_the_host_when_its_environment_says_so",
                "--nocapture",
            ])
            .env(ORDERS, serde_json::to_string(&self.orders).unwrap())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        self.child = Some(child.unwrap());
    }

    /// Starts it again where it has died. A machine that comes back may compute other last bits.
    pub(crate) fn revive(&mut self) {
        let dead = self
            .child
            .as_mut()
            .is_none_or(|child| child.try_wait().unwrap().is_some());
        if dead {
            self.deaths += u32::from(self.child.is_some());
            if self.deaths > 0 {
                self.orders.error = if self.orders.error == 0.0 { 6e-7 } else { 0.0 };
            }
            self.start();
        }
    }

    /// Why it did not start, once it has given up.
    pub(crate) fn last_words(&mut self) -> String {
        let ended = self.child.as_mut().unwrap().wait().unwrap();
        assert!(ended.success(), "{ended}");
        let path = last_words_path(&self.orders.home);
        let words = fs::read_to_string(&path).unwrap();
        fs::remove_file(path).unwrap();
        words
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            child.wait().unwrap();
        }
    }

    /// Fills the disk at a named place, or makes room there. It has happened when this returns.
    pub(crate) fn tell(&mut self, line: &str) {
        let stdin = self.child.as_mut().unwrap().stdin.as_mut().unwrap();
        writeln!(stdin, "{line}").unwrap();
        let heard = heard_path(&self.orders.home);
        for _ in 0..3000 {
            if fs::read_to_string(&heard).is_ok_and(|heard| heard == line) {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("{line} was never heard");
    }

    pub(crate) fn visits(&self) -> Vec<String> {
        let text = fs::read_to_string(visits_path(&self.orders.home)).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// What the process that runs now has announced.
    pub(crate) fn announced(&self) -> Option<HostFile> {
        host_file(&self.orders.home).filter(|file| Some(file.pid) == self.child.as_ref().map(Child::id))
    }

    /// No answer where it is dead or not there yet.
    pub(crate) async fn call(&self, method: Method, path: &str) -> Option<(StatusCode, String)> {
        let file = self.announced()?;
        let token = fs::read_to_string(self.orders.home.join("host.token")).ok()?;
        let url = format!("http://{}{path}", file.status);
        let client = reqwest::Client::builder()
            .timeout(Duration::from_secs(10))
            .build()
            .unwrap();
        let answer = client
            .request(method, url)
            .bearer_auth(token.trim())
            .send()
            .await
            .ok()?;
        Some((answer.status(), answer.text().await.ok()?))
    }

    /// Says something to the private interface. Whether it was heard does not matter to whoever says it again.
    pub(crate) async fn tell_json<T: Serialize>(&self, path: &str, body: &T) {
        let Some(file) = self.announced() else { return };
        let Ok(token) = fs::read_to_string(self.orders.home.join("host.token")) else {
            return;
        };
        let request = reqwest::Client::new()
            .post(format!("http://{}{path}", file.status))
            .bearer_auth(token.trim())
            .timeout(Duration::from_secs(10));
        let _ = request.json(body).send().await;
    }

    pub(crate) async fn begin(&self, item: ItemId) -> Option<WorkStatus> {
        let (status, body) = self.call(Method::PUT, &format!("/v1/items/{item}/0")).await?;
        (status == StatusCode::ACCEPTED).then(|| serde_json::from_str(&body).unwrap())
    }

    pub(crate) async fn output(&self, assignment: &Assignment, output: Digest, developer: &Wallet) -> Option<Vec<u8>> {
        let file = self.announced()?;
        let request = schema::receipt::OutputRequest {
            domain: assignment.domain.clone(),
            item: assignment.item,
            output_digest: output,
            valid_until: now() + 60,
        };
        let answer = reqwest::Client::new()
            .get(format!("http://{}/outputs/{output}", file.listen))
            .header("x-fxn-item", assignment.item.to_string())
            .header("x-fxn-valid-until", request.valid_until.to_string())
            .header("x-fxn-public-key", hex::encode(developer.public_key()))
            .header(
                "x-fxn-signature",
                hex::encode(developer.sign_digest(&request.digest().0)),
            )
            .timeout(Duration::from_secs(10));
        let answer = answer.send().await.ok()?;
        let status = answer.status();
        let body = answer.bytes().await.ok()?.to_vec();
        assert_eq!(status, StatusCode::OK, "{}", String::from_utf8_lossy(&body));
        Some(body)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}
