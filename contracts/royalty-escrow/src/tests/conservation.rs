//! Random messages, well meant and not: the ledger is what came in less what went out.

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone)]
enum Step {
    Deposit(usize, u128),
    Withdraw(usize, Option<u128>),
    Hold(usize, u64, u128),
    Settle(u64, u64),
    Release(u64),
    ReleaseExpired(u64),
    Distribute(bool),
    Pass(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let amount = || 0..60_000u128;
    let step = prop_oneof![
        (0..3usize, amount()).prop_map(|(who, amount)| Step::Deposit(who, amount)),
        (0..3usize, prop::option::of(amount())).prop_map(|(who, amount)| Step::Withdraw(who, amount)),
        (0..3usize, 0..6u64, amount()).prop_map(|(who, job, amount)| Step::Hold(who, job, amount)),
        (0..6u64, 0..6_000u64).prop_map(|(job, units)| Step::Settle(job, units)),
        (0..6u64).prop_map(Step::Release),
        (0..6u64).prop_map(Step::ReleaseExpired),
        any::<bool>().prop_map(Step::Distribute),
        (0..90u64).prop_map(Step::Pass),
    ];
    prop::collection::vec(step, 1..60)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// The cw20 balance is what came in less what the messages of successful calls take out.
    #[test]
    fn the_ledger_is_what_came_in_less_what_went_out(steps in steps()) {
        let names = ["dave", "alice", "paula"];
        let mut escrow = Escrow::new();
        let mut balance = 0u128;
        for step in steps {
            let outcome = match step {
                Step::Deposit(who, amount) => {
                    let outcome = escrow.send_from("func", names[who], amount, &ReceiveMsg::Deposit { beneficiary: None });
                    balance += if outcome.is_ok() { amount } else { 0 };
                    outcome
                }
                Step::Withdraw(who, amount) => {
                    escrow.by(names[who], ExecuteMsg::Withdraw { amount: amount.map(Uint128::new) })
                }
                Step::Hold(who, job, amount) => {
                    let expires_at = escrow.now() + 100;
                    escrow.by("orchestrator", hold_of(names[who], job, amount, terms(), expires_at))
                }
                Step::Settle(job, units) => {
                    let before = escrow.deps.storage.clone_pairs();
                    let outcome = escrow.settle(vec![settlement(job, 0, units)]);
                    if outcome.is_err() {
                        escrow.deps.storage = restored(before);
                    }
                    outcome
                }
                Step::Release(job) => escrow.by("orchestrator", ExecuteMsg::Release { job }),
                Step::ReleaseExpired(job) => escrow.by("stranger", ExecuteMsg::ReleaseExpired { job }),
                Step::Distribute(parent) => {
                    let model = model(if parent { "parent" } else { "child" });
                    escrow.by("stranger", ExecuteMsg::DistributeRoyalties { model })
                }
                Step::Pass(seconds) => {
                    escrow.seconds_pass(seconds);
                    continue;
                }
            };
            for (to, msg) in outcome.iter().flat_map(messages) {
                if to == addr("func").as_str() {
                    let out = msg.as_object().unwrap().values().next().unwrap()["amount"].as_str().unwrap();
                    balance -= out.parse::<u128>().unwrap();
                }
            }
            let (available, held) = escrow.sums();
            prop_assert_eq!(available + held, balance);
        }
    }
}

trait ClonePairs {
    fn clone_pairs(&self) -> Vec<(Vec<u8>, Vec<u8>)>;
}

impl ClonePairs for MockStorage {
    fn clone_pairs(&self) -> Vec<(Vec<u8>, Vec<u8>)> {
        cosmwasm_std::Storage::range(self, None, None, cosmwasm_std::Order::Ascending).collect()
    }
}

/// A chain undoes what a failed message has written.
fn restored(pairs: Vec<(Vec<u8>, Vec<u8>)>) -> MockStorage {
    let mut storage = MockStorage::default();
    for (key, value) in pairs {
        cosmwasm_std::Storage::set(&mut storage, &key, &value);
    }
    storage
}
