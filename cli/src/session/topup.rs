//! More money for a session, or further deployments.

use anyhow::{bail, ensure};
use clap::Args;
use schema::{
    escrow::{AllocationResponse, AllocationState, NewAllocation, SessionResponse},
    price::{SpanPrice, Units},
    Event,
};
use serde::Serialize;

use super::{
    chain_seconds, find,
    flags::{Allocate, WorkFlags},
    open::check_funds,
};
use crate::{amount::Func, context::Context};

#[derive(Debug, Args)]
pub(crate) struct Topup {
    /// Number of the session
    session: u64,
    #[command(flatten)]
    work: WorkFlags,
    /// This deployment, which may be new to the session, with this much FUNC; may be given several times
    #[arg(long, value_name = "DEPLOYMENT=FUNC", conflicts_with_all = ["requests", "tokens"])]
    allocate: Vec<Allocate>,
}

#[derive(Debug, Serialize)]
struct ToppedUp {
    session: u64,
    deployments: Vec<u64>,
    /// In ufunc.
    held: Func,
    tx_hash: String,
    height: u64,
}

pub(super) async fn run(context: &Context, topup: &Topup) -> anyhow::Result<()> {
    let account = context.account().await?;
    let client = account.client();
    let session = find(client, topup.session).await?;
    let number = session.session;
    ensure!(
        session.owner == account.address(),
        "session {number} belongs to {}: nobody else can top it up",
        session.owner
    );
    let now = chain_seconds(client).await?;
    ensure!(
        now < session.expires_at,
        "session {number} has expired: `fxn session close {number}` brings back what is left, `fxn session open` opens another"
    );
    let allocations = match topup.allocate.as_slice() {
        [] => {
            let task = client
                .registry()
                .offer(&session.model, Some(session.version), &session.endpoint)
                .await?
                .task;
            let units = topup.work.units(session.units_per_request_max, &task);
            more(&session, units)?
        }
        named => named.iter().map(Allocate::allocation).collect(),
    };
    let sum = allocations
        .iter()
        .fold(0_u128, |sum, it| sum.saturating_add(it.amount.u128()));
    check_funds(&account, Func(sum)).await?;
    let outcome = account.execute(&[client.escrow().top_up(number, allocations)?]).await?;
    let told = outcome.contract_events().into_iter().find_map(|event| match event {
        Event::SessionToppedUp { deployments, held, .. } => Some((deployments.0, Func::from(held))),
        _ => None,
    });
    let (deployments, held) = told.unwrap_or_default();
    let answer = ToppedUp {
        session: number,
        deployments,
        held,
        tx_hash: outcome.hash.to_string(),
        height: outcome.height,
    };
    context
        .output
        .done(&answer, format!("{held} FUNC more are held for session {number}."))
}

/// What so much more work costs at each deployment that is open, as far as its slot is backed.
fn more(session: &SessionResponse, units: Units) -> anyhow::Result<Vec<NewAllocation>> {
    let open = session
        .allocations
        .iter()
        .filter(|it| it.state == AllocationState::Open);
    let mut allocations = vec![];
    for allocation in open {
        let amount = increase(session, allocation, units)?;
        let unsettled = allocation.amount.saturating_sub(allocation.paid);
        let room = allocation.slot_bond.saturating_sub(unsettled);
        let deployment = allocation.deployment;
        if amount > room.u128() {
            bail!(
                "it costs {} FUNC more at deployment {deployment}, for which {} more are backed: give fewer --requests, or wait until \
                 its vouchers are settled",
                Func(amount),
                Func::from(room)
            );
        }
        if amount > 0 {
            allocations.push(NewAllocation {
                deployment,
                amount: amount.into(),
            });
        }
    }
    ensure!(
        !allocations.is_empty(),
        "session {} has no open deployment that costs anything: nothing was spent",
        session.session
    );
    Ok(allocations)
}

fn increase(session: &SessionResponse, allocation: &AllocationResponse, units: Units) -> anyhow::Result<u128> {
    let gateway_bps = session.gateway.as_ref().map_or(0, |gateway| gateway.bps);
    let (ask, share) = (&allocation.ask, allocation.compute_share_bps);
    let price = SpanPrice::of(ask, &session.royalty, gateway_bps, share, units)?;
    Ok(price.total()?.u128())
}
