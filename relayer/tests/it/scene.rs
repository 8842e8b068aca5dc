//! A home, a chain, a host, and a relayer between them that can be stopped politely or not.

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use relayer::{
    chain::Chain,
    checkpoint::{CheckpointError, Owner, SetAside, Store},
    disk::{Disk, SystemDisk},
    status::Snapshot,
    Config, Relayer, RelayerError,
};
use tempfile::TempDir;
use tokio::{sync::watch, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use crate::{
    fake_chain::{FakeChain, ME},
    fake_host::FakeHost,
};

pub struct Scene {
    pub home: TempDir,
    pub chain: FakeChain,
    pub host: FakeHost,
}

pub struct Running {
    task: JoinHandle<Result<(), RelayerError>>,
    stop: CancellationToken,
    pub snapshots: watch::Receiver<Snapshot>,
}

impl Scene {
    pub async fn new() -> Scene {
        let home = TempDir::new().unwrap();
        let host = FakeHost::start(home.path(), ME).await;
        Scene {
            home,
            chain: FakeChain::new(),
            host,
        }
    }

    pub fn config(&self) -> Config {
        Config {
            host_home: self.home.path().into(),
            ..config(self.home.path().into())
        }
    }

    pub async fn start(&self) -> Running {
        self.start_with(self.config()).await.unwrap()
    }

    pub async fn start_with(&self, config: Config) -> Result<Running, RelayerError> {
        start(config, self.chain.clone()).await
    }

    /// With its files on another disk.
    pub async fn start_on(&self, disk: Arc<dyn Disk>) -> Result<Running, RelayerError> {
        start_on(disk, self.config(), self.chain.clone()).await
    }

    pub fn owner(&self) -> Owner {
        Owner {
            chain_id: "fake-1".into(),
            orchestrator: "wasm1orchestrator".into(),
            provider: ME.into(),
        }
    }

    /// The checkpoint of a relayer that does not run.
    pub async fn store(&self) -> Store {
        loop {
            match Store::open(self.home.path(), self.owner()) {
                // The tasks of a killed relayer are dropped in their own time.
                Err(CheckpointError::Locked { .. }) => tokio::task::yield_now().await,
                opened => return opened.unwrap().0,
            }
        }
    }
}

/// A store, also where another test has just started a process: for a moment a child has the lock of every store of this process.
pub fn opened(open: impl Fn() -> Result<(Store, Option<SetAside>), CheckpointError>) -> (Store, Option<SetAside>) {
    let since = Instant::now();
    loop {
        match open() {
            Err(CheckpointError::Locked { .. }) if since.elapsed() < Duration::from_secs(10) => {
                std::thread::yield_now()
            }
            opened => return opened.unwrap(),
        }
    }
}

pub fn config(home: PathBuf) -> Config {
    Config {
        home: home.clone(),
        host_home: home,
        status_listen: "127.0.0.1:0".parse().unwrap(),
        host_wait: Duration::from_secs(2),
        retry_pause: Duration::from_millis(20),
        batch_wait: Duration::from_millis(50),
        confirm_timeout: Duration::from_secs(1),
        // Blocks are short here, and machines may be slow.
        stuck_blocks: 10_000,
        overdue_interval: Duration::from_secs(1),
        expiry_blocks_max: 0,
        settle_interval: Duration::from_millis(100),
        shutdown_timeout: Duration::from_secs(5),
        ..Config::default()
    }
}

pub async fn start(config: Config, chain: FakeChain) -> Result<Running, RelayerError> {
    start_on(Arc::new(SystemDisk), config, chain).await
}

async fn start_on(disk: Arc<dyn Disk>, config: Config, chain: FakeChain) -> Result<Running, RelayerError> {
    let relayer = loop {
        match Relayer::start_on(disk.clone(), config.clone(), chain.clone(), ME).await {
            Err(RelayerError::Checkpoint(CheckpointError::Locked { .. })) => tokio::task::yield_now().await,
            started => break started?,
        }
    };
    Ok(Running::of(relayer))
}

impl Running {
    /// A relayer at work.
    pub fn of<C: Chain>(relayer: Relayer<C>) -> Running {
        let stop = CancellationToken::new();
        let snapshots = relayer.board().subscribe();
        let task = tokio::spawn(relayer.run(stop.clone()));
        Running { task, stop, snapshots }
    }

    pub async fn until(&mut self, what: &str, is_so: impl FnMut(&Snapshot) -> bool) {
        let wait = self.snapshots.wait_for(is_so);
        let waited = tokio::time::timeout(Duration::from_secs(20), wait).await.map(drop);
        assert!(waited.is_ok(), "never: {what}; {:?}", *self.snapshots.borrow());
    }

    /// Waits until a block was taken in.
    pub async fn until_height(&mut self, height: u64) {
        self.until("the height", |snapshot| snapshot.height >= height).await;
    }

    /// As SIGKILL does.
    pub async fn kill(self) {
        self.task.abort();
        let _ = self.task.await;
    }

    /// As SIGTERM does.
    pub async fn stop(self) -> Result<(), RelayerError> {
        self.stop.cancel();
        self.task.await.unwrap()
    }

    /// Waits for its own end.
    pub async fn end(self) -> Result<(), RelayerError> {
        tokio::time::timeout(Duration::from_secs(20), self.task)
            .await
            .unwrap()
            .unwrap()
    }
}
