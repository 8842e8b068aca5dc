//! Accepts connections, a bounded number of them, and drops those on which nothing happens.
//!
//! Guarantees: one connection too many is told so at once and closed, it neither waits nor takes memory; a connection on which for the idle time no
//! request began or ended and hardly a byte moved is closed, so that peers that trickle, stop reading or only answer pings keep no place; headers
//! are bounded in size, number and time; a stop lets open answers finish for a moment.

use std::{
    convert::Infallible,
    io,
    pin::Pin,
    sync::{
        atomic::{AtomicU64, Ordering},
        Arc,
    },
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    body::{Body, Bytes, HttpBody},
    http::{Request, Response},
    Router,
};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto::Builder,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use crate::metrics::Metrics;

/// Warm connections of neighbours are used more often than this; no wait of ours is longer.
const IDLE: Duration = Duration::from_secs(60);
/// Fewer bytes than this within the idle time are pings or a trickle.
const IDLE_BYTES: u64 = 4 << 10;
/// Longest time for the head of a request.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
const HEADERS_MAX: usize = 64;
const HEADER_BYTES_MAX: u32 = 16 << 10;
/// Requests at the same time on one HTTP/2 connection.
const STREAMS_MAX: u32 = 64;
/// Those who are being told that there is no place for them, and how long that may take.
const TURNED_AWAY_MAX: usize = 64;
const TURNED_AWAY_TIME: Duration = Duration::from_secs(1);
/// After a stop open answers have this long.
const STOP_PATIENCE: Duration = Duration::from_secs(1);
const FULL: &[u8] =
    b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\nconnection: close\r\ncontent-length: 25\r\n\r\n\
    too many open connections";

/// The connections of one address.
#[derive(Debug)]
pub(crate) struct Connections {
    free: Arc<Semaphore>,
    max: usize,
    turned_away: Arc<Semaphore>,
    idle: Duration,
}

impl Connections {
    pub(crate) fn new(max: usize) -> Arc<Self> {
        Arc::new(Self {
            free: Arc::new(Semaphore::new(max)),
            max,
            turned_away: Arc::new(Semaphore::new(TURNED_AWAY_MAX)),
            idle: IDLE,
        })
    }

    pub(crate) fn open(&self) -> usize {
        self.max.saturating_sub(self.free.available_permits())
    }

    /// Serves until the stop.
    pub(crate) async fn serve(
        &self,
        listener: TcpListener,
        router: Router,
        metrics: &Metrics,
        stop: CancellationToken,
    ) {
        loop {
            let stream = tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok((stream, _)) => stream,
                    Err(error) => {
                        tracing::warn!(%error, "a connection could not be accepted");
                        // Without file descriptors there is no use in trying at once.
                        tokio::time::sleep(Duration::from_millis(100)).await;
                        continue;
                    }
                },
                () = stop.cancelled() => return,
            };
            let Ok(place) = Arc::clone(&self.free).try_acquire_owned() else {
                metrics.connections_refused(1);
                self.turn_away(stream);
                continue;
            };
            let (router, stop, idle) = (router.clone(), stop.clone(), self.idle);
            tokio::spawn(async move {
                serve_one(stream, router, idle, stop).await;
                drop(place);
            });
        }
    }

    fn turn_away(&self, mut stream: TcpStream) {
        let Ok(place) = Arc::clone(&self.turned_away).try_acquire_owned() else {
            return;
        };
        let told = async move {
            // An answer that comes before the question is no answer to many clients.
            let _asked = stream.read(&mut [0; 1024]).await?;
            stream.write_all(FULL).await?;
            stream.shutdown().await?;
            // What the peer has sent already is read, or closing would take the answer away from it.
            tokio::io::copy(&mut stream.take(1 << 16), &mut tokio::io::sink()).await
        };
        tokio::spawn(async move {
            let _ = tokio::time::timeout(TURNED_AWAY_TIME, told).await;
            drop(place);
        });
    }
}

async fn serve_one(stream: TcpStream, router: Router, idle: Duration, stop: CancellationToken) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "small answers will be slow");
    }
    let activity = Arc::new(Activity::default());
    let counted = Arc::clone(&activity);
    let service = service_fn(move |request: Request<Incoming>| answer(router.clone(), request, Arc::clone(&counted)));
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_headers(HEADERS_MAX)
        .max_buf_size(64 << 10);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(HEADER_BYTES_MAX)
        .initial_stream_window_size(1 << 20)
        .initial_connection_window_size(4 << 20)
        .keep_alive_interval(Some(Duration::from_secs(30)))
        .keep_alive_timeout(Duration::from_secs(20));
    let stream = Connection {
        stream,
        activity: Arc::clone(&activity),
    };
    let connection = builder.serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    tokio::select! {
        served = connection.as_mut() => {
            if let Err(error) = served {
                tracing::debug!(%error, "a connection ended early");
            }
            return;
        }
        () = activity.ends(idle) => {}
        () = stop.cancelled() => {}
    }
    connection.as_mut().graceful_shutdown();
    let _ = tokio::time::timeout(STOP_PATIENCE, connection).await;
}

async fn answer(
    router: Router,
    mut request: Request<Incoming>,
    activity: Arc<Activity>,
) -> Result<Response<Body>, Infallible> {
    request.extensions_mut().insert(OnConnection(Arc::clone(&activity)));
    let open = Open::new(activity);
    let response = router.oneshot(request.map(Body::new)).await?;
    Ok(response.map(|body| Body::new(Answering { body, _open: open })))
}

/// What happens on a connection.
#[derive(Debug, Default)]
struct Activity {
    /// Requests begun and ended.
    requests: AtomicU64,
    /// Bytes in both directions.
    bytes: AtomicU64,
    /// Streams whose peer has proven who it is: they may be silent.
    held: AtomicU64,
}

/// The connection of a request, for whoever may be silent on it.
#[derive(Debug, Clone)]
pub(crate) struct OnConnection(Arc<Activity>);

impl OnConnection {
    /// Keeps the connection, however little happens on it, until this is dropped. The other side still has to answer pings.
    pub(crate) fn hold(&self) -> Held {
        self.0.held.fetch_add(1, Ordering::Relaxed);
        Held(Arc::clone(&self.0))
    }
}

#[derive(Debug)]
pub(crate) struct Held(Arc<Activity>);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.held.fetch_sub(1, Ordering::Relaxed);
        self.0.requests.fetch_add(1, Ordering::Relaxed);
    }
}

impl Activity {
    /// Waits until nothing has happened for the time.
    async fn ends(&self, idle: Duration) {
        let seen = || {
            (
                self.requests.load(Ordering::Relaxed),
                self.bytes.load(Ordering::Relaxed),
            )
        };
        let mut before = seen();
        loop {
            tokio::time::sleep(idle).await;
            let now = seen();
            let held = self.held.load(Ordering::Relaxed) > 0;
            if !held && now.0 == before.0 && now.1.saturating_sub(before.1) < IDLE_BYTES {
                return;
            }
            before = now;
        }
    }
}

/// A request that has begun. Dropping it ends it.
#[derive(Debug)]
struct Open(Arc<Activity>);

impl Open {
    fn new(activity: Arc<Activity>) -> Self {
        activity.requests.fetch_add(1, Ordering::Relaxed);
        Self(activity)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.requests.fetch_add(1, Ordering::Relaxed);
    }
}

/// An answer that counts as open until it is sent.
#[derive(Debug)]
struct Answering {
    body: Body,
    _open: Open,
}

impl HttpBody for Answering {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<hyper::body::Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> hyper::body::SizeHint {
        self.body.size_hint()
    }
}

/// A connection whose bytes are counted.
#[derive(Debug)]
struct Connection {
    stream: TcpStream,
    activity: Arc<Activity>,
}

impl Connection {
    fn count(&self, bytes: usize) {
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        self.activity.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    fn counted(&self, poll: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(bytes)) = &poll {
            self.count(*bytes);
        }
        poll
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let poll = Pin::new(&mut self.stream).poll_read(context, buffer);
        self.count(buffer.filled().len().saturating_sub(before));
        poll
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.counted(poll)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.counted(poll)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use axum::routing::get;

    use super::*;
    use crate::aside::Aside;

    /// Serves with so many places.
    async fn served(max: usize, idle: Duration) -> (SocketAddr, Arc<Connections>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut connections = Connections::new(max);
        Arc::get_mut(&mut connections).unwrap().idle = idle;
        let serving = Arc::clone(&connections);
        tokio::spawn(async move {
            let router = Router::new().route("/", get(|| async { "here" }));
            let metrics = Metrics::new(Aside::default());
            serving
                .serve(listener, router, &metrics, CancellationToken::new())
                .await;
        });
        (address, connections)
    }

    async fn ask(address: SocketAddr, head: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        // A peer that cuts us off may do so while we are still talking.
        let _ = stream.write_all(head.as_bytes()).await;
        let mut answer = Vec::new();
        let _ = tokio::time::timeout(Duration::from_secs(30), stream.read_to_end(&mut answer)).await;
        String::from_utf8_lossy(&answer).into_owned()
    }

    #[tokio::test]
    async fn one_connection_too_many_is_told_so_at_once_and_a_closed_one_makes_room() {
        let (address, connections) = served(2, IDLE).await;
        let mut kept = Vec::new();
        while connections.open() < 2 {
            kept.push(TcpStream::connect(address).await.unwrap());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let request = "GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
        for _ in 0..50 {
            let answer = ask(address, request).await;
            assert!(
                answer.starts_with("HTTP/1.1 503") && answer.contains("retry-after: 1"),
                "{answer}"
            );
            assert!(answer.ends_with("\r\n\r\ntoo many open connections"), "{answer}");
        }
        drop(kept);
        while connections.open() > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert!(ask(address, request).await.ends_with("here"));
    }

    #[tokio::test]
    async fn peers_that_say_nothing_or_trickle_are_cut_off() {
        let (address, connections) = served(8, Duration::from_millis(300)).await;
        let silent = TcpStream::connect(address).await.unwrap();
        let mut trickling = TcpStream::connect(address).await.unwrap();
        let trickle = async {
            for byte in b"GET / HTTP/1.1\r\nx: ".iter().chain(std::iter::repeat(&b'x')) {
                if trickling.write_all(&[*byte]).await.is_err() {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), trickle)
            .await
            .expect("it is cut off");
        while connections.open() > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        drop(silent);
    }

    #[tokio::test]
    async fn heads_without_end_are_refused() {
        let (address, _connections) = served(8, IDLE).await;
        let many = format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(HEADERS_MAX + 1));
        assert!(
            ask(address, &many).await.starts_with("HTTP/1.1 431"),
            "too many headers"
        );
        let huge = format!("GET / HTTP/1.1\r\na: {}\r\n\r\n", "b".repeat(1 << 20));
        assert!(ask(address, &huge).await.starts_with("HTTP/1.1 431"), "a huge header");
        let long = format!("GET /{} HTTP/1.1\r\n\r\n", "b".repeat(1 << 20));
        assert!(ask(address, &long).await.starts_with("HTTP/1.1 4"), "a huge address");
        assert!(ask(address, "GET / HTTP/1.1\r\nconnection: close\r\n\r\n")
            .await
            .ends_with("here"));
    }
}
