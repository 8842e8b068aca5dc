//! What everybody must have after a message, worked out from the message and from what was agreed before, by the protocol's document.
//!
//! The oracle asks the contracts for nothing. It knows prices, rules, bonds and dates because it has seen the messages that set them,
//! and believes of the events only which work was proven and who was blamed (`hosts.rs` judges that). Every message of every contract
//! stands in a match without a wildcard: one that is added later has to be thought about here.

use std::collections::BTreeMap;

use cosmwasm_std::{from_json, Addr};
use cw20::Cw20ExecuteMsg as Token;
use fxn_tests::{Contracts, Protocol};
use schema::{
    escrow::{self, ReceiveMsg as Deposit},
    orchestrator,
    params::Params,
    price::RoyaltyRate,
    registry::{self, Parent, Share},
    staking::{self, DeploymentTerms, ReceiveMsg as Bond},
    Event, ItemId, ModelId, Namespace, PublicKey,
};

use super::{
    acts::{Act, Msg},
    price::{self, Count, Terms},
};

pub(crate) mod codes;
mod conduct;
mod forced;
mod forecast;
mod sessions;
mod work;

use codes::{Codes, Word};
use conduct::Conduct;
pub(crate) use sessions::{Allotted, Opened};

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) account: String,
    pub(crate) amount: u128,
    pub(crate) expires_at: u64,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Stake {
    pub(crate) bond: u128,
    /// Amount and date, oldest first.
    pub(crate) unbonding: Vec<(u128, u64)>,
}

#[derive(Debug, Clone)]
pub(crate) struct Listed {
    pub(crate) owner: String,
    pub(crate) terms: DeploymentTerms,
    pub(crate) slot_bond: u128,
    pub(crate) miss_min: u128,
    pub(crate) reserve: u128,
    pub(crate) removed: bool,
}

/// What a job was opened with.
#[derive(Debug, Clone)]
pub(crate) struct Ordered {
    pub(crate) developer: String,
    pub(crate) model: ModelId,
    pub(crate) version: u32,
    pub(crate) terms: Terms,
    pub(crate) gateway: Option<String>,
    /// By shard.
    pub(crate) rows: Vec<u64>,
    /// Shards x replicas.
    pub(crate) items: usize,
    pub(crate) units_max: u64,
    pub(crate) units_out_max: u64,
    pub(crate) held: u128,
    pub(crate) paid: u128,
    pub(crate) grace_seconds: u64,
    pub(crate) prune_after_seconds: u64,
    /// Of a penalty, to whoever expires.
    pub(crate) keeper_bps: u16,
    pub(crate) ended_at: Option<u64>,
    pub(crate) pruned: bool,
    /// Whose owner has forced it.
    pub(crate) session: Option<u64>,
}

#[derive(Debug, Clone)]
pub(crate) struct Rule {
    pub(crate) payout: Vec<Share>,
    pub(crate) parents: Vec<Parent>,
}

/// A role and to whom it was offered.
pub(crate) type Role = (Addr, Option<Addr>);

#[derive(Debug)]
pub(crate) struct Oracle {
    pub(crate) contracts: Contracts,
    pub(crate) treasury: String,
    pub(crate) params: Params,
    pub(crate) supply: u128,
    /// FUNC outside the ledgers, contracts included.
    pub(crate) wallets: BTreeMap<Addr, u128>,
    pub(crate) allowances: BTreeMap<(Addr, Addr), u128>,
    pub(crate) available: BTreeMap<String, u128>,
    pub(crate) holds: BTreeMap<u64, Held>,
    pub(crate) stakes: BTreeMap<String, Stake>,
    /// By owner: what is behind the bond's limits.
    pub(crate) conduct: BTreeMap<String, Conduct>,
    pub(crate) deployments: BTreeMap<u64, Listed>,
    pub(crate) namespaces: BTreeMap<Namespace, Addr>,
    pub(crate) owners: BTreeMap<ModelId, Role>,
    pub(crate) admins: BTreeMap<Addr, Role>,
    pub(crate) rules: BTreeMap<ModelId, Rule>,
    pub(crate) generates: BTreeMap<ModelId, bool>,
    pub(crate) royalties: BTreeMap<(ModelId, String), RoyaltyRate>,
    pub(crate) shares: BTreeMap<(ModelId, u32), Vec<u16>>,
    pub(crate) jobs: BTreeMap<u64, Ordered>,
    /// Deployments of the current attempt.
    pub(crate) chains: BTreeMap<ItemId, Vec<u64>>,
    pub(crate) counted: BTreeMap<ItemId, Count>,
    pub(crate) codes: Codes,
    pub(crate) chain_id: String,
    /// By owner: what is registered now.
    pub(crate) host_keys: BTreeMap<String, PublicKey>,
    /// Those that are over too.
    pub(crate) sessions: BTreeMap<u64, Opened>,
}

pub(crate) fn model_holder(model: &ModelId) -> String {
    format!("model:{model}")
}

impl Oracle {
    /// Of a network on which nothing but wiring has happened.
    pub(crate) fn of(protocol: &Protocol) -> Self {
        let contracts = protocol.contracts.clone();
        let admin = protocol.addr("admin");
        let governed = [
            &contracts.model_registry,
            &contracts.provider_staking,
            &contracts.royalty_escrow,
            &contracts.job_orchestrator,
        ];
        Self {
            admins: governed
                .map(|contract| (contract.clone(), (admin.clone(), None)))
                .into(),
            contracts,
            treasury: protocol.addr("treasury").into_string(),
            params: protocol.params.clone(),
            supply: schema::TOTAL_SUPPLY,
            wallets: [(protocol.addr("faucet"), schema::TOTAL_SUPPLY)].into(),
            allowances: BTreeMap::new(),
            available: BTreeMap::new(),
            holds: BTreeMap::new(),
            stakes: BTreeMap::new(),
            conduct: BTreeMap::new(),
            deployments: BTreeMap::new(),
            namespaces: BTreeMap::new(),
            owners: BTreeMap::new(),
            rules: BTreeMap::new(),
            generates: BTreeMap::new(),
            royalties: BTreeMap::new(),
            shares: BTreeMap::new(),
            jobs: BTreeMap::new(),
            chains: BTreeMap::new(),
            counted: BTreeMap::new(),
            codes: Codes::of(protocol),
            chain_id: protocol.escrow_domain().chain_id,
            host_keys: BTreeMap::new(),
            sessions: BTreeMap::new(),
        }
    }

    pub(crate) fn wallet(&self, account: &Addr) -> u128 {
        self.wallets.get(account).copied().unwrap_or_default()
    }

    pub(crate) fn available(&self, holder: &str) -> u128 {
        self.available.get(holder).copied().unwrap_or_default()
    }

    /// Bond that neither a slot of a deployment nor exposure needs. `backing` is behind busy slots.
    pub(crate) fn free_bond(&self, owner: &str, backing: u128, now: u64) -> u128 {
        let bond = self.stakes.get(owner).map_or(0, |stake| stake.bond);
        let needed = self.committed(owner).max(backing + self.settled(owner, now));
        bond.saturating_sub(needed + self.reserve(owner, now))
    }

    pub(crate) fn committed(&self, owner: &str) -> u128 {
        let own = self
            .deployments
            .values()
            .filter(|listed| listed.owner == owner && !listed.removed);
        own.map(|listed| listed.slot_bond * u128::from(listed.terms.slots))
            .sum()
    }

    /// Follows a message that went through.
    pub(crate) fn follow(&mut self, act: &Act, events: &[Event], now: u64) {
        match &act.msg {
            Msg::Token(_) if act.to != self.contracts.func_token => {}
            Msg::Token(msg) => self.token(&act.sender, msg, events, now),
            Msg::Registry(msg) => self.registry(&act.sender, msg, events, now),
            Msg::Staking(msg) => self.staking(act.sender.as_str(), msg, now),
            Msg::Escrow(msg) => self.escrow(act.sender.as_str(), msg, events, now),
            Msg::Orchestrator(msg) => self.orchestrator(&act.sender, msg, events, now),
        }
    }

    fn move_money(&mut self, from: &Addr, to: &Addr, amount: u128) {
        let left = self.wallet(from).checked_sub(amount);
        let left = left.expect("statement 2: nobody spends more than he has");
        self.wallets.insert(from.clone(), left);
        let reached = self.wallet(to) + amount;
        self.wallets.insert(to.clone(), reached);
    }

    fn burn(&mut self, from: &Addr, amount: u128) {
        let left = self.wallet(from).checked_sub(amount);
        self.wallets
            .insert(from.clone(), left.expect("statement 2: nobody burns more than he has"));
        self.supply -= amount;
    }

    fn spend_allowance(&mut self, owner: &str, spender: &Addr, amount: u128) -> Addr {
        let owner = Addr::unchecked(owner);
        let key = (owner.clone(), spender.clone());
        let allowed = self.allowances.get(&key).copied().unwrap_or_default();
        let left = allowed.checked_sub(amount);
        self.allowances
            .insert(key, left.expect("statement 2: nobody spends more than he was allowed"));
        owner
    }

    fn token(&mut self, sender: &Addr, msg: &Token, events: &[Event], now: u64) {
        match msg {
            Token::Transfer { recipient, amount } => {
                self.move_money(sender, &Addr::unchecked(recipient), amount.u128());
            }
            Token::Burn { amount } => self.burn(sender, amount.u128()),
            Token::Send { contract, amount, msg } => {
                self.move_money(sender, &Addr::unchecked(contract), amount.u128());
                self.received(sender, (contract, amount.u128()), msg, events, now);
            }
            Token::IncreaseAllowance { spender, amount, .. } => {
                let key = (sender.clone(), Addr::unchecked(spender));
                *self.allowances.entry(key).or_default() += amount.u128();
            }
            Token::DecreaseAllowance { spender, amount, .. } => {
                let key = (sender.clone(), Addr::unchecked(spender));
                let allowed = self.allowances.entry(key).or_default();
                *allowed = allowed.saturating_sub(amount.u128());
            }
            Token::TransferFrom {
                owner,
                recipient,
                amount,
            } => {
                let owner = self.spend_allowance(owner, sender, amount.u128());
                self.move_money(&owner, &Addr::unchecked(recipient), amount.u128());
            }
            Token::SendFrom {
                owner,
                contract,
                amount,
                msg,
            } => {
                let owner = self.spend_allowance(owner, sender, amount.u128());
                self.move_money(&owner, &Addr::unchecked(contract), amount.u128());
                self.received(sender, (contract, amount.u128()), msg, events, now);
            }
            Token::BurnFrom { owner, amount } => {
                let owner = self.spend_allowance(owner, sender, amount.u128());
                self.burn(&owner, amount.u128());
            }
            Token::Mint { .. } | Token::UpdateMinter { .. } | Token::UpdateMarketing { .. } | Token::UploadLogo(_) => {
                panic!("statement 1: nobody may {msg:?}")
            }
        }
    }

    /// FUNC came to a contract with a message.
    fn received(&mut self, payer: &Addr, (contract, amount): (&str, u128), msg: &[u8], events: &[Event], now: u64) {
        if self.contracts.royalty_escrow.as_str() == contract {
            let Deposit::Deposit { beneficiary } = from_json(msg).unwrap() else {
                panic!("statement 5: only staking brings penalties");
            };
            let holder = beneficiary.unwrap_or_else(|| payer.to_string());
            *self.available.entry(holder).or_default() += amount;
        } else if self.contracts.provider_staking.as_str() == contract {
            match from_json(msg).unwrap() {
                Bond::Bond {} => self.stakes.get_mut(payer.as_str()).unwrap().bond += amount,
                Bond::Deploy { terms } => {
                    self.burn(&Addr::unchecked(contract), amount);
                    self.list(payer.as_str(), terms, events, now);
                }
            }
        } else {
            assert!(
                self.contracts.model_registry.as_str() == contract,
                "statement 1: {contract} keeps no money"
            );
            let registry::ReceiveMsg::ClaimNamespace { namespace } = from_json(msg).unwrap();
            self.burn(&Addr::unchecked(contract), amount);
            let before = self.namespaces.insert(namespace, payer.clone());
            assert!(before.is_none(), "a namespace changed hands");
        }
    }

    fn list(&mut self, owner: &str, terms: DeploymentTerms, events: &[Event], now: u64) {
        let number = events.iter().find_map(|event| match event {
            Event::DeploymentListed { deployment, .. } => Some(*deployment),
            _ => None,
        });
        let listed = Listed {
            owner: owner.to_owned(),
            terms,
            slot_bond: self.params.staking.bond_per_slot.u128(),
            miss_min: self.params.staking.miss_min.u128(),
            reserve: conduct::reserve(&self.params.staking.conduct, self.params.staking.bond_per_slot.u128()),
            removed: false,
        };
        self.reserve_more(owner, listed.reserve, now);
        self.deployments.insert(number.expect("a listing is announced"), listed);
        let bond = self.stakes[owner].bond;
        assert!(
            self.committed(owner) + self.reserve(owner, now) <= bond,
            "statement 7: slots without bond were listed"
        );
    }

    fn registry(&mut self, sender: &Addr, msg: &registry::ExecuteMsg, events: &[Event], now: u64) {
        use registry::ExecuteMsg as Registry;
        match msg {
            Registry::PublishModel {
                model,
                metadata,
                payout,
                parents,
            } => {
                self.owners.insert(model.clone(), (sender.clone(), None));
                let rule = Rule {
                    payout: payout.clone(),
                    parents: parents.clone(),
                };
                self.rules.insert(model.clone(), rule);
                let generates = metadata.task != registry::Task::Embeddings;
                self.generates.insert(model.clone(), generates);
            }
            Registry::UpdateMetadata { model, metadata } => {
                let generates = metadata.task != registry::Task::Embeddings;
                self.generates.insert(model.clone(), generates);
            }
            Registry::PublishVersion { model, version } => {
                let number = events.iter().find_map(|event| match event {
                    Event::VersionPublished { version, .. } => Some(*version),
                    _ => None,
                });
                let shares = version.stages.iter().map(|stage| stage.compute_share_bps);
                self.shares.insert((model.clone(), number.unwrap()), shares.collect());
            }
            Registry::SetEndpoint { model, endpoint, terms } => {
                self.royalties.insert((model.clone(), endpoint.clone()), terms.royalty);
            }
            Registry::SetPayout { model, payout } => {
                self.distribute_accrued(model);
                self.rules.get_mut(model).unwrap().payout = payout.clone();
            }
            Registry::ProposeOwner { model, owner } => {
                self.owners.get_mut(model).unwrap().1 = owner.as_ref().map(Addr::unchecked);
            }
            Registry::AcceptOwner { model } => {
                self.owners.insert(model.clone(), (sender.clone(), None));
            }
            Registry::RetireVersion { .. } | Registry::SetStatus { .. } => {}
            Registry::UpdateParams { params } => self.params.registry = params.clone(),
            Registry::ProposeAdmin { admin } => {
                let contract = self.contracts.model_registry.clone();
                self.propose_admin(&contract, admin.as_deref());
            }
            Registry::AcceptAdmin {} => {
                let contract = self.contracts.model_registry.clone();
                self.admins.insert(contract, (sender.clone(), None));
            }
            Registry::ProposeMigration { code_id, msg } => {
                self.codes
                    .follow(&self.contracts.model_registry, &Word::Propose(*code_id, msg), now);
            }
            Registry::CancelMigration {} => self.codes.follow(&self.contracts.model_registry, &Word::Cancel, now),
            Registry::ExecuteMigration {} => self.codes.follow(&self.contracts.model_registry, &Word::Execute, now),
            Registry::Wire { .. } | Registry::Receive(_) | Registry::Record { .. } => {
                panic!("statement 5: {sender} passed for a sibling: {msg:?}")
            }
        }
    }

    fn propose_admin(&mut self, contract: &Addr, heir: Option<&str>) {
        self.admins.get_mut(contract).unwrap().1 = heir.map(Addr::unchecked);
    }

    fn staking(&mut self, sender: &str, msg: &staking::ExecuteMsg, now: u64) {
        use staking::ExecuteMsg as Staking;
        let contract = self.contracts.provider_staking.clone();
        match msg {
            Staking::RegisterProvider { profile } => {
                self.stakes.insert(sender.to_owned(), Stake::default());
                self.host_keys.insert(sender.to_owned(), profile.host_key);
            }
            Staking::UpdateProvider { profile } => {
                self.host_keys.insert(sender.to_owned(), profile.host_key);
            }
            Staking::Unbond { amount } => {
                let release_at = now + self.params.staking.unbonding_seconds;
                let stake = self.stakes.get_mut(sender).unwrap();
                stake.bond -= amount.u128();
                stake.unbonding.push((amount.u128(), release_at));
            }
            Staking::Withdraw {} => {
                let stake = self.stakes.get_mut(sender).unwrap();
                let mature = |entry: &&(u128, u64)| entry.1 <= now;
                let amount = stake.unbonding.iter().filter(mature).map(|entry| entry.0).sum();
                stake.unbonding.retain(|entry| entry.1 > now);
                self.move_money(&contract, &Addr::unchecked(sender), amount);
            }
            Staking::Remove { deployment } => {
                self.deployments.get_mut(deployment).unwrap().removed = true;
                self.reserve_less(sender, now);
            }
            Staking::Unjail { provider } => self.unjail(provider),
            Staking::Drain { .. } => {}
            Staking::UpdateParams { params } => self.params.staking = params.clone(),
            Staking::ProposeAdmin { admin } => self.propose_admin(&contract, admin.as_deref()),
            Staking::AcceptAdmin {} => {
                self.admins.insert(contract, (Addr::unchecked(sender), None));
            }
            Staking::ProposeMigration { code_id, msg } => {
                self.codes.follow(&contract, &Word::Propose(*code_id, msg), now);
            }
            Staking::CancelMigration {} => self.codes.follow(&contract, &Word::Cancel, now),
            Staking::ExecuteMigration {} => self.codes.follow(&contract, &Word::Execute, now),
            Staking::Wire { .. }
            | Staking::Receive(_)
            | Staking::Occupy { .. }
            | Staking::Vacate { .. }
            | Staking::RecordSettled { .. }
            | Staking::Reserve { .. }
            | Staking::Free { .. } => {
                panic!("statement 5: {sender} passed for a sibling: {msg:?}")
            }
        }
    }

    fn escrow(&mut self, sender: &str, msg: &escrow::ExecuteMsg, events: &[Event], now: u64) {
        use escrow::ExecuteMsg as Escrow;
        let contract = self.contracts.royalty_escrow.clone();
        match msg {
            Escrow::Withdraw { amount } => {
                let available = self.available.entry(sender.to_owned()).or_default();
                let amount = amount.map_or(*available, |amount| amount.u128());
                *available = available
                    .checked_sub(amount)
                    .expect("statement 2: nobody withdraws more than he has");
                self.move_money(&contract, &Addr::unchecked(sender), amount);
            }
            Escrow::ReleaseExpired { job } => self.release(*job),
            Escrow::DistributeRoyalties { model } => self.distribute_accrued(model),
            Escrow::OpenSession { session } => self.open_session(sender, session, events, now),
            Escrow::TopUp { session, allocations } => self.top_up(*session, allocations, now),
            Escrow::SettleVouchers { vouchers } => self.settle_vouchers(vouchers, events, now),
            Escrow::CloseSession { session, consents } => self.close_session(*session, consents, now),
            Escrow::LeaveSession { session, deployment } => self.close_part(*session, *deployment, now),
            Escrow::FinaliseSession { session } => self.finalise(*session, now),
            Escrow::ForceRequest {
                session,
                deployments,
                rows,
            } => {
                self.force(*session, (deployments, rows.len() as u64), events, now);
                self.work(sender.as_ref(), events, now);
            }
            Escrow::UpdateParams { params } => self.params.escrow = params.clone(),
            Escrow::ProposeAdmin { admin } => self.propose_admin(&contract, admin.as_deref()),
            Escrow::AcceptAdmin {} => {
                self.admins.insert(contract, (Addr::unchecked(sender), None));
            }
            Escrow::Wire { .. }
            | Escrow::Receive(_)
            | Escrow::Hold { .. }
            | Escrow::Settle { .. }
            | Escrow::Release { .. }
            | Escrow::HoldForced { .. }
            | Escrow::EndForced { .. }
            | Escrow::DistributeUnder { .. } => panic!("statement 5: {sender} passed for a sibling: {msg:?}"),
        }
    }

    fn orchestrator(&mut self, sender: &Addr, msg: &orchestrator::ExecuteMsg, events: &[Event], now: u64) {
        use orchestrator::ExecuteMsg as Orchestrator;
        let contract = self.contracts.job_orchestrator.clone();
        match msg {
            Orchestrator::SubmitJob { job } => {
                self.open(sender.as_str(), job, events, now);
                self.work(sender.as_ref(), events, now);
            }
            Orchestrator::SubmitAttestations { .. }
            | Orchestrator::PostEvidence { .. }
            | Orchestrator::Expire { .. } => self.work(sender.as_ref(), events, now),
            Orchestrator::Prune { jobs } => self.prune(jobs, events, now),
            Orchestrator::OpenForced { .. } => panic!("statement 5: {sender} passed for a sibling: {msg:?}"),
            Orchestrator::UpdateParams { params } => self.params.orchestrator = params.clone(),
            Orchestrator::ProposeAdmin { admin } => self.propose_admin(&contract, admin.as_deref()),
            Orchestrator::AcceptAdmin {} => {
                self.admins.insert(contract, (sender.clone(), None));
            }
            Orchestrator::ProposeMigration { code_id, msg } => {
                self.codes.follow(&contract, &Word::Propose(*code_id, msg), now);
            }
            Orchestrator::CancelMigration {} => self.codes.follow(&contract, &Word::Cancel, now),
            Orchestrator::ExecuteMigration {} => self.codes.follow(&contract, &Word::Execute, now),
        }
    }

    fn release(&mut self, job: u64) {
        if let Some(hold) = self.holds.remove(&job) {
            *self.available.entry(hold.account).or_default() += hold.amount;
        }
    }

    /// Passes on what a model has earned as a parent.
    fn distribute_accrued(&mut self, model: &ModelId) {
        let accrued = self.available.insert(model_holder(model), 0).unwrap_or_default();
        self.distribute(model, accrued);
    }

    /// A model's royalty: to each parent its part, the rest to the recipients, dust to the first.
    fn distribute(&mut self, model: &ModelId, amount: u128) {
        let rule = self.rules[model].clone();
        let (parts, rest) = price::divide(amount, rule.parents.iter().map(|parent| parent.bps));
        for (parent, part) in rule.parents.iter().zip(parts) {
            *self.available.entry(model_holder(&parent.model)).or_default() += part;
        }
        let (mut parts, dust) = price::divide(rest, rule.payout.iter().map(|share| share.bps));
        parts[0] += dust;
        for (share, part) in rule.payout.iter().zip(parts) {
            *self.available.entry(share.address.clone()).or_default() += part;
        }
    }
}
