//! One host: dialled, proven to, listened to; and dialled again, with growing pauses, when its stream has ended.

use std::{sync::Arc, time::Duration};

use rand::Rng;
use schema::{
    escrow::Consent,
    session::{SessionHello, SignedSessionReceipt},
    Digest,
};
use tokio::{sync::mpsc, time::timeout};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::{transport::Endpoint, Streaming};

use super::{Inner, Span};
use crate::proto::{
    lane_client::LaneClient, to_client::Content as Said, to_host::Content, Hello, Refused, ToClient, ToHost, Welcome,
};

const PAUSE_FIRST: Duration = Duration::from_millis(100);
const PAUSE_LONGEST: Duration = Duration::from_secs(10);
/// How often a quiet connection is looked at whether it is still there, and how long it may take to say so.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// How often it is looked whether the stream has to begin anew.
const LOOK: Duration = Duration::from_millis(100);

/// For as long as the driver lives.
pub(super) async fn attend(inner: Arc<Inner>, place: usize) {
    let Some(span) = inner.spans.get(place) else { return };
    let mut pause = PAUSE_FIRST;
    loop {
        let mut was_welcome = false;
        let reason = match converse(&inner, place, span, &mut was_welcome).await {
            Ok(()) => "its stream has ended".to_owned(),
            Err(reason) => reason,
        };
        let deployment = span.terms.deployment;
        tracing::debug!(deployment, reason, "a host of the session is not there");
        inner.ended(place, &format!("deployment {deployment}: {reason}"));
        pause = if was_welcome { PAUSE_FIRST } else { pause };
        // Half of it is drawn, so that clients do not return all at once.
        let drawn = pause.mul_f64(rand::thread_rng().gen_range(0.5..1.0));
        tokio::time::sleep(drawn).await;
        pause = pause.saturating_mul(2).min(PAUSE_LONGEST);
    }
}

async fn converse(inner: &Inner, place: usize, span: &Span, was_welcome: &mut bool) -> Result<(), String> {
    let limits = &inner.limits;
    let (sender, receiver) = mpsc::unbounded_channel();
    let opened = timeout(limits.connect, open(inner, span, receiver)).await;
    let mut stream = opened.map_err(|_| format!("no connection after {} s", limits.connect.as_secs()))??;
    let welcomed = timeout(limits.welcome, greet(inner, span, &sender, &mut stream)).await;
    let welcome = welcomed.map_err(|_| format!("no welcome after {} s", limits.welcome.as_secs()))?;
    let welcome = match welcome? {
        Ok(welcome) => welcome,
        Err(refused) => {
            let (code, reason) = (refused.code(), clean(refused.reason));
            inner.turned_away(place, code, &reason);
            return Err(reason);
        }
    };
    inner.welcomed(place, &welcome, sender)?;
    *was_welcome = true;
    loop {
        let said = tokio::select! {
            said = stream.message() => said,
            () = stale(inner, place) => return Err("it has counted something that we do not know of".into()),
        };
        match said.map_err(|status| status.message().to_owned())? {
            Some(message) => hear(inner, place, message)?,
            None => return Ok(()),
        }
    }
}

async fn open(
    inner: &Inner,
    span: &Span,
    receiver: mpsc::UnboundedReceiver<ToHost>,
) -> Result<Streaming<ToClient>, String> {
    let endpoint = Endpoint::from_shared(span.endpoint.clone())
        .map_err(|error| format!("{} cannot be dialled: {error}", span.endpoint))?;
    let channel = endpoint
        .connect_timeout(inner.limits.connect)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(1 << 20)
        .initial_connection_window_size(4 << 20)
        .connect()
        .await
        .map_err(|error| format!("{} does not answer: {error}", span.endpoint))?;
    let mut client = LaneClient::new(channel)
        .max_decoding_message_size(inner.limits.bytes_max)
        .max_encoding_message_size(inner.limits.bytes_max);
    let stream = client.attend(UnboundedReceiverStream::new(receiver)).await;
    Ok(stream.map_err(|status| status.message().to_owned())?.into_inner())
}

/// Proves that we have the session's key, over the random number of the host.
async fn greet(
    inner: &Inner,
    span: &Span,
    sender: &mpsc::UnboundedSender<ToHost>,
    stream: &mut Streaming<ToClient>,
) -> Result<Result<Welcome, Refused>, String> {
    let challenge = match next(stream).await? {
        Said::Challenge(challenge) => challenge,
        Said::Refused(refused) => return Ok(Err(refused)),
        _ => return Err("it did not begin with its challenge".into()),
    };
    let nonce: [u8; 32] = challenge
        .nonce
        .try_into()
        .map_err(|_| "its challenge does not have 32 bytes")?;
    let hello = SessionHello {
        session: inner.session,
        deployment: span.terms.deployment,
        nonce: Digest(nonce),
    };
    let hello = Hello {
        session: hello.session,
        deployment: hello.deployment,
        signature: inner.key.sign_digest(&hello.digest(&inner.domain).0).to_vec(),
    };
    // A stream that has ended says so to whoever reads it.
    let _ = sender.send(ToHost {
        content: Some(Content::Hello(hello)),
    });
    match next(stream).await? {
        Said::Welcome(welcome) => Ok(Ok(welcome)),
        Said::Refused(refused) => Ok(Err(refused)),
        _ => Err("it did not answer with a welcome".into()),
    }
}

async fn next(stream: &mut Streaming<ToClient>) -> Result<Said, String> {
    let message = stream.message().await.map_err(|status| status.message().to_owned())?;
    let said = message.ok_or("its stream has ended")?.content;
    said.ok_or_else(|| "it sent an empty message".to_owned())
}

async fn stale(inner: &Inner, place: usize) {
    loop {
        if inner.lock().links.get(place).is_some_and(|link| link.is_stale) {
            return;
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// An error ends the stream: the host says what no host says.
fn hear(inner: &Inner, place: usize, message: ToClient) -> Result<(), String> {
    let deployment = inner.spans.get(place).map_or(0, |span| span.terms.deployment);
    match message.content.ok_or("it sent an empty message")? {
        Said::Receipt(json) => {
            let signed: SignedSessionReceipt =
                serde_json::from_slice(&json).map_err(|error| format!("it sent no receipt: {error}"))?;
            inner.receipt(place, signed);
        }
        Said::Row(row) => inner.hear(row.number, |attempt| attempt.row(deployment, row.bytes)),
        Said::Refused(refused) => {
            let code = refused.code();
            match refused.number {
                Some(number) => inner.hear(number, |attempt| {
                    attempt.refused(deployment, code, clean(refused.reason), refused.retry_after_ms)
                }),
                None if inner.told_off(place, code, &clean(refused.reason.clone())) => {
                    return Err(clean(refused.reason));
                }
                None => {}
            }
        }
        Said::Consent(json) => {
            let consent: Result<Consent, _> = serde_json::from_slice(&json);
            inner.consented(place, consent.map_err(|error| format!("it sent no consent: {error}")));
        }
        Said::Held(held) => inner.held(place, held.sequence),
        Said::Challenge(_) | Said::Welcome(_) => return Err("it welcomed us twice".into()),
    }
    Ok(())
}

/// What a stranger says, short enough to be repeated.
fn clean(reason: String) -> String {
    const LETTERS_MAX: usize = 300;
    reason
        .chars()
        .filter(|letter| !letter.is_control())
        .take(LETTERS_MAX)
        .collect()
}
