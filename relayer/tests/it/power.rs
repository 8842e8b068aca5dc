//! A disk of this machine whose unsynced bytes and names are lost when the power fails, although the process that wrote them is a real one.
//!
//! The process sees its home as it is. What is safe, and only that, is copied to a folder beside it, the platter: bytes when the real sync of a file has
//! returned, names when that of a folder has. After a SIGKILL the home is as it was left; after a power cut it is what the platter holds.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use relayer::{
    crash,
    disk::{Disk, SystemDisk},
};

/// Everything that is written through the disk begins like this. The lock does too, and is none of its files.
const PREFIX: &str = "relayer.";
const LOCK: &str = ".lock";

#[derive(Debug)]
pub struct PowerDisk(Arc<Mutex<Cache>>);

/// What the system has not put on the platter yet.
#[derive(Debug)]
struct Cache {
    platter: PathBuf,
    /// Names as a process sees them, each with the bytes that are safe: None, as long as none are.
    names: BTreeMap<PathBuf, Option<Vec<u8>>>,
}

impl PowerDisk {
    /// The disk under this home, from now on for all syncs of this process.
    pub fn install(home: &Path, platter: &Path) -> PowerDisk {
        fs::create_dir_all(platter).unwrap();
        let mut names = BTreeMap::new();
        for name in files(home) {
            // What a killed process has left in the cache of the system is not safe, but for what the platter has.
            let safe = fs::read(platter.join(&name)).ok();
            let same = safe.filter(|safe| fs::read(home.join(&name)).is_ok_and(|now| now == *safe));
            names.insert(home.join(&name), same);
        }
        let cache = Arc::new(Mutex::new(Cache {
            platter: platter.to_owned(),
            names,
        }));
        let of_syncs = cache.clone();
        crash::arm_sync(move |path| of_syncs.lock().unwrap().synced(path));
        PowerDisk(cache)
    }
}

/// What a power cut leaves of a home.
pub fn cut(home: &Path, platter: &Path) {
    for name in files(home) {
        fs::remove_file(home.join(name)).unwrap();
    }
    if platter.exists() {
        for name in files(platter) {
            fs::copy(platter.join(&name), home.join(&name)).unwrap();
        }
    }
}

fn files(folder: &Path) -> Vec<String> {
    let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name());
    let names = names.map(|name| name.to_string_lossy().into_owned());
    names
        .filter(|name| name.starts_with(PREFIX) && !name.ends_with(LOCK))
        .collect()
}

impl Cache {
    /// The system has said that this file or folder is safe.
    fn synced(&mut self, path: &Path) {
        if path.is_file() {
            let content = fs::read(path).unwrap();
            self.names.insert(path.to_owned(), Some(content));
            return;
        }
        for (path, safe) in &self.names {
            // A name without its bytes: an empty file.
            let safe = safe.clone().unwrap_or_default();
            let place = self.platter.join(path.file_name().unwrap());
            if fs::read(&place).is_ok_and(|there| there == safe) {
                continue;
            }
            let beside = self.platter.join("next");
            fs::write(&beside, safe).unwrap();
            fs::rename(beside, place).unwrap();
        }
        for name in files(&self.platter) {
            if !self.names.keys().any(|path| path.ends_with(&name)) {
                fs::remove_file(self.platter.join(name)).unwrap();
            }
        }
    }
}

impl Disk for PowerDisk {
    fn read(&self, path: &Path, limit: u64) -> io::Result<Vec<u8>> {
        SystemDisk.read(path, limit)
    }

    fn write(&self, path: &Path, content: &[u8]) -> io::Result<()> {
        self.0.lock().unwrap().names.insert(path.to_owned(), None);
        SystemDisk.write(path, content)
    }

    fn sync(&self, path: &Path) -> io::Result<()> {
        SystemDisk.sync(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        SystemDisk.rename(from, to)?;
        let mut cache = self.0.lock().unwrap();
        let safe = cache.names.remove(from).flatten();
        cache.names.insert(to.to_owned(), safe);
        Ok(())
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        SystemDisk.sync_folder(folder)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        SystemDisk.remove(path)?;
        self.0.lock().unwrap().names.remove(path);
        Ok(())
    }

    fn names(&self, folder: &Path) -> io::Result<Vec<String>> {
        SystemDisk.names(folder)
    }
}
