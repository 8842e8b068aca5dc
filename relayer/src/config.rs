//! Everything an operator may set. A bad configuration stops the program: nothing falls back silently.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{Deserialize, Serialize};

/// More than these are a mistake; each is asked in turn when the others fail.
const NODES_MAX: usize = 16;

/// Configuration of one relayer. `config.example.toml` holds the defaults.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Folder of this relayer's own files: `relayer.checkpoint`, its lock, and `relayer.json` while it runs.
    pub home: PathBuf,
    /// The network file: which chain, which contracts.
    pub network: PathBuf,
    /// RPCs of nodes, instead of those in the network file: `http://host:port`, at most 16. The healthiest is used; one on another chain never.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rpc: Vec<String>,
    /// Longest wait for an answer of the chain; where there are several nodes, all of them together. 100 ms to 1 min.
    #[serde(with = "humantime_serde")]
    pub rpc_timeout: Duration,
    /// Address of the provider whose deployments are served. Absent: the address of the wallet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub provider: Option<String>,
    /// Folder in which the host leaves `host.json` and `host.token`.
    pub host_home: PathBuf,
    /// Private address of the host, `http://host:port`, instead of the one in `host.json`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// Where /health, /ready, /status and /metrics are answered. Port 0: any free one, see `relayer.json`.
    pub status_listen: SocketAddr,
    /// Longest wait for a single answer of the host, on top of a long-poll's own time. 100 ms to 1 min.
    #[serde(with = "humantime_serde")]
    pub host_timeout: Duration,
    /// Longest wait of one long-poll at the host, in whole seconds. 1 s to 20 s.
    #[serde(with = "humantime_serde")]
    pub host_wait: Duration,
    /// First pause after something failed; doubled up to 10 s. 10 ms to 10 s.
    #[serde(with = "humantime_serde")]
    pub retry_pause: Duration,
    /// How long the node may be away at the start before the program gives up. At most 1 h.
    #[serde(with = "humantime_serde")]
    pub start_timeout: Duration,
    /// How long a transaction may be in no block before the same bytes are sent again. 1 s to 10 min.
    #[serde(with = "humantime_serde")]
    pub confirm_timeout: Duration,
    /// Blocks after which a transaction that is in none is made anew; until then nobody can tell that it will not count. 5 to 10000.
    pub stuck_blocks: u64,
    /// Gas limit of a transaction in percent of the gas that its simulation used. 100 to 1000.
    pub gas_percent: u64,
    /// Highest fee of one transaction, in the gas coin's smallest unit. What would cost more is not sent. At least 1.
    pub fee_max: u64,
    /// Balance of the account that pays below which an alarm is raised, in the gas coin's smallest unit. 0: none.
    pub balance_low: u64,
    /// How long the first of a batch waits for company: gas is cheaper together. At most 10 s.
    #[serde(with = "humantime_serde")]
    pub batch_wait: Duration,
    /// How often, by block time, overdue items of anybody are looked for. 1 s to 1 h.
    #[serde(with = "humantime_serde")]
    pub overdue_interval: Duration,
    /// Servers with drand's HTTP paths from which rounds are brought to the chain, instead of those in the network file; at most 16.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub beacon: Vec<String>,
    /// Longest wait for an answer of one of them. 100 ms to 10 s.
    #[serde(with = "humantime_serde")]
    pub beacon_timeout: Duration,
    /// How old, by block time, the chain's newest round may become while there are jobs. 1 s to 1 day.
    #[serde(with = "humantime_serde")]
    pub beacon_age: Duration,
    /// How often the host is asked for vouchers that can be settled. 100 ms to 1 h.
    #[serde(with = "humantime_serde")]
    pub settle_interval: Duration,
    /// How long, by block time, a voucher waits for others before it is settled whatever it is worth. 1 s to 1 day.
    #[serde(with = "humantime_serde")]
    pub settle_after: Duration,
    /// Ufunc for which a voucher is settled at once: a hundred times its gas or more. At least 1.
    pub settle_worth: u64,
    /// Blocks to wait at most before an overdue item is expired; each relayer draws its own number. At most 100.
    pub expiry_blocks_max: u8,
    /// Items watched at the host at the same time; each is one idle connection. 1 to 4096.
    pub items_max: usize,
    /// How long a transaction under way may hold up the end of the program. At most 10 min.
    #[serde(with = "humantime_serde")]
    pub shutdown_timeout: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            home: ".".into(),
            network: "network.json".into(),
            rpc: vec![],
            rpc_timeout: Duration::from_secs(10),
            provider: None,
            host_home: ".".into(),
            host: None,
            status_listen: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 7072),
            host_timeout: Duration::from_secs(5),
            host_wait: Duration::from_secs(20),
            retry_pause: Duration::from_millis(250),
            start_timeout: Duration::from_secs(60),
            confirm_timeout: Duration::from_secs(30),
            stuck_blocks: 60,
            gas_percent: 130,
            fee_max: 10_000_000,
            balance_low: 1_000_000,
            batch_wait: Duration::from_millis(100),
            overdue_interval: Duration::from_secs(2),
            beacon: vec![],
            beacon_timeout: Duration::from_secs(3),
            beacon_age: Duration::from_secs(600),
            settle_interval: Duration::from_secs(1),
            settle_after: Duration::from_secs(600),
            settle_worth: 1_000_000,
            expiry_blocks_max: 3,
            items_max: 256,
            shutdown_timeout: Duration::from_secs(15),
        }
    }
}

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("{path}: {source}", path = path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{path} is no configuration of a relayer: {source}", path = path.display())]
    Parse {
        path: PathBuf,
        source: Box<toml::de::Error>,
    },
    #[error("{field} is {found}, it must be {min} to {max}")]
    Bounds {
        field: &'static str,
        found: String,
        min: String,
        max: String,
    },
    #[error("beacon: {0}")]
    Beacon(beacon::SourceError),
    #[error("{field} must be an URL like http://127.0.0.1:7071, found {found:?}")]
    Url { field: &'static str, found: String },
}

impl Config {
    /// Reads and checks a TOML file. Absent fields have their defaults, unknown ones are refused.
    pub fn load(path: &Path) -> Result<Config, ConfigError> {
        let text = fs::read_to_string(path).map_err(|source| ConfigError::Read {
            path: path.to_owned(),
            source,
        })?;
        let config: Config = toml::from_str(&text).map_err(|source| ConfigError::Parse {
            path: path.to_owned(),
            source: Box::new(source),
        })?;
        config.check()?;
        Ok(config)
    }

    /// Refuses values that cannot work.
    pub fn check(&self) -> Result<(), ConfigError> {
        let (ms, s) = (Duration::from_millis, Duration::from_secs);
        within("host_timeout", self.host_timeout, ms(100), s(60))?;
        within("host_wait", self.host_wait, s(1), s(20))?;
        within("retry_pause", self.retry_pause, ms(10), s(10))?;
        within("start_timeout", self.start_timeout, s(0), s(3600))?;
        within("confirm_timeout", self.confirm_timeout, s(1), s(600))?;
        within("batch_wait", self.batch_wait, s(0), s(10))?;
        within("overdue_interval", self.overdue_interval, s(1), s(3600))?;
        within("beacon_timeout", self.beacon_timeout, ms(100), s(10))?;
        within("beacon_age", self.beacon_age, s(1), s(86_400))?;
        if let Err(error) = beacon::source::check(&self.beacon) {
            return Err(ConfigError::Beacon(error));
        }
        within("settle_interval", self.settle_interval, ms(100), s(3600))?;
        within("settle_after", self.settle_after, s(1), s(86_400))?;
        within("settle_worth", self.settle_worth, 1, u64::MAX)?;
        within("expiry_blocks_max", self.expiry_blocks_max, 0, 100)?;
        within("items_max", self.items_max, 1, 4096)?;
        within("shutdown_timeout", self.shutdown_timeout, s(0), s(600))?;
        within("rpc_timeout", self.rpc_timeout, ms(100), s(60))?;
        within("stuck_blocks", self.stuck_blocks, 5, 10_000)?;
        within("gas_percent", self.gas_percent, 100, 1_000)?;
        within("fee_max", self.fee_max, 1, u64::MAX)?;
        within("the number of rpc", self.rpc.len(), 0, NODES_MAX)?;
        for node in &self.rpc {
            is_url("rpc", Some(node))?;
        }
        is_url("host", self.host.as_deref())
    }
}

fn within<T: PartialOrd + std::fmt::Debug>(field: &'static str, found: T, min: T, max: T) -> Result<(), ConfigError> {
    if min <= found && found <= max {
        return Ok(());
    }
    let [found, min, max] = [found, min, max].map(|value| format!("{value:?}"));
    Err(ConfigError::Bounds { field, found, min, max })
}

fn is_url(field: &'static str, value: Option<&str>) -> Result<(), ConfigError> {
    let is_url = |text: &str| {
        text.parse::<reqwest::Url>()
            .is_ok_and(|url| url.scheme() == "http" && url.has_host())
    };
    match value {
        Some(found) if !is_url(found) => Err(ConfigError::Url {
            field,
            found: found.to_owned(),
        }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(text: &str) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), text).unwrap();
        file
    }

    #[test]
    fn the_example_file_is_the_default() {
        let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("config.example.toml");
        assert_eq!(Config::load(&example).unwrap(), Config::default());
    }

    #[test]
    fn a_default_configuration_survives_toml() {
        let text = toml::to_string(&Config::default()).unwrap();
        assert_eq!(Config::load(write(&text).path()).unwrap(), Config::default());
    }

    #[test]
    fn a_misspelt_field_is_refused_by_its_name() {
        let file = write("batch_weight = \"1s\"\n");
        let message = Config::load(file.path()).unwrap_err().to_string();
        assert!(message.contains("batch_weight"), "{message}");
    }

    #[test]
    fn values_out_of_bounds_are_refused_with_their_numbers() {
        for (text, words) in [
            ("host_wait = \"21s\"", "host_wait is 21s, it must be 1s to 20s"),
            ("items_max = 0", "items_max is 0, it must be 1 to 4096"),
            (
                "expiry_blocks_max = 101",
                "expiry_blocks_max is 101, it must be 0 to 100",
            ),
            ("host = \"127.0.0.1:7071\"", "host must be an URL"),
            ("rpc = [\"http://a:1\", \"a:2\"]", "rpc must be an URL"),
            ("beacon = [\"ftp://a\"]", "\"ftp://a\" is no URL of a beacon"),
            ("beacon_age = \"0s\"", "beacon_age is 0ns, it must be 1s to 86400s"),
            ("gas_percent = 99", "gas_percent is 99, it must be 100 to 1000"),
            ("stuck_blocks = 4", "stuck_blocks is 4, it must be 5 to 10000"),
            ("fee_max = 0", "fee_max is 0, it must be 1 to"),
        ] {
            let message = Config::load(write(text).path()).unwrap_err().to_string();
            assert!(message.contains(words), "{message}");
        }
    }
}
