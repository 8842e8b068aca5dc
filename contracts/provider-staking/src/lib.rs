#![doc = include_str!("../README.md")]

pub mod contract;

mod provider;
mod rolling;
mod stake;

mod book;
mod deployment;

mod draw;
mod index;

mod error;
mod query;
mod state;

pub use draw::DrawError;
pub use error::ContractError;
