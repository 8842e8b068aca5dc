//! Models, providers and jobs: those that are measured, and those that are only there.

use client::{Account, Call};
use cosmwasm_std::{Binary, Decimal};
use fxn_tests::Host;
use schema::{
    escrow, orchestrator,
    price::{Ask, RoyaltyRate},
    registry, staking, Digest, ModelId, UFUNC,
};

use crate::meter::{send, Meter};

/// Of a whole market beside the one that is measured.
pub(crate) const CROWD: usize = 2_000;
/// Of a provider, by the rules of staking.
const DEPLOYMENTS_EACH: usize = 32;

pub(crate) const ENDPOINT: &str = "embeddings";

pub(crate) fn model(namespace: &str, name: &str) -> anyhow::Result<ModelId> {
    Ok(format!("{namespace}/{name}").parse()?)
}

pub(crate) fn claim(namespace: &str) -> anyhow::Result<registry::ReceiveMsg> {
    Ok(registry::ReceiveMsg::ClaimNamespace {
        namespace: namespace.parse()?,
    })
}

pub(crate) fn metadata() -> registry::Metadata {
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

pub(crate) fn publish(owner: &Account, model: &ModelId, parents: Vec<registry::Parent>) -> registry::ExecuteMsg {
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

pub(crate) fn version(model: &ModelId, stages: u8) -> registry::ExecuteMsg {
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

pub(crate) fn endpoint(model: &ModelId) -> registry::ExecuteMsg {
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

pub(crate) fn profile(name: &str) -> staking::Profile {
    staking::Profile {
        name: name.to_owned(),
        endpoint: format!("https://{name}.example:7000"),
        host_key: Host::named(name).public_key(),
        operator: None,
        hardware: "8 cores, 32 GiB".into(),
    }
}

/// A deployment of one stage with this many slots.
pub(crate) fn terms(model: &ModelId, stage: u8, slots: u16, base_seconds: u64) -> staking::ReceiveMsg {
    let price = 1_000u128.into();
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

pub(crate) fn job(model: &ModelId, shards: usize) -> orchestrator::ExecuteMsg {
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
            gateway: None,
        },
    }
}

/// A market of [`CROWD`] further models, deployments and open jobs.
pub(crate) async fn fill(meter: &Meter) -> anyhow::Result<()> {
    let creator = meter.actor("crowd", 100_000).await?;
    send(&creator, &[meter.paying("model-registry", 10, &claim("crowd")?)?]).await?;
    let models: Vec<ModelId> = (0..CROWD)
        .map(|number| model("crowd", &format!("m{number}")))
        .collect::<Result<_, _>>()?;
    for some in models.chunks(20) {
        let mut calls = vec![];
        for model in some {
            for msg in [publish(&creator, model, vec![]), version(model, 1), endpoint(model)] {
                calls.push(Call::execute(meter.address("model-registry")?, &msg)?);
            }
        }
        send(&creator, &calls).await?;
    }
    eprintln!("{CROWD} further models");
    for (number, some) in models.chunks(DEPLOYMENTS_EACH).enumerate() {
        let name = format!("crowd-{number}");
        provide(meter, &name, some, 1).await?;
    }
    eprintln!("{CROWD} further deployments");
    for number in 0..2 {
        provide(meter, &format!("crowd-big-{number}"), &models[..1], 1_000).await?;
    }
    let deposit = escrow::ReceiveMsg::Deposit { beneficiary: None };
    send(&creator, &[meter.paying("royalty-escrow", 1_000, &deposit)?]).await?;
    let order = Call::execute(meter.address("job-orchestrator")?, &job(&models[0], 1))?;
    for _ in 0..CROWD / 20 {
        send(&creator, &vec![order.clone(); 20]).await?;
    }
    eprintln!("{CROWD} further jobs");
    Ok(())
}

async fn provide(meter: &Meter, name: &str, models: &[ModelId], slots: u16) -> anyhow::Result<()> {
    let slots_all = u128::try_from(models.len())? * u128::from(slots);
    let provider = meter.actor(name, slots_all * 50 + 100).await?;
    let register = staking::ExecuteMsg::RegisterProvider { profile: profile(name) };
    let mut calls = vec![
        Call::execute(meter.address("provider-staking")?, &register)?,
        meter.paying("provider-staking", slots_all * 50, &staking::ReceiveMsg::Bond {})?,
    ];
    for model in models {
        calls.push(meter.paying("provider-staking", 1, &terms(model, 0, slots, 600))?);
    }
    send(&provider, &calls).await?;
    Ok(())
}
