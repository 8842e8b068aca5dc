//! What hosts of one chain believe of each other.

use std::time::Duration;

use client::Wallet;
use inference_host::chain::OpenedSession;
use lane::proto::{boundary::Content, lane_client::LaneClient, Boundary, BoundaryHeader, Code};
use partition::{row, Tensor};
use schema::{
    merkle,
    receipt::Outcome,
    session::{SessionReceipt, SignedSessionReceipt},
    Digest, Signature,
};
use tonic::{Code as Grpc, Status};

use super::client::{request, units, Attendant};
use crate::kit::{Market, Provider};

/// A boundary of stage 0 for three positions.
fn boundary() -> Vec<Vec<u8>> {
    let first = Tensor::from_f32(vec![3, 4], &[0.5; 12]).unwrap();
    let mask = Tensor::from_i64(vec![3], &[1, 1, 1]).unwrap();
    vec![row::encode(&[first, mask]).unwrap()]
}

/// A push as it should be, to be changed by a test.
#[derive(Debug, Clone)]
struct Push {
    header: BoundaryHeader,
    receipt: SessionReceipt,
    signer: Wallet,
    rows: Vec<Vec<u8>>,
}

impl Push {
    fn new(opened: &OpenedSession, first: &Provider, given: Digest) -> Push {
        let rows = boundary();
        Push {
            header: BoundaryHeader {
                session: 1,
                number: 1,
                from: 1,
                to: 2,
                rows: 1,
                bytes: rows.iter().map(|row| row.len() as u64).sum(),
                receipt: vec![],
            },
            receipt: SessionReceipt {
                domain: opened.domain.clone(),
                session: 1,
                deployment: 1,
                sequence: 1,
                request_digest: given,
                output_digest: merkle::root(&rows),
                tokens_digest: None,
                seed: None,
                units_in: 3,
                units_out: 0,
                outcome: Outcome::Done,
            },
            signer: first.key.clone(),
            rows,
        }
    }

    fn with(&self, change: impl FnOnce(&mut Push)) -> Push {
        let mut changed = self.clone();
        change(&mut changed);
        changed
    }

    async fn to(&self, provider: &Provider) -> Result<(), Status> {
        let signature = Signature(self.signer.sign_digest(&self.receipt.digest().0));
        let signed = SignedSessionReceipt {
            receipt: self.receipt.clone(),
            signature,
        };
        let header = BoundaryHeader {
            receipt: serde_json::to_vec(&signed).unwrap(),
            ..self.header.clone()
        };
        let frame = |content| Boundary { content: Some(content) };
        let rows = self.rows.iter().map(|row| frame(Content::Row(row.clone().into())));
        let frames: Vec<Boundary> = std::iter::once(frame(Content::Header(header))).chain(rows).collect();
        let mut client = LaneClient::connect(provider.public("")).await.unwrap();
        client.push(tokio_stream::iter(frames)).await.map(drop)
    }
}

/// A first host that does not run, and a second one that does, with its client.
async fn scene() -> (Market, Provider, Provider, OpenedSession, Attendant, Push) {
    let market = Market::new();
    let first = market.provider("first", 1, 0, 0);
    let mut second = market.provider("second", 2, 1, 2);
    second.start().await;
    let opened = market.session(&[(&first, 1, 0, 0), (&second, 2, 1, 2)]);
    let client = Attendant::at(&second, &opened, 2).await;
    let given = Digest(request(1, &[1, 2], &["hello"]).digest.try_into().unwrap());
    let push = Push::new(&opened, &first, given);
    (market, first, second, opened, client, push)
}

#[tokio::test]
async fn a_boundary_is_taken_once_from_whom_it_must_come_and_as_it_must_be() {
    let (_market, _first, second, _opened, mut client, push) = scene().await;
    let refused = push.to(&second).await.unwrap_err();
    assert_eq!(refused.code(), Grpc::NotFound, "nobody has announced it: {refused}");
    client.asks(request(1, &[1, 2], &["hello"])).await;
    let bad = [
        (
            push.with(|push| push.signer = Wallet::dev("mallory")),
            Grpc::PermissionDenied,
            "is not signed by host key",
        ),
        (
            push.with(|push| push.signer = Wallet::dev("second")),
            Grpc::PermissionDenied,
            "is not signed by host key",
        ),
        (
            push.with(|push| push.receipt.domain.chain_id = "other".into()),
            Grpc::PermissionDenied,
            "something else",
        ),
        (
            push.with(|push| push.receipt.sequence = 2),
            Grpc::PermissionDenied,
            "something else",
        ),
        (
            push.with(|push| push.receipt.session = 2),
            Grpc::PermissionDenied,
            "something else",
        ),
        (
            push.with(|push| {
                (push.header.from, push.receipt.deployment, push.signer) = (2, 2, Wallet::dev("second"));
            }),
            Grpc::PermissionDenied,
            "is not before",
        ),
        (
            push.with(|push| (push.header.from, push.receipt.deployment) = (9, 9)),
            Grpc::PermissionDenied,
            "not in the session",
        ),
        (
            push.with(|push| push.header.session = 9),
            Grpc::Unavailable,
            "not attended",
        ),
        (push.with(|push| push.header.to = 9), Grpc::Unavailable, "not attended"),
        (
            push.with(|push| push.receipt.request_digest = Digest([9; 32])),
            Grpc::InvalidArgument,
            "root",
        ),
        (
            push.with(|push| push.receipt.output_digest = Digest([9; 32])),
            Grpc::InvalidArgument,
            "root",
        ),
        (push.with(|push| push.header.rows = 2), Grpc::InvalidArgument, "rows"),
        (push.with(|push| push.header.bytes += 1), Grpc::InvalidArgument, "bytes"),
        (push.with(|push| push.header.bytes -= 1), Grpc::InvalidArgument, "bytes"),
        (push.with(|push| push.header.bytes = 1 << 40), Grpc::OutOfRange, "bytes"),
        (push.with(|push| push.rows.clear()), Grpc::InvalidArgument, "rows came"),
        (
            push.with(|push| push.receipt.units_in = 4),
            Grpc::InvalidArgument,
            "positions",
        ),
    ];
    for (index, (bad, code, words)) in bad.into_iter().enumerate() {
        let refused = bad.to(&second).await.unwrap_err();
        assert_eq!(refused.code(), code, "{index}: {refused}");
        assert!(refused.message().contains(words), "{index}: {refused}");
    }
    push.to(&second).await.unwrap();
    let receipt = client.receipt(1).await.receipt;
    assert_eq!(
        (receipt.request_digest, receipt.units_in),
        (push.receipt.output_digest, 3)
    );
    client.rows(1, 1).await;
    let refused = push.to(&second).await.unwrap_err();
    assert_eq!(refused.code(), Grpc::NotFound, "{refused}");
    client.pays(1, units(1, 3)).await;
    client.is_held(1).await;
    assert_eq!(second.metric("session_requests_done_total").await, 1);
}

#[tokio::test]
async fn a_push_may_be_a_moment_ahead_of_its_announcement() {
    let (_market, _first, second, _opened, mut client, push) = scene().await;
    let asks = async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        client.asks(request(1, &[1, 2], &["hello"])).await;
    };
    let (pushed, ()) = tokio::join!(push.to(&second), asks);
    pushed.unwrap();
    client.receipt(1).await;
}

#[tokio::test]
async fn rows_that_never_come_end_with_the_patience_and_take_no_credit() {
    let (_market, _first, second, _opened, mut client, push) = scene().await;
    client
        .asks(lane::proto::Request {
            patience_ms: 200,
            ..request(1, &[1, 2], &["hello"])
        })
        .await;
    client.stream.is_refused(Code::Late, "did not come").await;
    client.asks(request(2, &[1, 2], &["hello"])).await;
    client.cancels(2).await;
    client.asks(request(3, &[1, 2], &["hello"])).await;
    let push = push.with(|push| (push.header.number, push.receipt.sequence) = (3, 3));
    push.to(&second).await.unwrap();
    client.receipt(3).await;
}

#[tokio::test]
async fn a_neighbour_that_is_away_is_named_and_what_was_done_is_receipted_all_the_same() {
    let market = Market::new();
    let mut first = market.provider("first", 1, 0, 0);
    first.start().await;
    let second = market.provider("second", 2, 1, 2);
    let opened = market.session(&[(&first, 1, 0, 0), (&second, 2, 1, 2)]);
    let mut client = Attendant::at(&first, &opened, 1).await;
    let asked = lane::proto::Request {
        patience_ms: 1000,
        ..request(1, &[1, 2], &["hello"])
    };
    client.gives(asked, &["hello"]).await;
    client.receipt(1).await;
    client.stream.is_refused(Code::Neighbour, "deployment 2").await;
}
