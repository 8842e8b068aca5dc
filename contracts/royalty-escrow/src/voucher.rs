//! When a voucher is worth something: every rule that it has to pass, and the name of the one that it did not.
//!
//! A voucher counts once, for one chain, contract, session and deployment, and only upwards. Nothing here reads or writes storage.

use cosmwasm_std::Uint128;
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
        if voucher.sequence <= self.standing.sequence {
            return Err(VoucherRefusal::Stale);
        }
        if !is_signed() {
            return Err(VoucherRefusal::Signature);
        }
        self.check_counters(session, voucher.units())?;
        self.check_amount(voucher.amount)?;
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
        self.standing.sequence = voucher.sequence;
        self.standing.units = voucher.units();
        Ok(payment)
    }

    fn check_counters(&self, session: &Session, units: Units) -> Result<(), VoucherRefusal> {
        let before = self.standing.units;
        let grows = units.requests >= before.requests
            && units.units_in >= before.units_in
            && units.units_out >= before.units_out;
        let total = u128::from(units.units_in).saturating_add(units.units_out.into());
        let requests = u128::from(units.requests);
        let most = requests.saturating_mul(session.units_per_request_max.into());
        // A request has at least one unit, and never more than its version allows.
        if grows && (requests..=most).contains(&total) {
            Ok(())
        } else {
            Err(VoucherRefusal::Counters)
        }
    }

    fn check_amount(&self, amount: Uint128) -> Result<(), VoucherRefusal> {
        if amount < self.standing.taken.amount {
            return Err(VoucherRefusal::Amount);
        }
        if amount > self.standing.amount {
            return Err(VoucherRefusal::Allocation);
        }
        Ok(())
    }
}
