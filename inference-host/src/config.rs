//! Everything an operator may set. A value that cannot work stops the program; nothing falls back silently.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    str::FromStr,
    time::Duration,
};

use partition::row::ROW_BYTES_MAX;
use serde::{de, Deserialize, Deserializer};

use crate::onnx::{Device, DEVICE_MEMORY_BYTES_MAX};

/// How a host runs.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Folder of this host's files: `blobs/`, `work/`, `host.json`, `host.token`.
    pub home: PathBuf,
    /// Address of the provider (its account on chain) whose deployments are served.
    pub provider: String,
    /// Public address: pushes, blobs and outputs. Port 0 lets the system choose.
    #[serde(default = "default_listen")]
    pub listen: SocketAddr,
    /// Private address: work interface, status and metrics. Keep it on loopback.
    #[serde(default = "default_status")]
    pub status: SocketAddr,
    /// Where weights may be fetched from, tried in order. The digest decides, not the source.
    #[serde(default)]
    pub sources: Vec<Source>,
    /// Most bytes of blobs kept on disk. Those of loaded models are never evicted.
    #[serde(default = "default_blob_bytes_max")]
    pub blob_bytes_max: u64,
    /// Whether others may fetch blobs from this host.
    #[serde(default = "default_true")]
    pub serve_blobs: bool,
    /// Library of ONNX Runtime, 1.22 or newer. Otherwise `FXN_ONNXRUNTIME`, `ORT_DYLIB_PATH`, then the project's own.
    #[serde(default)]
    pub onnxruntime: Option<PathBuf>,
    /// What computes: `cpu`, `cuda` or `cuda:N`. A host that cannot compute there does not start.
    #[serde(default)]
    pub device: Device,
    /// Most bytes of a GPU's memory for each stage, its weights included. What needs more waits, then fails.
    #[serde(default = "default_device_memory_bytes_max")]
    pub device_memory_bytes_max: u64,
    /// Whether rows share batches on a GPU. Faster, but there a batch may change the last bits of its rows: for whoever has measured that it
    /// does not, or whose outputs nobody compares.
    #[serde(default)]
    pub device_batches: bool,
    /// Threads of the one pool that all sessions share. 0: one per core.
    #[serde(default)]
    pub threads: usize,
    /// Whether idle threads of the pool spin. Faster where the process owns its cores, ruinous where it shares them.
    #[serde(default)]
    pub spin: bool,
    /// Most rows waiting for the engine, per deployment. One more is refused.
    #[serde(default = "default_queue_rows_max")]
    pub queue_rows_max: usize,
    /// Most positions in a batch, padding included; a single longer row still runs alone. Short batches keep the caches warm.
    #[serde(default = "default_batch_positions_max")]
    pub batch_positions_max: u64,
    /// Most bytes of rows in memory, all items together. What does not fit is refused.
    #[serde(default = "default_rows_bytes_max")]
    pub rows_bytes_max: u64,
    /// Largest frame of a push, at most 64 MiB and a header.
    #[serde(default = "default_frame_bytes_max")]
    pub frame_bytes_max: usize,
    /// Most pushes received at the same time.
    #[serde(default = "default_pushes_max")]
    pub pushes_max: usize,
    /// Most pieces of work remembered, in work or kept for their evidence and outputs. As many as the deployments have slots, at least:
    /// then what the chain has closed always makes room in time.
    #[serde(default = "default_items_max")]
    pub items_max: usize,
    /// Most bytes of rows on disk: acknowledged inputs and outputs that are kept.
    #[serde(default = "default_work_bytes_max")]
    pub work_bytes_max: u64,
    /// How long outputs and receipts are kept after the evidence window of their item, unless their room is needed.
    #[serde(default = "default_retention_seconds")]
    pub retention_seconds: u64,
    /// Sessions remembered, attended or with vouchers that are not settled. One more is refused.
    #[serde(default = "default_sessions_max")]
    pub sessions_max: usize,
    /// Requests of one session that may be unpaid at a time: waiting, running, or done and not covered by a voucher. 0: all are paid ahead.
    #[serde(default = "default_credit_requests")]
    pub credit_requests: u32,
    /// Most rows of one request in a session.
    #[serde(default = "default_request_rows_max")]
    pub request_rows_max: u32,
    /// Most bytes of the rows of one request in a session.
    #[serde(default = "default_request_bytes_max")]
    pub request_bytes_max: u64,
    /// Whether to dial next hosts in private address ranges. For tests and for providers that share a network.
    #[serde(default)]
    pub allow_private_peers: bool,
    /// Longest wait for the chain to answer.
    #[serde(default = "default_chain_timeout_seconds")]
    pub chain_timeout_seconds: u64,
    /// Longest wait for a connection, or for the next bytes of a blob or a push.
    #[serde(default = "default_io_timeout_seconds")]
    pub io_timeout_seconds: u64,
    /// Longest run of one batch, and longest load of one stage. A graph that takes longer hangs: its deployment is not served until it is
    /// loaded anew.
    #[serde(default = "default_run_timeout_seconds")]
    pub run_timeout_seconds: u64,
    /// How often the provider's deployments and the chain's time are looked up.
    #[serde(default = "default_refresh_seconds")]
    pub refresh_seconds: u64,
    /// Largest difference between this machine's clock and the chain's that is corrected for. Beyond it no work is taken.
    #[serde(default = "default_clock_skew_seconds_max")]
    pub clock_skew_seconds_max: u64,
    /// Most connections at the same time, per address. One more is told so and closed.
    #[serde(default = "default_connections_max")]
    pub connections_max: usize,
}

impl Config {
    /// The defaults for a home and a provider.
    pub fn new(home: impl Into<PathBuf>, provider: impl Into<String>) -> Self {
        Self {
            home: home.into(),
            provider: provider.into(),
            listen: default_listen(),
            status: default_status(),
            sources: Vec::new(),
            blob_bytes_max: default_blob_bytes_max(),
            serve_blobs: true,
            onnxruntime: None,
            device: Device::Cpu,
            device_memory_bytes_max: default_device_memory_bytes_max(),
            device_batches: false,
            threads: 0,
            spin: false,
            queue_rows_max: default_queue_rows_max(),
            batch_positions_max: default_batch_positions_max(),
            rows_bytes_max: default_rows_bytes_max(),
            frame_bytes_max: default_frame_bytes_max(),
            pushes_max: default_pushes_max(),
            items_max: default_items_max(),
            work_bytes_max: default_work_bytes_max(),
            retention_seconds: default_retention_seconds(),
            sessions_max: default_sessions_max(),
            credit_requests: default_credit_requests(),
            request_rows_max: default_request_rows_max(),
            request_bytes_max: default_request_bytes_max(),
            allow_private_peers: false,
            chain_timeout_seconds: default_chain_timeout_seconds(),
            io_timeout_seconds: default_io_timeout_seconds(),
            run_timeout_seconds: default_run_timeout_seconds(),
            refresh_seconds: default_refresh_seconds(),
            clock_skew_seconds_max: default_clock_skew_seconds_max(),
            connections_max: default_connections_max(),
        }
    }

    /// Refuses values that cannot work.
    pub fn check(&self) -> Result<(), ConfigError> {
        let bounds: [(&'static str, u64, u64, u64); 17] = [
            ("queue_rows_max", as_u64(self.queue_rows_max), 1, 1 << 20),
            ("batch_positions_max", self.batch_positions_max, 1, 1 << 24),
            ("rows_bytes_max", self.rows_bytes_max, 1 << 16, u64::from(u32::MAX) << 4),
            (
                "frame_bytes_max",
                as_u64(self.frame_bytes_max),
                1 << 10,
                as_u64(FRAME_BYTES_CEILING),
            ),
            (
                "device_memory_bytes_max",
                self.device_memory_bytes_max,
                64 << 20,
                1 << 40,
            ),
            ("pushes_max", as_u64(self.pushes_max), 1, 1 << 12),
            ("items_max", as_u64(self.items_max), 1, 1 << 20),
            ("sessions_max", as_u64(self.sessions_max), 1, 1 << 20),
            ("credit_requests", self.credit_requests.into(), 0, 1024),
            ("request_rows_max", self.request_rows_max.into(), 1, 1 << 16),
            ("request_bytes_max", self.request_bytes_max, 1, 1 << 30),
            ("chain_timeout_seconds", self.chain_timeout_seconds, 1, 300),
            ("io_timeout_seconds", self.io_timeout_seconds, 1, 300),
            ("run_timeout_seconds", self.run_timeout_seconds, 1, 3600),
            ("refresh_seconds", self.refresh_seconds, 1, 3600),
            (
                "clock_skew_seconds_max",
                self.clock_skew_seconds_max,
                1,
                u64::from(u32::MAX),
            ),
            ("connections_max", as_u64(self.connections_max), 1, 1 << 16),
        ];
        for (field, found, min, max) in bounds {
            if !(min..=max).contains(&found) {
                return Err(ConfigError::OutOfBounds { field, found, min, max });
            }
        }
        match self.provider.is_empty() {
            true => Err(ConfigError::NoProvider),
            false => Ok(()),
        }
    }

    pub(crate) fn chain_timeout(&self) -> Duration {
        Duration::from_secs(self.chain_timeout_seconds)
    }

    pub(crate) fn io_timeout(&self) -> Duration {
        Duration::from_secs(self.io_timeout_seconds)
    }
}

/// The largest row and room for the header around it.
const FRAME_BYTES_CEILING: usize = ROW_BYTES_MAX + (1 << 16);

/// A place that weights come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// Base URL of anything that answers `GET /blobs/<sha256>`: another host, `fxn model serve`, a mirror.
    Url(String),
    /// A bundle folder, or a folder of blobs named by their digest.
    Folder(PathBuf),
}

impl FromStr for Source {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, ConfigError> {
        match text {
            "" => Err(ConfigError::EmptySource),
            url if url.starts_with("http://") || url.starts_with("https://") => {
                Ok(Self::Url(url.trim_end_matches('/').to_owned()))
            }
            folder => Ok(Self::Folder(folder.into())),
        }
    }
}

impl std::fmt::Display for Source {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Url(url) => formatter.write_str(url),
            Self::Folder(folder) => write!(formatter, "{}", folder.display()),
        }
    }
}

impl<'de> Deserialize<'de> for Source {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

/// A configuration that cannot work.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    #[error("{field} is {found}, {min} to {max} are allowed")]
    OutOfBounds {
        field: &'static str,
        found: u64,
        min: u64,
        max: u64,
    },
    #[error("no provider is named: the address of the account that registered the deployments")]
    NoProvider,
    #[error("a source is a URL or a folder, found an empty text")]
    EmptySource,
}

fn as_u64(value: usize) -> u64 {
    u64::try_from(value).unwrap_or(u64::MAX)
}

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)
}

fn default_listen() -> SocketAddr {
    loopback(7070)
}

fn default_status() -> SocketAddr {
    loopback(7071)
}

fn default_true() -> bool {
    true
}

fn default_blob_bytes_max() -> u64 {
    64 << 30
}

fn default_device_memory_bytes_max() -> u64 {
    DEVICE_MEMORY_BYTES_MAX
}

fn default_queue_rows_max() -> usize {
    8192
}

fn default_batch_positions_max() -> u64 {
    512
}

fn default_rows_bytes_max() -> u64 {
    1 << 30
}

fn default_frame_bytes_max() -> usize {
    16 << 20
}

fn default_pushes_max() -> usize {
    32
}

fn default_items_max() -> usize {
    16_384
}

fn default_work_bytes_max() -> u64 {
    8 << 30
}

fn default_retention_seconds() -> u64 {
    3600
}

fn default_sessions_max() -> usize {
    4096
}

fn default_credit_requests() -> u32 {
    1
}

fn default_request_rows_max() -> u32 {
    64
}

fn default_request_bytes_max() -> u64 {
    16 << 20
}

fn default_chain_timeout_seconds() -> u64 {
    10
}

fn default_io_timeout_seconds() -> u64 {
    30
}

fn default_run_timeout_seconds() -> u64 {
    300
}

fn default_refresh_seconds() -> u64 {
    5
}

fn default_clock_skew_seconds_max() -> u64 {
    7200
}

fn default_connections_max() -> usize {
    1024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_field_is_refused_by_its_name() {
        let error = serde_json::from_str::<Config>(r#"{"home":"h","provider":"p","listn":"x"}"#).unwrap_err();
        assert!(error.to_string().contains("listn"), "{error}");
    }

    #[test]
    fn a_minimal_file_gives_the_documented_defaults() {
        let config: Config = serde_json::from_str(r#"{"home":"h","provider":"p"}"#).unwrap();
        assert_eq!(config, Config::new("h", "p"));
        assert_eq!(config.listen.to_string(), "127.0.0.1:7070");
        assert_eq!(config.status.to_string(), "127.0.0.1:7071");
        config.check().unwrap();
    }

    #[test]
    fn impossible_bounds_are_refused_with_their_numbers() {
        let config = Config {
            pushes_max: 0,
            ..Config::new("h", "p")
        };
        let error = config.check().unwrap_err().to_string();
        assert_eq!(error, "pushes_max is 0, 1 to 4096 are allowed");
        assert_eq!(Config::new("h", "").check(), Err(ConfigError::NoProvider));
    }

    #[test]
    fn a_device_is_read_by_its_name_and_another_word_is_refused() {
        let read = |device: &str| {
            let text = format!(r#"{{"home":"h","provider":"p","device":"{device}"}}"#);
            serde_json::from_str::<Config>(&text)
        };
        assert_eq!(read("cuda:2").unwrap().device, Device::Cuda(2));
        let error = read("gpu").unwrap_err().to_string();
        assert!(
            error.starts_with("\"gpu\" is no device: write cpu, cuda or cuda:N"),
            "{error}"
        );
    }

    #[test]
    fn a_source_is_a_url_or_a_folder() {
        assert_eq!("http://a:1/".parse(), Ok(Source::Url("http://a:1".into())));
        assert_eq!("bundle".parse(), Ok(Source::Folder("bundle".into())));
        assert_eq!("".parse::<Source>(), Err(ConfigError::EmptySource));
    }
}
