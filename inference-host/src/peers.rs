//! Hands boundaries to the host of the next span.
//!
//! Guarantees: only the endpoint that the chain names for the next span's provider is dialled, at an address that was checked (public,
//! unless private ones are allowed); one warm HTTP/2 connection per neighbour, looked up anew after any failure; a push is tried again until the item's deadline unless the
//! receiver says that these very rows are wrong; an acknowledgement counts only if the next span's host key signed it for these rows.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use prost::bytes::Bytes;
use rand::Rng;
use schema::{
    receipt::{Link, SignedAcknowledgement},
    staking::Span,
    Digest,
};
use tokio::time::Instant;
use tonic::{
    transport::{Channel, Endpoint, Uri},
    Code, Status,
};

use crate::{
    chain::{Assignment, Chain, ChainError},
    faults::{pass, Point},
    links::{verify_acknowledgement, LinkError},
    metrics::Metrics,
    proto::{frame::Content, span_client::SpanClient, Frame, Header},
    refusal::RETRY_AFTER,
};

/// First and longest pause between two tries.
const PAUSE_FIRST: Duration = Duration::from_millis(50);
const PAUSE_LONGEST: Duration = Duration::from_secs(2);
/// A receiver may ask for patience, but not for more than this at a time.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(10);
/// Warm connections. A host has few neighbours; beyond this all are closed and opened again as needed.
const CHANNELS_MAX: usize = 64;
/// Largest answer: one signed acknowledgement.
const ANSWER_BYTES_MAX: usize = 16 << 10;

/// Why a push was not acknowledged.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PushError {
    #[error("there is no span {span}")]
    NoNextSpan { span: usize },
    #[error("{0}")]
    Chain(#[from] ChainError),
    #[error("endpoint {endpoint:?} of provider {provider} cannot be dialled: {reason}")]
    Endpoint {
        provider: String,
        endpoint: String,
        reason: String,
    },
    #[error("endpoint {endpoint:?} of provider {provider} is at the private address {address}, which this host does not dial")]
    PrivateAddress {
        provider: String,
        endpoint: String,
        address: IpAddr,
    },
    #[error("{endpoint} answered: {}", .status.message())]
    Refused { endpoint: String, status: Box<Status> },
    #[error("{endpoint} answered with something else than an acknowledgement: {reason}")]
    Answer { endpoint: String, reason: String },
    #[error("{0}")]
    Acknowledgement(#[from] LinkError),
    #[error("the deadline passed; the last of {tries} tries: {last}")]
    Deadline { tries: u64, last: String },
}

impl PushError {
    /// Whether the same push may be taken later.
    pub(crate) fn may_pass(&self) -> bool {
        match self {
            Self::NoNextSpan { .. } | Self::PrivateAddress { .. } | Self::Deadline { .. } => false,
            Self::Refused { status, .. } => !matches!(
                status.code(),
                Code::InvalidArgument | Code::PermissionDenied | Code::OutOfRange | Code::Unimplemented | Code::Aborted
            ),
            _ => true,
        }
    }
}

impl PushError {
    /// How long a busy receiver wants to be left alone.
    fn retry_after(&self) -> Duration {
        let Self::Refused { status, .. } = self else {
            return Duration::ZERO;
        };
        let asked = status
            .metadata()
            .get(RETRY_AFTER)
            .filter(|_| status.code() == Code::ResourceExhausted);
        let seconds = asked.and_then(|asked| asked.to_str().ok()?.parse().ok());
        Duration::from_secs(seconds.unwrap_or(0)).min(RETRY_AFTER_MAX)
    }
}

/// How the receiver of a push was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Route {
    /// Asked of the chain just now.
    Fresh,
    Known,
}

/// What is handed over.
#[derive(Debug)]
pub(crate) struct Push<'a> {
    pub(crate) assignment: &'a Assignment,
    /// Index of the receiving span.
    pub(crate) span: usize,
    /// The last one is our own.
    pub(crate) links: &'a [Link],
    /// Root of the rows.
    pub(crate) digest: Digest,
    pub(crate) rows: &'a [Bytes],
}

impl Push<'_> {
    fn bytes(&self) -> u64 {
        let lengths = self.rows.iter().map(|row| as_u64(row.len()));
        lengths.fold(0, u64::saturating_add)
    }
}

/// Connections to next hosts.
#[derive(Debug)]
pub(crate) struct Peers {
    chain: Arc<dyn Chain>,
    allow_private: bool,
    timeout: Duration,
    frame_bytes_max: usize,
    /// By provider.
    channels: Mutex<HashMap<String, Neighbour>>,
}

/// A warm connection and where it leads.
#[derive(Debug, Clone)]
struct Neighbour {
    endpoint: String,
    channel: Channel,
}

impl Peers {
    /// `timeout` bounds a connection attempt.
    pub(crate) fn new(chain: Arc<dyn Chain>, allow_private: bool, timeout: Duration, frame_bytes_max: usize) -> Self {
        Self {
            chain,
            allow_private,
            timeout,
            frame_bytes_max,
            channels: Mutex::default(),
        }
    }

    /// Pushes until the rows are acknowledged or the deadline has passed.
    pub(crate) async fn push(
        &self,
        push: &Push<'_>,
        deadline: Instant,
        metrics: &Metrics,
    ) -> Result<SignedAcknowledgement, PushError> {
        let mut pause = PAUSE_FIRST;
        let mut last = "none was finished".to_owned();
        for tries in 1_u64.. {
            let asked = match tokio::time::timeout_at(deadline, self.push_once(push)).await {
                Ok(Ok(acknowledgement)) => {
                    metrics.pushes_sent(1);
                    metrics.push_sent_bytes(push.bytes());
                    return Ok(acknowledgement);
                }
                // A provider that has moved leaves somebody else behind: only what a fresh look-up led to is believed.
                Ok(Err((error, Route::Fresh))) if !error.may_pass() => return Err(error),
                Ok(Err((error, _))) => {
                    last = error.to_string();
                    error.retry_after()
                }
                Err(_) => return Err(PushError::Deadline { tries, last }),
            };
            metrics.push_retries(1);
            let attempt = push.assignment.attempt;
            tracing::debug!(item = %push.assignment.item, attempt, span = push.span, last, "push is tried again");
            // Half of the pause is drawn, so that hosts do not return all at once. Whoever is busy says when to come back.
            let drawn = pause
                .mul_f64(rand::thread_rng().gen_range(0.5..1.0))
                .saturating_add(asked);
            if tokio::time::timeout_at(deadline, tokio::time::sleep(drawn))
                .await
                .is_err()
            {
                return Err(PushError::Deadline { tries, last });
            }
            pause = pause.saturating_mul(2).min(PAUSE_LONGEST);
        }
        Err(PushError::Deadline { tries: u64::MAX, last })
    }

    /// A warm connection to a provider's host, and whether the chain was asked for it just now.
    pub(crate) async fn channel(&self, provider: &str) -> Result<(Channel, bool), PushError> {
        let known = self.lock().get(provider).cloned();
        match known {
            Some(neighbour) => Ok((neighbour.channel, false)),
            None => Ok((self.look_up(provider).await?.channel, true)),
        }
    }

    /// The connection did not do: the next one asks the chain.
    pub(crate) fn forget(&self, provider: &str) {
        self.lock().remove(provider);
    }

    async fn push_once(&self, push: &Push<'_>) -> Result<SignedAcknowledgement, (PushError, Route)> {
        let missing = PushError::NoNextSpan { span: push.span };
        let receiver = push.assignment.spans.get(push.span).ok_or((missing, Route::Fresh))?;
        let known = self.lock().get(&receiver.provider).cloned();
        let (neighbour, route) = match known {
            Some(neighbour) => (neighbour, Route::Known),
            None => {
                let found = self.look_up(&receiver.provider).await;
                (found.map_err(|error| (error, Route::Fresh))?, Route::Fresh)
            }
        };
        let sent = self.send(push, receiver, neighbour).await;
        sent.map_err(|error| {
            self.lock().remove(&receiver.provider);
            (error, route)
        })
    }

    async fn send(
        &self,
        push: &Push<'_>,
        receiver: &Span,
        neighbour: Neighbour,
    ) -> Result<SignedAcknowledgement, PushError> {
        let Neighbour { endpoint, channel } = neighbour;
        let mut client = SpanClient::new(channel)
            .max_encoding_message_size(self.frame_bytes_max)
            .max_decoding_message_size(ANSWER_BYTES_MAX);
        let frames = frames(push).into_iter().inspect(|_| pass(Point::PushFrame));
        let answer = client.push(tokio_stream::iter(frames)).await;
        let answer = answer.map_err(|status| PushError::Refused {
            endpoint: endpoint.clone(),
            status: Box::new(status),
        })?;
        let signed: SignedAcknowledgement =
            serde_json::from_slice(&answer.into_inner().acknowledgement).map_err(|error| PushError::Answer {
                endpoint,
                reason: error.to_string(),
            })?;
        verify_acknowledgement(push.assignment, &signed, push.span, receiver, push.digest)?;
        Ok(signed)
    }

    /// Asks the chain where a provider's host is. The connection itself is made by the first push.
    async fn look_up(&self, provider: &str) -> Result<Neighbour, PushError> {
        let endpoint = self.chain.endpoint(provider).await?;
        let fail = |reason: String| PushError::Endpoint {
            provider: provider.to_owned(),
            endpoint: endpoint.clone(),
            reason,
        };
        let (uri, host, port) = parse(&endpoint).map_err(fail)?;
        let address = self.resolve(provider, &endpoint, &host, port).await?;
        let dialled = Endpoint::from_shared(format!("http://{address}")).map_err(|error| fail(error.to_string()))?;
        let channel = dialled
            .origin(uri)
            .connect_timeout(self.timeout)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(Duration::from_secs(30))
            .keep_alive_timeout(self.timeout)
            .keep_alive_while_idle(true)
            .initial_stream_window_size(1 << 20)
            .initial_connection_window_size(4 << 20)
            .connect_lazy();
        let neighbour = Neighbour { endpoint, channel };
        let mut channels = self.lock();
        if channels.len() >= CHANNELS_MAX {
            channels.clear();
        }
        channels.insert(provider.to_owned(), neighbour.clone());
        Ok(neighbour)
    }

    /// The address to dial. It is checked here and dialled as it is, so that a name cannot point elsewhere a moment later.
    async fn resolve(&self, provider: &str, endpoint: &str, host: &str, port: u16) -> Result<SocketAddr, PushError> {
        let fail = |reason: String| PushError::Endpoint {
            provider: provider.to_owned(),
            endpoint: endpoint.to_owned(),
            reason,
        };
        let found = match tokio::time::timeout(self.timeout, tokio::net::lookup_host((host, port))).await {
            Ok(found) => found.map_err(|error| fail(error.to_string()))?,
            Err(_) => return Err(fail(format!("no address after {} s", self.timeout.as_secs()))),
        };
        let addresses: Vec<SocketAddr> = found.collect();
        if let (false, Some(private)) = (self.allow_private, addresses.iter().find(|at| !is_public(at.ip()))) {
            return Err(PushError::PrivateAddress {
                provider: provider.to_owned(),
                endpoint: endpoint.to_owned(),
                address: private.ip(),
            });
        }
        addresses
            .first()
            .copied()
            .ok_or_else(|| fail("its name has no address".to_owned()))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Neighbour>> {
        // Channels are added and removed as a whole, so a panic elsewhere leaves nothing half done.
        self.channels.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn frames(push: &Push<'_>) -> Vec<Frame> {
    let item = push.assignment.item;
    let bytes = push.bytes();
    let header = Header {
        job: item.job,
        shard: item.shard.into(),
        replica: item.replica.into(),
        attempt: push.assignment.attempt.into(),
        span: u32::try_from(push.span).unwrap_or(u32::MAX),
        rows: u32::try_from(push.rows.len()).unwrap_or(u32::MAX),
        bytes,
        // Links are structs of numbers and texts: they always serialise.
        links: serde_json::to_vec(push.links).unwrap_or_default(),
    };
    let frame = |content| Frame { content: Some(content) };
    let rows = push.rows.iter().map(|row| frame(Content::Row(row.clone())));
    std::iter::once(frame(Content::Header(header))).chain(rows).collect()
}

fn as_u64(value: usize) -> u64 {
    u64::try_from(value).unwrap_or(u64::MAX)
}

/// Scheme, host and port of an endpoint.
fn parse(endpoint: &str) -> Result<(Uri, String, u16), String> {
    let uri: Uri = endpoint.parse().map_err(|_| "it is no URL".to_owned())?;
    match uri.scheme_str() {
        Some("http") => {}
        // TLS between hosts ends in front of them for now; dialling it in plain text would only look like a failure of the peer.
        Some(other) => return Err(format!("its scheme is {other}, only http is dialled")),
        None => return Err("it has no scheme".to_owned()),
    }
    if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
        return Err("it has a path".to_owned());
    }
    let host = uri.host().ok_or_else(|| "it has no host".to_owned())?;
    let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    let port = uri.port_u16().unwrap_or(80);
    Ok((uri, host, port))
}

/// Whether an address is out on the Internet rather than in somebody's own network.
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            let [first, second, third, _] = v4.octets();
            let shared = first == 100 && (64..128).contains(&second);
            let benchmark = first == 198 && (18..20).contains(&second);
            let protocol = first == 192 && second == 0 && third == 0;
            !(v4.is_private()
                || v4.is_loopback()
                || v4.is_link_local()
                || v4.is_multicast()
                || v4.is_broadcast()
                || v4.is_documentation()
                || first == 0
                || first >= 240
                || shared
                || benchmark
                || protocol)
        }
        IpAddr::V6(v6) => {
            if let Some(v4) = v6.to_ipv4() {
                return is_public(IpAddr::V4(v4));
            }
            let first = v6.segments()[0];
            // Global unicast is 2000::/3; documentation and the IPv4 tunnels inside it lead elsewhere.
            let documentation = v6.segments()[..2] == [0x2001, 0xdb8];
            let tunnel = first == 0x2002 || v6.segments()[..2] == [0x2001, 0];
            first & 0xe000 == 0x2000 && !documentation && !tunnel
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_of_the_open_internet_are_public() {
        for public in ["8.8.8.8", "172.32.0.1", "100.128.0.1", "2600::1", "::ffff:8.8.8.8"] {
            assert!(is_public(public.parse().unwrap()), "{public}");
        }
        let private = [
            "127.0.0.1",
            "10.1.2.3",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "0.0.0.0",
            "224.0.0.1",
            "255.255.255.255",
            "198.18.0.1",
            "192.0.0.8",
            "::1",
            "::",
            "fe80::1",
            "fc00::1",
            "ff02::1",
            "::ffff:10.0.0.1",
            "2002:0a00:0001::",
            "2001:db8::1",
            "64:ff9b::a00:1",
        ];
        for private in private {
            assert!(!is_public(private.parse().unwrap()), "{private}");
        }
    }

    #[test]
    fn endpoints_that_cannot_be_dialled_are_refused_with_the_reason() {
        assert_eq!(
            parse("http://[2600::1]:7070").map(|(_, host, port)| (host, port)),
            Ok(("2600::1".into(), 7070))
        );
        assert_eq!(
            parse("http://host/").map(|(_, host, port)| (host, port)),
            Ok(("host".into(), 80))
        );
        let refused = [
            ("https://host:1", "its scheme is https, only http is dialled"),
            ("ftp://host:1", "its scheme is ftp, only http is dialled"),
            ("host", "it has no scheme"),
            ("http://host/metadata", "it has a path"),
            ("http://host/?x", "it has a path"),
            ("", "it is no URL"),
            ("http://", "it is no URL"),
        ];
        for (endpoint, reason) in refused {
            assert_eq!(
                parse(endpoint).map(|(_, host, _)| host),
                Err(reason.to_owned()),
                "{endpoint}"
            );
        }
    }
}
