//! Starts a host, keeps it running, stops it in order.
//!
//! Order of a stop: no new connections, background work is left as it is on disk, open answers get a moment to finish.

use std::{future::Future, io, net::SocketAddr, sync::Arc, time::Duration};

use anyhow::{Context, Result};
use axum::Router;
use client::{Client, Network, Wallet};
use partition::Runtime;
use schema::work::HostFile;
use tokio::{net::TcpListener, sync::Semaphore, time::Instant};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    blobs::Blobs,
    chain::{Chain, NodeChain},
    config::Config,
    host::{now_seconds, Host},
    journal::Journal,
    listener::Limited,
    metrics::Metrics,
    model::{Models, Policy},
    onnx::{find_library, OnnxRuntime, Threads},
    peers::Peers,
    server,
    sources::Sources,
    status::{self, Announced},
    work::{Bounds, Work},
};

/// How long a starting host waits for a node that is not there yet.
const CONNECT_PATIENCE: Duration = Duration::from_secs(60);
const CONNECT_PAUSE: Duration = Duration::from_millis(500);
/// How long open answers may take once the host stops.
const STOP_PATIENCE: Duration = Duration::from_secs(5);
/// How often work past its retention is looked for.
const PRUNE_EVERY: Duration = Duration::from_secs(30);

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
        match Client::connect_with(network.clone(), timeout).await {
            Ok(client) => return Ok(client),
            Err(error) if error.is_transient() && until.is_some_and(|until| Instant::now() < until) => {
                tracing::warn!(%error, "waiting for the chain");
                tokio::time::sleep(CONNECT_PAUSE).await;
            }
            Err(error) => return Err(error).context("failed to connect to the chain"),
        }
    }
}

/// A host that runs in this process.
#[derive(Debug)]
pub struct Running {
    listen: SocketAddr,
    status: SocketAddr,
    token: String,
    host: Arc<Host>,
    // The file goes when the host does.
    _announced: Announced,
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
    let home = config.home.clone();
    std::fs::create_dir_all(&home).with_context(|| format!("failed to make {}", home.display()))?;
    let blobs = Blobs::open(home.join("blobs"), config.blob_bytes_max).context("failed to open the blob store")?;
    let host = build(config, host_key, chain, runtime, &blobs)?;
    let config = &host.config;
    let public = bind(config.listen).await?;
    let private = bind(config.status).await?;
    let (listen, status) = (public.local_addr()?, private.local_addr()?);
    let token = status::token(&home).context("failed to make the token of the work interface")?;
    let file = HostFile {
        pid: std::process::id(),
        listen: listen.to_string(),
        status: status.to_string(),
        provider: config.provider.clone(),
        started_at: now_seconds(),
    };
    let announced = Announced::write(&home, &file).context("failed to write host.json")?;
    serve(&host, public, server::router(Arc::clone(&host), Arc::clone(&blobs)));
    serve(&host, private, status::router(Arc::clone(&host), blobs, &token, file));
    spawn_duties(&host);
    host.resume();
    Ok(Running {
        listen,
        status,
        token,
        host,
        _announced: announced,
    })
}

fn build(
    config: Config,
    host_key: Wallet,
    chain: Arc<dyn Chain>,
    runtime: Arc<dyn Runtime>,
    blobs: &Arc<Blobs>,
) -> Result<Arc<Host>> {
    let metrics = Metrics::default();
    let bounds = Bounds {
        items_max: config.items_max,
        row_bytes_max: config.work_bytes_max,
        retention_seconds: config.retention_seconds,
    };
    let (work, corrupt) = Work::open(Journal::open(config.home.join("work"))?, bounds)?;
    for reason in corrupt {
        tracing::error!(reason, "a corrupt piece of work was moved aside");
        metrics.corrupt_record();
    }
    let sources = Sources::new(Arc::clone(blobs), config.sources.clone(), config.io_timeout())?;
    let policy = Policy {
        queue_rows_max: config.queue_rows_max,
        batch_positions_max: config.batch_positions_max,
    };
    let models = Models::new(config.provider.clone(), policy, Arc::clone(&chain), sources, runtime);
    let peers = Peers::new(
        Arc::clone(&chain),
        config.allow_private_peers,
        config.io_timeout(),
        config.frame_bytes_max,
    );
    Ok(Arc::new(Host {
        memory: Arc::new(Semaphore::new(Host::memory_permits(config.rows_bytes_max))),
        config,
        host_key,
        chain,
        models: Arc::new(models),
        work,
        peers,
        metrics,
        stop: CancellationToken::new(),
        tasks: TaskTracker::new(),
    }))
}

async fn bind(address: SocketAddr) -> Result<TcpListener> {
    let bound = TcpListener::bind(address).await;
    bound.map_err(|error| match error.kind() {
        io::ErrorKind::AddrInUse => anyhow::anyhow!("{address} is in use by another program"),
        _ => anyhow::Error::new(error).context(format!("failed to listen on {address}")),
    })
}

fn serve(host: &Arc<Host>, listener: TcpListener, router: Router) {
    let stop = host.stop.clone();
    host.tasks.spawn(async move {
        let stopped = stop.clone().cancelled_owned();
        let served = axum::serve(Limited::new(listener), router).with_graceful_shutdown(stopped);
        // Peers hold their connections open: after a moment they are cut.
        let cut = async {
            stop.cancelled().await;
            tokio::time::sleep(Duration::from_secs(1)).await;
        };
        tokio::select! {
            result = served => {
                if let Err(error) = result {
                    tracing::error!(%error, "an interface has ended");
                }
            }
            () = cut => {}
        }
    });
}

/// What a host does without being asked: keeps its deployments loaded, forgets what is past.
fn spawn_duties(host: &Arc<Host>) {
    let keeper = Arc::clone(host);
    host.tasks.spawn(async move {
        let every = Duration::from_secs(keeper.config.refresh_seconds);
        tokio::select! {
            () = keeper.models.keep(every) => {}
            () = keeper.stop.cancelled() => {}
        }
    });
    let pruner = Arc::clone(host);
    host.tasks.spawn(async move {
        let prune = async {
            loop {
                tokio::time::sleep(PRUNE_EVERY).await;
                pruner.work.prune(now_seconds());
            }
        };
        tokio::select! {
            () = prune => {}
            () = pruner.stop.cancelled() => {}
        }
    });
}
