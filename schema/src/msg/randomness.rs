//! randomness-beacon: rounds of a public source of randomness, verified on chain.

use cosmwasm_schema::{cw_serde, QueryResponses};

use crate::{BeaconKey, BeaconSignature, Schedule};

/// Never changes: there is no admin, and the contract cannot be migrated.
#[cw_serde]
pub struct InstantiateMsg {
    /// Whose signatures count. A point of G2 other than the identity.
    pub public_key: BeaconKey,
    /// Round 1 is due at genesis, and one more each period of at least a second.
    pub schedule: Schedule,
    /// Rounds up to the newest one posted, in time: older ones are refused and forgotten. 1 to 100000000.
    pub rounds_kept: u64,
}

#[cw_serde]
pub enum ExecuteMsg {
    /// Anyone: makes a round known that is due. The same once more changes nothing and is no error.
    PostRound { round: u64, signature: BeaconSignature },
}

#[cw_serde]
#[derive(QueryResponses)]
pub enum QueryMsg {
    #[returns(ConfigResponse)]
    Config {},
    /// The newest round that is known.
    #[returns(Option<crate::Round>)]
    Latest {},
    /// A round, if it is known.
    #[returns(Option<crate::Round>)]
    Round { round: u64 },
    /// The oldest known round of those that are not before `at_least`.
    #[returns(Option<crate::Round>)]
    First { at_least: u64 },
}

#[cw_serde]
pub struct ConfigResponse {
    pub public_key: BeaconKey,
    pub schedule: Schedule,
    pub rounds_kept: u64,
}
