//! Searches over the kept blocks. They run beside the node, on blocks that it only lends.

use std::sync::Arc;

use serde_json::Value;

use crate::{
    comet,
    filter::{self, Filter},
    history::{Block, History},
    methods::{internal, invalid, Failure, Params},
};

/// Rows of a search page, at most; the node's limit.
const PAGE_MAX: usize = 100;
/// Rows of a search page when none are asked for; the node's default.
const PAGE: usize = 30;

/// What is looked for, and which part of it is wanted.
#[derive(Debug)]
pub(crate) struct Search {
    filter: Filter,
    descending: bool,
    per_page: usize,
    page: usize,
}

impl Search {
    pub(crate) fn read(params: &Params) -> Result<Search, Failure> {
        let text = params.text("query").ok_or_else(|| invalid("query is missing"))?;
        let filter = Filter::parse(text).map_err(internal)?;
        let descending = match params.text("order_by").unwrap_or_default() {
            "" | "asc" => false,
            "desc" => true,
            _ => return Err(internal("expected order_by to be either `asc` or `desc` or empty")),
        };
        // Proofs are not made here; a client that wants them must hear so.
        if params.flag("prove") {
            return Err(internal("this node makes no proofs"));
        }
        let number = |key| -> Result<Option<usize>, Failure> {
            let number = params.number(key)?;
            Ok(number.map(|number| usize::try_from(number).unwrap_or(usize::MAX)))
        };
        let per_page = number("per_page")?.filter(|rows| *rows > 0);
        Ok(Search {
            filter,
            descending,
            per_page: per_page.unwrap_or(PAGE).min(PAGE_MAX),
            page: number("page")?.unwrap_or(1),
        })
    }

    /// The blocks in which it can be.
    pub(crate) fn candidates(&self, history: &History, height_key: &str) -> Vec<Arc<Block>> {
        if let Some(hash) = self.filter.equals("tx.hash") {
            let hash = hex::decode(hash).ok().and_then(|hash| <[u8; 32]>::try_from(hash).ok());
            let place = hash.and_then(|hash| history.place(&hash));
            return place.map(|(block, _)| block).into_iter().collect();
        }
        let (least, most) = self.filter.range(height_key);
        history.range(least, most).cloned().collect()
    }

    /// The wanted page of the transactions that match.
    pub(crate) fn txs(&self, blocks: &[Arc<Block>]) -> Result<Value, Failure> {
        let hash = self.filter.equals("tx.hash").map(str::to_uppercase);
        let mut found = vec![];
        for block in blocks {
            for (index, tx) in (0u32..).zip(&block.txs) {
                if hash.as_ref().is_some_and(|hash| *hash != hex::encode_upper(tx.hash)) {
                    continue;
                }
                let mut attributes = filter::of_tx(tx, block.height);
                if let Some(hash) = &hash {
                    // A node finds hashes in either case.
                    attributes.insert("tx.hash".into(), vec![hash.clone(), hash.to_lowercase()]);
                }
                if self.filter.matches(&attributes) {
                    found.push((block.height, index, tx));
                }
            }
        }
        let (rows, total) = self.page(found)?;
        let rows = rows.into_iter().map(|(height, index, tx)| comet::tx(height, index, tx));
        Ok(comet::tx_search(rows.collect(), total))
    }

    /// The wanted page of the blocks that match.
    pub(crate) fn blocks(&self, chain_id: &str, blocks: &[Arc<Block>]) -> Result<Value, Failure> {
        let matching = |block: &&Arc<Block>| self.filter.matches(&filter::of_block(block.height));
        let (rows, total) = self.page(blocks.iter().filter(matching).collect())?;
        let rows = rows.into_iter().map(|block| comet::block(chain_id, block));
        Ok(comet::block_search(rows.collect(), total))
    }

    fn page<T>(&self, mut found: Vec<T>) -> Result<(Vec<T>, usize), Failure> {
        if self.descending {
            found.reverse();
        }
        let (page, total) = (self.page, found.len());
        let pages = total.div_ceil(self.per_page).max(1);
        if page == 0 || page > pages {
            return Err(internal(format!(
                "page should be within [1, {pages}] range, given {page}"
            )));
        }
        let skipped = page.saturating_sub(1).saturating_mul(self.per_page);
        Ok((found.into_iter().skip(skipped).take(self.per_page).collect(), total))
    }
}
