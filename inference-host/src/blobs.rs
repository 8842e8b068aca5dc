//! Weights, graphs and manifests on disk, named by their sha256.
//!
//! Guarantees: a blob is hashed when it comes in and again every time it is loaded; one that is not what its name says is moved aside,
//! reported and never used; the folder stays within its bound by forgetting what was used least recently, but never what is in use. It does not guard
//! against somebody who writes into the folder between the check and the load: the folder belongs to the operator.

use std::{
    collections::HashMap,
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use schema::Digest;
use sha2::{Digest as _, Sha256};

use crate::{
    aside::{Aside, Kind, Room},
    disk,
    faults::{at, pass, Point},
};

/// Blobs that were not what they said, kept for the operator to look at.
const ROOM: Room = Room {
    files: 4,
    bytes: 1 << 30,
};
/// How the name of an unfinished download ends.
const PART: &str = "part";
/// Unfinished downloads kept for going on with them.
const PARTS_MAX: usize = 8;

/// Why a blob cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BlobError {
    #[error("blob {digest} is not in the store")]
    Missing { digest: Digest },
    #[error("blob {digest} has sha256 {found}: it was moved aside and is not used")]
    Corrupt { digest: Digest, found: Digest },
    #[error("blob {digest} needs {bytes} bytes; the store may hold {bytes_max}, of which {in_use} are in use")]
    NoRoom {
        digest: Digest,
        bytes: u64,
        bytes_max: u64,
        in_use: u64,
    },
    #[error("failed to access blob {digest}: {source}")]
    File { digest: Digest, source: io::Error },
}

/// The folder of blobs.
#[derive(Debug)]
pub(crate) struct Blobs {
    folder: PathBuf,
    bytes_max: u64,
    held: Mutex<Held>,
    aside: Aside,
}

#[derive(Debug, Default)]
struct Held {
    blobs: HashMap<Digest, Blob>,
    /// Rises with every use.
    clock: u64,
}

#[derive(Debug)]
struct Blob {
    bytes: u64,
    used: u64,
    pins: usize,
}

/// A verified blob that stays as long as this value lives.
#[derive(Debug)]
pub(crate) struct Pinned {
    blobs: Arc<Blobs>,
    digest: Digest,
}

impl Pinned {
    pub(crate) fn path(&self) -> PathBuf {
        self.blobs.path(self.digest)
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        if let Some(blob) = self.blobs.lock().blobs.get_mut(&self.digest) {
            blob.pins = blob.pins.saturating_sub(1);
        }
    }
}

impl Blobs {
    /// Opens the folder, or makes it. What it holds counts as used in the order of its last changes.
    pub(crate) fn open(folder: PathBuf, bytes_max: u64, aside: Aside) -> io::Result<Arc<Self>> {
        fs::create_dir_all(&folder)?;
        let (mut found, mut parts) = (Vec::new(), Vec::new());
        for entry in fs::read_dir(&folder)? {
            let entry = entry?;
            let digest = entry.file_name().to_str().and_then(|name| name.parse::<Digest>().ok());
            let Ok(metadata) = entry.metadata() else { continue };
            let changed = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
            match digest {
                Some(digest) => found.push((changed, digest, metadata.len())),
                None if entry.path().extension().is_some_and(|extension| extension == PART) => {
                    parts.push((changed, entry.path()));
                }
                None => {}
            }
        }
        parts.sort();
        for (_, path) in parts.iter().rev().skip(PARTS_MAX) {
            disk::remove(path);
        }
        found.sort();
        let mut held = Held::default();
        for (_, digest, bytes) in found {
            held.insert(digest, bytes, 0);
        }
        Ok(Arc::new(Self {
            folder,
            bytes_max,
            held: Mutex::new(held),
            aside,
        }))
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Where a blob lies, if it is there. Graphs name their weights by digest, beside them.
    pub(crate) fn path(&self, digest: Digest) -> PathBuf {
        self.folder.join(digest.to_string())
    }

    /// Where an unfinished download of a blob lies.
    pub(crate) fn part(&self, digest: Digest) -> PathBuf {
        self.folder.join(format!("{digest}.{PART}"))
    }

    /// Bytes of a blob that is held, which counts as a use.
    pub(crate) fn find(&self, digest: Digest) -> Option<u64> {
        let mut held = self.lock();
        let now = held.tick();
        let blob = held.blobs.get_mut(&digest)?;
        blob.used = now;
        Some(blob.bytes)
    }

    /// Bytes of all blobs together.
    pub(crate) fn bytes(&self) -> u64 {
        self.lock().bytes()
    }

    /// Hashes a held blob and keeps it from being forgotten. Reads the whole file: not for an async thread.
    pub(crate) fn verify(self: &Arc<Self>, digest: Digest) -> Result<Pinned, BlobError> {
        // Pinned first, so that it cannot give way while it is read.
        let pinned = self.pin(digest).ok_or(BlobError::Missing { digest })?;
        let path = self.path(digest);
        match hash(&path) {
            Ok(found) if found == digest => Ok(pinned),
            Ok(found) => {
                self.lock().blobs.remove(&digest);
                self.set_aside(Kind::Blob, &path, found);
                Err(BlobError::Corrupt { digest, found })
            }
            // Somebody has cleaned up behind our back.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.lock().blobs.remove(&digest);
                Err(BlobError::Missing { digest })
            }
            Err(source) => Err(BlobError::File { digest, source }),
        }
    }

    /// Takes a complete file in under its digest, if it is what the digest says; otherwise it is moved aside.
    /// Reads the whole file: not for an async thread.
    pub(crate) fn take(self: &Arc<Self>, digest: Digest, file: &Path) -> Result<Pinned, BlobError> {
        let failed = |source| BlobError::File { digest, source };
        let found = hash(file).map_err(failed)?;
        if found != digest {
            self.set_aside(Kind::Download, file, found);
            return Err(BlobError::Corrupt { digest, found });
        }
        let bytes = fs::metadata(file).map_err(failed)?.len();
        self.make_room(digest, bytes)?;
        File::open(file).and_then(|file| file.sync_all()).map_err(failed)?;
        at(Point::BlobComplete).map_err(failed)?;
        fs::rename(file, self.path(digest)).map_err(failed)?;
        pass(Point::BlobRenamed);
        self.lock().insert(digest, bytes, 1);
        Ok(Pinned {
            blobs: Arc::clone(self),
            digest,
        })
    }

    /// Forgets blobs that are not in use, least recently used first, until `bytes` more fit.
    pub(crate) fn make_room(&self, digest: Digest, bytes: u64) -> Result<(), BlobError> {
        let mut held = self.lock();
        held.blobs.remove(&digest);
        while held.bytes().saturating_add(bytes) > self.bytes_max {
            let Some(oldest) = held.oldest() else {
                return Err(BlobError::NoRoom {
                    digest,
                    bytes,
                    bytes_max: self.bytes_max,
                    in_use: held.bytes(),
                });
            };
            held.blobs.remove(&oldest);
            let path = self.path(oldest);
            if let Err(source) = fs::remove_file(path) {
                tracing::warn!(blob = %oldest, %source, "a blob could not be removed");
            }
        }
        Ok(())
    }

    fn pin(self: &Arc<Self>, digest: Digest) -> Option<Pinned> {
        let mut held = self.lock();
        let now = held.tick();
        let blob = held.blobs.get_mut(&digest)?;
        blob.used = now;
        blob.pins = blob.pins.saturating_add(1);
        Some(Pinned {
            blobs: Arc::clone(self),
            digest,
        })
    }

    fn set_aside(&self, kind: Kind, path: &Path, found: Digest) {
        let reason = format!("its sha256 is {found}");
        self.aside
            .set_aside(kind, path, &reason, &self.folder.join("corrupt"), ROOM);
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        // Every change under the lock is complete in itself, so a panic elsewhere leaves nothing half done.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    fn tick(&mut self) -> u64 {
        self.clock = self.clock.saturating_add(1);
        self.clock
    }

    fn insert(&mut self, digest: Digest, bytes: u64, pins: usize) {
        let used = self.tick();
        self.blobs.insert(digest, Blob { bytes, used, pins });
    }

    fn bytes(&self) -> u64 {
        self.blobs.values().fold(0, |sum, blob| sum.saturating_add(blob.bytes))
    }

    fn oldest(&self) -> Option<Digest> {
        let idle = self.blobs.iter().filter(|(_, blob)| blob.pins == 0);
        idle.min_by_key(|(_, blob)| blob.used).map(|(digest, _)| *digest)
    }
}

/// sha256 of a file.
fn hash(path: &Path) -> io::Result<Digest> {
    let mut file = File::open(path)?;
    let mut sha = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(Digest(sha.finalize().into())),
            count => sha.update(buffer.get(..count).unwrap_or_default()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(home: &Path, bytes_max: u64) -> Arc<Blobs> {
        Blobs::open(home.join("blobs"), bytes_max, Aside::default()).unwrap()
    }

    fn store(bytes_max: u64) -> (tempfile::TempDir, Arc<Blobs>) {
        let home = tempfile::tempdir().unwrap();
        let blobs = open(home.path(), bytes_max);
        (home, blobs)
    }

    fn put(blobs: &Arc<Blobs>, content: &[u8]) -> Result<Pinned, BlobError> {
        let digest = Digest::of(content);
        fs::write(blobs.part(digest), content).unwrap();
        blobs.take(digest, &blobs.part(digest))
    }

    #[test]
    fn a_flipped_byte_is_refused_by_its_digest_and_named() {
        let (_home, blobs) = store(1000);
        let digest = Digest::of(b"weights");
        drop(put(&blobs, b"weights").unwrap());
        fs::write(blobs.path(digest), b"weightz").unwrap();
        let error = blobs.verify(digest).unwrap_err();
        assert!(matches!(error, BlobError::Corrupt { found, .. } if found == Digest::of(b"weightz")));
        assert!(error.to_string().contains(&digest.to_string()));
        assert!(matches!(blobs.verify(digest), Err(BlobError::Missing { .. })));
        let kept = blobs.aside.reports().remove(0).kept_at.unwrap();
        assert_eq!(fs::read(kept).unwrap(), b"weightz");
    }

    #[test]
    fn a_download_that_is_something_else_never_gets_its_name() {
        let (_home, blobs) = store(1000);
        let digest = Digest::of(b"weights");
        fs::write(blobs.part(digest), b"malware").unwrap();
        let taken = blobs.take(digest, &blobs.part(digest));
        assert!(matches!(taken, Err(BlobError::Corrupt { .. })));
        assert!(!blobs.path(digest).exists());
    }

    #[test]
    fn the_least_recently_used_gives_way_and_what_is_in_use_never_does() {
        let (_home, blobs) = store(10);
        let first = put(&blobs, b"aaaa").unwrap();
        drop(put(&blobs, b"bbbb").unwrap());
        drop(put(&blobs, b"cccc").unwrap());
        assert!(blobs.find(Digest::of(b"aaaa")).is_some(), "in use");
        assert!(blobs.find(Digest::of(b"bbbb")).is_none(), "used least recently");
        assert!(!blobs.path(Digest::of(b"bbbb")).exists());
        let error = put(&blobs, b"1234567").unwrap_err();
        assert!(
            matches!(
                error,
                BlobError::NoRoom {
                    bytes: 7,
                    bytes_max: 10,
                    in_use: 4,
                    ..
                }
            ),
            "{error}"
        );
        drop(first);
        put(&blobs, b"1234567").unwrap();
        assert_eq!(blobs.bytes(), 7);
    }

    #[test]
    fn a_store_that_is_opened_again_knows_what_it_holds() {
        let (home, blobs) = store(100);
        drop(put(&blobs, b"weights").unwrap());
        let again = open(home.path(), 100);
        assert_eq!(again.find(Digest::of(b"weights")), Some(7));
        again.verify(Digest::of(b"weights")).unwrap();
    }

    #[test]
    fn a_blob_that_rots_again_and_again_fills_no_disk() {
        let (home, blobs) = store(1000);
        let digest = Digest::of(b"weights");
        for round in 0..20_u8 {
            drop(put(&blobs, b"weights").unwrap());
            for length in [3, 7] {
                fs::write(blobs.path(digest), vec![round; length]).unwrap();
            }
            assert!(matches!(blobs.verify(digest), Err(BlobError::Corrupt { .. })));
        }
        assert_eq!(
            fs::read_dir(home.path().join("blobs/corrupt")).unwrap().count(),
            ROOM.files
        );
        assert_eq!(blobs.aside.count(Kind::Blob), 20);
    }

    #[test]
    fn a_blob_that_somebody_removed_is_missing_and_downloads_that_nobody_finished_are_few() {
        let (home, blobs) = store(1000);
        drop(put(&blobs, b"weights").unwrap());
        fs::remove_file(blobs.path(Digest::of(b"weights"))).unwrap();
        assert!(matches!(
            blobs.verify(Digest::of(b"weights")),
            Err(BlobError::Missing { .. })
        ));
        for content in 0..30_u8 {
            fs::write(blobs.part(Digest::of(&[content])), b"half").unwrap();
        }
        open(home.path(), 1000);
        assert_eq!(fs::read_dir(home.path().join("blobs")).unwrap().count(), PARTS_MAX);
    }
}
