//! What a host tells the relayer of the same provider: the bodies of the host's private work interface, and the file that names it.
//!
//! Nothing here is signed or goes on chain; the links inside carry their own signatures.

use cosmwasm_schema::cw_serde;
use cosmwasm_std::Uint128;

use crate::{escrow::VoucherRefusal, receipt::Link, session::SignedVoucher, ItemId};

/// Vouchers on one page of the host's answer: those that are worth most, urgent ones first.
pub const VOUCHERS_PAGE_MAX: usize = 256;

/// How far a host is with its part of an item.
#[cw_serde]
#[derive(Copy, Eq)]
pub enum WorkState {
    /// Assigned to this host; its input has not arrived yet.
    Known,
    /// The input is here: the host computes, or hands its output to the next one.
    Running,
    /// This host's part is finished: acknowledged by the next host, or kept for the developer by the last one.
    Done,
    /// This host has given up. `error` says why; what can be proven stays provable.
    Failed,
}

/// Answer to `PUT` and `GET /v1/items/{item}/{attempt}`.
#[cw_serde]
#[derive(Eq)]
pub struct WorkStatus {
    pub item: ItemId,
    pub attempt: u8,
    pub state: WorkState,
    /// Everything that this host can prove, first span first: receipts up to its own, each with the acknowledgement it knows of.
    pub links: Vec<Link>,
    /// Whether `links` covers all spans and may be attested. Only the host of the last span gets there.
    pub complete: bool,
    /// Why the work failed, one sentence.
    pub error: Option<String>,
}

/// Answer to `GET /v1/vouchers`: what the relayer may have settled, urgent ones first. At most [`VOUCHERS_PAGE_MAX`].
#[cw_serde]
#[derive(Eq)]
pub struct HeldVouchers {
    pub vouchers: Vec<HeldVoucher>,
}

/// The best voucher for one deployment in one session, which the chain has not paid in full yet.
#[cw_serde]
#[derive(Copy, Eq)]
pub struct HeldVoucher {
    pub voucher: SignedVoucher,
    /// Of its amount, what is not settled, in ufunc.
    pub worth: Uint128,
    /// Chain time in Unix seconds since when there is something to settle.
    pub since: u64,
    /// To be settled now, whatever it is worth: the session ends, or its client waits for the consent to an early end.
    pub urgent: bool,
    /// Chain time in Unix seconds after which anyone may close the allocation.
    pub closes_at: u64,
}

/// Body of `POST /v1/vouchers`: what became of vouchers on chain. At most [`VOUCHERS_PAGE_MAX`].
#[cw_serde]
#[derive(Eq)]
pub struct SettlementNews {
    pub vouchers: Vec<VoucherNews>,
}

/// What the chain said of one voucher.
#[cw_serde]
#[derive(Copy, Eq)]
pub struct VoucherNews {
    pub session: u64,
    pub deployment: u64,
    pub sequence: u64,
    /// None: it is paid.
    pub refusal: Option<VoucherRefusal>,
}

/// `HOME/host.json`: where a running host listens. Written at start, removed at the end.
#[cw_serde]
#[derive(Eq)]
pub struct HostFile {
    pub pid: u32,
    /// Public address, `ip:port`: spans, blobs and outputs.
    pub listen: String,
    /// Private address, `ip:port`: the work interface, status and metrics.
    pub status: String,
    /// Address of the provider that the host serves.
    pub provider: String,
    /// Unix seconds.
    pub started_at: u64,
}
