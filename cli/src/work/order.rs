//! Ordering work on chain: what it may cost, the job itself, and waiting for its end.

use std::{ops::Range, time::Duration};

use anyhow::{bail, Context as _};
use client::{Account, Call, Client, ClientError};
use cosmwasm_std::Binary;
use rand::RngCore;
use schema::{
    orchestrator::{ExecuteMsg, JobResponse, JobStatus, NewJob, NewShard},
    price::Units,
    registry::{OfferResponse, Task},
    staking::{Chain, DrawRequest, DrawShard},
    Digest, Event, ModelId,
};
use tokio::time::{sleep, Instant};

use super::{named, rows::Row, shards::Weight, supply::Supply, why};
use crate::amount::Func;

/// How much dearer than the drawn chains the real ones may be: the draw of the job has another seed.
const PRICE_MARGIN: u128 = 2;
/// Longest wait for a free slot where stages are served but busy.
const BUSY_PATIENCE: Duration = Duration::from_secs(60);
/// How often the chain is asked whether a job has ended.
const POLL: Duration = Duration::from_millis(300);

/// What is wanted, whatever the input.
#[derive(Debug, Clone)]
pub(crate) struct Order {
    pub(crate) model: ModelId,
    pub(crate) version: Option<u32>,
    pub(crate) endpoint: String,
    pub(crate) engine_class: Option<String>,
    pub(crate) replicas: u8,
    pub(crate) deadline_seconds: Option<u64>,
    /// Most that all jobs together may cost; by the market if absent.
    pub(crate) max_price: Option<Func>,
    /// Who is to do it, from the first stage to the last, instead of whoever is drawn.
    pub(crate) chain: Option<Vec<u64>>,
}

/// Rows of a job and their units.
#[derive(Debug, Clone)]
pub(crate) struct Batch {
    pub(crate) shards: Vec<Range<usize>>,
    /// Units of the largest shard.
    pub(crate) units_max: u64,
}

impl Batch {
    pub(crate) fn of(shards: Vec<Range<usize>>, weights: &[Weight]) -> Self {
        let units = |shard: &Range<usize>| {
            let inside = weights.get(shard.clone()).unwrap_or_default();
            inside
                .iter()
                .fold(0_u64, |sum, weight| sum.saturating_add(weight.units))
        };
        Self {
            units_max: shards.iter().map(units).max().unwrap_or(0),
            shards,
        }
    }

    fn items(&self, replicas: u8) -> u128 {
        let shards = u128::try_from(self.shards.len()).unwrap_or(u128::MAX);
        shards.saturating_mul(replicas.into())
    }
}

/// What a batch may cost.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Quote {
    /// Held at submission; what is not used comes back.
    pub(crate) most: Func,
    /// What the chains that were drawn for the quote would cost for the most units.
    pub(crate) likely: Func,
}

/// What the registry promises for new work; its own sentence if there can be none, and the endpoints that there are if this one is not.
pub(crate) async fn offer(client: &Client, order: &Order) -> anyhow::Result<OfferResponse> {
    let registry = client.registry();
    match registry.offer(&order.model, order.version, &order.endpoint).await {
        Err(refused @ ClientError::QueryRefused { .. }) => Err(why::no_offer(client, order, refused).await),
        offer => Ok(offer?),
    }
}

/// Asks the market for chains. None: no supply right now.
pub(crate) async fn quote(
    client: &Client,
    order: &Order,
    offer: &OfferResponse,
    batch: &Batch,
) -> anyhow::Result<Option<Quote>> {
    let config = client.staking().config().await?;
    let slot = config.params.bond_per_slot;
    let items = batch.items(order.replicas).max(1);
    let cap = order.max_price.map_or(slot.u128(), |most| {
        slot.u128().min(most.0.checked_div(items).unwrap_or(0))
    });
    let request = draw_request(order, offer, batch, cap);
    let prices = match &order.chain {
        Some(chain) => named::prices(client, chain, &request).await?,
        None => drawn_prices(client, request).await?,
    };
    let Some(prices) = prices else {
        return Ok(None);
    };
    let highest = prices.iter().copied().max().unwrap_or(0);
    let item = order
        .max_price
        .map_or(highest.saturating_mul(PRICE_MARGIN).min(slot.u128()), |_| cap);
    Ok(Some(Quote {
        most: Func(item.saturating_mul(items)),
        likely: Func(prices.into_iter().fold(0, u128::saturating_add)),
    }))
}

/// Of each item. None: no supply right now.
async fn drawn_prices(client: &Client, request: DrawRequest) -> anyhow::Result<Option<Vec<u128>>> {
    let chains = client.staking().draw(request).await?.chains;
    let prices = chains.map(|chains| chains.iter().map(price).collect());
    prices.transpose()
}

pub(super) fn draw_request(order: &Order, offer: &OfferResponse, batch: &Batch, item_price_max: u128) -> DrawRequest {
    let mut seed = [0; 32];
    rand::thread_rng().fill_bytes(&mut seed);
    // As the orchestrator reserves it: what is not a model of embeddings may generate as much as it reads.
    let units_out = match offer.task {
        Task::Embeddings => 0,
        _ => batch.units_max,
    };
    let shard = |shard: &Range<usize>| DrawShard {
        units: Units {
            requests: u64::try_from(shard.len()).unwrap_or(u64::MAX),
            units_in: batch.units_max,
            units_out,
        },
        replicas: order.replicas,
        ..DrawShard::default()
    };
    DrawRequest {
        model: order.model.clone(),
        version: offer.version,
        engine_class: order.engine_class.clone(),
        compute_shares: offer.stages.iter().map(|stage| stage.compute_share_bps).collect(),
        royalty: offer.terms.royalty,
        gateway_bps: 0,
        seed: Digest(seed),
        item_price_max: item_price_max.into(),
        seconds_max: order.deadline_seconds,
        shards: batch.shards.iter().map(shard).collect(),
    }
}

pub(super) fn price(chain: &Chain) -> anyhow::Result<u128> {
    let mut sum = 0_u128;
    for span in &chain.spans {
        sum = sum.saturating_add(span.price_max.total()?.u128());
    }
    Ok(sum)
}

/// As [`quote`], but waits a while for busy providers. An error says which stage nobody serves, or that all are busy.
pub(crate) async fn patient_quote(
    client: &Client,
    order: &Order,
    offer: &OfferResponse,
    batch: &Batch,
) -> anyhow::Result<Quote> {
    let give_up = Instant::now()
        .checked_add(BUSY_PATIENCE)
        .context("the clock is out of range")?;
    let mut explained = false;
    loop {
        if let Some(quote) = quote(client, order, offer, batch).await? {
            return Ok(quote);
        }
        if !explained {
            let slot = client.staking().config().await?.params.bond_per_slot;
            match &order.chain {
                Some(chain) => named::check_slots(client, chain, batch).await?,
                None => why::no_chains(client, order, offer, batch, slot).await?,
            }
            explained = true;
        }
        let units_max = Supply::of(client, order, offer).await?.units_max(order, offer)?;
        if units_max < batch.units_max {
            bail!(
                "there is no supply: a shard has {} units, the providers take {units_max} at once",
                batch.units_max
            );
        }
        if Instant::now() >= give_up {
            bail!(
                "all providers of {} have been busy for {} s: try again later",
                order.model,
                BUSY_PATIENCE.as_secs()
            );
        }
        sleep(POLL).await;
    }
}

/// FUNC that an account may spend.
pub(crate) async fn available(client: &Client, address: &str) -> anyhow::Result<Func> {
    let money = client.escrow().money(address).await?;
    Ok(money.available.into())
}

/// A sentence that says what is missing, if anything is.
pub(crate) async fn check_funds(account: &Account, most: Func) -> anyhow::Result<()> {
    let available = available(account.client(), account.address()).await?;
    if available < most {
        let missing = Func(most.0.saturating_sub(available.0));
        bail!(
            "up to {most} FUNC are held while the work runs, {available} are available in the escrow: \
             `fxn wallet deposit {missing}` adds what is missing"
        );
    }
    Ok(())
}

/// A job on chain.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Submitted {
    pub(crate) job: u64,
    pub(crate) height: u64,
}

/// The calls of a job.
pub(crate) fn submit_call(
    client: &Client,
    order: &Order,
    version: u32,
    batch: &Batch,
    most: Func,
    rows: &[Row],
) -> anyhow::Result<Call> {
    let shard = |shard: &Range<usize>| NewShard {
        inline: rows
            .get(shard.clone())
            .unwrap_or_default()
            .iter()
            .map(|row| Binary::from(row.bytes.as_slice()))
            .collect(),
    };
    let job = NewJob {
        model: order.model.clone(),
        version: Some(version),
        endpoint: order.endpoint.clone(),
        engine_class: order.engine_class.clone(),
        shards: batch.shards.iter().map(shard).collect(),
        replicas: order.replicas,
        units_max: batch.units_max,
        max_price: most.into(),
        deadline_seconds: order.deadline_seconds,
        chain: order.chain.clone(),
        gateway: None,
    };
    Ok(Call::execute(
        &client.contracts().job_orchestrator,
        &ExecuteMsg::SubmitJob { job },
    )?)
}

pub(crate) async fn submit(account: &Account, call: Call) -> anyhow::Result<Submitted> {
    let outcome = account.execute(&[call]).await?;
    let mut events = outcome.events.iter().filter_map(|event| Event::from_wasm(event).ok()?);
    let job = events.find_map(|event| match event {
        Event::JobSubmitted { job, .. } => Some(job),
        _ => None,
    });
    Ok(Submitted {
        job: job.context("the chain told no job_submitted event")?,
        height: outcome.height,
    })
}

/// Waits until the job has ended. `seen` is called with every look at it.
pub(crate) async fn wait(
    client: &Client,
    job: u64,
    patience: Duration,
    mut seen: impl FnMut(&JobResponse),
) -> anyhow::Result<JobResponse> {
    let give_up = Instant::now()
        .checked_add(patience)
        .context("the clock is out of range")?;
    loop {
        let found = client.orchestrator().job(job).await?;
        seen(&found);
        if found.status != JobStatus::Running {
            return Ok(found);
        }
        if Instant::now() >= give_up {
            bail!(
                "job {job} has not ended after {} s; `fxn job watch {job}` follows it",
                patience.as_secs()
            );
        }
        sleep(POLL).await;
    }
}
