//! Fetches blobs from the places that the operator allows.
//!
//! Guarantees: no other place is ever asked, redirects are not followed, an interrupted download goes on where it stopped, no more bytes
//! are taken than expected, the same blob is fetched once however many ask for it, and what arrives is used only if it is what its digest says.

use std::{
    collections::HashMap,
    fs,
    io::Read,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use reqwest::{header::RANGE, StatusCode};
use schema::Digest;
use tokio::{fs::File, io::AsyncWriteExt};

use crate::{
    blobs::{BlobError, Blobs, Pinned},
    config::Source,
    faults::{at, Point},
    metrics::Metrics,
};

/// Name of the manifest in a bundle folder.
const MANIFEST: &str = "manifest.json";

/// Why a blob could not be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SourceError {
    #[error(transparent)]
    Blob(#[from] BlobError),
    #[error("blob {digest} is held by none of the sources: {tried}")]
    Nowhere { digest: Digest, tried: String },
    #[error("blob {digest} has {found} bytes, {expected} expected")]
    Size { digest: Digest, found: u64, expected: u64 },
    #[error("the reader of blob {digest} stopped")]
    Stopped { digest: Digest },
}

/// Why one source did not deliver.
#[derive(Debug, thiserror::Error)]
enum Miss {
    #[error("not there")]
    NotThere,
    #[error("status {0}")]
    Status(StatusCode),
    #[error("more than {limit} bytes")]
    TooLong { limit: u64 },
    #[error("no bytes for {seconds} s")]
    Stalled { seconds: u64 },
    #[error("{0}")]
    Http(#[from] reqwest::Error),
    #[error("{0}")]
    Io(#[from] std::io::Error),
}

/// The allowed sources and the store that they fill.
#[derive(Debug, Clone)]
pub(crate) struct Sources {
    blobs: Arc<Blobs>,
    sources: Vec<Source>,
    http: reqwest::Client,
    timeout: Duration,
    metrics: Arc<Metrics>,
    /// Held by whoever fetches a blob: two writers of one unfinished download would spoil it.
    fetching: Arc<Mutex<HashMap<Digest, Arc<tokio::sync::Mutex<()>>>>>,
}

/// How long a blob is.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Length {
    Exactly(u64),
    AtMost(u64),
}

impl Length {
    fn limit(self) -> u64 {
        match self {
            Self::Exactly(bytes) | Self::AtMost(bytes) => bytes,
        }
    }
}

impl Sources {
    /// `timeout` bounds every connection and every wait for the next bytes.
    pub(crate) fn new(
        blobs: Arc<Blobs>,
        sources: Vec<Source>,
        timeout: Duration,
        metrics: Arc<Metrics>,
    ) -> Result<Self, reqwest::Error> {
        let http = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(timeout)
            .build()?;
        Ok(Self {
            blobs,
            sources,
            http,
            timeout,
            metrics,
            fetching: Arc::default(),
        })
    }

    /// The folder that holds the blobs.
    pub(crate) fn folder(&self) -> &Path {
        self.blobs.folder()
    }

    /// The blob, verified now: from the store, else from the first source that has it. One that has rotted is fetched anew.
    pub(crate) async fn get(&self, digest: Digest, length: Length) -> Result<Pinned, SourceError> {
        let turn = self.turn(digest);
        let _turn = turn.lock().await;
        match self.blocking(digest, move |blobs| blobs.verify(digest)).await {
            Err(SourceError::Blob(BlobError::Missing { .. } | BlobError::Corrupt { .. })) => {}
            known => {
                self.metrics.blob_hits(1);
                return known;
            }
        }
        if let Length::Exactly(bytes) = length {
            self.blobs.make_room(digest, bytes)?;
        }
        let mut tried = Vec::new();
        for source in &self.sources {
            // Where an unfinished download of another time turns out to be something else, the source is asked for all of it.
            for _ in 0..2 {
                let part = self.blobs.part(digest);
                let continued = part.exists();
                match self.fetch(source, digest, length.limit(), &part).await {
                    Ok(()) => match self.blocking(digest, move |blobs| blobs.take(digest, &part)).await {
                        Ok(pinned) => {
                            self.metrics.blob_fetches(1);
                            return Ok(pinned);
                        }
                        Err(error @ SourceError::Blob(BlobError::Corrupt { .. })) => {
                            tried.push(format!("{source}: {error}"));
                        }
                        Err(error) => return Err(error),
                    },
                    Err(miss) => tried.push(format!("{source}: {miss}")),
                }
                if !continued || self.blobs.part(digest).exists() {
                    break;
                }
            }
        }
        let tried = match tried.is_empty() {
            true => "no source is configured".to_owned(),
            false => tried.join("; "),
        };
        Err(SourceError::Nowhere { digest, tried })
    }

    /// Bytes of a small blob.
    pub(crate) async fn read(&self, digest: Digest, length: Length) -> Result<(Pinned, Vec<u8>), SourceError> {
        let pinned = self.get(digest, length).await?;
        let path = pinned.path();
        let limit = length.limit();
        let bytes = tokio::fs::metadata(&path)
            .await
            .map_err(|source| BlobError::File { digest, source })?
            .len();
        if bytes > limit {
            return Err(SourceError::Size {
                digest,
                found: bytes,
                expected: limit,
            });
        }
        let content = tokio::fs::read(&path)
            .await
            .map_err(|source| BlobError::File { digest, source })?;
        Ok((pinned, content))
    }

    fn turn(&self, digest: Digest) -> Arc<tokio::sync::Mutex<()>> {
        let mut fetching = self.fetching.lock().unwrap_or_else(PoisonError::into_inner);
        fetching.retain(|_, turn| Arc::strong_count(turn) > 1);
        Arc::clone(fetching.entry(digest).or_default())
    }

    async fn blocking<F>(&self, digest: Digest, work: F) -> Result<Pinned, SourceError>
    where
        F: FnOnce(&Arc<Blobs>) -> Result<Pinned, BlobError> + Send + 'static,
    {
        let blobs = Arc::clone(&self.blobs);
        match tokio::task::spawn_blocking(move || work(&blobs)).await {
            Ok(result) => Ok(result?),
            Err(_) => Err(SourceError::Stopped { digest }),
        }
    }

    async fn fetch(&self, source: &Source, digest: Digest, limit: u64, part: &Path) -> Result<(), Miss> {
        match source {
            Source::Folder(folder) => {
                let (folder, part) = (folder.clone(), part.to_owned());
                let copy = move || copy(&folder, digest, limit, &part);
                tokio::task::spawn_blocking(copy).await.map_err(std::io::Error::other)?
            }
            Source::Url(url) => match self.download(&format!("{url}/blobs/{digest}"), limit, part).await {
                // A server of a bundle may know the manifest by its file name only.
                Err(Miss::NotThere) => self.download(&format!("{url}/{MANIFEST}"), limit, part).await,
                other => other,
            },
        }
    }

    async fn download(&self, url: &str, limit: u64, part: &Path) -> Result<(), Miss> {
        let have = tokio::fs::metadata(part).await.map_or(0, |metadata| metadata.len());
        let mut request = self.http.get(url);
        if have > 0 {
            request = request.header(RANGE, format!("bytes={have}-"));
        }
        let mut response = self.in_time(request.send()).await??;
        let (mut file, mut written) = match response.status() {
            StatusCode::PARTIAL_CONTENT if have > 0 => (File::options().append(true).open(part).await?, have),
            StatusCode::OK => (File::create(part).await?, 0),
            // All of it is here already; the hash decides whether it is the right one.
            StatusCode::RANGE_NOT_SATISFIABLE if have > 0 => return Ok(()),
            StatusCode::NOT_FOUND => return Err(Miss::NotThere),
            status => return Err(Miss::Status(status)),
        };
        while let Some(chunk) = self.in_time(response.chunk()).await?? {
            written = written.saturating_add(u64::try_from(chunk.len()).unwrap_or(u64::MAX));
            if written > limit {
                drop(file);
                tokio::fs::remove_file(part).await?;
                return Err(Miss::TooLong { limit });
            }
            self.metrics
                .blob_fetched_bytes(u64::try_from(chunk.len()).unwrap_or(u64::MAX));
            file.write_all(&chunk).await?;
            at(Point::BlobPartial)?;
        }
        file.flush().await?;
        Ok(())
    }

    async fn in_time<F: std::future::Future>(&self, future: F) -> Result<F::Output, Miss> {
        let seconds = self.timeout.as_secs();
        tokio::time::timeout(self.timeout, future)
            .await
            .map_err(|_| Miss::Stalled { seconds })
    }
}

/// Copies a blob out of a bundle folder or a folder of blobs.
fn copy(folder: &Path, digest: Digest, limit: u64, part: &Path) -> Result<(), Miss> {
    let name = digest.to_string();
    let candidates: [PathBuf; 2] = [folder.join("blobs").join(&name), folder.join(&name)];
    let found = candidates.into_iter().find(|path| path.is_file());
    let manifest = || Some(folder.join(MANIFEST)).filter(|path| is_manifest(path, digest));
    let path = found.or_else(manifest).ok_or(Miss::NotThere)?;
    if fs::metadata(&path)?.len() > limit {
        return Err(Miss::TooLong { limit });
    }
    fs::copy(path, part)?;
    Ok(())
}

/// Whether the file is small enough for a manifest and has this digest.
fn is_manifest(path: &Path, digest: Digest) -> bool {
    let mut content = Vec::new();
    let read =
        fs::File::open(path).and_then(|file| file.take(crate::model::MANIFEST_BYTES_MAX).read_to_end(&mut content));
    read.is_ok() && Digest::of(&content) == digest
}
