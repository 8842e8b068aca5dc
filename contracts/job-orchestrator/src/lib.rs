#![doc = include_str!("../README.md")]

pub mod contract;

mod blame;
mod chain;
mod compare;
mod conclusion;
mod course;
mod effects;
mod error;
mod forced;
mod order;
mod proof;
mod prune;
mod query;
mod randomness;
mod redraw;
mod state;
mod testimony;
#[cfg(test)]
mod tests;

pub use crate::{chain::ChainError, error::ContractError, proof::Refusal, prune::PruneRefusal};
