//! The embedded chain against the real one: the same transactions and questions on both, and everything that either says is compared: codes,
//! words, events, data, answers, addresses, balances. Whatever differs is a fault of the embedded one.
//!
//! What must differ is masked where it is told, in `side.rs`, and nowhere else: the clock, heights and gas that was used.

#![allow(
    clippy::arithmetic_side_effects,
    clippy::unwrap_used,
    reason = "sums of a test's own numbers, and what cannot be unwrapped fails its story"
)]

mod forced;
mod market;
mod mistakes;
mod sessions;
mod side;
mod work;

use std::fmt::Write as _;

use side::{Line, Side};

async fn tell(side: &mut Side) {
    side.money_before().await;
    side.contracts_are_who_they_are().await;
    mistakes::of_the_token(side).await;
    market::opens(side).await;
    mistakes::of_the_market(side).await;
    mistakes::of_strangers(side).await;
    work::is_done_and_paid(side).await;
    work::is_missed_and_refunded(side).await;
    sessions::are_paid(side).await;
    forced::requests(side).await;
    forced::chains_of_jobs(side).await;
    forced::jail(side).await;
    mistakes::of_transactions(side).await;
    market::is_looked_at(side).await;
    side.money_after().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_embedded_chain_and_wasmd_tell_the_same() {
    let (mut embedded, mut real) = tokio::join!(Side::embedded(), Side::real());
    tokio::join!(tell(&mut embedded), tell(&mut real));
    let (embedded, real) = (embedded.told(), real.told());
    assert!(embedded.len() > 100, "only {} things were compared", embedded.len());
    let faults = differences(embedded, real);
    assert!(faults.is_empty(), "{}", faults);
    println!("{} things were compared", embedded.len());
}

fn differences(embedded: &[Line], real: &[Line]) -> String {
    let mut faults = String::new();
    for (embedded, real) in embedded.iter().zip(real) {
        assert_eq!(embedded.what, real.what, "both tell the same story");
        if embedded.said != real.said {
            let _ = writeln!(
                faults,
                "\n== {}\nembedded: {:#}\nwasmd:    {:#}",
                embedded.what, embedded.said, real.said
            );
        }
    }
    assert_eq!(embedded.len(), real.len());
    faults
}

#[test]
fn a_difference_is_found() {
    let line = |said: &str| Line {
        what: "x".into(),
        said: said.into(),
    };
    assert_eq!(differences(&[line("a")], &[line("a")]), "");
    assert!(differences(&[line("a")], &[line("b")]).contains("== x"));
}
