//! Where a passphrase comes from: `--passphrase-file`, then `FXN_PASSPHRASE`, then a prompt on the terminal.

use std::{
    fs,
    io::{self, IsTerminal},
    path::{Path, PathBuf},
};

use anyhow::{bail, ensure, Context as _};
use zeroize::Zeroizing;

/// Names the variable in which a passphrase may be handed over.
pub(crate) const VARIABLE: &str = "FXN_PASSPHRASE";
/// Longer ones are a mistaken file.
const BYTES_MAX: usize = 4096;

/// The sources of one run of the program.
#[derive(Debug, Clone, Default)]
pub(crate) struct Passphrases {
    pub(crate) file: Option<PathBuf>,
}

impl Passphrases {
    /// For a key that exists. `beside` is a passphrase file next to the key, as `fxn demo` writes for its worthless accounts.
    pub(crate) fn for_opening(&self, name: &str, beside: &Path) -> anyhow::Result<Zeroizing<String>> {
        if let Some(given) = self.given()? {
            return Ok(given);
        }
        if beside.is_file() {
            return from_file(beside);
        }
        prompt(&format!("Passphrase of key {name}: "))
    }

    /// For a new key: not empty, and typed twice at a prompt.
    pub(crate) fn for_sealing(&self, name: &str) -> anyhow::Result<Zeroizing<String>> {
        let passphrase = match self.given()? {
            Some(given) => given,
            None => {
                let first = prompt(&format!("New passphrase for key {name}: "))?;
                let second = prompt("The same again: ")?;
                ensure!(first == second, "the two passphrases differ; no key was made");
                first
            }
        };
        ensure!(
            !passphrase.is_empty(),
            "an empty passphrase protects nothing; no key was made"
        );
        Ok(passphrase)
    }

    fn given(&self) -> anyhow::Result<Option<Zeroizing<String>>> {
        if let Some(path) = &self.file {
            return from_file(path).map(Some);
        }
        match std::env::var(VARIABLE) {
            Ok(text) => Ok(Some(Zeroizing::new(text))),
            Err(std::env::VarError::NotPresent) => Ok(None),
            Err(std::env::VarError::NotUnicode(_)) => bail!("{VARIABLE} is not valid UTF-8"),
        }
    }
}

/// The first line of the file.
fn from_file(path: &Path) -> anyhow::Result<Zeroizing<String>> {
    let text =
        fs::read_to_string(path).with_context(|| format!("failed to read the passphrase file {}", path.display()))?;
    let text = Zeroizing::new(text);
    let line = text.lines().next().unwrap_or_default();
    ensure!(
        line.len() <= BYTES_MAX,
        "{} is no passphrase file: its first line is too long",
        path.display()
    );
    Ok(Zeroizing::new(line.to_owned()))
}

/// Asks on the terminal without showing what is typed.
pub(crate) fn prompt(question: &str) -> anyhow::Result<Zeroizing<String>> {
    if !io::stdin().is_terminal() {
        bail!("a passphrase is needed and nobody can be asked: give --passphrase-file FILE or set {VARIABLE}");
    }
    let answer = rpassword::prompt_password(question).context("failed to ask for the passphrase")?;
    Ok(Zeroizing::new(answer))
}
