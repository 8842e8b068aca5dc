//! The bytes that are signed and hashed.
//!
//! A preimage is `fxn/<type>/v1` in ASCII, then the fields in declared order: integers up to 64 bits as u64 big-endian, u128
//! big-endian; texts, byte strings and lists with a u32 big-endian length before them; an option as one byte 0 or 1, then its
//! value. The digest is sha256 of all of it. `docs/wire.md` says the same for other languages; golden vectors stand in `vectors/`.

use sha2::{Digest as _, Sha256};

use crate::Digest;

/// Collects the fields of one signed or hashed value.
#[derive(Debug, Clone)]
pub struct Preimage(Sha256);

impl Preimage {
    /// Starts the preimage of a type named in kebab-case.
    pub fn new(type_name: &str) -> Self {
        Self(
            Sha256::new()
                .chain_update(b"fxn/")
                .chain_update(type_name)
                .chain_update(b"/v1"),
        )
    }

    pub fn u64(mut self, value: impl Into<u64>) -> Self {
        self.0.update(value.into().to_be_bytes());
        self
    }

    pub fn u128(mut self, value: impl Into<u128>) -> Self {
        self.0.update(value.into().to_be_bytes());
        self
    }

    /// A text or byte string. Nothing on this wire comes near 4 GiB; a longer one is cut off by its length, not accepted.
    pub fn bytes(mut self, value: impl AsRef<[u8]>) -> Self {
        let value = value.as_ref();
        let length = u32::try_from(value.len()).unwrap_or(u32::MAX);
        self.0.update(length.to_be_bytes());
        self.0.update(value);
        self
    }

    pub fn option<T>(mut self, value: Option<T>, write: impl FnOnce(Self, T) -> Self) -> Self {
        self.0.update([u8::from(value.is_some())]);
        match value {
            Some(value) => write(self, value),
            None => self,
        }
    }

    pub fn digest(self) -> Digest {
        Digest(self.0.finalize().into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_written_as_documented() {
        let digest = Preimage::new("demo")
            .u64(1u8)
            .u128(2u128)
            .bytes("abc")
            .option(Some(3u64), Preimage::u64)
            .option(None::<u64>, Preimage::u64)
            .digest();
        let mut raw = b"fxn/demo/v1".to_vec();
        raw.extend(1u64.to_be_bytes());
        raw.extend(2u128.to_be_bytes());
        raw.extend(3u32.to_be_bytes());
        raw.extend(b"abc");
        raw.push(1);
        raw.extend(3u64.to_be_bytes());
        raw.push(0);
        assert_eq!(digest, Digest::of(&raw));
    }
}
