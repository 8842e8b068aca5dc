//! Rounds of a randomness beacon in the format of drand's quicknet: signatures on G1, keys on G2, every round signed by itself.
//!
//! A round is one number a period, from 1 at genesis. Its signature is over sha256 of the number as u64 big-endian; its randomness is
//! sha256 of the signature. Nobody can know either before the holders of the key sign, and there is only one signature that verifies.

use cosmwasm_schema::cw_serde;

use crate::{canonical::Preimage, receipt::Domain, BeaconSignature, Digest};

/// Domain separation of the hash to the curve.
pub const DST: &[u8] = b"BLS_SIG_BLS12381G1_XMD:SHA-256_SSWU_RO_NUL_";

/// When rounds are due.
#[cw_serde]
#[derive(Copy, Eq)]
pub struct Schedule {
    /// Unix seconds of round 1.
    pub genesis_seconds: u64,
    /// Seconds between two rounds, at least 1.
    pub period_seconds: u64,
}

impl Schedule {
    /// The first round whose time is `seconds` or later.
    pub fn first_from(&self, seconds: u64) -> u64 {
        let since = seconds.saturating_sub(self.genesis_seconds);
        since.div_ceil(self.period_seconds.max(1)).saturating_add(1)
    }

    /// Unix seconds at which a round is due. Round 0 does not exist and counts as round 1.
    pub fn time_of(&self, round: u64) -> u64 {
        let periods = round.saturating_sub(1);
        self.genesis_seconds
            .saturating_add(periods.saturating_mul(self.period_seconds))
    }

    /// The newest round that is due at `seconds`. None: before genesis.
    pub fn newest_at(&self, seconds: u64) -> Option<u64> {
        let since = seconds.checked_sub(self.genesis_seconds)?;
        since.checked_div(self.period_seconds.max(1))?.checked_add(1)
    }
}

/// A round that was verified.
#[cw_serde]
#[derive(Copy, Eq)]
pub struct Round {
    pub round: u64,
    /// sha256 of its signature.
    pub randomness: Digest,
}

/// What is signed for a round.
pub fn message(round: u64) -> Digest {
    Digest::of(&round.to_be_bytes())
}

/// What a round's signature is worth.
pub fn randomness(signature: &BeaconSignature) -> Digest {
    Digest::of(signature.as_bytes())
}

/// Seed of a draw: where it is valid, which shard of which job, its attempt, and a round that was not known when those were fixed.
/// Anyone can compute it from the event `drawn`.
pub fn draw_seed(domain: &Domain, job: u64, (shard, attempt): (u16, u8), round: &Round) -> Digest {
    Preimage::new("draw-seed-of-round")
        .bytes(&domain.chain_id)
        .bytes(&domain.contract)
        .u64(job)
        .u64(shard)
        .u64(attempt)
        .u64(round.round)
        .bytes(round.randomness.0)
        .digest()
}

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects, reason = "small numbers in tests")]
mod tests {
    use super::*;

    const QUICKNET: Schedule = Schedule {
        genesis_seconds: 1_692_803_367,
        period_seconds: 3,
    };

    #[test]
    fn rounds_and_times_are_two_sides_of_one_schedule() {
        assert_eq!(QUICKNET.time_of(1), 1_692_803_367);
        assert_eq!(QUICKNET.time_of(1_000), 1_692_806_364);
        for seconds in [
            1_692_803_367,
            1_692_803_368,
            1_692_806_363,
            1_692_806_364,
            1_800_000_001,
        ] {
            let round = QUICKNET.first_from(seconds);
            assert!(QUICKNET.time_of(round) >= seconds, "{seconds}");
            assert!(round == 1 || QUICKNET.time_of(round - 1) < seconds, "{seconds}");
            let newest = QUICKNET.newest_at(seconds).unwrap();
            assert!(QUICKNET.time_of(newest) <= seconds && QUICKNET.time_of(newest + 1) > seconds);
        }
        assert_eq!(QUICKNET.first_from(0), 1);
        assert_eq!(QUICKNET.newest_at(1_692_803_366), None);
    }

    #[test]
    fn no_date_and_no_round_overflows() {
        assert_eq!(QUICKNET.time_of(u64::MAX), u64::MAX);
        assert!(QUICKNET.first_from(u64::MAX) > 1);
        let broken = Schedule {
            genesis_seconds: 0,
            period_seconds: 0,
        };
        assert_eq!(broken.first_from(5), 6, "a contract refuses it; nothing divides by it");
    }

    #[test]
    fn the_randomness_of_quicknets_round_1000_is_what_drand_says() {
        let signature =
            "b44679b9a59af2ec876b1a6b1ad52ea9b1615fc3982b19576350f93447cb1125e342b73a8dd2bacbe47e4b6b63ed5e39";
        assert_eq!(
            randomness(&signature.parse().unwrap()).to_string(),
            "fe290beca10872ef2fb164d2aa4442de4566183ec51c56ff3cd603d930e54fdd"
        );
    }
}
