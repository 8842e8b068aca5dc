//! A secp256k1 key: signs transactions, and the digests of receipts and vouchers.
//!
//! Guarantees: signatures are low-s, as contracts and the chain demand; the secret never appears in `Debug`, `Display`
//! or an error, and its memory is wiped when the wallet is dropped.

use std::fmt;

use bip32::{DerivationPath, Language, Mnemonic, XPrv};
use k256::ecdsa::{
    signature::hazmat::{PrehashSigner, PrehashVerifier},
    Signature, SigningKey, VerifyingKey,
};
use rand::rngs::OsRng;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::cosmos;

/// The path of the first Cosmos account, what every other wallet derives from a phrase too.
const DERIVATION_PATH: &str = "m/44'/118'/0'/0/0";

/// Why a key cannot be made or read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WalletError {
    /// Not 32 bytes, zero, or not below the order of the curve.
    #[error(
        "not a secp256k1 secret: 32 bytes, neither zero nor above the order of the curve, are needed, got {bytes}"
    )]
    Secret {
        /// How many bytes were given.
        bytes: usize,
    },
    /// The words are no phrase.
    #[error("not a recovery phrase: {words} words were given; 24 English words with a valid checksum are needed")]
    Mnemonic {
        /// How many words were given.
        words: usize,
    },
    /// The bytes are no point on the curve.
    #[error("not a compressed secp256k1 public key: {bytes} bytes that are no point of the curve")]
    PublicKey {
        /// How many bytes were given.
        bytes: usize,
    },
    /// The text is no address of this network.
    #[error("{address:?} is no address with the prefix {prefix:?}")]
    Address {
        /// The text.
        address: String,
        /// The network's prefix.
        prefix: String,
    },
    /// The prefix cannot begin an address.
    #[error("{prefix:?} cannot be the prefix of an address")]
    Prefix {
        /// The prefix.
        prefix: String,
    },
}

/// A secp256k1 key pair.
#[derive(Clone)]
pub struct Wallet {
    // Wiped by k256 when dropped.
    key: SigningKey,
}

impl fmt::Debug for Wallet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wallet")
            .field("public_key", &hex::encode(self.public_key()))
            .finish_non_exhaustive()
    }
}

impl Wallet {
    /// The key whose secret is these 32 bytes.
    pub fn from_secret(secret: &[u8]) -> Result<Wallet, WalletError> {
        let refused = || WalletError::Secret { bytes: secret.len() };
        // The slice form would take 24 bytes and more, and fill the rest with zeros.
        let secret: Zeroizing<[u8; 32]> = Zeroizing::new(secret.try_into().map_err(|_| refused())?);
        let key = SigningKey::from_slice(secret.as_slice()).map_err(|_| refused())?;
        Ok(Wallet { key })
    }

    /// The first Cosmos account of a recovery phrase of 24 English words (`m/44'/118'/0'/0/0`).
    pub fn from_mnemonic(phrase: &str) -> Result<Wallet, WalletError> {
        let words = Zeroizing::new(phrase.split_whitespace().collect::<Vec<_>>().join(" "));
        let refused = |_| WalletError::Mnemonic {
            words: words.split(' ').filter(|word| !word.is_empty()).count(),
        };
        let mnemonic = Mnemonic::new(words.as_str(), Language::English).map_err(refused)?;
        let path: DerivationPath = DERIVATION_PATH.parse().map_err(refused)?;
        let derived = XPrv::derive_from_path(mnemonic.to_seed(""), &path).map_err(refused)?;
        Ok(Wallet {
            key: derived.private_key().clone(),
        })
    }

    /// A new key with the 24 words that bring it back.
    pub fn generate() -> Result<(Wallet, Zeroizing<String>), WalletError> {
        let mnemonic = Mnemonic::random(OsRng, Language::English);
        let phrase = Zeroizing::new(mnemonic.phrase().to_owned());
        Ok((Wallet::from_mnemonic(&phrase)?, phrase))
    }

    /// A new key from the system's randomness, without a phrase.
    pub fn random() -> Wallet {
        Wallet {
            key: SigningKey::random(&mut OsRng),
        }
    }

    /// The development account of this name. Everybody can compute it: it is worthless outside a devnet.
    pub fn dev(name: &str) -> Wallet {
        let mut seed = Sha256::new();
        seed.update(b"function network development account");
        seed.update(name.as_bytes());
        let mut secret = seed.finalize();
        loop {
            if let Ok(key) = SigningKey::from_bytes(&secret) {
                return Wallet { key };
            }
            // One digest in 2^128 is no valid secret; its own digest takes its place.
            secret = Sha256::digest(secret);
        }
    }

    /// The secret, for the encrypted key file and for keys that are made of it.
    pub fn secret(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(self.key.to_bytes().into())
    }

    /// The compressed public key.
    pub fn public_key(&self) -> [u8; 33] {
        let point = self.key.verifying_key().to_encoded_point(true);
        let mut bytes = [0u8; 33];
        bytes.copy_from_slice(point.as_bytes());
        bytes
    }

    /// The account's address under a bech32 prefix of lower-case letters and digits.
    ///
    /// # Panics
    /// When the prefix is none, which a network file that a client accepted cannot have.
    pub fn address(&self, prefix: &str) -> String {
        match address_of(&self.public_key(), prefix) {
            Ok(address) => address,
            Err(error) => panic!("{error}"),
        }
    }

    /// Signs a ready sha256 digest. The signature is `r || s`, low-s.
    pub fn sign_digest(&self, digest: &[u8; 32]) -> [u8; 64] {
        let signature: Signature = self
            .key
            .sign_prehash(digest)
            .expect("a 32-byte digest can always be signed");
        signature.normalize_s().unwrap_or(signature).to_bytes().into()
    }
}

/// Whether `signature` (64 bytes, low-s) is the key's over this digest. Malformed input is `false`.
pub fn verify_digest(public_key: &[u8], digest: &[u8; 32], signature: &[u8]) -> bool {
    let (Ok(key), Ok(signature)) = (
        VerifyingKey::from_sec1_bytes(public_key),
        Signature::from_slice(signature),
    ) else {
        return false;
    };
    // A high-s twin of a valid signature would be a second name for the same fact.
    signature.normalize_s().is_none() && key.verify_prehash(digest, &signature).is_ok()
}

/// Whether the text is an address with this prefix, checksum included.
pub fn is_address(text: &str, prefix: &str) -> bool {
    cosmos::is_address(text, prefix)
}

/// The address of a compressed public key.
pub fn address_of(public_key: &[u8], prefix: &str) -> Result<String, WalletError> {
    let key = VerifyingKey::from_sec1_bytes(public_key).map_err(|_| WalletError::PublicKey {
        bytes: public_key.len(),
    })?;
    cosmos::address(&key, prefix).ok_or_else(|| WalletError::Prefix {
        prefix: prefix.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    // The well-known phrase of 23 times "abandon" and "art"; the address was computed with another wallet library.
    const PHRASE: &str =
        "abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon \
                          abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon art";

    #[test]
    fn a_phrase_gives_the_account_that_other_wallets_give() {
        let wallet = Wallet::from_mnemonic(PHRASE).unwrap();
        assert_eq!(
            wallet.address("cosmos"),
            "cosmos1r5v5srda7xfth3hn2s26txvrcrntldjumt8mhl"
        );
    }

    #[test]
    fn a_generated_phrase_brings_its_key_back() {
        let (wallet, phrase) = Wallet::generate().unwrap();
        assert_eq!(Wallet::from_mnemonic(&phrase).unwrap().secret(), wallet.secret());
    }

    #[test]
    fn a_phrase_with_a_wrong_checksum_is_refused_with_its_length() {
        let wrong = PHRASE.replace("art", "abandon");
        assert_eq!(
            Wallet::from_mnemonic(&wrong).unwrap_err(),
            WalletError::Mnemonic { words: 24 }
        );
        assert_eq!(
            Wallet::from_mnemonic("").unwrap_err(),
            WalletError::Mnemonic { words: 0 }
        );
    }

    #[test]
    fn the_secret_is_not_in_the_debug_output() {
        let wallet = Wallet::dev("alice");
        let shown = format!("{wallet:?}");
        assert!(!shown.contains(&hex::encode(*wallet.secret())));
        assert!(shown.contains(&hex::encode(wallet.public_key())));
    }

    #[test]
    fn a_development_account_is_the_same_everywhere() {
        let secret = Sha256::digest(b"function network development accountfaucet");
        assert_eq!(Wallet::dev("faucet").secret().as_slice(), secret.as_slice());
    }

    #[test]
    fn a_signature_holds_for_its_digest_and_key_only() {
        let (alice, bob) = (Wallet::dev("alice"), Wallet::dev("bob"));
        let digest: [u8; 32] = Sha256::digest(b"receipt").into();
        let signature = alice.sign_digest(&digest);
        assert!(verify_digest(&alice.public_key(), &digest, &signature));
        assert!(!verify_digest(&bob.public_key(), &digest, &signature));
        assert!(!verify_digest(&alice.public_key(), &[0; 32], &signature));
        assert!(!verify_digest(&alice.public_key(), &digest, &signature[..63]));
        assert!(!verify_digest(&[], &digest, &signature));
    }

    #[test]
    fn signatures_are_low_s_and_their_high_s_twins_are_refused() {
        let wallet = Wallet::dev("alice");
        for number in 0u8..16 {
            let digest: [u8; 32] = Sha256::digest([number]).into();
            let signature = wallet.sign_digest(&digest);
            let parsed = Signature::from_slice(&signature).unwrap();
            assert!(parsed.normalize_s().is_none());
            let (r, s) = parsed.split_scalars();
            let twin = Signature::from_scalars(r, -s).unwrap();
            assert!(!verify_digest(&wallet.public_key(), &digest, &twin.to_bytes()));
        }
    }

    #[test]
    fn a_secret_of_the_wrong_length_or_zero_is_refused() {
        assert_eq!(
            Wallet::from_secret(&[1; 31]).unwrap_err(),
            WalletError::Secret { bytes: 31 }
        );
        assert_eq!(
            Wallet::from_secret(&[0; 32]).unwrap_err(),
            WalletError::Secret { bytes: 32 }
        );
    }

    #[test]
    fn a_prefix_that_begins_no_address_is_refused() {
        let key = Wallet::dev("alice").public_key();
        assert!(matches!(address_of(&key, "Wasm"), Err(WalletError::Prefix { .. })));
        assert!(matches!(
            address_of(&key[..32], "wasm"),
            Err(WalletError::PublicKey { bytes: 32 })
        ));
    }
}
