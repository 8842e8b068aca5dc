//! Money that moves because work was opened, proven, missed or ended.

use schema::{orchestrator::NewJob, Event, ItemId};

use super::{Held, Oracle, Ordered};
use crate::laws::price::{self, Count, Parts, Terms};

impl Ordered {
    /// From when on anyone may prune it.
    pub(crate) fn prunable_at(&self) -> Option<u64> {
        Some(self.ended_at? + self.prune_after_seconds)
    }
}

impl Oracle {
    /// A job was taken: floor(max_price / items) for each of its items is held, and its terms are those of this moment.
    pub(super) fn open(&mut self, developer: &str, job: &NewJob, events: &[Event], now: u64) {
        let submitted = events.iter().find_map(|event| match event {
            Event::JobSubmitted { job, version, .. } => Some((*job, *version)),
            _ => None,
        });
        let (number, version) = submitted.expect("a job is announced");
        let items = job.shards.len() as u128 * u128::from(job.replicas);
        let held = job.max_price.u128() / items * items;
        let available = self.available.entry(developer.to_owned()).or_default();
        *available = available
            .checked_sub(held)
            .expect("statement 2: nobody holds more than he has");
        let expires_at = now + self.params.orchestrator.job_seconds_max;
        let hold = Held {
            account: developer.to_owned(),
            amount: held,
            expires_at,
        };
        self.holds.insert(number, hold);
        let ordered = Ordered {
            developer: developer.to_owned(),
            model: job.model.clone(),
            version,
            terms: Terms {
                royalty: self.royalties[&(job.model.clone(), job.endpoint.clone())],
                gateway_bps: job.gateway.as_ref().map_or(0, |gateway| gateway.bps),
                fees: self.params.escrow.fees,
            },
            gateway: job.gateway.as_ref().map(|gateway| gateway.address.clone()),
            rows: job.shards.iter().map(|shard| shard.inline.len() as u64).collect(),
            items: job.shards.len() * usize::from(job.replicas),
            units_max: job.units_max,
            units_out_max: if self.generates[&job.model] { job.units_max } else { 0 },
            held,
            paid: 0,
            grace_seconds: self.params.orchestrator.grace_seconds,
            prune_after_seconds: self.params.orchestrator.prune_after_seconds,
            keeper_bps: self.params.orchestrator.keeper_bps,
            ended_at: None,
            pruned: false,
            session: None,
        };
        self.jobs.insert(number, ordered);
    }

    pub(super) fn work(&mut self, sender: &str, events: &[Event], now: u64) {
        let mut ended = vec![];
        for event in events {
            match event {
                Event::JobAssigned { item, deployments, .. } => {
                    self.chains.insert(*item, deployments.0.clone());
                }
                Event::Attested {
                    item,
                    units_in,
                    units_out,
                    ..
                } => {
                    let count = Count {
                        rows: self.jobs[&item.job].rows[usize::from(item.shard)],
                        units_in: *units_in,
                        units_out: *units_out,
                    };
                    self.counted.insert(*item, count);
                }
                Event::Settled { item, paid, burnt } => {
                    let parts = self.settle(*item);
                    for deployment in self.chains[item].clone() {
                        self.count_settled(deployment, parts.total(), now);
                    }
                    assert_eq!(
                        (paid.u128(), burnt.u128()),
                        (parts.total(), parts.burn),
                        "statement 4: {item} costs what its proven units cost by its pinned terms"
                    );
                }
                Event::ItemMissed { item, deployment, .. } => {
                    self.penalise(*item, *deployment, sender);
                    let owner = self.deployments[deployment].owner.clone();
                    self.strike(&owner, now);
                }
                Event::JobEnded { job, .. } => ended.push(*job),
                _ => {}
            }
        }
        for job in ended {
            self.jobs.get_mut(&job).unwrap().ended_at = Some(now);
            self.end_forced(job, events, now);
            self.release(job);
        }
    }

    /// Jobs that anyone may prune.
    pub(crate) fn prunable(&self, now: u64) -> impl Iterator<Item = u64> + '_ {
        let prunable = move |(_, job): &(&u64, &Ordered)| {
            !job.pruned && job.prunable_at().is_some_and(|prunable_at| now >= prunable_at)
        };
        self.jobs.iter().filter(prunable).map(|(number, _)| *number)
    }

    /// Exactly what was over for long enough is pruned, as much as a message may.
    pub(super) fn prune(&mut self, jobs: &[u64], events: &[Event], now: u64) {
        let mut pruned = 0;
        let told = events.iter().filter_map(|event| match event {
            Event::JobPruned { job } => Some((*job, true)),
            Event::PruneRefused { job, .. } => Some((*job, false)),
            _ => None,
        });
        let told: Vec<(u64, bool)> = told.collect();
        let mut expected = vec![];
        for number in jobs {
            let items = self.jobs.get(number).map_or(0, |job| job.items);
            let taken = self.prunable(now).any(|job| job == *number) && pruned + items <= 64;
            if taken {
                pruned += items;
                self.jobs.get_mut(number).unwrap().pruned = true;
            }
            expected.push((*number, taken));
        }
        assert_eq!(told, expected, "statement 2: what may be pruned, one by one");
    }

    /// The deployments of an item with the compute share of each.
    fn spans(&self, item: ItemId) -> Vec<(u64, u16)> {
        let job = &self.jobs[&item.job];
        let shares = &self.shares[&(job.model.clone(), job.version)];
        let span = |deployment: &u64| {
            let terms = &self.deployments[deployment].terms;
            let share = shares[usize::from(terms.first)..=usize::from(terms.last)].iter().sum();
            (*deployment, share)
        };
        self.chains[&item].iter().map(span).collect()
    }

    fn span_price(&self, item: ItemId, deployment: u64, share: u16, count: Count) -> Parts {
        let ask = &self.deployments[&deployment].terms.ask;
        price::span(ask, share, count, &self.jobs[&item.job].terms)
    }

    /// Price of the most units that the current attempt of an item may have.
    pub(crate) fn price_max(&self, item: ItemId) -> u128 {
        self.prices_max(item).iter().map(|(_, price)| price).sum()
    }

    /// The same by deployment.
    pub(super) fn prices_max(&self, item: ItemId) -> Vec<(u64, u128)> {
        let job = &self.jobs[&item.job];
        let count = Count {
            rows: job.rows[usize::from(item.shard)],
            units_in: job.units_max,
            units_out: job.units_out_max,
        };
        let spans = self.spans(item).into_iter();
        spans
            .map(|(deployment, share)| (deployment, self.span_price(item, deployment, share, count).total()))
            .collect()
    }

    fn settle(&mut self, item: ItemId) -> Parts {
        let count = self.counted[&item];
        let mut sum = Parts::default();
        for (deployment, share) in self.spans(item) {
            let parts = self.span_price(item, deployment, share, count);
            let owner = self.deployments[&deployment].owner.clone();
            *self.available.entry(owner).or_default() += parts.provider;
            sum.provider += parts.provider;
            sum.protocol += parts.protocol;
            sum.burn += parts.burn;
            sum.royalty += parts.royalty;
            sum.gateway += parts.gateway;
        }
        assert!(
            sum.total() <= self.price_max(item),
            "statement 4: {item} costs more than its most units"
        );
        *self.available.entry(self.treasury.clone()).or_default() += sum.protocol;
        let escrow = self.contracts.royalty_escrow.clone();
        self.burn(&escrow, sum.burn);
        let job = self.jobs.get_mut(&item.job).unwrap();
        job.paid += sum.total();
        assert!(
            job.paid <= job.held,
            "statement 4: more was paid for job {} than was held",
            item.job
        );
        let (model, gateway) = (job.model.clone(), job.gateway.clone());
        if let Some(gateway) = gateway {
            *self.available.entry(gateway).or_default() += sum.gateway;
        }
        self.distribute(&model, sum.royalty);
        let hold = self.holds.get_mut(&item.job).expect("statement 4: paid without a hold");
        hold.amount = hold
            .amount
            .checked_sub(sum.total())
            .expect("statement 4: a hold paid more than it had");
        sum
    }

    /// The culprit's bond pays the developer and whoever has expired the item, all of it at once.
    fn penalise(&mut self, item: ItemId, deployment: u64, keeper: &str) {
        let listed = &self.deployments[&deployment];
        let penalty = price::penalty(self.price_max(item), &listed.terms, listed.miss_min, listed.slot_bond);
        let stake = self.stakes.get_mut(&listed.owner).unwrap();
        stake.bond = stake
            .bond
            .checked_sub(penalty)
            .expect("statement 7: every slash finds its money");
        let (staking, escrow) = (
            self.contracts.provider_staking.clone(),
            self.contracts.royalty_escrow.clone(),
        );
        self.move_money(&staking, &escrow, penalty);
        let job = &self.jobs[&item.job];
        let fee = penalty * u128::from(job.keeper_bps) / 10_000;
        assert!(fee * 10 <= penalty, "statement 10: who expires has a tenth at most");
        let developer = job.developer.clone();
        *self.available.entry(developer).or_default() += penalty - fee;
        *self.available.entry(keeper.to_owned()).or_default() += fee;
    }
}
