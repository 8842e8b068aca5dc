//! Named places at which a test may kill the process or fill the disk. In a normal build they are nothing.
//!
//! One list makes the enum, the names and [`POINTS`], so that a place cannot be named without being in the list, and the crash
//! tests walk the list: a place that no run comes by fails them.

use std::io;

macro_rules! points {
    ($($(#[$doc:meta])* $point:ident = $name:literal,)+) => {
        /// A place worth dying at.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum Point { $($(#[$doc])* $point,)+ }

        /// The names of all places.
        pub const POINTS: &[&str] = &[$($name,)+];

        impl Point {
            fn name(self) -> &'static str {
                match self { $(Self::$point => $name,)+ }
            }
        }
    };
}

points! {
    /// Each file that is replaced: nothing done, temporary file safe, renamed, folder safe.
    RecordBefore = "record/before",
    RecordWritten = "record/written",
    RecordRenamed = "record/renamed",
    RecordKept = "record/kept",
    InputBefore = "input/before",
    InputWritten = "input/written",
    InputRenamed = "input/renamed",
    InputKept = "input/kept",
    OutputBefore = "output/before",
    OutputWritten = "output/written",
    OutputRenamed = "output/renamed",
    OutputKept = "output/kept",
    StateBefore = "state/before",
    StateWritten = "state/written",
    StateRenamed = "state/renamed",
    StateKept = "state/kept",
    /// Rows that a kept record made superfluous are gone.
    RowsForgotten = "rows/forgotten",
    /// Our word is made, but nobody and nothing knows it yet.
    ReceiptSigned = "receipt/signed",
    AcknowledgementSigned = "acknowledgement/signed",
    /// It is safe, but not sent.
    AcknowledgementKept = "acknowledgement/kept",
    PushFrame = "push/frame",
    PushAnswered = "push/answered",
    BlobPartial = "blob/partial",
    BlobComplete = "blob/complete",
    BlobRenamed = "blob/renamed",
    /// Forgotten in memory, not on disk.
    PruneBegun = "prune/begun",
    PruneRowsGone = "prune/rows-gone",
    /// Vouchers that are put at the end of their log: nothing done, written, safe.
    VouchersBefore = "lane/vouchers-before",
    VouchersWritten = "lane/vouchers-written",
    VouchersKept = "lane/vouchers-kept",
    /// The log written anew.
    LogBefore = "lane/log-before",
    LogWritten = "lane/log-written",
    LogRenamed = "lane/log-renamed",
    LogKept = "lane/log-kept",
    /// A voucher is accepted; it is nowhere but in memory.
    VoucherAccepted = "lane/voucher-accepted",
    /// A request is paid for as far as it must be; nothing is computed.
    RequestAdmitted = "lane/request-admitted",
    /// It is computed; nothing is signed.
    RequestComputed = "lane/request-computed",
    /// The receipt is signed; nobody has it.
    SessionReceiptSigned = "lane/receipt-signed",
    /// The client has it; the rows are still here.
    SessionReceiptSent = "lane/receipt-sent",
    /// One frame of a boundary is on its way to the next span.
    BoundaryFrame = "lane/boundary-frame",
    /// The next span has taken the boundary.
    BoundaryAnswered = "lane/boundary-answered",
    /// A boundary is here and right; the host before does not know.
    BoundaryTaken = "lane/boundary-taken",
    /// The relayer has told what the chain has settled; nothing was done about it.
    SettlementHeard = "lane/settlement-heard",
    /// The consent to an early end is signed and safe; nobody has it.
    ConsentSigned = "lane/consent-signed",
}

/// Comes by a place. An error is a disk that a test has filled.
pub(crate) fn at(point: Point) -> io::Result<()> {
    fail::fail_point!(point.name(), |_| Err(io::ErrorKind::StorageFull.into()));
    let _ = point.name();
    Ok(())
}

/// Comes by a place at which nothing is written.
pub(crate) fn pass(point: Point) {
    drop(at(point));
}
