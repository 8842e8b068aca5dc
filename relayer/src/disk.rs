//! The few file operations that the relayer's own state is made of, and the two protocols over them: replace, and keep aside.
//!
//! Guarantees, for whatever [`Disk`] keeps its own promises:
//! - [`replace`]: after a crash at any line, power failure included, the file is the old or the new one, never half of it; when it has
//!   returned, it is the new one.
//! - [`keep_aside`]: the bytes are kept under a name that nobody had before, and are never overwritten, whatever the clock says.
//!
//! A process that is killed loses nothing that it wrote; a machine that loses power loses whatever was not synced. Only a disk that is made up
//! can show the second, which is why there is a trait: `tests/it/disk.rs` and `tests/it/power.rs`.

use std::{
    fmt::Debug,
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    path::{Path, PathBuf},
    time::SystemTime,
};

use crate::crash::{self, Point};

/// What a file system promises. Nothing written or renamed survives a power failure before it was synced.
pub trait Disk: Debug + Send + Sync + 'static {
    /// At most the first `limit` bytes of a file.
    fn read(&self, path: &Path, limit: u64) -> io::Result<Vec<u8>>;
    /// Makes a file of these bytes, in place of any that is there.
    fn write(&self, path: &Path, content: &[u8]) -> io::Result<()>;
    /// The file's bytes are safe when this returns.
    fn sync(&self, path: &Path) -> io::Result<()>;
    /// Gives a file another name, in place of any file that has it.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// The folder's names are safe when this returns.
    fn sync_folder(&self, folder: &Path) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Names of the files in a folder.
    fn names(&self, folder: &Path) -> io::Result<Vec<String>>;
}

/// The disk of this machine.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemDisk;

impl Disk for SystemDisk {
    fn read(&self, path: &Path, limit: u64) -> io::Result<Vec<u8>> {
        let mut content = vec![];
        File::open(path)?.take(limit).read_to_end(&mut content)?;
        Ok(content)
    }

    fn write(&self, path: &Path, content: &[u8]) -> io::Result<()> {
        File::create(path)?.write_all(content)
    }

    fn sync(&self, path: &Path) -> io::Result<()> {
        let synced = OpenOptions::new().write(true).open(path)?.sync_all();
        synced.inspect(|()| crash::synced(path))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        let synced = File::open(folder)?.sync_all();
        synced.inspect(|()| crash::synced(folder))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn names(&self, folder: &Path) -> io::Result<Vec<String>> {
        let entries = fs::read_dir(folder)?;
        entries
            .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
            .collect()
    }
}

/// Puts new content in the place of a file. There must be one writer only, so one temporary name is enough and a crash leaves at most
/// one such file.
pub fn replace(disk: &dyn Disk, path: &Path, content: &[u8]) -> io::Result<()> {
    let temporary = beside(path, "tmp");
    let written = write_beside(disk, &temporary, path, content);
    if written.is_err() {
        // On a full disk half a file would keep the room that the next try needs.
        let _ = disk.remove(&temporary);
    }
    written
}

fn write_beside(disk: &dyn Disk, temporary: &Path, path: &Path, content: &[u8]) -> io::Result<()> {
    crash::pass(Point::FileUntouched);
    disk.write(temporary, content)?;
    crash::pass(Point::FileWritten);
    disk.sync(temporary)?;
    crash::pass(Point::FileSynced);
    disk.rename(temporary, path)?;
    crash::pass(Point::FileRenamed);
    // The new name itself is safe only when the folder is.
    disk.sync_folder(folder(path))?;
    crash::pass(Point::FileSafe);
    Ok(())
}

/// Gives a file a name under which nothing will touch it any more, and tells the name.
pub fn keep_aside(disk: &dyn Disk, path: &Path) -> io::Result<PathBuf> {
    let since_1970 = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    let names = disk.names(folder(path))?;
    let is_taken = |candidate: &PathBuf| names.iter().any(|name| candidate.ends_with(name));
    // A clock that was set back must not lead to a name that is in use.
    let candidates = (since_1970.as_secs()..).map(|number| beside(path, &format!("damaged-{number}")));
    let aside = candidates
        .take(names.len().saturating_add(1))
        .find(|candidate| !is_taken(candidate));
    let aside = aside.ok_or(io::Error::from(io::ErrorKind::AlreadyExists))?;
    disk.rename(path, &aside)?;
    crash::pass(Point::DamagedRenamed);
    disk.sync_folder(folder(path))?;
    Ok(aside)
}

/// Every file in a folder that [`keep_aside`] has left there.
pub fn kept_aside(disk: &dyn Disk, folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut names = disk.names(folder)?;
    names.retain(|name| name.contains(".damaged-"));
    names.sort();
    Ok(names.into_iter().map(|name| folder.join(name)).collect())
}

/// Whether an error means that there is no room, which somebody may make.
pub fn is_full(error: &io::Error) -> bool {
    use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded | FileTooLarge)
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{ending}"));
    path.with_file_name(name)
}

fn folder(path: &Path) -> &Path {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    folder.unwrap_or(Path::new("."))
}
