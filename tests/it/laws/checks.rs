//! A picture of all money and all slots, and what has to hold for it.

use std::collections::BTreeMap;

use cosmwasm_std::{Addr, Uint128};
use cw20::Cw20ExecuteMsg;
use fxn_tests::{Books, Protocol};
use schema::{
    escrow::{self, HoldResponse},
    registry,
    staking::{self, DeploymentResponse, DeploymentsResponse, ProviderResponse, ProvidersResponse},
};

use super::{
    acts::{Act, Msg},
    oracle::{Held, Stake},
    world::{World, PEOPLE},
};

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Picture {
    books: Books,
    totals: (u128, u128),
    bonded: (u128, u128),
    supply: u128,
    wallets: BTreeMap<Addr, u128>,
    contracts: [Addr; 5],
    providers: Vec<ProviderResponse>,
    deployments: Vec<DeploymentResponse>,
}

/// Pages of a list, as long as they are full.
fn pages<T>(mut next: impl FnMut(Option<&T>) -> Vec<T>) -> Vec<T> {
    let mut all: Vec<T> = vec![];
    loop {
        let page = next(all.last());
        let is_last = page.len() < 30;
        all.extend(page);
        if is_last {
            return all;
        }
    }
}

impl Picture {
    pub(crate) fn of(protocol: &Protocol) -> Self {
        let (escrow, staking) = (&protocol.contracts.royalty_escrow, &protocol.contracts.provider_staking);
        let totals: escrow::TotalsResponse = protocol.ask(escrow, &escrow::QueryMsg::Totals {});
        let bonded: staking::TotalsResponse = protocol.ask(staking, &staking::QueryMsg::Totals {});
        let contracts = protocol.contracts.all();
        let people = PEOPLE.into_iter().map(|name| protocol.addr(name));
        let accounts = people.chain(contracts.clone());
        Self {
            books: protocol.books(),
            totals: (totals.available.u128(), totals.held.u128()),
            bonded: (bonded.bonded.u128(), bonded.unbonding.u128()),
            supply: protocol.supply(),
            wallets: accounts
                .map(|account| (account.clone(), protocol.balance(&account)))
                .collect(),
            contracts,
            providers: pages(|last: Option<&ProviderResponse>| {
                let question = staking::QueryMsg::Providers {
                    start_after: last.map(|last| last.provider.clone()),
                    limit: Some(30),
                };
                protocol.ask::<ProvidersResponse>(staking, &question).providers
            }),
            deployments: pages(|last: Option<&DeploymentResponse>| {
                let question = staking::QueryMsg::Deployments {
                    provider: None,
                    start_after: last.map(|last| last.deployment),
                    limit: Some(30),
                };
                protocol.ask::<DeploymentsResponse>(staking, &question).deployments
            }),
        }
    }

    /// Without what changes by itself when time passes.
    pub(crate) fn timeless(&self) -> Self {
        let mut picture = self.clone();
        for provider in &mut picture.providers {
            let none = Uint128::zero();
            (provider.settled, provider.reserve, provider.free) = (none, none, none);
            provider.strikes.clear();
        }
        for deployment in &mut picture.deployments {
            deployment.link_faults = 0;
        }
        picture
    }

    pub(crate) fn assert_laws(&self, world: &World) {
        self.assert_sums(world);
        self.assert_balances(world);
        self.assert_holds(world);
        self.assert_sessions(world);
        self.assert_exposure(world);
    }

    /// Statement 1.
    fn assert_sums(&self, world: &World) {
        let contracts = &world.oracle.contracts;
        let (available, held) = self.books.totals();
        assert_eq!(self.totals, (available, held), "statement 1: the escrow's totals");
        assert_eq!(
            self.wallets[&contracts.royalty_escrow],
            available + held,
            "statement 1: the escrow has what its ledger says"
        );
        let unbonding = self.providers.iter().flat_map(|provider| &provider.unbonding);
        let sums = (
            self.providers.iter().map(|provider| provider.bond.u128()).sum::<u128>(),
            unbonding.map(|entry| entry.amount.u128()).sum::<u128>(),
        );
        assert_eq!(self.bonded, sums, "statement 1: staking's totals");
        // Whoever transfers to a contract without a message has lost it: what the ledgers say must be there, and no less.
        assert!(
            self.wallets[&contracts.provider_staking] >= sums.0 + sums.1,
            "statement 1: staking has its bonds"
        );
    }

    /// Every balance is the one that the oracle has worked out.
    fn assert_balances(&self, world: &World) {
        let oracle = &world.oracle;
        assert_eq!(self.supply, oracle.supply, "statement 1: the supply");
        for (account, balance) in &self.wallets {
            assert_eq!(*balance, oracle.wallet(account), "statement 6: FUNC of {account}");
        }
        let mut held: BTreeMap<&str, u128> = BTreeMap::new();
        for hold in oracle.holds.values() {
            *held.entry(&hold.account).or_default() += hold.amount;
        }
        for session in oracle.sessions.values() {
            *held.entry(&session.owner).or_default() += session.held();
        }
        for (holder, entry) in &self.books.0 {
            let expected = (
                oracle.available(holder),
                held.get(holder.as_str()).copied().unwrap_or_default(),
            );
            assert_eq!(*entry, expected, "statement 6: available and held money of {holder}");
        }
        for (holder, available) in &oracle.available {
            assert!(
                *available == 0 || self.books.0.contains_key(holder),
                "statement 6: {holder} was forgotten"
            );
        }
        assert_eq!(self.providers.len(), oracle.stakes.len());
        for provider in &self.providers {
            let found = Stake {
                bond: provider.bond.u128(),
                unbonding: provider
                    .unbonding
                    .iter()
                    .map(|entry| (entry.amount.u128(), entry.release_at))
                    .collect(),
            };
            assert_eq!(found, oracle.stakes[&provider.provider], "statement 7: a stake");
            let committed = oracle.committed(&provider.provider);
            assert_eq!(provider.committed.u128(), committed, "statement 7: committed bond");
        }
    }

    /// Statements 2, 3 and 4: every hold is there with its money and with the date that it began with.
    fn assert_holds(&self, world: &World) {
        let escrow = &world.oracle.contracts.royalty_escrow;
        for (job, expected) in &world.oracle.holds {
            let question = escrow::QueryMsg::Hold { job: *job };
            let hold: HoldResponse = world.protocol.ask(escrow, &question);
            let found = Held {
                account: hold.account,
                amount: hold.amount.u128(),
                expires_at: hold.expires_at,
            };
            assert_eq!(found, *expected, "statement 2: the hold of job {job}");
        }
    }

    /// Statements 2, 3 and 4 for sessions: what `Session` says of money and dates is what was agreed, and what is over is forgotten.
    fn assert_sessions(&self, world: &World) {
        let escrow = &world.oracle.contracts.royalty_escrow;
        for (number, expected) in &world.oracle.sessions {
            let question = escrow::QueryMsg::Session { session: *number };
            let found = world
                .protocol
                .try_ask::<escrow::SessionResponse>(escrow, &question)
                .ok();
            let is_open = expected.open().count() > 0;
            assert_eq!(
                found.is_some(),
                is_open,
                "session {number} is known as long as it is open"
            );
            let Some(found) = found else { continue };
            assert_eq!(
                found.expires_at, expected.expires_at,
                "statement 2: a date of session {number}"
            );
            assert_eq!(found.allocations.len(), expected.parts.len());
            for (found, (deployment, part)) in found.allocations.iter().zip(&expected.parts) {
                let is_closed = found.state == escrow::AllocationState::Closed;
                let told = (
                    found.amount.u128(),
                    found.paid.u128(),
                    found.reservation.u128(),
                    found.sequence,
                );
                let agreed = (part.amount, part.paid.total(), part.reservation, part.sequence);
                assert_eq!((found.deployment, is_closed), (*deployment, part.closed));
                let count = (found.units.requests, found.units.units_in, found.units.units_out);
                let last = (part.count.rows, part.count.units_in, part.count.units_out);
                assert_eq!(count, last, "statement 4: the counters are those of the best voucher");
                assert_eq!(told, agreed, "statement 4: deployment {deployment} in session {number}");
                if !is_closed {
                    let date = expected.date(part);
                    assert_eq!(found.releasable_at, date, "statement 3: a date of session {number}");
                }
            }
        }
    }

    /// Statement 7: slots hold what is at work and no more, each item costs at most the bond of its slot, and busy slots are backed.
    fn assert_exposure(&self, world: &World) {
        let mut busy: BTreeMap<u64, u16> = BTreeMap::new();
        for (item, live) in &world.hosts.live {
            let price = world.oracle.price_max(*item);
            for span in &live.spans {
                // A forced request has the slots of its session.
                let own = world.oracle.jobs[&item.job].session.is_none();
                *busy.entry(span.deployment).or_default() += u16::from(own);
                let slot_bond = world.oracle.deployments[&span.deployment].slot_bond;
                assert!(
                    price <= slot_bond,
                    "statement 7: {item} costs {price}, its slot is backed with {slot_bond}"
                );
            }
        }
        for session in world.oracle.sessions.values() {
            for (deployment, _) in session.open().filter(|(_, part)| part.missed.is_none()) {
                *busy.entry(*deployment).or_default() += 1;
            }
        }
        let mut backing: BTreeMap<&str, u128> = BTreeMap::new();
        for deployment in &self.deployments {
            let at_work = busy.remove(&deployment.deployment).unwrap_or_default();
            assert_eq!(
                deployment.busy, at_work,
                "statement 7: busy slots of deployment {}",
                deployment.deployment
            );
            assert!(deployment.busy <= deployment.terms.slots);
            *backing.entry(&deployment.provider).or_default() +=
                deployment.slot_bond.u128() * u128::from(deployment.busy);
        }
        busy.retain(|_, slots| *slots > 0);
        assert!(
            busy.is_empty(),
            "statement 7: work on deployments that are gone: {busy:?}"
        );
        for provider in &self.providers {
            let backing = backing.get(provider.provider.as_str()).copied().unwrap_or_default();
            assert!(
                backing <= provider.bond.u128(),
                "statement 7: {} exposes {backing} with {} of bond",
                provider.provider,
                provider.bond
            );
            let (oracle, now) = (&world.oracle, world.clock().0);
            let owner = provider.provider.as_str();
            assert_eq!(
                provider.backing.u128(),
                backing,
                "statement 7: open exposure of {owner}"
            );
            assert_eq!(
                (provider.settled.u128(), provider.reserve.u128(), provider.free.u128()),
                (
                    oracle.settled(owner, now),
                    oracle.reserve(owner, now),
                    world.free_bond(owner)
                ),
                "statement 7: settled work, reserve and free bond of {owner}"
            );
            assert_eq!(
                (&provider.strikes, provider.jailed_until),
                (&oracle.strikes(owner, now), oracle.jailed_until(owner)),
                "statement 10: {owner} is struck for its misses and nothing else"
            );
        }
    }

    /// Statement 7: a slot is taken only by who is not jailed and has room for it.
    pub(crate) fn assert_there_was_room(&self, after: &Self) {
        for (before, after) in self.providers.iter().zip(&after.providers) {
            if before.provider != after.provider || after.backing <= before.backing {
                continue;
            }
            let exposure = after.backing + after.settled + after.reserve;
            assert!(
                exposure <= after.bond,
                "statement 7: {} took work without headroom: {after:?}",
                after.provider
            );
            assert_eq!(
                after.jailed_until, None,
                "statement 7: {} took work in jail",
                after.provider
            );
        }
    }

    /// Statement 2: only what somebody does himself lowers what he has available.
    pub(crate) fn assert_nobody_lost(&self, after: &Self, act: &Act) {
        let own = |holder: &str| match &act.msg {
            Msg::Escrow(
                escrow::ExecuteMsg::Withdraw { .. }
                | escrow::ExecuteMsg::OpenSession { .. }
                | escrow::ExecuteMsg::TopUp { .. }
                | escrow::ExecuteMsg::ForceRequest { .. },
            )
            | Msg::Orchestrator(_) => act.sender.as_str() == holder,
            Msg::Escrow(escrow::ExecuteMsg::DistributeRoyalties { model })
            | Msg::Registry(registry::ExecuteMsg::SetPayout { model, .. }) => holder == format!("model:{model}"),
            _ => false,
        };
        for (holder, (before, _)) in &self.books.0 {
            let (left, _) = after.books.0.get(holder).expect("holders are never forgotten");
            assert!(left >= before || own(holder), "statement 2: {act:?} took from {holder}");
        }
        let spent = matches!(
            &act.msg,
            Msg::Token(
                Cw20ExecuteMsg::TransferFrom { .. } | Cw20ExecuteMsg::SendFrom { .. } | Cw20ExecuteMsg::BurnFrom { .. }
            )
        );
        for (account, before) in self
            .wallets
            .iter()
            .filter(|(account, _)| !self.contracts.contains(*account))
        {
            let left = after.wallets[account];
            assert!(
                left >= *before || *account == act.sender || spent,
                "statement 2: {act:?} took from {account}"
            );
        }
    }

    /// What is left in a contract.
    pub(crate) fn wallet(&self, account: &Addr) -> u128 {
        self.wallets[account]
    }

    pub(crate) fn available(&self) -> impl Iterator<Item = (&str, u128)> {
        self.books
            .0
            .iter()
            .map(|(holder, (available, _))| (holder.as_str(), *available))
    }
}
