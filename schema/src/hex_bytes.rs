//! Fixed-size byte strings that read as lower-case hex in JSON, in events and on a screen.

use std::{fmt, str::FromStr};

use schemars::{gen::SchemaGenerator, schema::Schema, JsonSchema};
use serde::{de, Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest as _, Sha256};
use thiserror::Error;

/// Why a text is not the hex of a fixed-size byte string.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum HexError {
    #[error("expected {expected} bytes in hex, found {found} characters")]
    Length { expected: usize, found: usize },
    #[error("not hex")]
    NotHex,
}

macro_rules! hex_bytes {
    ($(#[$doc:meta])* $name:ident, $len:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; $len]);

        impl $name {
            pub fn as_bytes(&self) -> &[u8] {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&hex::encode(self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }

        impl FromStr for $name {
            type Err = HexError;

            fn from_str(text: &str) -> Result<Self, HexError> {
                let length = HexError::Length { expected: $len, found: text.len() };
                if text.len() != $len * 2 {
                    return Err(length);
                }
                let mut bytes = [0; $len];
                hex::decode_to_slice(text, &mut bytes).map_err(|_| HexError::NotHex)?;
                Ok(Self(bytes))
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                text.parse().map_err(de::Error::custom)
            }
        }

        impl JsonSchema for $name {
            fn schema_name() -> String {
                stringify!($name).to_owned()
            }

            fn json_schema(generator: &mut SchemaGenerator) -> Schema {
                String::json_schema(generator)
            }
        }
    };
}

hex_bytes!(
    /// A sha256 digest.
    Digest,
    32
);
hex_bytes!(
    /// A compressed secp256k1 public key (SEC 1).
    PublicKey,
    33
);
hex_bytes!(
    /// A secp256k1 signature: r and s, 32 bytes each, big-endian, s in the lower half.
    Signature,
    64
);
hex_bytes!(
    /// Key of a randomness beacon: a compressed point of BLS12-381's G2.
    BeaconKey,
    96
);
hex_bytes!(
    /// Signature of a randomness beacon over one round: a compressed point of BLS12-381's G1.
    BeaconSignature,
    48
);

impl Digest {
    /// sha256 of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }
}

impl Signature {
    /// Every signature has a twin with the other s. Only the one with the lower s is a signature of ours, so that what is signed has one
    /// form.
    pub fn is_low_s(&self) -> bool {
        // Half of the order of the group, rounded down.
        const HALF_ORDER: [u8; 32] = [
            0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x5d, 0x57,
            0x6e, 0x73, 0x57, 0xa4, 0x50, 0x1d, 0xdf, 0xe9, 0x2f, 0x46, 0x68, 0x1b, 0x20, 0xa0,
        ];
        self.0[32..] <= HALF_ORDER[..]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_reads_back_and_wrong_lengths_are_named() {
        let digest = Digest::of(b"abc");
        assert_eq!(
            digest.to_string(),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        assert_eq!(digest.to_string().parse(), Ok(digest));
        assert_eq!("00".parse::<Digest>(), Err(HexError::Length { expected: 32, found: 2 }));
        assert_eq!("zz".repeat(32).parse::<Digest>(), Err(HexError::NotHex));
        assert!("é".repeat(32).parse::<Digest>().is_err());
    }

    #[test]
    fn of_two_signatures_with_the_same_meaning_only_the_lower_one_is_ours() {
        // Half of the order n, rounded down: n - half is the next number, so these two are twins.
        let half = "7fffffffffffffffffffffffffffffff5d576e7357a4501ddfe92f46681b20a0";
        let above = "7fffffffffffffffffffffffffffffff5d576e7357a4501ddfe92f46681b20a1";
        let signature = |s: &str| format!("{}{s}", "01".repeat(32)).parse::<Signature>().unwrap();
        assert!(signature(half).is_low_s());
        assert!(!signature(above).is_low_s());
    }
}
