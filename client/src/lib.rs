//! The typed way to the chain: everything of Function Network that runs outside it goes through this crate.
//!
//! - [`Network`]: `network.json`, which chain and which contracts.
//! - [`Wallet`]: a secp256k1 key that signs transactions, receipts and vouchers.
//! - [`Client`]: queries and transaction look-ups, each with a time-out, at one node or at the healthiest of several.
//! - [`Account`]: a wallet on a client: prepare, broadcast, confirm; recovers from sequence mismatches.
//! - [`Client::find_code`]: what code is on the chain.
//! - [`Wish::plan`]: which deployments a session should set money apart for, and how much.
//! - [`Forcing::chain`]: which of them to ask on chain what was not answered.
//! - [`events::follow`]: the ordered, gap-free stream of our contracts' events.
//!
//! It works unchanged on the embedded chain (`devnet`) and on wasmd.

mod account;
mod call;
mod client;
mod codes;
mod cosmos;
mod endpoints;
mod error;
pub mod events;
mod force_plan;
mod network;
mod outcome;
mod queries;
mod rpc;
mod session_plan;
mod wallet;

pub use account::{Account, Limits, Prepared};
pub use call::Call;
pub use client::{node_status, validators, AccountInfo, Client, ContractInfo, ContractVersion, Status, Validator};
pub use codes::CodeInfo;
pub use endpoints::{Endpoint, Standing};
pub use error::ClientError;
pub use force_plan::{Forcing, NoChain};
pub use network::{Beacon, Contracts, Network, NetworkError};
pub use outcome::{ParseTxHashError, TxHash, TxOutcome};
pub use queries::{Escrow, Orchestrator, Registry, Staking, Token, ROWS_MAX};
pub use session_plan::{NoPlan, Part, Plan, Wish};
pub use wallet::{address_of, is_address, verify_digest, Wallet, WalletError};
