//! `fxn provider`: what providers do on chain, and running their services.

mod deploy;
mod register;
mod show;

use anyhow::bail;
use clap::{Args, Subcommand};
use client::{Account, Call, Client, ClientError, TxOutcome};
use schema::staking::{ExecuteMsg, ReceiveMsg};
use serde::Serialize;

pub(crate) use self::{
    deploy::{deploy_call, dues},
    register::{bond_call, register_call},
};
use crate::{
    amount::Func,
    context::Context,
    wallet::{check_address, check_balance},
};

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Register the key's account as a provider, or change its profile
    #[command(
        after_help = "Example:\n  fxn provider register --name \"Alice's box\" --endpoint http://203.0.113.7:7070 --host-key-name host"
    )]
    Register(register::Register),
    /// Add FUNC from the wallet to the bond
    #[command(after_help = "Example:\n  fxn provider bond 500")]
    Bond(Amount),
    /// Start to take free bond out; it stays slashable until its date
    #[command(after_help = "Example:\n  fxn provider unbond 100")]
    Unbond(Amount),
    /// Pay out everything that has been unbonding long enough
    #[command(after_help = "Example:\n  fxn provider withdraw")]
    Withdraw,
    /// Offer stages of a model
    #[command(
        after_help = "Example:\n  fxn provider deploy --model demo/all-minilm-l6-v2 --stages 0..1 --ask per_1k_in=0.002,per_request=0.0001 \\\n      --slots 4 --sla base=2,rate=1,units=8192,penalty=2000"
    )]
    Deploy(deploy::Deploy),
    /// Take no new work for a deployment; with --remove forget it once it is idle
    #[command(after_help = "Example:\n  fxn provider drain 7 --remove")]
    Drain(deploy::Drain),
    /// Come back from jail, once its time is over; the owner's or the operator's key
    #[command(after_help = "Example:\n  fxn provider unjail --key relayer wasm1...")]
    Unjail(Provider),
    /// One provider with its bond, conduct and deployments
    #[command(after_help = "Example:\n  fxn provider show wasm1...")]
    Show(show::Show),
    /// All providers
    #[command(after_help = "Example:\n  fxn provider list --output json")]
    List,
    /// Host and relayer in one process
    #[command(after_help = "Example:\n  fxn provider run --host-key-name host --source http://127.0.0.1:7080")]
    Run(crate::services::Run),
}

#[derive(Debug, Args)]
pub(crate) struct Amount {
    /// FUNC, for example 12.5 or 12500000ufunc
    #[arg(allow_negative_numbers = true)]
    amount: Func,
}

#[derive(Debug, Args)]
pub(crate) struct Provider {
    /// Address of the provider; the key's own if absent
    provider: Option<String>,
}

pub(crate) async fn run(context: &Context, command: Command) -> anyhow::Result<()> {
    match command {
        Command::Register(register) => register::register(context, register).await,
        Command::Bond(Amount { amount }) => bond(context, amount).await,
        Command::Unbond(Amount { amount }) => unbond(context, amount).await,
        Command::Withdraw => withdraw(context).await,
        Command::Deploy(deploy) => deploy::deploy(context, deploy).await,
        Command::Drain(drain) => deploy::drain(context, drain).await,
        Command::Unjail(Provider { provider }) => unjail(context, provider).await,
        Command::Show(show) => show::show(context, show).await,
        Command::List => show::list(context).await,
        Command::Run(run) => crate::services::run_both(context, run).await,
    }
}

/// The owner's deployment takes no new work any more.
pub(crate) async fn drain(owner: &Account, deployment: u64) -> anyhow::Result<()> {
    execute(owner, &ExecuteMsg::Drain { deployment }).await?;
    Ok(())
}

/// Nothing can be done for an account that the chain does not know as a provider.
pub(crate) async fn check_registered(client: &Client, provider: &str) -> anyhow::Result<()> {
    match client.staking().provider(provider).await {
        Ok(_) => Ok(()),
        Err(ClientError::QueryRefused { message, .. }) => bail!("{message}: `fxn provider register` comes first"),
        Err(error) => Err(error.into()),
    }
}

/// A change on chain.
#[derive(Debug, Serialize)]
struct Changed {
    provider: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    amount: Option<Func>,
    tx_hash: String,
    height: u64,
}

fn changed(account: &Account, amount: Option<Func>, outcome: &TxOutcome) -> Changed {
    Changed {
        provider: account.address().to_owned(),
        amount,
        tx_hash: outcome.hash.to_string(),
        height: outcome.height,
    }
}

async fn execute(account: &Account, message: &ExecuteMsg) -> anyhow::Result<TxOutcome> {
    let call = Call::execute(&account.client().contracts().provider_staking, message)?;
    Ok(account.execute(&[call]).await?)
}

async fn bond(context: &Context, amount: Func) -> anyhow::Result<()> {
    let account = context.account().await?;
    check_registered(account.client(), account.address()).await?;
    check_balance(&account, amount).await?;
    let outcome = account.execute(&[bond_call(account.client(), amount)?]).await?;
    context.output.done(
        &changed(&account, Some(amount), &outcome),
        format!("{amount} FUNC were added to the bond."),
    )
}

async fn unbond(context: &Context, amount: Func) -> anyhow::Result<()> {
    let account = context.account().await?;
    check_registered(account.client(), account.address()).await?;
    let message = ExecuteMsg::Unbond { amount: amount.into() };
    let outcome = execute(&account, &message).await?;
    let mut events = outcome
        .events
        .iter()
        .filter_map(|event| schema::Event::from_wasm(event).ok()?);
    let release_at = events.find_map(|event| match event {
        schema::Event::UnbondingStarted { release_at, .. } => Some(release_at),
        _ => None,
    });
    let date = release_at.map_or_else(String::new, |date| {
        format!(" and may be withdrawn from {date} (block time)")
    });
    context.output.done(
        &changed(&account, Some(amount), &outcome),
        format!("{amount} FUNC are unbonding{date}."),
    )
}

async fn withdraw(context: &Context) -> anyhow::Result<()> {
    let account = context.account().await?;
    check_registered(account.client(), account.address()).await?;
    let outcome = execute(&account, &ExecuteMsg::Withdraw {}).await?;
    let events = outcome
        .events
        .iter()
        .filter_map(|event| schema::Event::from_wasm(event).ok()?);
    let paid = events.filter_map(|event| match event {
        schema::Event::BondWithdrawn { amount, .. } => Some(amount.u128()),
        _ => None,
    });
    let amount = Func(paid.fold(0, u128::saturating_add));
    context.output.done(
        &changed(&account, Some(amount), &outcome),
        format!("{amount} FUNC of bond are back in the wallet."),
    )
}

async fn unjail(context: &Context, provider: Option<String>) -> anyhow::Result<()> {
    let account = context.account().await?;
    let provider = provider.unwrap_or_else(|| account.address().to_owned());
    check_address(&provider, &account.client().network().bech32_prefix)?;
    check_registered(account.client(), &provider).await?;
    let sentence = format!("{provider} is back: whatever it does not drain may be drawn again.");
    let outcome = execute(
        &account,
        &ExecuteMsg::Unjail {
            provider: provider.clone(),
        },
    )
    .await?;
    let changed = Changed {
        provider,
        ..changed(&account, None, &outcome)
    };
    context.output.done(&changed, sentence)
}

/// FUNC to staking with what it is for.
pub(crate) fn staking_send(client: &Client, amount: Func, message: &ReceiveMsg) -> Result<Call, ClientError> {
    let contracts = client.contracts();
    Call::cw20_send(&contracts.func_token, &contracts.provider_staking, amount.0, message)
}
