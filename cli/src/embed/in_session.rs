//! Texts to vectors in a session: one that was named, one that fits, or a new one.

use anyhow::{bail, ensure};
use client::Client;
use inference_host::request::Format;
use schema::{
    escrow::{AllocationState, SessionResponse},
    price::Units,
    registry::OfferResponse,
};

use super::Embedded;
use crate::{
    amount::Func,
    context::Context,
    progress::Progress,
    session::{self, chain_seconds, keys, open},
    work::{
        lane::{self, Lane, Load},
        order::{self, Order},
        prepare::Reader,
        rows,
    },
};

/// Less life than this is left to those who have begun.
const LIFE_SECONDS_MIN: u64 = 30;
/// A new session is good for so many times the work at hand: the next command may use it.
const ROOM: u64 = 4;
/// Further chains of a new session.
const SPARES: usize = 1;

pub(super) async fn embedded(
    context: &Context,
    order: &Order,
    wanted: Option<u64>,
    texts: &[String],
    progress: &Progress,
) -> anyhow::Result<Embedded> {
    let client = &context.client().await?;
    progress.step("asking the market");
    let named = match wanted {
        Some(number) => Some(check(client, order, session::find(client, number).await?).await?),
        None => None,
    };
    let order = &Order {
        version: named.as_ref().map(|session| session.version).or(order.version),
        ..order.clone()
    };
    let offer = order::offer(client, order).await?;
    let endpoint = &order.endpoint;
    ensure!(
        Format::of(endpoint)? == Format::Text,
        "endpoint {endpoint} takes tensors, not texts: `fxn job submit --endpoint {endpoint} --input FILE.safetensors`"
    );
    let reader = Reader::open(client, &order.model, &offer).await?;
    let load = Load::of_texts(&reader, &rows::of_texts(texts), lane::REQUEST)?;
    let session = match named {
        Some(session) => session,
        None => find_or_open(context, client, order, offer, &load, progress).await?,
    };
    let number = session.session;
    progress.step(&format!("session {number}: {} requests", load.requests()));
    let key = keys::open(context, number, &session.session_key)?;
    let lane = Lane::open(client, &session, key, &load).await?;
    let worked = lane.embed(&reader, &load).await?;
    ensure!(
        worked.embeddings.len() == texts.len(),
        "{} texts became {} vectors",
        texts.len(),
        worked.embeddings.len()
    );
    Ok(Embedded {
        model: order.model.clone(),
        embeddings: worked.embeddings,
        tokens: load.tokens(),
        price: worked.price,
        providers: worked.providers,
        jobs: vec![],
        session: Some(number),
    })
}

/// Whether a session can do this, with the sentence why not.
async fn check(client: &Client, order: &Order, session: SessionResponse) -> anyhow::Result<SessionResponse> {
    let number = session.session;
    ensure!(
        (&session.model, &session.endpoint) == (&order.model, &order.endpoint),
        "session {number} is for {} {}, not for {} {}",
        session.model,
        session.endpoint,
        order.model,
        order.endpoint
    );
    if let Some(version) = order.version.filter(|version| *version != session.version) {
        bail!(
            "session {number} is for version {}, not for version {version}",
            session.version
        );
    }
    let now = chain_seconds(client).await?;
    ensure!(
        now < session.expires_at,
        "session {number} has expired: `fxn session close {number}` brings back what is left"
    );
    ensure!(
        session.allocations.iter().any(|it| it.state == AllocationState::Open),
        "session {number} is closing: `fxn session open` opens another"
    );
    Ok(session)
}

/// One of the account's own sessions that is good for the load, else a new one.
async fn find_or_open(
    context: &Context,
    client: &Client,
    order: &Order,
    offer: OfferResponse,
    load: &Load,
    progress: &Progress,
) -> anyhow::Result<SessionResponse> {
    let now = chain_seconds(client).await?;
    let own = client.escrow().all_sessions(&context.address()?).await?;
    let fits = |it: &SessionResponse| {
        (&it.model, &it.endpoint, it.version) == (&order.model, &order.endpoint, offer.version)
            && it.expires_at > now.saturating_add(LIFE_SECONDS_MIN)
            && keys::is_here(context, &it.session_key)
            && has_room(it, load.units(), offer.stages.len())
    };
    if let Some(found) = own.into_iter().find(fits) {
        return Ok(found);
    }
    progress.step("opening a session");
    let (account, passphrase) = context.account_and_passphrase().await?;
    let units = Units {
        requests: load.units().requests.saturating_mul(ROOM),
        units_in: load.units().units_in.saturating_mul(ROOM),
        units_out: 0,
    };
    let mut chosen = open::choose(client, order.clone(), offer.clone(), units, SPARES, None).await;
    if chosen.is_err() {
        // Large work fits a slot without the room for more.
        chosen = open::choose(client, order.clone(), offer, load.units(), SPARES, None).await;
    }
    let chosen = chosen?;
    if let Some(most) = order.max_price {
        // The room was for later.
        let price = Func(chosen.price().0.div_ceil(u128::from(ROOM)));
        ensure!(
            price <= most,
            "it costs about {price} FUNC, --max-price allows {most}; nothing was spent"
        );
    }
    open::check_funds(&account, chosen.held).await?;
    let key = keys::create(context, &passphrase)?;
    let opened = open::carry_out(&account, &key, &chosen).await?;
    Ok(client.escrow().session(opened.session).await?)
}

/// Whether the open deployments of every stage can pay for so much more, as far as the chain knows.
fn has_room(session: &SessionResponse, units: Units, stages: usize) -> bool {
    let gateway_bps = session.gateway.as_ref().map_or(0, |gateway| gateway.bps);
    let can = |it: &schema::escrow::AllocationResponse| {
        let price = schema::price::SpanPrice::of(&it.ask, &session.royalty, gateway_bps, it.compute_share_bps, units);
        let price = price.and_then(|price| price.total());
        it.state == AllocationState::Open && price.is_ok_and(|price| price <= it.amount.saturating_sub(it.paid))
    };
    let able: Vec<_> = session.allocations.iter().filter(|it| can(it)).collect();
    (0..stages).all(|stage| {
        able.iter()
            .any(|it| (usize::from(it.first)..=usize::from(it.last)).contains(&stage))
    })
}
