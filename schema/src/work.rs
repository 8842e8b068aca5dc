//! What a host tells the relayer of the same provider: the bodies of the host's private work interface, and the file that names it.
//!
//! Nothing here is signed or goes on chain; the links inside carry their own signatures.

use cosmwasm_schema::cw_serde;

use crate::{receipt::Link, ItemId};

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
