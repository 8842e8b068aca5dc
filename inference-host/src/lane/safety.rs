//! Which vouchers have to be on the disk before a request is computed: those without which the credit would not bear it.
//!
//! A voucher that is lost with a crash leaves its requests unpaid. So what it has paid for counts as unpaid until it is safe: with one request on
//! credit every voucher is waited for, with more the disk works beside the requests.

use std::collections::VecDeque;

use lane::acceptor::VoucherError;
use schema::session::SignedVoucher;

use super::{store::Store, Member};
use crate::faults::{pass, Point};

/// Vouchers that were accepted and may not be safe, oldest first. Together they pay for no more than the credit.
#[derive(Debug, Default)]
pub(super) struct Unsafe(VecDeque<Voucher>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Voucher {
    /// Of the store, which has it then.
    version: u64,
    /// Requests that it has paid for.
    covered: usize,
}

impl Unsafe {
    /// One more. `reached`: what the store has.
    pub(super) fn push(&mut self, version: u64, covered: usize, reached: u64) {
        while self.0.front().is_some_and(|voucher| voucher.version <= reached) {
            self.0.pop_front();
        }
        match self.0.back_mut() {
            // Whoever waits for it waits for the newest of them.
            Some(last) if last.covered == usize::MAX && covered == usize::MAX => last.version = version,
            _ if covered > 0 => self.0.push_back(Voucher { version, covered }),
            _ => {}
        }
    }

    /// The version that the store must have before a request is computed, where the credit would bear so many more.
    pub(super) fn needed(&self, mut room: usize) -> u64 {
        for voucher in self.0.iter().rev() {
            match room.checked_sub(voucher.covered) {
                Some(left) => room = left,
                None => return voucher.version,
            }
        }
        0
    }
}

impl Member {
    /// Takes a voucher, hands it to the disk and answers the version to wait for. None: it is known.
    pub(super) fn accept(&self, signed: SignedVoucher, store: &Store) -> Result<Option<u64>, VoucherError> {
        // In one go: nobody computes on the strength of a voucher that is not remembered as unsafe.
        let mut state = self.lock();
        let before = state.acceptor.room();
        if !state.acceptor.accept(signed)? {
            return Ok(None);
        }
        // What is not done yet is not counted, and is paid for by it all the same.
        let covered = match state.acceptor.is_paid_ahead() {
            true => usize::MAX,
            false => state.acceptor.room().saturating_sub(before),
        };
        pass(Point::VoucherAccepted);
        let version = store.keep(state.line(self.key));
        state.unsafe_vouchers.push(version, covered, store.reached());
        Ok(Some(version))
    }

    /// The version that the store must have before the next request is computed.
    pub(super) fn needed(&self) -> u64 {
        let state = self.lock();
        state.unsafe_vouchers.needed(state.acceptor.room())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vouchers(all: &[(u64, usize)]) -> Unsafe {
        let mut found = Unsafe::default();
        for (version, covered) in all {
            found.push(*version, *covered, 0);
        }
        found
    }

    #[test]
    fn with_one_request_on_credit_every_voucher_is_waited_for() {
        // The request itself has taken the credit.
        assert_eq!(vouchers(&[(1, 1), (2, 1)]).needed(0), 2);
        assert_eq!(vouchers(&[]).needed(0), 0);
    }

    #[test]
    fn with_more_only_those_that_the_credit_cannot_bear() {
        let three = vouchers(&[(3, 1), (5, 2), (9, 1)]);
        let needed = (0..5).map(|room| three.needed(room)).collect::<Vec<_>>();
        assert_eq!(needed, [9, 5, 5, 3, 0]);
    }

    #[test]
    fn what_is_paid_ahead_is_waited_for_whatever_the_credit() {
        let ahead = vouchers(&[(1, usize::MAX), (2, usize::MAX), (3, 1)]);
        assert_eq!(ahead.0.len(), 2);
        assert_eq!(ahead.needed(1_000), 2);
        assert_eq!(ahead.needed(0), 3);
    }

    #[test]
    fn what_is_safe_or_pays_for_nothing_is_not_remembered() {
        let mut some = vouchers(&[(1, 1), (2, 0), (3, 1)]);
        assert_eq!(some.0.len(), 2);
        some.push(4, 1, 3);
        assert_eq!(some.needed(0), 4);
        assert_eq!(some.0.len(), 1);
    }
}
