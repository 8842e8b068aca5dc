//! What the client of a session promises to one of its hosts.
//!
//! Guarantees:
//! - A voucher promises the exact price, by the pinned terms, of everything that was delivered, and never more than the allocation.
//! - Sequences rise strictly, above all that are known, and no counter ever falls: whichever of its vouchers a host cashes, and in whatever
//!   order, it has at most the price of what it delivered and of what was conceded to it.
//! - What the host says that the client signed is believed because of the client's own signature, and for nothing else. So a client that
//!   has lost its memory goes on from what the host shows; a host that shows less than it has only hurts itself.
//! - Work that the host says it has done, and for which it has shown nothing, is conceded up to a fixed sum and no further.
//!
//! Pure: it neither waits nor writes.

use cosmwasm_std::Uint128;
use schema::{
    price::{PriceOverflow, Units},
    session::{SignedVoucher, Voucher},
    Digest, Signature,
};

use crate::terms::{add, highest, reaches, total, Standing, Terms};

/// Why something is not promised.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IssueError {
    /// The request cannot have so many units.
    #[error("{requests} rows have {units} units, {requests} to {max} are possible")]
    Units {
        /// Rows.
        requests: u64,
        /// In and out.
        units: u128,
        /// By the version.
        max: u128,
    },
    /// It could not be paid for.
    #[error("deployment {deployment} would be owed {price} ufunc, {allocated} are allocated to it")]
    Allocation {
        /// To whom.
        deployment: u64,
        /// With everything that is open.
        price: Uint128,
        /// Everything ever put in.
        allocated: Uint128,
    },
    /// A host claims more than it has shown.
    #[error(
        "deployment {deployment} wants {claimed} ufunc for work that it has shown nothing of, {conceded} are conceded"
    )]
    Unproven {
        /// Who claims.
        deployment: u64,
        /// Together with what it was conceded before.
        claimed: Uint128,
        /// At most.
        conceded: Uint128,
    },
    /// The voucher was signed by somebody else, or for something else.
    #[error("deployment {deployment} shows a voucher that this session's key has not signed for it")]
    NotOurs {
        /// Who shows it.
        deployment: u64,
    },
    /// Beyond what can be counted.
    #[error(transparent)]
    Overflow(#[from] PriceOverflow),
}

/// What is promised to one deployment, and what it is owed.
#[derive(Debug, Clone)]
pub struct Issuer {
    terms: Terms,
    allocated: Uint128,
    /// Highest sequence that was ever used, as far as is known.
    sequence: u64,
    /// The newest promise; nobody has to be told it again.
    promised: Units,
    amount: Uint128,
    best: Option<SignedVoucher>,
    /// Everything delivered and everything conceded.
    owed: Units,
    /// What open requests may come to.
    reserved: Units,
    conceded: Uint128,
    conceded_max: Uint128,
}

impl Issuer {
    /// From what the chain knows. `conceded_max`: ufunc that the host may have for work of which it has shown nothing.
    pub fn new(terms: Terms, standing: Standing, conceded_max: Uint128) -> Self {
        let mut issuer = Self {
            terms,
            allocated: Uint128::zero(),
            sequence: 0,
            promised: Units::default(),
            amount: Uint128::zero(),
            best: None,
            owed: Units::default(),
            reserved: Units::default(),
            conceded: Uint128::zero(),
            conceded_max,
        };
        issuer.settled(&standing);
        issuer
    }

    /// What is pinned.
    pub fn terms(&self) -> &Terms {
        &self.terms
    }

    /// Everything delivered and conceded since the session was opened.
    pub fn owed(&self) -> Units {
        self.owed
    }

    /// Promised altogether, in ufunc.
    pub fn amount(&self) -> Uint128 {
        self.amount
    }

    /// Of it, what was conceded to the host without proof, in ufunc.
    pub fn conceded(&self) -> Uint128 {
        self.conceded
    }

    /// Not promised, and not wanted by open requests, in ufunc.
    pub fn left(&self) -> Uint128 {
        let bound = self.terms.price(add(self.owed, self.reserved));
        self.allocated.saturating_sub(bound.unwrap_or(self.allocated))
    }

    /// The newest voucher, if this client knows one.
    pub fn best(&self) -> Option<&SignedVoucher> {
        self.best.as_ref()
    }

    /// Sequence of the newest promise.
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Makes sure that a request can be paid for before it is begun.
    pub fn reserve(&mut self, units: Units) -> Result<(), IssueError> {
        self.can_reserve(units)?;
        self.reserved = add(self.reserved, units);
        Ok(())
    }

    /// Whether it could be paid for.
    pub fn can_reserve(&self, units: Units) -> Result<(), IssueError> {
        self.check_units(units)?;
        let wanted = add(add(self.owed, self.reserved), units);
        self.check_allocation(wanted)?;
        Ok(())
    }

    /// A request has ended, well or badly: nothing is set aside for it any more.
    pub fn release(&mut self, units: Units) {
        self.reserved = less(self.reserved, units);
    }

    /// A request was delivered and checked.
    pub fn deliver(&mut self, units: Units) -> Result<(), IssueError> {
        self.check_units(units)?;
        let owed = add(self.owed, units);
        self.check_allocation(owed)?;
        self.owed = owed;
        Ok(())
    }

    /// Work that the host says it has done for us. It may be true: a receipt gets lost when a connection breaks.
    pub fn concede(&mut self, units: Units) -> Result<(), IssueError> {
        self.check_units(units)?;
        let owed = add(self.owed, units);
        self.check_allocation(owed)?;
        let more = self.terms.price(owed)?.saturating_sub(self.terms.price(self.owed)?);
        let claimed = self.conceded.saturating_add(more);
        if claimed > self.conceded_max {
            return Err(IssueError::Unproven {
                deployment: self.terms.deployment,
                claimed,
                conceded: self.conceded_max,
            });
        }
        self.conceded = claimed;
        self.owed = owed;
        Ok(())
    }

    /// What the host says when it welcomes us: the best voucher that it holds, and everything that it has counted.
    pub fn welcomed(&mut self, shown: Option<&SignedVoucher>, counted: Units) -> Result<(), IssueError> {
        if let Some(shown) = shown {
            self.recall(shown)?;
        }
        if reaches(self.owed, counted) {
            return Ok(());
        }
        self.concede(less(counted, self.owed))
    }

    fn recall(&mut self, shown: &SignedVoucher) -> Result<(), IssueError> {
        let SignedVoucher { voucher, signature } = shown;
        let deployment = self.terms.deployment;
        let is_ours = (voucher.session, voucher.deployment) == (self.terms.session, deployment)
            && self.terms.is_signed(&voucher.digest(&self.terms.domain), signature);
        if !is_ours {
            return Err(IssueError::NotOurs { deployment });
        }
        let known = self.best.map_or(0, |best| best.voucher.sequence);
        if voucher.amount >= self.amount && voucher.sequence > known {
            self.amount = voucher.amount;
            self.best = Some(*shown);
        }
        // Two vouchers of one sequence: an earlier life of ours was shown less than there was. The next one covers both.
        self.sequence = self.sequence.max(voucher.sequence);
        self.promised = highest(self.promised, voucher.units());
        self.owed = highest(self.owed, self.promised);
        Ok(())
    }

    /// What the chain says now: what was put in, and what is settled.
    pub fn settled(&mut self, standing: &Standing) {
        self.allocated = self.allocated.max(standing.amount);
        self.sequence = self.sequence.max(standing.sequence);
        if standing.paid > self.amount {
            // The escrow has checked our signature.
            self.promised = highest(self.promised, standing.units);
            self.amount = standing.paid;
            self.best = None;
            self.owed = highest(self.owed, self.promised);
        }
    }

    /// The next voucher, if the host is owed more than it was promised.
    pub fn voucher(&mut self, sign: impl FnOnce(&Digest) -> Signature) -> Result<Option<SignedVoucher>, IssueError> {
        let price = self.check_allocation(self.owed)?;
        if (self.owed, price) == (self.promised, self.amount) {
            return Ok(None);
        }
        let voucher = Voucher {
            session: self.terms.session,
            deployment: self.terms.deployment,
            sequence: self.sequence.checked_add(1).ok_or(PriceOverflow)?,
            requests: self.owed.requests,
            units_in: self.owed.units_in,
            units_out: self.owed.units_out,
            amount: price,
        };
        let signature = sign(&voucher.digest(&self.terms.domain));
        let signed = SignedVoucher { voucher, signature };
        self.sequence = voucher.sequence;
        self.promised = self.owed;
        self.amount = price;
        self.best = Some(signed);
        Ok(Some(signed))
    }

    fn check_units(&self, units: Units) -> Result<(), IssueError> {
        let (requests, max) = (units.requests, self.terms.units_max(units.requests));
        if requests > 0 && (u128::from(requests)..=max).contains(&total(units)) {
            return Ok(());
        }
        let units = total(units);
        Err(IssueError::Units { requests, units, max })
    }

    fn check_allocation(&self, units: Units) -> Result<Uint128, IssueError> {
        let (price, allocated) = (self.terms.price(units)?, self.allocated);
        if price > allocated {
            return Err(IssueError::Allocation {
                deployment: self.terms.deployment,
                price,
                allocated,
            });
        }
        Ok(price)
    }
}

fn less(one: Units, other: Units) -> Units {
    Units {
        requests: one.requests.saturating_sub(other.requests),
        units_in: one.units_in.saturating_sub(other.units_in),
        units_out: one.units_out.saturating_sub(other.units_out),
    }
}

#[cfg(test)]
mod tests;
