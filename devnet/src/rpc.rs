//! The HTTP side: JSON-RPC by POST (single and batch) and by GET, and the upgrade to a WebSocket.

use std::sync::Arc;

use axum::{
    body::Bytes,
    extract::{ws::WebSocketUpgrade, DefaultBodyLimit, Path, Query, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::get,
    Json, Router,
};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::{
    comet,
    methods::{self, Failure, Params},
    metrics::Metrics,
    service::Service,
    websocket,
};

/// Longest request body, the node's default; a transaction in it is base64.
const BODY_BYTES_MAX: usize = 1_000_000;
/// Most requests in one batch.
const BATCH_MAX: usize = 100;

/// What every handler needs.
#[derive(Clone)]
pub(crate) struct Context {
    pub(crate) service: Service,
    pub(crate) chain_id: String,
    /// This node's own address, as it tells it in `status`.
    pub(crate) rpc: String,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) stop: CancellationToken,
}

pub(crate) fn router(context: Context) -> Router {
    Router::new()
        .route("/", get(index).post(post))
        .route("/websocket", get(upgrade))
        .route("/{method}", get(by_url))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(context)
}

async fn index() -> &'static str {
    "The RPC of a Function Network devnet. POST JSON-RPC here, or GET /status, /block?height=1, /tx?hash=0x...\n"
}

async fn post(
    State(context): State<Context>,
    body: Result<Bytes, axum::extract::rejection::BytesRejection>,
) -> Response {
    // A node answers a body that is too long with a plain 400.
    let Ok(body) = body else {
        return (StatusCode::BAD_REQUEST, "request body too large").into_response();
    };
    match serde_json::from_slice(&body) {
        Ok(Value::Array(requests)) if requests.len() > BATCH_MAX => {
            let data = format!("{} requests in a batch, at most {BATCH_MAX} are taken", requests.len());
            Json(comet::error(&Value::Null, -32600, "Invalid Request", &data)).into_response()
        }
        Ok(Value::Array(requests)) => {
            let mut answers = vec![];
            for request in requests {
                answers.push(answer(&context, request).await);
            }
            Json(answers).into_response()
        }
        Ok(request) => Json(answer(&context, request).await).into_response(),
        Err(error) => {
            let answer = comet::error(&Value::Null, -32700, "Parse error. Invalid JSON", &error.to_string());
            Json(answer).into_response()
        }
    }
}

async fn by_url(
    State(context): State<Context>,
    Path(method): Path<String>,
    Query(pairs): Query<Vec<(String, String)>>,
) -> Json<Value> {
    let result = methods::call(&context, &method, Params::from_url(pairs)).await;
    Json(finished(&Value::from(-1), result))
}

async fn upgrade(State(context): State<Context>, upgrade: WebSocketUpgrade) -> Response {
    let upgrade = upgrade.max_message_size(BODY_BYTES_MAX).max_frame_size(BODY_BYTES_MAX);
    upgrade.on_upgrade(|socket| websocket::serve(socket, context))
}

/// One request as it came, read.
pub(crate) struct Request {
    pub(crate) id: Value,
    pub(crate) method: String,
    pub(crate) params: Params,
}

impl Request {
    pub(crate) fn read(mut request: Value) -> Result<Request, Value> {
        let id = request.get_mut("id").map(Value::take).unwrap_or_default();
        let Some(method) = request.get("method").and_then(Value::as_str).map(str::to_owned) else {
            return Err(comet::error(&id, -32600, "Invalid Request", "no method"));
        };
        let params = request.get_mut("params").map(Value::take).unwrap_or_default();
        match Params::from_json(params) {
            Ok(params) => Ok(Request { id, method, params }),
            Err(failure) => Err(finished(&id, Err(failure))),
        }
    }
}

async fn answer(context: &Context, request: Value) -> Value {
    match Request::read(request) {
        Ok(Request { id, method, params }) => finished(&id, methods::call(context, &method, params).await),
        Err(answer) => answer,
    }
}

pub(crate) fn finished(id: &Value, result: Result<Value, Failure>) -> Value {
    match result {
        Ok(result) => comet::response(id, result),
        Err(Failure { code, message, data }) => comet::error(id, code, message, &data),
    }
}
