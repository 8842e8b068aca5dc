//! `fxn model serve`: a bundle's blobs over HTTP, for hosts that fetch their stages.
//!
//! Answers `GET /blobs/<sha256>` with what the bundle's `blobs` folder holds under that name, and with the manifest under its own
//! digest. Whoever asks checks the digest; nothing but digests can be asked for.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::Context as _;
use axum::{
    body::Body,
    extract::{Path as UrlPath, State},
    http::{header, StatusCode},
    response::{IntoResponse, Response},
    routing::get,
    Router,
};
use clap::Args;
use schema::Digest;
use serde::Serialize;
use tokio::{fs::File, net::TcpListener};
use tokio_util::{io::ReaderStream, sync::CancellationToken};

use super::publication::read_manifest;
use crate::{context::Context, services::stop};

#[derive(Debug, Args)]
pub(crate) struct Serve {
    /// Folder that `fxn model split` made
    bundle: PathBuf,
    /// Where to listen; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:7080")]
    listen: SocketAddr,
}

#[derive(Debug)]
struct Offer {
    bundle: PathBuf,
    manifest: Digest,
}

/// What a running server tells about itself.
#[derive(Debug, Serialize)]
struct Serving {
    url: String,
    manifest: Digest,
    pid: u32,
}

pub(crate) async fn run(context: &Context, serve: &Serve) -> anyhow::Result<()> {
    let stop = stop::stop_signal()?;
    let (listener, manifest) = open(&serve.bundle, serve.listen).await?;
    let url = format!(
        "http://{}",
        listener.local_addr().context("failed to read the address")?
    );
    let serving = Serving {
        manifest,
        url: url.clone(),
        pid: std::process::id(),
    };
    stop::announce(&context.home, "serve.json", &serving)?;
    context.output.done(
        &serving,
        format!(
            "Serving {} at {url}/blobs/<sha256>; manifest {manifest}.",
            serve.bundle.display()
        ),
    )?;
    answer(listener, serve.bundle.clone(), manifest, stop).await
}

async fn open(bundle: &Path, listen: SocketAddr) -> anyhow::Result<(TcpListener, Digest)> {
    let (_, manifest) = read_manifest(bundle)?;
    let listener = TcpListener::bind(listen)
        .await
        .with_context(|| format!("cannot listen on {listen}"))?;
    Ok((listener, manifest))
}

/// Serves until `stop`.
pub(crate) async fn answer(
    listener: TcpListener,
    bundle: PathBuf,
    manifest: Digest,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let router = Router::new()
        .route("/blobs/{digest}", get(blob))
        .route("/health", get(|| async { "ok" }))
        .with_state(Arc::new(Offer { bundle, manifest }));
    axum::serve(listener, router)
        .with_graceful_shutdown(stop.cancelled_owned())
        .await
        .context("failed to serve the bundle")
}

async fn blob(State(offer): State<Arc<Offer>>, UrlPath(digest): UrlPath<String>) -> Response {
    // Only a digest is a name here, so no path can leave the folder.
    let Ok(digest) = digest.parse::<Digest>() else {
        return (StatusCode::BAD_REQUEST, "a blob is named by 64 hex digits\n").into_response();
    };
    let path = if digest == offer.manifest {
        offer.bundle.join("manifest.json")
    } else {
        offer.bundle.join("blobs").join(digest.to_string())
    };
    let Ok(file) = File::open(&path).await else {
        return (StatusCode::NOT_FOUND, "no such blob\n").into_response();
    };
    let Ok(metadata) = file.metadata().await else {
        return (StatusCode::NOT_FOUND, "no such blob\n").into_response();
    };
    let headers = [
        (header::CONTENT_TYPE, "application/octet-stream".to_owned()),
        (header::CONTENT_LENGTH, metadata.len().to_string()),
    ];
    (headers, Body::from_stream(ReaderStream::new(file))).into_response()
}
