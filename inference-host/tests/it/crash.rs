//! Hosts that are killed, as the system kills, wherever it hurts; and what they still owe to whom afterwards.
//!
//! Two processes serve one item: the first span and the last. Whatever either of them has said to a relayer, a neighbour or the developer
//! is written down here and must be said again, to the bit, by whatever process comes after it. A process that comes back computes other last
//! bits, as another machine of its class may: a receipt that is made anew is seen to be another one.

use std::{
    collections::BTreeSet,
    fs,
    path::Path,
    time::{Duration, Instant},
};

use axum::{extract, routing::get, Router};
use inference_host::decode_rows;
use rand::{rngs::StdRng, Rng, SeedableRng};
use schema::{
    merkle,
    receipt::SignedAcknowledgement,
    work::{WorkState, WorkStatus},
    Digest,
};

use crate::{
    kit::{item, Market, Provider},
    process::{ChainFile, Orders, Process, CLASS},
};

const TEXTS: [&str; 3] = ["hello world", "a", "b c a"];
/// Long enough for a busy machine to start four processes.
const DEADLINE_SECONDS: u64 = 300;
/// How long a story may take.
const PATIENCE: Duration = Duration::from_secs(240);
/// Stories that are told at the same time.
const AT_ONCE: usize = 4;

/// The places of jobs; those of sessions have stories of their own.
fn points() -> impl Iterator<Item = &'static str> {
    let points = inference_host::POINTS.iter().copied();
    points.filter(|point| !point.starts_with("lane/"))
}

pub(crate) fn slow() -> bool {
    std::env::var("FXN_SLOW").is_ok_and(|slow| slow == "1")
}

pub(crate) fn seed() -> u64 {
    std::env::var("FXN_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
        .unwrap_or(7)
}

/// When and whom to kill.
#[derive(Debug, Clone)]
pub(crate) enum Death {
    Never,
    /// At a named place, at this visit.
    At {
        role: usize,
        point: String,
        visit: u32,
    },
    /// At some moment.
    After {
        role: usize,
        time: Duration,
    },
}

/// What somebody was told, and will hear again.
#[derive(Debug, Default)]
struct Promises {
    receipts: [Option<Digest>; 2],
    acknowledgement: Option<SignedAcknowledgement>,
    done: [Option<WorkStatus>; 2],
    output: Option<Vec<u8>>,
}

impl Promises {
    fn hear(&mut self, role: usize, status: &WorkStatus) {
        for (span, link) in status.links.iter().enumerate() {
            let receipt = link.receipt.receipt.digest();
            let known = self.receipts[span].get_or_insert(receipt);
            assert_eq!(*known, receipt, "span {span} has signed two different receipts");
            if let Some(acknowledgement) = &link.acknowledgement {
                let known = self.acknowledgement.get_or_insert_with(|| acknowledgement.clone());
                assert_eq!(known, acknowledgement, "two different acknowledgements");
            }
        }
        if role == 1 && self.acknowledgement.is_some() {
            assert!(!status.links.is_empty(), "acknowledged rows are forgotten: {status:?}");
        }
        if let Some(done) = &self.done[role] {
            assert_eq!(done, status, "what was done is told differently");
        } else if status.state == WorkState::Done {
            self.done[role] = Some(status.clone());
        }
        assert_ne!(status.state, WorkState::Failed, "{:?}", status.error);
    }
}

/// One telling: a market of two processes, and what they have promised.
pub(crate) struct Story {
    _folder: tempfile::TempDir,
    market: Market,
    pub(crate) hosts: [Process; 2],
    chain: ChainFile,
    chain_path: std::path::PathBuf,
    promises: Promises,
    begun: Instant,
    death: Death,
}

impl Story {
    pub(crate) async fn new(death: Death) -> Self {
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
        // Their doubles in this process never start: they lend their deployments and spans.
        let doubles = ["first", "last"].map(|name| {
            let folder = inference_host::Source::Folder(market.tiny.folder.path().into());
            Provider::new(name, market.chain.clone(), folder)
        });
        doubles[0].deploy("demo/tiny", CLASS, 1, 0, 0);
        doubles[1].deploy("demo/tiny", CLASS, 2, 1, 2);
        let mut assignment = market.assign(1, &TEXTS, &[(&doubles[0], 1, 0, 0), (&doubles[1], 2, 1, 2)]);
        assignment.deadline += DEADLINE_SECONDS;
        assignment.evidence_until = assignment.deadline + 10;
        let chain = ChainFile {
            input: TEXTS.map(|text| text.as_bytes().to_vec()).to_vec(),
            assignments: vec![assignment],
            sessions: Vec::new(),
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
            market,
            hosts,
            chain,
            chain_path,
            promises: Promises::default(),
            begun: Instant::now(),
            death,
        }
    }

    /// From the first start to the last file that is forgotten. Answers how long it took.
    async fn tell(&mut self) -> Duration {
        self.until_done().await;
        for host in &mut self.hosts {
            host.kill();
        }
        // A second telling of everything that was promised, by other processes.
        let output = self.promises.output.take();
        self.until_done().await;
        assert_eq!(self.promises.output, output, "another output");
        self.chain.ahead_seconds = DEADLINE_SECONDS + 3600;
        self.chain.write(&self.chain_path);
        while !self.hosts.iter().all(|host| forgotten(&host.orders.home)) {
            self.breathe("work past its window is forgotten").await;
        }
        let took = self.begun.elapsed();
        // Later visits may be fewer than in the telling that counted them: pushes are tried again while a host is away.
        if let Death::At { role, point, visit: 1 } = &self.death {
            assert!(self.hosts[*role].deaths > 1, "{point} was never come by: nobody died");
        }
        for host in &mut self.hosts {
            host.kill();
            nothing_is_left(&host.orders.home);
        }
        took
    }

    pub(crate) async fn until_done(&mut self) {
        loop {
            self.breathe("the item is done").await;
            for role in [1, 0] {
                if let Some(status) = self.hosts[role].begin(item(1)).await {
                    self.promises.hear(role, &status);
                }
            }
            let Some(last) = self.promises.done[1].clone() else {
                continue;
            };
            if self.promises.done[0].is_none() {
                continue;
            }
            assert!(last.complete);
            let digest = last.links[1].receipt.receipt.output_digest;
            let developer = &self.market.developer;
            let output = self.hosts[1]
                .output(&self.chain.assignments[0], digest, developer)
                .await;
            if let Some(output) = output {
                assert_eq!(merkle::root(decode_rows(&output).unwrap()), digest);
                self.promises.output = Some(output);
                // Both have said it in this telling.
                if self.both_say_done().await {
                    return;
                }
            }
        }
    }

    async fn both_say_done(&mut self) -> bool {
        for role in 0..2 {
            match self.hosts[role].begin(item(1)).await {
                Some(status) => self.promises.hear(role, &status),
                None => return false,
            }
        }
        true
    }

    pub(crate) async fn breathe(&mut self, what: &str) {
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
            self.promises
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Serves the model's blobs over HTTP.
pub(crate) async fn serve_blobs(folder: &Path) -> String {
    let manifest = folder.join("manifest.json");
    let folder = folder.join("blobs");
    let answer = |content: std::io::Result<Vec<u8>>| content.map_err(|_| axum::http::StatusCode::NOT_FOUND);
    let blob = move |extract::Path(name): extract::Path<String>| async move { answer(fs::read(folder.join(name))) };
    let router = Router::new()
        .route("/blobs/{name}", get(blob))
        .route("/manifest.json", get(move || async move { answer(fs::read(manifest)) }));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    url
}

pub(crate) fn entries(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect()
}

fn forgotten(home: &Path) -> bool {
    home.join("work").exists() && entries(&home.join("work")).is_empty()
}

/// No temporary file, no half download, nothing that was taken for corrupt.
fn nothing_is_left(home: &Path) {
    let known = ["blobs", "work", "sessions", "host.json", "host.lock", "host.token"];
    for name in entries(home) {
        assert!(known.contains(&name.as_str()), "{name} is left in the home");
    }
    assert_eq!(entries(&home.join("work")), Vec::<String>::new());
    for name in entries(&home.join("blobs")) {
        assert!(name.parse::<Digest>().is_ok(), "{name} is left with the blobs");
    }
}

/// Tells stories, a few at a time.
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
async fn hosts_killed_at_every_named_place_keep_every_promise() {
    let mut plain = Story::new(Death::Never).await;
    plain.tell().await;
    let visits = plain.hosts.each_ref().map(Process::visits);
    let visited: BTreeSet<&str> = visits.iter().flatten().map(String::as_str).collect();
    let named: BTreeSet<&str> = points().collect();
    assert_eq!(visited, named, "every named place is come by, and has a name");
    let mut deaths = Vec::new();
    for (index, point) in points().enumerate() {
        let counts = visits
            .each_ref()
            .map(|visits| visits.iter().filter(|visit| *visit == point).count() as u32);
        for (role, count) in counts.into_iter().enumerate() {
            // The short size kills one of the two that come by, at its first visit.
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
async fn hosts_killed_at_random_moments_keep_every_promise() {
    let usual = Story::new(Death::Never).await.tell().await;
    let mut random = StdRng::seed_from_u64(seed());
    let count = if slow() { 100 } else { 4 };
    let deaths = (0..count).map(|_| Death::After {
        role: random.gen_range(0..2),
        time: usual.mul_f64(random.gen_range(0.0..1.0)),
    });
    tell_all(deaths.collect()).await;
}
