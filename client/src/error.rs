//! Everything that can go wrong between us and the chain, one fact a variant.

use crate::{network::NetworkError, outcome::TxHash, wallet::WalletError};

/// Why a call did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No answer, or none that a node gives: down, restarting, overloaded, or something else listens there.
    #[error("the node at {rpc} cannot be reached: {reason}")]
    Unreachable {
        /// The node's URL.
        rpc: String,
        /// The first line of what went wrong.
        reason: String,
    },
    /// The node belongs to another chain.
    #[error("the node is on chain {found:?}, the network file says {expected:?}")]
    ChainIdMismatch {
        /// What the network file says.
        expected: String,
        /// What the node says.
        found: String,
    },
    /// Each of several nodes belongs to another chain.
    #[error("no node is on chain {expected:?} of the network file: {found}")]
    WrongChains {
        /// What the network file says.
        expected: String,
        /// What each node says.
        found: String,
    },
    /// The node answers from an older state than one that was told before.
    #[error("the node at {node} is at block {height}, and block {seen} was seen before")]
    Behind {
        /// Its host and port.
        node: String,
        /// Where it is.
        height: u64,
        /// What was told before.
        seen: u64,
    },
    /// The fee is more than may be paid. Nothing was signed.
    #[error("{gas} gas would cost {fee}{denom}, and a transaction may cost {fee_max}{denom}")]
    FeeTooHigh {
        /// The gas limit.
        gas: u64,
        /// What it costs.
        fee: u128,
        /// What it may cost.
        fee_max: u128,
        /// The gas coin.
        denom: String,
    },
    /// The account never received anything.
    #[error("account {address} does not exist on the chain: it must receive gas coin first")]
    UnknownAccount {
        /// The account.
        address: String,
    },
    /// There is no contract at the address.
    #[error("there is no contract at {address}")]
    UnknownContract {
        /// The address.
        address: String,
    },
    /// There is a contract at the address, but another one than the network file says.
    #[error("the contract at {address} is {found}, the network file says that it is {expected}")]
    WrongContract {
        /// The address.
        address: String,
        /// The name that it must have recorded of itself.
        expected: &'static str,
        /// The name that it has recorded.
        found: String,
    },
    /// The contract answered the query with an error.
    #[error("{contract} refused the query: {message}")]
    QueryRefused {
        /// The contract.
        contract: String,
        /// Its own sentence.
        message: String,
    },
    /// The contract or the chain refused the transaction. Sending it again would not help.
    #[error("{message}")]
    Refused {
        /// The contract's own sentence, or the chain's where no contract spoke.
        message: String,
        /// The result code, see `codespace`.
        code: u32,
        /// Who defines the code: `wasm` for contracts, `sdk` for the chain.
        codespace: String,
        /// The transaction, where it got into a block; fees were paid then.
        hash: Option<TxHash>,
    },
    /// The transaction was signed for another sequence than the account's next one.
    #[error("wrong account sequence: {message}")]
    SequenceMismatch {
        /// The sequence that the node wants, where it said so.
        expected: Option<u64>,
        /// The node's sentence.
        message: String,
    },
    /// The transaction was accepted but is in no block so far. It may still get into one.
    #[error("transaction {hash} was in no block after {seconds} s")]
    NotConfirmed {
        /// The transaction.
        hash: TxHash,
        /// How long we waited.
        seconds: u64,
    },
    /// Another transaction of this account was prepared and neither sent nor dropped.
    #[error("another transaction of {address} has been in preparation for {seconds} s")]
    Busy {
        /// The account.
        address: String,
        /// How long we waited.
        seconds: u64,
    },
    /// The node no longer has the block.
    #[error("block {height} is no longer on the node, its oldest is {earliest}")]
    Pruned {
        /// The block asked for.
        height: u64,
        /// The oldest one available.
        earliest: u64,
    },
    /// The chain is shorter than what was already read from it: it was reset.
    #[error("the chain is at height {latest}, but block {next} comes next: it was reset")]
    ChainWentBack {
        /// The height that the reader waits for.
        next: u64,
        /// The chain's height.
        latest: u64,
    },
    /// The node answered something that does not parse or makes no sense.
    #[error("the node's answer to {what} cannot be used: {reason}")]
    BadAnswer {
        /// The request.
        what: &'static str,
        /// What is wrong with the answer.
        reason: String,
    },
    /// The message to send cannot be built.
    #[error("cannot build the transaction: {0}")]
    BadCall(String),
    /// The network file cannot be used.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// A key or address cannot be used.
    #[error(transparent)]
    Wallet(#[from] WalletError),
}

impl ClientError {
    /// Whether the same call may succeed later without anybody changing anything.
    pub fn is_transient(&self) -> bool {
        matches!(
            self,
            ClientError::Unreachable { .. }
                | ClientError::Behind { .. }
                | ClientError::SequenceMismatch { .. }
                | ClientError::NotConfirmed { .. }
                | ClientError::Busy { .. }
        )
    }
}
