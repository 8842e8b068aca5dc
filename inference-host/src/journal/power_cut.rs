//! A power cut at every moment: everything that was not synced may be lost, in part or as a whole, and still nothing that a write had promised is.
//!
//! The changes that the journal makes are recorded (`disk::TRACE`) and played up to the cut onto an imaginary disk. Content that was not
//! synced is cut anywhere; of the changes of names in a folder, those after its last sync happened up to any point. What is left is put into a
//! real folder and opened.

#![allow(clippy::arithmetic_side_effects, reason = "numbers in tests are small")]

use std::collections::{BTreeMap, BTreeSet};

use rand::{rngs::StdRng, Rng, SeedableRng};

use super::{rot::record, *};
use crate::disk::{Change, TRACE};

/// What a write had promised when it returned.
struct Promise {
    /// Changes made until then.
    after: usize,
    record: Record,
}

/// Writes pieces of work as a host does, rows before the record that speaks of them, and tells what was promised when.
fn history(journal: &Journal) -> (Vec<Promise>, Vec<Change>) {
    let mut promises = Vec::new();
    for version in 0..3 {
        for job in 1..=3 {
            let record = record(job, version);
            journal
                .write_rows(record.key(), RowFile::Input, &["some", "rows"])
                .unwrap();
            journal.write(&record).unwrap();
            let after = TRACE.with_borrow(Vec::len);
            promises.push(Promise { after, record });
        }
    }
    (promises, TRACE.take())
}

/// A name in a folder: whose content it shows, or that it is a folder.
type Names = BTreeMap<PathBuf, usize>;

/// What is on the disk after a cut.
fn survivors(changes: &[Change], random: &mut StdRng) -> (BTreeSet<PathBuf>, BTreeMap<PathBuf, Vec<u8>>) {
    let parent = |path: &Path| path.parent().unwrap().to_owned();
    // For every folder, how many of the changes of its names have happened for sure.
    let mut named: BTreeMap<PathBuf, Vec<&Change>> = BTreeMap::new();
    let mut sure: BTreeMap<PathBuf, usize> = BTreeMap::new();
    let mut contents: Vec<(Vec<u8>, bool)> = Vec::new();
    let mut written: BTreeMap<PathBuf, usize> = BTreeMap::new();
    for change in changes {
        match change {
            Change::MakeFolder(path) | Change::Remove(path) => named.entry(parent(path)).or_default().push(change),
            Change::Rename(from, _) => named.entry(parent(from)).or_default().push(change),
            Change::Write(path, bytes) => {
                written.insert(path.clone(), contents.len());
                contents.push((bytes.clone(), false));
                named.entry(parent(path)).or_default().push(change);
            }
            Change::SyncFile(path) => contents[written[path]].1 = true,
            Change::Append(..) => unreachable!("the journal only replaces"),
            Change::SyncFolder(path) => {
                let done = named.get(path).map_or(0, Vec::len);
                sure.insert(path.clone(), done);
            }
        }
    }
    let (mut folders, mut names) = (BTreeSet::new(), Names::new());
    for (folder, changes) in &named {
        let sure = sure.get(folder).copied().unwrap_or(0);
        for change in &changes[..random.gen_range(sure..=changes.len())] {
            match change {
                Change::MakeFolder(path) => drop(folders.insert(path.clone())),
                Change::Write(path, _) => drop(names.insert(path.clone(), written[path])),
                Change::Rename(from, to) => {
                    let content = names.remove(from).unwrap();
                    names.insert(to.clone(), content);
                }
                Change::Remove(path) => drop(names.remove(path)),
                Change::SyncFile(_) | Change::SyncFolder(_) | Change::Append(..) => {}
            }
        }
    }
    let files = names.into_iter().map(|(path, content)| {
        let (bytes, synced) = &contents[content];
        let length = if *synced {
            bytes.len()
        } else {
            random.gen_range(0..=bytes.len())
        };
        (path, bytes[..length].to_vec())
    });
    let files = files.collect();
    (folders, files)
}

#[test]
fn a_power_cut_at_any_moment_takes_nothing_that_was_promised() {
    let home = tempfile::tempdir().unwrap();
    let work = home.path().join("work");
    TRACE.take();
    let journal = Journal::open(work.clone(), Aside::default()).unwrap();
    let (promises, changes) = history(&journal);
    assert!(changes.len() > 60, "{}", changes.len());
    for cut in 0..=changes.len() {
        for seed in 0..8 {
            let mut random = StdRng::seed_from_u64(seed);
            let (folders, files) = survivors(&changes[..cut], &mut random);
            let after = tempfile::tempdir().unwrap();
            let place = |path: &Path| after.path().join(path.strip_prefix(home.path()).unwrap());
            // A folder whose own name is lost takes everything with it.
            let there = |path: &Path| path == home.path() || folders.contains(path);
            for folder in folders.iter().filter(|folder| there(folder.parent().unwrap())) {
                fs::create_dir_all(place(folder)).unwrap();
            }
            for (path, bytes) in &files {
                if place(path.parent().unwrap()).exists() {
                    fs::write(place(path), bytes).unwrap();
                }
            }
            let aside = Aside::default();
            let again = Journal::open(after.path().join("work"), aside.clone()).unwrap();
            let found = again.read_all().unwrap().records;
            assert!(
                aside.reports().is_empty(),
                "cut {cut}, seed {seed}: {:?}",
                aside.reports()
            );
            for promise in promises.iter().filter(|promise| promise.after <= cut) {
                let key = promise.record.key();
                let kept = found.iter().find(|record| record.key() == key);
                let kept = kept.unwrap_or_else(|| panic!("cut {cut}, seed {seed}: {key} is lost"));
                let version = |record: &Record| format!("{:?}", record.phase);
                assert!(
                    version(kept) >= version(&promise.record),
                    "cut {cut}, seed {seed}: {key} is old"
                );
            }
        }
    }
    TRACE.take();
}
