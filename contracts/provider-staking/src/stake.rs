//! The money of one provider: bond, what of it is spoken for, and what is on its way out.
//!
//! - `bond` is there and not unbonding.
//! - `committed` is the part behind slots, busy or not. New slots and unbonding respect it; a penalty may take the bond below it.
//! - `backing` is the part behind busy slots: open exposure. It never exceeds the bond: a slot is taken only with headroom, and a
//!   penalty takes at most the bond of the slot that is given back with it.
//! - `settled` is the price of what was paid lately: the rest of the exposure. It rolls with time, so that nobody has to call.
//! - `reserve` is what no work is taken on: exposure and reserve together are inside the bond whenever a slot is taken.
//!
//! And its conduct: strikes, and whether they have jailed it.

use cosmwasm_schema::cw_serde;
use cosmwasm_std::Uint128;
use schema::{params::ConductParams, staking::UnbondingEntry};

use crate::{rolling::Rolling, ContractError};

/// Every entry is read and written with every other: a few are enough to take a bond out in steps.
pub(crate) const UNBONDING_MAX: usize = 7;
/// A penalty re-orders all deployments of its payer in the draw, inside somebody's transaction.
pub(crate) const DEPLOYMENTS_MAX: usize = 32;

#[cw_serde]
#[derive(Default)]
pub(crate) struct Stake {
    pub(crate) bond: Uint128,
    pub(crate) committed: Uint128,
    pub(crate) backing: Uint128,
    /// Oldest first.
    pub(crate) unbonding: Vec<UnbondingEntry>,
    /// Ascending, at most 32.
    pub(crate) deployments: Vec<u64>,
    /// Penalties ever paid.
    pub(crate) penalties: Uint128,
    #[serde(default)]
    pub(crate) settled: Rolling,
    /// The largest of its deployments'.
    #[serde(default)]
    pub(crate) reserve: Uint128,
    /// When misses were counted, oldest first. Fewer than jail a provider.
    #[serde(default)]
    pub(crate) strikes: Vec<u64>,
    /// Jailed, until `Unjail` from this moment on.
    #[serde(default)]
    pub(crate) jailed_until: Option<u64>,
}

impl Stake {
    /// What busy slots and lately settled work may still cost.
    pub(crate) fn exposure(&self, now: u64) -> Uint128 {
        self.backing.saturating_add(self.settled.at(now))
    }

    /// What is kept free of all work. Nothing, once there is neither a deployment nor work that could be found wrong.
    pub(crate) fn reserve(&self, now: u64) -> Uint128 {
        if self.deployments.is_empty() && self.settled.at(now).is_zero() {
            return Uint128::zero();
        }
        self.reserve
    }

    /// Part of the bond that neither a slot nor exposure needs.
    pub(crate) fn free(&self, now: u64) -> Uint128 {
        let needed = self.committed.max(self.exposure(now));
        self.bond.saturating_sub(needed).saturating_sub(self.reserve(now))
    }

    /// Part of the bond that further work may be taken on.
    pub(crate) fn headroom(&self, now: u64) -> Uint128 {
        self.bond
            .saturating_sub(self.exposure(now))
            .saturating_sub(self.reserve)
    }

    /// From when on there is headroom for one more slot of this bond, if nothing else happens: 0 is at once, None is not by waiting.
    pub(crate) fn ready_at(&self, slot_bond: Uint128) -> Option<u64> {
        let [first, second] = self.settled.turns();
        [0, first, second]
            .into_iter()
            .find(|moment| self.headroom(*moment) >= slot_bond)
    }

    /// True when some free slot could be without headroom: after penalties, or with a lot of work settled lately.
    pub(crate) fn is_short(&self) -> bool {
        let most = self.committed.saturating_add(self.settled.sum());
        self.bond < most.saturating_add(self.reserve)
    }

    pub(crate) fn is_jailed(&self) -> bool {
        self.jailed_until.is_some()
    }

    pub(crate) fn unbonding_sum(&self) -> Uint128 {
        let amounts = self.unbonding.iter().map(|entry| entry.amount);
        amounts.fold(Uint128::zero(), Uint128::saturating_add)
    }

    pub(crate) fn add(&mut self, amount: Uint128) -> Result<(), ContractError> {
        if amount.is_zero() {
            return Err(ContractError::ZeroAmount);
        }
        self.bond = self.bond.saturating_add(amount);
        Ok(())
    }

    pub(crate) fn unbond(&mut self, requested: Uint128, now: u64, release_at: u64) -> Result<(), ContractError> {
        if requested.is_zero() {
            return Err(ContractError::ZeroAmount);
        }
        let free = self.free(now);
        if requested > free {
            return Err(ContractError::BondCommitted { free, requested });
        }
        if self.unbonding.len() >= UNBONDING_MAX {
            return Err(ContractError::TooManyUnbonding { max: UNBONDING_MAX });
        }
        self.bond = self.bond.saturating_sub(requested);
        self.unbonding.push(UnbondingEntry {
            amount: requested,
            release_at,
        });
        Ok(())
    }

    /// Takes out every entry whose time has come.
    pub(crate) fn withdraw(&mut self, now: u64) -> Result<Uint128, ContractError> {
        let before = self.unbonding_sum();
        self.unbonding.retain(|entry| entry.release_at > now);
        let amount = before.saturating_sub(self.unbonding_sum());
        if amount.is_zero() {
            let next_release = self.unbonding.iter().map(|entry| entry.release_at).min();
            return Err(ContractError::NothingToWithdraw { next_release });
        }
        Ok(amount)
    }

    /// Puts bond behind a new deployment, with `reserve` to spare.
    pub(crate) fn commit(
        &mut self,
        deployment: u64,
        amount: Uint128,
        reserve: Uint128,
        now: u64,
    ) -> Result<(), ContractError> {
        if self.deployments.len() >= DEPLOYMENTS_MAX {
            return Err(ContractError::TooManyDeployments { max: DEPLOYMENTS_MAX });
        }
        let committed = self.committed.saturating_add(amount);
        let reserve = self.reserve(now).max(reserve);
        let (required, posted) = (committed.saturating_add(reserve), self.bond);
        if required > posted {
            return Err(ContractError::BondTooSmall { required, posted });
        }
        self.committed = committed;
        self.reserve = reserve;
        self.deployments.push(deployment);
        Ok(())
    }

    /// Takes the bond back from behind a deployment. `reserve` is what the others need; what was settled lately keeps the old one.
    pub(crate) fn uncommit(&mut self, deployment: u64, amount: Uint128, reserve: Uint128, now: u64) {
        self.committed = self.committed.saturating_sub(amount);
        self.deployments.retain(|known| *known != deployment);
        if self.settled.at(now).is_zero() {
            self.reserve = reserve;
        }
    }

    /// Puts bond behind a busy slot of `deployment`.
    pub(crate) fn occupy(&mut self, deployment: u64, slot_bond: Uint128, now: u64) -> Result<(), ContractError> {
        self.require_unjailed(deployment)?;
        let exposure = self.exposure(now).saturating_add(slot_bond);
        let required = exposure.saturating_add(self.reserve);
        if required > self.bond {
            let bond = self.bond;
            return Err(ContractError::NoHeadroom {
                deployment,
                required,
                bond,
            });
        }
        self.backing = self.backing.saturating_add(slot_bond);
        Ok(())
    }

    fn require_unjailed(&self, deployment: u64) -> Result<(), ContractError> {
        match self.jailed_until {
            None => Ok(()),
            Some(until) => Err(ContractError::InJail { deployment, until }),
        }
    }

    /// Counts a miss and answers how many are inside the window. Enough of them jail, and are forgotten for it: who comes back
    /// begins anew, and who misses running work while jailed can only make it longer.
    pub(crate) fn strike(&mut self, now: u64, conduct: &ConductParams) -> usize {
        self.strikes = self.strikes_inside(now, conduct);
        self.strikes.push(now);
        let count = self.strikes.len();
        if count >= conduct.jail_strikes.into() {
            self.strikes.clear();
            self.jailed_until = Some(now.saturating_add(conduct.jail_seconds));
        }
        count
    }

    pub(crate) fn strikes_inside(&self, now: u64, conduct: &ConductParams) -> Vec<u64> {
        let counts = |strike: &&u64| now.saturating_sub(**strike) < conduct.strike_window_seconds;
        self.strikes.iter().filter(counts).copied().collect()
    }

    pub(crate) fn unjail(&mut self, now: u64) -> Result<(), ContractError> {
        match self.jailed_until {
            None => Err(ContractError::NotJailed),
            Some(until) if now < until => Err(ContractError::StillJailed { until, now }),
            Some(_) => {
                self.jailed_until = None;
                Ok(())
            }
        }
    }

    pub(crate) fn vacate(&mut self, slot_bond: Uint128) {
        self.backing = self.backing.saturating_sub(slot_bond);
    }

    /// Takes a penalty out of the bond, then out of the newest unbonding entries, and answers how much was there.
    pub(crate) fn penalise(&mut self, amount: Uint128) -> Uint128 {
        let from_bond = amount.min(self.bond);
        self.bond = self.bond.saturating_sub(from_bond);
        let mut open = amount.saturating_sub(from_bond);
        for entry in self.unbonding.iter_mut().rev() {
            let part = open.min(entry.amount);
            entry.amount = entry.amount.saturating_sub(part);
            open = open.saturating_sub(part);
        }
        self.unbonding.retain(|entry| !entry.amount.is_zero());
        let taken = amount.saturating_sub(open);
        self.penalties = self.penalties.saturating_add(taken);
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stake(bond: u128, unbonding: &[(u128, u64)]) -> Stake {
        let entry = |(amount, release_at): &(u128, u64)| UnbondingEntry {
            amount: (*amount).into(),
            release_at: *release_at,
        };
        Stake {
            bond: bond.into(),
            unbonding: unbonding.iter().map(entry).collect(),
            ..Stake::default()
        }
    }

    #[test]
    fn only_bond_that_no_slot_needs_can_be_unbonded() {
        let mut stake = stake(100, &[]);
        stake.commit(1, 60u128.into(), Uint128::zero(), 0).unwrap();
        let refused = ContractError::BondCommitted {
            free: 40u128.into(),
            requested: 41u128.into(),
        };
        assert_eq!(stake.unbond(41u128.into(), 0, 9), Err(refused));
        assert_eq!(stake.unbond(Uint128::zero(), 0, 9), Err(ContractError::ZeroAmount));
        assert_eq!(stake.unbond(40u128.into(), 0, 9), Ok(()));
        assert_eq!((stake.free(0).u128(), stake.unbonding_sum().u128()), (0, 40));
    }

    #[test]
    fn seven_amounts_unbond_at_a_time() {
        let mut stake = stake(100, &[]);
        for _ in 0..7 {
            stake.unbond(1u128.into(), 0, 5).unwrap();
        }
        let refused = ContractError::TooManyUnbonding { max: 7 };
        assert_eq!(stake.unbond(1u128.into(), 0, 5), Err(refused));
        assert_eq!(stake.withdraw(5).unwrap().u128(), 7);
        assert_eq!(stake.unbond(1u128.into(), 0, 6), Ok(()));
    }

    #[test]
    fn an_entry_is_withdrawn_at_its_time_and_once() {
        let mut stake = stake(0, &[(10, 100), (20, 50)]);
        let next_release = Some(50);
        assert_eq!(
            stake.withdraw(49),
            Err(ContractError::NothingToWithdraw { next_release })
        );
        assert_eq!(stake.withdraw(50).unwrap().u128(), 20);
        let next_release = Some(100);
        assert_eq!(
            stake.withdraw(99),
            Err(ContractError::NothingToWithdraw { next_release })
        );
        assert_eq!(stake.withdraw(100).unwrap().u128(), 10);
        let next_release = None;
        assert_eq!(
            stake.withdraw(101),
            Err(ContractError::NothingToWithdraw { next_release })
        );
        let waiting = ContractError::NothingToWithdraw {
            next_release: Some(100),
        };
        assert_eq!(
            waiting.to_string(),
            "nothing can be withdrawn, the next release is at 100"
        );
    }

    #[test]
    fn a_penalty_takes_bond_first_and_then_the_newest_entries() {
        let mut stake = stake(50, &[(10, 1), (20, 2)]);
        assert_eq!(stake.penalise(30u128.into()).u128(), 30);
        assert_eq!((stake.bond.u128(), stake.unbonding_sum().u128()), (20, 30));
        assert_eq!(stake.penalise(35u128.into()).u128(), 35);
        let left = UnbondingEntry {
            amount: 10u128.into(),
            release_at: 1,
        };
        assert_eq!(stake.unbonding[..1], [left], "the newest entry paid");
        assert_eq!(
            stake
                .unbonding
                .iter()
                .map(|entry| entry.amount.u128())
                .collect::<Vec<_>>(),
            [10, 5]
        );
        assert_eq!(stake.penalise(100u128.into()).u128(), 15, "no more than there is");
        assert_eq!((stake.unbonding.len(), stake.penalties.u128()), (0, 80));
    }

    #[test]
    fn a_slot_is_taken_only_with_headroom() {
        let mut stake = stake(100, &[]);
        stake.commit(1, 100u128.into(), Uint128::zero(), 0).unwrap();
        stake.occupy(1, 50u128.into(), 0).unwrap();
        stake.penalise(1u128.into());
        assert!(stake.is_short());
        let refused = ContractError::NoHeadroom {
            deployment: 1,
            required: 100u128.into(),
            bond: 99u128.into(),
        };
        assert_eq!(stake.occupy(1, 50u128.into(), 0), Err(refused));
        stake.vacate(50u128.into());
        assert_eq!((stake.backing.u128(), stake.headroom(0).u128()), (0, 99));
    }

    #[test]
    fn slots_and_deployments_have_their_bounds() {
        let mut stake = stake(100, &[]);
        let refused = ContractError::BondTooSmall {
            required: 101u128.into(),
            posted: 100u128.into(),
        };
        assert_eq!(stake.commit(1, 101u128.into(), Uint128::zero(), 0), Err(refused));
        for number in 1..=32 {
            stake.commit(number, 1u128.into(), Uint128::zero(), 0).unwrap();
        }
        let refused = ContractError::TooManyDeployments { max: 32 };
        assert_eq!(stake.commit(33, 1u128.into(), Uint128::zero(), 0), Err(refused));
        stake.uncommit(7, 1u128.into(), Uint128::zero(), 0);
        assert_eq!((stake.committed.u128(), stake.deployments.len()), (31, 31));
    }

    fn conduct() -> ConductParams {
        crate::deployment::tests::conduct()
    }

    #[test]
    fn exposure_and_reserve_together_are_inside_the_bond_whenever_a_slot_is_taken() {
        let mut stake = stake(200, &[]);
        let refused = ContractError::BondTooSmall {
            required: 201u128.into(),
            posted: 200u128.into(),
        };
        assert_eq!(stake.commit(1, 100u128.into(), 101u128.into(), 0), Err(refused));
        stake.commit(1, 100u128.into(), 100u128.into(), 0).unwrap();
        stake.settled.add(51u128.into(), 1_000, 50);
        let refused = ContractError::NoHeadroom {
            deployment: 1,
            required: 201u128.into(),
            bond: 200u128.into(),
        };
        assert_eq!(stake.occupy(1, 50u128.into(), 1_099), Err(refused));
        assert_eq!(stake.ready_at(50u128.into()), Some(1_100), "when it is forgotten");
        assert_eq!(stake.ready_at(49u128.into()), Some(0));
        assert_eq!(stake.ready_at(101u128.into()), None, "never");
        assert_eq!(stake.occupy(1, 50u128.into(), 1_100), Ok(()));
    }

    #[test]
    fn what_was_settled_lately_cannot_be_unbonded_nor_the_reserve_behind_it() {
        let mut stake = stake(300, &[]);
        stake.commit(1, 100u128.into(), 80u128.into(), 0).unwrap();
        assert_eq!(stake.free(1_000).u128(), 120);
        stake.settled.add(150u128.into(), 1_000, 50);
        assert_eq!(stake.free(1_000).u128(), 70);
        stake.uncommit(1, 100u128.into(), Uint128::zero(), 1_000);
        assert_eq!(stake.free(1_099).u128(), 70, "gone, but it may still be found wrong");
        assert_eq!(stake.free(1_100).u128(), 300, "all of it once it is forgotten");
        assert_eq!(stake.unbond(300u128.into(), 1_100, 9_999), Ok(()));
    }

    #[test]
    fn strikes_inside_the_window_jail_and_older_ones_are_forgotten() {
        let mut stake = stake(100, &[]);
        assert_eq!(stake.unjail(5), Err(ContractError::NotJailed));
        assert_eq!((stake.strike(100, &conduct()), stake.strike(130, &conduct())), (1, 2));
        assert_eq!(
            stake.strike(160, &conduct()),
            2,
            "the one of 100 is out of its 60 seconds"
        );
        assert_eq!(
            (stake.jailed_until, stake.strikes_inside(160, &conduct())),
            (None, vec![130, 160])
        );
        assert_eq!(stake.strike(189, &conduct()), 3);
        assert_eq!((stake.jailed_until, stake.strikes.len()), (Some(229), 0));
        let early = ContractError::StillJailed { until: 229, now: 228 };
        assert_eq!(stake.unjail(228), Err(early));
        assert_eq!(stake.unjail(229), Ok(()));
        assert_eq!(stake.strike(230, &conduct()), 1, "a new beginning");
    }

    #[test]
    fn misses_of_running_work_make_the_time_in_jail_longer_and_never_shorter() {
        let mut stake = stake(100, &[]);
        for now in [100, 100, 100, 110, 110] {
            stake.strike(now, &conduct());
        }
        assert_eq!(stake.jailed_until, Some(140));
        stake.strike(120, &conduct());
        assert_eq!(stake.jailed_until, Some(160));
        let refused = ContractError::InJail {
            deployment: 7,
            until: 160,
        };
        assert_eq!(stake.occupy(7, 1u128.into(), 150), Err(refused));
    }
}
