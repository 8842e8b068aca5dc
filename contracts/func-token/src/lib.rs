#![doc = include_str!("../README.md")]

pub mod contract;
mod error;

pub use error::ContractError;
