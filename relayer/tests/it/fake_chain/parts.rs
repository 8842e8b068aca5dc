//! The parts of a made-up chain: items, blocks, spans, and links that nobody checks.

use client::events::{Block, Emitted, TxEvents};
use relayer::chain::TxHash;
use schema::{
    escrow::VoucherRefusal,
    event::DeploymentList,
    orchestrator::ItemResponse,
    price::{Ask, SpanPrice},
    receipt::{Acknowledgement, Domain, Link, Outcome as SpanOutcome, Receipt, SignedAcknowledgement, SignedReceipt},
    session::Voucher,
    staking::{Sla, Span},
    Digest, Event, ItemId, PublicKey, Signature,
};

use super::{World, ME};

/// Pays a voucher, or says why not.
pub fn settle(world: &mut World, voucher: &Voucher) -> Event {
    let Voucher {
        session,
        deployment,
        sequence,
        amount,
        ..
    } = *voucher;
    let refused = |reason| Event::VoucherRefused {
        session,
        deployment,
        sequence,
        reason,
    };
    let is_broken = world.broken_sessions.contains(&session);
    match world.paid.get_mut(&(session, deployment)) {
        None => refused(VoucherRefusal::Unknown),
        Some(_) if is_broken => refused(VoucherRefusal::Signature),
        Some(paid) if *paid >= amount.u128() => refused(VoucherRefusal::Stale),
        Some(paid) => {
            let before = std::mem::replace(paid, amount.u128());
            Event::VoucherSettled {
                session,
                deployment,
                sequence,
                requests: voucher.requests,
                units_in: voucher.units_in,
                units_out: voucher.units_out,
                paid: (amount.u128() - before).into(),
                burnt: 0u128.into(),
            }
        }
    }
}

pub fn item(job: u64) -> ItemId {
    ItemId {
        job,
        shard: 0,
        replica: 0,
    }
}

pub fn block(height: u64, seconds: u64, events: Vec<Event>) -> Block {
    let emitted = |event| Emitted {
        contract: "wasm1orchestrator".into(),
        event,
    };
    let txs = TxEvents {
        hash: TxHash::of(&height.to_be_bytes()),
        index: 0,
        events: events.into_iter().map(emitted).collect(),
    };
    Block {
        height,
        time_nanos: seconds * 1_000_000_000,
        txs: vec![txs],
    }
}

pub fn assigned_event(item: &ItemResponse, deployments: Vec<u64>) -> Event {
    Event::JobAssigned {
        item: item.item,
        attempt: item.attempt,
        model: "demo/m".parse().unwrap(),
        version: 1,
        deployments: DeploymentList(deployments),
        deadline: item.deadline,
        evidence_until: item.evidence_until,
    }
}

pub fn span(provider: &str, stage: u8) -> Span {
    let deployment = if provider == ME { 7 } else { 100 + u64::from(stage) };
    Span {
        deployment,
        provider: provider.into(),
        host_key: PublicKey([2; 33]),
        first: stage,
        last: stage,
        compute_share_bps: 5_000,
        ask: Ask {
            per_1k_in: 1u128.into(),
            per_1k_out: 1u128.into(),
            per_request: 1u128.into(),
        },
        sla: Sla {
            base_seconds: 1,
            seconds_per_1k_units: 1,
            units_max: 1,
            penalty_bps: 1,
        },
        price_max: SpanPrice::default(),
    }
}

pub fn domain() -> Domain {
    Domain {
        chain_id: "fake-1".into(),
        contract: "wasm1orchestrator".into(),
    }
}

/// A link of a stage, with or without the acknowledgement of the next one. Nobody here checks signatures.
pub fn link(item: ItemId, attempt: u8, stage: u8, is_acknowledged: bool) -> Link {
    let signature = Signature([0; 64]);
    let receipt = Receipt {
        domain: domain(),
        item,
        attempt,
        deployment: 7,
        first: stage,
        last: stage,
        input_digest: Digest([1; 32]),
        output_digest: Digest([2; 32]),
        tokens_digest: None,
        seed: None,
        units_in: 1,
        units_out: 0,
        outcome: SpanOutcome::Done,
        previous: None,
    };
    let acknowledgement = Acknowledgement {
        domain: domain(),
        item,
        attempt,
        deployment: 8,
        input_digest: Digest([2; 32]),
    };
    let acknowledgement = SignedAcknowledgement {
        acknowledgement,
        signature,
    };
    Link {
        receipt: SignedReceipt { receipt, signature },
        acknowledgement: is_acknowledged.then_some(acknowledgement),
    }
}
