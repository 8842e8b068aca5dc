//! The public interface: pushes, blobs, outputs and health, all on one port.
//!
//! Guarantees: blobs are content-addressed and the only thing that strangers may read; an output is handed to the account that paid for
//! it and to nobody else; bodies are refused (pushes bound their own frames); answers are streamed, and whoever does not take the next piece in
//! time loses its place.

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
use futures::StreamExt;
use lane::proto::lane_server::LaneServer;
use prost::bytes::Bytes;
use schema::{receipt::OutputRequest, Digest, ItemId, PublicKey, Signature};
use tokio::{
    fs::File,
    io::{AsyncReadExt, AsyncSeekExt},
    sync::{mpsc, OwnedSemaphorePermit, Semaphore},
};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::io::ReaderStream;
use tonic::service::Routes;

use crate::{
    blobs::Blobs, host::Host, journal::RowFile, lane::LaneService, proto::span_server::SpanServer, rows::encode_rows,
    span::SpanService,
};

/// Longest time for which a request for an output may be valid.
const VALID_SECONDS_MAX: u64 = 300;
/// Blobs that are sent at the same time.
const BLOBS_MAX: usize = 32;
/// Outputs that are read at the same time: each is in memory as a whole.
const OUTPUTS_MAX: usize = 8;
/// Pieces in which answers are sent.
const CHUNK_BYTES: usize = 64 << 10;
/// A place for a blob or an output is free again after about this time.
const RETRY_AFTER_SECONDS: &str = "2";

#[derive(Debug)]
struct Public {
    host: Arc<Host>,
    blobs: Arc<Blobs>,
    sending: Arc<Semaphore>,
    outputs: Arc<Semaphore>,
}

/// Everything on the public port.
pub(crate) fn router(host: Arc<Host>, blobs: Arc<Blobs>) -> Router {
    let pushes =
        SpanServer::new(SpanService::new(Arc::clone(&host))).max_decoding_message_size(host.config.frame_bytes_max);
    let lane = LaneServer::new(LaneService::new(Arc::clone(&host)))
        .max_decoding_message_size(host.config.frame_bytes_max)
        .max_encoding_message_size(host.config.frame_bytes_max);
    let public = Arc::new(Public {
        host,
        blobs,
        sending: Arc::new(Semaphore::new(BLOBS_MAX)),
        outputs: Arc::new(Semaphore::new(OUTPUTS_MAX)),
    });
    let routes = Router::new()
        .route("/blobs/{digest}", get(blob))
        .route("/outputs/{digest}", get(output))
        .route("/health", get(health))
        .layer(DefaultBodyLimit::max(0))
        .with_state(public);
    Routes::new(pushes).add_service(lane).into_axum_router().merge(routes)
}

/// A refusal that a person can read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refused {
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
        match status {
            StatusCode::SERVICE_UNAVAILABLE => {
                (status, [(header::RETRY_AFTER, RETRY_AFTER_SECONDS)], self.to_string()).into_response()
            }
            _ => (status, self.to_string()).into_response(),
        }
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
    let chunks = ReaderStream::with_capacity(file.take(length), CHUNK_BYTES);
    let body = sent_in_time(chunks, permit, &public.host);
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

/// First and last byte of a range header; one range, from somewhere to somewhere or to the end.
pub(crate) fn parse_range(range: &str, bytes: u64) -> Result<(u64, u64), Refused> {
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
    let now = public.host.clock.now();
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
    let busy = |_| Refused::Busy { max: OUTPUTS_MAX };
    let permit = Arc::clone(&public.outputs).try_acquire_owned().map_err(busy)?;
    let reader = Arc::clone(host);
    let rows = tokio::task::spawn_blocking(move || reader.work.rows(&entry, RowFile::Output)).await;
    let rows = rows.map_err(|error| Refused::Read(error.to_string()))?;
    let rows = rows.map_err(|error| Refused::Read(error.to_string()))?;
    host.metrics.outputs_served(1);
    let bytes = Bytes::from(encode_rows(&rows));
    let headers = [
        (header::CONTENT_TYPE, "application/octet-stream".to_owned()),
        (header::CONTENT_LENGTH, bytes.len().to_string()),
    ];
    let pieces = (0..bytes.len()).step_by(CHUNK_BYTES);
    let pieces: Vec<_> = pieces
        .map(|from| Ok(bytes.slice(from..bytes.len().min(from.saturating_add(CHUNK_BYTES)))))
        .collect();
    Ok((headers, sent_in_time(futures::stream::iter(pieces), permit, host)).into_response())
}

/// A body that keeps its place as long as the peer takes the next piece in time, and no longer.
fn sent_in_time<S>(pieces: S, place: OwnedSemaphorePermit, host: &Arc<Host>) -> Body
where
    S: futures::Stream<Item = std::io::Result<Bytes>> + Send + 'static,
{
    let (sender, receiver) = mpsc::channel(1);
    let host = Arc::clone(host);
    tokio::spawn(async move {
        let mut pieces = std::pin::pin!(pieces);
        while let Some(piece) = pieces.next().await {
            let bytes = piece.as_ref().map_or(0, Bytes::len);
            match tokio::time::timeout(host.config.io_timeout(), sender.send(piece)).await {
                Ok(Ok(())) => host.metrics.blob_sent_bytes(u64::try_from(bytes).unwrap_or(u64::MAX)),
                // It has hung up, or it does not read: what was announced does not come, which is an error at its end.
                _ => break,
            }
        }
        drop(place);
    });
    Body::from_stream(ReceiverStream::new(receiver))
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
