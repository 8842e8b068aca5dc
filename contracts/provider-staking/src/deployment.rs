//! A deployment: contiguous stages of one version, offered by one provider for a price, with slots and an SLA.
//!
//! What a slot is backed with and what a miss costs at least are pinned when it is listed: later parameters do not touch it.

use cosmwasm_schema::cw_serde;
use cosmwasm_std::{Addr, Uint128};
use schema::{
    params::StakingParams,
    price::RATE_MAX,
    registry::VersionResponse,
    staking::{DeploymentState, DeploymentTerms, Sla},
    text, BPS,
};

use crate::{draw::Listing, index::market_key, rolling::Rolling, stake::Stake, ContractError};

pub(crate) const CLASS_BYTES_MAX: usize = 128;
const SLOTS_MAX: u16 = 1_000;
const UNITS_MAX: u64 = 1_000_000_000;

#[cw_serde]
pub(crate) struct Deployment {
    pub(crate) owner: Addr,
    pub(crate) terms: DeploymentTerms,
    pub(crate) state: DeploymentState,
    pub(crate) busy: u16,
    pub(crate) slot_bond: Uint128,
    pub(crate) miss_min: Uint128,
    /// Ask for a unit of compute: what the draw sorts by.
    pub(crate) rank: Uint128,
    /// What its provider keeps free of work because of it.
    #[serde(default)]
    pub(crate) reserve: Uint128,
    /// Link faults that it was part of. None: there was never one.
    #[serde(default)]
    pub(crate) faults: Option<Rolling>,
}

impl Deployment {
    /// A new deployment, if its terms are inside all bounds.
    pub(crate) fn new(
        owner: Addr,
        terms: DeploymentTerms,
        version: &VersionResponse,
        params: &StakingParams,
    ) -> Result<Self, ContractError> {
        if version.retired {
            return Err(ContractError::VersionRetired {
                model: terms.model,
                version: terms.version,
            });
        }
        let share_bps = compute_share(&terms, version)?;
        check_terms(&terms, params)?;
        Ok(Self {
            owner,
            rank: rank(&terms, share_bps),
            terms,
            state: DeploymentState::Active,
            busy: 0,
            slot_bond: params.bond_per_slot,
            miss_min: params.miss_min,
            reserve: reserve(params),
            faults: None,
        })
    }

    /// What is served, as a key.
    pub(crate) fn market(&self) -> Vec<u8> {
        market_key(&self.terms.model, self.terms.version)
    }

    /// Bond behind all slots.
    pub(crate) fn committed(&self) -> Uint128 {
        self.slot_bond.saturating_mul(self.terms.slots.into())
    }

    pub(crate) fn drain(&mut self, number: u64) -> Result<(), ContractError> {
        self.require_active(number)?;
        self.state = DeploymentState::Draining;
        Ok(())
    }

    fn require_active(&self, deployment: u64) -> Result<(), ContractError> {
        match self.state {
            DeploymentState::Active => Ok(()),
            DeploymentState::Draining => Err(ContractError::Draining { deployment }),
        }
    }

    pub(crate) fn require_idle(&self, deployment: u64) -> Result<(), ContractError> {
        match self.busy {
            0 => Ok(()),
            busy => Err(ContractError::Busy { deployment, busy }),
        }
    }

    /// Takes a slot.
    pub(crate) fn occupy(&mut self, deployment: u64) -> Result<(), ContractError> {
        self.require_active(deployment)?;
        let slots = self.terms.slots;
        if self.busy >= slots {
            return Err(ContractError::NoFreeSlot { deployment, slots });
        }
        self.busy = self.busy.saturating_add(1);
        Ok(())
    }

    /// Gives a slot back. False: none was taken.
    pub(crate) fn vacate(&mut self) -> bool {
        let was_busy = self.busy > 0;
        self.busy = self.busy.saturating_sub(1);
        was_busy
    }

    /// What a miss of an item of this price costs: the committed part, rounded up, at least the minimum, at most the slot's bond.
    pub(crate) fn penalty(&self, price: Uint128) -> Uint128 {
        let scaled = price.u128().saturating_mul(self.terms.sla.penalty_bps.into());
        let committed = Uint128::new(scaled.div_ceil(BPS.into()));
        committed.max(self.miss_min).min(self.slot_bond)
    }

    /// Counts a link fault.
    pub(crate) fn fail_link(&mut self, now: u64, window: u64) {
        self.faults.get_or_insert_default().add(Uint128::one(), now, window);
    }

    /// Link faults that count at this moment.
    pub(crate) fn link_faults(&self, now: u64) -> u32 {
        let count = self.faults.map(|faults| faults.at(now)).unwrap_or_default();
        u32::try_from(count.u128()).unwrap_or(u32::MAX)
    }

    /// What the draw needs to know, if this can take an item now or as soon as settled work is forgotten.
    pub(crate) fn listing(&self, deployment: u64, stake: &Stake) -> Option<Listing> {
        let free_slots = self.terms.slots.saturating_sub(self.busy);
        let active = self.state == DeploymentState::Active && !stake.is_jailed();
        let ready_at = stake.ready_at(self.slot_bond)?;
        (active && free_slots > 0).then(|| Listing {
            deployment,
            owner: self.owner.clone(),
            first: self.terms.first,
            last: self.terms.last,
            free_slots,
            ask: self.terms.ask,
            sla: self.terms.sla,
            slot_bond: self.slot_bond,
            ready_at,
            faults: self.faults,
        })
    }
}

/// 1.5 x the larger of audit unit and slot bond, rounded up: what one conviction costs at most.
fn reserve(params: &StakingParams) -> Uint128 {
    let largest = params.conduct.audit_unit.max(params.bond_per_slot);
    Uint128::new(largest.u128().saturating_mul(3).div_ceil(2))
}

/// Part of the version's compute that the stages are, if they exist.
fn compute_share(terms: &DeploymentTerms, version: &VersionResponse) -> Result<u16, ContractError> {
    let (first, last) = (terms.first, terms.last);
    let wrong = ContractError::WrongStages {
        first,
        last,
        stages: version.stages.len(),
    };
    let stages = version
        .stages
        .get(first.into()..=last.into())
        .filter(|found| !found.is_empty());
    let shares = stages.ok_or(wrong)?.iter().map(|stage| stage.compute_share_bps);
    Ok(shares.fold(0, u16::saturating_add))
}

/// Sum of the three rates for as many stages as would be the whole model. Bounded rates cannot saturate it.
fn rank(terms: &DeploymentTerms, share_bps: u16) -> Uint128 {
    let ask = terms.ask;
    let rates = ask
        .per_1k_in
        .saturating_add(ask.per_1k_out)
        .saturating_add(ask.per_request);
    let scaled = rates.u128().saturating_mul(BPS.into());
    Uint128::new(scaled.checked_div(share_bps.into()).unwrap_or(u128::MAX))
}

fn check_terms(terms: &DeploymentTerms, params: &StakingParams) -> Result<(), ContractError> {
    text::check_present("engine_class", &terms.engine_class, CLASS_BYTES_MAX)?;
    if !terms.ask.is_bounded() {
        let max = Uint128::new(RATE_MAX);
        return Err(ContractError::AskTooHigh { max });
    }
    check_bounds(
        "reservation_per_hour",
        terms.reservation_per_hour,
        params.reservation_per_hour_min,
        Uint128::new(RATE_MAX),
    )?;
    check_bounds("slots", terms.slots, 1u16, SLOTS_MAX)?;
    check_sla(&terms.sla, params)
}

fn check_sla(sla: &Sla, params: &StakingParams) -> Result<(), ContractError> {
    let seconds_max = params.sla_seconds_max;
    check_bounds("base_seconds", sla.base_seconds, 0, seconds_max)?;
    check_bounds("seconds_per_1k_units", sla.seconds_per_1k_units, 0, seconds_max)?;
    check_bounds("units_max", sla.units_max, 1, UNITS_MAX)?;
    check_bounds("penalty_bps", sla.penalty_bps, params.penalty_bps_min, BPS)
}

pub(crate) fn check_bounds<T: Into<u128>>(field: &str, found: T, min: T, max: T) -> Result<(), ContractError> {
    let (found, min, max) = (found.into(), min.into(), max.into());
    if (min..=max).contains(&found) {
        return Ok(());
    }
    let field = field.to_owned();
    Err(ContractError::OutOfBounds { field, found, min, max })
}

#[cfg(test)]
pub(crate) mod tests {
    use cosmwasm_std::Decimal;
    use schema::{params::ConductParams, price::Ask, registry::StageInfo, Digest};

    use super::*;

    pub(crate) fn conduct() -> ConductParams {
        ConductParams {
            audit_unit: 700u128.into(),
            audit_window_seconds: 50,
            strike_window_seconds: 60,
            jail_strikes: 3,
            jail_seconds: 40,
            fault_window_seconds: 30,
        }
    }

    pub(crate) fn params() -> StakingParams {
        StakingParams {
            bond_per_slot: 1_000u128.into(),
            listing_fee: 7u128.into(),
            unbonding_seconds: 100,
            miss_min: 50u128.into(),
            penalty_bps_min: 1_000,
            sla_seconds_max: 600,
            reservation_per_hour_min: 40u128.into(),
            conduct: conduct(),
            migration_notice_seconds: 100,
        }
    }

    pub(crate) fn version(shares: &[u16]) -> VersionResponse {
        let stage = |share: &u16| StageInfo {
            digest: Digest([0; 32]),
            weight_bytes: 1,
            compute_share_bps: *share,
        };
        VersionResponse {
            version: 1,
            manifest: Digest([0; 32]),
            manifest_uris: vec![],
            stages: shares.iter().map(stage).collect(),
            tolerance: Decimal::permille(1),
            units_per_request_max: 256,
            retired: false,
            published_at: 0,
        }
    }

    pub(crate) fn terms(first: u8, last: u8, per_1k_in: u128, slots: u16) -> DeploymentTerms {
        DeploymentTerms {
            model: "demo/base".parse().unwrap(),
            version: 1,
            first,
            last,
            engine_class: "cpu".into(),
            ask: Ask {
                per_1k_in: per_1k_in.into(),
                per_1k_out: 0u128.into(),
                per_request: 0u128.into(),
            },
            reservation_per_hour: 40u128.into(),
            slots,
            sla: Sla {
                base_seconds: 2,
                seconds_per_1k_units: 10,
                units_max: 10_000,
                penalty_bps: 2_500,
            },
        }
    }

    fn new(terms: DeploymentTerms) -> Result<Deployment, ContractError> {
        Deployment::new(
            Addr::unchecked("ann"),
            terms,
            &version(&[2_000, 3_000, 5_000]),
            &params(),
        )
    }

    #[test]
    fn a_penalty_is_rounded_up_at_least_the_minimum_and_at_most_the_slots_bond() {
        let deployment = new(terms(0, 0, 10, 1)).unwrap();
        for (price, penalty) in [
            (0, 50),
            (200, 50),
            (201, 51),
            (400, 100),
            (3_999, 1_000),
            (4_000, 1_000),
            (u128::MAX, 1_000),
        ] {
            assert_eq!(deployment.penalty(price.into()).u128(), penalty, "{price}");
        }
    }

    #[test]
    fn it_is_ranked_by_what_a_whole_model_would_cost() {
        let rank = |first, last, ask| new(terms(first, last, ask, 1)).unwrap().rank.u128();
        assert_eq!((rank(0, 0, 10), rank(1, 2, 40), rank(0, 2, 50)), (50, 50, 50));
        let mut dear = terms(0, 0, RATE_MAX, 1);
        dear.ask.per_1k_out = RATE_MAX.into();
        dear.ask.per_request = RATE_MAX.into();
        assert_eq!(new(dear).unwrap().rank.u128(), 3 * RATE_MAX * 5);
    }

    #[test]
    fn terms_out_of_bounds_are_refused_with_their_numbers() {
        let refused = |change: fn(&mut DeploymentTerms)| {
            let mut terms = terms(1, 2, 10, 1);
            change(&mut terms);
            new(terms).unwrap_err().to_string()
        };
        assert_eq!(refused(|t| t.last = 3), "stages 1 to 3 of a version with 3");
        assert_eq!(refused(|t| t.last = 0), "stages 1 to 0 of a version with 3");
        assert_eq!(
            refused(|t| (t.first, t.last) = (255, 0)),
            "stages 255 to 0 of a version with 3"
        );
        assert_eq!(refused(|t| t.engine_class.clear()), "engine_class is empty");
        assert_eq!(
            refused(|t| t.engine_class = "c".repeat(129)),
            "engine_class is 129 bytes long, at most 128 are allowed"
        );
        assert_eq!(
            refused(|t| t.ask.per_request = (RATE_MAX + 1).into()),
            "a rate of the ask is above 1000000000000000 ufunc"
        );
        assert_eq!(
            refused(|t| t.reservation_per_hour = 39u128.into()),
            "reservation_per_hour is 39, 40 to 1000000000000000 are allowed"
        );
        assert_eq!(
            refused(|t| t.reservation_per_hour = (RATE_MAX + 1).into()),
            "reservation_per_hour is 1000000000000001, 40 to 1000000000000000 are allowed"
        );
        assert_eq!(refused(|t| t.slots = 0), "slots is 0, 1 to 1000 are allowed");
        assert_eq!(refused(|t| t.slots = 1_001), "slots is 1001, 1 to 1000 are allowed");
        assert_eq!(
            refused(|t| t.sla.base_seconds = 601),
            "base_seconds is 601, 0 to 600 are allowed"
        );
        assert_eq!(
            refused(|t| t.sla.seconds_per_1k_units = 601),
            "seconds_per_1k_units is 601, 0 to 600 are allowed"
        );
        assert_eq!(
            refused(|t| t.sla.units_max = 0),
            "units_max is 0, 1 to 1000000000 are allowed"
        );
        assert_eq!(
            refused(|t| t.sla.units_max = UNITS_MAX + 1),
            "units_max is 1000000001, 1 to 1000000000 are allowed"
        );
        assert_eq!(
            refused(|t| t.sla.penalty_bps = 999),
            "penalty_bps is 999, 1000 to 10000 are allowed"
        );
        assert_eq!(
            refused(|t| t.sla.penalty_bps = 10_001),
            "penalty_bps is 10001, 1000 to 10000 are allowed"
        );
        let retired = VersionResponse {
            retired: true,
            ..version(&[10_000])
        };
        let found = Deployment::new(Addr::unchecked("ann"), terms(0, 0, 1, 1), &retired, &params()).unwrap_err();
        assert_eq!(found.to_string(), "version 1 of demo/base is retired");
    }

    #[test]
    fn it_is_listed_only_while_it_can_take_an_item() {
        let stake = |bond: u128, backing: u128| Stake {
            bond: bond.into(),
            backing: backing.into(),
            ..Stake::default()
        };
        let mut deployment = new(terms(0, 0, 10, 2)).unwrap();
        let free =
            |deployment: &Deployment, stake: &Stake| deployment.listing(1, stake).map(|listing| listing.free_slots);
        assert_eq!(free(&deployment, &stake(1_000, 0)), Some(2));
        assert_eq!(free(&deployment, &stake(1_000, 1)), None, "no headroom");
        deployment.occupy(1).unwrap();
        assert_eq!(free(&deployment, &stake(9_000, 1_000)), Some(1));
        deployment.occupy(1).unwrap();
        assert_eq!(free(&deployment, &stake(9_000, 2_000)), None, "no slot");
        assert_eq!(
            deployment.occupy(1),
            Err(ContractError::NoFreeSlot {
                deployment: 1,
                slots: 2
            })
        );
        assert_eq!(
            deployment.require_idle(1),
            Err(ContractError::Busy { deployment: 1, busy: 2 })
        );
        assert!(deployment.vacate() && deployment.vacate() && !deployment.vacate());
        deployment.drain(1).unwrap();
        assert_eq!(free(&deployment, &stake(9_000, 0)), None, "draining");
        let refused = ContractError::Draining { deployment: 1 };
        assert_eq!(
            (deployment.drain(1), deployment.occupy(1)),
            (Err(refused), Err(ContractError::Draining { deployment: 1 }))
        );
    }
}
