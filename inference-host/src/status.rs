//! The private interface: what the operator looks at, and what the relayer of the same provider asks for.
//!
//! Guarantees: the work interface answers only to the token in `HOME/host.token`, which nobody but the owner of the folder can read; every
//! answer comes within its time, an overloaded host included; beginning the same attempt twice is the same as once.

use std::{
    fs,
    io::{self, Write},
    path::Path,
    sync::Arc,
    time::Duration,
};

use axum::{
    extract::{DefaultBodyLimit, Path as UrlPath, Query, Request, State},
    http::{header, StatusCode},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, put},
    Json, Router,
};
use rand::RngCore;
use schema::{
    work::{HostFile, WorkState, WorkStatus},
    Digest, ItemId,
};
use serde::{Deserialize, Serialize};

use crate::{blobs::Blobs, host::Host, metrics::Gauge, model::DeploymentStatus, refusal::Refusal};

/// Longest wait of one request for the end of a piece of work.
const WAIT_SECONDS_MAX: u64 = 20;
/// After this long an overloaded host is worth another try.
const RETRY_AFTER_SECONDS: u64 = 1;
const TOKEN_FILE: &str = "host.token";
const HOST_FILE: &str = "host.json";

#[derive(Debug)]
struct Private {
    host: Arc<Host>,
    blobs: Arc<Blobs>,
    /// Digest of the token: comparing digests takes the same time wherever they differ.
    token: Digest,
    file: HostFile,
}

/// Everything on the private port.
pub(crate) fn router(host: Arc<Host>, blobs: Arc<Blobs>, token: &str, file: HostFile) -> Router {
    let private = Arc::new(Private {
        host,
        blobs,
        token: Digest::of(token.as_bytes()),
        file,
    });
    let work = Router::new()
        .route("/v1/items/{item}/{attempt}", put(begin).get(wait))
        .layer(middleware::from_fn_with_state(Arc::clone(&private), authorise));
    Router::new()
        .route("/health", get(health))
        .route("/ready", get(ready))
        .route("/status", get(status))
        .route("/metrics", get(metrics))
        .merge(work)
        .layer(DefaultBodyLimit::max(0))
        .with_state(private)
}

async fn authorise(State(private): State<Arc<Private>>, request: Request, next: Next) -> Response {
    let given = request
        .headers()
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok());
    let token = given.and_then(|given| given.strip_prefix("Bearer "));
    match token.map(|token| Digest::of(token.as_bytes())) == Some(private.token) {
        true => next.run(request).await,
        false => (StatusCode::UNAUTHORIZED, "the token of HOME/host.token is needed").into_response(),
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = self.http();
        let body = self.to_string();
        match status {
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
                (status, [(header::RETRY_AFTER, RETRY_AFTER_SECONDS.to_string())], body).into_response()
            }
            _ => (status, body).into_response(),
        }
    }
}

fn parse(item: &str, attempt: &str) -> Result<(ItemId, u8), Refusal> {
    let refuse = |reason: String| Refusal::Address { reason };
    let item = item.parse::<ItemId>().map_err(|error| refuse(error.to_string()))?;
    let attempt = attempt.parse::<u8>();
    Ok((
        item,
        attempt.map_err(|_| refuse("an attempt is a number from 0 to 255".to_owned()))?,
    ))
}

async fn begin(
    State(private): State<Arc<Private>>,
    UrlPath((item, attempt)): UrlPath<(String, String)>,
) -> Result<(StatusCode, Json<WorkStatus>), Refusal> {
    let (item, attempt) = parse(&item, &attempt)?;
    let host = Arc::clone(&private.host);
    // On a task of its own: a relayer that hangs up now must not leave a begun item without somebody who computes it.
    let begun = private
        .host
        .tasks
        .spawn(async move { host.begin(item, attempt).await })
        .await;
    let status = begun.unwrap_or(Err(Refusal::Stopping)).inspect_err(|refusal| {
        if refusal.http() == StatusCode::TOO_MANY_REQUESTS {
            private.host.metrics.overloaded();
        }
    })?;
    Ok((StatusCode::ACCEPTED, Json(status)))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wait {
    #[serde(default)]
    wait_seconds: u64,
}

async fn wait(
    State(private): State<Arc<Private>>,
    UrlPath((item, attempt)): UrlPath<(String, String)>,
    Query(wait): Query<Wait>,
) -> Result<Json<WorkStatus>, Refusal> {
    let (item, attempt) = parse(&item, &attempt)?;
    if wait.wait_seconds > WAIT_SECONDS_MAX {
        let asked = wait.wait_seconds;
        let reason = format!("wait_seconds is {asked}, at most {WAIT_SECONDS_MAX} are allowed");
        return Err(Refusal::Address { reason });
    }
    let host = &private.host;
    let entries = host.work.of_attempt(item, attempt);
    let finished = async {
        for entry in &entries {
            entry.finished().await;
        }
    };
    tokio::select! {
        _ = tokio::time::timeout(Duration::from_secs(wait.wait_seconds), finished) => {}
        () = host.stop.cancelled() => {}
    }
    let status = host.work.status(item, attempt);
    status.map(Json).ok_or(Refusal::NotBegun { item, attempt })
}

async fn health(State(private): State<Arc<Private>>) -> (StatusCode, String) {
    let stopped = private
        .host
        .models
        .status()
        .into_iter()
        .find(|status| status.state == "stopped");
    match (private.host.stop.is_cancelled(), stopped) {
        (true, _) => (StatusCode::SERVICE_UNAVAILABLE, "stopping".to_owned()),
        (_, Some(status)) => {
            let reason = status.reason.unwrap_or_default();
            (
                StatusCode::SERVICE_UNAVAILABLE,
                format!("deployment {}: {reason}", status.deployment),
            )
        }
        _ => (StatusCode::OK, "ok".to_owned()),
    }
}

async fn ready(State(private): State<Arc<Private>>) -> (StatusCode, String) {
    match private.host.models.trouble() {
        Some(reason) => (StatusCode::SERVICE_UNAVAILABLE, reason),
        None => (StatusCode::OK, "ready".to_owned()),
    }
}

#[derive(Debug, Serialize)]
struct StatusAnswer<'a> {
    host: &'a HostFile,
    engine_class: String,
    /// What the host signs with.
    host_key: String,
    deployments: Vec<DeploymentStatus>,
    /// Why it cannot take all the work it is registered for.
    trouble: Option<String>,
    work: Counts,
    blob_bytes: u64,
    work_bytes: u64,
}

#[derive(Debug, Serialize)]
struct Counts {
    known: usize,
    running: usize,
    done: usize,
    failed: usize,
}

async fn status(State(private): State<Arc<Private>>) -> Response {
    let host = &private.host;
    let answer = StatusAnswer {
        host: &private.file,
        engine_class: host.models.engine_class(),
        host_key: hex::encode(host.host_key.public_key()),
        deployments: host.models.status(),
        trouble: host.models.trouble(),
        work: Counts {
            known: host.work.count(WorkState::Known),
            running: host.work.count(WorkState::Running),
            done: host.work.count(WorkState::Done),
            failed: host.work.count(WorkState::Failed),
        },
        blob_bytes: private.blobs.bytes(),
        work_bytes: host.work.row_bytes(),
    };
    Json(answer).into_response()
}

async fn metrics(State(private): State<Arc<Private>>) -> Response {
    let host = &private.host;
    let count = |value: usize| u64::try_from(value).unwrap_or(u64::MAX);
    let gauge = |name, help, value| Gauge { name, help, value };
    let deployments = host.models.status();
    let ready = deployments.iter().filter(|status| status.state == "ready").count();
    let queued = deployments
        .iter()
        .map(|status| status.queued_rows)
        .fold(0, usize::saturating_add);
    let free = count(host.memory.available_permits()).saturating_mul(1024);
    let gauges = [
        gauge("deployments", "Deployments of the provider.", count(deployments.len())),
        gauge("deployments_ready", "Deployments that take work.", count(ready)),
        gauge("queued_rows", "Rows waiting for an engine.", count(queued)),
        gauge(
            "work_running",
            "Pieces of work in progress.",
            count(host.work.count(WorkState::Running)),
        ),
        gauge("row_memory_free_bytes", "Memory for rows that is free.", free),
        gauge("blob_bytes", "Bytes of blobs on disk.", private.blobs.bytes()),
        gauge("work_bytes", "Bytes of rows on disk.", host.work.row_bytes()),
    ];
    let format = [(header::CONTENT_TYPE, "text/plain; version=0.0.4")];
    (format, host.metrics.render(&gauges)).into_response()
}

/// The token of the work interface: the one in the folder, or a new one that only the owner can read.
pub(crate) fn token(home: &Path) -> io::Result<String> {
    let path = home.join(TOKEN_FILE);
    match fs::read_to_string(&path) {
        Ok(token) if token.trim().len() == 64 => return Ok(token.trim().to_owned()),
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let mut bytes = [0; 32];
    rand::rngs::OsRng.fill_bytes(&mut bytes);
    let token = hex::encode(bytes);
    let mut temporary = tempfile::Builder::new();
    // Temporary files are made with mode 0600, and keep it when they get their name.
    let mut file = temporary.prefix(".token").tempfile_in(home)?;
    file.write_all(token.as_bytes())?;
    file.as_file().sync_all()?;
    file.persist(&path).map_err(|error| error.error)?;
    Ok(token)
}

/// Tells others of the same home where this host listens. The file goes when this value does.
#[derive(Debug)]
pub(crate) struct Announced {
    path: std::path::PathBuf,
}

impl Announced {
    pub(crate) fn write(home: &Path, file: &HostFile) -> io::Result<Self> {
        let path = home.join(HOST_FILE);
        let mut temporary = tempfile::Builder::new().prefix(".host").tempfile_in(home)?;
        serde_json::to_writer_pretty(&mut temporary, file)?;
        temporary.as_file().sync_all()?;
        temporary.persist(&path).map_err(|error| error.error)?;
        Ok(Self { path })
    }
}

impl Drop for Announced {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}
