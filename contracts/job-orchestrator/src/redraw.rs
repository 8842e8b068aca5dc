//! What is asked of the draw: for a whole job at submission, for what is left of a shard later.

use cosmwasm_std::Storage;
use schema::{
    orchestrator::Blame,
    staking::{DrawRequest, DrawShard},
    Digest,
};

use crate::{
    effects::Redraw,
    state::{load_item, Job, JOBS, SHARDS},
    ContractError,
};

/// A draw for the shards given, in the time that the hold of the job leaves. None: there is no time.
pub(crate) fn request(job: &Job, now: u64, seed: Digest, shards: Vec<DrawShard>) -> Option<DrawRequest> {
    Some(DrawRequest {
        model: job.model.clone(),
        version: job.version,
        engine_class: job.engine_class.clone(),
        compute_shares: job.compute_shares.clone(),
        royalty: job.royalty,
        gateway_bps: job.gateway_bps(),
        seed,
        item_price_max: job.item_price_max,
        seconds_max: Some(job.seconds_left(now)?),
        shards,
    })
}

/// A draw for replicas of one shard that have to start anew. At a redraw no other replica of the shard is live, so no owner and no
/// engine class is taken. None: there is no time.
pub(crate) fn request_anew(
    storage: &dyn Storage,
    plan: &Redraw,
    now: u64,
    seed: Digest,
) -> Result<Option<DrawRequest>, ContractError> {
    let job = JOBS.load(storage, plan.job)?;
    let shard = SHARDS.load(storage, (plan.job, plan.shard))?;
    let mut wanted = DrawShard {
        units: job.units(shard.rows),
        // At most 3.
        replicas: u8::try_from(plan.replicas.len()).unwrap_or(u8::MAX),
        ..DrawShard::default()
    };
    for id in job.item_ids(plan.job, plan.shard) {
        let item = load_item(storage, id)?;
        let is_wanted = plan.replicas.contains(&id.replica);
        for past in &item.history {
            learn(&mut wanted, &past.blame, is_wanted);
        }
    }
    let excluded = wanted.exclude.clone();
    wanted.avoid.retain(|deployment| !excluded.contains(deployment));
    Ok(request(&job, now, seed, vec![wanted]))
}

/// Number of the attempt that replicas of a shard are drawn anew for: one more than any of them has had.
pub(crate) fn attempt(storage: &dyn Storage, plan: &Redraw) -> Result<u8, ContractError> {
    let mut attempt = 0;
    for replica in &plan.replicas {
        attempt = load_item(storage, plan.item(*replica))?.attempt.max(attempt);
    }
    Ok(attempt.saturating_add(1))
}

/// What a past attempt says about whom to draw. A miss on another replica is only a reason to avoid; a difference excludes everywhere.
fn learn(wanted: &mut DrawShard, blame: &Blame, is_own: bool) {
    match *blame {
        Blame::Miss { deployment, .. } if is_own => wanted.exclude.push(deployment),
        Blame::Miss { deployment, .. } => wanted.avoid.push(deployment),
        Blame::Differs { deployment } => wanted.exclude.push(deployment),
        Blame::LinkFault { sender, receiver } => {
            // Staking remembers that the two are not to be paired.
            wanted.avoid.extend([sender, receiver]);
            wanted.prefer_one_owner = true;
        }
    }
}
