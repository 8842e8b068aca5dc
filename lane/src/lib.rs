//! Sessions off the chain: what a client and the hosts of its session say to each other, and what each may believe.
//!
//! The messages are in `proto/lane.proto`; what is signed in them is in `schema::session`.
//!
//! - [`acceptor`]: what a host believes of a client.
//! - [`issuer`]: what a client promises to a host.
//! - [`driver`]: the client's side of the conversation: many requests, over whichever hosts do them best.
//! - [`terms`]: what both know of the session.

pub mod acceptor;
pub mod driver;
pub mod issuer;
pub mod terms;

/// Generated from `proto/lane.proto`.
pub mod proto {
    #![allow(
        missing_docs,
        unreachable_pub,
        missing_debug_implementations,
        clippy::all,
        clippy::arithmetic_side_effects,
        clippy::allow_attributes_without_reason,
        reason = "generated code"
    )]
    tonic::include_proto!("fxn.lane.v1");
}
