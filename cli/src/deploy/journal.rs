//! What a deployment has done so far, in a file beside the network file.
//!
//! Guarantees:
//! - A transaction stands in the journal, on the disk, before it is sent. Whatever happens afterwards, the next run knows its hash.
//! - The file is whole: it is replaced, never changed.
//! - One process at a time.

use std::{
    fs::{self, File, TryLockError},
    io::Write as _,
    path::{Path, PathBuf},
};

use anyhow::{bail, Context as _};
use client::TxHash;
use serde::{Deserialize, Serialize};
use tempfile::NamedTempFile;

use super::plan::{Inputs, Kind};

/// A journal holds some kilobytes.
const BYTES_MAX: u64 = 1024 * 1024;

/// One transaction of a deployment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Step {
    Store(Kind),
    Instantiate(Kind),
    /// Makes siblings known to each other, and gives everything away.
    Wire,
}

impl std::fmt::Display for Step {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Store(kind) => write!(f, "storing {}", kind.name()),
            Self::Instantiate(kind) => write!(f, "making {}", kind.name()),
            Self::Wire => write!(f, "wiring"),
        }
    }
}

/// A transaction that was signed, and perhaps sent. Of those with one sequence at most one is ever in a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Attempt {
    pub(crate) hash: TxHash,
    pub(crate) sequence: u64,
}

/// What came of a step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Done {
    CodeId(u64),
    Address(String),
    Wired,
}

#[derive(Debug, Default, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    attempts: Vec<Attempt>,
    done: Option<Done>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Content {
    inputs: Inputs,
    steps: Vec<(Step, Entry)>,
}

#[derive(Debug)]
pub(crate) struct Journal {
    path: PathBuf,
    content: Content,
}

/// Keeps others away from a folder while it lives.
#[derive(Debug)]
pub(crate) struct Lock {
    _folder: File,
}

/// Takes the folder of a network file for this process.
pub(crate) fn lock(out: &Path) -> anyhow::Result<Lock> {
    let folder = folder(out);
    let file = File::open(&folder).with_context(|| format!("failed to open {}", folder.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(Lock { _folder: file }),
        Err(TryLockError::WouldBlock) => bail!("another `fxn deploy` is at work in {}", folder.display()),
        Err(TryLockError::Error(error)) => Err(error).with_context(|| format!("failed to lock {}", folder.display())),
    }
}

fn folder(path: &Path) -> PathBuf {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    parent.unwrap_or(Path::new(".")).to_path_buf()
}

impl Journal {
    /// Where the journal of a network file lies.
    pub(crate) fn path_of(out: &Path) -> PathBuf {
        let mut name = out.file_name().unwrap_or_default().to_owned();
        name.push(".partial");
        out.with_file_name(name)
    }

    /// Goes on with what was begun, or begins.
    pub(crate) fn open(out: &Path, inputs: &Inputs) -> anyhow::Result<Self> {
        let path = Self::path_of(out);
        if let Some(content) = read(&path)? {
            if let Some(what) = content.inputs.difference(inputs) {
                bail!(
                    "{} is a deployment that was begun with another {what}: go on as it was begun, or remove the file to begin anew",
                    path.display()
                );
            }
            return Ok(Self { path, content });
        }
        let inputs = inputs.clone();
        let content = Content { inputs, steps: vec![] };
        Ok(Self { path, content })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    fn entry(&self, step: Step) -> Option<&Entry> {
        let found = self.content.steps.iter().find(|(known, _)| *known == step);
        found.map(|(_, entry)| entry)
    }

    /// What came of a step, if it is done.
    pub(crate) fn done(&self, step: Step) -> Option<&Done> {
        self.entry(step)?.done.as_ref()
    }

    /// What was signed for a step.
    pub(crate) fn attempts(&self, step: Step) -> &[Attempt] {
        self.entry(step).map_or(&[], |entry| &entry.attempts)
    }

    /// Writes down a transaction that is going to be sent.
    pub(crate) fn attempt(&mut self, step: Step, attempt: Attempt) -> anyhow::Result<()> {
        self.change(step, |entry| {
            if !entry.attempts.contains(&attempt) {
                entry.attempts.push(attempt);
            }
        })
    }

    /// Forgets transactions that have failed or can be in no block any more.
    pub(crate) fn forget(&mut self, step: Step) -> anyhow::Result<()> {
        self.change(step, |entry| entry.attempts.clear())
    }

    /// Writes down what came of a step.
    pub(crate) fn finish(&mut self, step: Step, done: Done) -> anyhow::Result<()> {
        self.change(step, |entry| entry.done = Some(done))
    }

    fn change(&mut self, step: Step, change: impl FnOnce(&mut Entry)) -> anyhow::Result<()> {
        let steps = &mut self.content.steps;
        match steps.iter_mut().find(|(known, _)| *known == step) {
            Some((_, entry)) => change(entry),
            None => {
                let mut entry = Entry::default();
                change(&mut entry);
                steps.push((step, entry));
            }
        }
        self.save()
            .with_context(|| format!("failed to write {}", self.path.display()))
    }

    fn save(&self) -> anyhow::Result<()> {
        let folder = folder(&self.path);
        let mut temporary = NamedTempFile::new_in(&folder)?;
        temporary.write_all(&serde_json::to_vec_pretty(&self.content)?)?;
        temporary.as_file().sync_all()?;
        temporary.persist(&self.path)?;
        File::open(&folder)?.sync_all()?;
        Ok(())
    }

    /// The deployment is done and its network file written.
    pub(crate) fn remove(self) -> anyhow::Result<()> {
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("failed to remove {}", self.path.display()))
            }
            _ => Ok(()),
        }
    }
}

fn read(path: &Path) -> anyhow::Result<Option<Content>> {
    let failed = || format!("failed to read {}", path.display());
    match fs::metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(failed),
        Ok(found) if found.len() > BYTES_MAX => {
            bail!("{} is no journal of a deployment: it is too long", path.display())
        }
        Ok(_) => {}
    }
    let bytes = fs::read(path).with_context(failed)?;
    let content = serde_json::from_slice(&bytes);
    content
        .map(Some)
        .with_context(|| format!("{} is no journal of a deployment", path.display()))
}

#[cfg(test)]
mod tests {
    use super::{super::plan::tests::inputs, *};

    fn attempt(number: u8) -> Attempt {
        Attempt {
            hash: TxHash::from([number; 32]),
            sequence: number.into(),
        }
    }

    #[test]
    fn a_journal_is_read_as_it_was_written_and_belongs_to_its_inputs() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("network.json");
        let mut journal = Journal::open(&out, &inputs()).unwrap();
        let step = Step::Instantiate(Kind::Token);
        journal.attempt(step, attempt(1)).unwrap();
        journal.attempt(step, attempt(1)).unwrap();
        journal.attempt(step, attempt(2)).unwrap();
        journal.finish(step, Done::Address("wasm1token".into())).unwrap();
        journal.finish(Step::Store(Kind::Token), Done::CodeId(7)).unwrap();
        let again = Journal::open(&out, &inputs()).unwrap();
        assert_eq!(again.attempts(step), [attempt(1), attempt(2)]);
        assert_eq!(again.done(Step::Store(Kind::Token)), Some(&Done::CodeId(7)));
        assert_eq!(again.done(step), Some(&Done::Address("wasm1token".into())));
        let mut other = inputs();
        other.treasury.push('x');
        let told = Journal::open(&out, &other).unwrap_err().to_string();
        assert!(told.contains("begun with another treasury"), "{told}");
        again.remove().unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn another_process_is_kept_out_and_a_foreign_file_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("network.json");
        let held = lock(&out).unwrap();
        assert!(lock(&out).unwrap_err().to_string().contains("another `fxn deploy`"));
        drop(held);
        lock(&out).unwrap();
        fs::write(Journal::path_of(&out), "{}").unwrap();
        let told = Journal::open(&out, &inputs()).unwrap_err().to_string();
        assert!(told.contains("network.json.partial is no journal"), "{told}");
    }
}
