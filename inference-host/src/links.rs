//! The chain of receipts and acknowledgements: what a host checks before it works, and what it signs afterwards.
//!
//! Guarantees of links that passed [`verify`]: they are about this very assignment (domain, item, attempt, deployment, stages), each
//! is signed by the host key pinned for its span, each receipt names the one before, what one span sent the next one received, and all of
//! them count the same units.

use client::{verify_digest, Wallet};
use schema::{
    receipt::{Acknowledgement, Link, Outcome, Receipt, SignedAcknowledgement, SignedReceipt},
    staking::Span,
    Digest, PublicKey, Signature,
};

use crate::chain::Assignment;

/// Links that prove nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    #[error("{found} links came with a push to span {span}, {span} expected")]
    Count { found: usize, span: usize },
    #[error("span {span} is not one of the {spans} spans that follow another")]
    NoSuchSpan { span: usize, spans: usize },
    #[error("the receipt of span {span} is about something else: {field} differs from the assignment")]
    Foreign { span: usize, field: &'static str },
    #[error("the receipt of span {span} is not signed by its host key {host_key}")]
    ReceiptSignature { span: usize, host_key: PublicKey },
    #[error("the receipt of span {span} does not name the receipt before it")]
    Previous { span: usize },
    #[error("span {span} received {found}, but {expected} was sent")]
    Digest {
        span: usize,
        found: Digest,
        expected: Digest,
    },
    #[error("span {span} counts {found} units, {expected} expected")]
    Units { span: usize, found: u64, expected: u64 },
    #[error("span {span} counts {found} units, the job allows {max}")]
    TooManyUnits { span: usize, found: u64, max: u64 },
    #[error("the acknowledgement by span {span} is missing")]
    Unacknowledged { span: usize },
    #[error("the acknowledgement by span {span} is about something else")]
    ForeignAcknowledgement { span: usize },
    #[error("the acknowledgement by span {span} is not signed by its host key {host_key}")]
    AcknowledgementSignature { span: usize, host_key: PublicKey },
}

/// Checks the links that come with a push to span `span` of an assignment: all spans before it, the last one not yet acknowledged.
pub(crate) fn verify(assignment: &Assignment, links: &[Link], span: usize) -> Result<(), LinkError> {
    let spans = assignment.spans.len();
    if span == 0 || span >= spans {
        return Err(LinkError::NoSuchSpan { span, spans });
    }
    if links.len() != span {
        return Err(LinkError::Count {
            found: links.len(),
            span,
        });
    }
    let mut before: Option<&Receipt> = None;
    for (index, (link, pinned)) in links.iter().zip(&assignment.spans).enumerate() {
        verify_receipt(assignment, &link.receipt, index, pinned, before)?;
        let receipt = &link.receipt.receipt;
        let next = index.saturating_add(1);
        // The last receipt is what the push asks us to acknowledge.
        if let (true, Some(receiver)) = (next < span, assignment.spans.get(next)) {
            let Some(acknowledgement) = &link.acknowledgement else {
                return Err(LinkError::Unacknowledged { span: next });
            };
            verify_acknowledgement(assignment, acknowledgement, next, receiver, receipt.output_digest)?;
        }
        before = Some(receipt);
    }
    Ok(())
}

fn verify_receipt(
    assignment: &Assignment,
    signed: &SignedReceipt,
    index: usize,
    pinned: &Span,
    before: Option<&Receipt>,
) -> Result<(), LinkError> {
    let receipt = &signed.receipt;
    let facts = [
        ("domain", receipt.domain == assignment.domain),
        ("item", receipt.item == assignment.item),
        ("attempt", receipt.attempt == assignment.attempt),
        ("deployment", receipt.deployment == pinned.deployment),
        ("first stage", receipt.first == pinned.first),
        ("last stage", receipt.last == pinned.last),
        ("outcome", receipt.outcome == Outcome::Done),
    ];
    if let Some((field, _)) = facts.into_iter().find(|(_, same)| !same) {
        return Err(LinkError::Foreign { span: index, field });
    }
    let host_key = pinned.host_key;
    if !verify_digest(host_key.as_bytes(), &receipt.digest().0, signed.signature.as_bytes()) {
        return Err(LinkError::ReceiptSignature { span: index, host_key });
    }
    if receipt.previous != before.map(Receipt::digest) {
        return Err(LinkError::Previous { span: index });
    }
    let expected = before.map_or(assignment.root, |before| before.output_digest);
    if receipt.input_digest != expected {
        let found = receipt.input_digest;
        return Err(LinkError::Digest {
            span: index,
            found,
            expected,
        });
    }
    verify_units(assignment, receipt, index, before)
}

fn verify_units(
    assignment: &Assignment,
    receipt: &Receipt,
    span: usize,
    before: Option<&Receipt>,
) -> Result<(), LinkError> {
    let found = receipt.units_in.saturating_add(receipt.units_out);
    if found > assignment.units_max {
        let max = assignment.units_max;
        return Err(LinkError::TooManyUnits { span, found, max });
    }
    match before {
        Some(before) if (before.units_in, before.units_out) != (receipt.units_in, receipt.units_out) => {
            let expected = before.units_in.saturating_add(before.units_out);
            Err(LinkError::Units { span, found, expected })
        }
        _ => Ok(()),
    }
}

/// Checks what the host of span `span` answered to rows with this digest.
pub(crate) fn verify_acknowledgement(
    assignment: &Assignment,
    signed: &SignedAcknowledgement,
    span: usize,
    receiver: &Span,
    sent: Digest,
) -> Result<(), LinkError> {
    let expected = acknowledgement(assignment, receiver.deployment, sent);
    if signed.acknowledgement != expected {
        return Err(LinkError::ForeignAcknowledgement { span });
    }
    let host_key = receiver.host_key;
    match verify_digest(host_key.as_bytes(), &expected.digest().0, signed.signature.as_bytes()) {
        true => Ok(()),
        false => Err(LinkError::AcknowledgementSignature { span, host_key }),
    }
}

fn acknowledgement(assignment: &Assignment, deployment: u64, input_digest: Digest) -> Acknowledgement {
    Acknowledgement {
        domain: assignment.domain.clone(),
        item: assignment.item,
        attempt: assignment.attempt,
        deployment,
        input_digest,
    }
}

/// What a span has done, before it is signed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Done {
    pub(crate) input_digest: Digest,
    pub(crate) output_digest: Digest,
    pub(crate) units_in: u64,
}

/// States and signs what span `pinned` has done after `links`.
pub(crate) fn sign_receipt(
    host_key: &Wallet,
    assignment: &Assignment,
    pinned: &Span,
    links: &[Link],
    done: Done,
) -> SignedReceipt {
    let receipt = Receipt {
        domain: assignment.domain.clone(),
        item: assignment.item,
        attempt: assignment.attempt,
        deployment: pinned.deployment,
        first: pinned.first,
        last: pinned.last,
        input_digest: done.input_digest,
        output_digest: done.output_digest,
        tokens_digest: None,
        seed: None,
        units_in: done.units_in,
        units_out: 0,
        outcome: Outcome::Done,
        previous: links.last().map(|link| link.receipt.receipt.digest()),
    };
    let signature = Signature(host_key.sign_digest(&receipt.digest().0));
    SignedReceipt { receipt, signature }
}

/// States and signs that span `pinned` has received rows with this digest.
pub(crate) fn sign_acknowledgement(
    host_key: &Wallet,
    assignment: &Assignment,
    pinned: &Span,
    received: Digest,
) -> SignedAcknowledgement {
    let acknowledgement = acknowledgement(assignment, pinned.deployment, received);
    let signature = Signature(host_key.sign_digest(&acknowledgement.digest().0));
    SignedAcknowledgement {
        acknowledgement,
        signature,
    }
}
