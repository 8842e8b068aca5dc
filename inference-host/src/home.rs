//! The folder of a host: whose it is, the token of the work interface, and the file that says where the host listens.
//!
//! Guarantees: one process at a time works in a folder; the token can be read by the owner of the folder only; a token or an announcement that is
//! not what it should be is kept aside and reported before a new one is written.

use std::{
    fs::{self, File, TryLockError},
    io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use anyhow::{bail, Context, Result};
use rand::RngCore;
use schema::work::HostFile;

use crate::{
    aside::{Aside, Kind, Room},
    disk::{self, STATE},
};

const TOKEN_FILE: &str = "host.token";
const HOST_FILE: &str = "host.json";
const LOCK_FILE: &str = "host.lock";
/// The host's files are smaller than this.
const FILE_BYTES_MAX: u64 = 16 << 10;
const ROOM: Room = Room {
    files: 8,
    bytes: 1 << 20,
};

/// The claim to a folder, as long as this value lives.
#[derive(Debug)]
pub(crate) struct Home {
    path: PathBuf,
    aside: Aside,
    // The system lets go of it when the process ends, however it ends.
    _lock: File,
}

impl Home {
    /// Makes the folder where it is missing, and claims it.
    pub(crate) fn claim(path: &Path, aside: Aside) -> Result<Self> {
        fs::create_dir_all(path).with_context(|| format!("failed to make {}", path.display()))?;
        let lock_path = path.join(LOCK_FILE);
        let lock = File::options().create(true).append(true).open(&lock_path);
        let lock = lock.with_context(|| format!("failed to open {}", lock_path.display()))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let other = read(&path.join(HOST_FILE))
                    .ok()
                    .and_then(|bytes| announced(&bytes).ok());
                let other = other.map_or_else(String::new, |other| format!(" (process {})", other.pid));
                bail!(
                    "another host{other} works in {}: stop it, or give this one a home of its own",
                    path.display()
                );
            }
            Err(TryLockError::Error(error)) => {
                return Err(error).with_context(|| format!("failed to lock {}", lock_path.display()));
            }
        }
        disk::sweep(path);
        let home = Self {
            path: path.to_owned(),
            aside,
            _lock: lock,
        };
        home.check_announcement()?;
        Ok(home)
    }

    /// What an earlier process has left says nothing of value, but when it is no announcement somebody should know.
    fn check_announcement(&self) -> Result<()> {
        let path = self.path.join(HOST_FILE);
        match read(&path) {
            Ok(bytes) => {
                if let Err(reason) = announced(&bytes) {
                    self.set_aside(Kind::Announcement, &path, &reason);
                }
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error).with_context(|| format!("failed to read {}", path.display())),
        }
    }

    /// The token of the work interface: the one in the folder, or a new one that only the owner can read.
    pub(crate) fn token(&self) -> io::Result<String> {
        let path = self.path.join(TOKEN_FILE);
        match read(&path) {
            Ok(bytes) => match parse_token(&bytes) {
                Ok(token) if is_private(&path)? => return Ok(token),
                Ok(_) => self.set_aside(Kind::Token, &path, "others than its owner may read it"),
                Err(reason) => self.set_aside(Kind::Token, &path, &reason),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let mut bytes = [0; 32];
        rand::rngs::OsRng.fill_bytes(&mut bytes);
        let token = hex::encode(bytes);
        disk::replace(&self.path, TOKEN_FILE, token.as_bytes(), STATE)?;
        Ok(token)
    }

    /// Tells others of the same home where this host listens.
    pub(crate) fn announce(&self, file: &HostFile) -> io::Result<Announced> {
        let bytes = serde_json::to_vec_pretty(file)?;
        disk::replace(&self.path, HOST_FILE, &bytes, STATE)?;
        Ok(Announced {
            path: self.path.join(HOST_FILE),
        })
    }

    fn set_aside(&self, kind: Kind, path: &Path, reason: &str) {
        self.aside
            .set_aside(kind, path, reason, &self.path.join("corrupt"), ROOM);
    }
}

/// An announcement. The file goes when this value does.
#[derive(Debug)]
pub(crate) struct Announced {
    path: PathBuf,
}

impl Drop for Announced {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// A small file, or as much of a large one as shows that it is none of ours.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let file = io::Read::take(File::open(path)?, FILE_BYTES_MAX);
    io::Read::read_to_end(&mut { file }, &mut bytes)?;
    Ok(bytes)
}

fn is_private(path: &Path) -> io::Result<bool> {
    Ok(fs::metadata(path)?.permissions().mode() & 0o077 == 0)
}

/// The token that a file holds, without saying any of it in a reason.
pub(crate) fn parse_token(bytes: &[u8]) -> Result<String, String> {
    let found = bytes.len();
    let text = std::str::from_utf8(bytes).map_err(|_| format!("its {found} bytes are no text"))?;
    let token = text.trim();
    let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    match token.len() == 64 && token.bytes().all(is_digit) {
        true => Ok(token.to_owned()),
        false => Err(format!("its {found} bytes are not 64 hexadecimal digits")),
    }
}

/// Reads an announcement.
pub(crate) fn announced(bytes: &[u8]) -> Result<HostFile, String> {
    serde_json::from_slice(bytes).map_err(|error| format!("it is no announcement of a host: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file() -> HostFile {
        HostFile {
            pid: 7,
            listen: "127.0.0.1:1".to_owned(),
            status: "127.0.0.1:2".to_owned(),
            provider: "wasm1".to_owned(),
            started_at: 5,
        }
    }

    #[test]
    fn a_token_that_is_cut_or_changed_anywhere_is_kept_aside_and_reported() {
        let folder = tempfile::tempdir().unwrap();
        let token = Home::claim(folder.path(), Aside::default()).unwrap().token().unwrap();
        let path = folder.path().join(TOKEN_FILE);
        let cut = (0..64).map(|length| token.as_bytes()[..length].to_vec());
        let changed = (0..64).map(|at| {
            let mut bytes = token.clone().into_bytes();
            bytes[at] ^= 0x80;
            bytes
        });
        for bytes in cut.chain(changed) {
            fs::write(&path, &bytes).unwrap();
            let aside = Aside::default();
            let other = Home::claim(folder.path(), aside.clone()).unwrap().token().unwrap();
            assert_ne!(other, token);
            assert_eq!(aside.count(Kind::Token), 1);
            let report = aside.reports().remove(0);
            assert_eq!(fs::read(report.kept_at.unwrap()).unwrap(), bytes);
            assert!(
                bytes.len() < 8 || !report.reason.contains(&token[..8]),
                "{}",
                report.reason
            );
        }
        let aside = Aside::default();
        let home = Home::claim(folder.path(), aside.clone()).unwrap();
        assert_eq!(home.token().unwrap(), home.token().unwrap());
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        home.token().unwrap();
        assert!(is_private(&path).unwrap());
        assert_eq!(aside.reports()[0].reason, "others than its owner may read it");
    }

    #[test]
    fn a_cut_announcement_is_kept_aside_and_a_whole_one_of_a_killed_host_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let whole = serde_json::to_vec_pretty(&file()).unwrap();
        for length in 0..whole.len() {
            fs::write(folder.path().join(HOST_FILE), &whole[..length]).unwrap();
            let aside = Aside::default();
            let home = Home::claim(folder.path(), aside.clone()).unwrap();
            assert_eq!(aside.count(Kind::Announcement), 1, "{length}");
            drop(home.announce(&file()).unwrap());
            assert!(!folder.path().join(HOST_FILE).exists());
        }
        fs::write(folder.path().join(HOST_FILE), &whole).unwrap();
        let aside = Aside::default();
        Home::claim(folder.path(), aside.clone()).unwrap();
        assert_eq!(aside.count(Kind::Announcement), 0);
    }

    #[test]
    fn two_hosts_do_not_work_in_one_folder() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::claim(folder.path(), Aside::default()).unwrap();
        let _announced = home.announce(&file()).unwrap();
        let error = Home::claim(folder.path(), Aside::default()).unwrap_err().to_string();
        assert!(error.starts_with("another host (process 7) works in "), "{error}");
        drop(home);
        Home::claim(folder.path(), Aside::default()).unwrap();
    }
}
