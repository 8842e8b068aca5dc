//! The control stream of a client: it proves the session's key, then it pays and asks.
//!
//! Guarantees: a stranger gets a challenge and a few seconds, and there are few strangers; a session has one stream, the newest that has proven
//! the key; what a client says is read one message at a time, and rows only of a request that was taken; whoever does not read is cut off.

use std::{pin::Pin, sync::Arc, time::Duration};

use futures::Stream;
use lane::{
    acceptor::VoucherError,
    proto::{
        lane_server::Lane as LaneApi, to_client::Content as Said, to_host::Content as Heard, Boundary, Challenge, Held,
        Hello, Pushed, ToClient, ToHost, Welcome,
    },
};
use prost::bytes::Bytes;
use rand::RngCore;
use schema::{
    session::{SessionHello, SignedVoucher},
    Digest, Signature,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::{request::Gathering, Denied, Member, Out};
use crate::{chain::ChainError, host::Host, listener::OnConnection};

/// For the answer to the challenge.
const HELLO_TIMEOUT: Duration = Duration::from_secs(5);
/// Messages on their way to one client. Whatever waits behind them waits with its own limit.
const OUT: usize = 16;
/// A signed voucher is a few hundred bytes of JSON.
const VOUCHER_BYTES_MAX: usize = 2048;

/// The lane service.
#[derive(Debug)]
pub(crate) struct LaneService {
    pub(super) host: Arc<Host>,
}

/// Why a stream ends.
enum End {
    /// It was closed, cut or replaced.
    Gone,
    /// The client is told why.
    Denied(Denied),
}

impl From<Denied> for End {
    fn from(denied: Denied) -> Self {
        Self::Denied(denied)
    }
}

impl LaneService {
    pub(crate) fn new(host: Arc<Host>) -> Self {
        Self { host }
    }
}

#[tonic::async_trait]
impl LaneApi for LaneService {
    type AttendStream = Pin<Box<dyn Stream<Item = Result<ToClient, Status>> + Send>>;

    async fn attend(&self, request: Request<Streaming<ToHost>>) -> Result<Response<Self::AttendStream>, Status> {
        let (out, said) = mpsc::channel(OUT);
        let host = Arc::clone(&self.host);
        let connection = request.extensions().get::<OnConnection>().cloned();
        let heard = request.into_inner();
        self.host.tasks.spawn(async move {
            let stop = host.stop.clone();
            tokio::select! {
                () = host.attend(heard, out, connection) => {}
                () = stop.cancelled() => {}
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(said))))
    }

    async fn push(&self, request: Request<Streaming<Boundary>>) -> Result<Response<Pushed>, Status> {
        let taken = self.host.receive_boundary(request.into_inner()).await;
        if taken.is_err() {
            self.host.metrics.pushes_refused(1);
        }
        taken.map(|()| Response::new(Pushed {}))
    }
}

async fn say(out: &Out, content: Said, patience: Duration) -> Result<(), End> {
    let content = Some(content);
    match tokio::time::timeout(patience, out.send(Ok(ToClient { content }))).await {
        Ok(Ok(())) => Ok(()),
        _ => Err(End::Gone),
    }
}

impl Host {
    async fn attend(self: &Arc<Self>, mut heard: Streaming<ToHost>, out: Out, connection: Option<OnConnection>) {
        let patience = self.config.io_timeout();
        let member = match self.meet(&mut heard, &out).await {
            Ok(member) => member,
            Err(end) => {
                self.metrics.session_strangers_refused(1);
                if let End::Denied(denied) = end {
                    tracing::debug!(reason = denied.reason, "a client is not welcome");
                    let _ = say(&out, denied.told(None), patience).await;
                }
                return;
            }
        };
        let _held = connection.as_ref().map(OnConnection::hold);
        let stream = self.lane.next_stream();
        let cut = member.attach(stream, out.clone());
        let ended = tokio::select! {
            ended = self.converse(&member, stream, &mut heard, &out) => ended,
            () = cut.cancelled() => End::Gone,
        };
        member.detach(stream);
        if let End::Denied(denied) = ended {
            tracing::debug!(session = member.key.0, reason = denied.reason, "a stream is ended");
            let _ = say(&out, denied.told(None), patience).await;
        }
    }

    /// Challenge and answer.
    async fn meet(&self, heard: &mut Streaming<ToHost>, out: &Out) -> Result<Arc<Member>, End> {
        let full = || {
            Denied::new(
                lane::proto::Code::Overloaded,
                "too many clients are proving who they are",
            )
        };
        let _place = self.lane.strangers.try_acquire().map_err(|_| full())?;
        let mut nonce = [0; 32];
        rand::rngs::OsRng.fill_bytes(&mut nonce);
        let challenge = Challenge { nonce: nonce.to_vec() };
        say(out, Said::Challenge(challenge), HELLO_TIMEOUT).await?;
        let hello = match tokio::time::timeout(HELLO_TIMEOUT, heard.message()).await {
            Ok(Ok(Some(ToHost {
                content: Some(Heard::Hello(hello)),
            }))) => hello,
            Ok(Ok(Some(_))) => return Err(Denied::invalid("it does not begin with a hello").into()),
            _ => return Err(End::Gone),
        };
        Ok(self.recognise(hello, Digest(nonce)).await?)
    }

    async fn recognise(&self, hello: Hello, nonce: Digest) -> Result<Arc<Member>, Denied> {
        let Hello {
            session,
            deployment,
            signature,
        } = hello;
        let signature: [u8; 64] = signature
            .try_into()
            .map_err(|_| Denied::invalid("a signature has 64 bytes"))?;
        let opened = self.chain.session(session).await.map_err(|error| match error {
            ChainError::Unreachable { .. } => Denied::failed(error),
            ChainError::Refused { .. } => Denied::session(format!("session {session} is not known: {error}")),
        })?;
        let said = SessionHello {
            session,
            deployment,
            nonce,
        };
        let (key, digest) = (opened.session.session_key, said.digest(&opened.domain));
        if !client::verify_digest(key.as_bytes(), &digest.0, Signature(signature).as_bytes()) {
            return Err(Denied::session(
                "the hello is not signed by the session key for this stream",
            ));
        }
        let member = self.lane.learn(self, (session, deployment), opened)?;
        let is_closed = member.lock().acceptor.standing().state == schema::escrow::AllocationState::Closed;
        match is_closed {
            true => Err(Denied::session("the allocation is closed")),
            false => Ok(member),
        }
    }

    fn welcome(&self, member: &Member) -> Welcome {
        let state = member.lock();
        let (kept, config) = (state.kept(), &self.config);
        Welcome {
            voucher: kept
                .best
                .map_or_else(Vec::new, |best| serde_json::to_vec(&best).unwrap_or_default()),
            requests: kept.counted.requests,
            units_in: kept.counted.units_in,
            units_out: kept.counted.units_out,
            credit_requests: config.credit_requests,
            rows_max: self.request_rows_max(),
            bytes_max: self.request_bytes_max(),
        }
    }

    /// Listens until the stream ends.
    async fn converse(
        self: &Arc<Self>,
        member: &Arc<Member>,
        stream: u64,
        heard: &mut Streaming<ToHost>,
        out: &Out,
    ) -> End {
        let patience = self.config.io_timeout();
        if let Err(end) = say(out, Said::Welcome(self.welcome(member)), patience).await {
            return end;
        }
        let mut talk = Talk {
            stream,
            gathering: None,
            newest: 0,
            unheld: None,
        };
        loop {
            // Rows that were begun come in time; whoever has nothing to say may be silent.
            let silence = talk.gathering.as_ref().map_or(Duration::MAX, |_| patience);
            let message = tokio::select! {
                message = heard.message() => message,
                () = self.held(&mut talk.unheld, out) => continue,
                () = tokio::time::sleep(silence), if talk.gathering.is_some() => {
                    return Denied::invalid("its rows do not come").into();
                }
            };
            let content = match message {
                Ok(Some(ToHost { content: Some(content) })) => content,
                Ok(Some(_)) => return Denied::invalid("a message is empty").into(),
                Ok(None) | Err(_) => return End::Gone,
            };
            if let Err(denied) = self.hear(member, &mut talk, content, out).await {
                return denied.into();
            }
        }
    }

    /// Tells the client that its voucher is safe, once it is.
    async fn held(&self, unheld: &mut Option<(u64, u64)>, out: &Out) {
        let Some((version, sequence)) = *unheld else {
            return std::future::pending().await;
        };
        let kept = self.lane.store.kept(version).await;
        *unheld = None;
        let content = match kept {
            Ok(()) => Said::Held(Held { sequence }),
            Err(trouble) => Denied::failed(trouble).told(None),
        };
        let _ = say(out, content, self.config.io_timeout()).await;
    }

    /// One message. An error ends the stream; whatever a client may do wrong honestly does not.
    async fn hear(
        self: &Arc<Self>,
        member: &Arc<Member>,
        talk: &mut Talk,
        content: Heard,
        out: &Out,
    ) -> Result<(), Denied> {
        let patience = self.config.io_timeout();
        match content {
            Heard::Hello(_) => return Err(Denied::invalid("a second hello")),
            Heard::Voucher(bytes) => match self.take_voucher(member, &bytes).await {
                Ok(unheld) => talk.unheld = unheld.or(talk.unheld),
                Err(denied) => {
                    self.metrics.session_vouchers_refused(1);
                    let _ = say(out, denied.told(None), patience).await;
                }
            },
            Heard::Request(request) => {
                let number = request.number;
                talk.newest = talk.newest.max(number);
                match self.ask(member, talk, request).await {
                    Ok(()) => {}
                    Err(denied) => {
                        self.metrics.session_requests_refused(1);
                        let _ = say(out, denied.told(Some(number)), patience).await;
                    }
                }
            }
            Heard::Row(row) => self.row(member, talk, row.number, row.bytes, out).await?,
            Heard::Cancel(cancel) => {
                talk.gathering.take_if(|gathering| gathering.number() == cancel.number);
                member.cancel(cancel.number);
            }
            Heard::Leave(_) => self.begin_to_leave(member),
        }
        Ok(())
    }

    async fn row(
        self: &Arc<Self>,
        member: &Arc<Member>,
        talk: &mut Talk,
        number: u64,
        bytes: Bytes,
        out: &Out,
    ) -> Result<(), Denied> {
        let Some(gathering) = talk.gathering.take_if(|gathering| gathering.number() == number) else {
            // Rows of a request that was refused or cancelled were on their way.
            return match number <= talk.newest {
                true => Ok(()),
                false => Err(Denied::invalid(format!(
                    "a row came for request {number}, which was not made"
                ))),
            };
        };
        match gathering.take(bytes) {
            Ok(gathering) if gathering.is_complete() => self.compute_given(member, gathering),
            Ok(gathering) => talk.gathering = Some(gathering),
            Err(denied) => {
                self.metrics.session_requests_refused(1);
                let _ = say(out, denied.told(Some(number)), self.config.io_timeout()).await;
            }
        }
        Ok(())
    }

    /// Takes a voucher. What is answered is to be told once it is safe.
    async fn take_voucher(&self, member: &Arc<Member>, bytes: &[u8]) -> Result<Option<(u64, u64)>, Denied> {
        let voucher = |reason: String| Denied::new(lane::proto::Code::Voucher, reason);
        if bytes.len() > VOUCHER_BYTES_MAX {
            let found = bytes.len();
            return Err(voucher(format!(
                "it has {found} bytes, at most {VOUCHER_BYTES_MAX} are allowed"
            )));
        }
        let signed: SignedVoucher = serde_json::from_slice(bytes).map_err(|error| voucher(error.to_string()))?;
        if member.lock().is_consented {
            return Err(Denied::session("the end of the session is agreed"));
        }
        let store = &self.lane.store;
        let mut accepted = member.accept(signed, store);
        if matches!(accepted, Err(VoucherError::Allocation { .. })) && self.look_again(member).await {
            // It may have been topped up.
            accepted = member.accept(signed, store);
        }
        let Some(version) = accepted? else {
            return Ok(None);
        };
        self.metrics.session_vouchers(1);
        member.date(self.clock.now());
        member.changed();
        Ok(Some((version, signed.voucher.sequence)))
    }
}

/// What a stream is in the middle of.
#[derive(Debug)]
pub(super) struct Talk {
    pub(super) stream: u64,
    /// The request whose rows come.
    pub(super) gathering: Option<Gathering>,
    /// Highest number that the client has named on this stream.
    newest: u64,
    /// Version in the store, and sequence, of a voucher that the client does not know to be safe.
    unheld: Option<(u64, u64)>,
}

impl From<Denied> for Status {
    fn from(denied: Denied) -> Self {
        use lane::proto::Code::{Failed, Invalid, Late, Overloaded, Session};
        let reason = denied.reason;
        match denied.code {
            Invalid => Self::invalid_argument(reason),
            Overloaded => Self::resource_exhausted(reason),
            Late => Self::deadline_exceeded(reason),
            Session => Self::permission_denied(reason),
            Failed => Self::unavailable(reason),
            _ => Self::failed_precondition(reason),
        }
    }
}
