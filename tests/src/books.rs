//! What everybody has, and whether it all adds up.

use std::collections::BTreeMap;

use cosmwasm_std::Addr;
use schema::{
    escrow::{self, LedgerResponse, MoneyResponse, Reason},
    staking::{self, ProvidersResponse},
    TOTAL_SUPPLY,
};

use crate::Protocol;

/// The escrow's ledger by holder: available and held, in ufunc.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Books(pub BTreeMap<String, (u128, u128)>);

impl Books {
    /// Sum of all that is available and of all that is held.
    pub fn totals(&self) -> (u128, u128) {
        let mut totals = (0u128, 0u128);
        for (available, held) in self.0.values() {
            totals.0 = totals.0.saturating_add(*available);
            totals.1 = totals.1.saturating_add(*held);
        }
        totals
    }
}

impl Protocol {
    /// The whole ledger, page by page.
    pub fn books(&self) -> Books {
        let mut books = Books::default();
        let mut start_after = None;
        loop {
            let question = escrow::QueryMsg::Ledger {
                start_after,
                limit: Some(30),
            };
            let page: LedgerResponse = self.ask(&self.contracts.royalty_escrow, &question);
            let Some(last) = page.entries.last() else {
                return books;
            };
            start_after = Some(last.holder.clone());
            for entry in page.entries {
                books
                    .0
                    .insert(entry.holder, (entry.available.u128(), entry.held.u128()));
            }
        }
    }

    /// Every contract has exactly the FUNC that it owes, by its running totals and by counting, and no FUNC has appeared.
    #[track_caller]
    pub fn assert_conserved(&self) {
        let escrow = &self.contracts.royalty_escrow;
        let totals: escrow::TotalsResponse = self.ask(escrow, &escrow::QueryMsg::Totals {});
        let (available, held) = self.books().totals();
        assert_eq!((totals.available.u128(), totals.held.u128()), (available, held));
        assert_eq!(self.balance(escrow), available.saturating_add(held), "escrow");

        let staking = &self.contracts.provider_staking;
        let totals: staking::TotalsResponse = self.ask(staking, &staking::QueryMsg::Totals {});
        let (bonded, unbonding) = self.bonds();
        assert_eq!((totals.bonded.u128(), totals.unbonding.u128()), (bonded, unbonding));
        assert_eq!(self.balance(staking), bonded.saturating_add(unbonding), "staking");

        for owes_nothing in [
            &self.contracts.func_token,
            &self.contracts.model_registry,
            &self.contracts.job_orchestrator,
        ] {
            assert_eq!(self.balance(owes_nothing), 0);
        }
        assert!(self.supply() <= TOTAL_SUPPLY);
    }

    /// Bonded and unbonding FUNC, provider by provider.
    fn bonds(&self) -> (u128, u128) {
        let mut sums = (0u128, 0u128);
        let mut start_after = None;
        loop {
            let question = staking::QueryMsg::Providers {
                start_after,
                limit: Some(30),
            };
            let page: ProvidersResponse = self.ask(&self.contracts.provider_staking, &question);
            let Some(last) = page.providers.last() else {
                return sums;
            };
            start_after = Some(last.provider.clone());
            for provider in page.providers {
                sums.0 = sums.0.saturating_add(provider.bond.u128());
                for entry in provider.unbonding {
                    sums.1 = sums.1.saturating_add(entry.amount.u128());
                }
            }
        }
    }

    /// Available and held money of somebody in the escrow.
    pub fn money(&self, name: &str) -> (u128, u128) {
        self.money_of(self.addr(name).as_str())
    }

    /// As `money`, of any holder.
    pub fn money_of(&self, holder: &str) -> (u128, u128) {
        let question = escrow::QueryMsg::Money {
            holder: holder.to_owned(),
            start_after: None,
            sessions_after: None,
            limit: None,
        };
        let money: MoneyResponse = self.ask(&self.contracts.royalty_escrow, &question);
        (money.available.u128(), money.held.u128())
    }

    /// Everything that somebody was ever credited with for a reason.
    pub fn earned(&self, address: &Addr, reason: Reason) -> u128 {
        self.earned_by(address.as_str(), reason)
    }

    /// As `earned`, by any holder.
    pub fn earned_by(&self, holder: &str, reason: Reason) -> u128 {
        let question = escrow::QueryMsg::Earnings {
            holder: holder.to_owned(),
        };
        let earnings: escrow::EarningsResponse = self.ask(&self.contracts.royalty_escrow, &question);
        let credit = earnings.credits.iter().find(|credit| credit.reason == reason);
        credit.map_or(0, |credit| credit.amount.u128())
    }
}
