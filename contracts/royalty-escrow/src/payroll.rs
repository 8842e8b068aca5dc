//! What many vouchers pay, gathered: everybody is credited once a message and reason, however many vouchers there are.
//!
//! That is what makes 32 vouchers cost little more than one, and it keeps the dust of a royalty together: a division among recipients
//! rounds once for all vouchers of a model.

use std::collections::BTreeMap;

use cosmwasm_std::{Addr, Uint128};
use schema::{
    escrow::{Holder, Reason},
    registry::{PayoutResponse, Usage},
    staking::SettledWork,
    ModelId,
};

use crate::{
    distribution::distribute,
    ledger::{About, Ledger},
    session::{Allocation, Session},
    settlement::aggregate,
    split::Payment,
    ContractError,
};

/// What is to be done about it elsewhere.
pub(crate) struct Paid {
    /// Has left the ledger and is to be burnt.
    pub(crate) burnt: Uint128,
    /// For the registry.
    pub(crate) usages: Vec<Usage>,
    /// For staking: what counts against bonds.
    pub(crate) settled: Vec<SettledWork>,
}

#[derive(Debug, Default)]
pub(crate) struct Payroll {
    owners: BTreeMap<Addr, Uint128>,
    providers: BTreeMap<(Addr, u64, ModelId), Uint128>,
    gateways: BTreeMap<(String, ModelId), Uint128>,
    royalties: BTreeMap<ModelId, Uint128>,
    /// Whole prices by deployment.
    settled: BTreeMap<u64, Uint128>,
    protocol: Uint128,
    burnt: Uint128,
    usages: Vec<Usage>,
}

fn add<K: Ord>(sums: &mut BTreeMap<K, Uint128>, key: K, amount: Uint128) -> Result<(), ContractError> {
    let sum = sums.entry(key).or_default();
    *sum = sum.checked_add(amount)?;
    Ok(())
}

impl Payroll {
    /// Notes what one voucher pays.
    pub(crate) fn add(
        &mut self,
        session: &Session,
        allocation: &Allocation,
        payment: &Payment,
    ) -> Result<(), ContractError> {
        if payment.amount.is_zero() {
            return Ok(());
        }
        let model = || session.terms.model.clone();
        add(&mut self.owners, session.owner.clone(), payment.amount)?;
        add(&mut self.settled, allocation.deployment(), payment.amount)?;
        let provider = (allocation.pins.provider.clone(), allocation.deployment(), model());
        add(&mut self.providers, provider, payment.provider)?;
        if let Some(gateway) = &session.terms.gateway {
            add(&mut self.gateways, (gateway.address.clone(), model()), payment.gateway)?;
        }
        add(&mut self.royalties, model(), payment.royalty)?;
        self.protocol = self.protocol.checked_add(payment.protocol)?;
        self.burnt = self.burnt.checked_add(payment.burn)?;
        self.usages.push(Usage {
            model: model(),
            units: payment.counted,
            paid: payment.amount,
            sunk: payment.protocol.checked_add(payment.burn)?,
        });
        Ok(())
    }

    /// Pays everybody.
    pub(crate) fn pay(
        self,
        ledger: &mut Ledger<'_>,
        treasury: &Addr,
        rule_of: impl Fn(&ModelId) -> Result<PayoutResponse, ContractError>,
    ) -> Result<Paid, ContractError> {
        for (owner, amount) in &self.owners {
            ledger.spend_held(owner.as_str(), *amount)?;
        }
        for ((provider, deployment, model), part) in self.providers {
            let about = About {
                item: None,
                deployment: Some(deployment),
                model: Some(model),
            };
            ledger.credit(Holder::Address(provider.into_string()), Reason::Compute, part, about)?;
        }
        let treasury = Holder::Address(treasury.to_string());
        ledger.credit(treasury, Reason::Protocol, self.protocol, About::default())?;
        for ((gateway, model), part) in self.gateways {
            let about = About {
                model: Some(model),
                ..About::default()
            };
            ledger.credit(Holder::Address(gateway), Reason::Gateway, part, about)?;
        }
        for (model, part) in self.royalties {
            if !part.is_zero() {
                distribute(ledger, &model, part, &rule_of(&model)?, None)?;
            }
        }
        let settled = self.settled.into_iter();
        Ok(Paid {
            burnt: self.burnt,
            usages: aggregate(self.usages)?,
            settled: settled
                .map(|(deployment, price)| SettledWork { deployment, price })
                .collect(),
        })
    }
}
