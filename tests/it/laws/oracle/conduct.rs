//! What counts against a bond after the work is done, and what misses lead to, once more from the protocol's document.

use schema::params::ConductParams;

use super::Oracle;

/// How long each addition counts: the rest of its window and one more, windows being counted from the first addition after all others
/// were forgotten.
#[derive(Debug, Clone, Default)]
struct Lately {
    begun: u64,
    window: u64,
    /// When, and how much.
    added: Vec<(u64, u128)>,
}

impl Lately {
    fn at(&self, now: u64) -> u128 {
        let number = |moment: u64| (moment - self.begun) / self.window.max(1);
        let counts = |(moment, _): &&(u64, u128)| number(now) <= number(*moment) + 1;
        self.added.iter().filter(counts).map(|(_, amount)| amount).sum()
    }

    fn add(&mut self, amount: u128, now: u64, window: u64) {
        let number = |moment: u64| (moment - self.begun) / self.window.max(1);
        if self.added.iter().all(|(moment, _)| number(now) > number(*moment) + 1) {
            *self = Self {
                begun: now,
                window,
                added: vec![],
            };
        }
        assert_eq!(self.window, window, "the stories never change this window");
        self.added.push((now, amount));
    }
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Conduct {
    settled: Lately,
    reserve: u128,
    strikes: Vec<u64>,
    pub(crate) jailed_until: Option<u64>,
}

/// 1.5 x the larger of audit unit and slot bond.
pub(super) fn reserve(conduct: &ConductParams, slot_bond: u128) -> u128 {
    (conduct.audit_unit.u128().max(slot_bond) * 3).div_ceil(2)
}

impl Oracle {
    pub(crate) fn settled(&self, owner: &str, now: u64) -> u128 {
        self.conduct.get(owner).map_or(0, |conduct| conduct.settled.at(now))
    }

    pub(crate) fn strikes(&self, owner: &str, now: u64) -> Vec<u64> {
        let window = self.params.staking.conduct.strike_window_seconds;
        let all = self.conduct.get(owner).map_or(&[][..], |conduct| &conduct.strikes);
        all.iter().copied().filter(|strike| now - strike < window).collect()
    }

    pub(crate) fn jailed_until(&self, owner: &str) -> Option<u64> {
        self.conduct.get(owner)?.jailed_until
    }

    pub(crate) fn reserve(&self, owner: &str, now: u64) -> u128 {
        let has_any = self
            .deployments
            .values()
            .any(|listed| listed.owner == owner && !listed.removed);
        if !has_any && self.settled(owner, now) == 0 {
            return 0;
        }
        self.conduct.get(owner).map_or(0, |conduct| conduct.reserve)
    }

    /// Before the deployment stands among the others.
    pub(super) fn reserve_more(&mut self, owner: &str, reserve: u128, now: u64) {
        let reserve = self.reserve(owner, now).max(reserve);
        self.conduct.entry(owner.to_owned()).or_default().reserve = reserve;
    }

    /// Once it stands there no more.
    pub(super) fn reserve_less(&mut self, owner: &str, now: u64) {
        let own = self
            .deployments
            .values()
            .filter(|listed| listed.owner == owner && !listed.removed);
        let reserve = own.map(|listed| listed.reserve).max().unwrap_or(0);
        if self.settled(owner, now) == 0 {
            self.conduct.entry(owner.to_owned()).or_default().reserve = reserve;
        }
    }

    /// Work of this price was paid to a deployment's provider.
    pub(super) fn count_settled(&mut self, deployment: u64, price: u128, now: u64) {
        let owner = self.deployments[&deployment].owner.clone();
        let window = self.params.staking.conduct.audit_window_seconds;
        self.conduct.entry(owner).or_default().settled.add(price, now, window);
    }

    /// A provider has missed.
    pub(super) fn strike(&mut self, owner: &str, now: u64) {
        let mut strikes = self.strikes(owner, now);
        strikes.push(now);
        let rules = self.params.staking.conduct.clone();
        let conduct = self.conduct.entry(owner.to_owned()).or_default();
        if strikes.len() >= rules.jail_strikes.into() {
            strikes.clear();
            conduct.jailed_until = Some(now + rules.jail_seconds);
        }
        conduct.strikes = strikes;
    }

    pub(super) fn unjail(&mut self, owner: &str) {
        self.conduct.get_mut(owner).expect("it was jailed").jailed_until = None;
    }
}
