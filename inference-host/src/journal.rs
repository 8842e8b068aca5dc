//! What must survive `kill -9`: receipts, acknowledgements and rows, one folder per piece of work.
//!
//! Guarantees: a file is the old or the new one, never half of it, and it is the new one once a write has returned, power cuts included
//! (`disk`); a record that does not have its own digest, and rows that cannot be decoded, are moved aside and reported, never used and never
//! deleted unseen; what a killed process had not finished is removed at the next start, because nobody was promised anything about it.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use schema::Digest;

use crate::{
    aside::{Aside, Kind, Room},
    disk::{self, Moments},
    faults::{at, pass, Point},
    rows::{decode_rows, encode_rows, RowsFormatError},
    work::{Record, WorkKey},
};

/// Corrupt pieces kept for the operator to look at.
const ROOM: Room = Room {
    files: 32,
    bytes: 1 << 30,
};
/// Folder of the corrupt pieces.
const ASIDE: &str = "corrupt";
const RECORD: &str = "record";
const RECORD_MOMENTS: Moments = Moments {
    before: Point::RecordBefore,
    written: Point::RecordWritten,
    renamed: Point::RecordRenamed,
    kept: Point::RecordKept,
};
/// Written to see whether the disk takes anything.
const PROBE: &str = ".fxn-host-probe";
const PROBE_BYTES: usize = 64 << 10;

/// The two files of rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RowFile {
    /// What was acknowledged.
    Input,
    /// What was computed.
    Output,
}

impl RowFile {
    pub(crate) const BOTH: [Self; 2] = [Self::Input, Self::Output];

    fn name(self) -> &'static str {
        match self {
            Self::Input => "input",
            Self::Output => "output",
        }
    }

    fn moments(self) -> Moments {
        match self {
            Self::Input => Moments {
                before: Point::InputBefore,
                written: Point::InputWritten,
                renamed: Point::InputRenamed,
                kept: Point::InputKept,
            },
            Self::Output => Moments {
                before: Point::OutputBefore,
                written: Point::OutputWritten,
                renamed: Point::OutputRenamed,
                kept: Point::OutputKept,
            },
        }
    }
}

/// Why something could not be kept or read back.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    #[error("the disk of {path} is full: {source}", path = path.display())]
    Full { path: PathBuf, source: io::Error },
    #[error("failed to access {path}: {source}", path = path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("{path} is corrupt: {reason}", path = path.display())]
    Corrupt { path: PathBuf, reason: String },
    #[error("the writer stopped")]
    Stopped,
}

/// What was found when the folder was opened.
#[derive(Debug, Default)]
pub(crate) struct Found {
    pub(crate) records: Vec<Record>,
    /// Remains of a killed process, removed.
    pub(crate) leftovers: u64,
}

/// The folder of all work.
#[derive(Debug, Clone)]
pub(crate) struct Journal {
    folder: PathBuf,
    aside: Aside,
}

impl Journal {
    /// Opens the folder, or makes it.
    pub(crate) fn open(folder: PathBuf, aside: Aside) -> Result<Self, JournalError> {
        let make = || -> io::Result<()> {
            disk::make_folder(&folder)?;
            folder.parent().map_or(Ok(()), disk::sync_folder)
        };
        make().map_err(|source| file_error(&folder, source))?;
        Ok(Self { folder, aside })
    }

    /// All records that are sound. Those that are not are moved aside.
    pub(crate) fn read_all(&self) -> Result<Found, JournalError> {
        let mut found = Found {
            leftovers: disk::sweep(&self.folder),
            ..Found::default()
        };
        let entries = fs::read_dir(&self.folder).map_err(|source| file_error(&self.folder, source))?;
        for entry in entries.flatten() {
            let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
            if name == ASIDE {
                continue;
            }
            found.leftovers = found.leftovers.saturating_add(disk::sweep(&path));
            if is_unfinished(&path) {
                tracing::info!(path = %path.display(), "an unfinished write of a killed host is removed");
                found.leftovers = found.leftovers.saturating_add(1);
                let _ = fs::remove_dir_all(&path);
                continue;
            }
            let reason = match read_record(&path) {
                Ok(record) if record.key().to_string() == name => {
                    found.leftovers = found.leftovers.saturating_add(self.tidy(&record));
                    found.records.push(record);
                    continue;
                }
                Ok(record) => format!("it holds the record of {}", record.key()),
                Err(error) => error.to_string(),
            };
            self.set_aside(Kind::Record, &path, &reason);
        }
        Ok(found)
    }

    /// Removes rows that the record does not speak of, and says how many files there were.
    fn tidy(&self, record: &Record) -> u64 {
        let superfluous = RowFile::BOTH.into_iter().filter(|file| !record.keeps(*file));
        let there = superfluous.filter(|file| self.path(record.key(), *file).exists());
        there.fold(0, |count: u64, file| {
            self.remove_rows(record.key(), file);
            count.saturating_add(1)
        })
    }

    /// Keeps a record.
    pub(crate) fn write(&self, record: &Record) -> Result<(), JournalError> {
        let folder = self.folder.join(record.key().to_string());
        let body = serde_json::to_vec(record).map_err(|error| JournalError::Corrupt {
            path: folder.clone(),
            reason: error.to_string(),
        })?;
        let mut bytes = format!("{}\n", Digest::of(&body)).into_bytes();
        bytes.extend(body);
        self.replace(record.key(), RECORD, &bytes, RECORD_MOMENTS)
    }

    /// Keeps rows.
    pub(crate) fn write_rows<T: AsRef<[u8]>>(
        &self,
        key: WorkKey,
        file: RowFile,
        rows: &[T],
    ) -> Result<(), JournalError> {
        self.replace(key, file.name(), &encode_rows(rows), file.moments())
    }

    fn replace(&self, key: WorkKey, name: &str, bytes: &[u8], moments: Moments) -> Result<(), JournalError> {
        let folder = self.folder.join(key.to_string());
        let write = || -> io::Result<()> {
            // Until there is a record nobody knows whether an earlier write got as far as to make the folder's own name safe.
            let young = !folder.join(RECORD).exists();
            disk::make_folder(&folder)?;
            if young {
                disk::sync_folder(&self.folder)?;
            }
            disk::replace(&folder, name, bytes, moments)
        };
        write().map_err(|source| file_error(&folder.join(name), source))
    }

    /// Rows that were kept. Whether they are the right ones is for the caller to check against their digest.
    pub(crate) fn read_rows(&self, key: WorkKey, file: RowFile) -> Result<Vec<Vec<u8>>, JournalError> {
        let path = self.path(key, file);
        let corrupt = |reason: String| JournalError::Corrupt {
            path: path.clone(),
            reason,
        };
        let bytes = fs::read(&path).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => corrupt("it is gone".to_owned()),
            _ => file_error(&path, source),
        })?;
        decode_rows(&bytes).map_err(|error: RowsFormatError| corrupt(error.to_string()))
    }

    /// Bytes of both files of rows.
    pub(crate) fn row_bytes(&self, key: WorkKey) -> u64 {
        let bytes = |file| fs::metadata(self.path(key, file)).map_or(0, |metadata| metadata.len());
        RowFile::BOTH.into_iter().map(bytes).fold(0, u64::saturating_add)
    }

    /// Forgets rows that nobody needs any more.
    pub(crate) fn remove_rows(&self, key: WorkKey, file: RowFile) {
        disk::remove(&self.path(key, file));
    }

    /// Moves rows aside that are not what their digest says.
    pub(crate) fn set_rows_aside(&self, key: WorkKey, file: RowFile, reason: &str) {
        let path = self.path(key, file);
        if path.exists() {
            self.set_aside(Kind::Rows, &path, reason);
        }
    }

    /// Forgets a piece of work.
    pub(crate) fn remove(&self, key: WorkKey) {
        pass(Point::PruneBegun);
        let folder = self.folder.join(key.to_string());
        // The record goes last, so that a crash in between leaves nothing without one.
        RowFile::BOTH.into_iter().for_each(|file| self.remove_rows(key, file));
        pass(Point::PruneRowsGone);
        disk::remove(&folder.join(RECORD));
        let _ = fs::remove_dir_all(folder);
    }

    /// Whether the disk takes anything.
    pub(crate) fn probe(&self) -> Result<(), JournalError> {
        let path = self.folder.join(PROBE);
        let probe = || -> io::Result<()> {
            let moments = RowFile::BOTH.map(RowFile::moments).into_iter().chain([RECORD_MOMENTS]);
            for Moments {
                before,
                written,
                renamed,
                kept,
            } in moments
            {
                [before, written, renamed, kept].into_iter().try_for_each(at)?;
            }
            let mut file = fs::File::create(&path)?;
            io::Write::write_all(&mut file, &[0; PROBE_BYTES])?;
            file.sync_all()
        };
        let probed = probe().map_err(|source| file_error(&path, source));
        let _ = fs::remove_file(&path);
        probed
    }

    fn path(&self, key: WorkKey, file: RowFile) -> PathBuf {
        self.folder.join(key.to_string()).join(file.name())
    }

    fn set_aside(&self, kind: Kind, path: &Path, reason: &str) {
        self.aside.set_aside(kind, path, reason, &self.folder.join(ASIDE), ROOM);
    }
}

/// Whether a folder is what a process leaves that is killed before the first record of a piece of work: rows at most.
fn is_unfinished(folder: &Path) -> bool {
    let Ok(entries) = fs::read_dir(folder) else {
        return false;
    };
    let rows = RowFile::BOTH.map(RowFile::name);
    let mut names = entries
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.all(|name| rows.contains(&name.as_str()))
}

fn read_record(folder: &Path) -> Result<Record, JournalError> {
    let path = folder.join(RECORD);
    let bytes = fs::read(&path).map_err(|source| file_error(&path, source))?;
    decode_record(&bytes).map_err(|reason| JournalError::Corrupt { path, reason })
}

/// Reads a record: the sha256 of the body in hex, a line feed, the body. Anything else is told by the reason.
pub(crate) fn decode_record(bytes: &[u8]) -> Result<Record, String> {
    let newline = bytes.iter().position(|byte| *byte == b'\n');
    let (head, body) = bytes.split_at(newline.unwrap_or(0));
    let body = body.get(1..).unwrap_or_default();
    let found = Digest::of(body).to_string();
    if head != found.as_bytes() {
        let stated = String::from_utf8_lossy(head.get(..64).unwrap_or(head)).into_owned();
        return Err(format!("its digest is {found}, it says {stated:?}"));
    }
    serde_json::from_slice(body).map_err(|error| error.to_string())
}

fn file_error(path: &Path, source: io::Error) -> JournalError {
    let path = path.to_owned();
    match disk::is_full(&source) {
        true => JournalError::Full { path, source },
        false => JournalError::File { path, source },
    }
}

#[cfg(test)]
mod power_cut;
#[cfg(test)]
mod rot;
