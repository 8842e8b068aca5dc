//! Opening a session: whom to set money apart for, how much, and a key of its own that is safe on disk before the chain hears of it.

use std::{fmt, time::Duration};

use anyhow::{bail, ensure, Context as _};
use clap::Args;
use client::{Account, Client, NoPlan, Part, Plan, Wallet, Wish};
use schema::{
    escrow::{NewAllocation, NewSession},
    params::EscrowParams,
    price::Units,
    registry::OfferResponse,
    ModelId, PublicKey,
};
use serde::Serialize;

use super::{
    chain_seconds,
    flags::{duration, Allocate, WorkFlags},
    from_now, keys,
};
use crate::{
    amount::Func,
    context::Context,
    output::Table,
    work::order::{self, Order},
};

/// How long a session lives if nobody says so.
const USUAL_SECONDS: u64 = 3_600;
/// Between asking the clock and the block that opens it.
const CLOCK_MARGIN_SECONDS: u64 = 5;

#[derive(Debug, Args)]
pub(crate) struct Open {
    /// namespace/name
    #[arg(long)]
    model: ModelId,
    /// Version of the model [default: the newest]
    #[arg(long, value_name = "N")]
    model_version: Option<u32>,
    /// Endpoint of the model
    #[arg(long, default_value = "embeddings")]
    endpoint: String,
    #[command(flatten)]
    work: WorkFlags,
    /// Further complete chains of hosts, which take over when one fails
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(0..=15))]
    spares: u8,
    /// Only hosts of this engine class
    #[arg(long, value_name = "CLASS")]
    engine_class: Option<String>,
    /// This deployment with this much FUNC, instead of those that are chosen for you; may be given several times
    #[arg(long, value_name = "DEPLOYMENT=FUNC", conflicts_with_all = ["requests", "tokens", "spares", "engine_class"])]
    allocate: Vec<Allocate>,
    /// How long, for example 30m or 2h [default: 1h, or the longest that the network has]
    #[arg(long = "for", value_name = "TIME", value_parser = duration)]
    life: Option<Duration>,
}

/// A session to be.
#[derive(Debug)]
pub(crate) struct Wanted {
    pub(crate) order: Order,
    pub(crate) offer: OfferResponse,
    pub(crate) allocations: Vec<NewAllocation>,
    /// Whom the money is for, where it was chosen for the developer.
    parts: Vec<Part>,
    /// Held altogether; without reservations where deployments were named.
    pub(crate) held: Func,
    expires_at: u64,
}

/// The answer. Its JSON is a promise.
#[derive(Debug, Serialize)]
pub(crate) struct Opened {
    pub(crate) session: u64,
    pub(crate) model: ModelId,
    pub(crate) version: u32,
    pub(crate) endpoint: String,
    /// Block time in seconds.
    pub(crate) expires_at: u64,
    /// For vouchers and reservations, in ufunc.
    pub(crate) held: Func,
    pub(crate) allocations: Vec<Allocated>,
    pub(crate) tx_hash: String,
    pub(crate) height: u64,
    #[serde(skip)]
    now: u64,
}

#[derive(Debug, Serialize)]
pub(crate) struct Allocated {
    pub(crate) deployment: u64,
    pub(crate) provider: String,
    first: u8,
    last: u8,
    amount: Func,
    reservation: Func,
}

impl fmt::Display for Opened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            session, held, model, ..
        } = self;
        writeln!(
            f,
            "Session {session} is open for {model} until {} ({}); {held} FUNC are held.\n",
            self.expires_at,
            from_now(self.expires_at, self.now)
        )?;
        let mut table = Table::new(["deployment", "stages", ">for requests", ">for the slot", "provider"]);
        for allocation in &self.allocations {
            table.row([
                allocation.deployment.to_string(),
                format!("{}..{}", allocation.first, allocation.last),
                allocation.amount.column(),
                allocation.reservation.column(),
                allocation.provider.clone(),
            ]);
        }
        writeln!(f, "{table}")?;
        write!(
            f,
            "`fxn embed --model {model} --session {session} FILE` uses it, `fxn session close {session}` brings back what is left."
        )
    }
}

pub(super) async fn run(context: &Context, open: &Open) -> anyhow::Result<()> {
    let order = Order {
        model: open.model.clone(),
        version: open.model_version,
        endpoint: open.endpoint.clone(),
        engine_class: open.engine_class.clone(),
        replicas: 1,
        deadline_seconds: None,
        max_price: None,
        chain: None,
    };
    let (account, passphrase) = context.account_and_passphrase().await?;
    let client = account.client();
    let offer = order::offer(client, &order).await?;
    let units = open.work.units(offer.units_per_request_max, &offer.task);
    let wanted = match open.allocate.as_slice() {
        [] => choose(client, order, offer, units, open.spares.into(), open.life).await?,
        named => name(client, order, offer, named, open.life).await?,
    };
    check_funds(&account, wanted.held).await?;
    let key = keys::create(context, &passphrase)?;
    context.output.print(&carry_out(&account, &key, &wanted).await?)
}

/// When a session that lives so long expires, and how long its slots are paid for.
async fn dates(client: &Client, life: Option<Duration>) -> anyhow::Result<(u64, u64, EscrowParams)> {
    let params = client.escrow().config().await?.params;
    let most = params.session_seconds_max;
    let life = match life {
        None => USUAL_SECONDS.min(most.saturating_sub(CLOCK_MARGIN_SECONDS)),
        Some(life) => life.as_secs(),
    };
    ensure!(
        life <= most,
        "a session lives at most {most} s on this network, {life} s are wanted"
    );
    let expires_at = chain_seconds(client).await?.saturating_add(life);
    Ok((expires_at, life.saturating_add(params.close_notice_seconds), params))
}

/// The cheapest chain, and spares.
pub(crate) async fn choose(
    client: &Client,
    order: Order,
    offer: OfferResponse,
    units: Units,
    spares: usize,
    life: Option<Duration>,
) -> anyhow::Result<Wanted> {
    let (expires_at, seconds, params) = dates(client, life).await?;
    let deployments = client.staking().deployments_of(&order.model, offer.version).await?;
    let wish = Wish {
        compute_shares: offer.stages.iter().map(|stage| stage.compute_share_bps).collect(),
        royalty: offer.terms.royalty,
        gateway_bps: 0,
        units,
        spares,
        engine_class: order.engine_class.clone(),
        seconds,
        allocation_min: params.allocation_min.u128(),
    };
    let plan = wish.plan(&deployments).map_err(|refused| no_plan(&order, refused))?;
    Ok(Wanted {
        allocations: plan.parts.iter().map(Part::allocation).collect(),
        held: Func(Plan::held(&plan)),
        parts: plan.parts,
        order,
        offer,
        expires_at,
    })
}

fn no_plan(order: &Order, refused: NoPlan) -> anyhow::Error {
    match refused {
        NoPlan::AboveSlotBond {
            deployment,
            price,
            slot_bond,
        } => anyhow::anyhow!(
            "the work costs {} FUNC at deployment {deployment}, whose slot is backed with {}: open the session for fewer --requests or \
             --tokens, and `fxn session topup` adds more once that is used",
            Func(price),
            Func(slot_bond)
        ),
        other => anyhow::anyhow!("there is no supply of {}: {other}; nothing was spent", order.model),
    }
}

/// The deployments that were named.
async fn name(
    client: &Client,
    order: Order,
    offer: OfferResponse,
    named: &[Allocate],
    life: Option<Duration>,
) -> anyhow::Result<Wanted> {
    let (expires_at, ..) = dates(client, life).await?;
    let sum = named.iter().fold(0_u128, |sum, it| sum.saturating_add(it.amount.0));
    Ok(Wanted {
        allocations: named.iter().map(Allocate::allocation).collect(),
        held: Func(sum),
        parts: vec![],
        order,
        offer,
        expires_at,
    })
}

/// Opens it. `key` signs its vouchers.
pub(crate) async fn carry_out(account: &Account, key: &Wallet, wanted: &Wanted) -> anyhow::Result<Opened> {
    let client = account.client();
    let session = NewSession {
        model: wanted.order.model.clone(),
        version: Some(wanted.offer.version),
        endpoint: wanted.order.endpoint.clone(),
        allocations: wanted.allocations.clone(),
        session_key: PublicKey(key.public_key()),
        gateway: None,
        expires_at: wanted.expires_at,
    };
    let outcome = account.execute(&[client.escrow().open_session(session)?]).await?;
    let number = outcome
        .opened_session()
        .context("the chain told no session_opened event")?;
    let found = client.escrow().session(number).await?;
    let allocated = |allocation: &schema::escrow::AllocationResponse| Allocated {
        deployment: allocation.deployment,
        provider: allocation.provider.clone(),
        first: allocation.first,
        last: allocation.last,
        amount: allocation.amount.into(),
        reservation: allocation.reservation.into(),
    };
    let allocations: Vec<Allocated> = found.allocations.iter().map(allocated).collect();
    let parts = allocations
        .iter()
        .map(|it| it.amount.0.saturating_add(it.reservation.0));
    Ok(Opened {
        session: number,
        held: Func(parts.fold(0, u128::saturating_add)),
        model: found.model,
        version: found.version,
        endpoint: found.endpoint,
        expires_at: found.expires_at,
        now: found.opened_at,
        allocations,
        tx_hash: outcome.hash.to_string(),
        height: outcome.height,
    })
}

/// A sentence that says what is missing, if anything is.
pub(crate) async fn check_funds(account: &Account, most: Func) -> anyhow::Result<()> {
    let available = order::available(account.client(), account.address()).await?;
    if available < most {
        let missing = Func(most.0.saturating_sub(available.0));
        bail!(
            "{most} FUNC would be held for the session, {available} are available in the escrow: `fxn wallet deposit {missing}` adds \
             what is missing"
        );
    }
    Ok(())
}

impl Wanted {
    /// Of the deployments that were chosen, those of the first chain.
    pub(crate) fn price(&self) -> Func {
        let first = self.parts.iter().filter(|part| !part.is_spare);
        Func(first.fold(0, |sum, part| sum.saturating_add(part.price)))
    }
}
