//! How a shard ends: its proven replicas agree and are paid, or disagree, or cannot be paid any more. The last shard ends the job.

use cosmwasm_std::Uint128;
use schema::{
    escrow::{SettledSpan, Settlement},
    orchestrator::{Blame, FailureReason, ItemResult, ItemStatus, ShardStatus},
    price::{SpanPrice, Units},
    staking::{Ended, Span},
    Digest, Event, ItemId,
};

use crate::{
    compare::{first_differences, Run},
    course::{vacancy, Course, Replica},
    effects::{EndedJob, Redraw},
    randomness::Find,
    state::{load_links, Item, Job, Progress, DUE, INPUTS, ITEMS, JOBS, PROGRESS, SHARDS},
    ContractError,
};

impl Course<'_> {
    /// Looks at a shard whose replicas have changed: if none is open, those that are proven are compared and paid, or disputed.
    pub(crate) fn conclude(&mut self, job_id: u64, shard: u16) -> Result<(), ContractError> {
        let job = JOBS.load(self.storage, job_id)?;
        let replicas = self.replicas(&job, job_id, shard)?;
        if replicas.iter().any(|(_, item)| item.is_assigned()) {
            return Ok(());
        }
        let mut proven = vec![];
        let mut runs = vec![];
        for (id, item) in replicas {
            if let ItemStatus::Attested { result } = item.status {
                let links = load_links(self.storage, id, item.attempt)?;
                runs.push(Run { result, links });
                proven.push((id, item));
            }
        }
        let Some(first) = runs.first().map(|run| run.result) else {
            return Ok(());
        };
        if self.now >= job.expires_at {
            return self.give_up(job_id, shard, &job, proven, FailureReason::Time);
        }
        if let Some(culprits) = first_differences(&runs) {
            return self.dispute(job_id, shard, &job, proven, &culprits);
        }
        for ((id, item), run) in proven.into_iter().zip(runs) {
            self.settle(id, item, &job, run.result)?;
        }
        self.end_shard(job_id, shard, Some(first.output_digest))
    }

    fn settle(&mut self, id: ItemId, mut item: Item, job: &Job, result: ItemResult) -> Result<(), ContractError> {
        let paid = self.price(&item.spans, job, result.units)?;
        let mut progress = PROGRESS.load(self.storage, id.job)?;
        progress.paid = progress.paid.checked_add(paid)?;
        PROGRESS.save(self.storage, id.job, &progress)?;
        self.effects.settlements.push(Settlement {
            item: id,
            units: result.units,
            spans: item.spans.iter().map(settled).collect(),
        });
        self.vacate(id, &item, job, Ended::Settled { price: paid });
        item.status = ItemStatus::Settled { result, paid };
        ITEMS.save(self.storage, id.key(), &item)?;
        Ok(())
    }

    /// What the escrow will take for it, by the same function.
    fn price(&self, spans: &[Span], job: &Job, units: Units) -> Result<Uint128, ContractError> {
        let mut sum = Uint128::zero();
        for span in spans {
            let price = SpanPrice::of(
                &span.ask,
                &job.royalty,
                job.gateway_bps(),
                span.compute_share_bps,
                units,
            )?;
            sum = sum.checked_add(price.total()?)?;
        }
        Ok(sum)
    }

    /// Replicas disagree: nobody is paid, the links stay, and the shard gets one more try without those who differed first.
    fn dispute(
        &mut self,
        job_id: u64,
        shard: u16,
        job: &Job,
        mut proven: Vec<Replica>,
        culprits: &[u64],
    ) -> Result<(), ContractError> {
        let is_second = proven.iter().any(|(_, item)| has_differed(item));
        let hindrance = proven.iter().find_map(|(_, item)| self.hindrance(job, item));
        for ((id, item), deployment) in proven.iter_mut().zip(culprits) {
            let blame = Blame::Differs {
                deployment: *deployment,
            };
            self.record_blame(*id, item, blame);
        }
        if is_second {
            for (id, mut item) in proven {
                self.vacate(id, &item, job, Ended::Unpaid {});
                if let ItemStatus::Attested { result } = item.status {
                    item.status = ItemStatus::Disputed { result };
                }
                ITEMS.save(self.storage, id.key(), &item)?;
            }
            return self.end_shard(job_id, shard, None);
        }
        if let Some(reason) = hindrance {
            return self.give_up(job_id, shard, job, proven, reason);
        }
        let mut vacancies = vec![];
        for (id, item) in &proven {
            vacancies.push(vacancy(*id, item, Ended::Unpaid {}));
            ITEMS.save(self.storage, id.key(), item)?;
        }
        match self.round_from_now(job)? {
            None => self.draw_anew(job_id, shard, vacancies, self.block),
            Some(fixed) => {
                self.effects.vacancies.extend(vacancies);
                self.await_round(proven, fixed)?;
            }
        }
        Ok(())
    }

    /// Whoever brought the last proof could choose its moment, so the redraw takes a round that is signed only later.
    fn await_round(&mut self, proven: Vec<Replica>, (round, due_at): (u64, u64)) -> Result<(), ContractError> {
        for (item, mut awaiting) in proven {
            awaiting.status = ItemStatus::AwaitingRound { round };
            ITEMS.save(self.storage, item.key(), &awaiting)?;
            DUE.save(self.storage, (due_at, item.key()), &())?;
            self.announce(Event::RoundAwaited { item, round, due_at });
        }
        Ok(())
    }

    /// Draws all replicas of a shard anew that differed, with the round that they await; or gives them up when the job has no time left.
    pub(crate) fn draw_differing(
        &mut self,
        id: ItemId,
        item: &Item,
        job: &Job,
        find: Find<'_>,
    ) -> Result<(), ContractError> {
        let has_time = job.seconds_left(self.now).is_some();
        let source = match has_time {
            true => Some(self.source(id, item, job, find)?),
            false => None,
        };
        let mut replicas = vec![];
        for (id, awaiting) in self.replicas(job, id.job, id.shard)? {
            let ItemStatus::AwaitingRound { round } = awaiting.status else {
                continue;
            };
            let due_at = self.time_of(round)?;
            DUE.remove(self.storage, (due_at, id.key()));
            replicas.push(id.replica);
            if !has_time {
                self.fail(id, awaiting, FailureReason::Time)?;
            }
        }
        match source {
            Some(source) => {
                let (job, shard) = (id.job, id.shard);
                self.effects.draw = Some(Redraw {
                    job,
                    shard,
                    replicas,
                    source,
                });
                Ok(())
            }
            None => self.end_shard(id.job, id.shard, None),
        }
    }

    /// Ends a shard whose proven replicas cannot be paid any more.
    fn give_up(
        &mut self,
        job_id: u64,
        shard: u16,
        job: &Job,
        proven: Vec<Replica>,
        reason: FailureReason,
    ) -> Result<(), ContractError> {
        for (id, item) in proven {
            self.vacate(id, &item, job, Ended::Unpaid {});
            self.fail(id, item, reason)?;
        }
        self.end_shard(job_id, shard, None)
    }

    /// The shard is done with this output, or has failed. The last shard ends the job.
    pub(crate) fn end_shard(&mut self, id: u64, number: u16, output: Option<Digest>) -> Result<(), ContractError> {
        let mut shard = SHARDS.load(self.storage, (id, number))?;
        let mut progress = PROGRESS.load(self.storage, id)?;
        progress.shards_open = progress.shards_open.saturating_sub(1);
        match output {
            Some(output_digest) => {
                shard.status = ShardStatus::Done;
                self.announce(Event::ShardDone {
                    job: id,
                    shard: number,
                    output_digest,
                });
            }
            None => {
                shard.status = ShardStatus::Failed;
                progress.shards_failed = progress.shards_failed.saturating_add(1);
                self.announce(Event::ShardFailed { job: id, shard: number });
            }
        }
        SHARDS.save(self.storage, (id, number), &shard)?;
        progress.ended_at = (progress.shards_open == 0).then_some(self.now);
        PROGRESS.save(self.storage, id, &progress)?;
        if progress.shards_open == 0 {
            self.end_job(id, &progress)?;
        }
        Ok(())
    }

    fn end_job(&mut self, id: u64, progress: &Progress) -> Result<(), ContractError> {
        let job = JOBS.load(self.storage, id)?;
        for shard in 0..job.shards {
            INPUTS.remove(self.storage, (id, shard));
        }
        let forced = match job.session {
            Some(session) => Some((session, self.forced_outcome(id)?)),
            None => None,
        };
        self.effects.ended.push(EndedJob { job: id, forced });
        let status = if progress.shards_failed == 0 {
            "completed"
        } else {
            "incomplete"
        };
        self.announce(Event::JobEnded {
            job: id,
            developer: job.developer.into_string(),
            status: status.to_owned(),
            paid: progress.paid,
            refunded: job.held.checked_sub(progress.paid)?,
        });
        Ok(())
    }
}

fn has_differed(item: &Item) -> bool {
    item.history
        .iter()
        .any(|past| matches!(past.blame, Blame::Differs { .. }))
}

fn settled(span: &Span) -> SettledSpan {
    SettledSpan {
        provider: span.provider.clone(),
        deployment: span.deployment,
        compute_share_bps: span.compute_share_bps,
        ask: span.ask,
    }
}
