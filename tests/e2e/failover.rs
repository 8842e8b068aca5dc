//! A host in the middle of the chain dies: the one before it can show that it did its part, and nobody can show whose fault it was.

use std::{path::Path, process::Command};

use schema::orchestrator::{Blame, ItemResponse, ItemStatus};
use serde_json::Value;

use crate::{document, fxn, keep::embed_sentences};

/// A job has several shards, and each draws the dead host with probability 1/2.
const JOBS_MAX: usize = 6;

/// Kills a host of the middle stage for good and embeds until somebody has waited for it.
pub(crate) fn a_dead_middle_host_is_nobodys_proven_fault(home: &Path, report: &Value) {
    let processes = report["processes"].as_array().unwrap();
    let dead = processes
        .iter()
        .find(|process| process["role"] == "provider-3/host")
        .unwrap();
    let killed = Command::new("kill")
        .arg("-9")
        .arg(dead["pid"].to_string())
        .status()
        .unwrap();
    assert!(killed.success());

    let before = penalties(home);
    for _ in 0..JOBS_MAX {
        let answer = embed_sentences(home);
        assert_eq!(
            answer["embeddings"], report["embeddings"],
            "whoever is dead, the answer is the same"
        );
        let faults: Vec<ItemResponse> = items_of_newest_job(home).into_iter().filter(has_link_fault).collect();
        for item in &faults {
            assert!(matches!(item.status, ItemStatus::Settled { .. }), "{:?}", item.status);
            assert!(item.attempt >= 1, "drawn anew");
        }
        if !faults.is_empty() {
            assert_eq!(penalties(home), before, "nobody pays for a link fault");
            return;
        }
    }
    panic!("{JOBS_MAX} jobs never met the dead host");
}

/// Both ends of the link are in it: the sender's receipt proves that the first stage was done.
fn has_link_fault(item: &ItemResponse) -> bool {
    item.history.iter().any(|past| match past.blame {
        Blame::LinkFault { sender, receiver } => past.deployments[..2] == [sender, receiver],
        _ => false,
    })
}

fn items_of_newest_job(home: &Path) -> Vec<ItemResponse> {
    let jobs = document(
        &fxn(home)
            .args(["job", "list", "--limit", "1", "--output", "json"])
            .output()
            .unwrap(),
    );
    let newest = jobs[0]["job"].to_string();
    let shown = document(
        &fxn(home)
            .args(["job", "show", &newest, "--output", "json"])
            .output()
            .unwrap(),
    );
    serde_json::from_value(shown["items"].clone()).unwrap()
}

/// Penalties that all providers together have ever paid, in ufunc.
fn penalties(home: &Path) -> u128 {
    let listed = document(
        &fxn(home)
            .args(["provider", "list", "--output", "json"])
            .output()
            .unwrap(),
    );
    let providers = listed.as_array().unwrap();
    assert_eq!(providers.len(), 6);
    providers
        .iter()
        .map(|provider| provider["penalties"].as_str().unwrap().parse::<u128>().unwrap())
        .sum()
}
