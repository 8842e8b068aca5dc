//! The folder of key files.

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
    str::FromStr,
};

use client::Wallet;

use super::file::{KeyFile, KeyFileError};
use crate::home;

/// Name of a key: `[a-z0-9][a-z0-9._-]{0,63}`, so that it is also a file name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct KeyName(String);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no name of a key: 1 to 64 of a-z 0-9 . _ -, the first a letter or digit")]
pub(crate) struct KeyNameError {
    text: String,
}

impl KeyName {
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for KeyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for KeyName {
    type Err = KeyNameError;

    fn from_str(text: &str) -> Result<Self, KeyNameError> {
        // The rule for names on chain is the rule for names of keys.
        match text.parse::<schema::Namespace>() {
            Ok(name) => Ok(Self(name.to_string())),
            Err(_) => Err(KeyNameError {
                text: text.chars().take(80).collect(),
            }),
        }
    }
}

/// `HOME/keys`.
#[derive(Debug, Clone)]
pub(crate) struct KeyStore {
    folder: PathBuf,
}

impl KeyStore {
    pub(crate) fn new(home: &Path) -> Self {
        Self {
            folder: home.join("keys"),
        }
    }

    /// `HOME/sessions`: keys that sign vouchers.
    pub(crate) fn of_sessions(home: &Path) -> Self {
        Self {
            folder: home.join("sessions"),
        }
    }

    /// Where a key lies.
    pub(crate) fn path(&self, name: &KeyName) -> PathBuf {
        self.folder.join(format!("{name}.json"))
    }

    /// Where a passphrase may lie beside its key. Only `fxn demo` puts one there.
    pub(crate) fn passphrase_path(&self, name: &KeyName) -> PathBuf {
        self.folder.join(format!("{name}.passphrase"))
    }

    pub(crate) fn check_free(&self, name: &KeyName) -> Result<(), KeyFileError> {
        let path = self.path(name);
        // A link that leads nowhere is in the way too.
        if fs::symlink_metadata(&path).is_ok() {
            return Err(KeyFileError::Exists { path });
        }
        Ok(())
    }

    pub(crate) fn create(&self, name: &KeyName, wallet: &Wallet, passphrase: &str) -> Result<(), KeyFileError> {
        home::create_private(&self.folder).map_err(|source| KeyFileError::Io {
            path: self.folder.clone(),
            source,
        })?;
        KeyFile::create(&self.path(name), wallet, passphrase)
    }

    fn read(&self, name: &KeyName) -> Result<KeyFile, KeyFileError> {
        KeyFile::read(&self.path(name)).map_err(|error| match error {
            KeyFileError::Io { source, .. } if source.kind() == io::ErrorKind::NotFound => KeyFileError::Missing {
                name: name.to_string(),
                folder: self.folder.clone(),
            },
            other => other,
        })
    }

    pub(crate) fn public_key(&self, name: &KeyName) -> Result<Vec<u8>, KeyFileError> {
        self.read(name).map(|file| file.public_key())
    }

    pub(crate) fn open(&self, name: &KeyName, passphrase: &str) -> Result<Wallet, KeyFileError> {
        self.read(name)?.open(passphrase)
    }

    /// All keys, by name. No folder: none.
    pub(crate) fn names(&self) -> Result<Vec<KeyName>, KeyFileError> {
        let failed = |source| KeyFileError::Io {
            path: self.folder.clone(),
            source,
        };
        let entries = match fs::read_dir(&self.folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(vec![]),
            entries => entries.map_err(failed)?,
        };
        let mut names = vec![];
        for entry in entries {
            let file_name = entry.map_err(failed)?.file_name();
            let name = file_name.to_str().and_then(|text| text.strip_suffix(".json"));
            names.extend(name.and_then(|name| name.parse::<KeyName>().ok()));
        }
        names.sort();
        Ok(names)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_leave_the_folder() {
        for bad in ["", "..", "../a", "a/b", "A", "a b", ".hidden", "a\0"] {
            assert!(bad.parse::<KeyName>().is_err(), "{bad:?}");
        }
        assert!("alice-2.old".parse::<KeyName>().is_ok());
    }

    #[test]
    fn keys_are_listed_by_name_and_a_missing_one_is_named() {
        let home = tempfile::tempdir().unwrap();
        let keys = KeyStore::new(home.path());
        assert_eq!(keys.names().unwrap(), []);
        let name = |text: &str| text.parse::<KeyName>().unwrap();
        keys.create(&name("b"), &Wallet::dev("b"), "p").unwrap();
        keys.create(&name("a"), &Wallet::dev("a"), "p").unwrap();
        fs::write(keys.passphrase_path(&name("a")), "p").unwrap();
        assert_eq!(keys.names().unwrap(), [name("a"), name("b")]);
        let missing = keys.open(&name("c"), "p").unwrap_err().to_string();
        assert!(missing.starts_with("there is no key \"c\" in "), "{missing}");
    }
}
