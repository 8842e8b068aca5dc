//! When receipts prove work: every rule that a chain of links has to pass, and the name of the one that it did not.
//!
//! Guarantees: a link counts for exactly one chain id, contract, item, attempt and deployment, and only with the host key that the
//! assignment has pinned. Input and output digests join without a gap from the shard's root on. Nothing here reads or writes state.

use schema::{
    orchestrator::ItemResult,
    price::Units,
    receipt::{Acknowledgement, Domain, Link, Receipt},
    staking::Span,
    Digest, ItemId, PublicKey, Signature,
};
use thiserror::Error;

/// Longer than any chain id and any address.
const QUOTED_CHARS_MAX: usize = 128;

/// True if the signature of this digest is by this key.
pub(crate) type Verify<'a> = &'a dyn Fn(&Digest, &Signature, &PublicKey) -> bool;

/// Why an attestation or evidence proves nothing. Spans count from 0.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Refusal {
    #[error("there is no such item")]
    NoItem,
    #[error("the item is not being worked on")]
    NotAssigned,
    #[error("the item is in attempt {current}")]
    OtherAttempt { current: u8 },
    #[error("attestations were taken until {latest}, now it is {now}")]
    TooLate { latest: u64, now: u64 },
    #[error("the chain has {expected} spans, found {found} links")]
    SpanCount { found: usize, expected: usize },
    #[error("span {span} was signed for chain {found:?}")]
    OtherChain { span: usize, found: String },
    #[error("span {span} was signed for contract {found:?}")]
    OtherContract { span: usize, found: String },
    #[error("span {span} was signed for item {found}")]
    OtherItem { span: usize, found: ItemId },
    #[error("span {span} was signed for attempt {found}")]
    SignedForAttempt { span: usize, found: u8 },
    #[error("span {span} belongs to deployment {expected}, found {found}")]
    OtherDeployment { span: usize, found: u64, expected: u64 },
    #[error("span {span} has stages {expected_first} to {expected_last}, found {first} to {last}")]
    OtherStages {
        span: usize,
        first: u8,
        last: u8,
        expected_first: u8,
        expected_last: u8,
    },
    #[error("span {span} does not name the receipt before it")]
    OtherPrevious { span: usize },
    #[error("the input of span 0 is not the shard")]
    OtherInput,
    #[error("the input of span {span} is not the output of the span before it")]
    BrokenChain { span: usize },
    #[error("span {span} counts {units_in} units in and {units_out} out, at most {in_max} and {out_max} were ordered")]
    TooManyUnits {
        span: usize,
        units_in: u64,
        units_out: u64,
        in_max: u64,
        out_max: u64,
    },
    #[error("span {span} counts other units than the span before it")]
    OtherUnits { span: usize },
    #[error("the receipt of span {span} is not signed by its host")]
    ReceiptSignature { span: usize },
    #[error("the output of span {span} was not acknowledged")]
    Unacknowledged { span: usize },
    #[error("span {span} is the last one and nobody acknowledges it")]
    StrayAcknowledgement { span: usize },
    #[error("the acknowledgement of span {span} is for something else")]
    OtherAcknowledgement { span: usize },
    #[error("the acknowledgement of span {span} is not signed by the next host")]
    AcknowledgementSignature { span: usize },
}

/// What links are checked against: an assignment.
#[derive(Debug)]
pub(crate) struct Assignment<'a> {
    pub(crate) domain: &'a Domain,
    pub(crate) item: ItemId,
    pub(crate) attempt: u8,
    pub(crate) spans: &'a [Span],
    pub(crate) root: Digest,
    pub(crate) units_max: Units,
}

impl Assignment<'_> {
    /// All links of the chain, each acknowledged.
    pub(crate) fn check_complete(&self, links: &[Link], verify: Verify<'_>) -> Result<ItemResult, Refusal> {
        let count = Refusal::SpanCount {
            found: links.len(),
            expected: self.spans.len(),
        };
        let last = match links.last() {
            Some(last) if links.len() == self.spans.len() => &last.receipt.receipt,
            _ => return Err(count),
        };
        self.check_links(links, verify)?;
        Ok(ItemResult {
            output_digest: last.output_digest,
            tokens_digest: last.tokens_digest,
            units: Units {
                requests: self.units_max.requests,
                units_in: last.units_in,
                units_out: last.units_out,
            },
        })
    }

    /// The first links of the chain. Each is acknowledged, only the last one may lack that.
    pub(crate) fn check_prefix(&self, links: &[Link], verify: Verify<'_>) -> Result<(), Refusal> {
        if links.is_empty() || links.len() > self.spans.len() {
            return Err(Refusal::SpanCount {
                found: links.len(),
                expected: self.spans.len(),
            });
        }
        self.check_links(links, verify)
    }

    fn check_links(&self, links: &[Link], verify: Verify<'_>) -> Result<(), Refusal> {
        let mut previous: Option<&Receipt> = None;
        for (index, (link, span)) in links.iter().zip(self.spans).enumerate() {
            let receipt = &link.receipt.receipt;
            self.check_identity(index, receipt, span)?;
            self.check_joint(index, receipt, previous)?;
            if !verify(&receipt.digest(), &link.receipt.signature, &span.host_key) {
                return Err(Refusal::ReceiptSignature { span: index });
            }
            let is_last_given = index.checked_add(1) == Some(links.len());
            let next = self.spans.iter().skip(index).nth(1);
            self.check_acknowledgement(index, link, next, is_last_given, verify)?;
            previous = Some(receipt);
        }
        Ok(())
    }

    fn check_identity(&self, span: usize, receipt: &Receipt, assigned: &Span) -> Result<(), Refusal> {
        if receipt.domain.chain_id != self.domain.chain_id {
            return Err(Refusal::OtherChain {
                span,
                found: quoted(&receipt.domain.chain_id),
            });
        }
        if receipt.domain.contract != self.domain.contract {
            return Err(Refusal::OtherContract {
                span,
                found: quoted(&receipt.domain.contract),
            });
        }
        if receipt.item != self.item {
            return Err(Refusal::OtherItem {
                span,
                found: receipt.item,
            });
        }
        if receipt.attempt != self.attempt {
            return Err(Refusal::SignedForAttempt {
                span,
                found: receipt.attempt,
            });
        }
        if receipt.deployment != assigned.deployment {
            return Err(Refusal::OtherDeployment {
                span,
                found: receipt.deployment,
                expected: assigned.deployment,
            });
        }
        if (receipt.first, receipt.last) != (assigned.first, assigned.last) {
            return Err(Refusal::OtherStages {
                span,
                first: receipt.first,
                last: receipt.last,
                expected_first: assigned.first,
                expected_last: assigned.last,
            });
        }
        Ok(())
    }

    /// What a receipt says about its place in the chain.
    fn check_joint(&self, span: usize, receipt: &Receipt, previous: Option<&Receipt>) -> Result<(), Refusal> {
        if receipt.previous != previous.map(Receipt::digest) {
            return Err(Refusal::OtherPrevious { span });
        }
        let (input, broken) = match previous {
            None => (self.root, Refusal::OtherInput),
            Some(previous) => (previous.output_digest, Refusal::BrokenChain { span }),
        };
        if receipt.input_digest != input {
            return Err(broken);
        }
        let Receipt {
            units_in, units_out, ..
        } = *receipt;
        if units_in > self.units_max.units_in || units_out > self.units_max.units_out {
            return Err(Refusal::TooManyUnits {
                span,
                units_in,
                units_out,
                in_max: self.units_max.units_in,
                out_max: self.units_max.units_out,
            });
        }
        match previous {
            Some(previous) if (previous.units_in, previous.units_out) != (units_in, units_out) => {
                Err(Refusal::OtherUnits { span })
            }
            _ => Ok(()),
        }
    }

    fn check_acknowledgement(
        &self,
        span: usize,
        link: &Link,
        next: Option<&Span>,
        is_last_given: bool,
        verify: Verify<'_>,
    ) -> Result<(), Refusal> {
        let (signed, next) = match (&link.acknowledgement, next) {
            (Some(signed), Some(next)) => (signed, next),
            (Some(_), None) => return Err(Refusal::StrayAcknowledgement { span }),
            (None, _) if is_last_given => return Ok(()),
            (None, _) => return Err(Refusal::Unacknowledged { span }),
        };
        let expected = Acknowledgement {
            domain: self.domain.clone(),
            item: self.item,
            attempt: self.attempt,
            deployment: next.deployment,
            input_digest: link.receipt.receipt.output_digest,
        };
        if signed.acknowledgement != expected {
            return Err(Refusal::OtherAcknowledgement { span });
        }
        if !verify(&expected.digest(), &signed.signature, &next.host_key) {
            return Err(Refusal::AcknowledgementSignature { span });
        }
        Ok(())
    }
}

/// The beginning of a text that a stranger chose: refusals are announced, and events are not his to fill.
fn quoted(text: &str) -> String {
    text.chars().take(QUOTED_CHARS_MAX).collect()
}
