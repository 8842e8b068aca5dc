//! A host that is honest in everything but its numbers: own key, real ONNX Runtime, signed receipts, acknowledgements. From the moment a file
//! `HOME/lie` exists, the bit whose number stands in that file is flipped in the first value of everything that its stage computes.
//!
//!     lying-host HOME PROVIDER SOURCE < SECRET
//!
//! HOME holds `network.json`. The first line of stdin is the host key's secret in hex; when stdin ends, the host stops.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{ensure, Context as _};
use client::{Client, Network, Wallet};
use inference_host::{
    chain::NodeChain,
    onnx::{find_library, OnnxRuntime, Threads},
    start, Config,
};
use partition::{Loaded, Runtime, RuntimeError, Tensor};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};

/// ONNX Runtime, and what is made of its answers.
struct Liar {
    honest: OnnxRuntime,
    lie: PathBuf,
}

struct LyingGraph {
    honest: Box<dyn Loaded>,
    lie: PathBuf,
}

impl Runtime for Liar {
    fn engine_class(&self) -> String {
        self.honest.engine_class()
    }

    fn load(&self, graph: &Path) -> Result<Box<dyn Loaded>, RuntimeError> {
        Ok(Box::new(LyingGraph {
            honest: self.honest.load(graph)?,
            lie: self.lie.clone(),
        }))
    }
}

impl Loaded for LyingGraph {
    fn run(&mut self, inputs: Vec<(String, Tensor)>) -> Result<Vec<(String, Tensor)>, RuntimeError> {
        let mut outputs = self.honest.run(inputs)?;
        let bit = fs::read_to_string(&self.lie)
            .ok()
            .and_then(|text| text.trim().parse::<u32>().ok());
        let first = outputs
            .first_mut()
            .and_then(|(_, tensor)| tensor.data.first_chunk_mut::<4>());
        if let (Some(bit), Some(value)) = (bit, first) {
            *value = (u32::from_le_bytes(*value) ^ 1_u32.rotate_left(bit)).to_le_bytes();
        }
        Ok(outputs)
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [home, provider, source] = arguments.as_slice() else {
        anyhow::bail!("usage: lying-host HOME PROVIDER SOURCE");
    };
    let mut stdin = BufReader::new(tokio::io::stdin());
    let mut secret = String::new();
    stdin
        .read_line(&mut secret)
        .await
        .context("failed to read the secret")?;
    let host_key = Wallet::from_secret(&hex::decode(secret.trim()).context("the secret is not hex")?)?;

    let home = PathBuf::from(home);
    ensure!(home.is_dir(), "{} is no folder", home.display());
    let network = Network::load(&home.join("network.json"))?;
    let any_port = "127.0.0.1:0".parse()?;
    let config = Config {
        listen: any_port,
        status: any_port,
        sources: vec![source.parse()?],
        allow_private_peers: true,
        refresh_seconds: 1,
        ..Config::new(&home, provider)
    };
    let threads = Threads { count: 1, spin: false };
    let liar = Liar {
        honest: OnnxRuntime::load_with(&find_library(None)?, threads)?,
        lie: home.join("lie"),
    };
    let timeout = Duration::from_secs(config.chain_timeout_seconds);
    let chain = NodeChain::new(Client::connect_with(network, timeout).await?, timeout);
    let running = start(config, host_key, Arc::new(chain), Arc::new(liar)).await?;
    let mut rest = Vec::new();
    // Whatever ends it, end.
    let _ = stdin.read_to_end(&mut rest).await;
    running.stop().await;
    Ok(())
}
