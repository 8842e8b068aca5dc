//! What a change of jobs asks of the siblings. Collected as values, sent by the contract.

use cosmwasm_schema::cw_serde;
use schema::{
    escrow::{ForcedOutcome, Settlement},
    staking::{Occupation, SettledWork, Vacancy},
    Event,
};

use crate::randomness::Source;

#[derive(Debug, Default)]
pub(crate) struct Effects {
    pub(crate) events: Vec<Event>,
    /// Slots to take.
    pub(crate) occupations: Vec<Occupation>,
    /// Items to pay.
    pub(crate) settlements: Vec<Settlement>,
    /// Slots to give back.
    pub(crate) vacancies: Vec<Vacancy>,
    /// Work that was paid for in slots that somebody keeps.
    pub(crate) settled: Vec<SettledWork>,
    /// Slots to give back before their items are drawn anew.
    pub(crate) redraws: Vec<(Vec<Vacancy>, Redraw)>,
    /// Slots are free already: items to draw anew in this transaction.
    pub(crate) draw: Option<Redraw>,
    /// Jobs whose hold is to be released.
    pub(crate) ended: Vec<EndedJob>,
}

/// A job that is over.
#[derive(Debug)]
pub(crate) struct EndedJob {
    pub(crate) job: u64,
    /// The session whose owner has forced it, and what the session has come to know.
    pub(crate) forced: Option<(u64, ForcedOutcome)>,
}

/// Replicas of a shard that need new chains. Travels as the payload of the reply.
#[cw_serde]
pub(crate) struct Redraw {
    pub(crate) job: u64,
    pub(crate) shard: u16,
    pub(crate) replicas: Vec<u8>,
    pub(crate) source: Source,
}
