//! Which messages must go through and which must not, as far as money and roles decide it.

use cosmwasm_std::{from_json, Uint128};
use cw20::Cw20ExecuteMsg as Token;
use schema::{escrow, orchestrator, registry, staking};

use super::{codes::Word, model_holder, Oracle, Role};
use crate::laws::acts::{Act, Msg};

/// As many amounts may be unbonding at a time.
const UNBONDING_MAX: usize = 7;

impl Oracle {
    /// None: it depends on more than the oracle knows. `free` is what its sender may unbond.
    pub(crate) fn forecast(&self, act: &Act, free: u128, now: u64) -> Option<bool> {
        match &act.msg {
            Msg::Token(msg) => self.of_token(act, msg),
            Msg::Registry(msg) => self.of_registry(act, msg, now),
            Msg::Staking(msg) => self.of_staking(act, msg, free, now),
            Msg::Escrow(msg) => self.of_escrow(act, msg, now),
            Msg::Orchestrator(msg) => self.of_orchestrator(act, msg, now),
        }
    }

    /// Only its holder may use a role; whether he uses it well is another question.
    fn role(role: Option<&Role>, act: &Act) -> Option<bool> {
        match role {
            Some((holder, _)) if *holder == act.sender => None,
            _ => Some(false),
        }
    }

    fn offered(role: Option<&Role>, act: &Act) -> Option<bool> {
        Some(role.is_some_and(|(_, heir)| heir.as_ref() == Some(&act.sender)))
    }

    fn of_token(&self, act: &Act, msg: &Token) -> Option<bool> {
        let is_func = act.to == self.contracts.func_token;
        let has = |amount: Uint128| self.wallet(&act.sender) >= amount.u128();
        match msg {
            Token::Send { .. } | Token::SendFrom { .. } if !is_func => Some(false),
            _ if !is_func => None,
            Token::Transfer { amount, .. } | Token::Burn { amount } => Some(has(*amount)),
            Token::Send { contract, amount, msg } => {
                let refused = !has(*amount) || amount.is_zero() && self.contracts.model_registry.as_str() != contract;
                if self.contracts.royalty_escrow.as_str() == contract {
                    let deposit = from_json(msg).ok();
                    let own = matches!(deposit, Some(escrow::ReceiveMsg::Deposit { beneficiary: None }));
                    return if own { Some(!refused) } else { refused.then_some(false) };
                }
                if self.contracts.model_registry.as_str() == contract {
                    let claim = from_json(msg).ok();
                    let fee = self.params.registry.namespace_fee;
                    return Some(claim.is_some_and(|registry::ReceiveMsg::ClaimNamespace { namespace }| {
                        has(*amount) && *amount == fee && !self.namespaces.contains_key(&namespace)
                    }));
                }
                let bond = matches!(from_json(msg), Ok(staking::ReceiveMsg::Bond {}));
                let registered = self.stakes.contains_key(act.sender.as_str());
                if self.contracts.provider_staking.as_str() == contract && bond {
                    return Some(!refused && registered);
                }
                let exact = *amount == self.params.staking.listing_fee;
                (!has(*amount) || !exact).then_some(false)
            }
            Token::TransferFrom { .. }
            | Token::SendFrom { .. }
            | Token::BurnFrom { .. }
            | Token::IncreaseAllowance { .. }
            | Token::DecreaseAllowance { .. } => None,
            Token::Mint { .. } | Token::UpdateMinter { .. } | Token::UpdateMarketing { .. } | Token::UploadLogo(_) => {
                Some(false)
            }
        }
    }

    fn of_registry(&self, act: &Act, msg: &registry::ExecuteMsg, now: u64) -> Option<bool> {
        use registry::ExecuteMsg as Registry;
        let contract = &self.contracts.model_registry;
        let admin = self.admins.get(contract);
        let code = |word: Word<'_>| Some(self.codes.forecast(act, contract, admin, &word, now));
        match msg {
            Registry::PublishModel { model, .. } => match self.namespaces.get(&model.namespace()) {
                Some(owner) if *owner == act.sender => None,
                _ => Some(false),
            },
            Registry::UpdateMetadata { model, .. }
            | Registry::PublishVersion { model, .. }
            | Registry::RetireVersion { model, .. }
            | Registry::SetEndpoint { model, .. }
            | Registry::SetPayout { model, .. }
            | Registry::SetStatus { model, .. }
            | Registry::ProposeOwner { model, .. } => Self::role(self.owners.get(model), act),
            Registry::AcceptOwner { model } => Self::offered(self.owners.get(model), act),
            Registry::UpdateParams { .. } | Registry::ProposeAdmin { .. } => Self::role(admin, act),
            Registry::AcceptAdmin {} => Self::offered(admin, act),
            Registry::ProposeMigration { code_id, msg } => code(Word::Propose(*code_id, msg)),
            Registry::CancelMigration {} => code(Word::Cancel),
            Registry::ExecuteMigration {} => code(Word::Execute),
            Registry::Wire { .. } | Registry::Receive(_) | Registry::Record { .. } => Some(false),
        }
    }

    fn of_staking(&self, act: &Act, msg: &staking::ExecuteMsg, free: u128, now: u64) -> Option<bool> {
        use staking::ExecuteMsg as Staking;
        let contract = &self.contracts.provider_staking;
        let admin = self.admins.get(contract);
        let code = |word: Word<'_>| Some(self.codes.forecast(act, contract, admin, &word, now));
        let stake = self.stakes.get(act.sender.as_str());
        let own = |deployment: &u64| {
            let listed = self.deployments.get(deployment);
            listed.is_some_and(|listed| listed.owner == act.sender.as_str() && !listed.removed)
        };
        match msg {
            Staking::Unbond { amount } => Some(stake.is_some_and(|stake| {
                !amount.is_zero() && amount.u128() <= free && stake.unbonding.len() < UNBONDING_MAX
            })),
            Staking::Withdraw {} => Some(stake.is_some_and(|stake| stake.unbonding.iter().any(|entry| entry.1 <= now))),
            Staking::RegisterProvider { .. } => stake.is_some().then_some(false),
            Staking::UpdateProvider { .. } => stake.is_none().then_some(false),
            Staking::Drain { deployment } | Staking::Remove { deployment } => (!own(deployment)).then_some(false),
            Staking::Unjail { provider } => {
                // Nobody has an operator in the stories.
                let over = self.jailed_until(provider).is_some_and(|until| now >= until);
                Some(over && act.sender.as_str() == provider)
            }
            Staking::UpdateParams { .. } | Staking::ProposeAdmin { .. } => Self::role(admin, act),
            Staking::AcceptAdmin {} => Self::offered(admin, act),
            Staking::ProposeMigration { code_id, msg } => code(Word::Propose(*code_id, msg)),
            Staking::CancelMigration {} => code(Word::Cancel),
            Staking::ExecuteMigration {} => code(Word::Execute),
            Staking::Wire { .. }
            | Staking::Receive(_)
            | Staking::Occupy { .. }
            | Staking::Vacate { .. }
            | Staking::RecordSettled { .. }
            | Staking::Reserve { .. }
            | Staking::Free { .. } => Some(false),
        }
    }

    fn of_escrow(&self, act: &Act, msg: &escrow::ExecuteMsg, now: u64) -> Option<bool> {
        use escrow::ExecuteMsg as Escrow;
        let admin = self.admins.get(&self.contracts.royalty_escrow);
        match msg {
            Escrow::Withdraw { amount } => {
                let available = self.available(act.sender.as_str());
                let amount = amount.map_or(available, |amount| amount.u128());
                Some(amount > 0 && amount <= available)
            }
            Escrow::ReleaseExpired { job } => Some(self.holds.get(job).is_some_and(|hold| now > hold.expires_at)),
            Escrow::DistributeRoyalties { model } => {
                let accrued = self.available(&model_holder(model)) > 0;
                Some(accrued && self.rules.contains_key(model))
            }
            Escrow::OpenSession { session } => {
                let named = session.allocations.iter().map(|new| new.amount.u128());
                let amount = named.fold(0, u128::saturating_add);
                let latest = now + self.params.escrow.session_seconds_max;
                let dated = session.expires_at > now && session.expires_at <= latest;
                (amount > self.available(act.sender.as_str()) || !dated).then_some(false)
            }
            Escrow::TopUp { session, .. } => {
                let known = self.sessions.get(session);
                let own = known.is_some_and(|known| known.owner == act.sender.as_str() && now < known.expires_at);
                (!own).then_some(false)
            }
            Escrow::SettleVouchers { vouchers } => Some((1..=schema::BATCH_MAX).contains(&vouchers.len())),
            Escrow::CloseSession { session, consents } => {
                Some(self.closes(act.sender.as_str(), *session, consents, now))
            }
            Escrow::LeaveSession { session, deployment } => {
                Some(self.leaves(act.sender.as_str(), *session, *deployment, now))
            }
            Escrow::FinaliseSession { session } => Some(!self.due(*session, now).is_empty()),
            Escrow::ForceRequest { session, .. } => {
                (!self.may_force(act.sender.as_str(), *session, now)).then_some(false)
            }
            Escrow::UpdateParams { .. } | Escrow::ProposeAdmin { .. } => Self::role(admin, act),
            Escrow::AcceptAdmin {} => Self::offered(admin, act),
            Escrow::Wire { .. }
            | Escrow::Receive(_)
            | Escrow::Hold { .. }
            | Escrow::Settle { .. }
            | Escrow::Release { .. }
            | Escrow::HoldForced { .. }
            | Escrow::EndForced { .. }
            | Escrow::DistributeUnder { .. } => Some(false),
        }
    }

    fn of_orchestrator(&self, act: &Act, msg: &orchestrator::ExecuteMsg, now: u64) -> Option<bool> {
        use orchestrator::ExecuteMsg as Orchestrator;
        let contract = &self.contracts.job_orchestrator;
        let admin = self.admins.get(contract);
        let code = |word: Word<'_>| Some(self.codes.forecast(act, contract, admin, &word, now));
        match msg {
            Orchestrator::SubmitJob { job } => {
                let items = (job.shards.len() as u128 * u128::from(job.replicas)).max(1);
                let held = job.max_price.u128() / items * items;
                (held > self.available(act.sender.as_str())).then_some(false)
            }
            // `hosts.rs` knows what these depend on.
            Orchestrator::SubmitAttestations { .. }
            | Orchestrator::PostEvidence { .. }
            | Orchestrator::Expire { .. } => None,
            Orchestrator::Prune { jobs } => Some((1..=schema::BATCH_MAX).contains(&jobs.len())),
            Orchestrator::OpenForced { .. } => Some(false),
            Orchestrator::UpdateParams { .. } | Orchestrator::ProposeAdmin { .. } => Self::role(admin, act),
            Orchestrator::AcceptAdmin {} => Self::offered(admin, act),
            Orchestrator::ProposeMigration { code_id, msg } => code(Word::Propose(*code_id, msg)),
            Orchestrator::CancelMigration {} => code(Word::Cancel),
            Orchestrator::ExecuteMigration {} => code(Word::Execute),
        }
    }
}
