//! The inference host of the same provider, over its private HTTP interface.
//!
//! Guarantees:
//! - Every call ends: connection, answer and long-poll have limits.
//! - No answer is read beyond [`ANSWER_BYTES_MAX`]; nothing is followed elsewhere: no redirects, no proxies.
//! - A host that was restarted is found again: `host.json` and the token are read anew for every call.
//! - What is told about another item, or by the host of another provider, is not taken for ours.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use reqwest::{header::RETRY_AFTER, Client, RequestBuilder, Response, StatusCode};
use schema::{
    work::{HeldVouchers, HostFile, SettlementNews, WorkStatus},
    ItemId,
};

use crate::retry::Decision;

/// 32 links with receipt and acknowledgement are about 64 KiB.
const ANSWER_BYTES_MAX: usize = 1024 * 1024;
/// The host's files are smaller than this.
const FILE_BYTES_MAX: u64 = 16 * 1024;
/// A host may ask for patience, but not for more than this at a time.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(30);
/// Characters of a host's own words that are worth repeating.
const WORDS_MAX: usize = 200;

/// Why the host did not answer as hoped.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// It does not run, or its files are not there.
    #[error("the host cannot be found: {0}")]
    NotFound(String),
    /// No answer.
    #[error("the host does not answer: {0}")]
    Unreachable(String),
    /// 503: it cannot do it now.
    #[error("the host is not ready: {0}")]
    NotReady(String),
    /// 429: it has enough to do.
    #[error("the host is busy, again in {after:?}")]
    Busy { after: Duration },
    /// 404: it does not know the item as its own. It may learn of it a block later.
    #[error("the host does not know the item: {0}")]
    UnknownItem(String),
    /// 409: a later attempt runs, or the item is over.
    #[error("the attempt is over for the host: {0}")]
    Past(String),
    /// 413, 422: not now and not later, as the host is set up.
    #[error("the host will never do it: {0}")]
    Never(String),
    /// 401, 403: the token is not the one it was started with. It may have been restarted this moment.
    #[error("the host does not accept the token of {path}", path = path.display())]
    Token { path: PathBuf },
    /// Something else than the interface promises.
    #[error("the host answered something else than agreed: {0}")]
    Answer(String),
    /// It serves somebody else.
    #[error("the host serves provider {found}, this relayer {expected}")]
    OtherProvider { found: String, expected: String },
}

impl HostError {
    /// What to do about it.
    pub fn decision(&self) -> Decision {
        match self {
            Self::Past(_) | Self::Never(_) => Decision::Skip,
            Self::OtherProvider { .. } => Decision::Stop,
            _ => Decision::Retry,
        }
    }

    /// How long the host wants to be left alone.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Busy { after } => Some(*after),
            _ => None,
        }
    }
}

/// Where the host is and how patient we are with it.
#[derive(Debug, Clone)]
pub struct Host {
    http: Client,
    home: PathBuf,
    /// Instead of what `host.json` says.
    url: Option<String>,
    provider: String,
    timeout: Duration,
}

impl Host {
    /// The host whose files lie in `home`, which must serve this provider. Nothing is sent yet.
    pub fn new(home: &Path, url: Option<String>, provider: &str, timeout: Duration) -> Result<Host, HostError> {
        let http = Client::builder()
            .connect_timeout(timeout)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .build()
            .map_err(|error| HostError::Unreachable(error.to_string()))?;
        Ok(Host {
            http,
            home: home.to_owned(),
            url: url.map(|url| url.trim_end_matches('/').to_owned()),
            provider: provider.to_owned(),
            timeout,
        })
    }

    /// Tells the host that an item is its own. Harmless to repeat.
    pub async fn start(&self, item: ItemId, attempt: u8) -> Result<WorkStatus, HostError> {
        let url = self.url(item, attempt).await?;
        self.ask(self.http.put(url), item, attempt, self.timeout).await
    }

    /// How far the host is. With a `wait` it answers when that changes, or after that time, in whole seconds.
    pub async fn status(&self, item: ItemId, attempt: u8, wait: Duration) -> Result<WorkStatus, HostError> {
        let url = self.url(item, attempt).await?;
        let request = match wait.as_secs() {
            0 => self.http.get(url),
            seconds => self.http.get(format!("{url}?wait_seconds={seconds}")),
        };
        self.ask(request, item, attempt, self.timeout.saturating_add(wait))
            .await
    }

    /// What the host holds and the chain has not paid.
    pub async fn vouchers(&self) -> Result<HeldVouchers, HostError> {
        let request = self.http.get(format!("{}/v1/vouchers", self.base().await?));
        match self.send(request, self.timeout).await? {
            (StatusCode::OK, _, body) => {
                serde_json::from_slice(&body).map_err(|error| HostError::Answer(error.to_string()))
            }
            (code, after, body) => Err(self.refusal(code, after, &body)),
        }
    }

    /// Tells the host what became of vouchers. Harmless to repeat.
    pub async fn settled(&self, news: &SettlementNews) -> Result<(), HostError> {
        let url = format!("{}/v1/vouchers", self.base().await?);
        let (code, after, body) = self.send(self.http.post(url).json(news), self.timeout).await?;
        match code.is_success() {
            true => Ok(()),
            false => Err(self.refusal(code, after, &body)),
        }
    }

    async fn ask(
        &self,
        request: RequestBuilder,
        item: ItemId,
        attempt: u8,
        timeout: Duration,
    ) -> Result<WorkStatus, HostError> {
        let (code, retry_after, body) = self.send(request, timeout).await?;
        match code {
            StatusCode::OK | StatusCode::ACCEPTED | StatusCode::CREATED => {
                let status = serde_json::from_slice(&body);
                let status: WorkStatus = status.map_err(|error| HostError::Answer(error.to_string()))?;
                match (status.item, status.attempt) == (item, attempt) {
                    true => Ok(status),
                    false => Err(HostError::Answer(format!("{}/{}", status.item, status.attempt))),
                }
            }
            code => Err(self.refusal(code, retry_after, &body)),
        }
    }

    fn token_path(&self) -> PathBuf {
        self.home.join("host.token")
    }

    /// Answers code, pause and body, whatever they are.
    async fn send(
        &self,
        request: RequestBuilder,
        timeout: Duration,
    ) -> Result<(StatusCode, Duration, Vec<u8>), HostError> {
        let token_path = self.token_path();
        let token = read(&token_path).await?;
        let token = token.trim();
        if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(HostError::NotFound(format!("{} holds no token", token_path.display())));
        }
        let answer = request.bearer_auth(token).timeout(timeout).send().await;
        let response = answer.map_err(|error| HostError::Unreachable(first_cause(&error)))?;
        let code = response.status();
        let retry_after = retry_after(&response);
        Ok((code, retry_after, body(response).await?))
    }

    fn refusal(&self, code: StatusCode, after: Duration, body: &[u8]) -> HostError {
        let words = || {
            String::from_utf8_lossy(body)
                .chars()
                .take(WORDS_MAX)
                .collect::<String>()
        };
        match code {
            StatusCode::NOT_FOUND => HostError::UnknownItem(words()),
            StatusCode::CONFLICT => HostError::Past(words()),
            StatusCode::PAYLOAD_TOO_LARGE | StatusCode::UNPROCESSABLE_ENTITY => HostError::Never(words()),
            StatusCode::TOO_MANY_REQUESTS => HostError::Busy { after },
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => HostError::Token {
                path: self.token_path(),
            },
            code if code.is_server_error() => HostError::NotReady(format!("{code} {}", words())),
            code => HostError::Answer(format!("{code} {}", words())),
        }
    }

    async fn url(&self, item: ItemId, attempt: u8) -> Result<String, HostError> {
        Ok(format!("{}/v1/items/{item}/{attempt}", self.base().await?))
    }

    async fn base(&self) -> Result<String, HostError> {
        match &self.url {
            Some(url) => Ok(url.clone()),
            None => Ok(format!("http://{}", self.host_file().await?.status)),
        }
    }

    async fn host_file(&self) -> Result<HostFile, HostError> {
        let path = self.home.join("host.json");
        let text = read(&path).await?;
        let file: HostFile =
            serde_json::from_str(&text).map_err(|error| HostError::NotFound(format!("{}: {error}", path.display())))?;
        match file.provider == self.provider {
            true => Ok(file),
            false => Err(HostError::OtherProvider {
                found: file.provider,
                expected: self.provider.clone(),
            }),
        }
    }
}

async fn read(path: &Path) -> Result<String, HostError> {
    let not_found = |reason: String| HostError::NotFound(format!("{}: {reason}", path.display()));
    let metadata = tokio::fs::metadata(path)
        .await
        .map_err(|error| not_found(error.to_string()))?;
    if metadata.len() > FILE_BYTES_MAX {
        return Err(not_found(format!("{} bytes are too many", metadata.len())));
    }
    let text = tokio::fs::read_to_string(path).await;
    text.map_err(|error| not_found(error.to_string()))
}

async fn body(mut response: Response) -> Result<Vec<u8>, HostError> {
    let mut body = vec![];
    loop {
        match response.chunk().await {
            Ok(None) => return Ok(body),
            Ok(Some(chunk)) if body.len().saturating_add(chunk.len()) <= ANSWER_BYTES_MAX => body.extend(chunk),
            Ok(Some(_)) => return Err(HostError::Answer(format!("more than {ANSWER_BYTES_MAX} bytes"))),
            Err(error) => return Err(HostError::Unreachable(first_cause(&error))),
        }
    }
}

fn retry_after(response: &Response) -> Duration {
    let header = response.headers().get(RETRY_AFTER);
    let seconds = header.and_then(|value| value.to_str().ok()?.parse().ok()).unwrap_or(1);
    Duration::from_secs(seconds).min(RETRY_AFTER_MAX)
}

/// reqwest's own sentence names only the URL; why it failed is in the innermost cause.
fn first_cause(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    match error.is_timeout() {
        true => "time-out".into(),
        false => cause.to_string(),
    }
}
