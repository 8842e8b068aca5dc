//! `network.json`: which chain this is, how to reach it, and where the contracts live.
//!
//! Unknown fields are refused, so that a misspelt name is an error and not a silent default. A file is replaced as a
//! whole: a reader sees the old or the new one, never half of it.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

use cosmwasm_std::Decimal;
use schema::{params::BeaconParams, BeaconKey, Schedule};
use serde::{Deserialize, Serialize};

/// A network file is a page of text; anything longer is not one.
const FILE_BYTES_MAX: u64 = 64 * 1024;

/// One deployment of Function Network, as `network.json` holds it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Network {
    /// Chain id that every transaction is signed for.
    pub chain_id: String,
    /// Base URL of the node's CometBFT RPC, `http://host:port`.
    pub rpc: String,
    /// Further nodes of the same chain. Whichever of all is healthiest is asked.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub further_rpc: Vec<String>,
    /// Denomination of the gas coin.
    pub denom: String,
    /// Price of one unit of gas, in `denom`.
    pub gas_price: Decimal,
    /// Human-readable prefix of all addresses.
    pub bech32_prefix: String,
    /// Addresses of the contracts.
    pub contracts: Contracts,
    /// The randomness beacon's parameters, where the network has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub beacon: Option<Beacon>,
}

/// Addresses of the contracts, bech32.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Contracts {
    /// FUNC, the cw20 token.
    pub func_token: String,
    /// Models, prices and payout rules.
    pub model_registry: String,
    /// Providers, bonds and deployments.
    pub provider_staking: String,
    /// The ledger of deposits, holds and earnings.
    pub royalty_escrow: String,
    /// Jobs, assignments and attestations.
    pub job_orchestrator: String,
    /// Verified public randomness.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub randomness_beacon: Option<String>,
    /// Audits and challenges.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audit_court: Option<String>,
}

impl Contracts {
    /// The contracts of this network, by the names that they record of themselves (cw2), in the order in which they are made.
    pub fn by_name(&self) -> Vec<(&'static str, &str)> {
        let beacon = self.randomness_beacon.as_deref();
        let mut all = vec![
            ("func-token", self.func_token.as_str()),
            ("model-registry", &self.model_registry),
            ("provider-staking", &self.provider_staking),
            ("royalty-escrow", &self.royalty_escrow),
        ];
        all.extend(beacon.map(|beacon| ("randomness-beacon", beacon)));
        all.push(("job-orchestrator", &self.job_orchestrator));
        all
    }

    /// Every address of the deployment, in the order of the fields.
    pub fn addresses(&self) -> Vec<String> {
        let always = [
            &self.func_token,
            &self.model_registry,
            &self.provider_staking,
            &self.royalty_escrow,
            &self.job_orchestrator,
        ];
        let later = [&self.randomness_beacon, &self.audit_court];
        always.into_iter().chain(later.into_iter().flatten()).cloned().collect()
    }
}

/// Parameters of the drand-format beacon that the network trusts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Beacon {
    /// BLS public key on G2, 96 bytes in lower-case hex.
    pub public_key: BeaconKey,
    /// Unix time of round 1, in seconds.
    pub genesis_seconds: u64,
    /// Time between two rounds, in seconds.
    pub period_seconds: u64,
    /// Servers with drand's HTTP paths at which its rounds can be had. Nobody has to believe them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub urls: Vec<String>,
}

impl Beacon {
    /// When rounds are due.
    pub fn schedule(&self) -> Schedule {
        Schedule {
            genesis_seconds: self.genesis_seconds,
            period_seconds: self.period_seconds,
        }
    }
}

impl From<BeaconParams> for Beacon {
    fn from(params: BeaconParams) -> Self {
        let BeaconParams {
            public_key,
            genesis_seconds,
            period_seconds,
            urls,
            ..
        } = params;
        Self {
            public_key,
            genesis_seconds,
            period_seconds,
            urls,
        }
    }
}

/// Why a network file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// Reading or writing the file failed.
    #[error("{path}: {source}", path = path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The content is no network file.
    #[error("{path} is no network file: {source}", path = path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// Where and why it does not parse.
        source: serde_json::Error,
    },
    /// The file is longer than any network file.
    #[error("{path} is {bytes} bytes long, a network file has at most {FILE_BYTES_MAX}", path = path.display())]
    TooLong {
        /// The file.
        path: PathBuf,
        /// Its length.
        bytes: u64,
    },
}

impl Network {
    /// Base URLs of all its nodes.
    pub fn nodes(&self) -> Vec<String> {
        std::iter::once(&self.rpc).chain(&self.further_rpc).cloned().collect()
    }

    /// The same with these nodes in place of its own. None: it keeps its own.
    #[must_use]
    pub fn with_nodes(self, nodes: &[String]) -> Network {
        match nodes {
            [] => self,
            [first, further @ ..] => Network {
                rpc: first.clone(),
                further_rpc: further.to_vec(),
                ..self
            },
        }
    }

    /// Reads and checks a network file.
    pub fn load(path: &Path) -> Result<Network, NetworkError> {
        let failed = |source| NetworkError::File {
            path: path.to_owned(),
            source,
        };
        let bytes = fs::metadata(path).map_err(failed)?.len();
        if bytes > FILE_BYTES_MAX {
            return Err(NetworkError::TooLong {
                path: path.to_owned(),
                bytes,
            });
        }
        let content = fs::read(path).map_err(failed)?;
        serde_json::from_slice(&content).map_err(|source| NetworkError::Content {
            path: path.to_owned(),
            source,
        })
    }

    /// Writes the file atomically: a temporary file beside it, flushed to disk, then renamed over it.
    pub fn save(&self, path: &Path) -> Result<(), NetworkError> {
        let content = serde_json::to_vec_pretty(self).map_err(|source| NetworkError::Content {
            path: path.to_owned(),
            source,
        })?;
        replace(path, &content).map_err(|source| NetworkError::File {
            path: path.to_owned(),
            source,
        })
    }
}

fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    // The process id keeps two writers from sharing one temporary file.
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(format!(".{}.tmp", std::process::id()));
    let temporary = PathBuf::from(temporary);
    let written = File::create(&temporary).and_then(|mut file| {
        file.write_all(content)?;
        file.write_all(b"\n")?;
        file.sync_all()
    });
    let renamed = written.and_then(|()| fs::rename(&temporary, path));
    if renamed.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    renamed
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> Network {
        Network {
            chain_id: "fxn-devnet-1".into(),
            rpc: "http://127.0.0.1:26657".into(),
            further_rpc: vec![],
            denom: "ustake".into(),
            gas_price: "0.025".parse().unwrap(),
            bech32_prefix: "wasm".into(),
            contracts: Contracts {
                func_token: "wasm1a".into(),
                model_registry: "wasm1b".into(),
                provider_staking: "wasm1c".into(),
                royalty_escrow: "wasm1d".into(),
                job_orchestrator: "wasm1e".into(),
                randomness_beacon: None,
                audit_court: None,
            },
            beacon: None,
        }
    }

    #[test]
    fn a_saved_network_loads_as_it_was_and_leaves_no_other_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("network.json");
        example().save(&path).unwrap();
        let changed = Network {
            rpc: "http://127.0.0.1:1".into(),
            ..example()
        };
        changed.save(&path).unwrap();
        assert_eq!(Network::load(&path).unwrap(), changed);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn the_file_has_the_promised_names_and_no_absent_ones() {
        let json = serde_json::to_value(example()).unwrap();
        assert_eq!(json["gas_price"], "0.025");
        assert_eq!(json["contracts"]["job_orchestrator"], "wasm1e");
        assert!(json.get("beacon").is_none());
        assert!(json.get("further_rpc").is_none());
        assert!(json["contracts"].get("audit_court").is_none());
    }

    #[test]
    fn nodes_are_one_and_any_number_of_further_ones() {
        let all = ["http://a:1", "http://b:1"].map(str::to_owned);
        let network = example().with_nodes(&all);
        assert_eq!(network.nodes(), all);
        assert_eq!(network.clone().with_nodes(&[]), network);
        let json = serde_json::to_value(&network).unwrap();
        assert_eq!(
            (&json["rpc"], &json["further_rpc"][0]),
            (&all[0].as_str().into(), &all[1].as_str().into())
        );
        assert_eq!(network.with_nodes(&all[1..]).nodes(), all[1..]);
    }

    #[test]
    fn an_unknown_field_is_refused_by_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("network.json");
        let mut json = serde_json::to_value(example()).unwrap();
        json["chain_ID"] = "x".into();
        fs::write(&path, json.to_string()).unwrap();
        assert!(Network::load(&path).unwrap_err().to_string().contains("chain_ID"));
    }

    #[test]
    fn a_file_that_is_too_long_is_refused_by_its_length() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("network.json");
        fs::write(&path, vec![b' '; 70_000]).unwrap();
        assert!(Network::load(&path).unwrap_err().to_string().contains("70000"));
    }
}
