//! A disk that loses what was not synced, as machines do that lose power, and one that is full.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    sync::{
        atomic::{AtomicBool, AtomicU32, Ordering},
        Arc, Mutex, MutexGuard,
    },
};

use proptest::{
    prelude::*,
    test_runner::{RngAlgorithm, TestRng, TestRunner},
};
use relayer::{
    chain::TxHash,
    checkpoint::{Entry, Owner, SetAside, Stage, State, Store, Transaction, FILE},
    disk::{Disk, SystemDisk},
    status::Subject,
};

use crate::{
    fake_chain::{item, ME, OTHER},
    scene::{opened, Scene},
};

/// What a disk forgets to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flaw {
    None,
    /// Bytes are not safe after a sync.
    FileSync,
    /// Names are not safe after a sync.
    FolderSync,
    /// A rename copies into the file that is there.
    Rename,
}

/// Bytes in the order in which they were written; only the synced ones are sure to be there after a crash.
#[derive(Debug, Default)]
struct Platter {
    /// What a process sees.
    now: BTreeMap<PathBuf, usize>,
    /// What a crash leaves for sure.
    safe: BTreeMap<PathBuf, usize>,
    /// Changes of names since the last sync of the folder, in order: a file's new place, or its removal. A rename is both at once.
    pending: Vec<Vec<(PathBuf, Option<usize>)>>,
    /// Contents and how many bytes of each are safe.
    contents: Vec<(Vec<u8>, usize)>,
    /// Operations until the power fails.
    power: Option<u32>,
}

/// A disk in memory that loses what was not synced when the power fails.
#[derive(Debug)]
struct LossyDisk {
    flaw: Flaw,
    platter: Mutex<Platter>,
}

impl LossyDisk {
    fn new(flaw: Flaw) -> Arc<LossyDisk> {
        Arc::new(LossyDisk {
            flaw,
            platter: Mutex::default(),
        })
    }

    fn operate(&self) -> io::Result<MutexGuard<'_, Platter>> {
        let mut platter = self.platter.lock().unwrap();
        match &mut platter.power {
            Some(0) => return Err(io::Error::other("no power")),
            Some(left) => *left -= 1,
            None => {}
        }
        Ok(platter)
    }

    /// The power will fail after so many operations.
    fn fail_after(&self, operations: u32) {
        self.platter.lock().unwrap().power = Some(operations);
    }

    /// The power comes back. Of what was not safe, some changes of names and some of the bytes have survived.
    fn restart(
        &self,
        Failure {
            names, bytes, garbage, ..
        }: &Failure,
    ) {
        self.restart_with(
            |pending| names.index(pending + 1),
            |unsafe_bytes| bytes.index(unsafe_bytes + 1),
            *garbage,
        );
    }

    fn restart_with(&self, names: impl Fn(usize) -> usize, bytes: impl Fn(usize) -> usize, garbage: bool) {
        let mut platter = self.platter.lock().unwrap();
        let survivors = names(platter.pending.len());
        let pending = std::mem::take(&mut platter.pending);
        for (path, place) in pending.into_iter().take(survivors).flatten() {
            match place {
                Some(place) => drop(platter.safe.insert(path, place)),
                None => drop(platter.safe.remove(&path)),
            }
        }
        for (content, safe) in &mut platter.contents {
            let kept = *safe + bytes(content.len() - *safe);
            // What never reached the platter is missing, or reads as zeros.
            match garbage {
                true => content[kept..].fill(0),
                false => content.truncate(kept),
            }
            *safe = content.len();
        }
        platter.now = platter.safe.clone();
        platter.power = None;
    }
}

fn missing() -> io::Error {
    io::Error::from(io::ErrorKind::NotFound)
}

impl Disk for LossyDisk {
    fn read(&self, path: &Path, limit: u64) -> io::Result<Vec<u8>> {
        let platter = self.operate()?;
        let place = *platter.now.get(path).ok_or_else(missing)?;
        let (content, _) = &platter.contents[place];
        Ok(content.iter().copied().take(usize::try_from(limit).unwrap()).collect())
    }

    fn write(&self, path: &Path, content: &[u8]) -> io::Result<()> {
        let mut platter = self.operate()?;
        let place = platter.contents.len();
        platter.contents.push((content.to_vec(), 0));
        platter.now.insert(path.to_owned(), place);
        platter.pending.push(vec![(path.to_owned(), Some(place))]);
        Ok(())
    }

    fn sync(&self, path: &Path) -> io::Result<()> {
        let mut platter = self.operate()?;
        let place = *platter.now.get(path).ok_or_else(missing)?;
        if self.flaw != Flaw::FileSync {
            let (content, safe) = &mut platter.contents[place];
            *safe = content.len();
        }
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut platter = self.operate()?;
        let place = platter.now.remove(from).ok_or_else(missing)?;
        if self.flaw == Flaw::Rename {
            let copy = platter.contents[place].0.clone();
            platter.contents.push((copy, 0));
            let place = platter.contents.len() - 1;
            platter.now.insert(to.to_owned(), place);
            platter.safe.insert(to.to_owned(), place);
            return Ok(());
        }
        platter.now.insert(to.to_owned(), place);
        platter
            .pending
            .push(vec![(from.to_owned(), None), (to.to_owned(), Some(place))]);
        Ok(())
    }

    fn sync_folder(&self, _folder: &Path) -> io::Result<()> {
        let mut platter = self.operate()?;
        if self.flaw != Flaw::FolderSync {
            platter.pending.clear();
            platter.safe = platter.now.clone();
        }
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut platter = self.operate()?;
        platter.now.remove(path).ok_or_else(missing)?;
        platter.pending.push(vec![(path.to_owned(), None)]);
        Ok(())
    }

    fn names(&self, _folder: &Path) -> io::Result<Vec<String>> {
        let platter = self.operate()?;
        let names = platter.now.keys().filter_map(|path| path.file_name());
        Ok(names.map(|name| name.to_string_lossy().into_owned()).collect())
    }
}

fn owner() -> Owner {
    Owner {
        chain_id: "fake-1".into(),
        orchestrator: "wasm1orchestrator".into(),
        provider: ME.into(),
    }
}

/// The n-th change of a state.
fn step(state: &mut State) {
    let number = state.height.unwrap_or(0) + 1;
    state.height = Some(number);
    state.assigned(Entry {
        item: item(number),
        attempt: 0,
        deadline: 5,
        attest_until: 6,
        evidence_until: 7,
        last_span: true,
        stage: Stage::Fresh {},
    });
    let bytes = vec![7; 300];
    let tx_hash = TxHash::of(&bytes);
    state.prepared(Transaction { tx_hash, bytes }, &[(item(number), 0)]);
}

/// One power failure.
#[derive(Debug, Clone)]
struct Failure {
    operations: u32,
    names: prop::sample::Index,
    bytes: prop::sample::Index,
    garbage: bool,
}

fn failures() -> impl Strategy<Value = Vec<Failure>> {
    let failure = (
        0..40u32,
        any::<prop::sample::Index>(),
        any::<prop::sample::Index>(),
        any::<bool>(),
    );
    let failure = failure.prop_map(|(operations, names, bytes, garbage)| Failure {
        operations,
        names,
        bytes,
        garbage,
    });
    prop::collection::vec(failure, 1..6)
}

/// Changes the state until the power fails, again and again. After each failure there is the last change that was acknowledged, or the one
/// that was under way.
fn survives(flaw: Flaw, failures: &[Failure]) -> Result<(), TestCaseError> {
    let disk = LossyDisk::new(flaw);
    let home = tempfile::tempdir().unwrap();
    let mut acknowledged = State::default();
    for failure in failures {
        let (store, aside) = opened(|| Store::open_on(disk.clone(), home.path(), owner()));
        prop_assert_eq!(&aside, &None::<SetAside>, "half a file");
        let found = store.state();
        let mut tried = acknowledged.clone();
        step(&mut tried);
        prop_assert!(
            found == acknowledged || found == tried,
            "{found:?} is neither old nor new"
        );
        acknowledged = found;
        disk.fail_after(failure.operations);
        while store.update(step).is_ok() {
            acknowledged = store.state();
        }
        drop(store);
        disk.restart(failure);
    }
    Ok(())
}

fn check(flaw: Flaw) -> Result<(), String> {
    let config = ProptestConfig {
        // Half of the calls are meant to fail.
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    let mut runner = TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    let checked = runner.run(&failures(), |failures| survives(flaw, &failures));
    checked.map_err(|error| error.to_string())
}

#[test]
fn a_power_failure_leaves_the_old_or_the_new_state_and_never_half_of_it() {
    check(Flaw::None).unwrap();
}

#[test]
fn a_disk_that_forgets_to_sync_is_found_out() {
    for flaw in [Flaw::FileSync, Flaw::FolderSync, Flaw::Rename] {
        assert!(check(flaw).is_err(), "{flaw:?} makes no difference to the test above");
    }
}

#[test]
fn a_damaged_file_survives_a_power_failure_at_every_operation_of_being_kept_aside() {
    for operations in 0..8 {
        for survive in [false, true] {
            let disk = LossyDisk::new(Flaw::None);
            let home = tempfile::tempdir().unwrap();
            let path = home.path().join(FILE);
            disk.write(&path, b"damaged").unwrap();
            disk.sync(&path).unwrap();
            disk.sync_folder(home.path()).unwrap();
            disk.fail_after(operations);
            let first = Store::open_on(disk.clone(), home.path(), owner());
            if let Ok((store, _)) = &first {
                let _ = store.update(step);
            }
            drop(first);
            disk.restart_with(|pending| if survive { pending } else { 0 }, |_| 0, false);
            let (_, aside) = opened(|| Store::open_on(disk.clone(), home.path(), owner()));
            let names = disk.names(home.path()).unwrap();
            let kept: Vec<&String> = names.iter().filter(|name| name.contains(".damaged-")).collect();
            assert_eq!(kept.len(), 1, "after {operations}: {names:?}, {aside:?}");
            assert_eq!(disk.read(&home.path().join(kept[0]), 99).unwrap(), b"damaged");
        }
    }
}

#[test]
fn files_that_are_kept_aside_never_take_each_others_place() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join(FILE);
    // All within the same second, as after a clock that was set back.
    for number in 0..20u8 {
        std::fs::write(&path, [number]).unwrap();
        relayer::disk::keep_aside(&SystemDisk, &path).unwrap();
    }
    let kept = relayer::disk::kept_aside(&SystemDisk, home.path()).unwrap();
    let mut contents: Vec<Vec<u8>> = kept.iter().map(|path| std::fs::read(path).unwrap()).collect();
    contents.sort();
    assert_eq!(contents, (0..20u8).map(|number| vec![number]).collect::<Vec<_>>());
}

/// The disk of this machine, without room now and then.
#[derive(Debug, Default)]
struct FullDisk {
    is_full: AtomicBool,
    /// Operations until one of them finds no room.
    until_full: AtomicU32,
}

impl FullDisk {
    fn room(&self) -> io::Result<()> {
        let left = self.until_full.load(Ordering::SeqCst);
        self.until_full.store(left.saturating_sub(1), Ordering::SeqCst);
        match self.is_full.load(Ordering::SeqCst) || left == 1 {
            true => Err(io::Error::from(io::ErrorKind::StorageFull)),
            false => Ok(()),
        }
    }
}

impl Disk for FullDisk {
    fn read(&self, path: &Path, limit: u64) -> io::Result<Vec<u8>> {
        SystemDisk.read(path, limit)
    }
    fn write(&self, path: &Path, content: &[u8]) -> io::Result<()> {
        if let Err(error) = self.room() {
            // As far as it came.
            SystemDisk.write(path, &content[..content.len() / 2])?;
            return Err(error);
        }
        SystemDisk.write(path, content)
    }
    fn sync(&self, path: &Path) -> io::Result<()> {
        self.room()?;
        SystemDisk.sync(path)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.room()?;
        SystemDisk.rename(from, to)
    }
    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        self.room()?;
        SystemDisk.sync_folder(folder)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        SystemDisk.remove(path)
    }
    fn names(&self, folder: &Path) -> io::Result<Vec<String>> {
        SystemDisk.names(folder)
    }
}

#[tokio::test]
async fn a_full_disk_is_told_nothing_is_sent_and_room_ends_it() {
    let scene = Scene::new().await;
    let disk = Arc::new(FullDisk::default());
    let mut running = scene.start_on(disk.clone()).await.unwrap();
    scene.chain.assign(item(1), 0, [OTHER, ME], 100);
    scene.chain.mine(1);
    running.until("started", |s| s.items.started == 1 && s.caught_up).await;
    assert!(running.snapshots.borrow().is_ready());
    disk.is_full.store(true, Ordering::SeqCst);
    scene.host.finishes(item(1), 0);
    running.until("told", |s| s.trouble.contains_key(&Subject::Disk)).await;
    let snapshot = running.snapshots.borrow().clone();
    let sentence = &snapshot.trouble[&Subject::Disk];
    assert!(sentence.contains("relayer.checkpoint: no storage space"), "{sentence}");
    assert!(!snapshot.is_ready());
    assert!(
        scene.chain.world().mempool.is_empty(),
        "what is not written down is not sent"
    );
    disk.is_full.store(false, Ordering::SeqCst);
    scene.chain.until_mempool(1).await;
    scene.chain.mine(1);
    running
        .until("attested", |s| {
            s.totals.attested == 1 && !s.trouble.contains_key(&Subject::Disk)
        })
        .await;
    running.stop().await.unwrap();
    assert_eq!(scene.chain.attested(item(1)), 1);
}

#[tokio::test]
async fn a_full_disk_does_not_keep_it_from_stopping() {
    let scene = Scene::new().await;
    let disk = Arc::new(FullDisk::default());
    let mut running = scene.start_on(disk.clone()).await.unwrap();
    running.until("reading", |s| s.caught_up).await;
    disk.is_full.store(true, Ordering::SeqCst);
    scene.chain.assign(item(1), 0, [OTHER, ME], 100);
    scene.chain.mine(1);
    running.until("told", |s| s.trouble.contains_key(&Subject::Disk)).await;
    let error = running.stop().await.unwrap_err().to_string();
    assert!(error.contains("relayer.checkpoint: no storage space"), "{error}");
}

#[tokio::test]
async fn no_room_for_any_single_operation_does_no_harm() {
    for operation in 1..=28 {
        let scene = Scene::new().await;
        scene.host.change(|desk| desk.finish_everything = true);
        let disk = Arc::new(FullDisk::default());
        let mut running = scene.start_on(disk.clone()).await.unwrap();
        disk.until_full.store(operation, Ordering::SeqCst);
        scene.chain.assign(item(1), 0, [OTHER, ME], 100);
        scene.chain.mine(1);
        scene
            .chain
            .mine_until("attested", |world| !world.included.is_empty())
            .await;
        scene.chain.mine(1);
        running
            .until("nothing open", |s| {
                s.totals.attested == 1 && s.items == Default::default() && s.transaction.is_none()
            })
            .await;
        // The stories above tell of the end.
        disk.until_full.store(0, Ordering::SeqCst);
        running.stop().await.unwrap();
        assert_eq!(
            (scene.chain.attested(item(1)), scene.chain.world().signatures),
            (1, 1),
            "at {operation}"
        );
        assert!(!scene.home.path().join("relayer.checkpoint.tmp").exists());
    }
}

#[tokio::test]
async fn a_full_disk_at_the_start_is_one_sentence() {
    let scene = Scene::new().await;
    let disk = Arc::new(FullDisk::default());
    disk.is_full.store(true, Ordering::SeqCst);
    let error = scene.start_on(disk).await.err().unwrap().to_string();
    assert!(error.ends_with("relayer.json: no storage space"), "{error}");
}
