//! Owns the tasks: source, item tasks, keeper, submitter and status; joins what they say in one loop, and ends them in order.
//!
//! What a block says goes into the checkpoint first and to the tasks second: after a crash at any line the tasks start again from the file.

use std::{
    future::Future,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use serde::{Deserialize, Serialize};
use tokio::{
    net::TcpListener,
    sync::{mpsc, watch},
    task::{JoinError, JoinSet},
};
use tokio_util::sync::CancellationToken;

use crate::{
    chain::{Chain, Identity, Moment},
    checkpoint::{Owner, State, Store},
    config::Config,
    host::Host,
    keeper::{Candidates, Keeper},
    retry::Policy,
    source::{patiently, Change, Source, Step},
    status::{self, Board},
    submitter::{Manner, Submitter},
    tracker::{Tools, Tracker},
    RelayerError,
};

/// Blocks that were read and not taken in. The stream behind has a buffer of its own.
const STEPS: usize = 16;
/// Items on their way to the keeper. Their tasks wait.
const OVERDUE: usize = 64;
/// Longest pause between two tries of anything.
const PAUSE_MAX: Duration = Duration::from_secs(10);
/// Tries of a look-up while following the chain: with the pauses above about ten minutes, as long as the stream itself is patient.
const LOOKUP_TRIES: u32 = 64;
/// Tries of a transaction before its items are told to come again.
const TRANSACTION_TRIES: u32 = 8;

/// `HOME/relayer.json`: where a running relayer answers. Written at start, removed at the end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RelayerFile {
    pub pid: u32,
    /// Private address, `ip:port`: status and metrics.
    pub status: String,
    /// Whose deployments are served.
    pub provider: String,
    /// Unix seconds.
    pub started_at: u64,
}

/// A relayer that has checked everything and holds its checkpoint and its port.
#[derive(Debug)]
pub struct Relayer<C> {
    config: Config,
    chain: C,
    provider: String,
    host: Host,
    store: Arc<Store>,
    board: Board,
    listener: TcpListener,
    file: PathBuf,
}

/// The end of a task: its name and how it went.
type Ended = (&'static str, Result<(), RelayerError>);

impl<C: Chain> Relayer<C> {
    /// Compares the network with its file, opens the checkpoint, binds the port. Nothing is sent anywhere.
    pub async fn start(config: Config, chain: C, provider: &str) -> Result<Relayer<C>, RelayerError> {
        config.check()?;
        let policy = Policy {
            tries: LOOKUP_TRIES,
            ..policy(&config)
        };
        let identity = tokio::time::timeout(config.start_timeout, patiently(policy, || chain.identity()));
        let identity = identity.await.map_err(|_| RelayerError::NoChain {
            seconds: config.start_timeout.as_secs(),
        })??;
        let owner = check(identity, provider)?;
        let board = Board::new(&owner.chain_id, provider);
        let (store, set_aside) = Store::open(&config.home, owner)?;
        if let Some(set_aside) = set_aside {
            let path = set_aside.path.display().to_string();
            tracing::error!(%path, damage = %set_aside.damage, "the checkpoint cannot be read; it was kept, and the chain is asked instead");
            board.note(|snapshot| snapshot.set_aside = Some(path));
        }
        let host = Host::new(&config.host_home, config.host.clone(), provider, config.host_timeout)?;
        let listener = status::bind(config.status_listen).await.map_err(RelayerError::Status)?;
        let file = config.home.join("relayer.json");
        announce(&file, &listener, provider).map_err(RelayerError::Status)?;
        Ok(Relayer {
            config,
            chain,
            provider: provider.to_owned(),
            host,
            store: Arc::new(store),
            board,
            listener,
            file,
        })
    }

    /// What it says about itself.
    pub fn board(&self) -> &Board {
        &self.board
    }

    /// Works until it is told to stop, or until it cannot go on.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), RelayerError> {
        let (limit, file, store) = (self.config.shutdown_timeout, self.file.clone(), self.store.clone());
        let result = match shutdown.run_until_cancelled(self.launch()).await {
            None => Ok(()),
            Some(Err(error)) => Err(error),
            Some(Ok(mut working)) => {
                let result = working.work(&shutdown).await;
                tracing::info!("stopping");
                working.stop(limit).await;
                result
            }
        };
        // Whether or not it is gone, it says nothing any more.
        let _ = std::fs::remove_file(file);
        store.flush()?;
        result
    }

    async fn launch(self) -> Result<Working<C>, RelayerError> {
        let policy = policy(&self.config);
        let lookups = Policy {
            tries: LOOKUP_TRIES,
            ..policy
        };
        let source = patiently(lookups, || Source::new(self.chain.clone(), &self.provider, lookups)).await?;
        let head = patiently(lookups, || self.chain.head()).await?;
        let (clock_sender, clock) = watch::channel(head.moment);
        let (overdue_sender, overdue) = mpsc::channel(OVERDUE);
        let (step_sender, steps) = mpsc::channel(STEPS);
        let manner = Manner {
            batch_wait: self.config.batch_wait,
            confirm_timeout: self.config.confirm_timeout,
            policy,
        };
        let (submitter, queue) = Submitter::new(self.chain.clone(), self.store.clone(), self.board.clone(), manner);
        let keeper = Keeper {
            chain: self.chain.clone(),
            board: self.board.clone(),
            queue: queue.clone(),
            clock: clock.clone(),
            overdue,
            interval: self.config.overdue_interval,
            blocks_max: self.config.expiry_blocks_max,
            candidates: Candidates::default(),
        };
        let tools = Tools {
            chain: self.chain.clone(),
            host: self.host.clone(),
            store: self.store.clone(),
            board: self.board.clone(),
            queue,
            overdue: overdue_sender,
            clock,
            policy,
            host_wait: self.config.host_wait,
        };
        let mut tracker = Tracker::new(tools, self.config.items_max);
        let state = self.store.state();
        state.entries().for_each(|entry| tracker.watch(*entry));
        self.board.state(&state);
        let address = self.listener.local_addr().map_err(RelayerError::Status)?;
        tracing::info!(provider = %self.provider, height = ?state.height, items = state.entries().count(), status = %address, "relaying");
        let mut services = Services::default();
        let (until, board, listener) = (services.outflow.clone(), self.board.clone(), self.listener);
        services.add("status", async move {
            status::serve(listener, board, until)
                .await
                .map_err(RelayerError::Status)
        });
        let until = services.outflow.clone();
        services.add("submitter", submitter.run(until));
        services.add_inflow("keeper", keeper.run());
        services.add_inflow("source", async move { Ok(source.run(state, step_sender).await?) });
        Ok(Working {
            store: self.store,
            board: self.board,
            clock: clock_sender,
            steps,
            tracker,
            services,
        })
    }
}

/// A relayer at work.
struct Working<C> {
    store: Arc<Store>,
    board: Board,
    clock: watch::Sender<Moment>,
    steps: mpsc::Receiver<Step>,
    tracker: Tracker<C>,
    services: Services,
}

/// The tasks that live as long as the relayer does.
#[derive(Default)]
struct Services {
    tasks: JoinSet<Ended>,
    /// Ends what brings new work.
    inflow: CancellationToken,
    /// Ends what finishes work.
    outflow: CancellationToken,
}

impl Services {
    fn add(&mut self, name: &'static str, task: impl Future<Output = Result<(), RelayerError>> + Send + 'static) {
        self.tasks.spawn(async move { (name, task.await) });
    }

    fn add_inflow(
        &mut self,
        name: &'static str,
        task: impl Future<Output = Result<(), RelayerError>> + Send + 'static,
    ) {
        let until = self.inflow.clone();
        self.add(
            name,
            async move { until.run_until_cancelled(task).await.unwrap_or(Ok(())) },
        );
    }
}

impl<C: Chain> Working<C> {
    async fn work(&mut self, shutdown: &CancellationToken) -> Result<(), RelayerError> {
        loop {
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return Ok(()),
                Some(ended) = self.services.tasks.join_next() => return Err(unexpected(ended)),
                Some(ended) = self.tracker.join_next() => ended.map_err(|error| panicked("item", &error))??,
                Some(step) = self.steps.recv() => self.take(step)?,
            }
        }
    }

    /// First the file, then the tasks, then the clock: a deadline must find its item.
    fn take(&mut self, step: Step) -> Result<(), RelayerError> {
        let Step {
            moment,
            changes,
            caught_up,
        } = step;
        let news = self.store.update(|state| {
            let before = state.clone();
            let news = changes.iter().map(|change| apply(state, change)).collect::<Vec<bool>>();
            if *state != before {
                state.height = Some(moment.height);
            }
            news
        })?;
        self.store.quiet_block(moment.height)?;
        for (change, is_new) in changes.iter().zip(news) {
            match change {
                Change::Assigned(entry) if is_new => {
                    tracing::info!(item = %entry.item, attempt = entry.attempt, deadline = entry.deadline, "assigned");
                    self.tracker.watch(*entry);
                }
                Change::Assigned(_) => {}
                Change::Ended { item, attempt } => self.tracker.forget(*item, *attempt),
            }
        }
        self.store.read(|state| self.board.state(state));
        self.board.moment(moment, caught_up);
        self.clock.send_if_modified(|now| {
            let is_newer = moment.height > now.height;
            if is_newer {
                *now = moment;
            }
            is_newer
        });
        Ok(())
    }

    /// No new work; what is under way in a transaction may end; then the rest.
    async fn stop(&mut self, limit: Duration) {
        self.services.inflow.cancel();
        self.tracker.shutdown().await;
        self.services.outflow.cancel();
        let ended = async {
            while let Some(ended) = self.services.tasks.join_next().await {
                if let Ok((task, Err(error))) = ended {
                    tracing::warn!(task, %error, "while stopping");
                }
            }
        };
        if tokio::time::timeout(limit, ended).await.is_err() {
            tracing::warn!(
                ?limit,
                "a transaction is still under way; the next start will settle it"
            );
            self.services.tasks.shutdown().await;
        }
    }
}

fn apply(state: &mut State, change: &Change) -> bool {
    match change {
        Change::Assigned(entry) => state.assigned(*entry),
        Change::Ended { item, attempt } => state.ended(*item, *attempt),
    }
}

fn policy(config: &Config) -> Policy {
    Policy {
        first: config.retry_pause,
        longest: PAUSE_MAX,
        tries: TRANSACTION_TRIES,
    }
}

/// Refuses a network that is not what its file says.
fn check(identity: Identity, provider: &str) -> Result<Owner, RelayerError> {
    let same = |what: &str, expected: &str, found: &str| match expected == found {
        true => Ok(()),
        false => Err(RelayerError::Mismatch {
            what: what.to_owned(),
            expected: expected.to_owned(),
            found: found.to_owned(),
        }),
    };
    let Identity {
        chain_id,
        names,
        siblings,
        domain,
        orchestrator,
    } = identity;
    for (expected, found) in &names {
        same("the name of a contract", expected, found)?;
    }
    for (what, expected, found) in &siblings {
        same(what, expected, found)?;
    }
    same("the chain id of signatures", &chain_id, &domain.chain_id)?;
    same("the contract of signatures", &orchestrator, &domain.contract)?;
    Ok(Owner {
        chain_id,
        orchestrator,
        provider: provider.to_owned(),
    })
}

fn announce(path: &Path, listener: &TcpListener, provider: &str) -> std::io::Result<()> {
    let since_1970 = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    let file = RelayerFile {
        pid: std::process::id(),
        status: listener.local_addr()?.to_string(),
        provider: provider.to_owned(),
        started_at: since_1970.as_secs(),
    };
    // Renamed into place, so that a reader never sees half of it.
    let temporary = path.with_extension("json.tmp");
    std::fs::write(&temporary, serde_json::to_vec_pretty(&file)?)?;
    std::fs::rename(temporary, path)
}

fn unexpected(ended: Result<Ended, JoinError>) -> RelayerError {
    match ended {
        Ok((_, Err(error))) => error,
        Ok((task, Ok(()))) => RelayerError::Task {
            task,
            reason: "it ended by itself".into(),
        },
        Err(error) => panicked("service", &error),
    }
}

fn panicked(task: &'static str, error: &JoinError) -> RelayerError {
    RelayerError::Task {
        task,
        reason: error.to_string(),
    }
}
