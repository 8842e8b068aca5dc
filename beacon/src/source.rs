//! Where rounds are fetched: servers with drand's HTTP paths, none of which is believed.
//!
//! Guarantees:
//! - What comes out is signed by the key for the round that was asked for. A server that lies is as one that is dead.
//! - Every question has a time-out and every answer a length; the servers are asked one after the other, each once.

use std::time::Duration;

use futures::StreamExt as _;
use reqwest::{redirect, Client, StatusCode, Url};
use schema::{BeaconKey, BeaconSignature};
use serde::{Deserialize, Serialize};

use crate::key::is_signed;

/// A round in JSON is some hundred bytes.
const ANSWER_BYTES_MAX: usize = 8 * 1024;
/// More servers are a mistake.
pub const SERVERS_MAX: usize = 16;

/// A round as drand's servers tell it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedRound {
    pub round: u64,
    pub signature: BeaconSignature,
}

/// Why there is no round.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SourceError {
    #[error("{0:?} is no URL of a beacon: http://host:port or https://host are, with a path or without")]
    NoUrl(String),
    #[error("{found} servers are too many, at most {SERVERS_MAX} are asked")]
    TooMany { found: usize },
    #[error("no HTTP client: {0}")]
    NoClient(String),
    /// What each server said instead, by its URL.
    #[error("no server has round {round}: {}", said.join("; "))]
    NotFound { round: u64, said: Vec<String> },
}

/// Whether these could be servers.
pub fn check(servers: &[String]) -> Result<(), SourceError> {
    read(servers).map(drop)
}

fn read(servers: &[String]) -> Result<Vec<Url>, SourceError> {
    let found = servers.len();
    if found > SERVERS_MAX {
        return Err(SourceError::TooMany { found });
    }
    servers.iter().map(|server| url(server)).collect()
}

/// Servers of one beacon.
#[derive(Debug, Clone)]
pub struct Source {
    client: Client,
    key: BeaconKey,
    servers: Vec<Url>,
}

impl Source {
    /// Servers whose rounds count if this key has signed them. An answer takes at most `timeout`.
    pub fn new(servers: &[String], key: BeaconKey, timeout: Duration) -> Result<Self, SourceError> {
        let servers = read(servers)?;
        // A server that sends us elsewhere could send us to somebody's own network.
        let client = Client::builder().timeout(timeout).redirect(redirect::Policy::none());
        let client = client
            .build()
            .map_err(|error| SourceError::NoClient(error.to_string()))?;
        Ok(Self { client, key, servers })
    }

    /// Whether anybody can be asked.
    pub fn is_empty(&self) -> bool {
        self.servers.is_empty()
    }

    /// A round, of the first server that has it.
    pub async fn round(&self, round: u64) -> Result<SignedRound, SourceError> {
        let mut said = vec![];
        for server in &self.servers {
            match self.ask(server, round).await {
                Ok(found) => return Ok(found),
                Err(reason) => said.push(format!("{}: {reason}", place(server))),
            }
        }
        Err(SourceError::NotFound { round, said })
    }

    async fn ask(&self, server: &Url, round: u64) -> Result<SignedRound, String> {
        let url = format!("{}/public/{round}", server.as_str().trim_end_matches('/'));
        let answer = self.client.get(url).send().await;
        let answer = answer.map_err(|error| match error.is_timeout() {
            true => "no answer in time".to_owned(),
            false => "not reachable".to_owned(),
        })?;
        if answer.status() != StatusCode::OK {
            return Err(format!("status {}", answer.status().as_u16()));
        }
        let mut body = vec![];
        let mut chunks = answer.bytes_stream();
        while let Some(chunk) = chunks.next().await {
            let chunk = chunk.map_err(|_| "the answer breaks off".to_owned())?;
            if body.len().saturating_add(chunk.len()) > ANSWER_BYTES_MAX {
                return Err(format!("more than {ANSWER_BYTES_MAX} bytes"));
            }
            body.extend_from_slice(&chunk);
        }
        let found: SignedRound = serde_json::from_slice(&body).map_err(|_| "no round in the answer".to_owned())?;
        if found.round != round {
            return Err(format!("round {} instead", found.round));
        }
        if !is_signed(&self.key, round, &found.signature) {
            return Err("a signature that is none".to_owned());
        }
        Ok(found)
    }
}

fn url(text: &str) -> Result<Url, SourceError> {
    let refused = || SourceError::NoUrl(text.to_owned());
    let url: Url = text.parse().map_err(|_| refused())?;
    let is_http = matches!(url.scheme(), "http" | "https") && url.has_host();
    if !is_http || url.query().is_some() || url.fragment().is_some() {
        return Err(refused());
    }
    Ok(url)
}

/// The server without what may be secret in its URL.
fn place(server: &Url) -> String {
    let port = server.port().map_or(String::new(), |port| format!(":{port}"));
    format!("{}://{}{port}", server.scheme(), server.host_str().unwrap_or_default())
}
