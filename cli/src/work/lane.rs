//! Work in a session: off the chain, straight to its hosts, each request paid when it is delivered.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{ensure, Context as _};
use client::{Client, Wallet};
use cosmwasm_std::Uint128;
use futures::{stream, StreamExt, TryStreamExt};
use inference_host::request::Format;
use lane::{
    driver::{Answer, Driver, Limits, RequestError, Setup, Span, Work},
    terms::Terms,
};
use schema::{
    escrow::{AllocationState, SessionResponse},
    price::Units,
};

use super::{
    prepare::Reader,
    results,
    rows::Row,
    shards::{self, Weight},
};
use crate::amount::Func;

/// Longest wait for the hosts of one chain.
const READY_PATIENCE: Duration = Duration::from_secs(20);
/// Longest wait for hosts to say that they have their last vouchers.
const PAY_PATIENCE: Duration = Duration::from_secs(5);
/// Requests on their way at once: hosts that give more credit are kept busy.
const AT_ONCE: usize = 16;
/// What one request carries: enough to fill a batch, little enough to lose.
pub(crate) const REQUEST: shards::Limits = shards::Limits {
    rows: 16,
    bytes: 256 * 1024,
    units: 1024,
};

/// A session that can be worked with.
#[derive(Debug)]
pub(crate) struct Lane {
    driver: Driver,
    session: u64,
    /// Providers by deployment.
    providers: BTreeMap<u64, String>,
}

/// Texts that are cut into requests.
#[derive(Debug)]
pub(crate) struct Load {
    works: Vec<Work>,
    /// All of them.
    units: Units,
    largest: Units,
    /// Of each text.
    tokens: Vec<u64>,
}

/// What they came to.
#[derive(Debug, Default)]
pub(crate) struct Worked {
    pub(crate) embeddings: Vec<Vec<f32>>,
    pub(crate) price: Func,
    pub(crate) providers: Vec<String>,
}

impl Load {
    /// An error names the first text that the model does not take.
    pub(crate) fn of_texts(reader: &Reader, rows: &[Row], request: shards::Limits) -> anyhow::Result<Self> {
        let weights = reader.weights(Format::Text, rows)?;
        let mut load = Self {
            works: vec![],
            units: Units::default(),
            largest: Units::default(),
            tokens: weights.iter().map(|weight| weight.units).collect(),
        };
        for range in shards::cut(&weights, request) {
            let units = units(weights.get(range.clone()).unwrap_or_default());
            let inside = rows.get(range).unwrap_or_default();
            load.units.requests = load.units.requests.saturating_add(units.requests);
            load.units.units_in = load.units.units_in.saturating_add(units.units_in);
            load.largest.requests = load.largest.requests.max(units.requests);
            load.largest.units_in = load.largest.units_in.max(units.units_in);
            load.works.push(Work {
                rows: inside.iter().map(|row| row.bytes.clone().into()).collect(),
                units,
            });
        }
        Ok(load)
    }

    pub(crate) fn units(&self) -> Units {
        self.units
    }

    pub(crate) fn tokens(&self) -> Vec<u64> {
        self.tokens.clone()
    }

    pub(crate) fn requests(&self) -> usize {
        self.works.len()
    }
}

fn units(weights: &[Weight]) -> Units {
    Units {
        requests: u64::try_from(weights.len()).unwrap_or(u64::MAX),
        units_in: weights.iter().fold(0, |sum, weight| sum.saturating_add(weight.units)),
        units_out: 0,
    }
}

/// What to do about hosts that are silent.
fn force(session: u64) -> String {
    format!("`fxn session force {session} TEXT` asks them on chain, where silence costs them")
}

/// Dials the hosts of a session. `largest`: what a host may be conceded that says it has done it; None: nothing.
pub(crate) async fn driver(
    client: &Client,
    session: &SessionResponse,
    key: Wallet,
    largest: Option<Units>,
) -> anyhow::Result<Driver> {
    let domain = client.escrow().domain();
    let stages = client
        .registry()
        .version(&session.model, session.version)
        .await?
        .stages
        .len();
    let mut spans = vec![];
    let mut conceded_max = Uint128::zero();
    for allocation in session
        .allocations
        .iter()
        .filter(|it| it.state != AllocationState::Closed)
    {
        let deployment = allocation.deployment;
        let (terms, standing) =
            Terms::of(domain.clone(), session, deployment).context("an allocation is not in its own session")?;
        if let Some(largest) = largest {
            conceded_max = conceded_max.max(terms.price(largest)?);
        }
        let listed = client.staking().deployment(deployment).await?;
        spans.push(Span {
            terms,
            standing,
            host_key: allocation.host_key,
            first: allocation.first,
            last: allocation.last,
            engine_class: listed.terms.engine_class,
            endpoint: results::endpoint(client, &allocation.provider).await?,
        });
    }
    Ok(Driver::start(Setup {
        domain,
        session: session.session,
        key,
        stages: u8::try_from(stages).unwrap_or(u8::MAX),
        spans,
        limits: Limits {
            conceded_max,
            ..Limits::default()
        },
    }))
}

impl Lane {
    /// Reaches the hosts and makes sure that the session can pay for the load. An error costs nothing.
    pub(crate) async fn open(
        client: &Client,
        session: &SessionResponse,
        key: Wallet,
        load: &Load,
    ) -> anyhow::Result<Self> {
        let number = session.session;
        let driver = driver(client, session, key, Some(load.largest)).await?;
        let ready = driver.ready(READY_PATIENCE).await;
        ready.map_err(|why| {
            anyhow::anyhow!(
                "the hosts of session {number} cannot be reached: {why}; nothing was spent. {}",
                force(number)
            )
        })?;
        ensure!(
            driver.payable(load.units).is_some(),
            "session {number} has not enough left for {} texts with {} tokens on any of its chains: `fxn session topup {number} \
             --requests {}` adds it, `fxn session show {number}` shows what is left; nothing was spent",
            load.units.requests,
            load.units.units_in,
            load.units.requests
        );
        let providers = session
            .allocations
            .iter()
            .map(|it| (it.deployment, it.provider.clone()));
        Ok(Self {
            driver,
            session: number,
            providers: providers.collect(),
        })
    }

    /// Where hosts were silent, what can be done about it.
    fn unanswered(&self, why: RequestError) -> anyhow::Error {
        let number = self.session;
        match why {
            RequestError::Refused(_) | RequestError::Money(_) => {
                anyhow::Error::new(why).context(format!("session {number} did not carry it out"))
            }
            silence => anyhow::anyhow!("session {number} did not carry it out: {silence}. {}", force(number)),
        }
    }

    /// Carries out everything, in order. What was delivered before an error is paid for.
    pub(crate) async fn embed(&self, reader: &Reader, load: &Load) -> anyhow::Result<Worked> {
        let answers: Result<Vec<Answer>, _> = stream::iter(&load.works)
            .map(|work| self.driver.request(work))
            .buffered(AT_ONCE)
            .try_collect()
            .await;
        // The last vouchers are still on their way. A host that does not take them has only itself to blame.
        self.driver.pay_up(PAY_PATIENCE).await;
        let answers = answers.map_err(|why| self.unanswered(why))?;
        let mut worked = Worked::default();
        let mut providers = std::collections::BTreeSet::new();
        for answer in answers {
            worked.price = Func(worked.price.0.saturating_add(answer.price.u128()));
            let deployments = answer.receipts.iter().map(|signed| signed.receipt.deployment);
            providers.extend(deployments.filter_map(|deployment| self.providers.get(&deployment)));
            for bytes in &answer.rows {
                worked.embeddings.push(results::embedding(&reader.decode(bytes)?)?);
            }
        }
        worked.providers = providers.into_iter().cloned().collect();
        Ok(worked)
    }
}
