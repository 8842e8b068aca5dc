//! A way to a node on which everything may go wrong that goes wrong between two machines: connections are reset, answers do not come, come twice,
//! come late, come from before, are cut off, or are somebody's error page.
//!
//! Each request draws its fault; a node that is stale or silent stays so for a while. Broadcasts get no old answers: a node that says it took what it
//! did not take is no fault but a lie.

use std::{
    collections::{BTreeMap, VecDeque},
    io,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use rand::{rngs::StdRng, Rng, SeedableRng};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
    time::Instant,
};

/// Requests and heads of requests are shorter.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Older answers that are kept of one question, and questions of which some are kept.
const PAST_ANSWERS: usize = 12;
const PAST_QUESTIONS: usize = 2_000;
/// Longest wait for the node's own answer.
const NODE_TIMEOUT: Duration = Duration::from_secs(20);

/// What goes wrong, each in thousandths of all requests or events.
#[derive(Debug, Clone, Default)]
pub struct Faults {
    /// Cut before the node has the request, and after it had it.
    pub reset: u32,
    pub reset_after: u32,
    /// Nothing is said for up to so many milliseconds, by everybody who asks meanwhile.
    pub stall: u32,
    pub stall_ms: u64,
    /// An error page, before and after the node had the request.
    pub error: u32,
    /// Half an answer.
    pub truncate: u32,
    /// Answers of before, for up to so many milliseconds.
    pub stale: u32,
    pub stale_ms: u64,
    /// Events that come twice, late by up to so many milliseconds, or not at all.
    pub duplicate: u32,
    pub late: u32,
    pub late_ms: u64,
    pub lost: u32,
    /// Nobody is let through.
    pub is_down: bool,
    /// What the node says its chain is.
    pub chain_id: Option<String>,
}

impl Faults {
    /// All of them, so that about one request in four meets one.
    pub fn all() -> Faults {
        Faults {
            reset: 40,
            reset_after: 40,
            stall: 8,
            stall_ms: 1_500,
            error: 50,
            truncate: 50,
            stale: 15,
            stale_ms: 600,
            duplicate: 200,
            late: 200,
            late_ms: 700,
            lost: 100,
            ..Faults::default()
        }
    }
}

#[derive(Debug)]
struct Shared {
    /// `host:port` of the node.
    node: String,
    faults: Mutex<Faults>,
    rng: Mutex<StdRng>,
    past: Mutex<BTreeMap<String, VecDeque<Value>>>,
    stale_until: Mutex<Option<Instant>>,
    silent_until: Mutex<Option<Instant>>,
    /// How often each method was asked, and each fault met.
    counts: Mutex<BTreeMap<String, u64>>,
    /// Requests under way, and the most that ever were at the same time.
    under_way: Mutex<(usize, usize)>,
    http: reqwest::Client,
}

#[derive(Debug)]
pub struct Proxy {
    pub url: String,
    shared: Arc<Shared>,
    server: JoinHandle<()>,
}

/// What happens to one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Pass,
    Reset,
    ResetAfter,
    Error,
    ErrorAfter,
    Truncate,
    TruncateInside,
}

impl Proxy {
    /// A way to the node at `host:port`, without faults so far.
    pub async fn start(node: &str, seed: u64) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let shared = Arc::new(Shared {
            node: node.trim_start_matches("http://").trim_end_matches('/').to_owned(),
            faults: Mutex::default(),
            rng: Mutex::new(StdRng::seed_from_u64(seed)),
            past: Mutex::default(),
            stale_until: Mutex::default(),
            silent_until: Mutex::default(),
            counts: Mutex::default(),
            under_way: Mutex::default(),
            http: reqwest::Client::builder()
                .no_proxy()
                .timeout(NODE_TIMEOUT)
                .build()
                .unwrap(),
        });
        let serving = shared.clone();
        let server = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let shared = serving.clone();
                // An end of a connection is no error of anybody.
                tokio::spawn(async move { shared.serve(stream).await.ok() });
            }
        });
        Proxy { url, shared, server }
    }

    pub fn set(&self, faults: Faults) {
        *self.shared.faults.lock().unwrap() = faults;
        *self.shared.stale_until.lock().unwrap() = None;
        *self.shared.silent_until.lock().unwrap() = None;
    }

    /// From now on every question gets the answer that it got first, for so long.
    pub fn goes_stale(&self, time: Duration) {
        *self.shared.stale_until.lock().unwrap() = Some(Instant::now() + time);
    }

    /// From now on nobody gets an answer, for so long.
    pub fn falls_silent(&self, time: Duration) {
        *self.shared.silent_until.lock().unwrap() = Some(Instant::now() + time);
    }

    /// The most requests that were under way at the same time.
    pub fn most_under_way(&self) -> usize {
        self.shared.under_way.lock().unwrap().1
    }

    /// How often each method was asked, and each fault met.
    pub fn counts(&self) -> BTreeMap<String, u64> {
        self.shared.counts.lock().unwrap().clone()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Shared {
    fn faults(&self) -> MutexGuard<'_, Faults> {
        self.faults.lock().unwrap()
    }

    fn count(&self, what: &str) {
        *self.counts.lock().unwrap().entry(what.to_owned()).or_default() += 1;
    }

    fn happens(&self, thousandths: u32) -> bool {
        thousandths > 0 && self.rng.lock().unwrap().gen_ratio(thousandths.min(1_000), 1_000)
    }

    fn up_to(&self, milliseconds: u64) -> Duration {
        Duration::from_millis(self.rng.lock().unwrap().gen_range(0..=milliseconds))
    }

    /// One connection, request after request.
    async fn serve(&self, mut stream: TcpStream) -> io::Result<()> {
        loop {
            let head = read_head(&mut stream).await?;
            if self.faults().is_down {
                return reset(stream);
            }
            if head.to_lowercase().contains("\nupgrade: websocket") {
                return self.subscribe(stream, &head).await;
            }
            let mut body = vec![0; content_length(&head)];
            stream.read_exact(&mut body).await?;
            self.silence().await;
            let fate = self.fate();
            self.count(&format!("{fate:?}"));
            match fate {
                Fate::Reset => return reset(stream),
                Fate::Error => {
                    respond(&mut stream, 500, b"<html>something went wrong</html>").await?;
                    continue;
                }
                _ => {}
            }
            let Some(answer) = self.answer(&body).await else {
                return reset(stream);
            };
            let answer = answer.to_string().into_bytes();
            match fate {
                Fate::ResetAfter => return reset(stream),
                Fate::ErrorAfter => respond(&mut stream, 502, b"bad gateway").await?,
                // Valid HTTP, half a sentence.
                Fate::TruncateInside => respond(&mut stream, 200, &answer[..answer.len() / 2]).await?,
                Fate::Truncate => {
                    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", answer.len());
                    stream.write_all(head.as_bytes()).await?;
                    stream.write_all(&answer[..answer.len() / 2]).await?;
                    return Ok(());
                }
                _ => respond(&mut stream, 200, &answer).await?,
            }
        }
    }

    fn fate(&self) -> Fate {
        let faults = self.faults().clone();
        let half = self.happens(500);
        if self.happens(faults.reset) {
            Fate::Reset
        } else if self.happens(faults.reset_after) {
            Fate::ResetAfter
        } else if self.happens(faults.error) {
            if half {
                Fate::Error
            } else {
                Fate::ErrorAfter
            }
        } else if self.happens(faults.truncate) {
            if half {
                Fate::Truncate
            } else {
                Fate::TruncateInside
            }
        } else {
            Fate::Pass
        }
    }

    /// Waits out the silence that there is, or that begins now.
    async fn silence(&self) {
        let faults = self.faults().clone();
        if self.happens(faults.stall) {
            let until = Instant::now() + self.up_to(faults.stall_ms);
            self.count("Stall");
            self.silent_until.lock().unwrap().replace(until);
        }
        let until = *self.silent_until.lock().unwrap();
        if let Some(until) = until {
            tokio::time::sleep_until(until).await;
        }
    }

    fn is_stale(&self) -> bool {
        let faults = self.faults().clone();
        let mut until = self.stale_until.lock().unwrap();
        if until.is_none_or(|until| until <= Instant::now()) {
            let begins = self.happens(faults.stale);
            *until = begins.then(|| Instant::now() + self.up_to(faults.stale_ms));
        }
        until.is_some()
    }

    /// The node's answer, or an older one. None: the node does not answer.
    async fn answer(&self, body: &[u8]) -> Option<Value> {
        let question: Value = serde_json::from_slice(body).ok()?;
        let method = question["method"].as_str().unwrap_or_default().to_owned();
        self.count(&method);
        let key = format!("{method} {}", question["params"]);
        let is_a_question = !method.starts_with("broadcast");
        if is_a_question && self.is_stale() {
            let oldest = self
                .past
                .lock()
                .unwrap()
                .get(&key)
                .and_then(|past| past.front().cloned());
            if let Some(mut old) = oldest {
                self.count("Stale");
                old["id"] = question["id"].clone();
                return Some(old);
            }
        }
        {
            let mut under_way = self.under_way.lock().unwrap();
            under_way.0 += 1;
            under_way.1 = under_way.1.max(under_way.0);
        }
        let answered = self.ask_the_node(body).await;
        self.under_way.lock().unwrap().0 -= 1;
        let mut answer = answered?;
        if let Some(chain_id) = &self.faults().chain_id {
            if method == "status" {
                answer["result"]["node_info"]["network"] = chain_id.as_str().into();
            }
        }
        if is_a_question {
            let mut past = self.past.lock().unwrap();
            if past.len() >= PAST_QUESTIONS {
                past.pop_first();
            }
            let answers = past.entry(key).or_default();
            answers.push_back(answer.clone());
            if answers.len() > PAST_ANSWERS {
                answers.pop_front();
            }
        }
        Some(answer)
    }

    async fn ask_the_node(&self, body: &[u8]) -> Option<Value> {
        let request = self.http.post(format!("http://{}/", self.node));
        let request = request.header("content-type", "application/json").body(body.to_vec());
        request.send().await.ok()?.json().await.ok()
    }

    /// A subscription: what goes to the node passes, what comes from it has its fate.
    async fn subscribe(&self, mut client: TcpStream, head: &str) -> io::Result<()> {
        self.count("websocket");
        let mut node = TcpStream::connect(&self.node).await?;
        node.write_all(head.as_bytes()).await?;
        let answer = read_head(&mut node).await?;
        client.write_all(answer.as_bytes()).await?;
        let (mut from_client, mut to_client) = client.split();
        let (from_node, mut to_node) = node.split();
        let mut from_node = BufReader::new(from_node);
        let outward = tokio::io::copy(&mut from_client, &mut to_node);
        let inward = async {
            loop {
                let frame = read_frame(&mut from_node).await?;
                let faults = self.faults().clone();
                if faults.is_down || self.happens(faults.reset) {
                    return Err(io::Error::from(io::ErrorKind::ConnectionReset));
                }
                if self.happens(faults.lost) {
                    self.count("lost event");
                    continue;
                }
                if self.happens(faults.late) {
                    self.count("late event");
                    tokio::time::sleep(self.up_to(faults.late_ms)).await;
                }
                to_client.write_all(&frame).await?;
                if self.happens(faults.duplicate) {
                    self.count("event twice");
                    to_client.write_all(&frame).await?;
                }
            }
        };
        tokio::select! {
            ended = outward => ended.map(drop),
            ended = inward => ended,
        }
    }
}

/// Ends a connection as a machine does that has forgotten it.
fn reset(stream: TcpStream) -> io::Result<()> {
    stream.set_zero_linger()
}

async fn read_head(stream: &mut TcpStream) -> io::Result<String> {
    let mut head = vec![];
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() >= HEAD_BYTES_MAX {
            return Err(io::Error::from(io::ErrorKind::InvalidData));
        }
        head.push(stream.read_u8().await?);
    }
    Ok(String::from_utf8_lossy(&head).into_owned())
}

fn content_length(head: &str) -> usize {
    let lines = head.lines().filter_map(|line| line.split_once(':'));
    let mut lengths = lines.filter(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    lengths.next().map_or(0, |(_, length)| length.trim().parse().unwrap())
}

async fn respond(stream: &mut TcpStream, code: u16, body: &[u8]) -> io::Result<()> {
    let head = format!(
        "HTTP/1.1 {code} So\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(body).await
}

/// One frame of a server, which has no mask.
async fn read_frame(stream: &mut (impl AsyncReadExt + Unpin)) -> io::Result<Vec<u8>> {
    let mut frame = vec![0; 2];
    stream.read_exact(&mut frame).await?;
    let extended = match frame[1] & 0x7f {
        126 => 2,
        127 => 8,
        _ => 0,
    };
    let mut length = vec![0; extended];
    stream.read_exact(&mut length).await?;
    let payload = match extended {
        0 => usize::from(frame[1] & 0x7f),
        _ => length.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte)),
    };
    frame.extend(length);
    let header = frame.len();
    frame.resize(header + payload, 0);
    stream.read_exact(&mut frame[header..]).await?;
    Ok(frame)
}
