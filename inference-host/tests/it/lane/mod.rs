//! Sessions as their clients, neighbours and relayers see them.

pub(crate) mod client;
mod cost;
mod kill;
mod neighbours;
mod refusals;
mod stories;
