#![doc = include_str!("../README.md")]

pub mod contract;

mod distribution;
mod error;
mod ledger;
mod query;
mod settlement;
mod state;
#[cfg(test)]
mod tests;

pub use crate::error::ContractError;
