//! Transactions that wait for a block, in order of arrival.
//!
//! Guarantees: no transaction waits twice; a full pool says so, in numbers and in bytes, and takes nothing more.

use std::collections::{HashSet, VecDeque};

use crate::transaction::Tx;

/// The chain's default.
pub(crate) const TXS_MAX: usize = 5_000;
/// A sixteenth of the chain's default, so that a flood cannot take a laptop's memory.
pub(crate) const BYTES_MAX: usize = 64 * 1024 * 1024;

/// No room for a transaction of so many bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("mempool is full: number of txs {txs} (max: {TXS_MAX}), total txs bytes {bytes} (max: {BYTES_MAX})")]
pub(crate) struct Full {
    pub(crate) txs: usize,
    pub(crate) bytes: usize,
}

/// The pool.
#[derive(Debug, Default)]
pub(crate) struct Mempool {
    txs: VecDeque<Tx>,
    hashes: HashSet<[u8; 32]>,
    bytes: usize,
}

impl Mempool {
    pub(crate) fn contains(&self, hash: &[u8; 32]) -> bool {
        self.hashes.contains(hash)
    }

    /// Transactions and bytes that wait.
    pub(crate) fn size(&self) -> (usize, usize) {
        (self.txs.len(), self.bytes)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Tx> {
        self.txs.iter()
    }

    pub(crate) fn check_room(&self, bytes: usize) -> Result<(), Full> {
        let (txs, taken) = self.size();
        if txs >= TXS_MAX || taken.saturating_add(bytes) > BYTES_MAX {
            return Err(Full { txs, bytes: taken });
        }
        Ok(())
    }

    pub(crate) fn push(&mut self, tx: Tx) {
        self.bytes = self.bytes.saturating_add(tx.bytes.len());
        self.hashes.insert(tx.hash);
        self.txs.push_back(tx);
    }

    /// The oldest transactions, as many as a block of so many bytes holds.
    pub(crate) fn take(&mut self, bytes_max: usize) -> Vec<Tx> {
        let mut taken = vec![];
        let mut room = bytes_max;
        while let Some(left) = self.txs.front().and_then(|next| room.checked_sub(next.bytes.len())) {
            room = left;
            taken.extend(self.pop());
        }
        taken
    }

    fn pop(&mut self) -> Option<Tx> {
        let tx = self.txs.pop_front()?;
        self.bytes = self.bytes.saturating_sub(tx.bytes.len());
        self.hashes.remove(&tx.hash);
        Some(tx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transaction::{example, hash_of};

    fn tx(number: u8, bytes: usize) -> Tx {
        let mut tx = example(vec![]);
        tx.hash = hash_of(&[number]);
        tx.bytes = vec![number; bytes];
        tx
    }

    #[test]
    fn a_block_takes_the_oldest_that_fit_and_the_rest_goes_on_waiting() {
        let mut pool = Mempool::default();
        (0..5).for_each(|number| pool.push(tx(number, 100)));
        let firsts: Vec<u8> = pool.take(250).iter().map(|tx| tx.bytes[0]).collect();
        assert_eq!(firsts, [0, 1]);
        assert_eq!(pool.size(), (3, 300));
        assert!(!pool.contains(&hash_of(&[1])) && pool.contains(&hash_of(&[2])));
        assert_eq!(pool.take(usize::MAX).len(), 3);
        assert_eq!((pool.size(), pool.hashes.len()), ((0, 0), 0));
    }

    #[test]
    fn a_full_pool_says_so_in_numbers_and_in_bytes() {
        let mut pool = Mempool::default();
        pool.push(tx(1, BYTES_MAX - 10));
        assert!(pool.check_room(10).is_ok());
        let full = pool.check_room(11).unwrap_err().to_string();
        assert_eq!(
            full,
            "mempool is full: number of txs 1 (max: 5000), total txs bytes 67108854 (max: 67108864)"
        );
        let mut pool = Mempool::default();
        (0..TXS_MAX).for_each(|_| pool.push(tx(1, 1)));
        assert!(pool.check_room(1).is_err());
    }
}
