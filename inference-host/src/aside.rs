//! Files that are not what they should be: kept where the operator can look at them, never used, never silently replaced.
//!
//! Guarantees: each is reported three times (log, `/status`, `/metrics`); the folders of kept files and the list are bounded, and the oldest give
//! way.

use std::{
    collections::VecDeque,
    fs,
    path::{Path, PathBuf},
    sync::{
        atomic::{AtomicU64, Ordering},
        Arc, Mutex, PoisonError,
    },
    time::SystemTime,
};

use serde::Serialize;

/// Reports that `/status` shows.
const REPORTS_MAX: usize = 32;

/// What a file was to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    /// A piece of work: its record and its rows.
    Record,
    /// Rows of a piece of work.
    Rows,
    /// A verified blob that has rotted.
    Blob,
    /// A download that is something else.
    Download,
    /// The log of vouchers.
    Vouchers,
    /// `host.token`.
    Token,
    /// `host.json` of an earlier process.
    Announcement,
}

impl Kind {
    pub(crate) const ALL: [Self; 7] = [
        Self::Record,
        Self::Rows,
        Self::Blob,
        Self::Download,
        Self::Vouchers,
        Self::Token,
        Self::Announcement,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Record => "record",
            Self::Rows => "rows",
            Self::Blob => "blob",
            Self::Download => "download",
            Self::Vouchers => "vouchers",
            Self::Token => "token",
            Self::Announcement => "announcement",
        }
    }
}

/// One file that was moved aside.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Report {
    pub(crate) kind: Kind,
    /// Where it was.
    pub(crate) path: PathBuf,
    pub(crate) reason: String,
    /// Where it is kept, if it could be moved.
    pub(crate) kept_at: Option<PathBuf>,
}

/// What has been set aside since the start. Clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Aside(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    reports: Mutex<VecDeque<Report>>,
    counts: [AtomicU64; Kind::ALL.len()],
}

/// How much may be kept in one folder.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Room {
    pub(crate) files: usize,
    pub(crate) bytes: u64,
}

impl Aside {
    /// Moves a file or folder away from where it would be used, into `folder`.
    pub(crate) fn set_aside(&self, kind: Kind, path: &Path, reason: &str, folder: &Path, room: Room) {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let target = folder.join(format!("{name}.{}", since.unwrap_or_default().as_nanos()));
        let moved = fs::create_dir_all(folder).and_then(|()| fs::rename(path, &target));
        if let Err(error) = &moved {
            tracing::error!(path = %path.display(), %error, "a corrupt file could not be moved aside");
            // It must not stay under its name, whatever else fails.
            let _ = match path.is_dir() {
                true => fs::remove_dir_all(path),
                false => fs::remove_file(path),
            };
        }
        keep_newest(folder, room);
        let kept_at = Some(target).filter(|target| target.exists());
        tracing::error!(
            kind = kind.name(), path = %path.display(), kept_at = ?kept_at, reason,
            "a file is not what it should be and was moved aside"
        );
        let count = self.0.counts.get(kind as usize);
        count.map(|count| count.fetch_add(1, Ordering::Relaxed));
        let mut reports = self.0.reports.lock().unwrap_or_else(PoisonError::into_inner);
        reports.truncate(REPORTS_MAX.saturating_sub(1));
        reports.push_front(Report {
            kind,
            path: path.to_owned(),
            reason: reason.to_owned(),
            kept_at,
        });
    }

    /// The newest reports, newest first.
    pub(crate) fn reports(&self) -> Vec<Report> {
        let reports = self.0.reports.lock().unwrap_or_else(PoisonError::into_inner);
        reports.iter().cloned().collect()
    }

    pub(crate) fn count(&self, kind: Kind) -> u64 {
        let count = self.0.counts.get(kind as usize);
        count.map_or(0, |count| count.load(Ordering::Relaxed))
    }
}

/// Removes the oldest entries of a folder until it is within its bounds. Nobody depends on what is kept there, so failures are no errors.
fn keep_newest(folder: &Path, room: Room) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    let facts = |entry: fs::DirEntry| {
        let metadata = entry.metadata().ok();
        let changed = metadata.as_ref().and_then(|metadata| metadata.modified().ok());
        // The name ends with the moment, which decides where the file system's clock is too coarse.
        (changed, entry.path(), metadata.map_or(0, |metadata| metadata.len()))
    };
    let mut entries: Vec<_> = entries.flatten().map(facts).collect();
    entries.sort();
    let mut bytes = 0_u64;
    for (index, (_, path, length)) in entries.iter().rev().enumerate() {
        bytes = bytes.saturating_add(*length);
        if index >= room.files || bytes > room.bytes {
            let _ = match path.is_dir() {
                true => fs::remove_dir_all(path),
                false => fs::remove_file(path),
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_set_aside_is_reported_and_the_oldest_give_way() {
        let home = tempfile::tempdir().unwrap();
        let (aside, folder) = (Aside::default(), home.path().join("corrupt"));
        let room = Room { files: 3, bytes: 100 };
        for content in 0..50_u8 {
            let path = home.path().join("host.token");
            fs::write(&path, [content; 10]).unwrap();
            aside.set_aside(Kind::Token, &path, "it is no token", &folder, room);
            assert!(!path.exists());
        }
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 3);
        assert_eq!(aside.count(Kind::Token), 50);
        let reports = aside.reports();
        assert_eq!(reports.len(), REPORTS_MAX);
        let newest = reports[0].kept_at.as_ref().unwrap();
        assert_eq!(fs::read(newest).unwrap(), [49; 10]);

        let large = home.path().join("blob");
        fs::write(&large, [0; 101]).unwrap();
        aside.set_aside(Kind::Blob, &large, "it has rotted", &folder, room);
        assert!(!large.exists(), "it is not used, though there is no room to keep it");
        assert_eq!(aside.reports()[0].kept_at, None);
    }
}
