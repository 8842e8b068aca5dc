//! Whom to ask on chain what the hosts of a session have not answered: one complete chain among its open allocations, the cheapest.
//!
//! Guarantees: what it names is what the contracts take, as far as the chain was asked: open allocations of one engine class that cover
//! every stage, whose SLA takes so many units, and whose slots have room for the price beside what is unsettled.

use schema::{
    escrow::{AllocationResponse, AllocationState, SessionResponse},
    price::{PriceOverflow, SpanPrice, Units},
    staking::{DeploymentResponse, DeploymentState},
};

use crate::{NoPlan, Part, Wish};

/// Why nobody can be asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoChain {
    /// Nobody is left for a stage.
    #[error("no open deployment of it serves stage {stage}")]
    Stage {
        /// The first such stage.
        stage: usize,
    },
    /// Every stage is served, but not by deployments that fit together.
    #[error("no chain of one engine class is left of its open deployments")]
    Class,
    /// More than a deployment has promised to be done with in its time.
    #[error("deployment {deployment} takes {max} units at once, so many texts may have {units}: ask fewer")]
    Units {
        /// The deployment.
        deployment: u64,
        /// Of its SLA.
        max: u64,
        /// As many as the version allows for these texts.
        units: u64,
    },
    /// A slot backs what is unsettled and what is forced together.
    #[error("the slot of deployment {deployment} is backed with {slot_bond} ufunc, of which {unsettled} are unsettled and {price} more would be asked: ask fewer texts, or wait until its vouchers are settled")]
    Bond {
        /// The deployment.
        deployment: u64,
        /// Behind its slot.
        slot_bond: u128,
        /// Of its allocation.
        unsettled: u128,
        /// Of the request.
        price: u128,
    },
    /// Numbers beyond all FUNC.
    #[error(transparent)]
    Price(#[from] PriceOverflow),
}

/// Texts to be forced in a session.
#[derive(Clone, Debug)]
pub struct Forcing<'a> {
    /// Whose hosts are asked.
    pub session: &'a SessionResponse,
    /// Its deployments, as staking lists them.
    pub listed: &'a [DeploymentResponse],
    /// Share of the compute of each stage, in order.
    pub compute_shares: &'a [u16],
    /// How many texts.
    pub rows: u64,
}

impl Forcing<'_> {
    /// What is paid for at most: nobody but the version says how long a text may be.
    pub fn units(&self) -> Units {
        Units {
            requests: self.rows,
            units_in: self.rows.saturating_mul(self.session.units_per_request_max),
            units_out: 0,
        }
    }

    /// What a deployment asks for it at most, in ufunc.
    pub fn price(&self, allocation: &AllocationResponse) -> Result<u128, PriceOverflow> {
        let gateway_bps = self.session.gateway.as_ref().map_or(0, |gateway| gateway.bps);
        let (ask, share) = (&allocation.ask, allocation.compute_share_bps);
        let price = SpanPrice::of(ask, &self.session.royalty, gateway_bps, share, self.units())?;
        Ok(price.total()?.u128())
    }

    /// The cheapest chain, in order of its stages.
    pub fn chain(&self) -> Result<Vec<u64>, NoChain> {
        let mut refused = None;
        let mut able = vec![];
        for allocation in self.open() {
            match self.check(allocation) {
                Ok(()) => able.extend(self.candidate(allocation)),
                Err(why) => drop(refused.get_or_insert(why)),
            }
        }
        match self.wish().plan(&able) {
            Ok(plan) => self.affordable(plan.parts),
            Err(NoPlan::Price(overflow)) => Err(overflow.into()),
            Err(_) => Err(self.missing(refused)),
        }
    }

    fn open(&self) -> impl Iterator<Item = &AllocationResponse> {
        let allocations = self.session.allocations.iter();
        allocations.filter(|allocation| allocation.state == AllocationState::Open)
    }

    fn check(&self, allocation: &AllocationResponse) -> Result<(), NoChain> {
        let deployment = allocation.deployment;
        let units = self.units().total()?;
        let listed = self.listed.iter().find(|listed| listed.deployment == deployment);
        let max = listed.map_or(0, |listed| listed.terms.sla.units_max);
        if units > max {
            return Err(NoChain::Units { deployment, max, units });
        }
        let price = self.price(allocation)?;
        let unsettled = allocation.amount.saturating_sub(allocation.paid).u128();
        let slot_bond = allocation.slot_bond.u128();
        match unsettled.saturating_add(price) > slot_bond {
            true => Err(NoChain::Bond {
                deployment,
                slot_bond,
                unsettled,
                price,
            }),
            false => Ok(()),
        }
    }

    /// As if its slot was free: it is the session's.
    fn candidate(&self, allocation: &AllocationResponse) -> Option<DeploymentResponse> {
        let mut listed = self.listed.iter();
        let found = listed.find(|listed| listed.deployment == allocation.deployment)?;
        Some(DeploymentResponse {
            state: DeploymentState::Active,
            busy: 0,
            ..found.clone()
        })
    }

    fn wish(&self) -> Wish {
        Wish {
            compute_shares: self.compute_shares.to_vec(),
            royalty: self.session.royalty,
            gateway_bps: self.session.gateway.as_ref().map_or(0, |gateway| gateway.bps),
            units: self.units(),
            spares: 0,
            engine_class: None,
            seconds: 0,
            allocation_min: 0,
        }
    }

    /// Any of them may be the culprit, and pays for the whole chain out of the bond of its slot.
    fn affordable(&self, parts: Vec<Part>) -> Result<Vec<u64>, NoChain> {
        let price = parts.iter().fold(0_u128, |sum, part| sum.saturating_add(part.price));
        let chain: Vec<u64> = parts.iter().map(|part| part.deployment).collect();
        let mut asked = self.open().filter(|allocation| chain.contains(&allocation.deployment));
        match asked.find(|allocation| price > allocation.slot_bond.u128()) {
            None => Ok(chain),
            Some(short) => Err(NoChain::Bond {
                deployment: short.deployment,
                slot_bond: short.slot_bond.u128(),
                unsettled: 0,
                price,
            }),
        }
    }

    fn missing(&self, refused: Option<NoChain>) -> NoChain {
        let serves = |stage: usize| {
            self.open()
                .any(|it| (usize::from(it.first)..=usize::from(it.last)).contains(&stage))
        };
        let stage = (0..self.compute_shares.len()).find(|stage| !serves(*stage));
        match stage {
            Some(stage) => NoChain::Stage { stage },
            None => refused.unwrap_or(NoChain::Class),
        }
    }
}

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects, reason = "small numbers of a test")]
mod tests {
    use schema::{
        price::{Ask, FeeBps, RoyaltyRate},
        staking::{DeploymentTerms, Sla},
        PublicKey,
    };

    use super::*;

    const SLOT_BOND: u128 = 1_000_000;

    /// Deployment, its stages, its class, what it asks for a text.
    type Supply<'a> = (u64, (u8, u8), &'a str, u128);

    fn ask((_, _, _, per_request): Supply<'_>) -> Ask {
        Ask {
            per_1k_in: 0u128.into(),
            per_1k_out: 0u128.into(),
            per_request: per_request.into(),
        }
    }

    fn listed(supply: Supply<'_>) -> DeploymentResponse {
        let (deployment, (first, last), class, _) = supply;
        DeploymentResponse {
            deployment,
            link_faults: 0,
            provider: format!("wasm1provider{deployment}"),
            terms: DeploymentTerms {
                model: "demo/model".parse().unwrap(),
                version: 1,
                first,
                last,
                engine_class: class.to_owned(),
                ask: ask(supply),
                reservation_per_hour: 3_600u128.into(),
                slots: 1,
                sla: Sla {
                    base_seconds: 1,
                    seconds_per_1k_units: 1,
                    units_max: 1_000,
                    penalty_bps: 0,
                },
            },
            // Its only slot is the session's, and it takes no new work.
            state: DeploymentState::Draining,
            busy: 1,
            slot_bond: SLOT_BOND.into(),
        }
    }

    fn allocation(supply: Supply<'_>) -> AllocationResponse {
        let (deployment, (first, last), ..) = supply;
        AllocationResponse {
            deployment,
            provider: format!("wasm1provider{deployment}"),
            host_key: PublicKey([2; 33]),
            first,
            last,
            compute_share_bps: 1_000,
            ask: ask(supply),
            slot_bond: SLOT_BOND.into(),
            reservation_per_hour: 3_600u128.into(),
            state: AllocationState::Open,
            amount: 100u128.into(),
            paid: 0u128.into(),
            sequence: 0,
            units: Units::default(),
            reservation: 10u128.into(),
            accrued: 0u128.into(),
            joined_at: 1,
            releasable_at: 100,
        }
    }

    fn session(market: &[Supply<'_>]) -> SessionResponse {
        SessionResponse {
            session: 7,
            owner: "wasm1owner".into(),
            model: "demo/model".parse().unwrap(),
            version: 1,
            endpoint: "embeddings".into(),
            session_key: PublicKey([3; 33]),
            royalty: RoyaltyRate {
                royalty_bps: 1_000,
                royalty_per_1k_units: 0u128.into(),
            },
            gateway: None,
            fees: FeeBps::default(),
            units_per_request_max: 100,
            opened_at: 1,
            expires_at: 90,
            close_notice_seconds: 10,
            allocations: market.iter().map(|supply| allocation(*supply)).collect(),
            forced: None,
        }
    }

    const MARKET: [Supply<'_>; 4] = [
        (1, (0, 0), "a", 20),
        (2, (0, 0), "a", 10),
        (3, (1, 2), "a", 30),
        (4, (0, 2), "b", 90),
    ];

    fn chosen(session: &SessionResponse, rows: u64) -> Result<Vec<u64>, NoChain> {
        let listed: Vec<_> = MARKET.iter().map(|supply| listed(*supply)).collect();
        let forcing = Forcing {
            session,
            listed: &listed,
            compute_shares: &[5_000, 3_000, 2_000],
            rows,
        };
        forcing.chain()
    }

    #[test]
    fn the_cheapest_chain_of_one_class_is_asked_however_busy_it_is() {
        let mut session = session(&MARKET);
        assert_eq!(chosen(&session, 2), Ok(vec![2, 3]));
        session.allocations[1].state = AllocationState::Missed;
        assert_eq!(chosen(&session, 2), Ok(vec![1, 3]));
        session.allocations[2].state = AllocationState::Closing;
        assert_eq!(chosen(&session, 2), Ok(vec![4]));
        session.allocations[3].state = AllocationState::Closed;
        assert_eq!(chosen(&session, 2), Err(NoChain::Stage { stage: 1 }));
    }

    #[test]
    fn who_has_no_room_beside_what_is_unsettled_is_passed_over_and_else_named() {
        let mut session = session(&MARKET);
        session.allocations[1].amount = (SLOT_BOND - 21).into();
        // Ten a text and a tenth for the creator.
        assert_eq!(chosen(&session, 1), Ok(vec![2, 3]));
        assert_eq!(chosen(&session, 2), Ok(vec![1, 3]));
        session.allocations.retain(|it| [2, 3].contains(&it.deployment));
        let refused = NoChain::Bond {
            deployment: 2,
            slot_bond: SLOT_BOND,
            unsettled: SLOT_BOND - 21,
            price: 22,
        };
        assert_eq!(chosen(&session, 2), Err(refused));
    }

    #[test]
    fn the_whole_chain_is_backed_by_each_of_its_slots() {
        let mut session = session(&MARKET[2..3]);
        session.allocations.push(allocation(MARKET[1]));
        session.allocations[0].amount = 0u128.into();
        session.allocations[0].slot_bond = 40u128.into();
        let refused = NoChain::Bond {
            deployment: 3,
            slot_bond: 40,
            unsettled: 0,
            price: 44,
        };
        assert_eq!(chosen(&session, 1), Err(refused));
    }

    #[test]
    fn more_texts_than_the_terms_take_are_refused_with_the_number() {
        let refused = NoChain::Units {
            deployment: 1,
            max: 1_000,
            units: 1_100,
        };
        assert_eq!(chosen(&session(&MARKET), 11), Err(refused));
        assert_eq!(chosen(&session(&MARKET), 10), Ok(vec![2, 3]));
    }

    #[test]
    fn deployments_that_do_not_fit_together_are_no_chain() {
        let split: [Supply<'_>; 2] = [(1, (0, 0), "a", 1), (4, (0, 2), "b", 1)];
        let mut session = session(&split);
        session.allocations[1].first = 1;
        let listed: Vec<_> = [(1, (0, 0), "a", 1), (4, (1, 2), "b", 1)].map(listed).into();
        let forcing = Forcing {
            session: &session,
            listed: &listed,
            compute_shares: &[5_000, 3_000, 2_000],
            rows: 1,
        };
        assert_eq!(forcing.chain(), Err(NoChain::Class));
    }
}
