//! Where a passphrase comes from: `--passphrase-file`, then `FXN_PASSPHRASE`, then a prompt on the terminal.

use std::{
    fs::File,
    io::{self, IsTerminal, Read},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use anyhow::{anyhow, bail, ensure, Context as _};
use zeroize::Zeroizing;

/// Names the variable in which a passphrase may be handed over.
pub(crate) const VARIABLE: &str = "FXN_PASSPHRASE";
/// Longer ones are a mistaken file.
const BYTES_MAX: usize = 4096;
/// The mode's bit for everybody else.
const READABLE_BY_ANYBODY: u32 = 0o004;

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
    let text = read_secret_file(path)?;
    let line = text.lines().next().unwrap_or_default();
    ensure!(!line.is_empty(), "the passphrase file {} is empty", path.display());
    Ok(Zeroizing::new(line.to_owned()))
}

/// The text of a short file that only its owner may read.
pub(crate) fn read_secret_file(path: &Path) -> anyhow::Result<Zeroizing<String>> {
    let failed = || format!("failed to read {}", path.display());
    let mut file = File::open(path).with_context(failed)?;
    let mode = file.metadata().with_context(failed)?.permissions().mode();
    ensure!(
        mode & READABLE_BY_ANYBODY == 0,
        "{path} holds a secret that every account of this machine may read: `chmod 600 {path}` ends that",
        path = path.display()
    );
    // Room for everything at once: what a growing buffer leaves behind would not be wiped.
    let mut bytes = Zeroizing::new(vec![0; BYTES_MAX + 1]);
    let mut filled = 0_usize;
    loop {
        let rest = bytes.get_mut(filled..).unwrap_or_default();
        match file.read(rest).with_context(failed)? {
            0 => break,
            read => filled = filled.saturating_add(read),
        }
    }
    ensure!(
        filled <= BYTES_MAX,
        "{} is longer than any secret: is it the right file?",
        path.display()
    );
    let text = std::str::from_utf8(bytes.get(..filled).unwrap_or_default());
    // The error would tell where the secret is not UTF-8.
    let text = text.map_err(|_| anyhow!("{} is not valid UTF-8", path.display()))?;
    Ok(Zeroizing::new(text.to_owned()))
}

/// Asks on the terminal without showing what is typed.
pub(crate) fn prompt(question: &str) -> anyhow::Result<Zeroizing<String>> {
    if !io::stdin().is_terminal() {
        bail!("a passphrase is needed and nobody can be asked: give --passphrase-file FILE or set {VARIABLE}");
    }
    let answer = rpassword::prompt_password(question).context("failed to ask for the passphrase")?;
    Ok(Zeroizing::new(answer))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn file(content: &[u8], mode: u32) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), content).unwrap();
        fs::set_permissions(file.path(), fs::Permissions::from_mode(mode)).unwrap();
        file
    }

    #[test]
    fn the_first_line_of_a_private_file_is_the_passphrase() {
        let found = from_file(file(b"correct horse\nsecond line\n", 0o600).path()).unwrap();
        assert_eq!(found.as_str(), "correct horse");
    }

    #[test]
    fn a_file_that_everybody_may_read_or_that_holds_no_passphrase_is_refused_without_telling_it() {
        for (content, mode, reason) in [
            (&b"hunter2"[..], 0o644, "every account"),
            (b"", 0o600, "is empty"),
            (b"\nhunter2", 0o600, "is empty"),
            (b"hunter2\xff", 0o600, "not valid UTF-8"),
            (&[b'h'; 5000], 0o600, "longer than any secret"),
        ] {
            let refused = format!("{:#}", from_file(file(content, mode).path()).unwrap_err());
            assert!(refused.contains(reason) && !refused.contains("hunter2"), "{refused}");
        }
    }
}
