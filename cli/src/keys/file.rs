//! Encrypted key files: argon2id makes a key of the passphrase, XChaCha20-Poly1305 seals the secret with it.
//!
//! Guarantees: a key file is never overwritten, is complete or absent, and has mode 0600, whatever lies at its path, whoever writes at the
//! same time and whenever the machine stops; everything in it that stands in the clear (public key, parameters) is authenticated by the
//! seal; a file that asks for absurd amounts of memory is refused before any is used; reading changes nothing.

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

use argon2::{Algorithm, Argon2, Params, Version};
use chacha20poly1305::{
    aead::{Aead, KeyInit, Payload},
    XChaCha20Poly1305, XNonce,
};
use client::Wallet;
use rand::{rngs::OsRng, RngCore};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

const FORMAT: u32 = 1;
/// The second recommendation of RFC 9106: 64 MiB, three passes.
const MEMORY_KIB: u32 = 64 * 1024;
const ITERATIONS: u32 = 3;
/// Bounds for files of others: 1 GiB and a minute at the very most.
const MEMORY_KIB_MAX: u32 = 1024 * 1024;
const ITERATIONS_MAX: u32 = 64;
const LANES_MAX: u32 = 16;
/// Argon2 needs eight blocks a lane.
const MEMORY_KIB_A_LANE_MIN: u32 = 8;
const SALT_BYTES: usize = 16;
const NONCE_BYTES: usize = 24;
/// The secret and the tag.
const SEALED_BYTES: usize = 32 + 16;
/// A key file is a few hundred bytes.
const FILE_BYTES_MAX: u64 = 16 * 1024;

/// Why a key file cannot be written or opened.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KeyFileError {
    #[error("{path} exists already and keys are never overwritten: take another name, or move the file away", path = path.display())]
    Exists { path: PathBuf },
    #[error("there is no key {name:?} in {folder}: `fxn keys list` shows those that are", folder = folder.display())]
    Missing { name: String, folder: PathBuf },
    #[error("{path}: {source}", path = path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("{path} cannot be used as a key file and was left as it is: {reason}", path = path.display())]
    Content { path: PathBuf, reason: String },
    #[error("the passphrase does not open {path}, or somebody has changed the file", path = path.display())]
    Sealed { path: PathBuf },
    #[error("failed to derive a key from the passphrase: {reason}")]
    Derive { reason: String },
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kdf {
    name: String,
    memory_kib: u32,
    iterations: u32,
    lanes: u32,
    salt: String,
}

/// What stands on disk.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Content {
    format: u32,
    /// Compressed secp256k1 key: shows the address without a passphrase.
    public_key: String,
    kdf: Kdf,
    cipher: String,
    nonce: String,
    sealed: String,
}

const KDF: &str = "argon2id";
const CIPHER: &str = "xchacha20poly1305";

/// A key file that was read but not opened.
#[derive(Debug, Clone)]
pub(crate) struct KeyFile {
    path: PathBuf,
    content: Content,
}

impl KeyFile {
    /// Seals the wallet's secret and writes it to a file that must not exist.
    pub(crate) fn create(path: &Path, wallet: &Wallet, passphrase: &str) -> Result<(), KeyFileError> {
        let content = seal(wallet, passphrase)?;
        let text = serde_json::to_vec_pretty(&content).map_err(|error| KeyFileError::Derive {
            reason: error.to_string(),
        })?;
        write_new(path, &text)
    }

    pub(crate) fn read(path: &Path) -> Result<Self, KeyFileError> {
        let failed = |source| KeyFileError::Io {
            path: path.to_owned(),
            source,
        };
        let refused = |reason: String| KeyFileError::Content {
            path: path.to_owned(),
            reason,
        };
        // Opening a pipe would wait for somebody who writes.
        if !fs::metadata(path).map_err(failed)?.is_file() {
            return Err(refused("it is not a regular file".to_owned()));
        }
        let mut text = vec![];
        let limit = FILE_BYTES_MAX.saturating_add(1);
        let read = File::open(path).and_then(|file| file.take(limit).read_to_end(&mut text));
        if u64::try_from(read.map_err(failed)?).unwrap_or(u64::MAX) > FILE_BYTES_MAX {
            return Err(refused(format!(
                "it has more than the {FILE_BYTES_MAX} bytes of any key file"
            )));
        }
        let content: Content = serde_json::from_slice(&text).map_err(|error| refused(error.to_string()))?;
        check(&content).map_err(refused)?;
        Ok(Self {
            path: path.to_owned(),
            content,
        })
    }

    /// Compressed public key. Authenticated only once the file was opened.
    pub(crate) fn public_key(&self) -> Vec<u8> {
        hex::decode(&self.content.public_key).unwrap_or_default()
    }

    pub(crate) fn open(&self, passphrase: &str) -> Result<Wallet, KeyFileError> {
        let sealed = || KeyFileError::Sealed {
            path: self.path.clone(),
        };
        let key = derive(&self.content.kdf, passphrase)?;
        let cipher = XChaCha20Poly1305::new(key.as_slice().into());
        let nonce = decode::<NONCE_BYTES>(&self.content.nonce).ok_or_else(sealed)?;
        let message = hex::decode(&self.content.sealed).map_err(|_| sealed())?;
        let payload = Payload {
            msg: &message,
            aad: &clear_part(&self.content),
        };
        let secret = cipher
            .decrypt(XNonce::from_slice(&nonce), payload)
            .map_err(|_| sealed())?;
        let secret = Zeroizing::new(secret);
        Wallet::from_secret(&secret).map_err(|_| sealed())
    }
}

fn seal(wallet: &Wallet, passphrase: &str) -> Result<Content, KeyFileError> {
    let (mut salt, mut nonce) = ([0_u8; SALT_BYTES], [0_u8; NONCE_BYTES]);
    OsRng.fill_bytes(&mut salt);
    OsRng.fill_bytes(&mut nonce);
    let mut content = Content {
        format: FORMAT,
        public_key: hex::encode(wallet.public_key()),
        kdf: Kdf {
            name: KDF.to_owned(),
            memory_kib: MEMORY_KIB,
            iterations: ITERATIONS,
            lanes: 1,
            salt: hex::encode(salt),
        },
        cipher: CIPHER.to_owned(),
        nonce: hex::encode(nonce),
        sealed: String::new(),
    };
    let key = derive(&content.kdf, passphrase)?;
    let cipher = XChaCha20Poly1305::new(key.as_slice().into());
    let secret = wallet.secret();
    let payload = Payload {
        msg: secret.as_slice(),
        aad: &clear_part(&content),
    };
    let sealed = cipher.encrypt(XNonce::from_slice(&nonce), payload);
    content.sealed = hex::encode(sealed.map_err(|error| KeyFileError::Derive {
        reason: error.to_string(),
    })?);
    Ok(content)
}

fn check(content: &Content) -> Result<(), String> {
    let kdf = &content.kdf;
    if content.format != FORMAT {
        return Err(format!("it has format {}, this program reads {FORMAT}", content.format));
    }
    if kdf.name != KDF || content.cipher != CIPHER {
        return Err(format!(
            "it is sealed with {} and {}, not {KDF} and {CIPHER}",
            kdf.name, content.cipher
        ));
    }
    let bounded = kdf.memory_kib <= MEMORY_KIB_MAX && kdf.iterations <= ITERATIONS_MAX && kdf.lanes <= LANES_MAX;
    if !bounded {
        let Kdf {
            memory_kib, iterations, ..
        } = kdf;
        return Err(format!(
            "it asks for {memory_kib} KiB and {iterations} passes, more than any key needs"
        ));
    }
    let least = kdf.lanes.saturating_mul(MEMORY_KIB_A_LANE_MIN);
    if kdf.lanes == 0 || kdf.iterations == 0 || kdf.memory_kib < least {
        let Kdf {
            memory_kib,
            iterations,
            lanes,
            ..
        } = kdf;
        return Err(format!(
            "argon2id cannot be run with {memory_kib} KiB, {iterations} passes and {lanes} lanes"
        ));
    }
    let wrong = |what: &str, bytes: usize| format!("its {what} is not {bytes} bytes in hex");
    decode::<33>(&content.public_key).ok_or_else(|| wrong("public key", 33))?;
    decode::<SALT_BYTES>(&kdf.salt).ok_or_else(|| wrong("salt", SALT_BYTES))?;
    decode::<NONCE_BYTES>(&content.nonce).ok_or_else(|| wrong("nonce", NONCE_BYTES))?;
    decode::<SEALED_BYTES>(&content.sealed).ok_or_else(|| wrong("sealed secret", SEALED_BYTES))?;
    Ok(())
}

fn decode<const N: usize>(text: &str) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    hex::decode_to_slice(text, &mut bytes).ok().map(|()| bytes)
}

/// Everything but the sealed bytes, as one unambiguous text.
fn clear_part(content: &Content) -> Vec<u8> {
    let Content {
        format,
        public_key,
        kdf,
        cipher,
        nonce,
        ..
    } = content;
    let Kdf {
        name,
        memory_kib,
        iterations,
        lanes,
        salt,
    } = kdf;
    let fields = (
        format, public_key, name, memory_kib, iterations, lanes, salt, cipher, nonce,
    );
    format!("fxn/key-file/v1 {fields:?}").into_bytes()
}

fn derive(kdf: &Kdf, passphrase: &str) -> Result<Zeroizing<[u8; 32]>, KeyFileError> {
    let failed = |reason: String| KeyFileError::Derive { reason };
    let salt = hex::decode(&kdf.salt).map_err(|error| failed(error.to_string()))?;
    let params = Params::new(kdf.memory_kib, kdf.iterations, kdf.lanes, Some(32));
    let params = params.map_err(|error| failed(error.to_string()))?;
    let mut key = Zeroizing::new([0; 32]);
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
        .hash_password_into(passphrase.as_bytes(), &salt, key.as_mut_slice())
        .map_err(|error| failed(error.to_string()))?;
    Ok(key)
}

/// Writes a file of mode 0600 that must not exist. A crash leaves no half of it.
pub(crate) fn write_new(path: &Path, content: &[u8]) -> Result<(), KeyFileError> {
    let failed = |source: io::Error| match source.kind() {
        io::ErrorKind::AlreadyExists => KeyFileError::Exists { path: path.to_owned() },
        _ => KeyFileError::Io {
            path: path.to_owned(),
            source,
        },
    };
    let folder = path.parent().unwrap_or_else(|| Path::new("."));
    // Temporary files are made with mode 0600.
    let mut file = tempfile::NamedTempFile::new_in(folder).map_err(failed)?;
    file.write_all(content).map_err(failed)?;
    file.as_file().sync_all().map_err(failed)?;
    file.persist_noclobber(path).map_err(|error| failed(error.error))?;
    // The words of a new key are shown once, so its name must not get lost either.
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn sealed() -> (tempfile::TempDir, PathBuf, Wallet) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.json");
        let wallet = Wallet::dev("a");
        KeyFile::create(&path, &wallet, "right").unwrap();
        (folder, path, wallet)
    }

    #[test]
    fn the_passphrase_brings_the_key_back_and_another_does_not() {
        let (_folder, path, wallet) = sealed();
        let file = KeyFile::read(&path).unwrap();
        assert_eq!(file.public_key(), wallet.public_key());
        assert_eq!(file.open("right").unwrap().secret(), wallet.secret());
        assert!(matches!(file.open("wrong"), Err(KeyFileError::Sealed { .. })));
        assert!(!fs::read_to_string(&path)
            .unwrap()
            .contains(&hex::encode(*wallet.secret())));
    }

    #[test]
    fn a_key_file_is_never_overwritten() {
        let (folder, path, _) = sealed();
        let before = fs::read(&path).unwrap();
        let again = KeyFile::create(&path, &Wallet::dev("b"), "other");
        assert!(matches!(again, Err(KeyFileError::Exists { .. })));
        assert_eq!(fs::read(&path).unwrap(), before);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn whatever_lies_at_its_path_stays_there() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("elsewhere");
        let [link, directory] = ["link.json", "directory.json"].map(|name| folder.path().join(name));
        std::os::unix::fs::symlink(&target, &link).unwrap();
        fs::create_dir(&directory).unwrap();
        for path in [link, directory] {
            let refused = KeyFile::create(&path, &Wallet::dev("a"), "p");
            assert!(matches!(refused, Err(KeyFileError::Exists { .. })), "{refused:?}");
        }
        assert!(!target.exists());
    }

    #[test]
    fn of_many_that_make_the_same_key_at_once_one_wins_and_nobody_sees_half_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.json");
        let made = std::thread::scope(|scope| {
            let writers: Vec<_> = (0..8_u8)
                .map(|number| {
                    let path = &path;
                    scope.spawn(move || write_new(path, &[number; 4096]).is_ok())
                })
                .collect();
            writers
                .into_iter()
                .filter_map(|writer| writer.join().ok())
                .filter(|made| *made)
                .count()
        });
        assert_eq!(made, 1);
        let content = fs::read(&path).unwrap();
        assert_eq!(content, vec![content[0]; 4096]);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn only_its_owner_may_read_a_key_file() {
        let (_folder, path, _) = sealed();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_changed_file_does_not_open() {
        let (_folder, path, _) = sealed();
        let original: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        let other = hex::encode(Wallet::dev("b").public_key());
        let changes: [(&str, serde_json::Value); 4] = [
            ("/public_key", other.into()),
            ("/nonce", "00".repeat(24).into()),
            ("/sealed", "00".repeat(48).into()),
            ("/kdf/salt", "00".repeat(16).into()),
        ];
        for (field, value) in changes {
            let mut changed = original.clone();
            *changed.pointer_mut(field).unwrap() = value;
            fs::write(&path, changed.to_string()).unwrap();
            let opened = KeyFile::read(&path).unwrap().open("right");
            assert!(matches!(opened, Err(KeyFileError::Sealed { .. })), "{field}");
        }
    }

    #[test]
    fn a_file_that_no_program_should_open_is_refused_with_its_reason_and_stays() {
        let (_folder, path, _) = sealed();
        let original: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        let changes: [(&str, serde_json::Value, &str); 10] = [
            ("/kdf/memory_kib", u32::MAX.into(), "4294967295 KiB"),
            ("/kdf/memory_kib", (64_u64 << 20).into(), "67108864 KiB"),
            ("/kdf/memory_kib", 1.into(), "cannot be run with 1 KiB"),
            ("/kdf/memory_kib", (-1).into(), "invalid value"),
            ("/kdf/iterations", 1_000_000.into(), "1000000 passes"),
            ("/kdf/lanes", 0.into(), "0 lanes"),
            ("/kdf/name", "scrypt".into(), "scrypt"),
            ("/format", 2.into(), "format 2"),
            ("/nonce", "00".into(), "nonce is not 24 bytes"),
            ("/sealed", "zz".into(), "sealed secret is not 48 bytes"),
        ];
        for (field, value, reason) in changes {
            let mut changed = original.clone();
            *changed.pointer_mut(field).unwrap() = value;
            fs::write(&path, changed.to_string()).unwrap();
            let refused = KeyFile::read(&path).unwrap_err().to_string();
            assert!(refused.contains(reason), "{field}: {refused}");
            assert_eq!(fs::read_to_string(&path).unwrap(), changed.to_string());
        }
    }

    #[test]
    fn what_is_no_key_file_at_all_is_refused() {
        let (folder, path, _) = sealed();
        let whole = fs::read(&path).unwrap();
        for content in [
            &b""[..],
            b"{",
            b"\xff\xfe",
            &whole[..whole.len() / 2],
            &[b' '; 20_000][..],
        ] {
            fs::write(&path, content).unwrap();
            assert!(matches!(KeyFile::read(&path), Err(KeyFileError::Content { .. })));
        }
        let directory = KeyFile::read(folder.path()).unwrap_err().to_string();
        assert!(directory.contains("not a regular file"), "{directory}");
    }
}
