//! Code that is stored on the chain.

use crate::{client::Client, cosmos, error::ClientError};

/// Codes that one answer holds.
const PAGE: u64 = 100;
/// Most codes that are looked through for a checksum, newest first. A chain that has more answers no sooner if all are read.
const CODES_MAX: usize = 20_000;

/// What the chain knows of a stored code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CodeInfo {
    /// Its number.
    pub code_id: u64,
    /// Who stored it.
    pub creator: String,
    /// sha256 of the module, unzipped.
    pub checksum: [u8; 32],
    /// Whether anybody may make contracts of it.
    pub is_for_everybody: bool,
}

impl Client {
    /// A code by its number.
    pub async fn code(&self, code_id: u64) -> Result<Option<CodeInfo>, ClientError> {
        let query = cosmos::codes_query(cosmos::code_key(code_id), 1, false);
        let (codes, _) = match self.ask_chain(query).await {
            // A page cannot begin at a key that is not there.
            Err(ClientError::Refused { .. }) => return Ok(None),
            value => cosmos::codes_answer(&value?)?,
        };
        Ok(codes.into_iter().find(|code| code.code_id == code_id))
    }

    /// The newest code with this checksum that this account may make contracts of.
    pub async fn find_code(&self, checksum: &[u8; 32], account: &str) -> Result<Option<CodeInfo>, ClientError> {
        let mut key = vec![];
        let mut seen = 0usize;
        loop {
            let value = self.ask_chain(cosmos::codes_query(key, PAGE, true)).await?;
            let (codes, next) = cosmos::codes_answer(&value)?;
            seen = seen.saturating_add(codes.len());
            let usable = |code: &CodeInfo| code.is_for_everybody || code.creator == account;
            let found = codes
                .into_iter()
                .find(|code| code.checksum == *checksum && usable(code));
            match (found, next) {
                (None, Some(next)) if seen < CODES_MAX => key = next,
                (found, _) => return Ok(found),
            }
        }
    }
}
