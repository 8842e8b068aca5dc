//! How files are changed so that neither a kill nor a power cut leaves half of one.
//!
//! Guarantees: a replaced file is the old or the new one (temporary file, fsync, rename, fsync of the folder), and it is the new one
//! once [`replace`] has returned; what a killed process left behind has a name by which [`sweep`] knows it. Every change of the disk goes
//! through this file, so that a test can replay it and lose whatever was not synced.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::Path,
};

use crate::faults::{at, Point};

/// Names of temporary files begin with this.
const TEMPORARY: &str = ".fxn-host-";

/// Where a test may interrupt the replacement of a file.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moments {
    pub(crate) before: Point,
    pub(crate) written: Point,
    pub(crate) renamed: Point,
    pub(crate) kept: Point,
}

/// The moments of small files of the home: token and announcement.
pub(crate) const STATE: Moments = Moments {
    before: Point::StateBefore,
    written: Point::StateWritten,
    renamed: Point::StateRenamed,
    kept: Point::StateKept,
};

/// Replaces a file as a whole, and does not return before it is on the disk. Only the owner can read it.
pub(crate) fn replace(folder: &Path, name: &str, bytes: &[u8], moments: Moments) -> io::Result<()> {
    at(moments.before)?;
    // Dropped before it got its name, it removes itself.
    let mut temporary = tempfile::Builder::new().prefix(TEMPORARY).tempfile_in(folder)?;
    trace(|| Change::Write(temporary.path().to_owned(), bytes.to_vec()));
    temporary.write_all(bytes)?;
    temporary.as_file().sync_all()?;
    trace(|| Change::SyncFile(temporary.path().to_owned()));
    at(moments.written)?;
    let path = folder.join(name);
    trace(|| Change::Rename(temporary.path().to_owned(), path.clone()));
    temporary.persist(&path).map_err(|error| error.error)?;
    at(moments.renamed)?;
    sync_folder(folder)?;
    at(moments.kept)
}

/// Puts bytes at the end of a file, and does not return before they are on the disk. After an error nobody knows how much of them is.
pub(crate) fn append(file: &mut File, path: &Path, bytes: &[u8], moments: [Point; 3]) -> io::Result<()> {
    let [before, written, kept] = moments;
    at(before)?;
    trace(|| Change::Append(path.to_owned(), bytes.to_vec()));
    file.write_all(bytes)?;
    at(written)?;
    file.sync_data()?;
    trace(|| Change::SyncFile(path.to_owned()));
    at(kept)
}

/// Makes a folder that may be there already.
pub(crate) fn make_folder(folder: &Path) -> io::Result<()> {
    trace(|| Change::MakeFolder(folder.to_owned()));
    fs::create_dir_all(folder)
}

/// Makes the names in a folder survive a power cut.
pub(crate) fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()?;
    trace(|| Change::SyncFolder(folder.to_owned()));
    Ok(())
}

/// Removes a file that nobody needs any more; whether it was there does not matter.
pub(crate) fn remove(path: &Path) {
    trace(|| Change::Remove(path.to_owned()));
    if let Err(error) = fs::remove_file(path) {
        if error.kind() != io::ErrorKind::NotFound {
            tracing::warn!(path = %path.display(), %error, "a file could not be removed");
        }
    }
}

/// Removes temporary files of a process that was killed, and says how many there were.
pub(crate) fn sweep(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let left = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(TEMPORARY));
    left.map(|entry| remove(&entry.path()))
        .fold(0, |count, ()| count.saturating_add(1))
}

/// Whether an error says that there is no room.
pub(crate) fn is_full(error: &io::Error) -> bool {
    use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded | FileTooLarge)
}

/// A change of the disk, as far as a power cut can undo it.
#[cfg_attr(not(test), allow(dead_code, reason = "only tests read them"))]
#[derive(Debug, Clone)]
pub(crate) enum Change {
    MakeFolder(std::path::PathBuf),
    Write(std::path::PathBuf, Vec<u8>),
    #[allow(dead_code, reason = "the test of the log wants to know only that it was done")]
    Append(std::path::PathBuf, Vec<u8>),
    SyncFile(std::path::PathBuf),
    Rename(std::path::PathBuf, std::path::PathBuf),
    SyncFolder(std::path::PathBuf),
    Remove(std::path::PathBuf),
}

#[cfg(not(test))]
fn trace(_: impl FnOnce() -> Change) {}

#[cfg(test)]
fn trace(change: impl FnOnce() -> Change) {
    TRACE.with_borrow_mut(|changes| changes.push(change()));
}

#[cfg(test)]
thread_local! {
    /// Everything that this thread did to the disk.
    pub(crate) static TRACE: std::cell::RefCell<Vec<Change>> = const { std::cell::RefCell::new(Vec::new()) };
}
