//! Addresses as the SDK reads them: what is none is refused in its words, by contracts and by the chain alike.

use cosmwasm_std::{
    Addr, Api, CanonicalAddr, HashFunction, RecoverPubkeyError, StdError, StdResult, VerificationError,
};
use cw_multi_test::MockApiBech32;

use crate::PREFIX;

const CHARSET: &[u8; 32] = b"qpzry9x8gf2tvdw0s3jn54khce6mua7l";
const GENERATOR: [u32; 5] = [0x3b6a_57b2, 0x2650_8e6d, 0x1ea1_19fa, 0x3d42_33dd, 0x2a14_62b3];
/// Longest text that the SDK decodes.
const LENGTH_MAX: usize = 1023;
/// A human-readable part, the separator and the checksum.
const LENGTH_MIN: usize = 8;
const CHECKSUM: usize = 6;

/// Why a text is no address of this chain.
pub(crate) fn check(text: &str) -> Result<(), String> {
    if text.trim().is_empty() {
        return Err("empty address string is not allowed".into());
    }
    let hrp = decode(text).map_err(|reason| format!("decoding bech32 failed: {reason}"))?;
    if hrp != PREFIX {
        return Err(format!("invalid Bech32 prefix; expected {PREFIX}, got {hrp}"));
    }
    if text.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return Err("address not normalized".into());
    }
    Ok(())
}

/// The human-readable part, if the whole is bech32.
fn decode(text: &str) -> Result<String, String> {
    if text.len() > LENGTH_MAX || text.len() < LENGTH_MIN {
        return Err(format!("invalid bech32 string length {}", text.len()));
    }
    check_letters(text)?;
    let text = text.to_ascii_lowercase();
    let data_max = text.len().saturating_sub(CHECKSUM);
    let separator = text.rfind('1').filter(|at| *at >= 1 && *at < data_max);
    let Some((hrp, data)) = separator.and_then(|at| Some((text.get(..at)?, text.get(at.checked_add(1)?..)?))) else {
        let at = text.rfind('1').map_or("-1".to_owned(), |at| at.to_string());
        return Err(format!("invalid separator index {at}"));
    };
    let values: Result<Vec<u32>, String> = data.bytes().map(value).collect();
    let values = values?;
    let (payload, _) = values.split_at(values.len().saturating_sub(CHECKSUM));
    let expected = checksum(hrp, payload);
    match text.strip_suffix(&expected) {
        Some(_) => Ok(hrp.to_owned()),
        None => {
            let actual = text.get(data_max..).unwrap_or_default();
            Err(format!("invalid checksum (expected {expected} got {actual})"))
        }
    }
}

fn check_letters(text: &str) -> Result<(), String> {
    let (mut lower, mut upper) = (false, false);
    for byte in text.bytes() {
        if !(33..=126).contains(&byte) {
            return Err(format!("invalid character in string: '{}'", char::from(byte)));
        }
        lower |= byte.is_ascii_lowercase();
        upper |= byte.is_ascii_uppercase();
        if lower && upper {
            return Err("string not all lowercase or all uppercase".into());
        }
    }
    Ok(())
}

fn value(byte: u8) -> Result<u32, String> {
    let at = CHARSET.iter().position(|letter| *letter == byte);
    at.and_then(|at| u32::try_from(at).ok())
        .ok_or_else(|| format!("invalid character not part of charset: {byte}"))
}

/// The checksum that belongs to these values, BIP 173.
fn checksum(hrp: &str, values: &[u32]) -> String {
    let high = hrp.bytes().map(|byte| u32::from(byte >> 5));
    let low = hrp.bytes().map(|byte| u32::from(byte & 31));
    let all = high
        .chain([0])
        .chain(low)
        .chain(values.iter().copied())
        .chain([0; CHECKSUM]);
    let residue = all.fold(1u32, |residue, value| {
        let top = residue >> 25;
        let shifted = ((residue & 0x01ff_ffff) << 5) ^ value;
        let taps = GENERATOR.iter().enumerate().filter(|(bit, _)| (top >> bit) & 1 == 1);
        taps.fold(shifted, |residue, (_, generator)| residue ^ generator)
    }) ^ 1;
    let letters = [25u32, 20, 15, 10, 5, 0].map(|shift| {
        let index = usize::try_from((residue >> shift) & 31).unwrap_or_default();
        CHARSET.get(index).copied().map_or('q', char::from)
    });
    letters.into_iter().collect()
}

/// What contracts may ask of their chain.
pub(crate) struct ChainApi(MockApiBech32);

impl ChainApi {
    pub(crate) fn new() -> Self {
        Self(MockApiBech32::new(PREFIX))
    }
}

impl Api for ChainApi {
    fn addr_validate(&self, human: &str) -> StdResult<Addr> {
        let checked = check(human).map_err(|reason| StdError::generic_err(format!("addr_validate errored: {reason}")));
        checked.and_then(|()| self.0.addr_validate(human))
    }

    fn addr_canonicalize(&self, human: &str) -> StdResult<CanonicalAddr> {
        let checked =
            check(human).map_err(|reason| StdError::generic_err(format!("addr_canonicalize errored: {reason}")));
        checked.and_then(|()| self.0.addr_canonicalize(human))
    }

    fn addr_humanize(&self, canonical: &CanonicalAddr) -> StdResult<Addr> {
        self.0.addr_humanize(canonical)
    }

    fn secp256k1_verify(&self, hash: &[u8], signature: &[u8], key: &[u8]) -> Result<bool, VerificationError> {
        self.0.secp256k1_verify(hash, signature, key)
    }

    fn secp256k1_recover_pubkey(&self, hash: &[u8], signature: &[u8], id: u8) -> Result<Vec<u8>, RecoverPubkeyError> {
        self.0.secp256k1_recover_pubkey(hash, signature, id)
    }

    fn ed25519_verify(&self, message: &[u8], signature: &[u8], key: &[u8]) -> Result<bool, VerificationError> {
        self.0.ed25519_verify(message, signature, key)
    }

    fn ed25519_batch_verify(
        &self,
        messages: &[&[u8]],
        signatures: &[&[u8]],
        keys: &[&[u8]],
    ) -> Result<bool, VerificationError> {
        self.0.ed25519_batch_verify(messages, signatures, keys)
    }

    fn bls12_381_aggregate_g1(&self, g1s: &[u8]) -> Result<[u8; 48], VerificationError> {
        self.0.bls12_381_aggregate_g1(g1s)
    }

    fn bls12_381_aggregate_g2(&self, g2s: &[u8]) -> Result<[u8; 96], VerificationError> {
        self.0.bls12_381_aggregate_g2(g2s)
    }

    fn bls12_381_pairing_equality(&self, ps: &[u8], qs: &[u8], r: &[u8], s: &[u8]) -> Result<bool, VerificationError> {
        self.0.bls12_381_pairing_equality(ps, qs, r, s)
    }

    fn bls12_381_hash_to_g1(
        &self,
        hash_function: HashFunction,
        msg: &[u8],
        dst: &[u8],
    ) -> Result<[u8; 48], VerificationError> {
        self.0.bls12_381_hash_to_g1(hash_function, msg, dst)
    }

    fn bls12_381_hash_to_g2(
        &self,
        hash_function: HashFunction,
        msg: &[u8],
        dst: &[u8],
    ) -> Result<[u8; 96], VerificationError> {
        self.0.bls12_381_hash_to_g2(hash_function, msg, dst)
    }

    fn debug(&self, message: &str) {
        self.0.debug(message);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_address_is_refused_in_the_words_of_the_sdk() {
        let good = crate::dev_address("faucet");
        assert_eq!(check(&good), Ok(()));
        let contract = "wasm14hj2tavq8fpesdwxxcu44rty3hh90vhujrvcmstl4zr3txmfvw9s0phg4d";
        assert_eq!(check(contract), Ok(()));
        let mut broken = good.clone();
        let last = broken.pop().unwrap();
        broken.push(if last == 'q' { 'p' } else { 'q' });
        let (expected, actual) = (&good[good.len() - 6..], &broken[good.len() - 6..]);
        let long = "w".repeat(1_024);
        for (text, words) in [
            ("", "empty address string is not allowed".to_owned()),
            ("  ", "empty address string is not allowed".to_owned()),
            (
                "nobody",
                "decoding bech32 failed: invalid bech32 string length 6".to_owned(),
            ),
            (
                &long,
                "decoding bech32 failed: invalid bech32 string length 1024".to_owned(),
            ),
            (
                "no body at all",
                "decoding bech32 failed: invalid character in string: ' '".to_owned(),
            ),
            (
                "Nobody1nobody",
                "decoding bech32 failed: string not all lowercase or all uppercase".to_owned(),
            ),
            (
                "nobodynobody",
                "decoding bech32 failed: invalid separator index -1".to_owned(),
            ),
            (
                "nobody1nobod",
                "decoding bech32 failed: invalid separator index 6".to_owned(),
            ),
            (
                "wasm1nobodyatall",
                "decoding bech32 failed: invalid character not part of charset: 111".to_owned(),
            ),
            (
                &broken,
                format!("decoding bech32 failed: invalid checksum (expected {expected} got {actual})"),
            ),
            (
                "cosmos1qypqxpq9qcrsszg2pvxq6rs0zqg3yyc5lzv7xu",
                "invalid Bech32 prefix; expected wasm, got cosmos".to_owned(),
            ),
            (&good.to_uppercase(), "address not normalized".to_owned()),
        ] {
            assert_eq!(check(text), Err(words), "{text}");
        }
    }
}
