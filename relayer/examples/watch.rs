//! Prints what a provider is asked to do, block by block, without doing any of it.
//!
//! `cargo run -p fxn-relayer --example watch -- network.json wasm1...`

use std::{error::Error, path::Path, time::Duration};

use client::{Account, Client, Network, Wallet};
use relayer::{chain::live::LiveChain, checkpoint::State, retry::Policy, source::Source};
use tokio::sync::mpsc;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(network), Some(provider)) = (arguments.next(), arguments.next()) else {
        return Err("usage: watch NETWORK_FILE PROVIDER_ADDRESS".into());
    };
    let client = Client::connect(Network::load(Path::new(&network))?).await?;
    // Nothing is ever signed, so any key will do.
    let chain = LiveChain::new(Account::new(client, Wallet::random()));
    let policy = Policy {
        first: Duration::from_millis(250),
        longest: Duration::from_secs(5),
        tries: 10,
    };
    let source = Source::new(chain, &provider, policy).await?;
    let (sender, mut steps) = mpsc::channel(16);
    let reading = tokio::spawn(source.run(State::default(), sender));
    while let Some(step) = steps.recv().await {
        for change in step.changes {
            println!("{} {change:?}", step.moment.height);
        }
    }
    Ok(reading.await??)
}
