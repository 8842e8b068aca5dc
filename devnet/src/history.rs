//! Blocks and transactions as they happened, bounded like a pruning node's.
//!
//! Guarantees: the latest block is always there; at most as many blocks as configured and roughly [`BYTES_MAX`] bytes are kept;
//! what was dropped is answered with the words of a pruned node.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use sha2::{Digest, Sha256};

use crate::events::Events;

/// Memory for transactions and their events, their places and headers included: some 100 000 transactions.
const BYTES_MAX: usize = 256 * 1024 * 1024;
/// What a block and a transaction take beside their own bytes: their structs, allocations and places.
const OVERHEAD: usize = 400;

/// What running a transaction gave.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct TxResult {
    pub(crate) code: u32,
    pub(crate) codespace: &'static str,
    pub(crate) log: String,
    pub(crate) data: Vec<u8>,
    pub(crate) gas_wanted: u64,
    pub(crate) gas_used: u64,
    pub(crate) events: Events,
}

/// A transaction in a block.
#[derive(Clone, Debug)]
pub(crate) struct Included {
    pub(crate) hash: [u8; 32],
    pub(crate) bytes: Vec<u8>,
    pub(crate) result: TxResult,
}

/// A block.
#[derive(Clone, Debug)]
pub(crate) struct Block {
    pub(crate) height: u64,
    pub(crate) time_nanos: u64,
    pub(crate) hash: [u8; 32],
    /// Hash of the block before, zero for the first.
    pub(crate) previous: [u8; 32],
    pub(crate) previous_time_nanos: u64,
    pub(crate) txs: Vec<Included>,
}

impl Block {
    /// The block after `previous`. Its hash binds the chain together; it is not the Merkle root that light clients verify.
    pub(crate) fn after(previous: Option<&Block>, height: u64, time_nanos: u64, txs: Vec<Included>) -> Block {
        let (before, previous_time_nanos) = previous.map_or(([0; 32], 0), |block| (block.hash, block.time_nanos));
        let mut hash = Sha256::new();
        hash.update(before);
        hash.update(height.to_be_bytes());
        hash.update(time_nanos.to_be_bytes());
        txs.iter().for_each(|tx| hash.update(tx.hash));
        Block {
            height,
            time_nanos,
            hash: hash.finalize().into(),
            previous: before,
            previous_time_nanos,
            txs,
        }
    }

    /// The digest of what its transactions did, for the log.
    pub(crate) fn outcome(&self, state: &[u8; 32]) -> [u8; 32] {
        let mut hash = Sha256::new();
        hash.update(state);
        for Included { hash: of, result, .. } in &self.txs {
            hash.update(of);
            hash.update(result.code.to_be_bytes());
            hash.update(result.gas_used.to_be_bytes());
            for part in [
                result.codespace.as_bytes(),
                result.log.as_bytes(),
                &result.data,
                result.events.as_bytes(),
            ] {
                hash.update(u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
                hash.update(part);
            }
        }
        hash.finalize().into()
    }

    /// Memory that it takes, roughly.
    fn bytes(&self) -> usize {
        let sizes = self.txs.iter().map(|tx| {
            let parts = [
                tx.bytes.len(),
                tx.result.events.as_bytes().len(),
                tx.result.data.len(),
                tx.result.log.len(),
            ];
            parts.into_iter().fold(OVERHEAD, usize::saturating_add)
        });
        sizes.fold(OVERHEAD, usize::saturating_add)
    }
}

/// A block that cannot be had, with the words of the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NoBlock {
    #[error("height must be greater than 0, but got {0}")]
    Zero(u64),
    #[error("height {height} must be less than or equal to the current blockchain height {latest}")]
    Future { height: u64, latest: u64 },
    #[error("height {height} is not available, lowest height is {lowest}")]
    Pruned { height: u64, lowest: u64 },
}

/// The kept blocks.
#[derive(Debug)]
pub(crate) struct History {
    /// Consecutive heights.
    blocks: VecDeque<Arc<Block>>,
    places: HashMap<[u8; 32], (u64, u32)>,
    bytes: usize,
    blocks_max: usize,
    bytes_max: usize,
}

impl History {
    pub(crate) fn new(blocks_max: usize) -> History {
        History::bounded(blocks_max, BYTES_MAX)
    }

    fn bounded(blocks_max: usize, bytes_max: usize) -> History {
        History {
            blocks: VecDeque::new(),
            places: HashMap::new(),
            bytes: 0,
            blocks_max,
            bytes_max,
        }
    }

    pub(crate) fn push(&mut self, block: Arc<Block>) {
        for (index, tx) in (0u32..).zip(&block.txs) {
            self.places.insert(tx.hash, (block.height, index));
        }
        self.bytes = self.bytes.saturating_add(block.bytes());
        self.blocks.push_back(block);
        while self.blocks.len() > 1 && (self.blocks.len() > self.blocks_max || self.bytes > self.bytes_max) {
            self.drop_oldest();
        }
    }

    fn drop_oldest(&mut self) {
        let Some(block) = self.blocks.pop_front() else { return };
        self.bytes = self.bytes.saturating_sub(block.bytes());
        block.txs.iter().for_each(|tx| {
            self.places.remove(&tx.hash);
        });
    }

    pub(crate) fn latest(&self) -> Option<&Arc<Block>> {
        self.blocks.back()
    }

    pub(crate) fn oldest(&self) -> Option<&Arc<Block>> {
        self.blocks.front()
    }

    /// The block at a height, the latest without one.
    pub(crate) fn block(&self, height: Option<u64>) -> Result<Arc<Block>, NoBlock> {
        let latest = self.latest().map_or(0, |block| block.height);
        let lowest = self.oldest().map_or(0, |block| block.height);
        let height = height.unwrap_or(latest);
        if height == 0 {
            return Err(NoBlock::Zero(height));
        }
        if height > latest {
            return Err(NoBlock::Future { height, latest });
        }
        let place = height.checked_sub(lowest).and_then(|place| usize::try_from(place).ok());
        let block = place.and_then(|place| self.blocks.get(place));
        block.cloned().ok_or(NoBlock::Pruned { height, lowest })
    }

    /// Where a transaction is.
    pub(crate) fn place(&self, hash: &[u8; 32]) -> Option<(Arc<Block>, u32)> {
        let (height, index) = *self.places.get(hash)?;
        Some((self.block(Some(height)).ok()?, index))
    }

    /// Blocks that are kept, and the memory they take.
    pub(crate) fn size(&self) -> (usize, usize) {
        (self.blocks.len(), self.bytes)
    }

    pub(crate) fn contains(&self, hash: &[u8; 32]) -> bool {
        self.places.contains_key(hash)
    }

    /// Kept blocks in a range of heights, oldest first.
    pub(crate) fn range(&self, least: u64, most: u64) -> impl Iterator<Item = &Arc<Block>> {
        let lowest = self.oldest().map_or(0, |block| block.height);
        let skipped = usize::try_from(least.saturating_sub(lowest)).unwrap_or(usize::MAX);
        let from = self.blocks.iter().skip(skipped);
        from.take_while(move |block| block.height <= most)
    }

    /// The kept block with this hash.
    pub(crate) fn by_hash(&self, hash: &[u8]) -> Option<&Arc<Block>> {
        self.blocks.iter().rev().find(|block| block.hash == hash)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::arithmetic_side_effects, reason = "small numbers of a test")]

    use super::*;

    fn filled(blocks: u64, blocks_max: usize, bytes_max: usize) -> History {
        let mut history = History::bounded(blocks_max, bytes_max);
        for height in 1..=blocks {
            let tx = Included {
                hash: [u8::try_from(height).unwrap(); 32],
                bytes: vec![0; 100],
                result: TxResult::default(),
            };
            let block = Block::after(history.latest().map(AsRef::as_ref), height, height * 10, vec![tx]);
            history.push(Arc::new(block));
        }
        history
    }

    #[test]
    fn old_blocks_and_their_transactions_go_with_the_words_of_a_pruned_node() {
        let history = filled(10, 4, usize::MAX);
        assert_eq!(history.block(Some(7)).unwrap().height, 7);
        let words = history.block(Some(6)).unwrap_err().to_string();
        assert_eq!(words, "height 6 is not available, lowest height is 7");
        assert!(!history.contains(&[6; 32]));
        assert_eq!(history.place(&[10; 32]).unwrap().0.height, 10);
        assert_eq!(history.places.len(), 4);
    }

    #[test]
    fn bytes_are_bounded_too_but_the_latest_block_stays() {
        let history = filled(10, usize::MAX, 2 * (100 + 2 * OVERHEAD) + 50);
        assert_eq!(history.oldest().unwrap().height, 9);
        assert_eq!(filled(3, usize::MAX, 1).blocks.len(), 1);
    }

    #[test]
    fn heights_that_never_were_have_their_own_words() {
        let history = filled(3, 10, usize::MAX);
        assert_eq!(history.block(None).unwrap().height, 3);
        assert_eq!(history.block(Some(0)).unwrap_err(), NoBlock::Zero(0));
        assert_eq!(
            history.block(Some(4)).unwrap_err(),
            NoBlock::Future { height: 4, latest: 3 }
        );
    }

    #[test]
    fn each_block_names_the_one_before() {
        let history = filled(3, 10, usize::MAX);
        let (second, third) = (history.block(Some(2)).unwrap(), history.block(Some(3)).unwrap());
        assert_eq!(third.previous, second.hash);
        assert_ne!(third.hash, second.hash);
    }
}
