//! The ledger: who has how much, available or held.
//!
//! Guarantees:
//! - The running totals are the sum over all holders after every [`Ledger::close`].
//! - Money appears only by [`Ledger::credit`], which announces it, and leaves only by `withdraw`, `spend`, `spend_held` or
//!   `take_accrued`.
//! - A hold never goes below zero and never pays after it has been released.
//!
//! What the totals say is backed by cw20 messages that the caller sends; the ledger itself moves nothing.

use cosmwasm_std::{Addr, Storage, Uint128};
use schema::{
    escrow::{Holder, Reason, WorkTerms},
    price::FeeBps,
    Event, ItemId, ModelId,
};

use crate::{
    state::{Account, Hold, ACCOUNTS, ACCOUNT_HOLDS, CREDITS, HOLDS, TOTALS},
    ContractError,
};

/// What a credit was for, as far as it is known.
#[derive(Debug, Clone, Default)]
pub(crate) struct About {
    pub(crate) item: Option<ItemId>,
    pub(crate) deployment: Option<u64>,
    pub(crate) model: Option<ModelId>,
}

#[must_use = "what happened is stored and announced by close"]
pub(crate) struct Ledger<'a> {
    storage: &'a mut dyn Storage,
    totals: Account,
    events: Vec<Event>,
}

impl<'a> Ledger<'a> {
    pub(crate) fn open(storage: &'a mut dyn Storage) -> Result<Self, ContractError> {
        let totals = TOTALS.may_load(storage)?.unwrap_or_default();
        Ok(Self {
            storage,
            totals,
            events: vec![],
        })
    }

    /// Stores the totals and hands out what is to be announced.
    pub(crate) fn close(self) -> Result<Vec<Event>, ContractError> {
        TOTALS.save(self.storage, &self.totals)?;
        Ok(self.events)
    }

    /// For what is kept beside the accounts.
    pub(crate) fn storage(&self) -> &dyn Storage {
        self.storage
    }

    /// For what is kept beside the accounts, which nothing but the ledger writes.
    pub(crate) fn storage_mut(&mut self) -> &mut dyn Storage {
        self.storage
    }

    pub(crate) fn announce(&mut self, event: Event) {
        self.events.push(event);
    }

    /// Nothing is nothing: a zero credit leaves no trace.
    pub(crate) fn credit(
        &mut self,
        holder: Holder,
        reason: Reason,
        amount: Uint128,
        about: About,
    ) -> Result<(), ContractError> {
        if amount.is_zero() {
            return Ok(());
        }
        let key = holder.to_string();
        self.change(&key, |account| {
            account.available = account.available.checked_add(amount)?;
            Ok(())
        })?;
        CREDITS.update(self.storage, (&key, reason.as_str()), |sum| {
            let sum = sum.unwrap_or_default().checked_add(amount)?;
            Ok::<_, ContractError>(sum)
        })?;
        let About {
            item,
            deployment,
            model,
        } = about;
        self.announce(Event::Credited {
            holder,
            reason,
            amount,
            item,
            deployment,
            model,
        });
        Ok(())
    }

    /// Takes out an amount, or everything, and says how much that was.
    pub(crate) fn withdraw(&mut self, account: &Addr, amount: Option<Uint128>) -> Result<Uint128, ContractError> {
        let amount = match amount {
            Some(amount) => amount,
            None => self.account(account.as_str())?.available,
        };
        if amount.is_zero() {
            return Err(ContractError::ZeroAmount);
        }
        self.change(account.as_str(), |account| account.take_available(amount))?;
        self.announce(Event::Withdrawn {
            account: account.to_string(),
            amount,
        });
        Ok(amount)
    }

    /// Empties the account of a model and says how much there was.
    pub(crate) fn take_accrued(&mut self, model: &ModelId) -> Result<Uint128, ContractError> {
        let key = Holder::Model(model.clone()).to_string();
        let accrued = self.account(&key)?.available;
        if !accrued.is_zero() {
            self.change(&key, |account| account.take_available(accrued))?;
        }
        Ok(accrued)
    }

    /// Moves available money to what is held for an account's work. Whoever calls this keeps the book of what it is held for.
    pub(crate) fn lock(&mut self, account: &str, amount: Uint128) -> Result<(), ContractError> {
        self.change(account, |account| {
            account.take_available(amount)?;
            account.held = account.held.checked_add(amount)?;
            Ok(())
        })
    }

    /// Gives held money back.
    pub(crate) fn unlock(&mut self, account: &str, amount: Uint128) -> Result<(), ContractError> {
        self.change(account, |account| {
            account.held = account.held.checked_sub(amount)?;
            account.available = account.available.checked_add(amount)?;
            Ok(())
        })
    }

    /// Takes out of what is held. Whoever calls this credits or burns the same amount.
    pub(crate) fn spend_held(&mut self, account: &str, amount: Uint128) -> Result<(), ContractError> {
        self.change(account, |account| {
            account.held = account.held.checked_sub(amount)?;
            Ok(())
        })
    }

    /// Moves available money into a new hold.
    pub(crate) fn hold(&mut self, job: u64, hold: &Hold) -> Result<(), ContractError> {
        if hold.amount.is_zero() {
            return Err(ContractError::ZeroAmount);
        }
        if HOLDS.has(self.storage, job) {
            return Err(ContractError::HoldExists { job });
        }
        let Hold { account, amount, .. } = hold;
        self.lock(account.as_str(), *amount)?;
        HOLDS.save(self.storage, job, hold)?;
        ACCOUNT_HOLDS.save(self.storage, (account.as_str(), job), &())?;
        self.announce(Event::Held {
            job,
            account: account.to_string(),
            amount: *amount,
            expires_at: hold.expires_at,
        });
        Ok(())
    }

    /// What the hold of a job pins.
    pub(crate) fn terms(&self, job: u64) -> Result<(WorkTerms, FeeBps), ContractError> {
        let hold = self.find_hold(job)?.ok_or(ContractError::NoHold { job })?;
        Ok((hold.terms, hold.fees))
    }

    /// Takes `amount` out of a hold. Whoever calls this credits or burns the same amount.
    pub(crate) fn spend(&mut self, job: u64, amount: Uint128) -> Result<(), ContractError> {
        let mut hold = self.find_hold(job)?.ok_or(ContractError::NoHold { job })?;
        if hold.amount < amount {
            return Err(ContractError::HoldExceeded {
                held: hold.amount,
                required: amount,
            });
        }
        hold.amount = hold.amount.checked_sub(amount)?;
        self.spend_held(hold.account.as_str(), amount)?;
        HOLDS.save(self.storage, job, &hold)?;
        Ok(())
    }

    /// Gives back what is left of a hold and forgets it. A hold that is gone already is none of our business.
    pub(crate) fn release(&mut self, job: u64) -> Result<(), ContractError> {
        let Some(Hold { account, amount, .. }) = self.find_hold(job)? else {
            return Ok(());
        };
        self.unlock(account.as_str(), amount)?;
        HOLDS.remove(self.storage, job);
        ACCOUNT_HOLDS.remove(self.storage, (account.as_str(), job));
        self.announce(Event::HoldReleased {
            job,
            account: account.into_string(),
            amount,
        });
        Ok(())
    }

    /// As [`Ledger::release`], but the hold must be there and its date must have passed.
    pub(crate) fn release_expired(&mut self, job: u64, now: u64) -> Result<(), ContractError> {
        let hold = self.find_hold(job)?.ok_or(ContractError::NoHold { job })?;
        if now <= hold.expires_at {
            return Err(ContractError::HoldNotExpired {
                job,
                expires_at: hold.expires_at,
                now,
            });
        }
        self.release(job)
    }

    fn find_hold(&self, job: u64) -> Result<Option<Hold>, ContractError> {
        Ok(HOLDS.may_load(self.storage, job)?)
    }

    fn account(&self, key: &str) -> Result<Account, ContractError> {
        Ok(ACCOUNTS.may_load(self.storage, key)?.unwrap_or_default())
    }

    /// The only way to change an account: the totals follow.
    fn change(
        &mut self,
        key: &str,
        change: impl FnOnce(&mut Account) -> Result<(), ContractError>,
    ) -> Result<(), ContractError> {
        let before = self.account(key)?;
        let mut after = before;
        change(&mut after)?;
        ACCOUNTS.save(self.storage, key, &after)?;
        let follow = |total: Uint128, before, after| total.checked_add(after)?.checked_sub(before);
        self.totals.available = follow(self.totals.available, before.available, after.available)?;
        self.totals.held = follow(self.totals.held, before.held, after.held)?;
        Ok(())
    }
}

impl Account {
    fn take_available(&mut self, amount: Uint128) -> Result<(), ContractError> {
        if self.available < amount {
            return Err(ContractError::InsufficientFunds {
                available: self.available,
                required: amount,
            });
        }
        self.available = self.available.checked_sub(amount)?;
        Ok(())
    }
}
