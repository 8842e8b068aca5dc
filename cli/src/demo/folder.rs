//! `HOME/demo`: where one demonstration at a time plays, each on a clean floor.

use std::{
    fs::{self, File, TryLockError},
    path::{Path, PathBuf},
};

use anyhow::{bail, Context as _};

use crate::home;

const LOCK: &str = "lock";

#[derive(Debug)]
pub(crate) struct Folder {
    path: PathBuf,
    // Held as long as the demonstration runs.
    _lock: File,
}

impl Folder {
    /// Takes the folder and empties it. An error if another demonstration plays there.
    pub(crate) fn prepare(home: &Path) -> anyhow::Result<Self> {
        let path = home.join("demo");
        home::create_private(&path).with_context(|| format!("failed to create {}", path.display()))?;
        let lock_path = path.join(LOCK);
        let lock = File::create(&lock_path).with_context(|| format!("failed to open {}", lock_path.display()))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                bail!(
                    "another demonstration plays in {}: stop it, or give another --home DIR",
                    path.display()
                )
            }
            Err(TryLockError::Error(error)) => {
                return Err(error).with_context(|| format!("failed to lock {}", lock_path.display()))
            }
        }
        for entry in fs::read_dir(&path).with_context(|| format!("failed to read {}", path.display()))? {
            let entry = entry.with_context(|| format!("failed to read {}", path.display()))?;
            if entry.file_name() != LOCK {
                remove(&entry.path()).with_context(|| format!("failed to remove {}", entry.path().display()))?;
            }
        }
        Ok(Self { path, _lock: lock })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

fn remove(path: &Path) -> std::io::Result<()> {
    if fs::symlink_metadata(path)?.is_dir() {
        fs::remove_dir_all(path)
    } else {
        fs::remove_file(path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_demonstration_is_refused_and_the_next_one_finds_a_clean_floor() {
        let home = tempfile::tempdir().unwrap();
        let first = Folder::prepare(home.path()).unwrap();
        fs::create_dir(first.path().join("creator")).unwrap();
        fs::write(first.path().join("network.json"), "{}").unwrap();
        let refused = Folder::prepare(home.path()).unwrap_err().to_string();
        assert!(refused.starts_with("another demonstration plays in"), "{refused}");
        drop(first);
        let second = Folder::prepare(home.path()).unwrap();
        let left: Vec<_> = fs::read_dir(second.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert_eq!(left, [LOCK]);
    }
}
