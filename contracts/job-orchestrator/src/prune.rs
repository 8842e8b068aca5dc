//! Forgetting jobs that are over. Records of work are kept for a while and not for ever; ledgers, which are the siblings', for ever.
//!
//! Guarantees:
//! - Nothing of a pruned job is left in the store, and its number is never given to another.
//! - Only what nobody on the chain reads any more is pruned: the job has ended, so its hold is released, its slots are free, no round is
//!   awaited and no session waits for it; and `prune_after_seconds` have passed, pinned at submission, for everybody off the chain.
//! - One that cannot be pruned never stops the others.

use schema::{params::OrchestratorParams, Event, BATCH_MAX};
use thiserror::Error;

use crate::{
    course::Course,
    order::RUNS_MAX,
    state::{Job, Progress, DEVELOPER_JOBS, INPUTS, ITEMS, JOBS, LINKS, PROGRESS, SHARDS},
    ContractError,
};

/// Items that one message prunes: no job has more, so none is too large.
const ITEMS_MAX: usize = RUNS_MAX;
/// Longest that the admin may have records kept: a year.
const SECONDS_MAX: u64 = 365 * 24 * 3_600;

/// Why a job is not pruned.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PruneRefusal {
    #[error("there is no such job")]
    NoJob,
    #[error("the job has not ended")]
    Running,
    #[error("its records are kept until {prunable_at}, now it is {now}")]
    TooEarly { prunable_at: u64, now: u64 },
    #[error("one message prunes {max} items, {pruned} are pruned and the job has {items}")]
    Full { items: usize, pruned: usize, max: usize },
}

impl Job {
    fn items(&self) -> usize {
        usize::from(self.shards).saturating_mul(self.replicas.into())
    }

    /// From when on anyone may prune it. None: it has not ended.
    pub(crate) fn prunable_at(&self, progress: &Progress) -> Option<u64> {
        if progress.shards_open > 0 {
            return None;
        }
        // Jobs of earlier versions of the contract do not say when they ended.
        let ended_at = progress.ended_at.unwrap_or(self.expires_at);
        Some(ended_at.saturating_add(self.params.prune_after_seconds))
    }
}

impl Course<'_> {
    /// Prunes those jobs that can be, each with a status of its own.
    pub(crate) fn prune(&mut self, jobs: &[u64]) -> Result<(), ContractError> {
        if jobs.is_empty() || jobs.len() > BATCH_MAX {
            return Err(ContractError::PruneCount {
                count: jobs.len(),
                max: BATCH_MAX,
            });
        }
        let mut pruned: usize = 0;
        for id in jobs.iter().copied() {
            match self.prunable(id, pruned)? {
                Ok(job) => {
                    self.forget(id, &job);
                    pruned = pruned.saturating_add(job.items());
                    self.announce(Event::JobPruned { job: id });
                }
                Err(refusal) => self.announce(Event::PruneRefused {
                    job: id,
                    reason: refusal.to_string(),
                }),
            }
        }
        Ok(())
    }

    fn prunable(&self, id: u64, pruned: usize) -> Result<Result<Job, PruneRefusal>, ContractError> {
        let Some(job) = JOBS.may_load(self.storage, id)? else {
            return Ok(Err(PruneRefusal::NoJob));
        };
        let now = self.now;
        let refusal = match job.prunable_at(&PROGRESS.load(self.storage, id)?) {
            None => PruneRefusal::Running,
            Some(prunable_at) if now < prunable_at => PruneRefusal::TooEarly { prunable_at, now },
            Some(_) => {
                let (items, max) = (job.items(), ITEMS_MAX);
                if pruned.saturating_add(items) <= max {
                    return Ok(Ok(job));
                }
                PruneRefusal::Full { items, pruned, max }
            }
        };
        Ok(Err(refusal))
    }

    /// No item of an ended job stands in the index of due items, and no attempt has a number above those that the job allowed.
    fn forget(&mut self, id: u64, job: &Job) {
        for shard in 0..job.shards {
            for item in job.item_ids(id, shard) {
                for attempt in 0..job.params.attempts_max {
                    LINKS.remove(self.storage, (item.key(), attempt));
                }
                ITEMS.remove(self.storage, item.key());
            }
            INPUTS.remove(self.storage, (id, shard));
            SHARDS.remove(self.storage, (id, shard));
        }
        DEVELOPER_JOBS.remove(self.storage, (&job.developer, id));
        PROGRESS.remove(self.storage, id);
        JOBS.remove(self.storage, id);
    }
}

/// Refuses records that are gone before all is over that could be about them: the life of a job, with its windows, its hold and whoever
/// waits for a forced one, and the window in which a provider answers for settled work, which lasts twice its length at most.
pub(crate) fn check_params(params: &OrchestratorParams, audit_window_seconds: u64) -> Result<(), ContractError> {
    let seconds = params.prune_after_seconds;
    let min = params.job_seconds_max.max(audit_window_seconds.saturating_mul(2));
    if seconds < min || seconds > SECONDS_MAX {
        return Err(ContractError::PruneAfterOutOfBounds {
            seconds,
            min,
            max: SECONDS_MAX,
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use cosmwasm_std::{from_json, to_json_vec, Addr, Uint128};
    use schema::{price::RoyaltyRate, Digest};
    use serde_json::Value;

    use super::*;

    /// A job as a contract stored it that pruned nothing.
    fn older_job() -> Job {
        let params = serde_json::json!({
            "inclusion_seconds": 4, "grace_seconds": 1, "evidence_seconds": 2, "attempts_max": 5, "job_seconds_max": 1_800,
            "beacon_delay_seconds": 1, "migration_notice_seconds": 35,
        });
        Job {
            developer: Addr::unchecked("dora"),
            model: "demo/m".parse().unwrap(),
            version: 1,
            manifest: Digest([0; 32]),
            endpoint: "embeddings".into(),
            royalty: RoyaltyRate {
                royalty_bps: 0,
                royalty_per_1k_units: Uint128::zero(),
            },
            gateway: None,
            compute_shares: vec![10_000],
            engine_class: None,
            shards: 1,
            replicas: 1,
            units_max: 1,
            units_out_max: 0,
            item_price_max: Uint128::one(),
            held: Uint128::one(),
            seconds_max: None,
            params: serde_json::from_value(params).unwrap(),
            submitted_at: 1_000,
            expires_at: 2_800,
            is_named: false,
            session: None,
        }
    }

    #[test]
    fn a_job_from_before_the_contract_noted_ends_counts_from_its_hold_and_is_kept_for_30_days() {
        let mut stored: Value = from_json(to_json_vec(&Progress::default()).unwrap()).unwrap();
        stored.as_object_mut().unwrap().remove("ended_at").unwrap();
        let ended: Progress = from_json(stored.to_string()).unwrap();
        let job = older_job();
        assert_eq!(job.prunable_at(&ended), Some(2_800 + 30 * 86_400));
        let running = Progress {
            shards_open: 1,
            ..ended
        };
        assert_eq!(job.prunable_at(&running), None);
    }
}
