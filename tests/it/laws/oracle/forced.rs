//! Requests that owners force: jobs of one item whose slots are a session's.

use schema::{Event, ItemId};

use super::{sessions::Forced, Held, Oracle, Ordered};

impl Oracle {
    /// Whether the owner may ask, as far as it does not depend on the request.
    pub(super) fn may_force(&self, sender: &str, number: u64, now: u64) -> bool {
        let Some(session) = self.sessions.get(&number) else {
            return false;
        };
        let waits = session.forced.as_ref().is_some_and(|forced| now <= forced.until);
        session.owner == sender && session.open().count() > 0 && now < session.expires_at && !waits
    }

    /// A job by the terms of the session; its deployments wait for it.
    pub(super) fn force(&mut self, number: u64, (deployments, rows): (&[u64], u64), events: &[Event], now: u64) {
        let job = events.iter().find_map(|event| match event {
            Event::RequestForced { session, job, .. } if *session == number => Some(*job),
            _ => None,
        });
        let job = job.expect("a forced request is announced");
        let session = self.sessions[&number].clone();
        let until = now + self.params.orchestrator.job_seconds_max;
        let fee = self.params.escrow.force_fee.u128();
        let ordered = Ordered {
            developer: session.owner.clone(),
            model: session.model.clone(),
            version: session.version,
            terms: session.terms,
            gateway: session.gateway.clone(),
            rows: vec![rows],
            items: 1,
            units_max: rows * 256,
            units_out_max: 0,
            held: 0,
            paid: 0,
            grace_seconds: self.params.orchestrator.grace_seconds,
            prune_after_seconds: self.params.orchestrator.prune_after_seconds,
            keeper_bps: self.params.orchestrator.keeper_bps,
            ended_at: None,
            pruned: false,
            session: Some(number),
        };
        self.jobs.insert(job, ordered);
        let item = item_of(job);
        self.chains.insert(item, deployments.to_vec());
        let price = self.price_max(item);
        self.jobs.get_mut(&job).unwrap().held = price;
        self.lock(&session.owner, price + fee);
        let hold = Held {
            account: session.owner.clone(),
            amount: price + fee,
            expires_at: until,
        };
        self.holds.insert(job, hold);
        self.begin_wait(number, deployments, until);
        let session = self.sessions.get_mut(&number).unwrap();
        session.forced = Some(Forced {
            job,
            asked_at: now,
            until,
            fee,
            deployments: deployments.to_vec(),
        });
    }

    fn begin_wait(&mut self, number: u64, deployments: &[u64], until: u64) {
        let mut exposed = vec![];
        for (deployment, share) in self.spans_of(number, deployments) {
            exposed.push((deployment, share));
        }
        let session = self.sessions.get_mut(&number).unwrap();
        for (deployment, part) in &mut session.parts {
            part.waits_until = deployments.contains(deployment).then_some(until);
        }
        for (deployment, price) in exposed {
            let part = &self.sessions[&number].parts[&deployment];
            let slot_bond = self.deployments[&deployment].slot_bond;
            assert!(
                part.amount - part.paid.total() + price <= slot_bond,
                "statement 7: more at stake than the slot is backed with"
            );
        }
    }

    /// What the request costs of each deployment.
    fn spans_of(&self, number: u64, deployments: &[u64]) -> Vec<(u64, u128)> {
        let job = self.jobs.iter().rev().find(|(_, job)| job.session == Some(number));
        let (job, _) = job.expect("the job of a forced request is known");
        let priced = self.prices_max(item_of(*job));
        priced
            .into_iter()
            .filter(|(deployment, _)| deployments.contains(deployment))
            .collect()
    }

    /// A forced request has ended: an answer earns its fee, a miss takes the slot and what was to be earned with it.
    pub(super) fn end_forced(&mut self, job: u64, events: &[Event], now: u64) {
        let Some(number) = self.jobs[&job].session else {
            return;
        };
        let session = self.sessions.get_mut(&number).unwrap();
        let Some(forced) = session.forced.take_if(|forced| forced.job == job) else {
            return;
        };
        for part in session.parts.values_mut() {
            part.waits_until = None;
        }
        let ends_at = session.ends_at();
        let notice = now + session.notice;
        for event in events {
            match event {
                Event::ItemMissed { item, deployment, .. } if item.job == job => {
                    let part = session.parts.get_mut(deployment).unwrap();
                    assert!(!part.closed, "statement 7: a culprit had no slot");
                    part.missed = Some(forced.asked_at);
                    part.closes_at = Some(part.closes_at.unwrap_or(ends_at).min(notice).min(ends_at));
                }
                Event::Settled { item, .. } if item.job == job => {
                    let last = forced.deployments.last().unwrap();
                    let provider = session.parts[last].provider.clone();
                    *self.available.entry(provider).or_default() += forced.fee;
                    let hold = self.holds.get_mut(&job).expect("statement 4: paid without a hold");
                    hold.amount -= forced.fee;
                }
                _ => {}
            }
        }
    }
}

fn item_of(job: u64) -> ItemId {
    ItemId {
        job,
        shard: 0,
        replica: 0,
    }
}
