#![doc = include_str!("../README.md")]

pub mod contract;

mod rounds;
mod verify;

mod error;
#[cfg(test)]
mod tests;

pub use error::ContractError;
