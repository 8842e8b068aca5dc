//! Hosts that are asked on chain: those that answer lose nothing, one that is dead pays, and its part of the session comes back without it.

use std::{
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use schema::escrow::SessionResponse;
use serde_json::Value;

use crate::{document, fxn, machine, wait_until_gone, Kept, Stage, PATIENCE};

const MODEL: &str = "demo/all-minilm-l6-v2";
/// Of the local profile: the least that a miss costs, and what the gas of an answer is paid with.
const MISS_MIN: u128 = 100_000;
const FORCE_FEE: u128 = 50_000;
/// What the demonstration's providers put up for a miss, of the price of what is missed.
const PENALTY_BPS: u128 = 5_000;

/// A developer with a home of its own and the hosts of the demonstration.
struct Story<'a> {
    home: &'a Path,
    report: &'a Value,
}

impl Story<'_> {
    fn run(&self, arguments: &[&str]) -> Value {
        let output = fxn(self.home).args(arguments).args(["--output", "json"]).output();
        document(&output.unwrap())
    }

    fn available(&self) -> u128 {
        self.run(&["wallet", "money"])["available"].as_u64().unwrap().into()
    }

    fn session(&self, number: &str) -> SessionResponse {
        serde_json::from_value(self.run(&["session", "show", number])).unwrap()
    }

    /// Bond, and penalties ever paid, of each provider by address.
    fn bonds(&self) -> Vec<(String, u128, u128)> {
        let listed = self.run(&["provider", "list"]);
        let amount = |provider: &Value, field: &str| provider[field].as_str().unwrap().parse().unwrap();
        let providers = listed.as_array().unwrap().iter();
        providers
            .map(|it| {
                let address = it["provider"].as_str().unwrap().to_owned();
                (address, amount(it, "bond"), amount(it, "penalties"))
            })
            .collect()
    }

    /// Kills the host of a provider for good.
    fn kills_host_of(&self, address: &str) {
        let shown = self.run(&["provider", "show", address]);
        let role = format!("{}/host", shown["profile"]["name"].as_str().unwrap());
        let processes = self.report["processes"].as_array().unwrap();
        let of_role = |process: &&Value| process["role"] == role && process["killed"] == false;
        let host = processes.iter().find(of_role).expect("it runs");
        let killed = Command::new("kill").args(["-9", &host["pid"].to_string()]).status();
        assert!(killed.unwrap().success());
    }
}

fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let since = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(since.elapsed() < PATIENCE, "{what}: it takes too long");
        std::thread::sleep(Duration::from_millis(200));
    }
}

#[test]
fn hosts_that_are_asked_on_chain_answer_and_a_dead_one_pays_and_is_let_go_without_its_help() {
    let _machine = machine();
    let stage = Stage::open();
    let kept = Kept::start(&stage);
    let home = kept.second_terminal(&stage);
    let story = Story {
        home: &home,
        report: &kept.report,
    };
    let opened = story.run(&[
        "session",
        "open",
        "--model",
        MODEL,
        "--requests",
        "50",
        "--tokens",
        "64",
    ]);
    let number = opened["session"].to_string();
    let chain = an_answer_costs_no_host_anything(&story, &number);
    silence_is_paid_for(&story, &number, &chain);
    what_was_allocated_comes_back(&story, &number, chain[0]);
    let (code, report) = kept.signal("INT");
    assert_eq!(code, Some(0));
    wait_until_gone(&report);
}

/// All hosts are alive, and nobody talks to them but their relayers.
fn an_answer_costs_no_host_anything(story: &Story<'_>, number: &str) -> Vec<u64> {
    let (money, bonds) = (story.available(), story.bonds());
    let forced = story.run(&["session", "force", number, "The first sentence is asked on chain."]);
    assert_eq!(forced["outcome"], "answered", "{forced}");
    let price: u128 = forced["price"].as_u64().unwrap().into();
    assert!(price > FORCE_FEE, "{forced}");
    assert_eq!(story.available(), money - price, "what was held and not used came back");
    assert_eq!(story.bonds(), bonds, "an answer in time costs nobody anything");
    assert_eq!(story.session(number).forced, None);
    let file = story.home.join("forced.txt");
    std::fs::write(&file, "The first sentence is asked on chain.\n").unwrap();
    let text = file.display().to_string();
    let embedded = story.run(&["embed", "--model", MODEL, "--session", number, &text]);
    assert_eq!(
        embedded["embeddings"], forced["embeddings"],
        "the same bits on both lanes"
    );
    let chain = forced["deployments"].as_array().unwrap().iter();
    chain.map(|deployment| deployment.as_u64().unwrap()).collect()
}

/// The first of the chain is dead; others' relayers expire the request.
fn silence_is_paid_for(story: &Story<'_>, number: &str, chain: &[u64]) {
    let session = story.session(number);
    let allocation = |deployment| {
        let mut allocations = session.allocations.iter();
        allocations.find(|it| it.deployment == deployment).unwrap()
    };
    let culprit = allocation(chain[0]).provider.clone();
    story.kills_host_of(&culprit);
    let (money, bonds) = (story.available(), story.bonds());
    let names: Vec<String> = chain.iter().map(u64::to_string).collect();
    let words = [
        "session",
        "force",
        number,
        "Is anybody there?",
        "--chain",
        &names.join(","),
    ];
    let forced = story.run(&words);
    assert_eq!(
        (&forced["outcome"], &forced["deployment"], &forced["provider"]),
        (&"missed".into(), &chain[0].into(), &culprit.as_str().into()),
        "{forced}"
    );
    let held: u128 = forced["held"].as_u64().unwrap().into();
    let penalty = ((held - FORCE_FEE) * PENALTY_BPS).div_ceil(10_000).max(MISS_MIN);
    // Whose relayer has expired it has a tenth.
    let compensation = penalty - penalty / 10;
    assert_eq!(
        (&forced["penalty"], &forced["refunded"]),
        (&(compensation as u64).into(), &(held as u64).into())
    );
    assert_eq!(story.available(), money + compensation);
    let after = bonds.into_iter().map(|(provider, bond, paid)| {
        let own = if provider == culprit { penalty } else { 0 };
        (provider, bond - own, paid + own)
    });
    assert_eq!(story.bonds(), after.collect::<Vec<_>>(), "nobody else pays");
}

fn what_was_allocated_comes_back(story: &Story<'_>, number: &str, deployment: u64) {
    let look = |session: &SessionResponse| {
        let mut allocations = session.allocations.iter();
        allocations.find(|it| it.deployment == deployment).cloned().unwrap()
    };
    let missed = look(&story.session(number));
    assert_eq!(missed.state, schema::escrow::AllocationState::Missed);
    let left = (missed.amount - missed.paid + missed.reservation - missed.accrued).u128();
    let before = story.available();
    // Anyone with gas, from another home: somebody who has nothing to do with it.
    let elsewhere = tempfile::tempdir().unwrap();
    let network = story.home.join("network.json").display().to_string();
    let stranger = |words: &[&str]| {
        let mut command = fxn(elsewhere.path());
        command.args(words).args(["--network", &network, "--output", "json"]);
        command.env("FXN_PASSPHRASE", "of a stranger").output().unwrap()
    };
    let address = document(&stranger(&["keys", "new", "stranger"]))["address"].clone();
    story.run(&["wallet", "send", address.as_str().unwrap(), "5000000", "--gas"]);
    until("the notice", || {
        let closed = stranger(&["session", "close", number]);
        closed.status.success().then_some(())
    });
    assert_eq!(
        look(&story.session(number)).state,
        schema::escrow::AllocationState::Closed
    );
    assert_eq!(story.available(), before + left);
    let closed = story.run(&["session", "close", number]);
    assert!(!closed["closed"].as_array().unwrap().is_empty(), "{closed}");
}
