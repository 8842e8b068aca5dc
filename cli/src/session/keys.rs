//! Keys that sign vouchers: one for each session, in `HOME/sessions`, sealed like any other key, with the passphrase of the account that
//! opened it. A file is named by its public key, which the chain tells of every session: numbers begin anew with every new chain.
//!
//! Whoever has such a key spends what the session has allocated, and nothing else.

use anyhow::Context as _;
use client::Wallet;
use schema::PublicKey;

use crate::{
    context::Context,
    keys::{KeyName, KeyStore},
};

/// Letters of the public key in the name of a file: enough to tell apart all that anybody will ever make.
const NAME_LETTERS: usize = 24;

/// The folder of these keys.
fn store(context: &Context) -> KeyStore {
    KeyStore::of_sessions(&context.home)
}

fn name(public_key: &[u8]) -> anyhow::Result<KeyName> {
    let text: String = hex::encode(public_key).chars().take(NAME_LETTERS).collect();
    Ok(text.parse()?)
}

/// A new key, on disk before the chain hears of it.
pub(crate) fn create(context: &Context, passphrase: &str) -> anyhow::Result<Wallet> {
    let wallet = Wallet::random();
    let name = name(&wallet.public_key())?;
    store(context).create(&name, &wallet, passphrase)?;
    Ok(wallet)
}

/// Whether the key of a session is here.
pub(crate) fn is_here(context: &Context, public_key: &PublicKey) -> bool {
    let found = name(public_key.as_bytes())
        .ok()
        .and_then(|name| store(context).public_key(&name).ok());
    found.is_some_and(|found| found == public_key.as_bytes())
}

/// Opens the key of a session.
pub(crate) fn open(context: &Context, session: u64, public_key: &PublicKey) -> anyhow::Result<Wallet> {
    let name = name(public_key.as_bytes())?;
    store(context).public_key(&name).with_context(|| {
        format!(
            "the key of session {session} is not in {}: only where it was opened can it be used",
            context.home.join("sessions").display()
        )
    })?;
    let passphrase = context.passphrase()?;
    Ok(store(context).open(&name, &passphrase)?)
}
