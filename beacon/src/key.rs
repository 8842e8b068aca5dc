//! Keys of beacons: BLS12-381 with signatures on G1, as drand's quicknet has them.

use std::fmt;

use blst::{
    min_sig::{PublicKey, SecretKey, Signature},
    BLST_ERROR,
};
use schema::{
    beacon::{message, DST},
    BeaconKey, BeaconSignature, Digest,
};
use zeroize::Zeroizing;

/// Binds what is made of an ordinary secret to this use of it.
const PURPOSE: &[u8] = b"fxn/beacon/v1";

/// Signs rounds. Never shown, and wiped when it is dropped.
pub struct Secret(SecretKey);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret({})", self.public_key())
    }
}

/// A secret of so few bytes can be guessed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a beacon's key is made of 32 secret bytes or more, found {0}")]
pub struct TooShort(pub usize);

impl Secret {
    /// The key that belongs to a secret of 32 bytes or more, such as that of an account. It is not the account's key.
    pub fn from_secret(secret: &[u8]) -> Result<Self, TooShort> {
        let key = SecretKey::key_gen(secret, PURPOSE);
        key.map(Self).map_err(|_| TooShort(secret.len()))
    }

    /// The key of development networks. Everybody has it, so everybody knows their randomness in advance.
    pub fn development() -> Self {
        let secret = Zeroizing::new(Digest::of(b"function network development beacon").0);
        Self::from_secret(secret.as_slice()).expect("a digest has 32 bytes")
    }

    pub fn public_key(&self) -> BeaconKey {
        BeaconKey(self.0.sk_to_pk().compress())
    }

    /// The one signature of a round.
    pub fn sign(&self, round: u64) -> BeaconSignature {
        BeaconSignature(self.0.sign(message(round).as_bytes(), DST, &[]).compress())
    }
}

/// Whether this is the round's signature under the key.
pub fn is_signed(key: &BeaconKey, round: u64, signature: &BeaconSignature) -> bool {
    let (Ok(key), Ok(signature)) = (
        PublicKey::key_validate(&key.0),
        Signature::sig_validate(&signature.0, true),
    ) else {
        return false;
    };
    // Both were validated when they were read.
    let verified = signature.verify(false, message(round).as_bytes(), DST, &[], &key, false);
    verified == BLST_ERROR::BLST_SUCCESS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_real_round_of_quicknet_is_signed_and_no_other_is() {
        let key: BeaconKey = "83cf0f2896adee7eb8b5f01fcad3912212c437e0073e911fb90022d3e760183c8c4b450b6a0a6c3ac6a5776a2d1064510d1fec758c921cc22b0e17e63aaf4bcb5ed66304de9cf809bd274ca73bab4af5a6e9c76a4bc09e76eae8991ef5ece45a".parse().unwrap();
        let signature: BeaconSignature =
            "b44679b9a59af2ec876b1a6b1ad52ea9b1615fc3982b19576350f93447cb1125e342b73a8dd2bacbe47e4b6b63ed5e39"
                .parse()
                .unwrap();
        assert!(is_signed(&key, 1_000, &signature));
        assert!(!is_signed(&key, 1_001, &signature));
        assert!(!is_signed(&Secret::development().public_key(), 1_000, &signature));
        assert!(!is_signed(&key, 1_000, &BeaconSignature([0xff; 48])));
        let mut identity = [0; 96];
        identity[0] = 0xc0;
        let mut none = [0; 48];
        none[0] = 0xc0;
        assert!(!is_signed(&BeaconKey(identity), 1_000, &BeaconSignature(none)));
    }

    #[test]
    fn what_a_key_signs_is_signed_and_is_the_same_every_time() {
        let secret = Secret::from_secret(&[7; 32]).unwrap();
        let signature = secret.sign(42);
        assert!(is_signed(&secret.public_key(), 42, &signature));
        assert_eq!(Secret::from_secret(&[7; 32]).unwrap().sign(42), signature);
        assert_ne!(Secret::from_secret(&[8; 32]).unwrap().public_key(), secret.public_key());
    }

    #[test]
    fn a_secret_is_never_shown_and_never_short() {
        let shown = format!("{:?}", Secret::from_secret(&[7; 32]).unwrap());
        assert!(shown.starts_with("Secret(") && !shown.contains("0707"), "{shown}");
        assert_eq!(Secret::from_secret(&[7; 31]).unwrap_err(), TooShort(31));
    }

    #[test]
    fn the_development_key_is_the_one_of_the_local_profile() {
        let profile = include_str!("../../params/local.toml");
        assert!(profile.contains(&Secret::development().public_key().to_string()));
    }
}
