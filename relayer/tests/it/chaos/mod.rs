//! Everything goes wrong at once, drawn from a seed: the ways to the node (`proxy.rs`), the node itself, the relayer process, and its power supply.
//! Then the faults stop, and the law must hold: every item is attested exactly once, or expired by rule; nothing is paid for twice; what was made
//! safe was safe; the checkpoint is empty.
//!
//! `FXN_SEED=7 cargo test -p fxn-relayer --test it chaos -- --nocapture` runs one seed, `FXN_SLOW=1` runs 200, and without either there are 20.
//! With `FXN_CHAOS_NETWORK=network.json` the chain is one that is there already, a wasmd with the local parameters and the dev accounts.

mod story;

use std::{collections::VecDeque, sync::Mutex, time::Instant};

use story::Story;

/// Seeds of the short and of the long run.
const SHORT: u64 = 20;
const LONG: u64 = 200;
/// Seeds that run at the same time: most of a life is waiting.
const LANES: usize = 6;

fn seeds() -> VecDeque<u64> {
    let seed = std::env::var("FXN_SEED").ok().map(|seed| seed.parse::<u64>().unwrap());
    match (seed, std::env::var_os("FXN_SLOW").is_some()) {
        (Some(seed), false) => [seed].into(),
        (seed, true) => (0..LONG).map(|number| seed.unwrap_or(1).wrapping_add(number)).collect(),
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
    let replays: Vec<String> = failed
        .iter()
        .map(|(seed, error)| {
            format!("FXN_SEED={seed} cargo test -p fxn-relayer --test it chaos -- --nocapture   # {error}")
        })
        .collect();
    assert!(
        replays.is_empty(),
        "{} of {total} seeds failed; each again:\n{}",
        replays.len(),
        replays.join("\n")
    );
}
