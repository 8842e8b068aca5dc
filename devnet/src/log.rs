//! The transaction log: what makes a devnet the same one after a restart.
//!
//! A file of frames: first a header that says which chain this is, then one record a block with everything that decided it
//! (height, time, the transactions' bytes in order) and the digest of what came out. A frame is its length, the length's
//! complement, the content, and a SHA-256 over the checksum of the frame before and the content.
//!
//! Guarantees:
//! - [`Log::append`] returns once the block is on the disk; nobody is told of a block before.
//! - An append that a crash cut short is moved aside, byte by byte, and reported. It was told to nobody.
//! - Any other difference from what was written (a flipped bit, a missing, doubled or foreign record) is refused and nothing is
//!   touched. What cannot be seen is a file cut off exactly between two records: it is the log of a younger chain.
//! - One process a folder. A log that is removed while the chain runs stops the chain.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, BufReader, Read, Seek, SeekFrom, Write},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Changes when an older log could no longer be read or would be read differently.
const FORMAT: u32 = 1;
const FILE: &str = "chain.log";
const LOCK: &str = "lock";
/// Length and its complement.
const HEAD: usize = 8;
const CHECKSUM: usize = 32;
/// A block of the largest size with its frame stays far below.
const CONTENT_MAX: usize = 64 * 1024 * 1024;

/// Why a state folder cannot be used, or not any more. Nothing in it was changed.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The disk or the system refuses.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Somebody has taken the log away from under the chain.
    #[error("{} was removed or replaced while the chain ran: nothing of what comes could be found again", .0.display())]
    Removed(PathBuf),
    /// Another process has the folder.
    #[error("{} is in use by another process: a state folder belongs to one devnet at a time", .0.display())]
    Locked(PathBuf),
    /// The log is not what was written.
    #[error(
        "{} is damaged at byte {offset}, after block {height}: {reason}. Nothing was changed; restore the file from a copy, or begin a new chain with another state folder",
        path.display()
    )]
    Damaged {
        /// The log.
        path: PathBuf,
        /// Where the frame begins that cannot be read.
        offset: u64,
        /// The last block that can be read.
        height: u64,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The log is sound, but of another chain.
    #[error("{} is the log of another chain: {difference}. Give the configuration it was made with, or another state folder", path.display())]
    Foreign {
        /// The log.
        path: PathBuf,
        /// What differs, with both values.
        difference: String,
    },
    /// The log is sound, but its transactions have other results today.
    #[error(
        "block {height} of {} does not come out as it did when it was made: the contracts or the chain of this program behave differently. Use the program that made it, or another state folder",
        path.display()
    )]
    Differs {
        /// The log.
        path: PathBuf,
        /// The first block that differs.
        height: u64,
    },
}

/// Which chain a log belongs to: everything that decides the state before the first block.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Identity {
    pub(crate) format: u32,
    pub(crate) chain_id: String,
    pub(crate) denom: String,
    /// Digest of the accounts and what they have.
    pub(crate) accounts: String,
    /// Digest of the market's parameters; empty on a bare chain.
    pub(crate) parameters: String,
    /// Names, versions and checksums of the contracts, in the order of their codes.
    pub(crate) codes: Vec<String>,
}

impl Identity {
    pub(crate) const FORMAT: u32 = FORMAT;

    /// The first difference, in words.
    fn difference(&self, ours: &Identity) -> Option<String> {
        let pairs = [
            ("format", self.format.to_string(), ours.format.to_string()),
            ("chain id", self.chain_id.clone(), ours.chain_id.clone()),
            ("gas coin", self.denom.clone(), ours.denom.clone()),
            ("accounts", self.accounts.clone(), ours.accounts.clone()),
            ("parameters", self.parameters.clone(), ours.parameters.clone()),
            ("contracts", self.codes.join(", "), ours.codes.join(", ")),
        ];
        let differing = pairs.into_iter().find(|(_, theirs, ours)| theirs != ours);
        differing.map(|(what, theirs, ours)| format!("it was made with {what} {theirs:?}, and this one has {ours:?}"))
    }
}

/// The first frame.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Header {
    pub(crate) identity: Identity,
    /// Block time before the first block, Unix nanoseconds.
    pub(crate) genesis_nanos: u64,
    /// Digest of the state before the first block, in hex.
    pub(crate) genesis: String,
}

/// One block: what decided it, and the digest of what came out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) height: u64,
    pub(crate) time_nanos: u64,
    pub(crate) outcome: [u8; 32],
    pub(crate) txs: Vec<Vec<u8>>,
}

impl Record {
    /// Writes the content of a record without copying the transactions twice.
    fn encode<'a>(
        into: &mut Vec<u8>,
        height: u64,
        time_nanos: u64,
        outcome: &[u8; 32],
        txs: impl Iterator<Item = &'a [u8]>,
    ) {
        into.extend(height.to_le_bytes());
        into.extend(time_nanos.to_le_bytes());
        into.extend(outcome);
        for tx in txs {
            into.extend(length_of(tx).to_le_bytes());
            into.extend(tx);
        }
    }

    fn decode(content: &[u8]) -> Option<Record> {
        let (height, rest) = content.split_first_chunk()?;
        let (time_nanos, rest) = rest.split_first_chunk()?;
        let (outcome, mut rest) = rest.split_first_chunk()?;
        let mut txs = vec![];
        while !rest.is_empty() {
            let (length, after) = rest.split_first_chunk()?;
            let (tx, after) = after.split_at_checked(usize::try_from(u32::from_le_bytes(*length)).ok()?)?;
            txs.push(tx.to_vec());
            rest = after;
        }
        Some(Record {
            height: u64::from_le_bytes(*height),
            time_nanos: u64::from_le_bytes(*time_nanos),
            outcome: *outcome,
            txs,
        })
    }
}

/// Lengths here are far below 4 GiB: transactions and blocks have limits.
fn length_of(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).unwrap_or(u32::MAX)
}

fn checksum(link: &[u8; 32], content: &[u8]) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(link);
    hash.update(content);
    hash.finalize().into()
}

/// A state folder that is ours.
#[derive(Debug)]
pub(crate) struct Folder {
    path: PathBuf,
    /// Holds the lock until the process ends, however it ends.
    lock: File,
}

impl Folder {
    /// Makes the folder if need be and takes it.
    pub(crate) fn open(path: &Path) -> Result<Folder, StateError> {
        fs::create_dir_all(path).map_err(|source| io_error("make the folder", path, source))?;
        let place = path.join(LOCK);
        let mut options = OpenOptions::new();
        let opened = options.create(true).truncate(false).write(true).open(&place);
        let lock = opened.map_err(|source| io_error("open", &place, source))?;
        match lock.try_lock() {
            Ok(()) => Ok(Folder {
                path: path.to_owned(),
                lock,
            }),
            Err(TryLockError::WouldBlock) => Err(StateError::Locked(path.to_owned())),
            Err(TryLockError::Error(source)) => Err(io_error("lock", &place, source)),
        }
    }

    /// The log that is there, if one is; refused when it is of another chain.
    pub(crate) fn read(&self, ours: &Identity) -> Result<Option<Reader>, StateError> {
        let path = self.path.join(FILE);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(io_error("open", &path, source)),
        };
        let length = file.metadata().map_err(|source| io_error("read", &path, source))?.len();
        let mut reader = Reader {
            file: BufReader::with_capacity(1 << 20, file),
            path,
            length,
            offset: 0,
            link: [0; 32],
            height: 0,
            header: Header::default(),
        };
        // The header is put in its place whole, so a short one is damage.
        let content = match reader.frame()? {
            Frame::Whole(content) => content,
            Frame::End | Frame::Torn => return Err(reader.damaged("the header is cut off")),
        };
        let header: Header =
            serde_json::from_slice(&content).map_err(|_| reader.damaged("the header is of an unknown format"))?;
        if let Some(difference) = header.identity.difference(ours) {
            let path = reader.path;
            return Err(StateError::Foreign { path, difference });
        }
        reader.header = header;
        Ok(Some(reader))
    }

    /// Begins a new log.
    pub(crate) fn create(self, header: &Header) -> Result<Log, StateError> {
        let path = self.path.join(FILE);
        let content = serde_json::to_vec(header).map_err(|error| io_error("write", &path, error.into()))?;
        let mut frame = vec![];
        let link = seal(&mut frame, &[0; 32], |bytes| bytes.extend(&content));
        let new = self.path.join("chain.log.new");
        let written = write_durably(&new, &frame);
        written.map_err(|source| io_error("write", &new, source))?;
        fs::rename(&new, &path).map_err(|source| io_error("write", &path, source))?;
        sync_folder(&self.path)?;
        let bytes = u64::from(length_of(&frame));
        self.append_to(path, bytes, link)
    }

    fn append_to(self, path: PathBuf, bytes: u64, link: [u8; 32]) -> Result<Log, StateError> {
        let file = OpenOptions::new().append(true).open(&path);
        let file = file.map_err(|source| io_error("open", &path, source))?;
        Ok(Log {
            file,
            path,
            bytes,
            link,
            frame: vec![],
            _lock: self.lock,
        })
    }
}

fn io_error(action: &'static str, path: &Path, source: io::Error) -> StateError {
    let path = path.to_owned();
    StateError::Io { action, path, source }
}

fn write_durably(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn sync_folder(path: &Path) -> Result<(), StateError> {
    let synced = File::open(path).and_then(|folder| folder.sync_all());
    synced.map_err(|source| io_error("sync", path, source))
}

/// Writes one frame around a content; gives its checksum.
fn seal(frame: &mut Vec<u8>, link: &[u8; 32], content: impl FnOnce(&mut Vec<u8>)) -> [u8; 32] {
    frame.clear();
    frame.extend([0; HEAD]);
    content(frame);
    let body = frame.get(HEAD..).unwrap_or_default();
    let length = length_of(body);
    let link = checksum(link, body);
    let head = [length.to_le_bytes(), (!length).to_le_bytes()].concat();
    frame.splice(..HEAD, head);
    frame.extend(link);
    link
}

enum Frame {
    Whole(Vec<u8>),
    /// The file ends inside it, or in the zeros of a page that was never written.
    Torn,
    End,
}

/// A log that is being read, from its first block on.
#[derive(Debug)]
pub(crate) struct Reader {
    file: BufReader<File>,
    path: PathBuf,
    length: u64,
    /// Where the next frame begins.
    offset: u64,
    link: [u8; 32],
    /// The last block that was read.
    height: u64,
    header: Header,
}

/// What a log ended with.
#[derive(Debug)]
pub(crate) struct Recovered {
    pub(crate) log: Log,
    /// What was cut off, in a sentence.
    pub(crate) notice: Option<String>,
}

impl Reader {
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn genesis_nanos(&self) -> u64 {
        self.header.genesis_nanos
    }

    /// Refuses a first state that is not the one the log began with.
    pub(crate) fn check_genesis(&self, ours: &str) -> Result<(), StateError> {
        if self.header.genesis == ours {
            return Ok(());
        }
        let (path, theirs) = (self.path.clone(), &self.header.genesis);
        let difference = format!("its first state is {theirs}, and the one that this program makes is {ours}");
        Err(StateError::Foreign { path, difference })
    }

    /// The next block; `None` at the end, be it a clean or a torn one.
    pub(crate) fn next(&mut self) -> Result<Option<Record>, StateError> {
        let Frame::Whole(content) = self.frame()? else {
            return Ok(None);
        };
        let record = Record::decode(&content).ok_or_else(|| self.damaged("it is no record of a block"))?;
        let expected = self.height.saturating_add(1);
        if record.height != expected {
            return Err(self.damaged("its height does not follow"));
        }
        self.height = expected;
        Ok(Some(record))
    }

    fn frame(&mut self) -> Result<Frame, StateError> {
        let left = self.length.saturating_sub(self.offset);
        if left == 0 {
            return Ok(Frame::End);
        }
        let Some(head) = self.bytes(HEAD, left)? else {
            return Ok(Frame::Torn);
        };
        let [length, complement] = [0, 4].map(|at| {
            let word = head.get(at..).and_then(|rest| rest.first_chunk::<4>());
            u32::from_le_bytes(word.copied().unwrap_or_default())
        });
        let content_length = usize::try_from(length).unwrap_or(usize::MAX);
        if length != !complement || content_length > CONTENT_MAX {
            let zeros = head.iter().all(|byte| *byte == 0) && self.rest_is_zero()?;
            return if zeros {
                Ok(Frame::Torn)
            } else {
                Err(self.damaged("the length of the record is not readable"))
            };
        }
        let left = left.saturating_sub(u64::from(length_of(&head)));
        let Some(mut content) = self.bytes(content_length.saturating_add(CHECKSUM), left)? else {
            return Ok(Frame::Torn);
        };
        let sum = content.split_off(content_length);
        let link = checksum(&self.link, &content);
        let frame_length = u64::try_from(HEAD.saturating_add(content_length).saturating_add(CHECKSUM));
        let end = self.offset.saturating_add(frame_length.unwrap_or(u64::MAX));
        if sum != link {
            // The last pages of a crash may be there in length and not in content.
            let unwritten = end == self.length && sum.iter().all(|byte| *byte == 0);
            return if unwritten {
                Ok(Frame::Torn)
            } else {
                Err(self.damaged("the checksum of the record does not match"))
            };
        }
        self.link = link;
        self.offset = end;
        Ok(Frame::Whole(content))
    }

    /// So many bytes, or `None` when fewer are left.
    fn bytes(&mut self, count: usize, left: u64) -> Result<Option<Vec<u8>>, StateError> {
        if u64::try_from(count).map_or(true, |count| count > left) {
            return Ok(None);
        }
        let mut bytes = vec![0; count];
        let read = self.file.read_exact(&mut bytes);
        read.map_err(|source| io_error("read", &self.path, source))?;
        Ok(Some(bytes))
    }

    fn rest_is_zero(&mut self) -> Result<bool, StateError> {
        let mut piece = [0; 4096];
        loop {
            let read = self.file.read(&mut piece);
            let read = read.map_err(|source| io_error("read", &self.path, source))?;
            match piece.get(..read) {
                None | Some([]) => return Ok(true),
                Some(bytes) if bytes.iter().any(|byte| *byte != 0) => return Ok(false),
                Some(_) => {}
            }
        }
    }

    fn damaged(&self, reason: &'static str) -> StateError {
        StateError::Damaged {
            path: self.path.clone(),
            offset: self.offset,
            height: self.height,
            reason,
        }
    }

    /// Goes on writing where the log ends; what a crash left behind it is kept aside first.
    pub(crate) fn resume(self, folder: Folder) -> Result<Recovered, StateError> {
        let torn = self.length.saturating_sub(self.offset);
        let mut notice = None;
        if torn > 0 {
            let aside = self.keep_aside()?;
            notice = Some(format!(
                "the last write to {} was cut short by a crash: its {torn} bytes are now in {}, and the chain goes on after block {}",
                self.path.display(),
                aside.display(),
                self.height
            ));
        }
        let log = folder.append_to(self.path, self.offset, self.link)?;
        Ok(Recovered { log, notice })
    }

    fn keep_aside(&self) -> Result<PathBuf, StateError> {
        let mut source = File::open(&self.path).map_err(|source| io_error("open", &self.path, source))?;
        let mut tail = vec![];
        let read = source
            .seek(SeekFrom::Start(self.offset))
            .and_then(|_| source.read_to_end(&mut tail));
        read.map_err(|source| io_error("read", &self.path, source))?;
        let numbered = |number: u32| self.path.with_file_name(format!("{FILE}.torn-{number}"));
        let aside = (1..=u32::MAX).map(numbered).find(|path| !path.exists());
        let aside = aside.unwrap_or_else(|| numbered(0));
        write_durably(&aside, &tail).map_err(|source| io_error("write", &aside, source))?;
        if let Some(folder) = self.path.parent() {
            sync_folder(folder)?;
        }
        let cut = OpenOptions::new().write(true).open(&self.path).and_then(|file| {
            file.set_len(self.offset)?;
            file.sync_all()
        });
        cut.map_err(|source| io_error("shorten", &self.path, source))?;
        Ok(aside)
    }
}

/// A log that grows.
#[derive(Debug)]
pub(crate) struct Log {
    file: File,
    path: PathBuf,
    bytes: u64,
    link: [u8; 32],
    /// The frame being written; its memory is used again.
    frame: Vec<u8>,
    _lock: File,
}

impl Log {
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Puts a block on the disk. After an error the log must not be used again: nobody knows what is on the disk.
    pub(crate) fn append<'a>(
        &mut self,
        height: u64,
        time_nanos: u64,
        outcome: &[u8; 32],
        txs: impl Iterator<Item = &'a [u8]>,
    ) -> Result<(), StateError> {
        let link = seal(&mut self.frame, &self.link, |content| {
            Record::encode(content, height, time_nanos, outcome, txs);
        });
        let written = self.file.write_all(&self.frame).and_then(|()| self.file.sync_data());
        if let Err(source) = written {
            // A part of the frame may be there. Without it the next start has nothing to report.
            let _ = self.file.set_len(self.bytes);
            return Err(io_error("write", &self.path, source));
        }
        // A file without a name takes everything and is gone with this process.
        if self.file.metadata().is_ok_and(|log| log.nlink() == 0) {
            return Err(StateError::Removed(self.path.clone()));
        }
        self.link = link;
        self.bytes = self.bytes.saturating_add(u64::from(length_of(&self.frame)));
        // One large block does not hold its memory for ever.
        self.frame.shrink_to(1 << 20);
        Ok(())
    }
}

/// A log that takes nothing.
#[cfg(all(test, target_os = "linux"))]
pub(crate) fn on_a_full_disk() -> Log {
    let path = PathBuf::from("/dev/full");
    let open = || OpenOptions::new().write(true).open(&path).expect("Linux has it");
    Log {
        file: open(),
        bytes: 0,
        link: [0; 32],
        frame: vec![],
        _lock: open(),
        path: path.clone(),
    }
}

#[cfg(test)]
mod tests;
