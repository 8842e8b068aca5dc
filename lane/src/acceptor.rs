//! What a host believes of the client of a session: its best voucher, what was done for it, and how much more may be done before it pays.
//!
//! Guarantees:
//! - A voucher that is accepted and promises more than what is paid is one that the escrow settles, whatever else was settled before it and as
//!   long as the allocation is not closed: every rule of the contract is checked here. Two more are this host's own: the amount is the full price
//!   of the counters, and among the vouchers that it takes sequences rise and counters do not fall.
//! - A refused voucher or request changes nothing.
//! - A request has a number that is higher than any before it, so it is done once.
//! - Never more requests than the credit are waiting, running or done without being paid for. What a voucher has paid ahead is not on credit.
//!
//! Pure: it neither waits nor writes. `inference-host` keeps [`Kept`] on disk before it works on the strength of it.

use std::collections::{BTreeMap, VecDeque};

use cosmwasm_std::Uint128;
use schema::{
    escrow::AllocationState,
    price::{PriceOverflow, Units},
    session::SignedVoucher,
};
use serde::{Deserialize, Serialize};

use crate::terms::{add, highest, reaches, total, Standing, Terms};

/// What must survive the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kept {
    pub best: Option<SignedVoucher>,
    /// Rows and units of all finished requests.
    pub counted: Units,
    /// How many of them no voucher covers.
    pub unpaid: u32,
    /// Highest number of a request that was taken.
    pub number: u64,
}

/// Why a voucher is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum VoucherError {
    #[error("it is for deployment {deployment} in session {session}")]
    Foreign { session: u64, deployment: u64 },
    #[error("the allocation is closed")]
    Closed,
    #[error("its sequence is {found}, {newest} is known already")]
    Stale { found: u64, newest: u64 },
    #[error("it is not signed by the session key for this chain and contract")]
    Signature,
    #[error("a counter is lower than before")]
    Falls,
    #[error("{requests} rows have {units} units, {requests} to {max} are possible")]
    Units { requests: u64, units: u128, max: u128 },
    #[error("it promises {found} ufunc for work that costs {price}")]
    Price { found: Uint128, price: Uint128 },
    #[error("it promises {found} ufunc, {allocated} are allocated")]
    Allocation { found: Uint128, allocated: Uint128 },
    #[error(transparent)]
    Overflow(#[from] PriceOverflow),
}

/// Why a request is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    #[error("its number is {found}, and {highest} was used before")]
    Number { found: u64, highest: u64 },
    #[error("it has no rows")]
    Empty,
    #[error("{owed} requests would be unpaid, at most {credit} may be")]
    Credit { owed: usize, credit: u32 },
    #[error("{rows} rows have {found} units, {rows} to {max} are allowed")]
    Units { rows: u64, found: u128, max: u128 },
    #[error("with it {price} ufunc are due, {allocated} are allocated")]
    Allocation { price: Uint128, allocated: Uint128 },
    #[error("request {0} is not open")]
    NotOpen(u64),
    #[error(transparent)]
    Overflow(#[from] PriceOverflow),
}

/// What a host believes of one session's client at one deployment.
#[derive(Debug, Clone)]
pub struct Acceptor {
    terms: Terms,
    standing: Standing,
    kept: Kept,
    contradicted: bool,
    credit: u32,
    /// Requests that are waiting or running.
    open: BTreeMap<u64, Open>,
    /// Everything counted up to the end of each request that no voucher covers, oldest first.
    unpaid: VecDeque<Units>,
}

/// A request that is waiting or running.
#[derive(Debug, Clone, Copy)]
struct Open {
    /// What it comes to; before it is measured, the most that it may come to.
    units: Units,
    is_measured: bool,
}

impl Acceptor {
    /// `kept`: what an earlier process has left; None where there is nothing.
    pub fn new(terms: Terms, standing: Standing, credit: u32, kept: Option<Kept>) -> Self {
        let mut known = kept.unwrap_or_default();
        let promised = known.best.map_or(Uint128::zero(), |best| best.voucher.amount);
        if promised < standing.paid && terms.is_paid_in_full(&standing) {
            // What is settled was done, whatever our disk has lost.
            known.counted = highest(known.counted, standing.units);
        }
        let mut acceptor = Self {
            terms,
            standing,
            kept: known,
            contradicted: false,
            credit,
            open: BTreeMap::new(),
            // Which of them a voucher covers is not known any more: one that covers all does.
            unpaid: (0..known.unpaid).map(|_| known.counted).collect(),
        };
        acceptor.settled(standing);
        acceptor
    }

    pub fn terms(&self) -> &Terms {
        &self.terms
    }

    pub fn standing(&self) -> Standing {
        self.standing
    }

    /// What has to be kept.
    pub fn kept(&self) -> Kept {
        Kept {
            unpaid: u32::try_from(self.unpaid.len()).unwrap_or(u32::MAX),
            ..self.kept
        }
    }

    pub fn best(&self) -> Option<&SignedVoucher> {
        self.kept.best.as_ref()
    }

    /// Of the best voucher, what is not settled yet, in ufunc.
    pub fn worth(&self) -> Uint128 {
        let promised = self.best().map_or(Uint128::zero(), |best| best.voucher.amount);
        promised.saturating_sub(self.standing.paid)
    }

    /// Requests that are waiting or running.
    pub fn open(&self) -> usize {
        self.open.len()
    }

    /// How many more requests the credit would bear.
    pub fn room(&self) -> usize {
        let credit = usize::try_from(self.credit).unwrap_or(usize::MAX);
        credit.saturating_sub(self.owed())
    }

    /// Whether the best voucher pays for more than was done.
    pub fn is_paid_ahead(&self) -> bool {
        let best = self.best().map_or(Units::default(), |best| best.voucher.units());
        !reaches(self.kept.counted, best)
    }

    /// Whether everything that was done is paid for by a voucher.
    pub fn is_paid(&self) -> bool {
        self.unpaid.is_empty() && self.covers(self.kept.counted)
    }

    /// Takes a voucher. False: it is known.
    pub fn accept(&mut self, signed: SignedVoucher) -> Result<bool, VoucherError> {
        if self.kept.best == Some(signed) {
            return Ok(false);
        }
        self.check(&signed)?;
        self.kept.best = Some(signed);
        self.strike_paid();
        Ok(true)
    }

    fn strike_paid(&mut self) {
        while self.unpaid.front().is_some_and(|mark| self.covers(*mark)) {
            self.unpaid.pop_front();
        }
    }

    fn check(&self, signed: &SignedVoucher) -> Result<(), VoucherError> {
        let SignedVoucher { voucher, signature } = signed;
        if (voucher.session, voucher.deployment) != (self.terms.session, self.terms.deployment) {
            let (session, deployment) = (voucher.session, voucher.deployment);
            return Err(VoucherError::Foreign { session, deployment });
        }
        if self.standing.state == AllocationState::Closed {
            return Err(VoucherError::Closed);
        }
        let best = self.best().map(|best| best.voucher);
        let (found, newest) = (voucher.sequence, best.map_or(0, |best| best.sequence));
        if found <= newest {
            return Err(VoucherError::Stale { found, newest });
        }
        if !self.terms.is_signed(&voucher.digest(&self.terms.domain), signature) {
            return Err(VoucherError::Signature);
        }
        let units = voucher.units();
        if best.is_some_and(|best| !reaches(units, best.units())) {
            return Err(VoucherError::Falls);
        }
        let (requests, max) = (units.requests, self.terms.units_max(units.requests));
        if !(u128::from(requests)..=max).contains(&total(units)) {
            let units = total(units);
            return Err(VoucherError::Units { requests, units, max });
        }
        let (found, price, allocated) = (voucher.amount, self.terms.price(units)?, self.standing.amount);
        if found != price {
            return Err(VoucherError::Price { found, price });
        }
        match found > allocated {
            true => Err(VoucherError::Allocation { found, allocated }),
            false => Ok(()),
        }
    }

    /// Takes a request of so many rows.
    pub fn admit(&mut self, number: u64, rows: u32) -> Result<(), RequestError> {
        let highest = self.kept.number;
        if number <= highest {
            return Err(RequestError::Number { found: number, highest });
        }
        if rows == 0 {
            return Err(RequestError::Empty);
        }
        let requests = u64::from(rows);
        let units = Units {
            requests,
            units_in: requests.saturating_mul(self.terms.units_per_request_max),
            // Nothing is generated in this lane yet.
            units_out: 0,
        };
        let is_measured = false;
        self.open.insert(number, Open { units, is_measured });
        let (owed, credit) = (self.owed(), self.credit);
        if owed > usize::try_from(credit).unwrap_or(usize::MAX) {
            self.open.remove(&number);
            return Err(RequestError::Credit { owed, credit });
        }
        self.kept.number = number;
        Ok(())
    }

    /// What an open request will come to. One that cannot be paid for is not worth beginning; it stays as it was.
    pub fn measure(&mut self, number: u64, units: Units) -> Result<(), RequestError> {
        let most = self.open.get(&number).ok_or(RequestError::NotOpen(number))?.units;
        let (rows, max) = (most.requests, self.terms.units_max(most.requests));
        if units.requests != rows || !(u128::from(rows)..=max).contains(&total(units)) {
            let found = total(units);
            return Err(RequestError::Units { rows, found, max });
        }
        // Others that are not measured yet are held against nobody: they are measured in their turn.
        let measured = self
            .open
            .iter()
            .filter(|(other, open)| **other != number && open.is_measured);
        let others = measured.fold(self.kept.counted, |sum, (_, open)| add(sum, open.units));
        let (price, allocated) = (self.terms.price(add(others, units))?, self.standing.amount);
        if price > allocated {
            return Err(RequestError::Allocation { price, allocated });
        }
        let is_measured = true;
        self.open.insert(number, Open { units, is_measured });
        Ok(())
    }

    /// An open request is done.
    pub fn finish(&mut self, number: u64) -> Result<(), RequestError> {
        let done = self.open.remove(&number).ok_or(RequestError::NotOpen(number))?;
        self.kept.counted = add(self.kept.counted, done.units);
        if !self.covers(self.kept.counted) {
            self.unpaid.push_back(self.kept.counted);
        }
        Ok(())
    }

    /// An open request came to nothing, and costs nothing.
    pub fn drop(&mut self, number: u64) {
        self.open.remove(&number);
    }

    /// What the chain says now.
    pub fn settled(&mut self, standing: Standing) {
        self.contradicted |= self.contradicts(&standing);
        self.standing = standing;
        self.strike_paid();
    }

    /// Whether the chain has ever shown a settled voucher that an honest client would not have signed beside ours: one that pays less than the price
    /// of what it counts, or that counts more of one thing and less of another. Our best voucher is worth the same as ever; but whoever has signed
    /// the other one chooses how the same money is divided, and need not be worked for.
    pub fn is_contradicted(&self) -> bool {
        self.contradicted
    }

    fn contradicts(&self, standing: &Standing) -> bool {
        let is_in_line = |best: &SignedVoucher| {
            let ours = best.voucher.units();
            reaches(ours, standing.units) || reaches(standing.units, ours)
        };
        !self.terms.is_paid_in_full(standing) || !self.best().is_none_or(is_in_line)
    }

    /// Requests that are not paid for, open ones included.
    fn owed(&self) -> usize {
        let mut sum = self.kept.counted;
        let mut owed = self.unpaid.len().max(usize::from(!self.covers(sum)));
        for open in self.open.values() {
            sum = add(sum, open.units);
            owed = owed.saturating_add(usize::from(!self.covers(sum)));
        }
        owed
    }

    /// Whether so much work is paid for in full.
    fn covers(&self, units: Units) -> bool {
        let promised = self.best().map_or(Units::default(), |best| best.voucher.units());
        // Who settles for us may have been given less than the price.
        reaches(promised, units) || (reaches(self.standing.units, units) && self.terms.is_paid_in_full(&self.standing))
    }
}

#[cfg(test)]
mod tests;
