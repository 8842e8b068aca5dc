//! Everything stops, and everybody goes home with what is his. Strangers free what was held, at its date and not before.

use schema::{
    escrow::ExecuteMsg as Escrow,
    orchestrator::ExecuteMsg as Orchestrator,
    registry::{ExecuteMsg as Registry, ModelStatus},
    staking::ExecuteMsg as Staking,
    ModelId,
};

use super::{
    acts::Msg,
    checks::Picture,
    oracle::model_holder,
    world::{World, PEOPLE},
};

impl World {
    /// Statements 3 and 8.
    pub(crate) fn ends(&mut self, expire_first: bool) {
        if expire_first {
            self.items_expire();
        }
        self.models_are_retired();
        self.holds_are_released();
        self.sessions_are_finalised();
        self.items_expire();
        assert!(self.hosts.live.is_empty(), "statement 3: slots stay busy for ever");
        self.jobs_are_pruned();
        self.providers_leave();
        self.everybody_withdraws();
        let after = Picture::of(&self.protocol);
        let contracts = self.oracle.contracts.clone();
        assert_eq!(
            after.wallet(&contracts.provider_staking),
            0,
            "statement 8: bond was left behind"
        );
        for (holder, available) in after.available() {
            assert_eq!(available, 0, "statement 8: money of {holder} was left behind");
        }
        assert_eq!(
            after.wallet(&contracts.royalty_escrow),
            0,
            "statement 8: money was left behind"
        );
    }

    /// Whoever is overdue is expired by a stranger, until nothing is at work.
    fn items_expire(&mut self) {
        let mut rounds = 0;
        while let Some(item) = self.hosts.open().last().copied() {
            rounds += 1;
            assert!(rounds < 2_000, "statement 3: {item} is drawn anew for ever");
            let date = self.hosts.live[&item].evidence_until;
            self.passes(date.saturating_sub(self.protocol.now()));
            let Some(live) = self.hosts.live.get(&item).filter(|live| !live.attested) else {
                continue;
            };
            if live.evidence_until == self.protocol.now() {
                // The forecast says that this is refused, at the date itself.
                let early = self.act("stranger", Msg::Orchestrator(Orchestrator::Expire { item }));
                assert!(self.perform(&early).is_none(), "statement 3: {item} was expired early");
            }
            self.passes(1);
            while self.hosts.open().contains(&item) && !self.hosts.expires(item, self.clock()) {
                // After a halt, as many blocks as would have been made.
                self.passes(10);
            }
            if self.hosts.open().contains(&item) {
                self.must("stranger", Msg::Orchestrator(Orchestrator::Expire { item }));
            }
        }
    }

    /// No new work any more: what is running and what was earned does not care.
    fn models_are_retired(&mut self) {
        let models: Vec<(ModelId, String)> = self
            .oracle
            .owners
            .iter()
            .map(|(model, (owner, _))| (model.clone(), owner.to_string()))
            .collect();
        for (model, owner) in models {
            let name = PEOPLE
                .into_iter()
                .find(|name| self.addr(name).as_str() == owner)
                .unwrap();
            let status = ModelStatus::Retired;
            let retire = self.act(name, Msg::Registry(Registry::SetStatus { model, status }));
            self.perform(&retire);
        }
    }

    /// A stranger makes the orchestrator forget all that ever happened.
    fn jobs_are_pruned(&mut self) {
        let dates = self.oracle.jobs.values().filter(|job| !job.pruned);
        let date = dates
            .map(|job| job.prunable_at().expect("every job has ended"))
            .max()
            .unwrap_or(0);
        self.passes(date.saturating_sub(self.protocol.now()));
        loop {
            let jobs: Vec<u64> = self.oracle.prunable(self.protocol.now()).take(32).collect();
            if jobs.is_empty() {
                break;
            }
            self.must("stranger", Msg::Orchestrator(Orchestrator::Prune { jobs }));
        }
        assert!(self.oracle.jobs.values().all(|job| job.pruned));
        let kept: Vec<String> = self.protocol.records_of_jobs();
        assert!(kept.is_empty(), "statement 2: records of jobs for ever: {kept:?}");
    }

    fn holds_are_released(&mut self) {
        while let Some((job, date)) = self
            .oracle
            .holds
            .iter()
            .map(|(job, hold)| (*job, hold.expires_at))
            .min_by_key(|(_, date)| *date)
        {
            let release = Msg::Escrow(Escrow::ReleaseExpired { job });
            self.passes(date.saturating_sub(self.protocol.now()));
            if self.protocol.now() == date && self.oracle.holds.contains_key(&job) {
                let early = self.act("stranger", release.clone());
                assert!(
                    self.perform(&early).is_none(),
                    "statement 3: hold {job} was released early"
                );
            }
            self.passes(1);
            if self.oracle.holds.contains_key(&job) {
                self.must("stranger", release);
            }
        }
    }

    fn sessions_are_finalised(&mut self) {
        let next = |world: &Self| {
            let sessions = world.oracle.sessions.iter();
            let dates =
                sessions.flat_map(|(number, session)| session.open().map(|(_, part)| (session.date(part), *number)));
            dates.min()
        };
        while let Some((date, session)) = next(self) {
            let finalise = Msg::Escrow(Escrow::FinaliseSession { session });
            self.passes(date.saturating_sub(self.protocol.now()));
            if self.protocol.now() == date {
                let early = self.act("stranger", finalise.clone());
                assert!(
                    self.perform(&early).is_none(),
                    "statement 3: session {session} was finalised early"
                );
            }
            self.passes(1);
            self.must("stranger", finalise);
        }
    }

    fn providers_leave(&mut self) {
        let deployments: Vec<(u64, String)> = self
            .oracle
            .deployments
            .iter()
            .filter(|(_, listed)| !listed.removed)
            .map(|(number, listed)| (*number, listed.owner.clone()))
            .collect();
        for (deployment, owner) in deployments {
            let name = self.name(&owner);
            self.must(name, Msg::Staking(Staking::Remove { deployment }));
        }
        let owners: Vec<String> = self.oracle.stakes.keys().cloned().collect();
        for owner in owners {
            let name = self.name(&owner);
            self.bond_comes_home(name, &owner);
            // Work that was settled just now is forgotten by itself.
            let window = self.oracle.params.staking.conduct.audit_window_seconds;
            self.passes(2 * window);
            let bond = self.free_bond(&owner);
            assert_eq!(bond, self.oracle.stakes[&owner].bond, "statement 8: jailed or not");
            if bond > 0 {
                let amount = bond.into();
                self.must(name, Msg::Staking(Staking::Unbond { amount }));
                self.bond_comes_home(name, &owner);
            }
        }
    }

    /// Entries are paid at their dates, and not a second before.
    fn bond_comes_home(&mut self, name: &str, owner: &str) {
        while let Some(date) = self.oracle.stakes[owner].unbonding.iter().map(|entry| entry.1).min() {
            let withdraw = Msg::Staking(Staking::Withdraw {});
            let now = self.protocol.now();
            if date > now + 1 {
                self.passes(date - now - 1);
                let early = self.act(name, withdraw.clone());
                assert!(self.perform(&early).is_none(), "statement 3: bond was paid early");
            }
            self.passes(date.saturating_sub(self.protocol.now()));
            self.must(name, withdraw);
        }
    }

    fn everybody_withdraws(&mut self) {
        let models: Vec<ModelId> = self.oracle.rules.keys().cloned().collect();
        // Parents are older than their children, so money that goes up the family tree comes to an end.
        while let Some(model) = models
            .iter()
            .find(|model| self.oracle.available(&model_holder(model)) > 0)
            .cloned()
        {
            self.must("stranger", Msg::Escrow(Escrow::DistributeRoyalties { model }));
        }
        for name in PEOPLE {
            if self.oracle.available(self.addr(name).as_str()) > 0 {
                self.must(name, Msg::Escrow(Escrow::Withdraw { amount: None }));
            }
        }
    }

    fn name(&self, address: &str) -> &'static str {
        let mut people = PEOPLE.into_iter();
        people.find(|name| self.addr(name).as_str() == address).unwrap()
    }
}
