//! The course of a job: assigned, attested, compared, settled, or blamed and drawn anew.
//!
//! Guarantees:
//! - An item is paid at most once, and only when no replica of its shard is open and all that are proven agree.
//! - Every assigned item stands in the index of due items, so anyone can find what has to be expired.
//! - A shard ends exactly once; the last one ends its job, whose hold is then released.
//! - After the date of the hold nothing is paid any more: the money may be with the developer again.
//!
//! It changes stored jobs and says by [`Effects`] what the siblings have to do.

use cosmwasm_std::{Addr, Binary, BlockInfo, Storage};
use schema::{
    event::DeploymentList,
    orchestrator::{Blame, FailureReason, ItemStatus, PastAttempt, ShardInfo},
    price::Units,
    staking::{Chain, Ended, Keeper, Occupation, Penalty, SettledWork, Vacancy},
    Event, ItemId,
};

use crate::{
    blame::blame,
    effects::{Effects, Redraw},
    randomness::{Find, Source},
    state::{
        load_item, load_links, Item, Job, Progress, Window, DEVELOPER_JOBS, DUE, INPUTS, ITEMS, JOBS, PROGRESS, SHARDS,
    },
    ContractError,
};

pub(crate) struct Course<'a> {
    pub(crate) storage: &'a mut dyn Storage,
    pub(crate) now: u64,
    height: u64,
    /// The block as a source of seeds, where there is no beacon.
    pub(crate) block: Source,
    pub(crate) effects: Effects,
}

/// An item of a shard with its number.
pub(crate) type Replica = (ItemId, Item);

impl<'a> Course<'a> {
    pub(crate) fn at(storage: &'a mut dyn Storage, block: &BlockInfo) -> Self {
        Self {
            storage,
            now: block.time.seconds(),
            height: block.height,
            block: Source::block(block),
            effects: Effects::default(),
        }
    }

    pub(crate) fn finish(self) -> Effects {
        self.effects
    }

    /// Starts a job. `chains` are those of its items, shard by shard, replica by replica.
    pub(crate) fn open(
        &mut self,
        id: u64,
        job: &Job,
        shards: Vec<(ShardInfo, Vec<Binary>)>,
        chains: Vec<Chain>,
    ) -> Result<(), ContractError> {
        JOBS.save(self.storage, id, job)?;
        DEVELOPER_JOBS.save(self.storage, (&job.developer, id), &())?;
        let progress = Progress {
            shards_open: job.shards,
            ..Progress::default()
        };
        PROGRESS.save(self.storage, id, &progress)?;
        self.announce(Event::JobSubmitted {
            job: id,
            developer: job.developer.to_string(),
            model: job.model.clone(),
            version: job.version,
            endpoint: job.endpoint.clone(),
            shards: job.shards,
            replicas: job.replicas,
            held: job.held,
            expires_at: job.expires_at,
        });
        let mut chains = chains.into_iter();
        for (number, (shard, rows)) in (0..job.shards).zip(shards) {
            SHARDS.save(self.storage, (id, number), &shard)?;
            INPUTS.save(self.storage, (id, number), &rows)?;
            let units = job.units(shard.rows);
            for (item, chain) in job.item_ids(id, number).zip(chains.by_ref()) {
                let assigned = self.planned(job, units, chain, 0, vec![])?;
                if assigned.evidence_until >= job.expires_at {
                    return Err(ContractError::TooSlow {
                        evidence_until: assigned.evidence_until,
                        expires_at: job.expires_at,
                    });
                }
                self.assign(item, job, &assigned)?;
            }
        }
        Ok(())
    }

    /// Ends an overdue attempt: blames, and then leaves the shard to its other replicas, draws anew, or gives up. The keeper is whoever
    /// has called for it.
    pub(crate) fn expire(&mut self, id: ItemId, keeper: &Addr, find: Find<'_>) -> Result<(), ContractError> {
        let mut item = load_item(self.storage, id)?;
        let job = JOBS.load(self.storage, id.job)?;
        if let ItemStatus::AwaitingRound { .. } = item.status {
            return self.draw_differing(id, &item, &job, find);
        }
        self.check_overdue(id, &item, &job)?;
        if self.is_forgotten(&job) {
            DUE.remove(self.storage, (item.evidence_until, id.key()));
            self.fail(id, item, FailureReason::Time)?;
            return self.end_shard(id.job, id.shard, None);
        }
        let links = load_links(self.storage, id, item.attempt)?;
        let blame = blame(&item.spans, &links, item.price_max()?).ok_or(ContractError::NotAssigned { item: id })?;
        self.record_blame(id, &mut item, blame);
        let ended = ended(blame, &item, &job, keeper);
        DUE.remove(self.storage, (item.evidence_until, id.key()));
        let covered = self
            .replicas(&job, id.job, id.shard)?
            .iter()
            .any(|(other, replica)| *other != id && replica.is_live());
        if covered {
            self.vacate(id, &item, &job, ended);
            self.fail(id, item, FailureReason::Covered)?;
            return self.conclude(id.job, id.shard);
        }
        match self.hindrance(&job, &item) {
            None => {
                let source = self.source(id, &item, &job, find)?;
                let vacancy = vacancy(id, &item, ended);
                ITEMS.save(self.storage, id.key(), &item)?;
                self.draw_anew(id.job, id.shard, vec![vacancy], source);
                Ok(())
            }
            Some(reason) => {
                self.vacate(id, &item, &job, ended);
                self.fail(id, item, reason)?;
                self.end_shard(id.job, id.shard, None)
            }
        }
    }

    fn check_overdue(&self, id: ItemId, item: &Item, job: &Job) -> Result<(), ContractError> {
        match item.status {
            ItemStatus::Assigned {} => {}
            ItemStatus::Attested { .. } => return Err(ContractError::Waiting { item: id }),
            _ => return Err(ContractError::NotAssigned { item: id }),
        }
        let evidence_until = item.evidence_until;
        if self.now <= evidence_until {
            return Err(ContractError::NotOverdue {
                evidence_until,
                now: self.now,
            });
        }
        let (passed, required) = self.blocks_until(item, job, evidence_until);
        if passed < required {
            return Err(ContractError::TooFewBlocks { passed, required });
        }
        Ok(())
    }

    /// True once a date of an item has passed by the clock and in blocks: what a halted chain could not take in, it takes when it
    /// goes on. Whatever may be delivered until then can be, as long as nobody may be blamed for it.
    pub(crate) fn is_past(&self, item: &Item, job: &Job, date: u64) -> bool {
        let (passed, required) = self.blocks_until(item, job, date);
        self.now > date && passed >= required
    }

    /// Blocks since the assignment, and how many a chain that does not stand still makes until `date`.
    fn blocks_until(&self, item: &Item, job: &Job, date: u64) -> (u64, u64) {
        // Never 0: parameters have bounds.
        let seconds = job.params.block_seconds_max.max(1);
        let required = date.saturating_sub(item.assigned_at).div_ceil(seconds);
        (self.height.saturating_sub(item.assigned_height), required)
    }

    /// New chains for these replicas of a shard, in the order of `plan.replicas`. None: there is no supply.
    pub(crate) fn redrawn(&mut self, plan: &Redraw, chains: Option<Vec<Chain>>) -> Result<(), ContractError> {
        let job = JOBS.load(self.storage, plan.job)?;
        let shard = SHARDS.load(self.storage, (plan.job, plan.shard))?;
        let mut planned: Vec<Replica> = vec![];
        let mut reason = FailureReason::NoSupply;
        for (replica, chain) in plan.replicas.iter().zip(chains.into_iter().flatten()) {
            let id = plan.item(*replica);
            let old = load_item(self.storage, id)?;
            let attempt = old.attempt.saturating_add(1);
            let item = self.planned(&job, job.units(shard.rows), chain, attempt, old.history)?;
            if item.evidence_until >= job.expires_at {
                reason = FailureReason::Time;
                planned.clear();
                break;
            }
            planned.push((id, item));
        }
        if planned.len() == plan.replicas.len() {
            for (id, item) in planned {
                self.assign(id, &job, &item)?;
            }
            return Ok(());
        }
        for replica in &plan.replicas {
            let id = plan.item(*replica);
            let item = load_item(self.storage, id)?;
            self.fail(id, item, reason)?;
        }
        self.end_shard(plan.job, plan.shard, None)
    }

    /// Everything that an assignment pins.
    fn planned(
        &self,
        job: &Job,
        units: Units,
        chain: Chain,
        attempt: u8,
        history: Vec<PastAttempt>,
    ) -> Result<Item, ContractError> {
        let count = units.total()?;
        let seconds = chain
            .spans
            .iter()
            .map(|span| span.sla.seconds(count))
            .fold(job.params.inclusion_seconds, u64::saturating_add);
        let deadline = self.now.saturating_add(seconds);
        Ok(Item {
            attempt,
            status: ItemStatus::Assigned {},
            engine_class: chain.engine_class,
            spans: chain.spans,
            assigned_at: self.now,
            assigned_height: self.height,
            deadline,
            evidence_until: deadline.saturating_add(job.params.window()),
            history,
        })
    }

    fn assign(&mut self, id: ItemId, job: &Job, item: &Item) -> Result<(), ContractError> {
        ITEMS.save(self.storage, id.key(), item)?;
        DUE.save(self.storage, (item.evidence_until, id.key()), &())?;
        if job.session.is_none() {
            self.effects.occupations.push(Occupation {
                item: id,
                deployments: item.deployments(),
            });
        }
        self.announce(Event::JobAssigned {
            item: id,
            attempt: item.attempt,
            model: job.model.clone(),
            version: job.version,
            deployments: DeploymentList(item.deployments()),
            deadline: item.deadline,
            evidence_until: item.evidence_until,
        });
        Ok(())
    }

    /// Why an item cannot have another attempt.
    pub(crate) fn hindrance(&self, job: &Job, item: &Item) -> Option<FailureReason> {
        if item.attempt.saturating_add(1) >= job.params.attempts_max {
            Some(FailureReason::Attempts)
        } else if job.seconds_left(self.now).is_none() {
            Some(FailureReason::Time)
        } else {
            None
        }
    }

    /// Gives the slots of an attempt back. Those of a session stay its own, but for a culprit's: the penalty comes with its slot.
    pub(crate) fn vacate(&mut self, id: ItemId, item: &Item, job: &Job, ended: Ended) {
        let mut vacancy = vacancy(id, item, ended);
        if job.session.is_some() {
            match &vacancy.ended {
                Ended::Missed(penalty) => vacancy.deployments = vec![penalty.deployment],
                Ended::Settled { price } => {
                    let work = |deployment| SettledWork {
                        deployment,
                        price: *price,
                    };
                    return self.effects.settled.extend(vacancy.deployments.into_iter().map(work));
                }
                Ended::LinkFault { .. } | Ended::Unpaid {} => return,
            }
        }
        self.effects.vacancies.push(vacancy);
    }

    pub(crate) fn draw_anew(&mut self, job: u64, shard: u16, vacancies: Vec<Vacancy>, source: Source) {
        let plan = Redraw {
            job,
            shard,
            replicas: vacancies.iter().map(|vacancy| vacancy.item.replica).collect(),
            source,
        };
        self.effects.redraws.push((vacancies, plan));
    }

    pub(crate) fn record_blame(&mut self, id: ItemId, item: &mut Item, blame: Blame) {
        let attempt = item.attempt;
        item.history.push(PastAttempt {
            attempt,
            deployments: item.deployments(),
            blame,
        });
        self.announce(match blame {
            Blame::Miss { deployment, .. } => Event::ItemMissed {
                item: id,
                attempt,
                deployment,
            },
            Blame::LinkFault { sender, receiver } => Event::ItemLinkFault {
                item: id,
                attempt,
                sender,
                receiver,
            },
            Blame::Differs { deployment } => Event::ItemDiffers {
                item: id,
                attempt,
                deployment,
            },
        });
    }

    pub(crate) fn fail(&mut self, id: ItemId, mut item: Item, reason: FailureReason) -> Result<(), ContractError> {
        item.status = ItemStatus::Failed { reason };
        ITEMS.save(self.storage, id.key(), &item)?;
        let reason = match reason {
            FailureReason::NoSupply => "no_supply",
            FailureReason::Attempts => "attempts",
            FailureReason::Time => "time",
            FailureReason::Covered => "covered",
        };
        self.announce(Event::ItemFailed {
            item: id,
            reason: reason.to_owned(),
        });
        Ok(())
    }

    pub(crate) fn replicas(&self, job: &Job, id: u64, shard: u16) -> Result<Vec<Replica>, ContractError> {
        job.item_ids(id, shard)
            .map(|item| Ok((item, load_item(self.storage, item)?)))
            .collect()
    }

    pub(crate) fn announce(&mut self, event: Event) {
        self.effects.events.push(event);
    }
}

impl Redraw {
    pub(crate) fn item(&self, replica: u8) -> ItemId {
        ItemId {
            job: self.job,
            shard: self.shard,
            replica,
        }
    }
}

/// Only a miss costs anything: nobody else is known to be guilty. Where somebody has named the chain, it may be an accomplice that a
/// deployment fails next to, so a failed link says nothing about it.
fn ended(blame: Blame, item: &Item, job: &Job, keeper: &Addr) -> Ended {
    match blame {
        Blame::Miss {
            deployment,
            penalty_price,
        } => Ended::Missed(Penalty {
            deployment,
            price: penalty_price,
            beneficiary: job.developer.to_string(),
            keeper: (job.params.keeper_bps > 0).then(|| Keeper {
                account: keeper.to_string(),
                bps: job.params.keeper_bps,
            }),
        }),
        Blame::LinkFault { sender, receiver } if !(job.is_named && item.attempt == 0) => {
            Ended::LinkFault { sender, receiver }
        }
        Blame::LinkFault { .. } | Blame::Differs { .. } => Ended::Unpaid {},
    }
}

pub(crate) fn vacancy(item: ItemId, of: &Item, ended: Ended) -> Vacancy {
    Vacancy {
        item,
        deployments: of.deployments(),
        ended,
    }
}
