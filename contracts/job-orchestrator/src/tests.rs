//! Pure rules of proof, blame and comparison, with keys that anybody can imitate: real signatures are checked in the workspace's
//! `tests/`, where this contract meets its siblings.

#![allow(
    clippy::arithmetic_side_effects,
    reason = "expected values are written as plain formulas"
)]

use cosmwasm_std::Uint128;
use schema::{
    orchestrator::{Blame, ItemResult},
    price::{Ask, Units},
    receipt::{Acknowledgement, Domain, Link, Outcome, Receipt, SignedAcknowledgement, SignedReceipt},
    staking::{Sla, Span},
    Digest, ItemId, PublicKey, Signature,
};

use crate::{
    blame::blame,
    compare::{first_differences, Run},
    proof::{Assignment, Refusal},
};

mod rules;

/// What a span's host signs with: its own key twice hashed with the digest.
fn sign(key: &PublicKey, digest: &Digest) -> Signature {
    let half = Digest::of(&[&key.0[..], &digest.0[..]].concat());
    let mut signature = [0; 64];
    signature[..32].copy_from_slice(&half.0);
    Signature(signature)
}

fn is_signed(digest: &Digest, signature: &Signature, key: &PublicKey) -> bool {
    sign(key, digest) == *signature
}

fn domain() -> Domain {
    Domain {
        chain_id: "fxn-test".into(),
        contract: "orchestrator".into(),
    }
}

const ITEM: ItemId = ItemId {
    job: 1,
    shard: 2,
    replica: 0,
};

/// Spans of one stage each, deployments 10, 11, 12.
fn spans() -> Vec<Span> {
    let span = |index: u8| Span {
        deployment: u64::from(index) + 10,
        provider: format!("provider{index}"),
        host_key: PublicKey([index; 33]),
        first: index,
        last: index,
        compute_share_bps: 3_333,
        ask: Ask {
            per_1k_in: Uint128::one(),
            per_1k_out: Uint128::one(),
            per_request: Uint128::one(),
        },
        sla: Sla {
            base_seconds: 1,
            seconds_per_1k_units: 1,
            units_max: 100,
            penalty_bps: 1_000,
        },
        price_max: Default::default(),
    };
    (0..3).map(span).collect()
}

fn root() -> Digest {
    Digest::of(b"shard")
}

/// Every receipt of the chain, each with a digest of its own, changed before it is signed.
fn links_of(spans: &[Span], change: impl Fn(usize, &mut Receipt, &mut Option<Acknowledgement>)) -> Vec<Link> {
    let mut links: Vec<Link> = vec![];
    for (index, span) in spans.iter().enumerate() {
        let previous = links.last().map(|link| &link.receipt.receipt);
        let mut receipt = Receipt {
            domain: domain(),
            item: ITEM,
            attempt: 1,
            deployment: span.deployment,
            first: span.first,
            last: span.last,
            input_digest: previous.map_or(root(), |previous| previous.output_digest),
            output_digest: Digest::of(&[span.last]),
            tokens_digest: None,
            seed: None,
            units_in: 70,
            units_out: 0,
            outcome: Outcome::Done,
            previous: previous.map(Receipt::digest),
        };
        let next = spans.get(index + 1);
        let mut acknowledgement = next.map(|next| Acknowledgement {
            domain: domain(),
            item: ITEM,
            attempt: 1,
            deployment: next.deployment,
            input_digest: receipt.output_digest,
        });
        change(index, &mut receipt, &mut acknowledgement);
        links.push(Link {
            receipt: SignedReceipt {
                signature: sign(&span.host_key, &receipt.digest()),
                receipt,
            },
            acknowledgement: acknowledgement.map(|acknowledgement| SignedAcknowledgement {
                signature: sign(&next.unwrap_or(span).host_key, &acknowledgement.digest()),
                acknowledgement,
            }),
        });
    }
    links
}

fn honest() -> Vec<Link> {
    links_of(&spans(), |_, _, _| {})
}

fn check(links: &[Link]) -> Result<ItemResult, Refusal> {
    let (domain, spans) = (domain(), spans());
    assignment(&domain, &spans).check_complete(links, &is_signed)
}

fn check_prefix(links: &[Link]) -> Result<(), Refusal> {
    let (domain, spans) = (domain(), spans());
    assignment(&domain, &spans).check_prefix(links, &is_signed)
}

fn assignment<'a>(domain: &'a Domain, spans: &'a [Span]) -> Assignment<'a> {
    Assignment {
        domain,
        item: ITEM,
        attempt: 1,
        spans,
        root: root(),
        units_max: Units {
            requests: 4,
            units_in: 100,
            units_out: 0,
        },
    }
}

fn run(links: Vec<Link>) -> Run {
    let last = &links.last().unwrap().receipt.receipt;
    Run {
        result: ItemResult {
            output_digest: last.output_digest,
            tokens_digest: last.tokens_digest,
            units: Units {
                requests: 4,
                units_in: last.units_in,
                units_out: last.units_out,
            },
        },
        links,
    }
}

fn miss(deployment: u64) -> Option<Blame> {
    Some(Blame::Miss {
        deployment,
        penalty_price: 9u128.into(),
    })
}
