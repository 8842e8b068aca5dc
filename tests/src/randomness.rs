//! The beacon of a network that has one, with its key at hand.

use beacon::Secret;
use schema::{
    params::BeaconParams,
    randomness::{ExecuteMsg, QueryMsg},
    BeaconSignature, Round,
};

use crate::{
    chain::{local_params, GENESIS_SECONDS},
    Outcome, Protocol,
};

/// Seconds between two rounds.
const PERIOD_SECONDS: u64 = 3;

impl Protocol {
    /// The market of most stories with a beacon of the development key, which has no round yet.
    pub fn with_beacon() -> Self {
        let mut params = local_params();
        params.beacon = Some(BeaconParams {
            public_key: Secret::development().public_key(),
            genesis_seconds: GENESIS_SECONDS.saturating_sub(3_000),
            period_seconds: PERIOD_SECONDS,
            rounds_kept: 10_000,
            urls: vec![],
        });
        Self::with_params(params).opens_market()
    }

    /// The newest round that is due.
    pub fn newest_round(&self) -> u64 {
        let params = self.params.beacon.as_ref().expect("the network has a beacon");
        params.schedule().newest_at(self.now()).expect("genesis has passed")
    }

    /// Somebody posts a round as the beacon has signed it.
    pub fn posts_round(&mut self, round: u64) -> Outcome {
        self.posts_signature(round, Secret::development().sign(round))
    }

    /// Somebody posts any signature as that of a round.
    pub fn posts_signature(&mut self, round: u64, signature: BeaconSignature) -> Outcome {
        let beacon = self
            .contracts
            .randomness_beacon
            .clone()
            .expect("the network has a beacon");
        let sender = self.addr("stranger");
        self.execute(&sender, &beacon, &ExecuteMsg::PostRound { round, signature })
    }

    /// A round, if the beacon knows it.
    pub fn round(&self, round: u64) -> Option<Round> {
        let beacon = self
            .contracts
            .randomness_beacon
            .as_ref()
            .expect("the network has a beacon");
        self.ask(beacon, &QueryMsg::Round { round })
    }
}
