//! Load on a devnet: real RPC over TCP, real signatures, FUNC transfers between development accounts.
//!
//!     cargo run --release -p fxn-devnet --example load -- --seconds 60 --rate 2200 --target 2000
//!
//! With `--state DIR` the log is written, and the chain is started from it again at the end.
//! It prints what was committed and the memory of the whole process (chain and load together), and ends with a verdict: exit code 1
//! if the rate stays below the target, a transaction fails, or memory still grows in the second half.

#![allow(
    clippy::arithmetic_side_effects,
    clippy::cast_precision_loss,
    clippy::indexing_slicing,
    reason = "rates of a measurement, for people to read"
)]

use std::{
    net::SocketAddr,
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{bail, ensure, Context};
use base64::{engine::general_purpose::STANDARD, Engine};
use cosmrs::{
    cosmwasm::MsgExecuteContract,
    crypto::secp256k1::SigningKey,
    tx::{Body, Fee, Msg, SignDoc, SignerInfo},
    AccountId, Coin,
};
use devnet::{dev_address, Config, Devnet, DEV_ACCOUNTS};
use serde_json::{json, Value};

const GAS: u64 = 200_000;
const FEE: u128 = 5_000;
/// Growth of memory in the second half that is still called flat.
const SLACK: f64 = 1.05;

struct Options {
    seconds: u64,
    rate: u64,
    target: u64,
    accounts: usize,
    batch: usize,
    blocks_kept: usize,
    state: Option<PathBuf>,
}

fn options() -> anyhow::Result<Options> {
    let mut options = Options {
        seconds: 60,
        rate: 2_200,
        target: 2_000,
        accounts: 8,
        batch: 20,
        // Half a second each: the history is full long before the half of a minute.
        blocks_kept: 30,
        state: None,
    };
    let mut words = std::env::args().skip(1);
    while let Some(name) = words.next() {
        let value = words.next().with_context(|| format!("{name} needs a value"))?;
        let number = || value.parse::<u64>().with_context(|| format!("{value:?} is no number"));
        match name.as_str() {
            "--seconds" => options.seconds = number()?,
            "--rate" => options.rate = number()?,
            "--target" => options.target = number()?,
            "--accounts" => options.accounts = usize::try_from(number()?)?,
            "--batch" => options.batch = usize::try_from(number()?)?,
            "--blocks-kept" => options.blocks_kept = usize::try_from(number()?)?,
            "--state" => options.state = Some(value.into()),
            _ => bail!("unknown {name}; there are --seconds --rate --target --accounts --batch --blocks-kept --state"),
        }
    }
    ensure!(
        (2..=DEV_ACCOUNTS.len()).contains(&options.accounts),
        "2 to {} accounts can be used",
        DEV_ACCOUNTS.len()
    );
    ensure!(
        options.batch > 0 && options.seconds >= 4,
        "a batch or a time of nothing"
    );
    Ok(options)
}

/// An account that sends FUNC to its neighbour, with the sequence it is at.
struct Sender {
    key: SigningKey,
    address: AccountId,
    neighbour: String,
    token: AccountId,
    number: u64,
    sequence: u64,
}

impl Sender {
    fn transfer(&self, sequence: u64) -> anyhow::Result<Vec<u8>> {
        let refused = |error: cosmrs::ErrorReport| anyhow::anyhow!("{error}");
        let msg = json!({ "transfer": { "recipient": self.neighbour, "amount": "1" } });
        let message = MsgExecuteContract {
            sender: self.address.clone(),
            contract: self.token.clone(),
            msg: serde_json::to_vec(&msg)?,
            funds: vec![],
        };
        let coin = Coin {
            denom: "ustake".parse().map_err(refused)?,
            amount: FEE,
        };
        let body = Body::new(vec![message.to_any().map_err(refused)?], "", 0u32);
        let signer = SignerInfo::single_direct(Some(self.key.public_key()), sequence);
        let auth = signer.auth_info(Fee::from_amount_and_gas(coin, GAS));
        let chain = "fxn-devnet-1".parse()?;
        let document = SignDoc::new(&body, &auth, &chain, self.number).map_err(refused)?;
        let signed = document.sign(&self.key).map_err(refused)?;
        signed.to_bytes().map_err(refused)
    }

    /// Sends so many; gives how many were taken. A full mempool takes the first ones only.
    async fn send(&mut self, http: &reqwest::Client, rpc: &str, count: usize) -> anyhow::Result<usize> {
        let mut requests = vec![];
        for (id, sequence) in (0..count).zip(self.sequence..) {
            let tx = STANDARD.encode(self.transfer(sequence)?);
            requests.push(json!({ "jsonrpc": "2.0", "id": id, "method": "broadcast_tx_sync", "params": { "tx": tx } }));
        }
        let answers: Vec<Value> = http.post(rpc).json(&requests).send().await?.json().await?;
        let mut taken = 0usize;
        for answer in answers {
            if answer["result"]["code"] == 0 {
                taken = taken.saturating_add(1);
                continue;
            }
            let text = answer.to_string();
            // After the first that did not fit, the others have a sequence too many.
            ensure!(
                text.contains("mempool is full") || text.contains("sequence mismatch"),
                "refused: {text}"
            );
            break;
        }
        self.sequence = self.sequence.saturating_add(u64::try_from(taken)?);
        Ok(taken)
    }
}

fn key(name: &str) -> anyhow::Result<SigningKey> {
    let secret = client::Wallet::dev(name).secret();
    SigningKey::from_slice(secret.as_slice()).map_err(|error| anyhow::anyhow!("{error}"))
}

/// Resident memory of this process in MiB, where the system tells.
fn memory() -> f64 {
    let pages = std::fs::read_to_string("/proc/self/statm").ok();
    let pages = pages.and_then(|text| text.split(' ').nth(1)?.parse::<f64>().ok());
    pages.map_or(0.0, |pages| pages * 4096.0 / 1024.0 / 1024.0)
}

/// One number of `/metrics`.
fn metric(text: &str, name: &str) -> f64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.and_then(|value| value.parse().ok()).unwrap_or(0.0)
}

async fn metrics(http: &reqwest::Client, address: SocketAddr) -> anyhow::Result<String> {
    Ok(http
        .get(format!("http://{address}/metrics"))
        .send()
        .await?
        .text()
        .await?)
}

fn committed(text: &str) -> f64 {
    metric(text, "fxn_devnet_transactions_total{codespace=\"\",code=\"0\"}")
}

fn failed(text: &str) -> f64 {
    let lines = text
        .lines()
        .filter(|line| line.starts_with("fxn_devnet_transactions_total{"));
    let all: f64 = lines
        .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
        .sum();
    all - committed(text)
}

async fn run(options: Options) -> anyhow::Result<()> {
    let profile = include_str!("../../params/local.toml");
    let config = Config {
        rpc: ([127, 0, 0, 1], 0).into(),
        metrics: Some(([127, 0, 0, 1], 0).into()),
        market: Some(toml::from_str(profile)?),
        blocks_kept: options.blocks_kept,
        state: options.state.clone(),
        ..Config::default()
    };
    let running = Devnet::start(config.clone()).await?;
    let token = running.network()["contracts"]["func_token"]
        .as_str()
        .context("no token")?;
    let token: AccountId = token.parse().map_err(|error| anyhow::anyhow!("{error}"))?;
    let (rpc, address) = (running.rpc_url(), running.metrics_address().context("no metrics")?);
    let http = reqwest::Client::new();
    let end = Instant::now() + Duration::from_secs(options.seconds);
    let share = options.rate as f64 / options.accounts as f64 / options.batch as f64;
    let mut tasks = tokio::task::JoinSet::new();
    for (number, name) in (1u64..).zip(DEV_ACCOUNTS).take(options.accounts) {
        let neighbour = DEV_ACCOUNTS[usize::try_from(number)? % options.accounts];
        let mut sender = Sender {
            key: key(name)?,
            address: dev_address(name).parse().map_err(|error| anyhow::anyhow!("{error}"))?,
            neighbour: dev_address(neighbour),
            token: token.clone(),
            number,
            sequence: 0,
        };
        let (http, rpc, batch) = (http.clone(), rpc.clone(), options.batch);
        let mut clock = tokio::time::interval(Duration::from_secs_f64(1.0 / share));
        tasks.spawn(async move {
            while Instant::now() < end {
                clock.tick().await;
                sender.send(&http, &rpc, batch).await?;
            }
            anyhow::Ok(())
        });
    }
    let begun = Instant::now();
    let mut samples = vec![memory()];
    println!("start: {:.0} MiB", memory());
    let mut before = 0.0;
    while Instant::now() < end {
        let step = Duration::from_secs(10).min(end.saturating_duration_since(Instant::now()));
        tokio::time::sleep(step).await;
        let text = metrics(&http, address).await?;
        let now = committed(&text);
        samples.push(memory());
        println!(
            "{:4.0} s: {now:.0} transactions, {:.0}/s lately, {:.0} MiB, {:.0} waiting, {:.0} MiB of history, {:.0} MiB of log",
            begun.elapsed().as_secs_f64(),
            (now - before) / step.as_secs_f64(),
            memory(),
            metric(&text, "fxn_devnet_mempool_transactions"),
            metric(&text, "fxn_devnet_history_bytes") / 1048576.0,
            metric(&text, "fxn_devnet_log_bytes") / 1048576.0,
        );
        before = now;
    }
    let seconds = begun.elapsed().as_secs_f64();
    let text = metrics(&http, address).await?;
    while let Some(task) = tasks.join_next().await {
        task??;
    }
    let rate = committed(&text) / seconds;
    let (middle, last) = (samples[samples.len() / 2], memory());
    println!("end: {rate:.0} transactions/s over {seconds:.0} s, {middle:.0} MiB in the middle and {last:.0} MiB now");
    running.shutdown().await;
    if options.state.is_some() {
        let begun = Instant::now();
        Devnet::start(config).await?.shutdown().await;
        let (seconds, count) = (begun.elapsed().as_secs_f64(), committed(&text));
        println!(
            "started again in {seconds:.1} s: at least {:.0} transactions/s of the log",
            count / seconds
        );
    }
    ensure!(failed(&text) == 0.0, "{} transactions failed", failed(&text));
    ensure!(
        rate >= options.target as f64,
        "verdict: below {} transactions/s",
        options.target
    );
    ensure!(last <= middle * SLACK, "verdict: memory still grows");
    println!("verdict: at least {} transactions/s with flat memory", options.target);
    Ok(())
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    run(options()?).await
}
