//! The places at which it matters whether the process is killed there, each with a name.
//!
//! A build without the feature `crash-points`, which is every build but the relayer's own tests, has nothing here but an empty function:
//! no cost, and no way to reach any of it. With the feature a test process brings a hook, which decides at each pass whether this is where it
//! ends. `tests/crash/` kills a process at every name of [`Point::ALL`]; docs/adr/0007 tells why this is not a library.

macro_rules! points {
    ($($(#[doc = $doc:literal])* $variant:ident,)*) => {
        /// Somewhere between two effects on the world.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Point {
            $($(#[doc = $doc])* $variant,)*
        }

        #[cfg(feature = "crash-points")]
        impl Point {
            /// All of them, in the order of a life.
            pub const ALL: &[Point] = &[$(Point::$variant),*];

            /// Its name.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Point::$variant => stringify!($variant),)*
                }
            }
        }
    };
}

points! {
    /// The lock is ours; nothing was read.
    Locked,
    /// A damaged file has its new name; its folder is not synced.
    DamagedRenamed,
    /// The state was read; nothing is announced.
    Opened,
    /// A file is about to be written.
    FileUntouched,
    /// The temporary file is written, not synced.
    FileWritten,
    /// The temporary file is safe, not renamed.
    FileSynced,
    /// The file has its name; the folder is not synced.
    FileRenamed,
    /// The file is safe; nobody was told.
    FileSafe,
    /// `relayer.json` is there; no task runs.
    Announced,
    /// A block with something for us was read; nothing of it is written down.
    BlockRead,
    /// It is written down; no task knows.
    BlockTaken,
    /// The host has taken an item; that is not written down.
    HostTold,
    /// That is written down.
    HostNoted,
    /// The proof was fetched; nobody else has it.
    ProofFetched,
    /// A batch is complete; nothing is signed.
    Gathered,
    /// Signed; not written down.
    Signed,
    /// Hash and bytes are written down; the node has not got them.
    Prepared,
    /// The node has them.
    Sent,
    /// It is in a block; that is not written down.
    InBlock,
    /// The result is written down; nobody was told.
    Concluded,
    /// A transaction of the last run was found in the checkpoint.
    Recovering,
    /// Its bytes were handed over once more.
    SentAgain,
    /// Its fate is written down.
    Recovered,
    /// A transaction that can be in no block any more is about to be forgotten.
    GivenUp,
    /// Evidence is at hand; nothing is signed.
    EvidenceFound,
    /// Evidence is on chain.
    EvidencePosted,
    /// An overdue item had its second look; nothing is signed.
    OverdueFound,
    /// It is expired.
    Expired,
    /// Vouchers that are due are at hand; nothing is signed.
    VouchersDue,
    /// What became of them is known; the host was not told.
    VouchersSettled,
    /// The host was told.
    HostHeard,
    /// Told to stop; everything still runs.
    Stopping,
    /// Nothing runs any more; `relayer.json` is still there.
    Stopped,
    /// `relayer.json` is gone; the last height is not written down.
    Unannounced,
    /// Everything is done.
    Ended,
}

/// Passes a point. It may be the last thing that this process does.
#[cfg(not(feature = "crash-points"))]
#[inline(always)]
pub(crate) const fn pass(_: Point) {}

/// The system has said that a file or folder is safe. Only a test that cuts the power wants to know.
#[cfg(not(feature = "crash-points"))]
#[inline(always)]
pub(crate) const fn synced(_: &std::path::Path) {}

#[cfg(feature = "crash-points")]
pub use self::armed::{arm, arm_sync};
#[cfg(feature = "crash-points")]
pub(crate) use self::armed::{pass, synced};

#[cfg(feature = "crash-points")]
mod armed {
    use std::{path::Path, sync::OnceLock};

    use super::Point;

    type Hook = Box<dyn Fn(Point) + Send + Sync>;

    type SyncHook = Box<dyn Fn(&Path) + Send + Sync>;

    static HOOK: OnceLock<Hook> = OnceLock::new();
    static SYNC_HOOK: OnceLock<SyncHook> = OnceLock::new();

    /// Calls the hook at every pass from now on. Only the first hook of a process counts.
    pub fn arm(hook: impl Fn(Point) + Send + Sync + 'static) {
        let _ = HOOK.set(Box::new(hook));
    }

    /// Calls the hook after every sync of a file or folder from now on. Only the first hook of a process counts.
    pub fn arm_sync(hook: impl Fn(&Path) + Send + Sync + 'static) {
        let _ = SYNC_HOOK.set(Box::new(hook));
    }

    pub(crate) fn synced(path: &Path) {
        if let Some(hook) = SYNC_HOOK.get() {
            hook(path);
        }
    }

    pub(crate) fn pass(point: Point) {
        if let Some(hook) = HOOK.get() {
            hook(point);
        }
    }
}
