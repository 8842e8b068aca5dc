//! `fxn deploy`: the contracts onto a chain, and the network file that everybody else needs.
//!
//! - `artifacts`: the code. `plan`: which contracts, in which order, with which messages.
//! - `run`: the steps, over the port in `chain`. `journal`: what is done, on the disk.
//! - `verify`: whether the chain has what was to be deployed.

mod artifacts;
mod chain;
mod journal;
mod plan;
mod run;
#[cfg(test)]
mod run_tests;
mod verify;

use std::{
    fmt,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{bail, ensure, Context as _};
use clap::{Args, ValueEnum};
use client::{Beacon, Client, ClientError, Contracts, Network, Wallet};
use cosmwasm_std::Decimal;
use schema::{params::Params, TOTAL_SUPPLY};
use serde::Serialize;

use self::{
    artifacts::Artifacts,
    chain::Live,
    journal::Journal,
    plan::{Inputs, Kind},
    run::Deployment,
    verify::Facts,
};
use crate::{
    context::Context,
    output::{counted, Table},
    progress::Progress,
    services::devnet::params,
};

/// The parameters of a public network.
const PUBLIC: &str = include_str!("../../../params/public.toml");
/// Longest wait for the node's first answer.
const STATUS_TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Profile {
    /// Short waits, and FUNC for the development accounts that everybody can use
    Local,
    /// Waits of days and weeks
    Public,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  fxn deploy --rpc http://127.0.0.1:26657 --key faucet --profile local --artifacts artifacts\n  fxn deploy --rpc https://rpc.example.org:443 --key cold --profile public --artifacts artifacts --admin wasm1... --out network.json\n\nRun it again after whatever stopped it: it goes on where it was, and makes nothing twice. What it has done so far lies beside\nthe network file, under the same name with .partial. Once all is done it only verifies."
)]
pub(crate) struct Deploy {
    /// URL of a node's RPC; may be given several times, and all get into the network file [default: --node]
    #[arg(long, value_name = "URL")]
    rpc: Vec<String>,
    /// Refuse any other chain
    #[arg(long, value_name = "ID")]
    chain_id: Option<String>,
    /// Parameters of the contracts
    #[arg(long, value_enum)]
    profile: Profile,
    /// TOML file with other parameters than the profile's
    #[arg(long, value_name = "FILE")]
    params: Option<PathBuf>,
    /// Folder with the contracts and their checksums.txt, as scripts/build-wasm.sh leaves it
    #[arg(long, value_name = "DIR", default_value = "artifacts")]
    artifacts: PathBuf,
    /// Network file to write [default: --network, else HOME/network.json]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Who is to set parameters and propose migrations; has to accept the role [default: the key's account]
    #[arg(long, value_name = "ADDRESS")]
    admin: Option<String>,
    /// Who gets the protocol's part of fees [default: the key's account]
    #[arg(long, value_name = "ADDRESS")]
    treasury: Option<String>,
    /// Who gets all FUNC, or what the local profile leaves of it [default: the key's account; with the local profile the faucet]
    #[arg(long, value_name = "ADDRESS")]
    supply_to: Option<String>,
    /// The chain's gas coin
    #[arg(long, value_name = "COIN", default_value = "ustake")]
    denom: String,
    /// Price of one unit of gas
    #[arg(long, value_name = "PRICE", default_value = "0.025")]
    gas_price: Decimal,
    /// Prefix of the chain's addresses
    #[arg(long, value_name = "PREFIX", default_value = "wasm")]
    prefix: String,
}

/// What is told at the end.
#[derive(Debug, Serialize)]
struct Deployed {
    network: PathBuf,
    chain_id: String,
    deployer: String,
    admin: String,
    contracts: Vec<Facts>,
    /// Contracts whose role of admin is offered and not yet accepted.
    admin_offered: Vec<&'static str>,
    /// Transactions sent by this run; none if everything was there.
    transactions: u32,
    gas_used: u64,
}

impl fmt::Display for Deployed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = Table::new(["contract", ">code", "version", "address"]);
        for contract in &self.contracts {
            table.row([
                contract.contract.to_owned(),
                contract.code_id.to_string(),
                contract.version.clone(),
                contract.address.clone(),
            ]);
        }
        write!(f, "{table}")?;
        let did = match self.transactions {
            0 => "Everything was there already".to_owned(),
            sent => format!("{} sent", counted(sent.try_into().unwrap_or(usize::MAX), "transaction")),
        };
        writeln!(
            f,
            "{did}; addresses, code, owners, siblings and parameters are verified on {}. {} names them.",
            self.chain_id,
            self.network.display()
        )?;
        if !self.admin_offered.is_empty() {
            writeln!(
                f,
                "The role of admin is offered to {}, who has to accept it (accept_admin) at {}.",
                self.admin,
                self.admin_offered.join(", ")
            )?;
        }
        Ok(())
    }
}

pub(crate) async fn run(context: &Context, args: Deploy) -> anyhow::Result<()> {
    let artifacts = Artifacts::load(&args.artifacts)?;
    let out = args.out.clone().unwrap_or_else(|| context.network_path());
    ensure_writable(&out)?;
    let network = network(context, &args).await?;
    let wallet = context.wallet(&context.key_name()?)?;
    let mut inputs = inputs(&args, &network.chain_id, &wallet, &artifacts)?;
    let _lock = journal::lock(&out)?;
    let live = Live::connect(network.clone(), wallet).await?;
    let existing = existing(&out, &network)?;
    let (contracts, transactions, gas_used) = match existing {
        Some(known) if !Journal::path_of(&out).exists() => {
            ensure_there(live.client(), &known, &out).await?;
            if known.contracts.randomness_beacon.is_none() {
                // It was deployed without one, and never gets one: that is what is verified.
                inputs.params.beacon = None;
            }
            (known.contracts, 0, 0)
        }
        _ => {
            ensure_funds(live.client(), &inputs.deployer).await?;
            let mut journal = Journal::open(&out, &inputs)?;
            let progress = Progress::for_people();
            let deployment = Deployment::new(&live, &inputs, &artifacts, &mut journal);
            let made = deployment.run(|step| progress.step(&step.to_string())).await?;
            progress.finish();
            (made.contracts, made.transactions, made.gas_used)
        }
    };
    let verified = verify::verify(live.client(), &contracts, &inputs).await?;
    if !verified.differences.is_empty() {
        bail!(
            "what is on the chain is not what was to be deployed: {}",
            verified.differences.join("; ")
        );
    }
    Network {
        contracts,
        beacon: inputs.params.beacon.clone().map(Beacon::from),
        ..network.clone()
    }
    .save(&out)?;
    Journal::open(&out, &inputs)?.remove()?;
    context.output.print(&Deployed {
        network: out,
        chain_id: network.chain_id,
        deployer: inputs.deployer,
        admin: inputs.admin,
        contracts: verified.facts,
        admin_offered: verified.offered,
        transactions,
        gas_used,
    })
}

fn ensure_writable(out: &Path) -> anyhow::Result<()> {
    let folder = out.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    ensure!(
        folder.is_dir(),
        "{} is no folder: give another --out FILE",
        folder.display()
    );
    Ok(())
}

/// The chain that the node is on. Its contracts are still unknown.
async fn network(context: &Context, args: &Deploy) -> anyhow::Result<Network> {
    let nodes = if args.rpc.is_empty() {
        context.nodes()
    } else {
        &args.rpc
    };
    let [rpc, further @ ..] = nodes else {
        bail!("which chain? Give --rpc with the URL of one of its nodes")
    };
    let status = client::node_status(rpc, STATUS_TIMEOUT).await?;
    if let Some(expected) = &args.chain_id {
        ensure!(
            *expected == status.chain_id,
            "the node is on chain {:?}, --chain-id says {expected:?}",
            status.chain_id
        );
    }
    let unknown = String::new;
    Ok(Network {
        chain_id: status.chain_id,
        rpc: rpc.clone(),
        further_rpc: further.to_vec(),
        denom: args.denom.clone(),
        gas_price: args.gas_price,
        bech32_prefix: args.prefix.clone(),
        contracts: Contracts {
            func_token: unknown(),
            model_registry: unknown(),
            provider_staking: unknown(),
            royalty_escrow: unknown(),
            job_orchestrator: unknown(),
            randomness_beacon: None,
            audit_court: None,
        },
        beacon: None,
    })
}

fn inputs(args: &Deploy, chain_id: &str, wallet: &Wallet, artifacts: &Artifacts) -> anyhow::Result<Inputs> {
    let deployer = client::address_of(&wallet.public_key(), &args.prefix)?;
    let named = |given: &Option<String>| -> anyhow::Result<String> {
        let address = given.clone().unwrap_or_else(|| deployer.clone());
        ensure!(
            client::is_address(&address, &args.prefix),
            "{address:?} is no address with the prefix {:?}",
            args.prefix
        );
        Ok(address)
    };
    let params: Params = match (&args.params, args.profile) {
        (Some(path), _) => params(Some(path))?,
        (None, Profile::Local) => params(None)?,
        (None, Profile::Public) => toml::from_str(PUBLIC).context("the public profile cannot be read")?,
    };
    params.check_notices()?;
    params.check_sessions()?;
    let (given, rest_to) = match args.profile {
        // As on the embedded chain.
        Profile::Local => {
            let accounts = devnet::Config::default().accounts.into_iter();
            let given = accounts.map(|account| (account.address, account.func)).collect();
            (given, devnet::dev_address(devnet::FAUCET))
        }
        Profile::Public => (vec![], deployer.clone()),
    };
    let rest_to = match &args.supply_to {
        Some(_) => named(&args.supply_to)?,
        None => rest_to,
    };
    Ok(Inputs {
        chain_id: chain_id.to_owned(),
        admin: named(&args.admin)?,
        treasury: named(&args.treasury)?,
        params,
        supply: plan::supply(given, &rest_to, TOTAL_SUPPLY)?,
        checksums: Kind::ALL
            .into_iter()
            .map(|kind| (kind, artifacts.of(kind).checksum))
            .collect(),
        deployer,
    })
}

/// The network file that is there, if it is of this chain.
fn existing(out: &Path, network: &Network) -> anyhow::Result<Option<Network>> {
    if !out.exists() {
        return Ok(None);
    }
    let known = Network::load(out)?;
    ensure!(
        known.chain_id == network.chain_id,
        "{} belongs to {}, the node is on {}: give another --out FILE",
        out.display(),
        known.chain_id,
        network.chain_id
    );
    Ok(Some(known))
}

/// A chain that was started anew has the name of the one before, and none of its contracts.
async fn ensure_there(client: &Client, known: &Network, out: &Path) -> anyhow::Result<()> {
    for (name, address) in known.contracts.by_name() {
        match client.contract_info(address).await {
            Err(ClientError::UnknownContract { .. }) => bail!(
                "{} names {name} at {address}, where the chain has none: it is of an earlier {}; remove it or give another --out FILE",
                out.display(),
                known.chain_id
            ),
            other => drop(other?),
        }
    }
    Ok(())
}

async fn ensure_funds(client: &Client, deployer: &str) -> anyhow::Result<()> {
    let network = client.network();
    let balance = client.balance(deployer, &network.denom).await?;
    ensure!(
        balance > 0,
        "{deployer} has no {} on {}: it pays for the deployment",
        network.denom,
        network.chain_id
    );
    Ok(())
}
