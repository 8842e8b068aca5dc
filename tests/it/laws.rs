//! The laws: statements of the protocol's document that must hold whatever anybody sends.
//!
//! A story is a random sequence of all messages of all contracts by honest, careless and hostile people, with time jumping about
//! and the chain standing still. After every message everything is looked at (`checks.rs`), and every balance is compared with what an
//! oracle has worked out from the messages alone (`oracle.rs`). What hosts do off the chain is known (`hosts.rs`), so what must be
//! taken as proof, what must be refused and who must be blamed is known too. In the end everybody goes home (`ending.rs`).
//!
//! Each statement has a test of its own name, with more of the acts that try it; each check names the statement that it stands for.
//!
//! | statement | where it is checked |
//! |---|---|
//! | 1. balances are the sums of the ledgers | `checks.rs` after every message |
//! | 2. strangers lower and delay nobody's money | `checks.rs` after every message |
//! | 3. everything held is free at its date, by anyone | `ending.rs` at the date and one second after; `oracle/forecast.rs` always |
//! | 4. a payment is inside its hold and its pinned price | `oracle/work.rs` and `oracle/sessions.rs` at every settlement |
//! | 5. proof counts once, for what it was signed for | `world.rs` for every attestation; `hosts.rs` for evidence and blame; `oracle/sessions.rs` for every voucher |
//! | 6. parts sum to the whole, in the same transaction | `checks.rs`: every balance of everybody, to the unit |
//! | 7. exposure is inside its limit, slashes find money | `checks.rs` and `oracle/work.rs` |
//! | 8. everybody gets what is his, whatever was stopped | `ending.rs`: both contracts are empty in the end |
//! | 10. who does his part is never slashed | `hosts.rs` at every blame |
//!
//! `FXN_SLOW=1` tries twenty thousand stories instead of a few, `FXN_SEED` begins elsewhere. A failure prints the steps that are left
//! after shrinking and a `cc` line; with that line in `proptest-regressions/laws.txt` it is tried first for ever.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
};

use proptest::{
    prelude::*,
    test_runner::{FileFailurePersistence, RngSeed, TestRunner},
};
use serde_json::Value;

mod acts;
mod checks;
mod dice;
mod ending;
mod hosts;
mod oracle;
mod price;
mod world;

use dice::Dice;
use world::{steps, Census, Step, World};

/// Of each statement.
const STORIES: u32 = 8;
const STORIES_OF_ALL: u32 = 72;
/// Of each of the ten tests.
const STORIES_SLOW: u32 = 2_000;
const SEED: u64 = 20_260_901;
/// Sent by whoever likes, and taken only from siblings, from the owner of nothing, or not at all.
const NEVER_TAKEN: [&str; 24] = [
    "func-token mint",
    "func-token update_minter",
    "func-token update_marketing",
    "func-token upload_logo",
    "model-registry wire",
    "model-registry receive",
    "model-registry record",
    "provider-staking wire",
    "provider-staking receive",
    "provider-staking occupy",
    "provider-staking vacate",
    "provider-staking reserve",
    "provider-staking free",
    "provider-staking record_settled",
    "royalty-escrow wire",
    "royalty-escrow receive",
    "royalty-escrow receive/penalty",
    "royalty-escrow hold",
    "royalty-escrow settle",
    "royalty-escrow release",
    "royalty-escrow hold_forced",
    "royalty-escrow end_forced",
    "royalty-escrow distribute_under",
    "job-orchestrator open_forced",
];

fn number_of(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

fn config(stories: u32) -> ProptestConfig {
    let slow = number_of("FXN_SLOW").is_some_and(|slow| slow == 1);
    let cases = if slow { STORIES_SLOW } else { stories };
    ProptestConfig {
        cases: number_of("PROPTEST_CASES").map_or(cases, |cases| u32::try_from(cases).unwrap()),
        rng_seed: RngSeed::Fixed(number_of("FXN_SEED").unwrap_or(SEED)),
        max_shrink_iters: number_of("PROPTEST_MAX_SHRINK_ITERS").map_or(2_000, |most| u32::try_from(most).unwrap()),
        // A red run must end too.
        max_shrink_time: 120_000,
        source_file: Some(file!()),
        failure_persistence: Some(Box::new(FileFailurePersistence::SourceParallel("proptest-regressions"))),
        ..ProptestConfig::default()
    }
}

fn tell(steps: &[Step], expire_first: bool) -> Census {
    let mut world = World::begin();
    for step in steps {
        world.take(step);
    }
    world.ends(expire_first);
    world.census
}

/// Tells stories in which the acts that try one statement come more often. All statements are held up in all of them; what fails
/// begins with the number of the one that was broken.
fn stories_about(about: Option<char>, stories: u32) -> Census {
    let census = RefCell::new(Census::new());
    let story = (prop::collection::vec(steps(about), 20..160), any::<bool>());
    let outcome = TestRunner::new(config(stories)).run(&story, |(steps, expire_first)| {
        for (name, (sent, taken)) in tell(&steps, expire_first) {
            let mut census = census.borrow_mut();
            let count = census.entry(name).or_default();
            count.0 += sent;
            count.1 += taken;
        }
        Ok(())
    });
    if let Err(failure) = outcome {
        let seed = number_of("FXN_SEED").unwrap_or(SEED);
        panic!("{failure}\nto replay: FXN_SEED={seed} cargo test -p fxn-tests --test it laws");
    }
    let census = census.into_inner();
    let sum = census
        .values()
        .fold((0, 0), |sum, count| (sum.0 + count.0, sum.1 + count.1));
    println!("{} messages were sent, {} were taken", sum.0, sum.1);
    census
}

macro_rules! statements {
    ($($name:ident: $statement:literal),+ $(,)?) => { $(
        #[test]
        fn $name() {
            stories_about(Some($statement), STORIES);
        }
    )+ };
}

statements! {
    statement_1_every_contract_has_what_its_ledger_says: '1',
    statement_2_strangers_lower_and_delay_nobodys_money: '2',
    statement_3_everything_held_is_free_at_its_date_for_anyone_to_release: '3',
    statement_4_a_payment_is_inside_its_hold_and_its_pinned_price: '4',
    statement_5_proof_counts_once_and_for_what_it_was_signed_for: '5',
    statement_6_parts_sum_to_the_whole_in_the_same_transaction: '6',
    statement_7_exposure_has_its_limit_and_every_slash_finds_its_money: '7',
    statement_8_everybody_gets_what_is_his_whatever_was_stopped: '8',
    statement_10_who_does_his_part_is_never_slashed: 'X',
}

#[test]
fn whatever_anybody_sends_the_statements_hold() {
    let census = stories_about(None, STORIES_OF_ALL);
    for ((contract, message), count) in &census {
        println!("{contract} {message}: {} sent, {} taken", count.0, count.1);
    }
    assert_the_stories_were_rich(&census);
}

/// A law that is never tried cannot be broken: every message was sent, and all that anybody may send were taken.
fn assert_the_stories_were_rich(census: &Census) {
    for name in known_messages() {
        let (sent, taken) = census.get(&name).copied().unwrap_or_default();
        let text = format!("{} {}", name.0, name.1);
        assert!(sent > 0, "{text} was never sent");
        let never = NEVER_TAKEN.contains(&text.as_str());
        assert_eq!(taken == 0, never, "{text} was taken {taken} times of {sent}");
    }
}

#[test]
fn every_message_of_every_contract_is_among_the_acts() {
    let world = World::begin();
    let mut built = BTreeSet::new();
    for kind in acts::kinds() {
        for seed in 0..400u32 {
            let mut number = seed;
            let numbers = std::array::from_fn(|_| {
                number = number.wrapping_mul(2_654_435_761).rotate_left(7);
                number
            });
            let act = kind(&world, &mut Dice::of(numbers));
            built.extend(act.msg.names(&world.oracle.contracts));
        }
    }
    let missing: Vec<_> = known_messages()
        .into_iter()
        .filter(|name| !built.contains(name))
        .collect();
    assert!(missing.is_empty(), "nobody ever sends {missing:?}");
}

/// By contract and name, from the JSON schemas.
fn known_messages() -> Vec<(String, String)> {
    let schemas = BTreeMap::from([
        ("func-token", (include_str!("../../schema/json/func-token.json"), None)),
        (
            "model-registry",
            (
                include_str!("../../schema/json/model-registry.json"),
                Some(include_str!("../../schema/json/model-registry.receive.json")),
            ),
        ),
        (
            "provider-staking",
            (
                include_str!("../../schema/json/provider-staking.json"),
                Some(include_str!("../../schema/json/provider-staking.receive.json")),
            ),
        ),
        (
            "royalty-escrow",
            (
                include_str!("../../schema/json/royalty-escrow.json"),
                Some(include_str!("../../schema/json/royalty-escrow.receive.json")),
            ),
        ),
        (
            "job-orchestrator",
            (include_str!("../../schema/json/job-orchestrator.json"), None),
        ),
    ]);
    let mut known = vec![];
    for (contract, (api, hooks)) in schemas {
        let api: Value = serde_json::from_str(api).unwrap();
        known.extend(
            variants(&api["execute"])
                .into_iter()
                .map(|name| (contract.to_owned(), name)),
        );
        let hooks: Value = serde_json::from_str(hooks.unwrap_or(r#"{"oneOf":[]}"#)).unwrap();
        known.extend(
            variants(&hooks)
                .into_iter()
                .map(|name| (contract.to_owned(), format!("receive/{name}"))),
        );
    }
    known
}

fn variants(schema: &Value) -> Vec<String> {
    let all = schema["oneOf"].as_array().expect("messages are enums").iter();
    all.map(|variant| {
        variant["required"][0]
            .as_str()
            .expect("a variant has a name")
            .to_owned()
    })
    .collect()
}
