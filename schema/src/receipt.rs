//! Receipts and acknowledgements: the facts that hosts sign and contracts pay for.
//!
//! A host that ran a span signs a [`Receipt`]; the host of the next span signs an [`Acknowledgement`] of the same bytes when it has
//! received them. Together they form a chain in which the first broken link names who failed.

use cosmwasm_schema::cw_serde;

use crate::{canonical::Preimage, Digest, ItemId, Signature};

/// Where a signature is valid: nothing signed for one contract or chain is worth anything on another.
#[cw_serde]
#[derive(Eq)]
pub struct Domain {
    pub chain_id: String,
    /// Address of the contract that checks the signature.
    pub contract: String,
}

impl Domain {
    pub(crate) fn preimage(&self, type_name: &str) -> Preimage {
        Preimage::new(type_name).bytes(&self.chain_id).bytes(&self.contract)
    }
}

/// How a span ended.
#[cw_serde]
#[derive(Copy, Eq)]
pub enum Outcome {
    /// Every row was computed.
    Done,
}

impl Outcome {
    pub(crate) fn write(self, preimage: Preimage) -> Preimage {
        match self {
            Self::Done => preimage.u64(0u8),
        }
    }
}

/// What a host states about a span it has run.
#[cw_serde]
#[derive(Eq)]
pub struct Receipt {
    pub domain: Domain,
    pub item: ItemId,
    /// Counts the assignments of the item from 0.
    pub attempt: u8,
    pub deployment: u64,
    /// First stage of the span.
    pub first: u8,
    /// Last stage of the span.
    pub last: u8,
    /// Merkle root over the rows that came in.
    pub input_digest: Digest,
    /// Merkle root over the rows that went out.
    pub output_digest: Digest,
    /// Digest of the generated tokens, if the model generates any.
    pub tokens_digest: Option<Digest>,
    /// Seed of the sampling, if the model samples.
    pub seed: Option<u64>,
    pub units_in: u64,
    pub units_out: u64,
    pub outcome: Outcome,
    /// Digest of the receipt of the span before this one.
    pub previous: Option<Digest>,
}

impl Receipt {
    /// What the host key signs.
    pub fn digest(&self) -> Digest {
        let preimage = self.domain.preimage("receipt");
        let preimage = write_item(preimage, self.item)
            .u64(self.attempt)
            .u64(self.deployment)
            .u64(self.first)
            .u64(self.last)
            .bytes(self.input_digest.0)
            .bytes(self.output_digest.0)
            .option(self.tokens_digest, |p, digest| p.bytes(digest.0))
            .option(self.seed, Preimage::u64)
            .u64(self.units_in)
            .u64(self.units_out);
        self.outcome
            .write(preimage)
            .option(self.previous, |p, digest| p.bytes(digest.0))
            .digest()
    }
}

/// What a host states about rows it has received from the span before it.
#[cw_serde]
#[derive(Eq)]
pub struct Acknowledgement {
    pub domain: Domain,
    pub item: ItemId,
    pub attempt: u8,
    /// The deployment that received the rows.
    pub deployment: u64,
    /// Merkle root over the rows received.
    pub input_digest: Digest,
}

impl Acknowledgement {
    /// What the host key signs.
    pub fn digest(&self) -> Digest {
        write_item(self.domain.preimage("acknowledgement"), self.item)
            .u64(self.attempt)
            .u64(self.deployment)
            .bytes(self.input_digest.0)
            .digest()
    }
}

/// A developer's request to a host for the output of an item, valid for a short while.
#[cw_serde]
#[derive(Eq)]
pub struct OutputRequest {
    pub domain: Domain,
    pub item: ItemId,
    pub output_digest: Digest,
    /// Unix seconds until which the request may be answered.
    pub valid_until: u64,
}

impl OutputRequest {
    /// What the developer's account key signs.
    pub fn digest(&self) -> Digest {
        write_item(self.domain.preimage("output-request"), self.item)
            .bytes(self.output_digest.0)
            .u64(self.valid_until)
            .digest()
    }
}

fn write_item(preimage: Preimage, item: ItemId) -> Preimage {
    preimage.u64(item.job).u64(item.shard).u64(item.replica)
}

#[cw_serde]
#[derive(Eq)]
pub struct SignedReceipt {
    pub receipt: Receipt,
    /// By the host key that was registered at assignment.
    pub signature: Signature,
}

#[cw_serde]
#[derive(Eq)]
pub struct SignedAcknowledgement {
    pub acknowledgement: Acknowledgement,
    /// By the host key that was registered at assignment.
    pub signature: Signature,
}

/// A span's receipt and the next span's acknowledgement of its output.
#[cw_serde]
#[derive(Eq)]
pub struct Link {
    pub receipt: SignedReceipt,
    /// None for the last span, and where the next host never answered.
    pub acknowledgement: Option<SignedAcknowledgement>,
}

/// All links of an item, first span first.
#[cw_serde]
#[derive(Eq)]
pub struct Attestation {
    pub item: ItemId,
    pub attempt: u8,
    pub links: Vec<Link>,
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    fn domain() -> Domain {
        Domain {
            chain_id: "fxn-local-1".into(),
            contract: "wasm1orchestrator".into(),
        }
    }

    fn receipt() -> Receipt {
        Receipt {
            domain: domain(),
            item: ItemId {
                job: 1,
                shard: 2,
                replica: 3,
            },
            attempt: 4,
            deployment: 5,
            first: 6,
            last: 7,
            input_digest: Digest([8; 32]),
            output_digest: Digest([9; 32]),
            tokens_digest: None,
            seed: Some(10),
            units_in: 11,
            units_out: 12,
            outcome: Outcome::Done,
            previous: Some(Digest([13; 32])),
        }
    }

    #[test]
    fn signed_bytes_are_golden() {
        let acknowledgement = Acknowledgement {
            domain: domain(),
            item: ItemId {
                job: 1,
                shard: 2,
                replica: 3,
            },
            attempt: 4,
            deployment: 5,
            input_digest: Digest([8; 32]),
        };
        let request = OutputRequest {
            domain: domain(),
            item: ItemId {
                job: 1,
                shard: 2,
                replica: 3,
            },
            output_digest: Digest([9; 32]),
            valid_until: 1_700_000_000,
        };
        let found = format!(
            "{}\n{}\n{}\n",
            receipt().digest(),
            acknowledgement.digest(),
            request.digest()
        );
        expect![[r#"
            55941bdaed8adda98f66dfecadd97b1e10d8d74493a80208ef7436f24231e853
            74bbe09727671a2ed752d16cec9de60e2498360a4e1896c8c477763ee00c93a0
            7016109564ec59db80ed60f37fe751a224435ce64de40b35f91b55ed540b265a
        "#]]
        .assert_eq(&found);
    }

    #[test]
    fn every_field_of_a_receipt_is_signed() {
        let base = receipt().digest();
        let other = Digest([99; 32]);
        let changes: [fn(&mut Receipt, Digest); 17] = [
            |r, _| r.domain.chain_id.push('x'),
            |r, _| r.domain.contract.push('x'),
            |r, _| r.item.job = 90,
            |r, _| r.item.shard = 90,
            |r, _| r.item.replica = 90,
            |r, _| r.attempt = 90,
            |r, _| r.deployment = 90,
            |r, _| r.first = 90,
            |r, _| r.last = 90,
            |r, d| r.input_digest = d,
            |r, d| r.output_digest = d,
            |r, d| r.tokens_digest = Some(d),
            |r, _| r.seed = None,
            |r, _| r.units_in = 90,
            |r, _| r.units_out = 90,
            |r, _| r.previous = None,
            |r, d| r.previous = Some(d),
        ];
        for (index, change) in changes.iter().enumerate() {
            let mut changed = receipt();
            change(&mut changed, other);
            assert_ne!(changed.digest(), base, "change {index}");
        }
    }
}
