//! Rounds of a randomness beacon in drand's format, outside the chain.
//!
//! - [`key`]: a key of one's own that signs rounds, and whether a signature is a round's.
//! - [`server`]: drand's HTTP paths over such a key, for networks that have no other beacon.
//! - [`source`]: fetches rounds from such servers, drand's or ours, and believes none of them.

pub mod key;
pub mod server;
pub mod source;

pub use crate::{
    key::{is_signed, Secret},
    server::{Clock, Server},
    source::{SignedRound, Source, SourceError},
};
