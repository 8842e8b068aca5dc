//! The chain's state: an ordered map in memory with an undo journal.
//!
//! Guarantees: after [`Store::roll_back`] every byte is as it was at [`Store::begin`]; the cost is in proportion to the writes.

use std::{collections::BTreeMap, ops::Bound};

use cosmwasm_std::{Order, Record, Storage};
use sha2::{Digest, Sha256};

/// What was written since [`Store::begin`]; the base of the gas estimate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Written {
    /// Writes and removals.
    pub(crate) keys: u64,
    /// Bytes of keys and values.
    pub(crate) bytes: u64,
}

/// Keys with the value they had before; `None` for a key that was not there.
type Journal = Vec<(Vec<u8>, Option<Vec<u8>>)>;

/// The state of all modules and contracts.
#[derive(Debug, Default)]
pub(crate) struct Store {
    data: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Every key touched since `begin` with the value it had before, in order. `None` outside a unit of work.
    journal: Option<Journal>,
    written: Written,
    /// Of everything that units of work have kept, in order.
    digest: Sha256,
}

impl Store {
    /// Starts a unit of work; whatever was done before stays.
    pub(crate) fn begin(&mut self) {
        self.journal = Some(vec![]);
        self.written = Written::default();
    }

    /// Ends the unit of work; what it did stays.
    pub(crate) fn keep(&mut self) {
        for (key, _) in self.journal.take().into_iter().flatten() {
            for part in [Some(&key), self.data.get(&key)] {
                let length = part.map_or(u64::MAX, |part| u64::try_from(part.len()).unwrap_or(u64::MAX));
                self.digest.update(length.to_be_bytes());
                self.digest.update(part.map(Vec::as_slice).unwrap_or_default());
            }
        }
    }

    /// The digest of all that was ever kept: equal in two stores exactly if they were written the same way.
    pub(crate) fn digest(&self) -> [u8; 32] {
        self.digest.clone().finalize().into()
    }

    /// The digest of everything that is there.
    pub(crate) fn state_digest(&self) -> [u8; 32] {
        let mut hash = Sha256::new();
        for part in self.data.iter().flat_map(|(key, value)| [key, value]) {
            hash.update(u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
            hash.update(part);
        }
        hash.finalize().into()
    }

    /// What the unit of work has written so far.
    pub(crate) fn written(&self) -> Written {
        self.written
    }

    /// Takes back everything since `begin`.
    pub(crate) fn roll_back(&mut self) {
        for (key, before) in self.journal.take().into_iter().flatten().rev() {
            match before {
                Some(value) => self.data.insert(key, value),
                None => self.data.remove(&key),
            };
        }
        self.written = Written::default();
    }

    fn note(&mut self, key: &[u8], value_bytes: usize, before: Option<Vec<u8>>) {
        let Some(journal) = &mut self.journal else { return };
        let bytes = u64::try_from(key.len().saturating_add(value_bytes)).unwrap_or(u64::MAX);
        self.written.keys = self.written.keys.saturating_add(1);
        self.written.bytes = self.written.bytes.saturating_add(bytes);
        journal.push((key.to_vec(), before));
    }
}

impl Storage for Store {
    fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.data.get(key).cloned()
    }

    fn range<'a>(
        &'a self,
        start: Option<&[u8]>,
        end: Option<&[u8]>,
        order: Order,
    ) -> Box<dyn Iterator<Item = Record> + 'a> {
        let lower = start.map_or(Bound::Unbounded, |key| Bound::Included(key.to_vec()));
        let upper = end.map_or(Bound::Unbounded, |key| Bound::Excluded(key.to_vec()));
        if let (Bound::Included(lower), Bound::Excluded(upper)) = (&lower, &upper) {
            // A map panics on such a range; to a contract it is an empty one.
            if lower >= upper {
                return Box::new(std::iter::empty());
            }
        }
        let range = self
            .data
            .range((lower, upper))
            .map(|(key, value)| (key.clone(), value.clone()));
        match order {
            Order::Ascending => Box::new(range),
            Order::Descending => Box::new(range.rev()),
        }
    }

    fn set(&mut self, key: &[u8], value: &[u8]) {
        let before = self.data.insert(key.to_vec(), value.to_vec());
        self.note(key, value.len(), before);
    }

    fn remove(&mut self, key: &[u8]) {
        let before = self.data.remove(key);
        self.note(key, 0, before);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_roll_back_restores_new_changed_and_removed_keys() {
        let mut store = Store::default();
        store.set(b"changed", b"old");
        store.set(b"removed", b"kept");
        let before = store.data.clone();
        store.begin();
        store.set(b"new", b"1");
        store.set(b"changed", b"2");
        store.set(b"changed", b"3");
        store.remove(b"removed");
        store.remove(b"new");
        store.set(b"new", b"4");
        assert_eq!(
            store.written(),
            Written {
                keys: 6,
                bytes: 4 + 8 + 8 + 7 + 3 + 4
            }
        );
        store.roll_back();
        assert_eq!(store.data, before);
        assert_eq!(store.written(), Written::default());
    }

    #[test]
    fn what_was_kept_cannot_be_taken_back() {
        let mut store = Store::default();
        store.begin();
        store.set(b"key", b"kept");
        store.keep();
        // Writes between units of work are not remembered: nobody would ever forget them.
        store.set(b"other", b"kept");
        assert!(store.journal.is_none());
        store.roll_back();
        assert_eq!(
            (store.get(b"key"), store.get(b"other")),
            (Some(b"kept".to_vec()), Some(b"kept".to_vec()))
        );
    }

    #[test]
    fn ranges_are_ordered_bounded_and_never_panic() {
        let mut store = Store::default();
        for key in [b"a", b"b", b"c"] {
            store.set(key, b"v");
        }
        let keys = |start: Option<&[u8]>, end: Option<&[u8]>, order| -> Vec<u8> {
            store.range(start, end, order).flat_map(|(key, _)| key).collect()
        };
        assert_eq!(keys(Some(b"a"), Some(b"c"), Order::Ascending), b"ab");
        assert_eq!(keys(None, None, Order::Descending), b"cba");
        assert_eq!(keys(Some(b"c"), Some(b"a"), Order::Ascending), b"");
        assert_eq!(keys(Some(b"b"), Some(b"b"), Order::Descending), b"");
    }
}
