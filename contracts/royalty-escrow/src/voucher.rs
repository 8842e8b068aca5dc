//! When a voucher is worth something: every rule that it has to pass, and the name of the one that it did not.
//!
//! A voucher counts for one chain, contract, session and deployment, and only as far as its amount is more than what was paid before
//! ([ADR 0027](../../../docs/adr/0027-vouchers-are-ordered-by-amount.md)). Of two vouchers the one that promises more is the better one, whatever
//! else they say and whichever was signed or settled first: so nothing that is settled makes a better voucher worthless. Nothing here reads or
//! writes storage.

use schema::{escrow::VoucherRefusal, price::Units, session::Voucher};

use crate::{
    session::{Allocation, Session},
    split::Payment,
};

impl Allocation {
    /// Checks a voucher for this allocation and takes its part out. A refused one changes nothing.
    pub(crate) fn settle(
        &mut self,
        session: &Session,
        voucher: &Voucher,
        is_signed: impl FnOnce() -> bool,
    ) -> Result<Payment, VoucherRefusal> {
        if self.is_closed() {
            return Err(VoucherRefusal::Closed);
        }
        // Before the signature: a voucher that somebody else has settled in the meantime is no forgery.
        if voucher.amount <= self.standing.taken.amount {
            return Err(VoucherRefusal::Stale);
        }
        if !is_signed() {
            return Err(VoucherRefusal::Signature);
        }
        check_counters(session, voucher.units())?;
        if voucher.amount > self.standing.amount {
            return Err(VoucherRefusal::Allocation);
        }
        // What cannot be counted cannot have been done.
        let price = self.price(session, voucher.units());
        let price = price.map_err(|_| VoucherRefusal::Counters)?;
        let whole = price.total().map_err(|_| VoucherRefusal::Counters)?;
        if voucher.amount > whole {
            return Err(VoucherRefusal::Price);
        }
        let mut taken = self.standing.taken;
        let payment = taken.pay(voucher.amount, voucher.units(), &price, session.fees);
        let payment = payment.map_err(|_| VoucherRefusal::Counters)?;
        self.standing.taken = taken;
        self.standing.sequence = self.standing.sequence.max(voucher.sequence);
        self.standing.units = voucher.units();
        Ok(payment)
    }
}

/// A request has at least one unit, and never more than its version allows.
fn check_counters(session: &Session, units: Units) -> Result<(), VoucherRefusal> {
    let total = u128::from(units.units_in).saturating_add(units.units_out.into());
    let requests = u128::from(units.requests);
    let most = requests.saturating_mul(session.units_per_request_max.into());
    match (requests..=most).contains(&total) {
        true => Ok(()),
        false => Err(VoucherRefusal::Counters),
    }
}
