//! A whole market beside the one that is measured.

use fxn_tests::{
    goods::{claim, endpoint, job, model, profile, publish, terms, terms_at, version},
    people::{send, People},
};
use schema::{escrow, staking, ModelId};

/// FUNC of bond beside that of the slots.
const RESERVE: u128 = 75;
/// Of everything in it.
pub(crate) const CROWD: usize = 2_000;
/// Of a provider, by the rules of staking.
const DEPLOYMENTS_EACH: usize = 32;
/// Deployments of one model among which a job is drawn. 16 are all that a draw weighs.
pub(crate) const OFFERS: [usize; 3] = [10, 16, CROWD];
/// Shards of the jobs that are drawn there.
pub(crate) const DRAWN: [usize; 3] = [1, 8, 16];

/// What drawing costs among so many deployments of the model.
#[derive(Debug)]
pub(crate) struct Draw {
    pub(crate) offers: usize,
    /// In the order of [`DRAWN`].
    pub(crate) gas: Vec<u64>,
}

/// Jobs for one model, while more and more deployments of it are there. Every provider there is has as many deployments as it may have, so that
/// it is only their number at the model that differs: a provider's own record grows with its own deployments.
pub(crate) async fn draws(people: &People) -> anyhow::Result<Vec<Draw>> {
    let creator = people.actor("same", 1_000).await?;
    let (same, other) = (model("same", "model")?, model("same", "other")?);
    let mut calls = vec![people.paying("model-registry", 10, &claim("same")?)?];
    for model in [&same, &other] {
        for msg in [publish(&creator, model, vec![]), version(model, 1), endpoint(model)] {
            calls.push(people.telling("model-registry", &msg)?);
        }
    }
    let deposit = escrow::ReceiveMsg::Deposit { beneficiary: None };
    calls.push(people.paying("royalty-escrow", 100, &deposit)?);
    send(&creator, &calls).await?;
    let (mut providers, mut there, mut drawn) = (0, 0, vec![]);
    for offers in OFFERS {
        while there < offers {
            // One each at first, and then whole providers, whose first is cheaper than all that was there.
            let own = if offers < CROWD {
                1
            } else {
                DEPLOYMENTS_EACH.min(offers - there)
            };
            let others = DEPLOYMENTS_EACH - own;
            offer(people, &format!("same-{providers}"), (&same, own), (&other, others)).await?;
            (providers, there) = (providers + 1, there + own);
        }
        let mut gas = vec![];
        for shards in DRAWN {
            let order = people.telling("job-orchestrator", &job(&same, shards))?;
            gas.push(send(&creator, &[order]).await?.1.gas_used);
        }
        eprintln!("{offers} deployments of one model: {gas:?} gas for {DRAWN:?} shards");
        drawn.push(Draw { offers, gas });
    }
    Ok(drawn)
}

/// A provider with so many deployments of one model, each dearer than the one before, and so many of another.
async fn offer(
    people: &People,
    name: &str,
    (model, own): (&ModelId, usize),
    (other, others): (&ModelId, usize),
) -> anyhow::Result<()> {
    const SLOTS: u16 = 30;
    let bond = u128::try_from(own + others)? * u128::from(SLOTS) * 50 + RESERVE;
    let provider = people.actor(name, bond + 100).await?;
    let register = staking::ExecuteMsg::RegisterProvider { profile: profile(name) };
    let mut calls = vec![
        people.telling("provider-staking", &register)?,
        people.paying("provider-staking", bond, &staking::ReceiveMsg::Bond {})?,
    ];
    // The first of the later providers come before those that are alone at their price.
    let cheapest = if own > 1 { 900 } else { 1_000 };
    let dearer = (0..own).map(|place| (model, cheapest + place));
    for (model, price) in dearer.chain((0..others).map(|_| (other, 1_000))) {
        let terms = terms_at(u128::try_from(price)?, model, 0, SLOTS, 600);
        calls.push(people.paying("provider-staking", 1, &terms)?);
    }
    send(&provider, &calls).await?;
    Ok(())
}

/// A market of [`CROWD`] further models, deployments and open jobs.
pub(crate) async fn fill(people: &People) -> anyhow::Result<()> {
    let creator = people.actor("crowd", 100_000).await?;
    send(&creator, &[people.paying("model-registry", 10, &claim("crowd")?)?]).await?;
    let models: Vec<ModelId> = (0..CROWD)
        .map(|number| model("crowd", &format!("m{number}")))
        .collect::<Result<_, _>>()?;
    for some in models.chunks(20) {
        let mut calls = vec![];
        for model in some {
            for msg in [publish(&creator, model, vec![]), version(model, 1), endpoint(model)] {
                calls.push(people.telling("model-registry", &msg)?);
            }
        }
        send(&creator, &calls).await?;
    }
    eprintln!("{CROWD} further models");
    for (number, some) in models.chunks(DEPLOYMENTS_EACH).enumerate() {
        let name = format!("crowd-{number}");
        provide(people, &name, some, 1).await?;
    }
    eprintln!("{CROWD} further deployments");
    for number in 0..2 {
        provide(people, &format!("crowd-big-{number}"), &models[..1], 1_000).await?;
    }
    let deposit = escrow::ReceiveMsg::Deposit { beneficiary: None };
    send(&creator, &[people.paying("royalty-escrow", 1_000, &deposit)?]).await?;
    let order = people.telling("job-orchestrator", &job(&models[0], 1))?;
    for _ in 0..CROWD / 20 {
        send(&creator, &vec![order.clone(); 20]).await?;
    }
    eprintln!("{CROWD} further jobs");
    Ok(())
}

async fn provide(people: &People, name: &str, models: &[ModelId], slots: u16) -> anyhow::Result<()> {
    let slots_all = u128::try_from(models.len())? * u128::from(slots);
    let provider = people.actor(name, slots_all * 50 + RESERVE + 100).await?;
    let register = staking::ExecuteMsg::RegisterProvider { profile: profile(name) };
    let mut calls = vec![
        people.telling("provider-staking", &register)?,
        people.paying(
            "provider-staking",
            slots_all * 50 + RESERVE,
            &staking::ReceiveMsg::Bond {},
        )?,
    ];
    for model in models {
        calls.push(people.paying("provider-staking", 1, &terms(model, 0, slots, 600))?);
    }
    send(&provider, &calls).await?;
    Ok(())
}
