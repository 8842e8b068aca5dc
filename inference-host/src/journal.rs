//! What must survive `kill -9`: receipts, acknowledgements and rows, one folder per piece of work.
//!
//! Guarantees: a file is the old or the new one, never half of it (temporary file, fsync, rename, fsync of the folder); a record that does
//! not have its own digest, and rows that cannot be decoded, are moved aside and reported, never used and never deleted unseen.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
    time::SystemTime,
};

use schema::Digest;

use crate::{
    blobs::keep_newest,
    rows::{decode_rows, encode_rows, RowsFormatError},
    work::{Record, WorkKey},
};

/// Corrupt pieces kept for the operator to look at. The oldest give way.
const ASIDE_MAX: usize = 32;
/// Folder of the corrupt pieces.
const ASIDE: &str = "corrupt";
const RECORD: &str = "record";

/// The two files of rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RowFile {
    /// What was acknowledged.
    Input,
    /// What was computed.
    Output,
}

impl RowFile {
    fn name(self) -> &'static str {
        match self {
            Self::Input => "input",
            Self::Output => "output",
        }
    }
}

/// Why something could not be kept or read back.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    #[error("failed to access {path}: {source}", path = path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("{path} is corrupt: {reason}", path = path.display())]
    Corrupt { path: PathBuf, reason: String },
    #[error("the writer stopped")]
    Stopped,
}

/// The folder of all work.
#[derive(Debug, Clone)]
pub(crate) struct Journal {
    folder: PathBuf,
}

impl Journal {
    /// Opens the folder, or makes it.
    pub(crate) fn open(folder: PathBuf) -> Result<Self, JournalError> {
        fs::create_dir_all(folder.join(ASIDE)).map_err(|source| file_error(&folder, source))?;
        Ok(Self { folder })
    }

    /// All records that are sound, and a sentence for each that is not: those are moved aside.
    pub(crate) fn read_all(&self) -> Result<(Vec<Record>, Vec<String>), JournalError> {
        let (mut records, mut corrupt) = (Vec::new(), Vec::new());
        let entries = fs::read_dir(&self.folder).map_err(|source| file_error(&self.folder, source))?;
        for entry in entries.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name == ASIDE {
                continue;
            }
            match read_record(&entry.path()) {
                Ok(record) if record.key().to_string() == name => records.push(record),
                Ok(record) => corrupt.push(format!("{name} holds the record of {}", record.key())),
                Err(error) => corrupt.push(error.to_string()),
            }
            if records.last().map(|record| record.key().to_string()).as_deref() != Some(name.as_str()) {
                self.set_aside(&entry.path());
            }
        }
        Ok((records, corrupt))
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
        replace(&folder, RECORD, &bytes)
    }

    /// Keeps rows.
    pub(crate) fn write_rows<T: AsRef<[u8]>>(
        &self,
        key: WorkKey,
        file: RowFile,
        rows: &[T],
    ) -> Result<(), JournalError> {
        replace(&self.folder.join(key.to_string()), file.name(), &encode_rows(rows))
    }

    /// Rows that were kept. Whether they are the right ones is for the caller to check against their digest.
    pub(crate) fn read_rows(&self, key: WorkKey, file: RowFile) -> Result<Vec<Vec<u8>>, JournalError> {
        let path = self.folder.join(key.to_string()).join(file.name());
        let bytes = fs::read(&path).map_err(|source| file_error(&path, source))?;
        decode_rows(&bytes).map_err(|error: RowsFormatError| JournalError::Corrupt {
            path,
            reason: error.to_string(),
        })
    }

    /// Bytes of a file of rows, 0 if there is none.
    pub(crate) fn row_bytes(&self, key: WorkKey, file: RowFile) -> u64 {
        let path = self.folder.join(key.to_string()).join(file.name());
        fs::metadata(path).map_or(0, |metadata| metadata.len())
    }

    /// Forgets rows that nobody needs any more.
    pub(crate) fn remove_rows(&self, key: WorkKey, file: RowFile) {
        let _ = fs::remove_file(self.folder.join(key.to_string()).join(file.name()));
    }

    /// Moves rows aside that are not what their digest says.
    pub(crate) fn set_rows_aside(&self, key: WorkKey, file: RowFile) {
        self.set_aside(&self.folder.join(key.to_string()).join(file.name()));
    }

    /// Forgets a piece of work.
    pub(crate) fn remove(&self, key: WorkKey) {
        let folder = self.folder.join(key.to_string());
        // The record goes last, so that a crash in between leaves nothing without one.
        self.remove_rows(key, RowFile::Input);
        self.remove_rows(key, RowFile::Output);
        let _ = fs::remove_dir_all(folder);
    }

    fn set_aside(&self, path: &Path) {
        let relative = path.strip_prefix(&self.folder).unwrap_or(path);
        let name = relative.to_string_lossy().replace('/', "-");
        let now = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        let aside = self.folder.join(ASIDE);
        let target = aside.join(format!("{name}.{}", now.as_nanos()));
        if let Err(error) = fs::rename(path, &target) {
            tracing::error!(path = %path.display(), %error, "a corrupt piece of work could not be moved aside");
        }
        keep_newest(&aside, ASIDE_MAX);
    }
}

fn read_record(folder: &Path) -> Result<Record, JournalError> {
    let path = folder.join(RECORD);
    let bytes = fs::read(&path).map_err(|source| file_error(&path, source))?;
    let corrupt = |reason: String| JournalError::Corrupt {
        path: path.clone(),
        reason,
    };
    let newline = bytes.iter().position(|byte| *byte == b'\n');
    let (head, body) = bytes.split_at(newline.unwrap_or(0));
    let body = body.get(1..).unwrap_or_default();
    let found = Digest::of(body).to_string();
    if head != found.as_bytes() {
        let stated = String::from_utf8_lossy(head.get(..64).unwrap_or(head)).into_owned();
        return Err(corrupt(format!("its digest is {found}, it says {stated:?}")));
    }
    serde_json::from_slice(body).map_err(|error| corrupt(error.to_string()))
}

/// Replaces a file as a whole, and does not return before it is on the disk.
fn replace(folder: &Path, name: &str, bytes: &[u8]) -> Result<(), JournalError> {
    let path = folder.join(name);
    let write = || -> io::Result<()> {
        let new = !folder.exists();
        fs::create_dir_all(folder)?;
        let mut temporary = tempfile::NamedTempFile::new_in(folder)?;
        temporary.write_all(bytes)?;
        temporary.as_file().sync_all()?;
        temporary.persist(&path).map_err(|error| error.error)?;
        File::open(folder)?.sync_all()?;
        match folder.parent().filter(|_| new) {
            Some(parent) => File::open(parent)?.sync_all(),
            None => Ok(()),
        }
    };
    write().map_err(|source| file_error(&path, source))
}

fn file_error(path: &Path, source: io::Error) -> JournalError {
    JournalError::File {
        path: path.to_owned(),
        source,
    }
}
