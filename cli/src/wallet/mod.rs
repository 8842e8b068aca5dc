//! `fxn wallet`: where my money is, and moving it.

mod money;

use anyhow::{bail, ensure};
use clap::{Args, Subcommand};
use client::{Account, Call, Client, ClientError, Wallet};
use cosmwasm_std::Uint128;
use schema::escrow;
use serde::Serialize;

use crate::{amount::Func, context::Context};

/// The development account that holds everything on a devnet.
pub(crate) const FAUCET: &str = "faucet";
/// Gas coin that the faucet gives: enough for some ten thousand transactions.
const FAUCET_GAS: u128 = 1_000_000_000;

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Where is my money: gas coin, FUNC, escrow, holds, bond
    #[command(
        after_help = "Examples:\n  fxn wallet money\n  fxn wallet money wasm1...\n  fxn wallet money model:demo/all-minilm-l6-v2"
    )]
    Money {
        /// Address or model:namespace/name; the key's own address if absent
        holder: Option<String>,
    },
    /// Put FUNC into the escrow, to pay for work
    #[command(after_help = "Example:\n  fxn wallet deposit 12.5")]
    Deposit {
        /// FUNC, for example 12.5 or 12500000ufunc
        #[arg(allow_negative_numbers = true)]
        amount: Func,
        /// Credit another account
        #[arg(long, value_name = "ADDRESS")]
        beneficiary: Option<String>,
    },
    /// Take available FUNC out of the escrow
    #[command(after_help = "Example:\n  fxn wallet withdraw 3")]
    Withdraw {
        /// FUNC; everything available if absent
        #[arg(allow_negative_numbers = true)]
        amount: Option<Func>,
    },
    /// Send FUNC, or gas coin, to another account
    #[command(after_help = "Examples:\n  fxn wallet send wasm1... 5\n  fxn wallet send wasm1... 1000000 --gas")]
    Send(Send),
    /// Get FUNC and gas coin from a devnet's faucet
    #[command(after_help = "Example:\n  fxn wallet faucet 500")]
    Faucet {
        /// FUNC
        #[arg(default_value = "1000", allow_negative_numbers = true)]
        amount: Func,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Send {
    /// Address of the receiver
    to: String,
    /// FUNC; with --gas a whole number of gas coin
    #[arg(allow_negative_numbers = true)]
    amount: String,
    /// Send gas coin instead of FUNC
    #[arg(long)]
    gas: bool,
}

pub(crate) async fn run(context: &Context, command: Command) -> anyhow::Result<()> {
    match command {
        Command::Money { holder } => money::show(context, holder).await,
        Command::Deposit { amount, beneficiary } => deposit(context, amount, beneficiary).await,
        Command::Withdraw { amount } => withdraw(context, amount).await,
        Command::Send(send) => transfer(context, &send).await,
        Command::Faucet { amount } => faucet(context, amount).await,
    }
}

#[derive(Debug, Serialize)]
struct Moved {
    account: String,
    amount: Func,
    tx_hash: String,
    height: u64,
}

/// The call that deposits FUNC.
pub(crate) fn deposit_call(client: &Client, amount: Func, beneficiary: Option<String>) -> Result<Call, ClientError> {
    let contracts = client.contracts();
    let message = escrow::ReceiveMsg::Deposit { beneficiary };
    Call::cw20_send(&contracts.func_token, &contracts.royalty_escrow, amount.0, &message)
}

/// Refuses what the token would refuse in words that help nobody.
pub(crate) async fn check_balance(account: &Account, amount: Func) -> anyhow::Result<()> {
    let balance = Func(account.client().token().balance(account.address()).await?);
    ensure!(
        balance >= amount,
        "{} has {balance} FUNC in its wallet, {amount} are needed: `fxn wallet faucet` gives some on a devnet",
        account.address()
    );
    Ok(())
}

async fn deposit(context: &Context, amount: Func, beneficiary: Option<String>) -> anyhow::Result<()> {
    let account = context.account().await?;
    check_balance(&account, amount).await?;
    if let Some(beneficiary) = &beneficiary {
        check_address(beneficiary, &account.client().network().bech32_prefix)?;
    }
    let credited = beneficiary.clone().unwrap_or_else(|| account.address().to_owned());
    let outcome = account
        .execute(&[deposit_call(account.client(), amount, beneficiary)?])
        .await?;
    let moved = Moved {
        account: credited,
        amount,
        tx_hash: outcome.hash.to_string(),
        height: outcome.height,
    };
    let sentence = format!("{amount} FUNC are now available to {} in the escrow.", moved.account);
    context.output.done(&moved, sentence)
}

async fn withdraw(context: &Context, amount: Option<Func>) -> anyhow::Result<()> {
    let account = context.account().await?;
    let available = Func::from(account.client().escrow().money(account.address()).await?.available);
    match amount {
        Some(wanted) if wanted > available => {
            bail!("{available} FUNC are available in the escrow, {wanted} cannot be withdrawn: `fxn wallet money` shows what is where")
        }
        None if available == Func(0) => {
            bail!("nothing is available in the escrow: `fxn wallet money` shows what is where")
        }
        _ => {}
    }
    let message = escrow::ExecuteMsg::Withdraw {
        amount: amount.map(Uint128::from),
    };
    let call = Call::execute(&account.client().contracts().royalty_escrow, &message)?;
    let outcome = account.execute(&[call]).await?;
    let mut events = outcome
        .events
        .iter()
        .filter_map(|event| schema::Event::from_wasm(event).ok()?);
    let withdrawn = events.find_map(|event| match event {
        schema::Event::Withdrawn { amount, .. } => Some(Func::from(amount)),
        _ => None,
    });
    let amount = withdrawn.or(amount).unwrap_or_default();
    let moved = Moved {
        account: account.address().to_owned(),
        amount,
        tx_hash: outcome.hash.to_string(),
        height: outcome.height,
    };
    context
        .output
        .done(&moved, format!("{amount} FUNC are back in the wallet."))
}

#[derive(Debug, Serialize)]
struct Sent {
    to: String,
    amount: u128,
    denom: String,
    tx_hash: String,
    height: u64,
}

async fn transfer(context: &Context, send: &Send) -> anyhow::Result<()> {
    let account = context.account().await?;
    let network = account.client().network();
    check_address(&send.to, &network.bech32_prefix)?;
    let (amount, call, denom) = if send.gas {
        let amount: u128 = send
            .amount
            .parse()
            .map_err(|_| anyhow::anyhow!("{:?} is no whole number of {}", send.amount, network.denom))?;
        ensure!(amount > 0, "the amount is zero");
        (amount, Call::send(&send.to, amount), network.denom.clone())
    } else {
        let amount: Func = send.amount.parse()?;
        ensure!(amount > Func(0), "the amount is zero");
        check_balance(&account, amount).await?;
        let call = Call::cw20_transfer(&network.contracts.func_token, &send.to, amount.0)?;
        (amount.0, call, "ufunc".to_owned())
    };
    let outcome = account.execute(&[call]).await?;
    let sent = Sent {
        to: send.to.clone(),
        amount,
        denom,
        tx_hash: outcome.hash.to_string(),
        height: outcome.height,
    };
    let sentence = format!("{amount} {} sent to {}.", sent.denom, sent.to);
    context.output.done(&sent, sentence)
}

/// The calls by which a faucet funds an account.
pub(crate) fn faucet_calls(client: &Client, to: &str, gas: u128, amount: Func) -> Result<Vec<Call>, ClientError> {
    Ok(vec![
        Call::send(to, gas),
        Call::cw20_transfer(&client.contracts().func_token, to, amount.0)?,
    ])
}

async fn faucet(context: &Context, amount: Func) -> anyhow::Result<()> {
    let to = context.address()?;
    let client = context.client().await?;
    let faucet = Account::new(client, Wallet::dev(FAUCET));
    let outcome = match faucet
        .execute(&faucet_calls(faucet.client(), &to, FAUCET_GAS, amount)?)
        .await
    {
        Err(ClientError::UnknownAccount { .. }) => {
            let chain_id = &faucet.client().network().chain_id;
            anyhow::bail!("{chain_id} has no faucet; only a devnet has one")
        }
        result => result?,
    };
    let moved = Moved {
        account: to,
        amount,
        tx_hash: outcome.hash.to_string(),
        height: outcome.height,
    };
    let denom = &faucet.client().network().denom;
    let sentence = format!("{amount} FUNC and {FAUCET_GAS} {denom} sent to {}.", moved.account);
    context.output.done(&moved, sentence)
}

/// Refuses what cannot be an address, before a contract does it in words that help nobody.
pub(crate) fn check_address(text: &str, prefix: &str) -> anyhow::Result<()> {
    let shown: String = text.chars().take(80).collect();
    ensure!(
        text.strip_prefix(prefix).is_some_and(|rest| rest.starts_with('1')),
        "{shown:?} is no address of this network: those begin with {prefix}1"
    );
    // 20 bytes for accounts, 32 for contracts, the separator, and six letters of checksum.
    let letters = text.len().saturating_sub(prefix.len());
    ensure!(
        client::is_address(text, prefix) && matches!(letters, 39 | 59),
        "{shown:?} is no address: a letter is wrong or missing"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_an_address_is_refused() {
        let good = Wallet::dev("a").address("wasm");
        assert!(check_address(&good, "wasm").is_ok());
        for bad in [
            "",
            "wasm1bad",
            &good[1..],
            &good.to_uppercase(),
            &good.replace("wasm1", "cosmos1"),
            &good.replace(&good[20..21], if &good[20..21] == "q" { "p" } else { "q" }),
        ] {
            assert!(check_address(bad, "wasm").is_err(), "{bad}");
        }
    }
}
