#![doc = include_str!("../README.md")]

pub mod contract;

mod distribution;
mod error;
mod forced;
mod lane;
mod ledger;
mod payroll;
mod query;
mod session;
mod settlement;
mod split;
mod state;
#[cfg(test)]
mod tests;
mod voucher;

pub use crate::error::ContractError;
