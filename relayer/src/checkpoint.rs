//! What a relayer must not forget: how far it has read the chain, and how far it is with every open item.
//!
//! An item goes `Fresh -> Started -> Prepared -> Confirmed`, or `Refused` where the contract said no for good. The hash and the bytes of a
//! transaction are written before it is sent, so that after a crash the same bytes are looked up and sent again instead of others.
//!
//! Guarantees:
//! - The file is the old or the new state, never half of it: temporary file, fsync, rename, fsync of the folder ([`crate::disk`]).
//! - What was written is what is read: the first line carries a sha256 of the rest.
//! - A file that cannot be read is kept aside under another name and reported; it is never overwritten. The chain's own state is then
//!   read instead, and the contract refuses what was done before.
//! - A file of another network, of another provider or of a newer version stops the program: it is somebody's and not broken.
//! - One process a folder: a lock file sees to it.

mod codec;

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions, TryLockError},
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use schema::ItemId;
use serde::{Deserialize, Serialize};

pub use self::codec::{decode, Damage, DecodeError};
use self::codec::{encode, VERSION};
use crate::{
    chain::TxHash,
    crash::{self, Point},
    disk::{self, Disk, SystemDisk},
};

/// Name of the file in the relayer's home.
pub const FILE: &str = "relayer.checkpoint";
/// A transaction has less than 1 MB and an item about 200 bytes.
const FILE_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Blocks in which nothing happened for us may be read again after a crash: one fsync for so many of them.
const QUIET_BLOCKS: u64 = 32;

/// Whose work this is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Owner {
    pub chain_id: String,
    pub orchestrator: String,
    pub provider: String,
}

/// How far an item is. Later ones never become earlier ones, except that a transaction which can be in no block any more is forgotten.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Stage {
    /// Assigned to us; the host may not know yet.
    Fresh {},
    /// The host has taken it.
    Started {},
    /// Its attestation is in the transaction at hand, which may or may not have been sent.
    Prepared { tx_hash: TxHash },
    /// Its attestation is on chain. Kept until the event of it was read.
    Confirmed { tx_hash: TxHash },
    /// The contract has refused its attestation. Kept until the attempt has ended.
    Refused { tx_hash: TxHash },
}

/// An attempt at an item that is assigned to us.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    pub item: ItemId,
    pub attempt: u8,
    /// Block time in seconds.
    pub deadline: u64,
    /// Until when an attestation is taken: deadline and grace. Block time in seconds.
    pub attest_until: u64,
    /// Until when evidence is taken. Block time in seconds.
    pub evidence_until: u64,
    /// Whether the last span is ours, so that we attest.
    pub last_span: bool,
    pub stage: Stage,
}

/// The one transaction under way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Transaction {
    pub tx_hash: TxHash,
    #[serde(with = "codec::base64_text")]
    pub bytes: Vec<u8>,
}

/// Everything of a relayer that outlives its process.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct State {
    /// All blocks up to this one have been taken in. None: none yet.
    pub height: Option<u64>,
    entries: BTreeMap<ItemId, Entry>,
    transaction: Option<Transaction>,
}

impl State {
    /// The attempt at this item that is assigned to us.
    pub fn entry(&self, item: ItemId) -> Option<&Entry> {
        self.entries.get(&item)
    }

    /// All attempts that are assigned to us.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.entries.values()
    }

    /// The transaction under way.
    pub fn transaction(&self) -> Option<&Transaction> {
        self.transaction.as_ref()
    }

    /// Takes an attempt in. False: this one, or a later one, is known already.
    pub fn assigned(&mut self, entry: Entry) -> bool {
        let known = self.entries.get(&entry.item);
        let is_new = known.is_none_or(|known| known.attempt < entry.attempt);
        if is_new {
            self.entries.insert(entry.item, entry);
        }
        is_new
    }

    /// Forgets an item whose attempt is over on chain. False: nothing to forget.
    pub fn ended(&mut self, item: ItemId, attempt: u8) -> bool {
        let is_over = self.entries.get(&item).is_some_and(|entry| entry.attempt <= attempt);
        is_over && self.entries.remove(&item).is_some()
    }

    /// Notes that the host has taken an item.
    pub fn started(&mut self, item: ItemId, attempt: u8) {
        self.step(item, attempt, |stage| match stage {
            Stage::Fresh {} => Stage::Started {},
            later => later,
        });
    }

    /// Notes what is about to be sent, and for which items.
    pub fn prepared(&mut self, transaction: Transaction, attested: &[(ItemId, u8)]) {
        let tx_hash = transaction.tx_hash;
        for (item, attempt) in attested {
            self.step(*item, *attempt, |stage| match stage {
                Stage::Fresh {} | Stage::Started {} => Stage::Prepared { tx_hash },
                later => later,
            });
        }
        self.transaction = Some(transaction);
    }

    /// The transaction under way is over; what it contained becomes what `result` says, or goes back to `Started`.
    pub fn concluded(&mut self, result: impl Fn(ItemId, u8) -> Option<Stage>) {
        self.transaction = None;
        for entry in self.entries.values_mut() {
            if matches!(entry.stage, Stage::Prepared { .. }) {
                entry.stage = result(entry.item, entry.attempt).unwrap_or(Stage::Started {});
            }
        }
    }

    fn step(&mut self, item: ItemId, attempt: u8, next: impl FnOnce(Stage) -> Stage) {
        if let Some(entry) = self.entries.get_mut(&item).filter(|entry| entry.attempt == attempt) {
            entry.stage = next(entry.stage);
        }
    }
}

/// Why there is no checkpoint to work with.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    #[error("{path}: {source}", path = path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("another relayer works in this home: {path} is locked", path = path.display())]
    Locked { path: PathBuf },
    #[error("{path} is of version {found}, this program knows version {VERSION}", path = path.display())]
    Version { path: PathBuf, found: u32 },
    #[error("{path} belongs to {found:?}, this relayer is {expected:?}: use another home or move the file away", path = path.display())]
    Foreign {
        path: PathBuf,
        found: Box<Owner>,
        expected: Box<Owner>,
    },
}

impl CheckpointError {
    /// Whether there is no room on the disk: somebody may make some, and nothing was lost so far.
    pub fn is_full(&self) -> bool {
        matches!(self, Self::File { source, .. } if disk::is_full(source))
    }
}

/// A file that was kept aside, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetAside {
    pub path: PathBuf,
    pub damage: Damage,
}

/// The state and its file.
#[derive(Debug)]
pub struct Store {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    owner: Owner,
    memory: Mutex<Memory>,
    /// Held for as long as the store lives.
    _lock: File,
}

#[derive(Debug)]
struct Memory {
    state: State,
    saved_height: u64,
}

impl Store {
    /// Opens the checkpoint of a home, or an empty one. A broken file is kept aside and told.
    pub fn open(home: &Path, owner: Owner) -> Result<(Store, Option<SetAside>), CheckpointError> {
        Store::open_on(Arc::new(SystemDisk), home, owner)
    }

    /// The same on another disk. The lock is always one of this machine.
    pub fn open_on(
        disk: Arc<dyn Disk>,
        home: &Path,
        owner: Owner,
    ) -> Result<(Store, Option<SetAside>), CheckpointError> {
        let path = home.join(FILE);
        fs::create_dir_all(home).map_err(|source| failed(home, source))?;
        let lock = take_lock(&home.join(format!("{FILE}.lock")))?;
        crash::pass(Point::Locked);
        let (state, set_aside) = match read(&*disk, &path)? {
            None => (State::default(), None),
            Some(Ok((found, state))) if found == owner => {
                // The last process may have been killed between writing it and making it safe; from here on somebody acts on it.
                disk.sync(&path)
                    .and_then(|()| disk.sync_folder(home))
                    .map_err(|source| failed(&path, source))?;
                (state, None)
            }
            Some(Ok((found, _))) => {
                let (found, expected) = (Box::new(found), Box::new(owner));
                return Err(CheckpointError::Foreign { path, found, expected });
            }
            Some(Err(damage)) => {
                let aside = disk::keep_aside(&*disk, &path).map_err(|source| failed(&path, source))?;
                (State::default(), Some(SetAside { path: aside, damage }))
            }
        };
        crash::pass(Point::Opened);
        let saved_height = state.height.unwrap_or(0);
        let store = Store {
            disk,
            path,
            owner,
            memory: Mutex::new(Memory { state, saved_height }),
            _lock: lock,
        };
        Ok((store, set_aside))
    }

    /// A copy of the state as it is now.
    pub fn state(&self) -> State {
        self.memory().state.clone()
    }

    /// Reads something out of the state.
    pub fn read<R>(&self, look: impl FnOnce(&State) -> R) -> R {
        look(&self.memory().state)
    }

    /// Changes the state. When this returns, the change is on disk. After an error nothing has changed for this process, though a crash
    /// may still bring the change to light; nobody has acted on it, so that does no harm.
    ///
    /// It writes on the caller's thread: a few kilobytes, and nobody may go on before they are safe.
    pub fn update<R>(&self, change: impl FnOnce(&mut State) -> R) -> Result<R, CheckpointError> {
        let mut memory = self.memory();
        let mut next = memory.state.clone();
        let result = change(&mut next);
        if next != memory.state {
            self.save(&mut memory, next)?;
        }
        Ok(result)
    }

    /// Notes a block in which nothing happened for us. It reaches the disk with the next change, or after some more of them.
    pub fn quiet_block(&self, height: u64) -> Result<(), CheckpointError> {
        let mut memory = self.memory();
        memory.state.height = Some(height);
        if height.saturating_sub(memory.saved_height) < QUIET_BLOCKS {
            return Ok(());
        }
        let state = memory.state.clone();
        self.save(&mut memory, state)
    }

    /// Writes the state as it is, at the end.
    pub fn flush(&self) -> Result<(), CheckpointError> {
        let mut memory = self.memory();
        let state = memory.state.clone();
        self.save(&mut memory, state)
    }

    fn save(&self, memory: &mut Memory, state: State) -> Result<(), CheckpointError> {
        let content = encode(&self.owner, &state);
        disk::replace(&*self.disk, &self.path, &content).map_err(|source| failed(&self.path, source))?;
        memory.saved_height = state.height.unwrap_or(0);
        memory.state = state;
        Ok(())
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        // A panic in a change leaves the old state: changes are made on a copy.
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

type Found = Result<(Owner, State), Damage>;

fn read(disk: &dyn Disk, path: &Path) -> Result<Option<Found>, CheckpointError> {
    let content = match disk.read(path, FILE_BYTES_MAX.saturating_add(1)) {
        Ok(content) => content,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(failed(path, source)),
    };
    if content.len() as u64 > FILE_BYTES_MAX {
        return Ok(Some(Err(Damage::TooLong)));
    }
    match decode(&content) {
        Ok(found) => Ok(Some(Ok(found))),
        Err(DecodeError::Damaged(damage)) => Ok(Some(Err(damage))),
        Err(DecodeError::Version(found)) => Err(CheckpointError::Version {
            path: path.to_owned(),
            found,
        }),
    }
}

fn take_lock(path: &Path) -> Result<File, CheckpointError> {
    let opened = OpenOptions::new().create(true).truncate(false).write(true).open(path);
    let file = opened.map_err(|source| failed(path, source))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(CheckpointError::Locked { path: path.to_owned() }),
        Err(TryLockError::Error(source)) => Err(failed(path, source)),
    }
}

fn failed(path: &Path, source: io::Error) -> CheckpointError {
    CheckpointError::File {
        path: path.to_owned(),
        source,
    }
}
