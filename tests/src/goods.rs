//! What is offered and ordered on a running chain, as messages: models, providers, deployments, jobs.

use client::Account;
use cosmwasm_std::{Binary, Decimal};
use schema::{
    orchestrator,
    price::{Ask, RoyaltyRate},
    registry, staking, Digest, ModelId, UFUNC,
};

use crate::Host;

/// Of every model here.
pub const ENDPOINT: &str = "embeddings";

pub fn model(namespace: &str, name: &str) -> anyhow::Result<ModelId> {
    Ok(format!("{namespace}/{name}").parse()?)
}

pub fn claim(namespace: &str) -> anyhow::Result<registry::ReceiveMsg> {
    Ok(registry::ReceiveMsg::ClaimNamespace {
        namespace: namespace.parse()?,
    })
}

pub fn metadata() -> registry::Metadata {
    registry::Metadata {
        title: "Sentences to vectors".into(),
        description: "What a person reads before he chooses. ".repeat(8),
        task: registry::Task::Embeddings,
        licence: "Apache-2.0".into(),
        tags: vec!["embeddings".into(), "english".into()],
        homepage: None,
        card: None,
    }
}

pub fn publish(owner: &Account, model: &ModelId, parents: Vec<registry::Parent>) -> registry::ExecuteMsg {
    registry::ExecuteMsg::PublishModel {
        model: model.clone(),
        metadata: metadata(),
        payout: vec![registry::Share {
            address: owner.address().to_owned(),
            bps: 10_000,
        }],
        parents,
    }
}

pub fn version(model: &ModelId, stages: u8) -> registry::ExecuteMsg {
    let share = 10_000 / u16::from(stages);
    let of = |stage: u8| registry::StageInfo {
        digest: Digest::of(&[stage]),
        weight_bytes: 30_000_000,
        compute_share_bps: if stage == 0 {
            10_000 - share * u16::from(stages - 1)
        } else {
            share
        },
    };
    registry::ExecuteMsg::PublishVersion {
        model: model.clone(),
        version: registry::NewVersion {
            manifest: Digest::of(model.to_string().as_bytes()),
            manifest_uris: vec!["https://models.example/bundle".into()],
            stages: (0..stages).map(of).collect(),
            tolerance: Decimal::permille(1),
            units_per_request_max: 256,
        },
    }
}

pub fn endpoint(model: &ModelId) -> registry::ExecuteMsg {
    registry::ExecuteMsg::SetEndpoint {
        model: model.clone(),
        endpoint: ENDPOINT.into(),
        terms: registry::EndpointTerms {
            unit: registry::Unit::Token,
            royalty: RoyaltyRate {
                royalty_bps: 1_000,
                royalty_per_1k_units: 333u128.into(),
            },
        },
    }
}

pub fn profile(name: &str) -> staking::Profile {
    staking::Profile {
        name: name.to_owned(),
        endpoint: format!("https://{name}.example:7000"),
        host_key: Host::named(name).public_key(),
        operator: None,
        hardware: "8 cores, 32 GiB".into(),
    }
}

/// A deployment of one stage with this many slots.
pub fn terms(model: &ModelId, stage: u8, slots: u16, base_seconds: u64) -> staking::ReceiveMsg {
    terms_at(1_000, model, stage, slots, base_seconds)
}

/// The same for another price, in ufunc: of a request, and of a thousand units.
pub fn terms_at(price: u128, model: &ModelId, stage: u8, slots: u16, base_seconds: u64) -> staking::ReceiveMsg {
    let price = price.into();
    staking::ReceiveMsg::Deploy {
        terms: staking::DeploymentTerms {
            model: model.clone(),
            version: 1,
            first: stage,
            last: stage,
            engine_class: "ort-1.31-cpu-fp32".into(),
            ask: Ask {
                per_1k_in: price,
                per_1k_out: price,
                per_request: price,
            },
            reservation_per_hour: 100_000u128.into(),
            slots,
            sla: staking::Sla {
                base_seconds,
                seconds_per_1k_units: 0,
                units_max: 10_000,
                penalty_bps: 1_000,
            },
        },
    }
}

pub fn job(model: &ModelId, shards: usize) -> orchestrator::ExecuteMsg {
    let shard = |number: usize| orchestrator::NewShard {
        inline: vec![Binary::from(format!("sentence {number} of a job").into_bytes())],
    };
    orchestrator::ExecuteMsg::SubmitJob {
        job: orchestrator::NewJob {
            model: model.clone(),
            version: None,
            endpoint: ENDPOINT.into(),
            engine_class: None,
            shards: (0..shards).map(shard).collect(),
            replicas: 1,
            units_max: 256,
            max_price: (u128::try_from(shards).unwrap_or(u128::MAX) * UFUNC / 20).into(),
            deadline_seconds: None,
            chain: None,
            gateway: None,
        },
    }
}
