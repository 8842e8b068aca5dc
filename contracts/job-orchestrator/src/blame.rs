//! Who failed, by the evidence that stands when the window closes.
//!
//! | what is known | blame |
//! |---|---|
//! | nothing | miss of the first span: its input was on the chain |
//! | k receipts, the last acknowledged | miss of span k: it says itself that it had its input |
//! | k receipts, the last not acknowledged | link fault of spans k-1 and k: one of the two, nobody knows which |
//! | all receipts | miss of the last span: it had everything that an attestation needs |

use cosmwasm_std::Uint128;
use schema::{orchestrator::Blame, receipt::Link, staking::Span};

/// None only for a chain without spans, which is never assigned.
pub(crate) fn blame(spans: &[Span], links: &[Link], penalty_price: Uint128) -> Option<Blame> {
    let miss = |span: &Span| Blame::Miss {
        deployment: span.deployment,
        penalty_price,
    };
    let (Some(link), Some(next)) = (links.last(), spans.get(links.len())) else {
        let culprit = if links.is_empty() { spans.first() } else { spans.last() };
        return culprit.map(miss);
    };
    if link.acknowledgement.is_some() {
        return Some(miss(next));
    }
    Some(Blame::LinkFault {
        sender: link.receipt.receipt.deployment,
        receiver: next.deployment,
    })
}
