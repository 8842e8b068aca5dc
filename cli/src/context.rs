//! What every command needs: the home, the network, the key, and the form of the answer.

use std::{
    io::{self, BufRead, IsTerminal, Write},
    path::{Path, PathBuf},
};

use anyhow::{bail, Context as _};
use clap::Args;
use client::{Account, Client, Network, Wallet};
use zeroize::Zeroizing;

use crate::{
    home,
    keys::{passphrase::Passphrases, KeyName, KeyStore},
    logs::LogFormat,
    output::Format,
};

/// Prefix of addresses where no network is known yet.
const PREFIX: &str = "wasm";

/// Options of every command.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Options of every command")]
pub(crate) struct Globals {
    /// Folder of keys, network.json and state [default: ~/.fxn]
    #[arg(long, global = true, value_name = "DIR", env = "FXN_HOME")]
    pub(crate) home: Option<PathBuf>,
    /// Which network [default: HOME/network.json]
    #[arg(long, global = true, value_name = "FILE", env = "FXN_NETWORK")]
    pub(crate) network: Option<PathBuf>,
    /// URL of a node, instead of those that the network file names; may be given several times
    #[arg(
        long = "node",
        global = true,
        value_name = "URL",
        env = "FXN_NODE",
        value_delimiter = ','
    )]
    pub(crate) nodes: Vec<String>,
    /// Key that signs [default: the only one in HOME/keys]
    #[arg(long, global = true, value_name = "NAME", env = "FXN_KEY")]
    pub(crate) key: Option<KeyName>,
    /// File whose first line is the passphrase of the key; else FXN_PASSPHRASE, else a prompt
    #[arg(long, global = true, value_name = "FILE", env = "FXN_PASSPHRASE_FILE")]
    pub(crate) passphrase_file: Option<PathBuf>,
    /// Form of the answer on stdout
    #[arg(long, global = true, value_enum, default_value_t = Format::Text)]
    pub(crate) output: Format,
    /// Form of the logs of services on stderr
    #[arg(long, global = true, value_enum, value_name = "FORMAT", env = "FXN_LOG_FORMAT", default_value_t = LogFormat::Text)]
    pub(crate) log_format: LogFormat,
    /// Do not ask before something that cannot be undone
    #[arg(short, long, global = true)]
    pub(crate) yes: bool,
}

/// The options, checked and with their defaults.
#[derive(Debug, Clone)]
pub(crate) struct Context {
    pub(crate) home: PathBuf,
    pub(crate) output: Format,
    pub(crate) passphrases: Passphrases,
    network: Option<PathBuf>,
    nodes: Vec<String>,
    key: Option<KeyName>,
    yes: bool,
}

impl Context {
    pub(crate) fn new(globals: Globals) -> anyhow::Result<Self> {
        let folder = globals.home.map_or_else(home::default, Ok)?;
        Ok(Self {
            home: home::prepared(&folder)?,
            output: globals.output,
            passphrases: Passphrases {
                file: globals.passphrase_file,
            },
            network: globals.network,
            nodes: globals.nodes,
            key: globals.key,
            yes: globals.yes,
        })
    }

    /// The network file named on the command line, if one was.
    pub(crate) fn named_network(&self) -> Option<&Path> {
        self.network.as_deref()
    }

    pub(crate) fn network_path(&self) -> PathBuf {
        self.network.clone().unwrap_or_else(|| self.home.join("network.json"))
    }

    pub(crate) fn network(&self) -> anyhow::Result<Network> {
        let path = self.network_path();
        if !path.exists() {
            bail!(
                "no network is known: {} does not exist. Give --network FILE, or start one with `fxn demo --keep` or `fxn devnet`",
                path.display()
            );
        }
        Ok(Network::load(&path)?.with_nodes(&self.nodes))
    }

    /// Whether commands find this home without any flag.
    pub(crate) fn is_usual_home(&self) -> bool {
        home::default().is_ok_and(|usual| usual.canonicalize().is_ok_and(|usual| usual == self.home))
    }

    /// The nodes named on the command line.
    pub(crate) fn nodes(&self) -> &[String] {
        &self.nodes
    }

    pub(crate) async fn client(&self) -> anyhow::Result<Client> {
        let client = Client::connect(self.network()?).await?;
        // Money sent to the wrong contract would be lost.
        client.check_contracts().await?;
        Ok(client)
    }

    /// The key's account on the network.
    pub(crate) async fn account(&self) -> anyhow::Result<Account> {
        let wallet = self.wallet(&self.key_name()?)?;
        Ok(Account::new(self.client().await?, wallet))
    }

    /// The key's account, and the passphrase that opens the key: for keys that are sealed with the same one.
    pub(crate) async fn account_and_passphrase(&self) -> anyhow::Result<(Account, Zeroizing<String>)> {
        let name = self.key_name()?;
        self.keys().public_key(&name)?;
        let passphrase = self.passphrase()?;
        let wallet = self.keys().open(&name, &passphrase)?;
        Ok((Account::new(self.client().await?, wallet), passphrase))
    }

    /// The passphrase of the key that signs.
    pub(crate) fn passphrase(&self) -> anyhow::Result<Zeroizing<String>> {
        let name = self.key_name()?;
        let beside = self.keys().passphrase_path(&name);
        self.passphrases.for_opening(name.as_str(), &beside)
    }

    /// Prefix of addresses: the network's, else the usual one.
    pub(crate) fn prefix(&self) -> String {
        self.network()
            .map_or_else(|_| PREFIX.to_owned(), |network| network.bech32_prefix)
    }

    pub(crate) fn keys(&self) -> KeyStore {
        KeyStore::new(&self.home)
    }

    /// The key named on the command line, else the only one there is.
    pub(crate) fn key_name(&self) -> anyhow::Result<KeyName> {
        if let Some(name) = &self.key {
            return Ok(name.clone());
        }
        let names = self.keys().names()?;
        match names.as_slice() {
            [only] => Ok(only.clone()),
            [] => bail!("there is no key yet; `fxn keys new NAME` makes one"),
            several => {
                let names: Vec<_> = several.iter().map(KeyName::as_str).collect();
                bail!("which key? Give --key with one of: {}", names.join(", "))
            }
        }
    }

    /// Opens a key file.
    pub(crate) fn wallet(&self, name: &KeyName) -> anyhow::Result<Wallet> {
        let keys = self.keys();
        // A missing key is told before a passphrase is asked for.
        keys.public_key(name)?;
        let passphrase = self
            .passphrases
            .for_opening(name.as_str(), &keys.passphrase_path(name))?;
        Ok(keys.open(name, &passphrase)?)
    }

    /// The address of a key, without opening it.
    pub(crate) fn address(&self) -> anyhow::Result<String> {
        let public_key = self.keys().public_key(&self.key_name()?)?;
        Ok(client::address_of(&public_key, &self.prefix())?)
    }

    /// Asks before something that cannot be undone. Where nobody can be asked, only `--yes` is a yes.
    pub(crate) fn confirm(&self, question: &str) -> anyhow::Result<bool> {
        if self.yes {
            return Ok(true);
        }
        if !io::stdin().is_terminal() {
            bail!("{question} Nobody can be asked here: say --yes");
        }
        write!(io::stderr(), "{question} [y/N] ").context("failed to ask")?;
        let mut answer = String::new();
        io::stdin()
            .lock()
            .read_line(&mut answer)
            .context("failed to read the answer")?;
        Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
    }
}
