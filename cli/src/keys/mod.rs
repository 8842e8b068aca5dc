//! `fxn keys`: encrypted key files in `HOME/keys`.

mod file;
pub(crate) mod passphrase;
mod store;

use std::{
    fmt,
    io::{self, IsTerminal, Read},
    path::{Path, PathBuf},
};

use anyhow::{anyhow, bail, Context as _};
use clap::{Args, Subcommand};
use client::Wallet;
use devnet::{DEV_ACCOUNTS, FAUCET};
use rand::RngCore;
use serde::{Serialize, Serializer};
use zeroize::Zeroizing;

use self::file::write_new;
pub(crate) use self::{
    passphrase::VARIABLE as PASSPHRASE_VARIABLE,
    store::{KeyName, KeyStore},
};
use crate::{context::Context, output::Table};

/// Longest phrase or hex secret that is read: 24 words have fewer than 240 letters.
const SECRET_BYTES_MAX: u64 = 4096;

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make a key and show its 24 words once
    #[command(after_help = "Example:\n  fxn keys new alice")]
    New {
        /// Name of the key: a-z 0-9 . _ -
        name: KeyName,
    },
    /// Bring a key back from its 24 words or its hex secret, asked for at a prompt or read from a file or stdin
    #[command(
        after_help = "Examples:\n  fxn keys import alice\n  fxn keys import alice --file words.txt\n  fxn keys import alice --hex < secret.txt\n  fxn keys import faucet --dev\n\nNo secret is ever an argument: arguments are seen by everybody on this machine."
    )]
    Import(Import),
    /// All keys with their addresses
    #[command(after_help = "Example:\n  fxn keys list --output json")]
    List,
    /// Address and public key; no passphrase is needed
    #[command(after_help = "Example:\n  fxn keys show alice")]
    Show {
        /// Name of the key; the key that commands use if absent
        name: Option<KeyName>,
    },
    /// Show the secret of a key in hex
    #[command(after_help = "Example:\n  fxn keys export alice --yes")]
    Export {
        /// Name of the key
        name: KeyName,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Import {
    /// Name of the key
    name: KeyName,
    /// The secret is 64 hex digits instead of 24 words
    #[arg(long)]
    hex: bool,
    /// File that holds the secret; only its owner may be able to read it
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// The development account of this name, as devnet and localnet know it. Everybody knows its secret
    #[arg(long, conflicts_with_all = ["hex", "file"])]
    dev: bool,
}

pub(crate) fn run(context: &Context, command: Command) -> anyhow::Result<()> {
    match command {
        Command::New { name } => new(context, &name),
        Command::Import(import) => bring_back(context, &import),
        Command::List => list(context),
        Command::Show { name } => {
            let name = name.map_or_else(|| context.key_name(), Ok)?;
            context.output.print(&described(context, &name)?)
        }
        Command::Export { name } => export(context, &name),
    }
}

/// A secret on its way to the person who asked for it. `Debug` does not show it.
struct Secret(Zeroizing<String>);

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A key as anybody may see it.
#[derive(Debug, Serialize)]
struct Described {
    name: String,
    address: String,
    public_key: String,
    /// Shown once, by `new`.
    #[serde(skip_serializing_if = "Option::is_none")]
    mnemonic: Option<Secret>,
}

impl fmt::Display for Described {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "name        {}", self.name)?;
        writeln!(f, "address     {}", self.address)?;
        writeln!(f, "public key  {}", self.public_key)?;
        match &self.mnemonic {
            Some(words) => writeln!(
                f,
                "\nThese 24 words bring the key back. They are shown this once; write them down:\n\n{words}"
            ),
            None => Ok(()),
        }
    }
}

fn described(context: &Context, name: &KeyName) -> anyhow::Result<Described> {
    let public_key = context.keys().public_key(name)?;
    Ok(Described {
        name: name.to_string(),
        address: client::address_of(&public_key, &context.prefix())?,
        public_key: hex::encode(public_key),
        mnemonic: None,
    })
}

fn new(context: &Context, name: &KeyName) -> anyhow::Result<()> {
    let keys = context.keys();
    keys.check_free(name)?;
    let (wallet, words) = Wallet::generate()?;
    let passphrase = context.passphrases.for_sealing(name.as_str())?;
    keys.create(name, &wallet, &passphrase)?;
    let mut answer = described(context, name)?;
    answer.mnemonic = Some(Secret(words));
    context.output.print(&answer)
}

fn bring_back(context: &Context, import: &Import) -> anyhow::Result<()> {
    let keys = context.keys();
    keys.check_free(&import.name)?;
    if import.dev {
        check_dev_account(&import.name)?;
        // Nothing is gained by a passphrase that somebody has to remember.
        seal(&context.home, &import.name, &Wallet::dev(import.name.as_str()))?;
        return context.output.print(&described(context, &import.name)?);
    }
    let secret = read_secret(import)?;
    let wallet = if import.hex {
        let mut bytes = Zeroizing::new([0; 32]);
        let decoded = hex::decode_to_slice(secret.trim(), bytes.as_mut_slice());
        // The error would tell a digit of the secret.
        decoded.map_err(|_| anyhow!("the secret is not 64 hex digits; no key was made"))?;
        Wallet::from_secret(bytes.as_slice())?
    } else {
        Wallet::from_mnemonic(&secret)?
    };
    let passphrase = context.passphrases.for_sealing(import.name.as_str())?;
    keys.create(&import.name, &wallet, &passphrase)?;
    context.output.print(&described(context, &import.name)?)
}

fn check_dev_account(name: &KeyName) -> anyhow::Result<()> {
    let mut known = DEV_ACCOUNTS.iter().copied().chain([FAUCET]);
    if known.any(|known| known == name.as_str()) {
        return Ok(());
    }
    let known = DEV_ACCOUNTS.join(", ");
    bail!("{name} is no development account: those are {FAUCET}, {known}; no key was made")
}

/// Puts a key into a home, with a passphrase of its own beside it, so that every command works with this home.
pub(crate) fn seal(home: &Path, name: &KeyName, wallet: &Wallet) -> anyhow::Result<()> {
    let mut random = [0; 16];
    rand::thread_rng().fill_bytes(&mut random);
    let passphrase = Zeroizing::new(hex::encode(random));
    let store = KeyStore::new(home);
    store.create(name, wallet, &passphrase)?;
    write_new(&store.passphrase_path(name), passphrase.as_bytes())?;
    Ok(())
}

fn read_secret(import: &Import) -> anyhow::Result<Zeroizing<String>> {
    if let Some(file) = &import.file {
        return passphrase::read_secret_file(file);
    }
    if io::stdin().is_terminal() {
        return passphrase::prompt(if import.hex {
            "Secret, 64 hex digits: "
        } else {
            "24 words: "
        });
    }
    let capacity = usize::try_from(SECRET_BYTES_MAX).unwrap_or(0);
    let mut text = Zeroizing::new(String::with_capacity(capacity));
    let read = io::stdin().take(SECRET_BYTES_MAX).read_to_string(&mut text);
    read.context("failed to read the secret from stdin")?;
    Ok(text)
}

#[derive(Debug, Serialize)]
#[serde(transparent)]
struct List(Vec<Described>);

impl fmt::Display for List {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return write!(f, "There are no keys yet; `fxn keys new NAME` makes one.");
        }
        let mut table = Table::new(["name", "address"]);
        for key in &self.0 {
            table.row([key.name.clone(), key.address.clone()]);
        }
        table.fmt(f)
    }
}

fn list(context: &Context) -> anyhow::Result<()> {
    let names = context.keys().names()?;
    let keys = names.iter().map(|name| described(context, name));
    context.output.print(&List(keys.collect::<anyhow::Result<_>>()?))
}

#[derive(Debug, Serialize)]
struct Exported {
    name: String,
    secret: Secret,
}

impl fmt::Display for Exported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.secret.fmt(f)
    }
}

fn export(context: &Context, name: &KeyName) -> anyhow::Result<()> {
    if !context.confirm(&format!("Show the secret of {name}? Whoever sees it owns the account."))? {
        bail!("the key was not exported");
    }
    let wallet = context.wallet(name)?;
    context.output.print(&Exported {
        name: name.to_string(),
        secret: Secret(Zeroizing::new(hex::encode(*wallet.secret()))),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{context::Globals, logs::LogFormat, output::Format};

    #[test]
    fn a_development_key_opens_without_being_asked_and_is_the_one_of_the_chain() {
        let home = tempfile::tempdir().unwrap();
        let context = Context::new(Globals {
            home: Some(home.path().to_owned()),
            network: None,
            nodes: vec![],
            key: None,
            passphrase_file: None,
            output: Format::Json,
            log_format: LogFormat::Text,
            yes: false,
        })
        .unwrap();
        let name: KeyName = FAUCET.parse().unwrap();
        seal(&context.home, &name, &Wallet::dev(FAUCET)).unwrap();
        let wallet = context.wallet(&context.key_name().unwrap()).unwrap();
        assert_eq!(wallet.address("wasm"), devnet::dev_address(FAUCET));
    }

    #[test]
    fn only_names_that_a_chain_begins_with_are_development_accounts() {
        for name in DEV_ACCOUNTS.into_iter().chain([FAUCET]) {
            check_dev_account(&name.parse().unwrap()).unwrap();
        }
        let told = check_dev_account(&"provider-7".parse().unwrap())
            .unwrap_err()
            .to_string();
        assert!(told.contains("provider-6") && told.contains(FAUCET), "{told}");
    }
}
