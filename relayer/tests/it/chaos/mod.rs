//! Everything goes wrong at once, drawn from a seed: the ways to the node (`proxy.rs`), the node itself, the relayer process, and its power supply.
//! Then the faults stop, and the law must hold: every item is attested exactly once, or expired by rule; nothing is paid for twice; what was made
//! safe was safe; the checkpoint is empty.
//!
//! `FXN_SEED=7 cargo test -p fxn-relayer --test it chaos -- --nocapture` runs one seed, `FXN_SLOW=1` runs 200, and without either there are 20.
//! With `FXN_CHAOS_NETWORK=FILE` the chain is the one of this network file, which is there already and has the local parameters and the
//! development accounts: a wasmd of `scripts/localnet.sh` with `fxn deploy --profile local`. Its node is not restarted. It is slower, so
//! `FXN_SLOW=1` means 30 seeds there.

mod story;

use std::{collections::VecDeque, path::PathBuf, sync::Mutex, time::Instant};

use story::Story;

/// Seeds of the short and of the long run.
const SHORT: u64 = 20;
const LONG: u64 = 200;
/// Of the long run on a chain that is there already: a story takes half a minute there.
const LONG_ELSEWHERE: u64 = 30;
/// Seeds that run at the same time: most of a life is waiting.
const LANES: usize = 6;

/// A network file: the chain is there and somebody else's.
const NETWORK: &str = "FXN_CHAOS_NETWORK";

fn elsewhere() -> Option<PathBuf> {
    std::env::var_os(NETWORK).map(PathBuf::from)
}

fn seeds() -> VecDeque<u64> {
    let long = match elsewhere() {
        Some(_) => LONG_ELSEWHERE,
        None => LONG,
    };
    let seed = std::env::var("FXN_SEED").ok().map(|seed| seed.parse::<u64>().unwrap());
    match (seed, std::env::var_os("FXN_SLOW").is_some()) {
        (Some(seed), false) => [seed].into(),
        (seed, true) => (0..long).map(|number| seed.unwrap_or(1).wrapping_add(number)).collect(),
        (None, false) => (1..=SHORT).collect(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn chaos_ends_with_every_item_attested_once_or_expired_by_rule() {
    let seeds = Mutex::new(seeds());
    let (began, total) = (Instant::now(), seeds.lock().unwrap().len());
    let failed = Mutex::new(vec![]);
    let lane = || async {
        loop {
            let Some(seed) = seeds.lock().unwrap().pop_front() else {
                return;
            };
            // A task of its own: its panic ends it, and no other.
            match tokio::spawn(Story::is_told(seed)).await {
                Ok(told) => println!("seed {seed}: {told}"),
                Err(error) => failed.lock().unwrap().push((seed, error.to_string())),
            }
        }
    };
    futures::future::join_all((0..LANES).map(|_| lane())).await;
    println!("{total} seeds took {} s", began.elapsed().as_secs());
    let failed = failed.into_inner().unwrap();
    let chain = elsewhere().map_or_else(String::new, |file| format!("{NETWORK}={} ", file.display()));
    let replays: Vec<String> = failed
        .iter()
        .map(|(seed, error)| {
            format!("{chain}FXN_SEED={seed} cargo test -p fxn-relayer --test it chaos -- --nocapture   # {error}")
        })
        .collect();
    assert!(
        replays.is_empty(),
        "{} of {total} seeds failed; each again:\n{}",
        replays.len(),
        replays.join("\n")
    );
}
