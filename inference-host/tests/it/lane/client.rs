//! A client that says whatever a test wants it to say, and sessions on the chain of the tests.

use std::{collections::VecDeque, sync::Mutex, time::Duration};

use client::Wallet;
use cosmwasm_std::Uint128;
use inference_host::chain::OpenedSession;
use lane::{
    proto::{
        lane_client::LaneClient, to_client::Content as Said, to_host::Content as Heard, Cancel, Code, Hello, Leave,
        Refused, Request, Row, ToClient, ToHost, Welcome,
    },
    terms::Terms,
};
use reqwest::{Method, StatusCode};
use schema::{
    escrow::{AllocationResponse, AllocationState, SessionResponse},
    merkle,
    price::{FeeBps, RoyaltyRate, Units},
    receipt::Domain,
    session::{SessionHello, SignedSessionReceipt, SignedVoucher, Voucher},
    work::{HeldVouchers, SettlementNews, VoucherNews},
    Digest, PublicKey, Signature,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use crate::kit::{ask, now, Market, Provider};

/// Long enough for a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
pub(crate) const UNITS_MAX: u64 = 16;

pub(crate) fn session_key() -> Wallet {
    Wallet::dev("session")
}

/// A span of a provider: (provider, deployment, first stage, last stage).
pub(crate) type Spans<'a> = [(&'a Provider, u64, u8, u8)];

/// A session of ten minutes with so much for each.
pub(crate) fn opened(session: u64, spans: &Spans<'_>, amount: u128) -> OpenedSession {
    let at = now();
    let allocation = |(provider, deployment, first, last): &(&Provider, u64, u8, u8)| AllocationResponse {
        deployment: *deployment,
        provider: provider.address.clone(),
        host_key: PublicKey(provider.key.public_key()),
        first: *first,
        last: *last,
        compute_share_bps: 3333,
        ask: ask(),
        slot_bond: amount.into(),
        reservation_per_hour: Uint128::zero(),
        state: AllocationState::Open,
        amount: amount.into(),
        paid: Uint128::zero(),
        sequence: 0,
        units: Units::default(),
        reservation: Uint128::zero(),
        accrued: Uint128::zero(),
        joined_at: at,
        releasable_at: at + 605,
    };
    OpenedSession {
        domain: Domain {
            chain_id: "fxn-test-1".into(),
            contract: "wasm1escrow".into(),
        },
        session: SessionResponse {
            session,
            forced: None,
            owner: "wasm1developer".into(),
            model: "demo/tiny".parse().unwrap(),
            version: 1,
            endpoint: "embeddings".into(),
            session_key: PublicKey(session_key().public_key()),
            royalty: RoyaltyRate {
                royalty_bps: 1000,
                royalty_per_1k_units: Uint128::new(50),
            },
            gateway: None,
            fees: FeeBps::default(),
            units_per_request_max: UNITS_MAX,
            opened_at: at,
            expires_at: at + 600,
            close_notice_seconds: 5,
            allocations: spans.iter().map(allocation).collect(),
        },
    }
}

impl Market {
    /// Opens session 1 with a thousand FUNC for each.
    pub(crate) fn session(&self, spans: &Spans<'_>) -> OpenedSession {
        let opened = opened(1, spans, 1_000_000_000);
        self.put(&opened);
        opened
    }

    /// What the chain says of the session from now on.
    pub(crate) fn put(&self, opened: &OpenedSession) {
        let mut facts = self.chain.0.lock().unwrap();
        facts.sessions.insert(opened.session.session, opened.clone());
    }
}

/// The contract's part in settling: a voucher that comes is paid.
pub(crate) fn settle(opened: &mut OpenedSession, signed: &SignedVoucher) {
    let voucher = signed.voucher;
    assert!(client::verify_digest(
        opened.session.session_key.as_bytes(),
        &voucher.digest(&opened.domain).0,
        signed.signature.as_bytes()
    ));
    let mut allocations = opened.session.allocations.iter_mut();
    let own = allocations.find(|own| own.deployment == voucher.deployment).unwrap();
    assert!(voucher.amount > own.paid && voucher.amount <= own.amount);
    own.sequence = own.sequence.max(voucher.sequence);
    (own.units, own.paid) = (voucher.units(), voucher.amount);
}

pub(crate) fn units(rows: u64, units_in: u64) -> Units {
    Units {
        requests: rows,
        units_in,
        units_out: 0,
    }
}

/// Pays in full for these counters.
pub(crate) fn voucher(opened: &OpenedSession, deployment: u64, sequence: u64, units: Units) -> SignedVoucher {
    let (terms, _) = Terms::of(opened.domain.clone(), &opened.session, deployment).unwrap();
    signed(
        opened,
        Voucher {
            session: opened.session.session,
            deployment,
            sequence,
            requests: units.requests,
            units_in: units.units_in,
            units_out: units.units_out,
            amount: terms.price(units).unwrap(),
        },
    )
}

pub(crate) fn signed(opened: &OpenedSession, voucher: Voucher) -> SignedVoucher {
    let signature = Signature(session_key().sign_digest(&voucher.digest(&opened.domain).0));
    SignedVoucher { voucher, signature }
}

/// A request for texts, as it should be.
pub(crate) fn request(number: u64, chain: &[u64], texts: &[&str]) -> Request {
    Request {
        number,
        chain: chain.to_vec(),
        rows: texts.len() as u32,
        bytes: texts.iter().map(|text| text.len() as u64).sum(),
        digest: merkle::root(texts).0.to_vec(),
        patience_ms: 20_000,
    }
}

/// An open stream.
#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) out: mpsc::Sender<ToHost>,
    // So that a stream may be lent to another thread.
    heard: Mutex<Streaming<ToClient>>,
    /// Heard and not looked at yet.
    early: VecDeque<Said>,
    pub(crate) nonce: Digest,
}

/// A client that is welcome.
#[derive(Debug)]
pub(crate) struct Attendant {
    pub(crate) stream: Stream,
    pub(crate) opened: OpenedSession,
    pub(crate) deployment: u64,
    pub(crate) welcome: Welcome,
}

impl Stream {
    /// Opens one and hears the challenge. None: nobody is there.
    pub(crate) async fn open(url: &str) -> Option<Stream> {
        let endpoint = tonic::transport::Endpoint::from_shared(url.to_owned()).unwrap();
        let channel = endpoint.connect_timeout(PATIENCE).connect().await.ok()?;
        let (out, said) = mpsc::channel(64);
        let heard = LaneClient::new(channel).attend(ReceiverStream::new(said)).await.ok()?;
        let mut stream = Stream {
            out,
            heard: Mutex::new(heard.into_inner()),
            early: VecDeque::new(),
            nonce: Digest([0; 32]),
        };
        match stream.next().await? {
            Said::Challenge(challenge) => stream.nonce = Digest(challenge.nonce.try_into().unwrap()),
            other => stream.early.push_back(other),
        }
        Some(stream)
    }

    pub(crate) async fn say(&self, content: Heard) -> bool {
        let content = Some(content);
        self.out.send(ToHost { content }).await.is_ok()
    }

    /// What comes next. None: the stream has ended.
    pub(crate) async fn next(&mut self) -> Option<Said> {
        if let Some(early) = self.early.pop_front() {
            return Some(early);
        }
        let message = tokio::time::timeout(PATIENCE, self.heard.get_mut().unwrap().message()).await;
        message.expect("the host says something in time").ok()??.content
    }

    /// The first that fits; what does not stays for later.
    pub(crate) async fn find<R>(&mut self, mut fits: impl FnMut(&Said) -> Option<R>) -> Option<R> {
        let mut passed = VecDeque::new();
        let found = loop {
            let Some(said) = self.next().await else { break None };
            match fits(&said) {
                Some(found) => break Some(found),
                None => passed.push_back(said),
            }
        };
        passed.append(&mut self.early);
        self.early = passed;
        found
    }

    pub(crate) async fn refusal(&mut self) -> Refused {
        let refused = self.find(|said| match said {
            Said::Refused(refused) => Some(refused.clone()),
            _ => None,
        });
        refused.await.expect("a refusal")
    }

    pub(crate) async fn is_refused(&mut self, code: Code, words: &str) {
        let refused = self.refusal().await;
        assert_eq!(refused.code(), code, "{refused:?}");
        assert!(refused.reason.contains(words), "{refused:?} does not say {words:?}");
    }

    pub(crate) async fn hello(
        &self,
        key: &Wallet,
        opened: &OpenedSession,
        session: u64,
        deployment: u64,
        nonce: Digest,
    ) {
        let hello = SessionHello {
            session,
            deployment,
            nonce,
        };
        let signature = key.sign_digest(&hello.digest(&opened.domain).0).to_vec();
        let hello = Hello {
            session,
            deployment,
            signature,
        };
        self.say(Heard::Hello(hello)).await;
    }
}

impl Attendant {
    /// Attends, as it should. None: the host is not there, or went away.
    pub(crate) async fn try_at(url: &str, opened: &OpenedSession, deployment: u64) -> Option<Attendant> {
        let mut stream = Stream::open(url).await?;
        let (key, session, nonce) = (session_key(), opened.session.session, stream.nonce);
        stream.hello(&key, opened, session, deployment, nonce).await;
        match stream.next().await? {
            Said::Welcome(welcome) => Some(Attendant {
                stream,
                opened: opened.clone(),
                deployment,
                welcome,
            }),
            other => panic!("not welcome: {other:?}"),
        }
    }

    pub(crate) async fn at(provider: &Provider, opened: &OpenedSession, deployment: u64) -> Attendant {
        let attendant = Self::try_at(&provider.public(""), opened, deployment).await;
        attendant.expect("the host is there")
    }

    pub(crate) async fn asks(&self, request: Request) -> bool {
        self.stream.say(Heard::Request(request)).await
    }

    /// A request whose rows follow.
    pub(crate) async fn gives(&self, request: Request, texts: &[&str]) -> bool {
        let number = request.number;
        let mut said = self.asks(request).await;
        for text in texts {
            let bytes = text.as_bytes().to_vec().into();
            said &= self.stream.say(Heard::Row(Row { number, bytes })).await;
        }
        said
    }

    /// One whole request to this host alone.
    pub(crate) async fn asks_for(&self, number: u64, texts: &[&str]) -> bool {
        self.gives(request(number, &[self.deployment], texts), texts).await
    }

    pub(crate) async fn pays(&self, sequence: u64, units: Units) {
        self.sends(&voucher(&self.opened, self.deployment, sequence, units))
            .await;
    }

    pub(crate) async fn sends(&self, voucher: &SignedVoucher) -> bool {
        self.stream
            .say(Heard::Voucher(serde_json::to_vec(voucher).unwrap()))
            .await
    }

    pub(crate) async fn cancels(&self, number: u64) {
        self.stream.say(Heard::Cancel(Cancel { number })).await;
    }

    pub(crate) async fn leaves(&self) {
        self.stream.say(Heard::Leave(Leave {})).await;
    }

    /// The receipt for a request, checked. None: the host went away.
    pub(crate) async fn try_receipt(&mut self, number: u64) -> Option<SignedSessionReceipt> {
        let found = self.stream.find(|said| match said {
            Said::Receipt(bytes) => {
                let signed: SignedSessionReceipt = serde_json::from_slice(bytes).unwrap();
                (signed.receipt.sequence == number).then_some(Ok(signed))
            }
            Said::Refused(refused) if refused.number == Some(number) => Some(Err(refused.clone())),
            _ => None,
        });
        let signed = found.await?.unwrap_or_else(|refused| panic!("{refused:?}"));
        let receipt = &signed.receipt;
        assert_eq!(
            (receipt.session, receipt.deployment),
            (self.opened.session.session, self.deployment)
        );
        assert_eq!(receipt.domain, self.opened.domain);
        let own = self
            .opened
            .session
            .allocations
            .iter()
            .find(|own| own.deployment == self.deployment);
        let host_key = own.unwrap().host_key;
        let digest = receipt.digest();
        assert!(client::verify_digest(
            host_key.as_bytes(),
            &digest.0,
            signed.signature.as_bytes()
        ));
        Some(signed)
    }

    pub(crate) async fn receipt(&mut self, number: u64) -> SignedSessionReceipt {
        self.try_receipt(number).await.expect("the host is there")
    }

    /// Output rows of a request, in order.
    pub(crate) async fn try_rows(&mut self, number: u64, rows: usize) -> Option<Vec<Vec<u8>>> {
        let mut all = vec![];
        while all.len() < rows {
            let row = self.stream.find(|said| match said {
                Said::Row(row) if row.number == number => Some(row.bytes.to_vec()),
                _ => None,
            });
            all.push(row.await?);
        }
        Some(all)
    }

    pub(crate) async fn rows(&mut self, number: u64, rows: usize) -> Vec<Vec<u8>> {
        self.try_rows(number, rows).await.expect("the host is there")
    }

    /// Waits until the host says that a voucher is safe.
    pub(crate) async fn is_held(&mut self, sequence: u64) {
        let held = self.stream.find(|said| match said {
            Said::Held(held) if held.sequence >= sequence => Some(()),
            _ => None,
        });
        held.await.expect("the host is there");
    }

    /// Asks, checks and pays; answers the units of it all.
    pub(crate) async fn buys(&mut self, number: u64, texts: &[&str], before: Units) -> Units {
        self.asks_for(number, texts).await;
        let receipt = self.receipt(number).await.receipt;
        let rows = self.rows(number, texts.len()).await;
        assert_eq!(merkle::root(&rows), receipt.output_digest);
        let after = units(before.requests + texts.len() as u64, before.units_in + receipt.units_in);
        self.pays(number, after).await;
        after
    }
}

impl Provider {
    fn token(&self) -> String {
        self.running.as_ref().unwrap().token().to_owned()
    }

    /// What the relayer hears.
    pub(crate) async fn held_vouchers(&self) -> HeldVouchers {
        let (status, body) = self.call(Method::GET, "/v1/vouchers", &self.token()).await;
        assert_eq!(status, StatusCode::OK, "{body}");
        serde_json::from_str(&body).unwrap()
    }

    /// What the relayer tells.
    pub(crate) async fn hears(&self, news: Vec<VoucherNews>) -> StatusCode {
        let url = format!("http://{}/v1/vouchers", self.running.as_ref().unwrap().status());
        let request = reqwest::Client::new().post(url).bearer_auth(self.token());
        let news = SettlementNews { vouchers: news };
        request.json(&news).send().await.unwrap().status()
    }
}

pub(crate) fn news(voucher: &SignedVoucher) -> VoucherNews {
    VoucherNews {
        session: voucher.voucher.session,
        deployment: voucher.voucher.deployment,
        sequence: voucher.voucher.sequence,
        refusal: None,
    }
}
