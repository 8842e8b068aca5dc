//! `HOME/demo`: where one demonstration at a time plays, each on a clean floor.

use std::{
    fs::{self, File, TryLockError},
    path::{Path, PathBuf},
};

use anyhow::{bail, Context as _};
use schema::Digest;

use crate::home;

const LOCK: &str = "lock";
/// Files in HOME that are ours to remove, with the digest of what they held.
const LAID_OUT: &str = "laid-out.json";

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
        let folder = Self { path, _lock: lock };
        // A demonstration that was killed could not take its things away.
        folder.take_away();
        let path = &folder.path;
        for entry in fs::read_dir(path).with_context(|| format!("failed to read {}", path.display()))? {
            let entry = entry.with_context(|| format!("failed to read {}", path.display()))?;
            if entry.file_name() != LOCK {
                remove(&entry.path()).with_context(|| format!("failed to remove {}", entry.path().display()))?;
            }
        }
        Ok(folder)
    }

    /// Notes files outside of the folder that were made by the demonstration.
    pub(crate) fn remember<const N: usize>(&self, paths: [PathBuf; N]) -> anyhow::Result<()> {
        let mut held: Vec<(PathBuf, Digest)> = vec![];
        for path in paths {
            let content = fs::read(&path).with_context(|| format!("failed to read {}", path.display()))?;
            held.push((path, Digest::of(&content)));
        }
        let note = self.path.join(LAID_OUT);
        let text = serde_json::to_vec(&held).context("failed to write what was laid out")?;
        fs::write(&note, text).with_context(|| format!("failed to write {}", note.display()))
    }

    /// Removes those files, if nobody has changed them meanwhile.
    pub(crate) fn take_away(&self) {
        let note = self.path.join(LAID_OUT);
        let held: Vec<(PathBuf, Digest)> = fs::read(&note)
            .ok()
            .and_then(|text| serde_json::from_slice(&text).ok())
            .unwrap_or_default();
        for (path, digest) in held {
            if fs::read(&path).is_ok_and(|content| Digest::of(&content) == digest) {
                // What cannot be removed stays; the next demonstration then only prints flags.
                let _ = fs::remove_file(&path);
            }
        }
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

    #[test]
    fn what_a_killed_demonstration_laid_out_is_taken_away_and_what_was_changed_stays() {
        let home = tempfile::tempdir().unwrap();
        let [ours, changed] = ["ours.json", "changed.json"].map(|name| home.path().join(name));
        fs::write(&ours, "ours").unwrap();
        fs::write(&changed, "ours").unwrap();
        Folder::prepare(home.path())
            .unwrap()
            .remember([ours.clone(), changed.clone()])
            .unwrap();
        fs::write(&changed, "somebody's").unwrap();
        let _next = Folder::prepare(home.path()).unwrap();
        assert!(!ours.exists() && changed.exists());
    }
}
