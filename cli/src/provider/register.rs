//! A provider's profile and bond.

use anyhow::Context as _;
use clap::{ArgGroup, Args};
use client::{Call, Client, ClientError};
use schema::{
    staking::{ExecuteMsg, Profile, ReceiveMsg},
    PublicKey,
};

use super::{changed, staking_send};
use crate::{amount::Func, context::Context, keys::KeyName, wallet::check_address};

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("host").required(true))]
pub(crate) struct Register {
    /// Name for people
    #[arg(long)]
    name: String,
    /// Base URL at which other hosts and developers reach this provider's host
    #[arg(long, value_name = "URL")]
    endpoint: String,
    /// Public key of the host, hex; it signs receipts
    #[arg(long, value_name = "HEX", group = "host")]
    host_key: Option<PublicKey>,
    /// The same as the name of a key in HOME/keys
    #[arg(long, value_name = "NAME", group = "host")]
    host_key_name: Option<KeyName>,
    /// Account of the relayer, if it is not the owner's
    #[arg(long, value_name = "ADDRESS")]
    operator: Option<String>,
    /// Free text about the machine
    #[arg(long, default_value = "")]
    hardware: String,
}

pub(crate) async fn register(context: &Context, register: Register) -> anyhow::Result<()> {
    let host_key = host_key(context, &register)?;
    let account = context.account().await?;
    if let Some(operator) = &register.operator {
        check_address(operator, &account.client().network().bech32_prefix)?;
    }
    let profile = Profile {
        name: register.name,
        endpoint: register.endpoint,
        host_key,
        operator: register.operator,
        hardware: register.hardware,
    };
    let outcome = account
        .execute(&[register_call(account.client(), account.address(), profile).await?])
        .await?;
    let sentence = format!("{} is registered as a provider.", account.address());
    context.output.done(&changed(&account, None, &outcome), sentence)
}

fn host_key(context: &Context, register: &Register) -> anyhow::Result<PublicKey> {
    if let Some(key) = register.host_key {
        return Ok(key);
    }
    let name = register
        .host_key_name
        .as_ref()
        .context("give --host-key or --host-key-name")?;
    let key = context.keys().public_key(name)?;
    let key: [u8; 33] = key.try_into().ok().context("the host key is not 33 bytes long")?;
    Ok(PublicKey(key))
}

/// Registers a new provider, or changes the profile of one.
pub(crate) async fn register_call(client: &Client, provider: &str, profile: Profile) -> Result<Call, ClientError> {
    let message = match client.staking().provider(provider).await {
        Ok(_) => ExecuteMsg::UpdateProvider { profile },
        Err(ClientError::QueryRefused { .. }) => ExecuteMsg::RegisterProvider { profile },
        Err(error) => return Err(error),
    };
    Call::execute(&client.contracts().provider_staking, &message)
}

pub(crate) fn bond_call(client: &Client, amount: Func) -> Result<Call, ClientError> {
    staking_send(client, amount, &ReceiveMsg::Bond {})
}
