//! drand's HTTP paths over a key of one's own: `/info`, `/public/latest`, `/public/{round}`; and `/health`, `/ready`, `/metrics`.
//!
//! Guarantees:
//! - No round is signed before its time.
//! - Every connection has an end, and there is a number of them that is not exceeded.
//!
//! It keeps nothing: a round's signature is always the same, so a restart changes nothing.

use std::{
    io,
    sync::{
        atomic::{AtomicU64, Ordering},
        Arc,
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use axum::{
    extract::{Path, State},
    http::{header, StatusCode},
    response::{IntoResponse, Response},
    routing::get,
    Json, Router,
};
use hyper_util::{rt::TokioIo, service::TowerToHyperService};
use schema::{beacon::randomness, Digest, Schedule};
use serde_json::{json, Value};
use tokio::{net::TcpListener, sync::Semaphore, task::JoinSet};
use tokio_util::sync::CancellationToken;

use crate::key::Secret;

/// Connections at a time; one more is closed at once.
const CONNECTIONS_MAX: usize = 128;
/// Longest life of a connection: it has one question.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(10);
/// The scheme that key and signatures follow, as drand names it.
const SCHEME: &str = "bls-unchained-g1-rfc9380";

/// Seconds since 1970, of the machine or of a test.
pub type Clock = fn() -> u64;

/// The machine's clock.
pub fn wall_clock() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

/// One beacon.
#[derive(Debug, Clone)]
pub struct Server(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    secret: Secret,
    schedule: Schedule,
    clock: Clock,
    signed: AtomicU64,
    early: AtomicU64,
}

impl Server {
    pub fn new(secret: Secret, schedule: Schedule, clock: Clock) -> Self {
        Self(Arc::new(Inner {
            secret,
            schedule,
            clock,
            signed: AtomicU64::new(0),
            early: AtomicU64::new(0),
        }))
    }

    /// The paths that drand has: for whoever wants to have them beside others.
    pub fn rounds(&self) -> Router {
        Router::new()
            .route("/info", get(info))
            .route("/public/latest", get(latest))
            .route("/public/{round}", get(round))
            .with_state(self.clone())
    }

    /// All paths.
    pub fn router(&self) -> Router {
        let own = Router::new()
            .route("/health", get(|| async { "ok\n" }))
            .route("/ready", get(ready))
            .route("/metrics", get(metrics))
            .with_state(self.clone());
        self.rounds().merge(own)
    }

    /// Answers until it is told to stop.
    pub async fn serve(self, listener: TcpListener, stop: CancellationToken) {
        let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let mut tasks = JoinSet::new();
        let router = self.router();
        loop {
            let accepted = tokio::select! {
                () = stop.cancelled() => break,
                Some(_) = tasks.join_next() => continue,
                accepted = listener.accept() => accepted,
            };
            match (accepted, places.clone().try_acquire_owned()) {
                (Ok((stream, _)), Ok(place)) => {
                    let router = router.clone();
                    tasks.spawn(async move {
                        let mut http = hyper::server::conn::http1::Builder::new();
                        let http = http.keep_alive(false).max_buf_size(16 * 1024);
                        let serving = http.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
                        // Whoever is slow or gone is told nothing.
                        let _ = tokio::time::timeout(CONNECTION_TIMEOUT, serving).await;
                        drop(place);
                    });
                }
                (Ok(_), Err(_)) => tracing::warn!(connections = CONNECTIONS_MAX, "too many connections; one is closed"),
                (Err(error), _) => refused(&error).await,
            }
        }
        let ended = async { while tasks.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(CONNECTION_TIMEOUT, ended).await;
    }

    /// The round as drand tells it. None: it is not due.
    fn tell(&self, round: u64) -> Option<Value> {
        let newest = self.newest()?;
        if round == 0 || round > newest {
            self.0.early.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        let signature = self.0.secret.sign(round);
        self.0.signed.fetch_add(1, Ordering::Relaxed);
        Some(json!({ "round": round, "randomness": randomness(&signature), "signature": signature }))
    }

    fn newest(&self) -> Option<u64> {
        self.0.schedule.newest_at((self.0.clock)())
    }
}

/// Too many open files, mostly: that passes.
async fn refused(error: &io::Error) {
    tracing::warn!(%error, "a connection could not be taken");
    tokio::time::sleep(Duration::from_millis(100)).await;
}

async fn info(State(server): State<Server>) -> Json<Value> {
    let Schedule {
        genesis_seconds,
        period_seconds,
    } = server.0.schedule;
    let key = server.0.secret.public_key();
    let group = Digest::of(key.as_bytes());
    // Names this chain of rounds; its members are one, so its group is the key.
    let times = [genesis_seconds.to_be_bytes(), period_seconds.to_be_bytes()].concat();
    let hash = Digest::of(&[times.as_slice(), key.as_bytes(), group.as_bytes()].concat());
    Json(json!({
        "public_key": key,
        "period": period_seconds,
        "genesis_time": genesis_seconds,
        "hash": hash,
        "groupHash": group,
        "schemeID": SCHEME,
        "metadata": { "beaconID": "function-network" },
    }))
}

async fn latest(State(server): State<Server>) -> Response {
    let newest = server.newest().unwrap_or_default();
    answer(server.tell(newest))
}

async fn round(State(server): State<Server>, Path(round): Path<String>) -> Response {
    match round.parse() {
        Ok(round) => answer(server.tell(round)),
        Err(_) => (
            StatusCode::BAD_REQUEST,
            Json(json!({ "error": "no number of a round" })),
        )
            .into_response(),
    }
}

fn answer(round: Option<Value>) -> Response {
    match round {
        Some(round) => Json(round).into_response(),
        None => (StatusCode::NOT_FOUND, Json(json!({ "error": "this round is not due" }))).into_response(),
    }
}

async fn ready(State(server): State<Server>) -> Response {
    match server.newest() {
        Some(_) => (StatusCode::OK, "ready\n").into_response(),
        None => (StatusCode::SERVICE_UNAVAILABLE, "before genesis\n").into_response(),
    }
}

async fn metrics(State(server): State<Server>) -> Response {
    let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let text = format!(
        "# HELP fxn_beacon_round Newest round that is due.\n# TYPE fxn_beacon_round gauge\nfxn_beacon_round {}\n\
         # HELP fxn_beacon_signed_total Rounds that were signed and told.\n# TYPE fxn_beacon_signed_total counter\n\
         fxn_beacon_signed_total {}\n\
         # HELP fxn_beacon_early_total Questions for rounds that are not due.\n# TYPE fxn_beacon_early_total counter\n\
         fxn_beacon_early_total {}\n",
        server.newest().unwrap_or_default(),
        count(&server.0.signed),
        count(&server.0.early),
    );
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response()
}

#[cfg(test)]
mod tests {
    use schema::BeaconKey;

    use super::*;
    use crate::source::{Source, SourceError};

    const SCHEDULE: Schedule = Schedule {
        genesis_seconds: 1_000,
        period_seconds: 3,
    };

    /// Round 11 is due, and round 12 in two seconds.
    async fn serving() -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let server = Server::new(Secret::development(), SCHEDULE, || 1_031);
        tokio::spawn(server.serve(listener, CancellationToken::new()));
        url
    }

    async fn get(url: String) -> (u16, String) {
        let answer = reqwest::get(url).await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    }

    fn source(url: &str, key: BeaconKey) -> Source {
        Source::new(&[format!("{url}/")], key, Duration::from_secs(10)).unwrap()
    }

    #[tokio::test]
    async fn a_round_is_told_from_its_time_on_and_not_before() {
        let url = serving().await;
        let key = Secret::development().public_key();
        for round in [1, 10, 11] {
            let told = source(&url, key).round(round).await.unwrap();
            assert_eq!(told.signature, Secret::development().sign(round));
        }
        for round in ["12", "0", "18446744073709551615"] {
            let (status, text) = get(format!("{url}/public/{round}")).await;
            assert_eq!(status, 404);
            assert!(!text.contains("signature"), "{text}");
        }
        assert_eq!(get(format!("{url}/public/x")).await.0, 400);
        let (_, latest) = get(format!("{url}/public/latest")).await;
        let latest: Value = serde_json::from_str(&latest).unwrap();
        let signature = Secret::development().sign(11);
        assert_eq!(latest["round"], 11);
        assert_eq!(latest["randomness"], randomness(&signature).to_string());
        assert_eq!(latest["signature"], signature.to_string());
    }

    #[tokio::test]
    async fn the_beacon_says_whose_it_is_and_never_its_secret() {
        let url = serving().await;
        let (_, info) = get(format!("{url}/info")).await;
        let info: Value = serde_json::from_str(&info).unwrap();
        assert_eq!(info["public_key"], Secret::development().public_key().to_string());
        assert_eq!((&info["period"], &info["genesis_time"]), (&json!(3), &json!(1_000)));
        assert_eq!(info["schemeID"], SCHEME);
        get(format!("{url}/public/12")).await;
        let (_, metrics) = get(format!("{url}/metrics")).await;
        assert!(metrics.contains("fxn_beacon_round 11\n") && metrics.contains("fxn_beacon_early_total 1\n"));
        assert_eq!(get(format!("{url}/health")).await.0, 200);
        assert_eq!(get(format!("{url}/ready")).await.0, 200);
    }

    #[tokio::test]
    async fn what_another_key_has_signed_is_no_round() {
        let url = serving().await;
        let other = Secret::from_secret(&[3; 32]).unwrap().public_key();
        let SourceError::NotFound { said, .. } = source(&url, other).round(5).await.unwrap_err() else {
            panic!("another refusal")
        };
        assert!(said[0].ends_with("a signature that is none"), "{said:?}");
    }

    #[test]
    fn what_is_no_server_is_told() {
        let refused = |url: &str| crate::source::check(&[url.to_owned()]).unwrap_err();
        for url in ["", "127.0.0.1:7073", "ftp://host", "http://host?x=1"] {
            assert_eq!(refused(url), SourceError::NoUrl(url.to_owned()));
        }
        let many = vec!["http://host".to_owned(); 17];
        assert_eq!(crate::source::check(&many), Err(SourceError::TooMany { found: 17 }));
    }
}
