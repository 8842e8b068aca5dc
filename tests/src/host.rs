//! A host's key. Whoever has it can say what it likes about the host's work.

use k256::ecdsa::{signature::hazmat::PrehashSigner, Signature as EcdsaSignature, SigningKey};
use schema::{Digest, PublicKey, Signature};

#[derive(Debug, Clone)]
pub struct Host {
    key: SigningKey,
}

impl Host {
    /// The same name always has the same key.
    pub fn named(name: &str) -> Self {
        let secret = Digest::of(name.as_bytes());
        let key =
            SigningKey::from_bytes(&secret.0.into()).expect("a sha256 digest is a valid secret key but for 2^-127");
        Self { key }
    }

    /// What the provider registers.
    pub fn public_key(&self) -> PublicKey {
        let point = self.key.verifying_key().to_encoded_point(true);
        let bytes = point.as_bytes().try_into().expect("a compressed key has 33 bytes");
        PublicKey(bytes)
    }

    /// The same signature with the other s: mathematically as good, and refused, so that a link has one form.
    pub fn twin(signature: &Signature) -> Signature {
        let Ok(signature) = EcdsaSignature::from_slice(&signature.0) else {
            return *signature;
        };
        let (r, s) = signature.split_scalars();
        let twin = EcdsaSignature::from_scalars(r, -s).expect("neither is zero");
        Signature(twin.to_bytes().into())
    }

    /// Signs a digest; the result has a low s.
    pub fn sign(&self, digest: &Digest) -> Signature {
        let signature: EcdsaSignature = self.key.sign_prehash(&digest.0).expect("a digest has 32 bytes");
        let signature = signature.normalize_s().unwrap_or(signature);
        Signature(signature.to_bytes().into())
    }
}
