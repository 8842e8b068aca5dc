//! Subscriptions: one task a connection, pushing what its queries match.
//!
//! Guarantees: every event of a subscription carries the request's id and its query byte by byte, because clients route by
//! them; a connection that falls too far behind is told so and closed, never silently skipped.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use axum::extract::ws::{Message, WebSocket};
use serde_json::{json, Value};
use tokio::sync::broadcast::{error::RecvError, Receiver};

use crate::{
    comet,
    filter::{self, Filter},
    history::Block,
    methods::{self, internal, invalid, Failure},
    rpc::{finished, Context, Request},
};

/// The node's default for one connection.
const SUBSCRIPTIONS_MAX: usize = 5;
/// The node's default for clients with subscriptions.
const CLIENTS_MAX: u64 = 100;
/// Longest wait for a client to take a message.
const SEND_TIMEOUT: Duration = Duration::from_secs(30);

struct Subscription {
    id: Value,
    filter: Filter,
}

/// The connection is over.
struct Closed;

struct Connection {
    socket: WebSocket,
    context: Context,
    subscriptions: BTreeMap<String, Subscription>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        let metrics = &self.context.metrics;
        metrics.subscriptions_changed(self.subscriptions.len(), 0);
        metrics.client_went();
    }
}

/// Serves a connection until one side closes it or the node stops.
pub(crate) async fn serve(socket: WebSocket, context: Context) {
    let Ok(mut blocks) = context.service.call(|node| node.subscribe()).await else {
        return;
    };
    let stop = context.stop.clone();
    context.metrics.client_came();
    let mut connection = Connection {
        socket,
        context,
        subscriptions: BTreeMap::new(),
    };
    tokio::select! {
        () = stop.cancelled() => {}
        _ = connection.run(&mut blocks) => {}
    }
}

impl Connection {
    async fn run(&mut self, blocks: &mut Receiver<Arc<Block>>) -> Result<(), Closed> {
        loop {
            tokio::select! {
                message = self.socket.recv() => match message {
                    Some(Ok(Message::Text(text))) => self.request(text.as_str()).await?,
                    Some(Ok(Message::Binary(bytes))) => self.request(&String::from_utf8_lossy(&bytes)).await?,
                    // Pings are answered by the socket itself.
                    Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                    Some(Ok(Message::Close(_)) | Err(_)) | None => return Ok(()),
                },
                block = blocks.recv() => match block {
                    Ok(block) => self.push(&block).await?,
                    Err(RecvError::Closed) => return Ok(()),
                    Err(RecvError::Lagged(_)) => return self.cancel().await,
                },
            }
        }
    }

    async fn request(&mut self, text: &str) -> Result<(), Closed> {
        let answer = match serde_json::from_str(text) {
            Ok(request) => match Request::read(request) {
                Ok(request) => {
                    let id = request.id.clone();
                    finished(&id, self.perform(request).await)
                }
                Err(answer) => answer,
            },
            Err(error) => comet::error(&Value::Null, -32700, "Parse error. Invalid JSON", &error.to_string()),
        };
        self.send(&answer).await
    }

    async fn perform(&mut self, request: Request) -> Result<Value, Failure> {
        let Request { id, method, params } = request;
        let query = || params.text("query").ok_or_else(|| invalid("query is missing"));
        let before = self.subscriptions.len();
        match method.as_str() {
            "subscribe" => self.subscribe(id, query()?)?,
            "unsubscribe" => {
                let removed = self.subscriptions.remove(query()?);
                removed.ok_or_else(|| internal("subscription not found"))?;
            }
            "unsubscribe_all" => self.subscriptions.clear(),
            _ => return methods::call(&self.context, &method, params).await,
        }
        let after = self.subscriptions.len();
        self.context.metrics.subscriptions_changed(before, after);
        Ok(json!({}))
    }

    fn subscribe(&mut self, id: Value, query: &str) -> Result<(), Failure> {
        let filter = Filter::parse(query).map_err(internal)?;
        if self.subscriptions.contains_key(query) {
            return Err(internal("already subscribed"));
        }
        if self.subscriptions.len() >= SUBSCRIPTIONS_MAX {
            return Err(internal(format!(
                "max_subscriptions_per_client {SUBSCRIPTIONS_MAX} reached"
            )));
        }
        if self.subscriptions.is_empty() && !self.context.metrics.may_subscribe(CLIENTS_MAX) {
            return Err(internal(format!("max_subscription_clients {CLIENTS_MAX} reached")));
        }
        self.subscriptions.insert(query.to_owned(), Subscription { id, filter });
        Ok(())
    }

    async fn push(&mut self, block: &Block) -> Result<(), Closed> {
        if self.subscriptions.is_empty() {
            return Ok(());
        }
        let of_block = filter::of_block(block.height);
        let mut answers = vec![];
        for (query, Subscription { id, filter }) in &self.subscriptions {
            if filter.matches(&of_block) {
                let event = comet::block_event(query, &self.context.chain_id, block, &of_block);
                answers.push(comet::response(id, event));
            }
        }
        self.send_all(answers).await?;
        for (index, tx) in (0u32..).zip(&block.txs) {
            let attributes = filter::of_tx(tx, block.height);
            let matching = self
                .subscriptions
                .iter()
                .filter(|(_, it)| it.filter.matches(&attributes));
            let answers = matching.map(|(query, Subscription { id, .. })| {
                comet::response(id, comet::tx_event(query, block.height, index, tx, &attributes))
            });
            let answers = answers.collect();
            self.send_all(answers).await?;
        }
        Ok(())
    }

    async fn cancel(&mut self) -> Result<(), Closed> {
        let reason = "subscription was canceled (reason: client is not pulling messages fast enough)";
        let ids = self.subscriptions.values().map(|subscription| &subscription.id);
        let answers: Vec<Value> = ids.map(|id| comet::error(id, -32000, "Server error", reason)).collect();
        answers
            .iter()
            .for_each(|_| self.context.metrics.subscription_canceled());
        self.send_all(answers).await?;
        Err(Closed)
    }

    async fn send_all(&mut self, answers: Vec<Value>) -> Result<(), Closed> {
        for answer in answers {
            self.send(&answer).await?;
        }
        Ok(())
    }

    async fn send(&mut self, answer: &Value) -> Result<(), Closed> {
        let sending = self.socket.send(Message::Text(answer.to_string().into()));
        match tokio::time::timeout(SEND_TIMEOUT, sending).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(Closed),
        }
    }
}
