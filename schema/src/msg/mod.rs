//! Messages and queries of the five contracts, one module a contract.
//!
//! Texts that name accounts are unchecked `String`s here; contracts check them. Unknown fields are refused everywhere.

pub mod escrow;
pub mod orchestrator;
pub mod registry;
pub mod staking;
pub mod token;

use cosmwasm_schema::cw_serde;

/// Answer to `Config` of every contract but the token.
#[cw_serde]
pub struct AdminResponse {
    pub admin: String,
    /// To whom the admin has offered the role, if to anybody.
    pub proposed: Option<String>,
}
