//! Messages and queries of the six contracts, one module a contract.
//!
//! Texts that name accounts are unchecked `String`s here; contracts check them. Unknown fields are refused everywhere.

pub mod escrow;
pub mod orchestrator;
pub mod randomness;
pub mod registry;
mod session;
pub mod staking;
pub mod token;

use cosmwasm_schema::cw_serde;
use cosmwasm_std::Binary;

use crate::Digest;

/// Answer to `Config` of every contract but the token.
#[cw_serde]
pub struct AdminResponse {
    pub admin: String,
    /// To whom the admin has offered the role, if to anybody.
    pub proposed: Option<String>,
}

/// To the new code of a contract that was migrated. So far there is nothing to say.
#[cw_serde]
pub struct MigrateMsg {}

/// Answer to `Migration` of the contracts that can be migrated.
#[cw_serde]
pub struct MigrationResponse {
    /// Who may propose a migration, and cancel it.
    pub admin: String,
    /// From a proposal made now to its date.
    pub notice_seconds: u64,
    /// What is proposed, if anything is.
    pub pending: Option<PendingMigration>,
}

/// New code that a contract is going to have.
#[cw_serde]
pub struct PendingMigration {
    pub code_id: u64,
    /// sha256 of the code.
    pub checksum: Digest,
    /// What the new code is told.
    pub msg: Binary,
    /// Block time in seconds from which anyone may execute it.
    pub executable_at: u64,
}
