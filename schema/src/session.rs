//! What the two sides of a session sign: a client its vouchers, a host its receipts and its consent to an early end.
//!
//! A voucher and a consent travel without their domain, because both sides know it: it is the escrow that pays. Whoever checks one puts
//! in the domain that it stands for itself, so that nothing signed for another chain or contract ever fits.
//! `docs/wire.md` describes every byte.

use cosmwasm_schema::cw_serde;
use cosmwasm_std::Uint128;

use crate::{
    canonical::Preimage,
    price::Units,
    receipt::{Domain, Outcome},
    Digest, Signature,
};

/// What a session has bought of one deployment since it was opened. Every number counts from the beginning of the session, so that the
/// one of the highest amount is worth all the others.
#[cw_serde]
#[derive(Copy, Eq)]
pub struct Voucher {
    pub session: u64,
    pub deployment: u64,
    /// From 1, higher with every voucher for this deployment: so both sides name one. The escrow orders vouchers by their amount.
    pub sequence: u64,
    /// Rows, as in [`Units`].
    pub requests: u64,
    pub units_in: u64,
    pub units_out: u64,
    /// F + R + G promised for all of it, in ufunc.
    pub amount: Uint128,
}

impl Voucher {
    pub fn units(&self) -> Units {
        Units {
            requests: self.requests,
            units_in: self.units_in,
            units_out: self.units_out,
        }
    }

    /// What the session key signs. The domain is that of the escrow.
    pub fn digest(&self, domain: &Domain) -> Digest {
        domain
            .preimage("voucher")
            .u64(self.session)
            .u64(self.deployment)
            .u64(self.sequence)
            .u64(self.requests)
            .u64(self.units_in)
            .u64(self.units_out)
            .u128(self.amount)
            .digest()
    }
}

#[cw_serde]
#[derive(Copy, Eq)]
pub struct SignedVoucher {
    pub voucher: Voucher,
    /// By the session key.
    pub signature: Signature,
}

/// What a host states about one request of a session.
#[cw_serde]
#[derive(Eq)]
pub struct SessionReceipt {
    /// That of the escrow.
    pub domain: Domain,
    pub session: u64,
    pub deployment: u64,
    /// Number of the request within the session, as the client gave it.
    pub sequence: u64,
    /// Merkle root over the rows that came in.
    pub request_digest: Digest,
    /// Merkle root over the rows that went out.
    pub output_digest: Digest,
    /// Digest of the generated tokens, if the model generates any.
    pub tokens_digest: Option<Digest>,
    /// Seed of the sampling, if the model samples.
    pub seed: Option<u64>,
    /// Of this request alone.
    pub units_in: u64,
    pub units_out: u64,
    pub outcome: Outcome,
}

impl SessionReceipt {
    /// What the host key signs.
    pub fn digest(&self) -> Digest {
        let preimage = self
            .domain
            .preimage("session-receipt")
            .u64(self.session)
            .u64(self.deployment)
            .u64(self.sequence)
            .bytes(self.request_digest.0)
            .bytes(self.output_digest.0)
            .option(self.tokens_digest, |p, digest| p.bytes(digest.0))
            .option(self.seed, Preimage::u64)
            .u64(self.units_in)
            .u64(self.units_out);
        self.outcome.write(preimage).digest()
    }
}

#[cw_serde]
#[derive(Eq)]
pub struct SignedSessionReceipt {
    pub receipt: SessionReceipt,
    /// By the host key that was registered when the deployment joined the session.
    pub signature: Signature,
}

/// A provider's word that it claims nothing of a session beyond what is paid, so that its allocation may be closed at once.
#[cw_serde]
#[derive(Copy, Eq)]
pub struct CloseConsent {
    pub session: u64,
    pub deployment: u64,
    /// Highest of all settled vouchers, 0 for none: the consent counts only while it is. It says nothing of amounts, so a provider signs
    /// it when its best voucher is paid, and not before.
    pub sequence: u64,
}

impl CloseConsent {
    /// What the host key signs. The domain is that of the escrow.
    pub fn digest(&self, domain: &Domain) -> Digest {
        domain
            .preimage("close-consent")
            .u64(self.session)
            .u64(self.deployment)
            .u64(self.sequence)
            .digest()
    }
}

/// Proves to a host that whoever speaks has the session key: signed over the host's own random number, so that it is worth nothing
/// elsewhere or later.
#[cw_serde]
#[derive(Copy, Eq)]
pub struct SessionHello {
    pub session: u64,
    pub deployment: u64,
    /// 32 random bytes from the host.
    pub nonce: Digest,
}

impl SessionHello {
    /// What the session key signs. The domain is that of the escrow.
    pub fn digest(&self, domain: &Domain) -> Digest {
        domain
            .preimage("session-hello")
            .u64(self.session)
            .u64(self.deployment)
            .bytes(self.nonce.0)
            .digest()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn domain() -> Domain {
        Domain {
            chain_id: "fxn-local-1".into(),
            contract: "wasm1escrow".into(),
        }
    }

    fn voucher() -> Voucher {
        Voucher {
            session: 1,
            deployment: 2,
            sequence: 3,
            requests: 4,
            units_in: 5,
            units_out: 6,
            amount: 7u128.into(),
        }
    }

    fn receipt() -> SessionReceipt {
        SessionReceipt {
            domain: domain(),
            session: 1,
            deployment: 2,
            sequence: 3,
            request_digest: Digest([4; 32]),
            output_digest: Digest([5; 32]),
            tokens_digest: None,
            seed: Some(6),
            units_in: 7,
            units_out: 8,
            outcome: Outcome::Done,
        }
    }

    fn domains() -> [Domain; 3] {
        let (mut chain, mut contract) = (domain(), domain());
        chain.chain_id.push('x');
        contract.contract.push('x');
        [domain(), chain, contract]
    }

    #[test]
    fn every_field_of_a_voucher_is_signed() {
        let changes: [fn(&mut Voucher); 7] = [
            |v| v.session = 90,
            |v| v.deployment = 90,
            |v| v.sequence = 90,
            |v| v.requests = 90,
            |v| v.units_in = 90,
            |v| v.units_out = 90,
            |v| v.amount = 90u128.into(),
        ];
        let mut digests: Vec<Digest> = domains().iter().map(|domain| voucher().digest(domain)).collect();
        for change in changes {
            let mut changed = voucher();
            change(&mut changed);
            digests.push(changed.digest(&domain()));
        }
        assert_all_differ(digests);
    }

    #[test]
    fn every_field_of_a_consent_is_signed_and_it_is_no_voucher() {
        let consent = CloseConsent {
            session: 1,
            deployment: 2,
            sequence: 3,
        };
        let mut digests: Vec<Digest> = domains().iter().map(|domain| consent.digest(domain)).collect();
        let changes: [fn(&mut CloseConsent); 3] = [|c| c.session = 90, |c| c.deployment = 90, |c| c.sequence = 90];
        for change in changes {
            let mut changed = consent;
            change(&mut changed);
            digests.push(changed.digest(&domain()));
        }
        digests.push(voucher().digest(&domain()));
        assert_all_differ(digests);
    }

    #[test]
    fn every_field_of_a_hello_is_signed_and_it_is_no_consent() {
        let hello = SessionHello {
            session: 1,
            deployment: 2,
            nonce: Digest([3; 32]),
        };
        let mut digests: Vec<Digest> = domains().iter().map(|domain| hello.digest(domain)).collect();
        let changes: [fn(&mut SessionHello); 3] = [
            |h| h.session = 90,
            |h| h.deployment = 90,
            |h| h.nonce = Digest([90; 32]),
        ];
        for change in changes {
            let mut changed = hello;
            change(&mut changed);
            digests.push(changed.digest(&domain()));
        }
        let consent = CloseConsent {
            session: 1,
            deployment: 2,
            sequence: 3,
        };
        digests.push(consent.digest(&domain()));
        assert_all_differ(digests);
    }

    #[test]
    fn every_field_of_a_session_receipt_is_signed() {
        let other = Digest([99; 32]);
        let changes: [fn(&mut SessionReceipt, Digest); 12] = [
            |r, _| r.domain.chain_id.push('x'),
            |r, _| r.domain.contract.push('x'),
            |r, _| r.session = 90,
            |r, _| r.deployment = 90,
            |r, _| r.sequence = 90,
            |r, d| r.request_digest = d,
            |r, d| r.output_digest = d,
            |r, d| r.tokens_digest = Some(d),
            |r, _| r.seed = None,
            |r, _| r.seed = Some(90),
            |r, _| r.units_in = 90,
            |r, _| r.units_out = 90,
        ];
        let mut digests = vec![receipt().digest()];
        for change in changes {
            let mut changed = receipt();
            change(&mut changed, other);
            digests.push(changed.digest());
        }
        assert_all_differ(digests);
    }

    fn assert_all_differ(digests: Vec<Digest>) {
        let count = digests.len();
        let different: std::collections::BTreeSet<Digest> = digests.into_iter().collect();
        assert_eq!(different.len(), count);
    }
}
