//! Owns the tasks: source, item tasks, keeper, submitter and status; joins what they say in one loop, and ends them in order.
//!
//! What a block says goes into the checkpoint first and to the tasks second: after a crash at any line the tasks start again from the file.

use std::{
    future::Future,
    io,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
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
    book::Book,
    chain::{Chain, Identity, Moment, Trusted},
    checkpoint::{Owner, State, Store},
    config::{Config, ConfigError},
    crash::{self, Point},
    disk::{self, Disk, SystemDisk},
    host::Host,
    keeper::{Candidates, Keeper},
    pulse,
    retry::Policy,
    rounds::Rounds,
    settler::{Schedule, Settler},
    source::{patiently, Change, Source, Step},
    status::{self, Board, Subject},
    submitter::{Manner, Submitter},
    tracker::{Tools, Tracker},
    RelayerError,
};

/// Name of the file that tells where a running relayer answers.
const FILE: &str = "relayer.json";
/// Anything longer is none.
const FILE_BYTES_MAX: u64 = 16 * 1024;
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
    book: Book,
    disk: Arc<dyn Disk>,
    listener: TcpListener,
}

/// The end of a task: its name and how it went.
type Ended = (&'static str, Result<(), RelayerError>);

impl<C: Chain> Relayer<C> {
    /// Compares the network with its file, opens the checkpoint, binds the port. Nothing is sent anywhere.
    pub async fn start(config: Config, chain: C, provider: &str) -> Result<Relayer<C>, RelayerError> {
        Relayer::start_on(Arc::new(SystemDisk), config, chain, provider).await
    }

    /// The same with its files on another disk.
    pub async fn start_on(
        disk: Arc<dyn Disk>,
        config: Config,
        chain: C,
        provider: &str,
    ) -> Result<Relayer<C>, RelayerError> {
        config.check()?;
        let owner = check(identify(&config, &chain).await?, provider)?;
        let board = Board::new(&owner.chain_id, provider);
        let (store, set_aside) = Store::open_on(disk.clone(), &config.home, owner)?;
        if let Some(set_aside) = set_aside {
            let path = set_aside.path.display().to_string();
            tracing::error!(%path, damage = %set_aside.damage, "the checkpoint cannot be read; it was kept, and the chain is asked instead");
            board.note(|snapshot| snapshot.set_aside = Some(path));
        }
        let host = Host::new(&config.host_home, config.host.clone(), provider, config.host_timeout)?;
        let listener = status::bind(config.status_listen).await.map_err(RelayerError::Status)?;
        let book = Book {
            store: Arc::new(store),
            board,
            policy: policy(&config),
        };
        let relayer = Relayer {
            config,
            chain,
            provider: provider.to_owned(),
            host,
            book,
            disk,
            listener,
        };
        relayer.announce()?;
        crash::pass(Point::Announced);
        Ok(relayer)
    }

    /// What it says about itself.
    pub fn board(&self) -> &Board {
        &self.book.board
    }

    /// Works until it is told to stop, or until it cannot go on.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), RelayerError> {
        let (limit, file, book) = (self.config.shutdown_timeout, self.file(), self.book.clone());
        let disk = self.disk.clone();
        let result = match shutdown.run_until_cancelled(self.launch()).await {
            None => Ok(()),
            Some(Err(error)) => Err(error),
            Some(Ok(mut working)) => {
                let result = working.work(&shutdown).await;
                tracing::info!("stopping");
                crash::pass(Point::Stopping);
                working.stop(limit).await;
                result
            }
        };
        crash::pass(Point::Stopped);
        // Whether or not it is gone, it says nothing any more.
        let _ = disk.remove(&file);
        crash::pass(Point::Unannounced);
        let flushed = book.store.flush();
        crash::pass(Point::Ended);
        // What stopped it says more than what happened on the way out.
        result.and(flushed.map_err(RelayerError::Checkpoint))
    }

    fn file(&self) -> PathBuf {
        self.config.home.join(FILE)
    }

    /// Tells where it answers. What a killed run has left is told, and kept where it cannot be read.
    fn announce(&self) -> Result<(), RelayerError> {
        let path = self.file();
        let failed = |source| RelayerError::File {
            path: path.clone(),
            source,
        };
        match self.disk.read(&path, FILE_BYTES_MAX) {
            Ok(content) => match serde_json::from_slice::<RelayerFile>(&content) {
                Ok(earlier) => tracing::info!(pid = earlier.pid, "the last run did not end by itself"),
                Err(damage) => {
                    let aside = disk::keep_aside(&*self.disk, &path).map_err(failed)?;
                    let aside = aside.display().to_string();
                    tracing::error!(path = %aside, %damage, "a file of the last run cannot be read; it was kept");
                    self.board().note(|snapshot| snapshot.set_aside = Some(aside));
                }
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(failed(source)),
        }
        let since_1970 = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        let file = RelayerFile {
            pid: std::process::id(),
            status: self.listener.local_addr().map_err(RelayerError::Status)?.to_string(),
            provider: self.provider.clone(),
            started_at: since_1970.as_secs(),
        };
        let content = serde_json::to_vec_pretty(&file).map_err(|error| failed(error.into()))?;
        disk::replace(&*self.disk, &path, &content).map_err(failed)?;
        let kept = disk::kept_aside(&*self.disk, &self.config.home).map_err(failed)?;
        if !kept.is_empty() {
            let files = kept.len();
            tracing::warn!(files, home = %self.config.home.display(), "damaged files are kept here, for a person to look at");
        }
        self.board().note(|snapshot| snapshot.kept_aside = kept);
        Ok(())
    }

    async fn launch(self) -> Result<Working<C>, RelayerError> {
        let mut services = Services::default();
        let (until, board, listener) = (services.outflow.clone(), self.book.board.clone(), self.listener);
        let address = listener.local_addr().map_err(RelayerError::Status)?;
        // First, so that it can say what it waits for.
        services.add("status", async move {
            status::serve(listener, board, until)
                .await
                .map_err(RelayerError::Status)
        });
        let looks = pulse::run(self.chain.clone(), self.book.board.clone(), self.config.balance_low);
        services.add_inflow("pulse", looks);
        let state = self.book.store.state();
        self.book.board.state(&state);
        let lookups = lookups(&self.config);
        let height = state.height.unwrap_or(0);
        self.book.board.begin_at(height);
        until_the_node_has(height, &self.chain, &self.book.board, lookups).await?;
        let source = patiently(lookups, || Source::new(self.chain.clone(), &self.provider, lookups)).await?;
        let (clock_sender, clock) = watch::channel(source.head().moment);
        let (overdue_sender, overdue) = mpsc::channel(OVERDUE);
        let (step_sender, steps) = mpsc::channel(STEPS);
        let manner = Manner {
            batch_wait: self.config.batch_wait,
            confirm_timeout: self.config.confirm_timeout,
            policy: self.book.policy,
        };
        let (store, board) = (self.book.store.clone(), self.book.board.clone());
        let (submitter, queue) = Submitter::new(self.chain.clone(), store, board, manner);
        let trusted = patiently(lookups, || self.chain.beacon()).await?;
        let keeper = Keeper {
            chain: self.chain.clone(),
            board: self.book.board.clone(),
            queue: queue.clone(),
            clock: clock.clone(),
            overdue,
            interval: self.config.overdue_interval,
            blocks_max: self.config.expiry_blocks_max,
            candidates: Candidates::default(),
            rounds: rounds(&self.config, trusted)?,
        };
        let settler = Settler {
            host: self.host.clone(),
            queue: queue.clone(),
            clock: clock.clone(),
            schedule: Schedule {
                interval: self.config.settle_interval,
                after: self.config.settle_after,
                worth: self.config.settle_worth,
            },
        };
        let tools = Tools {
            chain: self.chain,
            host: self.host,
            book: self.book.clone(),
            queue,
            overdue: overdue_sender,
            clock,
            policy: self.book.policy,
            host_wait: self.config.host_wait,
        };
        let mut tracker = Tracker::new(tools, self.config.items_max);
        state.entries().for_each(|entry| tracker.watch(*entry));
        tracing::info!(provider = %self.provider, height = ?state.height, items = state.entries().count(), status = %address, "relaying");
        let until = services.outflow.clone();
        services.add("submitter", submitter.run(until));
        services.add_inflow("keeper", keeper.run());
        services.add_inflow("settler", settler.run());
        services.add_inflow("source", async move { Ok(source.run(state, step_sender).await?) });
        Ok(Working {
            book: self.book,
            clock: clock_sender,
            steps,
            tracker,
            services,
        })
    }
}

/// A relayer at work.
struct Working<C> {
    book: Book,
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
                Some(step) = self.steps.recv() => match shutdown.run_until_cancelled(self.take(step)).await {
                    // Not taken in, so it is read again by the next run.
                    None => return Ok(()),
                    Some(taken) => taken?,
                },
            }
        }
    }

    /// First the file, then the tasks, then the clock: a deadline must find its item.
    async fn take(&mut self, step: Step) -> Result<(), RelayerError> {
        let Step {
            moment,
            changes,
            caught_up,
        } = step;
        if !changes.is_empty() {
            crash::pass(Point::BlockRead);
        }
        let apply_all = |state: &mut State| {
            let before = state.clone();
            let news = changes.iter().map(|change| apply(state, change)).collect::<Vec<bool>>();
            if *state != before {
                state.height = Some(moment.height);
            }
            news
        };
        let news = self.book.change(apply_all).await?;
        self.book.quiet_block(moment.height).await?;
        if !changes.is_empty() {
            crash::pass(Point::BlockTaken);
        }
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
        self.book.board.moment(moment, caught_up);
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

fn lookups(config: &Config) -> Policy {
    Policy {
        tries: LOOKUP_TRIES,
        ..policy(config)
    }
}

/// Where rounds are had, if the network has a beacon.
fn rounds(config: &Config, trusted: Option<Trusted>) -> Result<Option<Rounds>, ConfigError> {
    let Some(trusted) = trusted else {
        return Ok(None);
    };
    let rounds = Rounds::new(&config.beacon, trusted, config.beacon_timeout, config.beacon_age);
    let rounds = rounds.map_err(ConfigError::Beacon)?;
    if rounds.is_none() {
        tracing::info!("no server of the beacon is known, so its rounds are left to other relayers");
    }
    Ok(rounds)
}

/// What the node says about the network, as soon as it says anything.
async fn identify<C: Chain>(config: &Config, chain: &C) -> Result<Identity, RelayerError> {
    let said = Mutex::new("nothing".to_owned());
    let asked = patiently(lookups(config), || async {
        let identity = chain.identity().await;
        if let Err(error) = &identity {
            *said.lock().unwrap_or_else(PoisonError::into_inner) = error.to_string();
        }
        identity
    });
    let answered = tokio::time::timeout(config.start_timeout, asked).await;
    match answered {
        Ok(identity) => Ok(identity?),
        Err(_) => Err(RelayerError::NoChain {
            seconds: config.start_timeout.as_secs(),
            last: said.into_inner().unwrap_or_else(PoisonError::into_inner),
        }),
    }
}

/// A node that was restored from a copy may not have come as far yet as we have read.
async fn until_the_node_has<C: Chain>(
    height: u64,
    chain: &C,
    board: &Board,
    policy: Policy,
) -> Result<(), RelayerError> {
    let mut looks: u32 = 0;
    loop {
        let latest = patiently(policy, || chain.head()).await?.moment.height;
        if latest >= height {
            return Ok(());
        }
        let sentence = format!("the node is at block {latest}, this relayer has read up to {height}");
        board.trouble(Subject::Node, &sentence);
        looks = looks.saturating_add(1);
        let Some(pause) = policy.next(looks) else {
            return Err(RelayerError::NodeBehind { latest, height });
        };
        tokio::time::sleep(pause).await;
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
