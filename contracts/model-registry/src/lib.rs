#![doc = include_str!("../README.md")]

pub mod contract;

mod model;
mod version;

mod error;
mod query;
mod state;

pub use error::ContractError;
