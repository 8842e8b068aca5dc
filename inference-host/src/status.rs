//! The private interface: what the operator looks at, and what the relayer of the same provider asks for.
//!
//! Guarantees: the work interface answers only to the token in `HOME/host.token`, which nobody but the owner of the folder can read; every
//! answer comes within its time, an overloaded host included, and says when to come back; beginning the same attempt twice is the same as once.

use std::{sync::Arc, time::Duration};

use axum::{
    extract::{DefaultBodyLimit, Path as UrlPath, Query, Request, State},
    http::{header, StatusCode},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post, put},
    Json, Router,
};
use schema::{
    work::{HeldVouchers, HostFile, SettlementNews, WorkState, WorkStatus},
    Digest, ItemId,
};
use serde::{Deserialize, Serialize};

use crate::{
    aside::{Aside, Report},
    blobs::Blobs,
    host::Host,
    lane::SessionStatus,
    listener::Connections,
    metrics::Gauge,
    model::DeploymentStatus,
    refusal::{Refusal, RETRY_AFTER},
};

/// What became of a page of vouchers, as JSON.
const NEWS_BYTES_MAX: usize = 64 << 10;
/// Longest wait of one request for the end of a piece of work.
const WAIT_SECONDS_MAX: u64 = 20;

#[derive(Debug)]
struct Private {
    host: Arc<Host>,
    blobs: Arc<Blobs>,
    connections: Ports,
    /// Digest of the token: comparing digests takes the same time wherever they differ.
    token: Digest,
    file: HostFile,
    aside: Aside,
}

/// The connections of both addresses.
#[derive(Debug, Clone)]
pub(crate) struct Ports {
    pub(crate) public: Arc<Connections>,
    pub(crate) private: Arc<Connections>,
}

/// Everything on the private port.
pub(crate) fn router(
    host: Arc<Host>,
    blobs: Arc<Blobs>,
    connections: Ports,
    aside: Aside,
    token: &str,
    file: HostFile,
) -> Router {
    let private = Arc::new(Private {
        host,
        blobs,
        connections,
        token: Digest::of(token.as_bytes()),
        file,
        aside,
    });
    let settled = post(settlement).layer(DefaultBodyLimit::max(NEWS_BYTES_MAX));
    let work = Router::new()
        .route("/v1/items/{item}/{attempt}", put(begin).get(wait))
        .route("/v1/vouchers", get(vouchers).merge(settled))
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
        let (status, body) = (self.http(), self.to_string());
        match self.retry_after_seconds() {
            Some(seconds) => (status, [(RETRY_AFTER, seconds.to_string())], body).into_response(),
            None => (status, body).into_response(),
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
    let begun = begun.unwrap_or(Err(Refusal::Stopping));
    let status = begun.inspect_err(|refusal| private.host.count_refusal(refusal))?;
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

async fn vouchers(State(private): State<Arc<Private>>) -> Json<HeldVouchers> {
    Json(private.host.lane.held(private.host.clock.now()))
}

async fn settlement(State(private): State<Arc<Private>>, Json(news): Json<SettlementNews>) -> StatusCode {
    let host = Arc::clone(&private.host);
    // On a task of its own: a relayer that hangs up now must not leave half of it unheard.
    let heard = private
        .host
        .tasks
        .spawn(async move { host.settlement_heard(news).await });
    match heard.await {
        Ok(()) => StatusCode::NO_CONTENT,
        Err(_) => StatusCode::SERVICE_UNAVAILABLE,
    }
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
    match private.host.trouble() {
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
    /// Those that are worth most, at most 64.
    sessions: Vec<SessionStatus>,
    blob_bytes: u64,
    work_bytes: u64,
    /// Chain time minus this machine's. Deadlines follow the chain's.
    clock_skew_seconds: i64,
    /// Files that were not what they should be, newest first.
    set_aside: Vec<Report>,
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
        trouble: host.trouble(),
        work: Counts {
            known: host.work.count(WorkState::Known),
            running: host.work.count(WorkState::Running),
            done: host.work.count(WorkState::Done),
            failed: host.work.count(WorkState::Failed),
        },
        sessions: host.lane.status(),
        blob_bytes: private.blobs.bytes(),
        work_bytes: host.work.row_bytes(),
        clock_skew_seconds: host.clock.skew_seconds(),
        set_aside: private.aside.reports(),
    };
    Json(answer).into_response()
}

async fn metrics(State(private): State<Arc<Private>>) -> Response {
    let format = [(header::CONTENT_TYPE, "text/plain; version=0.0.4")];
    (format, private.host.metrics.render(&gauges(&private))).into_response()
}

fn gauges(private: &Private) -> Vec<Gauge> {
    let host = &private.host;
    let count = |value: usize| i64::try_from(value).unwrap_or(i64::MAX);
    let bytes = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    let gauge = |name, help, value| Gauge {
        name,
        help,
        values: vec![(String::new(), value)],
    };
    let deployments = host.models.status();
    let ready = deployments.iter().filter(|status| status.state == "ready").count();
    let queued = deployments
        .iter()
        .map(|status| status.queued_rows)
        .fold(0, usize::saturating_add);
    let free = count(host.memory.available_permits()).saturating_mul(1024);
    let receiving = host.config.pushes_max.saturating_sub(host.pushes.available_permits());
    let states = [
        ("known", WorkState::Known),
        ("running", WorkState::Running),
        ("done", WorkState::Done),
        ("failed", WorkState::Failed),
    ];
    let states = states.map(|(name, state)| (format!("state=\"{name}\""), count(host.work.count(state))));
    let open = [
        ("public", &private.connections.public),
        ("private", &private.connections.private),
    ];
    let open = open.map(|(name, connections)| (format!("address=\"{name}\""), count(connections.open())));
    let several = |name, help, values: Vec<(String, i64)>| Gauge { name, help, values };
    vec![
        gauge("deployments", "Deployments of the provider.", count(deployments.len())),
        gauge("deployments_ready", "Deployments that take work.", count(ready)),
        gauge("queued_rows", "Rows waiting for an engine.", count(queued)),
        several("work", "Pieces of work that are remembered, by state.", states.to_vec()),
        several("connections", "Open connections, by address.", open.to_vec()),
        gauge(
            "pushes_receiving",
            "Pushes whose rows are being received.",
            count(receiving),
        ),
        gauge(
            "engine_threads_hung",
            "Threads that were given up because their graph hangs.",
            count(host.models.hung_threads()),
        ),
        gauge("row_memory_free_bytes", "Memory for rows that is free.", free),
        gauge("sessions", "Sessions that are remembered.", count(host.lane.sessions())),
        gauge(
            "sessions_attended",
            "Sessions whose client is connected.",
            count(host.lane.attended()),
        ),
        gauge(
            "session_unsettled_ufunc",
            "Promised by vouchers and not paid by the chain yet.",
            i64::try_from(host.lane.unsettled().u128()).unwrap_or(i64::MAX),
        ),
        gauge("blob_bytes", "Bytes of blobs on disk.", bytes(private.blobs.bytes())),
        gauge("work_bytes", "Bytes of rows on disk.", bytes(host.work.row_bytes())),
        gauge(
            "clock_skew_seconds",
            "Chain time minus this machine's.",
            host.clock.skew_seconds(),
        ),
        gauge(
            "disk_full",
            "1 while the disk does not take what must be kept.",
            i64::from(host.work.disk_trouble().is_some() || host.lane.store.trouble().is_some()),
        ),
    ]
}
