//! Hosts that are killed in the middle of a session, at every named place and at any moment; and who has lost what afterwards.
//!
//! Two processes serve one session: the first span and the last. The client is honest and forgets nothing; a relayer of a few lines settles on a
//! chain of a few lines. Guarantees that are looked for: a voucher that a host has called safe, or on which it has worked, is known to the process
//! that comes after; for each death nobody has lost more than the one request that was on credit; the chain has paid the price of the last voucher,
//! once; and the session can be ended.

use std::{
    collections::BTreeSet,
    fs,
    path::PathBuf,
    time::{Duration, Instant},
};

use inference_host::chain::OpenedSession;
use lane::proto::{to_client::Content as Said, Code};
use rand::{rngs::StdRng, Rng, SeedableRng};
use reqwest::Method;
use schema::{
    escrow::{Consent, VoucherRefusal},
    merkle,
    price::Units,
    session::{CloseConsent, SignedSessionReceipt, SignedVoucher},
    work::{HeldVouchers, SettlementNews},
};

use super::client::{news, opened, request, settle, units, voucher, Attendant};
use crate::{
    crash::{entries, seed, serve_blobs, slow, Death},
    kit::{Market, Provider},
    process::{ChainFile, Orders, Process, CLASS},
};

const TEXTS: [&str; 2] = ["hello world", "a b"];
/// Requests that have to be delivered.
const REQUESTS: u64 = 5;
const PATIENCE: Duration = Duration::from_secs(240);
const AT_ONCE: usize = 4;

/// What the client knows of one host.
#[derive(Debug, Default)]
struct Account {
    attendant: Option<Attendant>,
    /// Everything that was delivered here, or conceded.
    owed: Units,
    /// Of the newest voucher.
    sequence: u64,
    best: Option<SignedVoucher>,
    /// Of the voucher that must be known after any death.
    safe: u64,
    /// Requests that were paid for and not shown.
    conceded: u64,
    consent: Option<Consent>,
}

struct Story {
    _folder: tempfile::TempDir,
    _market: Market,
    hosts: [Process; 2],
    accounts: [Account; 2],
    chain: ChainFile,
    chain_path: PathBuf,
    death: Death,
    begun: Instant,
    number: u64,
    /// Units of one request, once it is known.
    price: Option<Units>,
}

impl Story {
    async fn new(death: Death) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let market = Market::new();
        let source = serve_blobs(market.tiny.folder.path()).await;
        let chain_path = folder.path().join("chain.json");
        let host = |name: &str| {
            Process::new(Orders {
                key: name.to_owned(),
                home: folder.path().join(name),
                chain: chain_path.clone(),
                source: source.clone(),
                error: 0.0,
                die: None,
                full: None,
            })
        };
        let mut hosts = [host("first"), host("last")];
        if let Death::At { role, point, visit } = &death {
            hosts[*role].orders.die = Some((point.clone(), *visit));
        }
        let doubles = ["first", "last"].map(|name| {
            let folder = inference_host::Source::Folder(market.tiny.folder.path().into());
            Provider::new(name, market.chain.clone(), folder)
        });
        doubles[0].deploy("demo/tiny", CLASS, 1, 0, 0);
        doubles[1].deploy("demo/tiny", CLASS, 2, 1, 2);
        let chain = ChainFile {
            input: vec![],
            assignments: vec![],
            sessions: vec![opened(
                1,
                &[(&doubles[0], 1, 0, 0), (&doubles[1], 2, 1, 2)],
                1_000_000_000,
            )],
            deployments: market.chain.0.lock().unwrap().deployments.clone(),
            manifest: Some(market.tiny.digest()),
            stages: market.tiny.stage_digests(),
            homes: hosts
                .iter()
                .map(|host| (host.address(), host.orders.home.clone()))
                .collect(),
            ahead_seconds: 0,
        };
        chain.write(&chain_path);
        Self {
            _folder: folder,
            _market: market,
            hosts,
            accounts: Default::default(),
            chain,
            chain_path,
            death,
            begun: Instant::now(),
            number: 0,
            price: None,
        }
    }

    fn opened(&self) -> OpenedSession {
        self.chain.sessions[0].clone()
    }

    async fn breathe(&mut self, what: &str) {
        if let Death::After { role, time } = self.death {
            if self.begun.elapsed() >= time {
                self.hosts[role].kill();
                self.death = Death::Never;
            }
        }
        for host in &mut self.hosts {
            host.revive();
        }
        assert!(
            self.begun.elapsed() < PATIENCE,
            "{what}: that never happened; {:?}",
            self.accounts
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }

    /// Attends wherever it does not. False: somebody is not there.
    async fn attend(&mut self) -> bool {
        let opened = self.opened();
        for role in 0..2 {
            if self.accounts[role].attendant.is_some() {
                continue;
            }
            let Some(file) = self.hosts[role].announced() else {
                return false;
            };
            if !self.is_at_rest(role).await {
                return false;
            }
            let url = format!("http://{}", file.listen);
            let deployment = role as u64 + 1;
            let Some(attendant) = Attendant::try_at(&url, &opened, deployment).await else {
                return false;
            };
            self.reconcile(role, attendant).await;
        }
        true
    }

    /// Whether a host serves, and works on nothing that was asked for in vain.
    async fn is_at_rest(&self, role: usize) -> bool {
        let ready = self.hosts[role].call(Method::GET, "/ready").await;
        let status = self.hosts[role].call(Method::GET, "/status").await;
        let (Some((reqwest::StatusCode::OK, _)), Some((_, status))) = (ready, status) else {
            return false;
        };
        let status: serde_json::Value = serde_json::from_str(&status).unwrap();
        let sessions = status["sessions"].as_array().unwrap();
        sessions.iter().all(|session| session["open_requests"] == 0)
    }

    /// What the host says it knows against what we know.
    async fn reconcile(&mut self, role: usize, attendant: Attendant) {
        let (welcome, account) = (&attendant.welcome, &mut self.accounts[role]);
        let settled = self.chain.sessions[0].session.allocations[role].sequence;
        let known = match welcome.voucher.as_slice() {
            [] => settled,
            bytes => {
                let best: SignedVoucher = serde_json::from_slice(bytes).unwrap();
                assert!(
                    best.voucher.sequence <= account.sequence,
                    "a voucher that nobody has signed"
                );
                best.voucher.sequence.max(settled)
            }
        };
        assert!(
            known >= account.safe,
            "voucher {} is forgotten, {known} is known",
            account.safe
        );
        let counted = units(welcome.requests, welcome.units_in);
        assert!(
            account.owed.requests <= counted.requests + TEXTS.len() as u64,
            "the host has lost more than one request"
        );
        if counted.requests > account.owed.requests {
            let rows = TEXTS.len() as u64;
            assert_eq!(
                counted.requests,
                account.owed.requests + rows,
                "one request at most is on credit"
            );
            account.owed = counted;
            account.conceded += 1;
            account.sequence += 1;
            let opened = self.chain.sessions[0].clone();
            account.best = Some(voucher(&opened, attendant.deployment, account.sequence, account.owed));
        }
        if let Some(best) = account.best.filter(|best| best.voucher.sequence > known) {
            attendant.sends(&best).await;
        }
        account.attendant = Some(attendant);
    }

    /// One request to both. False: somebody has not done its part, and all begin anew.
    async fn buy(&mut self) -> bool {
        self.number += 1;
        let number = self.number;
        let asked = request(number, &[1, 2], &TEXTS);
        let [first, last] = &self.accounts;
        let (first, last) = (first.attendant.as_ref().unwrap(), last.attendant.as_ref().unwrap());
        if !last.asks(asked.clone()).await || !first.gives(asked, &TEXTS).await {
            return false;
        }
        let mut output = None;
        for role in 0..2 {
            let Some(receipt) = self.outcome(role, number).await else {
                return false;
            };
            output = Some(receipt);
        }
        let expected = output.unwrap().receipt.output_digest;
        let attendant = self.accounts[1].attendant.as_mut().unwrap();
        let Some(rows) = attendant.try_rows(number, TEXTS.len()).await else {
            return false;
        };
        assert_eq!(merkle::root(&rows), expected);
        true
    }

    /// Waits for the receipt and pays. None: it does not come.
    async fn outcome(&mut self, role: usize, number: u64) -> Option<SignedSessionReceipt> {
        let opened = self.opened();
        let account = &mut self.accounts[role];
        let attendant = account.attendant.as_mut().unwrap();
        let found = attendant.stream.find(|said| match said {
            Said::Receipt(bytes) => Some(Ok(serde_json::from_slice::<SignedSessionReceipt>(bytes).unwrap())),
            Said::Refused(refused) => Some(Err(refused.clone())),
            _ => None,
        });
        let signed = match found.await? {
            Ok(signed) => signed,
            Err(refused) => {
                let may_be = [
                    Code::Credit,
                    Code::Failed,
                    Code::Neighbour,
                    Code::Late,
                    Code::Overloaded,
                ];
                assert!(may_be.contains(&refused.code()), "{refused:?}");
                return None;
            }
        };
        let receipt = &signed.receipt;
        assert_eq!(receipt.sequence, number);
        // What it has worked on the strength of must never be forgotten.
        account.safe = account.safe.max(account.sequence);
        let one = units(TEXTS.len() as u64, receipt.units_in);
        assert_eq!(*self.price.get_or_insert(one), one);
        account.owed = units(
            account.owed.requests + one.requests,
            account.owed.units_in + one.units_in,
        );
        account.sequence += 1;
        let best = voucher(&opened, attendant.deployment, account.sequence, account.owed);
        account.best = Some(best);
        attendant.sends(&best).await;
        Some(signed)
    }

    /// What a relayer does.
    async fn relay(&mut self) {
        for role in 0..2 {
            let answer = self.hosts[role].call(Method::GET, "/v1/vouchers").await;
            let Some((reqwest::StatusCode::OK, body)) = answer else {
                continue;
            };
            let held: HeldVouchers = serde_json::from_str(&body).unwrap();
            let mut told = vec![];
            for held in held.vouchers {
                let own = &self.chain.sessions[0].session.allocations[role];
                let is_stale = held.voucher.voucher.amount <= own.paid;
                if !is_stale {
                    settle(&mut self.chain.sessions[0], &held.voucher);
                    self.chain.write(&self.chain_path);
                }
                let mut news = news(&held.voucher);
                news.refusal = is_stale.then_some(VoucherRefusal::Stale);
                told.push(news);
            }
            if !told.is_empty() {
                self.hosts[role]
                    .tell_json("/v1/vouchers", &SettlementNews { vouchers: told })
                    .await;
            }
        }
    }

    /// Asks both for their consent until it is there.
    async fn leave(&mut self) {
        loop {
            self.breathe("everybody consents").await;
            if self.accounts.iter().all(|account| account.consent.is_some()) {
                return;
            }
            if !self.attend().await {
                continue;
            }
            for role in 0..2 {
                if self.accounts[role].consent.is_some() {
                    continue;
                }
                self.accounts[role].attendant.as_ref().unwrap().leaves().await;
                // The relayer has to come by in the meantime.
                for _ in 0..3 {
                    self.relay().await;
                }
                let attendant = self.accounts[role].attendant.as_mut().unwrap();
                let answer = attendant.stream.find(|said| match said {
                    Said::Consent(bytes) => Some(Some(bytes.clone())),
                    Said::Refused(_) => Some(None),
                    _ => None,
                });
                match tokio::time::timeout(Duration::from_secs(20), answer)
                    .await
                    .ok()
                    .flatten()
                {
                    Some(Some(bytes)) => self.accounts[role].consent = Some(serde_json::from_slice(&bytes).unwrap()),
                    // It is gone, or it has consented in an earlier life; either way it is asked anew.
                    _ => self.accounts[role].attendant = None,
                }
            }
        }
    }

    async fn tell(mut self) -> (Duration, [Vec<String>; 2]) {
        let mut bought = 0;
        while bought < REQUESTS {
            self.breathe("a request is delivered").await;
            if !self.attend().await {
                self.accounts.iter_mut().for_each(|account| account.attendant = None);
                continue;
            }
            match self.buy().await {
                true => bought += 1,
                // Everybody begins with what the others know.
                false => self.accounts.iter_mut().for_each(|account| account.attendant = None),
            }
            if bought == 3 {
                self.relay().await;
            }
        }
        let took = self.begun.elapsed();
        self.leave().await;
        self.relay().await;
        self.account_for(bought);
        for host in &mut self.hosts {
            host.kill();
            let left = entries(&host.orders.home.join("sessions"));
            assert_eq!(left, ["log"], "something is left with the vouchers");
        }
        if let Death::At { role, point, visit: 1 } = &self.death {
            assert!(self.hosts[*role].deaths > 0, "{point} was never come by: nobody died");
        }
        (took, self.hosts.each_ref().map(Process::visits))
    }

    /// Who has what in the end.
    fn account_for(&self, bought: u64) {
        let deaths = u64::from(self.hosts[0].deaths + self.hosts[1].deaths);
        let (rows, opened) = (TEXTS.len() as u64, self.opened());
        for (role, account) in self.accounts.iter().enumerate() {
            let own = &opened.session.allocations[role];
            let best = account.best.unwrap();
            // Paid is what the last voucher says, to the ufunc, however often and by whom it was settled.
            assert_eq!((own.sequence, own.paid), (best.voucher.sequence, best.voucher.amount));
            assert_eq!(
                own.paid,
                voucher(&opened, own.deployment, 1, account.owed).voucher.amount
            );
            let extra = account.owed.requests / rows - bought;
            assert!(
                extra <= deaths,
                "{extra} requests were paid for nothing in {deaths} deaths: {account:?}"
            );
            assert!(account.conceded <= deaths);
            let consent = account.consent.unwrap();
            let said = CloseConsent {
                session: 1,
                deployment: own.deployment,
                sequence: own.sequence,
            };
            let digest = said.digest(&opened.domain);
            assert!(client::verify_digest(
                own.host_key.as_bytes(),
                &digest.0,
                consent.signature.as_bytes()
            ));
        }
    }
}

fn points() -> impl Iterator<Item = &'static str> {
    let points = inference_host::POINTS.iter().copied();
    points.filter(|point| point.starts_with("lane/"))
}

async fn tell_all(deaths: Vec<Death>) {
    let mut left = deaths.into_iter();
    let mut told = tokio::task::JoinSet::new();
    loop {
        while told.len() < AT_ONCE {
            let Some(death) = left.next() else { break };
            told.spawn(async move {
                println!("{death:?} (seed {})", seed());
                Story::new(death).await.tell().await;
            });
        }
        match told.join_next().await {
            Some(result) => result.unwrap(),
            None => return,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn hosts_killed_at_every_named_place_of_a_session_cost_nobody_more_than_the_credit() {
    let (_, visits) = Story::new(Death::Never).await.tell().await;
    let visited: BTreeSet<&str> = visits.iter().flatten().map(String::as_str).collect();
    let unseen: Vec<&str> = points().filter(|point| !visited.contains(point)).collect();
    assert_eq!(unseen, Vec::<&str>::new(), "every named place is come by");
    let mut deaths = Vec::new();
    for (index, point) in points().enumerate() {
        let counts = visits
            .each_ref()
            .map(|visits| visits.iter().filter(|visit| *visit == point).count() as u32);
        for (role, count) in counts.into_iter().enumerate() {
            let other = counts[1 - role] > 0 && (index as u64 + seed()) % 2 != role as u64;
            let visits = match slow() {
                true => 1..count + 1,
                false => 1..u32::from(count > 0 && !other) + 1,
            };
            deaths.extend(visits.map(|visit| Death::At {
                role,
                point: point.to_owned(),
                visit,
            }));
        }
    }
    tell_all(deaths).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hosts_killed_at_random_moments_of_a_session_cost_nobody_more_than_the_credit() {
    let (usual, _) = Story::new(Death::Never).await.tell().await;
    let mut random = StdRng::seed_from_u64(seed());
    let count = if slow() { 100 } else { 4 };
    let deaths = (0..count).map(|_| Death::After {
        role: random.gen_range(0..2),
        time: usual.mul_f64(random.gen_range(0.0..1.0)),
    });
    tell_all(deaths.collect()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_takes_no_voucher_stops_the_work_and_starts_it_again() {
    let mut story = Story::new(Death::Never).await;
    while !story.attend().await {
        story.breathe("both are there").await;
    }
    while !story.buy().await {
        story.accounts.iter_mut().for_each(|account| account.attendant = None);
        while !story.attend().await {
            story.breathe("both are there").await;
        }
    }
    let log = story.hosts[0].orders.home.join("sessions/log");
    while !log.exists() {
        story.breathe("the log is begun").await;
    }
    story.hosts[0].tell("fill lane/vouchers-before");
    story.hosts[0].tell("fill lane/log-before");
    let visits = fs::read(story.hosts[0].orders.home.join("sessions/log")).unwrap();
    // The voucher for the first request is perhaps safe, that for another is not.
    let opened = story.opened();
    let account = &mut story.accounts[0];
    account.sequence += 1;
    let unsafe_voucher = voucher(
        &opened,
        1,
        account.sequence,
        units(account.owed.requests + 1, account.owed.units_in + 3),
    );
    let attendant = account.attendant.as_mut().unwrap();
    attendant.sends(&unsafe_voucher).await;
    attendant
        .stream
        .is_refused(Code::Failed, "vouchers cannot be kept")
        .await;
    attendant.gives(request(90, &[1, 2], &TEXTS), &TEXTS).await;
    attendant
        .stream
        .is_refused(Code::Failed, "vouchers cannot be kept")
        .await;
    assert_eq!(
        fs::read(story.hosts[0].orders.home.join("sessions/log")).unwrap().len(),
        visits.len()
    );
    story.hosts[0].tell("empty lane/vouchers-before");
    story.hosts[0].tell("empty lane/log-before");
    let attendant = story.accounts[0].attendant.as_mut().unwrap();
    let mut number = 100;
    let receipt = loop {
        number += 1;
        attendant.asks_for(number, &["a"]).await;
        let answer = attendant.stream.find(|said| match said {
            Said::Receipt(_) => Some(true),
            Said::Refused(refused) => {
                assert_eq!(refused.code(), Code::Failed, "{refused:?}");
                Some(false)
            }
            _ => None,
        });
        if answer.await.unwrap() {
            break number;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert!(number < 400, "it never works again");
    };
    assert!(receipt > 100);
}
