//! Whom to set money apart for in a session: one complete chain of stages, the cheapest for the work in view, and spares.
//!
//! Guarantees: every chain stays inside one engine class, so that whoever answers gives the same bits; only active deployments with a
//! free slot are taken, each once; an allocation covers the price of the whole work in view, is at least what the escrow demands and at
//! most what the slot is backed with.

use std::collections::{BTreeMap, BTreeSet};

use schema::{
    escrow::{NewAllocation, ALLOCATIONS_MAX},
    price::{PriceOverflow, RoyaltyRate, SpanPrice, Units},
    staking::{DeploymentResponse, DeploymentState},
};

/// What a session should be good for.
#[derive(Clone, Debug)]
pub struct Wish {
    /// Share of the compute of each stage, in order.
    pub compute_shares: Vec<u16>,
    /// What the registry promises now.
    pub royalty: RoyaltyRate,
    /// What the gateway takes, 0 without one.
    pub gateway_bps: u16,
    /// All work that the session is for.
    pub units: Units,
    /// Further complete chains beside the first.
    pub spares: usize,
    /// Only this engine class.
    pub engine_class: Option<String>,
    /// From now to the end of the notice after expiry: what reservations are paid for.
    pub seconds: u64,
    /// Least ufunc of an allocation.
    pub allocation_min: u128,
}

/// One deployment of a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// The deployment.
    pub deployment: u64,
    /// Its owner.
    pub provider: String,
    /// First stage it serves.
    pub first: u8,
    /// Last stage it serves.
    pub last: u8,
    /// What all the work would cost here, in ufunc.
    pub price: u128,
    /// Set apart for vouchers, in ufunc.
    pub amount: u128,
    /// For the slot, in ufunc.
    pub reservation: u128,
    /// Not of the first chain.
    pub is_spare: bool,
}

impl Part {
    /// As the escrow wants it.
    pub fn allocation(&self) -> NewAllocation {
        NewAllocation {
            deployment: self.deployment,
            amount: self.amount.into(),
        }
    }
}

/// Deployments of one engine class that make at least one complete chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// What decides the bits.
    pub engine_class: String,
    /// The first chain in order of its stages, then the spares.
    pub parts: Vec<Part>,
}

impl Plan {
    /// Everything that is held when the session is opened, in ufunc.
    pub fn held(&self) -> u128 {
        let parts = self.parts.iter();
        parts.fold(0, |sum, part| {
            sum.saturating_add(part.amount).saturating_add(part.reservation)
        })
    }

    /// What the work costs on the first chain, in ufunc.
    pub fn price(&self) -> u128 {
        let first = self.parts.iter().filter(|part| !part.is_spare);
        first.fold(0, |sum, part| sum.saturating_add(part.price))
    }
}

/// Why there is no plan.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoPlan {
    /// Nobody serves a stage.
    #[error("nobody who is free serves stage {stage}")]
    NoSupply {
        /// The first such stage.
        stage: usize,
    },
    /// Every stage is served, but not by deployments that fit together.
    #[error("every stage is served, but no chain of one engine class has a free slot on all of them")]
    NoChain,
    /// The work is dearer than slots are backed with.
    #[error(
        "the work costs {price} ufunc at deployment {deployment}, whose slot is backed with {slot_bond}: open it for fewer requests, and top it up as it is used"
    )]
    AboveSlotBond {
        /// Of the cheapest chain.
        deployment: u64,
        /// For all the work.
        price: u128,
        /// Most that may be unsettled.
        slot_bond: u128,
    },
    /// Numbers beyond all FUNC.
    #[error(transparent)]
    Price(#[from] PriceOverflow),
}

/// A deployment that could take part, and what it would cost.
#[derive(Clone, Debug)]
struct Candidate<'a> {
    of: &'a DeploymentResponse,
    price: u128,
    reservation: u128,
}

impl Candidate<'_> {
    fn cost(&self) -> u128 {
        self.price.saturating_add(self.reservation)
    }
}

impl Wish {
    /// Chooses among the deployments that serve the version.
    pub fn plan(&self, deployments: &[DeploymentResponse]) -> Result<Plan, NoPlan> {
        let candidates = self.candidates(deployments)?;
        let mut classes: BTreeMap<&str, Vec<Candidate<'_>>> = BTreeMap::new();
        for candidate in &candidates {
            let class = candidate.of.terms.engine_class.as_str();
            classes.entry(class).or_default().push(candidate.clone());
        }
        let cheapest = classes.iter().filter_map(|(class, members)| {
            let chain = self.cheapest(members, &BTreeSet::new())?;
            let cost = chain.iter().fold(0_u128, |sum, part| sum.saturating_add(part.cost()));
            Some((cost, *class))
        });
        let Some((_, class)) = cheapest.min() else {
            return Err(self.missing(&candidates));
        };
        let members = classes.remove(class).unwrap_or_default();
        Ok(Plan {
            engine_class: class.to_owned(),
            parts: self.parts(&members)?,
        })
    }

    /// The first chain, and after it as many spares as there are and have room.
    fn parts(&self, members: &[Candidate<'_>]) -> Result<Vec<Part>, NoPlan> {
        let mut taken = BTreeSet::new();
        let mut parts: Vec<Part> = vec![];
        for number in 0..=self.spares {
            let Some(chain) = self.cheapest(members, &taken) else {
                break;
            };
            if parts.len().saturating_add(chain.len()) > ALLOCATIONS_MAX {
                break;
            }
            let is_spare = number > 0;
            for candidate in chain {
                taken.insert(candidate.of.deployment);
                parts.push(self.part(candidate, is_spare)?);
            }
        }
        Ok(parts)
    }

    fn part(&self, candidate: &Candidate<'_>, is_spare: bool) -> Result<Part, NoPlan> {
        let Candidate { of, price, reservation } = candidate;
        let slot_bond = of.slot_bond.u128();
        if *price > slot_bond && !is_spare {
            return Err(NoPlan::AboveSlotBond {
                deployment: of.deployment,
                price: *price,
                slot_bond,
            });
        }
        Ok(Part {
            deployment: of.deployment,
            provider: of.provider.clone(),
            first: of.terms.first,
            last: of.terms.last,
            price: *price,
            amount: (*price).max(self.allocation_min).min(slot_bond),
            reservation: *reservation,
            is_spare,
        })
    }

    fn candidates<'a>(&self, deployments: &'a [DeploymentResponse]) -> Result<Vec<Candidate<'a>>, NoPlan> {
        let fits = |it: &&DeploymentResponse| {
            let wanted = self.engine_class.as_ref();
            it.state == DeploymentState::Active
                && it.busy < it.terms.slots
                && it.terms.first <= it.terms.last
                && usize::from(it.terms.last) < self.compute_shares.len()
                && it.slot_bond.u128() >= self.allocation_min
                && wanted.is_none_or(|class| *class == it.terms.engine_class)
        };
        let candidate = |of: &'a DeploymentResponse| {
            let terms = &of.terms;
            let stages = self.compute_shares.get(terms.first.into()..=terms.last.into());
            let share = stages
                .unwrap_or_default()
                .iter()
                .fold(0_u16, |sum, bps| sum.saturating_add(*bps));
            let price = SpanPrice::of(&terms.ask, &self.royalty, self.gateway_bps, share, self.units)?;
            let kept = terms.reservation_per_hour.u128().checked_mul(self.seconds.into());
            Ok(Candidate {
                of,
                price: price.total()?.u128(),
                reservation: kept.ok_or(PriceOverflow)?.div_ceil(3_600),
            })
        };
        deployments.iter().filter(fits).map(candidate).collect()
    }

    /// The cheapest way through all stages, from the last stage backwards. None: there is no way.
    fn cheapest<'a, 'b>(&self, members: &'b [Candidate<'a>], taken: &BTreeSet<u64>) -> Option<Vec<&'b Candidate<'a>>> {
        let stages = self.compute_shares.len();
        // For each stage the cost of the cheapest way from it to the end, and its first deployment.
        let mut best: Vec<Option<(u128, Option<&'b Candidate<'a>>)>> = vec![None; stages];
        best.push(Some((0, None)));
        for stage in (0..stages).rev() {
            let starts = members.iter().filter(|it| usize::from(it.of.terms.first) == stage);
            let free = starts.filter(|it| !taken.contains(&it.of.deployment));
            let ways = free.filter_map(|it| {
                let next = usize::from(it.of.terms.last).saturating_add(1);
                let (rest, _) = best.get(next).copied().flatten()?;
                Some((it.cost().saturating_add(rest), it))
            });
            let way = ways.min_by_key(|(cost, it)| (*cost, it.of.deployment));
            if let Some(place) = best.get_mut(stage) {
                *place = way.map(|(cost, it)| (cost, Some(it)));
            }
        }
        let mut chain = vec![];
        let mut stage = 0;
        while let Some((_, Some(next))) = best.get(stage).copied().flatten() {
            chain.push(next);
            stage = usize::from(next.of.terms.last).saturating_add(1);
        }
        (stage == stages).then_some(chain)
    }

    fn missing(&self, candidates: &[Candidate<'_>]) -> NoPlan {
        let served = |stage: usize| {
            let mut covers = candidates
                .iter()
                .map(|it| it.of.terms.first.into()..=it.of.terms.last.into());
            covers.any(|stages| stages.contains(&stage))
        };
        match (0..self.compute_shares.len()).find(|stage| !served(*stage)) {
            Some(stage) => NoPlan::NoSupply { stage },
            None => NoPlan::NoChain,
        }
    }
}

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects, reason = "small numbers of a test")]
mod tests {
    use schema::{
        price::Ask,
        staking::{DeploymentTerms, Sla},
    };

    use super::*;

    const SLOT_BOND: u128 = 1_000_000;

    fn deployment(number: u64, stages: (u8, u8), class: &str, per_request: u128) -> DeploymentResponse {
        DeploymentResponse {
            deployment: number,
            link_faults: 0,
            provider: format!("wasm1provider{number}"),
            terms: DeploymentTerms {
                model: "demo/model".parse().unwrap(),
                version: 1,
                first: stages.0,
                last: stages.1,
                engine_class: class.to_owned(),
                ask: Ask {
                    per_1k_in: 0u128.into(),
                    per_1k_out: 0u128.into(),
                    per_request: per_request.into(),
                },
                reservation_per_hour: 3_600u128.into(),
                slots: 1,
                sla: Sla {
                    base_seconds: 1,
                    seconds_per_1k_units: 1,
                    units_max: 1_000,
                    penalty_bps: 0,
                },
            },
            state: DeploymentState::Active,
            busy: 0,
            slot_bond: SLOT_BOND.into(),
        }
    }

    fn wish(requests: u64, spares: usize) -> Wish {
        Wish {
            compute_shares: vec![5_000, 3_000, 2_000],
            royalty: RoyaltyRate {
                royalty_bps: 1_000,
                royalty_per_1k_units: 0u128.into(),
            },
            gateway_bps: 0,
            units: Units {
                requests,
                units_in: requests,
                units_out: 0,
            },
            spares,
            engine_class: None,
            seconds: 10,
            allocation_min: 100,
        }
    }

    fn chosen(plan: &Plan) -> Vec<u64> {
        plan.parts.iter().map(|part| part.deployment).collect()
    }

    #[test]
    fn the_cheapest_complete_chain_of_one_class_is_taken_and_then_spares() {
        let market = [
            deployment(1, (0, 2), "a", 90),
            deployment(2, (0, 0), "a", 20),
            deployment(3, (1, 2), "a", 30),
            deployment(4, (0, 0), "b", 1),
            deployment(5, (2, 2), "b", 1),
        ];
        let plan = wish(10, 2).plan(&market).unwrap();
        assert_eq!((chosen(&plan), plan.engine_class.as_str()), (vec![2, 3, 1], "a"));
        assert_eq!(
            plan.parts.iter().map(|part| part.is_spare).collect::<Vec<_>>(),
            [false, false, true]
        );
        // 10 requests at 20 and 30 with a tenth for the creator; 10 seconds at one ufunc.
        assert_eq!(
            (plan.parts[0].price, plan.parts[0].amount, plan.parts[0].reservation),
            (220, 220, 10)
        );
        assert_eq!((plan.price(), plan.held()), (550, 220 + 330 + 990 + 30));
        assert_eq!(plan.parts[0].allocation().amount.u128(), 220);
    }

    #[test]
    fn who_is_busy_draining_or_of_another_class_is_not_taken() {
        let mut market = [
            deployment(1, (0, 2), "a", 1),
            deployment(2, (0, 2), "a", 2),
            deployment(3, (0, 2), "b", 3),
        ];
        market[0].busy = 1;
        assert_eq!(chosen(&wish(1, 0).plan(&market).unwrap()), [2]);
        market[1].state = DeploymentState::Draining;
        assert_eq!(chosen(&wish(1, 0).plan(&market).unwrap()), [3]);
        let picky = Wish {
            engine_class: Some("a".into()),
            ..wish(1, 0)
        };
        assert_eq!(picky.plan(&market), Err(NoPlan::NoSupply { stage: 0 }));
    }

    #[test]
    fn what_is_missing_is_named() {
        let hole = [deployment(1, (0, 0), "a", 1), deployment(2, (2, 2), "a", 1)];
        assert_eq!(wish(1, 0).plan(&hole), Err(NoPlan::NoSupply { stage: 1 }));
        let unlike = [deployment(1, (0, 0), "a", 1), deployment(2, (1, 2), "b", 1)];
        assert_eq!(wish(1, 0).plan(&unlike), Err(NoPlan::NoChain));
    }

    #[test]
    fn an_allocation_is_never_below_the_least_nor_above_the_slots_bond() {
        let market = [deployment(1, (0, 2), "a", 1_000)];
        assert_eq!(wish(0, 0).plan(&market).unwrap().parts[0].amount, 100);
        let refused = wish(1_000, 0).plan(&market).unwrap_err();
        let expected = NoPlan::AboveSlotBond {
            deployment: 1,
            price: 1_100_000,
            slot_bond: SLOT_BOND,
        };
        assert_eq!(refused, expected);
    }

    #[test]
    fn a_plan_never_has_more_deployments_than_a_session_may() {
        let market: Vec<_> = (0..30_u64)
            .flat_map(|n| (0..3_u8).map(move |stage| deployment(n * 3 + u64::from(stage), (stage, stage), "a", 1)))
            .collect();
        let plan = wish(1, 100).plan(&market).unwrap();
        assert_eq!(plan.parts.len(), 15);
        let different: BTreeSet<u64> = chosen(&plan).into_iter().collect();
        assert_eq!(different.len(), 15);
    }
}
