//! A host on loopback that says what the story wants, behind the real interface: token, long-poll, status codes.

use std::{
    collections::{BTreeMap, VecDeque},
    path::Path,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use axum::{
    extract::{Path as UrlPath, Query, State},
    http::{header::AUTHORIZATION, HeaderMap, StatusCode},
    response::{IntoResponse, Response},
    routing::{get, put},
    Json, Router,
};
use schema::{
    escrow::VoucherRefusal,
    receipt::Link,
    work::{HeldVoucher, HeldVouchers, HostFile, SettlementNews, VoucherNews, WorkState, WorkStatus},
    ItemId,
};
use tokio::{net::TcpListener, sync::watch, task::JoinHandle};

pub const TOKEN: &str = "0123456789abcdef";

#[derive(Debug, Default)]
pub struct Desk {
    /// What the host says of an item once it was told.
    pub plans: BTreeMap<(ItemId, u8), WorkStatus>,
    /// What is said of items without a plan.
    pub finish_everything: bool,
    /// Items that it was told, in order.
    pub puts: Vec<(ItemId, u8)>,
    pub known: Vec<(ItemId, u8)>,
    pub polls: u32,
    /// What it would have settled.
    pub vouchers: Vec<HeldVoucher>,
    /// What it was told of vouchers, in order.
    pub news: Vec<VoucherNews>,
    /// Whether it forgets what it hears.
    pub is_deaf: bool,
    /// Answers to the next PUTs, before it does what it should.
    pub script: VecDeque<(StatusCode, Option<&'static str>)>,
}

#[derive(Debug, Clone)]
pub struct FakeHost {
    desk: Arc<Mutex<Desk>>,
    changed: Arc<watch::Sender<u64>>,
    server: Arc<JoinHandle<()>>,
}

impl FakeHost {
    /// Starts one and leaves its files in `home`.
    pub async fn start(home: &Path, provider: &str) -> FakeHost {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let desk = Arc::new(Mutex::new(Desk::default()));
        let changed = Arc::new(watch::Sender::new(0));
        let route = put(put_item).get(get_item);
        let router = Router::new()
            .route("/v1/items/{item}/{attempt}", route)
            .route("/v1/vouchers", get(get_vouchers).post(post_vouchers))
            .with_state((desk.clone(), changed.clone()));
        let server = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        let file = HostFile {
            pid: 1,
            listen: "127.0.0.1:1".into(),
            status: address,
            provider: provider.into(),
            started_at: 0,
        };
        std::fs::write(home.join("host.token"), format!("{TOKEN}\n")).unwrap();
        std::fs::write(home.join("host.json"), serde_json::to_vec(&file).unwrap()).unwrap();
        FakeHost {
            desk,
            changed,
            server: Arc::new(server),
        }
    }

    pub fn desk(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().unwrap()
    }

    pub fn change<R>(&self, change: impl FnOnce(&mut Desk) -> R) -> R {
        let result = change(&mut self.desk());
        self.changed.send_modify(|version| *version += 1);
        result
    }

    pub async fn until(&self, what: &str, is_so: impl Fn(&Desk) -> bool) {
        let mut changed = self.changed.subscribe();
        let wait = changed.wait_for(|_| is_so(&self.desk()));
        let waited = tokio::time::timeout(Duration::from_secs(20), wait).await.map(drop);
        assert!(waited.is_ok(), "never: {what}");
    }

    /// From now on it says this of the item.
    pub fn says(&self, item: ItemId, attempt: u8, state: WorkState, links: Vec<Link>, complete: bool) {
        let status = WorkStatus {
            item,
            attempt,
            state,
            links,
            complete,
            error: None,
        };
        self.change(|desk| desk.plans.insert((item, attempt), status));
    }

    pub fn finishes(&self, item: ItemId, attempt: u8) {
        let links = vec![super::fake_chain::link(item, attempt, 1, false)];
        self.says(item, attempt, WorkState::Done, links, true);
    }
}

impl Drop for FakeHost {
    fn drop(&mut self) {
        if Arc::strong_count(&self.server) == 1 {
            self.server.abort();
        }
    }
}

type Shared = State<(Arc<Mutex<Desk>>, Arc<watch::Sender<u64>>)>;

fn is_allowed(headers: &HeaderMap) -> bool {
    headers
        .get(AUTHORIZATION)
        .is_some_and(|value| value == &format!("Bearer {TOKEN}"))
}

async fn put_item(
    State((desk, changed)): Shared,
    UrlPath((item, attempt)): UrlPath<(String, u8)>,
    headers: HeaderMap,
) -> Response {
    if !is_allowed(&headers) {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    let item: ItemId = item.parse().unwrap();
    let answer = {
        let mut desk = desk.lock().unwrap();
        desk.puts.push((item, attempt));
        match desk.script.pop_front() {
            Some((code, retry_after)) => {
                let headers: Vec<_> = retry_after.map(|after| ("retry-after", after)).into_iter().collect();
                (code, axum::response::AppendHeaders(headers), "not now").into_response()
            }
            None => {
                desk.known.push((item, attempt));
                (StatusCode::ACCEPTED, Json(desk.status(item, attempt))).into_response()
            }
        }
    };
    changed.send_modify(|version| *version += 1);
    answer
}

async fn get_vouchers(State((desk, _)): Shared, headers: HeaderMap) -> Response {
    if !is_allowed(&headers) {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    let vouchers = desk.lock().unwrap().vouchers.clone();
    Json(HeldVouchers { vouchers }).into_response()
}

async fn post_vouchers(
    State((desk, changed)): Shared,
    headers: HeaderMap,
    Json(news): Json<SettlementNews>,
) -> StatusCode {
    if !is_allowed(&headers) {
        return StatusCode::UNAUTHORIZED;
    }
    {
        let mut desk = desk.lock().unwrap();
        for told in news.vouchers {
            desk.news.push(told);
            let is_over = matches!(told.refusal, None | Some(VoucherRefusal::Stale));
            if is_over && !desk.is_deaf {
                let key = (told.session, told.deployment, told.sequence);
                desk.vouchers.retain(|held| {
                    let voucher = held.voucher.voucher;
                    (voucher.session, voucher.deployment, voucher.sequence) != key
                });
            }
        }
    }
    changed.send_modify(|version| *version += 1);
    StatusCode::NO_CONTENT
}

#[derive(serde::Deserialize)]
struct Wait {
    wait_seconds: Option<u64>,
}

async fn get_item(
    State((desk, changed)): Shared,
    UrlPath((item, attempt)): UrlPath<(String, u8)>,
    Query(wait): Query<Wait>,
    headers: HeaderMap,
) -> Response {
    if !is_allowed(&headers) {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    let item: ItemId = item.parse().unwrap();
    let look = || {
        let desk = desk.lock().unwrap();
        desk.known
            .contains(&(item, attempt))
            .then(|| desk.status(item, attempt))
    };
    desk.lock().unwrap().polls += 1;
    let before = look();
    let mut changes = changed.subscribe();
    let wait = Duration::from_secs(wait.wait_seconds.unwrap_or(0));
    let _ = tokio::time::timeout(wait, changes.wait_for(|_| look() != before))
        .await
        .map(drop);
    match look() {
        Some(status) => Json(status).into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

impl Desk {
    fn status(&self, item: ItemId, attempt: u8) -> WorkStatus {
        let known = WorkStatus {
            item,
            attempt,
            state: WorkState::Known,
            links: vec![],
            complete: false,
            error: None,
        };
        match self.plans.get(&(item, attempt)) {
            Some(plan) => plan.clone(),
            None if self.finish_everything => WorkStatus {
                state: WorkState::Done,
                links: vec![super::fake_chain::link(item, attempt, 1, false)],
                complete: true,
                ..known
            },
            None => known,
        }
    }
}
