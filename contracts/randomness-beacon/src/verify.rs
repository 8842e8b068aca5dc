//! Whether a signature is the one that the key has for a round: `e(H(round), key) = e(signature, generator of G2)`.
//!
//! The chain reads points with their curve and their subgroup. Some read everything with the infinity bit as the identity, whatever the
//! other bits are, and some refuse it: so the identity is found by what it does in a pairing and never by its bytes, and both refusals
//! are one.

use cosmwasm_std::{Api, HashFunction, VerificationError, BLS12_381_G1_GENERATOR, BLS12_381_G2_GENERATOR};
use schema::{
    beacon::{message, DST},
    BeaconKey, BeaconSignature,
};

use crate::ContractError;

/// The identity of G2, compressed.
const IDENTITY: [u8; 96] = {
    let mut bytes = [0; 96];
    bytes[0] = 0xc0;
    bytes
};

/// Refuses a key that is no point, or that pairs everything to one.
pub(crate) fn check_key(api: &dyn Api, key: &BeaconKey) -> Result<(), ContractError> {
    let generator = &BLS12_381_G1_GENERATOR;
    match api.bls12_381_pairing_equality(generator, &key.0, generator, &IDENTITY) {
        Ok(false) => Ok(()),
        Ok(true) | Err(_) => Err(ContractError::NoKey),
    }
}

/// Refuses every signature but the one.
pub(crate) fn check_signature(
    api: &dyn Api,
    key: &BeaconKey,
    round: u64,
    signature: &BeaconSignature,
) -> Result<(), ContractError> {
    let verified = || -> Result<bool, VerificationError> {
        let hash = api.bls12_381_hash_to_g1(HashFunction::Sha256, message(round).as_bytes(), DST)?;
        api.bls12_381_pairing_equality(&hash, &key.0, &signature.0, &BLS12_381_G2_GENERATOR)
    };
    match verified() {
        Ok(true) => Ok(()),
        Ok(false) | Err(_) => Err(ContractError::WrongSignature { round }),
    }
}
