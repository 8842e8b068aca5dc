//! Whether replicas of a shard agree, and where each of those that do not left the others first.
//!
//! Chains of one shard share an engine class but may be cut differently, so they are compared at the stages after which both have
//! a boundary. The last stage always is one.

use schema::{orchestrator::ItemResult, receipt::Link};

/// A proven replica.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) result: ItemResult,
    pub(crate) links: Vec<Link>,
}

/// For each run, the deployment at whose output it first differs from another. None: all agree.
pub(crate) fn first_differences(runs: &[Run]) -> Option<Vec<u64>> {
    let (first, others) = runs.split_first()?;
    if others.iter().all(|run| run.result == first.result) {
        return None;
    }
    let culprits = runs.iter().map(|run| {
        runs.iter()
            .filter(|other| other.result != run.result)
            .filter_map(|other| first_difference(run, other))
            .min()
            .map(|(_, deployment)| deployment)
    });
    Some(culprits.flatten().collect())
}

/// Stage and deployment of `run` after which it differs from `other`. Where all boundaries are equal, what was counted or sampled
/// differs, and that is the last span's.
fn first_difference(run: &Run, other: &Run) -> Option<(u8, u64)> {
    let receipts = || run.links.iter().map(|link| &link.receipt.receipt);
    let differs = receipts().find(|receipt| {
        other
            .links
            .iter()
            .map(|link| &link.receipt.receipt)
            .any(|theirs| theirs.last == receipt.last && theirs.output_digest != receipt.output_digest)
    });
    let receipt = differs.or_else(|| receipts().next_back())?;
    Some((receipt.last, receipt.deployment))
}
