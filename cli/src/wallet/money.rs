//! Where is my money.

use std::fmt;

use client::{Client, ClientError};
use schema::{
    escrow::{HoldResponse, SessionResponse},
    staking::{ProviderResponse, UnbondingEntry},
    ModelId,
};
use serde::Serialize;

use super::check_address;
use crate::{amount::Func, context::Context, output::Table, session};

/// Everything an account has, by where it is.
#[derive(Debug, Serialize)]
struct Money {
    holder: String,
    denom: String,
    /// Gas coin.
    gas: u128,
    /// FUNC in the wallet, in ufunc, as all amounts here.
    wallet: Func,
    /// In the escrow, free to spend or withdraw.
    available: Func,
    /// In the escrow, held for running work and by sessions.
    held: Func,
    holds: Vec<Hold>,
    sessions: Vec<InSession>,
    bond: Func,
    unbonding: Vec<UnbondingEntry>,
}

#[derive(Debug, Serialize)]
struct Hold {
    job: u64,
    amount: Func,
    /// Block time in seconds after which anyone may release it.
    expires_at: u64,
}

#[derive(Debug, Serialize)]
struct InSession {
    session: u64,
    /// For vouchers and slots, in ufunc.
    amount: Func,
    expires_at: u64,
    /// Block time in seconds after which anyone may release all of it; providers may release their parts earlier.
    releasable_at: u64,
}

impl From<&SessionResponse> for InSession {
    fn from(session: &SessionResponse) -> Self {
        Self {
            session: session.session,
            amount: session::held(session),
            expires_at: session.expires_at,
            releasable_at: session::releasable_at(session),
        }
    }
}

impl From<HoldResponse> for Hold {
    fn from(hold: HoldResponse) -> Self {
        Self {
            job: hold.job,
            amount: hold.amount.into(),
            expires_at: hold.expires_at,
        }
    }
}

impl fmt::Display for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.holder)?;
        let mut table = Table::new(["where", ">amount", "", "remarks"]);
        let func = || "FUNC".to_owned();
        table.row(["gas".into(), self.gas.to_string(), self.denom.clone(), String::new()]);
        table.row(["wallet".into(), self.wallet.to_string(), func(), String::new()]);
        let free = "free to spend or withdraw".to_owned();
        table.row(["escrow, available".into(), self.available.to_string(), func(), free]);
        table.row(["escrow, held".into(), self.held.to_string(), func(), String::new()]);
        for hold in &self.holds {
            let remark = format!("anyone may release it after {}", hold.expires_at);
            table.row([
                format!("  for job {}", hold.job),
                hold.amount.to_string(),
                func(),
                remark,
            ]);
        }
        for it in &self.sessions {
            let (number, date) = (it.session, it.releasable_at);
            let remark = format!("anyone may release it after {date}: fxn session show {number}");
            table.row([format!("  in session {number}"), it.amount.to_string(), func(), remark]);
        }
        table.row(["bond".into(), self.bond.to_string(), func(), String::new()]);
        for entry in &self.unbonding {
            let remark = format!("may be withdrawn from {}", entry.release_at);
            table.row([
                "  unbonding".into(),
                Func::from(entry.amount).to_string(),
                func(),
                remark,
            ]);
        }
        table.fmt(f)
    }
}

pub(super) async fn show(context: &Context, holder: Option<String>) -> anyhow::Result<()> {
    let holder = holder.map_or_else(|| context.address(), Ok)?;
    let client = context.client().await?;
    match holder.strip_prefix("model:") {
        Some(model) => drop(model.parse::<ModelId>()?),
        None => check_address(&holder, &client.network().bech32_prefix)?,
    }
    context.output.print(&money(&client, holder).await?)
}

async fn money(client: &Client, holder: String) -> anyhow::Result<Money> {
    let in_escrow = client.escrow().money(&holder).await?;
    let denom = client.network().denom.clone();
    let is_model = holder.starts_with("model:");
    let (gas, wallet, provider, sessions) = if is_model {
        (0, 0, None, vec![])
    } else {
        let gas = client.balance(&holder, &denom).await?;
        (
            gas,
            client.token().balance(&holder).await?,
            bond(client, &holder).await?,
            client.escrow().all_sessions(&holder).await?,
        )
    };
    Ok(Money {
        holder,
        denom,
        gas,
        wallet: Func(wallet),
        available: in_escrow.available.into(),
        held: in_escrow.held.into(),
        holds: in_escrow.holds.into_iter().map(Hold::from).collect(),
        sessions: sessions.iter().map(InSession::from).collect(),
        bond: provider.as_ref().map_or(Func(0), |provider| provider.bond.into()),
        unbonding: provider.map_or_else(Vec::new, |provider| provider.unbonding),
    })
}

/// None for an account that is no provider.
async fn bond(client: &Client, address: &str) -> anyhow::Result<Option<ProviderResponse>> {
    match client.staking().provider(address).await {
        Ok(provider) => Ok(Some(provider)),
        Err(ClientError::QueryRefused { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}
