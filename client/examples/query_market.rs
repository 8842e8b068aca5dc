//! Lists the models of a running network and what its providers have earned.
//!
//! `cargo run -p fxn-client --example query_market -- ~/.fxn/network.json`

use std::{env, path::Path};

use anyhow::Context;
use client::{Client, Network};

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let file = env::args_os().nth(1).context("the path of a network.json is needed")?;
    let client = Client::connect(Network::load(Path::new(&file))?).await?;

    println!("models on {}", client.network().chain_id);
    for model in client.registry().all_models().await? {
        let paid = model.usage.paid;
        println!("  {} by {}: {paid} ufunc paid", model.model, model.owner);
        for endpoint in model.endpoints {
            println!("    {}: {:?}", endpoint.name, endpoint.terms);
        }
    }

    println!("providers");
    for provider in client.staking().all_providers().await? {
        let name = &provider.profile.name;
        println!("  {name} {}: bond {} ufunc", provider.provider, provider.bond);
        for credit in client.escrow().earnings(&provider.provider).await? {
            println!("    {}: {} ufunc", credit.reason, credit.amount);
        }
    }
    Ok(())
}
