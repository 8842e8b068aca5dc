//! The wire contract of Function Network: what contracts, hosts, relayers and clients say to each other.
//!
//! Everybody speaks this crate and nobody speaks past it. It does no I/O and depends on no other member of the workspace.
//! Bytes that are signed or hashed are defined in [`canonical`], [`merkle`], [`receipt`] and [`session`]; money in [`price`].

pub mod beacon;
pub mod canonical;
pub mod event;
pub mod hex_bytes;
pub mod id;
pub mod merkle;
pub mod msg;
pub mod params;
pub mod price;
pub mod receipt;
pub mod session;
pub mod text;
pub mod work;

pub use crate::{
    beacon::{Round, Schedule},
    event::Event,
    hex_bytes::{BeaconKey, BeaconSignature, Digest, PublicKey, Signature},
    id::{ItemId, ModelId, Namespace},
    msg::{escrow, orchestrator, randomness, registry, staking, token},
};

/// One whole in basis points.
pub const BPS: u16 = 10_000;
/// Base units (ufunc) of one FUNC.
pub const UFUNC: u128 = 1_000_000;
/// All FUNC there will ever be, in ufunc.
pub const TOTAL_SUPPLY: u128 = 1_000_000_000 * UFUNC;
/// Bytes of input that may ride inside `SubmitJob` for one shard.
pub const INLINE_BYTES_MAX: usize = 8 * 1024;
/// Items in one `SubmitAttestations` or `Settle`.
pub const BATCH_MAX: usize = 32;
/// Stages of a model version; a chain has at most as many spans.
pub const STAGES_MAX: usize = 32;
