//! The best voucher of every session, on the disk before anybody works on the strength of it.
//!
//! One log, one line for each thing kept, one sync for everybody who waits (group commit): sessions that pay at the same time share it. A line
//! is the sha256 of its JSON in hex, a space, the JSON; a later line about a session takes the place of an earlier one.
//! Guarantees: once [`Store::kept`] has returned, neither a kill nor a power cut takes the voucher away; the end of a line that was cut off was
//! promised to nobody and is dropped; any other damage is moved aside and reported, and every sound line counts; after a write that failed nothing
//! is put behind it, the log is written anew; its length is bounded by what is kept.

use std::{
    collections::HashMap,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use lane::acceptor::Kept;
use schema::Digest;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::Key;
use crate::{
    aside::{Aside, Kind, Room},
    disk::{self, Moments},
    faults::Point,
    metrics::Metrics,
};

const NAME: &str = "log";
const ASIDE: &str = "corrupt";
const ROOM: Room = Room {
    files: 8,
    bytes: 1 << 28,
};
const APPEND: [Point; 3] = [Point::VouchersBefore, Point::VouchersWritten, Point::VouchersKept];
const REWRITE: Moments = Moments {
    before: Point::LogBefore,
    written: Point::LogWritten,
    renamed: Point::LogRenamed,
    kept: Point::LogKept,
};
/// A log is written anew once this much was put behind what it began with, and no less than that again.
const GROWTH: u64 = 1 << 20;
/// Before a disk that has refused is asked again.
const PAUSE: Duration = Duration::from_millis(200);

/// What is remembered of a session.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Line {
    pub(crate) session: u64,
    pub(crate) deployment: u64,
    /// Chain time after which the allocation may be closed at the latest, and this is worth nothing.
    pub(crate) until: u64,
    /// We have signed that we claim no more than what is settled.
    pub(crate) consented: bool,
    /// None: it is over.
    pub(crate) kept: Option<Kept>,
}

impl Line {
    fn key(&self) -> Key {
        (self.session, self.deployment)
    }
}

/// How far the disk is.
#[derive(Debug, Clone, Default)]
struct Progress {
    version: u64,
    trouble: Option<String>,
}

#[derive(Debug, Default)]
struct Waiting {
    lines: HashMap<Key, Line>,
    version: u64,
    is_closed: bool,
}

#[derive(Debug, Default)]
struct Shared {
    waiting: Mutex<Waiting>,
    filled: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // Lines are put in and taken out as a whole.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The log and its writer.
#[derive(Debug)]
pub(crate) struct Store {
    shared: Arc<Shared>,
    progress: watch::Receiver<Progress>,
}

impl Store {
    /// Opens the log and answers what it holds.
    pub(crate) fn open(folder: PathBuf, aside: &Aside, metrics: Arc<Metrics>) -> io::Result<(Self, Vec<Line>)> {
        disk::make_folder(&folder)?;
        folder.parent().map_or(Ok(()), disk::sync_folder)?;
        disk::sweep(&folder);
        let live = read(&folder, aside)?;
        let lines = live.values().copied().collect();
        let (sender, progress) = watch::channel(Progress::default());
        let shared = Arc::new(Shared::default());
        let writer = Writer {
            folder,
            live,
            log: None,
            grown: 0,
            limit: GROWTH,
            progress: sender,
            metrics,
        };
        let work = Arc::clone(&shared);
        thread::Builder::new()
            .name("fxn-vouchers".to_owned())
            .spawn(move || writer.run(&work))?;
        Ok((Self { shared, progress }, lines))
    }

    /// Hands a line to the writer. What is answered is reached once it is safe.
    pub(crate) fn keep(&self, line: Line) -> u64 {
        let mut waiting = self.shared.lock();
        waiting.lines.insert(line.key(), line);
        waiting.version = waiting.version.saturating_add(1);
        let version = waiting.version;
        drop(waiting);
        self.shared.filled.notify_one();
        version
    }

    /// Waits until everything up to this version is safe. An error is what the disk has said.
    pub(crate) async fn kept(&self, version: u64) -> Result<(), String> {
        let mut progress = self.progress.clone();
        let reached = progress
            .wait_for(|now| now.version >= version || now.trouble.is_some())
            .await;
        match reached {
            Ok(now) if now.version >= version => Ok(()),
            Ok(now) => Err(now.trouble.clone().unwrap_or_default()),
            Err(_) => Err("the writer stopped".to_owned()),
        }
    }

    /// The version up to which everything is safe.
    pub(crate) fn reached(&self) -> u64 {
        self.progress.borrow().version
    }

    /// What the disk said to the last write, if it did not take it.
    pub(crate) fn trouble(&self) -> Option<String> {
        self.progress.borrow().trouble.clone()
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.shared.lock().is_closed = true;
        self.shared.filled.notify_one();
    }
}

/// The thread that writes.
#[derive(Debug)]
struct Writer {
    folder: PathBuf,
    live: HashMap<Key, Line>,
    /// None: it is to be written anew.
    log: Option<File>,
    /// Bytes behind what the log began with.
    grown: u64,
    limit: u64,
    progress: watch::Sender<Progress>,
    metrics: Arc<Metrics>,
}

impl Writer {
    fn run(mut self, shared: &Shared) {
        let mut unwritten: HashMap<Key, Line> = HashMap::new();
        loop {
            let version = {
                let mut waiting = shared.lock();
                while waiting.lines.is_empty() && unwritten.is_empty() && !waiting.is_closed {
                    waiting = shared.filled.wait(waiting).unwrap_or_else(PoisonError::into_inner);
                }
                unwritten.extend(waiting.lines.drain());
                if waiting.is_closed && (unwritten.is_empty() || self.progress.borrow().trouble.is_some()) {
                    return;
                }
                waiting.version
            };
            let begun = Instant::now();
            match self.write(&unwritten) {
                Ok(()) => {
                    self.metrics.vouchers_synced(begun.elapsed());
                    unwritten.clear();
                    let trouble = None;
                    self.progress.send_replace(Progress { version, trouble });
                }
                Err(error) => {
                    self.log = None;
                    self.metrics.write_failures(1);
                    let sentence = format!("vouchers cannot be kept: {error}");
                    tracing::error!(%error, "vouchers cannot be kept");
                    self.progress.send_modify(|progress| progress.trouble = Some(sentence));
                    thread::sleep(PAUSE);
                }
            }
        }
    }

    fn write(&mut self, lines: &HashMap<Key, Line>) -> io::Result<()> {
        for (key, line) in lines {
            match line.kept {
                Some(_) => drop(self.live.insert(*key, *line)),
                None => drop(self.live.remove(key)),
            }
        }
        let path = self.folder.join(NAME);
        let Some(log) = self.log.as_mut().filter(|_| self.grown < self.limit) else {
            let bytes = encode(self.live.values())?;
            disk::replace(&self.folder, NAME, &bytes, REWRITE)?;
            self.log = Some(File::options().append(true).open(&path)?);
            self.grown = 0;
            self.limit = GROWTH.max(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
            return Ok(());
        };
        let bytes = encode(lines.values())?;
        disk::append(log, &path, &bytes, APPEND)?;
        self.grown = self
            .grown
            .saturating_add(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
        Ok(())
    }
}

fn encode<'a>(lines: impl Iterator<Item = &'a Line>) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    for line in lines {
        let json = serde_json::to_vec(line)?;
        bytes.extend(Digest::of(&json).to_string().into_bytes());
        bytes.push(b' ');
        bytes.extend(json);
        bytes.push(b'\n');
    }
    Ok(bytes)
}

fn read(folder: &Path, aside: &Aside) -> io::Result<HashMap<Key, Line>> {
    let path = folder.join(NAME);
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(error),
    };
    let (live, damaged) = decode(&bytes);
    if damaged > 0 {
        // A copy stays here: what is sound in it still counts, also for a process that is killed now.
        let copy = folder.join(format!("{NAME}.damaged"));
        fs::copy(&path, &copy)?;
        let reason = format!("{damaged} lines are not what their digest says");
        aside.set_aside(Kind::Vouchers, &copy, &reason, &folder.join(ASIDE), ROOM);
    }
    Ok(live)
}

/// What the sound lines say, and how many others there are. What is behind the last line feed is none.
pub(crate) fn decode(bytes: &[u8]) -> (HashMap<Key, Line>, usize) {
    let (mut live, mut damaged) = (HashMap::new(), 0_usize);
    let whole = bytes.iter().rposition(|byte| *byte == b'\n').unwrap_or(0);
    let lines = bytes.get(..whole).unwrap_or_default().split(|byte| *byte == b'\n');
    for text in lines.filter(|text| !text.is_empty()) {
        match decode_line(text) {
            Some(line @ Line { kept: Some(_), .. }) => drop(live.insert(line.key(), line)),
            Some(line) => drop(live.remove(&line.key())),
            None => damaged = damaged.saturating_add(1),
        }
    }
    (live, damaged)
}

fn decode_line(text: &[u8]) -> Option<Line> {
    let (digest, json) = text.split_at_checked(64)?;
    let json = json.strip_prefix(b" ")?;
    let line = serde_json::from_slice(json).ok()?;
    (digest == Digest::of(json).to_string().as_bytes()).then_some(line)
}

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects, reason = "numbers in tests are small")]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::disk::{Change, TRACE};

    fn line(session: u64, number: u64) -> Line {
        Line {
            session,
            deployment: 1,
            until: 9,
            consented: false,
            kept: Some(Kept {
                number,
                ..Kept::default()
            }),
        }
    }

    fn open(folder: &Path) -> (Store, Vec<Line>, Aside) {
        let aside = Aside::default();
        let metrics = Arc::new(Metrics::new(aside.clone()));
        let (store, lines) = Store::open(folder.to_owned(), &aside, metrics).unwrap();
        (store, lines, aside)
    }

    #[tokio::test]
    async fn what_was_kept_is_found_again_the_newest_of_each_session() {
        let home = tempfile::tempdir().unwrap();
        let folder = home.path().join("sessions");
        let (store, lines, _) = open(&folder);
        assert_eq!(lines, []);
        for number in 1..=50 {
            let version = store.keep(line(number % 3, number));
            store.kept(version).await.unwrap();
        }
        let version = store.keep(Line {
            kept: None,
            ..line(0, 0)
        });
        store.kept(version).await.unwrap();
        drop(store);
        let (_store, mut lines, _) = open(&folder);
        lines.sort_by_key(|line| line.session);
        assert_eq!(lines, [line(1, 49), line(2, 50)]);
    }

    #[tokio::test]
    async fn a_log_does_not_grow_beyond_what_is_kept() {
        let home = tempfile::tempdir().unwrap();
        let folder = home.path().join("sessions");
        let (store, _, _) = open(&folder);
        let mut version = 0;
        for number in 0..30_000 {
            version = store.keep(line(number % 5, number));
            if number % 10 == 0 {
                store.kept(version).await.unwrap();
            }
        }
        store.kept(version).await.unwrap();
        let bytes = fs::metadata(folder.join(NAME)).unwrap().len();
        assert!(bytes < 2 * GROWTH, "{bytes} bytes");
    }

    #[test]
    fn a_cut_at_any_byte_loses_nothing_that_was_synced_and_no_flipped_byte_counts() {
        let kept: Vec<Line> = (1..=4).map(|session| line(session, session)).collect();
        let first = encode(kept[..3].iter()).unwrap();
        let all = encode(kept.iter()).unwrap();
        for cut in first.len()..all.len() {
            let (live, damaged) = decode(&all[..cut]);
            assert_eq!((live.len(), damaged), (3, 0), "cut at {cut}");
        }
        for at in 0..all.len() - 1 {
            let mut bytes = all.clone();
            bytes[at] ^= 1;
            let (live, damaged) = decode(&bytes);
            assert!(damaged > 0 || live.len() < 4, "flipped at {at}");
            assert!(live.values().all(|line| kept.contains(line)), "flipped at {at}");
        }
    }

    #[tokio::test]
    async fn damage_is_moved_aside_and_reported_and_the_rest_counts() {
        let home = tempfile::tempdir().unwrap();
        let folder = home.path().join("sessions");
        fs::create_dir(&folder).unwrap();
        let mut bytes = encode([line(1, 1), line(2, 2)].iter()).unwrap();
        bytes[70] ^= 1;
        fs::write(folder.join(NAME), &bytes).unwrap();
        let (_store, lines, aside) = open(&folder);
        assert_eq!(lines, [line(2, 2)]);
        assert_eq!(aside.count(Kind::Vouchers), 1);
    }

    #[test]
    fn a_line_is_synced_before_it_is_called_kept() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join(NAME);
        let mut file = File::options().create(true).append(true).open(&path).unwrap();
        TRACE.take();
        disk::append(&mut file, &path, b"x", APPEND).unwrap();
        let changes = TRACE.take();
        assert!(
            matches!(&changes[..], [Change::Append(..), Change::SyncFile(_)]),
            "{changes:?}"
        );
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_are_no_lines_and_never_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            prop_assert_eq!(decode(&bytes).0.len(), 0);
        }
    }
}
