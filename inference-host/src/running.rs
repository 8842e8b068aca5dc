//! Starts a host, keeps it running, stops it in order.
//!
//! Order of a stop: no new connections, background work is left as it is on disk, open answers get a moment to finish.

use std::{future::Future, io, net::SocketAddr, sync::Arc, time::Duration};

use anyhow::{Context, Result};
use axum::Router;
use client::{Client, ClientError, Network, Wallet};
use partition::Runtime;
use schema::work::HostFile;
use tokio::{net::TcpListener, sync::Semaphore, time::Instant};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    aside::Aside,
    blobs::Blobs,
    chain::{Chain, NodeChain},
    clock::Clock,
    config::Config,
    home::{Announced, Home},
    host::{Host, BEGINS_MAX},
    journal::Journal,
    lane::Lane,
    listener::Connections,
    metrics::Metrics,
    model::{Models, Policy},
    onnx::{find_library, OnnxRuntime, Threads},
    peers::Peers,
    room::Room,
    server,
    sources::Sources,
    status::{self, Ports},
    work::{Bounds, Work},
};

/// How long a starting host waits for a node that is not there yet.
const CONNECT_PATIENCE: Duration = Duration::from_secs(60);
const CONNECT_PAUSE: Duration = Duration::from_millis(500);
/// Between two rounds of looking after sessions.
const SESSIONS_PAUSE: Duration = Duration::from_millis(500);
/// How long open answers may take once the host stops.
const STOP_PATIENCE: Duration = Duration::from_secs(5);

/// Serves the provider's deployments until `shutdown` resolves. `host_key` signs receipts; it must be the one registered on chain.
pub async fn run(
    config: Config,
    network: Network,
    host_key: Wallet,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<()> {
    config.check()?;
    let library = find_library(config.onnxruntime.as_deref())?;
    let threads = Threads {
        count: config.threads,
        spin: config.spin,
    };
    let runtime = OnnxRuntime::load_with(&library, threads).context("failed to start ONNX Runtime")?;
    let on_device = runtime.on(config.device, config.device_memory_bytes_max);
    let runtime = on_device.with_context(|| format!("stages cannot run on {}", config.device))?;
    tokio::pin!(shutdown);
    let client = tokio::select! {
        client = connect(network, config.chain_timeout()) => client?,
        () = &mut shutdown => return Ok(()),
    };
    let chain = Arc::new(NodeChain::new(client, config.chain_timeout()));
    let running = start(config, host_key, chain, Arc::new(runtime)).await?;
    shutdown.await;
    running.stop().await;
    Ok(())
}

async fn connect(network: Network, timeout: Duration) -> Result<Client> {
    let until = Instant::now().checked_add(CONNECT_PATIENCE);
    loop {
        match connect_once(network.clone(), timeout).await {
            Ok(client) => return Ok(client),
            Err(error) if error.is_transient() && until.is_some_and(|until| Instant::now() < until) => {
                tracing::warn!(%error, "waiting for the chain");
                tokio::time::sleep(CONNECT_PAUSE).await;
            }
            Err(error) => return Err(error).context("failed to connect to the chain"),
        }
    }
}

/// A client of the right chain, whose contracts are what the network file says that they are: nothing is signed for any other.
async fn connect_once(network: Network, timeout: Duration) -> Result<Client, ClientError> {
    let client = Client::connect_with(network, timeout).await?;
    client.check_contracts().await?;
    Ok(client)
}

/// A host that runs in this process.
#[derive(Debug)]
pub struct Running {
    listen: SocketAddr,
    status: SocketAddr,
    token: String,
    host: Arc<Host>,
    // The file goes when the host does, and so does the claim to the folder.
    _announced: Announced,
    _home: Home,
}

impl Running {
    /// Where the public interface listens.
    pub fn listen(&self) -> SocketAddr {
        self.listen
    }

    /// Where the private interface listens.
    pub fn status(&self) -> SocketAddr {
        self.status
    }

    /// What the work interface wants to see.
    pub fn token(&self) -> &str {
        &self.token
    }

    /// Stops in order. Unfinished work goes on at the next start.
    pub async fn stop(self) {
        self.host.stop.cancel();
        self.host.tasks.close();
        if tokio::time::timeout(STOP_PATIENCE, self.host.tasks.wait())
            .await
            .is_err()
        {
            tracing::warn!("open answers were cut off");
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.host.stop.cancel();
    }
}

/// Starts a host on a chain and a runtime of the caller's choice.
pub async fn start(
    config: Config,
    host_key: Wallet,
    chain: Arc<dyn Chain>,
    runtime: Arc<dyn Runtime>,
) -> Result<Running> {
    config.check()?;
    let aside = Aside::default();
    let home = Home::claim(&config.home, aside.clone())?;
    // The ports first: whoever finds them taken has touched nothing.
    let public = bind(config.listen, "listen").await?;
    let private = bind(config.status, "status").await?;
    let (listen, status) = (public.local_addr()?, private.local_addr()?);
    let blobs = Blobs::open(config.home.join("blobs"), config.blob_bytes_max, aside.clone())
        .context("failed to open the blob store")?;
    let host = build(config, host_key, chain, runtime, &blobs, &aside)?;
    look_at_the_clock(&host).await;
    let token = home.token().context("failed to make the token of the work interface")?;
    let file = HostFile {
        pid: std::process::id(),
        listen: listen.to_string(),
        status: status.to_string(),
        provider: host.config.provider.clone(),
        started_at: host.clock.now(),
    };
    let announced = home.announce(&file).context("failed to write host.json")?;
    let connections = Ports {
        public: Connections::new(host.config.connections_max),
        private: Connections::new(host.config.connections_max),
    };
    let router = server::router(Arc::clone(&host), Arc::clone(&blobs));
    serve(&host, &connections.public, public, router);
    let router = status::router(Arc::clone(&host), blobs, connections.clone(), aside, &token, file);
    serve(&host, &connections.private, private, router);
    spawn_duties(&host);
    host.resume();
    Ok(Running {
        listen,
        status,
        token,
        host,
        _announced: announced,
        _home: home,
    })
}

/// Deadlines are judged by the chain's time. Without an answer nothing is begun; the duty goes on asking.
async fn look_at_the_clock(host: &Host) {
    match host.chain.time().await {
        Ok(block) => host.clock.observe(block),
        Err(error) => tracing::warn!(%error, "the chain's time could not be looked up"),
    }
}

fn build(
    config: Config,
    host_key: Wallet,
    chain: Arc<dyn Chain>,
    runtime: Arc<dyn Runtime>,
    blobs: &Arc<Blobs>,
    aside: &Aside,
) -> Result<Arc<Host>> {
    let metrics = Arc::new(Metrics::new(aside.clone()));
    let bounds = Bounds {
        items_max: config.items_max,
        row_bytes_max: config.work_bytes_max,
        retention_seconds: config.retention_seconds,
    };
    let journal = Journal::open(config.home.join("work"), aside.clone())?;
    let work = Work::open(journal, bounds, Arc::clone(&metrics))?;
    let sessions = config.home.join("sessions");
    let lane = Lane::open(sessions, aside, Arc::clone(&metrics), config.pushes_max)
        .context("failed to open the log of vouchers")?;
    let sources = Sources::new(
        Arc::clone(blobs),
        config.sources.clone(),
        config.io_timeout(),
        Arc::clone(&metrics),
    )?;
    let policy = Policy {
        queue_rows_max: config.queue_rows_max,
        batch_positions_max: config.batch_positions_max,
        device_batches: config.device_batches,
        patience: Duration::from_secs(config.run_timeout_seconds),
        items_max: config.items_max,
        rows_bytes_max: config.rows_bytes_max,
    };
    let models = Models::new(
        config.provider.clone(),
        policy,
        Arc::clone(&chain),
        sources,
        runtime,
        Arc::clone(&metrics),
    );
    let peers = Peers::new(
        Arc::clone(&chain),
        config.allow_private_peers,
        config.io_timeout(),
        config.frame_bytes_max,
    );
    Ok(Arc::new(Host {
        memory: Arc::new(Semaphore::new(Host::memory_permits(config.rows_bytes_max))),
        pushes: Semaphore::new(config.pushes_max),
        begins: Semaphore::new(BEGINS_MAX),
        room: Room::default(),
        clock: Clock::new(config.clock_skew_seconds_max),
        config,
        host_key,
        chain,
        models: Arc::new(models),
        work,
        peers,
        lane,
        metrics,
        stop: CancellationToken::new(),
        tasks: TaskTracker::new(),
    }))
}

/// `field` is what the operator would change.
async fn bind(address: SocketAddr, field: &str) -> Result<TcpListener> {
    let bound = TcpListener::bind(address).await;
    bound.map_err(|error| match error.kind() {
        io::ErrorKind::AddrInUse => anyhow::anyhow!(
            "{address} is in use by another program, perhaps by another host: stop it, or choose another \
             address with --{field} (port 0 takes a free one)"
        ),
        _ => anyhow::Error::new(error).context(format!("failed to listen on {address}")),
    })
}

fn serve(host: &Arc<Host>, connections: &Arc<Connections>, listener: TcpListener, router: Router) {
    let (serving, connections) = (Arc::clone(host), Arc::clone(connections));
    host.tasks.spawn(async move {
        let stop = serving.stop.clone();
        connections.serve(listener, router, &serving.metrics, stop).await;
    });
}

/// What a host does without being asked: keeps its deployments loaded, looks at the chain's clock and the disk, forgets what is past.
fn spawn_duties(host: &Arc<Host>) {
    let every = Duration::from_secs(host.config.refresh_seconds);
    let keeper = Arc::clone(host);
    host.tasks.spawn(async move {
        tokio::select! {
            () = keeper.models.keep(every) => {}
            () = keeper.stop.cancelled() => {}
        }
    });
    let clerk = Arc::clone(host);
    host.tasks.spawn(async move {
        let rounds = async {
            loop {
                clerk.look_after_sessions().await;
                tokio::time::sleep(SESSIONS_PAUSE).await;
            }
        };
        tokio::select! {
            () = rounds => {}
            () = clerk.stop.cancelled() => {}
        }
    });
    let warden = Arc::clone(host);
    host.tasks.spawn(async move {
        let rounds = async {
            loop {
                tokio::time::sleep(every).await;
                look_at_the_clock(&warden).await;
                let host = Arc::clone(&warden);
                // Both wait for the disk.
                let _ = tokio::task::spawn_blocking(move || {
                    host.work.probe();
                    // Evidence is not thrown away by a clock that may be wrong.
                    if let Ok(now) = host.clock.sure_now() {
                        host.work.prune(now);
                    }
                })
                .await;
            }
        };
        tokio::select! {
            () = rounds => {}
            () = warden.stop.cancelled() => {}
        }
    });
}
