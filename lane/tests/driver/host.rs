//! A host for tests: it follows the rules of the lane, computes by appending its number to each row, and lies when told to.

use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
    sync::{
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
        Arc, Mutex, MutexGuard, Weak,
    },
    time::Duration,
};

use client::Wallet;
use lane::{
    acceptor::{Acceptor, Kept},
    driver::Span,
    proto::{
        lane_server::{Lane, LaneServer},
        to_client::Content as Say,
        to_host::Content as Heard,
        Boundary, Challenge, Code, Held, Pushed, Refused, Request as Announced, Row, ToClient, ToHost, Welcome,
    },
    terms::{Standing, Terms},
};
use schema::{
    escrow::{AllocationState, Consent},
    merkle,
    price::{Ask, RoyaltyRate, Units},
    receipt::{Domain, Outcome},
    session::{CloseConsent, SessionHello, SessionReceipt, SignedSessionReceipt, SignedVoucher},
    Digest, PublicKey, Signature,
};
use tokio::{net::TcpListener, sync::mpsc};
use tokio_stream::wrappers::{TcpListenerStream, UnboundedReceiverStream};
use tonic::{Request, Response, Status, Streaming};

pub(crate) const SESSION: u64 = 7;
pub(crate) const UNITS_MAX: u64 = 64;

pub(crate) fn domain() -> Domain {
    Domain {
        chain_id: "fxn-local-1".into(),
        contract: "wasm1escrow".into(),
    }
}

pub(crate) fn session_key() -> Wallet {
    Wallet::dev("session")
}

/// What a host does otherwise than it should.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lie {
    /// Signed by another key.
    Forged,
    /// More units than there were.
    Units,
    /// Says that something else came in.
    Input,
    /// Sends something else than it has signed.
    Output,
    /// Signs, and hands nothing out.
    Withholds,
    /// Sends one row more.
    Overlong,
    /// Takes requests and says nothing.
    Silent,
    /// Refuses each.
    Refuses(Code),
    /// Sends everything twice.
    Twice,
    /// Ends its stream when a request comes.
    Dies,
    /// Says in its welcome that it has done more.
    Claims(u64),
    /// Shows a voucher that nobody has signed.
    Shows,
    /// Consents to something else.
    Consents,
    /// Never says that a voucher is safe.
    Forgetful,
}

pub(crate) struct Host {
    pub(crate) deployment: u64,
    pub(crate) key: Wallet,
    address: SocketAddr,
    stages: (u8, u8),
    world: Mutex<Weak<World>>,
    acceptor: Mutex<Acceptor>,
    lie: Mutex<Option<Lie>>,
    work: Mutex<BTreeMap<u64, Work>>,
    to_client: Mutex<Option<mpsc::UnboundedSender<Result<ToClient, Status>>>>,
    is_dead: AtomicBool,
    delay_ms: AtomicU64,
    credit: u32,
    pub(crate) announced: AtomicUsize,
    pub(crate) cancelled: AtomicUsize,
    pub(crate) at_once_max: AtomicUsize,
    pub(crate) done: AtomicUsize,
    /// Vouchers that were no vouchers.
    pub(crate) bad_vouchers: AtomicUsize,
}

#[derive(Debug, Default)]
struct Work {
    announced: Option<Announced>,
    rows: Vec<Vec<u8>>,
    before: Option<SignedSessionReceipt>,
}

#[derive(Default)]
pub(crate) struct World {
    pub(crate) hosts: HashMap<u64, Arc<Host>>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap()
}

fn terms(deployment: u64) -> Terms {
    Terms {
        domain: domain(),
        session: SESSION,
        deployment,
        session_key: PublicKey(session_key().public_key()),
        ask: Ask {
            per_1k_in: 1_500u128.into(),
            per_1k_out: 0u128.into(),
            per_request: 3u128.into(),
        },
        royalty: RoyaltyRate {
            royalty_bps: 1_250,
            royalty_per_1k_units: 70u128.into(),
        },
        gateway_bps: 0,
        compute_share_bps: 5_000,
        units_per_request_max: UNITS_MAX,
    }
}

fn standing(amount: u128) -> Standing {
    Standing {
        state: AllocationState::Open,
        amount: amount.into(),
        paid: 0u128.into(),
        sequence: 0,
        units: Units::default(),
    }
}

impl World {
    /// Hosts by deployment with their stages; what each has allocated; how many requests each does on credit.
    pub(crate) async fn of(hosts: &[(u64, (u8, u8))], allocated: u128, credit: u32) -> Arc<World> {
        let mut world = World::default();
        for (deployment, stages) in hosts {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let host = Arc::new(Host {
                deployment: *deployment,
                key: Wallet::dev(&format!("host-{deployment}")),
                address: listener.local_addr().unwrap(),
                stages: *stages,
                world: Mutex::default(),
                acceptor: Mutex::new(Acceptor::new(terms(*deployment), standing(allocated), credit, None)),
                lie: Mutex::default(),
                work: Mutex::default(),
                to_client: Mutex::default(),
                is_dead: AtomicBool::new(false),
                delay_ms: AtomicU64::new(0),
                credit,
                announced: AtomicUsize::new(0),
                cancelled: AtomicUsize::new(0),
                at_once_max: AtomicUsize::new(0),
                done: AtomicUsize::new(0),
                bad_vouchers: AtomicUsize::new(0),
            });
            let served = LaneServer::new(Service(Arc::clone(&host)));
            let server = tonic::transport::Server::builder().add_service(served);
            tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
            world.hosts.insert(*deployment, host);
        }
        let world = Arc::new(world);
        for host in world.hosts.values() {
            *locked(&host.world) = Arc::downgrade(&world);
        }
        world
    }

    pub(crate) fn host(&self, deployment: u64) -> &Arc<Host> {
        &self.hosts[&deployment]
    }

    /// As the chain would tell them to a client.
    pub(crate) fn spans(&self, allocated: u128) -> Vec<Span> {
        let mut hosts: Vec<_> = self.hosts.values().collect();
        hosts.sort_by_key(|host| host.deployment);
        let span = |host: &&Arc<Host>| Span {
            terms: terms(host.deployment),
            standing: standing(allocated),
            host_key: PublicKey(host.key.public_key()),
            first: host.stages.0,
            last: host.stages.1,
            engine_class: "test".into(),
            endpoint: format!("http://{}", host.address),
        };
        hosts.iter().map(span).collect()
    }
}

impl Host {
    pub(crate) fn lies(&self, lie: Option<Lie>) {
        *locked(&self.lie) = lie;
    }

    fn tells(&self, lie: Lie) -> bool {
        *locked(&self.lie) == Some(lie)
    }

    pub(crate) fn takes(&self, delay: Duration) {
        self.delay_ms
            .store(u64::try_from(delay.as_millis()).unwrap(), Ordering::SeqCst);
    }

    /// Its machine stops; what it kept stays.
    pub(crate) fn dies(&self) {
        self.is_dead.store(true, Ordering::SeqCst);
        *locked(&self.to_client) = None;
        locked(&self.work).clear();
        let mut acceptor = locked(&self.acceptor);
        let (terms, standing, kept) = (acceptor.terms().clone(), acceptor.standing(), acceptor.kept());
        *acceptor = Acceptor::new(terms, standing, self.credit, Some(kept));
    }

    pub(crate) fn comes_back(&self) {
        self.is_dead.store(false, Ordering::SeqCst);
    }

    /// Highest sequence that its chain has settled.
    pub(crate) fn settled(&self) -> u64 {
        locked(&self.acceptor).standing().sequence
    }

    pub(crate) fn kept(&self) -> Kept {
        locked(&self.acceptor).kept()
    }

    pub(crate) fn is_paid(&self) -> bool {
        locked(&self.acceptor).is_paid()
    }

    /// Promised by the best voucher, in ufunc.
    pub(crate) fn promised(&self) -> u128 {
        self.kept().best.map_or(0, |best| best.voucher.amount.u128())
    }

    /// What so much work costs here.
    pub(crate) fn price(&self, units: Units) -> u128 {
        terms(self.deployment).price(units).unwrap().u128()
    }

    fn say(&self, content: Say) {
        if let Some(sender) = &*locked(&self.to_client) {
            let _ = sender.send(Ok(ToClient { content: Some(content) }));
        }
    }

    fn refuse(&self, number: Option<u64>, code: Code, reason: impl ToString) {
        self.say(Say::Refused(Refused {
            number,
            code: code.into(),
            reason: reason.to_string(),
            retry_after_ms: 10,
        }));
    }

    fn hear(self: &Arc<Self>, heard: Heard) {
        match heard {
            Heard::Hello(_) => self.refuse(None, Code::Session, "twice"),
            Heard::Voucher(json) => {
                let signed: SignedVoucher = serde_json::from_slice(&json).unwrap();
                let taken = locked(&self.acceptor).accept(signed);
                match taken {
                    Ok(true) if !self.tells(Lie::Forgetful) => self.say(Say::Held(Held {
                        sequence: signed.voucher.sequence,
                    })),
                    Ok(_) => {}
                    Err(error) => {
                        self.bad_vouchers.fetch_add(1, Ordering::SeqCst);
                        self.refuse(None, Code::Voucher, error);
                    }
                }
            }
            Heard::Request(request) => self.announced(request),
            Heard::Row(row) => {
                if let Some(work) = locked(&self.work).get_mut(&row.number) {
                    work.rows.push(row.bytes.to_vec());
                }
                self.begin(row.number);
            }
            Heard::Cancel(cancel) => {
                self.cancelled.fetch_add(1, Ordering::SeqCst);
                if locked(&self.work).remove(&cancel.number).is_some() {
                    (*locked(&self.acceptor)).drop(cancel.number);
                }
            }
            Heard::Leave(_) => self.leave(),
        }
    }

    fn announced(self: &Arc<Self>, request: Announced) {
        self.announced.fetch_add(1, Ordering::SeqCst);
        let number = request.number;
        let lie = *locked(&self.lie);
        match lie {
            Some(Lie::Refuses(code)) => return self.refuse(Some(number), code, "told to"),
            Some(Lie::Dies) => return self.dies(),
            _ => {}
        }
        let admitted = locked(&self.acceptor).admit(number, request.rows);
        if let Err(error) = admitted {
            let code = match &error {
                lane::acceptor::RequestError::Credit { .. } => Code::Credit,
                _ => Code::Invalid,
            };
            return self.refuse(Some(number), code, error);
        }
        let open = locked(&self.acceptor).open();
        self.at_once_max.fetch_max(open, Ordering::SeqCst);
        locked(&self.work).entry(number).or_default().announced = Some(request);
        self.begin(number);
    }

    /// Once everything is here.
    fn begin(self: &Arc<Self>, number: u64) {
        let mut all = locked(&self.work);
        let is_complete = all.get(&number).is_some_and(|work| {
            let is_first = self.stages.0 == 0;
            let wanted = work.announced.as_ref().map(|it| usize::try_from(it.rows).unwrap());
            wanted == Some(work.rows.len()) && (is_first || work.before.is_some())
        });
        if !is_complete {
            return;
        }
        let work = all.remove(&number).unwrap();
        drop(all);
        let host = Arc::clone(self);
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(host.delay_ms.load(Ordering::SeqCst))).await;
            host.run(number, work);
        });
    }

    fn run(self: &Arc<Self>, number: u64, work: Work) {
        if self.is_dead.load(Ordering::SeqCst) || self.tells(Lie::Silent) {
            return;
        }
        let announced = work.announced.unwrap();
        let input = merkle::root(&work.rows);
        let units_in = match &work.before {
            Some(before) => before.receipt.units_in,
            None => {
                assert_eq!(
                    input.0.to_vec(),
                    announced.digest,
                    "the rows are those that were announced"
                );
                work.rows.iter().map(|row| u64::try_from(row.len()).unwrap()).sum()
            }
        };
        let units = Units {
            requests: announced.rows.into(),
            units_in,
            units_out: 0,
        };
        {
            let mut acceptor = locked(&self.acceptor);
            if let Err(error) = acceptor.measure(number, units) {
                drop(acceptor);
                return self.refuse(Some(number), Code::Invalid, error);
            }
            if acceptor.finish(number).is_err() {
                return;
            }
        }
        self.done.fetch_add(1, Ordering::SeqCst);
        let append = |row: &Vec<u8>| [row.as_slice(), self.deployment.to_string().as_bytes()].concat();
        let mut output: Vec<Vec<u8>> = work.rows.iter().map(append).collect();
        let signed = self.receipt(number, input, merkle::root(&output), units_in);
        let times = if self.tells(Lie::Twice) { 2 } else { 1 };
        let position = announced.chain.iter().position(|it| *it == self.deployment).unwrap();
        let next = announced.chain.get(position + 1).copied();
        if self.tells(Lie::Output) {
            output[0].push(b'!');
        }
        for _ in 0..times {
            self.say(Say::Receipt(serde_json::to_vec(&signed).unwrap()));
        }
        if self.tells(Lie::Withholds) {
            return;
        }
        match next {
            Some(next) => {
                let world = locked(&self.world).upgrade();
                let taken = world.is_some_and(|world| world.host(next).pushed(number, output, signed));
                if !taken {
                    self.refuse(Some(number), Code::Neighbour, "the next one did not take it");
                }
            }
            None => {
                if self.tells(Lie::Overlong) {
                    output.insert(0, b"more".to_vec());
                }
                for bytes in output.into_iter().flat_map(|row| std::iter::repeat_n(row, times)) {
                    let bytes = bytes.into();
                    self.say(Say::Row(Row { number, bytes }));
                }
            }
        }
    }

    fn receipt(&self, number: u64, input: Digest, output: Digest, units_in: u64) -> SignedSessionReceipt {
        let receipt = SessionReceipt {
            domain: domain(),
            session: SESSION,
            deployment: self.deployment,
            sequence: number,
            request_digest: if self.tells(Lie::Input) { Digest([9; 32]) } else { input },
            output_digest: output,
            tokens_digest: None,
            seed: None,
            units_in: if self.tells(Lie::Units) { units_in + 1 } else { units_in },
            units_out: 0,
            outcome: Outcome::Done,
        };
        let key = if self.tells(Lie::Forged) {
            Wallet::dev("thief")
        } else {
            self.key.clone()
        };
        let signature = Signature(key.sign_digest(&receipt.digest().0));
        SignedSessionReceipt { receipt, signature }
    }

    /// What `Push` would bring. False: it is not taken.
    fn pushed(self: &Arc<Self>, number: u64, rows: Vec<Vec<u8>>, before: SignedSessionReceipt) -> bool {
        if self.is_dead.load(Ordering::SeqCst) || before.receipt.output_digest != merkle::root(&rows) {
            return false;
        }
        {
            let mut all = locked(&self.work);
            let work = all.entry(number).or_default();
            work.rows = rows;
            work.before = Some(before);
        }
        self.begin(number);
        true
    }

    /// Settles at once and consents.
    fn leave(&self) {
        let mut acceptor = locked(&self.acceptor);
        let best = acceptor.kept().best.map(|best| best.voucher);
        let mut standing = acceptor.standing();
        if let Some(best) = best {
            (standing.paid, standing.sequence, standing.units) = (best.amount, best.sequence, best.units());
        }
        acceptor.settled(standing);
        let lie = u64::from(self.tells(Lie::Consents));
        let consent = CloseConsent {
            session: SESSION,
            deployment: self.deployment,
            sequence: standing.sequence + lie,
        };
        drop(acceptor);
        let consent = Consent {
            deployment: self.deployment,
            signature: Signature(self.key.sign_digest(&consent.digest(&domain()).0)),
        };
        self.say(Say::Consent(serde_json::to_vec(&consent).unwrap()));
    }

    /// What the stream before this one has asked for, and was not begun, is not wanted any more.
    fn forgets(&self) {
        for (number, _) in std::mem::take(&mut *locked(&self.work)) {
            (*locked(&self.acceptor)).drop(number);
        }
    }

    fn welcome(&self) -> Welcome {
        let kept = self.kept();
        let mut best = kept.best;
        if let (true, Some(best)) = (self.tells(Lie::Shows), best.as_mut()) {
            best.voucher.requests += 5;
        }
        let claimed = match *locked(&self.lie) {
            Some(Lie::Claims(rows)) => rows,
            _ => 0,
        };
        Welcome {
            voucher: best.map_or_else(Vec::new, |best| serde_json::to_vec(&best).unwrap()),
            requests: kept.counted.requests + claimed,
            units_in: kept.counted.units_in + claimed,
            units_out: 0,
            credit_requests: self.credit,
            rows_max: 16,
            bytes_max: 4096,
        }
    }
}

struct Service(Arc<Host>);

#[tonic::async_trait]
impl Lane for Service {
    type AttendStream = UnboundedReceiverStream<Result<ToClient, Status>>;

    async fn attend(&self, request: Request<Streaming<ToHost>>) -> Result<Response<Self::AttendStream>, Status> {
        let host = Arc::clone(&self.0);
        if host.is_dead.load(Ordering::SeqCst) {
            return Err(Status::unavailable("dead"));
        }
        let mut heard = request.into_inner();
        let (sender, receiver) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            let nonce = vec![5; 32];
            let say = |content| sender.send(Ok(ToClient { content: Some(content) })).is_ok();
            say(Say::Challenge(Challenge { nonce }));
            let Ok(Some(ToHost {
                content: Some(Heard::Hello(hello)),
            })) = heard.message().await
            else {
                return;
            };
            let expected = SessionHello {
                session: SESSION,
                deployment: host.deployment,
                nonce: Digest([5; 32]),
            };
            let key = session_key().public_key();
            if !client::verify_digest(&key, &expected.digest(&domain()).0, &hello.signature) {
                say(Say::Refused(Refused {
                    number: None,
                    code: Code::Session.into(),
                    reason: "the session's key has not signed this".into(),
                    retry_after_ms: 0,
                }));
                return;
            }
            host.forgets();
            say(Say::Welcome(host.welcome()));
            *locked(&host.to_client) = Some(sender);
            while let Ok(Some(ToHost { content: Some(content) })) = heard.message().await {
                if host.is_dead.load(Ordering::SeqCst) {
                    return;
                }
                host.hear(content);
            }
        });
        Ok(Response::new(UnboundedReceiverStream::new(receiver)))
    }

    async fn push(&self, _: Request<Streaming<Boundary>>) -> Result<Response<Pushed>, Status> {
        Err(Status::unimplemented("hosts of tests push without a network"))
    }
}
