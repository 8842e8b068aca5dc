//! What can happen, and how often.

use fxn_tests::{FUNC, PROVIDERS};
use proptest::prelude::*;

#[derive(Debug, Clone)]
pub(crate) enum Step {
    Submit {
        developer: usize,
        shards: usize,
        replicas: u8,
        millis: u128,
    },
    Attest {
        nth: usize,
        proof: Proof,
    },
    /// One replica of each shard may lie.
    AttestEverything {
        lie: Option<u8>,
    },
    Evidence {
        nth: usize,
        links: usize,
        acknowledged: bool,
        /// As soon as evidence is taken, if that is still to come.
        punctual: bool,
    },
    Expire {
        nth: usize,
    },
    ExpireOverdue,
    Pass {
        seconds: u64,
    },
    /// Until evidence of an item is taken, or until it may be expired.
    PassWindow {
        nth: usize,
        evidence: bool,
    },
    Halt {
        seconds: u64,
    },
    Deposit {
        developer: usize,
        amount: u128,
    },
    Withdraw {
        developer: usize,
        amount: Option<u128>,
    },
    ReleaseExpired {
        nth: usize,
    },
    Distribute {
        parent: bool,
    },
    ChangePayout {
        parent: bool,
        bps: u16,
    },
    Unbond {
        provider: usize,
        amount: u128,
    },
    TakeBond {
        provider: usize,
    },
    Drain {
        provider: usize,
    },
    Deploy {
        provider: usize,
    },
    Pause {
        paused: bool,
    },
    Hostile {
        nth: usize,
    },
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Proof {
    Honest,
    Lie { stage: u8 },
    Greedy,
    Forged,
    Incomplete,
    OldAttempt,
}

fn proofs() -> impl Strategy<Value = Proof> {
    prop_oneof![
        6 => Just(Proof::Honest),
        1 => (0..3u8).prop_map(|stage| Proof::Lie { stage }),
        1 => Just(Proof::Greedy),
        1 => Just(Proof::Forged),
        1 => Just(Proof::Incomplete),
        1 => Just(Proof::OldAttempt),
    ]
}

pub(crate) fn steps() -> impl Strategy<Value = Step> {
    let nth = || 0..50usize;
    let provider = || 0..PROVIDERS.len();
    prop_oneof![
        6 => (0..2usize, 1..4usize, 1..=3u8, 500..2_000u128)
            .prop_map(|(developer, shards, replicas, millis)| Step::Submit { developer, shards, replicas, millis }),
        9 => (nth(), proofs()).prop_map(|(nth, proof)| Step::Attest { nth, proof }),
        3 => prop::option::of(0..3u8).prop_map(|lie| Step::AttestEverything { lie }),
        4 => (nth(), 0..4usize, any::<bool>(), any::<bool>())
            .prop_map(|(nth, links, acknowledged, punctual)| Step::Evidence { nth, links, acknowledged, punctual }),
        2 => nth().prop_map(|nth| Step::Expire { nth }),
        4 => Just(Step::ExpireOverdue),
        3 => (1..20u64).prop_map(|seconds| Step::Pass { seconds }),
        5 => (nth(), any::<bool>()).prop_map(|(nth, evidence)| Step::PassWindow { nth, evidence }),
        1 => (1..2_000u64).prop_map(|seconds| Step::Pass { seconds }),
        1 => (1..100u64).prop_map(|seconds| Step::Halt { seconds }),
        1 => (0..2usize, 0..5 * FUNC).prop_map(|(developer, amount)| Step::Deposit { developer, amount }),
        2 => (0..2usize, prop::option::of(0..5 * FUNC)).prop_map(|(developer, amount)| Step::Withdraw { developer, amount }),
        2 => nth().prop_map(|nth| Step::ReleaseExpired { nth }),
        2 => any::<bool>().prop_map(|parent| Step::Distribute { parent }),
        1 => (any::<bool>(), 1..10_000u16).prop_map(|(parent, bps)| Step::ChangePayout { parent, bps }),
        1 => (provider(), 0..500 * FUNC).prop_map(|(provider, amount)| Step::Unbond { provider, amount }),
        1 => provider().prop_map(|provider| Step::TakeBond { provider }),
        1 => provider().prop_map(|provider| Step::Drain { provider }),
        1 => provider().prop_map(|provider| Step::Deploy { provider }),
        1 => prop::bool::weighted(0.2).prop_map(|paused| Step::Pause { paused }),
        4 => nth().prop_map(|nth| Step::Hostile { nth }),
    ]
}
