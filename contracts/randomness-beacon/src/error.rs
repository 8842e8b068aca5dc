use cosmwasm_std::StdError;
use cw_utils::PaymentError;
use thiserror::Error;

#[derive(Debug, PartialEq, Error)]
pub enum ContractError {
    #[error(transparent)]
    Std(#[from] StdError),
    #[error(transparent)]
    Payment(#[from] PaymentError),

    #[error("the public key is no point of G2, or its identity, under which everything is signed")]
    NoKey,
    #[error("a period lasts at least a second")]
    NoPeriod,
    #[error("1 to {max} rounds are kept, found {found}")]
    RoundsKept { found: u64, max: u64 },

    #[error("rounds are counted from 1")]
    NoRound,
    #[error("round {round} is due at {due_at}, now it is {now}")]
    RoundEarly { round: u64, due_at: u64, now: u64 },
    #[error("round {round} is older than {oldest}, the oldest that is still taken")]
    RoundOld { round: u64, oldest: u64 },
    #[error("the signature is none of this key over round {round}")]
    WrongSignature { round: u64 },
}
