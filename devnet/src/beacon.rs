//! The beacon of a development network: its key is everybody's, so the node signs the rounds itself, beside its RPC.

use axum::Router;
use beacon::{server::wall_clock, Secret, Server};
use schema::params::{BeaconParams, Params};
use serde_json::{json, Value};

/// Where drand's paths begin.
pub(crate) const PATH: &str = "/beacon";

/// Whether the network's beacon is the one whose key everybody has.
fn is_development(params: &BeaconParams) -> bool {
    params.public_key == Secret::development().public_key()
}

/// drand's paths, if the key is ours.
pub(crate) fn routes(params: &Params) -> Option<Router> {
    let params = params.beacon.as_ref().filter(|params| is_development(params))?;
    let server = Server::new(Secret::development(), params.schedule(), wall_clock);
    Some(server.rounds())
}

/// What the network file says of it.
pub(crate) fn told(params: &Params, rpc: &str) -> Option<Value> {
    let params = params.beacon.as_ref()?;
    let mut urls = params.urls.clone();
    if is_development(params) {
        urls.insert(0, format!("{rpc}{PATH}"));
    }
    let mut told = json!({
        "public_key": params.public_key,
        "genesis_seconds": params.genesis_seconds,
        "period_seconds": params.period_seconds,
    });
    if !urls.is_empty() {
        told["urls"] = json!(urls);
    }
    Some(told)
}
