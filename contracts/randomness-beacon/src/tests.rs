#![allow(
    clippy::arithmetic_side_effects,
    reason = "expected values are written as plain formulas"
)]

use cosmwasm_std::{
    coins, from_json,
    testing::{message_info, mock_dependencies, mock_env, MockApi, MockQuerier, MockStorage},
    Addr, Env, OwnedDeps, Timestamp, BLS12_381_G1_GENERATOR, BLS12_381_G2_GENERATOR,
};
use cw_utils::PaymentError;
use schema::{
    randomness::{ConfigResponse, ExecuteMsg, InstantiateMsg, QueryMsg},
    BeaconKey, BeaconSignature, Digest, Event, Round, Schedule,
};

use crate::{
    contract,
    rounds::{self, Config},
    ContractError,
};

const QUICKNET: &str = "83cf0f2896adee7eb8b5f01fcad3912212c437e0073e911fb90022d3e760183c8c4b450b6a0a6c3ac6a5776a2d1064510d1fec758c921cc22b0e17e63aaf4bcb5ed66304de9cf809bd274ca73bab4af5a6e9c76a4bc09e76eae8991ef5ece45a";
const SCHEDULE: Schedule = Schedule {
    genesis_seconds: 1_692_803_367,
    period_seconds: 3,
};
/// Round, signature and randomness as drand has published them.
const PUBLISHED: [(u64, &str, &str); 2] = [
    (
        123,
        "b75c69d0b72a5d906e854e808ba7e2accb1542ac355ae486d591aa9d43765482e26cd02df835d3546d23c4b13e0dfc92",
        "fb8f7bc29bf24db51871ec8c79f3a1e4bd0557bc0dfcee9ed1d924e69d1c60dc",
    ),
    (
        1_000,
        "b44679b9a59af2ec876b1a6b1ad52ea9b1615fc3982b19576350f93447cb1125e342b73a8dd2bacbe47e4b6b63ed5e39",
        "fe290beca10872ef2fb164d2aa4442de4566183ec51c56ff3cd603d930e54fdd",
    ),
];
const ROUNDS_KEPT: u64 = 10_000;

struct Beacon {
    deps: OwnedDeps<MockStorage, MockApi, MockQuerier>,
    env: Env,
}

impl Beacon {
    fn of(public_key: BeaconKey) -> Result<Self, ContractError> {
        Self::with(InstantiateMsg {
            public_key,
            schedule: SCHEDULE,
            rounds_kept: ROUNDS_KEPT,
        })
    }

    fn with(msg: InstantiateMsg) -> Result<Self, ContractError> {
        let mut deps = mock_dependencies();
        let mut env = mock_env();
        env.block.time = Timestamp::from_seconds(SCHEDULE.time_of(5_000));
        let info = message_info(&Addr::unchecked("anybody"), &[]);
        contract::instantiate(deps.as_mut(), env.clone(), info, msg)?;
        Ok(Self { deps, env })
    }

    fn quicknet() -> Self {
        Self::of(QUICKNET.parse().unwrap()).unwrap()
    }

    fn post(&mut self, round: u64, signature: BeaconSignature) -> Result<Event, ContractError> {
        let info = message_info(&Addr::unchecked("stranger"), &[]);
        let msg = ExecuteMsg::PostRound { round, signature };
        let response = contract::execute(self.deps.as_mut(), self.env.clone(), info, msg)?;
        assert!(response.messages.is_empty());
        Ok(Event::from_wasm(&response.events[0]).unwrap().unwrap())
    }

    fn ask(&self, question: QueryMsg) -> Option<Round> {
        from_json(contract::query(self.deps.as_ref(), self.env.clone(), question).unwrap()).unwrap()
    }

    fn at(&mut self, seconds: u64) {
        self.env.block.time = Timestamp::from_seconds(seconds);
    }
}

fn signature(text: &str) -> BeaconSignature {
    text.parse().unwrap()
}

#[test]
fn real_rounds_of_quicknet_verify() {
    let mut beacon = Beacon::quicknet();
    assert_eq!(beacon.ask(QueryMsg::Latest {}), None);
    assert_eq!(beacon.ask(QueryMsg::First { at_least: 0 }), None);
    for (round, signed, randomness) in PUBLISHED {
        let randomness: Digest = randomness.parse().unwrap();
        assert_eq!(
            beacon.post(round, signature(signed)),
            Ok(Event::RoundPosted { round, randomness })
        );
        let known = Some(Round { round, randomness });
        assert_eq!(beacon.ask(QueryMsg::Round { round }), known);
        assert_eq!(beacon.ask(QueryMsg::Latest {}), known);
    }
    let first = |at_least| beacon.ask(QueryMsg::First { at_least }).map(|found| found.round);
    assert_eq!(
        [0, 123, 124, 1_000, 1_001].map(first),
        [Some(123), Some(123), Some(1_000), Some(1_000), None]
    );
    let config = contract::query(beacon.deps.as_ref(), beacon.env.clone(), QueryMsg::Config {}).unwrap();
    let config: ConfigResponse = from_json(config).unwrap();
    assert_eq!(
        (config.public_key.to_string().as_str(), config.schedule),
        (QUICKNET, SCHEDULE)
    );
}

#[test]
fn an_older_round_that_comes_late_is_known_and_is_not_the_newest() {
    let mut beacon = Beacon::quicknet();
    for (round, signed, _) in PUBLISHED.into_iter().rev() {
        beacon.post(round, signature(signed)).unwrap();
    }
    assert_eq!(beacon.ask(QueryMsg::Latest {}).unwrap().round, 1_000);
    assert!(beacon.ask(QueryMsg::Round { round: 123 }).is_some());
}

#[test]
fn a_signature_counts_for_its_own_round_and_key_alone() {
    let mut beacon = Beacon::quicknet();
    let [(_, of_123, _), (_, of_1000, _)] = PUBLISHED;
    for (round, signed) in [
        (1_001, of_1000),
        (999, of_1000),
        (1_000, of_123),
        (u64::from(u32::MAX) + 1, of_123),
    ] {
        beacon.at(SCHEDULE.time_of(round));
        assert_eq!(
            beacon.post(round, signature(signed)),
            Err(ContractError::WrongSignature { round })
        );
    }
    assert_eq!(beacon.ask(QueryMsg::Latest {}), None);
    let generator = BeaconKey(BLS12_381_G2_GENERATOR);
    let refused = Beacon::of(generator).unwrap().post(1_000, signature(of_1000));
    assert_eq!(refused, Err(ContractError::WrongSignature { round: 1_000 }));
}

#[test]
fn bytes_that_are_no_point_are_refused_and_nothing_is_known() {
    let mut beacon = Beacon::quicknet();
    let good = signature(PUBLISHED[1].1);
    let mut off_the_curve = good;
    off_the_curve.0[47] ^= 1;
    // On the curve and in no subgroup that counts: x = 4.
    let mut outside_the_group = BeaconSignature([0; 48]);
    outside_the_group.0[0] = 0x80;
    outside_the_group.0[47] = 4;
    for bytes in [
        BeaconSignature([0; 48]),
        BeaconSignature([0xff; 48]),
        off_the_curve,
        outside_the_group,
    ] {
        let refused = beacon.post(1_000, bytes);
        assert_eq!(refused, Err(ContractError::WrongSignature { round: 1_000 }), "{bytes}");
    }
    assert_eq!(beacon.ask(QueryMsg::Latest {}), None);
    beacon.post(1_000, good).unwrap();
}

#[test]
fn no_second_encoding_of_a_signature_is_taken() {
    let mut beacon = Beacon::quicknet();
    let good = signature(PUBLISHED[1].1);
    let flags = (0..8u8).map(|flags| {
        let mut other = good;
        other.0[0] = (other.0[0] & 0x1f) | (flags << 5);
        other
    });
    for other in flags.filter(|other| *other != good) {
        assert!(beacon.post(1_000, other).is_err(), "{other}");
    }
    // The identity, and what is read as the identity.
    let mut identity = [0; 48];
    identity[0] = 0xc0;
    for other in [identity, [0xdf; 48], BLS12_381_G1_GENERATOR] {
        assert!(beacon.post(1_000, BeaconSignature(other)).is_err());
    }
    beacon.post(1_000, good).unwrap();
}

#[test]
fn a_replay_changes_nothing_and_is_no_failure() {
    let mut beacon = Beacon::quicknet();
    let [(_, of_123, _), (round, of_1000, _)] = PUBLISHED;
    beacon.post(round, signature(of_1000)).unwrap();
    let before = beacon.ask(QueryMsg::Round { round });
    assert_eq!(beacon.post(round, signature(of_1000)), Ok(Event::RoundKnown { round }));
    assert_eq!(
        beacon.post(round, signature(of_123)),
        Err(ContractError::WrongSignature { round })
    );
    assert_eq!(beacon.ask(QueryMsg::Round { round }), before);
    assert_eq!(beacon.ask(QueryMsg::Latest {}), before);
}

#[test]
fn a_round_is_not_taken_before_its_time() {
    let mut beacon = Beacon::quicknet();
    let signed = signature(PUBLISHED[1].1);
    let due_at = SCHEDULE.time_of(1_000);
    beacon.at(due_at - 11);
    let now = due_at - 11;
    let early = ContractError::RoundEarly {
        round: 1_000,
        due_at,
        now,
    };
    assert_eq!(beacon.post(1_000, signed), Err(early));
    beacon.at(due_at - 10);
    beacon.post(1_000, signed).unwrap();
    assert_eq!(beacon.post(0, signed), Err(ContractError::NoRound));
    assert!(matches!(
        beacon.post(u64::MAX, signed),
        Err(ContractError::RoundEarly { .. })
    ));
}

#[test]
fn a_key_that_is_the_identity_is_refused_however_it_is_written() {
    let mut identity = [0; 96];
    identity[0] = 0xc0;
    let mut dressed_up = BLS12_381_G2_GENERATOR;
    dressed_up[0] = 0xd3;
    let mut other = [0x77; 96];
    other[0] = 0xc0;
    for key in [identity, dressed_up, other] {
        assert_eq!(Beacon::of(BeaconKey(key)).err(), Some(ContractError::NoKey));
    }
}

#[test]
fn a_key_that_is_no_point_is_refused() {
    let mut off_the_curve: BeaconKey = QUICKNET.parse().unwrap();
    off_the_curve.0[95] ^= 1;
    for key in [off_the_curve, BeaconKey([0; 96]), BeaconKey([0xff; 96])] {
        assert_eq!(Beacon::of(key).err(), Some(ContractError::NoKey), "{key}");
    }
}

#[test]
fn numbers_that_cannot_work_are_refused() {
    let msg = |period_seconds, rounds_kept| InstantiateMsg {
        public_key: QUICKNET.parse().unwrap(),
        schedule: Schedule {
            genesis_seconds: 1,
            period_seconds,
        },
        rounds_kept,
    };
    assert_eq!(Beacon::with(msg(0, 1)).err(), Some(ContractError::NoPeriod));
    let max = rounds::ROUNDS_KEPT_MAX;
    for found in [0, max + 1] {
        assert_eq!(
            Beacon::with(msg(1, found)).err(),
            Some(ContractError::RoundsKept { found, max })
        );
    }
    Beacon::with(msg(1, max)).unwrap();
}

#[test]
fn no_coins_are_taken() {
    let mut beacon = Beacon::quicknet();
    let info = message_info(&Addr::unchecked("stranger"), &coins(1, "ustake"));
    let msg = ExecuteMsg::PostRound {
        round: 1_000,
        signature: signature(PUBLISHED[1].1),
    };
    let refused = contract::execute(beacon.deps.as_mut(), beacon.env.clone(), info, msg);
    assert_eq!(refused.unwrap_err(), PaymentError::NonPayable {}.into());
}

fn config(rounds_kept: u64) -> Config {
    Config {
        public_key: QUICKNET.parse().unwrap(),
        schedule: SCHEDULE,
        rounds_kept,
    }
}

fn round(round: u64) -> Round {
    Round {
        round,
        randomness: Digest::of(&round.to_be_bytes()),
    }
}

#[test]
fn rounds_that_are_too_old_are_forgotten_and_refused() {
    let mut storage = MockStorage::new();
    let config = config(10);
    for number in 1..=500 {
        rounds::keep(&mut storage, &config, round(number)).unwrap();
        let stored = (1..=number).filter(|number| rounds::find(&storage, *number).unwrap().is_some());
        assert!(stored.count() <= 10, "after {number}");
    }
    assert_eq!(rounds::first(&storage, 0).unwrap(), Some(round(491)));
    let now = SCHEDULE.time_of(500);
    let old = ContractError::RoundOld {
        round: 490,
        oldest: 491,
    };
    assert_eq!(config.check_round(490, Some(500), now), Err(old));
    assert_eq!(config.check_round(491, Some(500), now), Ok(()));
    // After a long silence one round makes all others old; they vanish by twos.
    rounds::keep(&mut storage, &config, round(10_000)).unwrap();
    for number in 10_001..10_006 {
        rounds::keep(&mut storage, &config, round(number)).unwrap();
    }
    assert_eq!(rounds::first(&storage, 0).unwrap(), Some(round(10_000)));
}

#[test]
fn whatever_is_posted_a_round_can_be_posted_for_as_long_as_it_is_kept() {
    let config = config(10);
    let wanted = 1_000;
    // Nothing newer than what is due can be known, so this is the worst that anybody can do.
    for later in 0..10 {
        let now = SCHEDULE.time_of(wanted + later);
        for latest in 1..=wanted + later {
            assert_eq!(config.check_round(wanted, Some(latest), now), Ok(()));
            let mut storage = MockStorage::new();
            rounds::keep(&mut storage, &config, round(wanted)).unwrap();
            rounds::keep(&mut storage, &config, round(latest)).unwrap();
            assert_eq!(rounds::find(&storage, wanted).unwrap(), Some(round(wanted)));
        }
    }
}
