//! Deployments that are killed anywhere, on a chain that loses, delays and repeats.

#![allow(
    clippy::arithmetic_side_effects,
    clippy::unwrap_used,
    reason = "a small world with small numbers; what cannot be unwrapped fails its story"
)]

use std::{cell::RefCell, cmp::Ordering, collections::BTreeMap, io::Read as _};

use client::{Call, ClientError, TxHash, TxOutcome};
use cosmwasm_std::Event;
use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use schema::Digest;

use super::{
    artifacts::{tests::folder, Artifacts},
    chain::{Chain, Signed},
    journal::Journal,
    plan::{tests::inputs, Inputs, Kind},
    run::{Deployment, Made},
};

/// Far more runs than any story needs.
const RUNS_MAX: usize = 200;
const STORIES: u64 = 30;
const KILLED: &str = "killed";

struct Waiting {
    hash: TxHash,
    sequence: u64,
    calls: Vec<Call>,
}

/// What outlives every run.
struct World {
    dice: ChaCha8Rng,
    /// Whether the network does what networks do.
    is_rough: bool,
    sequence: u64,
    mempool: Vec<Waiting>,
    /// In the memory of other nodes only.
    ghosts: Vec<Waiting>,
    signed: Vec<Waiting>,
    /// With the looks that it takes until the index knows it.
    blocks: Vec<(TxOutcome, u32)>,
    codes: Vec<Digest>,
    /// Label, code and wasm admin, by address.
    contracts: BTreeMap<String, (String, u64, Option<String>)>,
    wired: u32,
    /// Whether anybody may store code.
    takes_code: bool,
    /// How much the next transactions may use.
    gas: u8,
    /// The process is killed as soon as this is so.
    kill_when: Option<fn(&World) -> bool>,
    /// Calls of the port until the process is killed.
    until_kill: Option<u32>,
}

impl World {
    fn new(seed: u64, is_rough: bool) -> Self {
        Self {
            dice: ChaCha8Rng::seed_from_u64(seed),
            is_rough,
            sequence: 7,
            mempool: vec![],
            ghosts: vec![],
            signed: vec![],
            blocks: vec![],
            codes: vec![],
            contracts: BTreeMap::new(),
            wired: 0,
            takes_code: true,
            gas: 0,
            kill_when: None,
            until_kill: None,
        }
    }

    fn rarely(&mut self, one_in: u32) -> bool {
        self.is_rough && self.dice.gen_ratio(1, one_in)
    }

    fn apply(&mut self, calls: &[Call]) -> Result<Vec<Event>, String> {
        let mut events = vec![];
        for call in calls {
            match call {
                Call::StoreCode { wasm } => {
                    let mut module = vec![];
                    flate2::read::GzDecoder::new(wasm.as_slice())
                        .read_to_end(&mut module)
                        .unwrap();
                    self.codes.push(Digest::of(&module));
                    events.push(Event::new("store_code").add_attribute("code_id", self.codes.len().to_string()));
                }
                Call::Instantiate {
                    code_id, label, admin, ..
                } => {
                    let address = format!("contract-{}", self.contracts.len() + 1);
                    let made = (label.clone(), *code_id, admin.clone());
                    self.contracts.insert(address.clone(), made);
                    events.push(Event::new("instantiate").add_attribute("_contract_address", address));
                }
                Call::UpdateAdmin { contract, admin } => {
                    self.contracts.get_mut(contract).unwrap().2 = Some(admin.clone());
                }
                Call::Execute { msg, .. } if String::from_utf8_lossy(msg).contains("wire") => {
                    if self.wired == 3 {
                        return Err("the siblings are wired already".into());
                    }
                    self.wired += 1;
                }
                Call::Execute { .. } => {}
                Call::Send { .. } => panic!("nothing is sent to anybody"),
            }
        }
        Ok(events)
    }

    /// A block: the transaction whose turn it is, or somebody else's of the same account.
    fn block(&mut self) {
        if self.rarely(12) {
            let forgotten: Vec<Waiting> = self.mempool.drain(..).collect();
            if self.dice.gen_bool(0.7) {
                self.ghosts.extend(forgotten);
            }
        }
        if self.rarely(6) && !self.ghosts.is_empty() {
            let ghost = self.ghosts.remove(0);
            match ghost.sequence.cmp(&self.sequence) {
                Ordering::Equal => return self.include(ghost),
                Ordering::Less => self.refuse(&ghost),
                Ordering::Greater => {}
            }
        }
        if self.rarely(25) {
            self.sequence += 1;
        }
        let sequence = self.sequence;
        let Some(place) = self.mempool.iter().position(|waiting| waiting.sequence == sequence) else {
            self.mempool.retain(|waiting| waiting.sequence > sequence);
            return;
        };
        let waiting = self.mempool.remove(place);
        self.include(waiting);
    }

    /// It is in a block, and its sequence was used before.
    fn refuse(&mut self, waiting: &Waiting) {
        let outcome = TxOutcome {
            hash: waiting.hash,
            height: 1,
            code: 32,
            codespace: "sdk".into(),
            log: "account sequence mismatch: incorrect account sequence".into(),
            gas_wanted: 2,
            gas_used: 1,
            events: vec![],
            data: vec![],
        };
        self.blocks.push((outcome, 0));
    }

    fn include(&mut self, waiting: Waiting) {
        self.sequence += 1;
        let before = (self.codes.clone(), self.contracts.clone(), self.wired);
        let (code, log, events) = match self.apply(&waiting.calls) {
            Ok(events) => (0, String::new(), events),
            Err(log) => {
                (self.codes, self.contracts, self.wired) = before;
                (5, log, vec![])
            }
        };
        let outcome = TxOutcome {
            hash: waiting.hash,
            height: 1,
            code,
            codespace: "wasm".into(),
            log,
            gas_wanted: 2,
            gas_used: 1,
            events,
            data: vec![],
        };
        let lag = if self.is_rough { self.dice.gen_range(0..6) } else { 0 };
        self.blocks.push((outcome, lag));
    }

    fn assert_nothing_is_there_twice(&self) {
        for kind in Kind::ALL {
            let count = self.contracts.values().filter(|made| made.0 == kind.name()).count();
            assert!(count <= 1, "{} {}", count, kind.name());
        }
    }

    fn assert_done(&self, made: &Made, inputs: &Inputs) {
        assert_eq!((self.contracts.len(), self.wired), (6, 3));
        for kind in Kind::ALL {
            let address = kind.address(&made.contracts);
            let (label, code_id, admin) = &self.contracts[address];
            let checksum = self.codes[usize::try_from(*code_id - 1).unwrap()];
            assert_eq!(label, kind.name());
            assert_eq!(checksum, inputs.checksums[&kind]);
            assert_eq!(admin.as_deref(), kind.is_migratable().then_some(address));
        }
    }
}

/// A process that may be killed before and after anything that it does.
struct Mortal<'a>(&'a RefCell<World>);

impl Mortal<'_> {
    fn pulse(&self) -> Result<(), ClientError> {
        let mut world = self.0.borrow_mut();
        if world.kill_when.is_some_and(|is_time| is_time(&world)) {
            return Err(ClientError::BadCall(KILLED.into()));
        }
        match &mut world.until_kill {
            Some(0) => Err(ClientError::BadCall(KILLED.into())),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }
}

fn unreachable() -> ClientError {
    ClientError::Unreachable {
        rpc: "http://node".into(),
        reason: "timed out".into(),
    }
}

fn mismatch() -> ClientError {
    ClientError::SequenceMismatch {
        expected: None,
        message: "account sequence mismatch".into(),
    }
}

impl Chain for Mortal<'_> {
    async fn sequence(&self) -> Result<u64, ClientError> {
        self.pulse()?;
        Ok(self.0.borrow().sequence)
    }

    async fn prepare(&self, calls: &[Call]) -> Result<Signed, ClientError> {
        self.pulse()?;
        let mut world = self.0.borrow_mut();
        if world.rarely(6) {
            world.block();
        }
        // A node simulates on top of what waits.
        if !world.mempool.is_empty() {
            return Err(mismatch());
        }
        let stores = matches!(calls, [Call::StoreCode { .. }]);
        if stores && !world.takes_code {
            return Err(ClientError::Refused {
                message: "can not create code: unauthorized".into(),
                code: 4,
                codespace: "sdk".into(),
                hash: None,
            });
        }
        let is_wire = calls.len() > 1;
        if is_wire && world.wired > 0 {
            return Err(ClientError::Refused {
                message: "the siblings are wired already".into(),
                code: 5,
                codespace: "wasm".into(),
                hash: None,
            });
        }
        let sequence = world.sequence;
        // Another gas limit, another hash.
        if world.is_rough {
            world.gas = world.dice.gen_range(0..3);
        }
        let gas = world.gas;
        let hash = TxHash::of(format!("{sequence} {gas} {calls:?}").as_bytes());
        world.signed.push(Waiting {
            hash,
            sequence,
            calls: calls.to_vec(),
        });
        let bytes = (world.signed.len() - 1).to_string().into_bytes();
        Ok(Signed { hash, sequence, bytes })
    }

    async fn broadcast(&self, signed: &Signed) -> Result<(), ClientError> {
        self.pulse()?;
        let answer = {
            let mut world = self.0.borrow_mut();
            if world.rarely(8) {
                return Err(unreachable());
            }
            let next = world.sequence + world.mempool.len() as u64;
            let number: usize = String::from_utf8_lossy(&signed.bytes).parse().unwrap();
            let calls = world.signed[number].calls.clone();
            let is_known = world.mempool.iter().any(|waiting| waiting.hash == signed.hash);
            if !is_known && signed.sequence != next {
                return Err(mismatch());
            }
            if !is_known {
                let (hash, sequence) = (signed.hash, signed.sequence);
                world.mempool.push(Waiting { hash, sequence, calls });
            }
            if world.rarely(8) {
                Err(unreachable())
            } else {
                Ok(())
            }
        };
        self.pulse()?;
        answer
    }

    async fn find(&self, hash: TxHash) -> Result<Option<TxOutcome>, ClientError> {
        self.pulse()?;
        let mut world = self.0.borrow_mut();
        if world.rarely(30) {
            return Err(unreachable());
        }
        let found = world.blocks.iter_mut().find(|(outcome, _)| outcome.hash == hash);
        Ok(found.and_then(|(outcome, lag)| match lag {
            0 => Some(outcome.clone()),
            _ => {
                *lag -= 1;
                None
            }
        }))
    }

    async fn find_code(&self, checksum: &Digest) -> Result<Option<u64>, ClientError> {
        self.pulse()?;
        let world = self.0.borrow();
        let place = world.codes.iter().position(|code| code == checksum);
        Ok(place.map(|place| place as u64 + 1))
    }

    async fn pause(&self) {
        self.0.borrow_mut().block();
    }
}

struct Story {
    out: tempfile::TempDir,
    inputs: Inputs,
    artifacts: Artifacts,
    world: RefCell<World>,
}

impl Story {
    fn new(world: World) -> Self {
        let artifacts = Artifacts::load(folder().path()).unwrap();
        let checksums = Kind::ALL.map(|kind| (kind, artifacts.of(kind).checksum)).into();
        Self {
            out: tempfile::tempdir().unwrap(),
            inputs: Inputs { checksums, ..inputs() },
            artifacts,
            world: RefCell::new(world),
        }
    }

    /// One process, which may be killed.
    async fn run(&self) -> anyhow::Result<Made> {
        let mut journal = Journal::open(&self.out.path().join("network.json"), &self.inputs)?;
        let process = Mortal(&self.world);
        let deployment = Deployment::new(&process, &self.inputs, &self.artifacts, &mut journal);
        let made = deployment.run(|_| ()).await;
        self.world.borrow().assert_nothing_is_there_twice();
        made
    }

    /// Runs until it is done, each process killed after as many calls as `kill` says.
    async fn runs_until_done(&self, mut kill: impl FnMut(&mut World) -> Option<u32>) -> Made {
        let mut last = None;
        for _ in 0..RUNS_MAX {
            {
                let mut world = self.world.borrow_mut();
                world.until_kill = kill(&mut world);
            }
            match self.run().await {
                Ok(made) => return made,
                Err(error) => last = Some(error),
            }
        }
        panic!("not done after {RUNS_MAX} runs: {last:?}");
    }
}

#[tokio::test]
async fn killed_at_every_call_and_started_again_it_makes_each_contract_once() {
    let mut calls = 0;
    loop {
        let story = Story::new(World::new(0, false));
        story.world.borrow_mut().until_kill = Some(calls);
        let killed = story.run().await.is_err();
        story.world.borrow_mut().until_kill = None;
        let made = story.run().await.unwrap();
        let world = story.world.borrow();
        world.assert_done(&made, &story.inputs);
        assert_eq!(world.codes.len(), 6, "killed after {calls} calls");
        assert_eq!(world.sequence, 7 + 13, "killed after {calls} calls");
        if !killed {
            break;
        }
        calls += 1;
    }
    assert!(calls > 50, "{calls}");
}

#[tokio::test]
async fn whatever_the_network_does_and_whenever_it_is_killed_it_makes_each_contract_once() {
    let seed = std::env::var("FXN_SEED").ok().and_then(|seed| seed.parse().ok());
    let first: u64 = seed.unwrap_or(1);
    let slow = std::env::var("FXN_SLOW").is_ok_and(|slow| slow == "1");
    let stories = if slow { 100 * STORIES } else { STORIES };
    for seed in first..first + stories {
        // What is printed last replays a failure at once.
        println!("FXN_SEED={seed} cargo test -p fxn-cli deploy::run_tests");
        let story = Story::new(World::new(seed, true));
        let made = story
            .runs_until_done(|world| world.dice.gen_bool(0.7).then(|| world.dice.gen_range(0..40)))
            .await;
        story.world.borrow().assert_done(&made, &story.inputs);
    }
}

#[tokio::test]
async fn what_is_done_is_not_done_again_and_code_that_is_there_is_not_stored() {
    let story = Story::new(World::new(0, false));
    for kind in [Kind::Staking, Kind::Token] {
        let checksum = story.inputs.checksums[&kind];
        story.world.borrow_mut().codes.push(checksum);
    }
    let made = story.run().await.unwrap();
    assert_eq!(made.transactions, 4 + 6 + 1);
    story.world.borrow().assert_done(&made, &story.inputs);
    let again = story.run().await.unwrap();
    assert_eq!((again.transactions, again.gas_used), (0, 0));
    assert_eq!(again.contracts, made.contracts);
}

#[tokio::test]
async fn a_step_that_the_chain_refuses_is_told_and_tried_anew_by_the_next_run() {
    let story = Story::new(World::new(0, false));
    story.world.borrow_mut().wired = 3;
    let told = format!("{:#}", story.run().await.unwrap_err());
    assert_eq!(told, "wiring failed: the siblings are wired already");
    story.world.borrow_mut().wired = 0;
    let made = story.run().await.unwrap();
    story.world.borrow().assert_done(&made, &story.inputs);
}

#[tokio::test]
async fn a_transaction_that_failed_because_another_of_its_step_was_quicker_is_no_failure() {
    let story = Story::new(World::new(0, false));
    // The sixth transaction makes the first contract. It is written down and not sent.
    story.world.borrow_mut().kill_when = Some(|world| world.signed.len() == 6);
    story.run().await.unwrap_err();
    {
        let mut world = story.world.borrow_mut();
        world.gas = 1;
        world.kill_when = Some(|world| world.signed.len() == 8 && !world.mempool.is_empty());
    }
    story.run().await.unwrap_err();
    {
        let mut world = story.world.borrow_mut();
        world.kill_when = None;
        world.block();
        // The index will know it later than the other, which some node had sent after all.
        world.blocks.last_mut().unwrap().1 = 5;
        let late = world.signed.remove(6);
        world.refuse(&late);
        world.signed.insert(6, late);
        assert_eq!(world.contracts.len(), 1);
    }
    let made = story.run().await.unwrap();
    story.world.borrow().assert_done(&made, &story.inputs);
}

#[tokio::test]
async fn where_code_may_not_be_stored_it_is_told_and_used_once_it_is_there() {
    let story = Story::new(World::new(0, false));
    story.world.borrow_mut().takes_code = false;
    let told = format!("{:#}", story.run().await.unwrap_err());
    assert!(
        told.starts_with("storing func-token failed: this chain does not let deployer store code"),
        "{told}"
    );
    assert!(told.ends_with("can not create code: unauthorized"), "{told}");
    story.world.borrow_mut().codes = story.inputs.checksums.values().copied().collect();
    let made = story.run().await.unwrap();
    story.world.borrow().assert_done(&made, &story.inputs);
}

#[tokio::test]
async fn a_chain_that_was_started_anew_is_told_and_nothing_is_sent() {
    let story = Story::new(World::new(0, false));
    // Killed between the journal and the sending of the third contract.
    story.world.borrow_mut().until_kill = Some(60);
    story.run().await.unwrap_err();
    *story.world.borrow_mut() = World {
        sequence: 0,
        ..World::new(0, false)
    };
    let told = format!("{:#}", story.run().await.unwrap_err());
    assert!(told.contains("the chain was started anew"), "{told}");
    assert!(story.world.borrow().contracts.is_empty());
}
