//! Work on the job lane, from files to verified results. Commands and the demonstration stand on it.

pub(crate) mod lane;
mod named;
pub(crate) mod order;
pub(crate) mod prepare;
pub(crate) mod results;
pub(crate) mod rows;
pub(crate) mod shards;
pub(crate) mod supply;
pub(crate) mod texts;
mod why;
