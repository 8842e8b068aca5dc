//! The public interface: pushes, blobs, outputs and health, all on one port.
//!
//! Guarantees: blobs are content-addressed and the only thing that strangers may read; an output is handed to the account that paid for
//! it and to nobody else; headers are bounded, bodies are refused (pushes bound their own frames), answers are streamed.

use std::{io::SeekFrom, sync::Arc};

use axum::{
    body::Body,
    extract::{DefaultBodyLimit, Path, State},
    http::{header, HeaderMap, StatusCode},
    response::{IntoResponse, Response},
    routing::get,
    Router,
};
use client::verify_digest;
use schema::{receipt::OutputRequest, Digest, ItemId, PublicKey, Signature};
use tokio::{
    fs::File,
    io::{AsyncReadExt, AsyncSeekExt},
    sync::Semaphore,
};
use tokio_util::io::ReaderStream;
use tonic::service::Routes;

use crate::{
    blobs::Blobs,
    host::{now_seconds, Host},
    journal::RowFile,
    proto::span_server::SpanServer,
    rows::encode_rows,
    span::SpanService,
};

/// Longest time for which a request for an output may be valid.
const VALID_SECONDS_MAX: u64 = 300;
/// Blobs that are sent at the same time.
const BLOBS_MAX: usize = 32;
/// Outputs that are read at the same time: each is in memory as a whole.
const OUTPUTS_MAX: usize = 8;

#[derive(Debug)]
struct Public {
    host: Arc<Host>,
    blobs: Arc<Blobs>,
    sending: Arc<Semaphore>,
    outputs: Semaphore,
}

/// Everything on the public port.
pub(crate) fn router(host: Arc<Host>, blobs: Arc<Blobs>) -> Router {
    let pushes =
        SpanServer::new(SpanService::new(Arc::clone(&host))).max_decoding_message_size(host.config.frame_bytes_max);
    let public = Arc::new(Public {
        host,
        blobs,
        sending: Arc::new(Semaphore::new(BLOBS_MAX)),
        outputs: Semaphore::new(OUTPUTS_MAX),
    });
    let routes = Router::new()
        .route("/blobs/{digest}", get(blob))
        .route("/outputs/{digest}", get(output))
        .route("/health", get(health))
        .layer(DefaultBodyLimit::max(0))
        .with_state(public);
    Routes::new(pushes).into_axum_router().merge(routes)
}

/// A refusal that a person can read.
#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error("{text:?} is no sha256")]
    NotADigest { text: String },
    #[error("this host does not serve blobs")]
    NoBlobs,
    #[error("blob {digest} is not here")]
    NoBlob { digest: Digest },
    #[error("range {range:?} is not within {bytes} bytes")]
    Range { range: String, bytes: u64 },
    #[error("{max} of these are being sent already")]
    Busy { max: usize },
    #[error("header {name} is missing or malformed")]
    Header { name: &'static str },
    #[error("output {digest} of item {item} is not here")]
    NoOutput { digest: Digest, item: ItemId },
    #[error("the request is valid until {valid_until}; now it is {now}, and at most {VALID_SECONDS_MAX} s ahead are allowed")]
    Expired { valid_until: u64, now: u64 },
    #[error("the signature is not by {public_key} over this request")]
    Signature { public_key: PublicKey },
    #[error("the output belongs to {developer}, the request is signed by {found}")]
    NotTheDeveloper { developer: String, found: String },
    #[error("failed to read: {0}")]
    Read(String),
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let status = match self {
            Self::NotADigest { .. } | Self::Header { .. } => StatusCode::BAD_REQUEST,
            Self::NoBlobs | Self::NotTheDeveloper { .. } => StatusCode::FORBIDDEN,
            Self::NoBlob { .. } | Self::NoOutput { .. } => StatusCode::NOT_FOUND,
            Self::Range { .. } => StatusCode::RANGE_NOT_SATISFIABLE,
            Self::Busy { .. } => StatusCode::SERVICE_UNAVAILABLE,
            Self::Expired { .. } | Self::Signature { .. } => StatusCode::UNAUTHORIZED,
            Self::Read(_) => StatusCode::INTERNAL_SERVER_ERROR,
        };
        (status, self.to_string()).into_response()
    }
}

async fn health(State(public): State<Arc<Public>>) -> (StatusCode, &'static str) {
    match public.host.stop.is_cancelled() {
        false => (StatusCode::OK, "ok"),
        true => (StatusCode::SERVICE_UNAVAILABLE, "stopping"),
    }
}

fn digest_of(text: &str) -> Result<Digest, Refused> {
    text.parse().map_err(|_| Refused::NotADigest {
        text: text.chars().take(80).collect(),
    })
}

async fn blob(
    State(public): State<Arc<Public>>,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Refused> {
    let digest = digest_of(&name)?;
    if !public.host.config.serve_blobs {
        return Err(Refused::NoBlobs);
    }
    let busy = |_| Refused::Busy { max: BLOBS_MAX };
    let permit = Arc::clone(&public.sending).try_acquire_owned().map_err(busy)?;
    public.blobs.find(digest).ok_or(Refused::NoBlob { digest })?;
    let read = |error: std::io::Error| Refused::Read(error.to_string());
    let mut file = File::open(public.blobs.path(digest)).await.map_err(read)?;
    let bytes = file.metadata().await.map_err(read)?.len();
    let range = headers.get(header::RANGE).and_then(|range| range.to_str().ok());
    let (status, first, last) = match range {
        Some(range) => {
            let (first, last) = parse_range(range, bytes)?;
            (StatusCode::PARTIAL_CONTENT, first, last)
        }
        None => (StatusCode::OK, 0, bytes.saturating_sub(1)),
    };
    let length = match bytes {
        0 => 0,
        _ => last.saturating_sub(first).saturating_add(1),
    };
    file.seek(SeekFrom::Start(first)).await.map_err(read)?;
    let body = Body::from_stream(Sending {
        stream: ReaderStream::with_capacity(file.take(length), 1 << 16),
        _permit: permit,
    });
    let mut response = Response::builder()
        .status(status)
        .header(header::CONTENT_LENGTH, length)
        .header(header::ACCEPT_RANGES, "bytes")
        .header(header::CONTENT_TYPE, "application/octet-stream");
    if status == StatusCode::PARTIAL_CONTENT {
        response = response.header(header::CONTENT_RANGE, format!("bytes {first}-{last}/{bytes}"));
    }
    response.body(body).map_err(|error| Refused::Read(error.to_string()))
}

/// A body that counts as being sent until it is dropped.
struct Sending<S> {
    stream: S,
    _permit: tokio::sync::OwnedSemaphorePermit,
}

impl<S: futures::Stream + Unpin> futures::Stream for Sending<S> {
    type Item = S::Item;

    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<S::Item>> {
        std::pin::Pin::new(&mut self.stream).poll_next(context)
    }
}

/// First and last byte of a range header; one range, from somewhere to somewhere or to the end.
fn parse_range(range: &str, bytes: u64) -> Result<(u64, u64), Refused> {
    let end = bytes.saturating_sub(1);
    let parse = || {
        let (first, last) = range.strip_prefix("bytes=")?.split_once('-')?;
        let first: u64 = first.parse().ok()?;
        let last = match last {
            "" => end,
            last => last.parse::<u64>().ok()?.min(end),
        };
        (first <= last && first < bytes).then_some((first, last))
    };
    parse().ok_or_else(|| Refused::Range {
        range: range.chars().take(80).collect(),
        bytes,
    })
}

async fn output(
    State(public): State<Arc<Public>>,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Refused> {
    let digest = digest_of(&name)?;
    let item: ItemId = parsed(&headers, "x-fxn-item")?;
    let valid_until: u64 = parsed(&headers, "x-fxn-valid-until")?;
    let public_key: PublicKey = parsed(&headers, "x-fxn-public-key")?;
    let signature: Signature = parsed(&headers, "x-fxn-signature")?;
    let now = now_seconds();
    if valid_until < now || valid_until > now.saturating_add(VALID_SECONDS_MAX) {
        return Err(Refused::Expired { valid_until, now });
    }
    let host = &public.host;
    let entry = host
        .work
        .of_output(item, digest)
        .ok_or(Refused::NoOutput { digest, item })?;
    let assignment = entry.record().assignment;
    let request = OutputRequest {
        domain: assignment.domain,
        item,
        output_digest: digest,
        valid_until,
    };
    if !verify_digest(public_key.as_bytes(), &request.digest().0, signature.as_bytes()) {
        return Err(Refused::Signature { public_key });
    }
    let found = host.chain.account_of(public_key.as_bytes()).unwrap_or_default();
    if found != assignment.developer {
        let developer = assignment.developer;
        return Err(Refused::NotTheDeveloper { developer, found });
    }
    let _permit = public
        .outputs
        .try_acquire()
        .map_err(|_| Refused::Busy { max: OUTPUTS_MAX })?;
    let reader = Arc::clone(host);
    let rows = tokio::task::spawn_blocking(move || reader.work.rows(&entry, RowFile::Output)).await;
    let rows = rows.map_err(|error| Refused::Read(error.to_string()))?;
    let rows = rows.map_err(|error| Refused::Read(error.to_string()))?;
    host.metrics.output_served();
    Ok(([(header::CONTENT_TYPE, "application/octet-stream")], encode_rows(&rows)).into_response())
}

fn parsed<T: std::str::FromStr>(headers: &HeaderMap, name: &'static str) -> Result<T, Refused> {
    let text = headers.get(name).and_then(|value| value.to_str().ok());
    text.and_then(|text| text.parse().ok()).ok_or(Refused::Header { name })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_range_inside_the_blob_is_understood_and_nothing_else() {
        let good = [("bytes=0-", (0, 9)), ("bytes=3-5", (3, 5)), ("bytes=9-99", (9, 9))];
        for (range, expected) in good {
            assert_eq!(parse_range(range, 10).unwrap(), expected, "{range}");
        }
        for bad in [
            "bytes=10-",
            "bytes=5-3",
            "bytes=-3",
            "bytes=0-1,3-4",
            "rows=1-2",
            "",
            "bytes=a-b",
        ] {
            assert!(parse_range(bad, 10).is_err(), "{bad}");
        }
        assert!(parse_range("bytes=0-", 0).is_err());
    }
}
